"""Strict papermill: run a numbered notebook, keep what it made, explain what failed."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import nbformat
import papermill
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

from ecgstudy.errors import StudyError
from ecgstudy.study.cache import naming_disk_errors, write_text
from ecgstudy.study.parameters import Literal, check_parameters, declared_parameters, notebook_path
from ecgstudy.study.paths import notebooks_dir, results_dir
from ecgstudy.study.profiles import check_profile
from ecgstudy.study.render import notebook_html
from ecgstudy.study.stage import METRICS, read_metrics

_EXECUTION_NOISE = ("papermill", "execution")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


def run_notebook(stage: str, given: Mapping[str, Literal], cell_timeout: int | None = None) -> Path:
    """Run a stage's notebook by papermill; return the folder of its results.

    The executed notebook and its HTML are written beside the stage's tables
    and figures. A run that fails leaves ``<stage>.failed.ipynb`` with the
    traceback, and no ``metrics.json``.

    Parameters
    ----------
    stage : str
        Notebook name without suffix, as "01_ingestion".
    given : mapping
        Parameters, checked against names and types of the notebook's own.
    cell_timeout : int, optional
        Seconds after which a cell is given up.

    Raises
    ------
    StudyError
        A parameter is wrong, a cell failed, or the notebook ended without its results.
    """
    source = notebook_path(stage)
    declared = declared_parameters(source)
    values = check_parameters(declared, given)
    profile = check_profile(values.get("profile", declared["profile"]))
    folder = results_dir(profile) / stage
    with naming_disk_errors(folder):
        _run(stage, source, folder, values, cell_timeout)
    return folder


def _run(stage: str, source: Path, folder: Path, values: Mapping[str, Literal], cell_timeout: int | None) -> None:
    """Run the notebook `source`; keep it and its page in `folder`, or what is left of it where it fails."""
    page, notebook = folder / f"{stage}.html", folder / f"{stage}.ipynb"
    partial, failed = folder / f".{stage}.partial.ipynb", folder / f"{stage}.failed.ipynb"
    folder.mkdir(parents=True, exist_ok=True)
    # a run that is killed before its first cell must not leave an older run's results as its own
    for old in (folder / METRICS, page, notebook, failed):
        old.unlink(missing_ok=True)
    try:
        _execute(source, partial, values, cell_timeout)
        read_metrics(folder.parent.name, stage)
    except PapermillExecutionError as error:
        partial.replace(failed)
        raise StudyError(_explanation(stage, error, failed)) from error
    except (StudyError, RuntimeError) as error:
        partial.replace(failed)
        raise StudyError(f"{stage} ended without its results: {error} See {failed}.") from error
    executed = scrubbed(nbformat.read(partial, as_version=4))
    write_text(page, notebook_html(executed, stage))
    write_text(notebook, nbformat.writes(executed))
    partial.unlink()


def _execute(source: Path, target: Path, values: Mapping[str, Literal], cell_timeout: int | None) -> None:
    """Run papermill in batch mode, from the notebooks folder as JupyterLab does."""
    with _batch_environment():
        papermill.execute_notebook(
            source,
            target,
            parameters=dict(values),
            kernel_name="python3",
            language="python",
            cwd=notebooks_dir(),
            progress_bar=False,
            execution_timeout=cell_timeout,
            # the kernel warns that it talks over the loopback interface, which is all that it does
            extra_arguments=["--IPKernelApp.log_level=ERROR"],
        )


@contextmanager
def _batch_environment() -> Iterator[None]:
    """Tell the kernel that nobody watches, so that no progress bar floods its channel."""
    before = os.environ.get("ECGSTUDY_BATCH")
    os.environ["ECGSTUDY_BATCH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["ECGSTUDY_BATCH"]
        else:
            os.environ["ECGSTUDY_BATCH"] = before


def _explanation(stage: str, error: PapermillExecutionError, failed: Path) -> str:
    """One sentence for a failed cell; the study's own errors already are one."""
    said = _ANSI.sub("", str(error.evalue)).strip()
    if error.ename in _study_error_names():
        return said
    return f"{stage} stopped in cell {error.exec_count} with {error.ename}: {said}; the traceback is in {failed}."


def _study_error_names() -> set[str]:
    """Names of the study's own errors, which are complete sentences."""
    return {StudyError.__name__, *(child.__name__ for child in StudyError.__subclasses__())}


def scrubbed(notebook: NotebookNode) -> NotebookNode:
    """Remove what differs from run to run or tells of the machine: times, paths, papermill's records, stderr."""
    for key in _EXECUTION_NOISE:
        notebook.metadata.pop(key, None)
    for cell in notebook.cells:
        for key in _EXECUTION_NOISE:
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return notebook
