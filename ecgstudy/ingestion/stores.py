"""Stores of the cohorts that a profile reads."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from ecgstudy.data.base import Cohort
from ecgstudy.data.cohorts import open_cohort
from ecgstudy.data.own import OWN, OWN_PREFIX, SUBJECTS
from ecgstudy.data.pseudonyms import sign
from ecgstudy.data.simulator.heart import CONDITIONS
from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.errors import LeakageError, NothingUsableError, StudyError
from ecgstudy.evaluate.splits import RECORD, SUBJECT, WAVEFORM
from ecgstudy.signals.ingest import build_store
from ecgstudy.signals.quality import REMEDIES, Problem
from ecgstudy.signals.store import EXCLUSION_COLUMNS, RecordStore
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
    :data:`~ecgstudy.signals.store.EXCLUSION_COLUMNS`) of the cohorts that hold nothing usable. A person of two
    folders of one's own stays in the first. ``StudyError`` where a cohort is absent, none holds a usable record,
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
    for name, copies in _copies(stores).items():
        stores[name] = RecordStore(stores[name].folder, copies)
        if stores[name].records.empty:
            lost.append(stores.pop(name).exclusions.assign(cohort=name)[lost[0].columns])
    if not stores:
        raise StudyError(" ".join(sentences))
    return stores, pd.concat(lost[1:] or lost, ignore_index=True)


def _copies(stores: Mapping[str, RecordStore]) -> dict[str, pd.DataFrame]:
    """Find records, as exclusions, of persons of own folders whom an earlier folder holds: both have a waveform.

    All records of such a person go: cohorts must not share persons. ``LeakageError`` where a person of one folder is
    two in the other.
    """
    found, known = {}, pd.DataFrame(columns=[WAVEFORM, "there", "first"])
    for name in [name for name in stores if name.startswith(OWN_PREFIX)]:
        records = stores[name].records
        shared = records.merge(known, on=WAVEFORM)
        pairs = shared.drop_duplicates([SUBJECT, "there"])
        doubtful = pairs[pairs.duplicated(SUBJECT, keep=False) | pairs.duplicated("there", keep=False)]
        for row in doubtful.itertuples():
            raise LeakageError(
                f"Record {row.record_id} of {name} is {row.first} too, and who is who differs between the two folders: "
                f"what is one person in one is two in the other. Mend {SUBJECTS}, or remove one of the folders."
            )
        there = pairs.set_index(SUBJECT)["there"]
        copies = records[records[SUBJECT].isin(there.index)]
        first = shared.set_index(RECORD)["first"]
        if len(copies):
            found[name] = pd.DataFrame(
                [_excluded(row, first.get(row.record_id), there[row.subject_id]) for row in copies.itertuples()],
                columns=EXCLUSION_COLUMNS,
            )
        own = records.assign(there=records[SUBJECT].map(there).fillna(f"{name}/" + records[SUBJECT]))
        known = pd.concat([known, own.assign(first=f"{name}/" + own[RECORD])[known.columns]]).drop_duplicates(WAVEFORM)
    return found


def _excluded(row: NamedTuple, first: str | None, person: str) -> tuple[str, str, str, str, str]:
    """Row of the table of exclusions for a record that is, or whose person is, of an earlier folder too."""
    what = f"it is {first} too" if first else f"its person is {person}, by another record"
    sentence = f"Record {row.record_id} was left out: {what}; {REMEDIES[Problem.ELSEWHERE]}."
    return row.record_id, row.subject_id, "", str(Problem.ELSEWHERE), sentence


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
