"""MIT-BIH Arrhythmia Database: 48 half-hour records of 47 persons with every beat annotated."""

from typing import Any

import pandas as pd

from ecgstudy.data.wfdb_cohort import WfdbCohort
from ecgstudy.data.wfdb_files import Header, read_annotation
from ecgstudy.errors import RecordError

BEAT_SYMBOLS = frozenset("NLRBAaJSVrFejnE/fQ?")
"""Annotation codes that PhysioNet lists as beats ("/" is paced); flutter waves ("!") are not among them."""
SAME_PERSON = {"202": "201"}
"""Record -> record of the same person (both come from one analogue tape, says the header of 202)."""


class MitdbCohort(WfdbCohort):
    """MIT-BIH Arrhythmia Database 1.0.0: two leads by name, not always the same two."""

    name = "mitdb"
    folders = ("mitdb", "mit-bih", "mit-bih-arrhythmia-database-1.0.0", "physionet.org/files/mitdb/1.0.0")
    marker = "*.hea"
    annotators = ("atr",)
    version = "1.0.0"
    licence = "ODC-By 1.0"
    doi = "10.13026/C2F305"
    how_to_get = "Run `python -m ecgstudy fetch mitdb` (94 MB, https://physionet.org/content/mitdb/1.0.0/)."

    def _describe(self, record_id: str, header: Header) -> dict[str, Any]:
        fields = header.comments[0].split() if header.comments else []
        age = pd.to_numeric(fields[0], errors="coerce") if fields else float("nan")
        row = {"subject_id": SAME_PERSON.get(record_id, record_id), "session": 1, "session_day": float("nan")}
        row["sex"] = fields[1] if len(fields) > 1 and fields[1] in ("F", "M") else None
        row["age"] = age if age >= 0 else float("nan")  # The headers write an unknown age as -1.
        try:
            marks = read_annotation(header.path.with_suffix(".atr"), self._root, header.n_samples)
        except RecordError:  # the signal is still good
            return row | {"rhythm": None, "paced": None, "n_beats": None}
        rhythms = tuple(dict.fromkeys(note.strip("(\0 ") for note in marks.aux_note if note.startswith("(")))
        n_beats = sum(symbol in BEAT_SYMBOLS for symbol in marks.symbol)
        return row | {"rhythm": rhythms, "paced": "/" in marks.symbol, "n_beats": n_beats}
