"""Accuracies and macro F1 with their intervals, paired differences, and the tables and sentences made from them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix

from ecgstudy.data.base import Cohort
from ecgstudy.data.public import MotionCohort
from ecgstudy.data.simulator.people import ACTIVITIES
from ecgstudy.dual_task.plan import ABLATIONS, DT4ECG, LONG_RECORDS
from ecgstudy.dual_task.predictions import TASKS, Predictions
from ecgstudy.dual_task.streaming import GUESS, UNNOTICED, USUAL, accuracy_by_time, decisions_by_time
from ecgstudy.evaluate.bootstrap import (
    Estimate,
    Resamples,
    bootstrap,
    most_failures,
    paired_difference,
    ratio,
    with_exact_bounds,
)
from ecgstudy.evaluate.classification import accuracy, macro_f1, of_confusion
from ecgstudy.evaluate.protocols import activities_of
from ecgstudy.evaluate.results import INTERVAL, estimate_note, estimate_results, pivot, result
from ecgstudy.evaluate.splits import RECORD, SUBJECT, Protocol
from ecgstudy.experiment.dataset import GRID_S
from ecgstudy.signals.store import RecordStore

METRICS = {
    "person_accuracy": ("person", accuracy),
    "activity_accuracy": ("activity", accuracy),
    "activity_macro_f1": ("activity", macro_f1),
}
"""Task, and function of its confusion matrix."""
UNDEFINED = "these networks do not answer this question under this protocol"
UNHEARD = "no window of this pair"
PAPER = {"source": "DT4ECG (paper)", "split": "not published", "persons": "not known"}
PAPER |= {"person_accuracy": 0.9912, "activity_accuracy": 0.9011}
"""arXiv 2502.11023: its own persons, how many is not confirmed."""
COUNTS = ("windows", "n", "seeds")
"""Columns of the long table that say what a number rests on."""
SPREAD = {"by_record": "_by_record", "sd": "_sd"}


def estimate(
    predictions: Predictions, metric: str, seed: int, cluster: str = SUBJECT, minus: Predictions | None = None
) -> Estimate:
    """Metric over all windows and seeds with its interval over persons (or records); NaN where nothing is predicted.

    With `minus`, of the same windows: the paired difference to it.
    """
    asked = [predictions] if minus is None else [predictions, minus]
    if any(math.isnan(one.accuracy(METRICS[metric][0])) for one in asked):
        return Estimate(math.nan, reason=UNDEFINED)
    resamples, (task, measure) = Resamples.draw(predictions.windows[cluster], seed), METRICS[metric]
    drawn, truth = (predictions.windows[column].to_numpy(str) for column in (cluster, TASKS[task]))
    named = [one.windows[f"{task}_predicted"].to_numpy(str) for one in asked]
    n = len(resamples.persons)
    statistics = [of_confusion(measure, truth, one, resamples.index_of(drawn), n) for one in named]
    if minus is not None:
        return paired_difference(*statistics, resamples, n, UNDEFINED)
    found = bootstrap(*statistics, resamples, n, UNDEFINED)
    return with_exact_bounds(found, named[0] != truth, resamples.index_of(drawn)) if measure is accuracy else found


def results(cohort: str, found: Mapping[tuple[str, str], Predictions], seed: int) -> pd.DataFrame:
    """Long table: one row a protocol, attacker and metric, and what DT4ECG gains over each of its ablations.

    Beside the columns of :mod:`ecgstudy.evaluate.results`: name, answer (task and metric), windows (of one seed),
    seeds, gap (why predictions are missing), by_record (interval over records, as text) and sd (over seeds).
    """
    rows = []
    for (protocol, attacker), one in found.items():
        seeds, persons = (one.windows[column].nunique() for column in ("seed", SUBJECT))
        estimates = {metric: estimate(one, metric, seed) for metric in METRICS}
        about = {"cohort": cohort, "protocol": protocol, "attacker": attacker, "gap": one.gap, "seeds": seeds}
        about["windows"] = len(one.windows) // max(seeds, 1)
        path = f"{cohort}.{protocol}.{attacker}"
        if attacker in ABLATIONS:
            full, path = found[protocol, DT4ECG], f"ablation.{attacker}"
            estimates |= {f"{metric}_gain": estimate(full, metric, seed, minus=one) for metric in METRICS}
        for answer, given in estimates.items():
            task, _, metric = answer.partition("_")
            note = one.gap or (UNDEFINED if math.isnan(given.value) else estimate_note(given))
            row = result(metric, given.value, "share", given.low, given.high, persons, note, **about)
            row |= {"task": task, "name": f"{path}.{answer}", "answer": answer}
            rows.append(row | ({} if attacker in ABLATIONS else spread(one, answer, seed)))
    return pd.DataFrame(rows)


def spread(predictions: Predictions, metric: str, seed: int) -> dict[str, object]:
    """How sure a metric is: its interval over records as text, and its standard deviation over seeds."""
    by_record, (task, of_confusion) = estimate(predictions, metric, seed, RECORD), METRICS[metric]
    if math.isnan(by_record.value):
        return {"by_record": None, "sd": math.nan}
    each = [
        of_confusion(confusion_matrix(part[TASKS[task]], part[f"{task}_predicted"]))
        for _, part in predictions.windows.groupby("seed")
    ]
    text = None if math.isnan(by_record.low) else f"{by_record.low:.3f} to {by_record.high:.3f}"
    return {"by_record": text, "sd": pd.Series(each).std()}


def shown(rows: pd.DataFrame, *counts: str, ends: Mapping[str, str] = INTERVAL) -> pd.DataFrame:
    """Table of a long table of :func:`results`: one row a protocol and network; ablations are left out.

    `counts` are the columns that follow the names, `ends` what is shown of each metric.
    """
    table = pivot(rows[~rows["attacker"].isin(ABLATIONS)], ["protocol", "attacker", *counts], "answer", ends=ends)
    return table.rename(columns={"attacker": "model", "n": "persons"})


def everything(rows: pd.DataFrame) -> pd.DataFrame:
    """Table of all that a long table knows; its last column says why predictions are missing."""
    table = shown(rows, *COUNTS, "gap", ends=INTERVAL | SPREAD)
    return table.assign(note=table.pop("gap"))


def ablation_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Accuracies of a long table's ablations, and what DT4ECG gains over them."""
    mine = rows[rows["attacker"].isin(ABLATIONS) & rows["metric"].str.startswith("accuracy")]
    return pivot(mine, ["attacker"], "answer", ends=INTERVAL).rename(columns={"attacker": "name"})


def protocol_table(protocols: Sequence[Protocol]) -> pd.DataFrame:
    """One row a protocol: what a number obtained under it says, and whether it is inflated."""
    rows = [(protocol.name, "yes" if protocol.leaky else "no", protocol.claim) for protocol in protocols]
    return pd.DataFrame(rows, columns=["protocol", "leaky", "claim"])


def paper_table(cohort: str, table: pd.DataFrame) -> pd.DataFrame:
    """Put the paper's two numbers above ours for DT4ECG; `table` is the one of :func:`shown`."""
    ours = table[table["model"] == DT4ECG].rename(columns={"protocol": "split"})
    rows = pd.concat([pd.DataFrame([PAPER]), ours.assign(source=f"DT4ECG (ours, {cohort})")], ignore_index=True)
    return rows[["source", "split", "persons", *table.filter(like="_accuracy")]]


def protocol_finding(cohort: str, rows: pd.DataFrame) -> str:
    """Say in one sentence what DT4ECG reaches under each protocol."""
    ours = rows[(rows["attacker"] == DT4ECG) & (rows["metric"] == "accuracy")].dropna(subset="value")
    said = ours["task"] + (100 * ours["value"]).map(" {:.1f} %".format)
    parts = said.groupby(ours["protocol"].str.replace("_", " "), sort=False).agg(" and ".join)
    return f"Accuracy of DT4ECG on {cohort}, share of windows: {'; '.join(parts.index + ': ' + parts)}."


def gaps_finding(rows: pd.DataFrame) -> str:
    """Say which protocols and attackers have no predictions, or not of all folds, and why."""
    gaps = rows[rows["gap"] != ""].drop_duplicates(["protocol", "gap"])
    named = [f"{row.protocol.replace('_', ' ')} ({row.attacker}): {row.gap}" for row in gaps.itertuples()]
    return f"What could not be asked: {'; '.join(named) or 'nothing'}."


def gain_sentence(rows: pd.DataFrame, attacker: str, what: str) -> str:
    """Say in one sentence whether DT4ECG is better than an ablation, by interval, and how often that was asked."""
    gains, parts = rows[rows["metric"] == "accuracy_gain"], []
    for row in gains[gains["attacker"] == attacker].itertuples():
        verdict = "helps" if row.low > 0 else "hurts" if row.high < 0 else "is not shown to help or to hurt"
        points = f"{_points(row.value)} points ({_points(row.low)} to {_points(row.high)}): it {verdict}"
        parts.append(f"{row.task} {points if math.isfinite(row.value) else 'could not be compared'}")
    asked = gains["value"].notna().sum()
    return f"{what}: {'; '.join(parts)} (each one of {asked} comparisons, uncorrected)."


def _points(share: float) -> str:
    """Write a share as points, with a second decimal where the first would hide that it is not 0."""
    return next((text for places in (1, 2) if float(text := f"{100 * share:+.{places}f}")), "+0.0")


def certainty_sentence(n_persons: int) -> str:
    """Say what a faultless result on so many persons leaves open ."""
    share = f"{100 * most_failures(n_persons, 0.95):.0f} %"
    return (
        f"If all {n_persons} persons were recognised without a mistake, up to {share} of all people could "
        "still be such that the network fails on them (95 % confidence)."
    )


def activity_matrix(predictions: Predictions, activities: Sequence[str]) -> pd.DataFrame:
    """Person accuracy by the activity that is known (row, one a fold) and the activity that is heard (column)."""
    windows = predictions.windows.eval("right = person_predicted == subject_id")
    matrix = windows.pivot_table(index="fold", columns="activity", values="right")
    return matrix.reindex(range(len(activities)), columns=activities).set_axis(activities)


def matrix_results(cohort: str, predictions: Predictions, activities: Sequence[str], seed: int) -> pd.DataFrame:
    """Long table of the cells of :func:`activity_matrix`, with intervals over persons."""
    cells, rows = predictions.windows.groupby(["fold", "activity"]).indices, []
    about = {"cohort": cohort, "protocol": "activity_pairs", "attacker": DT4ECG, "task": "person"}
    for (fold, known), heard in product(enumerate(activities), activities):
        part = predictions.subset(cells.get((fold, heard), []))
        found = estimate(part, "person_accuracy", seed) if len(part.windows) else Estimate(math.nan, reason=UNHEARD)
        view = f"{known}_to_{heard}"
        (row,) = estimate_results({"accuracy": found}, view=view, **about)
        rows.append(row | {"name": f"{cohort}.activity_pairs.{view}.person_accuracy"})
    return pd.DataFrame(rows)


def delay_results(cohort: str, delays: pd.DataFrame, n_persons: int) -> pd.DataFrame:
    """Long table of a stream's delays (:func:`ecgstudy.dual_task.streaming.delay_table`)."""
    rows = []
    about = {"cohort": cohort, "protocol": "monitoring", "attacker": DT4ECG, "task": "activity"}
    units = {"delay": "s", "false_switches": "a minute"}
    for given in delays.to_dict("records"):
        named = given["switching"].replace(" ", "_")
        view = named if given["switching"] in (GUESS, USUAL) else f"switching_{named}"
        for metric in ("accuracy", "delay", "missed", "false_switches"):
            value, low, high = (given[metric + end] for end in ("", "_low", "_high"))
            n = given["changes"] if metric in ("delay", "missed") else n_persons
            note = UNNOTICED if math.isnan(value) else ""
            row = result(metric, value, units.get(metric, "share"), low, high, n, note, view=view, **about)
            answer = metric.replace("accuracy", "activity_accuracy")
            rows.append(row | {"name": f"{cohort}.monitoring.{view}.{answer}"})
    return pd.DataFrame(rows)


def late_results(late: Predictions, seconds: float, seed: int) -> pd.DataFrame:
    """Long table of how the late minutes of long records are recognised, from the first window and from all of them."""
    ends, rows = accuracy_by_time(late, seconds)["seconds"].iloc[[0, -1]], []
    decided, resamples = decisions_by_time(late, seconds), Resamples.draw(late.windows[SUBJECT], seed)
    for heard in ends:
        now = decided[decided["seconds"] == heard]
        right, person = now["right"].to_numpy(float), resamples.index_of(now[SUBJECT])
        share = bootstrap(
            lambda drawn, right=right, person=person: ratio(drawn[person] @ right, drawn[person].sum()).item(),
            resamples,
            now[SUBJECT].nunique(),
            UNDEFINED,
        )
        metric = f"person_accuracy_after_{heard:.0f}_s"
        about = {"cohort": "mitdb", "protocol": "monitoring", "attacker": LONG_RECORDS, "task": "person"}
        (row,) = estimate_results({metric: with_exact_bounds(share, 1 - right, person)}, **about)
        rows.append(row | {"name": f"mitdb.monitoring.{metric}"})
    return pd.DataFrame(rows)


def monitoring_finding(protocol: str, delays: pd.DataFrame, switching: float, milliseconds: float) -> str:
    """Say in one sentence what reading as a stream gives, by the `switching` that was chosen beforehand."""
    rate = f"one window takes {milliseconds:.1f} ms on one processor core, and a new one comes every {GRID_S:.0f} s."
    if delays["accuracy"].isna().all():
        return f"No session could be read as a stream, for want of usable windows; {rate}"
    rows = delays.set_index("switching")
    own, guess = rows.loc[f"{switching:g}"], rows.loc[GUESS]
    change = "no change of activity was noticed"
    if math.isfinite(own["delay"]):
        change = f"half of the changes that are noticed are after {own['delay']:.0f} s"
    return (
        f"Read as a stream by the networks of {protocol.replace('_', ' ')}, the activity is right in "
        f"{100 * own['accuracy']:.1f} % of the seconds (a guess: {100 * guess['accuracy']:.1f} %); {change}, "
        f"{100 * own['missed']:.0f} % never are (a guess: {100 * guess['missed']:.0f} %), with "
        f"{own['false_switches']:.1f} false switches a minute; {rate}"
    )


def confusion_finding(predictions: Predictions) -> str:
    """Say which two activities are taken for each other most often, both ways."""
    windows = predictions.windows
    share = pd.crosstab(windows["activity"], windows["activity_predicted"], normalize="index")
    share = share.reindex(index=share.index, columns=share.index, fill_value=0.0)
    both = share + share.T
    pairs = [(both.loc[one, other], one, other) for one, other in combinations(share.index, 2)]
    most, one, other = max(pairs, default=(0.0, "", ""))
    if not most:
        return "No activity was taken for another."
    ways = [f"{100 * share.loc[a, b]:.0f} % of {a} for {b}" for a, b in ((one, other), (other, one))]
    return f"Most often taken for each other: {' and '.join(ways)}.".replace("_", " ")


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
    absent = ", ".join(sorted(set(coverage.columns[2:-2]) - set(records["activity"]))) or "none"
    electrodes = f" Usable records by electrode: {_counted(records['electrode'])}." if "electrode" in records else ""
    return (
        f"Activities without any usable record: {absent}. Persons without a usable record of some activity: {persons}. "
        f"Windows left out: {index['problem'].count()} ({_counted(index['problem']) or 'none'}).{electrodes}"
    )


def _counted(values: pd.Series) -> str:
    """How often each value occurs, in words."""
    return ", ".join(f"{value} {n}" for value, n in values.value_counts().sort_index().items())


def degree_table(predictions: Predictions, cohort: Cohort, fs: float, seed: int) -> pd.DataFrame:
    """Both accuracies by the worst artefact degree in the window: degree, windows, persons, metrics with intervals.

    Empty where nobody marked any.
    """
    degrees = predictions.windows.groupby(worst_degree(predictions.windows, cohort, fs))
    found = {(int(degree), DT4ECG): replace(predictions, windows=windows) for degree, windows in degrees}
    if not found:
        return pd.DataFrame()
    rows = results(cohort.name, found, seed).query("metric == 'accuracy'")
    table = pivot(rows, ["protocol", "windows", "n"], "answer", ends=INTERVAL)
    return table.rename(columns={"protocol": "degree", "n": "persons"})


def worst_degree(windows: pd.DataFrame, cohort: Cohort, fs: float) -> pd.Series:
    """Highest artefact degree that each window touches; NaN where nobody marked any."""
    worst = pd.Series(np.nan, windows.index)
    if not isinstance(cohort, MotionCohort):
        return worst
    rates = cohort.records().set_index(RECORD)["fs"]
    for record, own in windows.groupby(RECORD):
        name = record.partition("/")[2]
        marked = cohort.artefacts(name)
        first, last = (marked[side].to_numpy() / rates[name] for side in ("start", "end"))
        start = own["start"].to_numpy()[:, None] / fs
        touched = (first < start + own["n_samples"].to_numpy()[:, None] / fs) & (last > start)
        degrees = np.where(touched, marked["degree"], np.nan)
        worst[own.index] = np.fmax.reduce(degrees, axis=1, initial=np.nan)
    return worst
