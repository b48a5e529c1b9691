"""Shares of a known relevance, enrichment 1 for one that knows nothing, and intervals over persons."""

import numpy as np
import pandas as pd
import pytest

from ecgstudy.attribution.shares import (
    NO_RELEVANCE,
    failure_table,
    region_shares,
    share_table,
    wave_shares,
)
from ecgstudy.attribution.waves import REGIONS, UNKNOWN_WAVE, WAVES
from ecgstudy.evaluate.bootstrap import Resamples

CODES = np.repeat(np.array([UNKNOWN_WAVE, 0, 1, 2, 3, 4, 5], dtype=np.int8), [10, 8, 4, 8, 10, 20, 50])[None]
"""One window of 110 samples, the first 10 of which have no wave."""


def windows(n: int) -> np.ndarray:
    """Codes of `n` equal windows."""
    return np.repeat(CODES, n, axis=0)


def test_shares_of_a_known_relevance() -> None:
    relevance = np.zeros(110, dtype=np.float32)
    relevance[:10] = 100.0  # in no wave: counts nowhere
    relevance[10] = 1.0
    relevance[22:30] = 1.0
    relevance[109] = 3.0
    shares = wave_shares(relevance[None], CODES)
    np.testing.assert_allclose(shares.mass[0], [1 / 12, 0, 8 / 12, 0, 0, 3 / 12])
    np.testing.assert_allclose(shares.time[0], [0.08, 0.04, 0.08, 0.10, 0.20, 0.50])
    assert shares.names == WAVES


def test_regions_overlap_and_are_shared_out_among_the_same_samples() -> None:
    masks = np.zeros((1, len(REGIONS), 110), dtype=bool)
    masks[0, 0, 24:28] = True
    masks[0, 1, 22:30] = True
    masks[0, 2, :26] = True  # its first 10 samples are in no wave
    shares = region_shares(np.ones((1, 110)), masks, CODES)
    np.testing.assert_allclose(shares.mass[0], [0.04, 0.08, 0.16, 0, 0])
    np.testing.assert_allclose(shares.time[0], shares.mass[0])


def test_uniform_relevance_is_enriched_nowhere() -> None:
    table = share_table(
        wave_shares(np.full((4, 110), 0.7), windows(4)), np.array([*"aabc"]), Resamples.draw("abc", 0, 50)
    )
    np.testing.assert_allclose(table[["enrichment", "enrichment_low", "enrichment_high"]], 1.0)
    np.testing.assert_allclose(table["share"], [0.08, 0.04, 0.08, 0.10, 0.20, 0.50])
    assert table[["persons", "windows", "undefined"]].to_numpy().tolist() == [[3, 4, 0]] * 6


def test_every_person_weighs_the_same_and_intervals_resample_persons() -> None:
    relevance = np.zeros((4, 110))
    relevance[:3, 22:30] = 1.0  # three windows of one person: all in QRS
    relevance[3, 40:60] = 1.0  # one of another: all in T
    table = share_table(
        wave_shares(relevance, windows(4)), np.array([*"aaab"]), Resamples.draw("ab", 0, 200)
    ).set_index("wave")
    assert table.loc["QRS", "share"] == pytest.approx(0.5)
    assert table.loc["QRS", "enrichment"] == pytest.approx(0.5 / 0.08)
    # of two persons, both draws are one of them in half of the resamples
    assert table.loc["QRS", ["share_low", "share_high"]].tolist() == [0.0, 1.0]
    assert table.loc["T", "enrichment_high"] == pytest.approx(1 / 0.2)


def test_windows_without_relevance_leave_share_and_time() -> None:
    codes = windows(2)
    codes[1, codes[1] == WAVES.index("TP")] = UNKNOWN_WAVE
    relevance = np.array([np.ones(110), np.full(110, np.nan)])
    table = share_table(wave_shares(relevance, codes), np.array([*"ab"]), Resamples.draw("ab", 0, 20))
    assert table["time"].tolist() == pytest.approx([0.08, 0.04, 0.08, 0.10, 0.20, 0.50])
    assert table["undefined"].tolist() == [1] * 6
    assert table["share_low"].isna().all()
    assert table["reason"].str.contains("one person").all()


def test_a_method_without_any_relevance_is_undefined_with_a_reason() -> None:
    table = share_table(wave_shares(np.zeros((2, 110)), windows(2)), np.array([*"ab"]), Resamples.draw("ab", 0, 20))
    assert table[["share", "time", "enrichment"]].isna().all(axis=None)
    assert (table["reason"] == NO_RELEVANCE).all()


def test_a_wave_that_no_window_has_is_undefined_with_a_reason() -> None:
    codes = windows(2)
    codes[codes == WAVES.index("PR")] = UNKNOWN_WAVE
    table = share_table(wave_shares(np.ones((2, 110)), codes), np.array([*"ab"]), Resamples.draw("ab", 0, 20))
    row = table.set_index("wave").loc["PR"]
    assert row["time"] == 0
    assert np.isnan(row["enrichment"])
    assert row["reason"] == "no window has a PR"


def test_signed_attributions_are_refused() -> None:
    with pytest.raises(ValueError, match="magnitude"):
        wave_shares(np.full((1, 110), -1.0), CODES)


def test_failures_are_counted_by_class_and_reason() -> None:
    rows = [
        ("x", "F", "30-44", "a", None),
        ("x", "F", "30-44", "a", "no beats"),
        ("x", "M", None, "b", "P wave not found"),
        ("x", "M", None, "b", "P wave not found"),
        ("x", "M", None, "c", None),
    ]
    table = failure_table(pd.DataFrame(rows, columns=["cohort", "sex", "age_group", "person", "reason"]))
    found = table.set_index(["class_of", "name"])
    assert found.loc[("cohort", "x"), ["persons", "windows", "left_out"]].tolist() == [3, 5, 3]
    assert found.loc[("sex", "M"), "rate"] == pytest.approx(2 / 3)
    assert found.loc[("sex", "M"), ["P wave not found", "no beats"]].tolist() == [2, 0]
    assert found.loc[("age_group", "unknown"), "windows"] == 3
    assert found.loc[("person", "c"), "rate"] == 0
