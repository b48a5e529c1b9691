"""What attackers read is cut where it says, aligned at the R peaks, and pooled by agreement."""

import numpy as np
import pandas as pd
import pytest

from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.evaluate.protocols import CrossDay, CrossRecord, LeaveLastDay, RandomWindows, SubjectDisjoint
from ecgstudy.evaluate.splits import segments, with_cohort
from ecgstudy.experiment.attackers import TemplateAttacker, agreement_pool
from ecgstudy.experiment.dataset import Dataset, by_lead, soft_clip, without_lead
from ecgstudy.experiment.scores import trial, validation_trial
from ecgstudy.signals.ingest import build_store
from ecgstudy.signals.store import RecordStore

COHORT = SyntheticCohort(n_subjects=12, n_sessions=2, n_records=2, fs=500.0, seed=5)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RecordStore:
    """Twelve synthetic persons, two days, two records a day."""
    return build_store(COHORT, tmp_path_factory.mktemp("cache"), delineate=False)


@pytest.fixture(scope="module")
def dataset(store: RecordStore) -> Dataset:
    """One lead of everybody."""
    return Dataset({"synthetic": store})


@pytest.fixture(scope="module")
def records(store: RecordStore) -> pd.DataFrame:
    """Record table with names unique across cohorts."""
    return with_cohort("synthetic", store.records)


def test_free_windows_are_evenly_spread_pieces_of_their_segment(dataset: Dataset, records: pd.DataFrame) -> None:
    part = segments(records.iloc[:2], 0.0, 0.5)
    windows, owners = dataset.windows(part, length=300, most=3)
    assert owners.tolist() == [0, 0, 0, 1, 1, 1]
    whole = dataset.segment(part["record_id"].iloc[0], 0, 500)
    np.testing.assert_array_equal(windows[:3], [whole[0:300], whole[100:400], whole[200:500]])


def test_a_segment_shorter_than_a_window_gives_none(dataset: Dataset, records: pd.DataFrame) -> None:
    windows, owners = dataset.windows(segments(records.iloc[:1], 0, 0.1), length=300, most=3)
    assert (windows.shape, len(owners)) == ((0, 300), 0)


def test_beats_are_aligned_to_a_fraction_of_a_sample(dataset: Dataset, records: pd.DataFrame) -> None:
    name = records["record_id"].iloc[0]
    beats = dataset.beats(name, 0, 1000)
    assert beats.shape[1] == 75
    assert len(beats) >= 6
    # the R peak stands in column 25; between neighbours its parabola's summit moves by less than a fifth of a sample
    left, middle, right = beats[:, 24], beats[:, 25], beats[:, 26]
    summit = (left - right) / (left - 2 * middle + right) / 2
    assert np.abs(summit - np.median(summit)).max() < 0.2


def test_training_averages_are_longer_and_seeded_and_probe_averages_are_consecutive(
    dataset: Dataset, records: pd.DataFrame
) -> None:
    part = segments(records.iloc[:1])
    one, _ = dataset.averaged_beats(part, 5, np.random.default_rng(1))
    again, _ = dataset.averaged_beats(part, 5, np.random.default_rng(1))
    assert one.shape == (5, 78)
    np.testing.assert_array_equal(one, again)
    probe, _ = dataset.averaged_beats(part, 3)
    beats = dataset.beats(part["record_id"].iloc[0], 0, 1000)
    np.testing.assert_allclose(probe[0], beats[:4].mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(probe[-1], beats[-4:].mean(axis=0), rtol=1e-6)


def test_soft_clip_keeps_the_ordinary_and_bends_an_artefact() -> None:
    t = np.arange(1000) / 100
    ordinary = np.sin(2 * np.pi * t)
    spiked = ordinary.copy()
    spiked[500] = 1000
    clipped = soft_clip(spiked, 100)
    assert clipped.max() <= 6
    # a range of 2 is 5 typical amplitudes, so the sine comes out at 2.5, bent by tanh(2.5 / 6)
    np.testing.assert_allclose(np.delete(clipped, 500), np.delete(6 * np.tanh(2.5 * ordinary / 6), 500), atol=0.02)


def test_a_lead_of_a_person_can_stand_as_a_class_of_its_own(dataset: Dataset, records: pd.DataFrame) -> None:
    table = by_lead(records.iloc[:1], ("I", "V2"))
    assert table["subject_id"].tolist() == ["synthetic/S001@I", "synthetic/S001@V2"]
    assert without_lead("synthetic/S001@V2") == "synthetic/S001"
    one, other = (dataset.segment(name, 0, 1000) for name in table["record_id"])
    np.testing.assert_array_equal(one, dataset.segment(records["record_id"].iloc[0], 0, 1000))
    assert np.corrcoef(one, other)[0, 1] < 0.9


def test_agreement_pooling_drops_what_points_elsewhere() -> None:
    true, stray = np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])
    vectors = np.stack([true, true, true, stray, [np.nan] * 3])
    pooled = agreement_pool(vectors, np.array([0, 0, 0, 0, 1]), n=3)
    plain = np.array([3, 1, 0]) / np.sqrt(10)
    assert pooled[0] @ true > 0.999 > plain @ true
    assert np.isnan(pooled[1:]).all()
    np.testing.assert_allclose(np.linalg.norm(pooled[0]), 1)


def test_validation_people_never_seen_are_enrolled_and_probed_by_different_recordings(records: pd.DataFrame) -> None:
    split = SubjectDisjoint(CrossRecord()).splits(records, 100.0, 0)[0]
    enrolment, probe = validation_trial(split)
    assert set(enrolment["subject_id"]) == set(probe["subject_id"]) == set(split.validation["subject_id"])
    assert not set(enrolment["record_id"]) & set(probe["record_id"])
    single = split.validation.groupby("subject_id").head(1)
    halves = validation_trial(type(split)("t", split.train, single, split.enrolment, split.probe, unseen_persons=True))
    assert (halves[0]["stop"].to_numpy() == halves[1]["start"].to_numpy()).all()
    known = CrossRecord().splits(records, 100.0, 0)[0]
    for part, expected in zip(validation_trial(known), (known.train, known.validation), strict=True):
        pd.testing.assert_frame_equal(part, expected)


@pytest.mark.parametrize(
    "protocol",
    [RandomWindows(), CrossRecord(), CrossDay(), LeaveLastDay(), SubjectDisjoint(CrossDay())],
    ids=lambda protocol: protocol.name,
)
def test_permuted_labels_give_chance_level_and_true_ones_do_not(
    protocol: RandomWindows, dataset: Dataset, records: pd.DataFrame
) -> None:
    attacker = TemplateAttacker()
    hits, permuted, chance, n = 0.0, 0.0, 0.0, 0
    rng = np.random.default_rng(0)
    for split in protocol.splits(records, 100.0, 0):
        enrolled, probed = attacker.embed(dataset, split.enrolment), attacker.embed(dataset, split.probe)
        matrix = trial(split.enrolment, enrolled, split.probe, probed)
        persons, gallery = matrix.probe, matrix.gallery
        found = gallery[matrix.scores.argmax(axis=1)]
        hits += (found == persons).sum()
        n += len(persons)
        # labels are permuted over persons a hundred times, as if nobody's enrolment were their own
        for _ in range(100):
            names = dict(zip(gallery, rng.permutation(gallery), strict=True))
            permuted += sum(names[name] == person for name, person in zip(found, persons, strict=True)) / 100
        chance += len(persons) / len(gallery)
    assert hits / n > 0.5
    assert permuted / n == pytest.approx(chance / n, abs=0.04)


def test_single_beats_are_typical_beats_evenly_spread_and_longer_for_training(
    dataset: Dataset, records: pd.DataFrame
) -> None:
    part, name = segments(records.iloc[:2]), records["record_id"].iloc[0]
    beats, owners = dataset.single_beats(part, most=3)
    assert beats.shape == (6, 60)
    assert owners.tolist() == [0, 0, 0, 1, 1, 1]
    whole = dataset.beats(name, 0, 1000, span=(0.2, 0.4))
    np.testing.assert_allclose(beats[[0, 2]], whole[[0, -1]], rtol=1e-6)  # the first and the last
    # 50 ms of an averaged beat lie before it, and the R peak stands in column 20
    np.testing.assert_allclose(whole, dataset.beats(name, 0, 1000)[: len(whole), 5:65], rtol=1e-6)
    longer, _ = dataset.single_beats(part, most=3, slack=3)
    np.testing.assert_allclose(longer[0, :60], beats[0], rtol=1e-6)
    assert longer.shape[1] == 63
    short, of = dataset.single_beats(segments(records.iloc[:1], 0, 0.03))
    assert (short.shape, len(of)) == ((0, 60), 0)


def test_validation_people_with_several_days_are_enrolled_by_their_first_day(records: pd.DataFrame) -> None:
    split = SubjectDisjoint(CrossDay()).splits(records, 100.0, 0)[0]
    enrolment, probe = validation_trial(split)
    assert set(enrolment["session"]) == {1}
    assert set(probe["session"]) == {2}
    assert enrolment.groupby("subject_id").size().tolist() == [2] * split.validation["subject_id"].nunique()
    one_day = split.validation[split.validation["session"] == 1]
    first, others = validation_trial(
        type(split)("t", split.train, one_day, split.enrolment, split.probe, unseen_persons=True)
    )
    assert first.groupby("subject_id").size().unique().tolist() == [1]
    assert set(first["record_id"]).isdisjoint(others["record_id"])
