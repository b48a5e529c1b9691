"""Copies of a recording are found under every disguise, named, and left out; different recordings are not."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest

from ecgstudy.data.base import Cohort, Signal, as_tables
from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.errors import LeakageError
from ecgstudy.evaluate.protocols import CrossRecord
from ecgstudy.ingestion.stores import without_copies
from ecgstudy.signals import copies
from ecgstudy.signals.copies import find_copies
from ecgstudy.signals.ingest import build_store
from ecgstudy.signals.preprocess import resample
from ecgstudy.signals.store import RecordStore

FS = 500.0


def _one_sample(values: np.ndarray) -> tuple[np.ndarray, float]:
    changed = values.copy()
    changed[:, 2345] += 3.0  # mV: three times an R peak
    return changed, FS


DISGUISES: dict[str, Callable[[np.ndarray], tuple[np.ndarray, float]]] = {
    "as it is": lambda values: (values, FS),
    "a changed sample": _one_sample,
    "trimmed": lambda values: (values[:, 250:], FS),
    "trimmed between samples": lambda values: (values[:, 1237:-333], FS),
    "twice as large": lambda values: (2 * values, FS),
    "at 250 Hz": lambda values: (resample(values, FS, 250.0), 250.0),
    "at 128 Hz": lambda values: (resample(values, FS, 128.0), 128.0),
    "everything": lambda values: (resample(_one_sample(-0.5 * -2 * values)[0][:, 250:], FS, 250.0), 250.0),
}


class _Ward(Cohort):
    """Records (person, samples in mV, rate) by name."""

    licence: ClassVar[str] = "MIT"
    how_to_get: ClassVar[str] = "Made by the tests."

    def __init__(self, name: str, **held: tuple[str, np.ndarray, float]) -> None:
        self.name, self.held = name, held  # type: ignore[misc]

    @cached_property
    def _scan(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        rows = [
            {"record_id": name, "subject_id": person, "session": 1, "fs": fs, "leads": ("I",), "unit": "mV"}
            | {"n_samples": values.shape[1]}
            for name, (person, values, fs) in self.held.items()
        ]
        return as_tables(pd.DataFrame(rows), [])

    def signal(self, record_id: str) -> Signal:
        _, values, fs = self.held[record_id]
        return Signal(values.astype(np.float32), fs, ("I",), "mV")

    def digest(self) -> str:
        return " ".join(f"{name}{person}{float(np.abs(v).sum()):.6f}" for name, (person, v, _) in self.held.items())


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    """Lead I of two records each of six persons, 10 s at 500 Hz."""
    cohort = SyntheticCohort(n_subjects=6, n_sessions=1, n_records=2, fs=FS, seed=3)
    return {name: cohort.signal(name).values[:1] for name in cohort.records()["record_id"]}


def _opened(tmp_path: Path, *wards: _Ward) -> dict:
    return {ward.name: build_store(ward, tmp_path, delineate=False, workers=1) for ward in wards}


def _honest(recorded: dict[str, np.ndarray]) -> dict[str, tuple[str, np.ndarray, float]]:
    return {name: (name[:4], values, FS) for name, values in recorded.items()}


@pytest.mark.parametrize("disguise", DISGUISES.values(), ids=DISGUISES)
def test_a_copy_is_found_under_every_disguise_named_and_left_out(
    disguise: Callable, recorded: dict[str, np.ndarray], tmp_path: Path
) -> None:
    honest = _honest(recorded)
    first, person = next(iter(honest)), next(iter(honest))[:4]
    ward = _Ward("ward", **honest, copy=(person, *disguise(recorded[first])))
    store = without_copies(_opened(tmp_path, ward), tmp_path)["ward"]
    assert store.records["record_id"].tolist() == [*honest]
    (row,) = store.exclusions.to_dict("records")
    assert (row["record_id"], row["reason"]) == ("copy", "copy of another record")
    assert row["sentence"] == f"Record copy was left out: it is a copy of {first}; the other one takes part."
    # what refused the whole protocol goes on without the copy
    (split,) = CrossRecord().splits(store.records, store.fs, 0)
    assert len(split.probe) == 6


def test_a_copy_under_another_person_takes_both_records_with_it(
    recorded: dict[str, np.ndarray], tmp_path: Path
) -> None:
    honest = _honest(recorded)
    first = next(iter(honest))
    ward = _Ward("ward", **honest, theirs=("stranger", 2 * recorded[first], FS))
    store = without_copies(_opened(tmp_path, ward), tmp_path)["ward"]
    told = store.exclusions.set_index("record_id")["sentence"]
    assert set(told.index) == {first, "theirs"}
    assert told["theirs"].endswith(f"stands under another person ({first}); correct the person, or remove the copies.")


def test_a_person_of_an_earlier_cohort_is_left_out_with_all_records(
    recorded: dict[str, np.ndarray], tmp_path: Path
) -> None:
    honest, names = _honest(recorded), [*recorded]
    mixed = {"a": ("x", *DISGUISES["at 250 Hz"](recorded[names[0]])), "b": ("x", recorded[names[1]][:, ::-1], FS)}
    mixed["c"] = ("y", recorded[names[4]][:, ::-1], FS)
    opened = without_copies(_opened(tmp_path, _Ward("town", **honest), _Ward("city", **mixed)), tmp_path)
    assert opened["town"].exclusions.empty
    assert opened["city"].records["record_id"].tolist() == ["c"]
    told = opened["city"].exclusions.set_index("record_id")["sentence"]
    assert told["a"].startswith(f"Record a was left out: it is town/{names[0]} too;")
    assert told["b"].startswith(f"Record b was left out: its person is town/{names[0][:4]}, by another record;")


def test_who_is_two_persons_in_another_folder_of_ones_own_stops_the_study(
    recorded: dict[str, np.ndarray], tmp_path: Path
) -> None:
    honest, names = _honest(recorded), [*recorded]
    mixed = {"a": ("x", 2 * recorded[names[0]], FS), "b": ("x", 2 * recorded[names[2]], FS)}
    for name, stops in (("own-2", True), ("city", False)):
        opened = _opened(tmp_path, _Ward("own-1", **honest), _Ward(name, **mixed))
        if stops:
            with pytest.raises(LeakageError, match="Record a of own-2 is own-1/"):
                without_copies(opened, tmp_path)
        else:
            assert without_copies(opened, tmp_path)[name].records.empty


def test_the_search_is_remembered(
    recorded: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = _opened(tmp_path, _Ward("ward", **_honest(recorded)))
    without_copies(opened, tmp_path)
    monkeypatch.setattr(RecordStore, "beats", property(lambda _: pytest.fail("searched again")))
    without_copies(opened, tmp_path)


def _paced(rng: np.random.Generator, noise: float, n: int) -> np.ndarray:
    """Leads of one heart of exactly 70 beats/min, 10 s at 100 Hz, each recorded anew."""
    t = np.arange(1000) / 100
    beats = sum(np.exp(-0.5 * ((t - at) / 0.02) ** 2) for at in np.arange(0.4, 9.8, 60 / 70))
    return beats + noise * rng.normal(size=(n, t.size))


def test_two_recordings_of_a_paced_heart_are_no_copies() -> None:
    leads = _paced(np.random.default_rng(0), 0.03, 4)
    peaks = [np.arange(0.4, 9.8, 60 / 70)] * 5
    leads = [*leads, 3 * leads[1]]
    assert find_copies(peaks, lambda number: leads[number], 100.0) == [(1, 4)]


def test_parts_of_one_recording_that_overlap_are_copies_and_parts_that_do_not_are_none() -> None:
    rng = np.random.default_rng(1)
    beats = np.cumsum(rng.normal(0.8, 0.05, 80))
    t = np.arange(6400) / 100
    whole = sum(np.exp(-0.5 * ((t - at) / 0.02) ** 2) for at in beats) + 0.05 * rng.normal(size=t.size)
    spans = [(0, 25), (10, 40), (40, 62)]
    parts = [whole[100 * start : 100 * stop] for start, stop in spans]
    peaks = [beats[(beats > start) & (beats < stop)] - start for start, stop in spans]
    assert find_copies(peaks, lambda number: parts[number], 100.0) == [(0, 1)]


def test_records_with_few_beats_are_left_alone() -> None:
    lead = np.sin(np.arange(1000) / 10)
    assert find_copies([np.arange(4.0)] * 2 + [np.zeros(0)], lambda _: lead, 100.0) == []


def test_chance_is_told_from_copies_in_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two thousand hearts, one in twenty as regular as a pacemaker, and three planted copies."""
    rng, compared = np.random.default_rng(2), []
    regular = rng.random(2000) < 0.05
    peaks = [
        0.3 + np.cumsum(rng.normal(mean, 0.002 if steady else 0.04, 12))
        for mean, steady in zip(rng.uniform(0.6, 1.1, 2000), regular, strict=True)
    ]
    for copy, of in ((5, 1700), (6, 1701), (1999, 1702)):
        peaks[copy] = peaks[of][1:] - 0.25 + rng.uniform(-0.004, 0.004, 11)
    planted = {(5, 1700), (6, 1701), (1702, 1999)}

    def same(one: np.ndarray, other: np.ndarray, *_: float) -> bool:
        compared.append((min(one[0], other[0]), max(one[0], other[0])))
        return compared[-1] in planted

    monkeypatch.setattr(copies, "_same", same)
    assert find_copies(peaks, lambda number: np.array([number]), 100.0) == sorted(planted)
    # of two million pairs hardly any, those of regular hearts in several places, are worth a look at the signals
    assert len(compared) < 6000
