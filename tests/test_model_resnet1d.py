"""ResNet1d: what attribution needs of it, and its sizes."""

from collections import Counter

import torch
from captum.attr import DeepLift
from torch import nn

from ecgstudy.learn.base import TaskLogits
from ecgstudy.learn.models import ResNet1d, SqueezeExcitation, create_model


def make(**sizes: object) -> ResNet1d:
    """Build a small model."""
    return create_model(
        "resnet1d", 0, n_leads=1, n_samples=200, fs=100.0, classes={"person": "abcd"}, lead_names=["I"], **sizes
    ).eval()


def test_every_activation_is_a_module_used_once() -> None:
    model = make()
    calls: Counter[nn.Module] = Counter()
    activations = [module for module in model.modules() if isinstance(module, nn.ReLU)]
    for module in activations:
        module.register_forward_hook(lambda module, *_: calls.update([module]))
    model(torch.randn(2, 1, 200))
    # the stem, and in each of eight blocks: between the convolutions, in the channel attention, at the end
    assert len(activations) == 1 + 8 * 3
    assert set(calls.values()) == {1}
    assert len(calls) == len(activations)


def test_deeplift_is_complete_without_products() -> None:
    model = make(reduction=0, margin=None)
    x, baseline = torch.randn(5, 1, 200), torch.zeros(5, 1, 200)
    logits = TaskLogits(model, "person")
    attributions, delta = DeepLift(logits).attribute(x, baseline, target=2, return_convergence_delta=True)
    assert delta.abs().max() < 1e-5
    change = (logits(x) - logits(baseline))[:, 2]
    torch.testing.assert_close(attributions.sum(dim=(1, 2)), change, atol=1e-5, rtol=0)


def test_widths_are_configurable() -> None:
    model = make(widths=[4, 6, 10])
    assert model.features(torch.randn(3, 1, 200)).shape == (3, 10)
    # the stem and two of three stages halve the time axis: 200 -> 25
    assert model.stages(model.stem(torch.randn(3, 1, 200))).shape == (3, 10, 25)


def test_channel_attention_by_hand() -> None:
    layer = SqueezeExcitation(2, reduction=8)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    layer.weigh[0].weight.data[0, 0] = 1.0  # hidden unit 0 = relu(mean of channel 0)
    layer.weigh[2].weight.data[1, 0] = 2.0  # weight of channel 1 = sigmoid(2 * hidden unit 0)
    x = torch.tensor([[[1.0, 3.0], [5.0, 7.0]]])
    expected = torch.tensor([[[0.5, 1.5], [5.0, 7.0]]])
    expected[0, 1] *= torch.sigmoid(torch.tensor(4.0))
    torch.testing.assert_close(layer(x), expected)
