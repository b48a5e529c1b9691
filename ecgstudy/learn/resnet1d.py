"""ResNet1d, the study's strong convolutional attacker, and BeatNet, its kin for beats aligned at their R peak.

Sources: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016 (18-layer layout); Hu et al.,
"Squeeze-and-Excitation Networks", CVPR 2018. Sizes are OURS. Every activation is a module of its own and nothing is
pooled by an operation without a deterministic gradient, because Captum's DeepLift is silently wrong otherwise and runs
have to repeat bit by bit.
"""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from ecgstudy.learn.base import SignalModel


class SqueezeExcitation(nn.Module):
    """Channel attention: weights in (0, 1) from the time average of each channel, by a layer `reduction` times less."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = max(4, channels // reduction)
        self.weigh = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels of `x`, shape (n, channels, time)."""
        return x * self.weigh(x.mean(dim=-1)).unsqueeze(-1)


class ResidualBlock(nn.Module):
    """Two convolutions with batch norm, channel attention unless `reduction` is 0, and a shortcut."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int, reduction: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *convolution(n_in, n_out, kernel, stride),
            nn.ReLU(),
            *convolution(n_out, n_out, kernel),
            SqueezeExcitation(n_out, reduction) if reduction else nn.Identity(),
        )
        same = n_in == n_out and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(*convolution(n_in, n_out, 1, stride))
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, n_out, time / stride)."""
        return self.activation(self.body(x) + self.shortcut(x))


def convolution(n_in: int, n_out: int, kernel: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    """Convolution with an odd kernel that keeps the length (but for the stride), and batch norm."""
    return nn.Conv1d(n_in, n_out, kernel, stride=stride, padding=kernel // 2, bias=False), nn.BatchNorm1d(n_out)


def residual_stages(widths: Sequence[int], kernel: int, reduction: int, blocks: int) -> nn.Sequential:
    """Stages of so many blocks; every stage but the first halves the time axis."""
    layers = []
    for number, width in enumerate(widths):
        layers.append(ResidualBlock(widths[max(number - 1, 0)], width, kernel, 2 if number else 1, reduction))
        layers.extend(ResidualBlock(width, width, kernel, 1, reduction) for _ in range(blocks - 1))
    return nn.Sequential(*layers)


class ResNet1d(SignalModel):
    """SE-ResNet with two blocks a stage and the time average as trunk features.

    Parameters
    ----------
    widths : sequence of int
        Channels of each stage; every stage but the first halves the time axis.
    kernel : int
        Odd kernel length in samples; the stem's is twice as long plus one.
    reduction : int
        Narrowing of the channel attention; 0 leaves it out (DeepLift's sums are exact only without it and with
        ``margin=None``, as it has no rule for products).
    **others
        As in :class:`~ecgstudy.learn.base.SignalModel`.
    """

    name: ClassVar[str] = "resnet1d"

    def build(self, widths: Sequence[int] = (16, 32, 64, 128), kernel: int = 7, reduction: int = 8) -> int:
        """Stem and stages."""
        self.stem = nn.Sequential(*convolution(self.hparams.n_leads, widths[0], 2 * kernel + 1, 2), nn.ReLU())
        self.stages = residual_stages(widths, kernel, reduction, blocks=2)
        return widths[-1]

    def features(self, x: Tensor) -> Tensor:
        """Time average of the last stage, shape (n, widths[-1])."""
        return self.stages(self.stem(x)).mean(dim=-1)


class BeatNet(SignalModel):
    """SE-ResNet with one block a stage whose last map is narrowed and flattened.

    In free windows a wave may stand anywhere, so ResNet1d averages over time. In an aligned beat the place of a wave
    is itself a trait (PR, QRS and QT intervals), so BeatNet keeps it.

    Parameters
    ----------
    widths : sequence of int
        Channels of each stage; every stage but the first halves the time axis.
    narrowed : int
        Channels of the map that is flattened.
    dropout : float
        Share of the flattened features that training leaves out.
    **others
        As in :class:`~ecgstudy.learn.base.SignalModel`.
    """

    name: ClassVar[str] = "beatnet"
    training_defaults: ClassVar = {"embedding_dim": 128, "margin": 0.3, "scale": 24.0, "learning_rate": 3e-3}

    def build(self, widths: Sequence[int] = (24, 48, 72, 96), narrowed: int = 32, dropout: float = 0.1) -> int:
        """Stem, stages and the narrow map."""
        self.stem = nn.Sequential(*convolution(self.hparams.n_leads, widths[0], 15, 2), nn.ReLU())
        self.stages = residual_stages(widths, kernel=7, reduction=4, blocks=1)
        self.narrow = nn.Sequential(*convolution(widths[-1], narrowed, 1), nn.ReLU())
        self.drop = nn.Dropout(dropout)
        # the stem and every stage but the first halve the time axis
        return narrowed * -(-self.hparams.n_samples // 2 ** len(widths))

    def features(self, x: Tensor) -> Tensor:
        """Flattened last map, shape (n, narrowed * time)."""
        return self.drop(self.narrow(self.stages(self.stem(x))).flatten(1))
