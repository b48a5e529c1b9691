"""Downloads against a loopback server that also truncates, corrupts, drops and stalls."""

import errno
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import pytest
from data_server import DataServer, Fault
from filelock import FileLock
from stand_ins import (
    ECGID,
    ECGID_FILES,
    PTBXL,
    PTBXL_500,
    PTBXL_FILES,
    QUICK,
    RECORD,
    content,
    noise,
    published,
    republish,
    whole,
)

from ecgstudy.data.fetch import MIRROR_VARIABLE, fetch, fetch_and_report
from ecgstudy.errors import StudyError


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for another process, ten seconds at most."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


# --- what comes and where it goes


def test_brings_the_files_of_the_study_and_nothing_else(
    server: DataServer, ecgid: Callable[[], Path], tmp_path: Path
) -> None:
    folder = ecgid()
    assert folder == tmp_path / "ecgiddb"
    assert content(folder) == whole(server)
    assert sorted(request.path for request in server.requests) == sorted(f"{ECGID}/{path}" for path in whole(server))
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["ecgiddb"]


def test_ptbxl_brings_500_hz_only_when_asked(server: DataServer, tmp_path: Path) -> None:
    index = {"SHA256SUMS.txt": server.files[f"{PTBXL}/SHA256SUMS.txt"]}
    folder = fetch("ptbxl", tmp_path, base_url=server.url, patience=QUICK)
    assert folder == tmp_path / "ptbxl"
    assert content(folder) == PTBXL_FILES | index
    server.requests.clear()
    assert fetch("ptbxl", tmp_path, base_url=server.url, full=True, patience=QUICK) == folder
    assert content(folder) == PTBXL_FILES | PTBXL_500 | index
    # ptbxl's list is not pinned, so it alone is asked for again
    assert {request.path for request in server.requests} == {f"{PTBXL}/{path}" for path in [*index, *PTBXL_500]}


def test_complete_cohort_asks_the_server_for_nothing(server: DataServer, ecgid: Callable[[], Path]) -> None:
    folder = ecgid()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    server.requests.clear()
    ecgid()
    assert server.requests == []
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_wrong_and_missing_files_are_mended_in_place(server: DataServer, ecgid: Callable[[], Path]) -> None:
    folder = ecgid()
    (folder / RECORD).write_bytes(ECGID_FILES[RECORD][:-1])
    (folder / "README").unlink()
    (folder / "mine.txt").write_text("the user's own")
    server.requests.clear()
    ecgid()
    assert {request.path for request in server.requests} == {f"{ECGID}/{RECORD}", f"{ECGID}/README"}
    assert content(folder) == whole(server) | {"mine.txt": b"the user's own"}


def test_command_uses_mirror_and_data_folder_and_says_where_the_files_are(
    server: DataServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(MIRROR_VARIABLE, f"{server.url}/")
    monkeypatch.setenv("ECGSTUDY_DATA", str(tmp_path / "new" / "data"))
    folder = fetch_and_report("ecgid")
    assert folder == tmp_path / "new" / "data" / "ecgiddb"
    assert content(folder) == whole(server)
    assert str(folder) in capsys.readouterr().out


# --- broken connections


def test_dropped_connection_continues_with_the_rest_only(server: DataServer, ecgid: Callable[[], Path]) -> None:
    server.faults[f"{ECGID}/{RECORD}"] = iter(["drop"])
    assert content(ecgid()) == whole(server)
    first, second = server.asked(f"{ECGID}/{RECORD}")
    assert (first.range, first.sent) == (None, 150_000)
    assert second.range is not None
    start = int(second.range.removeprefix("bytes=").removesuffix("-"))
    assert 130_000 < start <= 150_000  # the last chunk may be lost with the connection
    assert second.sent == 300_001 - start


@pytest.mark.parametrize("fault", ["stall", 500, 503, 429])
def test_passing_failure_is_tried_again(server: DataServer, tmp_path: Path, fault: Fault) -> None:
    server.faults[f"{ECGID}/{RECORD}"] = iter([fault])
    folder = fetch("ecgid", tmp_path, base_url=server.url, patience=replace(QUICK, timeout_s=0.3))
    assert content(folder) == whole(server)
    assert len(server.asked(f"{ECGID}/{RECORD}")) == 2


def test_server_without_ranges_starts_the_file_again(server: DataServer, ecgid: Callable[[], Path]) -> None:
    server.ranges = False
    server.faults[f"{ECGID}/{RECORD}"] = iter(["drop"])
    assert content(ecgid()) == whole(server)
    assert [request.sent for request in server.asked(f"{ECGID}/{RECORD}")] == [150_000, 300_001]


def test_continuation_from_the_wrong_place_is_not_appended(server: DataServer, ecgid: Callable[[], Path]) -> None:
    server.faults[f"{ECGID}/{RECORD}"] = iter(["drop", "shift"])
    assert content(ecgid()) == whole(server)
    first, second, third = server.asked(f"{ECGID}/{RECORD}")
    assert second.range is not None
    assert (first.range, third.range) == (None, None)


def test_list_without_pin_is_not_pieced_together_from_the_wrong_place(server: DataServer, tmp_path: Path) -> None:
    many = {f"records500/{i}.hea": b"" for i in range(1000)}
    index = server.publish(PTBXL, PTBXL_FILES | many)
    server.faults[f"{PTBXL}/SHA256SUMS.txt"] = iter(["drop", "shift"])
    folder = fetch("ptbxl", tmp_path, base_url=server.url, patience=QUICK)
    assert content(folder) == PTBXL_FILES | {"SHA256SUMS.txt": index}
    assert [request.range is None for request in server.asked(f"{PTBXL}/SHA256SUMS.txt")] == [True, False, True]


@pytest.mark.parametrize(
    ("left", "ranges"),
    [
        (ECGID_FILES[RECORD], []),  # killed between the last byte and the renaming
        (ECGID_FILES[RECORD][:7], ["bytes=7-"]),
        (b"", [None]),
        (ECGID_FILES[RECORD] + b"!", ["bytes=300002-", None]),  # too long: the server answers 416
        (b"!" + ECGID_FILES[RECORD][1:], ["bytes=300001-", None]),
        (b"!", ["bytes=1-", None]),  # the rest is right, the beginning is not: seen by the checksum
    ],
)
def test_any_leftover_leads_to_the_right_file(
    server: DataServer, ecgid: Callable[[], Path], tmp_path: Path, left: bytes, ranges: list[str | None]
) -> None:
    leftover = tmp_path / "ecgiddb.partial" / f"{RECORD}.partial"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(left)
    assert content(ecgid()) == whole(server)
    assert [request.range for request in server.asked(f"{ECGID}/{RECORD}")] == ranges


@pytest.mark.parametrize(("fault", "reason"), [("drop", "broke off"), (500, "answers 500")])
def test_gives_up_after_the_agreed_attempts_and_continues_later(
    server: DataServer, ecgid: Callable[[], Path], tmp_path: Path, fault: Fault, reason: str
) -> None:
    server.faults[f"{ECGID}/{RECORD}"] = repeat(fault)
    with pytest.raises(StudyError, match=rf"rec_1\.dat could not be downloaded in 3 attempts \(.*{reason}\)"):
        ecgid()
    assert len(server.asked(f"{ECGID}/{RECORD}")) == 3
    assert not (tmp_path / "ecgiddb").exists()
    assert not (tmp_path / "ecgiddb.partial" / RECORD).exists()
    del server.faults[f"{ECGID}/{RECORD}"]
    assert content(ecgid()) == whole(server)


def test_unreachable_server_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with DataServer() as gone:
        url = gone.url
    with pytest.raises(StudyError, match=r"could not be downloaded in 3 attempts .*check the connection"):
        fetch("mitdb", tmp_path, base_url=url, patience=QUICK)
    assert not (tmp_path / "mitdb").exists()


# --- wrong content


@pytest.mark.parametrize("fault", ["truncate", "corrupt"])
def test_broken_file_is_fetched_again_whole(server: DataServer, ecgid: Callable[[], Path], fault: Fault) -> None:
    server.faults[f"{ECGID}/{RECORD}"] = iter([fault])
    assert content(ecgid()) == whole(server)
    assert [request.range for request in server.asked(f"{ECGID}/{RECORD}")] == [None, None]


@pytest.mark.parametrize(
    ("fault", "reason", "n_requests"),
    [("truncate", "does not match", 2), ("corrupt", "does not match", 2), (404, "status 404", 1), (403, "403", 1)],
)
def test_file_that_stays_bad_is_named_and_harms_no_other(
    server: DataServer, ecgid: Callable[[], Path], tmp_path: Path, fault: Fault, reason: str, n_requests: int
) -> None:
    server.faults[f"{ECGID}/{RECORD}"] = repeat(fault)
    with pytest.raises(StudyError, match=rf"{RECORD} .*{reason}") as raised:
        ecgid()
    assert "\n" not in str(raised.value)
    assert len(server.asked(f"{ECGID}/{RECORD}")) == n_requests
    others = {path: data for path, data in whole(server).items() if path != RECORD}
    assert content(tmp_path / "ecgiddb.partial") == others
    assert not (tmp_path / "ecgiddb").exists()


def test_bad_file_never_replaces_one_under_its_final_name(server: DataServer, ecgid: Callable[[], Path]) -> None:
    folder = ecgid()
    (folder / RECORD).write_bytes(b"old")
    server.faults[f"{ECGID}/{RECORD}"] = repeat("corrupt")
    with pytest.raises(StudyError, match=RECORD):
        ecgid()
    assert content(folder) == whole(server) | {RECORD: b"old"}


def test_mirror_that_is_wrong_throughout_is_left_early(
    server: DataServer, ecgid: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    many = {f"Person_01/rec_{i}.dat": noise(10, i) for i in range(200)}
    server.publish(ECGID, many)
    republish(server, monkeypatch, server.files[f"{ECGID}/SHA256SUMS.txt"])
    server.faults = {f"{ECGID}/{path}": repeat(404) for path in many}
    with pytest.raises(StudyError, match="10 bad files in all"):
        ecgid()
    assert len(server.requests) < 100


# --- the machine's own trouble


def test_full_disk_is_one_sentence_and_continues_when_there_is_room(
    server: DataServer, ecgid: Callable[[], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FullDisk(io.FileIO):
        def write(self, data: bytes) -> int:
            if self.tell() >= 1 << 16:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)

    with monkeypatch.context() as full:
        real_open = Path.open
        full.setattr(
            Path, "open", lambda path, mode="r": FullDisk(path, mode) if mode in ("wb", "ab") else real_open(path, mode)
        )
        with pytest.raises(StudyError, match="No space is left") as raised:
            ecgid()
    assert str(tmp_path / "ecgiddb") in str(raised.value)
    assert not (tmp_path / "ecgiddb").exists()
    server.requests.clear()
    assert content(ecgid()) == whole(server)
    assert [request.range for request in server.asked(f"{ECGID}/{RECORD}")] == ["bytes=65536-"]


def test_folder_that_cannot_be_made_is_one_sentence(server: DataServer, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the data folder should be")
    with pytest.raises(StudyError, match=r"data cannot be used .*ECGSTUDY_DATA"):
        fetch("ecgid", tmp_path / "data", base_url=server.url, patience=QUICK)


def test_second_download_at_once_is_refused(server: DataServer, ecgid: Callable[[], Path], tmp_path: Path) -> None:
    with FileLock(tmp_path / ".ecgiddb.lock"), pytest.raises(StudyError, match="by another process"):
        ecgid()
    assert server.requests == []
    assert content(ecgid()) == whole(server)


def test_racing_downloads_leave_one_whole_cohort(server: DataServer, ecgid: Callable[[], Path], tmp_path: Path) -> None:
    server.faults[f"{ECGID}/{RECORD}"] = iter(["drop"])
    with ThreadPoolExecutor(4) as pool:
        errors = [future.exception() for future in [pool.submit(ecgid) for _ in range(4)]]
    assert None in errors
    assert all(error is None or "by another process" in str(error) for error in errors)
    assert content(tmp_path / "ecgiddb") == whole(server)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_stopped_process_leaves_a_state_that_continues(
    server: DataServer, ecgid: Callable[[], Path], tmp_path: Path, sent: signal.Signals
) -> None:
    server.faults[f"{ECGID}/{RECORD}"] = iter(["stall"])
    program = (
        # a shell that runs the tests in the background has its children ignore Ctrl-C
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import sys; from dataclasses import replace; from functools import partial\n"
        "from ecgstudy.data import fetch as f\n"
        "f.SOURCES['ecgid'] = replace(f.SOURCES['ecgid'], index_sha256=None, min_files=6)\n"
        "f.fetch = partial(f.fetch, patience=f.Patience(timeout_s=1.0))\n"
        "try: f.fetch_and_report('ecgid')\n"
        "except f.StudyError as error: sys.exit(str(error))\n"
    )
    environment = os.environ | {MIRROR_VARIABLE: server.url, "ECGSTUDY_DATA": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", program], env=environment, stderr=subprocess.PIPE) as process:
        assert server.stalled.wait(10)
        partial = tmp_path / "ecgiddb.partial" / f"{RECORD}.partial"
        wait_until(lambda: partial.is_file() and partial.stat().st_size > 0)
        process.send_signal(sent)
        _, said = process.communicate(timeout=10)
    assert process.returncode == (1 if sent == signal.SIGINT else -sent)
    assert (b"run the same command to continue" in said) == (sent == signal.SIGINT)
    assert b"Traceback" not in said
    assert not (tmp_path / "ecgiddb").exists()
    left = partial.read_bytes()
    assert left
    assert ECGID_FILES[RECORD].startswith(left)
    server.requests.clear()
    assert content(ecgid()) == whole(server)
    assert [request.range for request in server.asked(f"{ECGID}/{RECORD}")] == [f"bytes={len(left)}-"]


@pytest.mark.parametrize(
    ("name", "base_url", "sentence"),
    [("physionet", None, "choose one of ecgid, ludb, mitdb, ptbxl"), ("ecgid", "mirror/files", "no address")],
)
def test_mistaken_request_is_one_sentence(tmp_path: Path, name: str, base_url: str | None, sentence: str) -> None:
    with pytest.raises(StudyError, match=sentence):
        fetch(name, tmp_path, base_url=base_url)
    assert list(tmp_path.iterdir()) == []


# --- a real cohort


@pytest.mark.realdata
def test_real_cohort_comes_through_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    files = content(published("ecgid"))
    with DataServer() as server:
        server.files = {f"{ECGID}/{path}": data for path, data in files.items()}
        assert content(fetch("ecgid", tmp_path, base_url=server.url, patience=QUICK)) == files
