"""The transparent model: PQRST features, gradient-boosted trees and SHAP values.

Source: "ECG Unveiled", arXiv 2408.10228 (2024). The paper does not name its
classifiers; gradient boosting is OURS. SHAP values of trees: Lundberg et al.,
"From local explanations to global understanding with explainable AI for trees",
Nature Machine Intelligence 2020.
"""

import numpy as np
import pandas as pd
import shap
from sklearn.ensemble import HistGradientBoostingClassifier

from ecgstudy.errors import StudyError
from ecgstudy.learn.base import UNKNOWN
from ecgstudy.learn.scoring import unit_rows

_LEAST_PROBABILITY = 1e-6  # below it the trees' probabilities are noise, and their logarithms would rule the distance


class FeaturesGbm:
    """Histogram gradient boosting over named features; missing values need no filling.

    Parameters
    ----------
    seed : int
        Seed of the booster.
    max_iter : int
        Boosting rounds; each grows one tree per class.
    max_leaf_nodes : int
        Leaves of a tree. Few, because the trees are many: 90 people take seconds, not minutes.
    """

    name = "features_gbm"

    def __init__(self, seed: int, max_iter: int = 80, max_leaf_nodes: int = 4) -> None:
        self._booster = HistGradientBoostingClassifier(
            max_iter=max_iter,
            max_leaf_nodes=max_leaf_nodes,
            learning_rate=0.1,
            l2_regularization=5.0,
            min_samples_leaf=3,
            early_stopping=False,
            random_state=seed,
        )

    @property
    def classes(self) -> np.ndarray:
        """Class of each column of the outputs, ascending."""
        return self._booster.classes_

    def fit(self, features: pd.DataFrame, labels: np.ndarray) -> "FeaturesGbm":
        """Train on windows whose label is known.

        Parameters
        ----------
        features : pandas.DataFrame
            One row a window, columns :data:`ecgstudy.signals.features.FEATURES` (or those of several leads).
        labels : numpy.ndarray
            Class of each window, integers; ``UNKNOWN`` rows are left out.

        Raises
        ------
        StudyError
            Fewer than two classes, or no feature was ever measured.
        """
        known = labels != UNKNOWN
        if len(np.unique(labels[known])) < 2:
            raise StudyError("The feature model cannot be trained: all windows have the same label, or none.")
        if features[known].isna().to_numpy().all():
            raise StudyError("The feature model cannot be trained: no wave was found in any training window.")
        self._booster.fit(features[known], labels[known])
        return self

    def predict_proba(self, features: pd.DataFrame) -> np.ndarray:
        """Probability of each class, shape (n, n_classes)."""
        return self._booster.predict_proba(features)

    def embed(self, features: pd.DataFrame) -> np.ndarray:
        """Embed windows by how much they resemble each training class.

        Returns
        -------
        numpy.ndarray
            Shape (n, n_classes), rows of unit length: the logarithms of the
            class probabilities less their mean. Their cosine verifies people
            whether or not they are training classes; NaN for a window without
            any feature.
        """
        logarithms = np.log(np.maximum(self.predict_proba(features), _LEAST_PROBABILITY))
        logarithms -= logarithms.mean(axis=1, keepdims=True)
        logarithms[features.isna().to_numpy().all(axis=1)] = np.nan
        return unit_rows(logarithms)

    def shap_values(self, features: pd.DataFrame) -> np.ndarray:
        """SHAP values of the raw scores (log-odds).

        Returns
        -------
        numpy.ndarray
            Shape (n, n_features, n_classes); with two classes the second is the
            positive one and the first its negative.
        """
        values = np.asarray(shap.TreeExplainer(self._booster).shap_values(features))
        return values if values.ndim == 3 else np.stack([-values, values], axis=-1)
