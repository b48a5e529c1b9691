"""Score sets of planted truth: embeddings of persons with Gaussian noise, no signals and no training."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ecgstudy.evaluate.trials import ScoreLevels, ScoreMatrix, SortedScores
from ecgstudy.experiment.networks import CLASSES
from ecgstudy.experiment.scores import FoldScores, ScoreSet

DIMENSIONS = 32


def levels_of(genuine: Sequence[float], impostor: Sequence[float]) -> ScoreLevels:
    """Levels of plain genuine and impostor scores."""
    label = np.repeat([True, False], [len(genuine), len(impostor)])
    return SortedScores(np.concatenate([genuine, impostor]), label).levels()


def toy_score_set(
    scores: ArrayLike,
    probe: Sequence[str],
    gallery: Sequence[str],
    validation: ScoreMatrix | None = None,
    attacker: str = "template",
    seed: int = 0,
    protocol: str = "cross_record",
) -> ScoreSet:
    """One fold of hand-made scores; its validation part is empty unless told."""
    matrix = ScoreMatrix(scores, list(probe), list(gallery))
    fold = FoldScores(matrix, validation or ScoreMatrix(np.zeros((0, 0)), [], []), matrix.probe)
    return ScoreSet("toy", protocol, attacker, seed, (fold,))


def fake_score_set(
    attacker: str,
    seed: int = 0,
    noise: float = 1.0,
    n_persons: int = 40,
    probes: int = 2,
    n_folds: int = 1,
    cohort: str = "toy",
    protocol: str = "cross_record",
    validation_noise: float | None = None,
    heads: bool = False,
) -> ScoreSet:
    """Cosine scores of noisy copies of the persons' embeddings; every fold has its own persons.

    Parameters
    ----------
    noise, validation_noise : float
        Deviation of the probes' embeddings, of the test and of the validation part (by default the same).
    heads : bool
        Add sex and age rows whose probabilities are right three times in four.
    """
    persons = np.random.default_rng([n_persons, len(protocol)]).normal(size=(n_persons, DIMENSIONS))
    names = np.array([f"{cohort}/p{number:03d}" for number in range(n_persons)])
    rng = np.random.default_rng([seed, len(attacker), ord(attacker[-1])])
    folds = []
    for members in np.array_split(np.arange(n_persons), n_folds):
        rows = np.repeat(members, probes)
        test = _cosines(persons[rows], persons[members], noise, rng)
        held_noise = noise if validation_noise is None else validation_noise
        held = _cosines(persons[members], persons[members], held_noise, rng)
        records = np.array([f"{names[row]}/r{number % probes}" for number, row in enumerate(rows)])
        table = _demographics(names[rows], records, rows, rng) if heads else pd.DataFrame()
        held = ScoreMatrix(held, names[members], names[members])
        folds.append(FoldScores(ScoreMatrix(test, names[rows], names[members]), held, records, table))
    return ScoreSet(cohort, protocol, attacker, seed, tuple(folds))


def _cosines(probe: np.ndarray, gallery: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Cosine scores of noisy probes."""
    probe = probe + noise * rng.normal(size=probe.shape)
    unit = [vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (probe, gallery)]
    return (unit[0] @ unit[1].T).astype(np.float32)


def _demographics(
    persons: Sequence[str], records: Sequence[str], numbers: np.ndarray, rng: np.random.Generator
) -> pd.DataFrame:
    """Rows of both tasks: sex and age group follow from the person's number, one guess in four is wrong."""
    rows = []
    for task, classes in CLASSES.items():
        for person, record, number in zip(persons, records, numbers, strict=True):
            truth = number % len(classes)
            guess = truth if rng.random() < 0.75 else (truth + 1) % len(classes)
            shares = np.full(len(classes), 0.2 / (len(classes) - 1))
            shares[guess] = 0.8
            row = {"task": task, "person": person, "record": record, "truth": classes[truth]}
            row |= {"age": 25.0 + 15 * (number % 4), "expected_age": np.nan if task == "sex" else 25.0 + 15 * guess}
            rows.append(row | {f"p_{name}": share for name, share in zip(classes, shares, strict=True)})
    return pd.DataFrame(rows)
