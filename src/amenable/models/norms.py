"""RMS normalisation that keeps its input in the model's precision and nothing else for backward.

The family's own module casts to fp32 step by step and keeps every step: about ten times the
memory of its input. The arithmetic here is the same, in fp32, and is done again in backward.
"""

# Shapes: N = rows, H = width.

from typing import Any, cast

import torch
from torch import Tensor, nn


class _RmsNorm(torch.autograd.Function):
    """y = x / rms(x) * scale, Zhang and Sennrich 2019 (arXiv 1910.07467)."""

    @staticmethod
    def forward(ctx: Any, x_NH: Tensor, scale_H: Tensor, epsilon: float) -> Tensor:
        wide_NH = x_NH.float()
        inverse_N1 = torch.rsqrt(wide_NH.square().mean(-1, keepdim=True).add_(epsilon))
        ctx.save_for_backward(x_NH, scale_H, inverse_N1)
        return (wide_NH * inverse_N1).mul_(scale_H).to(x_NH.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x_NH, scale_H, inverse_N1 = cast("tuple[Tensor, ...]", ctx.saved_tensors)
        unit_NH = x_NH.float() * inverse_N1
        grad_NH = grads[0].float()
        scale_grad_H = None
        if ctx.needs_input_grad[1]:
            scale_grad_H = (grad_NH * unit_NH).flatten(0, -2).sum(0)
        inner_NH = grad_NH * scale_H
        mean_N1 = (inner_NH * unit_NH).mean(-1, keepdim=True)
        x_grad_NH = inner_NH.sub_(unit_NH.mul_(mean_N1)).mul_(inverse_N1)
        return x_grad_NH.to(x_NH.dtype), scale_grad_H, None


class LeanRmsNorm(nn.Module):
    """Takes the place of a family's module and keeps its parameter under the same name."""

    def __init__(self, weight: nn.Parameter, epsilon: float, *, adds_one: bool) -> None:
        super().__init__()
        self.weight = weight
        self._epsilon = epsilon
        self._adds_one = adds_one

    def forward(self, x_NH: Tensor) -> Tensor:
        scale_H = self.weight.float() + 1.0 if self._adds_one else self.weight.float()
        return cast("Tensor", _RmsNorm.apply(x_NH, scale_H, self._epsilon))


# Classes whose arithmetic is known to be the above. Llama's own rounds x / rms(x) to the model's
# precision before it is scaled; the difference is one rounding.
ADDS_ONE = {
    "Gemma3RMSNorm": True,
    "LlamaRMSNorm": False,
    "Qwen2RMSNorm": False,
    "Qwen3RMSNorm": False,
}


def use_lean_norms(network: nn.Module) -> None:
    """Replace every norm of a known class; others stay as they are."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            adds_one = ADDS_ONE.get(type(child).__name__)
            if adds_one is not None:
                known = cast("Any", child)
                epsilon = float(getattr(known, "eps", getattr(known, "variance_epsilon", 1e-6)))
                setattr(module, name, LeanRmsNorm(known.weight, epsilon, adds_one=adds_one))
