"""Delineation error: matches and figures worked out by hand."""

import itertools
from collections.abc import Callable
from functools import cached_property

import numpy as np
import pandas as pd
import pytest

from ecgstudy.data.base import Cohort, Signal
from ecgstudy.ingestion.boundaries import delineation_table, match_points, score_cohort, score_lead
from ecgstudy.signals.delineation import FIDUCIAL_COLUMNS, Failure


def pairs(reference: list[float], automatic: list[float], tolerance: float) -> list[tuple[float, float]]:
    left, right = match_points(np.array(reference), np.array(automatic), tolerance)
    return [(reference[i], automatic[j]) for i, j in zip(left, right, strict=True)]


@pytest.mark.parametrize(
    ("reference", "automatic", "expected"),
    [
        ([100, 200], [103, 198], [(100, 103), (200, 198)]),
        ([100], [85, 104, 130], [(100, 104)]),
        ([100, 200], [115, 216], [(100, 115)]),
        ([100, 110], [104], [(100, 104)]),
        # One to one: the nearest pair (110, 112) would leave 100 alone although 112 could have been its match.
        ([100, 110], [112, 124], [(100, 112), (110, 124)]),
        ([], [1.0], []),
        ([1.0], [], []),
        ([], [], []),
    ],
)
def test_points_are_matched_one_to_one(
    reference: list[float], automatic: list[float], expected: list[tuple[float, float]]
) -> None:
    assert pairs(reference, automatic, 15.0) == expected


def test_matching_is_the_best_of_all_pairings() -> None:
    rng = np.random.default_rng(5)
    for _ in range(50):
        reference, automatic = np.sort(rng.uniform(0, 40, 4)), np.sort(rng.uniform(0, 40, 5))
        left, right = match_points(reference, automatic, 6.0)
        best = (0, 0.0)
        for order in itertools.permutations(range(5), 4):
            gaps = np.abs(reference - automatic[list(order)])
            best = max(best, (int((gaps <= 6.0).sum()), -gaps[gaps <= 6.0].sum()))
        assert len(left) == best[0]
        assert np.abs(reference[left] - automatic[right]).sum() == pytest.approx(-best[1])


def reference_of(rows: list[tuple[str, float, float, float]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["wave", "onset", "peak", "offset"])


def fiducials(**columns: list[float]) -> pd.DataFrame:
    return pd.DataFrame(columns, columns=list(FIDUCIAL_COLUMNS), dtype=float)


def row_of(scored: pd.DataFrame, wave: str, boundary: str) -> pd.Series:
    return scored.set_index(["wave", "boundary"]).loc[(wave, boundary)]


NAN = float("nan")


def test_scores_of_a_lead_worked_out_by_hand() -> None:
    # 500 Hz: 150 ms are 75 samples. The marks run from 1000 to 2400.
    reference = reference_of(
        [("QRS", 1000, 1020, 1050), ("T", NAN, 1200, 1250), ("QRS", 1500, 1520, 1550), ("T", NAN, 2380, 2400)]
    )
    found = fiducials(
        # 500 lies before the marks and matches nothing: not counted. 925 lies before them but matches, 150 ms away.
        qrs_onset=[500, 925, 1505, 2000],
        t_peak=[700, 1190, NAN, 2456],
        p_peak=[450, 900, 1400, 2500],
    )
    scored = score_lead(reference, found, 500.0)
    onset = row_of(scored, "QRS", "onset")
    assert (onset["n_reference"], onset["n_detected"], onset["n_matched"]) == (2, 3, 2)
    assert (onset["errors_ms"], onset["squares_ms"]) == pytest.approx((-150.0 + 10.0, 150.0**2 + 10.0**2))
    t_peak = row_of(scored, "T", "peak")
    assert (t_peak["n_reference"], t_peak["n_detected"], t_peak["n_matched"]) == (2, 1, 1)
    assert t_peak["errors_ms"] == pytest.approx(-20.0)
    t_onset = row_of(scored, "T", "onset")
    assert (t_onset["n_reference"], t_onset["n_detected"], t_onset["n_matched"]) == (0, 0, 0)
    p_peak = row_of(scored, "P", "peak")
    assert (p_peak["n_reference"], p_peak["n_detected"], p_peak["n_matched"]) == (0, 1, 0)


def test_a_failed_lead_misses_everything_and_invents_nothing() -> None:
    reference = reference_of([("QRS", 1000, 1020, 1050)])
    scored = score_lead(reference, Failure("noise"), 500.0)
    assert len(scored) == 9
    assert scored["n_reference"].sum() == 3
    assert scored["n_detected"].sum() == scored["n_matched"].sum() == 0


def matches(rows: list[tuple[str, int, int, list[float]]]) -> pd.DataFrame:
    table = pd.DataFrame(
        [
            (subject, n_ref, n_det, len(errors), np.sum(errors), np.sum(np.square(errors)))
            for subject, n_ref, n_det, errors in rows
        ],
        columns=["subject_id", "n_reference", "n_detected", "n_matched", "errors_ms", "squares_ms"],
    )
    return table.assign(
        record_id=[f"r{n}" for n in range(len(table))], lead="II", wave="P", boundary="onset", failure=None
    )


def test_summary_pools_beats_and_resamples_persons() -> None:
    table = matches([("a", 4, 3, [10.0, -2.0]), ("a", 2, 2, [4.0]), ("b", 4, 5, [0.0, 1.0, 5.0, -4.0])])
    row = delineation_table(table, 0).iloc[0]
    errors = [10.0, -2.0, 4.0, 0.0, 1.0, 5.0, -4.0]
    assert (row["n_subjects"], row["n_reference"], row["n_detected"], row["n_matched"]) == (2, 10, 10, 7)
    assert row["sensitivity"] == pytest.approx(0.7)
    assert row["ppv"] == pytest.approx(0.7)
    assert row["error_ms_mean"] == pytest.approx(2.0)
    assert row["error_ms_sd"] == pytest.approx(np.std(errors, ddof=1))
    # Two persons: a resample is aa (1/4), ab (1/2) or bb (1/4), so the interval runs from one person's figure
    # to the other's.
    assert (row["sensitivity_low"], row["sensitivity_high"]) == pytest.approx((0.5, 1.0))
    assert (row["ppv_low"], row["ppv_high"]) == pytest.approx((0.6, 0.8))
    assert (row["error_ms_mean_low"], row["error_ms_mean_high"]) == pytest.approx((0.5, 4.0))


def test_interval_of_many_persons_agrees_with_the_normal_approximation() -> None:
    rng = np.random.default_rng(3)
    found = rng.binomial(10, 0.8, size=400)
    table = matches([(str(i), 10, 10, list(rng.normal(5.0, 20.0, hits))) for i, hits in enumerate(found)])
    row = delineation_table(table, 0, n_resamples=4000).iloc[0]
    half = 1.96 * np.std(found / 10) / np.sqrt(400)
    assert row["sensitivity_high"] - row["sensitivity"] == pytest.approx(half, rel=0.1)
    assert row["sensitivity"] - row["sensitivity_low"] == pytest.approx(half, rel=0.1)
    assert row["error_ms_sd"] == pytest.approx(20.0, abs=1.0)


def test_same_seed_same_interval_and_undefined_is_nan() -> None:
    table = matches([("a", 4, 0, []), ("b", 0, 0, [])])
    first = delineation_table(table, 1, by_lead=True).iloc[0]
    second = delineation_table(table, 1, by_lead=True).iloc[0]
    pd.testing.assert_series_equal(first, second)
    assert first["lead"] == "II"
    assert first["sensitivity"] == 0.0
    assert np.isnan([first["ppv"], first["ppv_low"], first["error_ms_mean"], first["error_ms_sd_high"]]).all()
    assert first["undefined_resamples"] == 1000


class TwoLeads(Cohort):
    """One record: heartbeats in lead II, nothing in lead V1."""

    name = "two-leads"
    how_to_get = "It is made here."
    r_peaks = 200.0 + 400.0 * np.arange(12)

    @cached_property
    def _scan(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        return pd.DataFrame({"record_id": ["one"], "subject_id": ["somebody"]}), pd.DataFrame()

    def signal(self, record_id: str) -> Signal:
        """R waves of 10 ms and T waves of 50 ms in lead II, zeros in V1."""
        at = np.arange(4800)[:, None]
        ecg = np.exp(-0.5 * ((at - self.r_peaks) / 5) ** 2) + 0.3 * np.exp(-0.5 * ((at - self.r_peaks - 140) / 25) ** 2)
        return Signal(np.stack([ecg.sum(axis=1), np.zeros(4800)]).astype(np.float32), 500.0, ("II", "V1"), "mV")

    def digest(self) -> str:
        """Not used here."""
        return ""

    def boundaries(self, record_id: str, lead: str) -> pd.DataFrame:
        """Peaks only; those of R are marked 3 samples late."""
        marked = self.r_peaks[1:-1]
        waves = [("QRS", NAN, r + 3, NAN) for r in marked] + [("T", NAN, r + 140, NAN) for r in marked]
        return reference_of(waves)


def test_cohort_is_scored_lead_by_lead() -> None:
    cohort = TwoLeads()
    scored = score_cohort(cohort)
    assert len(scored) == 18
    assert set(scored["record_id"]) == {"one"}
    assert set(scored["subject_id"]) == {"somebody"}
    table = scored.set_index(["lead", "wave", "boundary"])
    r_peak = table.loc[("II", "QRS", "peak")]
    assert (r_peak["n_reference"], r_peak["n_detected"], r_peak["n_matched"]) == (10, 10, 10)
    assert r_peak["errors_ms"] / 10 == pytest.approx(-6.0, abs=2.0)
    assert table.loc[("II", "T", "peak"), "errors_ms"] / 10 == pytest.approx(0.0, abs=2.0)
    assert set(table.loc["II", "failure"]) == {None}
    assert set(table.loc["V1", "failure"]) == {"flat"}
    assert table.loc[("V1", "QRS", "peak"), "n_matched"] == 0


@pytest.mark.realdata
def test_ludb_figures_hold_on_every_fortieth_record(realdata: Callable[[str], Cohort]) -> None:
    cohort = realdata("ludb")
    some = cohort.records().iloc[::40].reset_index(drop=True)
    cohort.records = lambda: some
    table = delineation_table(score_cohort(cohort), 0).set_index(["wave", "boundary"])
    # Measured on all 200 records: sensitivity 0.95, 0.99 and 0.97 for P, QRS and T onsets, PPV 0.81, 0.99, 0.98.
    assert table.loc[("P", "onset"), "sensitivity"] > 0.9
    assert table.loc[("QRS", "onset"), "sensitivity"] > 0.97
    assert table.loc[("T", "offset"), "sensitivity"] > 0.93
    assert table.loc[("QRS", "onset"), "ppv"] > 0.97
    assert abs(table.loc[("QRS", "peak"), "error_ms_mean"]) < 5.0
    assert (table["error_ms_sd"] < 50.0).all()
    assert (table["n_reference"] > 300).all()
