"""Evaluation of score sets: planted truth, chance under shuffled names, folds, gaps and bad input."""

import math
from dataclasses import replace

import numpy as np
import pytest
from fake_scores import fake_score_set

from ecgstudy.evaluate.bootstrap import Resamples
from ecgstudy.evaluate.identification import search_gallery
from ecgstudy.evaluate.levels import ScoreLevels, eer
from ecgstudy.experiment.evaluation import (
    Evaluation,
    chance_level,
    cohort_resamples,
    evaluate,
    evaluate_all,
    tail_of,
    without_gaps,
)
from ecgstudy.experiment.scores import FoldScores, ScoreSet
from ecgstudy.reidentification.tables import (
    attacker_table,
    best_tables,
    contrast_table,
    control_table,
    seed_table,
)

PROTOCOLS = (
    "random_windows",
    "cross_record",
    "cross_day",
    "leave_last_day",
    "time_separated",
    "cross_activity",
    "cross_electrode",
    "subject_disjoint_cross_record",
    "subject_disjoint_cross_day",
    "cross_cohort_cross_record",
)


def _resamples(score_set: ScoreSet, n: int = 50) -> Resamples:
    return Resamples.draw(np.concatenate([fold.gallery_persons for fold in score_set.folds]), 0, n)


def _toy(scores: list[list[float]], probes: list[str], gallery: list[str]) -> ScoreSet:
    """One fold of hand-made scores; its validation part is empty."""
    nobody = np.zeros(0, dtype=str)
    fold = FoldScores(
        np.array(scores), np.array(probes), np.array(probes), np.array(gallery), np.zeros((0, 0)), nobody, nobody
    )
    return ScoreSet("toy", "cross_record", "template", 0, (fold,))


def test_the_attacker_is_the_mean_of_its_seeds_and_each_seed_stands_beside_it() -> None:
    sets = [fake_score_set("transecg", seed, noise=2.0) for seed in range(3)]
    found = evaluate(sets, _resamples(sets[0]))
    mean = np.mean([s.folds[0].scores for s in sets], axis=0)
    fold = sets[0].folds[0]
    own = fold.probe_persons[:, None] == fold.gallery_persons
    assert found.estimates["eer"].value == pytest.approx(eer(ScoreLevels.from_scores(mean[own], mean[~own])))
    assert found.per_seed["seed"].tolist() == [0, 1, 2]
    for one, row in zip(sets, found.per_seed.itertuples(), strict=True):
        searches = search_gallery(one.folds[0].scores, fold.probe_persons, fold.gallery_persons)
        assert row.rank1 == pytest.approx(np.mean(searches.ahead == 0))
    # independent noise averages out, so the ensemble beats every member
    assert found.estimates["rank1"].value > found.per_seed["rank1"].max()
    assert (found.estimates["persons"], found.estimates["enrolled"], found.estimates["probes"]) == (40, 40, 80)


def test_folds_are_scored_apart() -> None:
    # in each fold everybody is recognised; across folds p0 would be taken for q0
    scores = [[1.0, 0.0], [0.0, 1.0]]
    one = _toy(scores, ["p0", "p1"], ["p0", "p1"]).folds[0]
    other = _toy([[9.0, 8.0], [8.0, 9.0]], ["q0", "q1"], ["q0", "q1"]).folds[0]
    both = replace(_toy(scores, ["p0", "p1"], ["p0", "p1"]), folds=(one, other))
    found = evaluate([both], _resamples(both))
    assert found.estimates["eer"].value == 0.0
    assert found.estimates["rank1"].value == 1.0
    assert found.estimates["enrolled"] == 2
    assert found.risk["person"].tolist() == ["p0", "p1", "q0", "q1"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_shuffled_names_give_chance(protocol: str) -> None:
    score_set = fake_score_set("resnet1d", noise=0.5, n_folds=2 if "disjoint" in protocol else 1, protocol=protocol)
    rng = np.random.default_rng(0)
    chance = chance_level(score_set, rng)
    enrolled = len(score_set.folds[0].gallery_persons)
    # 100 shuffles of 40 persons, two probes each: the mean's standard error is .0025 (.0035 in two galleries of 20)
    assert chance["rank1"].value == pytest.approx(1 / enrolled, abs=0.012)
    assert chance["eer"].value == pytest.approx(0.5, abs=0.02)
    shuffled = replace(
        score_set,
        folds=tuple(replace(f, gallery_persons=np.roll(f.gallery_persons, 7)) for f in score_set.folds),
    )
    found = evaluate([shuffled], _resamples(score_set, 200)).estimates
    assert found["eer"].low < 0.5 < found["eer"].high
    assert found["rank1"].value < 0.1
    assert found["tar_at_far_1e-2"].value < 0.1
    assert found["d_sys"].value < 2.5 * found["d_sys_null"].high
    assert found["zebra_bits"].value < 0.06
    assert found["cllr"].value == pytest.approx(1.0, abs=0.1)
    assert evaluate([score_set], _resamples(score_set)).estimates["rank1"].value == 1.0


def test_a_probe_without_a_window_is_never_recognised_and_counted() -> None:
    nan = math.nan
    score_set = _toy([[0.9, 0.1], [nan, nan], [0.8, 0.2]], ["a", "b", "a"], ["a", "b"])
    found = evaluate([score_set], _resamples(score_set))
    assert found.unscored == 1
    assert found.estimates["rank1"].value == pytest.approx(2 / 3)
    assert found.estimates["probes"] == 3
    # a person without an enrolment window is found by nobody, and takes nobody's place
    absent = _toy([[0.9, nan], [0.2, nan]], ["a", "b"], ["a", "b"])
    assert without_gaps(absent).folds[0].scores.tolist() == [[0.9, 0.2], [0.2, 0.2]]
    assert evaluate([absent], _resamples(absent)).estimates["rank1"].value == 0.5
    nothing = _toy([[nan, nan]], ["a"], ["a", "b"])
    assert evaluate([nothing], _resamples(nothing)).estimates["rank1"].value == 0.0


@pytest.mark.parametrize(
    ("score_set", "metric", "reason"),
    [
        (_toy([[1.0]], ["a"], ["a"]), "eer", "one person only, so there is no impostor trial"),
        (_toy([[1.0, 0.0]], ["x"], ["a", "b"]), "rank1", "no probe's person is in the gallery"),
        (_toy([[1.0, 0.0], [0.0, 1.0]], ["a", "b"], ["a", "b"]), "rank5", "the gallery holds 2 person(s)"),
    ],
)
def test_what_cannot_be_measured_says_why(score_set: ScoreSet, metric: str, reason: str) -> None:
    people = np.concatenate([score_set.folds[0].probe_persons, score_set.folds[0].gallery_persons])
    estimate = evaluate([score_set], Resamples.draw(people, 0, 5)).estimates[metric]
    assert math.isnan(estimate.value)
    assert reason in estimate.reason


def test_no_probe_at_all_is_a_sentence_not_a_crash() -> None:
    empty = _toy([], [], ["a", "b"])
    empty = replace(empty, folds=(replace(empty.folds[0], scores=np.zeros((0, 2))),))
    found = evaluate([empty], Resamples.draw(["a", "b"], 0, 5))
    assert found.estimates["probes"] == 0
    assert math.isnan(found.estimates["rank1"].value)
    assert "no probe's person" in found.estimates["rank1"].reason
    assert math.isnan(tail_of(found)["risk_median"])


def test_resamples_are_shared_by_protocols() -> None:
    sets = [fake_score_set("template", protocol=p) for p in ("cross_record", "cross_day")]
    sets.append(fake_score_set("template", cohort="other", n_persons=5))
    drawn = cohort_resamples(sets, seed=3, n_resamples=20)
    assert {name: r.persons.size for name, r in drawn.items()} == {"toy": 40, "other": 5}
    again = cohort_resamples(sets[:1], seed=3, n_resamples=20)
    np.testing.assert_array_equal(again["toy"].indices, drawn["toy"].indices)


@pytest.fixture(scope="module")
def cell() -> list[Evaluation]:
    """Four attackers under one protocol, one of them with two seeds."""
    sets = [fake_score_set("transecg", seed, noise=2.5) for seed in (0, 1)]
    sets += [fake_score_set("resnet1d", noise=1.0), fake_score_set("template", noise=3.0)]
    sets.append(fake_score_set("untrained", noise=6.0))
    resamples = {"toy": _resamples(sets[0], 200)}
    evaluations, _ = evaluate_all(sets, resamples)
    return evaluations


def test_best_repeats_the_chosen_attackers_numbers(cell: list[Evaluation]) -> None:
    by_attacker = {e.attacker: e for e in cell}
    assert list(by_attacker) == ["transecg", "resnet1d", "template", "untrained", "best"]
    assert by_attacker["best"].stands_for == "resnet1d"
    assert by_attacker["best"].estimates == by_attacker["resnet1d"].estimates


def test_attackers_are_compared_on_identical_resamples(cell: list[Evaluation]) -> None:
    by_attacker = {e.attacker: e for e in cell}
    assert by_attacker["transecg"].contrasts == {}
    for name in ("rank1", "eer"):
        contrast = by_attacker["resnet1d"].contrasts[name]
        one, other = (by_attacker[a].estimates[name] for a in ("resnet1d", "transecg"))
        assert contrast.value == pytest.approx(one.value - other.value)
    assert by_attacker["resnet1d"].contrasts["eer"].high < 0
    assert by_attacker["resnet1d"].contrasts["eer"].p < 0.02
    # the same scores under another name: the resamples are shared, so the difference is 0 in each of them
    sets = [fake_score_set("transecg", noise=2.5)]
    twin = evaluate([replace(sets[0], attacker="twin")], _resamples(sets[0]), reference=sets).contrasts
    assert [(c.value, c.low, c.high) for c in twin.values()] == [(0.0, 0.0, 0.0)] * 2


def test_tables_hold_what_was_evaluated(cell: list[Evaluation]) -> None:
    by_attacker = {e.attacker: e for e in cell}
    row = attacker_table(cell, "rank1").iloc[0]
    assert {m: row[m] for m in by_attacker} == {m: e.estimates["rank1"].value for m, e in by_attacker.items()}
    best = best_tables(cell)["best"].iloc[0]
    assert (best["attacker"], best["persons"], best["enrolled"]) == ("resnet1d", 40, 40)
    assert best["rank1_low"] <= best["rank1"] <= best["rank1_high"]
    assert best_tables(cell)["verification"].iloc[0]["eer"] == by_attacker["resnet1d"].estimates["eer"].value
    seeds = seed_table(cell)
    assert seeds["attacker"].tolist() == ["transecg", "resnet1d"]
    assert seeds["seeds"].tolist() == [2, 1]
    assert seeds["rank1 lowest"].iloc[0] <= seeds["rank1 highest"].iloc[0] <= seeds["rank1 ensemble"].iloc[0]
    assert contrast_table(cell)["attacker"].tolist() == ["resnet1d", "template"]
    control = control_table(cell, seed=0).iloc[0]
    assert control["one in N"] == pytest.approx(1 / 40)
    assert control["untrained network"] == by_attacker["untrained"].estimates["rank1"].value
    assert control["shuffled_high"] < control["rank1"]


def test_the_tail_tells_who_is_always_and_who_is_never_found() -> None:
    # a: both probes first; b: one of two; c: none, and below every impostor
    scores = [[9, 0, 0], [9, 0, 0], [0, 9, 1], [5, 4, 1], [5, 5, 0], [5, 5, 0]]
    score_set = _toy(scores, ["a", "a", "b", "b", "c", "c"], ["a", "b", "c"])
    tail = tail_of(evaluate([score_set], _resamples(score_set)))
    assert tail["always_first"] == pytest.approx(1 / 3)
    assert tail["never_first"] == pytest.approx(1 / 3)
    assert (tail["risk_worst"], tail["risk_median"]) == (1.0, pytest.approx(0.75))


def test_a_cell_whose_validation_cannot_choose_has_no_best() -> None:
    toy = _toy([[1.0, 0.0], [0.0, 1.0]], ["a", "b"], ["a", "b"])
    evaluations, choices = evaluate_all([toy], {"toy": _resamples(toy)})
    assert [e.attacker for e in evaluations] == ["template"]
    assert choices["chosen"].tolist() == ["none"]


def test_people_of_other_cohorts_judge_known_people_and_nobody_judges_protocols_with_people_of_their_own() -> None:
    # beatnet is best on the validation people of the cross-cohort protocol, resnet1d on those of the others
    cells = {"cross_record": 8.0, "subject_disjoint_cross_record": 8.0, "cross_cohort_cross_record": 0.2}
    sets = []
    for protocol, of_beatnet in cells.items():
        noise = {"beatnet": of_beatnet, "resnet1d": 0.3 if of_beatnet > 1 else 8.0, "template": 9.0}
        sets += [fake_score_set(a, protocol=protocol, validation_noise=z) for a, z in noise.items()]
    others = [fake_score_set("resnet1d", cohort="other", protocol="cross_record", validation_noise=0.1)]
    resamples = cohort_resamples([*sets, *others], 0, 5)
    choices = evaluate_all([*sets, *others], resamples)[1].set_index(["cohort", "protocol"])
    assert choices["chosen"].to_dict() == {
        ("toy", "cross_record"): "beatnet",
        ("toy", "subject_disjoint_cross_record"): "resnet1d",
        ("toy", "cross_cohort_cross_record"): "beatnet",
        ("other", "cross_record"): "resnet1d",
    }
    assert choices["judged on"].tolist() == ["others", "itself", "itself", "itself"]
