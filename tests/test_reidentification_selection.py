"""The choice of the best attacker: on validation scores, and on nothing else."""

from dataclasses import replace

import numpy as np
import pytest
from fake_scores import fake_score_set

from ecgstudy.reidentification.scores import FoldScores, ScoreSet
from ecgstudy.reidentification.selection import FUSIONS, fuse, select, validation_d_prime

NOISE = {"transecg": 2.0, "resnet1d": 1.5, "beatnet": 1.4, "features_gbm": 3.0, "template": 2.5}


def _attackers(noise: dict[str, float]) -> dict[str, list[ScoreSet]]:
    seeds = {model: 1 if model in ("features_gbm", "template") else 2 for model in noise}
    return {m: [fake_score_set(m, s, validation_noise=z) for s in range(seeds[m])] for m, z in noise.items()}


def _with_test_scores(attackers: dict[str, list[ScoreSet]], rng: np.random.Generator) -> dict[str, list[ScoreSet]]:
    """Keep the validation parts, with test scores permuted over all trials."""
    return {
        model: [
            replace(s, folds=tuple(replace(f, scores=rng.permutation(f.scores.ravel()).reshape(f.scores.shape))
                                   for f in s.folds))
            for s in sets
        ]
        for model, sets in attackers.items()
    }  # fmt: skip


def test_permuting_the_test_scores_cannot_change_the_choice() -> None:
    attackers = _attackers(NOISE)
    first = select(attackers)
    for seed in range(5):
        again = select(_with_test_scores(attackers, np.random.default_rng(seed)))
        assert again.chosen == first.chosen
        assert again.d_primes == first.d_primes


@pytest.mark.parametrize("model", ["transecg", "features_gbm", "template"])
def test_the_best_on_validation_is_chosen_however_it_does_on_the_probes(model: str) -> None:
    # all attackers are alike on the probes; one separates its validation people far better
    noise = dict.fromkeys(NOISE, 8.0) | {model: 0.3}
    selection = select(_attackers(noise))
    assert selection.chosen == model
    assert selection.d_primes[model] == max(selection.d_primes.values())
    assert [s.model for s in selection.score_sets] == [model] * len(selection.score_sets)


def test_d_prime_by_hand() -> None:
    # genuine 2 and 4, impostor 0 and 2: means 3 and 1, variances 1 and 1
    people = np.array(["a", "b"])
    fold = FoldScores(np.eye(2), people, people, people, np.array([[2.0, 0.0], [2.0, 4.0]]), people, people)
    score_set = ScoreSet("toy", "cross_record", "template", 0, (fold,))
    assert validation_d_prime(score_set) == pytest.approx(2.0)
    undefined = replace(fold, validation_scores=np.ones((2, 2)))
    assert np.isnan(validation_d_prime(replace(score_set, folds=(undefined,))))
    assert np.isnan(validation_d_prime(replace(score_set, folds=(fold, undefined))))
    gap = replace(fold, validation_scores=np.array([[2.0, 0.0], [np.nan, 4.0]]))
    assert np.isnan(validation_d_prime(replace(score_set, folds=(gap,))))


def test_gaussian_scores_have_the_planted_d_prime() -> None:
    rng = np.random.default_rng(0)
    people = np.arange(400).astype(str)
    scores = rng.normal(size=(400, 400)) + 3 * np.eye(400)
    fold = FoldScores(np.eye(400), people, people, people, scores, people, people)
    assert validation_d_prime(ScoreSet("toy", "p", "m", 0, (fold,))) == pytest.approx(3.0, abs=0.2)


def test_fusions_by_hand() -> None:
    people = np.array(["a", "b"])
    one = FoldScores(
        np.array([[1.0, 3.0]]), people[:1], people[:1], people, np.array([[9.0, 0.0], [4.0, 9.0]]), people, people
    )
    # impostors of the first: 0 and 4, mean 2, deviation 2; of the second: 10 and 30, mean 20, deviation 10
    two = replace(one, scores=np.array([[40.0, np.nan]]), validation_scores=np.array([[9.0, 10.0], [30.0, 9.0]]))
    sets = [[ScoreSet("toy", "p", name, 0, (fold,))] for name, fold in (("m1", one), ("m2", two))]
    (plain,) = fuse("both", sets, standardised=False)
    # a member without a score abstains
    np.testing.assert_allclose(plain.folds[0].scores, [[20.5, 3.0]])
    np.testing.assert_allclose(plain.folds[0].validation_scores, [[9.0, 5.0], [17.0, 9.0]])
    (standardised,) = fuse("both", sets, standardised=True)
    np.testing.assert_allclose(standardised.folds[0].scores, [[(-0.5 + 2.0) / 2, 0.5]])
    np.testing.assert_allclose(standardised.folds[0].validation_scores[0, 1], (-1.0 - 1.0) / 2)


def test_fusions_go_seed_by_seed_and_carry_no_demographics() -> None:
    attackers = _attackers(NOISE) | {"transecg": [fake_score_set("transecg", s, heads=True) for s in range(2)]}
    members = [attackers[m] for m in FUSIONS["networks + template"]]
    fused = fuse("networks + template", members, standardised=False)
    assert [s.seed for s in fused] == [0, 1]
    expected = np.mean([sets[min(1, len(sets) - 1)].folds[0].scores for sets in members], axis=0)
    np.testing.assert_allclose(fused[1].folds[0].scores, expected, rtol=1e-6)
    assert all(fold.demographics.empty for s in fused for fold in s.folds)


def test_a_missing_attacker_takes_its_fusions_along() -> None:
    attackers = {m: sets for m, sets in _attackers(NOISE).items() if m != "template"}
    assert set(select(attackers).d_primes) == {*attackers, "resnet1d + beatnet"}
    assert select({}).chosen is None
