"""Class activation maps of convolutional networks, by Captum, on the output of the last stage."""

import warnings

import numpy as np
from captum.attr import GuidedGradCam, LayerAttribution, LayerGradCam
from torch import Tensor

from ecgstudy.attribution.question import Question, by_chunk, frozen_logits

_MODE = "linear"


def grad_cam(question: Question) -> np.ndarray:
    """Channels weighted by their mean gradient, summed, negative sums set to 0 (Selvaraju et al., ICCV 2017).

    The map is brought to the length of the window by linear interpolation.
    """
    logits = frozen_logits(question)
    explainer = LayerGradCam(logits, logits.model.stages[-1])

    def explain(x: Tensor, target: Tensor, _: slice) -> Tensor:
        coarse = explainer.attribute(x.requires_grad_(), target, relu_attributions=True)
        return LayerAttribution.interpolate(coarse, (x.shape[-1],), interpolate_mode=_MODE)

    return by_chunk(question, explain)


def guided_grad_cam(question: Question) -> np.ndarray:
    """Guided backpropagation times GradCAM (Selvaraju et al., ICCV 2017).

    Fails the sanity checks of Adebayo et al. (NeurIPS 2018); it is here to be seen failing.
    """
    logits = frozen_logits(question)
    explainer = GuidedGradCam(logits, logits.model.stages[-1])

    def explain(x: Tensor, target: Tensor, _: slice) -> Tensor:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Setting backward hooks")  # they go with the copy
            return explainer.attribute(x.requires_grad_(), target, interpolate_mode=_MODE)

    return by_chunk(question, explain)
