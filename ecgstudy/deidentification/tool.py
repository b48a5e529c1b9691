"""``python -m ecgstudy deidentify``: a folder of WFDB records in, the same records under a protection out.

Nothing of a header or a table passes unless it is asked for here: lead names and units of a known spelling, sampling
rate, length, keyed pseudonyms of record and person, the number of a person's session and, where the caller wants them,
diagnoses of a known name. The samples are what the protection gives.
"""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from joblib import cpu_count
from joblib.externals.loky.process_executor import TerminatedWorkerError

from ecgstudy.data.base import Signal
from ecgstudy.data.own import SUBJECTS
from ecgstudy.data.pseudonyms import KEY
from ecgstudy.deidentification.cycles import CycleSet, Recording, cycle_set, peaks_by_record
from ecgstudy.deidentification.held import HeldCohort, check_seed, write_record
from ecgstudy.deidentification.protections import learns
from ecgstudy.deidentification.release import PROTECTIONS, protection_of
from ecgstudy.errors import DiskError, NothingUsableError, RecordError, StudyError
from ecgstudy.evaluate.splits import RECORD, SUBJECT
from ecgstudy.ingestion.stores import STORE_FS
from ecgstudy.signals.ingest import build_store
from ecgstudy.signals.quality import Problem
from ecgstudy.signals.store import RecordStore
from ecgstudy.study.cache import KEY_LENGTH, PARTIAL, alone, cache_key, code_key, library_versions, remember, write_text
from ecgstudy.study.config import cache_dir
from ecgstudy.study.parallel import in_parallel

RELEASE, SKIPPED = "release.json", "skipped.csv"
CACHE = "deidentify"
"""Folder of the cache: not that of the profile ``mine``, whose pseudonyms have a key of their own."""
LEAST_PEOPLE = 10
"""Persons from whom a method can learn; of fewer it would keep the shapes themselves."""
MOST_LEARNT = 2000
"""Records that a method learns from: more of them would take longer than all the rest."""
A_TASK = 32
BAD_LEAD, UNSUITED = "a lead that cannot be used", "not suited to the method"
ALWAYS = (
    "Lengths, sampling rates, leads and units of the records, and how many records and sessions a person has.",
    "How well these very records are protected was not measured here.",
)
SHAPES = {
    "raw": "The waveform, by which persons are recognised: nothing was changed but names.",
    "noise": "The shape of the beats: whoever trains on such records reads it through the noise.",
    "low_pass": "The shape of the beats: whoever trains on such records reads what is left of it.",
    "warp": "The shape of the beats: whoever trains on such records reads it through the distortion.",
    "own_cycle": "The shape of the beats, by which persons are recognised: it is the record's own.",
    "low_rank": "The coarse shape of the beats and the amplitude of each lead, without any bound on what they say.",
    "differential_privacy": "The amplitude of the leads; a person with several records spends epsilon for each; and "
    "what the components and the bound say, which were learnt from these very records outside epsilon.",
    "k_same": "What the records of a group have in common, as sex or age; a group may be one person's records alone.",
    "microaggregation": "What the records of a group have in common; a group may be one person's records alone.",
    "pp_vae": "Whatever an attacker can read who is not among those that it was trained against.",
    "bottleneck": "The diagnoses that were kept, and what they say of sex and age; and usual amplitudes of the folder.",
    "findings": "What was found, with what that says of sex and age; and usual amplitudes of the folder.",
    "conditional_vae": "The diagnoses that were stated, and what they say of sex and age.",
}
"""What is left to see in the shapes of each method, before its variants (:data:`VARIANTS`)."""
VARIANTS = re.compile(r"_(retimed|rate_class|two_diagnoses)$")


@dataclass(frozen=True)
class Order:
    """What is asked for: folders, protection (``<method>.<strength>``), file of the key, seed, and what is kept."""

    source: Path
    target: Path
    protection: str
    key: Path
    seed: int
    keep_diagnoses: bool


class Group(NamedTuple):
    """Records with the same leads in the same unit, which are released together with the cycles prepared for them."""

    leads: tuple[str, ...]
    unit: str
    release: CycleSet


def order_of(
    source: str, target: str, method: str, strength: str | None, key: str | None, seed: int, keep_diagnoses: bool
) -> Order:
    """Check what is asked for; ``StudyError`` where there is no such method, or folders would harm each other."""
    of_method = [name for name in PROTECTIONS if name.partition(".")[0] == method]
    protection = f"{method}.{strength}" if strength else next(iter(of_method), method)
    protection_of(protection)
    check_seed(seed)
    came, goes = Path(source).resolve(), Path(target).resolve()
    if not came.is_dir():
        raise StudyError(f"{source} is no folder, or one that you may not read; name a folder of WFDB records.")
    if goes.is_relative_to(came) or came.is_relative_to(goes):
        raise StudyError(f"{target} and {source} are the same or lie in each other; name a folder beside the records.")
    if goes.exists() and not goes.is_dir():
        raise StudyError(f"{target} is a file; name a new or an empty folder.")
    if not (goes / RELEASE).is_file() and goes.is_dir() and any(PARTIAL not in path.name for path in goes.iterdir()):
        raise StudyError(f"{target} holds other things; name a new or an empty folder.")
    key_file = Path(key).resolve() if key else came.parent / KEY
    if key_file.is_relative_to(goes):
        raise StudyError(f"The key {key_file} would be given away with {target}; name another file (--key).")
    return Order(came, goes, protection, key_file, seed, keep_diagnoses)


def deidentify(order: Order) -> Iterator[str]:
    """Protect every record of a folder; lines on what became of them, under the names that stand in the folder.

    Run again after an interruption it goes on, and ends with the files of an undisturbed run, byte for byte: what is
    drawn depends on the key, the seed and the record's pseudonym alone. A record's header is written after its samples,
    ``release.json`` first (``"complete": false``) and last.

    Raises
    ------
    StudyError
        No record can be released, the folder holds another release, or a file cannot be written.
    """
    lock = cache_dir(CACHE) / f"release-{cache_key(target=str(order.target))[:KEY_LENGTH]}"
    with alone(lock, f"the release {order.target}"):
        is_new = not order.key.exists()
        cohort = HeldCohort(order.source, order.key)
        yield f"Key of the pseudonyms{' (new)' if is_new else ''}: {order.key}. Keep it, and do not share it."
        yield from cohort.notes()
        try:
            store = build_store(cohort, cache_dir(CACHE), STORE_FS, delineate=False, workers=cpu_count())
        except NothingUsableError as nothing:
            yield from _told(cohort, nothing.exclusions)
            raise StudyError(f"No record of {order.source} can be used.") from None
        made_from = cache_key(
            store=store.manifest["key"],
            order=[order.protection, order.seed, order.keep_diagnoses],
            code=code_key(deidentify),
            versions=library_versions(),
        )
        groups, left_out = _groups(order, cohort, store, made_from)
        skipped = pd.concat([store.exclusions[[RECORD, "reason", "sentence"]], left_out], ignore_index=True)
        yield from _told(cohort, skipped)
        if not groups:
            raise StudyError(f"No record of {order.source} can be released by {order.protection}, as told above.")
        _begin(order.target, made_from)
        failed = _protect_all(order, groups, peaks_by_record(store), made_from)
        yield from _told(cohort, failed)
        about = _publish(order, groups, pd.concat([skipped, failed]), made_from)
        counts = f"{about['records']:,} records of {about['persons']:,} persons, {about['skipped']:,} skipped"
        yield f"{order.target}: released by {order.protection}: {counts} ({SKIPPED})."
        yield from (f"Not protected: {sentence}" for sentence in about["not_protected"])


def _told(cohort: HeldCohort, skipped: pd.DataFrame) -> Iterator[str]:
    """Say why records are skipped, under their own names, for the terminal of whoever holds them."""
    names = cohort.names()
    for sentence, part in skipped.groupby("sentence", sort=False):
        told = re.sub(r"\br[0-9a-f]{12}\b", lambda found: names.get(found[0], found[0]), str(sentence))
        whose = [names.get(record_id, record_id) for record_id in part[RECORD] if record_id not in str(sentence)]
        yield f"Skipped: {', '.join(whose)}{': ' if whose else ''}{told}"


def _groups(order: Order, cohort: HeldCohort, store: RecordStore, made_from: str) -> tuple[list[Group], pd.DataFrame]:
    """Give what is released together, protection and all, and records that cannot be, with reason and sentence."""
    records, groups, skipped = store.records, [], []
    alike = records.assign(leads=records["leads"].map(lambda leads: tuple(sorted(leads)))).groupby(["leads", "unit"])
    folder = cache_dir(CACHE) / "protections"
    for (leads, unit), rows in alike:
        cycles = cycle_set(store, leads)
        cycles = cycles.rows(cycles.records[RECORD].isin(rows[RECORD]).to_numpy())
        for row in rows[~rows[RECORD].isin(cycles.records[RECORD])].itertuples():
            bad = ", ".join(lead for lead in leads if lead not in row.usable_leads)
            what = f"lead {bad} cannot be used; check its electrode, or remove it" if bad else "it has no whole cycle"
            reason = BAD_LEAD if bad else str(Problem.NO_BEATS)
            skipped.append((row.record_id, reason, f"Record {row.record_id} was left out: {what}."))
        what_made_it = {"release": made_from, "leads": list(leads), "unit": unit}
        make = partial(_prepare, order, cohort, cycles, folder)
        try:
            prepared, _ = remember(folder, order.protection, what_made_it, make)
            groups.append(Group(leads, unit, replace(cycles, cycles=prepared)))
        except DiskError:
            raise
        except StudyError as unfit:
            told = f"records with {', '.join(leads)} in {unit} were left out: {unfit}"
            skipped += [(record_id, UNSUITED, told) for record_id in cycles.records[RECORD]]
    return groups, pd.DataFrame(skipped, columns=[RECORD, "reason", "sentence"])


def _prepare(order: Order, cohort: HeldCohort, release: CycleSet, runs: Path) -> np.ndarray:
    """Fit a protection to the people of a release, if it learns, and prepare the cycles."""
    protection, persons = PROTECTIONS[order.protection], release.records[SUBJECT].nunique()
    least = max(getattr(protection, "k", 1), LEAST_PEOPLE if learns(protection) else 1)
    if persons < least:
        raise StudyError(
            f"{order.protection} needs such records of {least} persons or more, and there are those of {persons}; "
            "choose a method that needs fewer: k_same (5 persons), low_pass or warp (1)."
        )
    fitted = protection.fit(_some_people(release, order.seed), order.seed, runs)
    # a secret of each group: noise that two of them share would cancel out
    names = release.records[RECORD]
    return fitted.prepare(release, cohort.secret(order.protection, order.seed, *names))


def _some_people(release: CycleSet, seed: int) -> CycleSet:
    """Draw whole persons, with about as many records as a method learns from at most."""
    owners = release.records[SUBJECT]
    drawn = np.random.default_rng(seed).permutation(owners.unique())
    before = owners.value_counts()[drawn].cumsum().shift(fill_value=0)
    chosen = before.index[(before < MOST_LEARNT) | (np.arange(before.size) < LEAST_PEOPLE)]
    return release.rows(owners.isin(chosen).to_numpy())


def _begin(target: Path, made_from: str) -> None:
    """Say in the folder what is being made in it, or go on with just that."""
    about = target / RELEASE
    if about.exists():
        found = None
        with suppress(ValueError, AttributeError):
            found = json.loads(about.read_text(encoding="utf-8")).get("made_from")
        if found != made_from:
            raise StudyError(
                f"{target} holds a release of other records, or one that was made otherwise (method, strength, seed, "
                "key, diagnoses, version); name a new folder, or remove that one."
            )
    for left in target.glob(f".*{PARTIAL}*"):  # by a run that was killed
        left.unlink()
    write_text(about, json.dumps({"complete": False, "made_from": made_from}) + "\n")


def _protect_all(order: Order, groups: Sequence[Group], peaks: dict[str, np.ndarray], made_from: str) -> pd.DataFrame:
    """Write every record that is not there yet; those that cannot be protected, with reason and sentence."""
    tasks = []
    for group in groups:
        # by pseudonym, as in the store: files whose ages follow the order of the real names would tell of them
        ids = group.release.records[RECORD]
        ids = ids[[not (order.target / f"{record_id}.hea").exists() for record_id in ids]]
        rows = [(record_id, group.release.cycles[row], peaks[record_id]) for row, record_id in ids.items()]
        parts = (rows[at : at + A_TASK] for at in range(0, len(rows), A_TASK))
        tasks += [(order, made_from, group.leads, part) for part in parts]
    try:
        failed = [*chain.from_iterable(in_parallel(_protect_some, tasks, "cpu", "protecting"))]
    except TerminatedWorkerError as killed:
        told = "A process was killed, most likely because memory ran out; close other programs"
        raise StudyError(f"{told}, and run the same command again to go on.") from killed
    return pd.DataFrame(failed, columns=[RECORD, "reason", "sentence"])


@lru_cache(maxsize=1)
def _opened(source: Path, key: Path, _made_from: str) -> HeldCohort:
    """Cohort of a worker process: looking through its folder takes longer than a record."""
    return HeldCohort(source, key)


def _protect_some(
    order: Order, made_from: str, leads: Sequence[str], rows: Sequence[tuple[str, np.ndarray, np.ndarray]]
) -> list[tuple[str, str, str]]:
    """Write some records (pseudonym, prepared cycle, R peaks in seconds); give those that cannot be protected."""
    cohort, failed = _opened(order.source, order.key, made_from), []
    for record_id, cycle, peaks in rows:
        rng = np.random.default_rng(cohort.secret(order.protection, order.seed, record_id))
        try:
            signal = _protected(cohort.signal(record_id), leads, order.protection, cycle, peaks, rng)
        except Exception as strange:  # whatever a record brings about is its own reason
            told = f"Record {record_id} was left out: it cannot be protected ({type(strange).__name__})."
            failed.append((record_id, UNSUITED, str(strange) if isinstance(strange, RecordError) else told))
        else:
            write_record(order.target, record_id, signal, f"protected by ecgstudy: {order.protection}")
    return failed


def _protected(
    signal: Signal, leads: Sequence[str], name: str, cycle: np.ndarray, peaks: np.ndarray, rng: np.random.Generator
) -> Signal:
    """Protect a record at its own rate; lost samples count as the middle of their lead."""
    order = [signal.leads.index(lead) for lead in leads]
    values = signal.values[order]
    if (lost := ~np.isfinite(values)).any():
        values = np.where(lost, np.nanmedian(values, axis=1, keepdims=True), values)
    changed = PROTECTIONS[name].protect(Recording(values, signal.fs, peaks), cycle, rng)
    if changed.shape != values.shape or not np.isfinite(changed).all():
        raise ValueError(f"{changed.shape} samples, or some that are no numbers")
    return replace(signal, values=changed[np.argsort(order)])


def _publish(order: Order, groups: Sequence[Group], skipped: pd.DataFrame, made_from: str) -> dict[str, Any]:
    """Write the tables and what the release is, which is also given."""
    records = pd.concat([group.release.records.assign(group=at) for at, group in enumerate(groups)])
    records = records[~records[RECORD].isin(skipped[RECORD])].sort_values(RECORD)
    table = records[[RECORD, SUBJECT, "session"]].rename(columns={RECORD: "record"})
    if order.keep_diagnoses:
        table["diagnosis"] = records["diagnoses"].map("; ".join)
    write_text(order.target / SUBJECTS, table.to_csv(index=False))
    reasons = skipped[[RECORD, "reason"]].rename(columns={RECORD: "record"}).sort_values("record")
    write_text(order.target / SKIPPED, reasons.to_csv(index=False))
    sizes = [records[records["group"] == at] for at in range(len(groups))]
    about = {
        "complete": True,
        "made_by": f"ecgstudy {version('ecgstudy')}",
        "method": order.protection.partition(".")[0],
        "strength": order.protection.partition(".")[2],
        "seed": order.seed,
        "drawn_from": "the seed and the key of the pseudonyms, which is not part of the release",
        "records": len(records),
        "persons": records[SUBJECT].nunique(),
        "skipped": len(skipped),
        "groups": [
            {"leads": group.leads, "unit": group.unit, "records": len(rows), "persons": rows[SUBJECT].nunique()}
            for group, rows in zip(groups, sizes, strict=True)
        ],
        "diagnoses_kept": order.keep_diagnoses,
        "not_protected": [*not_protected(order, groups)],
        "made_from": made_from,
    }
    write_text(order.target / RELEASE, json.dumps(about, indent=1) + "\n")
    return about


def not_protected(order: Order, groups: Sequence[Group]) -> Iterator[str]:
    """Sentences on what a release says of its persons nevertheless, and on what it is not."""
    protection, method = PROTECTIONS[order.protection], order.protection.partition(".")[0]
    yield SHAPES[VARIANTS.sub("", method)]
    if retiming := protection.retiming:
        yield f"The heart rate, to {retiming.step:g} beats a minute, and whether the rhythm is regular."
    else:
        yield "The rhythm: heart rate and its variability alone tell some persons from others."
    if learns(protection):
        yield "Whether a record was among those that the method learnt from: it learnt from these very records."
    if order.keep_diagnoses:
        yield f"The diagnoses in {SUBJECTS}: rare ones may point to a person, and all say something of sex and age."
    if units := sorted({group.unit for group in groups} - {"mV"}):
        yield f"Records in another unit than mV ({', '.join(units)}) are released in it; their amplitude means nothing."
    yield from ALWAYS
