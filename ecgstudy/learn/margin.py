"""Cosine classifier and additive angular margin (ArcFace) for embeddings that verify people.

Source: Deng, Guo, Xue, Zafeiriou, "ArcFace: Additive Angular Margin Loss for Deep
Face Recognition", CVPR 2019, equation 3.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

_SMALLEST_SQUARED_SINE = 1e-7  # keeps the gradient of the square root finite where an embedding lies on its class


class CosineClassifier(nn.Module):
    """Linear classifier whose logits are scaled cosines between an embedding and the classes' weights.

    Parameters
    ----------
    n_features : int
        Length of an embedding.
    n_classes : int
        Number of classes.
    scale : float
        Factor s in front of the cosines.
    """

    def __init__(self, n_features: int, n_classes: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(n_classes, n_features))
        nn.init.xavier_normal_(self.weight)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return the logits s cos(theta), shape (n, n_classes); `embeddings` need not have unit length."""
        return self.scale * functional.linear(functional.normalize(embeddings), functional.normalize(self.weight))


def arcface_logits(logits: Tensor, labels: Tensor, margin: float, scale: float) -> Tensor:
    """Add the margin to the angle between each embedding and its own class (Deng et al. 2019, eq. 3).

    Softmax cross-entropy of the result is the ArcFace loss. Where theta + m
    would pass pi, cos(theta + m) rises again and would reward the worst
    embeddings; there the straight line cos(theta) - m sin(m) continues it, as
    in the authors' released code.

    Parameters
    ----------
    logits : Tensor
        s cos(theta), shape (n, n_classes), as :class:`CosineClassifier` gives.
    labels : Tensor
        int64, shape (n,), class of each row, 0 or more.
    margin : float
        Angle m in radians.
    scale : float
        The factor s that `logits` carry.

    Returns
    -------
    Tensor
        Shape (n, n_classes); equal to `logits` except in the column of each row's label.
    """
    column = labels.unsqueeze(1)
    cosine = (logits.gather(1, column) / scale).clamp(-1.0, 1.0)
    sine = (1.0 - cosine.square()).clamp_min(_SMALLEST_SQUARED_SINE).sqrt()
    with_margin = cosine * math.cos(margin) - sine * math.sin(margin)
    beyond_pi = cosine < -math.cos(margin)  # theta > pi - m
    with_margin = torch.where(beyond_pi, cosine - margin * math.sin(margin), with_margin)
    return logits.scatter(1, column, scale * with_margin)
