"""Protections do what they say and no more: what is lost, what is kept, and what a release can give away."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hearts import hearts

from ecgstudy.deidentification.cycles import POINTS, CycleSet, Recording, render, rhythm_features, shaped
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
    Rendered,
    Retiming,
    Unprotected,
    Warp,
    group_means,
    microaggregate,
)
from ecgstudy.errors import StudyError

FS, RUNS = 100.0, Path("unused")


def _changed(protection: Protection, values: np.ndarray, seed: int = 0) -> np.ndarray:
    recording = Recording(values.astype(np.float32), FS, np.arange(0.5, values.shape[1] / FS))
    changed = protection.prepare(hearts(4), 0).protect(0, recording, np.random.default_rng(seed))
    assert (changed.shape, changed.dtype) == (values.shape, np.float32)
    return changed


def _partition(group: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(group == number).tolist()) for number in np.unique(group)}


@pytest.mark.parametrize("k", [1, 2, 3, 5])
@pytest.mark.parametrize("n", [5, 6, 9, 10, 11, 29, 100])
def test_groups_have_k_members_to_twice_k_less_one_in_whatever_order(n: int, k: int) -> None:
    rng = np.random.default_rng(n)
    codes, order = rng.standard_normal((n, 4)), rng.permutation(n)
    group = microaggregate(codes, k)
    sizes = np.bincount(group)
    assert k <= sizes.min() <= sizes.max() <= 2 * k - 1
    shuffled = {frozenset(order[list(rows)].tolist()) for rows in _partition(microaggregate(codes[order], k))}
    assert shuffled == _partition(group)


def test_groups_by_hand() -> None:
    # farthest from the mean is 30; of the rest 0 is farthest from 30 (20 would be farthest from what is left)
    group = microaggregate(np.array([[0.0], [1], [5], [6], [20], [21], [30]]), 2)
    assert _partition(group) == {frozenset({5, 6}), frozenset({0, 1}), frozenset({2, 3, 4})}
    means = group_means(np.array([[1, 2], [3, 4], [10, 10]], dtype=np.float32), np.array([1, 1, 0]))
    np.testing.assert_array_equal(means, [[2, 3], [2, 3], [10, 10]])
    assert means.dtype == np.float32


def test_planted_clusters_are_the_groups() -> None:
    rng = np.random.default_rng(1)
    true = rng.permutation(np.repeat(np.arange(6), 5))
    codes = 10 * rng.standard_normal((6, 3))[true] + 0.1 * rng.standard_normal((30, 3))
    assert _partition(microaggregate(codes, 5)) == _partition(true)


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("protection", [KSame(5), Microaggregation(k=5, readers=SimpleNamespace(read=len))])
def test_too_few_records_for_a_group_are_refused(protection: Protection, n: int) -> None:
    few = hearts(6).rows(np.arange(n))
    reader = SimpleNamespace(read=lambda cycles: np.zeros((len(cycles), 1)))
    protection = replace(protection, readers=reader) if isinstance(protection, Microaggregation) else protection
    with pytest.raises(StudyError, match=f"Groups of 5 need 5 records or more to be released together; there are {n}"):
        protection.prepare(few, 0)


@pytest.mark.parametrize("k", [2, 5, 7])
@pytest.mark.parametrize("method", ["k_same", "microaggregation", "own_cycle"])
def test_who_knows_every_raw_cycle_links_at_most_one_released_shape_in_k(method: str, k: int) -> None:
    people, n = hearts(60), 60
    stub = SimpleNamespace(read=lambda cycles: np.random.default_rng(0).random((len(cycles), 3)))
    protection = {"k_same": KSame(k), "microaggregation": Microaggregation(k=k, readers=stub)}.get(method, OwnCycle())
    released = protection.prepare(people, 0).cycles.reshape(n, -1)
    raw = people.cycles.reshape(n, -1)
    distance = ((released[:, None] - raw) ** 2).sum(axis=-1)
    hits = (distance.argmin(axis=1) == np.arange(n)).sum()
    if method == "own_cycle":
        assert hits == n
    else:
        assert 0 < hits <= n / k  # the attack is not a blunt one: somebody is nearest to the own group's mean
        assert np.unique(released, axis=0, return_counts=True)[1].min() >= k
        np.testing.assert_allclose(released.mean(axis=0), raw.mean(axis=0), atol=1e-5)


def _two_shapes(times: int) -> CycleSet:
    one = hearts(2, n_leads=1)
    rows = np.tile(np.arange(2), times)
    return CycleSet(one.cycles[rows], one.rhythm[rows], one.records.iloc[rows].reset_index(drop=True))


def test_codes_of_any_two_records_differ_by_twice_the_radius_at_most() -> None:
    people, others = hearts(60), hearts(50, seed=1)
    fitted = DifferentiallyPrivate(6, epsilon=np.inf).fit(people, 0, RUNS)  # no noise
    codes = fitted.pca.transform(shaped(fitted.prepare(others, 0).cycles).reshape(50, -1))
    own = fitted.pca.transform(others.shapes.reshape(50, -1))
    assert fitted.radius == pytest.approx(np.median(np.abs(fitted.pca.transform(people.shapes.reshape(60, -1))).sum(1)))
    released = fitted.prepare(others, 0).cycles / others.amplitudes[..., None]
    codes = fitted.pca.transform(released.reshape(50, -1))
    differ = np.abs(codes[:, None] - codes).sum(axis=-1)
    assert fitted.radius < differ.max() <= 2 * fitted.radius * (1 + 1e-4)
    short = np.abs(own).sum(axis=1) < fitted.radius
    assert 0 < short.sum() < 50
    np.testing.assert_allclose(codes[short], own[short], atol=1e-3)  # what is short enough is not clipped


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_noise_bounds_how_much_more_probable_a_release_is_from_one_shape_than_from_another(epsilon: float) -> None:
    fitted = DifferentiallyPrivate(1, epsilon=epsilon).fit(hearts(40, n_leads=1), 0, RUNS)
    release = _two_shapes(10_000)
    ends = fitted.pca.transform(release.shapes[:2].reshape(2, -1)).ravel()
    fitted = replace(fitted, radius=float(np.abs(ends).min() * 0.99))
    assert ends.prod() < 0  # both are clipped, to the two ends
    shapes = fitted.prepare(release, 0).cycles / release.amplitudes[..., None]
    codes = fitted.pca.transform(shapes.reshape(len(release), -1)).ravel()
    scale = 2 * fitted.radius / epsilon
    one, other = codes[0::2], codes[1::2]
    assert one.mean() == pytest.approx(np.sign(ends[0]) * fitted.radius, abs=0.03 * scale)
    assert np.abs(one - np.median(one)).mean() == pytest.approx(scale, rel=0.05)
    edges = np.linspace(-1, 1, 5) * fitted.radius
    counts = [np.histogram(part, [-np.inf, *edges, np.inf])[0] for part in (one, other)]
    ratio = np.log(counts[0] / counts[1])
    assert np.abs(ratio).max() <= epsilon + 0.15
    assert np.abs(ratio).max() >= epsilon - 0.15  # and the noise is not more than needed


@pytest.mark.parametrize("components", [1, 2, 50])
def test_low_rank_keeps_what_its_components_span(components: int) -> None:
    rng = np.random.default_rng(0)
    base = np.linalg.qr(rng.standard_normal((POINTS, 3)) - rng.standard_normal((POINTS, 3)).mean(axis=0))[0]
    base -= base.mean(axis=0)
    angle = rng.uniform(0, 2 * np.pi, 30)
    cycles = (np.cos(angle)[:, None] * base[:, 0] + np.sin(angle)[:, None] * base[:, 1])[:, None]
    people = replace(hearts(30, n_leads=1), cycles=(7 * cycles).astype(np.float32))
    made = LowRank(components).fit(people, 0, RUNS).prepare(people, 0).cycles
    error = np.abs(made - people.cycles).max() / np.abs(people.cycles).max()
    assert (error < 1e-3) == (components > 1)


def test_noise_is_of_its_level_in_each_lead() -> None:
    values = np.random.default_rng(0).standard_normal((3, 20_000)) * [[1.0], [50.0], [0.0]]
    added = _changed(Noise(0.25), values) - values.astype(np.float32)
    np.testing.assert_allclose(added.std(axis=1), [0.25, 12.5, 0], rtol=0.03)
    assert abs(np.corrcoef(added[:2])[0, 1]) < 0.03


@pytest.mark.parametrize("frequency", [2.0, 8.0, 15.0, 30.0])
def test_low_pass_has_the_gain_of_a_butterworth_filter_of_order_4_passed_twice(frequency: float) -> None:
    sine = np.sin(2 * np.pi * frequency * np.arange(4000) / FS)[None]
    spectrum = np.abs(np.fft.rfft([sine[0, 1000:3000], _changed(LowPass(8.0), sine)[0, 1000:3000]]))
    at = round(frequency * 2000 / FS)
    ratio = np.tan(np.pi * frequency / FS) / np.tan(np.pi * 8.0 / FS)
    assert spectrum[1, at] / spectrum[0, at] == pytest.approx(1 / (1 + ratio**8), abs=1e-3)
    assert _changed(LowPass(8.0), sine[:, :20]).shape == (1, 20)


def test_warping_keeps_both_ends_and_moves_all_leads_alike() -> None:
    n = 1001
    sine = np.sin(2 * np.pi * np.arange(n) / 50)
    values = np.stack([sine, 2 * sine, np.ones(n)])
    warped = _changed(Warp(0.3), values)
    crossings = [np.flatnonzero(np.diff(np.signbit(lead[1:-1]))) for lead in warped[:2]]
    np.testing.assert_array_equal(*crossings)
    plain = np.flatnonzero(np.diff(np.signbit(sine[1:-1])))
    assert crossings[0].size == plain.size
    assert np.abs(crossings[0] - plain).max() > 5
    np.testing.assert_allclose(warped[:2, [0, -1]], 0, atol=1e-3)
    np.testing.assert_allclose(_changed(Warp(0.0), values), values, atol=1e-5)
    gains = np.log(_changed(Warp(0.3), np.ones((300, n))))
    assert gains[:, ::100].std() == pytest.approx(0.3, rel=0.05)
    assert np.abs(np.corrcoef(gains[0, ::100], gains[1, ::100])[0, 1]) < 0.9


def test_unprotected_is_the_recording() -> None:
    values = np.random.default_rng(0).standard_normal((2, 300)).astype(np.float32)
    np.testing.assert_array_equal(_changed(Unprotected(), values), values)


def _rhythm(rate: float, spread: float, seed: int, seconds: float = 30.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    peaks = np.cumsum(np.maximum(60 / rate * rng.gamma(spread**-2, spread**2, 200), 0.26))
    return peaks[peaks < seconds]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("spread", [0.03, 0.22])
@pytest.mark.parametrize("rate", [42.0, 71.0, 93.0, 144.0])
def test_a_redrawn_rhythm_has_a_rounded_rate_and_stays_regular_or_irregular(
    rate: float, spread: float, seed: int
) -> None:
    own = _rhythm(rate, spread, seed)
    drawn = Retiming(10.0).peaks(own, 30.0, np.random.default_rng(seed))
    assert drawn.min() >= 0
    assert drawn.max() < 30
    assert (np.diff(drawn) > 0).all()
    rounded = 60 / np.diff(drawn).mean()
    assert rounded == pytest.approx(10 * round(rounded / 10), abs=1e-6)
    assert abs(rounded - 60 / np.diff(own).mean()) <= 5 + 1e-6
    assert 30 - np.ptp(drawn) < 3 * 60 / rounded
    assert (rhythm_features(drawn)[2] > IRREGULAR) == (rhythm_features(own)[2] > IRREGULAR) == (spread > 0.1)


def test_nothing_but_the_rounded_rate_and_the_class_of_a_rhythm_passes() -> None:
    def drawn(own: np.ndarray, seed: int = 0) -> np.ndarray:
        return Retiming(10.0).peaks(own, 10.0, np.random.default_rng(seed))

    one = drawn(_rhythm(69.0, 0.02, 1))
    np.testing.assert_array_equal(drawn(_rhythm(71.0, 0.03, 2)), one)
    assert not np.array_equal(drawn(_rhythm(71.0, 0.03, 2), seed=1)[:3], one[:3])
    assert len(drawn(_rhythm(82.0, 0.02, 1))) > len(one)
    for few in ([], [3.0], [3.0, 3.1]):  # no interval to go by: 80, what is nearest to the typical 75
        assert 60 / np.diff(drawn(np.array(few))).mean() == pytest.approx(80)
    assert 60 / np.diff(Retiming(10.0).peaks(np.array([0.5]), 0.4, np.random.default_rng(0))).mean() == pytest.approx(
        80
    )


@pytest.mark.parametrize("retiming", [None, Retiming(10.0)])
def test_a_released_cycle_stands_at_own_peaks_or_at_redrawn_ones(retiming: Retiming | None) -> None:
    people, own = hearts(3), _rhythm(71.0, 0.02, 0, 10.0)
    recording = Recording(np.zeros((2, 1000), dtype=np.float32), FS, own)
    made = Rendered(people.cycles, retiming).protect(1, recording, np.random.default_rng(5))
    peaks = retiming.peaks(own, 10.0, np.random.default_rng(5)) if retiming else own
    np.testing.assert_array_equal(made, render(people.cycles[1], peaks, 1000, FS))


CHANGES: dict[str, Callable[[], Protection]] = {"noise": lambda: Noise(1.0), "warp": lambda: Warp(0.1)}


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_drawn_follows_from_the_seed(name: str) -> None:
    values = np.random.default_rng(0).standard_normal((2, 500))
    one, again, other = (_changed(CHANGES[name](), values, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 0.1
