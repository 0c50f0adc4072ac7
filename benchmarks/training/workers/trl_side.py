"""TRL's side: its trainers as they come, with the settings of a column and the row's tokens."""

import json
import os
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

import torch
import trl
from datasets import Dataset
from protocol import Turns, read_spec
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from transformers_loop import InTurns, laid_end_to_end, real, watched

NO_LIMIT = 10**6
# As TRL 1.16 and those before it call the same.
NAMES = ("activation_checkpointing", "gradient_checkpointing")
RECOMPUTING = next(name for name in NAMES if hasattr(trl.SFTConfig, name))
PAIRS_AT_ONCE = 12
Load = Callable[[dict[str, Any]], Any]


def causal(spec: dict[str, Any]) -> Any:
    return AutoModelForCausalLM.from_pretrained(spec["model"], dtype=torch.float32)


def main(load: Load = causal, version: str = trl.__version__) -> None:
    """`load` gives the model of all methods but reward."""
    turns, spec = Turns(), read_spec()
    torch.set_num_threads(spec["num_threads"])
    body = json.loads(Path(spec["workload"]).read_text(encoding="utf-8"))
    build = {"finetune": finetune, "dpo": dpo, "kto": kto, "orpo": orpo, "reward": reward}
    own = {} if spec["method"] == "reward" else {"model": load(spec)}
    trainer = build[spec["method"]](spec, body["examples"], body["per_step"], **own)
    in_turns = InTurns(turns, spec["gradients"])
    trainer.in_turns = in_turns
    trainer.add_callback(in_turns)
    turns.ready(version=version)
    trainer.train()


def settings(spec: dict[str, Any], per_step: int, **own: Any) -> dict[str, Any]:
    """What every column shares; the tuned one adds what is known to be faster here."""
    common = {
        "output_dir": tempfile.mkdtemp(),
        "max_steps": NO_LIMIT,
        "learning_rate": spec["learning_rate"],
        "lr_scheduler_type": "constant",
        "max_grad_norm": spec["max_grad_norm"],
        "adam_beta1": 0.9,
        "adam_beta2": 0.95,
        "weight_decay": 0.0,
        "per_device_train_batch_size": per_step,
        "max_length": None,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "bf16": not spec["is_exact"],
    }
    tuned = {RECOMPUTING: False, "optim": "adamw_torch_fused"}
    return common | (tuned if spec["column"] == "tuned" else {}) | own


def tokenizer(spec: dict[str, Any]) -> Any:
    found = AutoTokenizer.from_pretrained(spec["model"])
    if found.pad_token is None:
        found.pad_token = found.eos_token or found.decode([0])
    return found


def finetune(
    spec: dict[str, Any], examples: list[dict[str, Any]], per_step: int, model: Any
) -> Any:
    rows = [
        {
            "input_ids": each["prompt"] + each["replies"][0],
            "labels": [-100] * len(each["prompt"]) + each["replies"][0],
        }
        for each in examples
    ]

    def sequences(inputs: Any) -> Any:
        scored = inputs["labels"] != -100
        if "position_ids" in inputs:  # one row, in which a position of 0 begins a sequence
            return laid_end_to_end(inputs["input_ids"], inputs["position_ids"], scored)
        return real(inputs["input_ids"], inputs["attention_mask"], scored)

    kind = watched(trl.SFTTrainer, sequences)
    own = {"padding_free": True} if spec["column"] == "tuned" else {}
    return kind(
        model=model,
        args=trl.SFTConfig(**settings(spec, per_step, **own)),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer(spec),
    )


def dpo(spec: dict[str, Any], examples: list[dict[str, Any]], per_step: int, model: Any) -> Any:
    own = {"beta": 0.1}
    if spec["column"] == "tuned":
        own |= {"precompute_ref_log_probs": True, "precompute_ref_batch_size": per_step}

    def sequences(inputs: Any) -> Any:
        return real(inputs["input_ids"], inputs["attention_mask"], inputs["completion_mask"])

    kind = watched(trl.DPOTrainer, sequences)
    return kind(
        model=model,
        args=trl.DPOConfig(**settings(spec, per_step, **own)),
        train_dataset=Dataset.from_list(pairs(examples)),
        processing_class=tokenizer(spec),
    )


def pairs(examples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "prompt_ids": each["prompt"],
            "chosen_ids": each["replies"][0],
            "rejected_ids": each["replies"][1],
        }
        for each in examples
    ]


def kto(spec: dict[str, Any], examples: list[dict[str, Any]], per_step: int, model: Any) -> Any:
    rows = []
    for start in range(0, len(examples), per_step):
        step = examples[start : start + per_step]
        for each, before in zip(step, [step[-1], *step[:-1]], strict=True):
            rows.append(
                {
                    "prompt_ids": each["prompt"],
                    "completion_ids": each["replies"][0],
                    "KL_completion_ids": before["replies"][0],
                    "label": each["is_good"],
                }
            )
    own = {"beta": 0.1}
    if spec["column"] == "tuned":
        own |= {"precompute_ref_log_probs": True, "precompute_ref_batch_size": per_step}

    def sequences(inputs: Any) -> Any:
        return real(inputs["input_ids"], inputs["attention_mask"], inputs["completion_mask"])

    kind = watched(trl.KTOTrainer, sequences)
    return kind(
        model=model,
        args=trl.KTOConfig(**settings(spec, per_step, **own)),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer(spec),
    )


def orpo(spec: dict[str, Any], examples: list[dict[str, Any]], per_step: int, model: Any) -> Any:
    """It tokenizes by itself: what it is given as text are places in the row's tokens."""
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    class OfTokens(ORPOTrainer):
        def tokenize_row(self, feature: Any, model: Any = None) -> dict[str, Any]:
            example = examples[int(feature["prompt"])]
            prompt = example["prompt"]
            row = {"prompt_input_ids": prompt, "prompt_attention_mask": [1] * len(prompt)}
            for side, reply in zip(("chosen", "rejected"), example["replies"], strict=True):
                row[f"{side}_input_ids"] = prompt + reply
                row[f"{side}_attention_mask"] = [1] * len(row[f"{side}_input_ids"])
                row[f"{side}_labels"] = [-100] * len(prompt) + reply
            return row

    def sequences(inputs: Any) -> Any:
        return [
            pair
            for side in ("chosen", "rejected")
            for pair in real(
                inputs[f"{side}_input_ids"],
                inputs[f"{side}_attention_mask"],
                inputs[f"{side}_labels"] != -100,
            )
        ]

    places = [{"prompt": str(at), "chosen": "a", "rejected": "b"} for at in range(len(examples))]
    own = {"beta": 0.1, "max_length": 4096}
    return watched(OfTokens, sequences)(
        model=model,
        args=ORPOConfig(**settings(spec, per_step, **own)),
        train_dataset=Dataset.from_list(places),
        processing_class=tokenizer(spec),
    )


def reward(spec: dict[str, Any], examples: list[dict[str, Any]], per_step: int) -> Any:
    rows = [
        {
            "chosen_ids": each["prompt"] + each["replies"][better],
            "rejected_ids": each["prompt"] + each["replies"][worse],
        }
        for each in examples
        for better in range(len(each["replies"]))
        for worse in range(better + 1, len(each["replies"]))
    ]
    num_replies = len(examples[0]["replies"])
    per_step *= num_replies * (num_replies - 1) // 2
    # 36 pairs of a ranking of nine need more than 24 GB at once.
    parts = next(parts for parts in count(1) if per_step <= parts * PAIRS_AT_ONCE)
    if per_step % parts:
        raise SystemExit(f"{per_step} pairs are not {parts} parts of a size.")
    speaker = tokenizer(spec)
    model = AutoModelForSequenceClassification.from_pretrained(
        spec["model"], num_labels=1, dtype=torch.float32
    )
    model.config.pad_token_id = speaker.pad_token_id
    with torch.no_grad():
        model.score.weight.copy_(load_file(spec["head"])["score"])

    def sequences(inputs: Any) -> Any:
        mask = inputs["attention_mask"]
        last = torch.zeros_like(mask).scatter(1, mask.sum(1, keepdim=True) - 1, 1)
        return real(inputs["input_ids"], mask, last)

    kind = watched(trl.RewardTrainer, sequences)
    return kind(
        model=model,
        args=trl.RewardConfig(
            **settings(spec, per_step // parts, gradient_accumulation_steps=parts)
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=speaker,
    )


if __name__ == "__main__":
    main()
