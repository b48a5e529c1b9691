"""What electrodes add to the heart: baseline wander, movement, muscle; and what fibrillating atria add."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Activity:
    """Heart rate and noise of one activity.

    Heart rates beyond rest are the medians of the motion cohort (CTU Prague
    2024); the amplitudes are the authors' choice and were fitted to nothing.

    Attributes
    ----------
    heart_rate : float or None
        Mean in beats/min; None is the person's own resting rate.
    wander, movement, muscle : float
        Root mean square in mV of slow wander, movement artefact and muscle noise.
    step : float
        Rate of the movement in Hz.
    breathing : float
        Mean breathing rate in Hz.
    """

    heart_rate: float | None
    wander: float
    movement: float
    muscle: float
    step: float
    breathing: float


ACTIVITIES = {
    "rest": Activity(None, 0.030, 0.0, 0.008, 1.0, 0.25),
    "arm_movements": Activity(92.0, 0.100, 0.080, 0.040, 0.8, 0.28),
    "walk_4kmh": Activity(109.0, 0.080, 0.060, 0.025, 1.7, 0.32),
    "run_8kmh": Activity(135.0, 0.100, 0.120, 0.035, 2.6, 0.50),
    "squats": Activity(130.0, 0.150, 0.080, 0.035, 0.5, 0.45),
}


def electrode_noise(
    rng: np.random.Generator,
    activities: list[Activity],
    respiration: np.ndarray,
    n_leads: int,
    n_samples: int,
    fs: float,
) -> np.ndarray:
    """Noise of the independent leads.

    Wander is a wave at the breathing rate and one below 0.15 Hz; movement is
    a wave at the step rate and its octave; each lead has its own size and
    phase of them. Muscle noise is white.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    activities : list of Activity
        One a record.
    respiration : numpy.ndarray
        Breathing rate in Hz, shape (n,).
    n_leads, n_samples : int
        Independent leads and samples per record.
    fs : float
        Sampling rate in Hz.

    Returns
    -------
    numpy.ndarray
        float32, shape (n, n_leads, n_samples), mV.
    """
    n = len(activities)
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


def fibrillatory_waves(rng: np.random.Generator, fibrillating: np.ndarray, n_samples: int, fs: float) -> np.ndarray:
    """Dipole of fibrillating atria, 0 in every other record.

    Two waves of 4.5-7.5 Hz (Petrutiu et al. 2007, Europace 9:466: 3-12 Hz)
    whose rates wander, each with its octave; size and direction are drawn
    anew for every record, largest in V1 and the inferior leads.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    fibrillating : numpy.ndarray
        bool, shape (n,).
    n_samples : int
        Samples per record.
    fs : float
        Sampling rate in Hz.

    Returns
    -------
    numpy.ndarray
        float32, shape (n, 3, n_samples), mV.
    """
    n = len(fibrillating)
    size = rng.normal([0.01, 0.03, -0.04], 0.015, (2, n, 3)) * fibrillating[:, None]
    rate = rng.uniform(4.5, 7.5, (n, 1)) + np.array([-0.35, 0.35]) * rng.uniform(0.5, 1, (n, 1))
    wobble, phase = rng.uniform(0.2, 0.6, (n, 2)), rng.uniform(0, 2 * np.pi, (n, 2))
    dipole = np.zeros((n, 3, n_samples), dtype=np.float32)
    rows = np.flatnonzero(fibrillating)
    if not len(rows):
        return dipole
    time = np.arange(n_samples) / fs
    for wave in range(2):
        drift = 0.6 * np.sin(2 * np.pi * wobble[rows, wave, None] * time)
        angle = 2 * np.pi * rate[rows, wave, None] * time + drift + phase[rows, wave, None]
        shape = (np.sin(angle) + 0.35 * np.sin(2 * angle)).astype(np.float32)
        dipole[rows] += size[wave, rows, :, None].astype(np.float32) * shape[:, None]
    return dipole
