"""Protocols of the dual task: later in the same recording, one activity against another, people never seen."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from ecgstudy.errors import StudyError
from ecgstudy.evaluate.protocols import GUARD_S
from ecgstudy.evaluate.splits import SUBJECT, Protocol, Split, segments

KNOWN_SHARE = 0.6
"""First part of each record that is known."""
PROBE_SHARE = 0.3
"""Last part of each record that probes; the tenth between them is the guard gap."""
CHOICE_SHARE = 0.15
"""Last part of the known one (of the whole record) that is kept from training, to choose on."""


@dataclass(frozen=True)
class BlockedTime(Protocol):
    """The first 60 % of every record are known, the last 30 % probe; a tenth between them belongs to neither."""

    name: ClassVar[str] = "blocked_time"
    claim: ClassVar[str] = "person and activity are recognised later in the same recordings"

    def splits(self, records: pd.DataFrame, fs: float, seed: int) -> list[Split]:
        """One split."""
        return [blocked(self.name, records, records, fs)]


@dataclass(frozen=True)
class ActivityPairs(Protocol):
    """One activity is known, every activity probes: one split an activity, cut as in :class:`BlockedTime`.

    The probes are the last 30 % of the records throughout, so that the cells of the matrix differ by
    activity only and not by the time that lies between.
    """

    name: ClassVar[str] = "activity_pairs"
    claim: ClassVar[str] = "a person known during one activity is recognised during another"

    def splits(self, records: pd.DataFrame, fs: float, seed: int) -> list[Split]:
        """One split an activity, in the order of :func:`activities_of`."""
        return [
            blocked(self.name, records[records["activity"] == activity], records, fs)
            for activity in activities_of(records)
        ]


@dataclass(frozen=True)
class LeaveSubjectOut(Protocol):
    """The activity of people whom no network was trained or chosen on; everybody is left out once.

    Attributes
    ----------
    folds : int
        Persons are left out in so many groups; each fold chooses on the group that is left out next.
    """

    folds: int = 5
    name: ClassVar[str] = "leave_subject_out"
    claim: ClassVar[str] = "the activity of a person never seen before is recognised"

    def splits(self, records: pd.DataFrame, fs: float, seed: int) -> list[Split]:
        """One split a fold.

        Raises
        ------
        StudyError
            There are fewer than three persons, or fewer than folds.
        """
        persons = np.random.default_rng(seed).permutation(records[SUBJECT].unique())
        if len(persons) < max(3, self.folds):
            raise StudyError(f"{len(persons)} persons are too few to leave people out in {self.folds} folds.")
        group = {person: number % self.folds for number, person in enumerate(persons)}
        fold_of = records[SUBJECT].map(group)
        made = []
        for fold in range(self.folds):
            on_trial, chosen_on = fold_of == fold, fold_of == (fold + 1) % self.folds
            parts = [segments(records[rows]) for rows in (~on_trial & ~chosen_on, chosen_on, on_trial)]
            train, validation, probe = parts
            made.append(Split(self.name, train, validation, probe.iloc[:0], probe, unseen_persons=True))
        return made


def activities_of(records: pd.DataFrame) -> list[str]:
    """Activities that occur, rest first where it does, the others by name."""
    return sorted(records["activity"].dropna().unique(), key=lambda activity: (activity != "rest", activity))


def blocked(name: str, known: pd.DataFrame, probed: pd.DataFrame, fs: float) -> Split:
    """Split with the first part of the `known` records against the last part of the `probed` ones."""
    guard = round(GUARD_S * fs)
    train = segments(known, 0, KNOWN_SHARE - CHOICE_SHARE)
    train = train.assign(stop=train["stop"] - guard)
    validation = segments(known, KNOWN_SHARE - CHOICE_SHARE, KNOWN_SHARE)
    probe = segments(probed, 1 - PROBE_SHARE)
    return Split(
        name,
        train[train["stop"] > train["start"]].reset_index(drop=True),
        validation,
        segments(known, 0, KNOWN_SHARE),
        probe[probe[SUBJECT].isin(known[SUBJECT])].reset_index(drop=True),
        within_record=True,
    )
