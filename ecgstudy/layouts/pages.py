"""Whose pages are read: cohorts of twelve leads, their records as they are, labels and folds."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ecgstudy.data.base import STANDARD_LEADS, Cohort
from ecgstudy.data.cohorts import cohorts_of, open_cohort
from ecgstudy.data.simulator.heart import CONDITIONS
from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.deidentification.readers import diagnosis_table
from ecgstudy.errors import NotApplicableError
from ecgstudy.evaluate.splits import RECORD, SUBJECT
from ecgstudy.experiment.jobs import Context
from ecgstudy.ingestion.stores import STORE_FS, SYNTHETIC_FS, open_usable_stores
from ecgstudy.layouts.beats import masks, recordings, sheets
from ecgstudy.layouts.layout import Layout
from ecgstudy.signals.ingest import build_store
from ecgstudy.study.config import cache_dir

SUBCLASS, SUPERCLASS, AF = "subclass", "superclass", "af"
DIAGNOSES = ("diagnosis", "diagnoses")
LABEL_COLUMNS = {SUBCLASS: ("subclasses", *DIAGNOSES), SUPERCLASS: ("superclasses",), AF: ("rhythm", *DIAGNOSES)}
FIBRILLATION = ("AFIB", "Atrial fibrillation")
FIBRILLATES = f"{AF} AFIB"
LEAST_POSITIVES, LEAST_PERSONS = 5, 20
LEAST_TWELVE, LONGEST_S = 0.9, 60.0
"""A cohort is asked where so many of its records have twelve leads, and where they are no longer."""
SYNTHETIC_PERSONS = 100
CLASSES = pd.read_csv(Path(__file__).with_name("classes.csv"), index_col="code")
"""PTB-XL's classes and subclasses in `words`, and `patchecg`'s published AUROC of the latter on layout 3x4."""


def open_context(profile: str, seed: int, device: str, asked: Sequence[str] = ()) -> Context:
    """Context of the stage's jobs, with all cohorts or those that are `asked`.

    The demo's cohort is its own, or diagnoses would be too rare to be learnt.
    """
    if profile == "demo":
        cohort = _synthetic(seed)
        stores = {cohort.name: build_store(cohort, cache_dir(profile))}
    else:
        stores = open_usable_stores(profile, asked or cohorts_of(profile), seed, STORE_FS)[0]
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

    def of(self, rows: np.ndarray) -> "Pages":
        """Give some of the records."""
        records, labels = (table.iloc[rows].reset_index(drop=True) for table in (self.records, self.labels))
        return Pages(records, self.values[rows], labels, self.fold[rows])

    def sheets(self, layouts: Sequence[Layout]) -> np.ndarray:
        """Pages of the records, one layout each, as :func:`ecgstudy.layouts.beats.sheets` gives them."""
        return sheets(self.values, masks(layouts, self.values.shape[-1]))


def pages_of(context: Context, name: str) -> Pages:
    """Read the records of a cohort, once a process; folds are the publisher's, or drawn by person."""

    def read() -> Pages:
        records = context.records(name)
        records = records[_twelve(records)].reset_index(drop=True)
        values = recordings(cohort_of(context, name), [record.partition("/")[2] for record in records[RECORD]])
        persons, owner = np.unique(records[SUBJECT], return_inverse=True)
        fold = 1 + np.random.default_rng(context.split_seed).permutation(np.arange(persons.size) % 10)[owner]
        return Pages(records, values, label_table(records), records.get("strat_fold", pd.Series(fold)).to_numpy())

    return context.shared(("pages", name), read)


def _twelve(records: pd.DataFrame) -> pd.Series:
    """Whether each record has all twelve leads."""
    return records["leads"].map(lambda leads: set(STANDARD_LEADS) <= set(leads))


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
        if _twelve(records).mean() >= LEAST_TWELVE and (records["store_samples"] / store.fs).median() <= LONGEST_S:
            twelve.append((records[SUBJECT].nunique(), name, label_table(records)))
    able = [(size, name) for size, name, labels in twelve if size >= LEAST_PERSONS and _sets(labels)]
    if not able:
        raise NotApplicableError(
            f"pages are read for diagnoses, and no cohort has {LEAST_PERSONS} persons or more with short records of "
            f"all twelve leads and a diagnosis that {LEAST_POSITIVES} records or more share"
        )
    chosen = max(able)[1]
    return chosen, tuple(name for _, name, labels in twelve if name != chosen and FIBRILLATES in labels)


def _sets(labels: pd.DataFrame) -> bool:
    """Whether a diagnosis can be learnt: some have it, others do not."""
    mine = labels.filter(regex=f"^({SUBCLASS}|{SUPERCLASS}) ")
    return bool(((mine.sum() >= LEAST_POSITIVES) & ((mine == 0).sum() >= LEAST_POSITIVES)).any())


def cohort_table(context: Context) -> pd.DataFrame:
    """Count records, persons and positives of each label of the cohorts that are read."""
    cohort, others = asked_cohorts(context)
    rows = []
    for name in (cohort, *others):
        pages = pages_of(context, name)
        for label, column in pages.labels.items():
            kind, _, of = str(label).partition(" ")
            rows.append((name, kind, of, column.count(), pages.records[SUBJECT].nunique(), int(column.sum())))
    return pd.DataFrame(rows, columns=["cohort", "labels", "label", "records", "persons", "positives"])
