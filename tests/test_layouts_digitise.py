"""Digitising: what was drawn is read back in mV, and what cannot be read is refused in a sentence."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import wfdb
from PIL import Image

from ecgstudy.__main__ import main
from ecgstudy.data.base import STANDARD_LEADS
from ecgstudy.data.simulator.heart import CONDITIONS
from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.errors import StudyError
from ecgstudy.layouts import page as page_module
from ecgstudy.layouts.digitise import digitise, read_page
from ecgstudy.layouts.images import agreement
from ecgstudy.layouts.layout import layout_named
from ecgstudy.layouts.page import load_picture
from ecgstudy.layouts.printout import Printout, Style, draw
from ecgstudy.layouts.ruler import grid_vectors
from ecgstudy.layouts.trace import follow
from ecgstudy.layouts.words import Word, letters_on_traces

FS, SECONDS = 500, 10


def _heart() -> np.ndarray:
    """Twelve leads in mV with P, QRS and T, limb leads that obey Einthoven's law; float (12, 5000)."""
    time = np.arange(FS * SECONDS) / FS
    beats = np.arange(0.55, SECONDS, 0.83)

    def wave(height: float, after: float, width: float) -> np.ndarray:
        return height * np.exp(-(((time[:, None] - beats - after) / width) ** 2)).sum(axis=1)

    def lead(p: float, q: float, r: float, s: float, t: float) -> np.ndarray:
        return (
            wave(p, -0.17, 0.025)
            + wave(q, -0.03, 0.01)
            + wave(r, 0, 0.013)
            + wave(s, 0.03, 0.012)
            + wave(t, 0.28, 0.06)
        )

    one, two = lead(0.08, -0.05, 0.7, -0.1, 0.2), lead(0.14, -0.08, 1.1, -0.15, 0.3)
    limb = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
    chest = [(0.05, 0, 0.2, -0.9, -0.1), (0.06, 0, 0.4, -1.2, 0.4), (0.06, 0, 0.7, -0.8, 0.5)]
    chest += [(0.07, -0.05, 1.1, -0.4, 0.45), (0.07, -0.08, 1.2, -0.2, 0.35), (0.07, -0.07, 0.9, -0.1, 0.25)]
    return np.stack([*limb, *(lead(*waves) for waves in chest)])


def _printed(layout: str = "3x4+II", **style: object) -> Printout:
    return draw(_heart(), STANDARD_LEADS, FS, layout_named(layout), 200, Style(**style))


def _renamed(monkeypatch: pytest.MonkeyPatch, layout: str, names: dict[str, str]) -> np.ndarray:
    """Give a page on which some leads are called something else."""
    write = cv2.putText
    with monkeypatch.context() as patched:
        patched.setattr(cv2, "putText", lambda image, text, *how: write(image, names.get(text, text), *how))
        return _printed(layout).image


def _snr(printout: Printout, values: np.ndarray) -> float:
    """Signal to noise in dB over what the page shows."""
    shown = printout.shown & np.isfinite(values)
    assert shown.sum() > 0.99 * printout.shown.sum()
    noise = (values - printout.values)[shown]
    return 10 * np.log10(np.mean(printout.values[shown] ** 2) / np.mean(noise**2))


@pytest.mark.parametrize(
    ("layout", "style"),
    [("3x4+II", {}), ("6x2", {"grid": "grey", "separators": "solid"}), ("3x4-cabrera+V1", {"grid": "none"})],
)
def test_what_is_drawn_is_read_back(layout: str, style: dict) -> None:
    printout = _printed(layout, **style)
    reading = read_page(printout.image)
    assert reading.layout == printout.layout
    assert (np.isfinite(reading.values) == printout.shown).all()
    assert _snr(printout, reading.values) > 20
    assert (reading.confidence.min() > 0.9) == (style.get("grid") != "none")  # nothing tells how it is bent
    assert reading.page.scale == pytest.approx(200 / 25.4, rel=0.005)


def test_the_command_writes_a_record_and_an_overlay(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    printout = _printed("3x4")
    Image.fromarray(printout.image).save(tmp_path / "Jane Doe.png")
    (tmp_path / "note.png").write_text("no picture")
    assert main(["digitise", *map(str, (tmp_path / "Jane Doe.png", tmp_path / "note.png", tmp_path / "out"))]) == 0
    told = capsys.readouterr().out.splitlines()
    assert "3x4, 10 s" in told[0]
    assert told[1] == f"Not read: {tmp_path / 'note.png'} is no picture; give a PNG or JPEG or TIFF or BMP or WEBP."
    record = wfdb.rdrecord(str(tmp_path / "out" / "Jane_Doe"))
    assert record.units == ["mV"] * 12
    assert tuple(record.sig_name) == STANDARD_LEADS
    assert _snr(printout, record.p_signal.T) > 20
    assert min(cv2.imread(str(tmp_path / "out" / "Jane_Doe.png")).shape[:2]) > 1000
    assert main(["digitise", str(tmp_path / "Jane Doe.png"), str(tmp_path / "out")]) == 1
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "There is no file"),
        (lambda path: path.write_bytes(b"%PDF-1.7 ..."), "is a PDF"),
        (lambda path: path.write_bytes(b"P1 is no picture"), "is no picture"),
        (lambda path: Image.new("RGB", (1, 1)).save(path), "1 x 1 pixels"),
        (lambda path: Image.new("1", (20_000, 10_000)).save(path), "more than 60 million pixels"),
        (lambda path: Image.new("1", (8_000, 8_000)).save(path), "more than 60 million pixels"),
        (lambda path: path.write_bytes(_png()[:2000]), "is damaged"),
        (
            lambda path: Image.new("L", (400, 400)).save(
                path, format="TIFF", save_all=True, append_images=[Image.new("L", (400, 400))]
            ),
            "holds 2 pictures",
        ),
    ],
)
def test_a_file_that_is_no_picture_of_a_page_is_refused(tmp_path: Path, make: object, reason: str) -> None:
    path = tmp_path / "page.png"
    make(path)
    with pytest.raises(StudyError, match=reason) as refusal:
        load_picture(path)
    assert str(path) in str(refusal.value)


def _png() -> bytes:
    """Give a picture of noise as a file."""
    noise = np.random.default_rng(0).integers(0, 255, (400, 400), dtype=np.uint8)
    return cv2.imencode(".png", noise)[1].tobytes()


def test_a_large_file_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_module, "MAX_BYTES", 10)
    (tmp_path / "page.png").write_bytes(_png())
    with pytest.raises(StudyError, match="is larger than"):
        load_picture(tmp_path / "page.png")


def test_pictures_without_an_ecg_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    hills = cv2.resize(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8), (1600, 1200), interpolation=cv2.INTER_CUBIC)
    paper = _printed("3x4").image
    blank = np.full_like(paper, 255)
    empty_grid = draw(
        np.full((12, 5000), np.nan), STANDARD_LEADS, FS, layout_named("3x4"), 200, Style(names="none", pulse="none")
    ).image
    for picture in (hills, blank, empty_grid):
        Image.fromarray(picture).save(tmp_path / "photo.png")
        with pytest.raises(StudyError, match=r"photo\.png: no (ECG paper|rows)"):
            digitise(tmp_path / "photo.png")


def test_a_page_that_cannot_be_told_for_certain_is_refused() -> None:
    page = _printed("3x4").image
    heart = _heart()
    heart[2, :1250] = np.nan
    without_three = draw(heart, STANDARD_LEADS, FS, layout_named("3x4")).image
    heart = _heart()
    heart[2] = -3 * heart[0]  # what is no lead III
    exchanged = draw(heart, STANDARD_LEADS, FS, layout_named("3x4")).image
    for picture, reason in (
        (page[::-1, ::-1], "is upside down"),
        (np.rot90(page), "lies on its side"),
        (page[:, : page.shape[1] * 2 // 3], "run out of the picture"),
        (np.concatenate([page, page], axis=1), "more than one page"),
        (without_three, "limb leads|no trace"),
        (exchanged, "limb leads contradict each other"),
    ):
        with pytest.raises(StudyError, match=reason):
            read_page(np.ascontiguousarray(picture))


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ({"V1": "V2", "V2": "V1"}, "in no known order"),
        ({f"V{at}": f"V{at}R" for at in (3, 4, 5, 6)}, "other names than the standard twelve"),
        ({"V4": "X", "V5": "Y", "V6": "Z"}, "other names than the standard twelve"),
        ({lead: f"CH{at}" for at, lead in enumerate(STANDARD_LEADS)}, "other names than the standard twelve"),
        (dict.fromkeys(STANDARD_LEADS, ""), "cannot be read, so nothing tells which is which"),
    ],
)
def test_leads_are_not_guessed(monkeypatch: pytest.MonkeyPatch, names: dict[str, str], reason: str) -> None:
    with pytest.raises(StudyError, match=reason):
        read_page(_renamed(monkeypatch, "3x4", names))


def test_pages_above_each_other_and_mirrored_pages_are_refused() -> None:
    page = _printed("3x4").image
    with pytest.raises(StudyError, match="more than one page"):
        read_page(np.concatenate([page, page]))  # rows of the second could be strips of the first
    with pytest.raises(StudyError, match="nothing tells which is which"):
        read_page(np.ascontiguousarray(page[:, ::-1]))  # the limb leads keep to Einthoven's law


def test_rows_that_run_into_each_other_are_refused() -> None:
    heart = _heart()
    heart[9:] *= 2.5  # V4 to V6 reach over two rows of 15 mm
    page = draw(heart, STANDARD_LEADS, FS, layout_named("12x1")).image
    with pytest.raises(StudyError, match="run into each other"):
        read_page(page)


def test_waves_in_ink_that_two_rows_share_are_not_trusted() -> None:
    heart = _heart()
    heart[6:9] *= 1.3  # S waves of V1 to V3 meet the R waves below
    reading = read_page(draw(heart, STANDARD_LEADS, FS, layout_named("12x1")).image)
    assert reading.confidence[7] < 0.5
    assert reading.confidence[:6].min() > 0.95
    heart = _heart()
    heart[9:] *= 1.6  # most of V5 is in ink of V4 too
    with pytest.raises(StudyError, match="run into each other"):
        read_page(draw(heart, STANDARD_LEADS, FS, layout_named("12x1")).image)


def test_a_line_begins_by_its_own_row() -> None:
    ink = np.zeros((400, 300), np.float32)
    ink[99:102, 2:] = ink[249:252, 2:] = 1  # two lines that a stroke joins
    ink[99:252, 60:63] = 1
    hidden = np.zeros(ink.shape, bool)
    hidden[240:260, 2:42] = True  # letters on the lower line
    lines = follow(ink, np.array([100.0, 250.0]), (0, 300), 0, hidden)
    assert lines.heights(1, np.array([10.0, 150.0, 290.0])) == pytest.approx(250, abs=1)
    assert lines.heights(0, np.array([10.0, 150.0, 290.0])) == pytest.approx(100, abs=1)


def test_a_record_that_begins_within_a_wave_begins_on_time() -> None:
    heart = np.roll(_heart(), 5 - round(0.55 * FS), axis=1)  # R peaks 10 ms after 0 s
    printout = draw(heart, STANDARD_LEADS, FS, layout_named("3x4+II"))
    assert _snr(printout, read_page(printout.image).values) > 12


@pytest.mark.parametrize(("layout", "names"), [("3x4+II", "above"), ("3x4", "trace")])
def test_a_page_without_a_grid_that_was_seen_from_aside_is_straightened(layout: str, names: str) -> None:
    printout = _printed(layout, grid="none", names=names)
    height, width = printout.image.shape[:2]
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    moved = corners + np.array([(0, 12), (0, -12), (0, 12), (0, -12)], np.float32)  # the right side is nearer
    picture = cv2.warpPerspective(
        printout.image, cv2.getPerspectiveTransform(corners, moved), (width, height), borderValue=(255, 255, 255)
    )
    assert agreement(printout, read_page(picture))["snr_db"] > 14


def test_a_grid_whose_spacing_seems_wider_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(lines: np.ndarray) -> tuple[np.ndarray, float]:
        steps, unit = grid_vectors(lines)
        return steps / 1.5, unit

    monkeypatch.setattr(page_module, "grid_vectors", found)
    page = page_module.flatten(_printed("3x4").image)
    assert page.is_exact
    assert page.scale == pytest.approx(200 / 25.4, rel=0.005)


def test_the_edge_of_a_table_is_no_row() -> None:
    page = _printed("3x4").image.copy()
    cv2.fillPoly(page, [np.array([(0, 0), (page.shape[1], 0), (page.shape[1], 12)])], (80, 75, 70))
    assert read_page(page).layout.name == "3x4"


def test_waves_beside_column_edges_and_under_names_are_read() -> None:
    heart = np.roll(_heart(), 20 - round(0.55 * FS), axis=1)  # R peaks 40 ms after 0 s and 20 ms after 5 s
    printout = draw(heart, STANDARD_LEADS, FS, layout_named("6x2+II"), 200, Style(separators="solid", names="trace"))
    values = read_page(printout.image).values
    height, printed = (np.nanmax(each, axis=1) - np.nanmin(each, axis=1) for each in (values, printout.values))
    assert np.abs(height / printed - 1).max() < 0.1
    assert _snr(printout, values) > 20


def test_blank_paper_beside_ink_has_no_names() -> None:
    ink = np.zeros((400, 400), np.float32)
    ink[140:144, 40:] = np.random.default_rng(0).random((4, 360))
    _, n_found = letters_on_traces(ink, [("aVR", 50, 150), ("V1", 50, 150), ("V4", 50, 150)], [])
    assert n_found == 0


def test_a_stroke_that_is_cut_does_not_tell_the_size_of_names() -> None:
    paper = np.zeros((400, 400), np.uint8)
    paper[148:151, 40:] = 255
    places = [("aVR", 40, 149), ("V1", 150, 149), ("V4", 260, 149)]
    for name, x, y in places:
        cv2.putText(paper, name, (x + 8, y), cv2.FONT_HERSHEY_SIMPLEX, 1.1, 255, 1, cv2.LINE_AA)
    cut = Word("I", 300, 20.0, (slice(10, 26), slice(300, 304)), 4)
    assert letters_on_traces(paper / np.float32(255), places, [cut])[1] == 3


def test_one_stroke_of_a_name_on_its_trace_decides_nothing() -> None:
    # the first I of II stands apart, where Cabrera's order has I, and the limb leads nearly keep to that order's law
    cohort = SyntheticCohort(100, 2, 1, fs=250, diagnoses=dict.fromkeys(CONDITIONS, 0.8 / len(CONDITIONS)))
    signal = cohort.signal("S001_1_rest_1")
    style = Style(grid="none", separators="dotted", pulse="right", names="trace", pen_mm=0.43)
    printout = draw(signal.values, signal.leads, signal.fs, layout_named("3x4+II"), 200, style)
    reading = read_page(printout.image)
    assert reading.layout.name == "3x4+II"
    assert agreement(printout, reading)["snr_db"] > 15


def test_a_folder_a_forbidden_name_and_a_page_about_pdf_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_bytes(b"<p>%PDF is written here</p>")
    for path, reason in (
        (tmp_path, "is a folder"),
        (tmp_path / ("a" * 300), "cannot be opened"),
        (tmp_path / "page.html", "is no picture"),
    ):
        with pytest.raises(StudyError, match=reason):
            load_picture(path)
