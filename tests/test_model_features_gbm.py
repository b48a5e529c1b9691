"""The feature model: SHAP values that add up, a planted feature, and embeddings."""

import numpy as np
import pandas as pd
import pytest

from ecgstudy.errors import StudyError
from ecgstudy.learn.base import UNKNOWN
from ecgstudy.learn.classical import FeaturesGbm

NAMES = ["R-S interval", "S-R amplitude", "T-R amplitude", "P-Q interval"]


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


def test_unknown_labels_are_left_out() -> None:
    features, labels = drawn(3, seed=0)
    masked = FeaturesGbm(seed=0, max_iter=5).fit(features, np.where(labels == 2, UNKNOWN, labels))
    assert masked.classes.tolist() == [0, 1]
