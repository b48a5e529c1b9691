"""Folders of WFDB records that somebody holds: read under pseudonyms wherever they lie, and written without a word."""

import hashlib
import hmac
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from ecgstudy.data.base import Signal
from ecgstudy.data.own import FolderCohort, OwnCohort
from ecgstudy.data.pseudonyms import key_in
from ecgstudy.errors import DataNotFoundError, StudyError
from ecgstudy.study.cache import new_file, write_text

FULL_SCALE, NO_GAIN = 32_000, 200.0
"""Largest sample that a lead is scaled to, and the gain of a lead of zeros."""


class HeldCohort(OwnCohort):
    """Records in any folder under pseudonyms that are made with the key in any file; tables name nobody.

    What is wrong with the folder as a whole is told under its name: whoever holds it reads it.
    """

    name = "records"

    def __init__(self, root: Path, key: Path) -> None:
        try:
            self._folder = FolderCohort(root)
        except DataNotFoundError:
            raise StudyError(f"{root} holds no WFDB record (.hea with .dat or .mat), or you may not read it.") from None
        self.root, self._key_file, self._key = self._folder.root, key, key_in(key)

    def __reduce__(self) -> tuple[Callable[..., "HeldCohort"], tuple[Path, Path]]:
        """Travel to another process of the same caller."""
        return type(self), (self.root, self._key_file)

    def secret(self, *about: object) -> int:
        """Seed that nobody can tell who has not got the key: what is drawn from it cannot be taken away again."""
        text = "\0".join(["seed", *map(str, about)])
        return int.from_bytes(hmac.new(self._key, text.encode(), hashlib.sha256).digest()[:16])

    @cached_property
    def _scan(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        self._folder.records()  # what is wrong with a table is told with its folder
        return super()._scan

    def names(self) -> dict[str, str]:
        """Give the name behind the pseudonym of every record in the folder or its table."""
        subjects = self._folder.subjects
        listed = [*subjects.rows.index, *subjects.problems] if subjects else []
        return {self.pseudonym("record", name): name for name in (*self._folder.paths, *listed)}


def write_record(folder: Path, name: str, signal: Signal, comment: str) -> None:
    """Write a WFDB record (format 16, one file), its header last; the gain of each lead makes use of all 16 bits."""
    peaks = np.abs(signal.values).max(axis=1)
    gains = [float(f"{FULL_SCALE / peak:.3g}") if peak else NO_GAIN for peak in peaks.astype(float)]
    samples = np.rint(signal.values * np.array(gains)[:, None]).astype("<i2")
    sums = samples.sum(axis=1, dtype=np.int64) % (1 << 16)
    rate, *written = (np.format_float_positional(number, trim="-") for number in (signal.fs, *gains))
    lines = [f"{name} {len(samples)} {rate} {samples.shape[1]}"]
    for lead, gain, first, total in zip(signal.leads, written, samples[:, 0], sums, strict=True):
        lines.append(f"{name}.dat 16 {gain}(0)/{signal.unit} 16 0 {first} {total} 0 {lead}")
    with new_file(folder / f"{name}.dat") as unfinished:
        np.ascontiguousarray(samples.T).tofile(unfinished)
    write_text(folder / f"{name}.hea", "\n".join([*lines, f"# {comment}"]) + "\n")
