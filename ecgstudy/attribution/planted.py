"""Do methods point to the wave that a network reads? Networks whose answer is known, and the audit on them.

The simulator draws persons who are alike in everything but the P wave, the QRS complex or the T wave
(``SyntheticCohort(identity_wave=...)``). A network that recognises them on records it has not seen can have read
nothing else, so a method that explains it has to point there. How far two such persons differ is chance, so several
cohorts are drawn (:attr:`Size.seeds`, the first so many numbers), and their spread is shown.

Two things that the study does to real records would carry the cue out of its wave and are left out here: the band-pass
filter, which rings, and the standardisation of each window, after which a tall R wave makes the P wave small. Windows
are raw samples less the median and over the standard deviation of ALL training records. Training adds noise only;
random gains would make the other waves a yardstick worth looking at. And since a network may lean on the other waves
without learning anything from them (to find the T wave after a QRS complex), every other wave of a training record is
scaled by a random factor: only the planted wave is of any use. Held-out records are left as they are.

Masses count a margin of :data:`MARGIN_S` on either side of the true wave: an edge is a contrast between the samples
inside and outside of it, so a network may read either. The controls get the same margin. Enrichments, and with them
the ranks of the waves, are those of the study's share tables, without a margin.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.ndimage import binary_dilation
from scipy.stats import rankdata

from ecgstudy.attribution.methods import METHODS, Question, attribute, not_applicable, relevance
from ecgstudy.attribution.shares import NO_RELEVANCE, rank_correlation, shares
from ecgstudy.attribution.waves import MEAN_BEAT, WAVES, Windows, fiducials_of_boundaries, wave_codes
from ecgstudy.data.simulator.people import IDENTITY_WAVES
from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.errors import StudyError
from ecgstudy.evaluate.bootstrap import Resamples, clustered_means, ratio
from ecgstudy.evaluate.results import intervals
from ecgstudy.experiment.jobs import Context, Outcome, run
from ecgstudy.learn.base import PERSON, SignalModel, class_probabilities
from ecgstudy.learn.batches import Augmentation, WindowSet, encode
from ecgstudy.learn.models import create_model
from ecgstudy.learn.train import TrainingSettings, fit
from ecgstudy.study.config import effort

RATES = {"resnet1d": 5e-3, "transecg": 3e-3}
"""Networks and the highest learning rate of each."""
PERMUTED = ("QRS", 0)
"""Planted wave and cohort on which networks are trained again with permuted labels."""
FS = 100.0
SECONDS, RECORD_SECONDS = 4.0, 8.0
LEAD = "II"
"""All three waves are large in it."""
NOISE_MV = 0.01
HIGHEST = 1.5
"""In training records every wave but the planted one is scaled by a random factor from 0 to this."""
MARGIN_S = 0.02
MEASURES = ("mass_in_wave", "enrichment", "pointing", "highest", "rank")


@dataclass(frozen=True)
class Size:
    """How large a planted experiment is: cohorts, their persons, records to train on and to explain, and epochs.

    `hyper_parameters` are arguments of the networks that are not their defaults.
    """

    seeds: int
    persons: int
    records: int
    held_out: int
    epochs: Mapping[str, int]
    hyper_parameters: Mapping[str, dict[str, Any]] = field(default_factory=dict)


SIZES = {
    "demo": Size(2, 4, 60, 4, {"resnet1d": 8, "transecg": 14}, {"transecg": {"n_layers": 2, "dropout": 0.0}}),
    "real": Size(5, 4, 120, 8, {"resnet1d": 15, "transecg": 30}),
}
"""By profile. The demo's Vision Transformer has two blocks instead of four, to learn within seconds."""


@dataclass(frozen=True)
class PlantedJob:
    """One cohort of planted persons, every network on it; `seed` is that of networks and methods."""

    wave: str
    cohort_seed: int
    seed: int

    @property
    def name(self) -> str:
        """Name for files and logs."""
        return f"{self.wave}.{self.cohort_seed}.{self.seed}"

    def about(self) -> dict[str, object]:
        """First columns of a row about this job."""
        return asdict(self)

    def made_from(self, context: Context) -> dict[str, object]:
        """JSON values that an audit depends on, besides code."""
        return {"job": self.name, "size": asdict(SIZES[effort(context.profile)])}


def audit_planted(context: Context, seed: int) -> tuple[dict[str, pd.DataFrame], Outcome]:
    """Audit every method on every planted wave, cohort and network, on all processor cores.

    planted and by_seed: :func:`planted_table` over all cohorts and cohort by cohort (column cohort_seed). permuted:
    model, method, permuted, the rank correlation of explanations with those of the same network trained on permuted
    labels (Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018). And the outcome with the commits.
    """
    seeds = range(SIZES[effort(context.profile)].seeds)
    jobs = [PlantedJob(wave, number, seed) for wave in IDENTITY_WAVES for number in seeds]
    outcome = run(audit_cohort, jobs, context, "planted truth")
    if len(outcome.refusals):
        raise StudyError(outcome.refusals["reason"].iloc[0])
    rows = pd.concat(outcome.values.values(), ignore_index=True)
    by_seed = pd.concat([planted_table(rows[rows["cohort_seed"] == at], seed).assign(cohort_seed=at) for at in seeds])
    tables = {"planted": planted_table(rows, seed), "by_seed": by_seed.reset_index(drop=True)}
    tables = {name: table.drop(columns=["permuted", "permuted_low", "permuted_high"]) for name, table in tables.items()}
    known = (by_seed["wave"] == PERMUTED[0]) & (by_seed["cohort_seed"] == PERMUTED[1])
    return tables | {"permuted": by_seed.loc[known, ["model", "method", "permuted"]]}, outcome


def audit_cohort(context: Context, job: PlantedJob) -> pd.DataFrame:
    """Train every network on persons who differ in one wave, and audit every method on it: :func:`audit_network`."""
    size = SIZES[effort(context.profile)]
    train, windows = plant(job, size)
    tables = []
    for name in RATES:
        model, untaught = train_planted(context, train, name, size, job.seed), None
        if (job.wave, job.cohort_seed) == PERMUTED:
            untaught = train_planted(context, permuted_labels(train, PERSON, job.seed), name, size, job.seed)
        tables.append(audit_network(windows, job, model, untaught))
    return pd.concat(tables, ignore_index=True)


def plant(job: PlantedJob, size: Size) -> tuple[WindowSet, Windows]:
    """Make the synthetic persons who differ in a wave only: training records, and windows of held-out ones.

    Training records are longer than the networks' windows; of each held-out record there is one window from its middle
    with its true waves.
    """
    shape = {"n_subjects": size.persons, "n_sessions": 1, "n_records": size.records + size.held_out}
    cohort = SyntheticCohort(
        **shape, seconds=RECORD_SECONDS, fs=FS, seed=job.cohort_seed, identity_wave=job.wave, noise=False
    )
    table = cohort.records()
    names, subjects = (table[column].to_numpy(dtype=str) for column in ("record_id", "subject_id"))
    values = cohort.signals(names)[:, [table["leads"][0].index(LEAD)]]
    fiducials = [fiducials_of_boundaries(cohort.boundaries(name), 1.0, 0.0) for name in names]
    codes = np.stack([wave_codes(points, values.shape[-1])[0] for points in fiducials])
    learnt = (table.groupby("subject_id").cumcount() < size.records).to_numpy()
    rng = np.random.default_rng([job.cohort_seed, IDENTITY_WAVES.index(job.wave)])
    values[learnt] *= _heights(codes[learnt], job.wave, rng)[:, None]
    values = values + rng.normal(0, NOISE_MV, values.shape)
    values = ((values - np.median(values[learnt])) / values[learnt].std()).astype(np.float32)
    targets, held = encode(subjects, np.unique(subjects)), ~learnt
    train = WindowSet(values[learnt], {PERSON: targets[learnt]}, subjects[learnt], names[learnt])
    start, length = round((RECORD_SECONDS - SECONDS) / 2 * FS), round(SECONDS * FS)
    samples, codes = values[held, :, start : start + length], codes[held, start : start + length]
    fiducials = np.fromiter((points - start for points in fiducials), dtype=object)[held]
    return train, Windows(samples, targets[held], FS, job.seed, codes, subjects[held], fiducials)


def _heights(codes: np.ndarray, wave: str, rng: np.random.Generator) -> np.ndarray:
    """Random factor on each sample, shape (n, n_samples): one a wave of a record, 1 in `wave` and where unknown."""
    factors = rng.uniform(0, HIGHEST, (len(codes), len(WAVES) + 1))
    factors[:, [WAVES.index(wave), -1]] = 1  # the unknown wave's code is -1
    return np.take_along_axis(factors, codes.astype(np.int64), axis=1).astype(np.float32)


def permuted_labels(train: WindowSet, task: str, seed: int) -> WindowSet:
    """Deal the labels of `task` out to the windows at random, every record keeping one label.

    What a network learns from them has nothing to do with the persons (Adebayo et al. 2018, section 4).
    """
    _, first, position = np.unique(train.records, return_index=True, return_inverse=True)
    dealt = np.random.default_rng(seed).permutation(train.targets[task][first])[position]
    return replace(train, targets={**train.targets, task: dealt})


def train_planted(context: Context, train: WindowSet, name: str, size: Size, seed: int) -> SignalModel:
    """Train a network on planted persons, or load the run that did so before."""
    shape = {"n_leads": 1, "n_samples": round(SECONDS * FS), "fs": FS, "lead_names": ["identity"]}
    given = size.hyper_parameters.get(name, {}) | {"learning_rate": RATES[name]}
    model = create_model(name, seed, classes={PERSON: np.unique(train.subjects)}, **shape, **given)
    noise_only = Augmentation(gain=0.0, noise=0.05, wander=0.0)
    settings = TrainingSettings(size.epochs[name], 32, seed, augmentation=noise_only)
    return fit(model, train, None, settings, context.runs, context.device).model


def audit_network(
    windows: Windows, job: PlantedJob, model: SignalModel, untaught: SignalModel | None = None
) -> pd.DataFrame:
    """Audit every method on one network trained on planted persons, beside one of permuted labels if there is any.

    One row a method and held-out window: wave, cohort_seed, model, method, person (the cohort's seed in the name),
    right (whether the network names the person), found (whether it names enough of them), reason (why the method does
    not apply, or None). Of windows that are right in a network that has found the cue, :data:`MEASURES`, and permuted,
    the rank correlation with the explanation of `untaught`: where a network errs, the cue is not what it read.
    """
    names = np.unique(windows.persons)
    right = class_probabilities(model, windows.samples, PERSON, names).argmax(axis=1) == windows.targets
    found, persons = right.mean() >= least_accuracy(names.size), [f"{job.cohort_seed}/{p}" for p in windows.persons]
    about = {"wave": job.wave, "cohort_seed": job.cohort_seed, "model": model.name}
    rows = pd.DataFrame({**about, "person": persons, "right": right, "found": found, "permuted": np.nan})
    rows[[*MEASURES]] = np.nan
    explained = windows.subset(right)
    question = Question(model, PERSON, explained, explained.infills[MEAN_BEAT]) if found else None
    tables = []
    for method in METHODS.values():
        table = rows.assign(method=method.name, reason=not_applicable(method, model))
        if found and table["reason"].isna().all():
            own = relevance(method, attribute(method, question))
            margin = round(MARGIN_S * windows.fs)
            table.loc[right, [*MEASURES]] = localise(own, explained.codes, job.wave, margin).to_numpy()
            if untaught is not None:
                other = relevance(method, attribute(method, replace(question, model=untaught)))
                table.loc[right, "permuted"] = rank_correlation(own, other)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def least_accuracy(n_classes: int) -> float:
    """Accuracy from which a network counts as one that has found the cue: halfway from chance to perfect."""
    return (1 + 1 / n_classes) / 2


def localise(relevances: np.ndarray, codes: np.ndarray, wave: str, margin: int) -> pd.DataFrame:
    """How well the relevance (0 or more; a row with NaN is undefined) of each window lies in a wave.

    mass_in_wave: share of the relevance in the wave, `margin` samples on either side counted in. enrichment: share of
    relevance over share of time, no margin. pointing: 1 where the highest relevance is in the wave with its margin
    (Zhang et al., "Top-down neural attention by excitation backprop", IJCV 2018; where several samples share the
    highest, the share of them in it). highest: 1 where the wave's enrichment is the highest of all. rank: of the wave
    by enrichment, 1 is highest.
    """
    at = WAVES.index(wave)
    inside = binary_dilation(codes == at, np.ones((1, 2 * margin + 1), dtype=bool))
    total = relevances.sum(axis=1, dtype=np.float64)
    held = np.where(inside, relevances, 0.0).sum(axis=1, dtype=np.float64)
    peak = relevances == relevances.max(axis=1, keepdims=True)
    enrichment = ratio(*shares(relevances, codes))
    rank = rankdata(-np.nan_to_num(enrichment, nan=-1.0), method="max", axis=1)[:, at]
    values = {
        "mass_in_wave": ratio(held, total),
        "enrichment": enrichment[:, at],
        "pointing": np.where(total > 0, ratio((peak & inside).sum(axis=1), peak.sum(axis=1)), np.nan),
        "highest": rank == 1,
        "rank": rank,
    }
    table = pd.DataFrame(values, columns=[*MEASURES], dtype=float)
    table.loc[np.isnan(table["enrichment"]), ["highest", "rank"]] = np.nan
    return table


def planted_table(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Means of :func:`audit_network` over the persons of all cohorts of a planted wave, with intervals over persons.

    One row a wave, network and method: wave, model, method, control, applies (to this kind of network), accuracy (of
    the network on all held-out windows), persons, windows (explained), seeds (cohorts whose cue the network found: the
    others are not explained), reason (why the rest is NaN, else None), and :data:`MEASURES` and permuted with ``_low``
    and ``_high``.
    """
    table = []
    for (wave, model, method), own in rows.groupby(["wave", "model", "method"], sort=False):
        explained, accuracy, reason = own[own["right"] & own["found"]], own["right"].mean(), own["reason"].iloc[0]
        row = {"wave": wave, "model": model, "method": method, "control": METHODS[method].control}
        row |= {"applies": reason is None, "accuracy": accuracy, "persons": explained["person"].nunique()}
        row |= {"windows": len(explained), "seeds": explained["cohort_seed"].nunique()}
        estimates = dict.fromkeys((*MEASURES, "permuted"))
        if explained.empty:
            reason = reason or f"{model} has not found the cue: it names {accuracy:.0%} of the held-out windows"
        elif reason is None:
            resamples, persons = Resamples.draw(own["person"], seed), explained["person"].to_numpy()
            estimates = clustered_means(explained[[*estimates]], persons, resamples, NO_RELEVANCE)
            reason = NO_RELEVANCE if np.isnan(estimates["mass_in_wave"].value) else None
        table.append(row | {"reason": reason} | intervals(estimates))
    return pd.DataFrame(table)
