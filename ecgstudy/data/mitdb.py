"""MIT-BIH Arrhythmia Database: 48 half-hour records of 47 persons with every beat annotated."""

from typing import Any

import pandas as pd
import wfdb

from ecgstudy.data.base import DataCard
from ecgstudy.data.wfdb_cohort import ScannedCohort
from ecgstudy.data.wfdb_files import Header, read_annotation
from ecgstudy.errors import RecordError

BEAT_SYMBOLS = tuple("NLRBAaJSVrFejnE/fQ?")
"""Annotation codes that PhysioNet lists as beats; flutter waves ("!") are not among them."""

PACED = "/"
SAME_PERSON = {"202": "201"}
"""Record -> record of the same person (both come from one analogue tape, says the header of 202)."""


class MitdbCohort(ScannedCohort):
    """MIT-BIH Arrhythmia Database 1.0.0: two leads by name, not always the same two."""

    name = "mitdb"
    folders = ("mitdb", "mit-bih", "mit-bih-arrhythmia-database-1.0.0", "physionet.org/files/mitdb/1.0.0")
    marker = "*.hea"
    annotators = ("atr",)
    card = DataCard(
        title="MIT-BIH Arrhythmia Database",
        version="1.0.0",
        licence="ODC-By 1.0",
        doi="10.13026/C2F305",
        how_to_get="Run `python -m ecgstudy fetch mitdb` (94 MB, https://physionet.org/content/mitdb/1.0.0/).",
        notes=(
            "48 records of 30 minutes, two leads, 360 Hz; records 201 and 202 are one person, so 47 persons.",
            "The two leads differ between records: select by name (102 and 104 have no MLII).",
            "Records 102, 104, 107 and 217 hold paced beats (label paced).",
            "Rhythm and beat annotations are the publisher's reference annotations (atr).",
        ),
    )

    def _describe(self, record_id: str, header: Header) -> dict[str, Any]:
        fields = header.comments[0].split() if header.comments else []
        age = pd.to_numeric(fields[0], errors="coerce") if fields else float("nan")
        sex = fields[1] if len(fields) > 1 and fields[1] in ("F", "M") else None
        person = SAME_PERSON.get(record_id, record_id)
        row = {"subject_id": person, "session": 1, "session_day": float("nan"), "sex": sex}
        # The headers write an unknown age as -1.
        return row | {"age": age if age >= 0 else float("nan")} | self._labels(header)

    def _labels(self, header: Header) -> dict[str, Any]:
        """Labels from the annotations; None where they cannot be read: the signal is still good."""
        try:
            annotation = self._annotation(header)
        except RecordError:
            return {"rhythm": None, "paced": None, "n_beats": None}
        beats = _beats(annotation)
        rhythms = tuple(dict.fromkeys(_rhythms(annotation)["rhythm"]))
        return {"rhythm": rhythms, "paced": bool((beats["symbol"] == PACED).any()), "n_beats": len(beats)}

    def _annotation(self, header: Header) -> wfdb.Annotation:
        return read_annotation(header.path.with_suffix(".atr"), self._root, header.n_samples)

    def beats(self, record_id: str) -> pd.DataFrame:
        """Annotated beats: columns ``sample`` (int) and ``symbol`` (one of :data:`BEAT_SYMBOLS`).

        Raises
        ------
        KeyError
            No such record.
        RecordError
            The annotation file is missing or damaged.
        """
        return _beats(self._annotation(self.header(record_id)))

    def rhythms(self, record_id: str) -> pd.DataFrame:
        """Annotated rhythms: columns ``sample`` (int, where it starts) and ``rhythm`` ("N", "AFIB", "VT"...).

        A rhythm lasts until the next row. Raises as :meth:`beats`.
        """
        return _rhythms(self._annotation(self.header(record_id)))


def _beats(annotation: wfdb.Annotation) -> pd.DataFrame:
    table = pd.DataFrame({"sample": annotation.sample.astype(int), "symbol": annotation.symbol})
    return table[table["symbol"].isin(BEAT_SYMBOLS)].reset_index(drop=True)


def _rhythms(annotation: wfdb.Annotation) -> pd.DataFrame:
    table = pd.DataFrame({"sample": annotation.sample.astype(int), "note": annotation.aux_note})
    table = table[table["note"].str.startswith("(")]
    return pd.DataFrame({"sample": table["sample"], "rhythm": table["note"].str.strip("(\0 ")}).reset_index(drop=True)
