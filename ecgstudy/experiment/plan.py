"""Which attackers meet which protocols on which cohort."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from ecgstudy.errors import StudyError
from ecgstudy.evaluate.disjoint import with_cohort
from ecgstudy.evaluate.protocols import (
    CrossActivity,
    CrossDay,
    CrossElectrode,
    CrossRecord,
    LeaveLastDay,
    RandomWindows,
    TimeSeparated,
)
from ecgstudy.evaluate.splits import Protocol
from ecgstudy.evaluate.unseen import CrossCohort, SubjectDisjoint
from ecgstudy.experiment.recipes import NETWORKS
from ecgstudy.signals.store import RecordStore

SPLIT_SEED = 0
"""Splits are the same for all attackers and all seeds of their training."""
SEEDS = 3
DEMO_SEEDS = 1
DEMO_PROTOCOLS = ("random_windows", "cross_record", "cross_day", "subject_disjoint_cross_day")
"""The demo shows that the study runs, in minutes."""
TEMPLATE, FEATURES, UNTRAINED = "template", "features_gbm", "untrained"
SEEDLESS = (TEMPLATE, FEATURES, UNTRAINED)
"""Attackers that are run once: nothing random, or a control."""
MODELS = (*NETWORKS, FEATURES, TEMPLATE, UNTRAINED)
MOST_PERSONS = 1000
"""A cohort of more persons with one record each allows random windows only, at a cost that shows nothing new."""
LONG_RECORD_S = 1700.0
"""A cohort of half-hour records is split in time."""


@dataclass(frozen=True)
class Job:
    """One attacker, one protocol, one cohort, one seed.

    Attributes
    ----------
    cohort, model : str
        As in metric names.
    protocol : Protocol
        How the cohort is split.
    seed : int
        Seed of the training.
    """

    cohort: str
    protocol: Protocol
    model: str
    seed: int

    @property
    def name(self) -> str:
        """Name for files and logs: ``cohort.protocol.model.seed``."""
        return f"{self.cohort}.{self.protocol.name}.{self.model}.{self.seed}"


def auxiliary_cohorts(stores: Mapping[str, RecordStore]) -> list[str]:
    """Cohorts on which nobody can be recognised again: (nearly) one record a person; networks are pre-trained there."""
    chosen = []
    for name, store in stores.items():
        records = store.records
        recorded_again = (records["subject_id"].value_counts() > 1).mean()
        long = (records["store_samples"] / store.fs).min() > LONG_RECORD_S / 2
        if recorded_again < 0.1 and not long:
            chosen.append(name)
    return chosen


def protocols_of(name: str, stores: Mapping[str, RecordStore]) -> list[Protocol]:
    """Protocols that a cohort's records allow, the leaky one first.

    Parameters
    ----------
    name : str
        The cohort.
    stores : mapping of str to RecordStore
        All cohorts of the profile; the auxiliary ones train the cross-cohort attackers.
    """
    store = stores[name]
    records = store.records
    others = [other for other in auxiliary_cohorts(stores) if other != name]
    inner: list[Protocol] = []
    if {"activity", "electrode"} <= set(records):
        inner = [CrossActivity(), CrossElectrode()]
    elif (records["store_samples"] / store.fs).median() > LONG_RECORD_S:
        inner = [TimeSeparated()]
    elif (records["subject_id"].value_counts() > 1).any():
        inner = [CrossRecord()]
        inner += [CrossDay(), LeaveLastDay()] if (records["session"] > 1).any() else []
    unseen = [SubjectDisjoint(protocol) for protocol in inner if protocol.name in ("cross_record", "cross_day")]
    if others:
        table = pd.concat([with_cohort(other, stores[other].records) for other in others], ignore_index=True)
        unseen += [CrossCohort(table, protocol) for protocol in inner if protocol.name != "cross_electrode"]
    return [RandomWindows(), *inner, *unseen]


def chosen_protocols(stores: Mapping[str, RecordStore], profile: str) -> list[tuple[str, Protocol]]:
    """Cohort and protocol of everything that a profile asks; an auxiliary cohort of many persons is only trained on."""
    return [
        (name, protocol)
        for name, store in stores.items()
        if store.records["subject_id"].nunique() <= MOST_PERSONS
        for protocol in protocols_of(name, stores)
        if profile != "demo" or protocol.name in DEMO_PROTOCOLS
    ]


def refusal(stores: Mapping[str, RecordStore], cohort: str, protocol: Protocol) -> str | None:
    """Sentence that says why a cohort cannot be split by a protocol (too few persons, say); None where it can."""
    store = stores[cohort]
    try:
        protocol.splits(with_cohort(cohort, store.records), store.fs, SPLIT_SEED)
    except StudyError as impossible:
        return str(impossible)
    return None


def refused_protocols(stores: Mapping[str, RecordStore], profile: str) -> dict[tuple[str, str], str]:
    """Protocols that a profile asks and the records refuse: the sentence by cohort and protocol name."""
    asked = {(cohort, p.name): refusal(stores, cohort, p) for cohort, p in chosen_protocols(stores, profile)}
    return {key: sentence for key, sentence in asked.items() if sentence}


def plan(stores: Mapping[str, RecordStore], profile: str, seed: int) -> list[Job]:
    """List every job of a profile, without the protocols that the records refuse."""
    jobs = []
    for name, protocol in chosen_protocols(stores, profile):
        if refusal(stores, name, protocol):
            continue
        for model in MODELS:
            if model == FEATURES and isinstance(protocol, CrossCohort):
                continue  # it grows a tree a person and round, and those cohorts have thousands of persons
            seeds = 1 if model in SEEDLESS else DEMO_SEEDS if profile == "demo" else SEEDS
            jobs += [Job(name, protocol, model, seed + number) for number in range(seeds)]
    return jobs
