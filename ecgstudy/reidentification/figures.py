"""Figures of the re-identification stage."""

from collections.abc import Mapping, Sequence
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import norm

from ecgstudy.evaluate.extrapolation import SNN_ECG_RANK1
from ecgstudy.evaluate.trials import ScoreMatrix, cmc, det_curve, rank1_by_gallery_size
from ecgstudy.experiment.attackers import PRETRAINED, UNTRAINED
from ecgstudy.experiment.evaluation import Attacks
from ecgstudy.experiment.selection import BEST
from ecgstudy.reidentification.tables import CELL, LEAKIER, LEAKY, papers_and_honest
from ecgstudy.study.plots import PALETTE

SHOWN = ("transecg", "resnet1d", "beatnet", "beatcnn", PRETRAINED, "features_gbm", "template", UNTRAINED, BEST)
COLOURS = dict(zip(SHOWN, (*(PALETTE[at] for at in (3, 0, 9, 4, 5, 2, 1, 7)), (0.0, 0.0, 0.0)), strict=True))
MARKERS = dict(zip(SHOWN, "osvPp^Dx*", strict=True))
INFLATED = ("transecg", "template", UNTRAINED, BEST)
MOST_COHORTS = 3
PUBLISHED_TRANSECG = 0.886
_LOWEST_RATE = 1e-3
_DET_TICKS = (0.001, 0.01, 0.05, 0.2, 0.5)
_PANELS = 4


def inflation_figure(rows: pd.DataFrame, spans: pd.DataFrame) -> Figure:
    """Rank-1 in galleries of equal size, a panel for each of the cohorts with most protocols; grey: leaky.

    Drawn are TransECG, the strongest attacker and two that learn nothing; the table holds the others. Protocols are
    named with their gap and seconds (:func:`ecgstudy.reidentification.spans.span_table`).
    """
    rows = rows[(rows["metric"] == "rank1_equal_gallery") & rows["attacker"].isin(INFLATED)]
    protocols = rows.groupby("cohort", sort=False)["protocol"].nunique()
    rows = rows[rows["cohort"].isin(protocols.nlargest(MOST_COHORTS).index)]
    figure, axes = _stacked(rows, columns=1)
    for ax, (cohort, own) in zip(axes[:, 0], rows.groupby("cohort", sort=False), strict=True):
        asked = spans[spans["cohort"] == cohort].set_index("protocol")
        named = [f"{_spoken(name)}\n{asked['gap'][name]}, {asked['probe s'][name]:.0f} s" for name in own["protocol"]]
        _draw_attackers(ax, own, dict(zip(own["protocol"], named, strict=True)))
        ax.axvline(PUBLISHED_TRANSECG, color=COLOURS["transecg"], linestyle=":", linewidth=1)
        ax.set_title(cohort)
    axes[-1, 0].set(xlabel="rank-1 in galleries of equal size (share of probes)", xlim=(-0.02, 1.02))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def _stacked(rows: pd.DataFrame, columns: int) -> tuple[Figure, np.ndarray]:
    """Panels as high as their number of protocols needs, one row a cohort."""
    protocols = rows.groupby("cohort", sort=False)["protocol"].nunique().tolist() or [1]
    height = 0.62 * sum(protocols) + 0.55 * len(protocols) + 1.3
    return plt.subplots(
        len(protocols), columns, figsize=(9.5, height), height_ratios=protocols, sharex=True, squeeze=False
    )


def _draw_attackers(ax: Axes, rows: pd.DataFrame, named: Mapping[str, str] | None = None) -> list[str]:
    """Draw every attacker's values, a row a protocol, each attacker slightly below the one before; name the rows."""
    protocols = list(rows["protocol"].unique())
    drawn = [model for model in SHOWN if model in set(rows["attacker"])]
    for place, model in zip(np.linspace(-0.3, 0.3, len(drawn)), drawn, strict=True):
        own = rows[rows["attacker"] == model]
        values, low, high = own[["value", "low", "high"]].to_numpy(dtype=float).T
        reach = np.nan_to_num(np.abs(np.stack([values - low, high - values])))
        style = {"color": COLOURS[model], "marker": MARKERS[model], "markersize": 9 if model == BEST else 5}
        places = [protocols.index(protocol) + place for protocol in own["protocol"]]
        ax.errorbar(values, places, xerr=reach, label=model, linestyle="none", elinewidth=1, capsize=0, **style)
    ax.set_yticks(range(len(protocols)), [(named or {}).get(protocol, _spoken(protocol)) for protocol in protocols])
    ax.set_ylim(len(protocols) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    for border in range(1, len(protocols)):
        ax.axhline(border - 0.5, color="0.85", linewidth=0.8)
    for row in (protocols.index(leaky) for leaky in (LEAKY, LEAKIER) if leaky in protocols):
        ax.axhspan(row - 0.5, row + 0.5, color="0.5", alpha=0.15, linewidth=0)
    return protocols


def gallery_figure(attacks: Attacks, extrapolated: pd.DataFrame, measured: pd.DataFrame) -> Figure:
    """CMC of the best attackers, and rank-1 against gallery size beside the published points of SNN-ECG.

    `measured` are rows of galleries filled up with people of other cohorts.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.6))
    colours, coloured = {}, cycle(PALETTE)
    for (cohort, protocol, attacker), folds in attacks.items():
        if attacker == BEST and _holds_here(protocol):
            colours[cohort, protocol] = colour = next(coloured)
            searches = [fold.searches for fold in folds]
            smallest = min(search.n_enrolled for search in searches)
            sizes, label = np.arange(1, smallest + 1), f"{cohort}, {_spoken(protocol)}"
            curves = [cmc(search, np.ones(search.own.size))[:smallest] for search in searches]
            left.plot(sizes, np.mean(curves, axis=0), color=colour, label=label)
            curves = [rank1_by_gallery_size(search, sizes[1:], np.ones(search.own.size)) for search in searches]
            right.plot(sizes[1:], np.mean(curves, axis=0), color=colour)
    for cell, rows in extrapolated.dropna(subset="rank1").groupby(CELL, sort=False):
        band = rows["people"], rows["rank1_low"], rows["rank1_high"]
        right.fill_between(*band, color=colours[cell], alpha=0.15, linewidth=0)
        right.plot(rows["people"], rows["rank1"], color=colours[cell], linestyle="--")
    among = {"marker": "o", "markersize": 5, "linestyle": "none"}
    for cell, rows in measured[measured["attacker"] == BEST].groupby(CELL, sort=False):
        right.plot(rows["people"], rows["value"], color=colours.get(cell), **among)
    right.plot([], [], color="0.4", label="ours, among people of other cohorts", **among)
    right.plot(*zip(*SNN_ECG_RANK1.items(), strict=True), "ks", markersize=6, label="SNN-ECG, published")
    right.plot([], [], color="0.4", linestyle="--", label="ours, extrapolated (band: 95 % and three tails)")
    left.set(title="recognised within the first k", xlabel="k", ylabel="share of probes", xscale="log", ylim=(0, 1.02))
    right.set(title="rank-1 against gallery size", xlabel="people in the gallery", xscale="log", ylim=(0, 1.02))
    left.xaxis.set_major_formatter("{x:g}")
    figure.legend(loc="outside lower center", ncols=3, fontsize="small")
    return figure


def _holds_here(protocol: str) -> bool:
    """Whether a protocol holds, for whole records, and its networks learn from the cohort on trial."""
    return protocol not in (LEAKY, LEAKIER) and "cohort" not in protocol and not protocol.endswith("_5s")


def det_figure(attacks: Attacks) -> Figure:
    """DET curves of every attacker under the protocols that hold, both axes in normal deviates."""
    cells = list(dict.fromkeys(cell[:2] for cell in attacks if _holds_here(cell[1])))
    columns = min(_PANELS, max(1, len(cells)))
    rows = max(1, -(-len(cells) // columns))
    figure, axes = plt.subplots(rows, columns, figsize=(3.6 * columns + 0.4, 3.5 * rows + 0.5), squeeze=False)
    for ax, cell in zip(axes.flat, cells, strict=False):
        for model in (model for model in SHOWN if (*cell, model) in attacks):
            rates, missed = _det(attacks[*cell, model])
            width = 2.2 if model == BEST else 1.2
            ax.plot(norm.ppf(rates), norm.ppf(missed), color=COLOURS[model], linewidth=width, label=model)
        limits = norm.ppf([_LOWEST_RATE, 0.6])
        ax.plot(limits, limits, color="0.6", linewidth=0.8, linestyle=":")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_ticks(norm.ppf(_DET_TICKS), [f"{100 * tick:g}" for tick in _DET_TICKS])
        ax.set(xlim=limits, ylim=limits, xlabel="false acceptance (%)", ylabel="false rejection (%)", aspect="equal")
        ax.set_title(f"{cell[0]}\n{_spoken(cell[1])}", fontsize="small")
    for ax in axes.flat[len(cells) :]:
        ax.set_visible(False)
    if cells:
        figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def _det(folds: Sequence[ScoreMatrix]) -> tuple[np.ndarray, np.ndarray]:
    """Return false acceptance rates and the false rejection rate at each, averaged over the folds."""
    rates = np.geomspace(_LOWEST_RATE, 0.999, 400)
    # the lowest rejection rate that keeps the acceptance rate at or below each of `rates`
    curves = [frr[np.searchsorted(-far, -rates)] for far, frr in (det_curve(fold.levels) for fold in folds)]
    return rates, np.clip(np.mean(curves, axis=0), _LOWEST_RATE / 2, 1 - 1e-6)


def demographics_figure(demographics: pd.DataFrame) -> Figure:
    """Accuracy of sex and age group by protocol, beside always naming the most frequent class."""
    known = papers_and_honest(demographics)
    figure, axes = _stacked(known, columns=2)
    for row, (cohort, of_cohort) in zip(axes, known.groupby("cohort", sort=False), strict=False):
        for ax, (task, title) in zip(row, (("sex", "sex"), ("age", "age group")), strict=True):
            own = of_cohort[of_cohort["task"] == task]
            protocols = _draw_attackers(ax, own[own["metric"] == "accuracy"])
            majority = own[own["metric"] == "majority"].drop_duplicates("protocol", keep="last")
            rows = np.array([protocols.index(protocol) for protocol in majority["protocol"]])
            style = {"color": "black", "linestyle": "--", "linewidth": 1, "label": "most frequent class"}
            ax.vlines(majority["value"].astype(float), rows - 0.4, rows + 0.4, **style)
            ax.set_title(f"{cohort}: {title}")
        row[1].set_yticklabels([])
    for ax in axes[-1]:
        ax.set(xlabel="accuracy", xlim=(-0.02, 1.02))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=5)
    return figure


def shap_figure(table: pd.DataFrame, most: int = 15) -> Figure:
    """Features that the transparent model leans on most, from its SHAP table."""
    top = table.sort_values("mean_abs_shap", ascending=False).head(most).iloc[::-1]
    figure, ax = plt.subplots(figsize=(7, 0.32 * len(top) + 1))
    ax.barh(top["feature"].str.replace("_", " "), top["mean_abs_shap"], color=COLOURS["features_gbm"])
    ax.set(xlabel="mean |SHAP value| (log-odds of a person)", title="what the feature model leans on")
    return figure


def _spoken(protocol: str) -> str:
    """Protocol name in words."""
    for start in ("subject_disjoint", "cross_cohort"):
        protocol = protocol.replace(f"{start}_", f"{start}, ")
    return protocol.replace("_5s", ", 5 s").replace("_", " ")
