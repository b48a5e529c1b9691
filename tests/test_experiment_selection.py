"""The choice of the best attacker: on validation scores, and on nothing else."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from fake_scores import fake_score_set, toy_score_set
from scipy.stats import norm

from ecgstudy.evaluate.trials import ScoreMatrix
from ecgstudy.experiment.evaluation import FUSIONS, fuse, select
from ecgstudy.experiment.scores import ScoreSet

NOISE = {"transecg": 2.0, "resnet1d": 1.5, "beatnet": 1.4, "features_gbm": 3.0, "template": 2.5}


def _attackers(noise: dict[str, float]) -> dict[str, list[ScoreSet]]:
    seeds = {model: 1 if model in ("features_gbm", "template") else 2 for model in noise}
    return {m: [fake_score_set(m, s, validation_noise=z) for s in range(seeds[m])] for m, z in noise.items()}


def _held(attacker: str, scores: object, people: Iterable[object] = "ab", seed: int = 0) -> ScoreSet:
    """Hand-made scores of the validation part."""
    return toy_score_set(np.eye(2), "ab", "ab", ScoreMatrix(scores, list(people), list(people)), attacker, seed)


def _separation(score_set: ScoreSet) -> pd.Series:
    """Rank-1, EER and d' of one candidate."""
    return select({"template": [score_set]}).separations.loc["template"]


def _permuted(score_set: ScoreSet, rng: np.random.Generator) -> ScoreSet:
    """Keep the validation part, with test scores permuted over all trials."""
    (fold,) = score_set.folds
    scores = rng.permuted(fold.trials.scores, axis=None)
    return replace(score_set, folds=(replace(fold, trials=replace(fold.trials, scores=scores)),))


def test_permuting_the_test_scores_cannot_change_the_choice() -> None:
    attackers = _attackers(NOISE)
    first = select(attackers)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        again = select({model: [_permuted(one, rng) for one in sets] for model, sets in attackers.items()})
        assert again.chosen == first.chosen
        pd.testing.assert_frame_equal(again.separations, first.separations)


@pytest.mark.parametrize("model", ["transecg", "features_gbm", "template"])
def test_the_best_on_validation_is_chosen_however_it_does_on_the_probes(model: str) -> None:
    # all attackers are alike on the probes; one separates its validation people far better
    noise = dict.fromkeys(NOISE, 8.0) | {model: 0.3}
    selection = select(_attackers(noise))
    assert selection.chosen == model
    assert selection.separations.loc[model, "rank1"] == selection.separations["rank1"].max()
    assert [s.attacker for s in selection.score_sets] == [model] * len(selection.score_sets)


def test_separation_by_hand() -> None:
    # genuine 2 and 4, impostor 0 and 2: means 3 and 1, variances 1 and 1
    score_set = _held("template", [[2.0, 0.0], [2.0, 4.0]])
    # a's search ties nobody, b's true score is the highest; one threshold parts genuine 2, 4 from impostor 0, 2 at 1/4
    assert _separation(score_set).tolist() == pytest.approx([1.0, 0.25, 2.0])
    undefined = _held("template", np.ones((2, 2)))
    assert np.isnan(_separation(undefined)["d_prime"])
    assert np.isnan(_separation(replace(score_set, folds=score_set.folds + undefined.folds))["d_prime"])
    # the missing trial matches nobody; one impostor score is too few for d'
    gap = _separation(_held("template", [[2.0, 0.0], [np.nan, 4.0]]))
    assert np.isnan(gap["d_prime"])
    assert gap["rank1"] == 1.0


def test_gaussian_scores_have_the_planted_d_prime() -> None:
    rng = np.random.default_rng(0)
    found = _separation(_held("template", rng.normal(size=(400, 400)) + 3 * np.eye(400), range(400)))
    assert found["d_prime"] == pytest.approx(3.0, abs=0.2)
    assert found["eer"] == pytest.approx(norm.cdf(-1.5), abs=0.02)


def test_fusions_by_hand() -> None:
    # impostors of the first: 0 and 4, mean 2, deviation 2; of the second: 10 and 30, mean 20, deviation 10
    sets = [
        [toy_score_set([test], "a", "ab", ScoreMatrix(held, list("ab"), list("ab")), attacker)]
        for attacker, test, held in (
            ("m1", [1.0, 3.0], [[9.0, 0.0], [4.0, 9.0]]),
            ("m2", [40.0, np.nan], [[9.0, 10.0], [30.0, 9.0]]),
        )
    ]
    (plain,) = fuse("both", sets, standardised=False)
    # a member without a score abstains
    np.testing.assert_allclose(plain.folds[0].trials.scores, [[20.5, 3.0]])
    np.testing.assert_allclose(plain.folds[0].validation.scores, [[9.0, 5.0], [17.0, 9.0]])
    (standardised,) = fuse("both", sets, standardised=True)
    np.testing.assert_allclose(standardised.folds[0].trials.scores, [[(-0.5 + 2.0) / 2, 0.5]])
    np.testing.assert_allclose(standardised.folds[0].validation.scores[0, 1], (-1.0 - 1.0) / 2)


def test_fusions_go_seed_by_seed_and_carry_no_demographics() -> None:
    attackers = _attackers(NOISE) | {"transecg": [fake_score_set("transecg", s, heads=True) for s in range(2)]}
    members = [attackers[m] for m in FUSIONS["networks + template"][0]]
    fused = fuse("networks + template", members, standardised=False)
    assert [s.seed for s in fused] == [0, 1]
    expected = np.mean([sets[min(1, len(sets) - 1)].folds[0].trials.scores for sets in members], axis=0)
    np.testing.assert_allclose(fused[1].folds[0].trials.scores, expected, rtol=1e-6)
    assert all(fold.demographics.empty for s in fused for fold in s.folds)


def test_a_missing_attacker_takes_its_fusions_along() -> None:
    attackers = {m: sets for m, sets in _attackers(NOISE).items() if m != "template"}
    assert set(select(attackers).separations.index) == {*attackers, "resnet1d + beatnet"}
    assert select({}).chosen is None


@pytest.mark.parametrize(
    ("other", "chosen"),
    [
        ([[899.0, 0.0, 0.0], [0.0, 899.0, 0.0], [910.0, 0.0, 899.0]], "first"),  # the worse rank-1, whatever its d'
        ([[3.0, 2.0, 2.0], [0.0, 3.0, 2.0], [2.0, 0.0, 3.0]], "first"),  # the same rank-1 and EER, the lower d'
        ([[4.0, 0.0, 2.0], [0.0, 4.0, 2.0], [2.0, 0.0, 4.0]], "second"),  # the same rank-1 and EER, the higher d'
        ([[3.0, 0.0, 2.0], [0.0, 3.0, 2.0], [2.0, 0.0, 3.0]], "first"),  # equals
        (np.eye(3), "first"),  # no d', for want of a variance
    ],
)
def test_rank1_decides_before_eer_and_eer_before_d_prime(other: object, chosen: str) -> None:
    first = _held("first", [[3.0, 0.0, 2.0], [0.0, 3.0, 2.0], [2.0, 0.0, 3.0]], "abc")
    selection = select({"first": [first], "second": [_held("second", other, "abc")]})
    assert selection.chosen == chosen
    assert selection.row("toy", "cross_record")["first"] == "100.0 / 0.0"
    if selection.separations.loc["second", "rank1"] < 1:  # scores that are anything but Gaussian
        assert selection.separations["d_prime"].idxmax() == "second"
    # everybody is first, but two genuine scores lie below two impostor scores of others
    blurred = _held("blurred", [[1.0, 0.0, 0.0], [2.0, 9.0, 0.0], [2.0, 0.0, 9.0]], "abc")
    assert select({"blurred": [blurred], "first": [first]}).chosen == "first"


def test_people_never_seen_judge_where_the_own_validation_part_flatters() -> None:
    attackers = _attackers(dict.fromkeys(NOISE, 8.0) | {"features_gbm": 0.1, "transecg": 0.5})
    judges = _attackers({"transecg": 8.0, "resnet1d": 8.0, "beatnet": 0.2, "template": 8.0})
    judges = {m: [replace(s, protocol="cross_cohort_cross_day") for s in sets] for m, sets in judges.items()}
    assert select(attackers).chosen == "features_gbm"
    judged = select(attackers, judges)
    assert judged.chosen == "beatnet"  # the feature model has no judge, so it cannot be chosen
    assert judged.judged_on == "cross_cohort_cross_day"
    assert all(chosen is own for chosen, own in zip(judged.score_sets, attackers["beatnet"], strict=True))


def test_the_untrained_control_is_never_chosen_nor_asked() -> None:
    attackers = _attackers(dict.fromkeys(NOISE, 8.0) | {"untrained": 0.01})
    judges = {name: [replace(s, protocol="cross_cohort_x") for s in sets] for name, sets in attackers.items()}
    for judging in (None, judges):
        selection = select(attackers, judging)
        assert "untrained" not in selection.separations.index
        assert selection.chosen in NOISE.keys() | FUSIONS.keys()


def test_the_ensemble_of_all_seeds_is_judged_and_not_one_of_them() -> None:
    # the first seed tells its validation people apart, the second takes each for the other and weighs more
    sets = [_held("template", held, seed=seed) for seed, held in enumerate((np.eye(2), 3 - 3 * np.eye(2)))]
    assert select({"template": sets}).separations.loc["template", "rank1"] == 0.0
