"""BeatNet: a convolutional network for beats that are aligned at their R peak.

In free windows a wave may stand anywhere, so ResNet1d averages over time. In
an aligned beat the place of a wave is itself a trait (PR, QRS and QT
intervals), so BeatNet keeps it: the last feature map is narrowed and
flattened. The blocks are ResNet1d's; sizes are OURS.
"""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from ecgstudy.learn.base import SignalModel
from ecgstudy.learn.resnet1d import ResidualBlock


class BeatNet(SignalModel):
    """SE-ResNet with one block a stage whose last map is flattened.

    Parameters
    ----------
    n_leads, n_samples, fs, classes, lead_names, embedding_dim, margin, scale, learning_rate, weight_decay
        As in :class:`~ecgstudy.learn.base.SignalModel`.
    widths : sequence of int
        Channels of each stage; every stage but the first halves the time axis.
    narrowed : int
        Channels of the map that is flattened.
    dropout : float
        Share of the flattened features that training leaves out.
    """

    name: ClassVar[str] = "beatnet"

    def __init__(
        self,
        n_leads: int,
        n_samples: int,
        fs: float,
        classes: dict[str, list[str]],
        lead_names: list[str],
        widths: Sequence[int] = (24, 48, 72, 96),
        narrowed: int = 32,
        dropout: float = 0.1,
        embedding_dim: int = 128,
        margin: float | None = 0.3,
        scale: float = 24.0,
        learning_rate: float = 3e-3,
        weight_decay: float = 0.05,
    ) -> None:
        super().__init__(
            n_leads, n_samples, fs, classes, lead_names, embedding_dim, margin, scale, learning_rate, weight_decay
        )
        self.stem = nn.Sequential(
            nn.Conv1d(n_leads, widths[0], 15, stride=2, padding=7, bias=False), nn.BatchNorm1d(widths[0]), nn.ReLU()
        )
        before = widths[0]
        stages = []
        for number, width in enumerate(widths):
            stages.append(ResidualBlock(before, width, 7, 2 if number else 1, 4))
            before = width
        self.stages = nn.Sequential(*stages)
        self.narrow = nn.Sequential(nn.Conv1d(before, narrowed, 1, bias=False), nn.BatchNorm1d(narrowed), nn.ReLU())
        self.drop = nn.Dropout(dropout)
        length = n_samples
        for _ in widths:  # the stem and every stage but the first halve it
            length = (length - 1) // 2 + 1
        self.build_heads(narrowed * length)

    def features(self, x: Tensor) -> Tensor:
        """Flattened last map, shape (n, narrowed * time)."""
        return self.drop(self.narrow(self.stages(self.stem(x))).flatten(1))
