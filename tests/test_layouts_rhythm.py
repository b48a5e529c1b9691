"""Atrial fibrillation from pages: planted rhythms, closed forms, and what a page does not show."""

from functools import partial

import numpy as np
import pandas as pd
import pytest

from ecgstudy.data.base import STANDARD_LEADS
from ecgstudy.errors import StudyError
from ecgstudy.layouts import rhythm
from ecgstudy.layouts.beats import sheets
from ecgstudy.layouts.layout import LAYOUTS
from ecgstudy.layouts.rhythm import EVIDENCE, FEATURES, FibrillationModel, rhythm_features, training_table

SINUS = np.arange(0.5, 9.6, 0.8)
IRREGULAR = np.cumsum([0.4, 0.62, 1.05, 0.7, 0.55, 0.95, 0.6, 1.2, 0.66, 0.8, 0.58, 0.9])
P_WAVE = rhythm._POLARITY


def _wave(time: np.ndarray, centre: float, width: float) -> np.ndarray:
    return np.exp(-0.5 * ((time - centre) / width) ** 2)


def ecg(
    times: np.ndarray,
    p_wave: float = 1.0,
    f_wave: float = 0.0,
    ectopic: tuple[int, ...] = (),
    fs: float = 100.0,
    seed: int = 0,
) -> np.ndarray:
    """Twelve leads, (12, 10 * fs), with an R peak at each of `times` (s) and a P wave 160 ms before it."""
    time, rng = np.arange(round(10 * fs)) / fs, np.random.default_rng(seed)
    heights = np.linspace(0.7, 1.3, 12)
    record = np.zeros((12, len(time)))
    for at, beat in enumerate(times):
        wave = partial(_wave, time - beat)
        if at in ectopic:
            record += heights[:, None] * 2.5 * (wave(-0.02, 0.04) - wave(0.07, 0.05))
            continue
        record += heights[:, None] * (wave(0, 0.012) - 0.2 * wave(0.035, 0.012) + 0.25 * wave(0.28, 0.05))
        record += 0.12 * p_wave * P_WAVE[:, None] * wave(-0.16, 0.025)
    phase = np.cumsum(6 + 1.5 * np.sin(2 * np.pi * 0.3 * time)) / fs
    record += f_wave * np.sin(2 * np.pi * (phase + rng.random((12, 1))))
    return record + 0.005 * rng.standard_normal(record.shape)


def page(record: np.ndarray, name: str = "12x1") -> np.ndarray:
    """One record as a cohort of one page."""
    return sheets(record[None].astype(np.float32), LAYOUTS[name].visible(STANDARD_LEADS, record.shape[1])[None])


@pytest.mark.parametrize("name", LAYOUTS)
def test_sinus_rhythm_and_fibrillation_differ_on_every_page_as_physiology_says(name: str) -> None:
    sinus = rhythm_features(page(ecg(SINUS), name)).iloc[0]
    fibrillation = rhythm_features(page(ecg(IRREGULAR, p_wave=0, f_wave=0.05), name)).iloc[0]
    assert sinus["rr_step"] < 0.02 < 0.3 < fibrillation["rr_step"]
    assert sinus["rr_lattice"] > 0.98 > 0.8 > fibrillation["rr_lattice"]
    for feature in ("p_coherence", "p_repeats"):
        assert sinus[feature] > 0.85, feature
        assert fibrillation[feature] < 0.4, feature
    assert sinus["p_likeness"] > 0.8 > 0.6 > fibrillation["p_likeness"]
    assert sinus["p_size"] > 3 * abs(fibrillation["p_size"])
    assert 0.06 < sinus["p_size"] < 0.18  # planted: 0.12 of a QRS of about 1
    assert sinus["ectopic"] == 0
    assert fibrillation["ectopic"] < 0.1


def test_features_do_not_depend_on_unit_or_gain_of_a_lead() -> None:
    gain = np.linspace(3, 400, 12)[:, None]
    ours = rhythm_features(page(ecg(IRREGULAR), "3x4+II"))
    theirs = rhythm_features(page(gain * ecg(IRREGULAR), "3x4+II"))
    apart = (ours - theirs).abs().iloc[0]
    logarithms = ["p_energy", "p_residual", "f_wave"]
    assert (apart.drop(logarithms) < 0.06).all(), apart
    assert (apart[["p_energy"]] < 0.3).all(), apart  # the other two are the noise's


def test_what_a_page_does_not_show_is_not_read() -> None:
    values = ecg(IRREGULAR)[None].astype(np.float32)
    shown = LAYOUTS["3x4+II+V1"].visible(STANDARD_LEADS, values.shape[-1])[None]
    other = np.where(shown, values, np.nan)
    louder = np.where(shown, values, 50 * np.random.default_rng(1).standard_normal(values.shape)).astype(np.float32)
    expected = rhythm_features(sheets(values, shown))
    pd.testing.assert_frame_equal(rhythm_features(sheets(other, shown)), expected)
    pd.testing.assert_frame_equal(rhythm_features(sheets(louder, shown)), expected)


def test_bigeminy_recurs_and_a_full_pause_keeps_the_lattice() -> None:
    bigeminy = np.cumsum([50, 60, 100, 60, 100, 60, 100, 60, 100.0])
    every = np.ones(len(bigeminy), dtype=bool)
    found = rhythm._intervals(bigeminy, every)
    assert found["rr_step"] == pytest.approx(40 / 80, abs=0.2)
    assert found["rr_recurrence"] == pytest.approx(0)
    premature = np.array([0, 80, 160, 210, 320, 400, 480.0])  # the beat at 210 should be at 240
    normal = premature != 210
    found = rhythm._intervals(premature, normal)
    assert found["rr_lattice"] == pytest.approx(1)
    assert found["rr_normal"] == pytest.approx(0)
    assert found["rr_step"] == pytest.approx(np.median([0, 30, 60, 30, 0]) / 80)
    assert found["rr_rmssd"] == pytest.approx(np.sqrt((30**2 + 60**2 + 30**2) / 5) / 80)
    assert rhythm._intervals(premature, normal | True)["rr_lattice"] < 0.9


def test_premature_wide_beats_with_a_pause_are_ectopy_and_leave_the_p_wave_alone() -> None:
    times = SINUS.copy()
    times[[4, 8]] -= 0.28
    found = rhythm_features(page(ecg(times, ectopic=(4, 8)))).iloc[0]
    assert found["ectopic"] == pytest.approx(2 / 12)
    assert found["premature"] == pytest.approx(2 / 12)
    assert found["compensated"] == 1
    assert found["qrs_least"] < 0.7
    assert found["p_coherence"] > 0.8
    assert found["rr_normal"] < 0.02 < found["rr_rmssd"]


def test_a_beat_lies_amid_its_slopes_and_a_t_wave_is_none() -> None:
    time = np.arange(1000)
    power = sum(_wave(time, beat + side, 2) for beat in (100, 200, 300, 400) for side in (-5, 5))
    power = power + 0.2 * _wave(time, 230, 4)
    beats = rhythm._centred(power, np.array([95, 205, 230, 295, 405]))
    np.testing.assert_allclose(beats, [100, 200, 300, 400], atol=0.2)


def test_the_coherence_of_pure_noise_is_nothing() -> None:
    rng, found = np.random.default_rng(2), []
    for _ in range(40):
        sheet, beats = rng.standard_normal((12, 1000)), np.arange(60, 960, 90)
        everything = np.ones(12, dtype=bool)
        found.append(rhythm._p_wave(sheet, np.ones(1000), beats, np.ones(len(beats), bool), everything))
    assert pd.DataFrame(found)["p_coherence"].mean() == pytest.approx(0, abs=0.01)
    assert pd.DataFrame(found)["p_repeats"].mean() == pytest.approx(0, abs=0.01)


def test_stretching_moves_beats_to_where_they_should_be_and_keeps_their_waves() -> None:
    record, beats = ecg(SINUS, seed=3), np.rint(SINUS * 100).astype(int)
    moved = rhythm.stretched(record, beats, np.full(len(beats) - 1, 90))
    for number, (was, now) in enumerate(zip(beats, beats[0] + 90 * np.arange(len(beats)), strict=True)):
        if now + 10 < 1000:
            around = np.arange(-20 if number else -10, 11)  # the P wave comes along
            np.testing.assert_allclose(moved[:, now + around], record[:, was + around], atol=1e-9)


def test_retiming_makes_fibrillation_regular_and_other_rhythms_irregular_with_their_p_waves() -> None:
    records = np.stack([ecg(IRREGULAR, 0, 0.05, seed=1), *(ecg(SINUS, seed=seed) for seed in range(6))])
    fibrillates = np.array([True] + [False] * 6)
    moved = rhythm.retimed(records.astype(np.float32), fibrillates, np.random.default_rng(0))
    found = rhythm_features(sheets(moved))
    assert found["rr_rmssd"][0] < 0.06
    assert found["p_coherence"][0] < 0.5
    assert (found["rr_rmssd"][1:] > 0.06).all()
    assert (found["p_coherence"][1:] > 0.7).all()


@pytest.fixture(scope="module")
def trained() -> tuple[pd.DataFrame, np.ndarray]:
    rng, records, labels = np.random.default_rng(4), [], []
    for seed in range(60):
        fibrillates = seed % 3 == 0
        rr = 0.8 * np.exp((0.3 if fibrillates else 0.02) * rng.standard_normal(16))
        times = 0.4 + np.cumsum(np.maximum(rr, 0.4))
        strength = 0.0 if fibrillates else rng.uniform(0.5, 1.5)
        records.append(ecg(times[times < 9.8], strength, 0.05 * fibrillates, seed=seed))
        labels.append(fibrillates)
    table = training_table(np.stack(records).astype(np.float32), np.array(labels))
    return table, np.array(labels)[table.index]


@pytest.fixture(scope="module")
def model(trained: tuple[pd.DataFrame, np.ndarray]) -> FibrillationModel:
    return FibrillationModel().fit(*trained)


def test_the_model_says_which_evidence_spoke(model: FibrillationModel) -> None:
    pages = [ecg(SINUS), ecg(IRREGULAR, 0, 0.05), ecg(IRREGULAR)]
    values = np.stack(pages).astype(np.float32)
    features = rhythm_features(sheets(values))
    sinus, fibrillation, irregular_with_p = model.score(features)
    assert sinus < irregular_with_p < fibrillation
    evidence = model.evidence(features)
    assert list(evidence) == list(EVIDENCE)
    assert (evidence.loc[1, ["irregularity", "p_wave"]] > 0.3).any()
    assert evidence.loc[2, "irregularity"] >= evidence.loc[0, "irregularity"]
    assert evidence.loc[1, "p_wave"] > evidence.loc[2, "p_wave"]


def test_the_score_only_rises_with_irregularity_and_only_falls_with_a_p_wave_even_if_the_data_say_otherwise(
    trained: tuple[pd.DataFrame, np.ndarray],
) -> None:
    table, labels = trained
    features = rhythm_features(page(ecg(IRREGULAR)))
    for model in (FibrillationModel().fit(table, labels), FibrillationModel().fit(table, ~labels)):
        for name, sign in rhythm._MONOTONE.items():
            if sign:
                grown = pd.concat([features.assign(**{name: value}) for value in np.linspace(-12, 3, 61)])
                assert (sign * np.diff(model.score(grown)) >= -1e-9).all(), name


def test_a_page_without_beats_has_no_features_and_still_a_score(model: FibrillationModel) -> None:
    features = rhythm_features(page(np.zeros((12, 1000))))
    assert list(features) == list(FEATURES)
    assert features.isna().all(axis=None)
    assert np.isfinite(model.score(features)).all()


def test_a_cohort_of_one_kind_is_refused() -> None:
    table = rhythm_features(page(ecg(SINUS))).assign(weight=1.0)
    with pytest.raises(StudyError, match="all training records fibrillate, or none"):
        FibrillationModel().fit(table, np.zeros(1, dtype=bool))
