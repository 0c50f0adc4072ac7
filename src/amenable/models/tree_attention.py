"""Attention over a pack of trees: every prefix once, every branch on its prefix and itself.

Registered with transformers under a name of its own, so that the networks stay theirs. Products of
the whole pack stay whole; only attention goes from tree to tree. Where no pack is given (replies
with their cache, padded rows) transformers' own attention is used.
"""

# Shapes: A = attention heads, G = key and value heads, N = tokens of a pack, D = head width.

import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from amenable.chat.trees import Span
from amenable.models.flex_trees import flex_tree_attention
from amenable.records.errors import ModelError

NAME = "amenable_trees"
READY = torch.ones(1, 1, 1, 1, dtype=torch.bool)
"""transformers takes a mask of four dimensions for finished, and trees read none."""
MOST_KEYS = 2048
"""Beyond it the kept weights would need more memory than they save time."""
BLOCK_QUERIES = 256
"""More reads keys that none of the first queries may see; fewer are many small products."""
LAYERS = {"full_attention", "sliding_attention"}
OTHERS = ("softcap", "s_aux", "position_bias")
"""What some families hand to their attention besides: none of it is done for trees."""

log = logging.getLogger(__name__)


def use_tree_attention(network: PreTrainedModel) -> None:
    """From now on the network takes packs, if its family's attention can be exchanged at all."""
    config = network.config.get_text_config()
    can_exchange = bool(getattr(network, "_supports_attention_backend", False))
    if can_exchange and set(getattr(config, "layer_types", None) or LAYERS) <= LAYERS:
        AttentionInterface.register(NAME, tree_attention)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        network.set_attn_implementation(NAME)
    else:
        log.warning(
            "Models of the kind %s read the prompt anew for every reply.", config.model_type
        )


def reads_trees(network: PreTrainedModel) -> bool:
    return getattr(network.config.get_text_config(), "_attn_implementation", None) == NAME


def tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    spans: Sequence[Span] | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """transformers' interface: [1, A, N, D] and twice [1, G, N, D] in, [1, N, A, D] out."""
    if spans is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    if more := [name for name in OTHERS if options.get(name) is not None]:
        raise ModelError(f"Models with {more[0]} in their attention cannot be trained here.")
    attend = flex_tree_attention if query.device.type == "cuda" else attend_by_tree
    scale, window = options.get("scaling"), options.get("sliding_window")
    return attend(query, key, value, tuple(spans), scale, window).transpose(1, 2), None


def attend_by_tree(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    spans: tuple[Span, ...],
    scale: float | None,
    window: int | None,
) -> Tensor:
    """[1, A, N, D] and twice [1, G, N, D] in, [1, A, N, D] out."""
    lengths = [length for span in spans for length in (span.prefix, *span.branches)]
    pieces = zip(*(each.split(lengths, dim=2) for each in (query, key, value)), strict=True)
    outputs: list[Tensor] = []
    for span in spans:
        query_p, key_p, value_p = next(pieces)
        if span.prefix:
            outputs.append(_attend(query_p, key_p, value_p, scale, window))
        for _ in span.branches:
            query_b, key_b, value_b = next(pieces)
            if span.prefix:
                key_b = torch.cat((key_p, key_b), dim=2)
                value_b = torch.cat((value_p, value_b), dim=2)
            outputs.append(_attend(query_b, key_b, value_b, scale, window))
    return torch.cat(outputs, dim=2)


def _attend(
    query: Tensor, key: Tensor, value: Tensor, scale: float | None, window: int | None
) -> Tensor:
    """The queries are the last of the keys' tokens; each sees itself and what stands before."""
    num_queries, num_keys = query.shape[2], key.shape[2]
    reach = window if window is not None and window < num_keys else None
    if num_keys <= MOST_KEYS and query.dtype == torch.bfloat16:
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        return cast("Tensor", ShortAttention.apply(query[0], key[0], value[0], reach, scale))[None]
    # Built only where it is needed: a long text's own would be as large as its square.
    is_causal = num_queries == num_keys and reach is None
    mask = None if is_causal else _mask(num_queries, num_keys, reach).to(query)
    return scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        is_causal=is_causal,
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )


class ShortAttention(torch.autograd.Function):
    """softmax(Q K^T / sqrt(D)) V, Vaswani et al. 2017 (arXiv 1706.03762), equation 1.

    In bf16 on processors, for sequences as short as replies, five plain products take a third of
    the time of torch's fused attention (docs/experiments.md). Query heads that share their keys
    are laid one below the other, so that each product is as large as it can be. Queries are taken
    some at a time, with no keys but those that one of them may see; the softmax is in fp32, and
    its weights are kept for backward.
    """

    # Q = queries, S = keys, q and s = those of a block, f = (A / G) q: the queries of a block of
    # all heads that share one key head.

    @staticmethod
    def forward(
        ctx: Any,
        query_AQD: Tensor,
        key_GSD: Tensor,
        value_GSD: Tensor,
        window: int | None,
        scale: float,
    ) -> Tensor:
        output_AQD = torch.empty_like(query_AQD, memory_format=torch.contiguous_format)
        blocks = _blocks(query_AQD.shape[1], key_GSD.shape[1], window)
        kept: list[Tensor] = []
        for queries, keys in blocks:
            query_GfD = query_AQD[:, queries].reshape(len(key_GSD), -1, query_AQD.shape[-1])
            scores_Gfs = torch.bmm(query_GfD, key_GSD[:, keys].transpose(1, 2)).float().mul_(scale)
            mask_qs = _mask(queries.stop - queries.start, keys.stop - keys.start, window)
            scores_Gfs.view(-1, *mask_qs.shape).add_(mask_qs)
            weights_Gfs = scores_Gfs.softmax(-1).to(query_AQD.dtype)
            output_GfD = torch.bmm(weights_Gfs, value_GSD[:, keys])
            output_AQD[:, queries] = output_GfD.view(len(query_AQD), -1, query_AQD.shape[-1])
            kept += [query_GfD, weights_Gfs]
        ctx.save_for_backward(key_GSD, value_GSD, output_AQD, *kept)
        ctx.blocks, ctx.scale = blocks, scale
        return output_AQD

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        key_GSD, value_GSD, output_AQD, *kept = cast("tuple[Tensor, ...]", ctx.saved_tensors)
        (grad_AQD,) = grads
        query_grad_AQD = torch.empty_like(output_AQD)
        key_grad_GSD, value_grad_GSD = (
            torch.zeros(each.shape, dtype=torch.float32) for each in (key_GSD, value_GSD)
        )
        mean_AQ1 = (grad_AQD.float() * output_AQD).sum(-1, keepdim=True)
        for at, (queries, keys) in enumerate(ctx.blocks):
            query_GfD, weights_Gfs = kept[2 * at : 2 * at + 2]
            grad_GfD = grad_AQD[:, queries].reshape(query_GfD.shape)
            mean_Gf1 = mean_AQ1[:, queries].reshape(*query_GfD.shape[:2], 1)
            value_grad_GSD[:, keys] += torch.bmm(weights_Gfs.transpose(1, 2), grad_GfD)
            slope_Gfs = torch.bmm(grad_GfD, value_GSD[:, keys].transpose(1, 2)).float()
            slope_Gfs = slope_Gfs.sub_(mean_Gf1).mul_(weights_Gfs).mul_(ctx.scale)
            slope_Gfs = slope_Gfs.to(weights_Gfs.dtype)
            query_grad_GfD = torch.bmm(slope_Gfs, key_GSD[:, keys])
            query_grad_AQD[:, queries] = query_grad_GfD.view(len(grad_AQD), -1, grad_AQD.shape[-1])
            key_grad_GSD[:, keys] += torch.bmm(slope_Gfs.transpose(1, 2), query_GfD)
        dtype = key_GSD.dtype
        return query_grad_AQD, key_grad_GSD.to(dtype), value_grad_GSD.to(dtype), None, None


def _blocks(num_queries: int, num_keys: int, window: int | None) -> list[tuple[slice, slice]]:
    """Some queries at a time, and the keys from the first that one of them sees to its last.

    >>> _blocks(2 * BLOCK_QUERIES, 2 * BLOCK_QUERIES + 5, None)
    [(slice(0, 256, None), slice(0, 261, None)), (slice(256, 512, None), slice(0, 517, None))]
    """
    before = num_keys - num_queries
    found: list[tuple[slice, slice]] = []
    for start in range(0, num_queries, BLOCK_QUERIES):
        stop = min(start + BLOCK_QUERIES, num_queries)
        first = 0 if window is None else max(0, before + start - window + 1)
        found.append((slice(start, stop), slice(first, before + stop)))
    return found


@lru_cache(maxsize=256)
def _mask(num_queries: int, num_keys: int, window: int | None) -> Tensor:
    """0 where query i, which stands at num_keys - num_queries + i, may look, else minus infinity.

    It may look at `window` tokens at most, itself among them.
    """
    at_Q1 = torch.arange(num_keys - num_queries, num_keys)[:, None]
    back_QS = at_Q1 - torch.arange(num_keys)
    is_seen_QS = (back_QS >= 0) & (back_QS < (window or num_keys))
    return torch.zeros(num_queries, num_keys).masked_fill_(~is_seen_QS, float("-inf"))
