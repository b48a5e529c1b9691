"""Bring your own: any folder of records, and a table of who is who that may be damaged."""

from pathlib import Path

import numpy as np
import pytest
from wfdb_trees import digital, write_record

from ecgstudy.data.wfdb_folder import WfdbFolderCohort
from ecgstudy.errors import DataNotFoundError, RecordError, StudyError

HEAD = "record,subject_id,session,age,sex,diagnosis\n"
ROWS = "ann/a1,Ann,1,40,F,normal\nann/a2,Ann,2,41.5,female,AF\nbob,Bob,,,,\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write three records into two folders."""
    write_record(tmp_path / "ann", "a1", digital(2, 300, 1), fs=250, leads=("i", "ii"))
    write_record(tmp_path / "ann", "a2", digital(2, 300, 2), fs=250, leads=("i", "ii"))
    write_record(tmp_path, "bob", digital(1, 400, 3), fs=500, leads=("V2",), unit="uV")
    return tmp_path


def test_without_a_table_every_record_is_its_own_person(folder: Path) -> None:
    table = WfdbFolderCohort(folder).records()
    assert table["record_id"].tolist() == ["ann/a1", "ann/a2", "bob"]
    assert table["subject_id"].tolist() == ["ann/a1", "ann/a2", "bob"]
    assert table["session"].tolist() == [1, 1, 1]
    assert table["leads"].tolist() == [("I", "II"), ("I", "II"), ("V2",)]
    assert table["unit"].tolist() == ["mV", "mV", "uV"]
    assert table["n_samples"].tolist() == [300, 300, 400]


def test_signals_are_read_below_the_folder(folder: Path) -> None:
    signal = WfdbFolderCohort(folder).signal("ann/a2")
    np.testing.assert_array_equal(signal.values, (digital(2, 300, 2) / 200).astype(np.float32))
    with pytest.raises(KeyError, match="no record a2"):
        WfdbFolderCohort(folder).signal("a2")


def test_the_table_names_persons_sessions_and_labels(folder: Path) -> None:
    (folder / "subjects.csv").write_text(HEAD + ROWS)
    table = WfdbFolderCohort(folder).records()
    assert table["subject_id"].tolist() == ["Ann", "Ann", "Bob"]
    assert table["session"].tolist() == [1, 2, 1]
    np.testing.assert_array_equal(table["age"], [40, 41.5, np.nan])
    assert table["sex"].tolist() == ["F", "F", None]
    assert table["diagnosis"].tolist() == ["normal", "AF", ""]


def test_the_mark_of_a_spreadsheet_is_no_part_of_the_first_column(folder: Path) -> None:
    (folder / "subjects.csv").write_text(HEAD + ROWS, encoding="utf-8-sig")
    assert WfdbFolderCohort(folder).records()["subject_id"].tolist() == ["Ann", "Ann", "Bob"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("bob,,1,40,M,x", "line 4: names no person"),
        ("bob,Bob,first,40,M,x", "line 4: has a session that is no whole number"),
        ("bob,Bob,0,40,M,x", "line 4: has a session that is no whole number"),
        ("bob,Bob,1.5,40,M,x", "line 4: has a session that is no whole number"),
        ("bob,Bob,1,old,M,x", "line 4: has an age that is no age"),
        ("bob,Bob,1,-4,M,x", "line 4: has an age that is no age"),
        ("bob,Bob,1,131,M,x", "line 4: has an age that is no age"),
        ("bob,Bob,1,inf,M,x", "line 4: has an age that is no age"),
        ("bob,Bob,1,40,X,x", "line 4: has a sex other than F or M"),
        ("bob,Bob,1,40,M,x\nbob,Rob,1,40,M,x", "line 4: lists its record twice"),
        ("", "does not list the record bob"),
    ],
)
def test_a_bad_row_costs_its_own_record_only(folder: Path, row: str, reason: str) -> None:
    (folder / "subjects.csv").write_text(HEAD + "".join(ROWS.splitlines(keepends=True)[:2]) + row + "\n")
    cohort = WfdbFolderCohort(folder)
    assert cohort.records()["record_id"].tolist() == ["ann/a1", "ann/a2"]
    assert cohort.failures()[["record_id", "file", "reason"]].values.tolist() == [["bob", "subjects.csv", reason]]
    with pytest.raises(RecordError) as caught:
        cohort.signal("bob")
    assert f"subjects.csv {reason}; " in str(caught.value)


def test_a_row_without_files_is_listed(folder: Path) -> None:
    (folder / "subjects.csv").write_text(HEAD + ROWS + "carl,Carl,1,20,M,x\n,Nobody,1,20,M,x\n")
    cohort = WfdbFolderCohort(folder)
    assert len(cohort.records()) == 3
    assert cohort.failures()[["record_id", "reason"]].values.tolist() == [
        ["carl", "names a record that is not in the folder"]
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        ("record,subject_id\nbob,Jos\xe9\n".encode("latin-1"), "not UTF-8"),
        (b"record;subject_id\nbob;Bob\n", "has no column record, subject_id"),
        (b"record\nbob\n", "has no column subject_id"),
        (b"record,subject_id\nbob,Bob\nann/a1,Ann,3\n", "line 3"),
        (b"record,subject_id\nbob,Bob,3\nann/a1,Ann,3\n", "malformed"),
        (b'record,subject_id\nbob,"Bob\n', "malformed"),
        (b"record,subject_id,fs\nbob,Bob,3\n", "a column fs, which the headers decide"),
    ],
)
def test_a_damaged_table_is_one_sentence(folder: Path, content: bytes, words: str) -> None:
    (folder / "subjects.csv").write_bytes(content)
    with pytest.raises(StudyError, match=words) as caught:
        WfdbFolderCohort(folder).records()
    assert "subjects.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bad_header_costs_its_own_record_only(folder: Path) -> None:
    (folder / "bob.hea").write_text("bob 1 500 400\n../../secret.dat 16 200\n")
    cohort = WfdbFolderCohort(folder)
    assert cohort.records()["record_id"].tolist() == ["ann/a1", "ann/a2"]
    assert cohort.failures()[["record_id", "file"]].values.tolist() == [["bob", "bob.hea"]]
    with pytest.raises(RecordError, match="outside its own folder"):
        cohort.signal("bob")


def test_a_bad_signal_file_is_found_when_it_is_read(folder: Path) -> None:
    (folder / "bob.dat").write_bytes(b"short")
    cohort = WfdbFolderCohort(folder)
    assert len(cohort.records()) == 3
    with pytest.raises(RecordError, match=r"bob\.dat is 795 bytes shorter"):
        cohort.signal("bob")
    assert cohort.signal("ann/a1").values.shape == (2, 300)


def test_segments_are_no_records_of_their_own(folder: Path) -> None:
    (folder / "ann" / "whole.hea").write_text("whole/2 2 250 600\na1 300\na2 300\n")
    assert WfdbFolderCohort(folder).records()["record_id"].tolist() == ["ann/whole", "bob"]


def test_droppings_of_file_managers_are_no_records(folder: Path) -> None:
    (folder / "._bob.hea").write_bytes(b"\x00\x05\x16\x07")
    assert WfdbFolderCohort(folder).failures().empty


def test_a_table_that_leads_out_of_the_folder_is_refused(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "s.csv"
    elsewhere.write_text(HEAD + ROWS)
    (folder / "subjects.csv").symlink_to(elsewhere)
    with pytest.raises(StudyError, match="leads outside"):
        WfdbFolderCohort(folder).records()


def test_a_folder_without_records_is_no_cohort(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match=r"holds no \*\*/\*\.hea"):
        WfdbFolderCohort(tmp_path)
