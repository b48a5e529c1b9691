"""A small cohort of every type, with stretches planted in the first lead of every record that no stage may read."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import wfdb_trees
from fake_cohort import SECONDS, waveform

from ecgstudy.data.base import Cohort, Signal
from ecgstudy.data.nsrdb import NsrdbCohort
from ecgstudy.data.own import FolderCohort
from ecgstudy.data.ptb import PtbCohort
from ecgstudy.data.ptbxl import PtbxlCohort
from ecgstudy.data.public import EcgidCohort, LudbCohort, MitdbCohort, MotionCohort
from ecgstudy.data.synthetic import SyntheticCohort

STRETCHES = {"not a number": (2.2, 2.7), "flat": (4.2, 5.7), "saturated": (8.5, 8.56)}
"""Seconds of each record that are spoilt, by reason."""
GAPS = {"s10_e03_squats": 320 / 495.982}
"""Second after which the clock of a record jumps."""


def planted(n_leads: int, fs: float, seed: int) -> np.ndarray:
    """Beats of ten seconds in thousandths, the stretches planted in the first lead; integers, -32768 for no number."""
    rng = np.random.default_rng(seed)
    values = 800 * waveform("good_1a", fs, 1) * np.linspace(1, 0.5, n_leads)[:, None]
    values = np.rint(values + rng.normal(0, 5, values.shape)).astype(int)
    for reason, value in (("not a number", -32768), ("flat", 40), ("saturated", 1900)):
        start, stop = (round(second * fs) for second in STRETCHES[reason])
        values[0, start:stop] = value
    return values


def _tree(write: Callable[[Path], Path], cohort: type[Cohort], fs: float, missing: int, folder: Path) -> Cohort:
    """Let one of the trees write records of planted beats."""

    def digital(n_leads: int, _n_samples: int, seed: int = 0) -> np.ndarray:
        values = planted(n_leads, fs, seed)
        return np.where(values == -32768, missing, values)

    with mock.patch.object(wfdb_trees, "digital", digital):
        return cohort(write(folder))


def _own_folder(folder: Path) -> Path:
    """Write two WFDB records of two persons."""
    for name in ("one", "two"):
        wfdb_trees.write_record(folder, name, planted(2, 250.0, len(name) + ord(name[0])), fs=250, leads=("I", "II"))
    (folder / "subjects.csv").write_text("record,subject_id\none,Ann\ntwo,Bob\n")
    return folder


class PlantedSynthetic(SyntheticCohort):
    """Simulated records, their first leads spoilt."""

    def signal(self, record_id: str) -> Signal:
        """Give the samples of a record with the stretches planted."""
        signal = super().signal(record_id)
        values = signal.values.copy()
        for reason, value in (("not a number", np.nan), ("flat", 0.1), ("saturated", 5.0)):
            start, stop = (round(second * signal.fs) for second in STRETCHES[reason])
            values[0, start:stop] = value
        return Signal(values, signal.fs, signal.leads, signal.unit)


COHORTS: dict[str, Callable[[Path], Cohort]] = {
    "wfdb-folder": lambda folder: FolderCohort(_own_folder(folder)),
    "ecgid": partial(_tree, wfdb_trees.ecgid_tree, EcgidCohort, 500.0, -32768),
    "ludb": partial(_tree, wfdb_trees.ludb_tree, LudbCohort, 500.0, -32768),
    "mitdb": partial(_tree, wfdb_trees.mitdb_tree, MitdbCohort, 360.0, -2048),
    "motion": partial(_tree, wfdb_trees.motion_tree, MotionCohort, 496.0, -32768),
    "nsrdb": partial(_tree, wfdb_trees.nsrdb_tree, NsrdbCohort, 128.0, -2048),
    "ptb": partial(_tree, wfdb_trees.ptb_tree, PtbCohort, 1000.0, -32768),
    "ptbxl": partial(_tree, wfdb_trees.ptbxl_tree, PtbxlCohort, 100.0, -32768),
    "synthetic": lambda _: PlantedSynthetic(n_subjects=2, n_sessions=1, n_records=2, seconds=SECONDS, seed=3),
}
"""Makes a small cohort of each type in a folder."""
