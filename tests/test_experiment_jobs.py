"""Jobs are done once, whoever asks; refusals are rows; one of each kind joins the study in a few lines."""

import errno
import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock, Timeout

from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.errors import DiskError, StudyError
from ecgstudy.evaluate.protocols import (
    CrossCohort,
    CrossDay,
    CrossRecord,
    RandomWindows,
    SubjectDisjoint,
    training_parts,
)
from ecgstudy.evaluate.splits import Split
from ecgstudy.evaluate.trials import ScoreMatrix, rank1_and_eer
from ecgstudy.experiment import attackers, dataset, jobs
from ecgstudy.experiment.attackers import ATTACKERS, PRETRAINED, NetworkAttacker, TemplateAttacker, attackers_of
from ecgstudy.experiment.dataset import without_lead
from ecgstudy.experiment.evaluation import cohort_resamples, evaluate_all
from ecgstudy.experiment.jobs import Context, Job, run, share
from ecgstudy.experiment.networks import (
    AUXILIARY_ROWS,
    ROWS,
    Recipe,
    Rows,
    auxiliary_records,
    group_ages,
    targets,
    trainable_classes,
)
from ecgstudy.experiment.scores import ScoreSet, _demographics, ensemble, score
from ecgstudy.reidentification import tables
from ecgstudy.reidentification.persons import missed_finding, missed_table
from ecgstudy.reidentification.plan import open_context, plan, protocols_of, protocols_on_trial, run_attackers
from ecgstudy.reidentification.spans import span_table
from ecgstudy.signals.ingest import build_store
from ecgstudy.signals.store import EXCLUSION_COLUMNS, RecordStore

TEMPLATE_JOB = Job("synthetic", CrossRecord(), "template", 0)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RecordStore]:
    """Ten persons on two days, and twelve others with one record each."""
    cache = tmp_path_factory.mktemp("cache")
    returning = SyntheticCohort(n_subjects=10, n_sessions=2, n_records=2, seed=1)
    single = SyntheticCohort(n_subjects=12, n_sessions=1, n_records=1, seed=2)
    return {
        "synthetic": build_store(returning, cache, delineate=False),
        "others": build_store(single, cache, delineate=False),
    }


@pytest.fixture
def context(stores: dict[str, RecordStore], tmp_path: Path) -> Context:
    """Everything, with an empty cache."""
    return Context("real", stores, "cpu", ATTACKERS, cache=tmp_path)


class _Renamed(TemplateAttacker):
    """The same under another name."""


def _score(context: Context, job: Job = TEMPLATE_JOB) -> ScoreSet:
    return run(score, [job], context, "t").values[job.name]


def test_a_job_is_done_once_and_its_scores_survive_the_disk(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(score, [TEMPLATE_JOB], context, "t")
    monkeypatch.setattr(TemplateAttacker, "fit", None)  # a second run would fail
    again = run(score, [TEMPLATE_JOB], context, "t")
    assert first.commits == again.commits != set()
    one, other = (outcome.values["synthetic.cross_record.template.0"].folds[0] for outcome in (first, again))
    np.testing.assert_array_equal(one.trials.scores, other.trials.scores)
    assert one.trials.scores.shape == (10, 10)
    assert rank1_and_eer([one.trials])[0] >= 0.8
    pd.testing.assert_frame_equal(one.demographics, other.demographics)


@pytest.mark.parametrize(
    ("part", "reason"),
    [("enrolment", "no record enrols anybody"), ("probe", "no record is left that could be recognised")],
)
def test_a_fold_that_lacks_a_part_is_not_scored(
    context: Context, part: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = context.splits(TEMPLATE_JOB)[0]
    lacking = replace(split, **{part: getattr(split, part)[:0]})
    monkeypatch.setattr(Context, "splits", lambda *_: [split, lacking])
    with pytest.raises(StudyError, match=reason):
        score(context, TEMPLATE_JOB)


def test_a_job_that_another_process_is_doing_is_left_to_it(context: Context) -> None:
    assert share(score, [TEMPLATE_JOB], context) == 0
    kept = next((context.cache / "score").glob("*.joblib"))
    lock = kept.with_name(f".{kept.stem}.lock")
    kept.unlink()
    with FileLock(lock):
        assert share(score, [TEMPLATE_JOB], context) == 1
        with pytest.raises(Timeout):
            jobs.do(score, context, TEMPLATE_JOB, wait=False)
    assert share(score, [TEMPLATE_JOB], context) == 0
    assert kept.is_file()


@pytest.mark.parametrize("change", ["stores", "seed", "attacker", "protocol", "view", "code", "lead"])
def test_whatever_makes_a_value_is_in_its_key(context: Context, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _score(context)
    job, other = TEMPLATE_JOB, context
    match change:
        case "stores":
            other = replace(context, stores={"synthetic": context.stores["synthetic"]})
        case "seed":
            job = replace(job, seed=1)
        case "attacker":
            other = replace(context, attackers={"template": _Renamed()})
        case "protocol":
            job = Job("synthetic", protocols_of("synthetic", context)[3], "template", 0)
        case "view":
            monkeypatch.setitem(dataset.VIEWS, "same", dataset.View())
            job = replace(job, view="same")
        case "code":
            monkeypatch.setattr(jobs, "code_key", lambda _: "other")
        case "lead":
            other = replace(context, lead="V2")
    run(score, [job], other, "t")
    assert len(list((context.cache / "score").glob("*.joblib"))) == 2


def test_a_context_travels_by_the_names_of_its_folders(context: Context) -> None:
    restored, arguments = context.__reduce__()
    there = restored(*arguments)
    assert there is restored(*arguments)  # opened once a process
    assert there.stores["others"].manifest["key"] == context.stores["others"].manifest["key"]
    assert (there.attackers, there.cache, there.lead) == (dict(context.attackers), context.cache, None)


def test_a_cohort_of_people_recorded_once_is_auxiliary_and_trains_the_cross_cohort_attackers(context: Context) -> None:
    assert auxiliary_records(context)["cohort"].unique().tolist() == ["others"]
    names = [protocol.name for protocol in protocols_of("synthetic", context)]
    inner = ["cross_record", "cross_day", "leave_last_day"]
    known = [name + end for name in inner for end in ("", "_5s")]
    unseen = [f"subject_disjoint_{name}" for name in inner[:2]] + [f"cross_cohort_{name}" for name in inner]
    assert names == ["random_windows", "overlapping_windows", *known, *unseen]
    assert [protocol.name for protocol in protocols_of("others", context)] == ["random_windows"]


def test_the_auxiliary_cohorts_are_cut_once_a_process(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = []
    rows = Rows(np.zeros((2, 400)), np.array(["a", "b"]), np.array(["1", "2"]))
    monkeypatch.setattr(Recipe, "_rows", lambda *about: (cut.append(about), rows)[1])
    monkeypatch.setattr(Recipe, "_fit", lambda *_: None)
    for seed in (0, 0, 1):
        Recipe("resnet1d").pretrained(context, auxiliary_records(context), seed)
    assert len(cut) == 2 * 2  # of all classes, and of some, for each seed


@pytest.mark.parametrize("kind", ["closed", "unseen", "other_cohort", "helping_cohort"])
def test_only_the_training_part_and_other_cohorts_are_learnt_from(
    context: Context, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    helpers, fits = auxiliary_records(context), []
    helping = {f"{person}@I" for person in training_parts(helpers, context.split_seed)[0]["subject_id"]}
    job = {
        "closed": Job("synthetic", CrossRecord(), "resnet1d", 3),
        "unseen": Job("synthetic", SubjectDisjoint(CrossRecord()), "resnet1d", 3),
        "other_cohort": Job("synthetic", CrossCohort(helpers, CrossRecord()), "resnet1d", 3),
        "helping_cohort": Job("others", RandomWindows(), "resnet1d", 3),
    }[kind]
    split = context.splits(job)[0]
    assert replace(context).splits(replace(job, seed=0))[0].digest == split.digest  # whatever seed trains
    monkeypatch.setattr(Recipe, "_fit", lambda recipe, _, *about: fits.append((recipe, *about)))
    recipe = Recipe("resnet1d", auxiliary_leads=("I",))
    NetworkAttacker(recipe).fit(context, job, split)
    if kind == "helping_cohort":  # nobody on trial helps
        helping = set()
    else:
        first, rows, seed, *_ = fits.pop(0)
        assert (first.epochs, first.learning_rate, seed) == (recipe.pretraining_epochs, recipe.pretraining_rate, 3)
        assert set(rows.persons) == helping
    if kind == "other_cohort":
        assert not fits
        return
    ((last, rows, seed, validation, _),) = fits
    assert (last, seed) == (recipe, 3)
    assert set(rows.persons) == set(split.train["subject_id"]) | helping
    assert set(rows.records[np.isin(rows.persons, [*helping], invert=True)]) == set(split.train["record_id"])
    assert validation is (None if kind == "unseen" else split.validation)
    shares = {ROWS // split.train["subject_id"].nunique(), *([AUXILIARY_ROWS] if helping else [])}
    assert set(np.unique(rows.persons, return_counts=True)[1]) == shares


@pytest.mark.parametrize("model", ["resnet1d", "beatnet"])
@pytest.mark.parametrize("usable", [0, 1, 2])
def test_helpers_without_windows_of_two_persons_are_not_learnt_from_and_refuse_nobody(
    context: Context, model: str, usable: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    helpers, fits, lost = auxiliary_records(context), [], dataset.Dataset.pieces
    having = sorted(training_parts(helpers, context.split_seed)[0]["subject_id"].unique())[:usable]

    def pieces(self: dataset.Dataset, parts: pd.DataFrame) -> pd.DataFrame:
        found = lost(self, parts)
        persons = found["subject_id"].map(without_lead)
        return found[persons.isin(having) | ~persons.isin(helpers["subject_id"])].reset_index(drop=True)

    monkeypatch.setattr(dataset.Dataset, "pieces", pieces)
    monkeypatch.setattr(Recipe, "_fit", lambda _, *about: fits.append(set(map(without_lead, about[1].persons))))
    attacker, job = ATTACKERS[model], Job("synthetic", CrossRecord(), model, 0)
    attacker.fit(context, job, split := context.splits(job)[0])
    known = set(split.train["subject_id"])
    assert fits == ([known] if usable < 2 else [set(having), known | set(having)])
    across = Job("synthetic", CrossCohort(helpers, CrossRecord()), model, 0)
    if usable == 2:
        attacker.fit(context, across, context.splits(across)[0])
    else:
        with pytest.raises(StudyError, match="fewer than two persons of the other cohorts have a window"):
            attacker.fit(context, across, context.splits(across)[0])


def test_a_network_without_a_window_of_the_persons_at_hand_is_refused_before_others_train_it(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, kept = Job("synthetic", CrossRecord(), "resnet1d", 0), dataset.Dataset.pieces
    known = set(context.splits(job)[0].train["subject_id"])
    monkeypatch.setattr(dataset.Dataset, "pieces", lambda *a: kept(*a).loc[lambda t: ~t["subject_id"].isin(known)])
    monkeypatch.setattr(Recipe, "_fit", Mock(side_effect=AssertionError))
    with pytest.raises(StudyError, match="no recording holds a window that resnet1d could learn from"):
        ATTACKERS["resnet1d"].fit(context, job, context.splits(job)[0])


def test_the_feature_model_learns_from_the_training_part_alone(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    (split,), read = context.splits(TEMPLATE_JOB), []
    nothing = (pd.DataFrame(), np.zeros(0, dtype=int))
    monkeypatch.setattr(dataset.Dataset, "features", lambda _, parts: (read.append(parts), nothing)[1])
    with pytest.raises(StudyError, match="fewer than two persons"):
        ATTACKERS["features_gbm"].fit(context, TEMPLATE_JOB, split)
    assert read[0] is split.train


def test_intervals_rest_on_fewer_draws_in_the_demo_and_a_first_look(context: Context) -> None:
    drawn = {
        profile: replace(context, profile=profile).n_resamples for profile in ("demo", "mine-quick", "mine", "real")
    }
    assert drawn == {"demo": 200, "mine-quick": 200, "mine": 1000, "real": 1000}


def test_networks_of_beats_have_three_seeds_in_the_real_profile_and_one_in_the_demo(context: Context) -> None:
    seeds = {profile: {} for profile in ("real", "demo", "mine-quick")}
    for profile, counted in seeds.items():
        for job in plan(replace(context, profile=profile), seed=5):
            counted.setdefault((job.protocol.name, job.attacker), []).append(job.seed)
    assert seeds["real"]["cross_day", "beatnet"] == seeds["real"]["cross_day", "beatcnn"] == [5, 6, 7]
    assert seeds["real"]["cross_day", "transecg"] == [5]
    assert ("cross_day_5s", "transecg") in seeds["real"]
    assert ("cross_day_5s", "features_gbm") not in seeds["real"]
    assert seeds["real"]["cross_day", "template"] == seeds["real"]["cross_day", "untrained"] == [5]
    assert seeds["demo"]["cross_day", "beatnet"] == [5]
    assert ("leave_last_day", "transecg") not in seeds["demo"]
    assert seeds["mine-quick"]["leave_last_day", "beatnet"] == [5]
    assert ("cross_cohort_cross_day", "features_gbm") not in seeds["real"]
    # of beatcnn, what it learns from others alone is one row
    assert ("cross_cohort_cross_day", "beatcnn") in seeds["real"]
    assert ("cross_cohort_cross_day", PRETRAINED) not in seeds["real"]
    assert seeds["real"]["subject_disjoint_cross_day", PRETRAINED] == [5, 6, 7]
    assert {attacker for of, attacker in seeds["real"] if of == "overlapping_windows"} == {"transecg"}
    assert attackers_of("demo")["resnet1d"].recipe.epochs == 5 < ATTACKERS["resnet1d"].recipe.epochs


def test_an_attacker_that_others_help_takes_part_where_there_are_others(context: Context) -> None:
    opened = open_context("real", context.stores, "cpu")
    assert list(opened.attackers) == list(ATTACKERS)
    alone = open_context("real", {"synthetic": context.stores["synthetic"]}, "cpu")
    assert set(ATTACKERS) - set(alone.attackers) == {PRETRAINED}
    assert ATTACKERS[PRETRAINED].recipe.helped
    assert not ATTACKERS["beatcnn"].recipe.helped


def test_on_own_records_an_unexpected_error_costs_its_own_job(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TemplateAttacker, "fit", None)
    with pytest.raises(TypeError):
        run(score, [TEMPLATE_JOB], context, "t")
    outcome = run(score, [TEMPLATE_JOB], replace(context, profile="mine"), "t")
    assert outcome.refusals["reason"].str.startswith("an unexpected TypeError ended it").all()
    assert not outcome.values


def test_a_full_disk_stops_the_study_and_refuses_no_job(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr("ecgstudy.study.cache.joblib.dump", Mock(side_effect=full))
    for profile in ("real", "mine"):
        with pytest.raises(DiskError, match="No space is left on the disk that holds"):
            run(score, [TEMPLATE_JOB], replace(context, profile=profile), "t")


def test_a_protocol_that_the_records_refuse_is_a_row_with_its_sentence(context: Context) -> None:
    records = context.stores["synthetic"].records
    kept = records[records["subject_id"].isin(records["subject_id"].unique()[:8])]
    few = replace(
        context, stores={"synthetic": context.stores["synthetic"]}, attackers={"template": TemplateAttacker()}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RecordStore, "records", property(lambda _: kept))
        planned = plan(few, seed=0)
        outcome = run_attackers(few, planned)
        trialled = {job.protocol.name for job in protocols_on_trial(few, planned)}
    refused = set(outcome.refusals["protocol"])
    assert refused == {f"subject_disjoint_{inner}" for inner in ("cross_record", "cross_day")}
    assert outcome.refusals["reason"].str.contains("8 persons are too few for 3 folds").all()
    assert trialled == {
        "random_windows",
        *(f"{n}{end}" for n in ("cross_record", "cross_day", "leave_last_day") for end in ("", "_5s")),
    }
    rows = tables.undefined_results(pd.DataFrame(columns=["cohort"]), outcome.refusals)
    assert set(rows["attacker"]) == {*ATTACKERS, "best"}
    assert rows["value"].isna().all()
    assert rows["note"].str.contains("too few").all()
    # of a protocol that others were measured under, only the refused attacker is undefined, unless a seed of it is not
    of_one = pd.DataFrame([{"cohort": "c", "protocol": "cross_day", "attacker": "transecg", "reason": "too short"}])
    measured = pd.DataFrame(
        [{"cohort": "c", "protocol": "cross_day", "attacker": name} for name in ("template", "best")]
    )
    assert set(tables.undefined_results(measured, of_one)["attacker"]) == {"transecg"}
    assert tables.undefined_results(measured.replace("template", "transecg"), of_one).empty


def test_tables_say_what_is_on_trial_and_what_a_study_should_report(context: Context) -> None:
    trialled = protocols_on_trial(context, [TEMPLATE_JOB])
    shown = tables.protocol_table(context, trialled, span_table(context, trialled)).iloc[0]
    assert shown.iloc[:7].tolist() == ["synthetic", "cross_record", "no", "no", 1, 10, 10]
    assert shown["gap"] == "another record, same day"
    listed = tables.reporting_table(context, trialled)
    assert list(listed) == ["point", "asked", "here"]
    assert listed["point"].tolist() == list(range(1, 9))
    assert "synthetic: 10 people, 40 records" in listed["here"][3]


def test_who_is_missed_is_named_with_the_gap_in_days_and_the_change_of_the_heart_rate(context: Context) -> None:
    job = Job("synthetic", CrossDay(), "template", 0)
    (split,), records = context.splits(job), context.records("synthetic").set_index("record_id")
    gallery = split.enrolment["subject_id"].unique()
    names = {
        part: getattr(split, part).query("subject_id == 'synthetic/S002'")["record_id"]
        for part in ("enrolment", "probe")
    }
    name = names["probe"].iloc[0]
    lost = split.probe["record_id"] == name
    own = split.probe["subject_id"].to_numpy()[:, None] == gallery
    matrix = ScoreMatrix(np.where(lost.to_numpy()[:, None], ~own, own), split.probe["subject_id"], gallery)
    attacks = {("synthetic", "cross_day", "best"): [matrix]}
    missed = missed_table(context, protocols_on_trial(context, [job]), attacks)
    (row,) = missed.to_dict("records")
    assert (row["person"], row["probes"], row["missed"]) == ("synthetic/S002", 2, 1)
    assert row["days later"] == records["session_day"][name] > 0
    beats = context.stores["synthetic"].beats.groupby("record_id")["r_peak"]
    rates = 60 / beats.apply(lambda peaks: np.median(np.diff(peaks)))
    assert row["bpm missed"] == pytest.approx(rates[name.partition("/")[2]])
    assert row["bpm enrolled"] == pytest.approx(rates[names["enrolment"].str.partition("/")[2]].mean())
    assert row["bpm change %"] == pytest.approx(100 * (row["bpm missed"] / row["bpm enrolled"] - 1))
    rows = pd.DataFrame(
        [{"cohort": "synthetic", "protocol": "cross_day", "attacker": "best", "metric": "persons", "value": 10}]
    )
    told = missed_finding(missed, rows)
    assert "synthetic cross day 1 of 10 persons, synthetic/S002 in 1 of 2 probes (" in told
    assert f"{row['days later']:g} days later, heart rate {row['bpm change %']:+.0f} %)." in told
    assert "days" not in missed_finding(missed.assign(**{"days later": np.nan}), rows)
    nobody = missed_table(context, [job], {})
    assert missed_finding(nobody, rows) == "Missed at least once by the best attacker: nobody."
    # of trials of persons drawn, nobody is listed
    drawn = {cell: [replace(matrix, scores=matrix.scores[:1], probe=matrix.probe[:1])] for cell in attacks}
    assert missed_table(context, [job], drawn).empty


def test_records_that_leave_open_what_they_must_state_take_no_part(context: Context) -> None:
    named = context.records("synthetic")
    store = Mock(records=context.stores["synthetic"].records.assign(activity=["rest", None] * 20), fs=100.0)
    some = replace(context, stores={"synthetic": store}, states="activity").records("synthetic")
    assert some["record_id"].tolist() == named["record_id"].tolist()[::2]
    opened, told = replace(context, states="sex").__reduce__()
    assert opened(*told).states == "sex"


def test_labels_follow_the_person_behind_a_lead_and_unknown_ones_are_left_out(context: Context) -> None:
    people = context.people.copy()
    assert set(people["age_group"]) <= {"under 30", "30-44", "45-59", "60 and over"}
    people.loc["synthetic/S002", ["sex", "age_group"]] = None
    persons = np.array(["synthetic/S001@V2", "synthetic/S002", "synthetic/S001@V2"])
    classes = {"person": ("synthetic/S002", "synthetic/S001@V2"), "sex": ("F", "M")}
    found = targets(persons, people, classes)
    assert found["person"].tolist() == [1, 0, 1]
    truth = ("F", "M").index(people.loc["synthetic/S001", "sex"])
    assert found["sex"].tolist() == [truth, -1, truth]
    only = people.assign(sex="F")
    assert "sex" not in trainable_classes(np.array(["synthetic/S001", "synthetic/S003"]), only)
    aged = pd.DataFrame({"record_id": list("abcde"), "subject_id": list("abcde"), "sex": None})
    store = SimpleNamespace(records=aged.assign(age=[29.9, 30, 45, 60, np.nan]))
    aged = replace(context, stores={"aged": store}).people
    assert aged["age_group"].tolist() == ["under 30", "30-44", "45-59", "60 and over", None]
    young = aged[:1].assign(age=20.1).set_axis(["x"])
    means = group_ages(np.array(["aged/a@V2", "aged/a", "aged/c", "x"]), pd.concat([aged, young]))
    assert means.tolist() == [25, 37, 45, 70]


def test_demographics_are_of_the_person_of_each_probe() -> None:
    people = pd.DataFrame({"sex": ["F", None, "M"], "age": 40.0, "age_group": "30-44"}, index=list("abc"))
    probe = pd.DataFrame({"subject_id": list("cba"), "record_id": ["r3", "r2", "r1"]})
    shares = np.array([[0.1, 0.9], [0.5, 0.5], [0.8, 0.2]])
    found = _demographics(probe, attackers.Embedded(np.eye(3), {"sex": shares}), people, None)
    shown = found[["person", "record", "truth", "p_F"]].to_numpy().tolist()
    assert shown == [["c", "r3", "M", 0.1], ["a", "r1", "F", 0.8]]  # b's sex is not known


def test_an_ensemble_averages_scores_of_the_same_trials_only(context: Context) -> None:
    scored = _score(context)
    fold = scored.folds[0]
    trials = replace(fold.trials, scores=fold.trials.scores + 2)
    mean = ensemble([scored, replace(scored, folds=(replace(fold, trials=trials),))])
    np.testing.assert_allclose(mean.folds[0].trials.scores, fold.trials.scores + 1, rtol=1e-6)
    other = replace(scored, folds=(replace(fold, probe_records=fold.probe_records[::-1]),))
    with pytest.raises(ValueError, match="different probes"):
        ensemble([scored, other])


def test_an_attacker_a_protocol_a_cohort_and_a_view_join_in_a_few_lines(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class UpsideDown(dataset.View):
        def raw(self, record_id: str, start: int, values: np.ndarray) -> np.ndarray:
            return -values

    @dataclass(frozen=True)
    class Nose(TemplateAttacker):
        def embed(self, dataset: dataset.Dataset, segments: pd.DataFrame) -> attackers.Embedded:
            return replace(super().embed(dataset, segments))

    @dataclass(frozen=True)
    class LaterRecord(CrossRecord):
        name = "later_record"

        def splits(self, records: pd.DataFrame, fs: float, seed: int) -> list[Split]:
            return [replace(split, protocol=self.name) for split in super().splits(records, fs, seed)]

    monkeypatch.setitem(dataset.VIEWS, "upside_down", UpsideDown())
    stores = {"village": build_store(SyntheticCohort(n_subjects=8, n_records=2, seed=7), tmp_path, delineate=False)}
    ours = Context("real", stores, "cpu", {"nose": Nose()}, cache=tmp_path)
    planned = [Job("village", LaterRecord(), "nose", 0, view) for view in ("raw", "upside_down")]
    found = run_attackers(ours, planned).values
    assert list(found) == ["village.later_record.nose.0", "village.later_record.nose.upside_down.0"]
    upright, turned = (one.folds[0].trials.scores for one in found.values())
    # only the probes are turned, so that a person's own beat becomes the least similar
    np.testing.assert_allclose(turned, -upright, atol=1e-6)
    rows, *_ = evaluate_all(list(found.values())[:1], cohort_resamples(list(found.values()), 0, 20))
    named = rows.loc[rows["metric"] == "rank1", ["cohort", "protocol", "attacker"]]
    assert named.iloc[0].tolist() == ["village", "later_record", "nose"]


def test_records_left_out_of_a_store_stay_out_in_another_process(tmp_path: Path) -> None:
    """A worker opens the folder anew: what overlaps with another folder must not come back there."""
    store = build_store(SyntheticCohort(n_subjects=3, n_sessions=1, n_records=1), tmp_path)
    dropped = store.records["record_id"].iloc[0]
    left_out = pd.DataFrame([(dropped, "S001", "", "copy", "it is a copy")], columns=EXCLUSION_COLUMNS)
    context = Context("demo", {"synthetic": RecordStore(store.folder, left_out)}, "cpu", {}, cache=tmp_path)
    there = pickle.loads(pickle.dumps(context))
    assert dropped not in set(there.stores["synthetic"].records["record_id"])
    assert there is pickle.loads(pickle.dumps(context))
    everybody = replace(context, stores={"synthetic": store})
    assert len(pickle.loads(pickle.dumps(everybody)).stores["synthetic"].records) == 3
