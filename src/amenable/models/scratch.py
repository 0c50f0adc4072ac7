"""A model that knows nothing yet: a tokenizer learnt from texts, and a small network drawn anew."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer
from transformers import LlamaConfig, LlamaForCausalLM

from amenable.chat.template import chat_form
from amenable.models.policy import INFO_FILE

FORM = "chatml"
"""The chat form in which its versions will speak; its markers are kept free for that."""
END_OF_TEXT = "<|endoftext|>"
"""Ends each text, and begins one: what a text opens with is predicted like all else."""
WIDEN = 8 / 3
"""Of the middle of a gated layer, over the hidden width: as many weights as an ungated one's 4."""
ROUND_TO = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkShape:
    """Of a Llama with tied embeddings."""

    hidden: int
    layers: int
    heads: int
    context: int


def learn_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Byte-level BPE, the same for the same texts; with few of them it stays smaller than asked.

    Sennrich et al. 2016 (arXiv 1508.07909), on bytes: no text is unknown to it.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = [END_OF_TEXT, *chat_form(FORM).markers]
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[AddedToken(text, special=True, normalized=False) for text in specials],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    end = (END_OF_TEXT, tokenizer.token_to_id(END_OF_TEXT))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{END_OF_TEXT} $A", special_tokens=[end]
    )
    return tokenizer


def write_scratch(folder: Path, tokenizer: Tokenizer, shape: NetworkShape, seed: int) -> None:
    """A model folder as the library keeps one, its weights drawn by the seed."""
    end = tokenizer.token_to_id(END_OF_TEXT)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=shape.hidden,
        intermediate_size=round(shape.hidden * WIDEN / ROUND_TO) * ROUND_TO or ROUND_TO,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=shape.context,
        tie_word_embeddings=True,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = LlamaForCausalLM(config)
    network.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    said = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": shape.context,
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
    }
    info = {"family_form": FORM, "num_parameters": network.num_parameters()}
    for name, content in (("tokenizer_config.json", said), (INFO_FILE, info)):
        (folder / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
