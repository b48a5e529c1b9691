"""EER, TAR, DET and AUROC against closed forms, hand-computed cases and independent implementations."""

import math

import numpy as np
import pytest
from fake_scores import levels_of
from scipy.optimize import brentq
from scipy.stats import norm
from sklearn.metrics import roc_auc_score, roc_curve

from ecgstudy.errors import StudyError
from ecgstudy.evaluate.trials import SortedScores, auroc, det_curve, eer, tar_at_far, threshold_at_far


def _scores(rng: np.random.Generator, decimals: int) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping genuine and impostor scores, rounded so that ties occur at few decimals."""
    return rng.normal(1.2, 1, 137).round(decimals), rng.normal(0, 1, 411).round(decimals)


def _sklearn_roc(genuine: np.ndarray, impostor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    label = np.repeat([1, 0], [genuine.size, impostor.size])
    far, tar, _ = roc_curve(label, np.concatenate([genuine, impostor]), drop_intermediate=False)
    return far, tar


@pytest.mark.parametrize("separation", [0.5, 2.0, 4.0])
def test_gaussian_scores_reach_the_closed_form(separation: float) -> None:
    quantiles = norm.ppf((np.arange(200_000) + 0.5) / 200_000)
    levels = levels_of(quantiles + separation, quantiles)
    assert eer(levels) == pytest.approx(norm.cdf(-separation / 2), abs=1e-5)
    assert tar_at_far(levels, 1e-2) == pytest.approx(norm.sf(norm.isf(1e-2) - separation), abs=1e-4)
    assert tar_at_far(levels, 1e-3) == pytest.approx(norm.sf(norm.isf(1e-3) - separation), abs=1e-3)
    assert auroc(levels) == pytest.approx(norm.cdf(separation / math.sqrt(2)), abs=1e-5)


@pytest.mark.parametrize(
    ("genuine", "impostor", "expected"),
    [
        ([2, 3], [0, 1], 0.0),
        ([0, 1], [2, 3], 1.0),
        ([1, 1, 1], [1, 1], 0.5),
        # one of two impostors above one of two genuine: FAR = FRR = 1/2 between 1 and 2
        ([1, 3], [0, 2], 0.5),
        # a threshold between 2 and 4 rejects 1 of 4 genuine and accepts 1 of 4 impostors
        ([2, 4, 6, 8], [0, 1, 1.5, 5], 0.25),
        # tie at 1: from (FAR 1/2, FRR 0) to (FAR 0, FRR 1/2), met in the middle
        ([1, 2], [0, 1], 0.25),
        # tie at 1: from (FAR 1/4, FRR 0) to (FAR 0, FRR 1/2): 1/4 - x/4 = x/2 at x = 1/3, rate 1/6
        ([1, 2], [0, 0, 0, 1], 1 / 6),
    ],
)
def test_eer_by_hand(genuine: list[float], impostor: list[float], expected: float) -> None:
    assert eer(levels_of(genuine, impostor)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("decimals", [0, 1, 12])
@pytest.mark.parametrize("seed", range(5))
def test_eer_is_where_the_trapezoidal_roc_meets_the_diagonal(seed: int, decimals: int) -> None:
    genuine, impostor = _scores(np.random.default_rng(seed), decimals)
    far, tar = _sklearn_roc(genuine, impostor)
    expected = brentq(lambda x: 1 - x - np.interp(x, far, tar), 0, 1, xtol=1e-14)
    assert eer(levels_of(genuine, impostor)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("decimals", [0, 1, 12])
@pytest.mark.parametrize("far", [0.01, 0.1, 0.3, 1.0])
def test_tar_is_the_best_over_all_thresholds_within_the_far(far: float, decimals: int) -> None:
    genuine, impostor = _scores(np.random.default_rng(7), decimals)
    thresholds = np.append(np.concatenate([genuine, impostor]), np.inf)
    allowed = [t for t in thresholds if np.mean(impostor >= t) <= far]
    expected = max(np.mean(genuine >= t) for t in allowed)
    assert tar_at_far(levels_of(genuine, impostor), far) == expected
    assert np.mean(genuine > threshold_at_far(impostor, far, np.ones(impostor.size))) == expected


def test_far_that_the_trials_cannot_resolve_is_undefined() -> None:
    genuine = np.ones(3)
    assert math.isnan(tar_at_far(levels_of(genuine, np.zeros(999)), 1e-3))
    assert tar_at_far(levels_of(genuine, np.zeros(1000)), 1e-3) == 1.0
    assert math.isnan(threshold_at_far(np.zeros(99), 1e-2, np.ones(99)))


def test_one_impostor_in_a_hundred_may_pass() -> None:
    genuine = np.array([98.5, 99.5, 97.5, 100.0])
    # FAR 1e-2 of 100 lets the impostor at 99 pass but not the one at 98
    assert tar_at_far(levels_of(genuine, np.arange(100.0)), 1e-2) == 0.75
    assert threshold_at_far(np.arange(100.0), 1e-2, np.ones(100)) == 98.0


def test_missing_label_is_undefined() -> None:
    for levels in (levels_of([], [1.0, 2.0]), levels_of([1.0], [])):
        assert math.isnan(eer(levels))
        assert math.isnan(auroc(levels))
        assert math.isnan(tar_at_far(levels, 0.5))


@pytest.mark.parametrize("decimals", [0, 12])
def test_det_curve_holds_every_corner_of_the_roc(decimals: int) -> None:
    genuine, impostor = _scores(np.random.default_rng(11), decimals)
    far, frr = det_curve(levels_of(genuine, impostor))
    expected_far, expected_tar = _sklearn_roc(genuine, impostor)
    assert (far[0], frr[0], far[-1], frr[-1]) == (1.0, 0.0, 0.0, 1.0)
    roc = set(zip(expected_far.round(12), (1 - expected_tar).round(12), strict=True))
    assert set(zip(far.round(12), frr.round(12), strict=True)) <= roc
    assert np.trapezoid(1 - frr[::-1], far[::-1]) == pytest.approx(np.trapezoid(expected_tar, expected_far), abs=1e-12)


@pytest.mark.parametrize("decimals", [0, 12])
def test_integer_weights_equal_repeated_trials(decimals: int) -> None:
    rng = np.random.default_rng(5)
    genuine, impostor = _scores(rng, decimals)
    scores, label = np.concatenate([genuine, impostor]), np.repeat([True, False], [genuine.size, impostor.size])
    weights = rng.integers(0, 4, scores.size)
    sorted_scores = SortedScores(scores, label)
    weighted = sorted_scores.levels(weights[sorted_scores.order].astype(float))
    repeated = SortedScores(np.repeat(scores, weights), np.repeat(label, weights)).levels()
    assert eer(weighted) == pytest.approx(eer(repeated), abs=1e-14)
    assert tar_at_far(weighted, 1e-2) == tar_at_far(repeated, 1e-2)
    assert auroc(weighted) == pytest.approx(roc_auc_score(label, scores, sample_weight=weights), abs=1e-12)
    low = threshold_at_far(impostor, 1e-2, weights[~label].astype(float))
    repeated = np.repeat(impostor, weights[~label])
    assert low == threshold_at_far(repeated, 1e-2, np.ones(repeated.size))


def test_score_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(StudyError, match="not a number"):
        levels_of([1.0, math.nan], [0.0])
