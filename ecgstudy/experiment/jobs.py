"""Runs the jobs of the plan, each once: scores are cached by a hash of everything that makes them."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout

from ecgstudy.errors import StudyError
from ecgstudy.evaluate.disjoint import with_cohort
from ecgstudy.evaluate.splits import RECORD, SUBJECT, Split, segments
from ecgstudy.evaluate.unseen import CrossCohort, training_parts
from ecgstudy.experiment import attackers, feature_windows, networks, people, recipes
from ecgstudy.experiment import dataset as windows
from ecgstudy.experiment.attackers import Embedded, Fitted
from ecgstudy.experiment.dataset import Signals, by_lead
from ecgstudy.experiment.networks import Auxiliary
from ecgstudy.experiment.people import CLASSES, group_ages, people_table
from ecgstudy.experiment.plan import FEATURES, SPLIT_SEED, TEMPLATE, UNTRAINED, Job, auxiliary_cohorts, plan
from ecgstudy.experiment.recipes import Recipe, recipes_of
from ecgstudy.experiment.scores import FoldScores, ScoreSet
from ecgstudy.learn import features_gbm, scoring, template
from ecgstudy.learn import train as training
from ecgstudy.learn.scoring import score_matrix, unit_rows
from ecgstudy.signals import features
from ecgstudy.signals import preprocess as signals
from ecgstudy.signals.store import RecordStore
from ecgstudy.study.cache import KEY_LENGTH, cache_key, code_digest
from ecgstudy.study.parallel import in_parallel
from ecgstudy.study.paths import cache_dir
from ecgstudy.study.progress import progress

_CODE = (attackers, feature_windows, networks, people, recipes, windows, features, scoring, signals)
_MODEL_CODE = (features_gbm, template, training)
CONTROL = "resnet1d"
"""The untrained control is this network with its initial weights."""


@dataclass(frozen=True)
class Workshop:
    """What all jobs of a profile share.

    Attributes
    ----------
    stores : mapping of str to RecordStore
        Stores by cohort name.
    cache : pathlib.Path
        The profile's cache: ``scores/`` and ``runs/`` are made in it.
    device : str
        "auto", "cpu" or "cuda".
    recipes : mapping of str to Recipe
        How each network attacker is trained.
    """

    stores: Mapping[str, RecordStore]
    cache: Path
    device: str
    recipes: Mapping[str, Recipe]

    @classmethod
    def open(cls, profile: str, stores: Mapping[str, RecordStore], device: str) -> "Workshop":
        """Workshop of a profile: its cache and its recipes."""
        return cls(stores, cache_dir(profile), device, recipes_of(profile))

    @cached_property
    def signals(self) -> Signals:
        """One lead of everybody."""
        return Signals(self.stores)

    @cached_property
    def people(self) -> pd.DataFrame:
        """Sex and age of everybody."""
        return people_table(self.stores)

    @cached_property
    def code(self) -> str:
        """Digest of the code that makes scores."""
        return code_digest(*_CODE, *_MODEL_CODE, sys.modules[__name__])

    def trainer(self, model: str) -> networks.Trainer:
        """Trainer of a network attacker."""
        return networks.Trainer(self.recipes[model], self.signals, self.people, self.cache / "runs", self.device)

    def auxiliary(self, job: Job) -> Auxiliary | None:
        """Network and segments of the auxiliary cohorts; None without any, and for a cohort that is one of them.

        The network is the one that the cross-cohort protocols use as it is.
        """
        names = auxiliary_cohorts(self.stores)
        if not names or job.cohort in names:
            return None
        table = pd.concat([with_cohort(name, self.stores[name].records) for name in names], ignore_index=True)
        persons_to_train_on = training_parts(table, SPLIT_SEED)[0][SUBJECT]
        leads = self.recipes[job.model].auxiliary_leads
        chosen = segments(by_lead(table[table[SUBJECT].isin(persons_to_train_on)], leads))
        return Auxiliary(self.trainer(job.model).pretrain(chosen, job.seed), chosen)


def run_jobs(profile: str, stores: Mapping[str, RecordStore], seed: int, device: str) -> list[ScoreSet]:
    """Run every job of the plan that has not been run before, and load all scores.

    All processor cores take part. Jobs that another process is running are waited for, so that several nodes or a
    GPU can share a plan.

    Raises
    ------
    StudyError
        No job is left: no cohort has a person with enough data.
    """
    jobs = plan(stores, profile, seed)
    if not jobs:
        raise StudyError("No cohort has people who could be recognised again; bring one with several records a person.")
    folders = tuple((name, store.folder) for name, store in stores.items())
    return list(in_parallel(_run_in_process, [(profile, folders, device, job) for job in jobs], device, "attackers"))


def _run_in_process(profile: str, folders: tuple[tuple[str, Path], ...], device: str, job: Job) -> ScoreSet:
    """Run one job in a process that may run others too."""
    return run_job(_process_workshop(profile, folders, device), job)


@lru_cache(maxsize=1)
def _process_workshop(profile: str, folders: tuple[tuple[str, Path], ...], device: str) -> Workshop:
    """Workshop that a process keeps from job to job, so that everybody's signals are indexed once."""
    return Workshop.open(profile, {name: RecordStore(folder) for name, folder in folders}, device)


def share_jobs(profile: str, stores: Mapping[str, RecordStore], seed: int, device: str) -> int:
    """Run the jobs of the plan that no other process is running; return how many were left to others.

    Start it on as many cores, nodes or GPUs as share the cache: each job is run once.
    """
    workshop = Workshop.open(profile, stores, device)
    left = 0
    for job in progress(plan(stores, profile, seed), desc="attackers"):
        try:
            run_job(workshop, job, wait=False)
        except Timeout:
            left += 1
    return left


def run_job(workshop: Workshop, job: Job, wait: bool = True) -> ScoreSet:
    """Run one job, or load its scores; wait for a process that is running it, or raise ``filelock.Timeout``."""
    records = with_cohort(job.cohort, workshop.stores[job.cohort].records)
    splits = job.protocol.splits(records, workshop.stores[job.cohort].fs, SPLIT_SEED)
    key = cache_key(
        code=workshop.code,
        stores={name: store.manifest["key"] for name, store in workshop.stores.items()},
        splits=[split.digest() for split in splits],
        recipe=asdict(workshop.recipes[job.model]) if job.model in workshop.recipes else job.model,
        job=job.name,
    )
    path = workshop.cache / "scores" / f"{job.name}-{key[:KEY_LENGTH]}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock"), blocking=wait):
        if not path.is_file():
            folds = tuple(_fold_scores(workshop, job, split) for split in splits)
            ScoreSet(job.cohort, job.protocol.name, job.model, job.seed, folds).save(path)
    return ScoreSet.load(path)


def _fit(workshop: Workshop, job: Job, split: Split) -> Fitted:
    """Fit the job's attacker on a split's training part."""
    if job.model == TEMPLATE:
        return attackers.FittedTemplate(workshop.signals)
    if job.model == FEATURES:
        return attackers.fit_features(workshop.signals, workshop.people, split, job.seed)
    if job.model == UNTRAINED:
        trainer = workshop.trainer(CONTROL)
        return attackers.FittedNetwork(trainer.untrained(job.seed), trainer)
    trainer, auxiliary = workshop.trainer(job.model), workshop.auxiliary(job)
    if isinstance(job.protocol, CrossCohort):
        ages = group_ages(split.train[SUBJECT].to_numpy(dtype=str), workshop.people)
        return attackers.FittedNetwork(auxiliary.model, trainer, ages)
    return attackers.fit_network(trainer, split, job.seed, auxiliary)


def _fold_scores(workshop: Workshop, job: Job, split: Split) -> FoldScores:
    """Fit on one split, then score its probes and its validation part."""
    torch.set_num_threads(training.THREADS)  # the same digits whichever process runs the job
    fitted = _fit(workshop, job, split)
    enrolled, probed = fitted.embed(split.enrolment), fitted.embed(split.probe)
    trial = _trial(split.enrolment, enrolled, split.probe, probed)
    choose_from, choose_on = validation_trial(split)
    validation = _trial(choose_from, fitted.embed(choose_from), choose_on, fitted.embed(choose_on))
    demographics = demographic_rows(split.probe, probed, workshop.people, fitted.ages)
    return FoldScores(*trial, validation[0], validation[1], validation[3], demographics)


def _trial(
    enrolment: pd.DataFrame, enrolled: Embedded, probe: pd.DataFrame, probed: Embedded
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Score every usable probe against every enrolled person.

    A person's gallery entry is the mean direction of the person's segments. Probes and persons without a
    usable window keep their rows and columns, as NaN: the evaluation counts them against the attacker.

    Returns
    -------
    tuple of numpy.ndarray
        Scores (n_probe, n_gallery), probe persons, probe records, gallery persons.
    """
    usable = np.isfinite(enrolled.vectors).all(axis=1)
    codes, persons = pd.factorize(enrolment[SUBJECT].to_numpy(dtype=str))
    sums = np.zeros((len(persons), enrolled.vectors.shape[1]))
    np.add.at(sums, codes[usable], enrolled.vectors[usable])
    scores = score_matrix(probed.vectors, unit_rows(sums)).astype(np.float32)
    return scores, probe[SUBJECT].to_numpy(dtype=str), probe[RECORD].to_numpy(dtype=str), persons.astype(str)


def validation_trial(split: Split) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Segments that enrol and probe the persons of the validation part.

    In closed-set splits the training part enrols and the validation part probes. For people never seen, a
    validation person's first record enrols and the others probe; of a person with one record, its halves do.
    """
    if not split.unseen_persons:
        return split.train, split.validation
    held = split.validation
    nth, count = held.groupby(SUBJECT).cumcount(), held.groupby(SUBJECT)[RECORD].transform("size")
    middle = (held["start"] + held["stop"]) // 2
    single = count == 1
    enrolment = held.assign(stop=held["stop"].where(~single, middle))[nth == 0]
    probe = held.assign(start=held["start"].where(~single, middle))[(nth > 0) | single]
    return enrolment.reset_index(drop=True), probe.reset_index(drop=True)


def demographic_rows(
    probe: pd.DataFrame, probed: Embedded, people_known: pd.DataFrame, ages: np.ndarray | None
) -> pd.DataFrame:
    """Rows of :attr:`ecgstudy.experiment.scores.FoldScores.demographics`."""
    return pd.DataFrame(list(chain.from_iterable(_task_rows(probe, probed, people_known, ages))))


def _task_rows(
    probe: pd.DataFrame, probed: Embedded, people_known: pd.DataFrame, ages: np.ndarray | None
) -> Iterator[list[dict[str, object]]]:
    """Rows of each task that the attacker was trained for."""
    known = people_known.reindex(probe[SUBJECT])
    for task, probabilities in probed.probabilities.items():
        rows = []
        for person, record, truth, age, shares in zip(
            probe[SUBJECT], probe[RECORD], known[task], known["age"], probabilities, strict=True
        ):
            if truth is None or truth != truth or not np.isfinite(shares).all():
                continue
            row = {"task": task, "person": person, "record": record, "truth": truth, "age": age}
            row["expected_age"] = float(shares @ ages) if task == "age_group" else np.nan
            rows.append(row | {f"p_{name}": float(p) for name, p in zip(CLASSES[task], shares, strict=True)})
        yield rows
