"""Bring your own: any folder of records, with and without a table of who is who."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from wfdb_trees import SUBJECTS, digital, own_tree

from ecgstudy.data.base import Cohort
from ecgstudy.data.wfdb_folder import WfdbFolderCohort
from ecgstudy.errors import RecordError, StudyError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write three records into two folders, without a table."""
    (own_tree(tmp_path) / "subjects.csv").unlink()
    return tmp_path


def test_without_a_table_every_record_is_its_own_person(folder: Path) -> None:
    table = WfdbFolderCohort(folder).records()
    assert table["record_id"].tolist() == ["ann/a1", "ann/a2", "bob"]
    assert table["subject_id"].tolist() == ["ann/a1", "ann/a2", "bob"]
    assert table["session"].tolist() == [1, 1, 1]
    assert table["leads"].tolist() == [("I", "II"), ("I", "II"), ("V2",)]
    assert table["unit"].tolist() == ["mV", "mV", "uV"]
    assert table["n_samples"].tolist() == [300, 300, 400]
    signal = WfdbFolderCohort(folder).signal("ann/a2")
    np.testing.assert_array_equal(signal.values, (digital(2, 300, 2) / 200).astype(np.float32))
    with pytest.raises(KeyError, match="no record a2"):
        WfdbFolderCohort(folder).signal("a2")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])  # the mark of a spreadsheet is no part of a column
def test_the_table_names_persons_sessions_and_labels(folder: Path, encoding: str) -> None:
    (folder / "subjects.csv").write_text(SUBJECTS, encoding=encoding)
    table = WfdbFolderCohort(folder).records()
    assert table["subject_id"].tolist() == ["Ann", "Ann", "Bob"]
    assert table["session"].tolist() == [1, 2, 1]
    np.testing.assert_array_equal(table["age"], [40, 41.5, np.nan])
    assert table["sex"].tolist() == ["F", "F", None]
    assert table["diagnosis"].tolist() == ["normal", "AF", ""]


def test_a_row_without_files_is_listed(folder: Path) -> None:
    (folder / "subjects.csv").write_text(SUBJECTS + "carl,Carl,1,20,M,x\n,Nobody,1,20,M,x\n")
    cohort = WfdbFolderCohort(folder)
    assert len(cohort.records()) == 3
    assert cohort.failures()[["record_id", "reason"]].values.tolist() == [
        ["carl", "names a record that is not in the folder"]
    ]


def test_a_bad_signal_file_is_found_when_it_is_read(tree: Callable[[str], Cohort]) -> None:
    (tree("wfdb-folder").root / "bob.dat").write_bytes(b"short")
    cohort = tree("wfdb-folder")
    assert len(cohort.records()) == 3
    with pytest.raises(RecordError, match=r"bob\.dat is 795 bytes shorter"):
        cohort.signal("bob")
    assert cohort.signal("ann/a1").values.shape == (2, 300)


def test_segments_and_droppings_of_file_managers_are_no_records(folder: Path) -> None:
    (folder / "ann" / "whole.hea").write_text("whole/2 2 250 600\na1 300\na2 300\n")
    (folder / "._bob.hea").write_bytes(b"\x00\x05\x16\x07")
    assert WfdbFolderCohort(folder).records()["record_id"].tolist() == ["ann/whole", "bob"]
    assert WfdbFolderCohort(folder).failures().empty


def test_a_table_that_leads_out_of_the_folder_is_refused(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "s.csv"
    elsewhere.write_text(SUBJECTS)
    (folder / "subjects.csv").symlink_to(elsewhere)
    with pytest.raises(StudyError, match="leads outside"):
        WfdbFolderCohort(folder).records()
