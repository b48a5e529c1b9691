"""From the heart dipole to twelve leads.

Axes of the dipole (Frank): x to the person's left, y to the feet, z to the back.
"""

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


def twelve_leads(independent: np.ndarray) -> np.ndarray:
    """Complete the eight independent leads to the standard twelve.

    Parameters
    ----------
    independent : numpy.ndarray
        Shape (n, 8, n_samples), leads in the order of `INDEPENDENT`.

    Returns
    -------
    numpy.ndarray
        Shape (n, 12, n_samples), leads in the order of `LEADS`, same type and
        unit. Einthoven (III = II - I) and Goldberger (aVR = -(I + II)/2,
        aVL = I - II/2, aVF = II - I/2) hold by construction.
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
