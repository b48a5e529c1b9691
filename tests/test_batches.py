"""Window sets, their random changes (each alone, with its strength measured), and the batches of an epoch."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ecgstudy.errors import StudyError
from ecgstudy.learn.base import UNKNOWN
from ecgstudy.learn.batches import (
    QRS_S,
    Augmentation,
    EpochBatches,
    WindowSet,
    augment,
    check_targets,
    encode,
    random_crops,
    standardise,
    time_warp,
)

FS = 100.0


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


@pytest.mark.parametrize(
    ("place", "value", "sentence"),
    [
        *(((1, 1, 7), flaw, "samples that are not numbers") for flaw in (np.nan, np.inf, -np.inf)),
        *(((2, 0), level, "lead of a window is constant") for level in (0.0, 0.1, -3.0)),
    ],
)
def test_what_has_no_shape_is_refused(place: tuple[int, ...], value: float, sentence: str) -> None:
    values = np.random.default_rng(0).normal(size=(3, 2, 50)).astype(np.float32)
    values[place] = value
    with pytest.raises(StudyError, match=sentence):
        standardise(values)


def test_epoch_holds_every_window_once_in_random_order() -> None:
    windows = drawn()
    batches = EpochBatches(windows, 8, FS, batch_size=5, seed=0)
    x = torch.cat([x for x, _ in batches])
    person = torch.cat([targets["person"] for _, targets in batches])
    order = x[:, 0, 0].long()
    assert sorted(order.tolist()) == list(range(10))
    assert order.tolist() != list(range(10))
    assert torch.equal(person, order % 2)
    np.testing.assert_array_equal(x.numpy(), windows.samples[order])


def test_epochs_differ_in_order_and_change() -> None:
    def batch(seed: tuple[int, int]) -> torch.Tensor:
        batches = EpochBatches(drawn(n_samples=40), 30, FS, 10, seed[0], Augmentation())
        batches.set_epoch(seed[1])
        return next(iter(batches))[0]

    assert torch.equal(batch((0, 0)), batch((0, 0)))
    assert batch((0, 0)).shape == (10, 1, 30)
    one_epoch, next_epoch, other_run = batch((0, 0)), batch((0, 1)), batch((1, 0))
    assert not torch.isclose(one_epoch.sort(dim=0).values, next_epoch.sort(dim=0).values).any(dim=2).all()
    assert not torch.equal(one_epoch, other_run)


def test_ragged_batch_is_left_out_of_training_only() -> None:
    training = EpochBatches(drawn(), 8, FS, batch_size=4, seed=0)
    validation = EpochBatches(drawn(), 8, FS, batch_size=4)
    assert [len(x) for x, _ in training] == [4, 4]
    assert [len(x) for x, _ in validation] == [4, 4, 2]
    assert (len(training), len(validation)) == (2, 3)
    assert torch.cat([x for x, _ in validation])[:, 0, 0].tolist() == list(range(10))
    # a small set is one batch
    assert [len(x) for x, _ in EpochBatches(drawn(3), 8, FS, batch_size=64, seed=0)] == [3]


def test_an_epoch_draws_so_many_windows_of_each_subject_and_the_next_one_others() -> None:
    subjects = np.repeat(["few", "many", "some"], [3, 20, 7])
    windows = replace(drawn(30), subjects=subjects, draws=np.repeat([3, 3, 4], [3, 20, 7]))
    batches, seen = EpochBatches(windows, 8, FS, batch_size=5, seed=0), []
    assert len(batches) == 2
    for epoch in range(60):
        batches.set_epoch(epoch)
        rows = torch.cat([x for x, _ in batches])[:, 0, 0].long().tolist()
        names, counts = np.unique(subjects[rows], return_counts=True)
        assert dict(zip(names, counts, strict=True)) == {"few": 3, "many": 3, "some": 4}
        assert len(set(rows)) == 10
        seen.append(rows)
    assert seen[0] != sorted(seen[0])
    # every window has its turn: one of 20 stays out of 60 draws of 3 with a chance of 6e-5
    assert {row for rows in seen for row in rows} == set(range(30))
    batches.set_epoch(0)
    assert torch.cat([x for x, _ in batches])[:, 0, 0].long().tolist() == seen[0]
    # what is chosen on is read whole
    assert sum(len(x) for x, _ in EpochBatches(windows, 8, FS, batch_size=4)) == 30


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
        replace(windows, draws=np.full(10, 2)),
        replace(windows, draws=np.full(10, 3)),
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
    one, four = ({"person": labels} for labels in (np.where(np.arange(10) < 5, 1, UNKNOWN), np.arange(10) % 4))
    with pytest.raises(StudyError, match="person cannot be trained"):
        check_targets(replace(windows, targets=one), {"person": "ab"})
    with pytest.raises(ValueError, match="classes 0 to 3 for a head of 2"):
        check_targets(replace(windows, targets=four), {"person": "ab"})
    with pytest.raises(ValueError, match="no targets for task sex"):
        check_targets(windows, {"sex": "FM"})


def seeded(seed: int = 0) -> torch.Generator:
    """Give a generator."""
    return torch.Generator().manual_seed(seed)


def two_leads(n: int = 400, n_leads: int = 2) -> torch.Tensor:
    """Draw windows whose leads differ in size."""
    return torch.randn(n, n_leads, 500, generator=seeded(9)) * torch.tensor([1.0, 30.0])[:n_leads, None]


def test_nothing_asked_nothing_changed() -> None:
    x = two_leads()
    torch.testing.assert_close(augment(x, FS, Augmentation(0.0, 0.0, 0.0), seeded()), x)


def test_same_seed_same_change() -> None:
    x = two_leads(8)
    before = x.clone()
    one, same, other = (augment(x, FS, Augmentation(), seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(x, before)


def test_gain_is_one_log_normal_factor_a_window() -> None:
    x = two_leads(2000)
    factors = augment(x, FS, Augmentation(0.2, 0.0, 0.0), seeded()) / x
    spread = factors.amax(dim=(1, 2)) / factors.amin(dim=(1, 2))
    torch.testing.assert_close(spread, torch.ones(2000), atol=1e-5, rtol=0)
    logarithms = factors[:, 0, 0].log()
    # standard errors at n = 2000: 0.0045 of the mean, 0.0032 of the deviation
    assert abs(logarithms.mean()) < 0.02
    assert abs(logarithms.std() - 0.2) < 0.015


def test_noise_is_relative_to_each_lead() -> None:
    x = two_leads(50)
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


WARPED = Augmentation(0.0, 0.0, 0.0, warp=0.2, anchor_s=0.5)


def bumps(n: int, at: tuple[float, ...]) -> torch.Tensor:
    """Narrow bumps at some seconds from an R peak at 0.5 s, in windows of 2 s."""
    time = torch.arange(200) / FS - 0.5
    return sum(torch.exp(-0.5 * ((time - place) / 0.03) ** 2) for place in at).repeat(n, 1, 1)


def summit(x: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Centre of mass of what lies between two times from the R peak, in seconds."""
    time = torch.arange(200) / FS - 0.5
    part = x[:, 0] * ((time > low) & (time < high))
    return (part * time).sum(1) / part.sum(1)


def test_a_warp_moves_waves_away_from_the_r_peak_and_leaves_the_qrs() -> None:
    n = 400
    warped = time_warp(bumps(n, (-0.25, 0.0, 0.4)), FS, WARPED, seeded())
    torch.testing.assert_close(summit(warped, -QRS_S, QRS_S), torch.zeros(n), atol=2e-3, rtol=0)
    inside = slice(round((0.5 - QRS_S) * FS) + 1, round((0.5 + QRS_S) * FS))
    torch.testing.assert_close(warped[..., inside], bumps(n, (-0.25, 0.0, 0.4))[..., inside], atol=1e-5, rtol=0)
    # beyond the QRS a wave's distance is multiplied by one log-normal factor to each side
    factors = torch.stack([(summit(warped, 0.12, 1.4) - QRS_S) / (0.4 - QRS_S)])
    factors = torch.cat([factors, (-summit(warped, -0.5, -0.1) - QRS_S)[None] / (0.25 - QRS_S)]).log()
    assert (factors.mean(dim=1).abs() < 0.05).all()
    assert ((factors.std(dim=1) - 0.2).abs() < 0.04).all()
    assert abs(np.corrcoef(factors.numpy())[0, 1]) < 0.2  # PR and QT intervals change each on its own


def test_no_warp_asked_none_given_and_what_a_window_does_not_hold_is_its_end() -> None:
    x = torch.randn(20, 2, 200, generator=seeded(3))
    torch.testing.assert_close(time_warp(x, FS, Augmentation(0, 0, 0, 0.0, 0.5), seeded()), x)
    ramp = torch.arange(200.0).repeat(50, 1, 1)
    warped = time_warp(ramp, FS, WARPED, seeded())
    assert (warped.amin(), warped.amax()) >= (0, 0)
    assert warped.amax() <= 199
    assert (warped.diff(dim=-1) >= 0).all()  # time never runs backwards


def test_training_batches_are_warped_around_the_r_peak_before_they_are_cut() -> None:
    windows = WindowSet(bumps(50, (0.0, 0.4)).numpy(), {"person": np.arange(50) % 2}, *[np.arange(50).astype(str)] * 2)
    ((x, _),) = EpochBatches(windows, 200, FS, 50, seed=0, augmentation=WARPED)
    torch.testing.assert_close(summit(x, -QRS_S, QRS_S), torch.zeros(50), atol=2e-3, rtol=0)
    assert summit(x, 0.12, 1.4).std() > 0.03
    ((x, _),) = EpochBatches(windows, 200, FS, 50, seed=None, augmentation=None)
    torch.testing.assert_close(x, bumps(50, (0.0, 0.4)))
