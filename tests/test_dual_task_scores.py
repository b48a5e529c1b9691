"""Scores of the dual task against counts done by hand, and against scikit-learn."""

import math

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from ecgstudy.dual_task.experiments import Answers
from ecgstudy.dual_task.scores import (
    ablation_table,
    activity_matrix,
    by_degree_table,
    confusion_share,
    difference,
    estimate,
    gain_sentence,
    gaps_finding,
    results_table,
    seed_spread,
    shown_results,
)


def answers(errors: float, seed: int, seeds: int = 2, n: int = 400) -> Answers:
    """Draw answers that are wrong with a given probability."""
    rng = np.random.default_rng(seed)
    truth = np.random.default_rng(0)
    person, activity = truth.integers(0, 8, n).astype(str), truth.choice(["rest", "run", "walk"], n)
    parts = []
    for number in range(seeds):
        wrong = rng.random((2, n)) < errors
        said = pd.DataFrame({"subject_id": person, "record_id": person + activity, "activity": activity})
        said["person_said"] = np.where(wrong[0], rng.integers(0, 8, n).astype(str), person)
        said["activity_said"] = np.where(wrong[1], rng.choice(["rest", "run", "walk"], n), activity)
        parts.append(said.assign(seed=number, degree=truth.integers(1, 4, n).astype(float), start=0))
    return Answers(pd.concat(parts, ignore_index=True), [])


def test_values_are_the_plain_ones_and_lie_in_their_intervals() -> None:
    given = answers(0.3, 1)
    said = given.windows
    accuracy = estimate(given, "person_accuracy", 0)
    assert accuracy.value == pytest.approx((said["person_said"] == said["subject_id"]).mean())
    assert accuracy.low < accuracy.value < accuracy.high
    assert accuracy.n == 8
    f1 = estimate(given, "activity_macro_f1", 0)
    assert f1.value == pytest.approx(f1_score(said["activity"], said["activity_said"], average="macro"))


def test_the_difference_is_paired() -> None:
    better, worse = answers(0.1, 1), answers(0.4, 2)
    gain = difference(better, worse, "person_accuracy", 0)
    one, other = (estimate(given, "person_accuracy", 0) for given in (better, worse))
    assert gain.value == pytest.approx(one.value - other.value)
    assert gain.low > 0
    same = difference(better, better, "activity_macro_f1", 0)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_spread_over_seeds_by_hand() -> None:
    given = answers(0.3, 1)
    per_seed = [(s["person_said"] == s["subject_id"]).mean() for _, s in given.windows.groupby("seed")]
    # two values: the standard deviation is their distance over the root of two
    assert seed_spread(given, "person_accuracy") == pytest.approx(abs(per_seed[0] - per_seed[1]) / math.sqrt(2))
    assert math.isnan(seed_spread(answers(0.3, 1, seeds=1), "person_accuracy"))


def test_what_is_not_answered_is_undefined_with_its_reason() -> None:
    given = answers(0.3, 1)
    given.windows["person_said"] = None
    found = estimate(given, "person_accuracy", 0)
    assert math.isnan(found.value)
    assert "do not answer" in found.reason
    skipped = Answers(pd.DataFrame(), [], "the cohort states no electrode")
    assert estimate(skipped, "person_accuracy", 0).reason == "the cohort states no electrode"
    table = results_table({("cross_electrode", "dt4ecg"): skipped, ("blocked_time", "dt4ecg"): given}, 0)
    assert table["note"].tolist() == ["the cohort states no electrode", ""]
    assert table["windows"].tolist() == [0, 400]
    assert gaps_finding(table) == "What could not be asked: cross electrode (dt4ecg): the cohort states no electrode."
    assert shown_results(table)["protocol"].tolist() == ["blocked_time"]
    assert table["person_accuracy"].isna().all()


def test_ablations_say_what_is_shown_and_what_is_not() -> None:
    full = answers(0.1, 1)
    table = ablation_table(full, {"much_worse": answers(0.6, 2), "the_same": full}, 0)
    assert "it helps" in gain_sentence(table, "much_worse", "It")
    assert gain_sentence(table, "the_same", "It").count("is not shown to help or to hurt") == 2


def test_a_gain_that_cannot_be_measured_is_no_verdict() -> None:
    full, one_task = answers(0.1, 1), answers(0.1, 1)
    one_task.windows["activity_said"] = None
    said = gain_sentence(ablation_table(full, {"person_alone": one_task}, 0), "person_alone", "It")
    assert "activity could not be compared" in said
    assert "nan" not in said


def test_rest_comes_first_in_the_confusion() -> None:
    rows = [("arms", "rest"), ("arms", "arms"), ("rest", "rest")]
    said = pd.DataFrame(rows, columns=["activity", "activity_said"])
    share = confusion_share(Answers(said, []), "activity")
    assert list(share.index) == list(share.columns) == ["rest", "arms"]
    assert share.to_numpy().tolist() == [[1, 0], [0.5, 0.5]]


def test_degrees_partition_the_windows() -> None:
    given = answers(0.3, 1)
    table = by_degree_table(given, 0)
    assert table["degree"].tolist() == [1, 2, 3]
    first = given.windows[given.windows["degree"] == 1]
    assert table["person_accuracy"].iloc[0] == pytest.approx((first["person_said"] == first["subject_id"]).mean())


def test_matrix_cells_by_hand() -> None:
    rows = [("a", "rest", "a"), ("b", "rest", "a"), ("a", "run", "b"), ("b", "run", "a")]
    said = pd.DataFrame(rows, columns=["subject_id", "activity", "person_said"])
    matrix = activity_matrix({"rest": Answers(said, []), "run": Answers(pd.DataFrame(), [], "why")}, ["rest", "run"])
    assert matrix.loc["rest"].tolist() == [0.5, 0.0]
    assert matrix.loc["run"].isna().all()
