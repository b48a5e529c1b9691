"""When the beats come, and when in the beat each wave begins and ends."""

from dataclasses import dataclass

import numpy as np

from ecgstudy.data.simulator.templates import R_CENTRE, WAVES

FIBRILLATION_RR_CV = 0.22
"""Coefficient of variation of RR in atrial fibrillation (about 0.2-0.25; Tateno & Glass 2001, MBEC 39:664)."""
SHORTEST_RR = 0.36
"""Seconds; the atrioventricular node's refractory period bounds RR in fibrillation."""
PR_PER_BPM = 0.0003
"""Seconds of PR lost per beat/min above 60 (direction: Atterhög & Loogna 1977, J Electrocardiol 10:331; size ours)."""
SHORTEST_PR = 0.105
ST_OVERLAP = (0.25, 0.40)
"""The ST deviation spans the last quarter of QRS to four tenths of T, so that it joins both smoothly."""


@dataclass(frozen=True)
class Intervals:
    """Intervals of a batch of records in seconds, each of shape (n,); `st_share` is the ST segment's share of JT."""

    pr: np.ndarray
    p_duration: np.ndarray
    qrs: np.ndarray
    qtc: np.ndarray
    qrs_widening: np.ndarray
    st_share: np.ndarray


@dataclass(frozen=True)
class Timing:
    """Beats of a batch of records, in seconds from the first sample.

    Attributes
    ----------
    beats : numpy.ndarray
        Time of the R component's centre, shape (n, n_beats); beats before the first and after the last sample included.
    onset, duration : numpy.ndarray
        Of each of `WAVES`, shape (n, n_beats, 4); NaN where the beat lacks the wave.
    """

    beats: np.ndarray
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
    """Beat times of a batch of records, from one beat before the first sample to after the last.

    Sinus rhythm: RR follows respiration (respiratory sinus arrhythmia) and a
    0.1 Hz wave at half its size, the two bands of McSharry et al. 2003, plus
    a small independent part. Fibrillation: independent gamma-distributed RR.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    heart_rate, variability, respiration : numpy.ndarray
        Mean rate (beats/min), amplitude of the respiratory arrhythmia (share
        of RR), breathing rate (Hz); shape (n,).
    fibrillating : numpy.ndarray
        bool, shape (n,).
    seconds : float
        Length of the records.

    Returns
    -------
    numpy.ndarray
        Shape (n, n_beats), seconds.
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
    """Place P, QRS, ST and T of every beat.

    QRS keeps its duration at any rate; QT = QTc * RR^(1/3) (Fridericia 1920),
    with RR mostly the record's mean, since QT follows the rate slowly; PR
    shortens a little with rate. A widened QRS keeps its JT interval.

    Parameters
    ----------
    beats : numpy.ndarray
        Beat times, shape (n, n_beats), seconds.
    intervals : Intervals
        Of each record, shape (n,) each.
    fibrillating : numpy.ndarray
        bool, shape (n,); these records have no P wave.

    Returns
    -------
    Timing
        Onsets and durations of the waves.
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
    onset = {"P": p_onset, "QRS": qrs_onset, "ST": st_onset, "T": t_onset}
    duration = {"P": p_duration, "QRS": qrs, "ST": st_duration, "T": t_duration}
    return Timing(
        beats, np.stack([onset[wave] for wave in WAVES], -1), np.stack([duration[wave] for wave in WAVES], -1)
    )
