"""DT4ECG: one convolutional network that tells person and activity apart, and the balances of its tasks' losses.

Sources: You et al., "DT4ECG: A Dual-Task Learning Framework for ECG-Based Human Identity Recognition and Human Activity
Detection", arXiv 2502.11023 (2025): residual blocks, Sequence-Channel Attention, two heads balanced by GradNorm. The
paper publishes neither sizes nor hyper-parameters nor code: every number below is OURS, chosen so that a run fits two
processor cores. Chen et al., "GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask Networks",
ICML 2018 (algorithm 1). Kendall, Gal, Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses", CVPR 2018.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from ecgstudy.errors import StudyError
from ecgstudy.learn.base import Batch, SignalModel
from ecgstudy.learn.resnet1d import ResidualBlock, convolution

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


class DT4ECG(SignalModel):
    """Residual network with Sequence-Channel Attention; tasks are balanced while it trains.

    Parameters
    ----------
    widths : sequence of int
        Channels of each residual block; every block but the first halves the time axis, as the stem does.
    kernel : int
        Odd kernel length in samples; the stem's is twice as long plus one.
    channel_attention, sequence_attention : bool
        The two halves of Sequence-Channel Attention; without the second, time is averaged.
    balance : {"gradnorm", "uncertainty", "equal"}
        How the tasks' losses are weighed against each other.
    dropout : float
        Share of the trunk features that are dropped while training.
    **others
        As in :class:`~ecgstudy.learn.base.SignalModel`.
    """

    name: ClassVar[str] = "dt4ecg"

    def build(
        self,
        widths: Sequence[int] = (16, 32, 64),
        kernel: int = 7,
        channel_attention: bool = True,
        sequence_attention: bool = True,
        balance: str = "gradnorm",
        dropout: float = 0.1,
    ) -> int:
        """Stem, blocks and attentions."""
        if balance not in BALANCES:
            raise StudyError(f"There is no loss balance {balance}; choose one of {', '.join(BALANCES)}.")
        self.stem = nn.Sequential(*convolution(self.hparams.n_leads, widths[0], 2 * kernel + 1, 2), nn.ReLU())
        before = (widths[0], *widths)
        self.blocks = nn.Sequential(
            *(ResidualBlock(before[i], width, kernel, 2 if i else 1, 0) for i, width in enumerate(widths))
        )
        channels, hidden = widths[-1], max(4, widths[-1] // 4)
        self.channel = self.sequence = None
        if channel_attention:  # weight in (0, 1) of each channel, from its time average
            squeeze, excite = nn.Conv1d(channels, hidden, 1), nn.Conv1d(hidden, channels, 1)
            self.channel = nn.Sequential(squeeze, nn.ReLU(), excite, nn.Sigmoid())
        if sequence_attention:  # share of each point in time, from its surroundings
            context = nn.Conv1d(channels, hidden, kernel, padding=kernel // 2)
            # no bias behind the last layer: softmax would cancel it
            self.sequence = nn.Sequential(context, nn.Tanh(), nn.Conv1d(hidden, 1, 1, bias=False))
        self.dropout = nn.Dropout(dropout)
        return widths[-1]

    def build_heads(self, n_features: int) -> None:
        """Add the heads and the balance of their losses."""
        super().build_heads(n_features)
        self.balance = BALANCES[self.hparams.balance](len(self.classes))

    @property
    def samples_per_point(self) -> int:
        """Samples of a window from one point of the sequence attention to the next."""
        return 2 ** len(self.hparams.widths)

    def features(self, x: Tensor) -> Tensor:
        """Channels weighed by both attentions and added up over time, shape (n, widths[-1])."""
        return self.dropout(self._attend(x)[0])

    def attention_maps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weight of each channel, shape (n, widths[-1]), and share of each point in time, shape (n, time).

        A half that is switched off weighs channels by 1, or points equally. Point i is centred on sample
        ``i * samples_per_point``.
        """
        return self._attend(x)[1:]

    def _attend(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Trunk features and the two attentions."""
        maps = self.blocks(self.stem(x))
        n, channels, time = maps.shape
        channel, sequence = torch.ones(n, channels, device=x.device), torch.full((n, time), 1 / time, device=x.device)
        if self.channel:
            channel = self.channel(maps.mean(dim=-1, keepdim=True)).squeeze(-1)
        if self.sequence:
            sequence = self.sequence(maps).squeeze(1).softmax(dim=-1)
        return channel * (maps * sequence.unsqueeze(1)).sum(dim=-1), channel, sequence

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Balanced loss on one batch; every task's loss and its weight are logged, to show what the balance did."""
        x, targets = batch
        losses = self.losses(self(x), targets, margin=True)
        loss = self.balance(torch.stack(list(losses.values())), self.embedding[0].weight)
        size = {"on_step": False, "on_epoch": True, "batch_size": len(x)}
        self.log("train_loss", loss, **size)
        for (task, value), weight in zip(losses.items(), self.balance.task_weights(), strict=True):
            self.log(f"train_{task}_loss", value, **size)
            self.log(f"weight_{task}", weight, **size)
        return loss
