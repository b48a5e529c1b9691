"""Figures of the dual-task stage; each function bears the name of its file."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from scipy.stats import binomtest

from ecgstudy.dual_task.plan import DT4ECG
from ecgstudy.dual_task.predictions import TASKS, Predictions
from ecgstudy.dual_task.streaming import GUESS, USUAL, LongRecords, forward_filter, sessions
from ecgstudy.evaluate.splits import SUBJECT
from ecgstudy.experiment.dataset import GRID_S, Dataset
from ecgstudy.experiment.jobs import Context
from ecgstudy.learn.base import SignalModel
from ecgstudy.study.plots import PALETTE

BEAT_S = (-0.3, 0.5)
ATTENTION_WINDOWS = 600


def plain(name: str) -> str:
    """Write an identifier as a reader would, without the cohort that a person's name begins with."""
    return str(name).split("/")[-1].replace("_", " ")


def protocols_figure(results: pd.DataFrame, classes: Mapping[str, Sequence[str]]) -> Figure:
    """Both accuracies of every protocol and network with their intervals over persons, from the wide table.

    Dashed: guessing among the `classes` of each task.
    """
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True)
    protocols = [*results["protocol"].unique()]
    for ax, task in zip(axes, TASKS, strict=True):
        models = results.groupby("model", sort=False)
        for number, (model, own) in enumerate(models):
            value, low, high = 100 * own.filter(like=f"{task}_accuracy").to_numpy().T
            y = own["protocol"].map(protocols.index) + 0.13 * (number - (len(models) - 1) / 2)
            # the value of all persons may fall outside a percentile interval by a rounding step
            ends = [(value - low).clip(0), (high - value).clip(0)]
            ax.errorbar(value, y, xerr=ends, fmt="o", color=PALETTE[number], capsize=3, label=model)
        ax.axvline(100 / len(classes[task]), color="0.3", linestyle="--", linewidth=1, label="guessing")
        ax.set(title=task, xlabel="accuracy (% of windows)", xlim=(0, 102))
    axes[0].set_yticks(range(len(protocols)), map(plain, protocols))
    axes[0].set_ylim(len(protocols) - 0.4, -0.6)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _heat_map(ax: Axes, share: pd.DataFrame, x: str, y: str, bar: str | None = "") -> None:
    """Draw percentages, with numbers where they are few; `bar` names the colour bar, None leaves it out."""
    few, shown = len(share) <= 12, 100 * share.rename(index=plain, columns=plain)
    shade = {"vmin": 0, "vmax": 100, "cmap": "cividis", "annot": few, "fmt": ".0f"}
    sns.heatmap(shown, ax=ax, cbar=bar is not None, cbar_kws={"label": bar}, **shade)
    ax.set(xlabel=x, ylabel=y)
    ax.tick_params(axis="x", rotation=30 if few else 90)


def confusion_figure(predictions: Predictions) -> Figure:
    """Which person and which activity is taken for which, rest first."""
    figure, axes = plt.subplots(1, 2, figsize=(12, 5))
    for ax, (task, truth) in zip(axes, TASKS.items(), strict=True):
        windows, names = predictions.windows, predictions.classes[task]
        share = pd.crosstab(windows[truth], windows[f"{task}_predicted"], normalize="index")
        share = share.reindex(columns=names, fill_value=0).reindex(names)
        _heat_map(ax, share, "predicted", "true", "" if task == "activity" else None)
        ax.set(title=task)
    return figure


def activity_matrix_figure(matrix: pd.DataFrame) -> Figure:
    """Person accuracy by the activity that is known and the activity that is heard."""
    figure, ax = plt.subplots(figsize=(6.5, 4.6))
    _heat_map(ax, matrix, "heard during", "known from", "person accuracy (% of windows)")
    return figure


def balance_figure(compared: Mapping[str, Predictions]) -> Figure:
    """Weights and losses of both tasks over training, one line a seed, by the balance that trained the networks."""
    figure, axes = plt.subplots(2, len(compared), figsize=(9, 5.4), sharex="col", sharey="row", squeeze=False)
    for column, (name, predictions) in zip(axes.T, compared.items(), strict=True):
        for history in predictions.histories:
            for colour, task in zip(PALETTE, TASKS, strict=False):
                for ax, drawn in zip(column, (f"weight_{task}", f"train_{task}_loss"), strict=True):
                    ax.plot(history["epoch"] + 1, history[drawn], color=colour, alpha=0.7)
        column[0].set(title=plain(name))
        column[1].set(xlabel="epoch", yscale="log")
        column[1].xaxis.set_major_locator(MaxNLocator(integer=True))
        ticks = {"major_locator": LogLocator(subs=(1, 2, 5)), "minor_locator": NullLocator()}
        column[1].yaxis.set(major_formatter="{x:g}", **ticks)
    axes[0, 0].set_ylabel("weight of the task")
    axes[1, 0].set_ylabel("its loss (unweighted)")
    axes[0, -1].legend(list(TASKS))
    return figure


def attention_figure(
    context: Context, predictions: Predictions, model: SignalModel, seed: int, with_beat: bool
) -> Figure:
    """Sequence attention around the R peak by activity, over the mean beat where told, and weights of the channels.

    Read from one network, in some of its test windows drawn at random.
    """
    own = predictions.windows[predictions.windows["seed"] == predictions.windows["seed"].iloc[0]]
    drawn = own.sample(min(ATTENTION_WINDOWS, len(own)), random_state=seed).sort_index()
    samples = context.attackers[DT4ECG].read(context.dataset, drawn)
    with torch.inference_mode():
        channel, sequence = (values.numpy() for values in model.attention_maps(torch.from_numpy(samples)))
    figure, (left, right) = plt.subplots(1, 2, figsize=(11.5, 3.9), width_ratios=[3, 2])
    left.set(title="attention over a beat", xlabel="time from R peak (ms)", ylabel="attention / even attention")
    beat, seen = beat_phases(context.dataset, drawn, samples[:, 0], sequence, model.samples_per_point)
    if beat.empty:
        left.text(0.5, 0.5, "no R peak is known in these windows", ha="center", transform=left.transAxes)
    else:
        behind = left.twinx()
        if with_beat:
            behind.fill_between(1000 * beat.columns, beat.mean(), color="black", alpha=0.12)
        behind.set(yticks=[])
        left.set(zorder=behind.get_zorder() + 1, frame_on=False)
        left.plot(1000 * seen.columns, seen.T, label=[plain(activity) for activity in seen.index])
        left.axhline(1, color="black", linewidth=0.8, linestyle=":")
        left.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)
    weights = pd.DataFrame(channel).groupby(drawn["activity"].to_numpy()).mean()
    weights = weights.reindex(predictions.classes["activity"]).rename(index=plain)
    most = weights[weights.std().sort_values(ascending=False).index[:20]]
    sns.heatmap(most, ax=right, cmap="cividis", xticklabels=False, cbar_kws={"label": "weight"})
    right.set(title="the 20 channels that differ most", xlabel="channel", ylabel="")
    return figure


def beat_phases(
    dataset: Dataset, index: pd.DataFrame, lead: np.ndarray, sequence: np.ndarray, point: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Mean beat and mean attention by activity (row) and seconds from the R peak (column).

    `lead` holds the samples of each window and `sequence` its attention, one value every `point` samples, which
    becomes 1 where all points weigh the same.
    """
    fs, beats, seen, activities = dataset.fs, [], [], []
    time = np.arange(*BEAT_S, 1 / fs)
    for row, window in enumerate(index.itertuples()):
        peaks = dataset.peaks(window.record_id, window.start, window.start + window.n_samples) / fs
        whole = peaks[(peaks + time[0] >= 0) & (peaks + time[-1] < (window.n_samples - 1) / fs)]
        if len(whole):
            at, share = whole[:, None] + time, sequence[row] * sequence.shape[1]
            beats.append(np.interp(at, np.arange(window.n_samples) / fs, lead[row]).mean(axis=0))
            seen.append(np.interp(at, np.arange(len(share)) * point / fs, share).mean(axis=0))
            activities.append(window.activity)
    return tuple(pd.DataFrame(rows, columns=time).groupby(activities).mean() for rows in (beats, seen))


def session_figure(heard: Predictions, seconds: float, switching: float) -> Figure:
    """One person's whole session as a stream: activity and person over time with the truth; the median person."""
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(11, 5.4), sharex=True, height_ratios=[3, 2])
    ordered = sorted(sessions(heard), key=lambda session: session.accuracy("activity"))
    stream = ordered[len(ordered) // 2]
    names, person = stream.classes["activity"], stream.windows[SUBJECT].iloc[0]
    minutes = np.arange(len(stream.windows)) * GRID_S / 60
    activity = forward_filter(stream.shares("activity"), switching, GRID_S / seconds)
    extent = (0, minutes[-1], len(names) - 0.5, -0.5)
    top.imshow(activity.T, aspect="auto", interpolation="nearest", cmap="Blues", vmin=0, vmax=1, extent=extent)
    top.hlines(np.arange(len(names) - 1) + 0.5, 0, minutes[-1], color="0.8", linewidth=0.8)
    truth = pd.Index(names).get_indexer(stream.windows["activity"])
    top.step(minutes, truth, color=PALETTE[1], where="post", label="true activity")
    top.set(yticks=range(len(names)), yticklabels=[plain(name) for name in names])
    top.set_title(f"{plain(person)}: probability of each activity (dark: sure)")
    top.grid(False)
    alone, column = stream.shares("person"), stream.classes["person"].index(person)
    carried = forward_filter(alone, 1e-4, GRID_S / seconds)
    bottom.plot(minutes, alone[:, column], color=PALETTE[7], linewidth=0.8, label="each window alone")
    bottom.plot(minutes, carried[:, column], color=PALETTE[0], label="evidence carried on")
    _chance_line(bottom, 1 / len(stream.classes["person"]))
    bottom.set(xlabel="minutes of signal heard", ylabel="probability of\nthe true person", ylim=(-0.05, 1.05))
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def _chance_line(ax: Axes, chance: float) -> None:
    """Draw what a guess among everybody enrolled would reach."""
    ax.axhline(chance, color="0.4", linewidth=0.8, linestyle=":", label="guessing a person")


def delay_figure(delays: pd.DataFrame, by_time: pd.DataFrame) -> Figure:
    """Delay against accuracy over how readily the stream changes its mind, and accuracy by seconds heard."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8))
    idle = delays["switching"].isin((GUESS, USUAL))
    value, low, high = (100 * delays[f"accuracy{end}"][~idle] for end in ("", "_low", "_high"))
    left.errorbar(delays["delay"][~idle], value, (value - low, high - value), fmt="o-", color=PALETTE[0], elinewidth=1)
    for number, row in enumerate(delays[~idle].dropna(subset=["delay", "accuracy"]).itertuples()):
        # on alternate sides: neighbours may lie close together
        place = {"xytext": (7, 3), "ha": "left"} if number % 2 else {"xytext": (-7, 3), "ha": "right"}
        where = (row.delay, 100 * row.accuracy)
        left.annotate(row.switching, where, textcoords="offset points", fontsize="small", **place)
    for row in delays[idle].itertuples():
        left.axhline(100 * row.accuracy, color="0.4", linewidth=0.8, linestyle=":")
        named = {"ha": "right", "va": "bottom", "fontsize": "small", "color": "0.3"}
        left.text(0.99, 100 * row.accuracy, row.switching, transform=left.get_yaxis_transform(), **named)
    left.set(title="activity, by switches expected a second", xlabel="median delay after a change (s)")
    left.set_ylabel("accuracy (% of seconds)")
    left.margins(0.2)
    for number, (task, rows) in enumerate(by_time.groupby("task", sort=False)):
        right.plot(rows["seconds"], 100 * rows["accuracy"], color=PALETTE[number], label=task)
    right.set(title="one record, heard from its start", xlabel="seconds heard", ylabel="accuracy (% of records)")
    if len(by_time):
        right.legend()
    return figure


def long_record_figure(long: LongRecords, by_time: pd.DataFrame, fs: float) -> Figure:
    """One half-hour record, the activities predicted of it, and everybody's late minutes with exact intervals."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 4), width_ratios=[3, 2, 3])
    whole, activity, person = long.whole, long.activity, long.whole.windows[SUBJECT].iloc[0]
    for row in long.enrolled.itertuples():
        axes[0].axvspan(row.start / fs / 60, row.stop / fs / 60, color="black", alpha=0.1, linewidth=0)
    own = whole.shares("person")[:, whole.classes["person"].index(person)]
    axes[0].plot(whole.windows["start"] / fs / 60, own, color=PALETTE[0], linewidth=0.6)
    _chance_line(axes[0], 1 / len(whole.classes["person"]))
    axes[0].set(title=f"record {plain(person)}, each window alone", xlabel="minutes (grey: enrolled)")
    axes[0].set(ylabel="probability of the true person", ylim=(-0.05, 1.05))
    axes[1].barh([plain(name) for name in activity.index], 100 * activity, color=PALETTE[1])
    axes[1].invert_yaxis()
    axes[1].set(title="activity that is predicted of it", xlabel="share of windows (%)", xlim=(0, 100))
    counts = zip((by_time["accuracy"] * by_time["records"]).round().astype(int), by_time["records"], strict=True)
    low, high = np.transpose([binomtest(right, n).proportion_ci() for right, n in counts])
    axes[2].fill_between(by_time["seconds"], 100 * low, 100 * high, color=PALETTE[0], alpha=0.2, linewidth=0)
    axes[2].plot(by_time["seconds"], 100 * by_time["accuracy"], color=PALETTE[0])
    _chance_line(axes[2], 100 / len(long.late.classes["person"]))
    axes[2].set(title="everybody, minutes 25 to 30", xlabel="seconds heard", ylim=(-5, 105))
    axes[2].set_ylabel("persons recognised (%)")
    axes[2].legend(loc="center right")
    return figure
