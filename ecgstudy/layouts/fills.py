"""Ways to guess what a page does not show, for a classifier that was trained on whole leads.

All learn from whole pages of training records. A page is what :func:`ecgstudy.layouts.beats.sheets` gives, float32
(n, 12, n_samples) with 0 where nothing is shown; a filled one has no 0 left that could be guessed.
"""

from collections.abc import Callable

import numpy as np
from sklearn.neighbors import KNeighborsRegressor

MOMENTS = 2000
"""Moments of training records among which nearest ones are sought."""
NEIGHBOURS = 5
_RIDGE = 1e-2

Fill = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From whole pages to learn from, and pages, to filled pages."""


def linear(whole: np.ndarray, pages: np.ndarray) -> np.ndarray:
    """Least squares from the leads that are shown at the same moment."""
    covariance = np.tensordot(whole, whole, axes=([0, 2], [0, 2])) / (whole.size / whole.shape[1])

    def guess(known: np.ndarray, shown: np.ndarray, hidden: np.ndarray) -> np.ndarray:
        own = covariance[np.ix_(shown, shown)] + _RIDGE * np.eye(len(shown))
        return known @ np.linalg.solve(own, covariance[np.ix_(shown, hidden)])

    return _by_moment(pages, guess)


def knn(whole: np.ndarray, pages: np.ndarray) -> np.ndarray:
    """Mean over the moments of training records that are nearest in the leads that are shown at the same moment."""
    moments = np.moveaxis(whole, 1, 2).reshape(-1, whole.shape[1])
    moments = moments[:: max(len(moments) // MOMENTS, 1)]

    def guess(known: np.ndarray, shown: np.ndarray, hidden: np.ndarray) -> np.ndarray:
        return KNeighborsRegressor(NEIGHBOURS).fit(moments[:, shown], moments[:, hidden]).predict(known)

    return _by_moment(pages, guess)


def copy_lead(whole: np.ndarray, pages: np.ndarray) -> np.ndarray:
    """Copy of the lead, of those shown at the same moment, that is most alike; upside down where it is so."""
    covariance = np.tensordot(whole, whole, axes=([0, 2], [0, 2]))

    def guess(known: np.ndarray, shown: np.ndarray, hidden: np.ndarray) -> np.ndarray:
        between = covariance[np.ix_(shown, hidden)]
        nearest = np.abs(between).argmax(axis=0)
        return known[:, nearest] * np.sign(between[nearest, np.arange(len(hidden))])

    return _by_moment(pages, guess)


def repeat(_: np.ndarray, pages: np.ndarray) -> np.ndarray:
    """Repeat what is shown of each lead, one stretch, all the time."""
    flat = pages.reshape(-1, pages.shape[-1])
    filled = np.zeros_like(flat)
    for row, shown in enumerate(flat != 0):
        at = np.flatnonzero(shown)
        if len(at):
            filled[row] = flat[row, at[(np.arange(flat.shape[1]) - at[0]) % len(at)]]
    return filled.reshape(pages.shape)


def _by_moment(pages: np.ndarray, guess: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """Fill the moments that show the same leads at once."""
    moments = np.moveaxis(pages, 1, 2).reshape(-1, pages.shape[1])
    filled, patterns = moments.copy(), (moments != 0) @ (1 << np.arange(moments.shape[1]))
    for pattern in np.unique(patterns):
        rows = np.flatnonzero(patterns == pattern)
        shown = moments[rows[0]] != 0
        if shown.any() and not shown.all():
            known, hidden = np.flatnonzero(shown), np.flatnonzero(~shown)
            filled[np.ix_(rows, hidden)] = guess(moments[np.ix_(rows, known)], known, hidden)
    return np.moveaxis(filled.reshape(len(pages), pages.shape[2], -1), 2, 1)


FILLS: dict[str, Fill] = {"linear": linear, "knn": knn, "copy": copy_lead, "repeat": repeat}
"""Fills by name."""
