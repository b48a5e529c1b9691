"""Enrolment rules: one template or several, scores as they are or relative, each against what a hand works out."""

import numpy as np
import pytest

from ecgstudy.experiment.templates import ENROLMENTS, LEAST_OTHERS, Gallery
from ecgstudy.learn.classical import unit_rows

NAMES = tuple(ENROLMENTS)
RAW, NORMALISED = NAMES[:2], NAMES[2:]


def scores(rule: str, known: np.ndarray, owners: list[int], asked: np.ndarray, n: int = 0) -> np.ndarray:
    """Scores of probes by a rule of the registry."""
    return Gallery.enrolled(known, np.array(owners), n or max(owners) + 1, ENROLMENTS[rule]).scores(asked)


def crowd(n: int, each: int, noise: float, seed: int = 0) -> tuple[np.ndarray, list[int], np.ndarray]:
    """Segments of n persons with their owners, in a mixed order, and one probe each."""
    rng = np.random.default_rng(seed)
    persons = unit_rows(rng.normal(size=(n, 12)))
    owners = rng.permutation(np.tile(np.arange(n), each))
    known, asked = (unit_rows(persons[of] + noise * rng.normal(size=(len(of), 12))) for of in (owners, np.arange(n)))
    return known, owners.tolist(), asked


def test_a_person_of_two_states_is_known_by_the_nearer_template_or_by_what_lies_between() -> None:
    known, asked = np.eye(3), np.eye(3)[[0, 1]]
    # person 0 was enrolled as x and as y, person 1 as z
    np.testing.assert_allclose(scores("max", known, [0, 0, 1], asked), [[1, 0], [1, 0]])
    np.testing.assert_allclose(scores("mean", known, [0, 0, 1], asked), [[0.5**0.5, 0], [0.5**0.5, 0]])


@pytest.mark.parametrize("rule", NAMES)
def test_with_one_segment_each_several_templates_are_one_and_the_order_of_segments_is_nothing(rule: str) -> None:
    known, owners, asked = crowd(9, 1, 0.3)
    one = scores(rule, known, owners, asked)
    np.testing.assert_allclose(one, scores(rule.replace("max", "mean"), known, owners, asked), rtol=1e-5)
    known, owners, asked = crowd(9, 3, 0.3)
    order = np.random.default_rng(1).permutation(len(known))
    again = scores(rule, known[order], [owners[at] for at in order], asked)
    np.testing.assert_allclose(again, scores(rule, known, owners, asked), rtol=1e-5)


@pytest.mark.parametrize("rule", NAMES)
def test_what_is_not_usable_enrols_nobody_and_asks_nobody(rule: str) -> None:
    known, owners, asked = crowd(7, 2, 0.3)
    known[[at for at, owner in enumerate(owners) if owner == 4]] = np.nan
    known[owners.index(2)] = np.nan  # one of two
    asked[3] = np.nan
    found = scores(rule, known, owners, asked, n=8)  # and an eighth without any segment
    assert np.isnan(found[:, [4, 7]]).all()
    assert np.isnan(found[3]).all()
    rest = np.delete(np.delete(found, 3, axis=0), [4, 7], axis=1)
    assert np.isfinite(rest).all()
    usable = np.isfinite(known).all(axis=1)
    others = scores(rule, known[usable], np.array(owners)[usable].tolist(), asked, n=8)
    np.testing.assert_array_equal(found, others)
    assert np.isnan(scores(rule, known * np.nan, owners, asked)).all()


@pytest.mark.parametrize("rule", NORMALISED)
def test_relative_scores_by_hand(rule: str) -> None:
    known, owners, asked = crowd(6, 2, 0.5)
    raw = scores(rule.removesuffix("_normalised"), known, owners, asked).astype(float)
    among = scores(rule.removesuffix("_normalised"), known, owners, known).astype(float)
    expected = np.empty_like(raw)
    for probe in range(6):
        for person in range(6):
            strangers = [among[at, person] for at, owner in enumerate(owners) if owner != person]
            others = sorted(raw[probe])[:-1]
            by_person = (raw[probe, person] - np.mean(strangers)) / np.std(strangers)
            expected[probe, person] = (by_person + (raw[probe, person] - np.mean(others)) / np.std(others)) / 2
    np.testing.assert_allclose(scores(rule, known, owners, asked), expected, rtol=1e-4)


@pytest.mark.parametrize("rule", NORMALISED)
def test_a_probe_is_scored_without_a_look_at_the_others(rule: str) -> None:
    known, owners, asked = crowd(8, 2, 0.5)
    alone = np.concatenate([scores(rule, known, owners, asked[at : at + 1]) for at in range(8)])
    np.testing.assert_allclose(alone, scores(rule, known, owners, asked), rtol=1e-5)


@pytest.mark.parametrize("rule", NORMALISED)
@pytest.mark.parametrize("n", [1, LEAST_OTHERS, LEAST_OTHERS + 1])
def test_among_few_enrolled_nothing_is_usual_and_scores_stay_as_they_are(rule: str, n: int) -> None:
    known, owners, asked = crowd(n, 2, 0.5)
    plain = scores(rule.removesuffix("_normalised"), known, owners, asked)
    assert np.array_equal(scores(rule, known, owners, asked), plain) == (n <= LEAST_OTHERS)


def found(rule: str, known: np.ndarray, owners: list[int], asked: np.ndarray) -> np.ndarray:
    """Who each probe is taken for."""
    return scores(rule, known, owners, asked).argmax(axis=1)


def test_several_templates_find_who_was_enrolled_in_two_states() -> None:
    n, rng = 200, np.random.default_rng(0)
    first, second = (unit_rows(rng.normal(size=(n, 64))) for _ in range(2))
    known, owners = np.concatenate([first, second]), [*range(n)] * 2
    asked = unit_rows(second + 0.25 * rng.normal(size=(n, 64)))  # in the second state, as if it were another person's
    right = {rule: (found(rule, known, owners, asked) == np.arange(n)).mean() for rule in RAW}
    assert right["max"] > right["mean"] + 0.1


def test_relative_scores_find_who_is_lost_to_one_whom_everybody_resembles() -> None:
    n, rng, common = 40, np.random.default_rng(0), np.eye(512)[:1]
    persons = unit_rows(rng.normal(size=(n, 512)))
    known, asked = (2 * common + persons + rng.normal(0, (1.8 / 512) ** 0.5, (n, 512)) for _ in range(2))
    # the last person was enrolled by what all recordings share: cosines with him are 0.77, with oneself 5 / 6.8 = 0.74
    known, asked, owners = unit_rows(np.concatenate([known, common])), unit_rows(asked), [*range(n + 1)]
    for rule in RAW:
        assert (found(rule, known, owners, asked) == n).mean() > 0.9
    for rule in NORMALISED:
        assert (found(rule, known, owners, asked) == np.arange(n)).mean() > 0.9


def test_strangers_are_drawn_evenly_where_they_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    known, owners, asked = crowd(30, 4, 0.5)
    every = scores("mean_normalised", known, owners, asked)
    monkeypatch.setattr("ecgstudy.experiment.templates.MOST_STRANGERS", 60)
    some = scores("mean_normalised", known, owners, asked)
    assert not np.array_equal(some, every)
    assert np.corrcoef(some.ravel(), every.ravel())[0, 1] > 0.99
