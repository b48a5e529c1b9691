"""Sex and age group: agreement with counts made by hand, missing labels, folds."""

import math
from dataclasses import replace

import pandas as pd
import pytest
from fake_scores import fake_score_set

from ecgstudy.experiment.evaluation import cohort_resamples, evaluate_demographics
from ecgstudy.experiment.networks import CLASSES
from ecgstudy.experiment.scores import ScoreSet
from ecgstudy.reidentification.tables import ONE_RECORD, demographic_table, paper_table

SHORT = {"sex": "sex", "age": "age_group"}


def _evaluate(*score_sets: ScoreSet) -> pd.DataFrame:
    rows = evaluate_demographics(score_sets, cohort_resamples(score_sets, 0, 100))
    return rows.set_index(["cohort", "task", "protocol", "attacker", "metric"]).sort_index()


@pytest.mark.parametrize("n_folds", [1, 3])
def test_metrics_are_those_of_the_rows(n_folds: int) -> None:
    score_set = fake_score_set("transecg", n_folds=n_folds, heads=True)
    found = _evaluate(score_set).droplevel(["cohort", "protocol", "attacker"])
    rows = pd.concat([fold.demographics for fold in score_set.folds])
    for short, task in SHORT.items():
        mine, shares = rows[rows["task"] == task], [f"p_{name}" for name in CLASSES[task]]
        right = ("p_" + mine["truth"]) == mine[shares].astype(float).idxmax(axis=1)
        accuracy = found.loc[(short, "accuracy")]
        assert accuracy["value"] == pytest.approx(right.mean())
        assert accuracy["low"] < accuracy["value"] < accuracy["high"]
        assert accuracy["n"] == 40
        assert found.loc[(short, "majority"), "value"] == pytest.approx(1 / len(shares), abs=0.02)
    assert found.loc[("age", "mae_years"), "value"] == pytest.approx((mine["age"] - mine["expected_age"]).abs().mean())
    assert found.loc[("age", "mae_years"), "unit"] == "years"
    assert ("sex", "mae_years") not in found.index


def test_seeds_are_averaged_before_the_verdict() -> None:
    sets = [fake_score_set("transecg", seed, heads=True) for seed in range(5)]
    accuracy = ("toy", "sex", "cross_record", "transecg", "accuracy")
    alone = [_evaluate(one).loc[accuracy, "value"] for one in sets]
    together = _evaluate(*sets).loc[accuracy, "value"]
    # five independent readers, each right three times in four: the majority is right nine times in ten
    assert together > max(alone)
    assert together == pytest.approx(0.896, abs=0.1)


def test_a_cohort_without_labels_says_so_where_others_have_numbers() -> None:
    found = _evaluate(fake_score_set("transecg", heads=True), fake_score_set("transecg", cohort="unlabelled"))
    missing = found.loc[("unlabelled", "age")]
    assert missing["value"].isna().all()
    assert set(missing["note"]) == {"Not defined: no record has a label."}
    assert {"accuracy", "auroc", "mae_years", "majority"} <= set(missing.index.get_level_values("metric"))
    # attackers without heads are not asked
    assert _evaluate(fake_score_set("template")).empty


def test_a_constant_label_is_undefined_with_its_reason() -> None:
    score_set = fake_score_set("transecg", heads=True)
    fold = score_set.folds[0]
    women = fold.demographics[(fold.demographics["task"] == "sex") & (fold.demographics["truth"] == "F")]
    found = _evaluate(replace(score_set, folds=(replace(fold, demographics=women),)))
    found = found.droplevel(["cohort", "protocol", "attacker"])
    assert math.isnan(found.loc[("sex", "auroc"), "value"])
    assert found.loc[("sex", "auroc"), "note"] == "Not defined: every label is F."
    assert found.loc[("age", "accuracy"), "note"] == "Not defined: no record has a label."


def test_the_table_sets_the_papers_protocol_beside_people_never_seen() -> None:
    sets = [
        fake_score_set(model, heads=True, protocol=protocol)
        for protocol in ("random_windows", "cross_record", "subject_disjoint_cross_record")
        for model in ("transecg", "resnet1d")
    ]
    sets.append(fake_score_set("transecg", cohort="unlabelled", protocol="random_windows"))
    rows = evaluate_demographics(sets, cohort_resamples(sets, 0, 100))
    table = demographic_table(rows, "accuracy")
    assert list(table) == ["task", "cohort", "protocol", "persons", "transecg", "resnet1d", "most frequent class"]
    assert table["task"].tolist() == ["sex", "sex", "age", "age"]
    assert table["protocol"].tolist() == ["random_windows", "subject_disjoint_cross_record"] * 2
    assert set(table["cohort"]) == {"toy"}
    expected = _evaluate(*sets).loc[("toy", "age", "random_windows", "resnet1d", "accuracy"), "value"]
    assert table.loc[(table["task"] == "age") & (table["protocol"] == "random_windows"), "resnet1d"].item() == expected
    assert demographic_table(rows, "mae_years")["task"].unique().tolist() == ["age"]


def test_the_reason_why_nothing_is_held_apart_is_the_true_one() -> None:
    about = {"attacker": "transecg", "low": 0.1, "high": 0.9, "n": 5, "protocol": "random_windows"}
    persons = pd.DataFrame([{**about, "cohort": name, "metric": "rank1", "value": 0.5} for name in ("single", "mute")])
    told = pd.DataFrame([{**about, "cohort": "single", "metric": "accuracy", "value": 0.6, "task": "sex"}])
    found = paper_table(persons, told).set_index(["task", "cohort"])["protocol held apart"]
    assert found["person", "mute"] == found["sex", "single"] == ONE_RECORD
    assert found["sex", "mute"] == found["age", "single"] == "none: not stated, or the same for everybody"
