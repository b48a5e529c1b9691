"""Which wave of the heartbeat each sample belongs to, and putting average waves in place of a recording's own.

Waves tile the beat: each begins where the one before it ends. Boundaries are half open, so a sample at an
onset belongs to the wave that begins there.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from ecgstudy.signals.delineation import FIDUCIAL_COLUMNS

BOUNDARIES = {
    "P": ("p_onset", "p_offset"),
    "PR": ("p_offset", "qrs_onset"),
    "QRS": ("qrs_onset", "qrs_offset"),
    "ST": ("qrs_offset", "t_onset"),
    "T": ("t_onset", "t_offset"),
    "TP": ("t_offset", "next_p_onset"),
}
"""P wave, P-R segment, QRS complex, S-T segment, T wave, T-P rest: where each begins and ends."""
WAVES = tuple(BOUNDARIES)
"""A sample's code is the position of its wave in this tuple."""
UNKNOWN_WAVE = -1
"""Code of a sample that lies between no two known boundaries."""
LEAST_KNOWN = 0.9
"""Share of the samples between a window's first and last R peak that must have a code for the window to count."""
_PAINTED = ("PR", "ST", "TP", "T", "P", "QRS")
"""At high rates P begins before T has ended, and noisy boundaries cross: of two waves the one painted later wins."""
PEAKS = {"P": "p_peak", "QRS": "r_peak", "T": "t_peak"}
NOT_FOUND = {"p": "P wave not found", "qrs": "QRS complex not found", "t": "T wave not found"}
"""Why a window has no usable wave codes though it holds beats."""

REGIONS = {
    "R wave": ("r_onset", "r_offset"),
    "P-R to the R peak": ("p_onset", "r_peak"),
    "P-R to QRS onset": ("p_onset", "qrs_onset"),
}
"""Regions that TransECG's claims are about (arXiv 2503.13495), and where each begins and ends.

The paper does not publish its definitions; these are OURS. It tells P-R from P-Q interval, so that "P-R" may go to the
R peak, while cardiology's PR interval ends where QRS begins: both readings are judged. The R wave is the inner half
of QRS: from midway between QRS onset and R peak to midway between R peak and QRS offset. Regions overlap.
"""

GRID = np.linspace(0.0, 1.0, 65)
"""Places in a wave (0 = onset, 1/2 = peak, 1 = offset) at which average waves are known."""
FADE_S = 0.02
"""Seconds over which a recording fades into an average wave at a joint; at most a quarter of the wave."""

Points = dict[str, np.ndarray]
"""Fiducial points by name, shape (n_beats,) each, see :func:`fiducial_points`."""


def wave_codes(fiducials: pd.DataFrame, n_samples: int) -> tuple[np.ndarray, str | None]:
    """Wave of every sample of a window, int8 positions in :data:`WAVES`, and why the window does not count, or None.

    A window counts when it holds two R peaks and :data:`LEAST_KNOWN` of the samples from the first to the last of them
    have a code; the reason names the wave that is missing most often. Samples before and after are coded as far as
    boundaries are known, so give the beats that lie around the window too: `fiducials` has one row a beat in order of
    time, in (fractional) samples from the window's start, NaN where not found.
    """
    codes = np.full(n_samples, UNKNOWN_WAVE, dtype=np.int8)
    points = fiducial_points(fiducials)
    for wave in _PAINTED:
        codes[_inside(points, BOUNDARIES[wave], n_samples)] = WAVES.index(wave)
    peaks = points["r_peak"]
    inside = (peaks >= 0) & (peaks < codes.size)
    if inside.sum() < 2:
        return codes, "fewer than two beats" if inside.any() else "no beats"
    first, last = np.ceil(peaks[inside][[0, -1]]).astype(np.int64)
    if (codes[first:last] != UNKNOWN_WAVE).mean() >= LEAST_KNOWN:
        return codes, None
    missing = {wave: ~(points[f"{wave}_onset"] < points[f"{wave}_offset"])[inside] for wave in NOT_FOUND}
    return codes, NOT_FOUND[max(missing, key=lambda wave: missing[wave].sum())]


def region_mask(fiducials: pd.DataFrame, region: str, n_samples: int) -> np.ndarray:
    """Whether each sample of a window belongs to one of :data:`REGIONS`, bool, shape (n_samples,)."""
    return _inside(fiducial_points(fiducials), REGIONS[region], n_samples)


def _inside(points: Points, boundaries: tuple[str, str], n_samples: int) -> np.ndarray:
    """Whether each sample lies between two boundaries of a beat where both are known, bool, shape (n_samples,)."""
    edges = np.stack([points[name] for name in boundaries], axis=1)
    edges = np.ceil(edges[np.isfinite(edges).all(axis=1)])
    samples = np.arange(n_samples)
    return ((samples >= edges[:, :1]) & (samples < edges[:, 1:])).any(axis=0)


def fiducial_points(fiducials: pd.DataFrame) -> Points:
    """Give the fiducial points by name, shape (n_beats,) each, with those that follow from them.

    ``next_p_onset`` is where T-P rest ends; ``r_onset`` and ``r_offset`` bound the inner half of QRS.
    """
    points = {column: fiducials[column].to_numpy(dtype=float) for column in FIDUCIAL_COLUMNS}
    points["next_p_onset"] = np.append(points["p_onset"][1:], np.nan)[: len(fiducials)]
    points["r_onset"] = (points["qrs_onset"] + points["r_peak"]) / 2
    points["r_offset"] = (points["r_peak"] + points["qrs_offset"]) / 2
    return points


def fiducials_of_boundaries(boundaries: pd.DataFrame, scale: float, start: float) -> pd.DataFrame:
    """Arrange reference boundaries (wave, onset, peak, offset; one row a wave) as fiducial points, one row a beat.

    A QRS complex takes the last P between the QRS before and itself, and the first T between itself and the next.
    `scale` is the window's samples per sample of the source, `start` the window's first sample at its own rate.
    """
    ordered = boundaries.sort_values("peak", kind="stable")
    places = ordered.set_index("wave")[["onset", "peak", "offset"]]
    p, qrs, t = (places[places.index == wave].to_numpy(dtype=float) for wave in PEAKS)
    before, after = np.r_[-np.inf, qrs[:-1, 1]], np.r_[qrs[1:, 1], np.inf]
    p, t = _of_each_beat(p, before, qrs[:, 1], last=True), _of_each_beat(t, qrs[:, 1], after, last=False)
    return pd.DataFrame(np.concatenate([p, qrs, t], axis=1) * scale - start, columns=list(FIDUCIAL_COLUMNS))


def _of_each_beat(waves: np.ndarray, after: np.ndarray, before: np.ndarray, last: bool) -> np.ndarray:
    """First or last wave whose peak lies between `after` and `before`, a row a beat; NaN where there is none."""
    found = np.full((len(after), 3), np.nan)
    low, high = np.searchsorted(waves[:, 1], after), np.searchsorted(waves[:, 1], before)
    there = high > low
    found[there] = waves[(high - 1 if last else low)[there]]
    return found


class Spans(NamedTuple):
    """Waves that lie wholly inside a stretch of recording, in order of time, shape (n_spans,) each.

    `start`, `middle` and `stop` are onset, peak and offset in samples (halfway for segments and where the peak is not
    known), `wave` is the position in :data:`WAVES`.
    """

    start: np.ndarray
    middle: np.ndarray
    stop: np.ndarray
    wave: np.ndarray


def wave_spans(points: Points, n_samples: int) -> Spans:
    """Find the waves of a stretch of recording from its :func:`fiducial_points`, in samples from its start."""
    start, stop = (np.stack([points[pair[side]] for pair in BOUNDARIES.values()], axis=1).ravel() for side in (0, 1))
    absent = np.full_like(points["r_peak"], np.nan)
    peaks = np.stack([points.get(PEAKS.get(wave), absent) for wave in WAVES], axis=1).ravel()
    middle = np.where((peaks > start) & (peaks < stop), peaks, (start + stop) / 2)
    waves = np.tile(np.arange(len(WAVES)), len(absent))
    inside = (start >= 0) & (stop <= n_samples - 1) & (stop > start)  # NaN compares as False
    start, middle, stop, waves = start[inside], middle[inside], stop[inside], waves[inside]
    # at high rates P begins before T has ended: the wave that comes later is left as it is
    after = start >= np.r_[-np.inf, np.maximum.accumulate(stop)[:-1]][: len(stop)]
    return Spans(start[after], middle[after], stop[after], waves[after])


def grid_times(spans: Spans) -> np.ndarray:
    """Place of each point of :data:`GRID` in time, shape (n_spans, n_grid)."""
    start, middle, stop = (column[:, None] for column in spans[:3])
    return np.where(GRID < 0.5, start + 2 * GRID * (middle - start), middle + (2 * GRID - 1) * (stop - middle))


def splice(values: np.ndarray, spans: Spans, average: np.ndarray, fs: float) -> tuple[np.ndarray, np.ndarray]:
    """Replace waves of every beat by average ones, without steps at the joints.

    A wave keeps its place in time: the average is stretched to the beat's own onset, peak and offset, so that only its
    shape and level change. Neighbouring waves that are all replaced form one block. At a block's two ends the average
    is shifted to the recording's own level, the shift in between being linear in time; there the recording fades into
    the average over :data:`FADE_S`.

    Parameters
    ----------
    values : numpy.ndarray
        Samples, shape (n_leads, n_samples).
    average : numpy.ndarray
        Average waves, shape (n_leads, n_waves, n_grid); a wave that is NaN in any lead stays as it is.

    Returns
    -------
    tuple of numpy.ndarray
        Samples, float32 of the same shape, and the wave that each sample was taken from, int8 of shape (n_samples,),
        :data:`UNKNOWN_WAVE` where it is the recording's own.
    """
    known = np.isfinite(average).all(axis=(0, 2))[spans.wave]
    start, middle, stop, waves = (column[known] for column in spans)
    result, codes = values.astype(np.float32), np.full(values.shape[-1], UNKNOWN_WAVE, dtype=np.int8)
    if not start.size:
        return result, codes
    left, right, joints = _levels(values, start, stop, average[:, waves][..., [0, -1]])
    samples = np.arange(values.shape[-1])
    at = np.searchsorted(start, samples, side="right") - 1
    inside = (at >= 0) & (samples < stop[at])
    samples, at = samples[inside], at[inside]
    early = samples < middle[at]
    low, high = np.where(early, start[at], middle[at]), np.where(early, middle[at], stop[at])
    place = (samples - low) / (high - low) / 2 + np.where(early, 0.0, 0.5)
    shapes = average - average[..., :1] * (1 - GRID) - average[..., -1:] * GRID
    # interpolated linearly at each sample's place
    scaled = place * (GRID.size - 1)
    cell = np.minimum(scaled.astype(np.int64), GRID.size - 2)
    share, wave = scaled - cell, waves[at]
    spliced = shapes[:, wave, cell] * (1 - share) + shapes[:, wave, cell + 1] * share
    spliced = spliced + left[:, at] * (1 - place) + right[:, at] * place
    after = np.clip(np.searchsorted(joints, samples), 1, joints.size - 1)
    nearest = np.minimum(np.abs(samples - joints[after - 1]), np.abs(samples - joints[after]))
    own = 1 - np.clip(nearest / np.minimum(FADE_S * fs, (stop - start)[at] / 4), 0, 1)
    result[:, inside] = own * values[:, inside] + (1 - own) * spliced
    codes[inside] = wave
    return result, codes


def _levels(values: np.ndarray, start: np.ndarray, stop: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, ...]:
    """Level at the start and stop of each replaced wave, shape (n_leads, n) each, and the places of the joints, sorted.

    `ends` holds the average's own level there, shape (n_leads, n, 2).
    """
    goes_on, ends = start[1:] == stop[:-1], ends.copy()
    # two average waves need not meet at quite one level: within a block they do so halfway
    within = (ends[:, :-1, 1] + ends[:, 1:, 0])[:, goes_on] / 2
    ends[:, :-1, 1][:, goes_on] = ends[:, 1:, 0][:, goes_on] = within
    first, last = np.r_[True, ~goes_on], np.r_[~goes_on, True]
    joints = np.r_[start[first], stop[last]]
    order, samples = np.argsort(joints), np.arange(values.shape[-1])
    of_average, joints = np.concatenate([ends[:, first, 0], ends[:, last, 1]], axis=1)[:, order], joints[order]
    shifts = [np.interp(joints, samples, own) for own in values] - of_average
    places = enumerate((start, stop))
    left, right = (ends[..., at] + [np.interp(place, joints, shift) for shift in shifts] for at, place in places)
    return left, right, joints
