"""Copies of one recording under several names, whatever its rate, its amplitude, its trim or a changed sample.

Two copies beat alike: a beat of one and the beats after it lie as far apart as in the other, to the precision of an R
peak. Among thousands of records such a run occurs by chance too, in paced hearts above all; so the two leads are laid
over each other at that beat and compared second by second. Noise is never the same twice: copies correlate at nearly 1
in most seconds, however few of them were changed, and two recordings of one heart do not.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.spatial import cKDTree

RUN, MOST_COMPARED = 4, 8
"""Beats after the first by which runs are found, and by which they are compared where there are so many."""
PRECISION_S = 0.012
"""Seconds by which an R peak moves at most when a record is resampled: one sample at 100 Hz, and some rounding."""
SCATTER_S = 0.006
"""Standard deviation of such moves at most: what is rounded to 10 ms scatters by 4 ms."""
RUNS_KEPT = 8
"""Runs of a record, evenly spread, among which those of all others are looked up: memory grows with no more."""
LEAST_NEARLY, LEAST_SAME = 0.85, 0.998
"""Median correlation of two copies over their seconds at least: to the nearest sample, and between samples."""
LEAST_S, MOST_S = 3, 60
"""Seconds that must overlap, and that are compared at most."""
_SHIFTS = np.arange(-1.5, 1.51, 0.1)


def find_copies(peaks: Sequence[np.ndarray], lead: Callable[[int], np.ndarray], fs: float) -> list[tuple[int, int]]:
    """Find pairs of records that are copies of each other, or of overlapping parts of one recording.

    Parameters
    ----------
    peaks : sequence of numpy.ndarray
        R peaks of each record in seconds from its start, ascending. A record with fewer than five has no copies here:
        only an equal waveform tells.
    lead : callable
        From the number of a record to the samples of the lead in which its peaks were found, at `fs` Hz, filtered.
    fs : float
        Sampling rate in Hz, the same for all.

    Returns
    -------
    list of (int, int)
        Numbers of two records, the smaller first, in ascending order.
    """
    some = {number: runs[:: -(-len(runs) // RUNS_KEPT)] for number, own in enumerate(peaks) if len(runs := _runs(own))}
    if not some:
        return []
    kept, owner = np.concatenate([*some.values()]), np.repeat([*some], [len(runs) for runs in some.values()])
    tree, copies = cKDTree(kept[:, 1 : RUN + 1]), set()
    for number in some:
        runs = _runs(peaks[number])
        near = cKDTree(runs[:, 1 : RUN + 1]).sparse_distance_matrix(tree, PRECISION_S, p=np.inf, output_type="ndarray")
        near = near[owner[near["j"]] != number]
        apart = np.nan_to_num(runs[near["i"], 1:] - kept[near["j"], 1:])
        near = near[(np.abs(apart).max(axis=1) <= PRECISION_S) & (apart.std(axis=1) <= SCATTER_S)]
        others, lags = owner[near["j"]].tolist(), runs[near["i"], 0] - kept[near["j"], 0]
        tried = {(other, round(lag / PRECISION_S)): lag for other, lag in zip(others, lags, strict=True)}
        for (other, _), lag in tried.items():
            pair = min(number, other), max(number, other)
            seen = other < number and len(runs) == len(some[number])  # from the other's side
            if not seen and pair not in copies and _same(lead(number), lead(other), lag, fs):
                copies.add(pair)
    return sorted(copies)


def _runs(peaks: np.ndarray) -> np.ndarray:
    """Time of each beat with enough after it, and of the next beats from it, NaN beyond the last: (n, 1 + compared)."""
    padded = np.append(peaks, np.full(MOST_COMPARED + 1, np.nan))
    runs = np.lib.stride_tricks.sliding_window_view(padded, MOST_COMPARED + 1)[: max(peaks.size - RUN, 0)].copy()
    runs[:, 1:] -= runs[:, :1]
    return runs


def _same(one: np.ndarray, other: np.ndarray, lag: float, fs: float) -> bool:
    """Whether two leads, the second `lag` seconds later in the first, correlate in most of their common seconds."""
    shift, second = round(lag * fs), round(fs)
    one, other = one[max(shift, 0) :], other[max(-shift, 0) :]
    length = min(len(one), len(other), MOST_S * second) // second * second
    if length < LEAST_S * second:
        return False
    one, other = np.nan_to_num(one[:length]), np.nan_to_num(other[:length])
    # beats are known to a sample of the store or so: nearly alike in one of the nearest places, or no copy
    if _alike(one, np.stack([np.roll(other, places) for places in range(-2, 3)]), second) < LEAST_NEARLY:
        return False
    # a copy may lie between two samples
    phase = np.exp(2j * np.pi * np.outer(_SHIFTS, np.fft.rfftfreq(length)))
    return _alike(one, np.fft.irfft(np.fft.rfft(other) * phase, n=length), second) >= LEAST_SAME


def _alike(one: np.ndarray, others: np.ndarray, second: int) -> float:
    """Median correlation of a lead with another over their seconds, the highest of several others (n, n_samples)."""
    first, seconds = (values.reshape(*values.shape[:-1], -1, second) for values in (one, others))
    first, seconds = (values - values.mean(axis=-1, keepdims=True) for values in (first, seconds))
    scale = np.linalg.norm(first, axis=-1) * np.linalg.norm(seconds, axis=-1)
    return float(np.median((first * seconds).sum(axis=-1) / np.maximum(scale, 1e-12), axis=-1).max())
