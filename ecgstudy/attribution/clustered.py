"""Means over windows with intervals clustered by person, and rank correlations of windows' attributions."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from ecgstudy.evaluate.bootstrap import Estimate, Resamples, bootstrap_each


def clustered_means(
    values: Mapping[str, np.ndarray], persons: np.ndarray, resamples: Resamples, if_undefined: str
) -> dict[str, Estimate]:
    """Mean of several numbers of each window, with person-clustered bootstrap intervals.

    A person's windows are averaged first, so that everybody weighs the same however many windows there are.

    Parameters
    ----------
    values : mapping of str to numpy.ndarray
        Numbers of each window, shape (n,); NaN is left out.
    persons : numpy.ndarray
        Person of each window, str, shape (n,).
    resamples : Resamples
        The persons to resample, the same draws for everything that is compared.
    if_undefined : str
        Reason to report where no window has a number.

    Returns
    -------
    dict of str to Estimate
        One estimate a name; its `n` counts the persons of any window.
    """
    means = pd.DataFrame({name: np.asarray(column, dtype=float) for name, column in values.items()})
    means = means.groupby(np.asarray(persons)).mean()
    drawn = resamples.index_of(means.index.to_numpy(dtype=str))
    known = means.notna().to_numpy(dtype=float)
    sums = means.fillna(0.0).to_numpy()

    def statistics(multiplicity: np.ndarray) -> np.ndarray:
        weights = multiplicity[drawn]
        total = weights @ known
        return np.divide(weights @ sums, total, out=np.full(total.shape, np.nan), where=total > 0)

    estimates = bootstrap_each(statistics, resamples, len(means), [if_undefined] * len(values))
    return dict(zip(values, estimates, strict=True))


def columns_of(estimates: Mapping[str, Estimate]) -> dict[str, float]:
    """Lay estimates out as columns of a table row: the value, then ``_low`` and ``_high``."""
    row: dict[str, float] = {}
    for name, estimate in estimates.items():
        row |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return row


def rank_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of each row.

    Parameters
    ----------
    first, second : numpy.ndarray
        Shape (n, n_samples).

    Returns
    -------
    numpy.ndarray
        float64, shape (n,); ties share their mean rank; NaN where a row is constant or holds NaN.
    """
    centred = []
    for values in (first, second):
        ranks = rankdata(values, axis=1, nan_policy="propagate")
        centred.append(ranks - ranks.mean(axis=1, keepdims=True))
    spread = np.sqrt((centred[0] ** 2).sum(axis=1) * (centred[1] ** 2).sum(axis=1))
    shared = (centred[0] * centred[1]).sum(axis=1)
    return np.divide(shared, spread, out=np.full(len(spread), np.nan), where=spread > 0)
