"""The audits on people: one cohort and protocol, every network that is explained, side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ecgstudy.attribution.agreement import method_agreement, seed_agreement
from ecgstudy.attribution.cases import (
    MODELS,
    answers,
    applicable,
    first_split,
    open_network,
    process_workshop,
    question_about,
)
from ecgstudy.attribution.causal import Attack, effect_table, share_agreement, wave_effects
from ecgstudy.attribution.clustered import clustered_means, columns_of
from ecgstudy.attribution.faithfulness import Faithfulness, faithfulness, infills
from ecgstudy.attribution.feature_shares import feature_shares
from ecgstudy.attribution.methods import Question
from ecgstudy.attribution.robustness import robustness_table
from ecgstudy.attribution.sanity import randomisation_table
from ecgstudy.attribution.shares import wave_shares
from ecgstudy.attribution.subjects import Explained, explain
from ecgstudy.errors import StudyError
from ecgstudy.evaluate.bootstrap import Resamples
from ecgstudy.evaluate.splits import SUBJECT
from ecgstudy.experiment.attackers import fit_features
from ecgstudy.experiment.feature_windows import segment_features
from ecgstudy.experiment.jobs import Workshop
from ecgstudy.experiment.people import targets, trainable_classes
from ecgstudy.experiment.plan import Job, plan
from ecgstudy.learn import train as training
from ecgstudy.learn.scoring import class_probabilities
from ecgstudy.signals.store import RecordStore
from ecgstudy.study.parallel import in_parallel

PROTOCOL = "cross_record"
"""Everybody on trial, and no recording learnt from."""
WINDOWS = {"real": 90, "demo": 8}
"""Windows that are audited at most, one a person where there are as many people."""
COMPARED = (
    ("resnet1d", "gradients_from_mean_beat"),
    ("resnet1d", "integrated_gradients"),
    ("transecg", "gradients_from_mean_beat"),
    ("transecg", "attention_rollout"),
)
"""Networks and methods that are compared with each other and with the feature model, by shares of waves."""
ROBUST_WINDOWS = {"real": 24, "demo": 4}
"""Windows for infidelity and sensitivity, which ask every method many times."""


@dataclass(frozen=True)
class PeopleAudit:
    """Audits of all methods on one network.

    Attributes
    ----------
    cohort, model : str
        Who was recognised, by which network.
    windows, persons : int
        How many windows of how many persons stand behind the audits of single windows.
    sanity : pandas.DataFrame
        From :func:`ecgstudy.attribution.sanity.randomisation_table`.
    faithful : Faithfulness
        Deletion and insertion.
    robustness : pandas.DataFrame
        From :func:`ecgstudy.attribution.robustness.robustness_table`.
    effects : pandas.DataFrame
        From :func:`ecgstudy.attribution.causal.effect_table`.
    causal : pandas.DataFrame
        One row a method and effect: method, effect, correlation of its shares with the effect with ``_low`` and
        ``_high``, persons, reason.
    methods, seeds : pandas.DataFrame
        Agreement between methods, and between seeds (empty with one seed).
    """

    cohort: str
    model: str
    windows: int
    persons: int
    sanity: pd.DataFrame
    faithful: Faithfulness
    robustness: pd.DataFrame
    effects: pd.DataFrame
    causal: pd.DataFrame
    methods: pd.DataFrame
    seeds: pd.DataFrame


def audited_jobs(stores: Mapping[str, RecordStore], profile: str, seed: int) -> list[list[Job]]:
    """Jobs of the first cohort that allows :data:`PROTOCOL`: one list a network, one job a seed."""
    jobs = [job for job in plan(stores, profile, seed) if job.protocol.name == PROTOCOL and job.model in MODELS]
    first = [job for job in jobs if job.cohort == jobs[0].cohort]
    return [[job for job in first if job.model == model] for model in MODELS] if jobs else []


def audit_people(profile: str, stores: Mapping[str, RecordStore], seed: int, device: str) -> list[PeopleAudit]:
    """Audit all methods on the networks that recognise people across recordings, on all processor cores.

    Raises
    ------
    StudyError
        No cohort has several records a person, or nobody is recognised.
    """
    jobs = audited_jobs(stores, profile, seed)
    if not jobs:
        raise StudyError("No cohort has several records a person, so no explanation of recognition can be audited.")
    folders = tuple((name, store.folder) for name, store in stores.items())
    asked = [(profile, folders, device, own) for own in jobs]
    return list(in_parallel(_audit, asked, device, "audits on people"))


def _audit(profile: str, folders: tuple[tuple[str, Path], ...], device: str, jobs: Sequence[Job]) -> PeopleAudit:
    """Audit one network; the first job's is the one explained, the others differ in their seed."""
    torch.set_num_threads(training.THREADS)
    workshop, job = process_workshop(profile, folders, device), jobs[0]
    network, split = open_network(workshop, job)
    everyone = np.concatenate([split.enrolment[SUBJECT], split.probe[SUBJECT]]).astype(str)
    resamples = Resamples.draw(everyone, job.seed)
    explained = _recognised(explain(workshop, job, split, network, "person", 1), WINDOWS[profile])
    question = question_about(explained)
    relevances, _ = answers(question)
    goals, persons = explained.targets, explained.persons
    filled = infills(explained.windows, explained.fiducials, persons, workshop.signals.fs, job.seed)
    methods = applicable(network.model)
    effects = wave_effects([Attack(split, workshop.signals, network.reading)], resamples)
    causal = [
        {"method": name, "effect": effect, "persons": found.n, "reason": found.reason}
        | columns_of({"correlation": found})
        for name, relevance in relevances.items()
        for effect, found in share_agreement(
            wave_shares(relevance, explained.codes), persons, effects, resamples
        ).items()
    ]
    few = ROBUST_WINDOWS[profile]
    return PeopleAudit(
        job.cohort,
        job.model,
        len(goals),
        np.unique(persons).size,
        randomisation_table(question, methods, persons, resamples),
        faithfulness(
            network.model, "person", explained.windows, goals, relevances, filled, persons, resamples, job.seed
        ),
        robustness_table(
            question_about(_subset(explained, np.arange(len(goals)) < few)), methods, persons[:few], resamples
        ),
        effect_table(effects, resamples),
        pd.DataFrame(causal),
        method_agreement(relevances, persons, resamples),
        _seeds(workshop, jobs, question, relevances, persons, resamples),
    )


def _recognised(explained: Explained, most: int) -> Explained:
    """Keep windows whose person the network names, at most so many, evenly spread over them."""
    right = class_probabilities(explained.network.model, explained.windows, "person").argmax(1) == explained.targets
    if np.unique(explained.persons[right]).size < 2:
        raise StudyError(
            f"{explained.job.name} names the person of too few windows for its explanations to be audited."
        )
    rows = np.flatnonzero(right)
    chosen = np.zeros(len(right), dtype=bool)
    chosen[rows[np.linspace(0, rows.size - 1, min(most, rows.size)).round().astype(int)]] = True
    return _subset(explained, chosen)


def _subset(explained: Explained, chosen: np.ndarray) -> Explained:
    """Keep the windows chosen by a boolean mask."""
    arrays = ("windows", "targets", "persons", "records", "starts", "codes")
    kept = {name: getattr(explained, name)[chosen] for name in arrays}
    return replace(explained, **kept, fiducials=[explained.fiducials[row] for row in np.flatnonzero(chosen)])


def _seeds(
    workshop: Workshop,
    jobs: Sequence[Job],
    question: Question,
    relevances: Mapping[str, np.ndarray],
    persons: np.ndarray,
    resamples: Resamples,
) -> pd.DataFrame:
    """Agreement between the networks of all seeds, whose classes are the same."""
    if len(jobs) < 2:
        return pd.DataFrame()
    others = [answers(replace(question, model=open_network(workshop, job)[0].model))[0] for job in jobs[1:]]
    return seed_agreement([relevances, *others], persons, resamples)


def feature_model_shares(stores: Mapping[str, RecordStore], profile: str, seed: int) -> pd.DataFrame:
    """Shares of the waves in what the feature model uses to recognise the people of :func:`audited_jobs`.

    Returns
    -------
    pandas.DataFrame
        One row a wave: wave, share with ``_low`` and ``_high``, persons, windows; empty where nobody is on trial.
    """
    jobs = audited_jobs(stores, profile, seed)
    if not jobs:
        return pd.DataFrame()
    job = jobs[0][0]
    workshop = Workshop.open(profile, {job.cohort: stores[job.cohort]}, "cpu")
    split = first_split(workshop, job)
    booster = fit_features(workshop.signals, workshop.people, split, seed).boosters["person"]
    features, owners = segment_features(workshop.signals, split.probe)
    persons = split.probe[SUBJECT].to_numpy(dtype=str)[owners]
    classes = trainable_classes(split.train[SUBJECT].to_numpy(dtype=str), workshop.people)
    goals = targets(persons, workshop.people, classes)["person"]
    rows = np.flatnonzero(np.isin(goals, booster.classes))
    rows = rows[np.linspace(0, rows.size - 1, min(WINDOWS[profile], rows.size)).round().astype(int)]
    shares = feature_shares(booster, features.iloc[rows], goals[rows])
    resamples = Resamples.draw(persons[rows], seed)
    estimates = clustered_means(dict(shares.items()), persons[rows], resamples, "no window has a feature")
    return pd.DataFrame(
        [
            {"wave": wave, **columns_of({"share": found}), "persons": found.n, "windows": rows.size}
            for wave, found in estimates.items()
        ]
    )


def model_shares(shares: pd.DataFrame, of_features: pd.DataFrame, cohort: str) -> dict[str, dict[str, float]]:
    """Shares of the waves for recognising people, by network and method and by the feature model."""
    own = shares[(shares["cohort"] == cohort) & (shares["protocol"] == PROTOCOL) & (shares["task"] == "person")]
    own = own[own["kind"] == "wave"]
    found = {
        f"{model}, {method.replace('_', ' ')}": dict(zip(part["wave"], part["share"], strict=True))
        for model, method in COMPARED
        if len(part := own[(own["model"] == model) & (own["method"] == method)])
    }
    return found | {"features, SHAP": dict(zip(of_features["wave"], of_features["share"], strict=True))}
