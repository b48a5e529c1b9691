"""Windows in memory, and the batches of an epoch cut from them without a step per sample."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch

from ecgstudy.errors import StudyError
from ecgstudy.learn.augment import Augmentation, augment, random_crops
from ecgstudy.learn.base import UNKNOWN, Batch


@dataclass(frozen=True)
class WindowSet:
    """Windows with their labels and where they come from.

    Attributes
    ----------
    samples : numpy.ndarray
        float32, shape (n, n_leads, n_samples). A training set may hold longer
        windows than the model reads; each epoch then cuts at random places.
    targets : dict of str to numpy.ndarray
        Class of each window for each task, integers of shape (n,), see :func:`encode`.
    subjects, records : numpy.ndarray
        Person and record of each window, strings of shape (n,).

    Raises
    ------
    StudyError
        There is no window, or a sample is not a number.
    """

    samples: np.ndarray
    targets: dict[str, np.ndarray]
    subjects: np.ndarray
    records: np.ndarray

    def __post_init__(self) -> None:
        """Refuse what would fail late or spoil a run silently."""
        n = len(self.samples)
        if not n:
            raise StudyError("There is no window to train or score on; look at the exclusions of the cohort.")
        lengths = {len(column) for column in (*self.targets.values(), self.subjects, self.records)}
        if self.samples.ndim != 3 or lengths != {n}:
            raise ValueError(f"samples of shape {self.samples.shape} with labels of lengths {sorted(lengths)}")
        if not np.isfinite(self.samples).all():
            raise StudyError("A window holds samples that are not numbers; leave out windows that have a problem.")

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.samples)

    def subset(self, chosen: np.ndarray) -> "WindowSet":
        """Windows chosen by a boolean mask or by positions."""
        targets = {task: column[chosen] for task, column in self.targets.items()}
        return WindowSet(self.samples[chosen], targets, self.subjects[chosen], self.records[chosen])

    def digest(self) -> str:
        """SHA-256 (hex) over samples, labels and names."""
        digest = hashlib.sha256(repr((self.samples.shape, sorted(self.targets))).encode())
        digest.update(np.ascontiguousarray(self.samples, dtype="<f4"))
        for task in sorted(self.targets):
            digest.update(np.ascontiguousarray(self.targets[task], dtype="<i8"))
        digest.update(repr((list(map(str, self.subjects)), list(map(str, self.records)))).encode())
        return digest.hexdigest()


def encode(labels: Sequence[object], classes: Sequence[object]) -> np.ndarray:
    """Position of each label in `classes`, int64; ``UNKNOWN`` where it is missing or not among them."""
    return pd.Index(classes).get_indexer(pd.Index(labels)).astype(np.int64)


def standardise(values: np.ndarray) -> np.ndarray:
    """Bring each lead of each window to mean 0 and standard deviation 1.

    Cohorts come in millivolts, counts and z-scores, and the contact of an
    electrode scales a whole lead, so networks read shape and not unit.

    Parameters
    ----------
    values : numpy.ndarray
        Shape (..., n_samples).

    Returns
    -------
    numpy.ndarray
        float32, the shape of `values`.

    Raises
    ------
    StudyError
        A sample is not a number, or a lead is constant: neither has a shape that could be learnt or recognised.
    """
    if not np.isfinite(values).all():
        raise StudyError("A window holds samples that are not numbers; cut windows beside the flaws of a record.")
    if (values == values[..., :1]).all(axis=-1).any():
        raise StudyError("A lead of a window is constant; cut windows beside the flaws of a record.")
    centred = values - values.mean(axis=-1, keepdims=True)
    spread = centred.std(axis=-1, keepdims=True)
    return (centred / spread).astype(np.float32)


class EpochBatches:
    """Batches of one epoch: an iterable of ``(windows, targets)`` on the processor.

    Parameters
    ----------
    windows : WindowSet
        The windows.
    n_samples : int
        Length the model reads; longer windows are cut at random places.
    fs : float
        Sampling rate in Hz.
    batch_size : int
        Windows a batch; the last, smaller batch is left out when shuffling, as batch norm needs company.
    seed : tuple of int, optional
        Seed of the order and of every random change; without it the order is kept and nothing is changed.
    augmentation : Augmentation, optional
        Random changes; none unless told.
    """

    def __init__(
        self,
        windows: WindowSet,
        n_samples: int,
        fs: float,
        batch_size: int,
        seed: tuple[int, int] | None = None,
        augmentation: Augmentation | None = None,
    ) -> None:
        self._samples = torch.from_numpy(np.ascontiguousarray(windows.samples, dtype=np.float32))
        self._targets = {task: torch.as_tensor(column, dtype=torch.int64) for task, column in windows.targets.items()}
        self._n_samples = n_samples
        self._fs = fs
        self._batch_size = min(batch_size, len(windows))
        self._seed = seed
        self._augmentation = augmentation

    def __len__(self) -> int:
        """Return the number of batches."""
        n = len(self._samples)
        return n // self._batch_size if self._seed else -(-n // self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches; the same seed gives the same batches each time."""
        n = len(self._samples)
        generator = torch.Generator()
        if self._seed:
            generator.manual_seed(int(np.random.SeedSequence(self._seed).generate_state(1)[0]))
        order = torch.randperm(n, generator=generator) if self._seed else torch.arange(n)
        for number in range(len(self)):
            rows = order[number * self._batch_size : (number + 1) * self._batch_size]
            x = self._samples[rows]
            if x.shape[-1] > self._n_samples:
                x = random_crops(x, self._n_samples, generator)
            if self._augmentation:
                x = augment(x, self._fs, self._augmentation, generator)
            yield x, {task: column[rows] for task, column in self._targets.items()}


class TrainingData(pl.LightningDataModule):
    """Feeds a trainer: each epoch's order and changes depend on the seed and the epoch's number only.

    A resumed run therefore sees what the uninterrupted one would have seen.
    Give the trainer ``reload_dataloaders_every_n_epochs=1``.

    Parameters
    ----------
    train : WindowSet
        Training windows.
    validation : WindowSet or None
        Validation windows, of exactly `n_samples`.
    n_samples, fs, batch_size, augmentation
        As in :class:`EpochBatches`.
    seed : int
        Seed of the run.
    """

    def __init__(
        self,
        train: WindowSet,
        validation: WindowSet | None,
        n_samples: int,
        fs: float,
        batch_size: int,
        seed: int,
        augmentation: Augmentation | None,
    ) -> None:
        super().__init__()
        self._train = train
        self._validation = validation
        self._n_samples = n_samples
        self._fs = fs
        self._batch_size = batch_size
        self._seed = seed
        self._augmentation = augmentation

    def train_dataloader(self) -> EpochBatches:
        """Batches of the trainer's current epoch."""
        seed = (self._seed, self.trainer.current_epoch)
        return EpochBatches(self._train, self._n_samples, self._fs, self._batch_size, seed, self._augmentation)

    def val_dataloader(self) -> EpochBatches | list[Batch]:
        """Return the validation batches in order; none without a validation set."""
        if self._validation is None:
            return []
        return EpochBatches(self._validation, self._n_samples, self._fs, 4 * self._batch_size)


def check_targets(windows: WindowSet, classes: Mapping[str, Sequence[str]]) -> None:
    """Refuse training windows from which a model's heads cannot be learnt.

    Raises
    ------
    StudyError
        Fewer than two classes of a task occur.
    ValueError
        A task has no column, or a class is not below the head's number of classes.
    """
    for task, names in classes.items():
        if task not in windows.targets:
            raise ValueError(f"no targets for task {task}; there are {', '.join(windows.targets)}")
        codes = np.unique(windows.targets[task])
        if codes[0] < UNKNOWN or codes[-1] >= len(names):
            raise ValueError(f"classes {codes[0]} to {codes[-1]} for a head of {len(names)} ({task})")
        if (codes != UNKNOWN).sum() < 2:
            raise StudyError(f"Task {task} cannot be trained: all training windows have the same label, or none.")
