"""Attribution from what the logit loses when a part of the window is set to zero or replaced, by Captum."""

import numpy as np
import torch
from captum.attr import FeatureAblation, Occlusion
from torch import Tensor

from ecgstudy.attribution.question import Question, by_chunk, frozen_logits

OCCLUSION_SECONDS = 0.1
"""Length of the occluding patch: about a QRS complex or a P wave, and the patch of TransECG; it moves by half of it."""


def occlusion(question: Question) -> np.ndarray:
    """Loss of logit under a zero patch that slides over all leads at once (Zeiler & Fergus, ECCV 2014).

    A sample has the mean loss of the patches that cover it. Each place of the patch is one batch of a chunk.
    """
    explainer = Occlusion(frozen_logits(question))
    length = max(2, round(OCCLUSION_SECONDS * question.model.hparams.fs))

    def explain(x: Tensor, target: Tensor, _: slice) -> Tensor:
        n_leads = x.shape[1]
        loss = explainer.attribute(x, (n_leads, length), strides=(n_leads, length // 2), baselines=0, target=target)
        return loss[:, :1]  # the same for every lead

    return by_chunk(question, explain)


def wave_ablation(question: Question) -> np.ndarray:
    """Loss of logit when all samples of one wave are set to zero (ablation by groups, Kokhlikyan et al. 2020).

    The loss is spread evenly over the wave's samples, so that a wave's sum is its loss however long it is.
    Samples of unknown wave are a group of their own.
    """
    return _by_wave(question, np.zeros_like(question.windows))


def wave_replacement(question: Question) -> np.ndarray:
    """Loss of logit when one wave is replaced by everybody's average, spread as in :func:`wave_ablation`.

    A window without a wave is like no ECG that the network has seen; one with another's wave is.
    """
    return _by_wave(question, question.mean_beats)


def _by_wave(question: Question, baseline: np.ndarray) -> np.ndarray:
    """Loss of logit when the samples of one wave at a time are those of `baseline`."""
    explainer = FeatureAblation(frozen_logits(question))

    def explain(x: Tensor, target: Tensor, rows: slice) -> Tensor:
        groups = torch.as_tensor(question.waves[rows].astype(np.int64) + 1, device=x.device)
        instead = torch.as_tensor(baseline[rows], dtype=torch.float32, device=x.device)
        loss = explainer.attribute(x, baselines=instead, target=target, feature_mask=groups.unsqueeze(1))
        size = torch.nn.functional.one_hot(groups).sum(dim=1).gather(1, groups)
        return loss[:, :1] / size.unsqueeze(1)

    return by_chunk(question, explain)
