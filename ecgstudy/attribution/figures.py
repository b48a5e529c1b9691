"""Figures of the attribution stage, and a viewer for JupyterLab; persons are numbered, not named."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import display
from ipywidgets import Dropdown, HBox, IntSlider, Output, VBox
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from ecgstudy.attribution.cases import Case
from ecgstudy.attribution.explain import attribute, relevance
from ecgstudy.attribution.methods import METHODS, Question
from ecgstudy.attribution.waves import WAVES
from ecgstudy.learn.base import PERSON, SignalModel
from ecgstudy.study.parallel import in_batch

BEFORE_S, AFTER_S = 0.3, 0.5
MOST_PERSONS = 4
TASK_NAMES = {"person": "person", "sex": "sex", "age_group": "age group"}
CHANGES = {"replaced": "others' average wave", "own average": "the person's own average (control)"}
UNIFORM = "relevance (1 = uniform)"
_R_PEAK = "time from R peak (s)"
_TIMES_UNIFORM = 4.0  # top of the colour scale of relevance


def enrichment_figure(rows: pd.DataFrame, cohort: str) -> Figure:
    """Heat map of a cohort's ``main_rows``: enrichment of each wave (column) by each method (row), one panel a task."""
    own = rows[(rows["cohort"] == cohort) & (rows["kind"] == "wave")]
    tasks = [task for task in TASK_NAMES if (own["task"] == task).any()]
    order = [name for name in METHODS if (own["method"] == name).any()]
    size = (1.6 + 3.4 * len(tasks), 1.2 + 0.34 * len(order))
    figure, axes = plt.subplots(1, len(tasks), figsize=size, sharey=True, squeeze=False)
    for ax, task in zip(axes[0], tasks, strict=True):
        part = own[own["task"] == task]
        grid = part.pivot_table(index="method", columns="wave", values="enrichment").reindex(order)[list(WAVES)]
        bar = {"cbar": ax is axes[0][-1], "cbar_kws": {"label": "enrichment", "ticks": [-2, -1, 0, 1, 2]}}
        colours = {"center": 0, "vmin": -2, "vmax": 2, "cmap": "vlag"}
        told = {"annot": grid.round(2), "fmt": "g", "annot_kws": {"fontsize": 8}}
        sns.heatmap(np.log2(grid.clip(lower=2**-3)), ax=ax, **colours, **bar, **told)
        ax.set(title=f"{TASK_NAMES[task]} ({part['protocol'].iloc[0].replace('_', ' ')})", xlabel="", ylabel="")
        ax.tick_params(axis="y", rotation=0)
    axes[0][-1].collections[0].colorbar.ax.set_yticklabels(["¼", "½", "1", "2", "4"])
    return figure


def mean_beat_figure(cases: Sequence[Case], methods: Sequence[str]) -> Figure:
    """Mean beat coloured by relevance: one row a method, one column a case (one a task, all of one network)."""
    size = (1 + 3.2 * len(cases), 0.6 + 1.7 * len(methods))
    figure, axes = plt.subplots(len(methods), len(cases), figsize=size, sharex=True, sharey=True, squeeze=False)
    for column, case in enumerate(cases):
        for row, method in enumerate(methods):
            ax = axes[row][column]
            beats, relevance = whole_beats(case, method, np.arange(len(case.windows)))
            lines = draw_beat(ax, beats.mean(axis=0), relevance.mean(axis=0), case.windows.fs)
            if row == 0:
                ax.set_title(f"{TASK_NAMES[case.task]} ({len(beats)} beats)")
            if column == 0:
                ax.set_ylabel(method.replace("_", "\n"), rotation=0, ha="right", va="center")
            if row == len(methods) - 1:
                ax.set_xlabel(_R_PEAK)
    figure.colorbar(lines, ax=axes, label=UNIFORM, shrink=min(1.0, 3 / len(methods)))
    return figure


def single_beats_figure(case: Case, method: str) -> Figure:
    """One beat each of a few persons, coloured by relevance."""
    persons = np.unique(case.windows.persons)
    shown = persons[np.linspace(0, len(persons) - 1, min(MOST_PERSONS, len(persons))).astype(int)]
    figure, axes = plt.subplots(1, len(shown), figsize=(1 + 2.6 * len(shown), 2.6), sharey=True, squeeze=False)
    for number, (ax, person) in enumerate(zip(axes[0], shown, strict=True)):
        beats, relevance = whole_beats(case, method, np.flatnonzero(case.windows.persons == person))
        if len(beats):
            middle = len(beats) // 2
            lines = draw_beat(ax, beats[middle], relevance[middle], case.windows.fs)
        ax.set(title=f"person {number + 1}", xlabel=_R_PEAK)
    axes[0][0].set_ylabel("standard deviations")
    figure.colorbar(lines, ax=axes, label=UNIFORM)
    return figure


def beat_figure(beat: np.ndarray, relevance: np.ndarray, fs: float) -> Figure:
    """One beat coloured by relevance, from :func:`whole_beats`."""
    figure, ax = plt.subplots(figsize=(5, 2.6))
    lines = draw_beat(ax, beat, relevance, fs)
    ax.set(xlabel=_R_PEAK, ylabel="standard deviations")
    figure.colorbar(lines, ax=ax, label=UNIFORM)
    return figure


def explained_beat(model: SignalModel, window: np.ndarray, target: np.ndarray, method: str) -> Figure:
    """One beat of a window (1, 1, n_samples), coloured by what a method says about the network's logit of a person."""
    asked = Question(model, PERSON, window, target, waves=None, seed=0)
    found = relevance(METHODS[method], attribute(METHODS[method], asked))[0]
    fs = model.hparams.fs
    before, after = round(BEFORE_S * fs), round(AFTER_S * fs)
    start = int(np.argmax(np.abs(window[0, 0, before:-after])))  # the R peak stands out
    beat = slice(start, start + before + after)
    figure = beat_figure(window[0, 0, beat], found[beat] / found.mean(), fs)
    plt.close(figure)  # shown once, by whoever asked for it
    return figure


def whole_beats(case: Case, method: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Beats that lie wholly in their windows, and their relevance over the mean of its window, both (n, n_samples)."""
    before, after = round(BEFORE_S * case.windows.fs), round(AFTER_S * case.windows.fs)
    beats, relevance = [], []
    for row in rows:
        found, window = case.relevance[method][row], case.windows.samples[row, 0]
        if np.isnan(found).any():
            continue
        peaks = np.rint(case.windows.fiducials[row]["r_peak"].dropna().to_numpy()).astype(int)
        for peak in peaks[(peaks >= before) & (peaks + after <= window.size)]:
            beats.append(window[peak - before : peak + after])
            relevance.append(found[peak - before : peak + after] / found.mean())
    return np.reshape(beats, (-1, before + after)), np.reshape(relevance, (-1, before + after))


def draw_beat(ax: Axes, beat: np.ndarray, relevance: np.ndarray, fs: float) -> LineCollection:
    """Draw a beat whose line takes its colour from the relevance."""
    points = np.stack([np.arange(beat.size) / fs - BEFORE_S, beat], axis=1)
    lines = LineCollection(np.stack([points[:-1], points[1:]], axis=1), cmap="viridis", linewidth=2.5)
    lines.set_array((relevance[:-1] + relevance[1:]) / 2)
    lines.set_clim(0, _TIMES_UNIFORM)
    ax.add_collection(lines)
    ax.autoscale()
    return lines


def planted_figure(planted: pd.DataFrame, by_seed: pd.DataFrame, least: float) -> Figure:
    """Share of each method's relevance inside the planted wave: mean, interval, a mark each cohort; `least` asked.

    Tables are those of :func:`ecgstudy.attribution.planted.audit_planted`, over all cohorts and cohort by cohort.
    """
    waves, models = (list(dict.fromkeys(planted[column])) for column in ("wave", "model"))
    order = [name for name in METHODS if (planted["method"] == name).any()]
    size = (2 + 3.0 * len(waves), 1.4 + 0.36 * len(order))
    figure, axes = plt.subplots(1, len(waves), figsize=size, sharey=True, squeeze=False)
    places = {name: place for place, name in enumerate(reversed(order))}
    for ax, wave in zip(axes[0], waves, strict=True):
        for offset, model in zip(np.linspace(0.14, -0.14, len(models)), models, strict=True):
            part, dots = (
                table[(table["wave"] == wave) & (table["model"] == model)].dropna(subset="mass_in_wave")
                for table in (planted, by_seed)
            )
            y, marker = part["method"].map(places) + offset, "o" if offset > 0 else "s"
            drawn = _with_interval(ax, part["mass_in_wave"], y, part, "mass_in_wave", "x", fmt=marker, label=model)
            y = dots["method"].map(places) + offset
            ax.plot(dots["mass_in_wave"], y, marker="|", ls="", ms=7, alpha=0.6, color=drawn[0].get_color())
        ax.axvline(least, color="0.4", linestyle="--", linewidth=1)
        ax.set(title=f"identity planted in {wave}", xlim=(0, 1), xlabel="share of relevance in the wave")
    axes[0][0].set_yticks(list(places.values()), [name.replace("_", " ") for name in places])
    axes[0][-1].legend(loc="lower right", fontsize="small")
    return figure


def effect_figure(effects: pd.DataFrame) -> Figure:
    """Rise of the EER and fall of rank-1, wave by wave: replaced by others' average, and by the person's own."""
    models = list(dict.fromkeys(effects["model"]))
    measures = {"eer_rise": "rise of the EER", "rank1_fall": "fall of rank-1"}
    size = (2 + 3.6 * len(models), 5.6)
    figure, axes = plt.subplots(len(measures), len(models), figsize=size, sharex=True, sharey="row", squeeze=False)
    for row, (measure, label) in zip(axes, measures.items(), strict=True):
        for ax, model in zip(row, models, strict=True):
            own = effects[effects["model"] == model]
            for offset, marker, change in ((-0.15, "o", "replaced"), (0.15, "s", "own average")):
                part = own[(own["change"] == change) & own["wave"].isin(WAVES)].set_index("wave").reindex(WAVES)
                place = np.arange(len(WAVES)) + offset
                _with_interval(ax, place, part[measure], part, measure, "y", fmt=marker, label=CHANGES[change])
            ax.axhline(0, color="0.4", linewidth=1)
            ax.set_xticks(range(len(WAVES)), WAVES)
            if row is axes[0]:
                ax.set_title(model)
        row[0].set_ylabel(label)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize="small")
    return figure


def _with_interval(
    ax: Axes, x: Sequence[float], y: Sequence[float], rows: pd.DataFrame, column: str, along: str, **style: str
) -> tuple:
    """Draw marks with the intervals of a column along x or y."""
    errors = np.abs(rows[[f"{column}_low", f"{column}_high"]].to_numpy().T - rows[column].to_numpy())
    return ax.errorbar(x, y, markersize=5, **{f"{along}err": errors}, **style)


def removal_figure(curves: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """Probability of the right person as the most relevant parts are taken away, one panel a network and infill."""
    chosen = curves[(curves["kind"] == "deletion") & curves["method"].isin([*methods, "random order"])]
    panels = {"col": "infill", "row": "model", "height": 2.6, "aspect": 1.35}
    grid = sns.relplot(chosen, x="fraction", y="probability", hue="method", style="method", kind="line", **panels)
    grid.set_axis_labels("share of the window exchanged", "probability of the person")
    grid.set_titles("{row_name}: {col_name}")
    return grid.figure


def show_viewer(case: Case) -> None:
    """Show the viewer where somebody can use it; the rendered report has a static figure in its place."""
    if not in_batch():
        display(viewer(case))


def viewer(case: Case) -> VBox:
    """Build controls (person, method, beat) over a picture of one beat coloured by relevance."""
    persons = np.unique(case.windows.persons)
    person = Dropdown(options=[(f"person {n + 1}", name) for n, name in enumerate(persons)], description="person")
    method = Dropdown(options=[(name.replace("_", " "), name) for name in case.relevance], description="method")
    beat = IntSlider(min=1, max=1, description="beat", continuous_update=False)
    picture = Output()

    def draw(_: object = None) -> None:
        beats, relevance = whole_beats(case, method.value, np.flatnonzero(case.windows.persons == person.value))
        beat.max = max(1, len(beats))
        with picture:
            picture.clear_output(wait=True)
            if not len(beats):
                print("No whole beat of this person has a relevance by this method.")
                return
            figure = beat_figure(beats[beat.value - 1], relevance[beat.value - 1], case.windows.fs)
            display(figure)
            plt.close(figure)

    for control in (person, method, beat):
        control.observe(draw, names="value")
    draw()
    return VBox([HBox([person, method, beat]), picture])
