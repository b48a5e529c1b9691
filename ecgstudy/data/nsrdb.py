"""MIT-BIH Normal Sinus Rhythm Database: ambulatory records of about a day, of which the beginning is read."""

from dataclasses import replace
from typing import Any

import numpy as np

from ecgstudy.data.base import Signal
from ecgstudy.data.public import BEAT_SYMBOLS
from ecgstudy.data.tables import age_of, sex_of
from ecgstudy.data.wfdb_cohort import WfdbCohort
from ecgstudy.data.wfdb_files import Header, read_annotation
from ecgstudy.errors import RecordError

READ_MINUTES = 30.0
"""Minutes from the start of each record that are read: as long as MIT-BIH's records, so that its questions can be asked
of these persons too. A whole day of everybody takes hours to delineate, and no protocol asks about it."""


class NsrdbCohort(WfdbCohort):
    """MIT-BIH Normal Sinus Rhythm 1.0.0: 18 persons without a significant arrhythmia, two leads at 128 Hz.

    The headers name the leads ECG1 and ECG2, whatever they are, and state a gain of 0: amplitudes are not calibrated.
    The label `n_beats` counts the annotated beats of the :data:`READ_MINUTES` minutes that are read.
    """

    name = "nsrdb"
    folders = ("nsrdb", "mit-bih-normal-sinus-rhythm-database-1.0.0", "physionet.org/files/nsrdb/1.0.0")
    marker = "*.hea"
    annotators = ("atr",)
    version = "1.0.0"
    licence = "ODC-By 1.0"
    doi = "10.13026/C2NK5R"
    how_to_get = "Run `python -m ecgstudy fetch nsrdb` (0.6 GB, https://physionet.org/content/nsrdb/1.0.0/)."

    def _describe(self, record_id: str, header: Header) -> dict[str, Any]:
        age, sex, *_ = [*"".join(header.comments[:1]).split(), "", ""]
        n_samples = min(header.n_samples, round(60 * READ_MINUTES * header.fs))
        row = {"subject_id": record_id, "age": age_of(age), "sex": sex_of(sex), "n_samples": n_samples}
        try:
            marks = read_annotation(header.path.with_suffix(".atr"), self.root, header.n_samples)
        except RecordError:  # the signal is still good
            return row | {"n_beats": None}
        beats = marks.sample[np.isin(marks.symbol, [*BEAT_SYMBOLS])]
        return row | {"n_beats": int((beats < n_samples).sum())}

    def signal(self, record_id: str) -> Signal:
        """Read the beginning of one record: float32, (2, n_samples), in units that the header does not calibrate."""
        whole = super().signal(record_id)
        return replace(whole, values=whole.values[:, : round(60 * READ_MINUTES * whole.fs)].copy())

    def notes(self) -> list[str]:
        """Say what is not read."""
        return [f"Of each record, which lasts about a day, the first {READ_MINUTES:g} minutes are read."]
