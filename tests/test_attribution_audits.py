"""Sanity, faithfulness and robustness of explanations, on networks whose right explanation is known."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from linear_model import LinearModel, linear_model

from ecgstudy.attribution import audits, cases, tables
from ecgstudy.attribution.cases import Case, Part
from ecgstudy.attribution.methods import METHODS, Question, attribute
from ecgstudy.attribution.waves import DONOR_BEAT, MEAN_BEAT, Windows
from ecgstudy.errors import StudyError
from ecgstudy.evaluate.bootstrap import Resamples
from ecgstudy.evaluate.protocols import CrossRecord, RandomWindows
from ecgstudy.experiment.jobs import Job, Outcome
from ecgstudy.learn.base import PERSON, SignalModel
from ecgstudy.learn.models import MODELS, create_model


@pytest.fixture(autouse=True)
def _linear_model_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "linear", LinearModel)


def _network(name: str) -> SignalModel:
    small = {"resnet1d": {"widths": [4, 8]}, "transecg": {"n_layers": 2, "width": 16, "n_heads": 2}}[name]
    return create_model(
        name, 0, n_leads=1, n_samples=100, fs=100.0, classes={PERSON: "abc"}, lead_names=["x"], **small
    ).eval()


def _question(model: SignalModel, n: int = 6, seed: int = 0) -> Question:
    rng = np.random.default_rng(seed)
    windows = rng.standard_normal((n, 1, model.hparams.n_samples)).astype(np.float32)
    return _asked(model, windows, seed)


def _asked(model: SignalModel, samples: np.ndarray, seed: int = 0) -> Question:
    """Ask about the logit of the first class."""
    n, _, n_samples = samples.shape
    codes = np.zeros((n, n_samples), dtype=np.int8)
    windows = Windows(samples, np.zeros(n, dtype=np.int64), 100.0, seed, codes, PERSONS[:n])
    return Question(model, PERSON, windows, np.zeros_like(samples))


def _only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let some methods be all there are."""
    monkeypatch.setattr(audits, "applicable", lambda _: [METHODS[name] for name in names])


JOB = Job("c", CrossRecord(), "resnet1d", 0)
PERSONS = np.array(["a", "a", "b", "b", "c", "c"])


@pytest.fixture(scope="module")
def resamples() -> Resamples:
    return Resamples.draw(PERSONS, 0, 50)


@pytest.mark.parametrize("name", ["resnet1d", "transecg"])
def test_parts_hold_every_weight_once(name: str) -> None:
    model = _network(name)
    parts = audits.parts_from_head(model)
    assert len(parts) == 4
    assert sorted(weight for part in parts for weight in part) == sorted(model.state_dict())
    layers = [list(dict.fromkeys(weight.split(".")[0] for weight in part)) for part in parts]
    assert layers[0] == ["heads", "embedding"]
    # one list of composite modules counts as several layers
    below = {
        "resnet1d": [["stages"], ["stages"], ["stem"]],
        "transecg": [["norm", "blocks"], ["blocks"], ["class_token", "positions", "to_tokens"]],
    }
    assert layers[1:] == below[name]


def test_randomised_changes_the_named_weights_only() -> None:
    model = _network("transecg")
    part = audits.parts_from_head(model)[-1]
    changed = audits.randomised(model, part, 5).state_dict()
    drawn = {"class_token", "positions", "to_tokens.weight", "to_tokens.bias"}
    assert drawn <= set(part)
    for name, before in model.state_dict().items():
        assert torch.equal(before, changed[name]) == (name not in drawn or name not in part)


def test_a_cascade_randomises_every_part_above() -> None:
    model = _network("transecg")
    networks, parts = audits.less_knowing(_question(model)), audits.parts_from_head(model)
    drawn = [next(name for name in part if name.endswith("weight") and "norm" not in name) for part in parts]
    for at in range(4):
        for kind, changed in (("cascading", range(at + 1)), ("independent", [at])):
            weights = networks[kind, float(at)].state_dict()
            differs = [not torch.equal(weights[name], model.state_dict()[name]) for name in drawn]
            assert differs == [number in changed for number in range(4)]
    another, random = (networks[key].state_dict() for key in ((audits.UNTRAINED, np.nan), (audits.CASCADING, 3.0)))
    assert not torch.equal(another[drawn[-1]], random[drawn[-1]])


def test_randomisation_of_known_cases(resamples: Resamples, monkeypatch: pytest.MonkeyPatch) -> None:
    model = linear_model(np.random.default_rng(1).standard_normal(400))
    _only(monkeypatch, "saliency", "magnitude", "uniform")
    table = audits.randomisation_table(_question(model), resamples)
    permuted = pd.DataFrame({"model": ["linear"], "method": ["saliency"], "permuted": [0.25]})
    found = tables.sanity_table(table, permuted).set_index("method")
    assert found.loc["saliency", "permuted"] == 0.25
    assert np.isnan(found.loc["magnitude", "permuted"])
    # the saliency of a linear network is its weights: nothing is left when others are drawn (sd of Spearman's 0.05)
    assert found.loc["saliency", ["randomised_correlation", "untrained"]].abs().max() < 0.2
    # |x| never knew the network
    assert found.loc["magnitude", ["randomised_correlation", "untrained"]].tolist() == [1, 1]
    assert np.isnan(found.loc["uniform", "randomised_correlation"])
    assert found.loc["uniform", "reason"] == audits.CONSTANT
    saliency = table[table["method"] == "saliency"].set_index(["kind", "part"])["correlation"]
    # the head mixes one nonzero sum: another head scales the weights and keeps their order
    np.testing.assert_allclose(saliency["cascading", 0.0], 1, atol=1e-3)
    np.testing.assert_allclose(saliency["independent", 2.0], saliency["cascading", 2.0], atol=0.3)


def test_attention_does_not_see_the_head(resamples: Resamples, monkeypatch: pytest.MonkeyPatch) -> None:
    _only(monkeypatch, "last_attention")
    table = audits.randomisation_table(_question(_network("transecg")), resamples)
    found = table.set_index(["kind", "part"])["correlation"]
    np.testing.assert_allclose(found["cascading", 0.0], 1, atol=1e-6)
    assert found["cascading", 3.0] < 0.9
    assert found["independent", 2.0] < 0.99


def test_chunk_ranks_by_hand() -> None:
    relevance = np.array([[0, 0, 5, 1, 1, 1, 4]])  # chunks of 3: means 5/3, 1, 4
    ranks = audits.chunk_ranks(relevance, 3, np.random.default_rng(0)) * 3
    np.testing.assert_allclose(ranks, [[2, 2, 2, 3, 3, 3, 1]])
    ties = np.stack([audits.chunk_ranks(np.zeros((1, 6)), 3, np.random.default_rng(seed))[0, 0] for seed in range(50)])
    assert 0.3 < (ties == 0.5).mean() < 0.7


def test_areas_of_a_tiny_case_are_exact() -> None:
    model = linear_model(np.repeat([0.0, 0.4, 0.0, 0.0], 5))  # four chunks, the second is all that counts
    windows = np.ones((1, 1, 20), dtype=np.float32)
    infill = np.zeros_like(windows)
    high, low = 1 / (1 + np.exp(-2)), 0.5
    best = audits.chunk_ranks(np.repeat([[0.0, 1, 0, 0]], 5, axis=1), 5, np.random.default_rng(0))
    worst = audits.chunk_ranks(np.repeat([[2.0, 1, 3, 4]], 5, axis=1), 5, np.random.default_rng(0))
    # the first of four chunks goes from a fraction of 0.25 on, the last at 1
    deletion, insertion = np.trapezoid(
        audits.removal_curves(_asked(model, windows), infill, best), audits.FRACTIONS, axis=2
    )
    np.testing.assert_allclose(deletion, low + (high - low) * 0.25, rtol=1e-5)
    np.testing.assert_allclose(insertion, high - (high - low) * 0.25, rtol=1e-5)
    deletion, _ = np.trapezoid(audits.removal_curves(_asked(model, windows), infill, worst), audits.FRACTIONS, axis=2)
    np.testing.assert_allclose(deletion, low + (high - low) * 0.95, rtol=1e-5)


def test_gaps_tell_the_right_explanation_from_the_wrong_one(resamples: Resamples) -> None:
    weights = np.r_[np.zeros(60), np.full(20, 0.2), np.zeros(20)]
    model = linear_model(weights)
    windows = np.ones((6, 1, 100), dtype=np.float32)
    relevances = {
        "right": np.tile(weights, (6, 1)),
        "wrong": np.tile(weights[::-1], (6, 1)),
        "half": np.where(np.arange(6)[:, None] < 3, weights, np.nan),
        "none": np.full((6, 100), np.nan),
    }
    question = _asked(model, windows)
    filled = {MEAN_BEAT: np.zeros_like(windows), DONOR_BEAT: -windows}
    vars(question.windows)["infills"] = filled
    found = audits.faithfulness_tables(question, relevances, resamples)
    table, curves = found["faithfulness"].set_index(["method", "infill"]), found["curves"]
    for infill in filled:
        right, wrong = table.loc[("right", infill)], table.loc[("wrong", infill)]
        assert right["deletion_gap_low"] > 0.05
        assert right["insertion_gap_low"] > 0.05
        assert wrong["deletion_gap"] < 0.0
        np.testing.assert_allclose(table.loc[("half", infill), "deletion"], right["deletion"], rtol=1e-6)
        assert table.loc[("none", infill), "reason"] == "the method gives no window any relevance"
        assert np.isnan(table.loc[("none", infill), "deletion_gap"])
    assert table.loc[("half", MEAN_BEAT), "windows"] == 3
    random = curves[(curves["method"] == "random order") & (curves["infill"] == MEAN_BEAT)]
    ends = random[(random["kind"] == "deletion") & random["fraction"].isin([0, 1])]["probability"]
    np.testing.assert_allclose(ends, [1 / (1 + np.exp(-4)), 0.5], rtol=1e-5)


def test_stability_of_the_order_of_methods_by_hand() -> None:
    gaps = {"a": (0.1, 0.2), "b": (0.2, 0.1), "c": (0.3, 0.3), "d": (0.4, 0.4)}
    rows = [
        {"method": method, "infill": infill, "deletion_gap": gap, "insertion_gap": np.nan}
        for method, both in gaps.items()
        for infill, gap in zip((MEAN_BEAT, DONOR_BEAT), both, strict=True)
    ]
    found = audits.infill_stability(pd.DataFrame(rows)).set_index("kind")
    assert found.loc["deletion", "kendall"] == pytest.approx(4 / 6)  # one of six pairs is turned round
    assert found.loc["deletion", "spearman"] == pytest.approx(0.8)
    assert "fewer than three methods" in found.loc["insertion", "reason"]
    assert audits.infill_stability(pd.DataFrame(rows[:4]))["kendall"].isna().all()


def test_infidelity_of_the_right_explanation_of_a_linear_network_is_zero() -> None:
    question = _question(linear_model(np.random.default_rng(1).standard_normal(100)))
    found = {name: attribute(METHODS[name], question) for name in ("input_x_gradient", "random")}
    for unit in (1, 3):  # attributions come in units of their own
        right = np.float32(unit) * found["input_x_gradient"]
        np.testing.assert_allclose(audits.infidelities(right, question, noise=0.0), 0, atol=1e-4)
    assert (audits.infidelities(found["random"], question, noise=0.0) > 1).all()
    assert np.isnan(audits.infidelities(np.full((6, 100), np.nan, dtype=np.float32), question, noise=0.0)).all()


def test_sensitivity_by_hand() -> None:
    question = _question(linear_model(np.random.default_rng(1).standard_normal(100)))
    found = {name: attribute(METHODS[name], question) for name in ("saliency", "magnitude")}
    np.testing.assert_allclose(audits.sensitivities(METHODS["saliency"], question, found["saliency"]), 0, atol=1e-6)
    # |x| changes by at most the radius a sample
    found = audits.sensitivities(METHODS["magnitude"], question, found["magnitude"])
    assert (found > 0).all()
    assert (found <= 0.02 * np.sqrt(100) / np.linalg.norm(question.windows.samples[:, 0], axis=1) + 1e-6).all()


def test_robustness_is_told_by_measure_and_scale(resamples: Resamples, monkeypatch: pytest.MonkeyPatch) -> None:
    question = _question(linear_model(np.random.default_rng(1).standard_normal(100)))
    _only(monkeypatch, "input_x_gradient", "random")
    table = audits.robustness_table(question, resamples)
    pivot = table.pivot_table(index="scale", columns=["measure", "method"], values="value")
    better = pivot["infidelity"]["input_x_gradient"] < pivot["infidelity"]["random"]
    assert better[[0.05, 0.2, 0.5]].all()
    assert pivot.loc[0.02, "sensitivity"].notna().all()


def _case(recognised: list[bool]) -> Case:
    """Six windows of three persons."""
    none = np.zeros(6, dtype=int)
    samples = np.zeros((6, 1, 10), dtype=np.float32) + np.arange(6)[:, None, None]
    windows = Windows(samples, none, 100.0, 0, persons=PERSONS)
    return Case("c", "p", "m", PERSON, windows, pd.DataFrame(), 0, None, np.array(recognised))


def test_only_recognised_windows_are_audited_evenly_spread() -> None:
    chosen = audits.recognised(_case([True, False, True, True, True, True]), JOB, 3)
    assert chosen.samples[:, 0, 0].tolist() == [0, 3, 5]
    with pytest.raises(StudyError, match="too few windows"):
        audits.recognised(_case([True, True, False, False, False, False]), JOB, 3)


def test_an_audit_resamples_everybody_enrolled(monkeypatch: pytest.MonkeyPatch) -> None:
    enrolled, probed = (pd.DataFrame({"subject_id": [*names]}) for names in ("abc", "ab"))
    split = SimpleNamespace(enrolment=enrolled, probe=probed)
    monkeypatch.setattr(audits, "case_windows", lambda *given: _case([given[1:] == (JOB, PERSON, 1)] * 6))
    monkeypatch.setitem(audits.AUDITS, "sanity", lambda _, __, windows, drawn: {"of": (len(windows), [*drawn.persons])})
    context = SimpleNamespace(profile="demo", splits=lambda _: [split])
    assert audits.audit(context, Part((JOB,), "sanity"))["of"] == (6, ["a", "b", "c"])


def test_other_seeds_networks_are_asked_about_the_same_windows(resamples: Resamples) -> None:
    models = {seed: linear_model(np.random.default_rng(seed).standard_normal(100)) for seed in range(3)}
    context = SimpleNamespace(fitted=lambda job: SimpleNamespace(model=models[job.seed]))
    jobs = tuple(replace(JOB, seed=seed) for seed in range(3))
    found = audits.seed_relevances(context, jobs, _question(models[0]))
    weights = [np.abs(models[seed].trunk.weight.detach().numpy()[0]) for seed in (1, 2)]
    for relevances, expected in zip(found, weights, strict=True):
        np.testing.assert_allclose(relevances["saliency"], np.tile(expected, (6, 1)), rtol=1e-5)


def test_audits_of_all_networks_are_joined_and_a_refusal_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = pd.DataFrame({"x": [1]})
    outcome = {f"{JOB.name}.{part}": {part: table} for part in audits.AUDITS}
    outcome |= {f"{replace(JOB, attacker='transecg').name}.{part}": {part: table} for part in audits.AUDITS}
    asked = []

    def run(work: object, jobs: list[Part], *_: object) -> Outcome:
        asked.extend(jobs)
        return Outcome(outcome, pd.DataFrame({"reason": refusals}))

    refusals: list[str] = []
    jobs = [replace(JOB, attacker=name, seed=seed) for name in ("resnet1d", "transecg") for seed in (0, 1)]
    other = replace(JOB, cohort="other")
    monkeypatch.setattr(cases, "network_jobs", lambda *_: [*jobs, other, replace(JOB, protocol=RandomWindows())])
    monkeypatch.setattr(audits, "run", run)
    found, _ = audits.audit_people(None, 0)
    assert [[job.seed for job in part.jobs] for part in asked] == [[0, 1]] * 4
    assert {name: list(joined["model"]) for name, joined in found.items()} == {
        part: ["resnet1d", "transecg"] for part in audits.AUDITS
    }
    refusals.append("Nobody is recognised.")
    with pytest.raises(StudyError, match="Nobody is recognised"):
        audits.audit_people(None, 0)
    monkeypatch.setattr(cases, "network_jobs", lambda *_: [])
    with pytest.raises(StudyError, match="no two persons have two records"):
        audits.audit_people(None, 0)
