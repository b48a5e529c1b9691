"""Exact EER and TAR over more trials than fit in memory.

The score matrix is produced twice, block of rows by block of rows. The first pass counts the scores in
65,281 bins bounded by the float32 numbers whose lower 16 bits are zero; EER and each threshold fall into one
bin each. The second pass counts those bins again float by float (at most 65,536 values each), after which
nothing is left to approximate: results equal those of sorting all scores.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ecgstudy.errors import StudyError
from ecgstudy.evaluate.levels import ScoreLevels
from ecgstudy.evaluate.verification import blocking_level, crossing_level, eer, tar_at_far

ScoreRows = Callable[[int, int], np.ndarray]
"""Scores of probes start...stop-1 against the whole gallery, float32, shape (stop - start, n_gallery)."""

_BLOCK_TRIALS = 8_000_000
_INFINITY_KEY = 0x7F80_0000
_COARSE_STEP = 1 << 16


@dataclass(frozen=True)
class StreamedVerification:
    """Verification result over all trials; NaN where undefined, see :mod:`ecgstudy.evaluate.verification`.

    Attributes
    ----------
    eer : float
        Equal error rate.
    tar : dict
        FAR -> TAR.
    n_genuine, n_impostor : int
        Trials.
    """

    eer: float
    tar: dict[float, float]
    n_genuine: int
    n_impostor: int


def cosine_rows(probe: np.ndarray, gallery: np.ndarray) -> ScoreRows:
    """Cosine similarity of embeddings, (n_probe, dim) against (n_gallery, dim), one block of rows at a time."""
    probe, gallery = (_unit_rows(embeddings) for embeddings in (probe, gallery))
    return lambda start, stop: probe[start:stop] @ gallery.T


def stream_verification(
    rows: ScoreRows, probe_persons: ArrayLike, gallery_persons: ArrayLike, fars: Sequence[float] = (1e-2, 1e-3)
) -> StreamedVerification:
    """Exact EER and TAR at `fars` in two passes over the score matrix.

    Parameters
    ----------
    rows : callable
        Called twice for each block of probes; must return the same float32 scores both times.
    probe_persons, gallery_persons : array_like
        Person ids of the rows and columns of the score matrix.
    fars : sequence of float
        FARs to report TAR at.

    Raises
    ------
    StudyError
        Scores are not float32, or one is not a number.
    """
    _, codes = np.unique(np.concatenate([np.ravel(probe_persons), np.ravel(gallery_persons)]), return_inverse=True)
    codes = codes.astype(np.int32)
    probe, gallery = codes[: np.size(probe_persons)], codes[np.size(probe_persons) :]
    keys = np.arange(-_INFINITY_KEY, _INFINITY_KEY + 1, _COARSE_STEP)
    coarse = _count(_blocks(rows, probe, gallery), _floats(keys))
    n_genuine, n_impostor = int(coarse.genuine.sum()), int(coarse.impostor.sum())
    if not n_genuine or not n_impostor:
        return StreamedVerification(math.nan, dict.fromkeys(fars, math.nan), n_genuine, n_impostor)
    decisive = {crossing_level(coarse), *(blocking_level(coarse, far) for far in fars)} - {-1}
    fine_keys = np.unique(np.concatenate([keys, *(np.arange(keys[b], keys[b] + _COARSE_STEP) for b in decisive)]))
    levels = _count(_blocks(rows, probe, gallery), _floats(fine_keys[fine_keys <= _INFINITY_KEY]))
    return StreamedVerification(eer(levels), {far: tar_at_far(levels, far) for far in fars}, n_genuine, n_impostor)


def _unit_rows(embeddings: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1, float32; an all-zero row becomes NaN, which scoring refuses."""
    embeddings = np.asarray(embeddings, dtype=np.float32)
    with np.errstate(invalid="ignore"):
        return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


def _blocks(rows: ScoreRows, probe: np.ndarray, gallery: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All scores and the genuine ones of each block of rows, both ascending."""
    step = max(1, _BLOCK_TRIALS // max(1, gallery.size))
    for start in range(0, probe.size, step):
        stop = min(start + step, probe.size)
        scores = rows(start, stop)
        if scores.dtype != np.float32:
            raise StudyError(f"Streamed scores are {scores.dtype}; convert them to float32, exactness depends on it.")
        genuine = np.sort(scores[probe[start:stop, None] == gallery[None, :]])
        everything = np.sort(scores, axis=None)
        if everything.size and np.isnan(everything[-1]):
            raise StudyError("A score is not a number; look for a record without a usable window or a failed model.")
        yield everything, genuine


def _floats(keys: np.ndarray) -> np.ndarray:
    """Float32 numbers of integer keys that ascend with them (0 for both zeros, one step per float)."""
    magnitude = np.abs(keys).astype(np.uint32).view(np.float32)
    return np.where(keys < 0, -magnitude, magnitude)


def _count(blocks: Iterator[tuple[np.ndarray, np.ndarray]], edges: np.ndarray) -> ScoreLevels:
    """Genuine and impostor trials from each edge up to, and without, the next; the first edge is -infinity."""
    total, genuine = np.zeros(edges.size, np.int64), np.zeros(edges.size, np.int64)
    for block, block_genuine in blocks:
        total += np.diff(np.searchsorted(block, edges), append=block.size)
        genuine += np.diff(np.searchsorted(block_genuine, edges), append=block_genuine.size)
    # float64 counts are exact up to 2**53 trials
    return ScoreLevels(genuine.astype(np.float64), (total - genuine).astype(np.float64))
