"""Tables of the ingestion stage: who is there, who was left out, what leaks."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from ecgstudy.splits import assert_disjoint, duplicated_waveforms, with_cohort
from ecgstudy.stage import Stage
from ecgstudy.store import RecordStore


def cohort_table(stores: Mapping[str, RecordStore]) -> pd.DataFrame:
    """One row a cohort: records, persons, minutes, age, sex, sessions and the days between them."""
    return pd.DataFrame([_cohort_row(name, store) for name, store in stores.items()])


def _cohort_row(name: str, store: RecordStore) -> dict[str, object]:
    """Describe the records of one cohort that are used."""
    records = store.records
    persons = records.drop_duplicates("subject_id")
    gaps = session_gaps(records)
    known_sex = persons["sex"].dropna()
    return {
        "cohort": name,
        "records": len(records),
        "excluded": len(store.exclusions),
        "persons": len(persons),
        "minutes": records["store_samples"].sum() / store.fs / 60,
        "unit": store.unit,
        "leads": ", ".join(str(n) for n in sorted(records["leads"].map(len).unique())),
        "age median": persons["age"].median(),
        "women %": 100 * (known_sex == "F").mean() if len(known_sex) else np.nan,
        "persons with several sessions": int((records.groupby("subject_id")["session"].max() > 1).sum()),
        "days between sessions, median": gaps.median() if len(gaps) else np.nan,
        "days between sessions, longest": gaps.max() if len(gaps) else np.nan,
    }


def session_gaps(records: pd.DataFrame) -> pd.Series:
    """Days from each session of a person to the person's next one; undated sessions give none."""
    days = records.dropna(subset="session_day").groupby(["subject_id", "session"])["session_day"].first()
    return days.groupby("subject_id").diff().dropna()


def exclusion_table(stores: Mapping[str, RecordStore]) -> pd.DataFrame:
    """Count the records left out by cohort and reason; cohorts without any are named too."""
    rows = []
    for name, store in stores.items():
        counts = store.exclusions["reason"].value_counts()
        rows += [{"cohort": name, "reason": reason, "records": n} for reason, n in counts.items()]
        if counts.empty:
            rows.append({"cohort": name, "reason": "none left out", "records": 0})
    return pd.DataFrame(rows)


def unusable_table(stores: Mapping[str, RecordStore]) -> pd.DataFrame:
    """One row an excluded record with the sentence that says why and what to do."""
    parts = [store.exclusions.assign(cohort=name) for name, store in stores.items()]
    return pd.concat(parts, ignore_index=True)[["cohort", "record_id", "reason", "sentence"]]


def leakage_table(stores: Mapping[str, RecordStore]) -> pd.DataFrame:
    """Find records whose waveform also stands under another person, within or across cohorts."""
    parts = [with_cohort(name, store.records) for name, store in stores.items()]
    return duplicated_waveforms(pd.concat(parts, ignore_index=True))[["cohort", "record_id", "subject_id", "sha256"]]


def assert_no_leakage(stores: Mapping[str, RecordStore]) -> None:
    """Stop the study where two cohorts share a waveform: the cohorts would not be independent.

    Raises
    ------
    LeakageError
        Names the two cohorts.
    """
    assert_disjoint({name: with_cohort(name, store.records) for name, store in stores.items()})


def exclusion_finding(table: pd.DataFrame) -> str:
    """Say in one sentence how many records were left out and why, from :func:`exclusion_table`."""
    lost = table[table["records"] > 0]
    if lost.empty:
        return "No record had to be left out."
    reasons = [f"{row.records} of {row.cohort} ({row.reason})" for row in lost.itertuples()]
    return f"Records left out: {', '.join(reasons)}."


def record_cohorts(stage: Stage, table: pd.DataFrame) -> None:
    """Record each cohort's counts as metrics and its records and persons as headlines."""
    for row in table.to_dict("records"):
        name = row["cohort"]
        stage.metric(f"{name}.records", row["records"], n=row["records"], unit="records")
        stage.metric(f"{name}.persons", row["persons"], n=row["persons"], unit="persons")
        stage.metric(f"{name}.excluded", row["excluded"], n=row["records"] + row["excluded"], unit="records")
        stage.metric(f"{name}.minutes", row["minutes"], n=row["records"], unit="min")
        stage.headline(f"{name}.records", f"{name}: records used")
        stage.headline(f"{name}.persons", f"{name}: persons")
