"""Registry of attribution methods; ask them by :mod:`ecgstudy.attribution.explain`.

Gradients, ablation and class activation maps are Captum's; attention is our own, as Captum has none. Unless said, the
baseline is zero, the mean of a standardised window. The controls cannot know what the network has learned: a method
worth believing beats them all.
"""

import copy
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property

import numpy as np
import torch
from captum import attr
from torch import Tensor

from ecgstudy.learn.base import SignalModel, TaskLogits
from ecgstudy.learn.models import create_model

N_STEPS = 32
"""Gauss-Legendre steps of integrated gradients, and random samples a window of gradient SHAP."""
OCCLUSION_SECONDS = 0.1
"""Length of the occluding patch: about a QRS complex or a P wave, and the patch of TransECG; it moves by half of it."""
_BACKGROUND = 64
_NOISE_SD = 0.05  # of standardised windows: below the noise of a good recording
_MODE = "linear"
_ABLATION = "Kokhlikyan et al., arXiv 2009.07896, 2020"


@dataclass(frozen=True)
class Question:
    """Windows of which it is asked which samples speak for a class.

    Attributes
    ----------
    model : SignalModel
        The network; it is only read.
    task : str
        One of its tasks.
    windows : numpy.ndarray
        float32, shape (n, n_leads, n_samples), as the network reads them (standardised).
    targets : numpy.ndarray
        int64, shape (n,): the class whose logit is explained, for each window.
    waves : numpy.ndarray or None
        int8, shape (n, n_samples): the wave of each sample, -1 where unknown.
    seed : int
        Seed of methods that draw random numbers.
    mean_beats : numpy.ndarray or None
        Shape of `windows`: the same beats in time with everybody's average waves in place of the person's
        (:func:`ecgstudy.attribution.waves.infills`).
    chunk : int
        Windows that are explained at a time; it bounds memory and does not change the answer.
    """

    model: SignalModel
    task: str
    windows: np.ndarray
    targets: np.ndarray
    waves: np.ndarray | None
    seed: int
    mean_beats: np.ndarray | None = None
    chunk: int = 64

    def __post_init__(self) -> None:
        """Refuse arrays that do not belong together."""
        if self.windows.ndim != 3:
            raise ValueError(f"windows of shape (n, n_leads, n_samples) expected, got {self.windows.shape}")
        n, _, n_samples = self.windows.shape
        for name, shape in {"targets": (n,), "waves": (n, n_samples), "mean_beats": self.windows.shape}.items():
            values = getattr(self, name)
            if values is not None and values.shape != shape:
                raise ValueError(f"{name} of shape {shape} expected, got {values.shape}")

    @cached_property
    def logits(self) -> TaskLogits:
        """Logits of the task from a copy of the network, in evaluation mode and without parameter gradients.

        Captum leaves hooks behind where it fails, and changes modes and flags; on a copy that harms nobody.
        """
        return TaskLogits(copy.deepcopy(self.model).eval().requires_grad_(False), self.task)

    def chunks(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Rows, windows and targets of each chunk, tensors on the network's device."""
        device = next(self.model.parameters()).device
        for start in range(0, len(self.windows), self.chunk):
            rows = slice(start, start + self.chunk)
            x = torch.tensor(self.windows[rows], dtype=torch.float32, device=device)  # a copy: Captum sets flags on it
            yield rows, x, torch.tensor(self.targets[rows], dtype=torch.int64, device=device)


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
    """An attribution method, named after the function that runs it.

    `run` goes from a :class:`Question` to an array (n, n_samples); call :func:`ecgstudy.attribution.explain.attribute`
    instead. `needs` is what it must be given; of a `signed` one negative values speak against the class; a `complete`
    one promises that a window's attribution sums to the logit's change from its baseline; a `control` cannot know what
    the network has learned.
    """

    run: Callable[[Question], np.ndarray]
    reference: str
    needs: Needs
    signed: bool = False
    complete: bool = False
    control: bool = False

    @property
    def name(self) -> str:
        """Key in :data:`METHODS`."""
        return self.run.__name__


METHODS: dict[str, Method] = {}
"""Methods by name, in the study's order; the controls come last."""

Run = Callable[[Question], np.ndarray]


def _method(reference: str, needs: Needs, **kind: bool) -> Callable[[Run], Run]:
    """Register a function as a method under its own name."""

    def register(run: Run) -> Run:
        METHODS[run.__name__] = Method(run, reference, needs, **kind)
        return run

    return register


def _by_chunk(question: Question, explain: Callable[[Tensor, Tensor, slice], Tensor]) -> np.ndarray:
    """Explain chunk after chunk and sum over leads, float32, shape (n, n_samples).

    `explain` takes windows (k, n_leads, n_samples), their targets (k,) and their rows, and gives an attribution of
    shape (k, n_leads or 1, n_samples).
    """
    answer = np.empty((len(question.windows), question.windows.shape[-1]), dtype=np.float32)
    for rows, x, target in question.chunks():
        answer[rows] = explain(x, target, rows).detach().sum(dim=1).cpu().numpy()
    return answer


def rollout(maps: Tensor) -> Tensor:
    """Attention that flows from the tokens of the first layer to those of the last.

    Abnar & Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020, section 3: heads are averaged, the residual
    connection counts as half (A = 0.5 W + 0.5 I), layers are multiplied. Attention weights of shape (n_layers, n,
    heads, tokens, tokens), rows summing to 1, become (n, tokens, tokens), rows summing to 1.
    """
    layers = 0.5 * maps.mean(dim=2) + 0.5 * torch.eye(maps.shape[-1], device=maps.device)
    flow = layers[0]
    for layer in layers[1:]:
        flow = layer @ flow
    return flow


def _of_class_token(question: Question, combine: Callable[[Tensor], Tensor]) -> np.ndarray:
    """Row of the class token in the combined maps; a patch's weight is shared evenly by its samples."""
    model = question.logits.model
    lengths = torch.tensor([end - start for start, end in model.patch_bounds], device=model.device)

    def explain(x: Tensor, _: Tensor, __: slice) -> Tensor:
        with torch.no_grad():
            weights = combine(model.attention_maps(x))[:, 0, 1:]
        return (weights / lengths).repeat_interleave(lengths, dim=1).unsqueeze(1)

    return _by_chunk(question, explain)


@_method("Abnar & Zuidema, ACL 2020", Needs.ATTENTION)
def attention_rollout(question: Question) -> np.ndarray:
    """Class token's row of the :func:`rollout`."""
    return _of_class_token(question, rollout)


@_method("Wang et al., arXiv 2503.13495, 2025", Needs.ATTENTION)
def last_attention(question: Question) -> np.ndarray:
    """Class token's row of the last layer's attention, averaged over heads, as TransECG's authors read it."""
    return _of_class_token(question, lambda maps: maps[-1].mean(dim=1))


def _along_path(question: Question, baseline: np.ndarray | None) -> np.ndarray:
    """Gradient averaged along the straight path from a baseline (zero unless given), times the way.

    One step of one chunk is one batch, so memory grows neither with steps nor with windows.
    """
    explainer = attr.IntegratedGradients(question.logits)

    def explain(x: Tensor, target: Tensor, rows: slice) -> Tensor:
        start = None if baseline is None else torch.as_tensor(baseline[rows], dtype=torch.float32, device=x.device)
        return explainer.attribute(x, start, target, n_steps=N_STEPS, internal_batch_size=len(x))

    return _by_chunk(question, explain)


@_method("Sundararajan et al., ICML 2017", Needs.GRADIENT, signed=True, complete=True)
def integrated_gradients(question: Question) -> np.ndarray:
    """Integrated gradients from zero."""
    return _along_path(question, None)


@_method("Sundararajan et al., ICML 2017", Needs.MEAN_BEAT, signed=True, complete=True)
def gradients_from_mean_beat(question: Question) -> np.ndarray:
    """Integrated gradients from the mean beat: what sets this beat apart from everybody's."""
    return _along_path(question, question.mean_beats)


@_method("Lundberg & Lee, NeurIPS 2017", Needs.GRADIENT, signed=True)
def gradient_shap(question: Question) -> np.ndarray:
    """Average gradients over random baselines, places on the path and noise.

    Baselines are drawn from up to 64 of the question's own windows. Each window has a
    random stream of its own, so that the answer does not depend on the chunk; its 32 samples are one batch.
    """
    explainer = attr.GradientShap(question.logits)
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

    return _by_chunk(question, explain)


def _gradient(question: Question, explainer: object, **given: object) -> np.ndarray:
    """Ask one of Captum's explainers that pass gradients back to the window."""

    def explain(x: Tensor, target: Tensor, _: slice) -> Tensor:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Setting (forward, )?backward hooks")  # on the copy
            return explainer.attribute(x.requires_grad_(), target=target, **given)

    return _by_chunk(question, explain)


@_method("Shrikumar et al., ICML 2017", Needs.RULES, signed=True, complete=True)
def deep_lift(question: Question) -> np.ndarray:
    """Differences to the zero window, passed back layer by layer."""
    return _gradient(question, attr.DeepLift(question.logits))


@_method("Simonyan et al., ICLR workshop 2014", Needs.GRADIENT)
def saliency(question: Question) -> np.ndarray:
    """Absolute gradient of the logit."""
    return _gradient(question, attr.Saliency(question.logits))


@_method("Shrikumar et al., arXiv 1605.01713, 2016", Needs.GRADIENT, signed=True)
def input_x_gradient(question: Question) -> np.ndarray:
    """Window times gradient."""
    return _gradient(question, attr.InputXGradient(question.logits))


@_method("Zeiler & Fergus, ECCV 2014", Needs.FORWARD, signed=True)
def occlusion(question: Question) -> np.ndarray:
    """Loss of logit under a zero patch that slides over all leads at once.

    A sample has the mean loss of the patches that cover it. Each place of the patch is one batch of a chunk.
    """
    explainer = attr.Occlusion(question.logits)
    length = max(2, round(OCCLUSION_SECONDS * question.model.hparams.fs))

    def explain(x: Tensor, target: Tensor, _: slice) -> Tensor:
        n_leads = x.shape[1]
        loss = explainer.attribute(x, (n_leads, length), strides=(n_leads, length // 2), baselines=0, target=target)
        return loss[:, :1]  # the same for every lead

    return _by_chunk(question, explain)


def _by_wave(question: Question, baseline: np.ndarray) -> np.ndarray:
    """Loss of logit when the samples of one wave at a time are those of `baseline`, spread evenly over them."""
    explainer = attr.FeatureAblation(question.logits)

    def explain(x: Tensor, target: Tensor, rows: slice) -> Tensor:
        groups = torch.as_tensor(question.waves[rows].astype(np.int64) + 1, device=x.device)
        instead = torch.as_tensor(baseline[rows], dtype=torch.float32, device=x.device)
        loss = explainer.attribute(x, baselines=instead, target=target, feature_mask=groups.unsqueeze(1))
        size = torch.nn.functional.one_hot(groups).sum(dim=1).gather(1, groups)
        return loss[:, :1] / size.unsqueeze(1)

    return _by_chunk(question, explain)


@_method(_ABLATION, Needs.WAVES, signed=True)
def wave_ablation(question: Question) -> np.ndarray:
    """Loss of logit when all samples of one wave are set to zero (ablation by groups).

    The loss is spread evenly over the wave's samples, so that a wave's sum is its loss however long it is.
    Samples of unknown wave are a group of their own.
    """
    return _by_wave(question, np.zeros_like(question.windows))


@_method(_ABLATION, Needs.MEAN_BEAT, signed=True)
def wave_replacement(question: Question) -> np.ndarray:
    """Loss of logit when one wave is replaced by everybody's average, spread as in :func:`wave_ablation`.

    A window without a wave is like no ECG that the network has seen; one with another's wave is.
    """
    return _by_wave(question, question.mean_beats)


@_method("Selvaraju et al., ICCV 2017", Needs.CONVOLUTION)
def grad_cam(question: Question) -> np.ndarray:
    """Channels of the last stage weighted by their mean gradient, summed, negative sums set to 0.

    The map is brought to the length of the window by linear interpolation.
    """
    explainer = attr.LayerGradCam(question.logits, question.logits.model.stages[-1])

    def explain(x: Tensor, target: Tensor, _: slice) -> Tensor:
        coarse = explainer.attribute(x.requires_grad_(), target, relu_attributions=True)
        return attr.LayerAttribution.interpolate(coarse, (x.shape[-1],), interpolate_mode=_MODE)

    return _by_chunk(question, explain)


@_method("Selvaraju et al., ICCV 2017", Needs.CONVOLUTION, signed=True)
def guided_grad_cam(question: Question) -> np.ndarray:
    """Guided backpropagation times GradCAM.

    Fails the sanity checks of Adebayo et al. (NeurIPS 2018); it is here to be seen failing.
    """
    explainer = attr.GuidedGradCam(question.logits, question.logits.model.stages[-1])
    return _gradient(question, explainer, interpolate_mode=_MODE)


@_method("control", Needs.NOTHING, control=True)
def random(question: Question) -> np.ndarray:
    """Independent uniform numbers in [0, 1)."""
    return np.random.default_rng(question.seed).random(question.windows[:, 0].shape, dtype=np.float32)


@_method("control", Needs.NOTHING, control=True)
def magnitude(question: Question) -> np.ndarray:
    """Absolute value of the window, summed over leads: looks like knowledge of the QRS, and is none."""
    return np.abs(question.windows).sum(axis=1, dtype=np.float32)


@_method("control", Needs.MEAN_BEAT, control=True)
def deviation(question: Question) -> np.ndarray:
    """Distance from the mean beat, summed over leads: what is unusual about the window, whether it matters or not."""
    return np.abs(question.windows - question.mean_beats).sum(axis=1, dtype=np.float32)


@_method("Adebayo et al., NeurIPS 2018", Needs.GRADIENT, signed=True, control=True)
def untrained(question: Question) -> np.ndarray:
    """Integrated gradients of the same architecture with fresh weights."""
    # a stream of its own: the seed alone could be that of the trained network's initial weights
    seed = int(np.random.SeedSequence((question.seed, 1)).generate_state(1)[0])
    fresh = create_model(question.model.name, seed, **question.model.hparams)
    return integrated_gradients(replace(question, model=fresh.to(question.model.device)))


@_method("control", Needs.NOTHING, control=True)
def uniform(question: Question) -> np.ndarray:
    """Uniform attention: every sample weighs the same."""
    return np.full(question.windows[:, 0].shape, 1 / question.windows.shape[-1], dtype=np.float32)
