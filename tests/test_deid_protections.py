"""Protections do what they say and no more: what is lost, what is kept, and what a release can give away."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hearts import hearts

from ecgstudy.deidentification.cycles import CycleSet, Recording, render, rhythm_features
from ecgstudy.deidentification.learned import Microaggregation
from ecgstudy.deidentification.protections import (
    IRREGULAR,
    DifferentiallyPrivate,
    KSame,
    LowPass,
    LowRank,
    Noise,
    OwnCycle,
    Protection,
    Retiming,
    Warp,
    group_means,
    microaggregate,
)
from ecgstudy.deidentification.release import RATE_CLASS
from ecgstudy.errors import StudyError

FS, RUNS = 100.0, Path("unused")
RANDOM_READERS = SimpleNamespace(read=lambda cycles: np.random.default_rng(0).random((len(cycles), 3)))


def _changed(protection: Protection, values: np.ndarray) -> np.ndarray:
    recording = Recording(values.astype(np.float32), FS, np.zeros(0))
    return protection.protect(recording, np.zeros(0), np.random.default_rng(0))


def _partition(group: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(group == number).tolist()) for number in np.unique(group)}


@pytest.mark.parametrize("k", [1, 2, 3, 5])
@pytest.mark.parametrize("n", [5, 6, 9, 10, 11, 29, 100])
def test_groups_have_k_members_to_twice_k_less_one_in_whatever_order(n: int, k: int) -> None:
    rng = np.random.default_rng(n)
    codes, order = rng.standard_normal((n, 4)), rng.permutation(n)
    group = microaggregate(codes, k)
    assert k <= np.bincount(group).min() <= np.bincount(group).max() <= 2 * k - 1
    shuffled = {frozenset(order[list(rows)].tolist()) for rows in _partition(microaggregate(codes[order], k))}
    assert shuffled == _partition(group)


def test_groups_by_hand_and_planted() -> None:
    # farthest from the mean, 19.1, is 30; of what 30 and 29 leave 10 is farthest from 30, but 28.5 from the mean
    group = microaggregate(np.array([[30.0], [10], [29], [11], [12], [13], [28.5]]), 2)
    assert _partition(group) == {frozenset({0, 2}), frozenset({1, 3}), frozenset({4, 5, 6})}
    rng = np.random.default_rng(1)
    true = rng.permutation(np.repeat(np.arange(6), 5))
    codes = 10 * rng.standard_normal((6, 3))[true] + 0.1 * rng.standard_normal((30, 3))
    assert _partition(microaggregate(codes, 5)) == _partition(true)
    means = group_means(np.array([[1, 2], [3, 4], [10, 10]], dtype=np.float32), np.array([1, 1, 0]))
    np.testing.assert_array_equal(means, [[2, 3], [2, 3], [10, 10]])
    assert means.dtype == np.float32


@pytest.mark.parametrize("k", [2, 5, 7])
@pytest.mark.parametrize("method", ["k_same", "microaggregation", "own_cycle"])
def test_who_knows_every_raw_cycle_links_at_most_one_released_shape_in_k(method: str, k: int) -> None:
    people, n, grouped = hearts(60), 60, method != "own_cycle"
    protections = {"k_same": KSame(k), "microaggregation": Microaggregation(k=k, readers=RANDOM_READERS)}
    protection = protections.get(method, OwnCycle())
    released, raw = protection.prepare(people, 0).reshape(n, -1), people.cycles.reshape(n, -1)
    distance = ((released[:, None] - raw) ** 2).sum(axis=-1)
    hits = (distance.argmin(axis=1) == np.arange(n)).sum()
    assert 0 < hits <= n / k if grouped else hits == n
    assert np.unique(released, axis=0, return_counts=True)[1].min() >= (k if grouped else 1)
    np.testing.assert_allclose(released.mean(axis=0), raw.mean(axis=0), atol=1e-5)
    if grouped:
        with pytest.raises(StudyError, match=f"Groups of {k} need {k} records or more .* there are {k - 1}"):
            protection.prepare(people.rows(np.arange(k - 1)), 0)


def _codes(fitted: LowRank, cycles: np.ndarray, of: CycleSet) -> np.ndarray:
    return fitted.pca.transform((cycles / of.amplitudes[..., None]).reshape(len(of), -1))


def test_codes_of_any_two_records_differ_by_twice_the_radius_at_most() -> None:
    people, others = hearts(60), hearts(50, seed=1)
    fitted = DifferentiallyPrivate(6, epsilon=np.inf).fit(people, 0, RUNS)  # no noise
    assert fitted.radius == pytest.approx(
        np.median(np.abs(_codes(fitted, people.cycles, people)).sum(axis=1)), rel=1e-3
    )
    clipped, own = _codes(fitted, fitted.prepare(others, 0), others), _codes(fitted, others.cycles, others)
    differ = np.abs(clipped[:, None] - clipped).sum(axis=-1)
    assert fitted.radius < differ.max() <= 2 * fitted.radius * (1 + 1e-4)
    short = np.abs(own).sum(axis=1) < fitted.radius
    assert 0 < short.sum() < 50
    np.testing.assert_allclose(clipped[short], own[short], atol=1e-3)


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_noise_bounds_how_much_more_probable_a_release_is_from_one_shape_than_from_another(epsilon: float) -> None:
    release = hearts(2, n_leads=1).rows(np.tile([0, 1], 10_000))
    fitted = DifferentiallyPrivate(1, epsilon=epsilon).fit(hearts(40, n_leads=1), 0, RUNS)
    ends = _codes(fitted, release.cycles, release)[:2, 0]
    assert ends.prod() < 0
    radius = float(np.abs(ends).min() * 0.99)  # so that both are clipped, to the two ends
    codes = _codes(fitted, replace(fitted, radius=radius).prepare(release, 0), release)[:, 0]
    assert np.median(codes[::2]) == pytest.approx(np.sign(ends[0]) * radius, abs=0.1 * radius / epsilon)
    edges = [-np.inf, *np.linspace(-radius, radius, 5), np.inf]
    ratio = np.log(np.histogram(codes[::2], edges)[0] / np.histogram(codes[1::2], edges)[0])
    assert np.abs(ratio).max() == pytest.approx(epsilon, abs=0.15)  # neither too little noise nor too much


@pytest.mark.parametrize("components", [1, 2, 50])
def test_low_rank_keeps_what_its_components_span(components: int) -> None:
    angle, place = np.linspace(0, 6, 30)[:, None, None], np.arange(80) / 80
    cycles = 7 * np.sin(2 * np.pi * place + angle)  # two dimensions: a sine and a cosine
    people = replace(hearts(30, n_leads=1), cycles=cycles.astype(np.float32))
    made = LowRank(components).fit(people, 0, RUNS).prepare(people, 0)
    assert (np.abs(made - cycles).max() < 0.01) == (components > 1)


def test_noise_is_of_its_level_in_each_lead() -> None:
    values = np.random.default_rng(0).standard_normal((3, 20_000)) * [[1.0], [50.0], [0.0]]
    added = _changed(Noise(0.25), values) - values
    np.testing.assert_allclose(added.std(axis=1), [0.25, 12.5, 0], rtol=0.03)
    assert abs(np.corrcoef(added[:2])[0, 1]) < 0.03


@pytest.mark.parametrize("frequency", [2.0, 8.0, 15.0, 30.0])
def test_low_pass_has_the_gain_of_a_butterworth_filter_of_order_4_passed_twice(frequency: float) -> None:
    sine = np.sin(2 * np.pi * frequency * np.arange(4000) / FS)[None]
    before, after = np.abs(np.fft.rfft([sine[0, 1000:3000], _changed(LowPass(8.0), sine)[0, 1000:3000]]))
    ratio = np.tan(np.pi * frequency / FS) / np.tan(np.pi * 8.0 / FS)
    assert after[before.argmax()] / before.max() == pytest.approx(1 / (1 + ratio**8), abs=1e-3)
    assert _changed(LowPass(8.0), sine[:, :20]).shape == (1, 20)


def test_warping_keeps_both_ends_and_moves_all_leads_alike() -> None:
    sine = np.sin(2 * np.pi * np.arange(1001) / 50)
    warped = _changed(Warp(0.3), np.stack([sine, 2 * sine]))
    plain, *moved = (np.flatnonzero(np.diff(np.signbit(lead[1:-1]))) for lead in (sine, *warped))
    np.testing.assert_array_equal(*moved)
    assert moved[0].size == plain.size
    assert np.abs(moved[0] - plain).max() > 5
    assert np.abs(moved[0] - plain)[[0, -1]].max() < 20
    np.testing.assert_allclose(warped[:, [0, -1]], 0, atol=1e-3)
    np.testing.assert_allclose(_changed(Warp(0.0), warped), warped, atol=1e-5)
    gains = np.log(_changed(Warp(0.3), np.ones((300, 1001))))[:, ::100]
    assert gains.std() == pytest.approx(0.3, rel=0.05)
    assert abs(np.corrcoef(gains[:2])[0, 1]) < 0.9


def _rhythm(rate: float, spread: float, seed: int, seconds: float = 30.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    peaks = np.cumsum(np.maximum(60 / rate * rng.gamma(spread**-2, spread**2, 200), 0.26))
    return peaks[peaks < seconds]


@pytest.mark.parametrize("spread", [0.03, 0.22])
@pytest.mark.parametrize("rate", [42.0, 71.0, 93.0, 144.0])
def test_a_redrawn_rhythm_has_a_rounded_rate_and_stays_regular_or_irregular(rate: float, spread: float) -> None:
    for seed in range(3):
        own = _rhythm(rate, spread, seed)
        drawn = Retiming(10.0).peaks(own, 30.0, np.random.default_rng(seed))
        assert 0 <= drawn.min() < drawn.max() < 30
        rounded = 60 / np.diff(drawn).mean()
        assert rounded == pytest.approx(10 * round(rounded / 10), abs=1e-6)
        assert abs(rounded - 60 / np.diff(own).mean()) <= 5 + 1e-6
        assert 30 - np.ptp(drawn) < 3 * 60 / rounded
        assert (rhythm_features(drawn)[2] > IRREGULAR) == (rhythm_features(own)[2] > IRREGULAR) == (spread > 0.1)


def test_a_rate_class_is_one_of_three() -> None:
    rates = {}
    for own in (35.0, 55.0, 75.0, 110.0, 145.0, 190.0):
        drawn = RATE_CLASS.peaks(_rhythm(own, 0.02, 0), 30.0, np.random.default_rng(0))
        rates[own] = round(60 / np.diff(drawn).mean())
    assert rates == {35.0: 40, 55.0: 40, 75.0: 80, 110.0: 120, 145.0: 120, 190.0: 120}


def test_nothing_but_the_rounded_rate_and_the_class_of_a_rhythm_passes() -> None:
    def drawn(own: np.ndarray, seed: int = 0, seconds: float = 10.0) -> np.ndarray:
        return Retiming(10.0).peaks(np.array(own), seconds, np.random.default_rng(seed))

    one = drawn(_rhythm(69.0, 0.02, 1))
    np.testing.assert_array_equal(drawn(_rhythm(71.0, 0.03, 2)), one)
    assert np.abs(drawn(_rhythm(71.0, 0.03, 2), seed=1)[:3] - one[:3]).min() > 1e-3
    # no interval to go by, or no time: 80 is what is nearest to the typical 75
    for few in (drawn([]), drawn([3.0]), drawn([3.0, 3.1]), drawn([0.5], seconds=0.4)):
        assert 60 / np.diff(few).mean() == pytest.approx(80)


@pytest.mark.parametrize("protection", [OwnCycle(), Microaggregation(retiming=Retiming(10.0))])
def test_a_released_cycle_stands_at_own_peaks_or_at_redrawn_ones(protection: Protection) -> None:
    people, own = hearts(3), _rhythm(71.0, 0.02, 0, 10.0)
    recording = Recording(np.zeros((2, 1000), dtype=np.float32), FS, own)
    made = protection.protect(recording, people.cycles[1], np.random.default_rng(5))
    retiming = protection.retiming
    peaks = retiming.peaks(own, 10.0, np.random.default_rng(5)) if retiming else own
    np.testing.assert_array_equal(made, render(people.cycles[1], peaks, 1000, FS))
