"""Figures of the re-identification stage."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import norm

from ecgstudy.figures import PALETTE
from ecgstudy.metrics import SNN_ECG_RANK1, ScoreLevels, cmc, det_curve, rank1_by_gallery_size, search_gallery
from ecgstudy.reidentification.demographics import DemographicResult
from ecgstudy.reidentification.evaluation import Evaluation
from ecgstudy.reidentification.plan import UNTRAINED
from ecgstudy.reidentification.scores import FoldScores
from ecgstudy.reidentification.selection import BEST
from ecgstudy.reidentification.tables import LEAKY, of_best, papers_and_honest

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
    widths = [len(protocols[cohort]) + 1 for cohort in cohorts]
    rows = -(-sum(widths) // 14)
    columns = -(-len(cohorts) // rows)
    figure, axes = plt.subplots(rows, columns, figsize=(max(6.5, 5.5 * columns), 4.4 * rows), squeeze=False)
    for ax, cohort in zip(axes.flat, cohorts, strict=False):
        for model in (*SHOWN, BEST):
            found = {e.protocol: e for e in evaluations if (e.cohort, e.model) == (cohort, model)}
            _draw_attacker(ax, model, [found.get(protocol) for protocol in protocols[cohort]])
        if LEAKY in protocols[cohort]:
            ax.axvspan(-0.5, protocols[cohort].index(LEAKY) + 0.5, color="0.5", alpha=0.15, linewidth=0)
        ax.axhline(PUBLISHED_TRANSECG, color=COLOURS["transecg"], linestyle=":", linewidth=1)
        ax.set_xticks(range(len(protocols[cohort])), [_spoken(p) for p in protocols[cohort]], rotation=35, ha="right")
        ax.set(title=cohort, ylabel="rank-1 (share of probes)", ylim=(-0.03, 1.03))
        ax.set_xlim(-0.5, len(protocols[cohort]) - 0.5)
    for ax in axes.flat[len(cohorts) :]:
        ax.set_visible(False)
    figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def _draw_attacker(ax: Axes, model: str, found: Sequence[Evaluation | None]) -> None:
    """Draw one attacker's rank-1 over the protocols, slightly beside the others."""
    known = [(x, e.estimates["rank1"]) for x, e in enumerate(found) if e is not None]
    if not known:
        return
    shift = 0.09 * (list(MARKERS).index(model) - len(MARKERS) // 2)
    values, low, high = (np.array([getattr(e, part) for _, e in known]) for part in ("value", "low", "high"))
    reach = np.nan_to_num(np.abs(np.stack([values - low, high - values])))
    style = {"color": COLOURS[model], "marker": MARKERS[model], "markersize": 9 if model == BEST else 5}
    ax.errorbar(
        [x + shift for x, _ in known], values, reach, label=model, linestyle="none", elinewidth=1, capsize=0, **style
    )


def gallery_figure(evaluations: Sequence[Evaluation], extrapolated: pd.DataFrame) -> Figure:
    """CMC of the best attackers, and rank-1 against gallery size beside the published points of SNN-ECG."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.6))
    shown = [e for e in of_best(evaluations) if e.protocol != LEAKY and "cohort" not in e.protocol]
    colours = dict(zip([e.key for e in shown], _colours(len(shown)), strict=True))
    for e in shown:
        left.plot(*_cmc(e.attack.folds), color=colours[e.key], label=f"{e.cohort}, {_spoken(e.protocol, ' ')}")
        right.plot(*_by_size(e.attack.folds), color=colours[e.key])
    for (cohort, protocol), rows in extrapolated.dropna(subset="rank1").groupby(["cohort", "protocol"], sort=False):
        colour = colours[f"{cohort}.{protocol}.{BEST}"]
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
        for e in evaluations:
            if (e.cohort, e.protocol) == (cohort, protocol):
                rates, missed = _det(e.attack.folds)
                width = 2.2 if e.model == BEST else 1.2
                ax.plot(norm.ppf(rates), norm.ppf(missed), color=COLOURS[e.model], linewidth=width, label=e.model)
        limits = norm.ppf([_LOWEST_RATE, 0.6])
        ax.plot(limits, limits, color="0.6", linewidth=0.8, linestyle=":")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_ticks(norm.ppf(_DET_TICKS), [f"{100 * tick:g}" for tick in _DET_TICKS])
        ax.set(xlim=limits, ylim=limits, xlabel="false acceptance (%)", ylabel="false rejection (%)", aspect="equal")
        ax.set_title(f"{cohort}\n{_spoken(protocol, ' ')}")
    for ax in axes.flat[len(cells) :]:
        ax.set_visible(False)
    if cells:
        figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def demographics_figure(results: Sequence[DemographicResult]) -> Figure:
    """Accuracy of sex and age group by protocol, beside always naming the most frequent class."""
    known = papers_and_honest(results)
    cohorts = list(dict.fromkeys(result.cohort for result in known))
    figure, axes = plt.subplots(
        2, max(1, len(cohorts)), figsize=(max(6.5, 4.2 * len(cohorts)), 7), sharey=True, squeeze=False
    )
    for row, task in enumerate(("sex", "age")):
        for ax, cohort in zip(axes[row], cohorts, strict=True):
            here = [result for result in known if (result.cohort, result.task) == (cohort, task)]
            _draw_demographics(ax, here)
            ax.set(title=f"{cohort}: {task if task == 'sex' else 'age group'}", ylabel="accuracy", ylim=(0, 1.03))
    handles = {label: h for ax in axes.flat for h, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=4)
    return figure


def _draw_demographics(ax: Axes, results: Sequence[DemographicResult]) -> None:
    """Draw one task of one cohort."""
    protocols = list(dict.fromkeys(result.protocol for result in results))
    models = [model for model in SHOWN if any(result.model == model for result in results)]
    for result in results:
        x = protocols.index(result.protocol) + 0.12 * (models.index(result.model) - (len(models) - 1) / 2)
        estimate = result.estimates["accuracy"]
        reach = np.nan_to_num(np.abs([[estimate.value - estimate.low], [estimate.high - estimate.value]]))
        style = {"color": COLOURS[result.model], "marker": MARKERS[result.model], "markersize": 6}
        label = result.model if result.protocol == protocols[0] else None
        ax.errorbar([x], [estimate.value], reach, linestyle="none", elinewidth=1, label=label, **style)
    for x, protocol in enumerate(protocols):
        share = next(result.estimates["majority"].value for result in results if result.protocol == protocol)
        label = "most frequent class" if x == 0 else None
        ax.hlines(share, x - 0.4, x + 0.4, color="black", linestyle="--", linewidth=1, label=label)
    if LEAKY in protocols:
        ax.axvspan(-0.5, protocols.index(LEAKY) + 0.5, color="0.5", alpha=0.15, linewidth=0)
    ax.set_xticks(range(len(protocols)), [_spoken(protocol) for protocol in protocols], rotation=35, ha="right")


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


def _search(fold: FoldScores):  # noqa: ANN202
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


def _spoken(protocol: str, separator: str = "\n") -> str:
    """Protocol name in words; the part that says how training is held apart stands alone."""
    for start in ("subject_disjoint", "cross_cohort"):
        if protocol.startswith(f"{start}_"):
            return start.replace("_", " ") + f",{separator}" + protocol[len(start) + 1 :].replace("_", " ")
    return protocol.replace("_", " ")


def _colours(n: int) -> list:
    """Return `n` distinguishable colours."""
    return [plt.get_cmap("viridis")(x) for x in np.linspace(0, 0.9, n)]
