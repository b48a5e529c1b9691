"""How much of a method's relevance each wave holds, beside how much of the time it takes; means, and agreement.

A wave that lasts half the beat holds half of any attribution that means nothing. So each share of relevance
stands beside the wave's share of time, and their ratio, the enrichment, is 1 for a method that knows nothing.
A person's windows are averaged first, so that everybody weighs the same however many windows could be delineated.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import rankdata, spearmanr

from ecgstudy.attribution.waves import REGIONS, UNKNOWN_WAVE, WAVES
from ecgstudy.evaluate.bootstrap import Estimate, Resamples, bootstrap_each
from ecgstudy.evaluate.results import interval
from ecgstudy.learn.classical import FeaturesGbm
from ecgstudy.signals.features import FEATURES

NO_RELEVANCE = "the method gives no window any relevance"
NO_AGREEMENT = "one of the two gives no window any relevance, or the same to all samples"
CLASS_COLUMNS = ("cohort", "sex", "age_group", "person")
"""Classes for which left-out windows are counted: a table by wave speaks of those whose waves could be found."""
_WAVE_OF_PEAK = {"P": "P", "Q": "QRS", "R": "QRS", "S": "QRS", "T": "T"}
_WAVES_OF_DURATION = {
    "P duration": ("P", "P"),
    "PR duration": ("P", "QRS"),
    "QRS duration": ("QRS", "QRS"),
    "QT duration": ("QRS", "T"),
    "T duration": ("T", "T"),
    "R-R interval": ("TP", "TP"),
}


@dataclass(frozen=True)
class Shares:
    """Shares of each window's relevance (`mass`, NaN without relevance) and time, shape (n, n_names) each.

    Only samples whose wave is known count.
    """

    names: tuple[str, ...]
    mass: np.ndarray
    time: np.ndarray


def wave_shares(relevance: np.ndarray, codes: np.ndarray) -> Shares:
    """Shares of the waves, which add up to 1, from relevance and wave codes of shape (n, n_samples)."""
    masks = codes[:, None, :] == np.arange(len(WAVES), dtype=codes.dtype)[:, None]
    return _shares(WAVES, relevance, masks, codes)


def region_shares(relevance: np.ndarray, masks: np.ndarray, codes: np.ndarray) -> Shares:
    """Shares of TransECG's regions, which overlap; `masks` of shape (n, n_regions, n_samples)."""
    return _shares(tuple(REGIONS), relevance, masks, codes)


def _shares(names: tuple[str, ...], relevance: np.ndarray, masks: np.ndarray, codes: np.ndarray) -> Shares:
    """Add up relevance and time over masks of shape (n, n_names, n_samples), among the samples whose wave is known."""
    if (relevance < 0).any():
        raise ValueError("relevance is a magnitude; take the absolute value of signed attributions first")
    known = codes != UNKNOWN_WAVE
    parts = []
    for weights in (np.where(known, relevance.astype(np.float64), 0.0), known.astype(np.float64)):
        total = weights.sum(axis=1, keepdims=True)
        held = np.einsum("nt,nkt->nk", weights, masks)
        parts.append(np.divide(held, total, out=np.full_like(held, np.nan), where=total > 0))
    return Shares(names, *parts)


def share_table(shares: Shares, persons: np.ndarray, resamples: Resamples) -> pd.DataFrame:
    """Mean shares of relevance and time, and enrichment (their quotient), of each wave, with intervals over persons.

    One row a wave: wave; share, time and enrichment with ``_low`` and ``_high`` (95 %); persons, windows, undefined
    (windows without relevance, left out of share and time alike), reason (why a value or its interval is NaN, else
    None).
    """
    defined = np.isfinite(shares.mass).all(axis=1)
    means = mean_shares(shares, persons, resamples)
    n_persons, k = np.unique(persons[defined]).size, len(shares.names)
    never = [f"no window has a {name}" if n_persons else NO_RELEVANCE for name in shares.names]
    estimates = bootstrap_each(
        lambda multiplicity: means(multiplicity).ravel(), resamples, n_persons, [NO_RELEVANCE] * (2 * k) + never
    )
    rows = []
    for at, name in enumerate(shares.names):
        own = dict(zip(("share", "time", "enrichment"), estimates[at::k], strict=True))
        reason = next((estimate.reason for estimate in own.values() if estimate.reason), None)
        counts = {"persons": n_persons, "windows": int(defined.sum()), "undefined": int((~defined).sum())}
        rows.append({"wave": name} | columns_of(own) | counts | {"reason": reason})
    return pd.DataFrame(rows)


def mean_shares(shares: Shares, persons: np.ndarray, resamples: Resamples) -> Callable[[np.ndarray], np.ndarray]:
    """Mean share of relevance, mean share of time and enrichment of each wave, for the bootstrap.

    Parameters are those of :func:`share_table`; the callable that is returned goes from the persons' multiplicities,
    shape (n_persons,), to an array of shape (3, n_names); NaN where undefined.
    """
    defined = np.isfinite(shares.mass).all(axis=1)
    who = np.unique(persons[defined])
    grouped = [pd.DataFrame(values[defined]).groupby(persons[defined]) for values in (shares.mass, shares.time)]
    means = np.stack([group.mean().to_numpy() for group in grouped])
    drawn = resamples.index_of(who)

    def weighted(multiplicity: np.ndarray) -> np.ndarray:
        weights = multiplicity[drawn]
        with np.errstate(invalid="ignore", divide="ignore"):
            share, time = np.einsum("p,spk->sk", weights, means) / weights.sum()
            return np.stack([share, time, np.where(time > 0, share / time, np.nan)])

    return weighted


def failure_table(attempts: pd.DataFrame) -> pd.DataFrame:
    """Count the windows that could not be delineated, by class (:data:`CLASS_COLUMNS`) and by reason (None: it counts).

    One row a class: class_of, name ("unknown" where not known), persons, windows, left_out, rate (share left out) and
    one column a reason that occurs.
    """
    reasons = sorted(attempts["reason"].dropna().unique())
    parts = []
    for column in CLASS_COLUMNS:
        names = attempts[column].where(attempts[column].notna(), "unknown").astype(str).rename("name")
        grouped = attempts.groupby(names)
        counts = grouped.agg(persons=("person", "nunique"), windows=("reason", "size"), left_out=("reason", "count"))
        table = counts.reset_index()
        for reason in reasons:
            table[reason] = (attempts["reason"] == reason).groupby(names).sum().to_numpy()
        table.insert(0, "class_of", column)
        table.insert(5, "rate", table["left_out"] / table["windows"])
        parts.append(table)
    return pd.concat(parts, ignore_index=True)


def clustered_means(
    values: Mapping[str, np.ndarray], persons: np.ndarray, resamples: Resamples, if_undefined: str
) -> dict[str, Estimate]:
    """Mean of several numbers of each window (NaN is left out), with person-clustered bootstrap intervals.

    An estimate's `n` counts the persons of any window; `if_undefined` is its reason where no window has a number.
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


def mean_rows(
    values: Mapping[tuple, np.ndarray],
    keys: Sequence[str],
    column: str,
    persons: np.ndarray,
    resamples: Resamples,
    if_undefined: str,
) -> list[dict[str, object]]:
    """Means of :func:`clustered_means` as rows: the parts of each key, `column` with its interval, persons, reason."""
    return [
        dict(zip(keys, key, strict=True)) | interval(column, mean) | {"persons": mean.n, "reason": mean.reason}
        for key, mean in clustered_means(values, persons, resamples, if_undefined).items()
    ]


def columns_of(estimates: Mapping[str, Estimate]) -> dict[str, float]:
    """Lay estimates out as columns of a table row: the value, then ``_low`` and ``_high``."""
    return {column: value for name, found in estimates.items() for column, value in interval(name, found).items()}


def rank_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of each row of two arrays (n, n_samples).

    float64, shape (n,); ties share their mean rank; NaN where a row is constant or holds NaN.
    """
    centred = []
    for values in (first, second):
        ranks = rankdata(values, axis=1, nan_policy="propagate")
        centred.append(ranks - ranks.mean(axis=1, keepdims=True))
    spread = np.sqrt((centred[0] ** 2).sum(axis=1) * (centred[1] ** 2).sum(axis=1))
    shared = (centred[0] * centred[1]).sum(axis=1)
    return np.divide(shared, spread, out=np.full(len(spread), np.nan), where=spread > 0)


def method_agreement(relevances: Mapping[str, np.ndarray], persons: np.ndarray, resamples: Resamples) -> pd.DataFrame:
    """Rank correlation of every two methods on one network: first, second, correlation (mean over persons), reason."""
    pairs = {pair: rank_correlation(*(relevances[name] for name in pair)) for pair in combinations(relevances, 2)}
    rows = mean_rows(pairs, ("first", "second"), "correlation", persons, resamples, NO_AGREEMENT)
    return pd.DataFrame(rows).drop(columns="persons")


def seed_agreement(
    by_seed: Sequence[Mapping[str, np.ndarray]], persons: np.ndarray, resamples: Resamples
) -> pd.DataFrame:
    """Rank correlation of each method's explanations of networks that differ in their seed only.

    One row a method: method, seeds (how many), correlation (each window's mean over the pairs of seeds, then
    the mean over persons) with ``_low`` and ``_high``, reason. `by_seed` holds two networks' relevances or more.
    """
    pairs = list(combinations(by_seed, 2))
    values = {
        (method, len(by_seed)): np.mean([rank_correlation(a[method], b[method]) for a, b in pairs], axis=0)
        for method in by_seed[0]
    }
    rows = mean_rows(values, ("method", "seeds"), "correlation", persons, resamples, NO_AGREEMENT)
    return pd.DataFrame(rows).drop(columns="persons")


def model_agreement(enrichments: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Rank correlation of every two models' waves, ordered by enrichment.

    Models read different inputs (windows, features), so they are compared by waves and not by samples; with six waves
    a correlation has no useful interval. One row a pair: first, second, waves (those both know), correlation, reason.
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


def wave_weights() -> pd.DataFrame:
    """Split each feature between waves: rows the features, columns the waves, rows summing to 1.

    A feature between two points belongs half to the wave of each: peaks Q, R and S and both ends of the QRS complex
    count as QRS, so "P-Q interval" is half P and half QRS, and no feature belongs to the P-R or S-T segment alone.
    The R-R interval, the heart rate, is given to T-P, the rest that changes most with it (our choice).
    """
    weights = pd.DataFrame(0.0, index=list(FEATURES), columns=list(WAVES))
    for feature in FEATURES:
        ends = [_WAVE_OF_PEAK.get(peak) for peak in feature.split()[0].split("-")]
        for wave in _WAVES_OF_DURATION.get(feature) or ends:
            weights.loc[feature, wave] += 0.5
    return weights


def feature_shares(model: FeaturesGbm, features: pd.DataFrame, targets: np.ndarray) -> pd.DataFrame:
    """Share of each wave in the SHAP values of the feature model, one row a window, columns the waves.

    Absolute SHAP values of the target's log-odds, split by :func:`wave_weights`, as shares that sum to 1; NaN for a
    window without any feature. ``ValueError`` where a target is not a class of the model.
    """
    if not np.isin(targets, model.classes).all():
        raise ValueError("a target is not a class of the feature model")
    column = np.searchsorted(model.classes, targets)
    strength = np.abs(model.shap_values(features)[np.arange(len(features)), :, column])
    mass = strength @ wave_weights().loc[features.columns].to_numpy()
    total = mass.sum(axis=1, keepdims=True)
    undefined = features.isna().to_numpy().all(axis=1, keepdims=True) | (total == 0)
    shares = np.divide(mass, total, out=np.full_like(mass, np.nan), where=~undefined)
    return pd.DataFrame(shares, columns=list(WAVES), index=features.index)
