"""Shapes of the waves: which Gaussians make a beat, by diagnosis.

Each wave fills exactly the time between its onset and its offset. A component
takes a part of it, from `start` to `end` (0 = onset, 1 = offset of the wave),
which is `SUPPORT` standard deviations either side of its centre; its vector
is the dipole at its peak in mV. Vectors were set so that the population's
mean beat has the amplitudes of healthy adults (lead II: R about 0.9 mV,
P 0.1 mV, T 0.25 mV; rS in V1, qR in V6, aVR inverted); they were compared
with the mean beats of the healthy LUDB records.
"""

from typing import NamedTuple

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


class Component(NamedTuple):
    """One Gaussian of a beat: its part of the wave and its dipole vector in mV."""

    wave: str
    start: float
    end: float
    vector: tuple[float, float, float]


_NORMAL = {
    "P main": Component("P", 0.0, 1.0, (0.070, 0.062, 0.000)),
    "P right atrium": Component("P", 0.0, 0.7, (0.010, 0.020, -0.035)),
    "P left atrium": Component("P", 0.3, 1.0, (0.025, 0.005, 0.040)),
    "Q septal": Component("QRS", 0.0, 0.44, (-0.16, -0.06, -0.28)),
    "R": Component("QRS", 0.19, 0.71, (1.12, 0.66, 0.10)),
    "R notch": Component("QRS", 0.35, 0.85, (0.10, 0.06, 0.20)),
    "S basal": Component("QRS", 0.45, 0.95, (-0.16, -0.10, 0.50)),
    "S terminal": Component("QRS", 0.60, 1.0, (-0.06, -0.05, 0.06)),
    "ST": Component("ST", 0.0, 1.0, (0.010, 0.006, -0.025)),
    "T main": Component("T", 0.22, 1.0, (0.22, 0.10, -0.08)),
    "T early": Component("T", 0.0, 0.82, (0.16, 0.07, -0.06)),
}

_CHANGES: dict[str, dict[str, Component]] = {
    # Left bundle branch block: slow, leftward and backward, no septal q, broad notched R in V5-V6, discordant ST-T.
    "CLBBB": {
        "Q septal": Component("QRS", 0.0, 0.44, (0.30, 0.10, 0.10)),
        "R": Component("QRS", 0.10, 0.80, (0.75, 0.50, 0.70)),
        "R notch": Component("QRS", 0.45, 0.85, (0.35, 0.10, 0.45)),
        "S basal": Component("QRS", 0.50, 1.0, (0.45, 0.05, 0.55)),
        "S terminal": Component("QRS", 0.60, 1.0, (0.10, -0.05, 0.10)),
        "ST": Component("ST", 0.0, 1.0, (-0.08, -0.03, -0.10)),
        "T main": Component("T", 0.22, 1.0, (-0.22, -0.02, -0.30)),
        "T early": Component("T", 0.0, 0.82, (-0.08, -0.02, -0.10)),
    },
    # Right bundle branch block: normal start, late slow forces to the right and front (rSR' in V1, broad S in I, V6).
    "CRBBB": {
        "Q septal": Component("QRS", 0.0, 0.30, (-0.16, -0.06, -0.28)),
        "R": Component("QRS", 0.25, 0.65, (1.05, 0.80, 0.20)),
        "R notch": Component("QRS", 0.25, 0.60, (0.10, 0.06, 0.20)),
        "S basal": Component("QRS", 0.45, 0.95, (-0.45, -0.10, -0.55)),
        "S terminal": Component("QRS", 0.55, 1.0, (-0.25, -0.05, -0.30)),
        "T main": Component("T", 0.22, 1.0, (0.24, 0.16, 0.06)),
        "T early": Component("T", 0.0, 0.82, (0.07, 0.05, 0.04)),
    },
    # ST/T change: depressed ST segment, flat to inverted T.
    "STTC": {
        "ST": Component("ST", 0.0, 1.0, (-0.10, -0.08, 0.05)),
        "T main": Component("T", 0.22, 1.0, (-0.10, -0.07, 0.04)),
        "T early": Component("T", 0.0, 0.82, (-0.02, -0.02, 0.01)),
    },
    # Voltages of LVH are scaled per person (`people.LVH_SOKOLOW_MV`); here the lateral T flattens.
    "LVH": {"T main": Component("T", 0.22, 1.0, (0.10, 0.12, -0.16))},
}

COMPONENTS = tuple(_NORMAL)
COMPONENT_WAVE = np.array([component.wave for component in _NORMAL.values()])
_BY_DIAGNOSIS = [list((_NORMAL | _CHANGES.get(diagnosis, {})).values()) for diagnosis in DIAGNOSES]

EDGES = np.array([[(c.start, c.end) for c in components] for components in _BY_DIAGNOSIS])
"""Start and end of every component, shape (n_diagnoses, n_components, 2)."""
VECTORS = np.array([[c.vector for c in components] for components in _BY_DIAGNOSIS])
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
