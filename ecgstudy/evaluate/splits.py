"""Split objects: named after the claim they support, and unable to exist where they leak."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import ClassVar

import pandas as pd

from ecgstudy.errors import LeakageError
from ecgstudy.study.cache import cache_key

RECORD, SUBJECT, WAVEFORM = "record_id", "subject_id", "sha256"
SEGMENT_COLUMNS = (RECORD, SUBJECT, "session", WAVEFORM, "start", "stop")
"""A segment is a span of a record: `start` and `stop` in samples at the store's rate, `stop` excluded."""
PARTS = ("train", "validation", "enrolment", "probe")


@dataclass(frozen=True)
class Split:
    """Which spans of which records train, choose, enrol and probe; ``LeakageError`` where they share what they may not.

    The parts are segments, columns :data:`SEGMENT_COLUMNS`; what is chosen is chosen on `validation`, and `probe` is
    scored once. With `unseen_persons` the claim is about people whom no network was trained or chosen on; with
    `within_record` enrolment and probe may be cut from one record (never from the same samples). An `overlapping` split
    leaks on purpose: it shows what shuffled windows that overlap are worth.
    """

    protocol: str
    train: pd.DataFrame
    validation: pd.DataFrame
    enrolment: pd.DataFrame
    probe: pd.DataFrame
    unseen_persons: bool = False
    within_record: bool = False
    overlapping: bool = False

    def __post_init__(self) -> None:
        """Refuse to be a split that leaks."""
        known = {name: getattr(self, name) for name in PARTS[:3]}
        if self.overlapping:
            return
        for name, part in known.items():
            _refuse_shared_samples(part, self.probe, name, "probe")
        _refuse_shared_samples(self.train, self.validation, "train", "validation")
        if not self.within_record:
            for name, part in known.items():
                assert_disjoint({name: part, "probe": self.probe}, by=(RECORD, WAVEFORM))
        if self.unseen_persons:
            on_trial = pd.concat([self.enrolment, self.probe])
            for name in ("train", "validation"):
                assert_disjoint({name: known[name], "enrolment and probe": on_trial})

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) over the segments of every part: two splits share it only where they are the same."""
        segments = pd.concat([getattr(self, name).assign(part=name) for name in PARTS], ignore_index=True)
        rows = segments[["part", *SEGMENT_COLUMNS]].astype(object).to_numpy().tolist()
        return cache_key(protocol=self.protocol, rows=rows)


@dataclass(frozen=True)
class Protocol(ABC):
    """A rule that turns a cohort's records into splits.

    `name` is in snake_case, as in metric names; `claim` says what a number obtained under it says. One that is `leaky`
    is known to give inflated numbers and kept to show by how much.
    """

    name: ClassVar[str]
    claim: ClassVar[str]
    leaky: ClassVar[bool] = False

    @property
    def digest(self) -> str:
        """What tells the protocol from any other of its name, in few characters."""
        return repr(self)

    @abstractmethod
    def splits(self, records: pd.DataFrame, fs: float, seed: int) -> list[Split]:
        """Make one split, or one a fold, of a store's record table at `fs` Hz; `seed` is of whatever is drawn."""


def segments(records: pd.DataFrame, start: float = 0.0, stop: float = 1.0) -> pd.DataFrame:
    """Cut the share from `start` to `stop` of every record (0 to 1: the whole)."""
    cut = records[[RECORD, SUBJECT, "session", WAVEFORM]].copy()
    cut["start"] = (records["store_samples"] * start).astype("int64")
    cut["stop"] = (records["store_samples"] * stop).astype("int64")
    return cut.reset_index(drop=True)


def _refuse_shared_samples(one: pd.DataFrame, other: pd.DataFrame, one_name: str, other_name: str) -> None:
    """Refuse two sets of segments that share a sample of a record."""
    pairs = one.merge(other, on=RECORD, suffixes=("", "_other"))
    shared = pairs[(pairs["start"] < pairs["stop_other"]) & (pairs["start_other"] < pairs["stop"])]
    if len(shared):
        raise LeakageError(
            f"{one_name} and {other_name} share samples of {shared[RECORD].nunique()} record(s), "
            f"{shared[RECORD].iloc[0]} for one; cut them apart."
        )


def assert_disjoint(parts: Mapping[str, pd.DataFrame], by: Sequence[str] = (SUBJECT, WAVEFORM)) -> None:
    """Refuse two record tables ("train", "test", a cohort) that share a value of one of the columns `by`.

    Person names count within a cohort: give tables that name persons uniquely across cohorts (:func:`with_cohort`).
    """
    for (one, left), (other, right) in combinations(parts.items(), 2):
        for column in by:
            shared = sorted(set(left[column].dropna()) & set(right[column].dropna()))
            if shared:
                first = [part.loc[part[column] == shared[0], RECORD].iloc[0] for part in (left, right)]
                raise LeakageError(
                    f"{one} and {other} share {len(shared)} value(s) of {column}, records {first[0]} and {first[1]} "
                    "for one; leave the shared records out of one of them."
                )


def duplicated_waveforms(records: pd.DataFrame) -> pd.DataFrame:
    """Find records whose waveform also stands under another person's name, equal waveforms beside each other."""
    owners = records.groupby(WAVEFORM)[SUBJECT].transform("nunique")
    return records[owners > 1].sort_values([WAVEFORM, SUBJECT], ignore_index=True)


def with_cohort(cohort: str, records: pd.DataFrame) -> pd.DataFrame:
    """Copy a record table with persons and records named ``cohort/name``, unique across cohorts."""
    named = {column: cohort + "/" + records[column] for column in (RECORD, SUBJECT)}
    return records.assign(cohort=cohort, **named)
