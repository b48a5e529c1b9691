"""Splits that refuse leakage."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import pandas as pd

from ecgstudy.errors import LeakageError

SUBJECT = "subject_id"
WAVEFORM = "sha256"


def assert_disjoint(parts: Mapping[str, pd.DataFrame], by: Sequence[str] = (SUBJECT, WAVEFORM)) -> None:
    """Raise where two parts share a value of one of the columns `by`.

    Parameters
    ----------
    parts : mapping of str to pandas.DataFrame
        Record tables under the names that the message uses ("train", "test", a cohort).
        Person names count within a cohort: give tables that name persons uniquely
        across cohorts (:func:`with_cohort`).
    by : sequence of str
        Columns that must not share a value.

    Raises
    ------
    LeakageError
        Names the two parts, the column, how many values they share and one of them.
    """
    for (one, left), (other, right) in combinations(parts.items(), 2):
        for column in by:
            shared = sorted(set(left[column].dropna()) & set(right[column].dropna()))
            if shared:
                raise LeakageError(
                    f"{one} and {other} share {len(shared)} value(s) of {column}, {shared[0]} for one; "
                    "leave the shared records out of one of them."
                )


def duplicated_waveforms(records: pd.DataFrame) -> pd.DataFrame:
    """Find records whose waveform also stands under another person's name.

    Parameters
    ----------
    records : pandas.DataFrame
        Columns record_id, subject_id and sha256, of one cohort or of several.

    Returns
    -------
    pandas.DataFrame
        The rows at fault, equal waveforms beside each other; empty where all is well.
    """
    owners = records.groupby(WAVEFORM)[SUBJECT].transform("nunique")
    return records[owners > 1].sort_values([WAVEFORM, SUBJECT], ignore_index=True)


def with_cohort(cohort: str, records: pd.DataFrame) -> pd.DataFrame:
    """Copy a record table with persons and records named ``cohort/name``, unique across cohorts."""
    return records.assign(
        cohort=cohort,
        record_id=cohort + "/" + records["record_id"],
        subject_id=cohort + "/" + records["subject_id"],
    )
