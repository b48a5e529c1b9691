"""The notebook runner: strict, atomic, and clear about what failed."""

import json
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from ecgstudy.errors import StudyError
from ecgstudy.study.notebooks import run_notebook

OPEN = 'from ecgstudy.study.stage import Stage\nstage = Stage.open("90_trial", globals())'


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
    assert sorted(p.name for p in trial.iterdir()) == ["90_trial.html", "90_trial.ipynb", "metrics.json", "report.json"]


def test_a_failing_cell_leaves_its_traceback_and_nothing_that_looks_finished(trial: Path) -> None:
    _write(trial, "stage.finish()")
    run_notebook("90_trial", {})
    _write(trial, "1 / 0", "stage.finish()")
    with pytest.raises(StudyError, match=r"stopped in cell 3 with ZeroDivisionError.*90_trial\.failed\.ipynb"):
        run_notebook("90_trial", {})
    assert "division by zero" in (trial / "90_trial.failed.ipynb").read_text()
    assert not (trial / "metrics.json").exists()
    assert not (trial / "90_trial.html").exists()


def test_a_users_mistake_inside_a_notebook_comes_back_as_its_own_sentence(trial: Path) -> None:
    _write(trial, 'from ecgstudy.errors import DataNotFoundError\nraise DataNotFoundError("No cohort; get one.")')
    with pytest.raises(StudyError, match=r"^No cohort; get one\.$"):
        run_notebook("90_trial", {})


def test_a_notebook_that_ends_early_is_no_success(trial: Path) -> None:
    # papermill counts sys.exit(0) as success
    _write(trial, "import sys; sys.exit(0)", "stage.finish()")
    with pytest.raises(StudyError, match="ended without its results"):
        run_notebook("90_trial", {})
    assert not (trial / "metrics.json").exists()


def test_a_dead_kernel_is_reported(trial: Path) -> None:
    _write(trial, "import os; os._exit(9)", "stage.finish()")
    with pytest.raises(StudyError, match=r"ended without its results: .*died"):
        run_notebook("90_trial", {})
    assert not (trial / "metrics.json").exists()


def test_plain_papermill_with_an_unknown_parameter_fails_too(trial: Path) -> None:
    import papermill
    from papermill.exceptions import PapermillExecutionError

    _write(trial, "stage.finish()")
    source = trial.parents[2] / "notebooks" / "90_trial.ipynb"
    with pytest.raises(PapermillExecutionError, match="no parameter 'sead'; did you mean seed"):
        papermill.execute_notebook(source, trial.parents[2] / "out.ipynb", {"sead": 1}, progress_bar=False)
