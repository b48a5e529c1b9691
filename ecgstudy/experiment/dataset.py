"""What attackers read: the one place that cuts a record's lead into segments, windows and beats.

Nothing is cut across a flaw that ingestion found (a gap, a flat or a saturated stretch), and no window is given
in which hardly a beat was found. A :class:`View` changes the samples on their way to an attacker.
"""

import copy
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from scipy.interpolate import CubicSpline

from ecgstudy.errors import StudyError
from ecgstudy.evaluate.splits import RECORD, SUBJECT, Split
from ecgstudy.signals.delineation import FIDUCIAL_COLUMNS
from ecgstudy.signals.features import FEATURES, beat_features, window_features
from ecgstudy.signals.quality import SLOWEST_RATE_BPM, Problem
from ecgstudy.signals.store import RecordStore

IDENTITY_LEAD = "I"
"""Lead that all cohorts share where they have it; elsewhere a record's reference lead stands in."""
LEAD_MARK = "@"
"""A record or person named ``cohort/name@lead`` stands for that lead instead."""
GRID_S = 1.0
"""Windows of continuous reading start on whole seconds of their record."""
SOFT_CLIP = 6.0
"""Samples are bent back smoothly beyond this many typical amplitudes, so that an artefact does not rule a window."""
BEAT_SPAN_S, SINGLE_SPAN_S = (0.25, 0.5), (0.2, 0.4)
"""Seconds before and after the R peak of an averaged beat, and of a single one."""
BEAT_SLACK = 3
"""Samples by which a training beat is longer than the model reads: random crops shift it by up to 30 ms."""
MOST_BEATS = 6
PROBE_BEATS = 4
LEAST_SIMILAR = 0.85
"""Beats whose correlation with the median beat is lower are ectopic or artefacts, unless most are."""
FEATURE_WINDOW_S = 5.0
"""Seconds of a feature window: enough beats for a median that an ectopic beat does not move."""
MOST_WINDOWS = 40
"""Windows (or averaged beats) of a segment that are embedded at most, evenly spread."""


class View:
    """A change of the samples of some parts of a split, waveform in and waveform out; this one changes nothing.

    Subclasses override one or both of the methods and are registered in :data:`VIEWS`.
    """

    parts: ClassVar[frozenset[str]] = frozenset({"probe"})
    """Parts of a split that are changed: train (with validation), enrolment, probe."""

    def fitted(self, dataset: "Dataset", split: Split) -> "View":
        """View with what it has to learn first, from parts that it may see."""
        return self

    def of(self, dataset: "Dataset") -> "Dataset":
        """Give the same records, their samples changed."""
        other = copy.copy(dataset)
        other.view = self
        return other

    def raw(self, record_id: str, start: int, values: np.ndarray) -> np.ndarray:
        """Change stored samples of one lead, shape (n,), the first at `start` of the record."""
        return values

    def scaled(self, dataset: "Dataset", record_id: str, start: int, values: np.ndarray) -> np.ndarray:
        """Change samples in typical amplitudes, shape (n,), as attackers read them."""
        return values


VIEWS: dict[str, View] = {"raw": View()}
"""Views by the name that jobs and metrics give them."""


class Dataset:
    """One lead of every record of several cohorts (stores of one sampling rate) with its beats, by ``cohort/record``.

    It is lead I unless told; a record without it is read in its reference lead.
    """

    def __init__(self, stores: Mapping[str, RecordStore], lead: str | None = None) -> None:
        self.fs = next(iter(stores.values())).fs
        self._stores, self.lead_read, self.view = dict(stores), lead or IDENTITY_LEAD, View()
        self._records = {f"{name}/{row.record_id}": row for name, s in stores.items() for row in s.records.itertuples()}

    def _by_record(self, table: str) -> dict[str, pd.DataFrame]:
        """Rows of a table of the stores, for every record that has any."""
        return {
            f"{name}/{record_id}": rows
            for name, store in self._stores.items()
            for record_id, rows in getattr(store, table).groupby("record_id")
        }

    @cached_property
    def _flaws(self) -> dict[str, pd.DataFrame]:
        return self._by_record("flaws")

    @cached_property
    def _fiducials(self) -> dict[str, pd.DataFrame]:
        """In (fractional) samples: they are known to the record's own sample, which is finer than the store's."""
        return {name: beats[list(FIDUCIAL_COLUMNS)] * self.fs for name, beats in self._by_record("beats").items()}

    def lead_of(self, name: str) -> str:
        """Name the lead in which a record is read."""
        owner, _, lead = name.partition(LEAD_MARK)
        record = self._records[owner]
        return lead or (self.lead_read if self.lead_read in record.usable_leads else record.reference_lead)

    def _flaws_of(self, name: str) -> list[Any]:
        """Flaws (lead, start, stop, reason) of the lead that is read and of the lead whose beats are known."""
        owner = without_lead(name)
        if owner not in self._flaws:
            return []
        leads = {self.lead_of(name), self._records[owner].reference_lead}
        return [flaw for flaw in self._flaws[owner].itertuples() if flaw.lead in leads]

    def pieces(self, segments: pd.DataFrame) -> pd.DataFrame:
        """Cut segments at their flaws: one row a flawless piece, with `row`, the row number of its segment.

        A record that is not there, because a view lost it, has none.
        """
        pieces = segments.assign(row=np.arange(len(segments)))
        there = pieces[RECORD].map(without_lead).isin(self._records.keys())
        pieces = pieces[there.to_numpy()]
        flawed = np.array([bool(self._flaws_of(name)) for name in pieces[RECORD]], dtype=bool)
        if not flawed.any():
            return pieces
        parts = [pieces[~flawed]]
        for at in np.flatnonzero(flawed):
            segment = pieces.iloc[[at]]
            start, stop = int(segment["start"].iloc[0]), int(segment["stop"].iloc[0])
            usable = np.ones(stop - start, dtype=bool)
            for flaw in self._flaws_of(segment[RECORD].iloc[0]):
                usable[max(flaw.start - start, 0) : max(flaw.stop - start, 0)] = False
            edges = start + np.flatnonzero(np.diff(usable, prepend=False, append=False))
            parts += [segment.assign(start=first, stop=last) for first, last in edges.reshape(-1, 2)]
        return pd.concat(parts).sort_values(["row", "start"], kind="stable", ignore_index=True)

    def lead(self, record_id: str, start: int, stop: int, reference: bool = False) -> np.ndarray:
        """Give the stored samples of a segment, float32 of shape (n,), or of the lead whose fiducials are known."""
        owner = without_lead(record_id)
        cohort, name = owner.split("/", 1)
        record = self._records[owner]
        lead = record.reference_lead if reference else self.lead_of(record_id)
        values = self._stores[cohort].signal(name)[record.leads.index(lead), start:stop]
        return self.view.raw(f"{owner}{LEAD_MARK}{lead}", start, values)

    def segment(self, record_id: str, start: int, stop: int) -> np.ndarray:
        """Give the samples of a flawless segment (n,), in typical amplitudes and softly clipped; refuses NaN."""
        values = soft_clip(self.lead(record_id, start, stop), self.fs)
        if not np.isfinite(values).all():
            raise StudyError(f"Record {record_id} has samples that are not numbers between {start} and {stop}.")
        return self.view.scaled(self, record_id, start, values)

    def fiducials(self, record_id: str, start: int, stop: int) -> pd.DataFrame:
        """Fiducials of the beats whose R peak lies in a segment, in (fractional) samples from its start."""
        beats = self._fiducials.get(without_lead(record_id))
        if beats is None:
            return pd.DataFrame(columns=list(FIDUCIAL_COLUMNS), dtype=float)
        return beats[(beats["r_peak"] >= start) & (beats["r_peak"] < stop)] - start

    def peaks(self, record_id: str, start: int, stop: int) -> np.ndarray:
        """R peaks inside a segment, in (fractional) samples from its start."""
        return self.fiducials(record_id, start, stop)["r_peak"].to_numpy()

    def _beats_at(self, record_id: str, places: np.ndarray, length: int) -> np.ndarray:
        """Whether enough beats were found in each window of a record to be of a heart, shape (n_windows,)."""
        peaks = self._peaks.get(without_lead(record_id), np.empty(0))
        beats = np.searchsorted(peaks, places + length) - np.searchsorted(peaks, places)
        return beats * 60 >= SLOWEST_RATE_BPM * length / self.fs

    @cached_property
    def _peaks(self) -> dict[str, np.ndarray]:
        """R peaks of every record in order of time, in samples."""
        return {record_id: np.sort(beats["r_peak"].dropna().to_numpy()) for record_id, beats in self._fiducials.items()}

    def windows(self, segments: pd.DataFrame, length: int, most: int = MOST_WINDOWS) -> tuple[np.ndarray, np.ndarray]:
        """Evenly spread windows (n, length) of every segment, and the row number in `segments` of each.

        They overlap where `most` of them need it, but start a quarter second apart at least; a segment without a usable
        window has none.
        """
        parts, owners = [np.empty((0, length), dtype=np.float32)], [np.zeros(0, dtype=np.int64)]
        for piece in self.pieces(segments).itertuples():
            room = piece.stop - piece.start - length
            if room < 0:
                continue
            places = np.linspace(0, room, int(min(most, room // (self.fs / 4) + 1))).astype(np.int64)
            places = places[self._beats_at(piece.record_id, piece.start + places, length)]
            values = self.segment(piece.record_id, piece.start, piece.stop)
            parts.append(np.lib.stride_tricks.sliding_window_view(values, length)[places])
            owners.append(np.full(len(places), piece.row))
        return np.concatenate(parts), np.concatenate(owners)

    def grid_index(self, segments: pd.DataFrame, seconds: float) -> pd.DataFrame:
        """List the windows on the grid of :data:`GRID_S` that lie wholly inside a segment, by record and time.

        `problem` is None, or the reason of the first flaw that a window touches, or that it holds too few beats; `row`
        is the row number of its segment.
        """
        length, step = round(seconds * self.fs), round(GRID_S * self.fs)
        parts = []
        for row, segment in enumerate(segments.itertuples()):
            places = np.arange(-(-segment.start // step) * step, segment.stop - length + 1, step)
            problem = np.full(len(places), None, dtype=object)
            problem[~self._beats_at(segment.record_id, places, length)] = Problem.NO_BEATS
            for flaw in self._flaws_of(segment.record_id)[::-1]:
                problem[(places < flaw.stop) & (places + length > flaw.start)] = flaw.reason
            columns = {SUBJECT: segment.subject_id, RECORD: segment.record_id, "start": places, "n_samples": length}
            parts.append(pd.DataFrame({**columns, "row": row, "problem": problem}))
        columns = [SUBJECT, RECORD, "start", "n_samples", "row", "problem"]
        index = pd.concat(parts) if parts else pd.DataFrame(columns=columns)
        order = {record_id: at for at, record_id in enumerate(self._records)}
        by_time = index.assign(at=index[RECORD].map(order)).sort_values(["at", "start"], kind="stable")
        return by_time.drop(columns="at").reset_index(drop=True)

    def grid(self, segments: pd.DataFrame, seconds: float, stride: float = GRID_S) -> pd.DataFrame:
        """Usable windows of :meth:`grid_index`, of each segment's every so many-th: `stride` seconds apart."""
        usable = self.grid_index(segments, seconds).pipe(lambda index: index[index["problem"].isna()])
        kept = usable[usable.groupby("row").cumcount() % round(stride / GRID_S) == 0]
        return kept.drop(columns=["row", "problem"]).reset_index(drop=True)

    def gather(self, index: pd.DataFrame) -> np.ndarray:
        """Give the stored samples of the windows of :meth:`grid`, float32, shape (n, n_samples)."""
        length = int(index["n_samples"].iloc[0])
        samples = np.empty((len(index), length), dtype=np.float32)
        for record_id, rows in index.groupby(RECORD).indices.items():
            starts = index["start"].to_numpy()[rows]
            first = starts.min()
            whole = self.lead(record_id, first, starts.max() + length)
            samples[rows] = np.lib.stride_tricks.sliding_window_view(whole, length)[starts - first]
        return samples

    def beats(
        self, record_id: str, start: int, stop: int, slack: int = 0, span: tuple[float, float] = BEAT_SPAN_S
    ) -> np.ndarray:
        """Beats of a flawless segment, `span` seconds before and after their R peaks, shape (n_beats, n_samples).

        Samples are interpolated (cubic), so that all R peaks fall on the same column exactly.
        """
        values = self.segment(record_id, start, stop)
        before, after = (round(seconds * self.fs) for seconds in span)
        after += slack
        peaks = self.peaks(record_id, start, stop)
        peaks = peaks[(peaks >= before) & (peaks + after <= len(values))]
        if not len(peaks):
            return np.empty((0, before + after), dtype=np.float32)
        places = peaks[:, None] + np.arange(-before, after)
        return CubicSpline(np.arange(len(values)), values)(places).astype(np.float32)

    def _typical_beats(
        self, segments: pd.DataFrame, slack: int, span: tuple[float, float]
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Row number of every segment that holds a whole beat, and its beats without ectopic ones and artefacts."""
        for row, pieces in self.pieces(segments).groupby("row"):
            whole = [self.beats(piece.record_id, piece.start, piece.stop, slack, span) for piece in pieces.itertuples()]
            beats = np.concatenate(whole)
            if len(beats):
                yield row, beats[_typical(beats)]

    def averaged_beats(
        self, segments: pd.DataFrame, most: int = MOST_WINDOWS, rng: np.random.Generator | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Averages of a few beats of every segment, outliers left out, and the row number in `segments` of each.

        With `rng`, for training, averages are of 1 to 6 beats drawn at random and a little longer than the model reads;
        without it of 4 consecutive beats, evenly spread. A segment without a whole beat gives none.
        """
        slack = BEAT_SLACK if rng else 0
        parts, owners = [np.empty((0, self.beat_samples(BEAT_SPAN_S) + slack), np.float32)], [np.zeros(0, np.int64)]
        for row, beats in self._typical_beats(segments, slack, BEAT_SPAN_S):
            if rng:
                picks = [rng.integers(0, len(beats), rng.integers(1, MOST_BEATS + 1)) for _ in range(most)]
            else:
                picks = _consecutive_picks(len(beats), most)
            parts.append(np.stack([beats[pick].mean(axis=0) for pick in picks]))
            owners.append(np.full(len(picks), row))
        return np.concatenate(parts), np.concatenate(owners)

    def single_beats(
        self, segments: pd.DataFrame, most: int = MOST_WINDOWS, slack: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Evenly spread beats of every segment, each alone, outliers left out, and the row number of each.

        For training they are `slack` samples longer than the model reads. A segment without a whole beat gives none.
        """
        parts, owners = [np.empty((0, self.beat_samples(SINGLE_SPAN_S) + slack), np.float32)], [np.zeros(0, np.int64)]
        for row, beats in self._typical_beats(segments, slack, SINGLE_SPAN_S):
            chosen = np.unique(np.linspace(0, len(beats) - 1, min(most, len(beats))).astype(np.int64))
            parts.append(beats[chosen])
            owners.append(np.full(len(chosen), row))
        return np.concatenate(parts), np.concatenate(owners)

    def beat_samples(self, span: tuple[float, float]) -> int:
        """Count the samples of a beat."""
        return sum(round(seconds * self.fs) for seconds in span)

    def features(self, segments: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
        """PQRST features of evenly spread windows that hold a beat, and the row number in `segments` of each.

        Columns are :data:`ecgstudy.signals.features.FEATURES`, measured in the lead whose fiducials are known.
        """
        tables, owners = [], [np.zeros(0, dtype=np.int64)]
        for piece in self.pieces(segments).itertuples():
            fiducials = self.fiducials(piece.record_id, piece.start, piece.stop)
            if fiducials.empty:
                continue
            beats = beat_features(self.lead(piece.record_id, piece.start, piece.stop, True), self.fs, fiducials)
            length = min(round(FEATURE_WINDOW_S * self.fs), piece.stop - piece.start)
            room = piece.stop - piece.start - length
            places = np.linspace(0, room, min(MOST_WINDOWS, room // round(self.fs) + 1)).astype(np.int64)
            found = window_features(beats, fiducials["r_peak"].to_numpy(), np.unique(places), length).dropna(how="all")
            if len(found):
                tables.append(found)
                owners.append(np.full(len(found), piece.row))
        empty = pd.DataFrame(columns=list(FEATURES), dtype=float)
        return pd.concat(tables, ignore_index=True) if tables else empty, np.concatenate(owners)


def without_lead(name: str) -> str:
    """Drop the lead from the name of a record or person."""
    return name.rsplit(LEAD_MARK, 1)[0]


def by_lead(records: pd.DataFrame, leads: tuple[str, ...]) -> pd.DataFrame:
    """Repeat a record table once a lead, records and persons named after it; records without the lead are left out."""
    parts = []
    for lead in leads:
        rows = records[[lead in usable for usable in records["usable_leads"]]]
        named = {column: rows[column] + LEAD_MARK + lead for column in (RECORD, SUBJECT)}
        parts.append(rows.assign(**named))
    return pd.concat(parts, ignore_index=True)


def soft_clip(values: np.ndarray, fs: float) -> np.ndarray:
    """Scale a segment by the median range of its seconds and bend outliers back, float32 of the same shape."""
    second = max(1, round(fs))
    whole = len(values) // second * second
    seconds = values[:whole].reshape(-1, second) if whole else values[None]
    typical = max(float(np.median(np.ptp(seconds, axis=1))) / 5, 1e-6)
    return (SOFT_CLIP * np.tanh((values - np.median(values)) / typical / SOFT_CLIP)).astype(np.float32)


def _typical(beats: np.ndarray) -> np.ndarray:
    """Whether each beat resembles the median beat, shape (n_beats,)."""
    centred = beats - beats.mean(axis=1, keepdims=True)
    reference = np.median(centred, axis=0)
    scale = np.linalg.norm(centred, axis=1) * np.linalg.norm(reference) + 1e-12
    similarity = centred @ reference / scale
    return similarity >= min(LEAST_SIMILAR, float(np.median(similarity)))


def _consecutive_picks(n_beats: int, most: int) -> list[np.ndarray]:
    """Choose runs of consecutive beats to average."""
    width = min(PROBE_BEATS, n_beats)
    starts = np.unique(np.linspace(0, n_beats - width, min(most, n_beats - width + 1)).astype(np.int64))
    return [np.arange(start, start + width) for start in starts]
