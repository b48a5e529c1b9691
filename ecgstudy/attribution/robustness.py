"""Infidelity and sensitivity of explanations, by Captum.

Yeh et al., "On the (In)fidelity and Sensitivity of Explanations", NeurIPS 2019. Both depend on how windows are
perturbed, so they stand beside the controls and at several scales, and no verdict of the study rests on them.
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from captum.metrics import infidelity, sensitivity_max
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor

from ecgstudy.attribution.clustered import clustered_means, columns_of
from ecgstudy.attribution.methods import Method, Question, attribute, obstacle
from ecgstudy.attribution.question import frozen_logits
from ecgstudy.evaluate.bootstrap import Resamples

NOISE_SD = (0.05, 0.2, 0.5)
"""Noise, in standard deviations of a window, that takes the place of what is removed."""
REMOVED = 0.2
CHUNK_S = 0.05
N_PERTURBATIONS = 16
RADIUS = 0.02
"""Largest change of a sample, in standard deviations of a window, under which an explanation should stay the same."""
N_NEIGHBOURS = 4
UNDEFINED = "the method gives no window any relevance"


def robustness_table(
    question: Question, methods: Iterable[Method], persons: np.ndarray, resamples: Resamples
) -> pd.DataFrame:
    """Infidelity at every scale, and the greatest change of the explanation under a small change of the window.

    Parameters
    ----------
    question : Question
        The network and the windows.
    methods : iterable of Method
        Methods and controls.
    persons : numpy.ndarray
        Person of each window, str, shape (n,).
    resamples : Resamples
        The persons to resample.

    Returns
    -------
    pandas.DataFrame
        One row a method and measure: method, model, control, measure ("infidelity" or "sensitivity"), scale (noise or
        radius), value (mean over persons; lower is better) with ``_low`` and ``_high``, reason. A method that does
        not apply has one row with the reason.
    """
    rows = []
    for method in methods:
        about = {"method": method.name, "model": question.model.name, "control": method.control}
        reason = obstacle(method, question.model)
        if reason is not None:
            rows.append(about | {"reason": reason})
            continue
        values = {("infidelity", scale): infidelities(method, question, scale) for scale in NOISE_SD}
        values["sensitivity", RADIUS] = sensitivities(method, question)
        for (measure, scale), found in clustered_means(values, persons, resamples, UNDEFINED).items():
            numbers = columns_of({"value": found})
            rows.append(about | {"measure": measure, "scale": scale} | numbers | {"reason": found.reason})
    return pd.DataFrame(rows)


def infidelities(method: Method, question: Question, noise: float) -> np.ndarray:
    """Squared error of a method's promise of what the logit loses with a part of the window.

    Chunks of :data:`CHUNK_S` that make up :data:`REMOVED` of the window on average are replaced by noise; the
    attribution of the removed samples is compared with the logit's loss, after the best common factor per window
    (Captum's ``normalize``), as attributions come in units of their own.

    Parameters
    ----------
    method : Method
        The method.
    question : Question
        The network and the windows.
    noise : float
        Standard deviation of the noise.

    Returns
    -------
    numpy.ndarray
        float64, shape (n,), in squared units of the logit; NaN where the attribution is undefined.
    """
    attribution = torch.from_numpy(attribute(method, question))[:, None]
    logits = frozen_logits(question)
    length = max(1, round(CHUNK_S * question.model.hparams.fs))

    def perturb(x: Tensor) -> tuple[Tensor, Tensor]:
        n_chunks = -(-x.shape[-1] // length)
        removed = (torch.rand(len(x), 1, n_chunks) < REMOVED).repeat_interleave(length, dim=2)[..., : x.shape[-1]]
        removed = removed.to(x.device)
        return removed.float(), torch.where(removed, noise * torch.randn_like(x), x)

    answer = np.empty(len(question.windows))
    with isolate_rng(), torch.no_grad():
        torch.manual_seed(question.seed)
        for start in range(0, len(answer), question.chunk):
            rows = slice(start, start + question.chunk)
            x = torch.from_numpy(question.windows[rows]).to(question.model.device)
            target = torch.from_numpy(question.targets[rows]).to(x.device)
            answer[rows] = infidelity(
                logits,
                perturb,
                x,
                attribution[rows].to(x.device),
                target=target,
                n_perturb_samples=N_PERTURBATIONS,
                max_examples_per_batch=len(x) * min(4, N_PERTURBATIONS),
                normalize=True,
            ).cpu()
    return np.where(np.isfinite(attribution.numpy()).all(axis=(1, 2)), answer, np.nan)


def sensitivities(method: Method, question: Question) -> np.ndarray:
    """Greatest relative change of an explanation under changes of the window of at most :data:`RADIUS`, shape (n,)."""

    def explain(x: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        windows = x[0]
        repeats = len(windows) // len(question.windows)
        asked = replace(
            question,
            windows=windows.detach().cpu().numpy(),
            targets=np.repeat(question.targets, repeats),
            waves=None if question.waves is None else np.repeat(question.waves, repeats, axis=0),
            mean_beats=None if question.mean_beats is None else np.repeat(question.mean_beats, repeats, axis=0),
        )
        return (torch.from_numpy(attribute(method, asked))[:, None],)

    with isolate_rng():
        torch.manual_seed(question.seed)
        windows = torch.from_numpy(question.windows)
        change = sensitivity_max(explain, windows, perturb_radius=RADIUS, n_perturb_samples=N_NEIGHBOURS)
    return change.double().numpy()
