"""Attention by plain products against torch's own, in fp32 and as it is used, in bf16."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from amenable.chat.trees import Span
from amenable.models.tree_attention import ShortAttention, tree_attention

HEADS, GROUPS, WIDTH = 4, 2, 8


def states(num: int, dtype: torch.dtype, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return tuple(  # pyright: ignore[reportReturnType]
        torch.randn(1, heads, num, WIDTH, generator=draw).to(dtype).requires_grad_()
        for heads in (HEADS, GROUPS, GROUPS)
    )


def run(query: Tensor, key: Tensor, value: Tensor, spans: list[Span], window: int | None) -> Tensor:
    found, _ = tree_attention(
        torch.nn.Module(), query, key, value, None, spans=spans, sliding_window=window
    )
    return found


@pytest.mark.parametrize("window", [None, 3])
def test_plain_products_in_bf16_are_the_fused_kernel_in_fp32(window: int | None):
    spans = [Span(5, (4, 1)), Span(0, (7,))]
    rough, exact = states(17, torch.bfloat16), states(17, torch.float32)
    for one, other in zip(rough, exact, strict=True):
        other.data.copy_(one.data)
    ours, theirs = (run(*each, spans, window) for each in (rough, exact))
    torch.testing.assert_close(ours.float(), theirs, rtol=0, atol=0.03)
    weights = torch.linspace(-1, 1, ours.numel()).view(ours.shape)
    (ours.float() * weights).sum().backward()
    (theirs * weights).sum().backward()
    for one, other in zip(rough, exact, strict=True):
        assert one.grad is not None
        assert other.grad is not None
        cosine = torch.cosine_similarity(one.grad.float().flatten(), other.grad.flatten(), dim=0)
        assert float(cosine) > 0.999


@pytest.mark.parametrize("block", [1, 3, 256])
@pytest.mark.parametrize("window", [None, 1, 4])
def test_plain_products_in_fp32_to_the_fifth_digit(
    monkeypatch: pytest.MonkeyPatch, block: int, window: int | None
):
    """Nine keys, of which the last seven are the queries' own tokens."""
    monkeypatch.setattr("amenable.models.tree_attention.BLOCK_QUERIES", block)
    query, key, value = states(9, torch.float32)
    ours_in = [each[0].detach().requires_grad_() for each in (query[:, :, 2:], key, value)]
    ours = ShortAttention.apply(*ours_in, window, 0.25)
    is_seen = torch.ones(7, 9, dtype=torch.bool).tril(2)
    if window is not None:
        is_seen = is_seen.triu(3 - window)
    theirs = scaled_dot_product_attention(
        query[:, :, 2:], key, value, attn_mask=is_seen, scale=0.25, enable_gqa=True
    )
    torch.testing.assert_close(ours, theirs[0], rtol=1e-5, atol=1e-5)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    assert query.grad is not None
    for one, other in zip(ours_in, (query.grad[:, :, 2:], key.grad, value.grad), strict=True):
        assert other is not None
        torch.testing.assert_close(one.grad, other[0], rtol=1e-4, atol=1e-5)
