"""Shares of waves in what the feature model uses: SHAP values of its features, summed to waves."""

import numpy as np
import pandas as pd

from ecgstudy.attribution.waves import WAVES
from ecgstudy.learn.classical import FeaturesGbm
from ecgstudy.signals.features import FEATURES

_WAVE_OF_PEAK = {"P": "P", "Q": "QRS", "R": "QRS", "S": "QRS", "T": "T"}
_WAVES_OF_DURATION = {
    "P duration": ("P", "P"),
    "PR duration": ("P", "QRS"),
    "QRS duration": ("QRS", "QRS"),
    "QT duration": ("QRS", "T"),
    "T duration": ("T", "T"),
    "R-R interval": ("TP", "TP"),
}


def wave_weights() -> pd.DataFrame:
    """Split each feature between waves.

    Returns
    -------
    pandas.DataFrame
        Rows the features, columns the waves, rows summing to 1. A feature between two points
        belongs half to the wave of each: peaks Q, R and S and both ends of the QRS complex count as QRS,
        so "P-Q interval" is half P and half QRS, and no feature belongs to the P-R or S-T segment alone.
        The R-R interval, the heart rate, is given to T-P, the rest that changes most with it (our choice).
    """
    weights = pd.DataFrame(0.0, index=list(FEATURES), columns=list(WAVES))
    for feature in FEATURES:
        for wave in _WAVES_OF_DURATION.get(feature) or _ends(feature):
            weights.loc[feature, wave] += 0.5
    return weights


def _ends(feature: str) -> tuple[str, str]:
    """Waves of a feature named after two peaks, such as "P-Q interval"."""
    one, other = feature.split()[0].split("-")
    return _WAVE_OF_PEAK[one], _WAVE_OF_PEAK[other]


def feature_shares(model: FeaturesGbm, features: pd.DataFrame, targets: np.ndarray) -> pd.DataFrame:
    """Share of each wave in the SHAP values of the feature model.

    Parameters
    ----------
    model : FeaturesGbm
        Trained on the features.
    features : pandas.DataFrame
        One row a window.
    targets : numpy.ndarray
        Class of each window, as the model was trained (a member of ``model.classes``).

    Returns
    -------
    pandas.DataFrame
        One row a window, columns the waves: absolute SHAP values of the target's log-odds, split by
        :func:`wave_weights`, as shares that sum to 1; NaN for a window without any feature.

    Raises
    ------
    ValueError
        A target is not a class of the model.
    """
    if not np.isin(targets, model.classes).all():
        raise ValueError("a target is not a class of the feature model")
    column = np.searchsorted(model.classes, targets)
    strength = np.abs(model.shap_values(features)[np.arange(len(features)), :, column])
    mass = strength @ wave_weights().loc[features.columns].to_numpy()
    total = mass.sum(axis=1, keepdims=True)
    undefined = features.isna().to_numpy().all(axis=1, keepdims=True) | (total == 0)
    shares = np.divide(mass, total, out=np.full_like(mass, np.nan), where=~undefined)
    return pd.DataFrame(shares, columns=list(WAVES), index=features.index)
