"""A wrong parameter name or type is an error with a hint, on every road into a notebook."""

from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from ecgstudy.errors import StudyError
from ecgstudy.study.notebooks import (
    check_parameters,
    declared_parameters,
    injected_parameters,
    notebook_path,
    parse_assignments,
)

DECLARED = {"profile": "demo", "seed": 0, "fs": 100.0, "cohorts": [], "quick": False, "limit": None}


def _notebook(path: Path, *cells: tuple[str, list[str]]) -> Path:
    made = [new_code_cell(source, metadata={"tags": tags}) for source, tags in cells]
    nbformat.write(new_notebook(cells=made), path)
    return path


def test_declared_parameters_are_read_from_the_tagged_cell(tmp_path: Path) -> None:
    path = _notebook(tmp_path / "n.ipynb", ('a = 1\nb = "x"\nc = [1.5]', ["parameters"]), ("a = 2", []))
    assert declared_parameters(path) == {"a": 1, "b": "x", "c": [1.5]}


@pytest.mark.parametrize("cells", [[("a = 1", [])], [("a = 1", ["parameters"]), ("b = 1", ["parameters"])]])
def test_exactly_one_cell_is_tagged(tmp_path: Path, cells: list) -> None:
    with pytest.raises(StudyError, match="tag exactly one"):
        declared_parameters(_notebook(tmp_path / "n.ipynb", *cells))


@pytest.mark.parametrize("source", ["a = b", "import os", "a = f(1)", "a = 1 +", "a, b = 1, 2", "a = 1\nprint(a)"])
def test_only_literals_are_parameters(tmp_path: Path, source: str) -> None:
    with pytest.raises(StudyError, match="only literals"):
        declared_parameters(_notebook(tmp_path / "n.ipynb", (source, ["parameters"])))


def test_a_typing_mistake_is_an_error_that_suggests_the_right_name() -> None:
    with pytest.raises(StudyError, match="no parameter 'sead'; did you mean seed"):
        check_parameters(DECLARED, {"sead": 1})
    with pytest.raises(StudyError, match="the parameters are profile, seed"):
        check_parameters(DECLARED, {"zzz": 1})


WRONG_TYPES = {"seed": ["1", 1.5, True], "profile": [1], "quick": [1], "cohorts": [("a", "b")], "fs": ["100", True]}
WRONG = [(name, value) for name, values in WRONG_TYPES.items() for value in values]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_type_is_an_error(name: str, value: object) -> None:
    with pytest.raises(StudyError, match=f"Parameter '{name}' must be a"):
        check_parameters(DECLARED, {name: value})


@pytest.mark.parametrize("value", [Path("x"), np.int64(3), {1, 2}, float("nan")])
def test_only_plain_json_is_passed_on(value: object) -> None:
    with pytest.raises(StudyError, match="must be plain JSON"):
        check_parameters(DECLARED, {"limit": value})


def test_an_int_may_stand_for_a_float() -> None:
    checked = check_parameters(DECLARED, {"fs": 250})
    assert checked == {"fs": 250.0}
    assert type(checked["fs"]) is float


def test_command_line_text_takes_the_declared_type() -> None:
    pairs = [("profile", "1"), ("seed", "7"), ("fs", "250"), ("cohorts", "['ecgid']"), ("quick", "True")]
    asked = {"profile": "1", "seed": 7, "fs": 250.0, "cohorts": ["ecgid"], "quick": True}
    assert parse_assignments(pairs, DECLARED) == asked
    with pytest.raises(StudyError, match="Parameter 'seed' must be a int"):
        parse_assignments([("seed", "seven")], DECLARED)


def test_injected_parameters_are_found_in_the_kernels_history() -> None:
    history = ["", 'profile = "demo"', '# Parameters\nprofil = "real"\nseed = 3\n', "x = 1"]
    assert injected_parameters(history) == {"profil": "real", "seed": 3}


def test_an_unknown_stage_names_the_known_ones() -> None:
    with pytest.raises(StudyError, match=r"no notebook 99_none.ipynb .* 01_ingestion"):
        notebook_path("99_none")
