"""Filtering and resampling: every record is brought to one band and one sampling rate.

Arrays are (..., n_samples); the work is done on the last axis, all leads at once.
"""

from dataclasses import replace
from fractions import Fraction
from functools import lru_cache

import numpy as np
from scipy import signal as dsp

from ecgstudy.data.base import Signal
from ecgstudy.errors import StudyError

LOW_HZ, HIGH_HZ = 0.5, 40.0
LONGEST_BRIDGED_GAP_S = 0.04
"""Shorter than half a QRS complex."""
_HIGH_PASS_ORDER, _LOW_PASS_ORDER = 2, 4
_EDGE_S = 2.0
_LARGEST_RATIO_TERM = 2000


@lru_cache(maxsize=64)
def _sections(fs: float, low: float, high: float) -> np.ndarray:
    """Second-order sections of the band-pass, designed once for each rate."""
    # Two filters instead of one band-pass design: at 0.5 Hz a steep filter rings into the ST
    # segment, so the high-pass is of lower order than the low-pass.
    high_pass = dsp.butter(_HIGH_PASS_ORDER, low, "highpass", fs=fs, output="sos")
    low_pass = dsp.butter(_LOW_PASS_ORDER, high, "lowpass", fs=fs, output="sos")
    return np.vstack([high_pass, low_pass])


def bandpass(values: np.ndarray, fs: float, low: float = LOW_HZ, high: float = HIGH_HZ) -> np.ndarray:
    """Band-pass without phase shift: Butterworth, run forwards and backwards.

    High-pass of order 2 at `low`, low-pass of order 4 at `high`; both passes together halve the amplitude (-6 dB)
    at the two corners. One NaN makes its whole lead NaN, so bridge gaps first (:func:`fill_gaps`). ``StudyError`` where
    `fs` is not above twice `high`: the band the study is defined on would not be in the record.
    """
    if not fs > 2 * high:
        raise StudyError(
            f"A sampling rate of {fs:g} Hz cannot hold the band {low:g}-{high:g} Hz: "
            f"leave this record out or record it at more than {2 * high:g} Hz."
        )
    values = np.asarray(values)
    n_samples = values.shape[-1]
    if n_samples == 0:
        return values.astype(np.float32)
    padding = min(n_samples - 1, round(_EDGE_S * fs))
    filtered = dsp.sosfiltfilt(_sections(float(fs), low, high), values.astype(np.float64), axis=-1, padlen=padding)
    return filtered.astype(np.float32)


@lru_cache(maxsize=256)
def _polyphase(fs: float, target_fs: float) -> tuple[Fraction, np.ndarray]:
    """Ratio of two rates in small terms, and the anti-alias filter for it (window method, Kaiser).

    A measured rate such as 497.445 Hz has no small exact ratio; the nearest
    fraction drifts by less than a hundredth of a sample in a minute at 100 Hz.
    """
    ratio = (Fraction(target_fs) / Fraction(fs)).limit_denominator(_LARGEST_RATIO_TERM)
    widest = max(ratio.numerator, ratio.denominator, 2)
    return ratio, dsp.firwin(20 * widest + 1, 1 / widest, window=("kaiser", 5.0))


def resample(values: np.ndarray, fs: float, target_fs: float) -> np.ndarray:
    """Resample (..., n_samples) without aliasing; sample k of the result lies at k / `target_fs` seconds.

    Frequencies above 1.16 times the lower Nyquist rate are attenuated by 50 dB or more. ``StudyError`` for a rate that
    is not a positive number.
    """
    for rate in (fs, target_fs):
        if not (np.isfinite(rate) and rate > 0):
            raise StudyError(f"A sampling rate of {rate} Hz is impossible: correct the header or the profile.")
    values = np.asarray(values)
    n_out = round(values.shape[-1] * target_fs / fs)
    ratio, window = _polyphase(float(fs), float(target_fs))
    if ratio == 1 or values.shape[-1] == 0:
        return values[..., :n_out].astype(np.float32)
    # The record continues in a straight line beyond its ends; with zeros a lead that does not
    # end at zero would ring there.
    up, down = ratio.numerator, ratio.denominator
    resampled = dsp.resample_poly(values.astype(np.float64), up, down, axis=-1, window=window, padtype="line")
    return resampled[..., :n_out].astype(np.float32)


def runs(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, start and stop (excluded) of each run of True, (n_rows, n_samples) -> three arrays of shape (n_runs,)."""
    # False on both sides keeps a run from passing from one row into the next
    padded = np.pad(mask, ((0, 0), (1, 1)))
    edges = np.flatnonzero(np.diff(padded.ravel()))
    rows, starts = np.divmod(edges[::2], padded.shape[1])
    return rows, starts, edges[1::2] % padded.shape[1]


def fill_gaps(values: np.ndarray, fs: float, bridged_s: float = LONGEST_BRIDGED_GAP_S) -> tuple[np.ndarray, np.ndarray]:
    """Replace samples that are not finite by a straight line between their neighbours, and say which are lost.

    `values` has shape (n_leads, n_samples); a lead without any finite sample becomes 0. Lost (bool, the same shape) are
    the samples in gaps longer than `bridged_s`, where the line means nothing.
    """
    missing = ~np.isfinite(values)
    if not missing.any():
        return values, missing
    filled, grid = np.array(values), np.arange(values.shape[-1])
    for lead, holes in enumerate(missing):
        if holes.all():
            filled[lead] = 0.0
        elif holes.any():
            filled[lead, holes] = np.interp(grid[holes], grid[~holes], values[lead, ~holes])
    for row, start, stop in zip(*runs(missing), strict=True):
        missing[row, start:stop] = stop - start > bridged_s * fs
    return filled, missing


def preprocess(signal: Signal, target_fs: float) -> Signal:
    """Bring a record to the study's band (0.5-40 Hz) and to the rate `target_fs`, float32.

    Gaps of at most 40 ms are bridged by a straight line. A longer gap is bridged only for the filter's sake and is
    NaN again in the result, where :func:`ecgstudy.signals.quality.flaws` finds it. ``StudyError`` where the record's
    rate is 80 Hz or less, or `target_fs` not positive.
    """
    filled, lost = fill_gaps(signal.values, signal.fs)
    values = resample(bandpass(filled, signal.fs), signal.fs, target_fs)
    if lost.any():
        nearest = np.rint(np.arange(values.shape[-1]) * signal.fs / target_fs).astype(np.intp)
        values[lost[:, np.minimum(nearest, lost.shape[-1] - 1)]] = np.nan
    return replace(signal, values=values, fs=float(target_fs))
