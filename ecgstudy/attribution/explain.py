"""Asking attribution methods: one question, one call, one shape of answer.

>>> question = Question(model, "person", windows, targets, waves=None, seed=0)
>>> relevance_of_samples = relevance(METHODS["saliency"], attribute(METHODS["saliency"], question))
"""

from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import nn

from ecgstudy.attribution.methods import METHODS, Method, Needs, Question
from ecgstudy.attribution.waves import MEAN_BEAT, infills
from ecgstudy.errors import StudyError
from ecgstudy.learn.base import SignalModel

_WITHOUT_RULE = (nn.GELU, nn.LayerNorm)  # Captum's DeepLift passes the plain gradient through them and says nothing


@dataclass(frozen=True)
class Windows:
    """Windows of people whose waves are known, as networks read them.

    `samples` float32 (n, 1, n_samples); `targets` true class of each; `persons` and `records` their names; `starts`
    first sample in the record; `codes` from :func:`ecgstudy.attribution.waves.wave_codes`; `fiducials` tables of the
    fiducial points in samples from the window's start, with those of the beats around it; `seed` that of donors and
    methods.
    """

    samples: np.ndarray
    targets: np.ndarray
    persons: np.ndarray
    records: np.ndarray
    starts: np.ndarray
    codes: np.ndarray
    fiducials: np.ndarray
    fs: float
    seed: int

    def __len__(self) -> int:
        """Count the windows."""
        return len(self.samples)

    def subset(self, chosen: np.ndarray) -> "Windows":
        """Windows chosen by a boolean mask or by positions."""
        arrays = (column.name for column in fields(self) if column.name not in ("fs", "seed"))
        return replace(self, **{name: getattr(self, name)[chosen] for name in arrays})

    @cached_property
    def infills(self) -> dict[str, np.ndarray]:
        """The same beats in time, but not the person's: :func:`ecgstudy.attribution.waves.infills`."""
        return infills(self.samples, self.fiducials, self.persons, self.fs, self.seed)

    def question(self, model: SignalModel, task: str) -> Question:
        """Ask a network for the logit of the true class."""
        return Question(model, task, self.samples, self.targets, self.codes, self.seed, self.infills[MEAN_BEAT])


def tables(items: list[pd.DataFrame]) -> np.ndarray:
    """Object array of tables, which numpy would otherwise take apart."""
    found = np.empty(len(items), dtype=object)
    found[:] = items
    return found


def not_applicable(method: Method, model: SignalModel) -> str | None:
    """Say in one sentence why a method does not apply to a network; None where it does."""
    if method.needs is Needs.ATTENTION and not hasattr(model, "attention_maps"):
        return f"{method.name} needs attention weights, which {model.name} does not have"
    if method.needs is Needs.CONVOLUTION and not hasattr(model, "stages"):
        return f"{method.name} needs convolutional stages, which {model.name} does not have"
    without = sorted({type(module).__name__ for module in model.modules() if isinstance(module, _WITHOUT_RULE)})
    if method.needs is Needs.RULES and without:
        return f"{method.name} has no rule for {' and '.join(without)}, of which {model.name} is built"
    return None


def applicable(model: SignalModel) -> list[Method]:
    """Methods that apply to a network."""
    return [method for method in METHODS.values() if not not_applicable(method, model)]


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
    reason = not_applicable(method, question.model)
    if reason is not None:
        raise StudyError(f"{reason}; choose another method or another model.")
    if method.needs is Needs.WAVES and question.waves is None:
        raise StudyError(f"{method.name} needs the wave of each sample; delineate the windows first.")
    if method.needs is Needs.MEAN_BEAT and (question.mean_beats is None or question.waves is None):
        raise StudyError(f"{method.name} needs mean beats and the wave of each sample; delineate the windows first.")
    try:
        with isolate_rng():
            return _undefined_where_zero(method.run(question))
    except Exception:
        vars(question).pop("logits", None)  # Captum's hooks may still be on it
        raise


def relevance(method: Method, attribution: np.ndarray) -> np.ndarray:
    """How much each sample matters, for or against: the magnitude; NaN for a window that is 0 everywhere."""
    if not method.signed and (attribution < 0).any():
        raise ValueError(f"{method.name} is unsigned and has negative values")
    return _undefined_where_zero(np.abs(attribution))


def completeness(method: Method, question: Question, attribution: np.ndarray) -> np.ndarray:
    """Relative convergence delta |sum - change| / |change| of each window, for methods that promise completeness.

    The change is the logit of the window less that of the baseline, which is zero or the mean beat (Sundararajan et
    al., ICML 2017, proposition 1). NaN where the logit does not change.
    """
    if not method.complete:
        raise ValueError(f"{method.name} does not promise completeness")
    change = np.empty(len(question.windows))
    baselines = question.mean_beats if method.needs is Needs.MEAN_BEAT else np.zeros_like(question.windows)
    with torch.no_grad():
        for rows, x, target in question.chunks():
            at_baseline = question.logits(torch.as_tensor(baselines[rows], dtype=torch.float32, device=x.device))
            difference = (question.logits(x) - at_baseline).gather(1, target.unsqueeze(1))
            change[rows] = difference.squeeze(1).double().cpu().numpy()
    delta = np.abs(attribution.sum(axis=1, dtype=np.float64) - change)
    return np.divide(delta, np.abs(change), out=np.full(len(change), np.nan), where=change != 0)


def _undefined_where_zero(values: np.ndarray) -> np.ndarray:
    """Set the rows that are 0 everywhere to NaN."""
    return np.where((values == 0).all(axis=1, keepdims=True), np.float32(np.nan), values)


def answers(question: Question) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Relevance by every method that applies, and the median relative convergence delta where one is promised."""
    found: dict[str, np.ndarray] = {}
    incompleteness: dict[str, float] = {}
    for method in applicable(question.model):
        attribution = attribute(method, question)
        found[method.name] = relevance(method, attribution)
        if method.complete:
            incompleteness[method.name] = float(np.nanmedian(completeness(method, question, attribution)))
    return found, incompleteness
