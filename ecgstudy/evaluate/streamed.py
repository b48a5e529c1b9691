"""Score matrices too large to hold: read a block of probes at a time, and counted in bins of scores.

Searches are exact. Trials are counted in :data:`BINS` bins of equal width over the range of the genuine scores; scores
of one bin are ties, so that error rates are those of slightly coarser scores. Where persons are resampled, an impostor
trial weighs a + b - 1 when its two persons were drawn a and b times: the product a b without (a - 1)(b - 1), whose
share of the variance vanishes as persons grow many. Counts by person are then all that has to be kept.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import pandas as pd

from ecgstudy.errors import StudyError
from ecgstudy.evaluate.bootstrap import Resamples
from ecgstudy.evaluate.trials import MOST_HELD_TRIALS, NOT_A_NUMBER, Mean, ScoreLevels, ScoreMatrix, Searches, search

BINS = 1000
LEVELS = BINS + 2
"""Before the bins come the level of what has no score, and that of everything below the lowest genuine score."""
BLOCK = MOST_HELD_TRIALS
"""Scores held at a time."""
Block = Callable[[slice | np.ndarray], np.ndarray]
"""From the numbers of some probes to their scores with everybody."""


@dataclass(frozen=True)
class Counts:
    """Trials by score level: the level of each probe's genuine trial (-1 without), and impostors by person.

    `by_probe` (n_persons, LEVELS) counts for each of the `persons` who probe, `by_gallery` (n_gallery, LEVELS) for each
    who is enrolled; `person_of` is the row in `by_probe` of each probe.
    """

    genuine: np.ndarray
    persons: np.ndarray
    person_of: np.ndarray
    by_probe: np.ndarray
    by_gallery: np.ndarray


@dataclass(frozen=True)
class StreamedMatrix:
    """As :class:`ScoreMatrix`, one column a person; `block` gives the scores of some probes (rows) with everybody."""

    block: Block
    probe: np.ndarray
    gallery: np.ndarray

    def combined(self, mean: Mean, others: Sequence["StreamedMatrix"]) -> "StreamedMatrix":
        """Give the same trials with a `mean` of their scores in several matrices (this one among them)."""
        return replace(self, block=partial(_combined, mean, [other.block for other in others]))

    def chosen(self, which: np.ndarray, matrices: Sequence["StreamedMatrix"]) -> "StreamedMatrix":
        """Give the same trials, each probe's scores those of the matrix that `which` (n_probe,) names."""
        return replace(self, block=partial(_chosen, which, [one.block for one in matrices]))

    def without_gaps(self) -> "StreamedMatrix":
        """Give probes and enrolled persons without a usable window the lowest score there can be."""
        return replace(self, block=partial(_filled, self.block))

    def sampled(self) -> ScoreMatrix:
        """Draw as many persons, probes and gallery, as tables and figures can hold the trials of."""
        n = int(np.sqrt(MOST_HELD_TRIALS * self.gallery.size / self.probe.size))
        columns = np.sort(np.random.default_rng(0).permutation(self.gallery.size)[:n])
        rows = np.flatnonzero(np.isin(self.probe, self.gallery[columns]))
        parts = np.array_split(rows, -(-rows.size * self.gallery.size // BLOCK) or 1)
        scores = np.concatenate([self.block(part)[:, columns] for part in parts])
        return ScoreMatrix(scores, self.probe[rows], self.gallery[columns])

    @property
    def unscored(self) -> int:
        """Probes without any score."""
        return sum(int(np.isnan(scores).all(axis=1).sum()) for _, scores in self._blocks(gaps=True))

    def _blocks(self, gaps: bool = False) -> Iterator[tuple[slice, np.ndarray]]:
        """Blocks of scores with the rows that each is of; refuses `gaps` unless told."""
        step = max(1, BLOCK // self.gallery.size)
        for start in range(0, self.probe.size, step):
            rows = slice(start, start + step)
            scores = self.block(rows)
            if not gaps and np.isnan(scores).any():
                raise StudyError(NOT_A_NUMBER)
            yield rows, scores

    @cached_property
    def searches(self) -> Searches:
        """Every probe searched in the gallery."""
        own = pd.Index(self.gallery).get_indexer(self.probe)
        found = [search(scores, own[rows]) for rows, scores in self._blocks()]
        columns = ("own", "ahead", "genuine_scores", "best_impostor_scores")
        whole = (np.concatenate([getattr(part, column) for part in found]) for column in columns)
        return Searches(*whole, n_enrolled=self.gallery.size)

    @cached_property
    def counts(self) -> Counts:
        """Trials by score level and person."""
        own, genuine = self.searches.own, self.searches.genuine_scores
        finite = genuine[np.isfinite(genuine)]
        low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
        persons, person_of = np.unique(self.probe, return_inverse=True)
        by_probe = np.zeros((persons.size, LEVELS), dtype=np.float32)
        by_gallery = np.zeros((self.gallery.size, LEVELS), dtype=np.float32)
        levels, columns = np.full(own.size, -1), np.arange(self.gallery.size)
        for rows, scores in self._blocks():
            level = _levels(scores, low, high)
            for row, of_probe, column in zip(level, range(own.size)[rows], own[rows], strict=True):
                by_probe[person_of[of_probe]] += np.bincount(row, minlength=LEVELS)
                by_gallery[columns, row] += 1
                if column >= 0:
                    levels[of_probe] = row[column]
        enrolled = own >= 0
        np.subtract.at(by_probe, (person_of[enrolled], levels[enrolled]), 1)
        np.subtract.at(by_gallery, (own[enrolled], levels[enrolled]), 1)
        return Counts(levels, persons, person_of, by_probe, by_gallery)

    @property
    def levels(self) -> ScoreLevels:
        """Levels of the scores when every trial weighs 1."""
        return self.levels_of(np.ones(self.probe.size, dtype=bool))

    def levels_of(self, own: np.ndarray) -> ScoreLevels:
        """Levels of the trials of some persons, `own` (n_probe,) all of their probes."""
        counts, enrolled = self.counts, self.searches.enrolled
        impostor = counts.by_probe[np.unique(counts.person_of[own])].sum(axis=0, dtype=np.float64)
        return levels_of(np.bincount(counts.genuine[own & enrolled], minlength=LEVELS).astype(np.float64), impostor)


class CountedTrials:
    """As :class:`~ecgstudy.evaluate.trials.Trials`, of a streamed matrix.

    All genuine trials of a level count as one, and so do all impostor trials; `scores` are the numbers of the levels.
    """

    def __init__(self, matrix: StreamedMatrix, resamples: Resamples) -> None:
        self.scores, self.genuine = np.tile(np.arange(LEVELS), 2), np.repeat([True, False], LEVELS)
        self.n_persons, enrolled, self._counts = resamples.persons.size, matrix.searches.enrolled, matrix.counts
        self._tried, self._levels = resamples.index_of(matrix.probe[enrolled]), self._counts.genuine[enrolled]
        self._persons, self._gallery = (resamples.index_of(of) for of in (self._counts.persons, matrix.gallery))
        self._impostor = self._counts.by_probe.sum(axis=0, dtype=np.float64)

    def weights(self, multiplicity: np.ndarray, _balanced: bool = False) -> np.ndarray:
        """Weight of the genuine and then of the impostor trials at each level; see the module."""
        genuine = np.bincount(self._levels, multiplicity[self._tried], LEVELS)
        more = multiplicity.astype(np.float32) - 1
        shift = more[self._persons] @ self._counts.by_probe + more[self._gallery] @ self._counts.by_gallery
        return np.concatenate([genuine, np.maximum(self._impostor + shift, 0)])

    def levels(self, weights: np.ndarray) -> ScoreLevels:
        """Levels that have weight."""
        return levels_of(*np.split(weights, 2))


def levels_of(genuine: np.ndarray, impostor: np.ndarray) -> ScoreLevels:
    """Levels that have weight."""
    weighted = (genuine > 0) | (impostor > 0)
    return ScoreLevels(genuine[weighted], impostor[weighted])


def _levels(scores: np.ndarray, low: float, high: float) -> np.ndarray:
    """Level of each score: 0 without a score, 1 below `low`, then the bins up to `high` and beyond."""
    scaled = (scores - low) * np.float32(BINS / max(high - low, 1e-12))
    level = 2 + np.floor(np.clip(scaled, -1, BINS - 1)).astype(np.int64)
    level[np.isneginf(scores)] = 0
    return level


def _combined(mean: Mean, blocks: Sequence[Block], rows: slice | np.ndarray) -> np.ndarray:
    return np.asarray(mean([block(rows) for block in blocks]), dtype=np.float32)


def _chosen(which: np.ndarray, blocks: Sequence[Block], rows: slice | np.ndarray) -> np.ndarray:
    return np.stack([block(rows) for block in blocks])[which[rows], np.arange(which[rows].size)]


def _filled(block: Block, rows: slice | np.ndarray) -> np.ndarray:
    scores = block(rows)
    return np.where(np.isnan(scores), np.float32(-np.inf), scores)
