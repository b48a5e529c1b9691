"""The audit on planted truth, with networks of permuted labels beside those that learnt."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ecgstudy.attribution.cases import applicable
from ecgstudy.attribution.clustered import clustered_means, columns_of
from ecgstudy.attribution.localisation import NOTHING, audit_planted, planted_question
from ecgstudy.attribution.planted import NETWORKS, permuted_labels, plant, planted_size, recognised, train_planted
from ecgstudy.attribution.sanity import explanation_correlation
from ecgstudy.evaluate.bootstrap import Resamples
from ecgstudy.learn import train as training
from ecgstudy.learn.base import PERSON
from ecgstudy.study.config import cache_dir
from ecgstudy.study.parallel import in_parallel

PERMUTED_WAVE = "QRS"
"""Planted wave on which networks are trained again with permuted labels."""

PERMUTED_WINDOWS = 24
"""Windows on which the two networks' explanations are compared."""


def audit_planted_people(profile: str, seed: int, device: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train (or load) the planted networks of a profile and audit every method on them.

    Parameters
    ----------
    profile : {"demo", "real"}
        Sizes, :data:`ecgstudy.attribution.planted.SIZES`.
    seed : int
        Seed of networks, methods and resamples.
    device : {"auto", "cpu", "cuda"}
        Where to train.

    Returns
    -------
    planted : pandas.DataFrame
        From :func:`ecgstudy.attribution.localisation.audit_planted`.
    permuted : pandas.DataFrame
        One row a method and network: model, method, permuted (rank correlation of its explanations with those of
        the same network trained on permuted labels, Adebayo et al. 2018) with ``_low`` and ``_high``, reason.
    """
    runs = cache_dir(profile) / "attribution" / "runs"
    planted = audit_planted(profile, runs, seed, device)
    asked = [(profile, runs, seed, device, name) for name in NETWORKS]
    return planted, pd.concat(in_parallel(_permuted, asked, device, "permuted labels"), ignore_index=True)


def _permuted(profile: str, runs: Path, seed: int, device: str, name: str) -> pd.DataFrame:
    """Rank correlation of each method's explanations of a network and of its twin trained on permuted labels."""
    torch.set_num_threads(training.THREADS)
    size = planted_size(profile)
    planted = plant(PERMUTED_WAVE, size)
    model = train_planted(planted.train, name, size, seed, runs, device)
    untaught = train_planted(permuted_labels(planted.train, PERSON, seed), name, size, seed, runs, device)
    right = np.flatnonzero(recognised(model, planted))
    some = right[np.linspace(0, right.size - 1, min(PERMUTED_WINDOWS, right.size)).round().astype(int)]
    chosen = planted.subset(np.isin(np.arange(len(planted.windows)), some))
    asked = planted_question(chosen, model, seed)
    values = {method.name: explanation_correlation(method, asked, untaught) for method in applicable(model)}
    estimates = clustered_means(values, chosen.persons, Resamples.draw(planted.persons, seed), NOTHING)
    return pd.DataFrame(
        [
            {"model": name, "method": method, "reason": found.reason} | columns_of({"permuted": found})
            for method, found in estimates.items()
        ]
    )


def with_permuted(sanity: pd.DataFrame, permuted: pd.DataFrame) -> pd.DataFrame:
    """Add the correlation with networks of permuted labels to a table of :func:`randomised_correlation`."""
    known = permuted[["model", "method", "permuted"]]
    return sanity.merge(known, on=["model", "method"], how="left")
