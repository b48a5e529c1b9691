"""Files and folders are whole or absent, whatever happens while they are written."""

import errno
from pathlib import Path

import pytest

from ecgstudy.errors import StudyError
from ecgstudy.study.atomic import new_file, new_folder, write_text


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "metrics.json"
    write_text(target, "old")
    with pytest.raises(RuntimeError), new_file(target) as partial:
        partial.write_text("half")
        raise RuntimeError("killed")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_failed_folder_is_absent_and_a_good_one_replaces_the_old(tmp_path: Path) -> None:
    target = tmp_path / "store"
    with pytest.raises(RuntimeError), new_folder(target) as partial:
        (partial / "a").write_text("half")
        raise RuntimeError("killed")
    assert list(tmp_path.iterdir()) == []
    for text in ("first", "second"):
        with new_folder(target) as partial:
            (partial / "a").write_text(text)
    assert (target / "a").read_text() == "second"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_one_sentence_that_names_the_file(tmp_path: Path) -> None:
    sentence = f"No space is left on the disk that holds {tmp_path}; free some"
    with pytest.raises(StudyError, match=sentence), new_file(tmp_path / "store"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []
