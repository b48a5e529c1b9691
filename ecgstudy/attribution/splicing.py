"""Putting average waves in the place of a recording's own, without steps at the joints.

A wave is replaced on the samples that attackers read, before they are cut into windows and standardised. Its place
in time stays: an average wave is stretched to the beat's own onset, peak and offset, so that only its shape and
level change, and intervals do not.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.interpolate import CubicSpline

from ecgstudy.attribution.waves import BOUNDARIES, WAVES, fiducial_points

GRID = np.linspace(0.0, 1.0, 65)
"""Places in a wave (0 = onset, 1/2 = peak, 1 = offset) at which average waves are known."""
FADE_S = 0.02
"""Seconds over which a recording fades into an average wave at a joint; at most a quarter of the wave."""
_PEAKS = {"P": "p_peak", "QRS": "r_peak", "T": "t_peak"}


@dataclass(frozen=True)
class Spans:
    """The waves of a stretch of recording whose boundaries are known, in order of time, shape (n,) each.

    Attributes
    ----------
    start, middle, stop : numpy.ndarray
        float, samples: onset, peak (halfway for segments and where the peak is not known) and offset.
    waves : numpy.ndarray
        Positions in :data:`ecgstudy.attribution.waves.WAVES`.
    """

    start: np.ndarray
    middle: np.ndarray
    stop: np.ndarray
    waves: np.ndarray

    def times(self) -> np.ndarray:
        """Place of each point of :data:`GRID` in time, shape (n, n_grid)."""
        early = self.start[:, None] + 2 * GRID * (self.middle - self.start)[:, None]
        late = self.middle[:, None] + (2 * GRID - 1) * (self.stop - self.middle)[:, None]
        return np.where(GRID < 0.5, early, late)


def wave_spans(fiducials: pd.DataFrame, n_samples: int) -> Spans:
    """Waves that lie wholly inside a stretch of recording.

    Parameters
    ----------
    fiducials : pandas.DataFrame
        Columns the fiducials in samples from the stretch's start, one row a beat.
    n_samples : int
        Length of the stretch.
    """
    points = fiducial_points(fiducials)
    start, stop = (np.stack([points[pair[side]] for pair in BOUNDARIES], axis=1).ravel() for side in (0, 1))
    absent = np.full(len(fiducials), np.nan)
    peaks = np.stack([points[_PEAKS[wave]] if wave in _PEAKS else absent for wave in WAVES], axis=1).ravel()
    middle = np.where((peaks > start) & (peaks < stop), peaks, (start + stop) / 2)
    waves = np.tile(np.arange(len(WAVES)), len(fiducials))
    whole = (start >= 0) & (stop <= n_samples - 1) & (stop > start)  # NaN compares as False
    start, middle, stop, waves = (values[whole] for values in (start, middle, stop, waves))
    # at high rates P begins before T has ended: the wave that comes later is left as it is
    apart = start >= np.r_[-np.inf, np.maximum.accumulate(stop)[:-1]]
    return Spans(start[apart], middle[apart], stop[apart], waves[apart])


def average_waves(values: np.ndarray, spans: Spans) -> tuple[np.ndarray, np.ndarray]:
    """Add up the waves of a stretch of recording on :data:`GRID`.

    Parameters
    ----------
    values : numpy.ndarray
        Shape (n_samples,).
    spans : Spans
        Its waves.

    Returns
    -------
    sums : numpy.ndarray
        Shape (n_waves, n_grid); divided by the counts they are the average waves.
    counts : numpy.ndarray
        Waves of each kind, shape (n_waves, 1).
    """
    sums, counts = np.zeros((len(WAVES), GRID.size)), np.bincount(spans.waves, minlength=len(WAVES))[:, None]
    if spans.waves.size:
        np.add.at(sums, spans.waves, CubicSpline(np.arange(values.size), values)(spans.times()))
    return sums, counts


def splice(values: np.ndarray, spans: Spans, average: np.ndarray, replaced: Collection[str], fs: float) -> np.ndarray:
    """Replace some waves of every beat by average ones.

    Neighbouring waves that are all replaced form one block. At a block's two ends the average is shifted to the
    recording's own level, the shift in between being linear in time; there the recording fades into the average
    over :data:`FADE_S`.

    Parameters
    ----------
    values : numpy.ndarray
        Shape (n_samples,).
    spans : Spans
        Its waves.
    average : numpy.ndarray
        Shape (n_waves, n_grid) on :data:`GRID`; a wave whose row is NaN is not replaced.
    replaced : collection of str
        Names of :data:`ecgstudy.attribution.waves.WAVES`.
    fs : float
        Sampling rate in Hz.

    Returns
    -------
    numpy.ndarray
        float32, shape (n_samples,); equal to `values` outside the replaced waves.
    """
    known = np.isfinite(average).all(axis=1) & np.isin(WAVES, list(replaced))
    chosen = known[spans.waves]
    start, middle, stop, waves = (v[chosen] for v in (spans.start, spans.middle, spans.stop, spans.waves))
    samples = np.arange(values.size)
    if not start.size:
        return values.astype(np.float32)
    left, right, joints = _levels(values, start, stop, average[waves][:, [0, -1]])
    at = np.searchsorted(start, samples, side="right") - 1
    inside = (at >= 0) & (samples < stop[at])
    samples, at = samples[inside], at[inside]
    early = samples < middle[at]
    low, high = np.where(early, start[at], middle[at]), np.where(early, middle[at], stop[at])
    place = (samples - low) / (high - low) / 2 + np.where(early, 0.0, 0.5)
    shapes = average - average[:, :1] * (1 - GRID) - average[:, -1:] * GRID
    spliced = _at_places(shapes, waves[at], place) + left[at] * (1 - place) + right[at] * place
    nearest = np.abs(samples[:, None] - _around(joints, samples)).min(axis=1)
    own = 1 - np.clip(nearest / np.minimum(FADE_S * fs, (stop - start)[at] / 4), 0, 1)
    result = values.astype(np.float32)
    result[inside] = own * values[inside] + (1 - own) * spliced
    return result


def _levels(
    values: np.ndarray, start: np.ndarray, stop: np.ndarray, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Level at the start and stop of each replaced wave, shape (n,) each, and the places of the joints, sorted.

    `ends` holds the average's own level there, shape (n, 2).
    """
    goes_on = start[1:] == stop[:-1]
    # two average waves need not meet at quite one level: within a block they do so halfway
    within = (ends[:-1, 1] + ends[1:, 0]) / 2
    ends = ends.copy()
    ends[:-1, 1], ends[1:, 0] = np.where(goes_on, within, ends[:-1, 1]), np.where(goes_on, within, ends[1:, 0])
    first, last = np.r_[True, ~goes_on], np.r_[~goes_on, True]
    joints = np.r_[start[first], stop[last]]
    shifts = np.interp(joints, np.arange(values.size), values) - np.r_[ends[first, 0], ends[last, 1]]
    order = np.argsort(joints)
    joints, shifts = joints[order], shifts[order]
    return ends[:, 0] + np.interp(start, joints, shifts), ends[:, 1] + np.interp(stop, joints, shifts), joints


def _around(joints: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Last joint before and first joint after each sample, shape (n, 2)."""
    after = np.clip(np.searchsorted(joints, samples), 1, joints.size - 1)
    return np.stack([joints[after - 1], joints[after]], axis=1)


def _at_places(shapes: np.ndarray, waves: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Interpolate each sample's wave at its place on :data:`GRID`, linearly, shape (n,)."""
    scaled = place * (GRID.size - 1)
    low = np.minimum(scaled.astype(np.int64), GRID.size - 2)
    share = scaled - low
    return shapes[waves, low] * (1 - share) + shapes[waves, low + 1] * share
