"""Score matrices: every probe against every gallery entry, as searches (identification) and as trials (verification).

Identification. A probe's score with a person is its best score over that person's gallery entries. Ties count against
the system: the rank of the true person is 1 + the number of impostors who score at least as high. Constant scores
therefore give the worst rank, never a lucky first.

Verification. A threshold t accepts every score >= t. FAR(t) is the share of impostor trials accepted, FRR(t) the share
of genuine trials rejected (ISO/IEC 19795-1). Gaussian scores that lie d' apart have EER = Phi(-d'/2). Scores are sorted
once; a bootstrap then only adds up other weights. Neighbouring scores of one label are merged into one level, because
no threshold between them changes anything but a corner of the DET curve that lies on a straight line: EER, TAR at a
FAR, AUROC and isotonic (PAV) calibration are the same. Equal scores always share a level.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import hypergeom

from ecgstudy.errors import StudyError
from ecgstudy.evaluate.bootstrap import Resamples, ratio

# Sums of products of resampling weights carry rounding of about 1e-13; one trial is never that small a share.
_ROUNDING = 1e-9
MOST_HELD_TRIALS = 1_000_000
"""A matrix of more scores is streamed (:mod:`ecgstudy.evaluate.streamed`)."""
Mean = Callable[[list[np.ndarray]], np.ndarray]
"""How scores of the same trials by several seeds or attackers become one."""
NOT_A_NUMBER = "A score is not a number; look for a record without a usable window or a failed model."


@dataclass(frozen=True)
class ScoreMatrix:
    """Scores of every probe with every gallery entry (n_probe, n_gallery; higher = more similar), and whose each is.

    A person may own several rows (`probe`) and columns (`gallery`). NaN, of what had no usable window, is to be filled
    by :meth:`without_gaps` before anything is measured.
    """

    scores: np.ndarray
    probe: np.ndarray
    gallery: np.ndarray

    def __post_init__(self) -> None:
        """Take anything like arrays; refuse scores that are not of these persons."""
        object.__setattr__(self, "scores", np.asarray(self.scores))
        for side in ("probe", "gallery"):
            object.__setattr__(self, side, np.asarray(getattr(self, side)).astype(str))
        if self.scores.shape != (self.probe.size, self.gallery.size):
            raise StudyError(
                f"The score matrix is {self.scores.shape}, but there are {self.probe.size} probes and "
                f"{self.gallery.size} gallery entries; give one person id a row and one a column."
            )

    @property
    def genuine(self) -> np.ndarray:
        """Whether each trial is of one person with itself, bool, of the scores' shape."""
        return self.probe[:, None] == self.gallery[None, :]

    @property
    def unscored(self) -> int:
        """Probes without any score."""
        return int(np.isnan(self.scores).all(axis=1).sum())

    @property
    def levels(self) -> "ScoreLevels":
        """Levels of the scores when every trial weighs 1."""
        return SortedScores(self.scores, self.genuine).levels()

    def levels_of(self, own: np.ndarray) -> "ScoreLevels":
        """Levels of the trials of some probes, `own` (n_probe,)."""
        return replace(self, scores=self.scores[own], probe=self.probe[own]).levels

    @cached_property
    def best(self) -> tuple[np.ndarray, np.ndarray]:
        """Best score of each probe with each gallery person (n_probe, n_enrolled), and its own column, -1 without."""
        enrolled, column = np.unique(self.gallery, return_inverse=True)
        if not enrolled.size:
            raise StudyError("The gallery is empty; check that the protocol left any enrolment record.")
        if np.isnan(self.scores).any():
            raise StudyError(NOT_A_NUMBER)
        by_person = np.argsort(column, kind="stable")
        starts = np.searchsorted(column[by_person], np.arange(enrolled.size))
        own = pd.Index(enrolled).get_indexer(self.probe)
        return np.maximum.reduceat(self.scores[:, by_person], starts, axis=1), own

    @cached_property
    def searches(self) -> "Searches":
        """Every probe searched in the gallery."""
        return search(*self.best)

    def combined(self, mean: Mean, others: Sequence["ScoreMatrix"]) -> "ScoreMatrix":
        """Give the same trials with a `mean` of their scores in several matrices (this one among them)."""
        return replace(self, scores=mean([other.scores for other in others]))

    def chosen(self, which: np.ndarray, matrices: Sequence["ScoreMatrix"]) -> "ScoreMatrix":
        """Give the same trials, each probe's scores those of the matrix that `which` (n_probe,) names."""
        return replace(self, scores=np.stack([one.scores for one in matrices])[which, np.arange(which.size)])

    def sampled(self) -> "ScoreMatrix":
        """Give the trials that tables and figures can hold: all."""
        return self

    def without_gaps(self) -> "ScoreMatrix":
        """Give probes and enrolled persons without a usable window the lowest score there is: they match nobody.

        ISO/IEC 19795-1 counts failures to acquire and to enrol as false rejections in just this way; every attacker
        is then judged on the same trials.
        """
        undefined = np.isnan(self.scores)
        lowest = self.scores[~undefined].min() if not undefined.all() else 0.0
        return replace(self, scores=np.where(undefined, lowest, self.scores))


@dataclass(frozen=True)
class Searches:
    """Every probe searched in a gallery of `n_enrolled` persons; the others are of shape (n_probe,).

    `own` is the column of the probe's person (-1 where not enrolled), `ahead` counts impostors who score at least as
    high as the true person, `genuine_scores` are with the own person (NaN where not enrolled), `best_impostor_scores`
    the best with somebody else (-inf where there is nobody else).
    """

    own: np.ndarray
    ahead: np.ndarray
    genuine_scores: np.ndarray
    best_impostor_scores: np.ndarray
    n_enrolled: int

    @property
    def enrolled(self) -> np.ndarray:
        """Whether the probe's person is in the gallery, bool, shape (n_probe,)."""
        return self.own >= 0


def search(scores: np.ndarray, own: np.ndarray) -> Searches:
    """Search probes by their scores with every gallery person (n_probe, n_enrolled) and their own columns."""
    rows = np.arange(own.size)
    ahead = np.count_nonzero(scores >= scores[rows, own][:, None], axis=1) - 1
    genuine = np.where(own >= 0, scores[rows, own], np.nan)
    others = np.where(np.arange(scores.shape[1]) == own[:, None], -np.inf, scores)
    return Searches(own, ahead, genuine, others.max(axis=1), scores.shape[1])


@dataclass(frozen=True)
class ScoreLevels:
    """Summed weight of the genuine and of the impostor trials at each score level, ascending, float64 (n_levels,)."""

    genuine: np.ndarray
    impostor: np.ndarray

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
            raise StudyError(NOT_A_NUMBER)
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


class Trials(SortedScores):
    """Trials of a score matrix in ascending order, weighed by persons; `resamples` must include everybody in it."""

    def __init__(self, matrix: ScoreMatrix, resamples: Resamples) -> None:
        super().__init__(matrix.scores, matrix.genuine)
        probe, gallery = resamples.index_of(matrix.probe), resamples.index_of(matrix.gallery)
        self.scores, self.probe, self.gallery = (
            values.ravel()[self.order]
            for values in (matrix.scores, np.repeat(probe, gallery.size), np.tile(gallery, probe.size))
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


def threshold_at_far(impostor: np.ndarray, far: float, weights: np.ndarray) -> float:
    """Score that must be exceeded (strictly) so that at most a share `far` of the weight of impostor scores passes.

    NaN with fewer impostor trials than 1/far; minus infinity where everything may be accepted.
    """
    if weights.sum() * far < 1 - _ROUNDING:
        return math.nan
    descending = np.argsort(-impostor, kind="stable")
    accepted = np.cumsum(weights[descending])
    first_refused = int(np.searchsorted(accepted, far * accepted[-1] * (1 + _ROUNDING), side="right"))
    return float(impostor[descending[first_refused]]) if first_refused < impostor.size else -math.inf


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


def rank_k(searches: Searches, k: int, weights: np.ndarray) -> float:
    """Share of enrolled probes, by `weights` (n_probe,), whose person is among the best `k`.

    NaN where the gallery holds fewer than `k` persons (or only one: there is nobody to confuse it with) or no probe is
    enrolled.
    """
    if searches.n_enrolled < max(k, 2):
        return math.nan
    return _share(searches.ahead < k, weights * searches.enrolled)


def cmc(searches: Searches, weights: np.ndarray) -> np.ndarray:
    """Cumulative match characteristic: rank-k for k = 1 ... persons in the gallery."""
    return np.array([rank_k(searches, k, weights) for k in range(1, searches.n_enrolled + 1)])


def dir_at_far(searches: Searches, far: float, weights: np.ndarray) -> float:
    """Open-set detection and identification rate at rank 1 (Phillips, Grother & Micheals 2011; ISO/IEC 19795-1).

    The share of enrolled probes whose person ranks first with a score above the threshold. The threshold is the lowest
    at which at most a share `far` of the searches by people who are not enrolled raises an alarm (their best score
    exceeds it). Every probe makes such a search: against the gallery without its own person. NaN with fewer searches
    than 1/far, or where nobody else is enrolled, or no probe is.
    """
    if searches.n_enrolled < 2:
        return math.nan
    threshold = threshold_at_far(searches.best_impostor_scores, far, weights)
    if math.isnan(threshold):
        return math.nan
    hits = (searches.ahead == 0) & (searches.genuine_scores > threshold)
    return _share(hits, weights * searches.enrolled)


def rank1_by_gallery_size(searches: Searches, sizes: Sequence[int], weights: np.ndarray) -> np.ndarray:
    """Compute the expected rank-1 in a random sub-gallery of N persons that holds the probe's own, for N in `sizes`.

    Exact average over all sub-galleries: with b of the M - 1 others scoring at least as high as the true person, none
    of them may be among the N - 1 drawn, which is hypergeometric. NaN for sizes below 2 or above the gallery.
    """
    return np.array([_share(first_of(searches, size), weights * searches.enrolled) for size in sizes])


def first_of(searches: Searches, size: int) -> np.ndarray:
    """Probability of each probe (n_probe,) to rank first in such a sub-gallery; see :func:`rank1_by_gallery_size`."""
    if not 2 <= size <= searches.n_enrolled:
        return np.full(searches.ahead.size, math.nan)
    return hypergeom.pmf(0, searches.n_enrolled - 1, searches.ahead, size - 1)


def _share(hits: np.ndarray, weights: np.ndarray) -> float:
    """Weighted share of `hits`; NaN without weight."""
    return float(ratio((hits * weights).sum(), weights.sum()))


def rank1_and_eer(matrices: Iterable[ScoreMatrix]) -> np.ndarray:
    """Rank-1 and EER when every trial counts once, averaged over folds, shape (2,)."""
    return np.mean([(rank_k(one.searches, 1, np.ones(one.probe.size)), eer(one.levels)) for one in matrices], axis=0)
