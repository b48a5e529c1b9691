"""Where a single wave carries identity, taking that wave away ends recognition and taking any other does not."""

import numpy as np
import pandas as pd
import pytest

from ecgstudy.attribution.causal import (
    ALL,
    CONDITIONS,
    Attack,
    Change,
    Effects,
    effect_table,
    rank_correlation,
    share_agreement,
    wave_effects,
)
from ecgstudy.attribution.shares import Shares
from ecgstudy.attribution.waves import WAVES, fiducials_of_boundaries
from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.evaluate.bootstrap import Resamples
from ecgstudy.evaluate.protocols import CrossRecord
from ecgstudy.evaluate.splits import with_cohort
from ecgstudy.experiment.attackers import FittedTemplate
from ecgstudy.experiment.dataset import Signals
from ecgstudy.signals.ingest import build_store


def planted(wave: str, folder: pytest.TempPathFactory) -> Attack:
    """Ten persons who differ in one wave only, its boundaries exact, and an attacker that learns nothing."""
    cohort = SyntheticCohort(n_subjects=10, n_sessions=1, n_records=2, seed=2, identity_wave=wave, noise=False)
    store = build_store(cohort, folder.mktemp(wave), delineate=False, workers=1)
    signals = Signals({"synthetic": store})
    for record in store.records["record_id"]:
        signals._fiducials[f"synthetic/{record}"] = fiducials_of_boundaries(cohort.boundaries(record), 1.0, 0.0)
    split = CrossRecord().splits(with_cohort("synthetic", store.records), store.fs, 0)[0]
    return Attack(split, signals, FittedTemplate)


@pytest.fixture(scope="module", params=["T", "QRS"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Effects, Resamples]:
    """Effects of all changes, with the wave that carries identity."""
    attack = planted(request.param, tmp_path_factory)
    resamples = Resamples.draw(attack.split.enrolment["subject_id"], 0, 50)
    return request.param, wave_effects([attack], resamples), resamples


def test_replacing_the_planted_wave_ends_recognition_and_replacing_others_does_not(
    case: tuple[str, Effects, Resamples],
) -> None:
    wave, effects, resamples = case
    table = effect_table(effects, resamples).set_index(["change", "wave"])
    replaced, kept, own = (table.loc[str(change)] for change in Change)
    assert effects.unchanged(np.ones(10))[0] >= 0.6  # chance is one in ten
    assert replaced["eer_rise"].drop(ALL).idxmax() == wave
    assert kept["eer"].idxmin() == wave
    assert replaced.loc[ALL, "rank1"] <= 0.2
    # a person's own average tells as much as the person's beats
    assert own["rank1_fall"].abs().max() == 0
    assert own["eer_rise"].abs().max() < 0.02
    assert (table["waves_a_beat"] > 0.9).all()
    if wave == "T":  # QRS rules the scale of a window, so its size also shows in the others
        assert replaced.loc["T", "rank1"] <= 0.1
        assert replaced.loc["T", "rank1_fall_low"] >= 0.3
        assert replaced["rank1_fall"].drop(["T", ALL]).abs().max() == 0
        assert kept.loc["T", "rank1_fall"] == 0
        assert kept["rank1"].drop("T").max() <= 0.2


def test_effects_are_paired_differences_to_the_unchanged_recordings(case: tuple[str, Effects, Resamples]) -> None:
    _, effects, resamples = case
    table = effect_table(effects, resamples)
    before = effects.unchanged(np.ones(10))
    np.testing.assert_allclose(table["rank1_fall"], before[0] - table["rank1"])
    np.testing.assert_allclose(table["eer_rise"], table["eer"] - before[1])
    draws = np.array([effects.losses(multiplicity) for multiplicity in resamples.multiplicities])
    np.testing.assert_allclose(table["rank1_fall_high"], np.quantile(draws[:, :, 0], 0.975, axis=0))
    assert list(zip(table["change"], table["wave"], strict=True)) == list(CONDITIONS)


def test_shares_that_name_the_planted_wave_agree_with_its_effect(case: tuple[str, Effects, Resamples]) -> None:
    wave, effects, resamples = case
    rises = effects.losses(np.ones(10), [(Change.REPLACED, w) for w in WAVES])[:, 1]
    assert WAVES[rises.argmax()] == wave
    persons = np.array([str(person) for person in resamples.persons])
    alike = Shares(WAVES, np.tile(rises - rises.min(), (10, 1)), np.full((10, 6), 1 / 6))
    agreement = share_agreement(alike, persons, effects, resamples)["replaced.eer"]
    assert agreement.value == pytest.approx(1.0)
    assert agreement.low <= agreement.high <= 1.0
    left = -effects.losses(np.ones(10), [(Change.KEPT, w) for w in WAVES])[:, 1]
    assert WAVES[left.argmax()] == wave
    of_kept = Shares(WAVES, np.tile(left - left.min(), (10, 1)), np.full((10, 6), 1 / 6))
    assert share_agreement(of_kept, persons, effects, resamples)["kept.eer"].value == pytest.approx(1.0)
    opposite = Shares(WAVES, np.tile(rises.max() - rises, (10, 1)), np.full((10, 6), 1 / 6))
    assert share_agreement(opposite, persons, effects, resamples)["replaced.eer"].value == pytest.approx(-1.0)


def test_rank_correlation_by_hand_and_where_it_is_undefined() -> None:
    shares = np.array([0.1, 0.2, 0.3, 0.15, 0.05, 0.2])
    # ranks 2, 4.5, 6, 3, 1, 4.5 against 2, 3, 6, 4, 1, 5: Pearson of the ranks
    effects = np.array([1.0, 2.0, 9.0, 3.0, 0.0, 4.0])
    expected = pd.Series([2, 4.5, 6, 3, 1, 4.5]).corr(pd.Series([2, 3, 6, 4, 1, 5]))
    assert rank_correlation(shares, effects) == pytest.approx(expected)
    assert np.isnan(rank_correlation(shares, np.zeros(6)))
    assert np.isnan(rank_correlation(np.array([0.1, np.nan, 0.3, 0.2, 0.2, 0.2]), effects))
