"""Training a network: the same trainer everywhere, runs that resume, and runs that are never trained twice.

A run lives in a folder named by everything it depends on: model, initial
weights, windows, labels, settings and code. Its checkpoint is written last and
under a temporary name, so a folder with a checkpoint is a complete run.
"""

import hashlib
import json
import logging
import sys
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import pandas as pd
import pytorch_lightning as pl
import torch
from filelock import FileLock
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.utilities.seed import isolate_rng

from ecgstudy.errors import StudyError
from ecgstudy.learn import augment, margin, scoring
from ecgstudy.learn import batches as training_data
from ecgstudy.learn import callbacks as training_callbacks
from ecgstudy.learn.augment import Augmentation
from ecgstudy.learn.base import UNKNOWN, SignalModel
from ecgstudy.learn.batches import TrainingData, WindowSet, check_targets
from ecgstudy.learn.callbacks import History, SeedEachEpoch, VerificationError
from ecgstudy.study.cache import (
    KEY_LENGTH,
    cache_key,
    code_digest,
    library_versions,
    naming_disk_errors,
    new_file,
    write_text,
)
from ecgstudy.study.parallel import in_batch, resolve_device

THREADS = 1
"""Threads of every training run: another number changes the last digits of the weights, and a second thread makes
networks of this size hardly faster; :mod:`ecgstudy.study.parallel` trains several at once instead."""

_CHECKPOINT = "model.ckpt"
_HISTORY = "history.csv"
_RUN = "run.json"
_LONGEST_GRADIENT = 1.0


@dataclass(frozen=True)
class TrainingSettings:
    """How a network is trained.

    Attributes
    ----------
    epochs : int
        Passes over the training windows; the schedule of the learning rate ends with the last.
    batch_size : int
        Windows a step.
    seed : int
        Seed of order, augmentation and dropout.
    monitor : {"val_loss", "val_eer"}
        What chooses the epoch, on the validation set; "val_eer" for persons who are no training class.
    patience : int, optional
        Stop after so many epochs without a better value; train all epochs unless told.
    augmentation : Augmentation, optional
        Random changes of the training windows; none where it is None.
    """

    epochs: int = 30
    batch_size: int = 64
    seed: int = 0
    monitor: Literal["val_loss", "val_eer"] = "val_loss"
    patience: int | None = None
    augmentation: Augmentation | None = field(default_factory=Augmentation)


@dataclass(frozen=True)
class TrainedRun:
    """A complete run.

    Attributes
    ----------
    model : SignalModel
        The network with the chosen weights, on the processor, in evaluation mode.
    history : pandas.DataFrame
        One row an epoch: epoch (from 0), train_loss and validation metrics.
    best_epoch : int
        Epoch (from 0) whose weights were kept: the best on the validation set, the last without one.
    folder : Path
        Where the run is kept.
    """

    model: SignalModel
    history: pd.DataFrame
    best_epoch: int
    folder: Path


def make_trainer(epochs: int, device: str = "auto", callbacks: Sequence[pl.Callback] = ()) -> pl.Trainer:
    """Build the one kind of trainer that the study uses: deterministic, one device, silent in batch runs.

    In batch runs nothing is drawn: a progress bar floods the message channel
    of a notebook kernel and can end a papermill run. Interactively there is a
    bar that refreshes every 20 steps.

    Parameters
    ----------
    epochs : int
        Number of epochs.
    device : {"auto", "cpu", "cuda"}
        Where to compute.
    callbacks : sequence of Callback
        Callbacks; checkpoints are kept only where one of them is a ModelCheckpoint.
    """
    torch.set_num_threads(THREADS)
    # hardware banners and tips once a fit would bury the lines of the epochs
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
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
        reload_dataloaders_every_n_epochs=1,
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

    The epoch is chosen on `validation` only. An interrupted run continues at
    its last whole epoch and ends with the weights of an uninterrupted one.

    Parameters
    ----------
    model : SignalModel
        Network with its initial weights (:func:`ecgstudy.learn.create_model`, or a trained one to go on from);
        it may be changed: use the one that is returned.
    train : WindowSet
        Training windows, as long as the model reads or longer (cut at random places).
    validation : WindowSet or None
        Windows of exactly the model's length, from training persons or records; None keeps the last epoch.
    settings : TrainingSettings
        How to train.
    runs : Path
        Folder that holds the run folders.
    device : {"auto", "cpu", "cuda"}
        Where to train; not part of the run's name.

    Returns
    -------
    TrainedRun
        Model, history and where they are kept.

    Raises
    ------
    StudyError
        A task has one class only, no EER can be computed on `validation`, or the disk is full.
    ValueError
        Targets do not fit the heads, or windows do not fit the model.
    """
    check_targets(train, model.classes)
    if train.samples.shape[-1] < model.hparams.n_samples:
        raise ValueError(f"windows of {train.samples.shape[-1]} samples for a model of {model.hparams.n_samples}")
    if validation is not None:
        _check_monitor(validation, settings, model.classes)
    key = _run_key(model, train, validation, settings)
    folder = runs / f"{model.name}-{key[:KEY_LENGTH]}"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(runs / f".{folder.name}.lock"):
        if not (folder / _CHECKPOINT).exists():
            with isolate_rng(), naming_disk_errors(folder):
                _train(model, train, validation, settings, folder, device, key)
    run = load_run(type(model), folder)
    for task, names in model.classes.items():
        run.model.check_classes(task, names)
    return run


def load_run(model_class: type[SignalModel], folder: Path) -> TrainedRun:
    """Load a complete run, weights only."""
    with isolate_rng():  # the constructor draws initial weights
        model = model_class.load_from_checkpoint(folder / _CHECKPOINT, map_location="cpu", weights_only=True)
    run = json.loads((folder / _RUN).read_text())
    return TrainedRun(model.eval(), pd.read_csv(folder / _HISTORY), run["best_epoch"], folder)


def _check_monitor(validation: WindowSet, settings: TrainingSettings, tasks: Iterable[str]) -> None:
    """Refuse a validation set on which the monitored value would stay undefined."""
    known = [(validation.targets[task] != UNKNOWN).any() for task in tasks]
    if settings.monitor == "val_loss" and not any(known):
        raise StudyError("No validation window has a label of a training class; choose the epoch by val_eer instead.")


def _run_key(model: SignalModel, train: WindowSet, validation: WindowSet | None, settings: TrainingSettings) -> str:
    """SHA-256 (hex) over everything a run's weights depend on, save the machine."""
    own = [sys.modules[c.__module__] for c in type(model).__mro__ if c.__module__.startswith("ecgstudy.")]
    shared = [augment, margin, scoring, training_callbacks, training_data, sys.modules[__name__]]
    return cache_key(
        model=model.name,
        hyper_parameters=dict(model.hparams),
        initial_weights=_weights_digest(model),
        settings=asdict(settings),
        train=train.digest(),
        validation=validation.digest() if validation else None,
        code=code_digest(*own, *shared),
        torch=torch.__version__,
    )


def _weights_digest(model: SignalModel) -> str:
    """SHA-256 (hex) over all weights and buffers."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()


def _train(
    model: SignalModel,
    train: WindowSet,
    validation: WindowSet | None,
    settings: TrainingSettings,
    folder: Path,
    device: str,
    key: str,
) -> None:
    """Train (on), then write history, description and checkpoint, in this order."""
    history = History()
    # at the end of the training epoch: only then does the history, which `last` carries, hold the epoch
    keep = {"dirpath": folder, "enable_version_counter": False, "save_on_train_epoch_end": True}
    best = ModelCheckpoint(filename="best", monitor=settings.monitor, mode="min", **keep)
    last = ModelCheckpoint(filename="last", **keep)
    callbacks: list[pl.Callback] = [SeedEachEpoch(settings.seed), history, last]
    if validation:
        # before `last`, whose file has to hold the state of `best`
        callbacks.insert(2, best)
        if settings.monitor == "val_eer":
            callbacks.insert(0, VerificationError(validation))
        if settings.patience is not None:
            callbacks.insert(2, EarlyStopping(settings.monitor, mode="min", patience=settings.patience))
    size, fs = model.hparams.n_samples, model.hparams.fs
    data = TrainingData(train, validation, size, fs, settings.batch_size, settings.seed, settings.augmentation)
    trainer = make_trainer(settings.epochs, device, callbacks)
    resume = folder / "last.ckpt"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
        warnings.filterwarnings("ignore", "Total length of `list` across ranks is zero")  # no validation set
        warnings.filterwarnings("ignore", category=FutureWarning, message=".*LeafSpec.*")
        trainer.fit(model.train(), data, ckpt_path=resume if resume.exists() else None, weights_only=True)
    chosen = torch.load(best.best_model_path if validation else resume, map_location="cpu", weights_only=True)
    model.load_state_dict(chosen["state_dict"])
    write_text(folder / _HISTORY, history.table().to_csv(index=False))
    about = {
        "key": key,
        "best_epoch": chosen["epoch"],
        "settings": asdict(settings),
        "device": resolve_device(device),
        "threads": THREADS,
        "versions": library_versions(),
    }
    write_text(folder / _RUN, json.dumps(about, indent=2))
    with new_file(folder / _CHECKPOINT) as partial:
        trainer.save_checkpoint(partial, weights_only=True)
    for step in ("best.ckpt", "last.ckpt"):
        (folder / step).unlink(missing_ok=True)
