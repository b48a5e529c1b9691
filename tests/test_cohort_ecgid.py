"""ECG-ID: sessions from dates, the raw channel only, records known by person and name."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from wfdb_trees import digital, ecgid_tree

from ecgstudy.data.base import RECORD_COLUMNS, Cohort
from ecgstudy.data.ecgid import EcgidCohort
from ecgstudy.errors import RecordError


@pytest.fixture
def cohort(tmp_path: Path) -> EcgidCohort:
    """Write a small ECG-ID and open it."""
    return EcgidCohort(ecgid_tree(tmp_path))


def test_a_session_is_a_date_and_no_date_leaves_the_loader(cohort: EcgidCohort) -> None:
    table = cohort.records().set_index("record_id")
    assert table["session"].to_dict() == {
        "Person_01/rec_1": 1,
        "Person_01/rec_2": 1,
        "Person_01/rec_10": 2,
        "Person_02/rec_1": 1,
    }
    assert table["session_day"].tolist() == [0.0, 0.0, 10.0, 0.0]
    assert list(cohort.records().columns) == list(RECORD_COLUMNS)


def test_person_age_sex_and_shape_come_from_the_header(cohort: EcgidCohort) -> None:
    row = cohort.records().set_index("record_id").loc["Person_02/rec_1"]
    assert (row.subject_id, row.age, row.sex, row.fs) == ("Person_02", 31.0, "F", 500.0)
    assert (row.leads, row.n_samples, row.unit) == (("I",), 1000, "mV")


def test_the_raw_channel_is_read(cohort: EcgidCohort) -> None:
    signal = cohort.signal("Person_01/rec_2")
    assert (signal.leads, signal.unit, signal.values.dtype) == (("I",), "mV", np.float32)
    np.testing.assert_array_equal(signal.values, (digital(2, 1000, 1)[:1] / 200).astype(np.float32))


@pytest.mark.parametrize("line", ["", "# ECG date: yesterday", "# ECG date: 2004-12-07"])
def test_a_record_without_a_date_has_no_session_and_is_left_out(cohort: EcgidCohort, line: str) -> None:
    path = cohort.root / "Person_01" / "rec_2.hea"
    path.write_text(path.read_text().replace("# ECG date: 07.12.2004", line).replace("#ECG date: 07.12.2004", line))
    again = EcgidCohort(cohort.root)
    assert len(again.records()) == 3
    assert again.failures().to_dict("records") == [
        {
            "record_id": "Person_01/rec_2",
            "file": "Person_01/rec_2.hea",
            "reason": "states no date that a session could be told by",
            "remedy": "download the record again",
        }
    ]
    with pytest.raises(RecordError, match="states no date"):
        again.signal("Person_01/rec_2")


def test_a_listed_record_without_files_fails_alone(cohort: EcgidCohort) -> None:
    (cohort.root / "Person_02" / "rec_1.hea").unlink()
    again = EcgidCohort(cohort.root)
    assert again.failures()[["record_id", "reason"]].values.tolist() == [["Person_02/rec_1", "is missing"]]
    assert len(again.records()) == 3


def test_without_the_publishers_list_every_header_counts(cohort: EcgidCohort) -> None:
    (cohort.root / "RECORDS").unlink()
    again = EcgidCohort(cohort.root)
    assert set(again.records()["record_id"]) == set(cohort.records()["record_id"])


def test_a_record_listed_twice_counts_once(cohort: EcgidCohort) -> None:
    with (cohort.root / "RECORDS").open("a") as file:
        file.write("Person_01/rec_1\n")
    assert EcgidCohort(cohort.root).records()["record_id"].is_unique


@pytest.mark.realdata
def test_real_records(realdata: Callable[[str], Cohort]) -> None:
    cohort = realdata("ecgid")
    table = cohort.records()
    persons = table.groupby("subject_id")
    assert (len(table), persons.ngroups, len(cohort.failures())) == (310, 90, 0)
    assert persons["sex"].first().value_counts().to_dict() == {"F": 46, "M": 44}
    assert (table["age"].min(), table["age"].max()) == (13, 75)
    assert persons["age"].first().mean() == pytest.approx(28.4, abs=0.05)
    assert (persons["session"].max() > 1).sum() == 20
    assert (table["session"] > 1).sum() == 83
    assert persons.size()["Person_74"] == 1
    last_day = persons["session_day"].max()
    assert last_day[["Person_02", "Person_01", "Person_09"]].tolist() == [156, 140, 42]
    # First samples of the raw channel, by hand from the header (gain 200, initial value -17).
    assert cohort.signal("Person_01/rec_1").values[0, 0] == np.float32(-17 / 200)
