"""The contract of every network of the study: one signal vocabulary, heads by task, one embedding.

A model is a Lightning module that reads windows of shape (n, n_leads,
n_samples) and offers logits per task (:meth:`SignalModel.forward`) and an
embedding of unit length (:meth:`SignalModel.embed`), from which people are
verified. Its hyper-parameters are JSON values only, so that checkpoints load
with ``weights_only=True``.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional

from ecgstudy.errors import StudyError
from ecgstudy.learn.margin import CosineClassifier, arcface_logits

PERSON = "person"
"""The task whose head may carry an angular margin."""
UNKNOWN = -1
"""Target of a window whose label is missing; it adds nothing to the task's loss."""

Batch = tuple[Tensor, dict[str, Tensor]]


class SignalModel(pl.LightningModule, ABC):
    """A network from ECG windows to the logits of one or more tasks and to an embedding.

    A subclass calls this constructor first, builds its trunk and ends with
    :meth:`build_heads`.

    Parameters
    ----------
    n_leads : int
        Leads of a window.
    n_samples : int
        Samples of a window.
    fs : float
        Sampling rate in Hz.
    classes : dict of str to list of str
        Names of the classes of each task in the order of its logits, e.g. ``{"sex": ["female", "male"]}``; they are
        saved with the network, which is refused where others are expected (:meth:`check_classes`).
    lead_names : list of str
        Names of the leads, in the order of a window's rows.
    embedding_dim : int
        Length of the embedding that all heads read.
    margin : float or None
        Angle in radians of the ArcFace margin on the person head (0 gives a
        plain cosine classifier); None gives an ordinary linear head.
    scale : float
        Factor on the cosines of the person head; unused where `margin` is None.
    learning_rate : float
        Highest rate of the one-cycle schedule.
    weight_decay : float
        Decoupled weight decay of the matrices and kernels; biases and norms are not decayed.

    Raises
    ------
    StudyError
        A task has fewer than two classes, or there is no task.
    """

    name: ClassVar[str]

    def __init__(
        self,
        n_leads: int,
        n_samples: int,
        fs: float,
        classes: dict[str, list[str]],
        lead_names: list[str],
        embedding_dim: int,
        margin: float | None,
        scale: float,
        learning_rate: float,
        weight_decay: float,
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
        # collects the subclass's arguments too: a checkpoint alone rebuilds the model
        self.save_hyperparameters()
        self.hparams.classes = {task: [str(name) for name in names] for task, names in classes.items()}
        json.dumps(dict(self.hparams))  # a numpy number or a Path would make a checkpoint that does not load

    def build_heads(self, n_features: int) -> None:
        """Add the embedding layer and the heads on top of trunk features of length `n_features`."""
        size = self.hparams.embedding_dim
        # no bias: the batch norm would cancel it
        self.embedding = nn.Sequential(nn.Linear(n_features, size, bias=False), nn.BatchNorm1d(size))
        self.heads = nn.ModuleDict()
        for task, names in self.classes.items():
            cosine = task == PERSON and self.hparams.margin is not None
            self.heads[task] = (
                CosineClassifier(size, len(names), self.hparams.scale) if cosine else nn.Linear(size, len(names))
            )

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

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """Trunk features of windows `x` (n, n_leads, n_samples), shape (n, n_features)."""

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
        """Mean cross-entropy of each task over the windows whose label is known.

        Parameters
        ----------
        logits : dict of str to Tensor
            As :meth:`forward` gives.
        targets : dict of str to Tensor
            int64 class of each window and task, shape (n,); :data:`UNKNOWN` where there is none.
        margin : bool
            Add the ArcFace margin to the person head (training) or not (validation).

        Returns
        -------
        dict of str to Tensor
            One scalar a task; a task without any known label in the batch gives 0 and a gradient of 0.
        """
        return {
            task: self._task_loss(task, values, targets[task], margin and task == PERSON)
            for task, values in logits.items()
        }

    def _task_loss(self, task: str, logits: Tensor, labels: Tensor, margin: bool) -> Tensor:
        """Mean cross-entropy of one task over its known labels."""
        known = labels != UNKNOWN
        if not known.any():
            return logits.sum() * 0.0
        logits, labels = logits[known], labels[known]
        if margin and self.hparams.margin:
            logits = arcface_logits(logits, labels, self.hparams.margin, self.hparams.scale)
        return functional.cross_entropy(logits, labels)

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
        known = {task: targets[task] != UNKNOWN for task in logits}
        if any(mask.any() for mask in known.values()):
            self.log("val_loss", sum(losses.values()), batch_size=len(x))
        for task, mask in known.items():
            if mask.any():
                hits = (logits[task][mask].argmax(1) == targets[task][mask]).float().mean()
                self.log(f"val_{task}_accuracy", hits, batch_size=int(mask.sum()))

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW under a one-cycle schedule over the whole run."""
        decayed = [p for p in self.parameters() if p.ndim > 1]
        others = [p for p in self.parameters() if p.ndim <= 1]
        optimizer = torch.optim.AdamW(
            [{"params": decayed}, {"params": others, "weight_decay": 0.0}],
            lr=self.hparams.learning_rate,
            weight_decay=self.hparams.weight_decay,
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.hparams.learning_rate, total_steps=int(self.trainer.estimated_stepping_batches)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class TaskLogits(nn.Module):
    """One task of a model as a module from windows to logits, the shape attribution methods ask for.

    Parameters
    ----------
    model : SignalModel
        The network.
    task : str
        One of its tasks.
    """

    def __init__(self, model: SignalModel, task: str) -> None:
        super().__init__()
        if task not in model.heads:
            raise KeyError(f"no task {task}; the model has {', '.join(model.heads)}")
        self.model = model
        self.task = task

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the task, shape (n, n_classes)."""
        return self.model(x)[self.task]
