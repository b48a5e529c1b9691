"""A batch of records, from their persons' parameters to twelve leads and exact boundaries."""

from dataclasses import dataclass

import numpy as np

from ecgstudy.data.simulator.leads import DOWER, INDEPENDENT, twelve_leads
from ecgstudy.data.simulator.noise import ACTIVITIES, electrode_noise, fibrillatory_waves
from ecgstudy.data.simulator.people import (
    LVH_SOKOLOW_MV,
    REFERENCE_RATE,
    Drift,
    People,
    rotate,
    shape_edges,
    shape_vectors,
)
from ecgstudy.data.simulator.rhythm import Intervals, Timing, beat_times, place_waves
from ecgstudy.data.simulator.templates import (
    COMPONENT_WAVE,
    DIAGNOSES,
    FIBRILLATION,
    MAIN,
    PR_BLOCK,
    PR_LENGTHENING,
    QRS_WIDENING,
    ST_SET_BY_DIAGNOSIS,
    WAVES,
)
from ecgstudy.data.simulator.waves import bump, draw_dipole

FIBRILLATION_FASTER = 20.0
"""Beats/min by which untreated fibrillation exceeds the person's own rate (size ours)."""
_EXERCISE_VARIABILITY = 0.3


@dataclass(frozen=True)
class Plan:
    """Who and what each record of a batch is; arrays of shape (n,).

    `person` and `drift` are row numbers in :class:`People` and
    :class:`Drift`; `activity`, `rhythm` and `diagnosis` are names.
    """

    person: np.ndarray
    drift: np.ndarray
    activity: np.ndarray
    rhythm: np.ndarray
    diagnosis: np.ndarray


@dataclass(frozen=True)
class Batch:
    """Rendered records.

    Attributes
    ----------
    signals : numpy.ndarray
        float32, shape (n, 12, n_samples), mV.
    timing : Timing
        Beats and waves of each record in seconds.
    edges : numpy.ndarray
        Start and end of every component in its wave, shape (n, n_components, 2).
    """

    signals: np.ndarray
    timing: Timing
    edges: np.ndarray

    def boundaries(self, row: int, fs: float) -> dict[str, np.ndarray]:
        """Whole waves of record `row`: columns beat, wave, onset, peak, offset, in samples, in order of onset."""
        columns: dict[str, list[np.ndarray]] = {name: [] for name in ("beat", "wave", "onset", "peak", "offset")}
        n_samples = self.signals.shape[-1]
        for wave, main in MAIN.items():
            index = WAVES.index(wave)
            onset = self.timing.onset[row, :, index] * fs
            duration = self.timing.duration[row, :, index] * fs
            # NaN (no such wave) compares false and drops out with the waves that the record cuts.
            beat = np.flatnonzero((onset >= 0) & (onset + duration <= n_samples - 1))
            columns["beat"].append(beat)
            columns["wave"].append(np.full(len(beat), wave, dtype=object))
            columns["onset"].append(onset[beat])
            columns["peak"].append(onset[beat] + duration[beat] * self.edges[row, main].mean())
            columns["offset"].append(onset[beat] + duration[beat])
        joined = {name: np.concatenate(parts) for name, parts in columns.items()}
        order = np.argsort(joined["onset"], kind="stable")
        return {name: values[order] for name, values in joined.items()}


def _lvh_scale(vectors: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Factor on the QRS vectors, shape (n,), that brings S V1 + R V5 to `LVH_SOKOLOW_MV` where it is lower."""
    qrs = np.flatnonzero(COMPONENT_WAVE == "QRS")
    position = np.linspace(0, 1, 101)[None, :, None]
    loop = bump(position, edges[:, None, qrs]) @ vectors[:, qrs]
    v1, v5 = (loop @ DOWER[INDEPENDENT.index(lead)] for lead in ("V1", "V5"))
    return np.maximum(LVH_SOKOLOW_MV / (v5.max(axis=1) - v1.min(axis=1)), 1.0)


def _intervals(people: People, plan: Plan) -> Intervals:
    """Intervals of each record: the person's, changed by the diagnosis."""
    own, who = people.traits, plan.person
    widening = np.select([plan.diagnosis == name for name in QRS_WIDENING], list(QRS_WIDENING.values()), 0.0)
    blocked = np.maximum(own.pr[who] + PR_LENGTHENING, PR_BLOCK)
    return Intervals(
        pr=np.where(plan.diagnosis == "1AVB", blocked, own.pr[who]),
        p_duration=own.p_duration[who],
        qrs=own.qrs[who] + widening,
        qtc=own.qtc[who],
        qrs_widening=widening,
        st_share=people.st_share[who],
    )


def _morphology(people: People, drift: Drift, plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Edges (n, n_components, 2) and vectors in mV (n, n_components, 3) of each record."""
    index = np.array([DIAGNOSES.index(name) for name in plan.diagnosis])
    who = plan.person
    edges = shape_edges(index, people.edges[who])
    amplitude = people.traits.amplitude[who]
    amplitude[np.ix_(np.isin(plan.diagnosis, ST_SET_BY_DIAGNOSIS), COMPONENT_WAVE == "ST")] = 1.0
    vectors = shape_vectors(index, amplitude, people.turn[who])
    lvh = plan.diagnosis == "LVH"
    if lvh.any():
        scale = np.where(lvh, _lvh_scale(vectors, edges), 1.0)
        vectors[:, COMPONENT_WAVE == "QRS"] *= scale[:, None, None]
    vectors *= drift.gain[plan.drift, None, None]
    vectors[:, COMPONENT_WAVE == "T"] *= drift.t_gain[plan.drift, None, None]
    return edges, rotate(vectors, drift.turn[plan.drift, None])


def render(
    rng: np.random.Generator, people: People, drift: Drift, plan: Plan, fs: float, n_samples: int, noise: bool = True
) -> Batch:
    """Render a batch of records.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of what differs from record to record.
    people, drift, plan : People, Drift, Plan
        The persons, the sessions, and which of them each record belongs to.
    fs : float
        Sampling rate in Hz.
    n_samples : int
        Samples per record.
    noise : bool
        False leaves the electrodes' noise out, for comparisons with closed forms.

    Returns
    -------
    Batch
        Signals in mV, and the truth about their waves.
    """
    n = len(plan.person)
    activities = [ACTIVITIES[name] for name in plan.activity]
    fibrillating = plan.rhythm == FIBRILLATION
    rest = np.array([activity.heart_rate is None for activity in activities])
    mean_rate = np.array([activity.heart_rate or 0.0 for activity in activities])
    own_rate = people.traits.heart_rate[plan.person]
    # In motion a person keeps the distance that the resting rate has from the population's.
    rate = np.where(rest, own_rate, mean_rate + own_rate - REFERENCE_RATE)
    rate = rate + drift.heart_rate[plan.drift] + 2 * rng.standard_normal(n) + FIBRILLATION_FASTER * fibrillating
    variability = people.traits.rsa[plan.person] * np.where(rest, 1.0, _EXERCISE_VARIABILITY)
    breathing = np.array([activity.breathing for activity in activities]) * rng.uniform(0.8, 1.2, n)
    beats = beat_times(rng, np.clip(rate, 40, 185), variability, breathing, fibrillating, n_samples / fs)
    timing = place_waves(beats, _intervals(people, plan), fibrillating)
    edges, vectors = _morphology(people, drift, plan)
    dipole = draw_dipole(timing, edges, vectors, fs, n_samples)
    dipole = dipole + fibrillatory_waves(rng, fibrillating, n_samples, fs)
    leads = (people.leads[plan.person] + drift.leads[plan.drift]).astype(np.float32)
    independent = leads @ dipole
    if noise:
        independent += electrode_noise(rng, activities, breathing, len(INDEPENDENT), n_samples, fs)
    return Batch(twelve_leads(independent), timing, edges)
