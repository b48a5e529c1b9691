"""Shares of waves and intervals in an answer, by person, and paired differences between answers.

A person's effects are averaged over the windows first, with their signs, so that what points now here and now there
cancels; a share is the sum over persons of the size of one factor's mean effect over that of all factors. Everything is
resampled by person, all answers with the same draws.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ecgstudy.attribution.exchange import FACTORS
from ecgstudy.evaluate.bootstrap import Estimate, Resamples, bootstrap, percentile_interval, person_means, ratio

NO_RELEVANCE = "the method gives no window any relevance"


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


def estimate(drawn: np.ndarray, n_persons: int, reason: str = NO_RELEVANCE) -> Estimate:
    """Value of everybody with its interval over the resamples, from (1 + n_resamples,) numbers."""
    return percentile_interval(float(drawn[0]), drawn[1:], n_persons, reason)


def nearest_control(drawn: np.ndarray, controls: Sequence[np.ndarray]) -> np.ndarray:
    """Difference from the control that comes nearest, (1 + n_resamples,): of all controls the least favourable one."""
    differences = [drawn - control for control in controls]
    return min(differences, key=lambda difference: np.nan_to_num(np.abs(difference[0]), nan=np.inf))


def evidence_removed(gone: np.ndarray, persons: np.ndarray, resamples: Resamples) -> Estimate:
    """Share of the true class's probability above chance that a baseline takes away, from (2, n) of ``removed``.

    1 where nothing is left, or less than chance.
    """
    means = person_means(pd.DataFrame(gone.T), persons, resamples)

    def share(multiplicity: np.ndarray) -> float:
        before, after = means(multiplicity)
        return float(min(1.0, ratio(before - after, before)))

    return bootstrap(share, resamples, np.unique(persons).size, "the network knows no more than chance")
