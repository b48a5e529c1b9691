"""The balances of DT4ECG's losses: their sum, uncertainty weights and GradNorm.

Chen et al., "GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask Networks", ICML 2018
(algorithm 1). Kendall, Gal, Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses", CVPR 2018.
"""

import torch
from torch import Tensor, nn

_LEAST_WEIGHT = 1e-2  # a long gradient must not turn a weight negative, which would unlearn the task


class EqualWeights(nn.Module):
    """Balance of `n_tasks` losses, from their graph and the last layer that all tasks share: here their sum."""

    def __init__(self, n_tasks: int) -> None:
        super().__init__()
        self.n_tasks = n_tasks

    def task_weights(self) -> Tensor:
        """Weight that each task's loss has at present, shape (n_tasks,), without gradient."""
        return torch.ones(self.n_tasks)

    def forward(self, losses: Tensor, shared: Tensor) -> Tensor:
        """Return the loss to minimise, from the loss of each task (n_tasks,) and the weights of the shared layer."""
        return losses.sum()


class UncertaintyWeights(EqualWeights):
    """Each loss divided by a learnt variance, whose logarithm is the price of a high one (Kendall et al., eq. 10).

    With s = log(variance) of a task: ``exp(-s) loss + s / 2``; s is learnt by the network's optimiser.
    """

    def __init__(self, n_tasks: int) -> None:
        super().__init__(n_tasks)
        self.log_variance = nn.Parameter(torch.zeros(n_tasks))

    def task_weights(self) -> Tensor:
        """Inverse variances."""
        return torch.exp(-self.log_variance.detach())

    def forward(self, losses: Tensor, shared: Tensor) -> Tensor:
        """Weigh the losses by their inverse variances and add half the logarithms."""
        return (torch.exp(-self.log_variance) * losses + self.log_variance / 2).sum()


class GradNorm(EqualWeights):
    """Weights under which all tasks pull the shared layer about equally hard (Chen et al., algorithm 1).

    With w the weights, W the last shared layer, G_i the norm of the gradient of ``w_i loss_i`` by W, and r_i the loss
    of task i relative to its first value, divided by the mean of that over tasks: after each batch w descends
    ``sum_i |G_i - mean(G) r_i ** alpha|`` (the target taken as a constant; plain steps of length `rate`, ours) and is
    scaled to sum to the number of tasks. `alpha` is how strongly a task that lags behind is pulled ahead. Weights and
    first losses are buffers, so a checkpoint holds them and a resumed run goes on as the uninterrupted one.
    """

    weights: Tensor
    first_losses: Tensor

    def __init__(self, n_tasks: int, alpha: float = 1.5, rate: float = 0.025) -> None:
        super().__init__(n_tasks)
        self.alpha = alpha
        self.rate = rate
        self.register_buffer("weights", torch.ones(n_tasks))
        self.register_buffer("first_losses", torch.full((n_tasks,), torch.nan))

    def task_weights(self) -> Tensor:
        """Return the weights as they are after the last batch."""
        return self.weights.clone()

    def forward(self, losses: Tensor, shared: Tensor) -> Tensor:
        """Weigh the losses, then update the weights for the next batch."""
        weighted = (self.weights.clone() * losses).sum()
        norms = torch.stack([torch.autograd.grad(loss, shared, retain_graph=True)[0].norm() for loss in losses])
        self._update(losses.detach(), norms)
        return weighted

    @torch.no_grad()
    def _update(self, losses: Tensor, norms: Tensor) -> None:
        """One step of the weights, from the losses and their unweighted gradient norms, each of shape (n_tasks,)."""
        if not (losses > 0).all():
            return  # a task without a label in this batch says nothing about how fast it learns
        if self.first_losses.isnan().any():
            self.first_losses.copy_(losses)
        pull = self.weights * norms
        lag = losses / self.first_losses
        target = pull.mean() * (lag / lag.mean()) ** self.alpha
        stepped = self.weights - self.rate * torch.sign(pull - target) * norms
        stepped = stepped.clamp_min(_LEAST_WEIGHT)
        self.weights.copy_(self.n_tasks * stepped / stepped.sum())


BALANCES = {"equal": EqualWeights, "uncertainty": UncertaintyWeights, "gradnorm": GradNorm}
