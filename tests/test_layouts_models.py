"""What a page gives to be read, and the networks that read it: nothing that is hidden is known to any of them."""

import numpy as np
import pytest
import torch

from ecgstudy.data.base import STANDARD_LEADS
from ecgstudy.layouts import beats, fills, models
from ecgstudy.layouts.layout import LAYOUTS, grid

CLASSES = {"a": ["no", "yes"], "b": ["no", "yes"]}
SHAPE = {"n_leads": 12, "n_samples": 1000, "fs": 100.0, "classes": CLASSES, "lead_names": list(STANDARD_LEADS)}
TINY = {"width": 16, "depth": 2, "patch": 64, "n_heads": 2, "stages": [16, 32], "embedding_dim": 16}


def train_of_beats(n: int = 3, period: int = 83, first: int = 40) -> np.ndarray:
    """Make records (n, 12, 1000) of equal narrow beats, of another size in every lead."""
    at = np.arange(1000)[:, None] - np.arange(first, 1000, period)
    beat = np.exp(-0.5 * (at / 2.0) ** 2).sum(axis=1) + 0.2 * np.exp(-0.5 * ((at - 25) / 6.0) ** 2).sum(axis=1)
    sizes = np.linspace(1, 2, 12)[:, None] * np.where(np.arange(12) == 3, -1, 1)[:, None]
    noise = np.random.default_rng(0).normal(0, 0.002, (n, 12, 1000))
    return (beat * sizes + noise).astype(np.float32)


@pytest.mark.parametrize("name", ["3x4", "6x2+II", "12x1"])
def test_what_is_hidden_changes_nothing(name: str) -> None:
    values, shown = train_of_beats(), beats.masks([LAYOUTS[name]] * 3, 1000)
    other = np.where(shown, values, np.random.default_rng(1).normal(0, 50, values.shape)).astype(np.float32)
    page, again = beats.sheets(values, shown), beats.sheets(other, shown)
    np.testing.assert_array_equal(page, again)
    np.testing.assert_array_equal(page != 0, shown)
    for lead in page.reshape(-1, 1000):
        assert lead[lead != 0].std() == pytest.approx(1, abs=1e-3)


def test_gaps_and_short_stretches_are_not_shown() -> None:
    values, shown = train_of_beats(1), np.ones((1, 12, 1000), dtype=bool)
    values[0, 2, 300:400] = np.nan
    shown[0, 5] = False
    shown[0, 5, 100:129] = True
    page = beats.sheets(values, shown)
    assert not page[0, 2, 300:400].any()
    assert page[0, 2, :300].all()
    assert not page[0, 5].any()


@pytest.mark.parametrize("name", ["3x4", "12x1"])
def test_peaks_and_median_beats_are_those_of_the_record(name: str) -> None:
    page = beats.sheets(train_of_beats(), beats.masks([LAYOUTS[name]] * 3, 1000))
    peaks = beats.r_peaks(page)
    for found in peaks:
        assert np.abs(found[:, None] - np.arange(40, 1000, 83)).min(axis=0).max() <= 1
    of_beats = beats.beats(page, peaks)
    medians, deviations = of_beats[:, beats.MEDIANS], of_beats[:, beats.DEVIATIONS]
    assert (np.abs(medians).argmax(axis=-1) == beats.BEFORE).mean() > 0.9
    assert (np.sign(medians[:, :, beats.BEFORE]) == np.where(np.arange(12) == 3, -1, 1)).all()
    assert np.abs(deviations).max() < 0.25 * np.abs(medians).max()
    rate = of_beats[:, beats.CONSTANTS.start, 0] * 0.15 + 0.8
    np.testing.assert_allclose(rate, 0.83, atol=0.01)


def test_a_median_beat_is_over_the_beats_that_a_lead_shows() -> None:
    page = np.zeros((1, 12, 400), dtype=np.float32)
    for peak, height in ((50, 1.0), (150, 2.0), (250, 6.0), (350, 9.0)):
        page[0, :, peak - 2 : peak + 3] = height
    page[0, 1, 200:] = 0  # two beats are left
    page[0, 2] = 0
    found = beats.beats(page, [np.array([50, 150, 250, 350])])
    assert found[0, :3, beats.BEFORE].tolist() == [4.0, 1.5, 0.0]
    np.testing.assert_allclose(found[0, 12:15, beats.BEFORE], [(3 + 2 + 2 + 5) / 4, 0.5, 0.0])
    assert not found[0, :12, beats.BEFORE + 5].any()


def test_a_page_without_beats_is_read_all_the_same() -> None:
    found = beats.beats(np.zeros((2, 12, 1000), dtype=np.float32), [np.zeros(0, dtype=int)] * 2)
    assert not found.any()
    assert [len(each) for each in beats.r_peaks(np.zeros((2, 12, 1000), dtype=np.float32))] == [0, 0]


def patchecg(**sizes: object) -> models.PatchECG:
    """Build a small network that reads patches."""
    return models.untrained(models.PatchECG, 0, **SHAPE, **TINY | sizes).eval()


def noise(layout: str, n: int = 3) -> torch.Tensor:
    """Pages of noise."""
    x = torch.randn(n, 12, 1000, generator=torch.Generator().manual_seed(1))
    return x * torch.from_numpy(beats.masks([LAYOUTS[layout]] * n, 1000))


def test_attention_is_paid_to_what_is_shown_and_adds_up_to_one_with_the_class_token() -> None:
    model, x = patchecg(), noise("3x4")
    maps = model.attention_maps(x)
    shown = (x[..., :960].unfold(-1, 64, 64) != 0).any(-1)
    assert (maps[~shown] == 0).all()
    assert (maps[shown] > 0).all()
    assert ((maps.sum((1, 2)) < 1) & (maps.sum((1, 2)) > 0.5)).all()


def test_a_page_is_read_the_same_beside_fuller_pages() -> None:
    for sizes in ({}, {"attention": "released"}, {"stages": []}):
        model, few, many = patchecg(**sizes), noise("3x4", 1), noise("12x1", 1)
        both = model(torch.cat([few, many]))["a"]
        torch.testing.assert_close(both[:1], model(few)["a"], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(both[1:], model(many)["a"], atol=1e-5, rtol=1e-4)


def test_the_released_attention_is_uniform_and_learns_nothing() -> None:
    x = noise("6x2")
    for attention, learns in (("meant", True), ("released", False)):
        model = patchecg(attention=attention)
        model(x)["a"].sum().backward()
        to_query_and_key = model.blocks[0].to_qkv.weight.grad[:32]
        assert bool(to_query_and_key.abs().sum() > 0) is learns
    shares = patchecg(attention="released").attention_maps(x)
    assert torch.unique(shares).tolist() == pytest.approx([0.0, 1 / 181])


def test_the_released_code_drops_other_patches_in_training_and_forgets_the_mask() -> None:
    x = noise("3x4")
    edge = (x[..., :960].unfold(-1, 64, 64) != 0).any(-1) & ~(x[..., :960].unfold(-1, 64, 64) != 0).all(-1)
    assert edge.any()
    for attention, dropped in (("meant", False), ("released", True)):
        model = patchecg(attention=attention)
        read = model._packed(x)[2]
        model.train()
        assert bool((model._packed(x)[2] != read).any()) is dropped


def test_the_paper_s_size_is_the_paper_s() -> None:
    sizes = {"width": 768, "patch": 64, "stages": [16, 32, 32, 40, 40, 64, 64], "embedding_dim": 768, "paper": True}
    with torch.device("meta"):
        model = models.PatchECG(**SHAPE, **sizes)
    assert round(sum(each.numel() for each in model.parameters()) / 1e6, 1) == 21.6


def test_focal_loss_is_that_of_its_formula() -> None:
    model, logits = patchecg(paper=True), torch.tensor([[0.0, 2.0], [0.0, -1.0]])
    p = torch.tensor([torch.tensor(2.0).sigmoid(), 1 - torch.tensor(-1.0).sigmoid()])
    loss = model.losses({"a": logits}, {"a": torch.tensor([1, 0])}, margin=False)["a"]
    assert loss.item() == pytest.approx((-((1 - p) ** 2) * p.log()).mean().item(), rel=1e-5)


def test_hidden_blocks_are_one_stretch_of_a_lead_and_at_most_four_fifths() -> None:
    torch.manual_seed(0)
    x = torch.ones(40, 12, 1000)
    hidden = (models.hide_blocks(x, 1.0) == 0).numpy()
    edges = np.abs(np.diff(hidden.astype(int), axis=-1, prepend=0, append=0)).sum(axis=-1)
    assert set(np.unique(edges)) == {0, 2}
    assert set(np.unique(hidden.sum(axis=-1))) == set(range(0, 801, 100))
    assert (models.hide_blocks(x, 0.0) == 1).all()
    some = (models.hide_blocks(x, 0.5) == 0).any(-1).any(-1)
    assert 5 < some.sum() < 35


def test_a_mixture_s_loss_is_that_of_both_records_in_their_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    model = models.untrained(models.PageResNet1d, 0, widths=[4, 8], **SHAPE).eval()
    monkeypatch.setattr(model, "log", lambda *_, **__: None)
    x, targets = noise("12x1", 2), {"a": torch.tensor([0, 1]), "b": torch.tensor([1, 1])}
    torch.manual_seed(3)
    loss = model.training_step((x, targets), 0)
    torch.manual_seed(3)
    share = float(torch.distributions.Beta(models.MIXUP, models.MIXUP).sample())
    other = torch.randperm(2)
    logits = model(share * x + (1 - share) * x[other])
    each = [torch.nn.functional.cross_entropy(logits[task], targets[task], reduction="none") for task in CLASSES]
    swapped = [torch.nn.functional.cross_entropy(logits[t], targets[t][other], reduction="none") for t in CLASSES]
    expected = share * sum(each).mean() + (1 - share) * sum(swapped).mean()
    torch.testing.assert_close(loss, expected)


def test_log_odds_are_those_of_the_second_class() -> None:
    model = models.untrained(models.PageResNet1d, 0, widths=[4, 8], **SHAPE).eval()
    x = noise("6x2", 3)
    odds = torch.from_numpy(models.log_odds(model, x, batch=2))
    p = torch.stack([logits.softmax(-1)[:, 1] for logits in model(x).values()], dim=1)
    torch.testing.assert_close(odds.sigmoid(), p)


@pytest.mark.parametrize("name", [*fills.FILLS])
def test_a_fill_keeps_what_is_shown_and_leaves_nothing_out(name: str) -> None:
    values = train_of_beats(6)
    whole = beats.sheets(values, beats.masks([grid(1)] * 6, 1000))
    page = beats.sheets(values[:2], beats.masks([LAYOUTS["3x4+II"]] * 2, 1000))
    filled = fills.FILLS[name](whole, page)
    np.testing.assert_array_equal(filled[page != 0], page[page != 0])
    assert (filled != 0).mean() > 0.99
    # every lead is the same beat here, so that each fill can be right: a period is not a quarter of a record
    if name != "repeat":
        assert np.corrcoef(filled[page == 0], whole[:2][page == 0])[0, 1] > 0.9


def test_a_repeated_lead_is_its_own_stretch_over_and_over() -> None:
    page = np.zeros((1, 1, 8), dtype=np.float32)
    page[0, 0, 2:5] = [1, 2, 3]
    assert fills.repeat(page, page)[0, 0].tolist() == [2, 3, 1, 2, 3, 1, 2, 3]


def test_attention_mixes_what_is_there_in_the_shares_that_are_read_out() -> None:
    torch.manual_seed(0)
    tokens, there = torch.randn(2, 5, 16), torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    for uniform in (False, True):
        block = models.PatchBlock(16, 2, uniform)
        absent = torch.tensor([0, 0])
        shares = block.shares(tokens, there, absent)
        torch.testing.assert_close(shares.sum(-1), torch.ones(2, 2, 1))
        assert (shares[1, ..., 3:] == 0).all()
        mixed = (shares @ block._parts(tokens)[2])[:, :, 0].flatten(1)
        first = tokens[:, 0] + block.to_out(mixed)
        expected = first + block.perceptron(first)
        torch.testing.assert_close(block(tokens, there, absent)[:, 0], expected, atol=1e-5, rtol=1e-4)
