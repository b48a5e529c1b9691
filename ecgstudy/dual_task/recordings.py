"""What the networks of the dual task read: windows of one lead with their person, activity and artefact degree."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from ecgstudy.data.base import Cohort
from ecgstudy.data.motion import MotionCohort
from ecgstudy.data.simulator.render import ACTIVITIES
from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.errors import StudyError
from ecgstudy.evaluate.blocked import activities_of
from ecgstudy.evaluate.splits import RECORD
from ecgstudy.ingestion.stores import study_cohort
from ecgstudy.learn.batches import WindowSet, encode, standardise
from ecgstudy.signals.ingest import build_store
from ecgstudy.signals.store import RecordStore
from ecgstudy.study.config import cache_dir

GRID_S = 1.0
"""Windows start on whole seconds of their record."""
GAP = "gap in time"
"""Why a window is left out that lies across a hole in the recording."""
_AMPLITUDE_CENTRE = 1.5  # brings log10 of a lead's spread in 12-bit counts near 0


@dataclass(frozen=True)
class Reading:
    """How a recording is cut into a network's windows.

    Attributes
    ----------
    seconds : float
        Length of a window.
    amplitude : bool
        Tell the network the window's amplitude as a second, constant channel, on a logarithmic scale;
        without it only the shape is read.
    """

    seconds: float
    amplitude: bool


@dataclass(frozen=True)
class Recordings:
    """The records of one cohort, read in one lead.

    Attributes
    ----------
    store : RecordStore
        Where samples come from.
    records : pandas.DataFrame
        Rows of the store's record table that have the lead, with a column `activity`.
    lead : str
        The lead, by name.
    degrees : dict of str to pandas.DataFrame
        Artefact degree of the segments of each record: start, end (seconds), degree. Empty where nobody marked any.
    expected : tuple of str
        Activities that the cohort is made of, whether or not a record of them is there and usable.
    """

    store: RecordStore
    records: pd.DataFrame
    lead: str
    degrees: dict[str, pd.DataFrame]
    expected: tuple[str, ...] = ()

    @property
    def fs(self) -> float:
        """Sampling rate in Hz."""
        return self.store.fs

    @property
    def persons(self) -> list[str]:
        """Persons in the order of their class numbers."""
        return sorted(self.records["subject_id"].unique())

    @property
    def activities(self) -> list[str]:
        """Activities in the order of their class numbers."""
        return activities_of(self.records)

    @cached_property
    def _labels(self) -> pd.DataFrame:
        return self.records.set_index(RECORD)

    def index(self, seconds: float) -> pd.DataFrame:
        """Every window on the grid, usable or not, of the records read here; `problem` says why not."""
        index = self.store.windows(seconds, GRID_S, leads=[self.lead])
        index = index[index[RECORD].isin(self._labels.index)].reset_index(drop=True)
        if "gaps" in self.records:
            index.loc[index["problem"].isna() & self._across_gap(index), "problem"] = GAP
        return index

    def _across_gap(self, index: pd.DataFrame) -> np.ndarray:
        """Whether each window lies across a gap in time of its record."""
        across = np.zeros(len(index), dtype=bool)
        for record_id, record in self._labels[self._labels["n_gaps"] > 0].iterrows():
            for after, _ in record["gaps"]:
                place = after / record["fs"] * self.fs
                mine = index[RECORD] == record_id
                across |= (mine & (index["start"] <= place) & (place < index["start"] + index["n_samples"])).to_numpy()
        return across

    def windows(self, segments: pd.DataFrame, seconds: float, stride: float) -> pd.DataFrame:
        """Usable windows that lie wholly inside segments.

        Parameters
        ----------
        segments : pandas.DataFrame
            Rows of a split's part.
        seconds : float
            Length of a window.
        stride : float
            Seconds from one window's start to the next, a multiple of :data:`GRID_S`.

        Returns
        -------
        pandas.DataFrame
            Rows of :meth:`index` with the labels subject_id and activity.
        """
        spans = segments[[RECORD, "start", "stop"]].rename(columns={"start": "first", "stop": "last"})
        inside = self._usable(seconds).merge(spans, on=RECORD)
        inside = inside[
            (inside["start"] >= inside["first"]) & (inside["start"] + inside["n_samples"] <= inside["last"])
        ]
        nth = inside.groupby([RECORD, "first"]).cumcount()
        kept = inside[nth % round(stride / GRID_S) == 0].drop(columns=["first", "last"])
        return kept.assign(activity=self._labels.loc[kept[RECORD], "activity"].to_numpy()).reset_index(drop=True)

    def _usable(self, seconds: float) -> pd.DataFrame:
        """Windows of one length without a problem; computed once a length."""
        known = self.__dict__.setdefault("_by_length", {})
        if seconds not in known:
            index = self.index(seconds)
            known[seconds] = index[index["problem"].isna()]
        return known[seconds]

    def window_set(self, index: pd.DataFrame, reading: Reading) -> WindowSet:
        """Read windows into memory with their person and activity as classes."""
        values = self.store.gather(index, [self.lead])
        samples = standardise(values)
        if reading.amplitude:
            spread = np.log10(values.std(axis=-1, keepdims=True) + 1e-3) - _AMPLITUDE_CENTRE
            samples = np.concatenate([samples, np.broadcast_to(spread, values.shape)], axis=1, dtype=np.float32)
        targets = {
            "person": encode(index["subject_id"], self.persons),
            "activity": encode(index["activity"], self.activities),
        }
        names = (index[column].to_numpy(dtype=str) for column in ("subject_id", RECORD))
        return WindowSet(samples, targets, *names)

    def lead_names(self, reading: Reading) -> list[str]:
        """Names of a window's rows."""
        return [self.lead, "amplitude"] if reading.amplitude else [self.lead]

    def worst_degree(self, index: pd.DataFrame) -> np.ndarray:
        """Highest artefact degree that a window touches, float, shape (n,); NaN where nobody marked the record."""
        worst = np.full(len(index), np.nan)
        starts = index["start"].to_numpy() / self.fs
        stops = starts + index["n_samples"].to_numpy() / self.fs
        for record_id, rows in index.groupby(RECORD).indices.items():
            if record_id not in self.degrees:
                continue
            marked = self.degrees[record_id]
            touches = (marked["start"].to_numpy() < stops[rows, None]) & (marked["end"].to_numpy() > starts[rows, None])
            degrees = np.where(touches, marked["degree"].to_numpy(), -np.inf).max(axis=1)
            worst[rows] = np.where(np.isfinite(degrees), degrees, np.nan)
        return worst


def activity_cohort(name: str, seed: int, persons: int, seconds: float) -> Cohort:
    """Open a cohort recorded during activities; the synthetic one is drawn from `seed`, one record an activity.

    Parameters
    ----------
    name : {"motion", "synthetic"}
        The cohort.
    seed : int
        Seed of the synthetic cohort.
    persons, seconds : int, float
        Size of the synthetic cohort and length of its records.
    """
    if name == SyntheticCohort.name:
        return SyntheticCohort(
            n_subjects=persons, n_sessions=1, n_records=1, seconds=seconds, seed=seed, activities=list(ACTIVITIES)
        )
    return study_cohort(name, seed)


def open_recordings(cohort: Cohort, profile: str, fs: float, lead: str | None = None) -> Recordings:
    """Ingest a cohort and choose its lead.

    Parameters
    ----------
    cohort : Cohort
        A cohort whose records carry an `activity`, or none at all (then it is "unknown").
    profile : str
        Names the cache.
    fs : float
        Sampling rate in Hz.
    lead : str, optional
        Lead to read; the most frequent reference lead unless told. Records without it are left out.

    Raises
    ------
    StudyError
        No record has the lead.
    """
    real = not cohort.synthetic
    store = build_store(cohort, cache_dir(profile), fs, delineate=real)
    records = store.records
    lead = lead or records["reference_lead"].mode().iloc[0]
    has = np.array([lead in usable for usable in records["usable_leads"]])
    if not has.any():
        raise StudyError(f"No record of {cohort.name} has a usable lead {lead}; choose another lead.")
    if "activity" not in records:
        records["activity"] = "unknown"
    degrees = {}
    if isinstance(cohort, MotionCohort):
        rates = records.set_index(RECORD)["fs"]
        for record_id in records[RECORD]:
            marked = cohort.artefacts(record_id)
            degrees[record_id] = marked.assign(
                start=marked["start"] / rates[record_id], end=marked["end"] / rates[record_id]
            )
    expected = tuple(ACTIVITIES) if isinstance(cohort, MotionCohort) else tuple(_stated_activities(cohort))
    return Recordings(store, records[has].reset_index(drop=True), lead, degrees, expected)


def _stated_activities(cohort: Cohort) -> list[str]:
    """Activities that the cohort's own record table names; none where it states no activity."""
    table = cohort.records()
    return activities_of(table) if "activity" in table else []


def merge_touching(segments: pd.DataFrame) -> pd.DataFrame:
    """Join segments of a record that follow each other without a gap, so that windows may lie across their borders."""
    ordered = segments.sort_values([RECORD, "start"])
    joined = (ordered[RECORD] == ordered[RECORD].shift()) & (ordered["start"] == ordered["stop"].shift())
    run = (~joined).cumsum().rename("run")
    others = {column: "first" for column in segments.columns if column != "stop"}
    return ordered.groupby(run).agg({**others, "stop": "last"})[list(segments.columns)].reset_index(drop=True)


def coverage_table(recordings: Recordings) -> pd.DataFrame:
    """Usable records of each person and activity, persons alike on one row, and what was left out.

    Returns
    -------
    pandas.DataFrame
        persons (how many), who (their names, shortened where they are many), one count an activity (one without
        any usable record too), `missing` (activities of which they have no usable record) and `left_out` (their
        excluded records with the reason).
    """
    records = recordings.records
    columns = list(dict.fromkeys([*recordings.activities, *recordings.expected]))
    counts = pd.crosstab(records["subject_id"], records["activity"]).reindex(columns=columns, fill_value=0)
    excluded = recordings.store.exclusions
    left_out = (excluded[RECORD] + " (" + excluded["reason"] + ")").groupby(excluded["subject_id"]).agg(", ".join)
    # somebody without any usable record is named too
    counts = counts.reindex(counts.index.union(left_out.index), fill_value=0)
    missing = [", ".join(row.index[row == 0]) for _, row in counts.iterrows()]
    table = counts.assign(missing=missing, left_out=left_out.reindex(counts.index).fillna(""))
    alike = table.rename_axis("who").reset_index().groupby([*table.columns], sort=False)["who"]
    grouped = alike.agg(persons="size", who=_short_list).reset_index()
    return grouped[["persons", "who", *table.columns]].sort_values("who", ignore_index=True)


def _short_list(names: pd.Series) -> str:
    """Join a few names; of many, name the first and the last."""
    return ", ".join(names) if len(names) <= 10 else f"{names.iloc[0]} to {names.iloc[-1]}"


def window_problems(recordings: Recordings, seconds: float) -> pd.DataFrame:
    """Windows left out by reason: reason, windows, persons."""
    index = recordings.index(seconds)
    bad = index[index["problem"].notna()]
    table = bad.groupby("problem").agg(windows=("start", "size"), persons=("subject_id", "nunique"))
    return table.rename_axis("reason").reset_index().assign(share=lambda t: t["windows"] / max(len(index), 1))
