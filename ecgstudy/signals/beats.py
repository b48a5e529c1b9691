"""Average beats, aligned at their R peaks."""

import numpy as np
import pandas as pd

from ecgstudy.signals.store import RecordStore

BEFORE_R_S = 0.3
AFTER_R_S = 0.5
FEWEST_BEATS = 3


def average_beat(values: np.ndarray, r_peaks: np.ndarray, before: int, after: int) -> np.ndarray:
    """Take the median over the beats of one recording, aligned at their R peaks.

    The median, because one artefact or ectopic beat would bend a mean.

    Parameters
    ----------
    values : numpy.ndarray
        Shape (n_leads, n_samples).
    r_peaks : numpy.ndarray
        Samples of the R peaks, shape (n_beats,).
    before, after : int
        Samples kept before an R peak, and from it on.

    Returns
    -------
    numpy.ndarray
        Shape (n_leads, before + after); NaN where no beat lies wholly inside the recording.
    """
    whole = r_peaks[(r_peaks >= before) & (r_peaks + after <= values.shape[-1])]
    if not len(whole):
        return np.full((len(values), before + after), np.nan)
    beats = values[:, whole[:, None] + np.arange(-before, after)]
    return np.median(beats, axis=1)


def average_beats(store: RecordStore) -> pd.DataFrame:
    """Average beat of each record's reference lead, scaled to an R peak of 1 so that any units compare.

    Returns
    -------
    pandas.DataFrame
        One row a record with at least three beats; columns are seconds from the R peak.
    """
    before, after = round(BEFORE_R_S * store.fs), round(AFTER_R_S * store.fs)
    peaks_of = dict(tuple(store.beats.groupby("record_id")["r_peak"]))
    rows = {}
    for record in store.records.itertuples():
        peaks = np.round(peaks_of.get(record.record_id, pd.Series(dtype=float)).dropna() * store.fs).astype(int)
        if len(peaks) < FEWEST_BEATS:
            continue
        lead = record.leads.index(record.reference_lead)
        beat = average_beat(store.signal(record.record_id)[[lead]], peaks.to_numpy(), before, after)[0]
        beat = beat - np.median(beat)
        rows[record.record_id] = beat / np.abs(beat[before])
    return pd.DataFrame.from_dict(rows, orient="index", columns=np.arange(-before, after) / store.fs)
