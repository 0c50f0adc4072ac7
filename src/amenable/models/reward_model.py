"""A reward model: a policy's backbone and adapter, read by a few linear heads and no vocabulary."""

# Shapes: N = tokens of a pack, K = branches, E = heads, H = hidden width.

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from amenable.chat.trees import Pack
from amenable.models.policy import Policy

HEADS = "reward_heads"


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

    def scores(self, pack: Pack) -> Tensor:
        """[E, K] in fp32, each read where a branch's last token stands."""
        hidden_NH = self.policy.hidden(pack)
        ends_KH = hidden_NH[pack.ends_K.to(hidden_NH.device)]
        return self.heads_EH @ ends_KH.float().T

    def parameters(self, adapter: str) -> dict[str, nn.Parameter]:
        return {**self.policy.adapters.parameters(adapter), HEADS: self.heads_EH}
