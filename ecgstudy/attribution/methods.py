"""Attribution methods, crossed with what they compare a window with: a registry, and the one way of asking them.

>>> question = Question(model, "person", windows)
>>> loss_by_factor = attribute(METHODS["shapley"], "donor", question)

Two kinds. Methods *by sample* give every sample a number; its magnitude is the sample's relevance, which is added up by
wave. They are Captum's but for attention, which it has none of. Methods *by factor* exchange waves and intervals
(:mod:`ecgstudy.attribution.exchange`) and tell what the network's answer loses with each: only they can point to an
interval. Controls cannot know what the network has learned. To add a method, register its function.

What is explained is a *contrast*: the logit of the true class less the mean of all others.
"""

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from captum import attr
from torch import Tensor, nn

from ecgstudy.attribution.exchange import BASELINES, FACTORS, OWN_TIMING, Exchange, Windows
from ecgstudy.attribution.waves import WAVES
from ecgstudy.errors import StudyError
from ecgstudy.evaluate.bootstrap import ratio
from ecgstudy.learn.base import SignalModel, TaskLogits, class_probabilities
from ecgstudy.learn.models import create_model

CHUNK = 64
"""Windows that are explained at a time; it bounds memory and does not change the answer."""
N_STEPS, PATH_STEPS, PATH_STEP = 24, 8, 0.05
"""Gauss-Legendre steps of integrated gradients and of those along the exchange, and the share that gives a tangent."""
ORDERS = 2
"""Random orders of Shapley values; each is also walked backwards."""
OCCLUSION_SECONDS = 0.1
"""Length of the occluding patch: about a QRS complex or a P wave, and the patch of TransECG; it moves by half of it."""
ZERO, NONE = "zero", "none"
"""The mean of a standardised window; and no baseline at all. The others are those of the exchange."""
ATTENTION, CONVOLUTION, RULES = "attention weights", "convolutional stages", "a rule for every activation"
"""What a method may need of a network."""
UNTRAINED = "untrained"
"""Who is asked beside the network: the same architecture with fresh weights."""
_OWNED = {ATTENTION: "attention_maps", CONVOLUTION: "stages"}
"""Attribute of a network that has it."""
_WITHOUT_RULE = (nn.GELU, nn.LayerNorm)  # Captum's DeepLift passes the plain gradient through them and says nothing


class Contrast(TaskLogits):
    """Logit of each class less the mean of the other classes' logits."""

    def forward(self, x: Tensor) -> Tensor:
        """Contrast of each class, shape (n, n_classes)."""
        logits = super().forward(x)
        return logits - (logits.sum(dim=1, keepdim=True) - logits) / (logits.shape[1] - 1)


class Chunk(NamedTuple):
    """Some of a question's windows, as tensors on the network's device, and what they are compared with."""

    x: Tensor
    target: Tensor
    baseline: Tensor


@dataclass(frozen=True)
class Question:
    """What in windows speaks for their true class: for one task of a network, which is only read."""

    model: SignalModel
    task: str
    windows: Windows

    @cached_property
    def contrast(self) -> Contrast:
        """Contrasts from a copy of the network, in evaluation mode and without parameter gradients.

        Captum leaves hooks behind where it fails, and changes modes and flags; on a copy that harms nobody.
        """
        return Contrast(copy.deepcopy(self.model).eval().requires_grad_(False), self.task)

    def compared_with(self, baseline: str) -> np.ndarray:
        """Windows of a baseline, float32, of the samples' shape."""
        if baseline in (ZERO, NONE):
            return np.zeros_like(self.windows.samples)
        return self.windows.exchanges[baseline].at(np.ones(len(FACTORS)))[0]

    def chunks(self, baseline: str, samples: np.ndarray | None = None) -> Iterator[Chunk]:
        """Windows (or others of the same classes) chunk by chunk; copies, as Captum sets flags on them."""
        device, others = self.model.device, self.compared_with(baseline)
        samples = self.windows.samples if samples is None else samples
        for start in range(0, len(samples), CHUNK):
            rows = slice(start, start + CHUNK)
            x, other = (torch.tensor(part[rows], dtype=torch.float32, device=device) for part in (samples, others))
            yield Chunk(x, torch.tensor(self.windows.targets[rows], dtype=torch.int64, device=device), other)

    def scores(self, samples: np.ndarray) -> np.ndarray:
        """Contrast of the true class of each of some samples, shape (n,)."""
        with torch.no_grad():
            parts = [self.contrast(c.x).gather(1, c.target[:, None])[:, 0] for c in self.chunks(NONE, samples)]
        return torch.cat(parts).double().cpu().numpy()

    def probabilities(self, samples: np.ndarray) -> np.ndarray:
        """Probability of every class of each of some samples, shape (n, n_classes)."""
        return class_probabilities(self.model, samples, self.task, self.model.classes[self.task])


Run = Callable[[Question, Chunk], Tensor] | Callable[[Question, Exchange], np.ndarray]
"""From a chunk to an attribution (k, n_leads or 1, n_samples), or from an exchange to losses (n, n_factors)."""


@dataclass(frozen=True)
class Method:
    """An attribution method, named after the function that runs it; ask it by :func:`attribute`.

    `needs` is what it needs of a network, `baselines` what it may compare with. A method `by_factor` reads exchanges. A
    `complete` one promises that a window's attribution sums to the contrast's change from its baseline.
    """

    run: Run
    reference: str
    baselines: tuple[str, ...] = (NONE,)
    needs: str = ""
    by_factor: bool = False
    complete: bool = False
    control: bool = False

    @property
    def name(self) -> str:
        """Key in :data:`METHODS`."""
        return self.run.__name__


METHODS: dict[str, Method] = {}
"""Methods by name, in the study's order; the controls come last."""
_BY_SAMPLE = (ZERO, *BASELINES)


def _method(reference: str, *baselines: str, **kind: str | bool) -> Callable[[Run], Run]:
    """Register a function as a method under its own name."""

    def register(run: Run) -> Run:
        METHODS[run.__name__] = Method(run, reference, baselines or (NONE,), **kind)
        return run

    return register


@_method("ours", *BASELINES, by_factor=True)
def replacement(question: Question, exchange: Exchange) -> np.ndarray:
    """Tell what the contrast loses when one factor alone is exchanged."""
    found = np.zeros((len(question.windows), len(FACTORS)))
    own = question.scores(exchange.at(np.zeros(len(FACTORS)))[0])
    for factor in exchange.factors:
        found[:, factor] = own - question.scores(exchange.at(np.eye(len(FACTORS))[factor])[0])
    return found


@_method("Castro et al., Computers & OR 36, 2009", *BASELINES, by_factor=True, complete=True)
def shapley(question: Question, exchange: Exchange) -> np.ndarray:
    """Mean loss with a factor when all are exchanged one after the other, in random orders and backwards."""
    rng, found = np.random.default_rng(question.windows.seed), np.zeros((len(question.windows), len(FACTORS)))
    drawn = [rng.permutation(exchange.factors) for _ in range(ORDERS)]
    for order in (*drawn, *(order[::-1] for order in drawn)):
        share = np.zeros(len(FACTORS))
        before = question.scores(exchange.at(share)[0])
        for factor in order:
            share = share + np.eye(len(FACTORS))[factor]
            after = question.scores(exchange.at(share)[0])
            found[:, factor] += (before - after) / (2 * ORDERS)
            before = after
    return found


@_method("after Sundararajan et al., ICML 2017", *BASELINES, by_factor=True, complete=True)
def path_gradients(question: Question, exchange: Exchange) -> np.ndarray:
    """Gradient through splice and warp, averaged along the path on which all factors are exchanged together."""
    found = np.zeros((len(question.windows), len(FACTORS)))
    waves = np.arange(len(FACTORS)) < len(WAVES)
    for place, weight in zip(*np.polynomial.legendre.leggauss(PATH_STEPS), strict=True):
        share = np.full(len(FACTORS), (place + 1) / 2)
        here, codes = exchange.at(share)
        slopes = []
        for chunk in question.chunks(NONE, here):
            score = question.contrast(chunk.x.requires_grad_()).gather(1, chunk.target[:, None]).sum()
            slopes.append(torch.autograd.grad(score, chunk.x)[0].cpu().numpy())
        slope = np.concatenate(slopes)
        loss = -(slope * (exchange.at(share + PATH_STEP * waves)[0] - here)).sum(axis=1) / PATH_STEP
        for factor in exchange.factors:
            if waves[factor]:
                gained = np.where(codes == factor, loss, 0).sum(axis=1)
            else:
                moved = exchange.at(share + PATH_STEP * np.eye(len(FACTORS))[factor])[0]
                gained = -(slope * (moved - here)).sum(axis=(1, 2)) / PATH_STEP
            found[:, factor] += weight / 2 * gained
    return found


@_method("Sundararajan et al., ICML 2017", *_BY_SAMPLE, complete=True)
def integrated_gradients(question: Question, chunk: Chunk) -> Tensor:
    """Gradient averaged along the straight path from the baseline, times the way; a step a batch."""
    explainer = attr.IntegratedGradients(question.contrast)
    return explainer.attribute(chunk.x, chunk.baseline, chunk.target, n_steps=N_STEPS, internal_batch_size=len(chunk.x))


@_method("Shrikumar et al., ICML 2017", *_BY_SAMPLE, needs=RULES, complete=True)
def deep_lift(question: Question, chunk: Chunk) -> Tensor:
    """Differences to the baseline, passed back layer by layer."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Setting (forward, )?backward hooks")  # on the copy
        return attr.DeepLift(question.contrast).attribute(chunk.x.requires_grad_(), chunk.baseline, chunk.target)


@_method("Zeiler & Fergus, ECCV 2014", *_BY_SAMPLE)
def occlusion(question: Question, chunk: Chunk) -> Tensor:
    """Mean loss under the patches of baseline that cover a sample, sliding over all leads at once."""
    patch = (chunk.x.shape[1], max(2, round(OCCLUSION_SECONDS * question.windows.fs)))
    given = {"baselines": chunk.baseline, "target": chunk.target, "perturbations_per_eval": 16}
    loss = attr.Occlusion(question.contrast).attribute(chunk.x, patch, (patch[0], patch[1] // 2), **given)
    return loss[:, :1]  # the same for every lead


@_method("Simonyan et al., ICLR workshop 2014")
def saliency(question: Question, chunk: Chunk) -> Tensor:
    """Absolute gradient of the contrast."""
    return attr.Saliency(question.contrast).attribute(chunk.x.requires_grad_(), chunk.target)


@_method("Selvaraju et al., ICCV 2017", needs=CONVOLUTION)
def grad_cam(question: Question, chunk: Chunk) -> Tensor:
    """Channels of the last stage weighted by their mean gradient, summed, negative sums set to 0, interpolated."""
    explainer = attr.LayerGradCam(question.contrast, question.contrast.model.stages[-1])
    coarse = explainer.attribute(chunk.x.requires_grad_(), chunk.target, relu_attributions=True)
    return attr.LayerAttribution.interpolate(coarse, (chunk.x.shape[-1],), interpolate_mode="linear")


@_method("Wang et al., arXiv 2503.13495, 2025", needs=ATTENTION)
def last_attention(question: Question, chunk: Chunk) -> Tensor:
    """Class token's row of the last layer's attention, averaged over heads, as TransECG's authors read it.

    A patch's weight is shared evenly by its samples.
    """
    model = question.contrast.model
    lengths = torch.tensor([end - start for start, end in model.patch_bounds], device=model.device)
    with torch.no_grad():
        weights = model.attention_maps(chunk.x)[-1].mean(dim=1)[:, 0, 1:]
    return (weights / lengths).repeat_interleave(lengths, dim=1).unsqueeze(1)


@_method("control", control=True)
def magnitude(_: Question, chunk: Chunk) -> Tensor:
    """Absolute value of the window: looks like knowledge of the QRS, and is none."""
    return chunk.x.abs()


@_method("control", control=True)
def uniform(_: Question, chunk: Chunk) -> Tensor:
    """Every sample weighs the same: a wave gets its share of time."""
    return torch.ones_like(chunk.x)


@_method("control", *BASELINES, control=True)
def deviation(_: Question, chunk: Chunk) -> Tensor:
    """Distance from the baseline: what is unusual about the window, whether it matters or not."""
    return (chunk.x - chunk.baseline).abs()


@_method("control", *BASELINES, by_factor=True, control=True)
def factor_deviation(question: Question, exchange: Exchange) -> np.ndarray:
    """Size of the change that exchanging each factor alone makes in the signal."""
    found, own = np.zeros((len(question.windows), len(FACTORS))), exchange.at(np.zeros(len(FACTORS)))[0]
    for factor in exchange.factors:
        found[:, factor] = np.abs(exchange.at(np.eye(len(FACTORS))[factor])[0] - own).sum(axis=(1, 2))
    return found


PAIRS = tuple((method, baseline) for method in METHODS.values() for baseline in method.baselines)
"""Every method with everything that it compares with."""
Key = tuple[str, str, str]
"""Method, baseline, and who is asked: "" is the network, the other its untrained twin."""


def controls_of(method: Method, baseline: str) -> tuple[Key, ...]:
    """List what a method must beat: deviation from the same baseline, magnitude, and the untrained network."""
    if method.control:
        return ()
    distance = factor_deviation if method.by_factor else deviation
    own = baseline if baseline in BASELINES else OWN_TIMING
    return (distance.__name__, own, ""), (magnitude.__name__, NONE, ""), (method.name, baseline, UNTRAINED)


def not_applicable(method: Method, model: SignalModel) -> str | None:
    """Say in one sentence why a method does not apply to a network; None where it does."""
    if method.needs in _OWNED and not hasattr(model, _OWNED[method.needs]):
        return f"{method.name} needs {method.needs}, which {model.name} does not have"
    without = sorted({type(module).__name__ for module in model.modules() if isinstance(module, _WITHOUT_RULE)})
    if method.needs == RULES and without:
        return f"{method.name} has no rule for {' and '.join(without)}, of which {model.name} is built"
    return None


def attribute(method: Method, baseline: str, question: Question) -> np.ndarray:
    """Explain windows; the network and the global random states are left as they are.

    Of a method by sample float32, shape (n, n_samples), summed over leads; by factor the loss with each of
    :data:`FACTORS`, (n, n_factors). ``StudyError`` where the method does not apply to the network.
    """
    if reason := not_applicable(method, question.model):
        raise StudyError(f"{reason}; choose another method or another model.")
    if method.by_factor:
        return method.run(question, question.windows.exchanges[baseline])
    asked = replace(question)  # its contrast is a copy of its own: where Captum fails, hooks stay on it
    parts = [method.run(asked, chunk).detach().sum(dim=1).cpu().numpy() for chunk in asked.chunks(baseline)]
    return np.concatenate(parts, dtype=np.float32)


def by_wave(attribution: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Share of each window's relevance in each of :data:`FACTORS` (0 in intervals), NaN without any relevance.

    Samples whose wave is not known do not count.
    """
    relevance = np.abs(attribution.astype(np.float64))
    found = np.zeros((len(codes), len(FACTORS)))
    for wave in range(len(WAVES)):
        found[:, wave] = np.where(codes == wave, relevance, 0).sum(axis=1)
    return ratio(found, found.sum(axis=1, keepdims=True))


def fresh(question: Question) -> Question:
    """Ask the same of the same architecture with other random weights."""
    # a stream of its own: the seed alone could be that of the trained network's initial weights
    seed = int(np.random.SeedSequence((question.windows.seed, 1)).generate_state(1)[0])
    model = create_model(question.model.name, seed, **question.model.hparams).eval()
    return replace(question, model=model.to(question.model.device))


def incompleteness(method: Method, baseline: str, question: Question, attribution: np.ndarray) -> float:
    """Median over windows of |sum - change| / |change| of a method that promises completeness.

    The change is the contrast of the window (of its own average beat, by factor) less that of the baseline.
    """
    own = question.windows.samples
    if method.by_factor:
        own = question.windows.exchanges[baseline].at(np.zeros(len(FACTORS)))[0]
    change = question.scores(own) - question.scores(question.compared_with(baseline))
    return float(np.nanmedian(ratio(np.abs(attribution.sum(axis=1, dtype=np.float64) - change), np.abs(change))))


def removed(question: Question, baseline: str) -> np.ndarray:
    """Probability of the true class of each window and of its baseline, less chance, shape (2, n)."""
    rows, chance = np.arange(len(question.windows)), 1 / len(question.model.classes[question.task])
    both = question.windows.samples, question.compared_with(baseline)
    return np.stack([question.probabilities(part)[rows, question.windows.targets] for part in both]) - chance


@dataclass(frozen=True)
class Answers:
    """What methods say about windows.

    `effects`, (n, n_factors) each, are signed losses by factor, or shares of relevance (:func:`by_wave`). `removed` is
    what each baseline removes (:func:`removed`), `incomplete` the relative convergence delta of methods that promise
    completeness, by method and baseline; `refusals` say why a method does not apply.
    """

    effects: dict[Key, np.ndarray] = field(default_factory=dict)
    removed: dict[str, np.ndarray] = field(default_factory=dict)
    incomplete: dict[tuple[str, str], float] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)


def ask(question: Question, pairs: Sequence[tuple[Method, str]] = PAIRS) -> Answers:
    """Ask methods with their baselines; and all but the controls also about a network that has learnt nothing."""
    answers, twin = Answers(), fresh(question)
    for method, baseline in pairs:
        if reason := not_applicable(method, question.model):
            answers.refusals[method.name] = reason
            continue
        for who, asked in ({"": question} if method.control else {"": question, UNTRAINED: twin}).items():
            found = attribute(method, baseline, asked)
            if method.complete and not who:
                answers.incomplete[method.name, baseline] = incompleteness(method, baseline, question, found)
            by_factor = found if method.by_factor else by_wave(found, question.windows.codes)
            answers.effects[method.name, baseline, who] = by_factor
        if baseline != NONE and baseline not in answers.removed:
            answers.removed[baseline] = removed(question, baseline)
    return answers
