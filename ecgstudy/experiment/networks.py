"""Network attackers: training sets of balanced persons, pre-training, embeddings and demographics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ecgstudy.evaluate.splits import SUBJECT
from ecgstudy.experiment.dataset import (
    BEAT_AFTER_S,
    BEAT_BEFORE_S,
    Signals,
    averaged_beats,
    free_windows,
    records_of,
)
from ecgstudy.experiment.people import targets, trainable_classes
from ecgstudy.experiment.recipes import AUXILIARY_ROWS, COMPANIONS, MOST_WINDOWS, ROW_S, ROWS, Recipe
from ecgstudy.learn.models import create_model
from ecgstudy.learn.base import PERSON, SignalModel
from ecgstudy.learn.batches import WindowSet, standardise
from ecgstudy.learn.train import TrainingSettings, fit

LEAD = "identity"


@dataclass(frozen=True)
class Rows:
    """Training rows: windows of shape (n, n_samples) with the person and the record of each."""

    windows: np.ndarray
    persons: np.ndarray
    records: np.ndarray

    def joined(self, other: "Rows") -> "Rows":
        """Both, cut to the shorter of the two lengths."""
        length = min(self.windows.shape[1], other.windows.shape[1])
        windows = np.concatenate([self.windows[:, :length], other.windows[:, :length]])
        persons = np.concatenate([self.persons, other.persons])
        return Rows(windows, persons, np.concatenate([self.records, other.records]))


@dataclass(frozen=True)
class Auxiliary:
    """What auxiliary cohorts lend to a training: their network and their segments."""

    model: SignalModel
    segments: pd.DataFrame

    def companions(self, n: int, seed: int) -> pd.DataFrame:
        """Draw the segments of `n` auxiliary classes."""
        classes = np.random.default_rng(seed).permutation(self.segments[SUBJECT].unique())[:n]
        return self.segments[self.segments[SUBJECT].isin(classes)].reset_index(drop=True)


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
        From :func:`ecgstudy.experiment.people.people_table`.
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

    def pretrain(self, segments: pd.DataFrame, seed: int) -> SignalModel:
        """Train on the classes of auxiliary cohorts."""
        settings = self._settings(self.recipe.pretraining_epochs, seed)
        rows = self._rows(segments, AUXILIARY_ROWS, seed)
        return self._fit(rows, None, seed, settings, self.recipe.pretraining_rate, None)

    def train(
        self, segments: pd.DataFrame, validation: pd.DataFrame | None, seed: int, auxiliary: Auxiliary | None
    ) -> SignalModel:
        """Train on the persons at hand, from the auxiliary cohorts' network and along with some of their classes.

        The epoch is chosen by the loss on `validation`, segments of the same persons; without it the last is kept.
        """
        settings = self._settings(self.recipe.epochs, seed)
        rows = self._rows(segments, max(1, ROWS // segments[SUBJECT].nunique()), seed)
        if auxiliary:
            rows = rows.joined(self._rows(auxiliary.companions(COMPANIONS, seed), AUXILIARY_ROWS, seed))
        start = auxiliary.model if auxiliary else None
        return self._fit(rows, validation, seed, settings, self.recipe.learning_rate, start)

    def untrained(self, seed: int) -> SignalModel:
        """Network with its initial weights, the control."""
        return self._create({PERSON: ("nobody", "anybody")}, self.recipe.learning_rate, seed).eval()

    def _settings(self, epochs: int, seed: int) -> TrainingSettings:
        recipe = self.recipe
        return TrainingSettings(epochs, recipe.batch_size, seed, augmentation=recipe.augmentation)

    def _create(self, classes: Mapping[str, Sequence[str]], rate: float, seed: int) -> SignalModel:
        shape = {"n_leads": 1, "n_samples": self.n_samples, "fs": self.signals.fs, "lead_names": [LEAD]}
        return create_model(self.recipe.model, seed, classes=classes, learning_rate=rate, **shape)

    def _fit(
        self,
        rows: Rows,
        validation: pd.DataFrame | None,
        seed: int,
        settings: TrainingSettings,
        rate: float,
        start: SignalModel | None,
    ) -> SignalModel:
        """Build the sets, take over the trunk of `start`, and train or load."""
        classes = trainable_classes(rows.persons, self.people)
        model = self._create(classes, rate, seed)
        if start is not None:
            trunk = {k: v for k, v in start.state_dict().items() if not k.startswith("heads.")}
            model.load_state_dict(trunk, strict=False)
        chosen_on = None
        if validation is not None:
            windows, owners = self.inputs(validation)
            held = Rows(windows, validation[SUBJECT].to_numpy(dtype=str)[owners], records_of(validation, owners))
            chosen_on = self._window_set(held, classes) if len(windows) else None
        train = self._window_set(rows, classes)
        return fit(model, train, chosen_on, settings, self.runs, self.device).model

    def _rows(self, segments: pd.DataFrame, each: int, seed: int) -> Rows:
        """Draw the same number of rows for every person, longer than the network reads where there is room."""
        rng = np.random.default_rng([seed, each])
        if self.recipe.beats:
            windows, owners = averaged_beats(self.signals, segments, each, rng)
        else:
            windows, owners = free_windows(self.signals, segments, self._row_length(segments), each)
        persons = segments[SUBJECT].to_numpy(dtype=str)[owners]
        order = np.argsort(persons, kind="stable")
        groups = np.split(order, np.flatnonzero(persons[order][1:] != persons[order][:-1]) + 1)
        drawn = np.concatenate([_draw(group, each, rng) for group in groups])
        return Rows(windows[drawn], persons[drawn], records_of(segments, owners)[drawn])

    def _row_length(self, segments: pd.DataFrame) -> int:
        """Choose the length of a training row: as long as the shortest segment that holds a window, up to a limit."""
        lengths = segments["stop"] - segments["start"]
        shortest = int(lengths[lengths >= self.n_samples].min())
        return min(shortest, round(ROW_S * self.signals.fs))

    def _window_set(self, rows: Rows, classes: dict[str, tuple[str, ...]]) -> WindowSet:
        """Windows with the targets of every head."""
        goals = targets(rows.persons, self.people, classes)
        return WindowSet(standardise(rows.windows)[:, None], goals, rows.persons, rows.records)

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
