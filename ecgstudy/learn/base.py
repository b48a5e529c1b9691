"""The contract of every network of the study: one signal vocabulary, heads by task, one embedding.

A network reads windows of shape (n, n_leads, n_samples) and offers logits per task and an embedding of unit length,
from which people are verified. Its hyper-parameters are JSON values and rebuild it.
"""

import inspect
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any, ClassVar

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional

from ecgstudy.errors import StudyError

PERSON = "person"
"""The task whose head may carry an angular margin."""
UNKNOWN = -1
"""Target of a window whose label is missing; it adds nothing to the task's loss."""
_SMALLEST_SQUARED_SINE = 1e-7  # keeps the gradient of the square root finite where an embedding lies on its class
_BATCH = 256  # windows that are read at a time

Batch = tuple[Tensor, dict[str, Tensor]]


class SignalModel(pl.LightningModule, ABC):
    """A network from ECG windows to the logits of one or more tasks and to an embedding.

    A subclass builds its trunk in :meth:`build`, whose arguments are the network's sizes.

    It is refused where other classes are expected than it was trained for (:meth:`check_classes`).

    Parameters
    ----------
    n_leads, n_samples, fs : int, int, float
        Leads and samples of a window, and its sampling rate in Hz.
    classes : dict of str to list of str
        Names of the classes of each task in the order of its logits, e.g. ``{"sex": ["female", "male"]}``.
    lead_names : list of str
        Names of the leads, in the order of a window's rows.
    **hyper_parameters
        Sizes of the network, and: embedding_dim, length of the embedding that all heads read; margin, angle in
        radians of the ArcFace margin on the person head (0 gives a plain cosine classifier, None a linear head);
        scale, factor on the cosines; learning_rate, highest of the one-cycle schedule; weight_decay of kernels.
    """

    name: ClassVar[str]
    training_defaults: ClassVar[dict[str, float]] = {}

    def __init__(
        self,
        n_leads: int,
        n_samples: int,
        fs: float,
        classes: dict[str, list[str]],
        lead_names: list[str],
        **hyper_parameters: Any,  # noqa: ANN401
    ) -> None:
        super().__init__()
        if len(lead_names) != n_leads:
            raise ValueError(f"{n_leads} leads but {len(lead_names)} lead names: {', '.join(lead_names)}")
        if not classes:
            raise StudyError("There is no task to train for; name at least one, such as person.")
        for task, names in classes.items():
            if len(names) < 2:
                raise StudyError(f"Task {task} needs two classes or more to be trained, and has {len(names)}.")
            if len(set(names)) < len(names):
                raise StudyError(f"Task {task} names a class twice; give every class a name of its own.")
        common = {"embedding_dim": 64, "margin": 0.2, "scale": 16.0, "learning_rate": 5e-3, "weight_decay": 0.05}
        own = {name: value for name, value in hyper_parameters.items() if name not in common}
        sizes = inspect.signature(self.build).bind(**own)
        sizes.apply_defaults()
        # they alone rebuild the network, also when a default has changed
        self.save_hyperparameters()
        plain = {task: [str(name) for name in names] for task, names in classes.items()}
        self.hparams.update(common | self.training_defaults | hyper_parameters | sizes.arguments, classes=plain)
        json.dumps(dict(self.hparams))  # a numpy number or a Path would be no JSON
        self.build_heads(self.build(**sizes.arguments))

    @abstractmethod
    def build(self, **sizes: Any) -> int:  # noqa: ANN401
        """Build the trunk and return the length of its features."""

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """Trunk features of windows `x` (n, n_leads, n_samples), shape (n, n_features)."""

    def build_heads(self, n_features: int) -> None:
        """Add the embedding layer and the heads on top of trunk features of length `n_features`."""
        size = self.hparams.embedding_dim
        # no bias: the batch norm would cancel it
        self.embedding = nn.Sequential(nn.Linear(n_features, size, bias=False), nn.BatchNorm1d(size))
        self.heads = nn.ModuleDict()
        for task, names in self.classes.items():
            if task == PERSON and self.hparams.margin is not None:
                self.heads[task] = CosineClassifier(size, len(names), self.hparams.scale)
            else:
                self.heads[task] = nn.Linear(size, len(names))

    @property
    def classes(self) -> dict[str, list[str]]:
        """Names of each task's classes, in the order of its logits."""
        return self.hparams.classes

    def check_classes(self, task: str, expected: Sequence[str]) -> None:
        """Refuse to be read as if the logits of `task` stood for other classes, or for the same in another order."""
        for number, (own, other) in enumerate(zip_longest(self.classes.get(task, ()), expected), start=1):
            if own != other:
                raise StudyError(
                    f"Class {number} of task {task} is {own or 'missing'} in the network and {other or 'missing'} in "
                    "the data; use a network that was trained for these classes in this order."
                )

    def embed(self, x: Tensor) -> Tensor:
        """Embedding of unit length of each window, shape (n, embedding_dim)."""
        return functional.normalize(self._embedding(x))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Logits of each task, shape (n, n_classes), without margin."""
        embeddings = self._embedding(x)
        return {task: head(embeddings) for task, head in self.heads.items()}

    def _embedding(self, x: Tensor) -> Tensor:
        """Embedding before it is brought to unit length; refuses windows of another shape."""
        expected = (self.hparams.n_leads, self.hparams.n_samples)
        if x.ndim != 3 or tuple(x.shape[1:]) != expected:
            raise ValueError(f"windows of shape (n, {expected[0]}, {expected[1]}) expected, got {tuple(x.shape)}")
        return self.embedding(self.features(x))

    def losses(self, logits: dict[str, Tensor], targets: dict[str, Tensor], margin: bool) -> dict[str, Tensor]:
        """Mean cross-entropy of each task over its known labels, with the ArcFace margin if `margin`; 0 without any."""
        losses = {}
        for task, values in logits.items():
            known = targets[task] != UNKNOWN
            scored, labels = values[known], targets[task][known]
            if margin and task == PERSON and self.hparams.margin:
                scored = arcface_logits(scored, labels, self.hparams.margin, self.hparams.scale)
            losses[task] = functional.cross_entropy(scored, labels) if len(labels) else values.sum() * 0.0
        return losses

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Sum of the tasks' losses on one batch."""
        x, targets = batch
        loss = sum(self.losses(self(x), targets, margin=True).values())
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(x))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log ``val_loss``, and ``val_<task>_accuracy`` over the windows whose label is known."""
        x, targets = batch
        logits = self(x)
        losses = self.losses(logits, targets, margin=False)
        known = {task: mask for task in logits if (mask := targets[task] != UNKNOWN).any()}
        if known:
            self.log("val_loss", sum(losses.values()), batch_size=len(x))
        for task, mask in known.items():
            hits = (logits[task][mask].argmax(1) == targets[task][mask]).float().mean()
            self.log(f"val_{task}_accuracy", hits, batch_size=int(mask.sum()))

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW under a one-cycle schedule over the whole run; biases and norms are not decayed."""
        decayed = [p for p in self.parameters() if p.ndim > 1]
        others = {"params": [p for p in self.parameters() if p.ndim <= 1], "weight_decay": 0.0}
        rate, decay = self.hparams.learning_rate, self.hparams.weight_decay
        optimizer = torch.optim.AdamW([{"params": decayed}, others], lr=rate, weight_decay=decay)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class TaskLogits(nn.Module):
    """One task of a model as a module from windows to logits, the shape attribution methods ask for."""

    def __init__(self, model: SignalModel, task: str) -> None:
        super().__init__()
        if task not in model.heads:
            raise KeyError(f"no task {task}; the model has {', '.join(model.heads)}")
        self.model = model
        self.task = task

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the task, shape (n, n_classes)."""
        return self.model(x)[self.task]


class CosineClassifier(nn.Module):
    """Linear classifier whose logits are cosines between an embedding and the classes' weights, times `scale`."""

    def __init__(self, n_features: int, n_classes: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(n_classes, n_features))
        nn.init.xavier_normal_(self.weight)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return the logits s cos(theta), shape (n, n_classes); `embeddings` need not have unit length."""
        return self.scale * functional.linear(functional.normalize(embeddings), functional.normalize(self.weight))


def arcface_logits(logits: Tensor, labels: Tensor, margin: float, scale: float) -> Tensor:
    """Add `margin` (radians) to the angle between each embedding and its own class; cross-entropy is then ArcFace.

    Deng, Guo, Xue, Zafeiriou, "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", CVPR 2019, eq. 3.
    Where theta + m would pass pi, cos(theta + m) rises again and would reward the worst embeddings; there the straight
    line cos(theta) - m sin(m) continues it, as in the authors' released code.
    """
    column = labels.unsqueeze(1)
    cosine = (logits.gather(1, column) / scale).clamp(-1.0, 1.0)
    sine = (1.0 - cosine.square()).clamp_min(_SMALLEST_SQUARED_SINE).sqrt()
    with_margin = cosine * math.cos(margin) - sine * math.sin(margin)
    beyond_pi = cosine < -math.cos(margin)  # theta > pi - m
    with_margin = torch.where(beyond_pi, cosine - margin * math.sin(margin), with_margin)
    return logits.scatter(1, column, scale * with_margin)


def embed_windows(model: SignalModel, windows: np.ndarray) -> np.ndarray:
    """Embed windows (n, n_leads, n_samples) in evaluation mode: float32, (n, embedding_dim), rows of unit length."""
    return _in_batches(model, model.embed, windows)


def class_probabilities(model: SignalModel, windows: np.ndarray, task: str, classes: Sequence[str]) -> np.ndarray:
    """Probability of each class of `task`, shape (n, n_classes), of windows as :func:`embed_windows` reads them.

    A caller says what it takes the columns for: other classes, or another order, are refused.
    """
    model.check_classes(task, classes)
    return _in_batches(model, lambda x: model(x)[task].softmax(dim=1), windows)


def _in_batches(model: SignalModel, function: Callable[[Tensor], Tensor], windows: np.ndarray) -> np.ndarray:
    """Apply a function of the model in evaluation mode, without gradients; its mode is put back afterwards."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            starts = range(0, max(len(windows), 1), _BATCH)
            parts = [np.ascontiguousarray(windows[start : start + _BATCH]) for start in starts]
            return torch.cat([function(torch.from_numpy(part).to(model.device)) for part in parts]).cpu().numpy()
    finally:
        model.train(was_training)
