"""Fixtures of the download tests."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from data_server import DataServer
from stand_ins import ECGID, ECGID_FILES, PTBXL, PTBXL_500, PTBXL_FILES, QUICK

from ecgstudy.data.fetch import MIRROR_VARIABLE, SOURCES, fetch


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[DataServer]:
    """Serve small stand-ins for ecgid and ptbxl, and make the sources expect exactly those."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv(MIRROR_VARIABLE, raising=False)
    with DataServer() as running:
        index = running.publish(ECGID, ECGID_FILES | {"images/logo.png": b"png", "biometric.shtml": b"<html>"})
        pin = hashlib.sha256(index).hexdigest()
        monkeypatch.setitem(SOURCES, "ecgid", replace(SOURCES["ecgid"], index_sha256=pin, min_files=len(ECGID_FILES)))
        running.publish(PTBXL, PTBXL_FILES | PTBXL_500 | {"LICENSE.txt": b"licence"})
        monkeypatch.setitem(SOURCES, "ptbxl", replace(SOURCES["ptbxl"], min_files=len(PTBXL_FILES)))
        yield running


@pytest.fixture
def ecgid(server: DataServer, tmp_path: Path) -> Callable[[], Path]:
    """Fetch ecgid from the server into the test's folder."""
    return lambda: fetch("ecgid", tmp_path, base_url=server.url, patience=QUICK)
