"""ECG under physical activity: 10 persons, 5 activities, 3 kinds of electrode, one lead."""

import ast
import re
from typing import Any

import pandas as pd

from ecgstudy.data.base import DataCard
from ecgstudy.data.csv_files import numbers, read_csv
from ecgstudy.data.wfdb_cohort import ScannedCohort
from ecgstudy.data.wfdb_files import Header, checked_path
from ecgstudy.errors import RecordError, StudyError

_FACTS = re.compile(r"subject (?P<subject>\d+) electrode (?P<electrode>\w+) activity (?P<activity>\w+)")
_GAPS = re.compile(r"gaps_after_sample_s (?P<gaps>\[.*\])")


class MotionCohort(ScannedCohort):
    """The Prague recordings in WFDB form: each record has its own measured sampling rate."""

    name = "motion"
    folders = ("motion",)
    marker = "*.hea"
    tables = ("index.csv",)
    annotators = ("labels.csv",)
    card = DataCard(
        title="ECG signals with motion artefacts from a wearable sensor (K. Kalouskova, master's thesis, CTU Prague)",
        version="2024",
        licence="GPL-3.0",
        doi="",
        how_to_get=(
            "The thesis publishes CSV files (https://github.com/kalouskova/DP); bring them into the WFDB form that "
            "data/README.md describes, in a folder named motion."
        ),
        notes=(
            "10 persons x 5 activities x 3 electrodes: 150 one-minute records, one lead, 12-bit ADC counts, no mV.",
            "The nominal 500 Hz are 496 to 499 Hz in truth; each header states the rate that was measured.",
            "The electrode is confounded with time: the resting heart rate rises from electrode 1 to 3 (84, 93, 101).",
            "One session of about an hour a person: no comparison across days; no age, no sex.",
            "Four records have a gap in time (n_gaps); a window must not lie across one.",
        ),
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
        return {
            "subject_id": f"s{int(facts['subject']):02d}",
            "session": 1,
            "session_day": 0.0,
            "age": float("nan"),
            "sex": None,
            "activity": facts["activity"],
            "electrode": facts["electrode"],
            "n_gaps": len(places),
            "gaps": places,
        }

    def artefacts(self, record_id: str) -> pd.DataFrame:
        """Hand-made artefact degrees of one record, one row a segment of 2 s.

        Returns
        -------
        pandas.DataFrame
            Columns ``start`` and ``end`` (int, samples, end excluded) and ``degree``
            (int, 1: little or no artefact, higher: more).

        Raises
        ------
        KeyError
            No such record.
        StudyError
            The label file is missing or malformed.
        """
        path = self.header(record_id).path.with_suffix(".labels.csv")
        table = read_csv(checked_path(path, self._root), ("start", "end", "artifact"))
        columns = {"start": "start", "end": "end", "artifact": "degree"}
        whole = {}
        for source, name in columns.items():
            values, malformed = numbers(table[source])
            if malformed.any() or values.isna().any():
                raise StudyError(f"{path} has a cell in column {source} that is no number; download it again.")
            whole[name] = values.astype(int)
        return pd.DataFrame(whole)
