"""What is written for other programs beside the weights: how a text begins there."""

import json
from pathlib import Path

import pytest
from tests.tiny import Family, save_tiny, tiny_tokenizer
from tokenizers import processors
from transformers import AutoTokenizer

from amenable.chat.template import chat_form
from amenable.models.merge import save_speech
from amenable.models.policy import Policy
from amenable.records.conversation import Conversation

CHAT = Conversation.of(("user", "Hi there"))
BEGIN = "<|endoftext|>"


def base_that_names_a_beginning(folder: Path, *, adds: bool) -> Policy:
    """As GPT-2's and Pythia's tokenizers do, which put it before no text."""
    save_tiny(folder, "transcript")
    tokenizer = tiny_tokenizer("transcript")
    id_ = tokenizer.token_to_id(BEGIN)
    changes = {"config.json": {"bos_token_id": id_}, "tokenizer_config.json": {"bos_token": BEGIN}}
    for file, change in changes.items():
        known = json.loads((folder / file).read_text("utf-8"))
        (folder / file).write_text(json.dumps(known | change), "utf-8")
    if adds:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{BEGIN} $A", special_tokens=[(BEGIN, id_)]
        )
        tokenizer.save(str(folder / "tokenizer.json"))
    return Policy.load(folder)


def begins_elsewhere(policy: Policy, folder: Path, form: str) -> bool:
    """Whether the exported chat template puts the token before a conversation."""
    save_speech(policy, folder, chat_form(form))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.bos_token == BEGIN
    text = tokenizer.apply_chat_template(CHAT.to_json(), add_generation_prompt=True, tokenize=False)
    assert text.removeprefix(BEGIN) == "User:\nHi there\n\nAssistant:\n"
    return text.startswith(BEGIN)


@pytest.mark.parametrize("adds", [False, True], ids=["names", "adds"])
def test_a_transcript_begins_elsewhere_as_it_does_here(tmp_path: Path, adds: bool):
    policy = base_that_names_a_beginning(tmp_path / "base", adds=adds)
    first = policy.encoder("transcript").prompt_ids(CHAT)[0]
    assert (first == policy.network.config.bos_token_id) is adds
    assert begins_elsewhere(policy, tmp_path / "speech", "transcript") is adds


@pytest.mark.parametrize("family", ["gemma", "llama3"])
def test_a_family_that_writes_its_beginning_itself_keeps_it(tmp_path: Path, family: Family):
    """Llama's tokenizer from GGUF may add none, and its form has one all the same."""
    policy = Policy.load(save_tiny(tmp_path / "base", family))
    save_speech(policy, tmp_path / "speech", chat_form(family))
    written = (tmp_path / "speech" / "chat_template.jinja").read_text("utf-8")
    assert written == chat_form(family).jinja
