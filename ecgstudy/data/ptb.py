"""PTB Diagnostic ECG Database: 290 persons, long records of fifteen leads, several recording dates for many."""

from datetime import datetime
from typing import Any

import pandas as pd

from ecgstudy.data.tables import age_of, sex_of, stated
from ecgstudy.data.wfdb_cohort import WfdbCohort
from ecgstudy.data.wfdb_files import Header
from ecgstudy.errors import RecordError

_DATE = "ECG date"
_DATE_FORM = "%d/%m/%Y"
"""The first record is of 01/10/1990, two days after an infarction of 29-Sep-90."""


class PtbCohort(WfdbCohort):
    """PTB Diagnostic 1.0.0: the twelve standard leads and Frank's (vx, vy, vz) of 290 persons at 1,000 Hz.

    A person is a folder, and a record is known by both ("patient001/s0010_re"). Recording dates become sessions and day
    differences; no absolute date leaves the loader. The label `diagnosis` is the reason for admission, None where none
    is stated. All other comments, which hold further dates, stay behind.
    """

    name = "ptb"
    folders = ("ptbdb", "ptb", "ptb-diagnostic-ecg-database-1.0.0", "physionet.org/files/ptbdb/1.0.0")
    marker = "patient*/*.hea"
    version = "1.0.0"
    licence = "ODC-By 1.0"
    doi = "10.13026/C28C71"
    how_to_get = "Run `python -m ecgstudy fetch ptb` (1.7 GB, https://physionet.org/content/ptbdb/1.0.0/)."

    def _describe(self, record_id: str, header: Header) -> dict[str, Any]:
        facts = {key: fact.strip() for key, colon, fact in (line.partition(":") for line in header.comments) if colon}
        if _DATE not in facts:
            raise RecordError(header.path, f"has no line {_DATE} in its comments")
        diagnosis = facts.get("Reason for admission", "")
        row = {"subject_id": record_id.split("/")[0], "date": self._date(header, facts[_DATE])}
        row |= {"age": age_of(facts.get("age", "")), "sex": sex_of(facts.get("sex", ""))}
        return row | {"diagnosis": diagnosis if stated(diagnosis) else None}

    def _date(self, header: Header, text: str) -> datetime:
        """Read the recording date, NaT where it is stated to be unknown."""
        if not stated(text):
            return pd.NaT
        try:
            return datetime.strptime(text, _DATE_FORM)
        except ValueError:
            raise RecordError(header.path, f"states an {_DATE} that is no day of the calendar", detail=text) from None
