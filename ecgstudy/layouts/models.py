"""Networks that read a page of which most samples of each lead are missing.

* ``BeatECG``, ours: a small convolutional network over the leads' median beats and the rhythm, trained with mixup.
* ``PatchECG``: Zhang et al., arXiv 2508.09165 (v3, 2026), rebuilt from the paper and its published sizes; its code has
  no licence and none of it is used. Patches of each lead become tokens, those that are not shown stay out. The shuffle
  layer S3 is left out: as released it keeps the order. With `attention` "released", the mask is inverted as in the
  released code: attention is uniform over all patches, those not shown among them.
* ``PageResNet1d``: the house's ResNet1d on the page, what is not shown being 0.

Mixup: Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018. Net1D: Hong et al., "HOLMES", KDD 2020.
Focal loss: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.nn import functional

from ecgstudy.data.base import STANDARD_LEADS
from ecgstudy.layouts.beats import CONSTANTS, DEVIATIONS, PIECES, RHYTHM, WAVES
from ecgstudy.learn.base import UNKNOWN, Batch, SignalModel
from ecgstudy.learn.models import ResNet1d, SqueezeExcitation, convolution, residual_stages

MIXUP = 0.4
"""Both parameters of the beta distribution from which the share of the other record is drawn."""
DROPOUT = 0.3
FOCUS = 2.0
"""Exponent of the focal loss."""
BLOCK_STEPS, LONGEST_BLOCK = 10, 8
"""A hidden block is so many tenths of a lead at most."""


class Mixed(SignalModel):
    """A network that learns from mixtures of two records, with a nonlinear embedding behind dropout."""

    training_defaults: ClassVar = {"embedding_dim": 128, "margin": None, "learning_rate": 3e-3}

    def build_heads(self, n_features: int) -> None:
        """Add dropout and a nonlinearity to the embedding."""
        super().build_heads(n_features)
        self.embedding = nn.Sequential(nn.Dropout(DROPOUT), *self.embedding, nn.ReLU(), nn.Dropout(DROPOUT))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of a mixture of every record of a batch with another one, in shares that are drawn once a batch."""
        x, targets = batch
        share = float(torch.distributions.Beta(MIXUP, MIXUP).sample())
        other = torch.randperm(len(x), device=x.device)
        logits = self(share * x + (1 - share) * x[other])
        mixed = [(share, targets), (1 - share, {task: column[other] for task, column in targets.items()})]
        loss = sum(part * sum(self.losses(logits, labels, margin=False).values()) for part, labels in mixed)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(x))
        return loss


class BeatECG(Mixed):
    """SE-ResNet over median beats, their deviations and the rhythm, see :func:`ecgstudy.layouts.beats.beats`."""

    name: ClassVar[str] = "beatecg"

    def build(self, widths: Sequence[int] = (32, 48, 64, 96), narrowed: int = 32) -> int:
        """Stem, stages and the narrow map that is flattened, because the place of a wave in a beat is a trait."""
        self.stem = nn.Sequential(*convolution(self.hparams.n_leads, widths[0], 15, 2), nn.ReLU())
        self.stages = residual_stages(widths, kernel=7, reduction=4, blocks=1)
        self.narrow = nn.Sequential(*convolution(widths[-1], narrowed, 1), nn.ReLU())
        return narrowed * -(-self.hparams.n_samples // 2 ** len(widths))

    def features(self, x: Tensor) -> Tensor:
        """Flattened last map, shape (n, narrowed * time)."""
        return self.narrow(self.stages(self.stem(x))).flatten(1)


class PageResNet1d(Mixed, ResNet1d):
    """The strong convolutional network of the study on pages, what is not shown being 0."""

    name: ClassVar[str] = "page_resnet1d"


class Net1dBlock(nn.Module):
    """Net1D's block: 1 x 1, grouped and 1 x 1 convolution with batch norm, Swish and dropout before each, and SE."""

    def __init__(self, n_in: int, n_out: int, stride: int, kernel: int = 16, group: int = 16) -> None:
        super().__init__()
        self.extra, self.stride = n_out - n_in, stride
        padding = nn.ConstantPad1d(((kernel - 1) // 2, kernel // 2), 0.0)
        self.body = nn.Sequential(
            *(nn.BatchNorm1d(n_in), nn.SiLU(), nn.Dropout(0.5), nn.Conv1d(n_in, n_out, 1)),
            *(nn.BatchNorm1d(n_out), nn.SiLU(), nn.Dropout(0.5), padding),
            nn.Conv1d(n_out, n_out, kernel, stride, groups=max(n_out // group, 1)),
            *(nn.BatchNorm1d(n_out), nn.SiLU(), nn.Dropout(0.5), nn.Conv1d(n_out, n_out, 1)),
            SqueezeExcitation(n_out, 2),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, n_out, time / stride); the shortcut is pooled, and its new channels are 0."""
        shortcut = functional.max_pool1d(x, self.stride, ceil_mode=True) if self.stride > 1 else x
        return self.body(x) + functional.pad(shortcut, (0, 0, 0, self.extra))


class PatchBlock(nn.Module):
    """Pre-norm transformer block over the patches that are shown; `uniform` attention as in the released code."""

    def __init__(self, width: int, n_heads: int, uniform: bool) -> None:
        super().__init__()
        self.n_heads, self.uniform = n_heads, uniform
        self.norm, self.to_qkv, self.to_out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        wide = nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        self.perceptron = nn.Sequential(nn.LayerNorm(width), *wide)

    def forward(self, tokens: Tensor, there: Tensor, absent: Tensor, is_last: bool = False) -> Tensor:
        """Give new tokens (n, tokens, width), of the last block the class token alone.

        `there` (n, tokens) tells tokens from what fills up; `absent` (n,) counts the patches that are not shown.
        """
        query, key, value = self._parts(tokens)
        if is_last:
            query, tokens = query[:, :, :1], tokens[:, :1]
        if self.uniform:
            # what is not shown is a token of zeros, which the bias of the norm makes one like any other
            mixed = (self.shares(tokens, there, absent) @ value).expand_as(query)
            nothing = self.to_qkv(self.norm.bias)[-tokens.shape[-1] :]
            extra = (absent / (there.sum(1) + absent))[:, None, None] * nothing
        else:
            mixed, extra = functional.scaled_dot_product_attention(query, key, value, there[:, None, None]), 0.0
        tokens = tokens + self.to_out(mixed.transpose(1, 2).reshape(tokens.shape) + extra)
        return tokens + self.perceptron(tokens)

    def shares(self, tokens: Tensor, there: Tensor, absent: Tensor) -> Tensor:
        """Give what the class token takes of each token, (n, n_heads, 1, tokens)."""
        if self.uniform:
            share = there / (there.sum(1) + absent)[:, None]
            return share[:, None, None].expand(-1, self.n_heads, -1, -1)
        query, key, _ = self._parts(tokens)
        logits = query[:, :, :1] @ key.transpose(-2, -1) / math.sqrt(key.shape[-1])
        return logits.masked_fill(~there[:, None, None], -math.inf).softmax(dim=-1)

    def _parts(self, tokens: Tensor) -> Tensor:
        """Give queries, keys and values, (3, n, n_heads, tokens, width of a head)."""
        n, n_tokens, width = tokens.shape
        parts = self.to_qkv(self.norm(tokens)).view(n, n_tokens, 3, self.n_heads, width // self.n_heads)
        return parts.permute(2, 0, 3, 1, 4)


class PatchECG(SignalModel):
    """Transformer over the patches of a page that are shown; only they are computed.

    A patch and its mask become a token by a Net1D of some `stages`, or by one linear layer, as in the paper's variants.

    With `paper`, training is the paper's: blocks of whole leads hidden in every record, focal loss, Adam at a constant
    rate. Without it, blocks are hidden in a share `hidden` of the records, which pages of drawn layouts are already.
    """

    name: ClassVar[str] = "patchecg"
    training_defaults: ClassVar = {"embedding_dim": 96, "margin": None, "learning_rate": 2e-3}

    def build(
        self,
        width: int = 96,
        depth: int = 3,
        n_heads: int = 8,
        patch: int = 50,
        stages: Sequence[int] = (),
        attention: str = "meant",
        hidden: float = 0.5,
        paper: bool = False,
    ) -> int:
        """Build the encoder of a patch and its mask, embeddings of lead and time, and blocks."""
        self.n_patches, layers, n_read = self.hparams.n_samples // patch, [], 2 * patch
        if stages:
            layers, n_read = [*convolution(2, stages[0], 15, 2), nn.SiLU()], stages[-1]
            for n_in, n_out in pairwise([stages[0], *stages]):
                layers += [Net1dBlock(n_in, n_out, 2), Net1dBlock(n_out, n_out, 1)]
            layers.append(nn.AdaptiveAvgPool1d(1))
        self.encoder, self.to_tokens = nn.Sequential(*layers, nn.Flatten()), nn.Linear(n_read, width)
        rows = {"lead": self.hparams.n_leads, "time": self.n_patches, "token": 1}
        self.places = nn.ParameterDict({of: nn.Parameter(0.02 * torch.randn(n, width)) for of, n in rows.items()})
        self.blocks = nn.ModuleList(PatchBlock(width, n_heads, attention == "released") for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        return width

    def build_heads(self, n_features: int) -> None:
        """Read the class token itself in the paper's form."""
        super().build_heads(n_features)
        if self.hparams.paper:
            self.embedding = nn.Identity()

    def features(self, x: Tensor) -> Tensor:
        """Class token after the last block, shape (n, width)."""
        tokens, filled, _, absent = self._packed(x)
        # the paper's width takes hours on a processor in single precision, and a quarter of that in mixed
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.hparams.paper):
            for block in self.blocks:
                tokens = block(tokens, filled, absent, is_last=block is self.blocks[-1])
        return self.norm(tokens[:, 0].float())

    def attention_maps(self, x: Tensor) -> Tensor:
        """Share that the class token takes of each patch in the last block, (n, n_leads, n_patches); 0: not shown."""
        tokens, filled, there, absent = self._packed(x)
        for block in self.blocks[:-1]:
            tokens = block(tokens, filled, absent)
        shares = self.blocks[-1].shares(tokens, filled, absent).mean(dim=1)[:, 0, 1:]
        maps = torch.zeros(there.shape, device=x.device)
        maps[there] = shares[filled[:, 1:]]
        return maps

    def _packed(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Tokens of what is shown, the class token first, and which are tokens, not what fills up.

        With them go which patches are shown, (n, leads, patches), and how many are not, (n,).
        """
        patch, released = self.hparams.patch, self.hparams.attention == "released"
        patches = x[..., : self.n_patches * patch].unfold(-1, patch, patch)
        seen = patches != 0
        # as released, training drops a patch of which any sample is hidden, and later the mask is forgotten
        there = seen.all(-1) if released and self.training else seen.any(-1)
        mask = torch.ones_like(patches) if released and not self.training else seen.float()
        tokens = self.to_tokens(self.encoder(torch.stack([patches[there], mask[there]], dim=1)))
        for place, at in zip(("lead", "time"), there.nonzero(as_tuple=True)[1:], strict=True):
            tokens = tokens + functional.embedding(at, self.places[place])
        n_shown = there.flatten(1).sum(1)
        filled = torch.arange(int(n_shown.max()), device=x.device) < n_shown[:, None]
        packed = tokens.new_zeros(*filled.shape, tokens.shape[-1])
        packed[filled] = tokens
        packed = torch.cat([self.places["token"].expand(len(x), 1, -1), packed], dim=1)
        return packed, functional.pad(filled, (1, 0), value=True), there, there[0].numel() - n_shown

    def losses(self, logits: dict[str, Tensor], targets: dict[str, Tensor], margin: bool) -> dict[str, Tensor]:
        """Cross-entropy of each task, or the paper's focal loss."""
        if not self.hparams.paper:
            return super().losses(logits, targets, margin)
        losses = {}
        for task, values in logits.items():
            known = targets[task] != UNKNOWN
            each = functional.cross_entropy(values[known], targets[task][known], reduction="none")
            losses[task] = ((1 - (-each).exp()) ** FOCUS * each).sum() / max(int(known.sum()), 1)
        return losses

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of a batch in which one block of every lead of some records is hidden."""
        x, targets = batch
        return super().training_step((hide_blocks(x, 1.0 if self.hparams.paper else self.hparams.hidden), targets), 0)

    def configure_optimizers(self) -> Any:  # noqa: ANN401
        """As every network of the study, or the paper's Adam."""
        if not self.hparams.paper:
            return super().configure_optimizers()
        return torch.optim.Adam(self.parameters(), lr=1e-3, weight_decay=1e-4)


def hide_blocks(x: Tensor, share: float) -> Tensor:
    """Set one stretch of 0 to 80 % of every lead to 0, in a random `share` of records (n, n_leads, n_samples)."""
    n, n_leads, n_samples = x.shape
    draw = torch.rand(3, n, n_leads, 1, device=x.device)
    length = (draw[0] * (LONGEST_BLOCK + 1)).floor() / BLOCK_STEPS * n_samples
    start, at = (draw[1] * (n_samples - length + 1)).floor(), torch.arange(n_samples, device=x.device)
    return x.masked_fill((at >= start) & (at < start + length) & (draw[2, :, :1] < share), 0.0)


def untrained(kind: type[SignalModel], seed: int, **hyper_parameters: Any) -> SignalModel:  # noqa: ANN401
    """Network with weights drawn from `seed`; the caller's random state is left alone."""
    with isolate_rng():
        torch.manual_seed(seed)
        return kind(**hyper_parameters)


def log_odds(model: SignalModel, inputs: np.ndarray, batch: int = 128) -> np.ndarray:
    """Log odds of the second class of each task, float32 (n, n_tasks), in evaluation mode."""
    x = torch.from_numpy(np.ascontiguousarray(inputs, dtype=np.float32))
    with torch.inference_mode():
        parts = [model(part.to(model.device)).values() for part in x.split(batch)]
    odds = [torch.stack([logits[:, 1] - logits[:, 0] for logits in part], 1) for part in parts]
    return torch.cat(odds).cpu().numpy()


def replaced(model: SignalModel, inputs: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """By how much the log odds of each task fall when a piece of a page is that of the `usual` record instead.

    Of the methods that the audits of stage 04 tried, replacement of waves is one of the two that found planted
    evidence, followed the trained weights and agreed with what was changed in the signal. Attention was not trusted.

    Parameters
    ----------
    inputs, usual : numpy.ndarray
        Beats as :func:`ecgstudy.layouts.beats.beats` gives them, (n, N_ROWS, POINTS), and of the mean record.

    Returns
    -------
    numpy.ndarray
        float32 (n, len(PIECES), n_tasks), in the order of :data:`~ecgstudy.layouts.beats.PIECES`.
    """
    whole, falls = log_odds(model, inputs), []
    for lead, wave in PIECES:
        rows, points = CONSTANTS, slice(None)
        if lead != RHYTHM:
            at, points = STANDARD_LEADS.index(lead), WAVES[wave]
            rows = [at, DEVIATIONS.start + at]
        changed = inputs.copy()
        changed[:, rows, points] = usual[rows, points]
        falls.append(whole - log_odds(model, changed))
    return np.stack(falls, axis=1)
