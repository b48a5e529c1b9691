"""Figures of the ingestion stage."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ecgstudy.data.own import OWN_PREFIX
from ecgstudy.signals.delineation import WAVES
from ecgstudy.signals.features import average_beat
from ecgstudy.signals.preprocess import resample
from ecgstudy.signals.store import RecordStore
from ecgstudy.study.plots import PALETTE, PULSE_S, WAVE_COLOURS, calibration_pulse, ecg_paper, paper_size

FEWEST_OWN_PERSONS = 10
FEWEST_BEATS = 3
BEAT_S = (0.3, 0.5)
"""Seconds of an average beat before and after its R peak."""
EXAMPLE_SECONDS = 3.0
EXAMPLE_HEIGHT_MV = 2.5
DRAWN_FS = 500.0
"""Hz. At a store's rate an R wave is a triangle; its band ends below half that rate, so the curve between is known."""
BEATS_A_ROW = 3
LOWEST = -3.0
"""Lowest amplitude drawn, in R peaks: where that is small, the band of few records would flatten all else."""
ENLARGED = 1.6
"""Screens show a true-sized strip too small; the grid keeps the scale."""
SEX_COLOURS = {"women": PALETTE[0], "men": PALETTE[1], "not stated": PALETTE[7]}
_SPANS = {wave: (onset, offset) for wave, (onset, _, offset) in WAVES.items()}


def traces_figure(stores: Mapping[str, RecordStore], own: bool) -> Figure:
    """Draw one filtered example a cohort with its automatically marked waves.

    Records in mV stand on ECG paper at 25 mm/s and 10 mm/mV; others keep their own unit on a plain grid.
    A reader's `own` records are drawn where that is asked for, because a trace identifies its owner.
    """
    width, height = paper_size(EXAMPLE_SECONDS, EXAMPLE_HEIGHT_MV)
    columns = min(2, len(stores))
    rows = -(-len(stores) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(ENLARGED * columns * width, ENLARGED * rows * height), squeeze=False
    )
    for ax, (name, store) in zip(axes.flat, stores.items(), strict=False):
        if name.startswith(OWN_PREFIX) and not own:
            ax.set_title(name)
            _say(ax, "your own records:\nnot drawn, because a trace\nidentifies its owner")
        else:
            _draw_example(ax, name, store)
    for ax in axes.flat[len(stores) :]:
        ax.set_visible(False)
    _legend(figure, WAVE_COLOURS, alpha=0.35, title="waves as marked by the delineation")
    return figure


def _say(ax: Axes, sentence: str) -> None:
    """Fill a panel with a sentence instead of a plot."""
    ax.text(0.5, 0.5, sentence, ha="center", va="center", transform=ax.transAxes)
    ax.set(xticks=[], yticks=[])


def _legend(figure: Figure, colours: Mapping[str, str], alpha: float | None = None, title: str | None = None) -> None:
    """Name the colours above the panels."""
    handles = [Patch(color=colour, alpha=alpha, label=label) for label, colour in colours.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), title=title)


def _draw_example(ax: Axes, name: str, store: RecordStore) -> None:
    """Draw a few seconds of the cohort's first record that has all its waves marked."""
    complete = store.beats.dropna(subset=[point for span in _SPANS.values() for point in span])
    record_id = (complete if len(complete) else store.records)["record_id"].iloc[0]
    record = store.records.set_index("record_id").loc[record_id]
    first = complete.loc[complete["record_id"] == record_id, "p_onset"].min() - 0.2 if len(complete) else 0.0
    lead = store.signal(record_id)[record["leads"].index(record["reference_lead"])]
    start = max(0, int(first * store.fs))
    stop = start + int(EXAMPLE_SECONDS * store.fs)
    values = resample(lead[start:stop], store.fs, DRAWN_FS)
    if record["unit"] == "mV":
        low = np.round((values.max() + values.min()) / 2, 1) - EXAMPLE_HEIGHT_MV / 2
        ecg_paper(ax, (-PULSE_S, EXAMPLE_SECONDS), (low, low + EXAMPLE_HEIGHT_MV))
        calibration_pulse(ax, np.median(values))
    else:
        ax.set(xlim=(0, EXAMPLE_SECONDS), xlabel="time (s)", ylabel=f"amplitude ({record['unit']})")
    ax.plot(np.arange(len(values)) / DRAWN_FS, values, color="black", linewidth=1)
    beats = store.beats.set_index("record_id").loc[[record_id]]
    for wave, span in _SPANS.items():
        for onset, offset in beats[list(span)].to_numpy():
            if onset >= start / store.fs and offset <= stop / store.fs:
                inside = (onset - start / store.fs, offset - start / store.fs)
                ax.axvspan(*inside, color=WAVE_COLOURS[wave], alpha=0.35, linewidth=0)
    ax.set_title(f"{name}, lead {record['reference_lead']}")


def people_figure(stores: Mapping[str, RecordStore]) -> Figure:
    """Age of the persons by sex, one panel a cohort; cohorts that state no age are named as such."""
    figure, axes = plt.subplots(1, len(stores), figsize=(2.6 * len(stores) + 1, 3), squeeze=False)
    bins = {"binwidth": 10, "binrange": (0, 130), "multiple": "stack"}
    for ax, (name, store) in zip(axes[0], stores.items(), strict=True):
        people = store.records.drop_duplicates("subject_id")
        known = people.dropna(subset="age")
        ax.set_title(f"{name} (n = {len(people)})")
        if known.empty:
            _say(ax, "age not stated")
        else:
            sex = known["sex"].map({"F": "women", "M": "men"}).fillna("not stated")
            colours = {"hue": sex, "hue_order": list(SEX_COLOURS), "palette": SEX_COLOURS}
            sns.histplot(x=known["age"], legend=False, ax=ax, **colours, **bins)
            ax.set_xlim(0, max(100, known["age"].max() + 5))
        ax.set(xlabel="age (years)", ylabel="persons")
    _legend(figure, SEX_COLOURS)
    return figure


def beats_figure(stores: Mapping[str, RecordStore]) -> Figure:
    """Median beats of each cohort: the middle person and the middle 80 % of records, R peak scaled to 1.

    A reader's own records have a panel from ten persons on: the middle of a few is a trace of one of them.
    """
    stores = {
        name: store
        for name, store in stores.items()
        if not name.startswith(OWN_PREFIX) or store.records["subject_id"].nunique() >= FEWEST_OWN_PERSONS
    }
    columns = max(1, min(BEATS_A_ROW, len(stores)))
    rows = max(1, -(-len(stores) // columns))
    figure, axes = plt.subplots(rows, columns, figsize=(3.4 * columns + 0.6, 3 * rows), squeeze=False)
    for ax, (name, store) in zip(axes.flat, stores.items(), strict=False):
        beats = average_beats(store)
        colour = PALETTE[1] if name == "synthetic" else PALETTE[0]
        low, middle, high = resample(beats.quantile([0.1, 0.5, 0.9]).to_numpy(), store.fs, DRAWN_FS)
        milliseconds = 1000 * (beats.columns[0] + np.arange(len(middle)) / DRAWN_FS)
        ax.fill_between(milliseconds, low, high, color=colour, alpha=0.25, linewidth=0)
        ax.plot(milliseconds, middle, color=colour)
        leads = ", ".join(store.records["reference_lead"].value_counts().index[:2])
        ax.set(title=f"{name}\nlead {leads}, n = {len(beats)}", xlabel="time from R peak (ms)")
        ax.set_ylim(bottom=max(ax.get_ylim()[0], LOWEST))
    for ax in axes[:, 0]:
        ax.set_ylabel("amplitude / R amplitude")
    for ax in axes.flat[len(stores) :]:
        ax.set_visible(False)
    return figure


def average_beats(store: RecordStore) -> pd.DataFrame:
    """Average beat of each record's reference lead with three beats or more; columns are seconds from the R peak.

    Scaled to an R peak of 1, so that any units compare.
    """
    before, after = (round(seconds * store.fs) for seconds in BEAT_S)
    records = store.records.set_index("record_id")
    rows = {}
    for record_id, peaks in store.beats.groupby("record_id", sort=False)["r_peak"]:
        if len(peaks) >= FEWEST_BEATS:
            leads, reference = records.loc[record_id, ["leads", "reference_lead"]]
            samples = np.rint(peaks * store.fs).astype(int).to_numpy()
            beat = average_beat(store.signal(record_id)[[leads.index(reference)]], samples, before, after)[0]
            beat = beat - np.median(beat)
            rows[record_id] = beat / np.abs(beat[before])
    return pd.DataFrame.from_dict(rows, orient="index", columns=np.arange(-before, after) / store.fs)


def delineation_figure(summary: pd.DataFrame, by_lead: pd.DataFrame) -> Figure:
    """Sensitivity by lead as a heat map, and the signed error of each boundary with its spread.

    Both are of :func:`ecgstudy.ingestion.tables.delineation_table`, over all leads and lead by lead.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), width_ratios=[3, 2])
    named = by_lead.assign(point=by_lead["wave"] + " " + by_lead["boundary"], percent=100 * by_lead["sensitivity"])
    grid = named.pivot_table("percent", "point", "lead").loc[named["point"].unique(), named["lead"].unique()]
    bar = {"label": "found (%)"}
    sns.heatmap(grid, annot=True, fmt=".0f", vmin=50, vmax=100, cmap="cividis", ax=left, cbar_kws=bar)
    left.set(title="reference boundaries found within 150 ms", xlabel="lead", ylabel="")
    points = summary["wave"] + " " + summary["boundary"]
    colours = [WAVE_COLOURS[wave] for wave in summary["wave"]]
    right.axvline(0, color="black", linewidth=0.8)
    low, high = (summary["error_ms_mean"] + sign * summary["error_ms_sd"] for sign in (-1, 1))
    right.hlines(points, low, high, colors=colours, linewidth=2)
    right.scatter(summary["error_ms_mean"], points, color=colours, zorder=3)
    right.invert_yaxis()
    right.set(title="error: mean and SD over beats", xlabel="automatic minus reference (ms)")
    return figure
