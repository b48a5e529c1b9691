"""A batch of records, from their persons' parameters to twelve leads, electrodes' noise and exact boundaries."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ecgstudy.data.simulator import heart
from ecgstudy.data.simulator.heart import COMPONENT_WAVE, DOWER, INDEPENDENT, LEADS, MAIN, WAVES
from ecgstudy.data.simulator.people import LVH_SOKOLOW_MV, REFERENCE_RATE, Drift, People, rotate, shape_edges

FIBRILLATION_FASTER = 20.0
"""Beats/min by which untreated fibrillation exceeds the person's own rate (size ours)."""
_EXERCISE_VARIABILITY = 0.3


@dataclass(frozen=True)
class Activity:
    """Heart rate and noise of one activity.

    Heart rates beyond rest are the medians of the motion cohort (CTU Prague 2024); the amplitudes are the authors'
    choice and were fitted to nothing.
    """

    heart_rate: float | None  # mean in beats/min; None is the person's own resting rate
    wander: float  # root mean square in mV, as the next two
    movement: float
    muscle: float
    step: float  # rate of the movement in Hz
    breathing: float  # mean rate in Hz


ACTIVITIES = {
    "rest": Activity(None, 0.030, 0.0, 0.008, 1.0, 0.25),
    "arm_movements": Activity(92.0, 0.100, 0.080, 0.040, 0.8, 0.28),
    "walk_4kmh": Activity(109.0, 0.080, 0.060, 0.025, 1.7, 0.32),
    "run_8kmh": Activity(135.0, 0.100, 0.120, 0.035, 2.6, 0.50),
    "squats": Activity(130.0, 0.150, 0.080, 0.035, 0.5, 0.45),
}


@dataclass(frozen=True)
class Plan:
    """Who and what each record of a batch is, (n,) each: rows in `People` and `Drift`; names of the rest."""

    person: np.ndarray
    drift: np.ndarray
    activity: np.ndarray
    rhythm: np.ndarray
    diagnosis: np.ndarray


@dataclass(frozen=True)
class Batch:
    """Rendered records (float32 (n, 12, n_samples), mV), the timing of their waves, and their components' edges."""

    signals: np.ndarray
    timing: heart.Timing
    edges: np.ndarray

    def boundaries(self, row: int, fs: float) -> pd.DataFrame:
        """Whole waves of record `row`: columns wave, onset, peak, offset (samples) and beat, in order of onset."""
        index = [WAVES.index(wave) for wave in MAIN]
        onset, duration = (seconds[row][:, index] * fs for seconds in (self.timing.onset, self.timing.duration))
        # NaN (no such wave) compares false and drops out with the waves that the record cuts.
        beat, wave = np.nonzero((onset >= 0) & (onset + duration <= self.signals.shape[-1] - 1))
        order = np.argsort(onset[beat, wave], kind="stable")
        beat, wave = beat[order], wave[order]
        onset, duration = onset[beat, wave], duration[beat, wave]
        peak = onset + duration * self.edges[row, list(MAIN.values())].mean(axis=1)[wave]
        names = np.array(list(MAIN), dtype=object)[wave]
        return pd.DataFrame({"wave": names, "onset": onset, "peak": peak, "offset": onset + duration, "beat": beat})


def _lvh_scale(vectors: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Factor on the QRS vectors, shape (n,), that brings S V1 + R V5 to `LVH_SOKOLOW_MV` where it is lower."""
    qrs = np.flatnonzero(COMPONENT_WAVE == "QRS")
    position = np.linspace(0, 1, 101)[None, :, None]
    loop = heart.bump(position, edges[:, None, qrs]) @ vectors[:, qrs]
    v1, v5 = (loop @ DOWER[INDEPENDENT.index(lead)] for lead in ("V1", "V5"))
    return np.maximum(LVH_SOKOLOW_MV / (v5.max(axis=1) - v1.min(axis=1)), 1.0)


def _intervals(people: People, plan: Plan) -> heart.Intervals:
    """Intervals of each record: the person's, changed by the diagnosis."""
    who, wider = plan.person, heart.QRS_WIDENING
    widening = np.select([plan.diagnosis == name for name in wider], list(wider.values()), 0.0)
    blocked = np.maximum(people.pr[who] + heart.PR_LENGTHENING, heart.PR_BLOCK)
    pr = np.where(plan.diagnosis == "1AVB", blocked, people.pr[who])
    qrs = people.qrs[who] + widening
    return heart.Intervals(pr, people.p_duration[who], qrs, people.qtc[who], widening, people.st_share[who])


def _morphology(people: People, drift: Drift, plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Edges (n, n_components, 2) and vectors in mV (n, n_components, 3) of each record."""
    index = np.array([heart.DIAGNOSES.index(name) for name in plan.diagnosis])
    who = plan.person
    edges = shape_edges(index, people.edges[who])
    amplitude = people.amplitude[who]
    amplitude[np.ix_(np.isin(plan.diagnosis, heart.ST_SET_BY_DIAGNOSIS), COMPONENT_WAVE == "ST")] = 1.0
    vectors = rotate(heart.VECTORS[index] * amplitude[..., None], people.turn[who])
    lvh = plan.diagnosis == "LVH"
    if lvh.any():
        scale = np.where(lvh, _lvh_scale(vectors, edges), 1.0)
        vectors[:, COMPONENT_WAVE == "QRS"] *= scale[:, None, None]
    vectors *= drift.gain[plan.drift, None, None]
    vectors[:, COMPONENT_WAVE == "T"] *= drift.t_gain[plan.drift, None, None]
    return edges, rotate(vectors, drift.turn[plan.drift, None])


def twelve_leads(independent: np.ndarray) -> np.ndarray:
    """Complete the `INDEPENDENT` leads (n, 8, n_samples) to `LEADS` by the laws of Einthoven and Goldberger.

    III = II - I, aVR = -(I + II)/2, aVL = I - II/2, aVF = II - I/2.
    """
    n, _, n_samples = independent.shape
    leads = np.empty((n, len(LEADS), n_samples), dtype=independent.dtype)
    leads[:, :2] = independent[:, :2]
    leads[:, 6:] = independent[:, 2:]
    one, two = independent[:, 0], independent[:, 1]
    np.subtract(two, one, out=leads[:, 2])
    np.multiply(one + two, -0.5, out=leads[:, 3])
    np.subtract(one, two * 0.5, out=leads[:, 4])
    np.subtract(two, one * 0.5, out=leads[:, 5])
    return leads


def electrode_noise(
    rng: np.random.Generator, activities: list[Activity], respiration: np.ndarray, n_samples: int, fs: float
) -> np.ndarray:
    """Noise of the independent leads, float32 (n, n_leads, n_samples) in mV.

    Wander is a wave at the breathing rate and one below 0.15 Hz; movement is a wave at the step rate and its octave;
    each lead has its own size and phase of them. Muscle noise is white.
    """
    n, n_leads = len(activities), len(INDEPENDENT)
    wander, movement, muscle, step = (
        np.array([getattr(activity, name) for activity in activities])
        for name in ("wander", "movement", "muscle", "step")
    )
    step = step * rng.uniform(0.9, 1.1, n)
    rates = np.stack([respiration, rng.uniform(0.04, 0.15, n), step, 2 * step], axis=1)
    # A sine and a cosine of independent normal sizes s make a wave of random phase with mean square s^2, and there
    # are two waves of each kind: hence the root of 2.
    sizes = np.stack([wander, wander, movement, movement / 2], axis=1)[:, None, :, None] / np.sqrt(2)
    sizes = (sizes * rng.standard_normal((n, n_leads, 4, 2))).astype(np.float32)
    angle = (2 * np.pi / fs * rates[..., None] * np.arange(n_samples)).astype(np.float32)
    noise = sizes[..., 0] @ np.sin(angle) + sizes[..., 1] @ np.cos(angle)
    white = rng.standard_normal((n, n_leads, n_samples), dtype=np.float32)
    white *= muscle.astype(np.float32)[:, None, None]
    noise += white
    return noise


def render(
    rng: np.random.Generator, people: People, drift: Drift, plan: Plan, fs: float, n_samples: int, noise: bool = True
) -> Batch:
    """Render a batch of records; without `noise` of electrodes for comparisons with closed forms."""
    n = len(plan.person)
    activities = [ACTIVITIES[name] for name in plan.activity]
    fibrillating = plan.rhythm == heart.FIBRILLATION
    rest = np.array([activity.heart_rate is None for activity in activities])
    mean_rate = np.array([activity.heart_rate or 0.0 for activity in activities])
    own_rate = people.heart_rate[plan.person]
    # In motion a person keeps the distance that the resting rate has from the population's.
    rate = np.where(rest, own_rate, mean_rate + own_rate - REFERENCE_RATE)
    rate = rate + drift.heart_rate[plan.drift] + 2 * rng.standard_normal(n) + FIBRILLATION_FASTER * fibrillating
    variability = people.rsa[plan.person] * np.where(rest, 1.0, _EXERCISE_VARIABILITY)
    breathing = np.array([activity.breathing for activity in activities]) * rng.uniform(0.8, 1.2, n)
    beats = heart.beat_times(rng, np.clip(rate, 40, 185), variability, breathing, fibrillating, n_samples / fs)
    timing = heart.place_waves(beats, _intervals(people, plan), fibrillating)
    edges, vectors = _morphology(people, drift, plan)
    dipole = heart.draw_dipole(timing, edges, vectors, fs, n_samples)
    dipole = dipole + heart.fibrillatory_waves(rng, fibrillating, n_samples, fs)
    leads = (people.leads[plan.person] + drift.leads[plan.drift]).astype(np.float32)
    independent = leads @ dipole
    if noise:
        independent += electrode_noise(rng, activities, breathing, n_samples, fs)
    return Batch(twelve_leads(independent), timing, edges)
