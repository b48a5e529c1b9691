"""Stores of the cohorts that a profile reads."""

from collections.abc import Sequence

from ecgstudy.cohorts import open_cohort
from ecgstudy.cohorts.base import Cohort
from ecgstudy.cohorts.synthetic import SyntheticCohort
from ecgstudy.paths import cache_dir
from ecgstudy.simulator.templates import CONDITIONS
from ecgstudy.store import RecordStore
from ecgstudy.store_build import build_store

STORE_FS = 100.0
"""Hz. The 0.5-40 Hz band fits below its 50 Hz limit, PTB-XL has it by nature, and models stay small."""
SYNTHETIC_FS = 250.0
"""Hz of the synthetic records, so that ingestion has something to resample."""
SYNTHETIC_DIAGNOSES = dict.fromkeys(CONDITIONS, 0.05)
"""Share of the synthetic persons with each condition; the others are healthy."""


def study_cohort(name: str, seed: int) -> Cohort:
    """Open a cohort as the study uses it; the synthetic one is drawn from `seed`."""
    if name == SyntheticCohort.name:
        return SyntheticCohort(fs=SYNTHETIC_FS, seed=seed, diagnoses=SYNTHETIC_DIAGNOSES)
    return open_cohort(name)


def open_stores(profile: str, names: Sequence[str], seed: int, fs: float = STORE_FS) -> dict[str, RecordStore]:
    """Ingest cohorts into the profile's cache, or open what an earlier run ingested.

    Parameters
    ----------
    profile : str
        "demo" or "real": names the cache.
    names : sequence of str
        Cohorts, see ``python -m ecgstudy cohorts``.
    seed : int
        Seed of the synthetic cohort.
    fs : float
        Sampling rate of the stored signals in Hz.

    Raises
    ------
    StudyError
        A cohort is absent or holds no usable record.
    """
    return {name: build_store(study_cohort(name, seed), cache_dir(profile), fs) for name in names}
