"""Numbered notebooks: their strict parameters and their run by papermill.

papermill only warns of an unknown parameter and runs on with the defaults, so a typing mistake would give a result that
looks right. Both roads into a notebook are checked: the wrapper before it starts the kernel, and the notebook itself
(which covers plain papermill and JupyterLab).
"""

import ast
import difflib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

from ecgstudy.errors import StudyError
from ecgstudy.study.cache import METRICS, alone, naming_disk_errors, publish, write_text
from ecgstudy.study.config import check_profile, notebooks_dir, results_dir
from ecgstudy.study.parallel import BATCH, PARENT

if TYPE_CHECKING:
    from nbformat import NotebookNode

Literal = str | bool | int | float | list | dict | None
DRAFT = "ECGSTUDY_DRAFT"
"""Environment variable: folder that gathers what a papermill run makes, published when all cells have ended."""
_FIRST_LINE = "from ecgstudy.study.parallel import end_with_parent; end_with_parent()"


def run_notebook(stage: str, given: Mapping[str, Literal]) -> Path:
    """Run a stage's notebook by papermill; return the folder of its results.

    Only a run that comes to its end publishes anything: its results and the executed notebook take the place of an
    older run's. One that fails leaves ``<stage>.failed.ipynb`` with the traceback.
    """
    # an optional part of jsonschema, a grammar of web addresses, takes two seconds to build and is not needed
    sys.modules.setdefault("rfc3987_syntax", None)
    import nbformat

    source = notebook_path(stage)
    declared = declared_parameters(source)
    values = check_parameters(declared, given)
    folder = results_dir(check_profile(values.get("profile", declared["profile"]))) / stage
    running = alone(folder, f"{stage} of the profile {folder.parent.name}")
    with running, naming_disk_errors(folder):
        for left in folder.parent.glob(f".{stage}.draft*"):  # by a run that was killed
            shutil.rmtree(left)
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{stage}.draft", dir=folder.parent) as draft:
            executed = Path(draft, f"{stage}.ipynb")
            _execute(source, executed, values, folder / f"{stage}.failed.ipynb")
            write_text(executed, nbformat.writes(scrubbed(nbformat.read(executed, as_version=4))))
            publish(Path(draft), folder)
    return folder


def _execute(source: Path, target: Path, values: Mapping[str, Literal], failed: Path) -> None:
    """Run papermill in batch mode, from the notebooks folder as JupyterLab does; a run without results fails."""
    import papermill  # not in the notebook's own kernel, which imports this module too
    from papermill.exceptions import PapermillExecutionError

    try:
        with patch.dict(os.environ, {BATCH: "1", DRAFT: str(target.parent), PARENT: str(os.getpid())}):
            papermill.execute_notebook(
                source,
                target,
                parameters=dict(values),
                kernel_name="python3",
                language="python",
                cwd=notebooks_dir(),
                progress_bar=False,
                stderr_file=sys.stderr,
                # the kernel tells of the loopback interface, over which alone it talks, and, as any run ends, that it
                # is interrupted, which a reader would take for a failure
                extra_arguments=["--IPKernelApp.log_level=CRITICAL", f"--IPKernelApp.exec_lines={_FIRST_LINE}"],
            )
        if not (target.parent / METRICS).is_file():
            raise StudyError("stage.finish() did not run.")
    except (PapermillExecutionError, StudyError, RuntimeError) as error:
        shutil.copyfile(target, failed)
        raise StudyError(_explanation(target.stem, error, failed)) from error


def _explanation(stage: str, error: Exception, failed: Path) -> str:
    """One sentence for a run that failed; the study's own errors in a cell already are one."""
    if not hasattr(error, "ename"):
        return f"{stage} ended without its results: {error} See {failed}."
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error.evalue)).strip()
    if error.ename in {StudyError.__name__, *(child.__name__ for child in StudyError.__subclasses__())}:
        return text
    return f"{stage} stopped in cell {error.exec_count} with {error.ename}: {text}; the traceback is in {failed}."


def scrubbed(notebook: "NotebookNode") -> "NotebookNode":
    """Remove what differs from run to run or tells of the machine, and the cells that an early end left out."""
    run = [cell.cell_type == "code" and cell.execution_count is not None for cell in notebook.cells]
    if not all(ran for ran, cell in zip(run, notebook.cells, strict=True) if cell.cell_type == "code"):
        del notebook.cells[len(run) - run[::-1].index(True) :]
    for part in (notebook, *notebook.cells):
        for key in ("papermill", "execution"):
            part.metadata.pop(key, None)
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.get("tags", ()):
            cell.id = "injected-parameters"  # papermill draws one
        if cell.cell_type == "code":
            noise = ("stderr", "SystemExit")  # the latter ends a stage early
            cell.outputs = [out for out in cell.outputs if out.get("name", out.get("ename")) not in noise]
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return notebook


def notebook_path(stage: str) -> Path:
    """Source notebook of a stage; :class:`StudyError` names the stages there are."""
    path = notebooks_dir() / f"{stage}.ipynb"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("[0-9][0-9]_*.ipynb")))
        raise StudyError(f"There is no notebook {path.name} in {path.parent}; the stages are {known}.")
    return path


def declared_parameters(notebook: Path) -> dict[str, Literal]:
    """Names and default values in the one cell of `notebook` that is tagged ``parameters`` and holds only literals."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    if len(tagged) != 1:
        raise StudyError(f"{notebook} has {len(tagged)} cells tagged 'parameters'; tag exactly one.")
    try:
        return assigned_literals("".join(tagged[0]["source"]))
    except (SyntaxError, ValueError) as broken:
        raise StudyError(f"The parameters cell of {notebook} may hold only literals ({broken}).") from broken


def assigned_literals(source: str) -> dict[str, Literal]:
    """Names and values of a block of ``name = literal`` lines; ``ValueError`` for anything else."""
    statements = ast.parse(source).body
    for statement in statements:
        if not (isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)):
            raise ValueError(f"line {statement.lineno} is not an assignment")
    return {statement.targets[0].id: ast.literal_eval(statement.value) for statement in statements}


def check_parameters(declared: Mapping[str, Literal], given: Mapping[str, object]) -> dict[str, Literal]:
    """Return `given` as JSON types, checked against the names and types of `declared`.

    An int may stand for a float; a declared ``None`` accepts every JSON type.
    """
    checked = {}
    for name, value in given.items():
        if name not in declared:
            near = difflib.get_close_matches(name, declared, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the parameters are {', '.join(declared)}."
            raise StudyError(f"There is no parameter {name!r}; {hint}")
        default, wanted = declared[name], type(declared[name])
        read = float(value) if wanted is float and type(value) is int else value
        if default is not None and type(read) is not wanted:
            told = f"a {wanted.__name__} like {default!r}, not the {type(value).__name__} {value!r}"
            raise StudyError(f"Parameter {name!r} must be {told}.")
        try:
            checked[name] = json.loads(json.dumps(read, allow_nan=False))
        except (TypeError, ValueError) as unfit:
            raise StudyError(f"Parameter {name!r} must be plain JSON, and {value!r} is not.") from unfit
    return checked


def parse_assignments(pairs: Sequence[Sequence[str]], declared: Mapping[str, Literal]) -> dict[str, Literal]:
    """Read command-line pairs (name, text) as the types that `declared` shows: text as it is, else a Python literal."""
    values: dict[str, object] = dict(pairs)
    for name, text in pairs:
        if not isinstance(declared.get(name), str):
            with suppress(SyntaxError, ValueError):  # the check below says what it should be
                values[name] = ast.literal_eval(text)
    return check_parameters(declared, values)


def injected_parameters(history: Sequence[str]) -> dict[str, Literal]:
    """Parameters that papermill injected, found in a kernel's list of executed cells by their first line."""
    return assigned_literals("\n".join(cell for cell in history if cell.lstrip().startswith("# Parameters")))
