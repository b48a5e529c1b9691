"""Where things are on a flat page: the time axis between the traces' ends, heights of 0 mV, and calibration pulses."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from ecgstudy.errors import StudyError
from ecgstudy.layouts.layout import COLUMNS, GAIN, SPEED
from ecgstudy.layouts.page import PX, Page, straighten
from ecgstudy.layouts.trace import Lines, follow, row_middles, wide
from ecgstudy.layouts.words import Word, find_words

FS = 500.0
GAINS = (5.0, 10.0, 20.0)
"""Heights of a calibration pulse of 1 mV, mm."""
USUAL_S, SECONDS = 10.0, (4.0, 16.0)
"""Length of nearly every printed record, and lengths that are believed."""
NAME_MM = 12.0
"""How far from the beginning of its trace a lead's name stands."""
WIDE_APART = 40 * PX
"""Names so far from each other tell how a row is tilted, pixels."""
FEW_ROWS = 6
"""Lines of more rows run into each other, and do not tell how a row is tilted."""
SURE = 4.0
"""Standard errors by which rows must converge to be believed."""
SNAP_MM = 0.1
"""How near to a line of the grid traces begin at that line: what prints its own paper begins at one."""


@dataclass(frozen=True)
class Frame:
    """Where things are on a page, in pixels."""

    rows: np.ndarray  # heights of the rows' middles
    zero: np.ndarray  # heights of 0 mV
    left: float  # where the first sample lies
    gain: float  # mm/mV
    seconds: float  # how long the traces are
    speed: float  # pixels a second

    @property
    def length(self) -> float:
        """How long the traces are."""
        return self.speed * self.seconds

    def cell(self, word: Word, columns: int) -> tuple[int | None, int]:
        """Row and column that a name belongs to: it stands on its trace or above it, or in no row."""
        pitch = np.median(np.diff(self.rows))
        row = int(np.argmin(np.abs(self.rows - 0.3 * pitch - word.y)))
        inside = -4 * PX < word.x - self.left < self.length
        column = int(np.clip((word.x - self.left + PX) / self.speed / self.seconds * columns, 0, columns - 1))
        return row if inside and -0.75 * pitch < word.y - self.rows[row] < 0.35 * pitch else None, column

    def begins_column(self, word: Word) -> bool:
        """Whether a name stands where one of up to four columns begins, as names of leads do."""
        off = (word.x - self.left + PX) % (self.length / max(COLUMNS))
        return off < NAME_MM * PX and self.cell(word, max(COLUMNS))[0] is not None

    def sampled(self, lines: Lines) -> np.ndarray:
        """Heights of every row's line over its zero at the samples' times, float64 (n_rows, n_samples) in mV."""
        x = self.left + np.arange(round(self.seconds * FS)) * self.speed / FS
        traces = np.array([lines.heights(row, x) for row in range(len(self.rows))])
        return (self.zero[:, None] - traces) / (PX * self.gain)


def find_rows(ink: np.ndarray) -> tuple[np.ndarray, Lines]:
    """Heights of the rows and their lines, followed over the whole width."""
    rows = row_middles(ink)
    if len(rows) < 3:
        raise StudyError("no rows of ECG traces were found on the page.")
    return rows, follow(ink, rows, (0, ink.shape[1]))


def straightened(picture: np.ndarray, page: Page) -> Page:
    """Straighten a page without a grid by its rows, which begin and end under each other and are ten seconds long."""
    words, small = find_words(page.ink)
    rows, lines = find_rows(np.where(small, 0, page.ink))
    found = [_traced(page.ink, lines, row) for row in range(len(rows))]
    ends = [line.ends for line in found]
    if np.abs(np.diff(ends) / PX / SPEED - USUAL_S).max() > 0.5:
        return page
    pitch = np.median(np.diff(rows))  # names stand above their rows or on them
    near = [(int(np.abs(word.y - rows + 0.3 * pitch).argmin()), word.x, word.y) for word in words if word.name]
    marks = [mark for mark in near if abs(mark[2] - rows[mark[0]] + 0.3 * pitch) < 0.5 * pitch]
    by_row = [[x for of, x, _ in marks if of == row] for row in range(len(rows))]
    by_names = sum(max(x) - min(x) > WIDE_APART for x in by_row if x) >= 2
    if not by_names:
        marks = [
            (row, part.mean(), np.median(line.heights[part]))
            for row, line in enumerate(found)
            for part in np.array_split(line.columns, max(COLUMNS))
        ]
    points = np.array([(row, x) for row, pair in enumerate(ends) for x in pair])
    heights = _levelled(np.array(marks), points, rows) if by_names or len(rows) <= FEW_ROWS else None
    if heights is None:  # as if it was but turned: what should be upright leans as what should be level
        lean = np.polyfit(rows, np.mean(ends, axis=1), 1)[0]
        heights = rows[points[:, 0].astype(int)] - lean * (points[:, 1] - points[:, 1].mean())
    squares = np.stack([np.tile([0, (USUAL_S - 1 / FS) * SPEED], len(rows)), np.repeat(rows, 2) / PX], axis=1)
    return straighten(picture, page, np.column_stack([points[:, 1], heights]), squares)


def _levelled(marks: np.ndarray, points: np.ndarray, rows: np.ndarray) -> np.ndarray | None:
    """Heights of rows, given as (n, 2) with x, by marks, (n, 3), that stand level in every row: row, x and y.

    Rows are tilted, and converge where the page was tilted too. None where the marks do not tell that they converge.
    """
    middle, kept = points[:, 1].mean(), np.ones(len(marks), bool)

    def design(places: np.ndarray) -> np.ndarray:
        row, x = places[:, 0].astype(int), places[:, 1] - middle
        return np.column_stack([row[:, None] == np.arange(len(rows)), x, x * (rows[row] - rows.mean()) / np.ptp(rows)])

    for _ in range(3):  # what is no name stands anywhere
        terms = design(marks[kept])
        found = np.linalg.lstsq(terms, marks[kept, 2], rcond=None)[0]
        off = np.abs(marks[:, 2] - design(marks) @ found)
        spread = np.sqrt((off[kept] ** 2).sum() / max(kept.sum() - terms.shape[1], 1))
        error = spread * np.sqrt(np.linalg.pinv(terms.T @ terms)[-1, -1])
        kept = off <= max(3 * np.median(off[kept]), 2.0)
    if abs(found[-1]) < SURE * error:
        return None
    found[: len(rows)] = rows
    return design(points) @ found


def find_frame(ink: np.ndarray, lines: Lines, rows: np.ndarray, is_exact: bool) -> Frame:
    """Find where the traces start and end, beside calibration pulses, and what the pulses say."""
    found = [_traced(ink, lines, row) for row in range(len(rows))]
    gains = [gain for line in found for gain in line.gains]
    gain = np.median(gains) if gains else GAIN
    if is_exact:
        gain = min(GAINS, key=lambda known: abs(known - gain))
    left, right = np.median([line.ends for line in found], axis=0)
    seconds = (right - left) / PX / SPEED
    if not SECONDS[0] < seconds < SECONDS[1]:
        raise StudyError(f"the traces are {seconds:.1f} s long at 25 mm/s, which no printed ECG is.")
    seconds = USUAL_S if abs(seconds - USUAL_S) < (0.05 if is_exact else 0.3) else seconds
    speed = SPEED * PX if is_exact else (right - left) / seconds
    places = [left]
    if seconds == USUAL_S:  # the middle is known better than the ends, whose caps are as wide as the pen
        places.insert(0, (left + right - speed * (seconds - 1 / FS)) / 2)
    lines_near = PX * np.rint((np.array(places) + 0.5) / PX) - 0.5
    at_line = is_exact & (np.abs(lines_near - places) < SNAP_MM * PX)
    left = lines_near[at_line][0] if at_line.any() else places[0]
    return Frame(rows, np.array([line.zero for line in found]), left, gain, seconds, speed)


class _Traced(NamedTuple):
    """What the line of a row shows, in pixels."""

    heights: np.ndarray  # of the line, in every column
    columns: np.ndarray  # of its traces
    ends: tuple[float, float]  # of its traces, without the caps of the pen
    zero: float  # height of 0 mV
    gains: list[float]  # heights of the calibration pulses beside, mm


def _traced(ink: np.ndarray, lines: Lines, row: int) -> _Traced:
    """Tell the traces of a row, the longest stretch of ink but for gaps of a few mm, from calibration pulses."""
    there = ndimage.binary_closing(np.pad(lines.inked[row], 8), np.ones(3))[8:-8]  # gaps of less than half a mm
    bounds = np.flatnonzero(np.diff(there, prepend=False, append=False)).reshape(-1, 2)
    heights, chains, feet, gains = lines.heights(row, np.arange(len(there))), [], [], []
    for start, stop in bounds[np.diff(bounds)[:, 0] > PX].tolist():
        if gain := _pulse_height(heights[start:stop]):
            gains.append(gain)
            feet.append(np.percentile(heights[start:stop], 90))
        elif chains and start - chains[-1][1] < 3 * PX:
            chains[-1] = chains[-1][0], stop - 1
        else:
            chains.append((start, stop - 1))
    if not chains:
        raise StudyError("a row of the page shows no trace.")
    first, last = max(chains, key=lambda chain: chain[1] - chain[0])
    left = _end(ink, first, heights[min(first + 2, last)], -1) + wide(lines.pen)
    right = _end(ink, last, heights[max(last - 2, first)], 1) - wide(lines.pen)
    zero = np.mean(feet) if feet else np.median(heights[first:last])
    return _Traced(heights, np.arange(first, last + 1), (left, right), zero, gains)


def _end(ink: np.ndarray, column: int, height: float, side: int) -> float:
    """Place of a trace's end, to parts of a pixel: where the ink is half as dark.

    A trace that begins within a wave is followed outwards, from ink to ink that touches it.
    """
    solid, last = ink > 0.5, column
    top, bottom = max(round(height) - 3, 0), round(height) + 4
    while 0 <= column < ink.shape[1] and abs(column - last) < 3 * PX and solid[top:bottom, column].any():
        there = np.flatnonzero(solid[:, column])
        runs = np.split(there, np.flatnonzero(np.diff(there) > 1) + 1)
        touching = [run for run in runs if run[0] < bottom and run[-1] >= top]
        top, bottom = max(touching[0][0] - 1, 0), touching[-1][-1] + 2
        column += side
    outer, inner = (ink[top:bottom, np.clip(at, 0, ink.shape[1] - 1)].max() for at in (column, column - side))
    return column - side + side * float(np.clip((inner - 0.5) / max(inner - outer, 0.05), -0.5, 1))


def _pulse_height(line: np.ndarray) -> float:
    """Height in mm of a calibration pulse, if a stretch of line is one; else 0."""
    if not 4 * PX < len(line) < 14 * PX:
        return 0.0
    top, foot = np.percentile(line, [10, 90])
    height = (foot - top) / PX
    level = np.minimum(np.abs(line - top), np.abs(line - foot)) < 0.3 * PX
    near = min(GAINS, key=lambda known: abs(known - height))
    return height if level.mean() > 0.8 and abs(height - near) < 0.08 * near else 0.0
