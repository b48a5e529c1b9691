"""The publisher's list of checksums: pinned, whole, and never trusted with a path that leads outside."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from data_server import DataServer, sha256
from stand_ins import (
    ECGID,
    ECGID_FILES,
    PTBXL,
    PTBXL_FILES,
    QUICK,
    RECORD,
    content,
    published,
    republish,
)

from ecgstudy.data.fetch import MIRROR_VARIABLE, SOURCES, fetch
from ecgstudy.data.fetch.checksums import parse_index, wanted
from ecgstudy.errors import StudyError


@pytest.mark.parametrize(
    ("index", "sentence"),
    [
        (b"<html>Log in to the hospital's network</html>", r"not a list of SHA-256 checksums \(line 1\)"),
        (sha256(b"") + b" RECORDS\n" + sha256(b"")[:-1] + b" README\n", r"checksums \(line 2\)"),
        (b"\xff\xfe\x00", "not a list"),
        (b"", "lists 0 of at least 6 needed files"),
        (sha256(b"") + b" RECORDS\n", "lists 1 of at least 6 needed files"),
        (sha256(b"") + b" RECORDS\n" + sha256(b"1") + b" RECORDS\n", "two checksums for RECORDS"),
    ],
)
@pytest.mark.parametrize("pinned", [True, False])
def test_unusable_list_is_one_sentence_and_nothing_else_is_asked_for(
    server: DataServer,
    ecgid: Callable[[], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    index: bytes,
    sentence: str,
    pinned: bool,
) -> None:
    republish(server, monkeypatch, index)
    if not pinned:
        monkeypatch.setitem(SOURCES, "ecgid", replace(SOURCES["ecgid"], index_sha256=None))
    with pytest.raises(StudyError, match=sentence) as raised:
        ecgid()
    assert "\n" not in str(raised.value)
    assert {request.path for request in server.requests} == {f"{ECGID}/SHA256SUMS.txt"}
    assert not (tmp_path / "ecgiddb").exists()


def test_list_other_than_the_pinned_one_is_refused(server: DataServer, ecgid: Callable[[], Path]) -> None:
    server.publish(ECGID, ECGID_FILES | {RECORD: b"tampered with"})
    with pytest.raises(StudyError, match=r"SHA256SUMS\.txt does not match .* no file of ecgiddb 1\.0\.0"):
        ecgid()
    assert {request.path for request in server.requests} == {f"{ECGID}/SHA256SUMS.txt"}


def test_missing_list_is_one_sentence(server: DataServer, ecgid: Callable[[], Path]) -> None:
    del server.files[f"{ECGID}/SHA256SUMS.txt"]
    with pytest.raises(StudyError, match=rf"SHA256SUMS\.txt is refused .*404.*{MIRROR_VARIABLE}"):
        ecgid()


def test_unpinned_list_never_continues_an_old_beginning(server: DataServer, tmp_path: Path) -> None:
    leftover = tmp_path / "ptbxl.partial" / "SHA256SUMS.txt.partial"
    leftover.parent.mkdir()
    leftover.write_bytes(sha256(b"evil") + b" RECORDS\n")
    folder = fetch("ptbxl", tmp_path, base_url=server.url, patience=QUICK)
    assert content(folder) == PTBXL_FILES | {"SHA256SUMS.txt": server.files[f"{PTBXL}/SHA256SUMS.txt"]}


@pytest.mark.parametrize(
    "path",
    ["../out", "/out", "Person_01/../../out", "a\\..\\out", "C:/out", "C:out", "./out", "a//out", "a/", "..", "a\0b"],
)
def test_path_that_leads_outside_is_refused(
    server: DataServer, ecgid: Callable[[], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    index = server.files[f"{ECGID}/SHA256SUMS.txt"] + sha256(b"evil") + b" " + path.encode() + b"\n"
    republish(server, monkeypatch, index)
    with pytest.raises(StudyError, match="outside the cohort's folder"):
        ecgid()
    assert {request.path for request in server.requests} == {f"{ECGID}/SHA256SUMS.txt"}
    assert {item.name for item in tmp_path.iterdir()} <= {"ecgiddb.partial", ".ecgiddb.lock"}


def test_list_is_read_in_each_of_the_usual_spellings() -> None:
    a, b = sha256(b"a").decode(), sha256(b"b").decode()
    text = f"{a} one\r\n{b.upper()}  two words/x.dat\n\n{a} *three".encode()
    assert parse_index(text, "list") == {"one": a, "two words/x.dat": b, "three": a}


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["ecgid", "ludb", "mitdb"])
def test_pins_are_those_of_the_published_lists(name: str) -> None:
    source = SOURCES[name]
    text = (published(name) / "SHA256SUMS.txt").read_bytes()
    assert hashlib.sha256(text).hexdigest() == source.index_sha256
    assert len(wanted(source, parse_index(text, name), full=True)) == source.min_files
