"""Ingestion: every record of a cohort read, checked, filtered, delineated and written to a store.

Records are worked on in parallel processes. A worker writes its signals
straight to their place in the signal file and hands back only table rows, so
memory does not grow with the cohort's signals.
"""

import json
import pickle
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.metadata import version
from itertools import chain, groupby, islice
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

import numpy as np
import pandas as pd
from filelock import FileLock
from joblib import Parallel, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError

from ecgstudy.data import base
from ecgstudy.data.base import Cohort, Signal
from ecgstudy.errors import NothingUsableError, RecordError, StudyError
from ecgstudy.evaluate import disjoint
from ecgstudy.evaluate.disjoint import duplicated_waveforms
from ecgstudy.signals import delineation, quality, store
from ecgstudy.signals import preprocess as signals
from ecgstudy.signals.delineation import FIDUCIAL_COLUMNS, Failure
from ecgstudy.signals.store import RecordStore
from ecgstudy.study import cache as cache_code
from ecgstudy.study.cache import (
    KEY_LENGTH,
    PARTIAL,
    cache_key,
    code_digest,
    naming_disk_errors,
    new_folder,
    waveform_digest,
)
from ecgstudy.study.parallel import progress

REFERENCE_LEADS = ("II", "MLII", "I", "V5", "V4", "V6", "V2", "V3", "V1", "aVF", "III", "aVL", "aVR")
"""Leads for beats, best first: along the heart's axis, where P waves and R peaks are clearest."""

_COHORT = "cohort.pickle"
_TASK_SECONDS = 640
"""Recording time that a task holds: 64 ten-second records, as many as the simulator makes at once, or a long one."""
_FILTERED_AT_ONCE = 16
"""Records filtered in one call: enough to share its fixed cost, few enough to stay in the processor's cache."""
_DUPLICATES_NAMED = 3
_MADE_BY = (base, signals, quality, delineation, cache_code, disjoint, store)
_MADE_WITH = ("neurokit2", "numpy", "scipy", "wfdb")


@dataclass(frozen=True)
class _Plan:
    """What a worker must know of the store it fills."""

    folder: Path
    fs: float
    delineate: bool
    min_seconds: float


@dataclass(frozen=True)
class _Outcome:
    """What became of one record: a row of the record table, or one of the exclusions.

    `beats` has shape (n_beats, 9): the fiducials in seconds.
    """

    record_id: str
    kept: dict[str, object] | None = None
    excluded: dict[str, object] | None = None
    flaws: list[tuple[str, int, int, str]] = field(default_factory=list)
    beats: np.ndarray | None = None


@dataclass(frozen=True)
class _Read:
    """A record that was read and has at least one usable lead: its table row, samples and lead problems."""

    record: dict[str, object]
    signal: Signal
    problems: dict[str, str]

    def shape(self) -> tuple[float, int]:
        """Rate and length, which records must share to be filtered together."""
        return self.signal.fs, self.signal.values.shape[-1]


def build_store(
    cohort: Cohort,
    cache: Path,
    fs: float = 100.0,
    delineate: bool = True,
    min_seconds: float = 5.0,
    workers: int = 2,
) -> RecordStore:
    """Make a cohort's store, or open the one that the same inputs made before.

    A record that cannot be read or used, or that has the waveform of another
    person's record, is left out and listed in ``exclusions`` with its reason;
    the other records are unharmed.

    Parameters
    ----------
    cohort : Cohort
        Where records come from.
    cache : pathlib.Path
        Folder to make ``store-<cohort>-<key>`` in.
    fs : float
        Sampling rate of the stored signals in Hz.
    delineate : bool
        Find P, QRS and T boundaries, and not only R peaks, in each record's reference lead.
    min_seconds : float
        A shorter record is left out: too few beats to characterise anybody.
    workers : int
        Processes side by side.

    Raises
    ------
    NothingUsableError
        No record can be used.
    StudyError
        A table of the cohort is damaged, no space is left, or a worker process was killed.
    """
    made_from = {
        "cohort": cohort.name,
        "cohort_digest": cohort.digest(),
        "code_digest": code_digest(*_MADE_BY, sys.modules[__name__], *_reading_modules(cohort)),
        "fs": float(fs),
        "delineate": delineate,
        "min_seconds": float(min_seconds),
        "versions": {name: version(name) for name in _MADE_WITH},
    }
    key = cache_key(**made_from)
    folder = cache / f"store-{cohort.name}-{key[:KEY_LENGTH]}"
    with naming_disk_errors(cache):
        cache.mkdir(parents=True, exist_ok=True)
    # a second process that wants the same store waits here and then opens the first one's
    with FileLock(cache / f".store-{cohort.name}.lock"):
        if not store.is_complete(folder):
            _remove_abandoned(cache, cohort.name)
            with new_folder(folder) as partial:
                plan = _Plan(partial, float(fs), delineate, min_seconds)
                _fill(cohort, plan, workers, made_from | {"key": key})
    return RecordStore(folder)


def _reading_modules(cohort: Cohort) -> set[ModuleType]:
    """Modules of the cohort's classes, and of the functions of the cohorts' package that they import."""
    found: set[ModuleType] = set()
    pending = [sys.modules[made_of.__module__] for made_of in type(cohort).__mro__ if issubclass(made_of, Cohort)]
    while pending:
        module = pending.pop()
        if module not in found:
            found.add(module)
            origins = {str(getattr(value, "__module__", "")) for value in vars(module).values()}
            pending += [sys.modules[origin] for origin in origins if origin.startswith(f"{base.__package__}.")]
    return found


def _remove_abandoned(cache: Path, cohort_name: str) -> None:
    """Delete what killed builds of this cohort left; the caller's lock says that none is running."""
    abandoned = re.compile(rf"store-{re.escape(cohort_name)}-[0-9a-f]{{{KEY_LENGTH}}}{re.escape(PARTIAL)}")
    for folder in cache.iterdir():
        if abandoned.fullmatch(folder.name):
            shutil.rmtree(folder)


def _fill(cohort: Cohort, plan: _Plan, workers: int, manifest: dict[str, object]) -> None:
    """Write every file of a store, the manifest last."""
    records = cohort.records()
    records["store_samples"] = np.rint(records["n_samples"] * plan.fs / records["fs"]).astype(np.int64)
    sizes = records["store_samples"] * records["leads"].map(len).astype(np.int64)
    records["offset"] = sizes.cumsum() - sizes
    # every record has its place from the start, so that workers need not wait for each other;
    # the place of an excluded record stays a hole, which takes no room on the disk
    with (plan.folder / store.SIGNALS).open("wb") as handle:
        handle.truncate(4 * int(sizes.sum()))
    (plan.folder / _COHORT).write_bytes(pickle.dumps(cohort))
    outcomes = {done.record_id: done for done in _run(_tasks(records), plan, workers, cohort.name, len(records))}
    (plan.folder / _COHORT).unlink()

    in_order = _without_duplicates([outcomes[record_id] for record_id in records["record_id"]], records)
    kept = [done for done in in_order if done.kept]
    exclusions = pd.DataFrame(
        [*_header_failures(cohort), *(done.excluded for done in in_order if done.excluded)],
        columns=list(store.EXCLUSION_COLUMNS),
    )
    if not kept:
        raise NothingUsableError(_nothing_left(cohort, exclusions), exclusions)
    _write_tables(plan.folder, records, kept, exclusions)
    manifest |= {"records": len(kept), "excluded": len(exclusions), "complete": True}
    (plan.folder / store.MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _tasks(records: pd.DataFrame) -> list[list[dict[str, object]]]:
    """Split the record table into tasks of about equal work, in order."""
    columns = ["record_id", "subject_id", "leads", "fs", "n_samples", "store_samples", "offset", "gaps"]
    seconds = records["n_samples"] / records["fs"]
    task_of = ((seconds.cumsum() - seconds) // _TASK_SECONDS).to_numpy()
    return [part.to_dict("records") for _, part in records.reindex(columns=columns, fill_value=()).groupby(task_of)]


def _run(
    tasks: list[list[dict[str, object]]], plan: _Plan, workers: int, name: str, n_records: int
) -> Iterator[_Outcome]:
    """Work on all tasks in parallel and give each record's outcome as it is ready."""
    # loky starts clean processes: forking a notebook kernel that has loaded torch may hang
    parallel = Parallel(n_jobs=workers, return_as="generator_unordered", batch_size=1)
    done = chain.from_iterable(parallel(delayed(_ingest)(plan, task) for task in tasks))
    try:
        yield from progress(done, total=n_records, desc=f"{name}: reading")
    except TerminatedWorkerError as killed:
        raise StudyError(
            f"A process that read {name} was killed, most likely because memory ran out; close other programs or "
            "use workers=1, and run the same command again."
        ) from killed


@lru_cache(maxsize=1)
def _load_cohort(path: Path, _written_ns: int) -> Cohort:
    """Cohort that the parent process left; once in a worker, not once a task."""
    return pickle.loads(path.read_bytes())


def _ingest(plan: _Plan, task: list[dict[str, object]]) -> list[_Outcome]:
    """Work on a task's records, one after the other."""
    handed_over = plan.folder / _COHORT
    cohort = _load_cohort(handed_over, handed_over.stat().st_mtime_ns)
    outcomes, usable = [], []
    for record in task:
        found = _read_record(cohort, plan, record)
        if isinstance(found, _Outcome):
            outcomes.append(found)
        else:
            usable.append(found)
    alike = groupby(sorted(usable, key=_Read.shape), key=_Read.shape)
    with (plan.folder / store.SIGNALS).open("r+b") as signal_file:
        for _, group in alike:
            while block := list(islice(group, _FILTERED_AT_ONCE)):
                outcomes += _store_records(plan, block, signal_file)
    return outcomes


def _read_record(cohort: Cohort, plan: _Plan, record: dict) -> _Outcome | _Read:
    """Read one record and check it."""
    try:
        signal = cohort.signal(record["record_id"])
        if (signal.leads, signal.values.shape[-1], signal.fs) != (record["leads"], record["n_samples"], record["fs"]):
            raise RecordError(record["record_id"], "holds other leads, samples or a rate than the cohort's table says")
    except RecordError as unreadable:
        return _unreadable(cohort, unreadable, record["record_id"], record["subject_id"])
    seconds = signal.values.shape[-1] / signal.fs
    problems = quality.lead_problems(signal)
    if seconds < plan.min_seconds or len(problems) == len(signal.leads):
        # asked only now, because it looks at every lead once more
        reason = quality.record_problem(signal, plan.min_seconds)
        what = "; ".join(f"lead {lead} is {why}" for lead, why in problems.items())
        if reason == quality.Problem.TOO_SHORT:
            what = f"it lasts {seconds:g} s, less than {plan.min_seconds:g} s"
        return _left_out(record, reason, f"{what}; {quality.REMEDIES[reason]}")
    return _Read(record, signal, problems)


def _store_records(plan: _Plan, block: Sequence[_Read], signal_file: BinaryIO) -> list[_Outcome]:
    """Filter records of one rate and length together, find their beats and write them to their places."""
    # every lead is filtered by itself, so the leads of several records can share the cost of one call
    together = Signal(
        np.concatenate([read.signal.values for read in block]),
        block[0].signal.fs,
        tuple(lead for read in block for lead in read.signal.leads),
        "",
    )
    try:
        filtered = signals.preprocess(together, plan.fs).values
    except StudyError as unfit:
        sentence = str(unfit).rstrip(".")
        return [_left_out(read.record, quality.Problem.UNREADABLE, sentence) for read in block]
    ends = np.cumsum([len(read.signal.leads) for read in block])
    outcomes = []
    for read, values in zip(block, np.split(filtered, ends[:-1]), strict=True):
        stored = replace(read.signal, values=np.ascontiguousarray(values, dtype="<f4"), fs=plan.fs)
        outcome = _with_beats(plan, read, stored)
        if outcome.kept:
            signal_file.seek(stored.values.itemsize * read.record["offset"])
            signal_file.write(stored.values)
        outcomes.append(outcome)
    return outcomes


def _with_beats(plan: _Plan, read: _Read, stored: Signal) -> _Outcome:
    """Find a record's beats in the best lead that shows them; without any it is left out."""
    signal, problems = read.signal, read.problems
    seconds = signal.values.shape[-1] / signal.fs
    candidates = reference_leads(signal.leads, problems)
    for reference in candidates:
        beats, failure = _find_beats(signal.select([reference]), plan.delineate)
        if not (no_beats := quality.beat_problem(beats, seconds)):
            break
    else:
        what = (
            f"too few beats were found in {seconds:g} s of lead {', '.join(candidates)}; {quality.REMEDIES[no_beats]}"
        )
        return _left_out(read.record, no_beats, what)
    kept = {
        "usable_leads": tuple(lead for lead in signal.leads if lead not in problems),
        "reference_lead": reference,
        "delineation_failure": failure,
        "sha256": waveform_digest(signal.values),
    }
    flaws = quality.flaws(signal, stored, problems, read.record["gaps"])
    return _Outcome(read.record["record_id"], kept, None, flaws, beats)


def reference_leads(leads: Sequence[str], problems: Mapping[str, str]) -> list[str]:
    """Leads without a problem, best for beats first: in the order of :data:`REFERENCE_LEADS`, then any other."""
    usable = [lead for lead in leads if lead not in problems]
    return [lead for lead in dict.fromkeys((*REFERENCE_LEADS, *usable)) if lead in usable]


def _find_beats(signal: Signal, with_boundaries: bool) -> tuple[np.ndarray, str | None]:
    """Fiducials of a single-lead signal in seconds, shape (n_beats, 9), and why boundaries are missing, or None."""
    lead = signal.values[0]
    failure = None
    if with_boundaries:
        found = delineation.delineate(lead, signal.fs)
        if not isinstance(found, Failure):
            return found.table()[list(FIDUCIAL_COLUMNS)].to_numpy(dtype=float) / signal.fs, None
        failure = found.reason
    peaks = delineation.rpeaks(lead, signal.fs)
    beats = np.full((len(peaks), len(FIDUCIAL_COLUMNS)), np.nan)
    beats[:, FIDUCIAL_COLUMNS.index("r_peak")] = peaks / signal.fs
    return beats, failure


def _without_duplicates(outcomes: list[_Outcome], records: pd.DataFrame) -> list[_Outcome]:
    """Exclude records whose waveform also stands under another person: nobody can tell whose it is."""
    digest = [done.kept["sha256"] if done.kept else None for done in outcomes]
    shared = duplicated_waveforms(records.assign(sha256=digest))
    copied, excluded = quality.Problem.DUPLICATE, {}
    for _, group in shared.groupby("sha256"):
        for record in group.to_dict("records"):
            others = group.loc[group["subject_id"] != record["subject_id"], "record_id"].tolist()
            named = ", ".join(others[:_DUPLICATES_NAMED]) + (", ..." if len(others) > _DUPLICATES_NAMED else "")
            what = f"the same waveform stands under another person ({named}); {quality.REMEDIES[copied]}"
            excluded[record["record_id"]] = _left_out(record, copied, what)
    return [excluded.get(done.record_id, done) for done in outcomes]


def _inside(cohort: Cohort, file: str) -> str:
    """File's place below the cohort's folder: tables are published, a reader's folders are not."""
    if cohort.root is not None and Path(file).is_relative_to(cohort.root):
        return Path(file).relative_to(cohort.root).as_posix()
    return file


def _unreadable(cohort: Cohort, error: RecordError, record_id: str, subject_id: str | None) -> _Outcome:
    """Exclude a record that could not be read."""
    shown = RecordError(_inside(cohort, error.file), error.reason, error.remedy)
    return _excluded(record_id, subject_id, shown.file, quality.Problem.UNREADABLE, str(shown))


def _left_out(record: dict, reason: str, what: str) -> _Outcome:
    """Exclude a record that was read."""
    record_id = record["record_id"]
    return _excluded(record_id, record["subject_id"], "", reason, f"Record {record_id} was left out: {what}.")


def _excluded(record_id: str, subject_id: str | None, file: str, reason: str, sentence: str) -> _Outcome:
    row = (record_id, subject_id, file, str(reason), sentence)
    return _Outcome(record_id, excluded=dict(zip(store.EXCLUSION_COLUMNS, row, strict=True)))


def _header_failures(cohort: Cohort) -> list[dict[str, object]]:
    """Exclusion rows of the records that did not even reach the cohort's table."""
    return [
        _unreadable(cohort, RecordError(row.file, row.reason, row.remedy), row.record_id, None).excluded
        for row in cohort.failures().itertuples()
    ]


def _nothing_left(cohort: Cohort, exclusions: pd.DataFrame) -> str:
    """Sentence for a cohort without a single usable record."""
    if exclusions.empty:
        return f"The cohort {cohort.name} has no records; {cohort.card.how_to_get}"
    counts = ", ".join(f"{reason} {n}" for reason, n in exclusions["reason"].value_counts().items())
    return f"No record of {cohort.name} can be used ({counts}); the first: {exclusions['sentence'].iloc[0]}"


def _write_tables(folder: Path, records: pd.DataFrame, kept: list[_Outcome], exclusions: pd.DataFrame) -> None:
    """Write the record, flaw, exclusion and beat tables."""
    added = pd.DataFrame([done.kept for done in kept], index=[done.record_id for done in kept])
    table = records.join(added, on="record_id", how="inner").reset_index(drop=True)
    table.to_parquet(folder / store.RECORDS, index=False)
    flaws = pd.DataFrame([(done.record_id, *flaw) for done in kept for flaw in done.flaws], columns=store.FLAW_COLUMNS)
    flaws.astype({"start": int, "stop": int}).to_parquet(folder / store.FLAWS, index=False)
    exclusions.to_parquet(folder / store.EXCLUSIONS, index=False)
    beats = pd.DataFrame(np.concatenate([done.beats for done in kept]), columns=list(FIDUCIAL_COLUMNS))
    beats.insert(0, "record_id", np.repeat([done.record_id for done in kept], [len(done.beats) for done in kept]))
    beats.to_parquet(folder / store.BEATS, index=False)
