"""Rank-1 in galleries far larger than the one measured, from the distribution of the scores.

Model. In a gallery of N persons the true person of a probe with genuine score s ranks first when none of the
N - 1 others reaches s, so P(correct) = (1 - q(s))^(N - 1), averaged over probes, where q(s) is the probability
that an impostor scores at least s with this probe. Assumptions:

1. impostors are exchangeable and independent given the probe: the N persons are like those measured (same
   devices, same age range, no relatives). A more varied population is easier, one of look-alikes harder;
2. probes differ in their impostor scores by location and scale only, so that all of them, standardised probe by
   probe (by the mean and deviation of its other impostors), share one tail;
3. below the 98th percentile of the standardised impostor scores q is their observed share; above it, it follows
   a parametric tail. Ninety people cannot say which one, so three are fitted to the same excesses:

   * generalised Pareto (Pickands 1975) by probability-weighted moments (Hosking & Wallis 1987, Technometrics
     29(3):339), shape within [-0.5, 0.5]: the point estimate. Where its shape comes out negative the tail has an
     end point, beyond which a genuine score is never confused;
   * normal: a Gaussian whose share and mean excess above the percentile are those observed;
   * exponential: the lightest tail that never ends; too heavy for most similarity scores, so a low rank-1.

The interval of the "envelope" runs from the lowest to the highest bound of the three, each from a bootstrap over
persons that fits the tail anew. Planted scores of 90 people (tests/test_metrics_extrapolation.py) show why: for 10^6
people the tails miss the truth by -0.05 to -0.18 (Pareto), -0.53 to 0.19 (normal) and -0.07 to -0.67
(exponential) on average over draws from three distributions, and one draw of the Pareto tail scatters by 0.1 to
0.3. On real galleries of 399 people the envelope of one attacker held and that of another missed what it was fitted to.
So an extrapolation is believed where it meets every gallery that was measured, and up to ten times the largest of them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import genpareto, norm

from ecgstudy.evaluate.bootstrap import Estimate, Resamples, bootstrap_each
from ecgstudy.evaluate.trials import ScoreMatrix, rank1_by_gallery_size

SNN_ECG_RANK1 = {100: 0.792, 1_000: 0.626, 10_000: 0.450, 20_000: 0.400}
"""Published rank-1 of SNN-ECG against gallery size ("motivated intruder"; Macierzanka et al. 2025, Eur. Heart J.
Digital Health, ztaf011: 864,283 ECGs of 72,455 people), to draw beside ours."""
TAIL_SHARE = 0.02
"""Share of the standardised impostor scores that the tail is fitted to."""
TAILS = ("gpd", "normal", "exponential")
"""Tail models; the first gives the point estimate."""
FARTHEST = 10
"""Galleries larger than so many times the largest one measured are not extrapolated to."""
_MIN_TAIL = 30
_MAX_SHAPE = 0.5


@dataclass(frozen=True)
class Tail:
    """Upper tail of the standardised impostor scores: where it starts, the share and mean excess above, its shape."""

    start: float
    share: float
    mean_excess: float
    shape: float

    def exceedance(self, standardised: np.ndarray, model: str) -> np.ndarray:
        """Probability that an impostor scores at least `standardised` (above `start`) under one of :data:`TAILS`."""
        excess = standardised - self.start
        if model == "normal":
            # E[X - x | X > x] of a standard normal is phi(x) / (1 - Phi(x)) - x: it sets the scale
            quantile = norm.isf(self.share)
            scale = self.mean_excess / (norm.pdf(quantile) / self.share - quantile)
            return norm.sf(quantile + excess / scale)
        shape = self.shape if model == "gpd" else 0.0
        return self.share * genpareto.sf(excess, shape, scale=self.mean_excess * (1 - shape))


def pareto_shape(excess: np.ndarray, weights: np.ndarray) -> float:
    """Shape of a generalised Pareto distribution by probability-weighted moments, within [-0.5, 0.5].

    `excess` over the tail's start, ascending, not all 0, and the weight of each, both of shape (n,).
    """
    total = weights.sum()
    above = 1 - (np.cumsum(weights) - weights / 2) / total
    mean, weighted = weights @ excess / total, weights @ (excess * above) / total
    return float(np.clip(2 - mean / (mean - 2 * weighted), -_MAX_SHAPE, _MAX_SHAPE))


class RankOneModel:
    """Tail model of one score matrix, refitted for each resample.

    `problem` says why there is no model; it is empty where there is one.
    """

    def __init__(self, matrix: ScoreMatrix, resamples: Resamples) -> None:
        searches = matrix.searches
        enrolled, n_impostors = searches.enrolled, searches.n_enrolled - 1
        self.probe = resamples.index_of(matrix.probe[enrolled])
        few = self.probe.size * max(n_impostors, 0) * TAIL_SHARE < _MIN_TAIL or n_impostors < 3
        sizes = f"{self.probe.size} probes against {n_impostors} impostors"
        self.problem = f"{sizes} are too few to fit a tail" if few else ""
        if few:
            return
        best, own = matrix.best
        impostors = best[enrolled].astype(np.float64)
        impostors[np.arange(len(impostors)), own[enrolled]] = np.nan
        standardised, self.genuine = _standardise(impostors, searches.genuine_scores[enrolled])
        gallery = resamples.index_of(np.unique(matrix.gallery))
        probe_of, column = np.nonzero(np.isfinite(standardised))
        order = np.argsort(standardised[probe_of, column], kind="stable")
        self._scores = standardised[probe_of, column][order]
        self._probes, self._impostors = self.probe[probe_of][order], gallery[column][order]

    def tail(self, multiplicity: np.ndarray) -> Tail | None:
        """Tail when person p was drawn ``multiplicity[p]`` times; None where the scores have none."""
        weights, above = self._weights(multiplicity)
        first = int(np.count_nonzero(above > TAIL_SHARE * above[0])) if above.size else 0
        if not 0 < first < above.size or above[first] <= 0:
            return None
        start, weights = self._scores[first - 1], weights[first:]
        excess = self._scores[first:] - start
        mean = float(np.average(excess, weights=weights))
        if mean <= 0:
            return None
        return Tail(float(start), float(above[first] / above[0]), mean, pareto_shape(excess, weights))

    def rank1(self, sizes: Sequence[int], multiplicity: np.ndarray) -> np.ndarray:
        """Return the expected rank-1, shape (sizes, :data:`TAILS`); NaN without a tail or a probe."""
        tail, weights = self.tail(multiplicity), multiplicity[self.probe]
        if tail is None or weights.sum() <= 0:
            return np.full((len(sizes), len(TAILS)), math.nan)
        above = np.append(self._weights(multiplicity)[1], 0.0)
        observed = above[np.searchsorted(self._scores, self.genuine)] / above[0]
        beyond, standardised = self.genuine > tail.start, np.maximum(self.genuine, tail.start)
        exceedance = np.array([np.where(beyond, tail.exceedance(standardised, model), observed) for model in TAILS])
        with np.errstate(divide="ignore"):
            log_correct = np.log1p(-exceedance)
        return np.array([np.average(np.exp((size - 1) * log_correct), axis=1, weights=weights) for size in sizes])

    def _weights(self, multiplicity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weight of each impostor score, the product of its two persons' multiplicities, and of it and all above."""
        weights = multiplicity[self._probes] * multiplicity[self._impostors]
        return weights, np.cumsum(weights[::-1])[::-1]


def _standardise(impostors: np.ndarray, genuine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return standard scores of the impostors (n_probe, n_enrolled) and of the genuine scores (n_probe,), by probe.

    Each is standardised by the mean and standard deviation of the *other* impostor scores of its probe. An impostor
    who counted among them would raise the deviation it is measured by, and the tail would look too light.
    """
    n = impostors.shape[1] - 1
    mean = np.nanmean(impostors, axis=1, keepdims=True)
    centred = impostors - mean
    squares = np.nansum(centred**2, axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        others_spread = np.sqrt(np.maximum(squares - centred**2 * n / (n - 1), 0) / (n - 2))
        standardised = centred * n / (n - 1) / others_spread
        return standardised, (genuine - mean[:, 0]) / np.sqrt(squares[:, 0] / (n - 1))


def extrapolate_rank1(
    matrix: ScoreMatrix, resamples: Resamples, sizes: Sequence[int]
) -> dict[int, dict[str, Estimate]]:
    """Rank-1 extrapolated to galleries of `sizes` persons: size -> tail model -> estimate; see the module.

    Beside :data:`TAILS` stands "envelope": the value of the Pareto tail and the union of the three intervals. NaN with
    a reason where there are too few impostors to fit a tail to.
    """
    model = RankOneModel(matrix, resamples)
    n_persons = np.unique(model.probe).size
    if model.problem:
        undefined = Estimate(math.nan, n=n_persons, undefined=len(resamples.indices), reason=model.problem)
        return {size: dict.fromkeys((*TAILS, "envelope"), undefined) for size in sizes}
    columns = [(size, tail) for size in sizes for tail in TAILS]
    constant = ["impostor scores do not vary, so they have no tail"] * len(columns)
    each = bootstrap_each(lambda drawn: model.rank1(sizes, drawn).ravel(), resamples, n_persons, constant)
    found = dict(zip(columns, each, strict=True))
    by_size = {size: {tail: found[size, tail] for tail in TAILS} for size in sizes}
    for tails in by_size.values():
        low, high = min(tail.low for tail in tails.values()), max(tail.high for tail in tails.values())
        tails["envelope"] = replace(tails[TAILS[0]], low=low, high=high)
    return by_size


def checked_rank1(
    matrix: ScoreMatrix, resamples: Resamples, sizes: Sequence[int], measured: Mapping[int, float]
) -> dict[int, dict[str, Estimate]]:
    """:func:`extrapolate_rank1`, undefined where a model that misses what was measured would go on, or goes too far.

    Envelopes must hold the own curve at half and at all of the gallery, and rank-1 `measured` in larger galleries, by
    size, to the precision of a probe; nothing is said of more than :data:`FARTHEST` times the largest of them.
    """
    own = matrix.searches.n_enrolled
    inside, slack = [size for size in (own // 2, own) if size > 1], 1 / max(matrix.probe.size, 1)
    curve = rank1_by_gallery_size(matrix.searches, inside, np.ones(matrix.probe.size))
    known = dict(zip(inside, curve, strict=True)) | dict(measured)
    found = extrapolate_rank1(matrix, resamples, [*sizes, *known])
    problem = ""
    for size, value in known.items():
        low, high = found[size]["envelope"].low, found[size]["envelope"].high
        if value < low - slack or value > high + slack:
            problem = problem or f"at {size} people it gives {low:.2f} to {high:.2f}, where {value:.2f} was measured"
    far = f"more than ten times the {max(known, default=own)} people measured"
    for size in sizes:
        if reason := problem or (far if size > FARTHEST * max(known, default=own) else ""):
            undefined = {"value": math.nan, "low": math.nan, "high": math.nan}
            found[size] = {
                tail: replace(one, **undefined, reason=one.reason or reason) for tail, one in found[size].items()
            }
    return {size: found[size] for size in sizes}
