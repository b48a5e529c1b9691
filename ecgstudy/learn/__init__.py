"""Models of the study: one file per paper's model, one vocabulary, one registry.

Networks (:data:`MODELS`) share the contract of :mod:`ecgstudy.learn.base`.
The training-free attacker (:mod:`ecgstudy.learn.template`) and the
transparent model (:mod:`ecgstudy.learn.features_gbm`) read beats and features
instead of windows, and offer embeddings that the same scoring reads.
"""

from typing import Any

import torch
from pytorch_lightning.utilities.seed import isolate_rng

from ecgstudy.errors import StudyError
from ecgstudy.learn.base import SignalModel
from ecgstudy.learn.beatnet import BeatNet
from ecgstudy.learn.dt4ecg import DT4ECG
from ecgstudy.learn.resnet1d import ResNet1d
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
        Arguments of the model's constructor, JSON values only.

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
