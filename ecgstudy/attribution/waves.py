"""Which wave of the heartbeat each sample of a window belongs to, and putting average waves in place of its own.

Waves tile the beat: each begins where the one before it ends. Boundaries are half open, so a sample at an
onset belongs to the wave that begins there.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
import pandas as pd
from scipy.interpolate import CubicSpline

from ecgstudy.evaluate.bootstrap import ratio
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
_PEAKS = {"P": "p_peak", "QRS": "r_peak", "T": "t_peak"}
NO_BEATS, ONE_BEAT = "no beats", "fewer than two beats"
NOT_FOUND = {"p": "P wave not found", "qrs": "QRS complex not found", "t": "T wave not found"}
"""Why a window has no usable wave codes, with the two before."""

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


@dataclass(frozen=True)
class Windows:
    """Windows of people, as networks read them, and what is known of their waves.

    `samples` are float32, shape (n, n_leads, n_samples); `targets` the true class of each, (n,); `seed` is that of
    donors and of methods that draw random numbers. Where they are known: `codes` from :func:`wave_codes`; `persons`,
    the names; `fiducials`, an object array of tables of fiducial points in samples from the window's start, with those
    of the beats around it.
    """

    samples: np.ndarray
    targets: np.ndarray
    fs: float
    seed: int
    codes: np.ndarray | None = None
    persons: np.ndarray | None = None
    fiducials: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Refuse arrays that do not belong together."""
        n, _, n_samples = self.samples.shape
        shapes = {"targets": (n,), "codes": (n, n_samples), "persons": (n,), "fiducials": (n,)}
        for name, shape in shapes.items():
            values = getattr(self, name)
            if values is not None and values.shape != shape:
                raise ValueError(f"{name} of shape {shape} expected, got {values.shape}")

    def __len__(self) -> int:
        """Count the windows."""
        return len(self.samples)

    def subset(self, chosen: np.ndarray) -> "Windows":
        """Windows chosen by a boolean mask or by positions."""
        arrays = {column.name: getattr(self, column.name) for column in fields(self)}
        return replace(self, **{k: values[chosen] for k, values in arrays.items() if isinstance(values, np.ndarray)})

    @cached_property
    def infills(self) -> dict[str, np.ndarray]:
        """The same beats in time, of others: what windows of one lead and of two persons or more are filled with.

        By :data:`MEAN_BEAT` and :data:`DONOR_BEAT`: each wave of a window is the average of that wave over everybody's
        windows (every person weighing the same), or over those of another person drawn for the window. Waves cut by
        the window's edge, and those that could not be delineated, stay as they are.
        """
        length = self.samples.shape[-1]
        spans = [wave_spans(points, length) for points in self.fiducials]
        averages, _ = person_averages(zip(self.persons, self.samples[:, 0], spans, strict=True))
        names, owner = np.unique(self.persons, return_inverse=True)
        waves = np.stack([averages[name] for name in names])
        known = np.isfinite(waves)
        everybody = ratio(np.where(known, waves, 0).sum(axis=0), known.sum(axis=0))
        waves = np.where(known, waves, everybody)  # a wave that the donor lacks
        donor = (owner + np.random.default_rng(self.seed).integers(1, len(names), len(owner))) % len(names)
        filled = {}
        for name, put_in in ((MEAN_BEAT, [everybody] * len(self)), (DONOR_BEAT, waves[donor])):
            each = zip(self.samples[:, 0], spans, put_in, strict=True)
            filled[name] = np.stack([splice(*one, WAVES, self.fs) for one in each])[:, None]
        return filled


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
        return codes, ONE_BEAT if inside.any() else NO_BEATS
    first, last = np.ceil(peaks[inside][[0, -1]]).astype(np.int64)
    if (codes[first:last] != UNKNOWN_WAVE).mean() >= LEAST_KNOWN:
        return codes, None
    missing = {wave: ~(points[f"{wave}_onset"] < points[f"{wave}_offset"])[inside] for wave in NOT_FOUND}
    return codes, NOT_FOUND[max(missing, key=lambda wave: missing[wave].sum())]


def region_masks(fiducials: pd.DataFrame, n_samples: int) -> np.ndarray:
    """Mark the samples of a window that belong to each of :data:`REGIONS`, bool, shape (n_regions, n_samples)."""
    points = fiducial_points(fiducials)
    return np.stack([_inside(points, boundaries, n_samples) for boundaries in REGIONS.values()])


def _inside(points: dict[str, np.ndarray], boundaries: tuple[str, str], n_samples: int) -> np.ndarray:
    """Whether each sample lies between two boundaries of a beat where both are known, bool, shape (n_samples,)."""
    edges = np.stack([points[name] for name in boundaries], axis=1)
    edges = np.ceil(edges[np.isfinite(edges).all(axis=1)])
    samples = np.arange(n_samples)
    return ((samples >= edges[:, :1]) & (samples < edges[:, 1:])).any(axis=0)


def fiducial_points(fiducials: pd.DataFrame) -> dict[str, np.ndarray]:
    """Give the fiducial points by name, shape (n_beats,) each, with those that follow from them.

    ``next_p_onset`` is where T-P rest ends; ``r_onset`` and ``r_offset`` bound the inner half of QRS.
    """
    points = {column: fiducials[column].to_numpy(dtype=float) for column in FIDUCIAL_COLUMNS}
    points["next_p_onset"] = np.append(points["p_onset"][1:], np.nan)[: len(fiducials)]
    points["r_onset"] = (points["qrs_onset"] + points["r_peak"]) / 2
    points["r_offset"] = (points["r_peak"] + points["qrs_offset"]) / 2
    return points


def on_common_samples(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Make a sample unknown in both of two codings where either does not know it, so that their tables compare."""
    either = (one == UNKNOWN_WAVE) | (other == UNKNOWN_WAVE)
    return np.where(either, UNKNOWN_WAVE, one).astype(np.int8), np.where(either, UNKNOWN_WAVE, other).astype(np.int8)


def fiducials_of_boundaries(boundaries: pd.DataFrame, scale: float, start: float) -> pd.DataFrame:
    """Arrange reference boundaries (wave, onset, peak, offset; one row a wave) as fiducial points, one row a beat.

    A QRS complex takes the last P between the QRS before and itself, and the first T between itself and the next.
    `scale` is the window's samples per sample of the source, `start` the window's first sample at its own rate.
    """
    ordered = boundaries.sort_values("peak", kind="stable")
    places = {wave: ordered.loc[ordered["wave"] == wave, ["onset", "peak", "offset"]] for wave in ("P", "QRS", "T")}
    p, qrs, t = (found.to_numpy(dtype=float) for found in places.values())
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


def wave_spans(fiducials: pd.DataFrame, n_samples: int) -> pd.DataFrame:
    """Waves that lie wholly inside a stretch of recording, from fiducials in samples from its start.

    One row a wave in order of time: start, middle, stop (onset, peak and offset in samples; halfway for segments and
    where the peak is not known) and wave (position in :data:`WAVES`).
    """
    points = fiducial_points(fiducials)
    start, stop = (np.stack([points[pair[side]] for pair in BOUNDARIES.values()], axis=1).ravel() for side in (0, 1))
    absent = np.full(len(fiducials), np.nan)
    peaks = np.stack([points[_PEAKS[wave]] if wave in _PEAKS else absent for wave in WAVES], axis=1).ravel()
    middle = np.where((peaks > start) & (peaks < stop), peaks, (start + stop) / 2)
    waves = np.tile(np.arange(len(WAVES)), len(fiducials))
    spans = pd.DataFrame({"start": start, "middle": middle, "stop": stop, "wave": waves})
    spans = spans[(start >= 0) & (stop <= n_samples - 1) & (stop > start)]  # NaN compares as False
    # at high rates P begins before T has ended: the wave that comes later is left as it is
    return spans[spans["start"] >= spans["stop"].cummax().shift(fill_value=-np.inf)]


def grid_times(spans: pd.DataFrame) -> np.ndarray:
    """Place of each point of :data:`GRID` in time, shape (n, n_grid)."""
    start, middle, stop = spans[["start", "middle", "stop"]].to_numpy().T[:, :, None]
    return np.where(GRID < 0.5, start + 2 * GRID * (middle - start), middle + (2 * GRID - 1) * (stop - middle))


def person_averages(
    recordings: Iterable[tuple[str, np.ndarray, pd.DataFrame]],
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Average waves of each person, shape (n_waves, n_grid), NaN where none is known, from (person, samples, spans).

    And how many waves of each kind were found in all, shape (n_waves,).
    """
    sums, counts = {}, {}
    for person, values, spans in recordings:
        waves = spans["wave"].to_numpy()
        total, count = np.zeros((len(WAVES), GRID.size)), np.bincount(waves, minlength=len(WAVES))
        if waves.size:
            np.add.at(total, waves, CubicSpline(np.arange(values.size), values)(grid_times(spans)))
        sums[person], counts[person] = sums.get(person, 0) + total, counts.get(person, 0) + count
    return {person: ratio(sums[person], counts[person][:, None]) for person in sums}, sum(counts.values())


def splice(
    values: np.ndarray, spans: pd.DataFrame, average: np.ndarray, replaced: Collection[str], fs: float
) -> np.ndarray:
    """Replace some waves of every beat by average ones, without steps at the joints; float32, the shape of `values`.

    `average` has shape (n_waves, n_grid); a wave whose row is NaN stays. A wave keeps its place in time: the average is
    stretched to the beat's own onset, peak and offset, so that only its shape and level change, and intervals do not.
    Neighbouring waves that are all replaced form one block. At a block's two ends the average is shifted to the
    recording's own level, the shift in between being linear in time; there the recording fades into the average over
    :data:`FADE_S`.
    """
    known = np.isfinite(average).all(axis=1) & np.isin(WAVES, list(replaced))
    start, middle, stop, waves = (column.to_numpy() for _, column in spans[known[spans["wave"]]].items())
    result = values.astype(np.float32)
    if not start.size:
        return result
    left, right, joints = _levels(values, start, stop, average[waves][:, [0, -1]])
    samples = np.arange(values.size)
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
