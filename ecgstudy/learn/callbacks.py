"""What happens between the epochs of a run: repeatable seeds, a history, and the verification error."""

import logging
import time
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch

from ecgstudy.errors import StudyError
from ecgstudy.evaluate.levels import ScoreLevels
from ecgstudy.evaluate.verification import eer
from ecgstudy.learn.base import SignalModel
from ecgstudy.learn.batches import WindowSet
from ecgstudy.learn.scoring import embed_windows, score_matrix

_LOG = logging.getLogger("ecgstudy.learn.train")


class SeedEachEpoch(pl.Callback):
    """Seed torch from the run's seed and the epoch's number, so that a resumed run repeats the same dropout.

    Parameters
    ----------
    seed : int
        Seed of the run.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Seed the epoch."""
        # the third number keeps this stream apart from that of the batches
        state = np.random.SeedSequence((self._seed, trainer.current_epoch, 1)).generate_state(1)
        torch.manual_seed(int(state[0]))


class History(pl.Callback):
    """Keeps every epoch's metrics, also over an interruption, and logs one plain line an epoch.

    The lines go to the logger ``ecgstudy.learn.train`` at level INFO. Lightning's
    own CSV logger deletes the earlier epochs of a resumed run.
    """

    def __init__(self) -> None:
        self._rows: list[dict[str, float]] = []
        self._started = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Rows so far, kept in the checkpoint."""
        return {"rows": self._rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue after the rows of a checkpoint."""
        self._rows = list(state_dict["rows"])

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep and log the epoch's metrics."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self._rows.append({"epoch": trainer.current_epoch, **metrics})
        values = " ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        seconds = time.perf_counter() - self._started
        _LOG.info("epoch %d/%d %s (%.1f s)", trainer.current_epoch + 1, trainer.max_epochs, values, seconds)

    def table(self) -> pd.DataFrame:
        """One row an epoch: epoch (from 0), train_loss, and the validation metrics."""
        return pd.DataFrame(self._rows)


class VerificationError(pl.Callback):
    """Logs ``val_eer``: EER of window pairs from different records of the validation persons.

    It needs no person of the validation set to be a training class, so it can
    choose the epoch where people of training and evaluation are disjoint.

    Parameters
    ----------
    validation : WindowSet
        Validation windows.

    Raises
    ------
    StudyError
        No validation person has windows of two records, or there is one person only.
    """

    def __init__(self, validation: WindowSet) -> None:
        self._windows = validation.samples
        one, other = np.triu_indices(len(validation), k=1)
        between_records = validation.records[one] != validation.records[other]
        self._one, self._other = one[between_records], other[between_records]
        self._genuine = validation.subjects[self._one] == validation.subjects[self._other]
        if self._genuine.all() or not self._genuine.any():
            raise StudyError(
                "The EER cannot choose an epoch here: two validation persons or more, one of them with two records, "
                "are needed; monitor val_loss instead."
            )

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Embed the validation windows and log the EER."""
        assert isinstance(pl_module, SignalModel)
        embeddings = embed_windows(pl_module, self._windows)
        scores = score_matrix(embeddings, embeddings)[self._one, self._other]
        value = eer(ScoreLevels.from_scores(scores[self._genuine], scores[~self._genuine]))
        pl_module.log("val_eer", value)
