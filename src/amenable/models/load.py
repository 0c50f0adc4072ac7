"""Models from outside into one form: bf16 safetensors, tokenizer.json, config, amenable.json."""

import json
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PreTrainedModel,
)

from amenable.models.faults import first_line
from amenable.models.policy import INFO_FILE, refuse_more_than_text
from amenable.records.errors import ModelError

OnStep = Callable[[str], None]
MAX_GGUF_TENSORS, MAX_GGUF_KEYS = 20_000, 10_000
FAMILY_MARKERS = (
    ("<start_of_turn>", "gemma"),
    ("<|im_start|>", "chatml"),
    ("<|start_header_id|>", "llama3"),
)
NO_MARKERS = "transcript"
"""The chat form of a family that has no markers of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What is known of a model that was just brought in."""

    family_form: str
    num_parameters: int
    architecture: str


def check_gguf_header(path: Path) -> None:
    """Refuse a file whose first fields lie, before any reader trusts them."""
    if not path.is_file():
        raise ModelError(f"There is no file {path}.")
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(24)
    if len(head) < 24 or head[:4] != b"GGUF":
        raise ModelError(f"{path.name} is not a GGUF file.")
    version, num_tensors, num_keys = struct.unpack("<IQQ", head[4:])
    if version not in (2, 3):
        raise ModelError(f"{path.name} is GGUF of version {version}; 2 and 3 are read here.")
    if not (0 < num_tensors <= MAX_GGUF_TENSORS and 0 < num_keys <= MAX_GGUF_KEYS):
        raise ModelError(f"{path.name} claims {num_tensors} tensors and {num_keys} keys.")
    if num_tensors * 32 + num_keys * 12 > size:
        raise ModelError(f"{path.name} is cut off: it is too short for what it claims to hold.")


def convert_gguf(path: Path, folder: Path, on_step: OnStep) -> ModelFacts:
    """Unpack the weights once, to bf16; the packed form can be neither trained nor saved."""
    check_gguf_header(path)
    on_step("Unpacking the weights")
    try:
        network = AutoModelForCausalLM.from_pretrained(
            path.parent,
            gguf_file=path.name,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),
        )
        on_step("Reading the tokenizer")
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    except Exception as error:  # the readers raise what they like on a broken file
        raise ModelError(f"{path.name} cannot be read as a model: {first_line(error)}") from error
    # A config that still says "quantised" would make every later save refuse.
    network.config.__dict__.pop("quantization_config", None)
    return _keep(cast("PreTrainedModel", network), tokenizer, folder, on_step)


def copy_folder(source: Path, folder: Path, on_step: OnStep) -> ModelFacts:
    """A model folder in Hugging Face's form; only safetensors weights, and no code, are taken."""
    if not (source / "config.json").is_file():
        raise ModelError(f"{source} holds no model: there is no config.json in it.")
    if not any(source.glob("*.safetensors")):
        raise ModelError(
            f"{source} has no *.safetensors weights. Other forms can hide code and are not read; "
            "save the model with safe_serialization=True."
        )
    on_step("Reading the model")
    return _from_pretrained(str(source), folder, on_step)


def from_hub(hub_id: str, folder: Path, on_step: OnStep) -> ModelFacts:
    """A model by its id on the Hugging Face hub."""
    on_step(f"Fetching {hub_id} from the hub")
    return _from_pretrained(hub_id, folder, on_step)


def _from_pretrained(source: str, folder: Path, on_step: OnStep) -> ModelFacts:
    try:
        # Before the weights, which may be gigabytes to fetch.
        refuse_more_than_text(AutoConfig.from_pretrained(source, trust_remote_code=False))
        network = AutoModelForCausalLM.from_pretrained(
            source, dtype=torch.bfloat16, use_safetensors=True, trust_remote_code=False
        )
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except ModelError:
        raise
    except Exception as error:  # hub, network and readers each have their own classes
        raise ModelError(
            f"{source} cannot be loaded: {first_line(error)} A gated model needs its publisher's "
            "leave and `hf auth login`; without the hub, take a folder, a GGUF file, or "
            "gemma-3-270m."
        ) from error
    return _keep(cast("PreTrainedModel", network), tokenizer, folder, on_step)


def _keep(network: PreTrainedModel, tokenizer: Any, folder: Path, on_step: OnStep) -> ModelFacts:
    on_step("Keeping it as safetensors")
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    network.save_pretrained(unfinished)
    tokenizer.save_pretrained(unfinished)
    if not (unfinished / "tokenizer.json").is_file():
        shutil.rmtree(unfinished)
        raise ModelError("This model's tokenizer has no fast form (tokenizer.json).")
    facts = ModelFacts(
        family_form=detect_family(tokenizer),
        num_parameters=sum(parameter.numel() for parameter in network.parameters()),
        architecture=str(network.config.model_type),
    )
    info = {"family_form": facts.family_form, "num_parameters": facts.num_parameters}
    (unfinished / INFO_FILE).write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)
    return facts


def detect_family(tokenizer: Any) -> str:
    """The chat form whose markers the tokenizer keeps as tokens of their own."""
    tokens = set(tokenizer.get_added_vocab())
    return next((form for marker, form in FAMILY_MARKERS if marker in tokens), NO_MARKERS)
