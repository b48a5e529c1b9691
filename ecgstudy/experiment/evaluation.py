"""From scores to results: the attacker is the ensemble of its seeds, its intervals come from resampling persons.

Under "best" stands the attacker, or fusion of attackers, that was chosen on validation scores alone.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd

from ecgstudy.evaluate import biometric
from ecgstudy.evaluate.bootstrap import Estimate, Resamples, paired_difference
from ecgstudy.evaluate.classification import classification_report, mae_report
from ecgstudy.evaluate.results import estimate_results, result, results_table, unit_of
from ecgstudy.evaluate.streamed import StreamedMatrix
from ecgstudy.evaluate.trials import ScoreMatrix, rank1_and_eer
from ecgstudy.experiment.attackers import UNTRAINED
from ecgstudy.experiment.networks import CLASSES
from ecgstudy.experiment.scores import ScoreSet, ensemble, mean_fold
from ecgstudy.study.parallel import in_parallel

RESAMPLES = 1000
REFERENCE = "transecg"
"""The other attackers are compared with this one, on identical trials."""
BEST = "best"
FUSIONS: dict[str, tuple[tuple[str, ...], bool]] = {
    "resnet1d + beatnet": (("resnet1d", "beatnet"), False),
    "networks + template": (("transecg", "resnet1d", "beatnet", "template"), True),
}
"""Attackers whose scores are averaged, and whether each is first standardised by its validation impostors."""
SHORT = {"sex": "sex", "age_group": "age"}
"""Tasks as results name them."""
CROSS_COHORT = "cross_cohort_"
UNSEEN = ("subject_disjoint_", CROSS_COHORT)
"""How the names of protocols begin whose validation people no network was trained on."""
Attacks = dict[tuple[str, str, str], list[ScoreMatrix]]
"""Score matrices, one a fold, by cohort, protocol and attacker; of streamed ones the trials of some persons, drawn."""
Cells = Mapping[tuple[str, str], Mapping[str, Sequence[ScoreSet]]]
"""Score sets of all seeds by cohort and protocol, and by attacker."""


class Evaluation(NamedTuple):
    """What the scores of a plan say.

    `rows` is a long table (:mod:`ecgstudy.evaluate.results`) with some more columns: seeds, lowest and highest (rank1
    and eer of each training seed alone), p (of a difference to :data:`REFERENCE` on identical trials and resamples) and
    stands_for (who was chosen, under "best"). `attacks` are the mean scores behind it all; `choices` has a row a cohort
    and protocol: every candidate on the validation part.
    """

    rows: pd.DataFrame
    attacks: Attacks
    choices: pd.DataFrame


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
    items = [
        (attackers, resamples[cell[0]], _judges(cells, *cell), min(sizes[cell[0]])) for cell, attackers in cells.items()
    ]
    found = list(in_parallel(_evaluate_cell, items, "cpu", "evaluation"))
    rows, attacks, choices = [], {}, []
    for cell, (evaluated, selection) in zip(cells, found, strict=True):
        for attacker, (own, matrices) in evaluated.items():
            rows += own
            attacks[*cell, attacker] = matrices
        choices.append(selection.row(*cell))
    return Evaluation(results_table(rows), attacks, pd.DataFrame(choices))


def _cells(score_sets: Iterable[ScoreSet]) -> Cells:
    """Sort score sets; everything in the order of its first appearance."""
    cells: dict[tuple[str, str], dict[str, list[ScoreSet]]] = {}
    for s in score_sets:
        cells.setdefault((s.cohort, s.protocol), {}).setdefault(s.attacker, []).append(s)
    return cells


def _judges(cells: Cells, cohort: str, protocol: str) -> Mapping[str, Sequence[ScoreSet]] | None:
    """Attackers whose validation people choose for a protocol: those of its cohort's first cross-cohort protocol.

    None where the protocol has validation people of its own, or no other cohort has any.
    """
    if protocol.startswith(UNSEEN):
        return None
    found = (attackers for (of, name), attackers in cells.items() if of == cohort and name.startswith(CROSS_COHORT))
    return next(found, None)


def _evaluate_cell(
    attackers: Mapping[str, Sequence[ScoreSet]],
    resamples: Resamples,
    judges: Mapping[str, Sequence[ScoreSet]] | None,
    gallery: int,
) -> tuple[dict[str, tuple[list[dict[str, object]], list[ScoreMatrix]]], "Selection"]:
    """Evaluate the attackers of one cohort and protocol, the best one too, also in galleries of equal size."""
    reference = attackers.get(REFERENCE)
    found = {name: evaluate(sets, resamples, reference, gallery) for name, sets in attackers.items()}
    selection = select(attackers, judges)
    if (chosen := selection.chosen) is not None:
        rows, attack = found.get(chosen) or evaluate(selection.score_sets, resamples, reference, gallery)
        found[BEST] = [row | {"attacker": BEST, "stands_for": chosen} for row in rows], attack
    return found, selection


def evaluate(
    score_sets: Sequence[ScoreSet],
    resamples: Resamples,
    reference: Sequence[ScoreSet] | None = None,
    gallery: int | None = None,
) -> tuple[list[dict[str, object]], list[ScoreMatrix]]:
    """Rows of one attacker under one protocol (see :class:`Evaluation`), and the mean scores of its seeds.

    `resamples` is the same object for all attackers; `reference` is compared with on the same trials. In galleries of
    so many persons is measured ``rank1_equal_gallery``, to compare protocols; where some who are enrolled never probe,
    ``rank1_returners`` and ``eer_returners`` are of a gallery without them.
    """
    attack = ensemble(score_sets)
    about = {"cohort": attack.cohort, "protocol": attack.protocol, "attacker": attack.attacker}
    matrices = _without_gaps(attack)
    folds = scored_folds(matrices, resamples)
    report = biometric.biometric_report(folds, resamples, np.random.default_rng(resamples.seed))
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


class Selection(NamedTuple):
    """The choice for one cohort and protocol.

    `separations` tell how well each candidate (a row) tells the people of the validation part of `judged_on` apart:
    rank1, eer and d_prime, averaged over the folds. d' is the difference of the mean genuine and impostor scores over
    the root of their mean variance; NaN where a fold has fewer than two trials of either kind or scores that do not
    vary. `chosen` is None where rank1 and eer are defined for nobody.
    """

    separations: pd.DataFrame
    chosen: str | None
    score_sets: Sequence[ScoreSet]
    judged_on: str

    def row(self, cohort: str, protocol: str) -> dict[str, object]:
        """Row of the table of choices: "rank-1 / EER" of each candidate in per cent."""
        shown = {name: f"{100 * s.rank1:.1f} / {100 * s.eer:.1f}" for name, s in self.separations.iterrows()}
        judged = "itself" if self.judged_on == protocol else "others"
        return {"cohort": cohort, "protocol": protocol, "judged on": judged, **shown, "chosen": self.chosen or "none"}


def select(
    attackers: Mapping[str, Sequence[ScoreSet]], judges: Mapping[str, Sequence[ScoreSet]] | None = None
) -> Selection:
    """Choose the attacker that separates people best on the validation part.

    The measures are those of the headline, rank-1 and then EER; d' decides where small validation parts leave ties.
    (d' first would be a trap: it presumes Gaussian scores, and the feature model's are anything but.)
    Scores of the probes are not read: a fusion of them is only built. `judges` are score sets of a protocol about
    people never seen, whose validation people decide instead: where the same people are in training and validation,
    the validation part is the end of the very recordings learnt from. Who has no scores there cannot be chosen.
    """
    candidates = candidates_of(attackers)
    judged = candidates_of(judges) if judges else candidates
    measured = {
        name: np.mean([_separation(fold.validation) for fold in ensemble(sets).folds], axis=0)
        for name, sets in judged.items()
        if name in candidates
    }
    separations = pd.DataFrame.from_dict(measured, orient="index", columns=["rank1", "eer", "d_prime"])
    ranked = separations.dropna(subset=["rank1", "eer"]).sort_values([*separations], ascending=[False, True, False])
    chosen = ranked.index[0] if len(ranked) else None
    judged_on = next((sets[0].protocol for sets in judged.values()), "")
    return Selection(separations, chosen, candidates[chosen] if chosen else [], judged_on)


def candidates_of(attackers: Mapping[str, Sequence[ScoreSet]]) -> dict[str, Sequence[ScoreSet]]:
    """Attackers and fusions that can be chosen: all but the control."""
    candidates = {name: sets for name, sets in attackers.items() if name != UNTRAINED}
    for name, (members, standardised) in FUSIONS.items():
        if set(members) <= set(attackers):
            candidates[name] = fuse(name, [attackers[member] for member in members], standardised)
    return candidates


def _separation(held: ScoreMatrix) -> tuple[float, float, float]:
    """Rank-1, EER and d' of one fold's validation trials."""
    if not held.scores.size:
        return np.nan, np.nan, np.nan
    own, impostor = _defined(held)
    d_prime = np.nan
    if min(own.size, impostor.size) > 1 and (spread := np.sqrt((own.var() + impostor.var()) / 2)) > 0:
        d_prime = float((own.mean() - impostor.mean()) / spread)
    return *rank1_and_eer([held.without_gaps()]), d_prime


def _defined(held: ScoreMatrix) -> tuple[np.ndarray, np.ndarray]:
    """Return the defined genuine and impostor scores."""
    scores = held.scores.astype(np.float64)
    defined = np.isfinite(scores)
    return scores[held.genuine & defined], scores[~held.genuine & defined]


def fuse(name: str, members: Sequence[Sequence[ScoreSet]], standardised: bool) -> list[ScoreSet]:
    """Average the scores of several attackers on the same trials, seed by seed; one without a score abstains.

    An attacker of one seed joins every seed of the others. `standardised` brings each attacker's scores to its
    validation impostors' mean 0 and standard deviation 1 first.
    """
    fused = []
    for number, one in enumerate(max(members, key=len)):
        folds = []
        for same in zip(*(sets[number % len(sets)].folds for sets in members), strict=True):
            moments = [_impostor_moments(fold.validation) if standardised else (0.0, 1.0) for fold in same]
            folds.append(mean_fold(same, partial(_mean_of_defined, moments=moments), pd.DataFrame()))
        fused.append(replace(one, attacker=name, folds=tuple(folds)))
    return fused


def _impostor_moments(held: ScoreMatrix) -> tuple[float, float]:
    """Mean and standard deviation of the validation impostor scores; 0 and 1 where there are too few."""
    _, impostor = _defined(held)
    if impostor.size < 2 or impostor.std() == 0:
        return 0.0, 1.0
    return float(impostor.mean()), float(impostor.std())


def _mean_of_defined(matrices: Sequence[np.ndarray], moments: Sequence[tuple[float, float]]) -> np.ndarray:
    """Mean over the attackers that have a score, each standardised by its moments; NaN where none has."""
    stack = np.stack([(scores - mean) / sd for scores, (mean, sd) in zip(matrices, moments, strict=True)])
    counts = np.isfinite(stack).sum(axis=0)
    return np.divide(np.nansum(stack, axis=0), counts, out=np.full(counts.shape, np.nan), where=counts > 0)
