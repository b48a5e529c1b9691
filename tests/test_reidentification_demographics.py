"""Sex and age group: agreement with counts made by hand, missing labels, folds."""

import math
from dataclasses import replace

import numpy as np
import pytest
from fake_scores import fake_score_set

from ecgstudy.evaluate.bootstrap import Resamples
from ecgstudy.experiment.scores import ScoreSet
from ecgstudy.reidentification.demographics import DemographicResult, evaluate_demographics
from ecgstudy.reidentification.tables import demographic_table


def _evaluate(*score_sets: ScoreSet) -> dict[str, DemographicResult]:
    resamples = {}
    for s in score_sets:
        people = np.concatenate([fold.gallery_persons for fold in s.folds])
        resamples.setdefault(s.cohort, Resamples.draw(people, 0, 100))
    found = evaluate_demographics(score_sets, resamples)
    return {f"{r.cohort}.{r.task}.{r.protocol}.{r.attacker}": r for r in found}


@pytest.mark.parametrize("n_folds", [1, 3])
def test_metrics_are_those_of_the_rows(n_folds: int) -> None:
    score_set = fake_score_set("transecg", n_folds=n_folds, heads=True)
    found = _evaluate(score_set)
    assert list(found) == ["toy.sex.cross_record.transecg", "toy.age.cross_record.transecg"]
    rows = [row for fold in score_set.folds for row in fold.demographics.to_dict("records")]
    for result, task, names in (
        (found["toy.sex.cross_record.transecg"], "sex", ["F", "M"]),
        (found["toy.age.cross_record.transecg"], "age_group", ["under 30", "30-44", "45-59", "60 and over"]),
    ):
        mine = [row for row in rows if row["task"] == task]
        right = [max(names, key=lambda name, row=row: row[f"p_{name}"]) == row["truth"] for row in mine]
        estimate = result.estimates["accuracy"]
        assert estimate.value == pytest.approx(np.mean(right))
        assert estimate.low < estimate.value < estimate.high
        assert (estimate.n, result.probes) == (40, 80)
        assert result.estimates["majority"].value == pytest.approx(1 / len(names), abs=0.02)
    years = found["toy.age.cross_record.transecg"].estimates["mae_years"].value
    errors = [abs(row["age"] - row["expected_age"]) for row in rows if row["task"] == "age_group"]
    assert years == pytest.approx(np.mean(errors))
    assert "mae_years" not in found["toy.sex.cross_record.transecg"].estimates


def test_seeds_are_averaged_before_the_verdict() -> None:
    sets = [fake_score_set("transecg", seed, heads=True) for seed in range(5)]
    alone = [_evaluate(s)["toy.sex.cross_record.transecg"].estimates["accuracy"].value for s in sets]
    together = _evaluate(*sets)["toy.sex.cross_record.transecg"].estimates["accuracy"].value
    # five independent readers, each right three times in four: the majority is right nine times in ten
    assert together > max(alone)
    assert together == pytest.approx(0.896, abs=0.1)


def test_a_cohort_without_labels_says_so_where_others_have_numbers() -> None:
    found = _evaluate(fake_score_set("transecg", heads=True), fake_score_set("transecg", cohort="unlabelled"))
    missing = found["unlabelled.age.cross_record.transecg"]
    for name in ("accuracy", "auroc", "mae_years", "majority"):
        assert math.isnan(missing.estimates[name].value)
        assert missing.estimates[name].reason == "no record has a label"
    # attackers without heads are not asked
    assert _evaluate(fake_score_set("template")) == {}


def test_a_constant_label_is_undefined_with_its_reason() -> None:
    score_set = fake_score_set("transecg", heads=True)
    fold = score_set.folds[0]
    women = fold.demographics[(fold.demographics["task"] == "sex") & (fold.demographics["truth"] == "F")]
    found = _evaluate(replace(score_set, folds=(replace(fold, demographics=women),)))
    estimate = found["toy.sex.cross_record.transecg"].estimates["auroc"]
    assert math.isnan(estimate.value)
    assert estimate.reason == "every label is F"
    assert found["toy.age.cross_record.transecg"].estimates["accuracy"].reason == "no record has a label"


def test_the_table_sets_the_papers_protocol_beside_people_never_seen() -> None:
    sets = [
        fake_score_set(model, heads=True, protocol=protocol)
        for protocol in ("random_windows", "cross_record", "subject_disjoint_cross_record")
        for model in ("transecg", "resnet1d")
    ]
    sets.append(fake_score_set("transecg", cohort="unlabelled", protocol="random_windows"))
    found = _evaluate(*sets)
    table = demographic_table(list(found.values()), "accuracy")
    assert table["task"].tolist() == ["sex", "sex", "age", "age"]
    assert table["protocol"].tolist() == ["random_windows", "subject_disjoint_cross_record"] * 2
    assert set(table["cohort"]) == {"toy"}
    expected = found["toy.age.random_windows.resnet1d"].estimates["accuracy"].value
    assert table.loc[(table["task"] == "age") & (table["protocol"] == "random_windows"), "resnet1d"].item() == expected
    assert demographic_table(list(found.values()), "mae_years")["task"].unique().tolist() == ["age"]
