"""Gated layers whose activation is computed again in backward instead of being kept.

It would be an eighth of all that a pack of texts keeps.
"""

# Shapes: N = tokens, I = the layer's inner width.

from collections.abc import Callable, Iterator
from types import MethodType
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from transformers.activations import GELUTanh, SiLUActivation

BLOCK_NUMBERS = 1 << 18
"""As many as stay in a processor's cache from one pass over them to the next."""


class Activation(NamedTuple):
    """A function of one number, and the gradient of its input from that of its output."""

    of: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor]


def _gelu(gate: Tensor) -> Tensor:
    return torch.nn.functional.gelu(gate, approximate="tanh")


def _gelu_backward(grad: Tensor, gate: Tensor) -> Tensor:
    return torch.ops.aten.gelu_backward(grad, gate, approximate="tanh")


ACTIVATIONS: dict[type, Activation] = {
    SiLUActivation: Activation(torch.nn.functional.silu, torch.ops.aten.silu_backward),
    GELUTanh: Activation(_gelu, _gelu_backward),
}


class _Gated(torch.autograd.Function):
    """h = act(gate) * up, Shazeer 2020 (arXiv 2002.05202), equation 6."""

    @staticmethod
    def forward(ctx: Any, gate_NI: Tensor, up_NI: Tensor, act: Activation) -> Tensor:
        ctx.save_for_backward(gate_NI, up_NI)
        ctx.act = act
        h_NI = torch.empty_like(gate_NI)
        for gate_bI, up_bI, h_bI in _blocks(gate_NI, up_NI, h_NI):
            torch.mul(act.of(gate_bI), up_bI, out=h_bI)
        return h_NI

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        gate_NI, up_NI = cast("tuple[Tensor, ...]", ctx.saved_tensors)
        gate_grad_NI, up_grad_NI = torch.empty_like(gate_NI), torch.empty_like(up_NI)
        grad_NI = grads[0].contiguous()
        blocks = _blocks(grad_NI, gate_NI, up_NI, gate_grad_NI, up_grad_NI)
        for grad_bI, gate_bI, up_bI, gate_grad_bI, up_grad_bI in blocks:
            torch.mul(ctx.act.of(gate_bI), grad_bI, out=up_grad_bI)
            gate_grad_bI.copy_(ctx.act.backward(grad_bI * up_bI, gate_bI))
        return gate_grad_NI, up_grad_NI, None


def _blocks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same rows of each, a few at a time."""
    flat = [tensor.view(-1, tensor.shape[-1]) for tensor in tensors]
    num_rows, width = flat[0].shape
    is_cached = flat[0].device.type == "cpu"
    size = max(1, BLOCK_NUMBERS // width if is_cached else num_rows)
    return zip(*(each.split(size) for each in flat), strict=True)


def _forward(layer: nn.Module, x: Tensor) -> Tensor:
    known = cast("Any", layer)
    h_NI = _Gated.apply(known.gate_proj(x), known.up_proj(x), known.lean_activation)
    return cast("Tensor", known.down_proj(h_NI))


KINDS = {"Gemma3MLP", "LlamaMLP", "Qwen2MLP", "Qwen3MLP"}
"""Classes whose forward is known to be down_proj(act(gate_proj(x)) * up_proj(x))."""


def use_lean_gates(network: nn.Module) -> None:
    """Give every gated layer of a known kind the forward above; others stay as they are."""
    for layer in network.modules():
        known = cast("Any", layer)
        if type(layer).__name__ in KINDS and type(known.act_fn) in ACTIVATIONS:
            known.lean_activation = ACTIVATIONS[type(known.act_fn)]
            known.forward = MethodType(_forward, layer)
