"""The notebook runner: strict, atomic, and clear about what failed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import papermill
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from papermill.exceptions import PapermillExecutionError

from ecgstudy.errors import StudyError
from ecgstudy.study.cache import remember
from ecgstudy.study.notebooks import run_notebook

OPEN = 'from ecgstudy.study.stage import Stage\nstage = Stage.open("90_trial", globals())'
WHOLE = ["90_trial.html", "90_trial.ipynb", "metrics.json", "report.json"]


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Notebooks and results folders of their own; returns the results folder of stage 90_trial."""
    monkeypatch.setenv("ECGSTUDY_NOTEBOOKS", str(tmp_path / "notebooks"))
    monkeypatch.setenv("ECGSTUDY_RESULTS", str(tmp_path / "results"))
    (tmp_path / "notebooks").mkdir()
    return tmp_path / "results" / "demo" / "90_trial"


def _write(trial: Path, *cells: str) -> None:
    parameters = new_code_cell('profile = "demo"\nseed = 0\ndevice = "cpu"', metadata={"tags": ["parameters"]})
    rest = [new_code_cell(source) for source in (OPEN, *cells)]
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    notebook = new_notebook(cells=[new_markdown_cell("# A trial stage"), parameters, *rest], metadata=kernel)
    nbformat.write(notebook, trial.parents[2] / "notebooks" / "90_trial.ipynb")


def test_a_run_leaves_metrics_notebook_and_page(trial: Path) -> None:
    _write(
        trial, 'stage.metric("answer", 6 * 7 + seed)', 'import sys; print("noise", file=sys.stderr)', "stage.finish()"
    )
    assert run_notebook("90_trial", {"seed": 5}) == trial
    assert json.loads((trial / "metrics.json").read_text())["metrics"]["answer"]["value"] == 47
    page = (trial / "90_trial.html").read_text()
    assert "<title>A trial stage</title>" in page
    assert "http" not in page.replace("http://www.w3.org", "").split("<main>")[0].split("<style")[0]
    executed = (trial / "90_trial.ipynb").read_text()
    for noise in ("papermill", "start_time", str(trial.parents[2]), "noise"):
        assert noise not in executed.replace('print(\\"noise', "")
    assert sorted(p.name for p in trial.iterdir()) == WHOLE


@pytest.fixture
def older(trial: Path) -> dict[Path, str]:
    """Content of the files of a whole older run."""
    trial.mkdir(parents=True)
    for name in WHOLE:
        (trial / name).write_text(f"{name} of an older run")
    return {path: path.read_text() for path in trial.iterdir()}


def test_a_failing_cell_leaves_its_traceback_and_the_older_run_whole(trial: Path, older: dict[Path, str]) -> None:
    _write(trial, 'stage.metric("a", 1)\n1 / 0', "stage.finish()")
    with pytest.raises(StudyError, match=r"stopped in cell 3 with ZeroDivisionError.*90_trial\.failed\.ipynb"):
        run_notebook("90_trial", {})
    failed = trial / "90_trial.failed.ipynb"
    assert "division by zero" in failed.read_text()
    assert {path: path.read_text() for path in trial.iterdir() if path != failed} == older


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
    trial: Path, older: dict[Path, str], monkeypatch: pytest.MonkeyPatch, ending: Callable[[], None], sentence: str
) -> None:
    def execute(source: Path, target: Path, **_: object) -> None:
        target.write_bytes(source.read_bytes())
        ending()

    _write(trial, "stage.finish()")
    monkeypatch.setattr(papermill, "execute_notebook", execute)
    with pytest.raises(StudyError, match=sentence):
        run_notebook("90_trial", {})
    assert {path: path.read_text() for path in trial.iterdir() if "failed" not in path.name} == older


def _raise(error: Exception) -> None:
    raise error


def test_plain_papermill_with_an_unknown_parameter_fails_too(trial: Path) -> None:
    _write(trial, "stage.finish()")
    source = trial.parents[2] / "notebooks" / "90_trial.ipynb"
    with pytest.raises(PapermillExecutionError, match="no parameter 'sead'; did you mean seed"):
        papermill.execute_notebook(source, trial.parents[2] / "out.ipynb", {"sead": 1}, progress_bar=False)


BUSY = """
from pathlib import Path
import time
from ecgstudy.study.cache import remember
from ecgstudy.study.config import results_dir
from ecgstudy.study.parallel import in_parallel
remember(results_dir("busy"), "slept", {}, lambda: list(in_parallel(time.sleep, [(600,)] * 2, "cpu", "sleepers", 2)))
"""


def test_a_killed_run_leaves_no_process_no_lock_and_the_older_run_whole(trial: Path, older: dict[Path, str]) -> None:
    _write(trial, BUSY, "stage.finish()")
    runs = {}
    for how in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        # each run has results of its own; a kernel, which leads its own group, gets nothing but what its parent sends
        results = shutil.copytree(trial.parents[1], trial.parents[1].with_name(how.name))
        command = [sys.executable, "-m", "ecgstudy", "run", "90_trial"]
        environment = os.environ | {"ECGSTUDY_RESULTS": str(results)}
        runs[how] = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True), results
    deadline = time.monotonic() + 60
    families = {}
    while len(families) < len(runs) and time.monotonic() < deadline:
        time.sleep(0.1)
        for how, (run, _) in runs.items():
            family = psutil.Process(run.pid).children(recursive=True)
            if how not in families and sum("popen_loky" in str(_command(child)) for child in family) == 2:
                families[how] = family
                run.send_signal(how)
    assert len(families) == len(runs)
    for how, (run, results) in runs.items():
        text = run.communicate(timeout=20)[1]
        assert run.returncode == (-signal.SIGKILL if how == signal.SIGKILL else 130)
        assert how == signal.SIGKILL or "ecgstudy: stopped; run the same command again to go on.\n" in text
        assert psutil.wait_procs(families[how], timeout=10)[1] == []
        assert remember(results / "busy", "slept", {}, lambda: "free", wait=False)[0] == "free"
        folder = results / trial.relative_to(trial.parents[1])
        assert {trial / path.name: path.read_text() for path in folder.iterdir()} == older


def _command(process: psutil.Process) -> list[str]:
    """Command line of a process, empty where it has ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []
