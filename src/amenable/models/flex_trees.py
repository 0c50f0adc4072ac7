"""Attention over a pack of trees on a GPU: one kernel for the whole pack, its mask made of spans.

On a processor FlexAttention has no backward; there trees are taken one by one.
"""

# Shapes: A = attention heads, G = key and value heads, N = tokens of a pack, D = head width.

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from amenable.chat.trees import Span

PREFIX = -1
"""In place of a branch's number."""


def flex_tree_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    spans: tuple[Span, ...],
    scale: float | None,
    window: int | None,
) -> Tensor:
    """[1, A, N, D] and twice [1, G, N, D] in, [1, A, N, D] out.

    FlexAttention: Dong et al. 2024 (arXiv 2412.05496).
    """
    attend = _compiled() if query.device.type == "cuda" else flex_attention
    return cast(
        "Tensor",
        attend(
            query,
            key,
            value,
            block_mask=block_mask(spans, window, query.device),
            scale=scale,
            enable_gqa=query.shape[1] != key.shape[1],
        ),
    )


@cache
def _compiled() -> Callable[..., Any]:
    """Once for packs of every length: each has its own."""
    return torch.compile(flex_attention, dynamic=True)


@lru_cache(maxsize=4)  # a pack's layers ask for two, one of them with a window
def block_mask(spans: tuple[Span, ...], window: int | None, device: torch.device) -> BlockMask:
    """A token sees its own branch and the prefix of its tree, as far back as the window reaches."""
    tree_N, branch_N, position_N = _places(spans).to(device)

    def is_seen(_row: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        is_own = (branch_N[key] == branch_N[query]) | (branch_N[key] == PREFIX)
        back = position_N[query] - position_N[key]
        seen = (tree_N[key] == tree_N[query]) & is_own & (back >= 0)
        return seen if window is None else seen & (back < window)

    length = len(tree_N)
    return create_block_mask(is_seen, None, None, length, length, device=str(device))


def _places(spans: tuple[Span, ...]) -> Tensor:
    """[3, N]: each token's tree, its branch and its position in the two together.

    >>> _places((Span(2, (1, 2)),)).tolist()
    [[0, 0, 0, 0, 0], [-1, -1, 0, 1, 1], [0, 1, 2, 2, 3]]
    """
    places = [
        (tree, branch, start + at)
        for tree, span in enumerate(spans)
        for branch, start, length in (
            (PREFIX, 0, span.prefix),
            *((number, span.prefix, each) for number, each in enumerate(span.branches)),
        )
        for at in range(length)
    ]
    return torch.tensor(places).T
