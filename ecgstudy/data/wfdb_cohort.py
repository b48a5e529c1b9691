"""What every cohort of WFDB files shares: finding its folder, scanning headers, tables, reading, digest."""

import hashlib
import os
import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from ecgstudy.data.base import FAILURE_COLUMNS, RECORD_COLUMNS, Cohort, Signal
from ecgstudy.data.wfdb_files import Header, checked_path, common_unit, read_header, read_signal, signal_files
from ecgstudy.errors import DataNotFoundError, RecordError, StudyError
from ecgstudy.study.cache import file_digest
from ecgstudy.study.config import data_root

OVER_89_YEARS = 90.0
"""Age given to persons whom a source reports only as "over 89" (LUDB: ">89"; PTB-XL: 300)."""


class WfdbCohort(Cohort):
    """A folder of WFDB records, by default the first of `folders` in the data folder that holds a `marker`."""

    folders: ClassVar[tuple[str, ...]]
    marker: ClassVar[str]  # glob pattern of a file that shows that a folder is this cohort's
    tables: ClassVar[tuple[str, ...]] = ()  # files beside the records that labels are made from
    annotators: ClassVar[tuple[str, ...]] = ()  # suffixes of the annotation files of each record

    def __init__(self, root: Path | None = None) -> None:
        base, candidates, nowhere = data_root(), [root], f"{root} is no folder"
        if root is None:
            # Path.is_dir raises where the data folder may not be searched
            searchable = os.access(base, os.R_OK | os.X_OK)
            candidates = [base / folder for folder in self.folders if searchable]
            nowhere = f"{base} holds no folder {self.folders[0]}"
        there = [folder for folder in candidates if folder.is_dir()]
        found = next((folder for folder in there if any(True for _ in folder.glob(self.marker))), None)
        if found is None:
            reason = f"{there[0]} holds no {self.marker}" if there else nowhere
            raise DataNotFoundError(f"Cohort {self.name} was not found: {reason}. {self.how_to_get}")
        self._root = found.resolve()

    @property
    def root(self) -> Path:
        """Folder that the records are read from."""
        return self._root

    def header(self, record_id: str) -> Header:
        """Read and check the header of one record; raises as :meth:`signal` does."""
        failures = self._scan[1]
        if record_id not in self._record_ids:
            for _, file, reason, remedy in failures[failures["record_id"] == record_id].itertuples(index=False):
                raise RecordError(self._root / file, reason, remedy)
            raise KeyError(f"cohort {self.name} has no record {record_id}")
        return read_header(self._header_path(record_id), self._root)

    def signal(self, record_id: str) -> Signal:
        """Read the samples of one record: float32, (n_leads, n_samples), in the header's unit."""
        header = self.header(record_id)
        return read_signal(header, self._root, self._channels(header))

    def digest(self) -> str:
        """SHA-256 (hex) over path and content of every file that records and labels are made from."""
        total = hashlib.sha256()
        for name, path in sorted((path.relative_to(self._root).as_posix(), path) for path in set(self._files())):
            try:
                checked_path(path, self._root)
            except RecordError:
                continue  # not there, or outside the folder
            total.update(f"{name}\0{file_digest(path)}\n".encode())
        return total.hexdigest()

    @cached_property
    def _record_ids(self) -> frozenset[str]:
        return frozenset(self._scan[0]["record_id"])

    @cached_property
    def _scan(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        rows, failures = [], []
        listed = self._listed()
        for record_id in listed:
            try:
                header = read_header(self._header_path(record_id), self._root)
                chosen = [header.channels[position] for position in self._channels(header)]
                row = {"record_id": record_id, "fs": header.fs, "n_samples": header.n_samples}
                row |= {"leads": tuple(channel.lead for channel in chosen), "unit": common_unit(chosen)}
                rows.append(row | self._describe(record_id, header))
            except RecordError as error:
                file = Path(error.file)
                file = file.relative_to(self._root) if file.is_relative_to(self._root) else file
                failures.append((record_id, file.as_posix(), error.reason, error.remedy))
        found = pd.DataFrame(rows)
        if disputed := self._disputed(found) if rows else {}:
            failures += [(record_id, f"{record_id}.hea", *why) for record_id, why in disputed.items()]
            found = found[~found["record_id"].isin(disputed)]
        table = self._finish(found) if len(found) else pd.DataFrame()
        return as_tables(table, failures + self._orphans(listed))

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
        """Give the ``.hea`` file of a record."""
        return self._root / f"{record_id}.hea"

    def _channels(self, header: Header) -> Sequence[int]:
        """Positions of the leads that the cohort offers."""
        return range(len(header.channels))

    def _describe(self, record_id: str, header: Header) -> dict[str, Any]:
        """Person, session, age, sex and labels of one record; :class:`RecordError` where they cannot be known."""
        raise NotImplementedError

    def _disputed(self, rows: pd.DataFrame) -> dict[str, tuple[str, str]]:
        """Reason and remedy for each record that the other records speak against."""
        return {}

    def _finish(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Columns that need the other records too, such as the rank of a session."""
        return rows

    def _orphans(self, listed: Sequence[str]) -> list[tuple[str, str, str, str]]:
        """Rows of the failure table for what the cohort's tables name beside the `listed` records."""
        return []

    def _files(self) -> list[Path]:
        """Every file that records and labels are made from, whether it is there or not."""
        paths = [self._root / name for name in ("RECORDS", *self.tables)]
        for record_id in self._listed():
            path = self._header_path(record_id)
            paths += [path, *(path.with_suffix(f".{annotator}") for annotator in self.annotators)]
            try:
                paths += signal_files(read_header(path, self._root))
            except RecordError:
                paths.append(path.with_suffix(".dat"))
        return paths

    def _read_table(self, name: str, required: Sequence[str]) -> pd.DataFrame:
        """Read a CSV file of the cohort's folder, see :func:`read_csv`."""
        path = self._root / name
        return read_csv(checked_path(path, self._root) if path.exists() else path, required)


def as_tables(rows: pd.DataFrame, failures: Sequence[tuple[str, str, str, str]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Record table (:data:`RECORD_COLUMNS` first, in their types, then the labels) and failure table."""
    labels = [column for column in rows.columns if column not in RECORD_COLUMNS]
    types = {"session": int, "session_day": float, "age": float, "fs": float, "n_samples": int}
    table = rows.reindex(columns=[*RECORD_COLUMNS, *labels]).astype(types)
    return table, pd.DataFrame(failures, columns=list(FAILURE_COLUMNS))


def sessions(subject: pd.Series, date: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Session (rank of the date among the person's dates, from 1) and days since the first, of each record.

    An undated record (NaT) counts as session 1, so that nobody takes it for a later day; its day is NaN.
    """
    day = date.dt.normalize()
    by_person = day.groupby(subject)
    session = by_person.rank(method="dense").fillna(1).astype(int)
    return session, (day - by_person.transform("min")).dt.days.astype(float)


def read_csv(path: Path, required: Sequence[str]) -> pd.DataFrame:
    """Read a UTF-8 CSV file with a header row as stripped text; a :class:`StudyError` says what is wrong with it."""
    try:
        with warnings.catch_warnings():
            # Rows with more fields than the header would otherwise lose the surplus.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False)
    except FileNotFoundError:
        raise DataNotFoundError(f"{path} is missing; download it again.") from None
    except UnicodeDecodeError:
        raise StudyError(f"{path} is not UTF-8 text; save it as UTF-8 (in a spreadsheet: CSV UTF-8).") from None
    except pd.errors.EmptyDataError:
        raise StudyError(f"{path} is empty; it needs a header row and one row a record.") from None
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        reason = str(error).strip().splitlines()[0]
        raise StudyError(f"{path} is malformed ({reason}); give every row as many fields as the header.") from None
    missing = ", ".join(column for column in required if column not in table.columns)
    if missing:
        raise StudyError(f"{path} has no column {missing}; its first line must name it, separated by commas.")
    return table.fillna("").apply(lambda column: column.str.strip())


def numbers(column: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Read text as numbers (NaN where empty or no finite number), and where a cell is neither empty nor a number."""
    values = pd.to_numeric(column, errors="coerce").astype(float)
    values = values.where(values.abs() != float("inf"))
    return values, values.isna() & (column != "")
