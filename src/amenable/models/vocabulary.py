"""Embedding and head trained whole: their gradients go straight into sums in fp32.

Together they are most of a small model. Autograd would form a whole matrix anew for every batch, in
the model's precision, and round where the two are one and their gradients meet.
"""

# Shapes: N = tokens, H = hidden width, V = vocabulary.

from typing import Any, cast

import torch
from torch import Tensor, nn

from amenable.records.errors import ModelError


class _Gathered(torch.autograd.Function):
    """Embedded tokens as they are; backward adds each one's gradient to its token's row."""

    @staticmethod
    def forward(
        ctx: Any, embedded: Tensor, anchor: Tensor, tokens: Tensor, sums_VH: Tensor, scale: float
    ) -> Tensor:
        del anchor  # requires a gradient, so that backward is called at all
        ctx.save_for_backward(tokens)
        # Not saved as a tensor of the graph: it changes with every backward, and should.
        ctx.sums_VH, ctx.scale = sums_VH, scale
        return embedded.view_as(embedded)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, ...]:
        (tokens,) = ctx.saved_tensors
        sums_VH = ctx.sums_VH
        grad_NH = grads[0].flatten(0, -2).to(sums_VH.dtype)
        sums_VH.index_add_(0, tokens.flatten(), grad_NH, alpha=ctx.scale)
        return (None,) * 5


class Vocabulary:
    """A network's embedding and head, which may be one matrix; frozen until somebody collects."""

    def __init__(self, network: nn.Module) -> None:
        embedding = cast("Any", network).get_input_embeddings()
        self.embedding = cast("nn.Parameter", embedding.weight)
        self.head = cast("nn.Parameter", cast("Any", network).get_output_embeddings().weight)
        # Gemma multiplies its embedding by the root of its width inside the layer.
        scale = torch.as_tensor(getattr(embedding, "embed_scale", 1.0))
        self.scale = float(scale.to(self.embedding.dtype))
        self._paths = {
            id(parameter): path
            for path, parameter in network.named_parameters()
            if parameter is self.embedding or parameter is self.head
        }
        self._sums: dict[int, Tensor] = {}
        self._anchor = torch.zeros((), requires_grad=True)
        embedding.register_forward_hook(self._gather)

    @property
    def is_tied(self) -> bool:
        return self.head is self.embedding

    def parameters(self) -> dict[str, nn.Parameter]:
        """By path; one where they are tied."""
        return {self._paths[id(parameter)]: parameter for parameter in (self.embedding, self.head)}

    def collect_into(self, sums: dict[str, Tensor]) -> None:
        """From now on gradients are added to these, by path."""
        if sums.keys() != self.parameters().keys():
            raise ModelError("Embedding and head are trained together, or not at all.")
        self._sums = {id(parameter): sums[path] for path, parameter in self.parameters().items()}

    @property
    def head_sums(self) -> Tensor | None:
        return self._sums.get(id(self.head))

    def _gather(self, _: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        sums_VH = self._sums.get(id(self.embedding))
        if sums_VH is None or not torch.is_grad_enabled():
            return output
        found = _Gathered.apply(output.detach(), self._anchor, args[0], sums_VH, self.scale)
        return cast("Tensor", found)
