"""Hearts for the tests of de-identification: beats by a formula of their own, and cycle sets with planted traits."""

import numpy as np
import pandas as pd

from ecgstudy.deidentification.cycles import POINTS, CycleSet, Recording


def beating(peaks: np.ndarray, n_samples: int, fs: float) -> np.ndarray:
    """Two leads of an R wave as wide (s) at every rate and a T wave as wide as its interval is long; (2, n_samples)."""
    times = np.arange(n_samples) / fs
    lead = sum(np.exp(-0.5 * ((times - peak) / 0.025) ** 2) for peak in peaks)
    for start, stop in zip(peaks[:-1] + 0.08, peaks[1:] - 0.08, strict=True):
        inside = (times > start) & (times < stop)
        lead[inside] += 0.3 * np.sin(np.pi * (times[inside] - start) / (stop - start)) ** 4
    return np.stack([lead, -0.5 * lead]).astype(np.float32)


def recording(intervals: np.ndarray, fs: float = 250.0) -> Recording:
    """Ten seconds of :func:`beating` at these intervals (s), the first R peak before the record starts."""
    peaks = np.cumsum(intervals) - 1.0
    n_samples = round(10 * fs)
    return Recording(beating(peaks, n_samples, fs), fs, peaks[(peaks >= 0) & (peaks < 10)])


def hearts(n: int = 40, n_leads: int = 2, records_each: int = 1, seed: int = 0) -> CycleSet:
    """Cycles of persons half of whom have a tall T wave, which is their diagnosis; all else of a shape is their own."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(n), records_each)
    place = np.arange(POINTS)
    wave = np.exp(-0.5 * (np.minimum(place, POINTS - place) / 3) ** 2)
    own = rng.standard_normal((n, n_leads, 6)) @ np.sin(np.arange(1, 7)[:, None] * np.pi * place / POINTS)
    tall = (owner % 2 == 0)[:, None, None]
    cycles = wave + 0.1 * own[owner] + tall * np.exp(-0.5 * ((place - 35) / 6) ** 2)
    cycles += 0.01 * rng.standard_normal(cycles.shape)
    rhythm = np.column_stack([rng.uniform(0.6, 1.1, len(owner)), *rng.uniform(0, 0.1, (3, len(owner)))])
    names = {"record_id": [f"r{row}" for row in range(len(owner))], "subject_id": [f"p{person}" for person in owner]}
    about = {"age": 20.0 + owner % 7 * 10, "sex": np.where(owner % 3, "F", "M")}
    diagnoses = np.where(owner % 2, "NORM", "STTC").astype(object)
    table = pd.DataFrame(names | about | {"diagnosis": diagnoses, "rhythm": "SR"})
    return CycleSet(cycles.astype(np.float32), rhythm, table)
