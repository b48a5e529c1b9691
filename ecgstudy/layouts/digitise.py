"""Digitising: from a picture of a printed 12-lead ECG to millivolts, or to a sentence that says why not.

The page is laid flat by its grid (`page.py`), the rows' lines are followed (`trace.py`), names of leads are read
(`words.py`); here the three are put together. What a layout says must agree with what is on the page: the number of
rows, the names, Einthoven's law between limb leads of one column, and rhythm strips that repeat their leads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from ecgstudy.data.base import STANDARD_LEADS
from ecgstudy.errors import StudyError
from ecgstudy.layouts.layout import COLUMNS, INVERTED, MOST_STRIPS, ORDERS, Layout, grid
from ecgstudy.layouts.page import PX, Page, flatten, load_picture
from ecgstudy.layouts.trace import WIDE, Lines, follow, row_middles
from ecgstudy.layouts.words import Word, find_words

FS = 500.0
SPEED = 25.0
GAINS = (5.0, 10.0, 20.0)
"""Heights of a calibration pulse of 1 mV, mm."""
USUAL_S, SECONDS = 10.0, (4.0, 16.0)
"""Length of nearly every printed record, and lengths that are believed."""
LEAST_COVERED, LEAST_ALIKE, MOST_LAWLESS = 0.6, 0.8, 0.3
"""Share of a lead's columns with ink; correlation of a strip with its lead; share of power that breaks Einthoven's
law: worse is refused."""
LIMB = {
    **{"I": (1.0, 0.0), "II": (0.0, 1.0), "III": (-1.0, 1.0), "aVR": (-0.5, -0.5)},
    **{"aVL": (1.0, -0.5), "aVF": (-0.5, 1.0)},
}
"""What limb leads are made of: parts of I and II."""


@dataclass(frozen=True)
class Reading:
    """What was read from a page."""

    layout: Layout
    fs: float  # Hz
    values: np.ndarray  # float32 (12, n_samples), mV; NaN where the page shows nothing
    confidence: np.ndarray  # float (12,), 0 to 1: ink under the line that is its own, and agreement with other leads
    scale: float  # pixels a mm of the picture
    page: Page
    drawn: tuple[tuple[str, np.ndarray], ...]  # lead, and its points (n, 2) as x and y on the flat page
    leads: tuple[str, ...] = STANDARD_LEADS


@dataclass(frozen=True)
class _Frame:
    """Where things are on a page, in pixels."""

    rows: np.ndarray  # heights of the rows' middles
    zero: np.ndarray  # heights of 0 mV
    left: float  # where the first sample lies
    gain: float  # mm/mV
    seconds: float  # how long the traces are
    speed: float  # pixels a second

    def column(self, x: float, columns: int) -> int:
        """Column of a place."""
        return int(np.clip((x - self.left + PX) / self.speed / self.seconds * columns, 0, columns - 1))


def digitise(path: Path, fs: float = FS, dpi: float | None = None) -> Reading:
    """Read the ECG of a picture file, see :func:`read_page`; every refusal names the file."""
    picture, shrunk = load_picture(path)
    try:
        return read_page(picture, fs, dpi and dpi * shrunk)
    except StudyError as refusal:
        raise StudyError(f"{path}: {refusal}") from None


def read_page(picture: np.ndarray, fs: float = FS, dpi: float | None = None) -> Reading:
    """Read the ECG of a picture.

    Parameters
    ----------
    picture : uint8 (h, w, 3), RGB.
    fs : sampling rate of what is returned, Hz.
    dpi : pixels an inch, for a page without a grid or a calibration pulse to measure by.

    Raises
    ------
    StudyError
        The picture is no ECG page, or what is on it cannot be told for certain.
    """
    page = flatten(picture, dpi)
    words, small = find_words(page.ink)
    ink = page.ink.copy()
    for word in words:
        ink[word.box] = 0
    rows = row_middles(np.where(small, 0, ink))
    if len(rows) < 3:
        raise StudyError("no rows of ECG traces were found on the page.")
    lines = follow(ink, rows)
    frame = _frame(ink, lines, rows, page.is_exact)
    layout = _layout(_sampled(lines, frame, fs), words, frame)
    inner = frame.left + frame.speed * frame.seconds * np.arange(1, layout.columns) / layout.columns
    lines = follow(ink, rows, inner)
    return _reading(page, layout, lines, frame, _sampled(lines, frame, fs), fs)


def _frame(ink: np.ndarray, lines: Lines, rows: np.ndarray, is_exact: bool) -> _Frame:
    """Find where the traces start and end, beside calibration pulses, and what the pulses say."""
    starts, ends, zeros, gains = [], [], [], []
    for row, inked in enumerate(lines.inked):
        heights = lines.heights(row, np.arange(len(inked)))
        parts = _parts(inked)
        pulses = [part for part in parts if _pulse_height(heights[part])]
        traces = [part for part in parts if part not in pulses]
        if not traces:
            raise StudyError("a row of the page shows no trace.")
        first, last = traces[0].start, traces[-1].stop - 1
        starts.append(_end(ink, first, heights[min(first + 2, last)], -1))
        ends.append(_end(ink, last, heights[max(last - 2, first)], 1))
        gains += [_pulse_height(heights[part]) for part in pulses]
        feet = [np.percentile(heights[part], 90) for part in pulses]
        zeros.append(np.mean(feet) if feet else np.median(heights[traces[0].start : traces[-1].stop]))
    gain = min(GAINS, key=lambda known: abs(known - np.median(gains))) if gains else 10.0
    left, right = np.median(starts) + WIDE * lines.pen, np.median(ends) - WIDE * lines.pen
    seconds = (right - left) / PX / SPEED
    if not SECONDS[0] < seconds < SECONDS[1]:
        raise StudyError(f"the traces are {seconds:.1f} s long at 25 mm/s, which no printed ECG is.")
    seconds = USUAL_S if abs(seconds - USUAL_S) < (0.05 if is_exact else 0.3) else seconds
    speed = SPEED * PX if is_exact else (right - left) / seconds
    if seconds == USUAL_S:  # the middle is known better than the ends, whose caps are as wide as the pen
        left = (left + right - speed * (seconds - 1 / FS)) / 2
    return _Frame(rows, np.array(zeros), left, gain, seconds, speed)


def _end(ink: np.ndarray, column: int, height: float, side: int) -> float:
    """Place of a trace's end, to parts of a pixel: where the ink is half as dark."""
    rows = slice(max(round(height) - 3, 0), round(height) + 4)
    outer, inner = (ink[rows, np.clip(column + step * side, 0, ink.shape[1] - 1)].max() for step in (1, 0))
    return column + side * float(np.clip((inner - 0.5) / max(inner - outer, 0.05), -0.5, 1))


def _parts(inked: np.ndarray) -> list[slice]:
    """Stretches of a line with ink, gaps of less than half a mm closed, the shortest left out."""
    there = ndimage.binary_closing(np.pad(inked, 8), np.ones(3))[8:-8]
    bounds = np.flatnonzero(np.diff(there, prepend=False, append=False)).reshape(-1, 2)
    return [slice(start, stop) for start, stop in bounds if stop - start > PX]


def _pulse_height(line: np.ndarray) -> float:
    """Height in mm of a calibration pulse, if a stretch of line is one; else 0."""
    if not 4 * PX < len(line) < 14 * PX:
        return 0.0
    top, foot = np.percentile(line, [10, 90])
    height = (foot - top) / PX
    level = np.minimum(np.abs(line - top), np.abs(line - foot)) < 0.3 * PX
    near = min(GAINS, key=lambda known: abs(known - height))
    return height if level.mean() > 0.8 and abs(height - near) < 0.08 * near else 0.0


def _sampled(lines: Lines, frame: _Frame, fs: float) -> np.ndarray:
    """Heights of every row's line over its zero at the samples' times, float64 (n_rows, n_samples) in mV."""
    x = frame.left + np.arange(round(frame.seconds * fs)) * frame.speed / fs
    traces = np.array([lines.heights(row, x) for row in range(len(frame.rows))])
    return (frame.zero[:, None] - traces) / (PX * frame.gain)


def _layout(traces: np.ndarray, words: Sequence[Word], frame: _Frame) -> Layout:
    """Find the layout that the number of rows, the names and the traces agree on."""
    n_rows = len(frame.rows)
    fitting = [c for c in COLUMNS if 0 <= n_rows - len(STANDARD_LEADS) // c <= MOST_STRIPS]
    if not fitting:
        raise StudyError(f"{n_rows} rows of traces were found, which no known layout has; is the page whole?")
    options = [grid(columns, (), order) for columns in fitting for order in ORDERS]
    judged = [(_agreement(option, words, frame), -_lawless(option, traces), option) for option in options]
    (right, wrong), law, best = max(judged, key=lambda judged: (judged[0][0] - judged[0][1], judged[1]))
    if wrong > max(1, right // 4):
        raise StudyError("the names of the leads are in no known order; is the page whole and the right way up?")
    if -law > MOST_LAWLESS:
        raise StudyError("the limb leads contradict each other (Einthoven's law), so they were not told for certain.")
    strips = [_strip(best, row, traces, words, frame) for row in range(len(best.rows), n_rows)]
    return grid(best.columns, strips, "cabrera" if "cabrera" in best.name else "standard")


def _agreement(layout: Layout, words: Sequence[Word], frame: _Frame) -> tuple[int, int]:
    """Numbers of names on the page that stand where a layout has them, and of those that do not."""
    right = wrong = 0
    for word in words:
        row = _row_of(word, frame)
        if row is not None and row < len(layout.rows):
            expected = layout.rows[row][frame.column(word.x, layout.columns)]
            fits = word.name.removeprefix(INVERTED) == expected.removeprefix(INVERTED)
            right, wrong = right + fits, wrong + (not fits)
    return right, wrong


def _row_of(word: Word, frame: _Frame) -> int | None:
    """Row that a name belongs to: it stands on its trace or above it."""
    pitch = np.median(np.diff(frame.rows))
    row = int(np.argmin(np.abs(frame.rows - 0.3 * pitch - word.y)))
    inside = -4 * PX < word.x - frame.left < frame.speed * frame.seconds
    return row if inside and -0.75 * pitch < word.y - frame.rows[row] < 0.35 * pitch else None


def _segments(layout: Layout, traces: np.ndarray) -> list[tuple[str, int, slice, float]]:
    """Lead, row, samples and sign of every stretch of the columns."""
    edges = layout.edges(traces.shape[1])
    return [
        (
            lead.removeprefix(INVERTED),
            row,
            slice(*edges[column : column + 2]),
            -1.0 if lead.startswith(INVERTED) else 1.0,
        )
        for row, leads in enumerate(layout.rows)
        for column, lead in enumerate(leads)
    ]


def _lawless(layout: Layout, traces: np.ndarray) -> float:
    """Share of the limb leads' power that is no mixture of I and II: the worst column with three of them or more."""
    worst = 0.0
    segments = _segments(layout, traces)
    for stretch in {(part.start, part.stop) for _, _, part, _ in segments}:
        limb = [
            (LIMB[lead], sign * traces[row, part])
            for lead, row, part, sign in segments
            if lead in LIMB and (part.start, part.stop) == stretch
        ]
        if len(limb) >= 3:
            parts, seen = np.array([part for part, _ in limb]), np.array([values for _, values in limb])
            inner = seen[:, 10:-10] - np.median(seen[:, 10:-10], axis=1, keepdims=True)
            left = inner - parts @ np.linalg.lstsq(parts, inner, rcond=None)[0]
            worst = max(worst, float(left.var() / (inner.var() + 1e-9)))
    return worst


def _strip(layout: Layout, row: int, traces: np.ndarray, words: Sequence[Word], frame: _Frame) -> str:
    """Lead of a rhythm strip: the one that it repeats, which its name must not contradict."""
    alike = {
        lead: _alike(traces[row, part], sign * traces[of, part]) for lead, of, part, sign in _segments(layout, traces)
    }
    best = max(alike, key=alike.__getitem__)
    written = {word.name for word in words if _row_of(word, frame) == row and frame.column(word.x, 4) == 0}
    told = written.pop() if len(written) == 1 else best
    if alike.get(told, 0) < LEAST_ALIKE:
        raise StudyError(
            f"the rhythm strip in row {row + 1} repeats no lead of the page, so that its lead is not certain."
        )
    return told


def _alike(one: np.ndarray, other: np.ndarray) -> float:
    """Correlation of two traces."""
    return float(np.corrcoef(one[10:-10], other[10:-10])[0, 1])


def _reading(page: Page, layout: Layout, lines: Lines, frame: _Frame, traces: np.ndarray, fs: float) -> Reading:
    """Give each lead its samples and its confidence."""
    n_samples = traces.shape[1]
    values = np.full((len(STANDARD_LEADS), n_samples), np.nan, np.float32)
    confidence, drawn = np.zeros(len(STANDARD_LEADS)), []
    segments = _segments(layout, traces)
    segments += [(lead, len(layout.rows) + at, slice(0, n_samples), 1.0) for at, lead in enumerate(layout.strips)]
    law = 1 - _lawless(layout, traces)
    for lead, row, part, sign in segments:
        x = frame.left + np.arange(part.start, part.stop) * frame.speed / fs
        columns = np.clip(np.rint(x).astype(int), 0, lines.inked.shape[1] - 1)
        covered = lines.inked[row, columns]
        if covered.mean() < LEAST_COVERED:
            raise StudyError(f"no trace was found for lead {lead}; scan the whole page again.")
        at = STANDARD_LEADS.index(lead)
        values[at, part] = sign * traces[row, part]
        own = float((covered & ~lines.shared[row, columns]).mean())
        confidence[at] = own * (law if lead in LIMB else 1)
        drawn.append((lead, np.stack([x, frame.zero[row] - traces[row, part] * PX * frame.gain], axis=1)))
    return Reading(layout, fs, values, confidence, page.scale, page, tuple(drawn))
