"""Rank-1 in large galleries: measured among people of other cohorts, and extrapolated as far as that allows."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import hypergeom

from ecgstudy.evaluate.biometric import mean_of_probes
from ecgstudy.evaluate.bootstrap import Resamples
from ecgstudy.evaluate.extrapolation import TAILS, checked_rank1
from ecgstudy.evaluate.protocols import training_parts
from ecgstudy.evaluate.results import INTERVAL, estimate_results, pivot, results_table
from ecgstudy.evaluate.splits import SUBJECT
from ecgstudy.evaluate.trials import ScoreMatrix
from ecgstudy.experiment.evaluation import Attacks
from ecgstudy.experiment.jobs import Context, Job, run
from ecgstudy.experiment.scores import ScoreSet, ensemble, score
from ecgstudy.experiment.selection import BEST, Choice, best_scores, candidates_of
from ecgstudy.reidentification.tables import CELL

EXTRAPOLATED = ("cross_record", "cross_day")
SIZES = (100, 1_000, 10_000, 1_000_000, 100_000_000)
"""Gallery sizes of the extrapolation, persons."""
MEASURED = (200, 500, 1000)
"""Gallery sizes that are measured where there are so many people, beside the smallest and the largest."""


def gallery_results(
    context: Context,
    jobs: Sequence[Job],
    choices: Mapping[tuple[str, str], Sequence[Choice]],
    resamples: Mapping[str, Resamples],
) -> tuple[pd.DataFrame, set[str]]:
    """Rows ``gallery.<n>.<attacker>.rank1``: the people of one cohort sought among n, most of other cohorts.

    The own cohort's gallery stays whole and strangers are drawn to fill it up, exactly averaged over all draws: of
    those whom no network was pre-trained on while they suffice, else of all. `choices` say who is "best". With
    columns people and strangers (who they are); beside the rows stand the commits that made the scores.
    """
    done = run(score, jobs, context, "galleries")
    by_attacker: dict[str, list[ScoreSet]] = {}
    for job in jobs:
        if job.name in done.values:
            by_attacker.setdefault(job.attacker, []).append(done.values[job.name])
    if not by_attacker:
        return results_table([]), set()
    cohort, protocol = jobs[0].cohort, jobs[0].protocol.inner.name
    about = {"cohort": cohort, "protocol": protocol}
    sets: dict[str, Sequence[ScoreSet]] = dict(by_attacker)
    if best := best_scores(candidates_of(by_attacker), choices.get((cohort, protocol), ())):
        sets[BEST] = best[1]
    drawn, learnt = resamples[cohort], set(training_parts(jobs[0].protocol.others, context.split_seed)[0][SUBJECT])
    found = []
    for attacker, own in sets.items():
        (fold,) = ensemble(own).folds
        if isinstance(fold.trials, ScoreMatrix):  # others are too many to hold
            found += _of_sizes(fold.trials.without_gaps(), cohort, learnt, drawn, about | {"attacker": attacker})
    return results_table(found), done.commits


def gallery_table(measured: pd.DataFrame) -> pd.DataFrame:
    """One row a size of the gallery, a column an attacker."""
    return pivot(measured, [*CELL, "people", "strangers"], "attacker") if len(measured) else measured


def _of_sizes(
    matrix: ScoreMatrix, cohort: str, learnt: set[str], resamples: Resamples, about: dict[str, str]
) -> list[dict[str, object]]:
    """Rows of one attacker."""
    (best, column), people = matrix.best, np.unique(matrix.gallery)
    strange = ~np.char.startswith(people, f"{cohort}/")
    ahead = best >= best[np.arange(column.size), column][:, None]
    unheard = strange & ~np.isin(people, [*learnt])
    own, rows = people.size - int(strange.sum()), []
    for size in sorted({own, *(n for n in MEASURED if own < n < people.size), people.size}):
        pool = unheard if 0 < size - own <= unheard.sum() else strange
        first = hypergeom.pmf(0, pool.sum(), ahead[:, pool].sum(axis=1), size - own)
        first *= ahead[:, ~strange].sum(axis=1) == 1
        person, count = resamples.index_of(matrix.probe), np.ones(column.size)
        (row,) = estimate_results({"rank1": mean_of_probes(first, person, count, resamples, "nobody probes")}, **about)
        told = "unknown to networks" if pool is unheard else "most known from pre-training" if size > own else "none"
        rows.append(row | {"name": f"gallery.{size}.{about['attacker']}.rank1", "people": size, "strangers": told})
    return rows


def extrapolation_results(attacks: Attacks, resamples: Mapping[str, Resamples], measured: pd.DataFrame) -> pd.DataFrame:
    """Rows of the best attackers' rank-1 extrapolated to :data:`SIZES` people, ``rank1_at_<people>``.

    With columns people, reason (why undefined) and the value of each tail behind the interval; `measured` are
    :func:`gallery_results`, which an extrapolation has to meet.
    """
    rows = []
    for (cohort, protocol, attacker), attack in attacks.items():
        if attacker != BEST or protocol not in EXTRAPOLATED:
            continue
        (matrix,) = attack
        about = {"cohort": cohort, "protocol": protocol, "attacker": attacker}
        larger = measured[(measured[[*about]] == list(about.values())).all(axis=1)]
        known = dict(zip(larger.get("people", ()), larger["value"], strict=True))
        for people, tails in checked_rank1(matrix, resamples[cohort], SIZES, known).items():
            (row,) = estimate_results({f"rank1_at_{people}": tails["envelope"]}, **about)
            row |= {"people": people, "reason": tails["envelope"].reason or ""}
            rows.append(row | {f"{tail} tail": tails[tail].value for tail in TAILS})
    return results_table(rows)


def extrapolation_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Show rows of :func:`extrapolation_results`."""
    named = {"n": "persons", "people": "people", **{part: f"rank1{end}" for part, end in INTERVAL.items()}}
    shown = [*CELL, *named, *(f"{tail} tail" for tail in TAILS), "reason"]
    return rows.reindex(columns=shown).rename(columns=named).infer_objects()
