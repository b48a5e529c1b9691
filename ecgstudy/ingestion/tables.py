"""Tables of the ingestion stage: who is there, who was left out, what leaks."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from ecgstudy.evaluate.splits import assert_disjoint, duplicated_waveforms, with_cohort
from ecgstudy.ingestion.stores import EVERY_RECORD
from ecgstudy.signals.store import RecordStore
from ecgstudy.study.stage import Stage

NONE_LEFT_OUT = "none left out"
"""Stands in the place of a reason for a cohort whose records are all used."""


def cohort_table(stores: Mapping[str, RecordStore]) -> pd.DataFrame:
    """One row a cohort: records, persons, minutes, age, sex, sessions and the days between them."""
    rows = []
    for name, store in stores.items():
        records = store.records
        persons = records.drop_duplicates("subject_id")
        # undated sessions have no distance
        days = records.dropna(subset="session_day").groupby(["subject_id", "session"])["session_day"].first()
        between = days.groupby("subject_id").diff().dropna()
        row = {
            "cohort": name,
            "records": len(records),
            "excluded": len(store.exclusions),
            "persons": len(persons),
            "minutes": records["store_samples"].sum() / store.fs / 60,
            "unit": ", ".join(sorted(records["unit"].unique())),
            "leads": ", ".join(str(n) for n in sorted(records["leads"].map(len).unique())),
            "age median": persons["age"].median(),
            "women %": 100 * persons["sex"].dropna().eq("F").mean(),
            "persons with several sessions": int((records.groupby("subject_id")["session"].max() > 1).sum()),
            "days between sessions, median": between.median(),
            "days between sessions, longest": between.max(),
        }
        rows.append(row)
    return pd.DataFrame(rows)


def record_cohorts(stage: Stage, table: pd.DataFrame) -> None:
    """Record each cohort's counts as metrics and its records and persons as headlines."""
    for name, records, excluded, persons, minutes in table[
        ["cohort", "records", "excluded", "persons", "minutes"]
    ].values:
        stage.metric(f"{name}.records", records, n=records, unit="records")
        stage.metric(f"{name}.persons", persons, n=persons, unit="persons")
        stage.metric(f"{name}.excluded", excluded, n=records + excluded, unit="records")
        stage.metric(f"{name}.minutes", minutes, n=records, unit="min")
        stage.headline(f"{name}.records", f"{name}: records used")
        stage.headline(f"{name}.persons", f"{name}: persons")


def unusable_table(stores: Mapping[str, RecordStore], lost: pd.DataFrame) -> pd.DataFrame:
    """One row an excluded record with the sentence that says why and what to do."""
    parts = [*(store.exclusions.assign(cohort=name) for name, store in stores.items()), lost]
    return pd.concat(parts, ignore_index=True)[["cohort", "record_id", "reason", "sentence"]]


def exclusion_table(stores: Mapping[str, RecordStore], lost: pd.DataFrame) -> pd.DataFrame:
    """Count the records left out by cohort and reason; cohorts without any are named too.

    The count is undefined where a cohort's table could not be read.
    """
    counts = unusable_table(stores, lost).groupby(["cohort", "reason"], sort=False)["record_id"]
    rows = [(*key, np.nan if EVERY_RECORD in set(ids) else len(ids)) for key, ids in counts]
    rows += [(name, NONE_LEFT_OUT, 0) for name, store in stores.items() if store.exclusions.empty]
    return pd.DataFrame(rows, columns=["cohort", "reason", "records"]).astype({"records": "Int64"})


def exclusion_finding(table: pd.DataFrame, lost: pd.DataFrame) -> str:
    """Say how many records were left out and why, from :func:`exclusion_table`, and which cohorts take no part."""
    left_out = table[table["reason"] != NONE_LEFT_OUT]
    if left_out.empty:
        return "No record had to be left out."
    reasons = [
        f"{EVERY_RECORD if pd.isna(row.records) else row.records} of {row.cohort} ({row.reason})"
        for row in left_out.itertuples()
    ]
    absent = [f" No record of {name} can be used: it takes no part in the study." for name in lost["cohort"].unique()]
    return f"Records left out: {', '.join(reasons)}.{''.join(absent)}"


def leakage_table(stores: Mapping[str, RecordStore]) -> pd.DataFrame:
    """Find records whose waveform also stands under another person, within or across cohorts.

    Raises
    ------
    LeakageError
        Two cohorts share a waveform, so that they would not be independent.
    """
    parts = {name: with_cohort(name, store.records) for name, store in stores.items()}
    assert_disjoint(parts)
    columns = ["cohort", "record_id", "subject_id", "sha256"]
    return duplicated_waveforms(pd.concat(parts.values(), ignore_index=True))[columns]
