"""Sanity of explanations: do they depend on what the network has learned, or on the window alone.

Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018: an explanation that hardly changes when the
network's weights are replaced by random ones, or when the network was trained on permuted labels, shows the window
and not the network. Explanations are compared by Spearman's rank correlation of their magnitudes, window by window.
"""

import copy
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pandas as pd
from torch import nn

from ecgstudy.attribution.clustered import clustered_means, columns_of, rank_correlation
from ecgstudy.attribution.methods import Method, Question, attribute, obstacle, relevance
from ecgstudy.evaluate.bootstrap import Resamples
from ecgstudy.learn.base import SignalModel
from ecgstudy.learn.models import create_model

N_PARTS = 4
"""Parts in which a network is randomised from the head down; every one is an explanation of all windows to pay."""
CASCADING, INDEPENDENT, UNTRAINED = "cascading", "independent", "untrained"
COLUMNS = (
    "method",
    "model",
    "control",
    "kind",
    "part",
    "correlation",
    "correlation_low",
    "correlation_high",
    "persons",
    "reason",
)
UNDEFINED = "the method gives every sample the same relevance, or none, in one of the two networks"


def layers_from_head(model: SignalModel) -> list[str]:
    """Prefixes of the names of a network's weights, one a layer, the head first.

    Layers are the network's own modules in the order they are registered; a list of composite modules
    (stages, blocks) counts as several. Weights that belong to no module are part of the first layer.
    """
    layers: list[str] = []
    for name, child in model.named_children():
        several = isinstance(child, nn.Sequential | nn.ModuleList) and all(len(list(m.children())) for m in child)
        layers += [f"{name}.{at}." for at in range(len(child))] if several else [f"{name}."]
    return layers[::-1]


def parts_from_head(model: SignalModel) -> list[list[str]]:
    """Names of the weights and buffers of :data:`N_PARTS` parts of a network, about equally many layers each."""
    names = list(model.state_dict())
    layers = layers_from_head(model)
    owned = [[name for name in names if name.startswith(layer)] for layer in layers]
    owned[-1] += [name for name in names if not name.startswith(tuple(layers))]
    cut = np.array_split(np.arange(len(layers)), min(N_PARTS, len(layers)))
    return [[name for at in part for name in owned[at]] for part in cut]


def randomised(model: SignalModel, names: Iterable[str], seed: int) -> SignalModel:
    """Copy a network with the weights called `names` drawn anew, as its constructor draws them."""
    fresh = create_model(model.name, seed, **model.hparams).state_dict()
    changed = copy.deepcopy(model).eval()
    changed.load_state_dict({**changed.state_dict(), **{name: fresh[name] for name in names}})
    return changed


def randomisation_table(
    question: Question,
    methods: Iterable[Method],
    persons: np.ndarray,
    resamples: Resamples,
) -> pd.DataFrame:
    """Rank correlation of every method's explanation with that of networks that know less.

    Parameters
    ----------
    question : Question
        The trained network and the windows.
    methods : iterable of Method
        Methods and controls.
    persons : numpy.ndarray
        Person of each window, str, shape (n,).
    resamples : Resamples
        The persons to resample.

    Returns
    -------
    pandas.DataFrame
        One row a method, kind and part: method, model, control, kind ("cascading": this part and all above it random;
        "independent": this part alone; "untrained": a network with other fresh weights, the level that the
        cascade should fall to), part (0 is the head; the last of the cascade is
        the whole network; NaN where the kind has none), correlation with ``_low`` and ``_high``, persons, reason
        (why it is NaN, else None). A method that does not apply has one row with the reason.
    """
    networks = _networks(question)
    rows = []
    for method in methods:
        about = {"method": method.name, "model": question.model.name, "control": method.control}
        reason = obstacle(method, question.model)
        if reason is not None:
            rows.append(about | {"reason": reason})
            continue
        trained = relevance(method, attribute(method, question))
        values = {
            key: rank_correlation(trained, relevance(method, attribute(method, replace(question, model=model))))
            for key, model in networks.items()
        }
        for (kind, part), estimate in clustered_means(values, persons, resamples, UNDEFINED).items():
            place = {"kind": kind, "part": part, "persons": estimate.n, "reason": estimate.reason}
            rows.append(about | place | columns_of({"correlation": estimate}))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _networks(question: Question) -> dict[tuple[str, float], SignalModel]:
    """Networks that know less, by kind and part."""
    model, parts = question.model, parts_from_head(question.model)
    everything = [name for part in parts for name in part]
    random, other = (int(s) for s in np.random.SeedSequence((question.seed, 2)).generate_state(2))
    networks = {}
    for at, part in enumerate(parts):
        above = [name for upper in parts[: at + 1] for name in upper]
        networks[CASCADING, float(at)] = randomised(model, above, random)
        networks[INDEPENDENT, float(at)] = randomised(model, part, random)
    networks[UNTRAINED, np.nan] = randomised(model, everything, other)
    return networks


def explanation_correlation(method: Method, question: Question, other: SignalModel) -> np.ndarray:
    """Rank correlation of a method's explanations of a question's network and of another one, shape (n,)."""
    pair = (question, replace(question, model=other))
    return rank_correlation(*(relevance(method, attribute(method, asked)) for asked in pair))


def randomised_correlation(table: pd.DataFrame) -> pd.DataFrame:
    """Sum each method up: how much of the explanation is left when nothing of the network is.

    Parameters
    ----------
    table : pandas.DataFrame
        From :func:`randomisation_table`; several networks may be joined.

    Returns
    -------
    pandas.DataFrame
        One row a method and model: randomised_correlation with ``_low`` and ``_high`` (end of the cascade), untrained
        (level of another fresh network), reason.
    """
    rows = []
    for (model, method), group in table.groupby(["model", "method"], sort=False):
        kinds = {kind: part.sort_values("part").iloc[-1] for kind, part in group.groupby("kind")}
        end = kinds.get(CASCADING, group.iloc[-1])
        row = {"model": model, "method": method}
        row |= {f"randomised_{name}": end[name] for name in ("correlation", "correlation_low", "correlation_high")}
        row["untrained"] = kinds[UNTRAINED]["correlation"] if UNTRAINED in kinds else np.nan
        rows.append(row | {"reason": end["reason"]})
    return pd.DataFrame(rows)
