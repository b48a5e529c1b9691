"""The notebook runner: strict, atomic, and clear about what failed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import papermill
import psutil
import pytest
from chaos import GONE_S
from filelock import FileLock, Timeout
from papermill.exceptions import PapermillExecutionError

from ecgstudy.errors import StudyError
from ecgstudy.study.cache import remember
from ecgstudy.study.notebooks import run_notebook

WHOLE = ["90_trial.ipynb", "metrics.json", "report.json"]
Trial = Callable[..., Path]


def test_a_run_leaves_metrics_and_notebook(trial: Trial) -> None:
    results = trial('stage.metric("answer", 6 * 7 + seed)', 'import sys; print("noise", file=sys.stderr)')
    (results.parent / ".90_trial.draft_of_a_killed_run" / "tables").mkdir(parents=True)
    assert run_notebook("90_trial", {"seed": 5}) == results
    assert json.loads((results / "metrics.json").read_text())["metrics"]["answer"]["value"] == 47
    executed = (results / "90_trial.ipynb").read_text()
    for noise in ("papermill", "start_time", str(results.parents[2]), "noise"):
        assert noise not in executed.replace('print(\\"noise', "")
    assert sorted(p.name for p in results.iterdir()) == WHOLE
    assert sorted(p.name for p in results.parent.iterdir()) == [".90_trial.holder", ".90_trial.lock", "90_trial"]


def _older_run(folder: Path) -> dict[Path, str]:
    """Leave the files of a whole older run; return their content."""
    folder.mkdir(parents=True)
    for name in WHOLE:
        (folder / name).write_text(f"{name} of an older run")
    return _content(folder)


def _content(folder: Path) -> dict[Path, str]:
    """Read what lies in a stage's folder, but for what a failed run leaves."""
    return {path: path.read_text() for path in folder.iterdir() if "failed" not in path.name}


def test_a_failing_cell_leaves_its_traceback_and_the_older_run_whole(trial: Trial) -> None:
    results = trial('stage.metric("a", 1)\n1 / 0')
    older = _older_run(results)
    with pytest.raises(StudyError, match=r"stopped in cell 3 with ZeroDivisionError.*90_trial\.failed\.ipynb"):
        run_notebook("90_trial", {})
    assert "division by zero" in (results / "90_trial.failed.ipynb").read_text()
    assert _content(results) == older


def test_a_question_that_cannot_be_asked_ends_the_stage_with_its_reason(trial: Trial) -> None:
    results = trial(
        "from ecgstudy.errors import NotApplicableError", 'raise NotApplicableError("There is one person.")', "1 / 0"
    )
    assert run_notebook("90_trial", {}) == results
    metrics = json.loads((results / "metrics.json").read_text())
    assert metrics["complete"] is True
    assert metrics["metrics"]["applicable"]["value"] is None
    assert metrics["metrics"]["applicable"]["note"] == "Not applicable, because there is one person."
    executed = (results / "90_trial.ipynb").read_text()
    assert "Not applicable, because there is one person." in executed
    cells = json.loads(executed)["cells"]
    assert "raise NotApplicableError" in "".join(cells[-1]["source"])
    assert not [output for output in cells[-1]["outputs"] if output["output_type"] == "error"]
    assert sorted(p.name for p in results.iterdir()) == sorted([*WHOLE, "results.csv"])


@pytest.mark.parametrize(
    ("ending", "sentence"),
    [
        (lambda: None, r"ended without its results: stage\.finish\(\) did not run\. See .*failed\.ipynb"),
        (lambda: _raise(RuntimeError("Kernel died")), "ended without its results: Kernel died"),
        (lambda: _raise(PapermillExecutionError(3, 3, "", "LeakageError", "Shared.", [])), r"^Shared\.$"),
    ],
    ids=["sys.exit(0), which papermill counts as success", "a dead kernel", "a user's mistake"],
)
def test_a_run_without_results_is_no_success_though_an_older_run_left_its_own(
    trial: Trial, monkeypatch: pytest.MonkeyPatch, ending: Callable[[], None], sentence: str
) -> None:
    def execute(source: Path, target: Path, **_: object) -> None:
        target.write_bytes(source.read_bytes())
        ending()

    older = _older_run(trial())
    monkeypatch.setattr(papermill, "execute_notebook", execute)
    with pytest.raises(StudyError, match=sentence):
        run_notebook("90_trial", {})
    assert _content(trial()) == older


def test_a_stage_is_run_by_one_process_at_a_time(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    results = trial()

    def execute(source: Path, target: Path, **_: object) -> None:
        target.write_bytes(source.read_bytes())
        with pytest.raises(Timeout):
            FileLock(results.with_name(".90_trial.lock"), timeout=0).acquire()
        raise RuntimeError("Nobody else may.")

    monkeypatch.setattr(papermill, "execute_notebook", execute)
    with pytest.raises(StudyError, match="Nobody else may"):
        run_notebook("90_trial", {})


def _raise(error: Exception) -> None:
    raise error


def test_plain_papermill_with_an_unknown_parameter_fails_too(trial: Trial, tmp_path: Path) -> None:
    trial()
    source = tmp_path / "notebooks" / "90_trial.ipynb"
    with pytest.raises(PapermillExecutionError, match="no parameter 'sead'; did you mean seed"):
        papermill.execute_notebook(source, tmp_path / "out.ipynb", {"sead": 1}, progress_bar=False)


BUSY = """
from pathlib import Path
import time
from ecgstudy.study.cache import remember
from ecgstudy.study.config import results_dir
from ecgstudy.study.parallel import in_parallel
remember(results_dir("busy"), "slept", {}, lambda: list(in_parallel(time.sleep, [(600,)] * 2, "cpu", "sleepers", 2)))
"""


def test_a_killed_run_leaves_no_process_no_lock_and_the_older_run_whole(trial: Trial, tmp_path: Path) -> None:
    trial(BUSY)
    runs = {}
    for how in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL):
        # each run has results of its own; a kernel, which leads its own group, gets nothing but what its parent sends
        results = tmp_path / how.name
        older = _older_run(results / "demo" / "90_trial")
        command = [sys.executable, "-m", "ecgstudy", "run", "90_trial"]
        environment = os.environ | {"ECGSTUDY_RESULTS": str(results), "TMPDIR": str(results)}
        # a shell that runs the tests in the background, or nohup, has its children ignore signals
        listening = {"preexec_fn": partial(signal.signal, how, signal.SIG_DFL) if how != signal.SIGKILL else None}
        run = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, **listening)
        runs[how] = run, results, older
    deadline = time.monotonic() + 60
    families = {}
    while len(families) < len(runs) and time.monotonic() < deadline:
        time.sleep(0.1)
        for how, (run, *_) in runs.items():
            family = psutil.Process(run.pid).children(recursive=True)
            if how not in families and sum("popen_loky" in str(_command(child)) for child in family) == 2:
                families[how] = family
                run.send_signal(how)
                limit = GONE_S * max(1, os.getloadavg()[0] / os.cpu_count())
                assert psutil.wait_procs(family, timeout=limit)[1] == []
    assert len(families) == len(runs)
    for how, (run, results, older) in runs.items():
        text = run.communicate(timeout=60)[1]
        assert run.returncode == (-signal.SIGKILL if how == signal.SIGKILL else 130)
        assert how == signal.SIGKILL or "ecgstudy: stopped; run the same command again to go on.\n" in text
        assert remember(results / "busy", "slept", {}, lambda: "free", wait=False)[0] == "free"
        assert _content(results / "demo" / "90_trial") == older


def _command(process: psutil.Process) -> list[str]:
    """Command line of a process, empty where it has ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []
