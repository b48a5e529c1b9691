"""TransECG's claims about sex and age, judged where they can be judged (Wang et al., arXiv 2503.13495).

The paper reads attention of a Vision Transformer: the R wave receives 58.29 % of it for sex, the P-R interval 46.29 %
for age. Attention of a trunk that several tasks share cannot depend on the task, so here every task has a TransECG of
its own; a patch of 100 ms cannot hold 58 % in an R wave of 46 ms, so patches are 40 ms long; people are explained whom
no network has learnt from, in windows that the network gets right; and only where it knows more than chance and more
than to name the more frequent class. Age is asked as 60 and over or not.
"""

from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from ecgstudy.attribution.cases import AROUND_S, evenly
from ecgstudy.attribution.exchange import DONOR, EVERYBODY, FACTORS, OWN_TIMING, Windows
from ecgstudy.attribution.methods import METHODS, NONE, ZERO, Question, ask, attribute, by_wave, controls_of
from ecgstudy.attribution.planted import FINE, NETWORKS, SHAPE
from ecgstudy.attribution.shares import Spoken, drawn_means, estimates, over_nearest, pooled, spoken
from ecgstudy.attribution.waves import REGIONS, UNKNOWN_WAVE, region_masks, wave_codes
from ecgstudy.data.base import STANDARD_LEADS
from ecgstudy.errors import StudyError
from ecgstudy.evaluate.bootstrap import Estimate, Resamples, ratio
from ecgstudy.evaluate.classification import classification_report
from ecgstudy.evaluate.results import intervals
from ecgstudy.evaluate.splits import SUBJECT, with_cohort
from ecgstudy.experiment.jobs import Context, Outcome, run
from ecgstudy.learn.base import SignalModel
from ecgstudy.learn.batches import Augmentation, WindowSet, encode, standardise
from ecgstudy.learn.models import create_model
from ecgstudy.learn.train import TrainingSettings, fit
from ecgstudy.signals.delineation import FIDUCIAL_COLUMNS, transfer_boundaries
from ecgstudy.study.config import effort

COHORTS = ("ptbxl", "ludb", "synthetic")
"""Cohorts of many people with twelve leads, whose sex and age are known."""
OLD = 60.0
CLASSES = {"sex": ("F", "M"), "age": ("under 60", "60 and over")}
SECONDS = 4.0
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
VALUES = {HOLDS: 1.0, CONTROL: 0.0, FAILS: 0.0}
"""What a verdict is called in numbers; the others are undefined."""


@dataclass(frozen=True)
class Size:
    """Folds of people, of how many the windows are explained with one lead, epochs, windows explained at most."""

    folds: int
    one_lead_folds: int
    leads: tuple[str, ...]
    epochs: int
    windows: int


SIZES = {"real": Size(3, 1, STANDARD_LEADS, 20, 400), "demo": Size(2, 1, ("I",), 3, 12)}


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
        return f"{self.cohort}.{self.task}.{'12' if len(self.leads) > 1 else self.leads[0]}.{self.seed}"

    def about(self) -> dict[str, object]:
        """First columns of a row about this job."""
        leads = "twelve" if len(self.leads) > 1 else self.leads[0]
        return {"cohort": self.cohort, "task": self.task, "leads": leads}

    def made_from(self, context: Context) -> dict[str, object]:
        """JSON values that the answer depends on, besides code."""
        return {"job": asdict(self), "size": asdict(SIZES[effort(context.profile)])}


def audit_claims(context: Context, verdicts: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, Outcome]:
    """Judge every claim on every cohort, with twelve leads and lead by lead: :func:`judge_claims`.

    `verdicts` are those of :func:`ecgstudy.attribution.planted.verdicts`. The outcome has the refusals.
    """
    size = SIZES[effort(context.profile)]
    trusted = verdicts[verdicts["trusted"] & (verdicts["model"] == FINE) & (verdicts["kind"] == SHAPE)]
    order = {name: at for at, name in enumerate((DONOR, EVERYBODY, OWN_TIMING, ZERO, NONE))}
    trusted = trusted.sort_values("baseline", key=lambda names: names.map(order), kind="stable")
    methods = tuple(zip(trusted["method"], trusted["baseline"], strict=True))
    jobs = [
        ClaimJob(cohort, task, leads, methods, seed)
        for cohort in COHORTS
        if cohort in context.stores
        for task in CLASSES
        for leads in (STANDARD_LEADS, *((lead,) for lead in size.leads))
    ]
    outcome = run(judge_claims, jobs, context, "the paper's claims")
    tables = [table for table in outcome.values.values() if len(table)]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(), outcome


def judge_claims(context: Context, job: ClaimJob) -> pd.DataFrame:
    """Train on some people, explain others, and judge the claims about the task; one row a claim.

    claim, cohort, task, leads, region, published; persons, windows (named rightly), accuracy, majority, auroc; time
    (share of time that the region takes), reach (most that patches of this length can give it), attention (share by the
    paper's method), by_attention (verdict); method, baseline, share, over_others, over_control, verdict by the trusted
    method that comes first, each number with ``_low`` and ``_high``; reason where it cannot be judged.
    """
    size = SIZES[effort(context.profile)]
    records, samples, fiducials = twelve_leads(context, job)
    if len(records) < 4 * size.folds or records["target"].nunique() < 2:
        raise StudyError(f"{job.cohort} has too few people with all leads and a known {job.task}.")
    persons = records[SUBJECT].to_numpy(dtype=str)
    names = np.unique(persons)
    fold_of = np.random.default_rng(job.seed).permutation(np.arange(names.size) % size.folds)
    fold = fold_of[np.searchsorted(names, persons)]
    asked = []
    for number in range(size.folds if len(job.leads) > 1 else size.one_lead_folds):
        learnt, held = fold != number, np.flatnonzero(fold == number)
        model = train(context, job, samples[learnt], records[learnt], size.epochs)
        asked.append(question_of(model, job, samples[held], fiducials[held], records.iloc[held]))
    return claim_rows(job, asked, size)


def twelve_leads(context: Context, job: ClaimJob) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Choose records of people of known class with flawless leads: table with target, samples, fiducial points.

    Samples are standardised by record and lead, float32 of shape (n, n_leads, n_samples), of the shortest record's
    length; points, in samples, have their gaps filled.
    """
    store = context.stores[job.cohort]
    records = with_cohort(job.cohort, store.records)
    whole = [set(job.leads) <= set(leads) for leads in records["usable_leads"]]
    records = records[np.array(whole) & ~store.records["record_id"].isin(store.flaws["record_id"]).to_numpy()]
    people = context.people.reindex(records[SUBJECT])
    old = np.where(people["age"] >= OLD, *reversed(CLASSES["age"]))
    label = people["sex"].to_numpy() if job.task == "sex" else np.where(people["age"].notna(), old, None)
    records = records.assign(target=encode(label, CLASSES[job.task])).query("target >= 0")
    if records.empty:
        raise StudyError(f"{job.cohort} has nobody with all leads and a known {job.task}.")
    beats, length = dict(iter(store.beats.groupby("record_id"))), int(records["store_samples"].min())
    kept, samples, points = [], [], []
    for at, row in enumerate(records.itertuples()):
        name = row.record_id.split("/", 1)[1]
        if name in beats:
            found = {point: beats[name][point].to_numpy(dtype=float) * store.fs for point in FIDUCIAL_COLUMNS}
            order = [row.leads.index(lead) for lead in job.leads]
            kept.append(at)
            samples.append(standardise(store.signal(name)[order, :length]))
            points.append(pd.DataFrame(transfer_boundaries(found)[0]))
    return records.iloc[kept].reset_index(drop=True), np.stack(samples), np.fromiter(points, dtype=object)


def train(context: Context, job: ClaimJob, samples: np.ndarray, records: pd.DataFrame, epochs: int) -> SignalModel:
    """Train TransECG for one task, on random windows of whole records."""
    fs, (network, given, _) = context.stores[job.cohort].fs, NETWORKS[FINE]
    shape = {"n_leads": len(job.leads), "n_samples": round(SECONDS * fs), "fs": fs, "lead_names": list(job.leads)}
    model = create_model(network, job.seed, classes={job.task: CLASSES[job.task]}, **shape, **given)
    labels = {job.task: records["target"].to_numpy()}
    windows = WindowSet(samples, labels, records[SUBJECT].to_numpy(dtype=str), records["record_id"].to_numpy(dtype=str))
    settings = TrainingSettings(epochs, 64, job.seed, augmentation=Augmentation(gain=0.0, noise=0.1, wander=0.1))
    return fit(model, windows, None, settings, context.runs, context.device).model


def question_of(
    model: SignalModel, job: ClaimJob, samples: np.ndarray, fiducials: np.ndarray, records: pd.DataFrame
) -> Question:
    """Ask about the middle of every record of people whom the network has not learnt from, where it is delineated."""
    fs, length = model.hparams.fs, model.hparams.n_samples
    more = min(round(AROUND_S * fs), (samples.shape[-1] - length) // 2)
    start = (samples.shape[-1] - length) // 2
    points = [table - start for table in fiducials]
    codes, reasons = zip(*(wave_codes(table, length) for table in points), strict=True)
    kept = np.array([reason is None for reason in reasons])
    around = samples[kept][..., start - more : start + length + more]
    own = (around[..., more : more + length], records["target"].to_numpy()[kept], fs, job.seed, np.stack(codes)[kept])
    persons, points = records[SUBJECT].to_numpy(dtype=str)[kept], np.fromiter(points, dtype=object)[kept]
    return Question(model, job.task, Windows(*own, persons, points, around))


def claim_rows(job: ClaimJob, asked: list[Question], size: Size) -> pd.DataFrame:
    """Rows of :func:`judge_claims` from the questions of all folds."""
    truth, persons = (np.concatenate([getattr(q.windows, part) for q in asked]) for part in ("targets", "persons"))
    chances = np.concatenate([q.probabilities(q.windows.samples) for q in asked])
    resamples, classes = Resamples.draw(persons, job.seed), CLASSES[job.task]
    report = classification_report(np.array(classes)[truth], chances, classes, persons, resamples)
    known = {name: report[name] for name in ("accuracy", "majority", "auroc")}
    explained = [subset(q, q.probabilities(q.windows.samples).argmax(axis=1), size.windows) for q in asked]
    explained = [q for q in explained if np.unique(q.windows.targets).size > 1]
    about = job.about() | intervals(known)
    reason = ungated(known) or (None if explained else "hardly any window is named rightly")
    answer = None if reason else by_trusted(job, explained, resamples)
    if not reason and answer is None:
        reason = "no method that finds planted waves on this network applies"
    rows = []
    for name, claim in CLAIMS.items():
        if claim.task == job.task:
            row = {"claim": name, "region": claim.region, "published": PUBLISHED[job.task]} | about
            row |= {"persons": np.unique(persons).size, "windows": sum(len(q.windows) for q in explained)}
            row |= by_attention(claim, explained, resamples) if explained else {}
            row |= {"verdict": UNJUDGED} if reason else judged(claim, *answer)
            rows.append(row | {"reason": reason})
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
        pairs = ((METHODS[name], baseline), *controls_of(METHODS[name], baseline))
        answers = pooled([ask(question, pairs) for question in asked])
        found = spoken(answers, METHODS[name], baseline, np.ones(len(persons), dtype=bool), persons, resamples)
        if not found.reason:
            return {"method": name, "baseline": baseline}, found, np.unique(persons).size
    return None


def judged(claim: Claim, about: dict[str, str], found: Spoken, n_persons: int) -> dict[str, object]:
    """Verdict on a claim from shares of factors."""
    inside = np.isin(FACTORS, claim.factors)
    share, *controls = (drawn[:, inside].sum(axis=1) for drawn in (found.own, *found.controls))
    numbers = {"share": share, "over_others": share - found.own[:, ~inside].max(axis=1)}
    known = estimates(numbers | {"over_control": over_nearest(share, controls)}, n_persons)
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
        windows, index = question.windows, list(REGIONS).index(claim.region)
        masks = np.stack([region_masks(points, windows.codes.shape[1])[index] for points in windows.fiducials])
        found, known = attribute(METHODS[ATTENTION], NONE, question), windows.codes != UNKNOWN_WAVE
        of_region = [ratio((part * masks * known).sum(axis=1), (part * known).sum(axis=1)) for part in (found, known)]
        patches = [slice(*bounds) for bounds in question.model.patch_bounds]
        reach = np.max([masks[:, patch].mean(axis=1) for patch in patches], axis=0)
        outside = by_wave(found, windows.codes)[:, [f not in claim.factors for f in FACTORS]].max(axis=1)
        columns = {"attention": of_region[0], "time": of_region[1], "reach": reach, "outside": outside}
        parts.append(pd.DataFrame(columns).groupby(windows.persons).mean())
    means = pd.concat(parts)
    drawn = dict(zip(means, drawn_means(means, resamples).T, strict=True))
    numbers = {name: drawn["attention"] - drawn[name] for name in ("outside", "time")}
    found = estimates({"attention": drawn["attention"]} | numbers, len(means))
    row = intervals({"attention": found["attention"]}) | {"by_attention": verdict(found["outside"], found["time"])}
    return row | {"time": drawn["time"][0], "reach": drawn["reach"][0]}
