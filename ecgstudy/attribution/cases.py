"""What is explained: probe windows of the people on trial, by the networks of stage 02, task by task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from ecgstudy.attribution.methods import Question, relevances
from ecgstudy.attribution.waves import MEAN_BEAT, Windows, fiducials_of_boundaries, wave_codes
from ecgstudy.data.public import LudbCohort
from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.errors import NotApplicableError, StudyError
from ecgstudy.evaluate.protocols import MOST_SHUFFLED, some_on_trial
from ecgstudy.evaluate.splits import RECORD, SUBJECT
from ecgstudy.experiment.attackers import FittedNetwork
from ecgstudy.experiment.dataset import IDENTITY_LEAD, Dataset, without_lead
from ecgstudy.experiment.jobs import Context, Job, Outcome, run
from ecgstudy.experiment.networks import CLASSES, targets
from ecgstudy.ingestion.stores import study_cohort
from ecgstudy.learn.base import PERSON, UNKNOWN, class_probabilities
from ecgstudy.learn.batches import standardise
from ecgstudy.reidentification.plan import plan, protocols_on_trial
from ecgstudy.study.config import effort

NETWORKS = ("resnet1d", "transecg")
"""Networks that are explained; a method's figures are those of the first that it applies to."""
TASKS = (PERSON, "sex", "age_group")
LEAKY = "random_windows"
PROTOCOLS: Mapping[str, tuple[str, ...]] = {
    LEAKY: TASKS,
    "cross_record": TASKS,
    "time_separated": TASKS,
    "cross_activity": TASKS,
    "subject_disjoint_cross_record": ("sex", "age_group"),
}
"""Protocols whose attackers are explained, and the tasks that each is asked about; of people never seen, who has not
been learnt."""
AUDITED = "cross_record"
"""The protocol of audits, and of the demo: everybody on trial, and no recording learnt from."""
NOTHING_TO_EXPLAIN = "no two persons have two records each, whose recognition in another one could be explained."
AUDITED_WINDOWS = {"real": 90, "demo": 8}
"""Windows that are audited at most, one a person where there are as many people."""
WINDOWS_A_PERSON = {"real": 2, "demo": 1}
FEW_PERSONS = 20
"""Cohorts of fewer persons give six times as many windows of each."""
MARGIN_S = 2.0
"""Beats so far before and after a window help to code its edges: a wave needs both its boundaries."""
LEAST_STRIDE_S = 1.0
"""Windows of one segment start at least so far apart: a beat apart, or they would repeat each other."""


@dataclass(frozen=True)
class Case:
    """Windows of one cohort, protocol, network and task, and how relevant each method finds their samples.

    `attempts` has one row a labelled window, those left out too: cohort, person, sex, age_group, record, start, reason
    (why its waves are not known, or None). `unlabelled` counts windows whose label is unknown, or no class of the
    network. `reference_codes` are from boundaries that no algorithm drew (cardiologists, or the simulator), where the
    cohort has them. `recognised` says whether the network names the true class: what it does not know cannot be
    explained. `relevance` has shape (n, n_samples), 0 or more, by method; NaN rows are undefined. `incompleteness` is
    the median relative convergence delta of the methods that promise completeness. `on_trial` counts the persons who
    could be asked about; of many, some are drawn.
    """

    cohort: str
    protocol: str
    model: str
    task: str
    windows: Windows
    attempts: pd.DataFrame
    unlabelled: int
    reference_codes: np.ndarray | None
    recognised: np.ndarray
    relevance: dict[str, np.ndarray] = field(default_factory=dict)
    incompleteness: dict[str, float] = field(default_factory=dict)
    on_trial: int = 0

    @property
    def accuracy(self) -> float:
        """Share of the windows whose class the network names."""
        return float(self.recognised.mean())


@dataclass(frozen=True)
class Part:
    """One part (a task, an audit) of what is asked about the networks of jobs of stage 02 that differ in their seed."""

    jobs: tuple[Job, ...]
    part: str

    @property
    def name(self) -> str:
        """Name for files and logs."""
        return f"{self.jobs[0].name}.{self.part}"

    def about(self) -> dict[str, object]:
        """First columns of a row about this job."""
        return self.jobs[0].about() | {"task": self.part}

    def made_from(self, context: Context) -> dict[str, object]:
        """JSON values that the answer depends on, besides code."""
        known = [job.made_from(context) for job in self.jobs]
        return {"jobs": known, "part": self.part, "profile": context.profile}


def network_jobs(context: Context, seed: int) -> list[Job]:
    """Jobs of stage 02 that fit a network, without the protocols that the records refuse."""
    jobs = plan(context, seed)
    allowed = {(job.cohort, job.protocol.name) for job in protocols_on_trial(context, jobs)}
    return [job for job in jobs if job.attacker in NETWORKS and (job.cohort, job.protocol.name) in allowed]


def audited_jobs(context: Context, seed: int) -> list[tuple[Job, ...]]:
    """Jobs of the first cohort that allows the protocol :data:`AUDITED`: one tuple a network, one job a seed.

    Refuses where no cohort does, so that nobody can be recognised in another recording.
    """
    jobs = [job for job in network_jobs(context, seed) if job.protocol.name == AUDITED]
    if not jobs:
        raise NotApplicableError(NOTHING_TO_EXPLAIN)
    return [tuple(job for job in jobs if (job.cohort, job.attacker) == (jobs[0].cohort, name)) for name in NETWORKS]


def checked(context: Context, seed: int) -> Context:
    """Give the context back, unless :func:`audited_jobs` refuses it: before anything is computed."""
    audited_jobs(context, seed)
    return context


def explain_cases(context: Context, seed: int) -> tuple[list[Case], Outcome]:
    """Explain every case of a profile, in the order of the plan: one seed of each network and protocol.

    The outcome has the refusals: cases that cannot be explained (no sex is known, nobody could be delineated).
    """
    asked = (AUDITED,) if effort(context.profile) == "demo" else tuple(PROTOCOLS)
    jobs = [job for job in network_jobs(context, seed) if job.seed == seed and job.protocol.name in asked]
    parts = [Part((job,), task) for job in jobs for task in PROTOCOLS[job.protocol.name]]
    outcome = run(explain_case, parts, context, "explanations")
    if not outcome.values:
        raise NotApplicableError([*outcome.refusals["reason"], NOTHING_TO_EXPLAIN][0])
    return list(outcome.values.values()), outcome


def explain_case(context: Context, part: Part) -> Case:
    """Ask every method about windows of the people on trial."""
    job, task = part.jobs[0], part.part
    few = context.splits(job)[0].probe[SUBJECT].nunique() < FEW_PERSONS
    case = case_windows(context, job, task, WINDOWS_A_PERSON[effort(context.profile)] * (6 if few else 1))
    asked = Question(context.fitted(job).model, task, case.windows, case.windows.infills[MEAN_BEAT])
    found, incompleteness = relevances(asked)
    return replace(case, relevance=found, incompleteness=incompleteness)


def drawn_note(cases: Sequence[Case]) -> str:
    """Say that of a large cohort some persons stand for all, in this and in the stage's other questions; else ""."""
    large = {case.cohort: case.on_trial for case in cases if case.on_trial > MOST_SHUFFLED}
    told = [f"{cohort}: {MOST_SHUFFLED:,} of {n:,} persons on trial" for cohort, n in large.items()]
    return f" Drawn at random, here and in all audits: {'; '.join(told)}." if told else ""


def case_windows(context: Context, job: Job, task: str, most: int) -> Case:
    """Choose probe windows of a job's first split, label and delineate them; no method has explained them yet.

    At most `most` windows of a person, evenly spread. ``StudyError`` where the attacker reads averaged beats, which
    have no place in a window, the network has no such task, or no probe window is left.
    """
    whole, fitted, dataset = context.splits(job)[0], context.fitted(job), context.dataset
    split, on_trial = some_on_trial(whole), whole.probe[SUBJECT].nunique()
    if not isinstance(fitted, FittedNetwork) or fitted.recipe.beats:
        raise StudyError(f"{job.attacker} reads averaged beats, not windows; explain transecg or resnet1d.")
    model, n_samples = fitted.model, fitted.recipe.n_samples(dataset.fs)
    if task not in model.classes:
        raise StudyError(f"{job.name} was not trained for {task}; it knows {', '.join(model.classes)}.")
    classes = {**CLASSES, PERSON: model.classes[PERSON]}
    chosen = spread_windows(dataset.pieces(split.probe), n_samples, most, dataset.fs)
    labels = targets(chosen[SUBJECT].to_numpy(dtype=str), context.people, classes)[task]
    labelled = labels != UNKNOWN
    if not labelled.any():
        unknown = "person class: the network has never seen them" if task == PERSON else f"known {task}"
        raise StudyError(f"Nobody on trial in {job.cohort} has a {unknown.replace('_', ' ')}.")
    chosen = chosen[labelled].assign(target=labels[labelled]).reset_index(drop=True)
    fiducials = [window_fiducials(dataset, row.record_id, row.start, n_samples) for row in chosen.itertuples()]
    codes, reasons = zip(*(wave_codes(points, n_samples) for points in fiducials), strict=True)
    attempts = _attempts(context, job.cohort, chosen, reasons)
    kept = np.flatnonzero(attempts["reason"].isna())
    if not kept.size:
        raise StudyError(f"No probe window of {job.cohort} could be delineated; look at its failures by class.")
    chosen, samples = chosen.iloc[kept], []
    for row in chosen.itertuples():
        segment = dataset.segment(row.record_id, row.segment_start, row.segment_stop)
        samples.append(segment[row.start - row.segment_start :][:n_samples])
    samples, codes = standardise(np.stack(samples))[:, None], np.stack(codes)[kept]
    persons, fiducials = chosen[SUBJECT].to_numpy(dtype=str), np.fromiter(fiducials, dtype=object)[kept]
    windows = Windows(samples, chosen["target"].to_numpy(), dataset.fs, job.seed, codes, persons, fiducials)
    reference = reference_codes(study_cohort(job.cohort, job.seed), chosen, n_samples, dataset.fs)
    right = class_probabilities(model, samples, task, classes[task]).argmax(axis=1) == windows.targets
    place, unlabelled = (job.cohort, job.protocol.name, job.attacker, task), int((~labelled).sum())
    return Case(*place, windows, attempts, unlabelled, reference, right, on_trial=on_trial)


def spread_windows(segments: pd.DataFrame, length: int, most: int, fs: float) -> pd.DataFrame:
    """Choose up to `most` windows of each person, evenly spread over the person's segments.

    One row a window: subject_id, record_id, start (sample in the record), segment_start, segment_stop.
    """
    columns = [SUBJECT, RECORD, "start", "segment_start", "segment_stop"]
    chosen = []
    for person, own in segments[segments["stop"] - segments["start"] >= length].groupby(SUBJECT):
        each, rows = -(-most // len(own)), []
        for segment in own.itertuples():
            room = segment.stop - segment.start - length
            n = int(min(each, room // (LEAST_STRIDE_S * fs) + 1))
            # a single window lies in the middle, where the filters of the record's ends do not reach
            places = np.linspace(0, room, n) if n > 1 else np.array([room / 2])
            starts = segment.start + places.astype(np.int64)
            rows += [(person, segment.record_id, start, segment.start, segment.stop) for start in starts]
        chosen += [rows[at] for at in evenly(len(rows), most)]
    return pd.DataFrame(chosen, columns=columns)


def evenly(n: int, most: int) -> np.ndarray:
    """Positions of at most so many of `n` things, evenly spread over them."""
    return np.linspace(0, n - 1, min(most, n)).round().astype(np.int64)


def window_fiducials(dataset: Dataset, record_id: str, start: int, n_samples: int) -> pd.DataFrame:
    """Automatic fiducial points of a window and of the beats around it, in samples from the window's start."""
    margin = round(MARGIN_S * dataset.fs)
    return dataset.fiducials(record_id, start - margin, start + n_samples + margin) - margin


def _attempts(context: Context, cohort: str, chosen: pd.DataFrame, reasons: tuple[str | None, ...]) -> pd.DataFrame:
    """Rows of :attr:`Case.attempts`; a record that could not be delineated at all keeps its own reason."""
    known = context.people.reindex(chosen[SUBJECT]).reset_index(names="person")[["person", "sex", "age_group"]]
    records = (
        context.stores[cohort].records.set_index("record_id")["delineation_failure"].rename(f"{cohort}/{{}}".format)
    )
    whole = chosen[RECORD].map(without_lead).map(records)
    reason = pd.Series(reasons, index=chosen.index, dtype=object)
    attempts = known.assign(cohort=cohort, record=chosen[RECORD], start=chosen["start"])
    return attempts.assign(reason=whole.where(reason.notna() & whole.notna(), reason))


def reference_codes(cohort: object, windows: pd.DataFrame, n_samples: int, fs: float) -> np.ndarray | None:
    """Wave codes, int8 (n, n_samples), from the boundaries that cardiologists drew or the simulator knows, if any.

    Windows are rows with a record_id, ``cohort/name``, and a start. Cardiologists marked lead I, and not the first and
    last beats of a record, so compare tables on the samples that both sources know:
    :func:`ecgstudy.attribution.waves.on_common_samples`.
    """
    if not isinstance(cohort, LudbCohort | SyntheticCohort):
        return None
    coded = []
    for record, start in zip(windows[RECORD], windows["start"], strict=True):
        name = without_lead(record).split("/", 1)[1]
        if isinstance(cohort, SyntheticCohort):
            marks, own_fs = cohort.boundaries(name), cohort.fs
        else:
            marks, own_fs = cohort.boundaries(name, IDENTITY_LEAD), cohort.header(name).fs
        coded.append(wave_codes(fiducials_of_boundaries(marks, fs / own_fs, start), n_samples)[0])
    return np.stack(coded)
