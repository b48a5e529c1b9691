"""TransECG: its attention against torch's own layer, and what its maps mean."""

import pytest
import torch
from torch import nn

from ecgstudy.learn.models import Attention, TransECG, create_model


def make(n_samples: int = 105, **sizes: object) -> TransECG:
    """Build a small model at 50 Hz."""
    model = create_model(
        "transecg",
        seed=0,
        n_leads=2,
        n_samples=n_samples,
        fs=50.0,
        classes={"person": "abc"},
        lead_names=["I", "II"],
        **{"width": 16, "n_layers": 3, "n_heads": 2, **sizes},
    )
    return model.eval()


def test_attention_agrees_with_torch() -> None:
    torch.manual_seed(0)
    own, reference = Attention(16, 4), nn.MultiheadAttention(16, 4, batch_first=True)
    reference.in_proj_weight.data, reference.in_proj_bias.data = own.to_qkv.weight.data, own.to_qkv.bias.data
    reference.out_proj.weight.data, reference.out_proj.bias.data = own.to_out.weight.data, own.to_out.bias.data
    tokens = torch.randn(5, 7, 16)
    output, weights = own(tokens)
    expected, expected_weights = reference(tokens, tokens, tokens, average_attn_weights=False)
    torch.testing.assert_close(output, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(weights, expected_weights, atol=1e-6, rtol=1e-5)


def test_heads_must_share_the_width() -> None:
    with pytest.raises(ValueError, match="width 16 cannot be shared by 3 heads"):
        Attention(16, 3)


def test_attention_maps_are_shares() -> None:
    model = make()
    maps = model.attention_maps(torch.randn(4, 2, 105))
    assert maps.shape == (3, 4, 2, 22, 22)
    torch.testing.assert_close(maps.sum(-1), torch.ones(3, 4, 2, 22))
    assert (maps >= 0).all()


def test_patches_cover_the_window_in_order() -> None:
    bounds = make().patch_bounds
    assert bounds[0] == (0, 5)
    assert bounds[-1] == (100, 105)
    assert [sample for start, end in bounds for sample in range(start, end)] == list(range(105))
    assert make(103).patch_bounds[-1] == (100, 103)


@pytest.mark.parametrize("patch", [0, 7, 20])
def test_token_reads_its_patch_only(patch: int) -> None:
    model = make(103)
    x = torch.randn(1, 2, 103)
    changed = x.clone()
    start, end = model.patch_bounds[patch]
    changed[..., start:end] += 1
    # the first layer's queries and keys see tokens before any mixing: only the patch's row and column may move
    difference = (model.attention_maps(changed)[0] - model.attention_maps(x)[0]).abs().amax(dim=(0, 1))
    rows_moved = set(torch.nonzero(difference.sum(-1) > 1e-6).flatten().tolist())
    assert patch + 1 in rows_moved
    log_ratio = model.attention_maps(changed)[0, 0].log() - model.attention_maps(x)[0, 0].log()
    others = [token for token in range(22) if token != patch + 1]
    # a softmax row keeps the ratios of the entries that did not change
    kept = log_ratio[:, others][:, :, others]
    torch.testing.assert_close(kept, kept[..., :1].expand_as(kept), atol=1e-4, rtol=0)


def test_default_window_gives_fifty_tokens() -> None:
    model = create_model("transecg", 0, n_leads=1, n_samples=500, fs=100.0, classes={"sex": "FM"}, lead_names=["I"])
    assert len(model.patch_bounds) == 50
