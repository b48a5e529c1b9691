"""The jobs of stage 03, and what each predicts: the person and the activity of every probe window."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import groupby

import numpy as np
import pandas as pd

from ecgstudy.data.base import Cohort
from ecgstudy.data.cohorts import cohorts_of
from ecgstudy.data.public import MotionCohort
from ecgstudy.data.simulator.people import ACTIVITIES
from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.dual_task.predictions import TASKS, Predictions, joined, nothing
from ecgstudy.dual_task.sessions import session_order, spliced
from ecgstudy.errors import DiskError, NotApplicableError, StudyError
from ecgstudy.evaluate import protocols
from ecgstudy.evaluate.splits import RECORD, SUBJECT, Protocol, Split
from ecgstudy.experiment.dataset import GRID_S, Dataset
from ecgstudy.experiment.jobs import Context, Job, Outcome, Work, run
from ecgstudy.ingestion.stores import STORE_FS, study_cohort, without_copies
from ecgstudy.learn.base import SignalModel, class_probabilities
from ecgstudy.learn.batches import WindowSet, encode, standardise
from ecgstudy.learn.models import create_model
from ecgstudy.learn.train import TrainedRun, TrainingSettings, fit
from ecgstudy.signals.ingest import build_store
from ecgstudy.study.config import cache_dir, effort, is_own

NO_PROBE = "no usable window is left to test on"


@dataclass(frozen=True)
class Attacker:
    """A network of this stage: a key of ``MODELS`` and its sizes, what it reads at a time and learns, and for how long.

    With `amplitude` it is told how large the signal is, as a second channel. A training window starts every `stride`
    seconds; what it says of a window is the mean over `rolls` turns of it around its end. Every second was chosen on
    validation windows against every two of longer windows that are cut at random places: where known stretches are
    short, long ones do not fit.
    """

    model: str = "dt4ecg"
    sizes: dict[str, object] = field(default_factory=dict, hash=False)
    tasks: tuple[str, ...] = tuple(TASKS)
    seconds: float = 5.0
    amplitude: bool = False
    epochs: int = 12
    stride: float = GRID_S
    rolls: int = 1

    def read(self, dataset: Dataset, index: pd.DataFrame) -> np.ndarray:
        """Give samples of windows as the network reads them, float32 of shape (n, 1 or 2, n_samples)."""
        return self.prepared(dataset.gather(index))

    def prepared(self, windows: np.ndarray) -> np.ndarray:
        """Standardise windows (n, n_samples) and tell their amplitude where it is told."""
        values = windows[:, None]
        samples = standardise(values)
        if not self.amplitude:
            return samples
        # 1.5 brings a lead in 12-bit counts near 0
        spread = np.log10(values.std(axis=-1, keepdims=True) + 1e-3) - 1.5
        return np.concatenate([samples, np.broadcast_to(spread, values.shape)], axis=1, dtype=np.float32)

    def shares(self, model: SignalModel, samples: np.ndarray, task: str, names: Sequence[str]) -> np.ndarray:
        """Probability of each class of a task for windows as :meth:`prepared`, shape (n, n_classes)."""
        turns = np.linspace(0, samples.shape[-1], self.rolls, endpoint=False).astype(int)
        turned = [class_probabilities(model, np.roll(samples, turn, axis=-1), task, names) for turn in turns]
        return np.mean(turned, axis=0)

    def network(self, context: Context, seed: int, heads: Mapping[str, Sequence[str]]) -> SignalModel:
        """Build the network with its initial weights."""
        names, fs = [context.lead, "amplitude"][: 1 + self.amplitude], context.dataset.fs
        shape = {"n_leads": len(names), "n_samples": round(self.seconds * fs), "fs": fs, "lead_names": names}
        # a plain softmax head, as the paper's; verification margins are for people never seen
        return create_model(self.model, seed, classes=heads, **shape, **{"margin": None, **self.sizes})

    def fit(self, context: Context, job: Job, split: Split) -> TrainedRun:
        """Train on everything that a split knows (nothing is left to choose), or load the run that did so.

        A task that the windows show only one class of cannot be learnt and is left out.
        """
        known = split.enrolment if len(split.enrolment) else pd.concat([split.train, split.validation])
        index = context.dataset.grid(merge_touching(known), self.seconds, self.stride)
        if index.empty:
            raise StudyError(f"no usable window of {self.seconds:g} s is left to learn from")
        windows, names = self.window_set(context, job.cohort, index), classes(context, job.cohort)
        heads = {task: names[task] for task in self.tasks if len(np.unique(windows.targets[task])) > 1}
        if not heads:
            raise StudyError(f"{job.attacker} has nothing to learn: all windows are of one person and one activity")
        settings = TrainingSettings(epochs=self.epochs, batch_size=64, seed=job.seed)
        return fit(self.network(context, job.seed, heads), windows, None, settings, context.runs, context.device)

    def window_set(self, context: Context, cohort: str, index: pd.DataFrame) -> WindowSet:
        """Read windows, with their persons and activities as numbers of :func:`classes`."""
        rows, known = labelled(context, cohort, index), classes(context, cohort)
        targets = {task: encode(rows[column], known[task]) for task, column in TASKS.items()}
        names = (rows[column].to_numpy(dtype=str) for column in (SUBJECT, RECORD))
        return WindowSet(self.read(context.dataset, index), targets, *names)


DT4ECG, ONE_ACTIVITY, LONG_RECORDS = "dt4ecg", "dt4ecg_one_activity", "long_records"
ROLLED, ENSEMBLE, ROLLED_ENSEMBLE = "dt4ecg_rolled", "dt4ecg_ensemble", "dt4ecg_rolled_ensemble"
"""The same networks when each window is turned several times, when those of all seeds are asked together, and both."""
ROLLS = 4
BASELINES: dict[str, dict[str, object]] = {
    # as wide as DT4ECG and with as many passes over the data: the same budget
    "resnet1d": {"model": "resnet1d", "sizes": {"widths": [16, 32, 64]}},
    "transecg": {"model": "transecg", "sizes": {"n_layers": 2, "patch_seconds": 0.2}},
}
ABLATIONS: dict[str, dict[str, object]] = {
    "no_attention": {"sizes": {"channel_attention": False, "sequence_attention": False}},
    "channel_only": {"sizes": {"sequence_attention": False}},
    "sequence_only": {"sizes": {"channel_attention": False}},
    "equal_weights": {"sizes": {"balance": "equal"}},
    "uncertainty_weights": {"sizes": {"balance": "uncertainty"}},
    "person_alone": {"tasks": ("person",)},
    "activity_alone": {"tasks": ("activity",)},
}
"""What is other than in DT4ECG."""
DEMO_COMPARED = ("resnet1d", "no_attention", "equal_weights")


@dataclass(frozen=True)
class Choice(Protocol):
    """Windows are chosen where nothing is tested: on the validation part of :class:`BlockedTime`."""

    name = "choice"
    claim = "person and activity are recognised a little later in the same recordings"

    def splits(self, records: pd.DataFrame, fs: float, seed: int) -> list[Split]:
        """One split, which learns from the training part and is asked about the validation part."""
        split = protocols.BlockedTime().splits(records, fs, seed)[0]
        return [Split(self.name, split.train, split.validation[:0], split.train, split.validation, within_record=True)]


@dataclass(frozen=True)
class Budget:
    """What a profile can afford: the same passes and seeds for all networks that are compared.

    `candidates` are DT4ECG reading one or another window, `compared` what is changed in the baselines and ablations
    beside it, `folds` the groups of persons that are left out in turn.
    """

    candidates: tuple[Attacker, ...]
    seeds: tuple[int, ...]
    compared: dict[str, dict[str, object]]
    folds: int

    def attackers(self, ours: Attacker) -> dict[str, Attacker]:
        """Every attacker that reads as the chosen candidate does, by its name in metrics."""
        changes = {DT4ECG: {}, ROLLED: {"rolls": ROLLS}, **self.compared}
        # one activity gives a fraction of the windows, so of the steps
        changes[ONE_ACTIVITY] = {"epochs": 2 * ours.epochs}
        # ten enrolled minutes a person need no window every second
        changes[LONG_RECORDS] = {"tasks": ("person",), "epochs": 6, "stride": 5.0}
        return {name: replace(ours, **change) for name, change in changes.items()}


def budget_of(profile: str, seed: int) -> Budget:
    """Budget of a profile; its seeds are `seed` and those after it."""
    demo, compared = effort(profile) == "demo", BASELINES | ABLATIONS
    # three seconds in the demo: the validation part of a record of 20 s is no longer
    windows = [(seconds, told) for seconds in ((3.0,) if demo else (5.0, 8.0)) for told in (False, True)]
    epochs = 3 if demo else 12
    candidates = tuple(Attacker(seconds=seconds, amplitude=told, epochs=epochs) for seconds, told in windows)
    if demo:
        return Budget(candidates, (seed,), {name: compared[name] for name in DEMO_COMPARED}, 2)
    return Budget(candidates, (seed, seed + 1, seed + 2), compared, 3)


def cohort_of(profile: str) -> str:
    """Name of the profile's cohort with activities; the synthetic one stands in for a public one alone.

    Raises
    ------
    NotApplicableError
        No cohort of one's own has two persons in two activities.
    """
    if is_own(profile):
        for name in cohorts_of(profile):
            records = open_cohort(profile, name, 0).records()
            known = records.dropna(subset="activity") if "activity" in records else records.iloc[:0]
            if len(known) and min(known["activity"].nunique(), known[SUBJECT].nunique()) > 1:
                return name
        raise NotApplicableError(
            "no folder has two persons with records of two activities; a column activity in subjects.csv would say so."
        )
    return MotionCohort.name if MotionCohort.name in cohorts_of(profile) else SyntheticCohort.name


def open_cohort(profile: str, name: str, seed: int) -> Cohort:
    """Open a cohort; the synthetic one has 50 persons with one record during each activity."""
    if name != SyntheticCohort.name:
        return study_cohort(name, seed)
    size = {"n_subjects": 50, "n_sessions": 1, "n_records": 1, "seconds": 20.0 if effort(profile) == "demo" else 30.0}
    return SyntheticCohort(**size, seed=seed, activities=list(ACTIVITIES))


def open_context(profile: str, name: str, fs: float, seed: int, device: str, lead: str | None = None) -> Context:
    """Ingest a cohort and choose its lead: the most frequent reference lead unless told.

    Of one with activities, records whose activity is not known take no part.
    """
    cohort = open_cohort(profile, name, seed)
    cache = cache_dir(profile)
    store = without_copies({name: build_store(cohort, cache, fs, delineate=not cohort.synthetic)}, cache)[name]
    lead = lead or store.records["reference_lead"].mode().iloc[0]
    states = "activity" if "activity" in store.records else ""
    return Context(profile, {name: store}, device, {}, lead, seed, states=states)


def protocols_of(ours: Attacker, budget: Budget) -> list[Protocol]:
    """Protocols of the stage, easiest first."""
    middle = [protocols.BlockedTime(), protocols.CrossElectrode(), protocols.CrossActivity()]
    return [protocols.RandomWindows(ours.seconds), *middle, protocols.LeaveSubjectOut(budget.folds)]


def plan(cohort: str, ours: Attacker, budget: Budget) -> list[Job]:
    """Jobs on the cohort with activities: DT4ECG under all protocols, the others later in the same recordings."""
    jobs = [
        Job(cohort, protocol, attacker, seed)
        for protocol in protocols_of(ours, budget)
        for attacker in (DT4ECG, ROLLED, *(budget.compared if isinstance(protocol, protocols.BlockedTime) else ()))
        for seed in budget.seeds
    ]
    # one seed: the matrix of activities is looked at, and no claim rests on a cell of it
    return [*jobs, Job(cohort, protocols.ActivityPairs(), ONE_ACTIVITY, budget.seeds[0])]


def shared(profile: str, seed: int, device: str) -> Iterator[Work]:
    """Jobs of the stage that several processes may share, once the windows are chosen."""
    budget, cohort = budget_of(profile, seed), cohort_of(profile)
    context = open_context(profile, cohort, STORE_FS, seed, device)
    ours, *_ = choose(context, cohort, budget)
    yield predict, plan(cohort, ours, budget), replace(context, attackers=budget.attackers(ours))


def predict(context: Context, job: Job) -> Predictions:
    """Train the job's attacker on every split and predict its probes; splits that cannot be asked are left out."""
    splits, parts, gaps = context.splits(job), [], {}
    for fold in range(len(splits)):
        try:
            parts.append(_fold(context, job, fold))
        except DiskError:
            raise
        except StudyError as impossible:
            gaps[fold] = str(impossible).removesuffix(".")
    if not parts:
        raise StudyError("; ".join(dict.fromkeys(gaps.values())) or NO_PROBE)
    left_out = [f"fold {fold + 1} of {len(splits)} left out: {reason}" for fold, reason in gaps.items()]
    return replace(joined(parts), gap="; ".join(left_out))


def _fold(context: Context, job: Job, fold: int) -> Predictions:
    """Predictions of one split; the probes are listed first, so that nobody trains in vain."""
    attacker, split = context.attackers[job.attacker], context.splits(job)[fold]
    index = context.dataset.grid(split.probe, attacker.seconds)
    if index.empty:
        raise StudyError(NO_PROBE)
    run, known = context.fitted(job, fold), classes(context, job.cohort)

    def asked(rows: pd.DataFrame, values: np.ndarray) -> pd.DataFrame:
        samples, windows = attacker.prepared(values), labelled(context, job.cohort, rows)
        windows = windows.assign(fold=fold, seed=job.seed)
        for task, names in known.items():
            knows = task in run.model.heads and not (task == "person" and split.unseen_persons)
            shares = attacker.shares(run.model, samples, task, names) if knows else None
            windows[f"{task}_predicted"] = np.array(names, dtype=object)[shares.argmax(axis=1)] if knows else None
            windows[f"{task}_shares"] = [*shares] if knows else None
        return windows

    windows, across = asked(index, context.dataset.gather(index)), nothing()
    if split.probe[RECORD].is_unique:
        borders = spliced(context.dataset, index, session_order(context.records(job.cohort)))
        across = asked(*borders) if len(borders[0]) else across
    return Predictions(windows, known, [run.history], across=across)


def _with_ensembles(found: Mapping[tuple[str, str], Predictions]) -> dict[tuple[str, str], Predictions]:
    """Put what DT4ECG's networks of several seeds say together behind each of their predictions."""
    together, both = {DT4ECG: ENSEMBLE, ROLLED: ROLLED_ENSEMBLE}, {}
    for (protocol, name), one in found.items():
        both[protocol, name] = one
        if name in together and len(one.windows["seed"].unique()) > 1:
            both[protocol, together[name]] = _ensemble(one)
    return both


def _ensemble(one: Predictions) -> Predictions:
    """Mean over the seeds of the shares of every window; those of windows that a seed lacks are of the others."""
    same = one.windows.groupby(["fold", RECORD, "start"], sort=False).indices.values()
    windows = one.windows.iloc[[rows[0] for rows in same]].assign(seed=-1).reset_index(drop=True)
    for task, names in one.classes.items():
        shares = one.windows[f"{task}_shares"].to_numpy()
        if one.windows[f"{task}_predicted"].notna().all():
            mean = np.array([np.mean([*shares[rows]], axis=0) for rows in same]).reshape(-1, len(names))
            windows[f"{task}_shares"] = [*mean]
            windows[f"{task}_predicted"] = np.array(names, dtype=object)[mean.argmax(axis=1)]
    return replace(one, windows=windows, across=nothing())


def choose(context: Context, cohort: str, budget: Budget) -> tuple[Attacker, pd.DataFrame, Predictions]:
    """Candidate with the highest mean of both accuracies (the first where none has any), all, and what it predicts.

    Windows that end when one of every candidate does are scored, so that all are asked about the same moments.
    Columns: seconds, amplitude, windows, person_accuracy, activity_accuracy, mean; where one cannot be scored: note.
    """
    attackers = {f"window_{at}": one for at, one in enumerate(budget.candidates)}
    jobs = [Job(cohort, Choice(), name, budget.seeds[0]) for name in attackers]
    found = by_network(run(predict, jobs, replace(context, attackers=attackers), "windows"), jobs)
    rows = []
    for one, predictions in zip(budget.candidates, on_common_ends([*found.values()]), strict=True):
        row = {"seconds": f"{one.seconds:g}", "amplitude": "told" if one.amplitude else "not told"}
        scores = {f"{task}_accuracy": predictions.accuracy(task) for task in TASKS}
        mean = pd.Series(scores).mean()
        nowhere = f"no usable window of {one.seconds:g} s is left to choose on"
        note = nowhere if predictions.gap == NO_PROBE else predictions.gap
        rows.append({**row, "windows": len(predictions.windows), **scores, "mean": mean, "note": note})
    table = pd.DataFrame(rows)
    best = int(table["mean"].fillna(-1).argmax())
    shown = table if table["note"].any() else table.drop(columns="note")
    return budget.candidates[best], shown, [*found.values()][best]


def on_common_ends(found: Sequence[Predictions]) -> list[Predictions]:
    """Windows alone that end when a window of every other does, of those that predict anything."""
    moments = [(one.windows[RECORD], one.windows["start"] + one.windows["n_samples"]) for one in found]
    ends = [pd.MultiIndex.from_arrays(moment) for moment in moments]
    common = reduce(pd.MultiIndex.intersection, [own for own in ends if len(own)] or ends)
    return [one.subset(own.isin(common)) for one, own in zip(found, ends, strict=True)]


def by_network(outcome: Outcome, jobs: Sequence[Job]) -> dict[tuple[str, str], Predictions]:
    """Predictions by protocol and attacker, all seeds, and DT4ECG's ensembles; where there are none: the gap.

    NotApplicableError where DT4ECG cannot learn both tasks of the first part of the records.
    """
    reasons, found = outcome.refusals.set_index(["protocol", "attacker"])["reason"], {}
    for key, mine in groupby(jobs, lambda job: (job.protocol.name, job.attacker)):
        parts = [outcome.values[job.name] for job in mine if job.name in outcome.values]
        found[key] = joined(parts) if parts else Predictions(gap=reasons[[key]].iloc[0].removesuffix("."))
    main, cohort = found.get((protocols.BlockedTime.name, DT4ECG)), jobs[0].cohort
    if main and main.windows.empty:
        raise NotApplicableError(f"nothing can be learnt from the first part of the records of {cohort}: {main.gap}.")
    if main and any(math.isnan(main.accuracy(task)) for task in TASKS):
        raise NotApplicableError(
            f"{cohort} has usable records of one person or of one activity only; bring two of each."
        )
    return _with_ensembles(found)


def labelled(context: Context, cohort: str, index: pd.DataFrame) -> pd.DataFrame:
    """Rows of records, or of their windows, with the activity."""
    known = context.records(cohort).set_index(RECORD)
    return index.assign(activity=index[RECORD].map(known["activity"]) if "activity" in known else "unknown")


def classes(context: Context, cohort: str) -> dict[str, list[str]]:
    """Names of the classes of both tasks, in the order of their numbers."""
    records = labelled(context, cohort, context.records(cohort))
    return {"person": sorted(records[SUBJECT].unique()), "activity": protocols.activities_of(records)}


def merge_touching(segments: pd.DataFrame) -> pd.DataFrame:
    """Join segments of a record that follow each other without a gap, so that windows may lie across their borders."""
    ordered = segments.sort_values([RECORD, "start"])
    touching = (ordered[RECORD] == ordered[RECORD].shift()) & (ordered["start"] == ordered["stop"].shift())
    columns = {column: "last" if column == "stop" else "first" for column in segments}
    return ordered.groupby((~touching).cumsum().to_numpy()).agg(columns).reset_index(drop=True)
