"""A stage writes its results whole or not at all, and never an undefined number as 0."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import joblib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from filelock import FileLock, Timeout
from PIL import Image as Picture

from ecgstudy.errors import StudyError
from ecgstudy.study import cache
from ecgstudy.study import stage as stage_module
from ecgstudy.study.config import results_dir
from ecgstudy.study.parallel import peak_memory
from ecgstudy.study.plots import strip_figure
from ecgstudy.study.stage import Stage, read_metrics
from ecgstudy.study.words import shown_table, table_html

PARAMETERS = {"profile": "demo", "seed": 3, "device": "cpu"}


@pytest.fixture
def results(trial: Callable[..., Path]) -> Path:
    """Results folder of the stage `90_trial`, whose notebook declares PARAMETERS."""
    return trial()


def test_metrics_file_holds_the_contract(results: Path) -> None:
    stage = Stage.open("90_trial", PARAMETERS)
    stage.input("synthetic", "ab" * 32)
    stage.metric("synthetic.records", 12, n=12, unit="records")
    stage.metric("synthetic.eer", 0.25, 0.2, 0.3, n=40, unit="share")
    stage.metric("synthetic.rank1", math.nan, n=1, note="one person is no gallery")
    assert not (results / "metrics.json").exists()
    stage.finish()
    written = json.loads((results / "metrics.json").read_text())
    assert (written["stage"], written["profile"], written["complete"]) == ("90_trial", "demo", True)
    empty = {"value": None, "low": None, "high": None}
    assert written["metrics"] == {
        "synthetic.records": empty | {"value": 12, "n": 12, "unit": "records"},
        "synthetic.eer": {"value": 0.25, "low": 0.2, "high": 0.3, "n": 40, "unit": "share"},
        "synthetic.rank1": empty | {"n": 1, "unit": "", "note": "one person is no gallery"},
    }
    about = written["provenance"]
    assert about["seed"] == 3
    assert about["inputs"] == {"synthetic": "ab" * 32}
    assert about["device"] == "cpu"
    assert set(about) == {"commit", "seed", "inputs", "versions", "device", "seconds", "memory_gb", "cores"}
    assert about["memory_gb"] == pytest.approx(peak_memory() / 1e9, abs=0.06)
    assert about["cores"] == joblib.cpu_count()
    assert read_metrics("demo", "90_trial") == written
    text = (results / "metrics.json").read_text()
    assert '"value": 12\n' in text  # a count stays a count
    (results / "metrics.json").write_text(text.replace('"complete": true', '"complete": false'))
    with pytest.raises(StudyError, match="is of a run that did not end"):
        read_metrics("demo", "90_trial")


def test_results_of_a_notebook_in_jupyterlab_are_published_by_one_process_at_a_time(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def publish(*_: object) -> None:
        with pytest.raises(Timeout):
            FileLock(results.with_name(".90_trial.lock"), timeout=0).acquire()
        raise StudyError("Nobody else may.")

    monkeypatch.setattr(stage_module, "publish", publish)
    with pytest.raises(StudyError, match="Nobody else may"):
        Stage.open("90_trial", PARAMETERS).finish()


def test_an_undefined_number_needs_its_reason_and_a_headline_its_number(results: Path) -> None:
    stage = Stage.open("90_trial", PARAMETERS)
    with pytest.raises(ValueError, match="no note says why"):
        stage.metric("a", math.nan)
    with pytest.raises(ValueError, match="not a recorded metric"):
        stage.headline("b", "what is not there")


def test_in_a_batch_run_no_name_is_taken_twice(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECGSTUDY_BATCH", "1")
    stage = Stage.open("90_trial", PARAMETERS)
    for record in (
        lambda: stage.metric("a", 1),
        lambda: stage.table("a", pd.DataFrame({"a": [1]}), "a table"),
        lambda: stage.figure("a", plt.figure(), "a figure", "nothing"),
    ):
        record()
        with pytest.raises(ValueError, match="'a' is recorded twice"):
            record()


class _Shell:
    """A notebook's kernel, as far as a stage looks at it."""

    def __init__(self) -> None:
        self.user_ns: dict = {}
        self.message: dict = {}

    def get_parent(self) -> dict:
        return self.message

    def set_custom_exc(self, *_: object) -> None:
        """Take the handler of errors that end a stage early."""

    def run(self, cell: str, code: str = "") -> None:
        """Begin a run of a cell; one without a name is known by its code."""
        run = self.message.get("header", {}).get("msg_id", 0) + 1
        metadata = {"cellId": cell} if cell else {}
        self.message = {"header": {"msg_id": run}, "metadata": metadata, "content": {"code": code}}


@pytest.mark.parametrize("named", [True, False])
def test_a_cell_that_is_run_again_replaces_what_it_recorded(
    results: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    shell = _Shell()
    monkeypatch.setattr(stage_module, "get_ipython", lambda: shell)
    stage = Stage.open("90_trial", PARAMETERS)
    for cell, value in (("first", 1), ("second", 2), ("first", 3)):
        shell.run(cell if named else "", cell)
        stage.metric(cell, value)
        stage.headline(cell, f"label {value}")
        stage.table(cell, pd.DataFrame({"a": [value]}), f"caption {value}")
        stage.figure(cell, plt.figure(), f"caption {value}", f"alt {value}")
        for part in ("one", "two"):
            stage.finding(f"{value} {part}")
    stage.finish()
    story = json.loads((results / "report.json").read_text())
    assert story["findings"] == ["3 one", "3 two", "2 one", "2 two"]
    assert [line["label"] for line in story["headlines"]] == ["label 3", "label 2"]
    assert [tuple(line.values()) for line in story["tables"]] == [("caption 3", "first"), ("caption 2", "second")]
    assert [line["alt"] for line in story["figures"]] == ["alt 3", "alt 2"]
    assert (results / "tables" / "first.csv").read_text() == "a\n3\n"
    assert read_metrics("demo", "90_trial")["metrics"]["first"]["value"] == 3
    shell.run("first", "first")
    stage.metric("first", 4)
    stage.finish()
    assert read_metrics("demo", "90_trial")["metrics"]["first"]["value"] == 4


ROW = dict.fromkeys(("cohort", "protocol", "attacker", "view", "task", "low", "high", "n", "unit", "note"))


def test_results_are_metrics_and_one_long_table(results: Path) -> None:
    stage = Stage.open("90_trial", PARAMETERS)
    full = {"cohort": "ecgid", "protocol": "cross_day", "attacker": "best", "metric": "rank1", "view": "no_p"}
    rows = [
        full | {"task": "person", "value": 0.5, "low": 0.25, "high": 0.75, "n": 20, "unit": "share"},
        {"cohort": "ecgid", "metric": "records", "value": 1234567, "n": 1234567},
        {"metric": "eer", "value": math.nan, "note": "one person is no gallery", "name": "own.name"},
    ]
    stage.results(pd.DataFrame([{"name": None} | ROW | row for row in rows]))
    stage.results(pd.DataFrame([ROW | {"cohort": "ecgid", "metric": "records", "value": 1234568}]))
    stage.finish()
    metrics = read_metrics("demo", "90_trial")["metrics"]
    empty = {"value": None, "low": None, "high": None, "n": None, "unit": ""}
    assert metrics == {
        "ecgid.person.cross_day.best.no_p.rank1": {"value": 0.5, "low": 0.25, "high": 0.75, "n": 20, "unit": "share"},
        "ecgid.records": empty | {"value": 1234568},
        "own.name": empty | {"note": "one person is no gallery"},
    }
    table = pd.read_csv(results / "results.csv")
    order = "cohort protocol attacker view task metric value low high n unit note name"
    assert list(table) == order.split()
    assert table["value"].tolist()[:2] == [0.5, 1234568]
    assert table.loc[0, ["view", "task", "n", "unit"]].tolist() == ["no_p", "person", 20, "share"]
    assert set(table["name"]) == set(metrics)


def test_the_device_and_artefacts_of_several_commits_are_named(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_module, "commit", lambda: "now")
    stage = Stage.open("90_trial", PARAMETERS)
    monkeypatch.setattr(stage_module, "resolve_device", lambda _: "cuda")
    assert stage.device == "cuda"
    stage.commits({"now"})
    stage.finish()
    assert "artefact_commits" not in read_metrics("demo", "90_trial")["provenance"]
    stage.commits({"earlier"})
    stage.finish()
    about = read_metrics("demo", "90_trial")["provenance"]
    assert (about["artefact_commits"], about["device"]) == (["earlier", "now"], "cuda")


def test_an_older_run_stays_whole_until_the_new_one_is_finished(results: Path) -> None:
    stage = Stage.open("90_trial", PARAMETERS)
    stage.table("old", pd.DataFrame({"a": [1]}), "old table")
    (stage.folder / "trials").mkdir()
    (stage.folder / "trials" / "old.csv").write_text("old")
    stage.finish()
    for page in ("90_trial.ipynb", "90_trial.failed.ipynb", "results.csv"):
        (results / page).write_text("of the last papermill run")
    before = {path: path.read_bytes() for path in results.rglob("*.*")}
    stage = Stage.open("90_trial", PARAMETERS)
    stage.table("new", pd.DataFrame({"a": [1]}), "new table")
    stage.figure("new", plt.figure(), "new figure", "nothing")
    (stage.folder / "trials").mkdir()
    (stage.folder / "trials" / "new.csv").write_text("new")
    assert {path: path.read_bytes() for path in results.rglob("*.*")} == before
    stage.finish()
    made = ["figures/new.png", "figures/new.svg", "tables/new.csv", "trials/new.csv", "metrics.json", "report.json"]
    found = [path.relative_to(results).as_posix() for path in results.rglob("*.*")]
    assert sorted(found) == sorted([*made, "90_trial.ipynb"])


def test_a_publication_that_breaks_off_does_not_look_finished(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Stage.open("90_trial", PARAMETERS).finish()
    stage = Stage.open("90_trial", PARAMETERS)
    copy = cache.shutil.copyfile
    monkeypatch.setattr(cache.shutil, "copyfile", lambda a, b: copy(a, b) if a.name == "metrics.json" else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        stage.finish()
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
        del metrics["provenance"]["seconds"], metrics["provenance"]["memory_gb"]
        written.append((files, metrics))
    assert written[0] == written[1]
    assert {p.name for p in written[0][0]} == {"t.csv", "f.png", "f.svg", "report.json"}
    assert Picture.open(results / "figures" / "f.png").mode == "P"


def test_wrong_parameters_stop_the_stage(results: Path) -> None:
    for change, sentence in (({"profile": "full"}, "no profile 'full'"), ({"seed": "1"}, "'seed' must be a int")):
        with pytest.raises(StudyError, match=sentence):
            Stage.open("90_trial", PARAMETERS | change)


@pytest.mark.parametrize(
    ("profile", "asked", "drawn"),
    [("demo", False, True), ("real", False, True), ("mine", False, False), ("mine", True, True)],
)
def test_a_trace_of_own_records_is_drawn_only_where_it_is_asked_for(profile: str, asked: bool, drawn: bool) -> None:
    given = PARAMETERS | {"profile": profile, "draw_own_traces": asked}
    assert Stage.open("01_ingestion", given).draws_traces == drawn


def test_ecg_paper_is_true_to_scale() -> None:
    ax = strip_figure(np.zeros(500), fs=250).axes[0]
    assert ax.get_aspect() == pytest.approx(0.4)  # 10 mm a mV over 25 mm a second
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, 2), (-1.5, 1.5))
    assert [label.get_text() for label in ax.get_xticklabels() if label.get_text()] == ["0.0", "1.0", "2.0"]
    plt.close("all")


def test_paths_do_not_depend_on_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECGSTUDY_RESULTS", "own/results")
    before = results_dir("demo")
    monkeypatch.chdir(tmp_path)
    assert results_dir("demo") == before
    assert before.parts[-3:] == ("own", "results", "demo")


def test_table_shows_undefined_as_a_dash_and_escapes_nothing_away() -> None:
    html = table_html(pd.DataFrame({"lead": ["I"], "error (ms)": [math.nan]}), "errors")
    assert "<caption>errors</caption>" in html
    assert ">-</td>" in html
    assert ">0" not in html


def test_table_shows_a_value_with_its_interval_in_one_cell() -> None:
    frame = pd.DataFrame({"ppv": [0.5, 0.25, math.nan], "ppv_low": [0.4, math.nan, 0], "ppv_high": [0.6, 0.3, 1]})
    shown = shown_table(frame.assign(n_reference=[1, 2, 3]))
    assert shown["ppv"].tolist() == ["50.0 % (40.0 to 60.0)", "25.0 %", "-"]
    assert list(shown) == ["ppv", "n reference"]


def test_a_table_without_rows_is_shown_with_its_columns() -> None:
    frame = pd.DataFrame({name: pd.Series(dtype=float) for name in ("ppv", "ppv_low", "ppv_high")})
    assert list(shown_table(frame)) == ["ppv"]
    assert "<caption>nobody</caption>" in table_html(frame, "nobody")


def test_a_table_s_words_stand_where_a_number_would() -> None:
    frame = pd.DataFrame({"eer": ["not tested", 0.25], "eer_low": ["", 0.2], "eer_high": [None, 0.3]})
    assert shown_table(frame)["eer"].tolist() == ["not tested", "25.0 % (20.0 to 30.0)"]
    assert shown_table(frame.astype(str))["eer"].tolist() == ["not tested", "25.0 % (20.0 to 30.0)"]


@pytest.mark.parametrize(
    ("name", "values", "texts"),
    [
        ("d_sys", [0.98765, 0.5, math.nan], ["0.988", "0.500", "-"]),
        ("rank1", [1.0, 0.0], ["100.0 %", "0.0 %"]),
        ("rank_1 gain", [-0.011, 0.5], ["-1.1 %", "50.0 %"]),
        ("eer", [2.5, 0.5], ["2.50", "0.50"]),  # no share is above 1
        ("error ms", [40.26, -8.1, 120.5], ["40.3", "-8.1", "120.5"]),
        ("persons", [20.0, 1234.0, math.nan], ["20", "1,234", "-"]),
        ("of_few", [0.25, "20 trials are needed"], ["0.250", "20 trials are needed"]),
    ],
)
def test_the_numbers_of_a_column_are_written_alike(name: str, values: list, texts: list[str]) -> None:
    assert shown_table(pd.DataFrame({name: values})).iloc[:, 0].tolist() == texts


def test_a_caption_says_that_all_numbers_of_a_table_are_shares_or_that_none_is() -> None:
    frame = pd.DataFrame({"persons": [1], "transecg": [0.5], "mean": [0.25]})
    assert shown_table(frame, "EER of every attacker.").iloc[0].tolist() == [1, "50.0 %", "25.0 %"]
    assert shown_table(frame, "Macro AUROC of a few.").iloc[0].tolist() == [1, "0.500", "0.250"]
