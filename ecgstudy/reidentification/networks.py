"""Network attackers: training sets of balanced persons, pre-training, embeddings and demographics."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ecgstudy.models import create_model
from ecgstudy.models.base import PERSON, SignalModel
from ecgstudy.reidentification.people import targets, trainable_classes
from ecgstudy.reidentification.recipes import MOST_WINDOWS, ROW_S, Recipe
from ecgstudy.reidentification.windows import BEAT_AFTER_S, BEAT_BEFORE_S, Signals, averaged_beats, free_windows
from ecgstudy.splits.base import PERSON as SUBJECT
from ecgstudy.training import TrainingSettings, fit
from ecgstudy.training_data import WindowSet, standardise

LEAD = "identity"


@dataclass(frozen=True)
class Trainer:
    """Trains networks of one recipe and seed.

    Attributes
    ----------
    recipe : Recipe
        What to train.
    signals : Signals
        Where samples come from.
    people : pandas.DataFrame
        From :func:`ecgstudy.reidentification.people.people_table`.
    runs : pathlib.Path
        Where training runs are cached.
    device : str
        "auto", "cpu" or "cuda".
    """

    recipe: Recipe
    signals: Signals
    people: pd.DataFrame
    runs: Path
    device: str

    @property
    def n_samples(self) -> int:
        """Samples that the network reads."""
        fs = self.signals.fs
        if self.recipe.beats:
            return round(BEAT_BEFORE_S * fs) + round(BEAT_AFTER_S * fs)
        return round(self.recipe.seconds * fs)

    def pretrain(self, segments: pd.DataFrame, rows: int, seed: int) -> SignalModel:
        """Train on the persons of auxiliary cohorts."""
        settings = self._settings(self.recipe.pretraining_epochs, seed)
        return self._fit(segments, None, rows, seed, settings, self.recipe.pretraining_rate, None)

    def train(
        self, segments: pd.DataFrame, validation: pd.DataFrame | None, rows: int, seed: int, start: SignalModel | None
    ) -> SignalModel:
        """Train on the persons at hand, from a pre-trained network where there is one.

        The epoch is chosen by the loss on `validation`, segments of the same persons; without it the last is kept.
        """
        settings = self._settings(self.recipe.epochs, seed)
        return self._fit(segments, validation, rows, seed, settings, self.recipe.learning_rate, start)

    def untrained(self, seed: int) -> SignalModel:
        """Network with its initial weights, the control."""
        return self._create({PERSON: 2}, self.recipe.learning_rate, seed).eval()

    def _settings(self, epochs: int, seed: int) -> TrainingSettings:
        recipe = self.recipe
        return TrainingSettings(epochs, recipe.batch_size, seed, augmentation=recipe.augmentation)

    def _create(self, n_out: dict[str, int], rate: float, seed: int) -> SignalModel:
        shape = {"n_leads": 1, "n_samples": self.n_samples, "fs": self.signals.fs, "lead_names": [LEAD]}
        return create_model(self.recipe.model, seed, n_out=n_out, learning_rate=rate, **shape)

    def _fit(
        self,
        segments: pd.DataFrame,
        validation: pd.DataFrame | None,
        rows: int,
        seed: int,
        settings: TrainingSettings,
        rate: float,
        start: SignalModel | None,
    ) -> SignalModel:
        """Build the sets, take over the trunk of `start`, and train or load."""
        classes = trainable_classes(segments[SUBJECT].to_numpy(dtype=str), self.people)
        model = self._create({task: len(names) for task, names in classes.items()}, rate, seed)
        if start is not None:
            trunk = {k: v for k, v in start.state_dict().items() if not k.startswith("heads.")}
            model.load_state_dict(trunk, strict=False)
        train = self._training_set(segments, classes, rows, seed)
        chosen_on = None
        if validation is not None:
            windows, owners = self.inputs(validation)
            persons = validation[SUBJECT].to_numpy(dtype=str)[owners]
            chosen_on = self._window_set(windows, persons, validation, owners, classes) if len(windows) else None
        return fit(model, train, chosen_on, settings, self.runs, self.device).model

    def _training_set(
        self, segments: pd.DataFrame, classes: dict[str, tuple[str, ...]], rows: int, seed: int
    ) -> WindowSet:
        """Draw the same number of rows for every person, longer than the network reads where there is room."""
        rng = np.random.default_rng([seed, rows])
        if self.recipe.beats:
            windows, owners = averaged_beats(self.signals, segments, rows, rng)
        else:
            shortest = int((segments["stop"] - segments["start"]).clip(lower=self.n_samples).min())
            windows, owners = free_windows(self.signals, segments, min(shortest, round(ROW_S * self.signals.fs)), rows)
        persons = segments[SUBJECT].to_numpy(dtype=str)[owners]
        drawn = np.concatenate([_draw(np.flatnonzero(persons == person), rows, rng) for person in np.unique(persons)])
        return self._window_set(windows[drawn], persons[drawn], segments, owners[drawn], classes)

    def _window_set(
        self,
        windows: np.ndarray,
        persons: np.ndarray,
        segments: pd.DataFrame,
        owners: np.ndarray,
        classes: dict[str, tuple[str, ...]],
    ) -> WindowSet:
        """Windows with the targets of every head."""
        records = segments["record_id"].to_numpy(dtype=str)[owners]
        return WindowSet(standardise(windows)[:, None], targets(persons, self.people, classes), persons, records)

    def inputs(self, segments: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Windows of segments as the network reads them, and the row of the segment that each belongs to."""
        if self.recipe.beats:
            windows, owners = averaged_beats(self.signals, segments, MOST_WINDOWS)
        else:
            windows, owners = free_windows(self.signals, segments, self.n_samples, MOST_WINDOWS)
        return standardise(windows), owners


def _draw(rows: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw `n` of a person's rows: all before any twice."""
    repeats = -(-n // len(rows))
    return np.concatenate([rng.permutation(rows) for _ in range(repeats)])[:n]
