"""Who is protected from whom: three groups of people, releases of their records, and the jobs of the stage.

Protector, attackers and victims are different people throughout. An attacker who trained on the protector's own
training people looks weaker than it is, because the protector treats them differently.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd

from ecgstudy.data.base import STANDARD_LEADS
from ecgstudy.data.cohorts import cohorts_of
from ecgstudy.data.simulator.heart import CONDITIONS
from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.deidentification.attacks import NETWORKS, REFERENCE, AttackJob, Strangers, attackers, tiers_of
from ecgstudy.deidentification.cycles import CycleSet, cycle_set
from ecgstudy.deidentification.protections import Protection, learns
from ecgstudy.deidentification.release import PROTECTED, PROTECTIONS, RAW, ReleaseCohort, protection_of, release_store
from ecgstudy.errors import NotApplicableError, StudyError
from ecgstudy.evaluate.protocols import CrossDay, CrossRecord
from ecgstudy.evaluate.splits import RECORD, SUBJECT, Protocol
from ecgstudy.experiment.dataset import IDENTITY_LEAD
from ecgstudy.experiment.jobs import LONG_RECORD_S, Context, Outcome
from ecgstudy.ingestion.stores import STORE_FS, SYNTHETIC_FS, open_usable_stores
from ecgstudy.signals.ingest import build_store
from ecgstudy.signals.store import RecordStore
from ecgstudy.study.config import cache_dir, effort

PROTECTOR, ATTACKER, VICTIM = "protector", "attacker", "victim"
FOLD_GROUPS = (VICTIM,) * 2 + (PROTECTOR,) * 4 + (ATTACKER,) * 4
"""Groups of the ten folds; every further rotation moves on by two folds, so that five make everybody a victim once."""
ROTATIONS, SEEDS = 5, 3
LEAST_RETURNING = 0.1
"""Share of a cohort's persons with several records from which on identity is asked of it."""
LEAST_SOUGHT = 20
"""Persons of a cohort from which on identity is asked of it: an error rate over fewer says nothing."""
SYNTHETIC_PERSONS = 100
DEMO_RELEASES = (RAW, "noise.1", "own_cycle.own", "microaggregation.5", "pp_vae.10", "bottleneck_retimed.128")
FRONT = (RAW, PROTECTED, "bottleneck.128", "bottleneck_retimed.128", "microaggregation.5", "pp_vae.10")
"""Releases that are attacked by several seeds, fixed beforehand, and the one that is audited."""
IDENTITY, ATTRIBUTE = "identity", "attributes"
TWO = ("pp_vae_two_diagnoses.10", "bottleneck_two_diagnoses.32")
"""Releases in the setting of PP-VAE's paper."""


def groups(context: Context, cohort: str, records: pd.DataFrame, rotation: int, protector: bool = True) -> np.ndarray:
    """Group of the person of each of some records of a cohort, shape (n,): by the cohort's own folds, or drawn.

    Persons are drawn from the whole cohort, so that who is missing from `records` changes nobody's group. Without a
    `protector`, whose people nobody knows, attackers learn from its people too.
    """
    if "strat_fold" in records:
        fold = records["strat_fold"].to_numpy() - 1
    else:
        persons = np.unique(context.stores[cohort].records[SUBJECT].to_numpy(dtype=str))
        drawn = np.random.default_rng(0).permutation(np.arange(persons.size) % len(FOLD_GROUPS))
        owners = records[SUBJECT].str.removeprefix(f"{cohort}/").to_numpy(dtype=str)
        fold = drawn[np.searchsorted(persons, owners)]
    group = np.array(FOLD_GROUPS)[(fold + 2 * rotation) % len(FOLD_GROUPS)]
    return group if protector else np.where(group == PROTECTOR, ATTACKER, group)


def open_context(profile: str, seed: int, device: str) -> Context:
    """Context of the stage's jobs; the demo's cohort is its own, or diagnoses would be too rare to be kept."""
    if profile == "demo":
        shares = dict.fromkeys(CONDITIONS, 0.8 / len(CONDITIONS))
        cohort = SyntheticCohort(SYNTHETIC_PERSONS, 2, 1, fs=SYNTHETIC_FS, seed=seed, diagnoses=shares)
        stores = {cohort.name: build_store(cohort, cache_dir(profile))}
    else:
        stores = open_usable_stores(profile, cohorts_of(profile), seed, STORE_FS)[0]
    return Context(profile, stores, device, attackers(profile))


def asked_cohorts(context: Context) -> tuple[str, tuple[str, ...]]:
    """Cohort on which sex, age and diagnoses are asked, and those whose persons are sought.

    The former is that with the most persons; the latter have persons enough who were recorded again, for less than
    half an hour. ``NotApplicableError`` where there are too few people for three groups.
    """
    sizes = {name: store.records[SUBJECT].nunique() for name, store in context.stores.items()}
    largest = max(sizes, key=sizes.__getitem__)
    if sizes[largest] < len(FOLD_GROUPS):
        raise NotApplicableError(
            f"protector, attackers and victims must be different people, and {sizes[largest]} are too few; "
            f"{len(FOLD_GROUPS)} or more are needed"
        )
    sought = [name for name, n_persons in sizes.items() if n_persons >= LEAST_SOUGHT]
    return largest, tuple(name for name in sought if _returning(context, name) >= LEAST_RETURNING)


def _returning(context: Context, name: str) -> float:
    """Share of a cohort's persons who were recorded again; 0 for half-hour records."""
    records = context.records(name)
    long = (records["store_samples"] / context.stores[name].fs).median() > LONG_RECORD_S
    return 0.0 if long else float((records[SUBJECT].value_counts() > 1).mean())


def common_leads(store: RecordStore) -> tuple[str, ...]:
    """List the standard leads that every other record or more has; the lead that is read where there is none."""
    shares = store.records["usable_leads"].explode().value_counts() / len(store.records)
    return tuple(lead for lead in STANDARD_LEADS if shares.get(lead, 0) >= 0.5) or (IDENTITY_LEAD,)


@dataclass(frozen=True)
class ReleaseJob:
    """Protect cohorts as `view` says, fitted on the protector's people of the cohort `people` in one rotation.

    The `question` is what the release is made for; see :func:`release_jobs`.
    """

    question: str
    people: str
    cohorts: tuple[str, ...]
    leads: tuple[str, ...]
    view: str
    rotation: int
    seed: int

    @property
    def name(self) -> str:
        """Name for files and logs."""
        return f"{self.question}.{self.view}.{self.rotation}.{self.seed}"

    def about(self) -> dict[str, object]:
        """First columns of a row about this job."""
        named = {"cohort": ", ".join(self.cohorts), "protocol": "release", "attacker": "", "view": self.view}
        return named | {"seed": self.seed}

    def made_from(self, context: Context) -> dict[str, object]:
        """JSON values of everything that the release depends on, besides code."""
        return {"job": asdict(self), "protection": repr(protection_of(self.view))}


def release(context: Context, job: ReleaseJob) -> dict[str, str]:
    """Protect cohorts and ingest what is released; give the names of the stores' folders by cohort.

    Each group's release is prepared by itself, in parts that are about as large as the victims' group: people of
    different parts share nothing, and who is in a larger group is not thereby more like its own shape.
    """
    people = cycles_of(context, job.people, job.leads)
    people_group = groups(context, job.people, people.records, job.rotation)
    if not (people_group == PROTECTOR).any():
        raise StudyError("no record of the protector's people shows a whole heartbeat in these leads")
    protection = protection_of(job.view, effort(context.profile) == "demo")
    fitted = protection.fit(people.rows(people_group == PROTECTOR), job.seed, context.runs)
    made_from = f"{job.people} {job.rotation} {protection!r} {context.stores[job.people].manifest['key']}"
    folders = {}
    for name in job.cohorts:
        cycles = cycles_of(context, name, job.leads)
        group = people_group if name == job.people else np.full(len(cycles), VICTIM)
        part, prepared = _parts(group, cycles.records[SUBJECT]), np.empty_like(cycles.cycles)
        for number, each in enumerate(np.unique(part)):
            prepared[part == each] = fitted.prepare(cycles.rows(part == each), job.seed + number)
        released = replace(cycles, cycles=prepared)
        cohort = ReleaseCohort(context.stores[name], job.leads, released, protection, job.seed, made_from)
        folders[name] = release_store(cohort, context.cache).folder.name
    return folders


def _parts(group: np.ndarray, persons: pd.Series) -> np.ndarray:
    """Group and number of the part of each record, of whole persons, as many as the victims' group goes into it."""
    part, size = np.array([f"{each} 0" for each in group], dtype=object), max(1, np.count_nonzero(group == VICTIM))
    for each in np.unique(group):
        n_parts = max(1, round(np.count_nonzero(group == each) / size))
        code = pd.factorize(persons[group == each])[0]
        part[group == each] = [f"{each} {number}" for number in code % n_parts]
    return part


def cycles_of(context: Context, name: str, leads: Sequence[str]) -> CycleSet:
    """Cycles of a cohort as it is, measured once a process."""
    return context.shared(("cycles", name, tuple(leads)), lambda: cycle_set(context.stores[name], leads))


def rotations_of(profile: str) -> range:
    """Rotations of the groups: in earnest everybody is a victim once."""
    return range(1 if effort(profile) == "demo" else ROTATIONS)


def seeds_of(profile: str, seed: int, view: str = RAW) -> range:
    """Seeds of networks, whose mean attacks: several for :data:`FRONT`, one for the sweep over the others."""
    several = effort(profile) != "demo" and view in FRONT
    return range(seed, seed + (SEEDS if several else 1))


def group_table(context: Context) -> pd.DataFrame:
    """Persons and records of each group in the first rotation, and of the cohorts whose persons are sought."""
    people, identity = asked_cohorts(context)
    records = context.records(people)
    rows = [(people, group, part) for group, part in records.groupby(groups(context, people, records, 0))]
    rows += [(name, VICTIM, context.records(name)) for name in identity if name != people]
    sizes = [(name, group, part[SUBJECT].nunique(), len(part)) for name, group, part in rows]
    return pd.DataFrame(sizes, columns=["cohort", "group", "persons", "records"])


def releases_of(profile: str) -> list[str]:
    """Protections that a profile tries."""
    return list(DEMO_RELEASES if effort(profile) == "demo" else PROTECTIONS)


def release_jobs(context: Context, releases: Sequence[str], seed: int) -> list[ReleaseJob]:
    """Releases for the question of identity (one lead, one rotation) and of attributes (all leads, every rotation).

    What learns from nobody and looks at one record at a time releases the same in every rotation: it does so once.
    """
    people, identity = asked_cohorts(context)
    one_lead = tuple(dict.fromkeys([people, *identity, *auxiliary(context)]))
    leads = common_leads(context.stores[people])
    protected = [name for name in releases if name != RAW]
    jobs = [ReleaseJob(IDENTITY, people, one_lead, (IDENTITY_LEAD,), name, 0, seed) for name in protected if identity]
    return jobs + [
        ReleaseJob(ATTRIBUTE, people, (people,), leads, name, rotation, seed)
        for name in protected
        for rotation in (rotations_of(context.profile) if _looks_at_others(name) else range(1))
    ]


def _looks_at_others(view: str) -> bool:
    """Whether a protection learns from people, or prepares records together."""
    protection = protection_of(view)
    return learns(protection) or type(protection).prepare is not Protection.prepare


def auxiliary(context: Context) -> list[str]:
    """Cohorts whose people help attackers to learn."""
    return [name for name in context.stores if context.records(name)["auxiliary"].any()]


def strangers(context: Context) -> list[tuple[str, Strangers]]:
    """Cohorts and protocols of the question of identity: attackers have learnt from none of the victims."""
    people, identity = asked_cohorts(context)
    everybody = context.records(people)
    group = groups(context, people, everybody, 0)
    learnt = {people: everybody[group != PROTECTOR]}
    learnt |= {name: context.records(name) for name in auxiliary(context) if name != people}
    found = []
    for name in identity:
        records = context.records(name)
        victims = frozenset((everybody[group == VICTIM] if name == people else records)[SUBJECT])
        others = pd.concat([table[~table[SUBJECT].isin(victims)] for table in learnt.values()], ignore_index=True)
        inner = [CrossRecord(), *([CrossDay()] if (records["session"] > 1).any() else [])]
        found += [(name, Strangers(others, protocol, victims)) for protocol in inner]
    return found


def attack_jobs(
    context: Context, asked: Sequence[tuple[str, Protocol]], folders: Mapping[str, Mapping[str, str]], seed: int
) -> list[AttackJob]:
    """Every attacker of every tier on every release (`folders`: by protection and cohort) and on none.

    What is `asked` are cohorts and protocols, as :func:`strangers` gives them.
    """
    jobs = []
    for cohort, protocol in asked:
        for view in (RAW, *folders):
            stores = tuple((name, context.cache / folder) for name, folder in folders.get(view, {}).items())
            for attacker in context.attackers:
                tiers = (REFERENCE,) if view == RAW else tiers_of(attacker)
                for number in seeds_of(context.profile, seed, view if attacker in NETWORKS else ""):
                    jobs += [AttackJob(cohort, protocol, attacker, number, view, tier, stores) for tier in tiers]
    return jobs


def released(
    jobs: Sequence[ReleaseJob], made: Outcome, rotations: Sequence[int]
) -> tuple[dict[str, dict[str, str]], dict[tuple[str, int], str]]:
    """Folders of releases: for identity by protection and cohort, for attributes by protection and rotation."""
    there = [(job, made.values[job.name]) for job in jobs if job.name in made.values]
    identity = {job.view: folders for job, folders in there if job.question == IDENTITY}
    readable = {}
    for job, folders in there:
        if job.question == ATTRIBUTE:
            turns = [job.rotation] if _looks_at_others(job.view) else rotations
            readable |= {(job.view, turn): folders[job.people] for turn in turns}
    return identity, readable


def strips(context: Context, readable: Mapping[tuple[str, int], str]) -> dict[str, np.ndarray]:
    """One lead of a victim's record that (nearly) every release holds, raw and under every protection, (n,) each."""
    people, _ = asked_cohorts(context)
    stores = {RAW: context.stores[people]}
    stores |= {view: RecordStore(context.cache / folder) for (view, turn), folder in readable.items() if not turn}
    records = {view: store.records.set_index(RECORD) for view, store in stores.items()}
    victims = records[RAW].index[groups(context, people, records[RAW], 0) == VICTIM]
    # best one that every release holds; a release that lost it is not shown
    record = max(victims, key=lambda name: sum(name in table.index for table in records.values()))
    shown = {}
    for view, table in records.items():
        if record in table.index:
            row = table.loc[record]
            shown[view] = np.asarray(stores[view].signal(record)[row["leads"].index(row["reference_lead"])])
    return shown
