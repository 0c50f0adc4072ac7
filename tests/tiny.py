"""Two-layer networks and small tokenizers made in code: real classes, real files, milliseconds."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.trainers import BpeTrainer
from torch import Tensor
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from amenable.chat.encode import TokenRow
from amenable.chat.trees import Pack, TokenTree
from amenable.models.policy import INFO_FILE, Policy
from amenable.starter import load as starter
from amenable.store import library
from amenable.store.artifacts import hash_folder
from amenable.store.library import ModelEntry
from amenable.store.workspace import Workspace

# Threads that wait for each other cost more than these networks, and one adds up in one order.
torch.set_num_threads(1)

Family = Literal["gemma", "chatml", "llama3", "transcript"]
FAMILIES: tuple[Family, ...] = ("gemma", "chatml", "llama3")
"""Families with markers of their own."""

SPECIALS: dict[Family, tuple[str, ...]] = {
    # Gemma's own tokenizer keeps HTML tags and runs of spaces as special tokens too; they are text.
    "gemma": ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>", "<b>", "▁▁"),
    "chatml": ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<pad>"),
    "llama3": (
        *("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>"),
        *("<|eot_id|>", "<pad>"),
    ),
    "transcript": ("<|endoftext|>", "<pad>"),
}
BEGIN_OF: dict[Family, str | None] = {
    "gemma": "<bos>",
    "chatml": None,
    "llama3": "<|begin_of_text|>",
    "transcript": None,
}
END_OF: dict[Family, str] = {
    "gemma": "<eos>",
    "chatml": "<|endoftext|>",
    "llama3": "<|end_of_text|>",
    "transcript": "<|endoftext|>",
}
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
VOCABULARY, CONTEXT = 1500, 1024


def _corpus() -> Iterator[str]:
    for example in starter.demonstrations()[::3]:
        for message in example.conversation.messages:
            yield message.text


@cache
def tokenizer_json(family: Family) -> str:
    """The tokenizer's file; the same text in every process."""
    tokenizer = _gemma_tokenizer() if family == "gemma" else _byte_level(family)
    tokenizer.add_special_tokens(
        [AddedToken(text, special=True, normalized=False) for text in SPECIALS[family]]
    )
    return tokenizer.to_str()


def tiny_tokenizer(family: Family) -> Tokenizer:
    return Tokenizer.from_str(tokenizer_json(family))


def _gemma_tokenizer() -> Tokenizer:
    """As Gemma's: spaces become letters, unknown letters fall back to bytes."""
    spaces = normalizers.Replace(" ", "▁")
    lines = pre_tokenizers.Split(Regex(r"\n+"), "isolated")
    learner = Tokenizer(models.BPE())
    learner.normalizer, learner.pre_tokenizer = spaces, lines
    learner.train_from_iterator(
        _corpus(), BpeTrainer(vocab_size=VOCABULARY - 300, show_progress=False)
    )
    learnt = json.loads(learner.to_str())["model"]
    tokens = [*SPECIALS["gemma"], *(f"<0x{byte:02X}>" for byte in range(256)), *learnt["vocab"]]
    vocabulary = {token: id_ for id_, token in enumerate(dict.fromkeys(tokens))}
    merges = [(left, right) for left, right in learnt["merges"]]
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>")
    )
    tokenizer.normalizer, tokenizer.pre_tokenizer = spaces, lines
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return tokenizer


def _byte_level(family: Family) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    if family == "llama3":
        split = pre_tokenizers.Split(Regex(LLAMA3_SPLIT), "isolated")
        letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, letters])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIALS[family]),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    return tokenizer


def tiny_network(family: Family, seed: int = 0, *, tied: bool = True) -> PreTrainedModel:
    """Gemma 3 with a sliding and a full layer, Qwen 3 or Llama; weights apart enough to differ."""
    tokenizer = tiny_tokenizer(family)
    begin = BEGIN_OF[family]
    shared: dict[str, Any] = {
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": tied,
        "pad_token_id": tokenizer.token_to_id("<pad>"),
        "bos_token_id": tokenizer.token_to_id(begin) if begin else None,
        "eos_token_id": tokenizer.token_to_id(END_OF[family]),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if family == "gemma":
            config = Gemma3TextConfig(
                **shared,
                sliding_window=16,
                query_pre_attn_scalar=16,
                layer_types=["sliding_attention", "full_attention"],
            )
            network = Gemma3ForCausalLM(config)
        elif family == "chatml":
            network = Qwen3ForCausalLM(Qwen3Config(**shared))
        else:
            network = LlamaForCausalLM(LlamaConfig(**shared))
        for name, parameter in network.named_parameters():
            spread = 0.3 if "embed" in name or "lm_head" in name else 0.2
            torch.nn.init.normal_(parameter, mean=0.0, std=spread)
    return network.eval()


def save_tiny(folder: Path, family: Family = "gemma", seed: int = 0, *, tied: bool = True) -> Path:
    """A base model's folder as the library keeps it."""
    network = tiny_network(family, seed, tied=tied)
    network.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer_json(family), encoding="utf-8")
    begin = BEGIN_OF[family]
    names = {"eos_token": END_OF[family], "pad_token": "<pad>"}
    names |= {"bos_token": begin} if begin else {}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": CONTEXT, **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    info = {"family_form": family, "num_parameters": network.num_parameters()}
    (folder / INFO_FILE).write_text(json.dumps(info), encoding="utf-8")
    return folder


def tiny_policy(
    folder: Path, family: Family = "gemma", seed: int = 0, *, tied: bool = True
) -> Policy:
    """In fp32, where equal means equal to the sixth digit."""
    if not folder.exists():
        save_tiny(folder, family, seed, tied=tied)
    return Policy.load(folder, torch.float32)


def rows_pack(tokens_BT: Tensor) -> Pack:
    """Rows of token ids, every token scored but the first of each."""
    rows = [TokenRow(ids, [False] + [True] * (len(ids) - 1)) for ids in tokens_BT.tolist()]
    return Pack.of([TokenTree.of(row) for row in rows])


def shake(policy: Policy, name: str, seed: int, size: float = 0.1) -> None:
    """Make an adapter say something: at birth it changes nothing."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.adapters.parameters(name).values():
            parameter.add_(size * torch.randn(parameter.shape, generator=draw))


def put_tiny(workspace: Workspace, name: str = "tiny", family: Family = "gemma") -> str:
    """A tiny base model in a workspace's library, under `name`."""
    folder = save_tiny(workspace.library / name, family)
    entry = ModelEntry(
        name=name,
        sha256=hash_folder(folder),
        kind="base",
        chat_form="plain",
        licence="CC0-1.0",
        origin="random numbers",
        folder=folder.relative_to(workspace.folder).as_posix(),
        info={"family_form": family, "terms": "None."},
    )
    with workspace.database.write() as session:
        library.add_model(session, entry)
    return name
