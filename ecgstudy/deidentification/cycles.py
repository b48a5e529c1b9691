"""Heart cycles: what a recording is made of besides its rhythm, and how it is put together again.

A cycle runs from one R peak to the next. The surroundings of the R peak keep their time, so that a QRS complex stays
sharp at any heart rate; what lies between them is stretched. A recording rendered from its own median cycle at its own
R peaks keeps shape and rhythm and loses the differences between beats, noise and wander.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from ecgstudy.evaluate.splits import RECORD
from ecgstudy.signals.store import RecordStore

QRS_S = 0.08
"""Seconds on either side of an R peak that keep their time; at most a third of a cycle."""
QRS_POINTS, REST_POINTS = 8, 64
POINTS = 2 * QRS_POINTS + REST_POINTS
"""Points of a cycle, the first of them the R peak."""
SHORTEST_S, LONGEST_S = 0.25, 2.5
"""Cycles beyond (240 and 24 beats a minute) are missed or false beats."""
TYPICAL_S = 0.8
RHYTHM = ("rate", "sdnn", "rmssd", "successive")
"""What :func:`rhythm_features` measures."""


class Recording(NamedTuple):
    """Samples of one record, shape (n_leads, n_samples) at `fs` Hz, and its R peaks in seconds, ascending."""

    values: np.ndarray
    fs: float
    peaks: np.ndarray


@dataclass(frozen=True)
class CycleSet:
    """Median cycles of many records, in the unit of their cohort.

    `cycles` is float32 of shape (n, n_leads, POINTS), `rhythm` of shape (n, len(RHYTHM)); `records` has a row each, in
    the same order, with index 0 to n - 1.
    """

    cycles: np.ndarray
    rhythm: np.ndarray
    records: pd.DataFrame

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self.records)

    def rows(self, chosen: np.ndarray) -> "CycleSet":
        """Give some of the records: a mask, or their numbers."""
        return CycleSet(self.cycles[chosen], self.rhythm[chosen], self.records.loc[chosen].reset_index(drop=True))

    @property
    def amplitudes(self) -> np.ndarray:
        """Standard deviation of each lead's cycle, shape (n, n_leads)."""
        return self.cycles.std(axis=-1)

    @property
    def shapes(self) -> np.ndarray:
        """Cycles of mean 0 and standard deviation 1 a lead, shape (n, n_leads, POINTS)."""
        return shaped(self.cycles)


def shaped(cycles: np.ndarray) -> np.ndarray:
    """Bring each lead of each cycle to mean 0 and standard deviation 1; a lead without any swing stays 0."""
    centred = cycles - cycles.mean(axis=-1, keepdims=True, dtype=float)  # exact: a flat lead is not blown up
    return (centred / np.maximum(centred.std(axis=-1, keepdims=True), 1e-9)).astype(np.float32)


def _places(lengths: np.ndarray) -> np.ndarray:
    """Seconds after its R peak of each point of cycles of these lengths (s), shape (n, POINTS)."""
    fixed = np.minimum(QRS_S, lengths / 3)[:, None]
    near, rest = np.arange(QRS_POINTS) / QRS_POINTS, np.arange(REST_POINTS) / REST_POINTS
    length = lengths[:, None]
    return np.hstack([near * fixed, fixed + rest * (length - 2 * fixed), length - fixed + near * fixed])


def median_cycle(recording: Recording, flaws: Iterable[tuple[int, int]] = ()) -> np.ndarray | None:
    """Median over the whole cycles of a recording, shape (n_leads, POINTS); None where it has none.

    `flaws` are stretches (start, stop in samples) that a cycle may not touch.
    """
    starts, lengths = recording.peaks[:-1], np.diff(recording.peaks)
    usable = (lengths > SHORTEST_S) & (lengths < LONGEST_S)
    for start, stop in flaws:
        usable &= ((starts + lengths) * recording.fs < start) | (starts * recording.fs >= stop)
    if not usable.any():
        return None
    places = (starts[usable, None] + _places(lengths[usable])) * recording.fs
    grid = np.arange(recording.values.shape[-1])
    cycles = np.stack([np.interp(places, grid, lead) for lead in recording.values], axis=1)
    return np.median(cycles, axis=0).astype(np.float32)


def render(cycle: np.ndarray, peaks: np.ndarray, n_samples: int, fs: float) -> np.ndarray:
    """Put a cycle (n_leads, POINTS) between R peaks (s), float32 of shape (n_leads, n_samples).

    Before the first peak and after the last the rhythm goes on at its median rate.
    """
    lengths = np.diff(peaks)
    typical = float(np.median(lengths)) if len(lengths) else TYPICAL_S
    first, last, end = peaks[0], peaks[-1], n_samples / fs
    before = first - typical * np.arange(np.ceil(first / typical) + 1, 0, -1)
    after = last + typical * np.arange(1, np.ceil(max(end - last, 0) / typical) + 2)
    peaks = np.concatenate([before, peaks, after])
    times = np.arange(n_samples) / fs
    at = np.searchsorted(peaks, times, side="right") - 1
    length, since = (peaks[at + 1] - peaks[at]), times - peaks[at]
    fixed = np.minimum(QRS_S, length / 3)
    # the inverse of `_places`, piece by piece
    point = np.where(
        since < fixed, since / fixed * QRS_POINTS, QRS_POINTS + (since - fixed) / (length - 2 * fixed) * REST_POINTS
    )
    late = since >= length - fixed
    point = np.where(late, POINTS - (length - since) / fixed * QRS_POINTS, point)
    closed = np.concatenate([cycle, cycle[:, :1]], axis=1)  # the next R peak is the first again
    return np.stack([np.interp(point, np.arange(POINTS + 1), lead) for lead in closed]).astype(np.float32)


def rhythm_features(peaks: np.ndarray) -> np.ndarray:
    """Mean RR interval (s), and SDNN, RMSSD and the median successive difference as shares of it, shape (4,).

    NaN where fewer than three intervals are believable.
    """
    intervals = np.diff(peaks)
    intervals = intervals[(intervals > SHORTEST_S) & (intervals < LONGEST_S)]
    if len(intervals) < 3:
        return np.full(len(RHYTHM), np.nan)
    steps = np.abs(np.diff(intervals))
    spread = np.array([intervals.std(), np.sqrt(np.mean(steps**2)), np.median(steps)]) / intervals.mean()
    return np.concatenate([[intervals.mean()], spread])


def cycle_set(store: RecordStore, leads: Sequence[str]) -> CycleSet:
    """Median cycles of every record of a store that has all the leads and a measurable rhythm."""
    records = store.records
    records = records[[set(leads) <= set(usable) for usable in records["usable_leads"]]].reset_index(drop=True)
    flaws, peaks = dict(tuple(store.flaws.groupby(RECORD))), peaks_by_record(store)
    cycles, rhythms, kept = [], [], []
    for number, record in enumerate(records.itertuples()):
        rows = [record.leads.index(lead) for lead in leads]
        recording = Recording(store.signal(record.record_id)[rows], store.fs, peaks.get(record.record_id, np.zeros(0)))
        flawed = flaws.get(record.record_id)
        spans = [] if flawed is None else flawed.loc[flawed["lead"].isin(leads), ["start", "stop"]].to_numpy()
        cycle, rhythm = median_cycle(recording, spans), rhythm_features(recording.peaks)
        if cycle is not None and np.isfinite(cycle).all() and np.isfinite(rhythm).all():
            cycles.append(cycle)
            rhythms.append(rhythm)
            kept.append(number)
    found = np.array(cycles, dtype=np.float32).reshape(-1, len(leads), POINTS)
    return CycleSet(found, np.array(rhythms).reshape(-1, len(RHYTHM)), records.iloc[kept].reset_index(drop=True))


def peaks_by_record(store: RecordStore) -> dict[str, np.ndarray]:
    """R peaks of every record of a store that has any, in seconds, ascending."""
    beats = store.beats.dropna(subset="r_peak").groupby(RECORD)["r_peak"]
    return {name: np.sort(peaks.to_numpy()) for name, peaks in beats}
