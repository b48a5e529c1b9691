"""Numbers in words, the same way everywhere: in the report, in the notebooks and in their tables.

Shares are per cent with one decimal, numbers without a unit (AUROC and the like) have three, counts none; an interval
stands in brackets behind its number, with the same decimals.
"""

import re

import numpy as np
import pandas as pd

from ecgstudy.evaluate.bootstrap import most_failures

EXACT = ("rank1", "accuracy", "always_first", "sensitivity", "specificity")
"""Shares of persons: where all or none succeed, resampling gives an interval without width, the exact one has one."""
_SHARE = re.compile(
    r"(rank.?1|eer|tar_at|dir_at|sensitivity|specificity|ppv|share|risk_|always_|never_|shuffled|one in N|mass_in_cue|"
    r"margin_over_|minus_|attention|reach|untrained network|missed|within_|published|(time|rate|mean|cohort \d)$)|"
    r".*(accuracy|(_share|right| tail)$)"
)
"""Columns that hold shares."""
_SHARES = re.compile(r"(Rank-1|EER|Accuracy|Share) of")
"""Captions of tables whose numbers up to 1 are shares, whatever the columns' names."""
_AUROC = re.compile(r"(.*\.)?([^.]*auroc[^.]*|spread|gain_over_[^.]*|random_minus_mean)")
"""Metrics that are an AUROC or a difference of two, which are no per cent."""
_POINTS = re.compile(r".*(_gain|_cost|_minus_[^.]*|margin_over_control)|.*\.minus_control\..*")
"""Metrics that are a difference of two shares."""


def exact(name: str, metric: dict) -> dict:
    """Give a metric the exact bounds (Clopper and Pearson, by person) where all or none of its persons succeed."""
    counted = name.rpartition(".")[2].removesuffix("_per_person").endswith(EXACT)
    if not counted or metric["value"] not in (0, 1) or not metric["n"]:
        return metric
    most = most_failures(metric["n"], 0.975)
    return metric | ({"low": 1 - most, "high": 1.0} if metric["value"] else {"low": 0.0, "high": most})


def as_shown(name: str, metric: dict) -> dict:
    """Give a metric the unit that readers see, and exact bounds as in :func:`exact`.

    AUROC and its differences have no unit; differences of shares are points.
    """
    unit = metric["unit"]
    if _AUROC.fullmatch(name):
        unit = ""
    elif unit == "share" and _POINTS.fullmatch(name):
        unit = "points"
    return exact(name, metric | {"unit": unit})


def observations_text(name: str, metric: dict) -> str:
    """Put into words on how many observations a metric rests, and of what; "" where that is not known."""
    if metric["n"] is None:
        return ""
    counted = metric["unit"] if isinstance(metric["value"], int) and metric["unit"] else "persons"
    return f"{metric['n']:,} {'points' if '.delineation.' in name else counted}"


def commit_text(commit: str) -> str:
    """Shorten a commit; that the tree was changed ("-dirty") stays."""
    name, changed, _ = commit.partition("-dirty")
    return name[:10] + changed


def estimate_text(metric: dict, interval: str = "95 % interval ") -> str:
    """Put one metric into words: value, unit (shares in per cent) and 95 % interval, or why it is undefined.

    `interval` is said before the bounds; "" where a reader knows what stands there.
    """
    if metric["value"] is None:
        return metric["note"]
    unit = "%" if metric["unit"] == "share" else metric["unit"]
    text = f"{number_text(metric['value'], metric['unit'])} {unit}".strip()
    bounds = interval_text(metric)
    return f"{text} ({interval}{bounds})" if bounds else text


def interval_text(metric: dict) -> str:
    """Put the bounds of a metric's interval into words, "" where it has none."""
    if metric["value"] is None or metric["low"] is None or metric["high"] is None:
        return ""
    return " to ".join(number_text(metric[end], metric["unit"]) for end in ("low", "high"))


def number_text(value: float, unit: str) -> str:
    """Write a number for readers: shares in per cent (no "-0.0"), counts with thousands, others to three digits."""
    if unit in ("share", "points"):
        return f"{round(100 * value, 1) + 0.0:.1f}"
    if isinstance(value, int) or (unit and value.is_integer()):
        return f"{value:,.0f}"
    if not unit:
        return f"{round(value, 3) + 0.0:.3f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def table_html(frame: pd.DataFrame, caption: str) -> str:
    """Render an accessible table: caption above, undefined cells as "-", the numbers of a column alike."""
    style = shown_table(frame, caption).style.hide(axis="index").set_caption(caption).set_uuid("t")
    style = style.format(na_rep="-", thousands=",", escape="html")
    style = style.set_table_styles([{"selector": "caption", "props": "text-align: left; font-style: italic"}])
    return style.to_html()


def shown_table(frame: pd.DataFrame, caption: str = "") -> pd.DataFrame:
    """Copy of a table for readers: ``x``, ``x_low`` and ``x_high`` as one column of text, spaces for underscores."""
    shown = frame.astype(object)
    for name in frame:
        bounds = [f"{name}_low", f"{name}_high"]
        bounds = bounds if set(bounds) <= set(frame) else []
        if name in shown and (bounds or any(isinstance(cell, float) for cell in frame[name])):
            shown[name] = _column_text(frame[[name, *bounds]], caption)
            shown = shown.drop(columns=bounds)
    return shown.rename(columns=lambda column: str(column).replace("_", " "))


def _column_text(columns: pd.DataFrame, caption: str) -> pd.Series:
    """Write a column (a number, and the bounds of its interval if there are any) with the same decimals; words stay."""
    name = str(columns.columns[0])
    numbers = columns.apply(pd.to_numeric, errors="coerce").astype(float)
    found = numbers.to_numpy()[np.isfinite(numbers)]
    share = (
        np.abs(found).max(initial=0) <= 1
        and "AUROC" not in caption
        and bool(_SHARE.match(name) or _SHARES.match(caption))
    )
    # else as many decimals as tell the numbers of a column apart, by the middle one; none of counts
    decimals = 3 - sum(np.median(np.abs(found)) > np.array([1, 3, 99])) if (found % 1).any() else 0
    scale, sign, decimals = (100, " %", 1) if share else (1, "", decimals)
    said = (scale * numbers).map(f"{{:,.{decimals}f}}".format).astype(str)  # a table without rows stays one of numbers
    text = said.iloc[:, 0] + sign
    if said.shape[1] > 1:
        text = text.where(numbers.isna().any(axis=1), text + " (" + said.iloc[:, 1] + " to " + said.iloc[:, 2] + ")")
    words = columns.iloc[:, 0].map(lambda cell: cell if isinstance(cell, str) and cell else "-")
    return text.where(numbers.iloc[:, 0].notna(), words)
