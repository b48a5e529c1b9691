"""Bad input, from the files to the report: each kind is named in one sentence, and harms nothing beside it."""

import errno
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import papermill
import pytest
from fake_cohort import waveform
from wfdb_trees import motion_tree, write_record

from ecgstudy.__main__ import main
from ecgstudy.data.cohorts import cohorts_of, data_fingerprint
from ecgstudy.data.own import OWN, FolderCohort, OwnCohort
from ecgstudy.errors import LeakageError, StudyError
from ecgstudy.ingestion import figures, stores, tables
from ecgstudy.ingestion.stores import open_usable_stores
from ecgstudy.signals.ingest import build_store

FS = 250
GOOD = ["good_1a", "good_1b", "good_2", "odd_unit"]
"""Records that nothing may happen to; by name, they differ in heart rate or in unit."""
DESCRIBED = {
    "flat": ("flat", "lead I is flat; lead II is flat; check its electrodes and the gain in its header"),
    "leads": (
        "unreadable",
        "leads.hea describes no leads, or not as many as it claims; download or export the record again.",
    ),
    "missing": ("unreadable", "missing.dat is missing; download or export the record again."),
    "not_a_number": ("not a number", "lead I is not a number; lead II is not a number; export it again"),
    "one_sample": ("too short", "it lasts 0.004 s, less than 5 s; bring a longer recording"),
    "outside": ("unreadable", "outside.hea names a signal file outside its own folder; do not trust"),
    "oversized": ("unreadable", "oversized.dat is longer than its header says; download or export the record again."),
    "samples": ("unreadable", "samples.dat is shorter than its header says; download or export the record again."),
    "saturated": ("saturated", "lead I is saturated; lead II is saturated; check the amplifier's range"),
    "truncated": ("unreadable", "truncated.dat is shorter than its header says; download or export the record again."),
    "twice": ("unreadable", "subjects.csv line 3, column record: lists its record twice; keep one row a record."),
    "two_persons_a": ("same waveform as another person", "another person (two_persons_b); correct the person"),
    "two_persons_b": ("same waveform as another person", "another person (two_persons_a); correct the person"),
}
"""Reason and words of the sentence of each bad record."""


def _record(folder: Path, name: str, values: np.ndarray, unit: str = "mV") -> None:
    samples = np.where(np.isnan(values), -32768, np.rint(1000 * values)).astype(int)
    write_record(folder, name, samples, fs=FS, leads=("I", "II"), unit=unit, gain=1000.0)


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def _good_records(folder: Path) -> None:
    for name in GOOD[:-1]:
        _record(folder, name, waveform(name, FS, 2))
    _record(folder, "odd_unit", waveform("other_leads", FS, 2), unit="furlong")


def _bad_records(folder: Path) -> None:
    """Write one record of each kind of :data:`DESCRIBED`."""
    beats = waveform("bad", FS, 2)
    for offset, name in enumerate(DESCRIBED):
        _record(folder, name, beats + 0.01 * offset)
    _record(folder, "flat", np.zeros_like(beats))
    _record(folder, "not_a_number", np.full_like(beats, np.nan))
    _record(folder, "one_sample", beats[:, :1])
    _record(folder, "saturated", np.clip(3 * beats, -0.2, 0.35))
    _record(folder, "two_persons_a", beats)
    _record(folder, "two_persons_b", beats)
    (folder / "missing.dat").unlink()
    whole = (folder / "truncated.dat").read_bytes()
    (folder / "truncated.dat").write_bytes(whole[:-100])
    (folder / "oversized.dat").write_bytes(whole + bytes(8))
    _edit(folder / "leads.hea", "leads 2", "leads 3")
    _edit(folder / "samples.hea", " 2500", " 5000")
    # the file is there and would be read by whoever followed the name
    (folder.parent / "outside.dat").write_bytes(whole)
    _edit(folder / "outside.hea", "outside.dat", "../outside.dat")


def _subjects(folder: Path) -> None:
    """Write who is who: one row a record and a second one for "twice"; two records are of one person."""
    person = {"good_1b": "p-good_1a"}
    names = ["good_1a", "twice", "twice", *(name for name in [*GOOD, *DESCRIBED] if name not in ("good_1a", "twice"))]
    rows = [f"{name},{person.get(name, f'p-{name}')},1,40,F" for name in names]
    (folder / "subjects.csv").write_text("\n".join(["record,subject_id,session,age,sex", *rows]) + "\n")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Run notebook 01 as a user does on good and bad records beside a folder whose table is damaged."""
    base = tmp_path_factory.mktemp("study")
    folder = base / "data" / OWN / "clinic"
    _good_records(folder)
    _bad_records(folder)
    _subjects(folder)
    _table_in_no_coding(base / "data" / OWN / "damaged")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    own = {f"ECGSTUDY_{name}": str(base / name.lower()) for name in ("DATA", "RESULTS", "CACHE")}
    # a few synthetic persons stand beside the records: every process imports this first
    made = "from ecgstudy.data.synthetic import SyntheticCohort as cohort"
    few = "cohort.__init__.__defaults__ = (4, 1, 1, *cohort.__init__.__defaults__[3:])"
    (base / "sitecustomize.py").write_text(f"{made}\n{few}\n")
    own["PYTHONPATH"] = os.pathsep.join([str(base), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "ecgstudy", "run", "01_ingestion", "-p", "profile", "mine"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | own, check=False)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    with pytest.MonkeyPatch.context() as there:
        there.setenv("ECGSTUDY_DATA", own["ECGSTUDY_DATA"])
        cohort = OwnCohort("own-1", folder)
    hidden = {name: cohort.pseudonym("record", name) for name in (*GOOD, *DESCRIBED)}
    return SimpleNamespace(base=base, done=done, results=base / "results" / "mine" / "01_ingestion", hidden=hidden)


def _table(study: SimpleNamespace, name: str) -> pd.DataFrame:
    return pd.read_csv(study.results / "tables" / f"{name}.csv")


def test_the_study_goes_on_and_its_results_are_whole(study: SimpleNamespace) -> None:
    assert study.done.returncode == 0, study.done.stderr
    assert "Traceback" not in study.done.stderr
    left = {path.name for path in study.results.iterdir()}
    assert left == {"01_ingestion.ipynb", "metrics.json", "report.json", "tables", "figures"}
    assert [path for path in study.base.rglob("*") if ".partial" in path.name] == []


def test_good_records_are_unharmed(study: SimpleNamespace, tmp_path: Path) -> None:
    cohorts = _table(study, "cohorts").set_index("cohort")
    assert cohorts.index.tolist() == ["own-1"]
    counts = cohorts.loc["own-1", ["records", "persons", "excluded"]].tolist()
    assert counts == [len(GOOD), len(GOOD) - 1, len(DESCRIBED)]
    # a unit nobody knows is never taken for mV
    assert cohorts.loc["own-1", "unit"] == "mV, other"
    _good_records(tmp_path)
    alone = build_store(FolderCohort(tmp_path), tmp_path / "cache", workers=1)
    (folder,) = (study.base / "cache" / "mine").glob("store-own-1-*")
    beside_bad = stores.RecordStore(folder)
    assert set(beside_bad.records["record_id"]) == {study.hidden[name] for name in GOOD}
    for name in GOOD:
        np.testing.assert_array_equal(beside_bad.signal(study.hidden[name]), alone.signal(name))


@pytest.mark.parametrize("record_id", DESCRIBED)
def test_a_bad_record_has_its_reason_and_one_sentence(study: SimpleNamespace, record_id: str) -> None:
    rows = _table(study, "excluded_records").set_index("record_id")
    (reason, words), hidden = DESCRIBED[record_id], study.hidden
    assert rows.loc[hidden[record_id], ["cohort", "reason"]].tolist() == ["own-1", reason]
    sentence = rows.loc[hidden[record_id], "sentence"]
    for name in (record_id, "two_persons_a", "two_persons_b"):
        words = re.sub(rf"\b{name}(?=\.|\))", hidden[name], words)
    assert words in sentence
    assert hidden[record_id] in sentence or record_id == "twice"
    assert sentence.endswith(".")
    assert "\n" not in sentence


def test_nothing_else_is_left_out_but_the_folder_with_a_damaged_table(study: SimpleNamespace) -> None:
    rows = _table(study, "excluded_records").set_index("record_id")
    assert set(rows.index) == {*(study.hidden[name] for name in DESCRIBED), "every record"}
    assert rows.loc["every record"].tolist() == [
        "own-2",
        "unreadable",
        "own-2/subjects.csv, line 2: is not UTF-8 text; save it as CSV UTF-8.",
    ]
    counts = _table(study, "exclusions").set_index(["cohort", "reason"])["records"]
    assert counts.loc[("own-1", "unreadable")] == 7
    assert np.isnan(counts.loc[("own-2", "unreadable")])
    page = (study.results / "01_ingestion.ipynb").read_text()
    assert "No record of own-2 can be used: it takes no part in the study." in page


def test_results_name_no_folder_of_the_machine(study: SimpleNamespace) -> None:
    for path in study.results.rglob("*"):
        assert path.is_dir() or str(study.base).encode() not in path.read_bytes(), path.name


def test_no_name_of_ones_own_is_in_any_result_or_cache(study: SimpleNamespace) -> None:
    names = re.compile("|".join((*GOOD[:-1], "two_persons", "not_a_number", "p-good", "clinic", "furlong")).encode())
    for path in [*study.results.rglob("*"), *(study.base / "cache").rglob("*")]:
        assert not names.search(str(path.relative_to(study.base)).encode())
        assert path.is_dir() or not names.search(path.read_bytes()), path.name


def test_the_trace_of_ones_own_record_is_not_drawn(study: SimpleNamespace) -> None:
    (folder,) = (study.base / "cache" / "mine").glob("store-own-1-*")
    own = stores.RecordStore(folder)
    figure = figures.traces_figure({"own-1": own, "ecgid": own}, own=False)
    hidden, drawn = figure.axes[:2]
    assert len(hidden.lines) == 0
    assert "a trace\nidentifies its owner" in hidden.texts[0].get_text()
    assert len(drawn.lines) > 0
    assert len(figures.traces_figure({"own-1": own}, own=True).axes[0].lines) > 0
    beats = figures.beats_figure({"own-1": own, "ecgid": own})
    assert [ax.get_title().split("\n")[0] for ax in beats.axes] == ["ecgid"]
    plt.close("all")


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders of the test's own for data, results and cache; returns the folder that holds them."""
    for name in ("data", "results", "cache"):
        monkeypatch.setenv(f"ECGSTUDY_{name.upper()}", str(tmp_path / name))
    monkeypatch.setattr(stores, "build_store", partial(build_store, workers=1))
    return tmp_path


def _only_bad_records(folder: Path) -> str:
    _record(folder, "flat", np.zeros((2, 2500)))
    return r"No record of own-1 can be used \(flat 1\); the first: Record r\w{12} was left out: lead I is flat"


def _table_in_no_coding(folder: Path) -> str:
    _good_records(folder)
    (folder / "subjects.csv").write_bytes(b"record,subject_id\ngood_2,Jos\x81\n")
    return r"own-1/subjects\.csv, line 2: is not UTF-8 text; save it as CSV UTF-8"


def _table_without_a_column(folder: Path) -> str:
    _good_records(folder)
    (folder / "subjects.csv").write_text("record,patient\ngood_2,Bob\n")
    return r"own-1/subjects\.csv, line 1: there is no column subject_id"


@pytest.mark.parametrize("make", [_only_bad_records, _table_in_no_coding, _table_without_a_column])
def test_a_cohort_without_a_usable_record_leaves_the_others_alone(places: Path, make: Callable[[Path], str]) -> None:
    words = make(places / "data" / OWN / "clinic")
    motion_tree(places / "data" / "motion")
    opened, lost = open_usable_stores("mine", ["own-1", "motion"], 0)
    assert list(opened) == ["motion"]
    assert lost["cohort"].unique().tolist() == ["own-1"]
    assert str(places) not in lost["sentence"].str.cat()
    finding = tables.exclusion_finding(tables.exclusion_table(opened, lost), lost)
    assert "No record of own-1 can be used: it takes no part in the study." in finding
    with pytest.raises(StudyError, match=words):
        open_usable_stores("mine", ["own-1"], 0)


def test_where_nothing_is_left_the_command_says_so_and_fails(
    places: Path, trial: Callable[..., Path], capsys: pytest.CaptureFixture
) -> None:
    words = _only_bad_records(places / "data" / OWN / "clinic")
    opened = 'from ecgstudy.ingestion.stores import *\nopen_usable_stores(profile, ["own-1"], seed)'
    trial(opened, profile="mine")
    assert main(["run", "90_trial"]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert re.match(f"ecgstudy: {words}", said)
    assert [path.name for path in (places / "results").rglob("[!.]*.*")] == ["90_trial.failed.ipynb"]


@pytest.mark.parametrize(("kind", "words"), [("file", "that is a file"), ("nothing", "there is no such folder")])
def test_a_data_folder_that_is_none_is_explained(places: Path, kind: str, words: str) -> None:
    if kind == "file":
        (places / "data").write_text("")
    with pytest.raises(StudyError, match=rf"No real cohort was found in {places}/data \({words}.*ECGSTUDY_DATA"):
        cohorts_of("real")
    with pytest.raises(StudyError, match=rf"No records of your own were found in {places}/data/{OWN} \({words}"):
        cohorts_of("mine")


def test_what_may_not_be_read_is_explained(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # permissions do not bind the superuser, whom tests in containers often run as
    allowed = os.access
    folder = places / "data" / OWN
    _good_records(folder)

    def refuse(path: Path, mode: int) -> bool:
        return allowed(path, mode) and not (mode & os.R_OK and Path(path).name in ("good_1b.dat", "good_2.hea"))

    monkeypatch.setattr(os, "access", refuse)
    store = build_store(FolderCohort(folder), places / "cache", workers=1)
    assert store.records["record_id"].tolist() == ["good_1a", "odd_unit"]
    sentences = store.exclusions.set_index("record_id")["sentence"]
    assert sentences["good_1b"] == "good_1b.dat may not be read; give yourself permission to read it."
    assert sentences["good_2"] == "good_2.hea may not be read; give yourself permission to read it."
    monkeypatch.setattr(os, "access", lambda _, mode: not mode & os.R_OK)
    with pytest.raises(StudyError, match=r"\(you may not read it\)"):
        cohorts_of("real")


def test_a_link_that_leads_nowhere_does_not_stop_the_engine(places: Path) -> None:
    _good_records(places / "data" / OWN)
    (places / "data" / OWN / "gone.hea").symlink_to("nowhere.hea")
    assert set(data_fingerprint("mine")) == {"own-1"}
    (row,) = FolderCohort().failures().to_dict("records")
    assert (row["record_id"], row["reason"]) == ("gone", "is missing")


@pytest.mark.parametrize("name", ["results", "results/real"])
def test_results_that_cannot_be_written_are_explained(
    places: Path, trial: Callable[..., Path], name: str, capsys: pytest.CaptureFixture
) -> None:
    (places / name).parent.mkdir(exist_ok=True)
    (places / name).write_text("a file stands in the way")
    trial(profile="real")
    assert main(["run", "90_trial"]) == 1
    said = capsys.readouterr().err
    assert re.search(rf"{places}/results\S* cannot be written \(.*ECGSTUDY_RESULTS to folders that are", said)
    assert said.count("\n") == 1


def test_a_cache_that_cannot_be_written_is_explained(places: Path) -> None:
    _good_records(places / "data" / "wfdb-folder")
    (places / "cache").write_text("a file stands in the way")
    with pytest.raises(StudyError, match=rf"{places}/cache\S* cannot be written .*ECGSTUDY_CACHE"):
        open_usable_stores("real", ["wfdb-folder"], 0)


def test_a_disk_that_fills_while_a_notebook_runs_is_one_sentence(
    places: Path, trial: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    trial(profile="real")
    monkeypatch.setattr(papermill, "execute_notebook", full)
    assert main(["run", "90_trial"]) == 1
    said = capsys.readouterr().err
    assert f"No space is left on the disk that holds {places}/results/real/90_trial; free some" in said
    assert said.count("\n") == 1


def test_every_error_of_the_study_is_known_to_the_runner(project_root: Path) -> None:
    # the runner shows the sentence of an error alone where it knows the error's name, and loads no stage's modules
    defining = {
        path.name
        for path in (project_root / "ecgstudy").rglob("*.py")
        if re.search(r"^class \w+\(\w*(Study|Record|DataNotFound|Leakage)Error\)", path.read_text(), re.MULTILINE)
    }
    assert defining == {"errors.py"}


def _two_exports(data: Path, tables: tuple[str, str]) -> None:
    """Write two folders of exports that overlap, with who is who in each."""
    holds = (("good_1a", "good_1b", "good_2"), ("good_1b", "good_2", "other_leads"))
    for name, records, who in zip(("april", "may"), holds, tables, strict=True):
        for record in records:
            _record(data / OWN / name, record, waveform(record, FS, 2))
        rows = [f"{record},{person}" for record, person in zip(records, who.split(), strict=True)]
        (data / OWN / name / "subjects.csv").write_text("\n".join(["record,subject_id", *rows]) + "\n")


def test_a_person_of_two_folders_stays_in_the_first(places: Path) -> None:
    _two_exports(places / "data", ("Ann Ann Bob", "Annie Rob Rob"))
    opened, lost = open_usable_stores("mine", ["own-1", "own-2"], 0)
    # the record of Rob that stands in one folder only goes with the other: cohorts must not share persons
    assert list(opened) == ["own-1"]
    assert lost["cohort"].tolist() == ["own-2"] * 3
    assert set(lost["reason"]) == {"person of another folder"}
    first = OwnCohort("own-1", places / "data" / OWN / "april")
    told = dict(zip(lost["record_id"], lost["sentence"], strict=True))
    second = OwnCohort("own-2", places / "data" / OWN / "may")
    assert f"it is own-1/{first.pseudonym('record', 'good_2')} too" in told[second.pseudonym("record", "good_2")]
    assert f"its person is own-1/{first.pseudonym('person', 'Bob')}" in told[second.pseudonym("record", "other_leads")]
    assert tables.leakage_table(opened).empty
    assert "No record of own-2 can be used" in tables.exclusion_finding(tables.exclusion_table(opened, lost), lost)


def test_who_is_new_in_a_second_folder_takes_part(places: Path) -> None:
    _two_exports(places / "data", ("Ann Ann Bob", "Ann Bob Cy"))
    opened, lost = open_usable_stores("mine", ["own-1", "own-2"], 0)
    assert lost.empty
    store = pickle.loads(pickle.dumps(opened["own-2"]))
    cy = OwnCohort("own-2", places / "data" / OWN / "may").pseudonym("record", "other_leads")
    assert store.records["record_id"].tolist() == store.beats["record_id"].unique().tolist() == [cy]
    assert store.exclusions["reason"].tolist() == ["person of another folder"] * 2
    assert store.manifest["key"] != stores.RecordStore(store.folder).manifest["key"]
    assert tables.leakage_table(opened).empty


@pytest.mark.parametrize("who", [("Ann Ann Bob", "Ann Ann Cy"), ("Ann Ann Ann", "Ann Bob Cy")])
def test_folders_that_contradict_each_other_stop_the_study_with_a_sentence(places: Path, who: tuple[str, str]) -> None:
    _two_exports(places / "data", who)
    with pytest.raises(LeakageError, match=r"^Record r\w{12} of own-2 is own-1/r\w{12} too, and who is who differs"):
        open_usable_stores("mine", ["own-1", "own-2"], 0)
