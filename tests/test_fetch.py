"""Downloads against a loopback server that also truncates, corrupts, drops, stalls and lies in its list."""

import errno
import hashlib
import io
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import numpy as np
import pooch
import pytest
import requests
from data_server import DataServer, Fault, sha256
from filelock import FileLock

from ecgstudy.data import fetch as fetching
from ecgstudy.data.fetch import INDEX, MIRROR_VARIABLE, SOURCES, fetch, parse_index
from ecgstudy.errors import StudyError

ECGID, PTBXL = "ecgiddb/1.0.0", "ptb-xl/1.0.3"
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


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[DataServer]:
    """Serve small stand-ins for ecgid and ptbxl to an empty data folder, and make the sources expect exactly those."""
    for name, value in {"TIMEOUT_S": 2.0, "ATTEMPTS": 3, "BACKOFF_S": 0.01, "THREADS": 4}.items():
        monkeypatch.setattr(fetching, name, value)
    with DataServer() as running:
        environment = {"NO_PROXY": "127.0.0.1", MIRROR_VARIABLE: f"{running.url}/", "ECGSTUDY_DATA": str(tmp_path)}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setitem(SOURCES, "ecgid", replace(SOURCES["ecgid"], min_files=len(ECGID_FILES)))
        index = running.publish(ECGID, ECGID_FILES | {"images/logo.png": b"png", "biometric.shtml": b"<html>"})
        republish(running, monkeypatch, index)
        index = running.publish(PTBXL, PTBXL_FILES | PTBXL_500 | {"LICENSE.txt": b"licence"})
        republish(running, monkeypatch, index, "ptbxl")
        monkeypatch.setitem(SOURCES, "ptbxl", replace(SOURCES["ptbxl"], min_files=len(PTBXL_FILES)))
        yield running


def republish(server: DataServer, monkeypatch: pytest.MonkeyPatch, index: bytes, name: str = "ecgid") -> None:
    """Replace a cohort's list of checksums, pin included."""
    source = SOURCES[name]
    server.files[f"{source.project}/{source.version}/{INDEX}"] = index
    monkeypatch.setitem(SOURCES, name, replace(source, index_sha256=hashlib.sha256(index).hexdigest()))


def whole(server: DataServer) -> dict[str, bytes]:
    """Files that ecgid's folder must hold after a download."""
    return ECGID_FILES | {INDEX: server.files[f"{ECGID}/{INDEX}"]}


# --- what comes and where it goes


def test_brings_the_files_of_the_study_and_nothing_else(
    server: DataServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pooch.get_logger().setLevel(logging.INFO)
    data = tmp_path / "new" / "data"
    monkeypatch.setenv("ECGSTUDY_DATA", str(data))
    folder = fetch("ecgid")
    assert folder == data / "ecgiddb"
    assert content(folder) == whole(server)
    assert sorted(server.asked) == sorted(f"{ECGID}/{path}" for path in whole(server))
    assert [path.name for path in data.iterdir() if not path.name.startswith(".")] == ["ecgiddb"]
    assert f"every file matches the publisher's checksum; the files are in {folder}" in capsys.readouterr().out
    assert not pooch.get_logger().isEnabledFor(logging.INFO)  # pooch would say a line a file
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    server.asked.clear()
    fetch("ecgid")  # complete: nothing is asked for
    assert server.asked == []
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_ptbxl_brings_500_hz_only_when_asked(server: DataServer, tmp_path: Path) -> None:
    index = {INDEX: server.files[f"{PTBXL}/{INDEX}"]}
    # a list that an earlier run left is believed only where it is the pinned one
    (tmp_path / "ptbxl.partial").mkdir()
    (tmp_path / "ptbxl.partial" / INDEX).write_bytes(sha256(b"evil") + b" RECORDS\n")
    folder = fetch("ptbxl")
    assert folder == tmp_path / "ptbxl"
    assert content(folder) == PTBXL_FILES | index
    server.asked.clear()
    assert fetch("ptbxl", full=True) == folder
    assert content(folder) == PTBXL_FILES | PTBXL_500 | index
    assert set(server.asked) == {f"{PTBXL}/{path}" for path in PTBXL_500}


def test_wrong_and_missing_files_are_mended_in_place(server: DataServer, tmp_path: Path) -> None:
    folder = fetch("ecgid")
    (folder / RECORD).write_bytes(ECGID_FILES[RECORD][:-1])
    (folder / "README").unlink()
    (folder / "tmp_mine.txt").write_text("the user's own")
    server.asked.clear()
    fetch("ecgid")
    assert set(server.asked) == {f"{ECGID}/{RECORD}", f"{ECGID}/README"}
    assert content(folder) == whole(server) | {"tmp_mine.txt": b"the user's own"}
    assert {path.name for path in tmp_path.iterdir()} <= {"ecgiddb", ".ecgiddb.lock"}


# --- broken connections and wrong content


@pytest.mark.parametrize(
    "faults", [["drop"], ["truncate"], ["corrupt"], ["stall"], [408], [429], [500], [503], ["drop", "corrupt"]]
)
def test_passing_failures_are_tried_again(
    server: DataServer, monkeypatch: pytest.MonkeyPatch, faults: list[Fault]
) -> None:
    monkeypatch.setattr(fetching, "TIMEOUT_S", 0.3)
    server.faults[f"{ECGID}/{RECORD}"] = iter(faults)
    assert content(fetch("ecgid")) == whole(server)
    assert server.asked.count(f"{ECGID}/{RECORD}") == len(faults) + 1


def test_a_stopped_download_ends_at_its_next_chunk_and_is_not_tried_again(server: DataServer) -> None:
    download = fetching._Download("ecgid", server.url)
    download.stop.set()
    with pytest.raises(CancelledError):
        download.bring(RECORD, sha256(ECGID_FILES[RECORD]).decode())
    server.faults[f"{ECGID}/README"] = repeat(500)
    with pytest.raises(CancelledError):
        download.bring("README", sha256(b"").decode())
    assert server.asked == [f"{ECGID}/{RECORD}", f"{ECGID}/README"]
    assert content(download.staging) == {}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("drop", "broke off"),
        (500, "answers 500"),
        ("stall", "does not answer, or too slowly"),
        ("trickle", "does not answer, or too slowly"),
    ],
)
def test_gives_up_after_the_agreed_attempts_and_continues_later(
    server: DataServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault, reason: str
) -> None:
    monkeypatch.setattr(fetching, "TIMEOUT_S", 0.2)
    server.faults[f"{ECGID}/{RECORD}"] = repeat(fault)
    with pytest.raises(StudyError, match=rf"rec_1\.dat could not be downloaded in 3 attempts \(.*({reason})\)"):
        fetch("ecgid")
    assert server.asked.count(f"{ECGID}/{RECORD}") == 3
    assert not (tmp_path / "ecgiddb").exists()
    assert not (tmp_path / "ecgiddb.partial" / RECORD).exists()
    kept = set(content(tmp_path / "ecgiddb.partial"))
    del server.faults[f"{ECGID}/{RECORD}"]
    server.asked.clear()
    assert content(fetch("ecgid")) == whole(server)
    assert set(server.asked) == {f"{ECGID}/{path}" for path in whole(server).keys() - kept}


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (requests.exceptions.SSLError(), "certificate"),
        (requests.ConnectTimeout(), "does not answer"),
        (requests.ConnectionError(), "broke off"),
    ],
)
def test_unreachable_server_is_one_sentence(
    server: DataServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: Exception, reason: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise problem

    monkeypatch.setattr(requests.Session, "get", fail)
    with pytest.raises(StudyError, match=rf"could not be downloaded in 3 attempts \(.*{reason}.*check the connection"):
        fetch("mitdb")
    assert not (tmp_path / "mitdb").exists()


@pytest.mark.parametrize(
    ("fault", "reason", "n_requests"),
    [("truncate", "does not match", 2), ("corrupt", "does not match", 2), (404, "status 404", 1), (403, "403", 1)],
)
def test_file_that_stays_bad_is_named_and_harms_no_other_and_none_under_its_final_name(
    server: DataServer, tmp_path: Path, fault: Fault, reason: str, n_requests: int
) -> None:
    def refused() -> None:
        server.asked.clear()
        server.faults[f"{ECGID}/{RECORD}"] = repeat(fault)
        with pytest.raises(StudyError, match=rf"{RECORD} .*{reason}") as raised:
            fetch("ecgid")
        assert "\n" not in str(raised.value)
        assert server.asked.count(f"{ECGID}/{RECORD}") == n_requests

    refused()
    assert content(tmp_path / "ecgiddb.partial") == {p: c for p, c in whole(server).items() if p != RECORD}
    assert not (tmp_path / "ecgiddb").exists()
    server.faults.clear()
    folder = fetch("ecgid")
    (folder / RECORD).write_bytes(b"old")
    refused()
    assert content(folder) == whole(server) | {RECORD: b"old"}


def test_a_file_larger_than_any_is_left_and_so_is_such_a_list(
    server: DataServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "MOST_BYTES", 100_000)
    with pytest.raises(StudyError, match=r"rec_1\.dat is larger than any file of the study"):
        fetch("ecgid")
    monkeypatch.setattr(fetching, "MOST_BYTES", 100)
    republish(server, monkeypatch, b"other " + server.files[f"{ECGID}/{INDEX}"])
    with pytest.raises(StudyError, match=r"SHA256SUMS\.txt is larger than any file of the study, so no file"):
        fetch("ecgid")


def test_a_server_may_send_on_to_itself_and_to_the_publisher_only(server: DataServer) -> None:
    server.files["moved.dat"] = ECGID_FILES[RECORD]
    server.faults[f"{ECGID}/{RECORD}"] = iter([f"{server.url}/moved.dat"])
    assert content(fetch("ecgid")) == whole(server)
    server.faults[f"{PTBXL}/RECORDS"] = repeat(server.url.replace("127.0.0.1", "localhost"))
    with pytest.raises(StudyError, match="RECORDS is sent on to http://localhost, which is not to be trusted"):
        fetch("ptbxl")


@pytest.mark.parametrize(
    ("place", "followed"),
    [
        ("https://physionet.org/other", True),
        ("/other", True),
        ("https://physionet-open.s3.amazonaws.com/x", True),
        ("http://physionet.org/other", False),
        ("http://physionet-open.s3.amazonaws.com/x", False),
        ("https://physionet.org.evil.org/x", False),
        ("ftp://physionet.org/x", False),
    ],
)
def test_https_stays_https_and_the_publisher_the_publisher(place: str, followed: bool) -> None:
    reply = requests.Response()
    reply.status_code, reply.url, reply.headers["Location"] = 302, "https://physionet.org/files/x", place
    if followed:
        assert fetching._Session().get_redirect_target(reply) == place
    else:
        with pytest.raises(fetching._BadFileError, match="not to be trusted"):
            fetching._Session().get_redirect_target(reply)


def test_mirror_that_is_wrong_throughout_is_left_early(server: DataServer, monkeypatch: pytest.MonkeyPatch) -> None:
    many = {f"Person_01/rec_{i}.dat": noise(10, i) for i in range(200)}
    republish(server, monkeypatch, server.publish(ECGID, many))
    server.faults = {f"{ECGID}/{path}": repeat(404) for path in many}
    with pytest.raises(StudyError, match="10 bad files in all"):
        fetch("ecgid")
    assert len(server.asked) < 100


# --- the machine's own trouble


def test_full_disk_is_one_sentence_and_continues_when_there_is_room(
    server: DataServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FullDisk(io.FileIO):
        def write(self, data: bytes) -> int:
            if self.tell() >= 1 << 16:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)

    real_open = Path.open
    with monkeypatch.context() as full:
        full.setattr(Path, "open", lambda p, mode="r": FullDisk(p, mode) if mode == "wb" else real_open(p, mode))
        with pytest.raises(StudyError, match="No space is left") as raised:
            fetch("ecgid")
    assert str(tmp_path / "ecgiddb") in str(raised.value)
    assert not (tmp_path / "ecgiddb").exists()
    assert content(fetch("ecgid")) == whole(server)


def test_folder_that_cannot_be_made_is_one_sentence(
    server: DataServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").write_text("a file where the data folder should be")
    monkeypatch.setenv("ECGSTUDY_DATA", str(tmp_path / "data"))
    with pytest.raises(StudyError, match=r"data cannot be used .*ECGSTUDY_DATA"):
        fetch("ecgid")


def test_downloads_at_once_leave_one_whole_cohort(server: DataServer, tmp_path: Path) -> None:
    with FileLock(tmp_path / ".ecgiddb.lock"), pytest.raises(StudyError, match="by another process"):
        fetch("ecgid")
    assert server.asked == []
    server.faults[f"{ECGID}/{RECORD}"] = iter(["drop"])
    with ThreadPoolExecutor(4) as pool:
        errors = [future.exception() for future in [pool.submit(fetch, "ecgid") for _ in range(4)]]
    assert None in errors
    assert all(error is None or "by another process" in str(error) for error in errors)
    assert content(tmp_path / "ecgiddb") == whole(server)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_stopped_process_leaves_a_state_that_continues(
    server: DataServer, tmp_path: Path, sent: signal.Signals
) -> None:
    server.faults[f"{ECGID}/{RECORD}"] = iter(["stall"])
    program = (
        # a shell that runs the tests in the background has its children ignore Ctrl-C
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import sys; from dataclasses import replace\n"
        "from ecgstudy.data import fetch as f\n"
        f"pin = {hashlib.sha256(server.files[f'{ECGID}/{INDEX}']).hexdigest()!r}\n"
        "f.SOURCES['ecgid'] = replace(f.SOURCES['ecgid'], min_files=6, index_sha256=pin)\n"
        "try: f.fetch('ecgid')\n"
        "except f.StudyError as error: sys.exit(str(error))\n"
    )
    staging = tmp_path / "ecgiddb.partial"
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE) as process:
        assert server.stalled.wait(60)
        end = time.monotonic() + 10
        kept: list[str] = []
        while time.monotonic() < end and len(kept) < len(ECGID_FILES):
            time.sleep(0.01)
            # only names are listed: a file may take its own name meanwhile
            files = [path for path in staging.rglob("*") if not path.name.startswith("tmp") and path.is_file()]
            kept = [path.relative_to(staging).as_posix() for path in files]
        process.send_signal(sent)
        _, said = process.communicate(timeout=5)  # and not only when the connection times out
    assert process.returncode == (1 if sent == signal.SIGINT else -sent)
    assert (b"run the same command to continue" in said) == (sent == signal.SIGINT)
    assert b"Traceback" not in said
    assert not (tmp_path / "ecgiddb").exists()
    assert any("tmp" in path for path in content(staging)) == (sent == signal.SIGKILL)
    assert sorted(kept) == sorted(whole(server).keys() - {RECORD})
    server.asked.clear()
    assert content(fetch("ecgid")) == whole(server)
    assert server.asked == [f"{ECGID}/{RECORD}"]


@pytest.mark.parametrize(
    ("name", "mirror", "sentence"),
    [("physionet", "", "choose one of ecgid, ludb, mitdb, nsrdb, ptb, ptbxl"), ("ecgid", "mirror/files", "no address")],
)
def test_mistaken_request_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, mirror: str, sentence: str
) -> None:
    monkeypatch.setenv("ECGSTUDY_DATA", str(tmp_path / "data"))
    monkeypatch.setenv(MIRROR_VARIABLE, mirror)
    with pytest.raises(StudyError, match=sentence):
        fetch(name)
    assert list(tmp_path.iterdir()) == []


# --- the publisher's list of checksums


GOOD_LIST = b"".join(sha256(data) + b" " + path.encode() + b"\n" for path, data in ECGID_FILES.items())
OUTSIDE = (
    "../out",
    "/out",
    "Person_01/../../out",
    "a\\..\\out",
    "C:/out",
    "C:out",
    "./out",
    "a//out",
    "a/",
    "..",
    "a\0b",
)


@pytest.mark.parametrize(
    ("index", "sentence"),
    [
        (b"<html>Log in to the hospital's network</html>", r"not a list of SHA-256 checksums \(line 1\)"),
        (sha256(b"") + b" RECORDS\n" + sha256(b"")[:-1] + b" README\n", r"checksums \(line 2\)"),
        (b"\xff\xfe\x00", "not a list"),
        (b"", "lists 0 of at least 6 needed files"),
        (sha256(b"") + b" RECORDS\n", "lists 1 of at least 6 needed files"),
        (sha256(b"") + b" RECORDS\n" + sha256(b"1") + b" RECORDS\n", "two checksums for RECORDS"),
        *((GOOD_LIST + sha256(b"evil") + f" {path}\n".encode(), "outside the cohort's folder") for path in OUTSIDE),
    ],
)
def test_unusable_list_is_one_sentence_and_nothing_else_is_asked_for(
    server: DataServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: bytes, sentence: str
) -> None:
    republish(server, monkeypatch, index)
    with pytest.raises(StudyError, match=sentence) as raised:
        fetch("ecgid")
    assert "\n" not in str(raised.value)
    assert set(server.asked) == {f"{ECGID}/{INDEX}"}
    assert {item.name for item in tmp_path.iterdir()} <= {"ecgiddb.partial", ".ecgiddb.lock"}


def test_list_other_than_the_pinned_one_is_refused_and_so_is_a_missing_one(server: DataServer) -> None:
    server.publish(ECGID, ECGID_FILES | {RECORD: b"tampered with"})
    with pytest.raises(StudyError, match=r"SHA256SUMS\.txt does not match .* no file of ecgiddb 1\.0\.0"):
        fetch("ecgid")
    del server.files[f"{ECGID}/{INDEX}"]
    with pytest.raises(StudyError, match=rf"SHA256SUMS\.txt is refused .*404.*{MIRROR_VARIABLE}"):
        fetch("ecgid")
    assert set(server.asked) == {f"{ECGID}/{INDEX}"}


PTBDB_FILES = {
    "RECORDS": b"patient001/s0010_re\n",
    **{f"patient001/s0010_re{suffix}": noise(3_000, seed) for seed, suffix in enumerate((".hea", ".dat", ".xyz"))},
}
NSRDB_FILES = {"RECORDS": b"16265\n", "ANNOTATORS": b"atr\n"}
NSRDB_FILES |= {f"16265{suffix}": noise(3_000, seed) for seed, suffix in enumerate((".hea", ".dat", ".atr"))}
SPARE = {"patient001/s0010_re.hea-": b"old", "16265.hea-": b"old", "16265.xws": b"view", "CONTROLS": b""}


def publish_unpinned(server: DataServer, monkeypatch: pytest.MonkeyPatch, name: str) -> dict[str, bytes]:
    """Publish a stand-in for a cohort whose list has no pin; its files."""
    source, files = SOURCES[name], {"ptb": PTBDB_FILES, "nsrdb": NSRDB_FILES}[name]
    monkeypatch.setitem(SOURCES, name, replace(source, min_files=len(files)))
    index = server.publish(f"{source.project}/{source.version}", files | SPARE)
    return files | {INDEX: index}


@pytest.mark.parametrize("name", ["ptb", "nsrdb"])
def test_without_a_pin_a_mirror_is_refused_and_the_publisher_is_believed_and_the_list_is_named(
    server: DataServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    expected = publish_unpinned(server, monkeypatch, name)
    with pytest.raises(StudyError, match=rf"checksums of {name} is not pinned .* unset {MIRROR_VARIABLE}"):
        fetch(name)
    assert server.asked == []
    monkeypatch.setattr(fetching, "PUBLISHER", (server.url, "other"))
    # a list that somebody left is not believed
    staging = tmp_path / f"{SOURCES[name].folder}.partial"
    staging.mkdir()
    (staging / INDEX).write_bytes(sha256(b"evil") + b" RECORDS\n")
    folder = fetch(name)
    assert content(folder) == expected
    assert f"is not pinned: {sha256(expected[INDEX]).decode()}" in capsys.readouterr().out
    server.asked.clear()
    fetch(name)  # complete: only the list is asked for
    assert [path.rpartition("/")[2] for path in server.asked] == [INDEX]


@pytest.mark.parametrize("name", ["ptb", "nsrdb"])
def test_without_a_pin_a_wrong_file_and_a_list_cut_short_are_refused_all_the_same(
    server: DataServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    source, files = SOURCES[name], publish_unpinned(server, monkeypatch, name)
    monkeypatch.setattr(fetching, "PUBLISHER", (server.url, "other"))
    (samples,) = (path for path in files if path.endswith(".dat"))
    address = f"{source.project}/{source.version}"
    server.faults[f"{address}/{samples}"] = repeat("corrupt")
    with pytest.raises(StudyError, match=rf"{samples} does not match the publisher's checksum"):
        fetch(name)
    assert not (tmp_path / source.folder).exists()
    server.files[f"{address}/{INDEX}"] = files[INDEX].splitlines(keepends=True)[0]
    with pytest.raises(StudyError, match=rf"lists 1 of at least {len(files) - 1} needed files, so it is not whole"):
        fetch(name)


def test_list_is_read_in_each_of_the_usual_spellings() -> None:
    a, b = sha256(b"a").decode(), sha256(b"b").decode()
    text = f"{a} one\r\n{b.upper()}  two words/x.dat\n\n{a} *three".encode()
    assert parse_index(text, "list") == {"one": a, "two words/x.dat": b, "three": a}


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["ecgid", "ludb", "mitdb"])
def test_pins_are_those_of_the_published_lists(name: str) -> None:
    nowhere = fetching._Download(name, "http://nowhere.invalid")
    if not (nowhere.folder / INDEX).is_file():
        pytest.skip(f"{nowhere.folder} holds no published list of checksums")
    assert len(nowhere.checksums(full=True)) == SOURCES[name].min_files
