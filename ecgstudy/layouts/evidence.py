"""Which leads and waves speak for a diagnosis: each is replaced by that of the mean training record.

Of the methods that the audits of stage 04 tried, replacement of waves is one of the two that found planted evidence,
followed the trained weights and agreed with what was changed in the signal. Attention was not trusted.
"""

import numpy as np
import torch

from ecgstudy.data.base import STANDARD_LEADS
from ecgstudy.layouts.beats import BEFORE, CONSTANTS, DEVIATIONS, POINTS
from ecgstudy.layouts.models import log_odds
from ecgstudy.learn.base import SignalModel

WAVES = {"P": slice(0, BEFORE - 6), "QRS": slice(BEFORE - 6, BEFORE + 10), "ST-T": slice(BEFORE + 10, POINTS)}
"""Parts of a beat, around an R peak at BEFORE, in samples."""
RHYTHM = "rhythm"
PIECES = [*((lead, wave) for lead in STANDARD_LEADS for wave in WAVES), (RHYTHM, RHYTHM)]
"""Lead and wave of each piece of evidence; the last one is the rhythm."""


def replaced(model: SignalModel, inputs: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """By how much the log odds of each task fall when a piece is that of the `usual` record instead.

    Parameters
    ----------
    inputs, usual : numpy.ndarray
        Beats as :func:`ecgstudy.layouts.beats.beats` gives them, (n, N_ROWS, POINTS), and of the mean record.

    Returns
    -------
    numpy.ndarray
        float32 (n, len(PIECES), n_tasks), in the order of :data:`PIECES`.
    """
    whole, falls = _read(model, inputs), []
    for lead, wave in PIECES:
        changed = inputs.copy()
        if lead == RHYTHM:
            changed[:, CONSTANTS] = usual[CONSTANTS]
        else:
            at = STANDARD_LEADS.index(lead)
            for row in (at, DEVIATIONS.start + at):
                changed[:, row, WAVES[wave]] = usual[row, WAVES[wave]]
        falls.append(whole - _read(model, changed))
    return np.stack(falls, axis=1)


def _read(model: SignalModel, inputs: np.ndarray) -> np.ndarray:
    return log_odds(model, torch.from_numpy(np.ascontiguousarray(inputs, dtype=np.float32))).numpy()
