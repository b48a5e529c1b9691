"""Waves lie where hand-made fiducial points put them, and averages are put in their place without steps."""

import numpy as np
import pandas as pd
import pytest

from ecgstudy.attribution import waves
from ecgstudy.attribution.exchange import person_averages
from ecgstudy.signals.delineation import FIDUCIAL_COLUMNS

FS = 100.0
BEAT = (10.0, 14.0, 18.0, 22.0, 26.5, 30.0, 40.0, 52.0, 60.0)
"""Fiducial points of the first beat."""
PERIOD = 80
T = waves.WAVES.index("T")
LENGTHS = {"P": 8, "PR": 4, "QRS": 8, "ST": 10, "T": 20, "TP": 30}


def beats(n: int = 3, **changed: float) -> pd.DataFrame:
    """Regular beats; `changed` columns of the second one."""
    table = pd.DataFrame([np.array(BEAT) + PERIOD * k for k in range(n)], columns=list(FIDUCIAL_COLUMNS))
    for column, value in changed.items():
        table.loc[1, column] = value
    return table


def test_every_sample_gets_the_wave_between_its_boundaries() -> None:
    codes, reason = waves.wave_codes(beats(), 240)
    one_beat = np.repeat([waves.WAVES.index(wave) for wave in LENGTHS], list(LENGTHS.values()))
    unknown = [waves.UNKNOWN_WAVE]
    np.testing.assert_array_equal(codes, [*unknown * 10, *one_beat, *one_beat, *one_beat[:50], *unknown * 20])
    assert codes.dtype == np.int8
    assert reason is None


def test_beats_around_a_window_code_its_edges() -> None:
    codes, reason = waves.wave_codes(beats(4) - 85.0, 160)
    assert reason is None
    assert (codes != waves.UNKNOWN_WAVE).all()
    assert waves.WAVES[codes[0]] == "TP"


def test_a_boundary_between_samples_belongs_to_what_follows() -> None:
    codes, _ = waves.wave_codes(beats(qrs_onset=101.5), 240)
    assert [waves.WAVES[code] for code in codes[[101, 102]]] == ["PR", "QRS"]


def test_where_p_begins_before_t_has_ended_t_is_cut() -> None:
    codes, reason = waves.wave_codes(beats(p_onset=55.0), 240)
    assert reason is None
    assert [waves.WAVES[code] for code in codes[[54, 55, 60]]] == ["T", "P", "P"]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        (("p_onset", "p_offset"), "P wave not found"),
        (("t_onset",), "T wave not found"),
        (("qrs_offset", "qrs_onset"), "QRS complex not found"),
    ],
)
def test_a_window_without_a_wave_does_not_count_and_says_which(columns: tuple[str, ...], reason: str) -> None:
    table = beats()
    table[list(columns)] = np.nan
    codes, found = waves.wave_codes(table, 240)
    assert found == reason
    known = codes[27:187] != waves.UNKNOWN_WAVE
    assert known.mean() < waves.LEAST_KNOWN


def test_one_missing_boundary_in_a_long_window_is_borne() -> None:
    table = beats(6, p_offset=np.nan)
    codes, reason = waves.wave_codes(table, 480)
    assert reason is None
    assert (codes[90:102] == waves.UNKNOWN_WAVE).all()
    assert (codes[27:427] == waves.UNKNOWN_WAVE).sum() == 12


def test_windows_without_beats_say_so() -> None:
    assert waves.wave_codes(beats(0), 100)[1] == "no beats"
    assert waves.wave_codes(beats(), 100)[1] == "fewer than two beats"


def test_regions_lie_where_they_are_defined_and_overlap() -> None:
    spans = {name: np.flatnonzero(waves.region_mask(beats(1), name, 100))[[0, -1]].tolist() for name in waves.REGIONS}
    assert spans == {
        "R wave": [25, 28],
        "P-R to the R peak": [10, 26],
        "P-R to QRS onset": [10, 21],
    }


def test_reference_boundaries_become_beats_at_the_rate_of_the_window() -> None:
    rows = [
        ("T", 5.0, 10.0, 20.0),
        ("P", 50.0, 70.0, 90.0),
        ("QRS", 110.0, 130.0, np.nan),
        ("T", 200.0, 250.0, 300.0),
        ("QRS", 510.0, 530.0, 550.0),
        ("P", 890.0, 895.0, 899.0),
    ]
    table = waves.fiducials_of_boundaries(pd.DataFrame(rows, columns=["wave", "onset", "peak", "offset"]), 0.2, 4.0)
    expected = np.array(
        [
            [6, 10, 14, 18, 22, np.nan, 36, 46, 56],
            [np.nan, np.nan, np.nan, 98, 102, 106, np.nan, np.nan, np.nan],
        ]
    )
    np.testing.assert_allclose(table.to_numpy(), expected)
    assert list(table) == list(FIDUCIAL_COLUMNS)


def found_spans(table: pd.DataFrame, n_samples: int) -> waves.Spans:
    """Find the waves of a table of beats."""
    return waves.wave_spans(waves.fiducial_points(table), n_samples)


def splice(
    values: np.ndarray, spans: waves.Spans, average: np.ndarray, replaced: tuple[str, ...], fs: float
) -> np.ndarray:
    """Put some average waves of one lead into a recording."""
    chosen = np.where(np.isin(waves.WAVES, replaced)[:, None], average, np.nan)
    return waves.splice(values[None], spans, chosen[None], fs)[0][0]


@pytest.fixture
def values() -> np.ndarray:
    """Give six smooth regular beats: each repeats the one before it."""
    phase = 2 * np.pi * np.arange(6 * PERIOD + 20) / PERIOD
    return (np.sin(phase) + 0.5 * np.cos(3 * phase) + 0.2 * np.sin(7 * phase)).astype(np.float32)


@pytest.fixture
def spans(values: np.ndarray) -> waves.Spans:
    """Give their waves."""
    return found_spans(beats(6), values.size)


@pytest.fixture
def other() -> np.ndarray:
    """Give average waves that are nothing like the recording's, of different levels."""
    rng = np.random.default_rng(0)
    return 3 + np.cumsum(rng.normal(size=(len(waves.WAVES), waves.GRID.size)), axis=1)


def test_waves_are_found_with_their_peaks_and_places_in_time(spans: waves.Spans) -> None:
    assert [waves.WAVES[wave] for wave in spans.wave[:7]] == [*waves.WAVES, "P"]
    assert len(spans.wave) == 6 * 6 - 1  # the last T-P rest has no end
    np.testing.assert_allclose(waves.grid_times(spans)[2, [0, 16, 32, 48, 64]], [22, 24.25, 26.5, 28.25, 30])
    np.testing.assert_allclose(waves.grid_times(spans)[1, [0, 32, 64]], [18, 20, 22])


def test_waves_cut_by_an_end_or_by_the_next_beat_are_left_alone() -> None:
    crossing = beats(2)
    crossing.loc[1, "p_onset"] = 57.0
    found = found_spans(crossing - 12, 105)
    # P of the first beat is cut by the start, P of the second begins inside T, S-T of the second is cut by the end
    assert [waves.WAVES[wave] for wave in found.wave] == ["PR", "QRS", "ST", "T", "PR", "QRS"]


@pytest.mark.parametrize("replaced", [("T",), ("QRS",), ("P", "PR"), ("P", "PR", "QRS", "ST", "TP"), waves.WAVES])
def test_a_recording_keeps_its_shape_under_its_own_average(
    values: np.ndarray, spans: waves.Spans, replaced: tuple[str, ...]
) -> None:
    averages, counts = person_averages([("a", values[None], waves.fiducial_points(beats(6)))])
    assert counts.tolist() == [6, 6, 6, 6, 6, 5]
    np.testing.assert_allclose(splice(values, spans, averages["a"].waves[0], replaced, FS), values, atol=4e-3)


def test_only_the_replaced_wave_changes(values: np.ndarray, spans: waves.Spans, other: np.ndarray) -> None:
    changed = np.flatnonzero(splice(values, spans, other, ("T",), FS) != values)
    expected = np.concatenate([np.arange(41, 60) + PERIOD * k for k in range(6)])
    np.testing.assert_array_equal(changed, expected)


def test_the_shape_that_is_put_in_is_the_average_between_its_ends(spans: waves.Spans) -> None:
    triangle = np.zeros((len(waves.WAVES), waves.GRID.size))
    triangle[T] = 1 - np.abs(2 * waves.GRID - 1) + 7  # 7 higher than the recording
    ramp = np.arange(500) * 0.01
    found = splice(ramp.astype(np.float32), spans, triangle, ("T",), FS) - ramp
    # onset 40, peak 52, offset 60; the recording's level goes from 0.40 to 0.60 by halves
    assert found[52] == pytest.approx(1 + 0.5 - 0.52, abs=1e-6)
    assert found[46] == pytest.approx(0.5 + 0.45 - 0.46, abs=1e-6)
    # one sample after the onset the recording and the average count half each: 20 ms are two samples
    assert found[41] == pytest.approx((1 / 12 + 0.4 + 0.2 / 24 - 0.41) / 2, abs=1e-6)


def test_the_level_and_slope_of_an_average_wave_do_not_matter(
    values: np.ndarray, spans: waves.Spans, other: np.ndarray
) -> None:
    tilted = other + 5 * waves.GRID - 2
    one, two = (splice(values, spans, average, ("QRS",), FS) for average in (other, tilted))
    np.testing.assert_allclose(one, two, atol=1e-5)


def test_the_common_level_of_all_average_waves_does_not_matter(
    values: np.ndarray, spans: waves.Spans, other: np.ndarray
) -> None:
    rest = tuple(wave for wave in waves.WAVES if wave != "T")
    one, two = (splice(values, spans, average, rest, FS) for average in (other, other + 9))
    np.testing.assert_allclose(one, two, atol=1e-5)


@pytest.mark.parametrize("replaced", [("T",), ("P", "PR", "QRS", "ST", "TP"), waves.WAVES])
def test_joints_are_continuous(replaced: tuple[str, ...]) -> None:
    # at 10 kHz a step would stand out from slopes
    fine = beats(4) * 100
    n = 4 * PERIOD * 100
    line = np.linspace(0, 5, n).astype(np.float32)
    levels = np.zeros((len(waves.WAVES), waves.GRID.size)) + np.arange(len(waves.WAVES))[:, None] * 0.3
    levels[T] = np.sin(np.pi * waves.GRID)
    found = splice(line, found_spans(fine, n), levels, replaced, 100 * FS)
    assert np.ptp(found - line) > 0.2
    assert np.abs(np.diff(found)).max() < 0.01


def test_average_waves_of_different_levels_meet_halfway() -> None:
    flat = np.zeros((len(waves.WAVES), waves.GRID.size))
    flat[waves.WAVES.index("TP")] = 1.0
    found = splice(np.zeros(180, dtype=np.float32), found_spans(beats(2), 180), flat, ("T", "TP"), FS)
    # T from 40 to 60 and T-P to 90: halfway is 1/2, less 2/5 of the shift by which the block comes back to 0
    assert found[60] == pytest.approx(0.1, abs=1e-6)


def test_a_wave_without_an_average_stays(values: np.ndarray, spans: waves.Spans, other: np.ndarray) -> None:
    other[T] = np.nan
    np.testing.assert_array_equal(splice(values, spans, other, ("T",), FS), values)
    assert np.isfinite(splice(values, spans, other, waves.WAVES, FS)).all()


def test_a_recording_without_beats_stays(values: np.ndarray, other: np.ndarray) -> None:
    nothing = found_spans(beats(0), values.size)
    np.testing.assert_array_equal(splice(values, nothing, other, waves.WAVES, FS), values)
    averages, counts = person_averages([("a", values[None], waves.fiducial_points(beats(0)))])
    assert np.isnan(averages["a"].waves).all()
    assert np.isnan(averages["a"].intervals).all()
    assert not counts.any()


def test_leads_are_spliced_each_with_its_own_average_at_the_same_places(
    values: np.ndarray, spans: waves.Spans, other: np.ndarray
) -> None:
    both, codes = waves.splice(np.stack([values, 2 * values]), spans, np.stack([other, 5 - other]), FS)
    for lead, (own, average) in enumerate(((values, other), (2 * values, 5 - other))):
        np.testing.assert_allclose(both[lead], splice(own, spans, average, waves.WAVES, FS), atol=1e-5)
    expected, _ = waves.wave_codes(beats(6), values.size)
    inside = codes != waves.UNKNOWN_WAVE
    np.testing.assert_array_equal(codes[inside], expected[inside])
    other[T] = np.nan  # known in one lead only
    _, codes = waves.splice(np.stack([values, values]), spans, np.stack([np.nan_to_num(other), other]), FS)
    assert T not in codes
