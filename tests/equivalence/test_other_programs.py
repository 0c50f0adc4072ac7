"""What is exported here, loaded by plain transformers and plain PEFT, gives the same numbers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tests.tiny import FAMILIES, Family, rows_pack, shake, tiny_policy
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from amenable.chat.template import chat_form
from amenable.models.adapters import AdapterShape
from amenable.models.head import apply_markers
from amenable.models.merge import save_merged, save_speech
from amenable.models.policy import Policy
from amenable.records.conversation import Conversation

KINDS: list[tuple[Family, bool]] = [
    *((family, True) for family in FAMILIES),
    ("transcript", True),
    ("chatml", False),
]
CHAT = Conversation.of(
    ("system", "Be brief."), ("user", "Hi there"), ("assistant", "Hello!"), ("user", "And now?")
)


def trained_policy(folder: Path, family: Family, *, tied: bool) -> Policy:
    """An adapter whose every number moved, marker rows included."""
    policy = tiny_policy(folder, family, tied=tied)
    ids = policy.encoder(family).marker_ids
    policy.adapters.add("a", AdapterShape(rank=4, alpha=8.0, marker_ids=ids), seed=1)
    shake(policy, "a", 9)
    return policy


def our_logits(policy: Policy, ids: list[int]) -> Tensor:
    with torch.no_grad(), policy.using("a"):
        hidden_TH = policy.hidden(rows_pack(torch.tensor([ids])))
        logits_TV = hidden_TH @ policy.head_weight.T
        apply_markers(logits_TV, hidden_TH, *policy.adapters.active_markers())
        return logits_TV


def their_logits(network: torch.nn.Module, ids: list[int]) -> Tensor:
    with torch.no_grad():
        return network(input_ids=torch.tensor([ids])).logits[0]


@pytest.mark.parametrize(("family", "tied"), KINDS)
def test_a_merged_folder_in_transformers(tmp_path: Path, family: Family, tied: bool):
    policy = trained_policy(tmp_path / "base", family, tied=tied)
    form = chat_form(family)
    save_merged(policy, "a", tmp_path / "merged", form)
    network: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")

    ids = policy.encoder(family).prompt_ids(CHAT)
    theirs = tokenizer.apply_chat_template(
        CHAT.to_json(), add_generation_prompt=True, return_dict=False
    )
    if family != "transcript":  # whose borders may fall into other tokens elsewhere
        assert theirs == ids
    torch.testing.assert_close(
        our_logits(policy, ids), their_logits(network, ids), rtol=0, atol=1e-5
    )
    assert network.generation_config.eos_token_id == list(policy.encoder(family).stop_ids)
    assert (network.get_output_embeddings().weight is network.get_input_embeddings().weight) is tied


# PEFT asks transformers for a name that transformers has given up.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize(("family", "tied"), KINDS)
def test_an_adapter_in_peft(tmp_path: Path, family: Family, tied: bool):
    policy = trained_policy(tmp_path / "base", family, tied=tied)
    policy.adapters.save("a", tmp_path / "adapter", str(tmp_path / "base"))
    save_speech(policy, tmp_path / "adapter", chat_form(family))
    bare = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    theirs = PeftModel.from_pretrained(bare, tmp_path / "adapter")

    ids = policy.encoder(family).prompt_ids(CHAT)
    torch.testing.assert_close(
        our_logits(policy, ids), their_logits(theirs, ids), rtol=0, atol=1e-5
    )


def test_the_bare_base_merged_is_the_base(tmp_path: Path):
    policy = trained_policy(tmp_path / "base", "gemma", tied=True)
    save_merged(policy, None, tmp_path / "merged", chat_form("gemma"))
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    bare = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    expected = bare.state_dict()
    assert expected.keys() == merged.state_dict().keys()
    assert all(torch.equal(value, expected[key]) for key, value in merged.state_dict().items())
