"""What is particular to ECG-ID, LUDB, MIT-BIH and motion: sessions, labels, units, marks."""

import re
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from wfdb_trees import digital

from ecgstudy.data.base import RECORD_COLUMNS, STANDARD_LEADS, Cohort
from ecgstudy.data.public import parse_boundaries
from ecgstudy.errors import RecordError, StudyError


def test_ecgid_a_session_is_a_date_and_no_date_leaves_the_loader(tree: Callable[[str], Cohort]) -> None:
    table = tree("ecgid").records()
    assert list(table.columns) == list(RECORD_COLUMNS)
    table = table.set_index("record_id")
    names = ["Person_01/rec_1", "Person_01/rec_2", "Person_01/rec_10", "Person_02/rec_1"]
    assert table["session"].to_dict() == dict(zip(names, [1, 1, 2, 1], strict=True))
    assert table["session_day"].tolist() == [0.0, 0.0, 10.0, 0.0]
    row = table.loc["Person_02/rec_1"]
    assert (row.subject_id, row.age, row.sex, row.fs) == ("Person_02", 31.0, "F", 500.0)
    assert (row.leads, row.n_samples, row.unit) == (("I",), 1000, "mV")
    signal = tree("ecgid").signal("Person_01/rec_2")
    np.testing.assert_array_equal(signal.values, (digital(2, 1000, 1)[:1] / 200).astype(np.float32))


@pytest.mark.realdata
def test_real_ecgid(realdata: Callable[[str], Cohort]) -> None:
    cohort = realdata("ecgid")
    table = cohort.records()
    persons = table.groupby("subject_id")
    assert (len(table), persons.ngroups, len(cohort.failures())) == (310, 90, 0)
    assert persons["sex"].first().value_counts().to_dict() == {"F": 46, "M": 44}
    assert (table["age"].min(), table["age"].max()) == (13, 75)
    assert persons["age"].first().mean() == pytest.approx(28.4, abs=0.05)
    assert (persons["session"].max() > 1).sum() == 20
    assert (table["session"] > 1).sum() == 83
    assert persons.size()["Person_74"] == 1
    assert persons["session_day"].max()[["Person_02", "Person_01", "Person_09"]].tolist() == [156, 140, 42]
    # First samples of the raw channel, by hand from the header (gain 200, initial value -17).
    assert cohort.signal("Person_01/rec_1").values[0, 0] == np.float32(-17 / 200)


def test_ludb_fields_are_stripped_and_split_into_phrases(tree: Callable[[str], Cohort]) -> None:
    first, second = (row for _, row in tree("ludb").records().iterrows())
    assert (first.subject_id, first.sex, first.age, first.session) == ("1", "F", 51.0, 1)
    assert (second.sex, second.age) == ("M", 90.0)  # ">89"
    assert first.rhythm == ("Sinus rhythm",)
    assert second.rhythm == ("Atrial fibrillation", "Aberrant conduction")
    assert first.hypertrophy == ("Left atrial hypertrophy", "Left ventricular hypertrophy")
    assert (first.axis, first.conduction) == (("normal",), ())


def test_ludb_leads_are_microvolts_whatever_gain_the_header_states(tree: Callable[[str], Cohort]) -> None:
    signal = tree("ludb").signal("2")
    assert (signal.leads, signal.unit) == (STANDARD_LEADS, "mV")
    np.testing.assert_array_equal(signal.values, (digital(12, 1000, 2) / 1000).astype(np.float32))
    header = tree("ludb").root / "data" / "2.hea"
    normalised = re.sub(r" 1000(\.0)?(\(0\))?/mV", " 500(7)/mV", header.read_text())
    assert normalised.count("500(7)/mV") == len(STANDARD_LEADS)
    header.write_text(normalised)
    np.testing.assert_array_equal(tree("ludb").signal("2").values, signal.values)


def test_ludb_boundaries_are_those_of_the_lead(tree: Callable[[str], Cohort]) -> None:
    cohort = tree("ludb")
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
    (cohort.root / "data" / "1.v6").unlink()
    with pytest.raises(RecordError, match=r"1\.v6 is missing"):
        cohort.boundaries("1", "V6")


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
def test_ludb_incomplete_marks_leave_nan(symbols: str, waves: list[tuple[str, float, float, float]]) -> None:
    table = parse_boundaries(list(symbols), np.arange(len(symbols)))
    expected = pd.DataFrame(waves, columns=["wave", "onset", "peak", "offset"])
    types = {"wave": object, "onset": float, "peak": float, "offset": float}
    pd.testing.assert_frame_equal(table, expected.astype(types))


@pytest.mark.realdata
def test_real_ludb(realdata: Callable[[str], Cohort]) -> None:
    cohort = realdata("ludb")
    table = cohort.records()
    assert (len(table), table["subject_id"].nunique(), len(cohort.failures())) == (200, 200, 0)
    assert table["leads"].map(lambda leads: leads == STANDARD_LEADS).all()
    assert table["sex"].value_counts().to_dict() == {"M": 115, "F": 85}
    # 11 to 90 years, says the publisher's README, with ">89" read as 90.
    assert (table["age"].min(), table["age"].max()) == (11, 90)
    rhythms = table["rhythm"].explode().value_counts()
    assert rhythms[["Atrial fibrillation", "Atrial flutter, typical"]].tolist() == [15, 3]
    assert cohort.boundaries("1", "I").iloc[0].tolist() == ["QRS", 641, 664, 690]
    spans = []
    for record_id in table["record_id"][::10]:
        one, two, three, avr, avl, avf = cohort.signal(record_id).values[:6]
        # integers in microvolts: the augmented leads are rounded halves
        np.testing.assert_allclose(two, one + three, atol=1e-6)
        np.testing.assert_allclose(avr, -(one + two) / 2, atol=6e-4)
        np.testing.assert_allclose(avl, (one - three) / 2, atol=6e-4)
        np.testing.assert_allclose(avf, (two + three) / 2, atol=6e-4)
        spans.append(np.ptp(two))
    assert 0.8 < np.median(spans) < 2.5
    waves = pd.concat(
        [cohort.boundaries(record, lead) for record in table["record_id"][::20] for lead in STANDARD_LEADS]
    )
    # All 200 records hold 21965 QRS, 19661 T and 16797 P, one QRS and five T fewer than the publisher's README counts.
    assert waves["wave"].value_counts().to_dict() == {"QRS": 1092, "T": 983, "P": 864}


def test_mitdb_persons_leads_and_labels(tree: Callable[[str], Cohort]) -> None:
    cohort = tree("mitdb")
    table = cohort.records().set_index("record_id")
    assert table["subject_id"].tolist() == ["102", "201", "201"]  # 201 and 202 are one person
    assert table["sex"].tolist() == ["F", "M", "M"]
    np.testing.assert_array_equal(table["age"], [84, 68, np.nan])  # -1 means unknown
    assert table["leads"].tolist() == [("V5", "V2"), ("MLII", "V1"), ("MLII", "V1")]
    assert table["paced"].tolist() == [True, False, False]
    assert table["rhythm"].tolist() == [("N", "AFIB")] * 3
    assert table["n_beats"].tolist() == [2, 2, 2]  # "~" and "+" are no beats
    signal = cohort.signal("201")
    assert (signal.fs, signal.unit) == (360.0, "mV")
    np.testing.assert_array_equal(signal.values, ((digital(2, 2000, 201) - 24) / 200).astype(np.float32))


def test_mitdb_without_annotations_the_signal_stays_and_the_labels_are_unknown(tree: Callable[[str], Cohort]) -> None:
    (tree("mitdb").root / "201.atr").unlink()
    cohort = tree("mitdb")
    row = cohort.records().set_index("record_id").loc["201"]
    assert (row.paced, row.rhythm) == (None, None)
    assert np.isnan(row.n_beats)
    assert cohort.signal("201").values.shape == (2, 2000)


@pytest.mark.realdata
def test_real_mitdb(realdata: Callable[[str], Cohort]) -> None:
    cohort = realdata("mitdb")
    table = cohort.records().set_index("record_id")
    assert (len(table), table["subject_id"].nunique(), len(cohort.failures())) == (48, 47, 0)
    # "25 men aged 32 to 89 years, and 22 women aged 23 to 89 years" (the publisher's page), 201 and 202 one man.
    assert table.groupby("subject_id")["sex"].first().value_counts().to_dict() == {"M": 25, "F": 22}
    assert table.groupby("sex")["age"].agg(["min", "max"]).values.tolist() == [[23, 89], [32, 89]]
    assert table.index[table["paced"]].tolist() == ["102", "104", "107", "217"]
    assert table.index[table["leads"].map(lambda leads: "MLII" not in leads)].tolist() == ["102", "104"]
    assert (table["n_samples"] == 650_000).all()
    # 109,494 beats in all, record 100 alone 2,273 (the publisher's tables).
    assert (table["n_beats"].sum(), table["n_beats"]["100"]) == (109_494, 2273)
    assert cohort.signal("100").values[:, 0].tolist() == pytest.approx([-0.145, -0.065], abs=1e-7)


def test_motion_labels_rate_and_counts(tree: Callable[[str], Cohort]) -> None:
    cohort = tree("motion")
    first, second = (row for _, row in cohort.records().iterrows())
    assert (first.subject_id, first.activity, first.electrode, first.fs) == ("s01", "rest", "AgAgCl", 497.449)
    assert (second.subject_id, second.activity, second.electrode, second.fs) == ("s10", "squats", "textile", 495.982)
    assert (first.n_gaps, first.gaps) == (0, ())
    assert (second.n_gaps, second.gaps) == (1, ((320, 9.222),))
    assert (first.session, first.sex, first.unit) == (1, None, "adc")
    assert np.isnan(first.age)
    signal = cohort.signal("s10_e03_squats")
    assert (signal.unit, signal.leads, signal.fs) == ("adc", ("ECG",), 495.982)  # counts are not called mV
    np.testing.assert_array_equal(signal.values, digital(1, 3000, 1).astype(np.float32))


def test_motion_artefact_degrees_are_read_by_segment(tree: Callable[[str], Cohort]) -> None:
    cohort = tree("motion")
    expected = {"start": [0, 1000, 2000], "end": [1000, 2000, 3000], "degree": [1, 2, 4]}
    pd.testing.assert_frame_equal(cohort.artefacts("s01_e01_rest"), pd.DataFrame(expected))
    path = cohort.root / "s01_e01_rest.labels.csv"
    for cell in ("much", ""):
        path.write_text(f"start,end,artifact\n0,1000,{cell}\n")
        with pytest.raises(StudyError, match="column artifact that is no number"):
            cohort.artefacts("s01_e01_rest")
    path.unlink()
    with pytest.raises(StudyError, match=r"labels\.csv is missing"):
        cohort.artefacts("s01_e01_rest")


@pytest.mark.realdata
def test_real_motion(realdata: Callable[[str], Cohort]) -> None:
    cohort = realdata("motion")
    table = cohort.records().set_index("record_id")
    counts = (len(table), *(table[column].nunique() for column in ("subject_id", "activity", "electrode")))
    assert counts == (150, 10, 5, 3)
    assert table["gaps"][table["n_gaps"] > 0].to_dict() == {
        "s05_e02_run_8kmh": ((25216, 0.056),),
        "s06_e01_walk_4kmh": ((706, 22.517),),
        "s10_e01_rest": ((320, 9.222),),
        "s10_e03_squats": ((30384, 5.92),),
    }
    assert table["fs"].between(495.9, 499.3).all()
    index = pd.read_csv(cohort.root / "index.csv", index_col="record").loc[table.index]
    for ours, theirs in (("fs", "fs"), ("n_samples", "n"), ("activity", "activity"), ("electrode", "electrode")):
        assert (table[ours] == index[theirs]).all()
    means = [cohort.artefacts(record)["degree"].mean() for record in table.index]
    np.testing.assert_allclose(means, index["art_mean"], rtol=1e-12)
