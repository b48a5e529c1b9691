"""Balancing the losses of several tasks that share a trunk: equal, by uncertainty, or by gradient norms.

Sources: Chen, Badrinarayanan, Lee, Rabinovich, "GradNorm: Gradient Normalization for
Adaptive Loss Balancing in Deep Multitask Networks", ICML 2018 (algorithm 1); Kendall, Gal,
Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses", CVPR 2018 (equation 10).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from ecgstudy.errors import StudyError

_LEAST_WEIGHT = 1e-2  # a long gradient must not turn a weight negative, which would unlearn the task


class TaskBalance(nn.Module, ABC):
    """Turns the losses of several tasks into the one number that is minimised.

    Parameters
    ----------
    tasks : sequence of str
        Names of the tasks, in the order in which losses are given.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__()
        self.tasks = tuple(tasks)

    @abstractmethod
    def task_weights(self) -> Tensor:
        """Weight that each task's loss has at present, shape (n_tasks,), without gradient."""

    @abstractmethod
    def forward(self, losses: Tensor, shared: Tensor) -> Tensor:
        """Return the loss to minimise.

        Parameters
        ----------
        losses : Tensor
            Loss of each task on one batch, shape (n_tasks,), with its graph.
        shared : Tensor
            Weights of the last layer that all tasks share.
        """


class EqualWeights(TaskBalance):
    """The sum of the losses."""

    def task_weights(self) -> Tensor:
        """One for each task."""
        return torch.ones(len(self.tasks))

    def forward(self, losses: Tensor, shared: Tensor) -> Tensor:
        """Add the losses up."""
        return losses.sum()


class UncertaintyWeights(TaskBalance):
    """Each loss divided by a learnt variance, whose logarithm is the price of a high one (Kendall et al., eq. 10).

    With s = log(variance) of a task: ``exp(-s) loss + s / 2``. The logarithms are parameters of the
    module and are learnt by the network's optimiser.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__(tasks)
        self.log_variance = nn.Parameter(torch.zeros(len(self.tasks)))

    def task_weights(self) -> Tensor:
        """Inverse variances."""
        return torch.exp(-self.log_variance.detach())

    def forward(self, losses: Tensor, shared: Tensor) -> Tensor:
        """Weigh the losses by their inverse variances and add half the logarithms."""
        return (torch.exp(-self.log_variance) * losses + self.log_variance / 2).sum()


class GradNorm(TaskBalance):
    """Weights under which all tasks pull the shared layer about equally hard (Chen et al., algorithm 1).

    With w the weights, W the last shared layer, G_i the norm of the gradient of ``w_i loss_i`` by W,
    and r_i the loss of task i relative to its first value, divided by the mean of that over tasks:
    after each batch w descends ``sum_i |G_i - mean(G) r_i ** alpha|`` (the target taken as a constant)
    and is scaled to sum to the number of tasks. Weights and first losses are buffers, so a checkpoint
    holds them and a resumed run goes on as the uninterrupted one.

    Parameters
    ----------
    tasks : sequence of str
        Names of the tasks.
    alpha : float
        How strongly a task that lags behind is pulled ahead; 0 asks for equal norms.
    rate : float
        Step length of the weights' descent (ours: plain gradient steps; the paper names none).
    """

    weights: Tensor
    first_losses: Tensor

    def __init__(self, tasks: Sequence[str], alpha: float = 1.5, rate: float = 0.025) -> None:
        super().__init__(tasks)
        self.alpha = alpha
        self.rate = rate
        self.register_buffer("weights", torch.ones(len(self.tasks)))
        self.register_buffer("first_losses", torch.full((len(self.tasks),), torch.nan))

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
        self.weights.copy_(len(self.tasks) * stepped / stepped.sum())


def make_balance(name: str, tasks: Sequence[str], alpha: float) -> TaskBalance:
    """Build a balance by name: "equal", "uncertainty" or "gradnorm" (which alone reads `alpha`)."""
    match name:
        case "equal":
            return EqualWeights(tasks)
        case "uncertainty":
            return UncertaintyWeights(tasks)
        case "gradnorm":
            return GradNorm(tasks, alpha)
    raise StudyError(f"There is no loss balance {name}; choose one of equal, uncertainty, gradnorm.")


class BalancedTasks(pl.LightningModule):
    """Mixin for a :class:`~ecgstudy.learn.base.SignalModel` whose tasks are balanced while it trains.

    Name it before the model class, and set `balance` after the heads are built. Besides the loss,
    every task's own loss (``train_<task>_loss``) and its weight (``weight_<task>``) are logged, so
    that a run's history shows what the balance did.
    """

    balance: TaskBalance
    embedding: nn.Sequential
    losses: Callable[..., dict[str, Tensor]]

    def training_step(self, batch: tuple[Tensor, dict[str, Tensor]], batch_idx: int) -> Tensor:
        """Balanced loss on one batch."""
        x, targets = batch
        losses = self.losses(self(x), targets, margin=True)
        last_shared = self.embedding[0].weight
        loss = self.balance(torch.stack(list(losses.values())), last_shared)
        size = {"on_step": False, "on_epoch": True, "batch_size": len(x)}
        self.log("train_loss", loss, **size)
        for (task, value), weight in zip(losses.items(), self.balance.task_weights(), strict=True):
            self.log(f"train_{task}_loss", value, **size)
            self.log(f"weight_{task}", weight, **size)
        return loss
