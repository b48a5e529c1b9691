"""Every notebook keeps the house rules: thin, stripped, told in order."""

import ast
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from ecgstudy.study.config import STAGES
from ecgstudy.study.notebooks import declared_parameters

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
MOST_LINES, MOST_LINES_A_CELL, MOST_CELLS = 120, 20, 25


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    """Each committed notebook in turn."""
    return request.param


@pytest.fixture
def notebook(path: Path) -> NotebookNode:
    """Read the notebook."""
    return nbformat.read(path, as_version=4)


def _code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _lines(cell: NotebookNode) -> int:
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in cell.source.splitlines())


def test_notebooks_and_stages_are_the_same_list() -> None:
    assert [path.stem for path in NOTEBOOKS] == [stage.name for stage in STAGES]


def test_each_stage_but_the_first_rests_on_earlier_ones() -> None:
    earlier: set[str] = set()
    for stage in STAGES:
        assert set(stage.needs) <= earlier
        assert bool(stage.needs) == bool(earlier)
        earlier.add(stage.name)


def test_each_stage_has_a_folder_of_its_word(project_root: Path) -> None:
    assert [s.name for s in STAGES if not (project_root / "ecgstudy" / s.name[3:] / "__init__.py").is_file()] == []


def test_first_code_cell_holds_the_parameters(path: Path, notebook: NotebookNode) -> None:
    assert "parameters" in _code(notebook)[0].metadata.get("tags", [])
    declared = declared_parameters(path)
    assert (declared["profile"], declared["device"], type(declared["seed"])) == ("demo", "auto", int)


def test_no_outputs_and_no_traces_of_a_run_are_committed(notebook: NotebookNode) -> None:
    assert [cell.outputs for cell in _code(notebook) if cell.outputs or cell.execution_count is not None] == []
    assert set(notebook.metadata) == {"kernelspec"}
    assert [cell.metadata for cell in notebook.cells if set(cell.metadata) - {"tags"}] == []


def test_cells_define_nothing(notebook: NotebookNode) -> None:
    banned = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    nodes = [node for cell in _code(notebook) for node in ast.walk(ast.parse(cell.source))]
    assert [ast.unparse(node) for node in nodes if isinstance(node, banned)] == []


def test_code_is_thin(notebook: NotebookNode) -> None:
    counts = [_lines(cell) for cell in _code(notebook)]
    assert max(counts) <= MOST_LINES_A_CELL
    assert sum(counts) <= MOST_LINES
    assert len(counts) <= MOST_CELLS


def test_prose_leads_every_code_cell_but_the_set_up(notebook: NotebookNode) -> None:
    # parameters, set-up and closing cell may stand together; elsewhere a reader is told first
    kinds = [cell.cell_type for cell in notebook.cells]
    unexplained = [i for i in range(3, len(kinds) - 1) if kinds[i] == "code" and kinds[i - 1] == "code"]
    assert unexplained == []
    assert notebook.cells[0].source.startswith("# ")


def test_prose_holds_no_remote_content_and_no_formulas_that_need_a_network(notebook: NotebookNode) -> None:
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert "$" not in prose
    assert "![" not in prose
