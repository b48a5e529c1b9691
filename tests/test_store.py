"""Reading a store: windows start where they should, carry their lead by name, and say why they are unusable."""

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_cohort import RR_S, FakeCohort

from ecgstudy.errors import StudyError
from ecgstudy.signals.ingest import build_store
from ecgstudy.signals.quality import Problem
from ecgstudy.signals.store import LEAD_ABSENT, RecordStore

FS = 100.0


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RecordStore:
    cohort = FakeCohort(tmp_path_factory.mktemp("source"))
    return build_store(cohort, tmp_path_factory.mktemp("cache"), fs=FS, workers=1)


def test_rate_and_unit(store: RecordStore) -> None:
    assert (store.fs, store.unit) == (FS, "mV")


def test_a_signal_is_a_read_only_view_of_the_file(store: RecordStore) -> None:
    signal = store.signal("good_2")
    assert (signal.shape, signal.dtype) == ((2, 1000), np.float32)
    assert not signal.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        signal[0, 0] = 1.0


def test_an_excluded_record_is_a_key_error_that_points_to_the_reason(store: RecordStore) -> None:
    with pytest.raises(KeyError, match=r"no record flat in store-fake-.*exclusions"):
        store.signal("flat")


def test_changing_a_returned_table_does_not_change_the_store(store: RecordStore) -> None:
    records, beats = store.records, store.beats
    records["record_id"] = "changed"
    beats["r_peak"] = 0.0
    assert "good_2" in set(store.records["record_id"])
    assert store.beats["r_peak"].max() > 9


def test_it_pickles_small_and_reads_the_same_afterwards(store: RecordStore) -> None:
    store.signal("good_2")
    content = pickle.dumps(store)
    assert len(content) < 1000
    np.testing.assert_array_equal(pickle.loads(content).signal("good_2"), store.signal("good_2"))


def test_a_folder_without_a_manifest_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"holds no finished store; run notebook 01_ingestion again"):
        RecordStore(tmp_path)


@pytest.mark.parametrize(
    ("seconds", "stride", "starts"),
    [
        (10.0, None, [0]),
        (4.0, None, [0, 400]),
        (2.0, None, [0, 200, 400, 600, 800]),
        (4.0, 3.0, [0, 300, 600]),
        (4.0, 2.99, [0, 299, 598]),
        (10.01, None, []),
    ],
)
def test_windows_start_every_stride_and_end_inside_the_record(
    store: RecordStore, seconds: float, stride: float | None, starts: list[int]
) -> None:
    windows = store.windows(seconds, stride)
    for record in store.records.itertuples():
        rows = windows[windows["record_id"] == record.record_id]
        assert rows["start"].tolist() == starts
        assert (rows["n_samples"] == round(seconds * FS)).all()
        assert (rows[["subject_id", "session"]] == [record.subject_id, record.session]).all(axis=None)
    assert windows.index.equals(pd.RangeIndex(len(windows)))


@pytest.mark.parametrize(("seconds", "stride"), [(0.001, None), (2.0, 0.0), (2.0, -1.0)])
def test_windows_below_one_sample_are_refused(store: RecordStore, seconds: float, stride: float | None) -> None:
    with pytest.raises(ValueError, match="shorter than a sample"):
        store.windows(seconds, stride)


def test_a_window_over_a_hole_is_flagged_and_its_neighbours_are_not(store: RecordStore) -> None:
    windows = store.windows(1.0).set_index("record_id")
    # NaN was planted from 2 to 3 s, and the last beat at 8.7 s
    problems = windows.loc["hole_in_lead", "problem"].tolist()
    assert problems == [None, None, Problem.NOT_A_NUMBER, *[None] * 6, Problem.NO_BEATS]


def test_problems_are_those_of_the_leads_asked_for(store: RecordStore) -> None:
    def problems(leads: tuple[str, ...] | None, record_id: str) -> set:
        windows = store.windows(2.0, leads=leads)
        return set(windows.loc[windows["record_id"] == record_id, "problem"])

    assert problems(None, "one_flat_lead") == {None}
    assert problems(("I",), "one_flat_lead") == {None}
    assert problems(("II",), "one_flat_lead") == {Problem.FLAT}
    assert problems(("I", "II"), "one_flat_lead") == {Problem.FLAT}
    assert problems(("II",), "other_leads") == {LEAD_ABSENT}
    assert problems(("V1", "MLII"), "other_leads") == {None}
    assert problems(("I", "II"), "good_1a") == {None}


def test_a_piece_touches_a_flaw_where_they_share_a_sample(store: RecordStore) -> None:
    # lead II of one_flat_lead is flat from end to end, NaN stands from 200 to 299 in both leads of hole_in_lead
    pieces = [("hole_in_lead", 100, 200), ("hole_in_lead", 100, 201), ("hole_in_lead", 299, 400)]
    pieces += [("hole_in_lead", 300, 400), ("hole_in_lead", 0, 1000), ("hole_in_lead", 250, 260), ("good_2", 0, 1000)]
    records, starts, stops = (list(column) for column in zip(*pieces, strict=True))
    expected = [False, True, True, False, True, True, False]
    for leads in ("I", ["I", "II", "I", "II", "I", "II", "I"]):
        assert store.touches_flaw(records, np.array(starts), np.array(stops), leads).tolist() == expected
    one = np.array([-50, 990]), np.array([10, 1050])
    assert store.touches_flaw(["one_flat_lead"] * 2, *one, ["I", "II"]).tolist() == [False, True]
    # whoever looks beyond the end of a record does not see the next one
    assert not store.touches_flaw(["one_flat_lead"] * 2, *one, "I").any()
    with pytest.raises(KeyError, match="other_leads lacks the lead"):
        store.touches_flaw(["other_leads"], np.array([0]), np.array([10]), "II")
    with pytest.raises(KeyError, match="no record stranger"):
        store.touches_flaw(["stranger"], np.array([0]), np.array([10]), "II")


def test_a_window_between_two_beats_has_no_beats(store: RecordStore) -> None:
    # beats of good_2 stand at 0.6 + k * 0.95 s: windows of 0.5 s hold one or none
    windows = store.windows(0.5).query("record_id == 'good_2'")
    beats = 0.6 + RR_S["good_2"] * np.arange(10)
    expected = [
        Problem.NO_BEATS if not ((beats >= s) & (beats < s + 0.5)).any() else None for s in windows["start"] / FS
    ]
    assert 0 < expected.count(None) < len(expected)
    flagged = windows["problem"].where(windows["problem"] == Problem.NO_BEATS, None)
    assert flagged.tolist() == expected


def test_gather_copies_each_window_of_each_lead(store: RecordStore) -> None:
    windows = store.windows(2.0, 1.5, leads=("I", "II"))
    usable = windows[windows["problem"].isna()].sample(frac=1.0, random_state=0)
    assert set(usable["record_id"]) == {"good_1a", "good_1b", "good_2", "twin_of_good_2", "hole_in_lead"}
    gathered = store.gather(usable, ("II", "I"))
    assert (gathered.shape, gathered.dtype) == ((len(usable), 2, 200), np.float32)
    for window, row in zip(gathered, usable.itertuples(), strict=True):
        expected = store.signal(row.record_id)[[1, 0], row.start : row.start + 200]
        np.testing.assert_array_equal(window, expected)
    assert np.isfinite(gathered).all()
    gathered[:] = 0.0
    assert np.ptp(store.signal("good_2")) > 0.5


def test_gather_finds_a_lead_by_name_where_records_order_them_differently(store: RecordStore) -> None:
    windows = store.windows(10.0)
    first, second = (windows[windows["record_id"] == record_id] for record_id in ("other_leads", "good_1a"))
    np.testing.assert_array_equal(store.gather(first, ("V1",))[0, 0], store.signal("other_leads")[1])
    np.testing.assert_array_equal(store.gather(second, ("II",))[0, 0], store.signal("good_1a")[1])
    with pytest.raises(KeyError, match="record other_leads has no lead I; it has MLII, V1"):
        store.gather(pd.concat([second, first]), ("I", "II"))


def test_gather_refuses_windows_of_another_store(store: RecordStore) -> None:
    windows = store.windows(2.0)
    beyond = windows.head(1).assign(start=801)
    with pytest.raises(ValueError, match="reaches beyond its record"):
        store.gather(beyond, ("I",))
    with pytest.raises(ValueError, match=r"one length are needed, not of 100, 200 samples"):
        store.gather(pd.concat([windows.head(1), store.windows(1.0).head(1)]), ("I",))
    with pytest.raises(KeyError, match="no record stranger"):
        store.gather(windows.head(1).assign(record_id="stranger"), ("I",))


def test_gather_of_no_windows_is_empty(store: RecordStore) -> None:
    assert store.gather(store.windows(2.0).head(0), ("I", "II")).shape == (0, 2, 0)
