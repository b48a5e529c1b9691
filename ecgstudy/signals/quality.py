"""Quality control: which leads, records and windows cannot be used, each with its reason.

The reasons are a closed vocabulary (:class:`Problem`); the thresholds below
were set on every record of ECG-ID, LUDB, MIT-BIH, the motion set and a
PTB-XL subset, so that no ordinary lead of theirs is lost.
"""

from enum import StrEnum

import numpy as np

from ecgstudy.data.base import Signal
from ecgstudy.signals.preprocess import LONGEST_BRIDGED_GAP_S, fill_gaps, run_lengths

MISSING_SHARE = 0.1
"""A lead with more than this share of its samples in gaps too long to bridge is not a number."""
FLAT_SHARE_LEAD = 0.5
"""A lead of which at least this share is flat is flat: the rest is too little to stand for it."""
FLAT_SHARE_WINDOW = 0.25
"""The same for a window, which can be left out alone and is therefore held to more."""
FLAT_RELATIVE = 0.01
"""A second is flat when it spans less than this part of what the lead's livelier seconds span."""
FLAT_MV = 0.01
"""A second that spans less than this many mV is flat whatever the rest of the lead does."""
FLAT_ANY_UNIT = 1e-6
"""The same in whatever unit the lead has, to allow for rounding."""
SATURATED_SHARE = 0.01
"""A lead with at least this share of its samples clipped is saturated."""
SLOWEST_RATE_BPM = 20.0
"""A record with fewer beats than this a minute has no beats to work with."""

_BLOCK_S = 1.0
_SHORTEST_CLIP = 3
_CLIP_STEP_QUANTA = 3.0
_RAIL_SLACK = 0.005
_RAIL_JUMP = 0.1
# Robust against a quarter of the seconds being artefacts, or three quarters being dead.
_LIVELY_QUANTILE = 0.75


class Problem(StrEnum):
    """Why a lead, a record or a window is left out."""

    FLAT = "flat"
    SATURATED = "saturated"
    NOT_A_NUMBER = "not a number"
    TOO_SHORT = "too short"
    NO_BEATS = "no beats"
    UNREADABLE = "unreadable"
    DUPLICATE = "same waveform as another person"


REMEDIES = {
    Problem.FLAT: "check its electrodes and the gain in its header, or remove it",
    Problem.SATURATED: "check the amplifier's range, or remove it",
    Problem.NOT_A_NUMBER: "export it again with its samples, or remove it",
    Problem.TOO_SHORT: "bring a longer recording, or remove it",
    Problem.NO_BEATS: "check its lead and the sampling rate in its header, or remove it",
    Problem.DUPLICATE: "correct the person, or remove the copies",
}
"""What a reader can do about a record left out for such a reason; unreadable files each say it themselves."""


def block_spans(values: np.ndarray, fs: float) -> np.ndarray:
    """Peak-to-peak amplitude of each second.

    values : (..., n_samples) -> (..., n_blocks); a remainder shorter than a
    second is covered by a last block that ends with the signal.
    """
    n_samples = values.shape[-1]
    length = max(1, min(n_samples, round(_BLOCK_S * fs)))
    whole = n_samples // length
    blocks = values[..., : whole * length].reshape(*values.shape[:-1], whole, length)
    spans = np.ptp(blocks, axis=-1)
    if whole * length < n_samples:
        spans = np.concatenate([spans, np.ptp(values[..., -length:], axis=-1, keepdims=True)], axis=-1)
    return spans


def _plateau_share(values: np.ndarray, slack: float, jump: float) -> float:
    """Share of a lead's samples in plateaus within `slack` of its highest or lowest value.

    A plateau is at least three samples long, and the lead changes by `jump`
    or more from one sample to the next as it enters or leaves it.
    """
    steps = np.abs(np.diff(values))
    clipped = 0
    for at_extreme in (values >= values.max() - slack, values <= values.min() + slack):
        if np.count_nonzero(at_extreme) < SATURATED_SHARE * values.size / 2:
            continue
        edges = np.flatnonzero(np.diff(at_extreme, prepend=False, append=False))
        starts, stops = edges[::2], edges[1::2]
        into = np.where(starts > 0, steps[np.maximum(starts - 1, 0)], 0)
        out_of = np.where(stops < values.size, steps[np.minimum(stops - 1, steps.size - 1)], 0)
        lengths = stops - starts
        clipped += int(lengths[(np.maximum(into, out_of) >= jump) & (lengths >= _SHORTEST_CLIP)].sum())
    return clipped / values.size


def _clipped_share(values: np.ndarray) -> float:
    """Share of a lead's samples that are clipped, exactly or on a noisy rail.

    Exact plateaus must be left by three quantisation steps at once: the
    isoelectric line of a coarsely quantised lead also stays at the lowest
    value, but comes and goes in single steps. Plateaus with jitter must be
    left by a tenth of the lead's span at once, which no wave does.
    """
    steps = np.abs(np.diff(values))
    moving = steps[steps > 0]
    if moving.size == 0:
        return 0.0
    span = float(np.ptp(values))
    exact = _plateau_share(values, 0.0, _CLIP_STEP_QUANTA * float(moving.min()))
    return max(exact, _plateau_share(values, _RAIL_SLACK * span, _RAIL_JUMP * span))


def _may_be_clipped(values: np.ndarray) -> np.ndarray:
    """Cheap first look, all leads at once: enough samples near an extreme to be worth :func:`_clipped_share`.

    values : (..., n_samples) -> bool (...,). A lead with NaN gives False.
    """
    highest, lowest = values.max(axis=-1, keepdims=True), values.min(axis=-1, keepdims=True)
    slack = _RAIL_SLACK * (highest - lowest)
    return ((values >= highest - slack) | (values <= lowest + slack)).mean(axis=-1) >= SATURATED_SHARE


def lead_problems(signal: Signal) -> dict[str, str]:
    """Leads of a record that cannot be used, and why.

    Call it on the record as read: a filter rounds off the plateaus of a
    clipped lead and hides them.

    Parameters
    ----------
    signal : Signal
        A record, before filtering.

    Returns
    -------
    dict of str to str
        Lead name -> the first :class:`Problem` found, in the order too short
        (less than a second), not a number, flat, saturated.
    """
    if signal.values.shape[-1] < _BLOCK_S * signal.fs:
        return dict.fromkeys(signal.leads, Problem.TOO_SHORT)
    filled, missing = fill_gaps(signal.values)
    lost = (run_lengths(missing) > LONGEST_BRIDGED_GAP_S * signal.fs).mean(axis=-1)
    spans = block_spans(filled, signal.fs)
    floor = FLAT_MV if signal.unit == "mV" else FLAT_ANY_UNIT
    threshold = np.maximum(FLAT_RELATIVE * np.quantile(spans, _LIVELY_QUANTILE, axis=-1), floor)
    flat = (spans <= threshold[:, None]).mean(axis=-1)
    suspects = _may_be_clipped(filled)
    problems: dict[str, str] = {}
    for row, lead in enumerate(signal.leads):
        if lost[row] > MISSING_SHARE:
            problems[lead] = Problem.NOT_A_NUMBER
        elif flat[row] >= FLAT_SHARE_LEAD:
            problems[lead] = Problem.FLAT
        elif suspects[row] and _clipped_share(filled[row]) >= SATURATED_SHARE:
            problems[lead] = Problem.SATURATED
    return problems


def record_problem(signal: Signal, min_seconds: float) -> str | None:
    """Why a whole record cannot be used; None where at least one lead can.

    Parameters
    ----------
    signal : Signal
        A record as read, with the leads that are wanted.
    min_seconds : float
        Shortest useful duration in seconds.

    Returns
    -------
    str or None
        "too short", else, when every lead has a problem, the commonest one.
    """
    if signal.values.shape[-1] < min_seconds * signal.fs:
        return Problem.TOO_SHORT
    reasons = list(lead_problems(signal).values())
    if len(reasons) < len(signal.leads):
        return None
    return max(reasons, key=reasons.count)


def beat_problem(r_peaks: np.ndarray, seconds: float) -> str | None:
    """Tell whether a record has too few beats to work with.

    Parameters
    ----------
    r_peaks : numpy.ndarray
        R peaks found (any unit of time; only their number counts).
    seconds : float
        Duration they were searched in.

    Returns
    -------
    str or None
        "no beats" below 20 beats a minute, else None.
    """
    return Problem.NO_BEATS if len(r_peaks) * 60 < SLOWEST_RATE_BPM * seconds else None


def window_problems(windows: np.ndarray, fs: float) -> np.ndarray:
    """Why each window of one record cannot be used.

    Parameters
    ----------
    windows : numpy.ndarray
        Shape (n_windows, n_leads, n_samples), all cut from the same record:
        what counts as flat is measured against the record's other windows.
    fs : float
        Sampling rate in Hz.

    Returns
    -------
    numpy.ndarray
        object, shape (n_windows,): a :class:`Problem` (that of the worst
        lead, in the order not a number, flat, saturated) or None. Plateaus
        show only in windows that were not filtered.
    """
    problems = np.full(len(windows), None, dtype=object)
    if windows.size == 0:
        return problems
    broken = ~np.isfinite(windows).all(axis=(1, 2))
    spans = block_spans(np.where(broken[:, None, None], 0, windows), fs)
    intact = spans[~broken].swapaxes(0, 1).reshape(windows.shape[1], -1)
    if intact.size:
        threshold = np.maximum(FLAT_RELATIVE * np.quantile(intact, _LIVELY_QUANTILE, axis=-1), FLAT_ANY_UNIT)
        flat = ((spans <= threshold[:, None]).mean(axis=-1) >= FLAT_SHARE_WINDOW).any(axis=1)
        problems[flat] = Problem.FLAT
    problems[broken] = Problem.NOT_A_NUMBER
    for index, row in np.argwhere(_may_be_clipped(windows)):
        if problems[index] is None and _clipped_share(windows[index, row]) >= SATURATED_SHARE:
            problems[index] = Problem.SATURATED
    return problems
