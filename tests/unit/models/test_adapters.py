"""Adapters side by side on one backbone: each its own, the bare base untouched, files refused."""

import json
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tiny import Family, rows_pack, save_tiny, shake, tiny_policy
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from amenable.chat.template import chat_form
from amenable.models.adapters import ADAPTER_FILE, CONFIG_FILE, PREFIX, AdapterShape
from amenable.models.merge import save_merged
from amenable.models.policy import Policy
from amenable.records.errors import ModelError

SHAPE = AdapterShape(rank=4, alpha=8.0, marker_ids=(4, 5))
TOKENS = torch.tensor([[2, 4, 20, 21, 5, 30], [2, 4, 40, 5, 41, 42]])
KINDS: list[tuple[Family, bool]] = [("gemma", True), ("chatml", True), ("chatml", False)]


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    return tiny_policy(tmp_path / "base")


def scores(policy: Policy, name: str | None) -> Tensor:
    with torch.no_grad(), policy.using(name):
        return policy.scored(rows_pack(TOKENS))


@pytest.mark.parametrize(("family", "tied"), KINDS)
def test_a_new_adapter_changes_nothing(tmp_path: Path, family: Family, tied: bool):
    policy = tiny_policy(tmp_path / "base", family, tied=tied)
    before = scores(policy, None)
    policy.adapters.add("new", SHAPE, seed=1)
    # The products of marker rows are taken apart from the others, hence the last digit.
    torch.testing.assert_close(scores(policy, "new"), before, rtol=1e-5, atol=1e-5)
    assert torch.equal(scores(policy, None), before)


def test_adapters_do_not_disturb_each_other_nor_the_base(policy: Policy):
    bare = scores(policy, None)
    policy.adapters.add("one", SHAPE, seed=1)
    shake(policy, "one", 1)
    first = scores(policy, "one")
    policy.adapters.add("two", SHAPE, seed=2)
    shake(policy, "two", 2)
    second = scores(policy, "two")
    assert not torch.allclose(first, bare)
    assert not torch.allclose(second, first)
    for _ in range(2):
        assert torch.equal(scores(policy, "one"), first)
        assert torch.equal(scores(policy, None), bare)
        assert torch.equal(scores(policy, "two"), second)


def test_an_adapter_can_be_added_while_the_bare_base_is_in_use(policy: Policy):
    policy.adapters.add("one", SHAPE)
    policy.adapters.use(None)
    policy.adapters.add("two", SHAPE)
    shake(policy, "two", 1)
    assert not torch.allclose(scores(policy, "two"), scores(policy, None))


def test_a_folded_adapter_is_the_merged_export_to_the_bit(tmp_path: Path):
    save_tiny(tmp_path / "base")
    policy = Policy.load(tmp_path / "base", torch.bfloat16)
    for seed, name in enumerate(("one", "two")):
        policy.adapters.add(name, SHAPE, seed=seed)
        shake(policy, name, seed)
    bare, applied = scores(policy, None), scores(policy, "two")
    save_merged(policy, "one", tmp_path / "merged", chat_form("gemma"))
    policy.adapters.fold("one")

    folded = scores(policy, "one")

    merged = Policy.load(tmp_path / "merged", torch.bfloat16)
    for path, weight in policy.adapters.folded_weights("one").items():
        assert torch.equal(weight, merged.network.get_parameter(f"{path}.weight"))
    torch.testing.assert_close(folded, scores(merged, None), rtol=0, atol=1e-2)
    assert not torch.allclose(folded, bare, atol=0.1)
    assert torch.equal(scores(policy, None), bare)
    assert torch.equal(scores(policy, "two"), applied)
    assert torch.equal(scores(policy, "one"), folded)


def test_a_folded_adapter_is_the_applied_one_but_for_rounding(policy: Policy):
    policy.adapters.add("one", SHAPE, seed=1)
    shake(policy, "one", 1)
    applied = scores(policy, "one")
    policy.adapters.fold("one")
    torch.testing.assert_close(scores(policy, "one"), applied, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning")
def test_weights_kept_the_other_way_round_are_folded_that_way(tmp_path: Path):
    """GPT-2's: some of its matrices are square, where a wrong way would raise nothing."""
    config = GPT2Config(vocab_size=50, n_positions=32, n_embd=32, n_layer=2, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    policy = Policy.load(tmp_path / "gpt2", torch.float32)
    policy.adapters.add("one", SHAPE, seed=1)
    shake(policy, "one", 1)
    bare, applied = scores(policy, None), scores(policy, "one")
    policy.adapters.fold("one")
    torch.testing.assert_close(scores(policy, "one"), applied, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(applied, bare, atol=0.1)


def test_an_adapter_that_is_removed_is_no_longer_folded(policy: Policy):
    policy.adapters.add("one", SHAPE, seed=1)
    shake(policy, "one", 1)
    bare = scores(policy, None)
    policy.adapters.fold("one")
    policy.adapters.use("one")
    policy.adapters.remove("one")
    assert torch.equal(scores(policy, None), bare)
    policy.adapters.add("one", SHAPE, seed=2)
    torch.testing.assert_close(scores(policy, "one"), bare, rtol=1e-5, atol=1e-5)


def test_the_adapter_in_use_comes_back_after_a_fault(policy: Policy):
    policy.adapters.add("one", SHAPE)
    with pytest.raises(ZeroDivisionError), policy.using(None):
        raise ZeroDivisionError
    assert policy.adapters.active == "one"


def test_the_seed_decides_the_first_values(tmp_path: Path):
    values = []
    for seed in (1, 1, 2):
        policy = tiny_policy(tmp_path / "base")
        policy.adapters.add("a", SHAPE, seed=seed)
        name = next(key for key in policy.adapters.parameters("a") if "lora_A" in key)
        values.append(policy.adapters.parameters("a")[name].detach().clone())
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])


def test_making_an_adapter_shifts_no_other_draw(policy: Policy):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    policy.adapters.add("a", SHAPE, seed=1)
    assert torch.equal(torch.rand(1), expected)


def test_only_the_adapter_and_the_marker_rows_get_gradients(policy: Policy):
    policy.adapters.add("a", SHAPE, seed=1)
    shake(policy, "a", 1)
    policy.scored(rows_pack(TOKENS)).sum().backward()
    trained = policy.adapters.parameters("a")
    assert all(each.grad is not None and each.grad.any() for each in trained.values())
    known = {id(each) for each in trained.values()}
    others = [each for each in policy.network.parameters() if id(each) not in known]
    assert all(each.grad is None for each in others)


def test_marker_rows_learn_from_the_embedding_and_from_the_head(policy: Policy):
    """Against autograd through one whole matrix that is embedding and head at once."""
    policy.adapters.add("a", SHAPE, seed=1)
    policy.scored(rows_pack(TOKENS)).sum().backward()
    ours = policy.adapters.markers["a"].rows_MH.grad

    network = cast("Any", policy.network)
    weight = network.get_input_embeddings().weight
    policy.adapters.use(None)
    weight.requires_grad_(requires_grad=True)
    logits = network(input_ids=TOKENS).logits[:, :-1]
    logits.log_softmax(-1).gather(-1, TOKENS[:, 1:, None]).sum().backward()
    assert ours is not None
    assert weight.grad is not None
    torch.testing.assert_close(ours, weight.grad[[4, 5]], rtol=1e-3, atol=1e-4)


def test_without_marker_rows_only_the_layers_are_trained(policy: Policy):
    policy.adapters.add("a", AdapterShape(rank=4, alpha=8.0, marker_ids=()))
    assert all(".lora_" in name for name in policy.adapters.parameters("a"))
    assert torch.equal(scores(policy, "a"), scores(policy, None))


def test_whole_layers_are_trained_beside_marker_rows(policy: Policy):
    policy.adapters.add_markers_only("a", (4, 5))
    trained = policy.trained_parameters("a", "layers")
    assert f"{PREFIX}model.embed_tokens.token_adapter.trainable_tokens_delta" in trained
    assert "model.layers.0.self_attn.q_proj.weight" in trained
    assert not any(name.endswith(("embed_tokens.weight", "lm_head.weight")) for name in trained)
    assert not policy.is_adapter("a")


@pytest.mark.parametrize(("family", "tied"), KINDS)
def test_what_is_saved_comes_back_the_same(tmp_path: Path, family: Family, tied: bool):
    policy = tiny_policy(tmp_path / "base", family, tied=tied)
    policy.adapters.add("a", SHAPE, seed=1)
    shake(policy, "a", 1)
    policy.adapters.save("a", tmp_path / "adapter", "base")
    other = tiny_policy(tmp_path / "base")
    other.adapters.load("b", tmp_path / "adapter")
    assert torch.equal(scores(other, "b"), scores(policy, "a"))


def saved(policy: Policy, folder: Path) -> dict[str, Tensor]:
    policy.adapters.add("a", SHAPE, seed=1)
    policy.adapters.save("a", folder, "base")
    return load_file(folder / ADAPTER_FILE)


def test_an_adapter_of_another_base_is_refused_and_leaves_nothing_behind(
    policy: Policy, tmp_path: Path
):
    tensors = saved(tiny_policy(tmp_path / "other"), tmp_path / "adapter")
    deeper = {key.replace("layers.1.", "layers.2."): value for key, value in tensors.items()}
    save_file(deeper, tmp_path / "adapter" / ADAPTER_FILE)
    before = scores(policy, None)
    with pytest.raises(ModelError, match="belongs to another base"):
        policy.adapters.load("a", tmp_path / "adapter")
    assert "a" not in policy.adapters.shapes
    assert torch.equal(scores(policy, None), before)
    policy.adapters.add("a", SHAPE)  # the name is free again
    shake(policy, "a", 1)
    assert not torch.allclose(scores(policy, "a"), before)


def test_wrong_shapes_are_refused(policy: Policy, tmp_path: Path):
    tensors = saved(policy, tmp_path / "adapter")
    name = next(iter(tensors))
    save_file(tensors | {name: tensors[name][:, :-1].clone()}, tmp_path / "adapter" / ADAPTER_FILE)
    with pytest.raises(ModelError, match="another shape"):
        policy.adapters.load("b", tmp_path / "adapter")


def test_numbers_that_are_not_finite_are_refused(policy: Policy, tmp_path: Path):
    tensors = saved(policy, tmp_path / "adapter")
    tensors[next(iter(tensors))][0, 0] = float("nan")
    save_file(tensors, tmp_path / "adapter" / ADAPTER_FILE)
    with pytest.raises(ModelError, match="not finite"):
        policy.adapters.load("b", tmp_path / "adapter")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (ADAPTER_FILE, b"\x10\x00\x00\x00\x00\x00\x00\x00{not a header}"),
        (ADAPTER_FILE, b""),
        (CONFIG_FILE, b"{"),
        (CONFIG_FILE, b"{}"),
        (CONFIG_FILE, b'{"r": null, "lora_alpha": 1}'),
    ],
)
def test_broken_files_are_named(policy: Policy, tmp_path: Path, file: str, content: bytes):
    saved(policy, tmp_path / "adapter")
    (tmp_path / "adapter" / file).write_bytes(content)
    with pytest.raises(ModelError, match=r"The adapter in .* cannot be read"):
        policy.adapters.load("b", tmp_path / "adapter")


def test_an_adapter_that_is_not_loaded_cannot_be_used(policy: Policy):
    with pytest.raises(ModelError, match="'ghost' is not loaded"):
        policy.adapters.use("ghost")


def test_the_file_says_which_rows_it_holds(tmp_path: Path):
    for tied, expected in ((True, [4, 5]), (False, {"embed_tokens": [4, 5], "lm_head": [4, 5]})):
        policy = tiny_policy(tmp_path / f"base-{tied}", "chatml", tied=tied)
        saved(policy, tmp_path / f"adapter-{tied}")
        config = json.loads((tmp_path / f"adapter-{tied}" / CONFIG_FILE).read_text("utf-8"))
        assert config["trainable_token_indices"] == expected
