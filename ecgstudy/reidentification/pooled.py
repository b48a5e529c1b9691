"""The paper's experiment: one network for people of several cohorts, and what their cohort alone gives away."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pandas as pd

from ecgstudy.evaluate.protocols import RandomWindows, drawn
from ecgstudy.evaluate.results import result, results_table
from ecgstudy.evaluate.splits import SUBJECT
from ecgstudy.evaluate.variants import Pooled
from ecgstudy.experiment.attackers import COHORT_ONLY, CohortAttacker
from ecgstudy.experiment.evaluation import REFERENCE, SHORT
from ecgstudy.experiment.jobs import Context, Job, run
from ecgstudy.experiment.networks import CLASSES
from ecgstudy.experiment.scores import FoldScores, score

PEOPLE, DRAWS = 87, 10
"""As many as in arXiv 2503.13495, drawn anew so many times."""
OWN_MAJORITY = "cohort_majority"
"""Who names the most frequent class of everybody's cohort."""


def pooled_work(context: Context, seed: int) -> tuple[Context, list[Job]]:
    """Jobs of TransECG, and of an attacker that only tells cohorts apart, on each draw; and the context of these jobs.

    People are of all cohorts that state sex, as many of each; there are no jobs where only one cohort does.
    TransECG learns from them alone: people of its pre-training would be on trial.
    """
    records = {name: context.records(name) for name, store in context.stores.items() if store.records["sex"].any()}
    if len(records) < 2:
        return context, []
    attacker = context.attackers[REFERENCE]
    alone = replace(attacker, recipe=replace(attacker.recipe, helped=False))
    opened = replace(context, attackers={REFERENCE: alone, COHORT_ONLY: CohortAttacker()})
    jobs = []
    for draw in range(DRAWS):
        each = np.diff(np.linspace(0, PEOPLE, len(records) + 1).astype(int))
        parts = [drawn(own, n, [seed, draw]) for own, n in zip(records.values(), each, strict=True)]
        protocol = Pooled(pd.concat(parts, ignore_index=True), RandomWindows(), draw)
        jobs += [Job(next(iter(records)), protocol, name, seed) for name in opened.attackers]
    return opened, jobs


def pooled_results(context: Context, seed: int) -> tuple[pd.DataFrame, set[str]]:
    """Rows ``pooled.random_windows.<attacker>.<person, sex or age>_accuracy``, the mean over the draws and their range.

    ``person_accuracy_within_cohort`` is of the same searches where only people of the own cohort are enrolled, so that
    its device gives nobody away; under :data:`OWN_MAJORITY` stands what naming the most frequent sex and age group of
    everybody's cohort would give. Beside them the commits that made the scores.
    """
    opened, jobs = pooled_work(context, seed)
    done = run(score, jobs, opened, "pooled")
    found: dict[tuple[str, str], list[float]] = {}
    for job in jobs:
        if job.name in done.values:
            (fold,) = done.values[job.name].folds
            for key, value in {**_persons(job.attacker, fold), **_labels(context, job, fold)}.items():
                found.setdefault(key, []).append(value)
    people = jobs[0].protocol.others[SUBJECT].unique() if jobs else []
    cohorts, rows = ", ".join(np.unique(_cohorts(people))), []
    for (attacker, answer), each in found.items():
        note = f"Mean of {len(each)} draws of {len(people)} people of {cohorts}; from the lowest to the highest draw."
        about = {"cohort": "pooled", "protocol": RandomWindows.name, "attacker": attacker}
        row = result(answer, float(np.mean(each)), "share", min(each), max(each), len(people), note, **about)
        rows.append(row | {"name": f"pooled.{RandomWindows.name}.{attacker}.{answer}"})
    return results_table(rows), done.commits


def _persons(attacker: str, fold: FoldScores) -> dict[tuple[str, str], float]:
    """Rank-1 among all, and among the people of the own cohort."""
    matrix = fold.trials.without_gaps()
    near = np.where(_cohorts(matrix.probe)[:, None] == _cohorts(matrix.gallery), matrix.scores, -np.inf)
    within = replace(matrix, scores=near)
    both = {"person_accuracy": matrix, "person_accuracy_within_cohort": within}
    return {(attacker, name): float((one.searches.ahead == 0).mean()) for name, one in both.items()}


def _labels(context: Context, job: Job, fold: FoldScores) -> dict[tuple[str, str], float]:
    """Accuracy of sex and age group, and that of the most frequent class of each cohort."""
    found, people = {}, context.people.loc[job.protocol.others[SUBJECT].unique()]
    for task, own in fold.demographics.groupby("task") if len(fold.demographics) else ():
        shares = own[[f"p_{name}" for name in CLASSES[task]]].to_numpy()
        right = np.array(CLASSES[task])[shares.argmax(axis=1)] == own["truth"]
        usual = people[task].groupby(_cohorts(people.index)).agg(lambda values: values.mode().iloc[0])
        guess = usual.reindex(_cohorts(own["person"])).to_numpy()
        name = f"{SHORT[task]}_accuracy"
        found |= {(job.attacker, name): float(right.mean())}
        found |= {(OWN_MAJORITY, name): float((guess == own["truth"]).mean())}
    return found


def _cohorts(people: Iterable[str]) -> np.ndarray:
    """Cohort of each person, shape (n,)."""
    return np.array([person.partition("/")[0] for person in people], dtype=str)
