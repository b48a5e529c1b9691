"""Attribution methods: a registry, and the one way of asking them.

>>> question = Question(model, "person", windows)
>>> relevance_of_samples = relevance(METHODS["saliency"], attribute(METHODS["saliency"], question))

Gradients, ablation and class activation maps are Captum's; attention is our own, as Captum has none. Unless said, the
baseline is zero, the mean of a standardised window. The controls cannot know what the network has learned: a method
worth believing beats them all. To add a method, register a :data:`Run`.
"""

import copy
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from captum import attr
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn

from ecgstudy.attribution.waves import Windows
from ecgstudy.errors import StudyError
from ecgstudy.evaluate.bootstrap import ratio
from ecgstudy.learn.base import SignalModel, TaskLogits
from ecgstudy.learn.models import create_model

CHUNK = 64
"""Windows that are explained at a time; it bounds memory and does not change the answer."""
N_STEPS = 32
"""Gauss-Legendre steps of integrated gradients, and random samples a window of gradient SHAP."""
OCCLUSION_SECONDS = 0.1
"""Length of the occluding patch: about a QRS complex or a P wave, and the patch of TransECG; it moves by half of it."""
_BACKGROUND = 64
_NOISE_SD = 0.05  # of standardised windows: below the noise of a good recording
_MODE = "linear"
_ABLATION = "Kokhlikyan et al., arXiv 2009.07896, 2020"
ATTENTION, CONVOLUTION, RULES = "attention weights", "convolutional stages", "a rule for every activation"
THE_WAVES, THE_MEAN_BEAT = "the wave of each sample", "the mean beat"
"""What a method must be given besides windows, with gradients, logits and nothing, which are always there."""
_OWNED = {ATTENTION: "attention_maps", CONVOLUTION: "stages"}
"""Attribute of a network that has it."""
_WITHOUT_RULE = (nn.GELU, nn.LayerNorm)  # Captum's DeepLift passes the plain gradient through them and says nothing


class Chunk(NamedTuple):
    """Some rows of a question's windows, as tensors on the network's device; `mean_beats` where they are known."""

    rows: slice
    x: Tensor
    target: Tensor
    mean_beats: Tensor | None


@dataclass(frozen=True)
class Question:
    """Which samples of windows speak for their true class: for the logit of one task of a network, which is only read.

    `mean_beats`, float32, have the shape of the samples: the same beats in time with everybody's average waves in place
    of the person's, as ``windows.infills`` has them.
    """

    model: SignalModel
    task: str
    windows: Windows
    mean_beats: np.ndarray | None = None

    @cached_property
    def logits(self) -> TaskLogits:
        """Logits of the task from a copy of the network, in evaluation mode and without parameter gradients.

        Captum leaves hooks behind where it fails, and changes modes and flags; on a copy that harms nobody.
        """
        return TaskLogits(copy.deepcopy(self.model).eval().requires_grad_(False), self.task)

    def chunks(self) -> Iterator[Chunk]:
        """Windows chunk by chunk; copies, as Captum sets flags on them."""
        device = next(self.model.parameters()).device
        for start in range(0, len(self.windows), CHUNK):
            rows = slice(start, start + CHUNK)
            x = torch.tensor(self.windows.samples[rows], dtype=torch.float32, device=device)
            target = torch.tensor(self.windows.targets[rows], dtype=torch.int64, device=device)
            mean = None if self.mean_beats is None else torch.tensor(self.mean_beats[rows], device=device)
            yield Chunk(rows, x, target, mean)


Run = Callable[[Question, Chunk], Tensor]
"""From a chunk of a question's windows to their attribution, shape (k, n_leads or 1, n_samples)."""


@dataclass(frozen=True)
class Method:
    """An attribution method, named after the function that runs it on a chunk; ask it by :func:`attribute`.

    `needs` is what it must be given; of a `signed` one negative values speak against the class; a `complete` one
    promises that a window's attribution sums to the logit's change from its baseline; a `control` cannot know what the
    network has learned.
    """

    run: Run
    reference: str
    needs: str
    signed: bool = False
    complete: bool = False
    control: bool = False

    @property
    def name(self) -> str:
        """Key in :data:`METHODS`."""
        return self.run.__name__


METHODS: dict[str, Method] = {}
"""Methods by name, in the study's order; the controls come last."""


def _method(reference: str, needs: str, **kind: bool) -> Callable[[Run], Run]:
    """Register a function as a method under its own name."""

    def register(run: Run) -> Run:
        METHODS[run.__name__] = Method(run, reference, needs, **kind)
        return run

    return register


def rollout(maps: Tensor) -> Tensor:
    """Attention (n_layers, n, heads, tokens, tokens) that flows from the first layer to the last, (n, tokens, tokens).

    Abnar & Zuidema, section 3: heads are averaged, the residual connection counts as half, layers are multiplied.
    """
    layers = 0.5 * maps.mean(dim=2) + 0.5 * torch.eye(maps.shape[-1], device=maps.device)
    flow = layers[0]
    for layer in layers[1:]:
        flow = layer @ flow
    return flow


def _of_class_token(question: Question, chunk: Chunk, combine: Callable[[Tensor], Tensor]) -> Tensor:
    """Row of the class token in the combined maps; a patch's weight is shared evenly by its samples."""
    model = question.logits.model
    lengths = torch.tensor([end - start for start, end in model.patch_bounds], device=model.device)
    with torch.no_grad():
        weights = combine(model.attention_maps(chunk.x))[:, 0, 1:]
    return (weights / lengths).repeat_interleave(lengths, dim=1).unsqueeze(1)


@_method("Abnar & Zuidema, ACL 2020", ATTENTION)
def attention_rollout(question: Question, chunk: Chunk) -> Tensor:
    """Class token's row of the :func:`rollout`."""
    return _of_class_token(question, chunk, rollout)


@_method("Wang et al., arXiv 2503.13495, 2025", ATTENTION)
def last_attention(question: Question, chunk: Chunk) -> Tensor:
    """Class token's row of the last layer's attention, averaged over heads, as TransECG's authors read it."""
    return _of_class_token(question, chunk, lambda maps: maps[-1].mean(dim=1))


def _along_path(question: Question, chunk: Chunk, baseline: Tensor | None) -> Tensor:
    """Gradient averaged along the straight path from a baseline (zero unless given), times the way; a step a batch."""
    explainer = attr.IntegratedGradients(question.logits)
    return explainer.attribute(chunk.x, baseline, chunk.target, n_steps=N_STEPS, internal_batch_size=len(chunk.x))


@_method("Sundararajan et al., ICML 2017", "gradients", signed=True, complete=True)
def integrated_gradients(question: Question, chunk: Chunk) -> Tensor:
    """Integrated gradients from zero."""
    return _along_path(question, chunk, None)


@_method("Sundararajan et al., ICML 2017", THE_MEAN_BEAT, signed=True, complete=True)
def gradients_from_mean_beat(question: Question, chunk: Chunk) -> Tensor:
    """Integrated gradients from the mean beat: what sets this beat apart from everybody's."""
    return _along_path(question, chunk, chunk.mean_beats)


@_method("Lundberg & Lee, NeurIPS 2017", "gradients", signed=True)
def gradient_shap(question: Question, chunk: Chunk) -> Tensor:
    """Average gradients over random baselines (up to 64 of the windows), places on the path and noise.

    Each window has a random stream of its own, so that the answer does not depend on the chunk.
    """
    explainer, windows = attr.GradientShap(question.logits), question.windows
    rng = np.random.default_rng(windows.seed)
    chosen = rng.permutation(len(windows))[:_BACKGROUND]
    seeds = rng.integers(2**32, size=len(windows), dtype=np.uint32)[chunk.rows]
    background = torch.tensor(windows.samples[chosen], dtype=torch.float32, device=chunk.x.device)
    answers = []
    for one, label, seed in zip(chunk.x.split(1), chunk.target.split(1), seeds, strict=True):
        torch.manual_seed(int(seed))  # Captum draws from torch's and numpy's global streams;
        np.random.seed(seed)  # noqa: NPY002  # `attribute` puts both back
        answers.append(explainer.attribute(one, background, N_STEPS, _NOISE_SD, label))
    return torch.cat(answers)


def _passed_back(explainer: attr.Attribution, chunk: Chunk, **given: object) -> Tensor:
    """Ask one of Captum's explainers that pass gradients back to the window."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Setting (forward, )?backward hooks")  # on the copy
        return explainer.attribute(chunk.x.requires_grad_(), target=chunk.target, **given)


@_method("Shrikumar et al., ICML 2017", RULES, signed=True, complete=True)
def deep_lift(question: Question, chunk: Chunk) -> Tensor:
    """Differences to the zero window, passed back layer by layer."""
    return _passed_back(attr.DeepLift(question.logits), chunk)


@_method("Simonyan et al., ICLR workshop 2014", "gradients")
def saliency(question: Question, chunk: Chunk) -> Tensor:
    """Absolute gradient of the logit."""
    return _passed_back(attr.Saliency(question.logits), chunk)


@_method("Shrikumar et al., arXiv 1605.01713, 2016", "gradients", signed=True)
def input_x_gradient(question: Question, chunk: Chunk) -> Tensor:
    """Window times gradient."""
    return _passed_back(attr.InputXGradient(question.logits), chunk)


@_method("Zeiler & Fergus, ECCV 2014", "logits", signed=True)
def occlusion(question: Question, chunk: Chunk) -> Tensor:
    """Mean loss of logit under the zero patches that cover a sample, sliding over all leads at once."""
    patch = (chunk.x.shape[1], max(2, round(OCCLUSION_SECONDS * question.model.hparams.fs)))
    strides = (patch[0], patch[1] // 2)
    loss = attr.Occlusion(question.logits).attribute(chunk.x, patch, strides, baselines=0, target=chunk.target)
    return loss[:, :1]  # the same for every lead


def _by_wave(question: Question, chunk: Chunk, baseline: Tensor) -> Tensor:
    """Loss of logit when the samples of one wave at a time are those of `baseline`, spread evenly over them."""
    groups = torch.as_tensor(question.windows.codes[chunk.rows].astype(np.int64) + 1, device=chunk.x.device)
    explainer = attr.FeatureAblation(question.logits)
    loss = explainer.attribute(chunk.x, baseline, chunk.target, feature_mask=groups.unsqueeze(1))
    size = nn.functional.one_hot(groups).sum(dim=1).gather(1, groups)
    return loss[:, :1] / size.unsqueeze(1)


@_method(_ABLATION, THE_WAVES, signed=True)
def wave_ablation(question: Question, chunk: Chunk) -> Tensor:
    """Loss of logit when all samples of one wave (the unknown are one too) are set to zero, spread evenly over them."""
    return _by_wave(question, chunk, torch.zeros_like(chunk.x))


@_method(_ABLATION, THE_MEAN_BEAT, signed=True)
def wave_replacement(question: Question, chunk: Chunk) -> Tensor:
    """Do so with everybody's average wave: a window without a wave is like no ECG that the network has seen."""
    return _by_wave(question, chunk, chunk.mean_beats)


@_method("Selvaraju et al., ICCV 2017", CONVOLUTION)
def grad_cam(question: Question, chunk: Chunk) -> Tensor:
    """Channels of the last stage weighted by their mean gradient, summed, negative sums set to 0, interpolated."""
    explainer = attr.LayerGradCam(question.logits, question.logits.model.stages[-1])
    coarse = explainer.attribute(chunk.x.requires_grad_(), chunk.target, relu_attributions=True)
    return attr.LayerAttribution.interpolate(coarse, (chunk.x.shape[-1],), interpolate_mode=_MODE)


@_method("Selvaraju et al., ICCV 2017", CONVOLUTION, signed=True)
def guided_grad_cam(question: Question, chunk: Chunk) -> Tensor:
    """Guided backpropagation times GradCAM; here to be seen failing the sanity checks (Adebayo et al. 2018)."""
    explainer = attr.GuidedGradCam(question.logits, question.logits.model.stages[-1])
    return _passed_back(explainer, chunk, interpolate_mode=_MODE)


@_method("control", "nothing", control=True)
def random(question: Question, chunk: Chunk) -> Tensor:
    """Independent uniform numbers in [0, 1)."""
    shape = question.windows.samples[:, :1].shape
    return torch.from_numpy(np.random.default_rng(question.windows.seed).random(shape, dtype=np.float32)[chunk.rows])


@_method("control", "nothing", control=True)
def magnitude(_: Question, chunk: Chunk) -> Tensor:
    """Absolute value of the window: looks like knowledge of the QRS, and is none."""
    return chunk.x.abs()


@_method("control", THE_MEAN_BEAT, control=True)
def deviation(_: Question, chunk: Chunk) -> Tensor:
    """Distance from the mean beat: what is unusual about the window, whether it matters or not."""
    return (chunk.x - chunk.mean_beats).abs()


@_method("Adebayo et al., NeurIPS 2018", "gradients", signed=True, control=True)
def untrained(question: Question, chunk: Chunk) -> Tensor:
    """Integrated gradients of the same architecture with fresh weights."""
    # a stream of its own: the seed alone could be that of the trained network's initial weights
    seed = int(np.random.SeedSequence((question.windows.seed, 1)).generate_state(1)[0])
    fresh = create_model(question.model.name, seed, **question.model.hparams)
    return integrated_gradients(replace(question, model=fresh.to(question.model.device)), chunk)


@_method("control", "nothing", control=True)
def uniform(_: Question, chunk: Chunk) -> Tensor:
    """Uniform attention: every sample weighs the same."""
    return torch.full_like(chunk.x[:, :1], 1 / chunk.x.shape[-1])


def not_applicable(method: Method, model: SignalModel) -> str | None:
    """Say in one sentence why a method does not apply to a network; None where it does."""
    if method.needs in _OWNED and not hasattr(model, _OWNED[method.needs]):
        return f"{method.name} needs {method.needs}, which {model.name} does not have"
    without = sorted({type(module).__name__ for module in model.modules() if isinstance(module, _WITHOUT_RULE)})
    if method.needs == RULES and without:
        return f"{method.name} has no rule for {' and '.join(without)}, of which {model.name} is built"
    return None


def applicable(model: SignalModel) -> list[Method]:
    """Methods that apply to a network."""
    return [method for method in METHODS.values() if not not_applicable(method, model)]


def attribute(method: Method, question: Question) -> np.ndarray:
    """Explain the windows of a question; its network is left as it is, and so are the global random states.

    Returns
    -------
    numpy.ndarray
        float32, shape (n, n_samples), summed over leads; signed where the method is. NaN for a window whose
        attribution is 0 everywhere: which part matters is then undefined. ``StudyError`` where the method does not
        apply to the network, or needs waves or mean beats that are not given.
    """
    if reason := not_applicable(method, question.model):
        raise StudyError(f"{reason}; choose another method or another model.")
    if method.needs in (THE_WAVES, THE_MEAN_BEAT) and question.windows.codes is None:
        raise StudyError(f"{method.name} needs the wave of each sample; delineate the windows first.")
    if method.needs == THE_MEAN_BEAT and question.mean_beats is None:
        raise StudyError(f"{method.name} needs mean beats; delineate the windows first.")
    answer = np.empty((len(question.windows), question.windows.samples.shape[-1]), dtype=np.float32)
    try:
        with isolate_rng():
            for chunk in question.chunks():
                answer[chunk.rows] = method.run(question, chunk).detach().sum(dim=1).cpu().numpy()
    except Exception:
        vars(question).pop("logits", None)  # Captum's hooks may still be on it
        raise
    return _undefined_where_zero(answer)


def relevance(method: Method, attribution: np.ndarray) -> np.ndarray:
    """How much each sample matters, for or against: the magnitude; NaN for a window that is 0 everywhere."""
    if not method.signed and (attribution < 0).any():
        raise ValueError(f"{method.name} is unsigned and has negative values")
    return _undefined_where_zero(np.abs(attribution))


def _undefined_where_zero(values: np.ndarray) -> np.ndarray:
    """Set the rows that are 0 everywhere to NaN."""
    return np.where((values == 0).all(axis=1, keepdims=True), np.float32(np.nan), values)


def completeness(method: Method, question: Question, attribution: np.ndarray) -> np.ndarray:
    """Relative convergence delta |sum - change| / |change| of each window, for methods that promise completeness.

    The change is the logit of the window less that of the baseline, which is zero or the mean beat (Sundararajan et
    al., ICML 2017, proposition 1). NaN where the logit does not change.
    """
    change = np.empty(len(question.windows))
    with torch.no_grad():
        for rows, x, target, mean_beats in question.chunks():
            at_baseline = question.logits(mean_beats if method.needs == THE_MEAN_BEAT else torch.zeros_like(x))
            difference = (question.logits(x) - at_baseline).gather(1, target.unsqueeze(1))
            change[rows] = difference.squeeze(1).double().cpu().numpy()
    return ratio(np.abs(attribution.sum(axis=1, dtype=np.float64) - change), np.abs(change))


def relevances(question: Question) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Relevance by every method that applies, and the median relative convergence delta where one is promised."""
    found: dict[str, np.ndarray] = {}
    incompleteness: dict[str, float] = {}
    for method in applicable(question.model):
        attribution = attribute(method, question)
        found[method.name] = relevance(method, attribution)
        if method.complete:
            incompleteness[method.name] = float(np.nanmedian(completeness(method, question, attribution)))
    return found, incompleteness
