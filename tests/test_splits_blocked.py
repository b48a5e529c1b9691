"""Protocols of the dual task: where they cut, and that nothing leaks."""

import numpy as np
import pandas as pd
import pytest

from ecgstudy.errors import StudyError
from ecgstudy.evaluate.blocked import ActivityPairs, BlockedTime, LeaveSubjectOut, activities_of

FS = 100.0


def records(persons: int = 6, activities: tuple[str, ...] = ("rest", "walk", "run")) -> pd.DataFrame:
    """Build a record table of one minute a person and activity."""
    names = [(f"p{i}", activity) for i in range(persons) for activity in activities]
    table = pd.DataFrame(names, columns=["subject_id", "activity"])
    table["record_id"] = table["subject_id"] + "_" + table["activity"]
    return table.assign(session=1, sha256=table["record_id"], store_samples=6000)


def test_blocked_time_cuts_at_60_and_70_percent() -> None:
    (split,) = BlockedTime().splits(records(), FS, 0)
    # the last quarter of the known part chooses, a second of guard before it
    expected = {"enrolment": (0, 3600), "probe": (4200, 6000), "train": (0, 2600), "validation": (2700, 3600)}
    for name, (start, stop) in expected.items():
        part = getattr(split, name)
        assert len(part) == 18
        np.testing.assert_allclose(part["start"], start, atol=1)
        np.testing.assert_allclose(part["stop"], stop, atol=1)


def test_activity_pairs_know_one_activity_and_hear_all() -> None:
    table = records()
    splits = ActivityPairs().splits(table, FS, 0)
    assert activities_of(table) == ["rest", "run", "walk"]
    for activity, split in zip(activities_of(table), splits, strict=True):
        assert set(split.enrolment["record_id"]) == {f"p{i}_{activity}" for i in range(6)}
        assert len(split.probe) == 18


def test_a_person_without_the_known_activity_is_not_asked_for() -> None:
    table = records()
    table = table[table["record_id"] != "p2_rest"]
    at_rest = ActivityPairs().splits(table, FS, 0)[0]
    assert "p2" not in set(at_rest.probe["subject_id"])
    assert len(at_rest.probe) == 15


def test_everybody_is_left_out_once_and_never_known() -> None:
    splits = LeaveSubjectOut(folds=3).splits(records(), FS, 0)
    probed = np.concatenate([split.probe["subject_id"].unique() for split in splits])
    assert sorted(probed) == [f"p{i}" for i in range(6)]
    for split in splits:
        on_trial = set(split.probe["subject_id"])
        assert not on_trial & (set(split.train["subject_id"]) | set(split.validation["subject_id"]))
        assert len(set(split.train["subject_id"]) | set(split.validation["subject_id"])) == 4
        assert split.enrolment.empty


def test_too_few_persons_are_named() -> None:
    with pytest.raises(StudyError, match="2 persons are too few to leave people out in 3 folds"):
        LeaveSubjectOut(folds=3).splits(records(persons=2), FS, 0)
