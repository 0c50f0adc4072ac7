"""A model that knows nothing: its tokenizer, its network, and that other programs read both."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from amenable.models.policy import Policy
from amenable.models.scratch import (
    END_OF_TEXT,
    FORM,
    NetworkShape,
    learn_tokenizer,
    write_scratch,
)
from amenable.starter import load as starter
from amenable.store.artifacts import hash_folder

TEXTS = [text.text for text in starter.plain_texts()[:12]]
SHAPE = NetworkShape(hidden=32, layers=2, heads=2, context=64)
TOKENIZER = learn_tokenizer(TEXTS, 400)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scratch")
    write_scratch(folder, TOKENIZER, SHAPE, seed=1)
    return folder


def test_the_same_texts_give_the_same_tokenizer_and_others_another():
    assert learn_tokenizer(TEXTS, 400).to_str() == TOKENIZER.to_str()
    assert learn_tokenizer(TEXTS[:6], 400).to_str() != TOKENIZER.to_str()


def test_few_texts_give_fewer_tokens_than_asked_for():
    # 256 bytes, three special tokens, and "ab" as the only pair that is seen twice.
    assert learn_tokenizer(["ab ab"], 8192).get_vocab_size() == 256 + 3 + 1
    assert TOKENIZER.get_vocab_size() == 400


@settings(deadline=None)  # machines are shared
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_every_text_comes_back(text: str):
    ids = TOKENIZER.encode(text, add_special_tokens=False).ids
    assert TOKENIZER.decode(ids, skip_special_tokens=False) == text


def test_it_is_read_as_any_other_base(folder: Path):
    policy = Policy.load(folder, torch.float32)
    plain, chat = policy.encoder("plain"), policy.encoder(FORM)
    end = TOKENIZER.token_to_id(END_OF_TEXT)
    assert (plain.begin, plain.end_of_text) == (end, end)
    assert len(set(chat.marker_ids)) == 2
    assert chat.stop_ids == (TOKENIZER.token_to_id("<|im_end|>"), end)
    assert Policy.read_info(folder)["family_form"] == FORM
    # Tied: 400 rows of 32; a layer: four of 32 x 32, three of 32 x 96, two norms; one norm more.
    assert policy.num_parameters == 400 * 32 + 2 * (4 * 32 * 32 + 3 * 32 * 96 + 2 * 32) + 32
    assert policy.num_positions == 64


def test_the_seed_decides_the_weights(folder: Path, tmp_path: Path):
    for name, seed in (("same", 1), ("other", 2)):
        write_scratch(tmp_path / name, TOKENIZER, SHAPE, seed)
    assert hash_folder(tmp_path / "same") == hash_folder(folder)
    assert hash_folder(tmp_path / "other") != hash_folder(folder)


def test_transformers_reads_it_by_itself(folder: Path):
    """A text begins with the end of the one before, there as here."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("By the sea.")["input_ids"]
    ours = Policy.load(folder, torch.float32).encoder("plain")
    assert ids == ours.text_row("By the sea.", has_end=False).tokens
    network = AutoModelForCausalLM.from_pretrained(folder)
    assert network(input_ids=torch.tensor([ids])).logits.shape == (1, len(ids), 400)
