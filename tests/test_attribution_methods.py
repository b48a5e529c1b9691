"""Attribution methods: closed forms on a linear model, and what every method owes its caller."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from ecgstudy.attribution import methods
from ecgstudy.attribution.exchange import BASELINES, DONOR, EVERYBODY, FACTORS, OWN_TIMING, Exchange, Windows
from ecgstudy.attribution.methods import (
    METHODS,
    NONE,
    PAIRS,
    ZERO,
    Question,
    attribute,
    by_wave,
    controls_of,
    fresh,
    incompleteness,
    not_applicable,
    removed,
)
from ecgstudy.errors import StudyError
from ecgstudy.learn.base import SignalModel
from ecgstudy.learn.models import create_model

N, N_SAMPLES = 7, 60
SHAPE = {"n_samples": N_SAMPLES, "fs": 50.0, "classes": {"person": "abc", "sex": "FM"}}
SIZES = {"resnet1d": {"widths": [4, 6]}, "transecg": {"width": 8, "n_layers": 2, "n_heads": 2}}


class Linear(SignalModel):
    """A network whose logits are an affine function of two leads."""

    name = "linear"

    def __init__(self) -> None:
        classes = {"person": list("abc")}
        super().__init__(2, N_SAMPLES, 50.0, classes, ["I", "II"], embedding_dim=8, margin=None)
        torch.nn.init.normal_(self.embedding[1].running_mean)

    def build(self) -> int:
        """No layer."""
        return 2 * N_SAMPLES

    def features(self, x: Tensor) -> Tensor:
        """Leave the samples as they are."""
        return x.flatten(1)

    def weights(self) -> np.ndarray:
        """Weight of each sample for each class, shape (classes, leads, samples), multiplied out by hand."""
        norm = self.embedding[1]
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        product = self.heads["person"].weight @ (scale[:, None] * self.embedding[0].weight)
        return product.detach().numpy().reshape(3, 2, N_SAMPLES)


class Hearts:
    """Stands for an exchange: every factor changes a stretch of its own, waves by an offset, intervals by a slope."""

    def __init__(self, samples: np.ndarray, retimes: bool = True) -> None:
        self.samples, self.factors = samples, np.arange(len(FACTORS) if retimes else 6)

    def at(self, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Give samples and the wave of each, stretches of six samples."""
        codes = np.minimum(np.arange(N_SAMPLES) // 6, 9)
        slope = np.where(codes < 6, 1.0, np.linspace(0, 3, N_SAMPLES)) * (codes < self.factors.size)
        changed = self.samples + (share[codes] * slope).astype(np.float32)
        return changed.astype(np.float32), np.tile(np.where(codes < 6, codes, -1), (len(self.samples), 1))


@pytest.fixture(scope="module")
def linear() -> Question:
    """Seven windows of two leads, their waves different in each, and what stands for their exchanges."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    windows = rng.standard_normal((N, 2, N_SAMPLES)).astype(np.float32)
    waves = np.stack([np.roll(np.arange(N_SAMPLES) // 9 - 1, 5 * row) for row in range(N)]).astype(np.int8)
    return asking(Linear(), Windows(windows, np.arange(N) % 3, 50.0, 1, codes=waves))


def asking(model: SignalModel, windows: Windows) -> Question:
    """Ask about windows whose exchanges are made up."""
    made_up = {name: Hearts(windows.samples, name != OWN_TIMING) for name in BASELINES}
    object.__setattr__(windows, "exchanges", made_up)
    return Question(model, "person", windows)


def contrasts(question: Question) -> np.ndarray:
    """Weight of every sample for the true class less the mean of the other classes, (n, leads, samples)."""
    weights = question.model.weights()
    return np.stack([weights[k] - np.delete(weights, k, axis=0).mean(axis=0) for k in question.windows.targets])


@pytest.fixture(scope="module")
def contributions(linear: Question) -> np.ndarray:
    """Weight times sample, summed over leads: what every sample adds to the contrast."""
    return (contrasts(linear) * linear.windows.samples).sum(axis=1)


def network(name: str, **sizes: object) -> SignalModel:
    """Build a small network whose norms and biases look trained."""
    model = create_model(name, 0, n_leads=1, lead_names=["I"], **SHAPE, **SIZES[name], **sizes)
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.3, generator=generator)
    return model


def ask(model: SignalModel, **changed: object) -> Question:
    """Seven smooth windows of one lead."""
    steps = np.random.default_rng(2).standard_normal((N, 1, N_SAMPLES)).cumsum(axis=-1)
    windows = ((steps - steps.mean(-1, keepdims=True)) / steps.std(-1, keepdims=True)).astype(np.float32)
    waves = np.tile(np.arange(N_SAMPLES) // 10, (N, 1)).astype(np.int8)
    return asking(model, replace(Windows(windows, np.arange(N) % 3, 50.0, 3, codes=waves), **changed))


MODELS = {name: network(name) for name in SIZES}
CASES = [(m, method.name, b) for m in SIZES for method, b in PAIRS if not not_applicable(method, MODELS[m])]


def test_every_method_is_crossed_with_every_baseline_that_it_may_have() -> None:
    pairs = [(method.name, baseline) for method, baseline in PAIRS]
    for name in ("integrated_gradients", "deep_lift", "occlusion"):
        assert [b for n, b in pairs if n == name] == [ZERO, OWN_TIMING, EVERYBODY, DONOR]
    for name in ("replacement", "shapley", "path_gradients"):
        assert METHODS[name].by_factor
        assert [b for n, b in pairs if n == name] == [OWN_TIMING, EVERYBODY, DONOR]
    assert [name for name, method in METHODS.items() if method.control] == [
        "magnitude",
        "uniform",
        "deviation",
        "factor_deviation",
    ]
    assert all(name == method.name for name, method in METHODS.items())


def test_methods_by_sample_in_closed_form(linear: Question, contributions: np.ndarray) -> None:
    for name, baseline in (("integrated_gradients", ZERO), ("deep_lift", ZERO)):
        np.testing.assert_allclose(attribute(METHODS[name], baseline, linear), contributions, atol=1e-5)
    weights = np.abs(contrasts(linear)).sum(axis=1)
    np.testing.assert_allclose(attribute(METHODS["saliency"], NONE, linear), weights, atol=1e-6)


def test_occlusion_is_the_mean_loss_of_the_patches_over_a_sample(linear: Question, contributions: np.ndarray) -> None:
    # 0.1 s at 50 Hz are 5 samples; the patch moves by 2, and the last one hangs over the end
    losses, covered = np.zeros((N, N_SAMPLES)), np.zeros(N_SAMPLES)
    for start in range(0, N_SAMPLES - 3, 2):
        losses[:, start : start + 5] += contributions[:, start : start + 5].sum(axis=1, keepdims=True)
        covered[start : start + 5] += 1
    np.testing.assert_allclose(attribute(METHODS["occlusion"], ZERO, linear), losses / covered, atol=1e-5)


@pytest.mark.parametrize("baseline", BASELINES)
def test_the_baseline_is_what_windows_are_compared_with(linear: Question, baseline: str) -> None:
    apart = linear.windows.samples - linear.windows.exchanges[baseline].at(np.ones(len(FACTORS)))[0]
    expected = (contrasts(linear) * apart).sum(axis=1)
    np.testing.assert_allclose(attribute(METHODS["integrated_gradients"], baseline, linear), expected, atol=1e-5)
    np.testing.assert_allclose(attribute(METHODS["deviation"], baseline, linear), np.abs(apart).sum(axis=1), rtol=1e-5)


@pytest.mark.parametrize("name", ["replacement", "shapley", "path_gradients"])
@pytest.mark.parametrize("baseline", BASELINES)
def test_methods_by_factor_in_closed_form(linear: Question, name: str, baseline: str) -> None:
    exchange = linear.windows.exchanges[baseline]
    none = exchange.at(np.zeros(len(FACTORS)))[0]
    expected = np.zeros((N, len(FACTORS)))
    for factor in exchange.factors:
        changed = exchange.at(np.eye(len(FACTORS))[factor])[0]
        expected[:, factor] = -(contrasts(linear) * (changed - none)).sum(axis=(1, 2))
    np.testing.assert_allclose(attribute(METHODS[name], baseline, linear), expected, atol=2e-4)
    assert (expected[:, 6:] == 0).all() == (baseline == OWN_TIMING)
    sizes = attribute(METHODS["factor_deviation"], baseline, linear)
    np.testing.assert_allclose(sizes[:, 2], 12, rtol=1e-5)  # six samples of two leads, moved by 1 each


def test_shapley_values_share_what_two_factors_do_together(linear: Question, monkeypatch: pytest.MonkeyPatch) -> None:
    class Both(Exchange):
        factors = np.array([0, 7])

        def __init__(self) -> None:
            """Need nothing."""

        def at(self, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            """Change the window where both are exchanged, and not otherwise."""
            gone = linear.windows.samples * (1 - share[0] * share[7])
            return gone.astype(np.float32), linear.windows.codes

    whole = linear.scores(linear.windows.samples) - linear.scores(np.zeros_like(linear.windows.samples))
    found = METHODS["shapley"].run(linear, Both())
    np.testing.assert_allclose(found[:, [0, 7]], whole[:, None] / 2 * [1, 1], atol=1e-5)
    np.testing.assert_allclose(METHODS["replacement"].run(linear, Both()), 0, atol=1e-5)


def test_the_answer_by_wave_is_a_share_of_the_known_samples() -> None:
    codes = np.array([[0, 0, 2, -1], [0, 0, 2, 2]])
    found = by_wave(np.array([[1.0, -1.0, 6.0, 99.0], [0, 0, 0, 0]]), codes)
    assert found.shape == (2, len(FACTORS))
    np.testing.assert_allclose(found[0, [0, 1, 2]], [0.25, 0, 0.75])
    assert np.isnan(found[1]).all()


def test_what_a_baseline_removes_is_probability_above_chance(linear: Question) -> None:
    found = removed(linear, ZERO)
    known = linear.probabilities(linear.windows.samples)[np.arange(N), linear.windows.targets]
    left = linear.probabilities(np.zeros_like(linear.windows.samples))[np.arange(N), linear.windows.targets]
    np.testing.assert_allclose(found, np.stack([known, left]) - 1 / 3, atol=1e-6)


def test_the_untrained_network_is_not_that_which_the_training_began_with() -> None:
    initial = create_model("transecg", 3, n_leads=1, lead_names=["I"], **SHAPE, **SIZES["transecg"])
    twin = fresh(ask(initial)).model
    assert twin.name == "transecg"
    assert not torch.equal(twin.to_tokens.weight, initial.to_tokens.weight)
    assert torch.equal(twin.to_tokens.weight, fresh(ask(network("transecg"))).model.to_tokens.weight)


def test_all_methods_and_their_untrained_twins_answer() -> None:
    answers = methods.ask(ask(MODELS["resnet1d"]))
    pairs = {(m.name, b) for m, b in PAIRS if not not_applicable(m, MODELS["resnet1d"])}
    assert {key[:2] for key in answers.effects} == pairs
    untrained = {key[:2] for key in answers.effects if key[2] == methods.UNTRAINED}
    assert untrained == {pair for pair in pairs if not METHODS[pair[0]].control}
    assert set(answers.removed) == {ZERO, *BASELINES}
    assert {name for name, _ in answers.incomplete} == {
        "shapley",
        "path_gradients",
        "integrated_gradients",
        "deep_lift",
    }
    assert answers.incomplete["shapley", DONOR] == pytest.approx(0, abs=1e-5)
    assert set(answers.refusals) == {"last_attention"}
    assert all(effects.shape == (N, len(FACTORS)) for effects in answers.effects.values())
    question = ask(MODELS["resnet1d"])
    found = by_wave(attribute(METHODS["saliency"], NONE, question), question.windows.codes)
    np.testing.assert_allclose(answers.effects["saliency", NONE, ""], found)
    twin = attribute(METHODS["replacement"], DONOR, fresh(question))
    np.testing.assert_allclose(answers.effects["replacement", DONOR, methods.UNTRAINED], twin)


def test_every_method_is_compared_with_its_own_distance_magnitude_and_untrained_network() -> None:
    asked = {name: controls_of(METHODS[name], DONOR) for name in ("replacement", "occlusion")}
    untrained = {name: (name, DONOR, methods.UNTRAINED) for name in asked}
    magnitude = ("magnitude", NONE, "")
    assert asked["replacement"] == (("factor_deviation", DONOR, ""), magnitude, untrained["replacement"])
    assert asked["occlusion"] == (("deviation", DONOR, ""), magnitude, untrained["occlusion"])
    assert controls_of(METHODS["saliency"], NONE)[0] == ("deviation", OWN_TIMING, "")
    assert controls_of(METHODS["deviation"], DONOR) == ()


@pytest.mark.parametrize(("model", "name", "baseline"), CASES)
def test_answer_does_not_depend_on_the_chunk(
    model: str, name: str, baseline: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = ask(MODELS[model])
    whole = attribute(METHODS[name], baseline, question)
    monkeypatch.setattr(methods, "CHUNK", 3)
    parts = attribute(METHODS[name], baseline, question)
    assert whole.shape == (N, len(FACTORS) if METHODS[name].by_factor else N_SAMPLES)
    np.testing.assert_allclose(parts, whole, atol=1e-4 * np.nanmax(np.abs(whole)), rtol=1e-3)


def test_network_and_random_states_are_left_as_they_were() -> None:
    model = network("resnet1d").train()
    model.stem[0].weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch_before = torch.get_rng_state()
    for method, baseline in PAIRS:
        if not not_applicable(method, model):
            attribute(method, baseline, ask(model))
    with pytest.raises((IndexError, RuntimeError)):  # fails while its hooks are set
        attribute(METHODS["deep_lift"], ZERO, ask(model, targets=np.full(N, 99)))
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert all(module.training for module in model.modules())
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["stem.0.weight"]
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._backward_hooks


def test_what_a_failed_method_leaves_behind_is_on_a_copy_of_its_own(linear: Question) -> None:
    def leaves_a_hook(question: Question, _: methods.Chunk) -> Tensor:
        question.contrast.register_forward_hook(lambda *_: torch.zeros(N, 3))
        raise RuntimeError

    before = linear.scores(linear.windows.samples)
    with pytest.raises(RuntimeError):
        attribute(methods.Method(leaves_a_hook, ""), ZERO, linear)
    np.testing.assert_array_equal(linear.scores(linear.windows.samples), before)
    assert np.abs(before).max() > 0


def test_why_a_method_does_not_apply_is_a_sentence() -> None:
    asked = ((name, method) for name in SIZES for method in METHODS.values())
    sentences = {(name, method.name): not_applicable(method, MODELS[name]) for name, method in asked}
    assert {key: sentence for key, sentence in sentences.items() if sentence} == {
        ("resnet1d", "last_attention"): "last_attention needs attention weights, which resnet1d does not have",
        ("transecg", "deep_lift"): "deep_lift has no rule for GELU and LayerNorm, of which transecg is built",
        ("transecg", "grad_cam"): "grad_cam needs convolutional stages, which transecg does not have",
    }


def test_what_does_not_apply_is_refused() -> None:
    with pytest.raises(StudyError, match=r"^grad_cam needs convolutional stages, .* choose another"):
        attribute(METHODS["grad_cam"], NONE, ask(MODELS["transecg"]))


def test_incompleteness_by_hand(linear: Question, contributions: np.ndarray) -> None:
    method = METHODS["integrated_gradients"]
    assert incompleteness(method, ZERO, linear, contributions) == pytest.approx(0, abs=1e-4)
    assert incompleteness(method, ZERO, linear, 1.25 * contributions) == pytest.approx(0.25, abs=1e-4)
    by_factor = attribute(METHODS["path_gradients"], DONOR, linear)
    assert incompleteness(METHODS["path_gradients"], DONOR, linear, by_factor) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "model", "sizes", "least", "most"),
    [
        ("integrated_gradients", "transecg", {}, 0, 1e-3),
        ("integrated_gradients", "resnet1d", {}, 0, 0.03),
        ("deep_lift", "resnet1d", {"reduction": 0, "margin": None}, 0, 1e-4),
        ("deep_lift", "resnet1d", {"reduction": 2}, 0.02, np.inf),  # products are seen to be incomplete
    ],
)
def test_sums_to_the_change_of_the_contrast(
    name: str, model: str, sizes: dict[str, object], least: float, most: float
) -> None:
    question = ask(network(model, **sizes))
    found = attribute(METHODS[name], ZERO, question)
    assert least <= incompleteness(METHODS[name], ZERO, question, found) < most


def patched(name: str, **sizes: object) -> Question:
    """Five windows for a small network; 103 samples at 50 Hz are 20 patches of 5 and one of 3."""
    shape = {"n_leads": 1, "n_samples": 103, "fs": 50.0, "classes": {"person": "abc"}, "lead_names": ["I"]}
    windows = np.random.default_rng(0).standard_normal((5, 1, 103)).astype(np.float32)
    model: SignalModel = create_model(name, 0, **shape, **sizes).eval()
    return Question(model, "person", Windows(windows, np.arange(5) % 3, 50.0, 0))


def test_attention_is_spread_over_the_samples_of_its_patch() -> None:
    question = patched("transecg", width=8, n_layers=3, n_heads=2)
    model = question.model
    maps = model.attention_maps(torch.from_numpy(question.windows.samples)).detach()
    weights = maps[-1].mean(1)[:, 0, 1:]
    found = attribute(METHODS["last_attention"], NONE, question)
    for patch, (start, end) in enumerate(model.patch_bounds):
        assert np.ptp(found[:, start:end], axis=1).max() == 0
        np.testing.assert_allclose(found[:, start:end].sum(axis=1), weights[:, patch], rtol=1e-5)


def test_grad_cam_by_its_equation() -> None:
    question = patched("resnet1d", widths=[4, 6], margin=None)
    model, targets = question.model, torch.from_numpy(question.windows.targets)
    activations = model.stages(model.stem(torch.from_numpy(question.windows.samples)))
    logits = model.heads["person"](model.embedding(activations.mean(dim=-1)))
    of_class = logits.gather(1, targets[:, None])
    contrast = of_class - (logits.sum(dim=1, keepdim=True) - of_class) / 2
    (gradient,) = torch.autograd.grad(contrast.sum(), activations)
    coarse = (gradient.mean(dim=-1, keepdim=True) * activations).sum(dim=1).clamp_min(0).detach().numpy()
    assert coarse.shape == (5, 26)
    # cell i of 26 stands for the middle of its stretch of the window
    centres = (np.arange(26) + 0.5) * 103 / 26 - 0.5
    expected = np.stack([np.interp(np.arange(103), centres, row) for row in coarse])
    found = attribute(METHODS["grad_cam"], NONE, question)
    assert (found > 0).any()
    np.testing.assert_allclose(found, expected, atol=1e-6)
