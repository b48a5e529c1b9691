"""Attackers: whatever turns a split's segments into embeddings, learnt or not."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ecgstudy.evaluate.splits import SUBJECT, Split
from ecgstudy.experiment.dataset import Signals
from ecgstudy.experiment.feature_windows import segment_features
from ecgstudy.experiment.networks import Auxiliary, Trainer
from ecgstudy.experiment.people import CLASSES, group_ages, targets, trainable_classes
from ecgstudy.learn.base import SignalModel
from ecgstudy.learn.classical import FeaturesGbm
from ecgstudy.learn.scoring import class_probabilities, embed_windows, unit_rows
from ecgstudy.learn.classical import template_embeddings
from ecgstudy.signals.preprocess import resample

TEMPLATE_FS = 500.0
"""Hz. Beats are averaged at the rate at which R peaks are known, or their slopes blur."""
AGREEMENT_ROUNDS = 3
AGREEMENT_POWER = 4


@dataclass(frozen=True)
class Embedded:
    """Segments as an attacker sees them.

    Attributes
    ----------
    vectors : numpy.ndarray
        Shape (n_segments, d), rows of unit length; NaN for a segment without a usable window or beat.
    probabilities : dict of str to numpy.ndarray
        Class probabilities of each task of :data:`CLASSES` that was trained, shape (n_segments, n_classes).
    """

    vectors: np.ndarray
    probabilities: dict[str, np.ndarray] = field(default_factory=dict)


class Fitted(ABC):
    """An attacker after training."""

    ages: np.ndarray | None = None
    """Mean age of the training persons of each age group, in years."""

    @abstractmethod
    def embed(self, segments: pd.DataFrame) -> Embedded:
        """Embed segments of a split."""


class FittedNetwork(Fitted):
    """A trained network with the windows it reads."""

    def __init__(self, model: SignalModel, trainer: Trainer, ages: np.ndarray | None = None) -> None:
        self._model = model
        self._trainer = trainer
        self.ages = ages

    def embed(self, segments: pd.DataFrame) -> Embedded:
        """Embed every window and pool the windows of a segment by their agreement."""
        windows, owners = self._trainer.inputs(segments)
        if not len(windows):
            return Embedded(np.full((len(segments), self._model.hparams.embedding_dim), np.nan))
        vectors = embed_windows(self._model, windows[:, None])
        known = [task for task in self._model.classes if task in CLASSES] if self.ages is not None else []
        probabilities = {
            task: _mean_by_owner(
                class_probabilities(self._model, windows[:, None], task, CLASSES[task]), owners, len(segments)
            )
            for task in known
        }
        return Embedded(agreement_pool(vectors, owners, len(segments)), probabilities)


class FittedTemplate(Fitted):
    """Average beats; nothing is learnt."""

    def __init__(self, signals: Signals) -> None:
        self._signals = signals
        self._matcher = TemplateMatcher(TEMPLATE_FS)

    def embed(self, segments: pd.DataFrame) -> Embedded:
        """Embed every segment as its average beat."""
        spans = [(row.record_id, row.start, row.stop) for row in segments.itertuples()]
        fs = self._signals.fs
        fine = [resample(self._signals.segment(*span)[None], fs, TEMPLATE_FS) for span in spans]
        peaks = [np.rint(self._signals.peaks(*span) * TEMPLATE_FS / fs).astype(np.int64) for span in spans]
        return Embedded(self._matcher.embed(fine, peaks))


class FittedFeatures(Fitted):
    """Gradient-boosted trees over PQRST features, one booster for persons and one a demographic task."""

    def __init__(self, signals: Signals, boosters: dict[str, FeaturesGbm], ages: np.ndarray) -> None:
        self._signals = signals
        self.boosters = boosters
        self.ages = ages

    def embed(self, segments: pd.DataFrame) -> Embedded:
        """Embed every window and average over the windows of a segment."""
        features, owners = segment_features(self._signals, segments)
        vectors = self.boosters["person"].embed(features) if len(features) else np.empty((0, 1))
        probabilities = {
            task: _mean_by_owner(self._complete(task, features), owners, len(segments))
            for task in self.boosters
            if task in CLASSES
        }
        return Embedded(agreement_pool(vectors, owners, len(segments)), probabilities)

    def _complete(self, task: str, features: pd.DataFrame) -> np.ndarray:
        """Probabilities of all classes of a task, 0 for one that no training window had."""
        booster = self.boosters[task]
        complete = np.zeros((len(features), len(CLASSES[task])))
        complete[:, booster.classes] = booster.predict_proba(features)
        return complete


def fit_network(trainer: Trainer, split: Split, seed: int, auxiliary: Auxiliary | None) -> FittedNetwork:
    """Train on a split's training part, with the help of auxiliary cohorts where there are any.

    For people never seen there is no loss on the validation persons, so the recipe's last epoch is kept.
    """
    validation = None if split.unseen_persons else split.validation
    model = trainer.train(split.train, validation, seed, auxiliary)
    return FittedNetwork(model, trainer, group_ages(split.train[SUBJECT].to_numpy(dtype=str), trainer.people))


def fit_features(signals: Signals, people: pd.DataFrame, split: Split, seed: int) -> FittedFeatures:
    """Train the feature model's boosters on the windows of a split's training part."""
    features, owners = segment_features(signals, split.train)
    persons = split.train[SUBJECT].to_numpy(dtype=str)[owners]
    classes = trainable_classes(persons, people)
    labels = targets(persons, people, classes)
    boosters = {task: FeaturesGbm(seed).fit(features, labels[task]) for task in classes}
    return FittedFeatures(signals, boosters, group_ages(persons, people))


def agreement_pool(vectors: np.ndarray, owners: np.ndarray, n: int) -> np.ndarray:
    """Mean direction of each segment's windows, where windows that disagree with it lose their weight.

    Starting from the plain mean, each window is weighted by the fourth power of its cosine with the mean,
    three times: an artefact points elsewhere and drops out.

    Parameters
    ----------
    vectors : numpy.ndarray
        Shape (n_windows, d), rows of unit length; NaN rows are left out.
    owners : numpy.ndarray
        Segment of each window, shape (n_windows,).
    n : int
        Number of segments.

    Returns
    -------
    numpy.ndarray
        Shape (n, d), rows of unit length; NaN for a segment without a window.
    """
    defined = np.isfinite(vectors).all(axis=1)
    vectors, owners = vectors[defined].astype(np.float64), owners[defined]
    weights = np.ones(len(vectors))
    pooled = np.full((n, vectors.shape[1]), np.nan)
    for _ in range(AGREEMENT_ROUNDS + 1):
        sums = np.zeros((n, vectors.shape[1]))
        np.add.at(sums, owners, vectors * weights[:, None])
        pooled = unit_rows(sums)
        agreement = np.einsum("ij,ij->i", vectors, pooled[owners])
        weights = np.clip(agreement, 0.05, None) ** AGREEMENT_POWER
    return pooled


def _mean_by_owner(values: np.ndarray, owners: np.ndarray, n: int) -> np.ndarray:
    """Mean row of each segment, NaN for a segment without any, shape (n, values.shape[1])."""
    sums, counts = np.zeros((n, values.shape[1])), np.bincount(owners, minlength=n)
    np.add.at(sums, owners, values)
    return np.divide(sums, counts[:, None], out=np.full_like(sums, np.nan), where=counts[:, None] > 0)
