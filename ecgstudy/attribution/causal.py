"""Which wave an attacker really uses: the fall of its accuracy when a wave is taken from every probe beat.

Enrolment stays as recorded. A wave is taken away by putting the average wave of the cohort's other persons in its
place (:class:`WaveSplice`, a view of the probes); the reverse keeps one wave and replaces all others. The control puts
the person's OWN average wave in place of every beat's: what that costs is the price of averaging and of the joints.
Intervals between waves and the level of the recording at the joints stay the person's own, so the effects are
those of the waves' shapes.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from ecgstudy.attribution.shares import Shares, columns_of, mean_shares
from ecgstudy.attribution.waves import GRID, WAVES, average_waves, splice, wave_spans
from ecgstudy.evaluate.biometric import ScoredFold, eer_statistic, rank1_statistic
from ecgstudy.evaluate.bootstrap import Estimate, Resamples, bootstrap_each
from ecgstudy.evaluate.splits import RECORD, SUBJECT, Split
from ecgstudy.experiment.attackers import Embedded, Fitted
from ecgstudy.experiment.dataset import Dataset, View
from ecgstudy.experiment.scores import trial

ALL = "all"
"""Stands for all waves at once."""
MEASURES = ("rank1", "eer")
UNKNOWN = np.full((len(WAVES), GRID.size), np.nan)
"""Average waves of a person of whom no wave is known: nothing is replaced."""
UNORDERED = "all waves have the same share or the same effect"


class Change(StrEnum):
    """What is done to every probe beat."""

    REPLACED = "replaced"
    KEPT = "kept"
    OWN_AVERAGE = "own average"


CONDITIONS = (
    *((Change.REPLACED, wave) for wave in (*WAVES, ALL)),
    *((Change.KEPT, wave) for wave in WAVES),
    *((Change.OWN_AVERAGE, wave) for wave in (*WAVES, ALL)),
)
"""Changes and the waves that they are about. All waves replaced: what intervals and levels give away alone."""
AGREEMENTS = [(change, sign, at) for change, sign in ((Change.REPLACED, 1), (Change.KEPT, -1)) for at in (0, 1)]
"""Effects that shares are compared with: the loss when a wave is replaced, what is left when it alone is kept."""


@dataclass(frozen=True)
class WaveSplice(View):
    """Recordings in which some waves are replaced by average ones, shape (n_waves, n_grid), by record."""

    averages: Mapping[str, np.ndarray]
    replaced: tuple[str, ...]

    def scaled(self, dataset: Dataset, record_id: str, start: int, values: np.ndarray) -> np.ndarray:
        """Replace the waves that lie wholly inside the segment."""
        spans = wave_spans(dataset.fiducials(record_id, start, start + len(values)), len(values))
        return splice(values, spans, self.averages[record_id], self.replaced, dataset.fs)


@dataclass(frozen=True)
class Effects:
    """An attacker under every condition, to be weighted by persons.

    `unchanged` goes from the persons' multiplicities to rank-1 and EER on the recordings as they are, `changed` does so
    under each of :data:`CONDITIONS`. `known` counts the waves of each kind that could be replaced, a beat, shape
    (n_waves,): what the delineation did not find and what the ends of a probe cut through stays as recorded.
    """

    unchanged: Callable[[np.ndarray], np.ndarray]
    changed: dict[tuple[Change, str], Callable[[np.ndarray], np.ndarray]]
    n_persons: int
    known: np.ndarray

    def losses(self, multiplicity: np.ndarray, conditions: Iterable[tuple[Change, str]] = CONDITIONS) -> np.ndarray:
        """Fall of rank-1 and rise of EER under each condition, shape (n_conditions, 2)."""
        before = self.unchanged(multiplicity)
        after = np.array([self.changed[condition](multiplicity) for condition in conditions])
        return (after - before) * [-1, 1] + 0.0  # no negative zeros


def wave_effects(attacks: Sequence[tuple[Fitted, Split]], dataset: Dataset, resamples: Resamples) -> Effects:
    """Let an attacker recognise probes as they are and under every condition.

    `attacks` are fitted attackers and the splits they are tried on, one a fold; rank-1 and EER are means over the
    folds.
    """
    unchanged, changed = [], {condition: [] for condition in CONDITIONS}
    known = []
    for fitted, split in attacks:
        owner = dict(zip(split.probe[RECORD], split.probe[SUBJECT], strict=True))
        enrolled = fitted.embed(dataset, split.enrolment)
        unchanged.append(_scored(split, enrolled, fitted.embed(dataset, split.probe), resamples))
        own, found = _wave_averages(dataset, split.probe)
        others = _of_others(_wave_averages(dataset, split.enrolment)[0], set(owner.values()))
        known.append(found)
        for change, wave in CONDITIONS:
            averages = own if change is Change.OWN_AVERAGE else others
            by_record = {record: averages.get(person, UNKNOWN) for record, person in owner.items()}
            probed = fitted.embed(dataset.viewed(WaveSplice(by_record, _replaced(change, wave))), split.probe)
            changed[change, wave].append(_scored(split, enrolled, probed, resamples))
    n_persons = len({person for _, split in attacks for person in split.probe[SUBJECT]})
    measured = {condition: _measured(folds) for condition, folds in changed.items()}
    return Effects(_measured(unchanged), measured, n_persons, np.mean(known, axis=0))


def _replaced(change: Change, wave: str) -> tuple[str, ...]:
    """Waves that a condition replaces."""
    named = WAVES if wave == ALL else (wave,)
    return tuple(w for w in WAVES if w not in named) if change is Change.KEPT else named


def effect_table(effects: Effects, resamples: Resamples) -> pd.DataFrame:
    """Fall of rank-1 and rise of EER under each condition, with paired, person-clustered bootstrap intervals.

    One row a condition: change, wave; rank1 and eer under it; rank1_fall and eer_rise against the recordings as they
    are, with ``_low`` and ``_high``; waves_a_beat (replaced ones, of the least found wave: below 1 some stayed);
    persons; reason.
    """
    estimates = bootstrap_each(
        lambda multiplicity: effects.losses(multiplicity).ravel(),
        resamples,
        effects.n_persons,
        [f"{name} is undefined on these probes" for _ in effects.changed for name in MEASURES],
    )
    everybody = np.ones(resamples.persons.size)
    rows = []
    for at, ((change, wave), measure) in enumerate(effects.changed.items()):
        row: dict[str, object] = {"change": str(change), "wave": wave}
        row |= dict(zip(MEASURES, measure(everybody), strict=True))
        found = dict(zip(("rank1_fall", "eer_rise"), estimates[2 * at : 2 * at + 2], strict=True))
        reason = next((estimate.reason for estimate in found.values() if estimate.reason), None)
        row |= columns_of(found)
        row["waves_a_beat"] = effects.known[[WAVES.index(w) for w in _replaced(change, wave)]].min()
        rows.append(row | {"persons": effects.n_persons, "reason": reason})
    return pd.DataFrame(rows)


def effect_ranks(effects: Effects, resamples: Resamples) -> dict[bytes, np.ndarray]:
    """Ranks of the waves by each of :data:`AGREEMENTS`, shape (4, n_waves), by draw of the persons."""
    conditions = [(change, wave) for change in (Change.REPLACED, Change.KEPT) for wave in WAVES]
    found = {}
    for multiplicity in (np.ones(resamples.persons.size), *resamples.multiplicities):
        losses = effects.losses(multiplicity, conditions).reshape(2, len(WAVES), 2)
        ordered = [sign * losses[int(change is Change.KEPT), :, at] for change, sign, at in AGREEMENTS]
        found[multiplicity.tobytes()] = rankdata(ordered, axis=1, nan_policy="propagate")
    return found


def share_agreement(
    shares: Shares, persons: np.ndarray, ranks: Mapping[bytes, np.ndarray], resamples: Resamples
) -> dict[str, Estimate]:
    """Rank correlation of a method's shares with what each wave does to recognition (`ranks` of :func:`effect_ranks`).

    Both sides are resampled together. Six waves are few: an interval from -1 to 1 says that they cannot be ordered.
    "replaced.rank1" and "replaced.eer" are with the loss when the wave is replaced, "kept.rank1" and "kept.eer" with
    what is left when it alone is kept. 1 = the method ranks the waves as recognition does.
    """
    of_method = mean_shares(shares, persons, resamples)

    def correlations(multiplicity: np.ndarray) -> np.ndarray:
        own = rankdata(of_method(multiplicity)[0], nan_policy="propagate")
        return rank_correlations(own, ranks[multiplicity.tobytes()])

    estimates = bootstrap_each(correlations, resamples, np.unique(persons).size, [UNORDERED] * len(AGREEMENTS))
    names = [f"{change}.{MEASURES[at]}" for change, _, at in AGREEMENTS]
    return dict(zip(names, estimates, strict=True))


def rank_correlations(ranks: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Correlation of the ranks of waves (n_waves,) with each row of others (k, n_waves); NaN where all are tied."""
    centred, rows = ranks - ranks.mean(), others - others.mean(axis=1, keepdims=True)
    step = 1 / (ranks.size - 1)
    spread, spreads = np.sqrt((centred**2).sum() * step), np.sqrt((rows**2).sum(axis=1) * step)
    shared = (rows * centred).sum(axis=1) * step
    tied = (spreads == 0) | (spread == 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(tied, np.nan, np.clip(shared / spread / spreads, -1, 1))


def _wave_averages(dataset: Dataset, segments: pd.DataFrame) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Average waves of each person, shape (n_waves, n_grid), NaN where none is known; and the known waves a beat."""
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    n_beats = 0
    for piece in dataset.pieces(segments).itertuples():
        values = dataset.segment(piece.record_id, piece.start, piece.stop)
        fiducials = dataset.fiducials(piece.record_id, piece.start, piece.stop)
        n_beats += len(fiducials)
        found.setdefault(piece.subject_id, []).append(average_waves(values, wave_spans(fiducials, len(values))))
    totals = {person: [sum(parts) for parts in zip(*pairs, strict=True)] for person, pairs in found.items()}
    with np.errstate(invalid="ignore"):
        averages = {person: total / count for person, (total, count) in totals.items()}
    known = sum(count for _, count in totals.values())[:, 0]
    return averages, np.divide(known, n_beats, out=np.full(len(WAVES), np.nan), where=n_beats > 0)


def _of_others(own: Mapping[str, np.ndarray], persons: Iterable[str]) -> dict[str, np.ndarray]:
    """Mean over everybody else's average waves, for each of `persons`; NaN for a wave that nobody else has."""
    everybody = np.stack(list(own.values()))
    known = np.isfinite(everybody)
    total, count = np.where(known, everybody, 0.0).sum(axis=0), known.sum(axis=0)
    averages = {}
    for person in persons:
        mine = own.get(person, UNKNOWN)
        others = count - np.isfinite(mine)
        averages[person] = np.divide(
            total - np.nan_to_num(mine), others, out=np.full_like(total, np.nan), where=others > 0
        )
    return averages


def _scored(split: Split, enrolled: Embedded, probed: Embedded, resamples: Resamples) -> ScoredFold:
    """Search the probes among the enrolled."""
    matrix = trial(split.enrolment, enrolled, split.probe, probed).without_gaps()
    return ScoredFold(matrix, resamples, np.random.default_rng(resamples.seed))


def _measured(folds: Sequence[ScoredFold]) -> Callable[[np.ndarray], np.ndarray]:
    """Rank-1 and EER of folds as a function of the persons' multiplicities; each draw is measured once."""
    rank1, eer, known = rank1_statistic(folds), eer_statistic(folds), {}

    def measure(multiplicity: np.ndarray) -> np.ndarray:
        key = multiplicity.tobytes()
        if key not in known:
            known[key] = np.array([rank1(multiplicity), eer(multiplicity)])
        return known[key]

    return measure
