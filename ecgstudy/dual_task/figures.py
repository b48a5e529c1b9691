"""Figures of the dual-task stage."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from ecgstudy.dual_task.experiments import Answers
from ecgstudy.dual_task.long_records import LongRecords
from ecgstudy.dual_task.recordings import GRID_S, Reading, Recordings
from ecgstudy.dual_task.scores import confusion_share
from ecgstudy.dual_task.streaming import SHOWN_SWITCHING, Stream, forward_filter
from ecgstudy.evaluate.splits import RECORD
from ecgstudy.study.plots import PALETTE

BEAT_S = (-0.3, 0.5)
ATTENTION_WINDOWS = 600
TASK_TITLES = {"person": "person", "activity": "activity"}


def plain(name: str) -> str:
    """Write an identifier as a reader would."""
    return name.replace("_", " ")


def protocols_figure(table: pd.DataFrame) -> Figure:
    """Both accuracies of every protocol and model with their intervals over persons.

    Parameters
    ----------
    table : pandas.DataFrame
        Rows of :func:`ecgstudy.dual_task.scores.results_table`.
    """
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True)
    models, protocols = (list(dict.fromkeys(table[column])) for column in ("model", "protocol"))
    for ax, task in zip(axes, TASK_TITLES, strict=True):
        metric = f"{task}_accuracy"
        shown = table.dropna(subset=metric)
        for number, model in enumerate(models):
            mine = shown[shown["model"] == model]
            y = np.array([protocols.index(protocol) for protocol in mine["protocol"]]) + 0.22 * (number - 1)
            value = 100 * mine[metric]
            # the value of all persons may fall outside a percentile interval by a rounding step
            low, high = (value - 100 * mine[f"{metric}_low"]).clip(0), (100 * mine[f"{metric}_high"] - value).clip(0)
            ax.errorbar(value, y, xerr=[low, high], fmt="o", color=PALETTE[number], capsize=3, label=model)
        ax.set(title=task, xlabel="windows named rightly (%)", yticks=range(len(protocols)))
        ax.set_yticklabels([plain(protocol) for protocol in protocols])
    axes[0].set_ylim(len(protocols) - 0.4, -0.6)
    axes[0].legend(loc="lower left")
    return figure


def confusion_figure(answers: Answers) -> Figure:
    """Which person and which activity is taken for which."""
    figure, axes = plt.subplots(1, 2, figsize=(12, 5))
    for ax, task in zip(axes, TASK_TITLES, strict=True):
        share = 100 * confusion_share(answers, task)
        share = share.rename(index=plain, columns=plain)
        many = len(share) > 12
        sns.heatmap(share, annot=not many, fmt=".0f", vmin=0, vmax=100, cmap="cividis", ax=ax, cbar=task == "activity")
        ax.set(title=task, xlabel="named", ylabel="true")
        ax.tick_params(axis="x", rotation=90 if many else 30)
    return figure


def matrix_figure(matrix: pd.DataFrame) -> Figure:
    """Person accuracy by the activity that is known and the activity that is heard."""
    figure, ax = plt.subplots(figsize=(6.5, 4.6))
    shown = 100 * matrix.rename(index=plain, columns=plain)
    sns.heatmap(
        shown,
        annot=True,
        fmt=".0f",
        vmin=0,
        vmax=100,
        cmap="cividis",
        ax=ax,
        cbar_kws={"label": "persons named rightly (%)"},
    )
    ax.set(xlabel="heard during", ylabel="known from")
    ax.tick_params(axis="x", rotation=30)
    return figure


def balance_figure(runs: Mapping[str, Answers]) -> Figure:
    """Weights and losses of both tasks over training, one line a seed.

    Parameters
    ----------
    runs : mapping of str to Answers
        Answers by the balance that trained the networks.
    """
    figure, axes = plt.subplots(2, len(runs), figsize=(4.2 * len(runs), 5.4), sharex=True, sharey="row", squeeze=False)
    for column, (name, answers) in enumerate(runs.items()):
        for run in answers.runs:
            epochs = run.history["epoch"] + 1
            for number, task in enumerate(TASK_TITLES):
                axes[0, column].plot(epochs, run.history[f"weight_{task}"], color=PALETTE[number], alpha=0.7)
                axes[1, column].plot(epochs, run.history[f"train_{task}_loss"], color=PALETTE[number], alpha=0.7)
        axes[0, column].set_title(plain(name))
        axes[1, column].set(xlabel="epoch", yscale="log")
        axes[1, column].xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[1, column].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes[1, column].yaxis.set_major_formatter("{x:g}")
        axes[1, column].yaxis.set_minor_formatter(NullFormatter())
    axes[0, 0].set_ylabel("weight of the task")
    axes[1, 0].set_ylabel("its loss (unweighted)")
    for number, task in enumerate(TASK_TITLES):
        axes[0, 0].plot([], [], color=PALETTE[number], label=task)
    axes[0, 0].legend()
    return figure


def attention_figure(recordings: Recordings, answers: Answers, reading: Reading, seed: int) -> Figure:
    """Sequence attention around the R peak by activity over the mean beat, and the weights of the channels.

    Read from the first network, in test windows drawn at random.
    """
    model = answers.runs[0].model
    said = answers.windows[answers.windows["seed"] == answers.windows["seed"].iloc[0]]
    drawn = said.sample(min(ATTENTION_WINDOWS, len(said)), random_state=seed).sort_index()
    index = drawn.assign(n_samples=round(reading.seconds * recordings.fs))
    samples = recordings.window_set(index, reading).samples
    with torch.inference_mode():
        channel, sequence = (values.numpy() for values in model.attention_maps(torch.from_numpy(samples)))
    time = np.arange(*BEAT_S, 1 / recordings.fs)
    beats = beat_phases(recordings, index, samples[:, 0], sequence, time, model.samples_per_point)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11.5, 3.9), width_ratios=[3, 2])
    _draw_attention(left, beats, time)
    order = recordings.activities
    by_activity = pd.DataFrame(channel).groupby(drawn["activity"].to_numpy()).mean().reindex(order)
    by_activity = by_activity[by_activity.std().sort_values(ascending=False).index[:20]]
    sns.heatmap(
        by_activity.rename(index=plain), cmap="cividis", ax=right, xticklabels=False, cbar_kws={"label": "weight"}
    )
    right.set(title="the 20 channels that differ most", xlabel="channel", ylabel="")
    return figure


def beat_phases(
    recordings: Recordings,
    index: pd.DataFrame,
    lead: np.ndarray,
    sequence: np.ndarray,
    time: np.ndarray,
    samples_per_point: int,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mean beat and mean attention around the R peaks of windows, by activity.

    Parameters
    ----------
    recordings : Recordings
        The cohort, for its R peaks.
    index : pandas.DataFrame
        Windows: record_id, start, n_samples, activity.
    lead, sequence : numpy.ndarray
        Samples, shape (n, n_samples), and attention, shape (n, n_points), of each window.
    time : numpy.ndarray
        Seconds from the R peak to read at.
    samples_per_point : int
        Samples from one point of the attention to the next.

    Returns
    -------
    dict
        Activity -> mean beat and mean attention at `time`; attention is 1 where all points weigh the same.
    """
    peaks = {name: np.sort(rows["r_peak"].dropna()) for name, rows in recordings.store.beats.groupby(RECORD)}
    points = np.arange(sequence.shape[1]) * samples_per_point / recordings.fs
    gathered: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for row, window in enumerate(index.itertuples()):
        start, length = window.start / recordings.fs, window.n_samples / recordings.fs
        inside = peaks.get(window.record_id, np.empty(0)) - start
        inside = inside[(inside + time[0] >= 0) & (inside + time[-1] < length - 1 / recordings.fs)]
        if not len(inside):
            continue
        at = inside[:, None] + time
        beat = np.interp(at, np.arange(window.n_samples) / recordings.fs, lead[row]).mean(axis=0)
        share = np.interp(at, points, sequence[row] * sequence.shape[1]).mean(axis=0)
        gathered.setdefault(window.activity, []).append((beat, share))
    return {
        activity: (np.mean([beat for beat, _ in pairs], axis=0), np.mean([share for _, share in pairs], axis=0))
        for activity, pairs in gathered.items()
    }


def _draw_attention(ax: Axes, beats: Mapping[str, tuple[np.ndarray, np.ndarray]], time: np.ndarray) -> None:
    """Draw attention by activity, and the mean beat of all in grey behind it."""
    ax.set(title="attention over a beat", xlabel="time from R peak (ms)", ylabel="attention / even attention")
    if not beats:
        ax.text(0.5, 0.5, "no R peak is known in these windows", ha="center", transform=ax.transAxes)
        return
    behind = ax.twinx()
    behind.fill_between(1000 * time, np.mean([beat for beat, _ in beats.values()], axis=0), color="black", alpha=0.12)
    behind.set(yticks=[])
    behind.grid(False)
    for number, (activity, (_, share)) in enumerate(sorted(beats.items())):
        ax.plot(1000 * time, share, color=PALETTE[number], label=plain(activity))
    ax.axhline(1, color="black", linewidth=0.8, linestyle=":")
    ax.set_zorder(behind.get_zorder() + 1)
    ax.patch.set_visible(False)
    ax.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)


def session_figure(stream: Stream, persons: list[str], activities: list[str], reading: Reading) -> Figure:
    """One person's whole session as a stream: activity and person over time with the truth.

    Parameters
    ----------
    stream : Stream
        From :func:`ecgstudy.dual_task.streaming.read_sessions`.
    persons, activities : list of str
        Names of the classes.
    reading : Reading
        How windows were cut.
    """
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(11, 5), sharex=True, height_ratios=[3, 2])
    minutes = np.arange(len(stream.index)) * GRID_S / 60
    activity = forward_filter(stream.activity, SHOWN_SWITCHING, GRID_S / reading.seconds)
    truth = pd.Index(activities).get_indexer(stream.index["activity"])
    top.imshow(
        activity.T, aspect="auto", cmap="Blues", vmin=0, vmax=1, extent=(0, minutes[-1], len(activities) - 0.5, -0.5)
    )
    top.step(minutes, truth, color=PALETTE[1], where="post", label="true activity")
    top.set(yticks=range(len(activities)), yticklabels=[plain(name) for name in activities])
    top.set_title(f"{stream.index['subject_id'].iloc[0]}: probability of each activity (dark: sure)")
    top.grid(False)
    top.legend(loc="upper right")
    column = persons.index(stream.index["subject_id"].iloc[0])
    bottom.plot(minutes, stream.person[:, column], color=PALETTE[7], linewidth=0.8, label="each window alone")
    carried = forward_filter(stream.person, 1e-4, GRID_S / reading.seconds)[:, column]
    bottom.plot(minutes, carried, color=PALETTE[0], label="evidence carried on")
    bottom.set(xlabel="minutes of signal heard", ylabel="probability of\nthe true person", ylim=(-0.05, 1.05))
    bottom.legend(loc="lower right")
    return figure


def delay_figure(delays: pd.DataFrame, by_time: pd.DataFrame) -> Figure:
    """Delay against accuracy over how readily the stream changes its mind, and accuracy by seconds heard."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8))
    left.plot(delays["delay"], 100 * delays["accuracy"], "o-", color=PALETTE[0])
    for number, row in enumerate(delays.dropna(subset=["delay", "accuracy"]).itertuples()):
        # on alternate sides: neighbours may lie close together
        place = {"xytext": (7, 3), "ha": "left"} if number % 2 else {"xytext": (-7, 3), "ha": "right"}
        where = (row.delay, 100 * row.accuracy)
        left.annotate(row.switching, where, textcoords="offset points", fontsize="small", **place)
    left.set(
        title="activity: carried evidence",
        xlabel="median delay after a change (s)",
        ylabel="seconds decided rightly (%)",
    )
    left.margins(0.2)
    for number, (task, rows) in enumerate(by_time.groupby("task", sort=False)):
        right.plot(rows["seconds"], 100 * rows["accuracy"], color=PALETTE[number], label=task)
    right.set(title="one record, heard from its start", xlabel="seconds heard", ylabel="records named rightly (%)")
    if len(by_time):
        right.legend()
    return figure


def long_record_figure(long: LongRecords, activities: list[str], by_time: pd.DataFrame) -> Figure:
    """One half-hour record as a stream, and how fast everybody's late minutes are recognised."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), width_ratios=[2, 2, 1.3])
    stream, fs = long.whole, long.recordings.fs
    minutes = stream.index["start"] / fs / 60
    name = stream.index["subject_id"].iloc[0]
    column = long.recordings.persons.index(name)
    enrolled = long.split.enrolment
    for row in enrolled[enrolled[RECORD] == stream.index[RECORD].iloc[0]].itertuples():
        axes[0].axvspan(row.start / fs / 60, row.stop / fs / 60, color="black", alpha=0.1, linewidth=0)
    axes[0].plot(minutes, stream.person[:, column], color=PALETTE[0], linewidth=0.6)
    axes[0].set(title=f"record {name}: the true person", xlabel="minutes (grey: enrolled)", ylabel="probability")
    axes[0].set_ylim(-0.05, 1.05)
    best = pd.Index(activities)[long.activity.argmax(axis=1)]
    share = 100 * best.value_counts(normalize=True).reindex(activities).fillna(0)
    axes[1].barh([plain(activity) for activity in activities], share, color=PALETTE[1])
    axes[1].invert_yaxis()
    axes[1].set(title="what the activity head says of it", xlabel="share of windows (%)")
    axes[2].plot(by_time["seconds"], 100 * by_time["accuracy"], color=PALETTE[0])
    axes[2].set(title="minutes 25 to 30", xlabel="seconds heard", ylabel="records named rightly (%)")
    return figure
