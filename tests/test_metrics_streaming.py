"""Streaming over blocks equals sorting everything, float for float."""

import math

import numpy as np
import pytest

from ecgstudy.errors import StudyError
from ecgstudy.evaluate import streaming
from ecgstudy.evaluate.levels import ScoreLevels
from ecgstudy.evaluate.streaming import cosine_rows, stream_verification
from ecgstudy.evaluate.levels import eer, tar_at_far

FARS = (0.3, 1e-2, 1e-3)


def _matrix(kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Score matrix, probe and gallery persons; `kind` decides where the decisive scores lie."""
    probe, gallery = rng.integers(0, 12, 173), rng.integers(0, 14, 151)
    genuine = probe[:, None] == gallery
    scores = rng.normal(0, 1, genuine.shape) + 1.5 * genuine
    if kind == "ties":
        scores = scores.round(1)
    elif kind == "tiny":
        scores *= 1e-41  # subnormal floats
    elif kind == "one bin":
        scores = 1 + np.float32(1e-6) * scores.round(0)
    elif kind == "extremes":
        scores[rng.random(scores.shape) < 0.2] = np.inf
        scores[rng.random(scores.shape) < 0.2] = -np.inf
    elif kind == "signed zeros":
        scores = np.where(rng.random(scores.shape) < 0.5, 0.0, -0.0) + (np.abs(scores) > 2) * np.sign(scores)
    elif kind == "constant":
        scores = np.full(scores.shape, 0.25)
    elif kind == "separate":
        scores = genuine * 2.0 - 1
    return scores.astype(np.float32), probe, gallery


@pytest.mark.parametrize(
    "kind", ["normal", "ties", "tiny", "one bin", "extremes", "signed zeros", "constant", "separate"]
)
def test_equals_the_sorted_result_exactly(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "_BLOCK_TRIALS", 1000)
    matrix, probe, gallery = _matrix(kind, np.random.default_rng(2))
    streamed = stream_verification(lambda start, stop: matrix[start:stop], probe, gallery, FARS)
    genuine = probe[:, None] == gallery
    levels = ScoreLevels.from_scores(matrix[genuine], matrix[~genuine])
    assert streamed.eer == eer(levels)
    assert streamed.tar == {far: tar_at_far(levels, far) for far in FARS}
    assert (streamed.n_genuine, streamed.n_impostor) == (genuine.sum(), (~genuine).sum())


def test_cosine_rows_are_cosines() -> None:
    rows = cosine_rows(np.array([[3.0, 4.0], [0.0, 2.0]]), np.array([[1.0, 0.0], [0.0, -5.0], [1.0, 1.0]]))
    expected = [[0.6, -0.8, 1.4 / math.sqrt(2)], [0.0, -1.0, 1 / math.sqrt(2)]]
    np.testing.assert_allclose(rows(0, 2), expected, atol=1e-7)
    np.testing.assert_array_equal(rows(1, 2), rows(0, 2)[1:])


def test_unresolvable_far_and_missing_labels_are_undefined() -> None:
    rows = cosine_rows(np.eye(3), np.eye(3))
    small = stream_verification(rows, ["a", "b", "c"], ["a", "b", "c"], (0.5, 1e-2))
    assert small.eer == 0.0
    assert small.tar[0.5] == 1.0
    assert math.isnan(small.tar[1e-2])
    strangers = stream_verification(rows, ["a", "b", "c"], ["d", "e", "f"])
    assert math.isnan(strangers.eer)
    assert strangers.n_genuine == 0


def test_unusable_scores_are_refused() -> None:
    with pytest.raises(StudyError, match="not a number"):
        stream_verification(cosine_rows(np.zeros((1, 4)), np.ones((2, 4))), ["a"], ["a", "b"])
    with pytest.raises(StudyError, match="float64"):
        stream_verification(lambda start, stop: np.zeros((stop - start, 2)), ["a"], ["a", "b"])
