"""Strict notebook parameters: a wrong name or type is an error, never a warning.

papermill only warns of an unknown parameter and runs on with the defaults, so
a typing mistake would give a result that looks right. Both roads into a
notebook are checked here: the wrapper before it starts the kernel, and the
notebook itself (which covers plain papermill and JupyterLab).
"""

import ast
import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import nbformat

from ecgstudy.errors import StudyError
from ecgstudy.study.paths import notebooks_dir

Literal = str | bool | int | float | list | dict | None
INJECTED_MARK = "# Parameters"
"""First line of the cell that papermill injects."""


def notebook_path(stage: str) -> Path:
    """Source notebook of a stage; :class:`StudyError` names the stages there are."""
    path = notebooks_dir() / f"{stage}.ipynb"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("[0-9][0-9]_*.ipynb")))
        raise StudyError(f"There is no notebook {path.name} in {path.parent}; the stages are {known}.")
    return path


def declared_parameters(notebook: Path) -> dict[str, Literal]:
    """Names and default values in the cell of `notebook` that is tagged ``parameters``.

    Raises
    ------
    StudyError
        No cell, or more than one, carries the tag, or the cell holds anything
        but assignments of literals.
    """
    cells = nbformat.read(notebook, as_version=4).cells
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise StudyError(f"{notebook} has {len(tagged)} cells tagged 'parameters'; tag exactly one.")
    try:
        return assigned_literals(tagged[0].source)
    except (SyntaxError, ValueError) as broken:
        raise StudyError(f"The parameters cell of {notebook} may hold only literals ({broken}).") from broken


def assigned_literals(source: str) -> dict[str, Literal]:
    """Names and values of a block of ``name = literal`` lines; ``ValueError`` for anything else."""
    values: dict[str, Literal] = {}
    for statement in ast.parse(source).body:
        if not (isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)):
            raise ValueError(f"line {statement.lineno} is not an assignment")
        values[statement.targets[0].id] = ast.literal_eval(statement.value)
    return values


def check_parameters(declared: Mapping[str, Literal], given: Mapping[str, object]) -> dict[str, Literal]:
    """Return `given` as JSON types, checked against the names and types of `declared`.

    An int may stand for a float; a declared ``None`` accepts every JSON type.

    Raises
    ------
    StudyError
        A name is unknown, or a value has another type than the default.
    """
    checked = {}
    for name, value in given.items():
        if name not in declared:
            near = difflib.get_close_matches(name, declared, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the parameters are {', '.join(declared)}."
            raise StudyError(f"There is no parameter {name!r}; {hint}")
        checked[name] = _checked(name, declared[name], value)
    return checked


def _checked(name: str, default: Literal, value: object) -> Literal:
    """`value` as the type of `default`, or an error that shows both."""
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    if default is not None and type(value) is not type(default):
        raise StudyError(
            f"Parameter {name!r} must be a {type(default).__name__} like {default!r}, "
            f"not the {type(value).__name__} {value!r}."
        )
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as unfit:
        raise StudyError(f"Parameter {name!r} must be plain JSON, and {value!r} is not.") from unfit


def parse_assignments(pairs: Sequence[Sequence[str]], declared: Mapping[str, Literal]) -> dict[str, Literal]:
    """Read command-line pairs (name, text) as the types that `declared` shows.

    Text is taken as it is where a string is expected, else as a Python literal.
    """
    values: dict[str, object] = {}
    for name, text in pairs:
        if isinstance(declared.get(name), str):
            values[name] = text
            continue
        try:
            values[name] = ast.literal_eval(text)
        except (SyntaxError, ValueError):
            values[name] = text
    return check_parameters(declared, values)


def injected_names(history: Sequence[str]) -> dict[str, Literal]:
    """Parameters that papermill injected, found in a kernel's list of executed cells."""
    injected: dict[str, Literal] = {}
    for source in history:
        if source.lstrip().startswith(INJECTED_MARK):
            injected |= assigned_literals(source)
    return injected
