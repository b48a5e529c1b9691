"""The command ``read``: planted diagnoses are found on paper and explained by what was planted; mistakes are told."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from ecgstudy.__main__ import main
from ecgstudy.data.base import STANDARD_LEADS
from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.errors import NotApplicableError, StudyError
from ecgstudy.experiment.jobs import Context
from ecgstudy.layouts import diagnosis, plan
from ecgstudy.layouts import pages as cohort_pages
from ecgstudy.layouts.beats import BEFORE, N_ROWS, POINTS, sheets
from ecgstudy.layouts.diagnosis import Expert
from ecgstudy.layouts.layout import layout_named
from ecgstudy.layouts.models import BeatECG, untrained
from ecgstudy.layouts.printout import Style, draw
from ecgstudy.layouts.rhythm import rhythm_features
from ecgstudy.signals.ingest import build_store

V2, V3 = STANDARD_LEADS.index("V2"), STANDARD_LEADS.index("V3")


def patient(condition: str) -> np.ndarray:
    """Record of a simulated person with a condition, whom no model has seen; float32 (12, 5000) in mV."""
    cohort = SyntheticCohort(1, 1, 1, fs=500.0, seed=77, diagnoses={condition: 1.0})
    return cohort.signal(cohort.records()["record_id"][0]).values


def expert_that(shares: dict[str, float], forward: Callable[[torch.Tensor], list[torch.Tensor]]) -> Expert:
    """Models that were made by hand: log odds of each label by a formula, and fibrillation at its threshold."""
    names = [str(row) for row in range(N_ROWS)]
    classes = {task: ["no", "yes"] for task in shares}
    network = untrained(BeatECG, 0, n_leads=N_ROWS, n_samples=POINTS, fs=100.0, classes=classes, lead_names=names)
    network.forward = lambda x: {
        task: torch.stack([odds * 0, odds], dim=1) for task, odds in zip(shares, forward(x), strict=True)
    }
    kinds = pd.DataFrame({"irregularity": [2.0], "p_wave": [-1.0], "ectopy": [0.1]})
    rhythm = SimpleNamespace(score=lambda _: np.array([-1.5]), evidence=lambda _: kinds)
    usual = np.zeros((N_ROWS, POINTS), dtype=np.float32)
    usual[V3] = 9.0
    return Expert("cohort", False, 1818, pd.Series(shares), (network,), usual, rhythm, -1.5)


def told(known: Expert, values: np.ndarray) -> list[str]:
    return [*diagnosis.diagnosis(known, values, rhythm_features(sheets(values[None])))]


@pytest.fixture
def page() -> np.ndarray:
    """Show V3 of a heart not at all, and V2 from 5 s on; (12, 1000)."""
    values = patient("CLBBB")[:, ::5].copy()
    values[V3], values[V2, :500] = np.nan, np.nan
    return values


def test_planted_diagnoses_are_read_from_paper_and_models_are_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    planted = SyntheticCohort(60, 1, 1, fs=250.0, seed=0, diagnoses={"AFIB": 0.33, "CLBBB": 0.33})
    monkeypatch.setattr(cohort_pages, "_synthetic", lambda _: planted)
    stores = {planted.name: build_store(planted, tmp_path / "cache", delineate=False)}
    context = Context("demo", stores, "cpu", {}, cache=tmp_path / "cache")
    monkeypatch.setattr(diagnosis, "open_context", lambda *_: context)
    longer = replace(plan.recipe_of("demo", plan.BEST), epochs=30)
    monkeypatch.setattr(plan, "recipe_of", lambda *_: longer)
    for condition in ("AFIB", "CLBBB"):
        style = Style(header=("JANE DOE 4711",))
        image = draw(patient(condition), STANDARD_LEADS, 500.0, layout_named("3x4+II"), 200, style).image
        Image.fromarray(image).save(tmp_path / f"{condition}.png")
    command = ["read", *(str(tmp_path / name) for name in ("AFIB.png", "none.png", "CLBBB.png")), "--profile", "demo"]
    assert main(command) == 0
    first = capsys.readouterr().out
    fibrillating, unread, blocked = first.partition("Not read: ")
    assert unread
    assert "3x4+II, 10 s, confidence " in fibrillating
    assert "Atrial fibrillation: YES" in fibrillating
    assert "repeats from beat to beat: speaks for it" in fibrillating
    assert "Atrial fibrillation: no" in blocked
    lines = blocked.splitlines()
    (at,) = [row for row, line in enumerate(lines) if "complete left bundle branch block (CLBBB): " in line]
    assert float(lines[at].partition("): ")[2].partition("%")[0]) > 80
    assert "for it: " in lines[at + 1]
    assert "QRS in " in lines[at + 1]
    assert "CLBBB" not in fibrillating.partition("\n")[2]
    assert first.count("SYNTHETIC, MEANS NOTHING") == first.count("no medical device") == 2
    assert "JANE" not in first
    monkeypatch.setattr(diagnosis, "trained", None)
    assert main(["read", str(tmp_path / "CLBBB.png"), "--profile", "demo"]) == 0
    assert blocked.endswith(capsys.readouterr().out)


def test_the_lead_and_wave_that_were_planted_are_named_and_what_is_not_shown_is_not(page: np.ndarray) -> None:
    def forward(x: torch.Tensor) -> list[torch.Tensor]:
        here = (x[:, V2, BEFORE] != 0) * 2.0
        return [here + x[:, 0, 0] * 0 - x[:, V3, BEFORE], here * 0 - 5]

    lines = told(expert_that({"subclass AMI": 0.1, "subclass OTHER": 0.1}, forward), page)
    at = next(row for row, line in enumerate(lines) if line.startswith("anterior"))
    assert lines[at] == "anterior myocardial infarction (AMI): 88%, and 10.0% of the records learnt from"
    assert (
        lines[at + 1] == "  for it: QRS in V2 (+2.0)"
    )  # with the usual V3 the odds would fall by 9, but V3 is not shown
    assert not [line for line in lines if "OTHER" in line]
    assert "  RR intervals" in lines[1]
    assert lines[1].endswith("speaks for it (+2.0)")
    assert lines[2].endswith("speaks against it (-1.0)")
    assert lines[3].endswith("as usual (+0.1)")
    assert lines[0] == "Atrial fibrillation: YES (log odds -1.5, yes from -1.5 on)"
    (shown,) = [line for line in lines if line.startswith("Shown of 10 s: ")]
    assert "V3 for 0 s; V2 for 5 s; I, II, III, aVR, aVL, aVF, V1, V4, V5, V6 for 10 s" in shown
    assert "No beat was seen in V3" in lines
    assert lines[-1].startswith("A study's model, learnt from 1,818 records of cohort, and no medical device")


def test_the_likeliest_diagnosis_is_named_and_others_where_they_are_likelier_than_usual(page: np.ndarray) -> None:
    shares = {"superclass S": 0.1, "subclass A": 0.5, "subclass B": 0.05, "subclass C": 0.2, "subclass D": 0.01}
    shares |= {"subclass E": 0.3, "subclass F": 0.01, "af AFIB": 0.1}
    chances = torch.tensor([0.99, 0.4, 0.2, 0.15, 0.05, 0.35, 0.12, 0.99])
    lines = told(expert_that(shares, lambda x: [odds.expand(len(x)) for odds in torch.logit(chances)]), page)
    named = [line.partition(":")[0] for line in lines if "of the records learnt from" in line]
    assert named == ["A", "E", "B"]  # C is not likelier than usual, F the fourth
    assert "  for it: no lead or wave by itself" in lines
    few = {"superclass S": 0.1, "superclass B": 0.05, "superclass D": 0.01}
    lines = told(expert_that(few, lambda x: [odds.expand(len(x)) for odds in torch.logit(chances[[0, 2, 4]])]), page)
    assert [line.partition(":")[0] for line in lines if "of the records learnt from" in line] == ["S", "B"]


def test_a_page_without_beats_is_not_read(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    flat = SimpleNamespace(values=np.zeros((12, 5000), dtype=np.float32), fs=500.0)
    monkeypatch.setattr(diagnosis, "digitise", lambda *_, **__: flat)
    monkeypatch.setattr(diagnosis, "expert_of", None)
    assert main(["read", "page.png"]) == 1
    said = capsys.readouterr()
    assert said.out.startswith("Not read: page.png: fewer than three heartbeats")
    assert "No picture was read." in said.err


def test_without_anything_to_learn_from_a_sentence_says_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ECGSTUDY_DATA", str(tmp_path))
    with pytest.raises(StudyError, match=r"run `python -m ecgstudy fetch ptbxl`") as said:
        diagnosis.expert_of("real", 0)
    assert str(tmp_path) in str(said.value)
    monkeypatch.setattr(diagnosis, "open_context", lambda *_: None)

    def nobody(_: object) -> None:
        raise NotApplicableError("no cohort has twelve leads")

    monkeypatch.setattr(diagnosis, "asked_cohorts", nobody)
    with pytest.raises(StudyError, match="fetch ptbxl"):
        diagnosis.expert_of("real", 0)


def test_only_what_is_learnt_from_is_ingested(monkeypatch: pytest.MonkeyPatch) -> None:
    ingested = []

    def opened(_: str, names: list[str], *__: object) -> None:
        ingested.append([*names])
        raise NotApplicableError("enough seen")

    monkeypatch.setattr(cohort_pages, "open_usable_stores", opened)
    for there in (["ecgid", "mitdb", "ptbxl"], ["ludb", "mitdb"]):
        for module in (diagnosis, cohort_pages):
            monkeypatch.setattr(module, "cohorts_of", lambda _, there=there: there)
        with pytest.raises(StudyError, match="fetch ptbxl"):
            diagnosis.expert_of("real", 0)
    assert ingested == [["ptbxl"], ["ludb", "mitdb"]]


def test_records_that_do_not_allow_it_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "cohorts_of", lambda _: ["ludb"])
    monkeypatch.setattr(diagnosis, "open_context", lambda *_: None)
    monkeypatch.setattr(diagnosis, "asked_cohorts", lambda _: ("ludb", ()))
    monkeypatch.setattr(diagnosis, "do", lambda *_: (None, "", "no record says whether it fibrillates."))
    with pytest.raises(StudyError, match=r"of ludb \(no record says whether it fibrillates\); run .* fetch ptbxl"):
        diagnosis.expert_of("real", 0)


def test_every_seed_learns_from_all_records(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, asked = pd.DataFrame({"subclass A": [1.0, 0.0, np.nan, 0.0]}), []
    pages = SimpleNamespace(records=pd.DataFrame({"x": range(4)}), labels=labels)
    windows = SimpleNamespace(samples=np.stack([np.zeros((2, 3)), np.ones((2, 3))]))
    monkeypatch.setattr(diagnosis, "pages_of", lambda *_: pages)
    monkeypatch.setattr(diagnosis, "cohort_of", lambda *_: SimpleNamespace(synthetic=False))
    monkeypatch.setattr(diagnosis, "fibrillation_model", lambda _, cohort, out, seed: ((cohort, out, seed), 0.5))
    monkeypatch.setattr(diagnosis, "trained", lambda _, job: asked.append(job) or (job.seed, ["subclass A"], windows))
    known = diagnosis.expert(SimpleNamespace(profile="real"), plan.PageJob("c", "c", plan.BEST, (), 4))
    assert {(job.cohort, job.pair) for job in asked} == {("c", ())}
    assert known.networks == (4, 5, 6)
    assert known.rhythm == ("c", (), 4)
    assert known.shares["subclass A"] == pytest.approx(1 / 3)
    assert known.usual.tolist() == np.full((2, 3), 0.5).tolist()
    assert not known.is_synthetic
