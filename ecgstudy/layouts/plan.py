"""Whose pages are read by which model: records, labels and folds, recipes of the models, and the jobs of the stage."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from ecgstudy.data.base import STANDARD_LEADS, Cohort
from ecgstudy.data.cohorts import cohorts_of, open_cohort
from ecgstudy.data.simulator.heart import CONDITIONS
from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.deidentification.readers import ABSENCE, diagnosis_table
from ecgstudy.errors import NotApplicableError, StudyError
from ecgstudy.evaluate.splits import RECORD, SUBJECT
from ecgstudy.experiment.jobs import Context, Work
from ecgstudy.ingestion.stores import STORE_FS, SYNTHETIC_FS, open_usable_stores
from ecgstudy.layouts.beats import FS, N_ROWS, POINTS, SECONDS, beats, masks, r_peaks, recordings, sheets
from ecgstudy.layouts.evidence import PIECES, replaced
from ecgstudy.layouts.fills import FILLS
from ecgstudy.layouts.layout import LAYOUTS, RANDOM, Layout, assigned, grid, random_layout
from ecgstudy.layouts.models import BeatECG, PageResNet1d, PatchECG, log_odds, untrained
from ecgstudy.learn.base import SignalModel
from ecgstudy.learn.batches import WindowSet, encode
from ecgstudy.learn.train import TrainingSettings, fit
from ecgstudy.signals.ingest import build_store
from ecgstudy.study.config import cache_dir, effort

VIEWS = (*LAYOUTS, RANDOM)
SHOWN = "3x4+II"
"""The commonest layout: what is shown of single records is shown of this one."""
PAIRS = tuple((fold, fold + 1) for fold in (1, 3, 5, 7, 9))
"""Folds that are left out together, PatchECG's (validation, test). Nothing is chosen on either, so both are tested."""
LAST_PAIR = PAIRS[-1]
SUBCLASS, SUPERCLASS, AF = "subclass", "superclass", "af"
LABEL_COLUMNS = {SUBCLASS: ("subclasses", "diagnosis", "diagnoses"), SUPERCLASS: ("superclasses",), AF: ("rhythm",)}
FIBRILLATION = ("AFIB", "Atrial fibrillation")
LEAST_POSITIVES, LEAST_PERSONS = 5, 20
LEAST_TWELVE, LONGEST_S = 0.9, 60.0
"""A cohort is asked where so many of its records have twelve leads, and where they are no longer."""
SYNTHETIC_PERSONS = 100
EXPLAINED = ("af AFIB", "subclass CLBBB", "subclass CRBBB", "subclass LAFB/LPFB", "subclass AMI", "subclass IMI")
"""Labels whose evidence is shown: a cardiologist knows where to look for each."""
BATCH = 64


@dataclass(frozen=True)
class Recipe:
    """What a network reads and how it is trained; sizes and epochs are ours but for the paper's, tried on fold 9.

    Every training record is seen on the pages of `draws` layouts of its own, or with whole leads where that is 0.
    """

    kind: type[SignalModel]
    sizes: tuple[tuple[str, Any], ...] = ()
    draws: int = 4
    epochs: int = 10
    seeds: int = 1
    beats: bool = False
    every_pair: bool = True
    filled: bool = False
    """Whether pages are filled before they are read, in every way of :data:`~ecgstudy.layouts.fills.FILLS`."""


_PAPER = (("width", 768), ("stages", [16, 32, 32, 40, 40, 64, 64]), ("embedding_dim", 768), ("paper", True))
_WIDTHS = (("widths", [20, 40, 80, 160]),)
RECIPES = {
    "beatecg": Recipe(BeatECG, draws=8, epochs=5, seeds=3, beats=True),
    "resnet1d": Recipe(PageResNet1d, _WIDTHS),
    "patchecg": Recipe(PatchECG),
    "patchecg_unmasked": Recipe(PatchECG, (("hidden", 0.0),), draws=0, epochs=40),
    "fill": Recipe(PageResNet1d, _WIDTHS, draws=0, epochs=40, filled=True),
    "patchecg_paper": Recipe(PatchECG, _PAPER, draws=0, epochs=30, every_pair=False),
    "patchecg_released": Recipe(PatchECG, (*_PAPER, ("attention", "released")), 0, 30, every_pair=False),
}
"""Models by the name that metrics give them; "fill" stands for "fill_" and the name of each fill."""
BEST = "beatecg"
"""The model that is judged, fixed beforehand."""


def recipe_of(profile: str, model: str) -> Recipe:
    """Recipe of a model; the demo's networks are small and trained briefly."""
    recipe = RECIPES[model]
    if effort(profile) != "demo":
        return recipe
    small = {"width": 48, "stages": [16, 32], "embedding_dim": 48, "widths": [8, 16, 32]}
    sizes = tuple((name, small.get(name, value)) for name, value in recipe.sizes)
    if recipe.kind is PatchECG and "width" not in dict(sizes):
        sizes += tuple((name, small[name]) for name in ("width", "stages", "embedding_dim"))
    return replace(recipe, sizes=sizes, draws=min(recipe.draws, 2), epochs=12 if recipe.beats else 4, seeds=1)


def open_context(profile: str, seed: int, device: str) -> Context:
    """Context of the stage's jobs; the demo's cohort is its own, or diagnoses would be too rare to be learnt."""
    if profile == "demo":
        cohort = _synthetic(seed)
        stores = {cohort.name: build_store(cohort, cache_dir(profile))}
    else:
        stores = open_usable_stores(profile, cohorts_of(profile), seed, STORE_FS)[0]
    return Context(profile, stores, device, {}, split_seed=seed)


def _synthetic(seed: int) -> SyntheticCohort:
    """Persons of whom most have a condition."""
    shares = dict.fromkeys(CONDITIONS, 0.8 / len(CONDITIONS))
    return SyntheticCohort(SYNTHETIC_PERSONS, 2, 1, fs=SYNTHETIC_FS, seed=seed, diagnoses=shares)


def cohort_of(context: Context, name: str) -> Cohort:
    """Open a cohort of a context, whose samples are read as they are: what is filtered first knows what is hidden."""
    return _synthetic(context.split_seed) if name == SyntheticCohort.name else open_cohort(name)


@dataclass(frozen=True)
class Pages:
    """Records of a cohort that have all twelve leads, before anything is hidden.

    `values` are samples as recorded at 100 Hz, float32 (n, 12, n_samples); `labels` has a column a label, named
    ``set name`` ("subclass LVH", "superclass HYP", "af AFIB"), 1, 0, or NaN where a record says nothing of that set;
    `fold` is 1 to 10, (n,).
    """

    records: pd.DataFrame
    values: np.ndarray
    labels: pd.DataFrame
    fold: np.ndarray

    @property
    def ids(self) -> list[str]:
        """Names of the records in their own cohort, which decide their random layouts."""
        return [name.partition("/")[2] for name in self.records[RECORD]]

    def sheets(self, layouts: Sequence[Layout], rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Pages of some records, one layout each, as :func:`ecgstudy.layouts.beats.sheets` gives them."""
        values = self.values[rows]
        return sheets(values, masks(layouts, values.shape[-1]))


def pages_of(context: Context, name: str) -> Pages:
    """Read the records of a cohort, once a process."""
    return context.shared(("pages", name), lambda: _pages(context, name))


def _pages(context: Context, name: str) -> Pages:
    records = context.records(name)
    whole = [set(STANDARD_LEADS) <= set(leads) for leads in records["leads"]]
    records = records[whole].reset_index(drop=True)
    values = recordings(cohort_of(context, name), [record.partition("/")[2] for record in records[RECORD]])
    return Pages(records, values, label_table(records), _folds(records, context.split_seed))


def _folds(records: pd.DataFrame, seed: int) -> np.ndarray:
    """Fold of each record: the publisher's, or drawn by person."""
    if "strat_fold" in records:
        return records["strat_fold"].to_numpy()
    persons, owner = np.unique(records[SUBJECT], return_inverse=True)
    return 1 + np.random.default_rng(seed).permutation(np.arange(persons.size) % 10)[owner]


def label_table(records: pd.DataFrame) -> pd.DataFrame:
    """Labels of records by set, see :class:`Pages`; LUDB's words are brought to PTB-XL's superclasses."""
    tables = []
    for kind, columns in LABEL_COLUMNS.items():
        first = [column for column in columns if column in records][:1]
        table = diagnosis_table(records, first) if first else pd.DataFrame(index=records.index)
        if kind == AF:
            named = table[[name for name in FIBRILLATION if name in table]]
            table = named.max(axis=1).to_frame("AFIB") if named.shape[1] else named
        tables.append(table.add_prefix(f"{kind} "))
    if "repolarisation" in records:
        tables.append(_ludb_superclasses(records).add_prefix(f"{SUPERCLASS} "))
    return pd.concat(tables, axis=1).astype(float)


def _ludb_superclasses(records: pd.DataFrame) -> pd.DataFrame:
    """LUDB's findings as PTB-XL's superclasses, where they map: acute and old infarctions are MI, ischaemia is STTC."""
    ischaemia = records["ischaemia"].map(lambda words: {word.partition(":")[0].split()[0] for word in words})
    found = {
        "CD": records["conduction"].map(len) > 0,
        "HYP": records["hypertrophy"].map(len) > 0,
        "MI": ischaemia.map(lambda first: bool(first & {"Stemi", "Scar"})),
        "STTC": (records["repolarisation"].map(len) > 0) | ischaemia.map(lambda f: bool(f & {"Ischemia", "Undefined"})),
    }
    table = pd.DataFrame(found)
    return table.assign(NORM=~table.any(axis=1)).astype(float)


def asked_cohorts(context: Context) -> tuple[str, tuple[str, ...]]:
    """Cohort whose pages are learnt from and read, and others that are read by models that have never seen them.

    The former is that with the most persons of those with a diagnosis to learn; ``NotApplicableError`` without one.
    """
    twelve = []
    for name, store in context.stores.items():
        records = store.records
        whole = records["leads"].map(lambda leads: set(STANDARD_LEADS) <= set(leads))
        if whole.mean() >= LEAST_TWELVE and (records["store_samples"] / store.fs).median() <= LONGEST_S:
            twelve.append((records[SUBJECT].nunique(), name, label_table(records)))
    able = [(size, name) for size, name, labels in twelve if size >= LEAST_PERSONS and _sets(labels)]
    if not able:
        raise NotApplicableError(
            f"pages are read for diagnoses, and no cohort has {LEAST_PERSONS} persons or more with short records of "
            f"all twelve leads and a diagnosis that {LEAST_POSITIVES} records or more share"
        )
    chosen = max(able)[1]
    return chosen, tuple(name for _, name, labels in twelve if name != chosen and f"{AF} AFIB" in labels)


def _sets(labels: pd.DataFrame) -> bool:
    """Whether a diagnosis can be learnt: some have it, others do not."""
    mine = labels.filter(regex=f"^({SUBCLASS}|{SUPERCLASS}) ")
    return bool(((mine.sum() >= LEAST_POSITIVES) & ((mine == 0).sum() >= LEAST_POSITIVES)).any())


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
        recipe = recipe_of(context.profile, self.model)
        return {"job": self.name, "recipe": repr(recipe), "seed": context.split_seed}


@dataclass(frozen=True)
class Reading:
    """Log odds of every task (rows of `tasks`) for records, float32 (n, n_tasks), by model and view."""

    records: list[str]
    tasks: list[str]
    scores: dict[tuple[str, str], np.ndarray]
    evidence: np.ndarray | None = None
    """Of a model that reads beats: see :func:`ecgstudy.layouts.evidence.replaced`, on pages of :data:`SHOWN`."""


def diagnose(context: Context, job: PageJob) -> Reading:
    """Train a model and let it read the pages of the records that are asked, in every view."""
    known, asked = pages_of(context, job.cohort), pages_of(context, job.asked)
    held = np.isin(known.fold, job.pair)
    rows = np.flatnonzero(held) if job.asked == job.cohort else np.arange(len(asked.records))
    recipe, train = recipe_of(context.profile, job.model), np.flatnonzero(~held)
    if not len(train) or not len(rows):
        raise StudyError("too few persons to learn from some and to ask others")
    labels = known.labels.iloc[train]
    tasks = [task for task, column in labels.items() if 0 < column.mean() < 1]
    windows = _training_set(context, job.cohort, recipe, train, tasks)
    model = _trained(context, job, recipe, windows, tasks)
    whole = known.sheets([grid(1)] * len(train), train) if recipe.filled else None
    scores, ids, evidence = {}, [asked.ids[row] for row in rows], None
    for view in VIEWS:
        page = asked.sheets(assigned(ids, view), rows)
        inputs = _inputs(page, recipe)
        if whole is None:
            scores[job.model, view] = _read(model, inputs)
        else:
            filled = {name: fill(whole, page) for name, fill in FILLS.items()}
            scores |= {(f"{job.model}_{name}", view): _read(model, each) for name, each in filled.items()}
        if recipe.beats and view == SHOWN:
            evidence = replaced(model, inputs, windows.samples.mean(axis=0))
    return Reading([asked.records[RECORD][row] for row in rows], tasks, scores, evidence)


def _inputs(page: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Give what a network reads of pages."""
    return beats(page, r_peaks(page)) if recipe.beats else page


def _read(model: SignalModel, inputs: np.ndarray) -> np.ndarray:
    """Log odds of pages."""
    return log_odds(model, torch.from_numpy(np.ascontiguousarray(inputs, dtype=np.float32))).numpy()


def drawn(context: Context, cohort: str, recipe: Recipe, draw: int) -> np.ndarray:
    """Give what a network reads of all records on pages of layouts drawn for each, made once a process."""

    def make() -> np.ndarray:
        pages = pages_of(context, cohort)
        rng = np.random.default_rng([context.split_seed, draw])
        layouts = [random_layout(rng) if recipe.draws else grid(1) for _ in pages.ids]
        return _inputs(pages.sheets(layouts), recipe)

    return context.shared(("drawn", cohort, recipe.beats, bool(recipe.draws), draw), make)


def _training_set(context: Context, cohort: str, recipe: Recipe, train: np.ndarray, tasks: Sequence[str]) -> WindowSet:
    """Every training record on the pages of some layouts."""
    pages, draws = pages_of(context, cohort), range(max(recipe.draws, 1))
    samples = np.concatenate([drawn(context, cohort, recipe, draw)[train] for draw in draws])
    names = {1.0: ABSENCE[1], 0.0: ABSENCE[0]}
    targets = {task: encode(pages.labels[task].iloc[train].map(names), ABSENCE) for task in tasks}
    columns = (pages.records[column].to_numpy(dtype=str)[train] for column in (SUBJECT, RECORD))
    several = {task: np.tile(column, len(draws)) for task, column in targets.items()}
    return WindowSet(samples, several, *(np.tile(column, len(draws)) for column in columns))


def _trained(context: Context, job: PageJob, recipe: Recipe, windows: WindowSet, tasks: Sequence[str]) -> SignalModel:
    """Network of a recipe after its epochs."""
    n_leads, n_samples = (N_ROWS, POINTS) if recipe.beats else (len(STANDARD_LEADS), round(SECONDS * FS))
    shape = {"n_leads": n_leads, "n_samples": n_samples, "fs": FS, "lead_names": [str(row) for row in range(n_leads)]}
    classes = {task: list(ABSENCE) for task in tasks}
    model = untrained(recipe.kind, job.seed, classes=classes, **shape, **dict(recipe.sizes))
    settings = TrainingSettings(recipe.epochs, BATCH, job.seed, augmentation=None)
    return fit(model, windows, None, settings, context.runs, context.device).model


def page_jobs(context: Context, seed: int) -> list[PageJob]:
    """Every model on every pair of folds that it is asked for, and the judged one on other cohorts.

    The paper's sizes take one pair on a processor, and all on a GPU.
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
    return sorted(jobs, key=lambda job: not dict(RECIPES[job.model].sizes).get("paper", False))


def cohort_table(context: Context) -> pd.DataFrame:
    """Count records, persons and positives of each label of the cohorts that are read."""
    cohort, others = asked_cohorts(context)
    rows = []
    for name in (cohort, *others):
        pages = pages_of(context, name)
        for label, column in pages.labels.items():
            kind, _, of = str(label).partition(" ")
            known = column.dropna()
            rows.append((name, kind, of, len(known), pages.records[SUBJECT].nunique(), int(known.sum())))
    return pd.DataFrame(rows, columns=["cohort", "labels", "label", "records", "persons", "positives"])


def shared(profile: str, seed: int, device: str) -> Iterator[Work]:
    """Jobs of the stage that several processes may share."""
    context = open_context(profile, seed, device)
    yield diagnose, page_jobs(context, seed), context


Scores = dict[tuple[str, str], pd.DataFrame]
"""Log odds by model and view: a row a record, a column a task."""


def scores_of(values: Mapping[str, Reading], jobs: Sequence[PageJob], asked: str) -> Scores:
    """Scores of the records of a cohort, mean over seeds, pooled over folds."""
    parts: dict[tuple[str, str], list[pd.DataFrame]] = {}
    for job in jobs:
        if job.asked == asked and job.name in values:
            found = values[job.name]
            for cell, scores in found.scores.items():
                parts.setdefault(cell, []).append(pd.DataFrame(scores, found.records, found.tasks))
    return {cell: pd.concat(tables).groupby(level=0).mean() for cell, tables in parts.items()}


def evidence_of(values: Mapping[str, Reading], jobs: Sequence[PageJob], pages: Pages, label: str) -> np.ndarray:
    """Mean evidence for a label over the records that have it and their models, (len(PIECES),); NaN without any."""
    positive, parts = set(pages.records[RECORD][pages.labels[label] == 1]), []
    for job in jobs:
        found = values.get(job.name)
        if found is not None and found.evidence is not None and job.asked == job.cohort and label in found.tasks:
            rows = [row for row, name in enumerate(found.records) if name in positive]
            parts.append(found.evidence[rows][..., found.tasks.index(label)])
    return np.concatenate(parts).mean(axis=0) if parts else np.full(len(PIECES), np.nan)
