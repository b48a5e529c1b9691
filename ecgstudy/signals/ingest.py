"""Ingestion: every record of a cohort read, checked, filtered, delineated and written to a store.

Workers write their signals straight to their place in the signal file and hand back table rows, so that memory does
not grow with the cohort.
"""

import errno
import json
import pickle
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout
from joblib.externals.loky.process_executor import TerminatedWorkerError

from ecgstudy.data.base import Cohort
from ecgstudy.errors import NothingUsableError, RecordError, StudyError
from ecgstudy.evaluate.splits import duplicated_waveforms
from ecgstudy.signals import delineation, quality, store
from ecgstudy.signals.delineation import FIDUCIAL_COLUMNS
from ecgstudy.signals.preprocess import preprocess
from ecgstudy.signals.quality import Problem
from ecgstudy.signals.store import RecordStore
from ecgstudy.study import cache as cached
from ecgstudy.study.parallel import in_parallel

REFERENCE_LEADS = ("II", "MLII", "I", "V5", "V4", "V6", "V2", "V3", "V1", "aVF", "III", "aVL", "aVR")
"""Leads for beats, best first: along the heart's axis, where P waves and R peaks are clearest."""

_COHORT = "cohort.pickle"
_TASK_SECONDS = 640
"""Recording time that a task holds: 64 ten-second records, as many as the simulator makes at once, or a long one."""
_DUPLICATES_NAMED = 3


class _Plan(NamedTuple):
    """What a worker must know of the store it fills."""

    folder: Path
    fs: float
    delineate: bool
    min_seconds: float


class _Outcome(NamedTuple):
    """What became of a record: its row in the table of exclusions, or what is added to its row of the record table."""

    record_id: str
    excluded: tuple | None = None
    kept: dict[str, object] | None = None
    flaws: Sequence[tuple[str, int, int, str]] = ()
    beats: np.ndarray | None = None  # fiducials in seconds, shape (n_beats, 9)


def build_store(
    cohort: Cohort,
    cache: Path,
    fs: float = 100.0,
    delineate: bool = True,
    min_seconds: float = 5.0,
    workers: int = 2,
) -> RecordStore:
    """Make a cohort's store in a folder `cache`, or open the one that the same inputs made before.

    A record that cannot be read or used, or that has the waveform of another person's record, is left out and listed
    in ``exclusions`` with its reason; the other records are unharmed. ``NothingUsableError`` where none can be used,
    ``StudyError`` where a table of the cohort is damaged, no space is left, or a worker process was killed.

    Parameters
    ----------
    fs : float
        Sampling rate of the stored signals in Hz.
    delineate : bool
        Find P, QRS and T boundaries, and not only R peaks, in each record's reference lead.
    min_seconds : float
        A shorter record is left out: too few beats to characterise anybody.
    workers : int
        Processes side by side.
    """
    made_from = {
        "cohort": cohort.name,
        "cohort_digest": cohort.digest(),
        "code": [cached.code_key(build_store), cached.code_key(type(cohort))],
        "fs": float(fs),
        "delineate": delineate,
        "min_seconds": float(min_seconds),
        "versions": cached.library_versions(("neurokit2", "numpy", "scipy", "wfdb")),
    }
    key = cached.cache_key(**made_from)
    folder = cache / f"store-{cohort.name}-{key[: cached.KEY_LENGTH]}"
    with cached.naming_disk_errors(cache):
        cache.mkdir(parents=True, exist_ok=True)
    # a second process that wants the same store waits here and then opens the first one's
    with FileLock(_lock_of(folder)):
        if not store.is_complete(folder):
            for left in cache.glob(f"store-{cohort.name}-{'[0-9a-f]' * cached.KEY_LENGTH}{cached.PARTIAL}"):
                # what nobody locks was left by a killed build
                with suppress(Timeout), FileLock(_lock_of(left.with_suffix("")), timeout=0):
                    shutil.rmtree(left, ignore_errors=True)
            with cached.new_folder(folder) as partial:
                plan = _Plan(partial, float(fs), delineate, min_seconds)
                _fill(cohort, plan, workers, made_from | {"key": key})
    return RecordStore(folder)


def _lock_of(folder: Path) -> Path:
    """File that the process locks that makes a store."""
    return folder.with_name(f".{folder.name}.lock")


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
    outcomes = _refuse_shared_waveforms([*_run(records, plan, workers, cohort.name)], records)
    (plan.folder / _COHORT).unlink()
    kept = [outcome for outcome in outcomes if outcome.kept]
    unreadable = [
        _unreadable(cohort, RecordError(row.file, row.reason, row.remedy), row.record_id, None)
        for row in cohort.failures().itertuples()
    ]
    rows = [outcome.excluded for outcome in (*unreadable, *outcomes) if outcome.excluded]
    exclusions = pd.DataFrame(rows, columns=list(store.EXCLUSION_COLUMNS))
    if exclusions.empty and not kept:
        raise NothingUsableError(f"The cohort {cohort.name} has no records; {cohort.how_to_get}", exclusions)
    if not kept:
        counts = ", ".join(f"{reason} {n}" for reason, n in exclusions["reason"].value_counts().items())
        first = exclusions["sentence"].iloc[0]
        raise NothingUsableError(f"No record of {cohort.name} can be used ({counts}); the first: {first}", exclusions)
    _write_tables(plan.folder, records, kept, exclusions)
    manifest |= {"records": len(kept), "excluded": len(exclusions), "notes": cohort.notes(), "complete": True}
    (plan.folder / store.MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _run(records: pd.DataFrame, plan: _Plan, workers: int, name: str) -> Iterator[_Outcome]:
    """Work on all records, in tasks of about equal work side by side, and give the outcomes in order."""
    columns = ["record_id", "subject_id", "leads", "fs", "n_samples", "store_samples", "offset", "gaps"]
    seconds = records["n_samples"] / records["fs"]
    task_of = ((seconds.cumsum() - seconds) // _TASK_SECONDS).to_numpy()
    tasks = [part.to_dict("records") for _, part in records.reindex(columns=columns, fill_value=()).groupby(task_of)]
    done = in_parallel(_ingest, [(plan, task) for task in tasks], "cpu", f"{name}: reading", workers)
    try:
        yield from chain.from_iterable(done)
    except TerminatedWorkerError as killed:
        raise StudyError(
            f"A process that read {name} was killed, most likely because memory ran out; close other programs or "
            "use workers=1, and run the same command again."
        ) from killed


@lru_cache(maxsize=1)
def _load_cohort(path: Path, _written_ns: int) -> Cohort:
    """Cohort that the parent process left; once in a worker, not once a task."""
    return pickle.loads(path.read_bytes())


def _ingest(plan: _Plan, task: list[dict]) -> list[_Outcome]:
    """Work on a task's records, one after the other."""
    handed_over = plan.folder / _COHORT
    cohort = _load_cohort(handed_over, handed_over.stat().st_mtime_ns)
    with (plan.folder / store.SIGNALS).open("r+b") as signal_file:
        return [_ingest_safely(cohort, plan, record, signal_file) for record in task]


def _ingest_safely(cohort: Cohort, plan: _Plan, record: dict, signal_file: BinaryIO) -> _Outcome:
    """Make whatever a strange record brings about its own reason; a full disk is everybody's."""
    try:
        return _ingest_record(cohort, plan, record, signal_file)
    except (OSError, StudyError):
        raise
    except Exception as strange:
        return _left_out(record, Problem.UNREADABLE, f"it cannot be processed ({type(strange).__name__})")


def _ingest_record(cohort: Cohort, plan: _Plan, record: dict, signal_file: BinaryIO) -> _Outcome:
    """Read and check a record, find its beats in the best lead that shows them, filter it and write it to its place."""
    try:
        signal = cohort.signal(record["record_id"])
        if (signal.leads, signal.values.shape[-1], signal.fs) != (record["leads"], record["n_samples"], record["fs"]):
            raise RecordError(record["record_id"], "holds other leads, samples or a rate than the cohort's table says")
    except RecordError as unreadable:
        return _unreadable(cohort, unreadable, record["record_id"], record["subject_id"])
    except OSError as broken:  # a disk's or a network's; its text names the file
        if broken.errno == errno.ENOSPC:
            raise
        return _left_out(record, Problem.UNREADABLE, f"it cannot be read ({broken.strerror})")
    seconds = signal.values.shape[-1] / signal.fs
    if seconds < plan.min_seconds:
        return _left_out(record, Problem.TOO_SHORT, f"it lasts {seconds:g} s, less than {plan.min_seconds:g} s")
    problems = quality.lead_problems(signal)
    candidates = reference_leads(signal.leads, problems)
    if not candidates:
        commonest = Counter(problems.values()).most_common(1)[0][0]
        return _left_out(record, commonest, "; ".join(f"lead {lead} is {why}" for lead, why in problems.items()))
    try:
        stored = preprocess(signal, plan.fs)
    except StudyError as unfit:
        return _left_out(record, Problem.UNREADABLE, str(unfit).rstrip("."))
    for reference in candidates:
        lead = signal.values[signal.leads.index(reference)]
        points, failure = delineation.delineate(lead, signal.fs, plan.delineate)
        if not quality.beat_problem(points["r_peak"], seconds):
            break
    else:
        what = f"too few beats were found in {seconds:g} s of lead {', '.join(candidates)}"
        return _left_out(record, Problem.NO_BEATS, what)
    kept = {
        "usable_leads": tuple(lead for lead in signal.leads if lead not in problems),
        "reference_lead": reference,
        "delineation_failure": failure,
        "sha256": cached.waveform_digest(signal.values),
    }
    signal_file.seek(4 * record["offset"])
    signal_file.write(np.ascontiguousarray(stored.values, dtype="<f4"))
    gaps = record["gaps"] if isinstance(record["gaps"], tuple) else ()  # a label of that name says nothing
    flaws = quality.flaws(signal, stored, problems, gaps)
    return _Outcome(record["record_id"], kept=kept, flaws=flaws, beats=np.array([*points.values()]).T / signal.fs)


def reference_leads(leads: Sequence[str], problems: Mapping[str, str]) -> list[str]:
    """Leads without a problem, best for beats first: in the order of :data:`REFERENCE_LEADS`, then any other."""
    usable = [lead for lead in leads if lead not in problems]
    return [lead for lead in dict.fromkeys((*REFERENCE_LEADS, *usable)) if lead in usable]


def _refuse_shared_waveforms(outcomes: list[_Outcome], records: pd.DataFrame) -> list[_Outcome]:
    """Exclude records whose waveform also stands under another person: nobody can tell whose it is."""
    digest = [done.kept["sha256"] if done.kept else None for done in outcomes]
    excluded = {}
    for _, group in duplicated_waveforms(records.assign(sha256=digest)).groupby("sha256"):
        for record in group.to_dict("records"):
            others = group.loc[group["subject_id"] != record["subject_id"], "record_id"].tolist()
            named = ", ".join(others[:_DUPLICATES_NAMED]) + (", ..." if len(others) > _DUPLICATES_NAMED else "")
            what = f"the same waveform stands under another person ({named})"
            excluded[record["record_id"]] = _left_out(record, Problem.DUPLICATE, what)
    return [excluded.get(outcome.record_id, outcome) for outcome in outcomes]


def _unreadable(cohort: Cohort, error: RecordError, record_id: str, subject_id: str | None) -> _Outcome:
    """Exclude a record that could not be read; tables are published, so its file is named below the cohort's folder."""
    file = error.file
    if cohort.root is not None and Path(file).is_relative_to(cohort.root):
        file = Path(file).relative_to(cohort.root).as_posix()
    sentence = str(RecordError(file, error.reason, error.remedy))
    return _Outcome(record_id, (record_id, subject_id, file, str(Problem.UNREADABLE), sentence))


def _left_out(record: dict, reason: str, what: str) -> _Outcome:
    """Exclude a record that was read."""
    remedy = f"; {quality.REMEDIES[reason]}" if reason in quality.REMEDIES else ""
    sentence = f"Record {record['record_id']} was left out: {what}{remedy}."
    return _Outcome(record["record_id"], (record["record_id"], record["subject_id"], "", str(reason), sentence))


def _write_tables(folder: Path, records: pd.DataFrame, kept: list[_Outcome], exclusions: pd.DataFrame) -> None:
    """Write the record, flaw, exclusion and beat tables."""
    ids = [outcome.record_id for outcome in kept]
    added = pd.DataFrame([outcome.kept for outcome in kept], index=ids)
    table = records.join(added, on="record_id", how="inner").reset_index(drop=True)
    table.to_parquet(folder / store.RECORDS, index=False)
    flaws = pd.DataFrame([(done.record_id, *flaw) for done in kept for flaw in done.flaws], columns=store.FLAW_COLUMNS)
    flaws.astype({"start": int, "stop": int}).to_parquet(folder / store.FLAWS, index=False)
    exclusions.to_parquet(folder / store.EXCLUSIONS, index=False)
    beats = pd.DataFrame(np.concatenate([outcome.beats for outcome in kept]), columns=list(FIDUCIAL_COLUMNS))
    beats.insert(0, "record_id", np.repeat(ids, [len(outcome.beats) for outcome in kept]))
    beats.to_parquet(folder / store.BEATS, index=False)
