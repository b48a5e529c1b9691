"""Faithfulness of explanations: does the network lose the class when what is said to matter is taken away.

Deletion and insertion follow Petsiuk et al., "RISE", BMVC 2018. Single samples cannot be taken away without leaving
the jagged signals that no network has seen, so windows are taken apart in chunks of :data:`CHUNK_S`, and a chunk is
filled from a whole, plausible ECG: the cohort's mean beat or another person's, stretched to the window's own
beats. Such curves still depend on the infill, so that of a random order stands beside each, and the methods' order
is compared between infills.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import kendalltau, spearmanr

from ecgstudy.attribution.clustered import clustered_means, columns_of
from ecgstudy.attribution.splicing import average_waves, splice, wave_spans
from ecgstudy.attribution.waves import WAVES
from ecgstudy.evaluate.bootstrap import Resamples
from ecgstudy.learn.base import SignalModel
from ecgstudy.learn.scoring import class_probabilities

CHUNK_S = 0.05
"""Seconds that are taken away at once: half a P wave or QRS complex."""
FRACTIONS = np.linspace(0.0, 1.0, 11)
"""Shares of the window taken away (or put in), at which the probability is computed."""
RANDOM_ORDERS = 4
"""Random orders whose mean curve the methods are compared with."""
MEAN_BEAT, DONOR_BEAT = "mean beat", "donor beat"
DELETION, INSERTION = "deletion", "insertion"
RANDOM_ORDER = "random order"
UNDEFINED = "the method gives no window any relevance"


@dataclass(frozen=True)
class Curves:
    """Probability of the class as chunks are exchanged for the infill, most relevant first.

    Attributes
    ----------
    deletion : numpy.ndarray
        Shape (n, n_fractions): from the window to the infill.
    insertion : numpy.ndarray
        From the infill to the window.
    """

    deletion: np.ndarray
    insertion: np.ndarray

    def areas(self) -> dict[str, np.ndarray]:
        """Mean height of each window's two curves (trapezoids over the fractions 0 to 1), shape (n,) each."""
        curves = {DELETION: self.deletion, INSERTION: self.insertion}
        return {name: np.trapezoid(curve, FRACTIONS, axis=1) for name, curve in curves.items()}


def infills(
    windows: np.ndarray, fiducials: Sequence[pd.DataFrame], persons: np.ndarray, fs: float, seed: int
) -> dict[str, np.ndarray]:
    """Give what windows are filled with: the same beats in time, but not the person's.

    Parameters
    ----------
    windows : numpy.ndarray
        float32, shape (n, 1, n_samples).
    fiducials : sequence of pandas.DataFrame
        Fiducial points of each window in samples from its start.
    persons : numpy.ndarray
        Person of each window, str, shape (n,); at least two.
    fs : float
        Sampling rate in Hz.
    seed : int
        Seed of the choice of donors.

    Returns
    -------
    dict of str to numpy.ndarray
        By :data:`MEAN_BEAT` and :data:`DONOR_BEAT`, shape of `windows`. Each wave of a window is the average of that
        wave over everybody's windows (every person weighing the same), or over those of another person drawn for
        the window. Waves cut by the window's edge, and those that could not be delineated, stay as they are.
    """
    n_samples = windows.shape[-1]
    spans = [wave_spans(points, n_samples) for points in fiducials]
    names, owner = np.unique(persons, return_inverse=True)
    parts = [average_waves(window[0], of_window) for window, of_window in zip(windows, spans, strict=True)]
    sums, counts = (np.zeros((len(names), *parts[0][at].shape)) for at in (0, 1))
    for person, (of_sums, of_counts) in zip(owner, parts, strict=True):
        sums[person] += of_sums
        counts[person] += of_counts
    waves = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    known = np.isfinite(waves)
    everybody = np.divide(
        np.where(known, waves, 0).sum(0), known.sum(0), out=np.full(waves.shape[1:], np.nan), where=known.any(0)
    )
    donor = (owner + np.random.default_rng(seed).integers(1, len(names), len(owner))) % len(names)
    waves = np.where(known, waves, everybody)  # a wave that the donor lacks
    filled = {name: np.empty_like(windows) for name in (MEAN_BEAT, DONOR_BEAT)}
    for at, (window, of_window) in enumerate(zip(windows, spans, strict=True)):
        filled[MEAN_BEAT][at, 0] = splice(window[0], of_window, everybody, WAVES, fs)
        filled[DONOR_BEAT][at, 0] = splice(window[0], of_window, waves[donor[at]], WAVES, fs)
    return filled


def chunk_ranks(relevances: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """Rank of each sample's chunk in its window, as a share: the most relevant chunk comes first.

    Parameters
    ----------
    relevances : numpy.ndarray
        Shape (n, n_samples).
    length : int
        Samples of a chunk; the last may be shorter. Chunks are compared by their mean relevance.
    rng : numpy.random.Generator
        Orders chunks of the same relevance.

    Returns
    -------
    numpy.ndarray
        Shape (n, n_samples): 1/m for the first of m chunks, 1 for the last; a share f of the window is what has f or
        less (rounded to whole chunks).
    """
    starts = np.arange(0, relevances.shape[1], length)
    lengths = np.diff(np.r_[starts, relevances.shape[1]])
    means = np.add.reduceat(relevances.astype(np.float64), starts, axis=1) / lengths
    order = np.lexsort((rng.random(means.shape), -means), axis=1)
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(1, len(starts) + 1)[None, :], axis=1)
    return np.repeat(ranks / len(starts), lengths, axis=1)


def curves(
    model: SignalModel, task: str, windows: np.ndarray, targets: np.ndarray, infill: np.ndarray, ranks: np.ndarray
) -> Curves:
    """Compute deletion and insertion curves of all windows, in one pass of batches.

    Parameters
    ----------
    model : SignalModel
        The network.
    task : str
        One of its tasks.
    windows, infill : numpy.ndarray
        float32, shape (n, n_leads, n_samples).
    targets : numpy.ndarray
        int64, shape (n,).
    ranks : numpy.ndarray
        From :func:`chunk_ranks`.
    """
    taken = (ranks <= FRACTIONS[:, None, None] + 1e-9)[:, :, None]  # (n_fractions, n, 1, n_samples)
    changed = np.concatenate([np.where(taken, infill, windows), np.where(taken, windows, infill)])
    # one fraction at a time would start a batch of few windows each
    flat = class_probabilities(model, changed.reshape(-1, *windows.shape[1:]), task)
    heights = flat.reshape(2, len(FRACTIONS), len(windows), -1)
    chosen = heights[:, :, np.arange(len(windows)), targets].transpose(0, 2, 1)
    return Curves(chosen[0], chosen[1])


@dataclass(frozen=True)
class Faithfulness:
    """Removal curves of several methods on one network.

    Attributes
    ----------
    table : pandas.DataFrame
        One row a method and infill: method, model, infill, deletion and insertion (areas), deletion_gap (area of the
        random order less the method's: higher is better) and insertion_gap (the method's less the random order's),
        each with ``_low`` and ``_high``, persons, windows, reason.
    curves : pandas.DataFrame
        Mean curves: method ("random order" for the comparison), infill, kind, fraction, probability.
    stability : pandas.DataFrame
        One row a kind: kendall and spearman correlation of the methods' gaps between the two infills, methods (how
        many), reason.
    """

    table: pd.DataFrame
    curves: pd.DataFrame
    stability: pd.DataFrame


def faithfulness(
    model: SignalModel,
    task: str,
    windows: np.ndarray,
    targets: np.ndarray,
    relevances: Mapping[str, np.ndarray],
    filled: Mapping[str, np.ndarray],
    persons: np.ndarray,
    resamples: Resamples,
    seed: int,
) -> Faithfulness:
    """Compare the removal curves of methods with those of random orders.

    Parameters
    ----------
    model, task, windows, targets
        As in :func:`curves`; give windows whose class the network names, or there is nothing to lose.
    relevances : mapping of str to numpy.ndarray
        Relevance by each method, shape (n, n_samples), 0 or more; rows with NaN are left out of its means.
    filled : mapping of str to numpy.ndarray
        From :func:`infills`.
    persons : numpy.ndarray
        Person of each window, str, shape (n,).
    resamples : Resamples
        The persons to resample.
    seed : int
        Seed of the random orders.
    """
    rng = np.random.default_rng(seed)
    length = max(1, round(CHUNK_S * model.hparams.fs))
    rows, drawn = [], []
    for name, infill in filled.items():
        orders = [chunk_ranks(np.zeros_like(windows[:, 0]), length, rng) for _ in range(RANDOM_ORDERS)]
        by_chance = [curves(model, task, windows, targets, infill, ranks) for ranks in orders]
        chance = Curves(
            np.mean([found.deletion for found in by_chance], axis=0),
            np.mean([found.insertion for found in by_chance], axis=0),
        )
        drawn += _curve_rows(RANDOM_ORDER, name, chance, np.ones(len(windows), dtype=bool))
        for method, relevance in relevances.items():
            defined = np.isfinite(relevance).all(axis=1)
            ranks = chunk_ranks(np.where(defined[:, None], relevance, 0.0), length, rng)
            found = curves(model, task, windows, targets, infill, ranks)
            drawn += _curve_rows(method, name, found, defined)
            areas = found.areas() | _gaps(found, chance)
            values = {key: np.where(defined, area, np.nan) for key, area in areas.items()}
            estimates = clustered_means(values, persons, resamples, UNDEFINED)
            about = {"method": method, "model": model.name, "infill": name}
            counts = {"persons": len(np.unique(persons[defined])), "windows": int(defined.sum())}
            reason = estimates["deletion_gap"].reason
            rows.append(about | columns_of(estimates) | counts | {"reason": reason})
    table = pd.DataFrame(rows)
    return Faithfulness(table, pd.DataFrame(drawn), infill_stability(table))


def _gaps(found: Curves, chance: Curves) -> dict[str, np.ndarray]:
    """How much better than a random order, shape (n,) each."""
    ours, random = found.areas(), chance.areas()
    return {"deletion_gap": random[DELETION] - ours[DELETION], "insertion_gap": ours[INSERTION] - random[INSERTION]}


def _curve_rows(method: str, infill: str, found: Curves, defined: np.ndarray) -> list[dict[str, object]]:
    """Mean curves as rows of a table."""
    rows = []
    for kind, curve in ((DELETION, found.deletion), (INSERTION, found.insertion)):
        means = curve[defined].mean(axis=0) if defined.any() else np.full(len(FRACTIONS), np.nan)
        about = {"method": method, "infill": infill, "kind": kind}
        rows += [about | {"fraction": f, "probability": p} for f, p in zip(FRACTIONS, means, strict=True)]
    return rows


def infill_stability(table: pd.DataFrame) -> pd.DataFrame:
    """Whether two infills bring the methods into the same order.

    Parameters
    ----------
    table : pandas.DataFrame
        ``Faithfulness.table`` of one network.

    Returns
    -------
    pandas.DataFrame
        ``Faithfulness.stability``.
    """
    rows = []
    for kind in (DELETION, INSERTION):
        gaps = table.pivot_table(index="method", columns="infill", values=f"{kind}_gap").dropna()
        row: dict[str, object] = {"kind": kind, "methods": len(gaps), "kendall": np.nan, "spearman": np.nan}
        reason = None if len(gaps) > 2 and gaps.shape[1] == 2 else "fewer than three methods or two infills"
        if reason is None:
            first, second = gaps.to_numpy().T
            row |= {"kendall": kendalltau(first, second).statistic, "spearman": spearmanr(first, second).statistic}
        rows.append(row | {"reason": reason})
    return pd.DataFrame(rows)
