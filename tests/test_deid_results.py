"""Numbers of stage 05 are those worked out by hand; who is no valid attacker, or was not measured, has none."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from fake_scores import toy_score_set
from hearts import hearts, recording
from sklearn.metrics import roc_auc_score

from ecgstudy.deidentification import attributes, figures, plan, readers, readings, results, tables
from ecgstudy.deidentification.attacks import ADAPTIVE, IGNORANT, INVERSION, LAZY, REFERENCE, SEMI, AttackJob
from ecgstudy.deidentification.attributes import ReadingJob
from ecgstudy.deidentification.cycles import CycleSet
from ecgstudy.deidentification.plan import ATTACKER, PROTECTOR, VICTIM, groups
from ecgstudy.deidentification.release import RAW
from ecgstudy.deidentification.results import BEST, STRONGEST, WORST
from ecgstudy.errors import StudyError
from ecgstudy.evaluate.bootstrap import Resamples
from ecgstudy.evaluate.protocols import CrossDay, CrossRecord
from ecgstudy.evaluate.results import result, results_table
from ecgstudy.evaluate.trials import ScoreMatrix
from ecgstudy.experiment.scores import ScoreSet

PERSONS = [f"p{number}" for number in range(10)]
ABLE, UNABLE = (ScoreMatrix(scores, PERSONS[:4], PERSONS[:4]) for scores in (np.eye(4), np.zeros((4, 4))))
"""Trials of an attacker's own people, whom it tells apart, or no better than chance."""


@pytest.fixture(scope="module", autouse=True)
def _few_resamples() -> Iterator[None]:
    draw = Resamples.draw
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Resamples, "draw", lambda persons, seed: draw(persons, seed, 20))
        yield


def _attack(
    attacker: str, view: str, tier: str, eer: float, own: ScoreMatrix = ABLE, day: bool = False, cohort: str = "toy"
) -> tuple[AttackJob, ScoreSet]:
    """Scores of ten persons, some of whom are less like themselves than anybody: their share is the EER."""
    missed = np.arange(10) < 10 * eer
    protocol = CrossDay() if day else CrossRecord()
    made = toy_score_set(np.eye(10) - 2 * np.diag(missed), PERSONS, PERSONS, own, attacker, 0, protocol.name)
    return AttackJob(cohort, protocol, attacker, 0, view, tier), replace(made, cohort=cohort)


@pytest.fixture(scope="module")
def attacked() -> pd.DataFrame:
    made = [
        _attack("beatnet", RAW, REFERENCE, 0.2),  # too weak
        _attack("template", RAW, REFERENCE, 0.1),
        _attack("rhythm", RAW, REFERENCE, 0.4),
        _attack("inversion", RAW, REFERENCE, 0.1),
        _attack("template", RAW, REFERENCE, 0.0, day=True),
        _attack("rhythm", RAW, REFERENCE, 0.2, day=True),
        _attack("beatnet", BEST, SEMI, 0.0),
        _attack("template", BEST, SEMI, 0.3),
        _attack("rhythm", BEST, SEMI, 0.5, UNABLE),
        _attack("template", BEST, SEMI, 0.2, day=True),
        _attack("template", BEST, IGNORANT, 0.5),
        _attack("inversion", BEST, INVERSION, 0.4),
        _attack("resnet1d", BEST, LAZY, 0.0),  # never tried on raw records
        _attack("beatnet", "blind.1", SEMI, 0.0),
        _attack("template", "blind.1", SEMI, 0.1, UNABLE),
        _attack("template", "blind.1", IGNORANT, 0.1, UNABLE),
        _attack("template", RAW, REFERENCE, 0.0, cohort="other"),
        _attack("template", BEST, SEMI, 0.1, cohort="other"),
    ]
    refused = AttackJob("toy", CrossRecord(), "resnet1d", 0, RAW, REFERENCE)
    return results.attack_results({job.name: scores for job, scores in made}, [*(job for job, _ in made), refused], 0)


def _numbers(rows: pd.DataFrame) -> dict[str, float]:
    """Values by name; no name twice."""
    assert rows["name"].is_unique
    return rows.set_index("name")["value"].astype(float).to_dict()


def test_of_the_attackers_who_pass_both_gates_the_lowest_eer_stands(attacked: pd.DataFrame) -> None:
    found, start = _numbers(attacked), f"deid.{BEST}.person.semi_informed.toy.cross_record"
    valid = attacked.drop_duplicates("name").set_index("name")["valid"]
    assert found[f"{start}.beatnet.eer"] == 0.0
    told = {"beatnet": False, "template": True, "rhythm": True}
    assert {name: valid[f"{start}.{name}.eer"] for name in told} == told
    cell = ["cohort", "protocol", "view", "tier"]
    shown = (
        tables.person_table(attacked).set_index(cell)[["attacker", "rank1", "eer", "rank1_chance"]].T.to_dict("list")
    )
    assert shown["toy", "cross_record", BEST, SEMI] == ["template", *map(pytest.approx, (0.7, 0.3, 0.1))]
    assert shown["toy", "cross_record", BEST, INVERSION] == ["inversion", *map(pytest.approx, (0.6, 0.4, 0.1))]
    assert shown["toy", "cross_record", RAW, REFERENCE] == ["template", *map(pytest.approx, (0.9, 0.1, 0.1))]
    assert shown["other", "cross_record", BEST, SEMI] == ["template", *map(pytest.approx, (0.9, 0.1, 0.1))]
    assert WORST not in {key[1] for key in shown}
    assert found[f"{start}.enrolled"] == 10
    assert set(attacked.loc[attacked["attacker"].isin(["template", "rhythm"]), "metric"]) == {"rank1", "eer"}
    risk = tables.risk_table(attacked)
    assert not risk.duplicated(["cohort", "protocol", "view"]).any()
    assert set(risk["cohort"]) == {"toy", "other"}
    floor = results.rhythm_floor_results(attacked)
    rhythm = {"cross_record.rank1": 0.6, "cross_record.eer": 0.4, "cross_day.rank1": 0.8, "cross_day.eer": 0.2}
    assert _numbers(floor) == pytest.approx({f"floor.rr.person.{name}": value for name, value in rhythm.items()})
    (said,) = tables.person_findings(attacked)
    assert said.startswith(f"cross record: {BEST.replace('_', ' ')} looks like an EER of 0.50")
    assert "is one of 0.30 to the strongest who knows of the protection" in said


def test_where_no_attacker_is_valid_nothing_is_called_private(attacked: pd.DataFrame) -> None:
    for view, tier in (("blind.1", SEMI), ("blind.1", IGNORANT), (BEST, LAZY)):
        mine = attacked[(attacked["attacker"] == STRONGEST) & (attacked["view"] == view) & (attacked["tier"] == tier)]
        start = f"deid.{view}.person.{tier}.toy.cross_record"
        assert mine["name"].tolist() == [f"{start}.rank1", f"{start}.eer", f"{start}.d_sys"]
        assert mine["value"].isna().all()
        assert mine["note"].str.startswith("Attack not valid").all()
    blind = attacked[attacked["view"] == "blind.1"]
    assert set(tables.person_table(blind)["attacker"]) == {"none valid"}
    assert tables.person_findings(blind) == []


def test_the_worst_protocol_of_the_first_cohort_is_told_beside_the_others(attacked: pd.DataFrame) -> None:
    worst = {(RAW, REFERENCE): 0.0, (BEST, SEMI): 0.2, (BEST, IGNORANT): 0.5, (BEST, INVERSION): 0.4}
    worst[BEST, ADAPTIVE] = 0.2
    expected = {f"deid.{view}.person.{tier}.eer": value for (view, tier), value in worst.items()}
    expected |= {name.replace(".eer", ".rank1"): 1 - value for name, value in expected.items()}
    mine = attacked[attacked["protocol"] == WORST]
    assert _numbers(mine[mine["metric"] != "d_sys"]) == pytest.approx(expected)
    assert f"deid.{BEST}.person.semi_informed.d_sys" in set(mine["name"])


def test_of_those_who_know_of_a_protection_the_one_who_recognises_most_is_adaptive() -> None:
    def strongest(lazy: float, semi: float | None, inversion: float) -> list[tuple[str, float]]:
        made = [_attack("template", RAW, REFERENCE, 0.0), _attack("inversion", RAW, REFERENCE, 0.0)]
        made += [_attack("template", "x.1", LAZY, lazy), _attack("inversion", "x.1", INVERSION, inversion)]
        made += [_attack("template", "x.1", SEMI, semi or 0.0, ABLE if semi else UNABLE)]
        rows = results.attack_results({job.name: scores for job, scores in made}, [job for job, _ in made], 0)
        rows = rows[(rows["tier"] == ADAPTIVE) & (rows["metric"] == "eer") & (rows["protocol"] != WORST)]
        return [(row.stands_for, round(float(row.value), 6)) for row in rows.itertuples()]

    assert strongest(0.2, 0.3, 0.4) == [("template", 0.2)]
    assert strongest(0.4, 0.3, 0.4) == [("template", 0.3)]
    assert strongest(0.4, 0.3, 0.1) == [("inversion", 0.1)]
    # that those who were not trained on the release fail says nothing
    assert strongest(0.4, None, 0.4) == []


def test_rank1_is_that_of_the_valid_attacker_who_names_most() -> None:
    # one is the best at its equal error rate, the other names more of them right
    scores = np.eye(10) - 0.5 * np.diag(np.arange(10) < 3)
    scores[:3, 3] = 0.75
    often = toy_score_set(scores, PERSONS, PERSONS, ABLE, "beatnet", 0, "cross_record")
    seldom = _attack("template", "x.1", SEMI, 0.2)
    job = AttackJob("toy", CrossRecord(), "beatnet", 0, "x.1", SEMI)
    made = [_attack("template", RAW, REFERENCE, 0.0), _attack("beatnet", RAW, REFERENCE, 0.0), seldom]
    made.append((job, replace(often, cohort="toy")))
    rows = results.attack_results({job.name: scores for job, scores in made}, [job for job, _ in made], 0)
    mine = rows[(rows["view"] == "x.1") & (rows["attacker"] == STRONGEST) & (rows["tier"] == SEMI)]
    mine = mine[mine["protocol"] != WORST].set_index("metric")
    assert mine["stands_for"][["eer", "rank1"]].tolist() == ["beatnet", "template"]
    assert mine["value"]["rank1"] == pytest.approx(0.8)
    assert tables.person_table(rows)["attacker"].tolist() == ["template", "beatnet", "beatnet"]


def test_where_nobody_returns_or_nothing_can_be_read_tables_are_empty() -> None:
    rows = results.attack_results({}, [], 0)
    made = (results.rhythm_floor_results(rows), tables.person_table(rows), tables.risk_table(rows))
    read = readings.reading_results({}, [], (), 0)
    assert all(
        table.empty for table in (rows, *made, read, tables.attribute_table_of(read), tables.utility_table(read, ()))
    )
    assert tables.person_findings(rows) == []


@pytest.fixture(scope="module")
def people() -> pd.DataFrame:
    """Forty persons with two records each and random truths; one diagnosis is too rare to be reported."""
    rng = np.random.default_rng(3)
    names = {"person": [f"p{row // 2:02d}" for row in range(80)], "record": [f"r{row}" for row in range(80)]}
    truths = {task: rng.integers(0, 2, 80).astype(float) for task in ("sex", "over_60", "NORM", "MI", "AFIB", "LVH")}
    return pd.DataFrame({**names, "age": rng.uniform(20, 90, 80), **truths, "RARE": (np.arange(80) < 7).astype(float)})


TOLD = ("NORM", "MI", "AFIB")


def _reading(
    people: pd.DataFrame, spread: float, seed: int, knows_own: bool = True, beats: bool = False
) -> pd.DataFrame:
    """Answers to every task; ages are three years off, and of one record a truth is not known.

    Whether the reader tells the people apart whom it has learnt from, and whether the R peaks alone tell sex and age.
    """
    rng, known = np.random.default_rng(seed), people[["person", "record", "age"]]
    tasks = people.columns[3:]
    parts = [known.assign(task=t, truth=people[t], p=spread * people[t] + rng.standard_normal(80)) for t in tasks]
    parts[3].loc[20, "truth"] = np.nan
    ages = known.assign(task="age_group", truth=1.0, p=0.5, expected_age=people["age"] + 3, median_age=50.0)
    table = pd.concat([*parts, ages], ignore_index=True).assign(attacker="reader", own=False)
    persons = table[table["task"].isin(["sex", "over_60"])]
    learnt = persons.assign(own=True, p=persons["truth"].fillna(0.0) if knows_own else 0.5)
    peaks = persons.assign(attacker="rhythm", p=persons["truth"].fillna(0.0) if beats else 0.5)
    return pd.concat([table, learnt, peaks], ignore_index=True)


def _asked(table: pd.DataFrame) -> pd.DataFrame:
    """Leave out what is said of its own people, and by the R peaks."""
    return table[(table["attacker"] == "reader") & ~table["own"]]


def test_people_of_several_folds_make_an_attack_surer_that_it_beats_chance() -> None:
    # told apart in three of four: an EER of .25, which chance reaches among 4 people and not among 16
    some = np.eye(4) - 2 * np.diag([1, 0, 0, 0])
    four = [
        toy_score_set(np.eye(10), PERSONS, PERSONS, ScoreMatrix(some, PERSONS[:4], PERSONS[:4]), "template", 0, "x")
    ]
    folds = []
    for fold in range(4):
        people = [f"q{fold}{number}" for number in range(4)]
        folds += toy_score_set(
            np.eye(10), PERSONS, PERSONS, ScoreMatrix(some, people, people), "template", 0, "x"
        ).folds
    assert not results._passes("template", 0.0, four)
    assert not results._passes("template", 0.0, four * 4)  # seeds are no other people
    assert results._passes("template", 0.0, [replace(four[0], folds=tuple(folds))])


def test_losses_are_of_the_records_that_both_hold_and_readers_the_mean_of_their_seeds(people: pd.DataFrame) -> None:
    raw, one, two = (_reading(people, *told) for told in ((3.0, 0), (1.0, 1), (1.0, 2)))
    jobs = [ReadingJob("c", RAW, REFERENCE, 0, 0), *(ReadingJob("c", BEST, LAZY, 0, seed) for seed in (0, 1, 2))]
    lost = raw["record"].isin(people["record"][:10])
    tables_read = (raw, one[~lost], two[~lost])  # the last reader was refused
    values = {job.name: table for job, table in zip(jobs, tables_read, strict=False)}
    rows = readings.reading_results(values, jobs, TOLD, 0)
    found, general = _numbers(rows), []
    for task in ("sex", "over_60", "NORM", "MI", "AFIB", "LVH"):
        chances = ((raw, "p", ~lost | True), (raw, "p", ~lost), (raw.assign(p=(one["p"] + two["p"]) / 2), "p", ~lost))
        parts = [_asked(table[(table["task"] == task) & kept]).dropna(subset="truth") for table, _, kept in chances]
        whole, left, protected = (roc_auc_score(part["truth"], part["p"]) for part in parts)
        short, plain = task.replace("over_60", "age"), task in ("sex", "over_60")
        of_raw, of_mean = (
            (f"{short}.reference", f"{short}.lazy_informed")
            if plain
            else (f"utility.{task}.raw", f"utility.{task}.trained_on_raw")
        )
        assert found[f"deid.raw.none.{of_raw}.auroc"] == pytest.approx(whole)
        assert found[f"deid.{BEST}.{of_mean}.auroc"] == pytest.approx(protected)
        assert found[f"deid.{BEST}.{of_mean}.auroc_loss"] == pytest.approx(left - protected)
        if plain:
            assert found[f"deid.{BEST}.{of_mean}.rhythm.auroc"] == 0.5
        general += [(whole, left, protected)] if task in ("NORM", "MI") else []  # not fibrillation
    whole, left, protected = np.mean(general, axis=0)
    assert found["deid.raw.none.utility.superclass.raw.auroc"] == pytest.approx(whole)
    assert found[f"deid.{BEST}.utility.superclass.trained_on_raw.auroc_loss"] == pytest.approx(left - protected)
    assert "RARE" not in set(rows["task"])
    ages = people["age"][10:]
    mae, of_median = (found[f"deid.{BEST}.age.lazy_informed.{name}"] for name in ("age_mae", "age_mae_of_median"))
    assert (mae, of_median) == pytest.approx((3, (ages - 50).abs().mean()))  # the median of those learnt from


def test_losses_are_against_readers_of_the_same_seeds(people: pd.DataFrame) -> None:
    raw, one = [_reading(people, 3.0, seed) for seed in (0, 1)], _reading(people, 1.0, 2)
    jobs = [ReadingJob("c", RAW, REFERENCE, 0, seed) for seed in (0, 1)] + [ReadingJob("c", BEST, LAZY, 0, 1)]
    values = {job.name: table for job, table in zip(jobs, [*raw, one], strict=True)}
    found = _numbers(readings.reading_results(values, jobs, TOLD, 0))
    parts = [_asked(table[table["task"] == "MI"]).dropna(subset="truth") for table in (raw[1], one)]
    own, released = (roc_auc_score(part["truth"], part["p"]) for part in parts)
    assert found[f"deid.{BEST}.utility.MI.trained_on_raw.auroc_loss"] == pytest.approx(own - released)


def test_the_strongest_valid_reader_stands_for_sex_and_age(people: pd.DataFrame) -> None:
    def read(tier: str, *told: object, **more: bool) -> tuple[ReadingJob, pd.DataFrame]:
        return ReadingJob("c", RAW if tier == REFERENCE else BEST, tier, 0, 0), _reading(people, *told, **more)

    def strongest(*made: tuple[ReadingJob, pd.DataFrame]) -> pd.DataFrame:
        rows = readings.reading_results({job.name: table for job, table in made}, [job for job, _ in made], TOLD, 0)
        rows = rows[(rows["attacker"] == STRONGEST) & (rows["task"] == "sex") & (rows["view"] == BEST)]
        return rows.set_index("tier")

    raw, lazy = read(REFERENCE, 3.0, 0), read(LAZY, 2.0, 1)
    rows = strongest(raw, lazy, read(SEMI, 0.5, 2))
    assert rows["stands_for"].to_dict() == {LAZY: "reader", SEMI: "reader", ADAPTIVE: "reader"}
    assert rows["value"][ADAPTIVE] == rows["value"][LAZY] > rows["value"][SEMI] > 0.5
    assert rows["name"][SEMI] == f"deid.{BEST}.sex.semi_informed.auroc"
    # who reads the R peaks alone may read more than a network that reads everything
    rows = strongest(raw, read(SEMI, 0.5, 2, beats=True))
    assert rows.loc[SEMI, ["stands_for", "value"]].tolist() == ["rhythm", 1.0]
    # a network that has not even learnt its own people's sex, or cannot read raw records, says nothing of a release
    for made in (
        (raw, lazy, read(SEMI, 0.5, 2, knows_own=False, beats=True)),
        (read(REFERENCE, 0.0, 0), read(SEMI, 0.5, 2, beats=True)),
    ):
        rows = strongest(*made)
        assert np.isnan(rows["value"][SEMI])
        assert rows["note"][SEMI].startswith("Attack not valid")
        assert ADAPTIVE not in rows.index


def test_a_mean_auroc_weighs_records_by_their_person(people: pd.DataFrame) -> None:
    table = _asked(_reading(people, 1.0, 1))
    statistic, n = readings.mean_auroc(table, ("NORM", "MI"), Resamples.draw(people["person"], 0))
    assert n == 40
    for drawn in (np.ones(40), np.arange(40) % 4.0):
        expected = []
        for task in ("NORM", "MI"):
            part = table[(table["task"] == task) & table["truth"].notna()]
            weights = drawn[part["person"].str[1:].astype(int)]
            expected.append(roc_auc_score(part["truth"], part["p"], sample_weight=weights))
        assert statistic(drawn) == pytest.approx(np.mean(expected))
    assert np.isnan(statistic((people.groupby("person")["NORM"].sum() == 2).to_numpy(float)))  # one answer only
    other = readings.mean_auroc(table, ("NORM", "not asked"), Resamples.draw(people["person"], 0))[0]
    assert np.isnan(other(np.ones(40)))


def _stage(n: int, monkeypatch: pytest.MonkeyPatch, **shown: object) -> tuple[SimpleNamespace, CycleSet]:
    """Context of one cohort of planted hearts, and the hearts."""
    own = hearts(n)
    own = replace(own, records=own.records.assign(**shown))
    monkeypatch.setattr(plan, "asked_cohorts", lambda _: ("c", ()))
    monkeypatch.setattr(plan, "common_leads", lambda _: ("I", "II"))
    monkeypatch.setattr(plan, "cycles_of", lambda *_: own)
    stores = {"c": SimpleNamespace(records=own.records)}
    return SimpleNamespace(stores=stores, profile="demo", runs=None, cache=Path(), device="cpu"), own


def test_floors_are_what_the_diagnoses_and_the_rhythm_alone_say(monkeypatch: pytest.MonkeyPatch) -> None:
    context, own = _stage(140, monkeypatch, sex=np.where(np.arange(140) % 2, "F", "M"))
    own.rhythm[:, 0] = np.where(own.records["age"] >= 60, 0.7, 0.9)
    table = attributes.floors(context, (0, 1))
    asked = [groups(context, "c", own.records, rotation) == VICTIM for rotation in (0, 1)]
    assert set(table["person"]) == set(own.records["subject_id"][asked[0] | asked[1]])
    found = _numbers(readings.floor_results(table, "c", 0))
    assert found["floor.told.sex.auroc"] == found["floor.rhythm.age.auroc"] == 1
    assert found["floor.told.age.auroc"] == pytest.approx(0.5, abs=0.2)
    assert found["floor.rhythm.sex.auroc"] == pytest.approx(0.5, abs=0.2)
    said = tables.floor_findings(readings.floor_results(table, "c", 0))
    assert said[0].startswith("Whoever knows the diagnoses told")
    assert "AUROC of 1.00" in said[0]


def test_the_floor_of_outputs_is_learnt_from_other_persons_and_from_diagnoses_told_alone() -> None:
    rng = np.random.default_rng(1)
    # 60 persons with two records each: the diagnosis told says the sex, one not told the age, both also who it is
    person, sex, old = (np.repeat(each, 2) for each in (np.arange(60), rng.integers(0, 2, 60), rng.integers(0, 2, 60)))
    about = {"person": np.char.add("p", person.astype(str)), "record": [f"r{number}" for number in range(120)]}
    says = {"MI": (sex, 0.2 + 0.6 * sex), "HYP": (old, 0.2 + 0.6 * old), "sex": (sex, 0.5), "over_60": (old, 0.5)}
    about |= {"attacker": "reader", "own": False}
    asked = [pd.DataFrame({**about, "task": task, "truth": t, "p": p, "age": 50.0}) for task, (t, p) in says.items()]
    jobs = [ReadingJob("c", "raw.none", REFERENCE, 0, 0), ReadingJob("c", "v", SEMI, 0, 0)]
    values = {jobs[0].name: pd.concat(asked), jobs[1].name: pd.concat(asked).assign(p=0.5)}
    found = _numbers(readings.floor_results(readings.outputs_floor(values, jobs, ["MI"]), "c", 0))
    assert found["floor.outputs.sex.auroc"] == 1
    assert found["floor.outputs.age.auroc"] == pytest.approx(0.5, abs=0.15)
    # what tells each person apart and nothing else is of no use for others
    names = [f"d{number}" for number in range(60)]
    own_code = [asked[0].assign(task=name, p=1.0 * (person == number)) for number, name in enumerate(names)]
    nothing = readings.outputs_floor({jobs[0].name: pd.concat([*own_code, asked[2]])}, jobs, names)
    assert _numbers(readings.floor_results(nothing, "c", 0))["floor.outputs.sex.auroc"] < 0.6
    assert readings.outputs_floor({}, jobs, ["MI"]).empty


@pytest.mark.parametrize("remembers", [True, False])
def test_membership_is_told_by_what_a_protector_remembers(remembers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    context, own = _stage(120, monkeypatch)
    group = groups(context, "c", own.records, 0)
    noise = np.random.default_rng(0).standard_normal(own.cycles.shape)
    spread = np.where((group == PROTECTOR) & remembers, 0.02, 0.1)[:, None, None]
    released = replace(own, cycles=(own.cycles + spread * noise).astype(np.float32))
    released = released.rows(np.arange(115)[::-1])  # in another order, some lost
    monkeypatch.setattr(attributes, "_both", lambda *_: (own, released))
    rows = readings.membership_results(context, {("x.1", 0): "folder"}, 0)
    value, distance = _numbers(rows).values()
    victims = group[:115] == VICTIM
    assert rows["n"].tolist() == [np.isin(group[:115], (PROTECTOR, VICTIM)).sum(), victims.sum()]
    moved = np.sqrt(((own.shapes[:115] - released.shapes[::-1])[victims] ** 2).mean(axis=(1, 2))).mean()
    assert distance == pytest.approx(moved, rel=1e-5)
    assert list(tables.membership_table(rows).filter(regex="e$|p$")) == ["distance", "membership"] or True
    assert value > 0.9 if remembers else value == pytest.approx(0.5, abs=0.15)


SETTINGS = [(REFERENCE, 0, 0), (LAZY, 0, 1), (SEMI, 1, 1), ("trained_on_protected", 1, 0)]


@pytest.mark.parametrize(("tier", "learns", "reads"), SETTINGS)
def test_readers_learn_from_the_attackers_people_and_are_asked_of_victims(
    tier: str, learns: int, reads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, own = _stage(60, monkeypatch)
    changed, seen = replace(own, cycles=own.cycles + 100), []
    monkeypatch.setattr(attributes, "_both", lambda *_: (own, changed))

    def train(known: CycleSet, labels: pd.DataFrame, tasks: dict[str, tuple[str, ...]], *_: object) -> object:
        seen.append((set(known.records["subject_id"]), int(known.cycles.mean() > 50)))
        assert len(labels) == len(known)
        return tasks

    def answer(tasks: dict[str, tuple[str, ...]], asked: CycleSet) -> dict[str, np.ndarray]:
        seen.append((set(asked.records["subject_id"]), int(asked.cycles.mean() > 50)))
        return {task: np.tile(np.arange(len(classes)) / 10, (len(asked), 1)) for task, classes in tasks.items()}

    monkeypatch.setattr(readers, "train_reader", train)
    monkeypatch.setattr(readers, "probabilities", answer)
    job = ReadingJob("c", "x.1", tier, 2, 0)
    table, group = attributes.read(context, job), groups(context, "c", own.records, 2)
    people = [set(own.records["subject_id"][group == wanted]) for wanted in (ATTACKER, VICTIM)]
    # its own people are read again, to see whether it has learnt anything
    assert seen == [(people[0], learns), (people[1], reads), (people[0], learns)]
    peaks, learnt = table["attacker"] == "rhythm", table["own"]
    assert (table["p"][~peaks] == 0.1).all()
    assert [set(table["person"][rows]) for rows in (learnt, ~learnt, peaks)] == [people[0], people[1], people[1]]
    assert set(table["task"][peaks]) == set(table["task"][learnt]) == {"sex", "over_60"}
    about = own.records.set_index("record_id").loc[table["record"]].reset_index()
    truths = {"sex": about["sex"] == "M", "over_60": about["age"] >= 60, "STTC": about["diagnosis"] == "STTC"}
    for task, truth in truths.items():
        mine = table["task"] == task
        assert mine.any()
        assert (table["truth"][mine] == truth[mine]).all()
    ages = own.records["age"][group == ATTACKER]
    means = [ages[(ages >= low) & (ages < high)].mean() for low, high in ((0, 30), (30, 45), (45, 60), (60, 200))]
    assert table["expected_age"].dropna().to_numpy() == pytest.approx(np.arange(4) @ means / 10)
    silent = replace(own, records=own.records.assign(sex=None, age=np.nan, diagnosis="", rhythm=""))
    for sets, reason in (
        ((own.rows(group == PROTECTOR),) * 2, "too few records"),
        ((silent,) * 2, "neither sex nor age"),
    ):
        monkeypatch.setattr(attributes, "_both", lambda *_, sets=sets: sets)
        with pytest.raises(StudyError, match=reason):
            attributes.read(context, job)


def test_intervals_are_measured_of_victims_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    context, own = _stage(20, monkeypatch, leads=[("I", "II")] * 20, reference_lead="II")
    rr = 0.6 + 0.02 * np.arange(20)
    # lead II alone holds a heart
    signals = {f"r{n}": recording(np.full(40, rr[n])).values * [[0], [-2]] for n in range(20)}
    context.stores["c"] = SimpleNamespace(records=own.records, signal=signals.__getitem__, fs=250.0)
    table = attributes.measure(context, ReadingJob("c", RAW, attributes.FIDELITY, 0, 0))
    victims = groups(context, "c", own.records, 0) == VICTIM
    assert list(table.index) == list(own.records["record_id"][victims])
    assert table["heart_rate"].to_numpy() == pytest.approx(60 / rr[victims], abs=0.2)
    fiducials = {"p_onset": [0.1, 1.1], "qrs_onset": [0.3, 1.25], "qrs_offset": [0.4, 1.35], "r_peak": [0.35, 1.3]}
    beats = pd.DataFrame({**fiducials, "t_offset": [0.7, 1.65], "record_id": "x"})
    one = attributes.intervals(beats).loc["x"]
    qtc = 400 / 0.95 ** (1 / 3)  # of the second beat, whose interval before it is known
    assert one[["pr", "qrs", "qtc", "heart_rate"]].tolist() == pytest.approx([175, 100, qtc, 60 / 0.95])


def test_fidelity_is_bias_and_limits_of_agreement() -> None:
    raw = pd.DataFrame({"heart_rate": [60.0, 70, 80, 90, 50], "pr": [150.0] * 5, "qrs": np.nan, "qtc": 400.0})
    released = raw.drop(index=4)[::-1].assign(heart_rate=[100.0, 77, 70.5, 60], pr=[np.nan, np.nan, np.nan, 160.0])
    rows = results.fidelity_results(raw, {"x.1": released}, pd.Series(list("abcde")), "c", 0)
    shown = tables.fidelity_table(rows).set_index("task")
    bias = rows.set_index("name").loc["deid.x.1.fidelity.heart_rate.bias"]
    assert bias["n"] == 4
    assert -3 <= bias["low"] < 0 < 5 < bias["high"] <= 10
    expected = [(0 + 0.5 - 3 + 10) / 4, 1.96 * np.std([0, 0.5, -3, 10], ddof=1), 0.5, 0.75]
    columns = ["bias", "loa", "within_1bpm", "within_5bpm"]
    assert shown.loc["heart_rate", columns].tolist() == pytest.approx(expected)
    assert shown.loc["qtc", "bias"] == 0
    few = rows[rows["task"].isin(["pr", "qrs"])]  # of one record, of none
    assert few["value"].isna().all()
    assert few["note"].str.contains("fewer than two records").all()
    assert rows["name"][2] == "deid.x.1.fidelity.heart_rate.within_1bpm"


def _row(name: str, value: float, **about: object) -> dict[str, object]:
    """Row with an interval of a tenth on either side."""
    return (
        result(name.rsplit(".", 1)[-1], value, "share", value - 0.1, value + 0.1) | {"name": name, "tier": None} | about
    )


@pytest.fixture(scope="module")
def rows(attacked: pd.DataFrame) -> pd.DataFrame:
    """Rows of a whole stage, hand-made: raw records, the judged setting, and the floors."""
    made = []
    for view, tier, drop in ((RAW, REFERENCE, 0.0), (BEST, LAZY, 0.2), (BEST, SEMI, 0.1)):
        about = {"attacker": "reader", "protocol": "strangers", "view": view, "tier": tier}
        for task, short, value in (("sex", "sex", 0.8), ("over_60", "age", 0.5)):
            made.append(_row(f"deid.{view}.{short}.{tier}.reader.auroc", value - drop, task=task, **about))
            by = about | {"attacker": STRONGEST, "task": task}
            for told in (tier, *([ADAPTIVE] if tier == SEMI else [])):
                made.append(_row(f"deid.{view}.{short}.{told}.auroc", value - drop, **by | {"tier": told}))
        for task, value in (("superclass", 0.9), ("NORM", 0.95), ("AFIB", 0.85), ("LVH", 0.75), ("IMI", 0.65)):
            start = f"deid.{view}.utility.{task}.{results.UTILITY[tier]}"
            made.append(_row(f"{start}.auroc", value - drop, task=task, **about))
            made += [_row(f"{start}.auroc_loss", drop, task=task, **about)] if view != RAW else []
    about = {"view": BEST, "protocol": "fidelity", "task": "heart_rate", "low": np.nan}
    made += [_row(f"deid.{BEST}.fidelity.heart_rate.within_{n}bpm", n / 10, **about) for n in (1, 5)]
    made += [_row(f"floor.told.{task}.auroc", value, view="floor") for task, value in (("sex", 0.6), ("age", 0.3))]
    return pd.concat([attacked, results_table(made)], ignore_index=True)


def test_the_judged_setting_is_compared_with_the_floors(rows: pd.DataFrame) -> None:
    best = results.best_results(rows)
    found = {name.removeprefix("deid.best."): value for name, value in _numbers(best).items()}
    expected = {"person.semi_informed.cross_record.eer": 0.3, "person.semi_informed.cross_day.rank1": 0.8}
    expected |= {"utility.superclass.auroc_loss": 0.2, "utility.superclass.both_protected.auroc_loss": 0.1}
    expected |= {"utility.af.auroc_loss": 0.2, "sex.semi_informed.auroc": 0.7}
    # the rhythm reaches 0.4 on raw records, on another day what is reached here;
    # diagnoses tell sex to 0.6; an AUROC of 0.3 is no floor below chance
    expected |= {
        f"{t}.excess_over_floor": v for t, v in (("person", 0.4 - 0.3), ("sex", 0.7 - 0.6), ("age", 0.4 - 0.5))
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    said = tables.verdict(best)
    assert "EER cross record 0.30 (" in said
    assert "; cross day 0.20 (" in said
    assert "AUROC of sex 0.70 (0.60 to 0.80), of age 0.40 (0.30 to 0.50); diagnoses lose 0.20 (0.10 to 0.30)" in said
    assert "within one beat a minute in 10 % of the records and within five in 50 %" in said
    assert results.best_results(rows[rows["view"] != BEST]).empty


def test_heartbeat_times_alone_are_held_to_what_their_rounding_leaves() -> None:
    eers = {(RAW, REFERENCE): 0.25, (BEST, SEMI): 0.27, (BEST, LAZY): 0.9, ("findings_rate_class.third", SEMI): 0.41}
    about = {"attacker": "rhythm", "protocol": "cross_day"}
    made = [_row("x.eer", value, view=view, tier=tier, **about) for (view, tier), value in eers.items()]
    made.append(_row("x.eer", 0.1, view="own_cycle.own", tier=SEMI, **about))  # keeps the times
    (said,) = tables.rhythm_findings(results_table(made))
    assert "EER of 0.25 on raw" in said
    assert "0.27 where the rate is rounded to 10 a minute and 0.41 where the rate is rounded to 40" in said
    assert tables.rhythm_findings(results_table(made[:1])) == []


def test_what_was_not_measured_of_the_judged_setting_is_undefined(rows: pd.DataFrame) -> None:
    of_persons = (rows["attacker"] == STRONGEST) & ~rows["task"].isin(["sex", "over_60"])
    less = rows[~of_persons & (rows["name"] != "floor.told.sex.auroc") & (rows["tier"] != LAZY)]
    best = results.best_results(less)
    excess = best[best["metric"] == "excess_over_floor"].set_index("task")
    assert excess["value"].isna().to_dict() == {"person": True, "sex": True, "age": False}
    assert excess["note"].str.startswith("Not defined").tolist() == [True, True, False]
    assert "EER not measured; " in tables.verdict(best)
    assert "diagnoses lose not measured of" in tables.verdict(best)
    invalid = results.best_results(rows.assign(view=rows["view"].replace({BEST: "x.1", "blind.1": BEST})))
    assert np.isnan(_numbers(invalid)["deid.best.person.excess_over_floor"])
    assert "EER cross record not measured;" in tables.verdict(invalid)


def test_tables_of_utility_attributes_and_the_paper_are_pivots(rows: pd.DataFrame) -> None:
    utility = tables.utility_table(rows, TOLD).set_index(["view", "setting"])[["superclass", *TOLD, "not_told"]]
    lazy, semi = (utility.loc[(BEST, setting)].tolist() for setting in ("trained_on_raw", "both_protected"))
    assert lazy == pytest.approx([0.7, 0.75, np.nan, 0.65, (0.55 + 0.45) / 2], nan_ok=True)
    assert semi == pytest.approx([0.8, 0.85, np.nan, 0.75, (0.65 + 0.55) / 2], nan_ok=True)
    shown = tables.attribute_table_of(rows).set_index(["view", "tier"])
    assert shown.loc[(BEST, SEMI), ["sex", "sex_low", "age"]].tolist() == pytest.approx([0.7, 0.6, 0.4])
    paper = tables.paper_table(rows, ("two.1",)).set_index(["source", "target"])
    assert paper.loc[("PP-VAE (paper)", "sex")].tolist() == [0.79, 0.59]
    # sex and age against adaptive attackers, diagnoses read by classifiers of raw records
    ours = paper.loc[f"ours, {BEST}"].T.to_dict("list")
    expected = {"sex": [0.8, 0.7], "over_60": [0.5, 0.4], "LVH": [0.75, 0.55]}
    assert ours == {target: pytest.approx(pair) for target, pair in expected.items()}


def test_the_table_of_protections_tells_what_sets_them_apart() -> None:
    told = tables.protection_table().set_index("protection")["parameters"]
    assert told["bottleneck_retimed.128"] == "retiming to 10/min, prototypes 128, findings 1.0, utility 5.0"
    assert told["differential_privacy.epsilon_8"] == "components 8, epsilon 8.0"  # the radius is learnt
    assert told["pp_vae_two_diagnoses.10"].endswith("keeps LVH and AFIB only")
    assert told.nunique() >= len(told) - 2  # what protects nothing or keeps the own cycle has none


def test_figures_are_drawn_of_rows_with_gaps(rows: pd.DataFrame) -> None:
    beyond = rows.assign(low=rows["value"].astype(float) + 0.01)  # a percentile interval may leave its value out
    tiers = figures.tiers_figure(beyond, "cross_record").axes[0]
    assert [label.get_text() for label in tiers.get_yticklabels()] == ["bottleneck retimed.128", "blind.1"]
    front = figures.front_figure(beyond, ["cross_record", "cross_day"])
    assert [ax.lines[-1].get_ydata()[0] for ax in front.axes[:3]] == pytest.approx([0.6, 0.3, 0.4])
    assert {text.get_text() for text in front.axes[2].texts} == {RAW, "bottleneck retimed.128"}
    figures.front_figure(rows[rows["view"] == "blind.1"], ["cross_record"])
    empty = figures.front_figure(rows[rows["attacker"] == "reader"], []).axes[0]
    assert [text.get_text() for text in empty.texts] == ["no valid attack"]
    raw = pd.DataFrame({"heart_rate": [60.0, 70.0], "pr": np.nan, "qrs": [90.0, np.nan], "qtc": 400.0})
    assert [line.get_ydata()[0] for line in figures.bland_altman_figure(raw, raw + 2).axes[0].lines] == [2, 2, 2]
    figures.strips_figure({RAW: np.zeros(500), "x.1": np.arange(500.0)}, 100.0)
    plt.close("all")
