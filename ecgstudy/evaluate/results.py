"""The one long table of results: every number of a stage in a row, with its interval, n, unit and what it is of."""

import math
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from ecgstudy.evaluate.bootstrap import FEW, Estimate

COLUMNS = ("cohort", "protocol", "attacker", "view", "task", "metric", "value", "low", "high", "n", "unit", "note")
UNITS = {"zebra_bits": "bits", "zebra_worst": "log10 LR", "cllr": "bits", "d_sys": "", "mae": "years"}
UNITS |= {"persons": "persons", "enrolled": "persons", "probes": "probes", "unscored": "probes"}
"""Units of metrics by how their names begin; all others are shares."""
VALUE = {"value": ""}
INTERVAL = VALUE | {"low": "_low", "high": "_high"}
"""What :func:`pivot` shows of a row, and how the names of the columns end; a page shows the three as one column."""


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


def unit_of(metric: str) -> str:
    """Return the unit of a metric, from :data:`UNITS`."""
    return next((unit for stem, unit in UNITS.items() if metric.startswith(stem)), "share")


def estimate_results(estimates: Mapping[str, Estimate], **about: str) -> list[dict[str, object]]:
    """One row an estimate, with the reason where it or its interval is undefined."""
    return [
        result(name, found.value, unit_of(name), found.low, found.high, found.n, estimate_note(found), **about)
        for name, found in estimates.items()
    ]


def estimate_note(found: Estimate) -> str:
    """Say why an estimate or its interval is undefined, or what its interval is; "" where there is nothing to say."""
    if math.isnan(found.value):
        return f"Not defined: {found.reason}."
    if found.reason:
        return f"No interval: {found.reason}."
    if found.exact:
        return f"Exact bounds by person (Clopper-Pearson): worth fewer than {FEW} persons who fail, or succeed."
    if found.undefined:
        return f"Undefined in {found.undefined} resamples, which the interval leaves out."
    return ""


def results_table(rows: Iterable[Mapping[str, object]]) -> pd.DataFrame:
    """Table of rows from :func:`result`: :data:`COLUMNS`, then what else rows have; numbers keep their types."""
    table = pd.DataFrame(list(rows), dtype=object)
    return table.reindex(columns=list(dict.fromkeys([*COLUMNS, *table])))


def interval(name: str, estimate: Estimate | None) -> dict[str, float]:
    """Value and interval under names that a shown table puts in one column; NaN without an estimate."""
    values = (estimate.value, estimate.low, estimate.high) if estimate else (math.nan,) * 3
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))


def intervals(estimates: Mapping[str, Estimate | None]) -> dict[str, float]:
    """Columns of several estimates, see :func:`interval`."""
    return {column: value for name, found in estimates.items() for column, value in interval(name, found).items()}


def pivot(
    rows: pd.DataFrame,
    keys: Sequence[str],
    across: str = "metric",
    shown: Mapping[str, str] | Sequence[str] | None = None,
    ends: Mapping[str, str] = VALUE,
) -> pd.DataFrame:
    """Turn rows of results into a table to show: one row a cell, its metrics (or attackers, tasks, ...) side by side.

    Parameters
    ----------
    rows : pandas.DataFrame
        Long table: the columns of :data:`COLUMNS`, and any others.
    keys : sequence of str
        Columns that say what a row of the table is of, in the order of their first appearance; they come first.
    across : str
        Column whose values stand side by side: "metric", "attacker", "task", ...
    shown : sequence or mapping of str to str, optional
        Which values of `across` are shown, in this order, and what their columns are called where it is not the same;
        all as they come, unless told.
    ends : mapping
        Columns of `rows` that are shown of each, and how their names end: :data:`VALUE` or :data:`INTERVAL`.

    Returns
    -------
    pandas.DataFrame
        Columns `keys`, then those of `shown` with their `ends`; NaN where there is no row, the last of several rows.
    """
    if not isinstance(shown, Mapping):
        shown = {name: name for name in (rows[across] if shown is None else shown)}
    cells: dict[tuple[object, ...], dict[str, object]] = {}
    for row in rows.to_dict("records"):
        key = tuple(row[column] for column in keys)
        cell = cells.setdefault(key, dict(zip(keys, key, strict=True)))
        if name := shown.get(row[across]):
            cell |= {name + end: row[column] for column, end in ends.items()}
    side_by_side = [name + end for name in shown.values() for end in ends.values()]
    return pd.DataFrame(cells.values(), columns=[*keys, *side_by_side])
