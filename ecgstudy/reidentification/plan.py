"""Which attackers meet which protocols on which cohort, and the trials that anyone can run again."""

import gzip
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd

from ecgstudy.data.cohorts import cohorts_of
from ecgstudy.errors import StudyError
from ecgstudy.evaluate import protocols
from ecgstudy.evaluate.splits import RECORD, SUBJECT, Protocol, Split
from ecgstudy.experiment.attackers import attackers_of
from ecgstudy.experiment.jobs import Context, Job, Outcome, Work, run
from ecgstudy.experiment.networks import LONG_RECORD_S, auxiliary_cohorts
from ecgstudy.experiment.scores import score
from ecgstudy.ingestion.stores import open_usable_stores
from ecgstudy.signals.store import RecordStore
from ecgstudy.study.cache import new_file

SEEDS = 3
DEMO_SEEDS = 1
DEMO_PROTOCOLS = ("random_windows", "cross_record", "cross_day", "subject_disjoint_cross_day")
"""The demo shows that the study runs, in minutes."""
MOST_PERSONS = 1000
"""A cohort of more persons with one record each allows random windows only, at a cost that shows nothing new."""


def open_context(profile: str, stores: Mapping[str, RecordStore], device: str) -> Context:
    """Context of the stage's jobs: the profile's attackers on every store."""
    return Context(profile, stores, device, attackers_of(profile))


def protocols_of(name: str, context: Context) -> list[Protocol]:
    """Protocols that a cohort's records allow, the leaky one first; auxiliary cohorts train for cross-cohort ones."""
    store = context.stores[name]
    records = store.records
    others = [other for other in auxiliary_cohorts(context) if other != name]
    inner: list[Protocol] = []
    if {"activity", "electrode"} <= set(records):
        inner = [protocols.CrossActivity(), protocols.CrossElectrode()]
    elif (records["store_samples"] / store.fs).median() > LONG_RECORD_S:
        inner = [protocols.TimeSeparated()]
    elif (records[SUBJECT].value_counts() > 1).any():
        inner = [protocols.CrossRecord()]
        inner += [protocols.CrossDay(), protocols.LeaveLastDay()] if (records["session"] > 1).any() else []
    unseen = [
        protocols.SubjectDisjoint(protocol) for protocol in inner if protocol.name in ("cross_record", "cross_day")
    ]
    if others:
        table = pd.concat([context.records(other) for other in others], ignore_index=True)
        unseen += [protocols.CrossCohort(table, protocol) for protocol in inner if protocol.name != "cross_electrode"]
    return [protocols.RandomWindows(), *inner, *unseen]


def plan(context: Context, seed: int) -> list[Job]:
    """List every job of a profile; an auxiliary cohort of many persons is only trained on."""
    demo = context.profile == "demo"
    jobs = []
    for name, store in context.stores.items():
        if store.records[SUBJECT].nunique() > MOST_PERSONS:
            continue
        for protocol in protocols_of(name, context):
            if demo and protocol.name not in DEMO_PROTOCOLS:
                continue
            for attacker, fitted in context.attackers.items():
                if not fitted.applies(protocol):
                    continue
                seeds = 1 if fitted.seedless else DEMO_SEEDS if demo else SEEDS
                jobs += [Job(name, protocol, attacker, seed + number) for number in range(seeds)]
    return jobs


def two_people(context: Context, jobs: Sequence[Job]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Segments that enrol and that probe the first two people on trial, in another recording where there is one."""
    job = next((job for job in jobs if job.protocol.name == "cross_record"), jobs[0])
    split = context.splits(job)[0]
    two = split.probe[SUBJECT].unique()[:2]
    known, probe = (part[part[SUBJECT].isin(two)] for part in (split.enrolment, split.probe))
    return known.reset_index(drop=True), probe.reset_index(drop=True)


def run_attackers(context: Context, jobs: Sequence[Job]) -> Outcome:
    """Run every job of the plan that has not been run before, and load all scores; refuses a plan that gives none."""
    outcome = run(score, jobs, context, "attackers")
    if not outcome.values:
        raise StudyError("No cohort has people who could be recognised again; bring one with several records a person.")
    return outcome


def shared(profile: str, seed: int, device: str) -> Iterator[Work]:
    """Jobs of the stage that several processes may share."""
    stores, _ = open_usable_stores(profile, cohorts_of(profile), seed)
    context = open_context(profile, stores, device)
    yield score, plan(context, seed), context


def protocols_on_trial(context: Context, jobs: Sequence[Job]) -> list[Job]:
    """One job of every cohort and protocol of a plan that the records allow: its splits are those of all attackers."""
    found = {}
    for job in jobs:
        # what the records refuse is named by the runner
        with suppress(StudyError):
            context.splits(job)
            found.setdefault((job.cohort, job.protocol.name), job)
    return list(found.values())


def save_trials(context: Context, trialled: Sequence[Job], folder: Path) -> None:
    """Write the enrolment segments and the genuine and impostor pairs of each protocol as compressed CSV.

    ``<cohort>.<protocol>.enrolment.csv.gz`` lists which samples (start, stop, at the store's rate) enrol whom;
    ``<cohort>.<protocol>.pairs.csv.gz`` lists every probe with every enrolled person of its fold, genuine 1 or 0.
    """
    for job in trialled:
        splits = context.splits(job)
        enrolment = [split.enrolment[[SUBJECT, RECORD, "start", "stop"]] for split in splits]
        for part, tables in (("enrolment", enrolment), ("pairs", [_pairs(split) for split in splits])):
            table = pd.concat(tables, keys=range(len(tables)), names=["fold", None]).reset_index(level="fold")
            # neither a time nor the temporary name in the header: equal tables give equal bytes
            with (
                new_file(folder / f"{job.cohort}.{job.protocol.name}.{part}.csv.gz") as partial,
                partial.open("wb") as raw,
                gzip.GzipFile("", "wb", fileobj=raw, mtime=1) as packed,
            ):
                table.to_csv(packed, index=False)


def _pairs(split: Split) -> pd.DataFrame:
    """Every probe of a split with every enrolled person."""
    persons = split.enrolment[SUBJECT].unique()
    probe = split.probe[[RECORD, SUBJECT, "start", "stop"]].loc[split.probe.index.repeat(len(persons))]
    enrolled = np.tile(persons, len(split.probe))
    genuine = (probe[SUBJECT].to_numpy() == enrolled).astype(int)
    return probe.reset_index(drop=True).assign(enrolled=enrolled, genuine=genuine).drop(columns=SUBJECT)
