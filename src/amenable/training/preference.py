"""Preference training: chosen against rejected replies, a pair a tree, with cached references."""

# Shapes: P = pairs; branches 2i and 2i + 1 of a pack are pair i.

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from amenable.chat.encode import TokenRow
from amenable.chat.packing import shuffled_steps
from amenable.chat.trees import Pack, TokenTree
from amenable.models.policy import Policy
from amenable.records.seeds import seed_for
from amenable.training.finetune import Budget
from amenable.training.losses.output import LossOutput
from amenable.training.losses.preference import (
    PairCounts,
    Pairs,
    PreferenceKnobs,
    Replies,
    preference_loss,
)


class RowPair(NamedTuple):
    """A judgement: which row was chosen, how much that counts, how likely it was a mistake."""

    chosen: TokenRow
    rejected: TokenRow
    weight: float = 1.0
    flip_rate: float = 0.0

    @property
    def rows(self) -> tuple[TokenRow, TokenRow]:
        return self.chosen, self.rejected


def branch_log_probs(policy: Policy, trees: Sequence[TokenTree]) -> Tensor:
    """Summed log-probability of every branch [K], in nats, fp32, with the adapter in use."""
    pack = Pack.of(trees)
    return pack.branch_sums(policy.scored(pack))


@dataclass(frozen=True)
class PreferenceMethod:
    """A training Method; `reference_P2` holds the frozen parent's values, [pairs, 2]."""

    policy: Policy
    pairs: Sequence[RowPair]
    reference_P2: Tensor
    knobs: PreferenceKnobs
    budget: Budget
    seed: int

    @cached_property
    def trees(self) -> list[TokenTree]:
        return pair_trees(self.pairs)

    def steps(self, epoch: int) -> list[list[list[int]]]:
        return tree_steps(self.trees, self.budget, seed_for(self.seed, "epoch", epoch))

    def counts(self, step: Sequence[Sequence[int]]) -> PairCounts:
        pairs = [self.pairs[at] for microbatch in step for at in microbatch]
        return PairCounts(
            weight=sum(pair.weight for pair in pairs),
            chosen_tokens=sum(sum(pair.chosen.is_target) for pair in pairs),
        )

    def loss(self, microbatch: Sequence[int], counts: PairCounts) -> LossOutput:
        pairs = [self.pairs[at] for at in microbatch]
        log_probs_P2 = branch_log_probs(self.policy, [self.trees[at] for at in microbatch])
        log_probs_P2 = log_probs_P2.reshape(-1, 2)
        device = log_probs_P2.device
        reference_P2 = self.reference_P2[list(microbatch)].to(device)
        sides = [
            Replies(
                log_probs_P=log_probs_P2[:, side],
                reference_P=reference_P2[:, side],
                num_tokens_P=torch.tensor(
                    [float(sum(pair.rows[side].is_target)) for pair in pairs], device=device
                ),
            )
            for side in (0, 1)
        ]
        judged = Pairs(
            chosen=sides[0],
            rejected=sides[1],
            weight_P=torch.tensor([pair.weight for pair in pairs], device=device),
            flip_rate_P=torch.tensor([pair.flip_rate for pair in pairs], device=device),
        )
        return preference_loss(judged, counts, self.knobs)

    def num_tokens(self, microbatch: Sequence[int]) -> int:
        return sum(self.trees[at].num_tokens for at in microbatch)


def pair_trees(pairs: Sequence[RowPair]) -> list[TokenTree]:
    return [TokenTree.of(*pair.rows) for pair in pairs]


def tree_steps(trees: Sequence[TokenTree], budget: Budget, seed: int) -> list[list[list[int]]]:
    return shuffled_steps([tree.num_tokens for tree in trees], *budget, seed)
