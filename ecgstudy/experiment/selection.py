"""Choosing the best attacker, and fusing attackers, on validation scores alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from ecgstudy.evaluate.identification import rank_k, search_gallery
from ecgstudy.evaluate.levels import ScoreLevels, eer
from ecgstudy.experiment.attackers import UNTRAINED
from ecgstudy.experiment.scores import FoldScores, ScoreSet, ensemble, never_matched

BEST = "best"
FUSIONS: dict[str, tuple[tuple[str, ...], bool]] = {
    "resnet1d + beatnet": (("resnet1d", "beatnet"), False),
    "networks + template": (("transecg", "resnet1d", "beatnet", "template"), True),
}
"""Attackers whose scores are averaged, and whether each is first standardised by its validation impostors."""


class Separation(NamedTuple):
    """How well an attacker tells the people of a validation part apart: rank-1, EER and d', averaged over the folds.

    d' is the difference of the mean genuine and impostor scores over the root of their mean variance; NaN where a
    fold has fewer than two trials of either kind or scores that do not vary.
    """

    rank1: float
    eer: float
    d_prime: float

    @property
    def order(self) -> tuple[float, float, float]:
        """Sorting key, the better the larger: rank-1, then EER, then d' where both of them tie."""
        return self.rank1, -self.eer, self.d_prime if np.isfinite(self.d_prime) else -np.inf


@dataclass(frozen=True)
class Selection:
    """The choice for one cohort and protocol, by the candidates' separations on the validation part of `judged_on`.

    `chosen` has the best :attr:`Separation.order`, the first of equals; None where none is defined.
    """

    separations: Mapping[str, Separation]
    chosen: str | None
    score_sets: list[ScoreSet]
    judged_on: str

    def row(self, cohort: str, protocol: str) -> dict[str, object]:
        """Row of the table of choices: "rank-1 / EER" of each candidate in per cent."""
        shown = {name: f"{100 * s.rank1:.1f} / {100 * s.eer:.1f}" for name, s in self.separations.items()}
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
    candidates = _candidates(attackers)
    judged = _candidates(judges) if judges else candidates
    separations = {name: validation_separation(ensemble(sets)) for name, sets in judged.items() if name in candidates}
    defined = {name: s.order for name, s in separations.items() if np.isfinite(s.rank1) and np.isfinite(s.eer)}
    chosen = max(defined, key=defined.__getitem__) if defined else None
    judged_on = next((sets[0].protocol for sets in judged.values()), "")
    return Selection(separations, chosen, candidates[chosen] if chosen else [], judged_on)


def _candidates(attackers: Mapping[str, Sequence[ScoreSet]]) -> dict[str, list[ScoreSet]]:
    """Attackers and fusions that can be chosen: all but the control."""
    candidates = {name: list(sets) for name, sets in attackers.items() if name != UNTRAINED}
    for name, (members, standardised) in FUSIONS.items():
        if set(members) <= set(attackers):
            candidates[name] = fuse(name, [attackers[member] for member in members], standardised)
    return candidates


def validation_separation(attack: ScoreSet) -> Separation:
    """Measure an attacker on its validation trials."""
    return Separation(*(float(mean) for mean in np.mean([_separation(fold) for fold in attack.folds], axis=0)))


def _separation(fold: FoldScores) -> tuple[float, float, float]:
    """Rank-1, EER and d' of one fold's validation trials."""
    if not fold.validation_scores.size:
        return np.nan, np.nan, np.nan
    scores = never_matched(fold.validation_scores)
    probe, gallery = fold.validation_probe_persons, fold.validation_gallery_persons
    genuine = probe[:, None] == gallery[None, :]
    levels = ScoreLevels.from_scores(scores[genuine], scores[~genuine])
    own, impostor = _validation_trials(fold)
    d_prime = np.nan
    if min(own.size, impostor.size) > 1 and (spread := np.sqrt((own.var() + impostor.var()) / 2)) > 0:
        d_prime = float((own.mean() - impostor.mean()) / spread)
    return rank_k(search_gallery(scores, probe, gallery), 1, np.ones(len(probe))), eer(levels), d_prime


def _validation_trials(fold: FoldScores) -> tuple[np.ndarray, np.ndarray]:
    """Return the defined genuine and impostor scores of the validation part."""
    scores = np.asarray(fold.validation_scores, dtype=np.float64)
    genuine = fold.validation_probe_persons[:, None] == fold.validation_gallery_persons[None, :]
    defined = np.isfinite(scores)
    return scores[genuine & defined], scores[~genuine & defined]


def fuse(name: str, members: Sequence[Sequence[ScoreSet]], standardised: bool) -> list[ScoreSet]:
    """Average the scores of several attackers on the same trials, seed by seed; one without a score abstains.

    An attacker of one seed joins every seed of the others. `standardised` brings each attacker's scores to its
    validation impostors' mean 0 and standard deviation 1 first.
    """
    n_seeds = max(len(sets) for sets in members)
    fused = []
    for number in range(n_seeds):
        sets = [attacker[number % len(attacker)] for attacker in members]
        folds = [_fused_fold([s.folds[k] for s in sets], standardised) for k in range(len(sets[0].folds))]
        seed = next(s.seed for s, attacker in zip(sets, members, strict=True) if len(attacker) == n_seeds)
        fused.append(replace(sets[0], attacker=name, seed=seed, folds=tuple(folds)))
    return fused


def _fused_fold(folds: Sequence[FoldScores], standardised: bool) -> FoldScores:
    """Average the test and the validation scores of the same trials."""
    moments = [_impostor_moments(fold) if standardised else (0.0, 1.0) for fold in folds]
    pairs = list(zip(folds, moments, strict=True))
    return replace(
        folds[0],
        scores=_mean_of_defined([(fold.scores - mean) / sd for fold, (mean, sd) in pairs]),
        validation_scores=_mean_of_defined([(fold.validation_scores - mean) / sd for fold, (mean, sd) in pairs]),
        demographics=pd.DataFrame(),
    )


def _impostor_moments(fold: FoldScores) -> tuple[float, float]:
    """Mean and standard deviation of the validation impostor scores; 0 and 1 where there are too few."""
    _, impostor = _validation_trials(fold)
    if impostor.size < 2 or impostor.std() == 0:
        return 0.0, 1.0
    return float(impostor.mean()), float(impostor.std())


def _mean_of_defined(matrices: Sequence[np.ndarray]) -> np.ndarray:
    """Mean over the attackers that have a score; NaN where none has."""
    stack = np.stack(matrices)
    counts = np.isfinite(stack).sum(axis=0)
    return np.divide(np.nansum(stack, axis=0), counts, out=np.full(counts.shape, np.nan), where=counts > 0)
