"""From windows to scores: embeddings, their pooling into records, cosine scores and score normalisation.

Every attacker (network, features, template) gives embeddings; what follows is
the same for all of them. An embedding that is undefined is NaN, and so are its scores.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ecgstudy.learn.base import SignalModel


def embed_windows(model: SignalModel, windows: np.ndarray, batch_size: int = 256) -> np.ndarray:
    """Embed windows with a network in evaluation mode.

    Parameters
    ----------
    model : SignalModel
        The network; its mode is put back afterwards.
    windows : numpy.ndarray
        float32, shape (n, n_leads, n_samples).
    batch_size : int
        Windows at a time.

    Returns
    -------
    numpy.ndarray
        float32, shape (n, embedding_dim), rows of unit length.
    """
    return _in_batches(model, model.embed, windows, batch_size)


def class_probabilities(
    model: SignalModel, windows: np.ndarray, task: str, classes: Sequence[str] | None = None, batch_size: int = 256
) -> np.ndarray:
    """Probability of each class of `task`, shape (n, n_classes); parameters as in :func:`embed_windows`.

    A caller who takes the columns for `classes` says so: other names, or another order, are refused.
    """
    if classes is not None:
        model.check_classes(task, classes)
    return _in_batches(model, lambda x: model(x)[task].softmax(dim=1), windows, batch_size)


def _in_batches(
    model: SignalModel, function: Callable[[Tensor], Tensor], windows: np.ndarray, batch_size: int
) -> np.ndarray:
    """Apply a function of the model to windows, batch by batch, without gradients."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            parts = [
                function(torch.from_numpy(np.ascontiguousarray(windows[start : start + batch_size])).to(model.device))
                for start in range(0, len(windows), batch_size)
            ]
            return torch.cat(parts).cpu().numpy()
    finally:
        model.train(was_training)


def pool(embeddings: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average the embeddings of each record (or person) and bring the mean back to unit length.

    Parameters
    ----------
    embeddings : numpy.ndarray
        Shape (n, d); NaN rows are undefined and left out of the mean.
    groups : numpy.ndarray
        Record or person of each row, shape (n,).

    Returns
    -------
    names : numpy.ndarray
        Distinct groups in order of first appearance, shape (m,).
    pooled : numpy.ndarray
        Shape (m, d); NaN for a group without a defined embedding.
    """
    codes, names = pd.factorize(groups)
    sums, counts = np.zeros((len(names), embeddings.shape[1])), np.zeros(len(names))
    defined = np.isfinite(embeddings).all(axis=1)
    np.add.at(sums, codes[defined], embeddings[defined])
    np.add.at(counts, codes[defined], 1)
    sums[counts == 0] = np.nan
    return names, unit_rows(sums).astype(embeddings.dtype)


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Bring rows to unit length; a row of zeros has no direction and becomes NaN."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.full_like(vectors, np.nan), where=length > 0)


def score_matrix(probe: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Cosine between every probe and every gallery embedding.

    Parameters
    ----------
    probe, gallery : numpy.ndarray
        Embeddings with rows of unit length, shapes (n_probe, d) and (n_gallery, d).

    Returns
    -------
    numpy.ndarray
        Shape (n_probe, n_gallery), higher = more similar; NaN where an embedding is.
    """
    return probe @ gallery.T


def adaptive_s_norm(probe: np.ndarray, gallery: np.ndarray, cohort: np.ndarray, n_top: int = 20) -> np.ndarray:
    """Cosine scores normalised by how each side scores against people who are not on trial.

    Symmetric normalisation with an adaptive cohort (AS-norm1 of Matejka et al.,
    "Analysis of Score Normalization in Multilingual Speaker Recognition",
    Interspeech 2017): with mean and standard deviation over the `n_top` highest
    cohort scores of the gallery entry g and of the probe p, the score becomes
    ``((s - mean_g) / sd_g + (s - mean_p) / sd_p) / 2``.

    Parameters
    ----------
    probe, gallery : numpy.ndarray
        As in :func:`score_matrix`.
    cohort : numpy.ndarray
        Embeddings of TRAINING persons, one row a person, shape (n_cohort, d).
    n_top : int
        Size of the adaptive cohort; all of `cohort` where that is smaller.

    Returns
    -------
    numpy.ndarray
        Shape (n_probe, n_gallery).

    Raises
    ------
    ValueError
        The cohort has fewer than two persons, or `n_top` is below 2.
    """
    if min(len(cohort), n_top) < 2:
        raise ValueError(f"a cohort of two persons or more is needed, not {len(cohort)} (n_top {n_top})")
    scores = score_matrix(probe, gallery)
    probe_mean, probe_sd = _top_moments(score_matrix(probe, cohort), n_top)
    gallery_mean, gallery_sd = _top_moments(score_matrix(gallery, cohort), n_top)
    of_probe = (scores - probe_mean[:, None]) / probe_sd[:, None]
    of_gallery = (scores - gallery_mean[None, :]) / gallery_sd[None, :]
    return (of_probe + of_gallery) / 2


def _top_moments(scores: np.ndarray, n_top: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each row's `n_top` highest scores."""
    n_top = min(n_top, scores.shape[1])
    top = np.partition(scores, -n_top, axis=1)[:, -n_top:]
    return top.mean(axis=1), top.std(axis=1)
