"""Shares of waves and intervals in an answer, by person, and paired differences between answers.

A person's effects are averaged over the windows first, with their signs, so that what points now here and now there
cancels; a share is the sum over persons of the size of one factor's mean effect over that of all factors. Everything is
resampled by person, all answers with the same draws: what is *drawn* has everybody in its first row, and a resample in
each of the others.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from ecgstudy.attribution.exchange import FACTORS
from ecgstudy.attribution.methods import Answers, Method, controls_of
from ecgstudy.evaluate.bootstrap import Estimate, Resamples, percentile_interval, ratio
from ecgstudy.evaluate.results import intervals

LEAST_REMOVED = 0.5
"""Share of the evidence that a baseline must remove for the parts of what it removes to mean anything."""
NO_RELEVANCE = "the method gives no window any relevance"


class Spoken(NamedTuple):
    """What a method and its controls say: drawn shares of factors, shape (1 + n_resamples, n_factors) each.

    `removed` is the share of the evidence that the baseline removes, None without one, and `reason` why no share is
    given, else None.
    """

    own: np.ndarray
    controls: list[np.ndarray]
    removed: Estimate | None
    reason: str | None


def spoken(
    answers: Answers, method: Method, baseline: str, right: np.ndarray, persons: np.ndarray, resamples: Resamples
) -> Spoken:
    """Shares by a method and its controls, of windows that the network gets `right` (bool, (n,)) of `persons` (n,)."""
    gone, keys = answers.removed.get(baseline), [(method.name, baseline, ""), *controls_of(method, baseline)]
    removed = None if gone is None else evidence_removed(gone[:, right], persons[right], resamples)
    own, *controls = (drawn_shares(answers.effects[key][right], persons[right], resamples) for key in keys)
    reason = NO_RELEVANCE if np.isnan(own[0]).all() else None
    if removed and not removed.value >= LEAST_REMOVED:
        share = f"the baseline removes {max(removed.value, 0):.0%} of the evidence only"
        reason = removed.reason if np.isnan(removed.value) else share
    return Spoken(own, controls, removed, reason)


def over_controls(own: np.ndarray, controls: Sequence[np.ndarray]) -> np.ndarray:
    """By how much drawn numbers exceed the highest of the controls' in the same draw."""
    return own - np.fmax.reduce(controls)


def beyond_controls(own: np.ndarray, controls: Sequence[np.ndarray]) -> np.ndarray:
    """How far drawn numbers lie outside what controls say in the same draw: 0 between the lowest and the highest."""
    return own - np.clip(own, np.fmin.reduce(controls), np.fmax.reduce(controls))


def pooled(parts: Sequence[Answers]) -> Answers:
    """Answers about several sets of windows as one; of deltas the largest."""
    effects = {key: np.concatenate([part.effects[key] for part in parts]) for key in parts[0].effects}
    gone = {key: np.concatenate([part.removed[key] for part in parts], axis=1) for key in parts[0].removed}
    incomplete = {key: max(part.incomplete[key] for part in parts) for key in parts[0].incomplete}
    return Answers(effects, gone, incomplete, parts[0].refusals)


def person_sizes(effects: np.ndarray, persons: np.ndarray) -> pd.DataFrame:
    """Size of each person's mean effects, one row a person; persons without any are left out."""
    return pd.DataFrame(effects, columns=list(FACTORS)).groupby(persons).mean().abs().dropna()


def drawn_means(by_person: pd.DataFrame, resamples: Resamples) -> np.ndarray:
    """Drawn means over persons of a row each, shape (1 + n_resamples, n_columns)."""
    weights = np.vstack([np.ones(resamples.persons.size), resamples.multiplicities])
    weights = weights[:, resamples.index_of(by_person.index)]
    return ratio(weights @ by_person.to_numpy(), weights.sum(axis=1, keepdims=True))


def drawn_shares(effects: np.ndarray, persons: np.ndarray, resamples: Resamples) -> np.ndarray:
    """Drawn shares of factors, shape (1 + n_resamples, n_factors), from effects (n, n_factors)."""
    means = drawn_means(person_sizes(effects, persons), resamples)
    return ratio(means, means.sum(axis=1, keepdims=True))


def estimates(drawn: Mapping[str, np.ndarray], n_persons: int, if_undefined: str = NO_RELEVANCE) -> dict[str, Estimate]:
    """Values of everybody with their intervals, from drawn numbers, shape (1 + n_resamples,) each."""
    return {
        name: percentile_interval(float(numbers[0]), numbers[1:], n_persons, if_undefined)
        for name, numbers in drawn.items()
    }


def first_two(drawn: np.ndarray, sizes: np.ndarray, n_persons: int) -> dict[str, object]:
    """Which two factors have the largest of some sizes, and the paired test of their order by drawn numbers."""
    first, second = np.argsort(-sizes, kind="stable")[:2]
    test = estimates({"difference": drawn[:, first] - drawn[:, second]}, n_persons)
    return {"first": FACTORS[first], "second": FACTORS[second]} | intervals(test) | {"p": test["difference"].p}


def evidence_removed(gone: np.ndarray, persons: np.ndarray, resamples: Resamples) -> Estimate:
    """Share of the true class's probability above chance that a baseline takes away, from (2, n) of ``removed``.

    1 where nothing is left, or less than chance.
    """
    by_person = pd.DataFrame(gone.T).groupby(persons).mean()
    before, after = drawn_means(by_person, resamples).T
    taken = {"removed": np.minimum(1.0, ratio(before - after, before))}
    return estimates(taken, len(by_person), "the network knows no more than chance")["removed"]
