"""Embedding, pooling, cosine scores and AS-norm against slow or hand-made counterparts."""

import numpy as np
import pytest
import torch

from ecgstudy.learn.models import create_model
from ecgstudy.learn.base import SignalModel
from ecgstudy.learn.scoring import adaptive_s_norm, class_probabilities, embed_windows, pool, score_matrix, unit_rows


@pytest.fixture
def model() -> SignalModel:
    """Give a small network in training mode."""
    sizes = {"n_leads": 1, "n_samples": 64, "fs": 50.0, "classes": {"person": "abc"}, "lead_names": ["I"]}
    return create_model("transecg", 0, width=8, n_layers=1, n_heads=2, embedding_dim=6, **sizes).train()


@pytest.fixture
def windows() -> np.ndarray:
    """Draw windows."""
    return np.random.default_rng(0).normal(size=(7, 1, 64)).astype(np.float32)


def test_embeddings_are_those_of_evaluation_mode(model: SignalModel, windows: np.ndarray) -> None:
    embeddings = embed_windows(model, windows, batch_size=3)
    assert model.training
    with torch.no_grad():
        expected = torch.cat([model.eval().embed(torch.from_numpy(windows[i : i + 1])) for i in range(7)])
    np.testing.assert_allclose(embeddings, expected.numpy(), atol=1e-6)


def test_class_probabilities_sum_to_one(model: SignalModel, windows: np.ndarray) -> None:
    probabilities = class_probabilities(model, windows, "person", batch_size=4)
    with torch.no_grad():
        logits = model.eval()(torch.from_numpy(windows))["person"].numpy().astype(float)
    exponentials = np.exp(logits)
    np.testing.assert_allclose(probabilities, exponentials / exponentials.sum(1, keepdims=True), atol=1e-6)


def test_pool_by_hand() -> None:
    embeddings = np.array([[1.0, 0], [0, 1], [0, 1], [np.nan, np.nan], [np.nan, np.nan]])
    names, pooled = pool(embeddings, np.array(["b", "b", "a", "a", "c"]))
    assert names.tolist() == ["b", "a", "c"]
    np.testing.assert_allclose(pooled, [[np.sqrt(0.5), np.sqrt(0.5)], [0, 1], [np.nan, np.nan]])


def test_scores_are_cosines() -> None:
    rng = np.random.default_rng(0)
    probe, gallery = rng.normal(size=(3, 4)), rng.normal(size=(2, 4))
    scores = score_matrix(unit_rows(probe), unit_rows(gallery))
    for i in range(3):
        for j in range(2):
            cosine = probe[i] @ gallery[j] / np.sqrt((probe[i] ** 2).sum() * (gallery[j] ** 2).sum())
            assert scores[i, j] == pytest.approx(cosine)


def test_direction_of_nothing_is_undefined() -> None:
    assert np.isnan(unit_rows(np.zeros((1, 3)))).all()


@pytest.mark.parametrize("n_top", [2, 5, 100])
def test_adaptive_s_norm_against_a_loop(n_top: int) -> None:
    rng = np.random.default_rng(3)
    probe, gallery, cohort = (unit_rows(rng.normal(size=(n, 4))) for n in (5, 3, 8))
    normalised = adaptive_s_norm(probe, gallery, cohort, n_top)
    for i, p in enumerate(probe):
        for j, g in enumerate(gallery):
            of_probe = sorted((float(p @ c) for c in cohort), reverse=True)[:n_top]
            of_gallery = sorted((float(g @ c) for c in cohort), reverse=True)[:n_top]
            score = float(p @ g)
            by_hand = (score - np.mean(of_gallery)) / np.std(of_gallery) + (score - np.mean(of_probe)) / np.std(
                of_probe
            )
            assert normalised[i, j] == pytest.approx(by_hand / 2)


def test_cohort_of_one_is_refused() -> None:
    one = np.ones((1, 1))
    with pytest.raises(ValueError, match="two persons or more is needed, not 1"):
        adaptive_s_norm(one, one, one)
