"""What every cohort of WFDB files shares: finding its folder, scanning headers, reading, digest."""

import hashlib
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from ecgstudy.data.base import Cohort, Signal, as_tables
from ecgstudy.data.tables import read_csv
from ecgstudy.data.wfdb_files import (
    MAX_VALUES,
    Header,
    checked_path,
    common_unit,
    read_header,
    read_signal,
    signal_files,
)
from ecgstudy.errors import DataNotFoundError, RecordError, StudyError
from ecgstudy.study.cache import file_digest
from ecgstudy.study.config import data_root


class WfdbCohort(Cohort):
    """A folder of WFDB records, by default the first of `folders` in the data folder that holds a `marker`."""

    folders: ClassVar[tuple[str, ...]]
    marker: ClassVar[str]  # glob pattern of a file that shows that a folder is this cohort's
    prefix: ClassVar[str] = ""  # what all paths of records start with and their names leave out
    offered: ClassVar[slice] = slice(None)  # channels of each record that the cohort offers
    tables: ClassVar[tuple[str, ...]] = ()  # files beside the records that labels are made from
    annotators: ClassVar[tuple[str, ...]] = ()  # suffixes of the annotation files of each record

    def __init__(self, root: Path | None = None) -> None:
        base, candidates, nowhere = data_root(), [root], f"{root} is no folder, or one that you may not read"
        if root is None:
            candidates = [base / folder for folder in self.folders]
            nowhere = f"{base} holds no folder {self.folders[0]}"
        # Path.is_dir raises where a folder may not be searched
        there = [folder for folder in candidates if os.access(folder, os.R_OK | os.X_OK) and folder.is_dir()]
        found = next(filter(self._holds, there), None)
        if found is None:
            reason = f"{there[0]} holds no {self.marker}" if there else nowhere
            raise DataNotFoundError(f"Cohort {self.name} was not found: {reason}. {self.how_to_get}")
        self.root = found.resolve()

    def _holds(self, folder: Path) -> bool:
        """Whether a folder is the cohort's."""
        return any(True for _ in folder.glob(self.marker))

    def header(self, record_id: str) -> Header:
        """Read and check the header of one record; raises as :meth:`signal` does."""
        if record_id not in self._headers:
            failures = self._scan[1]
            for _, file, reason, remedy in failures[failures["record_id"] == record_id].itertuples(index=False):
                raise RecordError(self.root / file, reason, remedy)
            raise KeyError(f"cohort {self.name} has no record {record_id}")
        return read_header(self._headers[record_id], self.root)

    def signal(self, record_id: str) -> Signal:
        """Read the samples of one record: float32, (n_leads, n_samples), in the header's unit."""
        return read_signal(self.header(record_id), self.root, self.offered)

    def digest(self) -> str:
        """SHA-256 (hex) over path and content of every file that records and labels are made from."""
        total = hashlib.sha256()
        inside = {path for path in self._files() if path.is_relative_to(self.root)}
        for name, path in sorted((path.relative_to(self.root).as_posix(), path) for path in inside):
            try:
                checked_path(path, self.root)
                size = path.stat().st_size  # no record is as large as a file that is not read
                content = file_digest(path) if size <= 8 * MAX_VALUES else size
            except RecordError:
                continue  # not there, or outside the folder
            except OSError as broken:  # a disk's; the record's own reason when it is read
                content = broken.errno
            total.update(f"{name}\0{content}\n".encode(errors="surrogateescape"))
        return total.hexdigest()

    @cached_property
    def _headers(self) -> dict[str, Path]:
        """Give the header of every usable record."""
        return {record_id: self._header_path(record_id) for record_id in self._scan[0]["record_id"]}

    @cached_property
    def _scan(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        rows, failures = [], []
        listed = self._listed()
        for record_id in listed:
            try:
                header = read_header(self._header_path(record_id), self.root)
                row: dict[str, Any] = {"record_id": record_id, "fs": header.fs, "n_samples": header.n_samples}
                row |= {
                    "session": 1,
                    "leads": header.leads[self.offered],
                    "unit": common_unit(header.channels[self.offered]),
                }
                rows.append(row | {"sex": None} | self._describe(record_id, header))
            except Exception as strange:  # whatever a header brings about is its own record's reason
                if isinstance(strange, StudyError) and not isinstance(strange, RecordError):
                    raise  # it speaks of a table of all records
                told = f"cannot be read ({type(strange).__name__})"
                error = strange if isinstance(strange, RecordError) else RecordError(f"{record_id}.hea", told)
                file = Path(error.file)
                file = file.relative_to(self.root) if file.is_relative_to(self.root) else file
                failures.append((record_id, file.as_posix(), error.reason, error.remedy))
        table = pd.DataFrame(rows)
        if disputed := self._disputed(table) if rows else {}:
            failures += [(record_id, f"{record_id}.hea", *why) for record_id, why in disputed.items()]
            table = table[~table["record_id"].isin(disputed)]
        return as_tables(table, failures + self._orphans(listed))

    def _listed(self) -> list[str]:
        """Record names in ``RECORDS``, the publisher's list; without one, every header in the folder."""
        index = self.root / "RECORDS"
        if not index.is_file():
            return sorted(self._record_id(path) for path in self.root.rglob("*.hea"))
        try:
            names = index.read_text(encoding="utf-8").split()
        except UnicodeDecodeError:
            raise StudyError(f"{index} is not UTF-8 text; download it again.") from None
        return list(dict.fromkeys(name.removeprefix(self.prefix) for name in names))

    def _record_id(self, path: Path) -> str:
        """Name of the record with the header `path`."""
        return path.relative_to(self.root).with_suffix("").as_posix().removeprefix(self.prefix)

    def _header_path(self, record_id: str) -> Path:
        """Give the ``.hea`` file of a record."""
        return self.root / f"{self.prefix}{record_id}.hea"

    def _describe(self, record_id: str, header: Header) -> dict[str, Any]:
        """Person, date or session, age, sex and labels of one record, unless unknown; or :class:`RecordError`."""
        raise NotImplementedError

    def _disputed(self, rows: pd.DataFrame) -> dict[str, tuple[str, str]]:
        """Reason and remedy for each record that the other records speak against."""
        return {}

    def _orphans(self, listed: Sequence[str]) -> list[tuple[str, str, str, str]]:
        """Rows of the failure table for what the cohort's tables name beside the `listed` records."""
        return []

    def _files(self) -> list[Path]:
        """Every file that records and labels are made from, whether it is there or not."""
        paths = [self.root / name for name in ("RECORDS", *self.tables)]
        for record_id in self._listed():
            path = self._header_path(record_id)
            paths += [path, *(path.with_suffix(f".{annotator}") for annotator in self.annotators), *self._named(path)]
        return paths

    def _named(self, path: Path) -> list[Path]:
        """Files that a record is made of beside the header `path`; where that cannot be read, what it would name."""
        try:
            return signal_files(read_header(path, self.root))
        except Exception:  # whatever a header brings about is its own record's reason, when that is scanned
            return [path.with_suffix(".dat")]

    def _read_table(self, name: str, required: Sequence[str]) -> pd.DataFrame:
        """Read a CSV file of the cohort's folder, see :func:`read_csv`."""
        path = self.root / name
        return read_csv(checked_path(path, self.root) if path.exists() else path, required)
