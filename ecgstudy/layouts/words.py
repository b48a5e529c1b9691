"""The names of leads on a page: small shapes that stand apart from the traces, compared with names in some fonts."""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ecgstudy.data.base import STANDARD_LEADS
from ecgstudy.layouts.layout import INVERTED
from ecgstudy.layouts.page import PX

NAMES = (*STANDARD_LEADS, f"{INVERTED}aVR")
TALL_MM, WIDE_MM = (1.3, 5.5), 6.0
"""Heights of letters, and how wide one may be, mm."""
ALIKE = 0.72
"""Least correlation of a word with a name."""
_SIZE = 32
"""Height that words are compared at, pixels."""
_FONTS = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSansMono.ttf")


class Word(NamedTuple):
    """A name of a lead on the page; all in pixels."""

    name: str
    x: int  # left
    y: float  # middle
    box: tuple[slice, slice]


def find_words(ink: np.ndarray) -> tuple[list[Word], np.ndarray]:
    """Names of leads that stand apart from other ink, and what else is as small as letters (bool, like `ink`)."""
    solid = (ink > 0.4).astype(np.uint8)
    _, marks, boxes, _ = cv2.connectedComponentsWithStats(solid, connectivity=8)
    x, y, width, height = boxes[:, :4].T
    small = (height <= TALL_MM[1] * PX) & (width <= WIDE_MM * PX)
    letters = np.flatnonzero(small & (height >= TALL_MM[0] * PX))
    bars = np.flatnonzero(small & (height < 0.8 * PX) & (width > 0.7 * PX) & (width < 3 * PX))
    words = []
    for group in _groups(boxes, letters, bars):
        left, top = x[group].min(), y[group].min()
        right, bottom = (x + width)[group].max(), (y + height)[group].max()
        box = slice(top, bottom), slice(left, right)
        if name := named(ink[box] * np.isin(marks[box], group)):
            words.append(Word(name, int(left), (top + bottom) / 2, box))
    return words, small[marks] & (marks > 0)


def _groups(boxes: np.ndarray, letters: np.ndarray, bars: np.ndarray) -> list[list[int]]:
    """Letters side by side, as words; a short bar before the first is a minus sign."""
    groups: list[list[int]] = []
    for at in letters[np.argsort(boxes[letters, 0], kind="stable")]:
        x, y, _, height = boxes[at, :4]
        for group in groups:
            last_x, last_y, last_width, last_height = boxes[group[-1], :4]
            gap, overlap = x - last_x - last_width, min(y + height, last_y + last_height) - max(y, last_y)
            if -2 <= gap < 0.7 * max(height, last_height) and overlap > 0.6 * min(height, last_height):
                group.append(at)
                break
        else:
            groups.append([at])
    groups = [group for group in groups if len(group) <= 3]  # of letters: aVR; III
    for group in groups:
        x, y, _, height = boxes[group[0], :4]
        near = [
            bar
            for bar in bars
            if 0 <= x - boxes[bar, 0] - boxes[bar, 2] < 0.7 * height and y < boxes[bar, 1] < y + height
        ]
        group.extend(near[:1])
    return groups


def named(word: np.ndarray) -> str | None:
    """Name of a lead that a word looks like, None where it looks like none."""
    aspect = word.shape[1] / word.shape[0]
    word = _framed(cv2.resize(word, (max(2, round(_SIZE * aspect)), _SIZE), interpolation=cv2.INTER_AREA))
    scores: dict[str, float] = {}
    for name, template in _templates():
        if abs(np.log((template.shape[1] - 4) / (word.shape[1] - 4))) < 0.35:
            same = cv2.resize(template, word.shape[::-1], interpolation=cv2.INTER_AREA)
            scores[name] = max(scores.get(name, 0), float(np.corrcoef(same.ravel(), word.ravel())[0, 1]))
    best = max(scores, key=scores.__getitem__, default=None)
    return best if best and scores[best] > ALIKE else None


def _framed(word: np.ndarray) -> np.ndarray:
    """Word with paper around it, so that a bar is a shape too."""
    return np.pad(word, 2).astype(np.float32)


@lru_cache(maxsize=1)
def _templates() -> tuple[tuple[str, np.ndarray], ...]:
    """Every name in every font, as high as words are compared at."""
    templates = []
    for name in NAMES:
        for thickness in (2, 4):
            canvas = np.zeros((100, 300), np.uint8)
            cv2.putText(canvas, name, (10, 70), cv2.FONT_HERSHEY_SIMPLEX, 2, 255, thickness, cv2.LINE_AA)
            templates.append((name, canvas))
        for font in _FONTS:
            canvas = Image.new("L", (300, 100))
            file = Path(mpl.get_data_path()) / "fonts" / "ttf" / font
            ImageDraw.Draw(canvas).text((10, 10), name, 255, ImageFont.truetype(str(file), 56))
            templates.append((name, np.asarray(canvas)))
    return tuple((name, _framed(_cut(canvas))) for name, canvas in templates)


def _cut(canvas: np.ndarray) -> np.ndarray:
    """Canvas cut to its word and brought to the height of comparison, 0 to 1."""
    rows, columns = (np.flatnonzero(canvas.max(axis=axis) > 100) for axis in (1, 0))
    word = canvas[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] / np.float32(255)
    return cv2.resize(word, (max(2, round(_SIZE * word.shape[1] / word.shape[0])), _SIZE), interpolation=cv2.INTER_AREA)
