"""Tables of the ingestion stage: who is there, who was left out, what leaks, and how well the waves are found.

Automatic wave boundaries are held against a reference: cardiologists' on LUDB, exact ones on the synthetic cohort. The
usual protocol (Martinez et al., IEEE TBME 51:570, 2004; Kalyakulina et al., IEEE Access 8:186181, 2020): an automatic
point is right when it lies within 150 ms of a reference point (the tolerance of ANSI/AAMI EC57), one to one;
sensitivity and positive predictive value (PPV) count the points, mean and standard deviation of the signed error
(automatic minus reference) describe the matched ones.
"""

from collections.abc import Mapping
from warnings import catch_warnings

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

from ecgstudy.data.base import Cohort
from ecgstudy.evaluate.bootstrap import RESAMPLES
from ecgstudy.evaluate.splits import assert_disjoint, duplicated_waveforms, with_cohort
from ecgstudy.ingestion.stores import EVERY_RECORD
from ecgstudy.signals.delineation import CHOSEN_ON_EVERY, WAVES, delineate
from ecgstudy.signals.quality import Problem
from ecgstudy.signals.store import RecordStore
from ecgstudy.study.cache import code_key, library_versions, remember
from ecgstudy.study.config import cache_dir
from ecgstudy.study.parallel import in_parallel
from ecgstudy.study.stage import Stage

COPIES = (Problem.DUPLICATE, Problem.COPY, Problem.ELSEWHERE)
"""Reasons to leave out what was recorded once and stands there twice."""
NONE_LEFT_OUT = "none left out"
"""Stands in the place of a reason for a cohort whose records are all used."""
TOLERANCE_MS = 150.0
PARTS = ("onset", "peak", "offset")
SCORED_PARTS = ("onset", "offset")
SYNTHETIC_LEAD = "II"
"""The exact boundaries hold for all leads, and one stands for them."""
FIGURES = {"sensitivity": "share", "ppv": "share", "error_ms_mean": "ms", "error_ms_sd": "ms"}
"""Unit of each figure of :func:`delineation_table`."""
_COUNTS = ["n_reference", "n_detected", "n_matched"]
_SUMS = [*_COUNTS, "errors_ms", "squares_ms"]


def cohort_table(stores: Mapping[str, RecordStore]) -> pd.DataFrame:
    """One row a cohort: records, persons, minutes, age, sex, sessions and the days between them."""
    rows = []
    for name, store in stores.items():
        records = store.records
        persons = records.drop_duplicates("subject_id")
        # undated sessions have no distance
        days = records.dropna(subset="session_day").groupby(["subject_id", "session"])["session_day"].first()
        between = days.groupby("subject_id").diff().dropna()
        row = {
            "cohort": name,
            "records": len(records),
            "excluded": len(store.exclusions),
            "persons": len(persons),
            "minutes": records["store_samples"].sum() / store.fs / 60,
            "unit": ", ".join(sorted(records["unit"].unique())),
            "leads": ", ".join(str(n) for n in sorted(records["leads"].map(len).unique())),
            "age median": persons["age"].median(),
            "women %": 100 * persons["sex"].dropna().eq("F").mean(),
            "persons with several sessions": int((records.groupby("subject_id")["session"].max() > 1).sum()),
            "days from one session to the next, median": between.median(),
            "days from one session to the next, longest": between.max(),
        }
        rows.append(row)
    return pd.DataFrame(rows)


def record_cohorts(stage: Stage, table: pd.DataFrame) -> None:
    """Record each cohort's counts as metrics and its records and persons as headlines."""
    for name, records, excluded, persons, minutes in table[
        ["cohort", "records", "excluded", "persons", "minutes"]
    ].values:
        stage.metric(f"{name}.records", records, n=records, unit="records")
        stage.metric(f"{name}.persons", persons, n=persons, unit="persons")
        stage.metric(f"{name}.excluded", excluded, n=records + excluded, unit="records")
        stage.metric(f"{name}.minutes", minutes, n=records, unit="min")
        stage.headline(f"{name}.records", f"{name}: records used")
        stage.headline(f"{name}.persons", f"{name}: persons")


def unusable_table(stores: Mapping[str, RecordStore], lost: pd.DataFrame) -> pd.DataFrame:
    """One row an excluded record with the sentence that says why and what to do."""
    parts = [*(store.exclusions.assign(cohort=name) for name, store in stores.items()), lost]
    return pd.concat(parts, ignore_index=True)[["cohort", "record_id", "reason", "sentence"]]


def exclusion_table(stores: Mapping[str, RecordStore], lost: pd.DataFrame) -> pd.DataFrame:
    """Count the records left out by cohort and reason; cohorts without any are named too.

    The count is undefined where a cohort's table could not be read.
    """
    counts = unusable_table(stores, lost).groupby(["cohort", "reason"], sort=False)["record_id"]
    rows = [(*key, np.nan if EVERY_RECORD in set(ids) else len(ids)) for key, ids in counts]
    rows += [(name, NONE_LEFT_OUT, 0) for name, store in stores.items() if store.exclusions.empty]
    return pd.DataFrame(rows, columns=["cohort", "reason", "records"]).astype({"records": "Int64"})


def exclusion_finding(table: pd.DataFrame, lost: pd.DataFrame) -> str:
    """Say how many records were left out and why, from :func:`exclusion_table`, and which cohorts take no part."""
    left_out = table[table["reason"] != NONE_LEFT_OUT]
    if left_out.empty:
        return "No record had to be left out."
    reasons = [
        f"{EVERY_RECORD if pd.isna(row.records) else row.records} of {row.cohort} ({row.reason})"
        for row in left_out.itertuples()
    ]
    absent = [f" No record of {name} can be used: it takes no part in the study." for name in lost["cohort"].unique()]
    return f"Records left out: {', '.join(reasons)}.{''.join(absent)}"


def leakage_table(stores: Mapping[str, RecordStore]) -> pd.DataFrame:
    """Find records whose waveform also stands under another person, within or across cohorts.

    Raises
    ------
    LeakageError
        Two cohorts share a waveform, so that they would not be independent.
    """
    parts = {name: with_cohort(name, store.records) for name, store in stores.items()}
    assert_disjoint(parts)
    columns = ["cohort", "record_id", "subject_id", "sha256"]
    return duplicated_waveforms(pd.concat(parts.values(), ignore_index=True))[columns]


def boundary_matches(reference: Cohort, profile: str) -> pd.DataFrame:
    """Give :func:`score_cohort`'s rows of onsets and offsets, cached by content.

    The delineators were chosen on every fifth record of LUDB; those records are left out, so that the figures are of
    records nobody looked at.
    """
    code = [code_key(score_cohort), code_key(type(reference))]
    made_from = {"cohort": reference.digest(), "code": code, "versions": library_versions()}
    matches, _ = remember(
        cache_dir(profile), f"boundaries-{reference.name}", made_from, lambda: score_cohort(reference)
    )
    if not reference.synthetic:
        chosen_on = reference.records()["record_id"].iloc[::CHOSEN_ON_EVERY]
        matches = matches[~matches["record_id"].isin(chosen_on)]
    return matches[matches["boundary"].isin(SCORED_PARTS)]


def score_cohort(cohort: Cohort) -> pd.DataFrame:
    """Delineate every lead of a cohort that has a reference, and match the points.

    Columns record_id, subject_id, lead, those of :func:`score_lead`, and failure: why a lead was not delineated.
    """
    records = cohort.records()[["record_id", "subject_id"]]
    items = [(cohort, *record) for record in records.itertuples(index=False)]
    scored = [rows for record in in_parallel(_score_record, items, "cpu", "delineation") for rows in record]
    return pd.concat(scored, ignore_index=True)


def _score_record(cohort: Cohort, record_id: str, subject_id: str) -> list[pd.DataFrame]:
    """Delineate and score the leads of one record that have a reference."""
    signal = cohort.signal(record_id)
    scored = []
    for lead, values in zip(signal.leads, signal.values, strict=True):
        if cohort.synthetic and lead != SYNTHETIC_LEAD:
            continue
        reference = cohort.boundaries(record_id) if cohort.synthetic else cohort.boundaries(record_id, lead)
        if reference.empty:
            continue
        points, failure = delineate(values, signal.fs)
        # what was found in a lead that failed is not used, and counts as not found
        found = dict.fromkeys(points, np.zeros(0)) if failure else points
        named = {"record_id": record_id, "subject_id": subject_id, "lead": lead}
        scored.append(score_lead(reference, found, signal.fs).assign(**named, failure=failure and str(failure)))
    return scored


def score_lead(reference: pd.DataFrame, found: Mapping[str, np.ndarray], fs: float) -> pd.DataFrame:
    """Match the fiducial points of one lead (in samples) with its reference.

    One row a wave and boundary: wave, boundary, n_reference, n_detected, n_matched, and the sums of the errors and of
    their squares over the pairs, in ms. Automatic points before the first or after the last reference mark of the
    lead count only where they match: LUDB's cardiologists left the first and last beats unmarked, so nothing says
    that such a point is wrong. The reference has columns wave, onset, peak, offset, NaN where not marked.
    """
    marks = reference[list(PARTS)].to_numpy(dtype=float)
    known = marks[np.isfinite(marks)]
    first, last = (known.min(), known.max()) if known.size else (np.inf, -np.inf)
    rows = []
    for wave, columns in WAVES.items():
        for part, column in zip(PARTS, columns, strict=True):
            truth = reference.loc[reference["wave"] == wave, part].to_numpy(dtype=float)
            truth = truth[np.isfinite(truth)]
            automatic = found[column][np.isfinite(found[column])]
            at_truth, at_automatic = match_points(truth, automatic, TOLERANCE_MS / 1000 * fs)
            counted = (automatic >= first) & (automatic <= last)
            counted[at_automatic] = True
            errors = (automatic[at_automatic] - truth[at_truth]) / fs * 1000
            counts = (truth.size, int(counted.sum()), errors.size)
            rows.append((wave, part, *counts, errors.sum(), np.square(errors).sum()))
    return pd.DataFrame(rows, columns=["wave", "boundary", *_SUMS])


def match_points(reference: np.ndarray, automatic: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Pair points one to one: as many pairs as the tolerance allows, then the smallest total distance.

    Gives the positions in `reference` and in `automatic` of each pair; a distance of `tolerance` is allowed.
    """
    distance = np.abs(reference[:, None] - automatic[None, :])
    within = distance <= tolerance
    # A forbidden pair costs more than all allowed pairs together, so none is ever bought with it.
    forbidden = (min(distance.shape) + 1) * (tolerance + 1.0)
    rows, columns = linear_sum_assignment(np.where(within, distance, forbidden))
    allowed = within[rows, columns]
    return rows[allowed], columns[allowed]


def delineation_table(matches: pd.DataFrame, seed: int, by_lead: bool = False) -> pd.DataFrame:
    """Sensitivity, PPV and signed error of each boundary (and lead), NaN where undefined, with 95 % intervals.

    Beats and leads of a person are not independent, so persons are resampled, not beats.
    """
    by = ["lead", "wave", "boundary"] if by_lead else ["wave", "boundary"]
    rng, rows = np.random.default_rng(seed), []
    for key, group in matches.groupby(by, sort=False):
        totals = group.groupby("subject_id")[_SUMS].sum().to_numpy(dtype=float)
        n = len(totals)
        values = _figures(totals.sum(axis=0, keepdims=True))[0]
        draws = _figures(rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES) @ totals)
        row = dict(zip(by, key, strict=True)) | {"n_subjects": n}
        row |= dict(zip(_COUNTS, totals.sum(axis=0).astype(int), strict=False))
        with catch_warnings(action="ignore", category=RuntimeWarning):  # a figure may be undefined in all resamples
            low, high = np.nanquantile(draws, [0.025, 0.975], axis=0)
        for at, figure in enumerate(FIGURES):
            row |= {figure: values[at], f"{figure}_low": low[at], f"{figure}_high": high[at]}
        rows.append(row | {"undefined_resamples": int(np.isnan(draws).any(axis=1).sum())})
    return pd.DataFrame(rows)


def _figures(totals: np.ndarray) -> np.ndarray:
    """Turn sums of shape (n, 5) into the four figures, shape (n, 4), NaN where undefined."""
    n_reference, n_detected, n_matched, error, squared = totals.T
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = error / n_matched
        # Rounding may leave a variance a hair below zero where all errors are equal.
        variance = np.maximum(squared - n_matched * mean**2, 0) / (n_matched - 1)
        deviation = np.where(n_matched > 1, np.sqrt(variance), np.nan)
        return np.column_stack([n_matched / n_reference, n_matched / n_detected, mean, deviation])


def record_delineation(stage: Stage, cohort: str, summary: pd.DataFrame) -> None:
    """Record figures as metrics ``<cohort>.delineation.<wave>_<boundary>.<figure>``, and the finding."""
    for row in summary.to_dict("records"):
        stem = f"{cohort}.delineation.{row['wave'].lower()}_{row['boundary']}"
        for figure, unit in FIGURES.items():
            numbers = (row[figure], row[f"{figure}_low"], row[f"{figure}_high"])
            stage.metric(f"{stem}.{figure}", *numbers, row["n_reference"], unit, "no boundary was matched")
        stage.headline(f"{stem}.sensitivity", f"{cohort}: {row['wave']} {row['boundary']}s found within 150 ms")
    named = summary["wave"] + " " + summary["boundary"]
    worst, best = summary["sensitivity"].idxmin(), summary["sensitivity"].idxmax()
    widest = summary["error_ms_sd"].idxmax()
    stage.finding(
        f"Against the reference of {cohort}, between {100 * summary['sensitivity'][worst]:.1f} % ({named[worst]}) and "
        f"{100 * summary['sensitivity'][best]:.1f} % ({named[best]}) of the boundaries are found; the least certain, "
        f"{named[widest]}, scatters by {summary['error_ms_sd'][widest]:.0f} ms (SD)."
    )
