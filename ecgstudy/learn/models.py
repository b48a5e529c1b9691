"""The networks of the study: TransECG, ResNet1d, BeatNet and BeatCnn for aligned beats, and DT4ECG; one registry.

Sources, none of which publishes its code or all of its sizes, so every number below is OURS, chosen so that a run fits
two processor cores (for TransECG: a window of 5 s gives about 50 tokens):

* TransECG: Wang et al., "TransECG", arXiv 2503.13495 (2025), which classifies person, sex and age group and reads the
  attention per wave. Its blocks are the pre-norm blocks of Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR
  2021.
* ResNet1d, the strong convolutional attacker: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016
  (18-layer layout); Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018. Every activation is a module of its own
  and nothing is pooled by an operation without a deterministic gradient, because Captum's DeepLift is silently wrong
  otherwise and runs have to repeat bit by bit.
* BeatCnn: single beats around the R peak and a small convolutional network, after Melzi, Tolosana, Vera-Rodriguez, "ECG
  biometric recognition: Review, system proposal, and benchmark evaluation", IEEE Access 11 (2023), "ECGXtractor".
* DT4ECG, which tells person and activity apart: You et al., "DT4ECG: A Dual-Task Learning Framework for ECG-Based Human
  Identity Recognition and Human Activity Detection", arXiv 2502.11023 (2025): residual blocks, Sequence-Channel
  Attention, two heads balanced by GradNorm.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.nn import functional

from ecgstudy.errors import StudyError
from ecgstudy.learn.balances import BALANCES
from ecgstudy.learn.base import Batch, SignalModel


class Attention(nn.Module):
    """Multi-head self-attention that returns its weights; torch's own picks a fused kernel that never forms them."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        if width % n_heads:
            raise ValueError(f"width {width} cannot be shared by {n_heads} heads")
        self.n_heads = n_heads
        self.to_qkv = nn.Linear(width, 3 * width)
        self.to_out = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return new tokens (n, tokens, width) and the weights (n, heads, tokens, tokens), rows summing to 1."""
        n, n_tokens, width = tokens.shape
        qkv = self.to_qkv(tokens).view(n, n_tokens, 3, self.n_heads, width // self.n_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        weights = (query @ key.transpose(-2, -1) / math.sqrt(width // self.n_heads)).softmax(dim=-1)
        mixed = (weights @ value).transpose(1, 2).reshape(n, n_tokens, width)
        return self.to_out(mixed), weights


class Block(nn.Module):
    """Pre-norm transformer block: attention, then a perceptron twice as wide, each added to its input."""

    def __init__(self, width: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = Attention(width, n_heads)
        self.dropout = nn.Dropout(dropout)
        wide = nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        self.perceptron = nn.Sequential(nn.LayerNorm(width), *wide, nn.Dropout(dropout))

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return new tokens and the attention weights."""
        mixed, weights = self.attention(self.norm_attention(tokens))
        tokens = tokens + self.dropout(mixed)
        return tokens + self.perceptron(tokens), weights


class TransECG(SignalModel):
    """Vision Transformer with a class token, learned positions and readable attention.

    Tokens of length `width` stand for patches of `patch_seconds`, the last one filled with zeros.
    """

    name: ClassVar[str] = "transecg"
    training_defaults: ClassVar = {"learning_rate": 2e-3}

    def build(
        self, width: int = 64, n_layers: int = 4, n_heads: int = 4, patch_seconds: float = 0.1, dropout: float = 0.1
    ) -> int:
        """Tokens, positions and blocks."""
        self.patch_samples = max(1, round(patch_seconds * self.hparams.fs))
        self.to_tokens = nn.Conv1d(self.hparams.n_leads, width, self.patch_samples, stride=self.patch_samples)
        self.class_token = nn.Parameter(torch.empty(1, 1, width))
        self.positions = nn.Parameter(torch.empty(1, len(self.patch_bounds) + 1, width))
        nn.init.trunc_normal_(self.class_token, std=0.02)
        nn.init.trunc_normal_(self.positions, std=0.02)
        self.blocks = nn.ModuleList(Block(width, n_heads, dropout) for _ in range(n_layers))
        self.norm = nn.LayerNorm(width)
        return width

    @property
    def patch_bounds(self) -> list[tuple[int, int]]:
        """First and one-past-last sample of each patch: token i + 1 reads patch i, token 0 is the class token."""
        size, end = self.patch_samples, self.hparams.n_samples
        return [(start, min(start + size, end)) for start in range(0, end, size)]

    def features(self, x: Tensor) -> Tensor:
        """Class token after the last block, shape (n, width)."""
        return self._encode(x)[0][:, 0]

    def attention_maps(self, x: Tensor) -> Tensor:
        """Attention weights of every block, shape (n_layers, n, heads, tokens, tokens).

        Row i holds the share that token i takes from each token (sum 1); token 0 is the class token, token j > 0
        reads the samples ``patch_bounds[j - 1]``.
        """
        return torch.stack(self._encode(x)[1])

    def _encode(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Tokens after the last norm and the weights of each block."""
        missing = -x.shape[-1] % self.patch_samples
        patches = self.to_tokens(functional.pad(x, (0, missing))).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(x), -1, -1), patches], dim=1) + self.positions
        weights = []
        for block in self.blocks:
            tokens, block_weights = block(tokens)
            weights.append(block_weights)
        return self.norm(tokens), weights


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
        convolutions = (*convolution(n_in, n_out, kernel, stride), nn.ReLU(), *convolution(n_out, n_out, kernel))
        attention = SqueezeExcitation(n_out, reduction) if reduction else nn.Identity()
        self.body = nn.Sequential(*convolutions, attention)
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

    `widths` are the channels of each stage; every stage but the first halves the time axis, as the stem does, whose
    kernel is twice as long plus one. `reduction` narrows the channel attention; 0 leaves it out (DeepLift's sums are
    exact only without it and with ``margin=None``, as it has no rule for products).
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
    is itself a trait (PR, QRS and QT intervals), so BeatNet keeps it, in a map of `narrowed` channels.
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


class BeatCnn(SignalModel):
    """Plain convolutions over an aligned beat; each but the first halves the time axis, the last map is flattened.

    About 130,000 weights for a beat of 0.6 s at 100 Hz.
    """

    name: ClassVar[str] = "beatcnn"
    training_defaults: ClassVar = BeatNet.training_defaults

    def build(
        self, widths: Sequence[int] = (32, 64, 96, 144), kernel: int = 5, narrowed: int = 16, dropout: float = 0.1
    ) -> int:
        """Convolutions and the narrow map."""
        layers, n_in = [], self.hparams.n_leads
        for number, width in enumerate(widths):
            layers += [*convolution(n_in, width, kernel, 2 if number else 1), nn.ReLU()]
            n_in = width
        self.stages = nn.Sequential(*layers, *convolution(n_in, narrowed, 1), nn.ReLU())
        self.drop = nn.Dropout(dropout)
        return narrowed * -(-self.hparams.n_samples // 2 ** (len(widths) - 1))

    def features(self, x: Tensor) -> Tensor:
        """Flattened last map, shape (n, narrowed * time)."""
        return self.drop(self.stages(x).flatten(1))


class DT4ECG(SignalModel):
    """Residual network with Sequence-Channel Attention; tasks are balanced while it trains.

    `widths` and `kernel` are those of :class:`ResNet1d`, with one block a stage and no attention in it. Without
    `sequence_attention` time is averaged. `balance` is a key of ``BALANCES``.
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
        self.blocks = residual_stages(widths, kernel, reduction=0, blocks=1)
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


MODELS: dict[str, type[SignalModel]] = {model.name: model for model in (TransECG, ResNet1d, BeatNet, BeatCnn, DT4ECG)}
"""Networks by name."""


def create_model(name: str, seed: int, **hyper_parameters: Any) -> SignalModel:  # noqa: ANN401
    """Build a network of :data:`MODELS` with weights drawn from `seed`; the caller's random state is left alone.

    `hyper_parameters` are arguments of :class:`~ecgstudy.learn.base.SignalModel` and the network's sizes (arguments of
    its ``build``), JSON values only. ``StudyError`` where no network has that name, or a task cannot be trained.
    """
    if name not in MODELS:
        raise StudyError(f"There is no model {name}; choose one of {', '.join(MODELS)}.")
    with isolate_rng():
        torch.manual_seed(seed)
        return MODELS[name](**hyper_parameters)
