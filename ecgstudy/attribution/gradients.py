"""Attribution from gradients, by Captum; unless said, the baseline is zero, the mean of a standardised window."""

import warnings

import numpy as np
import torch
from captum.attr import DeepLift, GradientShap, InputXGradient, IntegratedGradients, Saliency
from torch import Tensor

from ecgstudy.attribution.question import Question, by_chunk, frozen_logits

N_STEPS = 32
"""Gauss-Legendre steps of integrated gradients, and random samples a window of gradient SHAP."""
_BACKGROUND = 64
_NOISE_SD = 0.05  # of standardised windows: below the noise of a good recording


def integrated_gradients(question: Question) -> np.ndarray:
    """Gradient averaged along the straight path from zero, times the window (Sundararajan, Taly, Yan, ICML 2017).

    One step of one chunk is one batch, so memory grows neither with steps nor with windows.
    """
    explainer = IntegratedGradients(frozen_logits(question))

    def explain(x: Tensor, target: Tensor, _: slice) -> Tensor:
        return explainer.attribute(x, target=target, n_steps=N_STEPS, internal_batch_size=len(x))

    return by_chunk(question, explain)


def gradients_from_mean_beat(question: Question) -> np.ndarray:
    """Integrated gradients along the straight path from the mean beat: what sets this beat apart from everybody's."""
    explainer = IntegratedGradients(frozen_logits(question))

    def explain(x: Tensor, target: Tensor, rows: slice) -> Tensor:
        baseline = torch.as_tensor(question.mean_beats[rows], dtype=torch.float32, device=x.device)
        return explainer.attribute(x, baseline, target, n_steps=N_STEPS, internal_batch_size=len(x))

    return by_chunk(question, explain)


def gradient_shap(question: Question) -> np.ndarray:
    """Average gradients over random baselines, places on the path and noise (Lundberg & Lee, NeurIPS 2017).

    Baselines are drawn from up to 64 of the question's own windows. Each window has a
    random stream of its own, so that the answer does not depend on the chunk; its 32 samples are one batch.
    """
    explainer = GradientShap(frozen_logits(question))
    rng = np.random.default_rng(question.seed)
    chosen = rng.permutation(len(question.windows))[:_BACKGROUND]
    seeds = rng.integers(2**32, size=len(question.windows), dtype=np.uint32)

    def explain(x: Tensor, target: Tensor, rows: slice) -> Tensor:
        background = torch.tensor(question.windows[chosen], dtype=torch.float32, device=x.device)
        answers = []
        for one, label, seed in zip(x.split(1), target.split(1), seeds[rows], strict=True):
            torch.manual_seed(int(seed))  # Captum draws from torch's and numpy's global streams;
            np.random.seed(seed)  # noqa: NPY002  # `attribute` puts both back
            answers.append(explainer.attribute(one, background, N_STEPS, _NOISE_SD, label))
        return torch.cat(answers)

    return by_chunk(question, explain)


def deep_lift(question: Question) -> np.ndarray:
    """Differences to the zero window, passed back layer by layer (Shrikumar, Greenside, Kundaje, ICML 2017)."""
    explainer = DeepLift(frozen_logits(question))

    def explain(x: Tensor, target: Tensor, _: slice) -> Tensor:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Setting forward, backward hooks")  # they go with the copy
            return explainer.attribute(x.requires_grad_(), torch.zeros_like(x), target)

    return by_chunk(question, explain)


def saliency(question: Question) -> np.ndarray:
    """Absolute gradient of the logit (Simonyan, Vedaldi, Zisserman, ICLR workshop 2014)."""
    explainer = Saliency(frozen_logits(question))
    return by_chunk(question, lambda x, target, _: explainer.attribute(x.requires_grad_(), target))


def input_x_gradient(question: Question) -> np.ndarray:
    """Window times gradient (Shrikumar et al., arXiv 1605.01713, 2016)."""
    explainer = InputXGradient(frozen_logits(question))
    return by_chunk(question, lambda x, target, _: explainer.attribute(x.requires_grad_(), target))
