"""The frozen parent's log-probabilities, computed once and kept."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from amenable.chat.trees import TokenTree
from amenable.models.policy import Policy
from amenable.training.preference import branch_log_probs
from amenable.training.state import flushed_hash

LAYOUT_VERSION = "packed trees, 1"  # another layout rounds differently: its values are not these


def reference_key(parent_sha256: str, trees: Sequence[TokenTree], dtype: torch.dtype) -> str:
    text = repr((LAYOUT_VERSION, parent_sha256, str(dtype), torch.__version__, list(trees)))
    return hashlib.sha256(text.encode()).hexdigest()


def reference_values(
    policy: Policy,
    trees: Sequence[TokenTree],
    groups: Sequence[Sequence[int]],
    cache: Path,
    on_group: Callable[[int], None],
) -> Tensor:
    """[trees, branches] from the adapter in use; all trees have as many branches as the first.

    `groups` are the microbatches of the first epoch: the same layout gives the same roundings, so
    that DPO's loss of the first step is ln 2 exactly.
    """
    shape = (len(trees), len(trees[0].branches))
    if (kept := _read(cache, shape)) is not None:
        return kept
    values_TK = torch.zeros(shape)
    with torch.no_grad():
        for done, group in enumerate(groups):
            found_K = branch_log_probs(policy, [trees[at] for at in group])
            values_TK[list(group)] = found_K.cpu().reshape(-1, shape[1])
            on_group(done + 1)
    cache.parent.mkdir(parents=True, exist_ok=True)
    unfinished = cache.with_name(cache.name + ".unfinished")
    save_file({"values": values_TK}, unfinished, metadata={"sha256": _digest(values_TK)})
    flushed_hash(unfinished)
    unfinished.replace(cache)
    return values_TK


def _read(cache: Path, shape: tuple[int, int]) -> Tensor | None:
    """What was kept; None where nothing was, or where it is damaged: then it is computed anew."""
    if not cache.is_file():
        return None
    try:
        with safe_open(cache, framework="pt") as file:
            values_TK, noted = file.get_tensor("values"), file.metadata()
    except (OSError, SafetensorError):
        return None
    is_whole = values_TK.shape == shape and noted == {"sha256": _digest(values_TK)}
    return values_TK if is_whole else None


def _digest(values_TK: Tensor) -> str:
    return hashlib.sha256(values_TK.numpy().tobytes()).hexdigest()
