"""A network whose right explanation is known: logits that are weighted sums of samples."""

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ecgstudy.learn.base import PERSON, SignalModel


class LinearModel(SignalModel):
    """Two classes of persons; the logit of class 0 is a weighted sum of the samples, that of class 1 is 0."""

    name: ClassVar[str] = "linear"

    training_defaults: ClassVar = {"embedding_dim": 2, "margin": None}

    def build(self) -> int:
        """One layer."""
        self.trunk = nn.Linear(self.hparams.n_samples, 2, bias=False)
        return 2

    def features(self, x: Tensor) -> Tensor:
        """Two weighted sums, shape (n, 2)."""
        return self.trunk(x[:, 0])


def linear_model(weights: np.ndarray, fs: float = 100.0) -> LinearModel:
    """Build the network whose logit of class 0 is the sum of `weights` times samples, exactly."""
    shape = {"n_leads": 1, "n_samples": len(weights), "fs": fs, "lead_names": ["identity"]}
    model = LinearModel(classes={PERSON: ["a", "b"]}, **shape)
    embedding, norm = model.embedding
    with torch.no_grad():
        model.trunk.weight.copy_(torch.as_tensor(np.stack([weights, np.zeros(len(weights))]), dtype=torch.float32))
        embedding.weight.copy_(torch.eye(2))
        norm.running_var.fill_(1 - norm.eps)
        model.heads[PERSON].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
        model.heads[PERSON].bias.zero_()
    return model.eval()
