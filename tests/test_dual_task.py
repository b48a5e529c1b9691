"""The dual-task stage on a small synthetic cohort with planted damage: what is missing is reported, nothing stops."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from joblib import parallel_config

from ecgstudy.data.base import Cohort, Signal
from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.dual_task import (
    choose_reading,
    coverage_finding,
    coverage_table,
    monitor,
    open_recordings,
    read_long_records,
    record_monitoring,
    run_all,
    run_pairs,
    run_protocol,
    window_problems,
)
from ecgstudy.dual_task.experiments import DT4ECG, Answers, Budget, Reading, hit_rates, train
from ecgstudy.dual_task.recordings import Recordings, merge_touching
from ecgstudy.dual_task.scores import results_table
from ecgstudy.dual_task.story import AllRuns
from ecgstudy.errors import StudyError
from ecgstudy.evaluate.protocols import BlockedTime, LeaveSubjectOut
from ecgstudy.evaluate.protocols import CrossActivity, CrossElectrode

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
def _one_process() -> Iterator[None]:
    """Leave the other cores to the other tests."""
    with parallel_config(backend="sequential"):
        yield


class SilentStage:
    """Keeps the metrics that are recorded, as a stage does."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}
        self.notes: dict[str, str] = {}

    def metric(self, name: str, value: float, *interval: float, n: int = 0, unit: str = "", note: str = "") -> float:
        """Keep value and note; an undefined value needs a note."""
        assert math.isfinite(value) or note
        self.values[name], self.notes[name] = value, note
        return value


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


def test_an_activity_that_nobody_has_is_named(recordings: Recordings) -> None:
    at_rest = replace(recordings, records=recordings.records[recordings.records["activity"] == "rest"])
    table = coverage_table(at_rest)
    assert table["squats"].tolist() == [0] * len(table)
    said = coverage_finding(at_rest, table, window_problems(at_rest, 4.0))
    assert "Activities without any usable record: squats." in said
    kinds = ["dry", "gel", "gel", "dry", "gel", "gel"][: len(recordings.records)]
    told = replace(recordings, records=recordings.records.assign(electrode=kinds))
    said = coverage_finding(told, coverage_table(told), window_problems(told, 4.0))
    assert f"Usable records by electrode: dry {kinds.count('dry')}, gel {kinds.count('gel')}." in said


def test_a_window_that_fits_nowhere_is_no_candidate(recordings: Recordings, tmp_path: Path) -> None:
    # 24 s: the part to choose on lasts 3.6 s, the part to learn from 9.8 s
    long, fits = Reading(4.0, False), Reading(3.0, False)
    chosen, table = choose_reading(recordings, BlockedTime(), replace(BUDGET, readings=(long, fits)), tmp_path, "cpu")
    assert chosen == fits
    assert table["note"].tolist() == ["no usable window of 4 s is left to choose on", ""]
    assert table["windows"].iloc[0] == 0
    assert table.loc[0, ["person_accuracy", "activity_accuracy", "mean"]].isna().all()
    assert table.loc[1, "mean"] == (table.loc[1, "person_accuracy"] + table.loc[1, "activity_accuracy"]) / 2
    chosen, table = choose_reading(recordings, BlockedTime(), BUDGET, tmp_path, "cpu")
    assert chosen == READING
    assert table["mean"].isna().all()


def test_a_task_that_is_not_answered_has_no_hit_rate() -> None:
    said = pd.DataFrame({"subject_id": ["a", "b"], "activity": ["rest", "rest"], "person_said": ["a", "a"]})
    rates = hit_rates(said.assign(activity_said=None))
    assert rates["person_accuracy"] == 0.5
    assert math.isnan(rates["activity_accuracy"])


def test_a_record_too_short_for_a_window_is_a_sentence(recordings: Recordings, tmp_path: Path) -> None:
    # 60 % of 24 s are known: 14.4 s; the last 7.2 s probe
    answers = run_protocol(recordings, BlockedTime(), DT4ECG, Reading(8.0, True), BUDGET, tmp_path, "cpu")
    assert answers.skipped == "no usable window is left to test on"
    with pytest.raises(StudyError, match="no usable window is left to test on"):
        run_all(recordings, Reading(8.0, True), BUDGET, tmp_path, "cpu")


def with_electrodes(recordings: Recordings) -> Recordings:
    """Give S001 and S004 a third kind of electrode that no one else has, and that nobody else can learn from."""
    kinds = recordings.records["subject_id"].map({"S001": "gel", "S002": "gel", "S003": "dry", "S004": "dry"})
    kinds[recordings.records["record_id"] == "S004_1_rest_1"] = "textile"
    return replace(recordings, records=recordings.records.assign(electrode=kinds))


def test_a_fold_that_cannot_be_asked_does_not_stop_the_others(recordings: Recordings, tmp_path: Path) -> None:
    told = with_electrodes(recordings)
    answers = run_protocol(told, CrossElectrode(), DT4ECG, READING, BUDGET, tmp_path, "cpu")
    # of the kinds dry, gel and textile only the first and the last have a person who is known from another kind
    assert answers.folds == [0, 2]
    assert answers.left_out == "fold 2 of 3 left out: no usable window is left to test on"
    row = results_table({("cross_electrode", "dt4ecg"): answers}, 0).iloc[0]
    assert row["note"] == answers.left_out
    assert row["windows"] == len(answers.windows) > 0


def test_each_stream_is_read_by_the_network_of_its_fold(recordings: Recordings, tmp_path: Path) -> None:
    told = with_electrodes(recordings)
    answers = run_protocol(told, CrossElectrode(), DT4ECG, READING, BUDGET, tmp_path, "cpu")
    made = AllRuns({("cross_electrode", "dt4ecg"): answers}, {})
    monitoring = monitor(told, made, READING, BUDGET)
    assert monitoring.protocol == "cross_electrode"
    streams = {stream.index["subject_id"].iloc[0]: stream for stream in monitoring.streams}
    assert set(streams) == {"S004"}
    # the first fold learnt from rest alone and knows no activity; the third is read by the second network
    heard = answers.windows[answers.windows["record_id"] == "S004_1_rest_1"]
    assert streams["S004"].index["start"].tolist() == heard["start"].tolist()
    said = np.array(told.persons)[streams["S004"].person.argmax(axis=1)]
    assert said.tolist() == heard["person_said"].tolist()


def test_no_stream_is_a_sentence(recordings: Recordings, tmp_path: Path) -> None:
    answers = run_protocol(recordings, BlockedTime(), DT4ECG, READING, BUDGET, tmp_path, "cpu")
    none = Answers(pd.DataFrame(), [], "the cohort states no electrode")
    made = AllRuns({("cross_electrode", "dt4ecg"): none, ("blocked_time", "dt4ecg"): answers}, {})
    stage = SilentStage()
    # no window of 8 s lies in the last 7.2 s
    said = record_monitoring(stage, "x", monitor(recordings, made, Reading(8.0, True), BUDGET))
    assert "No session could be read" in said
    assert math.isnan(stage.values["x.monitoring.switching_0.5.activity_accuracy"])
    # one record a person and activity: S004 changes once, the others never
    said = record_monitoring(SilentStage(), "x", monitor(recordings, made, READING, BUDGET))
    assert "read as a stream by the networks of blocked time" in said.lower()


def test_without_long_records_there_is_a_sentence(recordings: Recordings, tmp_path: Path) -> None:
    said = read_long_records(["motion"], "demo", 100.0, READING, BUDGET, tmp_path, "cpu", None)
    assert said == "No half-hour record was followed: the demo profile has no MIT-BIH records here."


@pytest.mark.realdata
def test_motion_cohort_has_what_the_protocols_need(realdata: Callable[[str], Cohort]) -> None:
    cohort = realdata("motion")
    table = cohort.records()
    assert (table["subject_id"].nunique(), table["activity"].nunique(), table["electrode"].nunique()) == (10, 5, 3)
    degrees = cohort.artefacts(table["record_id"].iloc[0])
    assert degrees["degree"].min() >= 1
