"""The grid of ECG paper as a ruler: its spacing from the spectrum, and where its squares lie from local phases."""

import heapq

import cv2
import numpy as np
from scipy import fft

BIG_SQUARE = 5
"""Side of the grid's big squares, mm."""
PAGE_MM = (150, 700)
"""Widths of page that are believed, mm: five to one, so that a grid's lines are 1 mm apart or 5 mm, not either."""
LEAST_CONTRAST = 0.8
"""Amplitude that a grid must have, of 255 grey levels: the blocks of a JPEG file are a grid too, but fainter."""
_TILE = 512


def darkness(picture: np.ndarray) -> np.ndarray:
    """Darkness (0 paper, 1 black) of the lightest colour, beside the lightest paper around: float32 (h, w)."""
    light = picture.max(axis=2)
    small = cv2.resize(light, None, fx=1 / 8, fy=1 / 8, interpolation=cv2.INTER_AREA)
    paper = cv2.medianBlur(cv2.dilate(small, np.ones((5, 5))), 9)
    paper = cv2.resize(cv2.blur(paper, (5, 5)), light.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return np.clip(1 - light / np.maximum(paper.astype(np.float32), 1), 0, 1)


def grid_lines(picture: np.ndarray) -> np.ndarray:
    """Darkness beside the surroundings, float32: what is left of a shaded page is lines. Ink, if it is told, is out."""
    grey = picture.min(axis=2).astype(np.float32)
    lines = np.clip(cv2.blur(grey, (31, 31)) - grey, 0, 60)
    ink = cv2.dilate((darkness(picture) > 0.5).astype(np.uint8), np.ones((5, 5)))
    if ink.mean() < 0.3:  # more is a grid as dark as ink
        lines[ink > 0] = 0
    return lines


def grid_vectors(lines: np.ndarray) -> tuple[np.ndarray, float] | None:
    """Vectors across the upright and the level lines, (2, 2) as x and y in cycles a pixel, and mm of a cycle (5 or 1).

    The middle one of some tiles speaks for the page. None where none has waves in both directions, with multiples.
    """
    tops, lefts = (np.unique(np.linspace(0, max(side - _TILE, 0), 3).astype(int)) for side in lines.shape)
    found = [_tile_vectors(lines[top : top + _TILE, left : left + _TILE]) for top in tops for left in lefts]
    found = [steps for clarity, steps in found if clarity >= 1.0]
    if not found:
        return None
    periods = [np.log(np.hypot(*steps[0])) for steps in found]
    steps = min(zip(periods, found, strict=True), key=lambda tile: abs(tile[0] - np.median(periods)))[1]
    page = max(lines.shape) * np.hypot(*steps[0])
    unit = next((mm for mm in (BIG_SQUARE, 1) if PAGE_MM[0] <= page * mm <= PAGE_MM[1]), None)
    return None if unit is None else (steps, unit)


def _tile_vectors(tile: np.ndarray) -> tuple[float, np.ndarray]:
    """Clarity of a tile's grid (natural logarithm of its peaks over their surroundings) and its two vectors."""
    window = np.hanning(tile.shape[0])[:, None] * np.hanning(tile.shape[1])[None]
    padded = np.zeros((_TILE, _TILE), np.float32)
    padded[: tile.shape[0], : tile.shape[1]] = (tile - tile.mean()) * window
    power = np.abs(fft.fftshift(fft.fft2(padded))) + np.float32(1e-6)
    clear = np.log(power)
    clear = np.clip(clear - cv2.blur(clear, (41, 41)) - 1, 0, 2)
    clear[power < cv2.dilate(power, np.ones((5, 5)))] = 0  # the skirts of a peak are no peaks
    clear[power < 0.03 * power[_TILE // 2 + 6 :].max()] = 0  # nor are the ripples of the window
    across, down = _combs(power, clear), [(score, step[::-1]) for score, step in _combs(power.T, clear.T)]
    pairs = [(min(a, d), np.stack([x, y])) for a, x in across for d, y in down if _square(x, y)]
    best = max((score for score, _ in pairs), default=0.0)
    good = [pair for pair in pairs if pair[0] >= 0.7 * best]
    return min(good, key=lambda pair: np.hypot(*pair[1][0]), default=(0.0, np.zeros((2, 2))))


def _square(across: np.ndarray, down: np.ndarray) -> bool:
    """Whether two vectors are nearly as long as each other and nearly at right angles."""
    lengths = np.hypot(*across), np.hypot(*down)
    return bool(abs(np.log(lengths[0] / lengths[1])) < 0.1 and abs(across @ down) < 0.12 * lengths[0] * lengths[1])


def _combs(power: np.ndarray, clear: np.ndarray) -> list[tuple[float, np.ndarray]]:
    """Mean clarity of the multiples of waves that run nearly along x, and their vectors in cycles a pixel.

    The strongest waves are multiples of the grid's, which one has to be found out.
    """
    middle = _TILE // 2
    y, x = np.mgrid[-middle:middle, -middle:middle].astype(np.float32)
    radius = np.hypot(x, y)
    sector = (np.abs(y) < 0.4 * x) & (radius > _TILE / 110) & (radius < _TILE / 2.6)
    near = cv2.dilate(clear, np.ones((3, 3)))
    found = []
    rows, columns = np.nonzero(sector & (clear > 0))
    for at in np.argsort(power[rows, columns])[-1:-5:-1]:
        row, column = rows[at], columns[at]
        peak = np.array([column - middle, row - middle]) + _between(power, row, column)
        for divisor in range(1, 11):
            multiples = np.arange(1, 6)[:, None] * peak / divisor
            multiples = np.rint(multiples[np.abs(multiples).max(axis=1) < middle - 1]).astype(int) + middle
            if np.hypot(*peak) / divisor > _TILE / 110:
                heights = near[multiples[:, 1], multiples[:, 0]]
                found.append((float(min(heights.mean(), 1.5 * heights[0])), peak / divisor / _TILE))
    return found


def _between(power: np.ndarray, row: int, column: int) -> np.ndarray:
    """Offset (x, y) of a peak from its bin, by parabolas."""
    offsets = []
    for line in (power[row, column - 1 : column + 2], power[row - 1 : row + 2, column]):
        bend = line[0] - 2 * line[1] + line[2] if len(line) == 3 else 0
        offsets.append(0.5 * (line[0] - line[2]) / bend if bend < 0 else 0.0)
    return np.clip(offsets, -0.5, 0.5)


def grid_points(lines: np.ndarray, steps: np.ndarray, unit: float) -> tuple[np.ndarray, np.ndarray] | None:
    """Points of the picture, (n, 2) in pixels, and where they lie on the grid, (n, 2) in mm from a line."""
    block = round((2 if unit == BIG_SQUARE else 5) / np.hypot(*steps[0]))
    phases, clears = zip(*(local_phases(lines, step, block) for step in steps), strict=True)
    clear = np.minimum(*clears)
    known = clear > 0.35 * np.percentile(clear, 90)
    turns = np.stack([_unwrapped(phase, clear, known) for phase in phases], axis=2)
    known &= np.isfinite(turns).all(axis=2)
    if known.sum() < 12 or 2 * np.median(clear[known]) < LEAST_CONTRAST * block**2:
        return None
    rows, columns = np.nonzero(known)
    where = np.stack([columns, rows], axis=1) * block + (block - 1) / 2
    squares = (where @ steps.T + turns[known]) * unit
    return where.astype(np.float32), squares.astype(np.float32)


def local_phases(lines: np.ndarray, vector: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Phase (turns) and strength of a wave in every block, relative to the wave that fills the page."""
    n_rows, n_columns = (side // block for side in lines.shape)
    tiles = lines[: n_rows * block, : n_columns * block].reshape(n_rows, block, n_columns * block)
    turn_y = np.exp(-2j * np.pi * vector[1] * np.arange(n_rows * block)).reshape(n_rows, 1, block)
    turn_x = np.exp(-2j * np.pi * vector[0] * np.arange(n_columns * block))
    rows = (turn_y.real.astype(np.float32) @ tiles + 1j * (turn_y.imag.astype(np.float32) @ tiles))[:, 0]
    wave = (rows * turn_x).reshape(n_rows, n_columns, block).sum(axis=2)
    return np.angle(wave) / (2 * np.pi), np.abs(wave)


def _unwrapped(phase: np.ndarray, clear: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Phases (turns) made continuous from the clearest block on, NaN where no way leads."""
    turns, open_to = np.full(phase.shape, np.nan), np.pad(known, 1)[1:, 1:]  # at an index of -1 stands the border
    start = np.unravel_index(np.argmax(np.where(known, clear, -1)), phase.shape)
    ways = [(0.0, start, start)]
    while ways:
        _, before, here = heapq.heappop(ways)
        if open_to[here]:
            open_to[here] = False
            turns[here] = phase[here] + (np.rint(turns[before] - phase[here]) if before != here else 0)
            for down, right in ((1, 0), (-1, 0), (0, 1), (0, -1)):
                there = here[0] + down, here[1] + right
                if open_to[there]:
                    jump = abs((phase[there] - phase[here] + 0.5) % 1 - 0.5)
                    heapq.heappush(ways, (jump - clear[there] / clear.max(), here, there))
    return turns
