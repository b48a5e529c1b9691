"""Safe reading: what wfdb reads is read the same, and what lies is refused with a sentence."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import wfdb
from wfdb_trees import digital, write_record

from ecgstudy.data.base import Signal
from ecgstudy.data.wfdb_files import (
    checked_path,
    common_unit,
    read_annotation,
    read_header,
    read_signal,
    signal_files,
    standard_lead,
)
from ecgstudy.errors import RecordError

LINE = "r.dat 16 200 12 0 0 0 0 I"


def header(folder: Path, content: list[str] | bytes, data: bytes = bytes(20)) -> Path:
    """Write r.hea of some lines or bytes, and r.dat with `data`."""
    (folder / "r.hea").write_bytes(content if isinstance(content, bytes) else ("\n".join(content) + "\n").encode())
    (folder / "r.dat").write_bytes(data)
    return folder / "r.hea"


def read(path: Path, offered: slice = slice(None)) -> Signal:
    """Read the record of a header from its own folder."""
    return read_signal(read_header(path, path.parent), path.parent, offered)


def refusal(path: Path, root: Path) -> str:
    """Message of the error that reading `path` raises."""
    with pytest.raises(RecordError) as caught:
        read_signal(read_header(path, root), root)
    return str(caught.value)


def as_wfdb_reads(path: Path) -> np.ndarray:
    """Read all samples by wfdb alone."""
    return wfdb.rdrecord(str(path.with_suffix(""))).p_signal.T.astype(np.float32)


@pytest.mark.parametrize("fmt", ["16", "212", "80", "24", "32", "61", "160", "310", "311"])
@pytest.mark.parametrize("n_samples", [1, 2, 3, 100, 101])
def test_formats_are_read_as_wfdb_reads_them(tmp_path: Path, fmt: str, n_samples: int) -> None:
    samples = digital(2, n_samples) // {"80": 10, "310": 2, "311": 2}.get(fmt, 1)
    if fmt in ("61", "160", "310", "311"):  # wfdb reads but does not write them
        lines = [f"r.dat {fmt} 333.3(17) 10 0 0 0 0 {lead}" for lead in ("I", "V1")]
        path = header(tmp_path, [f"r 2 500 {n_samples}", *lines], encoded(samples.T.ravel(), fmt))
    else:
        path = write_record(tmp_path, "r", samples, leads=("I", "V1"), fmt=fmt, gain=333.3, baseline=17)
    signal = read(path)
    assert signal.values.dtype == np.float32
    np.testing.assert_array_equal(signal.values, ((samples - 17) / 333.3).astype(np.float32))
    np.testing.assert_array_equal(signal.values, as_wfdb_reads(path))


def encoded(flat: np.ndarray, fmt: str) -> bytes:
    """Encode samples by the definitions in signal(5) of the WFDB manual."""
    if fmt == "61":
        return flat.astype(">i2").tobytes()
    if fmt == "160":
        return (flat + 32768).astype("<u2").tobytes()
    # Three 10-bit samples in four bytes, a last incomplete group filled up with zeros.
    first, second, third = np.append(flat & 0x3FF, np.zeros(-len(flat) % 3, dtype=int)).reshape(-1, 3).T
    if fmt == "311":
        return (first | second << 10 | third << 20).astype("<u4").tobytes()
    words = [first << 1 | (third & 0x1F) << 11, second << 1 | (third >> 5) << 11]
    return np.stack(words, axis=1).astype("<u2").tobytes()


def test_fields_of_a_header_are_those_wfdb_reads(tmp_path: Path) -> None:
    path = write_record(tmp_path, "r", digital(3, 50), fs=497.449, leads=("i", "AVR", "X"), gain=12.5, baseline=-3)
    ours, theirs = read_header(path, tmp_path), wfdb.rdheader(str(path.with_suffix("")))
    assert (ours.fs, ours.n_samples, ours.leads) == (497.449, 50, ("I", "aVR", "X"))
    for field, name in (("gain", "adc_gain"), ("baseline", "baseline"), ("fmt", "fmt"), ("file", "file_name")):
        assert [getattr(channel, field) for channel in ours.channels] == getattr(theirs, name)


def test_invalid_samples_are_nan_and_chosen_channels_come_alone_and_in_order(tmp_path: Path) -> None:
    samples = digital(3, 10)
    samples[2, 4] = -32768
    signal = read(write_record(tmp_path, "r", samples, leads=("I", "II", "III")), slice(2, None, -2))
    assert signal.leads == ("III", "I")
    expected = np.where(samples == -32768, np.nan, samples / 200)[2::-2]
    np.testing.assert_array_equal(signal.values, expected.astype(np.float32))


@pytest.mark.parametrize(
    "lines",
    [
        ["r.dat 16+4 100 12 0 0 0 0 I", "s.dat 16 100 12 0 0 0 0 II"],  # two files, one after a prologue
        ["r.dat 16+4 100(7) 12 5 0 0 0 I", "s.dat 16 50 12 5 0 0 0 II"],  # a baseline; the converter's zero for one
        ["s.dat 16:2 100 12 0 0 0 0 II", "r.dat 16+4:3 100 12 0 0 0 0 I"],  # a lead later than the other
        ["t.dat 16x2 100 12 0 0 0 0 I", "t.dat 16 100 12 0 0 0 0 II"],  # two samples a frame
        ["u.dat 16:1 100 12 0 0 0 0 I", "u.dat 16 100 12 0 0 0 0 II"],  # one plain file but for a shift
        ["v.dat 16+4 100 12 0 0 0 0 I", "v.dat 16+4 100 12 0 0 0 0 II"],  # one plain file after a prologue
        ["u.dat 16 100(0) 12 9 0 0 0 I", "u.dat 16 -5.5e-1 12 -3 0 0 0 II"],  # a baseline of 0 is one
        ["s.dat 16 100 12 0 0 0 0 I", "s80.dat 80 100 12 0 0 0 0 II"],  # two formats
    ],
)
def test_layouts_are_read_as_wfdb_reads_them(tmp_path: Path, lines: list[str]) -> None:
    path = header(tmp_path, ["r 2 500 10", *lines], bytes(4) + np.arange(10, dtype="<i2").tobytes())
    for name, (start, stop) in {"s": (5, 15), "t": (0, 30), "u": (0, 20), "v": (0, 22)}.items():
        (tmp_path / f"{name}.dat").write_bytes(np.arange(start, stop, dtype="<i2").tobytes())
    (tmp_path / "s80.dat").write_bytes(bytes(range(120, 130)))
    np.testing.assert_array_equal(read(path).values, as_wfdb_reads(path))
    np.testing.assert_array_equal(read(path, slice(1, 2)).values, as_wfdb_reads(path)[1:])


@pytest.mark.parametrize(
    ("gain", "unit"),
    [("200", "mV"), ("200/uV", "uV"), ("0", "uncalibrated"), ("", "uncalibrated"), ("5/zscore", "zscore")],
)
def test_unit_is_the_headers_and_never_guessed_without_a_gain(tmp_path: Path, gain: str, unit: str) -> None:
    path = header(tmp_path, ["r 1 500 10", f"r.dat 16 {gain}".strip()], np.full(10, 100, dtype="<i2").tobytes())
    signal = read(path)
    assert signal.unit == unit
    assert signal.values[0, 0] == (20 if gain.startswith("5") else 0.5)
    assert signal.leads == ("channel 1",)


def test_leads_of_different_units_are_not_called_by_one(tmp_path: Path) -> None:
    path = header(tmp_path, ["r 2 500 5", "r.dat 16 200/mV 12 0 0 0 0 I", "r.dat 16 10/mmHg 12 0 0 0 0 ABP"])
    assert common_unit(read_header(path, tmp_path).channels) == read(path).unit == "mixed (mV, mmHg)"
    assert read(path, slice(1)).unit == "mV"


@pytest.mark.parametrize(
    ("name", "standard"),
    [("avr", "aVR"), ("AVF", "aVF"), ("v1", "V1"), ("ECG I", "I"), ("mlii", "MLII"), ("ABP", "ABP")],
)
def test_lead_names_get_their_standard_spelling(name: str, standard: str) -> None:
    assert standard_lead(name) == standard


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([""], "is empty"),
        (["# only a comment"], "is empty"),
        (["total nonsense, no header"], "no WFDB record line"),
        (["r 1 abc 10", LINE], "no WFDB record line"),
        (["r 2 1234567890123456789012345x"], "no WFDB record line"),  # wfdb's expression takes hours
        (["r 1 500/1234567890123456789012345x 10", LINE], "no WFDB record line"),
        (["r 1 500/360.5(-7) 10 12:00:00 01/01/2000", LINE], ""),
        (["r 1 500 10", f"{'x' * 260}.dat 16 200"], "x.dat is missing"),
        (["r 1 nan 10", LINE], "no WFDB record line"),
        (["r 1 -500 10", LINE], "no sampling rate"),
        (["r 1 0 10", LINE], "a sampling rate that no ECG has (0 Hz)"),
        (["r 1 1 10", LINE], "no ECG has (1 Hz)"),
        (["r 1 9999999 10", LINE], "no ECG has (1e+07 Hz)"),
        (["r 1 500", LINE], "no number of samples"),
        (["r 1 500 0", LINE], "no samples"),
        (["other 1 500 10", LINE], "calls itself by another name (other)"),
        (["r 0 500 10"], "describes no leads"),
        (["r 2 500 10", LINE], "as many as it claims (2, 1)"),
        (["r 1 500 10", LINE, LINE], "as many as it claims (1, 2)"),
        (["r 999999999999 500 10", LINE], "claims more than 134,217,728 samples"),
        (["r 2 500 5", LINE, LINE], "the same name"),
        (["r 1 500 10", "r.dat sixteen 200"], "no WFDB signal line"),
        (["r 1 500 10", "r.dat 16 2e 12 0 0 0 0 I"], "malformed number"),
        (["r 1 500 10", "r.dat 16 1e999 12 0 0 0 0 I"], "impossible number"),
        (["r 1 500 10", "r.dat 16x0 200 12 0 0 0 0 I"], "impossible number"),
        (["r 1 500 10", "r.dat 516 200 16 0 0 0 0 I"], "format 516"),
        (["r 1 500 10", "r.dat 508 200 16 0 0 0 0 I"], "format 508"),
        (["r 1 500 10", "r.dat 99 200 16 0 0 0 0 I"], "format 99"),
        (
            ["r 2 500 5", "r.dat 16:6 200 12 0 0 0 0 I", "r.dat 16 200 12 0 0 0 0 II"],
            "shifts a lead by more than the record's length (r.dat)",
        ),
        (["r 1 500 9", "r.dat 310 200 12 0 0 0 0 I"], "r.dat is longer than its header says (8 bytes)"),
        (["r 1 500 10", "missing.dat 16 200"], "missing.dat is missing; download or export the record again"),
        (["r 1 500 10", "r.DAT 16 200"], "r.DAT is missing, but there is a file whose name differs in capitals only"),
        (["r 1 500 10", "R.DAT 16 200"], "R.DAT is missing, but there is a file whose name differs in capitals only"),
        (["r 1 500 11", LINE], "r.dat is shorter than its header says (2 bytes)"),
        (["r 1 500 9", LINE], "r.dat is longer than its header says (2 bytes)"),
        (["r 1 500 9", "r.dat 212 200 12 0 0 0 0 I"], "r.dat is longer than its header says (6 bytes)"),
        (["r 1 500 9", "r.dat 16+1 200 12 0 0 0 0 I"], "r.dat is longer than its header says (1 bytes)"),
        (["r 1 500 10", "r.dat 16+1 200 12 0 0 0 0 I"], "r.dat is shorter than its header says (1 bytes)"),
        (["r 1 500 99999999999999", LINE], "claims more than 134,217,728 samples"),
        (["r 1 500 10", "r.dat 16x99999999 200 12 0 0 0 0 I"], "claims more than 134,217,728 samples (999999990)"),
        (
            ["r 3 250 21600000", LINE, LINE + "I", LINE + "II"],
            "r.dat is shorter",
        ),  # a day of three leads is not too long
        (["r 2 500 5", LINE, "r.dat 212 200 12 0 0 0 0 II"], "describes a signal file in two ways (r.dat)"),
        (["r 1 500 10", "../r.dat 16 200"], "outside its own folder"),
        (["r 1 500 10", "/etc/hostname 16 200"], "outside its own folder"),
        (["r 1 500 10", "..\\r.dat 16 200"], "outside its own folder"),
        (["r 1 500 10", "C:\\r.dat 16 200"], "outside its own folder"),
        (["r 1 500 10", ". 16 200"], "outside its own folder"),
        (["r 1 500 10", ".. 16 200"], "outside its own folder"),
        (["r/2 1 500 10", "a 5", "b 6"], "claims another length than that of its segments (10, 11)"),
        (["r/3 1 500 10", "a 5", "b 5"], "claims another number of segments than it describes"),
        (["r/1 1 500 10", "../a 10"], "claims another number of segments"),
        (["r/1 1 500 10", "gone 10"], "gone.hea is missing"),
        (["r/1 1 500 10", "r 10"], "segments within segments"),
        (["r/2 1 500 1000000000030", "a 30", "~ 1000000000000"], "claims more than 134,217,728 samples"),
        (["r/2 1 500 134217729", "a 30", "~ 134217699"], "claims more than 134,217,728 samples (134217729 x 1)"),
        (["r/1 2 500 30", "a 30"], "than its segments hold (2, 1)"),
        (["r/1 1 500 30", "short 30"], "short.dat is shorter than its header says (50 bytes)"),
        (["r/2 1 500 60", "a 30", "short 30"], "short.dat is shorter than its header says (50 bytes)"),
        (["r/1 1 500 30", "~ 30"], "consists of gaps"),
        (["r/3 1 500 65", "a 30", "~ 5", "a 30"], "has a gap and no layout segment; split the record at the gap"),
        (["r/2 1 500 35", "~ 5", "a 30"], "has a gap and no layout segment"),
        (bytes(range(256)), "outside ASCII"),
        (b"r 1 500 10\n" + "r.dat 16 200/µV 12 0 0 0 0 I\n".encode(), "outside ASCII"),
        (b"r 1 500 10\nr.dat 16 200/\xb5V 12 0 0 0 0 I\n", "outside ASCII"),
        (["\ufeffr 1 500 10 05-Feb-2020 11:39:16", LINE, "#Jörg"], ""),
        (b"\0\0\0\0", "no WFDB record line"),
        (b"#" * (1 << 21), "too large"),
        (["r 1 500 10", "r.dat 16:11 200 12 0 0 0 0 I"], "shifts a lead by more than the record's length (r.dat)"),
        (["r 1 500 10", "r.dat 16:10 200 12 0 0 0 0 I"], ""),
        (["r 1 500 10", "r.dat 212+1 200 12 0 0 0 0 I"], "r.dat is longer than its header says (4 bytes)"),
        (["r 1 500 11", "r.dat 212 200 12 0 0 0 0 I"], ""),  # a packed file may fill up its last group of bytes
        (["r 1 500 12", "r.dat 212 200 12 0 0 0 0 I"], ""),
        (["r 1 500 13", "r.dat 212 200 12 0 0 0 0 I"], ""),
        (["r 1 500 10", LINE, "# Müller, 60 Hz"], ""),
        (["r/1 1 500 30", "a 30"], ""),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, content: list[str] | bytes, words: str) -> None:
    for name in ("a", "short"):
        write_record(tmp_path, name, digital(1, 30))
    (tmp_path / "short.dat").write_bytes(bytes(10))
    path = header(tmp_path, content)
    if not words:
        np.testing.assert_array_equal(read(path).values, as_wfdb_reads(path))
        return
    message = refusal(path, tmp_path)
    assert words in message
    assert str(tmp_path) in message
    assert message.endswith(".")


@pytest.mark.parametrize("linked", ["r.dat", "r.hea"])
def test_a_link_that_leads_out_of_the_folder_is_refused_and_one_within_is_followed(tmp_path: Path, linked: str) -> None:
    inside = tmp_path / "in"
    for where, words in ((inside / "store", ""), (tmp_path / "in-evil", "leads outside the cohort's folder")):
        where.mkdir(parents=True)
        path = header(inside, ["r 1 500 10", LINE])
        (inside / linked).rename(where / linked)
        (inside / linked).symlink_to(where / linked)
        if not words:
            assert read_signal(read_header(path, inside), inside).values.shape == (1, 10)
        else:
            message = refusal(path, inside)
            assert linked in message
            assert words in message
        (inside / linked).unlink()


@pytest.mark.parametrize("path", [".", "..", "../outside.dat", "../in-evil/r.dat", "sub/../../outside.dat"])
def test_no_path_outside_the_folder_is_accepted(tmp_path: Path, path: str) -> None:
    for file in ("outside.dat", "in-evil/r.dat", "in/sub/r.dat"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    with pytest.raises(RecordError, match="leads outside the cohort's folder"):
        checked_path(tmp_path / "in" / path, tmp_path / "in")
    assert checked_path(tmp_path / "in/sub/../sub/r.dat", tmp_path / "in") == tmp_path / "in/sub/r.dat"
    with pytest.raises(RecordError, match="is not a regular file"):
        checked_path(tmp_path / "in/sub", tmp_path / "in")


def test_segments_are_joined(tmp_path: Path) -> None:
    first, second = digital(2, 30, 1), digital(2, 20, 2)
    write_record(tmp_path, "a", first, leads=("I", "II"))
    write_record(tmp_path, "b", second, leads=("I", "II"), fmt="212")
    (tmp_path / "r.hea").write_text("r/2 2 500 50\na 30\nb 20\n")
    head = read_header(tmp_path / "r.hea", tmp_path)
    signal = read_signal(head, tmp_path)
    np.testing.assert_array_equal(signal.values, (np.hstack([first, second]) / 200).astype(np.float32))
    assert {path.name for path in signal_files(head)} == {"a.hea", "a.dat", "b.hea", "b.dat"}


def test_a_variable_layout_is_joined_and_its_gaps_are_nan(tmp_path: Path) -> None:
    write_record(tmp_path, "a", digital(1, 30, 1), leads=("II",))
    lines = ["layout 2 500 0", "~ 0 200/mV 12 0 0 0 0 I", "~ 0 200/mV 12 0 0 0 0 II"]
    (tmp_path / "layout.hea").write_text("\n".join(lines) + "\n")
    (tmp_path / "r.hea").write_text("r/3 2 500 35\nlayout 0\n~ 5\na 30\n")
    signal = read_signal(read_header(tmp_path / "r.hea", tmp_path), tmp_path)
    assert signal.leads == ("I", "II")
    assert np.isnan(signal.values[0]).all()
    expected = np.append(np.full(5, np.nan), digital(1, 30, 1)[0] / 200)
    np.testing.assert_array_equal(signal.values[1], expected.astype(np.float32))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fs": 250}, "another rate than its record (250 Hz, 500 Hz)"),
        ({"unit": "uV"}, "a unit that its record does not announce"),
        ({"leads": ("V1", "V2")}, "a lead or a unit that its record does not announce"),
    ],
)
def test_segments_that_do_not_fit_are_refused(tmp_path: Path, change: dict[str, object], words: str) -> None:
    write_record(tmp_path, "a", digital(2, 30), leads=("I", "II"))
    write_record(tmp_path, "b", digital(2, 20), **({"leads": ("I", "II")} | change))
    (tmp_path / "r.hea").write_text("r/2 2 500 50\na 30\nb 20\n")
    assert words in refusal(tmp_path / "r.hea", tmp_path)


def test_a_segment_outside_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.hea", "a.dat"):
        (tmp_path / "in" / name).symlink_to(write_record(tmp_path, "a", digital(1, 30)).with_name(name))
    (tmp_path / "in" / "r.hea").write_text("r/1 1 500 30\na 30\n")
    assert "a.hea leads outside" in refusal(tmp_path / "in" / "r.hea", tmp_path / "in")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "is missing"),
        (b"\xff", "no WFDB annotation file"),
        ([5, 12], "outside its record"),
        ([10], "outside its record"),
        ([-1, 3], "outside its record"),
        ([0, 9], ""),
    ],
)
def test_an_annotation_file_is_whole_and_marks_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: list[int] | bytes | None, words: str
) -> None:
    (tmp_path / "r.atr").write_bytes(content if isinstance(content, bytes) else bytes(2))
    if content is None:
        (tmp_path / "r.atr").unlink()
    elif isinstance(content, list):
        annotation = wfdb.Annotation("r", "atr", np.array(content), symbol=["N"] * len(content))
        monkeypatch.setattr(wfdb, "rdann", lambda *_: annotation)  # which writes no mark before the start
    if not words:
        assert read_annotation(tmp_path / "r.atr", tmp_path, n_samples=10).sample.tolist() == content
        return
    with pytest.raises(RecordError, match=words):
        read_annotation(tmp_path / "r.atr", tmp_path, n_samples=10)


def test_the_error_survives_a_process_pool(tmp_path: Path) -> None:
    with pytest.raises(RecordError) as caught:
        read_header(tmp_path / "r.hea", tmp_path)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
