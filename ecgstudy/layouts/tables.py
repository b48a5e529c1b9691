"""Tables and sentences of notebook 06, made of the rows of :mod:`ecgstudy.layouts.results`."""

import math

import pandas as pd

from ecgstudy.evaluate.results import INTERVAL, pivot
from ecgstudy.layouts.layout import LAYOUTS, RANDOM
from ecgstudy.layouts.pages import AF, CLASSES
from ecgstudy.layouts.plan import BEST, IMAGE, RHYTHM, SIGNAL, VIEWS
from ecgstudy.layouts.results import MEAN, SUBCLASS5

PAPER = {"3x4": 0.8318, "3x4+II": 0.8294, "3x4+II+V1": 0.8302, "6x2": 0.8334, "6x2+II": 0.8321, "12x1": 0.8288}
"""Macro AUROC of PatchECG over 23 subclasses of all of PTB-XL, mean of five folds (arXiv 2508.09165, Net1D encoder)."""
PAPER_MODEL = "PatchECG (paper, all of PTB-XL)"


def model_table(rows: pd.DataFrame, labels: str = SUBCLASS5) -> pd.DataFrame:
    """Macro AUROC of every model by layout: one row a model, the highest mean first, and whose records it has read."""
    mine = rows[(rows["task"] == labels) & (rows["metric"] == "auroc")].rename(columns={"n": "persons"})
    table = pivot(mine, ["attacker", "persons"], "view", [MEAN, *VIEWS])
    return table.rename(columns={"attacker": "model"}).sort_values(MEAN, ascending=False, kind="stable")


def paper_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Put published numbers of PatchECG beside ours over all subclasses; records and people are not the same."""
    ours = model_table(rows, "subclass")
    return pd.concat([pd.DataFrame([{"model": PAPER_MODEL, **PAPER}]), ours], ignore_index=True)[["model", *LAYOUTS]]


def gain_table(rows: pd.DataFrame) -> pd.DataFrame:
    """By how much the judged model is above every other one, over the fixed layouts, with paired intervals."""
    mine = rows[rows["metric"].str.startswith("gain_over_")]
    table = mine.assign(over=mine["metric"].str.removeprefix("gain_over_"))
    return pivot(table.assign(metric="gain"), ["task", "over"], "metric", ["gain"], INTERVAL)


def label_table(rows: pd.DataFrame) -> pd.DataFrame:
    """AUROC of the judged model for every diagnosis with its positives, and the paper's of the subclasses."""
    table = rows[["task", "value", "n"]].rename(columns={"task": "label", "value": "auroc", "n": "positives"})
    subclass = table["label"].str.removeprefix("subclass ").where(table["label"].str.startswith("subclass "))
    table["paper_3x4"] = subclass.map(CLASSES["patchecg"])
    return table.sort_values("auroc", ascending=False, kind="stable")


def external_table(rows: pd.DataFrame) -> pd.DataFrame:
    """AUROC on a cohort that no model has seen: one row a label set and model."""
    mine = rows[rows["metric"] == "auroc"]
    return pivot(mine, ["task", "attacker"], "view", [MEAN, *VIEWS]).rename(columns={"attacker": "model"})


def digitise_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Show what was read of pictures: one row a layout and severity."""
    shown = ["snr_db", "correlation", "amplitude_error", "failed", "wrong"]
    table = pivot(rows.rename(columns={"protocol": "severity"}), ["view", "severity"], "metric", shown)
    return table.rename(columns={"view": "layout"})


def digitise_findings(rows: pd.DataFrame) -> list[str]:
    """Say for each severity how well pictures are read, and how often they are refused or read wrongly."""
    values = rows.astype({"value": float}).pivot_table("value", "protocol", "metric", sort=False)
    return [
        f"{severity} scans: {row.get('snr_db', math.nan):.1f} dB on average over the layouts, "
        f"{row['failed']:.1%} refused, {row.get('wrong', math.nan):.1%} of the others read wrongly without a word."
        for severity, row in values.iterrows()
    ]


def findings(rows: pd.DataFrame) -> list[str]:
    """Say how well any layout is read, how much the layout matters, and what the judged model is above."""
    mine = rows[rows["task"] == SUBCLASS5].astype({"value": float, "low": float, "high": float})
    numbers = {(row.attacker, row.view, row.metric): row for row in mine.itertuples()}
    if (BEST, MEAN, "auroc") not in numbers:
        return []
    mean, spread = numbers[BEST, MEAN, "auroc"], numbers[BEST, MEAN, "spread"]
    drawn = numbers[BEST, RANDOM, "auroc"].value
    found = [
        f"{BEST} has a macro AUROC of {_said(mean)} over the {len(LAYOUTS)} fixed layouts; {spread.value:.3f} lie "
        f"between the best and the worst of them, and it is {drawn:.3f} where every record has a layout of its own."
    ]
    for (_, _, metric), row in numbers.items():
        if metric.startswith("gain_over_"):
            rival = metric.removeprefix("gain_over_").replace("best_fill", "the best fill")
            clear = row.low > 0
            verdict = "above" if clear else "below" if row.high < 0 else "not told apart from"
            found.append(f"On the same records {BEST} is {verdict} {rival}: {_said(row, '+')} of macro AUROC.")
    return found


def fibrillation_findings(rows: pd.DataFrame) -> list[str]:
    """Say how well the model of the rhythm and the judged one see fibrillation, at their worst layout."""
    mine = rows[(rows["task"] == AF) & (rows["metric"] == "auroc") & rows["view"].isin(VIEWS)].dropna(subset="value")
    mine = mine[mine["attacker"].isin([RHYTHM, SIGNAL, IMAGE, BEST])]
    found = []
    for (cohort, model), part in mine.groupby(["cohort", "attacker"], sort=False):
        worst = part.astype({"value": float, "low": float, "high": float}).nsmallest(1, "value").iloc[0]
        found.append(f"{cohort}: {model} sees fibrillation with an AUROC of at least {_said(worst)} ({worst['view']}).")
    return found


def _said(row: object, sign: str = "") -> str:
    """Value and interval of a row in words."""
    low, high = f"{row.low:{sign}.3f}", f"{row.high:{sign}.3f}"
    return f"{row.value:{sign}.3f} ({low} to {high})"


def headlines(cohort: str) -> dict[str, str]:
    """Say what the front page shows, by the metric's name."""
    return {
        f"{cohort}.{SUBCLASS5}.{MEAN}.{BEST}.auroc": "subclasses on any layout: macro AUROC",
        f"{cohort}.{SUBCLASS5}.spread": "between the best and the worst layout",
        f"{cohort}.{SUBCLASS5}.gain_over_resnet1d": "above a mask-trained CNN, same records",
    }


NOT_TESTED = (
    "What was not tested: photographs of screens, layouts whose columns do not follow each other in time, printouts of "
    "more than one page, and whether a cardiologist, given the same page, would do better."
)
"""Closing words of the notebook, which hold whatever the numbers are."""
