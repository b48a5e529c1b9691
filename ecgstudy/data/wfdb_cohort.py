"""What every cohort of WFDB files shares: finding its folder, scanning headers, reading, digest."""

import hashlib
import os
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from ecgstudy.data.base import FAILURE_COLUMNS, RECORD_COLUMNS, Cohort, Signal
from ecgstudy.data.csv_files import read_csv
from ecgstudy.data.wfdb_files import (
    Header,
    checked_path,
    common_unit,
    existing,
    read_header,
    read_signal,
    signal_files,
)
from ecgstudy.errors import DataNotFoundError, RecordError, StudyError
from ecgstudy.study.cache import file_digest
from ecgstudy.study.config import data_root

OVER_89_YEARS = 90.0
"""Age given to persons whom a source reports only as "over 89" (LUDB: ">89"; PTB-XL: 300)."""


class WfdbCohort(Cohort):
    """A folder of WFDB records.

    Parameters
    ----------
    root : Path, optional
        The cohort's folder; by default the first of `folders` that
        :func:`~ecgstudy.study.config.data_root` holds.

    Raises
    ------
    DataNotFoundError
        The folder is not there or holds no file that `marker` matches.
    """

    folders: ClassVar[tuple[str, ...]]
    """Names of the cohort's folder that :meth:`locate` knows, below the data folder."""
    marker: ClassVar[str]
    """Glob pattern of a file that shows that a folder is this cohort's."""
    tables: ClassVar[tuple[str, ...]] = ()
    """Files beside the records that labels are made from."""

    def __init__(self, root: Path | None = None) -> None:
        self._root = self.locate() if root is None else self._accept(Path(root))

    @classmethod
    def locate(cls) -> Path:
        """Folder of this cohort below the data folder; :class:`DataNotFoundError` says how to get it."""
        base = data_root()
        # Path.is_dir raises where the data folder may not be searched
        searchable = os.access(base, os.R_OK | os.X_OK)
        there = [base / folder for folder in cls.folders if searchable and (base / folder).is_dir()]
        for folder in there:
            if cls._is_marked(folder):
                return folder.resolve()
        reason = f"{there[0]} holds no {cls.marker}" if there else f"{base} holds no folder {cls.folders[0]}"
        raise DataNotFoundError(f"Cohort {cls.name} was not found: {reason}. {cls.card.how_to_get}")

    @classmethod
    def _accept(cls, folder: Path) -> Path:
        """Check a folder that the caller chose."""
        if not folder.is_dir():
            raise DataNotFoundError(f"Cohort {cls.name} was not found: {folder} is no folder. {cls.card.how_to_get}")
        if not cls._is_marked(folder):
            raise DataNotFoundError(
                f"Cohort {cls.name} was not found: {folder} holds no {cls.marker}. {cls.card.how_to_get}"
            )
        return folder.resolve()

    @classmethod
    def _is_marked(cls, folder: Path) -> bool:
        return any(True for _ in folder.glob(cls.marker))

    @property
    def root(self) -> Path:
        """Folder that the records are read from."""
        return self._root

    @abstractmethod
    def _header_path(self, record_id: str) -> Path:
        """Give the ``.hea`` file of a record."""

    @abstractmethod
    def _files(self) -> list[Path]:
        """Every file that records and labels are made from, as far as it is there and inside the folder."""

    def _channels(self, header: Header) -> Sequence[int]:
        """Positions of the leads that the cohort offers."""
        return range(len(header.channels))

    def _read_table(self, name: str, required: Sequence[str]) -> pd.DataFrame:
        """Read a CSV file of the cohort's folder; raises as :func:`~ecgstudy.data.csv_files.read_csv`."""
        path = self._root / name
        return read_csv(checked_path(path, self._root) if path.exists() else path, required)

    @cached_property
    def _record_ids(self) -> frozenset[str]:
        return frozenset(self._scan[0]["record_id"])

    def _require(self, record_id: str) -> None:
        """Raise what :meth:`signal` promises for a record that is not in the table."""
        if record_id in self._record_ids:
            return
        failures = self._scan[1].set_index("record_id")
        if record_id in failures.index:
            file, reason, remedy = failures.loc[[record_id]].iloc[0]
            raise RecordError(self._root / file, reason, remedy)
        raise KeyError(f"cohort {self.name} has no record {record_id}")

    def header(self, record_id: str) -> Header:
        """Read and check the header of one record; raises as :meth:`signal` does."""
        self._require(record_id)
        return read_header(self._header_path(record_id), self._root)

    def signal(self, record_id: str) -> Signal:
        """Read the samples of one record: float32, (n_leads, n_samples), in the header's unit."""
        header = self.header(record_id)
        return read_signal(header, self._root, self._channels(header))

    def digest(self) -> str:
        """SHA-256 (hex) over path and content of every file that records and labels are made from."""
        entries = {path.relative_to(self._root).as_posix(): path for path in self._files()}
        total = hashlib.sha256()
        for name in sorted(entries):
            total.update(f"{name}\0{file_digest(entries[name])}\n".encode())
        return total.hexdigest()


class ScannedCohort(WfdbCohort):
    """A folder of WFDB records whose table is made by reading every header."""

    annotators: ClassVar[tuple[str, ...]] = ()
    """Suffixes of the annotation files of each record."""

    @cached_property
    def _scan(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        rows, failures = [], []
        listed = self._listed()
        for record_id in listed:
            try:
                header = read_header(self._header_path(record_id), self._root)
                rows.append(self._shape(record_id, header) | self._describe(record_id, header))
            except RecordError as error:
                failures.append(self._failure(record_id, error))
        failures += self._orphans(listed)
        table = self._finish(pd.DataFrame(rows)) if rows else pd.DataFrame()
        return record_table(table), failure_table(failures)

    def _listed(self) -> list[str]:
        """Record names in ``RECORDS``, the publisher's list; without one, every header in the folder."""
        index = self._root / "RECORDS"
        if not index.is_file():
            return sorted(self._record_id(path) for path in self._root.rglob("*.hea"))
        try:
            names = index.read_text(encoding="utf-8").split()
        except UnicodeDecodeError:
            raise StudyError(f"{index} is not UTF-8 text; download it again.") from None
        return list(dict.fromkeys(self._record_id(self._root / f"{name}.hea") for name in names))

    def _record_id(self, path: Path) -> str:
        """Name of the record with the header `path`."""
        return path.relative_to(self._root).with_suffix("").as_posix()

    def _header_path(self, record_id: str) -> Path:
        return self._root / f"{record_id}.hea"

    def _shape(self, record_id: str, header: Header) -> dict[str, Any]:
        """Fill the columns that follow from the header alone."""
        chosen = [header.channels[position] for position in self._channels(header)]
        return {
            "record_id": record_id,
            "fs": header.fs,
            "leads": tuple(channel.lead for channel in chosen),
            "n_samples": header.n_samples,
            "unit": common_unit(chosen),
        }

    @abstractmethod
    def _describe(self, record_id: str, header: Header) -> dict[str, Any]:
        """Person, session, age, sex and labels of one record; :class:`RecordError` where they cannot be known."""

    def _finish(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Columns that need the other records too, such as the rank of a session."""
        return rows

    def _orphans(self, listed: Sequence[str]) -> list[tuple[str, str, str, str]]:
        """Rows of the failure table for what the cohort's tables name beside the `listed` records."""
        return []

    def _failure(self, record_id: str, error: RecordError) -> tuple[str, str, str, str]:
        """One row of the failure table; the file is named below the cohort's folder."""
        file = Path(error.file)
        if file.is_relative_to(self._root):
            file = file.relative_to(self._root)
        return record_id, file.as_posix(), error.reason, error.remedy

    def _files(self) -> list[Path]:
        """Tables, headers, signal files and annotations, as far as they are there and inside the folder."""
        paths = [self._root / name for name in ("RECORDS", *self.tables)]
        for record_id in self._listed():
            path = self._header_path(record_id)
            paths += [path, *(path.with_suffix(f".{annotator}") for annotator in self.annotators)]
            try:
                paths += signal_files(read_header(path, self._root))
            except RecordError:
                paths.append(path.with_suffix(".dat"))
        return existing(paths, self._root)


def record_table(table: pd.DataFrame) -> pd.DataFrame:
    """Order columns: :data:`RECORD_COLUMNS` first, in their types, then the labels."""
    labels = [column for column in table.columns if column not in RECORD_COLUMNS]
    table = table.reindex(columns=[*RECORD_COLUMNS, *labels])
    return table.astype({"session": int, "session_day": float, "age": float, "fs": float, "n_samples": int})


def failure_table(rows: Sequence[tuple[str, str, str, str]]) -> pd.DataFrame:
    """Rows as a table with :data:`FAILURE_COLUMNS`."""
    return pd.DataFrame(list(rows), columns=list(FAILURE_COLUMNS))


def sessions(subject: pd.Series, date: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Turn recording dates into sessions: a session is a date, not a record.

    Parameters
    ----------
    subject : pandas.Series
        Person of each record.
    date : pandas.Series
        Date of each record (datetime64); NaT where unknown.

    Returns
    -------
    session : pandas.Series
        int, rank of the date among the person's dates, from 1. An undated record
        counts as session 1, so that nobody takes it for a later day.
    session_day : pandas.Series
        float, days since the person's first date; NaN where undated.
    """
    day = date.dt.normalize()
    by_person = day.groupby(subject)
    session = by_person.rank(method="dense").fillna(1).astype(int)
    return session, (day - by_person.transform("min")).dt.days.astype(float)
