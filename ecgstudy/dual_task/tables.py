"""Accuracies and macro F1 with their intervals, paired differences, and the tables and sentences made from them."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ecgstudy.data.base import Cohort
from ecgstudy.data.motion import MotionCohort
from ecgstudy.dual_task.plan import DT4ECG, TASKS, Predictions
from ecgstudy.evaluate.blocked import activities_of
from ecgstudy.evaluate.bootstrap import Estimate, Resamples, Statistic, bootstrap, paired_difference
from ecgstudy.evaluate.classification import accuracy, macro_f1
from ecgstudy.evaluate.splits import RECORD, SUBJECT
from ecgstudy.experiment.dataset import GRID_S
from ecgstudy.signals.store import RecordStore

METRICS = {
    ("person", "accuracy"): accuracy,
    ("activity", "accuracy"): accuracy,
    ("activity", "macro_f1"): macro_f1,
}
RESAMPLES = 1000
UNDEFINED = "these networks do not answer this question under this protocol"
PAPER = {
    "source": "DT4ECG (paper)",
    "split": "not published",
    "persons": 15,
    "person_accuracy": 0.9912,
    "activity_accuracy": 0.9011,
}
"""arXiv 2502.11023: its own 15 persons."""


def confusion_by_cluster(windows: pd.DataFrame, task: str, clusters: np.ndarray, n_clusters: int) -> np.ndarray:
    """Count windows by cluster, true and predicted class (by name), shape (n_clusters, n_classes, n_classes)."""
    truth, predicted = windows[TASKS[task]], windows[f"{task}_predicted"]
    classes = pd.Index(sorted(set(truth) | set(predicted)))
    n = len(classes)
    cells = (clusters * n + classes.get_indexer(truth)) * n + classes.get_indexer(predicted)
    return np.bincount(cells, minlength=n_clusters * n * n).reshape(n_clusters, n, n).astype(np.float64)


def _statistic(windows: pd.DataFrame, metric: tuple[str, str], resamples: Resamples, cluster: str) -> Statistic:
    """Metric as a function of how often each person (or record) was drawn, over all seeds at once."""
    position = resamples.index_of(windows[cluster])
    confusion = confusion_by_cluster(windows, metric[0], position, len(resamples.persons))
    return lambda multiplicity: METRICS[metric](np.tensordot(multiplicity, confusion, axes=1))


def _gap(predictions: Predictions, task: str) -> str:
    """Why a task cannot be scored; "" where it can."""
    if predictions.windows.empty:
        return predictions.gap
    return UNDEFINED if predictions.windows[f"{task}_predicted"].isna().any() else ""


def estimate(predictions: Predictions, metric: tuple[str, str], seed: int, cluster: str = SUBJECT) -> Estimate:
    """Metric over all windows and seeds with its interval over persons (or records); NaN where nothing is predicted."""
    if reason := _gap(predictions, metric[0]):
        return Estimate(math.nan, math.nan, math.nan, 0, 0, reason)
    resamples = Resamples.draw(predictions.windows[cluster], seed, RESAMPLES)
    statistic = _statistic(predictions.windows, metric, resamples, cluster)
    return bootstrap(statistic, resamples, len(resamples.persons), UNDEFINED)


def difference(one: Predictions, other: Predictions, metric: tuple[str, str], seed: int) -> Estimate:
    """`one` minus `other` on the same windows and the same resamples of persons."""
    if reason := _gap(one, metric[0]) or _gap(other, metric[0]):
        return Estimate(math.nan, math.nan, math.nan, 0, 0, reason)
    resamples = Resamples.draw(one.windows[SUBJECT], seed, RESAMPLES)
    statistics = (_statistic(predictions.windows, metric, resamples, SUBJECT) for predictions in (one, other))
    return paired_difference(*statistics, resamples, len(resamples.persons), UNDEFINED)


def seed_spread(predictions: Predictions, metric: tuple[str, str]) -> float:
    """Standard deviation of a metric over seeds; NaN with fewer than two."""
    if _gap(predictions, metric[0]) or predictions.windows["seed"].nunique() < 2:
        return math.nan
    values = [
        METRICS[metric](confusion_by_cluster(part, metric[0], np.zeros(len(part), dtype=np.int64), 1)[0])
        for _, part in predictions.windows.groupby("seed")
    ]
    return float(np.std(values, ddof=1))


def results(
    cohort: str, found: Mapping[tuple[str, str], Predictions], ablations: Sequence[str], seed: int
) -> pd.DataFrame:
    """Long table: one row a protocol, attacker and metric, and what DT4ECG gains over each of its ablations.

    Beside the columns of :mod:`ecgstudy.evaluate.results`: windows (of one seed), persons, seeds, by_record (interval
    over records, as text), sd (over seeds) and gap (why predictions are missing).
    """
    rows = []
    for (protocol, attacker), predictions in found.items():
        ablated, windows = attacker in ablations, predictions.windows
        seeds = windows["seed"].nunique() if len(windows) else 0
        about = {
            "name": f"ablation.{attacker}" if ablated else f"{cohort}.{protocol}.{attacker}",
            "cohort": cohort,
            "protocol": protocol,
            "attacker": attacker,
            "view": "raw",
            "unit": "share",
            "n": windows[SUBJECT].nunique() if len(windows) else 0,
            "windows": len(windows) // max(seeds, 1),
            "seeds": seeds,
            "gap": predictions.gap,
        }
        for task, metric in METRICS:
            row = _row(about, task, metric, estimate(predictions, (task, metric), seed))
            if not ablated:
                by_record = estimate(predictions, (task, metric), seed, RECORD)
                row["by_record"] = None if math.isnan(by_record.low) else f"{by_record.low:.3f} to {by_record.high:.3f}"
                row["sd"] = seed_spread(predictions, (task, metric))
            rows.append(row)
        if ablated:
            full = found[protocol, DT4ECG]
            gains = {(task, metric): difference(full, predictions, (task, metric), seed) for task, metric in METRICS}
            rows += [_row(about, task, f"{metric}_gain", gain) for (task, metric), gain in gains.items()]
    return pd.DataFrame(rows)


def _row(about: Mapping[str, object], task: str, metric: str, found: Estimate) -> dict[str, object]:
    """One row of the long table, with the name of its metric."""
    known = {"task": task, "metric": metric, "value": found.value, "low": found.low, "high": found.high}
    note = about["gap"] or ("" if math.isfinite(found.value) else UNDEFINED)
    return {**about, **known, "name": f"{about['name']}.{task}_{metric}", "note": note}


def wide(rows: pd.DataFrame, about: Mapping[str, str], ends: Mapping[str, str]) -> pd.DataFrame:
    """One row a protocol and attacker, its metrics side by side.

    `about` gives the first columns (name: column of the long table), `ends` what is shown of each metric (column of the
    long table: end of the name).
    """
    table: dict[tuple[str, str], dict[str, object]] = {}
    for row in rows.to_dict("records"):
        mine = table.setdefault((row["protocol"], row["attacker"]), {new: row[old] for new, old in about.items()})
        mine |= {f"{row['task']}_{row['metric']}{end}": row[column] for column, end in ends.items()}
    return pd.DataFrame(table.values())


NAMED = {"protocol": "protocol", "model": "attacker"}
COUNTED = {**NAMED, "windows": "windows", "persons": "n", "seeds": "seeds"}
INTERVAL = {"value": "", "low": "_low", "high": "_high"}
SPREAD = {"by_record": "_by_record", "sd": "_sd"}


def paper_table(cohort: str, table: pd.DataFrame) -> pd.DataFrame:
    """Put the paper's two numbers above ours for DT4ECG; `table` is the wide one."""
    ours = table[table["model"] == DT4ECG].rename(columns={"protocol": "split"})
    columns = [f"{task}_accuracy{end}" for task in TASKS for end in INTERVAL.values()]
    rows = pd.concat([pd.DataFrame([PAPER]), ours.assign(source=f"DT4ECG (ours, {cohort})")], ignore_index=True)
    return rows[["source", "split", "persons", *columns]]


def protocol_finding(cohort: str, table: pd.DataFrame) -> str:
    """Say in one sentence what DT4ECG reaches under each protocol; `table` is the wide one."""
    parts = []
    for row in table[table["model"] == DT4ECG].to_dict("records"):
        values = {task: row[f"{task}_accuracy"] for task in TASKS}
        known = " and ".join(f"{task} {100 * value:.1f} %" for task, value in values.items() if math.isfinite(value))
        parts.append(f"{row['protocol'].replace('_', ' ')}: {known}")
    return f"Accuracy of DT4ECG on {cohort}, share of windows: {'; '.join(parts)}."


def gaps_finding(rows: pd.DataFrame) -> str:
    """Say which protocols and attackers have no predictions, or not of all folds, and why."""
    gaps = rows[rows["gap"] != ""].drop_duplicates(["protocol", "attacker"])
    named = [f"{row.protocol.replace('_', ' ')} ({row.attacker}): {row.gap}" for row in gaps.itertuples()]
    return f"What could not be asked: {'; '.join(named) or 'nothing'}."


def gain_sentence(rows: pd.DataFrame, attacker: str, what: str) -> str:
    """Say in one sentence whether DT4ECG is better than an ablation of it, by interval."""
    parts = []
    gains = rows[(rows["attacker"] == attacker) & (rows["metric"] == "accuracy_gain")]
    for row in gains.itertuples():
        if not math.isfinite(row.value):
            parts.append(f"{row.task} could not be compared")
            continue
        verdict = "helps" if row.low > 0 else "hurts" if row.high < 0 else "is not shown to help or to hurt"
        points = f"{100 * row.value:+.1f} points ({100 * row.low:+.1f} to {100 * row.high:+.1f})"
        parts.append(f"{row.task} {points}: it {verdict}")
    return f"{what}: {'; '.join(parts)}."


def certainty_sentence(n_persons: int) -> str:
    """Say what a faultless result on so many persons leaves open (exact binomial bound, Clopper & Pearson 1934)."""
    share = 1 - 0.05 ** (1 / n_persons)
    return (
        f"If all {n_persons} persons were recognised without a mistake, up to {100 * share:.0f} % of all people could "
        "still be such that the network fails on them (95 % confidence)."
    )


def matrix_rows(cohort: str, predictions: Predictions, activities: Sequence[str]) -> pd.DataFrame:
    """Long table of person accuracy by the activity that is known (one a fold) and the activity that is heard."""
    cells: dict[tuple[int, str], float] = {}
    if len(predictions.windows):
        correct = predictions.windows["person_predicted"] == predictions.windows[SUBJECT]
        cells = correct.groupby([predictions.windows["fold"], predictions.windows["activity"]]).mean().to_dict()
    rows = []
    for fold, known in enumerate(activities):
        for heard in activities:
            value = cells.get((fold, heard), math.nan)
            note = "" if math.isfinite(value) else "no window of this pair"
            rows.append({"known": known, "heard": heard, "value": value, "note": note})
    table = pd.DataFrame(rows).assign(cohort=cohort, protocol="activity_pairs", attacker=DT4ECG, unit="share")
    view = table["known"] + "_to_" + table["heard"]
    name = f"{cohort}.activity_pairs." + view + ".person_accuracy"
    return table.assign(view=view, task="person", metric="accuracy", n=len(activities), name=name)


def delay_rows(cohort: str, protocol: str, delays: pd.DataFrame, n_persons: int) -> pd.DataFrame:
    """Long table of a stream's delays (:func:`ecgstudy.dual_task.streaming.delay_table`)."""
    rows = []
    for row in delays.to_dict("records"):
        for metric, column, unit, n in (
            ("activity_accuracy", "accuracy", "share", n_persons),
            ("delay", "delay", "s", row["changes"]),
            ("missed", "missed", "share", row["changes"]),
        ):
            note = "" if math.isfinite(row[column]) else "no change of activity was heard, or none was noticed"
            name = f"{cohort}.monitoring.switching_{row['switching']}.{metric}"
            rows.append({"name": name, "metric": column, "value": row[column], "unit": unit, "n": n, "note": note})
            rows[-1]["view"] = f"switching_{row['switching']}"
    return pd.DataFrame(rows).assign(cohort=cohort, protocol=protocol, attacker=DT4ECG, task="activity")


def monitoring_finding(protocol: str, delays: pd.DataFrame, milliseconds: float) -> str:
    """Say in one sentence what reading as a stream gives."""
    speed = (
        f"one window takes {milliseconds:.1f} ms on one processor core, and a new one comes every "
        f"{1000 * GRID_S:.0f} ms."
    )
    if delays["accuracy"].isna().all():
        return f"No session could be read as a stream, for want of usable windows; {speed}"
    best = delays.loc[delays["accuracy"].idxmax()]
    change = "no change of activity was noticed"
    if math.isfinite(best["delay"]):
        never = f"{100 * best['missed']:.0f} % of the changes never are"
        change = f"a change is noticed after {best['delay']:.0f} s (median; {never})"
    return (
        f"Read as a stream by the networks of {protocol.replace('_', ' ')}, the activity is right "
        f"in at most {100 * best['accuracy']:.1f} % of the seconds, and {change}; {speed}"
    )


def coverage_table(store: RecordStore, records: pd.DataFrame, expected: Sequence[str]) -> pd.DataFrame:
    """Usable records of each person and activity, persons alike on one row, and what was left out.

    Columns: persons (how many), who (their names, shortened where they are many), one count an activity (one without
    any usable record too), missing (activities of which they have no usable record) and left_out (their excluded
    records with the reason).
    """
    columns = list(dict.fromkeys([*activities_of(records), *expected]))
    counts = pd.crosstab(records[SUBJECT], records["activity"]).reindex(columns=columns, fill_value=0)
    excluded = store.exclusions
    left_out = (excluded[RECORD] + " (" + excluded["reason"] + ")").groupby(excluded[SUBJECT]).agg(", ".join)
    # somebody without any usable record is named too
    counts = counts.reindex(counts.index.union(left_out.index), fill_value=0)
    missing = [", ".join(row.index[row == 0]) for _, row in counts.iterrows()]
    table = counts.assign(missing=missing, left_out=left_out.reindex(counts.index).fillna(""))
    alike = table.rename_axis("who").reset_index().groupby([*table.columns], sort=False)["who"]
    grouped = alike.agg(
        persons="size",
        who=lambda names: ", ".join(names) if len(names) <= 10 else f"{names.iloc[0]} to {names.iloc[-1]}",
    ).reset_index()
    return grouped[["persons", "who", *table.columns]].sort_values("who", ignore_index=True)


def coverage_finding(records: pd.DataFrame, coverage: pd.DataFrame, index: pd.DataFrame) -> str:
    """Say what is missing: activities and persons without records, windows left out; and what each electrode has.

    `index` lists all windows of the records with their problem.
    """
    lacking = coverage[coverage["missing"] != ""]
    persons = "; ".join(f"{row.who}: {row.missing}" for row in lacking.itertuples()) or "nobody"
    problems = index["problem"].value_counts().sort_index()
    reasons = ", ".join(f"{reason} {n}" for reason, n in problems.items()) or "none"
    absent = ", ".join(sorted(set(coverage.columns[2:-2]) - set(activities_of(records)))) or "none"
    finding = (
        f"Activities without any usable record: {absent}. Persons without a usable record of some activity: {persons}. "
        f"Windows left out: {problems.sum()} ({reasons})."
    )
    if "electrode" in records:
        kinds = records["electrode"].value_counts().sort_index()
        finding += f" Usable records by electrode: {', '.join(f'{kind} {n}' for kind, n in kinds.items())}."
    return finding


def degree_table(predictions: Predictions, marked: Mapping[str, pd.DataFrame], fs: float, seed: int) -> pd.DataFrame:
    """Both accuracies by the worst artefact degree in the window: degree, windows, persons, metrics with intervals.

    `marked` gives the segments of each record that somebody looked at: start, end (seconds), degree.
    """
    worst = worst_degree(predictions.windows, marked, fs)
    rows = []
    for degree in np.unique(worst[np.isfinite(worst)]):
        part = predictions.subset(worst == degree)
        row = {"degree": int(degree), "windows": len(part.windows) // part.windows["seed"].nunique()}
        row["persons"] = part.windows[SUBJECT].nunique()
        for task in TASKS:
            found = estimate(part, (task, "accuracy"), seed)
            row |= {f"{task}_accuracy{end}": getattr(found, column) for column, end in INTERVAL.items()}
        rows.append(row)
    return pd.DataFrame(rows)


def worst_degree(windows: pd.DataFrame, marked: Mapping[str, pd.DataFrame], fs: float) -> np.ndarray:
    """Highest artefact degree that a window touches, float, shape (n,); NaN where nobody marked the record."""
    worst = np.full(len(windows), np.nan)
    starts = windows["start"].to_numpy() / fs
    stops = starts + windows["n_samples"].to_numpy() / fs
    for record_id, rows in windows.groupby(RECORD).indices.items():
        for segment in marked.get(record_id, pd.DataFrame()).itertuples():
            touches = (segment.start < stops[rows]) & (segment.end > starts[rows])
            worst[rows[touches]] = np.fmax(worst[rows[touches]], segment.degree)
    return worst


def artefacts(cohort: Cohort, records: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Artefact degrees by record (``cohort/record``) as :func:`degree_table` reads them; none where nobody marked any."""
    if not isinstance(cohort, MotionCohort):
        return {}
    marked = {}
    for record in records.itertuples():
        table = cohort.artefacts(record.record_id.removeprefix(f"{cohort.name}/"))
        marked[record.record_id] = table.assign(start=table["start"] / record.fs, end=table["end"] / record.fs)
    return marked
