"""Everything the study reports about one attacker under one protocol, from its score matrices."""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

import numpy as np
import pandas as pd

from ecgstudy.evaluate import bootstrap, disclosure
from ecgstudy.evaluate.bootstrap import Estimate, Resamples, Statistic
from ecgstudy.evaluate.streamed import CountedTrials, StreamedMatrix
from ecgstudy.evaluate.trials import (
    MOST_HELD_TRIALS,
    ScoreLevels,
    ScoreMatrix,
    Searches,
    Trials,
    dir_at_far,
    eer,
    first_of,
    rank_k,
    tar_at_far,
)

FARS = {"1e-2": 1e-2, "1e-3": 1e-3}
N_PERMUTATIONS = 200
"""Permutations behind the D_sys null."""
MOST_RESAMPLED_TRIALS = 100_000
_RATES = ("eer", *(f"tar_at_far_{name}" for name in FARS))
HEADLINES = ("rank1", "rank5", *_RATES, "rank1_per_person", "rank5_per_person")
"""Above so many trials only these get intervals: the others would take minutes."""
NOT_STREAMED = ("cllr", *(f"{name}_per_person" for name in (*_RATES, "dir_at_far_1e-2", "d_sys")))
_TOO_MANY = f"not computed for more than {MOST_HELD_TRIALS:,} trials"


class ScoredFold:
    """One score matrix, to be measured under any weights of its persons.

    `resamples` is the same object for every system that is compared; `rng` draws the halves of the calibration. Of a
    streamed matrix, what would need every trial at once (:data:`NOT_STREAMED`) is NaN.
    """

    def __init__(self, matrix: ScoreMatrix | StreamedMatrix, resamples: Resamples, rng: np.random.Generator) -> None:
        self.streamed = isinstance(matrix, StreamedMatrix)
        self.trials = (CountedTrials if self.streamed else Trials)(matrix, resamples)
        self.searches, self.probe = matrix.searches, resamples.index_of(matrix.probe)
        self.n_trials = matrix.probe.size * matrix.gallery.size
        self.linkability = disclosure.Linkability(self.trials.scores, self.trials.genuine)
        # why there is no D_sys of permuted labels; empty where there is
        self.null_problem = _TOO_MANY if self.streamed else self.linkability.problem
        # the weights of one person's probes add up to the mean number of probes a person
        self._balance = self.probe.size / max(np.unique(self.probe).size, 1) / np.bincount(self.probe)[self.probe]
        self._calibration_seed = int(rng.integers(2**32))

    @property
    def tried(self) -> np.ndarray:
        """Positions of the persons with a genuine trial, as often as they have a probe with one."""
        return self.probe[self.searches.enrolled]

    def levels(self, multiplicity: np.ndarray) -> ScoreLevels:
        """Levels of the trials when person p was drawn ``multiplicity[p]`` times."""
        return self.trials.levels(self.trials.weights(multiplicity))

    @cached_property
    def _calibration(self) -> tuple[np.ndarray, np.ndarray]:
        """Log-likelihood ratios and which trials have one; costs a fit, which point values of headlines can spare."""
        return _cross_calibrated_llr(self.trials, np.random.default_rng(self._calibration_seed))

    def measure(self, multiplicity: np.ndarray, everything: bool = True) -> dict[str, float]:
        """All metrics, or :data:`HEADLINES` alone, when person p was drawn ``multiplicity[p]`` times."""
        found = {}
        for suffix, balanced in (("", False), ("_per_person", True)):
            probes = multiplicity[self.probe] * (self._balance if balanced else 1.0)
            values = {f"rank{k}": rank_k(self.searches, k, probes) for k in (1, 5)}
            if not balanced or (everything and not self.streamed):
                weights = self.trials.weights(multiplicity, balanced)
                levels = self.trials.levels(weights)
                values |= {"eer": eer(levels)}
                values |= {f"tar_at_far_{name}": tar_at_far(levels, far) for name, far in FARS.items()}
                if everything:
                    values["dir_at_far_1e-2"] = dir_at_far(self.searches, FARS["1e-2"], probes)
                    values["d_sys"] = self.linkability.d_sys(weights)
            found |= {name + suffix: value for name, value in values.items()}
            if everything and not balanced:
                found |= {"zebra_bits": disclosure.zebra_bits(levels)}
                found |= {"zebra_worst": disclosure.zebra_worst_case(levels), "cllr_min": disclosure.cllr_min(levels)}
                found |= dict.fromkeys(NOT_STREAMED, math.nan) if self.streamed else {"cllr": self._cllr(weights)}
        return found

    def bounded(self, values: Mapping[str, float]) -> pd.DataFrame:
        """How much of each enrolled probe was missed by what `values` say, in rows, for exact bounds by person.

        Of EER, TAR and DIR, so many of the lowest genuine scores as the rate says are missed. Further columns are the
        probe's person, as a position, and what it counts in the mean over the probes and in that over the persons.
        """
        enrolled = self.searches.enrolled
        lowest = self.searches.genuine_scores[enrolled].argsort(kind="stable").argsort()
        rates = {"eer": values["eer"]} | {name: 1 - values[name] for name in (*_RATES[1:], "dir_at_far_1e-2")}
        missed = {f"rank{k}": self.searches.ahead[enrolled] >= k for k in (1, 5)}
        missed |= {name: lowest < np.rint(rate * lowest.size) for name, rate in rates.items()}
        counts = {"": np.ones(lowest.size), "_per_person": self._balance[enrolled]}
        counts = {name: count / max(lowest.size, 1) for name, count in counts.items()}
        return pd.DataFrame({**missed, "person": self.tried, **counts})

    def problems(self) -> dict[str, str]:
        """Why each metric would be undefined; empty texts where it is not."""
        if self.streamed:
            problem = _rank_problem(self.searches, 1)
            known = self.measure(np.ones(self.trials.n_persons))
            return dict.fromkeys(known, problem) | dict.fromkeys(NOT_STREAMED, _TOO_MANY)
        problem = self.trials.problem()
        found = {f"rank{k}": _rank_problem(self.searches, k) for k in (1, 5)}
        found |= {f"tar_at_far_{name}": self.trials.problem(far) for name, far in FARS.items()}
        found |= {"eer": problem, "d_sys": self.linkability.problem}
        searches = f"{self.probe.size} searches cannot resolve a FAR of 0.01"
        found |= {"dir_at_far_1e-2": _rank_problem(self.searches, 1) or searches}
        found |= {f"{name}_per_person": reason for name, reason in found.items()}
        calibration = "" if self._calibration[1].any() else "too few persons to calibrate the scores on other persons"
        return found | dict.fromkeys(("zebra_bits", "zebra_worst", "cllr_min"), problem) | {"cllr": calibration}

    def _cllr(self, weights: np.ndarray) -> float:
        llr, calibrated = self._calibration
        labels = [calibrated & self.trials.genuine, calibrated & ~self.trials.genuine]
        return disclosure.cllr(*(llr[label] for label in labels), *(weights[label] for label in labels))


def biometric_report(
    folds: Sequence[ScoredFold], resamples: Resamples, rng: np.random.Generator, only: Sequence[str] = ()
) -> dict[str, Estimate]:
    """Identification, verification, linkability and disclosure, each with its interval.

    Every metric is the mean over the folds, whose persons are never compared with each other, and its interval
    comes from resampling persons in all folds at once; of a share that few persons fail or succeed in, it is exact
    (:func:`~ecgstudy.evaluate.bootstrap.with_exact_bounds`).

    Parameters
    ----------
    folds : sequence of ScoredFold
        One or several.
    resamples : Resamples
        The persons to resample, those that `folds` were made with.
    rng : numpy.random.Generator
        Draws the label permutations of the D_sys null.
    only : sequence of str
        Some of :data:`HEADLINES`, where nothing else is asked.

    Returns
    -------
    dict
        ``rank1``, ``rank5``, ``dir_at_far_1e-2``, ``eer``, ``tar_at_far_1e-2``, ``tar_at_far_1e-3``,
        ``d_sys``; each of these again with ``_per_person`` (persons, or pairs of persons, weigh the same however
        many records they have); ``d_sys_null`` (over label permutations, not persons), ``zebra_bits``,
        ``zebra_worst``, ``cllr`` (calibrated on other persons), ``cllr_min``. What is undefined is NaN with its reason;
        each rests on the persons with a genuine trial.
    """
    n_persons = np.unique(np.concatenate([fold.tried for fold in folds])).size
    everything = not only and sum(fold.n_trials for fold in folds) <= MOST_RESAMPLED_TRIALS
    alone = [fold.measure(np.ones(resamples.persons.size)) for fold in folds]
    values, probes = _means(alone), pd.concat([fold.bounded(own) for fold, own in zip(folds, alone, strict=True)])
    problems = [fold.problems() for fold in folds]
    reasons = {name: next((p[name] for p in problems if p[name]), "undefined in a fold") for name in values}
    names = [*(only or (name for name in values if everything or name in HEADLINES))]
    found = bootstrap.bootstrap_each(
        lambda drawn: [*_means([fold.measure(drawn, everything) for fold in folds], names).values()],
        resamples,
        n_persons,
        [reasons[name] for name in names],
    )
    estimates = dict(zip(names, found, strict=True))
    for name in [name for name in values if not only and name not in estimates]:
        reason = reasons[name] if math.isnan(values[name]) else "too many trials to resample this metric"
        estimates[name] = Estimate(values[name], n=n_persons, reason=reason)
    for name, estimate in estimates.items():
        stem, per_person, _ = name.partition("_per_person")
        if stem in probes:
            bounds = (probes[column].to_numpy() for column in (stem, "person", per_person))
            estimates[name] = bootstrap.with_exact_bounds(estimate, *bounds)
    return estimates if only else estimates | {"d_sys_null": _d_sys_null(folds, n_persons, rng)}


def _means(found: Sequence[Mapping[str, float]], names: Iterable[str] | None = None) -> dict[str, float]:
    """Mean over the folds of each metric, or of those named; NaN where one fold does not define it."""
    return {name: float(np.mean([values[name] for values in found])) for name in names or found[0]}


def rank1_in_gallery(matrices: Sequence[ScoreMatrix | StreamedMatrix], resamples: Resamples, size: int) -> Estimate:
    """Rank-1 in random galleries of `size` persons that hold the probe's own, the mean over the folds."""
    parts = [(resamples.index_of(one.probe), first_of(one.searches, size), one.searches.enrolled) for one in matrices]
    person, first = (np.concatenate([part[at][part[2]] for part in parts]) for at in (0, 1))
    count = np.concatenate([np.full(known.sum(), 1 / max(known.sum(), 1)) for *_, known in parts])
    reason = f"a gallery holds fewer than {size} persons" if first.size else "no probe's person is in the gallery"
    return mean_of_probes(first, person, count, resamples, reason)


def mean_of_probes(
    hits: np.ndarray, person: np.ndarray, count: np.ndarray, resamples: Resamples, if_undefined: str
) -> Estimate:
    """Share of probes that hit (each 0 to 1 and weighed by `count`), whose persons are positions in the resamples."""
    sums = [np.bincount(person, weights, resamples.persons.size) for weights in (hits * count, count)]
    n_persons = np.unique(person).size
    found = bootstrap.bootstrap(
        lambda drawn: float(bootstrap.ratio(drawn @ sums[0], drawn @ sums[1])), resamples, n_persons, if_undefined
    )
    return bootstrap.with_exact_bounds(found, 1 - hits, person, count)


def rank1_statistic(folds: Sequence[ScoredFold]) -> Statistic:
    """Rank-1 as :func:`biometric_report` takes it, for contrasts of attackers."""
    return lambda multiplicity: float(np.mean([rank_k(fold.searches, 1, multiplicity[fold.probe]) for fold in folds]))


def eer_statistic(folds: Sequence[ScoredFold]) -> Statistic:
    """EER as :func:`biometric_report` takes it, for contrasts of attackers."""
    return lambda multiplicity: float(np.mean([eer(fold.levels(multiplicity)) for fold in folds]))


def per_person_risk(matrices: Iterable[ScoreMatrix | StreamedMatrix]) -> pd.DataFrame:
    """How exposed each person with an enrolled probe is, averaged over folds, one row each.

    Columns ``person``, ``rank1`` (share of own probes that rank first) and ``eer`` (of the person's own probes;
    above 0.5 the person's scores are inverted).
    """
    rows = []
    for matrix in matrices:
        persons, person_of = np.unique(matrix.probe, return_inverse=True)
        for number in np.unique(person_of[matrix.searches.enrolled]):
            own = person_of == number
            rank1 = rank_k(matrix.searches, 1, own.astype(np.float64))
            rows.append((persons[number], rank1, eer(matrix.levels_of(own))))
    return pd.DataFrame(rows, columns=["person", "rank1", "eer"]).groupby("person", as_index=False).mean()


def risk_tail(risk: pd.DataFrame) -> dict[str, float]:
    """How unevenly a :func:`per_person_risk` is spread over the persons.

    ``risk_median``, ``risk_p90``, ``risk_p95`` and ``risk_worst`` are of 1 - EER of each person's own probes (0.5 =
    chance); ``always_first`` and ``never_first`` the shares of persons all, or none, of whose probes rank first;
    ``resolution`` is the share of persons who may be missed although none of so many was (97.5 %, exact). NaN where
    nobody's is defined.
    """
    exposed, rank1 = 1 - risk["eer"].dropna(), risk["rank1"].dropna()
    tail = {"risk_median": exposed.median(), "risk_p90": exposed.quantile(0.9), "risk_p95": exposed.quantile(0.95)}
    tail["risk_worst"] = exposed.max()
    tail["resolution"] = bootstrap.most_failures(len(risk), bootstrap.TAILS[1]) if len(risk) else math.nan
    return tail | {"always_first": (rank1 == 1).mean(), "never_first": (rank1 == 0).mean()}


def _rank_problem(searches: Searches, k: int) -> str:
    """Why rank-k is undefined; empty where it is not."""
    if not searches.enrolled.any():
        return "no probe's person is in the gallery"
    if searches.n_enrolled < max(k, 2):
        return f"the gallery holds {searches.n_enrolled} person(s), too few for rank {k}"
    return ""


def _d_sys_null(folds: Sequence[ScoredFold], n_persons: int, rng: np.random.Generator) -> Estimate:
    """Estimate D_sys when the labels mean nothing: mean and 95 % range over permutations, averaged over the folds."""
    problem = next((fold.null_problem for fold in folds if fold.null_problem), None)
    if problem is not None:
        return Estimate(math.nan, n=n_persons, undefined=N_PERMUTATIONS, reason=problem)
    draws = np.mean([fold.linkability.null_draws(N_PERMUTATIONS, rng) for fold in folds], axis=0)
    low, high = np.quantile(draws, bootstrap.TAILS)
    return Estimate(float(draws.mean()), float(low), float(high), n_persons)


def _cross_calibrated_llr(trials: Trials, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Log-likelihood ratios by logistic regression on the other half of the persons, and which trials have one.

    Persons are halved at random; a trial counts when both its persons are in one half and is calibrated
    on the trials within the other half. No trial counts where a half lacks genuine or impostor trials.
    """
    persons = rng.permutation(np.unique(np.concatenate([trials.probe, trials.gallery])))
    probe_first, gallery_first = (np.isin(of, persons[: persons.size // 2]) for of in (trials.probe, trials.gallery))
    halves = (probe_first & gallery_first, ~probe_first & ~gallery_first)
    llr = np.zeros(trials.scores.size)
    if any(np.unique(trials.genuine[half]).size < 2 for half in halves):
        return llr, np.zeros(llr.size, dtype=bool)
    for half, other in (halves, halves[::-1]):
        llr[half] = disclosure.logistic_llr(trials.scores[other], trials.genuine[other], trials.scores[half])
    return llr, halves[0] | halves[1]
