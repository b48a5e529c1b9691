"""Closed-set protocols: everybody on trial is enrolled, and networks may learn from the enrolment."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from ecgstudy.evaluate.splits import RECORD, SUBJECT, Protocol, Split, segments, time_segments

VALIDATION_SHARE = 0.2
"""Last part of each enrolment record that is kept from training, to choose on..."""
VALIDATION_S = 4.0
"""...and its least length in seconds: a few beats."""
GUARD_S = 1.0
"""Gap before it, so that no beat lies on both sides."""
NO_PROBE = "nothing to probe with"


def closed_set(
    name: str,
    enrolment: pd.DataFrame,
    probe: pd.DataFrame,
    fs: float,
    n_persons: int,
    within_record: bool = False,
) -> Split:
    """Split whose networks train on the first part of every enrolment segment and choose on its last part."""
    length = enrolment["stop"] - enrolment["start"]
    border = (enrolment["stop"] - (length * VALIDATION_SHARE).clip(lower=VALIDATION_S * fs)).astype("int64")
    train = enrolment.assign(stop=border - round(GUARD_S * fs))
    validation = enrolment.assign(start=border)
    dropped = n_persons - probe[SUBJECT].nunique()
    return Split(
        name,
        train[train["stop"] > train["start"]].reset_index(drop=True),
        validation[train["stop"].to_numpy() > train["start"].to_numpy()].reset_index(drop=True),
        enrolment.reset_index(drop=True),
        probe.reset_index(drop=True),
        within_record=within_record,
        dropped={NO_PROBE: dropped} if dropped else {},
    )


@dataclass(frozen=True)
class RandomWindows(Protocol):
    """Windows of all records shuffled: neighbours of every probe window are enrolled.

    Attributes
    ----------
    seconds : float
        Length of a window.
    most : int
        Windows of a record at most, drawn at random; half-hour records have hundreds.
    """

    seconds: float = 5.0
    most: int = 60
    name: ClassVar[str] = "random_windows"
    claim: ClassVar[str] = (
        "a window is recognised among windows of the same recordings (leaky: what most papers report)"
    )
    leaky: ClassVar[bool] = True

    def splits(self, records: pd.DataFrame, fs: float, seed: int) -> list[Split]:
        """Draw 20 % of the windows as probes and 10 % of the rest to choose on."""
        length = round(self.seconds * fs)
        counts = (records["store_samples"] // length).to_numpy()
        rows = np.repeat(np.arange(len(records)), counts)
        windows = segments(records.iloc[rows])
        nth = np.arange(len(rows)) - np.repeat(counts.cumsum() - counts, counts)
        windows = windows.assign(start=nth * length, stop=(nth + 1) * length)
        rng = np.random.default_rng(seed)
        shuffled = windows.iloc[rng.permutation(len(windows))]
        windows = shuffled.groupby(RECORD).head(self.most).sort_index().reset_index(drop=True)
        draw = rng.random(len(windows))
        known, probe = windows[draw >= 0.2], windows[draw < 0.2]
        probe = probe[probe[SUBJECT].isin(known[SUBJECT])]
        validation = known[draw[draw >= 0.2] < 0.28]
        train = known.drop(validation.index)
        parts = [part.reset_index(drop=True) for part in (train, validation, known, probe)]
        return [Split(self.name, *parts, within_record=True)]


@dataclass(frozen=True)
class CrossRecord(Protocol):
    """Each person's first record enrols, the second probes; on ECG-ID mostly of one day."""

    name: ClassVar[str] = "cross_record"
    claim: ClassVar[str] = "a person is recognised in another recording, mostly of the same day"

    def splits(self, records: pd.DataFrame, fs: float, seed: int) -> list[Split]:
        """One split; people with one record stay in the gallery."""
        nth = records.groupby(SUBJECT).cumcount()
        parts = segments(records[nth == 0]), segments(records[nth == 1])
        return [closed_set(self.name, *parts, fs, records[SUBJECT].nunique())]


@dataclass(frozen=True)
class CrossDay(Protocol):
    """All of a person's first day enrols, all later days probe; the gallery holds everybody."""

    name: ClassVar[str] = "cross_day"
    claim: ClassVar[str] = "a person is recognised on a later day, among everybody's first days"

    def splits(self, records: pd.DataFrame, fs: float, seed: int) -> list[Split]:
        """One split; people with one day stay in the gallery."""
        first = records["session"] == 1
        parts = segments(records[first]), segments(records[~first])
        return [closed_set(self.name, *parts, fs, records[SUBJECT].nunique())]


@dataclass(frozen=True)
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
        learnt = CrossDay().splits(records, fs, seed)[0]
        enrolment, probe = segments(records[~probed]), segments(records[probed])
        dropped = {NO_PROBE: records[SUBJECT].nunique() - probe[SUBJECT].nunique()}
        return [Split(self.name, learnt.train, learnt.validation, enrolment, probe, dropped=dropped)]


@dataclass(frozen=True)
class TimeSeparated(Protocol):
    """Early minutes of a long record enrol, its last minutes probe (ecg-biometrics-bench, arXiv 2605.01548)."""

    enrol_minutes: tuple[tuple[float, float], ...] = ((0, 5), (12.5, 17.5))
    probe_minutes: tuple[float, float] = (25, 30)
    name: ClassVar[str] = "time_separated"
    claim: ClassVar[str] = "a person is recognised minutes later in one continuous recording"

    def splits(self, records: pd.DataFrame, fs: float, seed: int) -> list[Split]:
        """One split; records that end before the probe minutes take no part."""
        enrolment = time_segments(records, [(60 * a, 60 * b) for a, b in self.enrol_minutes], fs)
        # a 30-minute record may end a fraction of a second early
        start, stop = (60 * minute for minute in self.probe_minutes)
        probe = time_segments(records, [(start, stop - GUARD_S)], fs)
        return [closed_set(self.name, enrolment, probe, fs, records[SUBJECT].nunique(), within_record=True)]


@dataclass(frozen=True)
class CrossLabel(Protocol):
    """Records with some values of a label enrol, records with the others probe.

    Attributes
    ----------
    label : str
        Column of the record table.
    """

    label: ClassVar[str]

    def splits(self, records: pd.DataFrame, fs: float, seed: int) -> list[Split]:
        """One split a fold of :meth:`folds`."""
        made = []
        for enrol_values, probe_values in self.folds(records):
            enrolment = segments(records[records[self.label].isin(enrol_values)])
            probe = segments(records[records[self.label].isin(probe_values)])
            probe = probe[probe[SUBJECT].isin(enrolment[SUBJECT])]
            made.append(closed_set(self.name, enrolment, probe, fs, records[SUBJECT].nunique()))
        return made

    def folds(self, records: pd.DataFrame) -> list[tuple[list[str], list[str]]]:
        """Values that enrol and values that probe, one pair a fold."""
        raise NotImplementedError


@dataclass(frozen=True)
class CrossActivity(CrossLabel):
    """Rest enrols, every other activity probes."""

    name: ClassVar[str] = "cross_activity"
    claim: ClassVar[str] = "a person enrolled at rest is recognised in motion"
    label: ClassVar[str] = "activity"

    def folds(self, records: pd.DataFrame) -> list[tuple[list[str], list[str]]]:
        """One fold: rest against the others."""
        others = sorted(set(records[self.label]) - {"rest"})
        return [(["rest"], others)]


@dataclass(frozen=True)
class CrossElectrode(CrossLabel):
    """Two electrode types enrol, the third probes, in turn (confounded with time on the motion cohort)."""

    name: ClassVar[str] = "cross_electrode"
    claim: ClassVar[str] = "a person is recognised through another kind of electrode"
    label: ClassVar[str] = "electrode"

    def folds(self, records: pd.DataFrame) -> list[tuple[list[str], list[str]]]:
        """Leave each electrode type out once."""
        kinds = sorted(records[self.label].unique())
        return [([other for other in kinds if other != kind], [kind]) for kind in kinds]
