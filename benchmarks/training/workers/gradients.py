"""What is compared of two sides' first gradients."""

from collections.abc import Mapping

import torch

EVERY_ROW = 64
"""Of a matrix with more rows than any layer has: a vocabulary's."""
MANY_ROWS = 20_000


def sampled(gradients: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """All gradients of the layers, and every 64th row of a vocabulary's, in fp32."""
    found: dict[str, torch.Tensor] = {}
    for name, gradient in gradients.items():
        part = gradient[::EVERY_ROW] if len(gradient) > MANY_ROWS else gradient
        found[name.removeprefix("module.").removeprefix("pretrained_model.")] = (
            part.detach().float().contiguous().clone()
        )
    return found
