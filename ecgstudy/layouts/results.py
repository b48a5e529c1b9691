"""What models say of pages, as rows of the results table."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from ecgstudy.evaluate.bootstrap import Resamples, bootstrap_each, clustered_means
from ecgstudy.evaluate.results import estimate_results, result, results_table
from ecgstudy.evaluate.splits import RECORD, SUBJECT
from ecgstudy.evaluate.trials import SortedScores, auroc
from ecgstudy.layouts.beats import PIECES
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
            for cell, table in values[job.name].tables.items():
                parts.setdefault(cell, []).append(table)
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
    The `best_fill` of a label set is the first question's, which is about everybody.
    """

    sets: dict[str, list[str]]
    ranked: dict[tuple[str, str, str], tuple[SortedScores, np.ndarray]]
    models: list[str]
    best_fill: dict[str, str] = field(default_factory=dict)

    def by_label(self, multiplicity: np.ndarray) -> dict[tuple[str, str, str], float]:
        """AUROC of every model, view and label; NaN where a label is absent."""
        return {
            cell: auroc(scores.levels(multiplicity[person][scores.order]))
            for cell, (scores, person) in self.ranked.items()
        }

    def numbers(self, multiplicity: np.ndarray) -> dict[tuple[str, str, str, str], float]:
        """Every number of the cohort, by label set, model, view and metric."""
        found, numbers, fixed = self.by_label(multiplicity), {}, slice(len(LAYOUTS))

        def macro(model: str, labels: Sequence[str]) -> np.ndarray:
            """Mean AUROC over the labels that occur, by view, (n_views,)."""
            table = np.array([[found[model, view, label] for label in labels] for view in VIEWS])
            known = np.isfinite(table)
            total = np.where(known, table, 0).sum(axis=1)
            return np.where(known.any(axis=1), total / np.maximum(known.sum(axis=1), 1), math.nan)

        for kind, labels in self.sets.items():
            by_view = {model: macro(model, labels) for model in self.models if (model, RANDOM, labels[0]) in found}
            for model, values in by_view.items():
                numbers |= {(kind, model, view, "auroc"): value for view, value in zip(VIEWS, values, strict=True)}
                numbers[kind, model, MEAN, "auroc"] = values[fixed].mean()
            if BEST not in by_view:
                continue
            own = by_view[BEST]
            numbers[kind, BEST, MEAN, "spread"] = np.ptp(own[fixed])
            numbers[kind, BEST, MEAN, "random_minus_mean"] = own[-1] - own[fixed].mean()
            fills = {model: values[fixed].mean() for model, values in by_view.items() if model.startswith("fill_")}
            rivals = {model: model for model in by_view if model not in (BEST, *fills)}
            if fills:
                rivals["best_fill"] = self.best_fill.setdefault(kind, max(fills, key=fills.__getitem__))
            for name, model in rivals.items():
                beside = _beside(model)
                mine = macro(beside, labels) if (beside, RANDOM, labels[0]) in found else own
                numbers[kind, model, MEAN, f"gain_over_{name}"] = (mine - by_view[model])[fixed].mean()
        return numbers


def _beside(model: str) -> str:
    """Name of the judged model on the records that another model has read."""
    return f"{BEST} beside {model}"


def judged(pages: Pages, scores: Scores, resamples: Resamples) -> Judged:
    """Sort the scores of every model, view and label once."""
    labels = pages.labels.set_axis(pages.records[RECORD])
    person = pd.Series(resamples.index_of(pages.records[SUBJECT]), pages.records[RECORD])
    read = labels.loc[scores[BEST, RANDOM].index]
    rarer = np.minimum(read.eq(1).sum(), read.eq(0).sum())
    occur = rarer.index[rarer > 0]
    sets = {kind: [name for name in occur if name.startswith(f"{kind} ")] for kind in (SUBCLASS, SUPERCLASS, AF)}
    sets[SUBCLASS5] = [name for name in sets[SUBCLASS] if rarer[name] >= LEAST_POSITIVES]
    sets = {kind: names for kind, names in sets.items() if names}
    models = [
        model for model in dict.fromkeys(model for model, _ in scores) if all((model, v) in scores for v in VIEWS)
    ]
    tables = {cell: table for cell, table in scores.items() if cell[0] in models}
    for model in models:
        rows = scores[model, RANDOM].index
        if len(rows) < len(read):
            tables |= {(_beside(model), view): scores[BEST, view].loc[rows] for view in VIEWS}
    ranked = {}
    for (model, view), table in tables.items():
        asked = {task.partition(" ")[0] for task in table}
        for label in [name for kind in asked for name in sets.get(kind, [])]:
            truth = labels.loc[table.index, label].dropna()
            # a fold in which a class cannot be learnt says nothing of it
            odds = table.reindex(columns=[label])[label][truth.index].fillna(WORST_ODDS)
            ranked[model, view, label] = SortedScores(odds, truth == 1), person[truth.index].to_numpy()
    return Judged(sets, ranked, models)


def page_results(pages: Pages, scores: Scores, cohort: str, seed: int, n_resamples: int = 1000) -> pd.DataFrame:
    """Long table of macro AUROC by label set, view and model, their means over the fixed layouts, and gains.

    All intervals and differences are over the same resamples of persons. The mean, the spread (highest minus lowest)
    and the gains are over the fixed layouts; what is compared is compared on the same records. The best fill is the one
    with the highest mean here, which favours it.
    """
    resamples = Resamples.draw(pages.records[SUBJECT], seed, n_resamples)
    table, n_persons = judged(pages, scores, resamples), resamples.persons.size
    keys, rows, owners = [*table.numbers(np.ones(n_persons))], [], {}
    for (model, *_), (_, person) in table.ranked.items():
        owners.setdefault(model, set()).update(person.tolist())
    reasons = ["too few records have the diagnosis"] * len(keys)
    found = bootstrap_each(lambda drawn: [*table.numbers(drawn).values()], resamples, n_persons, reasons)
    for (kind, model, view, metric), estimate in zip(keys, found, strict=True):
        of_model = {metric: replace(estimate, n=len(owners[model]))}
        about = {"cohort": cohort, "protocol": "folds", "attacker": model, "view": view, "task": kind}
        parts = [cohort, kind, *([view, model] if metric == "auroc" else []), metric]
        rows += [row | {"name": ".".join(parts)} for row in estimate_results(of_model, **about)]
    return results_table(rows)


def threshold_results(pages: Pages, scores: Scores, cohort: str, seed: int) -> pd.DataFrame:
    """Long table of sensitivity and specificity of models of fibrillation alone, whose threshold is 0, by view."""
    if FIBRILLATES not in pages.labels:
        return results_table([])
    known = pages.records.set_index(RECORD).assign(truth=pages.labels[FIBRILLATES].to_numpy())
    resamples, rows = Resamples.draw(pages.records[SUBJECT], seed), []
    for (model, view), table in scores.items():
        if [*table] == [FIBRILLATES]:
            own, said = known.loc[table.index], table[FIBRILLATES] >= 0
            shares = {"sensitivity": said.where(own["truth"] == 1), "specificity": (~said).where(own["truth"] == 0)}
            shares, persons = pd.DataFrame(shares, dtype=float), own[SUBJECT].to_numpy()
            found = clustered_means(shares, persons, resamples, "no record is known")
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
