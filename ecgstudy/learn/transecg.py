"""TransECG: a one-dimensional Vision Transformer over ECG windows.

Source: Wang et al., "TransECG", arXiv 2503.13495 (2025), which classifies person, sex and age group with a Vision
Transformer and reads its attention per wave. The paper publishes neither depth, heads, width, patch length nor
hyper-parameters: every size below is OURS, chosen so that a window of 5 s gives about 50 tokens and a run fits two
processor cores. The blocks are the pre-norm blocks of Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ecgstudy.learn.base import SignalModel


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

    Parameters
    ----------
    width : int
        Length of a token.
    n_layers, n_heads : int
        Number of blocks, and attention heads of each.
    patch_seconds : float
        Length of a patch in seconds; the last patch is filled with zeros.
    dropout : float
        Dropout inside the blocks.
    **others
        As in :class:`~ecgstudy.learn.base.SignalModel`.
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
