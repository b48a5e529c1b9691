"""What attackers read: one lead of a record's segments, as windows or as averaged beats."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.interpolate import CubicSpline

from ecgstudy.evaluate.splits import RECORD, SUBJECT
from ecgstudy.signals.delineation import FIDUCIAL_COLUMNS
from ecgstudy.signals.store import RecordStore

IDENTITY_LEAD = "I"
"""Lead that all cohorts share where they have it; elsewhere a record's reference lead stands in."""
LEAD_MARK = "@"
"""A record or person named ``cohort/name@lead`` stands for that lead instead."""
SOFT_CLIP = 6.0
"""Samples are bent back smoothly beyond this many typical amplitudes, so that an artefact does not rule a window."""
BEAT_BEFORE_S, BEAT_AFTER_S = 0.25, 0.5
BEAT_SLACK = 3
"""Samples by which a training beat is longer than the model reads: random crops shift it by up to 30 ms."""
MOST_BEATS = 6
PROBE_BEATS = 4
LEAST_SIMILAR = 0.85
"""Beats whose correlation with the median beat is lower are ectopic or artefacts, unless most are."""


class Signals:
    """One lead of every record of several cohorts, and its R peaks, by ``cohort/record``.

    Parameters
    ----------
    stores : mapping of str to RecordStore
        Stores by cohort name, all at one sampling rate.
    """

    def __init__(self, stores: Mapping[str, RecordStore]) -> None:
        self.fs = next(iter(stores.values())).fs
        self._stores = dict(stores)
        self._lead_row: dict[str, int] = {}
        self._reference_row: dict[str, int] = {}
        self._fiducials: dict[str, pd.DataFrame] = {}
        for name, store in stores.items():
            for record in store.records.itertuples():
                lead = IDENTITY_LEAD if IDENTITY_LEAD in record.usable_leads else record.reference_lead
                self._lead_row[f"{name}/{record.record_id}"] = record.leads.index(lead)
                for lead in record.usable_leads:
                    self._lead_row[f"{name}/{record.record_id}{LEAD_MARK}{lead}"] = record.leads.index(lead)
                self._reference_row[f"{name}/{record.record_id}"] = record.leads.index(record.reference_lead)
            for record_id, beats in store.beats.groupby("record_id"):
                # fiducials are known to the record's own sample, which is finer than the store's
                self._fiducials[f"{name}/{record_id}"] = beats[list(FIDUCIAL_COLUMNS)] * self.fs

    def segment(self, record_id: str, start: int, stop: int) -> np.ndarray:
        """Give the samples of one segment, float32 of shape (n,), in typical amplitudes and softly clipped."""
        return soft_clip(self._lead(record_id, self._lead_row[record_id], start, stop), self.fs)

    def reference_segment(self, record_id: str, start: int, stop: int) -> np.ndarray:
        """Give the samples of a segment in the lead whose fiducials are known, in the record's unit."""
        return self._lead(record_id, self._reference_row[record_id], start, stop)

    def _lead(self, record_id: str, row: int, start: int, stop: int) -> np.ndarray:
        """Read one lead of a segment."""
        cohort, name = without_lead(record_id).split("/", 1)
        return self._stores[cohort].signal(name)[row, start:stop]

    def fiducials(self, record_id: str, start: int, stop: int) -> pd.DataFrame:
        """Fiducials of the beats whose R peak lies in a segment, in (fractional) samples from its start."""
        beats = self._fiducials.get(without_lead(record_id))
        if beats is None:
            return pd.DataFrame(columns=list(FIDUCIAL_COLUMNS), dtype=float)
        return beats[(beats["r_peak"] >= start) & (beats["r_peak"] < stop)] - start

    def peaks(self, record_id: str, start: int, stop: int) -> np.ndarray:
        """R peaks inside a segment, in (fractional) samples from its start."""
        return self.fiducials(record_id, start, stop)["r_peak"].to_numpy()

    def beats(self, record_id: str, start: int, stop: int, slack: int = 0) -> np.ndarray:
        """Beats of a segment around their R peaks, shape (n_beats, n_samples), outliers left out.

        Samples are interpolated (cubic), so that all R peaks fall on the same column exactly.
        """
        values = self.segment(record_id, start, stop)
        before, after = round(BEAT_BEFORE_S * self.fs), round(BEAT_AFTER_S * self.fs) + slack
        peaks = self.peaks(record_id, start, stop)
        peaks = peaks[(peaks >= before) & (peaks + after <= len(values))]
        if not len(peaks):
            return np.empty((0, before + after), dtype=np.float32)
        places = peaks[:, None] + np.arange(-before, after)
        beats = CubicSpline(np.arange(len(values)), values)(places).astype(np.float32)
        return beats[_typical(beats)]


def without_lead(name: str) -> str:
    """Drop the lead from the name of a record or person."""
    return name.rsplit(LEAD_MARK, 1)[0]


def by_lead(records: pd.DataFrame, leads: tuple[str, ...]) -> pd.DataFrame:
    """Repeat a record table once a lead, records and persons named after it; records without the lead are left out."""
    parts = []
    for lead in leads:
        rows = records[[lead in usable for usable in records["usable_leads"]]]
        parts.append(
            rows.assign(record_id=rows[RECORD] + LEAD_MARK + lead, subject_id=rows[SUBJECT] + LEAD_MARK + lead)
        )
    return pd.concat(parts, ignore_index=True)


def soft_clip(values: np.ndarray, fs: float) -> np.ndarray:
    """Scale a segment by the median range of its seconds and bend outliers back, float32 of the same shape."""
    second = max(1, round(fs))
    whole = len(values) // second * second
    pieces = values[:whole].reshape(-1, second) if whole else values[None]
    typical = max(float(np.median(np.ptp(pieces, axis=1))) / 5, 1e-6)
    return (SOFT_CLIP * np.tanh((values - np.median(values)) / typical / SOFT_CLIP)).astype(np.float32)


def _typical(beats: np.ndarray) -> np.ndarray:
    """Whether each beat resembles the median beat, shape (n_beats,)."""
    centred = beats - beats.mean(axis=1, keepdims=True)
    reference = np.median(centred, axis=0)
    scale = np.linalg.norm(centred, axis=1) * np.linalg.norm(reference) + 1e-12
    similarity = centred @ reference / scale
    return similarity >= min(LEAST_SIMILAR, float(np.median(similarity)))


def free_windows(signals: Signals, segments: pd.DataFrame, length: int, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Evenly spread windows of every segment, overlapping where `most` of them need it.

    Parameters
    ----------
    signals : Signals
        Where samples come from.
    segments : pandas.DataFrame
        Rows of a split's part; a segment shorter than a window gives none.
    length : int
        Samples of a window.
    most : int
        Windows of a segment at most; fewer where they would start less than a quarter second apart.

    Returns
    -------
    windows : numpy.ndarray
        float32, shape (n, length).
    owners : numpy.ndarray
        Row number in `segments` of each window, shape (n,).
    """
    parts, owners = [], []
    for row, segment in enumerate(segments.itertuples()):
        values = signals.segment(segment.record_id, segment.start, segment.stop)
        room = len(values) - length
        if room < 0:
            continue
        n = int(min(most, room // (signals.fs / 4) + 1))
        starts = np.linspace(0, room, n).astype(np.int64)
        parts.append(np.lib.stride_tricks.sliding_window_view(values, length)[starts])
        owners.append(np.full(n, row))
    if not parts:
        return np.empty((0, length), dtype=np.float32), np.zeros(0, dtype=np.int64)
    return np.concatenate(parts), np.concatenate(owners)


def averaged_beats(
    signals: Signals, segments: pd.DataFrame, most: int, rng: np.random.Generator | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Averages of a few beats of every segment.

    Parameters
    ----------
    signals, segments
        As in :func:`free_windows`; a segment without a whole beat gives none.
    most : int
        Averages of a segment at most.
    rng : numpy.random.Generator, optional
        For training: averages of 1 to 6 beats drawn at random, a little longer than the model reads.
        Without it: averages of 4 consecutive beats, evenly spread.

    Returns
    -------
    averages : numpy.ndarray
        float32, shape (n, n_samples).
    owners : numpy.ndarray
        Row number in `segments` of each average, shape (n,).
    """
    parts, owners = [], []
    for row, segment in enumerate(segments.itertuples()):
        beats = signals.beats(segment.record_id, segment.start, segment.stop, BEAT_SLACK if rng else 0)
        if not len(beats):
            continue
        picks = _random_picks(len(beats), most, rng) if rng else _consecutive_picks(len(beats), most)
        parts.append(np.stack([beats[pick].mean(axis=0) for pick in picks]))
        owners.append(np.full(len(picks), row))
    width = round(BEAT_BEFORE_S * signals.fs) + round(BEAT_AFTER_S * signals.fs) + (BEAT_SLACK if rng else 0)
    if not parts:
        return np.empty((0, width), dtype=np.float32), np.zeros(0, dtype=np.int64)
    return np.concatenate(parts), np.concatenate(owners)


def _random_picks(n_beats: int, n_picks: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Random beats to average, with replacement."""
    return [rng.integers(0, n_beats, rng.integers(1, MOST_BEATS + 1)) for _ in range(n_picks)]


def _consecutive_picks(n_beats: int, most: int) -> list[np.ndarray]:
    """Choose runs of consecutive beats to average."""
    width = min(PROBE_BEATS, n_beats)
    starts = np.unique(np.linspace(0, n_beats - width, min(most, n_beats - width + 1)).astype(np.int64))
    return [np.arange(start, start + width) for start in starts]


def records_of(segments: pd.DataFrame, owners: np.ndarray) -> np.ndarray:
    """Record of each window, from :func:`free_windows` or :func:`averaged_beats`."""
    return segments[RECORD].to_numpy(dtype=str)[owners]
