"""Filter, resampler and gaps: closed forms on sines, and what happens to missing samples."""

import numpy as np
import pytest

from ecgstudy.data.base import Signal
from ecgstudy.errors import StudyError
from ecgstudy.signals.preprocess import bandpass, fill_gaps, preprocess, resample, runs

FS = 500.0


def sine(frequency: float, seconds: float, fs: float = FS) -> np.ndarray:
    return np.sin(2 * np.pi * frequency * np.arange(round(seconds * fs)) / fs)


def analogue_gain(frequency: float) -> float:
    """Two passes of Butterworth filters: |H|^2 of the high-pass (order 2) times that of the low-pass (order 4).

    At 500 Hz the bilinear transform bends the axis by at most 2 % below 60 Hz; it is undone here.
    """

    def warp(f: float) -> float:
        return float(np.tan(np.pi * f / FS))

    return 1 / (1 + (warp(0.5) / warp(frequency)) ** 4) / (1 + (warp(frequency) / warp(40.0)) ** 8)


@pytest.mark.parametrize("frequency", [0.1, 0.5, 1.0, 10.0, 30.0, 40.0, 60.0])
def test_bandpass_gain_and_phase_follow_the_butterworth_formula(frequency: float) -> None:
    tone = sine(frequency, 120.0)
    middle = slice(int(40 * FS), int(80 * FS))
    filtered = bandpass(tone, FS)[middle]
    quadrature = np.cos(2 * np.pi * frequency * np.arange(tone.size) / FS)[middle]
    in_phase = 2 * np.mean(filtered * tone[middle])
    out_of_phase = 2 * np.mean(filtered * quadrature)
    assert in_phase == pytest.approx(analogue_gain(frequency), abs=2e-5)
    assert out_of_phase == pytest.approx(0.0, abs=2e-5)


def test_bandpass_treats_each_lead_alone_and_keeps_the_shape() -> None:
    leads = np.random.default_rng(0).standard_normal((3, 2000)).astype(np.float32)
    together = bandpass(leads, FS)
    assert together.shape == leads.shape
    assert together.dtype == np.float32
    for row, lead in zip(together, leads, strict=True):
        np.testing.assert_allclose(row, bandpass(lead, FS), atol=1e-6)


@pytest.mark.parametrize("n_samples", [0, 1, 2, 30, 999])
def test_bandpass_removes_an_offset_from_records_of_any_length(n_samples: int) -> None:
    assert bandpass(np.full((2, n_samples), 7.5), FS) == pytest.approx(np.zeros((2, n_samples)), abs=1e-5)


def test_a_lead_that_begins_on_a_slope_leaves_no_ripple_at_its_ends() -> None:
    assert np.abs(bandpass(np.arange(5000) / FS, FS)).max() < 0.02


@pytest.mark.parametrize("fs", [80.0, 50.0, float("nan")])
def test_bandpass_refuses_rates_that_cannot_hold_the_band(fs: float) -> None:
    with pytest.raises(StudyError, match="80 Hz"):
        bandpass(np.zeros((1, 1000)), fs)


@pytest.mark.parametrize("fs", [500.0, 497.445, 360.0, 257.0])
@pytest.mark.parametrize("frequency", [1.0, 10.0, 30.0])
def test_resampled_sine_lies_on_the_same_clock(fs: float, frequency: float) -> None:
    resampled = resample(sine(frequency, 60.0, fs), fs, 100.0)
    expected = sine(frequency, resampled.size / 100.0, 100.0)
    inner = slice(100, -100)
    # The slope of a sine is at most 2 pi f, so an error in value bounds the error in time.
    shift_in_samples = np.abs(resampled - expected)[inner].max() / (2 * np.pi * frequency) * 100.0
    assert shift_in_samples < 0.02


@pytest.mark.parametrize(
    ("n_samples", "fs"), [(5000, 500.0), (29847, 497.445), (650000, 360.0), (1, 500.0), (0, 500.0)]
)
def test_resampled_length_is_the_rounded_duration(n_samples: int, fs: float) -> None:
    assert resample(np.zeros((2, n_samples)), fs, 100.0).shape == (2, round(n_samples * 100.0 / fs))


@pytest.mark.parametrize("frequency", [60.0, 75.0, 100.0, 130.0])
def test_resampling_rejects_aliases_by_more_than_40_decibels(frequency: float) -> None:
    assert np.abs(resample(sine(frequency, 20.0), FS, 100.0)[50:-50]).max() < 0.01


def test_resampling_does_not_ring_at_the_ends_of_a_sloping_lead() -> None:
    ramp = 3.0 + np.arange(5000) / 5000
    np.testing.assert_allclose(resample(ramp, FS, 100.0), ramp[::5], atol=1e-3)


def test_resampling_to_the_same_rate_changes_nothing() -> None:
    noise = np.random.default_rng(1).standard_normal((2, 777)).astype(np.float32)
    np.testing.assert_array_equal(resample(noise, 360.0, 360.0), noise)


@pytest.mark.parametrize("rate", [0.0, -100.0, float("nan"), float("inf")])
def test_resampling_refuses_impossible_rates(rate: float) -> None:
    with pytest.raises(StudyError, match="impossible"):
        resample(np.zeros((1, 100)), rate, 100.0)
    with pytest.raises(StudyError, match="impossible"):
        resample(np.zeros((1, 100)), 100.0, rate)


def test_gaps_are_filled_with_straight_lines_and_long_ones_are_lost() -> None:
    values = np.array([[0.0, np.nan, np.nan, 3.0], [np.nan, 2.0, np.inf, np.nan], [np.nan] * 4])
    filled, lost = fill_gaps(values, fs=50.0)
    np.testing.assert_allclose(filled, [[0, 1, 2, 3], [2, 2, 2, 2], [0, 0, 0, 0]])
    # 40 ms are two samples
    np.testing.assert_array_equal(lost, [[False] * 4, [False] * 4, [True] * 4])
    np.testing.assert_array_equal(fill_gaps(values, fs=49.0)[1], [[0, 1, 1, 0], [0, 0, 1, 1], [1, 1, 1, 1]])
    np.testing.assert_array_equal(fill_gaps(values, 50.0, bridged_s=0.0)[1], ~np.isfinite(values))


def test_runs_do_not_cross_rows() -> None:
    mask = np.array([[0, 1, 1, 0, 1], [1, 1, 0, 0, 0]], dtype=bool)
    assert [edges.tolist() for edges in runs(mask)] == [[0, 0, 1], [1, 4, 0], [3, 5, 2]]


def record(values: np.ndarray) -> Signal:
    return Signal(values.astype(np.float32), FS, ("I", "II"), "zscore")


def test_preprocess_bridges_short_gaps_and_marks_long_ones() -> None:
    clean = np.stack([sine(5.0, 10.0), sine(7.0, 10.0)])
    holed = clean.copy()
    holed[0, 2000:2020] = np.nan
    holed[1, 3000:3021] = np.nan
    expected, found = preprocess(record(clean), 100.0), preprocess(record(holed), 100.0)
    assert (found.fs, found.leads, found.unit, found.values.dtype) == (100.0, ("I", "II"), "zscore", np.float32)
    assert np.isfinite(found.values[0]).all()
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(found.values[1])), [600, 601, 602, 603, 604])
    far = np.r_[0:350, 700:1000]
    np.testing.assert_allclose(found.values[:, far], expected.values[:, far], atol=0.02)


def test_a_long_gap_is_marked_at_the_nearest_samples_of_the_new_rate() -> None:
    values = np.tile(sine(5.0, 10.0, 360.0), (2, 1)).astype(np.float32)
    values[0, 1430:1455] = np.nan
    found = preprocess(Signal(values, 360.0, ("I", "II"), "mV"), 100.0).values
    # sample 398 stands for raw sample 1432.8, 404 for 1454.4
    assert np.flatnonzero(np.isnan(found[0])).tolist() == list(range(398, 405))


def test_preprocess_filters_before_it_resamples() -> None:
    hum = record(np.stack([sine(60.0, 10.0), sine(5.0, 10.0)]))
    found = preprocess(hum, 100.0).values[:, 400:600]
    assert np.abs(found[0]).max() < 3e-4
    assert np.abs(found[1]).max() == pytest.approx(analogue_gain(5.0), abs=3e-3)
