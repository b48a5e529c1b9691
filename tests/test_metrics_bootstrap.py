"""Bootstrap clustered by person: coverage, pairing, counting of the undefined, storage."""

import math
from dataclasses import replace

import numpy as np
import pytest
from fake_scores import levels_of
from scipy.stats import beta, binomtest, norm

from ecgstudy.errors import StudyError
from ecgstudy.evaluate.biometric import ScoredFold
from ecgstudy.evaluate.bootstrap import (
    Estimate,
    Resamples,
    bootstrap,
    bootstrap_each,
    clustered_means,
    most_failures,
    paired_difference,
    with_exact_bounds,
)
from ecgstudy.evaluate.trials import ScoreMatrix, Trials, eer


def test_mean_of_equal_sized_persons_has_the_analytical_standard_error() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=200)
    resamples = Resamples.draw(range(200), seed=1, n_resamples=4000)
    estimate = bootstrap(
        lambda m: float(m @ values[np.argsort(np.arange(200).astype(str))] / m.sum()), resamples, 200, ""
    )
    half_width = 1.96 * values.std() / math.sqrt(200)
    assert estimate.value == pytest.approx(values.mean())
    assert (estimate.high - estimate.low) / 2 == pytest.approx(half_width, rel=0.05)
    assert (estimate.n, estimate.undefined, estimate.reason) == (200, 0, None)


def test_records_of_one_person_do_not_narrow_the_interval() -> None:
    rng = np.random.default_rng(0)
    person_mean = rng.normal(size=60)
    resamples = Resamples.draw(range(100, 160), seed=1)
    widths = []
    for n_records in (1, 50):
        person = np.repeat(np.arange(60), n_records)

        def mean(multiplicity: np.ndarray, person: np.ndarray = person) -> float:
            return float(np.average(person_mean[person], weights=multiplicity[person]))

        estimate = bootstrap(mean, resamples, 60, "")
        widths.append(estimate.high - estimate.low)
    assert widths[0] == pytest.approx(widths[1])


def test_multiplicities_count_the_indices() -> None:
    resamples = Resamples.draw(["b", "a", "b", "c"], seed=3, n_resamples=5)
    assert resamples.persons.tolist() == ["a", "b", "c"]
    expected = [[np.count_nonzero(row == person) for person in range(3)] for row in resamples.indices]
    np.testing.assert_array_equal(resamples.multiplicities, expected)
    np.testing.assert_array_equal(resamples.indices, Resamples.draw(["c", "a", "b"], seed=3, n_resamples=5).indices)
    assert (resamples.indices != Resamples.draw(["c", "a", "b"], seed=4, n_resamples=5).indices).any()


def test_trial_weights_equal_a_resample_written_out() -> None:
    rng = np.random.default_rng(2)
    probe, gallery = np.repeat(np.arange(6), [1, 2, 3, 1, 2, 4]), np.repeat(np.arange(6), 2)
    scores = rng.normal(size=(13, 12)).round(1) + (probe[:, None] == gallery)
    resamples = Resamples.draw(range(6), seed=5, n_resamples=20)
    trials = Trials(ScoreMatrix(scores, probe, gallery), resamples)
    for drawn, multiplicity in zip(resamples.indices, resamples.multiplicities, strict=True):
        genuine, impostor = [], []
        for first, a in enumerate(drawn):
            for second, b in enumerate(drawn):
                block = scores[np.ix_(probe == a, gallery == b)].ravel()
                if first == second:
                    genuine.append(block)
                elif a != b:
                    impostor.append(block)
        expected = eer(levels_of(np.concatenate(genuine), np.concatenate(impostor)))
        assert eer(trials.levels(trials.weights(multiplicity))) == pytest.approx(expected, abs=1e-12)


def test_balanced_trials_average_the_rates_of_persons() -> None:
    rng = np.random.default_rng(6)
    n_probe = np.array([1, 9, 2])
    probe, gallery = np.repeat(np.arange(3), n_probe), np.repeat(np.arange(3), [3, 1, 2])
    scores = rng.normal(size=(12, 6))
    trials = Trials(ScoreMatrix(scores, probe, gallery), Resamples.draw(range(3), seed=0, n_resamples=1))
    levels = trials.levels(trials.weights(np.ones(3), balanced=True))
    threshold = 0.3
    weights = trials.weights(np.ones(3), balanced=True)
    frr = [np.mean(scores[np.ix_(probe == person, gallery == person)] < threshold) for person in range(3)]
    far = [np.mean(scores[np.ix_(probe == a, gallery == b)] >= threshold) for a in range(3) for b in range(3) if a != b]
    below = trials.scores < threshold
    genuine = trials.genuine
    assert weights[genuine & below].sum() / weights[genuine].sum() == pytest.approx(np.mean(frr))
    assert weights[~genuine & ~below].sum() / weights[~genuine].sum() == pytest.approx(np.mean(far))
    assert levels.impostor.sum() == pytest.approx(trials.n_impostor)


def test_undefined_resamples_are_counted() -> None:
    resamples = Resamples.draw(["a", "b"], seed=0, n_resamples=1000)
    only_both = bootstrap(lambda m: 1.0 if m.all() else math.nan, resamples, 2, "never")
    assert only_both.undefined == np.count_nonzero((resamples.multiplicities == 0).any(axis=1))
    assert 400 < only_both.undefined < 600
    assert (only_both.low, only_both.high) == (1.0, 1.0)
    nothing = bootstrap(lambda m: math.nan, resamples, 2, "no label")
    assert (nothing.undefined, nothing.reason) == (1000, "no label")
    assert math.isnan(nothing.value)
    both = bootstrap_each(lambda m: (m[0], math.nan), resamples, 2, ("", "no label"))
    assert both[0] == bootstrap(lambda m: m[0], resamples, 2, "")
    assert math.isnan(both[1].value)


def test_one_person_has_no_interval() -> None:
    estimate = bootstrap(lambda m: 0.5, Resamples.draw(["a"], seed=0), 1, "")
    assert estimate.value == 0.5
    assert math.isnan(estimate.low)
    assert "one person" in str(estimate.reason)


def test_paired_difference_sees_what_the_intervals_hide() -> None:
    rng = np.random.default_rng(1)
    shared = rng.normal(size=80)
    better = shared + 0.1 + 0.05 * rng.normal(size=80)
    resamples = Resamples.draw(range(1000, 1080), seed=2)
    first, second = (bootstrap(lambda m, v=v: float(m @ v / m.sum()), resamples, 80, "") for v in (better, shared))
    assert first.low < second.high
    difference = paired_difference(
        lambda m: float(m @ better / m.sum()), lambda m: float(m @ shared / m.sum()), resamples, 80, ""
    )
    assert difference.value == pytest.approx(first.value - second.value)
    assert 0.08 < difference.low < difference.high < 0.12
    assert difference.p == pytest.approx(2 / 1001)
    same = paired_difference(lambda m: 1.0, lambda m: 1.0, resamples, 80, "")
    assert (same.value, same.p) == (0.0, 1.0)


def test_paired_p_is_uniform_without_a_difference() -> None:
    rng = np.random.default_rng(3)
    resamples = Resamples.draw(range(1000, 1040), seed=2, n_resamples=200)
    p = []
    for _ in range(100):
        a, b = rng.normal(size=(2, 40))
        p.append(paired_difference(lambda m, a=a: m @ a, lambda m, b=b: m @ b, resamples, 40, "").p)
    assert 0.0 <= np.mean(np.array(p) < 0.05) <= 0.13
    assert np.mean(p) == pytest.approx(0.5, abs=0.1)


def test_clustered_means_by_hand() -> None:
    persons = np.array(["a", "a", "a", "b", "c"])
    values = {"x": np.array([0, 1, np.nan, 2.5, np.nan]), "none": np.full(5, np.nan)}
    found = clustered_means(values, persons, Resamples.draw(persons, 1, 200), "nothing there")
    assert found["x"].value == 1.5  # (0.5 + 2.5) / 2: a person without a number has no part
    assert (found["x"].low, found["x"].high) == (0.5, 2.5)
    assert np.isnan(found["none"].value)
    assert found["none"].reason == "nothing there"


def test_the_exact_bound_of_a_faultless_result() -> None:
    assert most_failures(3, 0.95) == pytest.approx(binomtest(0, 3, alternative="less").proportion_ci(0.95).high)


@pytest.mark.parametrize(("failed", "n"), [(0, 89), (1, 89), (4, 89), (85, 89), (89, 89), (2, 3)])
def test_few_failures_or_successes_have_the_bounds_of_clopper_and_pearson(failed: int, n: int) -> None:
    missed = np.arange(n) < failed
    found = with_exact_bounds(Estimate(1 - failed / n, 0.9, 1.0, n), missed, np.arange(n))
    exact = binomtest(n - failed, n).proportion_ci(0.95)
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))
    assert found.exact
    # ten probes each that share the fate of their person, or persons of whom nobody is asked, change nothing
    tenfold = with_exact_bounds(Estimate(1 - failed / n), np.repeat(missed, 10), np.repeat(2 * np.arange(n), 10))
    assert (tenfold.low, tenfold.high) == pytest.approx((exact.low, exact.high))


def test_where_five_fail_and_five_succeed_resampling_shows_it() -> None:
    found = Estimate(5 / 6, 0.7, 0.9, 30)
    assert with_exact_bounds(found, np.arange(30) < 5, np.arange(30)) is found
    assert with_exact_bounds(replace(found, value=1 / 6), np.arange(30) < 25, np.arange(30)).low == 0.7
    undefined = Estimate(math.nan, reason="nobody")
    assert with_exact_bounds(undefined, np.zeros(3), np.arange(3)) is undefined
    alone = Estimate(1.0, reason="one person only")
    assert with_exact_bounds(alone, np.zeros(9), np.zeros(9, dtype=int)) is alone


def test_persons_who_fail_now_and_then_are_worth_more_than_one_trial_each() -> None:
    # ten persons miss one or three of twenty probes: their spread is that of far more trials than ten
    failed = np.repeat([0.05, 0.15], 5)
    found = with_exact_bounds(Estimate(0.9), failed, np.arange(10))
    worth = 0.09 / (0.05**2 / 9) * (1.959964 / 2.262157) ** 2
    assert found.low == pytest.approx(beta.ppf(0.025, 0.9 * worth, 0.1 * worth + 1), abs=1e-6)
    assert found.low > 0.85 > binomtest(9, 10).proportion_ci(0.95).low


def test_unequal_persons_are_worth_fewer_trials() -> None:
    # 30 probes of one person and one of each of ten others: (30 + 10)^2 / (30^2 + 10)
    persons = np.repeat(np.arange(11), [30, *[1] * 10])
    found = with_exact_bounds(Estimate(1.0), np.zeros(40), persons)
    assert found.low == pytest.approx(beta.ppf(0.025, 1600 / 910, 1))
    each = with_exact_bounds(Estimate(1.0), np.zeros(40), persons, 1 / np.bincount(persons)[persons])
    assert each.low == pytest.approx(binomtest(11, 11).proportion_ci(0.95).low)


@pytest.mark.parametrize("n_persons", [20, 89])
@pytest.mark.parametrize("share", [0.9, 0.97, 0.995])
def test_simulated_coverage_near_certainty(share: float, n_persons: int) -> None:
    """Persons of 1 to 9 probes, half of them always or never recognised, half now and then."""
    rng = np.random.default_rng(n_persons)
    resamples, covered = Resamples.draw(range(n_persons), 0, 200), np.zeros((300, 2))
    names = np.arange(n_persons).astype(str).argsort().argsort()  # as the resamples sort them
    for number in range(len(covered)):
        own = np.where(
            rng.random(n_persons) < 0.5, rng.random(n_persons) < share, rng.beta(4 * share, 4 - 4 * share, n_persons)
        )
        probes = rng.integers(1, 10, n_persons)
        right, person = rng.random(probes.sum()) < np.repeat(own, probes), np.repeat(names, probes)
        mean = np.bincount(person, right) / np.bincount(person)
        low, high = np.quantile(resamples.multiplicities @ mean / n_persons, [0.025, 0.975])
        found, each = Estimate(mean.mean(), low, high, n_persons), 1 / np.bincount(person)[person]
        for column, estimate in enumerate((found, with_exact_bounds(found, ~right, person, each))):
            covered[number, column] = estimate.low <= share <= estimate.high
    assert covered[:, 1].mean() >= 0.9
    if share > 0.9:
        assert covered[:, 1].mean() >= 0.95
        assert covered[:, 0].mean() < 0.92  # why there are bounds


def test_simulated_coverage_of_an_eer_near_0() -> None:
    """Gaussian scores whose EER is .005: of 60 persons the percentile interval held it half the time."""
    rng, persons, d_prime = np.random.default_rng(0), np.arange(60), 2 * norm.isf(0.005)
    resamples, held = Resamples.draw(persons, 0, 1), []
    for _ in range(200):
        matrix = ScoreMatrix(rng.normal(size=(60, 60)) + d_prime * np.eye(60), persons, persons)
        fold = ScoredFold(matrix, resamples, rng)
        values = fold.measure(np.ones(60), everything=False)
        probes = fold.bounded(values | {"dir_at_far_1e-2": math.nan})
        found = with_exact_bounds(Estimate(values["eer"]), probes["eer"].to_numpy(), probes["person"].to_numpy())
        assert found.low <= found.value <= found.high
        held.append(found.low <= 0.005 <= found.high)
    assert np.mean(held) >= 0.95


def test_unknown_persons_and_nobody_are_refused() -> None:
    with pytest.raises(StudyError, match="Person z"):
        Resamples.draw(["a", "b"], seed=0).index_of(["a", "z"])
    with pytest.raises(StudyError, match="no person"):
        Resamples.draw([], seed=0)
