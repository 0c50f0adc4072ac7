"""An adapter folded into its base: one folder that any program loads, or the adapter as it is."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from amenable.chat.encode import Encoder
from amenable.chat.template import ChatForm
from amenable.models.policy import Policy
from amenable.records.conversation import Conversation

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def merged_tensors(policy: Policy, name: str | None) -> dict[str, Tensor]:
    """Every weight under its plain name, with the adapter folded in and its marker rows put in."""
    network, adapters = policy.network, policy.adapters
    with adapters.using(None):
        tensors = {
            path.replace(".base_layer.", "."): tensor
            for path, tensor in network.state_dict().items()
            if ".lora_" not in path
        }
    if name is None:
        return tensors
    for path, weight in adapters.folded_weights(name).items():
        tensors[f"{path}.weight"] = weight
    for weight, replaced in adapters.with_markers(name):
        for path, tensor in tensors.items():
            if tensor.data_ptr() == weight.data_ptr():
                tensors[path] = replaced
    return tensors


def save_merged(policy: Policy, name: str | None, folder: Path, form: ChatForm) -> None:
    """A model folder in Hugging Face's form: weights, config, tokenizer, chat form, stop tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = merged_tensors(policy, name)
    if policy.network.config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
    save_file(
        {path: tensor.detach().contiguous() for path, tensor in tensors.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    policy.network.config.save_pretrained(folder)
    save_speech(policy, folder, form)


def save_speech(policy: Policy, folder: Path, form: ChatForm) -> None:
    """Tokenizer, chat form and stop tokens, so that other programs speak and stop as we do."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in TOKENIZER_FILES:
        if (policy.folder / file).is_file():
            shutil.copyfile(policy.folder / file, folder / file)
    encoder = policy.encoder(form.name)
    config_path = folder / "tokenizer_config.json"
    config = json.loads(config_path.read_text(encoding="utf-8")) if config_path.is_file() else {}
    config.update(_begin(encoder))
    if form.jinja:
        config["chat_template"] = _jinja(encoder)
        (folder / "chat_template.jinja").write_text(_jinja(encoder), encoding="utf-8")
    config_path.write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    generation = {
        "bos_token_id": encoder.begin,
        "eos_token_id": list(encoder.stop_ids),
        "pad_token_id": policy.network.config.pad_token_id,
        "do_sample": False,
    }
    (folder / "generation_config.json").write_text(
        json.dumps(generation, indent=1) + "\n", encoding="utf-8"
    )


def _begin(encoder: Encoder) -> dict[str, object]:
    if encoder.begin is None:
        return {}
    return {"bos_token": encoder.tokenizer.id_to_token(encoder.begin)}


def _jinja(encoder: Encoder) -> str:
    """The form for other programs; it begins with a token only where a text of ours does.

    GPT-2's tokenizer names such a token and puts it nowhere: the template would put it there.
    """
    opening = encoder.form.prompt(Conversation.of(("user", "Hi")))[0]
    if encoder.encode_piece(opening):
        return encoder.form.jinja
    return encoder.form.jinja.removeprefix("{{ bos_token }}")


def save_trained(policy: Policy, name: str, folder: Path, base_name: str, form: ChatForm) -> None:
    """What training made: an adapter alone, or a whole model."""
    if policy.is_adapter(name):
        policy.adapters.save(name, folder, base_name)
    else:
        with torch.no_grad():
            save_merged(policy, name, folder, form)
