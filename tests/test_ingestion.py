"""Tables, figures and findings of stage 01, by hand on records that nobody recorded."""

from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from fake_cohort import FakeCohort

from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.errors import LeakageError
from ecgstudy.ingestion import boundaries, figures, tables
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
    assert (row["days between sessions, median"], row["days between sessions, longest"]) == (2.5, 4.0)


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
        drawn = figures.beats_figure({"wfdb-folder": SimpleNamespace(records=own), "fake": store})
        assert len(drawn.axes) == panels
    plt.close("all")


def test_the_finding_names_the_best_and_the_worst_boundary() -> None:
    summary = pd.DataFrame({"wave": ["P", "QRS", "T"], "boundary": ["onset", "onset", "offset"], "n_reference": 10})
    for name, values in {"sensitivity": (0.5, 0.9, 0.7), "ppv": (0.8, np.nan, 0.7)}.items():
        summary[name] = values
    summary["error_ms_mean"], summary["error_ms_sd"] = 1.0, (10.0, 20.0, 30.0)
    for name in boundaries.FIGURES:
        summary[f"{name}_low"], summary[f"{name}_high"] = summary[name] - 0.1, summary[name] + 0.1
    metrics, sentences = {}, []
    stage = SimpleNamespace(
        metric=lambda name, *numbers: metrics.update({name: numbers}),
        headline=lambda name, label: None,
        finding=sentences.append,
    )
    boundaries.record_delineation(stage, "x", summary)
    assert metrics["x.delineation.p_onset.sensitivity"] == (0.5, 0.4, 0.6, 10, "share", "no boundary was matched")
    assert len(metrics) == 12
    assert "between 50.0 % (P onset) and 90.0 % (QRS onset)" in sentences[0]
    assert "T offset, scatters by 30 ms" in sentences[0]


def test_boundaries_of_the_synthetic_cohort_are_scored_in_one_lead_and_of_ludb_where_nobody_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ECGSTUDY_CACHE", str(tmp_path))
    cohort = SyntheticCohort(n_subjects=2, n_sessions=1, n_records=1, fs=250.0, seed=1)
    matches = boundaries.boundary_matches(cohort, "demo")
    assert set(matches["lead"]) == {"II"}
    assert set(matches["boundary"]) == {"onset", "offset"}
    assert matches["record_id"].nunique() == 2
    monkeypatch.setattr(SyntheticCohort, "synthetic", False)
    seen = boundaries.remember
    monkeypatch.setattr(boundaries, "remember", lambda *_: (matches, seen))
    assert set(boundaries.boundary_matches(cohort, "demo")["record_id"]) == {cohort.records()["record_id"].iloc[1]}
