"""How much of a method's relevance each wave holds, beside how much of the time it takes.

A wave that lasts half the beat holds half of any attribution that means nothing. So each share of relevance
stands beside the wave's share of time, and their ratio, the enrichment, is 1 for a method that knows nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ecgstudy.attribution.waves import REGIONS, UNKNOWN_WAVE, WAVES
from ecgstudy.evaluate.bootstrap import Estimate, Resamples, bootstrap_each

NO_RELEVANCE = "the method gives no window any relevance"
CLASS_COLUMNS = ("cohort", "sex", "age_group", "person")
"""Classes for which left-out windows are counted: a table by wave speaks of those whose waves could be found."""


@dataclass(frozen=True)
class Shares:
    """Shares of each window's relevance and time; only samples whose wave is known count.

    Attributes
    ----------
    names : tuple of str
        Waves or regions.
    mass : numpy.ndarray
        Share of the relevance, float64, shape (n, n_names); NaN rows where a window has no relevance.
    time : numpy.ndarray
        Share of the samples, same shape.
    """

    names: tuple[str, ...]
    mass: np.ndarray
    time: np.ndarray


def wave_shares(relevance: np.ndarray, codes: np.ndarray) -> Shares:
    """Shares of the waves, which add up to 1.

    Parameters
    ----------
    relevance : numpy.ndarray
        Shape (n, n_samples), 0 or more; a row with NaN is undefined.
    codes : numpy.ndarray
        int8, shape (n, n_samples), from :func:`ecgstudy.attribution.waves.wave_codes`.

    Raises
    ------
    ValueError
        A relevance is negative.
    """
    masks = codes[:, None, :] == np.arange(len(WAVES), dtype=codes.dtype)[:, None]
    return _shares(WAVES, relevance, masks, codes)


def region_shares(relevance: np.ndarray, masks: np.ndarray, codes: np.ndarray) -> Shares:
    """Shares of TransECG's regions, which overlap; other parameters as in :func:`wave_shares`.

    Parameters
    ----------
    masks : numpy.ndarray
        bool, shape (n, n_regions, n_samples), from :func:`ecgstudy.attribution.waves.region_masks`.
    """
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
    """Mean shares and enrichment of each wave with person-clustered bootstrap intervals.

    A person's windows are averaged first, so that everybody weighs the same however many windows could be
    delineated. Enrichment is the mean share of relevance over the mean share of time.

    Parameters
    ----------
    shares : Shares
        Of windows of one method, task, cohort and protocol.
    persons : numpy.ndarray
        Person of each window, str, shape (n,).
    resamples : Resamples
        The persons to resample, the same draws for every method.

    Returns
    -------
    pandas.DataFrame
        One row a wave: wave; share, time and enrichment, each also with ``_low`` and ``_high`` (95 % interval);
        persons, windows, undefined (windows without relevance, left out of share and time alike), reason (why
        a value or its interval is NaN, else None).
    """
    defined = np.isfinite(shares.mass).all(axis=1)
    means = mean_shares(shares, persons, resamples)
    n_persons, k = np.unique(persons[defined]).size, len(shares.names)
    estimates = bootstrap_each(
        lambda multiplicity: means(multiplicity).ravel(), resamples, n_persons, _reasons(shares.names, n_persons)
    )
    numbers = len(defined), int((~defined).sum())
    return pd.DataFrame([_row(name, estimates[at::k], *numbers) for at, name in enumerate(shares.names)])


def mean_shares(shares: Shares, persons: np.ndarray, resamples: Resamples) -> Callable[[np.ndarray], np.ndarray]:
    """Mean share of relevance, mean share of time and enrichment of each wave, for the bootstrap.

    Parameters are those of :func:`share_table`.

    Returns
    -------
    callable
        From the persons' multiplicities, shape (n_persons,), to an array of shape (3, n_names); NaN where undefined.
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


def _reasons(names: tuple[str, ...], n_persons: int) -> list[str]:
    """Why each number of :func:`mean_shares` would be undefined."""
    never = [f"no window has a {name}" if n_persons else NO_RELEVANCE for name in names]
    return [NO_RELEVANCE] * (2 * len(names)) + never


def _row(name: str, estimates: Sequence[Estimate], n_windows: int, n_undefined: int) -> dict[str, object]:
    """One wave of the table from the estimates of its share, time and enrichment."""
    row: dict[str, object] = {"wave": name}
    for column, estimate in zip(("share", "time", "enrichment"), estimates, strict=True):
        row |= {column: estimate.value, f"{column}_low": estimate.low, f"{column}_high": estimate.high}
    reason = next((estimate.reason for estimate in estimates if estimate.reason), None)
    return row | {
        "persons": estimates[0].n,
        "windows": n_windows - n_undefined,
        "undefined": n_undefined,
        "reason": reason,
    }


def failure_table(attempts: pd.DataFrame) -> pd.DataFrame:
    """Count the windows that could not be delineated, by class and by reason.

    Parameters
    ----------
    attempts : pandas.DataFrame
        One row a window: columns :data:`CLASS_COLUMNS` (None or NaN where not known) and reason (None where the
        window counts).

    Returns
    -------
    pandas.DataFrame
        One row a class: class_of (one of :data:`CLASS_COLUMNS`), name ("unknown" where not known), persons,
        windows, left_out, rate (share left out) and one column a reason that occurs.
    """
    reasons = sorted(attempts["reason"].dropna().unique())
    parts = []
    for column in CLASS_COLUMNS:
        names = attempts[column].where(attempts[column].notna(), "unknown").astype(str).rename("name")
        grouped = attempts.groupby(names)
        table = grouped.agg(
            persons=("person", "nunique"), windows=("reason", "size"), left_out=("reason", "count")
        ).reset_index()
        for reason in reasons:
            table[reason] = (attempts["reason"] == reason).groupby(names).sum().to_numpy()
        table.insert(0, "class_of", column)
        table.insert(5, "rate", table["left_out"] / table["windows"])
        parts.append(table)
    return pd.concat(parts, ignore_index=True)
