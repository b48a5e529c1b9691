"""Template matching on beats whose average and correlation are known."""

import numpy as np
import pytest

from ecgstudy.learn.classical import template_embeddings
from ecgstudy.signals.features import average_beat


def test_average_beat_of_two_by_hand() -> None:
    values = np.arange(20, dtype=float).reshape(1, 20) ** 2
    # beats at 5 and 9 are whole; those at 1 and 18 reach outside the recording
    beat = average_beat(values, np.array([1, 5, 9, 18]), before=2, after=3)
    expected = [(a**2 + b**2) / 2 for a, b in zip(range(3, 8), range(7, 12), strict=True)]
    np.testing.assert_allclose(beat, [expected])


def test_beat_that_just_fits_is_kept() -> None:
    values = np.arange(5.0).reshape(1, 5)
    np.testing.assert_array_equal(average_beat(values, np.array([2]), before=2, after=3), values)
    assert np.isnan(average_beat(values, np.array([3]), before=2, after=3)).all()


def test_one_artefact_bends_nothing() -> None:
    values = np.tile(np.arange(10.0), 5).reshape(1, 50)
    values[0, 20:30] = 1e6
    beat = average_beat(values, np.array([5, 15, 25, 35, 45]), before=3, after=4)
    np.testing.assert_array_equal(beat, [np.arange(2.0, 9.0)])


def test_score_is_the_correlation_of_average_beats() -> None:
    rng = np.random.default_rng(0)
    recordings = [rng.normal(size=(1, 300)) for _ in range(4)]
    peaks = [np.array([60, 150, 230])] * 4
    embeddings = template_embeddings(recordings, peaks, fs=100.0)
    beats = [average_beat(values, peaks[0], 25, 40)[0] for values in recordings]
    np.testing.assert_allclose(embeddings[:2] @ embeddings[2:].T, np.corrcoef(beats)[:2, 2:], atol=1e-12)


def test_gain_and_offset_do_not_matter() -> None:
    rng = np.random.default_rng(1)
    values, peaks = rng.normal(size=(2, 300)), np.array([100, 200])
    one, other = template_embeddings([values, 3 * values + np.array([[7.0], [-2.0]])], [peaks, peaks], 100.0)
    assert one @ other == pytest.approx(1.0)


def test_recording_without_beats_is_undefined() -> None:
    values, peaks = np.random.default_rng(2).normal(size=(1, 300)), np.array([100, 200])
    flat = np.zeros((1, 300))
    embeddings = template_embeddings([values, values, flat], [peaks, np.array([], dtype=int), peaks], 100.0)
    assert np.isnan(embeddings).all(axis=1).tolist() == [False, True, True]
