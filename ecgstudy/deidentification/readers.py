"""Networks that read cycles and rhythm: what a record's diagnoses are, and its owner's sex and age.

The same network serves both sides, the protector's utility branch and attackers on attributes. It is a
:class:`~ecgstudy.learn.models.BeatNet` over the median cycles of the leads and, as constant leads, the rhythm.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ecgstudy.deidentification.cycles import POINTS, RHYTHM, CycleSet
from ecgstudy.evaluate.splits import RECORD, SUBJECT
from ecgstudy.experiment.jobs import AGE_EDGES, AGE_GROUPS, SEXES
from ecgstudy.learn.base import SignalModel, class_probabilities
from ecgstudy.learn.batches import Augmentation, WindowSet, encode
from ecgstudy.learn.models import create_model
from ecgstudy.learn.train import TrainingSettings, fit

EPOCHS = 30
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
