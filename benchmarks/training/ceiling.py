"""The least time that a step's arithmetic takes at the rate that was probed."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.training.rows import Row
from benchmarks.training.workload import Example

BYTES_PER_WEIGHT = 28
"""Read and written by AdamW: weight, gradient and two moments in fp32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Weights by what multiplies them."""

    backbone: int
    head: int
    num_layers: int
    attention_width: int
    """Heads times their width."""


def least_seconds(
    row: Row, step: Sequence[Example], network: Network, flops: float, read_rate: float
) -> float:
    """Forward and backward are 6 FLOPs a weight and token: 2 there, 4 back."""
    tokens = sum(each.num_tokens for each in step)
    scored = 0 if row.method == "reward" else sum(each.num_scored for each in step)
    work = 6.0 * network.backbone * tokens + 6.0 * network.head * scored
    work += 12.0 * network.attention_width * network.num_layers * _pairs_of_tokens(step)
    if row.method == "kto":  # strangers are read, not learned from
        strangers = sum(len(each.prompt) + each.num_scored for each in step)
        work += 2.0 * network.backbone * strangers + 2.0 * network.head * scored
    weights = network.backbone + network.head
    return work / flops + BYTES_PER_WEIGHT * weights / read_rate


def _pairs_of_tokens(step: Sequence[Example]) -> float:
    """How many keys all queries see together."""
    return sum(
        len(each.prompt) ** 2 / 2
        + sum(len(reply) * (len(each.prompt) + len(reply) / 2) for reply in each.replies)
        for each in step
    )
