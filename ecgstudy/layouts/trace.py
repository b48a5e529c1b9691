"""From ink to traces: how many rows there are, and where each row's line runs.

A row's line is the cheapest way from the left edge to the right: free through ink, dear over paper, so that it climbs
a QRS complex along its strokes and jumps over gaps. Every column of pixels then tells the highest and the lowest ink
that belongs to the line, and rolling a disc as wide as the pen between the two gives the middle of the stroke.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from scipy import ndimage, signal

from ecgstudy.errors import StudyError
from ecgstudy.layouts.page import PX

REACH = 32 * PX
"""How far from its row's middle a line is followed, pixels: 3.2 mV."""
_ON_INK, _PAPER, _ALONG, _LEVEL, _AWAY = 0.45, 1.0, 0.004, 4.0, 0.001
"""Ink that counts; cost of a pixel of paper and of one of ink on the way up or down, how much dearer the way to the
right is (a line is interrupted more seldom than it jumps), cost of a pixel away from the row's middle, a column."""
_BESIDE = 0.5
"""Cost of a pixel away from the row's middle where a line begins and ends: it does so by its own row."""
_HIDDEN = 0.5
"""Cost of a pixel of ink on the way to the right that may be the letters' alone."""
_FINE, _REFINEMENTS = 3, 12


@dataclass(frozen=True)
class Lines:
    """The lines of all rows."""

    points: tuple[tuple[np.ndarray, ...], ...]  # of each row and stretch, float (n, 2): x and y of the stroke's middle
    breaks: tuple[float, ...]  # where stretches end
    inked: np.ndarray  # bool (n_rows, width): there is ink under the line
    shared: np.ndarray  # bool, of the same shape: that ink belongs to another row's line too
    pen: float  # radius of the stroke, pixels

    def heights(self, row: int, x: np.ndarray) -> np.ndarray:
        """Height of a row's line at some places, in straight lines between its points, level beyond them."""
        parts = np.searchsorted(self.breaks[: len(self.points[row]) - 1], x, side="right")
        return np.choose(parts, [np.interp(x, *points.T) for points in self.points[row]])


def row_middles(ink: np.ndarray) -> np.ndarray:
    """Heights of the rows, in pixels from the top: as many as most columns of pixels cross lines."""
    solid = ink > _ON_INK
    edges = np.diff(np.pad(solid, ((1, 1), (0, 0))).astype(np.int8), axis=0)
    counts = (edges == 1).sum(axis=0)
    inked = np.flatnonzero(counts)
    if not len(inked):
        return np.empty(0)
    first, last = np.percentile(inked, [10, 90]).astype(int)
    n_rows = int(np.bincount(counts[first : last + 1]).argmax())
    typical = first + np.flatnonzero(counts[first : last + 1] == n_rows)
    tops = np.nonzero(edges[:, typical].T == 1)[1].reshape(-1, n_rows)
    bottoms = np.nonzero(edges[:, typical].T == -1)[1].reshape(-1, n_rows)
    return np.median((tops + bottoms - 1) / 2, axis=0)


def follow(
    ink: np.ndarray, rows: np.ndarray, ends: Sequence[float], n_strips: int = 0, hidden: np.ndarray | None = None
) -> Lines:
    """Follow the line of every row, on stretches that end at some places, where other leads begin somewhere else.

    The last `n_strips` rows are one stretch. Under what is `hidden` (bool, like `ink`) a line may run unseen.
    """
    stretches = [slice(*pair) for pair in pairwise(np.ceil(ends).astype(int))]
    whole, n_columns = slice(stretches[0].start, stretches[-1].stop), len(rows) - n_strips
    cost = _ALONG + _PAPER * np.clip(1 - 1.6 * ink, 0, 1)
    level = cost if hidden is None else np.where(hidden, np.maximum(cost, _HIDDEN), cost)
    paths = np.zeros((2, len(rows), ink.shape[1]), int)
    above, below = [(slice(n_columns), part) for part in stretches], [(slice(n_columns, None), whole)]
    for of, part in [*above, *(below if n_strips else [])]:
        paths[:, of, part] = _paths(cost[:, part], level[:, part], rows[of])
    top, bottom, inked, shared = _extents(ink, paths)
    for unknown in (slice(0, whole.start), slice(whole.stop, None)):
        top[:, unknown] = bottom[:, unknown] = np.nan
        inked[:, unknown] = shared[:, unknown] = False
    if not (np.isfinite(top).any(axis=1) & np.isfinite(bottom).any(axis=1)).all():
        raise StudyError("a row of the page shows no trace of its own.")
    pen = _pen((bottom - top)[inked & ~shared])
    if hidden is not None:
        near = cv2.dilate(hidden.astype(np.uint8), np.ones((7, 1))) > 0
        for edge in (top, bottom):
            at = np.rint(np.nan_to_num(edge)).astype(int).clip(0, len(ink) - 1)
            edge[near[at, np.arange(ink.shape[1])]] = np.nan
    breaks = ends[1:-1]
    if _separated(ink, rows, breaks):
        for place in breaks:
            beside = slice(int(np.ceil(place - wide(pen) - 1)), int(place + wide(pen) + 2))
            top[:n_columns, beside] = bottom[:n_columns, beside] = np.nan
    points = []
    for row, middle in enumerate(np.where(inked, paths.mean(axis=0), np.nan)):
        parts = stretches if row < n_columns else [whole]
        points.append(tuple(_refined(top[row], bottom[row], middle, pen, part) for part in parts))
    return Lines(tuple(points), tuple(breaks), inked, shared, pen)


def _pen(thickness: np.ndarray) -> float:
    """Radius of the stroke: half of the most common thickness, which level lines have."""
    counts, edges = np.histogram(thickness, np.arange(1, 12, 0.25))
    common = np.abs(thickness - edges[counts.argmax()] - 0.125) < 0.4
    return float(thickness[common].mean() / 2)


def wide(pen: float) -> float:
    """Half the width that a stroke of radius `pen` has in a row of pixels: steep strokes fill pixels only in part."""
    return 0.6 * pen + 0.6


def _separated(ink: np.ndarray, rows: np.ndarray, breaks: Sequence[float]) -> bool:
    """Whether ticks or lines stand where another lead begins."""
    heights = np.rint(rows[:, None] + np.arange(-2 * PX, 2 * PX + 1)).astype(int).clip(0, len(ink) - 1)
    return any((ink[heights, round(place)] > _ON_INK).mean() > 0.35 for place in breaks)


def _paths(cost: np.ndarray, level: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """First and last height at which the cheapest way of each row crosses each column, int (2, n_rows, width)."""
    width, tall, rows = cost.shape[1], 2 * REACH + 1, np.rint(rows).astype(int)
    upwards, level = (
        np.ascontiguousarray(np.pad(each, ((REACH, REACH), (0, 0)), constant_values=_PAPER).T, dtype=np.float32)
        for each in (cost, level)
    )
    sums = np.cumsum(upwards, axis=1, dtype=np.float32)
    away, beside = ((dear * np.abs(np.arange(tall) - REACH)).astype(np.float32) for dear in (_AWAY, _BESIDE))
    windows = rows[:, None] + np.arange(tall)
    total = np.tile(beside, (len(rows), 1))
    reached = np.empty((width, len(rows), tall), np.float32)
    for x in range(width):
        here = sums[x][windows]
        down = np.minimum.accumulate(total - here, axis=1) + here
        up = np.minimum.accumulate((total + here)[:, ::-1], axis=1)[:, ::-1] - here
        reached[x] = total
        total = np.minimum(down, up) + _LEVEL * level[x][windows] + away
        total -= total.min(axis=1, keepdims=True)
    paths = np.empty((2, len(rows), width), int)
    at, each = np.argmin(total + beside, axis=1), np.arange(len(rows))
    for x in range(width - 1, -1, -1):
        here = sums[x][windows]
        before = np.argmin(reached[x] + np.abs(here - here[each, at][:, None]), axis=1)
        paths[:, :, x] = before, at
        at = before
    return paths + (rows - REACH)[None, :, None]


def _extents(ink: np.ndarray, paths: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Upper and lower edge of each line's ink in each column, whether there is ink, and whether another line shares it.

    Edges are in pixels and parts of them, NaN where there is no ink or it runs into another line's.
    """
    height, width = ink.shape
    solid = cv2.morphologyEx((ink > _ON_INK).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 1))) > 0
    (paper_above, paper_below), (ink_above, ink_below) = _nearest(~solid), _nearest(solid)
    low, high = np.clip(paths.min(axis=0), 0, height - 1), np.clip(paths.max(axis=0), 0, height - 1)
    x = np.arange(width)[None]
    # between the two heights, or near them
    top, bottom = ink_below[np.clip(low - 3, 0, height - 1), x], ink_above[np.clip(high + 3, 0, height - 1), x]
    found = top <= bottom
    top, bottom = np.where(found, top, 0).astype(int), np.where(found, bottom, 0).astype(int)
    first, last = paper_above[top, x].astype(int) + 1, paper_below[bottom, x].astype(int) - 1
    upper = np.where(found, first - _part(ink, first, -1, x), np.nan)
    lower = np.where(found, last + _part(ink, last, 1, x), np.nan)
    shared = np.zeros(found.shape, bool)
    for row in range(len(found) - 1):  # ink of two lines: where one ends and the other begins is not to be seen
        common = found[row] & found[row + 1] & (last[row] >= first[row + 1])
        shared[row : row + 2] |= common
        lower[row, common] = upper[row + 1, common] = np.nan
        upper[row, common & (low[row + 1] < low[row])] = np.nan
        lower[row + 1, common & (high[row] > high[row + 1])] = np.nan
    return upper, lower, found, shared


def _nearest(there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nearest height at or above each pixel, and at or below it, where something is there; -1 or the height without."""
    y, none = np.arange(len(there), dtype=np.int16)[:, None], np.int16(len(there))
    above = np.maximum.accumulate(np.where(there, y, np.int16(-1)), axis=0)
    return above, np.minimum.accumulate(np.where(there, y, none)[::-1], axis=0)[::-1]


def _part(ink: np.ndarray, inner: np.ndarray, side: int, x: np.ndarray) -> np.ndarray:
    """How far the ink reaches beyond the middle of its last pixel, by the ink in the two pixels on either side."""
    rows = (np.clip(inner + step * side, 0, len(ink) - 1) for step in (-1, 0, 1, 2))
    return np.clip(sum(ink[row, x] for row in rows) - 1.5, -0.5, 1.5)


def _refined(top: np.ndarray, bottom: np.ndarray, way: np.ndarray, pen: float, part: slice) -> np.ndarray:
    """Points (n, 2), `_FINE` a pixel, along which a disc of radius `pen` would leave ink with these edges in a part.

    From the rolled disc's points on, the place where the disc touches an edge is moved by what the edge is off, again
    and again; places that touch nothing follow their neighbours.
    """
    top, bottom = top[part], bottom[part]
    if not (np.isfinite(top).any() and np.isfinite(bottom).any()):
        return np.array([[part.start, np.nan]])
    edges, way = np.isfinite(top) | np.isfinite(bottom), way[part]
    seen = np.flatnonzero(edges | np.isfinite(way))
    columns = np.arange(seen[0], seen[-1] + 1)
    x = seen[0] + np.arange((len(columns) - 1) * _FINE + 1) / _FINE
    unseen = np.flatnonzero(~edges & np.isfinite(way))
    known = np.concatenate([_middle(top, bottom, pen), np.stack([unseen, way[unseen]], axis=1)])
    y = np.interp(x, *known[np.argsort(known[:, 0], kind="stable")].T)
    reach = int(wide(pen) * _FINE)
    offsets = np.arange(-reach, reach + 1)
    arc = pen * np.sqrt(1 - (offsets / _FINE / wide(pen)) ** 2)
    places = np.clip((columns - seen[0])[:, None] * _FINE + offsets, 0, len(x) - 1)
    each = np.arange(len(columns))
    for _ in range(_REFINEMENTS):
        reached = y[places]
        total, touched = np.zeros(len(x)), np.zeros(len(x))
        for edge, side in ((top[columns], -1), (bottom[columns], 1)):
            ends = side * reached + arc
            at = ends.argmax(axis=1)
            off = edge - side * ends[each, at]
            known = np.isfinite(off)
            place = places[each, at][known]
            total += np.bincount(place, off[known], len(x))
            touched += np.bincount(place, minlength=len(x))
        y += 0.3 * total / np.maximum(touched, 1)
        bend = np.convolve(y, [0.5, -1, 0.5], "same")
        bend[[0, -1]] = 0
        y += np.where(touched == 0, 0.5, 0.05) * bend
    return np.stack([part.start + x, y], axis=1)


def _middle(top: np.ndarray, bottom: np.ndarray, pen: float) -> np.ndarray:
    """Points (n, 2) in the middle of a stroke of radius `pen` with these edges.

    A disc that rolls along the upper edge finds what points up, along the lower edge what points down; elsewhere both
    agree. Where a tip is too sharp for the disc, the tip of the ink tells.
    """
    x = np.flatnonzero(np.isfinite(top) | np.isfinite(bottom))
    seen_top, seen_bottom = np.isfinite(top[x]), np.isfinite(bottom[x])
    top, bottom = (np.interp(x, np.flatnonzero(np.isfinite(edge)), edge[np.isfinite(edge)]) for edge in (top, bottom))
    up, down = _rolled(x, top, pen), -_rolled(x, -bottom, pen)
    half = (top + bottom) / 2
    points_up = half < ndimage.median_filter(half, 31)
    both = down - up < 1
    y = np.where(both, (up + down) / 2, np.where(points_up, up, down))
    keep = np.where(both, seen_top & seen_bottom, np.where(points_up, seen_top, seen_bottom))
    sharp = []
    for edge, rolled, seen, side in ((top, up, seen_top, 1), (-bottom, -down, seen_bottom, -1)):
        for height, first, last in _tips(edge, pen, rolled):
            if seen[first : last + 1].all():
                if (first + last) % 2 == 0:
                    keep[(first + last) // 2] = False  # the column right there, which the disc was too wide for
                sharp.append(((x[first] + x[last]) / 2, side * height))
    points = np.concatenate([np.stack([x, y], axis=1)[keep], np.array(sharp).reshape(-1, 2)])
    return points[np.argsort(points[:, 0], kind="stable")]


def _rolled(x: np.ndarray, edge: np.ndarray, pen: float) -> np.ndarray:
    """Height of the middle of a disc of radius `pen` that rests on an upper edge from below."""
    offsets = np.unique(np.outer([-1, 1], [*range(int(pen) + 1), pen]))
    return np.max([np.interp(x + off, x, edge) + np.sqrt(pen**2 - off**2) for off in offsets], axis=0)


def _tips(edge: np.ndarray, pen: float, rolled: np.ndarray) -> Iterator[tuple[float, int, int]]:
    """Height of the stroke's middle at the tips of an upper edge that the disc is too wide for, and their columns."""
    for at in signal.find_peaks(-edge, prominence=2 * pen)[0]:
        first, last = at, at
        while first > 0 and last - first < 2 * pen + 1 and edge[first - 1] < edge[at] + 1.5:
            first -= 1
        while last < len(edge) - 1 and last - first < 2 * pen + 1 and edge[last + 1] < edge[at] + 1.5:
            last += 1
        if rolled[first : last + 1].max() - edge[at] - pen > 0.5:
            yield float(edge[at] + pen), first, last
