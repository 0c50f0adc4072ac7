"""Whether two sides do the same work: in 32 bits, before anything is timed in 16.

In 16 bits each side rounds in other places, and a loss that is a small difference of large numbers
(DPO, rewards) differs by more than a mistake would make. In 32 bits equal work gives equal numbers.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

LARGEST_LOSS_GAP = 1e-5
"""At the first step, relative to the loss where that is above 1."""
LARGEST_LATER_GAP = 1e-3
LEAST_COSINE = 0.9999
NUM_STEPS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What was compared, and the figures."""

    first_losses: tuple[float, float]
    later_gap: float
    """Largest relative difference of the losses of the steps after it."""
    cosine: float
    """Between the first gradients, whatever their lengths (a peer's is clipped by then)."""
    same_tokens: bool

    @property
    def passes(self) -> bool:
        ours, theirs = self.first_losses
        gap = abs(ours - theirs) / max(1.0, abs(theirs))
        return (
            self.same_tokens
            and gap <= LARGEST_LOSS_GAP
            and self.later_gap <= LARGEST_LATER_GAP
            and self.cosine >= LEAST_COSINE
        )

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "passes": self.passes}


def compared(
    losses: tuple[Sequence[float], Sequence[float]],
    digests: tuple[Sequence[str], Sequence[str]],
    gradients: tuple[Path, Path],
) -> Gate:
    """Ours first, theirs second."""
    ours, theirs = (load_file(path) for path in gradients)
    shared = sorted(ours.keys() & theirs.keys())
    if not shared:
        raise ValueError("The two sides name their weights differently: nothing can be compared.")
    dot, squares = 0.0, [0.0, 0.0]
    for name in shared:
        mine, other = ours[name].double().flatten(), theirs[name].double().flatten()
        dot += float(torch.dot(mine, other))
        squares[0] += float(torch.dot(mine, mine))
        squares[1] += float(torch.dot(other, other))
    return Gate(
        first_losses=(losses[0][0], losses[1][0]),
        later_gap=max(
            (
                abs(a - b) / max(1e-6, abs(b))
                for a, b in zip(losses[0][1:], losses[1][1:], strict=True)
            ),
            default=0.0,
        ),
        cosine=dot / math.sqrt(squares[0] * squares[1]),
        same_tokens=list(digests[0]) == list(digests[1]),
    )
