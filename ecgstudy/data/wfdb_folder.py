"""Bring your own: any folder of WFDB records, with an optional table of who is who."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import pandas as pd

from ecgstudy.data.base import RECORD_COLUMNS
from ecgstudy.data.wfdb_cohort import WfdbCohort, numbers
from ecgstudy.data.wfdb_files import Header, read_header
from ecgstudy.errors import RecordError, StudyError

SUBJECTS = "subjects.csv"
AGE_RANGE = (0, 130)
_SEX = {"f": "F", "female": "F", "m": "M", "male": "M", "": None}


class WfdbFolderCohort(WfdbCohort):
    """Records of your own, each known by its path below the folder, without ``.hea``.

    ``subjects.csv`` has the columns ``record`` and ``subject_id``, may have ``session``, ``age`` and ``sex``, and any
    further column becomes a label (text). Without it every record is its own person; with it, a record that it does
    not list is left out and said so, because a person counted twice would leak between training and test.
    """

    name = "wfdb-folder"
    folders = ("wfdb-folder",)
    marker = "**/*.hea"
    tables = (SUBJECTS,)
    licence = "yours to know: check that you may use the records"
    how_to_get = "Put WFDB records (.hea and .dat) into a folder named wfdb-folder, as data/README.md describes."

    def _listed(self) -> list[str]:
        """Every header below the folder, apart from those that are segments of another record."""
        # Hidden files are droppings of file managers, not records.
        paths = sorted(path for path in self._root.rglob("*.hea") if not path.name.startswith("."))
        segments = set()
        for path in paths:
            try:
                segments |= {path.with_name(f"{part}.hea") for part in read_header(path, self._root).parts}
            except RecordError:
                continue  # The scan lists it among the failures.
        return [self._record_id(path) for path in paths if path not in segments]

    @cached_property
    def _subjects(self) -> tuple[pd.DataFrame, dict[str, tuple[str, str]]] | None:
        """Usable rows of ``subjects.csv`` by record, and for each other record the reason and remedy."""
        path = self._root / SUBJECTS
        if not path.exists():
            return None
        table = self._read_table(SUBJECTS, ("record", "subject_id"))
        taken = sorted((set(RECORD_COLUMNS) - {"subject_id", "session", "age", "sex"}) & set(table.columns))
        if taken:
            raise StudyError(f"{path} has a column {taken[0]}, which the headers decide; give it another name.")
        problems: dict[str, tuple[str, str]] = {}
        for position, reason, remedy in _row_problems(table):
            problems.setdefault(table["record"].iloc[position], (f"line {position + 2}: {reason}", remedy))
        table = table[~table["record"].isin(problems)].set_index("record")
        return table, problems

    def _describe(self, record_id: str, header: Header) -> dict[str, Any]:
        own = {"subject_id": record_id, "session": 1, "session_day": float("nan"), "age": float("nan"), "sex": None}
        if self._subjects is None:
            return own
        table, problems = self._subjects
        path = self._root / SUBJECTS
        if record_id in problems:
            raise RecordError(path, *problems[record_id])
        if record_id not in table.index:
            raise RecordError(path, f"does not list the record {record_id}", "add a row for it, or remove its files")
        row = table.loc[record_id].to_dict()
        row["session"] = int(row.get("session") or 1)
        row["age"] = float(row.get("age") or "nan")
        row["sex"] = _SEX[row.get("sex", "").lower()]
        return own | row

    def _orphans(self, listed: Sequence[str]) -> list[tuple[str, str, str, str]]:
        if self._subjects is None:
            return []
        table, problems = self._subjects
        absent = sorted({*table.index, *problems} - {*listed, ""})
        remedy = "add the record's .hea and .dat files, or remove the row"
        return [(name, SUBJECTS, "names a record that is not in the folder", remedy) for name in absent]


def _row_problems(table: pd.DataFrame) -> list[tuple[int, str, str]]:
    """Position, reason and remedy of every unusable row of ``subjects.csv``."""
    blank = pd.Series("", index=table.index)
    session, no_session = numbers(table.get("session", blank))
    age, no_age = numbers(table.get("age", blank))
    checks = [
        (table["record"] == "", "names no record", "fill in the column record"),
        (table["record"].duplicated(keep=False), "lists its record twice", "keep one row a record"),
        (table["subject_id"] == "", "names no person", "fill in the column subject_id"),
        (no_session | (session < 1) | (session % 1 > 0), "has a session that is no whole number", "count from 1"),
        (no_age | ~(age.isna() | age.between(*AGE_RANGE)), "has an age that is no age", "write it in years"),
        (~table.get("sex", blank).str.lower().isin(_SEX), "has a sex other than F or M", "write F, M or nothing"),
    ]
    return [(position, reason, remedy) for bad, reason, remedy in checks for position in bad.to_numpy().nonzero()[0]]
