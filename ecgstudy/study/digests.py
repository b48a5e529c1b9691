"""Names for what something was made from: content, code and parameters as SHA-256."""

import hashlib
import inspect
import json
from pathlib import Path
from types import ModuleType

import numpy as np

KEY_LENGTH = 12
"""Hex digits of a key that a cache folder's name carries (48 bits)."""


def cache_key(**what_made_it: object) -> str:
    """SHA-256 (hex) over named JSON values, whatever the order of the names.

    Raises
    ------
    TypeError
        A value is not plain JSON, so it has no stable text.
    ValueError
        A value is NaN or infinite.
    """
    text = json.dumps(what_made_it, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def code_digest(*modules: ModuleType) -> str:
    """SHA-256 (hex) over the names and the source of `modules`, in whatever order they are given.

    Raises
    ------
    OSError
        A module's source is not at hand (an interactive session, a compiled extension).
    """
    sources = {module.__name__: inspect.getsource(module) for module in modules}
    return cache_key(**sources)


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes, read in bounded memory."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def waveform_digest(values: np.ndarray) -> str:
    """SHA-256 (hex) of a record's samples: two records share it only where their waveforms are the same.

    Parameters
    ----------
    values : numpy.ndarray
        Shape (n_leads, n_samples), raw samples as the cohort gives them.

    Notes
    -----
    The shape is part of it. Negative zero and the many bit patterns of NaN are
    brought to one form first, so that equal numbers give an equal digest.
    """
    canonical = np.ascontiguousarray(values, dtype="<f4") + np.float32(0)
    canonical[np.isnan(canonical)] = np.nan
    digest = hashlib.sha256(repr(canonical.shape).encode())
    digest.update(canonical)
    return digest.hexdigest()
