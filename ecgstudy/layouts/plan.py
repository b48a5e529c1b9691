"""Which model reads whose pages: recipes of the models, what one job does, and the jobs of the stage."""

import math
import time
import warnings
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from ecgstudy.deidentification.readers import ABSENCE
from ecgstudy.errors import StudyError
from ecgstudy.evaluate.splits import RECORD, SUBJECT
from ecgstudy.experiment.jobs import Context
from ecgstudy.layouts.beats import FS, beats, r_peaks
from ecgstudy.layouts.fills import FILLS
from ecgstudy.layouts.layout import LAYOUTS, RANDOM, assigned, grid, random_layout
from ecgstudy.layouts.models import BeatECG, PageResNet1d, PatchECG, log_odds, replaced, untrained
from ecgstudy.layouts.pages import FIBRILLATES, Pages, asked_cohorts, pages_of
from ecgstudy.layouts.rhythm import FEATURES, FibrillationModel, rhythm_features, training_table
from ecgstudy.learn.base import SignalModel
from ecgstudy.learn.batches import WindowSet, encode
from ecgstudy.learn.train import TrainingSettings, fit
from ecgstudy.study.config import effort

VIEWS = (*LAYOUTS, RANDOM)
SHOWN = "3x4+II"
"""The commonest layout: what is shown of single records is shown of this one."""
PAIRS = tuple((fold, fold + 1) for fold in (1, 3, 5, 7, 9))
"""Folds that are left out together, PatchECG's (validation, test). No run chooses on either, so both are tested."""
LAST_PAIR = PAIRS[-1]
RHYTHM, SIGNAL, IMAGE = "rhythm", "signal", "image"
"""Names of the model of the rhythm, on the cohort that it learns from, on another one, and on pictures of that."""
EXPLAINED = ("af AFIB", "subclass CLBBB", "subclass CRBBB", "subclass LAFB/LPFB", "subclass AMI", "subclass IMI")
"""Labels whose evidence is shown: a cardiologist knows where to look for each."""
BATCH = 64


@dataclass(frozen=True)
class Recipe:
    """What a network reads and how it is trained; sizes and epochs are ours, but for the paper's.

    BeatECG's size and mixup were tried on the validation folds 7 and 9; shifts, gains and noise did not help there.

    Every training record is seen on the pages of `draws` layouts of its own, or with whole leads where that is 0.
    """

    kind: type[SignalModel]
    sizes: dict[str, Any] = field(default_factory=dict)
    draws: int = 4
    epochs: int = 8
    seeds: int = 1
    beats: bool = False
    every_pair: bool = True
    filled: bool = False
    """Whether pages are filled before they are read, in every way of :data:`~ecgstudy.layouts.fills.FILLS`."""


_STAGES, _WIDTHS = [16, 32, 32, 40, 40, 64, 64], {"widths": [20, 40, 80, 160]}
_PAPER = {"width": 768, "patch": 64, "stages": _STAGES, "embedding_dim": 768, "paper": True}
RECIPES = {
    "beatecg": Recipe(BeatECG, draws=8, epochs=5, seeds=3, beats=True),
    "resnet1d": Recipe(PageResNet1d, _WIDTHS),
    "patchecg": Recipe(PatchECG),
    "patchecg_unmasked": Recipe(PatchECG, {"hidden": 0.0}, draws=0, epochs=32, every_pair=False),
    "fill": Recipe(PageResNet1d, _WIDTHS, draws=0, epochs=32, filled=True, every_pair=False),
    "patchecg_paper": Recipe(PatchECG, _PAPER, draws=0, epochs=30, every_pair=False),
    "patchecg_released": Recipe(PatchECG, _PAPER | {"attention": "released"}, draws=0, epochs=30, every_pair=False),
}
"""Models by the name that metrics give them; "fill" stands for "fill_" and the name of each fill."""
BEST = "beatecg"
"""The model that is judged, fixed beforehand."""


def recipe_of(profile: str, model: str) -> Recipe:
    """Recipe of a model; the demo's networks are small and trained briefly, most of them on one pair of folds."""
    recipe = RECIPES[model]
    if effort(profile) != "demo":
        return recipe
    small = {"width": 48, "stages": [16, 32], "embedding_dim": 48, "widths": [8, 16, 32]}
    sizes = {name: small.get(name, value) for name, value in recipe.sizes.items()}
    brief = {"draws": min(recipe.draws, 2), "epochs": 12 if recipe.beats else 2, "every_pair": recipe.beats}
    return replace(recipe, sizes=sizes, seeds=1, **brief)


@dataclass(frozen=True)
class PageJob:
    """A model that learns from a cohort but for two folds, whose pages it reads; or from all, and reads another's."""

    cohort: str
    asked: str
    model: str
    pair: tuple[int, ...]
    seed: int

    @property
    def name(self) -> str:
        """Name for files and logs."""
        return ".".join([self.cohort, self.asked, self.model, "-".join(map(str, self.pair)) or "all", str(self.seed)])

    def about(self) -> dict[str, object]:
        """First columns of a row about this job."""
        named = {"cohort": self.asked, "protocol": "folds", "attacker": self.model, "view": "", "seed": self.seed}
        return named | {"folds": "-".join(map(str, self.pair))}

    def made_from(self, context: Context) -> dict[str, object]:
        """JSON values of everything that the reading depends on, besides code."""
        recipe = repr(recipe_of(context.profile, self.model)) if self.model in RECIPES else ""
        return {"job": self.name, "recipe": recipe, "seed": context.split_seed}


@dataclass(frozen=True)
class Reading:
    """Log odds of every task (rows of `tasks`) for records, float32 (n, n_tasks), by model and view."""

    records: list[str]
    tasks: list[str]
    scores: dict[tuple[str, str], np.ndarray]
    evidence: np.ndarray | None = None
    """Of a model that reads beats: see :func:`ecgstudy.layouts.models.replaced`, on pages of :data:`SHOWN`."""

    @property
    def tables(self) -> dict[tuple[str, str], pd.DataFrame]:
        """Log odds by model and view: a row a record, a column a task."""
        return {cell: pd.DataFrame(scores, self.records, self.tasks) for cell, scores in self.scores.items()}


def diagnose(context: Context, job: PageJob) -> Reading:
    """Train a model and let it read the pages of the records that are asked, in every view."""
    asked, recipe = _asked(context, job), recipe_of(context.profile, job.model)
    model, tasks, windows = trained(context, job)
    scores, evidence = {}, None
    for view in VIEWS:
        page = asked.sheets(assigned(asked.ids, view))
        if recipe.filled:
            for name, fill in FILLS.items():
                scores[f"{job.model}_{name}", view] = log_odds(model, fill(windows.samples, page))
            continue
        inputs = _inputs(page, recipe)
        scores[job.model, view] = log_odds(model, inputs)
        if recipe.beats and view == SHOWN:
            evidence = replaced(model, inputs, windows.samples.mean(axis=0))
    return Reading(asked.records[RECORD].tolist(), tasks, scores, evidence)


def _asked(context: Context, job: PageJob) -> Pages:
    """Give the records that a job asks: of its folds, or all of another cohort; refuses where there are none."""
    pages = pages_of(context, job.asked)
    asked = np.isin(pages.fold, job.pair) | (job.asked != job.cohort)
    if not asked.any() or (asked.all() and job.asked == job.cohort):
        raise StudyError("too few persons to learn from some and to ask others")
    return pages.of(np.flatnonzero(asked))


def trained(context: Context, job: PageJob) -> tuple[SignalModel, list[str], WindowSet]:
    """Network of a job after its epochs, or as it was trained before; its tasks, and what it has learnt from."""
    recipe = recipe_of(context.profile, job.model)
    windows = _training_set(context, job.cohort, recipe, job.pair)
    settings = TrainingSettings(recipe.epochs, BATCH, job.seed, augmentation=None)
    run = fit(network(recipe, windows, job.seed), windows, None, settings, context.runs, context.device)
    return run.model, [*windows.targets], windows


def network(recipe: Recipe, windows: WindowSet, seed: int) -> SignalModel:
    """Network of a recipe before it learns, for such windows."""
    n_leads, n_samples = windows.samples.shape[1:]
    shape = {"n_leads": n_leads, "n_samples": n_samples, "fs": FS, "lead_names": [str(row) for row in range(n_leads)]}
    classes = {task: list(ABSENCE) for task in windows.targets}
    return untrained(recipe.kind, seed, classes=classes, **shape, **recipe.sizes)


def training_cost(context: Context, cohort: str, seed: int) -> pd.DataFrame:
    """Core seconds that training takes: of one batch, measured here and now, times the batches of all epochs.

    Columns model, parameters, batches, core_s (of all seeds that a reading is the mean of, on one pair of folds).
    """
    rows, n_train = [], np.count_nonzero(~np.isin(pages_of(context, cohort).fold, LAST_PAIR))
    for name in RECIPES:
        recipe = recipe_of(context.profile, name)
        windows = _training_set(context, cohort, replace(recipe, draws=min(recipe.draws, 1)), LAST_PAIR, BATCH)
        model = network(recipe, windows, seed).train()
        batch = torch.from_numpy(windows.samples), {task: torch.from_numpy(of) for task, of in windows.targets.items()}
        taken = []
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "You are trying to `self.log", UserWarning)
            for _ in range(3):
                begun = time.process_time()
                model.training_step(batch, 0).backward()
                taken.append(time.process_time() - begun)
        batches = math.ceil(n_train * max(recipe.draws, 1) / len(windows.samples)) * recipe.epochs * recipe.seeds
        n_parameters = sum(each.numel() for each in model.parameters())
        rows.append((name, n_parameters, batches, float(np.median(taken)) * batches))
    return pd.DataFrame(rows, columns=["model", "parameters", "batches", "core_s"])


def fibrillation(context: Context, job: PageJob) -> Reading:
    """As :func:`diagnose`, of fibrillation alone, by the model of the rhythm; 0 is its threshold.

    The threshold has the highest balanced accuracy on training records, scored by models of the other half of them.
    """
    asked, named = _asked(context, job), RHYTHM if job.asked == job.cohort else SIGNAL
    model, threshold = fibrillation_model(context, job.cohort, job.pair, job.seed)
    tables = {view: rhythm_features(asked.sheets(assigned(asked.ids, view))) for view in VIEWS}
    scores = {(named, view): model.score(table)[:, None] - threshold for view, table in tables.items()}
    return Reading(asked.records[RECORD].tolist(), [FIBRILLATES], scores)


def fibrillation_model(
    context: Context, cohort: str, left_out: tuple[int, ...], seed: int
) -> tuple[FibrillationModel, float]:
    """Model of the rhythm that has learnt from a cohort but for some folds, and its threshold."""
    pages = pages_of(context, cohort)
    if FIBRILLATES not in pages.labels:
        raise StudyError("no record says whether it fibrillates")
    truth, fold = pages.labels[FIBRILLATES].to_numpy(), pages.fold
    table = context.shared(("rhythm", cohort), lambda: training_table(pages.values, truth == 1, context.split_seed))
    table = table[(np.isfinite(truth) & ~np.isin(fold, left_out))[table.index]]
    own, half = truth[table.index] == 1, fold[table.index] % 2
    scores = np.zeros(len(table))
    for part in (0, 1):
        model = FibrillationModel(seed).fit(table[half != part], own[half != part])
        scores[half == part] = model.score(table.loc[half == part, list(FEATURES)])
    return FibrillationModel(seed).fit(table, own), _threshold(scores, own)


def _threshold(scores: np.ndarray, truth: np.ndarray) -> float:
    """Score with the highest balanced accuracy."""
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(truth[order]) / truth.sum() - np.cumsum(~truth[order]) / (~truth).sum()
    return float(scores[order][found.argmax()])


def _inputs(page: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Give what a network reads of pages."""
    return beats(page, r_peaks(page)) if recipe.beats else page


def drawn(context: Context, cohort: str, recipe: Recipe, draw: int) -> np.ndarray:
    """Give what a network reads of all records on pages of layouts drawn for each, made once a process."""

    def make() -> np.ndarray:
        pages = pages_of(context, cohort)
        rng = np.random.default_rng([context.split_seed, draw])
        layouts = [random_layout(rng) if recipe.draws else grid(1) for _ in pages.ids]
        return _inputs(pages.sheets(layouts), recipe)

    return context.shared(("drawn", cohort, recipe.beats, bool(recipe.draws), draw), make)


def _training_set(
    context: Context, cohort: str, recipe: Recipe, left_out: tuple[int, ...], most: int | None = None
) -> WindowSet:
    """Every training record, or the first of them, on the pages of some layouts; tasks are what all of them tell."""
    pages, draws = pages_of(context, cohort), range(max(recipe.draws, 1))
    train = np.flatnonzero(~np.isin(pages.fold, left_out))
    tasks = [task for task, column in pages.labels.iloc[train].items() if 0 < column.mean() < 1]
    train = train[:most]
    samples = np.concatenate([drawn(context, cohort, recipe, draw)[train] for draw in draws])
    rows, names = np.tile(train, len(draws)), {1.0: ABSENCE[1], 0.0: ABSENCE[0]}
    targets = {task: encode(pages.labels[task].iloc[rows].map(names), ABSENCE) for task in tasks}
    persons, records = (pages.records[column].to_numpy(dtype=str)[rows] for column in (SUBJECT, RECORD))
    return WindowSet(samples, targets, persons, records)


def page_jobs(context: Context, seed: int) -> list[PageJob]:
    """Every model on every pair of folds that it is asked for, and the judged one on other cohorts.

    What takes long reads one pair on a processor, and all on a GPU.
    """
    cohort, others = asked_cohorts(context)
    jobs = []
    for model in RECIPES:
        recipe = recipe_of(context.profile, model)
        pairs = PAIRS if recipe.every_pair or context.device == "cuda" else (LAST_PAIR,)
        seeds = range(seed, seed + recipe.seeds)
        jobs += [PageJob(cohort, cohort, model, pair, number) for pair in pairs for number in seeds]
    seeds = range(seed, seed + recipe_of(context.profile, BEST).seeds)
    jobs += [PageJob(cohort, other, BEST, (), number) for other in others for number in seeds]
    # the longest first, so that no core waits for it in the end
    return sorted(jobs, key=lambda job: not RECIPES[job.model].sizes.get("paper"))


def rhythm_jobs(context: Context, seed: int) -> list[PageJob]:
    """Ask the model of the rhythm of every pair of folds, and of other cohorts."""
    cohort, others = asked_cohorts(context)
    jobs = [PageJob(cohort, cohort, RHYTHM, pair, seed) for pair in PAIRS]
    return jobs + [PageJob(cohort, other, RHYTHM, (), seed) for other in others]
