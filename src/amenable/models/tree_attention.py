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
from amenable.records.errors import ModelError

NAME = "amenable_trees"
READY = torch.ones(1, 1, 1, 1, dtype=torch.bool)
"""transformers takes a mask of four dimensions for finished, and trees read none."""
MOST_KEYS = 2048
"""Beyond it the kept weights would need more memory than they save time."""
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
    lengths = [length for span in spans for length in (span.prefix, *span.branches)]
    pieces = zip(*(each.split(lengths, dim=2) for each in (query, key, value)), strict=True)
    if more := [name for name in OTHERS if options.get(name) is not None]:
        raise ModelError(f"Models with {more[0]} in their attention cannot be trained here.")
    scale, window = options.get("scaling"), options.get("sliding_window")
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
    return torch.cat(outputs, dim=2).transpose(1, 2), None


def _attend(
    query: Tensor, key: Tensor, value: Tensor, scale: float | None, window: int | None
) -> Tensor:
    """The queries are the last of the keys' tokens; each sees itself and what stands before."""
    num_queries, num_keys = query.shape[2], key.shape[2]
    reach = window if window is not None and window < num_keys else None
    is_short = num_keys <= MOST_KEYS and query.dtype == torch.bfloat16
    if is_short and query.device.type == "cpu":
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        mask = _mask(num_queries, num_keys, reach)
        return cast("Tensor", ShortAttention.apply(query[0], key[0], value[0], mask, scale))[None]
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
    are laid one below the other, so that each product is as large as it can be; the softmax is in
    fp32, and its weights are kept for backward: Q x S numbers a head.
    """

    # Q = queries, S = keys, F = (A / G) Q: the queries of all heads that share one key head.

    @staticmethod
    def forward(
        ctx: Any,
        query_AQD: Tensor,
        key_GSD: Tensor,
        value_GSD: Tensor,
        mask_QS: Tensor,
        scale: float,
    ) -> Tensor:
        query_GFD = query_AQD.reshape(len(key_GSD), -1, query_AQD.shape[-1])
        scores_GFS = torch.bmm(query_GFD, key_GSD.transpose(1, 2)).float().mul_(scale)
        scores_GFS.view(-1, *mask_QS.shape).add_(mask_QS)
        weights_GFS = scores_GFS.softmax(-1).to(query_AQD.dtype)
        output_GFD = torch.bmm(weights_GFS, value_GSD)
        ctx.save_for_backward(query_GFD, key_GSD, value_GSD, weights_GFS, output_GFD)
        ctx.scale = scale
        return output_GFD.view(query_AQD.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query_GFD, key_GSD, value_GSD, weights_GFS, output_GFD = cast(
            "tuple[Tensor, ...]", ctx.saved_tensors
        )
        grad_GFD = grads[0].reshape(output_GFD.shape)
        value_grad_GSD = torch.bmm(weights_GFS.transpose(1, 2), grad_GFD)
        mean_GF1 = (grad_GFD.float() * output_GFD).sum(-1, keepdim=True)
        slope_GFS = torch.bmm(grad_GFD, value_GSD.transpose(1, 2)).float().sub_(mean_GF1)
        slope_GFS = slope_GFS.mul_(weights_GFS).mul_(ctx.scale).to(weights_GFS.dtype)
        query_grad_GFD = torch.bmm(slope_GFS, key_GSD)
        key_grad_GSD = torch.bmm(slope_GFS.transpose(1, 2), query_GFD)
        return query_grad_GFD.view(grads[0].shape), key_grad_GSD, value_grad_GSD, None, None


@lru_cache(maxsize=256)
def _mask(num_queries: int, num_keys: int, window: int | None) -> Tensor:
    """0 where query i, which stands at num_keys - num_queries + i, may look, else minus infinity.

    It may look at `window` tokens at most, itself among them.
    """
    at_Q1 = torch.arange(num_keys - num_queries, num_keys)[:, None]
    back_QS = at_Q1 - torch.arange(num_keys)
    is_seen_QS = (back_QS >= 0) & (back_QS < (window or num_keys))
    return torch.zeros(num_queries, num_keys).masked_fill_(~is_seen_QS, float("-inf"))
