"""Network attackers: how each is trained, from balanced rows of persons, and what it embeds.

Sizes and schedules are OURS: the papers do not publish theirs. All were chosen on enrolment data and on auxiliary
cohorts, never on a probe; networks are trained until the loss on the validation part no longer falls.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from ecgstudy.errors import StudyError
from ecgstudy.evaluate.protocols import training_parts
from ecgstudy.evaluate.splits import RECORD, SUBJECT, segments
from ecgstudy.experiment.dataset import BEAT_SLACK, BEAT_SPAN_S, SINGLE_SPAN_S, Dataset, by_lead, without_lead
from ecgstudy.experiment.jobs import AGE_GROUPS, SEXES, Context
from ecgstudy.learn.base import PERSON, SignalModel
from ecgstudy.learn.batches import Augmentation, WindowSet, encode, standardise
from ecgstudy.learn.models import create_model
from ecgstudy.learn.train import TrainedRun, TrainingSettings, fit

CLASSES = {"sex": SEXES, "age_group": AGE_GROUPS}
ROWS = 960
"""Training rows of the persons at hand an epoch, shared equally: a person with many records does not dominate."""
AUXILIARY_ROWS = 3
"""Training rows of each class of the auxiliary cohorts an epoch, of which there are thousands."""
AUXILIARY_CLASSES = 160
"""Auxiliary classes that are trained along with the persons at hand, so that few persons do not narrow the network."""
ROW_S = 8.0
"""Seconds of a training row at most; each epoch cuts the network's input at a random place in it."""


@dataclass(frozen=True)
class Recipe:
    """What a network (`model` in :data:`ecgstudy.learn.MODELS`) reads and how it is trained.

    It reads beats, averaged or `single` ones, or free windows of some `seconds`. It is trained on the auxiliary cohorts
    first (`pretraining_...`, unless it is not `helped`) and then on the persons at hand; rates are the highest of
    one-cycle schedules, `noise` is in standard deviations of a window, `warp` in logarithms of a factor (see
    :func:`~ecgstudy.learn.batches.time_warp`). Each of the `auxiliary_leads` of a person counts as a class of its own.
    Rows are drawn once, or, with so many `at_hand` of each recording, anew for each epoch. With `refit` it learns once
    more, for as many epochs as were best, from the part too that the epoch was chosen on. So many `seeds` are one
    attacker: three of beats, one of free windows, which take ten times as long.
    """

    model: str
    beats: bool = False
    single: bool = False
    seconds: float = 4.0
    pretraining_epochs: int = 12
    epochs: int = 20
    pretraining_rate: float = 5e-3
    learning_rate: float = 3e-3
    batch_size: int = 64
    noise: float = 0.15
    warp: float = 0.0
    auxiliary_leads: tuple[str, ...] = ("I",)
    helped: bool = True
    at_hand: int = 0
    refit: bool = False
    seeds: int = 3

    @property
    def span(self) -> tuple[float, float]:
        """Seconds before and after the R peak that a network of beats reads."""
        return SINGLE_SPAN_S if self.single else BEAT_SPAN_S

    def n_samples(self, fs: float) -> int:
        """Count the samples that the network reads."""
        return sum(round(part * fs) for part in self.span) if self.beats else round(self.seconds * fs)

    def cut(self, dataset: Dataset, parts: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Windows of segments, shape (n, n_samples), and the row that each is of."""
        if self.single:
            return dataset.single_beats(parts)
        return dataset.averaged_beats(parts) if self.beats else dataset.windows(parts, self.n_samples(dataset.fs))

    def inputs(self, dataset: Dataset, parts: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Windows of segments as the network reads them, shape (n, 1, n_samples), and the row that each is of."""
        windows, owners = self.cut(dataset, parts)
        return standardise(windows)[:, None], owners

    def untrained(self, context: Context, seed: int) -> SignalModel:
        """Network with its initial weights, the control."""
        return self._create(context, {PERSON: ("nobody", "somebody")}, seed).eval()

    def pretrained(self, context: Context, table: pd.DataFrame, seed: int) -> tuple[SignalModel, "Rows"] | None:
        """Network trained on the people of auxiliary records, and rows of some of them to train along with others.

        None where fewer than two persons have a window: one alone is told from nobody. The records' rows are cut once a
        process, whether the network is trained or was before.
        """
        key = (self, seed, tuple(table[RECORD]))  # tables of the same cohorts may hold other people
        return context.shared(key, lambda: self._pretrained(context, table, seed))

    def _pretrained(self, context: Context, table: pd.DataFrame, seed: int) -> tuple[SignalModel, "Rows"] | None:
        # the same persons that the cross-cohort protocols state
        chosen = training_parts(table, context.split_seed)[0][SUBJECT]
        parts = segments(by_lead(table[table[SUBJECT].isin(chosen)], self.auxiliary_leads))
        first = replace(self, epochs=self.pretraining_epochs, learning_rate=self.pretraining_rate)
        rows = self._rows(context, parts, AUXILIARY_ROWS, seed)
        if len({without_lead(person) for person in rows.persons}) < 2:
            return None
        model = first._fit(context, rows, seed)
        classes = np.random.default_rng(seed).permutation(parts[SUBJECT].unique())[:AUXILIARY_CLASSES]
        some = parts[parts[SUBJECT].isin(classes)].reset_index(drop=True)
        return model, self._rows(context, some, AUXILIARY_ROWS, seed)

    def trained(
        self, context: Context, known: pd.DataFrame, validation: pd.DataFrame | None, seed: int, helpers: pd.DataFrame
    ) -> SignalModel:
        """Network trained on persons of segments, helped by that of auxiliary records (if any) and some of its classes.

        The epoch is chosen by the loss on `validation`, segments of the same persons; without it the last is kept.
        """
        rows, start = self._material(context, known, seed, helpers)
        return self._fit(context, rows, seed, validation, start)

    def refitted(
        self, context: Context, known: pd.DataFrame, validation: pd.DataFrame, seed: int, helpers: pd.DataFrame
    ) -> tuple[SignalModel, SignalModel]:
        """Network as :meth:`trained` gives it, and one that learnt from `validation` too, for as many epochs as chosen.

        The first alone may be asked about `validation`.
        """
        rows, start = self._material(context, known, seed, helpers)
        first = self._run(context, rows, seed, validation, start)
        # where nothing could be chosen on, all epochs stand
        losses = first.history.get("val_loss", pd.Series(0.0, index=[self.epochs - 1]))
        everything = pd.concat([known, validation], ignore_index=True)
        again = replace(self, epochs=int(losses.idxmin()) + 1)
        rows, start = self._material(context, everything, seed, helpers)
        return first.model, again._fit(context, rows, seed, None, start)

    def _material(
        self, context: Context, known: pd.DataFrame, seed: int, helpers: pd.DataFrame
    ) -> tuple["Rows", SignalModel | None]:
        """Rows of persons and of some auxiliary ones, and the network that auxiliary records have trained (if any)."""
        rows, start = self._rows(context, known, max(1, ROWS // max(1, known[SUBJECT].nunique())), seed), None
        if not len(rows.persons):
            raise StudyError(f"no recording holds a window that {self.model} could learn from")
        if self.helped and len(helpers) and (learnt := self.pretrained(context, helpers, seed)):
            start, others = learnt
            # cut to the shorter of the two lengths
            length = min(rows.windows.shape[1], others.windows.shape[1])
            both = (one._replace(windows=one.windows[:, :length]) for one in (rows, others))
            rows = Rows(*(None if of[0] is None else np.concatenate(of) for of in zip(*both, strict=True)))
        return rows, start

    def _create(self, context: Context, classes: dict[str, tuple[str, ...]], seed: int) -> SignalModel:
        fs = context.dataset.fs
        shape = {"n_leads": 1, "n_samples": self.n_samples(fs), "fs": fs, "lead_names": ["identity"]}
        return create_model(self.model, seed, classes=classes, learning_rate=self.learning_rate, **shape)

    def _fit(
        self,
        context: Context,
        rows: "Rows",
        seed: int,
        validation: pd.DataFrame | None = None,
        start: SignalModel | None = None,
    ) -> SignalModel:
        """Network of :meth:`_run`."""
        return self._run(context, rows, seed, validation, start).model

    def _run(
        self,
        context: Context,
        rows: "Rows",
        seed: int,
        validation: pd.DataFrame | None = None,
        start: SignalModel | None = None,
    ) -> TrainedRun:
        """Build the sets, take over the trunk of `start`, and train or load."""
        classes = trainable_classes(rows.persons, context.people)
        model = self._create(context, classes, seed)
        if start is not None:
            trunk = {k: v for k, v in start.state_dict().items() if not k.startswith("heads.")}
            model.load_state_dict(trunk, strict=False)
        chosen_on = None
        if validation is not None:
            held = Rows.of(validation, *self.cut(context.dataset, validation))
            chosen_on = held.labelled(context.people, classes) if len(held.windows) else None
        # gain is left out because windows are standardised
        augmentation = Augmentation(0.0, self.noise, 0.1, self.warp, self.span[0])
        settings = TrainingSettings(self.epochs, self.batch_size, seed, augmentation=augmentation)
        train = rows.labelled(context.people, classes)
        return fit(model, train, chosen_on, settings, context.runs, context.device)

    def _rows(self, context: Context, parts: pd.DataFrame, each: int, seed: int) -> "Rows":
        """Draw the same number of rows for each person with a window, longer than the network reads where possible."""
        rng, dataset, most = np.random.default_rng([seed, each]), context.dataset, self.at_hand or each
        if self.single:
            cut = dataset.single_beats(parts, most, BEAT_SLACK)
        elif self.beats:
            cut = dataset.averaged_beats(parts, most, rng)
        else:
            # as long as the shortest segment that holds a window, up to a limit
            lengths = dataset.pieces(parts).pipe(lambda pieces: pieces["stop"] - pieces["start"])
            shortest = lengths[lengths >= self.n_samples(dataset.fs)].min()
            cut = dataset.windows(parts, int(np.fmin(shortest, round(ROW_S * dataset.fs))), most)
        rows = Rows.of(parts, *cut)
        if not len(rows.persons):
            return rows
        order = np.argsort(rows.persons, kind="stable")
        groups = np.split(order, np.unique(rows.persons[order], return_index=True)[1][1:])
        drawn = []
        for group in groups:
            n = max(each, len(group)) if self.at_hand else each
            # all of a person before any twice
            drawn.append(np.concatenate([rng.permutation(group) for _ in range(-(-n // len(group)))])[:n])
        chosen = np.concatenate(drawn)
        return Rows(*(column[chosen] for column in rows[:3]), np.full(len(chosen), each) if self.at_hand else None)


class Rows(NamedTuple):
    """Windows of shape (n, n_samples) with the person and the record of each; `draws` as in :class:`WindowSet`."""

    windows: np.ndarray
    persons: np.ndarray
    records: np.ndarray
    draws: np.ndarray | None = None

    @classmethod
    def of(cls, parts: pd.DataFrame, windows: np.ndarray, owners: np.ndarray) -> "Rows":
        """Windows whose `owners` are rows of segments."""
        return cls(windows, *(parts[column].to_numpy(dtype=str)[owners] for column in (SUBJECT, RECORD)))

    def labelled(self, people: pd.DataFrame, classes: dict[str, tuple[str, ...]]) -> WindowSet:
        """Set to train or to choose on."""
        goals = targets(self.persons, people, classes)
        return WindowSet(standardise(self.windows)[:, None], goals, self.persons, self.records, self.draws)


def auxiliary_records(context: Context, but: str = "") -> pd.DataFrame:
    """Concatenate the auxiliary records of all cohorts but one; networks are pre-trained on them."""
    tables = [context.records(name).query("auxiliary") for name in context.stores if name != but]
    found = pd.concat([table for table in tables if len(table)] or [pd.DataFrame({SUBJECT: []})], ignore_index=True)
    # a person alone is told from nobody
    return found if found[SUBJECT].nunique() >= 2 else pd.DataFrame()


def targets(persons: np.ndarray, people: pd.DataFrame, classes: dict[str, tuple[str, ...]]) -> dict[str, np.ndarray]:
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
