"""Agreement of explanations: between methods, between seeds of one network, between models."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from ecgstudy.attribution.clustered import clustered_means, columns_of, rank_correlation
from ecgstudy.evaluate.bootstrap import Resamples

UNDEFINED = "one of the two gives no window any relevance, or the same to all samples"


def method_agreement(relevances: Mapping[str, np.ndarray], persons: np.ndarray, resamples: Resamples) -> pd.DataFrame:
    """Rank correlation of every two methods on one network, window by window.

    Parameters
    ----------
    relevances : mapping of str to numpy.ndarray
        Relevance by method, shape (n, n_samples).
    persons : numpy.ndarray
        Person of each window, str, shape (n,).
    resamples : Resamples
        The persons to resample.

    Returns
    -------
    pandas.DataFrame
        One row a pair: first, second, correlation (mean over persons) with ``_low`` and ``_high``, reason.
    """
    pairs = {pair: rank_correlation(*(relevances[name] for name in pair)) for pair in combinations(relevances, 2)}
    estimates = clustered_means(pairs, persons, resamples, UNDEFINED)
    return pd.DataFrame(
        [
            {"first": first, "second": second} | columns_of({"correlation": found}) | {"reason": found.reason}
            for (first, second), found in estimates.items()
        ]
    )


def seed_agreement(
    by_seed: Sequence[Mapping[str, np.ndarray]], persons: np.ndarray, resamples: Resamples
) -> pd.DataFrame:
    """Rank correlation of each method's explanations of networks that differ in their seed only.

    Parameters
    ----------
    by_seed : sequence of mappings of str to numpy.ndarray
        Relevance by method of each network, for the same windows, shape (n, n_samples); two networks or more.
    persons, resamples
        As in :func:`method_agreement`.

    Returns
    -------
    pandas.DataFrame
        One row a method: method, seeds (how many), correlation (each window's mean over the pairs of seeds, then
        the mean over persons) with ``_low`` and ``_high``, reason.
    """
    values = {
        method: np.mean([rank_correlation(a[method], b[method]) for a, b in combinations(by_seed, 2)], axis=0)
        for method in by_seed[0]
    }
    estimates = clustered_means(values, persons, resamples, UNDEFINED)
    return pd.DataFrame(
        [
            {"method": method, "seeds": len(by_seed)} | columns_of({"correlation": found}) | {"reason": found.reason}
            for method, found in estimates.items()
        ]
    )


def model_agreement(enrichments: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Rank correlation of every two models' waves, ordered by enrichment.

    Models read different inputs (windows, features), so they are compared by waves and not by samples; with six waves
    a correlation has no useful interval.

    Parameters
    ----------
    enrichments : mapping of str to mapping of str to float
        By model (with its method, as the caller names it), the enrichment of each wave.

    Returns
    -------
    pandas.DataFrame
        One row a pair: first, second, waves (those both know), correlation, reason (why it is NaN, else None).
    """
    table = pd.DataFrame(enrichments)
    rows = []
    for first, second in combinations(table.columns, 2):
        both = table[[first, second]].dropna()
        row: dict[str, object] = {"first": first, "second": second, "waves": len(both), "correlation": np.nan}
        reason = None
        if len(both) < 3:
            reason = "fewer than three waves are known to both"
        elif (both.nunique() < 2).any():
            reason = "all waves of one have the same enrichment"
        else:
            row["correlation"] = float(spearmanr(both[first], both[second]).statistic)
        rows.append(row | {"reason": reason})
    return pd.DataFrame(rows)
