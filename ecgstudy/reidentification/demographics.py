"""Sex and age group from an ECG: metrics of the attackers' heads, and the features behind a person, by SHAP."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ecgstudy.evaluate.bootstrap import Estimate, Resamples
from ecgstudy.evaluate.classification import classification_report, mae_report
from ecgstudy.evaluate.protocols import CrossRecord
from ecgstudy.evaluate.splits import SUBJECT
from ecgstudy.experiment.attackers import FEATURES as FEATURE_MODEL
from ecgstudy.experiment.jobs import Context, Job
from ecgstudy.experiment.networks import CLASSES
from ecgstudy.experiment.scores import ScoreSet, ensemble
from ecgstudy.signals.features import FEATURES

SHORT = {"sex": "sex", "age_group": "age"}
"""Tasks as metric names call them."""
_CLASSIFICATION = ("accuracy", "balanced_accuracy", "auroc", "accuracy_per_person")
_YEARS = ("mae_years", "mae_years_per_person")
EXPLAINED_WINDOWS = 100


@dataclass(frozen=True)
class DemographicResult:
    """One attacker's answer to `task` ("sex" or "age") under one protocol, over probes with a known label.

    ``auroc`` of age groups is one against the rest, averaged; ``majority`` the accuracy of the most frequent class.
    """

    cohort: str
    protocol: str
    attacker: str
    task: str
    estimates: Mapping[str, Estimate]
    probes: int


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
        cells.setdefault((s.cohort, s.protocol, s.attacker), []).append(s)
    tables = {cell: _rows(ensemble(sets)) for cell, sets in cells.items()}
    with_heads = {attacker for (_, _, attacker), table in tables.items() if len(table)}
    return [
        _result(cell, task, table[table["task"] == task], resamples[cell[0]])
        for cell, table in tables.items()
        if cell[2] in with_heads
        for task in CLASSES
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
        estimates |= dict(zip(_YEARS, (years["mae"], years["mae_per_person"]), strict=True))
    return DemographicResult(*cell, SHORT[task], estimates, len(rows))


def shap_table(context: Context, seed: int) -> pd.DataFrame:
    """Mean absolute SHAP value of each feature for recognising persons in another recording.

    The feature model learns from first records of the first cohort with several records a person, and is explained
    on windows of second records.

    Returns
    -------
    pandas.DataFrame
        Columns feature, unit, mean_abs_shap (log-odds, averaged over windows and persons), largest first;
        empty where no cohort has several records a person.
    """
    stores = context.stores
    found = [name for name, store in stores.items() if (store.records[SUBJECT].value_counts() > 1).any()]
    if not found:
        return pd.DataFrame(columns=["feature", "unit", "mean_abs_shap"])
    job = Job(found[0], CrossRecord(), FEATURE_MODEL, seed)
    model = context.fitted(job).boosters["person"]
    features, _ = context.dataset.features(context.splits(job)[0].probe)
    rows = np.random.default_rng(seed).permutation(len(features))[:EXPLAINED_WINDOWS]
    strength = np.abs(model.shap_values(features.iloc[np.sort(rows)])).mean(axis=(0, 2))
    table = pd.DataFrame({"feature": list(FEATURES), "unit": list(FEATURES.values()), "mean_abs_shap": strength})
    return table.sort_values("mean_abs_shap", ascending=False, ignore_index=True)
