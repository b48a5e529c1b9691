"""Scores of one attacker under one protocol: what is computed once and evaluated as often as one likes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pandas as pd

from ecgstudy.errors import StudyError
from ecgstudy.evaluate.splits import RECORD, SUBJECT, Split
from ecgstudy.evaluate.streamed import StreamedMatrix
from ecgstudy.evaluate.trials import MOST_HELD_TRIALS, Mean, ScoreMatrix
from ecgstudy.experiment.attackers import Embedded, Fitted
from ecgstudy.experiment.jobs import Context, Job
from ecgstudy.experiment.networks import CLASSES
from ecgstudy.experiment.templates import ENROLMENTS, MEAN, Gallery

EMBEDDED_AT_ONCE = 3000
"""Segments whose windows are in memory together."""


@dataclass(frozen=True)
class FoldScores:
    """Trials of one fold, and those of its validation part, for every choice that is made.

    A gallery entry is a person, a probe a record with all its windows pooled (under random windows a window); names are
    ``cohort/name``. `demographics` has a row a probe whose label is known and task that the attacker was trained for:
    task, person, record, truth, age, expected_age (years) and a probability ``p_<class>`` a class.
    """

    trials: ScoreMatrix | StreamedMatrix
    validation: ScoreMatrix
    probe_records: np.ndarray
    demographics: pd.DataFrame = field(default_factory=pd.DataFrame)


@dataclass(frozen=True)
class ScoreSet:
    """Scores of one attacker, cohort, protocol and seed; people of different folds are never compared.

    `folds` are scored by the `rule` of ``ENROLMENTS``, `others` by the other rules, from the same embeddings.
    """

    cohort: str
    protocol: str
    attacker: str
    seed: int
    folds: tuple[FoldScores, ...]
    others: Mapping[str, tuple[FoldScores, ...]] = field(default_factory=dict)
    rule: str = MEAN

    @property
    def rules(self) -> tuple[str, ...]:
        """Rules by which there are scores."""
        return self.rule, *self.others

    def named(self, rule: str) -> "ScoreSet":
        """Give the attacker the name that it has under a rule."""
        return self if rule == MEAN else replace(self, attacker=f"{self.attacker}_{rule}", rule=rule)

    def under(self, rule: str) -> "ScoreSet":
        """Scores by one rule alone."""
        folds = self.folds if rule == self.rule else self.others[rule]
        return replace(self, folds=folds, others={}).named(rule)


def score(context: Context, job: Job) -> ScoreSet:
    """Fit a job's attacker on each of its splits, and score its probes and its validation part."""
    splits = context.splits(job)
    if any(split.enrolment.empty for split in splits):
        raise StudyError("no record enrols anybody")
    if any(split.probe.empty for split in splits):
        raise StudyError("no record is left that could be recognised")
    folds = [_fold(context, job, fold, split) for fold, split in enumerate(splits)]
    by_rule = {rule: tuple(fold[rule] for fold in folds) for rule in ENROLMENTS}
    return ScoreSet(job.cohort, job.protocol.name, job.attacker, job.seed, by_rule.pop(MEAN), by_rule)


def _fold(context: Context, job: Job, fold: int, split: Split) -> dict[str, FoldScores]:
    """Score one fold by every rule, each part of the split read through the job's view where the view changes it."""
    view = job.transform().fitted(context.dataset, split)
    viewed, fitted = view.of(context.dataset), context.fitted(job, fold)

    def embed(part: str, segments: pd.DataFrame, reader: Fitted) -> Embedded:
        def read() -> Embedded:
            dataset = viewed if part in view.parts else context.dataset
            chunks = (segments[at : at + EMBEDDED_AT_ONCE] for at in range(0, max(len(segments), 1), EMBEDDED_AT_ONCE))
            return Embedded.joined([reader.embed(dataset, chunk.reset_index(drop=True)) for chunk in chunks])

        if job.view == "raw" or part in view.parts or "train" in view.parts:
            return read()
        # who learnt from records as they are reads such records alike, whatever the view of the others
        return context.shared((job.cohort, job.protocol.digest, job.attacker, job.seed, fold, part), read)

    enrolled, probed = embed("enrolment", split.enrolment, fitted), embed("probe", split.probe, fitted)
    known, held = validation_trial(split)
    learnt, chosen_on = embed("train", known, fitted.before_refit), embed("held", held, fitted.before_refit)
    records = split.probe[RECORD].to_numpy(dtype=str)
    scored = {
        rule: FoldScores(
            trial(split.enrolment, enrolled, split.probe, probed, rule),
            trial(known, learnt, held, chosen_on, rule).sampled(),
            records,
        )
        for rule in ENROLMENTS
    }
    about = _demographics(split.probe, probed, context.people, fitted.ages)
    return scored | {MEAN: replace(scored[MEAN], demographics=about)}


def trial(
    enrolment: pd.DataFrame, enrolled: Embedded, probe: pd.DataFrame, probed: Embedded, rule: str = MEAN
) -> ScoreMatrix | StreamedMatrix:
    """Score every usable probe against every enrolled person, who is enrolled by a `rule` of ``ENROLMENTS``.

    Probes and persons without a usable window keep their rows and columns, as NaN: the evaluation counts them against
    the attacker.
    """
    codes, persons = pd.factorize(enrolment[SUBJECT].to_numpy(dtype=str))
    whose, streamed = probe[SUBJECT].to_numpy(dtype=str), len(probe) * len(persons) > MOST_HELD_TRIALS
    known, asked = (part.vectors.astype(np.float32 if streamed else np.float64) for part in (enrolled, probed))
    gallery = Gallery.enrolled(known, codes, len(persons), ENROLMENTS[rule])
    if streamed:
        return StreamedMatrix(partial(_block, gallery, asked), whose, persons)
    return ScoreMatrix(gallery.scores(asked), whose, persons)


def _block(gallery: Gallery, probed: np.ndarray, rows: slice | np.ndarray) -> np.ndarray:
    """Scores of some probes with everybody."""
    return gallery.scores(probed[rows])


def validation_trial(split: Split) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Segments that enrol and probe the persons of the validation part.

    In closed-set splits the training part enrols and the validation part probes. For people never seen, all records of
    a validation person's first day enrol and those of later days probe; of a person with one day its first record
    enrols and the others probe; of a person with one record, its halves do.
    """
    if not split.unseen_persons:
        return split.train, split.validation
    held = split.validation
    by_person = held.groupby(SUBJECT)
    count, later = by_person[RECORD].transform("size"), held["session"] > by_person["session"].transform("min")
    known = (by_person.cumcount() == 0).where(~later.groupby(held[SUBJECT]).transform("any"), ~later)
    middle = (held["start"] + held["stop"]) // 2
    single = count == 1
    enrolment = held.assign(stop=held["stop"].where(~single, middle))[known]
    probe = held.assign(start=held["start"].where(~single, middle))[~known | single]
    return enrolment.reset_index(drop=True), probe.reset_index(drop=True)


def _demographics(probe: pd.DataFrame, probed: Embedded, people: pd.DataFrame, ages: np.ndarray | None) -> pd.DataFrame:
    """Table of :attr:`FoldScores.demographics`."""
    known = people.reindex(probe[SUBJECT]).rename_axis("person").reset_index()
    tables = []
    for task, probabilities in probed.probabilities.items():
        about = {"task": task, "person": known["person"], "record": probe[RECORD].to_numpy(), "truth": known[task]}
        table = pd.DataFrame({**about, "age": known["age"], "expected_age": np.nan})
        if task == "age_group":
            table["expected_age"] = [float(shares @ ages) for shares in probabilities]
        table[[f"p_{name}" for name in CLASSES[task]]] = probabilities
        tables.append(table[table["truth"].notna() & np.isfinite(probabilities).all(axis=1)])
    labelled = [table for table in tables if len(table)]
    return pd.concat(labelled, ignore_index=True) if labelled else pd.DataFrame()


def mean_fold(folds: Sequence[FoldScores], mean: Mean, demographics: pd.DataFrame) -> FoldScores:
    """Fold whose test and validation scores are a `mean` of those of the same trials by several seeds or attackers."""
    first = folds[0]
    if not all(np.array_equal(fold.probe_records, first.probe_records) for fold in folds):
        raise ValueError("score sets with different probes cannot be averaged")
    trials = first.trials.combined(mean, [fold.trials for fold in folds])
    validation = first.validation.combined(mean, [fold.validation for fold in folds])
    return FoldScores(trials, validation, first.probe_records, demographics)


def ensemble(score_sets: Sequence[ScoreSet]) -> ScoreSet:
    """Average the scores and class probabilities of several seeds of one attacker; refuses other sets and trials."""
    first = score_sets[0]
    about = {(s.cohort, s.protocol, s.attacker, len(s.folds)) for s in score_sets}
    if len(about) > 1:
        raise ValueError(f"score sets of different attackers or protocols: {sorted(about)}")
    folds = []
    for same in zip(*(s.folds for s in score_sets), strict=True):
        table = same[0].demographics.copy()
        for column in [c for c in table if c.startswith("p_") or c == "expected_age"]:
            table[column] = np.mean([fold.demographics[column] for fold in same], axis=0)
        folds.append(mean_fold(same, partial(np.mean, axis=0), table))
    return replace(first, seed=-1, folds=tuple(folds), others={})
