"""What the notebook asks for in one line: all runs, the paper's table, monitoring, and findings in words."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ecgstudy.dual_task.experiments import DT4ECG, Answers, Budget, Reading, run_protocol
from ecgstudy.dual_task.long_records import LongRecords
from ecgstudy.dual_task.recordings import GRID_S, Recordings
from ecgstudy.dual_task.streaming import (
    Stream,
    accuracy_by_time,
    delay_table,
    milliseconds_per_window,
    read_sessions,
)
from ecgstudy.splits.base import Protocol
from ecgstudy.splits.blocked import BlockedTime, LeaveSubjectOut
from ecgstudy.splits.protocols import CrossActivity, CrossElectrode, RandomWindows
from ecgstudy.stage import Stage

PAPER = "DT4ECG (paper)"
PAPER_PERSON, PAPER_ACTIVITY = 0.9912, 0.9011
"""arXiv 2502.11023: its own 15 persons, split not published."""


def protocols_of(reading: Reading, budget: Budget) -> list[Protocol]:
    """Protocols of the stage, easiest first."""
    return [
        RandomWindows(reading.seconds),
        BlockedTime(),
        CrossElectrode(),
        CrossActivity(),
        LeaveSubjectOut(budget.folds),
    ]


def protocol_table(reading: Reading, budget: Budget) -> pd.DataFrame:
    """One row a protocol: what a number obtained under it says, and whether it is inflated."""
    rows = [
        {"protocol": protocol.name, "claim": protocol.claim, "leaky": "yes" if protocol.leaky else "no"}
        for protocol in protocols_of(reading, budget)
    ]
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class AllRuns:
    """Answers of every network of the stage.

    Attributes
    ----------
    results : dict of (str, str) to Answers
        By protocol and model.
    ablations : dict of str to Answers
        DT4ECG changed in one respect, under ``blocked_time``.
    """

    results: dict[tuple[str, str], Answers]
    ablations: dict[str, Answers]

    @property
    def main(self) -> Answers:
        """DT4ECG under ``blocked_time``."""
        return self.results[BlockedTime.name, DT4ECG.name]


def run_all(recordings: Recordings, reading: Reading, budget: Budget, runs: Path, device: str) -> AllRuns:
    """Train and test DT4ECG under every protocol, its rivals and its ablations under ``blocked_time``.

    Parameters
    ----------
    recordings, reading, budget, runs, device
        As in :func:`ecgstudy.dual_task.experiments.run_protocol`. A run that was made before is loaded.
    """
    results = {}
    for protocol in protocols_of(reading, budget):
        variants = (DT4ECG, *budget.rivals) if protocol.name == BlockedTime.name else (DT4ECG,)
        for variant in variants:
            answers = run_protocol(recordings, protocol, variant, reading, budget, runs, device)
            results[protocol.name, variant.name] = answers
    ablations = {
        variant.name: run_protocol(recordings, BlockedTime(), variant, reading, budget, runs, device)
        for variant in budget.ablations
    }
    return AllRuns(results, ablations)


def paper_table(cohort: str, table: pd.DataFrame) -> pd.DataFrame:
    """Put the paper's two numbers above ours for DT4ECG; columns: source, split, persons, and both accuracies."""
    paper = {
        "source": PAPER,
        "split": "not published",
        "persons": 15,
        "person_accuracy": PAPER_PERSON,
        "activity_accuracy": PAPER_ACTIVITY,
    }
    ours = table[(table["model"] == DT4ECG.name) & (table["note"] == "")]
    columns = [f"{task}_accuracy{end}" for task in ("person", "activity") for end in ("", "_low", "_high")]
    rows = ours[["protocol", "persons", *columns]].rename(columns={"protocol": "split"})
    return pd.concat([pd.DataFrame([paper]), rows.assign(source=f"DT4ECG (ours, {cohort})")], ignore_index=True)[
        ["source", "split", "persons", *columns]
    ]


def coverage_finding(coverage: pd.DataFrame, problems: pd.DataFrame) -> str:
    """Say what is missing: persons without some activity, windows left out."""
    lacking = coverage[coverage["missing"] != ""]
    persons = "; ".join(f"{row.who}: {row.missing}" for row in lacking.itertuples()) or "nobody"
    count = int(problems["windows"].sum())
    reasons = ", ".join(f"{row.reason} {row.windows}" for row in problems.itertuples()) or "none"
    return f"Persons without a usable record of some activity: {persons}. Windows left out: {count} ({reasons})."


def protocol_finding(cohort: str, table: pd.DataFrame) -> str:
    """Say in one sentence what DT4ECG reaches under each protocol."""
    ours = table[(table["model"] == DT4ECG.name) & (table["note"] == "")]
    parts = []
    for row in ours.itertuples():
        values = {"person": row.person_accuracy, "activity": row.activity_accuracy}
        said = " and ".join(f"{task} {100 * value:.1f} %" for task, value in values.items() if math.isfinite(value))
        parts.append(f"{row.protocol.replace('_', ' ')}: {said}")
    return f"DT4ECG on {cohort}, windows named rightly: {'; '.join(parts)}."


def certainty_sentence(n_persons: int) -> str:
    """Say what a faultless result on so many persons leaves open (exact binomial bound, Clopper & Pearson 1934)."""
    share = 1 - 0.05 ** (1 / n_persons)
    return (
        f"If all {n_persons} persons were named without a mistake, up to {100 * share:.0f} % of all people could still "
        "be such that the network fails on them (95 % confidence)."
    )


def record_matrix(stage: Stage, cohort: str, matrix: pd.DataFrame, n_persons: int) -> None:
    """Record ``<cohort>.activity_pairs.<known>_to_<heard>.person_accuracy`` for every cell."""
    for known, row in matrix.iterrows():
        for heard, value in row.items():
            name = f"{cohort}.activity_pairs.{known}_to_{heard}.person_accuracy"
            stage.metric(name, value, n=n_persons, unit="share", note="no window of this pair")


@dataclass(frozen=True)
class Monitoring:
    """What the streams gave.

    Attributes
    ----------
    streams : list of Stream
        One whole session a person.
    delays, by_time : pandas.DataFrame
        As from :func:`~ecgstudy.dual_task.streaming.delay_table` and ``accuracy_by_time``.
    milliseconds : float
        Time to read one window on one core.
    """

    streams: list[Stream]
    delays: pd.DataFrame
    by_time: pd.DataFrame
    milliseconds: float

    @property
    def example(self) -> Stream:
        """Session of the person in the middle by activity accuracy."""

        def hits(stream: Stream) -> float:
            truth = stream.index["activity"]
            return float(np.mean([stream.activity[truth == name].max(axis=1).mean() for name in truth.unique()]))

        ordered = sorted(self.streams, key=hits)
        return ordered[len(ordered) // 2]


def monitor(recordings: Recordings, runs: AllRuns, reading: Reading, budget: Budget) -> Monitoring:
    """Read whole sessions as streams, each record by a network that never saw its electrode type.

    Where the cohort has no electrode types, the last part of each record is read by the network of ``blocked_time``.
    """
    protocol: Protocol = CrossElectrode()
    answers = runs.results[protocol.name, DT4ECG.name]
    if answers.skipped:
        protocol, answers = BlockedTime(), runs.main
    splits = protocol.splits(recordings.records, recordings.fs, budget.seeds[0])
    streams = read_sessions(recordings, splits, answers, reading)
    return Monitoring(
        streams,
        delay_table(streams, recordings.activities, reading),
        accuracy_by_time(streams, recordings.persons, recordings.activities, reading),
        milliseconds_per_window(answers.runs[0].model),
    )


def record_monitoring(stage: Stage, cohort: str, monitoring: Monitoring) -> str:
    """Record the stream's metrics and say in one sentence what they mean."""
    n = len(monitoring.streams)
    note = "no change of activity was heard"
    for row in monitoring.delays.to_dict("records"):
        stem = f"{cohort}.monitoring.switching_{row['switching']}"
        stage.metric(f"{stem}.activity_accuracy", row["accuracy"], n=n, unit="share", note=note)
        stage.metric(f"{stem}.delay", row["delay"], n=row["changes"], unit="s", note=note)
        stage.metric(f"{stem}.missed", row["missed"], n=row["changes"], unit="share", note=note)
    milliseconds = stage.metric(f"{cohort}.monitoring.milliseconds_per_window", monitoring.milliseconds, unit="ms")
    best = monitoring.delays.loc[monitoring.delays["accuracy"].idxmax()]
    return (
        f"Over whole sessions the activity is right in at most {100 * best['accuracy']:.1f} % of the seconds, with a "
        f"median delay of {best['delay']:.0f} s after a change ({100 * best['missed']:.0f} % of the changes are never "
        f"noticed); one window takes {milliseconds:.1f} ms on one processor core, and a new one comes every "
        f"{1000 * GRID_S:.0f} ms."
    )


def record_long(stage: Stage, long: LongRecords, reading: Reading) -> pd.DataFrame:
    """Record how the late minutes of the long records are recognised; returns accuracy by seconds heard."""
    by_time = accuracy_by_time(long.late, long.recordings.persons, [], reading)
    n = len(long.recordings.persons)
    for row in (by_time.iloc[0], by_time.iloc[-1]):
        name = f"mitdb.monitoring.person_accuracy_after_{row['seconds']:.0f}_s"
        stage.metric(name, row["accuracy"], n=n, unit="share")
    return by_time
