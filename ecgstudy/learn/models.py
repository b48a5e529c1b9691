"""The networks of the study by name."""

from typing import Any

import torch
from pytorch_lightning.utilities.seed import isolate_rng

from ecgstudy.errors import StudyError
from ecgstudy.learn.base import SignalModel
from ecgstudy.learn.dt4ecg import DT4ECG
from ecgstudy.learn.resnet1d import BeatNet, ResNet1d
from ecgstudy.learn.transecg import TransECG

MODELS: dict[str, type[SignalModel]] = {model.name: model for model in (TransECG, ResNet1d, BeatNet, DT4ECG)}
"""Networks by name."""


def create_model(name: str, seed: int, **hyper_parameters: Any) -> SignalModel:  # noqa: ANN401
    """Build a network with initial weights drawn from `seed`; the caller's random state is left alone.

    Parameters
    ----------
    name : str
        A key of :data:`MODELS`.
    seed : int
        Seed of the initial weights.
    **hyper_parameters
        Arguments of :class:`~ecgstudy.learn.base.SignalModel` and sizes of the network, JSON values only.

    Raises
    ------
    StudyError
        No model has that name, or a task has fewer than two classes, or names one twice.
    """
    if name not in MODELS:
        raise StudyError(f"There is no model {name}; choose one of {', '.join(MODELS)}.")
    with isolate_rng():
        torch.manual_seed(seed)
        return MODELS[name](**hyper_parameters)
