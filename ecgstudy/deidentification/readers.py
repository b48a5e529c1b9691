"""Networks that read cycles and rhythm: what a record's diagnoses are, and its owner's sex and age.

The same network serves both sides, the protector's utility branch and attackers on attributes. It is a
:class:`~ecgstudy.learn.models.BeatNet` over the median cycles of the leads and, as constant leads, the rhythm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ecgstudy.deidentification.cycles import POINTS, RHYTHM, CycleSet
from ecgstudy.errors import StudyError
from ecgstudy.evaluate.splits import RECORD, SUBJECT
from ecgstudy.experiment.jobs import AGE_EDGES, AGE_GROUPS, SEXES
from ecgstudy.learn.base import SignalModel, class_probabilities
from ecgstudy.learn.batches import Augmentation, WindowSet, encode
from ecgstudy.learn.models import create_model
from ecgstudy.learn.train import TrainingSettings, fit

EPOCHS = 30
READER_SHARE = 0.7
"""Each of the frozen readers is trained on this share of the protector's people; the others say what it is worth."""
OLD_YEARS = 60.0
ABSENCE = ("no", "yes")
"""Classes of a diagnosis, and of being old."""
ATTRIBUTES = {"sex": SEXES, "over_60": ABSENCE, "age_group": AGE_GROUPS}
LEAST_POSITIVES = 8
"""Records with, and without, a diagnosis that a network can learn it from."""
LABEL_COLUMNS = ("superclasses", "rhythm", "subclasses", "diagnosis", "diagnoses")
"""Columns of record tables that hold diagnoses, the most general first; one of the same name counts once."""
FIBRILLATION = "AFIB"
_CENTRES, _SCALES = np.array([0.8, 0.05, 0.05, 0.03]), np.array([0.15, 0.06, 0.08, 0.06])
_FARTHEST = 4.0
_HEAD, _DOT = "task ", "\u2024"


def diagnosis_table(records: pd.DataFrame, columns: Sequence[str] = LABEL_COLUMNS) -> pd.DataFrame:
    """Diagnoses of records: a column a diagnosis, 1, 0, or NaN where a record says nothing of that kind."""
    found: dict[str, pd.Series] = {}
    for column in [column for column in columns if column in records]:
        cells = records[column].map(_names)
        known = cells.map(len) > 0
        for name in sorted({name for cell in cells for name in cell}):
            found.setdefault(name, cells.map(lambda cell, name=name: float(name in cell)).where(known))
    return pd.DataFrame(found, index=records.index)


def _names(cell: object) -> tuple[str, ...]:
    """Diagnoses in a cell of a record table: several, one, or none."""
    if isinstance(cell, str):
        return (cell,) if cell else ()
    return cell if isinstance(cell, tuple) else ()


def told_diagnoses(records: pd.DataFrame) -> list[str]:
    """Diagnoses that a protection is told about unless asked for others: the most general kind, and fibrillation."""
    columns = [column for column in ("superclasses", "diagnosis", "diagnoses") if column in records][:1]
    named = list(diagnosis_table(records, columns))
    return named + [FIBRILLATION] * (FIBRILLATION not in named and FIBRILLATION in diagnosis_table(records))


def attribute_table(records: pd.DataFrame) -> pd.DataFrame:
    """Classes of :data:`ATTRIBUTES` of every record's owner; None where unknown."""
    old = np.where(records["age"] >= OLD_YEARS, *ABSENCE[::-1]).astype(object)
    group = pd.cut(records["age"], AGE_EDGES, right=False, labels=AGE_GROUPS).astype(object)
    known = records["age"].notna()
    return pd.DataFrame(
        {"sex": records["sex"], "over_60": pd.Series(old, records.index).where(known), "age_group": group.where(known)}
    )


def tasks_of(diagnoses: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Diagnoses that can be learnt from these records, as tasks of a network."""
    counts = {name: (column.eq(1).sum(), column.eq(0).sum()) for name, column in diagnoses.items()}
    return {name: ABSENCE for name, pair in counts.items() if min(pair) >= LEAST_POSITIVES}


def as_read(shapes: np.ndarray, rhythm: np.ndarray) -> np.ndarray:
    """Shapes (n, n_leads, POINTS) and rhythms (n, 4) as the network reads them, (n, n_leads + 4, POINTS)."""
    scaled = np.clip((rhythm - _CENTRES) / _SCALES, -_FARTHEST, _FARTHEST)
    constant = np.repeat(scaled[..., None], POINTS, axis=-1)
    return np.concatenate([shapes, constant], axis=1).astype(np.float32)


def head_of(task: str) -> str:
    """Name of a task's head: a module may have neither a dot in its name, as ICD codes do, nor that of a method."""
    return _HEAD + task.replace(".", _DOT)


def train_reader(
    cycles: CycleSet,
    labels: pd.DataFrame,
    tasks: Mapping[str, Sequence[str]],
    seed: int,
    runs: Path,
    epochs: int = EPOCHS,
    device: str = "cpu",
) -> SignalModel:
    """Train a network on cycles; `labels` has a column a task with its classes (1 and 0 for a diagnosis)."""
    n_leads = cycles.cycles.shape[1] + len(RHYTHM)
    named = [f"lead {number}" for number in range(n_leads)]
    shape = {"n_leads": n_leads, "n_samples": POINTS, "fs": 100.0, "lead_names": named}
    model = create_model("beatnet", seed, classes={head_of(t): list(c) for t, c in tasks.items()}, margin=None, **shape)
    targets = {head_of(task): encode(_named(labels[task]), classes) for task, classes in tasks.items()}
    names = (cycles.records[column].to_numpy(dtype=str) for column in (SUBJECT, RECORD))
    windows = WindowSet(as_read(cycles.shapes, cycles.rhythm), targets, *names)
    augmentation = Augmentation(gain=0.1, noise=0.1, wander=0.0)
    settings = TrainingSettings(epochs, 64, seed, augmentation=augmentation)
    return fit(model, windows, None, settings, runs, device).model


def _named(column: pd.Series) -> pd.Series:
    """Classes of a task; those of a diagnosis are written as numbers."""
    return column.map({1.0: ABSENCE[1], 0.0: ABSENCE[0]}) if column.dtype == float else column


def probabilities(model: SignalModel, cycles: CycleSet) -> dict[str, np.ndarray]:
    """Probability of each class of each task of a network, shape (n, n_classes)."""
    windows = as_read(cycles.shapes, cycles.rhythm)
    found = {head: class_probabilities(model, windows, head, classes) for head, classes in model.classes.items()}
    return {head.removeprefix(_HEAD).replace(_DOT, "."): each for head, each in found.items()}


class Thoroughness(NamedTuple):
    """How long a protection learns: its readers, their epochs, and the steps of its decoder."""

    readers: int = 6
    epochs: int = EPOCHS
    steps: int = 1500


THOROUGH, BRIEF = Thoroughness(), Thoroughness(2, 8, 300)
"""In earnest, and for the demo, which shows that the study runs."""


@dataclass(frozen=True)
class Readers:
    """Frozen classifiers of diagnoses and, for the people they were trained on, what the others of them say."""

    models: tuple[SignalModel, ...]
    diagnoses: tuple[str, ...]
    held_out: np.ndarray
    """Probabilities of the protector's people by readers that were not trained on the person, (n, n_diagnoses)."""

    @classmethod
    def trained(
        cls, people: CycleSet, told: Sequence[str], seed: int, runs: Path, thorough: Thoroughness = THOROUGH
    ) -> "Readers":
        """Train on bags of persons; ``StudyError`` where none of the diagnoses can be learnt from every bag."""
        owners = people.records[SUBJECT].to_numpy(dtype=str)
        names, bags = np.unique(owners), []
        for number in range(thorough.readers):
            drawn = np.random.default_rng([seed, number]).permutation(names)
            bags.append(np.isin(owners, drawn[: round(READER_SHARE * len(names))]))
        table = diagnosis_table(people.records)
        tasks = tasks_of(table.reindex(columns=list(told) or told_diagnoses(people.records)))
        tasks = {name: both for name, both in tasks.items() if all(table.loc[bag, name].nunique() == 2 for bag in bags)}
        if not tasks:
            raise StudyError(
                "No diagnosis is stated often enough to be kept: eight records with it and eight without, of several "
                "persons, are needed; add a column of diagnoses to subjects.csv, or choose a method that needs none, "
                "as k_same."
            )
        models, sums, counts = [], np.zeros((len(people), len(tasks))), np.zeros((len(people), 1))
        for number, bag in enumerate(bags):
            inside = table[bag].reset_index(drop=True)
            models.append(train_reader(people.rows(bag), inside, tasks, seed + number, runs, thorough.epochs))
            if not bag.all():
                sums[~bag] += _chances(models[-1], people.rows(~bag), tasks)
                counts[~bag] += 1
        everywhere = np.mean([_chances(model, people, tasks) for model in models], axis=0)
        held_out = np.where(counts > 0, sums / np.maximum(counts, 1), everywhere)
        return cls(tuple(models), tuple(tasks), held_out)

    def read(self, cycles: CycleSet) -> np.ndarray:
        """Mean probability of each diagnosis, shape (n, n_diagnoses)."""
        return np.mean([_chances(model, cycles, self.diagnoses) for model in self.models], axis=0)


def _chances(model: SignalModel, cycles: CycleSet, diagnoses: Sequence[str]) -> np.ndarray:
    """Probability of each diagnosis by one reader."""
    found = probabilities(model, cycles)
    return np.stack([found[name][:, 1] for name in diagnoses], axis=1)
