"""D_sys against hand-computed histograms, the Gaussian integral and its own null."""

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from ecgstudy.evaluate.disclosure import Linkability


def test_by_hand_with_two_bins() -> None:
    # 20 mated give 2 bins over [0, 1]: 15 of 20 mated and 10 of 40 others in the upper one
    scores = np.repeat([0.0, 1.0, 0.0, 1.0], [5, 15, 30, 10])
    mated = np.repeat([True, False], [20, 40])
    # upper bin: p = 3/4, q = 1/4, LR = 3, D = 2 * 3/4 - 1 = 1/2; lower bin: LR < 1
    assert Linkability(scores, mated).d_sys(np.ones(60)) == pytest.approx(0.5 * 0.75)
    # twice the weight on the upper non-mated: q = 20/50, D = (.75 - .4) / 1.15
    weights = np.repeat([1.0, 2.0], [50, 10])
    assert Linkability(scores, mated).d_sys(weights) == pytest.approx(0.75 * 0.35 / 1.15)


def test_extremes() -> None:
    mated = np.repeat([True, False], [50, 500])
    assert Linkability(mated.astype(float), mated).d_sys(np.ones(550)) == 1.0
    assert Linkability(np.zeros(550), mated).d_sys(np.ones(550)) == 0.0
    # clearly less similar mated scores never exceed LR 1
    assert Linkability(-np.linspace(0, 1, 550), ~mated[::-1]).d_sys(np.ones(550)) >= 0.0


def test_gaussian_scores_reach_the_integral() -> None:
    quantiles = norm.ppf((np.arange(100_000) + 0.5) / 100_000)
    scores, mated = np.concatenate([quantiles + 2, quantiles]), np.repeat([True, False], 100_000)
    expected = quad(lambda s: norm.pdf(s - 2) * math.tanh((2 * s - 2) / 2), 1, 12)[0]
    assert Linkability(scores, mated).d_sys(np.ones(200_000)) == pytest.approx(expected, abs=2e-3)


def test_null_shows_the_bias_of_the_estimator() -> None:
    rng = np.random.default_rng(0)
    scores, mated = rng.normal(size=20_000), np.arange(20_000) < 300
    linkability = Linkability(scores, mated)
    null = linkability.null_draws(200, rng)
    # the truth is 0; the study's notes measured 0.05-0.06 for 50 to 1,000 mated pairs
    assert 0.03 < null.mean() < 0.08
    low, high = np.quantile(null, [0.025, 0.975])
    assert low <= linkability.d_sys(np.ones(20_000)) <= high
    planted = Linkability(scores + 2 * mated, mated)
    assert planted.d_sys(np.ones(20_000)) > 5 * planted.null_draws(200, rng).max()


def test_undefined_cases_name_their_reason() -> None:
    few = Linkability(np.zeros(100), np.arange(100) < 19)
    assert math.isnan(few.d_sys(np.ones(100)))
    assert few.problem == "19 genuine trials; D_sys needs 20"
    assert "impostor" in str(Linkability(np.zeros(30), np.ones(30, bool)).problem)
    enough = Linkability(np.arange(100.0), np.arange(100) < 20)
    assert math.isnan(enough.d_sys(np.where(enough.mated, 0.0, 1.0)))
