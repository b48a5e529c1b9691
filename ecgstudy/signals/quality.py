"""Quality control: which records, leads and stretches of a lead cannot be used, each with its reason.

The thresholds were set on every record of ECG-ID, LUDB, MIT-BIH, the motion set and a PTB-XL subset, so that no
ordinary lead of theirs is lost.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum

import numpy as np
from scipy.ndimage import maximum_filter1d, minimum_filter1d

from ecgstudy.data.base import Signal
from ecgstudy.signals.preprocess import LONGEST_BRIDGED_GAP_S, fill_gaps, runs

MISSING_SHARE = 0.1
"""A lead with more than this share of its samples in gaps too long to bridge is not a number."""
FLAT_SHARE_LEAD = 0.5
"""A lead of which at least this share is flat is flat: the rest is too little to stand for it."""
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
    """Why a record, a lead or a stretch of one is left out."""

    FLAT = "flat"
    SATURATED = "saturated"
    NOT_A_NUMBER = "not a number"
    TOO_SHORT = "too short"
    NO_BEATS = "no beats"
    UNREADABLE = "unreadable"
    DUPLICATE = "same waveform as another person"
    COPY = "copy of another record"
    ELSEWHERE = "person of another folder"
    GAP = "gap in time"


REMEDIES = {
    Problem.FLAT: "check its electrodes and the gain in its header, or remove it",
    Problem.SATURATED: "check the amplifier's range, or remove it",
    Problem.NOT_A_NUMBER: "export it again with its samples, or remove it",
    Problem.TOO_SHORT: "bring a longer recording, or remove it",
    Problem.NO_BEATS: "check its lead and the sampling rate in its header, or remove it",
    Problem.DUPLICATE: "correct the person, or remove the copies",
    Problem.COPY: "the other one takes part",
    Problem.ELSEWHERE: "put all records of a person into one folder",
}
"""What a reader can do about a record left out for such a reason; unreadable files each say it themselves."""


def block_spans(values: np.ndarray, fs: float, seconds: float = _BLOCK_S) -> np.ndarray:
    """Peak-to-peak amplitude of each second, (..., n_samples) -> (..., n_blocks); a last block ends with the signal."""
    n_samples = values.shape[-1]
    length = max(1, min(n_samples, round(seconds * fs)))
    whole = n_samples // length
    spans = np.ptp(values[..., : whole * length].reshape(*values.shape[:-1], whole, length), axis=-1)
    if whole * length < n_samples:
        spans = np.concatenate([spans, np.ptp(values[..., -length:], axis=-1, keepdims=True)], axis=-1)
    return spans


def _flat_below(spans: np.ndarray, floor: float) -> np.ndarray:
    """Span below which a second of each lead is flat, from the spans of its seconds."""
    return np.maximum(FLAT_RELATIVE * np.quantile(spans, _LIVELY_QUANTILE, axis=-1), floor)


def _flat(values: np.ndarray, lost: np.ndarray, fs: float, floor: float) -> np.ndarray:
    """Mark every flat second of each lead, wherever it starts; seconds with a lost sample are not judged."""
    flat, length = np.zeros(values.shape, dtype=bool), round(_BLOCK_S * fs)
    if values.shape[-1] < length:
        return flat
    # every second holds a whole half second of this grid, and few leads have a quiet one
    most = np.maximum(FLAT_RELATIVE * np.ptp(values, axis=-1), floor)
    for row in np.flatnonzero(block_spans(values, fs, _BLOCK_S / 2).min(axis=-1) <= most):
        spans = maximum_filter1d(values[row], length) - minimum_filter1d(values[row], length)
        quiet = spans <= _flat_below(block_spans(values[row], fs), floor)
        quiet &= ~maximum_filter1d(lost[row], length)
        quiet[: length // 2] = quiet[quiet.size - (length - 1) // 2 :] = False  # seconds that reach beyond the lead
        flat[row] = maximum_filter1d(quiet, length, origin=length % 2 - 1)
    return flat


def _clipped(values: np.ndarray) -> np.ndarray:
    """Mark the samples of a lead in plateaus of three or more at its highest or lowest value.

    Exact plateaus must be entered or left by three quantisation steps at once: the isoelectric line of a coarsely
    quantised lead also stays at the lowest value, but comes and goes in single steps. Plateaus with jitter must be
    left by a tenth of the lead's span at once, which no wave does.
    """
    clipped = np.zeros(values.shape, dtype=bool)
    steps = np.r_[0, np.abs(np.diff(values)), 0]
    if not steps.any():
        return clipped
    span = np.ptp(values)
    for slack, jump in ((0.0, _CLIP_STEP_QUANTA * steps[steps > 0].min()), (_RAIL_SLACK * span, _RAIL_JUMP * span)):
        for at_extreme in (values >= values.max() - slack, values <= values.min() + slack):
            for _, start, stop in zip(*runs(at_extreme[None]), strict=True):
                if stop - start >= _SHORTEST_CLIP and max(steps[start], steps[stop]) >= jump:
                    clipped[start:stop] = True
    return clipped


def _near_rail(values: np.ndarray) -> np.ndarray:
    """Mark samples so near a lead's highest or lowest value that they may be clipped: few are worth a closer look."""
    highest, lowest = values.max(axis=-1, keepdims=True), values.min(axis=-1, keepdims=True)
    slack = _RAIL_SLACK * (highest - lowest)
    return (values >= highest - slack) | (values <= lowest + slack)


def _saturated(values: np.ndarray, fs: float) -> np.ndarray:
    """Mark the clipped stretches of each lead that are longer than a gap that would be bridged."""
    saturated, longest = np.zeros(values.shape, dtype=bool), int(LONGEST_BRIDGED_GAP_S * fs)
    near = _near_rail(values)
    for row in np.flatnonzero((near[:, longest:] & near[:, : near.shape[1] - longest]).any(axis=-1)):
        for _, start, stop in zip(*runs(_clipped(values[row])[None]), strict=True):
            saturated[row, start:stop] = stop - start > longest
    return saturated


def _floor(signal: Signal) -> float:
    """Span below which a second is flat whatever the rest of its lead does."""
    return FLAT_MV if signal.unit == "mV" else FLAT_ANY_UNIT


def lead_problems(signal: Signal) -> dict[str, str]:
    """Leads of a record that cannot be used, and why.

    Call it on the record as read: a filter rounds off the plateaus of a clipped lead and hides them. Of several
    problems the first is given: too short (less than a second), not a number, flat, saturated.
    """
    if signal.values.shape[-1] < _BLOCK_S * signal.fs:
        return dict.fromkeys(signal.leads, Problem.TOO_SHORT)
    filled, lost = fill_gaps(signal.values, signal.fs)
    spans = block_spans(filled, signal.fs)
    flat = (spans <= _flat_below(spans, _floor(signal))[:, None]).mean(axis=-1)
    suspects = _near_rail(filled).mean(axis=-1) >= SATURATED_SHARE
    problems: dict[str, str] = {}
    for row, lead in enumerate(signal.leads):
        if lost[row].mean() > MISSING_SHARE:
            problems[lead] = Problem.NOT_A_NUMBER
        elif flat[row] >= FLAT_SHARE_LEAD:
            problems[lead] = Problem.FLAT
        elif suspects[row] and _clipped(filled[row]).mean() >= SATURATED_SHARE:
            problems[lead] = Problem.SATURATED
    return problems


def flaws(
    raw: Signal, stored: Signal, problems: Mapping[str, str], gaps: Sequence[tuple[int, float]] = ()
) -> list[tuple[str, int, int, str]]:
    """Stretches of a record that nothing may be cut across: lead, start, stop (excluded, in stored samples), reason.

    Reasons: not a number (a gap of more than 40 ms), flat (a second or more, before or after the filter, which takes
    away hum and rounds off edges), saturated (clipped for more than 40 ms before the filter), gap in time (of all
    leads, one sample long; `gaps` are the raw samples after which the clock jumps, and by how many seconds). A lead
    with one of :func:`lead_problems` is one flaw from end to end.
    """
    filled, lost = fill_gaps(stored.values, stored.fs, bridged_s=0.0)
    flat, saturated, gap = _flat(filled, lost, stored.fs, FLAT_ANY_UNIT), np.zeros_like(lost), np.zeros_like(lost)
    found = {Problem.NOT_A_NUMBER: lost, Problem.FLAT: flat, Problem.SATURATED: saturated, Problem.GAP: gap}
    filled, lost = fill_gaps(raw.values, raw.fs)
    rate = stored.fs / raw.fs
    for mask, before in ((flat, _flat(filled, lost, raw.fs, _floor(raw))), (saturated, _saturated(filled, raw.fs))):
        for row, start, stop in zip(*runs(before), strict=True):
            mask[row, int(start * rate) : int(np.ceil(stop * rate))] = True
    for after, _ in gaps:
        gap[:, min(int(after * rate), gap.shape[1] - 1)] = True
    for reason in (Problem.NOT_A_NUMBER, Problem.FLAT, Problem.SATURATED):
        for lead, problem in problems.items():
            found[reason][raw.leads.index(lead)] = reason == problem
    return [
        (raw.leads[row], int(start), int(stop), str(reason))
        for reason, mask in found.items()
        for row, start, stop in zip(*runs(mask), strict=True)
    ]


def beat_problem(r_peaks: np.ndarray, seconds: float) -> str | None:
    """Say whether fewer than 20 beats a minute were found in so many seconds: "no beats" or None."""
    return Problem.NO_BEATS if len(r_peaks) * 60 < SLOWEST_RATE_BPM * seconds else None
