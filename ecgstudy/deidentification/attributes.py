"""Sex, age and diagnoses read from a release: what it still gives away, and what it is still good for.

The same networks answer both questions. Privacy is judged beside its floor: who is told the diagnoses alone, or the
R peaks alone, knows something of sex and age already.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from ecgstudy.deidentification import plan, readers
from ecgstudy.deidentification.attacks import LAZY, REFERENCE, RHYTHM_ATTACKER, SEMI
from ecgstudy.deidentification.cycles import CycleSet, cycle_set
from ecgstudy.deidentification.plan import ATTACKER, PROTECTOR, VICTIM
from ecgstudy.deidentification.readers import ABSENCE, ATTRIBUTES, attribute_table, diagnosis_table
from ecgstudy.deidentification.release import RAW, TWO_DIAGNOSES
from ecgstudy.errors import StudyError
from ecgstudy.evaluate.splits import RECORD, SUBJECT
from ecgstudy.experiment.jobs import SEXES, Context, Work, run
from ecgstudy.experiment.scores import score
from ecgstudy.signals.delineation import delineate
from ecgstudy.signals.store import RecordStore
from ecgstudy.study.config import effort

EPOCHS = {"demo": 8, "real": 40}
SETTINGS = {REFERENCE: (False, False), LAZY: (False, True), SEMI: (True, True), "trained_on_protected": (True, False)}
"""Whether a reader learns from the release, and whether it reads the release, by tier; the last one is for utility."""
BINARY = {"sex": SEXES, "over_60": ABSENCE}
READER = "reader"
"""The attacker who reads shapes and rhythm by a network; :data:`RHYTHM_ATTACKER` reads the R peaks alone."""
FIDELITY = "fidelity"
TOLD_FLOOR, TWO_FLOOR, OUTPUTS_FLOOR, RHYTHM_FLOOR = "told", "two_diagnoses", "outputs", "rhythm"
"""What is known without a waveform: the diagnoses that are told, those of PP-VAE's setting, what a classifier of raw
records says of the diagnoses told, and the R peaks."""


@dataclass(frozen=True)
class ReadingJob:
    """A reader of one setting on one release of a cohort: who is asked is the victims of one rotation."""

    cohort: str
    view: str
    tier: str
    rotation: int
    seed: int
    folder: Path | None = None
    """Store of the release; None for the records as they are."""
    protector: bool = True
    """Whether a group of people is the protector's, so that no attacker learns from them."""

    @property
    def name(self) -> str:
        """Name for files and logs."""
        return f"{self.cohort}.{self.view}.{self.tier}.{self.rotation}.{self.seed}"

    def about(self) -> dict[str, object]:
        """First columns of a row about this job."""
        named = {"cohort": self.cohort, "protocol": "strangers", "attacker": "reader", "view": self.view}
        return named | {"seed": self.seed, "tier": self.tier}

    def made_from(self, context: Context) -> dict[str, object]:
        """JSON values of everything that the reading depends on, besides code."""
        release = self.folder.name if self.folder else ""
        return {"job": self.name, "release": release, "effort": effort(context.profile), "protector": self.protector}


def read(context: Context, job: ReadingJob) -> pd.DataFrame:
    """Train a reader on the attackers' people and let it read the victims' records.

    One row a victim's record, attacker and task: person, record, attacker (the network; of sex and age also who reads
    the R peaks alone), task, truth, ``p`` (of the second class), age, expected_age. Rows that are `own` say the same of
    the people learnt from, sex and age alone: whether the network has learnt anything.
    """
    raw, changed = _both(context, job.cohort, job.folder)
    learns, reads = ((changed if protected else raw) for protected in SETTINGS[job.tier])
    known = learns.rows(plan.groups(context, job.cohort, learns.records, job.rotation, job.protector) == ATTACKER)
    asked = reads.rows(plan.groups(context, job.cohort, reads.records, job.rotation) == VICTIM)
    if not len(known) or not len(asked):
        raise StudyError("too few records of the release can be read to learn from some and to ask others")
    both = pd.concat([known.records, asked.records], ignore_index=True)
    stated = diagnosis_table(both).drop(columns=[*ATTRIBUTES], errors="ignore")
    labels, truth = (
        pd.concat([attribute_table(cycles.records), diagnoses.reset_index(drop=True)], axis=1)
        for cycles, diagnoses in ((known, stated[: len(known)]), (asked, stated[len(known) :]))
    )
    tasks = {name: classes for name, classes in ATTRIBUTES.items() if len(labels[name].dropna().unique()) > 1}
    tasks |= readers.tasks_of(labels[[*stated]])
    if not tasks:
        raise StudyError("neither sex nor age nor any diagnosis is known of enough people to learn it from")
    epochs = EPOCHS[effort(context.profile)]
    model = readers.train_reader(known, labels, tasks, job.seed, context.runs, epochs, context.device)
    tables = []
    for task, chances in readers.probabilities(model, asked).items():
        table = _answers(asked, task, truth[task], chances[:, 1])
        if task == "age_group":
            ages = known.records["age"].groupby(labels[task]).mean().reindex(ATTRIBUTES[task])
            table["expected_age"] = chances @ ages.interpolate(limit_direction="both")
            table["median_age"] = known.records["age"].median()
        tables.append(table)
    learnt = readers.probabilities(model, known)
    for task in [task for task in BINARY if task in tasks]:
        tables.append(_answers(known, task, labels[task], learnt[task][:, 1], own=True))
        by_rhythm = _rhythm_reader(known.rhythm, _as_numbers(labels[task], task)).predict_proba(asked.rhythm)
        tables.append(_answers(asked, task, truth[task], by_rhythm[:, 1], RHYTHM_ATTACKER))
    return pd.concat(tables, ignore_index=True)


def _answers(
    cycles: CycleSet, task: str, truth: pd.Series, p: np.ndarray, attacker: str = READER, own: bool = False
) -> pd.DataFrame:
    """Rows of :func:`read` on one task."""
    records = cycles.records
    about = {"person": records[SUBJECT], "record": records[RECORD], "age": records["age"]}
    return pd.DataFrame(
        about | {"attacker": attacker, "own": own, "task": task, "truth": _as_numbers(truth, task), "p": p}
    )


def _rhythm_reader(rhythm: np.ndarray, truth: pd.Series) -> HistGradientBoostingClassifier:
    """Who reads R peaks alone, taught by the rhythms whose truth (0, 1) is known."""
    model = HistGradientBoostingClassifier(max_depth=3, max_iter=60, learning_rate=0.05, random_state=0)
    known = truth.notna().to_numpy()
    return model.fit(rhythm[known], truth[known])


def _both(context: Context, cohort: str, folder: Path | None) -> tuple[CycleSet, CycleSet]:
    """Cycles of a cohort as it is and as the store of a release holds it, of the same leads."""
    leads = plan.common_leads(context.stores[cohort])
    raw = plan.cycles_of(context, cohort, leads)
    if folder is None:
        return raw, raw
    return raw, context.shared(("cycles", folder), lambda: cycle_set(RecordStore(folder), leads))


def _as_numbers(answers: pd.Series, task: str) -> pd.Series:
    """Truth as 0 and 1; of age groups their number."""
    if answers.dtype == float:
        return answers
    return answers.map({name: number for number, name in enumerate(ATTRIBUTES[task])}).astype(float)


def reading_jobs(context: Context, readable: Mapping[tuple[str, int], str], seed: int) -> list[ReadingJob]:
    """Readers of every tier on every release (`readable`: folder by protection and rotation) and on none."""
    cohort, _ = plan.asked_cohorts(context)
    asked = [(RAW, REFERENCE, rotation, None) for rotation in sorted({rotation for _, rotation in readable})]
    asked += [
        (view, tier, rotation, context.cache / folder)
        for (view, rotation), folder in readable.items()
        for tier in SETTINGS
        if tier != REFERENCE
    ]
    return [
        ReadingJob(cohort, view, tier, rotation, number, folder)
        for view, tier, rotation, folder in asked
        for number in plan.seeds_of(context.profile, seed, view)
    ]


def measure(context: Context, job: ReadingJob) -> pd.DataFrame:
    """Find the waves of the victims' records and measure their :func:`intervals`, indexed by record."""
    store = RecordStore(job.folder) if job.folder else context.stores[job.cohort]
    records = store.records
    victims = records[plan.groups(context, job.cohort, records, job.rotation) == VICTIM]
    beats = []
    for record in victims.itertuples():
        lead = store.signal(record.record_id)[record.leads.index(record.reference_lead)]
        points = pd.DataFrame(delineate(lead, store.fs)[0]) / store.fs
        beats.append(points.assign(**{RECORD: record.record_id}))
    return intervals(pd.concat(beats)).reindex(victims[RECORD])


def intervals(beats: pd.DataFrame) -> pd.DataFrame:
    """Mean heart rate (beats/min), median PR, QRS and QTc (ms; Fridericia) of each record, indexed by it.

    `beats` holds fiducials in seconds, as :attr:`ecgstudy.signals.store.RecordStore.beats` does.
    """
    rr = beats.groupby(RECORD)["r_peak"].diff()
    beats = beats.assign(
        rr=rr,
        pr=1000 * (beats["qrs_onset"] - beats["p_onset"]),
        qrs=1000 * (beats["qrs_offset"] - beats["qrs_onset"]),
        qtc=1000 * (beats["t_offset"] - beats["qrs_onset"]) / np.cbrt(rr),
    )
    found = beats.groupby(RECORD)[["pr", "qrs", "qtc"]].median()
    return found.assign(heart_rate=60 / beats.groupby(RECORD)["rr"].mean())


def interval_jobs(context: Context, readable: Mapping[tuple[str, int], str]) -> list[ReadingJob]:
    """Measurements of the records as they are and of every release, of the victims of the first rotation."""
    cohort, _ = plan.asked_cohorts(context)
    asked = [(RAW, None), *((view, context.cache / folder) for (view, turn), folder in readable.items() if not turn)]
    return [ReadingJob(cohort, view, FIDELITY, 0, 0, folder) for view, folder in asked]


def floors(context: Context, rotations: Sequence[int], protector: bool = True) -> pd.DataFrame:
    """Predictions of sex and age from the diagnoses that are told, and from the R peaks, without any waveform.

    Rows like those of :func:`read`, with the column `floor`.
    """
    cohort, _ = plan.asked_cohorts(context)
    everybody = plan.cycles_of(context, cohort, plan.common_leads(context.stores[cohort]))
    records, stated = everybody.records, diagnosis_table(everybody.records).fillna(0.5)
    told = {TOLD_FLOOR: readers.told_diagnoses(records), TWO_FLOOR: [name for name in TWO_DIAGNOSES if name in stated]}
    sources = {floor: stated[names].to_numpy(dtype=float) for floor, names in told.items() if names}
    sources[RHYTHM_FLOOR] = everybody.rhythm
    truths = {task: _as_numbers(answers, task) for task, answers in attribute_table(records)[[*BINARY]].items()}
    tables = [pd.DataFrame(columns=["person", "task", "floor"])]
    for rotation in rotations:
        group = plan.groups(context, cohort, records, rotation, protector)
        asked = group == VICTIM
        about = {"person": records[SUBJECT][asked], "record": records[RECORD][asked]}
        for (floor, inputs), (task, truth) in product(sources.items(), truths.items()):
            known = (group == ATTACKER) & truth.notna().to_numpy()
            if truth[known].nunique() < 2:
                continue
            teach = _rhythm_reader if floor == RHYTHM_FLOOR else LogisticRegression(max_iter=1000).fit
            chances = teach(inputs[known], truth[known]).predict_proba(inputs[asked])[:, 1]
            tables.append(pd.DataFrame({**about, "task": task, "truth": truth[asked], "p": chances, "floor": floor}))
    return pd.concat(tables[1:] or tables, ignore_index=True)


def membership(context: Context, folder: Path, rotation: int) -> pd.DataFrame:
    """How near each released shape is to its own raw one, for people the protector learnt from and for strangers.

    One row a record: person, truth (1: the protector learnt from the person), p (minus the distance). A protector that
    remembers its people rebuilds them better.
    """
    cohort, _ = plan.asked_cohorts(context)
    raw, changed = _both(context, cohort, folder)
    at = pd.Index(raw.records[RECORD]).get_indexer(changed.records[RECORD])
    distance = np.sqrt(((raw.shapes[at] - changed.shapes) ** 2).mean(axis=(1, 2)))
    group = plan.groups(context, cohort, changed.records, rotation)
    table = pd.DataFrame({"person": changed.records[SUBJECT], "truth": (group == PROTECTOR).astype(float)})
    return table.assign(p=-distance)[np.isin(group, (PROTECTOR, VICTIM))].reset_index(drop=True)


def shared(profile: str, seed: int, device: str) -> Iterator[Work]:
    """Jobs of the stage that several processes may share: releases first, and then what is asked of them."""
    context = plan.open_context(profile, seed, device)
    releases = plan.release_jobs(context, plan.releases_of(profile), seed)
    yield plan.release, releases, context
    rotations = plan.rotations_of(profile)
    identity, readable = plan.released(releases, run(plan.release, releases, context, "releases"), rotations)
    yield score, plan.attack_jobs(context, plan.strangers(context), identity, seed), context
    yield read, reading_jobs(context, readable, seed), context
    yield measure, interval_jobs(context, readable), context
