"""The one interface that every cohort offers: a table of records and the signal of a record."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

STANDARD_LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
RECORD_COLUMNS = ("record_id", "subject_id", "session", "session_day", "age", "sex", "fs", "leads", "n_samples", "unit")
"""Columns that every cohort's record table starts with; label columns follow.

record_id, subject_id : str, unique record name and the person it came from.
session : int, 1 for a person's first recording date, 2 for the second...
session_day : float, days since the person's first session (NaN where undated).
age : float, years (NaN where unknown). sex : "F", "M" or None.
fs : float, Hz. leads : tuple of str, field names (I, II, III, aVR, aVL, aVF, V1...V6, MLII...).
n_samples : int, samples per lead. unit : str, "mV" or whatever the header says.
"""

FAILURE_COLUMNS = ("record_id", "file", "reason", "remedy")


@dataclass(frozen=True)
class Signal:
    """The samples of one record."""

    values: np.ndarray  # float32, (n_leads, n_samples), in `unit`
    fs: float  # Hz
    leads: tuple[str, ...]
    unit: str  # "mV", or what the source states ("zscore", "adc"); never assumed to be mV


class Cohort(ABC):
    """A set of ECG records of known persons.

    ``data/README.md`` says what to know of each. A record that cannot be read is listed by :meth:`failures` (header)
    or raises :class:`~ecgstudy.errors.RecordError` in :meth:`signal` (samples); it never takes the others with it.
    """

    name: ClassVar[str]
    version: ClassVar[str] = ""  # as the publisher gives it, like licence and doi
    licence: ClassVar[str]
    doi: ClassVar[str] = ""
    how_to_get: ClassVar[str]  # one sentence: the command or page that brings the files
    synthetic: ClassVar[bool] = False
    root: Path | None = None  # folder that the records are read from; None for a generated cohort

    @cached_property
    @abstractmethod
    def _scan(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Read every header once: the record table and the failure table."""

    def records(self) -> pd.DataFrame:
        """Table of readable records: :data:`RECORD_COLUMNS`, then the cohort's labels."""
        return self._scan[0].copy()

    def failures(self) -> pd.DataFrame:
        """Table of records whose header could not be used: :data:`FAILURE_COLUMNS`."""
        return self._scan[1].copy()

    def notes(self) -> list[str]:
        """Sentences about the cohort that a reader should know and that no column says; they name nobody."""
        return []

    @abstractmethod
    def signal(self, record_id: str) -> Signal:
        """Read one record; ``KeyError`` for no such one, `RecordError` for a file that is not what its header says."""

    @abstractmethod
    def digest(self) -> str:
        """SHA-256 (hex) over everything the cohort's records are made from."""


def as_tables(rows: pd.DataFrame, failures: Sequence[tuple[str, str, str, str]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Record table (:data:`RECORD_COLUMNS` first, in their types, then the labels) and failure table.

    Where rows have a `date`, it becomes session (rank of the date among the person's dates, from 1) and session_day,
    and does not leave the loader. An undated record (NaT) counts as session 1, so that nobody takes it for a later
    day; its day is NaN.
    """
    if "date" in rows:
        day = rows["date"].dt.normalize()
        by_person = day.groupby(rows["subject_id"])
        session = by_person.rank(method="dense").fillna(1)
        since = (day - by_person.transform("min")).dt.days
        rows = rows.drop(columns="date").assign(session=session, session_day=since)
    labels = [column for column in rows.columns if column not in RECORD_COLUMNS]
    types = {"session": int, "session_day": float, "age": float, "fs": float, "n_samples": int}
    table = rows.reindex(columns=[*RECORD_COLUMNS, *labels]).astype(types)
    return table, pd.DataFrame(failures, columns=list(FAILURE_COLUMNS))
