"""Bring your own: any folder of WFDB records, with an optional table of who is who."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import pandas as pd

from ecgstudy.data.base import RECORD_COLUMNS
from ecgstudy.data.tables import SEX, first_problem, numbers
from ecgstudy.data.wfdb_cohort import WfdbCohort
from ecgstudy.data.wfdb_files import Header, read_header
from ecgstudy.errors import RecordError, StudyError

SUBJECTS = "subjects.csv"
AGE_RANGE = (0, 130)
OPTIONAL = ("session", "age", "sex")


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
        paths = sorted(path for path in self.root.rglob("*.hea") if not path.name.startswith("."))
        segments = set()
        for path in paths:
            try:
                segments |= {path.with_name(f"{part}.hea") for part in read_header(path, self.root).parts}
            except RecordError:
                continue  # The scan lists it among the failures.
        return [self._record_id(path) for path in paths if path not in segments]

    @cached_property
    def _subjects(self) -> tuple[pd.DataFrame, dict[str, tuple[str, str]]] | None:
        """Usable rows of ``subjects.csv`` by record, and for each other record the reason and remedy."""
        path = self.root / SUBJECTS
        if not path.exists():
            return None
        table = self._read_table(SUBJECTS, ("record", "subject_id"))
        taken = sorted(set(RECORD_COLUMNS).difference(("subject_id", *OPTIONAL)) & set(table.columns))
        if taken:
            raise StudyError(f"{path} has a column {taken[0]}, which the headers decide; give it another name.")
        table = table.assign(**{name: "" for name in OPTIONAL if name not in table})
        session, no_session = numbers(table["session"])
        age, no_age = numbers(table["age"])
        problem = first_problem(
            {
                "names no record; fill in the column record": table["record"] == "",
                "lists its record twice; keep one row a record": table["record"].duplicated(keep=False),
                "names no person; fill in the column subject_id": table["subject_id"] == "",
                "has a session that is no whole number; count from 1": no_session | (session < 1) | (session % 1 > 0),
                "has an age that is no age; write it in years": no_age | ~(age.isna() | age.between(*AGE_RANGE)),
                "has a sex other than F or M; write F, M or nothing": ~table["sex"].str.lower().isin(["", *SEX]),
            }
        )
        problems: dict[str, tuple[str, str]] = {}
        for position in problem.nonzero()[0]:
            reason, _, remedy = problem[position].partition("; ")
            problems.setdefault(table["record"].iloc[position], (f"line {position + 2}: {reason}", remedy))
        table["session"], table["age"] = session.fillna(1), age
        table["sex"] = [SEX.get(sex.lower()) for sex in table["sex"]]
        return table[problem == ""].set_index("record"), problems

    def _describe(self, record_id: str, header: Header) -> dict[str, Any]:
        if self._subjects is None:
            return {"subject_id": record_id}
        table, problems = self._subjects
        path = self.root / SUBJECTS
        if record_id in problems:
            raise RecordError(path, *problems[record_id])
        if record_id not in table.index:
            raise RecordError(path, f"does not list the record {record_id}", "add a row for it, or remove its files")
        return table.loc[record_id].to_dict()

    def _orphans(self, listed: Sequence[str]) -> list[tuple[str, str, str, str]]:
        if self._subjects is None:
            return []
        table, problems = self._subjects
        absent = sorted({*table.index, *problems} - {*listed, ""})
        remedy = "add the record's .hea and .dat files, or remove the row"
        return [(name, SUBJECTS, "names a record that is not in the folder", remedy) for name in absent]
