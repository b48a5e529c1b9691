"""Figures of the attribution stage."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from ecgstudy.attribution.cases import Case
from ecgstudy.attribution.methods import METHODS
from ecgstudy.attribution.waves import WAVES

BEFORE_S, AFTER_S = 0.3, 0.5
COLOURS = "viridis"
MOST_PERSONS = 4
TASK_NAMES = {"person": "person", "sex": "sex", "age_group": "age group"}
CHANGES = {"replaced": "others' average wave", "own average": "the person's own average (control)"}
_TIMES_UNIFORM = 4.0  # top of the colour scale of relevance


def enrichment_figure(rows: pd.DataFrame, cohort: str) -> Figure:
    """Heat map of a cohort: enrichment of each wave (column) by each method (row), one panel a task.

    Parameters
    ----------
    rows : pandas.DataFrame
        From :func:`ecgstudy.attribution.tables.main_rows`.
    cohort : str
        The cohort shown.
    """
    own = rows[(rows["cohort"] == cohort) & (rows["kind"] == "wave")]
    tasks = [task for task in TASK_NAMES if (own["task"] == task).any()]
    order = [name for name in METHODS if (own["method"] == name).any()]
    size = (1.6 + 3.4 * len(tasks), 1.2 + 0.34 * len(order))
    figure, axes = plt.subplots(1, len(tasks), figsize=size, sharey=True, squeeze=False)
    for ax, task in zip(axes[0], tasks, strict=True):
        part = own[own["task"] == task]
        grid = part.pivot_table(index="method", columns="wave", values="enrichment").reindex(order)[list(WAVES)]
        sns.heatmap(
            np.log2(grid.clip(lower=2**-3)),
            annot=grid.round(2),
            fmt="g",
            center=0,
            vmin=-2,
            vmax=2,
            cmap="vlag",
            cbar=ax is axes[0][-1],
            cbar_kws={"label": "enrichment", "ticks": [-2, -1, 0, 1, 2]},
            annot_kws={"fontsize": 8},
            ax=ax,
        )
        ax.set(title=f"{TASK_NAMES[task]} ({part['protocol'].iloc[0].replace('_', ' ')})", xlabel="", ylabel="")
        ax.tick_params(axis="y", rotation=0)
    bar = axes[0][-1].collections[0].colorbar
    bar.ax.set_yticklabels(["¼", "½", "1", "2", "4"])
    return figure


def mean_beat_figure(cases: Sequence[Case], methods: Sequence[str]) -> Figure:
    """Mean beat coloured by relevance: one row a method, one column a task.

    Parameters
    ----------
    cases : sequence of Case
        One case a task, all of one cohort, protocol and network.
    methods : sequence of str
        Methods shown.
    """
    size = (1 + 3.2 * len(cases), 0.6 + 1.7 * len(methods))
    figure, axes = plt.subplots(len(methods), len(cases), figsize=size, sharex=True, sharey=True, squeeze=False)
    for column, case in enumerate(cases):
        for row, method in enumerate(methods):
            ax = axes[row][column]
            beats, relevance = _aligned(case, method, np.arange(len(case.windows)))
            lines = _coloured(ax, beats.mean(axis=0), relevance.mean(axis=0), case.fs)
            if row == 0:
                ax.set_title(f"{TASK_NAMES[case.task]} ({len(beats)} beats)")
            if column == 0:
                ax.set_ylabel(method.replace("_", "\n"), rotation=0, ha="right", va="center")
            if row == len(methods) - 1:
                ax.set_xlabel("time from R peak (s)")
    figure.colorbar(lines, ax=axes, label="relevance (1 = uniform)", shrink=min(1.0, 3 / len(methods)))
    return figure


def single_beats_figure(case: Case, method: str) -> Figure:
    """One beat each of a few persons, coloured by relevance; persons are numbered, not named."""
    persons = np.unique(case.persons)
    shown = persons[np.linspace(0, len(persons) - 1, min(MOST_PERSONS, len(persons))).astype(int)]
    figure, axes = plt.subplots(1, len(shown), figsize=(1 + 2.6 * len(shown), 2.6), sharey=True, squeeze=False)
    for number, (ax, person) in enumerate(zip(axes[0], shown, strict=True)):
        beats, relevance = person_beats(case, method, person)
        if len(beats):
            middle = len(beats) // 2
            lines = _coloured(ax, beats[middle], relevance[middle], case.fs)
        ax.set(title=f"person {number + 1}", xlabel="time from R peak (s)")
    axes[0][0].set_ylabel("standard deviations")
    figure.colorbar(lines, ax=axes, label="relevance (1 = uniform)")
    return figure


def beat_figure(beat: np.ndarray, relevance: np.ndarray, fs: float) -> Figure:
    """One beat coloured by relevance, from :func:`person_beats`."""
    figure, ax = plt.subplots(figsize=(5, 2.6))
    lines = _coloured(ax, beat, relevance, fs)
    ax.set(xlabel="time from R peak (s)", ylabel="standard deviations")
    figure.colorbar(lines, ax=ax, label="relevance (1 = uniform)")
    return figure


def person_beats(case: Case, method: str, person: str) -> tuple[np.ndarray, np.ndarray]:
    """Whole beats of one person and their relevance over the mean of its window, both (n, n_samples)."""
    return _aligned(case, method, np.flatnonzero(case.persons == person))


def _aligned(case: Case, method: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Beats that lie wholly in their windows, and their relevance over the mean of its window, both (n, n_samples)."""
    before, after = round(BEFORE_S * case.fs), round(AFTER_S * case.fs)
    beats, relevance = [], []
    for row in rows:
        found = case.relevance[method][row]
        if np.isnan(found).any():
            continue
        peaks = np.rint(case.peaks[row][np.isfinite(case.peaks[row])]).astype(int)
        for peak in peaks[(peaks >= before) & (peaks + after <= case.windows.shape[1])]:
            beats.append(case.windows[row, peak - before : peak + after])
            relevance.append(found[peak - before : peak + after] / found.mean())
    width = before + after
    return np.reshape(beats, (-1, width)), np.reshape(relevance, (-1, width))


def _coloured(ax: Axes, beat: np.ndarray, relevance: np.ndarray, fs: float) -> LineCollection:
    """Draw a beat whose line takes its colour from the relevance."""
    time = np.arange(beat.size) / fs - BEFORE_S
    points = np.stack([time, beat], axis=1)
    lines = LineCollection(np.stack([points[:-1], points[1:]], axis=1), cmap=COLOURS, linewidth=2.5)
    lines.set_array((relevance[:-1] + relevance[1:]) / 2)
    lines.set_clim(0, _TIMES_UNIFORM)
    ax.add_collection(lines)
    ax.autoscale()
    return lines


def planted_figure(planted: pd.DataFrame, least: float) -> Figure:
    """Share of each method's relevance inside the planted wave, one panel a wave.

    Parameters
    ----------
    planted : pandas.DataFrame
        From :func:`ecgstudy.attribution.localisation.audit_planted`.
    least : float
        Share that a believed method must reach.
    """
    waves = list(dict.fromkeys(planted["wave"]))
    order = [name for name in METHODS if (planted["method"] == name).any()]
    models = list(dict.fromkeys(planted["model"]))
    size = (2 + 3.0 * len(waves), 1.4 + 0.36 * len(order))
    figure, axes = plt.subplots(1, len(waves), figsize=size, sharey=True, squeeze=False)
    places = {name: place for place, name in enumerate(reversed(order))}
    for ax, wave in zip(axes[0], waves, strict=True):
        own = planted[planted["wave"] == wave]
        for offset, model in zip(np.linspace(0.14, -0.14, len(models)), models, strict=True):
            part = own[own["model"] == model].dropna(subset="mass_in_wave")
            y = part["method"].map(places) + offset
            ends = part[["mass_in_wave_low", "mass_in_wave_high"]].to_numpy().T
            errors = np.abs(ends - part["mass_in_wave"].to_numpy())
            ax.errorbar(part["mass_in_wave"], y, xerr=errors, fmt="o" if offset > 0 else "s", markersize=5, label=model)
        ax.axvline(least, color="0.4", linestyle="--", linewidth=1)
        ax.set(title=f"identity planted in {wave}", xlim=(0, 1), xlabel="share of relevance in the wave")
    axes[0][0].set_yticks(list(places.values()), [name.replace("_", " ") for name in places])
    axes[0][-1].legend(loc="lower right", fontsize="small")
    return figure


def effect_figure(effects: pd.DataFrame) -> Figure:
    """Rise of the EER and fall of rank-1, wave by wave: replaced by others' average, and by the person's own.

    Parameters
    ----------
    effects : pandas.DataFrame
        From :func:`ecgstudy.attribution.causal.effect_table`, with a column model.
    """
    models = list(dict.fromkeys(effects["model"]))
    measures = {"eer_rise": "rise of the EER", "rank1_fall": "fall of rank-1"}
    size = (2 + 3.6 * len(models), 5.6)
    figure, axes = plt.subplots(len(measures), len(models), figsize=size, sharex=True, sharey="row", squeeze=False)
    for row, (measure, label) in zip(axes, measures.items(), strict=True):
        for ax, model in zip(row, models, strict=True):
            own = effects[effects["model"] == model]
            for offset, change in ((-0.15, "replaced"), (0.15, "own average")):
                part = own[(own["change"] == change) & own["wave"].isin(WAVES)].set_index("wave").reindex(WAVES)
                errors = np.abs(part[[f"{measure}_low", f"{measure}_high"]].to_numpy().T - part[measure].to_numpy())
                place = np.arange(len(WAVES)) + offset
                marker = "o" if change == "replaced" else "s"
                ax.errorbar(place, part[measure], yerr=errors, fmt=marker, markersize=5, label=CHANGES[change])
            ax.axhline(0, color="0.4", linewidth=1)
            ax.set_xticks(range(len(WAVES)), WAVES)
        row[0].set_ylabel(label)
    for ax, model in zip(axes[0], models, strict=True):
        ax.set_title(model)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize="small")
    return figure


def removal_figure(curves: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """Probability of the right person as the most relevant parts are taken away, one panel a network and infill.

    Parameters
    ----------
    curves : pandas.DataFrame
        ``Faithfulness.curves`` of several networks, with a column model.
    methods : sequence of str
        Methods shown beside the random order.
    """
    chosen = curves[(curves["kind"] == "deletion") & curves["method"].isin([*methods, "random order"])]
    grid = sns.relplot(
        chosen,
        x="fraction",
        y="probability",
        hue="method",
        style="method",
        col="infill",
        row="model",
        kind="line",
        height=2.6,
        aspect=1.35,
    )
    grid.set_axis_labels("share of the window exchanged", "probability of the person")
    grid.set_titles("{row_name}: {col_name}")
    return grid.figure
