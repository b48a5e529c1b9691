"""Attribution from what the logit loses when a part of the window is set to zero, by Captum."""

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
    explainer = FeatureAblation(frozen_logits(question))

    def explain(x: Tensor, target: Tensor, rows: slice) -> Tensor:
        groups = torch.as_tensor(question.waves[rows].astype(np.int64) + 1, device=x.device)
        loss = explainer.attribute(x, baselines=0, target=target, feature_mask=groups.unsqueeze(1))
        size = torch.nn.functional.one_hot(groups).sum(dim=1).gather(1, groups)
        return loss[:, :1] / size.unsqueeze(1)

    return by_chunk(question, explain)
