"""Which wave and which interval an attacker really uses: what recognition loses when it is taken from every probe.

Enrolment stays as recorded. A wave or an interval is taken away by putting the average of the cohort's other persons in
its place (:class:`FactorExchange`, a view of the probes). What that costs is partly the price of averaging and of the
joints, so the person's OWN average is put in its place too, and a *cost* is the loss with the others' average less the
loss with the own one, paired by person. What is still recognised when all waves and intervals are average is *the
rest*: fine timing from beat to beat, waves that could not be found, what no average holds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ecgstudy.attribution.cases import known_fiducials
from ecgstudy.attribution.exchange import (
    FACTORS,
    INTERVALS,
    Average,
    exchanged,
    intervals_of,
    mean_average,
    person_averages,
    prolonged,
)
from ecgstudy.attribution.shares import estimates, first_two
from ecgstudy.attribution.waves import GRID, WAVES, fiducial_points
from ecgstudy.errors import NotApplicableError
from ecgstudy.evaluate.biometric import eer_statistic, rank1_statistic
from ecgstudy.evaluate.bootstrap import Resamples, ratio
from ecgstudy.evaluate.protocols import some_on_trial
from ecgstudy.evaluate.results import intervals
from ecgstudy.evaluate.splits import RECORD, SUBJECT, Split
from ecgstudy.experiment.attackers import Fitted
from ecgstudy.experiment.dataset import Dataset, View
from ecgstudy.experiment.evaluation import scored_folds
from ecgstudy.experiment.jobs import Context, Job, Outcome, run
from ecgstudy.experiment.scores import trial

EVERYTHING = "everything"
TAKEN: dict[str, tuple[str, ...]] = {factor: (factor,) for factor in FACTORS}
TAKEN |= {"all waves": WAVES, "all intervals": INTERVALS, EVERYTHING: FACTORS}
"""What is taken away at once. What recognises people with everything taken away is the rest."""
MEASURES = ("rank1", "eer")
UNKNOWN = Average(np.full((1, len(WAVES), GRID.size), np.nan), np.full(len(INTERVALS), np.nan))
"""Average of a person of whom nothing is known: nothing is replaced."""
_REACH_S = 60.0  # by which a long record is prolonged at most before its time is warped


@dataclass(frozen=True)
class FactorExchange(View):
    """Recordings in which some factors are replaced by those of average beats, by record."""

    averages: Mapping[str, Average]
    taken: tuple[str, ...]

    def scaled(self, dataset: Dataset, record_id: str, start: int, values: np.ndarray) -> np.ndarray:
        """Replace the waves that lie wholly inside the segment, and the segment's mean intervals."""
        average, n_samples = self.averages[record_id], len(values)
        fiducials, _ = known_fiducials(dataset, record_id, start, start + n_samples)
        more = round(min(n_samples, _REACH_S * dataset.fs)) if set(self.taken) & set(INTERVALS) else 0
        longer, beats = prolonged(values[None], fiducials, more) if more else (values[None], fiducials)
        taken = np.isin(FACTORS, self.taken)
        change = np.where(taken[len(WAVES) :], average.intervals - intervals_of(fiducial_points(fiducials)), 0)
        waves = np.where(taken[: len(WAVES), None], average.waves, np.nan)
        return exchanged(longer, fiducial_points(beats), dataset.fs, waves, change)[0][0, more : more + n_samples]


@dataclass(frozen=True)
class Costs:
    """An attacker on the recordings as they are, and with each of :data:`TAKEN` replaced by others' and own averages.

    Rank-1 and EER drawn (everybody first, then the resamples): `whole` (1 + n_resamples, 2), `others` and `own`
    (1 + n_resamples, n_taken, 2). `known` counts the waves of each kind that could be replaced, a beat, (n_waves,):
    what the delineation did not find and what the ends of a probe cut through stays as recorded.
    """

    whole: np.ndarray
    others: np.ndarray
    own: np.ndarray
    n_persons: int
    known: np.ndarray

    @property
    def losses(self) -> np.ndarray:
        """Fall of rank-1 and rise of EER with others' averages less with own ones, (1 + n_resamples, n_taken, 2)."""
        return (self.others - self.own) * [-1, 1] + 0.0  # no negative zeros


def audit_costs(context: Context, jobs: Sequence[Job]) -> tuple[pd.DataFrame, pd.DataFrame, Outcome]:
    """Measure what every factor costs networks: :func:`cost_table` and :func:`order_table`."""
    outcome = run(cost_tables, jobs, context, "the causal check")
    if not outcome.values:
        raise NotApplicableError(outcome.refusals["reason"].iloc[0])
    costs, orders = (pd.concat(tables, ignore_index=True) for tables in zip(*outcome.values.values(), strict=True))
    return costs, orders, outcome


def cost_tables(context: Context, job: Job) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables of one network."""
    split = some_on_trial(context.splits(job)[0])
    persons = np.concatenate([split.enrolment[SUBJECT], split.probe[SUBJECT]])
    resamples = Resamples.draw(persons, job.seed, context.n_resamples)
    costs = factor_costs(context.fitted(job), split, context.dataset, resamples)
    return tuple(table(costs).assign(cohort=job.cohort, model=job.attacker) for table in (cost_table, order_table))


def factor_costs(fitted: Fitted, split: Split, dataset: Dataset, resamples: Resamples) -> Costs:
    """Let an attacker recognise a split's probes as they are and with everything taken away in turn.

    One that reads windows: whoever cuts beats would look for R peaks where they were before time was warped.
    """
    owner = dict(zip(split.probe[RECORD], split.probe[SUBJECT], strict=True))
    (own, known), (theirs, _) = (_averages(dataset, part) for part in (split.probe, split.enrolment))
    others = {me: mean_average(one for person, one in theirs.items() if person != me) for me in set(owner.values())}
    views = [View()]
    for averages in (others, own):
        by_record = {record: averages.get(person, UNKNOWN) for record, person in owner.items()}
        views += [FactorExchange(by_record, taken) for taken in TAKEN.values()]
    enrolled, drawn = fitted.embed(dataset, split.enrolment), []
    multiplicities = (np.ones(resamples.persons.size), *resamples.multiplicities)
    for view in views:
        probed = fitted.embed(view.of(dataset), split.probe)
        fold = scored_folds([trial(split.enrolment, enrolled, split.probe, probed).without_gaps()], resamples)
        rank1, eer = rank1_statistic(fold), eer_statistic(fold)
        drawn.append([(rank1(multiplicity), eer(multiplicity)) for multiplicity in multiplicities])
    whole, others, own = np.split(np.array(drawn).swapaxes(0, 1), [1, 1 + len(TAKEN)], axis=1)
    return Costs(whole[:, 0], others, own, len(set(owner.values())), known)


def _averages(dataset: Dataset, segments: pd.DataFrame) -> tuple[dict[str, Average], np.ndarray]:
    """Average beat of each person, and the known waves a beat."""
    recordings = []
    for piece in dataset.pieces(segments).itertuples():
        part = piece.record_id, piece.start, piece.stop
        points = fiducial_points(known_fiducials(dataset, *part)[0])
        recordings.append((piece.subject_id, dataset.segment(*part)[None], points))
    averages, known = person_averages(recordings)
    return averages, ratio(known, sum(points["r_peak"].size for *_, points in recordings))


def cost_table(costs: Costs) -> pd.DataFrame:
    """Tell what taking each factor away costs, with paired, person-clustered bootstrap intervals.

    One row a factor (and all waves, all intervals, everything): factor; rank1 and eer with others' average, rank1_cost
    and eer_cost, with ``_low`` and ``_high``; own_rank1 and own_eer with the own average; as_recorded_rank1 and
    as_recorded_eer; waves_a_beat (replaced ones, of the least found wave: below 1 some stayed); persons; reason.
    """
    rows = []
    for at, (factor, taken) in enumerate(TAKEN.items()):
        row, replaced = {"factor": factor}, [WAVES.index(name) for name in taken if name in WAVES]
        drawn = dict(zip(MEASURES, costs.others[:, at].T, strict=True))
        drawn |= {f"{name}_cost": losses for name, losses in zip(MEASURES, costs.losses[:, at].T, strict=True)}
        found = estimates(drawn, costs.n_persons, "recognition is undefined on these probes")
        for kind, values in {"own": costs.own[0, at], "as_recorded": costs.whole[0]}.items():
            row |= {f"{kind}_{name}": value for name, value in zip(MEASURES, values, strict=True)}
        row["waves_a_beat"] = costs.known[replaced].min() if replaced else np.nan
        reason = next((estimate.reason for estimate in found.values() if estimate.reason), None)
        rows.append(row | intervals(found) | {"persons": costs.n_persons, "reason": reason})
    return pd.DataFrame(rows)


def order_table(costs: Costs) -> pd.DataFrame:
    """Paired test of the order of the two dearest factors, by measure: first, second, measure, difference, p."""
    rows = []
    for number, measure in enumerate(MEASURES):
        losses = costs.losses[:, : len(FACTORS), number]
        order = first_two(losses, np.nan_to_num(losses[0], nan=-np.inf), costs.n_persons)
        rows.append({"measure": measure, **order})
    return pd.DataFrame(rows)
