"""Reading a store: signals by record, tables that nobody can change, what is no store."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from fake_cohort import FakeCohort

from ecgstudy.errors import StudyError
from ecgstudy.signals.ingest import build_store
from ecgstudy.signals.store import RecordStore


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RecordStore:
    cohort = FakeCohort(tmp_path_factory.mktemp("source"))
    return build_store(cohort, tmp_path_factory.mktemp("cache"), fs=100.0, workers=1)


def test_a_signal_is_a_read_only_view_of_the_file(store: RecordStore) -> None:
    signal = store.signal("good_2")
    assert (store.fs, signal.shape, signal.dtype) == (100.0, (2, 1000), np.float32)
    assert not signal.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        signal[0, 0] = 1.0


def test_an_excluded_record_is_a_key_error_that_points_to_the_reason(store: RecordStore) -> None:
    with pytest.raises(KeyError, match=r"no record flat in store-fake-.*exclusions"):
        store.signal("flat")


def test_changing_a_returned_table_does_not_change_the_store(store: RecordStore) -> None:
    for name in ("records", "beats", "flaws", "exclusions"):
        getattr(store, name)["record_id"] = "changed"
        assert "changed" not in set(getattr(store, name)["record_id"])


def test_it_pickles_small_and_reads_the_same_afterwards(store: RecordStore) -> None:
    store.signal("good_2")
    content = pickle.dumps(store)
    assert len(content) < 1000
    np.testing.assert_array_equal(pickle.loads(content).signal("good_2"), store.signal("good_2"))


def test_a_folder_without_a_manifest_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"holds no finished store; run notebook 01_ingestion again"):
        RecordStore(tmp_path)
