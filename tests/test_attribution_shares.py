"""Shares by person, paired with what knows nothing, by hand."""

import numpy as np
import pandas as pd
import pytest

from ecgstudy.attribution.exchange import DONOR, FACTORS
from ecgstudy.attribution.methods import METHODS, Answers, controls_of
from ecgstudy.attribution.shares import (
    beyond_controls,
    drawn_means,
    drawn_shares,
    estimates,
    evidence_removed,
    over_controls,
    person_sizes,
    pooled,
    spoken,
)
from ecgstudy.evaluate.bootstrap import Resamples

PERSONS = np.array(["a", "a", "b", "c"])


def effects(*rows: tuple[float, float]) -> np.ndarray:
    """Effects of the first two factors; the others have none."""
    return np.pad(np.array(rows, dtype=float), [(0, 0), (0, len(FACTORS) - 2)])


def test_effects_that_change_their_sign_cancel_and_those_of_persons_do_not() -> None:
    found = person_sizes(effects((1, 2), (-1, 2), (3, -1), (np.nan, 0)), PERSONS)
    np.testing.assert_allclose(found.loc[["a", "b"], ["P", "PR"]], [[0, 2], [3, 1]])
    assert "c" not in found.index


def test_shares_are_sums_over_persons() -> None:
    resamples = Resamples.draw(PERSONS, 0, 50)
    drawn = drawn_shares(effects((1, 3), (1, 3), (6, 2), (0, 8)), PERSONS, resamples)
    np.testing.assert_allclose(drawn[0, :2], [7 / 20, 13 / 20])
    weight = resamples.multiplicities[3]
    total = weight @ np.array([[1, 3], [6, 2], [0, 8]])
    np.testing.assert_allclose(drawn[4, :2], total / total.sum())
    found = estimates({"P": drawn[:, 0]}, 3)["P"]
    assert found.value == pytest.approx(7 / 20)
    assert found.low < found.value < found.high
    means = drawn_means(pd.DataFrame({"x": [1.0, 2.0, 6.0]}, index=list("abc")), resamples)
    assert means[0, 0] == 3
    assert means[4, 0] == pytest.approx(weight @ [1, 2, 6] / 3)


def test_what_counts_is_what_exceeds_every_control_in_every_draw() -> None:
    own = np.array([0.5, 0.6, 0.6])
    controls = [np.array([0.4, 0.1, 0.3]), np.array([0.2, 0.7, np.nan])]
    np.testing.assert_allclose(over_controls(own, controls), [0.1, -0.1, 0.3])
    np.testing.assert_allclose(beyond_controls(own, controls), [0.1, 0, 0.3])
    np.testing.assert_allclose(beyond_controls(own - 0.4, controls), [-0.1, 0, -0.1], atol=1e-12)


def test_evidence_is_what_the_baseline_takes_of_the_probability_above_chance() -> None:
    gone = np.array([[0.6, 0.2, 0.5, 0.3], [0.1, 0.1, -0.2, 0.3]])
    resamples = Resamples.draw(PERSONS, 0, 50)
    # a 0.4 to 0.1, b 0.5 to -0.2, c 0.3 to 0.3
    assert evidence_removed(gone, PERSONS, resamples).value == pytest.approx((0.3 + 0.7 + 0) / 1.2)
    assert evidence_removed(np.array([[0.5], [-0.1]]), PERSONS[:1], resamples).value == 1
    nothing = evidence_removed(np.zeros((2, 4)), PERSONS, resamples)
    assert np.isnan(nothing.value)
    assert nothing.reason == "the network knows no more than chance"


def test_answers_about_several_cohorts_are_joined_window_by_window() -> None:
    parts = [
        Answers({("m", "b", ""): np.full((n, 10), n)}, {"b": np.full((2, n), n)}, {("m", "b"): n}, {"x": "why"})
        for n in (1, 3)
    ]
    found = pooled(parts)
    assert found.effects["m", "b", ""].shape == (4, 10)
    assert found.removed["b"].shape == (2, 4)
    assert (found.incomplete, found.refusals) == ({("m", "b"): 3}, {"x": "why"})


def test_why_no_share_is_given_is_a_sentence() -> None:
    method, right = METHODS["replacement"], np.ones(4, dtype=bool)
    rows = {key: effects(*[(1, 1)] * 4) for key in [(method.name, DONOR, ""), *controls_of(method, DONOR)]}
    resamples = Resamples.draw(PERSONS, 0, 50)

    def reason(before: float, after: float, **changed: np.ndarray) -> str | None:
        known = Answers(rows | {(method.name, DONOR, ""): changed.get("own", effects(*[(1, 1)] * 4))})
        known.removed[DONOR] = np.array([[before] * 4, [after] * 4])
        return spoken(known, method, DONOR, right, PERSONS, resamples).reason

    assert reason(0.6, 0.1) is None
    assert reason(0.6, 0.36) == "the baseline removes 40% of the evidence only"
    assert reason(0.6, 0.7) == "the baseline removes 0% of the evidence only"
    assert reason(0.0, 0.0) == "the network knows no more than chance"
    assert reason(0.6, 0.1, own=effects(*[(np.nan, np.nan)] * 4)) == "the method gives no window any relevance"
