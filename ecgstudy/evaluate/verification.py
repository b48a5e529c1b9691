"""Verification: EER, TAR at a FAR, DET curve and AUROC, from the counts of :mod:`ecgstudy.evaluate.levels`.

A threshold t accepts every score >= t. FAR(t) is the share of impostor trials accepted, FRR(t) the share
of genuine trials rejected (ISO/IEC 19795-1). Gaussian scores that lie d' apart have EER = Phi(-d'/2).
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from ecgstudy.evaluate.levels import ScoreLevels

# Sums of products of resampling weights carry rounding of about 1e-13; one trial is never that small a share.
_ROUNDING = 1e-9


def crossing_level(levels: ScoreLevels) -> int:
    """Return the level at which FAR - FRR turns negative as the threshold passes it; both labels must have weight."""
    genuine_to_here, impostor_to_here = np.cumsum(levels.genuine), np.cumsum(levels.impostor)
    impostor_above = impostor_to_here[-1] - impostor_to_here
    negative = impostor_above * genuine_to_here[-1] - genuine_to_here * impostor_to_here[-1] < 0
    return int(np.argmax(negative))


def eer(levels: ScoreLevels) -> float:
    """Equal error rate: where the DET curve, joined by straight lines, meets FAR = FRR.

    Without ties between genuine and impostor scores the curve has only horizontal and vertical steps and the
    EER is the FAR or FRR of the step that crosses; a tie is a sloping step and is interpolated linearly, so
    that constant scores give exactly 0.5. This is the area-preserving (trapezoidal) ROC convention.

    Returns
    -------
    float
        In [0, 1]; NaN without a genuine or without an impostor trial.
    """
    n_genuine, n_impostor = levels.genuine.sum(), levels.impostor.sum()
    if n_genuine <= 0 or n_impostor <= 0:
        return math.nan
    level = crossing_level(levels)
    far_above = levels.impostor[level + 1 :].sum() / n_impostor
    frr_below = levels.genuine[:level].sum() / n_genuine
    # one of the two rates stands still over a level of a single label: return it, free of rounding
    if levels.impostor[level] == 0:
        return float(far_above)
    if levels.genuine[level] == 0:
        return float(frr_below)
    far_here = levels.impostor[level] / n_impostor
    frr_here = levels.genuine[level] / n_genuine
    share = (far_above + far_here - frr_below) / (far_here + frr_here)
    return float(frr_below + share * frr_here)


def blocking_level(levels: ScoreLevels, far: float) -> int:
    """Highest level that has to be rejected for FAR <= `far`; -1 where everything may be accepted."""
    impostor_from_here = np.cumsum(levels.impostor[::-1])[::-1]
    allowed = far * impostor_from_here[0] * (1 + _ROUNDING)
    return int(np.count_nonzero(impostor_from_here > allowed)) - 1


def tar_at_far(levels: ScoreLevels, far: float) -> float:
    """Compute the true acceptance rate at the lowest threshold whose FAR does not exceed `far`; no interpolation.

    Returns
    -------
    float
        In [0, 1]; NaN without a genuine trial or with fewer impostor trials than 1/far, which cannot
        tell such a FAR from 0.
    """
    n_genuine, n_impostor = levels.genuine.sum(), levels.impostor.sum()
    if n_genuine <= 0 or n_impostor * far < 1 - _ROUNDING:
        return math.nan
    return float(levels.genuine[blocking_level(levels, far) + 1 :].sum() / n_genuine)


def threshold_at_far(impostor: ArrayLike, far: float, weights: np.ndarray | None = None) -> float:
    """Score that must be exceeded (strictly) so that at most a share `far` of the impostor scores is accepted.

    Parameters
    ----------
    impostor : array_like
        Impostor scores, shape (n,).
    far : float
        Target FAR.
    weights : numpy.ndarray, optional
        Weight of each score, shape (n,).

    Returns
    -------
    float
        NaN with fewer impostor trials than 1/far; minus infinity where everything may be accepted.
    """
    scores = np.ravel(impostor)
    weights = np.ones(scores.size) if weights is None else weights
    if weights.sum() * far < 1 - _ROUNDING:
        return math.nan
    descending = np.argsort(-scores, kind="stable")
    accepted = np.cumsum(weights[descending])
    first_refused = int(np.searchsorted(accepted, far * accepted[-1] * (1 + _ROUNDING), side="right"))
    return float(scores[descending[first_refused]]) if first_refused < scores.size else -math.inf


def det_curve(levels: ScoreLevels) -> tuple[np.ndarray, np.ndarray]:
    """Corner points of the DET curve: FAR and FRR, each of shape (n_levels + 1,), from FAR 1 to FAR 0.

    Both are NaN without a genuine or without an impostor trial. Points that lie on a straight line
    between two others are left out.
    """
    n_genuine, n_impostor = levels.genuine.sum(), levels.impostor.sum()
    with np.errstate(invalid="ignore"):
        far = np.append(np.cumsum(levels.impostor[::-1])[::-1], 0.0) / n_impostor
        frr = np.concatenate([[0.0], np.cumsum(levels.genuine)]) / n_genuine
    return far, frr


def auroc(levels: ScoreLevels) -> float:
    """Probability that a genuine score exceeds an impostor one, ties counting half; NaN where a label is absent."""
    n_genuine, n_impostor = levels.genuine.sum(), levels.impostor.sum()
    if n_genuine <= 0 or n_impostor <= 0:
        return math.nan
    impostor_below = np.cumsum(levels.impostor) - levels.impostor / 2
    return float(levels.genuine @ impostor_below / (n_genuine * n_impostor))
