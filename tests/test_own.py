"""Records of one's own: what is read from a folder, and that nothing of it leaves under its own name."""

import hashlib
import os
import pickle
import re
import shutil
import stat
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
from wfdb_trees import digital, write_record

from ecgstudy.__main__ import main
from ecgstudy.data import own, wfdb_cohort
from ecgstudy.data.base import STANDARD_LEADS
from ecgstudy.data.cohorts import data_fingerprint
from ecgstudy.data.own import FolderCohort, OwnCohort, own_folders
from ecgstudy.data.pseudonyms import KEY, SIGN, pseudonym_key
from ecgstudy.deidentification import plan
from ecgstudy.dual_task.plan import cohort_of
from ecgstudy.errors import DataNotFoundError, NotApplicableError, NothingUsableError, RecordError, StudyError
from ecgstudy.experiment.jobs import LONG_RECORD_S
from ecgstudy.ingestion import doctor
from ecgstudy.ingestion.doctor import examine, expectations
from ecgstudy.ingestion.stores import open_usable_stores
from ecgstudy.layouts import pages
from ecgstudy.signals.ingest import build_store

TABLE = "record,subject_id,session,age,sex,activity\nann/a1,Ann,1,40,F,rest\nann/a2,Ann,2,41.5,female,Dr Who\nbob,Bob\n"


def hidden(cohort: OwnCohort, table: pd.DataFrame) -> pd.DataFrame:
    """Rows of a table of the three records, in the order of their names."""
    ids = [cohort.pseudonym("record", name) for name in ("ann/a1", "ann/a2", "bob")]
    return table.set_index("record_id").loc[[name for name in ids if name in set(table["record_id"])]].reset_index()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write three records into two folders."""
    monkeypatch.setenv("ECGSTUDY_DATA", str(tmp_path))
    clinic = tmp_path / "wfdb-folder" / "clinic"
    comments = ("Age: 63", "Sex: Male", "Dx: 164889003,99999", "MRN 4711")
    write_record(clinic / "ann", "a1", digital(2, 300, 1), fs=250, leads=("i", "ii"), comments=comments)
    write_record(clinic / "ann", "a2", digital(2, 300, 2), fs=250, leads=("i", "Smith"))
    write_record(clinic, "bob", digital(1, 400, 3), fs=500, leads=("V2",), unit="uV", comments=comments)
    return clinic


def test_without_a_table_every_record_is_its_own_person_and_headers_say_age_and_sex(folder: Path) -> None:
    cohort = FolderCohort(folder)
    table = cohort.records()
    assert table["record_id"].tolist() == table["subject_id"].tolist() == ["ann/a1", "ann/a2", "bob"]
    assert table["leads"].tolist() == [("I", "II"), ("I", "Smith"), ("V2",)]
    assert table["unit"].tolist() == ["mV", "mV", "mV"]
    np.testing.assert_array_equal(table["age"], [63, np.nan, 63])
    assert table["sex"].tolist() == ["M", None, "M"]
    assert table["diagnoses"].tolist() == [("AF",), (), ("AF",)]
    assert len(cohort.notes()) == 2


def test_the_table_overrides_headers(folder: Path) -> None:
    (folder / "subjects.csv").write_text(TABLE)
    table = FolderCohort(folder).records()
    assert table["subject_id"].tolist() == ["Ann", "Ann", "Bob"]
    assert table["session"].tolist() == [1, 2, 1]
    np.testing.assert_array_equal(table["age"], [40, 41.5, 63])
    assert table["sex"].tolist() == ["F", "F", "M"]
    assert table["activity"].tolist() == ["rest", "Dr Who", None]
    (note,) = [note for note in FolderCohort(folder).notes() if "header" in note]
    assert "age of 1 and the sex of 1 " in note


@pytest.mark.parametrize(("unit", "factor"), [("mV", 1), ("MV", 1), ("uV", 1e-3), ("V", 1e3), ("furlong", None)])
def test_multiples_of_the_volt_are_one_unit(folder: Path, unit: str, factor: float | None) -> None:
    write_record(folder, "bob", digital(1, 400, 3), leads=("V2",), unit=unit)
    signal = FolderCohort(folder).signal("bob")
    assert signal.unit == ("mV" if factor else "other")
    np.testing.assert_allclose(signal.values, digital(1, 400, 3) / 200 * (factor or 1), rtol=1e-6)


def test_pseudonyms_are_keyed_stable_and_all_that_leaves(folder: Path, tmp_path: Path) -> None:
    (folder / "subjects.csv").write_text(TABLE + "gone/Smith_1950,Carl,1,20,M,\n")
    (folder / "Smith.hea").write_text("Jones 1 500 400\n")
    cohort = OwnCohort("own-1", folder)
    records, failures = hidden(cohort, cohort.records()), cohort.failures()
    told = " ".join([records.to_csv(), failures.to_csv(), *cohort.notes(), repr(pickle.dumps(cohort))])
    for name in ("Ann", "Bob", "bob", "ann/", "Smith", "Jones", "Carl", "4711", "99999", "1950", "Who"):
        assert name not in told, name
    assert str(folder) not in told
    assert records["subject_id"].tolist()[0] == records["subject_id"].tolist()[1] != records["subject_id"].tolist()[2]
    assert records["leads"].tolist()[1] == ("I", "lead 2")
    assert records["activity"].tolist() == ["rest", "activity 1", None]
    again = pickle.loads(pickle.dumps(cohort))
    pd.testing.assert_frame_equal(hidden(again, again.records()), records)
    assert cohort.records()["record_id"].is_monotonic_increasing  # in no order of names
    np.testing.assert_array_equal(
        again.signal(records["record_id"][0]).values, FolderCohort(folder).signal("ann/a1").values
    )
    assert cohort.whois(records["subject_id"][0]) == "Ann"
    assert cohort.whois(records["record_id"][2]) == "bob"
    assert {cohort.whois(name) for name in failures["record_id"]} == {"Smith", "gone/Smith_1950"}
    assert cohort.whois("p000000000000") is None
    ward = OwnCohort("own-2", shutil.copytree(folder, folder.with_name("ward"))).records()
    for kind in ("record_id", "subject_id"):  # the same name in another folder is somebody else
        assert not set(ward[kind]) & set(records[kind])
    assert OwnCohort("own-1", folder.with_name("ward")).digest() != cohort.digest()  # nor do they share a store
    digest, key = cohort.digest(), tmp_path / "wfdb-folder" / KEY
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    key.unlink()
    other = OwnCohort("own-1", folder)
    assert not set(other.records()["record_id"]) & set(records["record_id"])
    assert other.digest() != digest


@pytest.mark.parametrize(
    "first",
    [
        *("bob 77345 500 400", "bob 1 277345 400", "bob 1 500 77345", "bob/1 1 500 77345", "bob/1 77345 500 300"),
        *("bob/1 1 77345 300", "bob 1 500 7734500000000"),
    ],
)
def test_no_number_of_a_header_is_published(folder: Path, first: str) -> None:
    write_record(folder, "part", digital(1, 300))
    lines = ["part 300"] if "/" in first else (folder / "bob.hea").read_text().splitlines()[1:2]
    (folder / "bob.hea").write_text("\n".join([first, *lines]) + "\n")
    (reason,) = OwnCohort("own-1", folder).failures()["reason"]
    assert not re.search(r"\d", reason.replace("134,217,728", ""))


def test_an_error_of_a_record_names_its_pseudonym_alone(folder: Path) -> None:
    cohort = OwnCohort("own-1", folder)
    bob = cohort.pseudonym("record", "bob")
    (folder / "bob.dat").write_bytes(b"short")
    assert OwnCohort("own-1", folder).failures()[["record_id", "file"]].values.tolist() == [[bob, f"{bob}.dat"]]
    with pytest.raises(RecordError, match=rf"^{bob}.dat is shorter than its header says; ") as caught:
        cohort.signal(bob)
    assert "bob" not in str(caught.value).replace(bob, "")


def test_a_key_that_is_no_key_is_a_sentence(tmp_path: Path) -> None:
    key = pseudonym_key(tmp_path)
    assert pseudonym_key(tmp_path) == key
    assert len(key) == 32
    assert not list(tmp_path.glob(f"{KEY}.*"))
    for content in ("", "abc", "00" * 31, "z" * 64, "\xb2" * 64):
        (tmp_path / KEY).write_text(content)
        with pytest.raises(StudyError, match="does not hold 64 hexadecimal digits; put back the key"):
            pseudonym_key(tmp_path)


def test_a_lost_key_is_not_replaced_where_something_was_made_with_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("results", "cache"):
        monkeypatch.setenv(f"ECGSTUDY_{name.upper()}", str(tmp_path / name))
    key = tmp_path / "wfdb-folder" / KEY
    # another profile's results, and what a run makes before it asks for the key
    for nothing in ("results/demo/01_ingestion/metrics.json", "results/mine/01_ingestion", "cache/mine"):
        (tmp_path / nothing).mkdir(parents=True)
    OwnCohort("own-1", folder)
    for place, made in (("results/mine", "01_ingestion/metrics.json"), ("cache/mine-quick", "store-own-1-0")):
        (tmp_path / place / made).mkdir(parents=True)
        OwnCohort("own-1", folder)
        lost = key.rename(tmp_path / "put away")
        with pytest.raises(StudyError, match=f"{key} is missing, and {tmp_path / place} hold") as told:
            OwnCohort("own-1", folder)
        assert "\n" not in str(told.value)
        assert not key.exists()
        lost.rename(key)
        shutil.rmtree(tmp_path / place)
    key.unlink()
    OwnCohort("own-1", folder)
    assert key.exists()


def test_an_exchanged_key_is_refused_where_something_was_made_with_the_other(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_and_make(made: str) -> None:
        with pytest.raises(StudyError, match="No record of own-1 can be used"):  # 300 samples
            open_usable_stores("mine", ["own-1"], 0)
        (tmp_path / made).mkdir(parents=True, exist_ok=True)

    for name in ("results", "cache"):
        monkeypatch.setenv(f"ECGSTUDY_{name.upper()}", str(tmp_path / name))
    results, cache = tmp_path / "results/mine", tmp_path / "cache/mine"
    run_and_make("cache/mine/store-own-1-0")
    key = tmp_path / "wfdb-folder" / KEY
    first, other = key.read_text(), "ab" * 32
    for place in (results, cache):
        sign = (place / SIGN).read_text()
        assert re.fullmatch("[0-9a-f]{16}", sign)
        assert sign not in first + hashlib.sha256(bytes.fromhex(first)).hexdigest()
    key.write_text(other)
    with pytest.raises(StudyError, match=f"{key} is not the key that made the pseudonyms in {cache}: put that") as told:
        data_fingerprint("mine")
    assert "\n" not in str(told.value)
    assert first not in str(told.value)
    (results / "01_ingestion/metrics.json").mkdir(parents=True)
    with pytest.raises(StudyError, match=f" in {results} and {cache}: put"):
        OwnCohort("own-1", folder)
    key.write_text(first.upper())  # the same key
    OwnCohort("own-1", folder)
    for place in (results, cache):  # as what was made before there were fingerprints
        (place / SIGN).unlink()
    run_and_make("cache/mine")
    key.write_text(other)
    for made in (results / "01_ingestion", cache):
        shutil.rmtree(made)
    run_and_make("cache/mine/store-own-1-0")  # where nothing was made, a new key takes over
    key.write_text(first)
    with pytest.raises(StudyError, match=f" in {cache}: put"):
        OwnCohort("own-1", folder)


def test_headers_in_capitals_are_said_so(folder: Path, tmp_path: Path) -> None:
    for suffix in (".hea", ".dat"):
        (folder / f"bob{suffix}").rename(folder / f"bob{suffix.upper()}")
    failures = FolderCohort(folder).failures()
    assert failures[["record_id", "file"]].values.tolist() == [["bob", "bob.HEA"]]
    assert failures["reason"].iloc[0].startswith("ends in capitals")
    ((record_id, file),) = OwnCohort("own-1", folder).failures()[["record_id", "file"]].values.tolist()
    assert record_id == file
    shutil.rmtree(folder / "ann")
    assert own_folders() == {"own-1": folder}
    assert FolderCohort(folder).records().empty


def test_a_key_is_made_after_an_interrupted_attempt_and_without_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{KEY}.{os.getpid()}").write_text("")
    monkeypatch.setattr(os, "link", Mock(side_effect=PermissionError))
    synced = Mock(side_effect=os.fsync)
    monkeypatch.setattr(os, "fsync", synced)
    assert pseudonym_key(tmp_path) == bytes.fromhex((tmp_path / KEY).read_text())
    assert stat.S_IMODE((tmp_path / KEY).stat().st_mode) == 0o600
    assert synced.call_count == 2  # of the attempt and of the key
    (tmp_path / KEY).unlink()

    def lose_the_race(*_: object) -> None:
        (tmp_path / KEY).write_text("ab" * 32)
        raise PermissionError

    monkeypatch.setattr(os, "link", lose_the_race)
    assert pseudonym_key(tmp_path) == bytes.fromhex("ab" * 32)


def test_folders_lie_side_by_side_or_records_in_the_folder_itself(folder: Path, tmp_path: Path) -> None:
    write_record(tmp_path / "wfdb-folder" / "another one", "x", digital(1, 300))
    (tmp_path / "wfdb-folder" / "empty").mkdir()
    assert {name: root.name for name, root in own_folders().items()} == {"own-1": "another one", "own-2": "clinic"}
    (tmp_path / "wfdb-folder" / "._x.hea").write_bytes(b"\x00\x05\x16\x07")
    assert len(own_folders()) == 2
    (tmp_path / "wfdb-folder" / "subjects.csv").write_text(TABLE)
    assert own_folders() == {"own-1": tmp_path / "wfdb-folder"}
    (tmp_path / "wfdb_folder").mkdir()
    assert own.near_misses() == ["wfdb_folder"]


def test_two_linked_folders_of_one_name_stay_apart(folder: Path, tmp_path: Path) -> None:
    shutil.rmtree(folder)
    for year in (2023, 2024):
        write_record(tmp_path / str(year) / "ecg", "a", digital(1, 300, year))
        (folder.parent / str(year)).symlink_to(tmp_path / str(year) / "ecg")
    cohorts = [OwnCohort(name, root) for name, root in own_folders().items()]
    assert len({name for cohort in cohorts for name in cohort.records()["record_id"]}) == 2
    for year, cohort in zip((2023, 2024), cohorts, strict=True):
        (record_id,) = cohort.records()["record_id"]
        read = pickle.loads(pickle.dumps(cohort)).signal(record_id)
        np.testing.assert_array_equal(read.values, (digital(1, 300, year) / 200).astype(np.float32))


def test_contradictions_ask_about_both_records(folder: Path) -> None:
    (folder / "subjects.csv").write_text("record,subject_id,age,sex\nann/a1,Ann,20,F\nann/a2,Ann,80,F\nbob,Bob,,\n")
    failures = FolderCohort(folder).failures()
    assert failures[["record_id", "reason"]].values.tolist() == [
        [name, "is of a person whose ages are too far apart to be of one person"] for name in ("ann/a1", "ann/a2")
    ]
    assert OwnCohort("own-1", folder).failures()["reason"].tolist() == failures["reason"].tolist()


def test_a_row_without_files_and_a_record_without_a_row_are_listed(folder: Path) -> None:
    (folder / "subjects.csv").write_text("record,subject_id\nann/a1,Ann\nann/a2,Ann\ncarl,Carl\n")
    failures = FolderCohort(folder).failures()
    assert failures[["record_id", "reason"]].values.tolist() == [
        ["bob", "does not list this record"],
        ["carl", "names a record that is not in the folder"],
    ]
    told = "\n".join(examine(folder))
    assert "bob: subjects.csv does not list this record" in told
    assert "carl: subjects.csv names a record" in told


@pytest.mark.parametrize("written", ["clinic/ann/a1", "/data/wfdb-folder/clinic/ann/a1.hea", r"C:\ann\a1.dat", "a1"])
def test_a_record_that_a_row_names_by_another_path_is_told_how(folder: Path, written: str) -> None:
    (folder / "subjects.csv").write_text(f"record,subject_id\n{written},Ann\nann/a2,Ann\nbob,Bob\n")
    remedies = FolderCohort(folder).failures().set_index("reason")["remedy"]
    told = remedies["names a record that is not in the folder"]
    assert told == "write it as its path below this folder, as visit1/p07"


def test_rows_without_a_record_are_told(folder: Path) -> None:
    (folder / "subjects.csv").write_text("record,subject_id\nbob,Bob\nann/a1,Ann\nann/a2,Ann\n,Carl\n")
    for cohort in (FolderCohort(folder), OwnCohort("own-1", folder)):
        failures = cohort.failures().values.tolist()
        assert failures == [["subjects.csv", "subjects.csv", "line 5, column record: names no record", "fill it in"]]


def test_segments_and_droppings_of_file_managers_are_no_records(folder: Path) -> None:
    write_record(folder / "ann", "a2", digital(2, 300, 2), fs=250, leads=("i", "ii"))
    (folder / "ann" / "whole.hea").write_text("whole/2 2 250 600\na1 300\na2 300\n")
    (folder / "._bob.hea").write_bytes(b"\x00\x05\x16\x07")
    write_record(folder / ".Trash-1000", "deleted", digital(2, 300, 9), fs=250, leads=("I", "II"))
    assert FolderCohort(folder).records()["record_id"].tolist() == ["ann/whole", "bob"]
    assert FolderCohort(folder).failures().empty
    assert len(OwnCohort("own-1", folder).records()) == 2


def test_accents_may_be_coded_in_another_way_than_those_of_the_files(tmp_path: Path) -> None:
    write_record(tmp_path / "Mu\u0308ller", "a", digital(1, 300))
    (tmp_path / "subjects.csv").write_text("record,subject_id\nM\u00fcller/a,Ann\n", encoding="utf-8")
    assert FolderCohort(tmp_path).records()["subject_id"].tolist() == ["Ann"]
    assert FolderCohort(tmp_path).failures().empty


def test_numbers_of_cases_for_sessions_and_endings_of_files_stay_behind(folder: Path) -> None:
    (folder / "subjects.csv").write_text(
        "record,subject_id,session\nann/a1,Ann,47110815\nann/a2,Ann,47110799\nbob,Bob,3\n"
    )
    (folder / "bob.hea").write_text((folder / "bob.hea").read_text().replace("bob.dat", "bob.Smith1950"))
    cohort = OwnCohort("own-1", folder)
    assert hidden(cohort, cohort.records())["session"].tolist() == [2, 1]
    assert cohort.failures()["file"].tolist() == cohort.failures()["record_id"].tolist()


def test_what_the_challenges_of_2020_and_notepad_write_is_read(folder: Path) -> None:
    path = folder / "bob.hea"
    text = path.read_text().replace("bob 1 500 400", "bob 1 500 400 05-Feb-2020 11:39:16").replace("\n", "\r\n")
    path.write_bytes(b"\xef\xbb\xbf" + text.encode() + b"# J\xf6rg\r\n")
    cohort = FolderCohort(folder)
    assert cohort.signal("bob").values.shape == (1, 400)
    assert cohort.records().set_index("record_id").loc["bob", "age"] == 63


def test_an_unknown_activity_is_no_activity(folder: Path) -> None:
    table = "record,subject_id,activity,electrode\nann/a1,Ann,Rest,agagcl\nann/a2,Bob,?,Ann's\nbob,Bob,\n"
    (folder / "subjects.csv").write_text(table)
    cohort = OwnCohort("own-1", folder)
    records = hidden(cohort, cohort.records())
    assert records["activity"].tolist() == ["rest", None, None]
    assert records["electrode"].tolist() == ["AgAgCl", "electrode 1", None]
    with pytest.raises(NotApplicableError, match="two activities"):
        cohort_of("mine")
    assert "no two persons in two activities" in "\n".join(expectations(FolderCohort(folder).records()))
    (folder / "subjects.csv").write_text(table.replace("?", "Squats"))
    assert cohort_of("mine") == "own-1"
    assert "(2 activities)" in "\n".join(expectations(FolderCohort(folder).records()))


def test_records_that_are_all_too_short_are_nothing_to_the_doctor(folder: Path) -> None:
    assert list(examine(folder))[-1] == "No stage can say anything about this folder."


@pytest.mark.parametrize(("persons", "said"), [("abab", "sex and age group can"), ("abcd", "neither sex nor age can")])
def test_sex_and_age_are_checked_on_people_never_seen_who_came_back(persons: str, said: str) -> None:
    rows = {"subject_id": [*persons], "sex": [*"FMFM"], "age": [40, 50] * 2}
    rows |= {"session": 1, "n_samples": 5000, "fs": 500.0, "leads": [("I",)] * 4, "diagnoses": [()] * 4}
    assert said in expectations(pd.DataFrame(rows))[1]


def test_records_whose_samples_cannot_be_used_are_promised_to_no_stage(folder: Path) -> None:
    for path in folder.rglob("*.dat"):
        path.unlink()
    for name in ("flat", "wild"):
        samples = digital(1, 6000) if name == "wild" else np.zeros((1, 6000), dtype=int)
        write_record(folder / "ann", name, samples)
    (folder / "subjects.csv").write_text("record,subject_id\nann/flat,Ann\nann/wild,Ann\n")
    told = "\n".join(examine(folder))
    assert "2 records can be read, 3 cannot" in told
    assert "  ann/flat: lead I is flat.\nOf these, 1 record will be left out." in told
    assert "what can be used of 1 record, and" in told
    assert "neither sex nor age can be guessed and checked." in told
    assert "With 1 person every" in told
    write_record(folder / "ann", "wild", np.zeros((1, 6000), dtype=int))
    assert list(examine(folder))[-1] == "No stage can say anything about this folder."


def people(n_persons: int, **facts: object) -> pd.DataFrame:
    """Record table of some persons, of whom the first two have two records of ten seconds."""
    names = [*range(n_persons), 0, 1]
    rows = {"subject_id": [f"p{name}" for name in names], "sex": "F", "age": 40.0, "session": 1, "fs": 500.0}
    table = pd.DataFrame(rows | {"n_samples": 5000})
    table["leads"] = [STANDARD_LEADS] * len(table)
    table["diagnoses"] = [("AF",) if at < 5 else ("SR", "SR") for at in range(len(table))]
    return table.assign(**facts)


@pytest.mark.parametrize(
    ("records", "stage", "said"),
    [
        (people(20), 5, "05 de-identification: what protected records still say of sex, age, diagnoses; persons are"),
        (people(21), 5, "diagnoses; nobody is sought, which needs 20 persons, a tenth of them with several"),
        (people(19), 5, "nobody is sought"),
        (people(20, n_samples=500 * 1800), 5, "nobody is sought"),
        (people(10, sex=None), 5, "still say of age, diagnoses; nobody"),
        (
            people(20).assign(sex=None, age=np.nan, diagnoses=[()] * 22),
            5,
            ": sex, age and diagnoses are unknown; persons",
        ),
        (people(9), 5, "not applicable, because three groups of people need 10 persons or more"),
        (people(20), 6, "06 layouts: how well diagnoses are read"),
        (people(19), 6, "not applicable without 20 persons."),
        (people(20, n_samples=500 * 61), 6, "not applicable without records of at most 60 s."),
        (people(20)[1:], 6, "not applicable without a diagnosis that 5 of the diagnosed records have and 5 have not."),
        (people(20).assign(leads=[STANDARD_LEADS] * 19 + [("I",)] * 3), 6, "without all twelve leads in 90% of the"),
        (people(20, n_samples=500 * 61)[2:20], 2, "nobody can be sought in another record: each has one"),
        (people(20, n_samples=500 * 1800)[2:20], 2, "later in the same record"),
    ],
)
def test_the_doctor_expects_what_the_stages_ask(records: pd.DataFrame, stage: int, said: str) -> None:
    assert said in expectations(records)[stage - 1]


def test_the_doctor_knows_the_rules_of_the_stages() -> None:
    assert (len(plan.FOLD_GROUPS), plan.LEAST_SOUGHT) == (doctor.LEAST_GROUPED, doctor.LEAST_SOUGHT)
    assert (doctor.LEAST_RETURNING, doctor.LONG_S) == (plan.LEAST_RETURNING, LONG_RECORD_S)
    assert (doctor.LEAST_PRINTED, doctor.LEAST_POSITIVES) == (pages.LEAST_PERSONS, pages.LEAST_POSITIVES)
    assert (doctor.LEAST_TWELVE, doctor.LONGEST_PAGE_S) == (pages.LEAST_TWELVE, pages.LONGEST_S)


def test_what_stage_01_leaves_out_is_promised_to_no_stage(folder: Path) -> None:
    for at, name in enumerate(("one", "same", "other")):
        write_record(folder, name, digital(1, 3000, max(1, at)), fs=250)
    write_record(folder, "slow", digital(1, 3000, 9), fs=80)
    (folder / "bob.hea").unlink()
    told = "\n".join(examine(folder))
    assert "  one, same: the same waveform stands under several persons.\nOf these, 2 records will be" in told
    assert "\n1 record of 80 Hz or less will be left out.\n" in told
    assert "01 ingestion: what can be used of 1 record," in told


def test_a_name_that_wfdb_does_not_allow_is_said_so(folder: Path) -> None:
    (folder / "1.2.840.hea").write_text("1.2.840 1 500 400\n")
    assert "a name that WFDB does not allow" in FolderCohort(folder).failures()["reason"].iloc[0]


def test_a_table_in_another_coding_is_read_and_said_so(folder: Path) -> None:
    (folder / "subjects.csv").write_bytes(
        "record;subject_id;Größe\nbob;Jörg\nann/a1;Ann\nann/a2;Ann\n".encode("cp1252")
    )
    assert FolderCohort(folder).records()["subject_id"].tolist() == ["Ann", "Ann", "Jörg"]
    told = "\n".join(OwnCohort("own-1", folder).notes())
    assert "subjects.csv is not UTF-8 and was read as Windows text (cp1252)" in told
    assert "Columns of subjects.csv that are not used: 1." in told


def test_a_table_with_nearly_the_right_name_is_mentioned(folder: Path) -> None:
    (folder / "Subjects.csv.txt").write_text(TABLE)
    for cohort in (FolderCohort(folder), OwnCohort("own-1", folder)):
        assert (
            "A file with a similar name is not read; save it as CSV UTF-8, under the name subjects.csv."
            in cohort.notes()
        )


def test_another_key_or_file_is_a_change_for_the_engine(folder: Path, tmp_path: Path) -> None:
    first = data_fingerprint("mine")
    assert data_fingerprint("mine") == first
    (tmp_path / "wfdb-folder" / KEY).unlink()
    second = data_fingerprint("mine")
    assert second != first
    (folder / os.fsdecode(b"J\xf6rg.hea")).write_text("")
    assert data_fingerprint("mine") != second


def test_a_file_that_may_not_be_looked_at_does_not_stop_the_engine(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, lstat = data_fingerprint("mine"), Path.lstat

    def refuse(path: Path) -> os.stat_result:
        if path.name == "bob.dat":
            raise PermissionError(13, "Permission denied", str(path))
        return lstat(path)

    monkeypatch.setattr(Path, "lstat", refuse)
    assert data_fingerprint("mine").keys() == first.keys()


def test_a_damaged_table_is_one_line_of_cohorts_and_names_no_folder_to_the_study(
    folder: Path, capsys: pytest.CaptureFixture
) -> None:
    (folder / "subjects.csv").write_bytes(b"record;subject_id\nbob;J\x81rg\n")
    assert main(["cohorts"]) == 0
    assert "line 2: is not UTF-8 text" in capsys.readouterr().out.splitlines()[-1]
    with pytest.raises(StudyError, match=r"^own-1/subjects\.csv, line 2: is not UTF-8"):
        OwnCohort("own-1", folder).records()


def test_a_folder_that_may_not_be_read_is_a_sentence_and_not_a_smaller_cohort(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    scandir, closed = os.scandir, str(folder / "ann")

    def refuse(path: str) -> object:
        if str(path) == closed:
            raise PermissionError(13, "Permission denied", closed)
        return scandir(path)

    cohort = OwnCohort("own-1", folder)
    monkeypatch.setattr(os, "scandir", refuse)
    assert main(["cohorts"]) == 0
    assert "clinic holds a folder that may not be read (ann); give" in capsys.readouterr().out.splitlines()[-1]
    with pytest.raises(StudyError, match=r"^own-1 holds a folder that may not be read; give"):
        cohort.records()
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != str(folder) or mode == os.F_OK)
    assert main(["doctor", str(folder)]) == 1
    assert capsys.readouterr().err == f"ecgstudy: {folder} may not be read; give yourself permission to read it.\n"
    with pytest.raises(StudyError, match="own-1 is no folder") as told:
        OwnCohort("own-1", folder)
    assert "clinic" not in str(told.value)


def test_a_disk_that_fails_costs_its_record_and_names_nobody(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = OwnCohort("own-1", folder)
    record_id = cohort.pseudonym("record", "bob")
    monkeypatch.setattr(np, "fromfile", Mock(side_effect=OSError(5, "Input/output error", str(folder / "bob.dat"))))
    with pytest.raises(NothingUsableError, match="cannot be read \\(Input/output error\\)") as told:
        build_store(cohort, folder.parent.parent / "cache", min_seconds=0.1, workers=1)
    assert record_id in told.value.exclusions["record_id"].tolist()
    assert "bob" not in told.value.exclusions.to_csv()
    monkeypatch.setattr(wfdb_cohort, "file_digest", Mock(side_effect=OSError(5, "Input/output error")))
    assert cohort.digest() == OwnCohort("own-1", folder).digest()
    monkeypatch.setattr(doctor, "lead_problems", Mock(side_effect=ZeroDivisionError))
    monkeypatch.setattr(FolderCohort, "signal", Mock())
    assert "  bob cannot be processed (ZeroDivisionError)." in list(examine(folder))


def test_a_header_that_a_disk_does_not_give_costs_its_record_and_names_nobody(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, read_bytes = OwnCohort("own-1", folder), Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name == "bob.hea":
            raise OSError(5, "Input/output error", str(path))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    cohort = OwnCohort("own-1", folder)
    assert cohort.failures()["reason"].tolist() == ["cannot be read (OSError)"]
    assert len(cohort.records()) == 2
    assert cohort.digest()
    with pytest.raises(RecordError, match=r"cannot be read \(Input/output error\)") as told:
        cohort.signal(whole.pseudonym("record", "bob"))
    assert "bob" not in str(told.value)
    monkeypatch.setattr(FolderCohort, "records", Mock(side_effect=ValueError("bob")))
    with pytest.raises(StudyError, match=r"^own-1 cannot be read \(ValueError\); check"):
        OwnCohort("own-1", folder).records()


def test_a_folder_without_records_is_one_plain_sentence_of_the_doctor(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.hea").write_text("")
    for name, words in (
        ("gone", f"There is no folder {tmp_path}/gone; name"),
        ("a.hea", f"{tmp_path}/a.hea is a file; name the folder"),
        ("empty", f"{tmp_path}/empty holds no WFDB record; put records"),
    ):
        with pytest.raises(DataNotFoundError) as told:
            list(examine(tmp_path / name))
        assert str(told.value).startswith(words)


def test_what_a_name_tells_the_terminal_to_do_is_shown_instead(folder: Path, capsys: pytest.CaptureFixture) -> None:
    (folder / "\x1b[31m\n\u202e.hea").write_text("")
    assert main(["doctor", str(folder)]) == 0
    assert "  \\x1b[31m\\n\\u202e.hea is empty" in capsys.readouterr().out


def test_who_makes_no_key(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["who", "p000000000000"]) == 1
    assert "There is no" in capsys.readouterr().err
    assert not (tmp_path / "wfdb-folder" / KEY).exists()
    person = OwnCohort("own-1", folder).pseudonym("person", "ann/a1")
    assert main(["who", f"own-1/{person}"]) == 0
    assert capsys.readouterr().out == f"own-1/{person}: ann/a1\n"


def test_a_table_that_leads_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.csv").write_text(TABLE)
    (folder / "subjects.csv").symlink_to(tmp_path / "elsewhere.csv")
    with pytest.raises(StudyError, match="leads outside"):
        FolderCohort(folder).records()
    (tmp_path / "elsewhere.csv").unlink()
    (folder / "subjects.csv").unlink()
    (folder / "subjects.csv").symlink_to("Smith.csv")
    with pytest.raises(StudyError, match=r"^own-1/subjects\.csv is missing; put the table itself there"):
        OwnCohort("own-1", folder).records()
    (folder / "Smith.csv").write_text("record\n")
    with pytest.raises(StudyError, match=r"^own-1/subjects\.csv, line 1: there is no column"):
        OwnCohort("own-1", folder).records()


def test_tables_and_links_below_a_folder_are_told_to_be_left_out(folder: Path, tmp_path: Path) -> None:
    assert not [note for note in OwnCohort("own-1", folder).notes() if "found" in note]
    (folder / "ann" / "subjects.csv").write_text(TABLE)
    write_record(tmp_path / "Smith", "x", digital(1, 300))
    (folder / "Smith").symlink_to(tmp_path / "Smith")
    tables, links = (note for note in OwnCohort("own-1", folder).notes() if "found" in note)
    assert tables.startswith("subjects.csv in folders below this one is not read (1 found): put one table here")
    assert links.startswith("Links to other folders are not followed (1 found)")
    assert len(OwnCohort("own-1", folder).records()) == 3


def test_samples_without_the_checksum_of_their_header_are_refused(folder: Path) -> None:
    for name, fmt in (("plain", "16"), ("packed", "212")):
        path = write_record(folder, name, digital(2, 300), fs=250, leads=("I", "II"), fmt=fmt)
        assert FolderCohort(folder).signal(name).values.shape == (2, 300)
        fields = path.read_text().splitlines()[2].split()
        path.write_text(path.read_text().replace(f" {fields[6]} 0 II", f" {int(fields[6]) + 1} 0 II"))
        with pytest.raises(RecordError, match="does not have the checksum"):
            FolderCohort(folder).signal(name)
        path.write_text(path.read_text().replace(f" {int(fields[6]) + 1} 0 II", " 0 0 II"))  # nothing was summed
        assert FolderCohort(folder).signal(name).values.shape == (2, 300)


def test_what_is_not_there_or_too_large_is_refused_before_anything_is_read(folder: Path) -> None:
    (folder / "huge.hea").write_text("huge 1 200 10000000000000\nhuge.dat 16 200\n")
    (folder / "other.hea").write_text("other 1 500 400\nbob.dat 16 200\n")
    (folder / "itself.hea").write_text("itself 1 500 400\nitself.hea 16 200\n")
    (folder / "gap.hea").write_text("gap/2 1 500 100000400\nbob 400\n~ 100000000\n")
    failures = FolderCohort(folder).failures().set_index("record_id")["reason"]
    assert failures["huge"] == "claims more than 134,217,728 samples"
    assert failures["other"] == "names the signal file of another record"
    assert failures["itself"] == "is shorter than its header says"
    assert failures["gap"] == "consists of gaps, nearly all of it"
