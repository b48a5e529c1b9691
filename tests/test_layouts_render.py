"""The command ``render``: a picture for each record, nothing of a header on it, and mistakes in one sentence."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from wfdb_trees import write_record

from ecgstudy.__main__ import main
from ecgstudy.data.base import STANDARD_LEADS
from ecgstudy.layouts.layout import layout_named
from ecgstudy.layouts.printout import draw

FS = 250


def _record(folder: Path, name: str, seconds: float = 10, offset: float = 0, scale: float = 1, **how: object) -> Path:
    """Write waves of up to 0.5 mV with 200 steps a unit, over an offset in mV."""
    time = np.arange(round(seconds * FS)) / FS
    waves = np.stack([0.5 * np.sin(2 * np.pi * (1 + 0.1 * lead) * time) for lead in range(12)])
    samples = np.rint(200 * (scale * waves + offset)).astype(int)
    return write_record(folder, name, samples, FS, **({"leads": STANDARD_LEADS} | how))


def _run(*arguments: object) -> int:
    return main(["render", *map(str, arguments), "--dpi", "60"])


def _pixels(path: Path) -> np.ndarray:
    return np.rint(imread(path)[..., :3] * 255).astype(np.uint8)


def test_the_picture_is_the_record_drawn_as_asked(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    _record(tmp_path / "in", "a")
    assert _run(tmp_path / "in" / "a", tmp_path / "out", "--layout", "6x2+V1") == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out' / 'a.png'}\n"
    time = np.arange(2500) / FS
    waves = np.stack([0.5 * np.sin(2 * np.pi * (1 + 0.1 * lead) * time) for lead in range(12)])
    expected = draw(waves, STANDARD_LEADS, FS, layout_named("6x2+V1"), 60).image
    found = _pixels(tmp_path / "out" / "a.png")
    assert found.shape == expected.shape
    assert (np.abs(found.astype(int) - expected).max(axis=2) > 40).mean() < 0.001  # 200 steps a mV


def test_every_record_of_folders_is_drawn_under_its_own_name(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    _record(tmp_path / "in" / "ward", "b")
    header = _record(tmp_path / "in", "a")
    _record(tmp_path / "other", "c")
    assert _run(tmp_path / "in", tmp_path / "other" / "c.hea", tmp_path / "out") == 0
    drawn = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png")}
    assert drawn == {"a.png", "ward/b.png", "c.png"}
    assert {path.suffix for path in (tmp_path / "out").rglob("*") if path.is_file()} == {".png"}
    header.with_suffix(".dat").unlink()
    assert _run(tmp_path / "in", tmp_path / "again") == 0
    told = capsys.readouterr().out.splitlines()
    assert told[-1].startswith("Skipped: ")
    assert "a.dat" in told[-1]
    assert not (tmp_path / "again" / "a.png").exists()


def test_nothing_of_a_header_reaches_the_picture(tmp_path: Path) -> None:
    _record(tmp_path / "plain", "a")
    _record(tmp_path / "named", "a", comments=["Jane Doe", "ID: 4711", "Date: 01.02.2003", "Age: 63", "Sex: F"])
    for name in ("plain", "named"):
        assert _run(tmp_path / name / "a", tmp_path / f"{name}-out", "--scan", "moderate", "--vary") == 0
    plain, named = ((tmp_path / f"{name}-out" / "a.png").read_bytes() for name in ("plain", "named"))
    assert plain == named
    assert b"Jane" not in named


def test_a_header_is_printed_where_asked_and_only_there(tmp_path: Path) -> None:
    _record(tmp_path, "a")
    for folder, arguments in (("out", []), ("told", ["--header", "SPECIMEN", "--header", "TWO LINES"])):
        assert _run(tmp_path / "a", tmp_path / folder, *arguments) == 0
    bare, told = _pixels(tmp_path / "out" / "a.png"), _pixels(tmp_path / "told" / "a.png")
    top = slice(15, 40), slice(20, 120)
    assert bare[top].min() > 120
    assert told[top].min() < 90


def test_pictures_are_drawn_anew_by_another_seed_alone(tmp_path: Path) -> None:
    _record(tmp_path, "a")
    _record(tmp_path, "b")
    look = ("--layout", "random", "--vary", "--scan", "mild")
    for folder, seed in (("one", 0), ("two", 0), ("three", 1)):
        assert _run(tmp_path / "a", tmp_path / "b", tmp_path / folder, *look, "--seed", seed) == 0
    one, two, three = (_pixels(tmp_path / folder / "a.png") for folder in ("one", "two", "three"))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, three)
    assert not np.array_equal(one, _pixels(tmp_path / "one" / "b.png"))


def test_an_offset_is_not_printed_and_units_of_the_volt_are(tmp_path: Path) -> None:
    _record(tmp_path / "zero", "a")
    _record(tmp_path / "high", "a", offset=80)
    _record(tmp_path / "uV", "a", unit="uV", gain=0.2)
    for name in ("zero", "high", "uV"):
        assert _run(tmp_path / name / "a", tmp_path / "out" / name) == 0
    zero, high, microvolts = (_pixels(tmp_path / "out" / name / "a.png") for name in ("zero", "high", "uV"))
    assert (np.abs(zero.astype(int) - high).max(axis=2) > 40).mean() < 0.001
    assert (np.abs(zero.astype(int) - microvolts).max(axis=2) > 40).mean() < 0.001


def test_ten_seconds_are_drawn_and_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    _record(tmp_path / "long", "a", seconds=12)
    _record(tmp_path / "ten", "a")
    assert _run(tmp_path / "long" / "a", tmp_path / "out-long") == 0
    assert capsys.readouterr().out.strip().endswith("a.png shows the first 10 s")
    assert _run(tmp_path / "ten" / "a", tmp_path / "out-ten") == 0
    long, ten = _pixels(tmp_path / "out-long" / "a.png"), _pixels(tmp_path / "out-ten" / "a.png")
    assert (np.abs(long.astype(int) - ten).max(axis=2) > 40).mean() < 0.001


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"unit": "zscore"}, "is in no multiple of the volt"),
        ({"seconds": 1.9}, "holds less than 2 s"),
        ({"scale": 100.0}, "mV, as no heart does; correct gain or unit in its header"),
        ({"leads": (*STANDARD_LEADS[:11], "V7")}, "Without V6 the layout 3x4+II cannot be drawn"),
    ],
)
def test_a_record_that_cannot_be_drawn_is_skipped_and_said(
    how: dict, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    _record(tmp_path, "bad", **how)
    _record(tmp_path, "good")
    assert _run(tmp_path, tmp_path / "out") == 0
    drawn, skipped = capsys.readouterr().out.splitlines()
    assert drawn.endswith("good.png")
    assert skipped.startswith("Skipped: bad")
    assert reason in skipped
    assert _run(tmp_path / "bad", tmp_path / "alone") == 1
    assert capsys.readouterr().err == "ecgstudy: No record was drawn.\n"
    assert not (tmp_path / "alone").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["a", "out", "--layout", "4x3"], "There is no layout '4x3'; choose one of 3x4, 3x4+II"),
        (["a", "out", "--scan", "awful"], "There is no severity 'awful' of a scan; choose one of clean, mild"),
        (["a", "out", "--dpi", "6000"], "6000 dpi cannot be drawn; choose from 50 to 600."),
        (["a", "out", "--seed", "-1"], "The seed is -1; give a number from 0 on."),
        (["nothing", "out"], "nothing is no folder and no WFDB record"),
        (["empty", "out"], "empty holds no WFDB record"),
        (["a", "a.dat"], "a.dat is a file; name a folder for the pictures."),
        (["a", "a.hea", "out"], "a.png is there already, or is another record's picture too; name another folder."),
        (["a", "taken"], "a.png is there already"),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_is_drawn(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    _record(tmp_path, "a")
    (tmp_path / "empty").mkdir()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "a.png").write_bytes(b"mine")
    monkeypatch.chdir(tmp_path)
    assert main(["render", *arguments]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert sentence in said.err
    assert said.err.count("\n") == 1
    assert [*tmp_path.rglob("*.png")] == [tmp_path / "taken" / "a.png"]
    assert (tmp_path / "taken" / "a.png").read_bytes() == b"mine"
