"""LUDB: twelve leads by their standard names, labels without stray newlines, wave boundaries."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from wfdb_trees import digital, ludb_tree

from ecgstudy.data.base import Cohort
from ecgstudy.data.ludb import LudbCohort, parse_boundaries
from ecgstudy.data.wfdb_files import STANDARD_LEADS
from ecgstudy.errors import RecordError, StudyError


@pytest.fixture
def cohort(tmp_path: Path) -> LudbCohort:
    """Write a small LUDB and open it."""
    return LudbCohort(ludb_tree(tmp_path))


def test_fields_are_stripped_and_split_into_phrases(cohort: LudbCohort) -> None:
    first, second = (row for _, row in cohort.records().iterrows())
    assert (first.subject_id, first.sex, first.age, first.session) == ("1", "F", 51.0, 1)
    assert (second.sex, second.age) == ("M", 90.0)  # ">89"
    assert first.rhythm == ("Sinus rhythm",)
    assert second.rhythm == ("Atrial fibrillation", "Aberrant conduction")
    assert first.hypertrophy == ("Left atrial hypertrophy", "Left ventricular hypertrophy")
    assert (first.axis, first.conduction) == (("normal",), ())


def test_leads_have_their_standard_names_and_mv(cohort: LudbCohort) -> None:
    signal = cohort.signal("2")
    assert (signal.leads, signal.unit) == (STANDARD_LEADS, "mV")
    np.testing.assert_array_equal(signal.values, (digital(12, 1000, 2) / 1000).astype(np.float32))


def test_boundaries_are_those_of_the_lead(cohort: LudbCohort) -> None:
    expected = pd.DataFrame(
        [("QRS", 100, 200, 300), ("QRS", np.nan, 400, 500), ("T", np.nan, 600, np.nan)],
        columns=["wave", "onset", "peak", "offset"],
    ).astype({"onset": float, "peak": float})
    pd.testing.assert_frame_equal(cohort.boundaries("1", "I"), expected)
    assert cohort.boundaries("1", "aVR")["wave"].tolist() == ["P"]
    with pytest.raises(KeyError, match="no lead X"):
        cohort.boundaries("1", "X")
    with pytest.raises(KeyError, match="no record 3"):
        cohort.boundaries("3", "I")


@pytest.mark.parametrize(
    ("symbols", "waves"),
    [
        ("(p)(N)(t)", [("P", 0, 1, 2), ("QRS", 3, 4, 5), ("T", 6, 7, 8)]),
        ("N)(t)", [("QRS", np.nan, 0, 1), ("T", 2, 3, 4)]),
        ("(N(t)", [("QRS", 0, 1, np.nan), ("T", 2, 3, 4)]),
        ("N(t)", [("QRS", np.nan, 0, np.nan), ("T", 1, 2, 3)]),
        ("N()(t)", [("QRS", 1, 0, 2), ("T", 3, 4, 5)]),  # a peak marked before its onset, as in record 7, lead V3
        ("()(p)", [("P", 2, 3, 4)]),
        ("(x)p", [("P", np.nan, 3, np.nan)]),
        ("", []),
    ],
)
def test_incomplete_marks_leave_nan(symbols: str, waves: list[tuple[str, float, float, float]]) -> None:
    table = parse_boundaries(list(symbols), np.arange(len(symbols)))
    expected = pd.DataFrame(waves, columns=["wave", "onset", "peak", "offset"])
    for column in ("onset", "peak", "offset"):
        np.testing.assert_array_equal(table[column], expected[column].astype(float))
    assert table["wave"].tolist() == expected["wave"].tolist()


def test_a_missing_annotation_file_is_named(cohort: LudbCohort) -> None:
    (cohort.root / "data" / "1.v6").unlink()
    with pytest.raises(RecordError, match=r"1\.v6 is missing"):
        cohort.boundaries("1", "V6")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"", "is empty"),
        (b"ID,Sex\n1,F\n", "has no column Age"),
        (b"ID,Sex,Age\n1,F,51,x,y\n", "malformed"),
    ],
)
def test_a_damaged_table_is_one_sentence(cohort: LudbCohort, content: bytes, words: str) -> None:
    (cohort.root / "ludb.csv").write_bytes(content)
    with pytest.raises(StudyError, match=words) as caught:
        LudbCohort(cohort.root).records()
    assert "ludb.csv" in str(caught.value)


def test_a_record_without_a_row_fails_alone(cohort: LudbCohort) -> None:
    path = cohort.root / "ludb.csv"
    path.write_text(path.read_text().replace('\n2,"M', '\n3,"M'))
    again = LudbCohort(cohort.root)
    assert again.records()["record_id"].tolist() == ["1"]
    assert again.failures()[["record_id", "file"]].values.tolist() == [["2", "ludb.csv"]]


@pytest.mark.realdata
def test_real_records(realdata: Callable[[str], Cohort]) -> None:
    cohort = realdata("ludb")
    table = cohort.records()
    assert (len(table), table["subject_id"].nunique(), len(cohort.failures())) == (200, 200, 0)
    assert table["leads"].map(lambda leads: leads == STANDARD_LEADS).all()
    assert table["sex"].value_counts().to_dict() == {"M": 115, "F": 85}
    # 11 to 90 years, says the publisher's README, with ">89" read as 90.
    assert (table["age"].min(), table["age"].max()) == (11, 90)
    assert table["rhythm"].map(lambda phrases: "Atrial fibrillation" in phrases).sum() == 15
    assert table["rhythm"].map(lambda phrases: "Atrial flutter, typical" in phrases).sum() == 3


@pytest.mark.slow
@pytest.mark.realdata
def test_real_boundaries(realdata: Callable[[str], Cohort]) -> None:
    cohort = realdata("ludb")
    first = cohort.boundaries("1", "I").iloc[0]
    assert first.tolist() == ["QRS", 641, 664, 690]
    waves = [cohort.boundaries(record, lead) for record in cohort.records()["record_id"] for lead in STANDARD_LEADS]
    # The publisher's README counts 21966 QRS, 19666 T and 16797 P; the files hold one QRS and five T fewer.
    assert pd.concat(waves)["wave"].value_counts().to_dict() == {"QRS": 21965, "T": 19661, "P": 16797}


@pytest.mark.realdata
def test_real_leads_share_one_unit_and_have_ordinary_amplitudes(realdata: Callable[[str], Cohort]) -> None:
    cohort = realdata("ludb")
    spans = []
    for record_id in cohort.records()["record_id"][::10]:
        one, two, three, avr, avl, avf = cohort.signal(record_id).values[:6]
        # integers in microvolts: the augmented leads are rounded halves
        np.testing.assert_allclose(two, one + three, atol=1e-6)
        np.testing.assert_allclose(avr, -(one + two) / 2, atol=6e-4)
        np.testing.assert_allclose(avl, (one - three) / 2, atol=6e-4)
        np.testing.assert_allclose(avf, (two + three) / 2, atol=6e-4)
        spans.append(np.ptp(two))
    assert 0.8 < np.median(spans) < 2.5


def test_a_gain_that_only_normalises_a_lead_is_undone(cohort: LudbCohort) -> None:
    header = cohort.root / "data" / "2.hea"
    before = cohort.signal("2").values
    normalised = re.sub(r" 1000(\.0)?(\(0\))?/mV", " 500(7)/mV", header.read_text())
    assert normalised.count("500(7)/mV") == len(STANDARD_LEADS)
    header.write_text(normalised)
    np.testing.assert_array_equal(LudbCohort(cohort.root).signal("2").values, before)
