"""Global linkability D_sys (Gomez-Barrero et al. 2018, IEEE TIFS 13(6):1406; also arXiv 2311.04633).

0 = mated and non-mated scores cannot be told apart, 1 = fully linkable. The histogram estimator is biased
upwards on few trials (0.05-0.06 at 50 to 1,000 mated pairs where the truth is 0), so it is never reported
without its permutation null.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

MIN_MATED = 20
"""Fewest mated trials: the estimator takes a tenth of them as its number of bins, and one bin sees nothing."""
_MAX_BINS = 100
_MATED_PER_BIN = 10


class Linkability:
    """D_sys of one set of scores under any weights.

    The number of bins, ``min(n_mated / 10, 100)``, and their edges, equal widths over the range of all
    scores, are those of the full set, also in resamples. The densities are constant within a bin, and the
    integral is taken exactly; the authors' trapezoidal rule over bin centres drops half of the two outer
    bins, which keeps separable scores from reaching 1.

    Parameters
    ----------
    scores : array_like
        All scores, shape (n_trials,).
    mated : array_like
        bool, shape (n_trials,).
    """

    def __init__(self, scores: ArrayLike, mated: ArrayLike) -> None:
        values = np.ravel(scores).astype(np.float64)
        self.mated = np.ravel(mated).astype(bool)
        self.n_mated = int(np.count_nonzero(self.mated))
        self._n_bins = min(self.n_mated // _MATED_PER_BIN, _MAX_BINS)
        if self.problem() is None:
            edges = np.linspace(values.min(), values.max(), self._n_bins + 1)
            self._bin = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, self._n_bins - 1)

    def problem(self) -> str | None:
        """Why D_sys is undefined; None where it is not."""
        if self.n_mated < MIN_MATED:
            return f"{self.n_mated} genuine trials; D_sys needs {MIN_MATED}"
        if self.n_mated == self.mated.size:
            return "there is no impostor trial"
        return None

    def d_sys(self, weights: np.ndarray) -> float:
        """D_sys of the trials under `weights`, shape (n_trials,); NaN where undefined."""
        if self.problem() is not None:
            return math.nan
        return self._from_histograms(*self._histograms(self.mated, weights))

    def null_draws(self, n_permutations: int, rng: np.random.Generator) -> np.ndarray:
        """D_sys under permuted labels, which mean nothing, shape (n_permutations,); NaN where undefined."""
        if self.problem() is not None:
            return np.full(n_permutations, math.nan)
        ones = np.ones(self.mated.size)
        draws = [
            self._from_histograms(*self._histograms(rng.permutation(self.mated), ones)) for _ in range(n_permutations)
        ]
        return np.array(draws)

    def _histograms(self, mated: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weight of the mated and of the non-mated trials by bin, each of shape (n_bins,)."""
        everything = np.bincount(self._bin, weights, self._n_bins)
        of_mated = np.bincount(self._bin[mated], weights[mated], self._n_bins)
        # where a bin holds no non-mated trial the difference is only rounding
        return of_mated, np.where(everything - of_mated > 1e-9 * everything, everything - of_mated, 0.0)

    @staticmethod
    def _from_histograms(mated: np.ndarray, non_mated: np.ndarray) -> float:
        """Sum of D(bin) p(bin | mated), with D = 2 LR / (1 + LR) - 1 for LR > 1 and 0 otherwise (prior ratio 1)."""
        if mated.sum() <= 0 or non_mated.sum() <= 0:
            return math.nan
        p, q = mated / mated.sum(), non_mated / non_mated.sum()
        # 2 LR / (1 + LR) - 1 = (p - q) / (p + q), which also holds for an empty non-mated bin
        local = np.divide(p - q, p + q, out=np.zeros_like(p), where=p > q)
        return float(local @ p)
