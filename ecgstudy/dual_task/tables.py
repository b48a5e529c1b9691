"""Accuracies and macro F1 with their intervals, paired differences, and the tables and sentences made from them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from ecgstudy.data.base import Cohort
from ecgstudy.data.public import MotionCohort
from ecgstudy.data.simulator.people import ACTIVITIES
from ecgstudy.dual_task.plan import ABLATIONS, DT4ECG, LONG_RECORDS, TASKS, Predictions
from ecgstudy.evaluate.bootstrap import Estimate, Resamples, Statistic, bootstrap, paired_difference
from ecgstudy.evaluate.classification import accuracy, macro_f1
from ecgstudy.evaluate.protocols import activities_of
from ecgstudy.evaluate.results import interval, result
from ecgstudy.evaluate.splits import RECORD, SUBJECT, Protocol
from ecgstudy.experiment.dataset import GRID_S
from ecgstudy.signals.store import RecordStore

METRICS = {"person_accuracy": ("person", accuracy), "activity_accuracy": ("activity", accuracy)}
METRICS["activity_macro_f1"] = ("activity", macro_f1)
"""Task, and function of its confusion matrix."""
RESAMPLES = 1000
UNDEFINED = "these networks do not answer this question under this protocol"
PAPER = {"source": "DT4ECG (paper)", "split": "not published", "persons": 15}
PAPER |= {"person_accuracy": 0.9912, "activity_accuracy": 0.9011}
"""arXiv 2502.11023: its own 15 persons."""
NAMED = {"protocol": "protocol", "model": "attacker"}
COUNTED = {**NAMED, "windows": "windows", "persons": "n", "seeds": "seeds"}
INTERVAL = {"value": "", "low": "_low", "high": "_high"}
SPREAD = {"by_record": "_by_record", "sd": "_sd"}


def estimate(
    predictions: Predictions, metric: str, seed: int, cluster: str = SUBJECT, minus: Predictions | None = None
) -> Estimate:
    """Metric over all windows and seeds with its interval over persons (or records); NaN where nothing is predicted.

    With `minus`, of the same windows: the paired difference to it.
    """
    for one in (predictions, minus or predictions):
        if math.isnan(one.accuracy(METRICS[metric][0])):
            return Estimate(math.nan, math.nan, math.nan, 0, 0, one.gap if one.windows.empty else UNDEFINED)
    resamples = Resamples.draw(predictions.windows[cluster], seed, RESAMPLES)
    statistic, n = _statistic(predictions.windows, metric, resamples, cluster), len(resamples.persons)
    if minus is None:
        return bootstrap(statistic, resamples, n, UNDEFINED)
    return paired_difference(statistic, _statistic(minus.windows, metric, resamples, cluster), resamples, n, UNDEFINED)


def _statistic(windows: pd.DataFrame, metric: str, resamples: Resamples, cluster: str) -> Statistic:
    """Metric as a function of how often each person (or record) was drawn, over all seeds at once."""
    task, of_confusion = METRICS[metric]
    truth, predicted = windows[TASKS[task]], windows[f"{task}_predicted"]
    names, size = pd.Index(sorted(set(truth) | set(predicted))), len(resamples.persons)
    confusion = np.zeros((size, len(names), len(names)))
    cells = (resamples.index_of(windows[cluster]), names.get_indexer(truth), names.get_indexer(predicted))
    np.add.at(confusion, cells, 1)
    return lambda multiplicity: of_confusion(np.tensordot(multiplicity, confusion, axes=1))


def results(cohort: str, found: Mapping[tuple[str, str], Predictions], seed: int) -> pd.DataFrame:
    """Long table: one row a protocol, attacker and metric, and what DT4ECG gains over each of its ablations.

    Beside the columns of :mod:`ecgstudy.evaluate.results`: name, windows (of one seed), seeds, gap (why predictions are
    missing), by_record (interval over records, as text) and sd (over seeds).
    """
    rows = []
    for (protocol, attacker), one in found.items():
        seeds, persons = (one.windows[column].nunique() if len(one.windows) else 0 for column in ("seed", SUBJECT))
        counts = {"windows": len(one.windows) // max(seeds, 1), "seeds": seeds, "gap": one.gap}
        ablated = attacker in ABLATIONS
        estimates = {metric: estimate(one, metric, seed) for metric in METRICS}
        if ablated:
            full = found[protocol, DT4ECG]
            estimates |= {f"{metric}_gain": estimate(full, metric, seed, minus=one) for metric in METRICS}
        for metric, value in estimates.items():
            note = one.gap or ("" if math.isfinite(value.value) else UNDEFINED)
            about = {"cohort": cohort, "protocol": protocol, "attacker": attacker, "task": metric.partition("_")[0]}
            about["name"] = f"ablation.{attacker}.{metric}" if ablated else f"{cohort}.{protocol}.{attacker}.{metric}"
            numbers = (value.value, "share", value.low, value.high, persons, note)
            row = result(metric.partition("_")[2], *numbers, **about)
            rows.append(row | counts | ({} if ablated else spread(one, metric, seed)))
    return pd.DataFrame(rows)


def spread(predictions: Predictions, metric: str, seed: int) -> dict[str, object]:
    """How sure a metric is: its interval over records as text, and its standard deviation over seeds."""
    by_record, windows = estimate(predictions, metric, seed, RECORD), predictions.windows
    if math.isnan(by_record.value):
        return {"by_record": None, "sd": math.nan}
    persons = Resamples.draw(windows[SUBJECT], seed, 1)
    everybody, parts = np.ones(len(persons.persons)), windows.groupby("seed")
    each = [_statistic(part, metric, persons, SUBJECT)(everybody) for _, part in parts]
    text = None if math.isnan(by_record.low) else f"{by_record.low:.3f} to {by_record.high:.3f}"
    return {"by_record": text, "sd": float(np.std(each, ddof=1)) if len(each) > 1 else math.nan}


def wide(rows: pd.DataFrame, about: Mapping[str, str], ends: Mapping[str, str]) -> pd.DataFrame:
    """One row a protocol and attacker, its metrics side by side.

    `about` gives the first columns (name: column of the long table), `ends` what is shown of each metric (column of the
    long table: end of the name).
    """
    table: dict[tuple[str, str], dict[str, object]] = {}
    for row in rows.to_dict("records"):
        mine = table.setdefault((row["protocol"], row["attacker"]), {new: row[old] for new, old in about.items()})
        mine |= {row["name"].rpartition(".")[2] + end: row[column] for column, end in ends.items()}
    return pd.DataFrame(table.values())


def shown(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Tables of a long table: results and their spread where there are predictions, and the accuracies of ablations."""
    ablated = rows["attacker"].isin(ABLATIONS)
    predicted = rows[~ablated & (rows["windows"] > 0)]
    accuracies = rows["metric"].str.startswith("accuracy")
    ablations = wide(rows[ablated & accuracies], {"name": "attacker"}, INTERVAL)
    return wide(predicted, COUNTED, INTERVAL), wide(predicted, NAMED, SPREAD), ablations


def everything(rows: pd.DataFrame) -> pd.DataFrame:
    """Table of all that a long table knows; its last column says why predictions are missing."""
    gaps = rows.drop_duplicates(["protocol", "attacker"])["gap"].to_numpy()
    return wide(rows, COUNTED, INTERVAL | SPREAD).assign(note=gaps)


def protocol_table(protocols: Sequence[Protocol]) -> pd.DataFrame:
    """One row a protocol: what a number obtained under it says, and whether it is inflated."""
    rows = [(protocol.name, "yes" if protocol.leaky else "no", protocol.claim) for protocol in protocols]
    return pd.DataFrame(rows, columns=["protocol", "leaky", "claim"])


def paper_table(cohort: str, table: pd.DataFrame) -> pd.DataFrame:
    """Put the paper's two numbers above ours for DT4ECG; `table` is the wide one."""
    ours = table[table["model"] == DT4ECG].rename(columns={"protocol": "split"})
    columns = [f"{task}_accuracy{end}" for task in TASKS for end in INTERVAL.values()]
    rows = pd.concat([pd.DataFrame([PAPER]), ours.assign(source=f"DT4ECG (ours, {cohort})")], ignore_index=True)
    return rows[["source", "split", "persons", *columns]]


def protocol_finding(cohort: str, rows: pd.DataFrame) -> str:
    """Say in one sentence what DT4ECG reaches under each protocol."""
    ours = rows[(rows["attacker"] == DT4ECG) & (rows["metric"] == "accuracy")].dropna(subset="value")
    parts = [
        f"{protocol.replace('_', ' ')}: "
        + " and ".join(f"{row.task} {100 * row.value:.1f} %" for row in mine.itertuples())
        for protocol, mine in ours.groupby("protocol", sort=False)
    ]
    return f"Accuracy of DT4ECG on {cohort}, share of windows: {'; '.join(parts)}."


def gaps_finding(rows: pd.DataFrame) -> str:
    """Say which protocols and attackers have no predictions, or not of all folds, and why."""
    gaps = rows[rows["gap"] != ""].drop_duplicates(["protocol", "attacker"])
    named = [f"{row.protocol.replace('_', ' ')} ({row.attacker}): {row.gap}" for row in gaps.itertuples()]
    return f"What could not be asked: {'; '.join(named) or 'nothing'}."


def gain_sentence(rows: pd.DataFrame, attacker: str, what: str) -> str:
    """Say in one sentence whether DT4ECG is better than an ablation of it, by interval."""
    parts = []
    for row in rows[(rows["attacker"] == attacker) & (rows["metric"] == "accuracy_gain")].itertuples():
        verdict = "helps" if row.low > 0 else "hurts" if row.high < 0 else "is not shown to help or to hurt"
        points = f"{100 * row.value:+.1f} points ({100 * row.low:+.1f} to {100 * row.high:+.1f}): it {verdict}"
        parts.append(f"{row.task} {points if math.isfinite(row.value) else 'could not be compared'}")
    return f"{what}: {'; '.join(parts)}."


def certainty_sentence(n_persons: int) -> str:
    """Say what a faultless result on so many persons leaves open (exact binomial bound, Clopper & Pearson 1934)."""
    share = 1 - 0.05 ** (1 / n_persons)
    return (
        f"If all {n_persons} persons were recognised without a mistake, up to {100 * share:.0f} % of all people could "
        "still be such that the network fails on them (95 % confidence)."
    )


def activity_matrix(predictions: Predictions, activities: Sequence[str]) -> pd.DataFrame:
    """Person accuracy by the activity that is known (row, one a fold) and the activity that is heard (column)."""
    windows, matrix = predictions.windows, pd.DataFrame(index=range(len(activities)))
    if len(windows):
        correct = windows["person_predicted"] == windows[SUBJECT]
        matrix = pd.crosstab(windows["fold"], windows["activity"], correct, aggfunc="mean").reindex(matrix.index)
    return matrix.reindex(columns=activities).set_axis(activities)


def matrix_results(cohort: str, matrix: pd.DataFrame, n_persons: int) -> pd.DataFrame:
    """Long table of the cells of :func:`activity_matrix`."""
    rows = matrix.rename_axis("known").melt(var_name="heard", ignore_index=False).reset_index()
    view, note = rows["known"] + "_to_" + rows["heard"], np.where(rows["value"].isna(), "no window of this pair", "")
    about = {"protocol": "activity_pairs", "attacker": DT4ECG, "task": "person", "metric": "accuracy", "unit": "share"}
    name = f"{cohort}.activity_pairs." + view + ".person_accuracy"
    return rows.assign(cohort=cohort, view=view, n=n_persons, note=note, name=name, **about)


def delay_results(cohort: str, delays: pd.DataFrame, n_persons: int) -> pd.DataFrame:
    """Long table of a stream's delays (:func:`ecgstudy.dual_task.streaming.delay_table`)."""
    rows = delays.melt(["switching", "changes"], ["accuracy", "delay", "missed"], "metric")
    rows["n"] = rows["changes"].where(rows["metric"] != "accuracy", n_persons)
    rows["unit"] = np.where(rows["metric"] == "delay", "s", "share")
    rows["note"] = np.where(rows["value"].isna(), "no change of activity was heard, or none was noticed", "")
    rows["view"] = "switching_" + rows["switching"]
    name = f"{cohort}.monitoring." + rows["view"] + "." + rows["metric"].replace("accuracy", "activity_accuracy")
    return rows.assign(cohort=cohort, protocol="monitoring", attacker=DT4ECG, task="activity", name=name)


def late_results(by_time: pd.DataFrame, n_persons: int) -> pd.DataFrame:
    """Long table of how the late minutes of long records are recognised, from the first window and from all of them."""
    rows = by_time.iloc[[0, -1]].rename(columns={"accuracy": "value"})
    metric = "person_accuracy_after_" + rows["seconds"].map("{:.0f}_s".format)
    about = {"cohort": "mitdb", "protocol": "monitoring", "attacker": LONG_RECORDS, "unit": "share"}
    return rows.assign(metric=metric, n=n_persons, name="mitdb.monitoring." + metric, **about)


def monitoring_finding(protocol: str, delays: pd.DataFrame, milliseconds: float) -> str:
    """Say in one sentence what reading as a stream gives."""
    rate = f"one window takes {milliseconds:.1f} ms on one processor core, and a new one comes every {GRID_S:.0f} s."
    if delays["accuracy"].isna().all():
        return f"No session could be read as a stream, for want of usable windows; {rate}"
    best = delays.loc[delays["accuracy"].idxmax()]
    change = "no change of activity was noticed"
    if math.isfinite(best["delay"]):
        never = f"{100 * best['missed']:.0f} % of the changes never are"
        change = f"a change is noticed after {best['delay']:.0f} s (median; {never})"
    right = f"the activity is right in at most {100 * best['accuracy']:.1f} % of the seconds"
    return f"Read as a stream by the networks of {protocol.replace('_', ' ')}, {right}, and {change}; {rate}"


def coverage_table(store: RecordStore, records: pd.DataFrame) -> pd.DataFrame:
    """Usable records of each person and activity, persons alike on one row, and what was left out.

    Columns: persons (how many), who (their names, shortened where they are many), one count an activity (one without
    any usable record too), missing (activities of which they have no usable record) and left_out (their excluded
    records with the reason).
    """
    columns = list(dict.fromkeys([*activities_of(records), *ACTIVITIES]))
    counts = pd.crosstab(records[SUBJECT].str.partition("/")[2], records["activity"])
    excluded = store.exclusions
    left_out = (excluded[RECORD] + " (" + excluded["reason"] + ")").groupby(excluded[SUBJECT]).agg(", ".join)
    # somebody without any usable record is named too
    counts = counts.reindex(counts.index.union(left_out.index), columns=columns, fill_value=0)
    missing = (counts == 0).apply(lambda row: ", ".join(row.index[row]), axis=1)
    table = counts.assign(missing=missing, left_out=left_out.reindex(counts.index).fillna(""))
    alike = table.rename_axis("who").reset_index().groupby([*table], sort=False)["who"]
    short = alike.agg(
        persons="size", who=lambda names: ", ".join(names) if len(names) <= 10 else f"{min(names)} to {max(names)}"
    )
    return short.reset_index()[["persons", "who", *table]].sort_values("who", ignore_index=True)


def coverage_finding(records: pd.DataFrame, coverage: pd.DataFrame, index: pd.DataFrame) -> str:
    """Say what is missing: activities and persons without records, windows left out; and what each electrode has.

    `index` lists all windows of the records with their problem.
    """
    persons = "; ".join(f"{row.who}: {row.missing}" for row in coverage.itertuples() if row.missing) or "nobody"
    problems = index["problem"].value_counts().sort_index()
    reasons = ", ".join(f"{reason} {n}" for reason, n in problems.items()) or "none"
    absent = ", ".join(sorted(set(coverage.columns[2:-2]) - set(records["activity"]))) or "none"
    finding = (
        f"Activities without any usable record: {absent}. Persons without a usable record of some activity: {persons}. "
        f"Windows left out: {problems.sum()} ({reasons})."
    )
    if "electrode" in records:
        kinds = ", ".join(f"{kind} {n}" for kind, n in records["electrode"].value_counts().sort_index().items())
        finding += f" Usable records by electrode: {kinds}."
    return finding


def degree_table(predictions: Predictions, cohort: Cohort, fs: float, seed: int) -> pd.DataFrame:
    """Both accuracies by the worst artefact degree in the window: degree, windows, persons, metrics with intervals.

    Empty where nobody marked any.
    """
    rows = []
    for degree, windows in predictions.windows.groupby(worst_degree(predictions.windows, cohort, fs)):
        part = replace(predictions, windows=windows)
        row = {"degree": int(degree), "windows": len(windows) // windows["seed"].nunique()}
        row["persons"] = windows[SUBJECT].nunique()
        for metric in ("person_accuracy", "activity_accuracy"):
            row |= interval(metric, estimate(part, metric, seed))
        rows.append(row)
    return pd.DataFrame(rows)


def worst_degree(windows: pd.DataFrame, cohort: Cohort, fs: float) -> pd.Series:
    """Highest artefact degree that each window touches; NaN where nobody marked any."""
    if not isinstance(cohort, MotionCohort):
        return pd.Series(np.nan, windows.index)
    marked = []
    for name, rate in cohort.records().set_index(RECORD)["fs"].items():
        spans = cohort.artefacts(name)
        marked.append(
            spans.assign(record_id=f"{cohort.name}/{name}", first=spans["start"] / rate, last=spans["end"] / rate)
        )
    pairs = windows.reset_index()[["index", RECORD, "start", "n_samples"]]
    pairs = pairs.merge(pd.concat(marked)[[RECORD, "first", "last", "degree"]], on=RECORD)
    start = pairs["start"] / fs
    touching = pairs[(pairs["first"] < start + pairs["n_samples"] / fs) & (pairs["last"] > start)]
    return touching.groupby("index")["degree"].max().reindex(windows.index)
