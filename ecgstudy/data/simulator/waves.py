"""The heart dipole: every wave of every beat, drawn between its onset and its offset."""

import numpy as np

from ecgstudy.data.simulator.rhythm import Timing
from ecgstudy.data.simulator.templates import COMPONENT_WAVE, SUPPORT, WAVES

_FLOOR = np.float32(np.exp(-(SUPPORT**2) / 2))


def bump(position: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Gaussian that is exactly 0 outside its edges.

    Parameters
    ----------
    position : numpy.ndarray
        Place in the wave, 0 at its onset and 1 at its offset.
    edges : numpy.ndarray
        Start and end of the component in the same measure, last axis of length
        2, broadcast against `position`.

    Returns
    -------
    numpy.ndarray
        ``(exp(-z^2/2) - exp(-k^2/2)) / (1 - exp(-k^2/2))`` for ``|z| < k``, else
        0, with z in standard deviations from the centre and k = `SUPPORT`. The
        shift makes the Gaussian continuous at its edges, so that the onset and
        offset given as truth are the exact ends of the wave.
    """
    start, end = edges[..., 0], edges[..., 1]
    z = (position - (start + end) / 2) * (2 * SUPPORT / (end - start))
    shifted = np.exp(np.float32(-0.5) * z * z) - _FLOOR
    return np.maximum(shifted, 0) / (1 - _FLOOR)


def _draw_wave(
    dipole: np.ndarray, onset: np.ndarray, duration: np.ndarray, edges: np.ndarray, vectors: np.ndarray, fs: float
) -> None:
    """Add one wave of all beats to `dipole`, shape (3, n, n_samples); arrays as in :func:`draw_dipole`."""
    n, n_samples = dipole.shape[1:]
    first = np.where(np.isnan(onset), n_samples, np.ceil(onset * fs)).astype(np.int64)
    window = np.arange(int(np.ceil(np.nanmax(duration) * fs)) + 1)
    sample = first[..., None] + window
    position = ((sample / fs - onset[..., None]) / duration[..., None]).astype(np.float32)
    # An absent wave starts after the last sample, so nothing of it is inside.
    inside = (sample >= 0) & (sample < n_samples) & (position <= 1)
    record, beat, column = np.nonzero(inside)
    value = bump(position[record, beat, column][:, None], edges[record])
    moment = np.einsum("sc,scx->xs", value, vectors[record])
    # Successive waves may overlap at high rates, hence a summing scatter, not an assignment.
    target = record * n_samples + sample[record, beat, column]
    for axis in range(3):
        dipole[axis] += np.bincount(target, weights=moment[axis], minlength=n * n_samples).reshape(n, n_samples)


def draw_dipole(timing: Timing, edges: np.ndarray, vectors: np.ndarray, fs: float, n_samples: int) -> np.ndarray:
    """Draw the heart dipole of a batch of records.

    Parameters
    ----------
    timing : Timing
        Onset and duration of every wave of every beat, in seconds.
    edges : numpy.ndarray
        Start and end of every component in its wave, shape (n, n_components, 2).
    vectors : numpy.ndarray
        Dipole at the peak of every component in mV, shape (n, n_components, 3).
    fs : float
        Sampling rate in Hz.
    n_samples : int
        Samples per record.

    Returns
    -------
    numpy.ndarray
        float32, shape (n, 3, n_samples), mV along x, y, z.
    """
    n = len(edges)
    dipole = np.zeros((3, n, n_samples), dtype=np.float32)
    edges, vectors = edges.astype(np.float32), vectors.astype(np.float32)
    for index, wave in enumerate(WAVES):
        members = np.flatnonzero(wave == COMPONENT_WAVE)
        onset, duration = timing.onset[..., index], timing.duration[..., index]
        if not np.isnan(onset).all():
            _draw_wave(dipole, onset, duration, edges[:, members], vectors[:, members], fs)
    return dipole.transpose(1, 0, 2)
