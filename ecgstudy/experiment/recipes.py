"""How each network attacker is trained. Sizes and schedules are OURS: the papers do not publish theirs.

All were chosen on enrolment data and on auxiliary cohorts, never on a probe.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ecgstudy.learn.batches import Augmentation


@dataclass(frozen=True)
class Recipe:
    """One network attacker.

    Attributes
    ----------
    model : str
        Key of :data:`ecgstudy.learn.MODELS`.
    beats : bool
        Reads averaged beats instead of free windows.
    seconds : float
        Length of the network's input (free windows).
    pretraining_epochs, epochs : int
        On the auxiliary cohorts, and then on the persons at hand.
    learning_rate, pretraining_rate : float
        Highest rates of the two one-cycle schedules.
    batch_size : int
        Windows a step.
    noise : float
        Augmentation noise, in standard deviations of a window.
    auxiliary_leads : tuple of str
        Leads of the auxiliary cohorts that are trained on; each lead of a person counts as a class of its own.
    """

    model: str
    beats: bool = False
    seconds: float = 4.0
    pretraining_epochs: int = 12
    epochs: int = 20
    pretraining_rate: float = 5e-3
    learning_rate: float = 3e-3
    batch_size: int = 64
    noise: float = 0.15
    auxiliary_leads: tuple[str, ...] = ("I",)

    @property
    def augmentation(self) -> Augmentation:
        """Wander and noise; gain is left out because windows are standardised."""
        return Augmentation(gain=0.0, noise=self.noise, wander=0.1)


NETWORKS = {
    "transecg": Recipe("transecg", pretraining_epochs=30, epochs=40, pretraining_rate=2e-3, learning_rate=2e-3),
    "resnet1d": Recipe("resnet1d", batch_size=96, auxiliary_leads=("I", "II")),
    "beatnet": Recipe(
        "beatnet",
        beats=True,
        pretraining_epochs=18,
        epochs=12,
        batch_size=192,
        noise=0.1,
        auxiliary_leads=("I", "II", "V2", "V5"),
    ),
}
"""Network attackers by their name in metrics. Trained until the loss on the validation part no longer falls."""

DEMO_EPOCHS = 5
"""The demo shows that the study runs: its networks stay under-trained."""

ROWS = 960
"""Training rows of the persons at hand an epoch, shared equally: a person with many records does not dominate."""
AUXILIARY_ROWS = 3
"""Training rows of each class of the auxiliary cohorts an epoch, of which there are thousands."""
COMPANIONS = 160
"""Auxiliary classes that are trained along with the persons at hand, so that few persons do not narrow the network."""
ROW_S = 8.0
"""Seconds of a training row at most; each epoch cuts the network's input at a random place in it."""
MOST_WINDOWS = 40
"""Windows (or averaged beats) of a segment that are embedded at most, evenly spread."""
AGE_EDGES = (0, 30, 45, 60, 200)
AGE_GROUPS = ("under 30", "30-44", "45-59", "60 and over")
SEXES = ("F", "M")


def recipes_of(profile: str) -> Mapping[str, Recipe]:
    """How a profile trains each network attacker."""
    if profile != "demo":
        return NETWORKS
    return {
        name: replace(recipe, pretraining_epochs=DEMO_EPOCHS, epochs=DEMO_EPOCHS) for name, recipe in NETWORKS.items()
    }
