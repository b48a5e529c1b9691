"""Attacks on a release: who is it, by attackers of every tier, each of them an ordinary attacker of the study.

The tiers are those of the VoicePrivacy challenges (2024: arXiv 2404.02677): what an attacker has learnt from, and
whether the gallery is protected like the probe.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import Ridge

from ecgstudy.deidentification.cycles import RHYTHM, rhythm_features
from ecgstudy.errors import StudyError
from ecgstudy.evaluate.protocols import CrossCohort
from ecgstudy.evaluate.splits import SUBJECT, Split
from ecgstudy.experiment.attackers import Attacker, Embedded, Fitted, attackers_of
from ecgstudy.experiment.dataset import Dataset, View
from ecgstudy.experiment.jobs import Context, Job
from ecgstudy.learn.classical import unit_rows
from ecgstudy.signals.store import RecordStore
from ecgstudy.study.cache import cache_key
from ecgstudy.study.config import effort

REFERENCE, IGNORANT = "reference", "ignorant"
LAZY, SEMI, INVERSION = "lazy_informed", "semi_informed", "informed_inversion"
TIERS: dict[str, frozenset[str]] = {
    REFERENCE: frozenset(),
    IGNORANT: frozenset({"probe"}),
    LAZY: frozenset({"enrolment", "probe"}),
    SEMI: frozenset({"train", "held", "enrolment", "probe"}),
    INVERSION: frozenset({"held", "probe"}),
}
"""Parts of a split that are protected, by tier; those `held` are the probes among the attackers' own people. The
inversion is learnt from pairs of raw and protected records."""
ADAPTIVE = "adaptive"
"""Tier of rows about the strongest of all who know of the protection: lazy, semi-informed or inverting."""
NETWORKS = ("beatnet", "resnet1d")
RHYTHM_ATTACKER, INVERSION_ATTACKER = "rhythm", "inversion"
_RHYTHM_RANGES = np.array([[0.4, 1.4], [0.0, 0.2], [0.0, 0.2], [0.0, 0.15]])
_RHYTHM_WEIGHTS = np.array([1.0, 0.3, 0.3, 0.1])
_MOST_PAIRS = 2000


@dataclass(frozen=True)
class ReleaseView(View):
    """Records as a release holds them, in the `parts` of a split that a tier protects.

    `folders` are the released stores by cohort; a record that the release lost is not there.
    """

    folders: tuple[tuple[str, Path], ...] = ()
    parts: frozenset[str] = frozenset()

    def of(self, dataset: Dataset) -> Dataset:
        """Read the release in place of the records; where there is none, the records."""
        if not self.folders:
            return dataset
        released = _released(self.folders)
        other = Dataset(released, dataset.lead_read)
        other.view = self
        return other


@lru_cache(maxsize=4)
def _released(folders: tuple[tuple[str, Path], ...]) -> dict[str, RecordStore]:
    """Open the stores of a release, once."""
    return {name: RecordStore(folder) for name, folder in folders}


@dataclass(frozen=True)
class AttackJob(Job):
    """An attacker of one tier on one release (`view` names its protection, "raw" none)."""

    tier: str = REFERENCE
    folders: tuple[tuple[str, Path], ...] = field(default=(), repr=False)

    @property
    def name(self) -> str:
        """Name for files and logs."""
        return ".".join((self.cohort, self.protocol.name, self.attacker, self.view, self.tier, str(self.seed)))

    def transform(self) -> View:
        """View of the parts that the tier protects."""
        return ReleaseView(self.folders, TIERS[self.tier])

    def about(self) -> dict[str, object]:
        """First columns of a row about this job."""
        return super().about() | {"tier": self.tier}

    def made_from(self, context: Context) -> dict[str, object]:
        """With the stores of the release, whose names hold their keys."""
        return super().made_from(context) | {"release": [(name, folder.name) for name, folder in self.folders]}


@dataclass(frozen=True)
class Strangers(CrossCohort):
    """Attackers learn from some people, the `others`; some of the cohort's persons, the `victims`, are on trial."""

    victims: frozenset[str] = field(default=frozenset(), repr=False)

    @property
    def name(self) -> str:
        """Name of the inner protocol: everybody on trial is a stranger in this stage."""
        return self.inner.name

    @cached_property
    def digest(self) -> str:
        """With the victims."""
        return cache_key(others=super().digest, victims=sorted(self.victims))

    def splits(self, records: pd.DataFrame, fs: float, seed: int) -> list[Split]:
        """Split the victims' records."""
        mine = records[records[SUBJECT].isin(self.victims)].reset_index(drop=True)
        if mine[SUBJECT].nunique() < 2:
            raise StudyError("fewer than two persons are left whom neither protector nor attackers have learnt from")
        return super().splits(mine, fs, seed)


@dataclass(frozen=True)
class RhythmAttacker(Attacker, Fitted):
    """Nothing but R peaks: the floor of every release that keeps them."""

    def fit(self, context: Context, job: Job, split: Split) -> Fitted:
        """Do nothing."""
        return self

    def embed(self, dataset: Dataset, segments: pd.DataFrame) -> Embedded:
        """Embed rate and variability as angles: the cosine falls with the difference."""
        found = np.full((len(segments), len(RHYTHM)), np.nan)
        for row, pieces in dataset.pieces(segments).groupby("row"):
            longest = pieces.loc[(pieces["stop"] - pieces["start"]).idxmax()]
            peaks = dataset.peaks(longest["record_id"], longest["start"], longest["stop"])
            found[row] = rhythm_features(np.sort(peaks) / dataset.fs)
        low, high = _RHYTHM_RANGES.T
        angles = np.pi * np.clip((found - low) / (high - low), 0, 1)
        weights = np.sqrt(_RHYTHM_WEIGHTS / _RHYTHM_WEIGHTS.sum())
        return Embedded(np.hstack([weights * np.cos(angles), weights * np.sin(angles)]))


@dataclass(frozen=True)
class InversionAttacker(Attacker, Fitted):
    """Learns to undo the protection on its own people's beats (ridge regression), then compares with raw ones."""

    strength: float = 10.0
    regression: Ridge | None = field(default=None, repr=False)

    def fit(self, context: Context, job: Job, split: Split) -> Fitted:
        """Learn from pairs of average beats, protected and raw."""
        known = split.train.iloc[:_MOST_PAIRS].reset_index(drop=True)
        pairs = [_average_beats(dataset, known) for dataset in (job.transform().of(context.dataset), context.dataset)]
        whole = np.isfinite(pairs[0]).all(axis=1) & np.isfinite(pairs[1]).all(axis=1)
        if whole.sum() < 2:
            raise StudyError("fewer than two records show a beat both raw and protected")
        return replace(self, regression=Ridge(self.strength).fit(*(pair[whole] for pair in pairs)))

    def embed(self, dataset: Dataset, segments: pd.DataFrame) -> Embedded:
        """Embed raw segments as their average beat, protected ones as what the regression makes of theirs."""
        beats = _average_beats(dataset, segments)
        whole = np.isfinite(beats).all(axis=1)
        if isinstance(dataset.view, ReleaseView) and whole.any():
            beats[whole] = self.regression.predict(beats[whole])
        beats[whole] = unit_rows(beats[whole] - beats[whole].mean(axis=1, keepdims=True))
        return Embedded(beats)


def _average_beats(dataset: Dataset, segments: pd.DataFrame) -> np.ndarray:
    """Mean beat of each segment, standardised, NaN where it has none, shape (n, n_samples)."""
    beats, owners = dataset.averaged_beats(segments)
    sums, counts = np.zeros((len(segments), beats.shape[1])), np.bincount(owners, minlength=len(segments))[:, None]
    np.add.at(sums, owners, beats)
    means = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    centred = means - means.mean(axis=1, keepdims=True)
    return centred / np.maximum(centred.std(axis=1, keepdims=True), 1e-9)


def attackers(profile: str, lead: str = "I") -> dict[str, Attacker]:
    """Attackers of the stage: networks of stage 02 that read one lead, templates, rhythm alone, and the inversion.

    The demo trains one network only.
    """
    known = attackers_of(profile)
    networks = {name: known[name] for name in (NETWORKS[:1] if effort(profile) == "demo" else NETWORKS)}
    chosen = {
        name: replace(each, recipe=replace(each.recipe, auxiliary_leads=(lead,))) for name, each in networks.items()
    }
    chosen |= {"template": known["template"], RHYTHM_ATTACKER: RhythmAttacker()}
    return chosen | {INVERSION_ATTACKER: InversionAttacker()}


def tiers_of(attacker: str) -> tuple[str, ...]:
    """Tiers that an attacker can be of: what learns nothing has no semi-informed form of its own but counts as one."""
    if attacker == INVERSION_ATTACKER:
        return (INVERSION,)
    return (IGNORANT, LAZY, SEMI) if attacker in NETWORKS else (IGNORANT, SEMI)
