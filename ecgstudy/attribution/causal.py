"""Which wave an attacker really uses: the fall of its accuracy when a wave is taken from every probe beat.

Enrolment stays as recorded. A wave is taken away by putting the average wave of the cohort's other persons in its
place (:class:`WaveSplice`, a view of the probes); the reverse keeps one wave and replaces all others. The control puts
the person's OWN average wave in place of every beat's: what that costs is the price of averaging and of the joints.
Intervals between waves and the level of the recording at the joints stay the person's own, so the effects are
those of the waves' shapes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from ecgstudy.attribution.shares import mean_shares, shares
from ecgstudy.attribution.waves import GRID, WAVES, Windows, person_averages, splice, wave_spans
from ecgstudy.evaluate.biometric import eer_statistic, rank1_statistic
from ecgstudy.evaluate.bootstrap import Estimate, Resamples, bootstrap_each, ratio
from ecgstudy.evaluate.results import interval, intervals
from ecgstudy.evaluate.splits import RECORD, SUBJECT, Split
from ecgstudy.experiment.attackers import Fitted
from ecgstudy.experiment.dataset import Dataset, View
from ecgstudy.experiment.evaluation import scored_folds
from ecgstudy.experiment.scores import trial

ALL = "all"
"""Stands for all waves at once."""
REPLACED, KEPT, OWN_AVERAGE = "replaced", "kept", "own average"
"""What is done to every probe beat."""
CONDITIONS = (
    *((REPLACED, wave) for wave in (*WAVES, ALL)),
    *((KEPT, wave) for wave in WAVES),
    *((OWN_AVERAGE, wave) for wave in (*WAVES, ALL)),
)
"""Changes and the waves that they are about. All waves replaced: what intervals and levels give away alone."""
MEASURES = ("rank1", "eer")
UNKNOWN = np.full((len(WAVES), GRID.size), np.nan)
"""Average waves of a person of whom no wave is known: nothing is replaced."""
UNORDERED = "all waves have the same share or the same effect"


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
    """An attacker on the recordings as they are and under every condition, to be weighted by persons.

    `measure` goes from the persons' multiplicities to rank-1 and EER, shape (1 + n_conditions, 2), the recordings as
    they are first. `known` counts the waves of each kind that could be replaced, a beat, shape (n_waves,): what the
    delineation did not find and what the ends of a probe cut through stays as recorded.
    """

    measure: Callable[[np.ndarray], np.ndarray]
    n_persons: int
    known: np.ndarray

    def losses(self, multiplicity: np.ndarray) -> np.ndarray:
        """Fall of rank-1 and rise of EER under each of :data:`CONDITIONS`, shape (n_conditions, 2)."""
        found = self.measure(multiplicity)
        return (found[1:] - found[0]) * [-1, 1] + 0.0  # no negative zeros

    def wave_ranks(self, multiplicity: np.ndarray) -> np.ndarray:
        """Ranks of the waves, shape (4, n_waves): by the losses when each is replaced, and by what it alone keeps."""
        replaced, kept = (
            self.losses(multiplicity)[[CONDITIONS.index((change, wave)) for wave in WAVES]].T
            for change in (REPLACED, KEPT)
        )
        return rankdata([*replaced, *-kept], axis=1, nan_policy="propagate")


def wave_effects(fitted: Fitted, split: Split, dataset: Dataset, resamples: Resamples) -> Effects:
    """Let an attacker recognise a split's probes as they are and under every condition."""
    owner = dict(zip(split.probe[RECORD], split.probe[SUBJECT], strict=True))
    own, known = _averages(dataset, split.probe)
    others = _of_others(_averages(dataset, split.enrolment)[0], set(owner.values()))
    views = [View()]
    for change, wave in CONDITIONS:
        averages = own if change == OWN_AVERAGE else others
        by_record = {record: averages.get(person, UNKNOWN) for record, person in owner.items()}
        views.append(WaveSplice(by_record, _replaced(change, wave)))
    enrolled = fitted.embed(dataset, split.enrolment)
    measures = []
    for view in views:
        probed = fitted.embed(dataset.viewed(view), split.probe)
        matrix = trial(split.enrolment, enrolled, split.probe, probed).without_gaps()
        fold = scored_folds([matrix], resamples)
        measures.append((rank1_statistic(fold), eer_statistic(fold)))
    found: dict[bytes, np.ndarray] = {}

    def measure(multiplicity: np.ndarray) -> np.ndarray:
        key = multiplicity.tobytes()  # each draw is measured once
        if key not in found:
            found[key] = np.array([[rank1(multiplicity), eer(multiplicity)] for rank1, eer in measures])
        return found[key]

    return Effects(measure, len(set(owner.values())), known)


def _replaced(change: str, wave: str) -> tuple[str, ...]:
    """Waves that a condition replaces."""
    named = WAVES if wave == ALL else (wave,)
    return tuple(w for w in WAVES if w not in named) if change == KEPT else named


def _averages(dataset: Dataset, segments: pd.DataFrame) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Average waves of each person, shape (n_waves, n_grid), NaN where none is known; and the known waves a beat."""
    recordings, n_beats = [], 0
    for piece in dataset.pieces(segments).itertuples():
        values = dataset.segment(piece.record_id, piece.start, piece.stop)
        fiducials = dataset.fiducials(piece.record_id, piece.start, piece.stop)
        n_beats += len(fiducials)
        recordings.append((piece.subject_id, values, wave_spans(fiducials, len(values))))
    averages, known = person_averages(recordings)
    return averages, ratio(known, n_beats)


def _of_others(own: Mapping[str, np.ndarray], persons: set[str]) -> dict[str, np.ndarray]:
    """Mean over everybody else's average waves, for each of `persons`; NaN for a wave that nobody else has."""
    everybody = np.stack(list(own.values()))
    total, count = np.nansum(everybody, axis=0), np.isfinite(everybody).sum(axis=0)
    averages = {}
    for person in persons:
        mine = own.get(person, UNKNOWN)
        averages[person] = ratio(total - np.nan_to_num(mine), count - np.isfinite(mine))
    return averages


def effect_table(effects: Effects, resamples: Resamples) -> pd.DataFrame:
    """Fall of rank-1 and rise of EER under each condition, with paired, person-clustered bootstrap intervals.

    One row a condition: change, wave; rank1 and eer under it; rank1_fall and eer_rise against the recordings as they
    are, with ``_low`` and ``_high``; waves_a_beat (replaced ones, of the least found wave: below 1 some stayed);
    persons; reason.
    """
    reasons = [f"{name} is undefined on these probes" for _ in CONDITIONS for name in MEASURES]
    losses = bootstrap_each(lambda drawn: effects.losses(drawn).ravel(), resamples, effects.n_persons, reasons)
    measured = effects.measure(np.ones(resamples.persons.size))[1:]
    rows = []
    for at, (change, wave) in enumerate(CONDITIONS):
        found = dict(zip(("rank1_fall", "eer_rise"), losses[2 * at : 2 * at + 2], strict=True))
        reason = next((estimate.reason for estimate in found.values() if estimate.reason), None)
        row = {"change": change, "wave": wave} | dict(zip(MEASURES, measured[at], strict=True)) | intervals(found)
        row["waves_a_beat"] = effects.known[[WAVES.index(w) for w in _replaced(change, wave)]].min()
        rows.append(row | {"persons": effects.n_persons, "reason": reason})
    return pd.DataFrame(rows)


def agreement_table(
    relevances: Mapping[str, np.ndarray], windows: Windows, effects: Effects, resamples: Resamples
) -> pd.DataFrame:
    """Rank correlation of each method's shares of the waves with what each wave does to recognition.

    Six waves are few: an interval from -1 to 1 says that they cannot be ordered. One row a method and effect:
    "replaced.rank1" and "replaced.eer" are the loss when the wave is replaced, "kept.rank1" and "kept.eer" what is left
    when it alone is kept. 1 = the method ranks the waves as recognition does.
    """
    rows = []
    for method, relevance in relevances.items():
        found = share_agreement(shares(relevance, windows.codes), windows.persons, effects, resamples)
        for effect, estimate in found.items():
            about = {"method": method, "effect": effect, "persons": estimate.n, "reason": estimate.reason}
            rows.append(about | interval("correlation", estimate))
    return pd.DataFrame(rows)


def share_agreement(
    parts: np.ndarray, persons: np.ndarray, effects: Effects, resamples: Resamples
) -> dict[str, Estimate]:
    """Rank correlations of one method's shares with each effect; both sides are resampled together."""
    of_method = mean_shares(parts, persons, resamples)

    def correlations(multiplicity: np.ndarray) -> np.ndarray:
        own = rankdata(of_method(multiplicity)[0], nan_policy="propagate")
        with np.errstate(invalid="ignore", divide="ignore"):  # NaN where all are tied
            return np.corrcoef(np.vstack([own, effects.wave_ranks(multiplicity)]))[0, 1:]

    names = [f"{change}.{measure}" for change in (REPLACED, KEPT) for measure in MEASURES]
    estimates = bootstrap_each(correlations, resamples, np.unique(persons).size, [UNORDERED] * len(names))
    return dict(zip(names, estimates, strict=True))
