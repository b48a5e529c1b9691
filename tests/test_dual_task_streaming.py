"""Streams: the filter against exact inference, delays and accumulated evidence by hand."""

import itertools

import numpy as np
import pandas as pd
import pytest

from ecgstudy.dual_task.recordings import Reading
from ecgstudy.dual_task.streaming import Stream, accuracy_by_time, delay_table, forward_filter
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


def test_without_memory_each_window_decides_alone() -> None:
    # switching 2/3 of three classes makes every class as likely after each step
    probabilities = np.random.default_rng(1).dirichlet(np.ones(3), size=5)
    np.testing.assert_allclose(forward_filter(probabilities, 2 / 3, 1.0), probabilities)


def stream() -> Stream:
    """Build ten windows of rest, then ten of running, of which the first three still look like rest."""
    index = pd.DataFrame({"record_id": ["a"] * 10 + ["b"] * 10, "subject_id": "p1"})
    index["activity"] = ["rest"] * 10 + ["run"] * 10
    index["start"] = 0
    looks = np.array([0.9] * 13 + [0.1] * 7)
    activity = np.stack([looks, 1 - looks], axis=1)
    person = np.tile([0.4, 0.6], (20, 1))
    person[:10] = [0.9, 0.1]
    return Stream(index, person, activity)


def test_delay_counts_from_the_change_to_the_first_right_decision() -> None:
    table = delay_table([stream()], ["rest", "run"], Reading(4.0, False)).set_index("switching")
    # two classes at 0.5 forget everything: right from the fourth window on, the first being complete after 4 s
    assert table.loc["0.5", "delay"] == 4 + 3
    assert table.loc["0.5", "accuracy"] == pytest.approx(17 / 20)
    assert table.loc["0.5", "missed"] == 0
    # one that hardly believes in changes has not turned round after seven windows against thirteen
    assert table.loc["0.0001", "missed"] == 1
    assert table.loc["0.0001", "accuracy"] == pytest.approx(10 / 20)
    assert table.loc["0.0001", "changes"] == 1


def test_evidence_adds_up_within_a_record() -> None:
    table = accuracy_by_time([stream()], ["p1", "p2"], ["rest", "run"], Reading(4.0, False))
    person = table[table["task"] == "person"]
    # record a is right throughout, record b (0.4 against 0.6) never
    assert person["accuracy"].tolist() == [0.5] * 10
    assert person["seconds"].tolist() == list(range(4, 14))
    # record b: three windows 9:1 against, then 9:1 for; even at the sixth, the seventh decides
    activity = table[table["task"] == "activity"]["accuracy"].tolist()
    assert activity[:5] == [0.5] * 5
    assert activity[6:] == [1.0] * 4


def test_a_window_is_timed_and_the_threads_are_put_back() -> None:
    import torch

    from ecgstudy.dual_task.streaming import milliseconds_per_window

    model = create_model("dt4ecg", 0, n_leads=1, n_samples=200, fs=100.0, classes={"person": "ab"}, lead_names=["I"])
    torch.set_num_threads(2)
    assert milliseconds_per_window(model.eval()) > 0
    assert torch.get_num_threads() == 2
