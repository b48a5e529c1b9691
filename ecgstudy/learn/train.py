"""Training a network: the same trainer everywhere, runs that resume, and runs that are never trained twice.

A finished run is a value of the cache, keyed by everything it depends on: model, initial weights, windows, labels,
settings, code and libraries. Until then its last whole epoch stands in a folder of the same name.
"""

import hashlib
import logging
import shutil
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor

from ecgstudy.errors import StudyError
from ecgstudy.learn.base import UNKNOWN, SignalModel
from ecgstudy.learn.batches import Augmentation, EpochBatches, WindowSet, check_targets
from ecgstudy.study.cache import KEY_LENGTH, cache_key, code_key, library_versions, naming_disk_errors, remember
from ecgstudy.study.parallel import in_batch, resolve_device

THREADS = 1
"""Threads of every training run: another number changes the last digits of the weights, and a second thread makes
networks of this size hardly faster; :mod:`ecgstudy.study.parallel` trains several at once instead."""

_LONGEST_GRADIENT = 1.0
_LIBRARIES = ("numpy", "pytorch-lightning", "torch")
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingSettings:
    """How a network is trained: passes over the windows, windows a step, seed of order, augmentation and dropout.

    The schedule of the learning rate ends with the last epoch. Without `augmentation` windows are not changed.
    """

    epochs: int = 30
    batch_size: int = 64
    seed: int = 0
    augmentation: Augmentation | None = field(default_factory=Augmentation)


@dataclass(frozen=True)
class TrainedRun:
    """A complete run: the network with the chosen weights, on the processor, in evaluation mode, and how it came about.

    `history` has one row an epoch: epoch (from 0), train_loss and validation metrics.
    """

    model: SignalModel
    history: pd.DataFrame


def make_trainer(epochs: int, device: str = "auto", callbacks: Sequence[pl.Callback] = ()) -> pl.Trainer:
    """Build the one kind of trainer that the study uses: deterministic, one device, silent in batch runs.

    In batch runs nothing is drawn: a progress bar floods the message channel of a notebook kernel and can end a
    papermill run. Interactively there is a bar that refreshes every 20 steps. Checkpoints are kept only where one of
    `callbacks` is a ModelCheckpoint.
    """
    torch.set_num_threads(THREADS)
    # hardware banners and tips once a fit would bury the lines of the epochs
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    # true of every run that is resumed, chooses nothing, or trains at all: no news
    for message in ("Checkpoint directory .* exists", "You defined a `validation_step` but have no", ".*LeafSpec"):
        warnings.filterwarnings("ignore", message)
    bar = [] if in_batch() else [TQDMProgressBar(refresh_rate=20)]
    return pl.Trainer(
        max_epochs=epochs,
        accelerator="gpu" if resolve_device(device) == "cuda" else "cpu",
        devices=1,
        callbacks=[*callbacks, *bar],
        logger=False,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        enable_progress_bar=bool(bar),
        enable_model_summary=False,
        num_sanity_val_steps=0,
        gradient_clip_val=_LONGEST_GRADIENT,
        deterministic=True,
    )


def fit(
    model: SignalModel,
    train: WindowSet,
    validation: WindowSet | None,
    settings: TrainingSettings,
    runs: Path,
    device: str = "auto",
) -> TrainedRun:
    """Train a network, or load the run that did so before; continue a run that was interrupted.

    An interrupted run continues at its last whole epoch and ends with the weights of an uninterrupted one.
    ``StudyError`` where a task has one class only, no window of `validation` has a label, or the disk is full.

    Parameters
    ----------
    model : SignalModel
        Network with its initial weights (:func:`ecgstudy.learn.models.create_model`, or a trained one to go on from);
        it may be changed: use the one that is returned.
    train : WindowSet
        Training windows, as long as the model reads or longer (cut at random places).
    validation : WindowSet or None
        Windows of exactly the model's length, from training persons or records, whose loss chooses the epoch; None
        keeps the last epoch.
    settings, runs, device
        How to train, the folder that holds the runs, and where to train (not part of a run's name).
    """
    check_targets(train, model.classes)
    if train.samples.shape[-1] < model.hparams.n_samples:
        raise ValueError(f"windows of {train.samples.shape[-1]} samples for a model of {model.hparams.n_samples}")
    if validation and all((validation.targets[task] == UNKNOWN).all() for task in model.classes):
        raise StudyError("No validation window has a label of a training class; train without validation.")
    weights = (name.encode() + value.cpu().numpy().tobytes() for name, value in model.state_dict().items())
    made_from = {
        "model": model.name,
        "hyper_parameters": dict(model.hparams),
        "initial_weights": hashlib.sha256(b"".join(weights)).hexdigest(),
        "settings": asdict(settings),
        "train": train.digest(),
        "validation": validation.digest() if validation else None,
        "code": [code_key(fit), code_key(type(model))],
        "libraries": library_versions(_LIBRARIES),
    }
    unfinished = runs / f"{model.name}-{cache_key(**made_from)[:KEY_LENGTH]}"
    with isolate_rng():  # the constructor draws initial weights
        trained = type(model)(**model.hparams)
        (state, history), _ = remember(
            runs, model.name, made_from, lambda: _train(model, train, validation, settings, unfinished, device)
        )
    shutil.rmtree(unfinished, ignore_errors=True)
    trained.load_state_dict(state)
    return TrainedRun(trained.eval(), history)


def _train(
    model: SignalModel,
    train: WindowSet,
    validation: WindowSet | None,
    settings: TrainingSettings,
    folder: Path,
    device: str,
) -> tuple[dict[str, Tensor], pd.DataFrame]:
    """Train, or go on from the last whole epoch that `folder` holds; give the chosen weights and the history."""
    epochs = Epochs(settings.seed)
    # at the end of the training epoch: only then does the history, which `last` carries, hold the epoch
    keep = {"dirpath": folder, "enable_version_counter": False, "save_on_train_epoch_end": True}
    best = ModelCheckpoint(filename="best", monitor="val_loss", mode="min", **keep)
    last = ModelCheckpoint(filename="last", **keep)
    # `best` before `last`, whose file has to hold its state
    trainer = make_trainer(settings.epochs, device, [epochs, best, last] if validation else [epochs, last])
    shape, size = (model.hparams.n_samples, model.hparams.fs), settings.batch_size
    batches = EpochBatches(train, *shape, size, settings.seed, settings.augmentation)
    held = EpochBatches(validation, *shape, 4 * size) if validation else None
    resume = folder / "last.ckpt"
    with naming_disk_errors(folder):
        trainer.fit(model.train(), batches, held, ckpt_path=resume if resume.exists() else None, weights_only=True)
    chosen = torch.load(best.best_model_path if validation else resume, map_location="cpu", weights_only=True)
    return chosen["state_dict"], pd.DataFrame(epochs.rows)


class Epochs(pl.Callback):
    """Seeds each epoch by its number, keeps its metrics, also over an interruption, and logs one plain line an epoch.

    A resumed run thereby repeats the same dropout. Lightning's own CSV logger deletes a resumed run's earlier epochs.
    """

    def __init__(self, seed: int) -> None:
        self.rows: list[dict[str, float]] = []
        self._seed = seed
        self._started = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Rows so far, kept in the checkpoint."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue after the rows of a checkpoint."""
        self.rows = list(state_dict["rows"])

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Seed the epoch and start the clock."""
        # the third number keeps this stream apart from that of the batches
        state = np.random.SeedSequence((self._seed, trainer.current_epoch, 1)).generate_state(1)
        torch.manual_seed(int(state[0]))
        self._started = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep and log the epoch's metrics."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.rows.append({"epoch": trainer.current_epoch, **metrics})
        values = " ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        seconds = time.perf_counter() - self._started
        _LOG.info("epoch %d/%d %s (%.1f s)", trainer.current_epoch + 1, trainer.max_epochs, values, seconds)
