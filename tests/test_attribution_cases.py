"""Probe windows come from where they say, with the classes of the network that is explained."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ecgstudy.attribution import cases
from ecgstudy.attribution.cases import Case, case_windows, explain_case, explain_cases, network_jobs, spread_windows
from ecgstudy.attribution.methods import Answers, Question
from ecgstudy.attribution.waves import WAVES, wave_codes
from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.errors import NotApplicableError, StudyError
from ecgstudy.evaluate.protocols import CrossRecord, RandomWindows, SubjectDisjoint
from ecgstudy.experiment import networks
from ecgstudy.experiment.attackers import ATTACKERS, NetworkAttacker
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


@pytest.fixture(autouse=True)
def _every_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cases.MOST_WINDOWS, "demo", 24)


@pytest.fixture(scope="module")
def case(context: Context) -> Case:
    """Up to four windows a person, of second records; the first ones enrolled."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(cases.MOST_WINDOWS, "demo", 24)
        return case_windows(context, JOB)


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
        np.testing.assert_allclose(window[0], standardise(whole[at : at + 300]), atol=1e-5)


def test_targets_name_the_persons_and_the_network_learnt_those_classes(context: Context, case: Case) -> None:
    names = context.fitted(JOB).model.classes["person"]
    assert [names[target] for target in case.windows.targets] == case.windows.persons.tolist()
    # a wrong order of the classes would leave chance, one in six
    assert case.right.mean() > 0.4


def test_codes_follow_the_boundaries_and_what_lies_around_a_window_is_known(context: Context, case: Case) -> None:
    windows, kept = case.windows, explained(case)
    assert windows.around.shape == (len(kept), 1, 300 + 2 * 200)
    cohort = SyntheticCohort(n_subjects=6, n_sessions=1, n_records=2, seed=3, noise=False)
    right = []
    for codes, points, record, start in zip(
        windows.codes, windows.fiducials, kept["record"], kept["start"], strict=True
    ):
        np.testing.assert_array_equal(codes, wave_codes(points, 300)[0])
        own = context.dataset.fiducials(record, start, start + 300)["r_peak"].to_numpy()
        inside = points["r_peak"][(points["r_peak"] >= 0) & (points["r_peak"] < 300)]
        np.testing.assert_allclose(inside, own)
        marks = cohort.boundaries(record.split("/")[1]).query("wave == 'QRS'")
        places = marks["peak"].to_numpy() - start
        places = places[(places > 0) & (places < 299)].astype(int)
        right += list(codes[places] == WAVES.index("QRS"))
    assert np.mean(right) > 0.9


def test_a_gap_in_the_boundaries_is_filled_and_told(
    context: Context, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not case.attempts["transferred"].all()
    record = explained(case)["record"].iloc[0]
    gaps = context.dataset._fiducials[record].copy()
    gaps.iloc[::2, gaps.columns.get_loc("qrs_offset")] = np.nan
    monkeypatch.setitem(context.dataset._fiducials, record, gaps)
    filled = case_windows(context, JOB)
    own = filled.attempts[filled.attempts["record"] == record]
    assert own["reason"].isna().all()
    assert own["transferred"].all()


def test_windows_that_were_not_delineated_are_counted_and_left_out(
    context: Context, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = context.splits(JOB)[0].probe["record_id"].iloc[0]
    monkeypatch.delitem(context.dataset._fiducials, lost)
    left = case_windows(context, JOB)
    assert explained(left)["record"].tolist() == [record for record in explained(case)["record"] if record != lost]
    tried = left.attempts[left.attempts["record"] == lost]
    assert tried["reason"].tolist() == ["no beats"] * 4
    assert len(left.attempts) == 24
    # a record's own reason says more, where its windows have no waves
    store = context.stores["synthetic"]
    monkeypatch.setattr(type(store), "records", store.records.assign(delineation_failure="no clear lead"))
    reasons = case_windows(context, JOB).attempts.groupby("record")["reason"].agg(set)
    assert reasons.pop(lost) == {"no clear lead"}
    assert all(None in others for others in reasons)


def test_no_window_touches_a_flaw(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    segment = context.splits(JOB)[0].probe.iloc[0]
    name = segment["record_id"]
    lead = context.dataset.lead_of(name)
    flaw = pd.DataFrame({"lead": [lead], "start": [350], "stop": [360], "reason": ["flat"]})
    monkeypatch.setitem(vars(context.dataset), "_flaws", {name: flaw})
    found = case_windows(context, JOB).attempts
    own = found[found["record"] == name]
    assert len(own) == 3  # one before, two after
    assert ((own["start"] + 300 <= 350) | (own["start"] >= 360)).all()


def test_what_cannot_be_explained_is_refused_with_the_reason(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = context.fitted(JOB)
    monkeypatch.setitem(fitted.model.hparams, "classes", {"person": ["x", "y"]})
    with pytest.raises(StudyError, match="whom the network has learnt"):
        case_windows(context, JOB)
    monkeypatch.undo()
    beats = replace(fitted, recipe=ATTACKERS["beatnet"].recipe)
    monkeypatch.setattr(Context, "fitted", lambda *_: beats)
    with pytest.raises(StudyError, match="averaged beats"):
        case_windows(context, JOB)


def test_the_plan_is_of_networks_and_of_protocols_that_the_records_allow(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = network_jobs(context, 0)
    assert {job.attacker for job in jobs} == {"resnet1d"}
    assert "cross_record" in {job.protocol.name for job in jobs}
    refuse = lambda *_: (_ for _ in ()).throw(StudyError("too few"))  # noqa: E731
    monkeypatch.setattr(Context, "splits", refuse)
    assert network_jobs(context, 0) == []
    with pytest.raises(NotApplicableError, match="two records each"):
        cases.audited_jobs(context, 0)


def test_the_best_protocol_of_each_cohort_is_explained(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    def done(_: object, jobs: list[Job], *__: object) -> Outcome:
        return Outcome({job.name: job for job in jobs}, pd.DataFrame())

    protocols = (RandomWindows(), CrossRecord(), SubjectDisjoint(CrossRecord()))
    jobs = [replace(JOB, protocol=protocol) for protocol in protocols]
    leaky = [replace(JOB, cohort="other", protocol=RandomWindows())]
    monkeypatch.setattr(cases, "network_jobs", lambda *_: jobs + leaky)
    monkeypatch.setattr(cases, "run", done)
    assert explain_cases(context, 1)[0] == [jobs[1], *leaky]


def test_methods_are_asked_who_the_person_is(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answers = [], Answers()
    monkeypatch.setattr(cases, "ask", lambda question: asked.append(question) or answers)
    found = explain_case(context, JOB)
    assert found.answers is answers
    assert isinstance(asked[0], Question)
    assert (asked[0].task, asked[0].windows, asked[0].model.name) == ("person", found.windows, "resnet1d")


@pytest.mark.parametrize(("most", "expected"), [(7, 7), (12, 12), (30, 30), (1000, 48)])
def test_the_fewer_persons_the_more_windows_of_each(
    context: Context, monkeypatch: pytest.MonkeyPatch, most: int, expected: int
) -> None:
    monkeypatch.setitem(cases.MOST_WINDOWS, "demo", most)
    found = case_windows(context, JOB).attempts
    assert len(found) == expected  # of ten seconds, at least one apart, there are eight of each of six
    counts = found["person"].value_counts()
    assert len(counts) >= 5
    assert counts.max() - counts.min() <= 1
