"""DT4ECG: its attentions are what the features are made of, its switches, and training under each balance."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ecgstudy.learn import train as training
from ecgstudy.learn.batches import WindowSet
from ecgstudy.learn.models import DT4ECG, create_model
from ecgstudy.learn.train import TrainingSettings, fit

TASKS = {"person": 3, "activity": 2}
CLASSES = {"person": "abc", "activity": ["rest", "run"]}
SIZES = {"n_leads": 1, "n_samples": 200, "fs": 100.0, "classes": CLASSES, "lead_names": ["I"], "widths": [8, 16]}


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the other cores to the other tests."""
    monkeypatch.setattr(training, "THREADS", 1)
    torch.set_num_threads(1)


def make(**switches: object) -> DT4ECG:
    """Build a small network."""
    model = create_model("dt4ecg", 0, **{**SIZES, **switches})
    assert isinstance(model, DT4ECG)
    return model.eval()


def noise(n: int = 4) -> torch.Tensor:
    """Draw windows of noise."""
    return torch.randn(n, 1, 200, generator=torch.Generator().manual_seed(1))


def test_features_are_the_maps_under_both_attentions() -> None:
    model, x = make(), noise()
    channel, sequence = model.attention_maps(x)
    maps = model.blocks(model.stem(x))
    expected = torch.einsum("nct,nc,nt->nc", maps, channel, sequence)
    torch.testing.assert_close(model.features(x), expected)
    torch.testing.assert_close(sequence.sum(dim=1), torch.ones(4))
    assert ((channel > 0) & (channel < 1)).all()
    assert channel.shape == (4, 16)
    assert sequence.shape == (4, 200 // model.samples_per_point)


@pytest.mark.parametrize(("channel_on", "sequence_on"), [(False, False), (True, False), (False, True)])
def test_a_switched_off_half_is_neutral(channel_on: bool, sequence_on: bool) -> None:
    model, x = make(channel_attention=channel_on, sequence_attention=sequence_on), noise()
    channel, sequence = model.attention_maps(x)
    assert torch.equal(channel, torch.ones_like(channel)) is not channel_on
    assert torch.equal(sequence, torch.full_like(sequence, 1 / sequence.shape[1])) is not sequence_on
    if not channel_on and not sequence_on:
        torch.testing.assert_close(model.features(x), model.blocks(model.stem(x)).mean(dim=-1))


def test_a_point_of_the_attention_lies_where_its_samples_are() -> None:
    # a change around sample 120 reaches the points around it, equally far to both sides
    model, x = make(channel_attention=False, widths=[8, 16, 16]), noise(1)
    changed = x.clone()
    changed[..., 116:125] += 3.0
    before, after = (model.blocks(model.stem(values))[0] for values in (x, changed))
    moved = (after - before).abs().sum(dim=0)
    touched = torch.nonzero(moved > 0).flatten()
    assert len(touched) < len(moved)
    middle = (touched[0] + touched[-1]).item() / 2
    assert middle * model.samples_per_point == pytest.approx(120, abs=model.samples_per_point)


def test_the_balance_reads_the_last_layer_that_the_tasks_share(monkeypatch: pytest.MonkeyPatch) -> None:
    model, read = make().train(), []
    monkeypatch.setattr(model.balance, "forward", lambda losses, shared: (read.append(shared), losses.sum())[1])
    monkeypatch.setattr(model, "log", lambda *_, **__: None)
    model.training_step((noise(), {"person": torch.arange(4) % 3, "activity": torch.arange(4) % 2}), 0)
    assert len(read) == 1
    assert read[0] is model.embedding[0].weight


def planted(n: int = 96) -> WindowSet:
    """Build windows whose frequency tells the person and whose offset in phase of a pulse tells the activity."""
    rng = np.random.default_rng(0)
    person, activity = rng.integers(0, 3, n), rng.integers(0, 2, n)
    t = np.arange(200) / 100
    signal = np.sin(2 * np.pi * (2 + 3 * person[:, None]) * t + rng.uniform(0, 6, (n, 1)))
    signal += activity[:, None] * np.sin(2 * np.pi * 20 * t)
    samples = (signal + 0.1 * rng.standard_normal((n, 200))).astype(np.float32)[:, None]
    names = person.astype(str)
    return WindowSet(samples, {"person": person, "activity": activity}, names, names)


@pytest.mark.parametrize("balance", ["gradnorm", "uncertainty", "equal"])
def test_both_planted_tasks_are_learnt_and_the_history_shows_the_balance(balance: str, tmp_path: Path) -> None:
    model = create_model("dt4ecg", 0, **SIZES, balance=balance, margin=None)
    run = fit(model, planted(), None, TrainingSettings(epochs=15, batch_size=16), tmp_path, "cpu")
    test = planted(120)
    with torch.inference_mode():
        logits = run.model(torch.from_numpy(test.samples[96:]))
    for task in TASKS:
        assert (logits[task].argmax(dim=1).numpy() == test.targets[task][96:]).mean() > 0.9
    weights = run.history[["weight_person", "weight_activity"]]
    if balance == "gradnorm":
        np.testing.assert_allclose(weights.sum(axis=1), 2, rtol=1e-5)
        assert weights["weight_person"].std() > 0
    if balance == "equal":
        assert (weights == 1).all(axis=None)
        losses = run.history["train_person_loss"] + run.history["train_activity_loss"]
        np.testing.assert_allclose(run.history["train_loss"], losses, rtol=1e-5)
