"""The single-beat attacker: what it reads, other beats each epoch, fitted again, and that it learns persons."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.evaluate.protocols import CrossDay, CrossRecord, SubjectDisjoint
from ecgstudy.experiment.attackers import ATTACKERS, FittedNetwork
from ecgstudy.experiment.dataset import BEAT_SLACK
from ecgstudy.experiment.jobs import Context, Job
from ecgstudy.experiment.networks import ROWS, Recipe, Rows
from ecgstudy.experiment.scores import score, trial
from ecgstudy.experiment.templates import ENROLMENTS
from ecgstudy.learn.base import class_probabilities
from ecgstudy.learn.models import create_model
from ecgstudy.signals.ingest import build_store
from ecgstudy.signals.store import RecordStore

RECIPE: Recipe = ATTACKERS["beatcnn"].recipe
JOB = Job("synthetic", CrossRecord(), "beatcnn", 0)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RecordStore]:
    """Twelve persons on two days, and twelve others with one record each."""
    cache = tmp_path_factory.mktemp("cache")
    returning = SyntheticCohort(n_subjects=12, n_sessions=2, n_records=2, seconds=20.0, seed=1)
    single = SyntheticCohort(n_subjects=12, n_sessions=1, n_records=1, seed=2)
    return {name: build_store(c, cache, delineate=False) for name, c in (("synthetic", returning), ("others", single))}


@pytest.fixture
def context(stores: dict[str, RecordStore], tmp_path: Path) -> Context:
    """Both cohorts, with an empty cache."""
    return Context("real", stores, "cpu", ATTACKERS, cache=tmp_path)


def test_it_is_as_small_as_its_model_and_reads_six_tenths_of_a_second() -> None:
    assert RECIPE.n_samples(100.0) == 60
    shape = {"n_leads": 1, "n_samples": 60, "fs": 100.0, "lead_names": ["I"], "classes": {"person": ["a", "b"]}}
    model = create_model("beatcnn", 0, **shape)
    weights = sum(parameter.numel() for parameter in model.parameters())
    assert 125_000 < weights - 2 * model.hparams.embedding_dim < 140_000
    assert (model.hparams.margin, model.hparams.embedding_dim) == (0.3, 128)


def test_many_beats_are_at_hand_and_an_epoch_draws_the_same_number_of_each_person(context: Context) -> None:
    (split,) = context.splits(JOB)
    rows, start = RECIPE._material(context, split.train, 0, pd.DataFrame())
    assert start is None
    assert rows.windows.shape[1] == 60 + BEAT_SLACK
    _, at_hand = np.unique(rows.persons, return_counts=True)
    assert set(rows.draws) == {ROWS // 12}
    assert (at_hand >= ROWS // 12).all()  # beats of somebody with fewer come twice
    once = replace(RECIPE, at_hand=0)._material(context, split.train, 0, pd.DataFrame())[0]
    assert once.draws is None
    assert set(np.unique(once.persons, return_counts=True)[1]) == {ROWS // 12}


def test_more_beats_than_an_epoch_draws_are_all_at_hand(context: Context) -> None:
    (split,) = context.splits(JOB)
    rows = RECIPE._rows(context, split.train, 5, 0)
    beats, owners = context.dataset.single_beats(split.train, RECIPE.at_hand, BEAT_SLACK)
    assert len(rows.windows) == len(beats)
    assert len(np.unique(rows.windows, axis=0)) == len(np.unique(beats, axis=0))
    assert set(rows.draws) == {5}
    assert sorted(rows.records) == sorted(split.train["record_id"].to_numpy()[owners])


def test_it_learns_alone_where_others_could_help(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(Recipe, "pretrained", lambda *about: asked.append(about))
    (split,) = context.splits(JOB)
    helpers = context.records("others")
    RECIPE._material(context, split.train, 0, helpers)
    assert not asked
    replace(RECIPE, helped=True)._material(context, split.train, 0, helpers)
    assert len(asked) == 1


def test_rows_of_helpers_keep_their_own_number_of_draws(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    others = Rows(np.zeros((4, 63)), np.array([*"xxyy"]), np.array([*"1234"]), np.full(4, 1))
    monkeypatch.setattr(Recipe, "pretrained", lambda *_: ("trunk", others))
    (split,) = context.splits(JOB)
    rows, start = replace(RECIPE, helped=True)._material(context, split.train, 0, context.records("others"))
    assert start == "trunk"
    assert set(rows.draws[np.isin(rows.persons, ["x", "y"])]) == {1}
    assert set(rows.draws[~np.isin(rows.persons, ["x", "y"])]) == {ROWS // 12}


@pytest.mark.parametrize("losses", [[3.0, 1.0, 2.0], None], ids=["chosen", "nothing to choose on"])
def test_it_is_fitted_again_on_what_the_epoch_was_chosen_on_for_as_many_epochs(
    context: Context, losses: list[float] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ecgstudy.experiment.networks.ROWS", 12)  # fewer than there are beats, which all are at hand
    runs = []

    def run(recipe: Recipe, _: Context, rows: Rows, seed: int, validation: object, start: object) -> SimpleNamespace:
        runs.append((recipe.epochs, set(rows.records), len(rows.windows), seed, validation))
        history = pd.DataFrame({"train_loss": [0.0] * 3} | ({"val_loss": losses} if losses else {}))
        return SimpleNamespace(model=f"network {len(runs)}", history=history)

    monkeypatch.setattr(Recipe, "_run", run)
    (split,) = context.splits(JOB)
    fitted = ATTACKERS["beatcnn"].fit(context, JOB, split)
    (epochs, records, few, seed, held), (again, everything, more, same, none) = runs
    assert (epochs, again) == (RECIPE.epochs, 2 if losses else RECIPE.epochs)
    assert held is split.validation
    assert none is None
    assert (seed, same) == (0, 0)
    assert records == everything
    assert more > few
    assert (fitted.model, fitted.before_refit.model) == ("network 2", "network 1")
    # of people never seen the validation people stay unseen: they choose among attackers
    runs.clear()
    unseen = Job("synthetic", SubjectDisjoint(CrossDay()), "beatcnn", 0)
    part = context.splits(unseen)[0]
    fitted = ATTACKERS["beatcnn"].fit(context, unseen, part)
    assert len(runs) == 1
    assert runs[0][1] == set(part.train["record_id"])
    assert fitted.before_refit is fitted


def test_the_validation_part_is_asked_of_the_network_that_has_not_seen_it(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Remembering(FittedNetwork):
        def embed(self, dataset: object, segments: pd.DataFrame) -> object:
            asked.setdefault(self.model, []).append(set(zip(segments["record_id"], segments["start"], strict=True)))
            return ATTACKERS["template"].embed(dataset, segments)

    asked: dict[str, list[set]] = {}
    fitted = Remembering("refitted", RECIPE, None, "chosen on")
    monkeypatch.setattr(Context, "fitted", lambda *_: fitted)
    (split,) = context.splits(JOB)
    score(context, JOB)

    def parts(*names: str) -> list[set]:
        tables = [getattr(split, name) for name in names]
        return [set(zip(table["record_id"], table["start"], strict=True)) for table in tables]

    assert asked == {"refitted": parts("enrolment", "probe"), "chosen on": parts("train", "validation")}


def test_every_rule_enrols_test_and_validation_people_from_the_same_embeddings(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, asked = Job("synthetic", CrossDay(), "template", 0), []
    embed = type(ATTACKERS["template"]).embed
    monkeypatch.setattr(type(ATTACKERS["template"]), "embed", lambda *of: (asked.append(len(of[2])), embed(*of))[1])
    found = score(context, job)
    assert len(asked) == 4  # of each part once
    assert found.rules == tuple(ENROLMENTS)
    (split,) = context.splits(job)
    fitted = ATTACKERS["template"]
    known, probed = (embed(fitted, context.dataset, part) for part in (split.enrolment, split.probe))
    for rule in ENROLMENTS:
        one = found.under(rule)
        assert one.attacker == ("template" if rule == "mean" else f"template_{rule}")
        again = trial(split.enrolment, known, split.probe, probed, rule)
        np.testing.assert_array_equal(one.folds[0].trials.scores, again.scores)
    held = [found.under(rule).folds[0].validation.scores for rule in ENROLMENTS]
    assert not any(np.array_equal(held[0], other) for other in held[1:])


def test_it_learns_planted_persons(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ecgstudy.experiment.networks.ROWS", 240)
    (split,) = context.splits(JOB)
    recipe = replace(RECIPE, epochs=12, batch_size=48)
    model = recipe.trained(context, split.train, None, 0, pd.DataFrame())
    windows, owners = recipe.inputs(context.dataset, split.validation)  # the end of each recording
    persons = model.classes["person"]
    named = np.array(persons)[class_probabilities(model, windows, "person", persons).argmax(axis=1)]
    assert len(persons) == 12
    assert (named == split.validation["subject_id"].to_numpy(dtype=str)[owners]).mean() > 0.8
