"""What a protocol asks, in words: how long after enrolment a person is sought, and by how many seconds of ECG."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ecgstudy.evaluate.results import result, results_table
from ecgstudy.evaluate.splits import RECORD, SUBJECT, Split
from ecgstudy.experiment.jobs import Context, Job

SECONDS = {"enrolment_seconds": "enrolment s", "probe_seconds": "probe s"}
"""Metrics, and what tables call them."""
SAME_RECORDING = "same recording"


def span_table(context: Context, trialled: Sequence[Job]) -> pd.DataFrame:
    """One row a cohort and protocol: the gap between enrolment and probe in words, and how long both are.

    Columns cohort, protocol, gap, enrolment s (all that enrols a person, median), probe s (median), NaN without a
    probe, and probes, their number.
    """
    rows = []
    for job in trialled:
        splits, days = context.splits(job), context.records(job.cohort).set_index(RECORD)["session_day"]
        row = {"cohort": job.cohort, "protocol": job.protocol.name, "gap": gap_words(splits, days)}
        for name, part, whole in (("enrolment s", "enrolment", SUBJECT), ("probe s", "probe", [RECORD, "start"])):
            parts = [getattr(split, part).assign(fold=fold) for fold, split in enumerate(splits)]
            spans = pd.concat(parts).assign(samples=lambda rows: rows["stop"] - rows["start"])
            row[name] = spans.groupby(["fold", *np.atleast_1d(whole)])["samples"].sum().median() / context.dataset.fs
        rows.append(row | {"probes": sum(len(split.probe) for split in splits)})
    return pd.DataFrame(rows, columns=["cohort", "protocol", "gap", *SECONDS.values(), "probes"])


def gap_words(splits: Sequence[Split], days: pd.Series) -> str:
    """Say how long after enrolment the probes of a protocol were recorded, by the day of each record."""
    if splits[0].within_record:
        return SAME_RECORDING
    apart = np.concatenate([days_apart(split.enrolment, split.probe, days) for split in splits])
    apart = apart[~np.isnan(apart)]
    if not apart.size:
        return "another record, day not stated"
    if not apart.any():
        return "another record, same day"
    if not apart.all():
        return f"another record, the same day in {np.count_nonzero(apart == 0)} of {apart.size}"
    return f"another day, {np.median(apart):g} days later ({apart.min():g} to {apart.max():g})"


def days_apart(enrolment: pd.DataFrame, probe: pd.DataFrame, days: pd.Series) -> np.ndarray:
    """Days between each probe and the nearest enrolment of its person, shape (n_probe,); NaN where one is undated."""
    known = enrolment[[SUBJECT]].assign(known=enrolment[RECORD].map(days)).drop_duplicates()
    pairs = probe[[SUBJECT]].assign(day=probe[RECORD].map(days), row=np.arange(len(probe))).merge(known, on=SUBJECT)
    nearest = (pairs["day"] - pairs["known"]).abs().groupby(pairs["row"]).min()
    return nearest.reindex(range(len(probe))).to_numpy(dtype=float)


def span_results(spans: pd.DataFrame) -> pd.DataFrame:
    """Rows ``enrolment_seconds`` and ``probe_seconds``: only like is compared with like."""
    return results_table(
        result(
            metric,
            row[name],
            "s",
            n=row["probes"],
            note=f"Median; {row['gap']}." if row["probes"] else "Not defined: no probe is left.",
            cohort=row["cohort"],
            protocol=row["protocol"],
        )
        for row in spans.to_dict("records")
        for metric, name in SECONDS.items()
    )


def with_spans(table: pd.DataFrame, spans: pd.DataFrame, protocol: str = "protocol") -> pd.DataFrame:
    """Put the seconds of enrolment and probe beside the protocol that the column `protocol` of a table names."""
    if table.empty:
        return table
    seconds = spans[["cohort", "protocol", *SECONDS.values()]].rename(columns={"protocol": protocol})
    seconds = (
        seconds.astype(dict.fromkeys(SECONDS.values(), float)).round().astype(dict.fromkeys(SECONDS.values(), "Int64"))
    )
    at = table.columns.get_loc(protocol) + 1
    return table.merge(seconds, how="left")[[*table.columns[:at], *SECONDS.values(), *table.columns[at:]]]
