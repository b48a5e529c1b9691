"""Waves and intervals are exchanged one by one, for known averages, and everything else stays where it was."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ecgstudy.attribution.exchange import (
    DONOR,
    EVERYBODY,
    FACTORS,
    INTERVALS,
    OWN_TIMING,
    Average,
    Windows,
    exchanged,
    intervals_of,
    mean_average,
    person_averages,
    prolonged,
)
from ecgstudy.attribution.waves import GRID, WAVES, Points, fiducial_points
from ecgstudy.errors import StudyError
from ecgstudy.signals.delineation import FIDUCIAL_COLUMNS

FS = 500.0
WIDTHS = {"p": 40.0, "qrs": 44.0, "t": 90.0}
MIDDLE = {"p": "p_peak", "qrs": "r_peak", "t": "t_peak"}
NOTHING = np.full((1, len(WAVES), GRID.size), np.nan)
"""No wave to put in."""


def heart(
    heights: tuple[float, float, float], pr: float = 80, qt: float = 190, rr: float = 400, n_samples: int = 2150
) -> tuple[np.ndarray, pd.DataFrame]:
    """Give regular beats, (1, n), of P, QRS and T waves of some heights and intervals in samples, and their points."""
    onsets = np.arange(150, n_samples - 300, rr)
    starts = {"p": onsets - pr, "qrs": onsets, "t": onsets + qt - WIDTHS["t"]}
    values, columns = np.zeros(n_samples), {}
    for (wave, start), height in zip(starts.items(), heights, strict=True):
        width = WIDTHS[wave]
        for one in start:
            place = np.clip((np.arange(n_samples) - one) / width, 0, 1)
            values += height * np.sin(np.pi * place) ** 2
        columns |= {f"{wave}_onset": start, MIDDLE[wave]: start + width / 2, f"{wave}_offset": start + width}
    return values[None], pd.DataFrame(columns)[list(FIDUCIAL_COLUMNS)].astype(float)


def change(**samples: float) -> np.ndarray:
    """Change of each interval, 0 unless given as PR, QRS, QT or RR."""
    return np.array([samples.get(name.split()[0], 0.0) for name in INTERVALS])


def moved(values: np.ndarray, points: Points, **samples: float) -> np.ndarray:
    """Change the intervals of a recording."""
    return exchanged(values, points, FS, NOTHING, change(**samples))[0]


def test_intervals_are_those_of_the_beats() -> None:
    _, points = heart((1, 5, 2), pr=80, qt=190, rr=400)
    np.testing.assert_allclose(intervals_of(fiducial_points(points)), [80, 44, 190, 400])
    points.loc[1:, "p_onset"] = np.nan
    np.testing.assert_allclose(intervals_of(fiducial_points(points)), [80, 44, 190, 400])
    points["p_onset"] = np.nan
    assert np.isnan(intervals_of(fiducial_points(points))).tolist() == [True, False, False, False]


@pytest.mark.parametrize(("name", "kept"), [("pr", 60.0), ("rr", 360.0), ("pr", 95.0), ("rr", 430.0)])
def test_a_warp_makes_the_recording_that_has_the_other_interval(name: str, kept: float) -> None:
    values, table = heart((1, 5, 2))
    expected, goal = heart((1, 5, 2), **{name: kept})
    points = fiducial_points(table)
    middle = len(table) // 2  # of the beat that stays in place
    found = moved(values, points, **{name.upper(): kept - {"pr": 80, "rr": 400}[name]})
    shift = round(points["qrs_onset"][middle] - goal["qrs_onset"][middle])
    inside = np.arange(600, 1700)
    np.testing.assert_allclose(found[0, inside], expected[0, inside - shift], atol=0.02)


def test_qt_stretches_what_follows_qrs_and_qrs_leaves_qt_as_it_is() -> None:
    values, table = heart((1, 5, 2))
    points = fiducial_points(table)
    longer = moved(values, points, QT=40)
    at = 550 + np.arange(200)
    # from QRS offset (44) to T offset (190) 146 samples become 186
    places = np.where(at - 550 < 44, at, 550 + 44 + (at - 594) * 146 / 186)
    np.testing.assert_allclose(longer[0, at], np.interp(places, np.arange(values.size), values[0]), atol=0.02)
    wider = moved(values, points, QRS=20)
    half = np.flatnonzero(wider[0, 550:650] > 2.5)
    assert np.ptp(half) + 1 == pytest.approx(32, abs=1.5)  # 22 of 44 samples, of 64 now
    assert np.argmax(wider[0, 640:750]) == pytest.approx(np.argmax(values[0, 640:750]), abs=8)
    np.testing.assert_allclose(wider[0, 740:800], values[0, 740:800], atol=0.02)


def test_without_a_change_a_recording_stays_and_where_there_is_no_room_time_never_runs_backwards() -> None:
    values, table = heart((1, 5, 2))
    np.testing.assert_allclose(moved(values, fiducial_points(table)), values, atol=1e-6)
    pressed = moved(values, fiducial_points(table), PR=-200)
    assert np.isfinite(pressed).all()
    assert pressed.max() == pytest.approx(5, abs=0.1)
    assert np.isfinite(moved(values, fiducial_points(table[:0]), PR=20)).all()


def test_averages_are_of_persons_who_weigh_the_same() -> None:
    recordings = [("a", *heart((1, 5, 2))), ("a", *heart((3, 5, 2), pr=90)), ("b", *heart((4, 5, 2), pr=60))]
    averages, known = person_averages([(who, values, fiducial_points(points)) for who, values, points in recordings])
    p = WAVES.index("P")
    assert averages["a"].waves[0, p].max() == pytest.approx(2, abs=0.01)
    np.testing.assert_allclose(averages["a"].intervals, [85, 44, 190, 400])
    assert known[p] == sum(len(points) for _, _, points in recordings)
    everybody = mean_average(averages.values())
    assert everybody.waves[0, p].max() == pytest.approx(3, abs=0.01)
    np.testing.assert_allclose(everybody.intervals, [72.5, 44, 190, 400])
    lacking = mean_average([averages["b"], Average(np.full_like(averages["b"].waves, np.nan), np.full(4, np.nan))])
    np.testing.assert_allclose(lacking.intervals, averages["b"].intervals)


@pytest.fixture(scope="module")
def windows() -> Windows:
    """Two windows each of three persons who differ in P, or in PR, or in neither."""
    hearts = [heart((1, 5, 2)), heart((3, 5, 2)), heart((1, 5, 2), pr=110)]
    around = np.repeat(np.stack([values for values, _ in hearts]), 2, axis=0).astype(np.float32)
    tables = np.fromiter((points - 300 for _, points in hearts for _ in range(2)), dtype=object)
    owners = np.repeat([0, 1, 2], 2)
    persons = np.array(["a", "b", "c"])[owners]
    return Windows(around, owners, FS, 0, more=300, persons=persons, fiducials=tables)


def one(*names: str) -> np.ndarray:
    """Exchange some factors wholly."""
    return np.isin(FACTORS, names).astype(float)


def test_nothing_exchanged_is_the_persons_own_average_beat(windows: Windows) -> None:
    for name in (OWN_TIMING, EVERYBODY, DONOR):
        np.testing.assert_allclose(windows.exchanges[name].at(one())[0], windows.samples, atol=0.05)


def test_the_baseline_at_own_timing_keeps_intervals_and_the_others_do_not(windows: Windows) -> None:
    assert [FACTORS[at] for at in windows.exchanges[OWN_TIMING].factors] == list(WAVES)
    assert [FACTORS[at] for at in windows.exchanges[EVERYBODY].factors] == list(FACTORS)
    timed, kept = (windows.exchanges[name].at(np.ones(len(FACTORS)))[0] for name in (EVERYBODY, OWN_TIMING))
    # everybody's beat is the same for all three persons, and that at their own timing is not
    assert np.abs(timed[0] - timed[4]).max() < 0.1 < 0.5 < np.abs(kept[0] - kept[4]).max()
    assert np.abs(timed[0] - timed[2]).max() < 0.1


def test_each_factor_changes_what_it_names_alone(windows: Windows) -> None:
    exchange = windows.exchanges[EVERYBODY]
    own = exchange.at(one())[0]
    high = exchange.at(one("P"))[0]
    table = windows.fiducials[0]
    p_onset, p_offset, qrs_onset = (round(table[name].iloc[1]) for name in ("p_onset", "p_offset", "qrs_onset"))
    assert high[0, 0, p_onset:p_offset].max() == pytest.approx(5 / 3, abs=0.05)  # persons' heights are 1, 3 and 1
    changed = np.abs(high[0, 0] - own[0, 0])
    assert changed[p_offset + 5 : p_onset + 390].max() < 0.05
    later = exchange.at(one("PR interval"))[0]
    # a's PR of 80 becomes 90: P comes 10 samples earlier, QRS stays
    assert np.argmax(later[0, 0, p_onset - 40 : qrs_onset]) == np.argmax(own[0, 0, p_onset - 40 : qrs_onset]) - 10
    assert np.abs(later - own)[0, 0, qrs_onset : qrs_onset + 190].max() < 0.05


def test_a_donor_is_somebody_else_of_another_class(windows: Windows) -> None:
    full = windows.exchanges[DONOR].at(np.ones(len(FACTORS)))[0]
    for row, owner in enumerate(windows.targets):
        others = [other for other in range(3) if other != owner]
        nearest = [np.abs(full[row] - windows.samples[2 * other]).mean() for other in range(3)]
        assert int(np.argmin(nearest)) in others


def test_half_an_exchange_lies_between(windows: Windows) -> None:
    exchange = windows.exchanges[EVERYBODY]
    none, half, whole = (exchange.at(share * one("P", "T"))[0] for share in (0.0, 0.5, 1.0))
    np.testing.assert_allclose(half, (none + whole) / 2, atol=1e-4)


def test_what_cannot_be_exchanged_is_refused(windows: Windows) -> None:
    with pytest.raises(StudyError, match="delineate the windows first"):
        _ = replace(windows, fiducials=None).exchanges
    with pytest.raises(StudyError, match="two classes"):
        _ = replace(windows, targets=np.zeros(6, dtype=int)).exchanges
    with pytest.raises(ValueError, match="targets of shape"):
        replace(windows, targets=np.zeros(2, dtype=int))
    with pytest.raises(ValueError, match="codes of shape"):
        replace(windows, codes=np.zeros((6, 2150), dtype=np.int8))
    with pytest.raises(StudyError, match="not numbers"):
        replace(windows, around=windows.around * np.nan)


def test_a_record_is_prolonged_by_its_own_beats() -> None:
    values, table = heart((1, 5, 2))
    longer, beats = prolonged(values, table, 700)
    np.testing.assert_array_equal(longer[:, 700:-700], values)
    np.testing.assert_allclose(np.diff(beats["r_peak"]), 400)
    for peak in beats["r_peak"]:
        if 30 < peak < longer.shape[1] - 30:
            assert longer[0, round(peak)] == pytest.approx(5, abs=0.05)
    ends, same = prolonged(values, table[:1], 10)
    np.testing.assert_array_equal(ends[0, :10], values[0, 0])
    np.testing.assert_allclose(same["r_peak"], table["r_peak"][:1] + 10)
