"""What the notebook asks for in one line: all runs, the paper's table, monitoring, and findings in words."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ecgstudy.dual_task.experiments import DT4ECG, TASKS, Answers, Budget, Reading, Variant, run_protocols
from ecgstudy.dual_task.long_records import LongRecords
from ecgstudy.dual_task.recordings import GRID_S, Recordings
from ecgstudy.dual_task.scores import answered
from ecgstudy.dual_task.streaming import (
    Stream,
    accuracy_by_time,
    delay_table,
    milliseconds_per_window,
    read_sessions,
)
from ecgstudy.errors import StudyError
from ecgstudy.evaluate.protocols import BlockedTime, LeaveSubjectOut
from ecgstudy.evaluate.protocols import CrossActivity, CrossElectrode, RandomWindows
from ecgstudy.evaluate.splits import Protocol
from ecgstudy.study.stage import Stage

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
        {"protocol": protocol.name, "leaky": "yes" if protocol.leaky else "no", "claim": protocol.claim}
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
        As in :func:`ecgstudy.dual_task.experiments.run_protocols`. A run that was made before is loaded.

    Raises
    ------
    StudyError
        DT4ECG cannot learn both tasks under ``blocked_time``: the stage has nothing to tell of this cohort.
    """
    asked: dict[tuple[str, str], tuple[Protocol, Variant]] = {}
    for protocol in protocols_of(reading, budget):
        variants = (DT4ECG, *budget.rivals, *budget.ablations) if protocol.name == BlockedTime.name else (DT4ECG,)
        asked |= {(protocol.name, variant.name): (protocol, variant) for variant in variants}
    answers = run_protocols(recordings, asked, reading, budget, runs, device)
    ablations = {variant.name: answers.pop((BlockedTime.name, variant.name)) for variant in budget.ablations}
    made = AllRuns(answers, ablations)
    cohort = recordings.store.manifest["cohort"]
    if made.main.skipped:
        raise StudyError(f"Nothing can be learnt from the first part of the records of {cohort}: {made.main.skipped}.")
    if not set(TASKS) <= set(made.main.runs[0].model.heads):
        raise StudyError(f"{cohort} has usable records of one person or of one activity only; bring two of each.")
    return made


def paper_table(cohort: str, table: pd.DataFrame) -> pd.DataFrame:
    """Put the paper's two numbers above ours for DT4ECG; columns: source, split, persons, and both accuracies."""
    paper = {
        "source": PAPER,
        "split": "not published",
        "persons": 15,
        "person_accuracy": PAPER_PERSON,
        "activity_accuracy": PAPER_ACTIVITY,
    }
    ours = answered(table)[lambda t: t["model"] == DT4ECG.name]
    columns = [f"{task}_accuracy{end}" for task in ("person", "activity") for end in ("", "_low", "_high")]
    rows = ours[["protocol", "persons", *columns]].rename(columns={"protocol": "split"})
    return pd.concat([pd.DataFrame([paper]), rows.assign(source=f"DT4ECG (ours, {cohort})")], ignore_index=True)[
        ["source", "split", "persons", *columns]
    ]


def coverage_finding(recordings: Recordings, coverage: pd.DataFrame, problems: pd.DataFrame) -> str:
    """Say what is missing: activities and persons without records, windows left out; and what each electrode has."""
    lacking = coverage[coverage["missing"] != ""]
    persons = "; ".join(f"{row.who}: {row.missing}" for row in lacking.itertuples()) or "nobody"
    count = int(problems["windows"].sum())
    reasons = ", ".join(f"{row.reason} {row.windows}" for row in problems.itertuples()) or "none"
    absent = ", ".join(sorted(set(recordings.expected) - set(recordings.activities))) or "none"
    said = (
        f"Activities without any usable record: {absent}. Persons without a usable record of some activity: {persons}. "
        f"Windows left out: {count} ({reasons})."
    )
    if "electrode" in recordings.records:
        kinds = recordings.records["electrode"].value_counts().sort_index()
        said += f" Usable records by electrode: {', '.join(f'{kind} {n}' for kind, n in kinds.items())}."
    return said


def protocol_finding(cohort: str, table: pd.DataFrame) -> str:
    """Say in one sentence what DT4ECG reaches under each protocol."""
    ours = answered(table)[lambda t: t["model"] == DT4ECG.name]
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
            note = "" if math.isfinite(value) else "no window of this pair"
            stage.metric(name, value, n=n_persons, unit="share", note=note)


@dataclass(frozen=True)
class Monitoring:
    """What the streams gave.

    Attributes
    ----------
    protocol : str
        Name of the protocol whose networks read.
    activities : list of str
        Names of the classes.
    streams : list of Stream
        One whole session a person.
    delays, by_time : pandas.DataFrame
        As from :func:`~ecgstudy.dual_task.streaming.delay_table` and ``accuracy_by_time``.
    milliseconds : float
        Time to read one window on one core.
    """

    protocol: str
    activities: list[str]
    streams: list[Stream]
    delays: pd.DataFrame
    by_time: pd.DataFrame
    milliseconds: float

    @property
    def example(self) -> Stream:
        """Session of the person in the middle by activity accuracy."""

        def hits(stream: Stream) -> float:
            named = np.array(self.activities)[stream.activity.argmax(axis=1)]
            return float((named == stream.index["activity"].to_numpy()).mean())

        ordered = sorted(self.streams, key=hits)
        return ordered[len(ordered) // 2]


def monitor(recordings: Recordings, runs: AllRuns, reading: Reading, budget: Budget) -> Monitoring:
    """Read whole sessions as streams, each record by a network that never saw its electrode type.

    Where the cohort has no two electrode types, the last part of each record is read by the network of
    ``blocked_time``.
    """
    protocol: Protocol = CrossElectrode()
    answers = runs.results[protocol.name, DT4ECG.name]
    if answers.skipped:
        protocol, answers = BlockedTime(), runs.main
    splits = protocol.splits(recordings.records, recordings.fs, budget.seeds[0])
    streams = read_sessions(recordings, splits, answers, reading)
    return Monitoring(
        protocol.name,
        recordings.activities,
        streams,
        delay_table(streams, recordings.activities, reading),
        accuracy_by_time(streams, recordings.persons, recordings.activities, reading),
        milliseconds_per_window(answers.runs[0].model),
    )


def record_monitoring(stage: Stage, cohort: str, monitoring: Monitoring) -> str:
    """Record the stream's metrics and say in one sentence what they mean."""
    n = len(monitoring.streams)
    for row in monitoring.delays.to_dict("records"):
        stem = f"{cohort}.monitoring.switching_{row['switching']}"
        for name, column, unit, count in (
            ("activity_accuracy", "accuracy", "share", n),
            ("delay", "delay", "s", row["changes"]),
            ("missed", "missed", "share", row["changes"]),
        ):
            note = "" if math.isfinite(row[column]) else "no change of activity was heard, or none was noticed"
            stage.metric(f"{stem}.{name}", row[column], n=count, unit=unit, note=note)
    milliseconds = stage.metric(f"{cohort}.monitoring.milliseconds_per_window", monitoring.milliseconds, unit="ms")
    speed = (
        f"one window takes {milliseconds:.1f} ms on one processor core, and a new one comes every "
        f"{1000 * GRID_S:.0f} ms."
    )
    if not monitoring.streams:
        return f"No session could be read as a stream, for want of usable windows; {speed}"
    best = monitoring.delays.loc[monitoring.delays["accuracy"].idxmax()]
    change = "no change of activity was noticed"
    if math.isfinite(best["delay"]):
        change = (
            f"a change is noticed after {best['delay']:.0f} s (median; {100 * best['missed']:.0f} % of the changes "
            "never are)"
        )
    return (
        f"Read as a stream by the networks of {monitoring.protocol.replace('_', ' ')}, the activity is right "
        f"in at most {100 * best['accuracy']:.1f} % of the seconds, and {change}; {speed}"
    )


def record_long(stage: Stage, long: LongRecords, reading: Reading) -> pd.DataFrame:
    """Record how the late minutes of the long records are recognised; returns accuracy by seconds heard."""
    by_time = accuracy_by_time(long.late, long.recordings.persons, [], reading)
    n = len(long.recordings.persons)
    for row in (by_time.iloc[0], by_time.iloc[-1]):
        name = f"mitdb.monitoring.person_accuracy_after_{row['seconds']:.0f}_s"
        stage.metric(name, row["accuracy"], n=n, unit="share")
    return by_time
