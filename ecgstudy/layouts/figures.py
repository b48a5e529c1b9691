"""Figures of notebook 06: each function bears the name of its file."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ecgstudy.data.base import STANDARD_LEADS
from ecgstudy.data.ptbxl import PtbxlCohort
from ecgstudy.layouts.beats import PIECES, WAVES
from ecgstudy.layouts.layout import LAYOUTS
from ecgstudy.layouts.plan import BEST, VIEWS
from ecgstudy.layouts.results import SUBCLASS5
from ecgstudy.layouts.tables import PAPER
from ecgstudy.study.plots import PALETTE

_TOLD_FROM, _WHITE_FROM = 0.25, 0.6


def masks_figure() -> Figure:
    """Draw what each layout shows of every lead over the ten seconds of a record, dark where it does."""
    figure, axes = plt.subplots(2, 3, figsize=(9, 5), sharex=True, sharey=True)
    for ax, (name, layout) in zip(axes.ravel(), LAYOUTS.items(), strict=True):
        shown = layout.visible(STANDARD_LEADS, 200)
        place = {"aspect": "auto", "interpolation": "nearest", "extent": (0, 10, len(STANDARD_LEADS), 0)}
        ax.imshow(shown, cmap="Greys", vmin=0, vmax=1.4, **place)
        ax.set(title=name, yticks=np.arange(len(STANDARD_LEADS)) + 0.5)
        ax.set_yticklabels(STANDARD_LEADS, fontsize=7)
        ax.grid(visible=False)
    for ax in axes[1]:
        ax.set_xlabel("time (s)")
    return figure


def layouts_figure(rows: pd.DataFrame) -> Figure:
    """Macro AUROC of every model on every layout with 95 % intervals; the published numbers as a dashed line.

    Markers of models that were asked about fewer people are hollow.
    """
    mine = rows[(rows["task"] == SUBCLASS5) & (rows["metric"] == "auroc") & rows["view"].isin(VIEWS)]
    models = list(dict.fromkeys(mine["attacker"]))
    figure, ax = plt.subplots(figsize=(10, 5))
    for number, model in enumerate(models):
        part = mine[mine["attacker"] == model].set_index("view").reindex(VIEWS)
        values, low, high = (part[column].astype(float).to_numpy() for column in ("value", "low", "high"))
        bars = np.clip([values - low, high - values], 0, None)
        places = np.arange(len(VIEWS)) + 0.07 * (number - len(models) / 2)
        colour = "black" if model == BEST else PALETTE[number % len(PALETTE)]
        face = "none" if part["n"].max() < mine["n"].max() else colour
        style = {"fmt": "o", "markersize": 4, "linewidth": 0.8, "color": colour, "markerfacecolor": face}
        ax.errorbar(places, values, yerr=bars, label=model, **style)
    if PtbxlCohort.name in set(mine["cohort"]):
        ax.plot(np.arange(len(PAPER)), [*PAPER.values()], color="0.5", linestyle="--", label="PatchECG, paper")
    ax.set(xticks=np.arange(len(VIEWS)), xticklabels=VIEWS, ylabel="macro AUROC")
    figure.legend(fontsize="small", loc="outside lower center", ncols=4)
    return figure


def calibration_figure(table: pd.DataFrame) -> Figure:
    """Observed share of positives against the predicted one, the judged model; dots as large as their bins."""
    figure, ax = plt.subplots(figsize=(4.5, 4.5))
    ax.plot([0, 1], [0, 1], color="0.6", linewidth=1)
    sizes = 10 + 90 * np.sqrt(table["n"] / table["n"].max())
    ax.scatter(table["predicted"], table["observed"], s=sizes, color=PALETTE[0])
    ax.set(xlabel="predicted probability", ylabel="observed share", xlim=(0, 1), ylim=(0, 1))
    return figure


def evidence_figure(evidence: Mapping[str, np.ndarray]) -> Figure:
    """By how much the log odds of some labels fall when a wave of a lead is that of the mean record instead.

    `evidence` holds (len(PIECES),) by label; the rhythm stands in the title.
    """
    figure, axes = plt.subplots(1, len(evidence), figsize=(2.6 * len(evidence) + 1, 4.6), squeeze=False, sharey=True)
    for ax, (label, falls) in zip(axes[0], evidence.items(), strict=True):
        table = falls[: len(PIECES) - 1].reshape(len(STANDARD_LEADS), len(WAVES))
        most = max(float(np.nanmax(np.abs(table))), 1e-6)
        ax.imshow(table, aspect="auto", cmap="RdBu_r", vmin=-most, vmax=most)
        for (row, column), value in np.ndenumerate(table):
            if abs(value) >= _TOLD_FROM * most:
                colour = "white" if abs(value) > _WHITE_FROM * most else "black"
                ax.text(column, row, f"{value:+.2f}", ha="center", va="center", fontsize=7, color=colour)
        ax.set(title=f"{label}\n(rhythm {falls[-1]:+.2f})", xticks=range(len(WAVES)), xticklabels=[*WAVES])
        ax.set(yticks=range(len(STANDARD_LEADS)), yticklabels=STANDARD_LEADS)
        ax.grid(visible=False)
    return figure
