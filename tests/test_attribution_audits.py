"""Sanity, faithfulness and robustness of explanations, on networks whose right explanation is known."""

import numpy as np
import pandas as pd
import pytest
import torch
from linear_model import LinearModel, linear_model

from ecgstudy.attribution import audits
from ecgstudy.attribution import faithfulness as faith
from ecgstudy.attribution.explain import attribute
from ecgstudy.attribution.methods import METHODS, Question
from ecgstudy.attribution.waves import DONOR_BEAT, MEAN_BEAT
from ecgstudy.evaluate.bootstrap import Resamples
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
    return Question(model, PERSON, windows, np.zeros(n, dtype=np.int64), None, seed)


PERSONS = np.array(["a", "a", "b", "b", "c", "c"])


@pytest.fixture(scope="module")
def resamples() -> Resamples:
    return Resamples.draw(PERSONS, 0, 50)


def test_layers_run_from_the_head_to_the_input() -> None:
    stages = [f"stages.{number}." for number in (3, 2, 1, 0)]
    assert audits.layers_from_head(_network("resnet1d")) == ["heads.", "embedding.", *stages, "stem."]
    blocks = ["blocks.1.", "blocks.0."]
    assert audits.layers_from_head(_network("transecg")) == ["heads.", "embedding.", "norm.", *blocks, "to_tokens."]


@pytest.mark.parametrize("name", ["resnet1d", "transecg"])
def test_parts_hold_every_weight_once(name: str) -> None:
    model = _network(name)
    parts = audits.parts_from_head(model)
    assert len(parts) == 4
    assert sorted(weight for part in parts for weight in part) == sorted(model.state_dict())
    assert {weight.split(".")[0] for weight in parts[0]} == {"heads", "embedding"}


def test_randomised_changes_the_named_weights_only() -> None:
    model = _network("transecg")
    part = audits.parts_from_head(model)[-1]
    changed = audits.randomised(model, part, 5).state_dict()
    drawn = {"class_token", "positions", "to_tokens.weight", "to_tokens.bias"}
    assert drawn <= set(part)
    for name, before in model.state_dict().items():
        assert torch.equal(before, changed[name]) == (name not in drawn or name not in part)


def test_randomisation_of_known_cases(resamples: Resamples) -> None:
    model = linear_model(np.random.default_rng(1).standard_normal(400))
    methods = [METHODS[name] for name in ("saliency", "magnitude", "uniform", "attention_rollout")]
    table = audits.randomisation_table(_question(model), methods, PERSONS, resamples)
    permuted = pd.DataFrame({"model": ["linear"], "method": ["saliency"], "permuted": [0.25], "reason": [None]})
    found = audits.sanity_table(table, permuted).set_index("method")
    assert found.loc["saliency", "permuted"] == 0.25
    assert np.isnan(found.loc["magnitude", "permuted"])
    # the saliency of a linear network is its weights: nothing is left when others are drawn (sd of Spearman's 0.05)
    assert found.loc["saliency", ["randomised_correlation", "untrained"]].abs().max() < 0.2
    # |x| never knew the network
    assert found.loc["magnitude", ["randomised_correlation", "untrained"]].tolist() == [1, 1]
    assert np.isnan(found.loc["uniform", "randomised_correlation"])
    assert "attention weights" in found.loc["attention_rollout", "reason"]
    saliency = table[table["method"] == "saliency"].set_index(["kind", "part"])["correlation"]
    # the head mixes one nonzero sum: another head scales the weights and keeps their order
    np.testing.assert_allclose(saliency["cascading", 0.0], 1, atol=1e-3)
    np.testing.assert_allclose(saliency["independent", 2.0], saliency["cascading", 2.0], atol=0.3)


def test_attention_does_not_see_the_head(resamples: Resamples) -> None:
    table = audits.randomisation_table(_question(_network("transecg")), [METHODS["last_attention"]], PERSONS, resamples)
    found = table.set_index(["kind", "part"])["correlation"]
    np.testing.assert_allclose(found["cascading", 0.0], 1, atol=1e-6)
    assert found["cascading", 3.0] < 0.9
    assert found["independent", 2.0] < 0.99


def test_chunk_ranks_by_hand() -> None:
    relevance = np.array([[0, 0, 5, 1, 1, 1, 4]])  # chunks of 3: means 5/3, 1, 4
    ranks = faith.chunk_ranks(relevance, 3, np.random.default_rng(0)) * 3
    np.testing.assert_allclose(ranks, [[2, 2, 2, 3, 3, 3, 1]])
    ties = np.stack([faith.chunk_ranks(np.zeros((1, 6)), 3, np.random.default_rng(seed))[0, 0] for seed in range(50)])
    assert 0.3 < (ties == 0.5).mean() < 0.7


def test_areas_of_a_tiny_case_are_exact() -> None:
    model = linear_model(np.repeat([0.0, 0.4, 0.0, 0.0], 5))  # four chunks, the second is all that counts
    windows = np.ones((1, 1, 20), dtype=np.float32)
    infill = np.zeros_like(windows)
    high, low = 1 / (1 + np.exp(-2)), 0.5
    best = faith.chunk_ranks(np.repeat([[0.0, 1, 0, 0]], 5, axis=1), 5, np.random.default_rng(0))
    worst = faith.chunk_ranks(np.repeat([[2.0, 1, 3, 4]], 5, axis=1), 5, np.random.default_rng(0))
    # the first of four chunks goes from a fraction of 0.25 on, the last at 1
    question = Question(model, PERSON, windows, np.zeros(1, dtype=np.int64), None, 0)
    found = faith.areas(faith.curves(question, infill, best))
    np.testing.assert_allclose(found["deletion"], low + (high - low) * 0.25, rtol=1e-5)
    np.testing.assert_allclose(found["insertion"], high - (high - low) * 0.25, rtol=1e-5)
    found = faith.areas(faith.curves(question, infill, worst))
    np.testing.assert_allclose(found["deletion"], low + (high - low) * 0.95, rtol=1e-5)


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
    filled = {MEAN_BEAT: np.zeros_like(windows), DONOR_BEAT: -windows}
    question = Question(model, PERSON, windows, np.zeros(6, dtype=np.int64), None, 0)
    found = faith.faithfulness(question, relevances, filled, PERSONS, resamples)
    table = found.table.set_index(["method", "infill"])
    for infill in filled:
        right, wrong = table.loc[("right", infill)], table.loc[("wrong", infill)]
        assert right["deletion_gap_low"] > 0.05
        assert right["insertion_gap_low"] > 0.05
        assert wrong["deletion_gap"] < 0.0
        np.testing.assert_allclose(table.loc[("half", infill), "deletion"], right["deletion"], rtol=1e-6)
        assert table.loc[("none", infill), "reason"] == "the method gives no window any relevance"
        assert np.isnan(table.loc[("none", infill), "deletion_gap"])
    assert table.loc[("half", MEAN_BEAT), "windows"] == 3
    random = found.curves[(found.curves["method"] == "random order") & (found.curves["infill"] == MEAN_BEAT)]
    ends = random[(random["kind"] == "deletion") & random["fraction"].isin([0, 1])]["probability"]
    np.testing.assert_allclose(ends, [1 / (1 + np.exp(-4)), 0.5], rtol=1e-5)


def test_stability_of_the_order_of_methods_by_hand() -> None:
    gaps = {"a": (0.1, 0.2), "b": (0.2, 0.1), "c": (0.3, 0.3), "d": (0.4, 0.4)}
    rows = [
        {"method": method, "infill": infill, "deletion_gap": gap, "insertion_gap": np.nan}
        for method, both in gaps.items()
        for infill, gap in zip((MEAN_BEAT, DONOR_BEAT), both, strict=True)
    ]
    found = faith.infill_stability(pd.DataFrame(rows)).set_index("kind")
    assert found.loc["deletion", "kendall"] == pytest.approx(4 / 6)  # one of six pairs is turned round
    assert found.loc["deletion", "spearman"] == pytest.approx(0.8)
    assert "fewer than three methods" in found.loc["insertion", "reason"]


def test_infidelity_of_the_right_explanation_of_a_linear_network_is_zero() -> None:
    question = _question(linear_model(np.random.default_rng(1).standard_normal(100)))
    found = {name: attribute(METHODS[name], question) for name in ("input_x_gradient", "random")}
    np.testing.assert_allclose(faith.infidelities(found["input_x_gradient"], question, noise=0.0), 0, atol=1e-4)
    assert (faith.infidelities(found["random"], question, noise=0.0) > 1).all()
    assert np.isnan(faith.infidelities(np.full((6, 100), np.nan, dtype=np.float32), question, noise=0.0)).all()


def test_sensitivity_by_hand() -> None:
    question = _question(linear_model(np.random.default_rng(1).standard_normal(100)))
    found = {name: attribute(METHODS[name], question) for name in ("saliency", "magnitude")}
    np.testing.assert_allclose(faith.sensitivities(METHODS["saliency"], question, found["saliency"]), 0, atol=1e-6)
    # |x| changes by at most the radius a sample
    found = faith.sensitivities(METHODS["magnitude"], question, found["magnitude"])
    assert (found > 0).all()
    assert (found <= 0.02 * np.sqrt(100) / np.linalg.norm(question.windows[:, 0], axis=1) + 1e-6).all()


def test_robustness_table_names_what_does_not_apply(resamples: Resamples) -> None:
    question = _question(linear_model(np.random.default_rng(1).standard_normal(100)))
    methods = [METHODS["input_x_gradient"], METHODS["random"], METHODS["grad_cam"]]
    table = faith.robustness_table(question, methods, PERSONS, resamples).set_index("method")
    assert "convolutional" in table.loc["grad_cam", "reason"]
    pivot = (
        table.drop(index="grad_cam")
        .reset_index()
        .pivot_table(index="scale", columns=["measure", "method"], values="value")
    )
    better = pivot["infidelity"]["input_x_gradient"] < pivot["infidelity"]["random"]
    assert better[[0.05, 0.2, 0.5]].all()
