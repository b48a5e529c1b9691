"""Rank-1 in large galleries: recovered where scores are planted, and honest about what it cannot know."""

import math

import numpy as np
import pytest
from scipy.stats import beta, expon, genpareto, norm

from ecgstudy.evaluate.bootstrap import Resamples
from ecgstudy.evaluate.extrapolation import (
    TAILS,
    RankOneModel,
    Tail,
    _standardise,
    checked_rank1,
    extrapolate_rank1,
    pareto_shape,
)
from ecgstudy.evaluate.trials import ScoreMatrix, rank1_by_gallery_size

SIZES = (10_000, 1_000_000)
N_PERSONS, N_RECORDS = 90, 3


def _planted(kind: str, rng: np.random.Generator) -> tuple[ScoreMatrix, dict[int, float]]:
    """Score matrix and the true rank-1 by gallery size of one score distribution."""
    probe, gallery = np.repeat(np.arange(N_PERSONS), N_RECORDS), np.arange(N_PERSONS)
    own = probe[:, None] == gallery
    if kind == "cosine":
        dim, spread, centre = 24, 0.45, rng.normal(size=(N_PERSONS, 24))
        first = centre[probe] + spread * rng.normal(size=(probe.size, dim))
        second = centre + spread * rng.normal(size=centre.shape)
        scores = _unit(first) @ _unit(second).T
        many = rng.normal(size=(20_000, dim))
        genuine = np.sum(
            _unit(many + spread * rng.normal(size=many.shape)) * _unit(many + spread * rng.normal(size=many.shape)), 1
        )
        exceedance = beta.sf((genuine + 1) / 2, (dim - 1) / 2, (dim - 1) / 2)
    else:
        gaussian = kind == "gaussian"
        mean, sd = (5, 1) if gaussian else (14, 4)
        scores = rng.normal(size=own.shape) if gaussian else rng.exponential(size=own.shape)
        scores[own] = rng.normal(mean, sd, probe.size)
        # probes differ in location and scale, which must not matter
        scores = scores * rng.uniform(0.5, 2, (probe.size, 1)) + rng.normal(size=(probe.size, 1))
        genuine = rng.normal(mean, sd, 20_000)
        exceedance = norm.sf(genuine) if gaussian else expon.sf(genuine)
    truth = {size: float(np.mean(np.exp((size - 1) * np.log1p(-np.minimum(exceedance, 0.999999))))) for size in SIZES}
    return ScoreMatrix(scores, probe, gallery), truth


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("kind", ["gaussian", "cosine", "exponential"])
def test_envelope_holds_the_planted_truth(kind: str) -> None:
    resamples = Resamples.draw(range(N_PERSONS), seed=1, n_resamples=100)
    for seed in range(3):
        matrix, truth = _planted(kind, np.random.default_rng(seed))
        found = extrapolate_rank1(matrix, resamples, SIZES)
        for size in SIZES:
            envelope, tails = found[size]["envelope"], [found[size][tail] for tail in TAILS]
            assert envelope.low == min(tail.low for tail in tails)
            assert envelope.high == max(tail.high for tail in tails)
            assert envelope.low - 0.03 <= truth[size] <= envelope.high + 0.03
            assert envelope.value == found[size]["gpd"].value
            assert found[size]["exponential"].value <= found[size]["normal"].value
            assert envelope.n == N_PERSONS


@pytest.mark.parametrize("kind", ["gaussian", "cosine", "exponential"])
def test_point_estimate_is_near_the_truth_on_average(kind: str) -> None:
    resamples = Resamples.draw(range(N_PERSONS), seed=1, n_resamples=1)
    found, truths = [], []
    for seed in range(10):
        matrix, truth = _planted(kind, np.random.default_rng(seed))
        model = RankOneModel(matrix, resamples)
        found.append(model.rank1(SIZES, np.ones(N_PERSONS))[:, 0])
        truths.append([truth[size] for size in SIZES])
    bias = np.mean(found, axis=0) - np.mean(truths, axis=0)
    assert np.all(np.abs(bias) < [0.12, 0.25])


def test_agrees_with_the_measured_curve_inside_the_gallery() -> None:
    matrix, _ = _planted("exponential", np.random.default_rng(5))
    model = RankOneModel(matrix, Resamples.draw(range(N_PERSONS), seed=1, n_resamples=1))
    measured = rank1_by_gallery_size(matrix.searches, [10, 90], np.ones(matrix.probe.size))
    modelled = model.rank1([10, 90], np.ones(N_PERSONS))
    for tail in range(len(TAILS)):
        np.testing.assert_allclose(modelled[:, tail], measured, atol=0.02)


def test_genuine_scores_below_the_tail_are_judged_by_the_observed_share() -> None:
    rng, gallery = np.random.default_rng(5), np.arange(N_PERSONS)
    probe = np.repeat(gallery, 20)
    matrix = ScoreMatrix(rng.normal(size=(probe.size, N_PERSONS)) + (probe[:, None] == gallery), probe, gallery)
    model = RankOneModel(matrix, Resamples.draw(gallery, seed=1, n_resamples=1))
    tail = model.tail(np.ones(N_PERSONS))
    # two in a hundred of the impostors' scores are the tail
    assert tail.share == pytest.approx(0.02, abs=1e-3)
    assert tail.start == pytest.approx(norm.isf(0.02), abs=0.1)
    assert np.mean(model.genuine < tail.start) > 0.7
    measured = rank1_by_gallery_size(matrix.searches, [2, 5, 20], np.ones(probe.size))
    modelled = model.rank1([2, 5, 20], np.ones(N_PERSONS))
    np.testing.assert_allclose(modelled, np.repeat(measured[:, None], len(TAILS), axis=1), atol=0.02)


def test_each_impostor_is_standardised_by_the_others() -> None:
    rng = np.random.default_rng(0)
    scores, own = rng.gamma(2.0, size=(4, 9)), np.array([0, 3, 3, 8])
    impostors = scores.copy()
    impostors[np.arange(4), own] = np.nan
    found_impostors, genuine = _standardise(impostors, scores[np.arange(4), own])
    for probe in range(4):
        for person in range(9):
            others = np.delete(scores[probe], [own[probe], person])
            expected = (scores[probe, person] - others.mean()) / others.std(ddof=1)
            found = genuine[probe] if person == own[probe] else found_impostors[probe, person]
            assert found == pytest.approx(expected, rel=1e-9)
        assert np.isnan(found_impostors[probe, own[probe]])


@pytest.mark.parametrize("shape", [-0.3, 0.0, 0.25])
def test_pareto_shape_is_recovered(shape: float) -> None:
    excess = genpareto.ppf((np.arange(20_000) + 0.5) / 20_000, shape)
    assert pareto_shape(excess, np.ones(20_000)) == pytest.approx(shape, abs=0.01)
    # worked out by hand: mean 0.8, shares above of 5/6, 3/6 and 1/6 weigh the excesses 0.1, 0.3 and 2
    by_hand = 2 - 0.8 / (0.8 - 2 * (0.1 * 5 + 0.3 * 3 + 2 * 1) / 18)
    assert pareto_shape(np.array([0.1, 0.3, 2.0]), np.ones(3)) == pytest.approx(by_hand)
    weights = np.random.default_rng(0).integers(0, 3, 20_000)
    repeated = pareto_shape(np.repeat(excess, weights), np.ones(weights.sum()))
    assert pareto_shape(excess, weights.astype(float)) == pytest.approx(repeated, abs=1e-3)


def test_tails_meet_their_distributions() -> None:
    start = norm.isf(0.02)
    gaussian = Tail(start, 0.02, norm.pdf(start) / 0.02 - start, 0.0)
    np.testing.assert_allclose(
        gaussian.exceedance(np.array([start, 3, 6]), "normal"), norm.sf([start, 3, 6]), rtol=1e-9
    )
    exponential = Tail(expon.isf(0.02), 0.02, 1.0, 0.0)
    for model in ("exponential", "gpd"):
        np.testing.assert_allclose(exponential.exceedance(np.array([5.0, 20.0]), model), expon.sf([5, 20]), rtol=1e-9)


def test_too_little_data_is_undefined_with_a_reason() -> None:
    gallery = np.arange(10)
    resamples = Resamples.draw(gallery, seed=0, n_resamples=10)
    few = extrapolate_rank1(ScoreMatrix(np.eye(10), gallery, gallery), resamples, (100,))[100]["envelope"]
    assert math.isnan(few.value)
    assert few.reason == "10 probes against 9 impostors are too few to fit a tail"
    probe = np.repeat(gallery, 50)
    flat = extrapolate_rank1(ScoreMatrix(np.zeros((500, 10)), probe, gallery), resamples, (100,))[100]["envelope"]
    assert math.isnan(flat.value)
    assert "do not vary" in str(flat.reason)


def test_an_extrapolation_stops_at_ten_times_the_largest_gallery_measured() -> None:
    matrix, _ = _planted("gaussian", np.random.default_rng(0))
    resamples = Resamples.draw(range(N_PERSONS), seed=1, n_resamples=50)
    plain = extrapolate_rank1(matrix, resamples, (900, 901))
    checked = checked_rank1(matrix, resamples, (900, 901), {})
    assert checked[900] == plain[900]
    assert all(math.isnan(number) for number in (checked[901]["gpd"].value, checked[901]["envelope"].high))
    assert checked[901]["envelope"].reason == "more than ten times the 90 people measured"
    meets = plain[900]["envelope"].value
    assert checked_rank1(matrix, resamples, (9000, 9001), {900: meets})[9000]["envelope"].low >= 0
    assert list(checked) == [900, 901]


def test_an_extrapolation_that_misses_what_was_measured_is_refused_everywhere() -> None:
    matrix, _ = _planted("gaussian", np.random.default_rng(0))
    resamples = Resamples.draw(range(N_PERSONS), seed=1, n_resamples=50)
    low = extrapolate_rank1(matrix, resamples, (400,))[400]["envelope"].low
    probe = 1 / matrix.probe.size
    assert not math.isnan(checked_rank1(matrix, resamples, (100,), {400: low - 0.9 * probe})[100]["gpd"].value)
    missed = checked_rank1(matrix, resamples, (100,), {400: low - 1.5 * probe})[100]["envelope"]
    assert math.isnan(missed.value)
    assert str(missed.reason).startswith("at 400 people it gives ")
    assert "was measured" in str(missed.reason)


def test_an_extrapolation_has_to_meet_its_own_curve() -> None:
    # one probe in five has six look-alikes, the others none, and genuine scores do not tell which
    rng, gallery = np.random.default_rng(3), np.arange(60)
    probe = np.repeat(gallery, 5)
    own, alike = probe[:, None] == gallery, (gallery[None, :] - probe[:, None] - 1) % 60 < 6
    unlucky = np.arange(probe.size)[:, None] % 5 == 0
    scores = np.where(unlucky, 0.3 * rng.normal(size=own.shape) + 5.0 * alike, rng.uniform(-1, 1, own.shape))
    scores[own] = np.where(unlucky[:, 0], 4.0, 1.35)
    matrix, resamples = ScoreMatrix(scores, probe, gallery), Resamples.draw(gallery, seed=1, n_resamples=50)
    measured = rank1_by_gallery_size(matrix.searches, [60], np.ones(probe.size))[0]
    assert measured == pytest.approx(0.8)
    envelope = extrapolate_rank1(matrix, resamples, (60,))[60]["envelope"]
    assert not envelope.low - 1 / probe.size <= measured <= envelope.high + 1 / probe.size
    refused = checked_rank1(matrix, resamples, (100,), {})[100]["envelope"]
    assert math.isnan(refused.value)
    too_few = checked_rank1(ScoreMatrix(np.eye(2), [0, 1], [0, 1]), Resamples.draw([0, 1], 0, 3), (10, 99), {})
    assert "too few to fit a tail" in str(too_few[99]["envelope"].reason)
