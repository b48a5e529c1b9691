"""ArcFace margin against cases worked out by hand."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from ecgstudy.learn.base import CosineClassifier, arcface_logits


def axes(scale: float) -> CosineClassifier:
    """Classifier of two classes that lie on the axes (weights of different lengths, which must not matter)."""
    classifier = CosineClassifier(2, 2, scale)
    classifier.weight.data = torch.tensor([[3.0, 0.0], [0.0, 0.5]])
    return classifier


def test_cosine_logits_ignore_lengths() -> None:
    logits = axes(2.0)(torch.tensor([[0.6, 0.8], [30.0, 40.0]]))
    torch.testing.assert_close(logits, torch.tensor([[1.2, 1.6], [1.2, 1.6]]))


def test_loss_of_one_embedding_by_hand() -> None:
    # cos(theta_0) = 0.6, cos(theta_1) = 0.8, own class 0, s = 2, m = 0.5 (Deng et al. 2019, eq. 3):
    # -log(exp(2 cos(arccos 0.6 + 0.5)) / (exp(2 cos(arccos 0.6 + 0.5)) + exp(2 * 0.8)))
    own = 2 * math.cos(math.acos(0.6) + 0.5)
    by_hand = -math.log(math.exp(own) / (math.exp(own) + math.exp(1.6)))
    assert by_hand == pytest.approx(1.552012, abs=1e-6)
    label = torch.tensor([0])
    loss = cross_entropy(arcface_logits(axes(2.0)(torch.tensor([[0.6, 0.8]])), label, 0.5, 2.0), label)
    assert loss.item() == pytest.approx(by_hand, abs=1e-6)


def test_other_classes_keep_their_logits() -> None:
    logits = axes(2.0)(torch.tensor([[0.6, 0.8]]))
    assert arcface_logits(logits, torch.tensor([0]), 0.5, 2.0)[0, 1] == logits[0, 1]


def test_no_margin_changes_nothing() -> None:
    logits = axes(16.0)(torch.tensor([[0.6, -0.8], [1.0, 0.2]]))
    torch.testing.assert_close(arcface_logits(logits, torch.tensor([0, 1]), 0.0, 16.0), logits)


def test_worst_embedding_is_not_rewarded() -> None:
    # theta = pi: cos(pi + m) would be better than cos(pi); the line gives -1 - m sin m
    logits = arcface_logits(axes(2.0)(torch.tensor([[-1.0, 0.0]])), torch.tensor([0]), 0.5, 2.0)
    assert logits[0, 0].item() == pytest.approx(2 * (-1 - 0.5 * math.sin(0.5)), abs=1e-6)


@pytest.mark.parametrize("embedding", [[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
def test_gradient_is_finite_on_the_axes(embedding: list[float]) -> None:
    x = torch.tensor([embedding], requires_grad=True)
    label = torch.tensor([0])
    cross_entropy(arcface_logits(axes(16.0)(x), label, 0.3, 16.0), label).backward()
    assert torch.isfinite(x.grad).all()
