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

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.ndimage import binary_dilation
from scipy.stats import rankdata

from ecgstudy.attribution.explain import Windows, applicable, attribute, not_applicable, relevance, tables
from ecgstudy.attribution.methods import METHODS
from ecgstudy.attribution.shares import (
    NO_RELEVANCE,
    clustered_means,
    columns_of,
    mean_rows,
    rank_correlation,
    wave_shares,
)
from ecgstudy.attribution.waves import UNKNOWN_WAVE, WAVES, fiducials_of_boundaries, wave_codes
from ecgstudy.data.simulator.people import IDENTITY_WAVES
from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.errors import StudyError
from ecgstudy.evaluate.bootstrap import Resamples
from ecgstudy.experiment.jobs import Context, run
from ecgstudy.learn.base import PERSON, SignalModel, class_probabilities
from ecgstudy.learn.batches import Augmentation, WindowSet, encode
from ecgstudy.learn.models import create_model
from ecgstudy.learn.train import TrainingSettings, fit

PLANTED_WAVES = IDENTITY_WAVES
NETWORKS = {"resnet1d": 5e-3, "transecg": 3e-3}
"""Networks and the highest learning rate of each."""
PERMUTED_WAVE = "QRS"
"""Planted wave on which networks are trained again with permuted labels."""
FS = 100.0
SECONDS = 4.0
RECORD_SECONDS = 8.0
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


def plant(wave: str, size: Size, cohort_seed: int, seed: int) -> tuple[WindowSet, Windows]:
    """Make the synthetic persons who differ in `wave` only: training records, and windows of held-out ones.

    Training records are longer than the networks' windows; of each held-out record there is one window from its middle
    with its true waves, and `seed` is that of the methods.
    """
    cohort = SyntheticCohort(
        n_subjects=size.persons,
        n_sessions=1,
        n_records=size.records + size.held_out,
        seconds=RECORD_SECONDS,
        fs=FS,
        seed=cohort_seed,
        identity_wave=wave,
        noise=False,
    )
    table = cohort.records()
    names = table["record_id"].to_numpy(dtype=str)
    values = cohort.signals(names)[:, [table["leads"][0].index(LEAD)]]
    rng = np.random.default_rng([cohort_seed, PLANTED_WAVES.index(wave)])
    fiducials = [fiducials_of_boundaries(cohort.boundaries(name), 1.0, 0.0) for name in names]
    codes = np.stack([wave_codes(points, values.shape[-1])[0] for points in fiducials])
    learnt = (table.groupby("subject_id").cumcount() < size.records).to_numpy()
    values[learnt] *= _heights(codes[learnt], wave, rng)[:, None]
    values = values + rng.normal(0, NOISE_MV, values.shape)
    values = ((values - np.median(values[learnt])) / values[learnt].std()).astype(np.float32)
    subjects = table["subject_id"].to_numpy(dtype=str)
    targets = encode(subjects, np.unique(subjects))
    start, length = round((RECORD_SECONDS - SECONDS) / 2 * FS), round(SECONDS * FS)
    train = WindowSet(values[learnt], {PERSON: targets[learnt]}, subjects[learnt], names[learnt])
    held = ~learnt
    return train, Windows(
        samples=values[held, :, start : start + length],
        targets=targets[held],
        persons=subjects[held],
        records=names[held],
        starts=np.full(held.sum(), start),
        codes=codes[held, start : start + length],
        fiducials=tables([fiducials[row] - start for row in np.flatnonzero(held)]),
        fs=FS,
        seed=seed,
    )


def _heights(codes: np.ndarray, wave: str, rng: np.random.Generator) -> np.ndarray:
    """Random factor on each sample, shape (n, n_samples): 1 in `wave`, else one for each other wave of a record."""
    factors = rng.uniform(0, HIGHEST, (len(codes), len(WAVES) + 1))
    factors[:, [WAVES.index(wave), UNKNOWN_WAVE]] = 1
    return np.take_along_axis(factors, codes.astype(np.int64), axis=1).astype(np.float32)


def permuted_labels(train: WindowSet, task: str, seed: int) -> WindowSet:
    """Deal the labels of `task` out to the windows at random, every record keeping one label.

    What a network learns from them has nothing to do with the persons (Adebayo
    et al., "Sanity Checks for Saliency Maps", NeurIPS 2018, section 4).
    """
    records, position = np.unique(train.records, return_inverse=True)
    first = np.zeros(len(records), dtype=np.int64)
    first[position[::-1]] = train.targets[task][::-1]
    dealt = np.random.default_rng(seed).permutation(first)[position]
    return WindowSet(train.samples, {**train.targets, task: dealt}, train.subjects, train.records)


def train_planted(context: Context, train: WindowSet, name: str, size: Size, seed: int) -> SignalModel:
    """Train a network on planted persons, or load the run that did so before."""
    model = create_model(
        name,
        seed,
        n_leads=1,
        n_samples=round(SECONDS * FS),
        fs=FS,
        classes={PERSON: np.unique(train.subjects)},
        lead_names=["identity"],
        learning_rate=NETWORKS[name],
        **size.hyper_parameters.get(name, {}),
    )
    noise_only = Augmentation(gain=0.0, noise=0.05, wander=0.0)
    settings = TrainingSettings(size.epochs[name], 32, seed, augmentation=noise_only)
    return fit(model, train, None, settings, context.runs, context.device).model


def localise(relevances: np.ndarray, codes: np.ndarray, wave: str, margin: int) -> dict[str, np.ndarray]:
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
    defined = total > 0  # NaN compares as False
    held = np.where(inside, relevances, 0.0).sum(axis=1, dtype=np.float64)
    peak = relevances == relevances.max(axis=1, keepdims=True)
    shares = wave_shares(relevances, codes)
    enrichment = np.divide(shares.mass, shares.time, out=np.full_like(shares.mass, np.nan), where=shares.time > 0)
    present = np.isfinite(enrichment[:, at])
    ranks = rankdata(-np.nan_to_num(enrichment, nan=-1.0), method="max", axis=1)[:, at]
    values = {
        "mass_in_wave": np.divide(held, total, out=np.full(len(total), np.nan), where=defined),
        "enrichment": enrichment[:, at],
        "pointing": np.where(defined, (peak & inside).sum(axis=1) / np.maximum(peak.sum(axis=1), 1), np.nan),
        "highest": np.where(present, ranks == 1, np.nan),
        "rank": np.where(present, ranks, np.nan),
    }
    return {name: values[name].astype(np.float64) for name in MEASURES}


def least_accuracy(n_classes: int) -> float:
    """Accuracy from which a network counts as one that has found the cue: halfway from chance to perfect."""
    return (1 + 1 / n_classes) / 2


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
        return {"cohort": f"planted {self.wave} {self.cohort_seed}", "seed": self.seed}

    def made_from(self, context: Context) -> dict[str, object]:
        """JSON values that an audit depends on, besides code."""
        return {"job": self.name, "size": asdict(SIZES[context.profile])}


@dataclass(frozen=True)
class PlantedAudit:
    """One network on planted persons, window by window.

    `persons` are those of all held-out windows, the cohort's seed in the name; `recognised` (bool) marks the windows
    that were explained: where the network errs, the cue is not what it read. `reasons` say why a method does not apply.
    `measures` holds :data:`MEASURES` of the explained windows by method, nothing where the cue was not found;
    `permuted` the rank correlation with the explanation of the same network trained on permuted labels.
    """

    wave: str
    model: str
    cohort_seed: int
    persons: np.ndarray
    recognised: np.ndarray
    reasons: dict[str, str]
    measures: dict[str, dict[str, np.ndarray]]
    permuted: dict[str, np.ndarray]

    @property
    def found(self) -> bool:
        """Whether the network has found the cue."""
        return bool(self.recognised.mean() >= least_accuracy(np.unique(self.persons).size))


def audit_cohort(context: Context, job: PlantedJob) -> list[PlantedAudit]:
    """Train every network on persons who differ in one wave, and audit every method on it."""
    size = SIZES[context.profile]
    train, windows = plant(job.wave, size, job.cohort_seed, job.seed)
    audits = []
    for name in NETWORKS:
        model = train_planted(context, train, name, size, job.seed)
        untaught = None
        if job.wave == PERMUTED_WAVE and job.cohort_seed == 0:
            untaught = train_planted(context, permuted_labels(train, PERSON, job.seed), name, size, job.seed)
        audits.append(audit_network(windows, job, model, untaught))
    return audits


def audit_network(
    windows: Windows, job: PlantedJob, model: SignalModel, untaught: SignalModel | None = None
) -> PlantedAudit:
    """Audit every method on one network trained on planted persons, beside one of permuted labels if there is any."""
    named = class_probabilities(model, windows.samples, PERSON, np.unique(windows.persons)).argmax(axis=1)
    right = named == windows.targets
    reasons = {name: why for name, method in METHODS.items() if (why := not_applicable(method, model))}
    persons = np.array([f"{job.cohort_seed}/{person}" for person in windows.persons])
    audit = PlantedAudit(job.wave, model.name, job.cohort_seed, persons, right, reasons, {}, {})
    if not audit.found:
        return audit
    question = windows.subset(right).question(model, PERSON)
    other = None if untaught is None else replace(question, model=untaught)
    for method in applicable(model):
        found = relevance(method, attribute(method, question))
        audit.measures[method.name] = localise(found, question.waves, job.wave, round(MARGIN_S * windows.fs))
        if other is not None:
            audit.permuted[method.name] = rank_correlation(found, relevance(method, attribute(method, other)))
    return audit


@dataclass(frozen=True)
class Truth:
    """What the planted networks say about every method, and the commits that made it.

    `planted` and `by_seed` are from :func:`planted_table`, over all cohorts and cohort by cohort (column cohort_seed);
    `permuted` has one row a method and network: rank correlation of its explanations with those of the same network
    trained on permuted labels (Adebayo et al. 2018).
    """

    planted: pd.DataFrame
    by_seed: pd.DataFrame
    permuted: pd.DataFrame
    commits: set[str]


def audit_planted(context: Context, seed: int) -> Truth:
    """Audit every method on every planted wave, cohort and network, on all processor cores."""
    seeds = range(SIZES[context.profile].seeds)
    jobs = [PlantedJob(wave, number, seed) for wave in PLANTED_WAVES for number in seeds]
    outcome = run(audit_cohort, jobs, context, "planted truth")
    if len(outcome.refusals):
        raise StudyError(outcome.refusals["reason"].iloc[0])
    audits = [audit for found in outcome.values.values() for audit in found]
    by_seed = [planted_table([a for a in audits if a.cohort_seed == at], seed).assign(cohort_seed=at) for at in seeds]
    permuted = [
        {"model": audit.model} | row
        for audit in audits
        if audit.permuted
        for row in mean_rows(
            {(method,): values for method, values in audit.permuted.items()},
            ("method",),
            "permuted",
            audit.persons[audit.recognised],
            Resamples.draw(audit.persons, seed),
            NO_RELEVANCE,
        )
    ]
    table = pd.DataFrame(permuted, columns=["model", "method", "permuted", "permuted_low", "permuted_high", "reason"])
    return Truth(planted_table(audits, seed), pd.concat(by_seed, ignore_index=True), table, outcome.commits)


def planted_table(audits: Sequence[PlantedAudit], seed: int) -> pd.DataFrame:
    """Means over the persons of all cohorts of a planted wave, with intervals over persons.

    One row a wave, network and method: wave, model, method, control, applies (to this kind of network), accuracy (of
    the network on all held-out windows), persons, windows (explained), seeds (cohorts whose cue the network found: the
    others are not explained), reason (why the rest is NaN, else None), and :data:`MEASURES` with ``_low`` and
    ``_high``.
    """
    grouped: dict[tuple[str, str], list[PlantedAudit]] = {}
    for audit in audits:
        grouped.setdefault((audit.wave, audit.model), []).append(audit)
    rows = []
    for (wave, model), own in sorted(grouped.items(), key=lambda item: PLANTED_WAVES.index(item[0][0])):
        right = np.concatenate([audit.recognised for audit in own])
        found = [audit for audit in own if audit.found]
        resamples = Resamples.draw(np.concatenate([audit.persons for audit in own]), seed)
        persons = np.concatenate([np.empty(0, dtype=str), *(audit.persons[audit.recognised] for audit in found)])
        untaught = None
        if not found:
            untaught = f"{model} has not found the cue: it names {right.mean():.0%} of the held-out windows"
        for method in METHODS.values():
            row: dict[str, object] = {"wave": wave, "model": model, "method": method.name, "control": method.control}
            row |= {"applies": method.name not in own[0].reasons, "accuracy": float(right.mean())}
            row |= {"persons": np.unique(persons).size, "windows": persons.size, "seeds": len(found)}
            row["reason"] = own[0].reasons.get(method.name) or untaught
            measures = dict.fromkeys((f"{name}{end}" for name in MEASURES for end in ("", "_low", "_high")), np.nan)
            if row["reason"] is None:
                parts = [audit.measures[method.name] for audit in found]
                values = {name: np.concatenate([part[name] for part in parts]) for name in MEASURES}
                measures = columns_of(clustered_means(values, persons, resamples, NO_RELEVANCE))
                row["reason"] = NO_RELEVANCE if np.isnan(measures["mass_in_wave"]) else None
            rows.append(row | measures)
    return pd.DataFrame(rows)
