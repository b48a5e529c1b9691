"""A heartbeat taken apart into factors: the shapes of six waves, and four intervals that say when the waves come.

Any factor of a recording can be exchanged for somebody else's average: an interval by warping time between the
fiducial points (a P wave moves as a whole, the rest between beats gives way), a wave by splicing in the average one.
The exchange starts at the person's OWN average beat in the recording's own rhythm, so that noise and what changes from
beat to beat are gone on both sides, and only what sets the person apart is taken away. Everything is piecewise smooth
in the share of a factor that is exchanged, so gradients pass through it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.interpolate import CubicSpline

from ecgstudy.attribution.waves import GRID, WAVES, Points, fiducial_points, grid_times, splice, wave_spans
from ecgstudy.errors import StudyError
from ecgstudy.evaluate.bootstrap import ratio

INTERVALS = ("PR interval", "QRS duration", "QT interval", "RR interval")
FACTORS = (*WAVES, *INTERVALS)
"""What an exchange can exchange: shapes of waves, which keep their place in time, and intervals, which move shapes."""
OWN_TIMING, EVERYBODY, DONOR = "mean_own_timing", "mean_everybody", "donor"
BASELINES = (OWN_TIMING, EVERYBODY, DONOR)
"""Everybody's average waves at the person's own timing; the same at everybody's timing; another person's, at theirs."""
_KNOTS = ("p_onset", "p_offset", "qrs_onset", "qrs_offset", "t_onset", "t_offset")
_LEAST_STEP = 0.25  # samples that lie between two knots at least after a warp
_FAR = 1e6


class Average(NamedTuple):
    """Mean waves, (n_leads, n_waves, n_grid), and :data:`INTERVALS` in samples, (4,); NaN where nothing is known."""

    waves: np.ndarray
    intervals: np.ndarray


def intervals_of(points: Points) -> np.ndarray:
    """Median of each of :data:`INTERVALS` over the beats of a recording, in samples, NaN where no beat has it."""
    onset = points["qrs_onset"]
    each = (onset - points["p_onset"], points["qrs_offset"] - onset, points["t_offset"] - onset, np.diff(onset))
    return np.array([np.median(known) if (known := one[np.isfinite(one)]).size else np.nan for one in each])


def person_averages(recordings: Iterable[tuple[str, np.ndarray, Points]]) -> tuple[dict[str, Average], np.ndarray]:
    """Average beat of each person, from (person, samples of shape (n_leads, n_samples), points).

    And how many waves of each kind were found in all, shape (n_waves,).
    """
    sums, counts, timings = {}, {}, {}
    for person, values, points in recordings:
        spans = wave_spans(points, values.shape[-1])
        total, count = np.zeros((len(values), len(WAVES), GRID.size)), np.bincount(spans.wave, minlength=len(WAVES))
        if spans.wave.size:
            curve = CubicSpline(np.arange(values.shape[-1]), values, axis=-1)
            np.add.at(total, (slice(None), spans.wave), curve(grid_times(spans)))
        sums[person], counts[person] = sums.get(person, 0) + total, counts.get(person, 0) + count
        timings.setdefault(person, []).append(intervals_of(points))
    shapes = {person: ratio(total, counts[person][:, None]) for person, total in sums.items()}
    averages = {person: Average(waves, _known_mean(np.stack(timings[person]))) for person, waves in shapes.items()}
    return averages, sum(counts.values())


def mean_average(averages: Iterable[Average]) -> Average:
    """Average beat of several persons, who all weigh the same."""
    return Average(*(_known_mean(np.stack(parts)) for parts in zip(*averages, strict=True)))


def _known_mean(values: np.ndarray) -> np.ndarray:
    """Mean along the first axis of what is known, NaN where nothing is."""
    known = np.isfinite(values)
    return ratio(np.where(known, values, 0).sum(axis=0), known.sum(axis=0))


def retimed(points: Points, change: np.ndarray, centre: float) -> tuple[np.ndarray, np.ndarray]:
    """Knots of a warp of time that changes every beat's intervals by `change` samples: where they were, and go.

    The beat nearest to `centre` stays. P moves as a whole, and the P-R segment gives way; S-T segment and T wave are
    stretched together; between beats the T-P rest gives way. Where there is no room, what comes later is pushed on.
    """
    pr, qrs, qt, rr = change
    p_onset, p_offset, onset, offset, t_onset, t_offset = before = np.stack([points[name] for name in _KNOTS])
    later = np.fmin(-pr, onset - p_offset)  # P ends where QRS begins at the latest
    place, start, stop = (t_onset - offset) / (t_offset - offset), offset + qrs, t_offset + qt  # of S-T and T
    after = np.stack([p_onset + later, p_offset + later, onset, start, start + place * (stop - start), stop])
    shift = rr * (np.arange(onset.size) - np.nanargmin(np.abs(points["r_peak"] - centre)))
    before, after = before.T.ravel(), (after + shift).T.ravel()
    known = np.isfinite(before) & np.isfinite(after)
    before, after = before[known], after[known]
    rising = before > np.r_[-np.inf, np.maximum.accumulate(before)[:-1]][: before.size]
    before, after = before[rising], after[rising]
    steps = _LEAST_STEP * np.arange(after.size)
    after = np.maximum.accumulate(after - steps) + steps
    return tuple(np.r_[knots[0] - _FAR, knots, knots[-1] + _FAR] for knots in (before, after))


def exchanged(
    values: np.ndarray, points: Points, fs: float, waves: np.ndarray, change: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Warp a recording (n_leads, n_samples) by :func:`retimed`, and splice in `waves` (:func:`.waves.splice`)."""
    n_samples = values.shape[-1]
    change = np.nan_to_num(change)
    if change.any() and np.isfinite(points["qrs_onset"]).any():
        before, after = retimed(points, change, n_samples / 2)
        places = np.interp(np.arange(n_samples), after, before).clip(0, n_samples - 1)
        values = CubicSpline(np.arange(n_samples), values, axis=-1)(places)
        points = {name: np.interp(own, before, after) for name, own in points.items()}
    return splice(values, wave_spans(points, n_samples), waves, fs)


def prolonged(values: np.ndarray, fiducials: pd.DataFrame, more: int) -> tuple[np.ndarray, pd.DataFrame]:
    """Lengthen a recording by `more` samples on both sides: whole beats of it are repeated, its ends without two beats.

    So a warp can reach beyond a record's ends. Fiducial points are counted from the new start.
    """
    n_samples, peaks = values.shape[-1], fiducials["r_peak"].to_numpy()
    period = round(peaks[-1] - peaks[0]) if peaks.size > 1 else 0
    if not period:
        return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(more, more)], mode="edge"), fiducials + more
    places = np.arange(-more, n_samples + more)
    early, late = -(places // period) * (places < 0), ((places - n_samples) // period + 1) * (places >= n_samples)
    copies = range(1, -(-more // period) + 1)
    before = [fiducials[peaks < period] - number * period for number in reversed(copies)]
    after = [fiducials[peaks >= n_samples - period] + number * period for number in copies]
    beats = pd.concat([*before, fiducials, *after], ignore_index=True)
    return values[..., places + (early - late) * period], beats + more


@dataclass(frozen=True)
class Windows:
    """Windows of people, as networks read them, and what is known of their waves.

    `around` are float32 samples, shape (n, n_leads, more + n_samples + more): a window and `more` samples on either
    side; `targets` the true class of each window, (n,); `seed` is that of donors and of untrained networks. Where they
    are known: `codes` from :func:`~ecgstudy.attribution.waves.wave_codes`, (n, n_samples); `persons`, the names;
    `fiducials`, an object array of tables of fiducial points in samples from the window's start, with those of the
    beats around it.
    """

    around: np.ndarray
    targets: np.ndarray
    fs: float
    seed: int
    more: int = 0
    codes: np.ndarray | None = None
    persons: np.ndarray | None = None
    fiducials: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Refuse arrays that do not belong together."""
        n, _, n_samples = self.samples.shape
        for name, shape in {"targets": (n,), "codes": (n, n_samples), "persons": (n,), "fiducials": (n,)}.items():
            values = getattr(self, name)
            if values is not None and values.shape != shape:
                raise ValueError(f"{name} of shape {shape} expected, got {values.shape}")
        if not np.isfinite(self.around).all():
            raise StudyError("A window holds samples that are not numbers, or a constant lead; cut beside flaws.")

    def __getstate__(self) -> dict[str, object]:
        """Pickle no exchanges: what they rendered is large and made again in seconds."""
        return {part.name: getattr(self, part.name) for part in fields(self)}

    def __len__(self) -> int:
        """Count the windows."""
        return len(self.around)

    @property
    def samples(self) -> np.ndarray:
        """The windows alone, shape (n, n_leads, n_samples)."""
        return self.inside(self.around)

    def inside(self, around: np.ndarray) -> np.ndarray:
        """Cut the windows out of samples that reach `more` beyond them on either side."""
        return around[..., self.more : around.shape[-1] - self.more]

    @cached_property
    def exchanges(self) -> Mapping[str, "Exchange"]:
        """Exchange with each of :data:`BASELINES`; for windows of two classes or more, whose fiducials are known."""
        if self.fiducials is None or self.persons is None:
            raise StudyError("Exchanging waves and intervals needs fiducial points; delineate the windows first.")
        if np.unique(self.targets).size < 2:
            raise StudyError("Exchanging waves and intervals needs windows of two classes; give more people.")
        points = [fiducial_points(table + self.more) for table in self.fiducials]
        known, _ = person_averages(zip(self.persons, self.around, points, strict=True))
        own, everybody = [known[person] for person in self.persons], mean_average(known.values())
        own_timing = everybody._replace(intervals=np.full(len(INTERVALS), np.nan))
        rng = np.random.default_rng(self.seed)
        donors = [known[rng.choice(self.persons[self.targets != target])] for target in self.targets]
        ends = {OWN_TIMING: [own_timing] * len(self), EVERYBODY: [everybody] * len(self), DONOR: donors}
        return {name: Exchange(self, points, own, end) for name, end in ends.items()}


class Exchange:
    """The windows with any share of any factor exchanged: 0 is the person's own average, 1 that of somebody else.

    Intervals that the other average leaves open (NaN) stay as recorded, as a wave does that one of the two lacks.
    """

    def __init__(self, windows: Windows, points: list[Points], own: list[Average], other: list[Average]) -> None:
        self._windows, self._points, self._own, self._other = windows, points, own, other
        self._timings = np.stack([intervals_of(one) for one in points])
        self._known: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}
        retimes = np.isfinite([average.intervals for average in other]).any(axis=0)
        self.factors = np.flatnonzero(np.r_[np.ones(len(WAVES), dtype=bool), retimes])
        """Positions in :data:`FACTORS` of what is exchanged."""

    def at(self, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Windows, float32, and the wave each sample is taken from, (n, n_samples), at `share` (n_factors,) of each."""
        if share.tobytes() not in self._known:
            both = [self._at(row, share[: len(WAVES)], share[len(WAVES) :]) for row in range(len(self._windows))]
            self._known[share.tobytes()] = tuple(np.stack(part) for part in zip(*both, strict=True))
        return self._known[share.tobytes()]

    def _at(self, row: int, of_waves: np.ndarray, of_intervals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One window."""
        own, other, windows = self._own[row], self._other[row], self._windows
        waves = own.waves + of_waves[:, None] * (other.waves - own.waves)
        change = own.intervals + of_intervals * (other.intervals - own.intervals) - self._timings[row]
        samples, codes = exchanged(windows.around[row], self._points[row], windows.fs, waves, change)
        return windows.inside(samples), windows.inside(codes)
