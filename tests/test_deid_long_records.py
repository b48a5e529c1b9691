"""Half-hour records: early minutes against late ones, and planted classes of beats that a release keeps or loses."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from ecgstudy.data.base import Cohort, Signal, as_tables
from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.deidentification import long_records, plan, tables
from ecgstudy.deidentification.attacks import LAZY, REFERENCE, SEMI, Strangers, attackers
from ecgstudy.deidentification.attributes import ReadingJob
from ecgstudy.deidentification.cycles import cycle_set
from ecgstudy.deidentification.long_records import CLASSES, COHORT, EarlyAndLate, LaterMinutes, beats_of, read_beats
from ecgstudy.deidentification.protections import OwnCycle, Protection, Unprotected
from ecgstudy.deidentification.release import RAW, ReleaseCohort, release_store
from ecgstudy.deidentification.results import BEST
from ecgstudy.errors import NotApplicableError, StudyError
from ecgstudy.evaluate.bootstrap import Resamples
from ecgstudy.evaluate.protocols import CrossDay
from ecgstudy.experiment.jobs import Context, Outcome
from ecgstudy.signals.ingest import build_store
from ecgstudy.signals.store import RecordStore

FS, SECONDS, RR_S = 100.0, 60.0, 0.8
STATED = {101: "a", 106: "b", 201: "twice", 100: "c", 103: "d", 202: "twice"}
"""Persons of some records; the beats of 201 bear wrong classes, so that who learns from that person errs."""


class Beating(Cohort):
    """A minute of each record, a beat every 0.8 s: every fourth has a deep T wave, and is annotated as ventricular.

    R peaks are where they would be, or the time of a released beat would tell what its shape does not.
    """

    name: ClassVar[str] = COHORT
    licence: ClassVar[str] = "MIT"
    how_to_get: ClassVar[str] = "Made by the tests."

    @cached_property
    def _scan(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        rows = []
        for number, person in STATED.items():
            at, deep = self._beats(number)
            letters = np.where(deep != (number == 201), "V", "N")
            row = {"record_id": f"{number}/0", "subject_id": person, "session": 1, "fs": FS, "leads": ("II",)}
            row |= {"n_samples": round(SECONDS * FS), "unit": "mV", "source": str(number)}
            rows.append(row | {"beat_s": tuple(at), "beat_class": "".join(letters)})
        return as_tables(pd.DataFrame(rows), [])

    def _beats(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Give the times of the beats of a record, and whether each is ventricular."""
        at = np.arange(0.5 + number % 13 / 30, SECONDS - 0.5, RR_S)
        return at, np.arange(len(at)) % 4 == 3

    def signal(self, record_id: str) -> Signal:
        """Make the samples."""
        times, values = np.arange(round(SECONDS * FS)) / FS, 0.0
        for at, deep in zip(*self._beats(int(record_id.split("/")[0])), strict=True):
            values = values + np.exp(-0.5 * ((times - at) / 0.02) ** 2)
            values = values + (-0.3 if deep else 0.2) * np.exp(-0.5 * ((times - at - 0.25) / 0.04) ** 2)
        return Signal(values[None].astype(np.float32), FS, ("II",), "mV")

    def digest(self) -> str:
        """Of nothing but the class."""
        return "beating"


@pytest.fixture(autouse=True)
def _patient_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few beats make one step an epoch."""
    monkeypatch.setattr(long_records, "EPOCHS", 200)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    cache = tmp_path_factory.mktemp("cache")
    store = build_store(Beating(), cache, FS, delineate=False, workers=1)
    return SimpleNamespace(stores={COHORT: store}, cache=cache)


def _released(context: SimpleNamespace, protection: Protection) -> Path:
    """Folder of a release of the planted records."""
    store = context.stores[COHORT]
    cycles = cycle_set(store, ("II",))
    cohort = ReleaseCohort(store, ("II",), cycles, protection, 0, repr(protection))
    return release_store(cohort, context.cache).folder


def _auroc(table: pd.DataFrame, name: str = "aami_V") -> float:
    """AUROC of a class."""
    part = table[table["task"] == name]
    return roc_auc_score(part["truth"], part["p"])


@pytest.mark.parametrize("tier", [LAZY, SEMI])
def test_a_release_that_keeps_beats_keeps_their_classes_and_one_of_median_beats_loses_them(
    tier: str, context: SimpleNamespace
) -> None:
    def job(protection: Protection) -> ReadingJob:
        return ReadingJob(COHORT, "any.1", tier, 0, 0, _released(context, protection))

    assert _auroc(read_beats(context, job(Unprotected()))) > 0.95
    assert abs(_auroc(read_beats(context, job(OwnCycle()))) - 0.5) < 0.15


def test_beats_are_learnt_from_other_persons_than_those_asked(context: SimpleNamespace) -> None:
    table = read_beats(context, ReadingJob(COHORT, RAW, REFERENCE, 0, 0))
    assert set(table["person"]) == {"c", "d", "twice"}
    assert not table.duplicated(["record", "task"]).any()
    assert set(table["task"]) == {f"aami_{name}" for name in CLASSES}
    # the person in both parts bears wrong classes in the part that would be learnt from
    assert _auroc(table) > 0.95
    assert table.loc[table["task"].isin(["aami_S", "aami_F"]), "p"].isna().all()


def test_where_no_beat_is_left_to_learn_from_nothing_is_asked(context: SimpleNamespace) -> None:
    def without(*numbers: str) -> SimpleNamespace:
        store = RecordStore(context.stores[COHORT].folder)
        store._records = store.records[~store.records["source"].isin(numbers)]
        return SimpleNamespace(stores={COHORT: store})

    job = ReadingJob(COHORT, RAW, REFERENCE, 0, 0)
    with pytest.raises(StudyError, match="all of one class"):
        read_beats(without("101", "106"), job)
    with pytest.raises(StudyError, match="no annotated beat"):
        read_beats(without("100", "103", "202"), job)


def test_intervals_are_those_between_peaks_that_were_found() -> None:
    found = long_records._intervals(np.array([1.02, 2.0, 2.5]), np.array([1.0, 2.0, 2.9]))
    np.testing.assert_allclose(found[1], [1.0, 0.9, 1.0 / 0.95, 0.9 / 0.95, 1.0 / 0.9])
    assert np.isnan(found[0, 0])
    assert found[0, 1] == 1.0
    assert np.isnan(found[2]).all()  # no peak within 150 ms
    assert np.isnan(long_records._intervals(np.array([1.0]), np.array([1.0]))).all()


def test_a_beat_that_does_not_lie_whole_in_its_recording_or_has_no_class_is_not_asked(
    context: SimpleNamespace,
) -> None:
    store = RecordStore(context.stores[COHORT].folder)
    store._records = store.records.iloc[:1].assign(beat_s=[(0.1, 1.0, 2.0, SECONDS - 0.3)], beat_class="NNQN")
    inputs, table = beats_of(store, [101])
    assert table["record"].tolist() == ["101/0 1.000"]
    assert len(inputs) == 1


@pytest.fixture
def half_hours(monkeypatch: pytest.MonkeyPatch) -> EarlyAndLate:
    """Two records, of which one has another lead; a beat a second, the last of which is ventricular."""
    fs, minutes = 10.0, 30
    n = round(minutes * 60 * fs)
    records = pd.DataFrame(
        {"record_id": ["100", "102"], "subject_id": ["100", "102"], "session": 1, "sha256": ["a", "b"]}
    )
    records = records.assign(store_samples=n, age=60.0, sex="F", unit="mV", n_beats=1800)
    records = records.assign(leads=[("V5", "MLII"), ("V5", "V2")], usable_leads=[("V5", "MLII"), ("V5", "V2")])
    signal = np.stack([np.zeros(n), np.arange(n)]).astype(np.float32)
    store = SimpleNamespace(records=records, fs=fs, signal=lambda _: signal, manifest={"key": "store"})
    header = SimpleNamespace(path=Path("100.hea"), n_samples=360 * 1800, fs=360.0)
    marks = SimpleNamespace(sample=np.arange(1800) * 360, symbol=["+", *"N" * 1788, *"aLRVE/!fFA", "V"])
    monkeypatch.setattr(long_records, "read_annotation", lambda *_: marks)
    return EarlyAndLate(SimpleNamespace(header=lambda _: header, root=Path()), store)


def test_recordings_are_the_minutes_that_enrol_and_probe_with_their_own_beats(half_hours: EarlyAndLate) -> None:
    records = half_hours.records().set_index("record_id")
    assert records["session"].to_dict() == {"100/0": 1, "100/750": 1, "100/1500": 2}
    assert records["n_samples"].tolist() == [3000, 3000, 2990]
    assert (records["subject_id"] == "100").all()
    assert half_hours.signal("100/750").values[:, [0, -1]].tolist() == [[7500, 10499]]
    assert half_hours.signal("100/750").leads == records.loc["100/750", "leads"] == ("II",)
    assert records.loc["100/750", "beat_s"] == tuple(range(300))
    assert records.loc["100/0", "beat_class"] == "Q" + 299 * "N"
    assert records.loc["100/1500", "beat_class"] == 289 * "N" + "SNNVVQQQFS"  # the last second probes nobody
    digest = half_hours.digest()
    half_hours._store.manifest["key"] = "other annotations"
    assert half_hours.digest() != digest


def test_early_minutes_enrol_and_late_ones_probe(half_hours: EarlyAndLate) -> None:
    records = half_hours.records().assign(sha256=["a", "b", "c"], store_samples=3000)
    (split,) = LaterMinutes().splits(records, 10.0, 0)
    assert split.enrolment["record_id"].tolist() == ["100/0", "100/750"]
    assert split.probe["record_id"].tolist() == ["100/1500"]


@pytest.fixture
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = Resamples.draw
    monkeypatch.setattr(Resamples, "draw", lambda persons, seed: draw(persons, seed, 20))


@pytest.mark.usefixtures("_few_resamples")
def test_what_moves_beats_is_undefined_and_never_zero(context: SimpleNamespace) -> None:
    folders = {view: {COHORT: "somewhere"} for view in ("own_cycle.own", BEST)}
    jobs = long_records.beat_jobs(context, folders, 0)
    assert [(job.view, job.tier) for job in jobs] == [
        (RAW, REFERENCE),
        ("own_cycle.own", LAZY),
        ("own_cycle.own", SEMI),
    ]
    raw = read_beats(context, jobs[0])
    rows = long_records.beat_results(Outcome({job.name: raw for job in jobs}, pd.DataFrame()), jobs, 0)
    moved = rows[rows["view"] == BEST]
    assert set(moved["name"]) == {
        f"deid.{BEST}.utility.aami_{name}.{setting}.auroc"
        for name in CLASSES
        for setting in ("trained_on_raw", "both_protected")
    }
    assert moved["value"].isna().all()
    assert moved["note"].str.startswith("Not defined: heartbeats are drawn at other times").all()
    named = rows.set_index("name")
    assert named.loc["deid.own_cycle.own.utility.aami_V.both_protected.auroc", "value"] > 0.95
    assert named.loc[f"deid.{RAW}.utility.aami_V.base_rate", "value"] == pytest.approx(0.25, abs=0.02)
    assert named.loc[f"deid.{RAW}.utility.aami_V.base_rate", "n"] == 3
    shown = tables.beat_table(rows).set_index(["view", "setting"])
    assert shown.loc[("base rate", ""), "V"] == named.loc[f"deid.{RAW}.utility.aami_V.base_rate", "value"]
    assert np.isnan(shown.loc[(BEST, "both_protected"), "V"])
    assert tables.beat_findings(rows)


def _context(tmp_path: Path, names: Sequence[str]) -> Context:
    """Context of synthetic persons under the names of cohorts, as many as are sought at least."""
    store = build_store(SyntheticCohort(20, 1, 1, seed=1), tmp_path, delineate=False, workers=1)
    return Context("demo", dict.fromkeys(names, store), "cpu", attackers("demo"), cache=tmp_path)


def test_where_no_beats_are_annotated_the_question_is_refused_with_its_reason(tmp_path: Path) -> None:
    answers = long_records.ask(_context(tmp_path, ["synthetic"]), 0)
    assert answers.persons.empty
    assert answers.beats.empty
    (reason,) = answers.refusals["reason"]
    assert reason.startswith("Not applicable, because no cohort here has half-hour records")
    with pytest.raises(NotApplicableError, match="no cohort but MIT-BIH"):
        long_records.long_context(_context(tmp_path, [COHORT]))


def test_other_days_of_the_people_to_learn_from_are_no_later_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [(name, Strangers(pd.DataFrame(), CrossDay())) for name in ("ptbxl", COHORT)]
    monkeypatch.setattr(plan, "strangers", lambda _: both)
    context = SimpleNamespace(profile="demo", attackers=("template",))
    (job,) = long_records.later_jobs(context, {}, 0)
    assert (job.cohort, job.protocol.name) == (COHORT, "later_minutes")


def test_people_to_learn_from_are_read_in_lead_ii_and_attacked_minutes_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitors = SyntheticCohort(20, 2, 1, seed=2)
    monkeypatch.setattr(long_records, "open_cohort", lambda _: None)
    monkeypatch.setattr(long_records, "EarlyAndLate", lambda *_: visitors)
    stores = {
        name: build_store(cohort, tmp_path, delineate=False, workers=1)
        for name, cohort in {"synthetic": SyntheticCohort(24, 1, 1, seed=1), COHORT: visitors}.items()
    }
    context = Context("demo", stores, "cpu", attackers("demo"), cache=tmp_path)
    inner = long_records.long_context(context)
    assert inner.lead == "II"
    assert [*inner.stores] == ["synthetic", COHORT]
    assert inner.attackers["beatnet"].recipe.auxiliary_leads == ("II",)
    assert "inversion" not in inner.attackers
    jobs = long_records.later_jobs(inner, {"own_cycle.own": {COHORT: "somewhere"}}, 0)
    assert {(job.cohort, job.protocol.name, job.seed) for job in jobs} == {(COHORT, "later_minutes", 0)}
    assert {(job.view, job.tier) for job in jobs} == {(RAW, REFERENCE), ("own_cycle.own", SEMI)}
    assert {job.attacker for job in jobs} == {*inner.attackers}
    (split,) = inner.splits(jobs[0])
    assert not split.train["subject_id"].str.startswith(COHORT).any()
    monkeypatch.setattr(long_records, "EarlyAndLate", lambda *_: SyntheticCohort(19, 2, 1, seed=3))
    with pytest.raises(NotApplicableError, match="fewer than 20 persons"):
        long_records.long_context(context)
