"""The names of leads on a page: small shapes that stand apart from the traces, compared with names in some fonts."""

from collections.abc import Sequence
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
TALL_MM, WIDE_MM = (1.7, 5.5), 6.0
"""Heights of letters, and how wide one may be, mm."""
ALIKE, UNLIKE, LEAST_LIKE = 0.72, 0.6, 0.5
"""Least correlation of a word with a name, most of one that is no name, and least of a name that lies on a trace."""
MOST_LETTERS, FEW = 4, 4
_SIZE = 32
"""Height that words are compared at, pixels."""
_PENS, _FONTS = (2, 4), ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSansMono.ttf")
N_FONTS = len(_PENS) + len(_FONTS)


class Word(NamedTuple):
    """A name of a lead on the page, or another short word; all in pixels."""

    name: str  # "" of another word
    x: int  # left
    y: float  # middle
    box: tuple[slice, slice]
    font: int  # that it was recognised in


def find_words(ink: np.ndarray) -> tuple[list[Word], np.ndarray]:
    """Names of leads and other short words that stand apart from other ink, and where they and other small marks are.

    The latter is bool, like `ink`. What is neither clearly a name nor clearly none is left out of the words.
    """
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
        alike, name, font = named(ink[box] * np.isin(marks[box], group))
        if alike > ALIKE or alike < UNLIKE:
            words.append(Word(name if alike > ALIKE else "", int(left), (top + bottom) / 2, box, font))
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
    groups = [group for group in groups if len(group) <= MOST_LETTERS]
    for group in groups:
        x, y, _, height = boxes[group[0], :4]
        gaps = x - boxes[bars, 0] - boxes[bars, 2]
        beside = (gaps >= 0) & (gaps < 0.7 * height) & (y < boxes[bars, 1]) & (boxes[bars, 1] < y + height)
        group.extend(bars[beside][:1])
    return groups


def tells(name: str) -> bool:
    """Whether a name tells a lead and which way up the page is: I, II and III, mere strokes, are found anywhere."""
    return name not in ("", *STANDARD_LEADS[:3])


def n_told(words: Sequence[Word]) -> int:
    """How many words are names that tell."""
    return sum(tells(word.name) for word in words)


def named(word: np.ndarray) -> tuple[float, str, int]:
    """Greatest correlation of a word with the name of a lead, that name, and the font that it is in."""
    word = _framed(word)
    best = 0.0, "", 0
    for (name, font), template in _templates().items():
        if abs(np.log((template.shape[1] - 4) / (word.shape[1] - 4))) < 0.35:
            same = cv2.resize(template, word.shape[::-1], interpolation=cv2.INTER_AREA)
            best = max(best, (float(np.corrcoef(same.ravel(), word.ravel())[0, 1]), name, font))
    return best


def letters_on_traces(
    ink: np.ndarray, places: Sequence[tuple[str, int, int]], words: Sequence[Word]
) -> tuple[np.ndarray, int]:
    """Where names lie that are one with their traces, bool like `ink`, and how many of them tell a lead for certain.

    They are sought where `places` says that traces begin, in the font and size of the other words, or in those that the
    first names of chest leads fit best in.
    """
    letters, n_found = np.zeros(ink.shape, bool), 0
    styles = [(word.font, word.box[0].stop - word.box[0].start) for word in words if tells(word.name)]
    if styles:
        style = max(styles, key=styles.count)
    else:  # the mere strokes of I to III are like ink of any kind
        chest = [place for place in places if place[0] in STANDARD_LEADS[6:]][:FEW]
        every = [(font, height) for font in range(N_FONTS) for height in range(18, 36, 2)]
        style = max(every, key=lambda style: sum(_sought(ink, *place, *style)[0] for place in chest))
    for name, x, y in places:
        alike, box, shape = _sought(ink, name, x, y, *style)
        if alike > LEAST_LIKE:
            n_found += alike > UNLIKE and tells(name)
            letters[box] |= shape
    return letters, n_found


def _sought(
    ink: np.ndarray, name: str, x: int, y: int, font: int, height: int
) -> tuple[float, tuple[slice, slice], np.ndarray]:
    """Correlation of a name with the ink near a place, its best place there, and its letters, a pixel wider."""
    top, left = max(y - 14 * PX, 0), max(x - PX, 0)
    window, share = ink[top : y + 6 * PX, left : left + 14 * PX], height / _SIZE
    word = cv2.resize(_templates()[name, font], None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
    if word.shape[0] >= window.shape[0] or word.shape[1] >= window.shape[1]:
        return 0.0, (slice(0), slice(0)), np.zeros((0, 0), bool)
    alike = cv2.matchTemplate(window, word, cv2.TM_CCOEFF_NORMED)
    written = cv2.matchTemplate(window, np.ones_like(word), cv2.TM_CCORR)
    alike[written < 0.5 * word.sum()] = 0  # OpenCV calls blank paper a perfect match
    _, best, _, (column, row) = cv2.minMaxLoc(alike)
    rows, columns = slice(top + row, top + row + word.shape[0]), slice(left + column, left + column + word.shape[1])
    return best, (rows, columns), cv2.dilate(word, np.ones((3, 3))) > 0.3


def _framed(word: np.ndarray) -> np.ndarray:
    """Word as high as words are compared at, with paper around it, so that a bar is a shape too."""
    width = max(2, round(_SIZE * (word.shape[1] / word.shape[0])))
    return np.pad(cv2.resize(word, (width, _SIZE), interpolation=cv2.INTER_AREA), 2).astype(np.float32)


@lru_cache(maxsize=1)
def _templates() -> dict[tuple[str, int], np.ndarray]:
    """Every name in every font, 0 to 1, as high as words are compared at."""
    templates = {}
    for name in NAMES:
        for font in range(N_FONTS):
            picture = Image.new("L", (300, 100))
            if font < len(_PENS):
                picture = np.zeros((100, 300), np.uint8)
                cv2.putText(picture, name, (10, 70), cv2.FONT_HERSHEY_SIMPLEX, 2, 255, _PENS[font], cv2.LINE_AA)
            else:
                file = Path(mpl.get_data_path()) / "fonts" / "ttf" / _FONTS[font - len(_PENS)]
                ImageDraw.Draw(picture).text((10, 10), name, 255, ImageFont.truetype(str(file), 56))
            canvas = np.asarray(picture)
            rows, columns = (np.flatnonzero(canvas.max(axis=axis) > 100) for axis in (1, 0))
            word = canvas[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            templates[name, font] = _framed(word / np.float32(255))
    return templates
