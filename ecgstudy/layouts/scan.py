"""Defects of scans, copies and photos of paper, by severity and seed; where every point of the page went is known."""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from ecgstudy.errors import StudyError
from ecgstudy.layouts.printout import Printout

FLAT, TABLE = (246, 247, 248), (92, 78, 66)
"""Colours beside the page: the lid of a scanner, a table."""
FOLD_MM, CREASE_MM = 5.0, 0.35
"""Reach of the shading beside a fold, and half the width of its crease."""
COARSE = 4
"""Light changes slowly: it is made at a fraction of the resolution."""
ROWS_AT_ONCE = 32
THRESHOLD_MM, DARKER = 8.0, 30
"""A copy in black and white alone is black where it is so much darker than its surroundings of that size."""


@dataclass(frozen=True)
class Defects:
    """How bad a scan is: each defect is drawn between half of what stands here and all of it, or so often."""

    rotation: float = 0.0  # degrees, either way
    perspective: float = 0.0  # by which corners are off, share of the page's width
    crop_mm: float = 0.0  # cut from, or seen beside, the left and right edge; less above and below
    folds: int = 0
    shadow: float = 0.0  # share of the light that is lost
    tint: float = 0.0  # share by which red, green and blue differ
    noise: float = 0.0  # standard deviation, of 255
    blur_mm: float = 0.0  # standard deviation
    grey: float = 0.0  # share of copies without colours
    black_and_white: float = 0.0  # share of copies that know no grey either
    jpeg: int = 100  # quality
    table: float = 0.0  # share of photos, with a table beside the page


SEVERITIES = {
    "clean": Defects(),
    "mild": Defects(rotation=1, crop_mm=3, shadow=0.06, tint=0.01, noise=2.5, blur_mm=0.05, jpeg=90),
    "moderate": Defects(2.5, 0.006, 10, 1, 0.2, 0.03, 5, 0.08, 0.15, 0.05, 70, 0.5),
    "severe": Defects(6, 0.02, 20, 3, 0.4, 0.06, 10, 0.13, 0.2, 0.1, 45, 1),
}


class Scan(NamedTuple):
    """A scanned page, and the way from the printout's pixels to its own."""

    image: np.ndarray  # uint8 (height, width, 3), RGB
    homography: np.ndarray  # float64 (3, 3)

    def moved(self, points: np.ndarray) -> np.ndarray:
        """Where points of the printout, (n, 2) in pixels, lie in the scan."""
        return cv2.perspectiveTransform(points[None].astype(np.float64), self.homography)[0]


def defects_of(severity: str) -> Defects:
    """Give the defects of a severity; `StudyError` where there is none of that name."""
    if severity not in SEVERITIES:
        raise StudyError(f"There is no severity {severity!r} of a scan; choose one of {', '.join(SEVERITIES)}.")
    return SEVERITIES[severity]


def scan(printout: Printout, severity: str, seed: int) -> Scan:
    """Scan a page with defects of a severity: clean (none), mild, moderate or severe; `StudyError` for another one."""
    defects, rng = defects_of(severity), np.random.default_rng([seed, *severity.encode()])
    if defects == Defects():
        return Scan(printout.image.copy(), np.eye(3))
    image, scale = printout.image, printout.px_per_mm
    homography, size = _placed(image.shape, scale, defects, rng)
    folds = _folded(image.shape, scale, defects, rng)
    beside = TABLE if rng.random() < defects.table else FLAT
    image = cv2.warpPerspective(image, homography, size, flags=cv2.INTER_CUBIC, borderValue=beside)
    image = cv2.GaussianBlur(image, (0, 0), _between(defects.blur_mm * scale, rng))
    light, coarse = _light(image.shape, defects, rng), np.diag([COARSE, COARSE, 1.0])
    there = np.linalg.inv(coarse) @ homography @ coarse
    light *= cv2.warpPerspective(folds, there, light.shape[::-1], borderMode=cv2.BORDER_CONSTANT, borderValue=1)
    light = cv2.resize(light, size)
    tint = np.float32(1 + defects.tint * rng.uniform(-1, 1, 3))
    noise = np.float32(_between(defects.noise, rng))
    for start in range(0, len(image), ROWS_AT_ONCE):  # all at once takes five times as long
        part = image[start : start + ROWS_AT_ONCE]
        seen = part * light[start : start + ROWS_AT_ONCE, :, None] * tint
        seen += noise * rng.standard_normal((*part.shape[:2], 1), np.float32)
        part[:] = np.clip(seen, 0, 255)
    return Scan(_copied(image, scale, defects, rng), homography)


def _placed(
    shape: tuple[int, ...], scale: float, defects: Defects, rng: np.random.Generator
) -> tuple[np.ndarray, tuple[int, int]]:
    """Turn, tilt and crop a page: homography, and width and height of the picture."""
    height, width = shape[:2]
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], dtype=np.float32)
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), _between(defects.rotation, rng) * rng.choice([-1, 1]), 1)
    off = rng.uniform(-1, 1, (4, 2)) * defects.perspective * width
    moved = corners @ turn[:, :2].T + turn[:, 2] + off
    homography = cv2.getPerspectiveTransform(corners, moved.astype(np.float32))
    left, top, right, bottom = rng.uniform(-1, 1, 4) * defects.crop_mm * scale * np.array([1, 0.3, 1, 0.3])
    kept = [(left, top), (width - right, top), (width - right, height - bottom), (left, height - bottom)]
    seen = cv2.perspectiveTransform(np.array([kept]), homography)[0]
    low, high = np.floor(seen.min(axis=0)), np.ceil(seen.max(axis=0))
    shift = np.array([[1, 0, -low[0]], [0, 1, -low[1]], [0, 0, 1]])
    return shift @ homography, (int(high[0] - low[0]), int(high[1] - low[1]))


def _between(most: float, rng: np.random.Generator) -> float:
    """Draw between half of a number and all of it."""
    return most * rng.uniform(0.5, 1)


def _light(shape: tuple[int, ...], defects: Defects, rng: np.random.Generator) -> np.ndarray:
    """Share of the light that falls on a picture, dimmer to one side, with a soft shadow; float32, coarse."""
    height, width = (-(-side // COARSE) for side in shape[:2])
    x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)[:, None]

    def across(angle: float) -> np.ndarray:
        """Distance from the middle along a direction, from about -1 to 1."""
        return np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y

    dimmer = np.float32(_between(defects.shadow / 4, rng)) * (1 + across(rng.uniform(0, 2 * np.pi)))
    edge = (across(rng.uniform(0, 2 * np.pi)) - rng.uniform(-0.3, 0.8)) / rng.uniform(0.05, 0.4)
    return np.float32((1 - dimmer) * (1 - _between(defects.shadow / 2, rng) * (1 + np.tanh(edge)) / 2))


def _folded(shape: tuple[int, ...], scale: float, defects: Defects, rng: np.random.Generator) -> np.ndarray:
    """Share of the light that folds leave a page: a crease, and shading on both sides of it; float32, coarse."""
    height, width = (-(-side // COARSE) for side in shape[:2])
    x, y = np.arange(width, dtype=np.float32)[None], np.arange(height, dtype=np.float32)[:, None]
    light = np.ones((height, width), dtype=np.float32)
    for _ in range(round(_between(defects.folds, rng))):
        angle = rng.choice([0, np.pi / 2]) + rng.normal(0, 0.03)
        along = np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y
        off = (along - np.float32(rng.uniform(0.1, 0.9)) * along.max()) * np.float32(COARSE / scale)
        shade = np.tanh(off / CREASE_MM) * np.exp(-np.abs(off) / FOLD_MM) * np.float32(rng.choice([-1, 1]))
        crease = np.exp(-((off / CREASE_MM) ** 2))
        light *= 1 - np.float32(rng.uniform(0.05, 0.15)) * shade - np.float32(rng.uniform(0.1, 0.35)) * crease
    return light


def _copied(image: np.ndarray, scale: float, defects: Defects, rng: np.random.Generator) -> np.ndarray:
    """Give the picture as a copier and a JPEG file keep it."""
    kind = rng.random()
    if kind < defects.grey + defects.black_and_white:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        if kind < defects.black_and_white:
            around = 2 * round(THRESHOLD_MM * scale / 2) + 1
            grey = cv2.adaptiveThreshold(grey, 255, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY, around, DARKER)
        image = cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
    _, kept = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, defects.jpeg])
    return cv2.imdecode(kept, cv2.IMREAD_COLOR)[..., ::-1].copy()
