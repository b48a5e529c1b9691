"""PTB Diagnostic and MIT-BIH Normal Sinus Rhythm: sessions, leads of two files, labels, what is read of a day."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from planted_flaws import COHORTS
from wfdb_trees import PTB_RECORDS, digital, nsrdb_tree

from ecgstudy.data import nsrdb
from ecgstudy.data.base import RECORD_COLUMNS, STANDARD_LEADS, Cohort
from ecgstudy.errors import RecordError
from ecgstudy.experiment.jobs import LONG_RECORD_S, Context
from ecgstudy.reidentification.plan import protocols_of
from ecgstudy.signals.ingest import build_store

FIRST, LATER, UNDATED = "patient001/s0010_re", "patient001/s0016lre", "patient105/s0303lre"


def test_ptb_a_session_is_a_date_day_first_and_no_date_leaves_the_loader(tree: Callable[[str], Cohort]) -> None:
    table = tree("ptb").records()
    assert list(table.columns) == [*RECORD_COLUMNS, "diagnosis"]
    assert table["record_id"].tolist() == list(PTB_RECORDS)
    assert table["subject_id"].tolist() == ["patient001"] * 3 + ["patient105"]
    assert table["session"].tolist() == [1, 1, 2, 1]  # undated: nobody takes it for a later day
    # from 1 to 17 October; with the month first 1990-01-10 would be there and no 17th month
    np.testing.assert_array_equal(table["session_day"], [0, 0, 16, np.nan])
    assert not any("1990" in str(cell) or "-90" in str(cell) for cell in table.to_numpy().ravel())


def test_ptb_labels_are_those_of_the_comments(tree: Callable[[str], Cohort]) -> None:
    table = tree("ptb").records().set_index("record_id")
    assert table.loc[FIRST, ["age", "sex", "diagnosis"]].tolist() == [81.0, "F", "Myocardial infarction"]
    assert (table["sex"][UNDATED], table["diagnosis"][UNDATED]) == ("M", None)
    assert np.isnan(table["age"][UNDATED])


def test_ptb_standard_leads_have_the_fields_names_and_come_from_both_files(tree: Callable[[str], Cohort]) -> None:
    cohort = tree("ptb")
    signal = cohort.signal(LATER)
    assert signal.leads == (*STANDARD_LEADS, "vx", "vy", "vz")
    assert (signal.fs, signal.unit) == (1000.0, "mV")
    np.testing.assert_array_equal(signal.values, (digital(15, 2000, 2) / 2000).astype(np.float32))


@pytest.mark.parametrize("suffix", [".dat", ".xyz"])
@pytest.mark.parametrize("cut", [None, 2])
def test_ptb_a_missing_or_short_signal_file_is_its_records_reason(
    tree: Callable[[str], Cohort], suffix: str, cut: int | None
) -> None:
    path = (tree("ptb").root / FIRST).with_suffix(suffix)
    path.unlink() if cut is None else path.write_bytes(path.read_bytes()[:-cut])
    cohort = tree("ptb")
    assert len(cohort.records()) == len(PTB_RECORDS)
    reason = "is missing" if cut is None else "is shorter than its header says"
    with pytest.raises(RecordError, match=rf"s0010_re\{suffix} {reason}"):
        cohort.signal(FIRST)
    assert cohort.signal(LATER).values.shape == (15, 2000)


def test_ptb_of_undated_records_alone_has_one_session(tree: Callable[[str], Cohort]) -> None:
    (tree("ptb").root / "RECORDS").write_text(f"{UNDATED}\n")
    (row,) = tree("ptb").records().itertuples()
    assert (row.session, row.n_samples) == (1, 2000)
    assert np.isnan(row.session_day)


def test_ptb_is_asked_about_later_days_and_nsrdb_about_later_minutes(tmp_path: Path) -> None:
    store = build_store(COHORTS["ptb"](tmp_path / "ptb"), tmp_path, delineate=False, workers=1)
    names = [protocol.name for protocol in protocols_of("ptb", Context("real", {"ptb": store}, "cpu", {}))]
    assert {"cross_record", "cross_day", "leave_last_day", "subject_disjoint_cross_day"} <= set(names)
    assert 60 * nsrdb.READ_MINUTES > LONG_RECORD_S  # what makes a cohort one of long records


@pytest.mark.realdata
def test_real_ptb(realdata: Callable[[str], Cohort]) -> None:
    cohort = realdata("ptb")
    table = cohort.records()
    persons = table.groupby("subject_id")
    assert (len(table), persons.ngroups, len(cohort.failures())) == (549, 290, 0)
    # the publisher's page: 17 to 87 years; ECGBench's card: 391 records of men, one without a sex
    assert (table["sex"].eq("M").sum(), table["sex"].isna().sum()) == (391, 1)
    assert (table["age"].min(), table["age"].max()) == (17, 87)
    assert (persons.size() > 1).sum() == 113
    assert table["diagnosis"].isna().sum() == 27
    assert table["diagnosis"].value_counts()["Healthy control"] == 80
    assert table["n_samples"].between(32_000, 120_012).all()
    values = cohort.signal(FIRST).values
    # first samples of leads i and ii by the header: -489 and -458 at 2,000 a mV
    np.testing.assert_array_equal(values[:2, 0], np.float32([-489 / 2000, -458 / 2000]))
    np.testing.assert_allclose(values[1], values[0] + values[2], atol=2e-3)


def test_nsrdb_persons_and_amplitudes_that_nobody_calibrated(tree: Callable[[str], Cohort]) -> None:
    cohort = tree("nsrdb")
    table = cohort.records().set_index("record_id")
    assert table["subject_id"].tolist() == ["16265", "19088"]
    assert table["age"].tolist() == [32.0, 41.0]
    assert table["sex"].tolist() == ["M", "F"]
    assert table["n_beats"].tolist() == [3, 3]  # "~" and "|" are no beats
    assert set(table["leads"]) == {("ECG1", "ECG2")}
    signal = cohort.signal("16265")
    assert (signal.fs, signal.unit) == (128.0, "uncalibrated")
    np.testing.assert_array_equal(signal.values, (digital(2, 2000, 16265) / 200).astype(np.float32))


def test_nsrdb_the_beginning_of_a_day_is_read_and_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nsrdb, "READ_MINUTES", 0.1)
    cohort = nsrdb.NsrdbCohort(nsrdb_tree(tmp_path))
    table = cohort.records().set_index("record_id")
    assert table.loc["19088", ["n_samples", "n_beats"]].tolist() == [768, 2]  # 6 s at 128 Hz; the third is at 1900
    np.testing.assert_array_equal(
        cohort.signal("19088").values, (digital(2, 2000, 19088)[:, :768] / 200).astype(np.float32)
    )
    assert cohort.notes() == ["Of each record, which lasts about a day, the first 0.1 minutes are read."]


def test_nsrdb_without_annotations_or_comment_the_signal_stays(tree: Callable[[str], Cohort]) -> None:
    root = tree("nsrdb").root
    (root / "16265.atr").unlink()
    (root / "19088.hea").write_text((root / "19088.hea").read_text().replace("# 41 F", ""))
    cohort = tree("nsrdb")
    table = cohort.records().set_index("record_id")
    assert np.isnan(table["n_beats"]["16265"])
    assert (np.isnan(table["age"]["19088"]), table["sex"]["19088"]) == (True, None)
    assert cohort.signal("16265").values.shape == (2, 2000)


@pytest.mark.realdata
def test_real_nsrdb(realdata: Callable[[str], Cohort]) -> None:
    cohort = realdata("nsrdb")
    table = cohort.records()
    assert (len(table), len(cohort.failures())) == (18, 0)
    # "5 men, aged 26 to 45, and 13 women, aged 20 to 50" (the publisher's page)
    assert table.groupby("sex")["age"].agg(["min", "max"]).values.tolist() == [[20, 50], [26, 45]]
    assert table["sex"].value_counts().to_dict() == {"F": 13, "M": 5}
    assert set(table["unit"]) == {"uncalibrated"}
    assert (table["n_samples"] == 30 * 60 * 128).all()
    assert table["n_beats"].between(30 * 40, 30 * 130).all()
    assert cohort.signal("16265").values[:, 0].tolist() == pytest.approx([-33 / 200, -65 / 200])
