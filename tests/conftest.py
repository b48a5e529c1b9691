"""Fixtures that several test files share."""

from collections.abc import Callable, Iterator
from pathlib import Path

import joblib
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from ecgstudy.data.base import Cohort


@pytest.fixture(scope="session", autouse=True)
def _one_process() -> Iterator[None]:
    """Work in the test's own process: workers take seconds to start, and what is patched here is patched there.

    A test about workers asks for them: ``joblib.parallel_config(backend="loky")``.
    """
    with joblib.parallel_config(backend="sequential"):
        yield


@pytest.fixture(autouse=True)
def _no_results(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have results of records of their own, beside which no other key is made."""
    for name in ("RESULTS", "CACHE"):
        monkeypatch.setenv(f"ECGSTUDY_{name}", str(tmp_path_factory.getbasetemp() / f"no {name.lower()}"))


@pytest.fixture
def realdata() -> Callable[[str], Cohort]:
    """Open a real cohort by name, or skip the test where its files are not there."""
    from ecgstudy.data.cohorts import open_cohort
    from ecgstudy.errors import DataNotFoundError

    def _open(name: str) -> Cohort:
        try:
            return open_cohort(name)
        except DataNotFoundError as absent:
            pytest.skip(str(absent))

    return _open


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[str], Cohort]:
    """Write a small cohort in its official layout, the first time; open it."""
    from wfdb_trees import TREES

    from ecgstudy.data.cohorts import REGISTRY

    return lambda name: REGISTRY[name](tmp_path if any(tmp_path.iterdir()) else TREES[name](tmp_path))


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write the notebook 90_trial, which opens its stage, runs the given cells and finishes; give its results folder.

    Notebooks and results have folders of the test's own.
    """
    monkeypatch.setenv("ECGSTUDY_NOTEBOOKS", str(tmp_path / "notebooks"))
    monkeypatch.setenv("ECGSTUDY_RESULTS", str(tmp_path / "results"))
    opened = 'from ecgstudy.study.stage import Stage\nstage = Stage.open("90_trial", globals())'

    def write(*cells: str, profile: str = "demo") -> Path:
        parameters = f'profile = "{profile}"\nseed = 0\ndevice = "cpu"'
        kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
        whole = new_notebook(cells=[new_markdown_cell("# A trial stage")], metadata={"kernelspec": kernel})
        whole.cells += [new_code_cell(source) for source in (parameters, opened, *cells, "stage.finish()")]
        whole.cells[1].metadata["tags"] = ["parameters"]
        (tmp_path / "notebooks").mkdir(exist_ok=True)
        nbformat.write(whole, tmp_path / "notebooks" / "90_trial.ipynb")
        return tmp_path / "results" / profile / "90_trial"

    return write


@pytest.fixture
def project_root() -> Path:
    """Root of the checkout."""
    return Path(__file__).resolve().parent.parent
