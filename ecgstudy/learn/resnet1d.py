"""ResNet1d: the study's strong convolutional attacker, a one-dimensional SE-ResNet.

Sources: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016
(18-layer layout); Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018.
Every activation is a module of its own and nothing is pooled by an operation
without a deterministic gradient, because Captum's DeepLift is silently wrong
otherwise and runs have to repeat bit by bit.
"""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from ecgstudy.learn.base import SignalModel


class SqueezeExcitation(nn.Module):
    """Channel attention: weights in (0, 1) from the time average of each channel.

    Parameters
    ----------
    channels : int
        Number of channels.
    reduction : int
        How many times narrower the hidden layer is.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = max(4, channels // reduction)
        self.weigh = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels of `x`, shape (n, channels, time)."""
        return x * self.weigh(x.mean(dim=-1)).unsqueeze(-1)


class ResidualBlock(nn.Module):
    """Two convolutions with batch norm, optional channel attention, and a shortcut.

    Parameters
    ----------
    n_in, n_out : int
        Channels before and after.
    kernel : int
        Odd kernel length in samples.
    stride : int
        Stride of the first convolution and the shortcut.
    reduction : int
        As in :class:`SqueezeExcitation`; 0 leaves it out.
    """

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int, reduction: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(n_in, n_out, kernel, stride=stride, padding=kernel // 2, bias=False),
            nn.BatchNorm1d(n_out),
            nn.ReLU(),
            nn.Conv1d(n_out, n_out, kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm1d(n_out),
            SqueezeExcitation(n_out, reduction) if reduction else nn.Identity(),
        )
        same = n_in == n_out and stride == 1
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv1d(n_in, n_out, 1, stride=stride, bias=False), nn.BatchNorm1d(n_out))
        )
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, n_out, time / stride)."""
        return self.activation(self.body(x) + self.shortcut(x))


class ResNet1d(SignalModel):
    """SE-ResNet with two blocks a stage and the time average as trunk features.

    Parameters
    ----------
    n_leads, n_samples, fs, classes, lead_names, embedding_dim, margin, scale, learning_rate, weight_decay
        As in :class:`~ecgstudy.learn.base.SignalModel`.
    widths : sequence of int
        Channels of each stage; every stage but the first halves the time axis.
    kernel : int
        Odd kernel length in samples; the stem's is twice as long plus one.
    reduction : int
        Narrowing of the channel attention; 0 leaves it out (DeepLift's sums are
        exact only without it and with ``margin=None``, as it has no rule for products).
    """

    name: ClassVar[str] = "resnet1d"

    def __init__(
        self,
        n_leads: int,
        n_samples: int,
        fs: float,
        classes: dict[str, list[str]],
        lead_names: list[str],
        widths: Sequence[int] = (16, 32, 64, 128),
        kernel: int = 7,
        reduction: int = 8,
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
        stages = []
        before = widths[0]
        for number, width in enumerate(widths):
            stages.append(ResidualBlock(before, width, kernel, 2 if number else 1, reduction))
            stages.append(ResidualBlock(width, width, kernel, 1, reduction))
            before = width
        self.stages = nn.Sequential(*stages)
        self.build_heads(before)

    def features(self, x: Tensor) -> Tensor:
        """Time average of the last stage, shape (n, widths[-1])."""
        return self.stages(self.stem(x)).mean(dim=-1)
