"""The lean gated layer against the family's own, values and gradients."""

from typing import Any, cast

import pytest
import torch
from tests.tiny import tiny_network
from torch import Tensor, nn
from transformers import Gemma3TextConfig, LlamaConfig
from transformers.models.gemma3.modeling_gemma3 import Gemma3MLP
from transformers.models.llama.modeling_llama import LlamaMLP

from amenable.models.gated import use_lean_gates

WIDTH, INNER = 8, 24
SIZES: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


def own_layer(activation: str) -> nn.Module:
    torch.manual_seed(3)
    if activation == "silu":
        layer = LlamaMLP(LlamaConfig(**SIZES))
    else:
        layer = Gemma3MLP(Gemma3TextConfig(**SIZES))
    return cast("nn.Module", layer).double()


def value_and_gradients(layer: nn.Module, x: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    layer.zero_grad()
    y = layer(x)
    (y * torch.linspace(-1, 1, y.numel()).view(y.shape)).sum().backward()
    assert x.grad is not None
    return [y.detach(), x.grad, *(cast("Tensor", each.grad).clone() for each in layer.parameters())]


@pytest.mark.parametrize("activation", ["silu", "gelu_pytorch_tanh"])
@pytest.mark.parametrize("block", [1, 5 * INNER, 1 << 18])
@pytest.mark.parametrize("shape", [(7, WIDTH), (2, 6, WIDTH)])
def test_values_and_gradients_are_the_familys_own(
    monkeypatch: pytest.MonkeyPatch, activation: str, block: int, shape: tuple[int, ...]
):
    monkeypatch.setattr("amenable.models.gated.BLOCK_NUMBERS", block)
    layer = own_layer(activation)
    x = 3 * torch.randn(shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    expected = value_and_gradients(layer, x)
    use_lean_gates(layer)
    assert "forward" in vars(layer)
    for ours, theirs in zip(value_and_gradients(layer, x), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_only_what_the_projections_gave_is_kept():
    layer = own_layer("silu")
    use_lean_gates(layer)
    kept: list[tuple[int, ...]] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        layer(torch.ones(5, WIDTH, dtype=torch.float64, requires_grad=True))
    # gate and up, and what down_proj reads: a plain layer keeps the activation besides.
    assert kept.count((5, INNER)) == 3


def test_an_activation_that_is_not_known_leaves_the_layer_as_it_is():
    config = LlamaConfig(**SIZES, hidden_act="relu")
    layer = cast("nn.Module", LlamaMLP(config))
    use_lean_gates(layer)
    assert "forward" not in vars(layer)


def test_every_gated_layer_of_a_network_is_lean():
    network = tiny_network("gemma")
    use_lean_gates(network)
    layers = [each for each in network.modules() if type(each).__name__ == "Gemma3MLP"]
    assert layers
    assert all("forward" in vars(layer) for layer in layers)
