"""What is read of pictures is held to the truth, refused pages are counted, and diagnoses come from what was read."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from ecgstudy.data.base import STANDARD_LEADS
from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.errors import StudyError
from ecgstudy.evaluate.splits import SUBJECT
from ecgstudy.experiment.jobs import Context, run
from ecgstudy.layouts import images, tables
from ecgstudy.layouts import pages as cohort_pages
from ecgstudy.layouts.images import Digitised, ImageJob
from ecgstudy.layouts.layout import LAYOUTS
from ecgstudy.layouts.printout import Printout, draw
from ecgstudy.signals.ingest import build_store

FS = 500.0


def printed(layout: str = "3x4+II") -> Printout:
    """Print waves of 1 mV, another one in each lead."""
    times = np.arange(5000) / FS
    values = np.sin(2 * np.pi * times * np.linspace(1, 3, 12)[:, None])
    return draw(values, STANDARD_LEADS, FS, LAYOUTS[layout], 100)


def as_read(page: Printout, values: np.ndarray, layout: str = "3x4+II") -> SimpleNamespace:
    """Say that these values were read of a page."""
    return SimpleNamespace(layout=LAYOUTS[layout], fs=page.fs, values=values.astype(np.float32), leads=page.leads)


def test_the_truth_has_no_error_wherever_its_baseline_and_beginning_are() -> None:
    page = printed()
    later = np.full_like(page.values, np.nan)
    later[:, 4:] = page.values[:, :-4] + np.arange(12)[:, None]  # 8 ms later, every lead elsewhere
    for values in (page.values, later):
        found = images.agreement(page, as_read(page, values))
        assert found["snr_db"] > 30
        assert found["correlation"] > 0.999
        assert found["amplitude_error"] < 0.02


def test_noise_of_a_tenth_is_twenty_decibel_and_a_wrong_gain_is_told() -> None:
    page = printed("12x1")
    noise = np.random.default_rng(0).normal(size=page.values.shape)
    noisy = images.agreement(page, as_read(page, page.values + noise * math.sqrt(0.5) / 10))
    assert noisy["snr_db"] == pytest.approx(20, abs=0.3)
    half = images.agreement(page, as_read(page, page.values / 2))
    assert half["snr_db"] == pytest.approx(10 * math.log10(4), abs=0.05)
    assert half["correlation"] == pytest.approx(1)
    assert half["amplitude_error"] == pytest.approx(0.5, abs=0.01)


def test_what_was_not_read_counts_as_a_flat_line() -> None:
    page = printed("6x2")
    lost = page.values.copy()
    lost[:6] = np.nan
    assert images.agreement(page, as_read(page, lost))["snr_db"] == pytest.approx(10 * math.log10(2), abs=0.2)


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    """Open a few synthetic persons, in mV."""
    monkeypatch.setattr(cohort_pages, "SYNTHETIC_PERSONS", 20)
    cohort = cohort_pages._synthetic(0)
    stores = {cohort.name: build_store(cohort, tmp_path, delineate=False)}
    return Context("demo", stores, "cpu", {}, cache=tmp_path, split_seed=0)


def test_refused_and_wrong_pages_are_counted_apart(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    number, printouts = iter(range(100)), []
    monkeypatch.setattr(images, "draw", lambda *told: printouts.append(draw(*told)) or printouts[-1])

    def read(_: np.ndarray) -> SimpleNamespace:
        at, page = next(number), printouts[-1]
        if at == 0:
            raise StudyError("no ECG paper was found.")
        values = np.zeros_like(page.values) if at == 1 else page.values
        return as_read(page, values, "6x2" if at == 2 else page.layout.name)

    monkeypatch.setattr(images, "read_page", read)
    monkeypatch.setattr(images, "DEMO_RECORDS", 6)
    jobs = images.image_jobs(context, 0)
    assert {(job.view, job.severity) for job in jobs} == {(v, s) for v in ("3x4", "3x4+II") for s in ("clean", "mild")}
    seen = run(images.digitised, jobs[:1], context, "pictures")
    table = seen.values[jobs[0].name].pages
    assert table["refusal"].tolist() == ["no ECG paper was found."] + [""] * (images.DEMO_RECORDS - 1)
    assert table["wrong"].tolist()[1:] == [1, 1, 0, 0, 0]
    rows = images.digitise_results(seen.values, jobs, 0)
    values = rows.set_index("name")["value"]
    assert values["digitise.3x4.clean.failed"] == pytest.approx(1 / 6, abs=0.1)
    assert set(values.index) == {
        f"digitise.3x4.clean.{metric}" for metric in ("snr_db", "correlation", "amplitude_error", "failed", "wrong")
    }
    assert rows.set_index("metric").loc["snr_db", "unit"] == "dB"
    assert tables.digitise_table(rows)[["layout", "severity"]].to_numpy().tolist() == [["3x4", "clean"]]
    (sentence,) = tables.digitise_findings(rows)
    assert "refused" in sentence


def test_figures_of_the_digitiser_leave_out_what_it_was_developed_on(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = cohort_pages.pages_of(context, SyntheticCohort.name)
    ids = asked.ids
    monkeypatch.setattr(images, "DEVELOPED_ON", {SyntheticCohort.name: frozenset(ids[:3])})
    monkeypatch.setattr(images, "DEMO_RECORDS", len(ids))
    monkeypatch.setattr(images, "_diagnoses", lambda *_: [])
    printouts: list[Printout] = []
    monkeypatch.setattr(images, "draw", lambda *told: printouts.append(draw(*told)) or printouts[-1])
    monkeypatch.setattr(images, "read_page", lambda _: as_read(printouts[-1], printouts[-1].values, "3x4"))
    jobs = [ImageJob(SyntheticCohort.name, "", "3x4", severity, 0) for severity in ("clean", images.DIAGNOSED)]
    seen = {job.name: images.digitised(context, job) for job in jobs}
    every, diagnosed = (seen[job.name].pages for job in jobs)
    assert [name.partition("/")[2] for name in every["record"]] == ids[3 :: images.EVERY]
    assert [name.partition("/")[2] for name in diagnosed["record"]] == ids
    rows = images.digitise_results(seen, jobs, 0).set_index("name")
    persons = asked.records[SUBJECT]
    assert rows.loc["digitise.3x4.clean.failed", "n"] == persons[3 :: images.EVERY].nunique()
    assert rows.loc[f"digitise.3x4.{images.DIAGNOSED}.failed", "n"] == persons[3:].nunique()


def test_what_was_read_comes_at_the_rate_of_the_models_and_what_was_not_shown_is_not_made_up() -> None:
    read = np.sin(2 * np.pi * 1.2 * np.arange(5000) / 500 + np.arange(12)[:, None])
    read[3:, :1250], read[11] = np.nan, np.nan
    found = images.as_recorded(read, 500.0)
    expected = np.sin(2 * np.pi * 1.2 * np.arange(1000) / 100 + np.arange(12)[:, None])
    assert found.shape == (12, 1000)
    assert (np.isnan(found) == np.isnan(read[:, ::5])).all()
    assert np.nanmax(np.abs(found - expected)[:, 260:990]) < 0.01


def test_pages_are_diagnosed_from_what_was_read_and_a_refused_one_says_nothing(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = cohort_pages.pages_of(context, SyntheticCohort.name)
    told: list[np.ndarray] = []

    class Model:
        def score(self, features: pd.DataFrame) -> np.ndarray:
            return features["rate"].to_numpy()

    monkeypatch.setattr(images.plan, "fibrillation_model", lambda *_: (Model(), 10.0))
    monkeypatch.setattr(images.plan, "trained", lambda _, job: told.append(job) or (None, ["subclass A"], None))
    monkeypatch.setattr(images, "log_odds", lambda _, x: x[:, :1, images.beats.__globals__["BEFORE"]])
    job = ImageJob(SyntheticCohort.name, "elsewhere", "12x1", "moderate", 0)
    cohort = cohort_pages.cohort_of(context, SyntheticCohort.name)
    kept = {row: (cohort.signal(asked.ids[row]).values, 250.0) for row in (0, 2, 5)}
    rhythm, network = images._diagnoses(context, job, kept)
    odds = rhythm.scores["image", "12x1"][:, 0]
    expected = images.rhythm_features(images.sheets(asked.values[[0, 2, 5]]))["rate"]
    np.testing.assert_allclose(odds[[0, 2, 5]], expected - 10, rtol=0.05)
    assert odds[1] == pytest.approx(np.median(odds[[0, 2, 5]]))
    assert [job.pair for job in told] == [()]
    assert network.tasks == ["subclass A"]
    found = images.diagnosed({job.name: Digitised(pd.DataFrame(), (rhythm, network))}, [job], job.cohort)
    assert set(found) == {("image", "12x1"), ("beatecg_image", "12x1")}
    assert len(found["image", "12x1"]) == len(asked.records)
