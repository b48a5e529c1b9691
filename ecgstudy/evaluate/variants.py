"""Protocols made from another one: with probes cut short."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ecgstudy.evaluate.protocols import RandomWindows
from ecgstudy.evaluate.splits import Protocol, Split

MOST_CUTS = 4


@dataclass(frozen=True)
class Shortened(Protocol):
    """Probes cut into stretches of `seconds`, :data:`MOST_CUTS` of each at most; all else is the `inner` protocol's."""

    inner: Protocol
    seconds: float = RandomWindows.seconds

    @property
    def name(self) -> str:
        """Name of the inner protocol and the seconds."""
        return f"{self.inner.name}_{self.seconds:g}s"

    @property
    def claim(self) -> str:
        """Claim of the inner protocol, from so many seconds."""
        return f"{self.inner.claim}, from {self.seconds:g} s"

    def splits(self, records: pd.DataFrame, fs: float, seed: int) -> list[Split]:
        """One split a fold of the inner protocol: attackers are trained on the same, and are the same."""
        length = round(self.seconds * fs)
        inner = self.inner.splits(records, fs, seed)
        return [replace(split, protocol=self.name, probe=cut(split.probe, length, MOST_CUTS)) for split in inner]


def cut(segments: pd.DataFrame, length: int, most: int) -> pd.DataFrame:
    """Cut segments into stretches of `length` samples, `most` of each at most and evenly spread; shorter ones stay."""
    whole = ((segments["stop"] - segments["start"]) // length).clip(lower=1)
    kept = whole.clip(upper=most)
    rows = segments.loc[segments.index.repeat(kept)]
    spread = ((whole - 1) / (kept - 1).clip(lower=1)).loc[rows.index]
    start = rows["start"] + np.rint(rows.groupby(level=0).cumcount() * spread).astype("int64") * length
    return rows.assign(start=start, stop=np.minimum(start + length, rows["stop"])).reset_index(drop=True)
