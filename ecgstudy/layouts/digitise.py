"""Digitising: from a picture of a printed 12-lead ECG to millivolts, or to a sentence that says why not.

The page is laid flat by its grid (`page.py`), the rows' lines are followed (`trace.py`), names of leads are read
(`words.py`), ends and calibration pulses are found (`frame.py`); here they are put together. What a layout says must
agree with what is on the page: the number of rows, the names, Einthoven's law between limb leads of one column, rhythm
strips that repeat their leads, and lines that account for the ink.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from ecgstudy.data.base import STANDARD_LEADS
from ecgstudy.errors import StudyError
from ecgstudy.layouts.frame import FS, Frame, find_frame, find_rows, straightened
from ecgstudy.layouts.layout import COLUMNS, INVERTED, MOST_STRIPS, ORDERS, Layout, grid
from ecgstudy.layouts.page import PX, Page, flatten, load_picture
from ecgstudy.layouts.trace import Lines, follow, wide
from ecgstudy.layouts.words import Word, find_words, letters_on_traces, n_told, tells

LEAST_COVERED, MOST_OFF, MOST_LAWLESS = 0.6, 0.6, 0.2
"""Share of a lead's columns with ink; how far a strip is off its lead, beside it; share of power that breaks
Einthoven's law: worse is refused."""
UNREAD_INK, MOST_UNREAD = 0.5, 0.02
"""Ink that must be explained, and the share of it that may lie beside all lines: more is refused."""
MOST_SHARED, NO_WAVE_MV = (0.08, 0.35), 0.05
"""Share of the waves' power in ink that two lines share, of the page and of a lead: more is refused, as it is unknown
whose the waves are; what a flat line is given, mV."""
TANGLED = "traces run into each other or into writing; print the page with fewer rows or at a lower gain."
UNMEASURED = 0.75
"""Confidence where no grid tells how a page was bent or tilted."""
SURE_NAMES, SURE_LAW = 2, 3.0
"""How many more names a layout must have than any other, or how many times better it must keep to Einthoven's law."""
CM = 10 * PX
LEAST_NAMES = 3
NAMES_OFF = np.array([1.0, 3.0]) * PX
"""How many names must be read; how far names may stand from where they stand beside other traces, pixels."""
NAME_S = 0.6
"""Time from the beginning of its trace in which a lead's name may lie on the trace."""
LAWLESS = "the limb leads contradict each other (Einthoven's law), so they were not told for certain; scan it again."
LIMB = {"I": (1.0, 0.0), "II": (0.0, 1.0), "III": (-1.0, 1.0)}
LIMB |= {"aVR": (-0.5, -0.5), "aVL": (1.0, -0.5), "aVF": (-0.5, 1.0)}
"""What limb leads are made of: parts of I and II."""


@dataclass(frozen=True)
class Reading:
    """What was read from a page."""

    layout: Layout
    values: np.ndarray  # float32 (12, n_samples), mV; NaN where the page shows nothing
    confidence: np.ndarray  # float (12,), 0 to 1: waves in ink of its own, and agreement with other leads
    page: Page
    drawn: tuple[tuple[str, np.ndarray], ...]  # lead, and its points (n, 2) as x and y on the flat page
    fs: float = FS  # Hz

    @property
    def summary(self) -> str:
        """Layout, seconds and least confidence, in words."""
        least, seconds = int(np.argmin(self.confidence)), self.values.shape[1] / self.fs
        sure = f"confidence {self.confidence[least]:.2f} or more (least in {STANDARD_LEADS[least]})"
        return f"{self.layout.name}, {seconds:g} s, {sure}"


def digitise(path: Path, dpi: float | None = None) -> Reading:
    """Read the ECG of a picture file, see :func:`read_page`; every refusal names the file."""
    picture, shrunk = load_picture(path)
    try:
        return read_page(picture, dpi and dpi * shrunk)
    except StudyError as refusal:
        raise StudyError(f"{path}: {refusal}") from None


def read_page(picture: np.ndarray, dpi: float | None = None) -> Reading:
    """Read the ECG of a picture.

    Parameters
    ----------
    picture : uint8 (h, w, 3), RGB.
    dpi : pixels an inch, for a page without a grid or a calibration pulse to measure by.

    Raises
    ------
    StudyError
        The picture is no ECG page, or what is on it cannot be told for certain.
    """
    page = flatten(picture, dpi)
    if not page.is_exact:
        page = straightened(picture, page)
    words, small = find_words(page.ink)
    _check_upright(page.ink, words)
    rows, lines = find_rows(np.where(small, 0, page.ink))
    frame = find_frame(page.ink, lines, rows, page.is_exact)
    _check_alone(page, [word for word in words if word.name], frame)
    words = [word for word in words if frame.begins_column(word)]
    strangers, words = [word for word in words if not word.name], [word for word in words if word.name]
    ink = page.ink.copy()
    for word in words:
        ink[word.box][small[word.box]] = 0
    layout = _layout(frame.sampled(lines), words, frame, ink)
    _check_known(np.where(small, 0, page.ink), strangers, words, layout, frame)
    ends = frame.left + frame.length * np.arange(layout.columns + 1) / layout.columns
    ends = np.clip([ends[0] - PX / 2, *ends[1:-1], ends[-1] + PX / 2], 0, ink.shape[1])
    names, n_on_traces = _names_on_traces(ink, layout, words, frame)
    if n_told(words) + n_on_traces < LEAST_NAMES:
        raise StudyError("the names of the leads cannot be read, so nothing tells which is which; scan the page anew.")
    lines = follow(ink, rows, ends, len(layout.strips), names)
    reading = _reading(page, layout, lines, frame)
    if _unread(np.where(small | names, 0, ink), reading, ends, lines.pen) > MOST_UNREAD:
        raise StudyError(TANGLED)
    return reading


def _check_upright(ink: np.ndarray, words: Sequence[Word]) -> None:
    """Refuse a page whose names can be read when it is turned."""
    turns = {2: "is upside down", 1: "lies on its side", 3: "lies on its side"} if n_told(words) < 3 else {}
    for turn, how in turns.items():
        if n_told(find_words(np.ascontiguousarray(np.rot90(ink, turn)))[0]) > n_told(words) + 3:
            raise StudyError(f"the page {how}; turn the picture so that the names of the leads can be read.")


def _check_alone(page: Page, words: Sequence[Word], frame: Frame) -> None:
    """Refuse a picture of several pages, which has more names beside the traces, and one that shows a page in part."""
    beside = [word for word in words if not -2 * CM < word.x - frame.left < frame.length + CM]
    times = Counter(word.name for word in words if frame.begins_column(word))
    if len(beside) > MOST_STRIPS or sum(n > 1 for n in times.values()) > MOST_STRIPS:
        raise StudyError("there is more than one page in the picture; give each page as a picture of its own.")
    height, width = page.inside.shape
    for x in (frame.left - PX, frame.left + frame.length + PX):
        at = np.rint(frame.zero).astype(int).clip(0, height - 1), round(x)
        if not 0 <= x < width or not page.inside[at].all():
            raise StudyError("the traces run out of the picture; scan the whole page.")


def _check_known(
    traces: np.ndarray, strangers: Sequence[Word], words: Sequence[Word], layout: Layout, frame: Frame
) -> None:
    """Refuse a page with other words where names stand, and nothing but paper beside them: V3R, V7, X."""

    def place(word: Word) -> tuple[tuple[int | None, int], np.ndarray]:
        """Row and column of a word, and where it stands from where they begin."""
        row, column = frame.cell(word, layout.columns)
        left = frame.left + column * frame.length / layout.columns
        return (row, column), np.array([word.x - left, word.y - frame.zero[row]])

    def is_clear(rows: slice, columns: slice) -> bool:
        """Whether nothing but paper stands beside a word."""
        return not (traces[rows, max(columns.start - PX, 0) : columns.stop + PX] > 0.5).any()

    known = [place(word) for word in words]
    named = {cell for cell, _ in known}
    clear = [place(word) for word in strangers if is_clear(*word.box) and place(word)[0] not in named]
    for _, model in known or clear:
        alike = {cell for cell, at in clear if (np.abs(at - model) < NAMES_OFF).all()}
        if len(alike) > 1 and len(alike) + len(words) >= LEAST_NAMES:
            raise StudyError("the page has leads of other names than the standard twelve; they cannot be read.")


def _unread(ink: np.ndarray, reading: Reading, ends: np.ndarray, pen: float) -> float:
    """Share of the traces' ink, and of what is joined to them, that lies beside the lines that were read."""
    solid, near = ink > UNREAD_INK, np.zeros(ink.shape, np.uint8)
    solid[:, : round(ends[0])] = solid[:, round(ends[-1]) :] = False
    for place in ends[1:-1]:
        solid[:, int(place - wide(pen) - 1) : int(place + wide(pen) + 3)] = False
    lines = [np.rint(points[np.isfinite(points[:, 1])] * 16).astype(np.int32) for _, points in reading.drawn]
    cv2.polylines(near, lines, False, 1, round(2 * wide(pen)) + 4, shift=4)
    n_marks, marks = cv2.connectedComponents(solid.astype(np.uint8), connectivity=8)
    every, read = (np.bincount(marks[solid & where], minlength=n_marks) for where in (True, near > 0))
    joined = read > 0
    return 1 - float(read.sum() / max(every[joined].sum(), 1))


def _names_on_traces(ink: np.ndarray, layout: Layout, words: Sequence[Word], frame: Frame) -> tuple[np.ndarray, int]:
    """Where names lie on traces, bool like `ink`, and how many: those that are not among the words that stand apart."""
    seen = {frame.cell(word, layout.columns) for word in words}
    places = [
        (part.written, round(frame.left + part.column * (frame.length / layout.columns)), round(frame.zero[part.row]))
        for part in layout.stretches(0)
        if (part.row, part.column) not in seen
    ]
    return letters_on_traces(ink, places, words)


def _layout(traces: np.ndarray, words: Sequence[Word], frame: Frame, ink: np.ndarray) -> Layout:
    """Find the layout that the number of rows, the names and the traces agree on, and no other."""
    n_rows = len(frame.rows)
    fitting = [c for c in COLUMNS if 0 <= n_rows - len(STANDARD_LEADS) // c <= MOST_STRIPS]
    if not fitting:
        raise StudyError(f"{n_rows} rows of traces were found, which no known layout has; is the page whole?")
    judged = []
    for option in (grid(columns, (), order) for columns in fitting for order in ORDERS):
        right, wrong = _agreement(option, words, frame)
        names = right - wrong + _names_on_traces(ink, option, words, frame)[1]
        judged.append((names, -_lawless(option, traces), wrong, option))
    names, law, wrong, best = max(judged, key=lambda judged: judged[:2])
    if wrong > 1:
        raise StudyError("the names of the leads are in no known order; is the page whole and the right way up?")
    if -law > 1.5 * MOST_LAWLESS:  # names that lie on traces are still there
        raise StudyError(LAWLESS)
    rivals = [judgement for judgement in judged if judgement[-1] != best]
    if any(names - others < SURE_NAMES and law < other_law / SURE_LAW for others, other_law, *_ in rivals):
        raise StudyError("too few names of limb leads can be read to tell their order; scan the page anew.")
    strips = [_strip(best, row, traces, words, frame) for row in range(len(best.rows), n_rows)]
    return replace(best, name="+".join([best.name, *strips]), strips=tuple(strips))


def _agreement(layout: Layout, words: Sequence[Word], frame: Frame) -> tuple[int, int]:
    """Numbers of names on the page that tell a lead and stand where a layout has them, and of those that do not."""
    right = wrong = 0
    for word in words:
        row, column = frame.cell(word, layout.columns)
        if row is not None and row < len(layout.rows):
            expected = layout.rows[row][column]
            fits = word.name.removeprefix(INVERTED) == expected.removeprefix(INVERTED)
            right += fits and tells(word.name)
            wrong += not fits and not _in_part(word.name, expected)
    return right, wrong


def _lawless(layout: Layout, traces: np.ndarray) -> float:
    """Share of the limb leads' power that is no mixture of I and II: the worst column with three of them or more."""
    worst = 0.0
    for column in range(layout.columns):
        limb = [
            (LIMB[part.lead], part.sign * traces[part.row, part.span])
            for part in layout.stretches(traces.shape[1])
            if part.lead in LIMB and part.column == column and part.row < len(layout.rows)
        ]
        if len(limb) >= 3:
            parts, seen = (np.array(each) for each in zip(*limb, strict=True))
            inner = seen[:, round(NAME_S * FS) : -10]
            inner = inner - np.median(inner, axis=1, keepdims=True)
            left = inner - parts @ np.linalg.lstsq(parts, inner, rcond=None)[0]
            worst = max(worst, float(left.var() / (inner.var() + 1e-9)))
    return worst


def _strip(layout: Layout, row: int, traces: np.ndarray, words: Sequence[Word], frame: Frame) -> str:
    """Lead of a rhythm strip: the one that it repeats, which its name must not contradict."""
    off = {
        part.lead: _off(traces[row, part.span], part.sign * traces[part.row, part.span])
        for part in layout.stretches(traces.shape[1])
    }
    best, second = sorted(off, key=off.__getitem__)[:2]
    written = {word.name for word in words if frame.cell(word, max(COLUMNS)) == (row, 0)}
    told = written.pop() if len(written) == 1 else ""
    if told and not _in_part(told, best):
        best, sure = told, off[told] < min(MOST_OFF, 1.5 * off[best])
    else:
        sure = off[best] < (MOST_OFF if told == best else min(MOST_OFF, 0.7 * off[second]))
    if not sure:
        raise StudyError(f"the rhythm strip in row {row + 1} repeats no lead for certain; scan the page again, flat.")
    return best


def _in_part(name: str, lead: str) -> bool:
    """Whether a word may be the name of a lead of which some strokes touch a trace: what is read as I may be II."""
    return not tells(name) and not tells(lead) and len(name) <= len(lead)


def _off(strip: np.ndarray, lead: np.ndarray) -> float:
    """Root mean square of the difference of two traces beside that of the second, where no name lies on them."""
    inner = slice(round(NAME_S * FS), -10)
    strip, lead = strip[inner] - np.median(strip[inner]), lead[inner] - np.median(lead[inner])
    return float(np.sqrt(np.mean((strip - lead) ** 2) / (np.mean(lead**2) + 1e-6)))


def _reading(page: Page, layout: Layout, lines: Lines, frame: Frame) -> Reading:
    """Give each lead its samples and its confidence."""
    traces, drawn, powers = frame.sampled(lines), [], []
    values = np.full((len(STANDARD_LEADS), traces.shape[1]), np.nan, np.float32)
    confidence, lawless = np.zeros(len(STANDARD_LEADS)), _lawless(layout, traces)
    if lawless > MOST_LAWLESS:
        raise StudyError(LAWLESS)
    for part in layout.stretches(traces.shape[1]):
        trace = traces[part.row, part.span]
        x = frame.left + np.arange(part.start, part.stop) * frame.speed / FS
        columns = np.clip(np.rint(x).astype(int), 0, lines.inked.shape[1] - 1)
        covered = lines.inked[part.row, columns].mean()
        if covered < LEAST_COVERED:
            raise StudyError(f"no trace was found for lead {part.lead}; scan the whole page again.")
        at = STANDARD_LEADS.index(part.lead)
        values[at, part.span] = part.sign * trace
        power = (trace - np.median(trace)) ** 2 + NO_WAVE_MV**2
        powers.append([power.sum(), power[lines.shared[part.row, columns]].sum()])
        own = covered * max(0.0, 1 - 2 * powers[-1][1] / powers[-1][0])
        confidence[at] = own * (1 - lawless if part.lead in LIMB else 1) * (1 if page.is_exact else UNMEASURED)
        drawn.append((part.lead, np.stack([x, frame.zero[part.row] - trace * PX * frame.gain], axis=1)))
    every, shared = np.array(powers).T
    if shared.sum() > MOST_SHARED[0] * every.sum() or (shared > MOST_SHARED[1] * every).any():
        raise StudyError(TANGLED)
    return Reading(layout, values, confidence, page, tuple(drawn))
