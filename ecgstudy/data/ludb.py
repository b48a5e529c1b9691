"""LUDB: 200 persons, 12 leads, wave boundaries drawn by cardiologists on every lead."""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ecgstudy.data.base import Signal
from ecgstudy.data.wfdb_cohort import OVER_89_YEARS, WfdbCohort
from ecgstudy.data.wfdb_files import STANDARD_LEADS, Header, read_annotation
from ecgstudy.errors import RecordError

LABELS = {
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


class LudbCohort(WfdbCohort):
    """LUDB 1.0.1; amplitudes are the stored integers taken as microvolts, see :meth:`signal`."""

    name = "ludb"
    folders = (
        "ludb",
        "ludb-1.0.1",
        "lobachevsky-university-electrocardiography-database-1.0.1",
        "physionet.org/files/ludb/1.0.1",
    )
    marker = "ludb.csv"
    tables = ("ludb.csv",)
    annotators = tuple(lead.lower() for lead in STANDARD_LEADS)
    version = "1.0.1"
    licence = "ODC-By 1.0"
    doi = "10.13026/eegm-h675"
    how_to_get = "Run `python -m ecgstudy fetch ludb` (25 MB, https://physionet.org/content/ludb/1.0.1/)."

    def _record_id(self, path: Path) -> str:
        return path.stem

    def _header_path(self, record_id: str) -> Path:
        return self._root / "data" / f"{record_id}.hea"

    @cached_property
    def _table(self) -> pd.DataFrame:
        table = self._read_table("ludb.csv", ("ID", "Sex", "Age", *LABELS))
        return table.drop_duplicates("ID", keep=False).set_index("ID")

    def _describe(self, record_id: str, header: Header) -> dict[str, Any]:
        if record_id not in self._table.index:
            raise RecordError(self._root / "ludb.csv", f"has no row, or more than one, for record {record_id}")
        cells = self._table.loc[record_id]
        age = OVER_89_YEARS if cells["Age"] == ">89" else pd.to_numeric(cells["Age"], errors="coerce")
        row = {"subject_id": record_id, "session": 1, "session_day": 0.0, "age": age}
        row["sex"] = cells["Sex"] if cells["Sex"] in ("F", "M") else None
        for column, label in LABELS.items():
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
        annotation = read_annotation(header.path.with_suffix(f".{lead.lower()}"), self._root, header.n_samples)
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
