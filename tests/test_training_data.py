"""Window sets and the batches of an epoch."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ecgstudy.errors import StudyError
from ecgstudy.learn.base import UNKNOWN
from ecgstudy.learn.batches import Augmentation, EpochBatches, WindowSet, check_targets, encode, standardise


def drawn(n: int = 10, n_samples: int = 8) -> WindowSet:
    """Draw windows whose first sample is their number."""
    samples = np.random.default_rng(0).normal(size=(n, 1, n_samples)).astype(np.float32)
    samples[:, 0, 0] = np.arange(n)
    names = np.array([f"r{i}" for i in range(n)])
    return WindowSet(samples, {"person": np.arange(n) % 2}, names, names)


def test_encode_marks_what_is_no_class() -> None:
    assert encode(["F", None, "M", "x"], ["F", "M"]).tolist() == [0, UNKNOWN, 1, UNKNOWN]
    assert encode([2.0, np.nan, 1.0], [1.0, 2.0]).tolist() == [1, UNKNOWN, 0]


def test_standardise_by_hand() -> None:
    values = np.array([[[1.0, 3.0], [5.0, 1.0]]])
    np.testing.assert_array_equal(standardise(values), [[[-1.0, 1.0], [1.0, -1.0]]])
    np.testing.assert_allclose(standardise(1000 * values + 7), standardise(values))
    assert standardise(values).dtype == np.float32


@pytest.mark.parametrize("flaw", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_never_becomes_one(flaw: float) -> None:
    values = np.random.default_rng(0).normal(size=(3, 2, 50))
    values[1, 1, 7] = flaw
    with pytest.raises(StudyError, match="samples that are not numbers"):
        standardise(values)


@pytest.mark.parametrize("level", [0.0, 0.1, -3.0])
def test_a_constant_lead_is_refused(level: float) -> None:
    values = np.random.default_rng(0).normal(size=(3, 2, 50)).astype(np.float32)
    values[2, 0] = level
    with pytest.raises(StudyError, match="lead of a window is constant"):
        standardise(values)


def test_epoch_holds_every_window_once_in_random_order() -> None:
    windows = drawn()
    batches = EpochBatches(windows, 8, 100.0, batch_size=5, seed=0)
    x = torch.cat([x for x, _ in batches])
    person = torch.cat([targets["person"] for _, targets in batches])
    order = x[:, 0, 0].long()
    assert sorted(order.tolist()) == list(range(10))
    assert order.tolist() != list(range(10))
    assert torch.equal(person, order % 2)
    np.testing.assert_array_equal(x.numpy(), windows.samples[order])


def test_epochs_differ_in_order_and_change() -> None:
    def batch(seed: tuple[int, int]) -> torch.Tensor:
        batches = EpochBatches(drawn(n_samples=40), 30, 100.0, 10, seed[0], Augmentation())
        batches.set_epoch(seed[1])
        return next(iter(batches))[0]

    assert torch.equal(batch((0, 0)), batch((0, 0)))
    assert batch((0, 0)).shape == (10, 1, 30)
    one_epoch, next_epoch, other_run = batch((0, 0)), batch((0, 1)), batch((1, 0))
    assert not torch.isclose(one_epoch.sort(dim=0).values, next_epoch.sort(dim=0).values).any(dim=2).all()
    assert not torch.equal(one_epoch, other_run)


def test_ragged_batch_is_left_out_of_training_only() -> None:
    training = EpochBatches(drawn(), 8, 100.0, batch_size=4, seed=0)
    validation = EpochBatches(drawn(), 8, 100.0, batch_size=4)
    assert [len(x) for x, _ in training] == [4, 4]
    assert [len(x) for x, _ in validation] == [4, 4, 2]
    assert (len(training), len(validation)) == (2, 3)
    assert torch.cat([x for x, _ in validation])[:, 0, 0].tolist() == list(range(10))


def test_small_set_is_one_batch() -> None:
    assert [len(x) for x, _ in EpochBatches(drawn(3), 8, 100.0, batch_size=64, seed=0)] == [3]


def test_digest_covers_everything() -> None:
    windows = drawn()
    changed = windows.samples.copy()
    changed[3, 0, 2] += 1e-3
    variants = [
        windows,
        replace(windows, samples=changed),
        replace(windows, targets={"person": (windows.targets["person"] + 1) % 2}),
        replace(windows, targets={"sex": windows.targets["person"]}),
        replace(windows, records=windows.records[::-1]),
        replace(windows, subjects=windows.subjects[::-1]),
        drawn(9),
    ]
    assert len({variant.digest() for variant in variants}) == len(variants)
    assert drawn().digest() == windows.digest()


def test_unusable_windows_are_refused() -> None:
    windows = drawn()
    broken = windows.samples.copy()
    broken[0, 0, 0] = np.nan
    with pytest.raises(StudyError, match="not numbers"):
        replace(windows, samples=broken)
    with pytest.raises(StudyError, match="no window"):
        drawn(0)
    with pytest.raises(ValueError, match="labels of lengths"):
        replace(windows, records=windows.records[:3])


def test_targets_must_fit_the_heads() -> None:
    windows = drawn()
    check_targets(windows, {"person": "ab"})
    with pytest.raises(StudyError, match="person cannot be trained"):
        check_targets(replace(windows, targets={"person": np.where(np.arange(10) < 5, 1, UNKNOWN)}), {"person": "ab"})
    with pytest.raises(ValueError, match="classes 0 to 3 for a head of 2"):
        check_targets(replace(windows, targets={"person": np.arange(10) % 4}), {"person": "ab"})
    with pytest.raises(ValueError, match="no targets for task sex"):
        check_targets(windows, {"sex": "FM"})
