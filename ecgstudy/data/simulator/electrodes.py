"""From the heart dipole to twelve leads, and what electrodes add: baseline wander, movement, muscle.

Axes of the dipole (Frank): x to the person's left, y to the feet, z to the back.
"""

from dataclasses import dataclass

import numpy as np

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
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
"""Lead vectors of `INDEPENDENT`, shape (8, 3): Dower, Machado & Osborne 1980, Clin Cardiol 3:87."""


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
    rng: np.random.Generator,
    activities: list[Activity],
    respiration: np.ndarray,
    n_leads: int,
    n_samples: int,
    fs: float,
) -> np.ndarray:
    """Noise of the independent leads, float32 (n, n_leads, n_samples) in mV.

    Wander is a wave at the breathing rate and one below 0.15 Hz; movement is a wave at the step rate and its octave;
    each lead has its own size and phase of them. Muscle noise is white.
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
