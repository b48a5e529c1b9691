"""The contract of every network: any leads, length and rate; gradients; JSON hyper-parameters; what is read out."""

import importlib
import inspect
import json
import pkgutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import ecgstudy.learn
from ecgstudy.errors import StudyError
from ecgstudy.learn import base
from ecgstudy.learn.base import UNKNOWN, SignalModel, TaskLogits, class_probabilities, embed_windows
from ecgstudy.learn.models import MODELS, create_model

CLASSES = {"person": list("abcde"), "sex": ["F", "M"], "age_group": ["young", "middle", "old"]}
TASKS = {task: len(names) for task, names in CLASSES.items()}
SIGNALS = [(1, 200, 100.0), (2, 333, 128.5), (12, 1000, 250.0)]

by_name = pytest.mark.parametrize("name", MODELS)
by_signal = pytest.mark.parametrize(("n_leads", "n_samples", "fs"), SIGNALS)


def make(
    name: str, n_leads: int = 1, n_samples: int = 200, fs: float = 100.0, classes: dict[str, list[str]] = CLASSES
) -> SignalModel:
    """Build a model with its default sizes."""
    leads = [f"L{i}" for i in range(n_leads)]
    return create_model(name, seed=3, n_leads=n_leads, n_samples=n_samples, fs=fs, classes=classes, lead_names=leads)


def windows(n_leads: int, n_samples: int, n: int = 6) -> torch.Tensor:
    """Draw windows of noise."""
    return torch.randn(n, n_leads, n_samples, generator=torch.Generator().manual_seed(0))


def labels(n: int = 6) -> dict[str, torch.Tensor]:
    """Give every class of every task to some window."""
    return {task: torch.arange(n) % n_classes for task, n_classes in TASKS.items()}


def test_registry_is_complete() -> None:
    found = set()
    for module in pkgutil.iter_modules(ecgstudy.learn.__path__, "ecgstudy.learn."):
        for _, member in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if issubclass(member, SignalModel) and not inspect.isabstract(member):
                found.add(member)
    assert set(MODELS.values()) == found
    assert all(name == model.name for name, model in MODELS.items())


def test_unknown_model_is_refused() -> None:
    with pytest.raises(StudyError, match=r"no model vit.*transecg"):
        create_model("vit", seed=0)


@by_name
@by_signal
def test_logits_and_embedding(name: str, n_leads: int, n_samples: int, fs: float) -> None:
    model = make(name, n_leads, n_samples, fs).eval()
    x = windows(n_leads, n_samples)
    logits, embedding = model(x), model.embed(x)
    assert {task: tuple(values.shape) for task, values in logits.items()} == {t: (6, n) for t, n in TASKS.items()}
    assert embedding.shape == (6, model.hparams.embedding_dim)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(6))
    # the scaled cosines of the person head are bounded by the scale
    assert logits["person"].abs().max() <= model.hparams.scale * 1.0001


@by_name
@by_signal
@pytest.mark.parametrize("tasks", [list(CLASSES), *([task] for task in CLASSES)])
def test_gradient_reaches_every_parameter(name: str, n_leads: int, n_samples: int, fs: float, tasks: list[str]) -> None:
    model = make(name, n_leads, n_samples, fs, {task: CLASSES[task] for task in tasks})
    sum(model.losses(model(windows(n_leads, n_samples)), labels(), margin=True).values()).backward()
    assert [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@by_name
@by_signal
def test_hyper_parameters_and_weights_rebuild_a_network(name: str, n_leads: int, n_samples: int, fs: float) -> None:
    model = make(name, n_leads, n_samples, fs)
    x = windows(n_leads, n_samples)
    model(x)  # moves the batch norms' running means away from their start
    saved = json.dumps(dict(model.hparams))
    again = MODELS[name](**json.loads(saved))
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval().embed(x), model.eval().embed(x))
    assert all(torch.equal(a, b) for a, b in zip(again(x).values(), model(x).values(), strict=True))
    assert json.dumps(dict(again.hparams)) == saved
    assert again.classes == CLASSES


@by_name
def test_hyper_parameters_are_json_and_complete(name: str) -> None:
    model = make(name)
    named = {*inspect.signature(MODELS[name]).parameters, *inspect.signature(model.build).parameters}
    common = {"embedding_dim", "margin", "scale", "learning_rate", "weight_decay"}
    assert set(json.loads(json.dumps(dict(model.hparams)))) == common | named - {"hyper_parameters"}
    assert isinstance(model.classes["person"], list)
    with pytest.raises(TypeError, match="not JSON serializable"):
        make(name, n_samples=np.int64(200))
    with pytest.raises(TypeError, match="unexpected keyword argument 'widht'"):
        create_model(name, 0, **{**dict(model.hparams), "widht": 3})


@by_name
def test_seed_decides_the_initial_weights_and_nothing_else(name: str) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    one, same = make(name), make(name)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    other = create_model(name, seed=4, **dict(one.hparams))
    assert not torch.equal(one.heads["sex"].weight, other.heads["sex"].weight)


@by_name
def test_linear_head_without_margin(name: str) -> None:
    model = make(name, classes={"person": "abcde"})
    linear = create_model(name, seed=3, **{**dict(model.hparams), "margin": None})
    assert isinstance(linear.heads["person"], torch.nn.Linear)
    x, target = windows(1, 200), {"person": torch.arange(6) % 5}
    logits = linear.eval()(x)
    with_margin = linear.losses(logits, target, margin=True)["person"]
    assert torch.equal(with_margin, torch.nn.functional.cross_entropy(logits["person"], target["person"]))


@by_name
def test_margin_raises_the_person_loss_only(name: str) -> None:
    model = make(name).eval()
    logits = model(windows(1, 200))
    plain, hard = (model.losses(logits, labels(), margin=margin) for margin in (False, True))
    assert hard["person"] > plain["person"]
    assert hard["sex"] == plain["sex"]


@by_name
def test_unknown_labels_are_left_out_of_the_loss(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(name).eval()
    logits, target = model(windows(1, 200)), labels()
    target["sex"] = target["sex"].clone()
    target["sex"][2:] = UNKNOWN
    first_two = torch.nn.functional.cross_entropy(logits["sex"][:2], target["sex"][:2])
    torch.testing.assert_close(model.losses(logits, target, margin=True)["sex"], first_two)
    counted = {}
    monkeypatch.setattr(model, "log", lambda name, _, batch_size: counted.update({name: batch_size}))
    model.validation_step((windows(1, 200), target), 0)
    assert (counted["val_sex_accuracy"], counted["val_person_accuracy"]) == (2, 6)
    target["sex"][:] = UNKNOWN
    assert model.losses(logits, target, margin=True)["sex"] == 0


@by_name
def test_wrong_arguments_are_named(name: str) -> None:
    with pytest.raises(StudyError, match="person needs two classes or more to be trained, and has 1"):
        make(name, classes={"person": ["a"]})
    with pytest.raises(StudyError, match="sex names a class twice"):
        make(name, classes={"person": "abc", "sex": "FF"})
    with pytest.raises(StudyError, match="no task to train for"):
        make(name, classes={})
    with pytest.raises(ValueError, match="2 leads but 1 lead names"):
        MODELS[name](n_leads=2, n_samples=200, fs=100.0, classes=CLASSES, lead_names=["I"])
    with pytest.raises(ValueError, match=r"\(n, 1, 200\) expected, got \(6, 1, 199\)"):
        make(name).embed(windows(1, 199))


@by_name
def test_kernels_are_decayed_and_biases_and_norms_are_not(name: str) -> None:
    model = make(name)
    model.trainer = SimpleNamespace(estimated_stepping_batches=10)
    optimizer, schedule = model.configure_optimizers().values()
    assert (schedule["interval"], schedule["scheduler"].total_steps) == ("step", 10)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert all(decay[id(p)] == (model.hparams.weight_decay if p.ndim > 1 else 0) for p in model.parameters())
    assert model.hparams.weight_decay > 0


@pytest.mark.parametrize(
    ("task", "expected", "sentence"),
    [
        ("sex", ["M", "F"], "Class 1 of task sex is F in the network and M in the data"),
        ("person", list("abced"), "Class 4 of task person is d in the network and e in the data"),
        ("person", list("abcd"), "Class 5 of task person is e in the network and missing in the data"),
        ("age_group", [*CLASSES["age_group"], "oldest"], "Class 4 of task age_group is missing in the network"),
        ("activity", ["rest"], "Class 1 of task activity is missing in the network and rest in the data"),
    ],
)
def test_a_network_is_not_read_by_other_class_names(task: str, expected: list[str], sentence: str) -> None:
    model = make("resnet1d", classes={task: np.array(names) for task, names in CLASSES.items()})
    for known, names in CLASSES.items():
        model.check_classes(known, names)
    with pytest.raises(StudyError, match=sentence):
        model.check_classes(task, expected)
    with pytest.raises(StudyError, match=sentence):
        class_probabilities(model, windows(1, 200).numpy(), task, expected)


@by_name
def test_batches_are_read_out_in_evaluation_mode(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_BATCH", 4)
    model, x = make(name).train(), windows(1, 200)
    embeddings, shares = embed_windows(model, x.numpy()), class_probabilities(model, x.numpy(), "sex", ["F", "M"])
    assert model.training
    with torch.no_grad():
        rows = [(model.eval().embed(row), model(row)["sex"].exp()) for row in x.split(1)]
    expected, exponentials = (torch.cat(column).numpy() for column in zip(*rows, strict=True))
    np.testing.assert_allclose(embeddings, expected, atol=1e-6)
    np.testing.assert_allclose(shares, exponentials / exponentials.sum(1, keepdims=True), atol=1e-6)


@by_name
def test_task_logits_are_the_models(name: str) -> None:
    model, x = make(name).eval(), windows(1, 200)
    assert torch.equal(TaskLogits(model, "sex")(x), model(x)["sex"])
    with pytest.raises(KeyError, match="no task age; the model has person, sex, age_group"):
        TaskLogits(model, "age")
