"""Delineation error: automatic fiducial points against the boundaries that cardiologists drew.

The usual protocol (Martinez et al., IEEE TBME 51:570, 2004; Kalyakulina et al.,
IEEE Access 8:186181, 2020): an automatic point is right when it lies within
150 ms of a reference point (the tolerance of ANSI/AAMI EC57), one to one;
sensitivity and positive predictive value (PPV) count the points, mean and
standard deviation of the signed error describe the matched ones.
"""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy.optimize import linear_sum_assignment

from ecgstudy.data.base import Cohort
from ecgstudy.signals.delineation import Failure, Fiducials, delineate
from ecgstudy.study.parallel import progress

TOLERANCE_MS = 150.0
WAVE_COLUMNS = {
    ("P", "onset"): "p_onset",
    ("P", "peak"): "p_peak",
    ("P", "offset"): "p_offset",
    ("QRS", "onset"): "qrs_onset",
    ("QRS", "peak"): "r_peak",
    ("QRS", "offset"): "qrs_offset",
    ("T", "onset"): "t_onset",
    ("T", "peak"): "t_peak",
    ("T", "offset"): "t_offset",
}
"""(wave, boundary) of the reference -> the fiducial point that stands for it."""
MATCH_COLUMNS = (
    "record_id",
    "subject_id",
    "lead",
    "wave",
    "boundary",
    "n_reference",
    "n_detected",
    "n_matched",
    "errors_ms",
    "failure",
)

_FIGURES = ("sensitivity", "ppv", "error_ms_mean", "error_ms_sd")

Boundaries = Callable[[str, str], pd.DataFrame]
"""record_id, lead -> columns ``wave``, ``onset``, ``peak``, ``offset`` in samples."""


def match_points(reference: np.ndarray, automatic: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Pair points one to one: as many pairs as the tolerance allows, then the smallest total distance.

    Parameters
    ----------
    reference, automatic : numpy.ndarray
        Shape (n_reference,) and (n_automatic,), finite, any unit of time.
    tolerance : float
        Largest distance of a pair, in the same unit; itself allowed.

    Returns
    -------
    reference_index, automatic_index : numpy.ndarray
        int, shape (n_pairs,): pair k is ``reference[reference_index[k]]`` with
        ``automatic[automatic_index[k]]``.
    """
    distance = np.abs(reference[:, None] - automatic[None, :])
    within = distance <= tolerance
    # A forbidden pair costs more than all allowed pairs together, so none is ever bought with it.
    forbidden = (min(distance.shape) + 1) * (tolerance + 1.0)
    rows, columns = linear_sum_assignment(np.where(within, distance, forbidden))
    allowed = within[rows, columns]
    return rows[allowed], columns[allowed]


def score_lead(reference: pd.DataFrame, found: Fiducials | Failure, fs: float) -> pd.DataFrame:
    """Match the fiducial points of one lead with its reference.

    Automatic points before the first or after the last reference mark of the
    lead count only where they match: LUDB's cardiologists left the first and
    last beats unmarked, so nothing says that such a point is wrong.

    Parameters
    ----------
    reference : pandas.DataFrame
        Columns ``wave`` ("P", "QRS", "T"), ``onset``, ``peak``, ``offset``:
        samples, NaN where not marked.
    found : Fiducials or Failure
        Automatic points in samples; a failure detects nothing.
    fs : float
        Sampling rate of both, in Hz.

    Returns
    -------
    pandas.DataFrame
        One row a wave and boundary: ``wave``, ``boundary``, ``n_reference``,
        ``n_detected``, ``n_matched`` and ``errors_ms`` (array, automatic minus
        reference of each pair, in ms).
    """
    marks = reference[["onset", "peak", "offset"]].to_numpy(dtype=float)
    known = marks[np.isfinite(marks)]
    first, last = (known.min(), known.max()) if known.size else (np.inf, -np.inf)
    rows = []
    for (wave, boundary), column in WAVE_COLUMNS.items():
        truth = reference.loc[reference["wave"] == wave, boundary].to_numpy(dtype=float)
        truth = truth[np.isfinite(truth)]
        automatic = np.zeros(0) if isinstance(found, Failure) else getattr(found, column)
        automatic = automatic[np.isfinite(automatic)]
        at_truth, at_automatic = match_points(truth, automatic, TOLERANCE_MS / 1000 * fs)
        counted = (automatic >= first) & (automatic <= last)
        counted[at_automatic] = True
        errors = (automatic[at_automatic] - truth[at_truth]) / fs * 1000
        rows.append((wave, boundary, truth.size, int(counted.sum()), errors.size, errors))
    return pd.DataFrame(rows, columns=["wave", "boundary", "n_reference", "n_detected", "n_matched", "errors_ms"])


def _score_record(cohort: Cohort, boundaries: Boundaries, record_id: str, subject_id: str) -> list[pd.DataFrame]:
    """Delineate and score the leads of one record that have a reference."""
    signal = cohort.signal(record_id)
    scored = []
    for lead, values in zip(signal.leads, signal.values, strict=True):
        reference = boundaries(record_id, lead)
        if reference.empty:
            continue
        found = delineate(values, signal.fs)
        rows = score_lead(reference, found, signal.fs)
        rows.insert(0, "record_id", record_id)
        rows.insert(1, "subject_id", subject_id)
        rows.insert(2, "lead", lead)
        rows["failure"] = str(found.reason) if isinstance(found, Failure) else None
        scored.append(rows)
    return scored


def score_cohort(cohort: Cohort, boundaries: Boundaries, n_jobs: int) -> pd.DataFrame:
    """Delineate every lead of a cohort that has a reference, and match the points.

    Parameters
    ----------
    cohort : Cohort
        Where the records come from.
    boundaries : callable
        Reference of a record's lead, such as ``LudbCohort.boundaries``.
    n_jobs : int
        Parallel processes.

    Returns
    -------
    pandas.DataFrame
        Columns :data:`MATCH_COLUMNS`, one row a record, lead, wave and
        boundary; `failure` is why the lead was not delineated, or None.

    Raises
    ------
    RecordError
        A record or its annotation cannot be read.
    """
    records = cohort.records()
    tasks = (
        delayed(_score_record)(cohort, boundaries, record_id, subject_id)
        for record_id, subject_id in zip(records["record_id"], records["subject_id"], strict=True)
    )
    done: Iterator[list[pd.DataFrame]] = Parallel(n_jobs=n_jobs, return_as="generator")(tasks)
    scored = [rows for record in progress(done, total=len(records), desc="delineation") for rows in record]
    if not scored:
        return pd.DataFrame(columns=list(MATCH_COLUMNS))
    return pd.concat(scored, ignore_index=True)[list(MATCH_COLUMNS)]


def summarise(
    matches: pd.DataFrame, by: tuple[str, ...], rng: np.random.Generator, n_resamples: int = 1000
) -> pd.DataFrame:
    """Sensitivity, PPV and error, each with a 95 % percentile interval over persons.

    Beats and leads of a person are not independent, so persons are resampled,
    not beats.

    Parameters
    ----------
    matches : pandas.DataFrame
        From :func:`score_cohort`.
    by : tuple of str
        Columns that make a row of the result: ("wave", "boundary") or with "lead".
    rng : numpy.random.Generator
        Draws the resamples.
    n_resamples : int
        Bootstrap resamples.

    Returns
    -------
    pandas.DataFrame
        Columns `by`, ``n_subjects``, ``n_reference``, ``n_detected``,
        ``n_matched``, and ``sensitivity``, ``ppv``, ``error_ms_mean``,
        ``error_ms_sd`` (of all matched beats, signed: automatic minus
        reference), each also with ``_low`` and ``_high``. NaN where undefined;
        ``undefined_resamples`` counts the resamples left out of an interval
        because some figure was undefined in them.
    """
    rows = []
    for key, group in matches.groupby(list(by), sort=False):
        totals = _totals_by_subject(group)
        estimates = _figures(totals.sum(axis=0, keepdims=True))[0]
        weights = rng.multinomial(len(totals), np.full(len(totals), 1 / len(totals)), size=n_resamples)
        resampled = _figures(weights @ totals)
        low, high = _percentile_interval(resampled)
        counts = totals[:, :3].sum(axis=0).astype(int)
        row = dict(zip(by, key, strict=True))
        row |= {"n_subjects": len(totals)} | dict(zip(("n_reference", "n_detected", "n_matched"), counts, strict=True))
        for index, figure in enumerate(_FIGURES):
            row |= {figure: estimates[index], f"{figure}_low": low[index], f"{figure}_high": high[index]}
        row["undefined_resamples"] = int(np.isnan(resampled).any(axis=1).sum())
        rows.append(row)
    return pd.DataFrame(rows)


def _totals_by_subject(group: pd.DataFrame) -> np.ndarray:
    """Add up what each person contributes.

    Columns of the result, shape (n_subjects, 5): points in the reference,
    detected, matched, sum of errors, sum of squared errors.
    """
    sums = group[["n_reference", "n_detected", "n_matched"]].astype(float)
    sums["error"] = [errors.sum() for errors in group["errors_ms"]]
    sums["squared"] = [np.square(errors).sum() for errors in group["errors_ms"]]
    return sums.groupby(group["subject_id"]).sum().to_numpy()


def _figures(totals: np.ndarray) -> np.ndarray:
    """Turn sums of shape (n, 5) into the four figures, shape (n, 4), NaN where undefined."""
    n_reference, n_detected, n_matched, error, squared = totals.T
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = error / n_matched
        # Rounding may leave a variance a hair below zero where all errors are equal.
        variance = np.maximum(squared - n_matched * mean**2, 0) / (n_matched - 1)
        deviation = np.where(n_matched > 1, np.sqrt(variance), np.nan)
        return np.column_stack([n_matched / n_reference, n_matched / n_detected, mean, deviation])


def _percentile_interval(resampled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95 % interval of each column, NaN where every resample is undefined."""
    interval = np.full((2, resampled.shape[1]), np.nan)
    for index, column in enumerate(resampled.T):
        defined = column[np.isfinite(column)]
        if defined.size:
            interval[:, index] = np.quantile(defined, [0.025, 0.975])
    return interval[0], interval[1]
