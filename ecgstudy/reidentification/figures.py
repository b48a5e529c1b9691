"""Figures of the re-identification stage."""

from collections.abc import Mapping, Sequence

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
from ecgstudy.reidentification.tables import CELL, HONEST, LEAKIER, LEAKY, papers_and_honest
from ecgstudy.study.plots import PALETTE

SHOWN = ("transecg", "resnet1d", "beatnet", "beatcnn", PRETRAINED, "features_gbm", "template", UNTRAINED, BEST)
COLOURS = dict(zip(SHOWN, (*(PALETTE[at] for at in (3, 0, 9, 4, 5, 2, 1, 7)), (0.0, 0.0, 0.0)), strict=True))
MARKERS = dict(zip(SHOWN, "osvPp^Dx*", strict=True))
INFLATED = ("transecg", "template", UNTRAINED, BEST)
DEMOGRAPHIC = ("transecg", "resnet1d", PRETRAINED, "features_gbm")
"""Attackers that a figure draws: more could not be told apart."""
MOST_COHORTS = 3
PUBLISHED_TRANSECG, PUBLISHED_GALLERY = 0.886, 87
"""Rank-1 that TransECG's paper states, and among how many people."""
_LOWEST_RATE = 1e-3
_DET_TICKS = (0.001, 0.01, 0.05, 0.2, 0.5)


def inflation_figure(rows: pd.DataFrame, spans: pd.DataFrame) -> Figure:
    """Rank-1 in galleries of equal size, a panel for each of the cohorts with most protocols; grey: leaky.

    Dashed: guessing among so many; dotted: what was published, of a gallery of its own. Drawn are TransECG, the
    strongest attacker and two that learn nothing; the table holds the others. Protocols are
    named with their gap and seconds (:func:`ecgstudy.reidentification.spans.span_table`).
    """
    sizes = rows[rows["metric"] == "enrolled"].groupby("cohort")["value"].min()
    rows = rows[(rows["metric"] == "rank1_equal_gallery") & rows["attacker"].isin(INFLATED)]
    protocols = rows.groupby("cohort", sort=False)["protocol"].nunique()
    rows = rows[rows["cohort"].isin(protocols.nlargest(MOST_COHORTS).index)]
    figure, axes = _stacked(rows, columns=1)
    for ax, (cohort, own) in zip(axes[:, 0], rows.groupby("cohort", sort=False), strict=True):
        asked = spans[spans["cohort"] == cohort].set_index("protocol")
        named = [f"{_spoken(name)}\n{asked['gap'][name]}, {asked['probe s'][name]:.0f} s" for name in own["protocol"]]
        _draw_attackers(ax, own, dict(zip(own["protocol"], named, strict=True)))
        published = f"published: {100 * PUBLISHED_TRANSECG:.1f} % ({PUBLISHED_GALLERY} people)"
        ax.axvline(PUBLISHED_TRANSECG, color=COLOURS["transecg"], linestyle=":", linewidth=1, label=published)
        ax.axvline(1 / sizes[cohort], color="0.3", linestyle="--", linewidth=1, label="guessing")
        ax.set_title(f"{cohort}, galleries of {sizes[cohort]:.0f} people")
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

    Of each cohort the first protocol that holds; `measured` are rows of galleries filled up with people of other
    cohorts.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.6))
    colours = dict(zip(_headlines(attacks), PALETTE, strict=False))
    for (cohort, protocol), colour in colours.items():
        searches = [fold.searches for fold in attacks.get((cohort, protocol, BEST), ())]
        smallest = min((search.n_enrolled for search in searches), default=0)
        sizes, label = np.arange(1, smallest + 1), f"{cohort}, {_spoken(protocol)}"
        if smallest:
            curves = [cmc(search, np.ones(search.own.size))[:smallest] for search in searches]
            left.plot(sizes, np.mean(curves, axis=0), color=colour, label=label)
            curves = [rank1_by_gallery_size(search, sizes[1:], np.ones(search.own.size)) for search in searches]
            right.plot(sizes[1:], np.mean(curves, axis=0), color=colour)
    for cell, rows in extrapolated.dropna(subset="rank1").groupby(CELL, sort=False):
        if cell in colours:
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


def _headlines(attacks: Attacks) -> list[tuple[str, str]]:
    """First protocol that holds of each cohort, of three cohorts at most."""
    found: dict[str, tuple[str, str]] = {}
    for protocol in HONEST["person"]:
        found |= {cohort: (cohort, own) for cohort, own, _ in attacks if own == protocol and cohort not in found}
    return [*found.values()][:MOST_COHORTS]


def det_figure(attacks: Attacks) -> Figure:
    """DET curves of every attacker under the first protocol that holds of a cohort, both axes in normal deviates."""
    cells = _headlines(attacks)
    figure, axes = plt.subplots(1, max(1, len(cells)), figsize=(3.6 * max(1, len(cells)) + 0.4, 4.3), squeeze=False)
    axes[0, 0].set_visible(bool(cells))
    for ax, cell in zip(axes[0], cells, strict=False):
        for model in (model for model in SHOWN if (*cell, model) in attacks):
            rates, missed = _det(attacks[*cell, model])
            width = 2.2 if model == BEST else 1.2
            ax.plot(norm.ppf(rates), norm.ppf(missed), color=COLOURS[model], linewidth=width, label=model)
        limits = norm.ppf([_LOWEST_RATE, 0.6])
        ax.plot(limits, limits, color="0.6", linewidth=0.8, linestyle=":")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_ticks(norm.ppf(_DET_TICKS), [f"{100 * tick:g}" for tick in _DET_TICKS])
        ax.set(xlim=limits, ylim=limits, xlabel="false acceptance (%)", ylabel="false rejection (%)", aspect="equal")
        ax.set_title(f"{cell[0]}\n{_spoken(cell[1])}")
    if cells:
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=5)
    return figure


def _det(folds: Sequence[ScoreMatrix]) -> tuple[np.ndarray, np.ndarray]:
    """Return false acceptance rates and the false rejection rate at each, averaged over the folds."""
    rates = np.geomspace(_LOWEST_RATE, 0.999, 400)
    # the lowest rejection rate that keeps the acceptance rate at or below each of `rates`
    curves = [frr[np.searchsorted(-far, -rates)] for far, frr in (det_curve(fold.levels) for fold in folds)]
    return rates, np.clip(np.mean(curves, axis=0), _LOWEST_RATE / 2, 1 - 1e-6)


def demographics_figure(demographics: pd.DataFrame) -> Figure:
    """Accuracy of sex and age group by protocol, beside always naming the most frequent class.

    Of the cohort with most protocols, by some attackers; the table holds the others.
    """
    known = papers_and_honest(demographics)
    asked = known.groupby("cohort", sort=False)["protocol"].nunique()
    known = known[(known["cohort"] == asked.idxmax()) & known["attacker"].isin(DEMOGRAPHIC)] if len(asked) else known
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
