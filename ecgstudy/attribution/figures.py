"""Figures of the attribution stage; persons are numbered, not named."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from ecgstudy.attribution.cases import Case, known_fiducials
from ecgstudy.attribution.exchange import Windows
from ecgstudy.attribution.methods import METHODS, ZERO, Question, attribute
from ecgstudy.attribution.waves import BOUNDARIES, PEAKS
from ecgstudy.experiment.dataset import without_lead
from ecgstudy.experiment.jobs import Context
from ecgstudy.ingestion.stores import study_cohort
from ecgstudy.learn.base import PERSON, SignalModel
from ecgstudy.signals.delineation import FIDUCIAL_COLUMNS
from ecgstudy.signals.features import average_beat as median_beat
from ecgstudy.signals.preprocess import bandpass
from ecgstudy.study.plots import ecg_paper

BEFORE_S, AFTER_S = 0.32, 0.52
MOST_PERSONS = 6
_LESS_MORE = LinearSegmentedColormap.from_list("less and more", ["tab:blue", "0.1", "tab:red"])
_LEAST_SCALE = 0.01


class MeanBeat(NamedTuple):
    """Mean beat in mV at the record's own rate, its rate, and the median place of each fiducial point in s from R."""

    millivolts: np.ndarray
    fs: float
    points: Mapping[str, float]


def mean_beats(context: Context, case: Case, seed: int) -> dict[str, MeanBeat]:
    """Mean beat of each explained person, from the records as published; empty where they are not in mV."""
    cohort, dataset, beats = study_cohort(case.cohort, seed), context.dataset, {}
    kept = case.attempts[case.attempts["reason"].isna()].drop_duplicates("person")
    for person, record in zip(kept["person"], kept["record"], strict=True):
        signal = cohort.signal(without_lead(record).split("/", 1)[1])
        if signal.unit != "mV":
            return {}
        values = bandpass(signal.values[signal.leads.index(dataset.lead_of(record))], signal.fs)
        fiducials, _ = known_fiducials(dataset, record, 0, np.iinfo(np.int64).max)
        peaks = np.rint((fiducials["r_peak"] / dataset.fs).to_numpy() * signal.fs).astype(int)
        beat = median_beat(values[None], peaks, round(BEFORE_S * signal.fs), round(AFTER_S * signal.fs))[0]
        if not np.isnan(beat).all():
            points = fiducials[list(FIDUCIAL_COLUMNS)].sub(fiducials["r_peak"], axis=0).median() / dataset.fs
            beats[person] = MeanBeat(beat, signal.fs, points.to_dict())
    return beats


def average_beat(beats: Sequence[MeanBeat]) -> MeanBeat:
    """Mean over persons, of those whose records have the first one's rate."""
    same = [beat for beat in beats if beat.fs == beats[0].fs]
    points = pd.DataFrame([beat.points for beat in same]).mean().to_dict()
    return MeanBeat(np.mean([beat.millivolts for beat in same], axis=0), same[0].fs, points)


def _spans(points: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """Seconds in which each wave lies that is known; the rest between beats fills the end of the picture."""
    ends = {wave: (points.get(start, np.nan), points.get(stop, AFTER_S)) for wave, (start, stop) in BOUNDARIES.items()}
    return {wave: span for wave, span in ends.items() if np.isfinite(span).all()}


def _coloured(ax: Axes, seconds: np.ndarray, values: np.ndarray, colour: np.ndarray, **style: object) -> LineCollection:
    """Draw a curve, shape (n,), coloured by numbers, (n,)."""
    points = np.stack([seconds, values], axis=1)
    pieces = np.stack([points[:-1], points[1:]], axis=1)
    lines = LineCollection(pieces, array=colour[:-1], linewidth=2.7, zorder=3, **style)
    ax.add_collection(lines)
    return lines


def draw_beat(ax: Axes, beat: MeanBeat, behind: MeanBeat, colours: Mapping[str, float], most: float) -> LineCollection:
    """Draw a mean beat on ECG paper, coloured by wave, the average person's behind it, and mark P, QRS and T.

    The colours end at `most`.
    """
    seconds, behind_s = (np.arange(one.millivolts.size) / one.fs - BEFORE_S for one in (beat, behind))
    ax.plot(behind_s, behind.millivolts, color="0.6", linewidth=1.2, zorder=2)
    colour = np.zeros(seconds.size)
    for wave, (start, stop) in _spans(beat.points).items():
        colour[(seconds >= start) & (seconds < stop)] = colours.get(wave, 0.0)
    lines = _coloured(ax, seconds, beat.millivolts, colour, cmap=_LESS_MORE, clim=(-most, most))
    both = np.concatenate([beat.millivolts, behind.millivolts])
    ecg_paper(ax, (-BEFORE_S, AFTER_S), (np.floor(2 * both.min() - 0.5) / 2, np.ceil(2 * both.max() + 1) / 2))
    for wave, peak in PEAKS.items():
        if np.isfinite(at := beat.points[peak]):
            top = np.interp(at, seconds, beat.millivolts)
            ax.annotate(wave, (at, top), (0, 6), textcoords="offset points", ha="center", fontweight="bold")
    return lines


def is_told(shares: pd.DataFrame) -> bool:
    """Tell whether the interval of method minus control excludes 0 for any factor."""
    return bool(((shares["minus_control_low"] > 0) | (shares["minus_control_high"] < 0)).any())


def _scale(values: np.ndarray) -> float:
    """Give the end of the colour scale: the largest size that is shown."""
    return max(float(np.nanmax(np.abs(values), initial=0.0)), _LEAST_SCALE)


def heart_figure(beat: MeanBeat, behind: MeanBeat, shares: pd.DataFrame) -> Figure:
    """One beat that tells by what its owner is known: on paper, with shares, and method minus control beside it.

    `shares` are rows of :func:`ecgstudy.attribution.tables.share_tables` of one case and method; where no interval
    excludes 0 everything has one colour.
    """
    rows = shares.set_index("factor")
    figure, (ax, beside) = plt.subplots(1, 2, figsize=(13, 5.5), width_ratios=[1.3, 1])
    colours = rows["minus_control"] * is_told(rows)
    lines = draw_beat(ax, beat, behind, colours.to_dict(), _scale(colours.to_numpy()))
    for wave, (start, stop) in _spans(beat.points).items():
        if wave in rows.index:
            told, place = f"{rows.loc[wave, 'share']:.0%}", ((start + stop) / 2, ax.get_ylim()[0])
            ax.annotate(told, place, (0, 4), textcoords="offset points", ha="center")
            ax.axvspan(start, stop, color="0.5", alpha=0.06, linewidth=0)
    ax.set_title("share of each wave")
    value, low, high = (rows[f"minus_control{end}"].to_numpy() for end in ("", "_low", "_high"))
    places = -np.arange(len(rows))
    beside.barh(places, high - low, left=low, color=lines.cmap(lines.norm(colours)), alpha=0.6)
    beside.vlines(value, places - 0.4, places + 0.4, color="black")
    beside.axvline(0, color="0.3", linewidth=1)
    beside.set_yticks(places, [f"{name} {share:.0%}" for name, share in rows["share"].items()])
    beside.set(title="above or below every control", xlabel="share, method minus control")
    if is_told(rows):
        figure.colorbar(lines, ax=beside, label="share, method minus control", shrink=0.8)
    return figure


def heart_caption(case: Case, shares: pd.DataFrame) -> str:
    """Caption of :func:`heart_figure`, which says where nothing is coloured."""
    told = f"What gives people of {case.cohort} away to {case.model}: a beat, the average beat, shares, certainty."
    return told if is_told(shares) else f"{told} One colour: no wave is above every control."


def person_figure(beats: Mapping[str, MeanBeat], effects: pd.DataFrame) -> Figure:
    """One small picture a person: their mean beat over the average person's, coloured by what gives THEM away.

    `effects` has a row a person: the sizes of the effects less those of the control, as shares, a column a factor.
    """
    known = [person for person in effects.index if person in beats]
    shown = [known[at] for at in np.linspace(0, len(known) - 1, min(MOST_PERSONS, len(known))).astype(int)]
    behind = average_beat(list(beats.values()))
    rows, most = -(-len(shown) // 3), _scale(effects.loc[shown].to_numpy())
    figure, axes = plt.subplots(rows, 3, figsize=(13, 4.2 * rows), squeeze=False)
    for number, (ax, person) in enumerate(zip(axes.flat, shown, strict=False), start=1):
        lines = draw_beat(ax, beats[person], behind, effects.loc[person].to_dict(), most)
        first = effects.loc[person].idxmax()
        ax.set_title(f"person {number}: most by {first} ({effects.loc[person, first]:+.0%})")
    for ax in axes.flat[len(shown) :]:
        ax.set_axis_off()
    figure.colorbar(lines, ax=axes, label="share, method minus control", shrink=0.6)
    return figure


def planted_figure(planted: pd.DataFrame) -> Figure:
    """Methods and baselines down, cues across, one panel a network: the mass in the cue where it is known."""
    named = planted.assign(name=(planted["method"] + ", " + planted["baseline"]).str.replace("_", " "))
    models, names, cues = (named[key].unique() for key in ("model", "name", "cue"))
    size = (3 + 4.2 * len(models), 1.5 + 0.3 * len(names))
    figure, axes = plt.subplots(1, len(models), figsize=size, sharey=True, squeeze=False)
    for ax, model in zip(axes[0], models, strict=True):
        grid = named[named["model"] == model].pivot_table("mass_in_cue", "name", "cue")
        grid = grid.reindex(index=names, columns=cues).astype(float)
        style = {"vmin": 0, "vmax": 1, "cmap": "viridis", "annot": True, "fmt": ".2f"}
        sns.heatmap(grid, ax=ax, cbar_kws={"label": "mass in the cue"}, **style)
        ax.set(title=model, xlabel="", ylabel="")
        ax.tick_params(axis="y", rotation=0)
    return figure


def interval_figure(panels: Mapping[str, pd.DataFrame], column: str, label: str) -> Figure:
    """Factors down, a column with its intervals across, one panel a title."""
    figure, axes = plt.subplots(1, len(panels), figsize=(2 + 4.0 * len(panels), 4.6), sharey=True, squeeze=False)
    for ax, (title, table) in zip(axes[0], panels.items(), strict=True):
        errors = np.abs(table[[f"{column}_low", f"{column}_high"]].to_numpy().T - table[column].to_numpy())
        ax.errorbar(table[column], -np.arange(len(table)), xerr=errors, fmt="o")
        ax.axvline(0, color="0.4", linewidth=1)
        ax.set_yticks(-np.arange(len(table)), table["factor"])
        ax.set(title=title, xlabel=label)
    return figure


def explained_beat(model: SignalModel, window: np.ndarray, target: np.ndarray) -> Figure:
    """One beat of a window (1, 1, n_samples), coloured by how much each sample spoke for a person, by gradients."""
    fs = model.hparams.fs
    asked = Question(model, PERSON, Windows(window, target, fs, seed=0))
    found = np.abs(attribute(METHODS["integrated_gradients"], ZERO, asked)[0])
    before, after = round(BEFORE_S * fs), round(AFTER_S * fs)
    start = int(np.argmax(np.abs(window[0, 0, before:-after])))  # the R peak stands out
    cut, seconds = slice(start, start + before + after), np.arange(before + after) / fs - BEFORE_S
    figure, ax = plt.subplots(figsize=(5, 3))
    lines = _coloured(ax, seconds, window[0, 0, cut], found[cut] / found.mean(), cmap="viridis", clim=(0, 4))
    ax.autoscale()
    ax.set(xlabel="time from R peak (s)", ylabel="standard deviations")
    figure.colorbar(lines, ax=ax, label="relevance (1 = uniform)")
    plt.close(figure)  # shown once, by whoever asked for it
    return figure
