"""Tables of the dual task against counts done by hand, and against scikit-learn."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta
from sklearn.metrics import f1_score

from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.dual_task import figures, tables
from ecgstudy.dual_task.predictions import Predictions
from ecgstudy.dual_task.tables import estimate
from ecgstudy.evaluate.protocols import BlockedTime, RandomWindows

ACTIVITIES = ["rest", "run", "walk"]
REFUSED = Predictions(gap="the cohort states no electrode")


def predictions(errors: float, seed: int, seeds: int = 2, n: int = 400) -> Predictions:
    """Draw predictions that are wrong with a given probability, of three records a person."""
    rng, truth = np.random.default_rng(seed), np.random.default_rng(0)
    person, activity = truth.integers(0, 8, n).astype(str), truth.choice(ACTIVITIES, n)
    parts = []
    for number in range(seeds):
        wrong = rng.random((2, n)) < errors
        part = pd.DataFrame({"subject_id": person, "record_id": person + activity, "activity": activity})
        part["person_predicted"] = np.where(wrong[0], rng.integers(0, 8, n).astype(str), person)
        part["activity_predicted"] = np.where(wrong[1], rng.choice(ACTIVITIES, n), activity)
        parts.append(part.assign(seed=number, start=0, n_samples=100, fold=0))
    return Predictions(pd.concat(parts, ignore_index=True))


def small(*rows: tuple[str, str, str, str]) -> Predictions:
    """Predictions of single windows: person, activity and what is predicted of each."""
    columns = ["subject_id", "activity", "person_predicted", "activity_predicted"]
    table = pd.DataFrame(rows, columns=columns)
    return Predictions(table.assign(record_id=table["subject_id"] + table["activity"], seed=0, fold=0))


def test_values_are_the_plain_ones_and_lie_in_their_intervals() -> None:
    given = predictions(0.3, 1)
    windows = given.windows
    accuracy = estimate(given, "person_accuracy", 0)
    assert accuracy.value == pytest.approx((windows["person_predicted"] == windows["subject_id"]).mean())
    assert accuracy.low < accuracy.value < accuracy.high
    assert accuracy.n == 8
    f1 = estimate(given, "activity_macro_f1", 0)
    assert f1.value == pytest.approx(f1_score(windows["activity"], windows["activity_predicted"], average="macro"))


def test_f1_counts_classes_that_are_true_and_not_those_that_are_only_predicted() -> None:
    given = small(
        ("a", "rest", "a", "rest"), ("a", "run", "a", "walk"), ("b", "rest", "b", "rest"), ("b", "run", "b", "run")
    )
    # rest 1, run 2/3; walk is never true
    assert estimate(given, "activity_macro_f1", 0).value == pytest.approx((1 + 2 / 3) / 2)


def test_intervals_are_over_persons_and_beside_them_over_records() -> None:
    one_record_each = [(a, b, c, b) for a, b, c in zip("aabb", ("rest", "run") * 2, "abba", strict=True)]
    table = tables.results("x", {("blocked_time", "dt4ecg"): small(*one_record_each)}, 0)
    row = table[(table["task"] == "person") & (table["metric"] == "accuracy")].iloc[0]
    # two persons half right and half wrong are one success of two (Clopper-Pearson), four records two of four
    bound = 1 - 0.975**0.5
    assert (row["value"], row["low"], row["high"]) == (0.5, pytest.approx(bound), pytest.approx(1 - bound))
    assert row["by_record"] == f"{beta.ppf(0.025, 2, 3):.3f} to {beta.ppf(0.975, 3, 2):.3f}"
    assert row["name"] == "x.blocked_time.dt4ecg.person_accuracy"
    assert (row["n"], row["windows"], row["seeds"], row["unit"]) == (2, 4, 1, "share")
    assert row["note"].startswith("Exact bounds by person (Clopper-Pearson)")


def test_the_difference_is_paired() -> None:
    better, worse = predictions(0.1, 1), predictions(0.4, 2)
    gain = estimate(better, "person_accuracy", 0, minus=worse)
    one, other = (estimate(given, "person_accuracy", 0) for given in (better, worse))
    assert gain.value == pytest.approx(one.value - other.value)
    assert gain.low > 0
    same = estimate(better, "activity_macro_f1", 0, minus=better)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_spread_over_seeds_by_hand() -> None:
    given = predictions(0.3, 1)
    per_seed = [(s["person_predicted"] == s["subject_id"]).mean() for _, s in given.windows.groupby("seed")]
    # two values: the standard deviation is their distance over the root of two
    spread = tables.spread(given, "person_accuracy", 0)["sd"]
    assert spread == pytest.approx(abs(per_seed[0] - per_seed[1]) / math.sqrt(2))
    assert math.isnan(tables.spread(predictions(0.3, 1, seeds=1), "person_accuracy", 0)["sd"])


def test_what_is_not_predicted_is_undefined_with_its_reason() -> None:
    given = predictions(0.3, 1)
    given.windows.loc[5, "person_predicted"] = None  # one window without a prediction is enough
    assert math.isnan(given.accuracy("person"))
    given.windows["person_predicted"] = None
    found = {("cross_electrode", "dt4ecg"): REFUSED, ("blocked_time", "dt4ecg"): given}
    rows = tables.results("x", found, 0)
    persons = rows[rows["task"] == "person"]
    assert persons["note"].tolist() == ["the cohort states no electrode", tables.UNDEFINED]
    assert persons["value"].isna().all()
    assert persons[["windows", "n"]].to_numpy().tolist() == [[0, 0], [400, 8]]
    said = tables.gaps_finding(rows)
    assert said == "What could not be asked: cross electrode (dt4ecg): the cohort states no electrode."
    results = tables.shown(rows[rows["windows"] > 0], *tables.COUNTS)
    assert results["protocol"].tolist() == ["blocked_time"]
    assert tables.ablation_table(rows).empty
    whole = tables.everything(rows)
    assert whole["note"].tolist() == ["the cohort states no electrode", ""]
    assert list(whole)[:5] == ["protocol", "model", "windows", "persons", "seeds"]
    ends = ["", "_low", "_high", "_by_record", "_sd"]
    assert list(whole)[5:] == [metric + end for metric in tables.METRICS for end in ends] + ["note"]
    finding = tables.protocol_finding("x", rows)
    assert finding.startswith("Accuracy of DT4ECG on x, share of windows: blocked time: activity ")
    assert "person" not in finding
    paper = tables.paper_table("x", results)
    assert paper["source"].tolist() == ["DT4ECG (paper)", "DT4ECG (ours, x)"]
    assert paper["persons"].tolist() == ["not known", 8]


def test_ablations_say_what_is_shown_and_what_is_not() -> None:
    full, one_task = predictions(0.1, 1), predictions(0.1, 1)
    one_task.windows["activity_predicted"] = None
    others = {"no_attention": predictions(0.6, 2), "equal_weights": full, "person_alone": one_task}
    found = {("blocked_time", name): given for name, given in {"dt4ecg": full, "resnet1d": full, **others}.items()}
    rows = tables.results("x", found, 0)
    assert tables.gain_sentence(rows, "no_attention", "It").count("it helps") == 2
    assert tables.gain_sentence(rows, "equal_weights", "It").count("is not shown to help or to hurt") == 2
    alone = tables.gain_sentence(rows, "person_alone", "It")
    assert "activity could not be compared" in alone
    assert "nan" not in alone
    results, ablations = tables.shown(rows), tables.ablation_table(rows)
    assert results["model"].tolist() == ["dt4ecg", "resnet1d"]
    assert ablations["name"].tolist() == list(others)
    assert ablations.loc[0, "person_accuracy_gain"] == pytest.approx(
        results.loc[0, "person_accuracy"] - ablations.loc[0, "person_accuracy"]
    )
    assert not ablations.columns.str.contains("f1").any()
    assert "ablation.no_attention.activity_macro_f1_gain" in set(rows["name"])


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.01, 0.09, "helps"),
        (-0.01, 0.09, "is not shown to help or to hurt"),
        (-0.09, -0.01, "hurts"),
        (0.0, 0.09, "is not shown to help or to hurt"),
    ],
)
def test_a_verdict_needs_an_interval_on_one_side_of_zero(low: float, high: float, verdict: str) -> None:
    row = {"attacker": "a", "task": "person", "metric": "accuracy_gain", "value": 0.04, "low": low, "high": high}
    said = tables.gain_sentence(pd.DataFrame([row, {**row, "attacker": "b"}]), "a", "It")
    points = f"+4.0 points ({100 * low:+.1f} to {100 * high:+.1f})"
    assert said == f"It: person {points}: it {verdict} (each one of 2 comparisons, uncorrected)."


def test_a_bound_that_is_not_zero_is_not_written_as_minus_zero() -> None:
    row = {
        "attacker": "a",
        "task": "person",
        "metric": "accuracy_gain",
        "value": -0.004,
        "low": -0.007,
        "high": -0.0004,
    }
    said = tables.gain_sentence(pd.DataFrame([row]), "a", "It")
    assert said.startswith("It: person -0.4 points (-0.7 to -0.04): it hurts")
    assert "(-0.7 to +0.0): it is not shown" in tables.gain_sentence(pd.DataFrame([row | {"high": 0.0}]), "a", "It")


def test_the_protocols_figure_shows_what_guessing_gives() -> None:
    row = {
        f"{task}_accuracy{end}": value
        for task in tables.TASKS
        for end, value in (("", 0.5), ("_low", 0.4), ("_high", 0.6))
    }
    wide = pd.DataFrame([{"protocol": "blocked_time", "model": "dt4ecg"} | row])
    drawn = figures.protocols_figure(wide, {"person": [*"abcdefghij"], "activity": ["rest", "run"]})
    told = [[line.get_xdata()[0] for line in ax.lines if line.get_label() == "guessing"] for ax in drawn.axes]
    assert told == [[10.0], [50.0]]


def test_rest_comes_first_in_the_confusion() -> None:
    windows = small(("a", "arms", "a", "rest"), ("a", "arms", "a", "arms"), ("a", "rest", "a", "rest")).windows
    named = Predictions(windows, {"person": ["a"], "activity": ["rest", "arms", "run"]})
    heat = figures.confusion_figure(named).axes[1].collections[0].get_array()
    # nobody ran, and nobody was thought to
    assert heat.filled(-1).tolist() == [[100, 0, 0], [50, 50, 0], [-1, -1, -1]]


def test_degrees_partition_the_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    given = predictions(0.3, 1)
    worst = np.random.default_rng(0).choice([1, 2, 3, math.nan], len(given.windows))
    monkeypatch.setattr(tables, "worst_degree", lambda *_: worst)
    table = tables.degree_table(given, SyntheticCohort(n_subjects=1), 100.0, 0)
    assert list(table)[:4] == ["degree", "windows", "persons", "person_accuracy"]
    assert table["degree"].tolist() == [1, 2, 3]
    first = given.windows[worst == 1]
    assert table["person_accuracy"].iloc[0] == pytest.approx((first["person_predicted"] == first["subject_id"]).mean())
    assert table["windows"].tolist() == [np.count_nonzero(worst == degree) // 2 for degree in (1, 2, 3)]


def test_matrix_cells_by_hand() -> None:
    given = small(("a", "rest", "a", ""), ("b", "rest", "a", ""), ("a", "run", "b", ""), ("b", "run", "a", ""))
    matrix = tables.activity_matrix(given, ["rest", "run"])
    assert matrix.loc["rest"].tolist() == [0.5, 0.0]
    assert matrix.loc["run"].isna().all()
    rows = tables.matrix_results("x", given, ["rest", "run"], 0).set_index("name")
    # nobody of two is known: up to 1 - .025^(1/2) could be (Clopper-Pearson)
    cell = rows.loc["x.activity_pairs.rest_to_run.person_accuracy"]
    assert cell[["value", "low", "n"]].tolist() == [0.0, 0.0, 2]
    assert cell["high"] == pytest.approx(1 - 0.025**0.5)
    assert "no window of this pair" in rows.loc["x.activity_pairs.run_to_rest.person_accuracy", "note"]
    assert tables.activity_matrix(REFUSED, ["rest", "run"]).isna().all(axis=None)


def test_protocols_and_certainty_in_words() -> None:
    table = tables.protocol_table([RandomWindows(), BlockedTime()])
    assert table[["protocol", "leaky"]].to_numpy().tolist() == [["random_windows", "yes"], ["blocked_time", "no"]]
    # 0.95 quantile of ten trials without an event: 1 - 0.05^(1/10) = 0.2589
    assert "up to 26 % of all people" in tables.certainty_sentence(10)
