"""PQRST features on beats drawn by hand."""

import numpy as np
import pandas as pd
import pytest

from ecgstudy.signals.features import FEATURES, beat_features, window_features

FS = 200.0  # 5 ms a sample
BEAT = {"p_onset": 10, "p_peak": 16, "p_offset": 22, "qrs_onset": 30, "r_peak": 36, "qrs_offset": 44}
BEAT |= {"t_onset": 60, "t_peak": 74, "t_offset": 84}
HEIGHTS = {16: 0.15, 33: -0.1, 36: 1.2, 39: -0.3, 74: 0.35}


def beats_by_hand(n: int = 3, period: int = 100) -> tuple[np.ndarray, pd.DataFrame]:
    """Draw a lead of `n` equal beats and its fiducials."""
    values = np.zeros(n * period)
    for beat in range(n):
        for place, height in HEIGHTS.items():
            values[beat * period + place] = height
    rows = [{column: float(sample + beat * period) for column, sample in BEAT.items()} for beat in range(n)]
    return values, pd.DataFrame(rows)


def test_features_by_hand() -> None:
    first = beat_features(*_with_rate(beats_by_hand())).iloc[1]
    expected = {
        "P-Q interval": 85.0,
        "P-R interval": 100.0,
        "R-S interval": 15.0,
        "Q-T interval": 205.0,
        "S-T interval": 175.0,
        "S-R amplitude": -1.5,
        "T-R amplitude": -0.85,
        "Q-P amplitude": -0.25,
        "T-S amplitude": 0.65,
        "P duration": 60.0,
        "PR duration": 100.0,
        "QRS duration": 70.0,
        "QT duration": 270.0,
        "T duration": 120.0,
        "R-R interval": 500.0,
    }
    for name, value in expected.items():
        assert first[name] == pytest.approx(value), name


def _with_rate(drawn: tuple[np.ndarray, pd.DataFrame]) -> tuple[np.ndarray, float, pd.DataFrame]:
    """Put the rate between values and fiducials."""
    return drawn[0], FS, drawn[1]


def test_every_feature_has_a_unit() -> None:
    table = beat_features(*_with_rate(beats_by_hand()))
    assert list(table.columns) == list(FEATURES)
    assert len(FEATURES) == 10 + 10 + 5 + 1
    assert {unit for name, unit in FEATURES.items() if name.endswith("amplitude")} == {"signal"}
    assert {unit for name, unit in FEATURES.items() if not name.endswith("amplitude")} == {"ms"}


def test_rate_changes_no_interval() -> None:
    values, fiducials = beats_by_hand()
    doubled = beat_features(np.repeat(values, 2), 2 * FS, fiducials * 2)
    once = beat_features(values, FS, fiducials)
    intervals = [name for name, unit in FEATURES.items() if unit == "ms" and "Q-" not in name and "-S" not in name]
    intervals = [name for name in intervals if not {"Q", "S"} & set(name.split()[0].split("-"))]
    pd.testing.assert_frame_equal(doubled[intervals], once[intervals])


def test_missing_wave_is_undefined_and_harms_nothing_else() -> None:
    values, fiducials = beats_by_hand()
    whole = beat_features(values, FS, fiducials)
    fiducials.loc[1, ["p_onset", "p_peak", "p_offset"]] = np.nan
    table = beat_features(values, FS, fiducials)
    of_p = [name for name in FEATURES if "P" in name.split()[0]]
    assert table.loc[1, of_p].isna().all()
    others = [name for name in FEATURES if name not in of_p]
    pd.testing.assert_frame_equal(table[others], whole[others])


def test_first_beat_has_no_rr_interval() -> None:
    intervals = beat_features(*_with_rate(beats_by_hand()))["R-R interval"]
    assert intervals.isna().tolist() == [True, False, False]


def test_window_takes_the_median_of_its_beats() -> None:
    values, fiducials = beats_by_hand(n=5)
    beats = beat_features(values, FS, fiducials)
    beats["P duration"] = [10.0, 20.0, 60.0, np.nan, 90.0]
    peaks = fiducials["r_peak"].to_numpy()
    table = window_features(beats, peaks, starts=np.array([0, 236, 237, 450]), n_samples=300)
    # R peaks at 36, 136, 236, 336, 436: [0, 300) holds three, [236, 536) and [237, 537) the rest, [450, 750) none
    np.testing.assert_array_equal(table["P duration"], [20.0, 75.0, 90.0, np.nan])
    assert table.iloc[3].isna().all()
