"""R peaks and wave boundaries: one adapter around NeuroKit2 that never raises on a record.

NeuroKit2 raises on short, flat and noisy signals, and returns beats in pure
noise; here a lead yields its fiducials, or says why not.
Two of its delineators are joined, by what each was measured to do best on every
fifth record of LUDB: peak prominence (Emrich et al., EUSIPCO 2024) for P, T and
the QRS onset; the wavelet delineator (Martinez et al., IEEE TBME 51:570, 2004)
for the QRS offset, where prominence stops at the nadir of S, 28 ms early on average.
Neither can tell that a wave is absent: P waves are also placed in atrial fibrillation.
"""

import warnings
from collections.abc import Mapping

import numpy as np

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

LEAST_KNOWN, FEWEST_KNOWN = 0.2, 3
"""Share and number of a record's beats in which a point must be known to be transferred to the others."""
_FEWEST_BEATS = 3
_HALF_QRS_S = 0.1
_NOISE_SIMILARITY, _NOISE_STEEPNESS = 0.9, 1.5
_SUSPECT_RATE_BPM, _SUSPECT_GAIN = 40.0, 1.5
_NARROW_HIGH_HZ = 25.0
_CHUNK_BEATS, _MARGIN_BEATS = 64, 2


def delineate(x: np.ndarray, fs: float, boundaries: bool = True) -> tuple[dict[str, np.ndarray], str | None]:
    """Find the R peaks of one lead and, unless told otherwise, the boundaries of its P, QRS and T waves.

    `x` (n_samples,) has any unit, and best the record's own rate; it is band-passed here. Gaps up to 40 ms are bridged,
    and no point is placed in a longer one. Gives :data:`FIDUCIAL_COLUMNS` in samples, one value a beat, NaN where a
    point is not found or cannot be right (onset not before its peak, a wave that reaches into the next), and why there
    are only R peaks, or none, or None: a :class:`~ecgstudy.signals.quality.Problem` or a reason of this module. A lead
    is "noise" when its beats neither look alike (median correlation with their median below 0.9) nor are steeper than
    what lies between them (1.5 times): 3 % of simulated noise passes, and 1 real lead in 800 is refused.
    """
    values, peaks, lost, failure = _find_beats(x, fs)
    points = dict.fromkeys(FIDUCIAL_COLUMNS, np.full(len(peaks), np.nan)) | {"r_peak": peaks.astype(float)}
    if failure or not boundaries:
        return points, failure
    if len(peaks) < _FEWEST_BEATS or beat_problem(peaks, values.size / fs):
        return points, Problem.NO_BEATS
    if _is_noise(values, peaks, fs):
        return points, NOISE
    found = _in_chunks(values, peaks, fs)
    if all(np.isnan(places).all() for places in found.values()):
        return points, NOT_DELINEATED
    for places in found.values():
        known = np.flatnonzero(np.isfinite(places))
        places[known[lost[places[known].astype(int)]]] = np.nan
    points |= found
    _drop_impossible(points)
    return points, None


def transfer_boundaries(points: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Fill gaps in a record's fiducial points from its median beat, and say which points are filled.

    A missing point is placed as far from its R peak as in the median of the record's other beats; points of the T wave
    scale with the cube root of the RR interval before (Fridericia 1920). A point that is hardly ever known stays
    missing, as does one that would contradict the order of the waves.

    Parameters
    ----------
    points : mapping of str to numpy.ndarray
        :data:`FIDUCIAL_COLUMNS` of all beats of a record in order of time, NaN where not found, shape (n_beats,) each.
    """
    r_peak = np.asarray(points["r_peak"], dtype=float)
    filled = {name: np.array(points[name], dtype=float) for name in FIDUCIAL_COLUMNS}
    if r_peak.size < FEWEST_KNOWN:
        return filled, {name: np.zeros(r_peak.size, dtype=bool) for name in filled}
    rr = np.diff(r_peak, prepend=np.nan)
    rate = np.cbrt(np.where(np.isfinite(rr), rr, np.nanmedian(rr)) / np.nanmedian(rr))
    for name, places in filled.items():
        known = np.isfinite(places)
        if known.sum() >= max(FEWEST_KNOWN, LEAST_KNOWN * known.size):
            scale = rate if name in WAVES["T"] else 1.0
            distance = np.median(((places - r_peak) / scale)[known])
            filled[name] = np.where(known, places, r_peak + scale * distance)
    possible = {name: places.copy() for name, places in filled.items()}
    _drop_impossible(possible)
    transferred = {name: ~np.isfinite(points[name]) & np.isfinite(possible[name]) for name in filled}
    return {name: np.where(transferred[name], filled[name], points[name]) for name in filled}, transferred


def _find_beats(x: np.ndarray, fs: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, str | None]:
    """Bridge, scale (R waves near 1) and filter a lead: its samples, R peaks, lost samples, and why there are none."""
    nothing = np.zeros(0), np.zeros(0, dtype=int), np.zeros(0, dtype=bool)
    if not fs > 2 * HIGH_HZ:
        return *nothing, RATE_TOO_LOW
    if len(x) < SHORTEST_S * fs:
        return *nothing, Problem.TOO_SHORT
    filled, lost = (of[0] for of in fill_gaps(np.asarray(x, dtype=np.float64)[None], fs))
    if lost.mean() > MISSING_SHARE:
        return *nothing, Problem.NOT_A_NUMBER
    # NeuroKit2 adds amplitudes to times when it scores T waves, so the scale of the lead matters
    # to it: a typical second is made to span 1, as in a lead in mV.
    centred = filled - np.median(filled)
    span = np.quantile(block_spans(centred, fs), 0.75)
    if not (np.isfinite(span) and span > 1e-9 * np.abs(filled).max()):
        return *nothing, Problem.FLAT
    values, peaks = _find_r_peaks(centred / span, fs, HIGH_HZ)
    if len(peaks) * 60 < _SUSPECT_RATE_BPM * len(x) / fs:
        # Mains hum or muscle noise can hide the slopes of the QRS below 40 Hz, but not below 25 Hz.
        smooth, smooth_peaks = _find_r_peaks(centred / span, fs, _NARROW_HIGH_HZ)
        if len(smooth_peaks) > _SUSPECT_GAIN * len(peaks):
            values, peaks = smooth, smooth_peaks
    return values, peaks[~lost[peaks]], lost, None


def _neurokit(function: str, *arguments: object, **options: object) -> object:
    """Call a function of NeuroKit2; None where it gives up."""
    import neurokit2  # takes a second, and only those who delineate need it

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return getattr(neurokit2, function)(*arguments, **options)
        except Exception:  # It raises ValueError, IndexError, ZeroDivisionError... on unusual leads.
            return None


def _find_r_peaks(lead: np.ndarray, fs: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Filter a lead and find its R peaks by NeuroKit2's gradient method; none where it gives up."""
    values = bandpass(lead, fs, high=high).astype(np.float64)
    found = _neurokit("ecg_findpeaks", values, sampling_rate=fs, method="neurokit")
    return values, np.asarray(found["ECG_R_Peaks"] if found else [], dtype=int)


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
    """Boundaries and peaks of P and T, found for up to 64 beats at a time, with two beats of overlap on either side.

    The wavelet delineator works at 2 kHz: half an hour at once would take a gigabyte.
    """
    points = {column: np.full(peaks.size, np.nan) for column in FIDUCIAL_COLUMNS if column != "r_peak"}
    for first in range(0, peaks.size, _CHUNK_BEATS):
        last = min(first + _CHUNK_BEATS, peaks.size)
        low, high = max(first - _MARGIN_BEATS, 0), min(last + _MARGIN_BEATS, peaks.size)
        start = 0 if low == 0 else (peaks[low - 1] + peaks[low]) // 2
        stop = values.size if high == peaks.size else (peaks[high - 1] + peaks[high]) // 2
        given = "ecg_delineate", values[start:stop], peaks[low:high] - start
        found = {method: _neurokit(*given, sampling_rate=fs, method=method) for method in ("prominence", "dwt")}
        for column, all_places in points.items():
            wave, part = column.split("_")
            by = found["dwt" if column == "qrs_offset" else "prominence"]
            places = (by[1].get(f"ECG_{wave.replace('qrs', 'r').upper()}_{part.title()}s") or []) if by else []
            # points before the first sample, which only the first beats can have, are left out: the last beat is sure
            placed = np.r_[np.full(high - low - len(places), np.nan), np.asarray(places, dtype=float)]
            all_places[first:last] = placed[first - low : last - low] + start
    return points


def _drop_impossible(points: dict[str, np.ndarray]) -> None:
    """Set points to NaN, in place, that contradict the order of the waves in a heartbeat."""
    r_peak = points["r_peak"]
    previous, following = np.r_[-np.inf, r_peak[:-1]], np.r_[r_peak[1:], np.inf]

    def keep_between(after: np.ndarray, column: str, before: np.ndarray, *others: str) -> None:
        wrong = ~((after < points[column]) & (points[column] < before))
        for name in (column, *others):
            points[name][wrong] = np.nan

    keep_between(previous, "qrs_onset", r_peak)
    keep_between(r_peak, "qrs_offset", following)
    qrs_start, qrs_stop = np.fmin(points["qrs_onset"], r_peak), np.fmax(points["qrs_offset"], r_peak)
    keep_between(qrs_stop, "t_peak", following, "t_onset", "t_offset")
    last_peak = np.fmax(previous, np.r_[-np.inf, points["t_peak"][:-1]])
    keep_between(last_peak, "p_peak", qrs_start, "p_onset", "p_offset")
    keep_between(previous, "p_onset", points["p_peak"])
    keep_between(points["t_peak"], "t_offset", following)
    # in whole samples: a wave may end where the QRS starts, or start where it ends
    keep_between(points["p_peak"], "p_offset", qrs_start + 1)
    keep_between(qrs_stop - 1, "t_onset", points["t_peak"])
