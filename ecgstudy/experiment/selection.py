"""The headline attacker, "best": chosen by one rule, on the recordings of other people.

The rule was written down before the real run. People are divided into folds. For those of one fold that candidate
counts as best which recognises the people of the *other* folds best, in another recording, and on another day where
the cohort has other days, by networks that never learnt from them (the trials of the first of :data:`JUDGES`): by
rank-1, every person counting once, then by EER, then the first in the list. A cohort without such trials goes by those
of the other cohort in which most people are sought; where no cohort has any, by the validation part of the protocol.
No recording of a person has a say in who is to recognise that person.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd

from ecgstudy.evaluate.trials import ScoreMatrix, eer
from ecgstudy.experiment.attackers import PRETRAINED, UNTRAINED
from ecgstudy.experiment.scores import FoldScores, ScoreSet, ensemble, mean_fold
from ecgstudy.experiment.templates import ENROLMENTS

BEST = "best"
JUDGES = ("subject_disjoint_cross_day", "subject_disjoint_cross_record")
FUSIONS: dict[str, tuple[tuple[str, ...], bool]] = {
    "resnet1d + beatnet": (("resnet1d", "beatnet"), False),
    "beatnet + beatcnn": (("beatnet", "beatcnn"), True),
    f"beatnet + {PRETRAINED}": (("beatnet", PRETRAINED), True),
    "networks + template": (("transecg", "resnet1d", "beatnet", "template"), True),
}
"""Attackers whose scores are averaged, and whether each is first standardised by its validation impostors."""
Cells = Mapping[tuple[str, str], Mapping[str, Sequence[ScoreSet]]]
"""Score sets of all seeds by cohort and protocol, and by attacker."""


class Choice(NamedTuple):
    """Candidates for some `persons` (none: for everybody), the best first, and whose trials `judged`, in words.

    `ranking` is indexed by candidate, with columns rank1 (every person counts once), eer and persons, without those
    that are undefined.
    """

    persons: frozenset[str]
    judged: str
    ranking: pd.DataFrame


def choose(cells: Cells) -> dict[tuple[str, str], list[Choice]]:
    """Rank the candidates for the people of every cell, a choice a fold of its judge; see the module."""
    judges = {cohort: _judge(cells, cohort) for cohort, _ in cells}
    measured = {cell: _measured(cells[cell], "trials") for cell in set(judges.values()) if cell}
    return {cell: _choices(cells, cell, judges[cell[0]], measured) for cell in cells}


def _choices(
    cells: Cells,
    cell: tuple[str, str],
    judge: tuple[str, str] | None,
    measured: Mapping[tuple[str, str], pd.DataFrame],
) -> list[Choice]:
    """Choices for one cell."""
    if judge is None:
        return [Choice(frozenset(), "its own validation part", _ranked(_measured(cells[cell], "validation")))]
    parts, words = measured[judge], f"{judge[0]}, {judge[1].replace('_', ' ')}"
    if judge[0] != cell[0]:
        return [Choice(frozenset(), words, _ranked(parts))]
    folds = next(iter(cells[judge].values()))[0].folds
    return [
        Choice(frozenset(fold.trials.gallery), f"{words}, other folds", _ranked(parts[parts["fold"] != number]))
        for number, fold in enumerate(folds)
    ]


def _judge(cells: Cells, cohort: str) -> tuple[str, str] | None:
    """Cohort and protocol by whose trials a cohort's attackers are chosen."""
    found = [cell for cell in cells if cell[1] in JUDGES]
    own = [cell for cell in found if cell[0] == cohort]

    def sought(cell: tuple[str, str]) -> int:
        return sum(np.unique(fold.trials.probe).size for fold in next(iter(cells[cell].values()))[0].folds)

    return min(own or found, key=lambda cell: (JUDGES.index(cell[1]), -sought(cell)), default=None)


def _measured(attackers: Mapping[str, Sequence[ScoreSet]], part: str) -> pd.DataFrame:
    """Rank-1 of every person by every candidate: columns candidate, fold, person, rank1, eer (of the fold)."""
    tables = [pd.DataFrame(columns=["candidate", "fold", "person", "rank1", "eer"])]
    for name, sets in candidates_of(attackers).items():
        for number, fold in enumerate(ensemble(sets).folds):
            matrix = getattr(fold, part).sampled()
            if not matrix.scores.size:
                continue
            matrix = matrix.without_gaps()
            known = matrix.searches.enrolled
            first = pd.Series(matrix.searches.ahead[known] == 0, dtype=float).groupby(matrix.probe[known]).mean()
            about = {"candidate": name, "fold": number, "person": first.index, "rank1": first.to_numpy()}
            tables.append(pd.DataFrame({**about, "eer": eer(matrix.levels)}))
    return pd.concat(tables[1:] or tables, ignore_index=True)


def _ranked(parts: pd.DataFrame) -> pd.DataFrame:
    """Order candidates by rank-1 of persons and the mean EER of folds; of equals the first stays first."""
    by_candidate = parts.groupby("candidate", sort=False)
    found = by_candidate["rank1"].agg(rank1="mean", persons="size")
    found["eer"] = parts.drop_duplicates(["candidate", "fold"]).groupby("candidate")["eer"].mean()
    return found.dropna().sort_values(["rank1", "eer"], ascending=[False, True], kind="stable")


def candidates_of(attackers: Mapping[str, Sequence[ScoreSet]]) -> dict[str, Sequence[ScoreSet]]:
    """Attackers and fusions under every rule of enrolment, but the control."""
    candidates = {}
    for rule in ENROLMENTS:
        named = {a: [s.under(rule) for s in sets] for a, sets in attackers.items() if rule in sets[0].rules}
        named = {attacker: sets for attacker, sets in named.items() if attacker != UNTRAINED}
        fused = {
            name: fuse(name, [named[member] for member in members], standardised)
            for name, (members, standardised) in FUSIONS.items()
            if set(members) <= set(named)
        }
        candidates |= {sets[0].attacker: sets for sets in (named | fused).values()}
    return candidates


def best_scores(
    candidates: Mapping[str, Sequence[ScoreSet]], choices: Sequence[Choice]
) -> tuple[str, Sequence[ScoreSet]] | None:
    """Name of the chosen candidates, and scores in which every probe is sought by the one that was chosen for it.

    Of one candidate those of all seeds; of several their ensembles, each standardised by its validation impostors. None
    where no candidate of the cell was ranked.
    """
    ranked = [next((name for name in one.ranking.index if name in candidates), None) for one in choices]
    if None in ranked or not ranked:
        return None
    names = list(dict.fromkeys(ranked))
    if len(names) == 1:
        return names[0], candidates[names[0]]
    number = {person: names.index(name) for one, name in zip(choices, ranked, strict=True) for person in one.persons}
    folds = []
    for same in zip(*(ensemble(candidates[name]).folds for name in names), strict=True):
        which = np.array([number.get(person, 0) for person in same[0].trials.probe], dtype=int)
        scaled = [fold.trials.combined(partial(_standardised, _moments(fold)), [fold.trials]) for fold in same]
        folds.append(replace(same[0], trials=scaled[0].chosen(which, scaled)))
    first = candidates[names[0]][0]
    return " | ".join(names), [replace(first, attacker=BEST, seed=-1, folds=tuple(folds))]


def fuse(name: str, members: Sequence[Sequence[ScoreSet]], standardised: bool) -> list[ScoreSet]:
    """Average the scores of several attackers on the same trials, seed by seed; one without a score abstains.

    An attacker of one seed joins every seed of the others. `standardised` brings each attacker's scores to its
    validation impostors' mean 0 and standard deviation 1 first. The fusion is named after the rule of its members.
    """
    fused, rule = [], members[0][0].rule
    for number, one in enumerate(max(members, key=len)):
        folds = []
        for same in zip(*(sets[number % len(sets)].folds for sets in members), strict=True):
            moments = [_moments(fold) if standardised else (0.0, 1.0) for fold in same]
            folds.append(mean_fold(same, partial(_mean_of_defined, moments), pd.DataFrame()))
        fused.append(ScoreSet(one.cohort, one.protocol, name, one.seed, tuple(folds)).named(rule))
    return fused


def _moments(fold: FoldScores) -> tuple[float, float]:
    """Mean and standard deviation of the validation impostor scores; 0 and 1 where there are too few."""
    held: ScoreMatrix = fold.validation
    impostor = held.scores[~held.genuine & np.isfinite(held.scores)].astype(np.float64)
    if impostor.size < 2 or impostor.std() == 0:
        return 0.0, 1.0
    return float(impostor.mean()), float(impostor.std())


def _standardised(moments: tuple[float, float], matrices: Sequence[np.ndarray]) -> np.ndarray:
    """Scores of one attacker by the moments of its impostors."""
    return (matrices[0] - moments[0]) / moments[1]


def _mean_of_defined(moments: Iterable[tuple[float, float]], matrices: Sequence[np.ndarray]) -> np.ndarray:
    """Mean over the attackers that have a score, each standardised by its moments; NaN where none has."""
    stack = np.stack([(scores - mean) / sd for scores, (mean, sd) in zip(matrices, moments, strict=True)])
    counts = np.isfinite(stack).sum(axis=0)
    return np.divide(np.nansum(stack, axis=0), counts, out=np.full(counts.shape, np.nan), where=counts > 0)
