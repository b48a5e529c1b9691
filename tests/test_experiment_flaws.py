"""Nothing is cut across a flaw: gaps, flat and saturated stretches, followed from a record into what attackers read."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from fake_cohort import FakeCohort

from ecgstudy.data.base import Signal
from ecgstudy.errors import StudyError
from ecgstudy.evaluate.splits import segments, with_cohort
from ecgstudy.experiment.attackers import TemplateAttacker
from ecgstudy.experiment.dataset import Dataset
from ecgstudy.learn.batches import standardise
from ecgstudy.signals.ingest import build_store
from ecgstudy.signals.store import RecordStore

GAP = {"good_1a": (4.0, 4.5), "good_1b": (5.0, 5.2)}
"""Seconds that are missing in all leads."""


class GappyCohort(FakeCohort):
    """Good records with a hole in two of them."""

    subjects: ClassVar[dict[str, str]] = {"good_1a": "p1", "good_1b": "p1", "good_2": "p2", "other_leads": "p3"}

    def signal(self, record_id: str) -> Signal:
        """Read a record and make its hole."""
        signal = super().signal(record_id)
        start, stop = GAP.get(record_id, (0.0, 0.0))
        signal.values[:, round(start * signal.fs) : round(stop * signal.fs)] = np.nan
        return signal


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RecordStore:
    """Four records of ten seconds at 100 Hz."""
    folder = tmp_path_factory.mktemp("cache")
    return build_store(GappyCohort(Path("nowhere")), folder)


@pytest.fixture(scope="module")
def dataset(store: RecordStore) -> Dataset:
    """One lead of each."""
    return Dataset({"fake": store})


@pytest.fixture(scope="module")
def parts(store: RecordStore) -> pd.DataFrame:
    """Whole records."""
    return segments(with_cohort("fake", store.records))


def test_a_segment_is_cut_at_its_gap_and_others_stay_whole(dataset: Dataset, parts: pd.DataFrame) -> None:
    pieces = dataset.pieces(parts)
    assert pieces["row"].tolist() == [0, 0, 1, 1, 2, 3]
    assert pieces.loc[pieces["row"] >= 2, ["start", "stop"]].to_numpy().tolist() == [[0, 1000]] * 2
    (_, before), (after, end) = pieces.loc[pieces["row"] == 0, ["start", "stop"]].to_numpy()
    # to the sample, or a sample to either side of it for the change of rate
    assert 398 <= before <= 400
    assert 450 <= after <= 452
    assert end == 1000
    inner = dataset.pieces(parts.iloc[:1].assign(start=410, stop=440))
    assert inner.empty


def test_no_window_beat_or_feature_holds_a_sample_that_is_missing(dataset: Dataset, parts: pd.DataFrame) -> None:
    windows, owners = dataset.windows(parts, 300)
    assert np.isfinite(windows).all()
    assert set(owners) == {0, 1, 2, 3}
    standardise(windows)  # would refuse a constant window
    # of ten seconds with the gap in the middle, no free window of 6 seconds is left; without a gap there is one
    assert set(dataset.windows(parts, 600)[1]) == {2, 3}
    beats, of_beats = dataset.averaged_beats(parts)
    assert np.isfinite(beats).all()
    assert np.ptp(beats, axis=1).min() > 1
    assert set(of_beats) == {0, 1, 2, 3}
    features, _ = dataset.features(parts)
    assert np.isfinite(features["r_amplitude"] if "r_amplitude" in features else features.iloc[:, 0]).any()


def test_a_person_with_a_gap_is_enrolled_on_beats_and_not_on_zeros(dataset: Dataset, parts: pd.DataFrame) -> None:
    vectors = TemplateAttacker().embed(dataset, parts).vectors
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1)
    assert vectors[0] @ vectors[1] > 0.95
    after_the_gap = dataset.pieces(parts).iloc[[1]].drop(columns="row")  # the longer piece
    np.testing.assert_array_equal(vectors[:1], TemplateAttacker().embed(dataset, after_the_gap).vectors)
    lost = TemplateAttacker().embed(dataset, parts.iloc[:1].assign(start=405, stop=445)).vectors
    assert np.isnan(lost).all()


def test_the_grid_names_why_a_window_is_left_out(dataset: Dataset, parts: pd.DataFrame) -> None:
    index = dataset.grid_index(parts, 2.0)
    mine = index[index["record_id"] == "fake/good_1a"].set_index("start")["problem"]
    assert mine.index.tolist() == list(range(0, 801, 100))
    assert mine[mine.notna()].index.tolist() == [300, 400]
    assert mine[300] == "not a number"
    usable = dataset.grid(parts, 2.0)
    assert len(usable) == index["problem"].isna().sum()
    assert np.isfinite(dataset.gather(usable)).all()
    every_third = dataset.grid(parts.iloc[:1], 2.0, stride=3.0)["start"].tolist()
    assert every_third == [0, 500, 800]  # of the usable ones 0, 100, 200, 500, 600, 700, 800


def test_samples_that_are_missing_never_become_numbers(dataset: Dataset) -> None:
    with pytest.raises(StudyError, match="not numbers"):
        dataset.segment("fake/good_1a", 0, 1000)
    with pytest.raises(StudyError):
        standardise(np.array([[0.0, np.nan, 1.0]]))


def test_a_window_without_a_beat_is_none(
    dataset: Dataset, parts: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = {"fake/good_2": np.empty(0)}
    monkeypatch.setattr(dataset, "_peaks", dataset._peaks | silent)
    assert 2 not in dataset.windows(parts, 300)[1]
    index = dataset.grid_index(parts, 2.0)
    assert set(index.loc[index["record_id"] == "fake/good_2", "problem"]) == {"no beats"}


def test_a_flaw_of_the_lead_whose_beats_are_known_cuts_too_and_that_of_a_third_lead_does_not(
    dataset: Dataset, parts: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    flaw = {"start": [300], "stop": [400], "reason": ["flat"]}
    known = {
        "fake/good_2": pd.DataFrame({"lead": ["II"], **flaw}),  # lead I is read, beats are known in lead II
        "fake/other_leads": pd.DataFrame({"lead": ["V1"], **flaw}),  # MLII is read, and its beats are known
    }
    monkeypatch.setattr(dataset, "_flaws", known)
    pieces = dataset.pieces(parts)
    assert pieces.loc[pieces["row"] == 2, ["start", "stop"]].to_numpy().tolist() == [[0, 300], [400, 1000]]
    index = dataset.grid_index(parts.iloc[2:3], 2.0)
    assert index.loc[index["problem"].notna(), "start"].tolist() == [200, 300]
    record = dataset._records["fake/good_2"]
    monkeypatch.setitem(dataset._records, "fake/good_2", record._replace(usable_leads=("II",)))
    assert dataset.lead_of("fake/good_2") == "II"  # a lead that cannot be used is not read
    assert (pieces["row"] == 3).sum() == 1
