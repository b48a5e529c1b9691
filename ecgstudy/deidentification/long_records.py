"""Half-hour records with annotated beats: who is recognised minutes later, and what becomes of single beats.

Every record of MIT-BIH is released as recordings of five minutes, each by itself: those that
:class:`~ecgstudy.evaluate.protocols.TimeSeparated` enrols and the one that it probes. Identity and diagnosis are then
asked of the same people. All is read in lead II, which MIT-BIH has in modified form, where it has no lead I: protectors
and attackers have learnt from the lead II of the people that the stage gives them.

Beats have the classes of ANSI/AAMI EC57 (paced and unclassifiable ones are not asked for). They are learnt from some
persons and read of others, by the division DS1 -> DS2 of de Chazal, O'Dwyer & Reilly 2004, IEEE TBME 51(7):1196.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import product
from typing import ClassVar, NamedTuple

import numpy as np
import pandas as pd
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.utils.class_weight import compute_sample_weight

from ecgstudy.data.base import Cohort, Signal, as_tables
from ecgstudy.data.cohorts import open_cohort
from ecgstudy.data.public import MitdbCohort
from ecgstudy.data.wfdb_files import read_annotation
from ecgstudy.deidentification import plan, results
from ecgstudy.deidentification.attacks import INVERSION_ATTACKER, LAZY, REFERENCE, SEMI, AttackJob, attackers
from ecgstudy.deidentification.attributes import READER, SETTINGS, ReadingJob
from ecgstudy.deidentification.cycles import peaks_by_record
from ecgstudy.deidentification.readings import reading_results
from ecgstudy.deidentification.release import RAW, protection_of
from ecgstudy.deidentification.results import BEST, UTILITY, WORST
from ecgstudy.errors import NotApplicableError, StudyError
from ecgstudy.evaluate.protocols import CrossDay, TimeSeparated
from ecgstudy.evaluate.results import result, results_table
from ecgstudy.evaluate.splits import RECORD
from ecgstudy.experiment.jobs import Context, Outcome, run
from ecgstudy.experiment.scores import score
from ecgstudy.signals.ingest import build_store
from ecgstudy.signals.store import RecordStore
from ecgstudy.study.cache import cache_key, code_key

METHODS = (RAW, "own_cycle.own", "microaggregation.5", "pp_vae.10", "bottleneck.128", BEST)
"""Releases that are asked, fixed beforehand, by one seed of each network."""
MOVED = tuple(view for view in METHODS if protection_of(view).retiming)
"""Those that draw heartbeats at other times."""
COHORT = MitdbCohort.name
LEAD, MODIFIED = "II", "MLII"
CLASSES = {"N": "NLRej", "S": "AaJS", "V": "VE", "F": "F"}
"""Classes of beats, and the annotations that each stands for."""
OTHER = "Q"
DS1 = (101, 106, 108, 109, 112, 114, 115, 116, 118, 119, 122, 124, 201, 203, 205, 207, 208, 209, 215, 220, 223, 230)
DS2 = (100, 103, 105, 111, 113, 117, 121, 123, 200, 202, 210, 212, 213, 214, 219, 221, 222, 228, 231, 232, 233, 234)
"""Records that are learnt from and those that are asked, without the paced ones; 201 and 202 are one person."""
BEFORE_S, AFTER_S = 0.25, 0.45
"""Seconds of a beat, around its annotation."""
MATCH_S = 0.15
"""Seconds between an R peak that was found and the annotation of its beat, at most (EC57)."""
HIDDEN, DECAY, BATCH, EPOCHS, NETWORKS_ASKED, FARTHEST = 32, 1.0, 256, 8, 3, 6.0
"""The reader: units of its one layer, weight decay, beats a step, epochs, networks whose mean is asked, and standard
deviations beyond which an input is cut off. Chosen by cross-validation on the persons of :data:`DS1`."""
RETIMED = "Not defined: heartbeats are drawn at other times, so that no released beat is an annotated one."


class LaterMinutes(CrossDay):
    """Recordings of the early minutes enrol, that of the last minutes probes; `session` tells them apart."""

    name: ClassVar[str] = "later_minutes"
    claim: ClassVar[str] = "a person is recognised minutes later"


class EarlyAndLate(Cohort):
    """Recordings of five minutes out of half-hour ones, with the time (s) and the class of each annotated beat.

    Parameters
    ----------
    source : MitdbCohort
        The half-hour records, with their annotations.
    store : RecordStore
        The same, ingested; their filtered samples are cut, each recording in the lead :data:`MODIFIED`.
    """

    name = COHORT
    licence = MitdbCohort.licence
    how_to_get = MitdbCohort.how_to_get

    def __init__(self, source: MitdbCohort, store: RecordStore) -> None:
        self._source, self._store = source, store
        records = store.records
        annotated = records["usable_leads"].map(lambda leads: MODIFIED in leads) & records["n_beats"].notna()
        (split,) = TimeSeparated().splits(records[annotated].reset_index(drop=True), store.fs, 0)
        spans = pd.concat([split.enrolment.assign(session=1), split.probe.assign(session=2)], ignore_index=True)
        spans["source"] = spans[RECORD]
        spans[RECORD] += "/" + (spans["start"] / store.fs).map("{:.0f}".format)
        self._spans = spans.set_index(RECORD)

    @cached_property
    def _scan(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Recordings, with their annotations as columns `beat_s` (s from the start) and `beat_class` (letters)."""
        known = self._store.records.set_index(RECORD)[["age", "sex", "unit"]]
        rows, marks = self._spans.join(known, on="source").drop(columns="sha256").reset_index(), {}
        letters = {symbol: name for name, symbols in CLASSES.items() for symbol in symbols}
        for name in rows["source"].unique():
            header = self._source.header(name)
            found = read_annotation(header.path.with_suffix(".atr"), self._source.root, header.n_samples)
            marks[name] = np.array(found.sample) / header.fs, np.array([letters.get(s, OTHER) for s in found.symbol])
        inside = []
        for row in rows.itertuples():
            seconds, names = marks[row.source]
            first, end = row.start / self._store.fs, row.stop / self._store.fs
            within = (seconds >= first) & (seconds < end)
            inside.append({"beat_s": tuple(seconds[within] - first), "beat_class": "".join(names[within])})
        rows = rows.assign(fs=self._store.fs, n_samples=rows["stop"] - rows["start"], leads=[(LEAD,)] * len(rows))
        return as_tables(rows.drop(columns=["start", "stop"]).join(pd.DataFrame(inside)), [])

    def signal(self, record_id: str) -> Signal:
        """Cut one recording."""
        span = self._spans.loc[record_id]
        record = self._store.records.set_index(RECORD).loc[span["source"]]
        values = self._store.signal(span["source"])[[record["leads"].index(MODIFIED)], span["start"] : span["stop"]]
        return Signal(values, self._store.fs, (LEAD,), record["unit"])

    def digest(self) -> str:
        """SHA-256 (hex) over the store, whose key holds the annotations, and the spans."""
        spans = self._spans.reset_index().astype(str).to_numpy().tolist()
        return cache_key(store=self._store.manifest["key"], code=code_key(type(self)), spans=spans)


class Answers(NamedTuple):
    """What half-hour records say, as rows of the results table, of persons and of beats."""

    persons: pd.DataFrame
    beats: pd.DataFrame
    refusals: pd.DataFrame
    commits: set[str]


def long_context(context: Context) -> Context:
    """Context of the recordings of five minutes and of the people to learn from, all in lead II.

    ``NotApplicableError`` where there are no annotated records of persons enough, or nobody else to learn from.
    """
    people, _ = plan.asked_cohorts(context)
    if COHORT not in context.stores:
        raise NotApplicableError("no cohort here has half-hour records with annotated beats, as MIT-BIH has")
    if people == COHORT or LEAD not in plan.common_leads(context.stores[people]):
        raise NotApplicableError("no cohort but MIT-BIH has people whose lead II could be learnt from")
    cohort = EarlyAndLate(open_cohort(COHORT), context.stores[COHORT])
    stores = {name: context.stores[name] for name in (people, *plan.auxiliary(context))}
    stores[COHORT] = build_store(cohort, context.cache, context.stores[COHORT].fs, delineate=False)
    known = {name: each for name, each in attackers(context.profile, LEAD).items() if name != INVERSION_ATTACKER}
    found = Context(context.profile, stores, context.device, known, LEAD, cache=context.cache)
    if COHORT not in plan.asked_cohorts(found)[1]:
        raise NotApplicableError(f"fewer than {plan.LEAST_SOUGHT} persons have half-hour records with annotated beats")
    return found


def later_jobs(context: Context, folders: Mapping[str, Mapping[str, str]], seed: int) -> list[AttackJob]:
    """Attackers of raw records, and semi-informed ones of every release, on early minutes against late ones."""
    mine = [each for name, each in plan.strangers(context) if name == COHORT and isinstance(each.inner, CrossDay)]
    asked = [(COHORT, replace(protocol, inner=LaterMinutes())) for protocol in mine]
    jobs = plan.attack_jobs(context, asked, folders, seed)
    return [job for job in jobs if job.tier in (REFERENCE, SEMI) and job.seed == seed]


def beat_jobs(context: Context, folders: Mapping[str, Mapping[str, str]], seed: int) -> list[ReadingJob]:
    """Readers of the beats of raw records, and of every release that keeps the times of beats."""
    jobs = [ReadingJob(COHORT, RAW, REFERENCE, 0, seed)]
    for view, stores in folders.items():
        if view not in MOVED:
            folder = context.cache / stores[COHORT]
            jobs += [ReadingJob(COHORT, view, tier, 0, seed, folder) for tier in (LAZY, SEMI)]
    return jobs


def read_beats(context: Context, job: ReadingJob) -> pd.DataFrame:
    """Learn the classes of beats from the persons of :data:`DS1` and read those of :data:`DS2`.

    One row a beat and class: person, record (which names the beat), task, truth, p (of the class), age.
    """
    raw = context.stores[COHORT]
    changed = raw if job.folder is None else RecordStore(job.folder)
    learns, reads = ((changed if protected else raw) for protected in SETTINGS[job.tier])
    (inputs, known), (questions, asked) = beats_of(learns, DS1), beats_of(reads, DS2)
    strangers = (~known["person"].isin(asked["person"])).to_numpy()
    if known["truth"][strangers].nunique() < 2:
        raise StudyError("the beats of the persons to learn from are all of one class")
    chances = _chances(inputs[strangers], known["truth"][strangers], questions, job.seed)
    asked = asked.assign(attacker=READER, own=False, age=np.nan)
    tables = [
        asked.assign(task=f"aami_{name}", truth=(asked["truth"] == name).astype(float), p=chances[name])
        for name in CLASSES
    ]
    return pd.concat(tables, ignore_index=True)


def _chances(inputs: np.ndarray, truth: pd.Series, questions: np.ndarray, seed: int) -> pd.DataFrame:
    """Probability of each class, a column each, of some beats by networks that learnt from others; rare ones count."""
    known, asked = pd.DataFrame(inputs), pd.DataFrame(questions)
    mean, spread = known.mean(), known.std().replace(0, 1)
    scaled, asked = (((each - mean) / spread).fillna(0).clip(-FARTHEST, FARTHEST) for each in (known, asked))
    weights, found = np.sqrt(compute_sample_weight("balanced", truth)), []
    batch = min(BATCH, len(truth))
    for number in range(seed, seed + NETWORKS_ASKED):
        network = MLPClassifier((HIDDEN,), alpha=DECAY, batch_size=batch, max_iter=EPOCHS, random_state=number)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # few epochs are meant
            network.fit(scaled, truth, sample_weight=weights)
        found.append(network.predict_proba(asked))
    return pd.DataFrame(np.mean(found, axis=0), columns=network.classes_).reindex(columns=[*CLASSES])


def beats_of(store: RecordStore, numbers: Sequence[int]) -> tuple[np.ndarray, pd.DataFrame]:
    """Beats of some half-hour records as a reader sees them, shape (n, n_features), with person, record and truth.

    A beat is cut at its annotation and brought to the recording's scale. Its likeness to the recording's median beat
    comes with it, and the intervals before and after it between R peaks that were found in what is read.
    """
    peaks, inputs, tables = peaks_by_record(store), [], []
    records = store.records
    for row in records[records["source"].isin(map(str, numbers))].itertuples():
        lead, at, names = store.signal(row.record_id)[0], np.array(row.beat_s), np.array([*row.beat_class])
        whole = (at >= BEFORE_S) & (at + AFTER_S < len(lead) / store.fs) & np.isin(names, [*CLASSES])
        at = at[whole]
        if not len(at):
            continue
        places = (at[:, None] + np.arange(-BEFORE_S, AFTER_S, 1 / store.fs)) * store.fs
        beats = np.interp(places, np.arange(len(lead)), np.nan_to_num(lead))
        beats -= beats.mean(axis=1, keepdims=True)
        typical = np.median(beats, axis=0)
        scale = max(float(np.linalg.norm(typical)), 1e-9)
        likeness = beats @ typical / scale / np.maximum(np.linalg.norm(beats, axis=1), 1e-9)
        rhythm = _intervals(at, peaks.get(row.record_id, np.zeros(0)))
        inputs.append(np.column_stack([beats / scale, likeness, rhythm]))
        beat = [f"{row.record_id} {second:.3f}" for second in at]
        tables.append(pd.DataFrame({"person": row.subject_id, "record": beat, "truth": names[whole]}))
    if not tables:
        raise StudyError("no annotated beat of the persons to learn from, or of those to ask, can be read")
    return np.vstack(inputs), pd.concat(tables, ignore_index=True)


def _intervals(at: np.ndarray, peaks: np.ndarray) -> np.ndarray:
    """Intervals (s) before and after each beat, in s and over the median one, and their quotient; NaN if not found."""
    if len(peaks) < 2:
        return np.full((len(at), 5), np.nan)
    own = np.abs(at[:, None] - peaks).argmin(axis=1)
    lengths = np.concatenate([[np.nan], np.diff(peaks), [np.nan]])
    before, after = lengths[own], lengths[own + 1]
    typical = np.nanmedian(lengths)
    found = np.column_stack([before, after, before / typical, after / typical, before / after])
    found[np.abs(at - peaks[own]) > MATCH_S] = np.nan
    return found


def beat_results(read: Outcome, jobs: Sequence[ReadingJob], seed: int) -> pd.DataFrame:
    """Long table of the AUROC of each class of beats against the others, and its share of the beats (`base_rate`).

    `n` counts persons, of a share those who have such a beat. A release that moves beats has undefined rows.
    """
    about = {"cohort": COHORT, "protocol": "strangers", "attacker": "reader"}
    rows = []
    for view, tier, name in product(MOVED, (LAZY, SEMI), CLASSES):
        told = {"task": f"aami_{name}", "tier": tier, "name": f"deid.{view}.utility.aami_{name}.{UTILITY[tier]}.auroc"}
        rows.append(result("auroc", np.nan, "share", note=RETIMED, view=view, **about, **told))
    raw = read.values.get(jobs[0].name, pd.DataFrame(columns=["task"]))
    for task, part in raw.groupby("task", sort=False):
        persons = part.loc[part["truth"] == 1, "person"].nunique()
        told = {"task": task, "tier": REFERENCE, "name": f"deid.{RAW}.utility.{task}.base_rate"}
        rows.append(result("base_rate", float(part["truth"].mean()), "share", n=persons, view=RAW, **about, **told))
    return pd.concat([reading_results(read.values, jobs, (), seed), results_table(rows)], ignore_index=True)


def ask(context: Context, seed: int) -> Answers:
    """Release half-hour records, attack the releases and read their beats; where that is impossible say why."""
    try:
        inner = long_context(context)
    except NotApplicableError as impossible:
        about = {"cohort": COHORT, "protocol": LaterMinutes.name, "attacker": "", "view": "", "seed": seed}
        refusal = pd.DataFrame([about | {"reason": f"Not applicable, because {impossible}."}])
        nothing = results_table([]).assign(name="")
        return Answers(nothing, nothing, refusal, set())
    people, _ = plan.asked_cohorts(inner)
    views = [view for view in METHODS if view != RAW]
    jobs = [plan.ReleaseJob(plan.IDENTITY, people, tuple(inner.stores), (LEAD,), view, 0, seed) for view in views]
    made = run(plan.release, jobs, inner, "releases, half-hour records")
    folders, _ = plan.released(jobs, made, ())
    attacks, readings = later_jobs(inner, folders, seed), beat_jobs(inner, folders, seed)
    attacked, read = run(score, attacks, inner, "attacks, minutes later"), run(read_beats, readings, inner, "beats")
    persons = results.attack_results(attacked.values, attacks, seed)
    persons = persons[persons["protocol"] != WORST]
    persons = pd.concat([persons, results.rhythm_floor_results(persons)], ignore_index=True)
    outcomes = (made, attacked, read)
    refusals = pd.concat([outcome.refusals for outcome in outcomes], ignore_index=True)
    commits = set().union(*(outcome.commits for outcome in outcomes))
    return Answers(persons, beat_results(read, readings, seed), refusals, commits)
