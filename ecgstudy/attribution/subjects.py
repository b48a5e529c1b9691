"""What is explained: a trained attacker of stage 02 and delineated probe windows of the people on trial."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ecgstudy.attribution.shares import failure_table
from ecgstudy.attribution.waves import fiducials_of_boundaries, region_masks, wave_codes
from ecgstudy.data.ludb import LudbCohort
from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.errors import StudyError
from ecgstudy.evaluate.protocols import CrossCohort
from ecgstudy.evaluate.splits import RECORD, SUBJECT, Split
from ecgstudy.experiment.attackers import FittedNetwork
from ecgstudy.experiment.dataset import IDENTITY_LEAD, Signals, without_lead
from ecgstudy.experiment.jobs import Workshop
from ecgstudy.experiment.networks import Trainer
from ecgstudy.experiment.people import targets
from ecgstudy.experiment.plan import Job
from ecgstudy.learn.base import UNKNOWN, SignalModel
from ecgstudy.learn.batches import standardise

MARGIN_S = 2.0
"""Beats so far before and after a window help to code its edges: a wave needs both its boundaries."""
LEAST_STRIDE_S = 1.0
"""Windows of one segment start at least so far apart: a beat apart, or they would repeat each other."""


@dataclass(frozen=True)
class Network:
    """A network attacker with what its outputs stand for.

    Attributes
    ----------
    model : SignalModel
        The trained network.
    classes : dict of str to tuple of str
        Names of the classes of each of its tasks, in the order of the logits.
    trainer : Trainer
        Cuts and standardises what the network reads.
    """

    model: SignalModel
    classes: dict[str, tuple[str, ...]]
    trainer: Trainer

    def reading(self, signals: Signals) -> FittedNetwork:
        """Build the embedding attacker of stage 02 around this network, reading other samples than those on disk."""
        return FittedNetwork(self.model, replace(self.trainer, signals=signals))


@dataclass(frozen=True)
class Explained:
    """Probe windows whose waves are known, and the network that is asked about them.

    Attributes
    ----------
    job : Job
        Cohort, protocol, attacker and seed.
    task : str
        "person", "sex" or "age_group".
    network : Network
        The network and its classes.
    windows : numpy.ndarray
        float32, shape (n, 1, n_samples), standardised, as the network reads them.
    targets : numpy.ndarray
        int64, shape (n,): true class of each window.
    persons, records : numpy.ndarray
        str, shape (n,), as ``cohort/name``.
    starts : numpy.ndarray
        int64, shape (n,): first sample of each window in its record.
    codes : numpy.ndarray
        int8, shape (n, n_samples), from :func:`ecgstudy.attribution.waves.wave_codes`.
    fiducials : list of pandas.DataFrame
        Fiducial points of each window in samples from its start, with those of the beats around it.
    attempts : pandas.DataFrame
        One row a labelled window, those left out too: cohort, person, sex, age_group, record, start, reason
        (why its waves are not known, or None).
    unlabelled : int
        Windows left out because the task's label is unknown, or no class of the network.
    """

    job: Job
    task: str
    network: Network
    windows: np.ndarray
    targets: np.ndarray
    persons: np.ndarray
    records: np.ndarray
    starts: np.ndarray
    codes: np.ndarray
    fiducials: list[pd.DataFrame]
    attempts: pd.DataFrame
    unlabelled: int

    @property
    def failures(self) -> pd.DataFrame:
        """Windows left out because their waves are not known, by class; see :func:`failure_table`."""
        return failure_table(self.attempts)

    def region_masks(self) -> np.ndarray:
        """Mark the samples in TransECG's regions, bool, shape (n, n_regions, n_samples)."""
        return np.stack([region_masks(points, self.codes.shape[1]) for points in self.fiducials])


def load_network(workshop: Workshop, job: Job, split: Split) -> Network:
    """Load the network of a job of stage 02 for one of its splits, or train it where no run is cached.

    Raises
    ------
    StudyError
        The job's attacker reads averaged beats, which have no place in a window.
    """
    trainer, auxiliary = workshop.trainer(job.model), workshop.auxiliary(job)
    if trainer.recipe.beats:
        raise StudyError(f"{job.model} reads averaged beats, not windows; explain transecg or resnet1d.")
    if isinstance(job.protocol, CrossCohort):
        model = auxiliary.model
    else:
        validation = None if split.unseen_persons else split.validation
        model = trainer.train(split.train, validation, job.seed, auxiliary)
    return Network(model, {task: tuple(names) for task, names in model.classes.items()}, trainer)


def explain(workshop: Workshop, job: Job, split: Split, network: Network, task: str, most: int) -> Explained:
    """Choose probe windows, label and delineate them.

    Parameters
    ----------
    workshop : Workshop
        Stores and people.
    job : Job
        The attacker.
    split : Split
        One of the splits of the job's protocol.
    network : Network
        From :func:`load_network`.
    task : str
        "person", "sex" or "age_group".
    most : int
        Windows of a person at most, evenly spread over the person's probe segments.

    Raises
    ------
    StudyError
        The network has no such task, or no probe window is left.
    """
    if task not in network.classes:
        raise StudyError(f"{job.name} was not trained for {task}; it knows {', '.join(network.classes)}.")
    signals, n_samples = workshop.signals, network.trainer.n_samples
    chosen = spread_windows(split.probe, n_samples, most, signals.fs)
    classes = {"person": network.classes["person"], task: network.classes[task]}
    goals = targets(chosen[SUBJECT].to_numpy(dtype=str), workshop.people, classes)[task]
    labelled = goals != UNKNOWN
    if not labelled.any():
        unknown = "person class: the network has never seen them" if task == "person" else f"known {task}"
        raise StudyError(f"Nobody on trial in {job.cohort} has a {unknown.replace('_', ' ')}.")
    chosen, goals = chosen[labelled].reset_index(drop=True), goals[labelled]
    fiducials = [window_fiducials(signals, row.record_id, row.start, n_samples) for row in chosen.itertuples()]
    coded = [wave_codes(points, n_samples) for points in fiducials]
    attempts = _attempts(workshop, job.cohort, chosen, [reason for _, reason in coded])
    kept = np.flatnonzero(attempts["reason"].isna())
    if not kept.size:
        raise StudyError(f"No probe window of {job.cohort} could be delineated; look at its failures by class.")
    samples = [
        signals.segment(row.record_id, row.segment_start, row.segment_stop)[row.start - row.segment_start :][:n_samples]
        for row in chosen.iloc[kept].itertuples()
    ]
    return Explained(
        job,
        task,
        network,
        standardise(np.stack(samples))[:, None],
        goals[kept],
        chosen[SUBJECT].to_numpy(dtype=str)[kept],
        chosen[RECORD].to_numpy(dtype=str)[kept],
        chosen["start"].to_numpy()[kept],
        np.stack([coded[row][0] for row in kept]),
        [fiducials[row] for row in kept],
        attempts,
        int((~labelled).sum()),
    )


def spread_windows(segments: pd.DataFrame, length: int, most: int, fs: float) -> pd.DataFrame:
    """Choose up to `most` windows of each person, evenly spread over the person's segments.

    Returns
    -------
    pandas.DataFrame
        One row a window: subject_id, record_id, start (sample in the record), segment_start, segment_stop.
    """
    parts = []
    roomy = segments[segments["stop"] - segments["start"] >= length]
    for _, own in roomy.groupby(SUBJECT):
        each = -(-most // len(own))
        windows = pd.concat([_cut(segment, length, each, fs) for segment in own.itertuples()], ignore_index=True)
        picks = np.unique(np.linspace(0, len(windows) - 1, min(most, len(windows))).round().astype(np.int64))
        parts.append(windows.iloc[picks])
    columns = [SUBJECT, RECORD, "start", "segment_start", "segment_stop"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def _cut(segment: tuple, length: int, most: int, fs: float) -> pd.DataFrame:
    """Evenly spread windows of one segment."""
    room = segment.stop - segment.start - length
    n = int(min(most, room // (LEAST_STRIDE_S * fs) + 1))
    # a single window lies in the middle, where the filters of the record's ends do not reach
    places = np.linspace(0, room, n) if n > 1 else np.array([room / 2])
    return pd.DataFrame(
        {
            SUBJECT: segment.subject_id,
            RECORD: segment.record_id,
            "start": segment.start + places.astype(np.int64),
            "segment_start": segment.start,
            "segment_stop": segment.stop,
        }
    )


def window_fiducials(signals: Signals, record_id: str, start: int, n_samples: int) -> pd.DataFrame:
    """Automatic fiducial points of a window and of the beats around it, in samples from the window's start."""
    margin = round(MARGIN_S * signals.fs)
    return signals.fiducials(record_id, start - margin, start + n_samples + margin) - margin


def _attempts(workshop: Workshop, cohort: str, chosen: pd.DataFrame, reasons: list[str | None]) -> pd.DataFrame:
    """Rows of :attr:`Explained.attempts`; a record that could not be delineated at all keeps its own reason."""
    records = workshop.stores[cohort].records
    undelineated = dict(zip(cohort + "/" + records["record_id"], records["delineation_failure"], strict=True))
    whole = chosen[RECORD].map(without_lead).map(undelineated)
    known = workshop.people.reindex(chosen[SUBJECT])
    reason = pd.Series([str(reason) if reason else None for reason in reasons], index=chosen.index, dtype=object)
    return pd.DataFrame(
        {
            "cohort": cohort,
            "person": chosen[SUBJECT],
            "sex": known["sex"].to_numpy(),
            "age_group": known["age_group"].to_numpy(),
            "record": chosen[RECORD],
            "start": chosen["start"],
            "reason": whole.where(reason.notna() & whole.notna(), reason),
        }
    )


def true_codes(
    cohort: SyntheticCohort, record_id: str, start: int, n_samples: int, fs: float
) -> tuple[np.ndarray, str | None]:
    """Wave codes of a window of the synthetic cohort from its exact boundaries.

    Parameters
    ----------
    cohort : SyntheticCohort
        The generator.
    record_id : str
        Record of the generator, without the cohort's name.
    start, n_samples : int
        The window, in samples at `fs`.
    fs : float
        Sampling rate of the window in Hz.

    Returns
    -------
    tuple
        As :func:`ecgstudy.attribution.waves.wave_codes`.
    """
    points = fiducials_of_boundaries(cohort.boundaries(record_id), fs / cohort.fs, start)
    return wave_codes(points, n_samples)


def cardiologist_codes(
    cohort: LudbCohort, records: np.ndarray, starts: np.ndarray, n_samples: int, fs: float
) -> tuple[np.ndarray, np.ndarray]:
    """Wave codes of LUDB windows from the boundaries that cardiologists drew on lead I.

    Parameters
    ----------
    cohort : LudbCohort
        Where the boundaries are.
    records, starts : numpy.ndarray
        Record (``ludb/name``) and first sample of each window, shape (n,), as :class:`Explained` has them.
    n_samples : int
        Length of a window.
    fs : float
        Sampling rate of the windows in Hz.

    Returns
    -------
    codes : numpy.ndarray
        int8, shape (n, n_samples). The first and last beats of a record are not marked, so compare tables on the
        samples that both sources know: :func:`ecgstudy.attribution.waves.on_common_samples`.
    reasons : numpy.ndarray
        Why a window does not count, or None; shape (n,).
    """
    coded = []
    for record, start in zip(records, starts, strict=True):
        name = without_lead(record).split("/", 1)[1]
        marks = cohort.boundaries(name, IDENTITY_LEAD)
        coded.append(wave_codes(fiducials_of_boundaries(marks, fs / cohort.header(name).fs, start), n_samples))
    return np.stack([codes for codes, _ in coded]), np.array([reason for _, reason in coded], dtype=object)
