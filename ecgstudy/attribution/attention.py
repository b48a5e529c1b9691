"""Attention of the class token of TransECG, spread over the samples that each token reads.

The project's own code, as Captum has no attention methods. A patch's weight is
shared evenly by its samples; what the class token keeps for itself is left out.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ecgstudy.attribution.question import Question, by_chunk, frozen_logits


def rollout(maps: Tensor) -> Tensor:
    """Attention that flows from the tokens of the first layer to those of the last.

    Abnar & Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020, section 3:
    heads are averaged, the residual connection counts as half (A = 0.5 W + 0.5 I), layers are multiplied.

    Parameters
    ----------
    maps : Tensor
        Attention weights, shape (n_layers, n, heads, tokens, tokens), rows summing to 1.

    Returns
    -------
    Tensor
        Shape (n, tokens, tokens), rows summing to 1.
    """
    layers = 0.5 * maps.mean(dim=2) + 0.5 * torch.eye(maps.shape[-1], device=maps.device)
    flow = layers[0]
    for layer in layers[1:]:
        flow = layer @ flow
    return flow


def attention_rollout(question: Question) -> np.ndarray:
    """Class token's row of the :func:`rollout`."""
    return _of_class_token(question, rollout)


def last_attention(question: Question) -> np.ndarray:
    """Class token's row of the last layer's attention, averaged over heads (Wang et al., TransECG, 2025)."""
    return _of_class_token(question, lambda maps: maps[-1].mean(dim=1))


def _of_class_token(question: Question, combine: Callable[[Tensor], Tensor]) -> np.ndarray:
    """Row of the class token in the combined maps, spread over samples."""
    model = frozen_logits(question).model
    lengths = torch.tensor([end - start for start, end in model.patch_bounds], device=model.device)

    def explain(x: Tensor, _: Tensor, __: slice) -> Tensor:
        with torch.no_grad():
            weights = combine(model.attention_maps(x))[:, 0, 1:]
        return (weights / lengths).repeat_interleave(lengths, dim=1).unsqueeze(1)

    return by_chunk(question, explain)
