"""A reward model on disk: what comes back scores the same, and what is damaged is refused."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tiny import FAMILIES, Family, shake, tiny_policy
from torch import Tensor

from amenable.chat.encode import TokenRow
from amenable.chat.template import chat_form
from amenable.chat.trees import Pack, TokenTree
from amenable.models.adapters import ADAPTER_FILE, AdapterShape
from amenable.models.policy import Policy
from amenable.models.reward_model import HEADS, HEADS_FILE, RewardModel
from amenable.records.errors import ModelError


def pack() -> Pack:
    rows = [TokenRow([7, 8, 9, *rest], [False] * 3 + [True] * len(rest)) for rest in REPLIES]
    return Pack.of([TokenTree.of(*rows), TokenTree.of(*rows[:2])])


REPLIES = ([20, 21], [30, 31, 32], [40])


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A folder with a reward model of three heads on the tiny base beside it."""
    model = spoken_for(tiny_policy(tmp_path / "base"))
    model.save("taught", tmp_path / "kept", "tiny", chat_form("gemma"))
    return tmp_path / "kept"


def spoken_for(policy: Policy) -> RewardModel:
    policy.adapters.add("taught", AdapterShape(rank=2, alpha=4.0, marker_ids=(4, 5)), seed=1)
    shake(policy, "taught", 1)
    return RewardModel.on(policy, 3, seed=2)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_comes_back_scores_the_same_bit_for_bit(tmp_path: Path, family: Family):
    model = spoken_for(tiny_policy(tmp_path / "base", family))
    model.save("taught", tmp_path / "kept", "tiny", chat_form(family))
    with torch.no_grad():
        expected_EK = model.scores(pack())
        back = RewardModel.load(tiny_policy(tmp_path / "base"), "back", tmp_path / "kept")
        found_EK = back.scores(pack())
    assert found_EK.shape == (3, 5)
    assert torch.equal(found_EK, expected_EK)
    assert len(set(expected_EK[0, :3].tolist())) == 3  # else anything would be the same


def heads(folder: Path) -> Tensor:
    return load_file(folder / HEADS_FILE)[HEADS]


def test_heads_of_another_base_are_refused(tmp_path: Path, kept: Path):
    save_file({HEADS: heads(kept)[:, :-1].contiguous()}, kept / HEADS_FILE)
    with pytest.raises(ModelError, match=r"read 31 numbers .* has 32: .* another base model"):
        RewardModel.load(tiny_policy(tmp_path / "base"), "back", kept)


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"others": torch.zeros(3, 32)},
        {HEADS: torch.zeros(3, 32), "others": torch.zeros(1)},
        {HEADS: torch.zeros(32)},
        {HEADS: torch.zeros(3, 32, dtype=torch.float16)},
        {HEADS: torch.full((3, 32), float("nan"))},
    ],
    ids=["nothing", "another name", "more", "one row", "another precision", "not finite"],
)
def test_what_is_no_head_is_refused_with_a_way_out(
    tmp_path: Path, kept: Path, tensors: dict[str, Tensor]
):
    save_file(tensors, kept / HEADS_FILE)
    policy = tiny_policy(tmp_path / "base")
    with pytest.raises(ModelError, match="train it anew: amenable reward"):
        RewardModel.load(policy, "back", kept)
    assert policy.adapters.shapes == {}  # nothing half loaded


def test_missing_and_damaged_files_are_refused(tmp_path: Path, kept: Path):
    policy = tiny_policy(tmp_path / "base")
    (kept / HEADS_FILE).write_bytes(b"no tensors")
    with pytest.raises(ModelError, match=r"cannot be read: .*train it anew"):
        RewardModel.load(policy, "back", kept)
    (kept / HEADS_FILE).unlink()
    with pytest.raises(ModelError, match=r"cannot be read: .*train it anew"):
        RewardModel.load(policy, "back", kept)


def test_without_its_adapter_it_is_no_reward_model(tmp_path: Path, kept: Path):
    (kept / ADAPTER_FILE).unlink()
    with pytest.raises(ModelError, match=r"adapter in .* cannot be read"):
        RewardModel.load(tiny_policy(tmp_path / "base"), "back", kept)
