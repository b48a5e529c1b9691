"""Sex and age of the persons on trial, and the classes that heads are trained on."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from ecgstudy.evaluate.disjoint import with_cohort
from ecgstudy.experiment.dataset import without_lead
from ecgstudy.experiment.recipes import AGE_EDGES, AGE_GROUPS, SEXES
from ecgstudy.learn.batches import encode
from ecgstudy.signals.store import RecordStore

CLASSES = {"sex": SEXES, "age_group": AGE_GROUPS}


def people_table(stores: Mapping[str, RecordStore]) -> pd.DataFrame:
    """Sex, age and age group of every person, indexed by ``cohort/person``."""
    parts = [with_cohort(name, store.records)[["subject_id", "sex", "age"]] for name, store in stores.items()]
    people = pd.concat(parts).groupby("subject_id").first()
    group = pd.cut(people["age"], AGE_EDGES, right=False, labels=AGE_GROUPS).astype(object)
    return people.assign(age_group=group.where(group.notna(), None))


def targets(persons: np.ndarray, people: pd.DataFrame, classes: Mapping[str, tuple[str, ...]]) -> dict[str, np.ndarray]:
    """Class of each window for the person, sex and age-group heads; unknown labels add nothing to a loss."""
    owners = [without_lead(person) for person in persons]
    known = {task: encode(people[task].reindex(owners), CLASSES[task]) for task in classes if task in CLASSES}
    return {"person": encode(persons, classes["person"]), **known}


def trainable_classes(persons: np.ndarray, people: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """Heads that can be trained on these persons: a task with one class only, or none, is left out."""
    classes = {"person": tuple(dict.fromkeys(persons))}
    owners = {without_lead(person) for person in persons}
    for task, names in CLASSES.items():
        if people[task].reindex(sorted(owners)).dropna().nunique() >= 2:
            classes[task] = names
    return classes


def group_ages(persons: np.ndarray, people: pd.DataFrame) -> np.ndarray:
    """Mean age of the training persons of each age group, shape (n_groups,); mid-range where a group is empty."""
    known = people.reindex(sorted({without_lead(person) for person in persons})).dropna(subset="age")
    middles = pd.Series([22.0, 37.0, 52.0, 70.0], index=list(AGE_GROUPS))
    return known.groupby("age_group")["age"].mean().reindex(AGE_GROUPS).fillna(middles).to_numpy()
