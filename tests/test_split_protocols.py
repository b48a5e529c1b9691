"""Protocols split as their names say, and refuse to exist where they leak."""

import numpy as np
import pandas as pd
import pytest

from ecgstudy.errors import StudyError
from ecgstudy.evaluate.disjoint import LeakageError
from ecgstudy.evaluate.protocols import (
    CrossActivity,
    CrossDay,
    CrossElectrode,
    CrossRecord,
    LeaveLastDay,
    RandomWindows,
    TimeSeparated,
)
from ecgstudy.evaluate.splits import Protocol, Split, segments
from ecgstudy.evaluate.unseen import CrossCohort, SubjectDisjoint

FS = 100.0


def _records(rows: list[tuple[str, str, int]], seconds: float = 20.0, **labels: list[str]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["record_id", "subject_id", "session"])
    table["sha256"] = table["record_id"] + "-hash"
    table["store_samples"] = round(seconds * FS)
    return table.assign(**labels)


DAYS = _records(
    [("a1", "a", 1), ("a2", "a", 1), ("a3", "a", 2), ("a4", "a", 3), ("b1", "b", 1), ("b2", "b", 1), ("c1", "c", 1)]
)
MANY = _records([(f"p{n}r{k}", f"p{n}", k) for n in range(12) for k in (1, 2)])
MOTION = _records(
    [(f"{p}{a}{e}", p, 1) for p in "ab" for a in ("rest", "run") for e in ("x", "y", "z")],
    activity=[a for _ in "ab" for a in ("rest", "run") for _ in "xyz"],
    electrode=[e for _ in "ab" for _ in range(2) for e in "xyz"],
)


def _only(protocol: Protocol, records: pd.DataFrame) -> Split:
    made = protocol.splits(records, FS, seed=0)
    assert len(made) == 1
    return made[0]


def _names(part: pd.DataFrame) -> list[str]:
    return sorted(part["record_id"])


def test_cross_record_enrols_first_and_probes_second_records() -> None:
    split = _only(CrossRecord(), DAYS)
    assert _names(split.enrolment) == ["a1", "b1", "c1"]
    assert _names(split.probe) == ["a2", "b2"]
    assert split.dropped == {"nothing to probe with": 1}
    assert split.persons == 2


def test_cross_day_enrols_first_days_and_probes_all_later_days_against_everybody() -> None:
    split = _only(CrossDay(), DAYS)
    assert _names(split.enrolment) == ["a1", "a2", "b1", "b2", "c1"]
    assert _names(split.probe) == ["a3", "a4"]


def test_leave_last_day_enrols_all_earlier_days_and_trains_on_first_days() -> None:
    split = _only(LeaveLastDay(), DAYS)
    assert _names(split.enrolment) == ["a1", "a2", "a3", "b1", "b2", "c1"]
    assert _names(split.probe) == ["a4"]
    assert _names(split.train) == _names(_only(CrossDay(), DAYS).train)


def test_closed_set_validation_is_the_last_part_of_each_enrolment_record_behind_a_guard() -> None:
    split = _only(CrossRecord(), DAYS)
    train, validation = split.train.set_index("record_id"), split.validation.set_index("record_id")
    # of 20 s the last 4 s are kept, and 1 s before them belongs to neither
    assert (train.loc["a1", "start"], train.loc["a1", "stop"]) == (0, 1500)
    assert (validation.loc["a1", "start"], validation.loc["a1", "stop"]) == (1600, 2000)


def test_time_separated_takes_the_stated_minutes_of_one_recording() -> None:
    split = _only(TimeSeparated(), _records([("m", "m", 1), ("n", "n", 1)], seconds=1805))
    spans = split.enrolment[split.enrolment["record_id"] == "m"][["start", "stop"]].to_numpy().tolist()
    assert spans == [[0, 30000], [75000, 105000]]
    assert split.probe[["start", "stop"]].to_numpy().tolist() == [[150000, 179900]] * 2


def test_random_windows_never_share_a_sample_and_probe_about_a_fifth() -> None:
    records = _records([(f"r{n}", f"p{n % 20}", 1) for n in range(200)], seconds=52)
    split = _only(RandomWindows(5.0), records)
    starts = pd.concat([split.enrolment, split.probe])[["record_id", "start"]]
    assert len(starts) == len(starts.drop_duplicates()) == 2000
    assert 0.17 < len(split.probe) / 2000 < 0.23
    assert len(split.train) + len(split.validation) == len(split.enrolment)
    assert _only(RandomWindows(5.0), records).digest() == split.digest()
    assert RandomWindows(5.0).splits(records, FS, seed=1)[0].digest() != split.digest()


def test_long_records_give_a_limited_number_of_random_windows() -> None:
    split = _only(RandomWindows(5.0, most=7), _records([("m", "m", 1), ("n", "n", 1)], seconds=600))
    assert len(split.enrolment) + len(split.probe) == 14


def test_cross_activity_enrols_rest_and_cross_electrode_leaves_each_kind_out_once() -> None:
    split = _only(CrossActivity(), MOTION)
    assert {name[1:5] for name in _names(split.enrolment)} == {"rest"}
    assert {name[1:4] for name in _names(split.probe)} == {"run"}
    folds = CrossElectrode().splits(MOTION, FS, seed=0)
    assert [{name[-1] for name in _names(fold.probe)} for fold in folds] == [{"x"}, {"y"}, {"z"}]
    assert all(not set(_names(fold.probe)) & set(_names(fold.enrolment)) for fold in folds)


def test_subject_disjoint_folds_put_everybody_on_trial_once_and_never_train_on_them() -> None:
    folds = SubjectDisjoint(CrossRecord(), folds=3).splits(MANY, FS, seed=0)
    assert sorted(person for fold in folds for person in fold.probe["subject_id"]) == sorted(
        MANY["subject_id"].unique()
    )
    for fold in folds:
        known = set(fold.train["subject_id"]) | set(fold.validation["subject_id"])
        assert not known & set(fold.enrolment["subject_id"])
        assert not set(fold.train["subject_id"]) & set(fold.validation["subject_id"])
        assert fold.protocol == "subject_disjoint_cross_record"


def test_subject_disjoint_needs_enough_persons() -> None:
    with pytest.raises(StudyError, match="3 persons are too few for 3 folds"):
        SubjectDisjoint(CrossRecord()).splits(DAYS, FS, seed=0)


def test_cross_cohort_trains_on_the_others_only() -> None:
    others = _records([(f"o/r{n}", f"o/p{n}", 1) for n in range(10)])
    split = _only(CrossCohort(others, CrossRecord()), DAYS)
    assert len(split.train) == 8
    assert len(split.validation) == 2
    assert _names(split.probe) == ["a2", "b2"]
    with pytest.raises(LeakageError, match="train and probe share 2 value"):
        CrossCohort(DAYS.assign(record_id="x" + DAYS["record_id"]), CrossRecord()).splits(DAYS, FS, seed=0)


def _split(**parts: pd.DataFrame) -> Split:
    whole = segments(DAYS)
    chosen = {
        name: whole[whole["record_id"] == record]
        for name, record in zip(("train", "validation", "enrolment", "probe"), ("a1", "b1", "a1", "a2"), strict=True)
    }
    return Split("trial", **(chosen | parts))


def test_a_split_cannot_exist_where_probe_and_training_share_samples_or_records() -> None:
    whole = segments(DAYS)
    a2 = whole[whole["record_id"] == "a2"]
    assert _split().persons == 1
    with pytest.raises(LeakageError, match=r"train and probe share samples of 1 record\(s\), a2 for one"):
        _split(train=a2)
    first, second = a2.assign(stop=1000), a2.assign(start=1000)
    with pytest.raises(LeakageError, match="enrolment and probe share 1 value"):
        _split(enrolment=first, probe=second)
    # cutting within a record must be declared
    assert _split(enrolment=first, probe=second, within_record=True).persons == 1


def test_a_split_cannot_exist_where_an_unseen_person_was_trained_on_or_a_waveform_returns() -> None:
    with pytest.raises(LeakageError, match=r"train and enrolment and probe share 1 value.* of subject_id"):
        _split(unseen_persons=True)
    whole = segments(DAYS)
    copy = whole[whole["record_id"] == "b2"].assign(sha256="a2-hash")
    with pytest.raises(LeakageError, match="of sha256"):
        _split(train=copy)


def test_manifest_and_digest_name_every_segment() -> None:
    split = _only(CrossRecord(), DAYS)
    manifest = split.manifest()
    assert manifest["part"].value_counts().to_dict() == {"train": 3, "validation": 3, "enrolment": 3, "probe": 2}
    moved = Split("cross_record", split.train, split.validation, split.enrolment, split.probe.assign(stop=1999))
    assert moved.digest() != split.digest()
    assert np.unique([len(split.digest()), len(moved.digest())]).tolist() == [64]
