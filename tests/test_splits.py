"""Leakage is refused by person and by waveform, within a cohort and across cohorts."""

import pandas as pd
import pytest

from ecgstudy.evaluate.disjoint import LeakageError, assert_disjoint, duplicated_waveforms, with_cohort


def _records(*rows: tuple[str, str, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["record_id", "subject_id", "sha256"])


TRAIN = _records(("r1", "anna", "a1"), ("r2", "ben", "b1"))


def test_disjoint_parts_pass() -> None:
    assert_disjoint({"train": TRAIN, "test": _records(("r3", "cleo", "c1"))})


def test_a_shared_person_is_refused() -> None:
    with pytest.raises(LeakageError, match=r"train and test share 1 value\(s\) of subject_id, ben for one"):
        assert_disjoint({"train": TRAIN, "test": _records(("r9", "ben", "b9"))})


def test_a_shared_waveform_under_another_name_is_refused() -> None:
    with pytest.raises(LeakageError, match="of sha256, a1 for one"):
        assert_disjoint({"train": TRAIN, "val": _records(("x", "xeno", "x1")), "test": _records(("y", "yves", "a1"))})


def test_equal_names_in_two_cohorts_are_two_persons_but_equal_waveforms_are_not() -> None:
    other = _records(("r1", "anna", "z1"))
    assert_disjoint({"ecgid": with_cohort("ecgid", TRAIN), "motion": with_cohort("motion", other)})
    with pytest.raises(LeakageError, match="sha256"):
        assert_disjoint({"ecgid": with_cohort("ecgid", TRAIN), "motion": with_cohort("motion", TRAIN)})


def test_unknown_waveforms_are_not_equal_to_each_other() -> None:
    unknown = _records(("r3", "cleo", None))
    assert_disjoint({"train": _records(("r1", "anna", None)), "test": unknown})


def test_a_waveform_under_two_persons_is_found_and_one_under_one_person_is_not() -> None:
    records = _records(("r1", "anna", "same"), ("r2", "anna", "twice"), ("r3", "anna", "twice"), ("r4", "ben", "same"))
    assert duplicated_waveforms(records)["record_id"].tolist() == ["r1", "r4"]
    assert duplicated_waveforms(TRAIN).empty
