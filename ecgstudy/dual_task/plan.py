"""The jobs of stage 03, and what each predicts: the person and the activity of every probe window."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from ecgstudy.data.base import Cohort
from ecgstudy.data.simulator.render import ACTIVITIES
from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.errors import StudyError
from ecgstudy.evaluate.protocols import (
    ActivityPairs,
    BlockedTime,
    CrossActivity,
    CrossElectrode,
    LeaveSubjectOut,
    RandomWindows,
    activities_of,
)
from ecgstudy.evaluate.splits import RECORD, SUBJECT, Protocol, Split
from ecgstudy.experiment.dataset import GRID_S, Dataset
from ecgstudy.experiment.jobs import Context, Job, Outcome, run
from ecgstudy.ingestion.stores import study_cohort
from ecgstudy.learn.base import SignalModel
from ecgstudy.learn.batches import WindowSet, encode, standardise
from ecgstudy.learn.models import create_model
from ecgstudy.learn.scoring import class_probabilities
from ecgstudy.learn.train import TrainedRun, TrainingSettings, fit
from ecgstudy.signals.ingest import build_store
from ecgstudy.study.config import cache_dir

TASKS = {"person": SUBJECT, "activity": "activity"}
"""What networks predict, and the column that holds the truth."""
SYNTHETIC_PERSONS = 50
PAIR_EPOCHS = 2
"""Times as many epochs for a network that hears one activity only: a fraction of the windows, so of the steps."""
BATCH_SIZE = 64
NO_PROBE = "no usable window is left to test on"
_AMPLITUDE_CENTRE = 1.5  # brings log10 of a lead's spread in 12-bit counts near 0


@dataclass(frozen=True)
class WindowConfig:
    """What a network reads at a time: a window's length, and whether its amplitude is told as a second channel."""

    seconds: float
    amplitude: bool

    def read(self, dataset: Dataset, index: pd.DataFrame) -> np.ndarray:
        """Give samples of windows, standardised, float32 of shape (n, 1 or 2, n_samples)."""
        values = dataset.gather(index)[:, None]
        samples = standardise(values)
        if not self.amplitude:
            return samples
        spread = np.log10(values.std(axis=-1, keepdims=True) + 1e-3) - _AMPLITUDE_CENTRE
        return np.concatenate([samples, np.broadcast_to(spread, values.shape)], axis=1, dtype=np.float32)


@dataclass(frozen=True)
class Attacker:
    """A network of this stage: how it is built, what it reads and learns, and for how long.

    Attributes
    ----------
    model : str
        A key of :data:`ecgstudy.learn.MODELS`.
    sizes : dict
        Arguments of the model's constructor.
    tasks : tuple of str
        Tasks that it learns, of :data:`TASKS`.
    window : WindowConfig
        What it reads.
    epochs : int
        Passes over the training windows; the last weights are kept.
    stride : float
        Seconds from one training window to the next. Every second was chosen on validation windows against every
        two of longer windows that are cut at random places: where known stretches are short, long ones do not fit.
    """

    model: str = "dt4ecg"
    sizes: dict[str, object] = field(default_factory=dict, hash=False)
    tasks: tuple[str, ...] = tuple(TASKS)
    window: WindowConfig = WindowConfig(5.0, False)
    epochs: int = 12
    stride: float = GRID_S

    def network(self, context: Context, seed: int, heads: Mapping[str, Sequence[str]]) -> SignalModel:
        """Build the network with its initial weights."""
        names, fs = [context.lead, "amplitude"][: 1 + self.window.amplitude], context.dataset.fs
        shape = {"n_leads": len(names), "n_samples": round(self.window.seconds * fs), "fs": fs, "lead_names": names}
        # a plain softmax head, as the paper's; verification margins are for people never seen
        return create_model(self.model, seed, classes=heads, **shape, **{"margin": None, **self.sizes})

    def fit(self, context: Context, job: Job, split: Split) -> TrainedRun:
        """Train on everything that a split knows (nothing is left to choose), or load the run that did so.

        A task that the windows show only one class of cannot be learnt and is left out.

        Raises
        ------
        StudyError
            No window is usable, or no task can be learnt.
        """
        known = split.enrolment if len(split.enrolment) else pd.concat([split.train, split.validation])
        index = context.dataset.grid(merge_touching(known), self.window.seconds, self.stride)
        if index.empty:
            raise StudyError(f"no usable window of {self.window.seconds:g} s is left to learn from")
        windows, names = window_set(context, job.cohort, index, self.window), classes(context, job.cohort)
        heads = {task: names[task] for task in self.tasks if len(np.unique(windows.targets[task])) > 1}
        if not heads:
            raise StudyError(f"{job.attacker} has nothing to learn: all windows are of one person and one activity")
        model = self.network(context, job.seed, heads)
        settings = TrainingSettings(epochs=self.epochs, batch_size=BATCH_SIZE, seed=job.seed)
        return fit(model, windows, None, settings, context.runs, context.device)


DT4ECG, ONE_ACTIVITY, LONG_RECORDS = "dt4ecg", "dt4ecg_one_activity", "long_records"
BASELINES = {
    # as wide as DT4ECG and with as many passes over the data: the same budget
    "resnet1d": Attacker("resnet1d", {"widths": [16, 32, 64]}),
    "transecg": Attacker("transecg", {"n_layers": 2, "patch_seconds": 0.2}),
}
ABLATIONS = {
    "no_attention": Attacker(sizes={"channel_attention": False, "sequence_attention": False}),
    "channel_only": Attacker(sizes={"sequence_attention": False}),
    "sequence_only": Attacker(sizes={"channel_attention": False}),
    "equal_weights": Attacker(sizes={"balance": "equal"}),
    "uncertainty_weights": Attacker(sizes={"balance": "uncertainty"}),
    "person_alone": Attacker(tasks=("person",)),
    "activity_alone": Attacker(tasks=("activity",)),
}


@dataclass(frozen=True)
class Choice(Protocol):
    """Windows are chosen where nothing is tested: on the validation part of :class:`BlockedTime`."""

    name = "choice"
    claim = "person and activity are recognised a little later in the same recordings"

    def splits(self, records: pd.DataFrame, fs: float, seed: int) -> list[Split]:
        """One split, which learns from the training part and is asked about the validation part."""
        split = BlockedTime().splits(records, fs, seed)[0]
        return [Split(self.name, split.train, split.validation[:0], split.train, split.validation, within_record=True)]


@dataclass(frozen=True)
class Budget:
    """What a profile can afford, the same for all networks that are compared.

    Attributes
    ----------
    epochs : int
        Passes over the training windows.
    seeds : tuple of int
        Seeds of initial weights, order and augmentation; every seed is one network.
    windows : tuple of WindowConfig
        Candidates to choose from.
    compared : dict of str to Attacker
        Baselines and ablations beside DT4ECG.
    folds : int
        Groups of persons that :class:`~ecgstudy.evaluate.protocols.LeaveSubjectOut` leaves out in turn.
    synthetic_seconds : float
        Length of the records of the synthetic cohort.
    """

    epochs: int
    seeds: tuple[int, ...]
    windows: tuple[WindowConfig, ...]
    compared: dict[str, Attacker]
    folds: int
    synthetic_seconds: float = 30.0

    def attackers(self, window: WindowConfig) -> dict[str, Attacker]:
        """Every attacker that reads this window, by its name in metrics."""
        ours = Attacker(window=window, epochs=self.epochs)
        return {
            DT4ECG: ours,
            **{name: replace(other, window=window, epochs=self.epochs) for name, other in self.compared.items()},
            ONE_ACTIVITY: replace(ours, epochs=PAIR_EPOCHS * self.epochs),
            # ten enrolled minutes a person need no window every second
            LONG_RECORDS: replace(ours, tasks=("person",), epochs=6, stride=5.0),
        }


def budget_of(profile: str, seed: int) -> Budget:
    """Budget of a profile; its seeds are `seed` and those after it."""
    lengths, told = ((5.0, 8.0) if profile == "real" else (3.0,)), (False, True)
    # three seconds in the demo: the validation part of a record of 20 s is no longer
    windows = tuple(WindowConfig(seconds, amplitude) for seconds in lengths for amplitude in told)
    if profile == "real":
        return Budget(12, (seed, seed + 1, seed + 2), windows, {**BASELINES, **ABLATIONS}, folds=3)
    short = {name: (BASELINES | ABLATIONS)[name] for name in ("resnet1d", "no_attention", "equal_weights")}
    return Budget(3, (seed,), windows, short, folds=2, synthetic_seconds=20.0)


def activity_cohort(name: str, seed: int, budget: Budget) -> Cohort:
    """Open a cohort recorded during activities; the synthetic one has 50 persons with one record an activity."""
    if name != SyntheticCohort.name:
        return study_cohort(name, seed)
    size = {"n_subjects": SYNTHETIC_PERSONS, "n_sessions": 1, "n_records": 1, "seconds": budget.synthetic_seconds}
    return SyntheticCohort(**size, seed=seed, activities=list(ACTIVITIES))


def open_context(profile: str, cohort: Cohort, fs: float, seed: int, device: str, lead: str | None = None) -> Context:
    """Ingest a cohort and choose its lead: the most frequent reference lead unless told."""
    store = build_store(cohort, cache_dir(profile), fs, delineate=not cohort.synthetic)
    lead = lead or store.records["reference_lead"].mode().iloc[0]
    return Context(profile, {cohort.name: store}, device, {}, lead, seed)


def protocols_of(window: WindowConfig, budget: Budget) -> list[Protocol]:
    """Protocols of the stage, easiest first."""
    last = LeaveSubjectOut(budget.folds)
    return [RandomWindows(window.seconds), BlockedTime(), CrossElectrode(), CrossActivity(), last]


def plan(cohort: str, window: WindowConfig, budget: Budget) -> list[Job]:
    """Jobs on the cohort with activities: DT4ECG under all protocols, the others later in the same recordings."""
    jobs = [
        Job(cohort, protocol, attacker, seed)
        for protocol in protocols_of(window, budget)
        for attacker in (DT4ECG, *(budget.compared if isinstance(protocol, BlockedTime) else ()))
        for seed in budget.seeds
    ]
    # one seed: the matrix of activities is looked at, and no claim rests on a cell of it
    return [*jobs, Job(cohort, ActivityPairs(), ONE_ACTIVITY, budget.seeds[0])]


@dataclass(frozen=True)
class Predictions:
    """What networks predict of their probes, folds (and seeds) one below the other.

    Attributes
    ----------
    windows : pandas.DataFrame
        One row a window: fold, subject_id, record_id, start and n_samples (samples), activity, and the names
        person_predicted and activity_predicted: None where the network has no such task, or cannot know the person.
    probabilities : dict of str to numpy.ndarray
        By task, of each class in each window, shape (n, n_classes); NaN where nothing is predicted.
    classes : dict of str to list
        Names of the classes of each task.
    histories : list of pandas.DataFrame
        Training of each network.
    gap : str
        Why some folds, or all, have no predictions; "" where all have.
    """

    windows: pd.DataFrame
    probabilities: dict[str, np.ndarray] = field(default_factory=dict)
    classes: dict[str, list[str]] = field(default_factory=dict)
    histories: list[pd.DataFrame] = field(default_factory=list)
    gap: str = ""

    def subset(self, rows: np.ndarray) -> "Predictions":
        """Take some of the windows, by mask or position."""
        probabilities = {task: values[rows] for task, values in self.probabilities.items()}
        windows = self.windows[rows] if rows.dtype == bool else self.windows.iloc[rows]
        return replace(self, windows=windows.reset_index(drop=True), probabilities=probabilities)

    def accuracy(self, task: str) -> float:
        """Share of windows whose class is predicted; NaN for a task without a prediction for every window."""
        predicted = self.windows.get(f"{task}_predicted", pd.Series([None]))
        return float((predicted == self.windows[TASKS[task]]).mean()) if predicted.notna().all() else math.nan

    def correct(self, task: str, probabilities: np.ndarray) -> np.ndarray:
        """Whether the likeliest class of each window is the true one."""
        return np.array(self.classes[task])[probabilities.argmax(axis=1)] == self.windows[TASKS[task]].to_numpy()


def predict(context: Context, job: Job) -> Predictions:
    """Train the job's attacker on every split and predict its probes; splits that cannot be asked are left out.

    Raises
    ------
    StudyError
        No split can be asked.
    """
    known, splits = classes(context, job.cohort), context.splits(job)
    parts, gaps = [], {}
    for fold, split in enumerate(splits):
        try:
            parts.append(_fold(context, job, fold, split, known))
        except StudyError as impossible:
            gaps[fold] = str(impossible).removesuffix(".")
    if not parts:
        raise StudyError("; ".join(dict.fromkeys(gaps.values())) or NO_PROBE)
    left_out = [f"fold {fold + 1} of {len(splits)} left out: {reason}" for fold, reason in gaps.items()]
    return replace(joined(parts), gap="; ".join(left_out))


def _fold(context: Context, job: Job, fold: int, split: Split, known: dict[str, list[str]]) -> Predictions:
    """Predictions of one split; the probes are listed first, so that nobody trains in vain."""
    window = context.attackers[job.attacker].window
    index = context.dataset.grid(split.probe, window.seconds)
    if index.empty:
        raise StudyError(NO_PROBE)
    run = context.fitted(job, fold)
    samples = window.read(context.dataset, index)
    windows = index.assign(activity=index[RECORD].map(activities(context, job.cohort)), fold=fold)
    probabilities = {}
    for task, names in known.items():
        knows = task in run.model.heads and not (task == "person" and split.unseen_persons)
        shares = (
            class_probabilities(run.model, samples, task, names) if knows else np.full((len(index), len(names)), np.nan)
        )
        windows[f"{task}_predicted"] = np.array(names, dtype=object)[shares.argmax(axis=1)] if knows else None
        probabilities[task] = shares
    return Predictions(windows, probabilities, known, [run.history])


def joined(parts: Sequence[Predictions]) -> Predictions:
    """Predictions of the same cohort, one below the other."""
    probabilities = {task: np.concatenate([part.probabilities[task] for part in parts]) for task in TASKS}
    histories = [history for part in parts for history in part.histories]
    windows = pd.concat([part.windows for part in parts], ignore_index=True)
    return Predictions(windows, probabilities, parts[0].classes, histories, parts[0].gap)


def choose_window(context: Context, cohort: str, budget: Budget) -> tuple[WindowConfig, pd.DataFrame]:
    """Window with the highest mean of both accuracies (the first where none can be scored), and all candidates.

    Columns: seconds, amplitude, windows, person_accuracy, activity_accuracy, mean; where one cannot be scored: note.
    """
    attackers = {
        f"window_{at}": Attacker(window=window, epochs=budget.epochs) for at, window in enumerate(budget.windows)
    }
    jobs = [Job(cohort, Choice(), name, budget.seeds[0]) for name in attackers]
    found = by_network(run(predict, jobs, replace(context, attackers=attackers), "windows"), jobs)
    rows = []
    for window, predictions in zip(budget.windows, found.values(), strict=True):
        scores = {f"{task}_accuracy": predictions.accuracy(task) for task in TASKS}
        known = [score for score in scores.values() if math.isfinite(score)]
        about = {"seconds": f"{window.seconds:g}", "amplitude": "told" if window.amplitude else "not told"}
        about["windows"] = len(predictions.windows)
        mean = sum(known) / len(known) if known else math.nan
        note = f"no usable window of {window.seconds:g} s is left to choose on"
        rows.append({**about, **scores, "mean": mean, "note": note if predictions.gap == NO_PROBE else predictions.gap})
    table = pd.DataFrame(rows)
    best = int(np.nanargmax(table["mean"])) if table["mean"].notna().any() else 0
    return budget.windows[best], table if table["note"].any() else table.drop(columns="note")


def by_network(outcome: Outcome, jobs: Sequence[Job]) -> dict[tuple[str, str], Predictions]:
    """Predictions by protocol and attacker, all seeds (a column `seed`); where there are none: the gap.

    Raises
    ------
    StudyError
        DT4ECG cannot learn both tasks of the first part of the records: the stage has nothing to tell of this cohort.
    """
    seeds: dict[tuple[str, str], list[Job]] = {}
    for job in jobs:
        seeds.setdefault((job.protocol.name, job.attacker), []).append(job)
    reasons = outcome.refusals.set_index(["protocol", "attacker"])["reason"].to_dict()
    found = {}
    for key, mine in seeds.items():
        made = [(job.seed, outcome.values[job.name]) for job in mine if job.name in outcome.values]
        parts = [replace(part, windows=part.windows.assign(seed=seed)) for seed, part in made]
        found[key] = joined(parts) if parts else Predictions(pd.DataFrame(), gap=reasons[key].removesuffix("."))
    main, cohort = found.get((BlockedTime.name, DT4ECG)), jobs[0].cohort
    if main and main.windows.empty:
        raise StudyError(f"Nothing can be learnt from the first part of the records of {cohort}: {main.gap}.")
    if main and any(math.isnan(main.accuracy(task)) for task in TASKS):
        raise StudyError(f"{cohort} has usable records of one person or of one activity only; bring two of each.")
    return found


def activities(context: Context, cohort: str) -> pd.Series:
    """Activity of each record, by its name."""
    records = context.records(cohort).set_index(RECORD)
    return records.get("activity", pd.Series("unknown", records.index)).rename("activity")


def classes(context: Context, cohort: str) -> dict[str, list[str]]:
    """Names of the classes of both tasks, in the order of their numbers."""
    persons = sorted(context.records(cohort)[SUBJECT].unique())
    return {"person": persons, "activity": activities_of(activities(context, cohort).to_frame())}


def window_set(context: Context, cohort: str, index: pd.DataFrame, window: WindowConfig) -> WindowSet:
    """Read windows, with their persons and activities as numbers of :func:`classes`."""
    labels = index.assign(activity=index[RECORD].map(activities(context, cohort)))
    targets = {task: encode(labels[TASKS[task]], names) for task, names in classes(context, cohort).items()}
    subjects, records = (index[column].to_numpy(dtype=str) for column in (SUBJECT, RECORD))
    return WindowSet(window.read(context.dataset, index), targets, subjects, records)


def merge_touching(segments: pd.DataFrame) -> pd.DataFrame:
    """Join segments of a record that follow each other without a gap, so that windows may lie across their borders."""
    ordered = segments.sort_values([RECORD, "start"])
    touching = (ordered[RECORD] == ordered[RECORD].shift()) & (ordered["start"] == ordered["stop"].shift())
    columns = {column: "last" if column == "stop" else "first" for column in segments}
    return ordered.groupby((~touching).cumsum().to_numpy()).agg(columns).reset_index(drop=True)
