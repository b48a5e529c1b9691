"""Which wave of the heartbeat each sample of a window belongs to, and putting average waves in place of its own.

Waves tile the beat: each begins where the one before it ends. Boundaries are half open, so a sample at an
onset belongs to the wave that begins there.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd
from scipy.interpolate import CubicSpline

from ecgstudy.signals.delineation import FIDUCIAL_COLUMNS

WAVES = ("P", "PR", "QRS", "ST", "T", "TP")
"""P wave, P-R segment, QRS complex, S-T segment, T wave, T-P rest; a sample's code is the position in this tuple."""
UNKNOWN_WAVE = -1
"""Code of a sample that lies between no two known boundaries."""
LEAST_KNOWN = 0.9
"""Share of the samples between a window's first and last R peak that must have a code for the window to count."""
BOUNDARIES = (
    ("p_onset", "p_offset"),
    ("p_offset", "qrs_onset"),
    ("qrs_onset", "qrs_offset"),
    ("qrs_offset", "t_onset"),
    ("t_onset", "t_offset"),
    ("t_offset", "next_p_onset"),
)
"""Where each of :data:`WAVES` begins and ends."""
_PAINTED = tuple(WAVES.index(wave) for wave in ("PR", "ST", "TP", "T", "P", "QRS"))
"""At high rates P begins before T has ended, and noisy boundaries cross: of two waves the one painted later wins."""
_PEAKS = {"P": "p_peak", "QRS": "r_peak", "T": "t_peak"}

REGIONS = {
    "R wave": ("r_onset", "r_offset"),
    "QRS complex": ("qrs_onset", "qrs_offset"),
    "P-R interval": ("p_onset", "r_peak"),
    "P-Q interval": ("p_onset", "qrs_onset"),
    "S-T interval": ("qrs_offset", "t_offset"),
}
"""Regions that TransECG names (arXiv 2503.13495), and where each begins and ends.

The paper does not publish its definitions; these are OURS. It tells P-R from P-Q interval, so the first is taken
to the R peak and the second to the onset of QRS (what cardiology calls the PR interval). The R wave is
the inner half of QRS: from midway between QRS onset and R peak to midway between R peak and QRS offset.
Regions overlap, so their shares do not add up to 1.
"""

GRID = np.linspace(0.0, 1.0, 65)
"""Places in a wave (0 = onset, 1/2 = peak, 1 = offset) at which average waves are known."""
FADE_S = 0.02
"""Seconds over which a recording fades into an average wave at a joint; at most a quarter of the wave."""
MEAN_BEAT, DONOR_BEAT = "mean beat", "donor beat"


class Undelineated(StrEnum):
    """Why a window has no usable wave codes."""

    NO_BEATS = "no beats"
    ONE_BEAT = "fewer than two beats"
    NO_P = "P wave not found"
    NO_QRS = "QRS complex not found"
    NO_T = "T wave not found"


_NOT_FOUND = {"p": Undelineated.NO_P, "qrs": Undelineated.NO_QRS, "t": Undelineated.NO_T}


def wave_codes(fiducials: pd.DataFrame, n_samples: int) -> tuple[np.ndarray, Undelineated | None]:
    """Wave of every sample of a window, int8 positions in :data:`WAVES`, and why the window does not count, or None.

    A window counts when it holds two R peaks and :data:`LEAST_KNOWN` of the samples from the first to the last of them
    have a code; the reason names the wave that is missing most often. Samples before and after are coded as far as
    boundaries are known, so give the beats that lie around the window too: `fiducials` has one row a beat in order of
    time, in (fractional) samples from the window's start, NaN where not found.
    """
    codes = np.full(n_samples, UNKNOWN_WAVE, dtype=np.int8)
    points = fiducial_points(fiducials)
    for wave in _PAINTED:
        for start, stop in _edges(points, BOUNDARIES[wave], n_samples):
            codes[start:stop] = wave
    peaks = points["r_peak"]
    inside = (peaks >= 0) & (peaks < codes.size)
    if inside.sum() < 2:
        return codes, Undelineated.ONE_BEAT if inside.any() else Undelineated.NO_BEATS
    first, last = np.ceil(peaks[inside][[0, -1]]).astype(np.int64)
    if (codes[first:last] != UNKNOWN_WAVE).mean() >= LEAST_KNOWN:
        return codes, None
    missing = {wave: ~(points[f"{wave}_onset"] < points[f"{wave}_offset"])[inside] for wave in _NOT_FOUND}
    return codes, _NOT_FOUND[max(missing, key=lambda wave: missing[wave].sum())]


def region_masks(fiducials: pd.DataFrame, n_samples: int) -> np.ndarray:
    """Mark the samples of a window that belong to each of :data:`REGIONS`, bool, shape (n_regions, n_samples)."""
    masks = np.zeros((len(REGIONS), n_samples), dtype=bool)
    points = fiducial_points(fiducials)
    for mask, boundaries in zip(masks, REGIONS.values(), strict=True):
        for start, stop in _edges(points, boundaries, n_samples):
            mask[start:stop] = True
    return masks


def on_common_samples(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Make a sample unknown in both of two codings where either does not know it, so that their tables compare."""
    either = (one == UNKNOWN_WAVE) | (other == UNKNOWN_WAVE)
    return np.where(either, UNKNOWN_WAVE, one).astype(np.int8), np.where(either, UNKNOWN_WAVE, other).astype(np.int8)


def fiducials_of_boundaries(boundaries: pd.DataFrame, scale: float, start: float) -> pd.DataFrame:
    """Arrange reference boundaries (wave, onset, peak, offset; one row a wave) as fiducial points, one row a beat.

    A QRS complex takes the last P between the QRS before and itself, and the first T between itself and the next.
    `scale` is the window's samples per sample of the source, `start` the window's first sample at its own rate.
    """
    waves = boundaries["wave"].to_numpy(dtype=object)
    places = np.stack([boundaries[end].to_numpy(dtype=float) for end in ("onset", "peak", "offset")], axis=1)
    order = np.argsort(places[:, 1], kind="stable")
    p, qrs, t = (places[order][waves[order] == wave] for wave in ("P", "QRS", "T"))
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


def fiducial_points(fiducials: pd.DataFrame) -> dict[str, np.ndarray]:
    """Give the fiducial points by name, shape (n_beats,) each, with those that follow from them.

    ``next_p_onset`` is where T-P rest ends; ``r_onset`` and ``r_offset`` bound the inner half of QRS.
    """
    points = {column: fiducials[column].to_numpy(dtype=float) for column in FIDUCIAL_COLUMNS}
    points["next_p_onset"] = np.append(points["p_onset"][1:], np.nan)[: len(fiducials)]
    points["r_onset"] = (points["qrs_onset"] + points["r_peak"]) / 2
    points["r_offset"] = (points["r_peak"] + points["qrs_offset"]) / 2
    return points


def _edges(points: dict[str, np.ndarray], boundaries: tuple[str, str], n_samples: int) -> np.ndarray:
    """First sample and last sample + 1 of a wave in each beat where both boundaries are known, shape (n, 2)."""
    edges = np.stack([points[name] for name in boundaries], axis=1)
    edges = edges[np.isfinite(edges).all(axis=1)]
    return np.clip(np.ceil(edges), 0, n_samples).astype(np.int64)


@dataclass(frozen=True)
class Spans:
    """The waves of a stretch of recording whose boundaries are known, in order of time, shape (n,) each.

    `start`, `middle` and `stop` are onset, peak (halfway for segments and where the peak is not known) and offset in
    samples; `waves` are positions in :data:`WAVES`.
    """

    start: np.ndarray
    middle: np.ndarray
    stop: np.ndarray
    waves: np.ndarray

    def chosen(self, mask: np.ndarray) -> "Spans":
        """Waves chosen by a boolean mask."""
        return Spans(self.start[mask], self.middle[mask], self.stop[mask], self.waves[mask])

    def times(self) -> np.ndarray:
        """Place of each point of :data:`GRID` in time, shape (n, n_grid)."""
        early = self.start[:, None] + 2 * GRID * (self.middle - self.start)[:, None]
        late = self.middle[:, None] + (2 * GRID - 1) * (self.stop - self.middle)[:, None]
        return np.where(GRID < 0.5, early, late)


def wave_spans(fiducials: pd.DataFrame, n_samples: int) -> Spans:
    """Waves that lie wholly inside a stretch of recording, from fiducials in samples from its start."""
    points = fiducial_points(fiducials)
    start, stop = (np.stack([points[pair[side]] for pair in BOUNDARIES], axis=1).ravel() for side in (0, 1))
    absent = np.full(len(fiducials), np.nan)
    peaks = np.stack([points[_PEAKS[wave]] if wave in _PEAKS else absent for wave in WAVES], axis=1).ravel()
    middle = np.where((peaks > start) & (peaks < stop), peaks, (start + stop) / 2)
    spans = Spans(start, middle, stop, np.tile(np.arange(len(WAVES)), len(fiducials)))
    spans = spans.chosen((start >= 0) & (stop <= n_samples - 1) & (stop > start))  # NaN compares as False
    # at high rates P begins before T has ended: the wave that comes later is left as it is
    return spans.chosen(spans.start >= np.r_[-np.inf, np.maximum.accumulate(spans.stop)[:-1]])


def average_waves(values: np.ndarray, spans: Spans) -> tuple[np.ndarray, np.ndarray]:
    """Add up the waves of a stretch of recording on :data:`GRID`: sums (n_waves, n_grid) and counts (n_waves, 1)."""
    sums, counts = np.zeros((len(WAVES), GRID.size)), np.bincount(spans.waves, minlength=len(WAVES))[:, None]
    if spans.waves.size:
        np.add.at(sums, spans.waves, CubicSpline(np.arange(values.size), values)(spans.times()))
    return sums, counts


def splice(values: np.ndarray, spans: Spans, average: np.ndarray, replaced: Collection[str], fs: float) -> np.ndarray:
    """Replace some waves of every beat by average ones, without steps at the joints; float32, the shape of `values`.

    `average` has shape (n_waves, n_grid); a wave whose row is NaN stays. A wave keeps its place in time: the average is
    stretched to the beat's own onset, peak and offset, so that only its shape and level change, and intervals do not.
    Neighbouring waves that are all replaced form one block. At a block's two ends the average is shifted to the
    recording's own level, the shift in between being linear in time; there the recording fades into the average over
    :data:`FADE_S`.
    """
    known = np.isfinite(average).all(axis=1) & np.isin(WAVES, list(replaced))
    spans = spans.chosen(known[spans.waves])
    start, middle, stop, waves = spans.start, spans.middle, spans.stop, spans.waves
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
    # interpolated linearly at each sample's place
    scaled = place * (GRID.size - 1)
    cell = np.minimum(scaled.astype(np.int64), GRID.size - 2)
    share, wave = scaled - cell, waves[at]
    spliced = shapes[wave, cell] * (1 - share) + shapes[wave, cell + 1] * share
    spliced = spliced + left[at] * (1 - place) + right[at] * place
    after = np.clip(np.searchsorted(joints, samples), 1, joints.size - 1)
    nearest = np.abs(samples[:, None] - np.stack([joints[after - 1], joints[after]], axis=1)).min(axis=1)
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


def infills(
    windows: np.ndarray, fiducials: Sequence[pd.DataFrame], persons: np.ndarray, fs: float, seed: int
) -> dict[str, np.ndarray]:
    """Give what windows (n, 1, n_samples) of two persons or more are filled with: the same beats in time, of others.

    By :data:`MEAN_BEAT` and :data:`DONOR_BEAT`: each wave of a window is the average of that wave over everybody's
    windows (every person weighing the same), or over those of another person drawn for the window. Waves cut by the
    window's edge, and those that could not be delineated, stay as they are.
    """
    spans = [wave_spans(points, windows.shape[-1]) for points in fiducials]
    names, owner = np.unique(persons, return_inverse=True)
    parts = [average_waves(window[0], of_window) for window, of_window in zip(windows, spans, strict=True)]
    sums, counts = (np.zeros((len(names), *parts[0][at].shape)) for at in (0, 1))
    for person, (of_sums, of_counts) in zip(owner, parts, strict=True):
        sums[person] += of_sums
        counts[person] += of_counts
    waves = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    known = np.isfinite(waves)
    everybody = np.divide(
        np.where(known, waves, 0).sum(0), known.sum(0), out=np.full(waves.shape[1:], np.nan), where=known.any(0)
    )
    donor = (owner + np.random.default_rng(seed).integers(1, len(names), len(owner))) % len(names)
    waves = np.where(known, waves, everybody)  # a wave that the donor lacks
    filled = {name: np.empty_like(windows) for name in (MEAN_BEAT, DONOR_BEAT)}
    for at, (window, of_window) in enumerate(zip(windows, spans, strict=True)):
        filled[MEAN_BEAT][at, 0] = splice(window[0], of_window, everybody, WAVES, fs)
        filled[DONOR_BEAT][at, 0] = splice(window[0], of_window, waves[donor[at]], WAVES, fs)
    return filled
