"""Motion: person, activity, electrode, measured rate, gaps and artefact degrees."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from wfdb_trees import digital, motion_tree

from ecgstudy.data.base import Cohort
from ecgstudy.data.motion import MotionCohort
from ecgstudy.errors import StudyError


@pytest.fixture
def cohort(tmp_path: Path) -> MotionCohort:
    """Write a small motion cohort and open it."""
    return MotionCohort(motion_tree(tmp_path))


def test_labels_and_the_measured_rate_come_from_the_header(cohort: MotionCohort) -> None:
    first, second = (row for _, row in cohort.records().iterrows())
    assert (first.subject_id, first.activity, first.electrode, first.fs) == ("s01", "rest", "AgAgCl", 497.449)
    assert (second.subject_id, second.activity, second.electrode, second.fs) == ("s10", "squats", "textile", 495.982)
    assert (first.n_gaps, first.gaps) == (0, ())
    assert (second.n_gaps, second.gaps) == (1, ((320, 9.222),))
    assert (first.session, first.sex, first.unit) == (1, None, "adc")
    assert np.isnan(first.age)


def test_counts_are_not_called_mv(cohort: MotionCohort) -> None:
    signal = cohort.signal("s10_e03_squats")
    assert (signal.unit, signal.leads, signal.fs) == ("adc", ("ECG",), 495.982)
    np.testing.assert_array_equal(signal.values, digital(1, 3000, 1).astype(np.float32))


def test_artefact_degrees_are_read_by_segment(cohort: MotionCohort) -> None:
    expected = {"start": [0, 1000, 2000], "end": [1000, 2000, 3000], "degree": [1, 2, 4]}
    pd.testing.assert_frame_equal(cohort.artefacts("s01_e01_rest"), pd.DataFrame(expected))


def test_a_malformed_label_file_is_named(cohort: MotionCohort) -> None:
    path = cohort.root / "s01_e01_rest.labels.csv"
    path.write_text("start,end,artifact\n0,1000,much\n")
    with pytest.raises(StudyError, match="column artifact that is no number"):
        cohort.artefacts("s01_e01_rest")
    path.unlink()
    with pytest.raises(StudyError, match=r"labels\.csv is missing"):
        cohort.artefacts("s01_e01_rest")


@pytest.mark.parametrize("old", ["activity rest", "gaps_after_sample_s []"])
def test_a_header_without_its_facts_fails_alone(cohort: MotionCohort, old: str) -> None:
    path = cohort.root / "s01_e01_rest.hea"
    path.write_text(path.read_text().replace(old, old.replace(" ", "-")))
    again = MotionCohort(cohort.root)
    assert again.failures()["record_id"].tolist() == ["s01_e01_rest"]
    assert again.records()["record_id"].tolist() == ["s10_e03_squats"]


@pytest.mark.realdata
def test_real_records(realdata: Callable[[str], Cohort]) -> None:
    cohort = realdata("motion")
    table = cohort.records().set_index("record_id")
    counts = (len(table), *(table[column].nunique() for column in ("subject_id", "activity", "electrode")))
    assert counts == (150, 10, 5, 3)
    assert table["gaps"][table["n_gaps"] > 0].to_dict() == {
        "s05_e02_run_8kmh": ((25216, 0.056),),
        "s06_e01_walk_4kmh": ((706, 22.517),),
        "s10_e01_rest": ((320, 9.222),),
        "s10_e03_squats": ((30384, 5.92),),
    }
    assert table["fs"].between(495.9, 499.3).all()
    index = pd.read_csv(cohort.root / "index.csv", index_col="record").loc[table.index]
    for ours, theirs in (("fs", "fs"), ("n_samples", "n"), ("activity", "activity"), ("electrode", "electrode")):
        assert (table[ours] == index[theirs]).all()
    means = [cohort.artefacts(record)["degree"].mean() for record in table.index]
    np.testing.assert_allclose(means, index["art_mean"], rtol=1e-12)
