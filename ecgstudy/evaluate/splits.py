"""Split objects: named after the claim they support, and unable to exist where they leak."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import pandas as pd

from ecgstudy.evaluate.disjoint import SUBJECT, WAVEFORM, LeakageError, assert_disjoint
from ecgstudy.study.cache import cache_key

RECORD = "record_id"
SEGMENT_COLUMNS = (RECORD, SUBJECT, "session", WAVEFORM, "start", "stop")
"""A segment is a span of a record: `start` and `stop` in samples at the store's rate, `stop` excluded."""
PARTS = ("train", "validation", "enrolment", "probe")


@dataclass(frozen=True)
class Split:
    """Which spans of which records train, choose, enrol and probe.

    Attributes
    ----------
    protocol : str
        Name of the protocol in snake_case.
    train, validation, enrolment, probe : pandas.DataFrame
        Segments, columns :data:`SEGMENT_COLUMNS`. Hyper-parameters, thresholds and stopping are
        chosen on `validation`; `probe` is scored once.
    unseen_persons : bool
        The claim is about people whom no network was trained or chosen on.
    within_record : bool
        Enrolment and probe may be cut from one record (never from the same samples).
    dropped : dict of str to int
        Persons who cannot take part, counted by reason.

    Raises
    ------
    LeakageError
        Parts overlap in a way that the protocol excludes.
    """

    protocol: str
    train: pd.DataFrame
    validation: pd.DataFrame
    enrolment: pd.DataFrame
    probe: pd.DataFrame
    unseen_persons: bool = False
    within_record: bool = False
    dropped: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse to be a split that leaks."""
        for name in PARTS[:3]:
            refuse_shared_samples(getattr(self, name), self.probe, name, "probe")
        refuse_shared_samples(self.train, self.validation, "train", "validation")
        known = {name: getattr(self, name) for name in ("train", "validation", "enrolment")}
        if not self.within_record:
            for name, part in known.items():
                assert_disjoint({name: part, "probe": self.probe}, by=(RECORD, WAVEFORM))
        if self.unseen_persons:
            on_trial = pd.concat([self.enrolment, self.probe])
            for name in ("train", "validation"):
                assert_disjoint({name: known[name], "enrolment and probe": on_trial}, by=(SUBJECT, WAVEFORM))

    @property
    def persons(self) -> int:
        """Persons with a probe."""
        return self.probe[SUBJECT].nunique()

    def manifest(self) -> pd.DataFrame:
        """One row a segment with the part it belongs to; what a publication would have to state."""
        parts = [getattr(self, name).assign(part=name) for name in PARTS]
        return pd.concat(parts, ignore_index=True)[["part", *SEGMENT_COLUMNS]]

    def digest(self) -> str:
        """SHA-256 (hex) over the manifest: two splits share it only where they are the same."""
        rows = self.manifest().astype(object).to_numpy().tolist()
        return cache_key(protocol=self.protocol, rows=rows)


class Protocol(ABC):
    """A rule that turns a cohort's records into splits.

    Attributes
    ----------
    name : str
        In snake_case, as in metric names.
    claim : str
        What a number obtained under it says, in plain words.
    leaky : bool
        The number is known to be inflated; kept to show by how much.
    """

    name: ClassVar[str]
    claim: ClassVar[str]
    leaky: ClassVar[bool] = False

    @abstractmethod
    def splits(self, records: pd.DataFrame, fs: float, seed: int) -> list[Split]:
        """Make one split, or one a fold.

        Parameters
        ----------
        records : pandas.DataFrame
            Record table of a :class:`ecgstudy.signals.store.RecordStore`, a person's records in temporal order.
        fs : float
            Sampling rate of the store in Hz.
        seed : int
            Seed of whatever is drawn.
        """


def segments(records: pd.DataFrame, start: float = 0.0, stop: float = 1.0) -> pd.DataFrame:
    """Cut the share from `start` to `stop` of every record (0 to 1: the whole)."""
    cut = records[[RECORD, SUBJECT, "session", WAVEFORM]].copy()
    cut["start"] = (records["store_samples"] * start).astype("int64")
    cut["stop"] = (records["store_samples"] * stop).astype("int64")
    return cut.reset_index(drop=True)


def time_segments(records: pd.DataFrame, spans: Iterable[tuple[float, float]], fs: float) -> pd.DataFrame:
    """Cut spans given in seconds out of every record that is long enough."""
    parts = []
    for start, stop in spans:
        cut = segments(records).assign(start=round(start * fs), stop=round(stop * fs))
        parts.append(cut[cut["stop"] <= records["store_samples"].to_numpy()])
    return pd.concat(parts, ignore_index=True)


def refuse_shared_samples(one: pd.DataFrame, other: pd.DataFrame, one_name: str, other_name: str) -> None:
    """Raise :class:`LeakageError` where two sets of segments share a sample of a record."""
    pairs = one.merge(other, on=RECORD, suffixes=("", "_other"))
    shared = pairs[(pairs["start"] < pairs["stop_other"]) & (pairs["start_other"] < pairs["stop"])]
    if len(shared):
        raise LeakageError(
            f"{one_name} and {other_name} share samples of {shared[RECORD].nunique()} record(s), "
            f"{shared[RECORD].iloc[0]} for one; cut them apart."
        )
