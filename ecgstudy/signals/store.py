"""Preprocessed records of a cohort, read from disk as they are needed.

:func:`ecgstudy.signals.ingest.build_store` writes the folder that
:class:`RecordStore` reads. Signals are memory-mapped, so a store of any size
opens at once and several processes share the same pages.
"""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from ecgstudy.errors import StudyError
from ecgstudy.signals import quality

SIGNALS = "signals.f32"
RECORDS = "records.parquet"
FLAWS = "flaws.parquet"
EXCLUSIONS = "exclusions.parquet"
BEATS = "beats.parquet"
MANIFEST = "store.json"

FLAW_REASONS = (quality.Problem.NOT_A_NUMBER, quality.Problem.FLAT, quality.Problem.SATURATED, quality.Problem.GAP)
"""Reasons of the store's flaws, worst first: a window that touches several is called after the first."""
LEAD_ABSENT = "lead absent"
"""Problem of a window whose record has no such lead."""

EXCLUSION_COLUMNS = ("record_id", "subject_id", "file", "reason", "sentence")
FLAW_COLUMNS = ("record_id", "lead", "start", "stop", "reason")
STORE_COLUMNS = ("offset", "store_samples", "usable_leads", "reference_lead", "delineation_failure", "sha256")
"""Columns that the store adds to a cohort's record table.

offset : int, first value of the record's block in the signal file. store_samples : int, samples per lead at the
store's rate. usable_leads : tuple of str. reference_lead : str, the lead whose beats are kept.
delineation_failure : str, why there are no beats, or None. sha256 : str, of the raw samples.
"""


class RecordStore:
    """Signals, record table and beats of one cohort at one sampling rate.

    Parameters
    ----------
    folder : pathlib.Path
        Folder that :func:`ecgstudy.signals.ingest.build_store` made.

    Raises
    ------
    StudyError
        The folder holds no finished store.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        if not is_complete(self.folder):
            raise StudyError(f"{self.folder} holds no finished store; run notebook 01_ingestion again.")

    def __getstate__(self) -> dict[str, Path]:
        """Pickle the folder's name alone: a worker maps the same files again."""
        return {"folder": self.folder}

    @cached_property
    def manifest(self) -> dict:
        """What the store was made from: key, fs, cohort and code digests, versions."""
        return json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))

    @property
    def fs(self) -> float:
        """Sampling rate of every stored signal, in Hz."""
        return self.manifest["fs"]

    @property
    def unit(self) -> str:
        """Unit of the signals as the source states it; several, with commas, where records differ."""
        return ", ".join(sorted(self._records["unit"].unique()))

    @property
    def records(self) -> pd.DataFrame:
        """The cohort's record table without the excluded records, with :data:`STORE_COLUMNS`."""
        return self._records.copy()

    @property
    def exclusions(self) -> pd.DataFrame:
        """One row an excluded record: :data:`EXCLUSION_COLUMNS`."""
        return pd.read_parquet(self.folder / EXCLUSIONS)

    @property
    def flaws(self) -> pd.DataFrame:
        """Stretches of kept records' leads that nothing may be cut across, as :func:`~ecgstudy.signals.quality.flaws`.

        Columns record_id, lead, start and stop (samples at the store's rate, stop excluded) and reason. A lead that
        cannot be used at all is one flaw from end to end.
        """
        return self._flaws.copy()

    @property
    def beats(self) -> pd.DataFrame:
        """One row a beat: record_id and the fiducials in seconds from the record's start (NaN where not found)."""
        return self._beats.copy()

    @cached_property
    def _records(self) -> pd.DataFrame:
        table = pd.read_parquet(self.folder / RECORDS)
        for column in table.select_dtypes(object).columns:
            # parquet gives lists back as arrays, which neither compare nor hash
            table[column] = [tuple(v) if isinstance(v, np.ndarray) else v for v in table[column]]
        return table

    @cached_property
    def _beats(self) -> pd.DataFrame:
        return pd.read_parquet(self.folder / BEATS)

    @cached_property
    def _flaws(self) -> pd.DataFrame:
        return pd.read_parquet(self.folder / FLAWS)

    @cached_property
    def _flaw_edges(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Sorted starts and sorted stops of the flaws of each reason, worst first, as places in the signal file."""
        rows = self._rows(self._flaws["record_id"])
        begin = self._lead_begin(rows, self._flaws["lead"])
        edges = {}
        for reason in FLAW_REASONS:
            mine = (self._flaws["reason"] == reason).to_numpy()
            edges[reason] = tuple(np.sort((begin + self._flaws[edge])[mine]) for edge in ("start", "stop"))
        return edges

    @cached_property
    def _offsets(self) -> np.ndarray:
        return self._records["offset"].to_numpy()

    @cached_property
    def _lengths(self) -> np.ndarray:
        return self._records["store_samples"].to_numpy()

    @cached_property
    def _leads(self) -> np.ndarray:
        return self._records["leads"].to_numpy()

    @cached_property
    def _record_ids(self) -> pd.Index:
        return pd.Index(self._records["record_id"])

    @cached_property
    def _flat(self) -> np.ndarray:
        """Every value of every record, one after the other."""
        return np.memmap(self.folder / SIGNALS, dtype="<f4", mode="r")

    def _rows(self, record_ids: Sequence[str] | pd.Series) -> np.ndarray:
        """Row numbers of records, or ``KeyError`` for one that is not in the store."""
        rows = self._record_ids.get_indexer(record_ids)
        if (rows < 0).any():
            absent = np.asarray(record_ids)[rows < 0][0]
            raise KeyError(f"no record {absent} in {self.folder.name}; its exclusions may hold the reason")
        return rows

    def signal(self, record_id: str) -> np.ndarray:
        """Return the filtered, resampled samples of one record.

        Returns
        -------
        numpy.ndarray
            Memory-mapped view, float32, shape (n_leads, n_samples), leads as in the record table.

        Raises
        ------
        KeyError
            The record is unknown or excluded.
        """
        row = self._rows([record_id])[0]
        start, shape = self._offsets[row], self._shape(row)
        return self._flat[start : start + np.prod(shape)].reshape(shape)

    def _shape(self, row: int) -> tuple[int, int]:
        """(n_leads, n_samples) of the record in one row of the record table."""
        return len(self._leads[row]), self._lengths[row]

    def gather(self, window_index: pd.DataFrame, leads: Sequence[str]) -> np.ndarray:
        """Copy windows into one array, each record's leads found by name.

        Parameters
        ----------
        window_index : pandas.DataFrame
            Rows of :meth:`windows`: record_id, start, n_samples (equal in all rows).
        leads : sequence of str
            Lead names, which every record must have.

        Returns
        -------
        numpy.ndarray
            float32, shape (n_windows, n_leads, n_samples), in the order of `window_index`.

        Raises
        ------
        KeyError
            A record is unknown, or lacks one of `leads`.
        ValueError
            The windows differ in length or reach beyond their record.
        """
        lengths = window_index["n_samples"].unique()
        if len(lengths) > 1:
            raise ValueError(f"windows of one length are needed, not of {', '.join(map(str, sorted(lengths)))} samples")
        n_samples = int(lengths[0]) if len(lengths) else 0
        rows = self._rows(window_index["record_id"])
        starts = window_index["start"].to_numpy(dtype=np.int64)
        room = self._lengths[rows]
        if ((starts < 0) | (starts + n_samples > room)).any():
            raise ValueError("a window reaches beyond its record; was it made for another store?")
        if not len(starts):
            return np.empty((0, len(leads), 0), dtype=np.float32)
        lead_rows = self._lead_rows(leads, rows)
        if (lead_rows < 0).any():
            window, lead = np.argwhere(lead_rows < 0)[0]
            has = ", ".join(self._leads[rows[window]])
            raise KeyError(f"record {self._record_ids[rows[window]]} has no lead {leads[lead]}; it has {has}")
        first = self._offsets[rows][:, None] + lead_rows * room[:, None] + starts[:, None]
        return np.lib.stride_tricks.sliding_window_view(self._flat, n_samples)[first]

    def _lead_rows(self, leads: Sequence[str], rows: np.ndarray) -> np.ndarray:
        """Find `leads` in the blocks of records: shape (len(rows), len(leads)), -1 for a lead that is not there."""
        layouts = {
            layout: [layout.index(lead) if lead in layout else -1 for lead in leads] for layout in set(self._leads)
        }
        return np.array([layouts[layout] for layout in self._leads[rows]])

    def windows(self, seconds: float, stride: float | None = None, leads: Sequence[str] | None = None) -> pd.DataFrame:
        """Cut every record into windows of one length; what is left over at its end is dropped.

        Parameters
        ----------
        seconds : float
            Length of a window.
        stride : float, optional
            Seconds from one start to the next; `seconds` (no overlap) unless told.
        leads : sequence of str, optional
            Leads that must be usable; each record's reference lead unless told.

        Returns
        -------
        pandas.DataFrame
            One row a window: record_id, subject_id, session, start and n_samples (samples at the store's rate) and
            `problem`: None, or why not to use it (:class:`ecgstudy.signals.quality.Problem`, :data:`LEAD_ABSENT`).

        Raises
        ------
        ValueError
            A window or a stride is shorter than one sample.
        """
        length = round(seconds * self.fs)
        step = length if stride is None else round(stride * self.fs)
        if length < 1 or step < 1:
            raise ValueError(f"windows of {seconds} s every {stride} s are shorter than a sample at {self.fs:g} Hz")
        records = self._records
        counts = np.maximum((self._lengths - length) // step + 1, 0)
        rows = np.repeat(np.arange(len(records)), counts)
        nth = np.arange(len(rows)) - np.repeat(counts.cumsum() - counts, counts)
        index = records[["record_id", "subject_id", "session"]].iloc[rows].reset_index(drop=True)
        index["start"] = nth * step
        index["n_samples"] = length
        index["problem"] = self._window_problems(rows, index["start"].to_numpy(), length, leads)
        return index

    def _window_problems(
        self, rows: np.ndarray, starts: np.ndarray, length: int, leads: Sequence[str] | None
    ) -> np.ndarray:
        """Reason not to use each window, or None: an absent lead, else the worst flaw, else too few beats."""
        problems = np.full(len(rows), None, dtype=object)
        wanted = [self._records["reference_lead"].to_numpy()[rows]] if leads is None else leads
        begins = [self._lead_begin(rows, lead) for lead in wanted]
        for begin in begins:
            problems[begin < 0] = LEAD_ABSENT
        for reason, edges in self._flaw_edges.items():
            for begin in begins:
                touched = _touches(edges, begin + starts, begin + starts + length)
                problems[touched & np.equal(problems, None)] = reason
        beats = self._beats_in(rows, starts, length)
        too_few = beats * 60 < quality.SLOWEST_RATE_BPM * length / self.fs
        problems[too_few & np.equal(problems, None)] = quality.Problem.NO_BEATS
        return problems

    def _lead_begin(self, rows: np.ndarray, leads: str | Sequence[str]) -> np.ndarray:
        """Place in the signal file where a lead (one for all, or one a row) begins in each record; -1 if absent."""
        layouts = self._leads[rows]
        leads = [leads] * len(rows) if isinstance(leads, str) else leads
        nth = np.array(
            [layout.index(lead) if lead in layout else -1 for layout, lead in zip(layouts, leads, strict=True)],
            dtype=int,
        )
        return np.where(nth < 0, -1, self._offsets[rows] + nth * self._lengths[rows])

    def touches_flaw(
        self,
        record_ids: Sequence[str] | pd.Series,
        starts: np.ndarray,
        stops: np.ndarray,
        leads: str | Sequence[str],
    ) -> np.ndarray:
        """Tell which pieces of records touch a flaw of their lead.

        Parameters
        ----------
        record_ids : sequence of str
            Record of each piece.
        starts, stops : numpy.ndarray
            First sample of each piece and the sample after its last, at the store's rate.
        leads : str or sequence of str
            Lead of all pieces, or of each.

        Returns
        -------
        numpy.ndarray
            bool, shape (n_pieces,).

        Raises
        ------
        KeyError
            A record is unknown or excluded, or lacks its lead.
        """
        rows = self._rows(record_ids)
        begin = self._lead_begin(rows, leads)
        if (begin < 0).any():
            raise KeyError(f"record {self._record_ids[rows[begin < 0][0]]} lacks the lead that was asked for")
        starts, stops = (begin + np.clip(edge, 0, self._lengths[rows]) for edge in (starts, stops))
        touched = np.zeros(len(rows), dtype=bool)
        for edges in self._flaw_edges.values():
            touched |= _touches(edges, starts, stops)
        return touched

    def _beats_in(self, rows: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
        """Count the R peaks in each window, shape (n_windows,)."""
        # one axis of time for all records: each begins later than the one before it ends
        begins = self._lengths.cumsum() - self._lengths
        peaks = self._beats["r_peak"].to_numpy() * self.fs + begins[self._rows(self._beats["record_id"])]
        peaks = np.sort(peaks[np.isfinite(peaks)])
        edges = begins[rows] + starts
        return np.searchsorted(peaks, edges + length) - np.searchsorted(peaks, edges)


def _touches(edges: tuple[np.ndarray, np.ndarray], starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """Whether more flaws began before the stop of each [start, stop) than had ended by its start."""
    flaw_starts, flaw_stops = edges
    return np.searchsorted(flaw_starts, stops) > np.searchsorted(flaw_stops, starts, side="right")


def is_complete(folder: Path) -> bool:
    """Whether a folder holds a store that was finished: its manifest is written last."""
    return (folder / MANIFEST).is_file()
