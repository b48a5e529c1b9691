"""Public cohorts whose facts stand in headers or in one small table: ECG-ID, LUDB, MIT-BIH and motion."""

import ast
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from ecgstudy.data.base import STANDARD_LEADS, Signal
from ecgstudy.data.tables import age_of, numbers, read_csv, sex_of
from ecgstudy.data.wfdb_cohort import WfdbCohort
from ecgstudy.data.wfdb_files import Header, checked_path, read_annotation
from ecgstudy.errors import RecordError, StudyError

BEAT_SYMBOLS = frozenset("NLRBAaJSVrFejnE/fQ?")
"""Annotation codes that PhysioNet lists as beats ("/" is paced); flutter waves ("!") are not among them."""
SAME_PERSON = {"202": "201"}
"""MIT-BIH record -> record of the same person (both come from one analogue tape, says the header of 202)."""

LUDB_LABELS = {
    "Rhythms": "rhythm",
    "Electric axis of the heart": "axis",
    "Conduction abnormalities": "conduction",
    "Extrasystolies": "extrasystoles",
    "Hypertrophies": "hypertrophy",
    "Cardiac pacing": "pacing",
    "Ischemia": "ischaemia",
    "Non-specific repolarization abnormalities": "repolarisation",
    "Other states": "other",
}
"""Columns of ``ludb.csv`` and the label columns they become: tuples of phrases, one a line of the cell."""
_WAVES = {"p": "P", "N": "QRS", "t": "T"}
# A wave is "(", peak, ")"; either bracket may be missing, and where the peak
# lies before the marked onset the file holds peak, "(", ")".
_WAVE = re.compile(r"(?P<onset>\()?(?P<peak>[pNt])(?:(?P<late_onset>\()?(?P<offset>\)))?")

_MOTION_FACTS = re.compile(r"subject (?P<subject>\d+) electrode (?P<electrode>\w+) activity (?P<activity>\w+)")
_MOTION_GAPS = re.compile(r"gaps_after_sample_s (?P<gaps>\[.*\])")


class EcgidCohort(WfdbCohort):
    """ECG-ID 1.0.0: 90 persons, the raw channel 0 of every record, several recording dates for 20 persons.

    Record names repeat from person to person, so a record is known by both ("Person_01/rec_1"). Recording dates
    become sessions and day differences; no absolute date leaves the loader.
    """

    name = "ecgid"
    folders = ("ecgiddb", "ecgid", "ecg-id", "ecg-id-database-1.0.0", "physionet.org/files/ecgiddb/1.0.0")
    marker = "Person_*/*.hea"
    offered = slice(1)  # channel 1 is the same lead, filtered
    version = "1.0.0"
    licence = "ODC-By 1.0"
    doi = "10.13026/C2J01F"
    how_to_get = "Run `python -m ecgstudy fetch ecgid` (13 MB, https://physionet.org/content/ecgiddb/1.0.0/)."

    def _describe(self, record_id: str, header: Header) -> dict[str, Any]:
        facts = {key: fact.strip() for key, colon, fact in (line.partition(":") for line in header.comments) if colon}
        try:
            date = datetime.strptime(facts["ECG date"], "%d.%m.%Y")
        except (KeyError, ValueError):
            raise RecordError(header.path, "states no date that a session could be told by") from None
        age, sex = age_of(facts.get("Age", "")), sex_of(facts.get("Sex", ""))
        return {"subject_id": record_id.split("/")[0], "date": date, "age": age, "sex": sex}


class LudbCohort(WfdbCohort):
    """LUDB 1.0.1: 200 persons, 12 leads, wave boundaries drawn by cardiologists on every lead.

    Amplitudes are the stored integers taken as microvolts, see :meth:`signal`.
    """

    name = "ludb"
    folders = (
        "ludb",
        "ludb-1.0.1",
        "lobachevsky-university-electrocardiography-database-1.0.1",
        "physionet.org/files/ludb/1.0.1",
    )
    marker = "ludb.csv"
    prefix = "data/"
    tables = ("ludb.csv",)
    annotators = tuple(lead.lower() for lead in STANDARD_LEADS)
    version = "1.0.1"
    licence = "ODC-By 1.0"
    doi = "10.13026/eegm-h675"
    how_to_get = "Run `python -m ecgstudy fetch ludb` (25 MB, https://physionet.org/content/ludb/1.0.1/)."

    @cached_property
    def _table(self) -> pd.DataFrame:
        table = self._read_table("ludb.csv", ("ID", "Sex", "Age", *LUDB_LABELS))
        return table.drop_duplicates("ID", keep=False).set_index("ID")

    def _describe(self, record_id: str, header: Header) -> dict[str, Any]:
        if record_id not in self._table.index:
            raise RecordError(self.root / "ludb.csv", f"has no row, or more than one, for record {record_id}")
        cells = self._table.loc[record_id]
        row = {"subject_id": record_id, "session_day": 0.0}
        row |= {"age": age_of(cells["Age"]), "sex": sex_of(cells["Sex"])}
        for column, label in LUDB_LABELS.items():
            phrases = (line.removeprefix("Electric axis of the heart: ") for line in cells[column].splitlines())
            row[label] = tuple(phrase.strip() for phrase in phrases if phrase.strip())
        return row

    def signal(self, record_id: str) -> Signal:
        """Read the samples of one record in mV: float32, (12, n_samples).

        The headers state a gain a lead that equals the lead's own digital span, which would bring every lead to a
        span of 1 and break II = I + III. The stored integers obey it in every record, so all leads share one unit;
        it is taken to be 1 microvolt, which gives ordinary amplitudes.
        """
        scaled = super().signal(record_id)
        gain, baseline = np.array([[c.gain, c.baseline] for c in self.header(record_id).channels]).T[..., None]
        microvolts = np.rint(scaled.values * gain + baseline)
        return replace(scaled, values=(microvolts / 1000).astype(np.float32), unit="mV")

    def boundaries(self, record_id: str, lead: str) -> pd.DataFrame:
        """Wave boundaries that the cardiologists drew on one lead, in order of time.

        Columns ``wave`` ("P", "QRS", "T"), ``onset``, ``peak``, ``offset``: samples at the record's fs, float, NaN
        where not marked. ``KeyError`` for no such record or lead, `RecordError` for a damaged file.
        """
        header = self.header(record_id)
        if lead not in header.leads:
            raise KeyError(f"record {record_id} has no lead {lead}")
        annotation = read_annotation(header.path.with_suffix(f".{lead.lower()}"), self.root, header.n_samples)
        return parse_boundaries(annotation.symbol, annotation.sample)


def parse_boundaries(symbols: Sequence[str], samples: np.ndarray) -> pd.DataFrame:
    """Group annotation marks into waves, see :meth:`LudbCohort.boundaries`; unknown marks stand between waves."""
    text = "".join(symbol if symbol in ("(", ")", *_WAVES) else " " for symbol in symbols)
    rows = []
    for match in _WAVE.finditer(text):
        place = {part: samples[match.start(part)] if match[part] else np.nan for part in match.groupdict()}
        onset = place["onset"] if match["onset"] else place["late_onset"]
        rows.append((_WAVES[match["peak"]], onset, place["peak"], place["offset"]))
    table = pd.DataFrame(rows, columns=["wave", "onset", "peak", "offset"])
    return table.astype({"wave": object, "onset": float, "peak": float, "offset": float})


class MitdbCohort(WfdbCohort):
    """MIT-BIH Arrhythmia Database 1.0.0: 48 half-hour records of 47 persons with every beat annotated.

    Two leads by name, not always the same two.
    """

    name = "mitdb"
    folders = ("mitdb", "mit-bih", "mit-bih-arrhythmia-database-1.0.0", "physionet.org/files/mitdb/1.0.0")
    marker = "*.hea"
    annotators = ("atr",)
    version = "1.0.0"
    licence = "ODC-By 1.0"
    doi = "10.13026/C2F305"
    how_to_get = "Run `python -m ecgstudy fetch mitdb` (94 MB, https://physionet.org/content/mitdb/1.0.0/)."

    def _describe(self, record_id: str, header: Header) -> dict[str, Any]:
        age, sex, *_ = [*"".join(header.comments[:1]).split(), "", ""]
        row = {"subject_id": SAME_PERSON.get(record_id, record_id)}
        row |= {"age": age_of(age), "sex": sex_of(sex)}
        try:
            marks = read_annotation(header.path.with_suffix(".atr"), self.root, header.n_samples)
        except RecordError:  # the signal is still good
            return row | {"rhythm": None, "paced": None, "n_beats": None}
        rhythms = tuple(dict.fromkeys(note.strip("(\0 ") for note in marks.aux_note if note.startswith("(")))
        n_beats = sum(symbol in BEAT_SYMBOLS for symbol in marks.symbol)
        return row | {"rhythm": rhythms, "paced": "/" in marks.symbol, "n_beats": n_beats}


class MotionCohort(WfdbCohort):
    """ECG under physical activity (Prague): 10 persons, 5 activities, 3 kinds of electrode, one lead.

    In WFDB form; each record has its own measured sampling rate.
    """

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
        facts, gaps = _MOTION_FACTS.search(comments), _MOTION_GAPS.search(comments)
        if facts is None:
            raise RecordError(header.path, "does not say subject, electrode and activity in its comments")
        try:
            places = tuple((int(after), float(seconds)) for after, seconds in ast.literal_eval(gaps["gaps"]))
        except (TypeError, ValueError, SyntaxError):
            raise RecordError(header.path, "does not say where its gaps in time are") from None
        row = {"subject_id": f"s{int(facts['subject']):02d}", "session_day": 0.0}
        row |= {"activity": facts["activity"], "electrode": facts["electrode"]}
        return row | {"n_gaps": len(places), "gaps": places}

    def artefacts(self, record_id: str) -> pd.DataFrame:
        """Hand-made artefact degrees (1: little or none, higher: more) of one record's segments of 2 s.

        Columns ``start``, ``end`` (samples, end excluded) and ``degree``, int; ``KeyError`` for no such record,
        `StudyError` for a label file that is missing or malformed.
        """
        path = self.header(record_id).path.with_suffix(".labels.csv")
        columns = ["start", "end", "artifact"]
        table = read_csv(checked_path(path, self.root), columns)[columns]
        for column in table:
            values, _ = numbers(table[column])
            if values.isna().any():
                raise StudyError(f"{path} has a cell in column {column} that is no number; download it again.")
            table[column] = values.astype(int)
        return table.rename(columns={"artifact": "degree"})
