"""MIT-BIH: 47 persons in 48 records, two leads by name, beats and rhythms."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from wfdb_trees import digital, mitdb_tree

from ecgstudy.data.base import Cohort
from ecgstudy.data.mitdb import MitdbCohort
from ecgstudy.errors import RecordError


@pytest.fixture
def cohort(tmp_path: Path) -> MitdbCohort:
    """Write a small MIT-BIH and open it."""
    return MitdbCohort(mitdb_tree(tmp_path))


def test_201_and_202_are_one_person(cohort: MitdbCohort) -> None:
    assert cohort.records()["subject_id"].tolist() == ["102", "201", "201"]


def test_age_sex_and_leads_come_from_the_header(cohort: MitdbCohort) -> None:
    table = cohort.records().set_index("record_id")
    assert table["sex"].tolist() == ["F", "M", "M"]
    np.testing.assert_array_equal(table["age"], [84, 68, np.nan])  # -1 means unknown
    assert table["leads"].tolist() == [("V5", "V2"), ("MLII", "V1"), ("MLII", "V1")]


def test_packed_samples_become_mv(cohort: MitdbCohort) -> None:
    signal = cohort.signal("201")
    assert (signal.fs, signal.unit) == (360.0, "mV")
    np.testing.assert_array_equal(signal.values, ((digital(2, 2000, 201) - 24) / 200).astype(np.float32))


def test_beats_leave_out_marks_that_are_no_beats(cohort: MitdbCohort) -> None:
    beats = cohort.beats("201")
    assert beats.values.tolist() == [[77, "N"], [370, "V"]]
    assert cohort.rhythms("201").values.tolist() == [[18, "N"], [946, "AFIB"]]


def test_labels_come_from_the_annotations(cohort: MitdbCohort) -> None:
    table = cohort.records().set_index("record_id")
    assert table["paced"].tolist() == [True, False, False]
    assert table["rhythm"].tolist() == [("N", "AFIB")] * 3
    assert table["n_beats"].tolist() == [2, 2, 2]


def test_without_annotations_the_signal_stays_and_the_labels_are_unknown(cohort: MitdbCohort) -> None:
    (cohort.root / "201.atr").unlink()
    again = MitdbCohort(cohort.root)
    row = again.records().set_index("record_id").loc["201"]
    assert (row.paced, row.rhythm) == (None, None)
    assert again.signal("201").values.shape == (2, 2000)
    with pytest.raises(RecordError, match=r"201\.atr is missing"):
        again.beats("201")


@pytest.mark.realdata
def test_real_records(realdata: Callable[[str], Cohort]) -> None:
    cohort = realdata("mitdb")
    table = cohort.records().set_index("record_id")
    assert (len(table), table["subject_id"].nunique(), len(cohort.failures())) == (48, 47, 0)
    # "25 men aged 32 to 89 years, and 22 women aged 23 to 89 years" (the publisher's page), 201 and 202 one man.
    persons = table.groupby("subject_id")
    assert persons["sex"].first().value_counts().to_dict() == {"M": 25, "F": 22}
    assert table.groupby("sex")["age"].agg(["min", "max"]).values.tolist() == [[23, 89], [32, 89]]
    assert table.index[table["paced"]].tolist() == ["102", "104", "107", "217"]
    assert table.index[table["leads"].map(lambda leads: "MLII" not in leads)].tolist() == ["102", "104"]
    assert (table["n_samples"] == 650_000).all()
    # 109,494 beats in all, record 100 alone 2,273 (the publisher's tables).
    assert (table["n_beats"].sum(), table["n_beats"]["100"]) == (109_494, 2273)
    assert cohort.signal("100").values[:, 0].tolist() == pytest.approx([-0.145, -0.065], abs=1e-7)
