"""Training runs: deterministic, cached, resumable, chosen on validation only, silent in batch."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pytorch_lightning.callbacks import TQDMProgressBar

from ecgstudy.errors import StudyError
from ecgstudy.learn import train as training
from ecgstudy.learn.base import UNKNOWN, SignalModel
from ecgstudy.learn.batches import WindowSet
from ecgstudy.learn.models import MODELS, ResNet1d, create_model
from ecgstudy.learn.train import Epochs, TrainedRun, TrainingSettings, fit, make_trainer

SMALL = {
    "transecg": {"width": 8, "n_layers": 1, "n_heads": 2},
    "resnet1d": {"widths": [4, 8]},
    "beatnet": {"widths": [4, 8]},
    "beatcnn": {"widths": [4, 8]},
    "dt4ecg": {"widths": [4, 8]},
}
PERSONS = ("p0", "p1", "p2", "p3")
SETTINGS = TrainingSettings(epochs=3, batch_size=8, seed=1)


@pytest.fixture(autouse=True)
def _batch_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no bars, and leave the other cores to the other tests."""
    monkeypatch.setenv("ECGSTUDY_BATCH", "1")
    monkeypatch.setattr(training, "THREADS", 1)


def drawn(seed: int, n_samples: int = 64) -> WindowSet:
    """Draw persons who differ in frequency."""
    rng = np.random.default_rng(seed)
    person = np.repeat(np.arange(4), 6)
    phase = rng.uniform(0, 2 * np.pi, size=(len(person), 1))
    waves = np.sin(np.arange(n_samples) * 0.15 * (1 + person[:, None]) + phase)
    samples = (waves + 0.1 * rng.normal(size=waves.shape))[:, None].astype(np.float32)
    return WindowSet(samples, {"person": person}, *[np.array(PERSONS)[person]] * 2)


def network(name: str = "resnet1d") -> SignalModel:
    """Build a tiny network."""
    signal = {"n_leads": 1, "n_samples": 64, "fs": 50.0, "lead_names": ["I"]}
    return create_model(name, 0, embedding_dim=8, classes={"person": [*PERSONS]}, **signal, **SMALL[name])


def run(folder: Path, settings: TrainingSettings = SETTINGS, name: str = "resnet1d") -> TrainedRun:
    """Fit a tiny network."""
    return fit(network(name), drawn(0), drawn(1), settings, folder, device="cpu")


def same_weights(one: SignalModel, other: SignalModel) -> bool:
    """Tell whether all weights and buffers are equal bit by bit."""
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_fit_is_deterministic(name: str, tmp_path: Path) -> None:
    settings = replace(SETTINGS, epochs=2)
    one, same = (run(tmp_path / folder, settings, name) for folder in ("a", "b"))
    assert same_weights(one.model, same.model)
    assert not same_weights(one.model, network(name))
    other = run(tmp_path / "a", replace(settings, seed=2), name)
    assert not same_weights(one.model, other.model)


def test_fit_leaves_the_callers_random_state(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    run(tmp_path)
    assert torch.equal(torch.rand(2), expected)


def test_complete_run_is_loaded_not_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(tmp_path)
    assert torch.get_num_threads() == 1
    kept, about = sorted(tmp_path.glob("resnet1d-*"))
    assert (kept.suffix, about.suffix) == (".joblib", ".json")
    assert {"numpy", "pytorch-lightning", "torch"} == set(json.loads(about.read_text())["made_from"]["libraries"])
    monkeypatch.setattr(ResNet1d, "training_step", lambda *_: pytest.fail("trained again"))
    again = run(tmp_path)
    assert same_weights(first.model, again.model)
    assert again.history.equals(first.history)
    assert not again.model.training


def test_whatever_the_weights_depend_on_names_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(SETTINGS, epochs=1)
    train, validation, shuffled = drawn(0), drawn(1), drawn(0)
    shuffled.targets["person"] = np.roll(shuffled.targets["person"], 1)
    renamed = create_model("resnet1d", 0, **{**dict(network().hparams), "classes": {"person": ["p0", "p1", "x", "p3"]}})
    trained_on = fit(network(), train, validation, settings, tmp_path, "cpu")
    for model, *others in (
        (network(), shuffled, validation, settings),
        (network(), train, drawn(2), settings),
        (network(), train, None, settings),
        (network(), train, validation, replace(settings, augmentation=None)),
        (trained_on.model, train, validation, settings),
        (renamed, train, validation, settings),
    ):
        assert fit(model, *others, tmp_path, "cpu").model.classes == model.classes
    for patched, value in (("code_key", lambda _: "changed loss"), ("library_versions", lambda _: {"torch": "0"})):
        with monkeypatch.context() as patch:
            patch.setattr(training, patched, value)
            fit(network(), train, validation, settings, tmp_path, "cpu")
    assert len(list(tmp_path.glob("*.joblib"))) == 9


@pytest.mark.parametrize("name", MODELS)
def test_interrupted_run_ends_like_an_uninterrupted_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tmp_path / "whole", name=name)
    step = MODELS[name].training_step

    def failing(self: SignalModel, batch: object, batch_idx: int) -> torch.Tensor:
        if self.current_epoch == 2 and batch_idx == 1:
            raise RuntimeError("power cut")
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(MODELS[name], "training_step", failing)
        with pytest.raises(RuntimeError, match="power cut"):
            run(tmp_path / "cut", name=name)
    assert not list((tmp_path / "cut").glob("*.joblib"))
    resumed = run(tmp_path / "cut", name=name)
    assert same_weights(resumed.model, whole.model)
    assert resumed.history.equals(whole.history)
    assert resumed.history["epoch"].tolist() == [0, 1, 2]


def test_every_epoch_and_every_run_has_random_numbers_of_its_own() -> None:
    seeds = set()
    for seed, epoch in [(0, 0), (0, 1), (1, 0), (0, 0)]:
        Epochs(seed).on_train_epoch_start(SimpleNamespace(current_epoch=epoch), None)
        seeds.add(torch.initial_seed())
    assert len(seeds) == 3


def test_epoch_is_the_best_on_validation(tmp_path: Path) -> None:
    validation = drawn(1)
    # wrong validation labels: learning makes the validation loss worse, so an early epoch is best
    validation.targets["person"] = (validation.targets["person"] + 1) % 4
    settings = replace(SETTINGS, epochs=8)
    trained = fit(network(), drawn(0), validation, settings, tmp_path, "cpu")
    assert trained.history["val_loss"].idxmin() < 7
    x = torch.from_numpy(validation.samples)
    with torch.no_grad():
        logits = trained.model(x)["person"]
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(validation.targets["person"]))
    assert loss.item() == pytest.approx(trained.history["val_loss"].min(), rel=1e-5)


def test_without_validation_the_last_epoch_is_kept(tmp_path: Path) -> None:
    trained, chosen = fit(network(), drawn(0), None, SETTINGS, tmp_path, "cpu"), run(tmp_path)
    assert chosen.history["val_loss"].idxmin() == 2
    assert same_weights(trained.model, chosen.model)
    assert trained.history.columns.tolist() == ["epoch", "train_loss"]


def test_longer_training_windows_are_cut(tmp_path: Path) -> None:
    trained = fit(network(), drawn(0, n_samples=90), drawn(1), replace(SETTINGS, epochs=1), tmp_path, "cpu")
    assert np.isfinite(trained.history["val_loss"]).all()
    with pytest.raises(ValueError, match="windows of 50 samples for a model of 64"):
        fit(network(), drawn(0, n_samples=50), drawn(1), SETTINGS, tmp_path, "cpu")


def test_learning_learns(tmp_path: Path) -> None:
    trained = run(tmp_path, replace(SETTINGS, epochs=12))
    assert trained.history["val_person_accuracy"].iloc[-1] == 1.0


def test_batch_run_prints_one_line_an_epoch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO):
        run(tmp_path)
    lines = [record.getMessage() for record in caplog.records if record.name == "ecgstudy.learn.train"]
    assert [line.split(" ")[:2] for line in lines] == [["epoch", "1/3"], ["epoch", "2/3"], ["epoch", "3/3"]]
    assert all("train_loss" in line and "val_loss" in line for line in lines)
    printed = capsys.readouterr()
    assert printed.out + printed.err == ""


def test_bar_is_for_watchers_only(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = make_trainer(1, "cpu")
    assert (silent.progress_bar_callback, silent.gradient_clip_val) == (None, 1.0)
    monkeypatch.delenv("ECGSTUDY_BATCH")
    bar = make_trainer(1, "cpu").progress_bar_callback
    assert isinstance(bar, TQDMProgressBar)
    assert bar.refresh_rate >= 20


def test_undefined_choices_are_refused(tmp_path: Path) -> None:
    validation = drawn(1)
    validation.targets["person"][:] = UNKNOWN
    with pytest.raises(StudyError, match="train without validation"):
        fit(network(), drawn(0), validation, SETTINGS, tmp_path, "cpu")
