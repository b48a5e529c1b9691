"""From a picture of an ECG page to its ink, flat and to scale: loading, the grid, shadows, colours.

The printed grid is the ruler. Its lines are found as peaks of the spectrum, followed over the page as local phases, and
undo rotation, perspective and folds in one step; what the median cell of the grid looks like is then taken away, in
whatever colour it was printed, and what is left is ink.
"""

import heapq
import warnings
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from scipy import fft

from ecgstudy.errors import StudyError

PX = 8
"""Pixels a mm of a flattened page: 200 dots an inch and a little."""
BIG_SQUARE = 5
"""Side of the grid's big squares, mm."""
MAX_PIXELS, MAX_BYTES, MIN_SIDE = 60_000_000, 100_000_000, 300
WORKING_SIDE = 2800
"""Longer side that a picture is brought to, pixels: a page of 300 mm keeps 9 a mm."""
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
PAGE_MM = (150, 700)
"""Widths of page that are believed, mm: five to one, so that a grid's lines are 1 mm apart or 5 mm, not either."""
MM_PER_INCH = 25.4
_TILE = 512
_CELL = PX * BIG_SQUARE


@dataclass(frozen=True)
class Page:
    """A page laid flat."""

    ink: np.ndarray  # float32 (h, w), 0 paper to 1 ink, PX pixels a mm
    paper: np.ndarray  # uint8 (h, w), the flattened page in grey, to draw on
    inside: np.ndarray  # bool (h, w), where the picture shows the page's plane
    scale: float  # pixels a mm of the picture as it was given
    is_exact: bool  # measured by a grid, not by pulses or hearsay


def load_picture(path: Path) -> tuple[np.ndarray, float]:
    """Read a picture, uint8 (h, w, 3) RGB, the way up that its camera noted, and the share it was shrunk to.

    It is shrunk where it is more than `WORKING_SIDE` pixels long.

    Raises `StudyError` for what is no picture, is too large or too small, is damaged or holds several pages. No more
    than the header is read of a file before its size is known to be bearable.
    """
    if not path.is_file():
        raise StudyError(f"There is no file {path}; give the path of a picture of an ECG page.")
    with path.open("rb") as file:
        start = file.read(1024)
    if b"%PDF" in start:
        raise StudyError(f"{path} is a PDF; save the page as a picture (PNG, 200 dots an inch or more) and give that.")
    if path.stat().st_size > MAX_BYTES:
        raise StudyError(f"{path} is larger than {MAX_BYTES // 10**6} MB; save it as PNG at 200 to 300 dots an inch.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of sizes that are refused below
            with Image.open(path, formats=FORMATS) as picture:
                return _pixels(picture, path)
    except StudyError:
        raise
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        bomb = isinstance(error, Image.DecompressionBombError)
        raise StudyError(
            _too_large(path) if bomb else f"{path} is no picture; give a {' or '.join(FORMATS)}."
        ) from None
    except Exception:  # decoders raise whatever they like on damaged files
        raise StudyError(f"{path} is damaged: its picture cannot be decoded; scan or save it again.") from None


def _pixels(picture: Image.Image, path: Path) -> tuple[np.ndarray, float]:
    """Decode one picture whose size is bearable."""
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise StudyError(_too_large(path))
    if min(width, height) < MIN_SIDE:
        raise StudyError(
            f"{path} is {width} x {height} pixels, too few for an ECG; scan it at 200 dots an inch or more."
        )
    if getattr(picture, "n_frames", 1) > 1:
        raise StudyError(f"{path} holds {picture.n_frames} pictures; save each page in a file of its own.")
    if picture.mode.startswith("I"):  # 16 bits a sample
        values = np.asarray(picture, dtype=np.float32)
        picture = Image.fromarray((values * (255 / max(values.max(), 1))).astype(np.uint8))
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    pixels = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    shrink = min(1.0, WORKING_SIDE / max(pixels.shape))
    if shrink < 1:
        pixels = cv2.resize(pixels, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    return pixels, shrink


def _too_large(path: Path) -> str:
    """Sentence about a picture with too many pixels."""
    return f"{path} has more than {MAX_PIXELS // 10**6} million pixels; save it at 200 to 300 dots an inch."


def flatten(picture: np.ndarray, dpi: float | None = None) -> Page:
    """Lay a page flat by its grid, or without one by its calibration pulses, or by a told resolution.

    `StudyError` where none of them is there, and for a page that is seen from too far aside.
    """
    lines = _lines(picture)
    vectors = grid_vectors(lines)
    points = None if vectors is None else _grid_points(lines, *vectors)
    if points is not None:
        to_mm, _ = cv2.findHomography(*points, cv2.RANSAC, 0.6)
        if to_mm is not None:
            size, nodes = _nodes(picture.shape[1::-1], to_mm)
            return _page(picture, _moved(nodes, _offsets(_sampled(lines, nodes, size), vectors[1])), size, True)
    to_mm = by_pulses(picture)
    if to_mm is None and dpi is None:
        raise StudyError(
            "no ECG paper was found: no grid of 1 or 5 mm and no calibration pulses; scan the page so that its grid "
            "can be seen, or give the resolution by --dpi."
        )
    size, nodes = _nodes(picture.shape[1::-1], np.diag([MM_PER_INCH / dpi] * 2 + [1]) if to_mm is None else to_mm)
    return _page(picture, nodes, size, False)


def by_pulses(picture: np.ndarray) -> np.ndarray | None:
    """Homography (3, 3) from pixels to mm that puts calibration pulses, 10 mm high, under each other; None without.

    Three rows or more must have a pulse of the same size: what is no ECG has no such column of them.
    """
    solid = (_darkness(picture) > 0.5).astype(np.uint8)
    _, marks, boxes, middles = cv2.connectedComponentsWithStats(solid, connectivity=8)
    _, _, width, height, area = boxes.T
    likely = (height > 18) & (np.abs(width / np.maximum(height, 1) - 0.9) < 0.15) & (area < 0.4 * width * height)
    found = [at for at in np.flatnonzero(likely) if _is_pulse(marks, at, boxes[at])]
    if len(found) < 3:
        return None
    alike = [at for at in found if abs(height[at] / np.median(height[found]) - 1) < 0.08]
    stroke = np.median(area[alike] / (3 * height[alike]))
    down, across, *_ = cv2.fitLine(middles[alike].astype(np.float32)[:, ::-1], cv2.DIST_L2, 0, 0.01, 0.01).ravel()
    angle, scale = np.arctan(across / down), (np.median(height[alike]) - stroke) / 10
    if len(alike) < 3 or abs(angle) > 0.3:
        return None
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, scale]])
    return turn / scale


def _is_pulse(marks: np.ndarray, mark: int, box: np.ndarray) -> bool:
    """Whether a shape is the outline of a pulse: up, along, down, with a foot on either side."""
    x, y, width, height = box[:4]
    shape = (marks[y : y + height, x : x + width] == mark).astype(np.float32)
    shape = cv2.resize(shape, (36, 40), interpolation=cv2.INTER_AREA)
    expected = np.zeros((40, 36), np.float32)
    outline = np.array([(0, 38), (8, 38), (8, 1), (28, 1), (28, 38), (36, 38)])
    cv2.polylines(expected, [outline], False, 1, 3)
    return bool(np.corrcoef(cv2.blur(shape, (3, 3)).ravel(), cv2.blur(expected, (3, 3)).ravel())[0, 1] > 0.7)


def _lines(picture: np.ndarray) -> np.ndarray:
    """Darkness beside the surroundings, float32: what is left of a shaded page is lines. Ink, if it is told, is out."""
    grey = picture.min(axis=2).astype(np.float32)
    lines = np.clip(cv2.blur(grey, (31, 31)) - grey, 0, 60)
    ink = cv2.dilate((_darkness(picture) > 0.5).astype(np.uint8), np.ones((5, 5)))
    if ink.mean() < 0.3:  # more is a grid as dark as ink
        lines[ink > 0] = 0
    return lines


def grid_vectors(lines: np.ndarray) -> tuple[np.ndarray, float] | None:
    """Vectors across the upright and the level lines, (2, 2) as x and y in cycles a pixel, and mm of a cycle (5 or 1).

    The best of some tiles speaks for the page. None where no tile has waves in both directions with their multiples.
    """
    height, width = lines.shape
    tops = np.unique(np.linspace(0, max(height - _TILE, 0), 3).astype(int))
    lefts = np.unique(np.linspace(0, max(width - _TILE, 0), 3).astype(int))
    found = [_tile_vectors(lines[top : top + _TILE, left : left + _TILE]) for top in tops for left in lefts]
    clarity, steps = max(found, key=lambda peak: peak[0])
    if clarity < 1.0:
        return None
    page = max(height, width) * np.hypot(*steps[0])
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
    across, down = _combs(power, clear), [(score, step[::-1]) for score, step in _combs(power.T, clear.T)]
    pairs = [(min(a, d), np.stack([x, y])) for a, x in across for d, y in down if _square(x, y)]
    best = max(pairs, key=lambda pair: pair[0], default=(0.0, np.zeros((2, 2))))[0]
    return min(
        ((score, steps) for score, steps in pairs if score >= 0.7 * best),
        key=lambda pair: np.hypot(*pair[1][0]),
        default=(0.0, np.zeros((2, 2))),
    )


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


def _grid_points(lines: np.ndarray, steps: np.ndarray, unit: float) -> tuple[np.ndarray, np.ndarray] | None:
    """Points of the picture, (n, 2) in pixels, and where they lie on the grid, (n, 2) in mm from a line."""
    block = round((2 if unit == BIG_SQUARE else 5) / np.hypot(*steps[0]))
    (phase_x, clear_x), (phase_y, clear_y) = (_local_phases(lines, step, block) for step in steps)
    clear = np.minimum(clear_x, clear_y)
    known = clear > 0.35 * np.percentile(clear, 90)
    turns = [_unwrapped(phase, clear, known) for phase in (phase_x, phase_y)]
    known &= np.isfinite(turns[0]) & np.isfinite(turns[1])
    if known.sum() < 12:
        return None
    rows, columns = np.nonzero(known)
    where = np.stack([columns, rows], axis=1) * block + (block - 1) / 2
    squares = (where @ steps.T + np.stack([turns[0][known], turns[1][known]], axis=1)) * unit
    return where.astype(np.float32), squares.astype(np.float32)


def _local_phases(lines: np.ndarray, vector: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray]:
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
    turns = np.full(phase.shape, np.nan)
    start = np.unravel_index(np.argmax(np.where(known, clear, -1)), phase.shape)
    turns[start] = phase[start]
    ways = [(0.0, start, start)]
    while ways:
        _, before, here = heapq.heappop(ways)
        if here != before:
            if np.isfinite(turns[here]):
                continue
            turns[here] = phase[here] + np.rint(turns[before] - phase[here])
        for row, column in (
            (here[0] + 1, here[1]),
            (here[0] - 1, here[1]),
            (here[0], here[1] + 1),
            (here[0], here[1] - 1),
        ):
            inside = 0 <= row < phase.shape[0] and 0 <= column < phase.shape[1]
            if inside and known[row, column] and np.isnan(turns[row, column]):
                jump = abs((phase[row, column] - phase[here] + 0.5) % 1 - 0.5)
                heapq.heappush(ways, (jump - clear[row, column] / clear.max(), here, (row, column)))
    return turns


def _nodes(picture_size: tuple[int, int], to_mm: np.ndarray) -> tuple[tuple[int, int], np.ndarray]:
    """Size (width, height) of the flat page in pixels, and where the middles of its big squares lie in the picture.

    The squares reach one beyond the page on every side; float32 (rows, columns, 2).
    """
    width, height = picture_size
    corners = np.array([[[0, 0], [width, 0], [width, height], [0, height]]], np.float32)
    outline = cv2.perspectiveTransform(corners, to_mm)[0]
    first = np.floor(outline.min(axis=0) / BIG_SQUARE) * BIG_SQUARE
    n_columns, n_rows = np.ceil((outline.max(axis=0) - first) / BIG_SQUARE).astype(int)
    if max(n_columns, n_rows) * BIG_SQUARE > PAGE_MM[1]:
        raise StudyError("The page is seen from too steep an angle; photograph it from above, or scan it.")
    middles = np.mgrid[-1 : n_rows + 1, -1 : n_columns + 1][::-1].transpose(1, 2, 0) * BIG_SQUARE + BIG_SQUARE / 2
    middles = (middles + first - 0.5 / PX).astype(np.float32)  # a pixel's middle is half a pixel from its edge
    back = np.linalg.inv(to_mm)
    return (n_columns * _CELL, n_rows * _CELL), cv2.perspectiveTransform(middles, back)


def _sampled(picture: np.ndarray, nodes: np.ndarray, size: tuple[int, int], border: float = 0) -> np.ndarray:
    """Look the flat page up in the picture, between nodes in straight lines."""
    rows, columns = nodes.shape[:2]
    where = cv2.resize(nodes, (columns * _CELL, rows * _CELL), interpolation=cv2.INTER_LINEAR)[
        _CELL:-_CELL, _CELL:-_CELL
    ]
    return cv2.remap(picture, where, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT, borderValue=(border,) * 3)


def _offsets(flat: np.ndarray, unit: float) -> np.ndarray:
    """How far the grid of every big square still lies from where it should, float32 (rows, columns, 2) in mm.

    The big squares' lines tell within 2.5 mm, those of the small ones more finely where they can be seen.
    """
    offsets = []
    for direction in (np.array([1.0, 0.0]), np.array([0.0, 1.0])):
        offset = np.zeros([side // _CELL for side in flat.shape], np.float32)
        for mm in (BIG_SQUARE, 1) if unit == BIG_SQUARE else (1,):
            phase, clear = _local_phases(flat, direction / (mm * PX), _CELL)
            # a line's middle lies on the edge between two pixels, half a pixel from either's middle
            wave = clear * np.exp(2j * np.pi * (phase - 0.5 / (mm * PX)))
            real, imaginary = (cv2.blur(part.astype(np.float32), (3, 3)) for part in (wave.real, wave.imag))
            here = np.arctan2(imaginary, real) / (2 * np.pi) * mm
            seen = np.hypot(real, imaginary) > 0.4 * np.percentile(clear, 80)
            offset = np.where(seen, here + np.rint((offset - here) / mm) * mm, offset).astype(np.float32)
            offset = cv2.medianBlur(offset, 5)
        offsets.append(offset)
    return np.stack(offsets, axis=2)


def _moved(nodes: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Nodes that look where the grid is: a grid found too far left (positive phase) is fetched from there."""
    offsets = cv2.copyMakeBorder(offsets, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    along = np.gradient(nodes, axis=1) / BIG_SQUARE
    down = np.gradient(nodes, axis=0) / BIG_SQUARE
    return (nodes - along * offsets[..., :1] - down * offsets[..., 1:]).astype(np.float32)


def _page(picture: np.ndarray, nodes: np.ndarray, size: tuple[int, int], is_exact: bool) -> Page:
    """Fetch the page, take shadows and the grid away, and keep the ink."""
    flat = _sampled(picture, nodes, size, border=255)
    inside = _sampled(np.full(picture.shape[:2], 255, np.uint8), nodes, size) > 127
    dark = np.where(inside, _darkness(flat), 0)
    grid = _median_cells(dark)
    left = np.clip(dark - grid, 0, None) / np.clip(1 - grid, 0.25, None)
    hidden = grid > 0.5
    if hidden.any():  # lines as dark as ink: what crosses them is what stands on both sides
        left = np.where(hidden, cv2.morphologyEx(left, cv2.MORPH_CLOSE, np.ones((5, 5))), left)
    full = np.percentile(left[left > 0.25], 80) if (left > 0.25).mean() > 1e-4 else 1.0
    ink = np.clip(left / full, 0, 1).astype(np.float32)
    scale = np.hypot(*(np.gradient(nodes, axis=1).mean(axis=(0, 1)))) / BIG_SQUARE
    return Page(ink, cv2.cvtColor(flat, cv2.COLOR_RGB2GRAY), inside, float(scale), is_exact)


def _darkness(picture: np.ndarray) -> np.ndarray:
    """Darkness (0 paper, 1 black) of the lightest colour, beside the lightest paper around: float32 (h, w)."""
    light = picture.max(axis=2)
    small = cv2.resize(light, None, fx=1 / 8, fy=1 / 8, interpolation=cv2.INTER_AREA)
    paper = cv2.medianBlur(cv2.dilate(small, np.ones((5, 5))), 9)
    paper = cv2.resize(cv2.blur(paper, (5, 5)), light.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return np.clip(1 - light / np.maximum(paper.astype(np.float32), 1), 0, 1)


def _median_cells(dark: np.ndarray) -> np.ndarray:
    """Repeat over the page what the median big square of a neighbourhood looks like: the grid without ink."""
    rows, columns = (side // _CELL for side in dark.shape)
    cells = dark.reshape(rows, _CELL, columns, _CELL)
    grid = np.empty_like(cells)
    row_edges, column_edges = (np.linspace(0, n, max(1, round(n / 12)) + 1).astype(int) for n in (rows, columns))
    for top, bottom in pairwise(row_edges):
        for first, last in pairwise(column_edges):
            part = cells[top:bottom, :, first:last]
            grid[top:bottom, :, first:last] = np.median(part, axis=(0, 2), keepdims=True)
    return grid.reshape(dark.shape)
