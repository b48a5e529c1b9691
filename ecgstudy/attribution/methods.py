"""Registry of attribution methods: one question, one call, one shape of answer.

>>> question = Question(model, "person", windows, targets, waves=None, seed=0)
>>> shares_of_samples = relevance(METHODS["saliency"], attribute(METHODS["saliency"], question))
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import nn

from ecgstudy.attribution import attention, cams, controls, gradients, perturbation
from ecgstudy.attribution.feature_shares import feature_shares
from ecgstudy.attribution.question import Question, chunks, frozen_logits
from ecgstudy.errors import StudyError
from ecgstudy.learn.base import SignalModel

__all__ = [
    "METHODS",
    "Method",
    "Needs",
    "Question",
    "attribute",
    "completeness",
    "feature_shares",
    "obstacle",
    "relevance",
]


class Needs(Enum):
    """What a method must be given besides windows."""

    ATTENTION = "attention weights"
    GRADIENT = "gradients"
    CONVOLUTION = "convolutional stages"
    RULES = "a rule for every activation"
    FORWARD = "logits"
    WAVES = "the wave of each sample"
    MEAN_BEAT = "the mean beat"
    NOTHING = "nothing"


@dataclass(frozen=True)
class Method:
    """An attribution method.

    Attributes
    ----------
    name : str
        Key in :data:`METHODS`.
    needs : Needs
        What it must be given.
    signed : bool
        Negative values speak against the class.
    complete : bool
        It promises that a window's attribution sums to the logit's change from its baseline
        (:func:`completeness`).
    reference : str
        The paper.
    control : bool
        It cannot know what the network has learned.
    run : callable
        From a :class:`Question` to an array (n, n_samples); call :func:`attribute` instead.
    """

    name: str
    needs: Needs
    signed: bool
    complete: bool
    reference: str
    control: bool
    run: Callable[[Question], np.ndarray]


METHODS: dict[str, Method] = {
    function.__name__: Method(function.__name__, needs, signed, complete, reference, control, function)
    for function, needs, signed, complete, control, reference in (
        (attention.attention_rollout, Needs.ATTENTION, False, False, False, "Abnar & Zuidema, ACL 2020"),
        (attention.last_attention, Needs.ATTENTION, False, False, False, "Wang et al., arXiv 2503.13495, 2025"),
        (gradients.integrated_gradients, Needs.GRADIENT, True, True, False, "Sundararajan et al., ICML 2017"),
        (gradients.gradients_from_mean_beat, Needs.MEAN_BEAT, True, True, False, "Sundararajan et al., ICML 2017"),
        (gradients.gradient_shap, Needs.GRADIENT, True, False, False, "Lundberg & Lee, NeurIPS 2017"),
        (gradients.deep_lift, Needs.RULES, True, True, False, "Shrikumar et al., ICML 2017"),
        (gradients.saliency, Needs.GRADIENT, False, False, False, "Simonyan et al., ICLR workshop 2014"),
        (gradients.input_x_gradient, Needs.GRADIENT, True, False, False, "Shrikumar et al., arXiv 1605.01713, 2016"),
        (perturbation.occlusion, Needs.FORWARD, True, False, False, "Zeiler & Fergus, ECCV 2014"),
        (perturbation.wave_ablation, Needs.WAVES, True, False, False, "Kokhlikyan et al., arXiv 2009.07896, 2020"),
        (
            perturbation.wave_replacement,
            Needs.MEAN_BEAT,
            True,
            False,
            False,
            "Kokhlikyan et al., arXiv 2009.07896, 2020",
        ),
        (cams.grad_cam, Needs.CONVOLUTION, False, False, False, "Selvaraju et al., ICCV 2017"),
        (cams.guided_grad_cam, Needs.CONVOLUTION, True, False, False, "Selvaraju et al., ICCV 2017"),
        (controls.random, Needs.NOTHING, False, False, True, "control"),
        (controls.magnitude, Needs.NOTHING, False, False, True, "control"),
        (controls.deviation, Needs.MEAN_BEAT, False, False, True, "control"),
        (controls.untrained, Needs.GRADIENT, True, False, True, "Adebayo et al., NeurIPS 2018"),
        (controls.uniform, Needs.NOTHING, False, False, True, "control"),
    )
}
"""Methods by name, in the study's order; the controls come last."""

_WITHOUT_RULE = (nn.GELU, nn.LayerNorm)  # Captum's DeepLift passes the plain gradient through them and says nothing


def obstacle(method: Method, model: SignalModel) -> str | None:
    """Say in one sentence why a method does not apply to a network; None where it does."""
    if method.needs is Needs.ATTENTION and not hasattr(model, "attention_maps"):
        return f"{method.name} needs attention weights, which {model.name} does not have"
    if method.needs is Needs.CONVOLUTION and not hasattr(model, "stages"):
        return f"{method.name} needs convolutional stages, which {model.name} does not have"
    without = sorted({type(module).__name__ for module in model.modules() if isinstance(module, _WITHOUT_RULE)})
    if method.needs is Needs.RULES and without:
        return f"{method.name} has no rule for {' and '.join(without)}, of which {model.name} is built"
    return None


def attribute(method: Method, question: Question) -> np.ndarray:
    """Explain the windows of a question.

    Parameters
    ----------
    method : Method
        One of :data:`METHODS`.
    question : Question
        What is asked. Its network is left as it is, and so are the global random states.

    Returns
    -------
    numpy.ndarray
        float32, shape (n, n_samples), summed over leads; signed where the method is. NaN for a window whose
        attribution is 0 everywhere: which part matters is then undefined.

    Raises
    ------
    StudyError
        The method does not apply to the network, or waves or mean beats are needed and not given.
    """
    reason = obstacle(method, question.model)
    if reason is not None:
        raise StudyError(f"{reason}; choose another method or another model.")
    if method.needs is Needs.WAVES and question.waves is None:
        raise StudyError(f"{method.name} needs the wave of each sample; delineate the windows first.")
    if method.needs is Needs.MEAN_BEAT and (question.mean_beats is None or question.waves is None):
        raise StudyError(f"{method.name} needs mean beats and the wave of each sample; delineate the windows first.")
    with isolate_rng():
        return _undefined_where_zero(method.run(question))


def relevance(method: Method, attribution: np.ndarray) -> np.ndarray:
    """How much each sample matters, for or against.

    Parameters
    ----------
    method : Method
        The method.
    attribution : numpy.ndarray
        As :func:`attribute` gives, shape (n, n_samples).

    Returns
    -------
    numpy.ndarray
        The absolute value where the method is signed; NaN where a window's attribution is 0 everywhere.

    Raises
    ------
    ValueError
        An unsigned method has negative values.
    """
    if not method.signed and (attribution < 0).any():
        raise ValueError(f"{method.name} is unsigned and has negative values")
    return _undefined_where_zero(np.abs(attribution))


def completeness(method: Method, question: Question, attribution: np.ndarray) -> np.ndarray:
    """Relative convergence delta of each window, for methods that promise completeness.

    Parameters
    ----------
    method : Method
        A method with ``complete``.
    question : Question
        What was asked.
    attribution : numpy.ndarray
        The answer, shape (n, n_samples).

    Returns
    -------
    numpy.ndarray
        float64, shape (n,): |sum - change| / |change|, where change is the logit of the window less that of the
        baseline, which is zero or the mean beat (Sundararajan et al., ICML 2017, proposition 1). NaN where the
        logit does not change.

    Raises
    ------
    ValueError
        The method promises no completeness.
    """
    if not method.complete:
        raise ValueError(f"{method.name} does not promise completeness")
    logits = frozen_logits(question)
    change = np.empty(len(question.windows))
    baselines = question.mean_beats if method.needs is Needs.MEAN_BEAT else np.zeros_like(question.windows)
    with torch.no_grad():
        for rows, x, target in chunks(question):
            at_baseline = logits(torch.as_tensor(baselines[rows], dtype=torch.float32, device=x.device))
            difference = (logits(x) - at_baseline).gather(1, target.unsqueeze(1))
            change[rows] = difference.squeeze(1).double().cpu().numpy()
    delta = np.abs(attribution.sum(axis=1, dtype=np.float64) - change)
    return np.divide(delta, np.abs(change), out=np.full(len(change), np.nan), where=change != 0)


def _undefined_where_zero(values: np.ndarray) -> np.ndarray:
    """Set the rows that are 0 everywhere to NaN."""
    return np.where((values == 0).all(axis=1, keepdims=True), np.float32(np.nan), values)
