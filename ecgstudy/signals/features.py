"""The shape of a lead's beats: their average, and amplitudes and intervals of PQRST with names and units.

Source of the features: "ECG Unveiled", arXiv 2408.10228 (2024): differences of amplitude and durations between the
five peaks, averaged. The paper names its strongest features (R-S interval, S-R amplitude, T-R amplitude, P-Q
interval) but not the whole list; here every pair of peaks gives one amplitude and one interval, and the wave
boundaries five durations more.
"""

from itertools import combinations

import numpy as np
import pandas as pd

_PAIRS = list(combinations("PQRST", 2))
_DURATIONS = {
    "P duration": ("p_onset", "p_offset"),
    "PR duration": ("p_onset", "qrs_onset"),
    "QRS duration": ("qrs_onset", "qrs_offset"),
    "QT duration": ("qrs_onset", "t_offset"),
    "T duration": ("t_onset", "t_offset"),
}
FEATURES: dict[str, str] = {
    **{f"{one}-{other} interval": "ms" for one, other in _PAIRS},
    **{f"{other}-{one} amplitude": "signal" for one, other in _PAIRS},
    **dict.fromkeys(_DURATIONS, "ms"),
    "R-R interval": "ms",
}
"""Unit of each feature in column order; "signal" is the unit of the recording.

"Q-T interval" is between the peaks of Q and T; "QT duration" is the clinical QT, from the onset of QRS to the end of
T. "S-R amplitude" is the amplitude at the S peak less that at the R peak.
"""


def average_beat(values: np.ndarray, r_peaks: np.ndarray, before: int, after: int) -> np.ndarray:
    """Take the median over the beats of one recording, aligned at their R peaks (one artefact would bend a mean).

    (n_leads, n_samples) -> (n_leads, before + after); NaN where no beat lies wholly inside the recording.
    """
    whole = r_peaks[(r_peaks >= before) & (r_peaks + after <= values.shape[-1])]
    if not len(whole):
        return np.full((len(values), before + after), np.nan)
    return np.median(values[:, whole[:, None] + np.arange(-before, after)], axis=1)


def beat_features(values: np.ndarray, fs: float, fiducials: pd.DataFrame) -> pd.DataFrame:
    """Measure every beat of one lead: columns :data:`FEATURES`, NaN where a point is missing.

    `fiducials` has one row a beat, :data:`~ecgstudy.signals.delineation.FIDUCIAL_COLUMNS` in samples. The R-R interval
    of a beat is the one that ends with it. Q and S are the lowest samples from the onset of QRS to R, and from R to
    the end of QRS.
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
    """Median of each of :func:`beat_features` over the beats whose (ascending) R peak lies in each window.

    One row a window that starts at `starts` and is `n_samples` long; NaN where no beat of it has the feature.
    """
    first = np.searchsorted(r_peaks, starts)
    end = np.searchsorted(r_peaks, np.asarray(starts) + n_samples)
    rows = [beats.iloc[a:b].median() for a, b in zip(first, end, strict=True)]
    return pd.DataFrame(rows, columns=beats.columns).reset_index(drop=True)


def _lowest_between(values: np.ndarray, starts: pd.Series, ends: pd.Series) -> np.ndarray:
    """Position of the lowest sample in each [start, end]; NaN where a bound is missing or outside the lead."""
    found = np.full(len(starts), np.nan)
    for beat, (start, end) in enumerate(zip(starts.to_numpy(float), ends.to_numpy(float), strict=True)):
        if 0 <= start <= end <= len(values) - 1:  # NaN compares as outside
            first = round(start)
            found[beat] = first + np.argmin(values[first : round(end) + 1])
    return found


def _sample_at(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Value at each (rounded) place; NaN where the place is missing or outside the lead."""
    inside = (places >= 0) & (places <= len(values) - 1)
    heights = np.full(len(places), np.nan)
    heights[inside] = values[np.rint(places[inside]).astype(int)]
    return heights
