"""Attention and GradCAM against what they mean, computed by hand; shares of the feature model."""

import numpy as np
import pandas as pd
import pytest
import torch

from ecgstudy.attribution.attention import rollout
from ecgstudy.attribution.feature_shares import feature_shares, wave_weights
from ecgstudy.attribution.methods import METHODS, Question, attribute
from ecgstudy.attribution.waves import WAVES
from ecgstudy.learn.base import SignalModel
from ecgstudy.learn.classical import FeaturesGbm
from ecgstudy.learn.models import create_model
from ecgstudy.signals.features import FEATURES

N, N_SAMPLES = 5, 103


def ask(name: str, **sizes: object) -> Question:
    """Five windows for a small network; 103 samples at 50 Hz are 20 patches of 5 and one of 3."""
    shape = {"n_leads": 1, "n_samples": N_SAMPLES, "fs": 50.0, "classes": {"person": "abc"}, "lead_names": ["I"]}
    windows = np.random.default_rng(0).standard_normal((N, 1, N_SAMPLES)).astype(np.float32)
    model: SignalModel = create_model(name, 0, **shape, **sizes).eval()
    return Question(model, "person", windows, np.arange(N) % 3, None, seed=0)


def test_rollout_of_three_tokens() -> None:
    identity = torch.eye(3)
    # one head that attends to token 1 and one that stays: their mean takes a half from each
    first = torch.stack([torch.tensor([[0.0, 1, 0], [0, 1, 0], [0, 0, 1]]), identity])
    second = torch.tensor([[0.0, 0, 1], [0, 1, 0], [0, 0, 1]]).expand(2, 3, 3)
    flow = rollout(torch.stack([first, second])[:, None])
    # layer 1 with its residual: (3/4, 1/4, 0); layer 2 mixes half of it with token 2
    torch.testing.assert_close(flow[0], torch.tensor([[3 / 8, 1 / 8, 1 / 2], [0, 1, 0], [0, 0, 1]]))


def test_attention_is_spread_over_the_samples_of_its_patch() -> None:
    question = ask("transecg", width=8, n_layers=3, n_heads=2)
    model = question.model
    maps = model.attention_maps(torch.from_numpy(question.windows)).detach()
    expected = {"last_attention": maps[-1].mean(1)[:, 0, 1:], "attention_rollout": rollout(maps)[:, 0, 1:]}
    for name, weights in expected.items():
        found = attribute(METHODS[name], question)
        for patch, (start, end) in enumerate(model.patch_bounds):
            assert np.ptp(found[:, start:end], axis=1).max() == 0
            np.testing.assert_allclose(found[:, start:end].sum(axis=1), weights[:, patch], rtol=1e-5)


def test_grad_cam_by_its_equation() -> None:
    question = ask("resnet1d", widths=[4, 6], margin=None)
    model, targets = question.model, torch.from_numpy(question.targets)
    activations = model.stages(model.stem(torch.from_numpy(question.windows)))
    logits = model.heads["person"](model.embedding(activations.mean(dim=-1)))
    (gradient,) = torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), activations)
    coarse = (gradient.mean(dim=-1, keepdim=True) * activations).sum(dim=1).clamp_min(0).detach().numpy()
    assert coarse.shape == (N, 26)
    # cell i of 26 stands for the middle of its stretch of the window
    centres = (np.arange(26) + 0.5) * N_SAMPLES / 26 - 0.5
    expected = np.stack([np.interp(np.arange(N_SAMPLES), centres, row) for row in coarse])
    expected[(expected == 0).all(axis=1)] = np.nan
    found = attribute(METHODS["grad_cam"], question)
    assert np.isfinite(found).any()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    guided = attribute(METHODS["guided_grad_cam"], question)
    assert (np.nan_to_num(guided[found == 0]) == 0).all()


@pytest.mark.parametrize("name", ["grad_cam", "guided_grad_cam", "saliency"])
def test_a_map_without_mass_is_undefined(name: str) -> None:
    question = ask("resnet1d", widths=[4, 6], margin=None)
    question.model.heads["person"].weight.data[1] = 0  # the logit of class 1 no longer depends on the window
    found = attribute(METHODS[name], question)
    assert np.isnan(found[question.targets == 1]).all()


def test_every_feature_is_split_between_waves() -> None:
    weights = wave_weights()
    assert list(weights.index) == list(FEATURES)
    assert list(weights.columns) == list(WAVES)
    np.testing.assert_array_equal(weights.sum(axis=1), 1)
    expected = {
        "P-Q interval": {"P": 0.5, "QRS": 0.5},
        "S-R amplitude": {"QRS": 1},
        "T-R amplitude": {"QRS": 0.5, "T": 0.5},
        "P-T interval": {"P": 0.5, "T": 0.5},
        "QT duration": {"QRS": 0.5, "T": 0.5},
        "P duration": {"P": 1},
        "R-R interval": {"TP": 1},
    }
    for feature, waves in expected.items():
        assert weights.loc[feature][weights.loc[feature] > 0].to_dict() == waves


def test_shares_of_the_feature_model(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    features = pd.DataFrame(rng.standard_normal((300, len(FEATURES))), columns=list(FEATURES))
    labels = np.digitize(features["T duration"], [-0.5, 0.5]) * 10  # classes 0, 10, 20, told by T alone
    model = FeaturesGbm(seed=0, max_iter=10).fit(features, labels)
    asked = features[:20].copy()
    asked.iloc[0] = np.nan
    shares = feature_shares(model, asked, labels[:20])
    assert shares.iloc[0].isna().all()
    np.testing.assert_allclose(shares[1:].sum(axis=1), 1)
    assert shares["T"][1:].median() > 0.8
    with pytest.raises(ValueError, match="not a class"):
        feature_shares(model, asked, np.full(20, 7))

    values = np.zeros((20, len(FEATURES), 3))
    values[:, list(FEATURES).index("P-Q interval"), 1] = -3
    values[:, list(FEATURES).index("T duration"), 1] = 1
    values[:, list(FEATURES).index("P duration"), 2] = 50  # of another class
    monkeypatch.setattr(model, "shap_values", lambda _: values)
    shares = feature_shares(model, asked, np.full(20, 10))
    np.testing.assert_allclose(shares.iloc[5], [1.5 / 4, 0, 1.5 / 4, 0, 1 / 4, 0])
    assert feature_shares(model, asked, np.full(20, 0)).isna().all(axis=None)  # nothing speaks for class 0
