"""``subjects.csv`` as people write it: what is understood, and one sentence with line and column for every mistake."""

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ecgstudy.data.base import as_tables
from ecgstudy.data.subjects import Subjects, contradictions, facts_of_comments, read_subjects
from ecgstudy.data.tables import age_of, sex_of, stated
from ecgstudy.errors import StudyError


def read(folder: Path, content: str | bytes) -> Subjects:
    """Read a table of this content."""
    path = folder / "subjects.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_subjects(path)


PLAIN = "record,subject_id,session,age,sex\na,Ann,1,40,F\nb,Bob,2,41.5,M\n"


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        PLAIN.replace(",", ";"),
        "sep=;\r\n" + PLAIN.replace(",", ";").replace("\n", "\r\n"),
        PLAIN.replace(",", ";").replace("41.5", "41,5"),
        PLAIN.replace(",", "\t").encode("utf-16"),
        b"\xef\xbb\xbf" + PLAIN.encode(),
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace(",", ", "),
        PLAIN.replace("record", "Record").replace("subject_id", "Subject ID").replace("age", " AGE "),
        "# exported by hand\r" + PLAIN.replace("\n", "\r"),
        '# exported "by hand", "so\n\n' + PLAIN.replace("\nb", "\n# half of them\n\nb"),
        PLAIN.replace(",1,", ",1.0,").replace(",2,", ", 02 ,"),
        PLAIN.replace("\na,", "\n.\\a.hea,").replace("\nb,", "\n./b.dat,"),
        PLAIN.replace(",F", ",female").replace(",M", ",Man").replace(",40,", ",40 years,"),
        PLAIN.replace("sex\n", "sex,sha256,Dr. Who,\n").replace(",F", ',F,"x, y",z,').replace(",M", ",M,,,,,"),
    ],
)
def test_what_people_write_is_understood(tmp_path: Path, content: str | bytes) -> None:
    found = read(tmp_path, content)
    assert not found.problems
    assert found.rows.index.tolist() == ["a", "b"]
    assert found.rows["subject_id"].tolist() == ["Ann", "Bob"]
    assert found.rows["session"].tolist() == [1, 2]
    assert found.rows["age"].tolist() == [40, 41.5]
    assert found.rows["sex"].tolist() == ["F", "M"]


@pytest.mark.parametrize(
    ("dates", "session", "days"),
    [
        (["2024-03-31", "2024-03-01", "2024-03-31"], [2, 1, 2], [30, 0, 30]),
        (["31.3.2024", "01.03.2024", ""], [2, 1, 1], [30, 0, np.nan]),
        (["3/31/2024", "3/1/2024", "03/31/2024"], [2, 1, 2], [30, 0, 30]),
        (["31/3/2024", "1/3/2024", "2024-03-31T10:00"], [2, 1, 2], [30, 0, 30]),
        (["31-03-2024", "1-3-2024", "31-3-2024 08:00"], [2, 1, 2], [30, 0, 30]),
        (["20240331", "20240301", "2024/3/31 10:00"], [2, 1, 2], [30, 0, 30]),
        (["31-Mar-2024", "1 March 2024", '"Mar. 31, 2024"'], [2, 1, 2], [30, 0, 30]),
        (["31MAR2024", "01/mar/2024", "31. March 2024 10:00"], [2, 1, 2], [30, 0, 30]),
    ],
)
def test_dates_become_sessions_and_days_between(
    tmp_path: Path, dates: list[str], session: list[int], days: list[float]
) -> None:
    rows = "".join(f"{name},Ann,{date}\n" for name, date in zip("abc", dates, strict=True))
    found = read(tmp_path, "record,subject_id,session\n" + rows)
    assert not found.problems
    facts = {"record_id": found.rows.index, "fs": 1.0, "leads": "I", "n_samples": 1, "unit": "mV"}
    table = as_tables(found.rows.assign(**facts), [])[0]
    assert table["session"].tolist() == session
    np.testing.assert_array_equal(table["session_day"], days)


@pytest.mark.parametrize(
    ("row", "sentence", "cell"),
    [
        ("b,,1,4,M", "line 3, column subject_id: names no person", ""),
        ("b,unknown,1,4,M", "line 3, column subject_id: names no person", "unknown"),
        ("b,N/A,1,4,M", "line 3, column subject_id: names no person", "N/A"),
        ("b,4.71108E+11,1,4,M", "line 3, column subject_id: is a number that a spreadsheet has rounded", "4.71108E+11"),
        ('b,"4,71108e+11",1,4,M', "line 3, column subject_id: is a number that a spreadsheet", "4,71108e+11"),
        ("b,Bob,first,4,M", "line 3, column session: is neither a whole number from 1 nor a date", "first"),
        ("b,Bob,0,4,M", "line 3, column session: is neither", "0"),
        ("b,Bob,1.5,4,M", "line 3, column session: is neither", "1.5"),
        ("b,Bob,30.02.2024,4,M\nc,Bob,1.3.2024,4,M", "line 3, column session: is no day of the calendar", "30.02.2024"),
        ("b,Bob,3/4/2024,4,M\nc,Bob,5/4/2024,4,M", "line 3, column session: is no day of the calendar, or", "3/4/2024"),
        ("c,Bob,2024-01-01,4,M\nb,Bob,2,4,M", "line 4, column session: is a number where other rows have a date", "2"),
        ("b,Bob,30-Feb-2024,4,M\nc,Bob,1.3.2024,4,M", "line 3, column session: is no day of the", "30-Feb-2024"),
        ("b,Bob,3 März 2024,4,M\nc,Bob,1.3.2024,4,M", "line 3, column session: is neither", "3 März 2024"),
        ("b,Bob,1,old,M", "line 3, column age: is no age", "old"),
        ("b,Bob,1,-4,M", "line 3, column age: is no age", "-4"),
        ("b,Bob,1,131,M", "line 3, column age: is no age", "131"),
        ("b,Bob,1,inf,M", "line 3, column age: is no age", "inf"),
        ("b,Bob,1,<1,M", "line 3, column age: is no age", "<1"),
        ("b,Bob,1,40,Smith", "line 3, column sex: is no sex that the study knows", "Smith"),
        ("b,Bob,1,40,M\n\nb,Rob,1,40,M", "line 3, column record: lists its record twice", "b"),
        ("b,Bob,1,40,M,Smith", "line 3, column 6: has more cells than the first line names", "Smith"),
    ],
)
def test_a_bad_row_costs_its_own_record_and_is_one_sentence(tmp_path: Path, row: str, sentence: str, cell: str) -> None:
    found = read(tmp_path, f"record,subject_id,session,age,sex\na,Ann,,40,F\n{row}\n")
    assert "a" in found.rows.index or "session" in sentence
    assert "b" not in found.rows.index
    assert found.problems["b"].reason.startswith(sentence)
    assert (
        cell not in found.problems["b"].reason.replace(sentence, "") or cell in "0b24"
    )  # tables show the reason alone
    assert cell in str(found.problems["b"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        ("# nothing\n\n", "is empty"),
        (b"record,subject_id\nbob,Jos\x81\n", "line 2: is not UTF-8"),
        ("record\nbob\n", "line 1: there is no column subject_id"),
        ("# note\nwho,what\nbob,1\n", "line 2: there is no column record and subject_id"),
        ('record,subject_id\nbob,Bob\nann,"Ann\n', "line 3: cannot be split"),
        ("record,subject_id,RECORD\nbob,Bob,x\n", "line 1: two columns are called record"),
    ],
)
def test_a_table_that_cannot_be_read_is_one_sentence(tmp_path: Path, content: str | bytes, words: str) -> None:
    with pytest.raises(StudyError, match=words) as caught:
        read(tmp_path, content)
    assert "subjects.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_table_beyond_all_measure_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="has more than 1,000,000 lines; keep one line a record"):
        read(tmp_path, "record,subject_id\n" + "\n" * 1_000_000)
    with pytest.raises(StudyError, match="has a line of more than 1,000 cells; keep"):
        read(tmp_path, "record,subject_id\nb,Bob" + "," * 1000)


def test_a_table_of_a_german_spreadsheet_is_read_and_said_to_be_of_windows(tmp_path: Path) -> None:
    found = read(tmp_path, "record;subject_id;sex\nbob;Jörg Müller;w\n".encode("cp1252"))
    assert found.rows["subject_id"].tolist() == ["Jörg Müller"]
    assert found.rows["sex"].tolist() == ["F"]
    (note,) = found.notes
    assert note.startswith("subjects.csv is not UTF-8 and was read as Windows text (cp1252)")


def test_other_sexes_count_as_not_stated_and_are_told(tmp_path: Path) -> None:
    found = read(tmp_path, "record,subject_id,sex\na,Ann,divers\nb,Bob,X\nc,Cy,Other\nd,Di,F\ne,Eve,\n")
    assert not found.problems
    assert found.rows["sex"].tolist() == [None, None, None, "F", None]
    assert found.notes == ("Rows of subjects.csv with another sex than F or M, which count as not stated: 3.",)


def test_ages_and_sexes_of_cells_and_comments() -> None:
    assert [age_of(text) for text in ("0", "54.5", "89", ">89", "89+", "97", "54 y")] == [0, 54.5, 89, 90, 90, 90, 54]
    assert all(np.isnan(age_of(text)) for text in ("", "?", "NaN", "unknown", "N/A", "-1", "<1", "131", "inf"))
    assert [stated(text) for text in ("", " ? ", "N/A", "-1", "old")] == [False, False, False, True, True]
    assert [sex_of(text) for text in ("f", "Female", "M", "male", "W", "Smith")] == ["F", "F", "M", "M", "F", None]
    said = facts_of_comments(["Age: 63", "Gender: Female", " Dx : 426783006,1", "Rx: Unknown", "Storage: 5"])
    assert said == {"age": "63", "sex": "Female", "dx": "426783006,1"}


def test_long_cells_take_no_time() -> None:
    started = time.process_time()
    assert np.isnan(age_of("63" + " " * 60_000 + "q"))
    assert age_of("63" + " " * 60_000 + "years") == 63
    rows = pd.DataFrame({"record_id": ["a", "b"], "subject_id": ["0" * 60_000 + "x", "0" * 60_000], "age": [1.0, 1.0]})
    assert not contradictions(rows.assign(sex=None))
    assert time.process_time() - started < 2


def test_one_person_of_two_sexes_ages_or_spellings_is_named() -> None:
    persons = ["Ann", "Ann", "bob", "Bob", "Cy", "Cy", "Di", "Di", "Eve", "Eve", "0042", "42.0", "0", "10"]
    rows = pd.DataFrame({"record_id": list("abcdefghijklmn"), "subject_id": persons})
    rows["date"] = pd.to_datetime([None] * 6 + ["2010-01-01", "2020-01-01", *[None] * 6])
    rows["age"] = [20, 80, 1, 1, 30, 30, 40, 50, 40, 50, 1, 1, 1, 1]
    rows["sex"] = ["F", "F", None, None, "F", "M", None, None, "F", *[None] * 5]
    found = contradictions(rows)
    assert {record: reason.split(" ", 5)[5][:14] for record, (reason, _) in found.items()} == {
        **dict.fromkeys("ab", "ages are too f"),
        **dict.fromkeys("cdkl", "id differs fro"),
        **dict.fromkeys("ef", "is female in o"),
    }
