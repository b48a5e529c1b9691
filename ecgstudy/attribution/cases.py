"""Every case that is explained: a cohort, a protocol, a network and a task, with the relevance of each method."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from joblib import Memory
from joblib import hash as joblib_hash

from ecgstudy.attribution import (
    attention,
    cams,
    controls,
    faithfulness,
    gradients,
    methods,
    perturbation,
    question,
    splicing,
)
from ecgstudy.attribution.faithfulness import MEAN_BEAT, infills
from ecgstudy.attribution.methods import METHODS, Method, Question, attribute, completeness, obstacle, relevance
from ecgstudy.attribution.subjects import (
    Explained,
    Network,
    cardiologist_codes,
    explain,
    load_network,
    true_codes,
)
from ecgstudy.data.ludb import LudbCohort
from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.errors import StudyError
from ecgstudy.evaluate.splits import Split, with_cohort
from ecgstudy.experiment.jobs import Workshop
from ecgstudy.experiment.plan import SPLIT_SEED, Job, plan
from ecgstudy.ingestion.stores import study_cohort
from ecgstudy.learn import train as training
from ecgstudy.learn.base import SignalModel
from ecgstudy.learn.scoring import class_probabilities
from ecgstudy.signals.store import RecordStore
from ecgstudy.study.cache import code_digest
from ecgstudy.study.config import cache_dir
from ecgstudy.study.parallel import in_parallel

MODELS = ("resnet1d", "transecg")
"""Networks that are explained; a method's figures are those of the first that it applies to."""
TASKS = ("person", "sex", "age_group")
LEAKY = "random_windows"
UNSEEN = "subject_disjoint_cross_record"
"""Sex and age group of people none of whose recordings were learnt from."""
PROTOCOLS: Mapping[str, tuple[str, ...]] = {
    LEAKY: TASKS,
    "cross_record": TASKS,
    "time_separated": TASKS,
    "cross_activity": TASKS,
    UNSEEN: ("sex", "age_group"),
}
"""Protocols whose attackers are explained, and the tasks that each is asked about."""
DEMO_PROTOCOLS = ("cross_record",)
WINDOWS_A_PERSON = {"real": 2, "demo": 1}
FEW_PERSONS = 20
"""Cohorts of fewer persons give more windows of each."""
_CODE = (attention, cams, controls, faithfulness, gradients, methods, perturbation, question, splicing)


@dataclass(frozen=True)
class Case:
    """Windows of one cohort, protocol, network and task, and how relevant each method finds their samples.

    Attributes
    ----------
    cohort, protocol, model, task : str
        What is explained.
    windows : numpy.ndarray
        float32, shape (n, n_samples), standardised.
    persons, records : numpy.ndarray
        str, shape (n,), as ``cohort/name``.
    codes : numpy.ndarray
        int8, shape (n, n_samples): the wave of each sample.
    regions : numpy.ndarray
        bool, shape (n, n_regions, n_samples): TransECG's regions.
    peaks : list of numpy.ndarray
        R peaks of each window, in samples from its start; those of beats around it too.
    reference_codes : numpy.ndarray or None
        `codes` from boundaries that no algorithm drew (cardiologists, or the simulator), where the cohort has them.
    relevance : dict of str to numpy.ndarray
        Shape (n, n_samples), 0 or more, by method; NaN rows are undefined.
    obstacles : dict of str to str
        Why a method does not apply to the network.
    incompleteness : dict of str to float
        Median relative convergence delta of the methods that promise completeness.
    attempts : pandas.DataFrame
        One row a window that was tried, see :class:`~ecgstudy.attribution.subjects.Explained`.
    unlabelled : int
        Windows without a known label.
    accuracy : float
        Share of the windows whose class the network names: what it does not know cannot be explained.
    fs : float
        Sampling rate in Hz.
    """

    cohort: str
    protocol: str
    model: str
    task: str
    windows: np.ndarray
    persons: np.ndarray
    records: np.ndarray
    codes: np.ndarray
    regions: np.ndarray
    peaks: list[np.ndarray]
    reference_codes: np.ndarray | None
    relevance: dict[str, np.ndarray]
    obstacles: dict[str, str]
    incompleteness: dict[str, float]
    attempts: pd.DataFrame
    unlabelled: int
    accuracy: float
    fs: float


def explained_jobs(stores: Mapping[str, RecordStore], profile: str, seed: int) -> list[Job]:
    """Jobs of stage 02 whose networks are explained: one seed of each network and protocol."""
    asked = DEMO_PROTOCOLS if profile == "demo" else tuple(PROTOCOLS)
    return [
        job
        for job in plan(stores, profile, seed)
        if job.model in MODELS and job.seed == seed and job.protocol.name in asked
    ]


def explain_cases(
    profile: str, stores: Mapping[str, RecordStore], seed: int, device: str
) -> tuple[list[Case], dict[str, str]]:
    """Explain every case of a profile, on all processor cores.

    Returns
    -------
    cases : list of Case
        In the order of the plan.
    refused : dict of str to str
        Cases that cannot be explained (no sex is known, nobody could be delineated), each with the sentence that
        says why.
    """
    folders = tuple((name, store.folder) for name, store in stores.items())
    asked = [(profile, folders, device, job) for job in explained_jobs(stores, profile, seed)]
    cases: list[Case] = []
    refused: dict[str, str] = {}
    for done in in_parallel(explain_job, asked, device, "explanations"):
        for name, outcome in done.items():
            if isinstance(outcome, Case):
                cases.append(outcome)
            else:
                refused[name] = outcome
    return cases, refused


def open_network(workshop: Workshop, job: Job) -> tuple[Network, Split]:
    """Network of a job's first fold, and the split it was trained on."""
    split = first_split(workshop, job)
    return load_network(workshop, job, split), split


def first_split(workshop: Workshop, job: Job) -> Split:
    """First fold of a job's protocol."""
    store = workshop.stores[job.cohort]
    return job.protocol.splits(with_cohort(job.cohort, store.records), store.fs, SPLIT_SEED)[0]


def windows_a_person(profile: str, split: Split) -> int:
    """Windows of each person that are explained at most."""
    few = split.probe["subject_id"].nunique() < FEW_PERSONS
    return WINDOWS_A_PERSON[profile] * (6 if few else 1)


def explain_job(profile: str, folders: tuple[tuple[str, Path], ...], device: str, job: Job) -> dict[str, Case | str]:
    """Explain every task of one network."""
    torch.set_num_threads(training.THREADS)
    workshop = process_workshop(profile, folders, device)
    network, split = open_network(workshop, job)
    outcomes: dict[str, Case | str] = {}
    for task in PROTOCOLS[job.protocol.name]:
        name = f"{job.cohort}.{job.protocol.name}.{job.model}.{task}"
        try:
            explained = explain(workshop, job, split, network, task, windows_a_person(profile, split))
        except StudyError as impossible:
            outcomes[name] = str(impossible)
        else:
            outcomes[name] = _case(explained, cache_dir(profile) / "attribution")
    return outcomes


@lru_cache(maxsize=1)
def process_workshop(profile: str, folders: tuple[tuple[str, Path], ...], device: str) -> Workshop:
    """Workshop that a process keeps from job to job."""
    return Workshop.open(profile, {name: RecordStore(folder) for name, folder in folders}, device)


def _case(explained: Explained, cache: Path) -> Case:
    """Ask every method about the windows, or load its answers."""
    model = explained.network.model
    asked = question_about(explained)
    code = code_digest(*_CODE)
    remembered = Memory(cache, verbose=0).cache(_named_answers, ignore=["asked"])
    weights = joblib_hash({name: value.numpy() for name, value in model.state_dict().items()})
    name = (
        code,
        weights,
        asked.task,
        joblib_hash((asked.windows, asked.targets, asked.waves, asked.mean_beats)),
        asked.seed,
    )
    found, incompleteness = remembered(asked, name)
    named = class_probabilities(
        model, explained.windows, explained.task, explained.network.classes[explained.task]
    ).argmax(axis=1)
    job = explained.job
    return Case(
        job.cohort,
        job.protocol.name,
        job.model,
        explained.task,
        explained.windows[:, 0],
        explained.persons,
        explained.records,
        explained.codes,
        explained.region_masks(),
        [points["r_peak"].to_numpy() for points in explained.fiducials],
        _reference_codes(explained),
        found,
        {name: why for name, method in METHODS.items() if (why := obstacle(method, model))},
        incompleteness,
        explained.attempts,
        explained.unlabelled,
        float((named == explained.targets).mean()),
        explained.network.trainer.signals.fs,
    )


def question_about(explained: Explained) -> Question:
    """Ask for the logit of the true class."""
    seed = explained.job.seed
    fs = explained.network.trainer.signals.fs
    filled = infills(explained.windows, explained.fiducials, explained.persons, fs, seed)[MEAN_BEAT]
    model, targets = explained.network.model, explained.targets
    return Question(model, explained.task, explained.windows, targets, explained.codes, seed, filled)


def _named_answers(asked: Question, name: tuple[object, ...]) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Ask every method; `name` stands for the question in the cache."""
    return answers(asked)


def answers(asked: Question) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Relevance by every method that applies, and the median relative convergence delta where one is promised."""
    found: dict[str, np.ndarray] = {}
    incompleteness: dict[str, float] = {}
    for method in applicable(asked.model):
        name, attribution = method.name, attribute(method, asked)
        found[name] = relevance(method, attribution)
        if method.complete:
            incompleteness[name] = float(np.nanmedian(completeness(method, asked, attribution)))
    return found, incompleteness


def applicable(model: SignalModel) -> list[Method]:
    """Methods that apply to a network."""
    return [method for method in METHODS.values() if not obstacle(method, model)]


def _reference_codes(explained: Explained) -> np.ndarray | None:
    """Wave codes from boundaries that no algorithm drew, where the cohort has them."""
    cohort = study_cohort(explained.job.cohort, explained.job.seed)
    fs, n_samples = explained.network.trainer.signals.fs, explained.codes.shape[1]
    if isinstance(cohort, LudbCohort):
        return cardiologist_codes(cohort, explained.records, explained.starts, n_samples, fs)[0]
    if isinstance(cohort, SyntheticCohort):
        places = zip(explained.records, explained.starts, strict=True)
        return np.stack([true_codes(cohort, r.split("/", 1)[1], start, n_samples, fs)[0] for r, start in places])
    return None


def by_place(cases: list[Case]) -> Iterator[tuple[tuple[str, str, str], list[Case]]]:
    """Cases of one cohort, protocol and task, a case a network."""
    grouped: dict[tuple[str, str, str], list[Case]] = {}
    for case in cases:
        grouped.setdefault((case.cohort, case.protocol, case.task), []).append(case)
    yield from grouped.items()
