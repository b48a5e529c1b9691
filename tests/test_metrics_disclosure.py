"""ZEBRA, PAV, Cllr and D_sys against closed forms, histograms by hand, numerical integrals and scikit-learn."""

import math

import numpy as np
import pytest
from fake_scores import levels_of
from numpy.typing import ArrayLike
from scipy.integrate import quad
from scipy.stats import norm
from sklearn.isotonic import IsotonicRegression

from ecgstudy.evaluate import disclosure
from ecgstudy.evaluate.disclosure import Linkability, cllr_min, zebra_bits, zebra_tag, zebra_worst_case


def _cllr(genuine_llr: ArrayLike, impostor_llr: ArrayLike) -> float:
    """Cllr of unweighted trials."""
    ratios = [np.array(genuine_llr, dtype=float), np.array(impostor_llr, dtype=float)]
    return disclosure.cllr(*ratios, *map(np.ones_like, ratios))


def _pav_by_sklearn(genuine: np.ndarray, impostor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Natural-log LRs of the genuine and of the impostor trials, calibrated trial by trial."""
    scores, label = np.concatenate([genuine, impostor]), np.repeat([1.0, 0.0], [genuine.size, impostor.size])
    posterior = IsotonicRegression(y_min=0, y_max=1).fit_transform(scores, label)
    with np.errstate(divide="ignore"):
        llr = np.log(posterior) - np.log1p(-posterior) - math.log(genuine.size / impostor.size)
    return llr[: genuine.size], llr[genuine.size :]


def test_perfect_separation_and_no_information() -> None:
    separate = levels_of([2.0, 3.0], [0.0, 1.0, 1.5])
    assert zebra_bits(separate) == pytest.approx(0.7213475, abs=1e-7)
    assert cllr_min(separate) == 0.0
    same = levels_of([0.0, 1.0, 2.0], [0.0, 1.0, 2.0])
    assert zebra_bits(same) == pytest.approx(0.0, abs=1e-12)
    assert cllr_min(same) == pytest.approx(1.0, abs=1e-12)
    assert zebra_tag(zebra_worst_case(levels_of([1.0] * 5, [1.0] * 5))) == "0"


def test_population_disclosure_against_the_integral_over_priors() -> None:
    rng = np.random.default_rng(1)
    genuine, impostor = rng.normal(1.5, 1, 60).round(1), rng.normal(0, 1, 140).round(1)
    genuine_llr, impostor_llr = _pav_by_sklearn(genuine, impostor)

    def lost_entropy(prior: float) -> float:
        odds = math.log(prior / (1 - prior))
        ece = (
            prior * np.logaddexp(0, -genuine_llr - odds).mean()
            + (1 - prior) * np.logaddexp(0, impostor_llr + odds).mean()
        )
        return -prior * math.log(prior) - (1 - prior) * math.log(1 - prior) - ece

    expected = quad(lost_entropy, 0, 1, limit=200)[0] / math.log(2)
    levels = levels_of(genuine, impostor)
    assert zebra_bits(levels) == pytest.approx(expected, abs=1e-7)
    assert cllr_min(levels) == pytest.approx(_cllr(genuine_llr, impostor_llr), abs=1e-12)


@pytest.mark.parametrize("llr", [-700.0, -5.0, -1e-3, -5e-5, 0.0, 5e-5, 2e-4, 1.0, 50.0, 800.0])
def test_closed_form_of_the_cost_over_all_priors(llr: float) -> None:
    def cost(prior: float) -> float:
        return prior * np.logaddexp(0, math.log((1 - prior) / prior) - llr)

    expected = quad(cost, 0, 1, epsabs=1e-13, epsrel=1e-13, limit=500)[0]
    assert disclosure._expected_cost(np.array([llr]))[0] == pytest.approx(expected, rel=1e-9, abs=1e-10)


def test_gaussian_scores_reach_the_population_integral() -> None:
    quantiles = norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    levels = levels_of(quantiles + 2, quantiles)
    # scores at distance d' = 2 have LLR 2 s - 2: Cllr of those exact ratios
    exact = _cllr(2 * (quantiles + 2) - 2, 2 * quantiles - 2)
    assert cllr_min(levels) == pytest.approx(exact, abs=1e-3)
    assert disclosure.pav_llr(levels)[levels.genuine.size // 2] == pytest.approx(0, abs=0.5)


def test_worst_case_and_its_tag_by_hand() -> None:
    # Laplace's rule: the top pool holds 9 + 1 genuine and 1 impostor, odds 10 at prior odds 9/90, LR 100;
    # the bottom pool 90 + 1 impostors and 1 genuine, odds 1/91, LR 10/91, log10 -0.96
    assert zebra_worst_case(levels_of(np.full(9, 1.0), np.zeros(90))) == pytest.approx(2.0, abs=1e-12)
    assert [*map(zebra_tag, (0, 0.3, 1, 1.5, 3.9, 4.5, 6, 6.01, math.nan))] == [*"0AABCDEF-"]


def test_cllr_closed_forms() -> None:
    assert _cllr([0.0], [0.0, 0.0]) == pytest.approx(1.0)
    assert _cllr([math.log(3)], [-math.log(3)]) == pytest.approx(math.log2(4 / 3))
    assert _cllr([math.inf], [-math.inf]) == 0.0
    assert _cllr([-2.0], [2.0]) > 1


def test_logistic_calibration_recovers_the_gaussian_ratio() -> None:
    quantiles = norm.ppf((np.arange(5000) + 0.5) / 5000)
    train, label = np.concatenate([quantiles[::5] + 3, quantiles]), np.repeat([True, False], [1000, 5000])
    np.testing.assert_allclose(disclosure.logistic_llr(train, label, [0.0, 1.5, 3.0]), [-4.5, 0, 4.5], atol=0.1)


def test_missing_label_is_undefined() -> None:
    levels = levels_of([], [1.0, 2.0])
    assert math.isnan(zebra_bits(levels))
    assert math.isnan(zebra_worst_case(levels))
    assert math.isnan(cllr_min(levels))
    assert math.isnan(_cllr([], [1.0]))


def test_linkability_by_hand_with_two_bins() -> None:
    # 20 mated give 2 bins over [0, 1]: 15 of 20 mated and 10 of 40 others in the upper one
    scores = np.repeat([0.0, 1.0, 0.0, 1.0], [5, 15, 30, 10])
    mated = np.repeat([True, False], [20, 40])
    # upper bin: p = 3/4, q = 1/4, LR = 3, D = 2 * 3/4 - 1 = 1/2; lower bin: LR < 1
    assert Linkability(scores, mated).d_sys(np.ones(60)) == pytest.approx(0.5 * 0.75)
    # twice the weight on the upper non-mated: q = 20/50, D = (.75 - .4) / 1.15
    weights = np.repeat([1.0, 2.0], [50, 10])
    assert Linkability(scores, mated).d_sys(weights) == pytest.approx(0.75 * 0.35 / 1.15)


def test_extremes_of_linkability() -> None:
    mated = np.repeat([True, False], [50, 500])
    assert Linkability(mated.astype(float), mated).d_sys(np.ones(550)) == 1.0
    assert Linkability(np.zeros(550), mated).d_sys(np.ones(550)) == 0.0
    # clearly less similar mated scores never exceed LR 1
    assert Linkability(-np.linspace(0, 1, 550), ~mated[::-1]).d_sys(np.ones(550)) >= 0.0


def test_linkability_of_gaussian_scores_reaches_the_integral() -> None:
    quantiles = norm.ppf((np.arange(100_000) + 0.5) / 100_000)
    scores, mated = np.concatenate([quantiles + 2, quantiles]), np.repeat([True, False], 100_000)
    expected = quad(lambda s: norm.pdf(s - 2) * math.tanh((2 * s - 2) / 2), 1, 12)[0]
    assert Linkability(scores, mated).d_sys(np.ones(200_000)) == pytest.approx(expected, abs=2e-3)


def test_null_shows_the_bias_of_linkability() -> None:
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


def test_undefined_linkability_names_its_reason() -> None:
    few = Linkability(np.zeros(100), np.arange(100) < 19)
    assert math.isnan(few.d_sys(np.ones(100)))
    assert few.problem == "19 genuine trials; D_sys needs 20"
    assert "impostor" in str(Linkability(np.zeros(30), np.ones(30, bool)).problem)
    enough = Linkability(np.arange(100.0), np.arange(100) < 20)
    assert math.isnan(enough.d_sys(np.where(enough.mated, 0.0, 1.0)))
