"""Digitising: from a picture of a printed 12-lead ECG to millivolts, or to a sentence that says why not.

The page is laid flat by its grid (`page.py`), the rows' lines are followed (`trace.py`), names of leads are read
(`words.py`); here the three are put together. What a layout says must agree with what is on the page: the number of
rows, the names, Einthoven's law between limb leads of one column, and rhythm strips that repeat their leads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy import ndimage

from ecgstudy.data.base import STANDARD_LEADS
from ecgstudy.errors import StudyError
from ecgstudy.layouts.layout import COLUMNS, INVERTED, MOST_STRIPS, ORDERS, Layout, grid
from ecgstudy.layouts.page import PX, Page, flatten, load_picture, straighten
from ecgstudy.layouts.trace import Lines, follow, row_middles, wide
from ecgstudy.layouts.words import Word, find_words, letters_on_traces

FS = 500.0
SPEED = 25.0
GAINS = (5.0, 10.0, 20.0)
"""Heights of a calibration pulse of 1 mV, mm."""
USUAL_S, SECONDS = 10.0, (4.0, 16.0)
"""Length of nearly every printed record, and lengths that are believed."""
LEAST_COVERED, MOST_OFF, MOST_LAWLESS = 0.6, 0.6, 0.2
"""Share of a lead's columns with ink; how far a strip is off its lead, beside it; share of power that breaks
Einthoven's law: worse is refused."""
UNREAD_INK, MOST_UNREAD = 0.5, 0.02
"""Ink that must be explained, and the share of it that may lie beside all lines: more is refused."""
UNMEASURED = 0.75
"""Confidence where no grid tells how a page was bent or tilted."""
CM = 10 * PX
NAME_MM, NAME_S = 12.0, 0.6
"""How far from the beginning of its trace a lead's name stands, and the time in which it may lie on the trace."""
LAWLESS = "the limb leads contradict each other (Einthoven's law), so they were not told for certain; scan it again."
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
    if not page.is_exact:
        page = _straightened(picture, page)
    words, small = find_words(page.ink)
    _check_upright(page.ink, words)
    rows, lines = _rows(np.where(small, 0, page.ink))
    frame = _frame(page.ink, lines, rows, page.is_exact)
    _check_alone(page, words, frame)
    words = [word for word in words if _begins_column(word, frame)]
    layout = _layout(_sampled(lines, frame, fs), words, frame)
    ends = frame.left + frame.speed * frame.seconds * np.arange(layout.columns + 1) / layout.columns
    ink = page.ink.copy()
    for word in words:
        ink[word.box][small[word.box]] = 0
    ends = np.clip([ends[0] - PX / 2, *ends[1:-1], ends[-1] + PX / 2], 0, ink.shape[1])
    names = _names_on_traces(ink, layout, words, frame)
    lines = follow(ink, rows, ends, len(layout.strips), names)
    reading = _reading(page, layout, lines, frame, _sampled(lines, frame, fs), fs)
    if _unread(np.where(small | names, 0, ink), reading, ends, lines.pen) > MOST_UNREAD:
        raise StudyError(
            "the traces of several rows run into each other; print the page with fewer rows, or with a lower gain."
        )
    return reading


def _check_upright(ink: np.ndarray, words: Sequence[Word]) -> None:
    """Refuse a page whose names can be read when it is turned; I, II and III can be either way up."""

    def told(words: Sequence[Word]) -> int:
        return sum(word.name not in STANDARD_LEADS[:3] for word in words)

    for turns, how in (
        ((2, "is upside down"), (1, "lies on its side"), (3, "lies on its side")) if told(words) < 3 else ()
    ):
        if told(find_words(np.ascontiguousarray(np.rot90(ink, turns)))[0]) > told(words) + 3:
            raise StudyError(f"the page {how}; turn the picture so that the names of the leads can be read.")


def _check_alone(page: Page, words: Sequence[Word], frame: _Frame) -> None:
    """Refuse a picture of several pages, which has more names beside the traces, and one that shows a page in part."""
    beside = [word for word in words if not -2 * CM < word.x - frame.left < frame.speed * frame.seconds + CM]
    if len(beside) > 3:
        raise StudyError("there is more than one page in the picture; give each page as a picture of its own.")
    height, width = page.inside.shape
    for x in (frame.left - PX, frame.left + frame.speed * frame.seconds + PX):
        at = np.rint(frame.zero).astype(int).clip(0, height - 1), round(x)
        if not 0 <= x < width or not page.inside[at].all():
            raise StudyError("the traces run out of the picture; scan the whole page.")


def _rows(ink: np.ndarray) -> tuple[np.ndarray, Lines]:
    """Heights of the rows and their lines, followed over the whole width."""
    rows = row_middles(ink)
    if len(rows) < 3:
        raise StudyError("no rows of ECG traces were found on the page.")
    return rows, follow(ink, rows, (0, ink.shape[1]))


def _straightened(picture: np.ndarray, page: Page) -> Page:
    """Straighten a page without a grid by its rows, which begin and end under each other and are ten seconds long."""
    _, small = find_words(page.ink)
    rows, lines = _rows(np.where(small, 0, page.ink))
    ends = []
    for row, inked in enumerate(lines.inked):
        line = lines.heights(row, np.arange(len(inked)))
        first, last = _longest([part for part in _parts(inked) if not _pulse_height(line[part])])
        ends.append((first + wide(lines.pen), last - wide(lines.pen)))
    if np.abs(np.diff(ends) / PX / SPEED - USUAL_S).max() > 0.5:
        return page
    lean = np.polyfit(rows, np.mean(ends, axis=1), 1)[0]  # of what should be upright, as of what should be level
    points = np.array([(x, y) for y, pair in zip(rows, ends, strict=True) for x in pair])
    level = (points[:, 1] + lean * (points[:, 0] - points[:, 0].mean())) / PX
    squares = np.stack([np.tile([0, (USUAL_S - 1 / FS) * SPEED], len(rows)), level], axis=1)
    return straighten(picture, page, points, squares)


def _unread(ink: np.ndarray, reading: Reading, ends: np.ndarray, pen: float) -> float:
    """Share of the traces' ink, and of what is joined to them, that lies beside the lines that were read."""
    solid, near = ink > UNREAD_INK, np.zeros(ink.shape, np.uint8)
    solid[:, : round(ends[0])] = solid[:, round(ends[-1]) :] = False
    for place in ends[1:-1]:
        solid[:, int(place - wide(pen) - 1) : int(place + wide(pen) + 3)] = False
    lines = [np.rint(points[np.isfinite(points[:, 1])] * 16).astype(np.int32) for _, points in reading.drawn]
    cv2.polylines(near, lines, False, 1, round(2 * wide(pen)) + 4, shift=4)
    n_marks, marks = cv2.connectedComponents(solid.astype(np.uint8), connectivity=8)
    every, read = (np.bincount(marks[solid & where], minlength=n_marks) for where in (True, near > 0))
    joined = read > 0
    return 1 - float(read.sum() / max(every[joined].sum(), 1))


def _names_on_traces(ink: np.ndarray, layout: Layout, words: Sequence[Word], frame: _Frame) -> np.ndarray:
    """Where names of leads lie on traces, bool like `ink`: those that are not among the words that stand apart."""
    seen = {(_row_of(word, frame), frame.column(word.x, layout.columns)) for word in words}
    length = frame.speed * frame.seconds / layout.columns
    cells = [(lead, row, column) for row, leads in enumerate(layout.rows) for column, lead in enumerate(leads)]
    cells += [(lead, len(layout.rows) + at, 0) for at, lead in enumerate(layout.strips)]
    places = [
        (lead, round(frame.left + column * length), round(frame.zero[row]))
        for lead, row, column in cells
        if (row, column) not in seen
    ]
    return letters_on_traces(ink, places, words)


def _frame(ink: np.ndarray, lines: Lines, rows: np.ndarray, is_exact: bool) -> _Frame:
    """Find where the traces start and end, beside calibration pulses, and what the pulses say."""
    starts, ends, zeros, gains = [], [], [], []
    for row, inked in enumerate(lines.inked):
        heights = lines.heights(row, np.arange(len(inked)))
        parts = _parts(inked)
        pulses = [part for part in parts if _pulse_height(heights[part])]
        first, last = _longest([part for part in parts if part not in pulses])
        starts.append(_end(ink, first, heights[min(first + 2, last)], -1))
        ends.append(_end(ink, last, heights[max(last - 2, first)], 1))
        gains += [_pulse_height(heights[part]) for part in pulses]
        feet = [np.percentile(heights[part], 90) for part in pulses]
        zeros.append(np.mean(feet) if feet else np.median(heights[first:last]))
    gain = np.median(gains) if gains else 10.0
    if is_exact:
        gain = min(GAINS, key=lambda known: abs(known - gain))
    left, right = np.median(starts) + wide(lines.pen), np.median(ends) - wide(lines.pen)
    seconds = (right - left) / PX / SPEED
    if not SECONDS[0] < seconds < SECONDS[1]:
        raise StudyError(f"the traces are {seconds:.1f} s long at 25 mm/s, which no printed ECG is.")
    seconds = USUAL_S if abs(seconds - USUAL_S) < (0.05 if is_exact else 0.3) else seconds
    speed = SPEED * PX if is_exact else (right - left) / seconds
    if seconds == USUAL_S:  # the middle is known better than the ends, whose caps are as wide as the pen
        left = (left + right - speed * (seconds - 1 / FS)) / 2
    line = PX * np.rint((left + 0.5) / PX) - 0.5
    if is_exact and abs(line - left) < 0.1 * PX:  # what prints its own paper begins at a line of it
        left = line
    return _Frame(rows, np.array(zeros), left, gain, seconds, speed)


def _longest(parts: Sequence[slice]) -> tuple[int, int]:
    """First and last column of the longest part with those that are no more than a few mm away from each other."""
    chains: list[tuple[int, int]] = []
    for part in parts:
        joins = chains and part.start - chains[-1][1] < 3 * PX
        chains[-1 if joins else len(chains) :] = [(chains[-1][0] if joins else part.start, part.stop - 1)]
    if not chains:
        raise StudyError("a row of the page shows no trace.")
    return max(chains, key=lambda chain: chain[1] - chain[0])


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
    if -law > 1.5 * MOST_LAWLESS:  # names that lie on traces are still there
        raise StudyError(LAWLESS)
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


def _begins_column(word: Word, frame: _Frame) -> bool:
    """Whether a name stands where one of up to four columns begins, as names of leads do."""
    quarter = frame.speed * frame.seconds / max(COLUMNS)
    off = (word.x - frame.left + PX) % quarter
    return off < NAME_MM * PX and _row_of(word, frame) is not None


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
            inner = seen[:, round(NAME_S * FS) : -10]
            inner = inner - np.median(inner, axis=1, keepdims=True)
            left = inner - parts @ np.linalg.lstsq(parts, inner, rcond=None)[0]
            worst = max(worst, float(left.var() / (inner.var() + 1e-9)))
    return worst


def _strip(layout: Layout, row: int, traces: np.ndarray, words: Sequence[Word], frame: _Frame) -> str:
    """Lead of a rhythm strip: the one that it repeats, which its name must not contradict."""
    off = {lead: _off(traces[row, part], sign * traces[of, part]) for lead, of, part, sign in _segments(layout, traces)}
    best, second = sorted(off, key=off.__getitem__)[:2]
    written = {word.name for word in words if _row_of(word, frame) == row and frame.column(word.x, max(COLUMNS)) == 0}
    told = written.pop() if len(written) == 1 else best
    sure = off[told] < MOST_OFF if told != best or written else off[best] < min(MOST_OFF, 0.7 * off[second])
    if not sure:
        raise StudyError(f"the rhythm strip in row {row + 1} repeats no lead for certain; scan the page again, flat.")
    return told


def _off(strip: np.ndarray, lead: np.ndarray) -> float:
    """Root mean square of the difference of two traces beside that of the second, where no name lies on them."""
    inner = slice(round(NAME_S * FS), -10)
    strip, lead = strip[inner] - np.median(strip[inner]), lead[inner] - np.median(lead[inner])
    return float(np.sqrt(np.mean((strip - lead) ** 2) / (np.mean(lead**2) + 1e-6)))


def _reading(page: Page, layout: Layout, lines: Lines, frame: _Frame, traces: np.ndarray, fs: float) -> Reading:
    """Give each lead its samples and its confidence."""
    n_samples = traces.shape[1]
    values = np.full((len(STANDARD_LEADS), n_samples), np.nan, np.float32)
    confidence, drawn = np.zeros(len(STANDARD_LEADS)), []
    segments = _segments(layout, traces)
    segments += [(lead, len(layout.rows) + at, slice(0, n_samples), 1.0) for at, lead in enumerate(layout.strips)]
    law = 1 - _lawless(layout, traces)
    if 1 - law > MOST_LAWLESS:
        raise StudyError(LAWLESS)
    for lead, row, part, sign in segments:
        x = frame.left + np.arange(part.start, part.stop) * frame.speed / fs
        columns = np.clip(np.rint(x).astype(int), 0, lines.inked.shape[1] - 1)
        covered = lines.inked[row, columns]
        if covered.mean() < LEAST_COVERED:
            raise StudyError(f"no trace was found for lead {lead}; scan the whole page again.")
        at = STANDARD_LEADS.index(lead)
        values[at, part] = sign * traces[row, part]
        own = float((covered & ~lines.shared[row, columns]).mean())
        confidence[at] = own * (law if lead in LIMB else 1) * (1 if page.is_exact else UNMEASURED)
        drawn.append((lead, np.stack([x, frame.zero[row] - traces[row, part] * PX * frame.gain], axis=1)))
    return Reading(layout, fs, values, confidence, page.scale, page, tuple(drawn))
