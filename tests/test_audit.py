"""The command ``audit``: planted identity is found, what says nothing never counts as private, nobody is named."""

import math
import pickle
import shutil
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
from wfdb_trees import write_record

from ecgstudy.__main__ import main
from ecgstudy.data.base import Cohort
from ecgstudy.data.pseudonyms import KEY
from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.deidentification import attributes, audit, readers, tool
from ecgstudy.deidentification.attacks import IGNORANT, LAZY, REFERENCE, SEMI, TIERS, RhythmAttacker
from ecgstudy.deidentification.cycles import CycleSet
from ecgstudy.deidentification.held import RawCohort, ReleasedCohort
from ecgstudy.deidentification.judgement import answers_of, judgement_of, losses, missed, worst_off
from ecgstudy.deidentification.plan import ATTACKER, PROTECTOR, VICTIM, groups
from ecgstudy.deidentification.release import PROTECTED, RAW
from ecgstudy.deidentification.results import STRONGEST
from ecgstudy.errors import RecordError, StudyError
from ecgstudy.evaluate.bootstrap import Resamples
from ecgstudy.evaluate.splits import SUBJECT
from ecgstudy.experiment.attackers import TemplateAttacker
from ecgstudy.experiment.jobs import Context

PERSONS, FS, GAIN = 24, 250, 200
LEADS = ("I", "II")
PLANTED = ("Smith", "Jane", "MRN-4711-0815", "19500101", "2020-02-05", "Hogwarts", "Voldemort")


@lru_cache
def beats() -> tuple[pd.DataFrame, np.ndarray]:
    """Table of two records of each synthetic person, and leads I and II as integers of 1/200 mV, (n, 2, 2000)."""
    cohort = SyntheticCohort(PERSONS, 1, 2, seconds=8.0, fs=FS, seed=3)
    table = cohort.records()
    return table, np.rint(GAIN * cohort.signals(table["record_id"])[:, :2]).astype(int)


def name_of(at: int) -> str:
    """Name of a record of the clinic, which names its patient."""
    return f"Smith_Jane_19500101_{at}"


def write(folder: Path, samples: np.ndarray, leads: tuple[str, ...] = LEADS, fs: float = FS) -> Path:
    """Write records under their names."""
    for at, values in enumerate(samples):
        write_record(folder, name_of(at), values, fs, leads, comments=("Name: Smith, Jane", "MRN-4711-0815"))
    return folder


def table(folder: Path, *columns: str) -> Path:
    """Write the table of who is who, with some of its columns; the file."""
    rows = beats()[0][["subject_id", *columns]]
    names = [name_of(at) for at in range(len(rows))]
    rows.assign(record=names, subject_id="Jane " + rows["subject_id"]).to_csv(folder / "subjects.csv", index=False)
    return folder / "subjects.csv"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write two records of each person and a table that names them, once."""
    folder = write(tmp_path_factory.mktemp("clinic") / "Hogwarts", beats()[1])
    return table(folder).parent


@pytest.fixture
def clinic(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the clinic; attackers need no training there, readers little, and there are few resamples."""
    for variable in ("CACHE", "DATA", "RESULTS"):
        monkeypatch.setenv(f"ECGSTUDY_{variable}", str(tmp_path / variable.lower()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(audit, "attackers", lambda _: {"template": TemplateAttacker(), "rhythm": RhythmAttacker()})
    monkeypatch.setattr(audit, "ROTATIONS", 1)
    monkeypatch.setattr(attributes, "EPOCHS", {"demo": 2, "real": 2})
    draw = Resamples.draw
    monkeypatch.setattr(Resamples, "draw", lambda persons, seed: draw(persons, seed, 20))
    return shutil.copytree(written, tmp_path / "Hogwarts")


def order(raw: Path, protected: Path | None = None, **asked: object) -> audit.Order:
    """Ask for what the command line asks for by default."""
    default = {"subjects": None, "key": None, "out": None, "seed": 0, "effort": "quick"}
    return audit.order_of(str(raw), str(protected) if protected else None, **default | asked)


def test_planted_identity_misses_a_limit_and_nobody_is_named(clinic: Path, capsys: pytest.CaptureFixture) -> None:
    released = shutil.copytree(clinic, clinic.with_name("Voldemort"))
    asked = ["audit", str(clinic), str(released), "--max-eer-gap", "1"]
    assert main([*asked, "--max-rank1", "0.3"]) == audit.MISSED
    said, page = capsys.readouterr().out, (clinic.parent / audit.PAGE).read_text()
    judged, where = said.splitlines()
    first_look = "A first look, by attackers who trained for a few epochs: "
    assert judged.startswith(f"{first_look}MISSED: persons: named right (rank-1) at most 0.3: ")
    assert where == f"Audit: {clinic.parent / audit.PAGE}"
    assert "persons: EER below" not in judged  # a gap is never over 1
    assert page.index(judged) < page.index("names the")
    assert "What this release gives away" in page
    assert "Sex, age and diagnoses were not asked for" in page
    for planted in PLANTED:
        assert planted.lower() not in page.lower(), planted
    assert str(clinic.parent) not in page
    (clinic.parent / "other.html").write_text("older")
    assert main([*asked, "--max-rank1", "1", "--out", "other.html"]) == 0
    assert "Every limit that was set is kept." in (clinic.parent / "other.html").read_text()
    assert main([*asked, "--max-sex-auroc", "1", "--out", "other.html"]) == audit.MISSED
    assert "sex (AUROC) at most 1: not asked" in capsys.readouterr().out
    # a page that was not named is not replaced
    assert main(asked) == 1
    assert "is there already; name it (--out)" in capsys.readouterr().err
    assert (clinic.parent / audit.PAGE).read_text() == page


def test_a_release_of_noise_is_never_called_private_because_attacks_fail(clinic: Path) -> None:
    noise = np.random.default_rng(1).normal(0, GAIN, beats()[1].shape).astype(int)
    key = clinic.parent / "fixed.key"  # who is whose stranger follows from it
    key.write_text("5a" * 32)
    judgement, code = audit.audit(order(clinic, write(clinic.with_name("out"), noise), max_rank1=0.9, key=str(key)))
    page = (clinic.parent / audit.PAGE).read_text()
    assert code == audit.MISSED
    assert "persons: named right (rank-1) at most 0.9: no valid attack" in judgement
    assert "That is no sign of privacy" in page


def test_records_as_they_are_and_readers_of_sex(
    clinic: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (clinic / "subjects.csv").unlink()
    assert main(["audit", str(clinic)]) == 1
    told = capsys.readouterr().err
    assert "Nothing can be asked of these records. Persons were not sought: 0 of them have several records" in told
    assert "Sex, age and diagnoses were not asked for" in told
    monkeypatch.setattr(audit, "ROTATIONS", 3)
    elsewhere = shutil.move(table(clinic, "sex"), clinic.with_name("who.csv"))
    rows = pd.read_csv(elsewhere)
    rows.assign(subject_id=rows["record"]).to_csv(elsewhere, index=False)
    assert main(["audit", str(clinic), "--subjects", str(elsewhere), "--max-sex-auroc", "0.4"]) == audit.MISSED
    page = (clinic.parent / audit.PAGE).read_text()
    assert "MISSED: sex (AUROC) at most 0.4: " in page
    assert "not asked" not in capsys.readouterr().out
    assert "What these records would give away, unprotected" in page
    assert "Persons were not sought" in page
    assert "Not asked for, because it is unknown or hardly differs: age." in page
    assert "Whether these persons are recognised was not asked." in page


def test_a_release_by_deidentify_is_matched_by_its_key(clinic: Path) -> None:
    key = clinic.parent / "Smith.key"
    key.write_text("5a" * 32)
    out = clinic.with_name("out")
    asked = {"strength": None, "key": str(key), "seed": 0, "keep_diagnoses": False}
    list(tool.deidentify(tool.order_of(str(clinic), str(out), "low_pass", **asked)))
    raw = RawCohort(clinic, key)
    released = ReleasedCohort(raw, out)
    assert released.records()["record_id"].tolist() == raw.records()["record_id"].tolist()
    assert len(released.records()) == 2 * PERSONS
    assert main(["audit", str(clinic), str(out)]) == 1  # without the key
    told = audit._stores(order(clinic, out, key=str(key)))
    assert set(told[0].records["record_id"]) == set(told[1].records["record_id"]) == set(raw.records()["record_id"])


@pytest.fixture
def ecgid(realdata: Callable[[str], Cohort]) -> Cohort:
    """Open ECG-ID before the clinic looks for data elsewhere."""
    return realdata("ecgid")


def test_both_commands_on_real_records(ecgid: Cohort, clinic: Path, capsys: pytest.CaptureFixture) -> None:
    rows = ecgid.records().groupby("subject_id").head(2)
    rows = rows[rows["subject_id"].duplicated(keep=False)].head(4 * PERSONS)
    clinic.with_name(KEY).write_text("5a" * 32)  # who is whose stranger follows from it
    for file in (ecgid.root / f"{name}.{end}" for name in rows["record_id"] for end in ("hea", "dat")):
        where = clinic.with_name("raw") / file.relative_to(ecgid.root)
        where.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, where)
    columns = rows[["record_id", "subject_id", "sex", "age"]].rename(columns={"record_id": "record"})
    columns.to_csv(clinic.with_name("raw") / "subjects.csv", index=False)
    raw, named = str(clinic.with_name("raw")), {}
    assert main(["audit", raw, "--max-rank1", "0.5"]) == audit.MISSED
    for method in ("own_cycle", "k_same"):
        assert main(["deidentify", raw, method, "--method", method]) == 0
        assert main(["audit", raw, method, "--max-rank1", "0", "--out", "page.html"]) == audit.MISSED
        named[method] = float(capsys.readouterr().out.split("(rank-1) at most 0: ")[1].split("\n")[0].rstrip("."))
        assert "Person_" not in Path("page.html").read_text()
    # a person's own cycle gives the person away; so does a mean over five records where two of them are the person's
    assert named["own_cycle"] > 0.9 > named["k_same"] > 0.3


def test_a_released_record_is_that_of_its_raw_one(clinic: Path) -> None:
    out = clinic.with_name("out")
    samples = beats()[1][:6] // 2
    write(out, samples)
    write_record(out, name_of(1), samples[1][::-1], FS, LEADS[::-1], unit="uV", gain=0.2)
    write_record(out, name_of(2), samples[2][:1], FS, LEADS[:1])
    write_record(out, name_of(3), samples[3][:, :-1], FS, LEADS)
    write_record(out, name_of(4), samples[4], FS * 2, LEADS)
    (out / f"{name_of(5)}.dat").write_bytes(b"short")
    write_record(out, "stranger", samples[0], FS, LEADS)
    raw = RawCohort(clinic, clinic.parent / "a.key")
    ids = [raw.pseudonym("record", name_of(at)) for at in range(5)]
    cohort = pickle.loads(pickle.dumps(ReleasedCohort(raw, out)))
    assert set(cohort.records()["record_id"]) == set(ids[:2])
    assert set(cohort.failures()["record_id"]) == set(ids[2:])
    for at in (0, 1):
        signal = cohort.signal(ids[at])
        assert (signal.leads, signal.unit) == (LEADS, "mV")
        np.testing.assert_allclose(signal.values, samples[at] / GAIN, rtol=1e-5)
    assert cohort.some(ids[:1]).records()["record_id"].tolist() == ids[:1]
    assert cohort.some(ids[:1]).digest() != cohort.digest()
    (out / f"{name_of(0)}.dat").write_bytes(b"short")
    with pytest.raises(RecordError, match=f"^{ids[0]}.dat is "):
        cohort.signal(ids[0])


def test_only_what_can_be_used_in_both_folders_is_attacked_and_the_rest_is_counted(clinic: Path) -> None:
    samples = beats()[1].copy()
    samples[0] = 0
    out = write(clinic.with_name("out"), samples[:40])
    (clinic / f"{name_of(1)}.dat").write_bytes(b"short")
    raw, released, left_out = audit._stores(order(clinic, out))
    assert raw.records["record_id"].tolist() == released.records["record_id"].tolist()
    assert left_out["Records."]["number"].tolist() == [47, 39, 38, 19]
    told = left_out["Records that cannot be used, by the reason."].values.tolist()
    assert told == [["PROTECTED", "flat", 1], ["RAW", "unreadable", 1]]


def test_where_every_record_is_destroyed_that_is_no_privacy(clinic: Path) -> None:
    flat = write(clinic.with_name("flat"), np.zeros_like(beats()[1]))
    same = write(clinic.with_name("same"), np.repeat(beats()[1][:1], 2 * PERSONS, axis=0))
    for folder in (flat, same):
        with pytest.raises(StudyError, match="which does not show that nobody can") as caught:
            audit.audit(order(clinic, folder))
        assert "Smith" not in str(caught.value)
    assert not (clinic.parent / audit.PAGE).exists()


@pytest.mark.parametrize(
    ("persons", "sentence"),
    [(0, "holds no WFDB record"), (1, "are of 1 person, and attackers"), (9, "are of 9 persons, and")],
)
def test_too_few_people(clinic: Path, persons: int, sentence: str, capsys: pytest.CaptureFixture) -> None:
    for path in clinic.glob("Smith*"):
        if int(path.stem.rpartition("_")[2]) >= 2 * persons:
            path.unlink()
    assert main(["audit", str(clinic)]) == 1
    assert sentence in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["RAW", "RAW"], "are the same or lie in each other"),
        (["RAW", "RAW/inner"], "are the same or lie in each other"),
        (["nowhere"], "nowhere holds no WFDB record"),
        (["RAW", "nowhere"], "nowhere is no folder, or one that you may not read"),
        (["RAW", "empty"], "empty holds no "),
        (["RAW", "others"], "none has the same name, or the pseudonym that the key makes of it"),
        (["RAW", "one_lead"], "have other leads, another rate or another length"),
        (["RAW", "shorter"], "have other leads, another rate or another length"),
        (["RAW", "--subjects", "nobody.csv"], "nobody.csv is no file that can be read; name the table"),
        (["RAW", "--key", "no.key"], "no.key is no file that can be read; name the key"),
        (["RAW", "--out", "page.txt"], "name a file that ends in .html"),
        (["RAW", "--out", "nowhere/page.html"], "in a folder that there is"),
        (["RAW", "others", "--out", "others/page.html"], "page.html would be shared with the release; name a place"),
        (["RAW", "--max-rank1", "5"], "--max-rank1 is 5; give a number from 0 to 1."),
        (["RAW", "--max-eer-gap", "nan"], "--max-eer-gap is nan; give a number from 0 to 1."),
        (["RAW", "--seed", "-1"], "The seed is -1; give a number from 0 to 2147483647."),
        (["RAW", "--seed", "4294967296"], "The seed is 4294967296; give a number from 0 to 2147483647."),
    ],
)
def test_a_mistake_is_one_sentence_and_costs_nothing(
    clinic: Path, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture
) -> None:
    (clinic.parent / "empty").mkdir()
    write(clinic.with_name("one_lead"), beats()[1][:2, :1], LEADS[:1])
    write(clinic.with_name("shorter"), beats()[1][:2, :, :-1])
    write_record(clinic.with_name("others"), "stranger", beats()[1][0], FS, LEADS)
    before = {path: path.read_bytes() for path in clinic.parent.rglob("*") if path.is_file()}
    assert main(["audit", *(part.replace("RAW", str(clinic)) for part in arguments)]) == 1
    said = capsys.readouterr()
    assert sentence in said.err
    assert said.err.count("\n") == 1
    assert {path: path.read_bytes() for path in before} == before
    assert not (clinic.parent / audit.PAGE).exists()


def row(view: str, tier: str, attacker: str, metric: str, value: float, valid: bool = True, **more: object) -> dict:
    """One row of results."""
    about = {"protocol": "cross_record", "task": "", "low": value - 0.1, "high": value + 0.1, "n": 20} | more
    return {"view": view, "tier": tier, "attacker": attacker, "metric": metric, "value": value, "valid": valid} | about


def persons(template: bool, network: bool = False, **more: object) -> list[dict]:
    """Rows of a release on which the template, and a network, are valid or not; R peaks alone always are."""
    found = [row(RAW, REFERENCE, "template", metric, value, **more) for metric, value in (("eer", 0.1), ("rank1", 0.9))]
    found += [row(RAW, REFERENCE, "rhythm", metric, value, **more) for metric, value in (("eer", 0.3), ("rank1", 0.2))]
    found.append(row(RAW, REFERENCE, "template", "enrolled", 20.0, **more))
    for tier, eer, rank1 in ((IGNORANT, 0.4, 0.15), (SEMI, 0.25, 0.35)):
        found += [row(PROTECTED, tier, "template", "eer", eer, template, **more)]
        found += [row(PROTECTED, tier, "template", "rank1", rank1, template, **more)]
        found += [row(PROTECTED, tier, "beatnet", "rank1", 0.5, network, **more)]
        found += [
            row(PROTECTED, tier, "rhythm", "eer", 0.3, **more),
            row(PROTECTED, tier, "rhythm", "rank1", 0.2, **more),
        ]
    return found


def test_the_worst_that_a_valid_attack_of_any_tier_reaches_is_judged() -> None:
    answers = answers_of(pd.DataFrame(persons(True)), PROTECTED)
    named, gap = answers["max_rank1"], answers["max_eer_gap"]
    assert (named.value, named.chance, named.floor, named.by) == (0.35, 1 / 20, 0.2, "template (semi informed)")
    assert gap.value == pytest.approx(0.3 - 0.25)
    assert answers_of(pd.DataFrame(persons(True, True)), PROTECTED)["max_rank1"].value == 0.5
    assert answers_of(pd.DataFrame(persons(True)), RAW)["max_rank1"].value == 0.9
    assert answers["max_sex_auroc"] == answers["max_age_auroc"] == "not asked"
    assert missed(answers, {"max_rank1": 0.35, "max_eer_gap": 0.06}) == []
    assert missed(answers, {"max_rank1": 0.34}) == ["persons: named right (rank-1) at most 0.34: 0.350"]
    sure = answers["max_rank1"]._replace(high=0.35)
    told = [
        judgement_of(answers | {"max_rank1": rank1}, {"max_rank1": 0.35}, [])
        for rank1 in (sure, sure._replace(high=0.4))
    ]
    assert told[0] == "Every limit that was set is kept."
    assert told[1] == f"{told[0]} The intervals of these reach over theirs: persons: named right (rank-1)."


def test_what_is_not_valid_or_not_asked_never_keeps_a_limit() -> None:
    # R peaks alone are valid, and would keep every limit
    answers = answers_of(pd.DataFrame(persons(False)), PROTECTED)
    assert answers["max_rank1"] == answers["max_eer_gap"] == "no valid attack"
    assert missed(answers, dict.fromkeys(answers, 1.0)) == [
        "persons: named right (rank-1) at most 1: no valid attack",
        "persons: EER below that of the heart rate alone at most 1: no valid attack",
        "sex (AUROC) at most 1: not asked",
        "60 years or older (AUROC) at most 1: not asked",
    ]
    # and without a limit it is told all the same
    assert missed(answers, {}) == ["no attack was valid, which proves nothing"]
    assert missed(answers_of(pd.DataFrame(persons(True)), PROTECTED), {}) == []
    # nor where another day was asked about in vain
    both = persons(True) + persons(False, protocol="cross_day")
    assert answers_of(pd.DataFrame(both), PROTECTED)["max_rank1"] == "no valid attack"
    # nor where nothing trained for the release was valid
    ignorant = pd.DataFrame(persons(True))
    ignorant["valid"] = ignorant["valid"] & ~((ignorant["tier"] == SEMI) & (ignorant["attacker"] == "template"))
    assert answers_of(ignorant, PROTECTED)["max_rank1"] == "no valid attack"
    nothing = [row(RAW, REFERENCE, "reader", "auroc", 0.5, False, task="sex")]
    nothing += [row(PROTECTED, SEMI, "reader", "auroc", 0.5, False, task="sex")]
    assert answers_of(pd.DataFrame(nothing), PROTECTED)["max_sex_auroc"] == "no valid attack"
    undefined = persons(True)
    for one in undefined:
        one["value"] = math.nan if one["attacker"] == "rhythm" else one["value"]
    answers = answers_of(pd.DataFrame(undefined), PROTECTED)
    assert len(missed(answers, {"max_eer_gap": 1.0})) == 1


def test_an_auroc_under_one_half_is_the_other_answer_and_has_its_floor() -> None:
    rows = [
        row(RAW, REFERENCE, "reader", "auroc", 0.8, task="sex"),
        row(PROTECTED, LAZY, "reader", "auroc", 0.6, task="sex"),
    ]
    rows += [
        row(PROTECTED, SEMI, "reader", "auroc", 0.2, task="sex"),
        row("floor", "", "rhythm", "auroc", 0.55, task="sex"),
    ]
    rows += [row(PROTECTED, "trained_on_protected", "reader", "auroc", 0.95, task="sex")]
    rows += [row(PROTECTED, LAZY, "reader", "auroc_loss", 0.05, task="AF")]
    rows += [row(PROTECTED, SEMI, "reader", "auroc_loss", 0.04, task="AF")]
    rows += [row(PROTECTED, LAZY, "reader", "auroc_loss", 0.06, task="superclass")]
    found = answers_of(pd.DataFrame(rows), PROTECTED)["max_sex_auroc"]
    assert found[:3] == pytest.approx((0.8, 0.7, 0.9))
    assert found[3:] == (20, 0.5, 0.55, "reader (semi informed)")
    assert answers_of(pd.DataFrame(rows[:-4]), RAW)["max_sex_auroc"].value == 0.8
    assert losses(pd.DataFrame(rows))[["task", "value"]].values.tolist() == [
        ["AF", 0.05],
        ["mean of those stated", 0.06],
    ]


def test_the_worst_off_are_those_of_the_strongest_valid_attack() -> None:
    rows = [
        row(PROTECTED, tier, STRONGEST, metric, value, valid)
        for tier, eer, valid in ((IGNORANT, 0.3, True), (SEMI, 0.2, True), (LAZY, 0.1, False))
        for metric, value in (("eer", eer), ("risk_p90", 1 - eer))
    ]
    assert worst_off(pd.DataFrame(rows), PROTECTED) == {"eer": 0.2, "risk_p90": 0.8}
    assert worst_off(pd.DataFrame(rows), RAW) == {}


def test_two_groups_where_nobody_knows_the_protector() -> None:
    records = pd.DataFrame({SUBJECT: [f"p{at // 2}" for at in range(40)]})
    context = Mock(stores={audit.OWN: Mock(records=records)})
    three, two = (groups(context, audit.OWN, records, 0, protector) for protector in (True, False))
    assert set(three) == {PROTECTOR, ATTACKER, VICTIM}
    assert set(two) == {ATTACKER, VICTIM}
    np.testing.assert_array_equal(two == VICTIM, three == VICTIM)


def test_who_is_said_to_have_something_else_is_without_a_diagnosis(monkeypatch: pytest.MonkeyPatch) -> None:
    records = pd.DataFrame({"superclasses": [("NORM",)] * 4 + [("MI",), ("NORM",)] * 10 + [()], "age": 50.0})
    records = records.assign(
        strat_fold=[1] * 4 + [5] * 20 + [2], sex="F", subject_id="p", record_id=[*"abcdefghijklmnopqrstuvwxy"]
    )
    cycles = CycleSet(np.zeros((25, 1, 80)), np.zeros((25, 4)), records)
    monkeypatch.setattr(attributes, "_both", lambda *_: (cycles, cycles))
    monkeypatch.setattr(readers, "train_reader", Mock())
    monkeypatch.setattr(readers, "probabilities", lambda _, asked: {"MI": np.full((len(asked), 2), 0.5)})
    job = attributes.ReadingJob(audit.OWN, RAW, REFERENCE, 0, 0, protector=False)
    found = attributes.read(Mock(profile="demo"), job).set_index("record")["truth"]
    np.testing.assert_array_equal(found[[*"abcdy"]], [0, 0, 0, 0, np.nan])


def test_a_reader_counts_where_it_beats_chance_on_raw_records(clinic: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table(clinic, "sex", "age")
    monkeypatch.setattr(audit, "ROTATIONS", 5)
    monkeypatch.setattr(audit, "read", planted_reading)
    raw, released, _ = audit._stores(order(clinic, shutil.copytree(clinic, clinic.with_name("out"))))
    context = Context("mine-quick", {audit.OWN: raw}, "cpu", {})
    rows, gaps = audit._read(context, released, 0)
    assert gaps == []
    answers = answers_of(rows, PROTECTED)
    assert answers["max_sex_auroc"].value == 1.0  # everybody was asked, and the planted reader knows
    assert answers["max_sex_auroc"].n == PERSONS
    assert answers["max_sex_auroc"].by == "reader (lazy informed)"
    assert answers["max_age_auroc"] == "no valid attack"
    assert set(rows.loc[rows["view"] == "floor", "task"]) == {"sex", "over_60"}
    # nor where what was trained on the release has not even learnt its own people
    monkeypatch.setattr(audit, "read", lambda *told: planted_reading(*told, learnt=(REFERENCE, LAZY)))
    rows, _ = audit._read(Context("mine-quick", {audit.OWN: raw}, "cpu", {}, cache=clinic.with_name("x")), released, 0)
    assert answers_of(rows, PROTECTED)["max_sex_auroc"] == "no valid attack"


def planted_reading(context: Context, job: attributes.ReadingJob, learnt: Sequence[str] = TIERS) -> pd.DataFrame:
    """Know the sex, unless trained on the release, and never the age; of some tiers nothing of those learnt from."""
    records = context.stores[job.cohort].records
    asked = records[groups(context, job.cohort, records, job.rotation, job.protector) == VICTIM]
    about = {"person": asked[SUBJECT], "record": asked["record_id"], "age": asked["age"]}
    sex, old = (asked["sex"] == "M").astype(float), (asked["age"] >= 60).astype(float)
    knows = sex if job.tier in (REFERENCE, LAZY) else 0.5
    parts = [pd.DataFrame({**about, "task": "sex", "truth": sex, "p": knows})]
    parts += [pd.DataFrame({**about, "task": "over_60", "truth": old, "p": 0.5})]
    asked = pd.concat(parts, ignore_index=True).assign(attacker="reader", own=False)
    return pd.concat([asked, asked.assign(own=True, p=asked["truth"] if job.tier in learnt else 0.5)])
