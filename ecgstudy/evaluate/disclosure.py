"""Disclosure of identity by scores: ZEBRA, Cllr and PAV calibration.

ZEBRA (Nautsch et al. 2020, Interspeech, arXiv 2005.09413) asks how much evidence optimally calibrated
scores carry: for the population the expected information D_ECE in bits, for the individual the strongest
log10 likelihood ratio any trial reaches, with its tag. Cllr: Bruemmer & du Preez 2006, Comput. Speech
Lang. 20(2-3):230. All logarithms are natural unless a name says otherwise.
"""

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import isotonic_regression
from scipy.special import logit
from sklearn.linear_model import LogisticRegression

from ecgstudy.evaluate.levels import ScoreLevels

PERFECT_DISCLOSURE = 0.5 / math.log(2)
"""D_ECE of scores that separate perfectly, in bits (0.721); 0 means perfect privacy."""

TAGS = (("0", 0.0), ("A", 1.0), ("B", 2.0), ("C", 4.0), ("D", 5.0), ("E", 6.0), ("F", math.inf))
"""ZEBRA's categorical tags, each with the largest |log10 LR| it covers."""


def pav_llr(levels: ScoreLevels, laplace: bool = False) -> np.ndarray:
    """Optimally calibrated log-likelihood ratio of each level, by isotonic regression (PAV).

    Parameters
    ----------
    levels : ScoreLevels
        The trials; every level must have weight, and both labels must occur.
    laplace : bool
        Add one genuine and one impostor trial beyond either end of the scores, as ZEBRA does for the
        worst case: no likelihood ratio is then infinite.

    Returns
    -------
    numpy.ndarray
        Natural-log LR, ascending, shape (n_levels,).
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

    The integral over the prior of the entropy of the prior minus the empirical cross-entropy (ECE) of
    the calibrated scores. A trial of likelihood ratio L costs, over all priors, the closed form
    ``1 / (2a) - log(L) / (2a^2)`` nat with ``a = L - 1`` (1/4 at L = 1), with 1/L for an impostor trial.

    Returns
    -------
    float
        Between 0 and :data:`PERFECT_DISCLOSURE`; NaN where a label is absent.
    """
    if _lacks_a_label(levels):
        return math.nan
    llr = pav_llr(levels)
    cost = _mean(_expected_cost(llr), levels.genuine) + _mean(_expected_cost(-llr), levels.impostor)
    return float((0.5 - cost) / math.log(2))


def zebra_worst_case(levels: ScoreLevels) -> float:
    """Largest absolute log10 LR of any trial, calibrated with Laplace's rule; NaN where a label is absent."""
    if _lacks_a_label(levels):
        return math.nan
    return float(np.max(np.abs(pav_llr(levels, laplace=True))) / math.log(10))


def zebra_tag(worst_case: float) -> str | None:
    """Tag of a worst-case |log10 LR|: 0 (none), A (<= 1), B (<= 2), C (<= 4), D (<= 5), E (<= 6), F; None for NaN."""
    if math.isnan(worst_case):
        return None
    # calibration of meaningless scores leaves rounding of this size where the paper's tag expects 0
    rounded = 0.0 if worst_case < 1e-12 else worst_case
    return next(tag for tag, limit in TAGS if rounded <= limit)


def cllr(genuine_llr: ArrayLike, impostor_llr: ArrayLike) -> float:
    """Log-likelihood-ratio cost in bits: 0 = perfect, 1 = uninformative, above 1 = misleading calibration.

    Parameters
    ----------
    genuine_llr, impostor_llr : array_like
        Natural-log likelihood ratios the system claims; NaN is returned where either is empty.
    """
    genuine, impostor = np.ravel(genuine_llr), np.ravel(impostor_llr)
    if not genuine.size or not impostor.size:
        return math.nan
    return weighted_cllr(genuine, impostor, np.ones(genuine.size), np.ones(impostor.size))


def weighted_cllr(
    genuine_llr: np.ndarray, impostor_llr: np.ndarray, genuine_weights: np.ndarray, impostor_weights: np.ndarray
) -> float:
    """:func:`cllr` of weighted trials; NaN where a label has no weight."""
    if genuine_weights.sum() <= 0 or impostor_weights.sum() <= 0:
        return math.nan
    cost = _mean(np.logaddexp(0, -genuine_llr), genuine_weights) + _mean(
        np.logaddexp(0, impostor_llr), impostor_weights
    )
    return float(cost / (2 * math.log(2)))


def cllr_min(levels: ScoreLevels) -> float:
    """Cllr after optimal (PAV) calibration: discrimination alone; NaN where a label is absent."""
    if _lacks_a_label(levels):
        return math.nan
    llr = pav_llr(levels)
    return weighted_cllr(llr, llr, levels.genuine, levels.impostor)


def logistic_llr(train_scores: ArrayLike, train_genuine: ArrayLike, scores: ArrayLike) -> np.ndarray:
    """Log-likelihood ratios by a logistic calibration fitted on other trials.

    Parameters
    ----------
    train_scores, train_genuine : array_like
        Scores and bool labels of the calibration trials; both labels must occur.
    scores : array_like
        Scores to calibrate.

    Returns
    -------
    numpy.ndarray
        Natural-log LR, shape of `scores`. The two labels weigh the same in the fit, so that the odds are the LR.
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


def _lacks_a_label(levels: ScoreLevels) -> bool:
    """Whether there is no genuine or no impostor weight."""
    return levels.genuine.sum() <= 0 or levels.impostor.sum() <= 0
