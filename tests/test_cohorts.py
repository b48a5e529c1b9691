"""What every cohort promises, held by the registry; what is wrong with one record harms no other."""

import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from wfdb_trees import TREES, ecgid_tree, ludb_tree, mitdb_tree, ptbxl_tree

from ecgstudy.data.base import FAILURE_COLUMNS, RECORD_COLUMNS, Cohort, as_tables
from ecgstudy.data.cohorts import REGISTRY, cohort_table, cohorts_of, data_fingerprint, open_cohort
from ecgstudy.errors import DataNotFoundError, RecordError, StudyError

REAL = [name for name, cohort in REGISTRY.items() if not cohort.synthetic]


@pytest.fixture
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point the study at an empty data folder."""
    monkeypatch.setenv("ECGSTUDY_DATA", str(tmp_path))
    return tmp_path


def test_the_registry_is_in_its_agreed_order() -> None:
    public = ["ecgid", "ludb", "mitdb", "motion", "nsrdb", "ptb", "ptbxl"]
    assert list(REGISTRY) == ["synthetic", *public, "wfdb-folder"]
    assert [cohort.name for cohort in REGISTRY.values()] == list(REGISTRY)
    assert [name for name, cohort in REGISTRY.items() if cohort.synthetic] == ["synthetic"]
    with pytest.raises(StudyError, match="There is no cohort ptb-x; choose one of synthetic, ecgid"):
        open_cohort("ptb-x")


@pytest.mark.parametrize("name", REGISTRY)
def test_every_cohort_states_its_source_and_has_a_row_on_the_data_page(name: str, project_root: Path) -> None:
    cohort = REGISTRY[name]
    optional = {"motion": {"doi"}, "wfdb-folder": {"version", "doi"}, "synthetic": {"doi"}}.get(name, set())
    assert all(getattr(cohort, fact) for fact in {"version", "licence", "doi", "how_to_get"} - optional)
    page = (project_root / "data" / "README.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith(f"| `{name}` |") and cohort.licence in line]
    assert len(rows) == 1, f"data/README.md needs one row that starts with | `{name}` | and names its licence"
    assert cohort.version in rows[0]
    assert cohort.doi in rows[0]


@pytest.mark.parametrize("name", REAL)
def test_a_cohort_is_found_under_every_folder_name_and_says_how_to_get_it_before(name: str, data_folder: Path) -> None:
    cohort = REGISTRY[name]
    with pytest.raises(DataNotFoundError, match=rf"{data_folder} holds no folder {cohort.folders[0]}") as caught:
        open_cohort(name)
    assert cohort.how_to_get in str(caught.value)
    here = TREES[name](data_folder / cohort.folders[0])
    for folder in cohort.folders:
        there = data_folder / folder
        there.parent.mkdir(parents=True, exist_ok=True)
        here = here.rename(there)
        assert open_cohort(name).root == there
        assert cohorts_of("mine" if name == "wfdb-folder" else "real") == ["own-1" if name == "wfdb-folder" else name]


def test_a_folder_that_lacks_its_files_is_passed_over(data_folder: Path) -> None:
    (data_folder / "ptbxl").mkdir()
    with pytest.raises(DataNotFoundError, match=r"ptbxl holds no ptbxl_database\.csv"):
        open_cohort("ptbxl")
    ptbxl_tree(data_folder / "ptbxl-subset")
    assert open_cohort("ptbxl").root == data_folder / "ptbxl-subset"
    with pytest.raises(DataNotFoundError, match="nowhere is no folder"):
        REGISTRY["mitdb"](data_folder / "nowhere")
    for name, marker in {"ludb": r"ludb\.csv", "wfdb-folder": r"\*\*/\*\.hea"}.items():
        with pytest.raises(DataNotFoundError, match=f"holds no {marker}"):
            REGISTRY[name](data_folder / "ptbxl")


@pytest.mark.parametrize("name", REAL)
def test_every_cohort_keeps_the_interface(name: str, tree: Callable[[str], Cohort]) -> None:
    cohort = tree(name)
    table = cohort.records()
    assert tuple(table.columns[: len(RECORD_COLUMNS)]) == RECORD_COLUMNS
    assert tuple(cohort.failures().columns) == FAILURE_COLUMNS
    assert cohort.failures().empty
    assert table["record_id"].is_unique
    assert table["session"].min() >= 1
    for row in table.itertuples():
        signal = cohort.signal(row.record_id)
        assert (signal.values.dtype, signal.values.shape) == (np.float32, (len(row.leads), row.n_samples))
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


def test_a_digest_depends_on_the_names_of_files_and_leaves_out_what_is_outside(tree: Callable[[str], Cohort]) -> None:
    cohort = tree("ecgid")
    whole = cohort.digest()
    # SHA-256 over "<path>\0<sha256>\n" of the files in order of their paths, written out once
    assert whole == "61d129112c31e29f8dd1906e36db4e507c67738089ae758591ae7413292412a5"
    person = cohort.root / "Person_02"
    outside = cohort.root.parent / "outside.dat"
    (person / "rec_1.dat").rename(outside)
    without = tree("ecgid").digest()
    (person / "rec_1.dat").symlink_to(outside)
    assert tree("ecgid").digest() == without != whole


def test_the_table_shows_found_absent_and_damaged_cohorts(data_folder: Path) -> None:
    ecgid_tree(data_folder / "ecgiddb")
    (ludb_tree(data_folder / "ludb") / "ludb.csv").write_bytes(b"\xff")
    mitdb = mitdb_tree(data_folder / "mitdb")
    (mitdb / "102.hea").write_text("")
    table = cohort_table().set_index("name")
    assert table.index[table["found"]].tolist() == ["synthetic", "ecgid", "ludb", "mitdb"]
    assert table.loc["ecgid", ["records", "persons", "failures"]].tolist() == [4, 2, 0]
    assert table.loc["mitdb", ["records", "persons", "failures"]].tolist() == [2, 1, 1]
    assert table.loc["ecgid", "folder"] == str(data_folder / "ecgiddb")
    assert "not UTF-8" in table.loc["ludb", "problem"]
    assert table.loc[["ludb", "motion"], "records"].isna().all()
    assert table.loc["motion", ["folder", "licence", "problem"]].tolist() == ["", "GPL-3.0", ""]
    assert cohorts_of("demo") == ["synthetic"]


def test_the_engines_sign_of_a_change_follows_names_sizes_and_times(data_folder: Path) -> None:
    assert data_fingerprint("demo").keys() == {"synthetic"}
    tree = ecgid_tree(data_folder / "ecgiddb")
    before = data_fingerprint("real")
    assert before == data_fingerprint("real")
    assert before.keys() == {"ecgid"}
    (tree / "RECORDS").write_text((tree / "RECORDS").read_text() + "\n")
    longer = data_fingerprint("real")
    os.utime(tree / "RECORDS", ns=(0, 0))
    older = data_fingerprint("real")
    (tree / "RECORDS").write_text("")
    os.utime(tree / "RECORDS", ns=(0, 0))
    shorter = data_fingerprint("real")
    (tree / "new").touch()
    signs = [before, longer, older, shorter, data_fingerprint("real")]
    assert len({sign["ecgid"] for sign in signs}) == len(signs)


def test_sessions_rank_dates_within_a_person() -> None:
    subject = pd.Series(["a", "a", "a", "b", "b", "c"])
    date = pd.to_datetime(
        pd.Series(["2020-03-01 23:59", "2020-03-01 00:01", "2020-02-28", "2021-01-01", None, None]), format="ISO8601"
    )
    table, _ = as_tables(pd.DataFrame({"subject_id": subject, "date": date, "fs": 1.0, "n_samples": 1}), [])
    assert table["session"].tolist() == [2, 2, 1, 1, 1, 1]
    assert table["session_day"].fillna(-1).tolist() == [2, 2, 0, 0, -1, -1]
    assert list(table.columns) == list(RECORD_COLUMNS)


def test_the_publishers_list_decides_and_without_one_every_header_counts(tree: Callable[[str], Cohort]) -> None:
    cohort = tree("ecgid")
    index, names = cohort.root / "RECORDS", set(cohort.records()["record_id"])
    index.write_text(index.read_text() + "Person_01/rec_1\n")  # twice
    assert tree("ecgid").records()["record_id"].is_unique
    index.write_text("Person_01/rec_1\n")
    assert len(tree("ecgid").records()) == 1
    index.unlink()
    assert set(tree("ecgid").records()["record_id"]) == names


IMI, CODES = "{'IMI': 80.0, 'ASMI': 15.0, 'AFIB': 0.0}", "statements (scp_codes)"
STEM = "records100/00000/00002_lr"
FACTS = "does not say subject, electrode and activity in its comments"
PTB, NO_DAY = "patient001/s0016lre.hea", "states an ECG date that is no day of the calendar"
UNSTATED = "states no sampling rate or no number of samples in its first line"
FLAWS = [  # cohort, file and what is changed in it (None: it is gone), records that are left out, file and reason
    ("ecgid", "Person_02/rec_1.hea", None, "", ["Person_02/rec_1"], "Person_02/rec_1.hea", "is missing"),
    *(
        (
            "ecgid",
            name,
            "ECG date: 07.12.2004",
            date,
            [name[:-4]],
            name,
            "states no date that a session could be told by",
        )
        for name, date in zip(["Person_01/rec_2.hea"] * 3, ["", "ECG date: never", "ECG date: 2004-12-07"], strict=True)
    ),
    ("ludb", "ludb.csv", '\n2,"M', '\n3,"M', ["2"], "ludb.csv", "has no row, or more than one, for record 2"),
    ("ludb", "ludb.csv", '\n2,"M', '\n1,"M', ["1", "2"], "ludb.csv", "has no row, or more than one, for record 1"),
    ("motion", "s01_e01_rest.hea", "activity rest", "activity-rest", ["s01_e01_rest"], "s01_e01_rest.hea", FACTS),
    (
        *("motion", "s01_e01_rest.hea", "gaps_after_sample_s []", "gaps []", ["s01_e01_rest"], "s01_e01_rest.hea"),
        "does not say where its gaps in time are",
    ),
    ("ptb", PTB, None, "", [PTB[:-4]], PTB, "is missing"),
    ("ptb", PTB, " 15 1000 2000", " 15 1000", [PTB[:-4]], PTB, UNSTATED),
    ("ptb", PTB, "# ECG date: 17/10/1990", "#", [PTB[:-4]], PTB, "has no line ECG date in its comments"),
    *(
        ("ptb", PTB, "date: 17/10/1990", f"date: {date}", [PTB[:-4]], PTB, NO_DAY)
        for date in ("10/17/1990", "17/10/90", "17-Oct-90", "soon")
    ),
    ("nsrdb", "19088.hea", None, "", ["19088"], "19088.hea", "is missing"),
    (
        "nsrdb",
        "19088.hea",
        "19088 2 128 ",
        "19088 3 128 ",
        ["19088"],
        "19088.hea",
        "describes no leads, or not as many as it claims",
    ),
    (
        *("ptbxl", "records100/00000/00002_lr.dat", None, "", ["00002"], "ptbxl_database.csv"),
        "names a signal file that is missing",
    ),
    *(
        ("ptbxl", "ptbxl_database.csv", old, new, ["00002"], "ptbxl_database.csv", reason)
        for old, changes, reason in (
            ("2,7.0,89.0", ["2,,89.0", "2,inf,89.0"], "does not say whose record this is (patient_id)"),
            ("7.0,89.0", ["7.0,old"], "states an age that is no number"),
            ("89.0,0", ["89.0,2"], "states a sex that is neither 0 nor 1"),
            (",3,records100", [",11,records100", ",0,records100", ",,records100"], "states no fold from 1 to 10"),
            (IMI, ["{'NORM': 100.0", "__import__('os').getcwd()", "['NORM']"], f"has {CODES} that cannot be read"),
            (IMI, ["{'XYZ': 100.0}"], "has a statement that scp_statements.csv does not list"),
            (STEM, ["../outside/00005_lr", "/etc/hostname"], "leads outside the cohort's folder"),
            (STEM, ["records100/00000/00006_lr"], "names a header that is missing"),
        )
        for new in changes
    ),
    (
        *("ptbxl", "ptbxl_database.csv", "2,7.0,89.0", "4.5,7.0,89.0", ["4.5"], "ptbxl_database.csv"),
        "has a record without a whole number as ecg_id",
    ),
    (
        *("ptbxl", "ptbxl_database.csv", "2,7.0,89.0", "1003,7.0,89.0", ["01003"] * 2, "ptbxl_database.csv"),
        "lists this record twice",
    ),
    (
        *("wfdb-folder", "bob.hea", "bob.dat", "../../secret.dat", ["bob"], "bob.hea"),
        "names a signal file outside its own folder",
    ),
]


@pytest.mark.parametrize(("name", "file", "old", "new", "left_out", "blamed", "reason"), FLAWS)
def test_what_is_wrong_with_a_record_harms_no_other(
    tree: Callable[[str], Cohort],
    name: str,
    file: str,
    old: str | None,
    new: str,
    left_out: list[str],
    blamed: str,
    reason: str,
) -> None:
    whole = tree(name).records()
    path = tree(name).root / file
    text = "" if old is None else path.read_text()
    assert (old or "") in text
    path.unlink() if old is None else path.write_text(text.replace(old, new))
    cohort = tree(name)
    rows = cohort.failures()
    assert rows["record_id"].tolist() == left_out
    assert rows.loc[0, ["file", "reason"]].tolist() == [blamed, reason]
    kept = whole[whole["record_id"].isin(cohort.records()["record_id"])].reset_index(drop=True)
    assert len(kept) == len(whole) - len(left_out)
    # a table without rows has no labels
    pd.testing.assert_frame_equal(cohort.records(), kept[list(cohort.records())], check_dtype=len(kept) > 0)
    with pytest.raises(RecordError) as caught:
        cohort.signal(left_out[0])
    assert str(caught.value).startswith(f"{cohort.root / blamed} {reason}")
    assert str(caught.value).endswith(f"; {rows['remedy'][0]}.")
    assert len(cohort.digest()) == 64


def test_a_list_that_leads_out_of_the_folder_is_no_way_out(tree: Callable[[str], Cohort]) -> None:
    cohort = tree("ecgid")
    outside = cohort.root.parent / "rec_1"
    (cohort.root / "RECORDS").write_text(f"Person_01/rec_1\n{outside}\n../rec_1\n")
    failures = tree("ecgid").failures()
    assert failures["record_id"].tolist() == [str(outside), "../rec_1"]
    assert set(failures["reason"]) == {"leads outside the cohort's folder"}
    assert len(tree("ecgid").digest()) == 64


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("ludb", b"\xff\xfe\x00", "not UTF-8"),
        ("ludb", b"ID,Sex\n1,F\n", "has no column Age"),
        ("ludb", b"", "is empty"),
        ("ludb", b"ID,Sex\n1,F\n2,F,3\n", "line 3"),
        ("ludb", b"ID,Sex\n1,F,3\n2,F,3\n", "malformed"),
        ("ludb", b'ID,Sex\n1,"F\n', "malformed"),
    ],
)
def test_a_damaged_table_is_one_sentence(tree: Callable[[str], Cohort], name: str, content: bytes, words: str) -> None:
    (table,) = REGISTRY[name].tables
    (tree(name).root / table).write_bytes(content)
    with pytest.raises(StudyError, match=words) as caught:
        tree(name).records()
    assert table in str(caught.value)
    assert "\n" not in str(caught.value)
