"""Figures of the re-identification stage."""

from collections.abc import Mapping, Sequence
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import norm

from ecgstudy.evaluate.bootstrap import Estimate
from ecgstudy.evaluate.extrapolation import SNN_ECG_RANK1
from ecgstudy.evaluate.identification import Searches, cmc, rank1_by_gallery_size, search_gallery
from ecgstudy.evaluate.levels import ScoreLevels, det_curve
from ecgstudy.experiment.attackers import UNTRAINED
from ecgstudy.experiment.evaluation import Evaluation
from ecgstudy.experiment.scores import FoldScores
from ecgstudy.experiment.selection import BEST
from ecgstudy.reidentification.demographics import DemographicResult
from ecgstudy.reidentification.tables import LEAKY, of_best, papers_and_honest
from ecgstudy.study.plots import PALETTE

SHOWN = ("transecg", "resnet1d", "beatnet", "features_gbm", "template", UNTRAINED)
COLOURS = dict(zip(SHOWN, (PALETTE[3], PALETTE[0], PALETTE[9], PALETTE[2], PALETTE[1], PALETTE[7]), strict=True))
COLOURS[BEST] = (0.0, 0.0, 0.0)
MARKERS = dict(zip((*SHOWN, BEST), "osv^Dx*", strict=True))
PUBLISHED_TRANSECG = 0.886
_LOWEST_RATE = 1e-3
_DET_TICKS = (0.001, 0.01, 0.05, 0.2, 0.5)
_PANELS = 4


def inflation_figure(evaluations: Sequence[Evaluation]) -> Figure:
    """Rank-1 of every attacker, protocol by protocol, one panel a cohort; the leaky protocol stands on grey."""
    cohorts = list(dict.fromkeys(e.cohort for e in evaluations))
    protocols = {c: list(dict.fromkeys(e.protocol for e in evaluations if e.cohort == c)) for c in cohorts}
    figure, axes = _stacked([len(protocols[cohort]) for cohort in cohorts], columns=1)
    for ax, cohort in zip(axes[:, 0], cohorts, strict=True):
        for model in (*SHOWN, BEST):
            found = {e.protocol: e.estimates["rank1"] for e in evaluations if (e.cohort, e.attacker) == (cohort, model)}
            _draw_attacker(ax, model, found, protocols[cohort])
        _name_protocols(ax, protocols[cohort])
        ax.axvline(PUBLISHED_TRANSECG, color=COLOURS["transecg"], linestyle=":", linewidth=1)
        ax.set_title(cohort)
    axes[-1, 0].set(xlabel="rank-1 (share of probes)", xlim=(-0.02, 1.02))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def _stacked(protocols: Sequence[int], columns: int) -> tuple[Figure, np.ndarray]:
    """Panels as high as their number of protocols needs, one row a cohort."""
    height = 0.62 * sum(protocols) + 0.55 * len(protocols) + 1.3
    return plt.subplots(
        len(protocols), columns, figsize=(9.5, height), height_ratios=protocols, sharex=True, squeeze=False
    )


def _draw_attacker(ax: Axes, model: str, found: Mapping[str, Estimate], protocols: Sequence[str]) -> None:
    """Draw one attacker's estimates, a row a protocol, each attacker slightly below the one before."""
    known = [(protocols.index(protocol), estimate) for protocol, estimate in found.items()]
    if not known:
        return
    shift = 0.115 * (list(MARKERS).index(model) - len(MARKERS) // 2)
    values, low, high = (np.array([getattr(e, part) for _, e in known]) for part in ("value", "low", "high"))
    reach = np.nan_to_num(np.abs(np.stack([values - low, high - values])))
    style = {"color": COLOURS[model], "marker": MARKERS[model], "markersize": 9 if model == BEST else 5}
    rows = [row + shift for row, _ in known]
    ax.errorbar(values, rows, xerr=reach, label=model, linestyle="none", elinewidth=1, capsize=0, **style)


def _name_protocols(ax: Axes, protocols: Sequence[str]) -> None:
    """Name the rows, the first on top, and lay grey under the leaky one."""
    ax.set_yticks(range(len(protocols)), [_spoken(protocol) for protocol in protocols])
    ax.set_ylim(len(protocols) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    for border in range(1, len(protocols)):
        ax.axhline(border - 0.5, color="0.85", linewidth=0.8)
    if LEAKY in protocols:
        row = protocols.index(LEAKY)
        ax.axhspan(row - 0.5, row + 0.5, color="0.5", alpha=0.15, linewidth=0)


def gallery_figure(evaluations: Sequence[Evaluation], extrapolated: pd.DataFrame) -> Figure:
    """CMC of the best attackers, and rank-1 against gallery size beside the published points of SNN-ECG."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.6))
    shown = [e for e in of_best(evaluations) if e.protocol != LEAKY and "cohort" not in e.protocol]
    colours = dict(zip([(e.cohort, e.protocol) for e in shown], cycle(PALETTE), strict=False))
    for e in shown:
        colour = colours[e.cohort, e.protocol]
        left.plot(*_cmc(e.attack.folds), color=colour, label=f"{e.cohort}, {_spoken(e.protocol)}")
        right.plot(*_by_size(e.attack.folds), color=colour)
    for (cohort, protocol), rows in extrapolated.dropna(subset="rank1").groupby(["cohort", "protocol"], sort=False):
        colour = colours[cohort, protocol]
        right.fill_between(rows["people"], rows["rank1_low"], rows["rank1_high"], color=colour, alpha=0.15, linewidth=0)
        right.plot(rows["people"], rows["rank1"], color=colour, linestyle="--")
    sizes, published = zip(*SNN_ECG_RANK1.items(), strict=True)
    right.plot(sizes, published, "ks", markersize=6, label="SNN-ECG, published")
    right.plot([], [], color="0.4", linestyle="--", label="ours, extrapolated (band: 95 % and three tails)")
    left.set(title="recognised within the first k", xlabel="k", ylabel="share of probes", xscale="log", ylim=(0, 1.02))
    right.set(title="rank-1 against gallery size", xlabel="people in the gallery", xscale="log", ylim=(0, 1.02))
    left.xaxis.set_major_formatter("{x:g}")
    figure.legend(loc="outside lower center", ncols=3, fontsize="small")
    return figure


def det_figure(evaluations: Sequence[Evaluation]) -> Figure:
    """DET curves of every attacker under the protocols that hold, both axes in normal deviates."""
    cells = list(dict.fromkeys((e.cohort, e.protocol) for e in evaluations if "cohort" not in e.protocol))
    cells = [cell for cell in cells if cell[1] != LEAKY]
    columns = min(_PANELS, max(1, len(cells)))
    rows = max(1, -(-len(cells) // columns))
    figure, axes = plt.subplots(rows, columns, figsize=(3.6 * columns + 0.4, 3.5 * rows + 0.5), squeeze=False)
    for ax, (cohort, protocol) in zip(axes.flat, cells, strict=False):
        here = {e.attacker: e for e in evaluations if (e.cohort, e.protocol) == (cohort, protocol)}
        for model in (model for model in (*SHOWN, BEST) if model in here):
            rates, missed = _det(here[model].attack.folds)
            width = 2.2 if model == BEST else 1.2
            ax.plot(norm.ppf(rates), norm.ppf(missed), color=COLOURS[model], linewidth=width, label=model)
        limits = norm.ppf([_LOWEST_RATE, 0.6])
        ax.plot(limits, limits, color="0.6", linewidth=0.8, linestyle=":")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_ticks(norm.ppf(_DET_TICKS), [f"{100 * tick:g}" for tick in _DET_TICKS])
        ax.set(xlim=limits, ylim=limits, xlabel="false acceptance (%)", ylabel="false rejection (%)", aspect="equal")
        ax.set_title(f"{cohort}\n{_spoken(protocol)}", fontsize="small")
    for ax in axes.flat[len(cells) :]:
        ax.set_visible(False)
    if cells:
        figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def demographics_figure(results: Sequence[DemographicResult]) -> Figure:
    """Accuracy of sex and age group by protocol, beside always naming the most frequent class."""
    known = papers_and_honest(results)
    cohorts = list(dict.fromkeys(result.cohort for result in known))
    protocols = {c: list(dict.fromkeys(r.protocol for r in known if r.cohort == c)) for c in cohorts}
    figure, axes = _stacked([len(protocols[cohort]) for cohort in cohorts] or [1], columns=2)
    for row, cohort in zip(axes, cohorts, strict=False):
        for ax, task in zip(row, ("sex", "age"), strict=True):
            here = [result for result in known if (result.cohort, result.task) == (cohort, task)]
            _draw_demographics(ax, here, protocols[cohort])
            ax.set_title(f"{cohort}: {task if task == 'sex' else 'age group'}")
        row[1].set_yticklabels([])
    for ax in axes[-1]:
        ax.set(xlabel="accuracy", xlim=(-0.02, 1.02))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=5)
    return figure


def _draw_demographics(ax: Axes, results: Sequence[DemographicResult], protocols: Sequence[str]) -> None:
    """Draw one task of one cohort."""
    for model in SHOWN:
        found = {r.protocol: r.estimates["accuracy"] for r in results if r.attacker == model}
        _draw_attacker(ax, model, found, protocols)
    majority = {r.protocol: r.estimates["majority"].value for r in results}
    rows = np.array([protocols.index(protocol) for protocol in majority])
    label = "most frequent class"
    ax.vlines(list(majority.values()), rows - 0.4, rows + 0.4, color="black", linestyle="--", linewidth=1, label=label)
    _name_protocols(ax, protocols)


def shap_figure(table: pd.DataFrame, most: int = 15) -> Figure:
    """Features that the transparent model leans on most, from its SHAP table."""
    top = table.sort_values("mean_abs_shap", ascending=False).head(most).iloc[::-1]
    figure, ax = plt.subplots(figsize=(7, 0.32 * len(top) + 1))
    ax.barh(top["feature"].str.replace("_", " "), top["mean_abs_shap"], color=COLOURS["features_gbm"])
    ax.set(xlabel="mean |SHAP value| (log-odds of a person)", title="what the feature model leans on")
    return figure


def _cmc(folds: Sequence[FoldScores]) -> tuple[np.ndarray, np.ndarray]:
    """Ranks and the mean CMC of the folds, up to the smallest gallery."""
    curves = [cmc(search, np.ones(search.own.size)) for search in map(_search, folds)]
    shortest = min(len(curve) for curve in curves)
    return np.arange(1, shortest + 1), np.mean([curve[:shortest] for curve in curves], axis=0)


def _by_size(folds: Sequence[FoldScores]) -> tuple[np.ndarray, np.ndarray]:
    """Gallery sizes and the mean rank-1 of the folds, up to the smallest gallery."""
    searches = [_search(fold) for fold in folds]
    sizes = np.arange(2, min(search.n_enrolled for search in searches) + 1)
    return sizes, np.mean([rank1_by_gallery_size(s, sizes, np.ones(s.own.size)) for s in searches], axis=0)


def _search(fold: FoldScores) -> Searches:
    return search_gallery(fold.scores, fold.probe_persons, fold.gallery_persons)


def _det(folds: Sequence[FoldScores]) -> tuple[np.ndarray, np.ndarray]:
    """Return false acceptance rates and the false rejection rate at each, averaged over the folds."""
    rates = np.geomspace(_LOWEST_RATE, 0.999, 400)
    curves = []
    for fold in folds:
        genuine = fold.probe_persons[:, None] == fold.gallery_persons[None, :]
        far, frr = det_curve(ScoreLevels.from_scores(fold.scores[genuine], fold.scores[~genuine]))
        # the lowest rejection rate that keeps the acceptance rate at or below each of `rates`
        curves.append(frr[np.searchsorted(-far, -rates)])
    return rates, np.clip(np.mean(curves, axis=0), _LOWEST_RATE / 2, 1 - 1e-6)


def _spoken(protocol: str) -> str:
    """Protocol name in words."""
    for start in ("subject_disjoint", "cross_cohort"):
        if protocol.startswith(f"{start}_"):
            return f"{start.replace('_', ' ')}, {protocol[len(start) + 1 :].replace('_', ' ')}"
    return protocol.replace("_", " ")
