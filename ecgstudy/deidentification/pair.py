"""The same records twice, as they are and as somebody released them, under the same pseudonyms."""

from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from ecgstudy.data.base import Cohort, Signal, as_tables
from ecgstudy.data.own import FolderCohort, safe_leads
from ecgstudy.data.subjects import Subjects, read_subjects
from ecgstudy.deidentification.held import HeldCohort
from ecgstudy.errors import RecordError, StudyError
from ecgstudy.evaluate.splits import RECORD
from ecgstudy.study.cache import cache_key, file_digest

Scan = tuple[pd.DataFrame, pd.DataFrame]


class _Listed(FolderCohort):
    """Records whose table of who is who may lie anywhere."""

    def __init__(self, root: Path, table: Path | None) -> None:
        super().__init__(root)
        self._table = table

    @cached_property
    def subjects(self) -> Subjects | None:
        """What the table says that was named, or that of the folder."""
        return read_subjects(self._table) if self._table else FolderCohort.subjects.func(self)  # type: ignore[attr-defined]


class RawCohort(HeldCohort):
    """Records as they are; `table` is a ``subjects.csv`` anywhere, `only` some records."""

    name = "RAW"

    def __init__(self, root: Path, key: Path, table: Path | None = None, only: frozenset[str] | None = None) -> None:
        super().__init__(root, key)
        self._folder, self._table, self._only = _Listed(self.root, table), table, only

    def __reduce__(self) -> tuple[Callable[..., "RawCohort"], tuple[Any, ...]]:
        """Travel to another process of the same caller."""
        return type(self), (self.root, self._key_file, self._table, self._only)

    def some(self, record_ids: Iterable[str]) -> "RawCohort":
        """Give a cohort of these records alone."""
        return RawCohort(self.root, self._key_file, self._table, frozenset(record_ids))

    @cached_property
    def _scan(self) -> Scan:
        records, failures = super()._scan
        return _those(records, self._only), failures

    def digest(self) -> str:
        """SHA-256 (hex) over the records, the key, the table and which records are meant."""
        table = file_digest(self._table) if self._table else ""
        return cache_key(folder=super().digest(), table=table, only=sorted(self._only or ()))


class _Files(FolderCohort):
    """Files of a release under their own names; the table beside them is not asked."""

    name = "PROTECTED"
    how_to_get = "Name the folder of WFDB records (.hea with .dat or .mat) that was released."
    subjects = None  # type: ignore[assignment]


class ReleasedCohort(Cohort):
    """What became of the records of `raw` in the folder of a release, known by their names or keyed pseudonyms there.

    All but the samples and their unit is that of the raw records; one with other leads, another rate or another length
    than its raw record is among the failures.
    """

    name: ClassVar[str] = "PROTECTED"
    licence: ClassVar[str] = "yours to know: check that you may use the records"
    how_to_get: ClassVar[str] = _Files.how_to_get

    def __init__(self, raw: RawCohort, folder: Path, only: frozenset[str] | None = None) -> None:
        self._raw, self._folder, self._only, self._files = raw, folder, only, _Files(folder)

    def __reduce__(self) -> tuple[Callable[..., "ReleasedCohort"], tuple[Any, ...]]:
        """Travel to another process of the same caller."""
        return type(self), (self._raw, self._folder, self._only)

    def some(self, record_ids: Iterable[str]) -> "ReleasedCohort":
        """Give a cohort of these records alone."""
        return ReleasedCohort(self._raw, self._folder, frozenset(record_ids))

    @cached_property
    def _names(self) -> dict[str, str]:
        """Name of each file's record in the release by the pseudonym of the raw record that it is of."""
        pseudonyms = set(self._raw.records()[RECORD])
        names = self._files.records()[RECORD]
        found = {name if name in pseudonyms else self._raw.pseudonym("record", name): name for name in names}
        return {pseudonym: name for pseudonym, name in found.items() if pseudonym in pseudonyms}

    @cached_property
    def _scan(self) -> Scan:
        if not self._names:
            raise StudyError(
                f"No record of {self._folder} is one of {self._raw.root}: none has the same name, or the pseudonym "
                "that the key makes of it; name the key of the release (--key), and the folder by the name it had then."
            )
        records = _those(self._raw.records(), frozenset(self._names))
        files = self._files.records().set_index(RECORD).loc[records[RECORD].map(self._names)].reset_index()
        alike = (files[["fs", "n_samples"]] == records[["fs", "n_samples"]]).all(axis=1)
        alike &= files["leads"].map(safe_leads).map(set) == records["leads"].map(set)
        if not alike.any():
            raise StudyError(
                f"The records of {self._folder} have other leads, another rate or another length than those of "
                f"{self._raw.root}; name the folder of the same records as released."
            )
        reason = "has other leads, another rate or another length than its raw record"
        failures = [(name, f"{name}.hea", reason, "release it as it is") for name in records.loc[~alike, RECORD]]
        records = records.assign(unit=files["unit"])[alike]
        return as_tables(_those(records, self._only), failures)

    def signal(self, record_id: str) -> Signal:
        """Read one released record, its leads in the order of the raw one's; errors name its pseudonym alone."""
        try:
            signal = self._files.signal(self._names[record_id])
        except RecordError as error:
            raise RecordError(f"{record_id}.dat", error.reason, error.remedy) from None
        leads, own = safe_leads(signal.leads), self._leads[record_id]
        values = np.ascontiguousarray(signal.values[[leads.index(lead) for lead in own]])
        return Signal(values, signal.fs, own, signal.unit)

    @cached_property
    def _leads(self) -> dict[str, tuple[str, ...]]:
        """Leads of each raw record."""
        return self._scan[0].set_index(RECORD)["leads"].to_dict()

    def digest(self) -> str:
        """SHA-256 (hex) over the raw records, the release and which records are meant."""
        return cache_key(raw=self._raw.digest(), files=self._files.digest(), only=sorted(self._only or ()))


def _those(records: pd.DataFrame, only: frozenset[str] | None) -> pd.DataFrame:
    """Rows of some records, or of all."""
    return records if only is None else records[records[RECORD].isin(only)].reset_index(drop=True)
