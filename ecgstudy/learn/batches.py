"""Windows in memory, and the batches of an epoch cut from them, with random changes, without a step per sample."""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ecgstudy.errors import StudyError
from ecgstudy.learn.base import UNKNOWN, Batch

QRS_S = 0.06
"""Seconds to either side of the R peak that no change of the heart rate moves."""
_WANDER_HZ = (0.05, 0.5)  # the band of breathing and slow electrode drift


@dataclass(frozen=True)
class WindowSet:
    """Windows with their labels and where they come from; refused where one is not a number or labels are missing.

    `samples` are float32 of shape (n, n_leads, n_samples), for training also longer than the model reads: each epoch
    then cuts at random places. `targets` hold the class of each window for each task, see :func:`encode`. With `draws`
    an epoch sees so many windows of each subject (one number stands at all of a subject's), other ones each time;
    without it all windows.
    """

    samples: np.ndarray
    targets: dict[str, np.ndarray]
    subjects: np.ndarray
    records: np.ndarray
    draws: np.ndarray | None = None

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

    def digest(self) -> str:
        """SHA-256 (hex) over samples, labels and names."""
        digest = hashlib.sha256(repr((self.samples.shape, sorted(self.targets))).encode())
        digest.update(np.ascontiguousarray(self.samples, dtype="<f4"))
        for task in sorted(self.targets):
            digest.update(np.ascontiguousarray(self.targets[task], dtype="<i8"))
        digest.update(repr((list(map(str, self.subjects)), list(map(str, self.records)))).encode())
        digest.update(b"" if self.draws is None else np.ascontiguousarray(self.draws, dtype="<i8"))
        return digest.hexdigest()


def encode(labels: Sequence[object], classes: Sequence[object]) -> np.ndarray:
    """Position of each label in `classes`, int64; ``UNKNOWN`` where it is missing or not among them."""
    return pd.Index(classes).get_indexer(pd.Index(labels)).astype(np.int64)


def standardise(values: np.ndarray) -> np.ndarray:
    """Bring each lead of each window, shape (..., n_samples), to mean 0 and standard deviation 1, as float32.

    Cohorts come in millivolts, counts and z-scores, and the contact of an electrode scales a whole lead, so networks
    read shape and not unit. What is not a number or constant has no shape and is refused.
    """
    if not np.isfinite(values).all():
        raise StudyError("A window holds samples that are not numbers; cut windows beside the flaws of a record.")
    if (values == values[..., :1]).all(axis=-1).any():
        raise StudyError("A lead of a window is constant; cut windows beside the flaws of a record.")
    centred = values - values.mean(axis=-1, keepdims=True)
    return (centred / centred.std(axis=-1, keepdims=True)).astype(np.float32)


def check_targets(windows: WindowSet, classes: Mapping[str, Sequence[str]]) -> None:
    """Refuse training windows from which a model's heads cannot be learnt."""
    for task, names in classes.items():
        if task not in windows.targets:
            raise ValueError(f"no targets for task {task}; there are {', '.join(windows.targets)}")
        codes = np.unique(windows.targets[task])
        if codes[0] < UNKNOWN or codes[-1] >= len(names):
            raise ValueError(f"classes {codes[0]} to {codes[-1]} for a head of {len(names)} ({task})")
        if (codes != UNKNOWN).sum() < 2:
            raise StudyError(f"Task {task} cannot be trained: all training windows have the same label, or none.")


@dataclass(frozen=True)
class Augmentation:
    """How strongly training windows are changed; person, sex and age stay what they are.

    Standard deviations: `gain` of the natural logarithm of a factor on the whole window; relative to each lead's own,
    `noise` of white Gaussian noise and `wander` of the amplitude of one sine of 0.05-0.5 Hz and random phase; `warp` of
    the logarithm of the factor that time is stretched by, see :func:`time_warp`, around the R peak at `anchor_s`.
    """

    gain: float = 0.1
    noise: float = 0.05
    wander: float = 0.1
    warp: float = 0.0
    anchor_s: float = 0.0


def augment(x: Tensor, fs: float, settings: Augmentation, generator: torch.Generator) -> Tensor:
    """Change each window of `x` (n, n_leads, n_samples; `fs` in Hz) by its own random gain, wander and noise."""
    n, n_leads, n_samples = x.shape
    spread = x.std(dim=-1, keepdim=True)
    gain = torch.exp(settings.gain * torch.randn(n, 1, 1, generator=generator))
    low, high = _WANDER_HZ
    frequency, phase = torch.rand(2, n, n_leads, 1, generator=generator)
    frequency = low + (high - low) * frequency
    amplitude = settings.wander * torch.randn(n, n_leads, 1, generator=generator)
    wander = amplitude * torch.sin(2 * math.pi * (frequency * torch.arange(n_samples) / fs + phase))
    noise = settings.noise * torch.randn(x.shape, generator=generator)
    return gain * (x + spread * (wander + noise))


def time_warp(x: Tensor, fs: float, settings: Augmentation, generator: torch.Generator) -> Tensor:
    """Stretch or shrink the time around the R peak of each window of `x` (n, n_leads, n_samples; `fs` in Hz).

    What lies within :data:`QRS_S` of the R peak stays where it is, as the QRS complex does when the heart rate changes;
    beyond it the time before and the time after are stretched by a random factor each, as PR and QT intervals are.
    Samples are interpolated linearly, and beyond its ends a window goes on as it ends.
    """
    n, _, n_samples = x.shape
    place = torch.arange(n_samples)
    time = place / fs - settings.anchor_s
    before, after = torch.exp(settings.warp * torch.randn(2, n, 1, generator=generator))
    factor = torch.where(time < 0, before, after)
    beyond = (time.abs() - QRS_S).clamp_min(0.0)
    # the sample that is shown at a time was recorded nearer to the R peak where time is stretched
    source = (place - time.sign() * beyond * (1 - 1 / factor) * fs).clamp(0, n_samples - 1)
    left = source.long().clamp_max(max(n_samples - 2, 0))
    share = (source - left).unsqueeze(1)
    left = left.unsqueeze(1).expand(x.shape)
    return x.gather(-1, left) * (1 - share) + x.gather(-1, left + 1) * share


def random_crops(x: Tensor, n_samples: int, generator: torch.Generator) -> Tensor:
    """Cut one window of `n_samples` at a random place from each row of `x` (n, n_leads, n_samples or more)."""
    starts = torch.randint(x.shape[-1] - n_samples + 1, (len(x),), generator=generator)
    return x.unfold(-1, n_samples, 1)[torch.arange(len(x)), :, starts]


class EpochBatches:
    """Batches of an epoch: an iterable of ``(windows, targets)`` on the processor, for a trainer.

    With a seed the order is random, longer windows are cut at random places, windows are changed, and the last, smaller
    batch is left out, as batch norm needs company. All of it follows from the seed and the epoch's number, which the
    trainer tells as it tells samplers, so a resumed run sees what the uninterrupted one would have seen.
    """

    def __init__(
        self,
        windows: WindowSet,
        n_samples: int,
        fs: float,
        batch_size: int,
        seed: int | None = None,
        augmentation: Augmentation | None = None,
    ) -> None:
        self._samples = torch.from_numpy(np.ascontiguousarray(windows.samples, dtype=np.float32))
        self._targets = {task: torch.as_tensor(column, dtype=torch.int64) for task, column in windows.targets.items()}
        self._n_samples, self._fs = n_samples, fs
        self._owners, self._draws = pd.factorize(windows.subjects)[0], windows.draws if seed is not None else None
        _, first = np.unique(self._owners, return_index=True)
        self._size = len(windows) if self._draws is None else int(self._draws[first].sum())
        self._batch_size = min(batch_size, self._size)
        self._seed, self._epoch, self._augmentation = seed, 0, augmentation
        if seed is not None:
            self.sampler = self.batch_sampler = self  # where Lightning looks for `set_epoch`

    def set_epoch(self, epoch: int) -> None:
        """Take the number of the epoch that starts."""
        self._epoch = epoch

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-self._size // self._batch_size) if self._seed is None else self._size // self._batch_size

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches; the same seed and epoch give the same batches."""
        order, generator = torch.arange(len(self._samples)), torch.Generator()
        if self._seed is not None:
            state = np.random.SeedSequence((self._seed, self._epoch)).generate_state(1)
            generator.manual_seed(int(state[0]))
            order = torch.randperm(len(order), generator=generator)
            if self._draws is not None:
                nth = pd.Series(self._owners[order]).groupby(self._owners[order]).cumcount().to_numpy()
                order = order[torch.from_numpy(nth < self._draws[order])]
        for number in range(len(self)):
            rows = order[number * self._batch_size : (number + 1) * self._batch_size]
            x = self._samples[rows]
            if self._augmentation and self._augmentation.warp:
                x = time_warp(x, self._fs, self._augmentation, generator)
            if x.shape[-1] > self._n_samples:
                x = random_crops(x, self._n_samples, generator)
            if self._augmentation:
                x = augment(x, self._fs, self._augmentation, generator)
            yield x, {task: column[rows] for task, column in self._targets.items()}
