"""Which attackers meet which protocols on which cohort, and the trials that anyone can run again."""

import gzip
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd

from ecgstudy.data.cohorts import cohorts_of
from ecgstudy.errors import NotApplicableError, StudyError
from ecgstudy.evaluate import protocols
from ecgstudy.evaluate.splits import RECORD, SUBJECT, Protocol, Split
from ecgstudy.evaluate.streamed import BINS
from ecgstudy.evaluate.trials import MOST_HELD_TRIALS
from ecgstudy.evaluate.variants import Shortened
from ecgstudy.experiment.attackers import UNTRAINED, attackers_of
from ecgstudy.experiment.jobs import (
    LEAST_ON_TRIAL,
    LONG_RECORD_S,
    MOST_PERSONS,
    Context,
    Job,
    Outcome,
    Work,
    run,
)
from ecgstudy.experiment.networks import auxiliary_records
from ecgstudy.experiment.scores import score
from ecgstudy.ingestion.stores import open_usable_stores
from ecgstudy.signals.store import RecordStore
from ecgstudy.study.cache import new_file
from ecgstudy.study.config import effort

SEEDS = 3
DEMO_SEEDS = 1
DEMO_PROTOCOLS = ("random_windows", "cross_record", "cross_record_5s", "cross_day", "subject_disjoint_cross_day")
"""The demo shows that the study runs, in minutes."""
BY_HAND_S, MOST_ASKED = 4.0, 100
"""Seconds of the windows of the two people shown first, who are sought among so many."""


def open_context(profile: str, stores: Mapping[str, RecordStore], device: str) -> Context:
    """Context of the stage's jobs: the profile's attackers on every store."""
    return Context(profile, stores, device, attackers_of(profile))


def protocols_of(name: str, context: Context) -> list[Protocol]:
    """Protocols that a cohort's records allow, the leaky one first; auxiliary records train for cross-cohort ones."""
    store, others = context.stores[name], auxiliary_records(context, but=name)
    records = context.records(name).query("on_trial")
    recorded_again = records[SUBJECT].value_counts() > 1
    inner: list[Protocol] = []
    if {"activity", "electrode"} <= set(records):
        inner = [protocols.CrossActivity(), protocols.CrossElectrode()]
    else:
        long = (records["store_samples"] / store.fs).median() > LONG_RECORD_S
        inner = [protocols.TimeSeparated()] if long else []
        # a single person among many who came back says nothing about them
        if recorded_again.mean() >= 0.1 or (recorded_again.any() and not long):
            inner += [protocols.CrossRecord()]
            inner += [protocols.CrossDay(), protocols.LeaveLastDay()] if (records["session"] > 1).any() else []
    unseen = [
        protocols.SubjectDisjoint(protocol) for protocol in inner if protocol.name in ("cross_record", "cross_day")
    ]
    if len(others):
        unseen += [protocols.CrossCohort(others, protocol) for protocol in inner if protocol.name != "cross_electrode"]
    known = chain.from_iterable((protocol, Shortened(protocol)) for protocol in inner)
    return [protocols.RandomWindows(), *known, *unseen]


def not_on_trial(context: Context) -> dict[str, str]:
    """Cohorts on which nobody is tried, with the reason."""
    reasons = {}
    for name in context.stores:
        records = context.records(name)
        persons = records[SUBJECT].nunique()
        if persons < 2:
            reasons[name] = "it has one person only, who can be confused with nobody"
        elif not records["on_trial"].any():
            again = records.loc[records[SUBJECT].duplicated(), SUBJECT].nunique()
            reasons[name] = (
                f"{again:,} of its {persons:,} persons have several records; of more than {MOST_PERSONS:,} persons "
                f"{LEAST_ON_TRIAL} must have, or all only help to train"
            )
    return reasons


def size_notes(context: Context) -> list[str]:
    """Say of every large cohort on trial what was bounded."""
    notes = []
    for name in context.stores:
        records = context.records(name)
        persons, tried = records[SUBJECT].nunique(), records.loc[records["on_trial"], SUBJECT].nunique()
        if persons > MOST_PERSONS and tried:
            notes.append(
                f"{name}: {tried:,} of {persons:,} persons are on trial, the others help to train. Drawn by the seed: "
                f"networks learn from {protocols.MOST_LEARNT:,} persons at most, random windows are of "
                f"{protocols.MOST_SHUFFLED:,} at most. Above {MOST_HELD_TRIALS:,} trials error rates are counted in "
                f"{BINS:,} bins of scores, trials/ lists enrolment and probes but no pairs, and shuffled names, DET "
                "curves, gallery sizes and extrapolation are of persons drawn."
            )
    return notes


def plan(context: Context, seed: int) -> list[Job]:
    """List every job of a profile."""
    demo = context.profile == "demo"
    jobs, refused = [], not_on_trial(context)
    for name in [name for name in context.stores if name not in refused]:
        for protocol in protocols_of(name, context):
            if demo and protocol.name not in DEMO_PROTOCOLS:
                continue
            for attacker, fitted in context.attackers.items():
                if not fitted.applies(protocol):
                    continue
                seeds = 1 if fitted.seedless else DEMO_SEEDS if effort(context.profile) == "demo" else SEEDS
                jobs += [Job(name, protocol, attacker, seed + number) for number in range(seeds)]
    return jobs


def two_people(context: Context, jobs: Sequence[Job]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Segments that enrol the first two people on trial and that probe them, in another recording where there is one.

    Both have a whole window of :data:`BY_HAND_S` to learn from, and the first has one that probes;
    ``NotApplicableError`` where no two have.
    """
    trialled = protocols_on_trial(context, jobs)
    for job in sorted(trialled, key=lambda job: job.protocol.name != "cross_record"):
        split, found = context.splits(job)[0], []
        for person in pd.concat([split.probe, split.enrolment])[SUBJECT].unique()[:MOST_ASKED]:
            known, probe = (part[part[SUBJECT] == person] for part in (split.enrolment, split.probe))
            learnt, probing = (_whole_windows(context, part) for part in (known, probe))
            if len(learnt) and (len(probing) or found):
                found.append((known, probe.iloc[probing]))
            if len(found) == 2:
                known, probe = (pd.concat(parts).sort_index() for parts in zip(*found, strict=True))
                return known.reset_index(drop=True), probe.reset_index(drop=True)
    reason = f"no two people have {BY_HAND_S:g} s to learn from and others to recognise one of them by"
    raise NotApplicableError(_nobody(context, reason))


def _whole_windows(context: Context, segments: pd.DataFrame) -> np.ndarray:
    """Numbers of the segments that hold a window of :data:`BY_HAND_S`."""
    return np.unique(context.dataset.windows(segments, round(BY_HAND_S * context.dataset.fs))[1])


def run_attackers(context: Context, jobs: Sequence[Job]) -> Outcome:
    """Run every job of the plan that has not been run before, and load all scores; refusals name cohorts left out too.

    ``NotApplicableError`` where nobody has a score.
    """
    outcome = run(score, jobs, context, "attackers")
    if not outcome.values:
        reasons = outcome.refusals["reason"].unique()
        raise NotApplicableError(_nobody(context, "; ".join(reasons) or "no recording can be tried"))
    left_out = [
        Job(name, protocols.CrossRecord(), UNTRAINED, 0).about() | {"reason": f"{reason[:1].upper()}{reason[1:]}."}
        for name, reason in not_on_trial(context).items()
    ]
    return replace(outcome, refusals=pd.concat([outcome.refusals, pd.DataFrame(left_out)], ignore_index=True))


def _nobody(context: Context, otherwise: str) -> str:
    """Say why nobody can be recognised."""
    reasons = [f"{name}: {reason}" for name, reason in not_on_trial(context).items()] or [otherwise]
    if not any(context.records(name)[SUBJECT].duplicated().any() for name in context.stores):
        reasons.insert(0, "every person has one record")
    return f"nobody can be recognised again ({'; '.join(reasons)})"


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
    ``<cohort>.<protocol>.pairs.csv.gz`` lists every probe with every enrolled person of its fold, genuine 1 or 0;
    of more than :data:`MOST_HELD_TRIALS` pairs ``<cohort>.<protocol>.probes.csv.gz`` lists the probes alone.
    """
    for job in trialled:
        splits, shown = context.splits(job), [SUBJECT, RECORD, "start", "stop"]
        parts = {"enrolment": [split.enrolment[shown] for split in splits]}
        if sum(len(split.probe) * split.enrolment[SUBJECT].nunique() for split in splits) > MOST_HELD_TRIALS:
            parts["probes"] = [split.probe[shown] for split in splits]
        else:
            parts["pairs"] = [_pairs(split) for split in splits]
        for part, tables in parts.items():
            table = pd.concat(tables, keys=range(len(tables)), names=["fold", None]).reset_index(level="fold")
            with new_file(folder / f"{job.cohort}.{job.protocol.name}.{part}.csv.gz") as partial:
                # neither the time nor a name in the header: equal tables give equal bytes
                partial.write_bytes(gzip.compress(table.to_csv(index=False).encode(), mtime=1))


def _pairs(split: Split) -> pd.DataFrame:
    """Every probe of a split with every enrolled person."""
    persons = split.enrolment[SUBJECT].unique()
    probe = split.probe[[RECORD, SUBJECT, "start", "stop"]].loc[split.probe.index.repeat(len(persons))]
    enrolled = np.tile(persons, len(split.probe))
    genuine = (probe[SUBJECT].to_numpy() == enrolled).astype(int)
    return probe.reset_index(drop=True).assign(enrolled=enrolled, genuine=genuine).drop(columns=SUBJECT)
