"""Augmentation: each change alone, with its strength measured."""

import numpy as np
import torch

from ecgstudy.learn.batches import Augmentation, augment, random_crops

FS = 100.0


def seeded(seed: int = 0) -> torch.Generator:
    """Give a generator."""
    return torch.Generator().manual_seed(seed)


def windows(n: int = 400, n_leads: int = 2) -> torch.Tensor:
    """Draw windows whose leads differ in size."""
    return torch.randn(n, n_leads, 500, generator=seeded(9)) * torch.tensor([1.0, 30.0])[:n_leads, None]


def test_nothing_asked_nothing_changed() -> None:
    x = windows()
    torch.testing.assert_close(augment(x, FS, Augmentation(0.0, 0.0, 0.0), seeded()), x)


def test_same_seed_same_change() -> None:
    x = windows(8)
    before = x.clone()
    one, same, other = (augment(x, FS, Augmentation(), seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(x, before)


def test_gain_is_one_log_normal_factor_a_window() -> None:
    x = windows(2000)
    factors = augment(x, FS, Augmentation(0.2, 0.0, 0.0), seeded()) / x
    spread = factors.amax(dim=(1, 2)) / factors.amin(dim=(1, 2))
    torch.testing.assert_close(spread, torch.ones(2000), atol=1e-5, rtol=0)
    logarithms = factors[:, 0, 0].log()
    # standard errors at n = 2000: 0.0045 of the mean, 0.0032 of the deviation
    assert abs(logarithms.mean()) < 0.02
    assert abs(logarithms.std() - 0.2) < 0.015


def test_noise_is_relative_to_each_lead() -> None:
    x = windows(50)
    added = augment(x, FS, Augmentation(0.0, 0.1, 0.0), seeded()) - x
    relative = added.std(dim=-1) / x.std(dim=-1)
    np.testing.assert_allclose(relative.mean(dim=0), [0.1, 0.1], rtol=0.02)


def test_wander_is_one_slow_sine() -> None:
    x = torch.randn(50, 1, 2000, generator=seeded(9))
    added = (augment(x, FS, Augmentation(0.0, 0.0, 0.5), seeded()) - x).squeeze(1)
    power = torch.fft.rfft(added * torch.hann_window(2000)).abs().square()
    slow = torch.fft.rfftfreq(2000, 1 / FS) <= 0.65
    assert (power[:, slow].sum(1) / power.sum(1)).min() > 0.999


def test_crops_are_pieces_of_their_own_window() -> None:
    x = torch.arange(20.0).repeat(200, 2, 1) + 100 * torch.arange(200.0)[:, None, None]
    crops = random_crops(x, 15, seeded())
    starts = crops[:, 0, 0] - 100 * torch.arange(200.0)
    assert set(starts.tolist()) == set(range(6))
    torch.testing.assert_close(crops, crops[:, :1, :1] + torch.arange(15.0).expand(200, 2, 15))
