"""Stage 03 on a small synthetic cohort with planted damage: what is missing is reported, nothing stops."""

import math
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest

from ecgstudy.data.base import Signal
from ecgstudy.data.public import MotionCohort
from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.dual_task import plan, streaming, tables
from ecgstudy.dual_task.plan import DT4ECG, Attacker, Budget, Choice, by_network, predict
from ecgstudy.dual_task.predictions import Predictions
from ecgstudy.dual_task.sessions import session_order, spliced
from ecgstudy.errors import DiskError, StudyError
from ecgstudy.evaluate import protocols
from ecgstudy.evaluate.splits import Protocol, segments
from ecgstudy.experiment.jobs import Context, Job, run
from ecgstudy.learn.base import class_probabilities

OURS = Attacker(seconds=4.0, amplitude=True, epochs=1)
BUDGET = Budget((OURS,), (0,), {}, folds=2)
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
        patch.setattr(plan, "open_cohort", lambda *_: cohort)
        return replace(plan.open_context("demo", "synthetic", 100.0, 0, "cpu"), attackers=BUDGET.attackers(OURS))


def changed(context: Context, change: Change) -> Context:
    """Give a context whose record table is another."""

    class Changed(Context):
        def records(self, cohort: str) -> pd.DataFrame:
            return change(super().records(cohort))

    return Changed(**{field.name: getattr(context, field.name) for field in fields(Context) if field.init})


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
    assert table.loc["S004", "missing"] == "arm_movements, walk_4kmh, run_8kmh"
    assert table.columns[:3].tolist() == ["persons", "rest", "squats"]
    index = context.dataset.grid_index(segments(records), 4.0)
    said = tables.coverage_finding(records, table.reset_index()[["persons", "who", *table.columns[1:]]], index)
    assert "Activities without any usable record: arm_movements, run_8kmh, walk_4kmh." in said
    assert "S003: squats, arm_movements, walk_4kmh, run_8kmh" in said
    # the strip ends at 8 s; a window of 4 s that starts at 0..7 s touches it. The gap lies in those from 7 to 10 s
    assert "Windows left out: 12 (flat 8, gap in time 4)." in said
    told = tables.coverage_finding(with_electrodes(records), table.reset_index(), index)
    assert "Usable records by electrode: dry 2, gel 2, textile 1." in told


def test_amplitude_channel_is_the_logarithm_of_the_spread(context: Context) -> None:
    index = context.dataset.grid(segments(context.records("synthetic")), 4.0).iloc[:3]
    samples, values = OURS.read(context.dataset, index), context.dataset.gather(index)
    np.testing.assert_allclose(samples[:, 0].mean(axis=-1), 0, atol=1e-5)
    np.testing.assert_allclose(samples[:, 0].std(axis=-1), 1, rtol=1e-4)
    np.testing.assert_allclose(samples[:, 1, 17] + 1.5, np.log10(values.std(axis=-1) + 1e-3), rtol=1e-4)
    assert Attacker(seconds=4.0).read(context.dataset, index).shape == (3, 1, 400)


def test_protocols_go_on_with_what_is_there(context: Context) -> None:
    blocked = predictions(context, protocols.BlockedTime())
    # 24 s: the last 30 % are 7.2 s, which hold 4 windows of 4 s on whole seconds from 17 s on
    assert len(blocked.windows) == 4 * len(context.records("synthetic"))
    assert blocked.gap == ""
    unseen = predictions(context, protocols.LeaveSubjectOut(2))
    assert unseen.windows["person_predicted"].isna().all()
    assert unseen.windows["subject_id"].nunique() == 4


def test_predictions_are_the_likeliest_classes_and_come_by_seed(context: Context) -> None:
    jobs = [Job("synthetic", protocols.BlockedTime(), DT4ECG, seed) for seed in (0, 1)]
    both = by_network(run(predict, jobs, context, "t"), jobs)["blocked_time", DT4ECG]
    assert both.windows["seed"].tolist() == sorted([0, 1] * (len(both.windows) // 2))
    for task in plan.TASKS:
        best = np.array(both.classes[task])[both.shares(task).argmax(axis=1)]
        assert both.windows[f"{task}_predicted"].tolist() == best.tolist()
    assert len(both.histories) == 2


@pytest.mark.parametrize(
    ("change", "protocol", "reason"),
    [
        (lambda records: records, protocols.CrossElectrode(), "the cohort states no electrode"),
        (at_rest, protocols.CrossActivity(), "no record is left that could be recognised"),
        (pd.DataFrame.head, protocols.LeaveSubjectOut(5), "4 persons are too few to leave people out in 5 folds"),
    ],
)
def test_what_cannot_be_asked_is_a_clause(context: Context, change: Change, protocol: Protocol, reason: str) -> None:
    refused = predictions(changed(context, change), protocol)
    assert refused.gap == reason
    assert refused.windows.empty


def test_people_without_the_known_activity_are_left_out_of_the_pairs(context: Context) -> None:
    pairs = predictions(context, protocols.ActivityPairs(), plan.ONE_ACTIVITY)
    assert set(pairs.windows["fold"]) == {0}
    assert pairs.windows["subject_id"].nunique() == 4
    # only S004 has squats: one person is no choice, and nothing can be learnt
    assert pairs.gap.startswith("fold 2 of 2 left out: ")
    assert "nothing to learn: all windows are of one person and one activity" in pairs.gap
    matrix = tables.activity_matrix(pairs, ["rest", "squats"])
    known = pairs.windows[pairs.windows["activity"] == "squats"]
    assert matrix.loc["rest", "squats"] == (known["person_predicted"] == known["subject_id"]).mean()
    assert matrix.loc["squats"].isna().all()


def test_a_full_disk_is_no_fold_that_cannot_be_asked(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "_fold", Mock(side_effect=DiskError("full")))
    with pytest.raises(DiskError):
        predict(context, Job("synthetic", protocols.CrossActivity(), DT4ECG, 0))


def test_a_fold_that_cannot_be_asked_does_not_stop_the_others(context: Context) -> None:
    told = changed(context, with_electrodes)
    crossed = predictions(told, protocols.CrossElectrode())
    # of the kinds dry, gel and textile only the first and the last have a person who is known from another kind
    assert set(crossed.windows["fold"]) == {0, 2}
    assert crossed.gap == "fold 2 of 3 left out: no usable window is left to test on"
    rows = tables.results("synthetic", {("cross_electrode", DT4ECG): crossed}, 0)
    assert set(rows["note"]) == {crossed.gap}
    assert set(rows["windows"]) == {len(crossed.windows)}
    # the first fold learnt from rest alone and knows no activity: only the third is read as a stream
    protocol, heard = streaming.stream({("cross_electrode", DT4ECG): crossed}, told.records("synthetic"))
    assert protocol == "cross_electrode"
    assert set(heard.windows["fold"]) == {2}


def test_windows_go_across_the_borders_of_a_persons_records(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    records = context.records("synthetic")
    index = context.dataset.grid(segments(records), 4.0)
    order = session_order(records)
    rows, values = spliced(context.dataset, index, order)
    # S004 alone has both activities: three windows hold one, two and three seconds of squats
    both = records[records["subject_id"].str.endswith("S004")].set_index("activity")["record_id"]
    assert rows["record_id"].tolist() == [both["squats"]] * 3
    first = index[index["record_id"] == both["squats"]]["start"].iloc[0]
    assert (rows["start"] + rows["n_samples"] - first).tolist() == [100, 200, 300]
    last = index[index["record_id"] == both["rest"]].iloc[[-1]]
    end, begin = context.dataset.gather(last)[0], context.dataset.lead(both["squats"], first, first + 400)
    for share, own in zip((100, 200, 300), values, strict=True):
        np.testing.assert_array_equal(own, np.concatenate([end[share:], begin[:share]]))
    alone, none = spliced(context.dataset, index[index["record_id"] != both["rest"]], order)
    assert len(alone) == len(none) == 0
    # they are predicted beside the others, bear the activity that has begun, and count in streams alone
    blocked = predictions(context, protocols.BlockedTime())
    assert blocked.across["activity"].tolist() == ["squats"] * 3
    assert np.stack(blocked.across["activity_shares"]).sum(axis=1) == pytest.approx([1, 1, 1])
    stream = streaming.as_stream(blocked, records).windows
    assert len(stream) == len(blocked.windows) + 3
    changed_at = np.flatnonzero(stream["record_id"] == both["squats"])
    assert stream["since"].iloc[changed_at[:4]].tolist() == [100, 200, 300, 400]
    # several pieces of a record are no session
    job = Job("synthetic", protocols.BlockedTime(), DT4ECG, 0)
    halves = pd.concat([segments(records, 0, 0.5), segments(records, 0.5, 1)], ignore_index=True)
    (split,) = context.splits(job)
    monkeypatch.setattr(Context, "splits", lambda *_: [replace(split, probe=halves, overlapping=True)])
    assert predict(context, job).across.empty


def test_turned_windows_are_averaged(context: Context) -> None:
    attacker, job = context.attackers[plan.ROLLED], Job("synthetic", protocols.BlockedTime(), plan.ROLLED, 0)
    assert replace(attacker, rolls=1) == context.attackers[DT4ECG]
    turned, plain = (predictions(context, job.protocol, name) for name in (plan.ROLLED, DT4ECG))
    assert not np.allclose(turned.shares("person"), plain.shares("person"))
    model, index = context.fitted(job).model, context.dataset.grid(context.splits(job)[0].probe, 4.0)
    samples, names = attacker.read(context.dataset, index), turned.classes["person"]
    by_hand = [
        class_probabilities(model, np.roll(samples, turn, axis=-1), "person", names) for turn in (0, 100, 200, 300)
    ]
    np.testing.assert_allclose(turned.shares("person"), np.mean(by_hand, axis=0), rtol=1e-5)


def test_an_ensemble_is_the_mean_of_its_seeds() -> None:
    table = pd.DataFrame({"start": [0, 100], "fold": 0, "record_id": "r", "subject_id": "a", "activity": "rest"})
    parts = []
    for seed, sure in ((3, 0.9), (4, 0.2), (5, 0.3)):
        shares = [np.array([sure, 1 - sure]), np.array([1.0, 0.0])]
        own = table.assign(seed=seed, person_shares=shares, activity_shares=None, activity_predicted=None)
        parts.append(own.assign(person_predicted=["a" if share[0] > 0.5 else "b" for share in shares]))
    parts[2] = parts[2].iloc[:1]  # a seed may lack a window
    one = Predictions(pd.concat(parts), {"person": ["a", "b"], "activity": ["rest", "run"]})
    alone = Predictions(parts[0], one.classes)
    found = plan._with_ensembles(
        {("p", DT4ECG): one, ("p", "resnet1d"): one, ("p", plan.ROLLED): one, ("q", DT4ECG): alone}
    )
    names = [DT4ECG, plan.ENSEMBLE, "resnet1d", plan.ROLLED, plan.ROLLED_ENSEMBLE]
    assert [*found] == [*(("p", name) for name in names), ("q", DT4ECG)]
    together = found["p", plan.ENSEMBLE]
    np.testing.assert_allclose(together.shares("person"), [[1.4 / 3, 1.6 / 3], [1.0, 0.0]])
    assert together.windows["person_predicted"].tolist() == ["b", "a"]
    assert together.windows["activity_predicted"].isna().all()
    assert together.windows["seed"].unique().tolist() == [-1]


def test_activities_that_are_taken_for_each_other_are_named() -> None:
    table = pd.DataFrame({"activity": ["run"] * 4 + ["squats"] * 4 + ["rest"] * 2})
    predicted = ["run", "run", "run", "squats", "squats", "squats", "run", "run", "rest", "run"]
    told = tables.confusion_finding(Predictions(table.assign(activity_predicted=predicted)))
    assert told == "Most often taken for each other: 25 % of run for squats and 50 % of squats for run."
    right = Predictions(table.assign(activity_predicted=table["activity"]))
    assert tables.confusion_finding(right) == "No activity was taken for another."


def test_touching_segments_are_joined_and_others_kept_apart() -> None:
    rows = [("a", 0, 100), ("b", 400, 500), ("a", 300, 400), ("a", 100, 200), ("c", 500, 600)]
    joined = plan.merge_touching(pd.DataFrame(rows, columns=["record_id", "start", "stop"]))
    assert joined.to_numpy().tolist() == [["a", 0, 200], ["a", 300, 400], ["b", 400, 500], ["c", 500, 600]]


def learnt(context: Context, protocol: Protocol, attacker: Attacker, monkeypatch: pytest.MonkeyPatch) -> dict:
    """Tell what an attacker would learn from under a protocol's first split, and how; nothing is trained."""
    seen = {}
    window_set = Attacker.window_set
    monkeypatch.setattr(Attacker, "window_set", lambda *given: seen.update(index=given[3]) or window_set(*given))
    monkeypatch.setattr(plan, "fit", lambda model, _, validation, settings, *rest: seen.update(locals()))
    job = Job("synthetic", protocol, DT4ECG, 3)
    attacker.fit(context, job, context.splits(job)[0])
    return seen


def test_windows_are_chosen_on_what_no_candidate_learnt_from(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    choice, blocked = (context.splits(Job("synthetic", p, DT4ECG, 0))[0] for p in (Choice(), protocols.BlockedTime()))
    pd.testing.assert_frame_equal(choice.probe, blocked.validation)
    index = learnt(context, Choice(), context.attackers[DT4ECG], monkeypatch)["index"]
    first_asked = index["record_id"].map(choice.probe.set_index("record_id")["start"])
    assert (index["start"] + index["n_samples"] < first_asked).all()
    # once nothing is left to choose, the validation part is learnt from too; the probes never are
    index = learnt(context, protocols.BlockedTime(), context.attackers[DT4ECG], monkeypatch)["index"]
    assert (index["start"] + index["n_samples"] > first_asked.iloc[0]).any()
    last = index["record_id"].map(blocked.probe.set_index("record_id")["start"])
    assert (index["start"] + index["n_samples"] < last).all()


def test_an_attacker_is_built_and_trained_as_it_says(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    attacker = replace(OURS, sizes={"balance": "equal"}, tasks=("activity",), epochs=7, stride=2.0)
    seen = learnt(context, protocols.BlockedTime(), attacker, monkeypatch)
    assert seen["model"].classes == {"activity": ["rest", "squats"]}
    assert seen["model"].hparams.lead_names == [context.lead, "amplitude"]
    assert (seen["model"].hparams.margin, seen["model"].hparams.balance) == (None, "equal")
    assert (seen["settings"].epochs, seen["settings"].seed, seen["validation"]) == (7, 3, None)
    assert set(seen["index"].groupby("record_id")["start"].diff().dropna()) == {200}
    # people who are left out to choose on may be learnt from in the end, those on trial never
    split = context.splits(Job("synthetic", protocols.LeaveSubjectOut(3), DT4ECG, 3))[0]
    index = learnt(context, protocols.LeaveSubjectOut(3), context.attackers[DT4ECG], monkeypatch)["index"]
    assert set(index["subject_id"]) == {*split.train["subject_id"], *split.validation["subject_id"]}


def test_a_window_that_fits_nowhere_is_no_candidate(context: Context) -> None:
    # 24 s: the part to choose on lasts 3.6 s, the part to learn from 9.8 s
    long, fits = (Attacker(seconds=seconds, epochs=1) for seconds in (4.0, 3.0))
    chosen, table, _ = plan.choose(context, "synthetic", replace(BUDGET, candidates=(long, fits)))
    assert chosen == fits
    assert table["note"].tolist() == ["no usable window of 4 s is left to choose on", ""]
    assert table["windows"].tolist() == [0, len(context.records("synthetic"))]
    assert table.loc[0, ["person_accuracy", "activity_accuracy", "mean"]].isna().all()
    assert table.loc[1, "mean"] == (table.loc[1, "person_accuracy"] + table.loc[1, "activity_accuracy"]) / 2
    chosen, table, _ = plan.choose(context, "synthetic", BUDGET)
    assert chosen == OURS
    assert table["mean"].isna().all()


def test_the_candidate_with_the_best_mean_of_both_tasks_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(_: object, jobs: list[Job]) -> dict[str, Predictions]:
        # three moments of one record; the last candidate reads twice as much at a time and is asked at the last alone
        table = pd.DataFrame({"subject_id": list("abb"), "activity": ["rest", "run", "run"], "record_id": "r"})
        table = table.assign(person_predicted=list("aab"), activity_predicted=table["activity"])
        table = table.assign(start=[0, 100, 200], n_samples=300)
        late = table.assign(start=table["start"] - 300, n_samples=600).iloc[1:]
        parts = [table.assign(person_predicted=list("bbb")), table.assign(person_predicted=list("aaa")), late]
        assert [job.seed for job in jobs] == [5, 5, 5]
        return {job.name: Predictions(part) for job, part in zip(jobs, parts, strict=True)}

    monkeypatch.setattr(plan, "run", lambda *_: None)
    monkeypatch.setattr(plan, "by_network", found)
    candidates = (OURS, Attacker(seconds=3.0), Attacker())
    context = Context("demo", {}, "cpu", {}, cache=Path())
    chosen, table, validation = plan.choose(context, "x", replace(BUDGET, candidates=candidates, seeds=(5, 6)))
    # over its own three windows the first would have the mean 5 / 6, and over the common two it has 1
    assert chosen == candidates[0]
    assert table["windows"].tolist() == [2, 2, 2]
    assert table["mean"].tolist() == [1.0, 0.5, 0.75]
    assert table["amplitude"].tolist() == ["told", "not told", "not told"]
    assert "note" not in table
    assert len(validation.windows) == 3  # to calibrate on, all of them


def test_records_that_are_too_short_or_of_one_activity_end_the_stage(context: Context) -> None:
    # 60 % of 24 s are known: 14.4 s; the last 7.2 s probe
    long = replace(context, attackers=BUDGET.attackers(replace(OURS, seconds=8.0)))
    with pytest.raises(StudyError, match="first part of the records of synthetic: no usable window is left to test on"):
        predictions(long, protocols.BlockedTime())
    with pytest.raises(StudyError, match="one person or of one activity only; bring two of each"):
        predictions(changed(context, at_rest), protocols.BlockedTime())


def test_the_most_frequent_reference_lead_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    store = SimpleNamespace(records=pd.DataFrame({"reference_lead": ["II", "II", "I"]}))
    monkeypatch.setattr(plan, "build_store", lambda *_, **__: store)
    monkeypatch.setattr(plan, "without_copies", lambda stores, _: stores)
    assert plan.open_context("demo", "synthetic", 100.0, 0, "cpu").lead == "II"
    assert plan.open_context("demo", "synthetic", 100.0, 0, "cpu", "V5").lead == "V5"
    assert plan.open_cohort("demo", "synthetic", 7).seed == 7


def test_the_plan_asks_dt4ecg_everything_and_the_others_one_question() -> None:
    budget = plan.budget_of("real", 4)
    jobs = plan.plan("motion", budget.candidates[0], budget)
    asked: dict[tuple[str, str], list[int]] = {}
    for job in jobs:
        asked.setdefault((job.protocol.name, job.attacker), []).append(job.seed)
    names = ["random_windows", "blocked_time", "cross_electrode", "cross_activity", "leave_subject_out"]
    assert [name for name, attacker in asked if attacker == DT4ECG] == names
    assert [name for name, attacker in asked if attacker == plan.ROLLED] == names
    others = [attacker for name, attacker in asked if name == "blocked_time" and not attacker.startswith(DT4ECG)]
    assert others == [*plan.BASELINES, *plan.ABLATIONS]
    assert asked.pop(("activity_pairs", plan.ONE_ACTIVITY)) == [4]
    assert set(map(tuple, asked.values())) == {(4, 5, 6)}
    assert jobs[0].protocol == protocols.RandomWindows(5.0)
    attackers = budget.attackers(budget.candidates[3])
    assert {(attacker.seconds, attacker.amplitude) for attacker in attackers.values()} == {(8.0, True)}
    odd = {name: (one.epochs, one.stride) for name, one in attackers.items() if (one.epochs, one.stride) != (12, 1.0)}
    assert odd == {plan.ONE_ACTIVITY: (24, 1.0), plan.LONG_RECORDS: (6, 5.0)}
    assert attackers["resnet1d"].sizes == {"widths": [16, 32, 64]}
    assert [one.seconds for one in plan.budget_of("demo", 0).candidates] == [3.0, 3.0]


def test_shared_jobs_are_the_notebooks_once_the_window_is_chosen(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "open_context", lambda *asked: context if asked[1:3] == ("synthetic", 100.0) else None)
    monkeypatch.setattr(plan, "choose", lambda *_: (OURS, None, None))
    ((work, jobs, shared),) = plan.shared("demo", 0, "cpu")
    budget = plan.budget_of("demo", 0)
    assert (work, jobs) == (predict, plan.plan("synthetic", OURS, budget))
    assert (shared.attackers, shared.stores) == (budget.attackers(OURS), context.stores)


def test_worst_degree_of_the_marked_stretches_that_a_window_touches(monkeypatch: pytest.MonkeyPatch) -> None:
    # the first six seconds of one record, sampled at 200 Hz, in three segments; none of the other record
    records = pd.DataFrame({"record_id": ["r", "other"], "fs": [200.0, 200.0]})
    marked = pd.DataFrame({"start": [0, 400, 800], "end": [400, 800, 1200], "degree": [1, 3, 2]})
    monkeypatch.setattr(MotionCohort, "records", lambda _: records)
    monkeypatch.setattr(MotionCohort, "artefacts", lambda _, name: marked if name == "r" else marked[:0])
    windows = pd.DataFrame({"record_id": ["motion/other"] + ["motion/r"] * 4, "start": [0, 0, 350, 400, 200]})
    worst = tables.worst_degree(windows.assign(n_samples=200), object.__new__(MotionCohort), 100.0)
    np.testing.assert_array_equal(worst, [math.nan, 1, 3, 2, 3])
    assert tables.worst_degree(windows, SyntheticCohort(n_subjects=1), 100.0).isna().all()


def test_long_records_are_read_by_a_network_that_knows_their_first_minutes(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = context.fitted(Job("synthetic", protocols.BlockedTime(), DT4ECG, 0)).model
    said = streaming.read_long_records(context, 0, model)
    assert said == "No half-hour record was followed: the demo profile has no MIT-BIH records here."
    asked, read = [], []
    followed = replace(context, stores={"mitdb": context.stores["synthetic"]})
    monkeypatch.setattr(streaming, "cohorts_of", lambda _: ["mitdb"])
    monkeypatch.setattr(streaming, "open_context", lambda *given: asked.append(given) or followed)
    said = streaming.read_long_records(context, 0, model)
    assert asked == [("demo", "mitdb", 100.0, 0, "cpu", "MLII")]
    assert said == "No half-hour record was followed: no record is left that could be recognised."
    # in minutes: 9 s enrol, the part from 12 to 23 s is asked
    monkeypatch.setattr(streaming, "TimeSeparated", lambda: protocols.TimeSeparated(((0, 0.15),), (0.2, 0.4)))
    shares = streaming.class_probabilities
    monkeypatch.setattr(streaming, "class_probabilities", lambda *given: read.append(given[1].copy()) or shares(*given))
    long = streaming.read_long_records(context, 0, model)
    # amplitudes in another unit are shifted for the network of the other cohort only
    assert np.median(read[0][:, 1]) < 0 < np.median(read[1][:, 1]) == pytest.approx(1.0)
    assert long.late.windows["start"].between(1200, 1900).all()
    assert long.late.windows["record_id"].nunique() == 5
    assert long.whole.windows["record_id"].unique().tolist() == [long.late.windows["record_id"].iloc[0]]
    assert long.whole.windows["start"].iloc[0] == 0
    np.testing.assert_allclose(long.whole.shares("person").sum(axis=1), 1, rtol=1e-5)
    assert long.enrolled[["start", "stop"]].to_numpy().tolist() == [[0, 900]]
    assert long.activity.index.tolist() == ["rest", "squats"]
    assert long.activity.sum() == pytest.approx(1)
    by_time = streaming.accuracy_by_time(long.late, 4.0)
    late = tables.late_results(long.late, 4.0, 0)
    names = [f"mitdb.monitoring.person_accuracy_after_{n}_s" for n in (4, 11)]
    assert late["name"].tolist() == names
    assert late["value"].tolist() == by_time["accuracy"].iloc[[0, -1]].tolist()
    assert (late["low"] <= late["value"]).all()
    assert (late["high"] >= late["value"]).all()
    assert late["n"].tolist() == [long.late.windows["subject_id"].nunique()] * 2
