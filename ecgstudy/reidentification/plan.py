"""Which attackers meet which protocols on which cohort."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain

import numpy as np
import pandas as pd

from ecgstudy.data.cohorts import cohorts_of
from ecgstudy.errors import NotApplicableError, StudyError
from ecgstudy.evaluate import protocols
from ecgstudy.evaluate.splits import SUBJECT, Protocol
from ecgstudy.evaluate.streamed import BINS
from ecgstudy.evaluate.trials import MOST_HELD_TRIALS
from ecgstudy.evaluate.variants import LargeGallery, Permuted, Shortened
from ecgstudy.experiment.attackers import (
    COHORT_ONLY,
    NETWORKS,
    PRETRAINED,
    TEMPLATE,
    UNTRAINED,
    CohortAttacker,
    attackers_of,
)
from ecgstudy.experiment.evaluation import REFERENCE
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
from ecgstudy.reidentification.pooled import pooled_work
from ecgstudy.reidentification.strangers import read_strangers, stranger_jobs
from ecgstudy.signals.store import RecordStore
from ecgstudy.study.config import effort

DEMO_PROTOCOLS = ("random_windows", "cross_record", "cross_record_5s", "cross_day", "subject_disjoint_cross_day")
"""The demo shows that the study runs, in minutes."""
CONTROL, CONTROLLED = "beatnet", ("cross_day", "cross_record", "time_separated", "cross_activity")
"""Network that learns names drawn by lot, and the protocols under which it does."""
BY_HAND_S, MOST_ASKED = 4.0, 100
"""Seconds of the windows of the two people shown first, who are sought among so many."""


def open_context(profile: str, stores: Mapping[str, RecordStore], device: str) -> Context:
    """Context of the stage's jobs: the profile's attackers on every store, the pre-trained where others can help."""
    attackers = attackers_of(profile)
    context = Context(profile, stores, device, attackers)
    if len(auxiliary_records(context)):
        return context
    return replace(context, attackers={name: one for name, one in attackers.items() if name != PRETRAINED})


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
    leakier = [protocols.OverlappingWindows()] if {protocol.name for protocol in inner} & {"cross_record"} else []
    return [protocols.RandomWindows(), *leakier, *known, *unseen]


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


def notes(context: Context, outcome: Outcome) -> list[str]:
    """Say which protocols a cohort does not allow, and of every large cohort on trial what was bounded."""
    refused = outcome.refusals.drop_duplicates(["cohort", "protocol"]).itertuples()
    notes = [f"{row.cohort}, {row.protocol.replace('_', ' ')}: {row.reason}" for row in refused]
    for name in context.stores:
        records = context.records(name)
        persons, tried = records[SUBJECT].nunique(), records.loc[records["on_trial"], SUBJECT].nunique()
        if persons > MOST_PERSONS and tried:
            notes.append(
                f"{name}: {tried:,} of {persons:,} persons are on trial, the others help to train. Drawn by the seed: "
                f"networks learn from {protocols.MOST_LEARNT:,} persons at most, random windows are of "
                f"{protocols.MOST_SHUFFLED:,} at most. Above {MOST_HELD_TRIALS:,} trials error rates are counted in "
                f"{BINS:,} bins of scores, trials/ lists enrolment and probes but no pairs, and DET "
                "curves, gallery sizes and extrapolation are of persons drawn."
            )
    return notes


def plan(context: Context, seed: int) -> list[Job]:
    """List every job of a profile."""
    demo = context.profile == "demo"
    allowed = [(name, protocol) for name in _on_trial(context) for protocol in protocols_of(name, context)]
    asked = [(name, protocol) for name, protocol in allowed if not demo or protocol.name in DEMO_PROTOCOLS]
    return [job for name, protocol in asked for job in _jobs(context, name, protocol, seed)]


def _on_trial(context: Context) -> list[str]:
    """Cohorts on which somebody is tried."""
    refused = not_on_trial(context)
    return [name for name in context.stores if name not in refused]


def _jobs(context: Context, cohort: str, protocol: Protocol, seed: int) -> list[Job]:
    """Jobs of every attacker that takes part under a protocol, with each seed of its training.

    Overlapping windows are asked of TransECG alone: whoever has learnt half of a probe knows it.
    """
    asked = [REFERENCE] if isinstance(protocol, protocols.OverlappingWindows) else [*context.attackers]
    return [
        Job(cohort, protocol, attacker, seed + number)
        for attacker, fitted in context.attackers.items()
        if attacker in asked and fitted.applies(protocol)
        for number in range(1 if effort(context.profile) == "demo" else fitted.seeds)
    ]


def control_jobs(context: Context, seed: int) -> list[Job]:
    """Jobs of one network that learns names drawn by lot, on the first cohort that allows each protocol."""
    first: dict[str, tuple[str, Protocol]] = {}
    for name in _on_trial(context):
        for protocol in protocols_of(name, context):
            first.setdefault(protocol.name, (name, protocol))
    controlled = [first[of] for of in CONTROLLED if of in first][: 1 if context.profile == "demo" else None]
    return [Job(name, Permuted(inner, both), CONTROL, seed) for name, inner in controlled for both in (True, False)]


def gallery_work(context: Context, seed: int) -> tuple[Context, list[Job]]:
    """Jobs that seek the people of a cohort among those of other cohorts too, and the context of these jobs.

    It has an attacker that only tells cohorts apart: what it achieves is owed to the devices.
    """
    attackers = {name: context.attackers[name] for name in (*NETWORKS, TEMPLATE) if name in context.attackers}
    wide = replace(context, attackers={**attackers, COHORT_ONLY: CohortAttacker()})
    for name in _on_trial(context):
        others = auxiliary_records(context, but=name)
        allowed = {protocol.name: protocol for protocol in protocols_of(name, context)}
        inner = next((allowed[of] for of in ("cross_day", "cross_record") if of in allowed), None)
        if inner and len(others):
            return wide, _jobs(wide, name, LargeGallery(others.drop_duplicates(SUBJECT), inner), seed)
    return wide, []


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
    yield score, [*plan(context, seed), *control_jobs(context, seed)], context
    for work in (gallery_work, pooled_work):
        opened, jobs = work(context, seed)
        yield score, jobs, opened
    yield read_strangers, stranger_jobs(context, seed), context


def protocols_on_trial(context: Context, jobs: Sequence[Job]) -> list[Job]:
    """One job of every cohort and protocol of a plan that the records allow: its splits are those of all attackers."""
    found = {}
    for job in jobs:
        # what the records refuse is named by the runner
        with suppress(StudyError):
            context.splits(job)
            found.setdefault((job.cohort, job.protocol.name), job)
    return list(found.values())
