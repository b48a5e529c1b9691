"""Beats cut out around their R peaks."""

import numpy as np
import pandas as pd

from ecgstudy.store import RecordStore

BEFORE_R_S = 0.3
AFTER_R_S = 0.5


def cut_beats(
    signal: np.ndarray, r_peaks: np.ndarray, fs: float, before: float = BEFORE_R_S, after: float = AFTER_R_S
) -> np.ndarray:
    """Cut one window around every R peak that leaves room for it.

    Parameters
    ----------
    signal : numpy.ndarray
        Shape (n_leads, n_samples).
    r_peaks : numpy.ndarray
        Seconds from the signal's start; NaN is left out.
    fs : float
        Sampling rate in Hz.
    before, after : float
        Seconds before and after the R peak.

    Returns
    -------
    numpy.ndarray
        Shape (n_beats, n_leads, n_window), the R peak at index ``round(before * fs)``.
    """
    first, length = round(before * fs), round(before * fs) + round(after * fs)
    starts = np.round(r_peaks[np.isfinite(r_peaks)] * fs).astype(np.int64) - first
    starts = starts[(starts >= 0) & (starts + length <= signal.shape[-1])]
    if not len(starts):
        return np.empty((0, signal.shape[0], length), dtype=signal.dtype)
    return np.lib.stride_tricks.sliding_window_view(signal, length, axis=-1)[:, starts].swapaxes(0, 1)


def median_beats(store: RecordStore) -> pd.DataFrame:
    """Median beat of each record's reference lead, scaled to an R peak of 1 so that any units compare.

    Returns
    -------
    pandas.DataFrame
        One row a record with at least three beats; columns are seconds from the R peak.
    """
    peaks = store.beats.groupby("record_id")["r_peak"]
    rows = {}
    for record in store.records.itertuples():
        if record.record_id not in peaks.groups:
            continue
        lead = list(record.leads).index(record.reference_lead)
        signal = store.signal(record.record_id)[[lead]]
        cut = cut_beats(signal, peaks.get_group(record.record_id).to_numpy(), store.fs)[:, 0]
        if len(cut) < 3:
            continue
        beat = np.median(cut, axis=0)
        beat = beat - np.median(beat)
        rows[record.record_id] = beat / np.abs(beat[round(BEFORE_R_S * store.fs)])
    times = (
        np.arange(round(BEFORE_R_S * store.fs) + round(AFTER_R_S * store.fs)) - round(BEFORE_R_S * store.fs)
    ) / store.fs
    return pd.DataFrame.from_dict(rows, orient="index", columns=np.round(times, 4))
