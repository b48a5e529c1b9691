"""The front page shows what the stages left, and undefined numbers as sentences (links and looks: test_site.py)."""

import math
import re
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from ecgstudy.errors import StudyError
from ecgstudy.study.config import STAGES, SUMMARY
from ecgstudy.study.report import build_report
from ecgstudy.study.stage import Stage
from ecgstudy.study.words import estimate_text, number_text
from ecgstudy.summary import tables
from ecgstudy.summary.evidence import Evidence

FIRST = STAGES[0].name


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results of a finished first stage in the demo profile."""
    monkeypatch.setenv("ECGSTUDY_RESULTS", str(tmp_path))
    stage = Stage.open(FIRST, {"profile": "demo", "seed": 0, "device": "cpu", "fs": 100.0})
    stage.metric("c.eer", 0.0123, 0.01, 0.02, n=1234, unit="share")
    stage.metric("c.rank1", math.nan, n=1, note="one person <is> no gallery")
    stage.headline("c.eer", "equal error rate")
    stage.headline("c.rank1", "rank-1")
    stage.finding("Half of it & more.")
    stage.commits({"abcdef0123456789", "1234567890abcdef"})
    figure, ax = plt.subplots()
    ax.plot([0, 1])
    stage.figure("line", figure, "a caption", "a rising line")
    stage.finish()
    return tmp_path / "demo"


def _text(page: Path) -> str:
    """Give what a reader reads, in one line."""
    return " ".join(BeautifulSoup(page.read_text(), "html.parser").find("article").get_text().split())


def test_front_page_and_summary_show_numbers_intervals_and_the_reason_of_an_undefined_one(results: Path) -> None:
    page = _text(build_report("demo"))
    assert "1.2 % (95 % interval 1.0 to 2.0)" in page
    assert "1,234 persons" in page
    assert "one person <is> no gallery" in page
    assert "Half of it & more." in page
    assert "SYNTHETIC" in page
    assert "rests on artefacts of commits 1234567890, abcdef0123" in page
    assert "identity, sex and age" not in page
    summary = (results / "summary.md").read_text()
    assert "| equal error rate | 1.2 % (95 % interval 1.0 to 2.0) | 1,234 persons |" in summary
    rows = re.findall(r"^\|.*\|$", summary, flags=re.MULTILINE)
    assert {row.count("|") for row in rows} == {4}
    assert f"![a rising line]({FIRST}/figures/line.png)" in summary


def test_what_readers_see_has_no_code_names_and_units_that_fit(results: Path) -> None:
    stage = Stage.open(FIRST, {"profile": "demo", "seed": 0, "device": "cpu", "fs": 100.0})
    stage.metric("c.records", 308, n=308, unit="records")
    stage.metric("ptbxl.subclass5.gain_over_resnet1d", 0.0367, 0.02, 0.05, n=20, unit="share")
    stage.metric("ludb.delineation.p_onset.sensitivity", 0.95, n=13222, unit="share")
    for name in ("c.records", "ptbxl.subclass5.gain_over_resnet1d", "ludb.delineation.p_onset.sensitivity"):
        stage.headline(name, f"ecgid: {name.rpartition('.')[2]}")
    stage.finding("mitdb by beatnet + beatcnn_pretrained_mean_normalised, the best template.")
    stage.finish()
    build_report("demo")
    summary = (results / "summary.md").read_text()
    told = "network on averaged beats + network on single beats, pre-trained (mean of the recordings, normalised)"
    told = f"MIT-BIH by {told}"
    for words in (
        f"- {told}, the best template.",
        "| ECG-ID: records | 308 records | 308 records |",
        "| 0.037 (95 % interval 0.020 to 0.050) | 20 persons |",
        "| 95.0 % | 13,222 points |",
    ):
        assert words in summary
    article = BeautifulSoup((results / f"{FIRST}.html").read_text(), "html.parser").find("article")
    assert f"Answer. {told}" in " ".join(article.get_text().split())  # a count answers no question


def test_the_lead_of_the_real_front_page_carries_the_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECGSTUDY_RESULTS", str(tmp_path))
    stage = Stage.open("02_reidentification", {"profile": "real", "seed": 0, "device": "cpu"})
    stage.metric("ecgid.cross_day.best.rank1", 0.96, 0.59, 1.0, n=20, unit="share")
    for name, count in {"persons": 20, "enrolled": 90, "probes": 83}.items():
        stage.metric(f"ecgid.cross_day.best.{name}", count, unit="persons")
    stage.finish()
    stage = Stage.open(SUMMARY, {"profile": "real", "seed": 0, "device": "cpu"})
    stage.table("findings", tables.findings_table(Evidence("real")), "Findings.", show=False)
    stage.finding("None.")
    stage.finish()
    page = _text(build_report("real"))
    assert "on another day: 96.0 % (95 % interval 59.0 to 100.0) of the ECGs" in page


def test_a_profile_without_results_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECGSTUDY_RESULTS", str(tmp_path))
    with pytest.raises(StudyError, match="holds no finished stage; run `make study PROFILE=real` first"):
        build_report("real")
    with pytest.raises(StudyError, match="no profile 'reel'"):
        build_report("reel")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        *((310, "records", "310"), (21799, "", "21,799"), (3.0, "s", "3"), (12345.6, "s", "12,346")),
        *((-8.26, "ms", "-8.26"), (0.98765, "", "0.988"), (1.0, "", "1.000"), (0.98765, "share", "98.8")),
        *((1.0, "share", "100.0"), (0.000126, "share", "0.0")),
    ],
)
def test_numbers_are_written_for_readers(value: float, unit: str, text: str) -> None:
    assert number_text(value, unit) == text


def test_a_count_has_no_interval() -> None:
    assert estimate_text({"value": 90, "low": None, "high": None, "n": 90, "unit": "persons"}) == "90 persons"
    assert estimate_text({"value": 9, "low": None, "high": 99, "n": 9, "unit": "s"}) == "9 s"


def test_the_front_page_of_own_records_opens_with_what_a_steward_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ECGSTUDY_RESULTS", str(tmp_path))
    stage = Stage.open("02_reidentification", {"profile": "mine", "seed": 0, "device": "cpu"})
    numbers = {"rank1": 0.75, "persons": 40, "enrolled": 50, "always_first": 0.5, "risk_p90": 0.98}
    for name, value in numbers.items():
        stage.metric(f"own-1.cross_record.best.{name}", value, unit="share" if value < 1 else "persons")
        stage.metric(f"own-1.cross_day.best.{name}", math.nan, note="no second day")
    stage.metric("own-1.cross_record.template.rank1", 0.25, 0.2, 0.3, unit="share")
    stage.metric("own-1.cross_record.probe_seconds", 10.0, unit="s")
    for protocol, rank1 in (("cross_record", 0.9), ("cross_day", 0.6)):
        for name, value in (numbers | {"rank1": rank1}).items():
            stage.metric(f"own-3.{protocol}.best.{name}", value, unit="share" if value < 1 else "persons")
    stage.metric("own-2.random_windows.best.rank1", 0.5, note="Undefined in 3 resamples.")
    stage.metric("own-2.random_windows.best.d_sys", math.nan, note="20 trials are needed.")
    stage.metric("own-2.cross_record.best.rank1", math.nan, note="Every person has one record.")
    certain = dict.fromkeys(("rank1", "always_first", "risk_p90"), 1.0)
    for name, value in {**certain, "persons": 89, "enrolled": 89}.items():
        interval, unit = ((0.959, 1.0), "share") if name in certain else ((), "persons")
        stage.metric(f"own-4.cross_record.best.{name}", value, *interval, unit=unit)
    for attacker, share in (("best", 0.125), ("template", 0.375)):
        for name, value in (numbers | {"rank1": share, "always_first": share}).items():
            stage.metric(f"own-5.cross_day.{attacker}.{name}", value, unit="share" if value < 1 else "persons")
    stage.finish()
    html = build_report("mine").read_text()
    page = _text(tmp_path / "mine" / "index.html")
    first = page[: page.index("Stages")]
    assert re.search(r'names the patients of <a .*href="02_reidentification/tables/risk_by_person.csv"', html)
    for words in (
        "75.0 % of later ECGs can be linked",
        "earlier ECG of each of 50 patients and gets another ECG of one of 40 of them",
        "10 s long) names the right patient in 75.0 % of the cases; guessing would in 2.0 %.",
        "already does so in 25.0 % (95 % interval 20.0 to 30.0).",
        "50.0 % of the patients are recognised every time; the worst-off tenth are told from others in 98.0 % or more",
        "100.0 % of the patients are recognised every time; the worst-off tenth are told from others in all of the",
        "60.0 % of later ECGs can be linked",  # another day is the stronger claim
        "Whether patients can be linked is not known",
        "Every person has one record.",
        "names the right patient in 100.0 % (95 % interval 95.9 to 100.0) of the cases; guessing would in 1.1 %.",
        "(another recording, of whatever day",
        "37.5 % of later ECGs can be linked",  # no training does better here than the choice
        "takes no training, only a comparison of average beats; the attacker that was chosen on other people does "
        "so in 12.5 %.",
        "37.5 % of the patients are recognised every time",
        "What to do next",
    ):
        assert words in first
    assert "SYNTHETIC" not in page
    assert "Undefined in 3" not in first
    assert "20 trials" not in first
    Stage.open("02_reidentification", {"profile": "mine", "seed": 0, "device": "cpu"}).not_applicable(
        "There is nobody."
    )
    build_report("mine")
    page = _text(tmp_path / "mine" / "index.html")
    assert page.index("Whether patients") < page.index("because there is nobody.") < page.index("Stages")
    assert "PSEUDONYM" not in page
    assert "**Whether patients can be linked is not known.** Not app" in (tmp_path / "mine" / "summary.md").read_text()


def test_the_summary_s_tables_are_of_its_own_stage_and_never_those_of_the_last_stage_there_is(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ecgstudy.study.report.STAGES", STAGES[:1])
    stage = Stage.open(FIRST, {"profile": "demo", "seed": 0, "device": "cpu", "fs": 100.0})
    bounds = pd.DataFrame({"eer": [0.1, None], "eer_low": [0.05, None], "eer_high": [0.2, None]})
    stage.table("claims", bounds, "Numbers with intervals.")
    stage.finish()
    page = _text(build_report("demo"))
    assert "The papers' claims" not in page
    assert "What we found" not in page


def test_the_front_page_says_what_is_missing_and_keeps_words_that_stand_for_numbers(results: Path) -> None:
    stage = Stage.open(SUMMARY, {"profile": "demo", "seed": 0, "device": "cpu"})
    evidence = Evidence("demo")
    stage.table("claims", tables.claims_table(evidence), "Claims.")
    stage.table("findings", tables.findings_table(evidence), "Findings.", show=False)
    stage.table("not_found", tables.nulls_table(evidence), "Not found.")
    stage.table("risks", tables.risks_table(evidence), "Risks.")
    stage.table("risk_cards", tables.risk_cards(evidence), "Risk cards.")
    stage.table("data_cards", tables.data_cards(evidence), "Cohorts.")
    stage.finding("Of so many published numbers: none.")
    stage.finish()
    page = _text(build_report("demo"))
    assert "Of so many published numbers: none." in page
    assert "not tested here" in page
    assert "missing: stage 02 has not been run to its end" in page
    assert page.count("This stage has not been run to its end yet.") == len(STAGES) - 2
    for absent in ("What we found", "What we did not find", "If you hold ECGs", "Cohorts", "people in"):
        assert absent not in page


def test_the_committed_results_stay_small_enough_for_git(project_root: Path) -> None:
    kept = [path for path in (project_root / "results" / "real").rglob("*") if path.is_file() and path.suffix != ".svg"]
    assert kept
    assert sum(path.stat().st_size for path in kept) < 30e6
