"""Folders of WFDB records that somebody holds: read under pseudonyms wherever they lie, and written without a word."""

import hashlib
import hmac
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ecgstudy.data.base import Signal
from ecgstudy.data.own import FolderCohort, OwnCohort, key_in
from ecgstudy.study.cache import new_file, write_text

FULL_SCALE, NO_GAIN = 32_000, 200.0
"""Largest sample that a lead is scaled to, and the gain of a lead of zeros."""


class HeldCohort(OwnCohort):
    """Records in any folder under pseudonyms that are made with the key in any file; tables name nobody.

    What is wrong with the folder as a whole is told under its name: whoever holds it reads it.
    """

    name = "records"
    how_to_get = "Name a folder of WFDB records (.hea with .dat or .mat)."
    _found, subjects = FolderCohort._found, FolderCohort.subjects

    def __init__(self, root: Path, key: Path) -> None:
        FolderCohort.__init__(self, root)
        self._key_file, self._key = key, key_in(key)

    def __reduce__(self) -> tuple[Callable[..., "HeldCohort"], tuple[Path, Path]]:
        """Travel to another process of the same caller."""
        return type(self), (self.root, self._key_file)

    def secret(self, *about: object) -> int:
        """Seed that nobody can tell who has not got the key: what is drawn from it cannot be taken away again."""
        text = "\0".join(["seed", *map(str, about)])
        return int.from_bytes(hmac.new(self._key, text.encode(), hashlib.sha256).digest()[:16])

    def names(self) -> dict[str, str]:
        """Give the name behind the pseudonym of every record in the folder or its table."""
        written = [self._written_name(path) for path in self._found]
        written += [*self.subjects.rows.index, *self.subjects.problems] if self.subjects else []
        return {self.pseudonym("record", name): name for name in written}


def inside(path: Path, folder: Path) -> bool:
    """Whether a path is a folder or lies in it, also under another spelling."""
    same = folder.exists() and any(part.exists() and part.samefile(folder) for part in (path, *path.parents))
    return same or path.is_relative_to(folder)


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
