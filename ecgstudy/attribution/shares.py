"""Shares of waves and intervals in an answer, by person, and paired differences between answers.

A person's effects are averaged over the windows first, with their signs, so that what points now here and now there
cancels; a share is the sum over persons of the size of one factor's mean effect over that of all factors. Everything is
resampled by person, all answers with the same draws.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from ecgstudy.attribution.exchange import FACTORS
from ecgstudy.attribution.methods import LEAST_REMOVED, NONE, Answers, Method, asked_beside
from ecgstudy.evaluate.bootstrap import Estimate, Resamples, bootstrap, percentile_interval, person_means, ratio

NO_RELEVANCE = "the method gives no window any relevance"


class Spoken(NamedTuple):
    """What a method and its controls say of everybody (first row) and of each resample: shares of factors.

    Of shape (1 + n_resamples, n_factors) each, `controls` in the order of ``methods.asked_beside``. `removed` is the
    share of the evidence that the baseline removes, None without one, and `reason` why no share is given, else None.
    """

    own: np.ndarray
    controls: list[np.ndarray]
    removed: Estimate | None
    reason: str | None


def spoken(
    answers: Answers, method: Method, baseline: str, right: np.ndarray, persons: np.ndarray, resamples: Resamples
) -> Spoken:
    """Shares by a method and its controls, of windows that the network gets `right` (bool, (n,)) of `persons` (n,)."""
    removed = None
    if baseline != NONE:
        removed = evidence_removed(answers.removed[baseline][:, right], persons[right], resamples)
    keys = [(method.name, baseline, ""), *(() if method.control else asked_beside(method, baseline))]
    sizes = (mean_effects(answers.effects[key][right], persons[right]) for key in keys)
    own, *controls = (drawn_shares(of_persons, resamples) for of_persons in sizes)
    reason = NO_RELEVANCE if np.isnan(own[0]).all() else None
    if removed and not removed.value >= LEAST_REMOVED:
        reason = f"the baseline removes {removed.value:.0%} of the evidence only"
    return Spoken(own, controls, removed, reason)


def pooled(parts: Sequence[Answers]) -> Answers:
    """Answers about several sets of windows as one; of deltas the largest."""
    joined = {
        name: {key: np.concatenate([getattr(p, name)[key] for p in parts], axis) for key in getattr(parts[0], name)}
        for name, axis in (("effects", 0), ("removed", 1))
    }
    incomplete = {key: max(part.incomplete[key] for part in parts) for key in parts[0].incomplete}
    return Answers(**joined, incomplete=incomplete, refusals=parts[0].refusals)


def mean_effects(effects: np.ndarray, persons: np.ndarray) -> pd.DataFrame:
    """Size of each person's mean effects, one row a person; persons without any are left out."""
    return pd.DataFrame(effects, columns=list(FACTORS)).groupby(persons).mean().abs().dropna()


def drawn_means(by_person: pd.DataFrame, resamples: Resamples) -> np.ndarray:
    """Means over persons of a row each, of everybody (first row) and of each resample, (1 + n_resamples, n_columns)."""
    rows = resamples.index_of(by_person.index)
    weights = np.vstack([np.ones(resamples.persons.size), resamples.multiplicities])[:, rows]
    return ratio(weights @ by_person.to_numpy(), weights.sum(axis=1, keepdims=True))


def drawn_shares(sizes: pd.DataFrame, resamples: Resamples) -> np.ndarray:
    """Shares of factors of everybody (first row) and of each resample, shape (1 + n_resamples, n_factors)."""
    means = drawn_means(sizes, resamples)
    return ratio(means, means.sum(axis=1, keepdims=True))


def estimates(numbers: Mapping[str, np.ndarray], n_persons: int) -> dict[str, Estimate]:
    """Values of everybody with their intervals over the resamples, from (1 + n_resamples,) numbers each."""
    return {
        name: percentile_interval(float(drawn[0]), drawn[1:], n_persons, NO_RELEVANCE)
        for name, drawn in numbers.items()
    }


def over_nearest(own: np.ndarray, controls: Sequence[np.ndarray]) -> np.ndarray:
    """Difference, (1 + n_resamples,), from the control that comes nearest: the least favourable one."""
    return min((own - control for control in controls), key=lambda difference: np.nan_to_num(abs(difference[0]), nan=9))


def evidence_removed(gone: np.ndarray, persons: np.ndarray, resamples: Resamples) -> Estimate:
    """Share of the true class's probability above chance that a baseline takes away, from (2, n) of ``removed``.

    1 where nothing is left, or less than chance.
    """
    means = person_means(pd.DataFrame(gone.T), persons, resamples)

    def share(multiplicity: np.ndarray) -> float:
        before, after = means(multiplicity)
        return float(np.minimum(1.0, ratio(before - after, before)))  # NaN stays NaN

    return bootstrap(share, resamples, np.unique(persons).size, "the network knows no more than chance")
