"""DT4ECG: one convolutional network that tells person and activity apart, with attention over channels and time.

Source: You et al., "DT4ECG: A Dual-Task Learning Framework for ECG-Based Human Identity
Recognition and Human Activity Detection", arXiv 2502.11023 (2025): residual blocks of two
convolutions with batch norm and ReLU, Sequence-Channel Attention, two heads balanced by GradNorm.
The paper publishes neither sizes nor hyper-parameters nor code: every number below is OURS,
chosen so that a run fits two processor cores.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from ecgstudy.learn.balance import BalancedTasks, make_balance
from ecgstudy.learn.base import SignalModel
from ecgstudy.learn.resnet1d import ResidualBlock


class ChannelAttention(nn.Module):
    """Weight in (0, 1) of each channel, from its time average.

    Parameters
    ----------
    channels : int
        Number of channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(4, channels // 4)
        self.weigh = nn.Sequential(
            nn.Conv1d(channels, hidden, 1), nn.ReLU(), nn.Conv1d(hidden, channels, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return weights (n, channels) for `x` (n, channels, time)."""
        return self.weigh(x.mean(dim=-1, keepdim=True)).squeeze(-1)


class SequenceAttention(nn.Module):
    """Share of each point in time, from its surroundings.

    Parameters
    ----------
    channels : int
        Number of channels.
    kernel : int
        Odd number of points that a point's context spans.
    """

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        hidden = max(4, channels // 4)
        # no bias behind the last layer: softmax would cancel it
        self.rate = nn.Sequential(
            nn.Conv1d(channels, hidden, kernel, padding=kernel // 2), nn.Tanh(), nn.Conv1d(hidden, 1, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return shares (n, time), each row summing to 1, for `x` (n, channels, time)."""
        return self.rate(x).squeeze(1).softmax(dim=-1)


class DT4ECG(BalancedTasks, SignalModel):
    """Residual network with Sequence-Channel Attention; tasks are balanced while it trains.

    Parameters
    ----------
    n_leads, n_samples, fs, classes, lead_names, embedding_dim, margin, scale, learning_rate, weight_decay
        As in :class:`~ecgstudy.learn.base.SignalModel`.
    widths : sequence of int
        Channels of each residual block; every block but the first halves the time axis, as the stem does.
    kernel : int
        Odd kernel length in samples; the stem's is twice as long plus one.
    channel_attention, sequence_attention : bool
        The two halves of Sequence-Channel Attention; without the second, time is averaged.
    balance : {"gradnorm", "uncertainty", "equal"}
        How the tasks' losses are weighed against each other (:mod:`ecgstudy.learn.balance`).
    alpha : float
        Asymmetry of GradNorm.
    dropout : float
        Share of the trunk features that are dropped while training.
    """

    name: ClassVar[str] = "dt4ecg"

    def __init__(
        self,
        n_leads: int,
        n_samples: int,
        fs: float,
        classes: dict[str, list[str]],
        lead_names: list[str],
        widths: Sequence[int] = (16, 32, 64),
        kernel: int = 7,
        channel_attention: bool = True,
        sequence_attention: bool = True,
        balance: str = "gradnorm",
        alpha: float = 1.5,
        dropout: float = 0.1,
        embedding_dim: int = 64,
        margin: float | None = 0.2,
        scale: float = 16.0,
        learning_rate: float = 5e-3,
        weight_decay: float = 0.05,
    ) -> None:
        super().__init__(
            n_leads, n_samples, fs, classes, lead_names, embedding_dim, margin, scale, learning_rate, weight_decay
        )
        self.stem = nn.Sequential(
            nn.Conv1d(n_leads, widths[0], 2 * kernel + 1, stride=2, padding=kernel, bias=False),
            nn.BatchNorm1d(widths[0]),
            nn.ReLU(),
        )
        before = (widths[0], *widths)
        self.blocks = nn.Sequential(
            *(
                ResidualBlock(n_in, n_out, kernel, 2 if number else 1, reduction=0)
                for number, (n_in, n_out) in enumerate(zip(before, widths, strict=False))
            )
        )
        self.channel = ChannelAttention(widths[-1]) if channel_attention else None
        self.sequence = SequenceAttention(widths[-1], kernel) if sequence_attention else None
        self.dropout = nn.Dropout(dropout)
        self.build_heads(widths[-1])
        self.balance = make_balance(balance, list(classes), alpha)

    @property
    def samples_per_point(self) -> int:
        """Samples of a window from one point of the sequence attention to the next."""
        return 2 ** len(self.hparams.widths)

    def features(self, x: Tensor) -> Tensor:
        """Channels weighed by both attentions and added up over time, shape (n, widths[-1])."""
        return self.dropout(self._attend(x)[0])

    def attention_maps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Read out both attentions.

        Returns
        -------
        channel : Tensor
            Weight of each channel, shape (n, widths[-1]); ones where that half is switched off.
        sequence : Tensor
            Share of each point in time, rows summing to 1, shape (n, time); equal where that half is
            switched off. Point i is centred on sample ``i * samples_per_point``.
        """
        return self._attend(x)[1:]

    def _attend(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Trunk features and the two attentions."""
        maps = self.blocks(self.stem(x))
        n, channels, time = maps.shape
        channel = self.channel(maps) if self.channel else torch.ones(n, channels, device=x.device)
        sequence = self.sequence(maps) if self.sequence else torch.full((n, time), 1 / time, device=x.device)
        return channel * (maps * sequence.unsqueeze(1)).sum(dim=-1), channel, sequence
