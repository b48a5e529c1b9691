"""Training and testing the networks of the dual task: variants, budgets, and what a test set was answered."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import torch

from ecgstudy.dual_task.recordings import Reading, Recordings, merge_touching
from ecgstudy.errors import StudyError
from ecgstudy.evaluate.protocols import ActivityPairs
from ecgstudy.evaluate.splits import RECORD, SUBJECT, Protocol, Split
from ecgstudy.learn import train as training
from ecgstudy.learn.models import create_model
from ecgstudy.learn.scoring import class_probabilities
from ecgstudy.learn.train import TrainedRun, TrainingSettings, fit
from ecgstudy.study.parallel import in_parallel

Key = TypeVar("Key", bound=Hashable)

TASKS = ("person", "activity")
TRAIN_STRIDE_S = 1.0
"""Chosen on validation windows against every 2 s of longer windows that are cut at random places, for the same time:
where known stretches are short, long windows do not fit."""
PROBE_STRIDE_S = 1.0
BATCH_SIZE = 64
PAIR_EPOCHS = 2
"""Times as many epochs for a network that hears one activity only."""
NO_PROBE = "no usable window is left to test on"


@dataclass(frozen=True)
class Variant:
    """A network and how it is built.

    Attributes
    ----------
    name : str
        As in metric names.
    model : str
        A key of :data:`ecgstudy.learn.models.MODELS`.
    sizes : dict
        Arguments of the model's constructor.
    tasks : tuple of str
        Tasks it learns.
    """

    name: str
    model: str = "dt4ecg"
    sizes: dict[str, object] = field(default_factory=dict)
    tasks: tuple[str, ...] = TASKS


DT4ECG = Variant("dt4ecg")
RIVALS = (
    # as wide as DT4ECG and with as many passes over the data: the same budget
    Variant("resnet1d", "resnet1d", {"widths": [16, 32, 64]}),
    Variant("transecg", "transecg", {"n_layers": 2, "patch_seconds": 0.2}),
)
ABLATIONS = (
    Variant("no_attention", sizes={"channel_attention": False, "sequence_attention": False}),
    Variant("channel_only", sizes={"sequence_attention": False}),
    Variant("sequence_only", sizes={"channel_attention": False}),
    Variant("equal_weights", sizes={"balance": "equal"}),
    Variant("uncertainty_weights", sizes={"balance": "uncertainty"}),
    Variant("person_alone", tasks=("person",)),
    Variant("activity_alone", tasks=("activity",)),
)


@dataclass(frozen=True)
class Budget:
    """What a profile can afford, the same for all networks that are compared.

    Attributes
    ----------
    epochs : int
        Passes over the training windows.
    seeds : tuple of int
        Seeds of initial weights, order and augmentation; every seed is one network.
    readings : tuple of Reading
        Candidates to choose from, on validation windows.
    rivals, ablations : tuple of Variant
        What DT4ECG is compared with.
    folds : int
        Groups of persons that :class:`~ecgstudy.evaluate.protocols.LeaveSubjectOut` leaves out in turn.
    synthetic_persons, synthetic_seconds : int, float
        Size of the synthetic cohort and length of its records.
    """

    epochs: int
    seeds: tuple[int, ...]
    readings: tuple[Reading, ...]
    rivals: tuple[Variant, ...]
    ablations: tuple[Variant, ...]
    folds: int
    synthetic_persons: int = 50
    synthetic_seconds: float = 30.0


def budget_of(profile: str, seed: int) -> Budget:
    """Budget of a profile; its seeds are `seed` and those after it."""
    if profile == "real":
        readings = (Reading(5.0, False), Reading(5.0, True), Reading(8.0, False), Reading(8.0, True))
        return Budget(12, (seed, seed + 1, seed + 2), readings, RIVALS, ABLATIONS, folds=3)
    short = tuple(variant for variant in ABLATIONS if variant.name in ("no_attention", "equal_weights"))
    # three seconds: the validation part of a record of 20 s is no longer
    readings = (Reading(3.0, False), Reading(3.0, True))
    return Budget(3, (seed,), readings, RIVALS[:1], short, folds=2, synthetic_seconds=20.0)


@dataclass(frozen=True)
class Answers:
    """What networks answered to one test set; rows of all seeds and folds one below the other.

    Attributes
    ----------
    windows : pandas.DataFrame
        seed, subject_id, record_id, activity, start (samples), degree, `person_said` and `activity_said`
        (None where the network has no such task, or cannot know the person).
    runs : list of TrainedRun
        The networks, by seed and fold.
    skipped : str or None
        Why there is nothing to test.
    folds : list of int
        Which split of the protocol each of `runs` learnt from, from 0.
    left_out : str
        Which of several splits have no answers, and why; "" where all have some.
    """

    windows: pd.DataFrame
    runs: list[TrainedRun]
    skipped: str | None = None
    folds: list[int] = field(default_factory=list)
    left_out: str = ""


def known_segments(split: Split) -> pd.DataFrame:
    """Everything that networks may learn from once nothing is left to choose: train and validation."""
    known = split.enrolment if len(split.enrolment) else pd.concat([split.train, split.validation])
    return merge_touching(known)


def train(
    recordings: Recordings,
    segments: pd.DataFrame,
    variant: Variant,
    reading: Reading,
    seed: int,
    epochs: int,
    runs: Path,
    device: str,
    stride: float = TRAIN_STRIDE_S,
) -> TrainedRun:
    """Train one network on the windows of segments for a fixed number of epochs, or load the run that did so.

    A task that the segments show only one class of cannot be learnt and is left out. Training windows
    start every `stride` seconds.

    Raises
    ------
    StudyError
        No window is usable, or no task can be learnt.
    """
    index = recordings.windows(segments, reading.seconds, stride)
    if index.empty:
        raise StudyError(f"no usable window of {reading.seconds:g} s is left to learn from")
    windows = recordings.window_set(index, reading)
    classes = {"person": recordings.persons, "activity": recordings.activities}
    tasks = {task: classes[task] for task in variant.tasks if len(np.unique(windows.targets[task])) > 1}
    if not tasks:
        raise StudyError(f"{variant.name} has nothing to learn: all windows are of one person and one activity")
    names = recordings.lead_names(reading)
    model = create_model(
        variant.model,
        seed,
        n_leads=len(names),
        n_samples=round(reading.seconds * recordings.fs),
        fs=recordings.fs,
        classes=tasks,
        lead_names=names,
        # a plain softmax head, as the paper's; verification margins are for people never seen
        **{"margin": None, **variant.sizes},
    )
    return fit(model, windows, None, TrainingSettings(epochs=epochs, batch_size=BATCH_SIZE, seed=seed), runs, device)


def answer(
    recordings: Recordings, run: TrainedRun, index: pd.DataFrame, reading: Reading, names_persons: bool = True
) -> pd.DataFrame:
    """Ask a network who is heard in each window and what they do; rows of :attr:`Answers.windows` without seed."""
    windows = recordings.window_set(index, reading)
    said = index[["subject_id", RECORD, "activity", "start"]].assign(degree=recordings.worst_degree(index))
    for task, classes in (("person", recordings.persons), ("activity", recordings.activities)):
        knows = task in run.model.heads and (task == "activity" or names_persons)
        best = class_probabilities(run.model, windows.samples, task, classes).argmax(axis=1) if knows else None
        said[f"{task}_said"] = np.array(classes, dtype=object)[best] if knows else None
    return said


def run_protocol(
    recordings: Recordings,
    protocol: Protocol,
    variant: Variant,
    reading: Reading,
    budget: Budget,
    runs: Path,
    device: str,
) -> Answers:
    """Train and test one variant under one protocol, all folds, all seeds; see :func:`run_protocols`."""
    return run_protocols(recordings, {"": (protocol, variant)}, reading, budget, runs, device)[""]


def run_protocols(
    recordings: Recordings,
    asked: Mapping[Key, tuple[Protocol, Variant]],
    reading: Reading,
    budget: Budget,
    runs: Path,
    device: str,
) -> dict[Key, Answers]:
    """Train and test variants under protocols, all folds, all seeds.

    What a protocol cannot do with the cohort at hand (no electrodes, one activity, too few persons) is
    returned as :attr:`Answers.skipped`, not raised: the other protocols go on.
    """
    splits, impossible = {}, {}
    for key, (protocol, variant) in asked.items():
        try:
            splits[key] = (protocol.splits(recordings.records, recordings.fs, budget.seeds[0]), variant)
        except (StudyError, KeyError) as error:
            impossible[key] = Answers(pd.DataFrame(), [], _because(error))
    answered = run_splits(recordings, splits, reading, budget, runs, device)
    return {key: impossible[key] if key in impossible else answered[key] for key in asked}


def run_splits(
    recordings: Recordings,
    asked: Mapping[Key, tuple[Sequence[Split], Variant]],
    reading: Reading,
    budget: Budget,
    runs: Path,
    device: str,
) -> dict[Key, Answers]:
    """Train and test variants on splits, on all processor cores; every split's test windows count once a seed."""
    places = [
        (key, fold, seed) for key, (splits, _) in asked.items() for fold in range(len(splits)) for seed in budget.seeds
    ]
    items = [
        (recordings, asked[key][0][fold], asked[key][1], reading, seed, budget.epochs, runs, device)
        for key, fold, seed in places
    ]
    found: dict[Key, list[tuple[int, pd.DataFrame, TrainedRun]]] = {key: [] for key in asked}
    reasons: dict[Key, dict[int, str]] = {key: {} for key in asked}
    for (key, fold, _), result in zip(places, in_parallel(_learn_and_answer, items, device, "networks"), strict=True):
        if isinstance(result, str):
            reasons[key][fold] = result
        else:
            found[key].append((fold, *result))
    return {key: _gathered(found[key], reasons[key], len(splits)) for key, (splits, _) in asked.items()}


def _learn_and_answer(
    recordings: Recordings,
    split: Split,
    variant: Variant,
    reading: Reading,
    seed: int,
    epochs: int,
    runs: Path,
    device: str,
) -> tuple[pd.DataFrame, TrainedRun] | str:
    """Answers of one network and the network, or why there are none."""
    torch.set_num_threads(training.THREADS)  # the same digits whichever process runs it
    probe = recordings.windows(split.probe, reading.seconds, PROBE_STRIDE_S)
    if probe.empty:
        return NO_PROBE
    try:
        run = train(recordings, known_segments(split), variant, reading, seed, epochs, runs, device)
    except StudyError as impossible:
        return _because(impossible)
    return answer(recordings, run, probe, reading, names_persons=not split.unseen_persons).assign(seed=seed), run


def _gathered(found: list[tuple[int, pd.DataFrame, TrainedRun]], reasons: dict[int, str], n_folds: int) -> Answers:
    """Answers of all folds and seeds; `reasons` says by fold why there are none."""
    if not found:
        return Answers(pd.DataFrame(), [], "; ".join(dict.fromkeys(reasons.values())) or NO_PROBE)
    said = [f"fold {fold + 1} of {n_folds} left out: {reason}" for fold, reason in reasons.items()]
    folds, parts, networks = (list(column) for column in zip(*found, strict=True))
    return Answers(pd.concat(parts, ignore_index=True), networks, None, folds, "; ".join(said))


def run_pairs(recordings: Recordings, reading: Reading, budget: Budget, runs: Path, device: str) -> dict[str, Answers]:
    """DT4ECG known from one activity at a time, heard in all: answers by the known activity.

    One activity gives a fraction of the windows, so that the same epochs would be too few steps. One seed: the
    matrix is looked at, and no claim rests on a cell of it.
    """
    splits = ActivityPairs().splits(recordings.records, recordings.fs, budget.seeds[0])
    asked = {activity: ([split], DT4ECG) for activity, split in zip(recordings.activities, splits, strict=True)}
    longer = replace(budget, epochs=PAIR_EPOCHS * budget.epochs, seeds=budget.seeds[:1])
    return run_splits(recordings, asked, reading, longer, runs, device)


def _because(error: Exception) -> str:
    """One clause that says what a protocol lacks."""
    return f"the cohort states no {error.args[0]}" if isinstance(error, KeyError) else str(error).removesuffix(".")


def choose_reading(
    recordings: Recordings, protocol: Protocol, budget: Budget, runs: Path, device: str
) -> tuple[Reading, pd.DataFrame]:
    """Choose window length and channels on the validation part of the known recordings.

    Parameters
    ----------
    recordings : Recordings
        The cohort.
    protocol : Protocol
        Its validation parts decide; its probes are not touched.
    budget : Budget
        The candidates; the first seed trains them.
    runs, device
        As in :func:`train`.

    Returns
    -------
    chosen : Reading
        The candidate with the highest mean of both accuracies; the first where none can be scored.
    table : pandas.DataFrame
        One row a candidate: seconds, amplitude, windows, person_accuracy, activity_accuracy, mean; where one
        cannot be scored also `note`, which says why.
    """
    split = protocol.splits(recordings.records, recordings.fs, budget.seeds[0])[0]
    items = [(recordings, split, reading, budget.seeds[0], budget.epochs, runs, device) for reading in budget.readings]
    table = pd.DataFrame(list(in_parallel(_score_reading, items, device, "choosing the window")))
    means = table["mean"].to_numpy()
    if not table["note"].any():
        table = table.drop(columns="note")
    return budget.readings[int(np.nanargmax(means)) if np.isfinite(means).any() else 0], table


def _score_reading(
    recordings: Recordings, split: Split, reading: Reading, seed: int, epochs: int, runs: Path, device: str
) -> dict[str, object]:
    """One row of the table of :func:`choose_reading`."""
    torch.set_num_threads(training.THREADS)
    shown = {"seconds": f"{reading.seconds:g}", "amplitude": "told" if reading.amplitude else "not told"}
    index = recordings.windows(split.validation, reading.seconds, PROBE_STRIDE_S)
    scores = dict.fromkeys((f"{task}_accuracy" for task in TASKS), math.nan)
    note = "" if len(index) else f"no usable window of {reading.seconds:g} s is left to choose on"
    if not note:
        try:
            run = train(recordings, split.train, DT4ECG, reading, seed, epochs, runs, device)
            scores = hit_rates(answer(recordings, run, index, reading))
        except StudyError as impossible:
            note = _because(impossible)
    known = [score for score in scores.values() if math.isfinite(score)]
    mean = sum(known) / len(known) if known else math.nan
    return {**shown, "windows": len(index), **scores, "mean": mean, "note": note}


def hit_rates(said: pd.DataFrame) -> dict[str, float]:
    """Share of windows whose person, and whose activity, is named rightly; NaN for a task that is not answered."""
    truth = {"person": said[SUBJECT], "activity": said["activity"]}
    return {
        f"{task}_accuracy": float((said[f"{task}_said"] == truth[task]).mean())
        if said[f"{task}_said"].notna().all()
        else math.nan
        for task in TASKS
    }
