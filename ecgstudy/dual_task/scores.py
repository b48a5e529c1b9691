"""Accuracies and macro F1 with their intervals, paired differences, and the matrices that the figures show."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ecgstudy.dual_task.experiments import TASKS, Answers
from ecgstudy.evaluate.bootstrap import Estimate, PairedDifference, Resamples, Statistic, bootstrap, paired_difference
from ecgstudy.evaluate.classification import accuracy, macro_f1
from ecgstudy.evaluate.splits import RECORD, SUBJECT
from ecgstudy.study.stage import Stage

METRICS = {
    "person_accuracy": ("person", accuracy),
    "activity_accuracy": ("activity", accuracy),
    "activity_macro_f1": ("activity", macro_f1),
}
RESAMPLES = 1000
UNDEFINED = "these networks do not answer this question under this protocol"


def confusion_by_cluster(said: pd.DataFrame, task: str, clusters: np.ndarray, n_clusters: int) -> np.ndarray:
    """Count windows by cluster, true and named class, shape (n_clusters, n_classes, n_classes).

    Classes are those that occur among the truths and the answers, by name.
    """
    truth, named = said[SUBJECT if task == "person" else task], said[f"{task}_said"]
    classes = pd.Index(sorted(set(truth) | set(named)))
    n = len(classes)
    cells = (clusters * n + classes.get_indexer(truth)) * n + classes.get_indexer(named)
    return np.bincount(cells, minlength=n_clusters * n * n).reshape(n_clusters, n, n).astype(np.float64)


def statistic_of(said: pd.DataFrame, metric: str, resamples: Resamples, cluster: str) -> Statistic:
    """Metric as a function of how often each person (or record) was drawn, over all seeds at once."""
    task, of_confusion = METRICS[metric]
    position = resamples.index_of(said[cluster])
    confusion = confusion_by_cluster(said, task, position, len(resamples.persons))
    return lambda multiplicity: of_confusion(np.tensordot(multiplicity, confusion, axes=1))


def estimate(answers: Answers, metric: str, seed: int, cluster: str = SUBJECT) -> Estimate:
    """Metric over all windows and seeds with its interval over persons (or records).

    Parameters
    ----------
    answers : Answers
        What was answered.
    metric : str
        A key of :data:`METRICS`.
    seed : int
        Seed of the bootstrap.
    cluster : {"subject_id", "record_id"}
        What is resampled.

    Returns
    -------
    Estimate
        NaN with its reason where the networks do not answer the question.
    """
    reason = answers.skipped or (UNDEFINED if answers.windows[f"{METRICS[metric][0]}_said"].isna().any() else None)
    if reason:
        return Estimate(math.nan, math.nan, math.nan, 0, 0, reason)
    said = answers.windows
    resamples = Resamples.draw(said[cluster], seed, RESAMPLES)
    return bootstrap(statistic_of(said, metric, resamples, cluster), resamples, len(resamples.persons), UNDEFINED)


def difference(one: Answers, other: Answers, metric: str, seed: int) -> PairedDifference:
    """`one` minus `other` on the same windows and the same resamples of persons."""
    n_persons = one.windows[SUBJECT].nunique() if not one.skipped else 0
    for answers in (one, other):
        reason = answers.skipped or (UNDEFINED if answers.windows[f"{METRICS[metric][0]}_said"].isna().any() else None)
        if reason:
            return PairedDifference(math.nan, math.nan, math.nan, n_persons, 0, reason)
    resamples = Resamples.draw(one.windows[SUBJECT], seed, RESAMPLES)
    statistics = (statistic_of(answers.windows, metric, resamples, SUBJECT) for answers in (one, other))
    return paired_difference(*statistics, resamples, n_persons, UNDEFINED)


def seed_spread(answers: Answers, metric: str) -> float:
    """Give the standard deviation of the metric over seeds; NaN with fewer than two."""
    task, of_confusion = METRICS[metric]
    if answers.skipped or answers.windows[f"{task}_said"].isna().any():
        return math.nan
    values = [
        of_confusion(confusion_by_cluster(said, task, np.zeros(len(said), dtype=np.int64), 1)[0])
        for _, said in answers.windows.groupby("seed")
    ]
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def results_table(results: Mapping[tuple[str, str], Answers], seed: int) -> pd.DataFrame:
    """One row a protocol and model: each metric with its interval by person, and its spread over seeds.

    Columns: protocol, model, windows (of one seed), persons, seeds; then for each of :data:`METRICS` the
    value, ``_low``, ``_high`` (by person), ``_by_record`` (interval as text) and ``_sd`` (over seeds); note.
    """
    rows = []
    for (protocol, model), answers in results.items():
        said = answers.windows
        seeds = said["seed"].nunique() if len(said) else 0
        row: dict[str, object] = {
            "protocol": protocol,
            "model": model,
            "windows": len(said) // max(seeds, 1),
            "persons": said[SUBJECT].nunique() if len(said) else 0,
            "seeds": seeds,
        }
        for metric in METRICS:
            by_person, by_record = (estimate(answers, metric, seed, cluster) for cluster in (SUBJECT, RECORD))
            row |= {metric: by_person.value, f"{metric}_low": by_person.low, f"{metric}_high": by_person.high}
            row[f"{metric}_by_record"] = _interval_text(by_record)
            row[f"{metric}_sd"] = seed_spread(answers, metric)
        rows.append(row | {"note": answers.skipped or answers.left_out})
    return pd.DataFrame(rows)


def answered(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of :func:`results_table` with answers, of some folds at least."""
    return table[table["windows"] > 0]


def shown_results(table: pd.DataFrame) -> pd.DataFrame:
    """Columns of :func:`results_table` that answer how good a network is, of the rows that have answers."""
    intervals = [f"{metric}{end}" for metric in METRICS for end in ("", "_low", "_high")]
    return answered(table)[["protocol", "model", "windows", "persons", "seeds", *intervals]]


def gaps_finding(table: pd.DataFrame) -> str:
    """Say which rows of :func:`results_table` have no answers, or not of all folds, and why."""
    noted = table[table["note"] != ""]
    said = [f"{row.protocol.replace('_', ' ')} ({row.model}): {row.note}" for row in noted.itertuples()]
    return f"What could not be asked: {'; '.join(said) or 'nothing'}."


def shown_spread(table: pd.DataFrame) -> pd.DataFrame:
    """Columns of :func:`results_table` that answer how sure that is: intervals by record, spread over seeds."""
    return answered(table)[["protocol", "model", *(f"{m}{end}" for m in METRICS for end in ("_by_record", "_sd"))]]


def _interval_text(found: Estimate) -> str | None:
    """Interval as text, None where there is none."""
    return None if math.isnan(found.low) else f"{found.low:.3f} to {found.high:.3f}"


def record_results(stage: Stage, cohort: str, table: pd.DataFrame) -> None:
    """Record ``<cohort>.<protocol>.<model>.<metric>`` for every row of :func:`results_table`."""
    for row in table.to_dict("records"):
        for metric in METRICS:
            stage.metric(
                f"{cohort}.{row['protocol']}.{row['model']}.{metric}",
                row[metric],
                row[f"{metric}_low"],
                row[f"{metric}_high"],
                n=row["persons"],
                unit="share",
                note=row["note"] or ("" if math.isfinite(row[metric]) else UNDEFINED),
            )


def ablation_table(full: Answers, ablated: Mapping[str, Answers], seed: int) -> pd.DataFrame:
    """One row an ablation: its metrics, and what the full network gains over it with a paired interval.

    Columns: name; each of :data:`METRICS` with ``_low`` and ``_high``; ``<metric>_gain`` (full minus ablated)
    with ``_low``, ``_high``; for the accuracies ``p_<metric>``.
    """
    rows = []
    for name, answers in ablated.items():
        row: dict[str, object] = {"name": name}
        for metric in METRICS:
            own = estimate(answers, metric, seed)
            row |= {metric: own.value, f"{metric}_low": own.low, f"{metric}_high": own.high}
        for metric in METRICS:
            gain = difference(full, answers, metric, seed)
            row |= {f"{metric}_gain": gain.value, f"{metric}_gain_low": gain.low, f"{metric}_gain_high": gain.high}
        rows.append(row)
    return pd.DataFrame(rows)


def record_ablations(stage: Stage, table: pd.DataFrame, n_persons: int) -> None:
    """Record ``ablation.<name>.<metric>`` and ``ablation.<name>.<metric>_gain``."""
    for row in table.to_dict("records"):
        for metric in (*METRICS, *(f"{metric}_gain" for metric in METRICS)):
            stage.metric(
                f"ablation.{row['name']}.{metric}",
                row[metric],
                row[f"{metric}_low"],
                row[f"{metric}_high"],
                n=n_persons,
                unit="share",
                note="" if math.isfinite(row[metric]) else UNDEFINED,
            )


def gain_sentence(table: pd.DataFrame, name: str, what: str) -> str:
    """Say in one sentence whether the full network is better than an ablated one, by interval."""
    row = table.set_index("name").loc[name]
    parts = []
    for task in TASKS:
        gain, low, high = (row[f"{task}_accuracy_gain{end}"] for end in ("", "_low", "_high"))
        if not math.isfinite(gain):
            parts.append(f"{task} could not be compared")
            continue
        verdict = "helps" if low > 0 else "hurts" if high < 0 else "is not shown to help or to hurt"
        parts.append(f"{task} {100 * gain:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f}): it {verdict}")
    return f"{what}: {'; '.join(parts)}."


def by_degree_table(answers: Answers, seed: int) -> pd.DataFrame:
    """Both accuracies by the worst artefact degree in the window: degree, windows, persons, metrics with intervals."""
    said = answers.windows.dropna(subset="degree")
    rows = []
    for degree, part in said.groupby("degree"):
        row: dict[str, object] = {
            "degree": int(degree),
            "windows": len(part) // part["seed"].nunique(),
            "persons": part[SUBJECT].nunique(),
        }
        for metric in ("person_accuracy", "activity_accuracy"):
            found = estimate(Answers(part, []), metric, seed)
            row |= {metric: found.value, f"{metric}_low": found.low, f"{metric}_high": found.high}
        rows.append(row)
    return pd.DataFrame(rows)


def confusion_share(answers: Answers, task: str) -> pd.DataFrame:
    """Share of each true class's windows (row) that each class was named for (column), rest first."""
    truth = SUBJECT if task == "person" else task
    share = pd.crosstab(answers.windows[truth], answers.windows[f"{task}_said"], normalize="index")
    return share.sort_index(axis=0, key=_rest_first).sort_index(axis=1, key=_rest_first)


def _rest_first(names: pd.Index) -> pd.Index:
    """Sorting key: "rest" before all other names."""
    return pd.Index(["" if name == "rest" else name for name in names])


def activity_matrix(pairs: Mapping[str, Answers], activities: Sequence[str]) -> pd.DataFrame:
    """Person accuracy with one activity known (row) and each activity heard (column), over all seeds."""
    rows = {
        known: (answers.windows["person_said"] == answers.windows[SUBJECT]).groupby(answers.windows["activity"]).mean()
        for known, answers in pairs.items()
        if not answers.skipped
    }
    return pd.DataFrame(rows).T.reindex(index=activities, columns=activities)
