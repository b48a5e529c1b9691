"""Which wave an attacker really uses: the fall of its accuracy when a wave is taken from every probe beat.

Enrolment stays as recorded. A wave is taken away by putting the average wave of the cohort's other persons in its
place (:mod:`ecgstudy.attribution.splicing`); the reverse keeps one wave and replaces all others. The control puts
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

from ecgstudy.attribution.shares import Shares, mean_shares
from ecgstudy.attribution.splicing import average_waves, splice, wave_spans
from ecgstudy.attribution.waves import WAVES
from ecgstudy.evaluate.biometric import ScoredFold, eer_statistic, rank1_statistic
from ecgstudy.evaluate.bootstrap import Estimate, Resamples, Statistic, bootstrap, bootstrap_each
from ecgstudy.evaluate.splits import RECORD, SUBJECT, Split
from ecgstudy.experiment.attackers import Embedded, Fitted
from ecgstudy.experiment.dataset import Signals
from ecgstudy.experiment.jobs import _trial
from ecgstudy.experiment.selection import never_matched

ALL = "all"
"""Stands for all waves at once."""
MEASURES = ("rank1", "eer")
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


@dataclass(frozen=True)
class Attack:
    """An embedding attacker on trial.

    Attributes
    ----------
    split : Split
        Enrolment and probe.
    signals : Signals
        Recordings as they are.
    reading : callable
        From recordings to the trained attacker that reads them, such as
        :meth:`ecgstudy.attribution.subjects.Network.reading`.
    """

    split: Split
    signals: Signals
    reading: Callable[[Signals], Fitted]


class SplicedSignals(Signals):
    """Recordings in which some waves are replaced by average ones.

    Parameters
    ----------
    original : Signals
        Recordings as they are.
    averages : mapping of str to numpy.ndarray
        Average waves to put into each record, shape (n_waves, n_grid).
    replaced : tuple of str
        Names of the waves to replace.
    """

    def __init__(self, original: Signals, averages: Mapping[str, np.ndarray], replaced: tuple[str, ...]) -> None:
        vars(self).update(vars(original))  # the same records, without indexing them again
        self._averages = averages
        self._replaced = replaced

    def segment(self, record_id: str, start: int, stop: int) -> np.ndarray:
        """Give the samples of one segment as :class:`Signals` does, with the waves replaced."""
        values = super().segment(record_id, start, stop)
        spans = wave_spans(self.fiducials(record_id, start, stop), len(values))
        return splice(values, spans, self._averages[record_id], self._replaced, self.fs)


@dataclass(frozen=True)
class Effects:
    """An attacker under every condition, to be weighted by persons.

    Attributes
    ----------
    unchanged : callable
        From the persons' multiplicities to rank-1 and EER on the recordings as they are.
    changed : dict
        The same by :data:`CONDITIONS`.
    n_persons : int
        Persons with a probe.
    known : numpy.ndarray
        Waves of each kind that could be replaced, a beat, shape (n_waves,): what the delineation did not find and
        what the ends of a probe cut through stays as recorded.
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


def wave_effects(attacks: Sequence[Attack], resamples: Resamples) -> Effects:
    """Let an attacker recognise probes as they are and under every condition.

    Parameters
    ----------
    attacks : sequence of Attack
        One a fold of the protocol; rank-1 and EER are means over the folds.
    resamples : Resamples
        The persons to resample; they must include all who are enrolled or probed.
    """
    unchanged, changed = [], {condition: [] for condition in CONDITIONS}
    known = []
    for attack in attacks:
        probe = attack.split.probe
        owner = dict(zip(probe[RECORD], probe[SUBJECT], strict=True))
        enrolled = attack.reading(attack.signals).embed(attack.split.enrolment)
        unchanged.append(_scored(attack, enrolled, attack.signals, resamples))
        own, found = _wave_sums(attack.signals, probe)
        others = _of_others(_wave_sums(attack.signals, attack.split.enrolment)[0], own)
        known.append(found)
        for change, wave in CONDITIONS:
            averages = own if change is Change.OWN_AVERAGE else others
            by_record = {record: averages[person] for record, person in owner.items()}
            spliced = SplicedSignals(attack.signals, by_record, _replaced(change, wave))
            changed[change, wave].append(_scored(attack, enrolled, spliced, resamples))
    n_persons = len({person for attack in attacks for person in attack.split.probe[SUBJECT]})
    measured = {condition: _measured(folds) for condition, folds in changed.items()}
    return Effects(_measured(unchanged), measured, n_persons, np.mean(known, axis=0))


def _replaced(change: Change, wave: str) -> tuple[str, ...]:
    """Waves that a condition replaces."""
    named = WAVES if wave == ALL else (wave,)
    return tuple(w for w in WAVES if w not in named) if change is Change.KEPT else named


def effect_table(effects: Effects, resamples: Resamples) -> pd.DataFrame:
    """Fall of rank-1 and rise of EER under each condition, with paired, person-clustered bootstrap intervals.

    Returns
    -------
    pandas.DataFrame
        One row a condition: change, wave; rank1 and eer under it; rank1_fall and eer_rise against the recordings
        as they are, each also with ``_low`` and ``_high``; waves_a_beat (replaced ones, of the least found wave:
        below 1 some stayed); persons; reason (why something is NaN, else None).
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
        found = estimates[2 * at : 2 * at + 2]
        for name, estimate in zip(("rank1_fall", "eer_rise"), found, strict=True):
            row |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
        reason = next((estimate.reason for estimate in found if estimate.reason), None)
        row["waves_a_beat"] = effects.known[[WAVES.index(w) for w in _replaced(change, wave)]].min()
        rows.append(row | {"persons": effects.n_persons, "reason": reason})
    return pd.DataFrame(rows)


def rank_correlation(shares_by_wave: np.ndarray, effect_by_wave: np.ndarray) -> float:
    """Spearman correlation of the waves' shares with the effects of changing them.

    Parameters
    ----------
    shares_by_wave, effect_by_wave : numpy.ndarray
        Shape (n_waves,).

    Returns
    -------
    float
        NaN where either is undefined for a wave or the same for all.
    """
    ranks = rankdata([shares_by_wave, effect_by_wave], axis=1, nan_policy="propagate")
    if np.isnan(ranks).any() or not np.ptp(ranks, axis=1).all():
        return np.nan
    return float(np.corrcoef(ranks)[0, 1])


def share_agreement(shares: Shares, persons: np.ndarray, effects: Effects, resamples: Resamples) -> dict[str, Estimate]:
    """Rank correlation of a method's shares with what each wave does to recognition.

    Both sides are resampled together. Six waves are few: an interval from -1 to 1 says that they cannot be ordered.

    Parameters
    ----------
    shares : Shares
        From :func:`ecgstudy.attribution.shares.wave_shares`.
    persons : numpy.ndarray
        Person of each window, str, shape (n,).
    effects : Effects
        Of the same attacker.
    resamples : Resamples
        The persons to resample.

    Returns
    -------
    dict of str to Estimate
        "replaced.rank1" and "replaced.eer": with the loss when the wave is replaced; "kept.rank1" and "kept.eer":
        with what is left when it alone is kept. 1 = the method ranks the waves as recognition does.
    """
    of_method = mean_shares(shares, persons, resamples)
    n_persons = np.unique(persons).size

    def correlation(change: Change, sign: int, measure: int) -> Statistic:
        conditions = [(change, wave) for wave in WAVES]
        return lambda multiplicity: rank_correlation(
            of_method(multiplicity)[0], sign * effects.losses(multiplicity, conditions)[:, measure]
        )

    return {
        f"{change}.{name}": bootstrap(correlation(change, sign, measure), resamples, n_persons, UNORDERED)
        for change, sign in ((Change.REPLACED, 1), (Change.KEPT, -1))
        for measure, name in enumerate(MEASURES)
    }


def _wave_sums(signals: Signals, segments: pd.DataFrame) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Average waves of each person, shape (n_waves, n_grid), NaN where none is known; and the known waves a beat."""
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    n_beats = 0
    for segment in segments.itertuples():
        values = signals.segment(segment.record_id, segment.start, segment.stop)
        fiducials = signals.fiducials(segment.record_id, segment.start, segment.stop)
        n_beats += len(fiducials)
        sums = average_waves(values, wave_spans(fiducials, len(values)))
        found.setdefault(segment.subject_id, []).append(sums)
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
        mine = own.get(person, np.full_like(total, np.nan))
        others = count - np.isfinite(mine)
        averages[person] = np.divide(
            total - np.nan_to_num(mine), others, out=np.full_like(total, np.nan), where=others > 0
        )
    return averages


def _scored(attack: Attack, enrolled: Embedded, signals: Signals, resamples: Resamples) -> ScoredFold:
    """Search the probes, read from `signals`, among the enrolled."""
    split = attack.split
    probed = attack.reading(signals).embed(split.probe)
    scores, persons, _, gallery = _trial(split.enrolment, enrolled, split.probe, probed)
    return ScoredFold(never_matched(scores), persons, gallery, resamples, np.random.default_rng(resamples.seed))


def _measured(folds: Sequence[ScoredFold]) -> Callable[[np.ndarray], np.ndarray]:
    """Rank-1 and EER of folds as a function of the persons' multiplicities; each draw is measured once."""
    rank1, eer, known = rank1_statistic(folds), eer_statistic(folds), {}

    def measure(multiplicity: np.ndarray) -> np.ndarray:
        key = multiplicity.tobytes()
        if key not in known:
            known[key] = np.array([rank1(multiplicity), eer(multiplicity)])
        return known[key]

    return measure
