"""From scores to results: the attacker is the ensemble of its seeds, its intervals come from resampling persons.

Under "best" stands who was chosen on the recordings of other people (:mod:`ecgstudy.experiment.selection`).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from ecgstudy.evaluate import biometric
from ecgstudy.evaluate.bootstrap import RESAMPLES, Estimate, Resamples, paired_difference
from ecgstudy.evaluate.classification import classification_report, mae_report
from ecgstudy.evaluate.results import estimate_results, result, results_table, unit_of
from ecgstudy.evaluate.streamed import StreamedMatrix
from ecgstudy.evaluate.trials import ScoreMatrix, rank1_and_eer
from ecgstudy.experiment.networks import CLASSES
from ecgstudy.experiment.scores import ScoreSet, ensemble
from ecgstudy.experiment.selection import BEST, Cells, Choice, best_scores, candidates_of, choose
from ecgstudy.study.parallel import in_parallel

REFERENCE = "transecg"
"""The other attackers are compared with this one, on identical trials."""
ALSO_BY_RULE = ("rank1", "rank1_per_person", "eer")
"""What is measured under every rule of enrolment."""
SHORT = {"sex": "sex", "age_group": "age"}
"""Tasks as results name them."""
CROSS_COHORT = "cross_cohort_"
UNSEEN = ("subject_disjoint_", CROSS_COHORT)
"""How the names of protocols begin whose validation people no network was trained on."""
Attacks = dict[tuple[str, str, str], list[ScoreMatrix]]
"""Score matrices, one a fold, by cohort, protocol and attacker; of streamed ones the trials of some persons, drawn."""


class Evaluation(NamedTuple):
    """What the scores of a plan say.

    `rows` is a long table (:mod:`ecgstudy.evaluate.results`) with some more columns: seeds, lowest and highest (rank1
    and eer of each training seed alone), p (of a difference to :data:`REFERENCE` on identical trials and resamples),
    stands_for (who was chosen, under "best") and, of the rows by another rule of enrolment, base (the attacker) and
    rule. `attacks` are the mean scores behind it all, `choices` who was chosen for whom, by cohort and protocol.
    """

    rows: pd.DataFrame
    attacks: Attacks
    choices: dict[tuple[str, str], list[Choice]]


def cohort_resamples(score_sets: Sequence[ScoreSet], seed: int, n_resamples: int = RESAMPLES) -> dict[str, Resamples]:
    """Draw each cohort's persons once for all of its protocols and attackers."""
    persons: dict[str, set[str]] = {}
    for s in score_sets:
        for fold in s.folds:
            persons.setdefault(s.cohort, set()).update([*fold.trials.probe, *fold.trials.gallery])
    return {cohort: Resamples.draw(names, seed, n_resamples) for cohort, names in persons.items()}


def evaluate_all(score_sets: Sequence[ScoreSet], resamples: Mapping[str, Resamples]) -> Evaluation:
    """Evaluate every attacker under every protocol, and "best" after the others of its protocol.

    Parameters
    ----------
    score_sets : sequence of ScoreSet
        All cohorts, protocols, attackers and seeds.
    resamples : mapping of str to Resamples
        Draws by cohort, from :func:`cohort_resamples`.
    """
    cells = _cells(score_sets)
    sizes: dict[str, list[int]] = {}
    for s in score_sets:
        sizes.setdefault(s.cohort, []).extend(np.unique(fold.trials.gallery).size for fold in s.folds)
    choices = choose(cells)
    items = [(attackers, resamples[cell[0]], choices[cell], min(sizes[cell[0]])) for cell, attackers in cells.items()]
    found = list(in_parallel(_evaluate_cell, items, "cpu", "evaluation"))
    rows, attacks = [], {}
    for cell, evaluated in zip(cells, found, strict=True):
        for attacker, (own, matrices) in evaluated.items():
            rows += own
            attacks[*cell, attacker] = matrices
    return Evaluation(results_table(rows), attacks, choices)


def _cells(score_sets: Iterable[ScoreSet]) -> Cells:
    """Sort score sets; everything in the order of its first appearance."""
    cells: dict[tuple[str, str], dict[str, list[ScoreSet]]] = {}
    for s in score_sets:
        cells.setdefault((s.cohort, s.protocol), {}).setdefault(s.attacker, []).append(s)
    return cells


def _evaluate_cell(
    attackers: Mapping[str, Sequence[ScoreSet]], resamples: Resamples, choices: Sequence[Choice], gallery: int
) -> dict[str, tuple[list[dict[str, object]], list[ScoreMatrix]]]:
    """Evaluate the attackers of one cohort and protocol, the best one too, also in galleries of equal size."""
    reference = attackers.get(REFERENCE)
    found = {name: evaluate(sets, resamples, reference, gallery) for name, sets in attackers.items()}
    best = best_scores(candidates_of(attackers), choices)
    for name, sets in attackers.items():
        found[name][0].extend(_by_other_rules(sets, resamples))
    if best is not None:
        name, sets = best
        rows, attack = found.get(name) or evaluate(sets, resamples, reference, gallery)
        own = [row for row in rows if "rule" not in row]
        found[BEST] = [row | {"attacker": BEST, "stands_for": name} for row in own], attack
    return found


def _by_other_rules(sets: Sequence[ScoreSet], resamples: Resamples) -> list[dict[str, object]]:
    """Rows of :data:`ALSO_BY_RULE`, of the same embeddings when people are enrolled by other rules.

    None of trials that are too many to hold, of which each rule would take as long again.
    """
    rows = []
    for rule in sets[0].others:
        attack = ensemble([one.under(rule) for one in sets])
        if any(isinstance(fold.trials, StreamedMatrix) for fold in attack.folds):
            continue
        folds, rng = scored_folds(_without_gaps(attack), resamples), np.random.default_rng(resamples.seed)
        report = biometric.biometric_report(folds, resamples, rng, ALSO_BY_RULE)
        about = {"cohort": attack.cohort, "protocol": attack.protocol, "attacker": attack.attacker}
        rows += estimate_results(report, **about, base=sets[0].attacker, rule=rule)
    return rows


def evaluate(
    score_sets: Sequence[ScoreSet],
    resamples: Resamples,
    reference: Sequence[ScoreSet] | None = None,
    gallery: int | None = None,
    only: Sequence[str] = (),
) -> tuple[list[dict[str, object]], list[ScoreMatrix]]:
    """Rows of one attacker under one protocol (see :class:`Evaluation`), and the mean scores of its seeds.

    `resamples` is the same object for all attackers; `reference` is compared with on the same trials. In galleries of
    so many persons is measured ``rank1_equal_gallery``, to compare protocols; where some who are enrolled never probe,
    ``rank1_returners`` and ``eer_returners`` are of a gallery without them. `only` some metrics, rank1 among them, are
    measured where the others are not asked (:func:`ecgstudy.evaluate.biometric.biometric_report`).
    """
    attack = ensemble(score_sets)
    about = {"cohort": attack.cohort, "protocol": attack.protocol, "attacker": attack.attacker}
    matrices = _without_gaps(attack)
    folds = scored_folds(matrices, resamples)
    report = biometric.biometric_report(folds, resamples, np.random.default_rng(resamples.seed), only)
    rows = estimate_results(report, **about)
    alone = pd.DataFrame([rank1_and_eer(_without_gaps(one)) for one in score_sets], columns=["rank1", "eer"])
    for row in rows:
        if row["metric"] in alone:
            values = alone[row["metric"]]
            row |= {"seeds": len(alone), "lowest": values.min(), "highest": values.max()}
    if reference and reference[0].attacker != attack.attacker:
        others = scored_folds(_without_gaps(ensemble(reference)), resamples)
        for name, contrast in contrasts(folds, others, resamples).items():
            (row,) = estimate_results({f"{name}_minus_{REFERENCE}": contrast}, **about)
            rows.append(row | {"p": contrast.p})
    if gallery:
        equal = {"rank1_equal_gallery": biometric.rank1_in_gallery(matrices, resamples, gallery)}
        told = f"In galleries of {gallery} persons, the smallest of the cohort's protocols."
        rows += [row | {"note": f"{told} {row['note']}".strip()} for row in estimate_results(equal, **about)]
        rows += estimate_results(_of_returners(matrices, resamples), **about)
    unscored = [fold.trials.unscored for fold in score_sets[0].folds]
    counts = {"persons": report["rank1"].n, "enrolled": max(one.searches.n_enrolled for one in matrices)}
    counts |= {"probes": sum(one.probe.size for one in matrices), "unscored": sum(unscored)}
    rows += [result(name, value, unit_of(name), **about) for name, value in counts.items()]
    risk = biometric.per_person_risk(matrices)
    for name, value in biometric.risk_tail(risk).items():
        note = "" if math.isfinite(value) else "Not defined: nobody has a probe."
        rows.append(result(name, float(value), "share", n=len(risk), note=note, **about))
    return rows, [fold.trials.sampled().without_gaps() for fold in attack.folds]


def contrasts(
    folds: Sequence[biometric.ScoredFold], others: Sequence[biometric.ScoredFold], resamples: Resamples
) -> dict[str, Estimate]:
    """Rank-1 and EER of one attacker minus those of another, on identical trials and resamples."""
    n_persons = np.unique(np.concatenate([fold.probe for fold in folds])).size
    return {
        name: paired_difference(
            statistic(folds), statistic(others), resamples, n_persons, "one of the two is undefined"
        )
        for name, statistic in (("rank1", biometric.rank1_statistic), ("eer", biometric.eer_statistic))
    }


def _of_returners(matrices: Sequence[ScoreMatrix | StreamedMatrix], resamples: Resamples) -> dict[str, Estimate]:
    """Rank-1 and EER in galleries of those alone who probe; nothing where that is everybody, or too many to hold."""
    probing = [np.isin(one.gallery, one.probe) for one in matrices]
    if any(isinstance(one, StreamedMatrix) for one in matrices) or np.concatenate(probing).all():
        return {}
    some = [
        replace(one, scores=one.scores[:, kept], gallery=one.gallery[kept])
        for one, kept in zip(matrices, probing, strict=True)
        if kept.any()
    ]
    rng = np.random.default_rng(resamples.seed)
    report = biometric.biometric_report(scored_folds(some, resamples), resamples, rng) if some else {}
    return {f"{name}_returners": report[name] for name in ("rank1", "rank1_per_person", "eer") if report}


def _without_gaps(attack: ScoreSet) -> list[ScoreMatrix | StreamedMatrix]:
    """Trials of each fold, ready to be measured."""
    return [fold.trials.without_gaps() for fold in attack.folds]


def scored_folds(matrices: Iterable[ScoreMatrix | StreamedMatrix], resamples: Resamples) -> list[biometric.ScoredFold]:
    """Prepare folds to be measured under the weights of persons."""
    rng = np.random.default_rng(resamples.seed)
    return [biometric.ScoredFold(matrix, resamples, rng) for matrix in matrices]


def evaluate_demographics(score_sets: Iterable[ScoreSet], resamples: Mapping[str, Resamples]) -> pd.DataFrame:
    """Rows of sex and age for every attacker that has heads for them, by the mean over its seeds' probabilities.

    A cohort without labels gets undefined rows that say so, wherever other cohorts have numbers.
    """
    tables = {}
    for cell, attackers in _cells(score_sets).items():
        for attacker, sets in attackers.items():
            # every person is read by an attacker that was trained without that fold's probes
            labelled = [fold.demographics for fold in ensemble(sets).folds if len(fold.demographics)]
            tables[*cell, attacker] = pd.concat(labelled) if labelled else pd.DataFrame({"task": []})
    with_heads = {attacker for (_, _, attacker), table in tables.items() if len(table)}
    rows = []
    for (cohort, protocol, attacker), table in tables.items():
        for task in CLASSES if attacker in with_heads else ():
            estimates = _of_heads(task, table[table["task"] == task], resamples[cohort])
            about = {"cohort": cohort, "protocol": protocol, "attacker": attacker, "task": SHORT[task]}
            rows += estimate_results(estimates, **about)
    return results_table(rows)


def _of_heads(task: str, rows: pd.DataFrame, resamples: Resamples) -> dict[str, Estimate]:
    """Metrics of one task; of age, the expected age in years too."""
    shares = [f"p_{name}" for name in CLASSES[task]]
    rows = rows.reindex(columns=["person", "truth", "age", "expected_age", *shares])
    persons, probabilities = rows["person"].to_numpy(dtype=str), rows[shares].to_numpy(dtype=float)
    report = classification_report(rows["truth"].tolist(), probabilities, CLASSES[task], persons, resamples)
    if task == "age_group":
        report |= mae_report(rows["age"].to_numpy(float), rows["expected_age"].to_numpy(float), persons, resamples)
    return report
