"""Folders of WFDB records that somebody holds: read under pseudonyms wherever they lie, and written without a word.

The same records may be there twice, as they are and as somebody released them, under the same pseudonyms.
"""

import hashlib
import hmac
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from ecgstudy.data.base import Cohort, Signal, as_tables
from ecgstudy.data.own import FolderCohort, OwnCohort, safe_leads
from ecgstudy.data.pseudonyms import key_in
from ecgstudy.data.subjects import Subjects, read_subjects
from ecgstudy.errors import DataNotFoundError, RecordError, StudyError
from ecgstudy.evaluate.splits import RECORD
from ecgstudy.study.cache import cache_key, file_digest, new_file, write_text

MOST_SEED = 2**31
Scan = tuple[pd.DataFrame, pd.DataFrame]
FULL_SCALE, NO_GAIN = 32_000, 200.0
"""Largest sample that a lead is scaled to, and the gain of a lead of zeros."""


class _Listed(FolderCohort):
    """Records whose table of who is who may lie anywhere."""

    def __init__(self, root: Path, table: Path | None) -> None:
        super().__init__(root)
        self._table = table

    @cached_property
    def subjects(self) -> Subjects | None:
        """What the table says that was named, or that of the folder."""
        return read_subjects(self._table) if self._table else FolderCohort.subjects.func(self)  # type: ignore[attr-defined]


class HeldCohort(OwnCohort):
    """Records in any folder under pseudonyms that are made with the key in any file; tables name nobody.

    What is wrong with the folder as a whole is told under its name: whoever holds it reads it. `table` is a
    ``subjects.csv`` anywhere, in place of the folder's, and `only` are the records that are meant, where not all.
    """

    name = "records"

    def __init__(self, root: Path, key: Path, table: Path | None = None, only: frozenset[str] | None = None) -> None:
        try:
            self._folder = _Listed(root, table)
        except DataNotFoundError:
            raise StudyError(f"{root} holds no WFDB record (.hea with .dat or .mat), or you may not read it.") from None
        self.root, self._key = self._folder.root, key_in(key)
        self._place = self.root.name
        self._files, self._only = (key, table), only

    def __reduce__(self) -> tuple[Callable[..., "HeldCohort"], tuple[Any, ...]]:
        """Travel to another process of the same caller."""
        return type(self), (self.root, *self._files, self._only)

    def some(self, record_ids: Iterable[str]) -> "HeldCohort":
        """Give a cohort of these records alone."""
        return type(self)(self.root, *self._files, frozenset(record_ids))

    def secret(self, *about: object) -> int:
        """Seed that nobody can tell who has not got the key: what is drawn from it cannot be taken away again."""
        text = "\0".join(["seed", *map(str, about)])
        return int.from_bytes(hmac.new(self._key, text.encode(), hashlib.sha256).digest()[:16])

    @cached_property
    def _scan(self) -> Scan:
        self._folder.records()  # what is wrong with a table is told with its folder
        records, failures = super()._scan
        return _those(records, self._only), failures

    def names(self) -> dict[str, str]:
        """Give the name behind the pseudonym of every record in the folder or its table."""
        subjects = self._folder.subjects
        listed = [*subjects.rows.index, *subjects.problems] if subjects else []
        return {self.pseudonym("record", name): name for name in (*self._folder.paths, *listed)}

    def digest(self) -> str:
        """SHA-256 (hex) over the records, the key, the table and which records are meant."""
        _, table = self._files
        told = file_digest(table) if table else ""
        return cache_key(folder=super().digest(), table=told, only=sorted(self._only or ()))


class RawCohort(HeldCohort):
    """Records as they are, which :class:`ReleasedCohort` compares a release with."""

    name = "RAW"


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


def write_record(folder: Path, name: str, signal: Signal, comment: str) -> None:
    """Write a WFDB record (format 16, one file), its header last; the gain of each lead makes use of all 16 bits."""
    peaks = np.abs(signal.values).max(axis=1)
    gains = [float(f"{FULL_SCALE / peak:.3g}") if peak else NO_GAIN for peak in peaks.astype(float)]
    samples = np.rint(signal.values * np.array(gains)[:, None]).astype("<i2")
    sums = samples.sum(axis=1, dtype=np.int64) % (1 << 16)
    rate, *written = (np.format_float_positional(number, trim="-") for number in (signal.fs, *gains))
    lines = [f"{name} {len(samples)} {rate} {samples.shape[1]}"]
    for lead, gain, first, total in zip(signal.leads, written, samples[:, 0], sums, strict=True):
        lines.append(f"{name}.dat 16 {gain}(0)/{signal.unit} 16 0 {first} {total} 0 {lead}")
    with new_file(folder / f"{name}.dat") as unfinished:
        np.ascontiguousarray(samples.T).tofile(unfinished)
    write_text(folder / f"{name}.hea", "\n".join([*lines, f"# {comment}"]) + "\n")


def check_seed(seed: int) -> None:
    """Refuse a seed that the libraries that draw would not take."""
    if not 0 <= seed < MOST_SEED:
        raise StudyError(f"The seed is {seed}; give a number from 0 to {MOST_SEED - 1}.")
