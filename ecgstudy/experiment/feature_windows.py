"""PQRST features of a segment's windows, from the store's fiducials."""

import numpy as np
import pandas as pd

from ecgstudy.experiment.dataset import Signals
from ecgstudy.experiment.recipes import MOST_WINDOWS
from ecgstudy.signals.delineation import FIDUCIAL_COLUMNS
from ecgstudy.signals.features import FEATURES, beat_features, window_features

WINDOW_S = 5.0
"""Seconds of a feature window: enough beats for a median that an ectopic beat does not move."""


def segment_features(signals: Signals, segments: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """Features of evenly spread windows of every segment.

    Returns
    -------
    features : pandas.DataFrame
        One row a window with at least one beat, columns :data:`ecgstudy.signals.features.FEATURES`.
    owners : numpy.ndarray
        Row number in `segments` of each window, shape (n,).
    """
    tables, owners = [pd.DataFrame(columns=list(FEATURES), dtype=float)], [np.zeros(0, dtype=np.int64)]
    for row, segment in enumerate(segments.itertuples()):
        table = _windows(signals, segment.record_id, segment.start, segment.stop)
        tables.append(table)
        owners.append(np.full(len(table), row))
    filled = [table for table in tables if len(table)] or tables[:1]
    return pd.concat(filled, ignore_index=True), np.concatenate(owners)


def _windows(signals: Signals, record_id: str, start: int, stop: int) -> pd.DataFrame:
    """Features of one segment's windows; empty where it holds no beat."""
    fiducials = signals.fiducials(record_id, start, stop)
    if fiducials.empty:
        return pd.DataFrame(columns=list(FEATURES), dtype=float)
    beats = beat_features(
        signals.reference_segment(record_id, start, stop), signals.fs, fiducials[list(FIDUCIAL_COLUMNS)]
    )
    length = min(round(WINDOW_S * signals.fs), stop - start)
    room = stop - start - length
    starts = np.unique(np.linspace(0, room, min(MOST_WINDOWS, room // round(signals.fs) + 1)).astype(np.int64))
    return window_features(beats, fiducials["r_peak"].to_numpy(), starts, length).dropna(how="all")
