"""Attackers: whatever turns a split's segments into embeddings, learnt or not; one registry."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from ecgstudy.errors import StudyError
from ecgstudy.evaluate.protocols import CrossCohort
from ecgstudy.evaluate.splits import SUBJECT, Protocol, Split
from ecgstudy.evaluate.variants import Shortened
from ecgstudy.experiment.dataset import Dataset
from ecgstudy.experiment.jobs import MOST_PERSONS, Context, Job
from ecgstudy.experiment.networks import CLASSES, Recipe, auxiliary_records, group_ages, targets, trainable_classes
from ecgstudy.learn.base import SignalModel, class_probabilities, embed_windows
from ecgstudy.learn.batches import standardise
from ecgstudy.learn.classical import FeaturesGbm, template_embeddings, unit_rows
from ecgstudy.signals.preprocess import resample
from ecgstudy.study.config import effort

TEMPLATE_FS = 500.0
"""Hz. Beats are averaged at the rate at which R peaks are known, or their slopes blur."""
AGREEMENT_ROUNDS = 3
AGREEMENT_POWER = 4
COHORT_WINDOW_S, COHORT_BINS = 4.0, 8
"""Seconds of a window whose spectrum tells its cohort, and steps of its spectrum (1/4 Hz) that make a band."""
DEMO_EPOCHS = 5
"""The demo shows that the study runs: its networks stay under-trained."""


@dataclass(frozen=True)
class Embedded:
    """Segments as an attacker sees them.

    `vectors` (n_segments, d) are of unit length, NaN for a segment without a usable window or beat; `probabilities`
    are those of the classes of each task of ``CLASSES`` that was trained, shape (n_segments, n_classes).
    """

    vectors: np.ndarray
    probabilities: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def joined(cls, parts: Sequence["Embedded"]) -> "Embedded":
        """Put segments below each other."""
        shares = {task: np.concatenate([p.probabilities[task] for p in parts]) for task in parts[0].probabilities}
        return cls(np.concatenate([part.vectors for part in parts]), shares)


class Fitted(ABC):
    """An attacker after training."""

    ages: np.ndarray | None = None
    """Mean age of the training persons of each age group, in years."""

    @property
    def before_refit(self) -> "Fitted":
        """The same before it learnt from the validation part, which it alone may be asked about."""
        return self

    @abstractmethod
    def embed(self, dataset: Dataset, segments: pd.DataFrame) -> Embedded:
        """Embed segments of a split, read from `dataset`."""


class Attacker(ABC):
    """What a job fits: registered in :data:`ATTACKERS`, its ``repr`` says how it is trained."""

    seeds: ClassVar[int] = 1
    """Networks that are trained and asked together; one where nothing is random, and of a control."""

    def applies(self, protocol: Protocol) -> bool:
        """Whether the attacker takes part under a protocol."""
        return True

    @abstractmethod
    def fit(self, context: Context, job: Job, split: Split) -> Fitted:
        """Fit on a split's training part."""


@dataclass(frozen=True)
class NetworkAttacker(Attacker):
    """A network with its recipe, trained with the help of the auxiliary cohorts where there are any."""

    recipe: Recipe

    @property
    def seeds(self) -> int:
        """As many as the recipe says."""
        return self.recipe.seeds

    def fit(self, context: Context, job: Job, split: Split) -> "FittedNetwork":
        """Train; for people never seen there is no loss on the validation persons, so the last epoch is kept."""
        ages = group_ages(split.train[SUBJECT].to_numpy(dtype=str), context.people)
        if isinstance(job.protocol, CrossCohort):
            learnt = self.recipe.pretrained(context, job.protocol.others, job.seed)
            if learnt is None:
                raise StudyError("fewer than two persons of the other cohorts have a window to learn from")
            return FittedNetwork(learnt[0], self.recipe, ages)
        own = context.records(job.cohort)
        helpers = pd.DataFrame() if (own["on_trial"] & own["auxiliary"]).any() else auxiliary_records(context)
        if self.recipe.refit and not split.unseen_persons:
            first, model = self.recipe.refitted(context, split.train, split.validation, job.seed, helpers)
            return FittedNetwork(model, self.recipe, ages, first)
        validation = None if split.unseen_persons else split.validation
        model = self.recipe.trained(context, split.train, validation, job.seed, helpers)
        return FittedNetwork(model, self.recipe, ages)


@dataclass(frozen=True)
class FittedNetwork(Fitted):
    """A trained network with the recipe that says what it reads, and the `first` one where it was fitted again."""

    model: SignalModel
    recipe: Recipe
    ages: np.ndarray | None = None
    first: SignalModel | None = None

    @property
    def before_refit(self) -> "FittedNetwork":
        """Network that the epoch was chosen of."""
        return self if self.first is None else replace(self, model=self.first)

    def embed(self, dataset: Dataset, segments: pd.DataFrame) -> Embedded:
        """Embed every window and pool the windows of a segment by their agreement."""
        windows, owners = self.recipe.inputs(dataset, segments)
        vectors = embed_windows(self.model, windows)
        probabilities = {
            task: _mean_by_owner(class_probabilities(self.model, windows, task, CLASSES[task]), owners, len(segments))
            for task in self.model.classes
            if task in CLASSES
        }
        return Embedded(agreement_pool(vectors, owners, len(segments)), probabilities)


@dataclass(frozen=True)
class PretrainedAttacker(NetworkAttacker):
    """A network that is registered without others' help too."""

    def applies(self, protocol: Protocol) -> bool:
        """Not across cohorts: both have learnt the same there."""
        return not isinstance(protocol, CrossCohort)


@dataclass(frozen=True)
class UntrainedAttacker(NetworkAttacker):
    """The control: the network with its initial weights."""

    seeds: ClassVar[int] = 1

    def fit(self, context: Context, job: Job, split: Split) -> FittedNetwork:
        """Create the network and leave it as it is."""
        return FittedNetwork(self.recipe.untrained(context, job.seed), self.recipe)


@dataclass(frozen=True)
class TemplateAttacker(Attacker, Fitted):
    """Average beats; nothing is learnt."""

    def fit(self, context: Context, job: Job, split: Split) -> Fitted:
        """Do nothing."""
        return self

    def embed(self, dataset: Dataset, segments: pd.DataFrame) -> Embedded:
        """Embed every segment as the average beat of its longest flawless piece."""
        pieces = dataset.pieces(segments)
        longest = (pieces["stop"] - pieces["start"]).groupby(pieces["row"]).idxmax()
        spans = [(row.record_id, row.start, row.stop) for row in pieces.loc[longest].itertuples()]
        fine = [resample(dataset.segment(*span)[None], dataset.fs, TEMPLATE_FS) for span in spans]
        peaks = [np.rint(dataset.peaks(*span) * TEMPLATE_FS / dataset.fs).astype(np.int64) for span in spans]
        found = template_embeddings(fine, peaks, TEMPLATE_FS)
        vectors = np.full((len(segments), found.shape[1]), np.nan, dtype=found.dtype)
        vectors[longest.index] = found
        return Embedded(vectors)


@dataclass(frozen=True)
class FeaturesAttacker(Attacker):
    """Gradient-boosted trees over PQRST features, one booster for persons and one a demographic task."""

    def applies(self, protocol: Protocol) -> bool:
        """Not across cohorts, since it grows a tree a person and round, nor again where only the probes are other."""
        return not isinstance(protocol, CrossCohort | Shortened)

    def fit(self, context: Context, job: Job, split: Split) -> "FittedFeatures":
        """Train the boosters on the windows of a split's training part; refuses nobody to tell apart, or too many."""
        if (n_persons := split.train[SUBJECT].nunique()) > MOST_PERSONS:
            raise StudyError(f"{FEATURES} grows a tree a person and round; {n_persons:,} persons are too many")
        features, owners = context.dataset.features(split.train)
        persons = split.train[SUBJECT].to_numpy(dtype=str)[owners]
        if np.unique(persons).size < 2:
            raise StudyError("fewer than two persons have a window whose waves could be measured")
        classes = trainable_classes(persons, context.people)
        labels = targets(persons, context.people, classes)
        boosters = {task: FeaturesGbm(job.seed).fit(features, labels[task]) for task in classes}
        return FittedFeatures(boosters, classes["person"], group_ages(persons, context.people))


@dataclass(frozen=True)
class FittedFeatures(Fitted):
    """Trained boosters by task, and the persons in the order of their numbers."""

    boosters: dict[str, FeaturesGbm]
    persons: tuple[str, ...]
    ages: np.ndarray

    def embed(self, dataset: Dataset, segments: pd.DataFrame) -> Embedded:
        """Embed every window and average over the windows of a segment."""
        features, owners = dataset.features(segments)
        vectors, probabilities = self.boosters["person"].embed(features), {}
        for task in (task for task in self.boosters if task in CLASSES):
            # 0 for a class that no training window had
            complete = np.zeros((len(features), len(CLASSES[task])))
            complete[:, self.boosters[task].classes] = self.boosters[task].predict_proba(features)
            probabilities[task] = _mean_by_owner(complete, owners, len(segments))
        return Embedded(agreement_pool(vectors, owners, len(segments)), probabilities)


@dataclass(frozen=True)
class CohortAttacker(Attacker):
    """Control: tells cohorts, with their devices and filters, apart by the spectrum of a few seconds, nobody else."""

    def fit(self, context: Context, job: Job, split: Split) -> "FittedCohorts":
        """Fit on who is enrolled; refuses people of one cohort alone."""
        spectra, owners = _spectra(context.dataset, split.enrolment)
        cohorts = split.enrolment[SUBJECT].str.partition("/")[0].to_numpy()[owners]
        if len(set(cohorts)) < 2:
            raise StudyError("all who are enrolled are of one cohort")
        model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
        return FittedCohorts(model.fit(spectra, cohorts))


@dataclass(frozen=True)
class FittedCohorts(Fitted):
    """A classifier of cohorts; segments are alike as far as they are likely of one."""

    model: Pipeline

    def embed(self, dataset: Dataset, segments: pd.DataFrame) -> Embedded:
        """Embed every segment as the probabilities of the cohorts, averaged over its windows."""
        spectra, owners = _spectra(dataset, segments)
        shares = self.model.predict_proba(spectra) if len(spectra) else np.zeros((0, len(self.model.classes_)))
        return Embedded(unit_rows(_mean_by_owner(shares, owners, len(segments))))


def _spectra(dataset: Dataset, segments: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Log power of windows in bands of 2 Hz, shape (n, n_bands), and the row in `segments` of each."""
    windows, owners = dataset.windows(segments, round(COHORT_WINDOW_S * dataset.fs))
    power = np.abs(np.fft.rfft(standardise(windows)))[:, 1:] ** 2
    bands = power[:, : power.shape[1] // COHORT_BINS * COHORT_BINS].reshape(len(power), -1, COHORT_BINS).mean(axis=2)
    return np.log(bands + 1e-6), owners


TEMPLATE, FEATURES, UNTRAINED, COHORT_ONLY = "template", "features_gbm", "untrained", "cohort_only"
PRETRAINED = "beatcnn_pretrained"
_TRANSECG = Recipe("transecg", pretraining_epochs=30, epochs=40, pretraining_rate=2e-3, learning_rate=2e-3, seeds=1)
_RESNET = Recipe("resnet1d", batch_size=96, auxiliary_leads=("I", "II"), seeds=1)
_LEADS = ("I", "II", "V2", "V5")
_BEATNET = Recipe(
    "beatnet", beats=True, pretraining_epochs=18, epochs=12, batch_size=192, noise=0.1, auxiliary_leads=_LEADS
)
_BEATCNN = Recipe(
    "beatcnn",
    beats=True,
    single=True,
    pretraining_epochs=30,
    epochs=60,
    pretraining_rate=3e-3,
    batch_size=96,
    noise=0.1,
    warp=0.05,
    auxiliary_leads=_LEADS,
    helped=False,
    at_hand=60,
    refit=True,
)
"""After ECGXtractor: small, of single beats, without others' help, but with other beats each epoch."""
NETWORKS = ("transecg", "resnet1d", "beatnet", "beatcnn", PRETRAINED)
ATTACKERS: dict[str, Attacker] = {
    **{recipe.model: NetworkAttacker(recipe) for recipe in (_TRANSECG, _RESNET, _BEATNET, _BEATCNN)},
    PRETRAINED: PretrainedAttacker(replace(_BEATCNN, epochs=20, helped=True)),
    FEATURES: FeaturesAttacker(),
    TEMPLATE: TemplateAttacker(),
    UNTRAINED: UntrainedAttacker(_RESNET),
}
"""Attackers by their name in metrics."""


def attackers_of(profile: str) -> dict[str, Attacker]:
    """Attackers of a profile: the demo and a first look train the same networks for a few epochs."""
    if effort(profile) != "demo":
        return ATTACKERS
    short = {"pretraining_epochs": DEMO_EPOCHS, "epochs": DEMO_EPOCHS}
    return {
        name: replace(attacker, recipe=replace(attacker.recipe, **short)) if name in NETWORKS else attacker
        for name, attacker in ATTACKERS.items()
    }


def agreement_pool(vectors: np.ndarray, owners: np.ndarray, n: int) -> np.ndarray:
    """Mean direction of the windows of each of `n` segments (n, d), where windows that disagree lose their weight.

    Starting from the plain mean, each window is weighted by the fourth power of its cosine with the mean,
    three times: an artefact points elsewhere and drops out. NaN for a segment without a window.
    """
    defined = np.isfinite(vectors).all(axis=1)
    vectors, owners = vectors[defined].astype(np.float64), owners[defined]
    weights = np.ones(len(vectors))
    pooled = np.full((n, vectors.shape[1]), np.nan)
    for _ in range(AGREEMENT_ROUNDS + 1):
        sums = np.zeros((n, vectors.shape[1]))
        np.add.at(sums, owners, vectors * weights[:, None])
        pooled = unit_rows(sums)
        agreement = np.einsum("ij,ij->i", vectors, pooled[owners])
        weights = np.clip(agreement, 0.05, None) ** AGREEMENT_POWER
    return pooled


def _mean_by_owner(values: np.ndarray, owners: np.ndarray, n: int) -> np.ndarray:
    """Mean row of each segment, NaN for a segment without any, shape (n, values.shape[1])."""
    return pd.DataFrame(values, dtype=np.float64).groupby(owners).mean().reindex(range(n)).to_numpy()
