"""Which wave of the heartbeat each sample of a window belongs to, from fiducial points.

Waves tile the beat: each begins where the one before it ends. Boundaries are half open, so a sample at an
onset belongs to the wave that begins there.
"""

from enum import StrEnum

import numpy as np
import pandas as pd

from ecgstudy.signals.delineation import FIDUCIAL_COLUMNS

WAVES = ("P", "PR", "QRS", "ST", "T", "TP")
"""P wave, P-R segment, QRS complex, S-T segment, T wave, T-P rest; a sample's code is the position in this tuple."""
UNKNOWN_WAVE = -1
"""Code of a sample that lies between no two known boundaries."""
LEAST_KNOWN = 0.9
"""Share of the samples between a window's first and last R peak that must have a code for the window to count."""
BOUNDARIES = (
    ("p_onset", "p_offset"),
    ("p_offset", "qrs_onset"),
    ("qrs_onset", "qrs_offset"),
    ("qrs_offset", "t_onset"),
    ("t_onset", "t_offset"),
    ("t_offset", "next_p_onset"),
)
"""Where each of :data:`WAVES` begins and ends."""
_PAINTED = tuple(WAVES.index(wave) for wave in ("PR", "ST", "TP", "T", "P", "QRS"))
"""At high rates P begins before T has ended, and noisy boundaries cross: of two waves the one painted later wins."""

REGIONS = {
    "R wave": ("r_onset", "r_offset"),
    "QRS complex": ("qrs_onset", "qrs_offset"),
    "P-R interval": ("p_onset", "r_peak"),
    "P-Q interval": ("p_onset", "qrs_onset"),
    "S-T interval": ("qrs_offset", "t_offset"),
}
"""Regions that TransECG names (arXiv 2503.13495), and where each begins and ends.

The paper does not publish its definitions; these are OURS. It tells P-R from P-Q interval, so the first is taken
to the R peak and the second to the onset of QRS (what cardiology calls the PR interval). The R wave is
the inner half of QRS: from midway between QRS onset and R peak to midway between R peak and QRS offset.
Regions overlap, so their shares do not add up to 1.
"""


class Undelineated(StrEnum):
    """Why a window has no usable wave codes."""

    NO_BEATS = "no beats"
    ONE_BEAT = "fewer than two beats"
    NO_P = "P wave not found"
    NO_QRS = "QRS complex not found"
    NO_T = "T wave not found"


_NOT_FOUND = {"p": Undelineated.NO_P, "qrs": Undelineated.NO_QRS, "t": Undelineated.NO_T}


def wave_codes(fiducials: pd.DataFrame, n_samples: int) -> tuple[np.ndarray, Undelineated | None]:
    """Wave of every sample of a window.

    A window counts when it holds two R peaks and :data:`LEAST_KNOWN` of the samples from the first to the last of
    them have a code. Samples before and after are coded as far as boundaries are known, so give the beats that
    lie around the window too.

    Parameters
    ----------
    fiducials : pandas.DataFrame
        Columns the fiducials in (fractional) samples from the window's start, NaN
        where not found; one row a beat in order of time. Points may lie outside the window.
    n_samples : int
        Length of the window.

    Returns
    -------
    codes : numpy.ndarray
        int8, shape (n_samples,): positions in :data:`WAVES`, :data:`UNKNOWN_WAVE` where not known.
    reason : Undelineated or None
        Why the window does not count; the wave that is missing most often where several are.
    """
    codes = np.full(n_samples, UNKNOWN_WAVE, dtype=np.int8)
    points = fiducial_points(fiducials)
    for wave in _PAINTED:
        for start, stop in _spans(points, BOUNDARIES[wave], n_samples):
            codes[start:stop] = wave
    return codes, _reason(points, codes)


def region_masks(fiducials: pd.DataFrame, n_samples: int) -> np.ndarray:
    """Mark the samples of a window that belong to each of :data:`REGIONS`, bool, shape (n_regions, n_samples)."""
    masks = np.zeros((len(REGIONS), n_samples), dtype=bool)
    points = fiducial_points(fiducials)
    for mask, boundaries in zip(masks, REGIONS.values(), strict=True):
        for start, stop in _spans(points, boundaries, n_samples):
            mask[start:stop] = True
    return masks


def on_common_samples(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Make a sample unknown in both of two codings where either does not know it, so that their tables compare."""
    either = (one == UNKNOWN_WAVE) | (other == UNKNOWN_WAVE)
    return np.where(either, UNKNOWN_WAVE, one).astype(np.int8), np.where(either, UNKNOWN_WAVE, other).astype(np.int8)


def fiducials_of_boundaries(boundaries: pd.DataFrame, scale: float, start: float) -> pd.DataFrame:
    """Arrange reference boundaries, one row a wave, as fiducial points, one row a beat.

    A QRS complex takes the last P between the QRS before and itself, and the first T between itself and the next.

    Parameters
    ----------
    boundaries : pandas.DataFrame
        Columns wave ("P", "QRS", "T"), onset, peak, offset in samples of the source, as
        ``LudbCohort.boundaries`` and ``SyntheticCohort.boundaries`` give them.
    scale : float
        Samples of the window's rate per sample of the source.
    start : float
        Start of the window in samples of its own rate.

    Returns
    -------
    pandas.DataFrame
        Columns the fiducials, in samples from the window's start.
    """
    ordered = boundaries.sort_values("peak", kind="stable")
    places = {
        wave: ordered.loc[ordered["wave"] == wave, ["onset", "peak", "offset"]].to_numpy(dtype=float)
        for wave in ("P", "QRS", "T")
    }
    peaks = places["QRS"][:, 1]
    p, t = (
        _of_each_beat(places["P"], np.r_[-np.inf, peaks[:-1]], peaks, last=True),
        _of_each_beat(places["T"], peaks, np.r_[peaks[1:], np.inf], last=False),
    )
    points = np.concatenate([p, places["QRS"], t], axis=1) * scale - start
    return pd.DataFrame(points, columns=list(FIDUCIAL_COLUMNS))


def fiducial_points(fiducials: pd.DataFrame) -> dict[str, np.ndarray]:
    """Give the fiducial points by name, shape (n_beats,) each, with those that follow from them.

    ``next_p_onset`` is where T-P rest ends; ``r_onset`` and ``r_offset`` bound the inner half of QRS.
    """
    points = {column: fiducials[column].to_numpy(dtype=float) for column in FIDUCIAL_COLUMNS}
    points["next_p_onset"] = np.append(points["p_onset"][1:], np.nan)[: len(fiducials)]
    points["r_onset"] = (points["qrs_onset"] + points["r_peak"]) / 2
    points["r_offset"] = (points["r_peak"] + points["qrs_offset"]) / 2
    return points


def _of_each_beat(waves: np.ndarray, after: np.ndarray, before: np.ndarray, last: bool) -> np.ndarray:
    """First or last wave whose peak lies between `after` and `before`, a row a beat; NaN where there is none."""
    found = np.full((len(after), 3), np.nan)
    low, high = np.searchsorted(waves[:, 1], after), np.searchsorted(waves[:, 1], before)
    there = high > low
    found[there] = waves[(high - 1 if last else low)[there]]
    return found


def _spans(points: dict[str, np.ndarray], boundaries: tuple[str, str], n_samples: int) -> np.ndarray:
    """First sample and last sample + 1 of a wave in each beat where both boundaries are known, shape (n, 2)."""
    edges = np.stack([points[name] for name in boundaries], axis=1)
    edges = edges[np.isfinite(edges).all(axis=1)]
    return np.clip(np.ceil(edges), 0, n_samples).astype(np.int64)


def _reason(points: dict[str, np.ndarray], codes: np.ndarray) -> Undelineated | None:
    """Why a window does not count, or None."""
    peaks = points["r_peak"]
    inside = (peaks >= 0) & (peaks < codes.size)
    if inside.sum() < 2:
        return Undelineated.ONE_BEAT if inside.any() else Undelineated.NO_BEATS
    first, last = np.ceil(peaks[inside][[0, -1]]).astype(np.int64)
    if (codes[first:last] != UNKNOWN_WAVE).mean() >= LEAST_KNOWN:
        return None
    missing = {wave: ~(points[f"{wave}_onset"] < points[f"{wave}_offset"])[inside] for wave in _NOT_FOUND}
    return _NOT_FOUND[max(missing, key=lambda wave: missing[wave].sum())]
