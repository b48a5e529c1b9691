"""The choice of the best attacker: on the recordings of other people, and on nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from fake_scores import fake_score_set, toy_score_set

from ecgstudy.evaluate.streamed import StreamedMatrix
from ecgstudy.evaluate.trials import ScoreMatrix, rank1_and_eer
from ecgstudy.experiment.evaluation import Evaluation, cohort_resamples, evaluate_all
from ecgstudy.experiment.scores import FoldScores, ScoreSet, ensemble
from ecgstudy.experiment.selection import (
    FUSIONS,
    JUDGES,
    Choice,
    best_scores,
    candidates_of,
    choose,
    fuse,
)
from ecgstudy.reidentification.tables import choice_table

NOISE = {"transecg": 2.0, "resnet1d": 1.5, "beatnet": 1.4, "features_gbm": 3.0, "template": 2.5}
FOLDS = [["a0", "a1"], ["b0", "b1"], ["c0", "c1"]]
OWN = ("toy", "cross_day")


def _fold(persons: Sequence[str], right: bool, strength: float = 1.0) -> FoldScores:
    """Everybody is found, or is taken for the neighbour."""
    scores = strength * (np.eye(len(persons)) if right else np.roll(np.eye(len(persons)), 1, axis=1))
    matrix = ScoreMatrix(scores, persons, persons)
    return FoldScores(matrix, ScoreMatrix(np.eye(3), ["x", "y", "z"], ["x", "y", "z"]), matrix.probe)


def _judged(attacker: str, right: Sequence[bool], cohort: str = "toy", protocol: str = JUDGES[0]) -> ScoreSet:
    """Trials of the judge, in each of whose folds everybody is found or nobody is."""
    folds = tuple(_fold(persons, own) for persons, own in zip(FOLDS, right, strict=True))
    return ScoreSet(cohort, protocol, attacker, 0, folds)


def _tried(attacker: str, right: bool, strength: float = 1.0, cohort: str = "toy", seed: int = 0) -> ScoreSet:
    """Trials of everybody under another protocol."""
    return ScoreSet(cohort, "cross_day", attacker, seed, (_fold(np.ravel(FOLDS), right, strength),))


def _evaluated(*sets: ScoreSet) -> Evaluation:
    return evaluate_all(sets, cohort_resamples(sets, 0, 20))


def _best(found: Evaluation, metric: str = "rank1") -> Mapping[str, object]:
    rows = found.rows.set_index(["cohort", "protocol", "attacker", "metric"])
    return rows.loc[(*OWN, "best", metric)]


def test_the_winner_on_other_people_is_the_headline_though_it_loses_on_the_probes() -> None:
    found = _evaluated(
        *(_judged(attacker, [won] * 3) for attacker, won in (("beatnet", True), ("resnet1d", False))),
        *(_tried(attacker, won) for attacker, won in (("beatnet", False), ("resnet1d", True))),
    )
    assert (_best(found)["stands_for"], _best(found)["value"]) == ("beatnet", 0.0)
    rows = found.rows.set_index(["protocol", "attacker", "metric"])["value"]
    assert rows["cross_day", "resnet1d", "rank1"] == 1.0


def test_nobodys_own_recordings_have_a_say() -> None:
    # beatnet wins in the first fold alone, so for everybody else: it loses there, and resnet1d is taken for fold one
    sets = [_judged("beatnet", [True, False, False]), _judged("resnet1d", [False, True, True])]
    sets += [_tried("beatnet", True), _tried("resnet1d", False)]
    choices = choose(_cells(sets))[OWN]
    assert [sorted(one.persons) for one in choices] == FOLDS
    chosen = [one.ranking.index[0] for one in choices]
    assert chosen[0] == "resnet1d"
    # the ranking of a fold is the same whatever happens in it
    other = [_judged("beatnet", [False, False, False]), *sets[1:]]
    again = choose(_cells(other))[OWN]
    assert again[0].ranking.equals(choices[0].ranking)
    assert not again[1].ranking.equals(choices[1].ranking)


def _cells(sets: Sequence[ScoreSet]) -> dict[tuple[str, str], dict[str, list[ScoreSet]]]:
    cells: dict[tuple[str, str], dict[str, list[ScoreSet]]] = {}
    for one in sets:
        cells.setdefault((one.cohort, one.protocol), {}).setdefault(one.attacker, []).append(one)
    return cells


def test_each_person_is_sought_by_the_one_who_was_chosen_for_that_person() -> None:
    # for the first fold m2 was chosen, for the others m1, which finds nobody
    sets = {"m1": [_tried("m1", False)], "m2": [_tried("m2", True, strength=50.0)]}
    first, others = frozenset(FOLDS[0]), frozenset(FOLDS[1] + FOLDS[2])
    rankings = {
        name: choose(_cells([_judged("m1", [name == "m1"] * 3), _judged("m2", [name == "m2"] * 3)]))
        for name in ("m1", "m2")
    }
    by_name = {name: found["toy", JUDGES[0]][0].ranking for name, found in rankings.items()}
    choices = [Choice(first, "", by_name["m2"]), Choice(others, "", by_name["m1"])]
    name, (best,) = best_scores(sets, choices)
    assert name == "m2 | m1"
    (fold,) = best.folds
    found = fold.trials.searches.ahead == 0
    assert fold.trials.probe[found].tolist() == FOLDS[0]
    # impostors of the validation part do not vary, so that scores stay as they are
    assert fold.trials.scores[0, 0] == 50.0
    # the same where there are too many trials to hold
    whole = [sets[m][0].folds[0].trials for m in ("m2", "m1")]
    streams = [StreamedMatrix(lambda rows, one=one: one.scores[rows], one.probe, one.gallery) for one in whole]
    which = np.array([0, 0, 1, 1, 1, 1])
    rows = slice(1, 4)
    np.testing.assert_array_equal(streams[0].chosen(which, streams).block(rows), fold.trials.scores[rows])


def test_of_several_the_scores_are_brought_to_one_scale() -> None:
    held = ScoreMatrix([[9.0, 0.0], [4.0, 9.0]], ["x", "y"], ["x", "y"])  # impostors: mean 2, deviation 2
    m1, m2 = (replace(_tried(m, True).folds[0], validation=held) for m in ("m1", "m2"))
    sets = {m: [replace(_tried(m, True), folds=(fold,))] for m, fold in (("m1", m1), ("m2", m2))}
    ranking = choose(_cells([_judged("m1", [True] * 3)]))["toy", JUDGES[0]][0].ranking
    choices = [Choice(frozenset(FOLDS[0]), "", ranking), Choice(frozenset(FOLDS[1]), "", ranking.rename({"m1": "m2"}))]
    _, (best,) = best_scores(sets, choices)
    np.testing.assert_allclose(best.folds[0].trials.scores[:2], (m1.trials.scores[:2] - 2) / 2)


def test_a_cohort_without_people_unseen_goes_by_another_day_of_the_largest_other_cohort() -> None:
    sets = [_judged("beatnet", [True] * 3, "small"), _judged("resnet1d", [False] * 3, "small")]
    big = [replace(_judged(m, [w] * 3, "big"), protocol=JUDGES[1]) for m, w in (("beatnet", 0), ("resnet1d", 1))]
    mine = [_tried("beatnet", True, cohort="mine"), _tried("resnet1d", True, cohort="mine")]
    # another day before another record, however many people
    (choice,) = choose(_cells([*big, *sets, *mine]))["mine", "cross_day"]
    assert (choice.judged, choice.ranking.index[0]) == ("small, subject disjoint cross day", "beatnet")
    assert not choice.persons
    # of equals, where more people are sought
    more = [replace(one, cohort="more", folds=one.folds + one.folds) for one in big]
    few = [replace(one, folds=(replace(one.folds[0], trials=_few(one)),) * 3) for one in big]
    (choice,) = choose(_cells([*few, *more, *mine]))["mine", "cross_day"]
    assert choice.judged.startswith("more")
    (own,) = choose(_cells(mine))["mine", "cross_day"]
    assert own.judged == "its own validation part"
    assert own.ranking["rank1"].tolist() == [1.0, 1.0, 1.0]  # their fusion too


def _few(one: ScoreSet) -> ScoreMatrix:
    return replace(one.folds[0].trials, scores=one.folds[0].trials.scores[:1], probe=["a0"])


def test_persons_count_alike_then_the_error_rate_decides_then_the_order() -> None:
    # a probes nine times and is always found; b and c once, and never: rank-1 .82 over probes, 1/3 over persons
    probe, often = ["a"] * 9 + ["b", "c"], np.zeros((11, 3))
    often[:9, 0], often[9:, 0] = 1, 1
    fair = np.zeros((11, 3))
    fair[:9, 2], fair[9, 1], fair[10, 2] = 1, 1, 1  # b and c are found, a is not: 2/3 over persons
    sets = [toy_score_set(s, probe, "abc", attacker=m, protocol=JUDGES[0]) for m, s in (("m1", often), ("m2", fair))]
    sets = [replace(one, folds=one.folds * 3) for one in sets]
    ranking = choose(_cells(sets))["toy", JUDGES[0]][0].ranking
    assert ranking.index.tolist() == ["m2", "m1"]
    assert ranking["rank1"].tolist() == pytest.approx([2 / 3, 1 / 3])
    # everybody is first by both, but one score of a stranger lies above two genuine ones
    clear = toy_score_set(np.eye(3), "abc", "abc", attacker="clear", protocol=JUDGES[0])
    blurred = toy_score_set([[1, 0, 0], [2, 9, 0], [2, 0, 9]], "abc", "abc", attacker="blurred", protocol=JUDGES[0])
    twin = replace(clear, attacker="twin")
    sets = [replace(one, folds=one.folds * 3) for one in (blurred, clear, twin)]
    assert choose(_cells(sets))["toy", JUDGES[0]][0].ranking.index.tolist() == ["clear", "twin", "blurred"]


def test_every_rule_of_enrolment_makes_a_candidate_of_attackers_and_fusions_but_never_of_the_control() -> None:
    plain = {m: [fake_score_set(m)] for m in (*NOISE, "untrained")}
    both = {m: [replace(s, others={"max": s.folds}) for s in sets] for m, sets in plain.items()}
    names = {*NOISE, "resnet1d + beatnet", "networks + template"}
    assert set(candidates_of(plain)) == names
    found = candidates_of(both)
    assert set(found) == names | {f"{name}_max" for name in names}
    assert [sets[0].attacker for sets in found.values()] == list(found)
    # by the rule's own scores
    other = replace(plain["template"][0], others={"max": (_fold(["a0"], True),)})
    assert candidates_of({"template": [other]})["template_max"][0].folds == other.others["max"]
    without = {m: sets for m, sets in plain.items() if m != "template"}
    assert "networks + template" not in candidates_of(without)


def test_rank1_and_eer_stand_under_every_rule() -> None:
    one = replace(_tried("template", False), others={"max": _tried("template", True).folds})
    rows = _evaluated(one).rows
    by_rule = rows[rows["attacker"] == "template_max"].set_index("metric")
    assert by_rule.index.tolist() == ["rank1", "rank1_per_person", "eer"]
    assert by_rule["value"].tolist() == [1.0, 1.0, 0.0]
    assert by_rule[["base", "rule"]].drop_duplicates().to_numpy().tolist() == [["template", "max"]]
    # chosen on the validation part, where both are the same: the first
    assert set(rows.loc[rows["attacker"] == "best", "stands_for"]) == {"template"}
    assert rows.loc[rows["attacker"] == "best", "metric"].is_unique


def test_the_ensemble_of_all_seeds_is_judged_and_not_one_of_them() -> None:
    # the first seed tells its people apart, the second takes each for the other and weighs more
    first, second = _judged("template", [True] * 3), replace(_judged("template", [False] * 3), seed=1)
    second = replace(second, folds=tuple(_fold(persons, False, 3.0) for persons in FOLDS))
    ranking = choose(_cells([first, second]))["toy", JUDGES[0]][0].ranking
    assert ranking.loc["template", "rank1"] == 0.0


def test_where_nothing_is_ranked_nobody_is_best() -> None:
    assert best_scores({}, []) is None
    toy = toy_score_set(np.eye(2), "ab", "ab")
    choices = choose(_cells([toy]))["toy", "cross_record"]
    assert choices[0].ranking.empty
    assert best_scores({"template": [toy]}, choices) is None
    shown = choice_table({("toy", "cross_record"): choices}).iloc[0]
    assert (shown["chosen"], shown["chosen for"], shown["persons judged"]) == ("none", "all", 0)


def test_the_table_of_choices_shows_the_next_best_and_protocols_of_one_choice_together() -> None:
    sets = [_judged(attacker, [True] * 3) for attacker in NOISE]
    sets += [_tried(attacker, True) for attacker in NOISE]
    table = choice_table(choose(_cells(sets)))
    assert table["fold"].tolist() == [1, 2, 3]
    assert table["chosen for"].tolist() == ["2", "2", "2"]
    assert table["persons judged"].tolist() == [4, 4, 4]
    assert table["chosen"].tolist() == ["transecg 100.0 / 0.0"] * 3
    assert table["next"].iloc[0].count("100.0 / 0.0") == 3
    assert table["judged on"].iloc[0] == "toy, subject disjoint cross day, other folds"
    assert set(table["protocols"]) == {"all"}
    # where the same was not chosen everywhere, protocols are named
    choices = choose(_cells(sets))
    *others, last = choices.pop(("toy", "cross_day"))
    table = choice_table(choices | {("toy", "elsewhere"): [*others, last._replace(judged="elsewhere")]})
    assert table["protocols"].tolist() == ["all", "all", "subject disjoint cross day", "elsewhere"]


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
    attackers = {m: [fake_score_set(m, s, heads=m == "transecg") for s in range(2)] for m in NOISE}
    attackers["template"] = attackers["template"][:1]
    members = [attackers[m] for m in FUSIONS["networks + template"][0]]
    fused = fuse("networks + template", members, standardised=False)
    assert [s.seed for s in fused] == [0, 1]
    expected = np.mean([sets[min(1, len(sets) - 1)].folds[0].trials.scores for sets in members], axis=0)
    np.testing.assert_allclose(fused[1].folds[0].trials.scores, expected, rtol=1e-6)
    assert all(fold.demographics.empty for s in fused for fold in s.folds)


def test_a_fusion_is_better_than_its_members_where_their_errors_are_their_own() -> None:
    sets = {m: [fake_score_set(m, noise=3.0)] for m in ("resnet1d", "beatnet")}
    fused = candidates_of(sets)["resnet1d + beatnet"]
    alone = [rank1_and_eer([sets[m][0].folds[0].trials])[0] for m in sets]
    assert rank1_and_eer([ensemble(fused).folds[0].trials])[0] > max(alone)
