"""Sex and age of people never seen: folds, what a network learns of planted people, and numbers by hand."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.errors import LeakageError, StudyError
from ecgstudy.experiment.attackers import ATTACKERS
from ecgstudy.experiment.jobs import Context, Outcome
from ecgstudy.reidentification import strangers
from ecgstudy.reidentification.strangers import (
    DECADES,
    StrangerJob,
    folds_of,
    read_strangers,
    stranger_finding,
    stranger_jobs,
    stranger_results,
    stranger_table,
)
from ecgstudy.signals.ingest import build_store
from ecgstudy.signals.store import RecordStore


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RecordStore]:
    cache = tmp_path_factory.mktemp("cache")
    sizes = {"one": (20, 2), "two": (10, 1)}
    cohorts = {
        n: SyntheticCohort(n_subjects=k, n_sessions=1, n_records=r, seed=k, seconds=8.0) for n, (k, r) in sizes.items()
    }
    return {name: build_store(cohort, cache, delineate=False) for name, cohort in cohorts.items()}


@pytest.fixture
def context(stores: dict[str, RecordStore], tmp_path: Path) -> Context:
    return Context("demo", stores, "cpu", ATTACKERS, cache=tmp_path)


def test_jobs_are_of_every_view_fold_and_seed_and_of_cohorts_with_twelve_leads(context: Context) -> None:
    jobs = stranger_jobs(context, 3)
    assert len({job.name for job in jobs}) == len(jobs) == 2 * strangers.FOLDS
    assert {(job.cohorts, job.seed) for job in jobs} == {(("one", "two"), 3)}
    lacking = context.stores["two"].records.assign(usable_leads=[("I",)] * 10)
    stores = dict(context.stores)
    stores["two"] = _with(lacking)
    assert {job.cohorts for job in stranger_jobs(replace(context, stores=stores), 0)} == {("one",)}
    stores = {"two": _with(context.stores["two"].records.assign(sex=None, age=np.nan))}
    assert stranger_jobs(replace(context, stores=stores), 0) == []


def _with(records: pd.DataFrame) -> SimpleNamespace:
    """Store with another record table."""
    return SimpleNamespace(records=records)


def test_people_are_in_one_fold_each_and_all_cohorts_in_every_fold(context: Context) -> None:
    cycles = strangers._cycles(context, StrangerJob(("one", "two"), "lead_I", 0, 0))
    table = cycles.records.assign(fold=folds_of(cycles.records))
    assert len(table.groupby(["subject_id", "fold"])) == 30
    people = table.drop_duplicates("subject_id")
    assert people.groupby(["cohort", "fold"]).size().tolist() == [4] * 5 + [2] * 5


def test_nobody_is_read_by_a_network_that_learnt_from_that_person(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt = []
    train = strangers.train_reader
    monkeypatch.setattr(
        strangers,
        "train_reader",
        lambda known, *of: (learnt.append(set(known.records["subject_id"])), train(known, *of))[1],
    )
    jobs = [job for job in stranger_jobs(context, 0) if job.view == "lead_I"]
    read = [read_strangers(context, job) for job in jobs]
    assert all(not known & set(table["person"]) for known, table in zip(learnt, read, strict=True))
    everybody = pd.concat(read)
    assert everybody["record"].nunique() == 50
    assert (everybody.groupby(["record", "task"]).size() == 1).all()
    assert set(everybody["task"]) == {"sex", "over_60", "decade"}
    years = everybody[everybody["task"] == "decade"]
    assert years["expected_age"].between(years["age"].min(), years["age"].max()).all()
    monkeypatch.setattr(strangers, "folds_of", lambda records: np.arange(len(records)) % strangers.FOLDS)
    with pytest.raises(LeakageError, match="subject_id"):
        read_strangers(context, jobs[0])


def test_what_cannot_be_learnt_is_refused(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strangers, "_labels", lambda records: pd.DataFrame("F", records.index, list(strangers.TASKS)))
    with pytest.raises(StudyError, match="too few people"):
        read_strangers(context, stranger_jobs(context, 0)[0])


def test_a_planted_sex_is_read_of_people_never_seen(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(strangers.EPOCHS, "demo", 12)
    make = strangers._cycles

    def planted(opened: Context, job: StrangerJob) -> object:
        """Write the sex into the cycle."""
        cycles = make(opened, job)
        male = (cycles.records["sex"] == "M").to_numpy()
        shapes = cycles.cycles.copy()
        shapes[male, 0, 20:40] += 2 * np.abs(shapes[male, 0]).max(axis=1, keepdims=True)
        return replace(cycles, cycles=shapes)

    monkeypatch.setattr(strangers, "_cycles", planted)
    monkeypatch.setattr(strangers, "VIEWS", {"lead_I": ("I",)})
    monkeypatch.setattr(
        strangers, "run", lambda work, jobs, opened, _: Outcome({j.name: work(opened, j) for j in jobs}, pd.DataFrame())
    )
    rows, _ = stranger_results(context, 0)
    found = rows.set_index(["cohort", "task", "metric"])["value"]
    assert found["one", "sex", "auroc"] > 0.9
    assert found["one", "sex", "accuracy"] > found["one", "sex", "majority"]


def _table() -> pd.DataFrame:
    """Four people, of whom the last is read wrongly, and their ages."""
    about = {"cohort": "c", "person": [*"abcd"], "record": [*"1234"], "age": [20.0, 40.0, 60.0, 80.0]}
    sex = pd.DataFrame({**about, "median_age": 50.0, "task": "sex", "truth": [*"FMFM"]})
    sex[["p_F", "p_M"]] = np.array([[0.9, 0.1], [0.1, 0.9], [0.8, 0.2], [0.7, 0.3]])
    years = pd.DataFrame({**about, "median_age": 50.0, "task": "decade", "truth": "0"})
    years["expected_age"] = years["age"] + 3
    years[[f"p_{name}" for name in DECADES]] = 1 / len(DECADES)
    return pd.concat([sex, years], ignore_index=True)


def _results(monkeypatch: pytest.MonkeyPatch, tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Rows of what the networks read, of whose jobs the last was refused."""
    jobs = [StrangerJob(("c",), "lead_I", fold, 0) for fold in range(len(tables) + 1)]
    values = {job.name: table for job, table in zip(jobs, tables, strict=False)}
    monkeypatch.setattr(strangers, "stranger_jobs", lambda *_: jobs)
    monkeypatch.setattr(strangers, "run", lambda *_: Outcome(values, pd.DataFrame(), {"abc"}))
    rows, commits = stranger_results(None, 0)
    assert commits == ({"abc"} if values else set())
    return rows


def test_numbers_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = _results(monkeypatch, [_table()])
    found = rows.set_index(["task", "metric"])["value"]
    assert found["sex", "accuracy"] == 0.75
    assert found["sex", "majority"] == 0.5
    assert found["age", "mae_years"] == pytest.approx(3.0)
    assert found["age", "mae_years_median"] == pytest.approx(20.0)
    assert found["sex", "auroc"] == 1.0
    shown = stranger_table(rows)
    assert shown["persons"].tolist() == [4, 4]
    assert shown.loc[shown["task"] == "age", "age error, years"].tolist() == pytest.approx([3.0])
    told = stranger_finding(rows)
    assert "c, lead I: sex AUROC 1, age error 3 years, naming the median age 20 years." in told
    nothing = _results(monkeypatch, [])
    assert "no cohort has twelve leads" in stranger_finding(nothing)
    assert stranger_table(nothing).empty
