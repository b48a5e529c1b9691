"""Protocols: what is learnt from, enrolled and probed.

Closed sets (everybody on trial is enrolled, and networks may learn from the enrolment), people whom no network was
trained or chosen on, and the dual task (later in the same recording, one activity against another).
"""

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

import numpy as np
import pandas as pd

from ecgstudy.errors import StudyError
from ecgstudy.evaluate.splits import RECORD, SUBJECT, Protocol, Split, segments
from ecgstudy.study.cache import cache_key

VALIDATION_SHARE, VALIDATION_S = 0.2, 4.0
"""Last part of each enrolment record that is kept from training, to choose on, and its least seconds: a few beats."""
GUARD_S = 1.0
"""Gap before it, so that no beat lies on both sides."""
VALIDATION_PERSONS = 0.2
"""Share of the persons not on trial who are kept from training, to choose on."""
MOST_LEARNT = 2500
"""Persons, drawn by the seed, whom networks learn from and attackers are chosen on at most: costs grow with them."""
MOST_SHUFFLED = 1000
"""Persons, drawn by the seed, of random windows at most."""
KNOWN_SHARE, PROBE_SHARE, CHOICE_SHARE = 0.6, 0.3, 0.15
"""Dual task: first part of each record, which is known; last part, which probes (the tenth between them belongs to
neither); last part of the known one that is kept from training, to choose on."""


def drawn(records: pd.DataFrame, most: int, seed: int | list[int]) -> pd.DataFrame:
    """Rows of so many persons at most."""
    persons = records[SUBJECT].unique()
    if len(persons) <= most:
        return records
    return records[records[SUBJECT].isin(np.random.default_rng(seed).permutation(persons)[:most])]


def some_on_trial(split: Split) -> Split:
    """Split of :data:`MOST_SHUFFLED` of its persons who probe at most, for questions about single windows."""
    probe = drawn(split.probe, MOST_SHUFFLED, 0)
    if len(probe) == len(split.probe):
        return split
    known = split.enrolment[split.enrolment[SUBJECT].isin(probe[SUBJECT])]
    return replace(split, probe=probe.reset_index(drop=True), enrolment=known.reset_index(drop=True))


class ClosedSet(Protocol):
    """Everybody on trial is enrolled; a subclass says which segments enrol and which probe."""

    within_record: ClassVar[bool] = False

    @abstractmethod
    def parts(self, records: pd.DataFrame, fs: float) -> Iterable[tuple[pd.DataFrame, pd.DataFrame]]:
        """Segments that enrol and segments that probe, one pair a fold."""

    def splits(self, records: pd.DataFrame, fs: float, seed: int) -> list[Split]:
        """Train on the first part of every enrolment segment and choose on its last part."""
        made = []
        for enrolment, probe in self.parts(records, fs):
            known = drawn(enrolment, MOST_LEARNT, seed)
            length = known["stop"] - known["start"]
            border = (known["stop"] - (length * VALIDATION_SHARE).clip(lower=VALIDATION_S * fs)).astype("int64")
            train = known.assign(stop=border - round(GUARD_S * fs))
            divisible = train["stop"] > train["start"]
            parts = (train[divisible], known.assign(start=border)[divisible], enrolment, probe)
            parts = (part.reset_index(drop=True) for part in parts)
            made.append(Split(self.name, *parts, within_record=self.within_record))
        return made


@dataclass(frozen=True)
class RandomWindows(Protocol):
    """Windows of `seconds` of all records shuffled, `most` of a record: neighbours of every probe are enrolled."""

    seconds: float = 5.0
    most: int = 60
    name: ClassVar[str] = "random_windows"
    claim: ClassVar[str] = (
        "a window is recognised among windows of the same recordings (leaky: what most papers report)"
    )
    leaky: ClassVar[bool] = True
    stride: ClassVar[float] = 1.0

    def splits(self, records: pd.DataFrame, fs: float, seed: int) -> list[Split]:
        """Draw 20 % of the windows as probes and 10 % of the rest to choose on."""
        records, length = drawn(records, MOST_SHUFFLED, seed), round(self.seconds * fs)
        step = round(self.stride * length)
        counts = ((records["store_samples"] - length) // step + 1).clip(lower=0).to_numpy()
        rows = np.repeat(np.arange(len(records)), counts)
        windows = segments(records.iloc[rows])
        nth = np.arange(len(rows)) - np.repeat(counts.cumsum() - counts, counts)
        windows = windows.assign(start=nth * step, stop=nth * step + length)
        rng = np.random.default_rng(seed)
        shuffled = windows.iloc[rng.permutation(len(windows))]
        windows = shuffled.groupby(RECORD).head(self.most).sort_index().reset_index(drop=True)
        draw = rng.random(len(windows))
        probed, chosen_on = draw < 0.2, (draw >= 0.2) & (draw < 0.28)
        known, probe = windows[~probed], windows[probed]
        parts = (windows[~probed & ~chosen_on], windows[chosen_on], known, probe[probe[SUBJECT].isin(known[SUBJECT])])
        parts = (part.reset_index(drop=True) for part in parts)
        return [Split(self.name, *parts, within_record=True, overlapping=self.stride < 1)]


class OverlappingWindows(RandomWindows):
    """As :class:`RandomWindows`, of windows that share half of their samples with each neighbour."""

    name: ClassVar[str] = "overlapping_windows"
    claim: ClassVar[str] = (
        "nothing: half of every probe was learnt from and enrolled (leakier: what some papers report)"
    )
    stride: ClassVar[float] = 0.5


class CrossRecord(ClosedSet):
    """Each person's first record enrols, the second probes; on ECG-ID all of one day."""

    name: ClassVar[str] = "cross_record"
    claim: ClassVar[str] = "a person is recognised in another recording, be it of the same day"

    def parts(self, records: pd.DataFrame, fs: float) -> Iterable[tuple[pd.DataFrame, pd.DataFrame]]:
        """One pair; people with one record stay in the gallery."""
        nth = records.groupby(SUBJECT).cumcount()
        yield segments(records[nth == 0]), segments(records[nth == 1])


class CrossDay(ClosedSet):
    """All of a person's first day enrols, all later days probe; the gallery holds everybody."""

    name: ClassVar[str] = "cross_day"
    claim: ClassVar[str] = "a person is recognised on a later day, among everybody's first days"

    def parts(self, records: pd.DataFrame, fs: float) -> Iterable[tuple[pd.DataFrame, pd.DataFrame]]:
        """One pair; people with one day stay in the gallery."""
        first = records["session"] == 1
        yield segments(records[first]), segments(records[~first])


class LeaveLastDay(Protocol):
    """All days but the last enrol, the last probes; people with one day stay in the gallery.

    Networks learn from first days only, as under :class:`CrossDay`, so that the two differ in enrolment alone.
    """

    name: ClassVar[str] = "leave_last_day"
    claim: ClassVar[str] = "a person is recognised on the last day, when every earlier day is enrolled"

    def splits(self, records: pd.DataFrame, fs: float, seed: int) -> list[Split]:
        """One split."""
        last = records.groupby(SUBJECT)["session"].transform("max")
        probed = (records["session"] == last) & (last > 1)
        (learnt,) = CrossDay().splits(records, fs, seed)
        parts = (segments(records[~probed]), segments(records[probed]))
        return [Split(self.name, learnt.train, learnt.validation, *parts)]


@dataclass(frozen=True)
class TimeSeparated(ClosedSet):
    """Early minutes of a long record enrol, its last minutes probe (ecg-biometrics-bench, arXiv 2605.01548)."""

    enrol_minutes: tuple[tuple[float, float], ...] = ((0, 5), (12.5, 17.5))
    probe_minutes: tuple[float, float] = (25, 30)
    name: ClassVar[str] = "time_separated"
    claim: ClassVar[str] = "a person is recognised minutes later in one continuous recording"
    within_record: ClassVar[bool] = True

    def parts(self, records: pd.DataFrame, fs: float) -> Iterable[tuple[pd.DataFrame, pd.DataFrame]]:
        """One pair; records that end before the probe minutes enrol only."""

        def cut(start: float, stop: float) -> pd.DataFrame:
            spans = segments(records).assign(start=round(start * fs), stop=round(stop * fs))
            return spans[spans["stop"] <= records["store_samples"].to_numpy()]

        start, stop = (60 * minute for minute in self.probe_minutes)
        # a 30-minute record may end a fraction of a second early
        probe = cut(start, stop - GUARD_S)
        yield pd.concat([cut(60 * start, 60 * stop) for start, stop in self.enrol_minutes], ignore_index=True), probe


class CrossActivity(ClosedSet):
    """Rest enrols, every other activity probes; who never rested takes no part."""

    name: ClassVar[str] = "cross_activity"
    claim: ClassVar[str] = "a person enrolled at rest is recognised in motion"

    def parts(self, records: pd.DataFrame, fs: float) -> Iterable[tuple[pd.DataFrame, pd.DataFrame]]:
        """One pair: rest against the others."""
        yield _known_and_others(records, records["activity"] == "rest")


class CrossElectrode(ClosedSet):
    """Two electrode types enrol, the third probes, in turn (confounded with time on the motion cohort)."""

    name: ClassVar[str] = "cross_electrode"
    claim: ClassVar[str] = "a person is recognised through another kind of electrode"

    def parts(self, records: pd.DataFrame, fs: float) -> Iterable[tuple[pd.DataFrame, pd.DataFrame]]:
        """Leave each electrode type out once."""
        for kind in sorted(records["electrode"].unique()):
            yield _known_and_others(records, records["electrode"] != kind)


def _known_and_others(records: pd.DataFrame, known: pd.Series) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Segments of the known records, and of the other records of the people in them."""
    others = records[~known & records[SUBJECT].isin(records.loc[known, SUBJECT])]
    return segments(records[known]), segments(others)


def training_parts(
    records: pd.DataFrame, seed: int | list[int], persons: np.ndarray | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Whole records of the persons (all unless told) to train on, and of those to choose on."""
    persons = records[SUBJECT].unique() if persons is None else persons
    persons = np.random.default_rng(seed).permutation(persons)[:MOST_LEARNT]
    chosen_on = persons[: round(VALIDATION_PERSONS * len(persons))]
    held = records[SUBJECT].isin(chosen_on)
    return segments(records[records[SUBJECT].isin(persons) & ~held]), segments(records[held])


def _of_unseen(name: str, learnt: tuple[pd.DataFrame, pd.DataFrame], inner: Split) -> Split:
    """Enrolment and probes of a split whose people are never learnt from."""
    train, validation = learnt
    return replace(inner, protocol=name, train=train, validation=validation, unseen_persons=True)


@dataclass(frozen=True)
class SubjectDisjoint(Protocol):
    """Networks learn from some persons; others, everybody in one of so many `folds`, are on trial as under `inner`."""

    inner: Protocol
    folds: int = 3
    claim: ClassVar[str] = "a person whom no network was trained on is recognised"

    @property
    def name(self) -> str:
        """``subject_disjoint_`` and the name of the inner protocol."""
        return f"subject_disjoint_{self.inner.name}"

    def splits(self, records: pd.DataFrame, fs: float, seed: int) -> list[Split]:
        """One split a fold; persons recorded on several days are spread evenly over the folds."""
        persons = np.random.default_rng(seed).permutation(records[SUBJECT].unique())
        if len(persons) < 3 * self.folds:
            raise StudyError(f"{len(persons)} persons are too few for {self.folds} folds of people never seen before.")
        # those recorded most often first, so that every fold gets its share whatever the inner protocol
        days = records.groupby(SUBJECT)["session"].max().reindex(persons).to_numpy()
        ordered = persons[np.argsort(-days, kind="stable")]
        made = []
        for fold in range(self.folds):
            on_trial = ordered[fold :: self.folds]
            learnt = training_parts(records, [seed, fold], np.setdiff1d(persons, on_trial))
            inner = self.inner.splits(records[records[SUBJECT].isin(on_trial)], fs, seed)[0]
            made.append(_of_unseen(self.name, learnt, inner))
        return made


@dataclass(frozen=True)
class WithOthers(Protocol):
    """An inner protocol on one cohort in which the `others`, a record table of other cohorts, take part too."""

    others: pd.DataFrame = field(repr=False)
    inner: Protocol

    @cached_property
    def digest(self) -> str:
        """With the rows of the other cohorts."""
        return cache_key(inner=repr(self), others=segments(self.others).to_numpy().tolist())


@dataclass(frozen=True)
class CrossCohort(WithOthers):
    """Networks learn from the others; everybody of this cohort is on trial."""

    claim: ClassVar[str] = "a person of another cohort, device and population is recognised"

    @property
    def name(self) -> str:
        """``cross_cohort_`` and the name of the inner protocol."""
        return f"cross_cohort_{self.inner.name}"

    def splits(self, records: pd.DataFrame, fs: float, seed: int) -> list[Split]:
        """One split a fold of the inner protocol, all with the same training persons."""
        learnt = training_parts(self.others, seed)
        return [_of_unseen(self.name, learnt, inner) for inner in self.inner.splits(records, fs, seed)]


class BlockedTime(Protocol):
    """The first 60 % of every record are known, the last 30 % probe; a tenth between them belongs to neither."""

    name: ClassVar[str] = "blocked_time"
    claim: ClassVar[str] = "person and activity are recognised later in the same recordings"

    def splits(self, records: pd.DataFrame, fs: float, seed: int) -> list[Split]:
        """One split."""
        return [_blocked(self, records, records, fs)]


class ActivityPairs(Protocol):
    """One activity is known, every activity probes: one split an activity, cut as in :class:`BlockedTime`.

    The probes are the last 30 % of the records throughout, so that the cells of the matrix differ by
    activity only and not by the time that lies between.
    """

    name: ClassVar[str] = "activity_pairs"
    claim: ClassVar[str] = "a person known during one activity is recognised during another"

    def splits(self, records: pd.DataFrame, fs: float, seed: int) -> list[Split]:
        """One split an activity, in the order of :func:`activities_of`."""
        known = (records[records["activity"] == activity] for activity in activities_of(records))
        return [_blocked(self, some, records, fs) for some in known]


def _blocked(protocol: Protocol, known: pd.DataFrame, probed: pd.DataFrame, fs: float) -> Split:
    """Split with the first part of the `known` records against the last part of the `probed` ones."""
    train = segments(known, 0, KNOWN_SHARE - CHOICE_SHARE)
    train = train.assign(stop=train["stop"] - round(GUARD_S * fs))
    train = train[train["stop"] > train["start"]].reset_index(drop=True)
    validation = segments(known, KNOWN_SHARE - CHOICE_SHARE, KNOWN_SHARE)
    probe = segments(probed, 1 - PROBE_SHARE)
    probe = probe[probe[SUBJECT].isin(known[SUBJECT])].reset_index(drop=True)
    return Split(protocol.name, train, validation, segments(known, 0, KNOWN_SHARE), probe, within_record=True)


def activities_of(records: pd.DataFrame) -> list[str]:
    """Activities that occur, rest first where it does, the others by name."""
    return sorted(records["activity"].dropna().unique(), key=lambda activity: (activity != "rest", activity))


@dataclass(frozen=True)
class LeaveSubjectOut(Protocol):
    """The activity of people never seen; everybody is left out in one of `folds`, which chooses on the next group."""

    folds: int = 5
    name: ClassVar[str] = "leave_subject_out"
    claim: ClassVar[str] = "the activity of a person never seen before is recognised"

    def splits(self, records: pd.DataFrame, fs: float, seed: int) -> list[Split]:
        """One split a fold."""
        persons = np.random.default_rng(seed).permutation(records[SUBJECT].unique())
        if len(persons) < max(3, self.folds):
            raise StudyError(f"{len(persons)} persons are too few to leave people out in {self.folds} folds.")
        fold_of = records[SUBJECT].map({person: number % self.folds for number, person in enumerate(persons)})
        made = []
        for fold in range(self.folds):
            on_trial, chosen_on = fold_of == fold, fold_of == (fold + 1) % self.folds
            parts = (segments(records[rows]) for rows in (~on_trial & ~chosen_on, chosen_on, on_trial))
            train, validation, probe = parts
            made.append(Split(self.name, train, validation, probe.iloc[:0], probe, unseen_persons=True))
        return made
