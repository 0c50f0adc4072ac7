"""Logits to the next token: greedy, or one draw by inverse CDF with a seeded uniform."""

# Shapes: V = vocabulary, K = candidates.

import hashlib

import torch
from torch import Tensor

from amenable.records.sample import SamplingSettings

FIRST_CANDIDATES = 512


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that depends on the request's seed and the token's position alone.

    >>> uniform(1, 0) == uniform(1, 0) != uniform(1, 1)
    True
    """
    digest = hashlib.blake2b(f"{seed}:{position}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def next_token(logits_V: Tensor, settings: SamplingSettings, seed: int, position: int) -> int:
    if settings.temperature == 0:
        return int(logits_V.argmax())
    scores_V = logits_V.double() / settings.temperature
    weights_V = (scores_V - scores_V.max()).exp_()
    draw = uniform(seed, position)
    if settings.top_p >= 1 and settings.top_k == 0:
        return _draw(weights_V, draw)
    weights_K, ids_K = _likeliest(weights_V, settings)
    return int(ids_K[_draw(weights_K, draw)])


def _draw(weights: Tensor, uniform_draw: float) -> int:
    """Inverse CDF; fp64, since a running fp32 sum over 262,144 entries rounds the tail away."""
    cumulative = weights.cumsum(0)
    at = torch.searchsorted(cumulative, uniform_draw * cumulative[-1], right=True)
    return min(int(at), len(weights) - 1)


def _likeliest(weights_V: Tensor, settings: SamplingSettings) -> tuple[Tensor, Tensor]:
    """The candidates that top-k and top-p leave, likeliest first.

    Exact: more candidates are sorted only where the first few hundred do not reach top_p.
    """
    total = weights_V.sum()
    num = settings.top_k or min(FIRST_CANDIDATES, len(weights_V))
    weights_K, ids_K = weights_V.topk(min(num, len(weights_V)))
    if settings.top_k:
        total = weights_K.sum()
    elif weights_K.sum() < settings.top_p * total:
        weights_K, ids_K = weights_V.sort(descending=True)
    before_K = weights_K.cumsum(0) - weights_K
    keep_K = before_K < settings.top_p * total  # the first always stays
    return weights_K[keep_K], ids_K[keep_K]
