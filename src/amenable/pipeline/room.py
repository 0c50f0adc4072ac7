"""Whether a training fits into the memory that is free: said before its first step."""

from collections.abc import Mapping

import psutil
import torch
from torch import nn

from amenable.models.four_bit import four_bit_layers
from amenable.models.head import CHUNK_ROWS
from amenable.models.policy import Policy
from amenable.pipeline.config import FitConfig
from amenable.pipeline.plan import BYTES_PER_TRAINED, kept_bytes
from amenable.records.errors import ModelError

LEAST_TOKENS = 64


def check_room(policy: Policy, trained: Mapping[str, nn.Parameter], fit: FitConfig) -> None:
    """What training adds to the network that is loaded already; a ModelError says what would fit.

    Better now than hours later, or by a machine that ends programs when its memory is full.
    """
    free = _free_bytes(policy.device)
    num_trained = sum(parameter.numel() for parameter in trained.values())
    needed = _needed_bytes(policy, num_trained, fit.tokens_per_batch)
    if needed <= free:
        return
    said = f"Training needs about {_gb(needed)} more memory, and {_gb(free)} are free."
    tokens = fit.tokens_per_batch // 2
    while tokens >= LEAST_TOKENS and _needed_bytes(policy, num_trained, tokens) > free:
        tokens //= 2
    if tokens >= LEAST_TOKENS:
        raise ModelError(f"{said} --fit.tokens-per-batch {tokens} would fit.")
    raise ModelError(
        f"{said} No smaller batch would fit: end other programs, train less of it "
        "(finetuning by lora), keep it in 4 bits (by qlora), or take a smaller model."
    )


def _needed_bytes(policy: Policy, num_trained: int, tokens_per_batch: int) -> int:
    """Master weights, what backward keeps of a batch, one chunk of the head, one weight whole."""
    config, width = policy.network.config, policy.head_weight.element_size()
    largest = max((layer.num_weights for layer in four_bit_layers(policy.network)), default=0)
    kept = kept_bytes(
        tokens_per_batch,
        config.num_hidden_layers,
        config.hidden_size,
        width,
        in_four_bits=largest > 0,
    )
    head_chunk = CHUNK_ROWS * len(policy.head_weight) * 4
    return num_trained * BYTES_PER_TRAINED + kept + head_chunk + largest * width


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB"
