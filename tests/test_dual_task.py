"""The dual-task stage on a small synthetic cohort with planted damage: what is missing is reported, nothing stops."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from ecgstudy import training
from ecgstudy.cohorts.base import Cohort, Signal
from ecgstudy.cohorts.synthetic import SyntheticCohort
from ecgstudy.dual_task import coverage_table, open_recordings, run_pairs, run_protocol, window_problems
from ecgstudy.dual_task.experiments import DT4ECG, Budget, Reading, train
from ecgstudy.dual_task.recordings import Recordings, merge_touching
from ecgstudy.errors import StudyError
from ecgstudy.splits.blocked import BlockedTime, LeaveSubjectOut
from ecgstudy.splits.protocols import CrossActivity, CrossElectrode

READING = Reading(4.0, True)
BUDGET = Budget(1, (0,), (READING,), (), (), folds=2)


class Damaged(SyntheticCohort):
    """Four synthetic persons; one record is flat throughout, one saturated, one is not there, one has a flat strip."""

    def records(self) -> pd.DataFrame:
        """Leave one record out."""
        table = super().records()
        return table[~table["record_id"].str.startswith("S003_1_squats")].reset_index(drop=True)

    def signal(self, record_id: str) -> Signal:
        """Damage what the record's name says."""
        signal = super().signal(record_id)
        values = signal.values.copy()
        if record_id.startswith("S001_1_squats"):
            values[:] = 0.3
        if record_id.startswith("S002_1_squats"):
            values = np.clip(20 * values, -0.5, 0.5)
        if record_id.startswith("S004_1_rest"):
            values[:, : values.shape[1] // 3] = values[:, :1]
        return replace(signal, values=values)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Recordings:
    """Ingest the damaged cohort."""
    patch = pytest.MonkeyPatch()
    patch.setenv("ECGSTUDY_CACHE", str(tmp_path_factory.mktemp("cache")))
    cohort = Damaged(n_subjects=4, n_sessions=1, n_records=1, seconds=24, fs=100.0, activities=["rest", "squats"])
    opened = open_recordings(cohort, "demo", 100.0)
    patch.undo()
    return opened


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the other cores to the other tests."""
    monkeypatch.setattr(training, "THREADS", 1)
    torch.set_num_threads(1)


def test_what_is_missing_is_listed_with_its_reason(recordings: Recordings) -> None:
    table = coverage_table(recordings).set_index("who")
    assert table.loc["S001", "missing"] == "squats"
    assert "S001_1_squats_1 (flat)" in table.loc["S001", "left_out"]
    assert "S002_1_squats_1 (saturated)" in table.loc["S002", "left_out"]
    assert (table.loc["S003", "missing"], table.loc["S003", "left_out"]) == ("squats", "")
    assert table.loc["S004", "missing"] == ""


def test_windows_over_the_flat_strip_are_left_out_and_counted(recordings: Recordings) -> None:
    problems = window_problems(recordings, 4.0).set_index("reason")
    # the strip ends at 8 s; a window of 4 s that starts at 0..4 s lies in it, later ones hold a second or more of it
    assert 5 <= problems.loc["flat", "windows"] <= 8
    assert problems.loc["flat", "persons"] == 1
    index = recordings.index(4.0)
    late = index[(index["record_id"] == "S004_1_rest_1") & (index["start"] >= 800)]
    assert late["problem"].isna().all()


def test_windows_lie_inside_their_segments_on_the_stride(recordings: Recordings) -> None:
    segments = pd.DataFrame({"record_id": ["S003_1_rest_1"], "start": [430], "stop": [1730]})
    windows = recordings.windows(segments, 4.0, 2.0)
    assert list(windows["start"]) == [500, 700, 900, 1100, 1300]
    assert set(windows["activity"]) == {"rest"}


def test_amplitude_channel_is_the_logarithm_of_the_spread(recordings: Recordings) -> None:
    index = recordings.windows(BlockedTime().splits(recordings.records, 100.0, 0)[0].probe, 4.0, 1.0).iloc[:3]
    samples = recordings.window_set(index, READING).samples
    values = recordings.store.gather(index, [recordings.lead])
    np.testing.assert_allclose(samples[:, 0].mean(axis=-1), 0, atol=1e-5)
    np.testing.assert_allclose(samples[:, 0].std(axis=-1), 1, rtol=1e-4)
    np.testing.assert_allclose(samples[:, 1, 17] + 1.5, np.log10(values[:, 0].std(axis=-1) + 1e-3), rtol=1e-4)


def test_protocols_go_on_with_what_is_there(recordings: Recordings, tmp_path: Path) -> None:
    blocked = run_protocol(recordings, BlockedTime(), DT4ECG, READING, BUDGET, tmp_path, "cpu")
    assert blocked.skipped is None
    # 24 s: the last 30 % are 7.2 s, which hold 4 windows of 4 s on whole seconds from 17 s on
    assert len(blocked.windows) == 4 * len(recordings.records)
    unseen = run_protocol(recordings, LeaveSubjectOut(2), DT4ECG, READING, BUDGET, tmp_path, "cpu")
    assert unseen.windows["person_said"].isna().all()
    assert set(unseen.windows["subject_id"]) == {"S001", "S002", "S003", "S004"}


def test_a_cohort_without_electrodes_is_reported(recordings: Recordings, tmp_path: Path) -> None:
    answers = run_protocol(recordings, CrossElectrode(), DT4ECG, READING, BUDGET, tmp_path, "cpu")
    assert answers.skipped == "the cohort states no electrode"


def test_a_cohort_with_one_activity_is_reported(recordings: Recordings, tmp_path: Path) -> None:
    at_rest = replace(recordings, records=recordings.records[recordings.records["activity"] == "rest"])
    answers = run_protocol(at_rest, CrossActivity(), DT4ECG, READING, BUDGET, tmp_path, "cpu")
    assert answers.skipped == "no usable window is left to test on"


def test_people_without_the_known_activity_are_left_out_of_the_pairs(recordings: Recordings, tmp_path: Path) -> None:
    pairs = run_pairs(recordings, READING, BUDGET, tmp_path, "cpu")
    assert set(pairs["rest"].windows["subject_id"]) == {"S001", "S002", "S003", "S004"}
    # only S004 has squats: one person is no choice, and nothing can be learnt
    assert pairs["squats"].skipped is not None
    assert "nothing to learn" in pairs["squats"].skipped


def test_one_person_at_rest_is_nothing_to_learn(recordings: Recordings, tmp_path: Path) -> None:
    alone = recordings.records[recordings.records["record_id"] == "S003_1_rest_1"]
    segments = alone.assign(start=0, stop=2400)
    with pytest.raises(StudyError, match="one person and one activity"):
        train(recordings, segments, DT4ECG, READING, 0, 1, tmp_path, "cpu")


def test_touching_segments_are_joined_and_others_kept_apart() -> None:
    rows = [("a", 0, 100), ("a", 100, 200), ("a", 300, 400), ("b", 400, 500)]
    joined = merge_touching(pd.DataFrame(rows, columns=["record_id", "start", "stop"]))
    assert joined.to_numpy().tolist() == [["a", 0, 200], ["a", 300, 400], ["b", 400, 500]]


def test_windows_across_a_gap_are_left_out(recordings: Recordings) -> None:
    gaps = [((1000, 0.4),) if name == "S003_1_rest_1" else () for name in recordings.records["record_id"]]
    table = recordings.records.assign(gaps=gaps, n_gaps=[len(g) for g in gaps])
    index = replace(recordings, records=table).index(4.0)
    across = index[index["problem"] == "gap in time"]
    assert set(across["record_id"]) == {"S003_1_rest_1"}
    # after sample 1000 of a record at 100 Hz: windows of 4 s that start at 7, 8, 9 or 10 s hold it
    assert list(across["start"]) == [700, 800, 900, 1000]


def test_worst_degree_of_the_marked_stretches_that_a_window_touches(recordings: Recordings) -> None:
    marked = pd.DataFrame({"start": [0.0, 2.0, 4.0], "end": [2.0, 4.0, 6.0], "degree": [1, 3, 2]})
    named = replace(recordings, degrees={"S003_1_rest_1": marked})
    index = pd.DataFrame({"record_id": ["S003_1_rest_1"] * 3 + ["S004_1_rest_1"], "start": [0, 350, 400, 0]})
    index["n_samples"] = [200, 200, 200, 200]
    worst = named.worst_degree(index)
    np.testing.assert_array_equal(worst, [1, 3, 2, math.nan])


@pytest.mark.realdata
def test_motion_cohort_has_what_the_protocols_need(realdata: Callable[[str], Cohort]) -> None:
    cohort = realdata("motion")
    table = cohort.records()
    assert (table["subject_id"].nunique(), table["activity"].nunique(), table["electrode"].nunique()) == (10, 5, 3)
    degrees = cohort.artefacts(table["record_id"].iloc[0])
    assert degrees["degree"].min() >= 1
