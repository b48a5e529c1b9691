"""The one runner: jobs of a plan in parallel processes, each made once, resumed after an interruption.

A job is a point of cohort x protocol x attacker x seed x view; what is done with it is a function of a context and the
job, whose value is remembered under a key of its code, its inputs and the libraries that compute.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import torch
from filelock import Timeout

from ecgstudy.errors import DiskError, StudyError
from ecgstudy.evaluate.bootstrap import RESAMPLES
from ecgstudy.evaluate.splits import SUBJECT, Protocol, Split, with_cohort
from ecgstudy.experiment.dataset import VIEWS, Dataset, View
from ecgstudy.learn.train import THREADS
from ecgstudy.signals.store import RecordStore
from ecgstudy.study.cache import code_key, library_versions, remember
from ecgstudy.study.config import cache_dir, effort, is_own
from ecgstudy.study.parallel import in_parallel

T = TypeVar("T")
SPLIT_SEED = 0
"""Splits are the same for all attackers and all seeds of their training."""
DEMO_RESAMPLES = 200
LONG_RECORD_S = 1700.0
"""A cohort of half-hour records is split in time."""
MOST_PERSONS, LEAST_ON_TRIAL = 1000, 30
"""Of a cohort of more persons those recorded again, where they are enough, are on trial; the others help to train."""
SEXES = ("F", "M")
AGE_EDGES = (0, 30, 45, 60, 200)
AGE_GROUPS = ("under 30", "30-44", "45-59", "60 and over")


def with_roles(records: pd.DataFrame, fs: float) -> pd.DataFrame:
    """Add whether each record's person is `on_trial`, and whether `auxiliary`: networks are pre-trained on them.

    Up to :data:`MOST_PERSONS` everybody is on trial, and everybody helps where (nearly) nobody was recorded again.
    """
    again = records[SUBJECT].duplicated(keep=False)
    n_persons, n_again = records[SUBJECT].nunique(), records.loc[again, SUBJECT].nunique()
    long = (records["store_samples"] / fs).min() > LONG_RECORD_S / 2
    if n_persons <= MOST_PERSONS or long:
        return records.assign(on_trial=True, auxiliary=n_again / n_persons < 0.1 and not long)
    on_trial = again & (n_again >= LEAST_ON_TRIAL)
    return records.assign(on_trial=on_trial, auxiliary=~on_trial)


@dataclass(frozen=True)
class Job:
    """One attacker on one cohort under one protocol, with one seed of its training and one view of the samples."""

    cohort: str
    protocol: Protocol
    attacker: str
    seed: int
    view: str = "raw"

    @property
    def name(self) -> str:
        """Name for files and logs."""
        parts = (self.cohort, self.protocol.name, self.attacker, *((self.view,) if self.view != "raw" else ()))
        return ".".join((*parts, str(self.seed)))

    def transform(self) -> View:
        """View of the samples that the job is about."""
        return VIEWS[self.view]

    def about(self) -> dict[str, object]:
        """First columns of a row about this job."""
        named = {"cohort": self.cohort, "protocol": self.protocol.name, "attacker": self.attacker, "view": self.view}
        return named | {"seed": self.seed}

    def made_from(self, context: "Context") -> dict[str, object]:
        """JSON values of everything that a job's value depends on, besides code."""
        attacker = context.attackers[self.attacker]
        splits = [split.digest for split in context.splits(self)]
        return {"job": self.name, "attacker": f"{type(attacker).__name__} {attacker!r}", "splits": splits}


@dataclass(frozen=True)
class Context:
    """What all jobs of a plan share; a process that runs several opens it once.

    Attributes
    ----------
    profile, device : str
        "demo" or "real"; "auto", "cpu" or "cuda".
    stores : mapping of str to RecordStore
        Stores by cohort name.
    attackers : mapping of str to object
        What is fitted, by name; its ``repr`` must tell how.
    lead : str, optional
        Lead to read; records without it take no part. Unless told: lead I, elsewhere each record's reference lead.
    cache : pathlib.Path
        Where values and training runs are kept; the profile's cache unless told.
    states : str
        Column of the record table; records that leave it open take no part.
    """

    profile: str
    stores: Mapping[str, RecordStore]
    device: str
    attackers: Mapping[str, Any]
    lead: str | None = None
    split_seed: int = SPLIT_SEED
    cache: Path = None  # type: ignore[assignment]
    states: str = ""
    _shared: dict[object, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    _fitted: dict[tuple[str, int], Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Find the profile's cache."""
        if self.cache is None:
            object.__setattr__(self, "cache", cache_dir(self.profile))

    def __reduce__(self) -> tuple[Callable[..., "Context"], tuple[object, ...]]:
        """Travel to another process by the names of the stores' folders; there, equal contexts are opened once."""
        stores, attackers = tuple(self.stores.items()), tuple(self.attackers.items())
        told = (self.profile, stores, self.device, attackers, self.lead, self.split_seed, self.cache, self.states)
        return _opened, told

    @property
    def n_resamples(self) -> int:
        """Draws of persons behind an interval; the demo and a first look show that it is there, no more."""
        return DEMO_RESAMPLES if effort(self.profile) == "demo" else RESAMPLES

    @property
    def runs(self) -> Path:
        """Where training runs are kept."""
        return self.cache / "runs"

    @cached_property
    def dataset(self) -> Dataset:
        """One lead of everybody."""
        return Dataset(self.stores, self.lead)

    @cached_property
    def people(self) -> pd.DataFrame:
        """Sex, age and age group of every person, indexed by ``cohort/person``."""
        parts = [with_cohort(name, store.records)[["subject_id", "sex", "age"]] for name, store in self.stores.items()]
        people = pd.concat(parts).groupby("subject_id").first()
        group = pd.cut(people["age"], AGE_EDGES, right=False, labels=AGE_GROUPS).astype(object)
        return people.assign(age_group=group.where(group.notna(), None))

    def records(self, cohort: str) -> pd.DataFrame:
        """Record table of a cohort with :func:`with_roles`, persons and records named ``cohort/name``.

        Only records that have the lead and state what they must; refuses where none has.
        """
        records = with_roles(self.stores[cohort].records, self.stores[cohort].fs)
        if self.states:
            records = records.dropna(subset=self.states).reset_index(drop=True)
        if self.lead is not None:
            records = records[[self.lead in usable for usable in records["usable_leads"]]].reset_index(drop=True)
            if records.empty:
                raise StudyError(f"No record of {cohort} has a usable lead {self.lead}; choose another lead.")
        return with_cohort(cohort, records)

    def shared(self, key: object, make: Callable[[], T]) -> T:
        """Value that several jobs of this process need, made once."""
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]

    def splits(self, job: Job) -> list[Split]:
        """Split a job's cohort, those on trial, by its protocol, one split a fold; refuses where none has a probe."""

        def split() -> list[Split]:
            records = self.records(job.cohort)
            records = records[records["on_trial"]].reset_index(drop=True)
            return job.protocol.splits(records, self.stores[job.cohort].fs, self.split_seed)

        try:
            splits = self.shared((job.cohort, job.protocol.digest), split)
        except KeyError as missing:
            raise StudyError(f"the cohort states no {missing.args[0]}") from missing
        if all(split.probe.empty for split in splits):
            raise StudyError("no record is left that could be recognised")
        return splits

    def fitted(self, job: Job, fold: int = 0) -> Any:  # noqa: ANN401
        """Attacker of a job fitted on one of its splits, kept for the next question that this process has."""
        if (job.name, fold) not in self._fitted:
            self._fitted.clear()  # one at a time: networks of a whole plan would fill the memory
            split, view = self.splits(job)[fold], job.transform()
            learner = self
            if "train" in view.parts:
                learner = self.shared((view, split.digest), lambda: self._through(view, split))
            self._fitted[job.name, fold] = self.attackers[job.attacker].fit(learner, job, split)
        return self._fitted[job.name, fold]

    def _through(self, view: View, split: Split) -> "Context":
        """Context of an attacker who learns from changed samples, everybody's: those of the others too."""
        other = replace(self)
        vars(other)["dataset"] = view.fitted(self.dataset, split).of(self.dataset)
        return other


@lru_cache(maxsize=1)
def _opened(
    profile: str,
    stores: tuple,
    device: str,
    attackers: tuple,
    *others: Any,  # noqa: ANN401
) -> Context:
    """Context that a process keeps from job to job, so that everybody's signals are indexed once."""
    return Context(profile, dict(stores), device, dict(attackers), *others)


@dataclass(frozen=True)
class Outcome:
    """What the jobs of a plan gave: values by job name, in the order of the plan, and the commits that made them.

    `refusals` has a row a job that the records do not allow: those of ``about()`` and reason (a sentence).
    """

    values: dict[str, Any]
    refusals: pd.DataFrame
    commits: set[str] = field(default_factory=set)


def run(work: Callable[[Context, Any], Any], jobs: Sequence[Any], context: Context, desc: str) -> Outcome:
    """Do every job of a plan that has not been done before, on all processor cores, and load what was.

    Jobs that another process is doing are waited for, so that several processes or nodes can share a plan.

    Parameters
    ----------
    work : callable
        A function of a module, from a context and a job to a value.
    jobs : sequence of Job
        Or of other frozen dataclasses with ``name``, ``about()`` and ``made_from(context)``.
    context : Context
        What they share.
    desc : str
        Name of the progress bar.
    """
    values, refused, commits = {}, [], set()
    items = [(work, context, job) for job in jobs]
    for job, (value, commit, reason) in zip(jobs, in_parallel(do, items, context.device, desc), strict=True):
        if reason is not None:
            refused.append({**job.about(), "reason": reason})
            continue
        values[job.name] = value
        commits.add(commit)
    columns = None if refused else ["cohort", "protocol", "attacker", "view", "seed", "reason"]
    return Outcome(values, pd.DataFrame(refused, columns=columns), commits)


Work = tuple[Callable[[Context, Any], Any], Sequence[Any], Context]
"""What :func:`share` takes: a function of a module, jobs, and what they share."""


def share(work: Callable[[Context, Any], Any], jobs: Sequence[Any], context: Context) -> int:
    """Do the jobs of a plan that no other process is doing; return how many were left to others."""
    left = 0
    for job in jobs:
        try:
            do(work, context, job, wait=False)
        except Timeout:
            left += 1
    return left


def do(
    work: Callable[[Context, Any], Any],
    context: Context,
    job: Any,  # noqa: ANN401
    wait: bool = True,
) -> tuple[Any, str, str | None]:
    """Value of one job, the commit that made it, and None; or, where the records do not allow it, the reason."""
    torch.set_num_threads(THREADS)  # the same digits whichever process does the job
    attacker = context.attackers.get(getattr(job, "attacker", ""))
    try:
        made_from = {
            "code": code_key(work),
            "attackers": None if attacker is None else code_key(type(attacker)),
            "stores": {name: store.manifest["key"] for name, store in context.stores.items()},
            "lead": context.lead,
            "versions": library_versions(),
            **job.made_from(context),
        }
        value, commit = remember(context.cache / work.__name__, job.name, made_from, lambda: work(context, job), wait)
    except (DiskError, OSError):
        raise  # a full disk, or another process at work
    except StudyError as impossible:
        return None, "", str(impossible)
    except Exception as strange:
        if not is_own(context.profile):
            raise
        # nobody has tried the study on these records: what one job meets must not cost the others
        return None, "", f"an unexpected {type(strange).__name__} ended it; please report how your records differ"
    return value, commit, None
