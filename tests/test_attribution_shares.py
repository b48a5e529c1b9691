"""Shares of a known relevance, enrichment 1 for one that knows nothing, and intervals over persons."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from ecgstudy.attribution import shares as shared
from ecgstudy.attribution.waves import REGIONS, UNKNOWN_WAVE, WAVES
from ecgstudy.evaluate.bootstrap import Resamples
from ecgstudy.learn.classical import FeaturesGbm
from ecgstudy.signals.features import FEATURES

CODES = np.repeat(np.array([UNKNOWN_WAVE, 0, 1, 2, 3, 4, 5], dtype=np.int8), [10, 8, 4, 8, 10, 20, 50])[None]
"""One window of 110 samples, the first 10 of which have no wave."""


def windows(n: int) -> np.ndarray:
    """Codes of `n` equal windows."""
    return np.repeat(CODES, n, axis=0)


def test_shares_of_a_known_relevance() -> None:
    relevance = np.zeros(110, dtype=np.float32)
    relevance[:10] = 100.0  # in no wave: counts nowhere
    relevance[10] = 1.0
    relevance[22:30] = 1.0
    relevance[109] = 3.0
    mass, time = shared.shares(relevance[None], CODES)
    np.testing.assert_allclose(mass[0], [1 / 12, 0, 8 / 12, 0, 0, 3 / 12])
    np.testing.assert_allclose(time[0], [0.08, 0.04, 0.08, 0.10, 0.20, 0.50])


def test_regions_overlap_and_are_shared_out_among_the_same_samples() -> None:
    masks = np.zeros((1, len(REGIONS), 110), dtype=bool)
    masks[0, 0, 24:28] = True
    masks[0, 1, 22:30] = True
    masks[0, 2, :26] = True  # its first 10 samples are in no wave
    mass, time = shared.shares(np.ones((1, 110)), CODES, masks)
    np.testing.assert_allclose(mass[0], [0.04, 0.08, 0.16, 0, 0])
    np.testing.assert_allclose(time, mass)


def table_of(relevance: np.ndarray, persons: str, codes: np.ndarray | None = None) -> pd.DataFrame:
    """Shares of windows, each of the person that a letter names."""
    parts = shared.shares(relevance, windows(len(relevance)) if codes is None else codes)
    return shared.share_table(parts, np.array([*persons]), Resamples.draw(persons, 0, 200)).set_index("wave")


def test_uniform_relevance_is_enriched_nowhere() -> None:
    table = table_of(np.full((4, 110), 0.7), "aabc")
    np.testing.assert_allclose(table[["enrichment", "enrichment_low", "enrichment_high"]], 1.0)
    np.testing.assert_allclose(table["share"], [0.08, 0.04, 0.08, 0.10, 0.20, 0.50])
    assert table[["persons", "windows", "undefined"]].to_numpy().tolist() == [[3, 4, 0]] * 6


def test_every_person_weighs_the_same_and_intervals_resample_persons() -> None:
    relevance = np.zeros((4, 110))
    relevance[:3, 22:30] = 1.0  # three windows of one person: all in QRS
    relevance[3, 40:60] = 1.0  # one of another: all in T
    table = table_of(relevance, "aaab")
    assert table.loc["QRS", "share"] == pytest.approx(0.5)
    assert table.loc["QRS", "enrichment"] == pytest.approx(0.5 / 0.08)
    # of two persons, both draws are one of them in half of the resamples
    assert table.loc["QRS", ["share_low", "share_high"]].tolist() == [0.0, 1.0]
    assert table.loc["T", "enrichment_high"] == pytest.approx(1 / 0.2)


def test_a_person_drawn_twice_counts_twice() -> None:
    relevance = np.zeros((3, 110))
    relevance[[0, 1, 2], [12, 24, 50]] = 1.0  # P, QRS and T
    means = shared.mean_shares(shared.shares(relevance, windows(3)), np.array([*"abc"]), Resamples.draw("abc", 0, 5))
    np.testing.assert_allclose(means(np.array([2.0, 1.0, 0.0]))[0], [2 / 3, 0, 1 / 3, 0, 0, 0])


def test_windows_without_relevance_leave_share_and_time() -> None:
    codes = windows(2)
    codes[1, codes[1] == WAVES.index("TP")] = UNKNOWN_WAVE
    table = table_of(np.array([np.ones(110), np.full(110, np.nan)]), "ab", codes)
    assert table["time"].tolist() == pytest.approx([0.08, 0.04, 0.08, 0.10, 0.20, 0.50])
    assert table["undefined"].tolist() == [1] * 6
    assert table["share_low"].isna().all()
    assert table["reason"].str.contains("one person").all()


def test_what_is_undefined_has_a_reason() -> None:
    table = table_of(np.zeros((2, 110)), "ab")
    assert table[["share", "time", "enrichment"]].isna().all(axis=None)
    assert (table["reason"] == shared.NO_RELEVANCE).all()
    codes = windows(2)
    codes[codes == WAVES.index("PR")] = UNKNOWN_WAVE
    row = table_of(np.ones((2, 110)), "ab", codes).loc["PR"]
    assert row["time"] == 0
    assert np.isnan(row["enrichment"])
    assert row["reason"] == "no window has a PR"


def test_signed_attributions_are_refused() -> None:
    with pytest.raises(ValueError, match="magnitude"):
        shared.shares(np.full((1, 110), -1.0), CODES)


def test_rank_correlation_is_spearmans() -> None:
    first = np.array([[1.0, 2, 3, 4, 5], [1, 2, 3, 4, 5], [1, 1, 1, 1, 1], [1, 2, 3, 4, np.nan], [1, 2, 2, 4, 5]])
    second = np.array([[2.0, 4, 6, 8, 9], [9, 8, 6, 4, 2], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5]])
    # ranks 1, 2.5, 2.5, 4, 5 against 1 to 5: covariance sum 9.5, squares 9.5 and 10
    np.testing.assert_allclose(shared.rank_correlation(first, second), [1, -1, np.nan, np.nan, np.sqrt(0.95)])


def test_agreement_of_methods_and_seeds_by_hand() -> None:
    persons = np.array([*"aabbcc"])
    resamples = Resamples.draw(persons, 0, 50)
    rising = np.tile(np.arange(10.0), (6, 1))
    some = np.where(np.arange(6)[:, None] < 2, rising, -rising)  # person a agrees, b and c do not
    found = shared.method_agreement({"x": rising, "y": some, "z": np.full((6, 10), np.nan)}, persons, resamples)
    found = found.set_index(["first", "second"])
    assert found.loc[("x", "y"), "correlation"] == pytest.approx(-1 / 3)
    assert np.isnan(found.loc[("x", "z"), "correlation"])
    assert found.loc[("x", "z"), "reason"]
    seeds = shared.seed_agreement([{"m": rising}, {"m": rising}, {"m": -rising}], persons, resamples)
    assert seeds["correlation"][0] == pytest.approx(-1 / 3)  # pairs 1, -1, -1
    assert seeds["seeds"][0] == 3


def test_agreement_of_models_by_hand() -> None:
    waves = {"P": 1.0, "QRS": 2.0, "T": 3.0}
    found = shared.model_agreement(
        {"a": waves, "b": {"P": 3, "QRS": 2, "T": 1}, "c": dict.fromkeys(waves, 1.0), "d": {"P": 1, "T": 2}}
    )
    found = found.set_index(["first", "second"])
    assert found.loc[("a", "b"), "correlation"] == pytest.approx(-1)
    assert found.loc[("a", "c"), "reason"] == "all waves of one have the same enrichment"
    assert found.loc[("a", "d"), "reason"] == "fewer than three waves are known to both"


def test_models_are_compared_by_shares_where_people_are_recognised_in_another_recording(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shared, "audited_jobs", lambda *_: [(SimpleNamespace(cohort="c"),)])
    about = {"cohort": "c", "protocol": "cross_record", "task": "person", "kind": "wave", "model": "resnet1d"}
    about["method"] = "integrated_gradients"
    rows = [about | {"wave": wave, "share": at, "enrichment": -at} for at, wave in enumerate(WAVES)]
    changes = {"cohort": "d", "protocol": "random_windows", "task": "sex", "kind": "region", "method": "saliency"}
    others = [row | {key: other, "share": -row["share"]} for key, other in changes.items() for row in rows]
    of_features = pd.DataFrame({"wave": WAVES, "share": range(6)})
    found = shared.compared_models(None, 0, pd.DataFrame([*others, *rows]), of_features)
    assert found[["first", "second", "correlation"]].to_numpy().tolist() == [
        ["resnet1d, integrated gradients", "features, SHAP", 1.0]
    ]


def test_every_feature_is_split_between_waves() -> None:
    weights = shared.wave_weights()
    assert list(weights.index) == list(FEATURES)
    assert list(weights.columns) == list(WAVES)
    np.testing.assert_array_equal(weights.sum(axis=1), 1)
    expected = {
        "P-Q interval": {"P": 0.5, "QRS": 0.5},
        "S-R amplitude": {"QRS": 1},
        "T-R amplitude": {"QRS": 0.5, "T": 0.5},
        "P-T interval": {"P": 0.5, "T": 0.5},
        "QT duration": {"QRS": 0.5, "T": 0.5},
        "P duration": {"P": 1},
        "R-R interval": {"TP": 1},
    }
    for feature, waves in expected.items():
        assert weights.loc[feature][weights.loc[feature] > 0].to_dict() == waves


def test_shares_of_the_feature_model(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    features = pd.DataFrame(rng.standard_normal((300, len(FEATURES))), columns=list(FEATURES))
    labels = np.digitize(features["T duration"], [-0.5, 0.5]) * 10  # classes 0, 10, 20, told by T alone
    model = FeaturesGbm(seed=0, max_iter=10).fit(features, labels)
    asked = features[:20].copy()
    asked.iloc[0] = np.nan
    shares = shared.feature_shares(model, asked, labels[:20])
    assert shares.iloc[0].isna().all()
    np.testing.assert_allclose(shares[1:].sum(axis=1), 1)
    assert shares["T"][1:].median() > 0.8
    with pytest.raises(ValueError, match="not a class"):
        shared.feature_shares(model, asked, np.full(20, 7))

    values = np.zeros((20, len(FEATURES), 3))
    values[:, list(FEATURES).index("P-Q interval"), 1] = -3
    values[:, list(FEATURES).index("T duration"), 1] = 1
    values[:, list(FEATURES).index("P duration"), 2] = 50  # of another class
    monkeypatch.setattr(model, "shap_values", lambda _: values)
    shares = shared.feature_shares(model, asked, np.full(20, 10))
    np.testing.assert_allclose(shares.iloc[5], [1.5 / 4, 0, 1.5 / 4, 0, 1 / 4, 0])
    assert shared.feature_shares(model, asked, np.full(20, 0)).isna().all(axis=None)  # nothing speaks for class 0
