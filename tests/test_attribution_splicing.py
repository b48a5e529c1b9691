"""Average waves are put in without steps, and change nothing where they are what was there before."""

import numpy as np
import pandas as pd
import pytest

from ecgstudy.attribution import waves as cutting
from ecgstudy.signals.delineation import FIDUCIAL_COLUMNS

FS = 100.0
BEAT = (10.0, 14.0, 18.0, 22.0, 26.5, 30.0, 40.0, 52.0, 60.0)
PERIOD = 80
T = cutting.WAVES.index("T")


def beats(n: int) -> pd.DataFrame:
    """Fiducial points of regular beats."""
    return pd.DataFrame([np.array(BEAT) + PERIOD * k for k in range(n)], columns=list(FIDUCIAL_COLUMNS))


def recording(n: int) -> np.ndarray:
    """Smooth regular beats: each repeats the one before it."""
    phase = 2 * np.pi * np.arange(n * PERIOD + 20) / PERIOD
    return (np.sin(phase) + 0.5 * np.cos(3 * phase) + 0.2 * np.sin(7 * phase)).astype(np.float32)


@pytest.fixture
def values() -> np.ndarray:
    """Give six regular beats."""
    return recording(6)


@pytest.fixture
def spans(values: np.ndarray) -> cutting.Spans:
    """Give their waves."""
    return cutting.wave_spans(beats(6), values.size)


@pytest.fixture
def other() -> np.ndarray:
    """Give average waves that are nothing like the recording's, of different levels."""
    rng = np.random.default_rng(0)
    return 3 + np.cumsum(rng.normal(size=(len(cutting.WAVES), cutting.GRID.size)), axis=1)


def test_waves_are_found_with_their_peaks_and_places_in_time(spans: cutting.Spans) -> None:
    assert [cutting.WAVES[wave] for wave in spans.waves[:7]] == [*cutting.WAVES, "P"]
    assert len(spans.waves) == 6 * 6 - 1  # the last T-P rest has no end
    np.testing.assert_allclose(spans.times()[2, [0, 16, 32, 48, 64]], [22, 24.25, 26.5, 28.25, 30])
    np.testing.assert_allclose(spans.times()[1, [0, 32, 64]], [18, 20, 22])


def test_waves_cut_by_an_end_or_by_the_next_beat_are_left_alone() -> None:
    crossing = beats(2)
    crossing.loc[1, "p_onset"] = 57.0
    found = cutting.wave_spans(crossing - 12, 105)
    # P of the first beat is cut by the start, P of the second begins inside T, S-T of the second is cut by the end
    assert [cutting.WAVES[wave] for wave in found.waves] == ["PR", "QRS", "ST", "T", "PR", "QRS"]


@pytest.mark.parametrize("replaced", [("T",), ("QRS",), ("P", "PR"), ("P", "PR", "QRS", "ST", "TP"), cutting.WAVES])
def test_a_recording_keeps_its_shape_under_its_own_average(
    values: np.ndarray, spans: cutting.Spans, replaced: tuple[str, ...]
) -> None:
    sums, counts = cutting.average_waves(values, spans)
    assert counts[:, 0].tolist() == [6, 6, 6, 6, 6, 5]
    np.testing.assert_allclose(cutting.splice(values, spans, sums / counts, replaced, FS), values, atol=4e-3)


def test_only_the_replaced_wave_changes(values: np.ndarray, spans: cutting.Spans, other: np.ndarray) -> None:
    changed = np.flatnonzero(cutting.splice(values, spans, other, ("T",), FS) != values)
    expected = np.concatenate([np.arange(41, 60) + PERIOD * k for k in range(6)])
    np.testing.assert_array_equal(changed, expected)


def test_the_shape_that_is_put_in_is_the_average_between_its_ends(spans: cutting.Spans) -> None:
    triangle = np.zeros((len(cutting.WAVES), cutting.GRID.size))
    triangle[T] = 1 - np.abs(2 * cutting.GRID - 1) + 7  # 7 higher than the recording
    ramp = np.arange(500) * 0.01
    found = cutting.splice(ramp.astype(np.float32), spans, triangle, ("T",), FS) - ramp
    # onset 40, peak 52, offset 60; the recording's level goes from 0.40 to 0.60 by halves
    assert found[52] == pytest.approx(1 + 0.5 - 0.52, abs=1e-6)
    assert found[46] == pytest.approx(0.5 + 0.45 - 0.46, abs=1e-6)
    # one sample after the onset the recording and the average count half each: 20 ms are two samples
    assert found[41] == pytest.approx((1 / 12 + 0.4 + 0.2 / 24 - 0.41) / 2, abs=1e-6)


def test_the_level_and_slope_of_an_average_wave_do_not_matter(
    values: np.ndarray, spans: cutting.Spans, other: np.ndarray
) -> None:
    tilted = other + 5 * cutting.GRID - 2
    one, two = (cutting.splice(values, spans, average, ("QRS",), FS) for average in (other, tilted))
    np.testing.assert_allclose(one, two, atol=1e-5)


def test_the_common_level_of_all_average_waves_does_not_matter(
    values: np.ndarray, spans: cutting.Spans, other: np.ndarray
) -> None:
    rest = tuple(wave for wave in cutting.WAVES if wave != "T")
    one, two = (cutting.splice(values, spans, average, rest, FS) for average in (other, other + 9))
    np.testing.assert_allclose(one, two, atol=1e-5)


@pytest.mark.parametrize("replaced", [("T",), ("P", "PR", "QRS", "ST", "TP"), cutting.WAVES])
def test_joints_are_continuous(replaced: tuple[str, ...]) -> None:
    # at 10 kHz a step would stand out from slopes
    fine = beats(4) * 100
    n = 4 * PERIOD * 100
    line = np.linspace(0, 5, n).astype(np.float32)
    waves = np.zeros((len(cutting.WAVES), cutting.GRID.size)) + np.arange(len(cutting.WAVES))[:, None] * 0.3
    waves[T] = np.sin(np.pi * cutting.GRID)
    found = cutting.splice(line, cutting.wave_spans(fine, n), waves, replaced, 100 * FS)
    assert np.ptp(found - line) > 0.2
    assert np.abs(np.diff(found)).max() < 0.01


def test_average_waves_of_different_levels_meet_halfway() -> None:
    flat = np.zeros((len(cutting.WAVES), cutting.GRID.size))
    flat[cutting.WAVES.index("TP")] = 1.0
    found = cutting.splice(np.zeros(180, dtype=np.float32), cutting.wave_spans(beats(2), 180), flat, ("T", "TP"), FS)
    # T from 40 to 60 and T-P to 90: halfway is 1/2, less 2/5 of the shift by which the block comes back to 0
    assert found[60] == pytest.approx(0.1, abs=1e-6)


def test_a_wave_without_an_average_stays(values: np.ndarray, spans: cutting.Spans, other: np.ndarray) -> None:
    other[T] = np.nan
    np.testing.assert_array_equal(cutting.splice(values, spans, other, ("T",), FS), values)
    assert np.isfinite(cutting.splice(values, spans, other, cutting.WAVES, FS)).all()


def test_a_recording_without_beats_stays(values: np.ndarray, other: np.ndarray) -> None:
    nothing = cutting.wave_spans(beats(0), values.size)
    np.testing.assert_array_equal(cutting.splice(values, nothing, other, cutting.WAVES, FS), values)
    sums, counts = cutting.average_waves(values, nothing)
    assert not sums.any()
    assert not counts.any()


def test_infills_keep_the_time_and_change_the_person() -> None:
    points = np.array([[50, 60, 70, 90, 100, 110, 140, 160, 180]]) + 200 * np.arange(3)[:, None]
    fiducials = pd.DataFrame(points.astype(float), columns=list(FIDUCIAL_COLUMNS))
    time = np.arange(600)
    shape = np.zeros(600)
    for onset, offset, height in ((50, 70, 1.0), (90, 110, 5.0), (140, 180, 2.0)):
        for start in points[:, 0] - 50:
            place = (time - start - onset) / (offset - onset)
            shape += np.where((place > 0) & (place < 1), height * np.sin(np.pi * np.clip(place, 0, 1)) ** 2, 0)
    heights = np.array([1.0, 1.0, 1.0, 2.0, 3.0])
    persons = np.array(["a", "a", "a", "b", "c"])
    windows = (heights[:, None] * shape)[:, None].astype(np.float32)
    filled = cutting.infills(windows, [fiducials] * 5, persons, 500.0, 0)
    # persons weigh the same: heights 1, 2 and 3
    for infilled in filled[cutting.MEAN_BEAT]:
        # the first and the last whole wave fade into the window's own
        np.testing.assert_allclose(infilled[0, 70:540], 2 * shape[70:540], atol=0.05)
    given = filled[cutting.DONOR_BEAT][:, 0, 100] / shape[100]
    np.testing.assert_allclose(given, np.round(given), atol=0.02)
    assert (np.round(given) != heights).all()
    assert set(np.round(given)) <= {1, 2, 3}
