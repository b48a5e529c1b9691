"""Scores of one attacker under one protocol: what is computed once and evaluated as often as one likes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

import numpy as np
import pandas as pd

from ecgstudy.evaluate.splits import RECORD, SUBJECT, Split
from ecgstudy.experiment.attackers import Embedded, Fitted
from ecgstudy.experiment.dataset import VIEWS, Dataset
from ecgstudy.experiment.jobs import Context, Job
from ecgstudy.experiment.networks import CLASSES
from ecgstudy.learn.classical import unit_rows


@dataclass(frozen=True)
class FoldScores:
    """Scores of the trials of one fold, and the same on the validation part, for every choice that is made.

    `scores` (n_probe, n_gallery) are higher for the more similar; a gallery entry is a person, a probe a record with
    all its windows pooled (under random windows a window). Names are ``cohort/name``. `demographics` has a row a probe
    whose label is known and task that the attacker was trained for: task, person, record, truth, age, expected_age
    (years) and a probability ``p_<class>`` a class.
    """

    scores: np.ndarray
    probe_persons: np.ndarray
    probe_records: np.ndarray
    gallery_persons: np.ndarray
    validation_scores: np.ndarray
    validation_probe_persons: np.ndarray
    validation_gallery_persons: np.ndarray
    demographics: pd.DataFrame = field(default_factory=pd.DataFrame)


@dataclass(frozen=True)
class ScoreSet:
    """Scores of one attacker, cohort, protocol and seed; people of different folds are never compared."""

    cohort: str
    protocol: str
    attacker: str
    seed: int
    folds: tuple[FoldScores, ...]


def score(context: Context, job: Job) -> ScoreSet:
    """Fit a job's attacker on each of its splits, and score its probes and its validation part."""
    folds = tuple(_fold(context, job, fold, split) for fold, split in enumerate(context.splits(job)))
    return ScoreSet(job.cohort, job.protocol.name, job.attacker, job.seed, folds)


def _fold(context: Context, job: Job, fold: int, split: Split) -> FoldScores:
    """Score one fold, each part of the split read through the job's view where the view changes it."""
    view = VIEWS[job.view].fitted(context.dataset, split)
    viewed = context.dataset.viewed(view)

    def read(part: str) -> Dataset:
        return viewed if part in view.parts else context.dataset

    fitted: Fitted = context.fitted(job, fold)
    enrolled = fitted.embed(read("enrolment"), split.enrolment)
    probed = fitted.embed(read("probe"), split.probe)
    scored = trial(split.enrolment, enrolled, split.probe, probed)
    choose_from, choose_on = validation_trial(split)
    held = trial(
        choose_from, fitted.embed(read("train"), choose_from), choose_on, fitted.embed(read("train"), choose_on)
    )
    rows = list(chain.from_iterable(_task_rows(split.probe, probed, context.people, fitted.ages)))
    return FoldScores(*scored, held[0], held[1], held[3], pd.DataFrame(rows))


def trial(
    enrolment: pd.DataFrame, enrolled: Embedded, probe: pd.DataFrame, probed: Embedded
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Score every usable probe against every enrolled person: scores, probe persons and records, gallery persons.

    A person's gallery entry is the mean direction of the person's segments. Probes and persons without a
    usable window keep their rows and columns, as NaN: the evaluation counts them against the attacker.
    """
    usable = np.isfinite(enrolled.vectors).all(axis=1)
    codes, persons = pd.factorize(enrolment[SUBJECT].to_numpy(dtype=str))
    sums = np.zeros((len(persons), enrolled.vectors.shape[1]))
    np.add.at(sums, codes[usable], enrolled.vectors[usable])
    scores = (probed.vectors @ unit_rows(sums).T).astype(np.float32)
    return scores, probe[SUBJECT].to_numpy(dtype=str), probe[RECORD].to_numpy(dtype=str), persons.astype(str)


def validation_trial(split: Split) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Segments that enrol and probe the persons of the validation part.

    In closed-set splits the training part enrols and the validation part probes. For people never seen, a
    validation person's first record enrols and the others probe; of a person with one record, its halves do.
    """
    if not split.unseen_persons:
        return split.train, split.validation
    held = split.validation
    nth, count = held.groupby(SUBJECT).cumcount(), held.groupby(SUBJECT)[RECORD].transform("size")
    middle = (held["start"] + held["stop"]) // 2
    single = count == 1
    enrolment = held.assign(stop=held["stop"].where(~single, middle))[nth == 0]
    probe = held.assign(start=held["start"].where(~single, middle))[(nth > 0) | single]
    return enrolment.reset_index(drop=True), probe.reset_index(drop=True)


def _task_rows(
    probe: pd.DataFrame, probed: Embedded, people: pd.DataFrame, ages: np.ndarray | None
) -> Iterator[list[dict[str, object]]]:
    """Rows of :attr:`FoldScores.demographics`, a list a task."""
    known = people.reindex(probe[SUBJECT])
    for task, probabilities in probed.probabilities.items():
        rows = []
        for person, record, truth, age, shares in zip(
            probe[SUBJECT], probe[RECORD], known[task], known["age"], probabilities, strict=True
        ):
            if pd.isna(truth) or not np.isfinite(shares).all():
                continue
            row = {"task": task, "person": person, "record": record, "truth": truth, "age": age}
            row["expected_age"] = float(shares @ ages) if task == "age_group" else np.nan
            rows.append(row | {f"p_{name}": float(p) for name, p in zip(CLASSES[task], shares, strict=True)})
        yield rows


def never_matched(scores: np.ndarray) -> np.ndarray:
    """Give trials without a score (no usable window) the lowest score there is, so that they match nobody."""
    undefined = np.isnan(scores)
    lowest = scores[~undefined].min() if not undefined.all() else 0.0
    return np.where(undefined, lowest, scores)


def without_gaps(score_set: ScoreSet) -> ScoreSet:
    """Give probes and enrolled persons without a usable window the lowest score there is: they match nobody.

    ISO/IEC 19795-1 counts failures to acquire and to enrol as false rejections in just this way; every attacker
    is then judged on the same trials.
    """
    return replace(score_set, folds=tuple(replace(fold, scores=never_matched(fold.scores)) for fold in score_set.folds))


def ensemble(score_sets: Sequence[ScoreSet]) -> ScoreSet:
    """Average the scores of several seeds of one attacker; refuses sets of different attackers or trials."""
    first = score_sets[0]
    about = {(s.cohort, s.protocol, s.attacker, len(s.folds)) for s in score_sets}
    if len(about) > 1:
        raise ValueError(f"score sets of different attackers or protocols: {sorted(about)}")
    folds = [_mean_fold([s.folds[number] for s in score_sets]) for number in range(len(first.folds))]
    return replace(first, seed=-1, folds=tuple(folds))


def _mean_fold(folds: Sequence[FoldScores]) -> FoldScores:
    """Average scores and class probabilities of the same trials."""
    first = folds[0]
    if not all(np.array_equal(fold.probe_records, first.probe_records) for fold in folds):
        raise ValueError("score sets with different probes cannot be averaged")
    mean = first.demographics.copy()
    for column in [c for c in mean if c.startswith("p_") or c == "expected_age"]:
        mean[column] = np.mean([fold.demographics[column] for fold in folds], axis=0)
    return replace(
        first,
        scores=np.mean([fold.scores for fold in folds], axis=0),
        validation_scores=np.mean([fold.validation_scores for fold in folds], axis=0),
        demographics=mean,
    )
