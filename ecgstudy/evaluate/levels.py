"""Weighted counts of genuine and impostor trials by ascending score: what every trial metric is computed from.

Scores are sorted once; a bootstrap then only adds up other weights. Neighbouring scores of one label
are merged into one level, because no threshold between them changes anything but a corner of the DET curve
that lies on a straight line: EER, TAR at a FAR, AUROC and isotonic (PAV) calibration are the same. Equal
scores always share a level.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ecgstudy.errors import StudyError


@dataclass(frozen=True)
class ScoreLevels:
    """Weight of the trials at each score level, ascending; levels of :class:`SortedScores` all have weight.

    Attributes
    ----------
    genuine, impostor : numpy.ndarray
        float64, shape (n_levels,): summed weight of the genuine and of the impostor trials of a level.
    """

    genuine: np.ndarray
    impostor: np.ndarray

    @classmethod
    def from_scores(cls, genuine: ArrayLike, impostor: ArrayLike) -> "ScoreLevels":
        """Levels of unweighted genuine and impostor scores (1-D, higher = more similar)."""
        genuine, impostor = np.ravel(genuine), np.ravel(impostor)
        label = np.repeat([True, False], [genuine.size, impostor.size])
        return SortedScores(np.concatenate([genuine, impostor]), label).levels()


class SortedScores:
    """Labelled scores in ascending order, ready to be counted under many weightings.

    Parameters
    ----------
    scores : array_like
        Shape (n_trials,), higher = more similar; infinite scores are allowed.
    genuine : array_like
        bool, shape (n_trials,).

    Attributes
    ----------
    order : numpy.ndarray
        Positions that sort `scores` ascending, shape (n_trials,).
    genuine : numpy.ndarray
        bool labels in that order.

    Raises
    ------
    StudyError
        A score is not a number.
    """

    def __init__(self, scores: ArrayLike, genuine: ArrayLike) -> None:
        values = np.ravel(scores)
        if np.isnan(values).any():
            raise StudyError("A score is not a number; look for a record without a usable window or a failed model.")
        self.order = np.argsort(values, kind="stable")
        self.genuine = np.ravel(genuine).astype(bool)[self.order]
        self._starts = _level_starts(values[self.order], self.genuine)

    def levels(self, weights: np.ndarray | None = None) -> ScoreLevels:
        """Sum `weights` (n_trials,), given in the order of ``order``, by level; without them every trial weighs 1."""
        weights = np.ones(self.genuine.size) if weights is None else weights
        if not self.genuine.size:
            return ScoreLevels(np.zeros(0), np.zeros(0))
        genuine = np.add.reduceat(np.where(self.genuine, weights, 0.0), self._starts)
        impostor = np.add.reduceat(np.where(self.genuine, 0.0, weights), self._starts)
        weighted = (genuine > 0) | (impostor > 0)
        return ScoreLevels(genuine[weighted], impostor[weighted])


def _level_starts(ascending: np.ndarray, genuine: np.ndarray) -> np.ndarray:
    """Where each level starts: at a new score, unless it and its predecessor hold the same single label."""
    if not ascending.size:
        return np.zeros(0, dtype=np.int64)
    new = np.concatenate([[True], ascending[1:] != ascending[:-1]])
    starts = np.flatnonzero(new)
    n_genuine = np.add.reduceat(genuine.astype(np.int64), starts)
    size = np.diff(np.append(starts, ascending.size))
    label = np.where(n_genuine == size, 1, np.where(n_genuine == 0, 0, 2))
    kept = np.concatenate([[True], (label[1:] != label[:-1]) | (label[1:] == 2)])
    return starts[kept]
