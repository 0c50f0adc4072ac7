"""What the frozen parent makes of replies, computed once and kept."""

# Shapes: T = trees, K = branches of each, S = branches of a pack, R = its scored tokens,
# H = hidden width.

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from amenable.chat.trees import Pack, TokenTree
from amenable.models.policy import Policy
from amenable.training.state import flushed_hash

LAYOUT_VERSION = "packed trees, 2"  # another layout rounds differently: its values are not these


class Reference(NamedTuple):
    """Log-probabilities of branches, in nats, and how far apart each tree's first and last lie.

    1 is what is usual between replies to different prompts; near 0 stand replies that the parent
    can hardly tell apart.
    """

    log_probs_TK: Tensor
    apart_T: Tensor


def reference_key(parent_sha256: str, trees: Sequence[TokenTree], dtype: torch.dtype) -> str:
    text = repr((LAYOUT_VERSION, parent_sha256, str(dtype), torch.__version__, list(trees)))
    return hashlib.sha256(text.encode()).hexdigest()


def read_reference(
    policy: Policy,
    trees: Sequence[TokenTree],
    groups: Sequence[Sequence[int]],
    cache: Path,
    on_group: Callable[[int], None],
) -> Reference:
    """From the adapter in use; all trees have as many branches as the first.

    `groups` are the microbatches of the first epoch: the same layout gives the same roundings, so
    that DPO's loss of the first step is ln 2 exactly.
    """
    shape = (len(trees), len(trees[0].branches))
    if (kept := _read(cache, shape)) is not None:
        return kept
    log_probs_TK = torch.zeros(shape)
    means_TKH = torch.zeros(*shape, policy.head_weight.shape[1])
    for done, group in enumerate(groups):
        log_probs_S, means_SH = _read_pack(policy, Pack.of([trees[at] for at in group]))
        log_probs_TK[list(group)] = log_probs_S.reshape(-1, shape[1])
        means_TKH[list(group)] = means_SH.reshape(-1, *means_TKH.shape[1:])
        on_group(done + 1)
    found = Reference(log_probs_TK, _apart(means_TKH))
    cache.parent.mkdir(parents=True, exist_ok=True)
    unfinished = cache.with_name(cache.name + ".unfinished")
    save_file(found._asdict(), unfinished, metadata={"sha256": _digest(found)})
    flushed_hash(unfinished)
    unfinished.replace(cache)
    return found


@torch.no_grad()
def _read_pack(policy: Policy, pack: Pack) -> tuple[Tensor, Tensor]:
    """Each branch's log-probability [S], and the mean [S, H] of what its targets are read from."""
    hidden_RH = policy.sources(pack)
    log_probs_R = policy.log_probs(hidden_RH, pack.targets_R.to(hidden_RH.device))
    num_S1 = pack.branch_sums(torch.ones(len(pack.targets_R)))[:, None]
    means_SH = pack.branch_sums(hidden_RH.float()).cpu() / num_S1.clamp(min=1)
    return pack.branch_sums(log_probs_R).cpu(), means_SH


def _apart(means_TKH: Tensor) -> Tensor:
    """The distance of a tree's first and last branch over the usual one of trees' first branches.

    What lets chosen replies become less likely is that the hidden states of both replies point the
    same way (the CHES score of Razin et al. 2024, arXiv 2410.08847, section 5). Distances are taken
    instead of products, for all hidden states of a model have much in common.
    """
    first_TH, last_TH = means_TKH[:, 0], means_TKH[:, -1]
    usual = (2 * first_TH.var(0, correction=0).sum()).sqrt()
    return (first_TH - last_TH).norm(dim=-1) / usual


def _read(cache: Path, shape: tuple[int, int]) -> Reference | None:
    """What was kept; None where nothing was, or where it is damaged: then it is computed anew."""
    if not cache.is_file():
        return None
    try:
        with safe_open(cache, framework="pt") as file:
            found = Reference(*(file.get_tensor(name) for name in Reference._fields))
            noted = file.metadata()
    except (OSError, SafetensorError):
        return None
    is_whole = found.log_probs_TK.shape == shape and noted == {"sha256": _digest(found)}
    return found if is_whole else None


def _digest(found: Reference) -> str:
    return hashlib.sha256(b"".join(each.numpy().tobytes() for each in found)).hexdigest()
