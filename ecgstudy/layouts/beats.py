"""What a page shows, made ready to be read: filtered and scaled after masking, its beats found, lead by lead averaged.

Nothing that is computed here knows a sample that the page does not show. Arrays are of many records at once, leads in
the order of :data:`~ecgstudy.data.base.STANDARD_LEADS`; a sample that is not shown is exactly 0 and none that is shown
is.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage
from scipy import signal as dsp

from ecgstudy.data.base import STANDARD_LEADS, Cohort
from ecgstudy.deidentification.cycles import rhythm_features
from ecgstudy.layouts.layout import Layout
from ecgstudy.signals.preprocess import bandpass, fill_gaps, resample, runs

FS = 100.0
"""Hz; what pages are read at."""
SECONDS = 10.0
BEFORE, AFTER = 32, 48
"""Samples of a beat before and from its R peak on: -320 to +480 ms."""
POINTS = BEFORE + AFTER
MEDIANS, DEVIATIONS, CONSTANTS = slice(0, 12), slice(12, 24), slice(24, 29)
"""Rows of a record's beats: each lead's median beat, its mean absolute deviation, and numbers repeated over time."""
N_ROWS = CONSTANTS.stop
WAVES = {"P": slice(0, BEFORE - 6), "QRS": slice(BEFORE - 6, BEFORE + 10), "ST-T": slice(BEFORE + 10, POINTS)}
"""Parts of a beat in samples."""
RHYTHM = "rhythm"
PIECES = [*((lead, wave) for lead in STANDARD_LEADS for wave in WAVES), (RHYTHM, RHYTHM)]
"""Lead and wave of each piece of evidence; the last one is the rhythm."""
_SHORTEST_S = 0.3
_TINY = 1e-6
_CHUNK = 256
_CENTRES, _SCALES = np.array([0.8, 0.05, 0.05, 0.03]), np.array([0.15, 0.06, 0.08, 0.06])
_FARTHEST = 4.0


def recordings(cohort: Cohort, record_ids: Sequence[str]) -> np.ndarray:
    """Read samples of records as they are, at :data:`FS`: float32 (n, 12, n_samples), NaN where there are none.

    The first :data:`SECONDS` are taken; a lead that a record does not have, and what is lost in a gap, is NaN.
    """
    length = round(SECONDS * FS)
    values = np.full((len(record_ids), len(STANDARD_LEADS), length), np.nan, dtype=np.float32)
    for row, record_id in enumerate(record_ids):
        signal = cohort.signal(record_id)
        there = [(at, signal.leads.index(lead)) for at, lead in enumerate(STANDARD_LEADS) if lead in signal.leads]
        ours, theirs = np.array(there, dtype=int).reshape(-1, 2).T
        found = as_recorded(signal.values[theirs, : round(SECONDS * signal.fs)], signal.fs)[:, :length]
        values[row, ours, : found.shape[-1]] = found
    return values


def as_recorded(values: np.ndarray, fs: float) -> np.ndarray:
    """Bring samples (n_leads, n) at `fs` Hz to :data:`FS`, float32; NaN where none are known for more than 40 ms."""
    filled, lost = fill_gaps(values, fs)
    found = resample(filled, fs, FS)
    nearest = np.minimum(np.rint(np.arange(found.shape[-1]) * fs / FS).astype(int), lost.shape[-1] - 1)
    return np.where(lost[:, nearest], np.float32(np.nan), found)


def masks(layouts: Sequence[Layout], n_samples: int) -> np.ndarray:
    """Whether each record's page shows each of its samples, bool (n, 12, n_samples)."""
    known = {layout: layout.visible(STANDARD_LEADS, n_samples) for layout in set(layouts)}
    return np.array([known[layout] for layout in layouts])


def sheets(values: np.ndarray, shown: np.ndarray | bool = True) -> np.ndarray:
    """Filter and scale what is shown of records: float32 (n, 12, n_samples), 0 where nothing is shown.

    Every stretch of a lead is brought to the study's band for itself, and every lead to a standard deviation of 1 over
    what is shown of it. A stretch of less than 0.3 s, or around samples that are not finite, is not shown.

    Parameters
    ----------
    values, shown : numpy.ndarray
        Samples in any unit, and whether the page shows them, all that are known unless told; (n, 12, n_samples) at
        :data:`FS`.
    """
    flat = values.reshape(-1, values.shape[-1])
    sheet = np.zeros(flat.shape, dtype=np.float32)
    row, start, stop = runs((shown & np.isfinite(values)).reshape(flat.shape))
    long = stop - start >= _SHORTEST_S * FS
    row, spans = row[long], np.stack([start, stop], axis=1)[long]
    # leads of one column share a stretch of time: all that do are filtered at once
    for first, last in np.unique(spans, axis=0):
        mine = row[(spans == (first, last)).all(axis=1)]
        piece = bandpass(flat[mine, first:last], FS)
        sheet[mine, first:last] = np.where(piece == 0, _TINY, piece)
    there = sheet != 0
    count = np.maximum(there.sum(axis=1, keepdims=True), 1)
    mean = sheet.sum(axis=1, keepdims=True) / count
    sheet = np.where(there, sheet - mean, 0)
    spread = np.sqrt((sheet**2).sum(axis=1, keepdims=True) / count)
    scaled = sheet / np.maximum(spread, _TINY)
    return np.where(there & (scaled == 0), _TINY, scaled).astype(np.float32).reshape(values.shape)


def r_peaks(sheet: np.ndarray) -> list[np.ndarray]:
    """R peaks of records from the slopes of all leads that are shown at each moment, in samples, ascending.

    `sheet` is what :func:`sheets` gives.
    """
    envelope = np.sqrt(slope_power(sheet, 3.0))
    # other columns show other leads, so that what is high is asked of the surroundings
    highest = ndimage.maximum_filter1d(envelope, round(1.6 * FS), axis=-1)
    usual = np.minimum(ndimage.uniform_filter1d(highest, round(4 * FS), axis=-1), highest)
    return [
        dsp.find_peaks(one, height=np.maximum(0.4 * level, _TINY), distance=round(0.25 * FS))[0]
        for one, level in zip(envelope, usual, strict=True)
    ]


def slope_power(sheet: np.ndarray, width: float) -> np.ndarray:
    """Mean square of the slopes of what is shown at each moment, smoothed over `width` samples, (n, n_samples)."""
    both = (sheet[..., 2:] != 0) & (sheet[..., :-2] != 0)
    slopes = np.where(both, sheet[..., 2:] - sheet[..., :-2], 0)
    power = (slopes**2).sum(axis=1) / np.maximum(both.sum(axis=1), 1)
    return ndimage.gaussian_filter1d(np.pad(power, ((0, 0), (1, 1))), width, axis=-1)


def beats(sheet: np.ndarray, peaks: Sequence[np.ndarray]) -> np.ndarray:
    """Median beat of each lead, mean absolute deviation from it, and the rhythm: float32 (n, N_ROWS, POINTS).

    A point of a beat counts where it is shown; where no beat shows it, it is 0. The constants are the rate and its
    irregularity (see :func:`ecgstudy.deidentification.cycles.rhythm_features`; 0 where too few beats are shown), and
    the share of the page's beats that a lead shows, averaged over leads.
    """
    found = np.zeros((len(sheet), N_ROWS, POINTS), dtype=np.float32)
    most = max((len(each) for each in peaks), default=0)
    padded = np.pad(sheet, ((0, 0), (0, 0), (BEFORE, AFTER)))
    for first in range(0, len(sheet) if most else 0, _CHUNK):
        some = slice(first, first + _CHUNK)
        cut = np.zeros((len(padded[some]), len(STANDARD_LEADS), most, POINTS), dtype=np.float32)
        for own, page, at in zip(cut, padded[some], peaks[some], strict=True):
            own[:, : len(at)] = page[:, at[:, None] + np.arange(POINTS)]
        there = cut != 0
        count = there.sum(axis=2)
        median = np.ma.median(np.ma.masked_array(cut, ~there), axis=2).filled(0)
        off = np.abs(np.where(there, cut - median[:, :, None], 0)).sum(axis=2)
        found[some, MEDIANS], found[some, DEVIATIONS] = median, off / np.maximum(count, 1)
        share = count.mean(axis=(1, 2)) / np.maximum([len(at) for at in peaks[some]], 1)
        found[some, -1] = share[:, None]
    rhythm = np.array([rhythm_features(each / FS) for each in peaks]).reshape(-1, len(_CENTRES))
    scaled = np.clip((rhythm - _CENTRES) / _SCALES, -_FARTHEST, _FARTHEST)
    found[:, CONSTANTS.start : -1] = np.nan_to_num(scaled)[..., None]
    return found
