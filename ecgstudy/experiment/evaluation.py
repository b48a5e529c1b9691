"""From scores to metrics: the attacker is the ensemble of its seeds, its intervals come from resampling persons."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ecgstudy.evaluate.biometric import (
    ScoredFold,
    biometric_report,
    eer_statistic,
    per_person_risk,
    rank1_statistic,
    risk_tail,
)
from ecgstudy.evaluate.bootstrap import Estimate, PairedDifference, Resamples, paired_difference
from ecgstudy.evaluate.identification import rank_k, search_gallery
from ecgstudy.evaluate.levels import ScoreLevels, eer
from ecgstudy.experiment.scores import ScoreSet, ensemble, without_gaps
from ecgstudy.experiment.selection import BEST, Selection, select
from ecgstudy.study.parallel import in_parallel

RESAMPLES = 1000
PERMUTATIONS = 100
"""Permutations of the gallery's names behind the chance level."""
REFERENCE = "transecg"
"""The other attackers are compared with this one, on identical trials."""
CROSS_COHORT = "cross_cohort_"
UNSEEN = ("subject_disjoint_", CROSS_COHORT)
"""How the names of protocols begin whose validation people no network was trained on."""


@dataclass(frozen=True)
class Evaluation:
    """One attacker under one protocol.

    `estimates` come from ``biometric_report``, `per_seed` holds the point values of each training seed alone, `risk`
    that of each person over the folds; `unscored` counts probes without a usable window (never recognised), `attack`
    holds the mean scores behind it all. `contrasts` are rank1 and eer minus those of :data:`REFERENCE` on identical
    trials and resamples. "best" `stands_for` the attacker that was chosen.
    """

    cohort: str
    protocol: str
    attacker: str
    estimates: Mapping[str, Estimate | str | int | None]
    per_seed: pd.DataFrame
    risk: pd.DataFrame
    unscored: int
    attack: ScoreSet
    contrasts: Mapping[str, PairedDifference]
    stands_for: str = ""


def cohort_resamples(score_sets: Sequence[ScoreSet], seed: int, n_resamples: int = RESAMPLES) -> dict[str, Resamples]:
    """Draw each cohort's persons once for all of its protocols and attackers."""
    persons: dict[str, list[str]] = {}
    for s in score_sets:
        for fold in s.folds:
            persons.setdefault(s.cohort, []).extend([*fold.probe_persons, *fold.gallery_persons])
    return {cohort: Resamples.draw(names, seed, n_resamples) for cohort, names in persons.items()}


def evaluate_all(
    score_sets: Sequence[ScoreSet], resamples: Mapping[str, Resamples]
) -> tuple[list[Evaluation], pd.DataFrame]:
    """Evaluate every attacker under every protocol, and under "best" the one chosen on validation scores.

    Parameters
    ----------
    score_sets : sequence of ScoreSet
        All cohorts, protocols, attackers and seeds.
    resamples : mapping of str to Resamples
        Draws by cohort, from :func:`cohort_resamples`.

    Returns
    -------
    evaluations : list of Evaluation
        In the order of `score_sets`, "best" after the others of its protocol.
    choices : pandas.DataFrame
        One row a cohort and protocol: every candidate on the validation part, and the chosen one.
    """
    cells: dict[tuple[str, str], dict[str, list[ScoreSet]]] = {}
    for s in score_sets:
        cells.setdefault((s.cohort, s.protocol), {}).setdefault(s.attacker, []).append(s)
    items = [(attackers, resamples[cell[0]], _judges(cells, *cell)) for cell, attackers in cells.items()]
    found = list(in_parallel(_evaluate_cell, items, "cpu", "evaluation"))
    choices = pd.DataFrame([selection.row(*cell) for cell, (_, selection) in zip(cells, found, strict=True)])
    return [evaluation for evaluations, _ in found for evaluation in evaluations], choices


def _judges(
    cells: Mapping[tuple[str, str], dict[str, list[ScoreSet]]], cohort: str, protocol: str
) -> dict[str, list[ScoreSet]] | None:
    """Attackers whose validation people choose for a protocol: those of its cohort's first cross-cohort protocol.

    None where the protocol has validation people of its own, or no other cohort has any.
    """
    if protocol.startswith(UNSEEN):
        return None
    found = (attackers for (of, name), attackers in cells.items() if of == cohort and name.startswith(CROSS_COHORT))
    return next(found, None)


def _evaluate_cell(
    attackers: Mapping[str, list[ScoreSet]], resamples: Resamples, judges: Mapping[str, list[ScoreSet]] | None
) -> tuple[list[Evaluation], Selection]:
    """Evaluate the attackers of one cohort and protocol, the best one too."""
    reference = attackers.get(REFERENCE)
    found = {name: evaluate(sets, resamples, reference) for name, sets in attackers.items()}
    selection = select(attackers, judges)
    if selection.chosen is not None:
        best = found.get(selection.chosen) or evaluate(selection.score_sets, resamples, reference)
        found[BEST] = replace(best, attacker=BEST, stands_for=selection.chosen)
    return list(found.values()), selection


def evaluate(
    score_sets: Sequence[ScoreSet], resamples: Resamples, reference: Sequence[ScoreSet] | None = None
) -> Evaluation:
    """Evaluate one attacker under one protocol: the ensemble of its seeds, and each seed alone beside it.

    `resamples` is the same object for all attackers; `reference` is compared with on the same trials.
    """
    attack = without_gaps(ensemble(score_sets))
    folds = scored_folds(attack, resamples)
    everybody = np.ones(resamples.persons.size)
    rows = []
    for one in score_sets:
        alone = scored_folds(without_gaps(one), resamples)
        rows.append((one.seed, rank1_statistic(alone)(everybody), eer_statistic(alone)(everybody)))
    risk = [per_person_risk(fold.scores, fold.probe_persons, fold.gallery_persons) for fold in attack.folds]
    return Evaluation(
        attack.cohort,
        attack.protocol,
        attack.attacker,
        biometric_report(folds, resamples, np.random.default_rng(resamples.seed)),
        pd.DataFrame(rows, columns=["seed", "rank1", "eer"]),
        pd.concat(risk).groupby("person", as_index=False).mean(),
        sum(int(np.isnan(fold.scores).all(axis=1).sum()) for fold in score_sets[0].folds if fold.scores.size),
        attack,
        _contrasts(folds, reference, attack.attacker, resamples) if reference else {},
    )


def scored_folds(attack: ScoreSet, resamples: Resamples) -> list[ScoredFold]:
    """Prepare the folds of a score set without gaps to be measured."""
    rng = np.random.default_rng(resamples.seed)
    return [ScoredFold(fold.scores, fold.probe_persons, fold.gallery_persons, resamples, rng) for fold in attack.folds]


def _contrasts(
    folds: Sequence[ScoredFold], reference: Sequence[ScoreSet], attacker: str, resamples: Resamples
) -> dict[str, PairedDifference]:
    """Difference to the reference attacker, both on the same resamples; none for the reference itself."""
    if reference[0].attacker == attacker:
        return {}
    others = scored_folds(without_gaps(ensemble(reference)), resamples)
    n_persons = np.unique(np.concatenate([fold.probe for fold in folds])).size
    return {
        name: paired_difference(
            statistic(folds), statistic(others), resamples, n_persons, "one of the two is undefined"
        )
        for name, statistic in (("rank1", rank1_statistic), ("eer", eer_statistic))
    }


def tail_of(evaluation: Evaluation) -> dict[str, float]:
    """How unevenly the risk is spread over the persons.

    ``risk_median``, ``risk_p95`` and ``risk_worst`` are of 1 - EER of each person's own probes (0.5 = chance);
    ``always_first`` and ``never_first`` the shares of persons all, or none, of whose probes rank first.
    """
    risk = evaluation.risk
    tail = {f"risk_{name}": value for name, value in risk_tail(1 - risk["eer"]).items()}
    known = risk["rank1"].dropna()
    return tail | {"always_first": float((known == 1).mean()), "never_first": float((known == 0).mean())}


def chance_level(attack: ScoreSet, rng: np.random.Generator) -> dict[str, Estimate]:
    """Rank-1 and EER with the gallery's names shuffled: mean and 95 % range over :data:`PERMUTATIONS`."""
    draws = np.array([_shuffled(attack, rng) for _ in range(PERMUTATIONS)])
    columns = np.stack([draws.mean(axis=0), *np.quantile(draws, [0.025, 0.975], axis=0)], axis=1)
    return {name: Estimate(*map(float, numbers), 0) for name, numbers in zip(("rank1", "eer"), columns, strict=True)}


def _shuffled(attack: ScoreSet, rng: np.random.Generator) -> np.ndarray:
    """Rank-1 and EER with the gallery's names shuffled, averaged over the folds."""
    found = []
    for fold in attack.folds:
        gallery = rng.permutation(fold.gallery_persons)
        genuine = fold.probe_persons[:, None] == gallery[None, :]
        searches = search_gallery(fold.scores, fold.probe_persons, gallery)
        levels = ScoreLevels.from_scores(fold.scores[genuine], fold.scores[~genuine])
        found.append((rank_k(searches, 1, np.ones(len(genuine))), eer(levels)))
    return np.mean(found, axis=0)
