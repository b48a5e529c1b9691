"""What is read out of a network: embeddings and class probabilities. An undefined embedding is NaN."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ecgstudy.learn.base import SignalModel

_BATCH = 256


def embed_windows(model: SignalModel, windows: np.ndarray) -> np.ndarray:
    """Embed windows (n, n_leads, n_samples) in evaluation mode: float32, (n, embedding_dim), rows of unit length."""
    return _in_batches(model, model.embed, windows)


def class_probabilities(
    model: SignalModel, windows: np.ndarray, task: str, classes: Sequence[str] | None = None
) -> np.ndarray:
    """Probability of each class of `task`, shape (n, n_classes), of windows as :func:`embed_windows` reads them.

    A caller who takes the columns for `classes` says so: other names, or another order, are refused.
    """
    if classes is not None:
        model.check_classes(task, classes)
    return _in_batches(model, lambda x: model(x)[task].softmax(dim=1), windows)


def _in_batches(model: SignalModel, function: Callable[[Tensor], Tensor], windows: np.ndarray) -> np.ndarray:
    """Apply a function of the model in evaluation mode, without gradients; its mode is put back afterwards."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            starts = range(0, len(windows), _BATCH)
            parts = [np.ascontiguousarray(windows[start : start + _BATCH]) for start in starts]
            return torch.cat([function(torch.from_numpy(part).to(model.device)) for part in parts]).cpu().numpy()
    finally:
        model.train(was_training)


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Bring rows to unit length; a row of zeros has no direction and becomes NaN."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.full_like(vectors, np.nan), where=length > 0)
