"""How each network attacker is trained. Sizes and schedules are OURS: the papers do not publish theirs.

All were chosen on enrolment data and on auxiliary cohorts, never on a probe.
"""

from dataclasses import dataclass

from ecgstudy.augment import Augmentation


@dataclass(frozen=True)
class Recipe:
    """One network attacker.

    Attributes
    ----------
    model : str
        Key of :data:`ecgstudy.models.MODELS`.
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
    """

    model: str
    beats: bool = False
    seconds: float = 3.0
    pretraining_epochs: int = 12
    epochs: int = 12
    pretraining_rate: float = 5e-3
    learning_rate: float = 3e-3
    batch_size: int = 64
    noise: float = 0.15

    @property
    def augmentation(self) -> Augmentation:
        """Wander and noise; gain is left out because windows are standardised."""
        return Augmentation(gain=0.0, noise=self.noise, wander=0.1)


NETWORKS = {
    "transecg": Recipe("transecg", epochs=16, pretraining_epochs=16, pretraining_rate=2e-3, learning_rate=2e-3),
    "resnet1d": Recipe("resnet1d"),
    "resnet1d_beat": Recipe("resnet1d", beats=True),
}
"""Network attackers by their name in metrics."""

ROWS_PER_PERSON = 16
"""Training rows of each person an epoch, so that a person with many records does not dominate."""
AUXILIARY_ROWS = 3
"""The same for the persons of auxiliary cohorts, of whom there are thousands."""
ROW_S = 8.0
"""Seconds of a training row at most; each epoch cuts the network's input at a random place in it."""
MOST_WINDOWS = 40
"""Windows (or averaged beats) of a segment that are embedded at most, evenly spread."""
AGE_EDGES = (0, 30, 45, 60, 200)
AGE_GROUPS = ("under 30", "30-44", "45-59", "60 and over")
SEXES = ("F", "M")
