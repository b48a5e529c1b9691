"""Loss balances: GradNorm against a case worked out by hand, uncertainty weights against their closed form."""

import math

import pytest
import torch
from torch import Tensor, nn

from ecgstudy.errors import StudyError
from ecgstudy.learn.balances import EqualWeights, GradNorm, UncertaintyWeights
from ecgstudy.learn.models import create_model


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


def test_second_step_pulls_the_task_that_lags_behind() -> None:
    # Start at weights (1, 1), first losses (12.5, 37.5). Then loss a falls to 1/4 of its start, b to 1/2:
    # lag = (1/4, 1/2), mean 3/8, r = (2/3, 4/3). With alpha 1 and norms (2, 2): G = (2, 2), mean 2,
    # targets (4/3, 8/3): a pulls too hard (+2), b too little (-2). rate 0.1: w = (0.8, 1.2), already summing to 2.
    balance = GradNorm(2, alpha=1.0, rate=0.1)
    balance.first_losses.copy_(torch.tensor([12.5, 37.5]))
    shared = torch.tensor([2.0], requires_grad=True)
    losses = torch.stack([2 * shared.sum() - 4 + 3.125, 2 * shared.sum() - 4 + 18.75])
    balance(losses, shared)
    torch.testing.assert_close(balance.task_weights(), torch.tensor([0.8, 1.2]))


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


def test_equal_norms_are_reached_where_nothing_lags() -> None:
    # with alpha 0 the weights settle where w_i |grad_i| are equal: inverse to (1, 3), summing to 2
    shared = torch.tensor([3.0, 4.0], requires_grad=True)
    balance = GradNorm(2, alpha=0.0, rate=1e-3)
    for _ in range(500):
        balance(two_losses(shared, 1.0, 3.0), shared)
    torch.testing.assert_close(balance.task_weights(), torch.tensor([1.5, 0.5]), atol=0.02, rtol=0)


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


def test_unknown_balance_is_refused() -> None:
    shape = {"n_leads": 1, "n_samples": 200, "fs": 100.0, "classes": {"person": "ab"}, "lead_names": ["I"]}
    with pytest.raises(StudyError, match=r"no loss balance gradnrm.*equal, uncertainty, gradnorm"):
        create_model("dt4ecg", 0, balance="gradnrm", **shape)
