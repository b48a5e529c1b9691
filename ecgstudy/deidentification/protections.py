"""Protections: a recording in, a recording of the same length, rate and leads out; one registry.

Every protection goes fit -> prepare -> protect. It is fitted on the protector's own people, prepares the cycles of a
release (of which it sees cycles and rhythms only), and then protects one recording at a time with its cycle. What it is
told about the records to be released besides their samples is in `needs_labels`.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from scipy import signal as dsp
from sklearn.decomposition import PCA

from ecgstudy.deidentification.cycles import LONGEST_S, SHORTEST_S, TYPICAL_S, CycleSet, Recording, render
from ecgstudy.errors import StudyError

IRREGULAR = 0.1
"""RMSSD as a share of the mean RR interval above which a rhythm is irregular, as in atrial fibrillation."""
SPREADS = {False: 0.02, True: 0.18}
"""Standard deviation of redrawn intervals as a share of their mean: regular rhythms, irregular ones."""
GROUPING_COMPONENTS = 16
"""Principal components in which shapes are compared to form groups."""


@dataclass(frozen=True)
class Protection:
    """How records are changed before they are shared; its ``repr`` says with what parameters.

    Registered in :data:`PROTECTIONS` under ``<method>.<strength>``.
    """

    needs_labels: ClassVar[bool] = False
    """Whether it is told the diagnoses of the very records that it releases."""
    retiming: ClassVar["Retiming | None"] = None
    """How it draws R peaks anew; None where the record's own are kept."""

    def fit(self, people: CycleSet, seed: int, runs: Path) -> "Protection":
        """Learn what it has to know from the protector's own people; networks' training runs are kept in `runs`."""
        return self

    def prepare(self, release: CycleSet, seed: int) -> np.ndarray:
        """Give the cycles that stand for those of a release, float32 of their shape: the records' own, unless told."""
        return release.cycles

    def protect(self, recording: Recording, cycle: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Give the protected samples, float32, shape of ``recording.values``; fitted or not, they are the same.

        The prepared cycle of the record is put at its own R peaks or at redrawn ones.
        """
        n_samples, peaks = recording.values.shape[-1], recording.peaks
        if self.retiming:
            peaks = self.retiming.peaks(peaks, n_samples / recording.fs, rng)
        return render(cycle, peaks, n_samples, recording.fs)


def learns(protection: Protection) -> bool:
    """Whether a protection has to be fitted."""
    return type(protection).fit is not Protection.fit


@dataclass(frozen=True)
class Retiming:
    """R peaks drawn anew, at a rate rounded to `step` beats a minute, `most` at most; irregular rhythms stay so."""

    step: float
    most: float = math.inf

    def peaks(self, own: np.ndarray, seconds: float, rng: np.random.Generator) -> np.ndarray:
        """Draw R peaks for so many seconds from the own ones (s)."""
        intervals = np.diff(own)
        intervals = intervals[(intervals > SHORTEST_S) & (intervals < LONGEST_S)]
        if not len(intervals):
            intervals = np.array([TYPICAL_S])
        mean = intervals.mean()
        rate = min(max(self.step, self.step * np.round(60 / mean / self.step)), self.most)
        irregular = len(intervals) > 2 and np.sqrt(np.mean(np.diff(intervals) ** 2)) > IRREGULAR * mean
        spread, typical = SPREADS[bool(irregular)], 60 / rate
        start = rng.uniform(0, typical)
        drawn = rng.gamma(spread**-2, typical * spread**2, max(1, int((seconds - start) / typical)))
        drawn = np.clip(drawn, SHORTEST_S, LONGEST_S)
        drawn *= typical / drawn.mean()  # the rate is kept, not only expected
        return start + np.concatenate([[0.0], np.cumsum(drawn)])


@dataclass(frozen=True)
class SampleChange(Protection, ABC):
    """A change of samples that depends on nothing but the recording."""

    def protect(self, recording: Recording, cycle: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Change the recording."""
        return self.change(recording, rng).astype(np.float32)

    @abstractmethod
    def change(self, recording: Recording, rng: np.random.Generator) -> np.ndarray:
        """Give the changed samples, shape of ``recording.values``."""


@dataclass(frozen=True)
class Unprotected(SampleChange):
    """The recording as it is: the reference."""

    def change(self, recording: Recording, rng: np.random.Generator) -> np.ndarray:
        """Change nothing."""
        return recording.values


@dataclass(frozen=True)
class Noise(SampleChange):
    """White noise of so many standard deviations of each lead."""

    level: float

    def change(self, recording: Recording, rng: np.random.Generator) -> np.ndarray:
        """Add noise."""
        values = recording.values
        return values + self.level * values.std(axis=-1, keepdims=True) * rng.standard_normal(values.shape)


@dataclass(frozen=True)
class LowPass(SampleChange):
    """Everything above a frequency removed: Butterworth of order 4, forwards and backwards."""

    hz: float

    def change(self, recording: Recording, rng: np.random.Generator) -> np.ndarray:
        """Filter."""
        sections = dsp.butter(4, self.hz, fs=recording.fs, output="sos")
        padding = min(recording.values.shape[-1] - 1, round(recording.fs))
        return dsp.sosfiltfilt(sections, recording.values, axis=-1, padlen=padding)


@dataclass(frozen=True)
class Warp(SampleChange):
    """Time and amplitude warped smoothly, all leads alike in time: one knot a second.

    `strength` is the standard deviation of the logarithm of the local speed and of each lead's local gain.
    """

    strength: float

    def change(self, recording: Recording, rng: np.random.Generator) -> np.ndarray:
        """Warp."""
        n_leads, n = recording.values.shape
        knots = np.linspace(0, n - 1, max(2, round(n / recording.fs) + 1))
        grid = np.arange(n)
        speed = np.exp(np.interp(grid, knots, self.strength * rng.standard_normal(knots.size)))
        places = np.concatenate([[0], np.cumsum(speed[:-1])])
        places *= (n - 1) / places[-1]
        gains = np.exp(self.strength * rng.standard_normal((n_leads, knots.size)))
        pairs = zip(recording.values, gains, strict=True)
        return np.stack([np.interp(places, grid, lead) * np.interp(grid, knots, gain) for lead, gain in pairs])


@dataclass(frozen=True)
class OwnCycle(Protection):
    """Each record's own median cycle at its own R peaks: loses noise only, and protects nobody."""


@dataclass(frozen=True)
class LowRank(Protection):
    """Cycles rebuilt from so many principal components of the protector's people."""

    components: int
    pca: PCA | None = None

    def fit(self, people: CycleSet, seed: int, runs: Path) -> "LowRank":
        """Find the components."""
        return replace(self, pca=PCA(min(self.components, len(people)), random_state=0).fit(_flat(people)))

    def prepare(self, release: CycleSet, seed: int) -> np.ndarray:
        """Rebuild every cycle from its code."""
        shapes = self.pca.inverse_transform(self._codes(release, seed)).reshape(release.cycles.shape)
        return (shapes * release.amplitudes[..., None]).astype(np.float32)

    def _codes(self, release: CycleSet, seed: int) -> np.ndarray:
        """Project every shape."""
        return self.pca.transform(_flat(release))


@dataclass(frozen=True)
class DifferentiallyPrivate(LowRank):
    """Components with Laplace noise: epsilon-differentially private for the SHAPE of one record.

    The code of a record is clipped to an L1 norm of `radius` (the median norm of the protector's people), so that any
    two differ by at most 2 `radius`; noise of scale 2 `radius` / `epsilon` on each number then bounds by exp(epsilon)
    how much more probable a release is from one shape than from any other (local model, no trusted party; two records
    of a person spend it twice). R peaks and the amplitude of leads are outside the guarantee.
    """

    components: int = 8
    epsilon: float = 8.0
    radius: float = np.nan

    def fit(self, people: CycleSet, seed: int, runs: Path) -> "DifferentiallyPrivate":
        """Find the components, and how long codes are."""
        fitted = super().fit(people, seed, runs)
        norms = np.abs(fitted.pca.transform(_flat(people))).sum(axis=1)
        return replace(fitted, radius=float(np.median(norms)))

    def _codes(self, release: CycleSet, seed: int) -> np.ndarray:
        """Clip the codes and add noise."""
        codes = super()._codes(release, seed)
        norms = np.abs(codes).sum(axis=1, keepdims=True)
        codes *= np.minimum(1, self.radius / np.maximum(norms, 1e-9))
        codes += np.random.default_rng(seed).laplace(scale=2 * self.radius / self.epsilon, size=codes.shape)
        return codes


@dataclass(frozen=True)
class KSame(Protection):
    """k-Same (Newton, Sweeney & Malin 2005, IEEE TKDE 17:232) on ECGs: groups of k alike, each gets the mean cycle."""

    k: int

    def prepare(self, release: CycleSet, seed: int) -> np.ndarray:
        """Group by shape."""
        size = min(GROUPING_COMPONENTS, len(release), release.cycles[0].size)
        codes = PCA(size, random_state=0).fit_transform(_flat(release))
        return group_means(release.cycles, microaggregate(codes, self.k))


def _flat(cycles: CycleSet) -> np.ndarray:
    """Shapes as rows."""
    return cycles.shapes.reshape(len(cycles), -1)


def microaggregate(codes: np.ndarray, k: int) -> np.ndarray:
    """Group rows so that every group has k to 2k - 1 members who are alike: MDAV, shape (n,) of group numbers.

    Domingo-Ferrer & Mateo-Sanz 2002, IEEE TKDE 14(1):189: the row farthest from the mean and its k - 1 nearest form a
    group, then the row farthest from that one and its nearest, until fewer than 2k are left. Fewer than 2k rows in all
    are one group. ``StudyError`` where there are fewer than k.
    """
    if len(codes) < k:
        raise StudyError(f"Groups of {k} need {k} records or more to be released together; there are {len(codes)}.")
    group, number = np.full(len(codes), -1), 0
    left = np.arange(len(codes))

    def take(around: np.ndarray) -> None:
        nonlocal left, number
        order = np.argsort(((codes[left] - around) ** 2).sum(axis=1), kind="stable")[:k]
        group[left[order]] = number
        number += 1
        left = np.delete(left, order)

    while len(left) >= 2 * k:
        mean = codes[left].mean(axis=0)
        first = codes[left[((codes[left] - mean) ** 2).sum(axis=1).argmax()]]
        take(first)
        if len(left) >= 2 * k:
            take(codes[left[((codes[left] - first) ** 2).sum(axis=1).argmax()]])
    group[left] = number
    return group


def group_means(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Mean of the values of each row's group, in the place of every row."""
    sums = np.zeros((group.max() + 1, *values.shape[1:]))
    np.add.at(sums, group, values)
    return (sums / np.bincount(group).reshape(-1, *[1] * (values.ndim - 1)))[group].astype(values.dtype)
