"""A release: the records of a cohort as they would be shared, which is a cohort again.

Attackers and classifiers read it as they read any: ingested, with R peaks that were found in the released waveform.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from ecgstudy.data.base import RECORD_COLUMNS, Cohort, Signal, as_tables
from ecgstudy.deidentification import learned, protections
from ecgstudy.deidentification.cycles import CycleSet, Recording, peaks_by_record
from ecgstudy.deidentification.protections import Protection
from ecgstudy.deidentification.readers import BRIEF
from ecgstudy.errors import NothingUsableError, StudyError
from ecgstudy.signals.ingest import build_store
from ecgstudy.signals.store import RecordStore
from ecgstudy.study.cache import cache_key, code_key

RAW = "raw.none"
"""Name of the release that protects nothing."""
PROTECTED = "protected"
"""Name of the release that an audit is about, whatever made it."""
COARSE = protections.Retiming(10.0)
"""Rates rounded to ten beats a minute: never off by more than five."""
RATE_CLASS = protections.Retiming(40.0, 120.0)
"""Rates of 40, 80 or 120 beats a minute: slow, usual or fast is all that is left. The price is the heart rate."""
TWO_DIAGNOSES = ("LVH", "AFIB")
"""What a release in PP-VAE's own setting keeps: one structural diagnosis (LVEF is not public) and fibrillation."""
PROTECTIONS: dict[str, Protection] = {
    RAW: protections.Unprotected(),
    "noise.0_25": protections.Noise(0.25),
    "noise.1": protections.Noise(1.0),
    "low_pass.15hz": protections.LowPass(15.0),
    "low_pass.8hz": protections.LowPass(8.0),
    "warp.0_1": protections.Warp(0.1),
    "warp.0_3": protections.Warp(0.3),
    "own_cycle.own": protections.OwnCycle(),
    "low_rank.8": protections.LowRank(8),
    "low_rank.3": protections.LowRank(3),
    "differential_privacy.epsilon_8": protections.DifferentiallyPrivate(),
    "differential_privacy.epsilon_32": protections.DifferentiallyPrivate(epsilon=32.0),
    "k_same.5": protections.KSame(5),
    "microaggregation.3": learned.Microaggregation(k=3),
    "microaggregation.5": learned.Microaggregation(k=5),
    "microaggregation.10": learned.Microaggregation(k=10),
    "pp_vae.1": learned.PPVAE(adversary=1.0),
    "pp_vae.10": learned.PPVAE(adversary=10.0),
    "bottleneck.logits": learned.Bottleneck(),
    "bottleneck.128": learned.Bottleneck(prototypes=128),
    "bottleneck.32": learned.Bottleneck(prototypes=32),
    "bottleneck.8": learned.Bottleneck(prototypes=8),
    "bottleneck_retimed.128": learned.Bottleneck(prototypes=128, retiming=COARSE),
    "bottleneck_retimed.32": learned.Bottleneck(prototypes=32, retiming=COARSE),
    "findings.third": learned.Bottleneck(findings=0.33),
    "findings_retimed.third": learned.Bottleneck(prototypes=128, findings=0.33, retiming=COARSE),
    "findings_rate_class.third": learned.Bottleneck(prototypes=128, findings=0.33, retiming=RATE_CLASS),
    "conditional_vae.labels": learned.ConditionalVAE(),
    "pp_vae_two_diagnoses.10": learned.PPVAE(told=TWO_DIAGNOSES, adversary=10.0),
    "bottleneck_two_diagnoses.32": learned.Bottleneck(told=TWO_DIAGNOSES, prototypes=32),
}
"""Protections by ``<method>.<strength>``, as metrics name them."""


def protection_of(name: str, brief: bool = False) -> Protection:
    """Look a protection up, one that learns briefly if told so; ``StudyError`` names those that there are."""
    if name not in PROTECTIONS:
        raise StudyError(f"There is no protection {name!r}; choose one of {', '.join(PROTECTIONS)}.")
    found = PROTECTIONS[name]
    return replace(found, thorough=BRIEF) if brief and hasattr(found, "thorough") else found


class ReleaseCohort(Cohort):
    """Some leads of the records of a store under a protection.

    Parameters
    ----------
    store : RecordStore
        The records as they are.
    leads : sequence of str
        Leads that are released; those of `release`.
    release : CycleSet
        The records that are released, with the cycles that were prepared for them.
    protection : Protection
        How they are protected, fitted or not.
    seed : int
        Seed of what is drawn for each record.
    made_from : str
        What tells the protection from any other: its name, its people, its seed.
    """

    name: ClassVar[str] = "release"
    licence = "that of the records it is made from"
    how_to_get = "Made by notebook 05_deidentification."

    def __init__(
        self,
        store: RecordStore,
        leads: Sequence[str],
        release: CycleSet,
        protection: Protection,
        seed: int,
        made_from: str,
    ) -> None:
        self.name = store.manifest["cohort"]
        self._store, self._leads, self._release, self._protection = store, tuple(leads), release, protection
        self._seed, self._made_from = seed, made_from
        self._row = {record_id: row for row, record_id in enumerate(release.records["record_id"])}
        self._peaks = peaks_by_record(store)

    @property
    def _scan(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Records that are released, as the store holds them."""
        added = {"store_samples", "offset", "usable_leads", "reference_lead", "delineation_failure", "sha256"}
        rows = self._release.records
        labels = [column for column in rows if column not in {*RECORD_COLUMNS, *added}]
        rows = rows.assign(leads=[self._leads] * len(rows), fs=self._store.fs, n_samples=rows["store_samples"])
        return as_tables(rows[[*RECORD_COLUMNS, *labels]], [])

    def signal(self, record_id: str) -> Signal:
        """Protect one record."""
        row = self._row[record_id]
        own_leads, unit = self._release.records.loc[row, ["leads", "unit"]]
        values = self._store.signal(record_id)[[own_leads.index(lead) for lead in self._leads]]
        recording = Recording(np.nan_to_num(values), self._store.fs, self._peaks[record_id])
        rng = np.random.default_rng([self._seed, row])
        values = self._protection.protect(recording, self._release.cycles[row], rng)
        return Signal(values.astype(np.float32), self._store.fs, self._leads, unit)

    def digest(self) -> str:
        """SHA-256 (hex) over the store, the protection and the records."""
        ids = self._release.records["record_id"].tolist()
        key = {"store": self._store.manifest["key"], "code": code_key(type(self)), "records": ids}
        return cache_key(**key, made_from=self._made_from, seed=self._seed, leads=list(self._leads))


def release_store(cohort: ReleaseCohort, cache: Path) -> RecordStore:
    """Ingest a release, beats by their R peaks alone: boundaries of waves would take most of the time."""
    try:
        return build_store(cohort, cache, cohort._store.fs, delineate=False, min_seconds=1.0, workers=1)
    except NothingUsableError as nothing:
        raise StudyError("No released record can be read: the protection destroyed them all.") from nothing
