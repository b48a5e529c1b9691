"""A cohort of a dozen small records: good ones with beats at known places, and one for each kind of bad input."""

import hashlib
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from ecgstudy.data.base import RECORD_COLUMNS, Cohort, Signal, as_tables
from ecgstudy.errors import RecordError

SECONDS = 10.0
FIRST_BEAT_S = 0.6
RR_S = {
    "good_1a": 0.80,
    "good_1b": 0.85,
    "good_2": 0.95,
    "twin_of_good_2": 0.95,
    "two_persons_a": 1.1,
    "two_persons_b": 1.1,
    "other_leads": 0.97,
}
"""Seconds between beats; other records have 0.9."""
LEADS = {"other_leads": ("MLII", "V1"), "no_beats": ("I",)}
"""Leads of the records that have others than I and II."""
RATES = {"other_leads": 360.0, "slow_rate": 50.0}
"""Sampling rates of the records that have another than 250 Hz."""
_GAUSSIANS = ((-0.16, 0.025, 0.15), (-0.03, 0.009, -0.1), (0.0, 0.011, 1.0), (0.03, 0.009, -0.2), (0.28, 0.045, 0.3))
"""Centre (s, from the R peak), width (s) and height (mV) of P, Q, R, S and T."""


def beat_times(record_id: str) -> np.ndarray:
    """Place of each R peak in seconds."""
    return np.arange(FIRST_BEAT_S, SECONDS - 0.5, RR_S.get(record_id, 0.9))


def waveform(record_id: str, fs: float, n_leads: int) -> np.ndarray:
    """Noise-free beats at :func:`beat_times`, the second lead 0.6 times the first; (n_leads, n_samples) in mV."""
    t = np.arange(round(SECONDS * fs)) / fs
    lead = sum(
        height * np.exp(-0.5 * ((t - beat - centre) / width) ** 2)
        for beat in beat_times(record_id)
        for centre, width, height in _GAUSSIANS
    )
    return (np.array([1.0, 0.6])[:n_leads, None] * lead).astype(np.float32)


class FakeCohort(Cohort):
    """Records whose names say what is planted in them.

    Parameters
    ----------
    root : Path
        A folder that unreadable records claim to lie in; nothing is read from it.
    only : tuple of str
        Keep these records; all unless told.
    """

    name: ClassVar[str] = "fake"
    licence: ClassVar[str] = "MIT"
    how_to_get: ClassVar[str] = "Made by the tests."

    subjects: ClassVar[dict[str, str]] = {
        "good_1a": "p1",
        "good_1b": "p1",
        "good_2": "p2",
        "twin_of_good_2": "p2",
        "two_persons_a": "p3",
        "two_persons_b": "p9",
        "other_leads": "p3",
        "one_flat_lead": "p4",
        "hole_in_lead": "p4",
        "flat": "p5",
        "not_a_number": "p5",
        "saturated": "p6",
        "one_sample": "p6",
        "no_beats": "p7",
        "slow_rate": "p8",
        "unreadable": "p8",
        "not_as_listed": "p8",
    }

    def __init__(self, root: Path, only: tuple[str, ...] = ()) -> None:
        self.root = root
        self.record_ids = only or tuple(self.subjects)

    @cached_property
    def _scan(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        rows = []
        for record_id in self.record_ids:
            fs = RATES.get(record_id, 250.0)
            n_samples = 1 if record_id == "one_sample" else round(SECONDS * fs)
            leads = LEADS.get(record_id, ("I", "II"))
            session = 2 if record_id == "good_1b" else 1
            row = (record_id, self.subjects[record_id], session, 0.0, 40.0, "F", fs, leads, n_samples, "mV")
            rows.append((*row, ("SR", "NORM")))
        failed = [("bad_header", "bad_header.hea", "is empty", "download or export the record again")]
        return as_tables(pd.DataFrame(rows, columns=[*RECORD_COLUMNS, "statements"]), failed)

    def signal(self, record_id: str) -> Signal:
        """Make the samples, with what the record's name says planted in them."""
        fs, leads = RATES.get(record_id, 250.0), LEADS.get(record_id, ("I", "II"))
        values = waveform(record_id, fs, len(leads))
        match record_id:
            case "unreadable":
                raise RecordError(self.root / "unreadable.dat", "is shorter than its header says")
            case "one_flat_lead":
                values[1] = 0.25
            case "hole_in_lead":
                values[:, 500:750] = np.nan
            case "flat":
                values[:] = 0.0
            case "not_a_number":
                values[:] = np.nan
            case "saturated":
                values = np.clip(3 * values, -0.2, 0.35)
            case "one_sample":
                values = values[:, :1]
            case "no_beats":
                # slower than any heart
                t = np.arange(values.shape[1]) / fs
                values = np.sin(2 * np.pi * 0.1 * t)[None].astype(np.float32)
            case "not_as_listed":
                values = values[:, :-10]
        return Signal(values, fs, leads, "mV")

    def digest(self) -> str:
        """SHA-256 over the names: the samples follow from them."""
        return hashlib.sha256(" ".join(self.record_ids).encode()).hexdigest()
