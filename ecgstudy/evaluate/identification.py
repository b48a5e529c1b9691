"""Identification: rank-k, CMC, rank-1 against gallery size, open-set DIR at a FAR.

A probe's score with a person is its best score over that person's gallery entries. Ties count against the system: the
rank of the true person is 1 + the number of impostors who score at least as high. Constant scores therefore give the
worst rank, never a lucky first.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import hypergeom

from ecgstudy.errors import StudyError
from ecgstudy.evaluate.levels import threshold_at_far


@dataclass(frozen=True)
class Searches:
    """Every probe searched in the gallery.

    `scores` are the best with each gallery person (n_probe, n_enrolled), `own` the column of the probe's person (-1
    where not enrolled), `ahead` counts impostors who score at least as high as the true person.
    """

    scores: np.ndarray
    own: np.ndarray
    ahead: np.ndarray

    @property
    def enrolled(self) -> np.ndarray:
        """Whether the probe's person is in the gallery, bool, shape (n_probe,)."""
        return self.own >= 0

    @property
    def n_enrolled(self) -> int:
        """Persons in the gallery."""
        return self.scores.shape[1]

    @cached_property
    def genuine_scores(self) -> np.ndarray:
        """Score of each probe with its own person, NaN where not enrolled, shape (n_probe,)."""
        return np.where(self.enrolled, self.scores[np.arange(self.own.size), self.own], np.nan)

    @cached_property
    def impostor_scores(self) -> np.ndarray:
        """Scores with everybody but the probe's own person, NaN in the own column, shape (n_probe, n_enrolled)."""
        others = self.scores.astype(np.float64)
        probes = np.flatnonzero(self.enrolled)
        others[probes, self.own[probes]] = np.nan
        return others

    @cached_property
    def best_impostor_scores(self) -> np.ndarray:
        """Best score with somebody else, shape (n_probe,); needs two or more persons in the gallery."""
        return np.nanmax(self.impostor_scores, axis=1)


def search_gallery(scores: ArrayLike, probe_persons: ArrayLike, gallery_persons: ArrayLike) -> Searches:
    """Search every probe in the gallery, by scores (n_probe, n_gallery) and the persons of the rows and columns."""
    matrix, probe = np.asarray(scores), np.asarray(probe_persons).astype(str)
    enrolled, column = np.unique(np.asarray(gallery_persons).astype(str), return_inverse=True)
    if not enrolled.size:
        raise StudyError("The gallery is empty; check that the protocol left any enrolment record.")
    if np.isnan(matrix).any():
        raise StudyError("A score is not a number; look for a record without a usable window or a failed model.")
    by_person = np.argsort(column, kind="stable")
    starts = np.searchsorted(column[by_person], np.arange(enrolled.size))
    best = np.maximum.reduceat(matrix[:, by_person], starts, axis=1)
    position = np.minimum(np.searchsorted(enrolled, probe), enrolled.size - 1)
    own = np.where(enrolled[position] == probe, position, -1)
    ahead = np.count_nonzero(best >= best[np.arange(probe.size), own][:, None], axis=1) - 1
    return Searches(best, own, ahead)


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
    others, weights = searches.n_enrolled - 1, weights * searches.enrolled
    measured = [2 <= size <= searches.n_enrolled for size in sizes]
    rates = [_share(hypergeom.pmf(0, others, searches.ahead, size - 1), weights) for size in sizes]
    return np.where(measured, rates, math.nan)


def _share(hits: np.ndarray, weights: np.ndarray) -> float:
    """Weighted share of `hits`; NaN without weight."""
    total = weights.sum()
    return float((hits * weights).sum() / total) if total > 0 else math.nan
