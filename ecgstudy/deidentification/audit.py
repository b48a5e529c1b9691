"""``python -m ecgstudy audit``: what a release of one's own records gives away, or what the records would as they are.

The attackers and readers of stage 05 learn from some of the persons and are asked about the others; everybody is asked
about once. Who protected the records, and from whom that was learnt, is not known here: there is no third group.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from joblib import cpu_count

from ecgstudy.data.base import Cohort
from ecgstudy.data.pseudonyms import KEY
from ecgstudy.deidentification.attacks import REFERENCE, attackers
from ecgstudy.deidentification.attributes import BINARY, SETTINGS, ReadingJob, floors, intervals, read
from ecgstudy.deidentification.held import RawCohort, ReleasedCohort, check_seed
from ecgstudy.deidentification.judgement import answers_of, judgement_of, losses, missed, tables_of, worst_off
from ecgstudy.deidentification.plan import ROTATIONS, attack_jobs, seeds_of
from ecgstudy.deidentification.readers import attribute_table, diagnosis_table, tasks_of, told_diagnoses
from ecgstudy.deidentification.readings import floor_results, reading_results
from ecgstudy.deidentification.release import PROTECTED, RAW
from ecgstudy.deidentification.results import attack_results, fidelity_results
from ecgstudy.errors import NothingUsableError, StudyError
from ecgstudy.evaluate.protocols import CrossDay, CrossRecord, SubjectDisjoint
from ecgstudy.evaluate.splits import RECORD, SUBJECT
from ecgstudy.experiment.jobs import Context, run
from ecgstudy.experiment.scores import score
from ecgstudy.ingestion.stores import STORE_FS
from ecgstudy.signals.ingest import build_store
from ecgstudy.signals.store import RecordStore
from ecgstudy.study.cache import commit, write_text
from ecgstudy.study.config import TEMPLATES, cache_dir
from ecgstudy.study.words import table_html

OWN = "own"
PAGE = "ecgstudy-audit.html"
PROFILES = {"quick": "mine-quick", "full": "mine"}
"""Whose cache is used, and how long networks are trained."""
LEAST_PERSONS = 10
"""Persons without whom nobody can be learnt from, and of those recorded again without whom nobody is sought."""
MISSED = 3
"""Exit code where a limit is not kept."""


@dataclass(frozen=True)
class Order:
    """What is asked for: folders and files, seed, profile (:data:`PROFILES`), and limits by what they are of."""

    raw: Path
    protected: Path | None
    subjects: Path | None
    key: Path
    page: Path
    seed: int
    profile: str
    limits: Mapping[str, float]


def order_of(
    raw: str,
    protected: str | None,
    subjects: str | None,
    key: str | None,
    out: str | None,
    seed: int,
    effort: str,
    **limits: float | None,
) -> Order:
    """Check what is asked for; ``StudyError`` where it cannot be done, before anything is."""
    for name, limit in limits.items():
        if limit is not None and not 0 <= limit <= 1:
            raise StudyError(f"--{name.replace('_', '-')} is {limit:g}; give a number from 0 to 1.")
    check_seed(seed)
    came, goes = Path(raw).resolve(), Path(protected).resolve() if protected else None
    if goes and (goes.is_relative_to(came) or came.is_relative_to(goes)):
        raise StudyError(f"{protected} and {raw} are the same or lie in each other; name the folder of the release.")
    for file, what in ((subjects, "table of who is who"), (key, "key of the release's pseudonyms")):
        if file and not Path(file).is_file():
            raise StudyError(f"{file} is no file that can be read; name the {what}, or leave the option out.")
    profile = PROFILES[effort]
    beside = came.parent / KEY
    key_file = Path(key).resolve() if key else beside if beside.exists() else cache_dir(profile) / KEY
    page = Path(out or PAGE).resolve()
    if page.suffix != ".html" or page.is_dir() or not page.parent.is_dir():
        raise StudyError(f"{page} cannot be the page; name a file that ends in .html, in a folder that there is.")
    if goes and page.is_relative_to(goes):
        raise StudyError(f"{page} would be shared with the release; name a place outside {protected}.")
    if page.exists() and not out:
        raise StudyError(f"{page} is there already; name it (--out) to replace it, or another file.")
    asked = {name: limit for name, limit in limits.items() if limit is not None}
    return Order(came, goes, Path(subjects).resolve() if subjects else None, key_file, page, seed, profile, asked)


def audit(order: Order) -> tuple[str, int]:
    """Attack, and write the page whole or not at all; give its first sentence and the exit code.

    Raises
    ------
    StudyError
        Records cannot be read, RAW and PROTECTED do not match, or nothing can be asked of them.
    """
    raw, released, left_out = _stores(order)
    view = PROTECTED if released else RAW
    context = Context(order.profile, {OWN: raw}, "auto", attackers(order.profile))
    persons, gaps = _attacked(context, released, order.seed)
    readings, more = _read(context, released, order.seed)
    if persons.empty and readings.empty:
        raise StudyError(f"Nothing can be asked of these records. {' '.join(gaps + more)}")
    rows = pd.concat([part for part in (persons, readings) if len(part)], ignore_index=True)
    answers = answers_of(rows, view)
    over = missed(answers, order.limits)
    judgement = judgement_of(answers, order.limits, over)
    if order.profile == PROFILES["quick"]:
        judgement = f"A first look, by attackers who trained for a few epochs: {judgement}"
    tables = tables_of(rows, answers, order.limits) | left_out
    if released:
        before, after = (intervals(store.beats) for store in (raw, released))
        rates = fidelity_results(before, {PROTECTED: after}, raw.records.set_index(RECORD)[SUBJECT], OWN, order.seed)
        rates = rates[rates["task"] == "heart_rate"][["metric", "value", "low", "high", "unit", "n"]]
        tables["Heart rate, released minus raw: bias, 95 % limits, records within 1 and 5 beats a minute."] = rates
    template = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    ).get_template("audit.html.j2")
    page = template.render(
        judgement=judgement,
        answers=answers,
        worst_off=worst_off(rows, view),
        losses=losses(rows).to_dict("records"),
        gaps=gaps + more,
        tables=[table_html(table, caption) for caption, table in tables.items() if len(table)],
        released=bool(released),
        profile=order.profile,
        seed=order.seed,
        commit=commit()[:10],
    )
    write_text(order.page, page)
    return judgement, MISSED if over else 0


def _stores(order: Order) -> tuple[RecordStore, RecordStore | None, dict[str, pd.DataFrame]]:
    """Ingest the records as they are and the same ones as released; tables say what was left out."""
    order.key.parent.mkdir(parents=True, exist_ok=True)
    whole = RawCohort(order.raw, order.key, order.subjects)
    sizes, released = {"records in RAW": len(whole.records())}, None
    if order.protected is None or whole.records().empty:  # which is refused there, with the reason
        raw = _stored(whole, order)
    else:
        matched = ReleasedCohort(whole, order.protected)
        sizes["of these in PROTECTED"] = len(matched.records())
        raw = _stored(whole.some(matched.records()[RECORD]), order)
        try:
            released = _stored(matched.some(raw.records[RECORD]), order)
        except NothingUsableError as nothing:
            told = "No attacker here reads such records, which does not show that nobody can."
            raise StudyError(f"{nothing} {told}") from None
    excluded = {"RAW": raw.exclusions} | ({"PROTECTED": released.exclusions} if released else {})
    if released and len(released.records) < len(raw.records):
        raw = _stored(whole.some(released.records[RECORD]), order)
    persons = raw.records[SUBJECT].nunique()
    if persons < LEAST_PERSONS:
        raise StudyError(
            f"The records that can be used are of {persons} person{'s' * (persons > 1)}, and attackers must learn from "
            f"some and be asked about others: {LEAST_PERSONS} are needed (subjects.csv says whose is whose)."
        )
    sizes |= {"records that were attacked": len(raw.records), "persons": persons}
    reasons = pd.concat([table.assign(folder=folder) for folder, table in excluded.items()])
    reasons = reasons.groupby(["folder", "reason"]).size().reset_index(name="records")
    counts = pd.DataFrame(sizes.items(), columns=["what", "number"])
    return raw, released, {"Records.": counts, "Records that cannot be used, by the reason.": reasons}


def _stored(cohort: Cohort, order: Order) -> RecordStore:
    """Ingest records; of each beat the R peak alone is sought."""
    return build_store(cohort, cache_dir(order.profile), STORE_FS, delineate=False, workers=cpu_count())


def _attacked(context: Context, released: RecordStore | None, seed: int) -> tuple[pd.DataFrame, list[str]]:
    """Rows of who is recognised, and sentences on what could not be asked."""
    records = context.records(OWN)
    again = int((records[SUBJECT].value_counts() > 1).sum())
    days = records.loc[records["session"] > 1, SUBJECT].nunique()
    needed = f"{LEAST_PERSONS} are needed (subjects.csv says whose is whose)"
    if again < LEAST_PERSONS:
        return pd.DataFrame(), [f"Persons were not sought: {again} of them have several records, and {needed}."]
    sought, gaps = [CrossRecord(), CrossDay()], []
    if days < LEAST_PERSONS:
        sought, gaps = sought[:1], [f"Persons were not sought on another day: {days} of them have one, and {needed}."]
    asked = [(OWN, SubjectDisjoint(inner)) for inner in sought]
    jobs = attack_jobs(context, asked, {PROTECTED: {OWN: released.folder.name}} if released else {}, seed)
    done = run(score, jobs, context, "attacks")
    rows = attack_results(done.values, jobs, seed) if done.values else pd.DataFrame()
    return rows, gaps + _refused(done.refusals)


def _read(context: Context, released: RecordStore | None, seed: int) -> tuple[pd.DataFrame, list[str]]:
    """Rows of what is read of sex, age and diagnoses, with floors, and sentences on what could not be asked."""
    records = context.stores[OWN].records
    known = attribute_table(records)[[*BINARY]].nunique()
    if (known < 2).all() and not tasks_of(diagnosis_table(records)):
        return pd.DataFrame(), ["Sex, age and diagnoses were not asked for: they are unknown, or the same in all."]
    tiers = {tier: None if tier == REFERENCE else released.folder for tier in SETTINGS if released or tier == REFERENCE}
    jobs = [
        ReadingJob(OWN, PROTECTED if folder else RAW, tier, rotation, one, folder, protector=False)
        for tier, folder in tiers.items()
        for rotation in range(ROTATIONS)
        for one in seeds_of(context.profile, seed)
    ]
    done = run(read, jobs, context, "readers")
    gaps = _refused(done.refusals)
    on_raw = [done.values[job.name] for job in jobs if job.view == RAW and job.name in done.values]
    if not on_raw:
        return pd.DataFrame(), gaps
    people = pd.concat(on_raw)["person"].unique()  # one whose lead is bad in the raw record is not compared
    values = {name: one[one["person"].isin(people)] for name, one in done.values.items()}
    rows = reading_results(values, jobs, told_diagnoses(records), seed)
    if rows.empty:
        return rows, [*gaps, "Sex, age and diagnoses were not asked for: too few records are known to differ in them."]
    rare = [task.replace("over_60", "age") for task in BINARY if task not in set(rows["task"])]
    gaps += [f"Not asked for, because it is unknown or hardly differs: {', '.join(rare)}."] if rare else []
    floor = floors(context, range(ROTATIONS), protector=False)
    floor_rows = [floor_results(floor, OWN, seed)] if len(floor) else []
    return pd.concat([rows, *floor_rows], ignore_index=True), gaps


def _refused(refusals: pd.DataFrame) -> list[str]:
    """Say what could not be done, once a reason."""
    if refusals.empty:
        return []
    who = refusals["attacker"] + " (" + refusals["tier"].str.replace("_", " ") + ")"
    reasons = who.groupby(refusals["reason"], sort=False).unique()
    return [f"Not possible: {', '.join(names)}: {reason.rstrip('.')}." for reason, names in reasons.items()]
