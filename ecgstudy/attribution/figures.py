"""Figures of the attribution stage, and a viewer for JupyterLab; persons are numbered, not named."""

from collections.abc import Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import display
from ipywidgets import VBox, interactive
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from ecgstudy.attribution.cases import NETWORKS, Case
from ecgstudy.attribution.methods import METHODS, Question, attribute, relevance
from ecgstudy.attribution.waves import WAVES, Windows
from ecgstudy.learn.base import PERSON, SignalModel
from ecgstudy.study.parallel import in_batch

BEFORE_S, AFTER_S = 0.3, 0.5
MOST_PERSONS, MOST_BEATS = 4, 10
CHANGES = {"replaced": "others' average wave", "own average": "the person's own average (control)"}
_TIMES_UNIFORM = 4.0  # top of the colour scale of relevance
Beat = tuple[str, np.ndarray, np.ndarray]
"""Title, samples and relevance (1 = uniform) of a beat."""
Classes = tuple[str, Iterable[str]]
"""A column and its values, in order."""


def enrichment_figure(rows: pd.DataFrame, cohort: str) -> Figure:
    """Heat map of a cohort's ``main_rows``: enrichment of each wave (column) by each method (row), one panel a task."""
    own = rows[(rows["cohort"] == cohort) & (rows["kind"] == "wave")]
    tasks, order = list(own["task"].unique()), [name for name in METHODS if (own["method"] == name).any()]
    size = (1.6 + 3.4 * len(tasks), 1.2 + 0.34 * len(order))
    figure, axes = plt.subplots(1, len(tasks), figsize=size, sharey=True, squeeze=False)
    style = {"center": 0, "vmin": -2, "vmax": 2, "cmap": "vlag", "fmt": "g", "annot_kws": {"fontsize": 8}}
    for ax, task in zip(axes[0], tasks, strict=True):
        part = own[own["task"] == task]
        grid = part.pivot_table(index="method", columns="wave", values="enrichment").reindex(order)[list(WAVES)]
        last = {"cbar": ax is axes[0][-1], "cbar_kws": {"label": "enrichment", "ticks": [-2, -1, 0, 1, 2]}}
        sns.heatmap(np.log2(grid.clip(lower=2**-3)), annot=grid.round(2), ax=ax, **style, **last)
        ax.set(title=f"{task} ({part['protocol'].iloc[0]})".replace("_", " "), xlabel="", ylabel="")
        ax.tick_params(axis="y", rotation=0)
    axes[0][-1].collections[0].colorbar.ax.set_yticklabels(["¼", "½", "1", "2", "4"])
    return figure


def beats_figure(panels: Mapping[str, Sequence[Beat]], fs: float) -> Figure:
    """Beats whose line takes its colour from the relevance, by the name of their row of panels."""
    n_rows, n_columns = len(panels), max(map(len, panels.values()))
    size = (1 + 3.2 * n_columns, 0.9 + 1.7 * n_rows)
    figure, axes = plt.subplots(n_rows, n_columns, figsize=size, sharex=True, sharey=True, squeeze=False)
    for row, (name, beats) in zip(axes, panels.items(), strict=True):
        row[0].set_ylabel(name.replace("_", "\n"))
        for ax, (title, beat, found) in zip(row, beats, strict=False):
            points = np.stack([np.arange(beat.size) / fs - BEFORE_S, beat], axis=1)
            lines = LineCollection(np.stack([points[:-1], points[1:]], axis=1), cmap="viridis", linewidth=2.5)
            lines.set(array=(found[:-1] + found[1:]) / 2, clim=(0, _TIMES_UNIFORM))
            ax.add_collection(lines)
            ax.autoscale()
            ax.set_title(title)
    figure.supxlabel("time from R peak (s)")
    figure.colorbar(lines, ax=axes, label="relevance (1 = uniform)", shrink=min(1.0, 3 / n_rows))
    return figure


def mean_beat_figure(cases: Sequence[Case], methods: Sequence[str]) -> Figure:
    """Mean beat coloured by relevance: one row a method, one column a case (one a task, all of one network)."""
    panels = {}
    for method in methods:
        of_cases = [(case, *whole_beats(case, method, np.arange(len(case.windows)))) for case in cases]
        panels[method] = [
            (f"{case.task.replace('_', ' ')} ({len(beats)} beats)", beats.mean(axis=0), found.mean(axis=0))
            for case, beats, found in of_cases
        ]
    return beats_figure(panels, cases[0].windows.fs)


def single_beats_figure(case: Case, method: str) -> Figure:
    """One beat each of a few persons, coloured by relevance."""
    persons, beats = np.unique(case.windows.persons), []
    for number, at in enumerate(np.linspace(0, len(persons) - 1, min(MOST_PERSONS, len(persons))).astype(int)):
        own, found = whole_beats(case, method, np.flatnonzero(case.windows.persons == persons[at]))
        if len(own):
            beats.append((f"person {number + 1}", own[len(own) // 2], found[len(own) // 2]))
    return beats_figure({"standard deviations": beats}, case.windows.fs)


def explained_beat(model: SignalModel, window: np.ndarray, target: np.ndarray, method: str) -> Figure:
    """One beat of a window (1, 1, n_samples), coloured by what a method says about the network's logit of a person."""
    fs = model.hparams.fs
    asked = Question(model, PERSON, Windows(window, target, fs, seed=0))
    found = relevance(METHODS[method], attribute(METHODS[method], asked))[0]
    before, after = round(BEFORE_S * fs), round(AFTER_S * fs)
    start = int(np.argmax(np.abs(window[0, 0, before:-after])))  # the R peak stands out
    beat = slice(start, start + before + after)
    figure = beats_figure({"standard deviations": [("", window[0, 0, beat], found[beat] / found.mean())]}, fs)
    plt.close(figure)  # shown once, by whoever asked for it
    return figure


def whole_beats(case: Case, method: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Beats that lie wholly in their windows, and their relevance over the mean of its window, both (n, n_samples)."""
    before, after = round(BEFORE_S * case.windows.fs), round(AFTER_S * case.windows.fs)
    beats, relevances = [], []
    for row in rows:
        found, window = case.relevance[method][row], case.windows.samples[row, 0]
        peaks = np.rint(case.windows.fiducials[row]["r_peak"].dropna().to_numpy()).astype(int)
        for peak in peaks[(peaks >= before) & (peaks + after <= window.size) & np.isfinite(found).all()]:
            beats.append(window[peak - before : peak + after])
            relevances.append(found[peak - before : peak + after] / found.mean())
    return np.reshape(beats, (-1, before + after)), np.reshape(relevances, (-1, before + after))


def planted_figure(planted: pd.DataFrame, by_seed: pd.DataFrame, least: float) -> Figure:
    """Share of each method's relevance inside the planted wave: mean, interval, a mark each cohort; `least` asked.

    Tables are those of :func:`ecgstudy.attribution.planted.audit_planted`, over all cohorts and cohort by cohort.
    """
    waves, order = list(planted["wave"].unique()), [name for name in METHODS if (planted["method"] == name).any()]
    size = (2 + 3.0 * len(waves), 1.4 + 0.36 * len(order))
    figure, axes = plt.subplots(1, len(waves), figsize=size, sharey=True, squeeze=False)
    for ax, wave in zip(axes[0], waves, strict=True):
        pooled, single = planted[planted["wave"] == wave], by_seed[by_seed["wave"] == wave]
        draw_intervals(ax, pooled, "mass_in_wave", ("method", order), ("model", NETWORKS), single)
        ax.axvline(least, color="0.4", linestyle="--", linewidth=1)
        ax.set(title=f"identity planted in {wave}", xlim=(0, 1), xlabel="share of relevance in the wave")
    axes[0][-1].legend(loc="lower right", fontsize="small")
    return figure


def effect_figure(effects: pd.DataFrame) -> Figure:
    """Rise of the EER and fall of rank-1, wave by wave: replaced by others' average, and by the person's own."""
    models, measures = list(effects["model"].unique()), {"eer_rise": "rise of the EER", "rank1_fall": "fall of rank-1"}
    size = (2 + 3.6 * len(models), 5.6)
    figure, axes = plt.subplots(len(measures), len(models), figsize=size, sharex="row", sharey=True, squeeze=False)
    for row, (measure, label) in zip(axes, measures.items(), strict=True):
        for ax, model in zip(row, models, strict=True):
            draw_intervals(ax, effects[effects["model"] == model], measure, ("wave", WAVES), ("change", CHANGES))
            ax.axvline(0, color="0.4", linewidth=1)
            ax.set(title=model, xlabel=label)
    handles, names = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, [CHANGES[name] for name in names], loc="outside lower center", ncols=2, fontsize="small")
    return figure


def draw_intervals(
    ax: Axes, table: pd.DataFrame, column: str, rows: Classes, hues: Classes, single: pd.DataFrame | None = None
) -> None:
    """Draw marks with the intervals of a column: one row of the axis, and one colour, each value of two other columns.

    Rows of `single` are drawn as strokes.
    """
    places = {name: -at for at, name in enumerate(rows[1])}
    for hue, offset, marker in zip(hues[1], (0.15, -0.15), "os", strict=True):
        part, strokes = (
            shown[(shown[hues[0]] == hue) & shown[rows[0]].isin(places)].dropna(subset=column)
            for shown in (table, table[:0] if single is None else single)
        )
        errors = np.abs(part[[f"{column}_low", f"{column}_high"]].to_numpy().T - part[column].to_numpy())
        marks = ax.errorbar(part[column], part[rows[0]].map(places) + offset, xerr=errors, fmt=marker, label=hue)
        ax.plot(
            strokes[column], strokes[rows[0]].map(places) + offset, "|", ms=7, alpha=0.6, color=marks[0].get_color()
        )
    ax.set_yticks(list(places.values()), [name.replace("_", " ") for name in places])


def removal_figure(curves: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """Probability of the right person as the most relevant parts are taken away, one panel a network and infill."""
    chosen = curves[(curves["kind"] == "deletion") & curves["method"].isin([*methods, "random order"])]
    panels = {"col": "infill", "row": "model", "height": 2.6, "aspect": 1.35}
    grid = sns.relplot(chosen, x="fraction", y="probability", hue="method", style="method", kind="line", **panels)
    grid.set_axis_labels("share of the window exchanged", "probability of the person")
    grid.set_titles("{row_name}: {col_name}")
    return grid.figure


def show_viewer(case: Case) -> None:
    """Show the :func:`viewer` where somebody can use it; the rendered report has a static figure in its place."""
    if not in_batch():
        display(viewer(case))


def viewer(case: Case) -> VBox:
    """Build controls (person, method, beat) over a picture of one beat coloured by relevance."""

    def draw(person: str, method: str, beat: int) -> None:
        beats, found = whole_beats(case, method, np.flatnonzero(case.windows.persons == person))
        if not len(beats):
            print("No whole beat of this person has a relevance by this method.")
            return
        at = (beat - 1) % len(beats)
        title = f"beat {at + 1} of {len(beats)}"
        figure = beats_figure({"standard deviations": [(title, beats[at], found[at])]}, case.windows.fs)
        display(figure)
        plt.close(figure)

    persons = {f"person {number + 1}": name for number, name in enumerate(np.unique(case.windows.persons))}
    methods = {name.replace("_", " "): name for name in case.relevance}
    return interactive(draw, person=persons, method=methods, beat=(1, MOST_BEATS))
