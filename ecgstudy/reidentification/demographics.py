"""Sex and age group from an ECG: metrics of the attackers' heads, with intervals by person."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ecgstudy.evaluate.bootstrap import Estimate, Resamples
from ecgstudy.evaluate.classification import classification_report, mae_report
from ecgstudy.experiment.people import CLASSES
from ecgstudy.experiment.scores import TASKS, ScoreSet, ensemble

SHORT = {"sex": "sex", "age_group": "age"}
"""Tasks as metric names call them."""
_CLASSIFICATION = ("accuracy", "balanced_accuracy", "auroc", "accuracy_per_person")
_YEARS = ("mae_years", "mae_years_per_person")


@dataclass(frozen=True)
class DemographicResult:
    """One attacker's reading of sex or age group under one protocol.

    Attributes
    ----------
    cohort, protocol, model : str
        As in metric names.
    task : str
        "sex" or "age".
    estimates : dict of str to Estimate
        ``accuracy``, ``balanced_accuracy``, ``auroc`` (age groups: one against the rest, averaged), and for age
        ``mae_years``; ``majority``: accuracy of always naming the most frequent class.
    probes : int
        Probes with a known label.
    """

    cohort: str
    protocol: str
    model: str
    task: str
    estimates: Mapping[str, Estimate]
    probes: int

    @property
    def key(self) -> str:
        """``cohort.task.protocol.model``, the stem of its metric names."""
        return f"{self.cohort}.{self.task}.{self.protocol}.{self.model}"


def evaluate_demographics(
    score_sets: Sequence[ScoreSet], resamples: Mapping[str, Resamples]
) -> list[DemographicResult]:
    """Evaluate every attacker that has heads for sex or age, the mean over its seeds' probabilities.

    A cohort without labels gets undefined estimates that say so, wherever other cohorts have numbers.

    Parameters
    ----------
    score_sets : sequence of ScoreSet
        All cohorts, protocols, attackers and seeds.
    resamples : mapping of str to Resamples
        Draws by cohort.
    """
    cells: dict[tuple[str, str, str], list[ScoreSet]] = {}
    for s in score_sets:
        cells.setdefault((s.cohort, s.protocol, s.model), []).append(s)
    tables = {cell: _rows(ensemble(sets)) for cell, sets in cells.items()}
    with_heads = {model for (_, _, model), table in tables.items() if len(table)}
    return [
        _result(cell, task, table[table["task"] == task], resamples[cell[0]])
        for cell, table in tables.items()
        if cell[2] in with_heads
        for task in TASKS
    ]


def _rows(attack: ScoreSet) -> pd.DataFrame:
    """Rows of all folds; every person is read by an attacker that was trained without that fold's probes."""
    tables = [fold.demographics for fold in attack.folds if len(fold.demographics)]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({"task": []})


def _result(cell: tuple[str, str, str], task: str, rows: pd.DataFrame, resamples: Resamples) -> DemographicResult:
    """Evaluate one task."""
    if rows.empty:
        nothing = Estimate(np.nan, np.nan, np.nan, 0, len(resamples.indices), "no record has a label")
        names = (*_CLASSIFICATION, "majority", *(_YEARS if task == "age_group" else ()))
        return DemographicResult(*cell, SHORT[task], dict.fromkeys(names, nothing), 0)
    persons = rows["person"].to_numpy(dtype=str)
    probabilities = rows[[f"p_{name}" for name in CLASSES[task]]].to_numpy(dtype=float)
    report = classification_report(rows["truth"].tolist(), probabilities, CLASSES[task], persons, resamples)
    estimates = {name: report[name] for name in _CLASSIFICATION}
    share = float(rows["truth"].value_counts(normalize=True).iloc[0])
    estimates["majority"] = Estimate(share, np.nan, np.nan, len(set(persons)))
    if task == "age_group":
        years = mae_report(rows["age"].to_numpy(float), rows["expected_age"].to_numpy(float), persons, resamples)
        estimates |= {"mae_years": years["mae"], "mae_years_per_person": years["mae_per_person"]}
    return DemographicResult(*cell, SHORT[task], estimates, len(rows))
