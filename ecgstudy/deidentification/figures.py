"""Figures of notebook 05: each function bears the name of its file."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ecgstudy.deidentification.attacks import ADAPTIVE, LAZY, REFERENCE, TIERS
from ecgstudy.deidentification.plan import FRONT
from ecgstudy.deidentification.release import RAW
from ecgstudy.deidentification.results import BEST, RELATIONS, STRONGEST
from ecgstudy.deidentification.tables import NEEDY
from ecgstudy.study.plots import PALETTE, ecg_paper, paper_size

STRIP_S, STRIP_MV = 5.0, 3.0
NAMED = (RAW, BEST, "noise.1", "k_same.5", "microaggregation.5", "pp_vae.10", "pp_vae_two_diagnoses.10")
"""Releases that bear their name in a crowd: the judged one and one of each kind."""
_SPOKEN = {"heart_rate": "heart rate (1/min)", "pr": "PR (ms)", "qrs": "QRS (ms)", "qtc": "QTc (ms)"}


def strips_figure(strips: Mapping[str, np.ndarray], fs: float) -> Figure:
    """One lead of one record under several protections, samples of shape (n,) by name, on ECG paper below each other.

    They are scaled together so that the tallest fills its strip: not every cohort states its unit.
    """
    shown = {name: values[: round(STRIP_S * fs)] for name, values in strips.items()}
    tallest = max(np.abs(values - np.median(values)).max() for values in shown.values())
    width, height = paper_size(STRIP_S, STRIP_MV)
    figure, axes = plt.subplots(len(shown), figsize=(width, height * len(shown)), squeeze=False)
    for ax, (name, values) in zip(axes[:, 0], shown.items(), strict=True):
        scaled = (values - np.median(values)) / max(tallest, 1e-9) * 0.9 * STRIP_MV / 2
        ax.plot(np.arange(len(scaled)) / fs, scaled, color="black", linewidth=0.9)
        ecg_paper(ax, (0, STRIP_S), (-STRIP_MV / 2, STRIP_MV / 2))
        ax.set_ylabel("amplitude (scaled)")
        ax.set_title(name.replace("_", " "), loc="left")
    return figure


def front_figure(rows: pd.DataFrame, protocols: Sequence[str]) -> Figure:
    """Privacy against utility: a dot a release, with intervals, the floors, and the front that no release is beyond.

    Utility is the diagnosis read by classifiers of raw records; privacy the strongest valid attacker who knows of the
    protection. Protections that are told a record's own diagnoses are left out; hollow dots were attacked by one seed.
    """
    rows = rows[~rows["view"].isin(NEEDY)]
    utility = _of(rows, task="superclass", tier=LAZY, metric="auroc")
    utility = pd.concat([utility, _of(rows, task="superclass", view=RAW, metric="auroc")]).set_index("view")
    panels = {}
    for label, task, short in (("sex", "sex", "sex"), ("age of 60 or more", "over_60", "age")):
        floor = _floor(rows, f"floor.told.{short}.auroc")
        panels[f"{label} (AUROC)"] = _adaptive(rows, attacker=STRONGEST, task=task, metric="auroc"), floor, -1
    for protocol in protocols:
        found = _adaptive(rows, attacker=STRONGEST, protocol=protocol, metric="eer")
        floor = _of(rows, view=RAW, attacker="rhythm", protocol=protocol, metric="eer")["value"]
        panels[f"person, {protocol.replace('_', ' ')} (EER)"] = found, float(floor.iloc[0]) if len(floor) else np.nan, 1
    n_rows = -(-len(panels) // 2)
    figure, axes = plt.subplots(n_rows, 2, figsize=(12, 4.8 * n_rows), squeeze=False)
    for ax in axes.ravel()[len(panels) :]:
        ax.set_axis_off()
    for ax, (label, (found, floor, better)) in zip(axes.ravel(), panels.items(), strict=False):
        _draw_front(ax, utility, found.drop_duplicates("view").set_index("view"), better)
        ax.axhline(floor, color="0.4", linestyle="--", linewidth=1, label="floor: known without any waveform")
        ax.set(xlabel="diagnosis, trained on raw (mean AUROC)", ylabel=label)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), fontsize="small", loc="outside lower center")
    return figure


def _draw_front(ax: Axes, utility: pd.DataFrame, privacy: pd.DataFrame, better: int) -> None:
    """Dots with both intervals, the front, where no other release is better in both, and the names of :data:`NAMED`."""
    both = privacy.join(utility[["value", "low", "high"]], rsuffix="_utility", how="inner").dropna(subset="value")
    places = {"value_utility": "x", "low_utility": "x_low", "high_utility": "x_high"}
    places |= {"value": "y", "low": "y_low", "high": "y_high"}
    both = both[[*places]].rename(columns=places).astype(float)
    if both.empty:
        ax.text(0.5, 0.5, "no valid attack", transform=ax.transAxes, ha="center", va="center")
        ax.set(xticks=[])
    beyond = [((both["x"] > row.x) & (better * both["y"] > better * row.y)).any() for row in both.itertuples()]
    front = both[~np.array(beyond, dtype=bool)].sort_values("x")
    for view, row in both.iterrows():
        is_named = view in NAMED
        colour = PALETTE[3] if view == BEST else PALETTE[7] if view == RAW else PALETTE[0] if is_named else "0.7"
        ends = {axis: row[[f"{axis}_low", f"{axis}_high"]].to_numpy()[:, None] for axis in "xy"}
        bars = {f"{axis}err": np.abs(both_ends - row[axis]) for axis, both_ends in ends.items()}
        fill = {} if view in FRONT else {"markerfacecolor": "white"}
        ax.errorbar(row["x"], row["y"], **bars, fmt="o", color=colour, linewidth=0.8, zorder=2 + is_named, **fill)
        if is_named:
            # names on the front stand on its better side, where no dot is
            right = 6 if row["x"] < both["x"].mean() else -6
            up = 7 * better if view in front.index else -7 * better
            where = {"xytext": (right, up), "textcoords": "offset points", "fontsize": 8}
            style = {"ha": "left" if right > 0 else "right", "va": "center"}
            ax.annotate(str(view).replace("_", " "), (row["x"], row["y"]), **where, **style)
    ax.plot(front["x"], front["y"], color="0.2", linewidth=0.8, alpha=0.6)


def tiers_figure(rows: pd.DataFrame, protocol: str) -> Figure:
    """How much privacy a frozen attacker pretends to see: EER of the strongest valid attacker of each tier.

    Of several cohorts the first that was asked is shown.
    """
    tiers = [tier for tier in TIERS if tier != REFERENCE]
    found = _of(rows, attacker=STRONGEST, protocol=protocol, metric="eer").drop_duplicates(["view", "tier"])
    views = list(found.loc[found["view"] != RAW, "view"].unique())
    figure, ax = plt.subplots(figsize=(8, 0.42 * len(views) + 1.6))
    for number, tier in enumerate(tiers):
        part = found[found["tier"] == tier].set_index("view").reindex(views)
        values, low, high = (part[column].astype(float) for column in ("value", "low", "high"))
        places = np.arange(len(views)) + 0.18 * (number - 1.5)
        bars = [(values - low).clip(lower=0), (high - values).clip(lower=0)]  # an interval may leave its value out
        ax.errorbar(values, places, xerr=bars, fmt="o", label=tier.replace("_", " "), linewidth=0.9)
    raw = found.loc[found["view"] == RAW, "value"].astype(float)
    if len(raw):
        ax.axvline(raw.iloc[0], color="0.3", linestyle=":", linewidth=1, label="raw records")
    ax.axvline(0.5, color="0.6", linewidth=1, label="chance")
    ax.set(
        yticks=np.arange(len(views)), xlabel=f"EER, {protocol.replace('_', ' ')} (share of trials)", xlim=(-0.01, 0.62)
    )
    ax.set_yticklabels([view.replace("_", " ") for view in views])
    ax.invert_yaxis()
    figure.legend(fontsize="small", loc="outside lower center", ncols=3)
    return figure


def bland_altman_figure(raw: pd.DataFrame, released: pd.DataFrame) -> Figure:
    """Differences of intervals, released minus raw, against their mean; bias and limits of agreement as lines."""
    figure, axes = plt.subplots(1, len(RELATIONS), figsize=(4 * len(RELATIONS), 3.6))
    for ax, interval in zip(axes, RELATIONS, strict=True):
        both = pd.DataFrame({"raw": raw[interval], "released": released[interval]}).dropna()
        difference = both["released"] - both["raw"]
        ax.scatter(both.mean(axis=1), difference, s=6, alpha=0.4, color=PALETTE[0], edgecolors="none")
        for offset, style in ((0.0, "-"), (-1.96, "--"), (1.96, "--")):
            ax.axhline(difference.mean() + offset * difference.std(), color=PALETTE[3], linestyle=style, linewidth=1)
        ax.set(xlabel=f"mean of both, {_SPOKEN[interval]}", ylabel="released minus raw")
    return figure


def _of(rows: pd.DataFrame, **wanted: str) -> pd.DataFrame:
    """Rows whose columns hold these values."""
    for column, value in wanted.items():
        rows = rows[rows[column] == value]
    return rows


def _adaptive(rows: pd.DataFrame, **wanted: str) -> pd.DataFrame:
    """Rows of the adaptive tier, and of raw records."""
    return pd.concat([_of(rows, tier=ADAPTIVE, **wanted), _of(rows, view=RAW, tier=REFERENCE, **wanted)])


def _floor(rows: pd.DataFrame, name: str) -> float:
    """Value of a floor; NaN where it was not measured."""
    found = rows.loc[rows["name"] == name, "value"]
    return float(found.iloc[0]) if len(found) else np.nan
