"""Continuous monitoring: a recording read as a stream, evidence carried from window to window.

The state is the forward filter of a hidden Markov model whose hidden class stays with a fixed
probability (Rabiner 1989, Proc. IEEE 77(2):257, equations 19-20, scaled). Windows that overlap share
evidence, so each adds only the share of it that is new: step / window length.
"""

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from ecgstudy.dual_task.experiments import TASKS, Answers
from ecgstudy.dual_task.recordings import GRID_S, Reading, Recordings
from ecgstudy.evaluate.splits import RECORD, SUBJECT, Split
from ecgstudy.learn.base import SignalModel
from ecgstudy.learn.scoring import class_probabilities

SWITCHING = (0.5, 0.1, 0.01, 1e-3, 1e-4)
"""Probabilities of a change of activity per second that are compared; 0.5 hardly remembers."""
SHOWN_SWITCHING = 0.01
TIMED_WINDOWS = 60


@dataclass(frozen=True)
class Stream:
    """One recording read window by window.

    Attributes
    ----------
    index : pandas.DataFrame
        Windows in order: record_id, subject_id, activity, start (samples).
    person, activity : numpy.ndarray
        Probability of each class in each window on its own, shapes (n, n_persons) and (n, n_activities).
    """

    index: pd.DataFrame
    person: np.ndarray
    activity: np.ndarray


def forward_filter(probabilities: np.ndarray, switching: float, new_share: float) -> np.ndarray:
    """Probability of each class after each window, given all windows so far.

    Parameters
    ----------
    probabilities : numpy.ndarray
        Classes' probabilities from each window alone under equal priors, shape (n, n_classes).
    switching : float
        Probability that the class changes from one window to the next, to each other class alike.
    new_share : float
        Share of a window's evidence that the window before did not hold, in (0, 1].

    Returns
    -------
    numpy.ndarray
        Shape (n, n_classes), rows summing to 1.
    """
    n, n_classes = probabilities.shape
    evidence = np.clip(probabilities, 1e-6, None) ** new_share
    carried = np.empty((n, n_classes))
    state = np.full(n_classes, 1 / n_classes)
    for row in range(n):
        # stay with 1 - switching, else move to one of the others
        prior = state * (1 - switching) + (1 - state) * switching / (n_classes - 1)
        state = prior * evidence[row]
        state /= state.sum()
        carried[row] = state
    return carried


def read_sessions(recordings: Recordings, splits: Iterable[Split], answers: Answers, reading: Reading) -> list[Stream]:
    """Every person's whole session as a stream, each record read by the network that never saw it.

    Parameters
    ----------
    recordings : Recordings
        The cohort.
    splits : iterable of Split
        Folds whose probes are whole records, such as those of ``CrossElectrode``.
    answers : Answers
        Answers under that protocol; its first run of each fold reads, if it learnt both tasks.
    reading : Reading
        How windows are cut.

    Returns
    -------
    list of Stream
        One a person, by name; nobody of whom no window is usable.
    """
    models: dict[int, SignalModel] = {}
    for fold, run in zip(answers.folds, answers.runs, strict=True):
        if set(TASKS) <= set(run.model.heads):
            models.setdefault(fold, run.model)
    streams: dict[str, list[Stream]] = {}
    for fold, split in enumerate(splits):
        if fold not in models:
            continue
        model = models[fold]
        for person in split.probe[SUBJECT].unique():
            index = recordings.windows(split.probe[split.probe[SUBJECT] == person], reading.seconds, GRID_S)
            if len(index):
                streams.setdefault(person, []).append(read_stream(recordings, model, index, reading))
    return [
        Stream(
            pd.concat([stream.index for stream in parts], ignore_index=True),
            np.concatenate([stream.person for stream in parts]),
            np.concatenate([stream.activity for stream in parts]),
        )
        for _, parts in sorted(streams.items())
    ]


def read_stream(recordings: Recordings, model: SignalModel, index: pd.DataFrame, reading: Reading) -> Stream:
    """Probabilities of windows in order; a task that the network lacks has no columns."""
    samples = recordings.window_set(index, reading).samples
    classes = {"person": recordings.persons, "activity": recordings.activities}
    known = {
        task: class_probabilities(model, samples, task, classes[task])
        if task in model.heads
        else np.empty((len(index), 0))
        for task in TASKS
    }
    return Stream(index, known["person"], known["activity"])


def delay_table(streams: list[Stream], activities: list[str], reading: Reading) -> pd.DataFrame:
    """How long a change of activity takes to be noticed, against how often the decision is right.

    Returns
    -------
    pandas.DataFrame
        One row a switching probability: switching (text), accuracy (share of seconds decided rightly), delay
        (median seconds from the change to the first right decision, over changes that are noticed), late
        (90th percentile), missed (share of changes never noticed before the next), changes. NaN where there is
        no stream, or no change.
    """
    rows = []
    for switching in SWITCHING:
        hits, delays = [], []
        for stream in streams:
            filtered = forward_filter(stream.activity, switching, GRID_S / reading.seconds)
            right = np.array(activities)[filtered.argmax(axis=1)] == stream.index["activity"].to_numpy()
            hits.append(right)
            delays += _delays(right, stream.index[RECORD].to_numpy(), reading.seconds)
        delay = np.array(delays)
        noticed = delay[np.isfinite(delay)]
        rows.append(
            {
                "switching": f"{switching:g}",
                "accuracy": float(np.concatenate(hits).mean()) if hits else math.nan,
                "delay": float(np.median(noticed)) if len(noticed) else math.nan,
                "late": float(np.quantile(noticed, 0.9)) if len(noticed) else math.nan,
                "missed": float(np.mean(~np.isfinite(delay))) if len(delay) else math.nan,
                "changes": len(delay),
            }
        )
    return pd.DataFrame(rows)


def _delays(right: np.ndarray, records: np.ndarray, seconds: float) -> list[float]:
    """Seconds from the start of each record after the first to the first right decision; infinite where there is none.

    A window speaks when it is complete, so the first decision comes `seconds` after the start.
    """
    starts = np.flatnonzero(np.concatenate([[True], records[1:] != records[:-1]]))
    ends = np.append(starts[1:], len(records))
    first = [int(np.argmax(right[a:b])) if right[a:b].any() else math.inf for a, b in zip(starts, ends, strict=True)]
    return [seconds + GRID_S * nth for nth in first[1:]]


def accuracy_by_time(
    streams: list[Stream], persons: list[str], activities: list[str], reading: Reading
) -> pd.DataFrame:
    """Share of records named rightly when evidence adds up from the record's start, by seconds heard.

    Returns
    -------
    pandas.DataFrame
        seconds, task, accuracy, records; a record counts for as long as it lasts. Empty where there is no stream.
    """
    rows = [pd.DataFrame({"seconds": [], "task": [], "right": []})]
    for stream in streams:
        for _, mine in stream.index.groupby(RECORD, sort=False).indices.items():
            for task, classes, truth in (("person", persons, SUBJECT), ("activity", activities, "activity")):
                own = getattr(stream, task)[mine]
                if not own.shape[1]:
                    continue
                added = np.cumsum(np.log(np.clip(own, 1e-6, None)), axis=0)
                right = np.array(classes)[added.argmax(axis=1)] == stream.index[truth].to_numpy()[mine]
                heard = reading.seconds + GRID_S * np.arange(len(mine))
                rows.append(pd.DataFrame({"seconds": heard, "task": task, "right": right}))
    table = pd.concat(rows).groupby(["task", "seconds"])["right"].agg(accuracy="mean", records="size").reset_index()
    # a handful of longest records would make the end of the line
    return table[table["records"] >= 0.5 * table.groupby("task")["records"].transform("max")]


def milliseconds_per_window(model: SignalModel) -> float:
    """Median time in which one processor core reads one window, in milliseconds."""
    x = torch.randn(1, model.hparams.n_leads, model.hparams.n_samples, generator=torch.Generator().manual_seed(0))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    taken = []
    try:
        with torch.inference_mode():
            for _ in range(TIMED_WINDOWS):
                started = time.perf_counter()
                model(x)
                taken.append(time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)
    return 1000 * float(np.median(taken))
