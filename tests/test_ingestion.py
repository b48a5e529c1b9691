"""Tables, figures and findings of stage 01, and the error of the delineation, by hand on records nobody recorded."""

import itertools
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from fake_cohort import FakeCohort

from ecgstudy.data.base import Cohort, Signal
from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.errors import LeakageError
from ecgstudy.ingestion import figures, tables
from ecgstudy.ingestion.tables import delineation_table, match_points, score_cohort, score_lead
from ecgstudy.signals.delineation import FIDUCIAL_COLUMNS
from ecgstudy.signals.ingest import build_store
from ecgstudy.signals.store import RecordStore


def store_of(*rows: tuple[str, int, float, str | None, str]) -> SimpleNamespace:
    """List records of one minute at 100 Hz: person, session, its day, sex and waveform."""
    records = pd.DataFrame(rows, columns=["subject_id", "session", "session_day", "sex", "sha256"])
    records = records.assign(record_id=[f"r{n}" for n in range(len(rows))], age=40.0, unit="mV", store_samples=6000)
    exclusions = pd.DataFrame(columns=["record_id", "subject_id", "file", "reason", "sentence"])
    return SimpleNamespace(fs=100.0, records=records.assign(leads=[("I", "II")] * len(rows)), exclusions=exclusions)


PEOPLE = [("a", 1, 0.0, "F", "w0"), ("a", 2, 4.0, "F", "w1"), ("a", 3, 5.0, "F", "w2")]
PEOPLE += [("b", 1, 0.0, "M", "w3"), ("c", 1, np.nan, None, "w4"), ("c", 1, np.nan, None, "w5")]


def test_cohort_table_by_hand() -> None:
    (row,) = tables.cohort_table({"x": store_of(*PEOPLE)}).to_dict("records")
    assert (row["records"], row["persons"], row["minutes"], row["leads"]) == (6, 3, 6.0, "2")
    # the sex of one person is not stated, and a record without a date is no session of its own
    assert (row["women %"], row["persons with several sessions"]) == (50.0, 1)
    between = [row[f"days from one session to the next, {what}"] for what in ("median", "longest")]
    assert between == [2.5, 4.0]


def test_a_waveform_of_two_people_is_listed_and_one_of_two_cohorts_stops_the_study() -> None:
    twice = store_of(*PEOPLE, ("d", 1, 0.0, None, "w0"))
    assert tables.leakage_table({"x": twice})["record_id"].tolist() == ["x/r0", "x/r6"]
    with pytest.raises(LeakageError, match="x"):
        tables.leakage_table({"x": store_of(*PEOPLE), "y": store_of(("d", 1, 0.0, None, "w3"))})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RecordStore:
    """Seven records of five persons, one with a hole and one with a flat lead."""
    return build_store(FakeCohort(tmp_path_factory.mktemp("source")), tmp_path_factory.mktemp("cache"), workers=1)


def test_average_beats_have_an_r_peak_of_one(store: RecordStore) -> None:
    beats = figures.average_beats(store)
    assert beats.index.tolist() == store.records["record_id"].tolist()
    np.testing.assert_allclose(beats[0.0], 1.0, atol=0.02)
    assert (beats.columns.min(), beats.columns.max()) == (-0.3, 0.49)
    few = store.beats.groupby("record_id").head(2)
    thin = SimpleNamespace(fs=store.fs, records=store.records, beats=few, signal=store.signal)
    assert figures.average_beats(thin).empty


def test_a_few_records_of_ones_own_have_no_panel_of_beats(store: RecordStore, monkeypatch: pytest.MonkeyPatch) -> None:
    beats = pd.DataFrame(1.0, index=[0], columns=[-0.1, 0.0, 0.1])
    monkeypatch.setattr(figures, "average_beats", lambda _: beats)
    for persons, panels in ((9, 1), (10, 2)):
        own = pd.DataFrame({"subject_id": range(persons), "reference_lead": "II"})
        drawn = figures.beats_figure({"own-1": SimpleNamespace(records=own, fs=10.0), "fake": store})
        assert len(drawn.axes) == panels
    plt.close("all")


def test_the_finding_names_the_best_and_the_worst_boundary() -> None:
    summary = pd.DataFrame({"wave": ["P", "QRS", "T"], "boundary": ["onset", "onset", "offset"], "n_reference": 10})
    for name, values in {"sensitivity": (0.5, 0.9, 0.7), "ppv": (0.8, np.nan, 0.7)}.items():
        summary[name] = values
    summary["error_ms_mean"], summary["error_ms_sd"] = 1.0, (10.0, 20.0, 30.0)
    for name in tables.FIGURES:
        summary[f"{name}_low"], summary[f"{name}_high"] = summary[name] - 0.1, summary[name] + 0.1
    metrics, sentences = {}, []
    stage = SimpleNamespace(
        metric=lambda name, *numbers: metrics.update({name: numbers}),
        headline=lambda name, label: None,
        finding=sentences.append,
    )
    tables.record_delineation(stage, "x", summary)
    assert metrics["x.delineation.p_onset.sensitivity"] == (0.5, 0.4, 0.6, 10, "share", "no boundary was matched")
    assert len(metrics) == 12
    assert "between 50.0 % (P onset) and 90.0 % (QRS onset)" in sentences[0]
    assert "T offset, scatters by 30 ms" in sentences[0]


def test_boundaries_of_the_synthetic_cohort_are_scored_in_one_lead_and_of_ludb_where_nobody_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ECGSTUDY_CACHE", str(tmp_path))
    cohort = SyntheticCohort(n_subjects=2, n_sessions=1, n_records=1, fs=250.0, seed=1)
    matches = tables.boundary_matches(cohort, "demo")
    assert set(matches["lead"]) == {"II"}
    assert set(matches["boundary"]) == {"onset", "offset"}
    assert matches["record_id"].nunique() == 2
    monkeypatch.setattr(SyntheticCohort, "synthetic", False)
    seen = tables.remember
    monkeypatch.setattr(tables, "remember", lambda *_: (matches, seen))
    assert set(tables.boundary_matches(cohort, "demo")["record_id"]) == {cohort.records()["record_id"].iloc[1]}


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
    left, right = match_points(np.array(reference), np.array(automatic), 15.0)
    assert [(reference[i], automatic[j]) for i, j in zip(left, right, strict=True)] == expected


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


def fiducials(**columns: list[float]) -> dict[str, np.ndarray]:
    return {column: np.array(columns.get(column, []), dtype=float) for column in FIDUCIAL_COLUMNS}


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
    scored = score_lead(reference, fiducials(), 500.0)
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
    row = delineation_table(table, 0).iloc[0]
    half = 1.96 * np.std(found / 10) / np.sqrt(400)
    assert row["sensitivity_high"] - row["sensitivity"] == pytest.approx(half, rel=0.15)
    assert row["sensitivity"] - row["sensitivity_low"] == pytest.approx(half, rel=0.15)
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
    """One record: heartbeats in lead II, noise in lead V1."""

    name = "two-leads"
    how_to_get = "It is made here."
    r_peaks = 200.0 + 400.0 * np.arange(12)

    @cached_property
    def _scan(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        return pd.DataFrame({"record_id": ["one"], "subject_id": ["somebody"]}), pd.DataFrame()

    def signal(self, record_id: str) -> Signal:
        """R waves of 10 ms and T waves of 50 ms in lead II, noise in V1."""
        at, noise = np.arange(4800)[:, None], np.random.default_rng(0).standard_normal(4800)
        ecg = np.exp(-0.5 * ((at - self.r_peaks) / 5) ** 2) + 0.3 * np.exp(-0.5 * ((at - self.r_peaks - 140) / 25) ** 2)
        return Signal(np.stack([ecg.sum(axis=1), noise]).astype(np.float32), 500.0, ("II", "V1"), "mV")

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
    # its R peaks are not used
    assert set(table.loc["V1", "failure"]) == {"noise"}
    assert table.loc["V1", "n_detected"].sum() == 0


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
