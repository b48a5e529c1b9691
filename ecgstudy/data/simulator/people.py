"""Records of persons: what stays with a person, what sex and age do to it, what drifts, and what activities add.

Published effects (each is a term of :func:`expected`):

======================  =======================================  ===========================================
quantity                effect                                   source
======================  =======================================  ===========================================
heart rate at rest      men 63, women 66 beats/min               ELSA-Brasil (Pinto-Filho et al. 2017, Arq
P duration              men 112, women 108 ms                    Bras Cardiol 109:416; medians of 11,094
PR interval             men 164, women 158 ms                    healthy adults)
QRS duration            men 92, women 86 ms
QTc                     men 410, women 421 ms (Bazett), here
                        407 and 414 (Fridericia at those rates)
frontal QRS axis        women 4 degrees lower on the body
QTc and age             +0.58 ms a year                          Mangoni et al. 2003, Age Ageing 32:326
                                                                 (389, 411, 418 ms at < 30, 30-65, > 65)
PR and age              longer; +0.35 ms a year (size ours)      Modena, J Clin Med 2022 11:3737
QRS axis and age        to the left; 0.5 degrees a year          Levy et al. 1987, J Electrocardiol 20
                        (size ours)                              Suppl:44; J Clin Med 2022 11:3737
QRS voltage and sex     chest leads smaller in women: R 8 %,     Simonson et al. 1960, Circulation 22:598
                        backward (S in V1-V2) 22 % (sizes ours)  (limb leads differ little)
QRS voltage and age     -0.4 % a year until 60                   Simonson 1972, Am J Cardiol 29:64; Nemati
                                                                 et al. 1978, Am Heart J 95:12
T amplitude and sex     25 % greater in men                      Gambill et al. 1995, J Electrocardiol
T amplitude and age     -10 % from 18-39 to 40-59 years,         28:191
                        -15 % from there to 60-79
J point / ST and sex    higher in men                            Macfarlane 2001, J Electrocardiol 34:235
RSA and age             smaller (size ours)                      Umetani et al. 1998, JACC 31:593
======================  =======================================  ===========================================

Standard deviations between persons: HR 9 beats/min, QRS 8 ms, QTc 14 ms
(Women's Health Initiative: Rautaharju et al. 2013, J Electrocardiol), PR 20 ms;
those of amplitude, direction and shape, and all drifts between sessions, are ours.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np
import pandas as pd

from ecgstudy.data.simulator import heart
from ecgstudy.data.simulator.heart import COMPONENT_WAVE, COMPONENTS, DOWER, INDEPENDENT, MAIN, WAVES

REFERENCE_AGE = 50.0
REFERENCE_RATE = 64.5
"""Beats/min at rest, mean of both sexes."""
IDENTITY_WAVES = ("P", "QRS", "T")
LVH_SOKOLOW_MV = 4.3
"""S in V1 + R in V5 of a person with LVH on standard lead vectors, at least (criterion 3.5 mV: Sokolow & Lyon 1949)."""

_AMPLITUDE_SD = np.array([{"P": 0.22, "QRS": 0.22, "ST": 0.30, "T": 0.22}[wave] for wave in COMPONENT_WAVE])
_DIRECTION_SD = np.deg2rad([{"P": 12.0, "QRS": 10.0, "ST": 14.0, "T": 13.0}[wave] for wave in COMPONENT_WAVE])
_EDGE_SD = 0.20
_LARGEST = np.log(2)
_LEAD_SD = 0.10
PLANTED_SPREAD = 2.5
"""Factor on the spread of a planted wave: it alone has to carry what all waves carry in real persons."""
_BACKWARD = np.isin(COMPONENTS, ("S basal", "S terminal"))

FIBRILLATION_FASTER = 20.0
"""Beats/min by which untreated fibrillation exceeds the person's own rate (size ours)."""
_EXERCISE_VARIABILITY = 0.3


class Activity(NamedTuple):
    """Heart rate and noise of one activity, or of a batch of records, (n,) each.

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


class Rows:
    """Arrays with one row a person, a session or a record."""

    def __getitem__(self, rows: slice | np.ndarray) -> Self:
        """Give these rows of every array."""
        return type(self)(**{name: values[rows] for name, values in vars(self).items()})


@dataclass(frozen=True)
class People(Rows, heart.Intervals):
    """A drawn population, (n,) unless said otherwise; rates in beats/min."""

    age: np.ndarray  # years
    female: np.ndarray
    heart_rate: np.ndarray
    rsa: np.ndarray
    amplitude: np.ndarray  # factor on every component, (n, n_components)
    turn: np.ndarray  # rotation vector of every component in radians, (n, n_components, 3)
    edges: np.ndarray  # log factors on the gaps between a component's ends and its wave's, (n, n_components, 2)
    leads: np.ndarray  # lead vectors of the independent leads on this torso, (n, 8, 3)


@dataclass(frozen=True)
class Drift(Rows):
    """What differs between sessions (or records): one row a session."""

    heart_rate: np.ndarray  # offset in beats/min
    gain: np.ndarray  # factor on all waves
    t_gain: np.ndarray  # factor on T
    turn: np.ndarray  # of the whole dipole: electrode position, breathing, posture; (n, 3)
    leads: np.ndarray  # added to the lead vectors, each electrode on its own; (n, 8, 3)


@dataclass(frozen=True)
class Plan(Rows):
    """Who and what each record is, (n,) each: rows in `People` and `Drift`; names of the rest."""

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


def expected(age: np.ndarray, female: np.ndarray) -> dict[str, np.ndarray]:
    """Give the population means by age and sex (1 women, 0 men, 0.5 both): the table at the head of this module."""
    years = age - REFERENCE_AGE
    male = 1 - female
    amplitude = np.ones((len(age), len(COMPONENTS)))
    qrs_age = np.exp(-0.004 * (np.minimum(age, 60) - REFERENCE_AGE))
    qrs, t_wave, st = (wave == COMPONENT_WAVE for wave in ("QRS", "T", "ST"))
    amplitude[:, qrs] = (qrs_age * (1 - 0.08 * female))[:, None]
    amplitude[:, _BACKWARD] = (qrs_age * (1 - 0.22 * female))[:, None]
    amplitude[:, t_wave] = (np.exp(-0.0067 * years) * (1.25 * male + female) / 1.125)[:, None]
    amplitude[:, st] = (1.8 * male + 0.2 * female)[:, None]
    return {
        "heart_rate": 63 * male + 66 * female,
        "rsa": 0.030 * np.exp(-years / 40),
        "pr": 0.164 * male + 0.158 * female + 0.00035 * years,
        "p_duration": 0.112 * male + 0.108 * female,
        "qrs": 0.092 * male + 0.086 * female,
        "qtc": 0.407 * male + 0.414 * female + 0.00058 * years,
        "amplitude": amplitude,  # factor on every component, (n, n_components)
        "axis": np.deg2rad(4 * (female - 0.5) - 0.5 * years),  # turn towards the feet in radians
    }


def draw_people(rng: np.random.Generator, n: int, identity_wave: str | None) -> People:
    """Draw `n` persons, half of them (rounded down) women; the same draws are made whatever `identity_wave` is.

    None: persons differ in everything. "P", "QRS" or "T": only in amplitude, direction and inner shape of that wave's
    components; durations, rates, every other wave and the torso are the population's mean for all, so that not even
    the place of the wave tells persons apart.
    """
    age = np.clip(rng.normal(50, 17, n), 18, 88).round(1)
    female = rng.permutation(np.arange(n) < n // 2)
    z = {name: rng.standard_normal(n) for name in ("heart_rate", "rsa", "pr", "p_duration", "qrs", "qtc", "st_share")}
    component = rng.standard_normal((n, len(COMPONENTS), 6))
    torso = rng.standard_normal((n, *DOWER.shape))
    own = expected(age, female.astype(float))
    everybody = expected(np.full(n, REFERENCE_AGE), np.full(n, 0.5))
    free = identity_wave is None
    varies = np.ones(len(COMPONENTS)) if free else PLANTED_SPREAD * (identity_wave == COMPONENT_WAVE)
    base, spread = (own, 1.0) if free else (everybody, 0.0)
    turn = varies[:, None] * _DIRECTION_SD[:, None] * component[..., 1:4]
    turn[:, COMPONENT_WAVE == "QRS", 2] += own["axis"][:, None] * (varies[COMPONENT_WAVE == "QRS"] > 0)
    edges = _EDGE_SD * varies[:, None] * component[..., 4:6]
    # The R component keeps its place: it is the beat's time zero, so moving it would move P and T for an observer.
    edges[:, MAIN["QRS"]] = 0
    factor = np.exp(np.clip(varies * _AMPLITUDE_SD * component[..., 0], -_LARGEST, _LARGEST))
    return People(
        age=age,
        female=female,
        heart_rate=base["heart_rate"] + spread * 9 * z["heart_rate"],
        rsa=base["rsa"] * np.exp(spread * 0.4 * z["rsa"]),
        pr=np.clip(base["pr"] + spread * 0.020 * z["pr"], 0.120, 0.198),
        p_duration=base["p_duration"] + spread * 0.008 * np.clip(z["p_duration"], -3, 3),
        qrs=base["qrs"] + spread * 0.008 * np.clip(z["qrs"], -3, 3),
        qtc=base["qtc"] + spread * 0.014 * np.clip(z["qtc"], -3, 3),
        qrs_widening=np.zeros(n),
        st_share=0.30 + spread * 0.03 * np.clip(z["st_share"], -2, 2),
        amplitude=np.where(varies > 0, own["amplitude"], everybody["amplitude"]) * factor,
        turn=turn,
        edges=np.clip(edges, -0.5, 0.5),
        leads=DOWER + spread * (_LEAD_SD * np.linalg.norm(DOWER, axis=1, keepdims=True)) * torso,
    )


def draw_drift(rng: np.random.Generator, n: int, heart_rate_sd: float) -> Drift:
    """Draw what differs between `n` sessions; `heart_rate_sd` in beats/min."""
    return Drift(
        heart_rate=heart_rate_sd * np.clip(rng.standard_normal(n), -2.5, 2.5),
        gain=np.exp(0.05 * rng.standard_normal(n)),
        t_gain=np.exp(0.08 * rng.standard_normal(n)),
        turn=np.deg2rad(5.0) * rng.standard_normal((n, 3)),
        leads=0.05 * np.linalg.norm(DOWER, axis=1, keepdims=True) * rng.standard_normal((n, *DOWER.shape)),
    )


def rotate(vectors: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Rotate vectors by rotation vectors (Rodrigues' formula); both (..., 3), radians."""
    angle = np.linalg.norm(turn, axis=-1, keepdims=True)
    axis = turn / np.maximum(angle, 1e-12)
    along = np.sum(axis * vectors, axis=-1, keepdims=True) * axis
    return along + np.cos(angle) * (vectors - along) + np.sin(angle) * np.cross(axis, vectors)


def _lvh_scale(vectors: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Factor on the QRS vectors, shape (n,), that brings S V1 + R V5 to `LVH_SOKOLOW_MV` where it is lower."""
    qrs = np.flatnonzero(COMPONENT_WAVE == "QRS")
    position = np.linspace(0, 1, 101)[None, :, None]
    loop = heart.bump(position, edges[:, None, qrs]) @ vectors[:, qrs]
    v1, v5 = (loop @ DOWER[INDEPENDENT.index(lead)] for lead in ("V1", "V5"))
    return np.maximum(LVH_SOKOLOW_MV / (v5.max(axis=1) - v1.min(axis=1)), 1.0)


def _intervals(people: People, diagnosis: np.ndarray) -> heart.Intervals:
    """Intervals of each record: the person's, changed by the diagnosis."""
    wider = heart.QRS_WIDENING
    widening = np.select([diagnosis == name for name in wider], list(wider.values()), 0.0)
    blocked = np.maximum(people.pr + heart.PR_LENGTHENING, heart.PR_BLOCK)
    pr = np.where(diagnosis == "1AVB", blocked, people.pr)
    return replace(people, pr=pr, qrs=people.qrs + widening, qrs_widening=widening)


def _morphology(people: People, drift: Drift, diagnosis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Edges (n, n_components, 2) and vectors in mV (n, n_components, 3) of each record."""
    index = np.array([heart.DIAGNOSES.index(name) for name in diagnosis])
    # a gap between a component's end and its wave's is scaled: one of 0 stays 0, so components always fill the wave
    edges, factor = heart.EDGES[index], np.exp(people.edges)
    edges = np.stack([edges[..., 0] * factor[..., 0], 1 - (1 - edges[..., 1]) * factor[..., 1]], axis=-1)
    st_set = np.isin(diagnosis, heart.ST_SET_BY_DIAGNOSIS)[:, None] & (COMPONENT_WAVE == "ST")
    amplitude = np.where(st_set, 1.0, people.amplitude)
    vectors = rotate(heart.VECTORS[index] * amplitude[..., None], people.turn)
    lvh = diagnosis == "LVH"
    if lvh.any():
        scale = np.where(lvh, _lvh_scale(vectors, edges), 1.0)
        vectors[:, COMPONENT_WAVE == "QRS"] *= scale[:, None, None]
    vectors *= drift.gain[:, None, None]
    vectors[:, COMPONENT_WAVE == "T"] *= drift.t_gain[:, None, None]
    return edges, rotate(vectors, drift.turn[:, None])


def electrode_noise(
    rng: np.random.Generator, activity: Activity, respiration: np.ndarray, n_samples: int, fs: float
) -> np.ndarray:
    """Noise of the independent leads, float32 (n, n_leads, n_samples) in mV.

    Wander is a wave at the breathing rate and one below 0.15 Hz; movement is a wave at the step rate and its octave;
    each lead has its own size and phase of them. Muscle noise is white.
    """
    n, n_leads = len(respiration), len(INDEPENDENT)
    step = activity.step * rng.uniform(0.9, 1.1, n)
    rates = np.stack([respiration, rng.uniform(0.04, 0.15, n), step, 2 * step], axis=1)
    # A sine and a cosine of independent normal sizes s make a wave of random phase with mean square s^2, and there
    # are two waves of each kind: hence the root of 2.
    sizes = np.stack([activity.wander] * 2 + [activity.movement, activity.movement / 2], axis=1)
    sizes = sizes[:, None, :, None] / np.sqrt(2)
    sizes = (sizes * rng.standard_normal((n, n_leads, 4, 2))).astype(np.float32)
    angle = (2 * np.pi / fs * rates[..., None] * np.arange(n_samples)).astype(np.float32)
    noise = sizes[..., 0] @ np.sin(angle) + sizes[..., 1] @ np.cos(angle)
    white = rng.standard_normal((n, n_leads, n_samples), dtype=np.float32)
    return noise + white * activity.muscle.astype(np.float32)[:, None, None]


def render(
    rng: np.random.Generator, people: People, drift: Drift, plan: Plan, fs: float, n_samples: int, noise: bool = True
) -> Batch:
    """Render the records of a plan; without `noise` of electrodes for comparisons with closed forms."""
    people, drift, n = people[plan.person], drift[plan.drift], len(plan.person)
    activity = Activity(*np.array([ACTIVITIES[name] for name in plan.activity], dtype=float).T)
    fibrillating = plan.rhythm == heart.FIBRILLATION
    rest = np.isnan(activity.heart_rate)
    # In motion a person keeps the distance that the resting rate has from the population's.
    rate = np.where(rest, people.heart_rate, activity.heart_rate + people.heart_rate - REFERENCE_RATE)
    rate = rate + drift.heart_rate + 2 * rng.standard_normal(n) + FIBRILLATION_FASTER * fibrillating
    variability = people.rsa * np.where(rest, 1.0, _EXERCISE_VARIABILITY)
    breathing = activity.breathing * rng.uniform(0.8, 1.2, n)
    beats = heart.beat_times(rng, np.clip(rate, 40, 185), variability, breathing, fibrillating, n_samples / fs)
    timing = heart.place_waves(beats, _intervals(people, plan.diagnosis), fibrillating)
    edges, vectors = _morphology(people, drift, plan.diagnosis)
    dipole = heart.draw_dipole(timing, edges, vectors, fs, n_samples)
    dipole = dipole + heart.fibrillatory_waves(rng, fibrillating, n_samples, fs)
    independent = (people.leads + drift.leads).astype(np.float32) @ dipole
    if noise:
        independent += electrode_noise(rng, activity, breathing, n_samples, fs)
    return Batch(heart.twelve_leads(independent), timing, edges)
