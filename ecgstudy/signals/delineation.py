"""R peaks and wave boundaries: one adapter around NeuroKit2 that never raises on a record.

NeuroKit2 raises on short, flat and noisy signals, and returns beats in pure
noise; here a lead yields :class:`Fiducials` or a :class:`Failure` with its reason.
Two of its delineators are joined, by what each was measured to do best on every
fifth record of LUDB: peak prominence (Emrich et al., EUSIPCO 2024) for P, T and
the QRS onset; the wavelet delineator (Martinez et al., IEEE TBME 51:570, 2004)
for the QRS offset, where prominence stops at the nadir of S, 28 ms early on average.
Neither can tell that a wave is absent: P waves are also placed in atrial fibrillation.
"""

import warnings
from dataclasses import dataclass

import neurokit2 as nk
import numpy as np
import pandas as pd

from ecgstudy.signals.preprocess import HIGH_HZ, bandpass, fill_gaps
from ecgstudy.signals.quality import MISSING_SHARE, Problem, beat_problem, block_spans

FIDUCIAL_COLUMNS = (
    "p_onset",
    "p_peak",
    "p_offset",
    "qrs_onset",
    "r_peak",
    "qrs_offset",
    "t_onset",
    "t_peak",
    "t_offset",
)

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
_NEUROKIT_NAMES = {
    "p_onset": "ECG_P_Onsets",
    "p_peak": "ECG_P_Peaks",
    "p_offset": "ECG_P_Offsets",
    "qrs_onset": "ECG_R_Onsets",
    "t_onset": "ECG_T_Onsets",
    "t_peak": "ECG_T_Peaks",
    "t_offset": "ECG_T_Offsets",
}


@dataclass(frozen=True)
class Fiducials:
    """Fiducial points of one lead, one row a beat.

    Attributes
    ----------
    p_onset, p_peak, p_offset, qrs_onset, r_peak, qrs_offset, t_onset, t_peak, t_offset : numpy.ndarray
        float, shape (n_beats,), in samples of the lead that was delineated;
        NaN where not found. `r_peak` is never NaN and increases.
    """

    p_onset: np.ndarray
    p_peak: np.ndarray
    p_offset: np.ndarray
    qrs_onset: np.ndarray
    r_peak: np.ndarray
    qrs_offset: np.ndarray
    t_onset: np.ndarray
    t_peak: np.ndarray
    t_offset: np.ndarray

    def table(self) -> pd.DataFrame:
        """One row a beat, columns :data:`FIDUCIAL_COLUMNS`, in samples."""
        return pd.DataFrame({column: getattr(self, column) for column in FIDUCIAL_COLUMNS})


@dataclass(frozen=True)
class Failure:
    """Why a lead has no fiducial points.

    Attributes
    ----------
    reason : str
        A :class:`~ecgstudy.signals.quality.Problem` (too short, not a number, flat, no
        beats), "sampling rate too low", "noise" or "not delineated".
    """

    reason: str


def rpeaks(x: np.ndarray, fs: float) -> np.ndarray:
    """R peaks of one lead, by NeuroKit2's gradient method.

    Parameters
    ----------
    x : numpy.ndarray
        Shape (n_samples,), any unit, filtered or not.
    fs : float
        Sampling rate in Hz.

    Returns
    -------
    numpy.ndarray
        int, increasing sample numbers; empty where the lead is too short,
        flat or missing. Noise has "R peaks" too: see :func:`delineate`.
    """
    prepared = _prepare(x, fs)
    return np.zeros(0, dtype=int) if isinstance(prepared, Failure) else prepared.peaks


def delineate(x: np.ndarray, fs: float) -> Fiducials | Failure:
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
    Fiducials or Failure
        A point that cannot be right (onset not before its peak, a wave that
        reaches into the next) is NaN. A lead fails as "noise" when its beats
        neither look alike (median correlation with their median below 0.9)
        nor are steeper than what lies between them (1.5 times): 3 % of
        simulated noise passes, and 1 real lead in 800 is refused.
    """
    prepared = _prepare(x, fs)
    if isinstance(prepared, Failure):
        return prepared
    values, peaks, lost = prepared.values, prepared.peaks, prepared.lost
    if len(peaks) < _FEWEST_BEATS or beat_problem(peaks, values.size / fs):
        return Failure(Problem.NO_BEATS)
    if _is_noise(values, peaks, fs):
        return Failure(NOISE)
    points = _in_chunks(values, peaks, fs)
    if all(np.isnan(points[column]).all() for column in FIDUCIAL_COLUMNS if column != "r_peak"):
        return Failure(NOT_DELINEATED)
    for column, found in points.items():
        known = np.isfinite(found)
        known[known] = ~lost[found[known].astype(int)]
        points[column] = np.where(known, found, np.nan)
    _drop_impossible(points)
    return Fiducials(**points)


@dataclass(frozen=True)
class _Prepared:
    """A lead ready to be delineated: filtered values (R waves near 1), R peaks, and where samples were lost."""

    values: np.ndarray
    peaks: np.ndarray
    lost: np.ndarray


def _prepare(x: np.ndarray, fs: float) -> _Prepared | Failure:
    """Bridge, scale and filter a lead, then find its R peaks."""
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
    return _Prepared(values, peaks[~lost[peaks]], lost)


def _find_r_peaks(values: np.ndarray, fs: float) -> np.ndarray:
    """R peaks of a filtered lead; none where NeuroKit2 gives up."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = nk.ecg_findpeaks(values, sampling_rate=fs, method="neurokit")["ECG_R_Peaks"]
        except Exception:  # It raises ValueError, IndexError, ZeroDivisionError... on leads without beats.
            found = []
    return np.asarray(found, dtype=int)


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
    """Both of NeuroKit2's delineators on a stretch of lead; NaN for all that one of them gives up on."""
    prominence = _neurokit_delineator(values, peaks, fs, "prominence")
    wavelet = _neurokit_delineator(values, peaks, fs, "dwt")
    points = {column: _one_a_beat(prominence.get(name), peaks.size) for column, name in _NEUROKIT_NAMES.items()}
    return points | {"qrs_offset": _one_a_beat(wavelet.get("ECG_R_Offsets"), peaks.size)}


def _neurokit_delineator(values: np.ndarray, peaks: np.ndarray, fs: float, method: str) -> dict[str, list[float]]:
    """Points by NeuroKit2's names; empty where it gives up."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return nk.ecg_delineate(values, peaks, sampling_rate=fs, method=method)[1]
        except Exception:  # It raises ValueError, IndexError, ZeroDivisionError... on unusual leads.
            return {}


def _one_a_beat(found: list[float] | None, n_beats: int) -> np.ndarray:
    """Bring a list of points to one a beat.

    NeuroKit2 leaves out points before the first sample, which only the first
    beats can have, so a shorter list is aligned with the last beat.
    """
    aligned = np.full(n_beats, np.nan)
    if found:
        aligned[n_beats - len(found) :] = np.asarray(found, dtype=float)
    return aligned


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
    drop((points["p_peak"] >= qrs_start) | (points["p_peak"] <= previous), "p_onset", "p_peak", "p_offset")
    drop((points["t_peak"] <= qrs_stop) | (points["t_peak"] >= following), "t_onset", "t_peak", "t_offset")
    for wave in ("p", "t"):
        onset, peak, offset = f"{wave}_onset", f"{wave}_peak", f"{wave}_offset"
        drop(~(points[onset] < points[peak]), onset)
        drop(~(points[offset] > points[peak]), offset)
    drop((points["p_onset"] <= previous), "p_onset")
    drop((points["p_offset"] > qrs_start), "p_offset")
    drop((points["t_onset"] < qrs_stop), "t_onset")
    drop((points["t_offset"] >= following), "t_offset")
    last_t = np.r_[-np.inf, points["t_peak"][:-1]]
    drop(points["p_peak"] <= last_t, "p_onset", "p_peak", "p_offset")
