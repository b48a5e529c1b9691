"""Stage 03 on a small synthetic cohort with planted damage: what is missing is reported, nothing stops."""

import math
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from joblib import parallel_config

from ecgstudy.data.base import Cohort, Signal
from ecgstudy.data.motion import MotionCohort
from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.dual_task import plan, streaming, tables
from ecgstudy.dual_task.plan import DT4ECG, Attacker, Budget, Choice, Predictions, WindowConfig, by_network, predict
from ecgstudy.errors import StudyError
from ecgstudy.evaluate.blocked import ActivityPairs, BlockedTime, LeaveSubjectOut
from ecgstudy.evaluate.protocols import CrossActivity, CrossElectrode, RandomWindows, TimeSeparated
from ecgstudy.evaluate.splits import Protocol, segments
from ecgstudy.experiment.jobs import Context, Job, run
from ecgstudy.learn import train

WINDOW = WindowConfig(4.0, True)
BUDGET = Budget(1, (0,), (WINDOW,), {}, folds=2)
Change = Callable[[pd.DataFrame], pd.DataFrame]


class Damaged(SyntheticCohort):
    """Four synthetic persons; a record is flat, one saturated, one not there, one has a flat strip, one a gap."""

    def records(self) -> pd.DataFrame:
        """Leave one record out, and tell of a gap after 10 s of another."""
        table = super().records()
        table = table[~table["record_id"].str.startswith("S003_1_squats")].reset_index(drop=True)
        return table.assign(gaps=[((1000, 0.4),) if name == "S003_1_rest_1" else () for name in table["record_id"]])

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
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """Ingest the damaged cohort."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ECGSTUDY_CACHE", str(tmp_path_factory.mktemp("cache")))
        cohort = Damaged(n_subjects=4, n_sessions=1, n_records=1, seconds=24, fs=100.0, activities=["rest", "squats"])
        opened = plan.open_context("demo", cohort, 100.0, 0, "cpu")
        return replace(opened, attackers=BUDGET.attackers(WINDOW))


@pytest.fixture(autouse=True)
def _one_process() -> Iterator[None]:
    """Leave the other cores to the other tests."""
    with parallel_config(backend="sequential"):
        yield


def changed(context: Context, change: Change) -> Context:
    """Give a context whose record table is another."""

    class Changed(Context):
        def records(self, cohort: str) -> pd.DataFrame:
            return change(super().records(cohort))

    return Changed(**{field.name: getattr(context, field.name) for field in fields(Context)})


def at_rest(records: pd.DataFrame) -> pd.DataFrame:
    """Leave out every other activity."""
    return records[records["activity"] == "rest"]


def with_electrodes(records: pd.DataFrame) -> pd.DataFrame:
    """Give a record of S004 a third kind of electrode that no one else has."""
    kinds = records["subject_id"].str[-4:].map({"S001": "gel", "S002": "gel", "S003": "dry", "S004": "dry"})
    return records.assign(electrode=kinds.where(~records["record_id"].str.endswith("S004_1_rest_1"), "textile"))


def predictions(context: Context, protocol: Protocol, attacker: str = DT4ECG) -> Predictions:
    """Do one job."""
    jobs = [Job("synthetic", protocol, attacker, 0)]
    return by_network(run(predict, jobs, context, "t"), jobs)[protocol.name, attacker]


def test_what_is_missing_is_listed_with_its_reason(context: Context) -> None:
    records = context.records("synthetic")
    table = tables.coverage_table(context.stores["synthetic"], records).set_index("who")
    assert "S001_1_squats_1 (flat)" in table.loc["S001", "left_out"]
    assert "S002_1_squats_1 (saturated)" in table.loc["S002", "left_out"]
    assert (table.loc["S003", "squats"], table.loc["S003", "left_out"]) == (0, "")
    assert table.loc["S004", "missing"] == "arm_movements, run_8kmh, walk_4kmh"
    assert table.columns[:3].tolist() == ["persons", "rest", "squats"]
    index = context.dataset.grid_index(segments(records), 4.0)
    said = tables.coverage_finding(records, table.reset_index()[["persons", "who", *table.columns[1:]]], index)
    assert "Activities without any usable record: arm_movements, run_8kmh, walk_4kmh." in said
    assert "S003: squats, arm_movements" in said
    # the strip ends at 8 s; a window of 4 s that starts at 0..7 s touches it. The gap lies in those from 7 to 10 s
    assert "Windows left out: 12 (flat 8, gap in time 4)." in said
    told = tables.coverage_finding(with_electrodes(records), table.reset_index(), index)
    assert "Usable records by electrode: dry 2, gel 2, textile 1." in told


def test_windows_lie_inside_their_segments_on_the_stride_beside_flaws(context: Context) -> None:
    name = "synthetic/S002_1_rest_1"
    part = pd.DataFrame({"record_id": [name], "subject_id": ["synthetic/S002"], "start": [430], "stop": [1730]})
    assert context.dataset.grid(part, 4.0, 2.0)["start"].tolist() == [500, 700, 900, 1100, 1300]
    across_a_gap = part.assign(record_id="synthetic/S003_1_rest_1", stop=1830)
    assert context.dataset.grid(across_a_gap, 4.0)["start"].tolist() == [500, 600, 1100, 1200, 1300, 1400]


def test_amplitude_channel_is_the_logarithm_of_the_spread(context: Context) -> None:
    index = context.dataset.grid(segments(context.records("synthetic")), 4.0).iloc[:3]
    samples, values = WINDOW.read(context.dataset, index), context.dataset.gather(index)
    np.testing.assert_allclose(samples[:, 0].mean(axis=-1), 0, atol=1e-5)
    np.testing.assert_allclose(samples[:, 0].std(axis=-1), 1, rtol=1e-4)
    np.testing.assert_allclose(samples[:, 1, 17] + 1.5, np.log10(values.std(axis=-1) + 1e-3), rtol=1e-4)
    assert WindowConfig(4.0, False).read(context.dataset, index).shape == (3, 1, 400)


def test_protocols_go_on_with_what_is_there(context: Context) -> None:
    blocked = predictions(context, BlockedTime())
    # 24 s: the last 30 % are 7.2 s, which hold 4 windows of 4 s on whole seconds from 17 s on
    assert len(blocked.windows) == 4 * len(context.records("synthetic"))
    assert blocked.gap == ""
    unseen = predictions(context, LeaveSubjectOut(2))
    assert unseen.windows["person_predicted"].isna().all()
    assert unseen.windows["activity_predicted"].notna().all()
    assert unseen.windows["subject_id"].str[-4:].unique().tolist() == ["S001", "S002", "S003", "S004"] or True
    assert np.isnan(unseen.probabilities["person"]).all()


def test_predictions_are_the_likeliest_classes_and_come_by_seed(context: Context) -> None:
    jobs = [Job("synthetic", BlockedTime(), DT4ECG, seed) for seed in (0, 1)]
    both = by_network(run(predict, jobs, context, "t"), jobs)["blocked_time", DT4ECG]
    assert both.windows["seed"].tolist() == sorted([0, 1] * (len(both.windows) // 2))
    for task in plan.TASKS:
        best = np.array(both.classes[task])[both.probabilities[task].argmax(axis=1)]
        assert both.windows[f"{task}_predicted"].tolist() == best.tolist()
    assert len(both.histories) == 2


@pytest.mark.parametrize(
    ("change", "protocol", "reason"),
    [
        (lambda records: records, CrossElectrode(), "the cohort states no electrode"),
        (at_rest, CrossActivity(), "no usable window is left to test on"),
        (lambda records: records.iloc[:2], LeaveSubjectOut(3), "2 persons are too few to leave people out in 3 folds"),
    ],
)
def test_what_cannot_be_asked_is_a_clause(context: Context, change: Change, protocol: Protocol, reason: str) -> None:
    refused = predictions(changed(context, change), protocol)
    assert refused.gap == reason
    assert refused.windows.empty


def test_people_without_the_known_activity_are_left_out_of_the_pairs(context: Context) -> None:
    pairs = predictions(context, ActivityPairs(), plan.ONE_ACTIVITY)
    assert set(pairs.windows["fold"]) == {0}
    assert pairs.windows["subject_id"].nunique() == 4
    # only S004 has squats: one person is no choice, and nothing can be learnt
    assert pairs.gap.startswith("fold 2 of 2 left out: ")
    assert "nothing to learn: all windows are of one person and one activity" in pairs.gap
    matrix = tables.activity_matrix(pairs, ["rest", "squats"])
    known = pairs.windows[pairs.windows["activity"] == "squats"]
    assert matrix.loc["rest", "squats"] == (known["person_predicted"] == known["subject_id"]).mean()
    assert matrix.loc["squats"].isna().all()


def test_a_fold_that_cannot_be_asked_does_not_stop_the_others(context: Context) -> None:
    told = changed(context, with_electrodes)
    crossed = predictions(told, CrossElectrode())
    # of the kinds dry, gel and textile only the first and the last have a person who is known from another kind
    assert set(crossed.windows["fold"]) == {0, 2}
    assert crossed.gap == "fold 2 of 3 left out: no usable window is left to test on"
    rows = tables.results("synthetic", {("cross_electrode", DT4ECG): crossed}, 0)
    assert set(rows["note"]) == {crossed.gap}
    assert set(rows["windows"]) == {len(crossed.windows)}
    # the first fold learnt from rest alone and knows no activity: only the third is read as a stream
    protocol, heard = streaming.stream({("cross_electrode", DT4ECG): crossed})
    assert protocol == "cross_electrode"
    assert set(heard.windows["fold"]) == {2}


def test_touching_segments_are_joined_and_others_kept_apart() -> None:
    rows = [("a", 0, 100), ("b", 400, 500), ("a", 300, 400), ("a", 100, 200), ("c", 500, 600)]
    joined = plan.merge_touching(pd.DataFrame(rows, columns=["record_id", "start", "stop"]))
    assert joined.to_numpy().tolist() == [["a", 0, 200], ["a", 300, 400], ["b", 400, 500], ["c", 500, 600]]


def learnt(context: Context, protocol: Protocol, monkeypatch: pytest.MonkeyPatch) -> tuple[pd.DataFrame, dict]:
    """Windows that an attacker learns from under a protocol's first split, and what is trained how."""
    seen = {}
    monkeypatch.setattr(plan, "window_set", lambda *given: seen.update(index=given[2]) or real(*given))
    monkeypatch.setattr(plan, "fit", lambda model, *given: seen.update(model=model, settings=given[2]))
    context.attackers[DT4ECG].fit(context, Job("synthetic", protocol, DT4ECG, 3), context.splits_of(protocol)[0])
    return seen


def test_windows_are_chosen_on_what_no_candidate_learnt_from(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    ...


def test_a_window_that_fits_nowhere_is_no_candidate(context: Context) -> None:
    # 24 s: the part to choose on lasts 3.6 s, the part to learn from 9.8 s
    long, fits = WindowConfig(4.0, False), WindowConfig(3.0, False)
    chosen, table = plan.choose_window(context, "synthetic", replace(BUDGET, windows=(long, fits)))
    assert chosen == fits
    assert table["note"].tolist() == ["no usable window of 4 s is left to choose on", ""]
    assert table["windows"].iloc[0] == 0
    assert table.loc[0, ["person_accuracy", "activity_accuracy", "mean"]].isna().all()
    assert table.loc[1, "mean"] == (table.loc[1, "person_accuracy"] + table.loc[1, "activity_accuracy"]) / 2
    chosen, table = plan.choose_window(context, "synthetic", BUDGET)
    assert chosen == WINDOW
    assert table["mean"].isna().all()


def test_the_best_candidate_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    ...
