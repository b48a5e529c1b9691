"""Probe windows come from where they say, with the classes of the network that is explained."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ecgstudy.attribution import cases
from ecgstudy.attribution.cases import (
    Case,
    Part,
    case_windows,
    explain_case,
    explain_cases,
    network_jobs,
    reference_codes,
    spread_windows,
)
from ecgstudy.attribution.cases import window_fiducials as fiducials_of
from ecgstudy.attribution.shares import feature_model_shares
from ecgstudy.attribution.waves import UNKNOWN_WAVE, WAVES, region_masks, wave_codes
from ecgstudy.data.base import Cohort
from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.errors import StudyError
from ecgstudy.evaluate.protocols import CrossRecord, RandomWindows, SubjectDisjoint
from ecgstudy.experiment import networks
from ecgstudy.experiment.attackers import ATTACKERS, NetworkAttacker
from ecgstudy.experiment.dataset import Dataset
from ecgstudy.experiment.jobs import Context, Job, Outcome
from ecgstudy.experiment.networks import Recipe
from ecgstudy.learn.batches import standardise
from ecgstudy.signals.ingest import build_store

COHORT = SyntheticCohort(n_subjects=6, n_sessions=1, n_records=2, seed=3, noise=False)
JOB = Job("synthetic", CrossRecord(), "resnet1d", 0)
ASKED = {
    "resnet1d": NetworkAttacker(Recipe("resnet1d", seconds=3.0, epochs=2, batch_size=16)),
    "beatnet": ATTACKERS["beatnet"],
}


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """Six persons with two records each, and a network trained a little."""
    cache = tmp_path_factory.mktemp("cache")
    found = Context("demo", {"synthetic": build_store(COHORT, cache, workers=1)}, "cpu", ASKED, cache=cache)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "ROWS", 240)
        found.fitted(JOB)
    return found


@pytest.fixture(scope="module")
def case(context: Context) -> Case:
    """Up to four windows a person, of second records; the first ones enrolled."""
    return case_windows(context, JOB, "person", 4)


def explained(case: Case) -> pd.DataFrame:
    """Record and start of the windows that were not left out."""
    return case.attempts[case.attempts["reason"].isna()]


def test_windows_are_spread_evenly_over_all_segments_of_a_person() -> None:
    rows = [("a", "r1", 0, 1000), ("a", "r2", 100, 1100), ("b", "r3", 0, 450), ("c", "r4", 0, 399), ("d", "r5", 0, 500)]
    segments = pd.DataFrame(rows, columns=["subject_id", "record_id", "start", "stop"])
    chosen = spread_windows(segments, 400, 4, 100.0)
    found = [(row.subject_id, row.record_id, row.start) for row in chosen.itertuples()]
    late = [("d", "r5", 0), ("d", "r5", 100)]  # a second apart
    assert found == [("a", "r1", 0), ("a", "r1", 600), ("a", "r2", 100), ("a", "r2", 700), ("b", "r3", 25), *late]
    of_a = spread_windows(segments, 400, 3, 100.0)
    assert len(of_a[of_a["subject_id"] == "a"]) == 3
    assert set(of_a["record_id"]) == {"r1", "r2", "r3", "r5"}


def test_windows_are_the_samples_that_stage_two_reads(context: Context, case: Case) -> None:
    windows, probe = case.windows, context.splits(JOB)[0].probe.set_index("record_id")
    assert len(case.attempts) == 24
    kept = explained(case)
    assert windows.samples.shape == (len(kept), 1, 300)
    for window, record, start in zip(windows.samples, kept["record"], kept["start"], strict=True):
        whole = context.dataset.segment(record, probe.loc[record, "start"], probe.loc[record, "stop"])
        at = start - probe.loc[record, "start"]
        np.testing.assert_array_equal(window[0], standardise(whole[at : at + 300]))


def test_targets_name_the_persons_and_the_network_learnt_those_classes(context: Context, case: Case) -> None:
    names = context.fitted(JOB).model.classes["person"]
    assert [names[target] for target in case.windows.targets] == case.windows.persons.tolist()
    # a wrong order of the classes would leave chance, one in six
    assert case.accuracy == case.recognised.mean() > 0.4


def test_codes_follow_the_automatic_boundaries_and_agree_with_the_true_ones(context: Context, case: Case) -> None:
    windows, kept = case.windows, explained(case)
    for codes, record, start in zip(windows.codes, kept["record"], kept["start"], strict=True):
        np.testing.assert_array_equal(codes, wave_codes(fiducials_of(context.dataset, record, start, 300), 300)[0])
    truth = reference_codes(COHORT, kept.rename(columns={"record": "record_id"}), 300, 100.0)
    both = (windows.codes != UNKNOWN_WAVE) & (truth != UNKNOWN_WAVE)
    assert (windows.codes == truth)[both].mean() > 0.8
    masks = np.stack([region_masks(points, 300) for points in windows.fiducials])
    np.testing.assert_array_equal(masks[:, 1], windows.codes == WAVES.index("QRS"))


def test_true_codes_hold_at_any_rate() -> None:
    fine = SyntheticCohort(n_subjects=1, n_sessions=1, n_records=1, fs=500.0, noise=False)
    record = fine.records()["record_id"].iloc[0]
    windows = pd.DataFrame({"record_id": [f"synthetic/{record}"], "start": [200]})
    codes = reference_codes(fine, windows, 400, 100.0)[0]
    first = fine.boundaries(record).query("wave == 'QRS' and onset >= 1000").iloc[0]
    qrs = np.flatnonzero(codes == WAVES.index("QRS"))
    assert qrs[qrs >= np.ceil(first["onset"] / 5 - 200)][0] == np.ceil(first["onset"] / 5 - 200)


def test_windows_that_were_not_delineated_are_counted_and_left_out(
    context: Context, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = context.splits(JOB)[0].probe["record_id"].iloc[0]
    monkeypatch.delitem(context.dataset._fiducials, lost)
    left = case_windows(context, JOB, "person", 4)
    assert explained(left)["record"].tolist() == [record for record in explained(case)["record"] if record != lost]
    tried = left.attempts[left.attempts["record"] == lost]
    assert tried["reason"].tolist() == ["no beats"] * 4
    assert len(left.attempts) == 24
    # a record's own reason says more, where its windows have no waves
    store = context.stores["synthetic"]
    monkeypatch.setattr(type(store), "records", store.records.assign(delineation_failure="no clear lead"))
    reasons = case_windows(context, JOB, "person", 4).attempts.groupby("record")["reason"].agg(set)
    assert reasons.pop(lost) == {"no clear lead"}
    assert all(None in others for others in reasons)


def test_no_window_touches_a_flaw(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    segment = context.splits(JOB)[0].probe.iloc[0]
    name = segment["record_id"]
    lead = context.dataset.lead_of(name)
    flaw = pd.DataFrame({"lead": [lead], "start": [350], "stop": [360], "reason": ["flat"]})
    monkeypatch.setitem(vars(context.dataset), "_flaws", {name: flaw})
    found = case_windows(context, JOB, "person", 4).attempts
    own = found[found["record"] == name]
    assert len(own) == 3  # one before, two after
    assert ((own["start"] + 300 <= 350) | (own["start"] >= 360)).all()


def test_windows_without_a_label_are_counted(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = context.people.copy()
    unknown.loc[context.splits(JOB)[0].probe["subject_id"].iloc[0], "sex"] = None
    monkeypatch.setitem(vars(context), "people", unknown)
    found = case_windows(context, JOB, "sex", 4)
    assert (found.unlabelled, len(found.attempts)) == (4, 20)
    names = context.fitted(JOB).model.classes["sex"]
    sexes = unknown["sex"].reindex(found.windows.persons)
    assert [names[target] for target in found.windows.targets] == sexes.tolist()


def test_what_cannot_be_explained_is_refused_with_the_reason(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = context.fitted(JOB)
    monkeypatch.setitem(fitted.model.hparams, "classes", {"person": ["x", "y"], "sex": ["F", "M"]})
    with pytest.raises(StudyError, match="never seen"):
        case_windows(context, JOB, "person", 4)
    with pytest.raises(StudyError, match="not trained for age_group"):
        case_windows(context, JOB, "age_group", 4)
    beats = replace(fitted, recipe=ATTACKERS["beatnet"].recipe)
    monkeypatch.setattr(Context, "fitted", lambda *_: beats)
    with pytest.raises(StudyError, match="averaged beats"):
        case_windows(context, JOB, "person", 4)


def test_the_plan_is_of_networks_and_of_protocols_that_the_records_allow(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = network_jobs(context, 0)
    assert {job.attacker for job in jobs} == {"resnet1d"}
    assert "cross_record" in {job.protocol.name for job in jobs}
    refuse = lambda *_: (_ for _ in ()).throw(StudyError("too few"))  # noqa: E731
    monkeypatch.setattr(Context, "splits", refuse)
    assert network_jobs(context, 0) == []


def test_one_seed_of_each_network_and_protocol_is_explained_task_by_task(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def done(_: object, parts: list[Part], *__: object) -> Outcome:
        return Outcome({part.name: part for part in parts}, pd.DataFrame())

    protocols = (CrossRecord(), RandomWindows(), SubjectDisjoint(CrossRecord()))
    jobs = [replace(JOB, protocol=protocol, seed=seed) for protocol in protocols for seed in (0, 1)]
    monkeypatch.setattr(cases, "network_jobs", lambda *_: jobs)
    monkeypatch.setattr(cases, "run", done)
    tasks = ["person", "sex", "age_group"]
    assert [(*part.jobs, part.part) for part in explain_cases(context, 1)[0]] == [(jobs[1], task) for task in tasks]
    expected = [(job, task) for job in (jobs[1], jobs[3]) for task in tasks]
    expected += [(jobs[5], task) for task in tasks[1:]]
    assert [(*part.jobs, part.part) for part in explain_cases(replace(context, profile="real"), 1)[0]] == expected


def test_few_persons_give_more_windows_of_each(context: Context, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    most = []
    monkeypatch.setattr(cases, "case_windows", lambda *given: most.append(given[3]) or case)
    monkeypatch.setattr(cases, "relevances", lambda asked: ({"m": asked.windows.samples}, {"m": 0.5}))
    explained = explain_case(context, Part((JOB,), "person"))
    assert (explained.relevance["m"] is case.windows.samples, explained.incompleteness) == (True, {"m": 0.5})
    monkeypatch.setattr(cases, "FEW_PERSONS", 6)
    explain_case(context, Part((JOB,), "person"))
    assert most == [6, 1]


def test_the_feature_model_is_explained_on_the_windows_of_probes(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, features = [], Dataset.features
    monkeypatch.setattr(Dataset, "features", lambda self, part: read.append(part) or features(self, part))
    found = feature_model_shares(context, 0)
    pd.testing.assert_frame_equal(read[-1], context.splits(JOB)[0].probe)
    assert found["share"].sum() == pytest.approx(1)
    assert set(found["windows"]) == {8}


def test_parts_of_a_job_are_kept_apart(context: Context) -> None:
    one, other = Part((JOB,), "sex"), Part((JOB,), "person")
    assert one.name == "synthetic.cross_record.resnet1d.0.sex"
    assert one.made_from(context) != other.made_from(context)
    assert one.about()["task"] == "sex"


@pytest.mark.realdata
def test_cardiologists_boundaries_code_windows_of_ludb(realdata: Callable[[str], Cohort]) -> None:
    cohort = realdata("ludb")
    codes = reference_codes(cohort, pd.DataFrame({"record_id": "ludb/1", "start": [0, 300]}), 400, 100.0)
    np.testing.assert_array_equal(codes[0, 300:], codes[1, :100])
    qrs = cohort.boundaries("1", "I").query("wave == 'QRS' and onset < 2000")[["onset", "offset"]].to_numpy()
    spans = np.minimum(np.ceil(qrs / 5), 400).astype(int)
    assert len(spans) == 3
    expected = np.concatenate([np.arange(start, stop) for start, stop in spans])
    np.testing.assert_array_equal(np.flatnonzero(codes[0] == WAVES.index("QRS")), expected)
