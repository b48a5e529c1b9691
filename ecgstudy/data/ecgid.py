"""ECG-ID: 90 persons, lead I, several recording dates for 20 of them."""

from datetime import datetime
from typing import Any

import pandas as pd

from ecgstudy.data.wfdb_cohort import WfdbCohort, sessions
from ecgstudy.data.wfdb_files import Header
from ecgstudy.errors import RecordError


class EcgidCohort(WfdbCohort):
    """ECG-ID 1.0.0: the raw channel 0 of every record.

    Record names repeat from person to person, so a record is known by both ("Person_01/rec_1"). Recording dates
    become sessions and day differences; no absolute date leaves the loader.
    """

    name = "ecgid"
    folders = ("ecgiddb", "ecgid", "ecg-id", "ecg-id-database-1.0.0", "physionet.org/files/ecgiddb/1.0.0")
    marker = "Person_*/*.hea"
    version = "1.0.0"
    licence = "ODC-By 1.0"
    doi = "10.13026/C2J01F"
    how_to_get = "Run `python -m ecgstudy fetch ecgid` (13 MB, https://physionet.org/content/ecgiddb/1.0.0/)."

    def _channels(self, header: Header) -> tuple[int, ...]:
        return (0,)  # channel 1 is the same lead, filtered

    def _describe(self, record_id: str, header: Header) -> dict[str, Any]:
        facts = dict(line.split(":", 1) for line in header.comments if ":" in line)
        try:
            date = datetime.strptime(facts["ECG date"].strip(), "%d.%m.%Y")
        except (KeyError, ValueError):
            raise RecordError(header.path, "states no date that a session could be told by") from None
        age = pd.to_numeric(facts.get("Age", "").strip(), errors="coerce")
        sex = {"female": "F", "male": "M"}.get(facts.get("Sex", "").strip().lower())
        return {"subject_id": record_id.split("/")[0], "date": date, "age": age, "sex": sex}

    def _finish(self, rows: pd.DataFrame) -> pd.DataFrame:
        session, day = sessions(rows["subject_id"], rows["date"])
        return rows.drop(columns="date").assign(session=session, session_day=day)
