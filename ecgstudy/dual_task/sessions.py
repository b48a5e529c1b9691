"""Records of a person joined to the session that they were: their order, and the windows across their borders."""

from itertools import pairwise

import numpy as np
import pandas as pd

from ecgstudy.data.simulator.people import ACTIVITIES
from ecgstudy.evaluate.splits import RECORD, SUBJECT
from ecgstudy.experiment.dataset import GRID_S, Dataset


def session_order(records: pd.DataFrame) -> pd.DataFrame:
    """Sort records by person and in the order in which they were recorded, as far as that is known.

    The motion records state a day and no time of day; electrodes are numbered in the order in which they were worn, and
    the publisher numbers activities from rest to squats (:data:`~ecgstudy.data.simulator.people.ACTIVITIES`): that
    order stands in. Activities beyond these come last, as the cohort lists them.
    """
    numbers = {activity: number for number, activity in enumerate(ACTIVITIES)}
    nth = records["activity"].map(numbers).fillna(len(numbers)) if "activity" in records else 0
    by = [column for column in (SUBJECT, "session", "electrode") if column in records]
    return records.assign(nth=nth).sort_values([*by, "nth"], kind="stable").drop(columns="nth")


def spliced(dataset: Dataset, index: pd.DataFrame, order: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """Windows that begin in a person's record and end in the next one: their index, and samples (n, n_samples).

    `index` lists the usable windows of the records (:meth:`~ecgstudy.experiment.dataset.Dataset.grid`), `order` the
    records as :func:`session_order` does. Each is of the last seconds heard of the one record and the first of the
    other, whose name it bears; its `start` is that of the other's first window less the seconds of the one.
    """
    length, step = int(index["n_samples"].iloc[0]), round(GRID_S * dataset.fs)
    rows, parts = [index.iloc[:0]], [np.empty((0, length), dtype=np.float32)]
    heard = index.groupby(RECORD).indices
    for _, own in order[order[RECORD].isin(heard)].groupby(SUBJECT, sort=False):
        for before, after in pairwise(own[RECORD]):
            ends = index.iloc[[heard[before][-1], heard[after][0]]]
            last, first = dataset.gather(ends)
            shares = np.arange(step, length, step)
            rows.append(ends.iloc[[1] * len(shares)].assign(start=ends["start"].iloc[1] - length + shares))
            parts.append(np.stack([np.concatenate([last[share:], first[:share]]) for share in shares]))
    return pd.concat(rows, ignore_index=True), np.concatenate(parts)
