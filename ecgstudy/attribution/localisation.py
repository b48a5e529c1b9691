"""Does a method point to the wave that a network reads? The audit on planted truth.

Masses count a margin of :data:`MARGIN_S` on either side of the true wave: an edge is a contrast between the samples
inside and outside of it, so a network may read either. The controls get the same margin. Enrichments, and with them
the ranks of the waves, are those of the study's share tables, without a margin.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import binary_dilation
from scipy.stats import rankdata

from ecgstudy.attribution.clustered import clustered_means, columns_of
from ecgstudy.attribution.faithfulness import MEAN_BEAT, infills
from ecgstudy.attribution.methods import METHODS, Method, Question, attribute, obstacle, relevance
from ecgstudy.attribution.planted import (
    FS,
    NETWORKS,
    PLANTED_WAVES,
    Planted,
    plant,
    planted_size,
    recognised,
    train_planted,
)
from ecgstudy.attribution.shares import wave_shares
from ecgstudy.attribution.waves import WAVES
from ecgstudy.evaluate.bootstrap import Resamples
from ecgstudy.learn import train as training
from ecgstudy.learn.base import PERSON, SignalModel
from ecgstudy.study.parallel import in_parallel

MARGIN_S = 0.02
MEASURES = ("mass_in_wave", "enrichment", "pointing", "highest", "rank")
NOTHING = "the method gives no window any relevance"


def localise(relevances: np.ndarray, codes: np.ndarray, wave: str, margin: int) -> dict[str, np.ndarray]:
    """How well the relevance of each window lies in a wave.

    Parameters
    ----------
    relevances : numpy.ndarray
        Shape (n, n_samples), 0 or more; rows with NaN are undefined.
    codes : numpy.ndarray
        int8, shape (n, n_samples): true wave of each sample.
    wave : str
        One of :data:`ecgstudy.attribution.waves.WAVES`.
    margin : int
        Samples on either side of the wave that count as part of it for mass and pointing.

    Returns
    -------
    dict of str to numpy.ndarray
        float64, shape (n,), NaN where undefined. mass_in_wave: share of the relevance in the wave. enrichment: share
        of relevance over share of time, no margin. pointing: 1 where the highest relevance is in the wave (Zhang et
        al., "Top-down neural attention by excitation backprop", IJCV 2018; where several samples share the highest,
        the share of them in it). highest: 1 where the wave's enrichment is the highest of all. rank: of the wave by
        enrichment, 1 is the highest.
    """
    inside = binary_dilation(codes == WAVES.index(wave), np.ones((1, 2 * margin + 1), dtype=bool))
    total = relevances.sum(axis=1, dtype=np.float64)
    defined = total > 0  # NaN compares as False
    held = np.where(inside, relevances, 0.0).sum(axis=1, dtype=np.float64)
    peak = relevances == relevances.max(axis=1, keepdims=True)
    shares = wave_shares(relevances, codes)
    enrichment = np.divide(shares.mass, shares.time, out=np.full_like(shares.mass, np.nan), where=shares.time > 0)
    at = WAVES.index(wave)
    present = np.isfinite(enrichment[:, at])
    ranks = rankdata(-np.nan_to_num(enrichment, nan=-1.0), method="max", axis=1)[:, at]
    values = {
        "mass_in_wave": np.divide(held, total, out=np.full(len(total), np.nan), where=defined),
        "enrichment": enrichment[:, at],
        "pointing": np.where(defined, (peak & inside).sum(axis=1) / np.maximum(peak.sum(axis=1), 1), np.nan),
        "highest": np.where(present, ranks == 1, np.nan),
        "rank": np.where(present, ranks, np.nan),
    }
    return {name: values[name].astype(np.float64) for name in MEASURES}


def least_accuracy(n_classes: int) -> float:
    """Accuracy from which a network counts as one that has found the cue: halfway from chance to perfect."""
    return (1 + 1 / n_classes) / 2


def audit_network(
    planted: Planted, model: SignalModel, methods: Iterable[Method], resamples: Resamples, seed: int
) -> pd.DataFrame:
    """Audit methods on one network trained on planted persons.

    Only windows in which the network names the right person are explained: where it errs, the cue is not what it read.

    Parameters
    ----------
    planted : Planted
        The persons and their held-out windows.
    model : SignalModel
        The network.
    methods : iterable of Method
        Methods and controls.
    resamples : Resamples
        The persons to resample.
    seed : int
        Seed of methods that draw random numbers.

    Returns
    -------
    pandas.DataFrame
        One row a method: wave, model, method, control, applies (to this kind of network), accuracy (of the network
        on all held-out windows), persons, windows (explained), reason (why the rest is NaN, else None), and
        :data:`MEASURES`, means over persons, each also with ``_low`` and ``_high``.
    """
    right = recognised(model, planted)
    chosen = planted.subset(right)
    untaught = None
    if right.mean() < least_accuracy(len(model.classes[PERSON])):
        untaught = f"{model.name} has not found the cue: it names {right.mean():.0%} of the held-out windows"
    question = planted_question(chosen, model, seed) if untaught is None else None
    rows = []
    for method in methods:
        hindered = obstacle(method, model)
        reason = hindered or untaught
        measures = _measures(chosen, question, method, resamples) if reason is None and question else {}
        if reason is None and np.isnan(measures["mass_in_wave"]):
            reason = NOTHING
        about = {
            "wave": planted.wave,
            "model": model.name,
            "method": method.name,
            "control": method.control,
            "applies": hindered is None,
            "accuracy": float(right.mean()),
            "persons": len(np.unique(chosen.persons)),
            "windows": len(chosen.windows),
            "reason": reason,
        }
        rows.append(about | measures)
    empty = [f"{name}{end}" for name in MEASURES for end in ("", "_low", "_high")]
    return pd.DataFrame(rows).reindex(columns=[*rows[0], *(name for name in empty if name not in rows[0])])


def _measures(planted: Planted, question: Question, method: Method, resamples: Resamples) -> dict[str, float]:
    """Means of the measures of one method with their intervals."""
    found = relevance(method, attribute(method, question))
    values = localise(found, planted.codes, planted.wave, round(MARGIN_S * FS))
    return columns_of(clustered_means(values, planted.persons, resamples, NOTHING))


def planted_question(planted: Planted, model: SignalModel, seed: int) -> Question:
    """Ask a network for the right person's logit in the held-out windows."""
    filled = infills(planted.windows, planted.fiducials, planted.persons, FS, seed)[MEAN_BEAT]
    return Question(model, PERSON, planted.windows, planted.targets, planted.codes, seed, filled)


def audit_planted(
    profile: str, runs: Path, seed: int, device: str = "auto", networks: Sequence[str] = tuple(NETWORKS)
) -> pd.DataFrame:
    """Train (or load) every planted network of a profile and audit every method on it, on all processor cores.

    Parameters
    ----------
    profile : {"demo", "real"}
        Sizes, :data:`ecgstudy.attribution.planted.SIZES`.
    runs : Path
        Where training runs are kept.
    seed : int
        Seed of networks, methods and resamples.
    device : {"auto", "cpu", "cuda"}
        Where to train.
    networks : sequence of str
        Names of networks.

    Returns
    -------
    pandas.DataFrame
        :func:`audit_network` for every wave and network.
    """
    asked = [(profile, wave, name, runs, seed, device) for wave in PLANTED_WAVES for name in networks]
    return pd.concat(in_parallel(audit_case, asked, device, "planted truth"), ignore_index=True)


def audit_case(profile: str, wave: str, name: str, runs: Path, seed: int, device: str) -> pd.DataFrame:
    """Train (or load) the network `name` on persons who differ in `wave`, and audit every method on it."""
    torch.set_num_threads(training.THREADS)
    size = planted_size(profile)
    planted = plant(wave, size)
    model = train_planted(planted.train, name, size, seed, runs, device)
    return audit_network(planted, model, METHODS.values(), Resamples.draw(planted.persons, seed), seed)
