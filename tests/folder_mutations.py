"""A seeded generator of folders that nobody would want: each takes three good records and spoils one, or the table.

Every mutation is named, so that one that does harm can be made again: ``spoil(folder, number)``.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from wfdb_trees import digital, write_record

TOKEN = "Smith4711"
"""Stands wherever a mutation writes a name or free text: it may reach no table."""
N_MUTATIONS = 560
VICTIM = "v"
_NUMBERS = (
    "-1",
    "0",
    "1",
    "nan",
    "inf",
    "1e308",
    "10000000000000",
    str(2**31),
    str(2**63),
    str(10**20),
    "9" * 5000,
    "",
)
_NAMES = (
    ".",
    "..",
    "/",
    "/etc/passwd",
    "../../x.dat",
    "b.dat",
    "sub",
    "~",
    "",
    "-",
    "x y.dat",
    f"{TOKEN}.dat",
    "*",
    "\x00",
)
_FORMATS = ("8", "24", "32", "61", "80", "160", "212", "310", "311", "508", "516", "524", "999", "16x0", "16x5000")
_FORMATS += ("16:999999999", "16+24", "16+1000000000000", "16-1", "16x2:3+4", "1" * 500, "sixteen")
_GAINS = ("0", "nan", "inf", "1e308", "200(99999999999999999999)/mV", f"200/{TOKEN}", "200(", "-5", "1e-308")
_LINES = (
    "v 2 200" + " " * 500 + "1000x",
    "v 2 200 1000 " + "1:" * 3000,
    f"v 2 200 1000 12:00:00 01/01/1950 {TOKEN}",
    "v/99999999999999999999 2 200 1000",
    "v/" + "9" * 5000 + " 2 200 1000",
    f"{TOKEN} 2 200 1000",
    "v 2",
    "v",
    " ",
    "#",
    "v 100000 200 1000",
    "v 2 200/360(0) 1000",
    "v 2 0.0000001 1000",
    "\x00" * 2000,
    "v\t2\t200\t1000",
    "v 2 200 1000" + "(" * 4000,
)
_TABLES = (
    b"",
    b"\x00" * 4000,
    b"record,subject_id\n" + b'"' * 2001,
    b"record,subject_id\na,A\nb,B\nv," + b"x" * 200_000 + b"\n",
    b"record;subject_id;\xff\xfe\na;A\n",
    b"record,subject_id\na,A\nb,B\nv,V,Smith4711,2\n",
    b"record,subject_id,age\na,A,1\nb,B,2\nv,V,Smith4711\n",
    b"record,subject_id,session\na,A,1\nb,B,1\nv,V,99999999999999999999999\n",
    b"record,subject_id,session\na,A,2024-01-01\nb,B,2024-01-01\nv,V,0001-01-01\n",
    b"record,subject_id,sex\na,A,F\nb,B,M\nv,V,Smith4711\n",
    b"record,subject_id,fs,sha256,gaps,leads\na,A,1,2,3,4\nb,B,1,2,3,4\nv,V,1,2,3,4\n",
    b"record,subject_id\na,A\nb,B\nSmith4711,V\n",
    b"record,subject_id\na,A\nb,A\nv,a\n",
    b"record,subject_id\n" + b"a,A\n" * 5000,
    b"\xff\xferecord",
    ("record,subject_id\na,A\nb,B\nv,\u202eSmith4711\n").encode(),
)


def good_folder(folder: Path) -> Path:
    """Three records of ten seconds, two leads each."""
    for seed, name in enumerate(("a", "b", VICTIM)):
        write_record(folder, name, digital(2, 2000, seed), fs=200, leads=("I", "II"), comments=("Age: 40",))
    (folder / "sub").mkdir()
    return folder


def spoil(folder: Path, number: int) -> str:
    """Apply mutation `number` to a :func:`good_folder`; say what was done."""
    rng = np.random.default_rng(number)
    kinds = [_flip, _cut, _record_line, _signal_line, _data, _segments, _table, _comments, _names, _field]
    kind: Callable[[Path, np.random.Generator], str] = kinds[number % len(kinds)]
    return f"{number} {kind.__name__[1:]}: {kind(folder, rng)}"


def _header(folder: Path) -> tuple[Path, list[str]]:
    path = folder / f"{VICTIM}.hea"
    return path, path.read_text().splitlines()


def _write(path: Path, lines: list[str]) -> None:
    path.write_bytes("\n".join(lines).encode(errors="surrogateescape") + b"\n")


def _flip(folder: Path, rng: np.random.Generator) -> str:
    path, _ = _header(folder)
    raw = bytearray(path.read_bytes())
    places = rng.integers(0, len(raw), rng.integers(1, 6))
    for place in places:
        raw[place] = rng.integers(0, 256)
    path.write_bytes(raw)
    return f"bytes {places.tolist()}"


def _cut(folder: Path, rng: np.random.Generator) -> str:
    path, _ = _header(folder)
    raw = path.read_bytes()
    kept = int(rng.integers(0, len(raw)))
    path.write_bytes(raw[:kept] * int(rng.choice([1, 1, 2, 50])))
    return f"at {kept}"


def _record_line(folder: Path, rng: np.random.Generator) -> str:
    path, lines = _header(folder)
    lines[0] = str(rng.choice(_LINES))
    _write(path, lines)
    return lines[0][:40]


def _field(folder: Path, rng: np.random.Generator) -> str:
    path, lines = _header(folder)
    row = int(rng.integers(0, 3))
    fields = lines[row].split()
    at = int(rng.integers(0, len(fields)))
    fields[at] = str(rng.choice(_NUMBERS))
    lines[row] = " ".join(fields)
    _write(path, lines)
    return f"field {at} of line {row} is {fields[at][:20]!r}"


def _signal_line(folder: Path, rng: np.random.Generator) -> str:
    path, lines = _header(folder)
    both = bool(rng.integers(0, 2))
    at, choices = [(0, _NAMES), (1, _FORMATS), (2, _GAINS), (8, (TOKEN, "I", "x" * 5000, "\u00b5V", ""))][
        rng.integers(0, 4)
    ]
    value = str(rng.choice(choices))
    for row in (1, 2) if both else (1,):
        fields = lines[row].split(maxsplit=8)
        fields[min(at, len(fields) - 1)] = value
        lines[row] = " ".join(fields)
    _write(path, lines)
    return f"field {at} is {value[:20]!r}"


def _data(folder: Path, rng: np.random.Generator) -> str:
    path, kind = folder / f"{VICTIM}.dat", int(rng.integers(0, 9))
    raw = path.read_bytes()
    path.unlink()
    if kind == 0:
        path.write_bytes(raw[: int(rng.integers(0, len(raw)))])
    elif kind == 1:
        path.write_bytes(raw + b"\x00" * int(rng.integers(1, 5000)))
    elif kind == 2:
        path.mkdir()
    elif kind == 3:
        path.symlink_to("/dev/zero")
    elif kind == 4:
        os.mkfifo(path)
    elif kind == 5:
        path.symlink_to(path)
    elif kind == 6:
        with path.open("wb") as handle:
            handle.truncate(1 << 40)
    elif kind == 7:
        path.write_bytes(b"\x00\x80" * (len(raw) // 2))
    return ("cut", "longer", "a folder", "a device", "a pipe", "a link to itself", "a terabyte", "invalid", "gone")[
        kind
    ]


def _segments(folder: Path, rng: np.random.Generator) -> str:
    path, _ = _header(folder)
    kind = int(rng.integers(0, 9))
    made: dict[int, list[str]] = {
        0: ["v/2 2 200 4000", "a 2000", "b 2000"],
        1: ["v/2 2 200 4000", "v 2000", "v 2000"],
        2: [f"v/3 2 200 {4000 + (1 << 27)}", "a 2000", f"~ {1 << 27}", "b 2000"],
        3: ["v/100000 2 200 200000000", *["a 2000"] * 100_000],
        4: ["v/2 2 200 " + "9" * 30, "a " + "9" * 30, "b 0"],
        5: ["v/2 2 200 4000", "../a 2000", "/etc/passwd 2000"],
        6: [f"v/{'9' * 5000} 2 200 4000", "a 2000"],
        7: ["v/2 2 200 4000", f"{TOKEN} 2000", "b 2000"],
        8: ["v/2000 200 200 4000000", *["wide 2000"] * 2000],
    }
    if kind == 8:
        wide = ["wide 200 200 2000", *(f"wide.dat 16 200 16 0 0 0 0 lead{n}" for n in range(200))]
        _write(folder / "wide.hea", wide)
        (folder / "wide.dat").write_bytes(b"\x01\x00" * 2000 * 200)
    _write(path, made[kind])
    return f"multi-segment header {kind}"


def _table(folder: Path, rng: np.random.Generator) -> str:
    at = int(rng.integers(0, len(_TABLES)))
    (folder / "subjects.csv").write_bytes(_TABLES[at])
    return f"table {at}"


def _comments(folder: Path, rng: np.random.Generator) -> str:
    path, lines = _header(folder)
    said = str(
        rng.choice(["Age: 9e999", "Age: -5", f"Age: {TOKEN}", f"Sex: {TOKEN}", f"Dx: {TOKEN}", "Dx: " + "1," * 9000])
    )
    lines += [f"# {said}"] * int(rng.choice([1, 3, 3000]))
    _write(path, lines)
    return said[:30]


def _names(folder: Path, rng: np.random.Generator) -> str:
    name = [b"\xff\xfe", b"new\nline", b"-rf", b"%s", b"x" * 200, b" ", b"A", TOKEN.encode(), "\u202ev".encode()][
        rng.integers(0, 9)
    ]
    for suffix in (b".hea", b".dat"):
        raw = (folder / f"{VICTIM}{suffix.decode()}").read_bytes()
        raw = raw.replace(b"v", name) if suffix == b".hea" and rng.integers(0, 2) else raw
        Path(os.fsdecode(os.path.join(os.fsencode(folder), name + suffix))).write_bytes(raw)  # noqa: PTH118
    return f"a file called {name!r}"
