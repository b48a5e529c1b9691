"""Scores of one attacker under one protocol: what is computed once and evaluated as often as one likes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd

from ecgstudy.study.cache import new_file

TASKS = ("sex", "age_group")
_ARRAYS = (
    "scores",
    "probe_persons",
    "probe_records",
    "gallery_persons",
    "validation_scores",
    "validation_probe_persons",
    "validation_gallery_persons",
)


@dataclass(frozen=True)
class FoldScores:
    """Scores of the trials of one fold.

    Attributes
    ----------
    scores : numpy.ndarray
        Shape (n_probe, n_gallery), higher = more similar; one gallery entry a person.
    probe_persons, probe_records, gallery_persons : numpy.ndarray
        Names (str) of the rows and columns; persons and records as ``cohort/name``.
        Under random windows a row is a window, elsewhere a record, all its windows pooled.
    validation_scores, validation_probe_persons, validation_gallery_persons : numpy.ndarray
        The same on the validation part, for every choice that is made.
    demographics : pandas.DataFrame
        One row a probe whose label is known, and a task of :data:`TASKS` that the attacker was trained for:
        columns task, person, record, truth (class name), age (years), expected_age (years, NaN for sex) and one
        probability column ``p_<class>`` a class (NaN in other tasks' rows); empty for attackers without heads.
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
    """Scores of one attacker, one cohort, one protocol and one seed.

    Attributes
    ----------
    cohort, protocol, model : str
        As in metric names.
    seed : int
        Seed of the attacker's training.
    folds : tuple of FoldScores
        One or several; people of different folds are never compared with each other.
    """

    cohort: str
    protocol: str
    model: str
    seed: int
    folds: tuple[FoldScores, ...]

    def save(self, path: Path) -> None:
        """Write everything to one ``.npz`` file, whole or not at all."""
        arrays = {"about": np.array([self.cohort, self.protocol, self.model, str(self.seed)])}
        for number, fold in enumerate(self.folds):
            arrays |= {f"{number}.{name}": getattr(fold, name) for name in _ARRAYS}
            arrays[f"{number}.demographics"] = np.array(fold.demographics.to_json(orient="split"))
        with new_file(path) as partial:
            np.savez_compressed(partial, **arrays)

    @classmethod
    def load(cls, path: Path) -> "ScoreSet":
        """Read what :meth:`save` wrote; no pickles."""
        with np.load(path, allow_pickle=False) as arrays:
            cohort, protocol, model, seed = arrays["about"].tolist()
            n_folds = len({name.split(".")[0] for name in arrays.files} - {"about"})
            folds = tuple(_fold(arrays, number) for number in range(n_folds))
        return cls(cohort, protocol, model, int(seed), folds)


def _fold(arrays: np.lib.npyio.NpzFile, number: int) -> FoldScores:
    """Read one fold."""
    table = _table(str(arrays[f"{number}.demographics"]))
    return FoldScores(**{name: arrays[f"{number}.{name}"] for name in _ARRAYS}, demographics=table)


def _table(text: str) -> pd.DataFrame:
    """Read a table from its JSON text, columns of text left as text."""
    return pd.read_json(StringIO(text), orient="split", dtype={"person": str, "record": str, "truth": str, "task": str})


def ensemble(score_sets: Sequence[ScoreSet]) -> ScoreSet:
    """Average the scores of several seeds of one attacker (same trials in the same order).

    Raises
    ------
    ValueError
        The sets are not of the same cohort, protocol, model and trials.
    """
    first = score_sets[0]
    about = {(s.cohort, s.protocol, s.model, len(s.folds)) for s in score_sets}
    if len(about) > 1:
        raise ValueError(f"score sets of different attackers or protocols: {sorted(about)}")
    folds = [_mean_fold([s.folds[number] for s in score_sets]) for number in range(len(first.folds))]
    return ScoreSet(first.cohort, first.protocol, first.model, -1, tuple(folds))


def _mean_fold(folds: Sequence[FoldScores]) -> FoldScores:
    """Average scores and class probabilities of the same trials."""
    first = folds[0]
    for fold in folds[1:]:
        if not np.array_equal(fold.probe_records, first.probe_records):
            raise ValueError("score sets with different probes cannot be averaged")
    tables = [fold.demographics for fold in folds]
    mean = tables[0].copy()
    for column in [c for c in mean if c.startswith("p_") or c == "expected_age"]:
        mean[column] = np.mean([table[column] for table in tables], axis=0)
    return FoldScores(
        np.mean([fold.scores for fold in folds], axis=0),
        first.probe_persons,
        first.probe_records,
        first.gallery_persons,
        np.mean([fold.validation_scores for fold in folds], axis=0),
        first.validation_probe_persons,
        first.validation_gallery_persons,
        mean,
    )
