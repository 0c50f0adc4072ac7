"""A reward model: a policy's backbone and adapter, read by a few linear heads and no vocabulary."""

# Shapes: N = tokens of a pack, K = branches, E = heads, H = hidden width.

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from amenable.chat.template import ChatForm
from amenable.chat.trees import Pack
from amenable.models.merge import save_trained
from amenable.models.policy import Policy
from amenable.records.errors import ModelError

HEADS = "reward_heads"
HEADS_FILE = "reward_heads.safetensors"


@dataclass(frozen=True)
class RewardModel:
    """Several heads cost next to nothing, and where they differ nobody has been asked enough."""

    policy: Policy
    heads_EH: nn.Parameter

    @classmethod
    def on(cls, policy: Policy, num_heads: int, seed: int) -> "RewardModel":
        """New heads, spread by 1 / sqrt(H + 1), so that first scores are of size one."""
        width = policy.head_weight.shape[1]
        draw = torch.Generator().manual_seed(seed)
        heads_EH = torch.randn(num_heads, width, generator=draw) / (width + 1) ** 0.5
        return cls(policy, nn.Parameter(heads_EH.to(policy.device)))

    @classmethod
    def load(cls, policy: Policy, name: str, folder: Path) -> "RewardModel":
        """What `save` wrote: its adapter beside the others of its base, and its heads."""
        heads_EH = _read_heads(folder, width=policy.head_weight.shape[1])
        policy.adapters.load(name, folder)
        return cls(policy, nn.Parameter(heads_EH.to(policy.device)))

    def save(self, name: str, folder: Path, base_name: str, form: ChatForm) -> None:
        """The adapter `name` as any other, with the heads beside it."""
        save_trained(self.policy, name, folder, base_name, form)
        heads_EH = self.heads_EH.detach().cpu().contiguous()
        save_file({HEADS: heads_EH}, folder / HEADS_FILE, metadata={"format": "pt"})

    def scores(self, pack: Pack) -> Tensor:
        """[E, K] in fp32, each read where a branch's last token stands."""
        hidden_NH = self.policy.hidden(pack)
        ends_KH = hidden_NH[pack.ends_K.to(hidden_NH.device)]
        return self.heads_EH @ ends_KH.float().T

    def parameters(self, adapter: str) -> dict[str, nn.Parameter]:
        return {**self.policy.adapters.parameters(adapter), HEADS: self.heads_EH}


def _read_heads(folder: Path, *, width: int) -> Tensor:
    path = folder / HEADS_FILE
    again = "Put it back from a copy, or train it anew: amenable reward"
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"The heads of a reward model cannot be read: {error}. {again}") from error
    heads_EH = tensors.get(HEADS)
    is_whole = heads_EH is not None and tensors.keys() == {HEADS} and heads_EH.ndim == 2
    if heads_EH is None or not is_whole or heads_EH.dtype != torch.float32:
        raise ModelError(f"{path} holds no heads of a reward model. {again}")
    if heads_EH.shape[1] != width:
        raise ModelError(
            f"The heads in {path} read {heads_EH.shape[1]} numbers of a token, where this model "
            f"has {width}: they belong to another base model."
        )
    if not torch.isfinite(heads_EH).all():
        raise ModelError(f"{path} holds numbers that are not finite. {again}")
    return heads_EH
