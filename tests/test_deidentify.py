"""The command ``deidentify``: what leaves is protected, valid and nameless, and nothing is lost or overwritten."""

import json
import stat
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import scipy.io
import wfdb
from wfdb_trees import write_record

from ecgstudy.__main__ import main
from ecgstudy.data.base import Signal
from ecgstudy.data.own import FolderCohort
from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.deidentification import held, tool
from ecgstudy.deidentification.cycles import CycleSet
from ecgstudy.deidentification.protections import LowPass
from ecgstudy.deidentification.readers import Thoroughness
from ecgstudy.deidentification.release import PROTECTIONS
from ecgstudy.errors import DiskError, StudyError

FS, SECONDS, GAIN = 250, 8.0, 200
LEADS = ("I", "II")
SAID = "Smith Jane MRN-4711-0815 19500101"
PLANTED = (
    "Smith",
    "Jane",
    "MRN-4711-0815",
    "19500101",
    "05/02/2020",
    "2020-02-05",
    "11:39:16",
    "Hogwarts",
    "Voldemort",
)


@lru_cache
def beats(n: int) -> np.ndarray:
    """Leads I and II of records of `n` synthetic persons as integers of 1/200 mV, (n, 2, 2000), a text spelt in I."""
    cohort = SyntheticCohort(n, 1, 1, seconds=SECONDS, fs=FS, seed=3)
    samples = np.rint(GAIN * cohort.signals(cohort.records()["record_id"])[:, :2]).astype(int)
    samples[:, 0, 300 : 300 + len(SAID)] = list(SAID.encode())
    return samples


@pytest.fixture
def clinic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write records of so many persons, one each, with all that names somebody."""
    for variable in ("CACHE", "DATA", "RESULTS"):
        monkeypatch.setenv(f"ECGSTUDY_{variable}", str(tmp_path / variable.lower()))
    (tmp_path / "pseudonym.key").write_text("5a" * 32)

    def write(n: int = 6, diagnosis: Sequence[str] = ("AF; Voldemort's",)) -> Path:
        rows = ["record,subject_id,session,age,sex,name,diagnosis"]
        for at in range(n):
            comments = ("Age: 67", "Sex: F", "Name: Smith, Jane", "MRN-4711-0815", "Dx: 164889003")
            name = f"Smith_Jane_19500101_{at}"
            leads = ("Hogwarts arm", "II") if at == 0 else LEADS
            path = write_record(tmp_path / "in" / "Hogwarts", name, beats(n)[at], FS, leads, comments=comments)
            path.write_text(path.read_text().replace(" 2000\n", " 2000 11:39:16 05/02/2020\n", 1))
            rows.append(f"Hogwarts/{name},Jane Smith {at},2020-02-05,67,F,Smith,{diagnosis[at % len(diagnosis)]}")
        (tmp_path / "in" / "subjects.csv").write_text("\n".join(rows) + "\n")
        return tmp_path / "in"

    return write


def release(source: Path, target: str = "out", method: str = "low_pass", **asked: object) -> tuple[Path, list[str]]:
    """Run the tool on a folder; the release and the lines that were said."""
    asked = {"strength": None, "key": None, "seed": 0, "keep_diagnoses": False} | asked
    out = source.parent / target
    return out, list(tool.deidentify(tool.order_of(str(source), str(out), method, **asked)))


def content(folder: Path) -> dict[str, bytes]:
    """Give the bytes of every file of a folder by its name."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def skipped(out: Path) -> dict[str, str]:
    """Reasons by pseudonym."""
    return pd.read_csv(out / "skipped.csv").set_index("record")["reason"].to_dict()


def texts(folder: Path, samples: bool = True) -> bytes:
    """Give all that a release holds in small letters: names, bytes, and what its samples spell however decoded."""
    found = b""
    for name, raw in content(folder).items():
        found += name.encode() + (raw if samples or not name.endswith(".dat") else b"")
        if name.endswith(".hea") and samples:
            record = wfdb.rdrecord(str(folder / name[:-4]))
            digital = wfdb.rdrecord(str(folder / name[:-4]), physical=False).d_signal
            for values in (digital, record.p_signal, GAIN * record.p_signal):
                found += np.clip(np.rint(values), 0, 255).astype(np.uint8).T.tobytes()
    return found.lower()


def test_names_dates_ids_and_free_text_stay_behind(clinic: Callable[..., Path]) -> None:
    source = clinic()
    out, _ = release(source, method="k_same", keep_diagnoses=True)
    (raw, _), hidden = release(source, "raw", "raw", keep_diagnoses=True), texts(out)
    for planted in PLANTED:
        for coding in ("utf-8", "utf-16-le"):
            assert planted.lower().encode(coding) not in hidden + texts(raw, samples=False), planted
    assert SAID.lower().encode() in texts(raw)  # this search would have found it
    assert any("lead 1" in path.read_text() for path in raw.glob("*.hea"))
    table = pd.read_csv(out / "subjects.csv")
    assert table.columns.tolist() == ["record", "subject_id", "session", "diagnosis"]
    assert set(table["diagnosis"]) == {"AF; diagnosis 1"}
    assert "5a5a" not in hidden.decode("latin1")


def test_a_release_is_valid_and_as_its_records(clinic: Callable[..., Path]) -> None:
    source = clinic()
    turned = beats(6)[5][::-1]
    write_record(source / "Hogwarts", "Smith_Jane_19500101_5", turned, FS, ("II", "I"), unit="uV", gain=0.2)
    for method, close in (("raw", 1e-3), ("own_cycle", None)):
        out, _ = release(source, method, method)
        cohort = held.HeldCohort(source, source.parent / "pseudonym.key")
        again = FolderCohort(out)  # which verifies checksums
        assert again.failures().empty
        assert set(again.records()["record_id"]) == set(cohort.records()["record_id"])
        for name in cohort.records()["record_id"]:
            was, record = cohort.signal(name), wfdb.rdrecord(str(out / name))
            assert (record.sig_len, record.fs, tuple(record.sig_name)) == (was.values.shape[1], was.fs, was.leads)
            assert set(record.units) == {"mV"}
            assert record.comments == [f"protected by ecgstudy: {'raw.none' if close else 'own_cycle.own'}"]
            assert (record.base_date, record.base_time, record.file_name[0]) == (None, None, f"{name}.dat")
            assert np.abs(record.d_signal if record.d_signal is not None else 1).max() <= 32_767
            told = again.signal(name).values
            np.testing.assert_array_equal(told, record.p_signal.T.astype(np.float32))
            if close:
                np.testing.assert_allclose(told, was.values, atol=close)
            else:
                assert np.corrcoef(told[was.leads.index("II")], was.values[was.leads.index("II")])[0, 1] > 0.8


def test_the_table_names_persons_and_sessions_by_pseudonym_and_says_neither_age_nor_sex(
    clinic: Callable[..., Path],
) -> None:
    source = clinic(3)
    table = (source / "subjects.csv").read_text().replace("Jane Smith 1,2020-02-05", "Jane Smith 0,2020-05-02")
    (source / "subjects.csv").write_text(table)
    out, _ = release(source)
    found = pd.read_csv(out / "subjects.csv")
    assert found.columns.tolist() == ["record", "subject_id", "session"]
    assert sorted(found.groupby("subject_id")["session"].apply(list).map(sorted)) == [[1], [1, 2]]
    assert found["record"].is_monotonic_increasing
    assert found["record"].str.fullmatch("r[0-9a-f]{12}").all()
    assert found["subject_id"].str.fullmatch("p[0-9a-f]{12}").all()
    about = json.loads((out / "release.json").read_text())
    assert (about["complete"], about["records"], about["persons"], about["skipped"]) == (True, 3, 2, 0)
    assert (about["method"], about["strength"], about["seed"]) == ("low_pass", "15hz", 0)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"target": "in/out"}, "are the same or lie in each other"),
        ({"target": "in"}, "are the same or lie in each other"),
        ({"target": "."}, "are the same or lie in each other"),
        ({"target": "linked"}, "are the same or lie in each other"),
        ({"target": "file"}, "is a file; name a new or an empty folder"),
        ({"target": "full"}, "holds other things; name a new or an empty folder"),
        ({"key": "out/key"}, "would be given away with"),
        ({"method": "magic"}, "There is no protection 'magic'; choose one of raw.none, "),
        ({"strength": "9"}, "There is no protection 'low_pass.9'; choose one of raw.none, "),
        ({"seed": -1}, "The seed is -1; give a number from 0 to 2147483647."),
        ({"source": "nowhere"}, "is no folder, or one that you may not read"),
        ({"source": "empty"}, "empty holds no WFDB record"),
    ],
)
def test_what_would_do_harm_is_refused_in_a_sentence(
    clinic: Callable[..., Path], tmp_path: Path, asked: dict[str, object], sentence: str
) -> None:
    source = clinic(1)
    for folder in ("full", "empty"):
        (tmp_path / folder).mkdir()
    for file in ("file", "full/thesis.txt"):
        (tmp_path / file).write_text("mine")
    (tmp_path / "linked").symlink_to(source, target_is_directory=True)
    before = content(tmp_path)
    if "key" in asked:
        asked = asked | {"key": str(tmp_path / "out" / "key")}
    with pytest.raises(StudyError, match=sentence):
        release(tmp_path / str(asked.pop("source", "in")), **asked)
    after = content(tmp_path)
    assert {name: raw for name, raw in after.items() if not name.startswith("cache")} == before


def test_a_release_is_not_mixed_with_another(clinic: Callable[..., Path]) -> None:
    source = clinic(2)
    out, _ = release(source)
    before = content(out)
    release(source)
    assert content(out) == before
    for other in ({"method": "warp"}, {"seed": 1}, {"strength": "8hz"}, {"keep_diagnoses": True}):
        with pytest.raises(StudyError, match="holds a release of other records, or one that was made otherwise"):
            release(source, **other)
    (source / "Hogwarts" / "Smith_Jane_19500101_0.dat").write_bytes(beats(2)[1].T[::-1].astype("<i2").tobytes())
    with pytest.raises(StudyError, match="holds a release of other records"):
        release(source)
    assert content(out) == before
    (out / "release.json").write_text("[]")
    with pytest.raises(StudyError, match="holds a release of other records"):
        release(source)


def test_a_killed_run_goes_on_and_ends_as_an_undisturbed_one(
    clinic: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = clinic()
    write_record(source / "Hogwarts", "Smith_Jane_19500101_0", beats(6)[0], FS, LEADS)
    whole, _ = release(source, "whole", "noise")
    out, written = source.parent / "out", []

    def dying(folder: Path, name: str, *rest: object) -> None:
        if len(written) == 2:
            (folder / f".{name}.1.partial.dat").write_bytes(b"half")
            (folder / f"{name}.dat").write_bytes(b"half")
            raise KeyboardInterrupt
        written.append(name)
        held.write_record(folder, name, *rest)

    monkeypatch.setattr(tool, "write_record", dying)
    out.mkdir()
    (out / ".release.1.partial.json").write_text("{")  # by a run that was killed at once
    with pytest.raises(KeyboardInterrupt):
        release(source, "out", "noise")
    assert json.loads((out / "release.json").read_text())["complete"] is False
    assert len(list(out.glob("*.hea"))) == 2
    monkeypatch.setattr(
        tool, "write_record", lambda folder, name, *rest: written.append(name) or held.write_record(folder, name, *rest)
    )
    release(source, "out", "noise")
    assert content(out) == content(whole)
    # each once, and not in the order of the real names
    assert written == sorted(path.stem for path in out.glob("*.hea"))


def test_a_bad_record_is_skipped_and_named_only_on_the_terminal(clinic: Callable[..., Path]) -> None:
    source = clinic(3)
    (source / "subjects.csv").unlink()
    good, rng = beats(3)[0], np.random.default_rng(0)
    bad = source / "Hogwarts"
    write_record(bad, "short", good[:, :500], FS, LEADS)
    write_record(bad, "constant", np.full((2, 2000), 7), FS, LEADS)
    write_record(bad, "nan", np.full((2, 2000), -32768), FS, LEADS)
    write_record(bad, "beatless", np.stack([np.arange(2000) // 2] * 2), FS, LEADS)
    write_record(bad, "lead_off", np.stack([beats(3)[2, 0] // 2, np.full(2000, 5)]), FS, LEADS)
    write_record(bad, "copy", good, FS, LEADS)
    write_record(bad, "broken", rng.integers(-99, 99, (2, 2000)), FS, LEADS)
    (bad / "broken.dat").write_bytes(b"1234")
    (bad / "empty.hea").write_text("")
    (bad / "huge.hea").write_text("huge 1 200 10000000000000\nhuge.dat 16 200\n")
    out, lines = release(source)
    cohort = held.HeldCohort(source, source.parent / "pseudonym.key")
    reasons = {
        "short": "too short",
        "constant": "flat",
        "nan": "not a number",
        "beatless": "no beats",
        "lead_off": "a lead that cannot be used",
        "copy": "same waveform as another person",
        "Smith_Jane_19500101_0": "same waveform as another person",
        "broken": "unreadable",
        "empty": "unreadable",
        "huge": "unreadable",
    }
    assert skipped(out) == {cohort.pseudonym("record", f"Hogwarts/{name}"): why for name, why in reasons.items()}
    told = [line for line in lines if line.startswith("Skipped: ")]
    assert len(told) == len(reasons)
    for name in reasons:
        assert any(f"Hogwarts/{name}" in line for line in told), name
    assert any("lead II cannot be used; check its electrode" in line for line in told)
    assert len(list(out.glob("*.hea"))) == 2
    assert lines[-5].endswith("2 records of 2 persons, 10 skipped (skipped.csv).")


def test_a_folder_without_a_usable_record_is_a_sentence_and_leaves_nothing(clinic: Callable[..., Path]) -> None:
    source = clinic(1)
    write_record(source / "Hogwarts", "Smith_Jane_19500101_0", np.full((2, 2000), 7), FS, LEADS)
    lines = []
    with pytest.raises(StudyError, match=r"No record of .* can be used"):
        lines.extend(
            tool.deidentify(tool.order_of(str(source), str(source.parent / "out"), "warp", None, None, 0, False))
        )
    assert not (source.parent / "out").exists()


def test_sets_of_leads_and_units_are_released_by_themselves(clinic: Callable[..., Path]) -> None:
    source = clinic(7)
    (source / "subjects.csv").unlink()
    write_record(source, "single", beats(7)[1, :1] // 2, FS, ("I",))
    write_record(source, "counts", beats(7)[2] // 2, FS, LEADS, unit="adc", gain=1.0)
    out, lines = release(source, method="k_same")
    # the lead of record 0 that nobody knows makes it a set of its own
    assert sorted(skipped(out).values()) == ["not suited to the method"] * 3
    assert len(list(out.glob("*.hea"))) == 6
    (told,) = [line for line in lines if "single" in line]
    assert told == (
        "Skipped: single: records with I in mV were left out: k_same.5 needs such records of 5 persons or more, and "
        "there are those of 1; choose a method that needs fewer: k_same (5 persons), low_pass or warp (1)."
    )
    about = json.loads((out / "release.json").read_text())
    assert about["groups"] == [{"leads": ["I", "II"], "unit": "mV", "records": 6, "persons": 6}]
    out, lines = release(source, "filtered", "low_pass")
    about = json.loads((out / "release.json").read_text())
    assert {(*group["leads"], group["unit"], group["records"]) for group in about["groups"]} == {
        ("I", "II", "mV", 6),
        ("I", "mV", 1),
        ("I", "II", "other", 1),
        ("II", "lead 1", "mV", 1),
    }
    assert any("another unit than mV (other)" in sentence for sentence in about["not_protected"])
    assert (
        wfdb.rdheader(str(next(out / path.stem for path in out.glob("*.hea") if "/other" in path.read_text()))).fs == FS
    )


def test_a_full_disk_leaves_no_record_out(clinic: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "remember", Mock(side_effect=DiskError("No space is left.")))
    with pytest.raises(DiskError):
        release(clinic())


def test_diagnoses_of_the_table_override_those_of_headers(clinic: Callable[..., Path]) -> None:
    source = clinic(4, ("af|LVH, ward 9", "164889003", "", "normal+normal"))
    (source / "subjects.csv").write_text(
        (source / "subjects.csv").read_text().replace("af|LVH, ward 9", '"af|LVH, ward 9"')
    )
    assert FolderCohort(source).records()["diagnoses"].tolist()[0] == ("af", "LVH", "ward 9")
    found = held.HeldCohort(source, source.parent / "pseudonym.key").records()["diagnoses"].tolist()
    assert sorted(found) == [("AF",), ("AF",), ("AF", "LVH", "diagnosis 1"), ("normal",)]


def test_groups_of_one_person_would_show_that_person(clinic: Callable[..., Path]) -> None:
    source = clinic(7)
    table = "record,subject_id\n" + "".join(f"Hogwarts/Smith_Jane_19500101_{at},Smith\n" for at in range(7))
    (source / "subjects.csv").write_text(table)
    lines, order = [], tool.order_of(str(source), str(source.parent / "out"), "k_same", None, None, 0, False)
    with pytest.raises(StudyError, match=r"can be released by k_same\.5, as told above"):
        for line in tool.deidentify(order):
            lines.append(line)
    assert any("needs such records of 5 persons or more, and there are those of 1" in line for line in lines)
    assert not (source.parent / "out").exists()
    out, _ = release(source, method="warp")
    assert json.loads((out / "release.json").read_text())["persons"] == 1


def test_records_in_mat_files_are_read(clinic: Callable[..., Path]) -> None:
    source = clinic(1)
    (source / "subjects.csv").unlink()
    samples = beats(1)[0].astype(np.int16)
    scipy.io.savemat(source / "A0001.mat", {"val": samples}, format="4")
    lines = [f"A0001 2 {FS} {samples.shape[1]}"]
    lines += [f"A0001.mat 16+24 {GAIN}/mV 16 0 {lead[0]} 0 0 {name}" for name, lead in zip(LEADS, samples, strict=True)]
    fields = [line.split() for line in lines]
    for row, lead in zip(fields[1:], samples, strict=True):
        row[6] = str(int(lead.sum()) % 65536)
    (source / "A0001.hea").write_text("\n".join(map(" ".join, fields)) + "\n")
    for path in (source / "Hogwarts").iterdir():
        path.unlink()
    out, _ = release(source, method="raw")
    (found,) = FolderCohort(out).records()["record_id"]
    np.testing.assert_allclose(FolderCohort(out).signal(found).values, samples / GAIN, atol=1e-3)


def test_groups_of_records_share_no_secret(clinic: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    source, seeds = clinic(2), []
    cohort = held.HeldCohort(source, source / "key")
    order = Mock(protection="x.1", seed=0)

    class Noting(LowPass):
        def prepare(self, _release: CycleSet, seed: int) -> None:
            seeds.append(seed)

    monkeypatch.setitem(tool.PROTECTIONS, "x.1", Noting(15.0))
    for names in (["a", "b"], ["c", "d"], ["a", "b"]):
        records = pd.DataFrame({"record_id": names, "subject_id": names})
        cycles = CycleSet(np.zeros((2, 1, 80)), np.zeros((2, 4)), records)
        tool._prepare(order, cohort, cycles, source)
    assert seeds[0] == seeds[2] != seeds[1]


def test_the_key_lies_beside_the_records_and_decides_names_and_what_is_drawn(
    clinic: Callable[..., Path], tmp_path: Path
) -> None:
    source = clinic(2)
    (tmp_path / "pseudonym.key").unlink()
    (tmp_path / "results" / "mine").mkdir(parents=True)
    (tmp_path / "results" / "mine" / "page").write_text("of records under another key")
    out, lines = release(source, method="noise")
    key = tmp_path / "pseudonym.key"
    assert lines[0] == f"Key of the pseudonyms (new): {key}. Keep it, and do not share it."
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert key.read_bytes() not in b"".join(content(out).values())
    other = tmp_path / "other.key"
    other.write_bytes(b"00" * 32)
    another, lines = release(source, "another", "noise", key=str(other))
    assert "(new)" not in lines[0]
    assert not {path.name for path in out.glob("r*.dat")} & {path.name for path in another.glob("r*.dat")}
    noise = []
    for folder, file in ((out, key), (another, other)):
        cohort = held.HeldCohort(source, file)
        name = cohort.pseudonym("record", "Hogwarts/Smith_Jane_19500101_1")
        noise.append(FolderCohort(folder).signal(name).values - cohort.signal(name).values)
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.1  # the published seed does not undo it


def test_a_record_that_a_protection_cannot_take_is_skipped(
    clinic: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, change, calls = clinic(3), LowPass.change, []

    def sometimes(self: LowPass, recording: object, rng: object) -> np.ndarray:
        calls.append(1)
        if len(calls) == 1:
            raise ZeroDivisionError
        return change(self, recording, rng) * (np.nan if len(calls) == 2 else 1)

    monkeypatch.setattr(LowPass, "change", sometimes)
    out, lines = release(source)
    assert list(skipped(out).values()) == ["not suited to the method"] * 2
    assert len(pd.read_csv(out / "subjects.csv")) == len(list(out.glob("*.hea"))) == 1
    assert sum("cannot be protected (ZeroDivisionError)" in line for line in lines) == 1
    assert sum("cannot be protected (ValueError)" in line for line in lines) == 1


def test_a_method_that_learns_does_so_from_the_people_at_hand(
    clinic: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "bottleneck_retimed.32"
    monkeypatch.setitem(PROTECTIONS, name, replace(PROTECTIONS[name], thorough=Thoroughness(2, 1, 3)))
    source = clinic(17, ("AF", "normal"))
    out, lines = release(source, method="bottleneck_retimed", strength="32")
    about = json.loads((out / "release.json").read_text())
    assert about["records"] == 16
    assert "The heart rate, to 10 beats a minute, and whether the rhythm is regular." in about["not_protected"]
    assert any("it learnt from these very records" in line for line in lines)
    (source / "subjects.csv").write_text((source / "subjects.csv").read_text().replace("normal", "AF"))
    with pytest.raises(StudyError, match="can be released by microaggregation"):
        lines = release(source, "other", "microaggregation")


@pytest.mark.parametrize(
    ("n", "sentence"),
    [(12, "No diagnosis is stated often enough to be kept"), (4, "needs such records of 10 persons or more")],
)
def test_a_method_that_cannot_learn_says_which_can(clinic: Callable[..., Path], n: int, sentence: str) -> None:
    source = clinic(n)
    (source / "subjects.csv").unlink()
    lines, order = [], tool.order_of(str(source), str(source.parent / "out"), "bottleneck", None, None, 0, False)
    with pytest.raises(StudyError, match="can be released by"):
        for line in tool.deidentify(order):
            lines.append(line)
    assert any(sentence in line and "k_same" in line for line in lines)


def test_some_people_are_whole_persons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "MOST_LEARNT", 6)
    monkeypatch.setattr(tool, "LEAST_PEOPLE", 2)
    for sizes, least in (((3, 3, 3, 3, 3), 2), ((9, 9, 9), 2), ((1, 2), 2)):
        owners = np.repeat([f"p{at}" for at in range(len(sizes))], sizes)
        records = pd.DataFrame({"subject_id": owners})
        cycles = CycleSet(np.zeros((len(records), 1, 80)), np.zeros((len(records), 4)), records)
        chosen = tool._some_people(cycles, 0).records["subject_id"].value_counts()
        assert len(chosen) == least
        assert (chosen == pd.Series(owners).value_counts()[chosen.index]).all()


def test_every_method_says_what_it_leaves(clinic: Callable[..., Path]) -> None:
    for name in PROTECTIONS:
        order = tool.Order(Path(), Path(), name, Path(), 0, True)
        said = " ".join(tool.not_protected(order, []))
        assert ("The heart rate, to" in said) == ("retimed" in name or "rate_class" in name)
        assert ("learnt from these very records" in said) == tool.learns(PROTECTIONS[name])
        assert "The diagnoses in subjects.csv" in said


@pytest.mark.parametrize("fs", [100.0, 497.449, 360.0])
def test_a_written_record_is_read_to_the_last_digit_of_its_format(tmp_path: Path, fs: float) -> None:
    values = np.array([[0.0, 0.0, 0.0], [1e-4, -2e-4, 5e-5], [1000.0, 1001.5, 999.0]], dtype=np.float32)
    held.write_record(tmp_path, "r1", Signal(values, fs, ("I", "aVR", "lead 3"), "mV"), "protected")
    record = wfdb.rdrecord(str(tmp_path / "r1"))
    assert (record.fs, record.sig_name, record.units) == (fs, ["I", "aVR", "lead 3"], ["mV"] * 3)
    for was, found in zip(values, record.p_signal.T, strict=True):
        np.testing.assert_allclose(found, was, atol=np.abs(was).max() / 32_000)
    digital = wfdb.rdrecord(str(tmp_path / "r1"), physical=False)
    assert digital.checksum == digital.calc_checksum()
    assert FolderCohort(tmp_path).signal("r1").leads == ("I", "aVR", "lead 3")


def test_the_command_says_what_it_did(clinic: Callable[..., Path], capsys: pytest.CaptureFixture) -> None:
    source = clinic(2)
    out = source.parent / "out"
    assert main(["deidentify", str(source), str(out), "--method", "warp", "--strength", "0_3"]) == 0
    said = capsys.readouterr().out
    assert f"{out}: released by warp.0_3: 2 records of 2 persons, 0 skipped (skipped.csv)." in said
    assert "Not protected: The rhythm" in said
    (source / "subjects.csv").unlink()
    assert main(["deidentify", str(source), str(out.with_name("other")), "--method", "warp"]) == 0
    assert "There is no subjects.csv: every record counts as a person of its own." in capsys.readouterr().out
    (source / "subjects.csv").write_text("record\n")
    assert main(["deidentify", str(source), str(out), "--method", "warp"]) == 1
    assert f"{source / 'subjects.csv'}, line 1: there is no column subject_id" in capsys.readouterr().err
