"""A recording is taken apart into cycle and rhythm, and put together again as it was."""

from pathlib import Path

import numpy as np
import pytest
from fake_cohort import LEADS, FakeCohort
from hearts import hearts, recording

from ecgstudy.deidentification.cycles import POINTS, Recording, cycle_set, median_cycle, render, rhythm_features, shaped
from ecgstudy.signals.ingest import build_store

INTERVALS = {
    "fast": np.full(40, 0.5),
    "slow": np.full(20, 1.2),
    "varying": np.random.default_rng(0).uniform(0.5, 1.2, 40),
}


@pytest.mark.parametrize("source", INTERVALS)
@pytest.mark.parametrize("target", INTERVALS)
def test_a_beat_taken_at_one_rate_is_right_at_another(source: str, target: str) -> None:
    known, true = recording(INTERVALS[source]), recording(INTERVALS[target])
    made = render(median_cycle(known), true.peaks, true.values.shape[1], true.fs)
    # a varying rhythm goes on otherwise than before its first peak and after its last
    inside = slice(*(true.peaks[[0, -1]] * true.fs).astype(int)) if target == "varying" else slice(None)
    np.testing.assert_allclose(made[:, inside], true.values[:, inside], atol=0.04)


def test_a_merely_stretched_beat_would_be_far_off() -> None:
    fast, slow = recording(INTERVALS["fast"]), recording(INTERVALS["slow"])
    once, true = (each.values[0, slice(*(each.peaks[:2] * each.fs).astype(int))] for each in (fast, slow))
    stretched = np.interp(np.linspace(0, 1, true.size), np.linspace(0, 1, once.size), once)
    assert np.abs(stretched - true).max() > 0.3


@pytest.mark.parametrize(
    "peaks", [[4.0], [0.0], [-3.0, -2.2], [12.0, 12.8], [3.0, 3.2, 3.4, 3.6], [2.0, 2.6, 3.2, 6.0]], ids=str
)
def test_the_rhythm_goes_on_before_the_first_peak_and_after_the_last(peaks: list[float]) -> None:
    cycle = np.stack([np.arange(POINTS, 0, -1), np.full(POINTS, 3.0)])
    made = render(cycle, np.array(peaks), 1000, 100.0)
    typical = np.median(np.diff(peaks)) if len(peaks) > 1 else 0.8
    before, after = peaks[0] - typical * np.arange(30, 0, -1), peaks[-1] + typical * np.arange(1, 60)
    at = np.rint(100 * np.concatenate([before, peaks, after])).astype(int)
    at = at[(at >= 0) & (at < 1000)]
    np.testing.assert_allclose(made[0, at], POINTS, atol=1e-3)
    assert (np.diff(made[0]) > 30).sum() == (at > 0).sum()  # the ramp falls from peak to peak: there is no further one
    np.testing.assert_allclose(made[1], np.full(1000, 3.0))


def test_a_cycle_is_the_median_of_whole_believable_ones_beside_flaws() -> None:
    levels = np.repeat([0.0, 10, 20, 30, 40, 90, 0], 100)[None]  # of the cycle that starts at this second

    def level(peaks: list[float], *flaws: tuple[int, int]) -> float | None:
        cycle = median_cycle(Recording(levels, 100.0, np.array(peaks)), flaws)
        return None if cycle is None else float(np.median(cycle))

    peaks = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert level(peaks) == 30
    assert level(peaks, (100, 101), (250, 260)) == 40  # the cycles of 1 s and 2 s are left out
    assert level(peaks, (0, 300)) == 40  # and one that starts where a flaw has stopped is not
    assert level(peaks, (100, 600)) is None
    assert level([1.0, 1.2, 5.0, 6.0]) == 90  # false beats, missed ones
    assert level([1.0, 1.2, 5.0]) is level([1.0]) is level([]) is None


def test_rhythm_by_hand() -> None:
    peaks = np.cumsum([0.3, 0.8, 1.2, 0.8, 1.0])
    expected = np.array([0.95, np.sqrt(0.0275), np.sqrt(0.12), 0.4]) / [1, 0.95, 0.95, 0.95]
    np.testing.assert_allclose(rhythm_features(peaks), expected)
    # a missed beat and a false one are no intervals
    np.testing.assert_allclose(rhythm_features(np.append(peaks, peaks[-1] + [3.0, 3.1])), expected)
    for few in ([], [1.0], [1.0, 2.0, 3.0]):
        np.testing.assert_array_equal(rhythm_features(np.array(few)), np.full(4, np.nan))


@pytest.mark.parametrize("factor", [1, 1024, 1 / 1024])
def test_shapes_have_no_unit_and_a_flat_lead_has_none(factor: float) -> None:
    cycles = hearts(5).cycles * np.float32(factor)
    cycles[:, 1] = 0.1 * factor
    shapes = shaped(cycles)
    np.testing.assert_allclose(shapes[:, 0].mean(axis=-1), 0, atol=1e-6)
    np.testing.assert_allclose(shapes[:, 0].std(axis=-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(shapes[:, 1], np.zeros((5, POINTS)))


@pytest.mark.parametrize("chosen", [np.arange(6) % 2 == 1, np.array([1, 3, 5])])
def test_records_are_chosen_by_mask_and_by_number(chosen: np.ndarray) -> None:
    whole = hearts(6)
    part = whole.rows(chosen)
    assert part.records["record_id"].to_dict() == {0: "r1", 1: "r3", 2: "r5"}
    np.testing.assert_array_equal(part.cycles, whole.cycles[1::2])
    np.testing.assert_array_equal(part.rhythm, whole.rhythm[1::2])


def test_the_cycles_of_a_store_are_of_records_with_all_the_leads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["good_1a", "good_2", "one_flat_lead", "hole_in_lead", "one_lead", "other_leads"]
    monkeypatch.setitem(FakeCohort.subjects, "one_lead", "p8")
    monkeypatch.setitem(LEADS, "one_lead", ("I",))
    store = build_store(FakeCohort(tmp_path, tuple(names)), tmp_path, delineate=False, workers=1)
    found, one_lead, nobody = (cycle_set(store, leads) for leads in (("II", "I"), ("I",), ("aVR",)))
    assert found.records["record_id"].tolist() == ["good_1a", "good_2", "hole_in_lead"]
    np.testing.assert_allclose(found.cycles[:, 0], 0.6 * found.cycles[:, 1], atol=0.01)
    np.testing.assert_allclose(found.rhythm[:2], [[0.8, 0, 0, 0], [0.95, 0, 0, 0]], atol=0.01)
    assert one_lead.records["record_id"].tolist() == names[:5]
    np.testing.assert_allclose(one_lead.cycles[3], one_lead.cycles[2], atol=0.02)  # the hole leaves no trace
    assert (len(nobody), nobody.shapes.shape, nobody.rhythm.shape) == (0, (0, 1, POINTS), (0, 4))
