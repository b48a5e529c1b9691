"""PTB-XL: both layouts' columns, labels by the publisher's table, folds, sessions, damaged rows."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from wfdb_trees import PTBXL_ROWS, digital, ptbxl_tree

from ecgstudy.data.base import STANDARD_LEADS, Cohort
from ecgstudy.data.ptbxl import PtbxlCohort
from ecgstudy.errors import DataNotFoundError, RecordError


def test_persons_sessions_age_and_sex_and_labels_by_the_publishers_table(tmp_path: Path) -> None:
    table = PtbxlCohort(ptbxl_tree(tmp_path)).records()
    assert table["subject_id"].tolist() == ["7", "7", "8"]
    assert table["session"].tolist() == [1, 2, 1]
    assert table["session_day"].tolist() == [0.0, 20.0, 0.0]
    assert table["age"].tolist() == [55.0, 89.0, 90.0]  # 300 stands for over 89
    assert table["sex"].tolist() == ["M", "M", "F"]
    assert table["record_id"].tolist() == ["00001", "00002", "01003"]
    assert table["statements"].tolist() == [("NORM", "SR"), ("IMI", "ASMI", "AFIB"), ("PVC", "NDT")]
    assert table["likelihoods"].tolist() == [(100.0, 0.0), (80.0, 15.0, 0.0), (100.0, 100.0)]
    assert table["superclasses"].tolist() == [("NORM",), ("MI",), ("STTC",)]
    assert table["subclasses"].tolist() == [("NORM",), ("IMI", "AMI"), ("STTC",)]
    assert table["diagnostic"].tolist() == [("NORM",), ("IMI", "ASMI"), ("NDT",)]
    assert table["form"].tolist() == [(), (), ("PVC", "NDT")]
    assert table["rhythm"].tolist() == [("SR",), ("AFIB",), ()]
    assert table["strat_fold"].tolist() == [2, 3, 4]


def test_labels_change_with_the_publishers_table(tmp_path: Path) -> None:
    root = ptbxl_tree(tmp_path)
    path = root / "scp_statements.csv"
    path.write_text(path.read_text().replace("MI,IMI", "HEART,LOWER"))
    table = PtbxlCohort(root).records()
    assert table["superclasses"].tolist()[1] == ("HEART", "MI")
    assert table["subclasses"].tolist()[1] == ("LOWER", "AMI")


def test_undated_records_are_all_of_session_1(tmp_path: Path) -> None:
    rows = [{key: value for key, value in row.items() if key != "recording_date"} for row in PTBXL_ROWS]
    table = PtbxlCohort(ptbxl_tree(tmp_path, rows)).records()
    assert table["session"].tolist() == [1, 1, 1]
    assert table["session_day"].isna().all()


def test_the_subsets_columns_are_read_too(tmp_path: Path) -> None:
    row = {key: PTBXL_ROWS[0][key] for key in ("ecg_id", "patient_id", "age", "sex", "scp_codes", "strat_fold")}
    row |= {"filename_lr": PTBXL_ROWS[0]["filename_lr"], "relscale_II": 1.0, "relscale_AVR": 0.82}
    cohort = PtbxlCohort(ptbxl_tree(tmp_path, [row], unit="zscore"))
    only = cohort.records().iloc[0]
    assert (only.unit, only.relscale_II, only.relscale_aVR) == ("zscore", 1.0, 0.82)
    assert cohort.signal("00001").unit == "zscore"


@pytest.mark.parametrize("resolution", [100, 500])
def test_the_resolution_that_is_there_is_read(tmp_path: Path, resolution: int) -> None:
    cohort = PtbxlCohort(ptbxl_tree(tmp_path, resolution=resolution))
    row = cohort.records().iloc[2]
    assert (cohort.resolution, row.fs, row.n_samples, row.leads) == (
        resolution,
        float(resolution),
        10 * resolution,
        STANDARD_LEADS,
    )
    signal = cohort.signal("01003")
    assert (signal.leads, signal.fs, signal.unit) == (STANDARD_LEADS, float(resolution), "mV")
    np.testing.assert_array_equal(signal.values, (digital(12, 10 * resolution, 1003) / 1000).astype(np.float32))


def test_100_hz_are_read_where_both_are_there(tmp_path: Path) -> None:
    ptbxl_tree(tmp_path, resolution=500)
    ptbxl_tree(tmp_path, resolution=100)
    assert PtbxlCohort(tmp_path).signal("00001").fs == 100


def test_no_files_at_all_is_said_at_once(tmp_path: Path) -> None:
    root = ptbxl_tree(tmp_path)
    (root / "records100").rename(root / "elsewhere")
    with pytest.raises(DataNotFoundError, match=r"lists 3 records, but none of their files is there.*fetch ptbxl"):
        PtbxlCohort(root).records()


def test_missing_statements_are_said_at_once(tmp_path: Path) -> None:
    root = ptbxl_tree(tmp_path)
    (root / "scp_statements.csv").unlink()
    with pytest.raises(DataNotFoundError, match=r"scp_statements\.csv is missing"):
        PtbxlCohort(root).records()


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("/zscore", "/mV", "unit"),
        (" 12 100 1000", " 12 200 1000", "rate"),
        (" 12 100 1000", " 12 100 500", "length"),
        (" V1", " V7", "leads"),
    ],
)
def test_a_header_that_breaks_the_layout_is_refused_when_read(tmp_path: Path, old: str, new: str, what: str) -> None:
    root = ptbxl_tree(tmp_path, unit="zscore")
    path = root / "records100/00000/00002_lr.hea"
    path.write_text(path.read_text().replace(old, new))
    cohort = PtbxlCohort(root)
    assert set(cohort.records()["unit"]) == {"zscore"}
    with pytest.raises(RecordError, match=f"another {what} than"):
        cohort.signal("00002")
    assert cohort.signal("00001").unit == "zscore"


@pytest.mark.realdata
def test_real_subset(realdata: Callable[[str], Cohort]) -> None:
    cohort = realdata("ptbxl")
    table = cohort.records()
    if len(table) > 2000:
        pytest.skip("facts of the subset; the whole set is there")
    assert (len(table), table["subject_id"].nunique(), len(cohort.failures())) == (1818, 1795, 0)
    assert table["unit"].unique().tolist() == ["zscore"]
    folds = table["strat_fold"].value_counts().sort_index().tolist()
    assert folds == [169, 188, 179, 187, 185, 188, 185, 160, 183, 194]
    assert table.groupby("subject_id")["strat_fold"].nunique().max() == 1
    counts = table["superclasses"].explode().value_counts().to_dict()
    assert counts == {"NORM": 964, "STTC": 526, "CD": 462, "MI": 262, "HYP": 192}
    rhythms = table["rhythm"].explode().value_counts()
    assert rhythms[["SR", "AFIB", "STACH", "SARRH", "SBRAD", "AFLT"]].tolist() == [1455, 122, 66, 63, 38, 2]
    subclasses = table["subclasses"].explode().value_counts()
    assert subclasses[["PMI", "SEHYP"]].tolist() == [3, 2]
    assert (table["age"].max(), (table["age"] == 90).sum()) == (90, 21)
    assert table["sex"].value_counts().to_dict() == {"F": 922, "M": 896}


@pytest.mark.realdata
def test_real_signals_are_whole_and_z_scored(realdata: Callable[[str], Cohort]) -> None:
    cohort = realdata("ptbxl")
    table = cohort.records()
    if set(table["unit"]) != {"zscore"}:
        pytest.skip("facts of the z-scored subset")
    values = np.stack([cohort.signal(record).values for record in table["record_id"][::20]])
    assert values.shape == (91, 12, 1000)
    assert np.isfinite(values).all()
    # Scored before resampling, so one per cent of slack.
    np.testing.assert_allclose(values.std(axis=2), 1, atol=0.05)
    # relscale restores the proportions of the limb leads: Einthoven's law, I + III = II.
    scale = table.loc[::20, ["relscale_I", "relscale_II", "relscale_III"]].to_numpy()[:, :, None]
    first, second, third = (values[:, :3] * scale).transpose(1, 0, 2)
    assert np.median(np.corrcoef((first + third).ravel(), second.ravel())[0, 1]) > 0.99
