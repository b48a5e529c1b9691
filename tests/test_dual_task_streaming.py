"""Streams: the filter against exact inference, delays and accumulated evidence by hand."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import beta

from ecgstudy.dual_task import figures, streaming, tables
from ecgstudy.dual_task.predictions import Predictions
from ecgstudy.dual_task.sessions import session_order
from ecgstudy.dual_task.streaming import accuracy_by_time, delay_table, forward_filter, milliseconds_per_window
from ecgstudy.learn.models import create_model


def test_filter_equals_the_sum_over_all_paths() -> None:
    # independent way: enumerate the hidden paths of three classes over four windows
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), size=4)
    switching, new_share = 0.2, 0.5
    exact = np.zeros(3)
    for path in itertools.product(range(3), repeat=4):
        weight = 1 / 3
        for step, (before, now) in enumerate(itertools.pairwise((path[0], *path))):
            # the first window has a step of its own from an even start, which stays even
            if step:
                weight *= 1 - switching if before == now else switching / 2
            weight *= probabilities[step, now] ** new_share
        exact[path[-1]] += weight
    filtered = forward_filter(probabilities, switching, new_share)
    np.testing.assert_allclose(filtered[-1], exact / exact.sum())
    np.testing.assert_allclose(filtered.sum(axis=1), 1)
    # switching 2/3 of three classes makes every class as likely after each step: each window decides alone
    np.testing.assert_allclose(forward_filter(probabilities, 2 / 3, 1.0), probabilities)


def heard() -> Predictions:
    """Build ten windows of rest, then ten of running, of which the first three still look like rest."""
    index = pd.DataFrame({"record_id": ["a"] * 10 + ["b"] * 10, "subject_id": "p1", "seed": 0, "fold": 0})
    index = index.assign(start=[*range(0, 1000, 100)] * 2, n_samples=400, since=[*range(400, 1400, 100)] * 2)
    index["activity"] = ["rest"] * 10 + ["run"] * 10
    looks = np.array([0.9] * 13 + [0.1] * 7)
    index["activity_predicted"] = np.where(looks > 0.5, "rest", "run")
    index["activity_shares"] = [*np.stack([looks, 1 - looks], axis=1)]
    index["person_predicted"], index["person_shares"] = "p1", [np.array([0.9, 0.1])] * 10 + [np.array([0.4, 0.6])] * 10
    return Predictions(index, {"person": ["p1", "p2"], "activity": ["rest", "run"]})


def test_delay_counts_from_the_change_to_the_first_of_five_right_decisions() -> None:
    delays = delay_table(heard(), 4.0)
    table = delays.set_index("switching")
    # two classes at 0.5 forget everything: right from the fourth window on, the first being complete after 4 s
    assert table.loc["0.5", "delay"] == 4 + 3
    assert table.loc["0.5", "accuracy"] == pytest.approx(17 / 20)
    assert table.loc["0.5", "missed"] == 0
    # one that hardly believes in changes has not turned round after seven windows against thirteen
    assert table.loc["0.0001", "missed"] == 1
    assert table.loc["0.0001", "accuracy"] == pytest.approx(10 / 20)
    assert table.loc["0.0001", "changes"] == 1
    rows = tables.delay_results("x", delays, 7).set_index("name")
    assert rows.loc["x.monitoring.switching_0.5.delay", ["value", "n", "unit"]].tolist() == [7, 1, "s"]
    assert (
        rows.loc["x.monitoring.switching_0.0001.delay", "note"]
        == "no change of activity was heard, or none was noticed"
    )
    assert rows.loc["x.monitoring.switching_0.5.activity_accuracy", "value"] == pytest.approx(17 / 20)
    assert rows.loc["x.monitoring.switching_0.5.activity_accuracy", "n"] == 7
    assert rows.loc["x.monitoring.switching_0.5.false_switches", ["value", "unit"]].tolist() == [0, "a minute"]
    assert rows.loc["x.monitoring.most_frequent_activity.activity_accuracy", "value"] == 0.5
    said = tables.monitoring_finding("cross_electrode", delays, 0.5, 0.5)
    assert "networks of cross electrode, the activity is right in 85.0 % of the seconds (a guess: " in said
    assert "half of the changes that are noticed are after 7 s, 0 % never are (a guess: " in said
    assert "with 0.0 false switches a minute; one window takes 0.5 ms on one processor core" in said


def _looking(looks: list[float]) -> Predictions:
    """Ten windows of rest and as many of running as are left, that look like rest to this degree."""
    one, n = heard(), len(looks) - 10
    windows = pd.concat([one.windows.head(10), one.windows.tail(10).head(n)], ignore_index=True)
    shares = np.array(looks)
    return replace(one, windows=windows.assign(activity_shares=[*np.stack([shares, 1 - shares], axis=1)]))


def test_a_change_is_noticed_where_five_decisions_in_a_row_are_right_and_not_before() -> None:
    # running, heard right at once, then wrong, then right from the third window on
    table = delay_table(_looking([0.9] * 10 + [0.1, 0.9] + [0.1] * 6), 4.0).set_index("switching").loc["0.5"]
    assert (table["delay"], table["missed"]) == (4 + 2, 0)
    # right four times and then the record ends: never noticed
    table = delay_table(_looking([0.9] * 10 + [0.9] * 6 + [0.1] * 4), 4.0).set_index("switching").loc["0.5"]
    assert table["missed"] == 1
    assert np.isnan(table["delay"])


def test_false_switches_are_those_to_what_is_not_going_on() -> None:
    # rest looks like running twice for a moment; the way back is no false one, nor is the change itself
    looks = [0.9, 0.9, 0.1, 0.9, 0.1, 0.9, 0.9, 0.9, 0.9, 0.9] + [0.1] * 10
    table = delay_table(_looking(looks), 4.0).set_index("switching").loc["0.5"]
    assert table["false_switches"] == 2 / (20 / 60)


def test_guesses_stand_beside_what_was_heard() -> None:
    long = heard()
    windows = pd.concat([long.windows] * 50, ignore_index=True)
    table = delay_table(replace(long, windows=windows), 4.0).set_index("switching")
    assert table.index.tolist()[-2:] == ["uniform guess", "most frequent activity"]
    assert table.loc["uniform guess", "accuracy"] == pytest.approx(0.5, abs=0.06)
    assert table.loc["uniform guess", "false_switches"] == pytest.approx(15, abs=3)
    assert table.loc["most frequent activity", "false_switches"] == 0
    assert table.loc["most frequent activity", "missed"] == 1


def test_two_persons_are_two_sessions() -> None:
    two = heard()
    two.windows["subject_id"] = ["p1"] * 10 + ["p2"] * 10
    assert delay_table(two, 4.0)["changes"].tolist() == [0] * 7
    # p2 is heard twice, the second time from the third window of running on: right at the second decision
    again = heard().windows.drop(index=[10, 11]).assign(subject_id="p2")
    both = replace(two, windows=pd.concat([heard().windows, again], ignore_index=True))
    table = delay_table(both, 4.0).set_index("switching").loc["0.5"]
    # after 7 s both: when a window ended counts, and not how many there were
    assert (table["delay"], table["late"], table["changes"]) == (7, pytest.approx(7), 2)
    worst = again.assign(subject_id="p3", activity_predicted="rest")
    three = replace(two, windows=pd.concat([both.windows, worst], ignore_index=True))
    # right in 17 of 20, 17 of 18 and 10 of 18 windows: the first is the median person
    assert figures.session_figure(three, 4.0, 0.01).axes[0].get_title().startswith("p1: ")


def test_the_numbers_of_a_stream_have_intervals_over_persons() -> None:
    # nine persons like the first, of whom three never hear the change
    windows = []
    for number in range(9):
        one = heard().windows.assign(subject_id=f"p{number}", record_id=[f"{number}a"] * 10 + [f"{number}b"] * 10)
        if number < 3:
            one["activity_shares"] = [np.array([0.9, 0.1])] * 20
        windows.append(one)
    row = delay_table(replace(heard(), windows=pd.concat(windows, ignore_index=True)), 4.0).iloc[0]
    assert (row["missed"], row["changes"], row["delay"]) == (pytest.approx(3 / 9), 9, 7)
    # three of nine, exact (Clopper-Pearson): beta quantiles
    assert row["missed_low"] == pytest.approx(beta.ppf(0.025, 3, 7))
    assert row["missed_high"] == pytest.approx(beta.ppf(0.975, 4, 6))
    assert (row["delay_low"], row["delay_high"]) == (7, 7)
    assert row["accuracy"] == pytest.approx((3 * 10 + 6 * 17) / 180)
    assert row["accuracy_low"] < row["accuracy"] - 0.05 < row["accuracy"] + 0.05 < row["accuracy_high"]
    rows = tables.delay_results("x", delay_table(heard(), 4.0), 1).set_index("name")
    # of one person there is none
    assert rows.loc["x.monitoring.switching_0.5.delay", ["low", "high"]].isna().all()


RECORDS = pd.DataFrame({"record_id": ["b", "a"], "subject_id": "p1", "session": 1, "activity": ["squats", "rest"]})


def test_only_the_first_seed_and_networks_of_both_tasks_are_read() -> None:
    one = heard()
    one.windows["seed"] = [1, 2] * 10
    one.windows.loc[:3, "person_predicted"] = None
    found = {("cross_electrode", "dt4ecg"): one, ("blocked_time", "dt4ecg"): heard()}
    protocol, stream = streaming.stream(found, RECORDS)
    assert (protocol, stream.windows["seed"].unique().tolist(), len(stream.windows)) == ("cross_electrode", [1], 8)
    found["cross_electrode", "dt4ecg"] = Predictions(gap="none")
    assert streaming.stream(found, RECORDS)[0] == "blocked_time"


def test_a_session_goes_on_in_the_order_of_the_activities_and_across_borders() -> None:
    shuffled = heard()
    windows = shuffled.windows.drop(columns="since").sample(frac=1, random_state=0)
    # squats after rest: windows that end 1, 2 and 3 s after the border
    across = windows.head(3).assign(record_id="b", start=[-200, -300, -100], activity="run")
    stream = streaming.as_stream(replace(shuffled, windows=windows, across=across), RECORDS).windows
    assert stream["record_id"].tolist() == ["a"] * 10 + ["b"] * 13
    assert stream["since"].tolist() == [*range(400, 1400, 100), 100, 200, 300, *range(400, 1400, 100)]
    mixed = pd.DataFrame(
        {"subject_id": [*"qppppp"], "session": 1, "electrode": [1, 2, 1, 1, 1, 1], "record_id": [*"uvwxyz"]}
    )
    order = session_order(mixed.assign(activity=["rest", "rest", "squats", "swimming", "run_8kmh", "rest"]))
    assert order["record_id"].tolist() == [*"zywxvu"]
    assert session_order(mixed)["record_id"].tolist() == [*"wxyzvu"]


def test_the_readiness_to_switch_is_the_best_where_nothing_is_tested() -> None:
    # looks that tell little and change often: memory helps
    rng = np.random.default_rng(0)
    looks = np.concatenate([0.5 + 0.1 * rng.normal(0.4, 1, 10), 0.5 + 0.1 * rng.normal(-0.4, 1, 10)]).clip(0.01, 0.99)
    blurred = _looking(looks.tolist())
    table = delay_table(blurred, 4.0).head(5)
    chosen = streaming.calibrated_switching(blurred, RECORDS, 4.0)
    assert table.set_index("switching").loc[f"{chosen:g}", "accuracy"] == table["accuracy"].max()
    assert streaming.calibrated_switching(heard(), RECORDS, 4.0) == 0.5
    assert streaming.calibrated_switching(heard().subset(np.zeros(20, dtype=bool)), RECORDS, 4.0) == 0.01


def test_no_stream_is_a_sentence() -> None:
    empty = heard().subset(np.zeros(20, dtype=bool))
    delays = delay_table(empty, 8.0)
    assert "No session could be read" in tables.monitoring_finding("blocked_time", delays, 0.01, 0.5)
    assert tables.delay_results("x", delays, 0)["value"].isna().all()
    assert accuracy_by_time(empty, 8.0).empty
    assert len(figures.delay_figure(delays, accuracy_by_time(empty, 8.0)).axes) == 2


def test_the_figure_of_long_records_draws_chance_and_exact_intervals() -> None:
    enrolled = pd.DataFrame({"start": [0], "stop": [400]})
    long = streaming.LongRecords(heard(), heard(), enrolled, pd.Series({"rest": 0.6, "run": 0.4}))
    by_time = pd.DataFrame({"seconds": [4.0, 5.0], "accuracy": [0.25, 1.0], "records": [8, 8]})
    stream, _, late = figures.long_record_figure(long, by_time, 100.0).axes
    assert [line.get_ydata()[0] for line in (stream.lines[1], late.lines[1])] == [0.5, 50]
    drawn = late.collections[0].get_paths()[0].vertices
    ends = [beta.ppf(0.025, 2, 7), beta.ppf(0.975, 3, 6), 0.025 ** (1 / 8), 1]
    np.testing.assert_allclose(sorted({*drawn[:, 1].round(9)}), sorted(np.round(100 * np.array(ends), 9)))


def test_evidence_adds_up_within_a_record() -> None:
    table = accuracy_by_time(heard(), 4.0)
    person = table[table["task"] == "person"]
    # record a is right throughout, record b (0.4 against 0.6) never
    assert person["accuracy"].tolist() == [0.5] * 10
    assert person["seconds"].tolist() == list(range(4, 14))
    # record b: three windows 9:1 against, then 9:1 for; even at the sixth, the seventh decides
    activity = table[table["task"] == "activity"]["accuracy"].tolist()
    assert activity[:5] == [0.5] * 5
    assert activity[6:] == [1.0] * 4
    # of three records one goes on: its end is not shown
    more = [heard().windows.iloc[:4].assign(record_id=name) for name in "bc"]
    long = replace(heard(), windows=pd.concat([heard().windows.iloc[:10], *more], ignore_index=True))
    assert accuracy_by_time(long, 4.0)["seconds"].max() == 7


def test_a_window_is_timed_and_the_threads_are_put_back() -> None:
    classes = {"person": ["a", "b"]}
    model = create_model("dt4ecg", 0, n_leads=1, n_samples=200, fs=100.0, classes=classes, lead_names=["I"])
    torch.set_num_threads(2)
    assert milliseconds_per_window(model.eval()) > 0
    assert torch.get_num_threads() == 2
