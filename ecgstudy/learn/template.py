"""Template matching: the attacker that needs no training, the correlation of average beats.

It is the floor under every learned attacker, and the non-learned attack that a
protected recording has to withstand as well.
"""

from collections.abc import Sequence

import numpy as np

from ecgstudy.learn.scoring import score_matrix, unit_rows
from ecgstudy.signals.features import average_beat


class TemplateMatcher:
    """Embeds a recording as its average beat, so that the cosine of two embeddings is the beats' correlation.

    Parameters
    ----------
    fs : float
        Sampling rate in Hz.
    before_seconds, after_seconds : float
        Part of the beat before the R peak and from it on. The defaults reach
        from before the P wave to behind the T wave at 100 beats a minute.
    """

    name = "template"

    def __init__(self, fs: float, before_seconds: float = 0.25, after_seconds: float = 0.4) -> None:
        self._before = round(before_seconds * fs)
        self._after = round(after_seconds * fs)

    def embed(self, recordings: Sequence[np.ndarray], r_peaks: Sequence[np.ndarray]) -> np.ndarray:
        """Embed recordings (or windows) of the same leads.

        Parameters
        ----------
        recordings : sequence of numpy.ndarray
            Each of shape (n_leads, n_samples); lengths may differ.
        r_peaks : sequence of numpy.ndarray
            Samples of each recording's R peaks.

        Returns
        -------
        numpy.ndarray
            Shape (n, n_leads * beat), rows of unit length whose leads have mean
            0; NaN for a recording without a whole beat or with a constant one.
        """
        beats = np.stack(
            [
                average_beat(values, np.asarray(peaks), self._before, self._after)
                for values, peaks in zip(recordings, r_peaks, strict=True)
            ]
        )
        beats -= beats.mean(axis=-1, keepdims=True)
        return unit_rows(beats.reshape(len(beats), -1))

    def score(self, probe: np.ndarray, gallery: np.ndarray) -> np.ndarray:
        """Correlation of every probe with every gallery average beat, shape (n_probe, n_gallery), from embeddings."""
        return score_matrix(probe, gallery)
