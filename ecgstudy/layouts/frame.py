"""Where things are on a flat page: the time axis between the traces' ends, heights of 0 mV, and calibration pulses."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ecgstudy.errors import StudyError
from ecgstudy.layouts.layout import COLUMNS
from ecgstudy.layouts.page import PX, Page, straighten
from ecgstudy.layouts.trace import Lines, follow, row_middles, wide
from ecgstudy.layouts.words import Word, find_words

FS = 500.0
SPEED = 25.0
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

    def column(self, x: float, columns: int) -> int:
        """Column of a place."""
        return int(np.clip((x - self.left + PX) / self.speed / self.seconds * columns, 0, columns - 1))

    def row_of(self, word: Word) -> int | None:
        """Row that a name belongs to: it stands on its trace or above it."""
        pitch = np.median(np.diff(self.rows))
        row = int(np.argmin(np.abs(self.rows - 0.3 * pitch - word.y)))
        inside = -4 * PX < word.x - self.left < self.speed * self.seconds
        return row if inside and -0.75 * pitch < word.y - self.rows[row] < 0.35 * pitch else None

    def begins_column(self, word: Word) -> bool:
        """Whether a name stands where one of up to four columns begins, as names of leads do."""
        off = (word.x - self.left + PX) % (self.speed * self.seconds / max(COLUMNS))
        return off < NAME_MM * PX and self.row_of(word) is not None

    def sampled(self, lines: Lines, fs: float) -> np.ndarray:
        """Heights of every row's line over its zero at the samples' times, float64 (n_rows, n_samples) in mV."""
        x = self.left + np.arange(round(self.seconds * fs)) * self.speed / fs
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
    found = [traced(lines, row) for row in range(len(rows))]
    ends = [_ends(page.ink, heights, *pair, lines.pen) for heights, pair, _ in found]
    if np.abs(np.diff(ends) / PX / SPEED - USUAL_S).max() > 0.5:
        return page
    marks = _named(words, rows)
    by_names = sum(np.ptp(marks[marks[:, 0] == row, 1]) > WIDE_APART for row in np.unique(marks[:, 0])) >= 2
    if not by_names:
        parts = [np.array_split(np.arange(first, last + 1), max(COLUMNS)) for _, (first, last), _ in found]
        marks = np.array(
            [(row, part.mean(), np.median(found[row][0][part])) for row in range(len(rows)) for part in parts[row]]
        )
    points = np.array([(row, x) for row, pair in enumerate(ends) for x in pair])
    heights = _levelled(marks, points, rows) if by_names or len(rows) <= FEW_ROWS else None
    if heights is None:  # as if it was but turned: what should be upright leans as what should be level
        lean = np.polyfit(rows, np.mean(ends, axis=1), 1)[0]
        heights = rows[points[:, 0].astype(int)] - lean * (points[:, 1] - points[:, 1].mean())
    squares = np.stack([np.tile([0, (USUAL_S - 1 / FS) * SPEED], len(rows)), np.repeat(rows, 2) / PX], axis=1)
    return straighten(picture, page, np.column_stack([points[:, 1], heights]), squares)


def _named(words: Sequence[Word], rows: np.ndarray) -> np.ndarray:
    """Row, x and y of the names of leads, which stand above their rows or on them; (n, 3)."""
    pitch = np.median(np.diff(rows))
    near = [(int(np.abs(word.y - rows + 0.3 * pitch).argmin()), word.x, word.y) for word in words if word.name]
    return np.array([mark for mark in near if abs(mark[2] - rows[mark[0]] + 0.3 * pitch) < 0.5 * pitch]).reshape(-1, 3)


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
    ends, zeros, gains = [], [], []
    for row in range(len(rows)):
        heights, (first, last), pulses = traced(lines, row)
        ends.append(_ends(ink, heights, first, last, lines.pen))
        gains += [_pulse_height(heights[part]) for part in pulses]
        feet = [np.percentile(heights[part], 90) for part in pulses]
        zeros.append(np.mean(feet) if feet else np.median(heights[first:last]))
    gain = np.median(gains) if gains else 10.0
    if is_exact:
        gain = min(GAINS, key=lambda known: abs(known - gain))
    left, right = np.median(ends, axis=0)
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
    return Frame(rows, np.array(zeros), left, gain, seconds, speed)


def traced(lines: Lines, row: int) -> tuple[np.ndarray, tuple[int, int], list[slice]]:
    """Heights of a row's line, first and last column of its traces, and columns of the calibration pulses beside."""
    inked = lines.inked[row]
    heights, parts = lines.heights(row, np.arange(len(inked))), _parts(inked)
    pulses = [part for part in parts if _pulse_height(heights[part])]
    return heights, _longest([part for part in parts if part not in pulses]), pulses


def _longest(parts: Sequence[slice]) -> tuple[int, int]:
    """First and last column of the longest part with those that are no more than a few mm away from each other."""
    chains: list[tuple[int, int]] = []
    for part in parts:
        joins = chains and part.start - chains[-1][1] < 3 * PX
        chains[-1 if joins else len(chains) :] = [(chains[-1][0] if joins else part.start, part.stop - 1)]
    if not chains:
        raise StudyError("a row of the page shows no trace.")
    return max(chains, key=lambda chain: chain[1] - chain[0])


def _ends(ink: np.ndarray, heights: np.ndarray, first: int, last: int, pen: float) -> tuple[float, float]:
    """Places of a trace's ends, without the caps of the pen."""
    left, right = _end(ink, first, heights[min(first + 2, last)], -1), _end(ink, last, heights[max(last - 2, first)], 1)
    return left + wide(pen), right - wide(pen)


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
