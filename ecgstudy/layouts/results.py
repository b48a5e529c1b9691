"""What models say of pages, as rows of the results table."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ecgstudy.evaluate.bootstrap import Resamples, bootstrap_each, clustered_means
from ecgstudy.evaluate.results import estimate_results, result, results_table
from ecgstudy.evaluate.splits import RECORD, SUBJECT
from ecgstudy.evaluate.trials import SortedScores, auroc
from ecgstudy.layouts.evidence import PIECES
from ecgstudy.layouts.layout import LAYOUTS, RANDOM
from ecgstudy.layouts.pages import AF, FIBRILLATES, LEAST_POSITIVES, SUBCLASS, SUPERCLASS, Pages
from ecgstudy.layouts.plan import BEST, VIEWS, PageJob, Reading

SUBCLASS5 = "subclass5"
"""The subclasses with five positives or more: the headline."""
MEAN = "mean"
BINS = 10
WORST_ODDS = -30.0
"""Log odds of a class that a model has never seen."""


Scores = dict[tuple[str, str], pd.DataFrame]
"""Log odds by model and view: a row a record, a column a task."""


def scores_of(values: Mapping[str, Reading], jobs: Sequence[PageJob], asked: str) -> Scores:
    """Scores of the records of a cohort, mean over seeds, pooled over folds."""
    parts: dict[tuple[str, str], list[pd.DataFrame]] = {}
    for job in jobs:
        if job.asked == asked and job.name in values:
            found = values[job.name]
            for cell, scores in found.scores.items():
                parts.setdefault(cell, []).append(pd.DataFrame(scores, found.records, found.tasks))
    return {cell: pd.concat(tables).groupby(level=0).mean() for cell, tables in parts.items()}


def evidence_of(values: Mapping[str, Reading], jobs: Sequence[PageJob], pages: Pages, label: str) -> np.ndarray:
    """Mean evidence for a label over the records that have it and their models, (len(PIECES),); NaN without any."""
    positive, parts = set(pages.records[RECORD][pages.labels[label] == 1]), []
    for job in jobs:
        found = values.get(job.name)
        if found is not None and found.evidence is not None and job.asked == job.cohort and label in found.tasks:
            rows = [row for row, name in enumerate(found.records) if name in positive]
            parts.append(found.evidence[rows][..., found.tasks.index(label)])
    return np.concatenate(parts).mean(axis=0) if parts else np.full(len(PIECES), np.nan)


@dataclass(frozen=True)
class Judged:
    """AUROC of every label, model and view of a cohort as functions of how often each person was drawn.

    `sets` names the labels of each label set; `ranked` holds sorted scores and the numbers of the persons, by model,
    view and label; models that read some records only are compared with the judged model on those, see :data:`BEST`.
    """

    sets: dict[str, list[str]]
    ranked: dict[tuple[str, str, str], tuple[SortedScores, np.ndarray]]
    models: list[str]

    def by_label(self, multiplicity: np.ndarray) -> dict[tuple[str, str, str], float]:
        """AUROC of every model, view and label; NaN where a label is absent."""
        return {
            cell: auroc(scores.levels(multiplicity[person][scores.order]))
            for cell, (scores, person) in self.ranked.items()
        }

    def macro(self, found: Mapping[tuple[str, str, str], float], model: str, labels: Sequence[str]) -> np.ndarray:
        """Mean AUROC over the labels that occur, by view, (n_views,)."""
        table = np.array([[found[model, view, label] for label in labels] for view in VIEWS])
        known = np.isfinite(table)
        total = np.where(known, table, 0).sum(axis=1)
        return np.where(known.any(axis=1), total / np.maximum(known.sum(axis=1), 1), math.nan)


def on_the_same_records(model: str) -> str:
    """Name of the judged model on the records that another model has read."""
    return f"{BEST} beside {model}"


def judged(pages: Pages, scores: Scores, resamples: Resamples) -> Judged:
    """Sort the scores of every model, view and label once."""
    labels = pages.labels.set_axis(pages.records[RECORD])
    person = pd.Series(resamples.index_of(pages.records[SUBJECT]), pages.records[RECORD])
    read = labels.loc[scores[BEST, RANDOM].index]
    counts = pd.DataFrame({"yes": read.eq(1).sum(), "no": read.eq(0).sum()})
    occur = counts[(counts > 0).all(axis=1)]
    sets = {kind: [name for name in occur.index if name.startswith(f"{kind} ")] for kind in (SUBCLASS, SUPERCLASS, AF)}
    sets[SUBCLASS5] = [name for name in sets[SUBCLASS] if occur.loc[name].min() >= LEAST_POSITIVES]
    sets = {kind: names for kind, names in sets.items() if names}
    models = [
        model for model in dict.fromkeys(model for model, _ in scores) if all((model, v) in scores for v in VIEWS)
    ]
    tables = {cell: table for cell, table in scores.items() if cell[0] in models}
    for model in models:
        rows = scores[model, RANDOM].index
        if len(rows) < len(read):
            tables |= {(on_the_same_records(model), view): scores[BEST, view].loc[rows] for view in VIEWS}
    ranked = {}
    for (model, view), table in tables.items():
        asked = {task.partition(" ")[0] for task in table}
        for label in [name for kind in asked for name in sets.get(kind, [])]:
            truth = labels.loc[table.index, label]
            known = truth.notna()
            odds = table[label][known] if label in table else pd.Series(WORST_ODDS, table.index[known])
            # a fold in which a class cannot be learnt says nothing of it
            ranked[model, view, label] = (
                SortedScores(odds.fillna(WORST_ODDS), truth[known] == 1),
                person.loc[table.index[known]].to_numpy(),
            )
    return Judged(sets, ranked, models)


def page_results(pages: Pages, scores: Scores, cohort: str, seed: int, n_resamples: int = 1000) -> pd.DataFrame:
    """Long table of macro AUROC by label set, view and model, their means over the fixed layouts, and gains.

    All intervals and differences are over the same resamples of persons. The mean, the spread (highest minus lowest)
    and the gains are over the fixed layouts; what is compared is compared on the same records. The best fill is the one
    with the highest mean here, which favours it.
    """
    resamples = Resamples.draw(pages.records[SUBJECT], seed, n_resamples)
    table = judged(pages, scores, resamples)
    keys = _numbers(table, table.by_label(np.ones(resamples.persons.size)))

    def numbers(multiplicity: np.ndarray) -> list[float]:
        return [*_numbers(table, table.by_label(multiplicity), keys).values()]

    reasons = ["too few records have the diagnosis"] * len(keys)
    n_persons = {model: _persons(table, model) for model in table.models}
    found = bootstrap_each(numbers, resamples, resamples.persons.size, reasons)
    rows = []
    for (kind, model, view, metric), estimate in zip(keys, found, strict=True):
        of_model = {metric: replace(estimate, n=n_persons[model])}
        about = {"cohort": cohort, "protocol": "folds", "attacker": model, "view": view, "task": kind}
        parts = [cohort, kind, *([view, model] if metric == "auroc" else []), metric]
        rows += [row | {"name": ".".join(parts)} for row in estimate_results(of_model, **about)]
    return results_table(rows)


def _persons(table: Judged, model: str) -> int:
    """Count the persons whose records a model has read."""
    return np.unique(np.concatenate([person for (of, *_), (_, person) in table.ranked.items() if of == model])).size


Key = tuple[str, str, str, str]
"""Label set, model, view and metric of a number."""


def _numbers(
    table: Judged, found: Mapping[tuple[str, str, str], float], asked: Mapping[Key, float] | None = None
) -> dict[Key, float]:
    """Every number of a cohort from the AUROC of its labels; `asked` are the numbers of everybody, drawn once."""
    numbers: dict[Key, float] = {}
    fixed = slice(len(LAYOUTS))
    for kind, labels in table.sets.items():
        models = [model for model in table.models if (model, RANDOM, labels[0]) in table.ranked]
        by_view = {model: table.macro(found, model, labels) for model in models}
        for model, values in by_view.items():
            numbers |= {(kind, model, view, "auroc"): value for view, value in zip(VIEWS, values, strict=True)}
            numbers[kind, model, MEAN, "auroc"] = values[fixed].mean()
        if BEST not in by_view:
            continue
        own = by_view[BEST]
        numbers[kind, BEST, MEAN, "spread"] = np.ptp(own[fixed])
        numbers[kind, BEST, MEAN, "random_minus_mean"] = own[-1] - own[fixed].mean()
        fills = [model for model in models if model.startswith("fill_")]
        # who is best is decided once, on everybody
        known = asked or numbers
        best_fill = max(fills, key=lambda model: known[kind, model, MEAN, "auroc"], default=None)
        rivals = {model: model for model in models if model not in (BEST, *fills)}
        rivals |= {"best_fill": best_fill} if best_fill else {}
        for name, model in rivals.items():
            beside = on_the_same_records(model)
            mine = table.macro(found, beside, labels) if (beside, RANDOM, labels[0]) in table.ranked else own
            numbers[kind, model, MEAN, f"gain_over_{name}"] = (mine - by_view[model])[fixed].mean()
    return numbers


def threshold_results(pages: Pages, scores: Scores, cohort: str, seed: int) -> pd.DataFrame:
    """Long table of sensitivity and specificity of models of fibrillation alone, whose threshold is 0, by view."""
    truth, person = (
        pd.Series(of.to_numpy(), pages.records[RECORD]) for of in (pages.labels[FIBRILLATES], pages.records[SUBJECT])
    )
    resamples, rows = Resamples.draw(pages.records[SUBJECT], seed), []
    for (model, view), table in scores.items():
        if [*table] == [FIBRILLATES]:
            own, said = truth[table.index], table[FIBRILLATES] >= 0
            shares = {"sensitivity": said.where(own == 1), "specificity": (~said).where(own == 0)}
            found = clustered_means(
                pd.DataFrame(shares, dtype=float), person[table.index].to_numpy(), resamples, "no record is known"
            )
            about = {"cohort": cohort, "protocol": "folds", "attacker": model, "view": view, "task": AF}
            for row in estimate_results(found, **about):
                rows.append(row | {"name": f"{cohort}.{AF}.{view}.{model}.{row['metric']}"})
    return results_table(rows)


def label_results(pages: Pages, scores: Scores, cohort: str) -> pd.DataFrame:
    """Long table of the judged model's AUROC of every label, mean over the fixed layouts, with its positives as n."""
    resamples = Resamples.draw(pages.records[SUBJECT], 0, 1)
    table = judged(pages, {cell: each for cell, each in scores.items() if cell[0] == BEST}, resamples)
    found, rows = table.by_label(np.ones(resamples.persons.size)), []
    for label in dict.fromkeys(label for _, _, label in table.ranked):
        value = float(np.mean([found[BEST, view, label] for view in LAYOUTS]))
        positives = int((pages.labels[label] == 1).sum())
        about = {"cohort": cohort, "protocol": "folds", "attacker": BEST, "view": MEAN, "task": label}
        row = result("auroc", value, "share", n=positives, note="n counts positives.", **about)
        rows.append(row | {"name": f"{cohort}.label.{label.replace(' ', '.')}.{BEST}.auroc"})
    return results_table(rows)


def cost_results(costs: pd.DataFrame, cohort: str) -> pd.DataFrame:
    """Long table of what training takes, and how many times as long the paper's size takes as the judged model."""
    rows, core_s = [], costs.set_index("model")["core_s"]
    about = {"cohort": cohort, "protocol": "folds", "view": "", "task": ""}
    for model, value in core_s.items():
        row = result("training_core_s", value, "s", attacker=model, note="one pair of folds, all seeds", **about)
        rows.append(row | {"name": f"{cohort}.training.{model}.core_s"})
    times = core_s["patchecg_paper"] / core_s[BEST]
    row = result("times_faster", times, attacker=BEST, note="than patchecg_paper, in core seconds", **about)
    return results_table([*rows, row | {"name": f"{cohort}.training.{BEST}.times_faster_than_patchecg_paper"}])


def calibration(pages: Pages, scores: Scores) -> pd.DataFrame:
    """Predicted and observed share of positives by tenths of probability, the judged model on every fixed layout."""
    labels = pages.labels.set_axis(pages.records[RECORD]).filter(regex=f"^{SUBCLASS} ")
    labels = labels.loc[:, labels.sum() >= LEAST_POSITIVES]
    parts = []
    for view in LAYOUTS:
        odds = scores[BEST, view].reindex(columns=labels.columns)
        truth = labels.loc[odds.index].to_numpy().ravel()
        parts.append(pd.DataFrame({"p": 1 / (1 + np.exp(-odds.to_numpy().ravel())), "truth": truth}).dropna())
    both = pd.concat(parts)
    groups = both.groupby((both["p"] * BINS).astype(int).clip(upper=BINS - 1))
    return groups.agg(predicted=("p", "mean"), observed=("truth", "mean"), n=("p", "size")).reset_index(drop=True)


def calibration_results(table: pd.DataFrame, cohort: str) -> pd.DataFrame:
    """Row of the expected calibration error: the mean distance of predicted and observed shares, weighed by bins."""
    error = float(np.average((table["predicted"] - table["observed"]).abs(), weights=table["n"]))
    about = {"cohort": cohort, "protocol": "folds", "attacker": BEST, "view": MEAN, "task": SUBCLASS5}
    row = result("calibration_error", error, "share", n=int(table["n"].sum()), **about)
    return results_table([row | {"name": f"{cohort}.{SUBCLASS5}.{MEAN}.{BEST}.calibration_error"}])
