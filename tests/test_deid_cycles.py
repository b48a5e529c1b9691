"""A recording is taken apart into cycle and rhythm, and put together again as it was."""

from pathlib import Path

import numpy as np
import pytest
from fake_cohort import FakeCohort
from hearts import hearts, recording

from ecgstudy.deidentification.cycles import POINTS, Recording, cycle_set, median_cycle, render, rhythm_features, shaped
from ecgstudy.signals.ingest import build_store

RHYTHMS = {
    "fast": np.full(40, 0.5),
    "slow": np.full(20, 1.2),
    "varying": np.random.default_rng(0).uniform(0.5, 1.2, 40),
}


@pytest.mark.parametrize("source", RHYTHMS)
@pytest.mark.parametrize("target", RHYTHMS)
def test_a_beat_taken_at_one_rate_is_right_at_another(source: str, target: str) -> None:
    cycle = median_cycle(recording(RHYTHMS[source]))
    true = recording(RHYTHMS[target])
    made = render(cycle, true.peaks, true.values.shape[1], true.fs)
    assert made.dtype == np.float32
    first, last = (int(peak * true.fs) for peak in (true.peaks[0], true.peaks[-1]))
    whole = slice(None) if target != "varying" else slice(first, last)
    np.testing.assert_allclose(made[:, whole], true.values[:, whole], atol=0.04)
    # a cycle that is merely stretched, QRS complex and all, is far off
    if {source, target} == {"fast", "slow"}:
        start, stop = (recording(RHYTHMS[source]).peaks[:2] * true.fs).astype(int)
        once = recording(RHYTHMS[source]).values[0, start:stop]
        plain = np.interp(np.linspace(0, 1, int(RHYTHMS[target][0] * true.fs)), np.linspace(0, 1, once.size), once)
        assert np.abs(plain - true.values[0, first:][: plain.size]).max() > 0.3


@pytest.mark.parametrize(
    "peaks", [[4.0], [0.0], [-3.0, -2.2], [12.0, 12.8], [3.0, 3.2, 3.4, 3.6], [0.6, 1.4, 6.0, 9.9]], ids=str
)
def test_the_rhythm_goes_on_before_the_first_peak_and_after_the_last(peaks: list[float]) -> None:
    cycle = np.stack([np.arange(POINTS, 0, -1), np.full(POINTS, 3.0)])
    made = render(cycle, np.array(peaks), 1000, 100.0)
    assert made.shape == (2, 1000)
    typical = np.median(np.diff(peaks)) if len(peaks) > 1 else 0.8
    before, after = peaks[0] - typical * np.arange(30, 0, -1), peaks[-1] + typical * np.arange(1, 60)
    expected = np.concatenate([before, peaks, after])
    expected = expected[(expected >= 0) & (expected < 9.995)]
    at = np.rint(100 * expected).astype(int)
    np.testing.assert_allclose(made[0, at], POINTS, atol=1e-3)
    # between two peaks the ramp falls, so there is no further one
    assert (np.diff(made[0]) > 30).sum() == (at > 0).sum()
    np.testing.assert_allclose(made[1], 3)


def test_a_cycle_is_the_median_of_whole_believable_ones_beside_flaws() -> None:
    levels = np.repeat([0.0, 10, 20, 30, 40, 50, 60], 100)[None]  # the cycle that starts at second s has level 10 s
    peaks = np.arange(1.0, 7)

    def level(peaks: np.ndarray, *flaws: tuple[int, int]) -> float | None:
        cycle = median_cycle(Recording(levels, 100.0, np.asarray(peaks)), flaws)
        return None if cycle is None else float(np.median(cycle))

    assert level(peaks) == 30
    assert level(peaks, (100, 101), (250, 260)) == 40  # the cycles of 1 s and 2 s are left out
    assert level(peaks, (0, 300)) == 40  # and one that starts where a flaw has stopped is not
    assert level(peaks, (100, 600)) is None
    assert level([1.0, 1.2, 5.0, 6.0]) == 50  # false beats, missed ones
    assert level([1.0, 1.2, 5.0]) is level([1.0]) is level([]) is None
    assert median_cycle(Recording(np.full((1, 700), np.nan), 100.0, peaks)).shape == (1, POINTS)


def test_rhythm_by_hand() -> None:
    peaks = np.cumsum([0.3, 0.8, 1.0, 0.8, 1.2])
    expected = np.array([0.95, np.sqrt(0.0275), np.sqrt(0.08), 0.2]) / [1, 0.95, 0.95, 0.95]
    np.testing.assert_allclose(rhythm_features(peaks), expected)
    # a missed beat and a false one are no intervals
    np.testing.assert_allclose(rhythm_features(np.append(peaks, peaks[-1] + [3.0, 3.1])), expected)
    for few in ([], [1.0], [1.0, 2.0, 3.0]):
        assert np.isnan(rhythm_features(np.array(few))).all()
        assert rhythm_features(np.array(few)).shape == (4,)


@pytest.mark.parametrize("factor", [1, 1024, 1 / 1024])
def test_shapes_have_no_unit_and_a_flat_lead_has_none(factor: float) -> None:
    cycles = hearts(5).cycles * np.float32(factor)
    cycles[:, 1] = 0.1 * factor
    shapes = shaped(cycles)
    np.testing.assert_allclose(shapes[:, 0].mean(axis=-1), 0, atol=1e-6)
    np.testing.assert_allclose(shapes[:, 0].std(axis=-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(shapes[:, 1], 0)
    np.testing.assert_allclose(shapes[:, 0], hearts(5).shapes[:, 0], rtol=1e-5)


def test_records_are_chosen_by_mask_and_by_number() -> None:
    whole = hearts(6)
    for chosen in (np.arange(6) % 2 == 1, np.array([1, 3, 5])):
        part = whole.rows(chosen)
        assert part.records["record_id"].tolist() == ["r1", "r3", "r5"]
        assert part.records.index.tolist() == [0, 1, 2]
        np.testing.assert_array_equal(part.cycles, whole.cycles[1::2])
        np.testing.assert_array_equal(part.rhythm, whole.rhythm[1::2])
    assert len(whole.rows(np.zeros(6, dtype=bool))) == 0


def test_the_cycles_of_a_store_are_of_records_with_all_the_leads(tmp_path: Path) -> None:
    names = ("good_1a", "good_2", "one_flat_lead", "hole_in_lead", "other_leads")
    store = build_store(FakeCohort(tmp_path, names), tmp_path, delineate=False, workers=1)
    found = cycle_set(store, ("II", "I"))
    assert found.records["record_id"].tolist() == ["good_1a", "good_2", "hole_in_lead"]
    assert found.cycles.shape == (3, 2, POINTS)
    np.testing.assert_allclose(found.cycles[:, 0], 0.6 * found.cycles[:, 1], atol=0.01)
    np.testing.assert_allclose(found.rhythm[:2, 0], [0.8, 0.95], atol=0.01)
    np.testing.assert_allclose(found.rhythm[:2, 1:], 0, atol=0.01)
    one_lead = cycle_set(store, ("I",))
    assert one_lead.records["record_id"].tolist() == list(names[:4])
    np.testing.assert_allclose(one_lead.cycles[3], one_lead.cycles[2], atol=0.02)  # the hole leaves no trace
    nobody = cycle_set(store, ("aVR",))
    assert (len(nobody), nobody.cycles.shape, nobody.rhythm.shape) == (0, (0, 1, POINTS), (0, 4))
    assert nobody.shapes.shape == (0, 1, POINTS)
