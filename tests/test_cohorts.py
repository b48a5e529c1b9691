"""What every cohort promises, held by the registry; and what is particular to ECG-ID, LUDB, MIT-BIH and motion."""

import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from wfdb_trees import digital, ecgid_tree, ludb_tree, mitdb_tree, motion_tree, ptbxl_tree, write_record

from ecgstudy.data.base import FAILURE_COLUMNS, RECORD_COLUMNS, STANDARD_LEADS, Cohort, as_tables
from ecgstudy.data.cohorts import REGISTRY, cohort_table, cohorts_of, data_fingerprint, open_cohort
from ecgstudy.data.public import parse_boundaries
from ecgstudy.errors import DataNotFoundError, RecordError, StudyError

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
def tree(tmp_path: Path) -> Callable[[str], Cohort]:
    """Write a small cohort in its official layout, the first time; open it."""

    def opened(name: str) -> Cohort:
        return REGISTRY[name](tmp_path if any(tmp_path.iterdir()) else TREES[name](tmp_path))

    return opened


@pytest.fixture
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point the study at an empty data folder."""
    monkeypatch.setenv("ECGSTUDY_DATA", str(tmp_path))
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    """Replace what stands in a file."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


# --- the registry


def test_the_registry_is_in_its_agreed_order() -> None:
    assert list(REGISTRY) == ["synthetic", "ecgid", "ludb", "mitdb", "motion", "ptbxl", "wfdb-folder"]
    assert [cohort.name for cohort in REGISTRY.values()] == list(REGISTRY)
    assert [name for name, cohort in REGISTRY.items() if cohort.synthetic] == ["synthetic"]
    with pytest.raises(StudyError, match="There is no cohort ptb; choose one of synthetic, ecgid"):
        open_cohort("ptb")


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
        assert cohorts_of("real") == [name]


def test_a_folder_that_lacks_its_files_is_passed_over(data_folder: Path) -> None:
    (data_folder / "ptbxl").mkdir()
    with pytest.raises(DataNotFoundError, match=r"ptbxl holds no ptbxl_database\.csv"):
        open_cohort("ptbxl")
    ptbxl_tree(data_folder / "ptbxl-subset")
    assert open_cohort("ptbxl").root == data_folder / "ptbxl-subset"
    with pytest.raises(DataNotFoundError, match="nowhere is no folder"):
        REGISTRY["mitdb"](data_folder / "nowhere")
    with pytest.raises(DataNotFoundError, match=r"holds no ludb\.csv"):
        REGISTRY["ludb"](data_folder)


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


# --- lists and headers


def test_a_listed_record_without_files_fails_alone(tree: Callable[[str], Cohort]) -> None:
    (tree("ecgid").root / "Person_02" / "rec_1.hea").unlink()
    cohort = tree("ecgid")
    assert cohort.failures()[["record_id", "reason"]].values.tolist() == [["Person_02/rec_1", "is missing"]]
    assert len(cohort.records()) == 3


def test_the_publishers_list_decides_and_without_one_every_header_counts(tree: Callable[[str], Cohort]) -> None:
    cohort = tree("ecgid")
    index, names = cohort.root / "RECORDS", set(cohort.records()["record_id"])
    index.write_text(index.read_text() + "Person_01/rec_1\n")  # twice
    assert tree("ecgid").records()["record_id"].is_unique
    index.write_text("Person_01/rec_1\n")
    assert len(tree("ecgid").records()) == 1
    index.unlink()
    assert set(tree("ecgid").records()["record_id"]) == names


# --- ECG-ID: sessions from dates, the raw channel only


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


@pytest.mark.parametrize("line", ["", "ECG date: yesterday", "ECG date: 2004-12-07"])
def test_ecgid_a_record_without_a_date_has_no_session_and_is_left_out(tree: Callable[[str], Cohort], line: str) -> None:
    edit(tree("ecgid").root / "Person_01" / "rec_2.hea", "ECG date: 07.12.2004", line)
    cohort = tree("ecgid")
    assert len(cohort.records()) == 3
    reason, remedy = "states no date that a session could be told by", "download the record again"
    row = {"record_id": "Person_01/rec_2", "file": "Person_01/rec_2.hea", "reason": reason, "remedy": remedy}
    assert cohort.failures().to_dict("records") == [row]
    with pytest.raises(RecordError, match="states no date"):
        cohort.signal("Person_01/rec_2")


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


# --- LUDB: labels without stray newlines, microvolts, wave boundaries


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


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"", "is empty"),
        (b"ID,Sex\n1,F\n", "has no column Age"),
        (b"ID,Sex,Age\n1,F,51,x,y\n", "malformed"),
    ],
)
def test_ludb_a_damaged_table_is_one_sentence(tree: Callable[[str], Cohort], content: bytes, words: str) -> None:
    (tree("ludb").root / "ludb.csv").write_bytes(content)
    with pytest.raises(StudyError, match=words) as caught:
        tree("ludb").records()
    assert "ludb.csv" in str(caught.value)


@pytest.mark.parametrize("new", ['\n3,"M', '\n1,"M'])  # no row for record 2; two for record 1
def test_ludb_a_record_without_a_row_of_its_own_fails_alone(tree: Callable[[str], Cohort], new: str) -> None:
    edit(tree("ludb").root / "ludb.csv", '\n2,"M', new)
    cohort = tree("ludb")
    left_out = ["2"] if "3" in new else ["1", "2"]
    assert cohort.failures()["record_id"].tolist() == left_out
    assert cohort.failures()["file"].unique().tolist() == ["ludb.csv"]
    assert cohort.records()["record_id"].tolist() == [name for name in ("1", "2") if name not in left_out]


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


# --- MIT-BIH: 47 persons in 48 records, two leads by name, labels from annotations


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


# --- motion: activity, electrode, measured rate, gaps, artefact degrees


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


@pytest.mark.parametrize("old", ["activity rest", "gaps_after_sample_s []"])
def test_motion_a_header_without_its_facts_fails_alone(tree: Callable[[str], Cohort], old: str) -> None:
    edit(tree("motion").root / "s01_e01_rest.hea", old, old.replace(" ", "-"))
    cohort = tree("motion")
    assert cohort.failures()["record_id"].tolist() == ["s01_e01_rest"]
    assert cohort.records()["record_id"].tolist() == ["s10_e03_squats"]


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
