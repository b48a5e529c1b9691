"""A stage writes its results whole or not at all, and never an undefined number as 0."""

import json
import math
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from ecgstudy.errors import StudyError
from ecgstudy.study.stage import Stage, read_metrics, shown_table, table_html

PARAMETERS = {"profile": "demo", "seed": 3, "device": "cpu"}


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results folder of the stage `90_trial`, with a source notebook that declares PARAMETERS."""
    cell = new_code_cell('profile = "demo"\nseed = 0\ndevice = "auto"', metadata={"tags": ["parameters"]})
    nbformat.write(new_notebook(cells=[cell]), tmp_path / "90_trial.ipynb")
    monkeypatch.setenv("ECGSTUDY_NOTEBOOKS", str(tmp_path))
    monkeypatch.setenv("ECGSTUDY_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results" / "demo" / "90_trial"


def test_metrics_file_holds_the_contract(results: Path) -> None:
    stage = Stage.open("90_trial", PARAMETERS)
    stage.input("synthetic", "ab" * 32)
    stage.metric("synthetic.records", 12, n=12, unit="records")
    stage.metric("synthetic.eer", 0.25, 0.2, 0.3, n=40, unit="share")
    stage.metric("synthetic.rank1", math.nan, n=1, note="one person is no gallery")
    assert not (results / "metrics.json").exists()
    stage.finish()
    written = json.loads((results / "metrics.json").read_text())
    assert {key: written[key] for key in ("stage", "profile", "complete")} == {
        "stage": "90_trial",
        "profile": "demo",
        "complete": True,
    }
    assert written["metrics"]["synthetic.records"] == {
        "value": 12,
        "low": None,
        "high": None,
        "n": 12,
        "unit": "records",
    }
    assert written["metrics"]["synthetic.eer"] == {"value": 0.25, "low": 0.2, "high": 0.3, "n": 40, "unit": "share"}
    assert written["metrics"]["synthetic.rank1"]["value"] is None
    assert written["metrics"]["synthetic.rank1"]["note"] == "one person is no gallery"
    about = written["provenance"]
    assert about["seed"] == 3
    assert about["inputs"] == {"synthetic": "ab" * 32}
    assert about["device"] == "cpu"
    assert set(about) == {"commit", "seed", "inputs", "versions", "device", "seconds"}
    assert read_metrics("demo", "90_trial") == written


def test_an_undefined_number_needs_its_reason_and_no_number_is_recorded_twice(results: Path) -> None:
    stage = Stage.open("90_trial", PARAMETERS)
    with pytest.raises(ValueError, match="no note says why"):
        stage.metric("a", math.nan)
    stage.metric("a", 1)
    with pytest.raises(ValueError, match="recorded twice"):
        stage.metric("a", 2)
    with pytest.raises(ValueError, match="not a recorded metric"):
        stage.headline("b", "what is not there")


def test_opening_a_stage_clears_what_an_older_run_left(results: Path) -> None:
    stage = Stage.open("90_trial", PARAMETERS)
    stage.table("old", pd.DataFrame({"a": [1]}), "old table")
    stage.finish()
    Stage.open("90_trial", PARAMETERS)
    assert [p for p in results.rglob("*") if p.is_file()] == []
    with pytest.raises(StudyError, match="is not there or not whole; run"):
        read_metrics("demo", "90_trial")


def test_two_equal_runs_write_equal_bytes(results: Path) -> None:
    written = []
    for _ in range(2):
        stage = Stage.open("90_trial", PARAMETERS)
        stage.table("t", pd.DataFrame({"a": [1 / 3]}), "a table")
        figure, ax = plt.subplots()
        ax.plot([0, 1], [1, 0])
        stage.figure("f", figure, "a line", "a falling line")
        stage.metric("m", 1 / 3)
        stage.finish()
        files = {p.relative_to(results): p.read_bytes() for p in results.rglob("*.*") if p.is_file()}
        metrics = json.loads(files.pop(Path("metrics.json")))
        metrics["provenance"].pop("seconds")
        written.append((files, metrics))
    assert written[0] == written[1]
    assert {p.name for p in written[0][0]} == {"t.csv", "f.png", "f.svg", "report.json"}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"profile": "full"}, "no profile 'full'"),
        ({"seed": "1"}, "'seed' must be a int"),
        ({"device": 0}, "must be a str"),
    ],
)
def test_wrong_parameters_stop_the_stage(results: Path, change: dict, sentence: str) -> None:
    with pytest.raises(StudyError, match=sentence):
        Stage.open("90_trial", PARAMETERS | change)


def test_table_shows_undefined_as_a_dash_and_escapes_nothing_away() -> None:
    html = table_html(pd.DataFrame({"lead": ["I"], "error (ms)": [math.nan]}), "errors")
    assert "<caption>errors</caption>" in html
    assert ">-</td>" in html
    assert ">0" not in html


def test_table_shows_a_value_with_its_interval_in_one_cell() -> None:
    frame = pd.DataFrame({"ppv": [0.5, 0.25, math.nan], "ppv_low": [0.4, math.nan, 0], "ppv_high": [0.6, 0.3, 1]})
    shown = shown_table(frame.assign(n_reference=[1, 2, 3]), decimals=2)
    assert shown["ppv"].tolist() == ["0.50 (0.40 to 0.60)", "0.25", "-"]
    assert list(shown) == ["ppv", "n reference"]
