"""Pictures that are no page, or not one whole page, for ``read`` and ``digitise``: one sentence each, no crash.

What is wrong with single traces is tested beside the digitiser.
"""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ecgstudy.__main__ import main
from ecgstudy.data.base import STANDARD_LEADS
from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.errors import StudyError
from ecgstudy.layouts import diagnosis
from ecgstudy.layouts.digitise import read_page
from ecgstudy.layouts.layout import layout_named
from ecgstudy.layouts.page import load_picture
from ecgstudy.layouts.printout import draw

HUGE = 200_000_000
"""Bytes that a bomb unpacks to."""


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, pixels: bytes, more: bytes = b"") -> bytes:
    """Give a PNG of 1 bit a pixel that says it has these sides, whatever it holds."""
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + more + _chunk(b"IDAT", zlib.compress(pixels)) + _chunk(b"IEND", b"")


def _noise(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (400, 500, 3), dtype=np.uint8))


def _animated(path: Path) -> None:
    _noise().save(path, save_all=True, append_images=[_noise(1), _noise(2)])


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "absent": (lambda path: None, "There is no file"),
    "folder": (lambda path: path.mkdir(), ""),
    "pipe": (os.mkfifo, "There is no file"),
    "empty": (lambda path: path.touch(), "is no picture"),
    "pdf": (lambda path: path.write_bytes(b"%PDF-1.7\n%..."), "is a PDF"),
    "gif": (lambda path: _noise().convert("P").save(path, format="GIF"), "is no picture; give a PNG"),
    "animated": (_animated, "holds 3 pictures"),
    "dot": (lambda path: Image.new("L", (1, 1)).save(path), "is 1 x 1 pixels, too few"),
    "large": (lambda path: path.write_bytes(_png(20_000, 10_000, b"")), "has more than 60 million pixels"),
    "bomb": (lambda path: path.write_bytes(_png(60_000, 60_000, bytes(1000))), "has more than 60 million pixels"),
    "words": (
        lambda path: path.write_bytes(_png(500, 400, b"", _chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(HUGE))))),
        "is damaged",
    ),
    "colours": (
        lambda path: path.write_bytes(_png(500, 400, b"", _chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(HUGE))))),
        "is damaged",
    ),
    "photo": (lambda path: _noise().save(path), "no ECG paper was found"),
}
"""What is wrong with a file, how it is made, and what is said about it."""


def test_files_that_are_no_page_are_told_in_a_sentence_each_and_no_model_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(diagnosis, "expert_of", None)
    paths = [tmp_path / f"{name}.png" for name in FILES]
    for path, (make, _) in zip(paths, FILES.values(), strict=True):
        make(path)
    assert main(["read", *map(str, paths)]) == 1
    said = capsys.readouterr()
    assert said.err == "ecgstudy: No picture was read.\n"
    for line, path, (_, reason) in zip(said.out.splitlines(), paths, FILES.values(), strict=True):
        assert line.startswith("Not read: ")
        assert str(path) in line
        assert reason in line
        assert line.endswith(".")


def test_pixels_that_would_not_fit_are_never_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(_: Image.Image) -> None:
        raise AssertionError

    for name in ("large", "bomb"):
        FILES[name][0](tmp_path / name)
        monkeypatch.setattr(Image.Image, "load", decode)
        with pytest.raises(StudyError, match="60 million"):
            load_picture(tmp_path / name)
        monkeypatch.undo()
    # a file may hold more pixels than it says
    (tmp_path / "more.png").write_bytes(_png(500, 400, bytes(HUGE)))
    assert load_picture(tmp_path / "more.png")[0].shape == (400, 500, 3)


def test_whatever_kind_of_picture_a_page_is_kept_in_the_same_is_seen(tmp_path: Path) -> None:
    grey = np.tile(np.arange(256, dtype=np.uint8), (400, 2))
    deep, clear = grey.astype(np.uint16) * 257, np.stack([np.zeros_like(grey), 255 - grey], axis=2)
    kinds = {"grey": Image.fromarray(grey), "16 bits": Image.fromarray(deep), "alpha": Image.fromarray(clear, "LA")}
    kinds |= {"palette": Image.fromarray(grey).convert("P"), "colours and alpha": Image.fromarray(grey).convert("RGBA")}
    for name, picture in kinds.items():
        picture.save(tmp_path / f"{name}.png")
        seen, shrunk = load_picture(tmp_path / f"{name}.png")
        assert shrunk == 1
        assert np.abs(seen.astype(int) - grey[..., None]).max() <= 1, name


@pytest.fixture(scope="module")
def heart() -> np.ndarray:
    """Record of a simulated person, float32 (12, 5000) in mV."""
    cohort = SyntheticCohort(1, 1, 1, fs=500.0, seed=0)
    return cohort.signal(cohort.records()["record_id"][0]).values


@pytest.mark.parametrize(
    ("layout", "spoil", "reason"),
    [
        ("12x1", lambda page: page[page.shape[0] // 4 :], "is the page whole"),
        ("12x1", lambda page: page[: page.shape[0] * 3 // 4], "is the page whole"),
        ("3x4+II", lambda page: page[:, page.shape[1] // 4 :], "scan the whole page"),
        ("6x2", lambda page: np.concatenate([page, page]), "is the page whole|more than one page"),
    ],
)
def test_part_of_a_page_and_two_above_each_other_are_refused(
    heart: np.ndarray, layout: str, spoil: Callable[[np.ndarray], np.ndarray], reason: str
) -> None:
    page = draw(heart, STANDARD_LEADS, 500.0, layout_named(layout)).image
    with pytest.raises(StudyError, match=reason):
        read_page(np.ascontiguousarray(spoil(page)))


@pytest.mark.parametrize(("layout", "lead"), [("3x4+II", "V4"), ("12x1", "aVL")])
def test_a_page_that_lacks_a_lead_is_refused(heart: np.ndarray, layout: str, lead: str) -> None:
    lacking = heart.copy()
    lacking[STANDARD_LEADS.index(lead)] = np.nan
    with pytest.raises(StudyError, match=rf"no trace was found for lead {lead}|11 rows .* is the page whole"):
        read_page(draw(lacking, STANDARD_LEADS, 500.0, layout_named(layout)).image)
