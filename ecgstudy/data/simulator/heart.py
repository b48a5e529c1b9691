"""The heart: which Gaussians make a beat, when beats and waves come, the dipole they draw and how twelve leads see it.

Each wave fills exactly the time between its onset and its offset. A component takes a part of it, from `start` to
`end` (0 = onset, 1 = offset of the wave), which is `SUPPORT` standard deviations either side of its centre; its vector
is the dipole at its peak in mV. Vectors were set so that the population's mean beat has the amplitudes of healthy
adults (lead II: R about 0.9 mV, P 0.1 mV, T 0.25 mV; rS in V1, qR in V6, aVR inverted); they were compared with the
mean beats of the healthy LUDB records.
"""

from dataclasses import dataclass

import numpy as np

SUPPORT = 2.5
"""Half-width of a component in standard deviations; it is exactly 0 outside."""

WAVES = ("P", "QRS", "ST", "T")
"""Parts of a beat; ST (the segment's deviation) is no wave and has no boundaries of its own."""

SINUS_RHYTHM, FIBRILLATION = "SR", "AFIB"
NORMAL = "NORM"
DIAGNOSES = (NORMAL, "1AVB", "LVH", "STTC", "CLBBB", "CRBBB")
"""SCP-ECG statement codes, as PTB-XL writes them."""
CONDITIONS = (FIBRILLATION, *DIAGNOSES[1:])
"""What a share of the persons can have; everybody else is NORM in sinus rhythm."""

R_CENTRE = 0.45
"""Place of the R component in the QRS complex: the beat's time zero."""


# A component: its part of the wave (start, end) and its dipole vector in mV.
_NORMAL = {
    "P main": ("P", 0.0, 1.0, 0.070, 0.062, 0.000),
    "P right atrium": ("P", 0.0, 0.7, 0.010, 0.020, -0.035),
    "P left atrium": ("P", 0.3, 1.0, 0.025, 0.005, 0.040),
    "Q septal": ("QRS", 0.0, 0.44, -0.16, -0.06, -0.28),
    "R": ("QRS", 0.19, 0.71, 1.12, 0.66, 0.10),
    "R notch": ("QRS", 0.35, 0.85, 0.10, 0.06, 0.20),
    "S basal": ("QRS", 0.45, 0.95, -0.16, -0.10, 0.50),
    "S terminal": ("QRS", 0.60, 1.0, -0.06, -0.05, 0.06),
    "ST": ("ST", 0.0, 1.0, 0.010, 0.006, -0.025),
    "T main": ("T", 0.22, 1.0, 0.22, 0.10, -0.08),
    "T early": ("T", 0.0, 0.82, 0.16, 0.07, -0.06),
}

_CHANGES = {
    # Left bundle branch block: slow, leftward and backward, no septal q, broad notched R in V5-V6, discordant ST-T.
    "CLBBB": {
        "Q septal": ("QRS", 0.0, 0.44, 0.30, 0.10, 0.10),
        "R": ("QRS", 0.10, 0.80, 0.75, 0.50, 0.70),
        "R notch": ("QRS", 0.45, 0.85, 0.35, 0.10, 0.45),
        "S basal": ("QRS", 0.50, 1.0, 0.45, 0.05, 0.55),
        "S terminal": ("QRS", 0.60, 1.0, 0.10, -0.05, 0.10),
        "ST": ("ST", 0.0, 1.0, -0.08, -0.03, -0.10),
        "T main": ("T", 0.22, 1.0, -0.22, -0.02, -0.30),
        "T early": ("T", 0.0, 0.82, -0.08, -0.02, -0.10),
    },
    # Right bundle branch block: normal start, late slow forces to the right and front (rSR' in V1, broad S in I, V6).
    "CRBBB": {
        "Q septal": ("QRS", 0.0, 0.30, -0.16, -0.06, -0.28),
        "R": ("QRS", 0.25, 0.65, 1.05, 0.80, 0.20),
        "R notch": ("QRS", 0.25, 0.60, 0.10, 0.06, 0.20),
        "S basal": ("QRS", 0.45, 0.95, -0.45, -0.10, -0.55),
        "S terminal": ("QRS", 0.55, 1.0, -0.25, -0.05, -0.30),
        "T main": ("T", 0.22, 1.0, 0.24, 0.16, 0.06),
        "T early": ("T", 0.0, 0.82, 0.07, 0.05, 0.04),
    },
    # ST/T change: depressed ST segment, flat to inverted T.
    "STTC": {
        "ST": ("ST", 0.0, 1.0, -0.10, -0.08, 0.05),
        "T main": ("T", 0.22, 1.0, -0.10, -0.07, 0.04),
        "T early": ("T", 0.0, 0.82, -0.02, -0.02, 0.01),
    },
    # Voltages of LVH are scaled per person (`people.LVH_SOKOLOW_MV`); here the lateral T flattens.
    "LVH": {"T main": ("T", 0.22, 1.0, 0.10, 0.12, -0.16)},
}

COMPONENTS = tuple(_NORMAL)
COMPONENT_WAVE = np.array([wave for wave, *_ in _NORMAL.values()])
_BY_DIAGNOSIS = [list((_NORMAL | _CHANGES.get(diagnosis, {})).values()) for diagnosis in DIAGNOSES]

EDGES = np.array([[c[1:3] for c in components] for components in _BY_DIAGNOSIS])
"""Start and end of every component, shape (n_diagnoses, n_components, 2)."""
VECTORS = np.array([[c[3:] for c in components] for components in _BY_DIAGNOSIS])
"""Dipole vector of every component in mV, shape (n_diagnoses, n_components, 3)."""

MAIN = {"P": COMPONENTS.index("P main"), "QRS": COMPONENTS.index("R"), "T": COMPONENTS.index("T main")}
"""The component whose centre is called the wave's peak."""

ST_SET_BY_DIAGNOSIS = ("CLBBB", "STTC")
"""Diagnoses whose ST deviation is pathological, so that sex has no part in its size."""
QRS_WIDENING = {"CLBBB": 0.060, "CRBBB": 0.055}
"""Seconds added to the QRS duration (120 ms or more: Surawicz et al. 2009, Circulation 119:e235)."""
PR_LENGTHENING = 0.070
"""Seconds added to the PR interval in 1AVB, which then is at least `PR_BLOCK`."""
PR_BLOCK = 0.215

INDEPENDENT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
"""Leads that are measured; the other four follow from I and II by Kirchhoff's law."""

DOWER = np.array(
    [
        [0.632, -0.235, 0.059],
        [0.235, 1.066, -0.132],
        [-0.515, 0.157, -0.917],
        [0.044, 0.164, -1.387],
        [0.882, 0.098, -1.277],
        [1.213, 0.127, -0.601],
        [1.125, 0.127, -0.086],
        [0.831, 0.076, 0.230],
    ]
)
"""Lead vectors of `INDEPENDENT`, (8, 3), on axes to the left, to the feet and to the back (Frank's).

Dower, Machado & Osborne 1980, Clin Cardiol 3:87.
"""

FIBRILLATION_RR_CV = 0.22
"""Coefficient of variation of RR in atrial fibrillation (about 0.2-0.25; Tateno & Glass 2001, MBEC 39:664)."""
SHORTEST_RR = 0.36
"""Seconds; the atrioventricular node's refractory period bounds RR in fibrillation."""
PR_PER_BPM = 0.0003
"""Seconds of PR lost per beat/min above 60 (direction: Atterhög & Loogna 1977, J Electrocardiol 10:331; size ours)."""
SHORTEST_PR = 0.105
ST_OVERLAP = (0.25, 0.40)
"""The ST deviation spans the last quarter of QRS to four tenths of T, so that it joins both smoothly."""

_FLOOR = np.float32(np.exp(-(SUPPORT**2) / 2))


@dataclass(frozen=True)
class Intervals:
    """Intervals of a batch of records in seconds, (n,) each; `st_share` is the ST segment's share of JT."""

    pr: np.ndarray
    p_duration: np.ndarray
    qrs: np.ndarray
    qtc: np.ndarray
    qrs_widening: np.ndarray
    st_share: np.ndarray


@dataclass(frozen=True)
class Timing:
    """Onset and duration of each of `WAVES` of every beat of a batch of records, (n, n_beats, 4) each.

    In seconds from the first sample; beats before it and after the last one are included, NaN where there is no wave.
    """

    onset: np.ndarray
    duration: np.ndarray


def beat_times(
    rng: np.random.Generator,
    heart_rate: np.ndarray,
    variability: np.ndarray,
    respiration: np.ndarray,
    fibrillating: np.ndarray,
    seconds: float,
) -> np.ndarray:
    """Beat times (n, n_beats) in seconds, from one beat before the first sample to after the last.

    Sinus rhythm: RR follows respiration (respiratory sinus arrhythmia) and a 0.1 Hz wave at half its size, the two
    bands of McSharry et al. 2003, plus a small independent part. Fibrillation: independent gamma-distributed RR.
    """
    mean = 60 / heart_rate[:, None]
    n, n_beats = len(mean), int(np.ceil(1.35 * (seconds + 1) / mean.min())) + 4
    phase = rng.uniform(0, 2 * np.pi, (2, n, 1))
    moment = np.arange(n_beats) * mean
    respiratory = np.sin(2 * np.pi * respiration[:, None] * moment + phase[0])
    slow = np.sin(2 * np.pi * 0.1 * moment + phase[1])
    sinus = 1 + variability[:, None] * (respiratory + 0.5 * slow + 0.2 * rng.standard_normal((n, n_beats)))
    shape = FIBRILLATION_RR_CV**-2
    irregular = np.maximum(rng.gamma(shape, 1 / shape, (n, n_beats)) * mean, SHORTEST_RR) / mean
    rr = mean * np.where(fibrillating[:, None], irregular, sinus)
    start = -mean * (1 + rng.uniform(0, 1, (n, 1)))
    return start + np.cumsum(rr, axis=1) - rr[:, :1]


def place_waves(beats: np.ndarray, intervals: Intervals, fibrillating: np.ndarray) -> Timing:
    """Place P, QRS, ST and T of every beat; fibrillating records have no P wave.

    QRS keeps its duration at any rate; QT = QTc * RR^(1/3) (Fridericia 1920), with RR mostly the record's mean, since
    QT follows the rate slowly; PR shortens a little with rate. A widened QRS keeps its JT interval.
    """
    rr = np.diff(beats, axis=1, prepend=2 * beats[:, :1] - beats[:, 1:2])
    mean = rr.mean(axis=1, keepdims=True)
    qrs = np.broadcast_to(intervals.qrs[:, None], beats.shape)
    qrs_onset = beats - R_CENTRE * qrs
    qt = intervals.qtc[:, None] * np.cbrt(0.75 * mean + 0.25 * rr) + intervals.qrs_widening[:, None]
    jt = qt - qrs
    t_duration = (1 - intervals.st_share[:, None]) * jt
    t_onset = qrs_onset + qt - t_duration
    shortening = PR_PER_BPM * np.maximum(60 / mean - 60, 0)
    pr = np.broadcast_to(np.maximum(intervals.pr[:, None] - shortening, SHORTEST_PR), beats.shape)
    p_onset = np.where(fibrillating[:, None], np.nan, qrs_onset - pr)
    p_duration = np.minimum(intervals.p_duration[:, None], pr - 0.010)
    st_onset = qrs_onset + qrs * (1 - ST_OVERLAP[0])
    st_duration = t_onset + ST_OVERLAP[1] * t_duration - st_onset
    onsets, durations = (p_onset, qrs_onset, st_onset, t_onset), (p_duration, qrs, st_duration, t_duration)
    return Timing(np.stack(onsets, -1), np.stack(durations, -1))


def bump(position: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Gaussian of a place in the wave (0 onset, 1 offset), lowered so that it is exactly 0 at and outside its edges.

    ``(exp(-z^2/2) - exp(-k^2/2)) / (1 - exp(-k^2/2))`` for ``|z| < k``, with z in standard deviations from the centre
    and k = `SUPPORT`: the onset and offset given as truth are the exact ends of the wave.
    """
    start, end = edges[..., 0], edges[..., 1]
    z = (position - (start + end) / 2) * (2 * SUPPORT / (end - start))
    shifted = np.exp(np.float32(-0.5) * z * z) - _FLOOR
    return np.maximum(shifted, 0) / (1 - _FLOOR)


def draw_dipole(timing: Timing, edges: np.ndarray, vectors: np.ndarray, fs: float, n_samples: int) -> np.ndarray:
    """Heart dipole, float32 (n, 3, n_samples) in mV, from `edges` (n, n_components, 2) and `vectors` (.., 3) in mV."""
    n = len(edges)
    dipole = np.zeros((3, n, n_samples), dtype=np.float32)
    edges, vectors = edges.astype(np.float32), vectors.astype(np.float32)
    for index, wave in enumerate(WAVES):
        members = np.flatnonzero(wave == COMPONENT_WAVE)
        onset, duration = timing.onset[..., index, None], timing.duration[..., index, None]
        # An absent wave starts after the last sample, so nothing of it is inside.
        first = np.where(np.isnan(onset), n_samples, np.ceil(onset * fs)).astype(np.int64)
        sample = first + np.arange(int(np.ceil(np.nanmax(duration) * fs)) + 1)
        position = ((sample / fs - onset) / duration).astype(np.float32)
        record, beat, column = np.nonzero((sample >= 0) & (sample < n_samples) & (position <= 1))
        value = bump(position[record, beat, column][:, None], edges[:, members][record])
        moment = np.einsum("sc,scx->xs", value, vectors[:, members][record])
        # Successive waves may overlap at high rates, hence a summing scatter, not an assignment.
        target = record * n_samples + sample[record, beat, column]
        for axis in range(3):
            dipole[axis] += np.bincount(target, weights=moment[axis], minlength=n * n_samples).reshape(n, n_samples)
    return dipole.transpose(1, 0, 2)


def fibrillatory_waves(rng: np.random.Generator, fibrillating: np.ndarray, n_samples: int, fs: float) -> np.ndarray:
    """Dipole of fibrillating atria, float32 (n, 3, n_samples) in mV, 0 in every other record.

    Two waves of 4.5-7.5 Hz (Petrutiu et al. 2007, Europace 9:466: 3-12 Hz) whose rates wander, each with its octave;
    size and direction are drawn anew for every record, largest in V1 and the inferior leads.
    """
    n = len(fibrillating)
    size = rng.normal([0.01, 0.03, -0.04], 0.015, (2, n, 3)) * fibrillating[:, None]
    rate = rng.uniform(4.5, 7.5, (n, 1)) + np.array([-0.35, 0.35]) * rng.uniform(0.5, 1, (n, 1))
    wobble, phase = rng.uniform(0.2, 0.6, (n, 2)), rng.uniform(0, 2 * np.pi, (n, 2))
    dipole = np.zeros((n, 3, n_samples), dtype=np.float32)
    rows = np.flatnonzero(fibrillating)
    time = np.arange(n_samples) / fs
    for wave in range(2):
        drift = 0.6 * np.sin(2 * np.pi * wobble[rows, wave, None] * time)
        angle = 2 * np.pi * rate[rows, wave, None] * time + drift + phase[rows, wave, None]
        shape = (np.sin(angle) + 0.35 * np.sin(2 * angle)).astype(np.float32)
        dipole[rows] += size[wave, rows, :, None].astype(np.float32) * shape[:, None]
    return dipole


def twelve_leads(independent: np.ndarray) -> np.ndarray:
    """Complete the `INDEPENDENT` leads (n, 8, n_samples) to twelve by the laws of Einthoven and Goldberger."""
    one, two = independent[:, 0], independent[:, 1]
    limbs = np.stack([one, two, two - one, -0.5 * (one + two), one - two * 0.5, two - one * 0.5], axis=1)
    return np.concatenate([limbs, independent[:, 2:]], axis=1)
