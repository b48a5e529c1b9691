"""R peaks and wave boundaries: one adapter around NeuroKit2 that never raises on a record.

NeuroKit2 raises on short, flat and noisy signals, and returns beats in pure
noise; here a lead yields its fiducials or a :class:`Failure` with its reason.
Two of its delineators are joined, by what each was measured to do best on every
fifth record of LUDB: peak prominence (Emrich et al., EUSIPCO 2024) for P, T and
the QRS onset; the wavelet delineator (Martinez et al., IEEE TBME 51:570, 2004)
for the QRS offset, where prominence stops at the nadir of S, 28 ms early on average.
Neither can tell that a wave is absent: P waves are also placed in atrial fibrillation.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ecgstudy.signals.preprocess import HIGH_HZ, bandpass, fill_gaps
from ecgstudy.signals.quality import MISSING_SHARE, Problem, beat_problem, block_spans

WAVES = {
    "P": ("p_onset", "p_peak", "p_offset"),
    "QRS": ("qrs_onset", "r_peak", "qrs_offset"),
    "T": ("t_onset", "t_peak", "t_offset"),
}
"""Onset, peak and offset of each wave."""
FIDUCIAL_COLUMNS = tuple(point for points in WAVES.values() for point in points)

CHOSEN_ON_EVERY = 5
"""The delineators were chosen on every fifth record of LUDB, from the first: leave those out of figures on LUDB."""

SHORTEST_S = 2.0
"""Shortest lead that is delineated, in seconds; the QRS offset needs 4 s (NeuroKit2's own limit)."""
RATE_TOO_LOW = "sampling rate too low"
NOISE = "noise"
NOT_DELINEATED = "not delineated"

_FEWEST_BEATS = 3
_NOISE_SIMILARITY = 0.9
_NOISE_STEEPNESS = 1.5
_HALF_QRS_S = 0.1
_SUSPECT_RATE_BPM = 40.0
_SUSPECT_GAIN = 1.5
_NARROW_HIGH_HZ = 25.0
_CHUNK_BEATS = 64
_MARGIN_BEATS = 2


@dataclass(frozen=True)
class Failure:
    """Why a lead has no fiducial points: a :class:`~ecgstudy.signals.quality.Problem` or a reason of this module."""

    reason: str


def rpeaks(x: np.ndarray, fs: float) -> np.ndarray:
    """Find the R peaks of one lead (increasing sample numbers); noise has "R peaks" too, see :func:`delineate`."""
    prepared = _prepare(x, fs)
    return np.zeros(0, dtype=int) if isinstance(prepared, Failure) else prepared[1]


def delineate(x: np.ndarray, fs: float) -> pd.DataFrame | Failure:
    """Find the P, QRS and T waves of one lead.

    Parameters
    ----------
    x : numpy.ndarray
        Shape (n_samples,), any unit, filtered or not; it is band-passed here.
        Gaps up to 40 ms are bridged; no point is placed in a longer one.
    fs : float
        Sampling rate in Hz; the record's own is best.

    Returns
    -------
    pandas.DataFrame or Failure
        One row a beat, columns :data:`FIDUCIAL_COLUMNS` in samples, NaN where not found; `r_peak` always is.
        A point that cannot be right (onset not before its peak, a wave that reaches into the next) is NaN.
        A lead fails as "noise" when its beats neither look alike (median correlation with their median below
        0.9) nor are steeper than what lies between them (1.5 times): 3 % of simulated noise passes, and 1 real
        lead in 800 is refused.
    """
    prepared = _prepare(x, fs)
    if isinstance(prepared, Failure):
        return prepared
    values, peaks, lost = prepared
    if len(peaks) < _FEWEST_BEATS or beat_problem(peaks, values.size / fs):
        return Failure(Problem.NO_BEATS)
    if _is_noise(values, peaks, fs):
        return Failure(NOISE)
    points = _in_chunks(values, peaks, fs)
    if all(np.isnan(points[column]).all() for column in FIDUCIAL_COLUMNS if column != "r_peak"):
        return Failure(NOT_DELINEATED)
    for found in points.values():
        known = np.flatnonzero(np.isfinite(found))
        found[known[lost[found[known].astype(int)]]] = np.nan
    _drop_impossible(points)
    return pd.DataFrame(points)


def _prepare(x: np.ndarray, fs: float) -> tuple[np.ndarray, np.ndarray, np.ndarray] | Failure:
    """Bridge, scale (R waves near 1) and filter a lead, find its R peaks and the samples that were lost."""
    if not fs > 2 * HIGH_HZ:
        return Failure(RATE_TOO_LOW)
    if len(x) < SHORTEST_S * fs:
        return Failure(Problem.TOO_SHORT)
    filled, lost = (of[0] for of in fill_gaps(np.asarray(x, dtype=np.float64)[None], fs))
    if lost.mean() > MISSING_SHARE:
        return Failure(Problem.NOT_A_NUMBER)
    # NeuroKit2 adds amplitudes to times when it scores T waves, so the scale of the lead matters
    # to it: a typical second is made to span 1, as in a lead in mV.
    centred = filled - np.median(filled)
    span = np.quantile(block_spans(centred, fs), 0.75)
    if not (np.isfinite(span) and span > 1e-9 * np.abs(filled).max()):
        return Failure(Problem.FLAT)
    values = bandpass(centred / span, fs).astype(np.float64)
    peaks = _find_r_peaks(values, fs)
    if len(peaks) * 60 < _SUSPECT_RATE_BPM * len(x) / fs:
        # Mains hum or muscle noise can hide the slopes of the QRS below 40 Hz, but not below 25 Hz.
        smooth = bandpass(centred / span, fs, high=_NARROW_HIGH_HZ).astype(np.float64)
        smooth_peaks = _find_r_peaks(smooth, fs)
        if len(smooth_peaks) > _SUSPECT_GAIN * len(peaks):
            values, peaks = smooth, smooth_peaks
    return values, peaks[~lost[peaks]], lost


def _neurokit(function: str, *arguments: object, **options: object) -> object:
    """Call a function of NeuroKit2; None where it gives up."""
    import neurokit2  # takes a second, and only those who delineate need it

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return getattr(neurokit2, function)(*arguments, **options)
        except Exception:  # It raises ValueError, IndexError, ZeroDivisionError... on unusual leads.
            return None


def _find_r_peaks(values: np.ndarray, fs: float) -> np.ndarray:
    """R peaks of a filtered lead, by NeuroKit2's gradient method; none where it gives up."""
    found = _neurokit("ecg_findpeaks", values, sampling_rate=fs, method="neurokit")
    return np.asarray(found["ECG_R_Peaks"] if found else [], dtype=int)


def _is_noise(values: np.ndarray, peaks: np.ndarray, fs: float) -> bool:
    """Whether the beats neither resemble each other nor stand out by their slopes.

    Both must hold: atrial flutter or a paced rhythm may lack one of the two.
    """
    half = round(_HALF_QRS_S * fs)
    inner = peaks[(peaks >= half) & (peaks < values.size - half)]
    if inner.size < _FEWEST_BEATS:
        return False
    places = inner[:, None] + np.arange(-half, half + 1)
    beats = values[places] - values[places].mean(axis=1, keepdims=True)
    template = np.median(beats, axis=0)
    norms = np.linalg.norm(beats, axis=1) * np.linalg.norm(template)
    similarity = np.median(beats @ template / np.maximum(norms, np.finfo(float).tiny))
    in_beat = np.zeros(values.size, dtype=bool)
    in_beat[places] = True
    slopes = np.diff(values)
    if in_beat.all():
        return bool(similarity < _NOISE_SIMILARITY)
    steepness = slopes[in_beat[1:]].std() / max(slopes[~in_beat[1:]].std(), np.finfo(float).tiny)
    return bool(similarity < _NOISE_SIMILARITY and steepness < _NOISE_STEEPNESS)


def _in_chunks(values: np.ndarray, peaks: np.ndarray, fs: float) -> dict[str, np.ndarray]:
    """Delineate up to 64 beats at a time, with two beats of overlap on either side.

    The wavelet delineator works at 2 kHz: half an hour at once would take a gigabyte.
    """
    points = {column: np.full(peaks.size, np.nan) for column in FIDUCIAL_COLUMNS}
    for first in range(0, peaks.size, _CHUNK_BEATS):
        low = max(first - _MARGIN_BEATS, 0)
        high = min(first + _CHUNK_BEATS + _MARGIN_BEATS, peaks.size)
        if high - low < _FEWEST_BEATS:
            low = max(high - _FEWEST_BEATS, 0)
        start = 0 if low == 0 else (peaks[low - 1] + peaks[low]) // 2
        stop = values.size if high == peaks.size else (peaks[high - 1] + peaks[high]) // 2
        found = _neurokit_points(values[start:stop], peaks[low:high] - start, fs)
        last = min(first + _CHUNK_BEATS, peaks.size)
        for column, where in found.items():
            points[column][first:last] = where[first - low : last - low] + start
    points["r_peak"] = peaks.astype(float)
    return points


def _neurokit_points(values: np.ndarray, peaks: np.ndarray, fs: float) -> dict[str, np.ndarray]:
    """Points of both of NeuroKit2's delineators on a stretch of lead, one a beat; NaN where one of them gives up."""
    delineators = {
        method: _neurokit("ecg_delineate", values, peaks, sampling_rate=fs, method=method)
        for method in ("prominence", "dwt")
    }
    points = {}
    for column in FIDUCIAL_COLUMNS:
        wave, part = column.split("_")
        found = delineators["dwt" if column == "qrs_offset" else "prominence"]
        name = f"ECG_{wave.replace('qrs', 'r').upper()}_{part.title()}s"
        places = np.asarray((found[1].get(name) or []) if found else [], dtype=float)
        # it leaves out points before the first sample, which only the first beats can have: align with the last beat
        points[column] = np.r_[np.full(peaks.size - places.size, np.nan), places]
    return points


def _drop_impossible(points: dict[str, np.ndarray]) -> None:
    """Set points to NaN, in place, that contradict the order of the waves in a heartbeat.

    NaN compares as False, so each rule only acts where both points are known.
    """
    r_peak = points["r_peak"]
    previous, following = np.r_[-np.inf, r_peak[:-1]], np.r_[r_peak[1:], np.inf]

    def drop(wrong: np.ndarray, *columns: str) -> None:
        for column in columns:
            points[column][wrong] = np.nan

    drop(~((points["qrs_onset"] > previous) & (points["qrs_onset"] < r_peak)), "qrs_onset")
    drop(~((points["qrs_offset"] > r_peak) & (points["qrs_offset"] < following)), "qrs_offset")
    qrs_start = np.fmin(points["qrs_onset"], r_peak)
    qrs_stop = np.fmax(points["qrs_offset"], r_peak)
    drop((points["p_peak"] >= qrs_start) | (points["p_peak"] <= previous), *WAVES["P"])
    drop((points["t_peak"] <= qrs_stop) | (points["t_peak"] >= following), *WAVES["T"])
    for onset, peak, offset in (WAVES["P"], WAVES["T"]):
        drop(~(points[onset] < points[peak]), onset)
        drop(~(points[offset] > points[peak]), offset)
    drop((points["p_onset"] <= previous), "p_onset")
    drop((points["p_offset"] > qrs_start), "p_offset")
    drop((points["t_onset"] < qrs_stop), "t_onset")
    drop((points["t_offset"] >= following), "t_offset")
    drop(points["p_peak"] <= np.r_[-np.inf, points["t_peak"][:-1]], *WAVES["P"])
