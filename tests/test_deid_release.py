"""A release is a cohort, whatever protects it; every protection keeps a recording's form and forgets its unit."""

import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from fake_cohort import FakeCohort

from ecgstudy.data.base import RECORD_COLUMNS
from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.deidentification import release
from ecgstudy.deidentification.cycles import CycleSet, Recording, cycle_set, peaks_by_record
from ecgstudy.deidentification.protections import OwnCycle, Protection, SampleChange, Unprotected
from ecgstudy.deidentification.readers import Readers, Thoroughness
from ecgstudy.deidentification.release import PROTECTIONS, RAW, ReleaseCohort, protection_of, release_store
from ecgstudy.errors import StudyError
from ecgstudy.signals.ingest import build_store
from ecgstudy.signals.store import RecordStore

LEADS = ("V2", "I")
COHORT = SyntheticCohort(30, 1, 1, seed=3, diagnoses={"AFIB": 0.4, "LVH": 0.35})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RecordStore:
    """Thirty synthetic persons, some in fibrillation, some with a large left ventricle."""
    return build_store(COHORT, tmp_path_factory.mktemp("cache"), delineate=False, workers=1)


@pytest.fixture(scope="module")
def people(store: RecordStore) -> CycleSet:
    """Their cycles."""
    return cycle_set(store, LEADS)


@pytest.fixture(scope="module")
def fitted(people: CycleSet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Protection]]:
    """Protections by name, fitted in a few steps; those that keep the same diagnoses share their readers."""
    runs, trained, brief = tmp_path_factory.mktemp("runs"), Readers.trained, Thoroughness(2, 1, 3)
    with pytest.MonkeyPatch.context() as patch:
        shared = cache(lambda told: trained(people, told, 0, runs, brief))
        patch.setattr(Readers, "trained", lambda _, told, *__: shared(told))
        patch.setattr(release, "BRIEF", brief)
        yield cache(lambda name: protection_of(name, brief=True).fit(people, 0, runs))


def test_protections_are_told_apart_and_found_by_name(fitted: Callable[[str], Protection]) -> None:
    assert len({repr(protection) for protection in PROTECTIONS.values()}) == len(PROTECTIONS)
    assert all(name.count(".") == 1 for name in PROTECTIONS)  # <method>.<strength>
    assert protection_of("k_same.5") is PROTECTIONS["k_same.5"]
    with pytest.raises(StudyError, match=r"no protection 'k_same'; choose one of raw\.none, .*conditional_vae\.labels"):
        protection_of("k_same")
    # a learnt one tells its parameters only, fitted or not
    assert (
        repr(fitted("bottleneck.8"))
        == repr(protection_of("bottleneck.8", brief=True))
        != repr(PROTECTIONS["bottleneck.8"])
    )


@pytest.mark.parametrize("name", PROTECTIONS)
def test_every_protection_keeps_the_form_of_a_recording_whatever_its_unit(
    name: str, fitted: Callable[[str], Protection], people: CycleSet, store: RecordStore
) -> None:
    rows = [store.records["leads"][0].index(lead) for lead in LEADS]
    made: dict[int, list[np.ndarray]] = {0: [], 7: []}
    for factor in np.float32([1, 1, 1024]):
        protection = fitted(name)
        cycles = protection.prepare(replace(people, cycles=people.cycles * factor), 5)
        assert (cycles.shape, cycles.dtype) == (people.cycles.shape, np.float32)
        for row, released in made.items():
            record = people.records["record_id"][row]
            values = store.signal(record)[rows] * factor
            recording = Recording(values, store.fs, peaks_by_record(store)[record])
            released.append(protection.protect(recording, cycles[row], np.random.default_rng(row)))
            assert (released[-1].shape, released[-1].dtype) == (values.shape, np.float32)
            assert np.isfinite(released[-1]).all()
            assert released[-1].std(axis=1).min() > 0.01 * values.std()
            assert np.array_equal(released[-1], values) == (name == RAW)
    for once, again, other in made.values():
        np.testing.assert_array_equal(once, again)
        np.testing.assert_allclose(other / 1024, once, rtol=1e-3, atol=1e-4)
    assert np.abs(made[0][0] - made[7][0]).max() > 0.01


def _release(store: RecordStore, cycles: CycleSet, protection: Protection, **other: object) -> ReleaseCohort:
    return ReleaseCohort(
        store, release=cycles, protection=protection, **{"leads": LEADS, "seed": 0, "made_from": "x"} | other
    )


def test_a_release_is_a_cohort_of_the_same_records(store: RecordStore, people: CycleSet, tmp_path: Path) -> None:
    kept = people.rows(np.arange(30) != 4)
    cohort = _release(store, kept, OwnCycle())
    records, raw = cohort.records(), store.records.drop(index=4).reset_index(drop=True)
    labels = ["activity", "rhythm", "diagnosis"]
    assert list(records.columns) == [*RECORD_COLUMNS, *labels]  # and none of the store's own
    same = ["record_id", "subject_id", "session", "session_day", "age", "sex", "unit", *labels]
    assert records[same].equals(raw[same])
    assert set(records["leads"]) == {LEADS}
    for absent in ("nobody", store.records["record_id"][4]):
        with pytest.raises(KeyError):
            cohort.signal(absent)
    first, unprotected = records["record_id"][0], _release(store, kept, Unprotected())
    np.testing.assert_array_equal(unprotected.signal(first).values, store.signal(first)[[7, 0]])  # V2 and I of twelve
    made = release_store(cohort, tmp_path)
    assert made.manifest["cohort"] == "synthetic"
    assert made.records["record_id"].tolist() == records["record_id"].tolist()
    assert set(made.records["store_samples"]) == {1000}
    # the shape of each record's cycle is still its own, and so is its rate
    again = cycle_set(made, LEADS)
    alike = np.einsum("nlp,mlp->nm", again.shapes, kept.shapes)
    assert (alike.argmax(axis=1) == np.arange(29)).mean() > 0.8
    assert np.median(np.abs(again.rhythm[:, 0] - kept.rhythm[:, 0])) < 0.01


class _Nothing(SampleChange):
    def change(self, recording: Recording, rng: np.random.Generator) -> np.ndarray:
        return np.zeros_like(recording.values)


def test_unprotected_samples_are_those_of_the_store_with_holes_filled(tmp_path: Path) -> None:
    names = ("good_1a", "hole_in_lead", "one_flat_lead")
    store = build_store(FakeCohort(tmp_path, names), tmp_path, delineate=False, workers=1)
    one_lead = cycle_set(store, ("I",))
    cohort = _release(store, one_lead, Unprotected(), leads=("I",))
    for name in names:
        np.testing.assert_array_equal(cohort.signal(name).values, np.nan_to_num(store.signal(name)[:1]))
    assert len(release_store(cohort, tmp_path).records) == 3
    with pytest.raises(StudyError, match="the protection destroyed them all"):
        release_store(_release(store, one_lead, _Nothing(), leads=("I",), made_from="y"), tmp_path)


def test_whatever_makes_a_release_is_in_its_digest(store: RecordStore, people: CycleSet) -> None:
    protection = OwnCycle()
    changes = ({}, {"seed": 1}, {"made_from": "y"}, {"leads": LEADS[::-1]}, {"cycles": people.rows(np.arange(29))})
    digests = [_release(store, **{"cycles": people, "protection": protection} | change).digest() for change in changes]
    assert len(set(digests)) == len(changes)
    assert _release(store, people, protection).digest() == digests[0]


def test_each_record_is_drawn_by_its_own_stream(store: RecordStore, people: CycleSet) -> None:
    def noise(cohort: ReleaseCohort, row: int) -> np.ndarray:
        record = people.records["record_id"][row]
        own = [store.records["leads"][row].index(lead) for lead in LEADS]
        added = cohort.signal(record).values - store.signal(record)[own]
        return added[0] / added[0].std()

    protection = PROTECTIONS["noise.1"]
    cohort = _release(store, people, protection)
    own = noise(cohort, 0)
    for other in (noise(cohort, 1), noise(_release(store, people, protection, seed=1), 0)):
        assert abs(np.corrcoef(own, other)[0, 1]) < 0.15
    np.testing.assert_array_equal(noise(pickle.loads(pickle.dumps(cohort)), 0), own)
