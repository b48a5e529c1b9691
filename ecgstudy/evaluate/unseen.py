"""Protocols about people whom no network was trained or chosen on."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from ecgstudy.errors import StudyError
from ecgstudy.evaluate.splits import SUBJECT, Protocol, Split, segments

VALIDATION_PERSONS = 0.2
"""Share of the persons not on trial who are kept from training, to choose on."""


@dataclass(frozen=True)
class SubjectDisjoint(Protocol):
    """Networks learn from some persons; others are enrolled and probed.

    Attributes
    ----------
    inner : Protocol
        How the persons on trial are enrolled and probed.
    folds : int
        Every person is on trial in one of so many folds.
    """

    inner: Protocol
    folds: int = 3
    claim: ClassVar[str] = "a person whom no network was trained on is recognised"

    @property
    def name(self) -> str:
        """``subject_disjoint_`` and the name of the inner protocol."""
        return f"subject_disjoint_{self.inner.name}"

    def splits(self, records: pd.DataFrame, fs: float, seed: int) -> list[Split]:
        """One split a fold; persons recorded on several days are spread evenly over the folds.

        Raises
        ------
        StudyError
            There are too few persons for the folds.
        """
        rng = np.random.default_rng(seed)
        persons = rng.permutation(records[SUBJECT].unique())
        if len(persons) < 3 * self.folds:
            raise StudyError(f"{len(persons)} persons are too few for {self.folds} folds of people never seen before.")
        # those recorded most often first, so that every fold gets its share whatever the inner protocol
        days = records.groupby(SUBJECT)["session"].max().reindex(persons).to_numpy()
        ordered = persons[np.argsort(-days, kind="stable")]
        return [self._fold(records, fs, seed, ordered, fold) for fold in range(self.folds)]

    def _fold(self, records: pd.DataFrame, fs: float, seed: int, persons: np.ndarray, fold: int) -> Split:
        """Put every `folds`-th person on trial and divide the others into training and validation."""
        on_trial = persons[fold :: self.folds]
        others = np.setdiff1d(persons, on_trial)
        chosen_on = np.random.default_rng([seed, fold]).permutation(others)[: round(VALIDATION_PERSONS * len(others))]
        inner = self.inner.splits(records[records[SUBJECT].isin(on_trial)], fs, seed)[0]
        return Split(
            self.name,
            segments(records[records[SUBJECT].isin(np.setdiff1d(others, chosen_on))]),
            segments(records[records[SUBJECT].isin(chosen_on)]),
            inner.enrolment,
            inner.probe,
            unseen_persons=True,
            within_record=inner.within_record,
            dropped=inner.dropped,
        )


@dataclass(frozen=True)
class CrossCohort(Protocol):
    """Networks learn from other cohorts; everybody of this one is on trial.

    Attributes
    ----------
    others : pandas.DataFrame
        Record tables of the other cohorts (:func:`ecgstudy.evaluate.disjoint.with_cohort`).
    inner : Protocol
        How the persons on trial are enrolled and probed.
    """

    others: pd.DataFrame
    inner: Protocol
    claim: ClassVar[str] = "a person of another cohort, device and population is recognised"

    @property
    def name(self) -> str:
        """``cross_cohort_`` and the name of the inner protocol."""
        return f"cross_cohort_{self.inner.name}"

    def splits(self, records: pd.DataFrame, fs: float, seed: int) -> list[Split]:
        """One split a fold of the inner protocol, all with the same training persons."""
        parts = training_parts(self.others, seed)
        return [
            Split(
                self.name,
                *parts,
                inner.enrolment,
                inner.probe,
                unseen_persons=True,
                within_record=inner.within_record,
                dropped=inner.dropped,
            )
            for inner in self.inner.splits(records, fs, seed)
        ]


def training_parts(records: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Whole records of the persons to train on, and of those to choose on."""
    persons = np.random.default_rng(seed).permutation(records[SUBJECT].unique())
    held = records[SUBJECT].isin(persons[: round(VALIDATION_PERSONS * len(persons))])
    return segments(records[~held]), segments(records[held])
