"""Numbers in words: as the front page, the notebooks and the tables for readers write them."""

from ecgstudy.evaluate.bootstrap import most_failures

EXACT = ("rank1", "accuracy", "always_first", "sensitivity", "specificity")
"""Shares of persons: where all or none succeed, resampling gives an interval without width, the exact one has one."""


def exact(name: str, metric: dict) -> dict:
    """Give a metric the exact bounds (Clopper and Pearson, by person) where all or none of its persons succeed."""
    counted = name.rpartition(".")[2].removesuffix("_per_person").endswith(EXACT)
    if not counted or metric["value"] not in (0, 1) or not metric["n"]:
        return metric
    most = most_failures(metric["n"], 0.975)
    return metric | ({"low": 1 - most, "high": 1.0} if metric["value"] else {"low": 0.0, "high": most})


def estimate_text(metric: dict, interval: str = "95 % interval ") -> str:
    """Put one metric into words: value, unit (shares in per cent) and 95 % interval, or why it is undefined.

    `interval` is said before the bounds; "" where a reader knows what stands there.
    """
    if metric["value"] is None:
        return metric["note"]
    text = f"{number_text(_factor(metric) * metric['value'])} {'%' if metric['unit'] == 'share' else metric['unit']}"
    bounds = interval_text(metric)
    return f"{text.strip()} ({interval}{bounds})" if bounds else text.strip()


def interval_text(metric: dict) -> str:
    """Put the bounds of a metric's interval into words, "" where it has none."""
    if metric["value"] is None or metric["low"] is None or metric["high"] is None:
        return ""
    return " to ".join(number_text(_factor(metric) * metric[end]) for end in ("low", "high"))


def _factor(metric: dict) -> int:
    """Shares are written in per cent."""
    return 100 if metric["unit"] == "share" else 1


def number_text(value: float) -> str:
    """Write a number for readers: whole numbers with thousands, others to three significant digits."""
    if float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
