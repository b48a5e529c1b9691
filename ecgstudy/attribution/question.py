"""What an attribution method is asked, and the chunks in which it answers, so that memory stays flat."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ecgstudy.learn.base import SignalModel, TaskLogits


@dataclass(frozen=True)
class Question:
    """Windows of which it is asked which samples speak for a class.

    Attributes
    ----------
    model : SignalModel
        The network; it is only read (:func:`frozen_logits`).
    task : str
        One of its tasks.
    windows : numpy.ndarray
        float32, shape (n, n_leads, n_samples), as the network reads them (standardised).
    targets : numpy.ndarray
        int64, shape (n,): the class whose logit is explained, for each window.
    waves : numpy.ndarray or None
        int8, shape (n, n_samples): the wave of each sample, -1 where unknown; read by ``wave_ablation`` only.
    seed : int
        Seed of methods that draw random numbers.
    mean_beats : numpy.ndarray or None
        Shape of `windows`: the same beats in time with everybody's average waves in place of the person's
        (:func:`ecgstudy.attribution.faithfulness.infills`); read by methods that compare with them only.
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
        if self.windows.ndim != 3 or self.targets.shape != (len(self.windows),):
            raise ValueError(f"windows of shape {self.windows.shape} with targets of shape {self.targets.shape}")
        expected = (len(self.windows), self.windows.shape[-1])
        if self.waves is not None and self.waves.shape != expected:
            raise ValueError(f"waves of shape {expected} expected, got {self.waves.shape}")
        if self.mean_beats is not None and self.mean_beats.shape != self.windows.shape:
            raise ValueError(f"mean beats of shape {self.windows.shape} expected, got {self.mean_beats.shape}")


def frozen_logits(question: Question) -> TaskLogits:
    """Logits of the question's task from a copy of its network, in evaluation mode and without parameter gradients.

    Captum leaves hooks behind where it fails, and changes modes and flags; on a copy that harms nobody.
    """
    model = copy.deepcopy(question.model).eval().requires_grad_(False)
    return TaskLogits(model, question.task)


def chunks(question: Question) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Rows, windows and targets of each chunk, tensors on the network's device."""
    device = next(question.model.parameters()).device
    for start in range(0, len(question.windows), question.chunk):
        rows = slice(start, start + question.chunk)
        x = torch.tensor(question.windows[rows], dtype=torch.float32, device=device)  # a copy: Captum sets flags on it
        yield rows, x, torch.tensor(question.targets[rows], dtype=torch.int64, device=device)


def by_chunk(question: Question, explain: Callable[[Tensor, Tensor, slice], Tensor]) -> np.ndarray:
    """Explain chunk after chunk and sum over leads.

    Parameters
    ----------
    question : Question
        What is asked.
    explain : callable
        From windows (k, n_leads, n_samples), their targets (k,) and their rows
        to an attribution of shape (k, n_leads or 1, n_samples).

    Returns
    -------
    numpy.ndarray
        float32, shape (n, n_samples).
    """
    answer = np.empty((len(question.windows), question.windows.shape[-1]), dtype=np.float32)
    for rows, x, target in chunks(question):
        answer[rows] = explain(x, target, rows).detach().sum(dim=1).cpu().numpy()
    return answer
