"""Choosing the best attacker, and fusing attackers, on validation scores alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ecgstudy.reidentification.scores import FoldScores, ScoreSet, ensemble

BEST = "best"
CANDIDATES = ("transecg", "resnet1d", "beatnet", "features_gbm", "template")
MEAN_FUSION = ("resnet1d", "beatnet")
"""Convolutional networks of windows and of beats: the mean of their cosine scores."""
STANDARDISED_FUSION = ("transecg", "resnet1d", "beatnet", "template")
"""All networks and the average beat: the mean of their scores, each standardised by its validation impostors."""
FUSIONS = {"resnet1d + beatnet": MEAN_FUSION, "networks + template": STANDARDISED_FUSION}


@dataclass(frozen=True)
class Selection:
    """The choice for one cohort and protocol.

    Attributes
    ----------
    d_primes : dict of str to float
        Validation d' of each candidate; NaN where the validation part cannot tell.
    chosen : str or None
        The candidate of the highest d', the first of equals; None where every d' is undefined.
    score_sets : list of ScoreSet
        Score sets of the chosen one, one a seed.
    """

    d_primes: Mapping[str, float]
    chosen: str | None
    score_sets: list[ScoreSet]

    def row(self, cohort: str, protocol: str) -> dict[str, object]:
        """Row of the table of choices."""
        return {"cohort": cohort, "protocol": protocol, **self.d_primes, "chosen": self.chosen or "none"}


def select(attackers: Mapping[str, Sequence[ScoreSet]]) -> Selection:
    """Choose the attacker that separates people best on the validation part.

    The measure is d', because on the small validation parts most EERs are 0. Scores of the probes are not read:
    a fusion of them is only built.

    Parameters
    ----------
    attackers : mapping of str to sequence of ScoreSet
        Score sets (one a seed) by model, of one cohort and protocol.
    """
    candidates = {model: list(attackers[model]) for model in CANDIDATES if model in attackers}
    for name, members in FUSIONS.items():
        if set(members) <= set(attackers):
            standardised = members == STANDARDISED_FUSION
            candidates[name] = fuse(name, [attackers[member] for member in members], standardised)
    d_primes = {name: validation_d_prime(ensemble(sets)) for name, sets in candidates.items()}
    defined = {name: d_prime for name, d_prime in d_primes.items() if np.isfinite(d_prime)}
    chosen = max(defined, key=defined.__getitem__) if defined else None
    return Selection(d_primes, chosen, candidates[chosen] if chosen else [])


def validation_d_prime(attack: ScoreSet) -> float:
    """Separation d' of the validation trials, averaged over the folds.

    The difference of the mean genuine and impostor scores over the root of their mean variance; NaN where a fold
    has fewer than two trials of either kind or scores that do not vary.
    """
    return float(np.mean([_d_prime(fold) for fold in attack.folds]))


def _d_prime(fold: FoldScores) -> float:
    """Separation d' of one fold's validation trials."""
    genuine, impostor = _validation_trials(fold)
    if min(genuine.size, impostor.size) < 2:
        return np.nan
    spread = np.sqrt((genuine.var() + impostor.var()) / 2)
    return float((genuine.mean() - impostor.mean()) / spread) if spread > 0 else np.nan


def _validation_trials(fold: FoldScores) -> tuple[np.ndarray, np.ndarray]:
    """Return the defined genuine and impostor scores of the validation part."""
    scores = np.asarray(fold.validation_scores, dtype=np.float64)
    genuine = fold.validation_probe_persons[:, None] == fold.validation_gallery_persons[None, :]
    defined = np.isfinite(scores)
    return scores[genuine & defined], scores[~genuine & defined]


def fuse(name: str, members: Sequence[Sequence[ScoreSet]], standardised: bool) -> list[ScoreSet]:
    """Average the scores of several attackers on the same trials, seed by seed.

    Parameters
    ----------
    name : str
        What the fusion is called.
    members : sequence of sequence of ScoreSet
        Score sets of each attacker, one a seed; an attacker of one seed joins every seed of the others.
    standardised : bool
        Bring each attacker's scores to its validation impostors' mean 0 and standard deviation 1 first.

    Returns
    -------
    list of ScoreSet
        One a seed. A probe is undefined where it is so for all attackers; one without a score abstains.
    """
    n_seeds = max(len(sets) for sets in members)
    fused = []
    for number in range(n_seeds):
        sets = [attacker[number % len(attacker)] for attacker in members]
        folds = [_fused_fold([s.folds[k] for s in sets], standardised) for k in range(len(sets[0].folds))]
        seed = next(s.seed for s, attacker in zip(sets, members, strict=True) if len(attacker) == n_seeds)
        fused.append(replace(sets[0], model=name, seed=seed, folds=tuple(folds)))
    return fused


def _fused_fold(folds: Sequence[FoldScores], standardised: bool) -> FoldScores:
    """Average the test and the validation scores of the same trials."""
    moments = [_impostor_moments(fold) if standardised else (0.0, 1.0) for fold in folds]
    pairs = list(zip(folds, moments, strict=True))
    test = [(fold.scores - mean) / sd for fold, (mean, sd) in pairs]
    validation = [(fold.validation_scores - mean) / sd for fold, (mean, sd) in pairs]
    return replace(
        folds[0],
        scores=_mean_of_defined(test),
        validation_scores=_mean_of_defined(validation),
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
