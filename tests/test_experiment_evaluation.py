"""Evaluation of score sets: planted truth, chance under shuffled names, folds, gaps and bad input."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from fake_scores import fake_score_set, toy_score_set

from ecgstudy.evaluate.bootstrap import Resamples
from ecgstudy.evaluate.trials import ScoreMatrix, rank1_and_eer
from ecgstudy.experiment.evaluation import Evaluation, cohort_resamples, evaluate, evaluate_all
from ecgstudy.experiment.jobs import Outcome
from ecgstudy.experiment.scores import ScoreSet
from ecgstudy.reidentification import controls, tables
from ecgstudy.reidentification.persons import risk_table


def _resamples(score_set: ScoreSet, n: int = 50) -> Resamples:
    return cohort_resamples([score_set], 0, n)["toy"]


def _measured(*score_sets: ScoreSet, resamples: Resamples | None = None) -> pd.DataFrame:
    """Rows of one attacker, by metric."""
    rows, _ = evaluate(score_sets, resamples or _resamples(score_sets[0]))
    return pd.DataFrame(rows).set_index("metric")


def test_the_attacker_is_the_mean_of_its_seeds_and_each_seed_stands_beside_it() -> None:
    sets = [fake_score_set("transecg", seed, noise=2.0) for seed in range(3)]
    found = _measured(*sets)
    trials = sets[0].folds[0].trials
    mean = ScoreMatrix(np.mean([s.folds[0].trials.scores for s in sets], axis=0), trials.probe, trials.gallery)
    assert found.loc[["rank1", "eer"], "value"].tolist() == pytest.approx(rank1_and_eer([mean]))
    alone = np.array([rank1_and_eer([s.folds[0].trials]) for s in sets])
    assert found.loc[["rank1", "eer"], "lowest"].tolist() == pytest.approx(alone.min(axis=0))
    assert found.loc[["rank1", "eer"], "highest"].tolist() == pytest.approx(alone.max(axis=0))
    assert found.loc["rank1", "seeds"] == 3
    # independent noise averages out, so the ensemble beats every member
    assert found.loc["rank1", "value"] > found.loc["rank1", "highest"]
    assert found.loc[["persons", "enrolled", "probes"], "value"].tolist() == [40, 40, 80]
    assert found.loc[["persons", "probes", "d_sys", "eer"], "unit"].tolist() == ["persons", "probes", "", "share"]


def test_folds_are_scored_apart() -> None:
    # in each fold everybody is recognised; across folds p0 would be taken for q0
    one = toy_score_set([[1.0, 0.0], [0.0, 1.0]], ["p0", "p1"], ["p0", "p1"])
    other = toy_score_set([[9.0, 8.0], [8.0, 9.0]], ["q0", "q1"], ["q0", "q1"])
    found = _measured(replace(one, folds=one.folds + other.folds))
    assert found.loc[["eer", "rank1", "enrolled", "persons"], "value"].tolist() == [0, 1, 2, 4]
    assert found.loc["risk_median", "n"] == 4


@pytest.mark.parametrize("n_folds", [1, 2])
def test_shuffled_names_give_chance(n_folds: int) -> None:
    score_set = fake_score_set("resnet1d", noise=0.5, n_folds=n_folds)
    shuffled = [
        replace(fold, trials=replace(fold.trials, gallery=np.roll(fold.trials.gallery, 7))) for fold in score_set.folds
    ]
    found = _measured(replace(score_set, folds=tuple(shuffled)), resamples=_resamples(score_set, 200))
    assert found.loc["eer", "low"] < 0.5 < found.loc["eer", "high"]
    value = found["value"]
    assert value["rank1"] < 0.1
    assert value["tar_at_far_1e-2"] < 0.1
    assert value["d_sys"] < 2.5 * found.loc["d_sys_null", "high"]
    assert value["zebra_bits"] < 0.06
    assert value["cllr"] == pytest.approx(1.0, abs=0.1)
    assert _measured(score_set).loc["rank1", "value"] == 1.0


def test_a_probe_without_a_window_is_never_recognised_and_counted() -> None:
    nan = math.nan
    found = _measured(toy_score_set([[0.9, 0.1], [nan, nan], [0.8, 0.2]], "aba", "ab"))
    assert found.loc[["unscored", "rank1", "probes"], "value"].tolist() == pytest.approx([1, 2 / 3, 3])
    # a person without an enrolment window is found by nobody, and takes nobody's place
    absent = toy_score_set([[0.9, nan], [0.2, nan]], "ab", "ab")
    assert absent.folds[0].trials.without_gaps().scores.tolist() == [[0.9, 0.2], [0.2, 0.2]]
    assert _measured(absent).loc[["rank1", "unscored"], "value"].tolist() == [0.5, 0]
    assert _measured(toy_score_set([[nan, nan]], "a", "ab")).loc["rank1", "value"] == 0.0


@pytest.mark.parametrize(
    ("probe", "gallery", "metric", "reason"),
    [
        ("a", "a", "eer", "one person only, so there is no impostor trial"),
        ("x", "ab", "rank1", "no probe's person is in the gallery"),
        ("ab", "ab", "rank5", "the gallery holds 2 person(s)"),
        ("", "ab", "rank1", "no probe's person is in the gallery"),
        ("", "ab", "risk_median", "nobody has a probe"),
    ],
)
def test_what_cannot_be_measured_says_why(probe: str, gallery: str, metric: str, reason: str) -> None:
    row = _measured(toy_score_set(np.eye(2)[: len(probe), : len(gallery)], probe, gallery)).loc[metric]
    assert math.isnan(row["value"])
    assert f"Not defined: {reason}" in row["note"]


def test_resamples_are_shared_by_protocols() -> None:
    sets = [fake_score_set("template", protocol=p) for p in ("cross_record", "cross_day")]
    sets.append(fake_score_set("template", cohort="other", n_persons=5))
    drawn = cohort_resamples(sets, seed=3, n_resamples=20)
    assert {name: r.persons.size for name, r in drawn.items()} == {"toy": 40, "other": 5}
    again = cohort_resamples(sets[:1], seed=3, n_resamples=20)
    np.testing.assert_array_equal(again["toy"].indices, drawn["toy"].indices)


@pytest.fixture(scope="module")
def cell() -> Evaluation:
    """Four attackers under one protocol, one of them with two seeds."""
    sets = [fake_score_set("transecg", seed, noise=2.5) for seed in (0, 1)]
    sets += [fake_score_set("resnet1d", noise=1.0), fake_score_set("template", noise=3.0)]
    sets.append(fake_score_set("untrained", noise=6.0))
    return evaluate_all(sets, {"toy": _resamples(sets[0], 200)})


def test_best_repeats_the_chosen_attackers_numbers(cell: Evaluation) -> None:
    by_attacker = dict(list(cell.rows.groupby("attacker", sort=False)))
    assert list(by_attacker) == ["transecg", "resnet1d", "template", "untrained", "best"]
    assert by_attacker["best"]["stands_for"].unique().tolist() == ["resnet1d"]
    numbers = ["metric", "value", "low", "high", "n", "p", "seeds"]
    best, chosen = (by_attacker[name][numbers].reset_index(drop=True) for name in ("best", "resnet1d"))
    pd.testing.assert_frame_equal(best, chosen)
    assert cell.attacks["toy", "cross_record", "best"] is cell.attacks["toy", "cross_record", "resnet1d"]


def test_protocols_are_compared_in_galleries_of_one_size_and_without_those_who_never_probe() -> None:
    # b is ahead of a's probe, and d, who never probes, of b's and of c's
    scores = [[5, 6, 1, 1], [1, 5, 1, 6], [1, 1, 5, 6]]
    small = toy_score_set(np.eye(2), "ab", "ab", protocol="subject_disjoint_cross_record")
    rows = evaluate_all(
        [toy_score_set(scores, "abc", "abcd"), small], {"toy": _resamples(toy_score_set(scores, "abc", "abcd"))}
    ).rows
    found = rows.set_index(["protocol", "metric"])
    # in a random gallery of two, each probe's own and one of three others
    equal = found.loc[("cross_record", "rank1_equal_gallery")]
    assert equal["value"] == pytest.approx(2 / 3)
    assert equal["note"].startswith("In galleries of 2 persons, the smallest of the cohort's protocols. Exact bounds")
    value = found["value"]
    assert value["cross_record", "rank1"] == 0.0
    assert (
        value["cross_record", "rank1_returners"]
        == value["cross_record", "rank1_per_person_returners"]
        == pytest.approx(2 / 3)
    )
    assert value["cross_record", "eer_returners"] < value["cross_record", "eer"]
    assert ("subject_disjoint_cross_record", "rank1_returners") not in found.index
    nobody = toy_score_set(np.zeros((1, 2)), "x", "ab")
    alone = evaluate_all([nobody], {"toy": _resamples(nobody)}).rows.set_index("metric")["note"]
    assert "no probe's person is in the gallery" in alone["rank1_equal_gallery"]


def test_attackers_are_compared_on_identical_resamples(cell: Evaluation) -> None:
    rows = cell.rows.set_index(["attacker", "metric"])
    assert ("transecg", "rank1_minus_transecg") not in rows.index
    for name in ("rank1", "eer"):
        one, other = (rows.loc[(attacker, name), "value"] for attacker in ("resnet1d", "transecg"))
        assert rows.loc[("resnet1d", f"{name}_minus_transecg"), "value"] == pytest.approx(one - other)
    assert rows.loc[("resnet1d", "eer_minus_transecg"), "p"] < 0.02
    # the same scores under another name: the resamples are shared, so the difference is 0 in each of them
    sets = [fake_score_set("transecg", noise=2.5)]
    twin, _ = evaluate([replace(sets[0], attacker="twin")], _resamples(sets[0]), reference=sets)
    assert [(r["value"], r["low"], r["high"]) for r in twin if "minus" in r["metric"]] == [(0.0, 0.0, 0.0)] * 2


def test_tables_hold_what_was_evaluated(cell: Evaluation) -> None:
    values = cell.rows.set_index(["attacker", "metric"])["value"]
    best = tables.best_table(cell.rows).iloc[0]
    assert (best["attacker"], best["persons"], best["enrolled"]) == ("resnet1d", 40, 40)
    assert best["rank1_low"] <= best["rank1"] <= best["rank1_high"]
    disclosed = tables.disclosure_table(cell.rows).iloc[0]
    assert (disclosed["d_sys"], disclosed["cllr_min"]) == (values["best", "d_sys"], values["best", "cllr_min"])
    assert disclosed["zebra_tag"] in "ABCD"
    seeds = tables.seed_table(cell.rows)
    assert seeds["attacker"].tolist() == ["transecg", "resnet1d"]
    assert seeds["seeds"].tolist() == [2, 1]
    assert seeds["rank1 lowest"].iloc[0] <= seeds["rank1 highest"].iloc[0] <= seeds["rank1 ensemble"].iloc[0]
    contrasts = tables.contrast_table(cell.rows)
    assert contrasts["attacker"].tolist() == ["resnet1d", "template"]
    columns = ("{}", "{}_low", "{}_high", "p {}")
    assert list(contrasts)[3:] == [column.format(metric) for metric in ("rank1", "eer") for column in columns]


def test_claims_stand_beside_what_names_drawn_by_lot_give(cell: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    resamples, parts = (
        {"toy": _resamples(fake_score_set("beatnet"), 50)},
        ("permuted_training_and_enrolment", "permuted_training"),
    )
    noise = dict(zip(parts, (30.0, 2.0), strict=True))
    by_lot = [fake_score_set("beatnet", noise=noise[part], protocol=f"{part}.cross_record") for part in parts]
    outcome = Outcome(dict(enumerate(by_lot)), pd.DataFrame(), {"abc"})
    monkeypatch.setattr(controls, "run", lambda *_: outcome)
    drawn, commits = controls.control_results(None, [], resamples)
    assert commits == {"abc"}
    assert drawn["name"].tolist() == [
        f"control.{part}.cross_record.{metric}" for part in parts for metric in ("rank1", "eer")
    ]
    expected = [rank1_and_eer([fold.trials for fold in one.folds]) for one in by_lot]
    assert drawn["value"].tolist() == pytest.approx(np.ravel(expected))
    shown = controls.control_table(cell.rows, drawn, cell.attacks).iloc[0]
    values = cell.rows.set_index(["attacker", "metric"])["value"]
    assert shown["one in N"] == pytest.approx(1 / 40)
    assert shown["rank1, untrained network"] == values["untrained", "rank1"]
    assert shown["rank1"] == values["best", "rank1"]
    assert (
        shown["rank1, names by lot_low"]
        < shown["rank1, names by lot"]
        == expected[0][0]
        < shown["rank1, names by lot_high"]
    )
    assert shown["eer, names by lot in training alone"] == expected[1][1]
    told = controls.chance_finding(pd.DataFrame([shown, shown.replace(shown["rank1"], 0.0)]))
    assert told.startswith("1 of 2 claims lie above the interval")
    # a protocol without a control is none of them
    without = controls.control_table(cell.rows, drawn.head(0), cell.attacks)
    assert np.isnan(without["rank1, names by lot"]).all()
    assert controls.chance_finding(without).startswith("0 of 0 claims")
    assert controls.chance_finding(pd.DataFrame()).startswith("No attacker was chosen")


def test_the_tail_tells_who_is_always_and_who_is_never_found() -> None:
    # a: both probes first; b: one of two; c: none, and below every impostor
    scores = [[9, 0, 0], [9, 0, 0], [0, 9, 1], [5, 4, 1], [5, 5, 0], [5, 5, 0]]
    tail = _measured(toy_score_set(scores, "aabbcc", "abc"))["value"]
    assert tail[["always_first", "never_first"]].tolist() == pytest.approx([1 / 3, 1 / 3])
    assert tail[["risk_worst", "risk_median"]].tolist() == [1.0, pytest.approx(0.75)]
    attack = [toy_score_set(scores, "aabbcc", "abc").folds[0].trials.without_gaps()]
    weaker = [toy_score_set([[1, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0]], "aabbcc", "abc")]
    attacks = {("own-1", "cross_day", "template"): [weaker[0].folds[0].trials.without_gaps()]}
    attacks |= {("own-1", protocol, "best"): attack for protocol in ("random_windows", "cross_day")}
    listed = risk_table(attacks)
    assert listed.columns.tolist() == risk_table({}).columns.tolist()
    assert listed.drop(columns="risk").to_numpy().tolist() == [
        ["own-1", "cross_day", "a", 1.0],  # by the best
        ["own-1", "cross_day", "b", 1.0],  # by the template
        ["own-1", "cross_day", "c", 0.5],
    ]
    assert listed["risk"].tolist() == [1.0, 1.0, pytest.approx(0.6)]
    assert risk_table({}).columns.tolist() == ["cohort", "protocol", "person", "rank1", "risk"]


def test_a_cell_whose_validation_cannot_choose_has_no_best() -> None:
    toy = toy_score_set(np.eye(2), "ab", "ab")
    found = evaluate_all([toy], {"toy": _resamples(toy)})
    assert found.rows["attacker"].unique().tolist() == ["template"]
    assert [one.ranking.empty for one in found.choices["toy", "cross_record"]] == [True]
    missing = tables.undefined_results(found.rows, pd.DataFrame())
    assert missing["metric"].tolist() == ["rank1", "eer", "tar_at_far_1e-2", "d_sys"]
    assert missing["note"].str.contains("nobody to choose an attacker on").all()
    single = tables.undefined_results(found.rows.assign(protocol="random_windows"), pd.DataFrame())
    assert single.loc[single["protocol"] == "cross_record", "note"].str.contains("has one record").sum() == 4


def test_tables_show_attackers_by_their_mean_and_every_rule_beside_it() -> None:
    one = fake_score_set("template", noise=3.0)
    other = fake_score_set("beatcnn", noise=1.0)
    sets = [replace(one, others={"max": other.folds}), fake_score_set("untrained", noise=9.0)]
    rows = evaluate_all(sets, {"toy": _resamples(one)}).rows
    values = rows.set_index(["attacker", "metric"])["value"]
    shown = tables.attacker_table(rows, "eer")
    assert shown.columns.tolist() == ["cohort", "protocol", "template", "untrained", "best"]
    assert shown["template"].tolist() == [values["template", "eer"]]
    table = tables.enrolment_table(rows)
    assert table["attacker"].tolist() == ["template"]  # the control is enrolled in one way only
    expected = rank1_and_eer([other.folds[0].trials])
    assert table[["rank1, max", "eer, max"]].to_numpy().tolist() == [pytest.approx(expected)]
    assert table["rank1, mean"].tolist() == [values["template", "rank1"]]
    assert tables.enrolment_table(rows.drop(columns=["base", "rule"])).empty


def test_the_published_accuracies_stand_first() -> None:
    row = {"attacker": "transecg", "metric": "person_accuracy", "value": 0.9, "low": 0.8, "high": 1.0}
    table = tables.pooled_table(pd.DataFrame([row, row | {"metric": "sex_accuracy", "value": 0.7}]))
    assert table["attacker"].tolist() == ["TransECG, published", "transecg"]
    assert table["person_accuracy"].tolist() == [0.886, 0.9]
    assert "age_accuracy" not in table
