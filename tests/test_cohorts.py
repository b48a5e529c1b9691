"""The registry is complete, folders are found, and a digest changes with what it stands for."""

import dataclasses
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from wfdb_trees import digital, ecgid_tree, ludb_tree, mitdb_tree, motion_tree, ptbxl_tree, write_record

from ecgstudy.data.base import FAILURE_COLUMNS, RECORD_COLUMNS, DataCard
from ecgstudy.data.cohorts import REGISTRY, cohort_table, found_cohorts, open_cohort
from ecgstudy.data.wfdb_cohort import WfdbCohort, sessions
from ecgstudy.errors import DataNotFoundError, StudyError

REAL = [name for name, cohort in REGISTRY.items() if not cohort.synthetic]


def own_tree(root: Path) -> Path:
    """Write one record with a table of persons."""
    write_record(root, "bob", digital(1, 400))
    (root / "subjects.csv").write_text("record,subject_id\nbob,Bob\n")
    return root


TREES: dict[str, Callable[[Path], Path]] = {
    "ecgid": ecgid_tree,
    "ludb": ludb_tree,
    "mitdb": mitdb_tree,
    "motion": motion_tree,
    "ptbxl": ptbxl_tree,
    "wfdb-folder": own_tree,
}


@pytest.fixture
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point the study at an empty data folder."""
    monkeypatch.setenv("ECGSTUDY_DATA", str(tmp_path))
    return tmp_path


def test_the_registry_is_in_its_agreed_order() -> None:
    assert list(REGISTRY) == ["synthetic", "ecgid", "ludb", "mitdb", "motion", "ptbxl", "wfdb-folder"]
    assert [cohort.name for cohort in REGISTRY.values()] == list(REGISTRY)
    assert [name for name, cohort in REGISTRY.items() if cohort.synthetic] == ["synthetic"]


@pytest.mark.parametrize("name", REGISTRY)
def test_every_cohort_has_a_card_a_test_file_and_a_row_on_the_data_page(name: str, project_root: Path) -> None:
    card = REGISTRY[name].card
    assert isinstance(card, DataCard)
    empty = {field.name for field in dataclasses.fields(card) if not getattr(card, field.name)}
    allowed = {"version", "doi"} if name in ("synthetic", "wfdb-folder") else {"doi"} if name == "motion" else set()
    assert empty <= allowed
    assert all(note.endswith(".") for note in card.notes)
    assert (project_root / "tests" / f"test_cohort_{name.replace('-', '_')}.py").is_file()
    page = (project_root / "data" / "README.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith(f"| `{name}` |") and card.licence in line]
    assert len(rows) == 1, f"data/README.md needs one row that starts with | `{name}` | and names its licence"
    assert card.version in rows[0]
    assert card.doi in rows[0]


@pytest.mark.parametrize("name", REAL)
def test_an_absent_cohort_says_how_to_get_it(name: str, data_folder: Path) -> None:
    with pytest.raises(DataNotFoundError) as caught:
        open_cohort(name)
    message = str(caught.value)
    assert REGISTRY[name].card.how_to_get in message
    assert str(data_folder) in message


@pytest.mark.parametrize("name", REAL)
def test_every_folder_name_is_found(name: str, data_folder: Path) -> None:
    cohort = REGISTRY[name]
    assert issubclass(cohort, WfdbCohort)
    here = TREES[name](data_folder / cohort.folders[0])
    for folder in cohort.folders:
        there = data_folder / folder
        there.parent.mkdir(parents=True, exist_ok=True)
        here = here.rename(there)
        opened = open_cohort(name)
        assert opened.root == there
        assert found_cohorts() == [name]


@pytest.mark.parametrize("name", REAL)
def test_every_cohort_keeps_the_interface(name: str, tmp_path: Path) -> None:
    cohort = open_cohort(name, TREES[name](tmp_path))
    table = cohort.records()
    assert tuple(table.columns[: len(RECORD_COLUMNS)]) == RECORD_COLUMNS
    assert tuple(cohort.failures().columns) == FAILURE_COLUMNS
    assert cohort.failures().empty
    assert table["record_id"].is_unique
    assert table["session"].min() >= 1
    for row in table.itertuples():
        signal = cohort.signal(row.record_id)
        assert signal.values.shape == (len(row.leads), row.n_samples)
        assert (signal.leads, signal.fs, signal.unit) == (row.leads, row.fs, row.unit)
    with pytest.raises(KeyError):
        cohort.signal("nobody")
    worker = pickle.loads(pickle.dumps(cohort))  # as a process pool sends it
    assert worker.signal(row.record_id).values.tobytes() == signal.values.tobytes()
    table["subject_id"] = "overwritten"
    assert "overwritten" not in set(cohort.records()["subject_id"])


@pytest.mark.parametrize("name", REAL)
def test_the_digest_follows_every_file_and_nothing_else(name: str, tmp_path: Path) -> None:
    cohort = REGISTRY[name]
    root = TREES[name](tmp_path / "one")
    digest = cohort(root).digest()
    assert re.fullmatch("[0-9a-f]{64}", digest)
    assert cohort(TREES[name](tmp_path / "two")).digest() == digest
    (root / "notes.txt").write_text("no part of the records")
    assert cohort(root).digest() == digest
    for path in sorted(file for file in root.rglob("*") if file.is_file() and file.name != "notes.txt"):
        whole = path.read_bytes()
        # A harmless byte at the end: every file still means the same but is another file.
        path.write_bytes(whole + b"\n")
        assert cohort(root).digest() != digest, path.name
        path.write_bytes(whole)
    assert cohort(root).digest() == digest


def test_a_folder_that_lacks_its_files_is_passed_over(data_folder: Path) -> None:
    (data_folder / "ptbxl").mkdir()
    with pytest.raises(DataNotFoundError, match=r"ptbxl holds no ptbxl_database\.csv"):
        open_cohort("ptbxl")
    ptbxl_tree(data_folder / "ptbxl-subset")
    assert open_cohort("ptbxl").root == data_folder / "ptbxl-subset"


def test_a_chosen_folder_is_checked(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match="is no folder"):
        open_cohort("mitdb", tmp_path / "nowhere")
    with pytest.raises(DataNotFoundError, match=r"holds no ludb\.csv"):
        open_cohort("ludb", tmp_path)
    with pytest.raises(StudyError, match="is generated and has no folder"):
        open_cohort("synthetic", tmp_path)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(StudyError, match="There is no cohort ptb; choose one of synthetic, ecgid"):
        open_cohort("ptb")


def test_the_table_shows_found_absent_and_damaged_cohorts(data_folder: Path) -> None:
    ecgid_tree(data_folder / "ecgiddb")
    (ludb_tree(data_folder / "ludb") / "ludb.csv").write_bytes(b"\xff")
    mitdb = mitdb_tree(data_folder / "mitdb")
    (mitdb / "102.hea").write_text("")
    table = cohort_table().set_index("name")
    assert table["found"].to_dict() == {
        "synthetic": True,
        "ecgid": True,
        "ludb": True,
        "mitdb": True,
        "motion": False,
        "ptbxl": False,
        "wfdb-folder": False,
    }
    assert table.loc["ecgid", ["records", "persons", "failures"]].tolist() == [4, 2, 0]
    assert table.loc["mitdb", ["records", "persons", "failures"]].tolist() == [2, 1, 1]
    assert table.loc["ecgid", "folder"] == str(data_folder / "ecgiddb")
    assert "not UTF-8" in table.loc["ludb", "problem"]
    assert table.loc[["ludb", "motion"], "records"].isna().all()
    assert (table.loc["motion", "folder"], table.loc["motion", "licence"]) == ("", "GPL-3.0")


def test_sessions_rank_dates_within_a_person() -> None:
    subject = pd.Series(["a", "a", "a", "b", "b", "c"])
    date = pd.to_datetime(
        pd.Series(["2020-03-01 23:59", "2020-03-01 00:01", "2020-02-28", "2021-01-01", None, None]), format="ISO8601"
    )
    session, day = sessions(subject, date)
    assert session.tolist() == [2, 2, 1, 1, 1, 1]
    assert day.fillna(-1).tolist() == [2, 2, 0, 0, -1, -1]
