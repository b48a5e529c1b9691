"""Digitising: from a picture of a printed 12-lead ECG to millivolts, or to a sentence that says why not.

The page is laid flat by its grid (`page.py`), the rows' lines are followed (`trace.py`), names of leads are read
(`words.py`), ends and calibration pulses are found (`frame.py`); here they are put together. What a layout says must
agree with what is on the page: the number of rows, the names, Einthoven's law between limb leads of one column, rhythm
strips that repeat their leads, and lines that account for the ink.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ecgstudy.data.base import STANDARD_LEADS
from ecgstudy.errors import StudyError
from ecgstudy.layouts.frame import FS, Frame, find_frame, find_rows, straightened
from ecgstudy.layouts.layout import COLUMNS, INVERTED, MOST_STRIPS, ORDERS, Layout, grid
from ecgstudy.layouts.page import PX, Page, flatten, load_picture
from ecgstudy.layouts.trace import Lines, follow, wide
from ecgstudy.layouts.words import Word, find_words, letters_on_traces, tells

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
LIMB = {
    **{"I": (1.0, 0.0), "II": (0.0, 1.0), "III": (-1.0, 1.0), "aVR": (-0.5, -0.5)},
    **{"aVL": (1.0, -0.5), "aVF": (-0.5, 1.0)},
}
"""What limb leads are made of: parts of I and II."""


@dataclass(frozen=True)
class Reading:
    """What was read from a page."""

    layout: Layout
    fs: float  # Hz
    values: np.ndarray  # float32 (12, n_samples), mV; NaN where the page shows nothing
    confidence: np.ndarray  # float (12,), 0 to 1: waves in ink of its own, and agreement with other leads
    scale: float  # pixels a mm of the picture
    page: Page
    drawn: tuple[tuple[str, np.ndarray], ...]  # lead, and its points (n, 2) as x and y on the flat page
    leads: tuple[str, ...] = STANDARD_LEADS


def digitise(path: Path, fs: float = FS, dpi: float | None = None) -> Reading:
    """Read the ECG of a picture file, see :func:`read_page`; every refusal names the file."""
    picture, shrunk = load_picture(path)
    try:
        return read_page(picture, fs, dpi and dpi * shrunk)
    except StudyError as refusal:
        raise StudyError(f"{path}: {refusal}") from None


def read_page(picture: np.ndarray, fs: float = FS, dpi: float | None = None) -> Reading:
    """Read the ECG of a picture.

    Parameters
    ----------
    picture : uint8 (h, w, 3), RGB.
    fs : sampling rate of what is returned, Hz.
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
    layout = _layout(frame.sampled(lines, fs), words, frame, ink)
    _check_known(np.where(small, 0, page.ink), strangers, words, layout, frame)
    ends = frame.left + frame.speed * frame.seconds * np.arange(layout.columns + 1) / layout.columns
    ends = np.clip([ends[0] - PX / 2, *ends[1:-1], ends[-1] + PX / 2], 0, ink.shape[1])
    names, n_on_traces = _names_on_traces(ink, layout, words, frame)
    if sum(tells(word.name) for word in words) + n_on_traces < LEAST_NAMES:
        raise StudyError("the names of the leads cannot be read, so nothing tells which is which; scan the page anew.")
    lines = follow(ink, rows, ends, len(layout.strips), names)
    reading = _reading(page, layout, lines, frame, frame.sampled(lines, fs), fs)
    if _unread(np.where(small | names, 0, ink), reading, ends, lines.pen) > MOST_UNREAD:
        raise StudyError(TANGLED)
    return reading


def _check_upright(ink: np.ndarray, words: Sequence[Word]) -> None:
    """Refuse a page whose names can be read when it is turned."""

    def told(words: Sequence[Word]) -> int:
        return sum(tells(word.name) for word in words)

    for turns, how in (
        ((2, "is upside down"), (1, "lies on its side"), (3, "lies on its side")) if told(words) < 3 else ()
    ):
        if told(find_words(np.ascontiguousarray(np.rot90(ink, turns)))[0]) > told(words) + 3:
            raise StudyError(f"the page {how}; turn the picture so that the names of the leads can be read.")


def _check_alone(page: Page, words: Sequence[Word], frame: Frame) -> None:
    """Refuse a picture of several pages, which has more names beside the traces, and one that shows a page in part."""
    beside = [word for word in words if not -2 * CM < word.x - frame.left < frame.speed * frame.seconds + CM]
    times = Counter(word.name for word in words if frame.begins_column(word))
    if len(beside) > MOST_STRIPS or sum(n > 1 for n in times.values()) > MOST_STRIPS:
        raise StudyError("there is more than one page in the picture; give each page as a picture of its own.")
    height, width = page.inside.shape
    for x in (frame.left - PX, frame.left + frame.speed * frame.seconds + PX):
        at = np.rint(frame.zero).astype(int).clip(0, height - 1), round(x)
        if not 0 <= x < width or not page.inside[at].all():
            raise StudyError("the traces run out of the picture; scan the whole page.")


def _check_known(
    traces: np.ndarray, strangers: Sequence[Word], words: Sequence[Word], layout: Layout, frame: Frame
) -> None:
    """Refuse a page with other words where names stand, and nothing but paper beside them: V3R, V7, X."""

    def place(word: Word) -> tuple[tuple[int | None, int], np.ndarray]:
        """Row and column of a word, and where it stands from where they begin."""
        row, column = frame.row_of(word), frame.column(word.x, layout.columns)
        left = frame.left + column * frame.speed * frame.seconds / layout.columns
        return (row, column), np.array([word.x - left, word.y - frame.zero[row]])

    known = [place(word) for word in words]
    named, clear = {cell for cell, _ in known}, []
    for word in strangers:
        rows, columns = word.box
        beside = traces[rows, max(columns.start - PX, 0) : columns.stop + PX]
        if place(word)[0] not in named and not (beside > 0.5).any():
            clear.append(place(word))
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
    seen = {(frame.row_of(word), frame.column(word.x, layout.columns)) for word in words}
    length = frame.speed * frame.seconds / layout.columns
    cells = [(lead, row, column) for row, leads in enumerate(layout.rows) for column, lead in enumerate(leads)]
    cells += [(lead, len(layout.rows) + at, 0) for at, lead in enumerate(layout.strips)]
    places = [
        (lead, round(frame.left + column * length), round(frame.zero[row]))
        for lead, row, column in cells
        if (row, column) not in seen
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
    return grid(best.columns, strips, "cabrera" if "cabrera" in best.name else "standard")


def _agreement(layout: Layout, words: Sequence[Word], frame: Frame) -> tuple[int, int]:
    """Numbers of names on the page that tell a lead and stand where a layout has them, and of those that do not."""
    right = wrong = 0
    for word in words:
        row = frame.row_of(word)
        if row is not None and row < len(layout.rows):
            expected = layout.rows[row][frame.column(word.x, layout.columns)]
            fits = word.name.removeprefix(INVERTED) == expected.removeprefix(INVERTED)
            right += fits and tells(word.name)
            wrong += not fits and not _in_part(word.name, expected)
    return right, wrong


def _segments(layout: Layout, traces: np.ndarray) -> list[tuple[str, int, slice, float]]:
    """Lead, row, samples and sign of every stretch of the columns."""
    edges = layout.edges(traces.shape[1])
    return [
        (
            lead.removeprefix(INVERTED),
            row,
            slice(*edges[column : column + 2]),
            -1.0 if lead.startswith(INVERTED) else 1.0,
        )
        for row, leads in enumerate(layout.rows)
        for column, lead in enumerate(leads)
    ]


def _lawless(layout: Layout, traces: np.ndarray) -> float:
    """Share of the limb leads' power that is no mixture of I and II: the worst column with three of them or more."""
    worst = 0.0
    segments = _segments(layout, traces)
    for stretch in {(part.start, part.stop) for _, _, part, _ in segments}:
        limb = [
            (LIMB[lead], sign * traces[row, part])
            for lead, row, part, sign in segments
            if lead in LIMB and (part.start, part.stop) == stretch
        ]
        if len(limb) >= 3:
            parts, seen = np.array([part for part, _ in limb]), np.array([values for _, values in limb])
            inner = seen[:, round(NAME_S * FS) : -10]
            inner = inner - np.median(inner, axis=1, keepdims=True)
            left = inner - parts @ np.linalg.lstsq(parts, inner, rcond=None)[0]
            worst = max(worst, float(left.var() / (inner.var() + 1e-9)))
    return worst


def _strip(layout: Layout, row: int, traces: np.ndarray, words: Sequence[Word], frame: Frame) -> str:
    """Lead of a rhythm strip: the one that it repeats, which its name must not contradict."""
    off = {lead: _off(traces[row, part], sign * traces[of, part]) for lead, of, part, sign in _segments(layout, traces)}
    best, second = sorted(off, key=off.__getitem__)[:2]
    written = {word.name for word in words if frame.row_of(word) == row and frame.column(word.x, max(COLUMNS)) == 0}
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


def _reading(page: Page, layout: Layout, lines: Lines, frame: Frame, traces: np.ndarray, fs: float) -> Reading:
    """Give each lead its samples and its confidence."""
    n_samples = traces.shape[1]
    values = np.full((len(STANDARD_LEADS), n_samples), np.nan, np.float32)
    confidence, drawn, powers = np.zeros(len(STANDARD_LEADS)), [], []
    segments = _segments(layout, traces)
    segments += [(lead, len(layout.rows) + at, slice(0, n_samples), 1.0) for at, lead in enumerate(layout.strips)]
    law = 1 - _lawless(layout, traces)
    if 1 - law > MOST_LAWLESS:
        raise StudyError(LAWLESS)
    for lead, row, part, sign in segments:
        x = frame.left + np.arange(part.start, part.stop) * frame.speed / fs
        columns = np.clip(np.rint(x).astype(int), 0, lines.inked.shape[1] - 1)
        covered = lines.inked[row, columns]
        if covered.mean() < LEAST_COVERED:
            raise StudyError(f"no trace was found for lead {lead}; scan the whole page again.")
        at = STANDARD_LEADS.index(lead)
        values[at, part] = sign * traces[row, part]
        power = (traces[row, part] - np.median(traces[row, part])) ** 2 + NO_WAVE_MV**2
        powers.append([power.sum(), power[lines.shared[row, columns]].sum()])
        own = covered.mean() * max(0.0, 1 - 2 * powers[-1][1] / powers[-1][0])
        confidence[at] = own * (law if lead in LIMB else 1) * (1 if page.is_exact else UNMEASURED)
        drawn.append((lead, np.stack([x, frame.zero[row] - traces[row, part] * PX * frame.gain], axis=1)))
    every, shared = np.array(powers).T
    if shared.sum() > MOST_SHARED[0] * every.sum() or (shared > MOST_SHARED[1] * every).any():
        raise StudyError(TANGLED)
    return Reading(layout, fs, values, confidence, page.scale, page, tuple(drawn))
