"""The one long table of results: every number of a stage in a row, with its interval, n, unit and what it is of."""

import math
from collections.abc import Callable, Iterable, Mapping

import pandas as pd

from ecgstudy.evaluate.bootstrap import Estimate

COLUMNS = ("cohort", "protocol", "attacker", "view", "task", "metric", "value", "low", "high", "n", "unit", "note")


def result(
    metric: str,
    value: float,
    unit: str = "",
    low: float = math.nan,
    high: float = math.nan,
    n: int | None = None,
    note: str = "",
    **about: str,
) -> dict[str, object]:
    """One row; `about` names cohort, protocol, attacker, view and task as far as they apply.

    `note` says why a value is undefined (NaN), or what holds for its interval.
    """
    numbers = {"value": value, "low": low, "high": high, "n": n, "unit": unit, "note": note}
    return {**dict.fromkeys(COLUMNS, ""), **about, "metric": metric, **numbers}


def estimate_results(
    estimates: Mapping[str, Estimate], unit: Callable[[str], str], **about: str
) -> list[dict[str, object]]:
    """One row an estimate, with the reason where it or its interval is undefined; `unit` gives a metric's unit."""
    return [
        result(name, found.value, unit(name), found.low, found.high, found.n, estimate_note(found), **about)
        for name, found in estimates.items()
    ]


def estimate_note(found: Estimate) -> str:
    """Say why an estimate or its interval is undefined; "" where neither is."""
    if math.isnan(found.value):
        return f"Not defined: {found.reason}."
    if found.reason:
        return f"No interval: {found.reason}."
    if found.undefined:
        return f"Undefined in {found.undefined} resamples, which the interval leaves out."
    return ""


def results_table(rows: Iterable[Mapping[str, object]]) -> pd.DataFrame:
    """Table of rows from :func:`result`, columns :data:`COLUMNS`; numbers keep their types."""
    return pd.DataFrame(list(rows), columns=list(COLUMNS), dtype=object)


def interval(name: str, estimate: Estimate | None) -> dict[str, float]:
    """Value and interval under names that a shown table puts in one column; NaN without an estimate."""
    values = (estimate.value, estimate.low, estimate.high) if estimate else (math.nan,) * 3
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))
