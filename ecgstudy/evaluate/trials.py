"""Verification trials of a score matrix, and how much each weighs when persons are resampled or balanced."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from ecgstudy.errors import StudyError
from ecgstudy.evaluate.bootstrap import Resamples, Statistic
from ecgstudy.evaluate.levels import ScoreLevels, SortedScores


class Trials:
    """Every probe against every gallery entry, sorted by score.

    Parameters
    ----------
    scores : array_like
        Shape (n_probe, n_gallery), higher = more similar.
    probe_persons, gallery_persons : array_like
        Person ids of the rows and of the columns; a person may own several of each.
    resamples : Resamples
        The persons to resample; they must include everybody who appears here.

    Raises
    ------
    StudyError
        Shapes disagree, a score is not a number, or a person is not among `resamples`.
    """

    def __init__(
        self, scores: ArrayLike, probe_persons: ArrayLike, gallery_persons: ArrayLike, resamples: Resamples
    ) -> None:
        matrix = np.asarray(scores)
        probe, gallery = resamples.index_of(probe_persons), resamples.index_of(gallery_persons)
        if matrix.shape != (probe.size, gallery.size):
            raise StudyError(
                f"The score matrix is {matrix.shape}, but there are {probe.size} probes and {gallery.size} gallery "
                "entries; give one person id a row and one a column."
            )
        genuine = probe[:, None] == gallery[None, :]
        self._sorted = SortedScores(matrix, genuine)
        self.scores = matrix.ravel()[self._sorted.order]
        self.genuine = self._sorted.genuine
        self.probe = np.repeat(probe, gallery.size)[self._sorted.order]
        self.gallery = np.tile(gallery, probe.size)[self._sorted.order]
        self._n_all = resamples.persons.size
        self._balance = self._balanced(
            np.bincount(probe, minlength=self._n_all), np.bincount(gallery, minlength=self._n_all)
        )

    @property
    def n_genuine(self) -> int:
        """Genuine trials."""
        return int(np.count_nonzero(self.genuine))

    @property
    def n_impostor(self) -> int:
        """Impostor trials."""
        return self.genuine.size - self.n_genuine

    @property
    def n_persons(self) -> int:
        """Persons with a genuine trial."""
        return np.unique(self.probe[self.genuine]).size

    def weights(self, multiplicity: np.ndarray, balanced: bool) -> np.ndarray:
        """Weight of each trial, in sorted order, when person p was drawn ``multiplicity[p]`` times.

        With `balanced` every pair of a probe person and a gallery person weighs the same, however many
        records the two have, so that rates are averages over persons instead of over trials.
        """
        weights = multiplicity[self.probe]
        weights = np.where(self.genuine, weights, weights * multiplicity[self.gallery])
        return weights * self._balance if balanced else weights

    def levels(self, multiplicity: np.ndarray, balanced: bool = False) -> ScoreLevels:
        """Score levels under :meth:`weights`."""
        return self.weighted_levels(self.weights(multiplicity, balanced))

    def weighted_levels(self, weights: np.ndarray) -> ScoreLevels:
        """Score levels under weights that :meth:`weights` gave."""
        return self._sorted.levels(weights)

    def statistic(self, metric: Callable[[ScoreLevels], float], balanced: bool = False) -> Statistic:
        """`metric` of the score levels as a function of the persons' multiplicities, for the bootstrap."""
        return lambda multiplicity: metric(self.levels(multiplicity, balanced))

    def problem(self, far: float | None = None) -> str | None:
        """Why EER, or TAR at `far`, is undefined here; None where it is not."""
        if not self.n_genuine:
            return "no person has both a probe and a gallery entry, so there is no genuine trial"
        if not self.n_impostor:
            return "one person only, so there is no impostor trial"
        if far is not None and self.n_impostor < math.ceil(1 / far - 1e-9):
            return f"{self.n_impostor} impostor trials cannot resolve a FAR of {far:g}"
        return None

    def _balanced(self, n_probe: np.ndarray, n_gallery: np.ndarray) -> np.ndarray:
        """Weights that give each person pair the same total; each label keeps its number of trials in all."""
        weights = 1.0 / (n_probe[self.probe] * n_gallery[self.gallery])
        for label in (self.genuine, ~self.genuine):
            if label.any():
                weights[label] *= np.count_nonzero(label) / weights[label].sum()
        return weights
