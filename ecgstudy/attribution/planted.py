"""Networks whose answer is known: synthetic persons who differ in one wave only.

The simulator draws persons who are alike in everything but the P wave, the QRS
complex or the T wave (``SyntheticCohort(identity_wave=...)``). A network that
recognises them on records it has not seen can have read nothing else, so a
method that explains it has to point there.

Two things that the study does to real records would carry the cue out of its
wave and are left out here: the band-pass filter, which rings, and the
standardisation of each window, after which a tall R wave makes the P wave
small. Windows are raw samples less the median and over the standard deviation
of ALL training records. Training adds noise only; random gains would make the
other waves a yardstick worth looking at. And since a network may lean on the
other waves without learning anything from them (to find the T wave after a
QRS complex), every other wave of a training record is scaled by a random
factor: only the planted wave is of any use. Held-out records are left as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ecgstudy.attribution.waves import UNKNOWN_WAVE, WAVES, fiducials_of_boundaries, wave_codes
from ecgstudy.data.simulator.people import IDENTITY_WAVES
from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.learn.base import PERSON, SignalModel
from ecgstudy.learn.batches import Augmentation, WindowSet, encode
from ecgstudy.learn.models import create_model
from ecgstudy.learn.scoring import class_probabilities
from ecgstudy.learn.train import TrainingSettings, fit
from ecgstudy.study.config import check_profile

PLANTED_WAVES = IDENTITY_WAVES
NETWORKS = {"resnet1d": 5e-3, "transecg": 3e-3}
"""Networks and the highest learning rate of each."""
FS = 100.0
SECONDS = 4.0
RECORD_SECONDS = 8.0
LEAD = "II"
"""All three waves are large in it."""
NOISE_MV = 0.01
HIGHEST = 1.5
"""In training records every wave but the planted one is scaled by a random factor from 0 to this."""
_ONE_LEAD = "identity"
_COHORT_SEED = 9  # of ten tried the one whose persons a linear classifier of the true wave's samples tells apart best


@dataclass(frozen=True)
class Size:
    """How large a planted experiment is.

    Attributes
    ----------
    persons, records, held_out : int
        Persons, training records of each, and records of each that are explained.
    epochs : mapping of str to int
        Passes over the training records, by network.
    hyper_parameters : mapping of str to dict
        Other arguments of the networks that are not their defaults.
    """

    persons: int
    records: int
    held_out: int
    epochs: Mapping[str, int]
    hyper_parameters: Mapping[str, dict[str, Any]] = field(default_factory=dict)


SIZES = {
    "demo": Size(
        6, 80, 6, {"resnet1d": 7, "transecg": 12}, hyper_parameters={"transecg": {"n_layers": 2, "dropout": 0.0}}
    ),
    "real": Size(10, 150, 12, {"resnet1d": 15, "transecg": 30}),
}
"""By profile. The demo's Vision Transformer has two blocks instead of four, to learn within seconds."""


@dataclass(frozen=True)
class Planted:
    """Synthetic persons who differ in one wave.

    Attributes
    ----------
    wave : {"P", "QRS", "T"}
        Where the cue is.
    train : WindowSet
        Training records, longer than the networks' windows.
    windows : numpy.ndarray
        float32, shape (n, 1, n_samples): one window from the middle of each held-out record.
    targets : numpy.ndarray
        int64, shape (n,): the person's class.
    persons : numpy.ndarray
        Person of each window, str, shape (n,).
    codes : numpy.ndarray
        int8, shape (n, n_samples): true wave of each sample, see :mod:`ecgstudy.attribution.waves`.
    fiducials : list of pandas.DataFrame
        True fiducial points of each window, in samples from its start.
    """

    wave: str
    train: WindowSet
    windows: np.ndarray
    targets: np.ndarray
    persons: np.ndarray
    codes: np.ndarray
    fiducials: list[pd.DataFrame]

    def subset(self, chosen: np.ndarray) -> "Planted":
        """Keep held-out windows chosen by a boolean mask."""
        kept = (getattr(self, name)[chosen] for name in ("windows", "targets", "persons", "codes"))
        return Planted(self.wave, self.train, *kept, [self.fiducials[row] for row in np.flatnonzero(chosen)])


def planted_size(profile: str) -> Size:
    """Size of a profile's planted experiments; ``StudyError`` where there is no such profile."""
    return SIZES[check_profile(profile)]


def plant(wave: str, size: Size) -> Planted:
    """Make the synthetic persons who differ in `wave` only, with training and held-out records.

    Parameters
    ----------
    wave : {"P", "QRS", "T"}
        The wave that tells persons apart.
    size : Size
        How many persons and records.
    """
    cohort = SyntheticCohort(
        n_subjects=size.persons,
        n_sessions=1,
        n_records=size.records + size.held_out,
        seconds=RECORD_SECONDS,
        fs=FS,
        seed=_COHORT_SEED,
        identity_wave=wave,
        noise=False,
    )
    table = cohort.records()
    names = table["record_id"].to_numpy(dtype=str)
    values = cohort.signals(names)[:, [table["leads"][0].index(LEAD)]]
    rng = np.random.default_rng([_COHORT_SEED, PLANTED_WAVES.index(wave)])
    fiducials = [fiducials_of_boundaries(cohort.boundaries(name), 1.0, 0.0) for name in names]
    codes = np.stack([wave_codes(points, values.shape[-1])[0] for points in fiducials])
    learnt = (table.groupby("subject_id").cumcount() < size.records).to_numpy()
    values[learnt] *= _heights(codes[learnt], wave, rng)[:, None]
    values = values + rng.normal(0, NOISE_MV, values.shape)
    values = ((values - np.median(values[learnt])) / values[learnt].std()).astype(np.float32)
    subjects = table["subject_id"].to_numpy(dtype=str)
    targets = encode(subjects, np.unique(subjects))
    start, length = round((RECORD_SECONDS - SECONDS) / 2 * FS), round(SECONDS * FS)
    return Planted(
        wave=wave,
        train=WindowSet(values[learnt], {PERSON: targets[learnt]}, subjects[learnt], names[learnt]),
        windows=values[~learnt, :, start : start + length],
        targets=targets[~learnt],
        persons=subjects[~learnt],
        codes=codes[~learnt, start : start + length],
        fiducials=[fiducials[row] - start for row in np.flatnonzero(~learnt)],
    )


def _heights(codes: np.ndarray, wave: str, rng: np.random.Generator) -> np.ndarray:
    """Random factor on each sample, shape (n, n_samples): 1 in `wave`, else one for each other wave of a record."""
    factors = rng.uniform(0, HIGHEST, (len(codes), len(WAVES) + 1))
    factors[:, [WAVES.index(wave), UNKNOWN_WAVE]] = 1
    return np.take_along_axis(factors, codes.astype(np.int64), axis=1).astype(np.float32)


def permuted_labels(train: WindowSet, task: str, seed: int) -> WindowSet:
    """Deal the labels of `task` out to the windows at random, every record keeping one label.

    What a network learns from them has nothing to do with the persons (Adebayo
    et al., "Sanity Checks for Saliency Maps", NeurIPS 2018, section 4).
    """
    records, position = np.unique(train.records, return_inverse=True)
    first = np.zeros(len(records), dtype=np.int64)
    first[position[::-1]] = train.targets[task][::-1]
    dealt = np.random.default_rng(seed).permutation(first)[position]
    return WindowSet(train.samples, {**train.targets, task: dealt}, train.subjects, train.records)


def train_planted(train: WindowSet, name: str, size: Size, seed: int, runs: Path, device: str = "auto") -> SignalModel:
    """Train a network on planted persons, or load the run that did so before.

    Parameters
    ----------
    train : WindowSet
        ``Planted.train``, or :func:`permuted_labels` of it.
    name : {"resnet1d", "transecg"}
        The network.
    size : Size
        How it is trained.
    seed : int
        Seed of initial weights, order and noise.
    runs : Path
        Where runs are kept.
    device : {"auto", "cpu", "cuda"}
        Where to train.
    """
    model = create_model(
        name,
        seed,
        n_leads=1,
        n_samples=round(SECONDS * FS),
        fs=FS,
        classes={PERSON: np.unique(train.subjects)},
        lead_names=[_ONE_LEAD],
        learning_rate=NETWORKS[name],
        **size.hyper_parameters.get(name, {}),
    )
    noise_only = Augmentation(gain=0.0, noise=0.05, wander=0.0)
    settings = TrainingSettings(size.epochs[name], 32, seed, augmentation=noise_only)
    return fit(model, train, None, settings, runs, device).model


def recognised(model: SignalModel, planted: Planted) -> np.ndarray:
    """Whether the network names the right person in each held-out window, bool, shape (n,)."""
    return (
        class_probabilities(model, planted.windows, PERSON, np.unique(planted.train.subjects)).argmax(axis=1)
        == planted.targets
    )
