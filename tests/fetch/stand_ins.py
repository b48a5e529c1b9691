"""Small stand-ins for two published cohorts, and what the tests of downloads ask of them."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_server import DataServer

from ecgstudy.data.fetch import SOURCES, Patience
from ecgstudy.study.config import data_root

QUICK = Patience(timeout_s=2.0, attempts=3, backoff_s=0.01, threads=4)
ECGID = "ecgiddb/1.0.0"
PTBXL = "ptb-xl/1.0.3"
RECORD = "Person_01/rec_1.dat"


def noise(n_bytes: int, seed: int) -> bytes:
    """Bytes that no compression, offset or repetition can confuse."""
    return np.random.default_rng(seed).bytes(n_bytes)


ECGID_FILES = {
    RECORD: noise(300_001, 1),
    "Person_01/rec_1.hea": b"rec_1 2 500 10000\n",
    "Person_02/rec 1#%41.dat": noise(5_000, 2),  # a name that an address must quote
    "Person_02/empty.atr": b"",
    "RECORDS": b"Person_01/rec_1\n",
    "README": b"read me\n",
}
PTBXL_FILES = {
    "ptbxl_database.csv": b"ecg_id\n1\n",
    "scp_statements.csv": b"statement\nNORM\n",
    "RECORDS": b"records100/00000/00001_lr\n",
    "records100/00000/00001_lr.dat": noise(24_000, 3),
    "records100/00000/00001_lr.hea": b"00001_lr 12 100 1000\n",
}
PTBXL_500 = {"records500/00000/00001_hr.dat": noise(120_000, 4)}


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by relative path, hidden and temporary ones too."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def republish(server: DataServer, monkeypatch: pytest.MonkeyPatch, index: bytes) -> None:
    """Replace ecgid's list of checksums, pin included."""
    server.files[f"{ECGID}/SHA256SUMS.txt"] = index
    pinned = replace(SOURCES["ecgid"], index_sha256=hashlib.sha256(index).hexdigest())
    monkeypatch.setitem(SOURCES, "ecgid", pinned)


def whole(server: DataServer) -> dict[str, bytes]:
    """Files that ecgid's folder must hold after a download."""
    return ECGID_FILES | {"SHA256SUMS.txt": server.files[f"{ECGID}/SHA256SUMS.txt"]}


def published(name: str) -> Path:
    """Find a real cohort's folder with its published list, or skip the test."""
    folder = data_root() / SOURCES[name].folder
    if not (folder / "SHA256SUMS.txt").is_file():
        pytest.skip(f"{folder} holds no published list of checksums")
    return folder
