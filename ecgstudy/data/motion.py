"""ECG under physical activity: 10 persons, 5 activities, 3 kinds of electrode, one lead."""

import ast
import re
from typing import Any

import pandas as pd

from ecgstudy.data.wfdb_cohort import WfdbCohort, numbers, read_csv
from ecgstudy.data.wfdb_files import Header, checked_path
from ecgstudy.errors import RecordError, StudyError

_FACTS = re.compile(r"subject (?P<subject>\d+) electrode (?P<electrode>\w+) activity (?P<activity>\w+)")
_GAPS = re.compile(r"gaps_after_sample_s (?P<gaps>\[.*\])")


class MotionCohort(WfdbCohort):
    """The Prague recordings in WFDB form: each record has its own measured sampling rate."""

    name = "motion"
    folders = ("motion",)
    marker = "*.hea"
    tables = ("index.csv",)
    annotators = ("labels.csv",)
    version = "2024"
    licence = "GPL-3.0"
    how_to_get = (
        "The thesis publishes CSV files (https://github.com/kalouskova/DP); bring them into the WFDB form that "
        "data/README.md describes, in a folder named motion."
    )

    def _describe(self, record_id: str, header: Header) -> dict[str, Any]:
        comments = "\n".join(header.comments)
        facts, gaps = _FACTS.search(comments), _GAPS.search(comments)
        if facts is None:
            raise RecordError(header.path, "does not say subject, electrode and activity in its comments")
        try:
            places = tuple((int(after), float(seconds)) for after, seconds in ast.literal_eval(gaps["gaps"]))
        except (TypeError, ValueError, SyntaxError):
            raise RecordError(header.path, "does not say where its gaps in time are") from None
        row = {"subject_id": f"s{int(facts['subject']):02d}", "session": 1, "session_day": 0.0}
        row |= {"age": float("nan"), "sex": None, "activity": facts["activity"], "electrode": facts["electrode"]}
        return row | {"n_gaps": len(places), "gaps": places}

    def artefacts(self, record_id: str) -> pd.DataFrame:
        """Hand-made artefact degrees (1: little or none, higher: more) of one record's segments of 2 s.

        Columns ``start``, ``end`` (samples, end excluded) and ``degree``, int; ``KeyError`` for no such record,
        `StudyError` for a label file that is missing or malformed.
        """
        path = self.header(record_id).path.with_suffix(".labels.csv")
        table = read_csv(checked_path(path, self._root), ("start", "end", "artifact"))[["start", "end", "artifact"]]
        for column in table:
            values, _ = numbers(table[column])
            if values.isna().any():
                raise StudyError(f"{path} has a cell in column {column} that is no number; download it again.")
            table[column] = values.astype(int)
        return table.rename(columns={"artifact": "degree"})
