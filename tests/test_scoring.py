"""Embeddings and class probabilities against one window at a time."""

import numpy as np
import pytest
import torch

from ecgstudy.learn import base
from ecgstudy.learn.base import SignalModel, class_probabilities, embed_windows
from ecgstudy.learn.classical import unit_rows
from ecgstudy.learn.models import create_model


@pytest.fixture
def model() -> SignalModel:
    """Give a small network in training mode."""
    sizes = {"n_leads": 1, "n_samples": 64, "fs": 50.0, "classes": {"person": "abc"}, "lead_names": ["I"]}
    return create_model("transecg", 0, width=8, n_layers=1, n_heads=2, embedding_dim=6, **sizes).train()


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Draw windows that are read in three batches."""
    monkeypatch.setattr(base, "_BATCH", 3)
    return np.random.default_rng(0).normal(size=(7, 1, 64)).astype(np.float32)


def test_embeddings_are_those_of_evaluation_mode(model: SignalModel, windows: np.ndarray) -> None:
    embeddings = embed_windows(model, windows)
    assert model.training
    with torch.no_grad():
        expected = torch.cat([model.eval().embed(torch.from_numpy(windows[i : i + 1])) for i in range(7)])
    np.testing.assert_allclose(embeddings, expected.numpy(), atol=1e-6)


def test_class_probabilities_sum_to_one(model: SignalModel, windows: np.ndarray) -> None:
    probabilities = class_probabilities(model, windows, "person")
    with torch.no_grad():
        logits = model.eval()(torch.from_numpy(windows))["person"].numpy().astype(float)
    exponentials = np.exp(logits)
    np.testing.assert_allclose(probabilities, exponentials / exponentials.sum(1, keepdims=True), atol=1e-6)


def test_rows_have_unit_length_and_nothing_has_no_direction() -> None:
    np.testing.assert_allclose(unit_rows(np.array([[3.0, -4.0]])), [[0.6, -0.8]])
    assert np.isnan(unit_rows(np.zeros((1, 3)))).all()
