"""Faithfulness of explanations: does the network lose the class when what is said to matter is taken away.

Deletion and insertion follow Petsiuk et al., "RISE", BMVC 2018. Single samples cannot be taken away without leaving
the jagged signals that no network has seen, so windows are taken apart in chunks of :data:`CHUNK_S`, and a chunk is
filled from a whole, plausible ECG: the cohort's mean beat or another person's, stretched to the window's own
beats. Such curves still depend on the infill, so that of a random order stands beside each, and the methods' order
is compared between infills.

Infidelity and sensitivity are Captum's (Yeh et al., "On the (In)fidelity and Sensitivity of Explanations", NeurIPS
2019). Both depend on how windows are perturbed, so they stand beside the controls and at several scales, and no
verdict of the study rests on them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from captum.metrics import infidelity, sensitivity_max
from pytorch_lightning.utilities.seed import isolate_rng
from scipy.stats import kendalltau, spearmanr
from torch import Tensor

from ecgstudy.attribution.explain import attribute, not_applicable
from ecgstudy.attribution.methods import Method, Question
from ecgstudy.attribution.shares import NO_RELEVANCE, clustered_means, columns_of, mean_rows
from ecgstudy.evaluate.bootstrap import Resamples
from ecgstudy.learn.base import class_probabilities

CHUNK_S = 0.05
"""Seconds that are taken away at once: half a P wave or QRS complex."""
FRACTIONS = np.linspace(0.0, 1.0, 11)
"""Shares of the window taken away (or put in), at which the probability is computed."""
RANDOM_ORDERS = 4
"""Random orders whose mean curve the methods are compared with."""
KINDS = ("deletion", "insertion")
RANDOM_ORDER = "random order"
NOISE_SD = (0.05, 0.2, 0.5)
"""Noise, in standard deviations of a window, that takes the place of what is removed."""
REMOVED = 0.2
N_PERTURBATIONS = 16
RADIUS = 0.02
"""Largest change of a sample, in standard deviations of a window, under which an explanation should stay the same."""
N_NEIGHBOURS = 4


@dataclass(frozen=True)
class Faithfulness:
    """Removal curves of several methods on one network.

    `table`: one row a method and infill: method, model, infill, deletion and insertion (areas), deletion_gap (area of
    the random order less the method's: higher is better) and insertion_gap (the method's less the random order's), each
    with ``_low`` and ``_high``, persons, windows, reason. `curves`: means by method ("random order" for the
    comparison), infill, kind, fraction. `stability`: kendall and spearman correlation of the methods' gaps between the
    two infills.
    """

    table: pd.DataFrame
    curves: pd.DataFrame
    stability: pd.DataFrame


def chunk_ranks(relevances: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """Rank of each sample's chunk (of `length` samples; the last may be shorter) in its window, as a share.

    1/m for the first, by mean relevance, of m chunks, 1 for the last; a share f of the window is what has f or less
    (rounded to whole chunks). `rng` orders chunks of the same relevance.
    """
    starts = np.arange(0, relevances.shape[1], length)
    lengths = np.diff(np.r_[starts, relevances.shape[1]])
    means = np.add.reduceat(relevances.astype(np.float64), starts, axis=1) / lengths
    order = np.lexsort((rng.random(means.shape), -means), axis=1)
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(1, len(starts) + 1)[None, :], axis=1)
    return np.repeat(ranks / len(starts), lengths, axis=1)


def curves(question: Question, infill: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Probability of the class as chunks are exchanged, the most relevant first, shape (2, n, n_fractions).

    Deletion goes from the window to `infill`, insertion back; `ranks` are those of :func:`chunk_ranks`.
    """
    windows, targets = question.windows, question.targets
    taken = (ranks <= FRACTIONS[:, None, None] + 1e-9)[:, :, None]  # (n_fractions, n, 1, n_samples)
    changed = np.concatenate([np.where(taken, infill, windows), np.where(taken, windows, infill)])
    # one fraction at a time would start a batch of few windows each
    flat = class_probabilities(question.model, changed.reshape(-1, *windows.shape[1:]), question.task)
    heights = flat.reshape(2, len(FRACTIONS), len(windows), -1)
    return heights[:, :, np.arange(len(windows)), targets].transpose(0, 2, 1)


def areas(found: np.ndarray) -> dict[str, np.ndarray]:
    """Mean height of each window's two curves (trapezoids over the fractions 0 to 1), shape (n,) each."""
    return {kind: np.trapezoid(curve, FRACTIONS, axis=1) for kind, curve in zip(KINDS, found, strict=True)}


def faithfulness(
    question: Question,
    relevances: Mapping[str, np.ndarray],
    filled: Mapping[str, np.ndarray],
    persons: np.ndarray,
    resamples: Resamples,
) -> Faithfulness:
    """Compare the removal curves of methods with those of random orders.

    Give windows whose class the network names, or there is nothing to lose; relevances of shape (n, n_samples), whose
    rows with NaN are left out of means, and infills (:func:`ecgstudy.attribution.waves.infills`) by name.
    """
    rng = np.random.default_rng(question.seed)
    length = max(1, round(CHUNK_S * question.model.hparams.fs))
    nothing = np.zeros_like(question.windows[:, 0])
    rows, drawn = [], []
    for name, infill in filled.items():
        orders = [chunk_ranks(nothing, length, rng) for _ in range(RANDOM_ORDERS)]
        chance = np.mean([curves(question, infill, ranks) for ranks in orders], axis=0)
        drawn += _curve_rows(RANDOM_ORDER, name, chance, np.ones(len(nothing), dtype=bool))
        for method, relevance in relevances.items():
            defined = np.isfinite(relevance).all(axis=1)
            found = curves(question, infill, chunk_ranks(np.where(defined[:, None], relevance, 0.0), length, rng))
            drawn += _curve_rows(method, name, found, defined)
            ours, random = areas(found), areas(chance)
            ours["deletion_gap"] = random["deletion"] - ours["deletion"]
            ours["insertion_gap"] = ours["insertion"] - random["insertion"]
            values = {key: np.where(defined, value, np.nan) for key, value in ours.items()}
            estimates = clustered_means(values, persons, resamples, NO_RELEVANCE)
            counts = {"persons": len(np.unique(persons[defined])), "windows": int(defined.sum())}
            about = {"method": method, "model": question.model.name, "infill": name}
            rows.append(about | columns_of(estimates) | counts | {"reason": estimates["deletion_gap"].reason})
    table = pd.DataFrame(rows)
    return Faithfulness(table, pd.DataFrame(drawn), infill_stability(table))


def _curve_rows(method: str, infill: str, found: np.ndarray, defined: np.ndarray) -> list[dict[str, object]]:
    """Mean curves as rows of a table."""
    rows = []
    for kind, curve in zip(KINDS, found, strict=True):
        means = curve[defined].mean(axis=0) if defined.any() else np.full(len(FRACTIONS), np.nan)
        about = {"method": method, "infill": infill, "kind": kind}
        rows += [about | {"fraction": f, "probability": p} for f, p in zip(FRACTIONS, means, strict=True)]
    return rows


def infill_stability(table: pd.DataFrame) -> pd.DataFrame:
    """Whether two infills bring the methods of a ``Faithfulness.table`` into the same order."""
    rows = []
    for kind in KINDS:
        gaps = table.pivot_table(index="method", columns="infill", values=f"{kind}_gap").dropna()
        row: dict[str, object] = {"kind": kind, "methods": len(gaps), "kendall": np.nan, "spearman": np.nan}
        reason = None if len(gaps) > 2 and gaps.shape[1] == 2 else "fewer than three methods or two infills"
        if reason is None:
            first, second = gaps.to_numpy().T
            row |= {"kendall": kendalltau(first, second).statistic, "spearman": spearmanr(first, second).statistic}
        rows.append(row | {"reason": reason})
    return pd.DataFrame(rows)


def robustness_table(
    question: Question, methods: Iterable[Method], persons: np.ndarray, resamples: Resamples
) -> pd.DataFrame:
    """Infidelity at every scale, and the greatest change of the explanation under a small change of the window.

    One row a method and measure: method, model, control, measure, scale (noise or radius), value (mean over persons;
    lower is better) with ``_low`` and ``_high``, reason. A method that does not apply has one row with the reason.
    """
    rows = []
    for method in methods:
        about = {"method": method.name, "model": question.model.name, "control": method.control}
        reason = not_applicable(method, question.model)
        if reason is not None:
            rows.append(about | {"reason": reason})
            continue
        attribution = attribute(method, question)
        values = {("infidelity", scale): infidelities(attribution, question, scale) for scale in NOISE_SD}
        values["sensitivity", RADIUS] = sensitivities(method, question, attribution)
        found = mean_rows(values, ("measure", "scale"), "value", persons, resamples, NO_RELEVANCE)
        rows += [about | row for row in found]
    return pd.DataFrame(rows).drop(columns="persons")


def infidelities(attribution: np.ndarray, question: Question, noise: float) -> np.ndarray:
    """Squared error of an attribution's promise of what the logit loses with a part of the window, shape (n,).

    Chunks of :data:`CHUNK_S` that make up :data:`REMOVED` of the window on average are replaced by noise; the
    attribution of the removed samples is compared with the logit's loss, after the best common factor per window
    (Captum's ``normalize``), as attributions come in units of their own. NaN where the attribution is undefined.
    """
    promised = torch.from_numpy(attribution)[:, None]
    length = max(1, round(CHUNK_S * question.model.hparams.fs))

    def perturb(x: Tensor) -> tuple[Tensor, Tensor]:
        n_chunks = -(-x.shape[-1] // length)
        removed = (torch.rand(len(x), 1, n_chunks) < REMOVED).repeat_interleave(length, dim=2)[..., : x.shape[-1]]
        removed = removed.to(x.device)
        return removed.float(), torch.where(removed, noise * torch.randn_like(x), x)

    answer = np.empty(len(question.windows))
    with isolate_rng(), torch.no_grad():
        torch.manual_seed(question.seed)
        for rows, x, target in question.chunks():
            answer[rows] = infidelity(
                question.logits,
                perturb,
                x,
                promised[rows].to(x.device),
                target=target,
                n_perturb_samples=N_PERTURBATIONS,
                max_examples_per_batch=len(x) * min(4, N_PERTURBATIONS),
                normalize=True,
            ).cpu()
    return np.where(np.isfinite(attribution).all(axis=1), answer, np.nan)


def sensitivities(method: Method, question: Question, attribution: np.ndarray) -> np.ndarray:
    """Greatest relative change of an explanation under changes of the window of at most :data:`RADIUS`, shape (n,)."""

    def explain(x: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        windows = x[0].detach().cpu().numpy()
        if np.array_equal(windows, question.windows):
            return (torch.from_numpy(attribution)[:, None],)
        rows = np.repeat(np.arange(len(question.windows)), len(windows) // len(question.windows))
        arrays = {name: getattr(question, name) for name in ("targets", "waves", "mean_beats")}
        repeated = {name: None if values is None else values[rows] for name, values in arrays.items()}
        return (torch.from_numpy(attribute(method, replace(question, windows=windows, **repeated)))[:, None],)

    with isolate_rng():
        torch.manual_seed(question.seed)
        windows = torch.from_numpy(question.windows)
        change = sensitivity_max(explain, windows, perturb_radius=RADIUS, n_perturb_samples=N_NEIGHBOURS)
    return change.double().numpy()
