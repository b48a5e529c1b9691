"""Continuous monitoring: a recording read as a stream, evidence carried from window to window.

The state is the forward filter of a hidden Markov model whose hidden class stays with a fixed
probability (Rabiner 1989, Proc. IEEE 77(2):257, equations 19-20, scaled). Windows that overlap share
evidence, so each adds only the share of it that is new: step / window length.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch.utils.benchmark import Timer

from ecgstudy.data.cohorts import cohorts_of
from ecgstudy.data.public import MitdbCohort
from ecgstudy.dual_task.plan import DT4ECG, LONG_RECORDS, by_network, open_context, predict
from ecgstudy.dual_task.predictions import TASKS, Predictions, below
from ecgstudy.dual_task.sessions import session_order
from ecgstudy.errors import DiskError, StudyError
from ecgstudy.evaluate.bootstrap import Resamples, bootstrap_each, ratio, with_exact_bounds
from ecgstudy.evaluate.protocols import TimeSeparated
from ecgstudy.evaluate.results import intervals
from ecgstudy.evaluate.splits import RECORD, SUBJECT, segments
from ecgstudy.experiment.dataset import GRID_S
from ecgstudy.experiment.jobs import Context, Job, run
from ecgstudy.learn.base import SignalModel, class_probabilities

SWITCHING = (0.5, 0.1, 0.01, 1e-3, 1e-4)
"""Probabilities of a change of activity per second that are compared; 0.5 hardly remembers."""
MONITORED = ("accuracy", "delay", "late", "missed", "false_switches")
"""What is measured of a stream."""
UNNOTICED = "no change of activity was heard, or none was noticed"
NOTICED_S = 5
"""Seconds in a row that must be right for a change to count as noticed."""
GUESS, USUAL = "uniform guess", "most frequent activity"
"""What needs no signal: rows that a stream has to be set beside."""


def forward_filter(probabilities: np.ndarray, switching: float, new_share: float) -> np.ndarray:
    """Probability of each class after each window, given all windows so far, shape (n, n_classes).

    `probabilities` are those of each window alone under equal priors, `switching` the probability that the class
    changes from one window to the next, to each other class alike, and `new_share` the share of a window's evidence
    that the window before did not hold, in (0, 1].
    """
    n_classes = probabilities.shape[1]
    state, carried = np.full(n_classes, 1 / n_classes), np.empty(probabilities.shape)
    for row, evidence in enumerate(np.clip(probabilities, 1e-6, None) ** new_share):
        # stay with 1 - switching, else move to one of the others
        state = evidence * (state * (1 - switching) + (1 - state) * switching / (n_classes - 1))
        carried[row] = state = state / state.sum()
    return carried


def stream(found: Mapping[tuple[str, str], Predictions], records: pd.DataFrame) -> tuple[str, Predictions]:
    """Sessions as read by the first seed's networks that know person and activity; and the protocol.

    Each record is read by a network that never saw its electrode type; where the cohort has no two types, the last
    part of each record is read by the network of ``blocked_time``.
    """
    protocol = "blocked_time" if found["cross_electrode", DT4ECG].windows.empty else "cross_electrode"
    return protocol, as_stream(found[protocol, DT4ECG], records)


def as_stream(predictions: Predictions, records: pd.DataFrame) -> Predictions:
    """Windows of the first seed person by person in the order of the session, those across borders at their place.

    The column `since` says how many seconds of its record had been heard when a window ended. Networks that do not know
    both person and activity are left out.
    """
    windows, across = predictions.windows, predictions.across
    begins = windows.groupby(RECORD)["start"].min()
    both = below([windows, across])
    known = both[[f"{task}_predicted" for task in TASKS]].notna().all(axis=1) & (both["seed"] == both["seed"].min())
    both = both[known].reset_index(drop=True)
    nth = {record: number for number, record in enumerate(session_order(records)[RECORD])}
    both["since"] = (both["start"] + both["n_samples"] - both[RECORD].map(begins)).astype(float)
    order = both.assign(nth=both[RECORD].map(nth)).sort_values(["nth", "start"], kind="stable").index
    return replace(predictions, windows=both.loc[order].reset_index(drop=True))


def sessions(heard: Predictions) -> list[Predictions]:
    """Each person's part of a stream."""
    return [heard.subset(rows) for rows in heard.windows.groupby(SUBJECT).indices.values()]


def delay_table(heard: Predictions, seconds: float) -> pd.DataFrame:
    """How long a change of activity takes to be noticed, against how often the decision is right.

    Columns: switching (text), accuracy (share of seconds decided rightly), delay (median seconds from the change to
    the first of :data:`NOTICED_S` right decisions in a row, over changes that are noticed), late (90th percentile),
    missed (share of changes never noticed before the next), false_switches (a minute: the decision moves to an activity
    that is not going on), each with the ends of its interval over persons, and changes. NaN where there is no stream,
    or no change. The last two rows need no signal.
    """
    rng, classes = np.random.default_rng(0), heard.classes["activity"]
    usual = pd.Index(classes).get_indexer(heard.windows["activity"].mode()[:1])

    def carried(switching: float) -> Callable[[Predictions], np.ndarray]:
        return lambda one: forward_filter(one.shares("activity"), switching, GRID_S / seconds).argmax(axis=1)

    deciders = {f"{switching:g}": carried(switching) for switching in SWITCHING}
    deciders[GUESS] = lambda one: rng.integers(len(classes), size=len(one.windows))
    deciders[USUAL] = lambda one: np.repeat(usual, len(one.windows))
    return pd.DataFrame([{"switching": name, **_judged(heard, one, seconds)} for name, one in deciders.items()])


def _judged(heard: Predictions, decide: Callable[[Predictions], np.ndarray], seconds: float) -> dict[str, float]:
    """Numbers of a row of :func:`delay_table`."""
    decisions, changes, classes = [], [], np.array(heard.classes["activity"])
    for one in sessions(heard):
        decided, windows = classes[decide(one)], one.windows
        right = decided == windows["activity"].to_numpy()
        false = np.append(False, (decided[1:] != decided[:-1]) & ~right[1:])
        decisions.append(pd.DataFrame({SUBJECT: windows[SUBJECT], "wrong": ~right, "false": false}))
        since = windows["since"].to_numpy() * seconds / windows["n_samples"].to_numpy()
        # each record but the first begins with a change
        for rows in [*windows.groupby(RECORD, sort=False).indices.values()][1:]:
            padded = np.append(right[rows], np.zeros(NOTICED_S - 1, dtype=bool))
            runs = np.lib.stride_tricks.sliding_window_view(padded, NOTICED_S).all(axis=1)
            changes.append((windows[SUBJECT].iloc[0], since[rows][runs.argmax()] if runs.any() else math.inf))
    if not decisions:
        return intervals(dict.fromkeys(MONITORED)) | {"changes": 0}
    each, waits = pd.concat(decisions), pd.DataFrame(changes, columns=[SUBJECT, "delay"])
    wrong, false, delay = (values.to_numpy(float) for values in (each["wrong"], each["false"], waits["delay"]))
    resamples, missed = Resamples.draw(each[SUBJECT], 0), np.isinf(delay)
    of_second, of_change = (resamples.index_of(table[SUBJECT]) for table in (each, waits))

    def numbers(multiplicity: np.ndarray) -> tuple[float, ...]:
        drawn, changed = multiplicity[of_second], multiplicity[of_change]
        noticed = np.repeat(delay[~missed], changed[~missed].astype(int))
        halves = np.quantile(noticed, (0.5, 0.9)) if noticed.size else (math.nan, math.nan)
        shares = 1 - drawn @ wrong / drawn.sum(), *halves, ratio(changed @ missed, changed.sum()).item()
        return *shares, drawn @ false / (drawn.sum() * GRID_S / 60)

    reasons = [UNNOTICED] * len(MONITORED)
    found = dict(zip(MONITORED, bootstrap_each(numbers, resamples, len(resamples.persons), reasons), strict=True))
    found["accuracy"] = with_exact_bounds(found["accuracy"], wrong, of_second)
    found["missed"] = with_exact_bounds(found["missed"], missed, of_change)
    return intervals(found) | {"changes": len(delay)}


def calibrated_switching(validation: Predictions, records: pd.DataFrame, seconds: float) -> float:
    """Readiness to switch that decides most seconds rightly where nothing is tested; the middle one without any."""
    table = delay_table(as_stream(validation, records), seconds).head(len(SWITCHING))
    scores = table["accuracy"].fillna(-1)
    return SWITCHING[int(scores.argmax()) if scores.max() >= 0 else len(SWITCHING) // 2]


def decisions_by_time(predictions: Predictions, seconds: float) -> pd.DataFrame:
    """Whether each record is recognised when evidence adds up from its start, by seconds heard.

    Columns: seconds, task, subject_id, right; a record counts for as long as it lasts.
    """
    windows = predictions.windows
    rows = [pd.DataFrame({"seconds": [], "task": [], SUBJECT: [], "right": []})]
    for task in TASKS:
        if not math.isnan(predictions.accuracy(task)):
            evidence = pd.DataFrame(np.log(np.clip(predictions.shares(task), 1e-6, None)))
            likeliest = evidence.groupby(windows[RECORD]).cumsum().to_numpy().argmax(axis=1)
            right = np.array(predictions.classes[task])[likeliest] == windows[TASKS[task]].to_numpy()
            heard = seconds + GRID_S * windows.groupby(RECORD).cumcount()
            rows.append(pd.DataFrame({"seconds": heard, "task": task, SUBJECT: windows[SUBJECT], "right": right}))
    return pd.concat(rows)


def accuracy_by_time(predictions: Predictions, seconds: float) -> pd.DataFrame:
    """Share of records recognised by seconds heard (:func:`decisions_by_time`): task, seconds, accuracy, records."""
    decided = decisions_by_time(predictions, seconds).groupby(["task", "seconds"])["right"]
    table = decided.agg(accuracy="mean", records="size").reset_index()
    # a handful of longest records would make the end of the line
    return table[table["records"] >= 0.5 * table.groupby("task")["records"].transform("max")]


def milliseconds_per_window(model: SignalModel) -> float:
    """Median time in which one processor core reads one window, in milliseconds."""
    x = torch.randn(1, model.hparams.n_leads, model.hparams.n_samples, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        timed = Timer("model(x)", globals={"model": model, "x": x}, num_threads=1)
        return 1000 * timed.blocked_autorange(min_run_time=0.1).median


@dataclass(frozen=True)
class LongRecords:
    """Half-hour records: everybody's minutes 25 to 30, one whole record, and what was enrolled of that.

    `activity` is the share of its windows in which a network of another cohort predicts each activity.
    """

    late: Predictions
    whole: Predictions
    enrolled: pd.DataFrame
    activity: pd.Series


def read_long_records(context: Context, seed: int, model: SignalModel) -> LongRecords | str:
    """Enrol everybody of MIT-BIH from the first minutes, and read the records as streams.

    `context` and `model` (with an activity head) are those of the cohort with activities. Gives the sentence that says
    why where nothing can be read.
    """
    job = Job(MitdbCohort.name, TimeSeparated(), LONG_RECORDS, seed)
    try:
        if job.cohort not in cohorts_of(context.profile):
            raise StudyError(f"the {context.profile} profile has no MIT-BIH records here")
        opened = open_context(context.profile, job.cohort, context.dataset.fs, seed, context.device, "MLII")
        followed = replace(opened, attackers=context.attackers)
        late = by_network(run(predict, [job], followed, "long records"), [job])[job.protocol.name, job.attacker]
        if late.gap:
            raise StudyError(late.gap)
    except DiskError:
        raise
    except StudyError as impossible:
        return f"No half-hour record was followed: {str(impossible).removesuffix('.')}."
    reader, first = context.attackers[LONG_RECORDS], late.windows[RECORD].iloc[0]
    enrolled, whole = followed.splits(job)[0].enrolment, segments(followed.records(job.cohort))
    index = followed.dataset.grid(whole[whole[RECORD] == first], reader.seconds)
    samples = reader.read(followed.dataset, index)
    knows = followed.fitted(job).model
    index["person_shares"] = [*class_probabilities(knows, samples, "person", knows.classes["person"])]
    if reader.amplitude:
        # counts and millivolts differ by a constant on the logarithmic scale, and nobody knows which: shifted to the
        # middle of what the network knows
        samples[:, 1] -= np.median(samples[:, 1]) - 1.0
    activities = pd.Index(model.classes["activity"])
    likeliest = activities[class_probabilities(model, samples, "activity", activities).argmax(axis=1)]
    share = likeliest.value_counts(normalize=True).reindex(activities, fill_value=0)
    return LongRecords(late, replace(late, windows=index), enrolled[enrolled[RECORD] == first], share)
