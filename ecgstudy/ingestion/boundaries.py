"""Automatic wave boundaries against a reference: cardiologists' on LUDB, exact ones on the synthetic cohort."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd

from ecgstudy.data import base
from ecgstudy.data.base import Cohort
from ecgstudy.ingestion import delineation_scoring
from ecgstudy.ingestion.delineation_scoring import Boundaries, score_cohort, summarise
from ecgstudy.ingestion.stores import study_cohort
from ecgstudy.signals import delineation
from ecgstudy.signals import preprocess as signals
from ecgstudy.signals.delineation import CHOSEN_ON_EVERY
from ecgstudy.study.cache import KEY_LENGTH, cache_key, code_digest, new_file
from ecgstudy.study.config import cache_dir
from ecgstudy.study.stage import Stage

SCORED_BOUNDARIES = ("onset", "offset")
SYNTHETIC_LEAD = "II"
RESAMPLES = 1000


def boundary_reference(names: Sequence[str], seed: int) -> Cohort:
    """Open the cohort with reference boundaries: LUDB where it is among `names`, else the synthetic one."""
    return study_cohort("ludb" if "ludb" in names else "synthetic", seed)


def boundary_matches(reference: Cohort, profile: str) -> pd.DataFrame:
    """Delineate every lead of the reference cohort and match its onsets and offsets.

    The delineators were chosen on every fifth record of LUDB; those records
    are left out, so that the figures are of records nobody looked at.

    Returns
    -------
    pandas.DataFrame
        Rows of :func:`ecgstudy.ingestion.delineation_scoring.score_cohort`, cached by content.
    """
    code = code_digest(delineation, delineation_scoring, signals, base)
    key = cache_key(cohort=reference.digest(), code=code)[:KEY_LENGTH]
    cached = cache_dir(profile) / f"boundaries-{reference.name}-{key}.parquet"
    if not cached.is_file():
        with new_file(cached) as unfinished:
            score_cohort(reference, _boundaries_of(reference), n_jobs=2).to_parquet(unfinished)
    matches = pd.read_parquet(cached)
    if not reference.synthetic:
        chosen_on = reference.records()["record_id"].iloc[::CHOSEN_ON_EVERY]
        matches = matches[~matches["record_id"].isin(chosen_on)]
    return matches[matches["boundary"].isin(SCORED_BOUNDARIES)]


def _boundaries_of(reference: Cohort) -> Boundaries:
    """Give the reference of a record's lead; the synthetic boundaries hold for all leads, and one stands for them."""
    return partial(_synthetic_boundaries, reference) if reference.synthetic else reference.boundaries


def _synthetic_boundaries(reference: Cohort, record_id: str, lead: str) -> pd.DataFrame:
    """Give the generator's exact boundaries for lead II, none for the others."""
    truth = reference.boundaries(record_id)
    return truth if lead == SYNTHETIC_LEAD else truth.iloc[:0]


def delineation_table(matches: pd.DataFrame, seed: int, by_lead: bool = False) -> pd.DataFrame:
    """Sensitivity, PPV and signed error of each boundary with intervals over persons.

    Parameters
    ----------
    matches : pandas.DataFrame
        From :func:`boundary_matches`.
    seed : int
        Seed of the bootstrap over persons.
    by_lead : bool
        One row a lead, wave and boundary instead of a wave and boundary.
    """
    by = ("lead", "wave", "boundary") if by_lead else ("wave", "boundary")
    return summarise(matches, by, np.random.default_rng(seed), RESAMPLES)


def record_delineation(stage: Stage, cohort: str, summary: pd.DataFrame) -> None:
    """Record each boundary's figures as metrics ``<cohort>.delineation.<wave>_<boundary>.<figure>``."""
    units = {"sensitivity": "share", "ppv": "share", "error_ms_mean": "ms", "error_ms_sd": "ms"}
    for row in summary.to_dict("records"):
        stem = f"{cohort}.delineation.{row['wave'].lower()}_{row['boundary']}"
        for figure, unit in units.items():
            low, high = row[f"{figure}_low"], row[f"{figure}_high"]
            note = "no boundary was matched"
            stage.metric(f"{stem}.{figure}", row[figure], low, high, n=row["n_reference"], unit=unit, note=note)
        stage.headline(f"{stem}.sensitivity", f"{cohort}: {row['wave']} {row['boundary']}s found within 150 ms")


def delineation_finding(cohort: str, summary: pd.DataFrame) -> str:
    """Say in one sentence how far the automatic boundaries can be believed."""
    best, worst = (summary.loc[pick] for pick in (summary["sensitivity"].idxmax(), summary["sensitivity"].idxmin()))
    widest = summary.loc[summary["error_ms_sd"].idxmax()]
    return (
        f"Against the reference of {cohort}, between {100 * worst['sensitivity']:.1f} % "
        f"({worst['wave']} {worst['boundary']}) and {100 * best['sensitivity']:.1f} % "
        f"({best['wave']} {best['boundary']}) of the boundaries are found; the least certain, "
        f"{widest['wave']} {widest['boundary']}, scatters by {widest['error_ms_sd']:.0f} ms (SD)."
    )
