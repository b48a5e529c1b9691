"""Disclosure of identity by scores: ZEBRA, Cllr and PAV calibration, and global linkability D_sys.

ZEBRA (Nautsch et al. 2020, Interspeech, arXiv 2005.09413) asks how much evidence optimally calibrated scores carry: for
the population the expected information D_ECE in bits, for the individual the strongest log10 likelihood ratio any trial
reaches, with its tag. Cllr: Bruemmer & du Preez 2006, Comput. Speech Lang. 20(2-3):230. All logarithms are natural
unless a name says otherwise.

D_sys (Gomez-Barrero et al. 2018, IEEE TIFS 13(6):1406; also arXiv 2311.04633): 0 = mated and non-mated scores cannot be
told apart, 1 = fully linkable. The histogram estimator is biased upwards on few trials (0.05-0.06 at 50 to 1,000 mated
pairs where the truth is 0), so it is never reported without its permutation null.
"""

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import isotonic_regression
from scipy.special import logit
from sklearn.linear_model import LogisticRegression

from ecgstudy.evaluate.trials import ScoreLevels

TAGS = (("0", 0.0), ("A", 1.0), ("B", 2.0), ("C", 4.0), ("D", 5.0), ("E", 6.0), ("F", math.inf))
"""ZEBRA's categorical tags, each with the largest |log10 LR| it covers."""
MIN_MATED = 20
"""Fewest mated trials for D_sys: it takes a tenth of them as its number of bins, and one bin sees nothing."""
_MAX_BINS, _MATED_PER_BIN = 100, 10


def pav_llr(levels: ScoreLevels, laplace: bool = False) -> np.ndarray:
    """Optimally calibrated natural-log likelihood ratio of each level, ascending, by isotonic regression (PAV).

    Every level must have weight, and both labels must occur. `laplace` adds one genuine and one impostor trial beyond
    either end of the scores, as ZEBRA does for the worst case: no likelihood ratio is then infinite.
    """
    weight = levels.genuine + levels.impostor
    share = levels.genuine / weight
    if laplace:
        share, weight = np.concatenate([[0.5], share, [0.5]]), np.concatenate([[2.0], weight, [2.0]])
    # averaging leaves posteriors an ulp outside [0, 1]
    posterior = np.clip(isotonic_regression(share, weights=weight).x, 0.0, 1.0)
    return logit(posterior[1:-1] if laplace else posterior) - math.log(levels.genuine.sum() / levels.impostor.sum())


def zebra_bits(levels: ScoreLevels) -> float:
    """Compute the population disclosure D_ECE: information on identity, in bits, averaged over all prior probabilities.

    The integral over the prior of the entropy of the prior minus the empirical cross-entropy (ECE) of the calibrated
    scores, from 0 (perfect privacy) to ``0.5 / log(2)`` = 0.721 (scores that separate perfectly); NaN where a label is
    absent. A trial of likelihood ratio L costs, over all priors, the closed form ``1 / (2a) - log(L) / (2a^2)`` nat
    with ``a = L - 1`` (1/4 at L = 1), with 1/L for an impostor trial.
    """
    if levels.one_sided:
        return math.nan
    llr = pav_llr(levels)
    cost = _mean(_expected_cost(llr), levels.genuine) + _mean(_expected_cost(-llr), levels.impostor)
    return float((0.5 - cost) / math.log(2))


def zebra_worst_case(levels: ScoreLevels) -> float:
    """Largest absolute log10 LR of any trial, calibrated with Laplace's rule; NaN where a label is absent."""
    return math.nan if levels.one_sided else float(np.max(np.abs(pav_llr(levels, laplace=True))) / math.log(10))


def zebra_tag(worst_case: float) -> str:
    """Tag of a worst-case |log10 LR|: 0 (none), A (<= 1), B (<= 2), C (<= 4), D (<= 5), E (<= 6), F; "-" for NaN."""
    if math.isnan(worst_case):
        return "-"
    # calibration of meaningless scores leaves rounding of this size where the paper's tag expects 0
    rounded = 0.0 if worst_case < 1e-12 else worst_case
    return next(tag for tag, limit in TAGS if rounded <= limit)


def cllr(
    genuine_llr: np.ndarray, impostor_llr: np.ndarray, genuine_weights: np.ndarray, impostor_weights: np.ndarray
) -> float:
    """Log-likelihood-ratio cost in bits of natural-log ratios: 0 = perfect, 1 = uninformative, above = misleading.

    NaN where a label has no weight.
    """
    if genuine_weights.sum() <= 0 or impostor_weights.sum() <= 0:
        return math.nan
    missed = _mean(np.logaddexp(0, -genuine_llr), genuine_weights)
    return float((missed + _mean(np.logaddexp(0, impostor_llr), impostor_weights)) / (2 * math.log(2)))


def cllr_min(levels: ScoreLevels) -> float:
    """Cllr after optimal (PAV) calibration: discrimination alone; NaN where a label is absent."""
    if levels.one_sided:
        return math.nan
    llr = pav_llr(levels)
    return cllr(llr, llr, levels.genuine, levels.impostor)


def logistic_llr(train_scores: ArrayLike, train_genuine: ArrayLike, scores: ArrayLike) -> np.ndarray:
    """Natural-log likelihood ratios of `scores` by a logistic calibration fitted on other trials of both labels.

    The two labels weigh the same in the fit, so that the odds are the likelihood ratio.
    """
    train = np.ravel(train_scores).astype(np.float64)
    centre, scale = train.mean(), train.std() or 1.0
    model = LogisticRegression(C=1e6, class_weight="balanced")
    model.fit(((train - centre) / scale)[:, None], np.ravel(train_genuine))
    return model.decision_function(((np.ravel(scores) - centre) / scale)[:, None])


def _expected_cost(llr: np.ndarray) -> np.ndarray:
    """Integral over the prior p of ``p * log(1 + (1 - p) / (p L))`` for ``L = exp(llr)``, in nat."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        inverse = 1 / np.expm1(llr)
        closed_form = inverse / 2 - llr * inverse**2 / 2
    # near L = 1 the closed form cancels: its expansion takes over
    near = np.abs(llr) < 1e-4
    a = np.expm1(np.where(near, llr, 0.0))
    return np.where(near, 0.25 - a / 6 + a**2 / 8, np.where(np.isposinf(llr), 0.0, closed_form))


def _mean(values: np.ndarray, weights: np.ndarray) -> float:
    """Weighted mean over what has weight (an infinite or undefined value without weight does not count)."""
    used = weights > 0
    return float(np.average(values[used], weights=weights[used]))


class Linkability:
    """D_sys of one set of scores (n_trials,), some of them `mated`, under any weights.

    The number of bins, ``min(n_mated / 10, 100)``, and their edges, equal widths over the range of all scores, are
    those of the full set, also in resamples. The densities are constant within a bin, and the integral is taken
    exactly; the authors' trapezoidal rule over bin centres drops half of the two outer bins, which keeps separable
    scores from reaching 1. `problem` says why D_sys is undefined; it is empty where it is not.
    """

    def __init__(self, scores: ArrayLike, mated: ArrayLike) -> None:
        values = np.ravel(scores).astype(np.float64)
        self.mated = np.ravel(mated).astype(bool)
        n_mated = int(np.count_nonzero(self.mated))
        few = f"{n_mated} genuine trials; D_sys needs {MIN_MATED}" if n_mated < MIN_MATED else ""
        self.problem = few or ("there is no impostor trial" if self.mated.all() else "")
        if not self.problem:
            self._n_bins = min(n_mated // _MATED_PER_BIN, _MAX_BINS)
            edges = np.linspace(values.min(), values.max(), self._n_bins + 1)
            self._bin = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, self._n_bins - 1)

    def d_sys(self, weights: np.ndarray) -> float:
        """D_sys of the trials under `weights`, shape (n_trials,); NaN where undefined."""
        return math.nan if self.problem else self._d_sys(self.mated, weights)

    def null_draws(self, n_permutations: int, rng: np.random.Generator) -> np.ndarray:
        """D_sys under permuted labels, which mean nothing, shape (n_permutations,)."""
        ones = np.ones(self.mated.size)
        return np.array([self._d_sys(rng.permutation(self.mated), ones) for _ in range(n_permutations)])

    def _d_sys(self, mated: np.ndarray, weights: np.ndarray) -> float:
        """Sum of D(bin) p(bin | mated), with D = 2 LR / (1 + LR) - 1 for LR > 1 and 0 otherwise (prior ratio 1)."""
        everything = np.bincount(self._bin, weights, self._n_bins)
        p = np.bincount(self._bin[mated], weights[mated], self._n_bins)
        # where a bin holds no non-mated trial the difference is only rounding
        q = np.where(everything - p > 1e-9 * everything, everything - p, 0.0)
        if p.sum() <= 0 or q.sum() <= 0:
            return math.nan
        p, q = p / p.sum(), q / q.sum()
        # 2 LR / (1 + LR) - 1 = (p - q) / (p + q), which also holds for an empty non-mated bin
        local = np.divide(p - q, p + q, out=np.zeros_like(p), where=p > q)
        return float(local @ p)
