"""Each network by itself: what its attention means, what attribution needs of it, its margin and its balances."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import DeepLift
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ecgstudy.errors import StudyError
from ecgstudy.learn.balances import EqualWeights, GradNorm, UncertaintyWeights
from ecgstudy.learn.base import CosineClassifier, SignalModel, TaskLogits, arcface_logits
from ecgstudy.learn.batches import WindowSet
from ecgstudy.learn.models import Attention, SqueezeExcitation, create_model
from ecgstudy.learn.train import TrainingSettings, fit

TASKS = {"person": list("abc"), "activity": ["rest", "run"]}
SMALL = {
    "transecg": {"width": 16, "n_layers": 3, "n_heads": 2},
    "resnet1d": {"widths": [4, 6, 10]},
    "dt4ecg": {"widths": [8, 16]},
}


def make(name: str, n_samples: int = 200, fs: float = 100.0, **sizes: object) -> SignalModel:
    """Build a small network."""
    shape = {"n_leads": 1, "n_samples": n_samples, "fs": fs, "classes": TASKS, "lead_names": ["I"]}
    return create_model(name, 0, **{**shape, **SMALL[name], **sizes}).eval()


def noise(n: int = 4, n_samples: int = 200) -> Tensor:
    """Draw windows of noise."""
    return torch.randn(n, 1, n_samples, generator=torch.Generator().manual_seed(1))


def test_attention_agrees_with_torch() -> None:
    torch.manual_seed(0)
    own, reference = Attention(16, 4), nn.MultiheadAttention(16, 4, batch_first=True)
    reference.in_proj_weight.data, reference.in_proj_bias.data = own.to_qkv.weight.data, own.to_qkv.bias.data
    reference.out_proj.weight.data, reference.out_proj.bias.data = own.to_out.weight.data, own.to_out.bias.data
    tokens = torch.randn(5, 7, 16)
    expected = reference(tokens, tokens, tokens, average_attn_weights=False)
    torch.testing.assert_close(own(tokens), expected, atol=1e-6, rtol=1e-5)
    with pytest.raises(ValueError, match="width 16 cannot be shared by 3 heads"):
        Attention(16, 3)


def test_attention_maps_are_shares() -> None:
    maps = make("transecg", 105, 50.0).attention_maps(noise(4, 105))
    assert maps.shape == (3, 4, 2, 22, 22)
    torch.testing.assert_close(maps.sum(-1), torch.ones(3, 4, 2, 22))
    assert (maps >= 0).all()


@pytest.mark.parametrize("n_samples", [105, 103])
def test_patches_cover_the_window_in_order(n_samples: int) -> None:
    bounds = make("transecg", n_samples, 50.0).patch_bounds
    assert (len(bounds), bounds[0], bounds[-1]) == (21, (0, 5), (100, n_samples))
    assert [sample for start, end in bounds for sample in range(start, end)] == list(range(n_samples))
    assert len(make("transecg", 500).patch_bounds) == 50


@pytest.mark.parametrize("patch", [0, 7, 20])
def test_token_reads_its_patch_only(patch: int) -> None:
    model, x = make("transecg", 103, 50.0), noise(1, 103)
    changed = x.clone()
    start, end = model.patch_bounds[patch]
    changed[..., start:end] += 1
    # the first layer's queries and keys see tokens before any mixing: only the patch's row and column may move
    before, after = model.attention_maps(x)[0], model.attention_maps(changed)[0]
    assert ((after - before).abs().amax(dim=(0, 1)).sum(-1) > 1e-6)[patch + 1]
    others = [token for token in range(22) if token != patch + 1]
    # a softmax row keeps the ratios of the entries that did not change
    kept = (after[0].log() - before[0].log())[:, others][:, :, others]
    torch.testing.assert_close(kept, kept[..., :1].expand_as(kept), atol=1e-4, rtol=0)


def test_every_activation_is_a_module_used_once() -> None:
    model = make("resnet1d", widths=[4, 6, 10, 12])
    calls: Counter[nn.Module] = Counter()
    activations = [module for module in model.modules() if isinstance(module, nn.ReLU)]
    for module in activations:
        module.register_forward_hook(lambda module, *_: calls.update([module]))
    model(noise(2))
    # the stem, and in each of eight blocks: between the convolutions, in the channel attention, at the end
    assert len(activations) == 1 + 8 * 3
    assert calls == Counter(activations)


def test_deeplift_is_complete_without_products() -> None:
    model = make("resnet1d", reduction=0, margin=None)
    x, baseline, logits = noise(5), torch.zeros(5, 1, 200), TaskLogits(model, "person")
    attributions, delta = DeepLift(logits).attribute(x, baseline, target=2, return_convergence_delta=True)
    assert delta.abs().max() < 1e-5
    change = (logits(x) - logits(baseline))[:, 2]
    torch.testing.assert_close(attributions.sum(dim=(1, 2)), change, atol=1e-5, rtol=0)


def test_widths_are_configurable() -> None:
    model, x = make("resnet1d"), noise(3)
    assert model.features(x).shape == (3, 10)
    # the stem and two of three stages halve the time axis: 200 -> 25
    assert model.stages(model.stem(x)).shape == (3, 10, 25)


def test_channel_attention_by_hand() -> None:
    layer = SqueezeExcitation(2, reduction=8)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    layer.weigh[0].weight.data[0, 0] = 1.0  # hidden unit 0 = relu(mean of channel 0)
    layer.weigh[2].weight.data[1, 0] = 2.0  # weight of channel 1 = sigmoid(2 * hidden unit 0)
    x = torch.tensor([[[1.0, 3.0], [5.0, 7.0]]])
    weights = torch.tensor([0.5, torch.sigmoid(torch.tensor(4.0))])
    torch.testing.assert_close(layer(x), x * weights[:, None])


@pytest.mark.parametrize(("channel_on", "sequence_on"), [(True, True), (False, False), (True, False), (False, True)])
def test_features_are_the_maps_under_both_attentions_and_a_switched_off_half_is_neutral(
    channel_on: bool, sequence_on: bool
) -> None:
    model, x = make("dt4ecg", channel_attention=channel_on, sequence_attention=sequence_on), noise()
    channel, sequence = model.attention_maps(x)
    maps = model.blocks(model.stem(x))
    torch.testing.assert_close(model.features(x), torch.einsum("nct,nc,nt->nc", maps, channel, sequence))
    assert (channel.shape, sequence.shape) == ((4, 16), (4, 200 // model.samples_per_point))
    torch.testing.assert_close(sequence.sum(dim=1), torch.ones(4))
    assert torch.equal(channel, torch.ones_like(channel)) is not channel_on
    assert ((channel > 0) & (channel < 1)).all() == channel_on
    assert torch.equal(sequence, torch.full_like(sequence, 1 / sequence.shape[1])) is not sequence_on


def test_a_point_of_the_attention_lies_where_its_samples_are() -> None:
    # a change around sample 120 reaches the points around it, equally far to both sides
    model, x = make("dt4ecg", channel_attention=False, widths=[8, 16, 16]), noise(1)
    changed = x.clone()
    changed[..., 116:125] += 3.0
    before, after = (model.blocks(model.stem(values))[0] for values in (x, changed))
    moved = (after - before).abs().sum(dim=0)
    touched = torch.nonzero(moved > 0).flatten()
    assert len(touched) < len(moved)
    middle = (touched[0] + touched[-1]).item() / 2
    assert middle * model.samples_per_point == pytest.approx(120, abs=model.samples_per_point)


def test_the_balance_reads_the_last_layer_that_the_tasks_share(monkeypatch: pytest.MonkeyPatch) -> None:
    model, read = make("dt4ecg").train(), []
    monkeypatch.setattr(model.balance, "forward", lambda losses, shared: (read.append(shared), losses.sum())[1])
    monkeypatch.setattr(model, "log", lambda *_, **__: None)
    model.training_step((noise(), {"person": torch.arange(4) % 3, "activity": torch.arange(4) % 2}), 0)
    assert len(read) == 1
    assert read[0] is model.embedding[0].weight


def planted(n: int = 96) -> WindowSet:
    """Build windows whose frequency tells the person and whose offset in phase of a pulse tells the activity."""
    rng = np.random.default_rng(0)
    person, activity = rng.integers(0, 3, n), rng.integers(0, 2, n)
    t = np.arange(200) / 100
    signal = np.sin(2 * np.pi * (2 + 3 * person[:, None]) * t + rng.uniform(0, 6, (n, 1)))
    signal += activity[:, None] * np.sin(2 * np.pi * 20 * t)
    samples = (signal + 0.1 * rng.standard_normal((n, 200))).astype(np.float32)[:, None]
    return WindowSet(samples, {"person": person, "activity": activity}, *[person.astype(str)] * 2)


@pytest.mark.parametrize("balance", ["gradnorm", "uncertainty", "equal"])
def test_both_planted_tasks_are_learnt_and_the_history_shows_the_balance(balance: str, tmp_path: Path) -> None:
    model = make("dt4ecg", balance=balance, margin=None)
    run = fit(model, planted(), None, TrainingSettings(epochs=15, batch_size=16), tmp_path, "cpu")
    test = planted(120)
    with torch.inference_mode():
        logits = run.model(torch.from_numpy(test.samples[96:]))
    for task in TASKS:
        assert (logits[task].argmax(dim=1).numpy() == test.targets[task][96:]).mean() > 0.9
    weights = run.history[["weight_person", "weight_activity"]]
    if balance == "gradnorm":
        np.testing.assert_allclose(weights.sum(axis=1), 2, rtol=1e-5)
        assert weights["weight_person"].std() > 0
    if balance == "equal":
        assert (weights == 1).all(axis=None)
        losses = run.history["train_person_loss"] + run.history["train_activity_loss"]
        np.testing.assert_allclose(run.history["train_loss"], losses, rtol=1e-5)


def test_unknown_balance_is_refused() -> None:
    with pytest.raises(StudyError, match=r"no loss balance gradnrm.*equal, uncertainty, gradnorm"):
        make("dt4ecg", balance="gradnrm")


def axes(scale: float) -> CosineClassifier:
    """Classifier of two classes that lie on the axes (weights of different lengths, which must not matter)."""
    classifier = CosineClassifier(2, 2, scale)
    classifier.weight.data = torch.tensor([[3.0, 0.0], [0.0, 0.5]])
    return classifier


def test_cosine_logits_ignore_lengths() -> None:
    logits = axes(2.0)(torch.tensor([[0.6, 0.8], [30.0, 40.0]]))
    torch.testing.assert_close(logits, torch.tensor([[1.2, 1.6], [1.2, 1.6]]))


def test_the_margin_of_one_embedding_by_hand() -> None:
    # cos(theta_0) = 0.6, cos(theta_1) = 0.8, own class 0, s = 2, m = 0.5 (Deng et al. 2019, eq. 3):
    # -log(exp(2 cos(arccos 0.6 + 0.5)) / (exp(2 cos(arccos 0.6 + 0.5)) + exp(2 * 0.8)))
    own = 2 * math.cos(math.acos(0.6) + 0.5)
    by_hand = -math.log(math.exp(own) / (math.exp(own) + math.exp(1.6)))
    assert by_hand == pytest.approx(1.552012, abs=1e-6)
    logits, label = axes(2.0)(torch.tensor([[0.6, 0.8]])), torch.tensor([0])
    with_margin = arcface_logits(logits, label, 0.5, 2.0)
    assert cross_entropy(with_margin, label).item() == pytest.approx(by_hand, abs=1e-6)
    assert with_margin[0, 1] == logits[0, 1]
    torch.testing.assert_close(arcface_logits(logits, label, 0.0, 2.0), logits)


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


def two_losses(shared: Tensor, a: float, b: float) -> Tensor:
    """Losses a |W|^2 / 2 and b |W|^2 / 2, whose gradients by W are a W and b W."""
    half_square = shared.square().sum() / 2
    return torch.stack([a * half_square, b * half_square])


def test_first_step_worked_out_by_hand() -> None:
    # W = (3, 4): |W| = 5. Losses 1 * 12.5 and 3 * 12.5, gradient norms 5 and 15, weights 1 and 1.
    # G = (5, 15), mean 10; first batch, so both relative losses are 1 and the targets are 10 and 10.
    # d/dw sum |G - 10| = (-5, +15); w - 0.01 * that = (1.05, 0.85), scaled to sum 2: / 0.95.
    shared = torch.tensor([3.0, 4.0], requires_grad=True)
    balance = GradNorm(2, alpha=1.5, rate=0.01)
    loss = balance(two_losses(shared, 1.0, 3.0), shared)
    assert loss.item() == pytest.approx(12.5 + 37.5)
    torch.testing.assert_close(balance.task_weights(), torch.tensor([1.05, 0.85]) / 0.95)
    # the network still descends the loss under the weights that were in force: gradient (1 + 3) W
    torch.testing.assert_close(torch.autograd.grad(loss, shared)[0], torch.tensor([12.0, 16.0]))


def test_the_step_is_the_gradient_of_the_papers_loss() -> None:
    # independent way: autograd through sum |w_i n_i - target_i| with the target held fixed
    torch.manual_seed(0)
    shared = torch.randn(6, 4, requires_grad=True)
    x, rate, alpha = torch.randn(5, 4), 1e-3, 0.7
    hidden = torch.tanh(x @ shared.T)
    losses = torch.stack([hidden.square().mean(), (hidden - 1).abs().mean(), hidden.exp().mean()])
    balance = GradNorm(3, alpha=alpha, rate=rate)
    weights = torch.tensor([0.5, 1.5, 1.0], requires_grad=True)
    balance.weights.copy_(weights.detach())
    first = torch.tensor([1.0, 2.0, 1.5])
    balance.first_losses.copy_(first)
    pull = torch.stack(
        [
            torch.autograd.grad(w * loss, shared, create_graph=True, retain_graph=True)[0].norm()
            for w, loss in zip(weights, losses, strict=True)
        ]
    )
    lag = (losses / first).detach()
    target = (pull.mean() * (lag / lag.mean()) ** alpha).detach()
    slope = torch.autograd.grad((pull - target).abs().sum(), weights, retain_graph=True)[0]
    expected = (weights - rate * slope).detach()
    balance(losses, shared)
    torch.testing.assert_close(balance.task_weights(), 3 * expected / expected.sum())


def test_a_long_gradient_leaves_every_weight_positive() -> None:
    shared = torch.tensor([300.0], requires_grad=True)
    balance = GradNorm(2, rate=1.0)
    balance(two_losses(shared, 1.0, 3.0), shared)
    assert (balance.task_weights() > 0).all()
    assert balance.task_weights().sum().item() == pytest.approx(2.0)


def test_a_task_without_labels_in_a_batch_moves_nothing() -> None:
    shared = torch.tensor([3.0, 4.0], requires_grad=True)
    balance = GradNorm(2)
    balance(two_losses(shared, 1.0, 0.0), shared)
    assert torch.equal(balance.task_weights(), torch.ones(2))
    assert balance.first_losses.isnan().all()


def test_a_resumed_balance_goes_on_as_the_uninterrupted_one() -> None:
    shared = torch.tensor([3.0, 4.0], requires_grad=True)
    whole, resumed = GradNorm(2), GradNorm(2)
    whole(two_losses(shared, 1.0, 3.0), shared)
    resumed.load_state_dict(whole.state_dict())
    for balance in (whole, resumed):
        balance(two_losses(shared, 0.5, 2.5), shared)
    assert torch.equal(whole.task_weights(), resumed.task_weights())


def test_uncertainty_weights_settle_at_twice_the_losses() -> None:
    # d/ds (exp(-s) L + s / 2) = 0 at exp(s) = 2 L, where the price is 1/2 + log(2 L) / 2 each
    balance = UncertaintyWeights(2)
    losses = torch.tensor([0.2, 3.0])
    optimiser = torch.optim.SGD(balance.parameters(), lr=0.5)
    for _ in range(300):
        optimiser.zero_grad()
        value = balance(losses, nn.Parameter(torch.zeros(1)))
        value.backward()
        optimiser.step()
    torch.testing.assert_close(balance.task_weights(), 1 / (2 * losses))
    assert value.item() == pytest.approx(sum(0.5 + math.log(2 * loss) / 2 for loss in (0.2, 3.0)), rel=1e-5)


def test_equal_weights_are_the_sum() -> None:
    balance = EqualWeights(2)
    assert balance(torch.tensor([1.0, 2.5]), torch.zeros(1)).item() == 3.5
    assert torch.equal(balance.task_weights(), torch.ones(2))
