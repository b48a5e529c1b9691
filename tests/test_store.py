"""Ingestion keeps every good record whole, says why each bad one is left out, and leaves nothing half-made."""

import errno
import json
import os
import pickle
import signal as signals_of_the_system
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, ClassVar

import joblib
import numpy as np
import pandas as pd
import pytest
from fake_cohort import LEADS, FakeCohort, beat_times
from filelock import FileLock

from ecgstudy.data.base import Cohort, Signal
from ecgstudy.errors import NothingUsableError, StudyError
from ecgstudy.signals import ingest as store_build
from ecgstudy.signals.ingest import build_store, reference_leads
from ecgstudy.signals.preprocess import preprocess
from ecgstudy.signals.store import RecordStore
from ecgstudy.study.cache import waveform_digest

KEPT = ["good_1a", "good_1b", "good_2", "twin_of_good_2", "other_leads", "one_flat_lead", "hole_in_lead"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("source")


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> RecordStore:
    return build_store(FakeCohort(source), tmp_path_factory.mktemp("cache"), workers=1)


def test_every_record_is_kept_or_excluded_with_its_reason(built: RecordStore) -> None:
    assert built.records["record_id"].tolist() == KEPT
    reasons = built.exclusions.set_index("record_id")["reason"].to_dict()
    assert reasons == {
        "bad_header": "unreadable",
        "flat": "flat",
        "not_a_number": "not a number",
        "saturated": "saturated",
        "one_sample": "too short",
        "no_beats": "no beats",
        "slow_rate": "unreadable",
        "unreadable": "unreadable",
        "not_as_listed": "unreadable",
        "two_persons_a": "same waveform as another person",
        "two_persons_b": "same waveform as another person",
    }


def test_a_record_of_the_shortest_length_is_kept(source: Path, tmp_path: Path) -> None:
    store = build_store(FakeCohort(source, ("good_1a",)), tmp_path, min_seconds=10.0, workers=1)
    assert store.exclusions["record_id"].tolist() == ["bad_header"]


def test_exclusions_name_the_file_below_the_cohort_and_what_to_do(built: RecordStore, source: Path) -> None:
    rows = built.exclusions.set_index("record_id")
    assert rows.loc["unreadable", "file"] == "unreadable.dat"
    assert rows.loc["unreadable", "subject_id"] == "p8"
    expected = "unreadable.dat is shorter than its header says; download or export the record again."
    assert rows.loc["unreadable", "sentence"] == expected
    assert rows.loc["bad_header", "sentence"] == "bad_header.hea is empty; download or export the record again."
    assert rows.loc["one_sample", "sentence"] == (
        "Record one_sample was left out: it lasts 0.004 s, less than 5 s; bring a longer recording, or remove it."
    )
    assert not rows["sentence"].str.contains(str(source), regex=False).any()


def test_a_waveform_under_two_persons_names_the_other_record_and_what_to_do(built: RecordStore) -> None:
    rows = built.exclusions.set_index("record_id")
    for record_id, other in (("two_persons_a", "two_persons_b"), ("two_persons_b", "two_persons_a")):
        assert rows.loc[record_id, "sentence"] == (
            f"Record {record_id} was left out: the same waveform stands under another person ({other}); "
            "correct the person, or remove the copies."
        )
    assert rows.loc[["two_persons_a", "two_persons_b"], "subject_id"].tolist() == ["p3", "p9"]
    assert set(built.beats["record_id"]) == set(KEPT)


def test_stored_signals_are_the_preprocessed_ones_bit_for_bit(built: RecordStore, source: Path) -> None:
    cohort = FakeCohort(source)
    for record_id in KEPT:
        expected = preprocess(cohort.signal(record_id), 100.0).values
        np.testing.assert_array_equal(built.signal(record_id), expected)
        assert expected.shape == (2, 1000)


def test_records_of_different_sizes_do_not_overlap(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LEADS, "good_2", ("I",))
    cohort = FakeCohort(source, ("good_1a", "good_2", "good_1b"))
    store = build_store(cohort, tmp_path, delineate=False, workers=1)
    for record_id in cohort.record_ids:
        np.testing.assert_array_equal(store.signal(record_id), preprocess(cohort.signal(record_id), 100.0).values)


def test_records_keep_the_cohorts_columns_and_say_what_was_found(built: RecordStore, source: Path) -> None:
    cohort = FakeCohort(source)
    table, original = built.records.set_index("record_id"), cohort.records().set_index("record_id")
    pd.testing.assert_frame_equal(table[original.columns], original.loc[KEPT])
    assert table.loc["one_flat_lead", ["usable_leads", "reference_lead"]].tolist() == [("I",), "I"]
    assert table.loc["other_leads", ["usable_leads", "reference_lead"]].tolist() == [("MLII", "V1"), "MLII"]
    assert built.flaws.to_numpy().tolist() == [
        ["one_flat_lead", "II", 0, 1000, "flat"],
        ["hole_in_lead", "I", 200, 300, "not a number"],
        ["hole_in_lead", "II", 200, 300, "not a number"],
    ]
    for record_id in KEPT:
        assert table.loc[record_id, "sha256"] == waveform_digest(cohort.signal(record_id).values)
    # one waveform twice under one person is no leak
    assert table.loc["good_2", "sha256"] == table.loc["twin_of_good_2", "sha256"]
    assert table["sha256"].nunique() == len(KEPT) - 1


@pytest.mark.parametrize("record_id", ["good_1a", "good_2", "other_leads"])
def test_beats_stand_at_their_planted_places_in_seconds(built: RecordStore, record_id: str) -> None:
    beats = built.beats.query("record_id == @record_id")
    planted = beat_times(record_id)
    np.testing.assert_allclose(beats["r_peak"], planted, atol=0.008)
    inner = slice(1, -1)
    np.testing.assert_allclose(beats["p_peak"].iloc[inner], planted[inner] - 0.16, atol=0.02)
    np.testing.assert_allclose(beats["t_peak"].iloc[inner], planted[inner] + 0.28, atol=0.02)


def test_without_delineation_there_are_r_peaks_and_nothing_else(source: Path, tmp_path: Path) -> None:
    # a rate of its own, so that seconds are no multiple of samples
    store = build_store(FakeCohort(source, ("other_leads",)), tmp_path, delineate=False, workers=1)
    np.testing.assert_allclose(store.beats["r_peak"], beat_times("other_leads"), atol=0.008)
    assert store.beats.drop(columns=["record_id", "r_peak"]).isna().all(axis=None)
    assert store.records["delineation_failure"].tolist() == [None]


def test_a_failed_delineation_is_kept_with_its_reason(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = store_build.delineation.delineate
    monkeypatch.setattr(
        store_build.delineation, "delineate", lambda x, fs, _: (found(x, fs, boundaries=False)[0], "not delineated")
    )
    store = build_store(FakeCohort(source, ("good_1a",)), tmp_path, workers=1)
    assert store.records["delineation_failure"].tolist() == ["not delineated"]
    np.testing.assert_allclose(store.beats["r_peak"], beat_times("good_1a"), atol=0.008)


@pytest.fixture
def two_processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in processes, each with some of the records to do."""
    monkeypatch.setattr(store_build, "_TASK_SECONDS", 20)
    with joblib.parallel_config(backend="loky"):
        yield


@pytest.mark.usefixtures("two_processes")
def test_two_processes_give_the_same_bytes_as_one(built: RecordStore, source: Path, tmp_path: Path) -> None:
    store = build_store(FakeCohort(source), tmp_path, workers=2)
    assert store.folder.name == built.folder.name
    names = sorted(path.name for path in built.folder.iterdir())
    assert names == sorted(path.name for path in store.folder.iterdir())
    for name in names:
        assert (store.folder / name).read_bytes() == (built.folder / name).read_bytes(), name


def test_a_finished_store_is_opened_and_not_made_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort = FakeCohort(source, ("good_1a",))
    first = build_store(cohort, tmp_path, workers=1)
    monkeypatch.setattr(FakeCohort, "signal", lambda *_: pytest.fail("a record was read again"))
    assert build_store(cohort, tmp_path, workers=1).folder == first.folder


def test_other_inputs_make_another_store(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def folder(only: str = "good_1a", **parameters: float) -> Path:
        return build_store(FakeCohort(source, (only,)), tmp_path, workers=1, **parameters).folder

    folders = {folder(), folder("good_2"), folder(fs=125.0), folder(min_seconds=6.0), folder(delineate=False)}
    monkeypatch.setattr(store_build.cached, "library_versions", lambda libraries: dict.fromkeys(libraries, "9.9"))
    folders.add(folder())
    assert len(folders) == 6


def test_editing_what_reads_the_cohort_or_makes_the_store_changes_the_key(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = {}
    monkeypatch.setattr(store_build.cached, "code_key", lambda made_by: code.get(made_by, "as it was"))
    folders = set()
    for edited in (None, FakeCohort, build_store):
        code = {edited: "edited"}
        folders.add(build_store(FakeCohort(source, ("good_1a",)), tmp_path, workers=1).folder)
    assert len(folders) == 3


def test_the_manifest_says_what_the_store_was_made_from(built: RecordStore, source: Path) -> None:
    manifest = json.loads((built.folder / "store.json").read_text())
    assert manifest["complete"] is True
    assert (manifest["records"], manifest["excluded"]) == (len(KEPT), 11)
    assert (manifest["fs"], manifest["cohort_digest"]) == (100.0, FakeCohort(source).digest())
    assert built.folder.name == f"store-fake-{manifest['key'][:12]}"


def test_a_cohort_without_a_usable_record_is_one_sentence_and_no_store(source: Path, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"No record of fake can be used \(unreadable 2, flat 1\); the first: bad_h"):
        build_store(FakeCohort(source, ("flat", "unreadable")), tmp_path, workers=1)
    assert list(tmp_path.glob("store-*")) == []


@pytest.mark.usefixtures("two_processes")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_one_sentence_that_names_the_folder(source: Path, tmp_path: Path, workers: int) -> None:
    with pytest.raises(StudyError, match="No space is left on the disk that holds") as caught:
        build_store(DiskFillingCohort(source, ("good_1a", "good_1b", "good_2")), tmp_path, workers=workers)
    assert str(tmp_path) in str(caught.value)
    assert list(tmp_path.glob("store-*")) == []


class DiskFillingCohort(FakeCohort):
    """Reading a record fails as writing it does on a full disk."""

    def signal(self, record_id: str) -> Signal:
        """Raise what the operating system raises."""
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_failing_write_of_samples_is_not_swallowed(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest = store_build._ingest_record

    def full(cohort: object, plan: object, record: dict, _: BinaryIO) -> object:
        with Path("/dev/full").open("wb", buffering=0) as device:
            return ingest(cohort, plan, record, device)

    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    monkeypatch.setattr(store_build, "_ingest_record", full)
    with pytest.raises(StudyError, match="No space is left"):
        build_store(FakeCohort(source, ("good_1a",)), tmp_path, workers=1)


def test_whatever_a_record_brings_about_is_its_own_reason(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def strange(signal: Signal, fs: float) -> Signal:
        if len(signal.leads) == 1:
            raise ZeroDivisionError
        return preprocess(signal, fs)

    monkeypatch.setattr(store_build, "preprocess", strange)
    store = build_store(FakeCohort(source), tmp_path, workers=1)
    sentences = store.exclusions["sentence"]
    assert sentences.str.contains(r"it cannot be processed \(ZeroDivisionError\)").any()
    assert len(store.records)


def test_a_killed_build_leaves_nothing_that_looks_whole_and_is_cleaned(source: Path, tmp_path: Path) -> None:
    script = f"""
        import os, signal, sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from fake_cohort import FakeCohort
        from ecgstudy.signals import ingest as store_build
        write = store_build._write_tables
        def killed(*arguments):
            write(*arguments)
            os.kill(os.getpid(), signal.SIGKILL)
        store_build._write_tables = killed
        store_build.build_store(FakeCohort(Path({str(source)!r}), ("good_1a",)), Path({str(tmp_path)!r}), workers=1)
    """
    died = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, check=False)
    assert died.returncode == -signals_of_the_system.SIGKILL
    (left,) = tmp_path.glob("store-*")
    assert left.name.endswith(".partial")
    with pytest.raises(StudyError, match="no finished store"):
        RecordStore(left)
    # the next build has other inputs, so that nothing but the cohort's name tells it what to clean
    store = build_store(FakeCohort(source, ("good_2",)), tmp_path, workers=1)
    assert list(tmp_path.glob("store-*")) == [store.folder]


def test_cleaning_spares_other_cohorts_and_finished_stores(source: Path, tmp_path: Path) -> None:
    spared = [tmp_path / "store-fake-twin-0123456789ab.partial", tmp_path / "store-fake-0123456789ab"]
    abandoned = tmp_path / "store-fake-0123456789ab.partial"
    for folder in (*spared, abandoned):
        folder.mkdir()
    build_store(FakeCohort(source, ("good_1a",)), tmp_path, workers=1)
    assert all(folder.exists() for folder in spared)
    assert not abandoned.exists()


def test_a_store_neither_waits_for_nor_cleans_another_of_its_cohort_that_is_being_made(
    source: Path, tmp_path: Path
) -> None:
    busy = tmp_path / "store-fake-0123456789ab.partial"
    busy.mkdir()
    with FileLock(tmp_path / ".store-fake-0123456789ab.lock"):  # as the process holds it that makes that store
        store = build_store(FakeCohort(source, ("good_1a",)), tmp_path, workers=1)
    assert store.folder.exists()
    assert busy.exists()


class DyingCohort(FakeCohort):
    """Reading a record ends the process, as the system does where memory runs out."""

    def signal(self, record_id: str) -> Signal:
        """Kill the process that reads."""
        os.kill(os.getpid(), signals_of_the_system.SIGKILL)
        raise AssertionError


@pytest.mark.usefixtures("two_processes")
def test_a_killed_worker_is_one_sentence(source: Path, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="was killed, most likely because memory ran out"):
        build_store(DyingCohort(source, ("good_1a", "good_1b", "good_2")), tmp_path, workers=2)
    assert list(tmp_path.glob("store-*")) == []


class ChangedCohort(FakeCohort):
    """Records are read with something changed."""

    changed: ClassVar[dict[str, object]] = {}

    def signal(self, record_id: str) -> Signal:
        """Give the record with the change."""
        return replace(super().signal(record_id), **self.changed)


@pytest.mark.parametrize("changed", [{"leads": ("I", "V1")}, {"fs": 249.0}, {"values": np.ones((2, 2400))}])
def test_samples_that_are_not_what_the_table_says_are_left_out(changed: dict, source: Path, tmp_path: Path) -> None:
    cohort = ChangedCohort(source, ("good_2", "good_1a"))
    cohort.changed = changed
    with pytest.raises(NothingUsableError) as none:
        build_store(cohort, tmp_path, workers=1)
    sentences = none.value.exclusions["sentence"].iloc[1:]
    assert sentences.str.contains("holds other leads, samples or a rate than the cohort's table says").all()


def test_a_record_without_a_usable_lead_has_the_reason_of_most_leads(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LEADS, "good_2", ("I", "II", "III"))
    cohort = ChangedCohort(source, ("good_1a", "good_2"))
    hole, flat = np.full(2500, np.nan), np.zeros(2500)
    three = Signal(np.stack([hole, flat, flat]).astype(np.float32), 250.0, ("I", "II", "III"), "mV")
    monkeypatch.setattr(
        ChangedCohort, "signal", lambda self, name: FakeCohort.signal(self, name) if name == "good_1a" else three
    )
    rows = build_store(cohort, tmp_path, workers=1).exclusions.set_index("record_id")
    assert rows.loc["good_2", "reason"] == "flat"
    assert (
        "lead I is not a number; lead II is flat; lead III is flat; check its electrodes"
        in rows.loc["good_2", "sentence"]
    )


class HiddenBeats(FakeCohort):
    """Lead II, the best by name, shows a slow wave and no beats."""

    def signal(self, record_id: str) -> Signal:
        """Give the record with its second lead replaced."""
        signal = super().signal(record_id)
        values = signal.values.copy()
        values[1] = np.sin(2 * np.pi * 0.1 * np.arange(values.shape[1]) / signal.fs)
        return Signal(values, signal.fs, signal.leads, signal.unit)


def test_beats_are_looked_for_in_the_next_lead_where_the_best_shows_none(source: Path, tmp_path: Path) -> None:
    shown = build_store(FakeCohort(source, ("good_2",)), tmp_path)
    hidden = build_store(HiddenBeats(source, ("good_2",)), tmp_path)
    assert shown.records["reference_lead"].tolist() == ["II"]
    assert hidden.records["reference_lead"].tolist() == ["I"]
    assert len(hidden.beats) == len(shown.beats)


@pytest.mark.parametrize(
    ("leads", "problems", "expected"),
    [
        (("I", "II", "V5"), {}, "II"),
        (("I", "II", "V5"), {"II": "flat"}, "I"),
        (("V5", "MLII"), {}, "MLII"),
        (("V2", "V5"), {}, "V5"),
        (("ECG", "Resp"), {}, "ECG"),
        (("ECG1", "ECG2"), {"ECG1": "flat"}, "ECG2"),
    ],
)
def test_reference_lead_is_the_best_usable_one(leads: tuple[str, ...], problems: dict, expected: str) -> None:
    assert reference_leads(leads, problems)[0] == expected


@pytest.mark.realdata
def test_real_records_come_through(realdata: Callable[[str], Cohort], tmp_path: Path) -> None:
    cohort = realdata("ecgid")
    records, failures = cohort._scan
    cohort.__dict__["_scan"] = (records.head(4), failures)
    store = build_store(cohort, tmp_path, workers=1)
    assert store.records["store_samples"].tolist() == [2000] * 4
    per_minute = store.beats.groupby("record_id").size() * 3
    assert per_minute.between(45, 120).all()
    rr = store.beats.groupby("record_id")["r_peak"].diff().dropna()
    assert rr.between(0.3, 1.5).all()


def test_a_signal_is_a_read_only_view_of_the_file(built: RecordStore) -> None:
    signal = built.signal("good_2")
    assert (built.fs, signal.shape, signal.dtype) == (100.0, (2, 1000), np.float32)
    assert not signal.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        signal[0, 0] = 1.0


def test_an_excluded_record_is_a_key_error_that_points_to_the_reason(built: RecordStore) -> None:
    with pytest.raises(KeyError, match=r"no record flat in store-fake-.*exclusions"):
        built.signal("flat")


def test_changing_a_returned_table_does_not_change_the_store(built: RecordStore) -> None:
    for name in ("records", "beats", "flaws", "exclusions"):
        getattr(built, name)["record_id"] = "changed"
        assert "changed" not in set(getattr(built, name)["record_id"])


def test_it_pickles_small_and_reads_the_same_afterwards(built: RecordStore) -> None:
    built.signal("good_2")
    content = pickle.dumps(built)
    assert len(content) < 1000
    np.testing.assert_array_equal(pickle.loads(content).signal("good_2"), built.signal("good_2"))


def test_a_folder_without_a_manifest_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"holds no finished store; run notebook 01_ingestion again"):
        RecordStore(tmp_path)
