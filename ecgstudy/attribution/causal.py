"""Which wave and which interval an attacker really uses: what recognition loses when it is taken from every probe.

Enrolment stays as recorded. A wave or an interval is taken away by putting the average of the cohort's other persons in
its place (:class:`FactorExchange`, a view of the probes). What that costs is partly the price of averaging and of the
joints, so the person's OWN average is put in its place too, and a *cost* is the loss with the others' average less the
loss with the own one, paired by person. What is still recognised when all waves and intervals are average is *the
rest*: fine timing from beat to beat, waves that could not be found, what no average holds.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ecgstudy.attribution.cases import audited_jobs, known_fiducials
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
from ecgstudy.attribution.waves import GRID, WAVES, fiducial_points
from ecgstudy.evaluate.biometric import eer_statistic, rank1_statistic
from ecgstudy.evaluate.bootstrap import Resamples, bootstrap_each, ratio
from ecgstudy.evaluate.protocols import some_on_trial
from ecgstudy.evaluate.results import intervals
from ecgstudy.evaluate.splits import RECORD, SUBJECT, Split
from ecgstudy.experiment.attackers import Fitted
from ecgstudy.experiment.dataset import Dataset, View
from ecgstudy.experiment.evaluation import scored_folds
from ecgstudy.experiment.jobs import Context, Job, Outcome, run
from ecgstudy.experiment.scores import trial

ALL_WAVES, ALL_INTERVALS, EVERYTHING = "all waves", "all intervals", "everything"
TAKEN: Mapping[str, tuple[str, ...]] = {factor: (factor,) for factor in FACTORS} | {
    ALL_WAVES: WAVES,
    ALL_INTERVALS: INTERVALS,
    EVERYTHING: FACTORS,
}
"""What is taken away at once. What recognises people with everything taken away is the rest."""
OTHERS, OWN = "others' average", "own average"
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
        more = round(min(n_samples / dataset.fs, _REACH_S) * dataset.fs) if set(self.taken) & set(INTERVALS) else 0
        longer, beats = prolonged(values[None], fiducials, more) if more else (values[None], fiducials)
        points, taken = fiducial_points(beats), np.isin(FACTORS, self.taken)
        change = np.where(taken[len(WAVES) :], average.intervals - intervals_of(fiducial_points(fiducials)), 0)
        waves = np.where(taken[: len(WAVES), None], average.waves, np.nan)
        return exchanged(longer, points, dataset.fs, waves, change)[0][0, more : more + n_samples]


@dataclass(frozen=True)
class Costs:
    """An attacker on the recordings as they are and with each of :data:`TAKEN` replaced, to be weighted by persons.

    `measure` goes from the persons' multiplicities to rank-1 and EER: shape (1 + 2 n_taken, 2), the recordings as they
    are first, then with others' averages, then with own ones. `known` counts the waves of each kind that could be
    replaced, a beat, shape (n_waves,): what the delineation did not find and what the ends of a probe cut through
    stays as recorded.
    """

    measure: Callable[[np.ndarray], np.ndarray]
    n_persons: int
    known: np.ndarray

    def losses(self, multiplicity: np.ndarray) -> np.ndarray:
        """Fall of rank-1 and rise of EER with others' averages less with own ones, shape (n_taken, 2)."""
        _, others, own = np.split(self.measure(multiplicity), [1, 1 + len(TAKEN)])
        return (others - own) * [-1, 1] + 0.0  # no negative zeros


def audit_costs(context: Context, seed: int) -> tuple[pd.DataFrame, pd.DataFrame, Outcome]:
    """Measure what every factor costs the audited networks: :func:`cost_table` and :func:`order_table`."""
    outcome = run(cost_tables, audited_jobs(context, seed), context, "the causal check")
    costs, orders = (pd.concat(tables, ignore_index=True) for tables in zip(*outcome.values.values(), strict=True))
    return costs, orders, outcome


def cost_tables(context: Context, job: Job) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables of one network."""
    split = some_on_trial(context.splits(job)[0])
    resamples = Resamples.draw(np.concatenate([split.enrolment[SUBJECT], split.probe[SUBJECT]]), job.seed)
    costs = factor_costs(context.fitted(job), split, context.dataset, resamples)
    tables = cost_table(costs, resamples), order_table(costs, resamples)
    return tuple(table.assign(cohort=job.cohort, model=job.attacker) for table in tables)


def factor_costs(fitted: Fitted, split: Split, dataset: Dataset, resamples: Resamples) -> Costs:
    """Let an attacker recognise a split's probes as they are and with everything taken away in turn.

    One that reads windows: whoever cuts beats would look for R peaks where they were before time was warped.
    """
    owner = dict(zip(split.probe[RECORD], split.probe[SUBJECT], strict=True))
    own, known = _averages(dataset, split.probe)
    enrolled_averages = _averages(dataset, split.enrolment)[0]
    others = {
        person: mean_average([average for name, average in enrolled_averages.items() if name != person])
        for person in set(owner.values())
    }
    views = [View()]
    for averages in (others, own):
        by_record = {record: averages.get(person, UNKNOWN) for record, person in owner.items()}
        views += [FactorExchange(by_record, taken) for taken in TAKEN.values()]
    enrolled = fitted.embed(dataset, split.enrolment)
    measures = []
    for view in views:
        probed = fitted.embed(view.of(dataset), split.probe)
        fold = scored_folds([trial(split.enrolment, enrolled, split.probe, probed).without_gaps()], resamples)
        measures.append((rank1_statistic(fold), eer_statistic(fold)))
    found: dict[bytes, np.ndarray] = {}

    def measure(multiplicity: np.ndarray) -> np.ndarray:
        key = multiplicity.tobytes()  # each draw is measured once
        if key not in found:
            found[key] = np.array([[rank1(multiplicity), eer(multiplicity)] for rank1, eer in measures])
        return found[key]

    return Costs(measure, len(set(owner.values())), known)


def _averages(dataset: Dataset, segments: pd.DataFrame) -> tuple[dict[str, Average], np.ndarray]:
    """Average beat of each person, and the known waves a beat."""
    recordings, n_beats = [], 0
    for piece in dataset.pieces(segments).itertuples():
        values = dataset.segment(piece.record_id, piece.start, piece.stop)
        fiducials, _ = known_fiducials(dataset, piece.record_id, piece.start, piece.stop)
        n_beats += len(fiducials)
        recordings.append((piece.subject_id, values[None], fiducial_points(fiducials)))
    averages, known = person_averages(recordings)
    return averages, ratio(known, n_beats)


def cost_table(costs: Costs, resamples: Resamples) -> pd.DataFrame:
    """Tell what taking each factor away costs, with paired, person-clustered bootstrap intervals.

    One row a factor (and all waves, all intervals, everything): factor; rank1 and eer with others' average, own_rank1
    and own_eer with the own one; rank1_cost and eer_cost with ``_low`` and ``_high``; as_recorded_rank1 and
    as_recorded_eer; waves_a_beat (replaced ones, of the least found wave: below 1 some stayed); persons; reason.
    """
    names = [f"{measure}_cost" for measure in MEASURES]
    reasons = [f"{name} is undefined on these probes" for _ in TAKEN for name in names]
    found = bootstrap_each(lambda drawn: costs.losses(drawn).ravel(), resamples, costs.n_persons, reasons)
    whole, others, own = np.split(costs.measure(np.ones(resamples.persons.size)), [1, 1 + len(TAKEN)])
    rows = []
    for at, (factor, taken) in enumerate(TAKEN.items()):
        estimates = dict(zip(names, found[2 * at : 2 * at + 2], strict=True))
        row = {"factor": factor} | dict(zip(MEASURES, others[at], strict=True))
        row |= {f"own_{measure}": value for measure, value in zip(MEASURES, own[at], strict=True)} | intervals(
            estimates
        )
        row |= {f"as_recorded_{measure}": value for measure, value in zip(MEASURES, whole[0], strict=True)}
        replaced = [WAVES.index(factor) for factor in taken if factor in WAVES]
        row["waves_a_beat"] = costs.known[replaced].min() if replaced else np.nan
        reason = next((estimate.reason for estimate in estimates.values() if estimate.reason), None)
        rows.append(row | {"persons": costs.n_persons, "reason": reason})
    return pd.DataFrame(rows)


def order_table(costs: Costs, resamples: Resamples) -> pd.DataFrame:
    """Paired test of the order of the two dearest factors, by measure: first, second, measure, difference, p."""
    whole, rows = costs.losses(np.ones(resamples.persons.size))[: len(FACTORS)], []
    for at, measure in enumerate(MEASURES):
        first, second = np.argsort(-np.nan_to_num(whole[:, at], nan=-np.inf), kind="stable")[:2]

        def difference(drawn: np.ndarray, first: int = first, second: int = second, at: int = at) -> tuple[float]:
            losses = costs.losses(drawn)[:, at]
            return (losses[first] - losses[second],)

        (found,) = bootstrap_each(difference, resamples, costs.n_persons, [f"{measure} is undefined on these probes"])
        row = {"measure": measure, "first": FACTORS[first], "second": FACTORS[second]}
        rows.append(row | intervals({"difference": found}) | {"p": found.p})
    return pd.DataFrame(rows)
