"""How much of a method's relevance each wave holds, beside how much of the time it takes; means, and agreement.

A wave that lasts half the beat holds half of any attribution that means nothing. So each share of relevance
stands beside the wave's share of time, and their ratio, the enrichment, is 1 for a method that knows nothing.
A person's windows are averaged first, so that everybody weighs the same however many windows could be delineated.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from ecgstudy.attribution.cases import AUDITED, AUDITED_WINDOWS, audited_jobs, evenly
from ecgstudy.attribution.waves import UNKNOWN_WAVE, WAVES
from ecgstudy.evaluate.bootstrap import Resamples, Values, bootstrap_each, clustered_means, person_means, ratio
from ecgstudy.evaluate.protocols import some_on_trial
from ecgstudy.evaluate.results import interval, intervals
from ecgstudy.evaluate.splits import SUBJECT
from ecgstudy.experiment.attackers import FeaturesAttacker
from ecgstudy.experiment.jobs import Context
from ecgstudy.learn.base import PERSON, UNKNOWN
from ecgstudy.learn.batches import encode
from ecgstudy.learn.classical import FeaturesGbm
from ecgstudy.signals.features import FEATURES
from ecgstudy.study.config import effort

NO_RELEVANCE = "the method gives no window any relevance"
COMPARED = (
    ("resnet1d", "gradients_from_mean_beat"),
    ("resnet1d", "integrated_gradients"),
    ("transecg", "gradients_from_mean_beat"),
    ("transecg", "attention_rollout"),
)
"""Networks and methods that are compared with each other and with the feature model, by shares of waves."""
NO_AGREEMENT = "one of the two gives no window any relevance, or the same to all samples"
_WAVE_OF_PEAK = {"P": "P", "Q": "QRS", "R": "QRS", "S": "QRS", "T": "T"}
_WAVES_OF_DURATION = {
    "P duration": ("P", "P"),
    "PR duration": ("P", "QRS"),
    "QRS duration": ("QRS", "QRS"),
    "QT duration": ("QRS", "T"),
    "T duration": ("T", "T"),
    "R-R interval": ("TP", "TP"),
}


def shares(relevance: np.ndarray, codes: np.ndarray, masks: np.ndarray | None = None) -> np.ndarray:
    """Shares of each window's relevance (NaN without any) and of its time, shape (2, n, n_parts).

    Relevance and wave codes have shape (n, n_samples); only samples whose wave is known count. The parts are the waves,
    whose shares add up to 1, or what `masks` of shape (n, n_parts, n_samples) marks, which may overlap.
    """
    if (relevance < 0).any():
        raise ValueError("relevance is a magnitude; take the absolute value of signed attributions first")
    if masks is None:
        masks = codes[:, None, :] == np.arange(len(WAVES), dtype=codes.dtype)[:, None]
    known = codes != UNKNOWN_WAVE
    of = np.stack([np.where(known, relevance.astype(np.float64), 0.0), known.astype(np.float64)])
    return ratio(np.stack([np.einsum("nt,nkt->nk", each, masks) for each in of]), of.sum(axis=2, keepdims=True))


def mean_shares(parts: np.ndarray, persons: np.ndarray, resamples: Resamples) -> Callable[[np.ndarray], np.ndarray]:
    """Mean share of relevance, mean share of time and enrichment of each part, for the bootstrap.

    The callable goes from the persons' multiplicities to an array of shape (3, n_parts); windows without relevance are
    left out of share and time alike.
    """
    defined = np.isfinite(parts[0]).all(axis=1)
    means = person_means(pd.DataFrame(np.hstack(parts)[defined]), persons[defined], resamples)

    def weighted(multiplicity: np.ndarray) -> np.ndarray:
        share, time = np.split(means(multiplicity), 2)
        return np.stack([share, time, ratio(share, time)])

    return weighted


def share_table(
    parts: np.ndarray, persons: np.ndarray, resamples: Resamples, names: Sequence[str] = WAVES
) -> pd.DataFrame:
    """Means of :func:`mean_shares` with intervals over persons, one row a part.

    wave (its name); share, time and enrichment with ``_low`` and ``_high`` (95 %); persons, windows, undefined
    (windows without relevance), reason (why a value or its interval is NaN, else None).
    """
    defined = np.isfinite(parts[0]).all(axis=1)
    means, n_persons = mean_shares(parts, persons, resamples), np.unique(persons[defined]).size
    never = [f"no window has a {name}" if n_persons else NO_RELEVANCE for name in names]
    reasons = [NO_RELEVANCE] * (2 * len(names)) + never
    found = bootstrap_each(lambda multiplicity: means(multiplicity).ravel(), resamples, n_persons, reasons)
    counts = {"persons": n_persons, "windows": int(defined.sum()), "undefined": int((~defined).sum())}
    rows = []
    for at, name in enumerate(names):
        own = dict(zip(("share", "time", "enrichment"), found[at :: len(names)], strict=True))
        reason = next((estimate.reason for estimate in own.values() if estimate.reason), None)
        rows.append({"wave": name} | intervals(own) | counts | {"reason": reason})
    return pd.DataFrame(rows)


def mean_rows(
    values: Values, names: Sequence[str], persons: np.ndarray, resamples: Resamples, if_undefined: str
) -> pd.DataFrame:
    """Means of :func:`clustered_means` as rows: the parts of each key, the mean with its interval, persons, reason.

    `names` are those of the parts, and of the mean.
    """
    *keys, column = names
    return pd.DataFrame(
        dict(zip(keys, key, strict=True)) | interval(column, mean) | {"persons": mean.n, "reason": mean.reason}
        for key, mean in clustered_means(values, persons, resamples, if_undefined).items()
    )


def rank_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of each row of two arrays (n, n_samples).

    float64, shape (n,); ties share their mean rank; NaN where a row is constant or holds NaN.
    """
    ranks = [rankdata(values, axis=1, nan_policy="propagate") for values in (first, second)]
    one, other = (of_each - of_each.mean(axis=1, keepdims=True) for of_each in ranks)
    return ratio((one * other).sum(axis=1), np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1)))


def method_agreement(relevances: Mapping[str, np.ndarray], persons: np.ndarray, resamples: Resamples) -> pd.DataFrame:
    """Rank correlation of every two methods on one network: first, second, correlation (mean over persons), reason."""
    pairs = {pair: rank_correlation(*(relevances[name] for name in pair)) for pair in combinations(relevances, 2)}
    rows = mean_rows(pairs, ("first", "second", "correlation"), persons, resamples, NO_AGREEMENT)
    return rows.drop(columns="persons")


def seed_agreement(
    by_seed: Sequence[Mapping[str, np.ndarray]], persons: np.ndarray, resamples: Resamples
) -> pd.DataFrame:
    """Rank correlation of each method's explanations of networks that differ in their seed only.

    One row a method: method, seeds (how many), correlation (each window's mean over the pairs of seeds, then
    the mean over persons) with ``_low`` and ``_high``, reason; empty for one network.
    """
    if len(by_seed) < 2:
        return pd.DataFrame()
    pairs = list(combinations(by_seed, 2))
    values = {
        (method, len(by_seed)): np.mean([rank_correlation(a[method], b[method]) for a, b in pairs], axis=0)
        for method in by_seed[0]
    }
    rows = mean_rows(values, ("method", "seeds", "correlation"), persons, resamples, NO_AGREEMENT)
    return rows.drop(columns="persons")


def model_agreement(enrichments: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Rank correlation of every two models' waves, ordered by enrichment.

    Models read different inputs (windows, features), so they are compared by waves and not by samples; with six waves
    a correlation has no useful interval. One row a pair: first, second, waves (those both know), correlation, reason.
    """
    table = pd.DataFrame(enrichments)
    rows = []
    for pair in combinations(table.columns, 2):
        both = table[list(pair)].dropna()
        enough = len(both) >= 3
        found = rank_correlation(*both.to_numpy().T[:, None])[0] if enough else np.nan
        reason = "all waves of one have the same enrichment" if enough else "fewer than three waves are known to both"
        rows.append((*pair, len(both), found, reason if np.isnan(found) else None))
    return pd.DataFrame(rows, columns=["first", "second", "waves", "correlation", "reason"])


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
    found = pd.DataFrame(ratio(mass, mass.sum(axis=1, keepdims=True)), columns=list(WAVES), index=features.index)
    return found[features.notna().any(axis=1)].reindex(features.index)


def feature_model_shares(context: Context, seed: int) -> pd.DataFrame:
    """Shares of the waves in what the feature model uses to recognise the people of :func:`audited_jobs`.

    One row a wave: wave, share with ``_low`` and ``_high``, persons, windows.
    """
    job = audited_jobs(context, seed)[0][0]
    split = some_on_trial(context.splits(job)[0])
    fitted, (features, owners) = FeaturesAttacker().fit(context, job, split), context.dataset.features(split.probe)
    persons, booster = split.probe[SUBJECT].to_numpy(dtype=str)[owners], fitted.boosters[PERSON]
    labels = encode(persons, fitted.persons)
    rows = np.flatnonzero(labels != UNKNOWN)
    rows = rows[evenly(rows.size, AUDITED_WINDOWS[effort(context.profile)])]
    values = feature_shares(booster, features.iloc[rows], labels[rows])
    asked, resamples = {(wave,): values[wave] for wave in values}, Resamples.draw(persons[rows], seed)
    found = mean_rows(asked, ("wave", "share"), persons[rows], resamples, "no window has a feature")
    return found.drop(columns="reason").assign(windows=rows.size)


def compared_models(context: Context, seed: int, table: pd.DataFrame, of_features: pd.DataFrame) -> pd.DataFrame:
    """Agreement of networks (by some methods) and of the feature model on the waves by which people are recognised.

    `table` is that of :func:`ecgstudy.attribution.tables.all_shares`.
    """
    place = [audited_jobs(context, seed)[0][0].cohort, AUDITED, PERSON, "wave"]
    own = table[(table[["cohort", "protocol", "task", "kind"]] == place).all(axis=1)]
    by_wave = own.set_index(["model", "method", "wave"])["share"].sort_index()
    compared = [pair for pair in COMPARED if pair in by_wave.index.droplevel("wave")]
    found = {f"{model}, {method.replace('_', ' ')}": by_wave[model, method] for model, method in compared}
    return model_agreement(found | {"features, SHAP": of_features.set_index("wave")["share"]})
