"""TransECG's claims about sex and age, judged where they can be judged (Wang et al., arXiv 2503.13495).

The paper reads attention of a Vision Transformer: the R wave receives 58.29 % of it for sex, the P-R interval 46.29 %
for age. Attention of a trunk that several tasks share cannot depend on the task, so here every task has a TransECG of
its own; a patch of 100 ms cannot hold 58 % in an R wave of 46 ms, so patches are 40 ms long; people are explained whom
no network has learnt from, in windows that the network gets right; and only where it knows more than chance and more
than to name the more frequent class. Age is asked as 60 and over or not.
"""

from dataclasses import asdict, dataclass, replace
from itertools import islice, product
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from ecgstudy.attribution.cases import AROUND_S, evenly
from ecgstudy.attribution.exchange import BASELINES, FACTORS, Windows
from ecgstudy.attribution.methods import METHODS, NONE, ZERO, Question, ask, attribute, by_wave, controls_of, removed
from ecgstudy.attribution.planted import FINE, trained, trusted_methods
from ecgstudy.attribution.shares import Spoken, drawn_means, estimates, evidence_removed, over_controls, pooled, spoken
from ecgstudy.attribution.waves import UNKNOWN_WAVE, region_mask, wave_codes
from ecgstudy.data.base import STANDARD_LEADS
from ecgstudy.errors import StudyError
from ecgstudy.evaluate.bootstrap import Estimate, Resamples, ratio
from ecgstudy.evaluate.classification import classification_report
from ecgstudy.evaluate.results import intervals
from ecgstudy.evaluate.splits import RECORD, SUBJECT, with_cohort
from ecgstudy.experiment.jobs import Context, Outcome, run
from ecgstudy.learn.base import SignalModel
from ecgstudy.learn.batches import Augmentation, WindowSet, encode, standardise
from ecgstudy.learn.train import TrainingSettings
from ecgstudy.signals.delineation import FIDUCIAL_COLUMNS, transfer_boundaries
from ecgstudy.study.config import effort

COHORTS = ("ptbxl", "ludb", "synthetic")
"""Cohorts of many people with twelve leads, whose sex and age are known."""
OLD = 60.0
CLASSES = {"sex": ("F", "M"), "age": ("under 60", "60 and over")}
ATTENTION = "last_attention"
PUBLISHED = {"sex": 0.5829, "age": 0.4629}


class Claim(NamedTuple):
    """A claim: a region of :data:`~.waves.REGIONS` matters most for a task; the factors it is made of."""

    task: str
    region: str
    factors: tuple[str, ...]


CLAIMS = {
    "sex_R_wave": Claim("sex", "R wave", ("QRS",)),
    "age_PR_to_R_peak": Claim("age", "P-R to the R peak", ("P", "PR", "QRS", "PR interval")),
    "age_PR_to_QRS_onset": Claim("age", "P-R to QRS onset", ("P", "PR", "PR interval")),
}
"""Claims by name; "P-R" in both readings. A method by factor cannot tell the R wave from the rest of QRS: where QRS has
less than another wave, so has R."""
HOLDS, CONTROL = "holds", "holds no more than for a control"
FAILS, OPEN, UNJUDGED = "does not hold", "undecided", "cannot be judged here"
VALUES = {HOLDS: 1, CONTROL: 0, FAILS: 0}
"""What a verdict is called in numbers; the others are undefined."""


@dataclass(frozen=True)
class Size:
    """Folds of people (one lead is asked about the first alone), leads, epochs, windows explained at most a fold."""

    folds: int
    leads: tuple[str, ...]
    epochs: int
    windows: int


SIZES = {"real": Size(3, STANDARD_LEADS, 20, 400), "demo": Size(2, ("I",), 3, 12)}


@dataclass(frozen=True)
class ClaimJob:
    """One task on one cohort, read by TransECG in some leads, and the methods that were trusted on it."""

    cohort: str
    task: str
    leads: tuple[str, ...]
    methods: tuple[tuple[str, str], ...]
    seed: int

    @property
    def name(self) -> str:
        """Name for files and logs."""
        return ".".join([*self.about().values(), str(self.seed)])

    def about(self) -> dict[str, str]:
        """First columns of a row about this job."""
        return {"cohort": self.cohort, "task": self.task, "leads": self.leads[0] if len(self.leads) == 1 else "twelve"}

    def made_from(self, context: Context) -> dict[str, object]:
        """JSON values that the answer depends on, besides code."""
        return {"job": asdict(self), "size": asdict(SIZES[effort(context.profile)])}


def audit_claims(context: Context, verdicts: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, Outcome]:
    """Judge every claim on every cohort, with twelve leads and lead by lead: :func:`judge_claims`.

    `verdicts` are those of :func:`ecgstudy.attribution.planted.verdicts`. The outcome has the refusals.
    """
    cohorts, methods = [name for name in COHORTS if name in context.stores], tuple(trusted_methods(verdicts, FINE))
    readings = [STANDARD_LEADS, *((lead,) for lead in SIZES[effort(context.profile)].leads)]
    jobs = [ClaimJob(*asked, methods, seed) for asked in product(cohorts, CLASSES, readings)]
    outcome = run(judge_claims, jobs, context, "the paper's claims")
    return pd.concat([*outcome.values.values()] or [pd.DataFrame()], ignore_index=True), outcome


def judge_claims(context: Context, job: ClaimJob) -> pd.DataFrame:
    """Train on some people, explain others, and judge the claims about the task; one row a claim.

    claim, cohort, task, leads, model, region, published; persons, windows (named rightly), accuracy, majority, auroc,
    removed_<baseline> (share of the evidence); time (share of time that the region takes), reach (most that patches of
    this length can give it), attention (share by the paper's method), by_attention (verdict); method, baseline, share,
    over_others, over_control, verdict by the trusted method that comes first, each number with ``_low`` and ``_high``;
    reason where it cannot be judged.
    """
    size, fs = SIZES[effort(context.profile)], context.stores[job.cohort].fs
    whole, fiducials = twelve_leads(context, job)
    truth, asked = whole.targets[job.task], []
    if len(whole) < 4 * size.folds or np.unique(truth).size < 2:
        raise StudyError(f"{job.cohort} has too few people with all leads and a known {job.task}.")
    folds = StratifiedGroupKFold(size.folds, shuffle=True, random_state=job.seed)
    shape = {"classes": {job.task: CLASSES[job.task]}, "lead_names": list(job.leads)}
    settings = TrainingSettings(size.epochs, 64, job.seed, Augmentation(gain=0.0, noise=0.1, wander=0.1))
    for learnt, held in islice(folds.split(truth, truth, whole.subjects), None if len(job.leads) > 1 else 1):
        known, others = (_rows(whole, rows) for rows in (learnt, held))
        model = trained(context, FINE, known, settings, fs, **shape)
        asked.append(question_of(model, job, others, fiducials[held]))
    return claim_rows(job, asked, size.windows)


def _rows(windows: WindowSet, rows: np.ndarray) -> WindowSet:
    """Take some of the windows."""
    targets = {task: column[rows] for task, column in windows.targets.items()}
    return WindowSet(windows.samples[rows], targets, windows.subjects[rows], windows.records[rows])


def twelve_leads(context: Context, job: ClaimJob) -> tuple[WindowSet, np.ndarray]:
    """Choose records of people of known class with flawless leads, and their fiducial points, gaps filled.

    Samples are standardised by record and lead, (n, n_leads, n_samples), of the shortest record's length.
    """
    store = context.stores[job.cohort]
    records = with_cohort(job.cohort, store.records)
    whole = [set(job.leads) <= set(leads) for leads in records["usable_leads"]]
    records = records[np.array(whole) & ~store.records["record_id"].isin(store.flaws["record_id"]).to_numpy()]
    people = context.people.reindex(records[SUBJECT])
    old = np.where(people["age"] >= OLD, *reversed(CLASSES["age"]))
    label = people["sex"].to_numpy() if job.task == "sex" else np.where(people["age"].notna(), old, None)
    beats = {f"{job.cohort}/{name}": found for name, found in store.beats.groupby("record_id")}
    records = records.assign(target=encode(label, CLASSES[job.task])).query("target >= 0")
    records = records[records[RECORD].isin(beats)]
    if records.empty:
        raise StudyError(f"{job.cohort} has nobody with all leads and a known {job.task}.")
    length, samples, points = int(records["store_samples"].min()), [], []
    for row in records.itertuples():
        found = {point: beats[row.record_id][point].to_numpy(dtype=float) * store.fs for point in FIDUCIAL_COLUMNS}
        order = [row.leads.index(lead) for lead in job.leads]
        samples.append(standardise(store.signal(row.record_id.split("/", 1)[1])[order, :length]))
        points.append(pd.DataFrame(transfer_boundaries(found)[0]))
    names = (records[column].to_numpy(dtype=str) for column in (SUBJECT, RECORD))
    windows = WindowSet(np.stack(samples), {job.task: records["target"].to_numpy()}, *names)
    return windows, np.fromiter(points, dtype=object)


def question_of(model: SignalModel, job: ClaimJob, records: WindowSet, fiducials: np.ndarray) -> Question:
    """Ask about the middle of every record of people whom the network has not learnt from, where it is delineated."""
    length = model.hparams.n_samples
    start = (records.samples.shape[-1] - length) // 2
    more = min(round(AROUND_S * model.hparams.fs), start)
    points = np.fromiter((table - start for table in fiducials), dtype=object)
    codes, reasons = zip(*(wave_codes(table, length) for table in points), strict=True)
    kept = np.array([reason is None for reason in reasons])
    around, truth = records.samples[kept][..., start - more : start + length + more], records.targets[job.task][kept]
    known = np.stack(codes)[kept], records.subjects[kept], points[kept]
    return Question(model, job.task, Windows(around, truth, model.hparams.fs, job.seed, more, *known))


def claim_rows(job: ClaimJob, asked: list[Question], most: int) -> pd.DataFrame:
    """Rows of :func:`judge_claims` from the questions of all folds, `most` windows explained of each."""
    truth, persons = (np.concatenate([getattr(q.windows, part) for q in asked]) for part in ("targets", "persons"))
    chances = [q.probabilities(q.windows.samples) for q in asked]
    resamples, classes = Resamples.draw(persons, job.seed), CLASSES[job.task]
    report = classification_report(np.array(classes)[truth], np.concatenate(chances), classes, persons, resamples)
    known = {name: report[name] for name in ("accuracy", "majority", "auroc")}
    explained = [subset(q, chance.argmax(axis=1), most) for q, chance in zip(asked, chances, strict=True)]
    explained = [q for q in explained if np.unique(q.windows.targets).size > 1]
    reason, answer = ungated(known) or (None if explained else "hardly any window is named rightly"), None
    if not reason:
        whose = np.concatenate([q.windows.persons for q in explained])
        gone = {of: np.concatenate([removed(q, of) for q in explained], axis=1) for of in (ZERO, *BASELINES)}
        known |= {f"removed_{of}": evidence_removed(both, whose, resamples) for of, both in gone.items()}
        answer = by_trusted(job, explained, resamples)
        reason = None if answer else "no method that finds planted waves on this network applies"
    about = {"persons": np.unique(persons).size, "windows": sum(len(q.windows) for q in explained), "reason": reason}
    about |= job.about() | {"model": FINE} | intervals(known)
    rows = []
    for name, claim in CLAIMS.items():
        if claim.task == job.task:
            row = {"claim": name, "region": claim.region, "published": PUBLISHED[job.task]} | about
            row |= by_attention(claim, explained, resamples) if explained else {}
            rows.append(row | (judged(claim, *answer) if answer else {"verdict": UNJUDGED}))
    return pd.DataFrame(rows)


def ungated(known: dict[str, Estimate]) -> str | None:
    """Why a network does not know enough to be asked; None where it does."""
    if not known["auroc"].low > 0.5:
        return "the network knows no more than chance (its AUROC's interval reaches 0.5)"
    if not known["accuracy"].value > known["majority"].value:
        return "the network is right no more often than naming the more frequent class would be"
    return None


def subset(question: Question, said: np.ndarray, most: int) -> Question:
    """Keep windows that the network names rightly, so many at most."""
    windows = question.windows
    rows = np.flatnonzero(said == windows.targets)
    rows = rows[evenly(rows.size, most)]
    arrays = {name: values[rows] for name, values in vars(windows).items() if isinstance(values, np.ndarray)}
    return replace(question, windows=replace(windows, **arrays))


def by_trusted(job: ClaimJob, asked: list[Question], resamples: Resamples) -> tuple[dict[str, str], Spoken, int] | None:
    """Ask the first trusted method whose baseline removes the evidence: which, what it says, of how many; or None."""
    persons = np.concatenate([question.windows.persons for question in asked])
    for name, baseline in job.methods:
        controls = [(METHODS[other], of) for other, of, _ in controls_of(METHODS[name], baseline) if other != name]
        answers = pooled([ask(question, ((METHODS[name], baseline), *controls)) for question in asked])
        found = spoken(answers, METHODS[name], baseline, np.ones(len(persons), dtype=bool), persons, resamples)
        if not found.reason:
            return {"method": name, "baseline": baseline}, found, np.unique(persons).size
    return None


def judged(claim: Claim, about: dict[str, str], found: Spoken, n_persons: int) -> dict[str, object]:
    """Verdict on a claim from shares of factors."""
    inside = np.isin(FACTORS, claim.factors)
    share, *controls = (drawn[:, inside].sum(axis=1) for drawn in (found.own, *found.controls))
    numbers = {"share": share, "over_others": share - found.own[:, ~inside].max(axis=1)}
    known = estimates(numbers | {"over_control": over_controls(share, controls)}, n_persons)
    return about | {"verdict": verdict(known["over_others"], known["over_control"])} | intervals(known)


def verdict(over_others: Estimate, over_control: Estimate) -> str:
    """Verdict from what a region has more than the largest wave or interval outside it, and more than for a control."""
    if over_others.high < 0:
        return FAILS
    if not over_others.low > 0:
        return OPEN
    return HOLDS if over_control.low > 0 else CONTROL


def by_attention(claim: Claim, asked: list[Question], resamples: Resamples) -> dict[str, object]:
    """Say what the paper's own method tells of the same windows."""
    parts = []
    for question in asked:
        windows, found = question.windows, attribute(METHODS[ATTENTION], NONE, question)
        length, known = windows.codes.shape[1], windows.codes != UNKNOWN_WAVE
        masks = np.stack([region_mask(points, claim.region, length) for points in windows.fiducials])
        share = [ratio((part * masks * known).sum(axis=1), (part * known).sum(axis=1)) for part in (found, known)]
        patches = [masks[:, start:stop].mean(axis=1) for start, stop in question.model.patch_bounds]
        outside = by_wave(found, windows.codes)[:, ~np.isin(FACTORS, claim.factors)].max(axis=1)
        columns = {"attention": share[0], "time": share[1], "reach": np.max(patches, axis=0), "outside": outside}
        parts.append(pd.DataFrame(columns).groupby(windows.persons).mean())
    means = pd.concat(parts)
    drawn = dict(zip(means, drawn_means(means, resamples).T, strict=True))
    over = {name: drawn["attention"] - drawn[name] for name in ("outside", "time")}
    found = estimates({"attention": drawn["attention"]} | over, len(means))
    row = intervals({"attention": found["attention"]}) | {"by_attention": verdict(found["outside"], found["time"])}
    return row | {"time": drawn["time"][0], "reach": drawn["reach"][0]}
