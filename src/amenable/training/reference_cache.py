"""The frozen parent's log-probabilities, computed once and kept."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from amenable.models.policy import Policy
from amenable.training.preference import RowPair, pair_log_probs
from amenable.training.state import flushed_hash

LAYOUT_VERSION = "padded pairs, 1"  # another layout rounds differently: its values are not these


def reference_key(parent_sha256: str, pairs: Sequence[RowPair], dtype: torch.dtype) -> str:
    tokens = repr([(pair.chosen, pair.rejected) for pair in pairs])
    text = repr((LAYOUT_VERSION, parent_sha256, str(dtype), torch.__version__, tokens))
    return hashlib.sha256(text.encode()).hexdigest()


def reference_values(
    policy: Policy,
    pairs: Sequence[RowPair],
    groups: Sequence[Sequence[int]],
    cache: Path,
    on_group: Callable[[int], None],
) -> Tensor:
    """[pairs, 2] for chosen and rejected, from the adapter in use.

    `groups` are the microbatches of the first epoch: the same layout gives the same roundings, so
    that the loss of the first step is ln 2 exactly.
    """
    if (kept := _read(cache, len(pairs))) is not None:
        return kept
    values_P2 = torch.zeros(len(pairs), 2)
    with torch.no_grad():
        for done, group in enumerate(groups):
            found = pair_log_probs(policy, [pairs[at] for at in group])
            values_P2[list(group)] = torch.stack(found, dim=1).cpu()
            on_group(done + 1)
    cache.parent.mkdir(parents=True, exist_ok=True)
    unfinished = cache.with_name(cache.name + ".unfinished")
    save_file({"values": values_P2}, unfinished, metadata={"sha256": _digest(values_P2)})
    flushed_hash(unfinished)
    unfinished.replace(cache)
    return values_P2


def _read(cache: Path, num_pairs: int) -> Tensor | None:
    """What was kept; None where nothing was, or where it is damaged: then it is computed anew."""
    if not cache.is_file():
        return None
    try:
        with safe_open(cache, framework="pt") as file:
            values_P2, noted = file.get_tensor("values"), file.metadata()
    except (OSError, SafetensorError):
        return None
    is_whole = values_P2.shape == (num_pairs, 2) and noted == {"sha256": _digest(values_P2)}
    return values_P2 if is_whole else None


def _digest(values_P2: Tensor) -> str:
    return hashlib.sha256(values_P2.numpy().tobytes()).hexdigest()
