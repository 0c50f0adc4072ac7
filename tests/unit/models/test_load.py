"""Models from outside: what is taken, what is refused before any reader trusts it."""

import json
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from tests.tiny import FAMILIES, Family, save_tiny, tiny_tokenizer
from transformers import PreTrainedTokenizerFast

from amenable.models.load import check_gguf_header, convert_gguf, copy_folder, detect_family
from amenable.models.policy import INFO_FILE, Policy
from amenable.records.errors import ModelError


def header(version: int = 3, num_tensors: int = 2, num_keys: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, num_tensors, num_keys)


def no_words(_: str) -> None: ...


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_becomes_one_of_ours(tmp_path: Path, family: Family):
    said: list[str] = []
    source = save_tiny(tmp_path / "theirs", family)
    (source / INFO_FILE).unlink()
    facts = copy_folder(source, tmp_path / "ours", said.append)
    architectures = {"gemma": "gemma3_text", "chatml": "qwen3", "llama3": "llama"}
    assert (facts.family_form, facts.architecture) == (family, architectures[family])
    assert Policy.read_info(tmp_path / "ours")["family_form"] == family
    weights = load_file(tmp_path / "ours" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    ours = Policy.load(tmp_path / "ours").encoder(family)
    assert ours.encode_text("Good day") == tiny_tokenizer(family).encode("Good day").ids
    assert said == ["Reading the model", "Keeping it as safetensors"]
    assert not list(tmp_path.glob("*.unfinished"))


def test_a_family_without_markers_is_trained_as_a_transcript():
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tiny_tokenizer("transcript"))
    assert detect_family(tokenizer) == "transcript"


@pytest.mark.parametrize(
    ("remove", "said"), [("config.json", "no config.json"), ("model.safetensors", "no \\*.safe")]
)
def test_a_folder_that_lacks_something_is_refused(tmp_path: Path, remove: str, said: str):
    source = save_tiny(tmp_path / "theirs")
    (source / remove).unlink()
    with pytest.raises(ModelError, match=said):
        copy_folder(source, tmp_path / "ours", no_words)
    assert not (tmp_path / "ours").exists()


def test_a_folder_that_brings_code_is_not_run(tmp_path: Path):
    source = save_tiny(tmp_path / "theirs")
    config = json.loads((source / "config.json").read_text("utf-8"))
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "evil.Config"}}
    (source / "config.json").write_text(json.dumps(config), "utf-8")
    (source / "evil.py").write_text("raise SystemExit('was run')", "utf-8")
    with pytest.raises(ModelError, match="cannot be loaded"):
        copy_folder(source, tmp_path / "ours", no_words)


def test_a_model_of_texts_and_pictures_is_refused_before_its_weights_are_read(tmp_path: Path):
    source = save_tiny(tmp_path / "theirs")
    text = json.loads((source / "config.json").read_text("utf-8"))
    (source / "config.json").write_text(
        json.dumps({"model_type": "gemma3", "text_config": text}), "utf-8"
    )
    (source / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="only text-only models are supported"):
        copy_folder(source, tmp_path / "ours", no_words)
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not a GGUF file"),
        (b"PK\x03\x04" + bytes(100), "is not a GGUF file"),
        (header()[:23], "is not a GGUF file"),
        (header(version=1) + bytes(500), "version 1"),
        (header(num_tensors=2**40) + bytes(500), "claims 1099511627776 tensors"),
        (header(num_tensors=0) + bytes(500), "claims 0 tensors"),
        (header(num_keys=2**63) + bytes(500), "claims"),
        (header(num_tensors=100) + bytes(500), "cut off"),
    ],
)
def test_a_gguf_file_that_lies_is_refused(tmp_path: Path, content: bytes, said: str):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=said):
        check_gguf_header(path)


@settings(deadline=None)  # machines are shared
@given(content=st.binary(max_size=64))
def test_noise_behind_a_true_header_ends_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
):
    folder = tmp_path_factory.mktemp("noise")
    path = folder / "model.gguf"
    path.write_bytes(header() + bytes(100) + content)
    with pytest.raises(ModelError, match=r"model\.gguf cannot be read as a model") as caught:
        convert_gguf(path, folder / "ours", no_words)
    assert "\n" not in str(caught.value)


def test_a_missing_gguf_file_is_named(tmp_path: Path):
    with pytest.raises(ModelError, match=r"There is no file .*ghost\.gguf"):
        convert_gguf(tmp_path / "ghost.gguf", tmp_path / "ours", no_words)
