"""Amplitude and interval features of PQRST beats, with names and units: the transparent view of an ECG.

Source: "ECG Unveiled", arXiv 2408.10228 (2024): differences of amplitude and
durations between the five peaks, averaged. The paper names its strongest
features (R-S interval, S-R amplitude, T-R amplitude, P-Q interval) but not the
whole list; here every pair of peaks gives one amplitude and one interval, and
the wave boundaries five durations more.
"""

from itertools import combinations

import numpy as np
import pandas as pd

PEAKS = ("P", "Q", "R", "S", "T")
_DURATIONS = {
    "P duration": ("p_onset", "p_offset"),
    "PR duration": ("p_onset", "qrs_onset"),
    "QRS duration": ("qrs_onset", "qrs_offset"),
    "QT duration": ("qrs_onset", "t_offset"),
    "T duration": ("t_onset", "t_offset"),
}
_PAIRS = list(combinations(PEAKS, 2))

FEATURES: dict[str, str] = {
    **{f"{one}-{other} interval": "ms" for one, other in _PAIRS},
    **{f"{other}-{one} amplitude": "signal" for one, other in _PAIRS},
    **dict.fromkeys(_DURATIONS, "ms"),
    "R-R interval": "ms",
}
"""Unit of each feature in column order; "signal" is the unit of the recording.

"Q-T interval" is between the peaks of Q and T; "QT duration" is the clinical
QT, from the onset of QRS to the end of T. "S-R amplitude" is the amplitude at
the S peak less that at the R peak.
"""


def beat_features(values: np.ndarray, fs: float, fiducials: pd.DataFrame) -> pd.DataFrame:
    """Measure every beat of one lead.

    Parameters
    ----------
    values : numpy.ndarray
        Samples of the lead, shape (n_samples,).
    fs : float
        Sampling rate in Hz.
    fiducials : pandas.DataFrame
        One row a beat, columns p_onset, p_peak, p_offset, qrs_onset, r_peak,
        qrs_offset, t_onset, t_peak, t_offset in samples, NaN where not found.

    Returns
    -------
    pandas.DataFrame
        One row a beat, columns :data:`FEATURES`; NaN where a point is missing.
        The R-R interval of a beat is the one that ends with it.

    Notes
    -----
    Q and S are the lowest samples between the onset of QRS and R, and between
    R and the end of QRS.
    """
    place = {
        "P": fiducials["p_peak"].to_numpy(float),
        "Q": _lowest_between(values, fiducials["qrs_onset"], fiducials["r_peak"]),
        "R": fiducials["r_peak"].to_numpy(float),
        "S": _lowest_between(values, fiducials["r_peak"], fiducials["qrs_offset"]),
        "T": fiducials["t_peak"].to_numpy(float),
    }
    height = {wave: _sample_at(values, samples) for wave, samples in place.items()}
    ms = 1000.0 / fs
    measured = {f"{one}-{other} interval": (place[other] - place[one]) * ms for one, other in _PAIRS}
    measured |= {f"{other}-{one} amplitude": height[other] - height[one] for one, other in _PAIRS}
    measured |= {
        name: ((fiducials[end] - fiducials[start]) * ms).to_numpy(float) for name, (start, end) in _DURATIONS.items()
    }
    measured["R-R interval"] = np.diff(place["R"], prepend=np.nan) * ms
    return pd.DataFrame(measured, columns=list(FEATURES))


def window_features(beats: pd.DataFrame, r_peaks: np.ndarray, starts: np.ndarray, n_samples: int) -> pd.DataFrame:
    """Median of each feature over the beats whose R peak lies in a window.

    Parameters
    ----------
    beats : pandas.DataFrame
        As :func:`beat_features` gives.
    r_peaks : numpy.ndarray
        R peak of each beat in samples, ascending, shape (n_beats,).
    starts : numpy.ndarray
        First sample of each window, shape (n_windows,).
    n_samples : int
        Length of a window.

    Returns
    -------
    pandas.DataFrame
        Shape (n_windows, n_features); NaN where no beat of the window has the feature.
    """
    first = np.searchsorted(r_peaks, starts)
    end = np.searchsorted(r_peaks, np.asarray(starts) + n_samples)
    rows = [beats.iloc[a:b].median() for a, b in zip(first, end, strict=True)]
    return pd.DataFrame(rows, columns=beats.columns).reset_index(drop=True)


def _lowest_between(values: np.ndarray, starts: pd.Series, ends: pd.Series) -> np.ndarray:
    """Position of the lowest sample in each [start, end]; NaN where a bound is missing or outside the lead."""
    found = np.full(len(starts), np.nan)
    for beat, (start, end) in enumerate(zip(starts.to_numpy(float), ends.to_numpy(float), strict=True)):
        if np.isfinite(start) and np.isfinite(end) and 0 <= start <= end <= len(values) - 1:
            first = round(start)
            found[beat] = first + np.argmin(values[first : round(end) + 1])
    return found


def _sample_at(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Value at each (rounded) place; NaN where the place is missing or outside the lead."""
    inside = (places >= 0) & (places <= len(values) - 1)  # NaN compares as outside
    heights = np.full(len(places), np.nan)
    heights[inside] = values[np.rint(places[inside]).astype(int)]
    return heights
