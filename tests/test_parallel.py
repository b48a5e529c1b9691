"""Work in processes: results in order, one bar or one line a job, and a device that is there."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import joblib
import pytest
from joblib.externals.loky import process_executor

from ecgstudy.errors import StudyError
from ecgstudy.study import parallel
from ecgstudy.study.parallel import in_batch, in_parallel, progress, resolve_device


def _told(number: int) -> tuple[int, bool]:
    if number < 0:
        raise StudyError("No number.")
    return number, in_batch()


def test_a_batch_run_is_one_line_a_job_and_the_jobs_are_silent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("ECGSTUDY_BATCH", "1")
    assert list(in_parallel(_told, [(3,), (1,)], "cpu", "attackers")) == [(3, True), (1, True)]
    assert capsys.readouterr().err == "attackers 2/2, 0 s\n"  # lines in quick succession are left out
    monkeypatch.setattr(parallel, "_SECONDS_BETWEEN_LINES", 0)
    list(in_parallel(_told, [(3,), (1,)], "cpu", "attackers"))
    assert capsys.readouterr().err == "attackers 1/2, 0 s\nattackers 2/2, 0 s\n"
    assert list(progress([1, 2], desc="records")) == [1, 2]
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("ECGSTUDY_BATCH", "worker")  # in a job, of whose jobs another process tells
    assert list(in_parallel(_told, [(3,)], "cpu", "folds")) == [(3, True)]
    assert capsys.readouterr().err == ""


def test_where_somebody_watches_one_bar_moves_and_the_jobs_are_silent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.delenv("ECGSTUDY_BATCH", raising=False)
    assert list(in_parallel(_told, [(3,), (1,)], "cpu", "attackers")) == [(3, True), (1, True)]
    assert "ECGSTUDY_BATCH" not in os.environ
    drawn = capsys.readouterr().err
    assert "attackers: 100%" in drawn
    assert drawn.count("\n") == 1
    assert "\x1b" not in drawn


def _worker(_: int) -> tuple[int, float]:
    return os.getpid(), process_executor._MAX_MEMORY_LEAK_SIZE


def _hold(megabytes: int) -> int:
    return len(bytes(megabytes * 10**6).replace(b"\0", b"\1"))  # touched, so that it is there


def test_the_memory_of_workers_is_counted_too() -> None:
    before = parallel.peak_memory()
    with joblib.parallel_config(backend="loky"):
        assert list(in_parallel(_hold, [(200,), (300,)], "cpu", "jobs", 2)) == [200 * 10**6, 300 * 10**6]
    assert parallel.peak_memory() - before > 500e6


def test_workers_may_keep_what_they_read_and_their_errors_arrive() -> None:
    with joblib.parallel_config(backend="loky"):
        for pid, growth in in_parallel(_worker, [(0,), (1,)], "cpu", "jobs"):
            assert pid != os.getpid()
            assert growth > 3e9
        with pytest.raises(StudyError, match="No number"):
            list(in_parallel(_told, [(1,), (-1,)], "cpu", "jobs", workers=2))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of other processes' signals")
def test_make_that_is_told_to_hang_up_counts_as_ended(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text("study:\n\t@echo; exec sleep 60\n")
    listening = {"preexec_fn": partial(signal.signal, signal.SIGHUP, signal.SIG_DFL)}  # nohup may run the tests
    with subprocess.Popen(["make", "-C", str(tmp_path), "-s"], stdout=subprocess.PIPE, **listening) as make:
        assert make.stdout.readline() == b"\n"
        assert not parallel._is_ended_make(make.pid)
        make.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 10
        while not parallel._is_ended_make(make.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert parallel._is_ended_make(make.pid)
        make.terminate()


@pytest.mark.parametrize(
    ("device", "gpu", "resolved"),
    [("auto", False, "cpu"), ("auto", True, "cuda"), ("cpu", True, "cpu"), ("cuda", True, "cuda")],
)
def test_a_device_is_taken_where_it_is(monkeypatch: pytest.MonkeyPatch, device: str, gpu: bool, resolved: str) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    assert resolve_device(device) == resolved


def test_a_device_that_is_not_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for device, sentence in (("cuda", "no GPU can be used here"), ("tpu", "no device 'tpu'; choose auto, cpu or cuda")):
        with pytest.raises(StudyError, match=sentence):
            resolve_device(device)


@pytest.mark.parametrize(("device", "workers"), [("cuda", 1), ("cpu", 2)])
def test_on_a_gpu_the_calls_follow_each_other(monkeypatch: pytest.MonkeyPatch, device: str, workers: int) -> None:
    asked = []
    monkeypatch.setattr(parallel, "resolve_device", lambda _: device)
    monkeypatch.setattr(parallel, "Parallel", lambda n_jobs, **_: asked.append(n_jobs) or (lambda calls: iter(())))
    list(in_parallel(_told, [(1,), (2,)], "auto", "jobs", workers=4))
    assert asked == [workers]  # no more than there are calls
