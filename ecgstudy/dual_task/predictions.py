"""What networks predict of windows: the person and the activity, beside the truth."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ecgstudy.evaluate.splits import RECORD, SUBJECT

TASKS = {"person": SUBJECT, "activity": "activity"}
"""What networks predict, and the column that holds the truth."""


def nothing() -> pd.DataFrame:
    """Table of windows without a row."""
    answers = [f"{task}_{part}" for task in TASKS for part in ("predicted", "shares")]
    return pd.DataFrame(columns=["seed", "fold", SUBJECT, RECORD, "start", "n_samples", "activity", *answers])


def below(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tables of windows below each other; those without a row would change the types of the others."""
    return pd.concat([table for table in tables if len(table)] or [nothing()], ignore_index=True)


@dataclass(frozen=True)
class Predictions:
    """What networks predict of their probes, folds and seeds one below the other.

    `windows` has one row a window: seed, fold, subject_id, record_id, start and n_samples (samples), activity; for
    each task the predicted name and the share of each class: None where the network has no such task, or cannot know
    the person. It is empty where nothing is predicted at all. `across` are those of windows across the borders of
    records (:func:`~ecgstudy.dual_task.sessions.spliced`), which count in streams alone. `gap` says why some folds, or
    all, are missing.
    """

    windows: pd.DataFrame = field(default_factory=nothing)
    classes: dict[str, list[str]] = field(default_factory=dict)
    histories: list[pd.DataFrame] = field(default_factory=list)
    gap: str = ""
    across: pd.DataFrame = field(default_factory=nothing)

    def subset(self, rows: ArrayLike) -> "Predictions":
        """Take some of the windows, by mask or position."""
        return replace(self, windows=self.windows.iloc[rows].reset_index(drop=True))

    def shares(self, task: str) -> np.ndarray:
        """Share of each class in each window, shape (n, n_classes)."""
        return np.array([*self.windows[f"{task}_shares"]]).reshape(-1, len(self.classes[task]))

    def accuracy(self, task: str) -> float:
        """Share of windows whose class is predicted; NaN for a task without a prediction for every window."""
        predicted = self.windows[f"{task}_predicted"]
        return float((predicted == self.windows[TASKS[task]]).mean()) if predicted.notna().all() else math.nan


def joined(parts: Sequence[Predictions]) -> Predictions:
    """Predictions of the same cohort, one below the other."""
    windows, across = (below([getattr(part, name) for part in parts]) for name in ("windows", "across"))
    histories = [history for part in parts for history in part.histories]
    return replace(parts[0], windows=windows, across=across, histories=histories)
