"""Rank-k, CMC, open-set DIR and rank-1 by gallery size against hand-computed cases and brute force."""

import itertools
import math

import numpy as np
import pytest

from ecgstudy.errors import StudyError
from ecgstudy.evaluate.trials import ScoreMatrix, cmc, dir_at_far, rank1_by_gallery_size, rank_k

# probe a: best of its two entries wins; b: c ties, so rank 2; c: both others beat it; d is not enrolled
SCORES = np.array([[0.1, 0.9, 0.5, 0.3], [0.2, 0.1, 0.7, 0.7], [0.4, 0.6, 0.5, 0.2], [0.9, 0.8, 0.1, 0.2]])
SEARCHES = ScoreMatrix(SCORES, list("abcd"), list("aabc")).searches


def test_ranks_by_hand() -> None:
    searches = SEARCHES
    assert searches.enrolled.tolist() == [True, True, True, False]
    assert searches.ahead[:3].tolist() == [0, 1, 2]
    np.testing.assert_allclose(searches.genuine_scores, [0.9, 0.7, 0.2, np.nan])
    np.testing.assert_allclose(searches.best_impostor_scores, [0.5, 0.7, 0.6, 0.9])
    np.testing.assert_allclose(cmc(searches, np.ones(4)), [1 / 3, 2 / 3, 1])
    assert rank_k(searches, 1, np.array([2.0, 1.0, 1.0, 5.0])) == 0.5


def test_constant_scores_rank_last() -> None:
    searches = ScoreMatrix(np.zeros((3, 3)), list("abc"), list("abc")).searches
    np.testing.assert_array_equal(cmc(searches, np.ones(3)), [0, 0, 1])
    # nor are they found where every alarm is allowed
    assert dir_at_far(searches, 1.0, np.ones(3)) == 0.0


def test_small_gallery_is_undefined() -> None:
    assert math.isnan(rank_k(SEARCHES, 5, np.ones(4)))
    alone = ScoreMatrix(np.ones((2, 2)), ["a", "a"], ["a", "a"]).searches
    assert math.isnan(rank_k(alone, 1, np.ones(2)))
    assert math.isnan(dir_at_far(alone, 0.5, np.ones(2)))
    nobody = ScoreMatrix(np.ones((2, 2)), ["x", "y"], ["a", "b"]).searches
    assert math.isnan(rank_k(nobody, 1, np.ones(2)))


def test_dir_by_hand() -> None:
    searches = SEARCHES
    # rival scores .5 .7 .6 .9: FAR 1/4 lets only .9 pass, threshold .7; of a, b, c only a is first and above
    assert dir_at_far(searches, 0.25, np.ones(4)) == pytest.approx(1 / 3)
    # everything may pass: rank-1
    assert dir_at_far(searches, 1.0, np.ones(4)) == rank_k(searches, 1, np.ones(4))
    assert math.isnan(dir_at_far(searches, 0.2, np.ones(4)))


def test_dir_needs_a_score_above_the_threshold_not_at_it() -> None:
    # the three searches without the own person reach .1, .7 and .7: at most one may raise an alarm, so .7 must not
    scores = np.array([[0.7, 0.1], [0.7, 0.2], [0.1, 0.7]])
    searches = ScoreMatrix(scores, ["a", "x", "y"], ["a", "b"]).searches
    assert dir_at_far(searches, 1 / 3, np.ones(3)) == 0.0
    assert dir_at_far(searches, 2 / 3, np.ones(3)) == 1.0


def test_dir_against_brute_force() -> None:
    rng = np.random.default_rng(4)
    probe, gallery = rng.integers(0, 12, 300), np.repeat(np.arange(10), 2)
    scores = rng.normal(size=(300, 20)) + 2.5 * (probe[:, None] == gallery)
    best = np.array([[row[gallery == person].max() for person in range(10)] for row in scores])
    stranger = np.array([np.delete(row, p).max() if p < 10 else row.max() for row, p in zip(best, probe, strict=True)])
    detected = 0.0
    for threshold in stranger:
        if np.mean(stranger > threshold) <= 0.05:
            hits = [row[p] > threshold and row.argmax() == p for row, p in zip(best, probe, strict=True) if p < 10]
            detected = max(detected, float(np.mean(hits)))
    assert dir_at_far(ScoreMatrix(scores, probe, gallery).searches, 0.05, np.ones(300)) == pytest.approx(
        detected, abs=1e-12
    )


def test_sub_gallery_expectation_against_all_sub_galleries() -> None:
    rng = np.random.default_rng(8)
    persons = np.arange(7)
    scores = rng.normal(size=(7, 7)).round(1) + np.eye(7)
    sizes = [2, 3, 5, 7]
    expected = []
    for size in sizes:
        hits = [
            all(scores[p, q] < scores[p, p] for q in others)
            for p in persons
            for others in itertools.combinations(np.delete(persons, p), size - 1)
        ]
        expected.append(np.mean(hits))
    searches = ScoreMatrix(scores, persons, persons).searches
    np.testing.assert_allclose(rank1_by_gallery_size(searches, sizes, np.ones(7)), expected, atol=1e-12)
    assert np.isnan(rank1_by_gallery_size(searches, [1, 8], np.ones(7))).all()
    assert rank1_by_gallery_size(searches, [7], np.ones(7))[0] == rank_k(searches, 1, np.ones(7))


def test_unusable_input_is_refused() -> None:
    with pytest.raises(StudyError, match="gallery is empty"):
        ScoreMatrix(np.zeros((2, 0)), ["a", "b"], []).searches  # noqa: B018
    with pytest.raises(StudyError, match="not a number"):
        ScoreMatrix([[math.nan, 1.0]], ["a"], ["a", "b"]).searches  # noqa: B018
    with pytest.raises(StudyError, match="score matrix is"):
        ScoreMatrix(np.zeros((2, 2)), ["a", "b"], ["a"])
