"""Layers in 4 bits: their values by hand, their bytes, and training that cannot tell them apart."""

import gc
import weakref
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from tests.tiny import Family, rows_pack, save_tiny, shake, tiny_network
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from amenable.chat.encode import TokenRow
from amenable.models.adapters import AdapterShape
from amenable.models.four_bit import (
    BITS_A_WEIGHT,
    BLOCK,
    FourBitLinear,
    four_bit_layers,
    put_in_four_bits,
)
from amenable.models.policy import Policy
from amenable.records.errors import ModelError
from amenable.training.finetune import Budget, LikelihoodMethod
from amenable.training.optimizer import MasterWeights
from amenable.training.step import Update

CPU = torch.device("cpu")
TOKENS = torch.tensor([[2, 4, 20, 21, 5, 30], [2, 4, 40, 5, 41, 42]])
# Dettmers et al. 2023, appendix E, to the fourth place.
NF4 = torch.tensor(
    [
        *(-1.0, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0.0),
        *(0.0796, 0.1609, 0.2461, 0.3379, 0.4407, 0.5626, 0.7230, 1.0),
    ]
)


def linear(weight_OI: Tensor) -> nn.Linear:
    layer = nn.Linear(weight_OI.shape[1], weight_OI.shape[0], bias=False)
    layer.weight = nn.Parameter(weight_OI, requires_grad=False)
    return layer


def gaussian(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_weights_that_are_among_the_sixteen_come_back_to_the_fourth_place():
    """All blocks have the same largest weight, so that nothing is lost of their scales."""
    at = torch.arange(32 * 16).remainder(16).view(32, 16)
    layer = FourBitLinear(linear(0.5 * NF4[at]), CPU)
    torch.testing.assert_close(layer.weight, 0.5 * NF4[at], rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(256, 128), (48, 32), (64, 96), (2, 32)])
def test_every_weight_is_the_nearest_of_the_sixteen_whatever_the_width(shape: tuple[int, int]):
    """Blocks go on from row to row where the width is not a multiple of theirs."""
    weight_OI = gaussian(*shape)
    blocks = weight_OI.view(-1, BLOCK)
    largest = blocks.abs().amax(1, keepdim=True)
    least = (blocks[..., None] / largest[..., None] - NF4).abs().amin(-1) * largest
    found = FourBitLinear(linear(weight_OI), CPU).weight.view(-1, BLOCK)
    # Scales have 8 bits: their last digit is a hundredth of what they differ by.
    assert bool(((found - blocks).abs() <= least + 0.025).all())
    # The widest gap is between -1 and -0.6962.
    assert bool((least <= (1 - 0.6962) / 2 * largest).all())


def test_a_normal_distribution_loses_what_its_sixteen_values_lose():
    """The largest of 64 draws is about 2.6 sigma, and the error a mean of 0.028 of it."""
    weight_OI = gaussian(512, 256)
    blocks = weight_OI.view(-1, BLOCK)
    largest = blocks.abs().amax(1, keepdim=True)
    by_hand = ((blocks[..., None] / largest[..., None] - NF4).abs().amin(-1) * largest).mean()
    found = (FourBitLinear(linear(weight_OI), CPU).weight - weight_OI).abs().mean()
    assert 0.070 < by_hand < 0.076
    assert float(found) == pytest.approx(float(by_hand), rel=0.01)


@pytest.mark.parametrize("shape", [(32, 16), (512, 256), (100, 704)])
def test_what_is_kept_of_a_layer_has_the_bytes_of_the_sum(shape: tuple[int, int]):
    layer = FourBitLinear(linear(gaussian(*shape)), CPU)
    num = shape[0] * shape[1]
    blocks = num // 64
    parts = {name: each.numel() * each.element_size() for name, each in layer.kept().items()}
    assert parts == {
        "codes": num // 2,
        "scales": blocks,
        "scales of scales": 4 * -(-blocks // 256),
        "mean of scales": 4,
        "values of codes": 4 * 16,
        "values of scales": 4 * 256,
    }
    assert pytest.approx(4.127, abs=5e-4) == BITS_A_WEIGHT
    if num == 512 * 256:
        assert sum(parts.values()) - 4 * (1 + 16 + 256) == num * BITS_A_WEIGHT / 8
    kept = {name for name, each in vars(layer).items() if isinstance(each, Tensor)}
    assert kept == {"_codes"}
    assert layer.num_weights == num
    assert not list(layer.parameters())


def learner(folder: Path, *, in_four_bits: bool, dtype: torch.dtype = torch.float32) -> Policy:
    policy = Policy.load(folder, dtype, in_four_bits=in_four_bits)
    policy.adapters.add("learner", AdapterShape(rank=4, alpha=8.0, marker_ids=(4, 5)), seed=1)
    shake(policy, "learner", 1)
    return policy


def use_values_of(narrow: Policy, policy: Policy) -> None:
    """The whole network gets the values that the one in 4 bits multiplies by."""
    whole = dict(policy.network.named_modules())
    with torch.no_grad():
        for path, module in narrow.network.named_modules():
            if isinstance(module, FourBitLinear):
                cast("Any", whole[path]).weight.copy_(module.weight)


def kept_and_gradients(policy: Policy) -> tuple[Tensor, dict[str, Tensor], int]:
    """Scores, gradients, and the bytes that autograd kept in between."""
    storages: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    trained = policy.trained_parameters("learner", "adapter")
    for parameter in trained.values():
        parameter.requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        scores = policy.scored(rows_pack(TOKENS))
    scores.sum().backward()
    gradients = {name: cast("Tensor", each.grad) for name, each in trained.items()}
    return scores.detach(), gradients, sum(storages.values())


KINDS: list[tuple[Family, torch.dtype]] = [
    ("gemma", torch.float32),
    ("gemma", torch.bfloat16),
    ("chatml", torch.float32),
    ("llama3", torch.float32),
]


@pytest.mark.parametrize(("family", "dtype"), KINDS)
def test_training_on_four_bit_layers_is_training_on_the_values_they_give(
    tmp_path: Path, family: Family, dtype: torch.dtype
):
    save_tiny(tmp_path / "base", family)
    narrow = learner(tmp_path / "base", in_four_bits=True, dtype=dtype)
    dense = learner(tmp_path / "base", in_four_bits=False, dtype=dtype)
    as_it_is, _, _ = kept_and_gradients(dense)
    use_values_of(narrow, dense)
    for parameter in dense.trained_parameters("learner", "adapter").values():
        parameter.grad = None
    scores, gradients, kept = kept_and_gradients(dense)
    found, found_gradients, found_kept = kept_and_gradients(narrow)
    assert not torch.allclose(scores, as_it_is, atol=1e-3)
    assert torch.equal(found, scores)
    for name, gradient in gradients.items():
        assert gradient.abs().max() > 0
        assert torch.equal(found_gradients[name], gradient), name
    # Two layers keep what comes into them; the head's share is the same.
    assert found_kept < 0.6 * kept
    with torch.no_grad(), narrow.using(None), dense.using(None):
        assert torch.equal(narrow.scored(rows_pack(TOKENS)), dense.scored(rows_pack(TOKENS)))


def test_no_whole_weight_is_kept_for_backward(tmp_path: Path):
    policy = learner(save_tiny(tmp_path / "base"), in_four_bits=True)
    layer = cast("Any", policy.network.base_model).layers[0].mlp.up_proj
    assert layer.get_base_layer().weight.shape == (48, 32)
    shapes: list[tuple[int, ...]] = []

    def note(tensor: Tensor) -> Tensor:
        shapes.append(tuple(tensor.shape))
        return tensor

    x = gaussian(7, 32).to(policy.device).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        layer(x).sum().backward()
    assert sorted(shapes) == [(4, 32), (7, 4), (7, 32), (48, 4)]
    assert x.grad is not None


def test_updates_leave_the_layers_in_4_bits_as_they_are(tmp_path: Path):
    policy = learner(save_tiny(tmp_path / "base"), in_four_bits=True)
    layers = list(four_bit_layers(policy.network))
    before = [{name: each.clone() for name, each in layer.kept().items()} for layer in layers]
    assert len(before) == 2 * 7
    rows = [TokenRow(ids, [False] + [True] * 5) for ids in TOKENS.tolist()]
    method = LikelihoodMethod(policy, rows, Budget(64, 64), seed=1)
    weights = MasterWeights.of(policy, "learner", "adapter", 0.0)
    update = Update(method, weights)
    losses = [update.take(method.steps(0)[0], 1e-2, 1.0)["loss"] for _ in range(5)]
    assert losses[-1] < 0.9 * losses[0]
    for layer, kept in zip(layers, before, strict=True):
        for name, tensor in layer.kept().items():
            assert torch.equal(tensor, kept[name])


def test_whole_layers_are_let_go_one_after_the_other(monkeypatch: pytest.MonkeyPatch):
    network = tiny_network("llama3")
    before = sum(parameter.numel() for parameter in network.parameters())
    owners = [each for each in network.modules() if not isinstance(each, nn.Linear)]
    whole = weakref.WeakSet(
        layer
        for owner in owners
        for layer in owner.children()
        if isinstance(layer, nn.Linear) and layer is not network.get_output_embeddings()
    )
    left: list[int] = []
    put = FourBitLinear.__init__

    def counting(self: FourBitLinear, layer: nn.Linear, device: torch.device) -> None:
        left.append(len(whole))
        put(self, layer, device)

    monkeypatch.setattr(FourBitLinear, "__init__", counting)
    gc.disable()  # what waits for it still has its memory
    try:
        put_in_four_bits(network, CPU)
    finally:
        gc.enable()
    assert not whole
    # Four projections of attention, then three, are let go together.
    assert left == [14, 14, 14, 14, 10, 10, 10, 7, 7, 7, 7, 3, 3, 3]
    in_four_bits = sum(layer.num_weights for layer in four_bit_layers(network))
    assert in_four_bits + sum(parameter.numel() for parameter in network.parameters()) == before


def test_a_layer_that_fills_no_blocks_stays_whole():
    # 24 x 24 weights are nine blocks, 24 x 12 are four and a half, 24 x 16 are six.
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=24,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    network = LlamaForCausalLM(config)
    put_in_four_bits(network, CPU)
    layer = cast("Any", network.base_model).layers[0]
    kinds = {name: type(each) for name, each in layer.self_attn.named_children()}
    assert kinds["q_proj"] is kinds["o_proj"] is FourBitLinear
    assert kinds["k_proj"] is kinds["v_proj"] is nn.Linear
    assert {type(each) for name, each in layer.mlp.named_children() if "proj" in name} == {
        FourBitLinear
    }
    assert type(network.get_output_embeddings()) is nn.Linear


def test_a_model_without_a_layer_to_put_in_4_bits_is_refused_in_one_line():
    shape = {"n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": 50, "n_positions": 16}
    with pytest.raises(ModelError, match=r"'gpt2' have no layers .* --method lora trains them\.$"):
        put_in_four_bits(GPT2LMHeadModel(GPT2Config(**cast("Any", shape))), CPU)
