"""PQRST features on beats drawn by hand, the feature model on a planted one, and templates of known beats."""

import numpy as np
import pandas as pd
import pytest

from ecgstudy.errors import StudyError
from ecgstudy.learn.base import UNKNOWN
from ecgstudy.learn.classical import FeaturesGbm, template_embeddings, unit_rows
from ecgstudy.signals.features import FEATURES, average_beat, beat_features, window_features

FS = 200.0  # 5 ms a sample
NAMES = ["R-S interval", "S-R amplitude", "T-R amplitude", "P-Q interval"]
BEAT = {"p_onset": 10, "p_peak": 16, "p_offset": 22, "qrs_onset": 30, "r_peak": 36, "qrs_offset": 44}
BEAT |= {"t_onset": 60, "t_peak": 74, "t_offset": 84}
HEIGHTS = {16: 0.15, 33: -0.1, 36: 1.2, 39: -0.3, 74: 0.35}


def beats_by_hand(n: int = 3, period: int = 100) -> tuple[np.ndarray, pd.DataFrame]:
    """Draw a lead of `n` equal beats and its fiducials."""
    values = np.zeros(n * period)
    for beat in range(n):
        for place, height in HEIGHTS.items():
            values[beat * period + place] = height
    rows = [{column: float(sample + beat * period) for column, sample in BEAT.items()} for beat in range(n)]
    return values, pd.DataFrame(rows)


def test_features_by_hand() -> None:
    values, fiducials = beats_by_hand()
    table = beat_features(values, FS, fiducials)
    expected = {
        "P-Q interval": 85.0,
        "P-R interval": 100.0,
        "R-S interval": 15.0,
        "Q-T interval": 205.0,
        "S-T interval": 175.0,
        "S-R amplitude": -1.5,
        "T-R amplitude": -0.85,
        "Q-P amplitude": -0.25,
        "T-S amplitude": 0.65,
        "P duration": 60.0,
        "PR duration": 100.0,
        "QRS duration": 70.0,
        "QT duration": 270.0,
        "T duration": 120.0,
        "R-R interval": 500.0,
    }
    for name, value in expected.items():
        assert table[name][1] == pytest.approx(value), name
    assert table["R-R interval"].isna().tolist() == [True, False, False]
    assert list(table.columns) == list(FEATURES)


def test_every_feature_has_a_unit() -> None:
    assert len(FEATURES) == 10 + 10 + 5 + 1
    assert {unit for name, unit in FEATURES.items() if name.endswith("amplitude")} == {"signal"}
    assert {unit for name, unit in FEATURES.items() if not name.endswith("amplitude")} == {"ms"}


def test_rate_changes_no_interval() -> None:
    values, fiducials = beats_by_hand()
    doubled = beat_features(np.repeat(values, 2), 2 * FS, fiducials * 2)
    once = beat_features(values, FS, fiducials)
    # Q and S are found to the sample
    timed = [name for name, unit in FEATURES.items() if unit == "ms"]
    intervals = [name for name in timed if not {"Q", "S"} & set(name.split()[0].split("-"))]
    pd.testing.assert_frame_equal(doubled[intervals], once[intervals])


def test_missing_wave_is_undefined_and_harms_nothing_else() -> None:
    values, fiducials = beats_by_hand()
    whole = beat_features(values, FS, fiducials)
    fiducials.loc[1, ["p_onset", "p_peak", "p_offset"]] = np.nan
    table = beat_features(values, FS, fiducials)
    of_p = [name for name in FEATURES if "P" in name.split()[0]]
    assert table.loc[1, of_p].isna().all()
    others = [name for name in FEATURES if name not in of_p]
    pd.testing.assert_frame_equal(table[others], whole[others])


def test_window_takes_the_median_of_its_beats() -> None:
    values, fiducials = beats_by_hand(n=5)
    beats = beat_features(values, FS, fiducials)
    beats["P duration"] = [10.0, 20.0, 60.0, np.nan, 90.0]
    peaks = fiducials["r_peak"].to_numpy()
    table = window_features(beats, peaks, starts=np.array([0, 236, 237, 450]), n_samples=300)
    # R peaks at 36, 136, 236, 336, 436: [0, 300) holds three, [236, 536) and [237, 537) the rest, [450, 750) none
    np.testing.assert_array_equal(table["P duration"], [20.0, 75.0, 90.0, np.nan])
    assert table.iloc[3].isna().all()


def drawn(n_persons: int, seed: int, n: int = 20) -> tuple[pd.DataFrame, np.ndarray]:
    """Draw persons who differ in "T-R amplitude" only."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(n_persons), n)
    table = pd.DataFrame(rng.normal(size=(len(labels), 4)), columns=NAMES)
    table["T-R amplitude"] += 10 * labels
    return table, labels


def fitted(n_persons: int = 3) -> FeaturesGbm:
    """Fit a small model."""
    return FeaturesGbm(seed=0, max_iter=20).fit(*drawn(n_persons, seed=0))


def test_persons_are_recognised_by_the_planted_feature() -> None:
    model = fitted()
    features, labels = drawn(3, seed=1)
    assert (model.classes[model.predict_proba(features).argmax(1)] == labels).all()
    strength = np.abs(model.shap_values(features)).mean(axis=(0, 2))
    assert NAMES[int(strength.argmax())] == "T-R amplitude"
    assert strength.max() > 10 * np.sort(strength)[-2]


def test_shap_values_add_up_to_the_log_odds() -> None:
    model = fitted()
    features, _ = drawn(3, seed=1)
    values = model.shap_values(features)
    assert values.shape == (60, 4, 3)
    # up to one constant a class (the expected value), the log-probabilities differ as the sums do
    logits = values.sum(axis=1)
    logarithms = np.log(model.predict_proba(features))
    difference = (logits - logits[:, :1]) - (logarithms - logarithms[:, :1])
    np.testing.assert_allclose(difference, np.broadcast_to(difference[0], difference.shape), atol=1e-8)


def test_two_classes_have_opposite_shap_values() -> None:
    model = fitted(n_persons=2)
    features, _ = drawn(2, seed=1)
    values = model.shap_values(features)
    assert values.shape == (40, 4, 2)
    np.testing.assert_array_equal(values[..., 0], -values[..., 1])
    odds = np.log(model.predict_proba(features))
    difference = values[..., 1].sum(axis=1) - (odds[:, 1] - odds[:, 0])
    np.testing.assert_allclose(difference, difference[0], atol=1e-8)


def test_embedding_verifies_and_undefined_stays_undefined() -> None:
    model = fitted()
    features, labels = drawn(3, seed=1)
    features.iloc[0] = np.nan
    embeddings = model.embed(features)
    assert np.isnan(embeddings[0]).all()
    np.testing.assert_allclose(np.linalg.norm(embeddings[1:], axis=1), 1.0)
    np.testing.assert_allclose(embeddings[1:].sum(axis=1), 0.0, atol=1e-9)
    scores = embeddings[1:] @ embeddings[1:].T
    same = labels[1:, None] == labels[None, 1:]
    assert scores[same].min() > scores[~same].max()


def test_missing_features_are_read_as_they_are() -> None:
    model = fitted()
    features, labels = drawn(3, seed=1)
    features.loc[:, "P-Q interval"] = np.nan
    assert (model.predict_proba(features).argmax(1) == labels).all()


def test_untrainable_sets_are_refused() -> None:
    features, labels = drawn(3, seed=0)
    with pytest.raises(StudyError, match="same label, or none"):
        FeaturesGbm(seed=0).fit(features, np.where(labels == 1, 1, UNKNOWN))
    with pytest.raises(StudyError, match="no wave was found"):
        FeaturesGbm(seed=0).fit(features * np.nan, labels)


def test_trees_grow_for_all_rounds_also_where_nothing_can_be_learnt() -> None:
    features, labels = drawn(3, seed=0)
    model = FeaturesGbm(seed=0).fit(features, np.random.default_rng(0).permutation(labels))
    assert model._booster.n_iter_ == 80


def test_unknown_labels_are_left_out() -> None:
    features, labels = drawn(3, seed=0)
    masked = FeaturesGbm(seed=0, max_iter=5).fit(features, np.where(labels == 2, UNKNOWN, labels))
    assert masked.classes.tolist() == [0, 1]


def test_average_beat_of_two_by_hand() -> None:
    values = np.arange(20, dtype=float).reshape(1, 20) ** 2
    # beats at 5 and 9 are whole; those at 1 and 18 reach outside the recording
    beat = average_beat(values, np.array([1, 5, 9, 18]), before=2, after=3)
    expected = [(a**2 + b**2) / 2 for a, b in zip(range(3, 8), range(7, 12), strict=True)]
    np.testing.assert_allclose(beat, [expected])


def test_beat_that_just_fits_is_kept() -> None:
    values = np.arange(5.0).reshape(1, 5)
    np.testing.assert_array_equal(average_beat(values, np.array([2]), before=2, after=3), values)
    assert np.isnan(average_beat(values, np.array([3]), before=2, after=3)).all()


def test_one_artefact_bends_nothing() -> None:
    values = np.tile(np.arange(10.0), 5).reshape(1, 50)
    values[0, 20:30] = 1e6
    beat = average_beat(values, np.array([5, 15, 25, 35, 45]), before=3, after=4)
    np.testing.assert_array_equal(beat, [np.arange(2.0, 9.0)])


def test_score_is_the_correlation_of_average_beats() -> None:
    rng = np.random.default_rng(0)
    recordings = [rng.normal(size=(1, 300)) for _ in range(4)]
    peaks = [np.array([60, 150, 230])] * 4
    embeddings = template_embeddings(recordings, peaks, fs=100.0)
    beats = [average_beat(values, peaks[0], 25, 40)[0] for values in recordings]
    np.testing.assert_allclose(embeddings[:2] @ embeddings[2:].T, np.corrcoef(beats)[:2, 2:], atol=1e-12)


def test_gain_and_offset_do_not_matter() -> None:
    rng = np.random.default_rng(1)
    values, peaks = rng.normal(size=(2, 300)), np.array([100, 200])
    one, other = template_embeddings([values, 3 * values + np.array([[7.0], [-2.0]])], [peaks, peaks], 100.0)
    assert one @ other == pytest.approx(1.0)


def test_recording_without_beats_is_undefined() -> None:
    values, peaks = np.random.default_rng(2).normal(size=(1, 300)), np.array([100, 200])
    flat = np.zeros((1, 300))
    embeddings = template_embeddings([values, values, flat], [peaks, np.array([], dtype=int), peaks], 100.0)
    assert np.isnan(embeddings).all(axis=1).tolist() == [False, True, True]


def test_rows_have_unit_length_and_nothing_has_no_direction() -> None:
    np.testing.assert_allclose(unit_rows(np.array([[3.0, -4.0]])), [[0.6, -0.8]])
    assert np.isnan(unit_rows(np.zeros((1, 3)))).all()
