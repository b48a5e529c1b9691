"""Controls with names drawn by lot and galleries filled up with people of other cohorts: jobs and numbers by hand."""

from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from fake_scores import toy_score_set

from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.errors import StudyError
from ecgstudy.evaluate.bootstrap import Resamples
from ecgstudy.evaluate.protocols import CrossDay, CrossRecord, training_parts
from ecgstudy.evaluate.trials import rank1_and_eer
from ecgstudy.evaluate.variants import LargeGallery, Permuted
from ecgstudy.experiment.attackers import ATTACKERS, NETWORKS, CohortAttacker, TemplateAttacker
from ecgstudy.experiment.dataset import Dataset
from ecgstudy.experiment.jobs import Context, Job, Outcome, run
from ecgstudy.experiment.scores import score
from ecgstudy.experiment.selection import Choice
from ecgstudy.reidentification import galleries
from ecgstudy.reidentification.figures import det_figure, gallery_figure
from ecgstudy.reidentification.plan import control_jobs, gallery_work, shared
from ecgstudy.reidentification.pooled import pooled_work
from ecgstudy.reidentification.strangers import stranger_jobs
from ecgstudy.signals.ingest import build_store
from ecgstudy.signals.store import RecordStore


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
    return Context("real", stores, "cpu", ATTACKERS, cache=tmp_path)


@pytest.mark.parametrize("enrolment", [True, False])
def test_names_are_drawn_by_lot_for_pieces_of_what_is_learnt_and_enrolled(context: Context, enrolment: bool) -> None:
    records = context.records("synthetic")
    protocol = Permuted(CrossRecord(), enrolment)
    (inner,), (split,) = (one.splits(records, 100.0, 0) for one in (CrossRecord(), protocol))
    owner = records.set_index("record_id")["subject_id"]
    for part in ("train", "validation", "enrolment"):
        pieces, whole = getattr(split, part), getattr(inner, part)
        if part == "enrolment" and not enrolment:
            pd.testing.assert_frame_equal(pieces, whole)
            continue
        # the same stretches, cut, and everybody has as many pieces as before
        assert (pieces["stop"] - pieces["start"]).max() <= 500
        assert set(pieces["record_id"]) == set(whole["record_id"])
        true = pieces["record_id"].map(owner)
        assert sorted(pieces["subject_id"]) == sorted(true)
        assert (pieces["subject_id"] == true).mean() < 0.5
    pd.testing.assert_frame_equal(split.probe, inner.probe)
    assert protocol.name == f"permuted_training{'_and_enrolment' if enrolment else ''}.cross_record"
    again = protocol.splits(records, 100.0, 0)[0]
    assert again.digest == split.digest != protocol.splits(records, 100.0, 1)[0].digest


def test_enrolment_by_lot_leaves_chance_and_training_by_lot_leaves_what_needs_no_training(context: Context) -> None:
    by_lot = replace(context, attackers={"template": TemplateAttacker()})
    jobs = [Job("synthetic", Permuted(CrossDay(), both), "template", 0) for both in (True, False)]
    found = run(score, jobs, by_lot, "t").values
    both, training = (rank1_and_eer([found[job.name].folds[0].trials])[0] for job in jobs)
    assert both <= 0.4
    assert training >= 0.7


def test_one_network_learns_by_lot_on_the_first_cohort_of_each_protocol(context: Context) -> None:
    jobs = control_jobs(context, 3)
    protocols = ["cross_day", "cross_day", "cross_record", "cross_record"]
    assert [job.protocol.inner.name for job in jobs] == protocols
    assert [job.protocol.enrolment for job in jobs] == [True, False] * 2
    assert {(job.cohort, job.attacker, job.seed) for job in jobs} == {("synthetic", "beatnet", 3)}
    assert len(control_jobs(replace(context, profile="demo"), 0)) == 2


def test_a_gallery_is_filled_up_with_one_record_of_each_of_the_others(context: Context) -> None:
    wide, jobs = gallery_work(context, 5)
    assert {job.attacker for job in jobs} == {*NETWORKS, "template", "cohort_only"}
    assert [job.seed for job in jobs if job.attacker == "beatnet"] == [5, 6, 7]
    (split,), (inner,) = wide.splits(jobs[0]), CrossDay().splits(context.records("synthetic"), 100.0, 0)
    assert split.protocol == "cross_day_large_gallery"
    assert split.enrolment["subject_id"].nunique() == 22
    assert split.enrolment["subject_id"].str.startswith("others/").sum() == 12
    for part in ("train", "validation", "probe"):
        pd.testing.assert_frame_equal(getattr(split, part), getattr(inner, part))
    # another pool of strangers is another protocol
    fewer = LargeGallery(jobs[0].protocol.others.iloc[1:], CrossDay())
    assert fewer.digest != jobs[0].protocol.digest
    alone = replace(context, stores={"synthetic": context.stores["synthetic"]})
    assert gallery_work(alone, 0)[1] == []


def test_all_jobs_can_be_shared(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ecgstudy.reidentification.plan.open_usable_stores", lambda *_: (context.stores, None))
    monkeypatch.setattr("ecgstudy.reidentification.plan.cohorts_of", lambda _: [])
    (_, known, _), (_, large, wide), (_, together, _), (_, read, _) = shared("real", 0, "cpu")
    assert {job.name for job in control_jobs(context, 0)} < {job.name for job in known}
    assert [job.name for job in large] == [job.name for job in gallery_work(context, 0)[1]]
    assert "cohort_only" in wide.attackers
    assert [job.name for job in together] == [job.name for job in pooled_work(context, 0)[1]]
    assert read == stranger_jobs(context, 0)


def test_the_cohort_attacker_tells_cohorts_and_nobody_else(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    lead = Dataset.lead
    rng = np.random.default_rng(0)

    def humming(self: Dataset, record_id: str, start: int, stop: int, reference: bool = False) -> np.ndarray:
        """Let the device of the others hum at 17 Hz."""
        values, loud = lead(self, record_id, start, stop, reference), record_id.startswith("others/")
        hum = np.sin(2 * np.pi * 17 * np.arange(start, stop) / 100 + rng.uniform(0, 6))
        return values + 0.2 * loud * hum.astype(np.float32)

    monkeypatch.setattr(Dataset, "lead", humming)
    wide, jobs = gallery_work(context, 0)
    job = next(job for job in jobs if job.attacker == "cohort_only")
    fold = score(wide, job).folds[0].trials
    strange = np.char.startswith(fold.gallery, "others/")
    assert fold.scores[:, ~strange].min() > fold.scores[:, strange].max()
    assert rank1_and_eer([fold])[0] < 0.5  # its ten persons are all alike
    with pytest.raises(StudyError, match="all who are enrolled are of one cohort"):
        CohortAttacker().fit(context, job, CrossDay().splits(context.records("synthetic"), 100.0, 0)[0])


def _values(context: Context, scores: dict[str, list[list[float]]]) -> tuple[list[Job], dict]:
    """Hand-made scores of a probe of each of two own persons with two own and four strange people."""
    others = context.records("others")
    pool = others["subject_id"].unique()
    learnt = set(training_parts(others, 0)[0]["subject_id"])
    unheard = [person for person in pool if person not in learnt][:2]
    gallery = ["synthetic/a", "synthetic/b", *unheard, *sorted(learnt)[:2]]
    jobs = [Job("synthetic", LargeGallery(others, CrossDay()), attacker, 0) for attacker in scores]
    sets = {
        job.name: replace(
            toy_score_set(own, gallery[:2], gallery, attacker=job.attacker, protocol=job.protocol.name),
            cohort="synthetic",
        )
        for job, own in zip(jobs, scores.values(), strict=True)
    }
    return jobs, sets


def _results(context: Context, jobs: list[Job], values: dict, *others: object) -> pd.DataFrame:
    """Rows of what these jobs gave."""
    *others, monkeypatch = others
    monkeypatch.setattr(galleries, "run", lambda *_: Outcome(values, pd.DataFrame(), {"abc"}))
    rows, commits = galleries.gallery_results(context, jobs, *others)
    assert commits == ({"abc"} if jobs else set())
    return rows


def test_rank1_among_strangers_by_hand(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ecgstudy.reidentification.galleries.MEASURED", (3, 4, 5))
    # a: one unheard and one known stranger ahead; b: its own neighbour ahead, whoever else is there
    jobs, sets = _values(context, {"template": [[5, 1, 9, 1, 1, 9], [7, 5, 1, 1, 1, 1]]})
    resamples = {"synthetic": Resamples.draw(["synthetic/a", "synthetic/b"], 0, 20)}
    found = _results(context, jobs, sets, {}, resamples, monkeypatch).set_index("name")
    # of two unheard strangers one is ahead; of five slots' three drawn among four, two are ahead
    expected = {2: 1.0, 3: 1 / 2, 4: 0.0, 5: 0.0, 6: 0.0}
    for size, first in expected.items():
        assert found.loc[f"gallery.{size}.template.rank1", "value"] == pytest.approx(first / 2), size
    assert found["strangers"].tolist() == ["none", *["unknown to networks"] * 2, *["most known from pre-training"] * 2]
    assert set(found["protocol"]) == {"cross_day"}
    assert _results(context, [], {}, {}, resamples, monkeypatch).empty


def test_the_best_attacker_is_who_it_is_in_the_evaluation(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = [[5, 1, 1, 1, 1, 1], [1, 5, 1, 1, 1, 1]], [[1, 5, 1, 1, 1, 1], [5, 1, 1, 1, 1, 1]]
    jobs, sets = _values(context, {"resnet1d": good, "beatnet": bad})
    resamples = {"synthetic": Resamples.draw(["synthetic/a", "synthetic/b"], 0, 20)}

    def best(chosen: str, protocol: str = "cross_day") -> pd.Series:
        ranking = pd.DataFrame({"rank1": 1.0, "eer": 0.0, "persons": 9}, index=["not here", chosen])
        choices = {("synthetic", protocol): [Choice(frozenset(), "", ranking)]}
        return _results(context, jobs, sets, choices, resamples, monkeypatch).set_index("name")["value"]

    for chosen, rank1 in (("resnet1d", 1.0), ("beatnet", 0.0), ("resnet1d + beatnet", 0.0)):
        found = best(chosen)
        assert found["gallery.6.best.rank1"] == rank1
        assert found["gallery.6.resnet1d.rank1"] == 1.0
    assert "gallery.6.best.rank1" not in best("resnet1d", "cross_record")


def test_the_figure_shows_what_was_measured_beside_what_is_extrapolated() -> None:
    toy = toy_score_set(np.eye(3), "abc", "abc").folds[0].trials
    about = {"cohort": "x", "protocol": "cross_day", "attacker": "best"}
    measured = pd.DataFrame([about | {"people": 200, "value": 0.5}, about | {"people": 500, "value": 0.4}])
    extrapolated = pd.DataFrame(columns=["cohort", "protocol", "people", "rank1", "rank1_low", "rank1_high"])
    _, right = gallery_figure({("x", "cross_day", "best"): [toy]}, extrapolated, measured).axes
    assert any(line.get_xdata().tolist() == [200, 500] for line in right.lines if len(line.get_xdata()))
    plt.close("all")


def test_a_panel_shows_the_first_protocol_that_holds_of_a_cohort() -> None:
    toy = toy_score_set(np.eye(3), "abc", "abc").folds[0].trials
    cells = [("x", "random_windows"), ("x", "cross_record"), ("x", "cross_day"), ("y", "time_separated")]
    attacks = {(*cell, "best"): [toy] for cell in cells}
    titles = [ax.get_title() for ax in det_figure(attacks).axes]
    assert titles == ["x\ncross day", "y\ntime separated"]
    assert not det_figure({(*cells[0], "best"): [toy]}).axes[0].get_visible()
    plt.close("all")
