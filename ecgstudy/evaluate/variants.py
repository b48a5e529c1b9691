"""Protocols made from another one: probes cut short, names drawn by lot, more people enrolled."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pandas as pd

from ecgstudy.evaluate.protocols import RandomWindows, WithOthers
from ecgstudy.evaluate.splits import SUBJECT, Protocol, Split, segments

MOST_CUTS = 4
PIECE_S, ALL = 5.0, 10**6
"""Control: all that is learnt from is cut into pieces of so many seconds, each of which gets a name."""


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


@dataclass(frozen=True)
class Permuted(Protocol):
    """Control: pieces of what networks learn from, and with `enrolment` of what enrols, bear names drawn by lot.

    Pieces and not records: whoever permutes the names of people with one record each has only renamed them.
    """

    inner: Protocol
    enrolment: bool
    claim: ClassVar[str] = "nothing: what is left was not learnt from who is who"

    @property
    def name(self) -> str:
        """What is permuted, and the name of the inner protocol."""
        return f"permuted_training{'_and_enrolment' if self.enrolment else ''}.{self.inner.name}"

    def splits(self, records: pd.DataFrame, fs: float, seed: int) -> list[Split]:
        """One split a fold of the inner protocol; everybody keeps as many pieces, of whomever."""
        made = []
        for fold, split in enumerate(self.inner.splits(records, fs, seed)):
            rng, parts = np.random.default_rng([seed, fold]), {}
            for part in ("train", "validation", "enrolment")[: 3 if self.enrolment else 2]:
                pieces = cut(getattr(split, part), round(PIECE_S * fs), ALL)
                parts[part] = pieces.assign(**{SUBJECT: rng.permutation(pieces[SUBJECT])})
            made.append(replace(split, protocol=self.name, **parts))
        return made


@dataclass(frozen=True)
class LargeGallery(WithOthers):
    """Everybody of the inner protocol is enrolled, and the others too: who probes is sought among many more."""

    claim: ClassVar[str] = "a person is recognised among many, most of whom are of other cohorts"

    @property
    def name(self) -> str:
        """Name of the inner protocol and ``_large_gallery``."""
        return f"{self.inner.name}_large_gallery"

    def splits(self, records: pd.DataFrame, fs: float, seed: int) -> list[Split]:
        """One split a fold of the inner protocol; networks learn from the same."""
        splits, more = self.inner.splits(records, fs, seed), segments(self.others)
        enrolments = [pd.concat([split.enrolment, more], ignore_index=True) for split in splits]
        both = zip(splits, enrolments, strict=True)
        return [replace(split, protocol=self.name, enrolment=enrolment) for split, enrolment in both]


@dataclass(frozen=True)
class Pooled(WithOthers):
    """The inner protocol among the others alone, people of several cohorts together; number `draw`."""

    draw: int
    claim: ClassVar[str] = "a person is recognised among people of several cohorts (leaky, and their devices differ)"
    leaky: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """Name of the inner protocol and the number of the draw."""
        return f"pooled_{self.inner.name}_{self.draw}"

    def splits(self, records: pd.DataFrame, fs: float, seed: int) -> list[Split]:
        """One split a fold of the inner protocol; `records`, of the cohort that the job names, are not looked at."""
        return [replace(split, protocol=self.name) for split in self.inner.splits(self.others, fs, seed)]


def cut(stretches: pd.DataFrame, length: int, most: int) -> pd.DataFrame:
    """Cut stretches into pieces of `length` samples, `most` of each at most and evenly spread; shorter ones stay."""
    whole = ((stretches["stop"] - stretches["start"]) // length).clip(lower=1)
    kept = whole.clip(upper=most)
    rows = stretches.loc[stretches.index.repeat(kept)]
    spread = ((whole - 1) / (kept - 1).clip(lower=1)).loc[rows.index]
    start = rows["start"] + np.rint(rows.groupby(level=0).cumcount() * spread).astype("int64") * length
    return rows.assign(start=start, stop=np.minimum(start + length, rows["stop"])).reset_index(drop=True)
