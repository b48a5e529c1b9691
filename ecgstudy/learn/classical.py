"""Attackers that are no networks: average beats that need no training, and PQRST features in boosted trees.

The template is the floor under every learned attacker. The feature model is transparent: "ECG Unveiled", arXiv
2408.10228 (2024), which does not name its classifiers; gradient boosting is OURS. SHAP values of trees: Lundberg et
al., "From local explanations to global understanding with explainable AI for trees", Nature Machine Intelligence 2020.
"""

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier

from ecgstudy.errors import StudyError
from ecgstudy.learn.base import UNKNOWN
from ecgstudy.signals.features import average_beat

BEFORE_R_S, AFTER_R_S = 0.25, 0.4
"""Part of a template around the R peak: from before the P wave to behind the T wave at 100 beats a minute."""
_LEAST_PROBABILITY = 1e-6  # below it the trees' probabilities are noise, and their logarithms would rule the distance


def template_embeddings(recordings: Sequence[np.ndarray], r_peaks: Sequence[np.ndarray], fs: float) -> np.ndarray:
    """Embed recordings as their average beats: the cosine of two embeddings is the correlation of the beats.

    From recordings (n_leads, n_samples) of any lengths and the samples of their R peaks, at `fs` Hz, to rows of unit
    length (n, n_leads * beat) whose leads have mean 0; NaN for a recording without a whole beat or with a constant one.
    """
    before, after = round(BEFORE_R_S * fs), round(AFTER_R_S * fs)
    both = zip(recordings, r_peaks, strict=True)
    beats = [average_beat(values, np.asarray(peaks), before, after) for values, peaks in both]
    centred = [(beat - beat.mean(axis=-1, keepdims=True)).ravel() for beat in beats]
    return unit_rows(np.stack(centred) if centred else np.empty((0, before + after)))


class FeaturesGbm:
    """Histogram gradient boosting over named features; missing values need no filling.

    Each of `max_iter` rounds grows one tree per class, of few leaves because the trees are many.
    """

    name = "features_gbm"

    def __init__(self, seed: int, max_iter: int = 80) -> None:
        trees = {"max_leaf_nodes": 4, "min_samples_leaf": 3, "learning_rate": 0.1, "l2_regularization": 5.0}
        rounds = {"max_iter": max_iter, "early_stopping": False}
        self._booster = HistGradientBoostingClassifier(**trees, **rounds, random_state=seed)

    @property
    def classes(self) -> np.ndarray:
        """Class of each column of the outputs, ascending."""
        return self._booster.classes_

    def fit(self, features: pd.DataFrame, labels: np.ndarray) -> "FeaturesGbm":
        """Train on windows (a row each, named features) whose label, an integer, is not ``UNKNOWN``."""
        known = labels != UNKNOWN
        if len(np.unique(labels[known])) < 2:
            raise StudyError("The feature model cannot be trained: all windows have the same label, or none.")
        if features[known].isna().to_numpy().all():
            raise StudyError("The feature model cannot be trained: no wave was found in any training window.")
        with warnings.catch_warnings():
            # a gallery of many people with few windows each is meant
            warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%")
            self._booster.fit(features[known], labels[known])
        return self

    def predict_proba(self, features: pd.DataFrame) -> np.ndarray:
        """Probability of each class, shape (n, n_classes)."""
        if features.empty:
            return np.empty((0, len(self.classes)))
        return self._booster.predict_proba(features)

    def embed(self, features: pd.DataFrame) -> np.ndarray:
        """Embed windows by how much they resemble each training class, rows of unit length, shape (n, n_classes).

        They are the logarithms of the class probabilities less their mean, whose cosine verifies people whether or
        not they are training classes; NaN for a window without any feature.
        """
        logarithms = np.log(np.maximum(self.predict_proba(features), _LEAST_PROBABILITY))
        logarithms -= logarithms.mean(axis=1, keepdims=True)
        logarithms[features.isna().to_numpy().all(axis=1)] = np.nan
        return unit_rows(logarithms)

    def shap_values(self, features: pd.DataFrame) -> np.ndarray:
        """SHAP values of the raw scores (log-odds), shape (n, n_features, n_classes); two classes mirror each other."""
        import shap  # a second that only this table costs

        values = np.asarray(shap.TreeExplainer(self._booster).shap_values(features))
        return values if values.ndim == 3 else np.stack([-values, values], axis=-1)


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Bring rows to unit length; a row of zeros has no direction and becomes NaN."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.full_like(vectors, np.nan), where=length > 0)
