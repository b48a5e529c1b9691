"""The summary's verdicts and sentences follow from the stages' numbers; what is missing is said to be missing."""

import re
from pathlib import Path

import pandas as pd
import pytest

from ecgstudy.study.config import STAGES
from ecgstudy.study.stage import Stage
from ecgstudy.study.words import as_shown, estimate_text, exact
from ecgstudy.summary import tables
from ecgstudy.summary.evidence import COUNTS_POSITIVES, Evidence

NUMBERS = {
    "02_reidentification": {
        "ecgid.random_windows.transecg.rank1": (0.95, 0.93, 0.97, 84),
        "ecgid.cross_day.transecg.rank1": (0.58, 0.36, 0.82, 20),
        "ecgid.cross_day.best.rank1": (0.89, 0.76, 1.0, 20),
        "ecgid.cross_record.transecg.rank1": (0.91, 0.84, 0.97, 89),
        "ecgid.age.subject_disjoint_cross_record.transecg.accuracy": (0.56, 0.46, 0.66, 89),
        "ecgid.cross_record.best.rank1": (1.0, 1.0, 1.0, 89),
        "ecgid.cross_record.template.rank1": (0.9, 0.8, 0.95, 89),
        "gallery.200.best.rank1": (0.85, 0.7, 0.95, 20),
    }
}
COUNTS = {
    "ecgid.cross_day.best.enrolled": 90,
    "ecgid.cross_day.transecg.enrolled": 90,
    "ecgid.cross_day.best.persons": 20,
}
COUNTS |= {"ecgid.cross_day.best.probes": 83, "ecgid.age.subject_disjoint_cross_record.transecg.majority": 0.71}


@pytest.fixture
def evidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evidence:
    """Numbers of one finished stage of the profile real."""
    monkeypatch.setenv("ECGSTUDY_RESULTS", str(tmp_path))
    for name, metrics in NUMBERS.items():
        stage = Stage.open(name, {"profile": "real", "seed": 0, "device": "cpu"})
        for metric, (value, low, high, n) in metrics.items():
            stage.metric(metric, value, low, high, n, "share")
        for metric, value in COUNTS.items():
            stage.metric(metric, value, unit="persons" if value > 1 else "share")
        stage.finish()
    return Evidence("real")


def _number(value: float | None, low: float | None = None, high: float | None = None) -> dict:
    return {"value": value, "low": low, "high": high, "note": ""}


NONE = _number(None)


@pytest.mark.parametrize(
    ("leaky", "honest", "chance", "said"),
    [
        (NONE, _number(0.8, 0.7, 0.9), NONE, "reproduced"),
        (NONE, _number(0.95, 0.9, 0.99), NONE, "exceeded"),
        (_number(0.84, 0.8, 0.85), _number(0.6, 0.5, 0.7), NONE, tables.LEAKY),
        (_number(0.7, 0.6, 0.8), _number(0.6, 0.5, 0.7), NONE, tables.NOT),
        (NONE, _number(0.86, 0.7, 0.9), _number(0.75), tables.NOT),  # no better than the commonest class
        (_number(0.9), _number(0.86, 0.7, 0.9), _number(0.75), tables.NOT),  # what reaches it is guessing, not a leak
        (_number(0.9), _number(0.78, 0.7, 0.8), _number(0.75), tables.LEAKY),
        (_number(0.81, 0.7, 0.9), _number(0.6, 0.5, 0.7), _number(0.75), tables.NOT),  # guessing reaches the leaky one
        (
            _number(0.82, 0.78, 0.86),
            _number(0.8, 0.76, 0.83),
            NONE,
            tables.NOT,
        ),  # the honest one is not below the leaky
        (_number(0.9), NONE, NONE, tables.MISSING),
        (_number(0.9), NONE | {"note": "missing: not measured"}, NONE, tables.MISSING),
        (_number(0.9), NONE | {"note": "Not defined: no method applies."}, NONE, tables.UNJUDGED),
        (_number(0.9), _number(0.86), _number(0.5), tables.BARE),
    ],
)
def test_a_verdict_follows_from_the_honest_interval_then_from_the_leaky_one(
    leaky: dict, honest: dict, chance: dict, said: str
) -> None:
    assert tables.verdict(0.85, True, leaky, honest, chance) == said


@pytest.mark.parametrize(
    ("honest", "leaky", "said"),
    [
        (_number(0.55, 0.52, 0.58), NONE, "exceeded"),
        (_number(0.6, 0.57, 0.63), NONE, "reproduced"),
        (_number(0.7, 0.66, 0.74), _number(0.5, 0.45, 0.55), tables.LEAKY),
        (_number(0.7, 0.66, 0.74), _number(0.65, 0.62, 0.68), tables.NOT),
    ],
)
def test_of_what_shall_be_hidden_less_is_better(honest: dict, leaky: dict, said: str) -> None:
    assert tables.verdict(0.59, False, leaky, honest, NONE) == said


def test_claims_are_judged_by_what_is_there_and_the_rest_is_missing(evidence: Evidence) -> None:
    claims = tables.claims_table(evidence).set_index("claim")
    day = claims.loc["names the person: another day"]
    assert day[["verdict", "honest", "leaky", "chance"]].tolist() == [
        tables.LEAKY,
        "58.0 % (36.0 to 82.0)",
        "95.0 % (93.0 to 97.0)",
        "1.1 %",
    ]
    assert "The chosen attacker reaches 89.0 % (76.0 to 100.0)." in day["what differs"]
    assert claims.loc["names the person: another recording", "verdict"] == "reproduced"
    late = claims.loc["names the activity: another electrode"]
    assert late["verdict"] == tables.MISSING
    assert late["honest"] == "missing: stage 03 has not been run to its end"
    assert set(claims["verdict"]) <= set(tables.VERDICTS)
    assert len(claims) == len(tables.listed("claims"))
    told = tables.verdict_finding(claims)
    assert told.startswith(
        "Of 99 comparisons with 90 published numbers: 1 reproduced (ours agrees within its interval), "
    )
    assert "1 holds only under a leaky split" in told
    counts = tables.verdict_results(claims).set_index("metric")["value"]
    assert counts.sum() == len(claims)


def test_own_records_judge_no_paper_and_synthetic_ones_give_no_verdict(
    evidence: Evidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(tables.claims_table(Evidence("mine"))) == 0
    stage = Stage.open("02_reidentification", {"profile": "demo", "seed": 0, "device": "cpu"})
    stage.metric("synthetic.cross_day.transecg.rank1", 0.9, 0.88, 0.95, 9, "share")
    stage.finish()
    claims = tables.claims_table(Evidence("demo")).set_index("claim")
    assert claims.loc["names the person: another day", "verdict"] == tables.SYNTHETIC


def test_findings_nulls_and_risks_stand_on_numbers(evidence: Evidence) -> None:
    (finding,) = tables.findings_table(evidence).to_dict("records")
    assert finding["headline"] == "One ECG is enough to find its owner on another day"
    assert (finding["number"], finding["interval"], finding["chance"]) == ("89.0 %", "76.0 to 100.0", "1.1 %")
    assert "83 persons of 20 persons" in finding["sure"]
    assert "the right one of 90 persons" in finding["phrase"]
    (null,) = tables.nulls_table(evidence)["found"]
    assert "56.0 % (46.0 to 66.0); always naming the commonest is right in 71.0 %" in null
    risks = tables.risks_table(evidence)
    assert "89.0 % (76.0 to 100.0)" in risks["risk"].tolist()
    among = risks.set_index("which is").loc["names the right one of 200 persons"]
    assert among[["risk", "chance"]].tolist() == ["85.0 % (70.0 to 95.0)", "0.5 %"]
    assert not risks["not tested"].str.contains("The same").any()
    cards = tables.risk_cards(evidence).set_index("protocol")
    assert cards.loc["cross_record", "named right"] == "100.0 % (95.9 to 100.0)"  # Clopper and Pearson's for 89 of 89


def test_a_missing_number_is_said_in_words_wherever_it_stands(evidence: Evidence) -> None:
    gone = "missing: stage 03 has not been run to its end"
    name = "03:motion.cross_activity.dt4ecg.person_accuracy"
    assert [evidence.value(asked) for asked in (name, f"1/{name}", f"n:{name}", f"1/n:{name}")] == [gone] * 4
    assert evidence.fill(f"of {{v:{name}}}") == f"of {gone}"
    assert evidence.value("1/n:02:ecgid.cross_day.best.rank1") == "5.0 %"
    assert len(tables.data_cards(evidence)) == 0
    assert len(tables.risk_cards(Evidence("mine"))) == len(tables.risks_table(Evidence("mine"))) == 0


def test_a_rule_needs_both_intervals_apart(evidence: Evidence) -> None:
    one, other = "02:ecgid.random_windows.transecg.rank1", "02:ecgid.cross_record.transecg.rank1"
    assert evidence.holds(f"{one} > 92%") is True
    assert evidence.holds(f"{one} > {other}") is False
    assert evidence.holds(f"{other} < {one}") is False
    assert evidence.holds("02:ecgid.cross_day.transecg.rank1 < 02:ecgid.random_windows.transecg.rank1") is True
    assert evidence.holds("05:nothing > 0.5") is None


def test_a_difference_is_said_in_its_own_unit_and_never_as_minus_zero() -> None:
    number = {"value": 0.0367, "low": -0.0004, "high": 0.05, "n": 9, "unit": "share", "note": ""}
    assert estimate_text(as_shown("c.subclass5.gain_over_resnet1d", number), "") == "0.037 (0.000 to 0.050)"
    assert as_shown("c.label.NORM.auroc", number)["unit"] == as_shown("c.spread", number)["unit"] == ""
    told = "3.7 points (0.0 to 5.0)"
    names = ("ablation.x.person_accuracy_gain", "c.p.a.eer_minus_transecg", "causal.T.a.eer_cost")
    assert [estimate_text(as_shown(name, number), "") for name in names] == [told] * 3
    assert as_shown("c.p.a.rank1", number)["unit"] == "share"


def test_a_diagnosis_of_fewer_than_five_positives_is_undefined(evidence: Evidence) -> None:
    number = {"value": 0.9, "low": None, "high": None, "unit": "share", "note": COUNTS_POSITIVES}
    evidence.stages["06"] = {"metrics": {"ptbxl.a.auroc": number | {"n": 4}, "ptbxl.b.auroc": number | {"n": 5}}}
    assert evidence.value("06:ptbxl.a.auroc") == "undefined: 4 positives are too few"
    assert evidence.value("06:ptbxl.b.auroc") == "0.900"
    assert tables.verdict(0.8, True, NONE, evidence.find("06:ptbxl.a.auroc"), NONE) == tables.UNJUDGED


def test_exact_bounds_where_all_or_none_succeed() -> None:
    whole = {"value": 1.0, "low": 1.0, "high": 1.0, "n": 89, "unit": "share"}
    assert estimate_text(exact("c.p.a.rank1", whole)) == "100.0 % (95 % interval 95.9 to 100.0)"
    assert estimate_text(exact("c.p.a.rank1_per_person", whole | {"value": 0.0})) == "0.0 % (95 % interval 0.0 to 4.1)"
    assert exact("c.p.a.eer", whole) is whole
    assert exact("c.p.a.rank1", whole | {"value": 0.9})["low"] == 1.0


def test_lists_name_stages_that_there_are_and_rules_that_can_be_read(evidence: Evidence) -> None:
    stages = {stage.name[:2] for stage in STAGES}
    for name in ("claims", "cards", "nulls", "risks", "models", "checklists"):
        asked = re.findall(r"\b(\d\d):[a-z]", " ".join(tables.listed(name).to_numpy().ravel()))
        assert set(asked) <= stages
    for rule in [*tables.listed("cards")["rule"], *tables.listed("nulls")["rule"]]:
        assert rule.split(" ")[1] in "<>"
        evidence.holds(rule)
    assert set(tables.listed("cards")["stage"]) <= {stage.name for stage in STAGES}
    told = " ".join(tables.listed("claims")["differs"]) + " ".join(tables.listed("risks").to_numpy().ravel())
    assert not re.search(r"As above|The same[.;]", told)  # rows of a table that can be sorted stand alone


def test_every_name_of_the_lists_is_measured_in_the_committed_results(
    project_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ECGSTUDY_RESULTS", str(project_root / "results"))
    evidence = Evidence("real")
    found = [tables.claims_table(evidence), tables.findings_table(evidence), tables.nulls_table(evidence)]
    found += [tables.risks_table(evidence), tables.model_cards(evidence)]
    found += [tables.checklist(evidence, kind) for kind in ("REFORMS", "biometric")]
    assert [len(table) > 0 for table in found] == [True] * len(found)
    for table in found:
        told = [cell for cell in table.astype(str).to_numpy().ravel() if tables.MISSING in cell]
        assert told == []


def test_the_checklists_are_whole_and_filled_from_the_manifests(evidence: Evidence) -> None:
    reforms, biometric = tables.checklist(evidence, "REFORMS"), tables.checklist(evidence, "biometric")
    assert (len(reforms), len(biometric)) == (32, 8)
    code = reforms.set_index("item").loc["Code", "answer"]
    assert evidence.stages["02"]["provenance"]["commit"][:10] in code
    assert "{" not in "".join(reforms["answer"]) + "".join(biometric["answer"])
    costs = tables.costs_table(evidence).set_index("stage")
    assert costs.loc["Layouts", ["time", "memory", "commit"]].tolist() == ["", "", tables.MISSING]
    assert isinstance(tables.model_cards(evidence), pd.DataFrame)
    told = {"seconds": 118.4, "memory_gb": 2.0, "cores": 2, "commit": "0123456789abc"}
    evidence.stages["06"] = {"provenance": told}
    costs = tables.costs_table(evidence).set_index("stage")
    assert costs.loc["Layouts", ["time", "memory", "cores"]].tolist() == ["118 s", "2 GB", 2]
    assert costs.loc["Layouts", ["commit", "made by"]].tolist() == ["0123456789", "cold, or cache of this commit"]
    told |= {"commit": "0123456789abc-dirty", "artefact_commits": ["abcdef0123456", "abcdef0123456-dirty"]}
    costs = tables.costs_table(evidence).set_index("stage")
    made_by = "cache of abcdef0123, abcdef0123-dirty"
    assert costs.loc["Layouts", ["commit", "made by"]].tolist() == ["0123456789-dirty", made_by]
    told["seconds"] = 7200.0
    assert tables.costs_table(evidence).set_index("stage").loc["Layouts", "time"] == "120 min"
