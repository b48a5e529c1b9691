"""Bootstrap clustered by person: intervals, reusable resamples, paired differences.

Recordings of one person are not independent, so persons are resampled, never
records or trials (Field & Welsh 2007, J. R. Stat. Soc. B 69(3):369). A statistic
receives how often each person was drawn and weighs that person's samples by it:

* per-sample metrics (rank-1, accuracy, AUROC): a sample weighs the multiplicity of its person;
* trial metrics (EER, TAR, D_sys...): a genuine trial weighs the multiplicity of its person, an impostor
  trial the product of its two persons' multiplicities, and two draws of one person never form an impostor
  trial (the two-way resampling of Owen 2007, Ann. Appl. Stat. 1(2):386, "The pigeonhole bootstrap").

The gallery of an identification search stays as it is: a resampled gallery would hold only 63 % of the
persons and make every search easier. Rank-k intervals are therefore those of the probe persons.

Near 0 and 1 resampling shows nothing: of 89 persons without a failure every draw is faultless, though one in 25 may
fail. There shares have the exact bounds of Clopper & Pearson (1934, Biometrika 26:404), with persons as the trials.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import beta, norm, t

from ecgstudy.errors import StudyError

Statistic = Callable[[np.ndarray], float]
"""From the persons' multiplicities, float64 of shape (n_persons,), to a number; NaN where it is undefined."""
Values = Mapping[Any, np.ndarray] | pd.DataFrame
"""Numbers of each sample, shape (n,), by what they are of."""
LEVEL = 0.95
TAILS = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
"""Quantiles between which a share :data:`LEVEL` of the draws lies."""
RESAMPLES = 1000
FEW = 5
"""Where fewer persons than this fail, or succeed, a share has exact bounds."""


@dataclass(frozen=True)
class Estimate:
    """A number on the full sample, its 95 % percentile interval (NaN where there is none), and what it rests on.

    It rests on `n` persons; in `undefined` resamples it was undefined, and the interval is taken over the others. The
    `reason` why the value or its interval is undefined is a clause that a report can print. `p`, which speaks
    of a difference of two systems, is the two-sided bootstrap tail probability of "no difference", (1 + the resamples
    on the far side of 0) / (1 + resamples), doubled. Not an exact test: read it beside the interval. `exact` tells that
    the bounds are those of :func:`with_exact_bounds`.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    n: int = 0
    undefined: int = 0
    reason: str | None = None
    p: float = math.nan
    exact: bool = False


@dataclass(frozen=True)
class Resamples:
    """Draws of persons with replacement, made once and used for every system that is compared.

    `persons` are the distinct ids, sorted, as text; `indices` the persons drawn, as positions in them, int32, shape
    (n_resamples, n_persons); `seed` is what the draws came from.
    """

    persons: np.ndarray
    indices: np.ndarray
    seed: int

    @classmethod
    def draw(cls, persons: Iterable[object], seed: int, n_resamples: int = RESAMPLES) -> "Resamples":
        """Draw `n_resamples` times as many persons as there are distinct ones in `persons`."""
        distinct = np.unique(np.array([str(person) for person in persons]))
        if not distinct.size:
            raise StudyError("There is no person to resample; check that the protocol left any record.")
        indices = np.random.default_rng(seed).integers(0, distinct.size, (n_resamples, distinct.size), dtype=np.int32)
        return cls(distinct, indices, seed)

    @cached_property
    def multiplicities(self) -> np.ndarray:
        """How often each person was drawn, float64, shape (n_resamples, n_persons)."""
        return np.stack([np.bincount(drawn, minlength=self.persons.size) for drawn in self.indices]).astype(np.float64)

    def index_of(self, persons: ArrayLike) -> np.ndarray:
        """Positions of person ids in `self.persons`; ``StudyError`` for a person who was never drawn from."""
        wanted = np.asarray(persons).astype(str)
        found = pd.Index(self.persons).get_indexer(wanted)
        if (found < 0).any():
            unknown = wanted[found < 0][0]
            raise StudyError(f"Person {unknown} is not among the resampled persons; draw the resamples anew.")
        return found


def bootstrap(statistic: Statistic, resamples: Resamples, n_persons: int, if_undefined: str) -> Estimate:
    """Value of `statistic` (everybody once) with its percentile interval over `resamples`.

    `n_persons` contribute; with fewer than two there is no interval. `if_undefined` is the reason where it is NaN.
    """
    return bootstrap_each(lambda multiplicity: (statistic(multiplicity),), resamples, n_persons, (if_undefined,))[0]


def bootstrap_each(
    statistics: Callable[[np.ndarray], Sequence[float]],
    resamples: Resamples,
    n_persons: int,
    if_undefined: Sequence[str],
) -> list[Estimate]:
    """:func:`bootstrap` of several numbers that share their work, one reason each."""
    values = [float(value) for value in statistics(np.ones(resamples.persons.size))]
    draws = np.array([statistics(multiplicity) for multiplicity in resamples.multiplicities], dtype=np.float64)
    both = zip(values, draws.T, if_undefined, strict=True)
    return [percentile_interval(value, column, n_persons, reason) for value, column, reason in both]


def paired_difference(
    first: Statistic, second: Statistic, resamples: Resamples, n_persons: int, if_undefined: str
) -> Estimate:
    """Difference ``first - second``, both evaluated on the same resamples; see :func:`bootstrap`."""
    return bootstrap(lambda drawn: first(drawn) - second(drawn), resamples, n_persons, if_undefined)


def person_means(values: Values, persons: np.ndarray, resamples: Resamples) -> Callable[[np.ndarray], np.ndarray]:
    """Means of several numbers of each sample over persons, of whose samples the mean is taken first; NaN is left out.

    The callable goes from the persons' multiplicities to an array of shape (n_numbers,), NaN where nobody has one.
    """
    means = pd.DataFrame(dict(values), dtype=float).groupby(persons).mean()
    drawn, known, sums = resamples.index_of(means.index), means.notna().to_numpy(float), means.fillna(0.0).to_numpy()
    return lambda multiplicity: ratio(multiplicity[drawn] @ sums, multiplicity[drawn] @ known)


def clustered_means(
    values: Values, persons: np.ndarray, resamples: Resamples, if_undefined: str
) -> dict[Any, Estimate]:
    """Give the :func:`person_means` with person-clustered bootstrap intervals.

    An estimate's `n` counts the persons of any sample; `if_undefined` is its reason where no sample has a number.
    """
    means, reasons = person_means(values, persons, resamples), [if_undefined] * len([*values])
    return dict(zip(values, bootstrap_each(means, resamples, np.unique(persons).size, reasons), strict=True))


def ratio(part: ArrayLike, whole: ArrayLike) -> np.ndarray:
    """Quotient, NaN where the divisor is not positive."""
    shape = np.broadcast_shapes(np.shape(part), np.shape(whole))
    return np.divide(part, whole, out=np.full(shape, np.nan), where=np.greater(whole, 0))


def most_failures(n: int, confidence: float) -> float:
    """Largest share of failures that `n` trials without a failure leave open (exact; Clopper & Pearson 1934)."""
    return 1 - (1 - confidence) ** (1 / n)


def with_exact_bounds(
    found: Estimate, missed: np.ndarray, persons: np.ndarray, weights: np.ndarray | float = 1.0
) -> Estimate:
    """Give a share its Clopper-Pearson bounds by person where it is worth fewer than :data:`FEW` failures (successes).

    Where fewer persons than that fail (or succeed) at all, persons are the trials, so many as their weights are worth
    (Kish 1965: the square of the sum over the sum of the squares), each counted with the share of the own probes that
    failed: exact where a person fails always or never, wide where a person fails now and then. Where more persons fail
    now and then, their spread says how many trials they are worth (Korn & Graubard 1998, Surv. Methodol. 24:193).
    It holds for an EER too: at every threshold the EER lies between the two error rates.

    Parameters
    ----------
    found : Estimate
        The share, or the error rate.
    missed : numpy.ndarray
        Whether each probe failed, or how much of it, 0 to 1, shape (n_probes,).
    persons : numpy.ndarray
        Position of each probe's person, int, shape (n_probes,).
    weights : numpy.ndarray or float
        What each probe counts.
    """
    counted = np.bincount(persons, np.ones(persons.size) * weights)
    failed = np.bincount(persons, missed * weights)[counted > 0] / counted[counted > 0]
    counted = counted[counted > 0] / counted.sum()
    if math.isnan(found.value) or counted.size < 2:
        return found
    value, n = min(max(found.value, 0.0), 1.0), 1 / float(counted @ counted)
    if min(np.count_nonzero(failed > 1e-9), np.count_nonzero(failed < 1 - 1e-9)) >= FEW:
        if round(n * min(value, 1 - value), 6) >= FEW:
            return found
        spread = np.sqrt(counted.size / (counted.size - 1)) * np.linalg.norm(counted * (failed - counted @ failed))
        worth = value * (1 - value) * (norm.ppf(TAILS[1]) / t.ppf(TAILS[1], counted.size - 1) / max(spread, 1e-9)) ** 2
        n = max(n, worth)
    hits = value * n
    # the quantiles of a beta distribution with a parameter of 0 are its ends
    low = beta.ppf(TAILS[0], hits, n - hits + 1) if hits > 0 else 0.0
    high = beta.ppf(TAILS[1], hits + 1, n - hits) if hits < n else 1.0
    return replace(found, low=float(low), high=float(high), reason=None, exact=True)


def percentile_interval(value: float, draws: np.ndarray, n_persons: int, if_undefined: str) -> Estimate:
    """Percentile interval and tail probability over the defined draws."""
    defined = draws[~np.isnan(draws)]
    if math.isnan(value):
        return Estimate(value, n=n_persons, undefined=draws.size, reason=if_undefined)
    found = Estimate(value, n=n_persons, undefined=draws.size - defined.size)
    if n_persons < 2:
        return replace(found, reason="one person only, so no interval by person")
    if not defined.size:
        return replace(found, reason="undefined in every resample, so no interval")
    low, high = np.quantile(defined, TAILS)
    tail = min(np.count_nonzero(defined <= 0), np.count_nonzero(defined >= 0))
    return replace(found, low=float(low), high=float(high), p=min(1.0, 2 * (tail + 1) / (defined.size + 1)))
