"""Jobs are run once, whoever asks, and their scores survive the disk."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock, Timeout

from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.evaluate.protocols import CrossRecord
from ecgstudy.experiment import jobs
from ecgstudy.experiment.jobs import Workshop, run_job
from ecgstudy.experiment.people import people_table, targets, trainable_classes
from ecgstudy.experiment.plan import Job, auxiliary_cohorts, plan, protocols_of, refused_protocols
from ecgstudy.experiment.recipes import NETWORKS
from ecgstudy.experiment.scores import ensemble
from ecgstudy.signals.ingest import build_store
from ecgstudy.signals.store import RecordStore

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


def test_a_job_is_run_once_and_its_scores_survive_the_disk(
    stores: dict[str, RecordStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop = Workshop(stores, tmp_path, "cpu", NETWORKS)
    first = run_job(workshop, TEMPLATE_JOB)
    monkeypatch.setattr(jobs, "_fold_scores", None)  # a second run would fail
    again = run_job(workshop, TEMPLATE_JOB)
    one, other = first.folds[0], again.folds[0]
    np.testing.assert_array_equal(one.scores, other.scores)
    assert one.probe_records.tolist() == other.probe_records.tolist()
    assert one.scores.shape == (10, 10)
    assert (one.gallery_persons[one.scores.argmax(axis=1)] == one.probe_persons).mean() >= 0.8
    pd.testing.assert_frame_equal(one.demographics, other.demographics)


def test_a_job_that_another_process_is_running_is_left_to_it(stores: dict[str, RecordStore], tmp_path: Path) -> None:
    workshop = Workshop(stores, tmp_path, "cpu", NETWORKS)
    run_job(workshop, TEMPLATE_JOB)
    path = next((tmp_path / "scores").glob("*.npz"))
    with FileLock(path.with_suffix(".lock")), pytest.raises(Timeout):
        run_job(workshop, TEMPLATE_JOB, wait=False)


def test_scores_of_changed_data_are_computed_anew(stores: dict[str, RecordStore], tmp_path: Path) -> None:
    run_job(Workshop(stores, tmp_path, "cpu", NETWORKS), TEMPLATE_JOB)
    run_job(Workshop({"synthetic": stores["synthetic"]}, tmp_path, "cpu", NETWORKS), TEMPLATE_JOB)
    assert len(list((tmp_path / "scores").glob("*.npz"))) == 2


def test_a_cohort_of_people_recorded_once_is_auxiliary_and_trains_the_cross_cohort_attackers(
    stores: dict[str, RecordStore],
) -> None:
    assert auxiliary_cohorts(stores) == ["others"]
    names = [protocol.name for protocol in protocols_of("synthetic", stores)]
    assert names == [
        "random_windows",
        "cross_record",
        "cross_day",
        "leave_last_day",
        "subject_disjoint_cross_record",
        "subject_disjoint_cross_day",
        "cross_cohort_cross_record",
        "cross_cohort_cross_day",
        "cross_cohort_leave_last_day",
    ]
    assert [protocol.name for protocol in protocols_of("others", stores)] == ["random_windows"]


def test_networks_have_three_seeds_in_the_real_profile_and_one_in_the_demo(stores: dict[str, RecordStore]) -> None:
    seeds = {profile: {} for profile in ("real", "demo")}
    for profile, counted in seeds.items():
        for job in plan({"synthetic": stores["synthetic"]}, profile, seed=5):
            counted.setdefault((job.protocol.name, job.model), []).append(job.seed)
    assert seeds["real"]["cross_day", "transecg"] == [5, 6, 7]
    assert seeds["real"]["cross_day", "template"] == [5]
    assert seeds["demo"]["cross_day", "transecg"] == [5]
    assert ("leave_last_day", "transecg") not in seeds["demo"]


def test_a_protocol_that_the_records_refuse_is_named_and_left_out_of_the_plan(stores: dict[str, RecordStore]) -> None:
    few = {"synthetic": stores["synthetic"]}
    records = few["synthetic"].records
    kept = records[records["subject_id"].isin(records["subject_id"].unique()[:8])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RecordStore, "records", property(lambda _: kept))
        refused = refused_protocols(few, "real")
        planned = {job.protocol.name for job in plan(few, "real", seed=0)}
    assert set(refused) == {("synthetic", f"subject_disjoint_{inner}") for inner in ("cross_record", "cross_day")}
    assert all("8 persons are too few for 3 folds" in sentence for sentence in refused.values())
    assert planned == {"random_windows", "cross_record", "cross_day", "leave_last_day"}


def test_labels_follow_the_person_behind_a_lead_and_unknown_ones_are_left_out(stores: dict[str, RecordStore]) -> None:
    people = people_table(stores)
    people.loc["synthetic/S002", ["sex", "age_group"]] = None
    persons = np.array(["synthetic/S001@V2", "synthetic/S002", "synthetic/S001@V2"])
    classes = {"person": ("synthetic/S002", "synthetic/S001@V2"), "sex": ("F", "M")}
    found = targets(persons, people, classes)
    assert found["person"].tolist() == [1, 0, 1]
    truth = ("F", "M").index(people.loc["synthetic/S001", "sex"])
    assert found["sex"].tolist() == [truth, -1, truth]
    only = people.assign(sex="F")
    assert "sex" not in trainable_classes(np.array(["synthetic/S001", "synthetic/S003"]), only)


def test_an_ensemble_averages_scores_of_the_same_trials_only(stores: dict[str, RecordStore], tmp_path: Path) -> None:
    scored = run_job(Workshop(stores, tmp_path, "cpu", NETWORKS), TEMPLATE_JOB)
    fold = scored.folds[0]
    shifted = replace(scored, folds=(replace(fold, scores=fold.scores + 2),))
    np.testing.assert_allclose(ensemble([scored, shifted]).folds[0].scores, fold.scores + 1, rtol=1e-6)
    other = replace(scored, folds=(replace(fold, probe_records=fold.probe_records[::-1]),))
    with pytest.raises(ValueError, match="different probes"):
        ensemble([scored, other])
