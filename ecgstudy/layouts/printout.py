"""Printing: a record on ECG paper as pixels, with the truth about every pixel of its traces.

The paper is landscape A4 (wider or higher where a layout needs it) with lines every 1 and 5 mm, 25 mm/s and 10 mm/mV
unless the layout says otherwise. Columns follow the conventions of ecg-image-kit: the k-th shows the k-th stretch of
time. Positions are in pixels, x to the right and y downwards, whole numbers in the middle of a pixel.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

from ecgstudy.errors import StudyError
from ecgstudy.layouts.layout import Layout, Stretch

MM_PER_INCH = 25.4
DPI_RANGE = (50, 600)
PAGE_MM = (297.0, 210.0)
LEFT_MM, RIGHT_MM, TOP_MM, HEADER_MM, BOTTOM_MM = 25.0, 22.0, 10.0, 15.0, 15.0
"""Room beside the traces (that on the left holds the pulse), above them, for a header above that, and below."""
ROW_MM = (12.0, 50.0)
"""Least and most height of a row."""
EDGE_MM = 5.0
"""White edge of the paper, without lines."""
BASELINE = 0.6
"""Where 0 mV lies in the height of a row: most waves point up."""
PULSE_S, PULSE_MV, PULSE_FOOT_MM = 0.2, 1.0, 2.0
TEXT_MM, NAME_MM, TICK_MM = 2.6, 3.0, 3.0
GRIDS = {
    "red": ((255, 249, 247), (250, 205, 203), (238, 150, 148)),
    "green": ((250, 254, 249), (200, 232, 205), (140, 200, 152)),
    "grey": ((255, 255, 255), (222, 222, 222), (178, 178, 178)),
    "none": ((255, 255, 255), (255, 255, 255), (255, 255, 255)),
}
"""Colours (RGB) of paper, lines every 1 mm and lines every 5 mm."""
LINES_MM = ((1.0, 0.12), (5.0, 0.2))
"""Distance and width of the lines."""
SEPARATORS = ("none", "ticks", "dotted", "solid")
PULSES = ("left", "right", "none")
NAMES = ("above", "trace", "none")
INKS = ((24, 24, 28), (20, 24, 70), (70, 66, 66))
SPECIMEN = (
    "SPECIMEN, NO PATIENT",
    "ID 0000000000   M / 00 Y",
    "HR 00 bpm   PR 000 ms   QRS 00 ms",
    "UNCONFIRMED REPORT",
)
"""A header that names nobody."""
_CAPITAL_PX = 22.0
"""Height of a capital letter at OpenCV's size 1."""
_SHIFT = 6
"""Binary places behind the point in the coordinates that OpenCV draws at."""


@dataclass(frozen=True)
class Style:
    """How a page looks; the default is what ``render`` prints."""

    grid: str = "red"  # of GRIDS
    separators: str = "none"  # between columns, in the colour of the ink
    pulse: str = "left"  # calibration, beside every row
    names: str = "above"  # of the leads: above their traces, on them, or nowhere
    header: tuple[str, ...] = ()  # lines above the traces
    legend: bool = True  # speed and gain below the traces
    ink: tuple[int, int, int] = INKS[0]  # RGB
    pen_mm: float = 0.35


@dataclass(frozen=True)
class Segment(Stretch):
    """A stretch of one lead on the page."""

    x: float  # pixels: where sample `start` lies
    y: float  # pixels: where 0 mV lies


@dataclass(frozen=True)
class Printout:
    """A page and what is on it.

    A sample of a segment lies at ``x + (sample - start) * px_per_sample`` and ``y - sign * mV * px_per_mv``.
    """

    image: np.ndarray  # uint8 (height, width, 3), RGB
    layout: Layout
    leads: tuple[str, ...]
    fs: float
    values: np.ndarray  # float32 (n_leads, n_samples), mV; NaN where nothing is shown
    shown: np.ndarray  # bool, of the same shape
    px_per_mm: float
    segments: tuple[Segment, ...]
    pulses: tuple[tuple[float, float], ...]  # lower left corner of each calibration pulse, pixels

    @property
    def px_per_sample(self) -> float:
        """Pixels from one sample to the next."""
        return self.layout.speed * self.px_per_mm / self.fs

    @property
    def px_per_mv(self) -> float:
        """Pixels that 1 mV is high."""
        return self.layout.gain * self.px_per_mm

    def points(self, segment: Segment) -> np.ndarray:
        """Where the samples of a segment lie, float64 (n, 2) as x and y in pixels; NaN where they are not known."""
        values = self.values[self.leads.index(segment.lead), segment.span].astype(float)
        x = segment.x + np.arange(len(values)) * self.px_per_sample
        return np.column_stack([x, segment.y - segment.sign * values * self.px_per_mv])


def draw(
    values: np.ndarray, leads: Sequence[str], fs: float, layout: Layout, dpi: int = 200, style: Style | None = None
) -> Printout:
    """Draw a record.

    Parameters
    ----------
    values : float (n_leads, n_samples), mV; no line is drawn where it is NaN.
    leads : names of the leads, those of the layout among them.
    fs : sampling rate, Hz.
    dpi : pixels an inch.

    Raises
    ------
    StudyError
        The record lacks a lead that the layout shows, or the resolution is out of range.
    """
    style = style or Style()
    if absent := [lead for lead in layout.leads if lead not in leads]:
        raise StudyError(f"Without {', '.join(absent)} the layout {layout.name} cannot be drawn; choose another.")
    check_dpi(dpi)
    values = np.where(np.isfinite(values), values, np.nan).astype(np.float32)
    shown = layout.visible(leads, values.shape[1]) & np.isfinite(values)
    page = _Page.of(layout, values.shape[1] / fs, dpi / MM_PER_INCH, bool(style.header))
    image, values = _paper(page, style.grid).copy(), np.where(shown, values, np.float32(np.nan))
    segments = []
    for part in layout.stretches(values.shape[1]):
        x, y = LEFT_MM + part.start / fs * layout.speed, float(page.baseline(part.row))
        segments.append(Segment(**vars(part), x=x * page.scale, y=y * page.scale))
    wide, high, foot = PULSE_S * layout.speed, PULSE_MV * layout.gain, PULSE_FOOT_MM
    left = {"left": LEFT_MM - wide - 2 * foot - 1, "right": LEFT_MM + page.length + 2}.get(style.pulse)
    rows = () if left is None else range(page.n_rows)
    pulses = tuple(((left + foot) * page.scale, float(page.baseline(row) * page.scale)) for row in rows)
    pulse = np.array([(-foot, 0), (0, 0), (0, -high), (wide, -high), (wide, 0), (wide + foot, 0)]) * page.scale
    printout = Printout(image, layout, tuple(leads), fs, values, shown, page.scale, tuple(segments), pulses)
    _write(printout, page, style)
    lines = [printout.points(segment) for segment in segments]
    lines += [np.array(corner) + pulse for corner in pulses]
    lines += _separating(page, layout, style.separators)
    _stroke(image, lines, style.ink, style.pen_mm * page.scale)
    return printout


def check_dpi(dpi: int) -> None:
    """Refuse a resolution that pages are not drawn at."""
    if not DPI_RANGE[0] <= dpi <= DPI_RANGE[1]:
        raise StudyError(f"{dpi} dpi cannot be drawn; choose from {DPI_RANGE[0]} to {DPI_RANGE[1]}.")


def random_style(rng: np.random.Generator) -> Style:
    """Draw a style, every kind of it, half of them with a header; without a grid there is always a pulse."""
    grid, separators, pulse, ink = (kinds[rng.integers(len(kinds))] for kinds in ([*GRIDS], SEPARATORS, PULSES, INKS))
    if (grid, pulse) == ("none", "none"):
        pulse = "left"  # or nobody could tell the scale
    header, names = SPECIMEN if rng.random() < 0.5 else (), "trace" if rng.random() < 0.25 else "above"
    style = Style(grid, separators, pulse, names, header, ink=ink)
    return replace(style, legend=rng.random() < 0.8, pen_mm=rng.uniform(0.25, 0.45))


class _Page(NamedTuple):
    """Measures of a page in mm, and pixels a mm."""

    width: float
    height: float
    scale: float
    top: float  # of the first row
    n_rows: int
    row: float  # height of one
    length: float  # of the traces

    @classmethod
    def of(cls, layout: Layout, seconds: float, scale: float, header: bool) -> "_Page":
        n_rows, length, top = len(layout.rows) + len(layout.strips), seconds * layout.speed, TOP_MM + header * HEADER_MM
        row = float(np.clip(np.floor((PAGE_MM[1] - top - BOTTOM_MM) / n_rows), *ROW_MM))
        width, height = max(PAGE_MM[0], LEFT_MM + length + RIGHT_MM), max(PAGE_MM[1], top + n_rows * row + BOTTOM_MM)
        return cls(width, height, scale, top, n_rows, row, length)

    def baseline(self, row: int) -> float:
        """Height of 0 mV, on a line of the grid."""
        return np.rint(self.top + (row + BASELINE) * self.row)


@lru_cache(maxsize=8)
def _paper(page: _Page, grid: str) -> np.ndarray:
    """Empty paper with its lines; uint8 (height, width, 3), not to be written on."""
    colours = np.array(GRIDS[grid], dtype=np.float32)
    paper = colours[0]
    for (step, width), colour in zip(LINES_MM, colours[1:], strict=True):
        down, rows = _lines(page.height, page.scale, step, width)
        across, columns = _lines(page.width, page.scale, step, width)
        covered = np.maximum(down[:, None] * columns, across * rows[:, None])[..., None]
        paper = paper + (colour - paper) * covered
    paper = np.rint(paper).astype(np.uint8)
    paper.flags.writeable = False
    return paper


def _lines(side: float, scale: float, step: float, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Share of each pixel of a side that lines cover, all in mm but the scale, and which pixels may have lines."""
    mm = np.arange(round(side * scale)) / scale
    off = np.abs(mm - step * np.rint(mm / step)) * scale
    inside = (mm >= EDGE_MM - width) & (mm <= EDGE_MM * ((side - EDGE_MM) // EDGE_MM) + width)
    covered = np.clip((width * scale + 1) / 2 - off, 0, min(1, width * scale))
    return np.float32(covered * inside), inside


def _separating(page: _Page, layout: Layout, kind: str) -> Iterator[np.ndarray]:
    """Lines between the columns: points (2, 2) in pixels."""
    heights = [page.baseline(row) for row in range(len(layout.rows))]
    bottom = page.top + page.row * len(layout.rows)
    stretches = {
        "ticks": [(y - TICK_MM, y + TICK_MM) for y in heights],
        "dotted": [(y, y + 1) for y in np.arange(page.top, bottom, 2)],
        "solid": [(page.top, bottom)],
    }
    for column in range(1, layout.columns):
        x = LEFT_MM + page.length * column / layout.columns
        for start, stop in stretches.get(kind, ()):
            yield np.array([(x, start), (x, stop)]) * page.scale


def _write(printout: Printout, page: _Page, style: Style) -> None:
    """Write header, names of the leads, and legend."""
    texts = [(line, 2 * EDGE_MM, 2 * EDGE_MM + 4 * at, TEXT_MM) for at, line in enumerate(style.header)]
    height = {"above": min(9.0, 0.35 * page.row), "trace": 0.0}
    for segment in printout.segments if style.names in height else ():
        x, y = segment.x / page.scale + 1, segment.y / page.scale - height[style.names]
        texts.append((segment.written, x, y, NAME_MM))
    if style.legend:
        told = f"{printout.layout.speed:g} mm/s   {printout.layout.gain:g} mm/mV"
        texts.append((told, LEFT_MM, page.height - EDGE_MM - TEXT_MM, TEXT_MM))
    for text, x, y, high in texts:
        place, size = (round(x * page.scale), round(y * page.scale)), high * page.scale / _CAPITAL_PX
        cv2.putText(printout.image, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, style.ink, 1, cv2.LINE_AA)


def _stroke(image: np.ndarray, lines: Sequence[np.ndarray], ink: tuple[int, int, int], pen: float) -> None:
    """Draw lines of points (n, 2) in pixels with a pen of so many pixels; none to or from a point that is NaN."""
    far = max(image.shape) * 2.0  # what lies outside is not seen, and must not overflow
    thickness = max(1, 2 * round((pen - 1.5) / 2))  # OpenCV draws 1 as 1.4 pixels, 2 as 3.5, 4 as 5.5
    for points in lines:
        known = np.isfinite(points).all(axis=1)
        bounds = np.flatnonzero(np.diff(known, prepend=False, append=False)).reshape(-1, 2)
        fixed = np.rint(np.clip(np.where(known[:, None], points, 0), -far, far) * (1 << _SHIFT)).astype(np.int32)
        parts = [fixed[start:stop] for start, stop in bounds]
        cv2.polylines(image, parts, False, ink, thickness, cv2.LINE_AA, _SHIFT)
