"""Waves and regions lie where hand-made fiducial points put them; a window without them says why."""

import numpy as np
import pandas as pd
import pytest

from ecgstudy.attribution import waves
from ecgstudy.signals.delineation import FIDUCIAL_COLUMNS

BEAT = (10.0, 14.0, 18.0, 22.0, 26.0, 30.0, 40.0, 50.0, 60.0)
"""Fiducial points of the first of three beats, 80 samples apart."""
LENGTHS = {"P": 8, "PR": 4, "QRS": 8, "ST": 10, "T": 20, "TP": 30}


def beats(n: int = 3, **changed: float) -> pd.DataFrame:
    """Regular beats; `changed` columns of the second one."""
    table = pd.DataFrame([np.array(BEAT) + 80 * k for k in range(n)], columns=list(FIDUCIAL_COLUMNS))
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
        (("p_onset", "p_offset"), waves.Undelineated.NO_P),
        (("t_onset",), waves.Undelineated.NO_T),
        (("qrs_offset", "qrs_onset"), waves.Undelineated.NO_QRS),
    ],
)
def test_a_window_without_a_wave_does_not_count_and_says_which(
    columns: tuple[str, ...], reason: waves.Undelineated
) -> None:
    table = beats()
    table[list(columns)] = np.nan
    codes, found = waves.wave_codes(table, 240)
    assert found == reason
    known = codes[26:186] != waves.UNKNOWN_WAVE
    assert known.mean() < waves.LEAST_KNOWN


def test_one_missing_boundary_in_a_long_window_is_borne() -> None:
    table = beats(6, p_offset=np.nan)
    codes, reason = waves.wave_codes(table, 480)
    assert reason is None
    assert (codes[90:102] == waves.UNKNOWN_WAVE).all()
    assert (codes[26:426] == waves.UNKNOWN_WAVE).sum() == 12


def test_windows_without_beats_say_so() -> None:
    assert waves.wave_codes(beats(0), 100)[1] == waves.Undelineated.NO_BEATS
    assert waves.wave_codes(beats(), 100)[1] == waves.Undelineated.ONE_BEAT


def test_regions_lie_where_they_are_defined_and_overlap() -> None:
    spans = {
        name: np.flatnonzero(mask)[[0, -1]].tolist()
        for name, mask in zip(waves.REGIONS, waves.region_masks(beats(1), 100), strict=True)
    }
    assert spans == {
        "R wave": [24, 27],
        "QRS complex": [22, 29],
        "P-R interval": [10, 25],
        "P-Q interval": [10, 21],
        "S-T interval": [30, 59],
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


def test_codings_are_compared_where_both_know_the_sample() -> None:
    one, other = np.array([[0, 1, -1, 3]], dtype=np.int8), np.array([[0, -1, 2, 4]], dtype=np.int8)
    first, second = waves.on_common_samples(one, other)
    np.testing.assert_array_equal(first, [[0, -1, -1, 3]])
    np.testing.assert_array_equal(second, [[0, -1, -1, 4]])
