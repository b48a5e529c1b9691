"""Where things are on a flat page: the time axis between the traces' ends, heights of 0 mV, and calibration pulses."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ecgstudy.errors import StudyError
from ecgstudy.layouts.layout import COLUMNS
from ecgstudy.layouts.page import PX
from ecgstudy.layouts.trace import Lines, wide
from ecgstudy.layouts.words import Word

FS = 500.0
SPEED = 25.0
GAINS = (5.0, 10.0, 20.0)
"""Heights of a calibration pulse of 1 mV, mm."""
USUAL_S, SECONDS = 10.0, (4.0, 16.0)
"""Length of nearly every printed record, and lengths that are believed."""
NAME_MM = 12.0
"""How far from the beginning of its trace a lead's name stands."""
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


def find_frame(ink: np.ndarray, lines: Lines, rows: np.ndarray, is_exact: bool) -> Frame:
    """Find where the traces start and end, beside calibration pulses, and what the pulses say."""
    starts, ends, zeros, gains = [], [], [], []
    for row in range(len(rows)):
        heights, (first, last), pulses = traced(lines, row)
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
    if is_exact and abs(line - left) < SNAP_MM * PX:
        left = line
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
