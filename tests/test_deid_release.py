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
from ecgstudy.deidentification.learned import Readers, Thoroughness
from ecgstudy.deidentification.protections import Changed, OwnCycle, Prepared, Protection, Unprotected
from ecgstudy.deidentification.release import PROTECTIONS, ReleaseCohort, protection_of, release_store
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


def test_protections_are_told_apart_and_found_by_name() -> None:
    assert len({repr(protection) for protection in PROTECTIONS.values()}) == len(PROTECTIONS)
    assert all(name.count(".") == 1 for name in PROTECTIONS)  # <method>.<strength>
    assert protection_of("k_same.5") is PROTECTIONS["k_same.5"]
    with pytest.raises(StudyError, match=r"no protection 'k_same'; choose one of raw\.none, .*conditional_vae\.labels"):
        protection_of("k_same")


@pytest.mark.parametrize("name", PROTECTIONS)
def test_every_protection_keeps_the_form_of_a_recording_whatever_its_unit(
    name: str, fitted: Callable[[str], Protection], people: CycleSet, store: RecordStore
) -> None:
    protection = fitted(name)
    assert fitted(name).needs_labels == (name == "conditional_vae.labels")
    rows = [store.records["leads"].iloc[0].index(lead) for lead in LEADS]
    made: dict[int, list[np.ndarray]] = {}
    for factor in (1, 1, 1024):
        prepared = protection.prepare(replace(people, cycles=people.cycles * np.float32(factor)), 5)
        for row in (0, 7):
            record = people.records["record_id"][row]
            values = store.signal(record)[rows] * np.float32(factor)
            recording = Recording(values, store.fs, peaks_by_record(store)[record])
            released = prepared.protect(row, recording, np.random.default_rng(row))
            assert (released.shape, released.dtype) == (values.shape, np.float32)
            assert np.isfinite(released).all()
            assert released.std(axis=1).min() > 0.01 * factor * values.std() / factor
            assert np.array_equal(released, values) == (name == "raw.none")
            made.setdefault(row, []).append(released)
    for once, again, other in made.values():
        np.testing.assert_array_equal(once, again)
        np.testing.assert_allclose(other / 1024, once, rtol=1e-3, atol=1e-4)
    assert np.abs(made[0][0] - made[7][0]).max() > 0.01


@pytest.mark.parametrize("name", ["microaggregation.3", "bottleneck.8", "low_rank.8"])
def test_a_protection_tells_its_parameters_only_fitted_or_not(name: str, fitted: Callable[[str], Protection]) -> None:
    if name != "low_rank.8":
        assert repr(fitted(name)) == repr(protection_of(name, brief=True)) != repr(PROTECTIONS[name])
    assert "0x" not in repr(fitted(name))
    pickle.loads(pickle.dumps(fitted(name)))


def _release(
    store: RecordStore, people: CycleSet, prepared: Prepared, leads: tuple[str, ...] = LEADS, **about: object
) -> ReleaseCohort:
    return ReleaseCohort(store, leads, people, prepared, **{"seed": 0, "made_from": "test"} | about)


def test_a_release_is_a_cohort_of_the_same_records(store: RecordStore, people: CycleSet, tmp_path: Path) -> None:
    released = people.rows(np.arange(len(people)) != 4)
    cohort = _release(store, released, OwnCycle().prepare(released, 0))
    records, raw = cohort.records(), store.records.drop(index=4).reset_index(drop=True)
    assert list(records.columns) == [*RECORD_COLUMNS, "activity", "rhythm", "diagnosis"]
    same = ["record_id", "subject_id", "session", "session_day", "age", "sex", "unit", "rhythm", "diagnosis"]
    assert records[same].equals(raw[same])
    assert set(records["leads"]) == {LEADS}
    assert (records["n_samples"] == 1000).all()
    assert cohort.failures().empty
    with pytest.raises(KeyError):
        cohort.signal("nobody")
    with pytest.raises(KeyError):
        cohort.signal(store.records["record_id"][4])
    made = release_store(cohort, tmp_path, boundaries=False)
    assert made.manifest["cohort"] == "synthetic"
    assert made.records["record_id"].tolist() == records["record_id"].tolist()
    assert (made.records["store_samples"] == 1000).all()
    # the shape of each record's median cycle is still its own, and stands where it stood
    again = cycle_set(made, LEADS)
    alike = np.einsum("nlp,mlp->nm", again.shapes, released.shapes)
    assert (alike.argmax(axis=1) == np.arange(len(again))).mean() > 0.8
    np.testing.assert_allclose(np.median(again.rhythm[:, 0] - released.rhythm[:, 0]), 0, atol=0.01)


def test_unprotected_samples_are_those_of_the_store_with_holes_filled(tmp_path: Path) -> None:
    names = ("good_1a", "hole_in_lead", "one_flat_lead")
    store = build_store(FakeCohort(tmp_path, names), tmp_path, delineate=False, workers=1)
    one_lead = cycle_set(store, ("I",))
    cohort = _release(store, one_lead, Unprotected().prepare(one_lead, 0), ("I",))
    for name in names:
        np.testing.assert_array_equal(cohort.signal(name).values, np.nan_to_num(store.signal(name)[:1]))
    assert len(release_store(cohort, tmp_path, boundaries=True).records) == 3
    lost = _release(store, one_lead, Changed(_nothing), ("I",), made_from="nothing")
    with pytest.raises(StudyError, match="the protection destroyed them all"):
        release_store(lost, tmp_path, boundaries=False)


def _nothing(recording: Recording, _: np.random.Generator) -> np.ndarray:
    return np.zeros_like(recording.values)


def test_whatever_makes_a_release_is_in_its_digest(store: RecordStore, people: CycleSet) -> None:
    some = people.rows(np.arange(5))
    prepared = OwnCycle().prepare(some, 0)
    digests = {
        "same": _release(store, some, prepared).digest(),
        "again": _release(store, some, prepared).digest(),
        "seed": _release(store, some, prepared, seed=1).digest(),
        "protection": _release(store, some, prepared, made_from="other").digest(),
        "leads": _release(store, some, prepared, LEADS[::-1]).digest(),
        "records": _release(store, people.rows(np.arange(4)), prepared).digest(),
    }
    assert digests["same"] == digests.pop("again")
    assert len(set(digests.values())) == len(digests)


def test_each_record_is_drawn_by_its_own_stream(store: RecordStore, people: CycleSet) -> None:
    prepared = PROTECTIONS["noise.1"].prepare(people, 0)
    first, second = people.records["record_id"][:2]
    cohort, other = _release(store, people, prepared), _release(store, people, prepared, seed=1)
    noise = [
        one.signal(name).values - _release(store, people, Changed(_as_it_is)).signal(name).values
        for one, name in (
            (cohort, first),
            (cohort, second),
            (other, first),
            (pickle.loads(pickle.dumps(cohort)), first),
        )
    ]
    scaled = [each / each.std(axis=1, keepdims=True) for each in noise]
    assert abs(np.corrcoef(scaled[0][0], scaled[1][0])[0, 1]) < 0.15
    assert abs(np.corrcoef(scaled[0][0], scaled[2][0])[0, 1]) < 0.15
    np.testing.assert_array_equal(noise[0], noise[3])


def _as_it_is(recording: Recording, _: np.random.Generator) -> np.ndarray:
    return recording.values
