"""A linear layer with a low-rank update, as PEFT keeps it, in five products and nothing beside.

PEFT's own forward multiplies and adds whole outputs once more for the update; here its scale is in
the small matrix, and the update is added by the product itself.
"""

# Shapes: N = tokens, I = width in, O = width out, r = rank.

from collections.abc import Callable
from typing import Any, cast

import torch
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn

from amenable.models.four_bit import FourBitLinear

Weight = Callable[[], Tensor]
"""Gives a frozen weight [O, I], the same in forward and in backward."""


class _LowRank(torch.autograd.Function):
    """y = x W^T + s (x A^T) B^T, Hu et al. 2021 (arXiv 2106.09685), equation 3; W is frozen."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Weight, down_rI: Tensor, up_Or: Tensor, scale: float
    ) -> Tensor:
        x_NI = x.reshape(-1, x.shape[-1])
        inner_Nr = x_NI @ down_rI.T
        scaled_Or = up_Or * scale
        y_NO = (x_NI @ weight().T).addmm_(inner_Nr, scaled_Or.T)
        ctx.save_for_backward(x_NI, down_rI, scaled_Or, inner_Nr)
        ctx.shape, ctx.scale, ctx.weight = x.shape, scale, weight
        return y_NO.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x_NI, down_rI, scaled_Or, inner_Nr = cast("tuple[Tensor, ...]", ctx.saved_tensors)
        grad_NO = grads[0].reshape(len(x_NI), -1)
        inner_grad_Nr = grad_NO @ scaled_Or
        down_grad_rI = inner_grad_Nr.T @ x_NI
        up_grad_Or = (grad_NO.T @ inner_Nr).mul_(ctx.scale)
        x_grad = None
        if ctx.needs_input_grad[0]:
            x_grad = (grad_NO @ ctx.weight()).addmm_(inner_grad_Nr, down_rI).view(ctx.shape)
        return x_grad, None, down_grad_rI, up_grad_Or, None


class LowRankLinear(Linear):
    """PEFT's layer, its parameters and all; another forward where one plain update is in use."""

    def forward(self, x: Tensor, *args: Any, **options: Any) -> Tensor:
        names = [name for name in self.active_adapters if name in self.lora_A]
        if self.disable_adapters or len(names) != 1:
            return super().forward(x, *args, **options)
        weight = _weight_of(self.get_base_layer())
        down, up = (cast("Any", parts)[names[0]].weight for parts in (self.lora_A, self.lora_B))
        found = cast("Tensor", _LowRank.apply(x, weight, down, up, self.scaling[names[0]]))
        bias_O = cast("Tensor | None", self.get_base_layer().bias)
        return found if bias_O is None else found + bias_O


def _weight_of(layer: nn.Module) -> Weight:
    """A weight that is there stays the one of this forward, whatever the layer is given later."""
    if isinstance(layer, FourBitLinear):
        return lambda: layer.weight
    weight_OI = cast("Tensor", layer.weight)
    return lambda: weight_OI


def use_low_rank(layer: nn.Module) -> None:
    """Give a layer of PEFT's the forward above; one of another kind keeps its own."""
    if type(layer) is Linear and isinstance(layer.get_base_layer(), nn.Linear):
        layer.__class__ = LowRankLinear
