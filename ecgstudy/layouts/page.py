"""From a picture of an ECG page to its ink, flat and to scale: loading, the grid, shadows, colours.

The printed grid is the ruler. Its lines are found as peaks of the spectrum, followed over the page as local phases, and
undo rotation, perspective and folds in one step; what the median cell of the grid looks like is then taken away, in
whatever colour it was printed, and what is left is ink.
"""

import warnings
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ecgstudy.errors import StudyError
from ecgstudy.layouts.ruler import BIG_SQUARE, PAGE_MM, darkness, grid_lines, grid_points, grid_vectors, local_phases

PX = 8
"""Pixels a mm of a flattened page: 200 dots an inch and a little."""
MAX_PIXELS, MAX_BYTES, MIN_SIDE = 60_000_000, 100_000_000, 300
TOO_LARGE = f"has more than {MAX_PIXELS // 10**6} million pixels; save it at 200 to 300 dots an inch."
WORKING_SIDE = 2800
"""Longer side that a picture is brought to, pixels: a page of 300 mm keeps 9 a mm."""
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
MM_PER_INCH = 25.4
LEAST_SEEN = 0.5
"""Share of the picture in which a grid must be seen whose spacing was not told for certain."""
EDGE_MM = 30
"""Least length of what is seen beside the page, if only narrowly."""
_CELL = PX * BIG_SQUARE


@dataclass(frozen=True)
class Page:
    """A page laid flat."""

    ink: np.ndarray  # float32 (h, w), 0 paper to 1 ink, PX pixels a mm
    paper: np.ndarray  # uint8 (h, w), the flattened page in grey, to draw on
    inside: np.ndarray  # bool (h, w), where the picture shows the page's plane
    scale: float  # pixels a mm of the picture as it was given
    is_exact: bool  # measured by a grid, not by pulses or hearsay
    nodes: np.ndarray  # float32 (rows, columns, 2): where the picture shows the middles of squares of 5 mm, and around


def load_picture(path: Path) -> tuple[np.ndarray, float]:
    """Read a picture, uint8 (h, w, 3) RGB, the way up that its camera noted, and the share it was shrunk to.

    It is shrunk where it is more than `WORKING_SIDE` pixels long.

    Raises `StudyError` for what is no picture, is too large or too small, is damaged or holds several pages. No more
    than the header is read of a file before its size is known to be bearable.
    """
    try:
        if path.is_dir():
            raise StudyError(f"{path} is a folder; give the path of a picture of an ECG page.")
        if not path.is_file():
            raise StudyError(f"There is no file {path}; give the path of a picture of an ECG page.")
        with path.open("rb") as file:
            start = file.read(1024)
    except OSError as error:
        reason = (error.strerror or "unreadable").lower()
        raise StudyError(f"{path} cannot be opened ({reason}); give a picture file that you may read.") from None
    if start.lstrip().startswith(b"%PDF"):
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
    except Image.DecompressionBombError:
        raise StudyError(f"{path} {TOO_LARGE}") from None
    except UnidentifiedImageError:
        raise StudyError(f"{path} is no picture; give a {' or '.join(FORMATS)}.") from None
    except Exception:  # decoders raise whatever they like on damaged files
        raise StudyError(f"{path} is damaged: its picture cannot be decoded; scan or save it again.") from None


def _pixels(picture: Image.Image, path: Path) -> tuple[np.ndarray, float]:
    """Decode one picture whose size is bearable."""
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise StudyError(f"{path} {TOO_LARGE}")
    if min(width, height) < MIN_SIDE:
        size = f"{width} x {height} pixels"
        raise StudyError(f"{path} is {size}, too few for an ECG; scan it at 200 dots an inch or more.")
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


def flatten(picture: np.ndarray, dpi: float | None = None) -> Page:
    """Lay a page flat by its grid, or without one by its calibration pulses, or by a told resolution.

    `StudyError` where none of them is there, and for a page that is seen from too far aside.
    """
    lines = grid_lines(picture)
    vectors = grid_vectors(lines)
    points = None if vectors is None else grid_points(lines, *vectors)
    if points is None and vectors is not None:  # of a grid that was drawn in pixels every third half line stands out
        steps = vectors[0] * 1.5
        points = grid_points(lines, steps, vectors[1])
        if points is not None and len(points[0]) * (2 / np.hypot(*steps[0])) ** 2 < LEAST_SEEN * lines.size:
            points = None
    if points is not None:
        to_mm, _ = cv2.findHomography(*points, cv2.RANSAC, 0.6)
        if to_mm is not None:
            nodes = _nodes(picture, to_mm)
            return _page(picture, _moved(nodes, _offsets(_sampled(lines, nodes), vectors[1])), True)
    to_mm = by_pulses(picture)
    if to_mm is None and dpi is None:
        raise StudyError(
            "no ECG paper was found: no grid of 1 or 5 mm and no calibration pulses; scan the page so that its grid "
            "can be seen, or give the resolution by --dpi."
        )
    to_mm = np.diag([MM_PER_INCH / dpi] * 2 + [1]) if to_mm is None else to_mm
    return _page(picture, _nodes(picture, to_mm), False)


def straighten(picture: np.ndarray, page: Page, points: np.ndarray, squares: np.ndarray) -> Page:
    """Lay a page flat anew, so that points of it, (n, 2) in pixels, come to lie at places (n, 2) in mm."""
    at = ((points - (_CELL - 1) / 2) / _CELL + 1).astype(np.float32)
    where = cv2.remap(page.nodes, at[:, None, 0], at[:, None, 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    to_mm, _ = cv2.findHomography(where[:, 0], squares.astype(np.float32))
    return page if to_mm is None else _page(picture, _nodes(picture, to_mm), page.is_exact)


def by_pulses(picture: np.ndarray) -> np.ndarray | None:
    """Homography (3, 3) from pixels to mm that puts calibration pulses, 10 mm high, under each other; None without.

    Three rows or more must have a pulse of the same size: what is no ECG has no such column of them.
    """
    solid = cv2.morphologyEx((darkness(picture) > 0.3).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3)))
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


def _nodes(picture: np.ndarray, to_mm: np.ndarray) -> np.ndarray:
    """Where the picture shows the middles of big squares of the page, and of one around, float32 (rows, columns, 2)."""
    height, width = picture.shape[:2]
    corners = np.array([[[0, 0], [width, 0], [width, height], [0, height]]], np.float32)
    outline = cv2.perspectiveTransform(corners, to_mm)[0]
    first = np.floor(outline.min(axis=0) / BIG_SQUARE) * BIG_SQUARE
    n_columns, n_rows = np.ceil((outline.max(axis=0) - first) / BIG_SQUARE).astype(int)
    if max(n_columns, n_rows) * BIG_SQUARE > PAGE_MM[1]:
        raise StudyError("The page is seen from too steep an angle; photograph it from above, or scan it.")
    middles = np.mgrid[-1 : n_rows + 1, -1 : n_columns + 1][::-1].transpose(1, 2, 0) * BIG_SQUARE + BIG_SQUARE / 2
    middles = (middles + first - 0.5 / PX).astype(np.float32)  # a pixel's middle is half a pixel from its edge
    return cv2.perspectiveTransform(middles, np.linalg.inv(to_mm))


def _sampled(picture: np.ndarray, nodes: np.ndarray, border: float = 0) -> np.ndarray:
    """Look the flat page up in the picture, between nodes in straight lines."""
    rows, columns = nodes.shape[:2]
    where = cv2.resize(nodes, (columns * _CELL, rows * _CELL), interpolation=cv2.INTER_LINEAR)
    where = where[_CELL:-_CELL, _CELL:-_CELL]
    return cv2.remap(picture, where, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT, borderValue=(border,) * 3)


def _offsets(flat: np.ndarray, unit: float) -> np.ndarray:
    """How far the grid of every big square still lies from where it should, float32 (rows, columns, 2) in mm.

    The big squares' lines tell within 2.5 mm, those of the small ones more finely where they can be seen.
    """
    offsets = []
    for direction in (np.array([1.0, 0.0]), np.array([0.0, 1.0])):
        offset = np.zeros([side // _CELL for side in flat.shape], np.float32)
        for mm in (BIG_SQUARE, 1) if unit == BIG_SQUARE else (1,):
            phase, clear = local_phases(flat, direction / (mm * PX), _CELL)
            # a line's middle lies on the edge between two pixels, half a pixel from either's middle
            wave = clear * np.exp(2j * np.pi * (phase - 0.5 / (mm * PX)))
            real, imaginary = (cv2.blur(part.astype(np.float32), (3, 3)) for part in (wave.real, wave.imag))
            here = np.arctan2(imaginary, real) / (2 * np.pi) * mm
            seen = np.hypot(real, imaginary) > 0.4 * np.percentile(clear, 80)
            offset = _smooth(here + np.rint((offset - here) / mm) * mm, seen)
        offsets.append(offset)
    return np.stack(offsets, axis=2)


def _smooth(offset: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Fit a surface of third degree to what is seen, without outliers (folds, ink): paper bends smoothly."""
    y, x = np.mgrid[-1 : 1 : offset.shape[0] * 1j, -1 : 1 : offset.shape[1] * 1j]
    terms = np.stack([x**i * y**j for i in range(4) for j in range(4 - i)], axis=2)
    surface = np.zeros(offset.shape)
    for _ in range(4):
        if seen.sum() < 3 * terms.shape[2]:
            break
        surface = terms @ np.linalg.lstsq(terms[seen], offset[seen], rcond=None)[0]
        off = np.abs(offset - surface)
        seen = seen & (off < max(2.5 * np.median(off[seen]), 0.02))
    return surface.astype(np.float32)


def _moved(nodes: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Nodes that look where the grid is: a grid found too far left (positive phase) is fetched from there."""
    offsets = cv2.copyMakeBorder(offsets, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    along = np.gradient(nodes, axis=1) / BIG_SQUARE
    down = np.gradient(nodes, axis=0) / BIG_SQUARE
    return (nodes - along * offsets[..., :1] - down * offsets[..., 1:]).astype(np.float32)


def _page(picture: np.ndarray, nodes: np.ndarray, is_exact: bool) -> Page:
    """Fetch the page, take shadows and the grid away, and keep the ink."""
    flat = _sampled(picture, nodes, border=255)
    inside = _sampled(np.full(picture.shape[:2], 255, np.uint8), nodes) > 127
    dark = np.where(inside & ~_blots(flat, inside), darkness(flat), 0)
    grid = _median_cells(dark)
    left = np.clip(dark - grid, 0, None) / np.clip(1 - grid, 0.25, None)
    hidden = grid > 0.5
    if hidden.any():  # lines as dark as ink: what crosses them is what stands on both sides
        left = np.where(hidden, cv2.morphologyEx(left, cv2.MORPH_CLOSE, np.ones((5, 5))), left)
    full = np.percentile(left[left > 0.25], 80) if (left > 0.25).mean() > 1e-4 else 1.0
    ink = np.clip(left / full, 0, 1).astype(np.float32)
    scale = np.hypot(*(np.gradient(nodes, axis=1).mean(axis=(0, 1)))) / BIG_SQUARE
    return Page(ink, cv2.cvtColor(flat, cv2.COLOR_RGB2GRAY), inside, float(scale), is_exact, nodes)


def _blots(flat: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Where the picture is dark over more than a pen's width, or at its edge: a table, a hand, a bar; bool (h, w)."""
    small = cv2.resize(flat.max(axis=2), None, fx=1 / 4, fy=1 / 4, interpolation=cv2.INTER_AREA)
    beyond = cv2.resize((~inside).astype(np.uint8), small.shape[::-1], interpolation=cv2.INTER_NEAREST)
    dark = (small < 0.55 * np.percentile(small, 80)).astype(np.uint8)
    wide = np.ones((2 * PX // 4 + 1,) * 2)
    beside = cv2.morphologyEx(dark | beyond, cv2.MORPH_OPEN, wide) & dark
    _, marks, boxes, _ = cv2.connectedComponentsWithStats(beside, connectivity=8)
    beside[boxes[marks, 2:4].max(axis=2) < EDGE_MM * PX // 4] = 0  # where a trace ends at the picture's edge
    blots = cv2.morphologyEx(dark, cv2.MORPH_OPEN, wide) | beside
    return cv2.resize(cv2.dilate(blots, np.ones((5, 5))), flat.shape[1::-1], interpolation=cv2.INTER_NEAREST) > 0


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
