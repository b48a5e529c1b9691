"""What a folder of records holds, before anything is run: read for the person in front of it, nothing written."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from ecgstudy.data.base import STANDARD_LEADS
from ecgstudy.data.own import SUBJECTS, FolderCohort
from ecgstudy.errors import DataNotFoundError, RecordError
from ecgstudy.evaluate.splits import duplicated_waveforms
from ecgstudy.signals.preprocess import HIGH_HZ
from ecgstudy.signals.quality import lead_problems
from ecgstudy.study.cache import waveform_digest

NAMED = 10
"""Records that are named one by one; of more, the number is told."""
SAMPLED = 50
"""Records whose samples are looked at, evenly spread: all of a large folder would take minutes."""
SHORTEST_S, LONG_S = 5.0, 1700.0
NOTHING = "No stage can say anything about this folder."
FEWEST = 10
"""Persons of whom fewer give intervals too wide to say anything."""
# rules of stages 05 and 06, whose own modules take seconds to import
LEAST_GROUPED, LEAST_SOUGHT, LEAST_RETURNING = 10, 20, 0.1
LEAST_PRINTED, LEAST_POSITIVES, LEAST_TWELVE, LONGEST_PAGE_S = 20, 5, 0.9, 60.0


def examine(folder: Path) -> Iterator[str]:
    """Lines about a folder of WFDB records: counts, what is missing or suspicious, what each stage will tell.

    Real names are told: print them where the owner of the records reads, and nowhere else.

    Raises
    ------
    DataNotFoundError
        There is no such folder, or no header in it or below it.
    StudyError
        ``subjects.csv`` cannot be read.
    """
    cohort = _opened(folder)
    records, failures = cohort.records(), cohort.failures()
    yield f"{cohort.root}: {_counted(len(records), 'record')} can be read, {len(failures):,} cannot."
    yield from _named([_why(*row) for row in failures.values])
    if records.empty:
        yield NOTHING
        return
    yield from _counts(records)
    yield from (f"Note: {note}" for note in cohort.notes())
    suspicious, unusable = _looked_at(cohort, records)
    yield from suspicious
    unfit, fit = _unfit(records)
    yield from unfit
    usable = records[fit & ~records["record_id"].isin(unusable)]
    if usable.empty:
        yield NOTHING
        return
    yield "What the stages will be able to say:"
    yield from (f"  {line}" for line in expectations(usable))


def _opened(folder: Path) -> FolderCohort:
    """Open a folder, or say in a sentence why it cannot be."""
    if not os.access(folder, os.F_OK):
        raise DataNotFoundError(f"There is no folder {folder}; name the one that holds your WFDB records.")
    if not folder.is_dir():
        raise DataNotFoundError(f"{folder} is a file; name the folder that it lies in.")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise DataNotFoundError(f"{folder} may not be read; give yourself permission to read it.")
    try:
        return FolderCohort(folder)
    except DataNotFoundError:
        what = "put records (.hea with .dat or .mat) into it or into folders below it"
        raise DataNotFoundError(f"{folder} holds no WFDB record; {what}.") from None


def _why(record_id: str, file: str, reason: str, remedy: str) -> str:
    """Tell why a record cannot be read, and which one where the file does not say so."""
    told = str(RecordError(file, reason, remedy))
    return f"{record_id}: {told}" if file == SUBJECTS and record_id != SUBJECTS else told


def _named(sentences: list[str]) -> Iterator[str]:
    """Tell some sentences, and how many more there are."""
    yield from (f"  {sentence}" for sentence in sentences[:NAMED])
    if len(sentences) > NAMED:
        yield f"  ... and {len(sentences) - NAMED:,} more."


def _counted(number: int, noun: str) -> str:
    """Write a number of things."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _counts(records: pd.DataFrame) -> Iterator[str]:
    """Persons, sessions, leads, units, rates, lengths, ages and sexes."""
    persons = records.groupby("subject_id").agg(records=("record_id", "size"), sessions=("session", "nunique"))
    several, days = int((persons["records"] > 1).sum()), int((persons["sessions"] > 1).sum())
    yield f"Persons: {len(persons):,}; {several:,} with several records, {days:,} on several days."
    yield f"Leads: {_tally(records['leads'].explode())}."
    yield f"Units, once volts are scaled: {_tally(records['unit'])}."
    yield f"Sampling rates: {_tally(records['fs'].map('{:g} Hz'.format))}."
    seconds = records["n_samples"] / records["fs"]
    yield f"Length: median {seconds.median():.0f} s, from {seconds.min():.0f} to {seconds.max():.0f} s."
    people = records.drop_duplicates("subject_id")
    ages, sexes = int(people["age"].notna().sum()), int(people["sex"].notna().sum())
    yield f"Age is known of {ages:,} and sex of {sexes:,} of {len(people):,} persons."


def _tally(values: pd.Series) -> str:
    """Values with their counts, the commonest first."""
    counts = values.value_counts()
    told = [f"{value} ({n:,})" for value, n in counts.head(NAMED).items()]
    return ", ".join(told) + (f" and {len(counts) - NAMED} others" if len(counts) > NAMED else "")


def _looked_at(cohort: FolderCohort, records: pd.DataFrame) -> tuple[list[str], set[str]]:
    """Tell what a look at some samples makes one ask about, and which of those records will be left out."""
    chosen = records.iloc[np.unique(np.linspace(0, len(records) - 1, SAMPLED).astype(int))]
    found, unusable, waveforms = [], set(), {}
    for record_id, leads in chosen[["record_id", "leads"]].itertuples(index=False):
        try:
            signal = cohort.signal(record_id)
            problems = lead_problems(signal)
            found += [f"{record_id}: lead {lead} is {problem}." for lead, problem in problems.items()]
            if len(problems) < len(leads):
                waveforms[record_id] = waveform_digest(signal.values)
                continue
        except RecordError as error:
            found.append(str(error))
        except Exception as strange:  # whatever a record brings about is its own
            found.append(f"{record_id} cannot be processed ({type(strange).__name__}).")
        unusable.add(record_id)
    read = chosen[~chosen["record_id"].isin(unusable)]
    for _, alike in duplicated_waveforms(read.assign(sha256=read["record_id"].map(waveforms))).groupby("sha256"):
        found.append(f"{', '.join(alike['record_id'])}: the same waveform stands under several persons.")
        unusable |= set(alike["record_id"])
    told = [
        f"Suspicious, of {_counted(len(chosen), 'record')} whose samples were looked at: {len(found) or 'nothing'}."
    ]
    told += _named(found)
    if unusable:
        told.append(f"Of these, {_counted(len(unusable), 'record')} will be left out.")
    if len(unusable) == len(chosen):  # nor can one hope for the others
        unusable = set(records["record_id"])
    return told, unusable


def _unfit(records: pd.DataFrame) -> tuple[list[str], pd.Series]:
    """Tell how many records last too short or are sampled too slowly for the study's band, and which are neither."""
    short = records["n_samples"] < SHORTEST_S * records["fs"]
    slow = ~short & (records["fs"] <= 2 * HIGH_HZ)
    reasons = {f"shorter than {SHORTEST_S:g} s": int(short.sum()), f"of {2 * HIGH_HZ:g} Hz or less": int(slow.sum())}
    told = [f"{_counted(number, 'record')} {why} will be left out." for why, number in reasons.items() if number]
    return told, ~(short | slow)


def _released(records: pd.DataFrame, several: int, long: bool) -> str:
    """Say what can be asked of protected records, where `several` persons have several records."""
    n_persons = records["subject_id"].nunique()
    if n_persons < LEAST_GROUPED:
        return f"not applicable, because three groups of people need {LEAST_GROUPED} persons or more"
    known = [name for name in ("sex", "age") if records[name].notna().any()]
    known += ["diagnoses"] if records["diagnoses"].map(len).any() else []
    asked = f"what protected records still say of {', '.join(known)}" if known else "sex, age and diagnoses are unknown"
    if n_persons >= LEAST_SOUGHT and several >= LEAST_RETURNING * n_persons and not long:
        return f"{asked}; persons are sought in them"
    return f"{asked}; nobody is sought, which needs {LEAST_SOUGHT} persons, a tenth of them with several short records"


def _printed(records: pd.DataFrame) -> str:
    """Say whether diagnoses can be read from printed pages, or what that lacks."""
    twelve = records["leads"].map(set(STANDARD_LEADS).issubset).mean() >= LEAST_TWELVE
    short = (records["n_samples"] / records["fs"]).median() <= LONGEST_PAGE_S
    diagnosed = records["diagnoses"][records["diagnoses"].map(len) > 0]
    positives = diagnosed.map(set).explode().value_counts()
    learnable = positives.between(LEAST_POSITIVES, len(diagnosed) - LEAST_POSITIVES).any()
    lacking = {
        f"all twelve leads in {LEAST_TWELVE:.0%} of the records": twelve,
        f"records of at most {LONGEST_PAGE_S:g} s": short,
        f"{LEAST_PRINTED} persons": records["subject_id"].nunique() >= LEAST_PRINTED,
        f"a diagnosis that {LEAST_POSITIVES} of the diagnosed records have and {LEAST_POSITIVES} have not": learnable,
    }
    if all(lacking.values()):
        return "how well diagnoses are read from pages of any layout"
    return f"not applicable without {', '.join(what for what, there in lacking.items() if not there)}"


def expectations(records: pd.DataFrame) -> list[str]:
    """One line a stage: what a cohort's record table allows to ask."""
    by_person = records.groupby("subject_id")
    several = int((by_person.size() > 1).sum())
    days = int((by_person["session"].max() > by_person["session"].min()).sum())
    long = (records["n_samples"] / records["fs"]).median() > LONG_S
    active = records.dropna(subset="activity") if "activity" in records else records.iloc[:0]
    activities = active["activity"].map(str.casefold).nunique() if len(active) else 0
    people = records.drop_duplicates("subject_id")
    if len(people) < 2:
        linked = "nobody can be told from anybody: there is one person"
    elif several > 1:
        later = f"; {days:,} on another day" if days > 1 else "; not on another day"
        linked = f"{several:,} persons can be sought in another of their records{later}"
    elif long:
        linked = "persons can be sought later in the same record, which is easier than in another one"
    else:
        each = "only one person has several" if several else "each has one"
        linked = f"nobody can be sought in another record: {each} (say whose is whose in {SUBJECTS})"
    # whether a person never seen is read shows where somebody has another record
    labels = (("sex", "sex"), ("age group", "age")) if several > 1 else ()
    known = [name for name, column in labels if len(people[column].dropna().unique()) > 1]
    both = f"person and activity from one network ({activities} activities)"
    dual = min(activities, len(active["subject_id"].unique())) > 1
    return [
        f"01 ingestion: what can be used of {_counted(len(records), 'record')}, and why the others cannot.",
        f"02 re-identification: {linked}; {' and '.join(known) or 'neither sex nor age'} can be guessed and checked.",
        f"03 dual task: {both if dual else 'not applicable, because no two persons in two activities are known'}.",
        f"04 attribution: {'which wave gives a person away' if several > 1 or long else 'not applicable, as 02'}.",
        f"05 de-identification: {_released(records, several, long)}.",
        f"06 layouts: {_printed(records)}.",
        "07 summary: what the stages above have found, in one place.",
        *([f"With {_counted(len(people), 'person')} every interval will be wide."] if len(people) < FEWEST else []),
    ]
