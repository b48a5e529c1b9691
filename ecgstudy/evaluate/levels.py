"""Verification: trials of a score matrix, their weighted counts by ascending score, and EER, TAR at a FAR, DET, AUROC.

Scores are sorted once; a bootstrap then only adds up other weights. Neighbouring scores of one label are merged into
one level, because no threshold between them changes anything but a corner of the DET curve that lies on a straight
line: EER, TAR at a FAR, AUROC and isotonic (PAV) calibration are the same. Equal scores always share a level.

A threshold t accepts every score >= t. FAR(t) is the share of impostor trials accepted, FRR(t) the share of genuine
trials rejected (ISO/IEC 19795-1). Gaussian scores that lie d' apart have EER = Phi(-d'/2).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ecgstudy.errors import StudyError
from ecgstudy.evaluate.bootstrap import Resamples

# Sums of products of resampling weights carry rounding of about 1e-13; one trial is never that small a share.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class ScoreLevels:
    """Summed weight of the genuine and of the impostor trials at each score level, ascending, float64 (n_levels,)."""

    genuine: np.ndarray
    impostor: np.ndarray

    @classmethod
    def from_scores(cls, genuine: ArrayLike, impostor: ArrayLike) -> "ScoreLevels":
        """Levels of unweighted genuine and impostor scores (1-D, higher = more similar)."""
        genuine, impostor = np.ravel(genuine), np.ravel(impostor)
        label = np.repeat([True, False], [genuine.size, impostor.size])
        return SortedScores(np.concatenate([genuine, impostor]), label).levels()

    @property
    def totals(self) -> tuple[float, float]:
        """Weight of all genuine and of all impostor trials."""
        return self.genuine.sum(), self.impostor.sum()

    @property
    def one_sided(self) -> bool:
        """Whether there is no genuine or no impostor weight."""
        return min(self.totals) <= 0


class SortedScores:
    """Labelled scores (n_trials,) in ascending order, ready to be counted under many weightings; NaN is refused.

    `order` are the positions that sort the scores, `genuine` the labels in that order.
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
    starts = np.flatnonzero(np.concatenate([[True], ascending[1:] != ascending[:-1]]))
    n_genuine = np.add.reduceat(genuine.astype(np.int64), starts)
    size = np.diff(np.append(starts, ascending.size))
    label = np.where(n_genuine == size, 1, np.where(n_genuine == 0, 0, 2))
    return starts[np.concatenate([[True], (label[1:] != label[:-1]) | (label[1:] == 2)])]


class Trials:
    """Every probe against every gallery entry of a score matrix (n_probe, n_gallery), sorted by score.

    A person may own several rows and columns; `resamples` must include everybody who appears here.
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
        self._sorted = SortedScores(matrix, probe[:, None] == gallery[None, :])
        self.genuine = self._sorted.genuine
        self.scores, self.probe, self.gallery = (
            values.ravel()[self._sorted.order]
            for values in (matrix, np.repeat(probe, gallery.size), np.tile(gallery, probe.size))
        )
        self.n_genuine = int(np.count_nonzero(self.genuine))
        self.n_impostor = self.genuine.size - self.n_genuine
        # each pair of persons weighs the same in all; each label keeps its number of trials
        self._balance = 1.0 / (np.bincount(probe)[self.probe] * np.bincount(gallery)[self.gallery])
        for label in (self.genuine, ~self.genuine):
            if label.any():
                self._balance[label] *= np.count_nonzero(label) / self._balance[label].sum()

    def weights(self, multiplicity: np.ndarray, balanced: bool = False) -> np.ndarray:
        """Weight of each trial, in sorted order, when person p was drawn ``multiplicity[p]`` times.

        With `balanced` every pair of a probe person and a gallery person weighs the same, however many records the two
        have, so that rates are averages over persons instead of over trials.
        """
        weights = multiplicity[self.probe]
        weights = np.where(self.genuine, weights, weights * multiplicity[self.gallery])
        return weights * self._balance if balanced else weights

    def levels(self, weights: np.ndarray) -> ScoreLevels:
        """Score levels under weights that :meth:`weights` gave."""
        return self._sorted.levels(weights)

    def problem(self, far: float | None = None) -> str:
        """Why EER, or TAR at `far`, is undefined here; empty where it is not."""
        if not self.n_genuine:
            return "no person has both a probe and a gallery entry, so there is no genuine trial"
        if not self.n_impostor:
            return "one person only, so there is no impostor trial"
        if far is not None and self.n_impostor < math.ceil(1 / far - 1e-9):
            return f"{self.n_impostor} impostor trials cannot resolve a FAR of {far:g}"
        return ""


def eer(levels: ScoreLevels) -> float:
    """Equal error rate: where the DET curve, joined by straight lines, meets FAR = FRR; NaN where a label is absent.

    Without ties between genuine and impostor scores the curve has only horizontal and vertical steps and the EER is the
    FAR or FRR of the step that crosses; a tie is a sloping step and is interpolated linearly, so that constant scores
    give exactly 0.5. This is the area-preserving (trapezoidal) ROC convention.
    """
    if levels.one_sided:
        return math.nan
    n_genuine, n_impostor = levels.totals
    genuine_to_here, impostor_to_here = np.cumsum(levels.genuine), np.cumsum(levels.impostor)
    impostor_above = impostor_to_here[-1] - impostor_to_here
    # the level at which FAR - FRR turns negative as the threshold passes it
    level = int(np.argmax(impostor_above * genuine_to_here[-1] - genuine_to_here * impostor_to_here[-1] < 0))
    far_above = levels.impostor[level + 1 :].sum() / n_impostor
    frr_below = levels.genuine[:level].sum() / n_genuine
    # one of the two rates stands still over a level of a single label: return it, free of rounding
    if levels.impostor[level] == 0:
        return float(far_above)
    if levels.genuine[level] == 0:
        return float(frr_below)
    far_here, frr_here = levels.impostor[level] / n_impostor, levels.genuine[level] / n_genuine
    share = (far_above + far_here - frr_below) / (far_here + frr_here)
    return float(frr_below + share * frr_here)


def tar_at_far(levels: ScoreLevels, far: float) -> float:
    """Compute the true acceptance rate at the lowest threshold whose FAR does not exceed `far`; no interpolation.

    NaN without a genuine trial or with fewer impostor trials than 1/far, which cannot tell such a FAR from 0.
    """
    n_genuine, n_impostor = levels.totals
    if n_genuine <= 0 or n_impostor * far < 1 - _ROUNDING:
        return math.nan
    impostor_from_here = np.cumsum(levels.impostor[::-1])[::-1]
    allowed = far * impostor_from_here[0] * (1 + _ROUNDING)
    return float(levels.genuine[np.count_nonzero(impostor_from_here > allowed) :].sum() / n_genuine)


def threshold_at_far(impostor: ArrayLike, far: float, weights: np.ndarray | None = None) -> float:
    """Score that must be exceeded (strictly) so that at most a share `far` of the (weighted) impostor scores passes.

    NaN with fewer impostor trials than 1/far; minus infinity where everything may be accepted.
    """
    scores = np.ravel(impostor)
    weights = np.ones(scores.size) if weights is None else weights
    if weights.sum() * far < 1 - _ROUNDING:
        return math.nan
    descending = np.argsort(-scores, kind="stable")
    accepted = np.cumsum(weights[descending])
    first_refused = int(np.searchsorted(accepted, far * accepted[-1] * (1 + _ROUNDING), side="right"))
    return float(scores[descending[first_refused]]) if first_refused < scores.size else -math.inf


def det_curve(levels: ScoreLevels) -> tuple[np.ndarray, np.ndarray]:
    """Corner points of the DET curve: FAR and FRR, each of shape (n_levels + 1,), from FAR 1 to FAR 0.

    Both are NaN without a genuine or without an impostor trial. Points between two others on a line are left out.
    """
    n_genuine, n_impostor = levels.totals
    with np.errstate(invalid="ignore"):
        far = np.append(np.cumsum(levels.impostor[::-1])[::-1], 0.0) / n_impostor
        frr = np.concatenate([[0.0], np.cumsum(levels.genuine)]) / n_genuine
    return far, frr


def auroc(levels: ScoreLevels) -> float:
    """Probability that a genuine score exceeds an impostor one, ties counting half; NaN where a label is absent."""
    if levels.one_sided:
        return math.nan
    n_genuine, n_impostor = levels.totals
    impostor_below = np.cumsum(levels.impostor) - levels.impostor / 2
    return float(levels.genuine @ impostor_below / (n_genuine * n_impostor))
