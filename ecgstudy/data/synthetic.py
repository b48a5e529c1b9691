"""The built-in cohort: synthetic persons with known waves, made on the spot.

Numbers made from it are called synthetic wherever they appear.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from ecgstudy.data.base import STANDARD_LEADS, Cohort, Signal, as_tables
from ecgstudy.data.simulator import people
from ecgstudy.data.simulator.heart import CONDITIONS, FIBRILLATION, NORMAL, SINUS_RHYTHM
from ecgstudy.errors import StudyError
from ecgstudy.study.cache import cache_key, code_key

BLOCK_RECORDS = 64
BLOCK_VALUES = 2_000_000
"""A block of records is rendered at once: at most so many records and values."""
CACHED_BLOCKS = 4
SESSION_RATE_SD = 5.0
RECORD_RATE_SD = 10.0
"""Beats/min; with a planted cue persons share one mean rate, so records take over the persons' and sessions' spread."""


@dataclass(eq=False)
class SyntheticCohort(Cohort):
    """Synthetic 12-lead records of persons with stable morphology and drifting sessions.

    Parameters
    ----------
    n_subjects, n_sessions, n_records : int
        Persons, sessions a person, records a session and activity.
    seconds, fs : float
        Length of a record and sampling rate in Hz.
    seed : int
        The same seed and parameters give byte-identical records.
    identity_wave : {"P", "QRS", "T"} or None
        None: persons differ in every respect, as real ones do. Otherwise the shape of that wave alone tells persons
        apart: all else is the population's mean, and drift, rate and diagnosis are drawn anew for every record, so
        that nothing outside the wave's boundaries links two records of one person. (A filter applied later spreads
        the cue.)
    activities : sequence of str
        Names of `simulator.people.ACTIVITIES`, those of the motion cohort.
    diagnoses : mapping of str to float, optional
        Share of persons (of records with a planted cue) with each of `simulator.heart.CONDITIONS`; the rest are
        healthy.
    noise : bool
        False leaves wander, movement and muscle noise out.
    """

    name: ClassVar[str] = "synthetic"
    synthetic: ClassVar[bool] = True
    version = "1"
    licence = "MIT"
    how_to_get = "Built in: generated when asked for."

    n_subjects: int = 40
    n_sessions: int = 2
    n_records: int = 2
    seconds: float = 10.0
    fs: float = 100.0
    seed: int = 0
    identity_wave: str | None = None
    activities: Sequence[str] = ("rest",)
    diagnoses: Mapping[str, float] | None = None
    noise: bool = True

    def __post_init__(self) -> None:
        for name, least in {"n_subjects": 1, "n_sessions": 1, "n_records": 1, "seed": 0}.items():
            setattr(self, name, _number(name, getattr(self, name), least, whole=True))
        self.seconds, self.fs = _number("seconds", self.seconds, 1, " s"), _number("fs", self.fs, 50, " Hz")
        self.activities, self.noise = list(self.activities), bool(self.noise)
        self.diagnoses = dict(self.diagnoses or {})
        _check_choices(self.identity_wave, self.activities, self.diagnoses)
        self.n_samples = round(self.seconds * self.fs)
        self._block = max(1, min(BLOCK_RECORDS, BLOCK_VALUES // (len(STANDARD_LEADS) * self.n_samples)))
        self._batch = lru_cache(CACHED_BLOCKS)(self._render)

    @property
    def parameters(self) -> dict[str, Any]:
        """What the records are made from."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        """Pickle the parameters only: a worker process generates what it needs."""
        return type(self), tuple(self.parameters.values())

    @cached_property
    def _axes(self) -> tuple[np.ndarray, ...]:
        """Person, session, activity and repeat of every record, numbers from 0, (n_records,) each."""
        shape = (self.n_subjects, self.n_sessions, len(self.activities), self.n_records)
        return tuple(axis.ravel() for axis in np.indices(shape))

    @cached_property
    def _population(self) -> tuple[people.People, people.Drift, people.Plan, np.ndarray]:
        """Persons, drifts, the plan of all records, and each session's day, shape (n_subjects, n_sessions)."""
        rng = np.random.default_rng([self.seed, 0])
        persons = people.draw_people(rng, self.n_subjects, self.identity_wave)
        person, session, activity, _ = self._axes
        gaps = np.ceil(rng.gamma(1.0, 45.0, (self.n_subjects, self.n_sessions))) + 1
        gaps[:, 0] = 0
        if self.identity_wave is None:
            carrier, row = person, person * self.n_sessions + session
            drift = people.draw_drift(rng, gaps.size, SESSION_RATE_SD)
        else:
            carrier = row = np.arange(len(person))
            drift = people.draw_drift(rng, len(person), RECORD_RATE_SD)
        rhythm, diagnosis = _assign(rng, int(carrier.max()) + 1, self.diagnoses)
        names = np.array(self.activities, dtype=object)[activity]
        plan = people.Plan(person, row, names, rhythm[carrier], diagnosis[carrier])
        return persons, drift, plan, np.cumsum(gaps, axis=1)

    @cached_property
    def _scan(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        persons, _, plan, days = self._population
        person, session, _, repeat = self._axes
        width = max(3, len(str(self.n_subjects)))
        subject = [f"S{number + 1:0{width}d}" for number in person]
        parts = zip(subject, session + 1, plan.activity, repeat + 1, strict=True)
        columns = {"record_id": [f"{who}_{day}_{activity}_{number}" for who, day, activity, number in parts]}
        columns |= {"subject_id": subject, "session": session + 1, "session_day": days[person, session]}
        columns |= {"age": persons.age[person], "sex": np.where(persons.female[person], "F", "M"), "fs": self.fs}
        columns |= {"leads": [STANDARD_LEADS] * len(person), "n_samples": self.n_samples, "unit": "mV"}
        columns |= {"activity": plan.activity, "rhythm": plan.rhythm, "diagnosis": plan.diagnosis}
        return as_tables(pd.DataFrame(columns), [])

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {record_id: row for row, record_id in enumerate(self._scan[0]["record_id"])}

    def _render(self, block: int) -> people.Batch:
        """Render block number `block`; `_batch` remembers the last ones."""
        persons, drift, plan, _ = self._population
        rows = slice(block * self._block, (block + 1) * self._block)
        rng = np.random.default_rng([self.seed, 1, block])
        return people.render(rng, persons, drift, plan[rows], self.fs, self.n_samples, self.noise)

    def signal(self, record_id: str) -> Signal:
        """Give the samples of one record in mV; ``KeyError`` where there is no such record."""
        return Signal(self.signals([record_id])[0], self.fs, STANDARD_LEADS, "mV")

    def signals(self, record_ids: Sequence[str]) -> np.ndarray:
        """Give the samples of many records at once: float32, (n, 12, n_samples), mV."""
        rows = np.array([self._row_of[record_id] for record_id in record_ids], dtype=np.int64)
        values = np.empty((len(rows), len(STANDARD_LEADS), self.n_samples), dtype=np.float32)
        blocks = rows // self._block
        for block in np.unique(blocks):
            mine = np.flatnonzero(blocks == block)
            values[mine] = self._batch(int(block)).signals[rows[mine] % self._block]
        return values

    def boundaries(self, record_id: str) -> pd.DataFrame:
        """Give the exact wave boundaries of one record, the same in every lead, in order of onset.

        One row a whole wave inside the record: `wave` ("P", "QRS", "T"), `onset`, `peak`, `offset` (samples at the
        record's rate, float) and `beat` (number that P, QRS and T of one beat share). The wave's part of the signal
        is exactly 0 outside onset..offset, which lie 2.5 standard deviations of the outermost Gaussians from their
        centres; `peak` is the centre of the wave's main Gaussian. Records in fibrillation have no P rows.
        """
        block, row = divmod(self._row_of[record_id], self._block)
        return self._batch(block).boundaries(row, self.fs)

    def digest(self) -> str:
        """SHA-256 (hex) over the parameters and the code that makes records of them."""
        return cache_key(code=code_key(type(self)), **self.parameters)


def _assign(rng: np.random.Generator, n: int, shares: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """Rhythm and diagnosis of `n` carriers, shape (n,) each: every condition gets its rounded share, shuffled."""
    counts = [round(share * n) for share in shares.values()]
    names = np.repeat(np.array([*shares, NORMAL], dtype=object), [*counts, max(n - sum(counts), 0)])[:n]
    names = rng.permutation(names)
    fibrillating = names == FIBRILLATION
    return np.where(fibrillating, FIBRILLATION, SINUS_RHYTHM), np.where(fibrillating, NORMAL, names)


def _refuse(wrong: bool, sentence: str) -> None:
    """Raise :class:`StudyError` where a parameter is `wrong`."""
    if wrong:
        raise StudyError(f"synthetic cohort: {sentence}.")


def _number(name: str, value: object, least: float, unit: str = "", whole: bool = False) -> float:
    """Check that a parameter is a finite number, or a whole one, of at least `least`."""
    kinds = int | np.integer if whole else int | float | np.number
    wrong = isinstance(value, bool) or not isinstance(value, kinds) or not least <= value < np.inf
    wanted = "whole number" if whole else "number"
    _refuse(wrong, f"{name} is {value!r}; give a {wanted} of {least}{unit} or more")
    return int(value) if whole else float(value)


def _check_choices(wave: object, activities: list[str], diagnoses: dict[str, float]) -> None:
    """Refuse names that the simulator does not know, and shares that are none."""
    waves, known = people.IDENTITY_WAVES, people.ACTIVITIES
    _refuse(wave not in (None, *waves), f"identity_wave is {wave!r}; give one of {', '.join(waves)} or None")
    once = activities and len(set(activities)) == len(activities) and set(activities) <= set(known)
    _refuse(not once, f"activities are {activities}; give one or more of {', '.join(known)}, each once")
    for name in diagnoses:
        _refuse(name not in CONDITIONS, f"no diagnosis {name!r}; give some of {', '.join(CONDITIONS)}")
    total = sum(_number(f"share of {name}", share, 0) for name, share in diagnoses.items())
    _refuse(total > 1 + 1e-9, f"the shares of diagnoses add up to {total:g}; 1 is the most")
