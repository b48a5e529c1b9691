"""The report of one attacker: agreement with its parts, null cases, and bad input."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta

from ecgstudy.evaluate import biometric as report_module
from ecgstudy.evaluate.biometric import ScoredFold, biometric_report, eer_statistic, rank1_statistic
from ecgstudy.evaluate.bootstrap import Estimate, Resamples
from ecgstudy.evaluate.disclosure import zebra_bits
from ecgstudy.evaluate.trials import ScoreMatrix, eer, rank1_and_eer, rank_k, tar_at_far


def _scores(rng: np.random.Generator, separation: float) -> ScoreMatrix:
    """40 persons, 1 to 5 probes each, two gallery entries a person."""
    probe, gallery = np.repeat(np.arange(40), rng.integers(1, 6, 40)), np.repeat(np.arange(40), 2)
    own = probe[:, None] == gallery
    return ScoreMatrix(rng.normal(size=own.shape) + separation * own, probe, gallery)


def _report(matrix: ScoreMatrix, resamples: Resamples, rng: np.random.Generator) -> dict[str, Estimate]:
    return biometric_report([ScoredFold(matrix, resamples, rng)], resamples, rng)


def test_report_agrees_with_its_parts() -> None:
    matrix = _scores(np.random.default_rng(0), 2.0)
    resamples = Resamples.draw(range(40), seed=1, n_resamples=100)
    report = _report(matrix, resamples, np.random.default_rng(0))
    levels, searches = matrix.levels, matrix.searches
    expected = {
        "rank1": rank_k(searches, 1, np.ones(matrix.probe.size)),
        "rank5": rank_k(searches, 5, np.ones(matrix.probe.size)),
        "rank1_per_person": np.mean([np.mean(searches.ahead[matrix.probe == str(p)] == 0) for p in range(40)]),
        "eer": eer(levels),
        **{f"tar_at_far_{name}": tar_at_far(levels, far) for name, far in report_module.FARS.items()},
        "zebra_bits": zebra_bits(levels),
    }
    for name, value in expected.items():
        assert report[name].value == pytest.approx(value, abs=1e-12), name
    assert rank1_and_eer([matrix, matrix]) == pytest.approx([expected["rank1"], expected["eer"]])
    for name, estimate in report.items():
        assert estimate.low <= estimate.high, name
        assert estimate.n == 40, name
        # 120 searches barely resolve a FAR of 1e-2, so a resample with fewer is undefined
        assert estimate.undefined == 0 or (name.startswith("dir") and estimate.undefined < 10), name
    assert report["eer"].low < report["eer"].value < report["eer"].high
    assert report["d_sys"].low > report["d_sys_null"].high
    assert report["cllr_min"].value <= report["cllr"].value + 0.05
    assert report["cllr"].value < 1


def test_permuted_labels_give_chance() -> None:
    rng = np.random.default_rng(1)
    matrix = _scores(rng, 3.0)
    resamples = Resamples.draw(range(40), seed=1, n_resamples=200)
    # gallery labels no longer belong to the embeddings: everybody gets a stranger's entries
    report = _report(replace(matrix, gallery=np.roll(matrix.gallery, 2)), resamples, rng)
    assert report["eer"].low < 0.5 < report["eer"].high
    assert report["rank1"].value < 0.1
    assert report["tar_at_far_1e-2"].value < 0.05
    assert report["d_sys"].value < 2 * report["d_sys_null"].high
    assert report["zebra_bits"].value < 0.05
    assert report["cllr"].value == pytest.approx(1.0, abs=0.05)


def test_cllr_is_calibrated_on_other_persons() -> None:
    # a logistic fit to the very trials it scores never costs more than 1 bit, however little they hold
    resamples = Resamples.draw(range(8), seed=0, n_resamples=1)
    found = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        report = _report(ScoreMatrix(rng.normal(size=(8, 8)), range(8), range(8)), resamples, rng)
        found.append(report["cllr"].value)
    assert np.mean(found) > 1.02


def test_a_person_with_many_records_does_not_dominate() -> None:
    # person 0 has 60 probes that always fail, nine others one that always succeeds
    probe, gallery = np.repeat(np.arange(10), [60] + [1] * 9), np.arange(10)
    scores = np.where(probe[:, None] == gallery, 1.0, 0.0)
    scores[probe == 0] = np.where(gallery == 1, 1.0, 0.0)
    resamples = Resamples.draw(gallery, seed=0, n_resamples=50)
    report = _report(ScoreMatrix(scores, probe, gallery), resamples, np.random.default_rng(0))
    assert report["rank1"].value == pytest.approx(9 / 69)
    assert report["rank1_per_person"].value == pytest.approx(0.9)
    assert report["eer_per_person"].value < report["eer"].value


def test_per_person_risk_and_its_tail() -> None:
    probe, gallery = np.repeat(np.arange(20), 2), np.arange(20)
    scores = np.where(probe[:, None] == gallery, 1.0, 0.0)
    scores[0, 0], scores[0, 1] = 0.0, 0.5
    risk = report_module.per_person_risk([ScoreMatrix(scores, probe, gallery)]).set_index("person")
    assert risk.loc["0", "rank1"] == 0.5
    assert risk.loc["1", ["rank1", "eer"]].tolist() == [1, 0]
    # own impostors only: one genuine at 1 above all, one at 0 tied with 18 of 19 at 0 and below .5
    assert 0 < risk.loc["0", "eer"] < 0.6
    spread = {"always_first": 0.95, "never_first": 0.0, "resolution": 1 - 0.025 ** (1 / 20)}
    assert report_module.risk_tail(risk) == pytest.approx(
        {"risk_median": 1.0, "risk_p90": 1.0, "risk_p95": 1.0, "risk_worst": 1.0} | spread
    )
    uneven = report_module.risk_tail(pd.DataFrame({"eer": [*np.linspace(0, 1, 101) ** 2, math.nan], "rank1": 1}))
    assert [*uneven.values()][:4] == pytest.approx([0.75, 0.99, 0.9975, 1.0])
    assert all(
        map(
            math.isnan,
            report_module.risk_tail(report_module.per_person_risk([ScoreMatrix([[1.0]], ["a"], ["b"])])).values(),
        )
    )


def test_headlines_weigh_probes_by_their_person() -> None:
    resamples = Resamples.draw("ab", seed=0, n_resamples=1)
    scores = [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]
    fold = ScoredFold(ScoreMatrix(scores, list("aab"), list("ab")), resamples, np.random.default_rng(0))
    assert fold.measure(np.array([1.0, 0.0]), everything=False)["rank1"] == 0.5
    assert fold.measure(np.array([0.0, 3.0]))["rank1"] == 0.0
    assert fold.measure(np.ones(2))["rank1_per_person"] == 0.25
    perfect = ScoredFold(ScoreMatrix(np.eye(2), list("ab"), list("ab")), resamples, np.random.default_rng(0))
    # two probes of a: one right, one wrong; the probe of b is wrong
    assert rank1_statistic([fold, perfect])(np.ones(2)) == pytest.approx((1 / 3 + 1) / 2)
    assert eer_statistic([fold, perfect])(np.ones(2)) == pytest.approx(fold.measure(np.ones(2))["eer"] / 2)


def test_near_certainty_the_bounds_are_exact_and_count_the_persons_of_all_folds() -> None:
    names = np.arange(40).astype(str)
    resamples, rng = Resamples.draw(names, seed=1, n_resamples=20), np.random.default_rng(0)
    probe = np.repeat(names[:20], [9, *[1] * 19])
    uneven = ScoreMatrix(np.where(probe[:, None] == names[:20], 1.0, 0.0), probe, names[:20])
    other = ScoreMatrix(np.eye(20), names[20:], names[20:])
    report = biometric_report([ScoredFold(one, resamples, rng) for one in (uneven, other)], resamples, rng)
    # in the first fold one person gave 9 of 28 probes; each fold counts half
    worth = 1 / (np.array([9 / 56, *[1 / 56] * 19, *[1 / 40] * 20]) ** 2).sum()
    for name in ("rank1", "rank5", "tar_at_far_1e-2"):
        assert (report[name].low, report[name].high) == (pytest.approx(0.025 ** (1 / worth)), 1.0), name
        assert report[f"{name}_per_person"].low == pytest.approx(0.025 ** (1 / 40)), name
    assert (report["eer"].low, report["eer"].high) == (0.0, pytest.approx(1 - 0.025 ** (1 / worth)))
    assert not report["d_sys"].exact
    # the scores of two persons are below a stranger's: both are missed by rank-1 and by the thresholds
    wrong = replace(other, scores=np.where(np.arange(20)[:, None] < 2, -np.eye(20), np.eye(20)))
    alone = biometric_report([ScoredFold(wrong, resamples, rng)], resamples, rng)
    for name in ("rank1", "tar_at_far_1e-2", "rank1_per_person"):
        assert (alone[name].value, alone[name].exact) == (0.9, True), name
        assert alone[name].low == pytest.approx(beta.ppf(0.025, 18, 3)), name


def test_folds_are_averaged_and_share_their_resamples() -> None:
    rng = np.random.default_rng(3)
    matrices = [_scores(rng, separation) for separation in (1.0, 2.0)]
    resamples = Resamples.draw(range(40), seed=1, n_resamples=50)
    folds = [ScoredFold(matrix, resamples, np.random.default_rng(0)) for matrix in matrices]
    report = biometric_report(folds, resamples, np.random.default_rng(0))
    alone = [biometric_report([fold], resamples, np.random.default_rng(0)) for fold in folds]
    for name in ("rank1", "eer_per_person", "d_sys", "cllr", "zebra_bits", "dir_at_far_1e-2"):
        assert report[name].value == pytest.approx(np.mean([one[name].value for one in alone])), name
    drawn = np.random.default_rng(0)
    null = np.mean([fold.linkability.null_draws(report_module.N_PERMUTATIONS, drawn) for fold in folds], axis=0)
    found = report["d_sys_null"]
    assert (found.value, found.low, found.high) == pytest.approx((null.mean(), *np.quantile(null, [0.025, 0.975])))
    draws = [np.mean([fold.measure(m, everything=False)["eer"] for fold in folds]) for m in resamples.multiplicities]
    assert (report["eer"].low, report["eer"].high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])))


def test_one_fold_without_a_metric_leaves_it_undefined_with_its_reason() -> None:
    resamples = Resamples.draw("abcd", seed=0, n_resamples=5)
    rng = np.random.default_rng(0)
    matrices = ScoreMatrix(np.eye(2), list("ab"), list("ab")), ScoreMatrix([[1.0]], ["c"], ["c"])
    report = biometric_report([ScoredFold(one, resamples, rng) for one in matrices], resamples, rng)
    assert math.isnan(report["rank1"].value)
    assert report["rank1"].reason == "the gallery holds 1 person(s), too few for rank 1"


def test_with_many_trials_only_the_headlines_get_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = _scores(np.random.default_rng(0), 2.0)
    resamples = Resamples.draw(range(40), seed=1, n_resamples=20)
    folds = [ScoredFold(matrix, resamples, np.random.default_rng(0))]
    whole = biometric_report(folds, resamples, np.random.default_rng(0))
    monkeypatch.setattr(report_module, "MOST_RESAMPLED_TRIALS", matrix.scores.size - 1)
    short = biometric_report(folds, resamples, np.random.default_rng(0))
    assert short.keys() == whole.keys()
    for name in ("rank1", "rank5", "eer", "tar_at_far_1e-2", "tar_at_far_1e-3", "rank1_per_person"):
        assert short[name] == whole[name], name
    assert short["d_sys"].value == whole["d_sys"].value
    assert math.isnan(short["d_sys"].low)
    assert short["d_sys"].reason == "too many trials to resample this metric"


@pytest.mark.parametrize(
    ("probe", "gallery", "name", "reason"),
    [
        (["a", "a"], ["a"], "eer", "one person only, so there is no impostor trial"),
        (["a", "a"], ["a"], "rank1", "the gallery holds 1 person(s), too few for rank 1"),
        (["a", "b"], ["a", "b"], "rank5", "the gallery holds 2 person(s), too few for rank 5"),
        (["a", "b"], ["a", "b"], "tar_at_far_1e-2", "2 impostor trials cannot resolve a FAR of 0.01"),
        (["a", "b"], ["a", "b"], "dir_at_far_1e-2", "2 searches cannot resolve a FAR of 0.01"),
        (["a", "b"], ["a", "b"], "d_sys", "2 genuine trials; D_sys needs 20"),
        (["a", "b"], ["a", "b"], "cllr", "too few persons to calibrate the scores on other persons"),
        (["x", "y"], ["a", "b"], "rank1", "no probe's person is in the gallery"),
        (["x"], ["a"], "zebra_bits", "no person has both a probe and a gallery entry, so there is no genuine trial"),
    ],
)
def test_what_cannot_be_measured_says_why(probe: list[str], gallery: list[str], name: str, reason: str) -> None:
    resamples = Resamples.draw(probe + gallery, seed=0, n_resamples=20)
    rng = np.random.default_rng(0)
    matrix = ScoreMatrix(rng.normal(size=(len(probe), len(gallery))), probe, gallery)
    estimate = _report(matrix, resamples, rng)[name]
    assert math.isnan(estimate.value)
    assert estimate.reason == reason
    assert estimate.undefined == 20
