"""Unsloth's side: its model on a processor, trained by TRL's trainer as Unsloth has changed it."""

import os
from typing import Any

from protocol import read_spec

if read_spec()["column"] == "tuned":
    os.environ["UNSLOTH_CPU_COMPILE"] = "1"

import torch
import trl_side
import unsloth  # before the libraries that it changes


def causal(spec: dict[str, Any]) -> Any:
    """In fp32 under autocast, as the others: its own choice is to round every update to bf16."""
    model, _ = unsloth.FastLanguageModel.from_pretrained(
        spec["model"],
        dtype=torch.float32,
        load_in_4bit=False,
        full_finetuning=True,
        use_gradient_checkpointing=spec["column"] == "default",
    )
    return model


if __name__ == "__main__":
    trl_side.main(causal, unsloth.__version__)
