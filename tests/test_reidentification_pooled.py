"""The paper's pooled experiment: who is drawn, that nobody helps, and numbers by hand."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.evaluate.trials import ScoreMatrix
from ecgstudy.experiment.attackers import ATTACKERS
from ecgstudy.experiment.jobs import Context, Outcome
from ecgstudy.experiment.scores import FoldScores, ScoreSet
from ecgstudy.reidentification import pooled
from ecgstudy.reidentification.pooled import pooled_results, pooled_work
from ecgstudy.signals.ingest import build_store
from ecgstudy.signals.store import RecordStore


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RecordStore]:
    cache = tmp_path_factory.mktemp("cache")
    sizes = {"one": (6, 2), "two": (7, 1)}
    cohorts = {n: SyntheticCohort(n_subjects=k, n_records=r, seed=k) for n, (k, r) in sizes.items()}
    return {name: build_store(cohort, cache, delineate=False) for name, cohort in cohorts.items()}


@pytest.fixture
def context(stores: dict[str, RecordStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    monkeypatch.setattr("ecgstudy.reidentification.pooled.PEOPLE", 8)
    monkeypatch.setattr("ecgstudy.reidentification.pooled.DRAWS", 3)
    return Context("real", stores, "cpu", ATTACKERS, cache=tmp_path)


def test_every_draw_has_as_many_people_of_each_cohort_and_one_network_learns_from_them_alone(context: Context) -> None:
    opened, jobs = pooled_work(context, 1)
    assert [job.attacker for job in jobs] == ["transecg", "cohort_only"] * 3
    assert not opened.attackers["transecg"].recipe.helped
    assert len({job.name for job in jobs}) == 6
    drawn = []
    for job in jobs[::2]:
        (split,) = opened.splits(job)
        people = {part: set(getattr(split, part)["subject_id"]) for part in ("train", "enrolment", "probe")}
        assert people["probe"] <= people["enrolment"]
        cohorts = pd.Series(sorted(people["enrolment"])).str.partition("/")[0]
        assert cohorts.value_counts().to_dict() == {"one": 4, "two": 4}
        drawn.append(frozenset(people["enrolment"]))
    assert len(set(drawn)) > 1
    assert [one.protocol.digest for one in pooled_work(context, 1)[1]] == [one.protocol.digest for one in jobs]


def test_there_is_no_pool_of_one_cohort_nor_of_people_whose_sex_is_unknown(context: Context) -> None:
    alone = replace(context, stores={"one": context.stores["one"]})
    assert pooled_work(alone, 0)[1] == []
    rows, commits = pooled_results(alone, 0)
    assert rows.empty
    assert not commits


def _scored(context: Context, jobs: list, scores: list[list[float]], guess: str) -> dict[str, ScoreSet]:
    """Scores of two people of each cohort, and what is said of their sex, for the first attacker of each draw."""
    values = {}
    for job in jobs:
        people = job.protocol.others["subject_id"].unique()[[0, 1, -2, -1]]
        matrix = ScoreMatrix(scores, people, people)
        truth = context.people["sex"].loc[people].to_numpy()
        table = pd.DataFrame({"task": "sex", "person": people, "truth": truth, "p_F": 0.0, "p_M": 0.0})
        table[f"p_{guess}"] = 1.0
        fold = FoldScores(matrix, ScoreMatrix([[0.0]], "x", "x"), matrix.probe, table if guess else pd.DataFrame())
        values[job.name] = ScoreSet(job.cohort, job.protocol.name, job.attacker, 0, (fold,))
    return values


def _results(context: Context, jobs: list, values: dict, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """Rows of what these jobs gave; all others were refused."""
    monkeypatch.setattr(pooled, "pooled_work", lambda *_: (context, jobs))
    monkeypatch.setattr(pooled, "run", lambda *_: Outcome(values, pd.DataFrame(), {"abc"}))
    rows, commits = pooled_results(context, 0)
    assert commits == {"abc"}
    return rows


def test_accuracies_by_hand(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    _, jobs = pooled_work(context, 0)
    networks = jobs[::2]
    # the first is taken for somebody of the other cohort, the third for a neighbour
    lost = [[2, 1, 3, 0], [0, 2, 1, 1], [0, 0, 2, 3], [0, 0, 1, 2]]
    found = [[2, 1, 0, 0], [0, 2, 1, 1], [0, 0, 2, 3], [0, 0, 1, 2]]
    values = _scored(context, networks[:2], lost, "F") | _scored(context, networks[2:], found, "F")
    rows = _results(context, jobs, values, monkeypatch).set_index("name")
    person = rows.loc["pooled.random_windows.transecg.person_accuracy"]
    assert person[["value", "low", "high", "n"]].tolist() == pytest.approx([(0.5 + 0.5 + 0.75) / 3, 0.5, 0.75, 8])
    assert person["note"].startswith("Mean of 3 draws of 8 people of one, two;")
    within = rows.loc["pooled.random_windows.transecg.person_accuracy_within_cohort"]
    assert within[["value", "low"]].tolist() == [0.75, 0.75]
    truths = [one.folds[0].demographics["truth"] for one in values.values()]
    expected = sum((truth == "F").mean() for truth in truths) / 3
    assert rows.loc["pooled.random_windows.transecg.sex_accuracy", "value"] == pytest.approx(expected)
    assert "pooled.random_windows.cohort_majority.sex_accuracy" in rows.index
    assert not any("age" in name for name in rows.index)


def test_the_majority_is_that_of_the_persons_own_cohort(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    sexes = ["F" if name.startswith("one/") else "M" for name in context.people.index]
    vars(context)["people"] = context.people.assign(sex=sexes)
    _, jobs = pooled_work(context, 0)
    values = _scored(context, jobs[:1], [[1, 0, 0, 0]] * 4, "F")
    rows = _results(context, jobs, values, monkeypatch).set_index("name")["value"]
    assert rows["pooled.random_windows.cohort_majority.sex_accuracy"] == 1.0
    assert rows["pooled.random_windows.transecg.sex_accuracy"] == 0.5
