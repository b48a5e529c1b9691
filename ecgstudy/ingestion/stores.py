"""Stores of the cohorts that a profile reads."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ecgstudy.data.base import Cohort
from ecgstudy.data.cohorts import open_cohort
from ecgstudy.data.own import OWN, OWN_PREFIX, SUBJECTS
from ecgstudy.data.pseudonyms import sign
from ecgstudy.data.simulator.heart import CONDITIONS
from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.errors import LeakageError, NothingUsableError, StudyError
from ecgstudy.evaluate.splits import RECORD, SUBJECT, WAVEFORM
from ecgstudy.signals.copies import find_copies
from ecgstudy.signals.ingest import build_store
from ecgstudy.signals.quality import REMEDIES, Problem
from ecgstudy.signals.store import EXCLUSION_COLUMNS, RecordStore
from ecgstudy.study.cache import code_key, library_versions, remember
from ecgstudy.study.config import cache_dir, data_root, is_own

STORE_FS = 100.0
"""Hz. The 0.5-40 Hz band fits below its 50 Hz limit, PTB-XL has it by nature, and models stay small."""
SYNTHETIC_FS = 250.0
"""Hz of the synthetic records, so that ingestion has something to resample."""
EVERY_RECORD = "every record"
"""Stands for the records of a cohort whose table cannot be read, so that nobody can list them."""
SYNTHETIC_DIAGNOSES = dict.fromkeys(CONDITIONS, 0.05)
"""Share of the synthetic persons with each condition; the others are healthy."""


def study_cohort(name: str, seed: int) -> Cohort:
    """Open a cohort as the study uses it; the synthetic one is drawn from `seed`."""
    if name == SyntheticCohort.name:
        return SyntheticCohort(fs=SYNTHETIC_FS, seed=seed, diagnoses=SYNTHETIC_DIAGNOSES)
    return open_cohort(name)


def open_usable_stores(
    profile: str, names: Sequence[str], seed: int, fs: float = STORE_FS
) -> tuple[dict[str, RecordStore], pd.DataFrame]:
    """Ingest cohorts into the cache of a profile, or open what an earlier run ingested.

    Gives the stores by cohort, and the records (column cohort and
    :data:`~ecgstudy.signals.store.EXCLUSION_COLUMNS`) of the cohorts that hold nothing usable. Copies of records are
    left out (:func:`without_copies`). ``StudyError`` where a cohort is absent, none holds a usable record,
    folders contradict each other, no space is left, or a worker process was killed.

    Parameters
    ----------
    profile : str
        "demo" or "real": names the cache.
    names : sequence of str
        Cohorts, see ``python -m ecgstudy cohorts``.
    seed : int
        Seed of the synthetic cohort.
    fs : float
        Sampling rate of the stored signals in Hz.
    """
    stores, lost, sentences = {}, [pd.DataFrame(columns=["cohort", *EXCLUSION_COLUMNS])], []
    if is_own(profile):
        sign(profile, data_root() / OWN)
    for name in names:
        try:
            stores[name] = _open(study_cohort(name, seed), profile, fs)
        except NothingUsableError as unusable:
            lost.append(unusable.exclusions.assign(cohort=name)[lost[0].columns])
            sentences.append(str(unusable))
    stores = without_copies(stores, cache_dir(profile)) if stores else {}
    for name in [name for name, store in stores.items() if store.records.empty]:
        lost.append(stores.pop(name).exclusions.assign(cohort=name)[lost[0].columns])
    if not stores:
        raise StudyError(" ".join(sentences))
    return stores, pd.concat(lost[1:] or lost, ignore_index=True)


def without_copies(stores: Mapping[str, RecordStore], cache: Path) -> dict[str, RecordStore]:
    """Leave out of stores what is a copy of another record (:mod:`ecgstudy.signals.copies`), each with a reason.

    Of copies under one person the first stays, of those under several none: nobody can tell whose they are. All records
    of a person go where one is a copy of an earlier cohort's: cohorts must not share persons. ``LeakageError`` where a
    person of one folder of one's own is two in the other.
    """
    records = pd.concat([store.records.assign(cohort=name) for name, store in stores.items()], ignore_index=True)
    records["person"], records["first"] = (records["cohort"] + "/" + records[of] for of in (SUBJECT, RECORD))
    records["recording"] = _recordings(stores, records[WAVEFORM], cache)
    kept, known = dict(stores), records[["recording", "person", "first"]].rename(columns={"person": "there"}).head(0)
    for name, store in stores.items():
        left_out = _copies_within(records[records["cohort"] == name])
        own = records[(records["cohort"] == name) & ~records[RECORD].isin([row[0] for row in left_out])]
        there, elsewhere = _persons_elsewhere(own.drop(columns="first").merge(known, on="recording"), own)
        if left_out := left_out + elsewhere:
            kept[name] = RecordStore(store.folder, pd.DataFrame(left_out, columns=EXCLUSION_COLUMNS))
        own = own.assign(there=own[SUBJECT].map(there).fillna(own["person"]))
        known = pd.concat([known, own[known.columns]]).drop_duplicates("recording")
    return kept


def _recordings(stores: Mapping[str, RecordStore], waveforms: pd.Series, cache: Path) -> np.ndarray:
    """Tell by a number which recording each record of the stores is; copies are one recording."""
    rows = [(store, row) for store in stores.values() for row in store.records.itertuples()]

    def lead(number: int) -> np.ndarray:
        store, row = rows[number]
        return store.signal(row.record_id)[row.leads.index(row.reference_lead)]

    def search() -> list[tuple[int, int]]:
        by_record = {store: dict(list(store.beats.groupby(RECORD)["r_peak"])) for store in stores.values()}
        peaks = [by_record[store].get(row.record_id, pd.Series(dtype=float)).dropna() for store, row in rows]
        return find_copies([np.sort(own.to_numpy()) for own in peaks], lead, rows[0][0].fs)

    made_from = {"stores": {name: store.manifest["key"] for name, store in stores.items()}}
    made_from |= {"code": code_key(find_copies), "versions": library_versions(("numpy", "scipy"))}
    near, _ = remember(cache, "copies", made_from, search)
    numbers = np.arange(len(waveforms))
    equal = pd.Series(numbers).groupby(waveforms.to_numpy()).transform("first")
    pairs = np.concatenate([np.reshape(near, (-1, 2)), np.stack([equal, numbers], axis=1)]).astype(np.int64)
    graph = coo_matrix((np.ones(len(pairs)), pairs.T), shape=(len(numbers),) * 2)
    return connected_components(graph, directed=False)[1]


def _copies_within(records: pd.DataFrame) -> list[tuple[str, ...]]:
    """Exclusions of a cohort's copies: all but the first of a person's, all of several persons'."""
    left_out = []
    for _, copies in records[records.duplicated("recording", keep=False)].groupby("recording", sort=False):
        for number, row in enumerate(copies.itertuples()):
            others = copies.loc[copies[SUBJECT] != row.subject_id, RECORD][:3]
            if len(others):
                what = f"the same recording stands under another person ({', '.join(others)})"
                left_out.append(_excluded(row, Problem.DUPLICATE, what))
            elif number:
                left_out.append(_excluded(row, Problem.COPY, f"it is a copy of {copies[RECORD].iloc[0]}"))
    return left_out


def _persons_elsewhere(shared: pd.DataFrame, own: pd.DataFrame) -> tuple[pd.Series, list[tuple[str, ...]]]:
    """Persons of a cohort by whom they are in an earlier one, and the exclusions of all of their records.

    `shared` are the records of the cohort's `own` that are copies, with the `first` such record and who it is `there`.
    """
    pairs = shared.drop_duplicates([SUBJECT, "there"])
    doubtful = pairs[pairs.duplicated(SUBJECT, keep=False) | pairs.duplicated("there", keep=False)]
    for row in doubtful[doubtful["cohort"].str.startswith(OWN_PREFIX)].itertuples():
        raise LeakageError(
            f"Record {row.record_id} of {row.cohort} is {row.first} too, and who is who differs between the two "
            f"folders: what is one person in one is two in the other. Mend {SUBJECTS}, or remove one of the folders."
        )
    there, first = pairs.drop_duplicates(SUBJECT).set_index(SUBJECT)["there"], shared.set_index(RECORD)["first"]
    left_out = []
    for row in own[own[SUBJECT].isin(there.index)].itertuples():
        copy = first.get(row.record_id)
        what = f"it is {copy} too" if copy else f"its person is {there[row.subject_id]}, by another record"
        left_out.append(_excluded(row, Problem.ELSEWHERE, what))
    return there, left_out


def _excluded(row: NamedTuple, problem: Problem, what: str) -> tuple[str, str, str, str, str]:
    """Row of the table of exclusions."""
    sentence = f"Record {row.record_id} was left out: {what}; {REMEDIES[problem]}."
    return row.record_id, row.subject_id, "", str(problem), sentence


def _open(cohort: Cohort, profile: str, fs: float) -> RecordStore:
    """Open a cohort's store; no record can be used where its table cannot be read."""
    try:
        cohort.records()
    except StudyError as damaged:
        # the sentence goes into tables, which name no folder of this machine
        sentence = str(damaged).replace(f"{cohort.root}/", f"{cohort.name}/")
        row = (EVERY_RECORD, None, "", str(Problem.UNREADABLE), sentence)
        raise NothingUsableError(str(damaged), pd.DataFrame([row], columns=EXCLUSION_COLUMNS)) from damaged
    return build_store(cohort, cache_dir(profile), fs)
