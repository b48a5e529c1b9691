"""Delineation: known waves are found, hopeless leads fail with a reason, nothing raises."""

import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from ecgstudy.data.base import Cohort
from ecgstudy.signals.delineation import (
    FIDUCIAL_COLUMNS,
    NOISE,
    RATE_TOO_LOW,
    _drop_impossible,
    delineate,
    transfer_boundaries,
)

FS = 500.0
FIRST_R_S = 0.4
# Place, width (standard deviation) in seconds and height of P, Q, R, S and T.
WAVES = ((-0.16, 0.02, 0.15), (-0.025, 0.008, -0.1), (0.0, 0.01, 1.0), (0.03, 0.009, -0.2), (0.28, 0.05, 0.3))


def heartbeats(n_beats: int, fs: float = FS, rr: float = 0.8) -> np.ndarray:
    times = np.arange(round(n_beats * rr * fs)) / fs
    phase = times[:, None] - FIRST_R_S - rr * np.arange(n_beats)
    return sum(height * np.exp(-0.5 * ((phase - place) / width) ** 2) for place, width, height in WAVES).sum(axis=1)


def found_in(x: np.ndarray, fs: float = FS) -> pd.DataFrame:
    points, failure = delineate(x, fs)
    assert failure is None
    return pd.DataFrame(points)


@pytest.mark.parametrize("fs", [500.0, 497.445, 360.0, 250.0])
@pytest.mark.parametrize("rr", [0.75, 0.9, 1.2])
def test_peaks_lie_where_they_were_planted(fs: float, rr: float) -> None:
    found = found_in(heartbeats(15, fs, rr), fs)
    r_s = FIRST_R_S + rr * np.arange(15)
    for column, place in (("p_peak", -0.16), ("r_peak", 0.0), ("t_peak", 0.28)):
        np.testing.assert_allclose(found[column] / fs, r_s + place, atol=1.0 / fs, err_msg=column)


def test_boundaries_enclose_what_was_planted() -> None:
    found = found_in(heartbeats(15))
    r_s = FIRST_R_S + 0.8 * np.arange(15)
    # A Gaussian has sunk to a seventh at two standard deviations and to a hundredth at three; the QRS runs
    # from the foot of Q to the foot of S.
    spans = {
        "p_onset": (-0.23, -0.19),
        "p_offset": (-0.13, -0.09),
        "qrs_onset": (-0.05, -0.02),
        "qrs_offset": (0.03, 0.065),
        "t_onset": (0.13, 0.2),
        "t_offset": (0.36, 0.44),
    }
    for column, (earliest, latest) in spans.items():
        after_r = found[column] / FS - r_s
        assert np.all((after_r > earliest) & (after_r < latest)), (column, after_r)


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 200.0, 1e30, 1e300])
def test_unit_and_offset_of_the_lead_do_not_matter(scale: float) -> None:
    plain, scaled = found_in(heartbeats(12)), found_in(scale * (heartbeats(12) + 3.0))
    np.testing.assert_allclose(scaled, plain, atol=1.0)


def test_a_long_lead_is_delineated_in_chunks_without_a_seam() -> None:
    long, short = found_in(heartbeats(150)), found_in(heartbeats(15))
    assert len(long.r_peak) == 150
    steps = np.diff(long.to_numpy(), axis=0)
    np.testing.assert_allclose(steps[1:-1], 0.8 * FS, atol=1.0)
    np.testing.assert_allclose(long.iloc[:10], short.iloc[:10], atol=1.0)


def test_table_has_one_row_a_beat_and_the_columns_in_order() -> None:
    table = found_in(heartbeats(12))
    assert tuple(table.columns) == FIDUCIAL_COLUMNS
    assert len(table) == 12
    assert set(table.dtypes) == {np.dtype(float)}


def test_r_peaks_agree_with_the_delineation() -> None:
    x = heartbeats(20)
    points, failure = delineate(x, FS, boundaries=False)
    assert failure is None
    np.testing.assert_array_equal(points["r_peak"], found_in(x).r_peak)
    assert pd.DataFrame(points).drop(columns="r_peak").isna().all(axis=None)


def gap(first: int, stop: int) -> np.ndarray:
    x = heartbeats(12)
    x[first:stop] = np.nan
    return x


def test_no_point_is_placed_in_a_long_gap_and_a_short_one_is_bridged() -> None:
    whole = found_in(heartbeats(12))
    bridged = found_in(gap(2300, 2320))
    np.testing.assert_allclose(bridged["r_peak"], whole["r_peak"])
    for start, stop, beats in ((2100, 2350, 11), (2090, 2150, 12), (2210, 2330, 12), (2270, 2295, 12)):
        holed = found_in(gap(start, stop))
        assert len(holed) == beats
        assert not ((holed >= start) & (holed < stop)).any(axis=None)


def test_beats_of_two_shapes_are_no_noise() -> None:
    x = heartbeats(16)
    for beat in range(0, 16, 2):
        x[round((FIRST_R_S + 0.8 * beat - 0.08) * FS) : round((FIRST_R_S + 0.8 * beat + 0.1) * FS)] *= -1
    assert len(found_in(x)) == 16


def test_mains_hum_does_not_hide_the_beats() -> None:
    x = heartbeats(20)
    hum = 1.5 * np.sin(2 * np.pi * 50.0 * np.arange(x.size) / FS)
    found = found_in(x + hum)
    assert len(found.r_peak) == 20
    np.testing.assert_allclose(found.r_peak / FS, FIRST_R_S + 0.8 * np.arange(20), atol=0.01)


NOISES = np.random.default_rng(7).standard_normal((4, 5000))


@pytest.mark.parametrize(
    ("x", "fs", "reason"),
    [
        (np.zeros(5000), FS, "flat"),
        (np.full(5000, 3.3), FS, "flat"),
        (np.r_[np.zeros(2500), np.ones(2500)], FS, "flat"),
        (np.full(5000, np.nan), FS, "not a number"),
        (gap(1000, 1600), FS, "not a number"),
        (np.ones(1), FS, "too short"),
        (np.zeros(0), FS, "too short"),
        (heartbeats(2), FS, "too short"),
        (np.sin(np.arange(5000) / 100), FS, "no beats"),
        (heartbeats(12, 80.0), 80.0, RATE_TOO_LOW),
        (heartbeats(12), float("nan"), RATE_TOO_LOW),
        *((noise, FS, NOISE) for noise in NOISES),
        *((noise, 100.0, NOISE) for noise in NOISES),
    ],
)
def test_hopeless_leads_fail_with_their_reason(x: np.ndarray, fs: float, reason: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        points, failure = delineate(x, fs)
    assert failure == reason
    assert {len(places) for places in points.values()} == {len(points["r_peak"])}
    assert all(np.isnan(places).all() for column, places in points.items() if column != "r_peak")


def test_three_beats_are_enough_but_leave_the_qrs_offset_open() -> None:
    table = found_in(heartbeats(3))
    assert len(table) == 3
    assert table["qrs_offset"].isna().all()
    assert table.drop(columns="qrs_offset").notna().all(axis=None)


@pytest.mark.parametrize("seed", range(30))
def test_odd_leads_never_raise_and_keep_the_order_of_the_waves(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = heartbeats(12, rr=rng.uniform(0.35, 1.5))
    x = np.where(rng.random(x.size) < 0.0003, rng.choice([np.nan, np.inf, 50.0, -50.0]), x)
    x = rng.choice([-1, 1]) * x + rng.choice([0, 0.05, 0.3]) * rng.standard_normal(x.size)
    x = np.clip(x, *np.nanquantile(x, [rng.uniform(0, 0.02), rng.uniform(0.98, 1)]))[rng.integers(400) :]
    points, failure = delineate(x, FS)
    if failure:
        return
    table = pd.DataFrame(points)
    assert table["r_peak"].is_monotonic_increasing
    assert table["r_peak"].notna().all()
    assert not (np.diff(table.to_numpy(), axis=1) < 0).any()
    in_lead = pd.Series(table.to_numpy().ravel()).dropna()
    assert in_lead.between(0, x.size - 1).all()


def points(**changed: float) -> dict[str, np.ndarray]:
    """Two beats in samples at 500 Hz; the changes are made to the second."""
    beat = dict(zip(FIDUCIAL_COLUMNS, (100.0, 120.0, 145.0, 180.0, 200.0, 225.0, 290.0, 340.0, 390.0), strict=True))
    return {column: np.array([place, changed.get(column, place + 400)]) for column, place in beat.items()}


@pytest.mark.parametrize(
    ("changed", "dropped"),
    [
        ({}, set()),
        ({"p_onset": 520.0}, {"p_onset"}),
        ({"p_offset": 515.0}, {"p_offset"}),
        ({"p_offset": 590.0}, {"p_offset"}),
        ({"p_peak": 585.0}, {"p_onset", "p_peak", "p_offset"}),
        ({"p_peak": 330.0}, {"p_onset", "p_peak", "p_offset"}),
        ({"qrs_onset": 600.0}, {"qrs_onset"}),
        ({"qrs_onset": 190.0}, {"qrs_onset"}),
        ({"qrs_offset": 599.0}, {"qrs_offset"}),
        ({"t_onset": 610.0}, {"t_onset"}),
        ({"t_offset": 735.0}, {"t_offset"}),
        ({"t_peak": 620.0}, {"t_onset", "t_peak", "t_offset"}),
    ],
)
def test_impossible_points_become_nan(changed: dict[str, float], dropped: set[str]) -> None:
    table = points(**changed)
    _drop_impossible(table)
    assert {column for column, places in table.items() if np.isnan(places[1])} == dropped
    assert all(np.isfinite(places[0]) for places in table.values())


@pytest.mark.realdata
def test_nearly_every_real_lead_of_ecgid_is_delineated(realdata: Callable[[str], Cohort]) -> None:
    cohort = realdata("ecgid")
    hidden_by_noise_or_hum = ["Person_14/rec_2", "Person_14/rec_3", "Person_89/rec_1"]
    records = [*cohort.records()["record_id"][::30], *hidden_by_noise_or_hum]
    signals = {record_id: cohort.signal(record_id) for record_id in records}
    assert [name for name, signal in signals.items() if delineate(signal.values[0], signal.fs)[1]] == []


def with_gaps(**gaps: list[int]) -> dict[str, np.ndarray]:
    """Fiducial points of ten beats of 80 and 100 samples in turn, T scaled by the cube root of the RR before; gaps."""
    rr = np.tile([80.0, 100.0], 5)
    r_peak = 50 + np.cumsum(rr)
    rate = np.cbrt(rr / np.median(np.diff(r_peak)))
    offsets = {"p_onset": -20, "p_peak": -16, "p_offset": -12, "qrs_onset": -5, "qrs_offset": 6}
    points = {name: r_peak + offset for name, offset in offsets.items()} | {"r_peak": r_peak}
    points |= {name: r_peak + offset * rate for name, offset in (("t_onset", 14), ("t_peak", 24), ("t_offset", 34))}
    for name, beats in gaps.items():
        points[name] = points[name].copy()
        points[name][beats] = np.nan
    return {name: points[name] for name in FIDUCIAL_COLUMNS}


def test_gaps_are_filled_from_the_median_beat_and_told() -> None:
    whole, gaps = with_gaps(), with_gaps(qrs_offset=[0, 3], t_offset=[4, 5], p_onset=[7])
    filled, transferred = transfer_boundaries(gaps)
    for name, places in whole.items():
        # the first beat has no RR before it
        np.testing.assert_allclose(filled[name][1:], places[1:], atol=0.3)
        np.testing.assert_array_equal(transferred[name], np.isnan(gaps[name]))
    known = np.isfinite(gaps["qrs_offset"])
    np.testing.assert_array_equal(filled["qrs_offset"][known], gaps["qrs_offset"][known])


def test_what_is_hardly_ever_known_or_contradicts_its_beat_is_not_transferred() -> None:
    rare = with_gaps(p_onset=[0, 1, 2, 3, 5, 6, 7, 8])
    filled, transferred = transfer_boundaries(rare)
    assert np.isnan(filled["p_onset"]).sum() == 8
    assert not transferred["p_onset"].any()
    odd = with_gaps(t_offset=[4])
    odd["t_peak"][4] = odd["r_peak"][4] + 40  # later than the offset of the median beat
    odd["t_onset"][4] = odd["r_peak"][4] + 36
    filled, transferred = transfer_boundaries(odd)
    assert np.isnan(filled["t_offset"][4])
    assert not transferred["t_offset"][4]
    assert filled["t_peak"][4] == odd["t_peak"][4]
    nothing = {name: np.full(2, np.nan) for name in FIDUCIAL_COLUMNS} | {"r_peak": np.array([50.0, 130.0])}
    assert not any(flags.any() for flags in transfer_boundaries(nothing)[1].values())
