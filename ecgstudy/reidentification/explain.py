"""Which PQRST features give a person away: SHAP values of the feature model."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from ecgstudy.evaluate.disjoint import with_cohort
from ecgstudy.evaluate.protocols import CrossRecord
from ecgstudy.experiment.attackers import fit_features
from ecgstudy.experiment.dataset import Signals
from ecgstudy.experiment.feature_windows import segment_features
from ecgstudy.experiment.people import people_table
from ecgstudy.signals.features import FEATURES
from ecgstudy.signals.store import RecordStore

EXPLAINED_WINDOWS = 100


def shap_table(stores: Mapping[str, RecordStore], seed: int) -> pd.DataFrame:
    """Mean absolute SHAP value of each feature for recognising persons in another recording.

    The model learns from first records of the first cohort with several records a person, and is explained on
    windows of second records.

    Parameters
    ----------
    stores : mapping of str to RecordStore
        Stores by cohort name.
    seed : int
        Seed of the booster and of the windows that are drawn.

    Returns
    -------
    pandas.DataFrame
        Columns feature, unit, mean_abs_shap (log-odds, averaged over windows and persons), largest first;
        empty where no cohort has several records a person.
    """
    found = [name for name, store in stores.items() if (store.records["subject_id"].value_counts() > 1).any()]
    if not found:
        return pd.DataFrame(columns=["feature", "unit", "mean_abs_shap"])
    store = stores[found[0]]
    split = CrossRecord().splits(with_cohort(found[0], store.records), store.fs, 0)[0]
    chosen = {found[0]: store}
    signals, people = Signals(chosen), people_table(chosen)
    model = fit_features(signals, people, split, seed).boosters["person"]
    features, _ = segment_features(signals, split.probe)
    rows = np.random.default_rng(seed).permutation(len(features))[:EXPLAINED_WINDOWS]
    strength = np.abs(model.shap_values(features.iloc[np.sort(rows)])).mean(axis=(0, 2))
    table = pd.DataFrame({"feature": list(FEATURES), "unit": list(FEATURES.values()), "mean_abs_shap": strength})
    return table.sort_values("mean_abs_shap", ascending=False, ignore_index=True)
