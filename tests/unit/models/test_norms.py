"""The lean norm against the family's own module, values and gradients."""

import pytest
import torch
from tests.tiny import tiny_network
from torch import nn
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from amenable.models.norms import LeanRmsNorm, use_lean_norms

WIDTH = 16


def own_norm(family: str) -> nn.Module:
    norm = Gemma3RMSNorm(WIDTH, eps=1e-5) if family == "gemma" else LlamaRMSNorm(WIDTH, eps=1e-5)
    torch.nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(3))
    return norm


class Box(nn.Module):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm


def leaned(norm: nn.Module) -> LeanRmsNorm:
    box = Box(norm)
    use_lean_norms(box)
    assert isinstance(box.norm, LeanRmsNorm)
    return box.norm


def value_and_gradients(norm: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    weight = norm.get_parameter("weight")
    weight.grad = None
    y = norm(x)
    (y * torch.linspace(-1, 1, y.numel()).reshape(y.shape)).sum().backward()
    assert x.grad is not None
    assert weight.grad is not None
    return [y.detach(), x.grad, weight.grad.clone()]


@pytest.mark.parametrize("family", ["gemma", "llama"])
@pytest.mark.parametrize("shape", [(3, WIDTH), (2, 5, WIDTH), (2, 3, 4, WIDTH)])
def test_values_and_gradients_are_the_familys_own(family: str, shape: tuple[int, ...]):
    own = own_norm(family)
    x = 5 * torch.randn(shape, generator=torch.Generator().manual_seed(7))
    expected = value_and_gradients(own, x)
    for ours, theirs in zip(value_and_gradients(leaned(own), x), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("family", ["gemma", "llama"])
def test_bf16_differs_by_one_rounding_at_most(family: str):
    own = own_norm(family).to(torch.bfloat16)
    x = torch.randn(40, WIDTH, generator=torch.Generator().manual_seed(7)).bfloat16()
    # bf16 has 8 significant bits: neighbours lie 2 ** -7 of their size apart at most.
    torch.testing.assert_close(leaned(own)(x), own(x), rtol=2**-6, atol=1e-6)


def test_the_input_is_left_as_it_was():
    x = torch.randn(4, WIDTH)
    before = x.clone()
    value_and_gradients(leaned(own_norm("gemma")), x)
    assert torch.equal(x, before)


@pytest.mark.parametrize(("family", "num"), [("gemma", 2 * 6 + 1), ("llama3", 2 * 2 + 1)])
def test_every_norm_of_a_network_is_replaced(family: str, num: int):
    """Gemma has six a layer (two of them for queries and keys), Llama two; and one at the end."""
    network = tiny_network("gemma" if family == "gemma" else "llama3")
    names = set(network.state_dict())
    use_lean_norms(network)
    assert sum(isinstance(module, LeanRmsNorm) for module in network.modules()) == num
    assert set(network.state_dict()) == names


def test_norms_of_other_kinds_stay():
    box = Box(nn.LayerNorm(WIDTH))
    use_lean_norms(box)
    assert isinstance(box.norm, nn.LayerNorm)
