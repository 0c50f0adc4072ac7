"""Unsloth's side: its model on a processor, trained by TRL's trainer as Unsloth has changed it."""

# ruff: noqa: I001 - Unsloth comes before the libraries that it changes.

from typing import Any

import unsloth
import torch
import trl_side


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
