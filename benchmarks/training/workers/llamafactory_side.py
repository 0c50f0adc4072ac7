"""LLaMA-Factory's side: its own loading, collators and trainers, given the row's tokens."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ["DISABLE_VERSION_CHECK"] = "1"
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from datasets import Dataset
from llamafactory.data import PairwiseDataCollatorWithPadding, SFTDataCollatorWith4DAttentionMask
from llamafactory.data.template import get_template_and_fix_tokenizer
from llamafactory.hparams import get_train_args
from llamafactory.model import load_model, load_tokenizer
from llamafactory.train.dpo.trainer import CustomDPOTrainer
from llamafactory.train.rm.trainer import PairwiseTrainer
from llamafactory.train.sft.trainer import CustomSeq2SeqTrainer
from llamafactory.train.trainer_utils import create_ref_model
from protocol import Turns, read_spec
from safetensors.torch import load_file
from transformers_loop import InTurns, real, watched

NO_LIMIT = 10**6
STAGES = {"finetune": "sft", "dpo": "dpo", "reward": "rm"}
TRAINERS = {"finetune": CustomSeq2SeqTrainer, "dpo": CustomDPOTrainer, "reward": PairwiseTrainer}
NOTHING_SEEN = {"images": None, "videos": None, "audios": None}


def main() -> None:
    turns, spec = Turns(), read_spec()
    torch.set_num_threads(spec["num_threads"])
    body = json.loads(Path(spec["workload"]).read_text(encoding="utf-8"))
    trainer = built(spec, body["examples"], body["per_step"])
    trainer.in_turns = InTurns(turns, spec["gradients"])
    trainer.add_callback(trainer.in_turns)
    turns.ready(version="0.9.5")
    trainer.train()


def built(spec: dict[str, Any], examples: list[dict[str, Any]], per_step: int) -> Any:
    """As its workflows build it, but for the data."""
    method = spec["method"]
    model_args, data_args, training_args, finetuning_args, _ = get_train_args(
        settings(spec, per_step)
    )
    tokenizer_module = load_tokenizer(model_args)
    speaker = tokenizer_module["tokenizer"]
    template = get_template_and_fix_tokenizer(speaker, data_args)
    is_reward = method == "reward"
    model = load_model(speaker, model_args, finetuning_args, True, add_valuehead=is_reward)  # noqa: FBT003
    about = {"template": template, "pad_to_multiple_of": 8, **tokenizer_module}
    own: dict[str, Any] = {}
    if method == "finetune":
        collator = SFTDataCollatorWith4DAttentionMask(model=model, label_pad_token_id=-100, **about)
        rows = [row_of(each["prompt"], each["replies"][0]) | NOTHING_SEEN for each in examples]
    else:
        collator = PairwiseDataCollatorWithPadding(model=model, label_pad_token_id=-100, **about)
        rows = [pair_of(each) for each in examples]
    if method == "dpo":
        own["ref_model"] = create_ref_model(model_args, finetuning_args)
    if is_reward:
        with torch.no_grad():
            model.v_head.summary.weight.copy_(load_file(spec["head"])["score"])
            model.v_head.summary.bias.zero_()

    def sequences(inputs: Any) -> Any:
        mask = inputs["attention_mask"]
        if is_reward:
            last = torch.zeros_like(mask).scatter(1, mask.sum(1, keepdim=True) - 1, 1)
            return real(inputs["input_ids"], mask, last)
        return real(inputs["input_ids"], mask, inputs["labels"] != -100)

    return watched(TRAINERS[method], sequences)(
        model=model,
        args=training_args,
        finetuning_args=finetuning_args,
        data_collator=collator,
        train_dataset=Dataset.from_list(rows),
        **own,
        **tokenizer_module,
    )


def settings(spec: dict[str, Any], per_step: int) -> dict[str, Any]:
    common = {
        "stage": STAGES[spec["method"]],
        "do_train": True,
        "finetuning_type": "full",
        "model_name_or_path": spec["model"],
        "dataset": "given",
        "template": "default",
        "output_dir": tempfile.mkdtemp(),
        "max_steps": NO_LIMIT,
        "learning_rate": spec["learning_rate"],
        "lr_scheduler_type": "constant",
        "max_grad_norm": spec["max_grad_norm"],
        "adam_beta2": 0.95,
        "weight_decay": 0.0,
        "per_device_train_batch_size": per_step,
        "gradient_accumulation_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "bf16": not spec["is_exact"],
        "remove_unused_columns": False,
    }
    if spec["method"] == "dpo":
        common |= {"pref_beta": 0.1, "pref_loss": "sigmoid"}
    tuned = {"disable_gradient_checkpointing": True, "optim": "adamw_torch_fused"}
    return common | (tuned if spec["column"] == "tuned" else {})


def row_of(prompt: list[int], reply: list[int]) -> dict[str, Any]:
    ids = prompt + reply
    return {
        "input_ids": ids,
        "attention_mask": [1] * len(ids),
        "labels": [-100] * len(prompt) + reply,
    }


def pair_of(example: dict[str, Any]) -> dict[str, Any]:
    sides = zip(("chosen", "rejected"), example["replies"], strict=True)
    return {
        f"{side}_{key}": value
        for side, reply in sides
        for key, value in row_of(example["prompt"], reply).items()
    } | NOTHING_SEEN


if __name__ == "__main__":
    main()
