"""Trial lists, so that anyone can score another system on exactly the trials of this study."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ecgstudy.evaluate.disjoint import with_cohort
from ecgstudy.evaluate.splits import RECORD, SUBJECT, Protocol, Split
from ecgstudy.experiment.plan import SPLIT_SEED, plan
from ecgstudy.signals.store import RecordStore
from ecgstudy.study.cache import new_file


@dataclass(frozen=True)
class Trialled:
    """One protocol of one cohort with its splits.

    Attributes
    ----------
    cohort : str
        The cohort on trial.
    protocol : Protocol
        Its claim, and whether it leaks.
    splits : sequence of Split
        One a fold.
    """

    cohort: str
    protocol: Protocol
    splits: Sequence[Split]


def protocols_on_trial(stores: Mapping[str, RecordStore], profile: str, seed: int) -> list[Trialled]:
    """Every protocol that the plan of a profile holds, with the splits that all of its attackers share."""
    asked = {(job.cohort, job.protocol.name): job.protocol for job in plan(stores, profile, seed)}
    found = []
    for (cohort, _), protocol in asked.items():
        store = stores[cohort]
        splits = protocol.splits(with_cohort(cohort, store.records), store.fs, SPLIT_SEED)
        found.append(Trialled(cohort, protocol, splits))
    return found


def save_trials(trialled: Sequence[Trialled], folder: Path) -> None:
    """Write the enrolment segments and the genuine and impostor pairs of each protocol as compressed CSV.

    ``<cohort>.<protocol>.enrolment.csv.gz`` lists which samples (start, stop, at the store's rate) enrol whom;
    ``<cohort>.<protocol>.pairs.csv.gz`` lists every probe with every enrolled person of its fold, genuine 1 or 0.
    """
    for one in trialled:
        stem = f"{one.cohort}.{one.protocol.name}"
        enrolment = [split.enrolment[[SUBJECT, RECORD, "start", "stop"]] for split in one.splits]
        _write(pd.concat(enrolment, keys=range(len(enrolment)), names=["fold", None]), folder / f"{stem}.enrolment")
        pairs = [_pairs(split) for split in one.splits]
        _write(pd.concat(pairs, keys=range(len(pairs)), names=["fold", None]), folder / f"{stem}.pairs")


def _pairs(split: Split) -> pd.DataFrame:
    """Every probe of a split with every enrolled person."""
    persons = split.enrolment[SUBJECT].unique()
    probe = split.probe[[RECORD, SUBJECT, "start", "stop"]].loc[split.probe.index.repeat(len(persons))]
    enrolled = np.tile(persons, len(split.probe))
    genuine = (probe[SUBJECT].to_numpy() == enrolled).astype(int)
    return probe.reset_index(drop=True).assign(enrolled=enrolled, genuine=genuine).drop(columns=SUBJECT)


def _write(table: pd.DataFrame, stem: Path) -> None:
    """Write one table; equal tables give equal bytes."""
    with new_file(stem.with_name(f"{stem.name}.csv.gz")) as partial:
        flat = table.reset_index(level="fold")
        flat.to_csv(partial, index=False, compression={"method": "gzip", "compresslevel": 9, "mtime": 1})
