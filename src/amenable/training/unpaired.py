"""Training on single judgements: a reply was good, or it was bad (KTO)."""

# Shapes: B = replies, 2 = the reply itself and one to another prompt.

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from amenable.chat.encode import TokenRow
from amenable.chat.packing import fill
from amenable.chat.trees import TokenTree
from amenable.models.policy import Policy
from amenable.records.seeds import seed_for
from amenable.training.finetune import Budget
from amenable.training.losses.kto import Unpaired, UnpairedCounts, kto_loss
from amenable.training.losses.output import LossOutput
from amenable.training.preference import branch_log_probs, tree_steps


class JudgedRow(NamedTuple):
    """A reply with its judgement, and the same prompt with a reply that answers another one.

    What such replies gain over the frozen parent is the gain that says nothing (arXiv 2402.01306,
    section 4.1), so `stranger` is scored and never learned from.
    """

    row: TokenRow
    stranger: TokenRow
    is_good: bool
    weight: float = 1.0


def judged_trees(judged: Sequence[JudgedRow]) -> list[TokenTree]:
    """For the reference: both replies to a prompt in one pass."""
    return [TokenTree.of(each.row, each.stranger) for each in judged]


@dataclass(frozen=True)
class UnpairedMethod:
    """A training Method; `reference_B2` holds the frozen parent's values of row and stranger."""

    policy: Policy
    judged: Sequence[JudgedRow]
    reference_B2: Tensor
    beta: float
    budget: Budget
    seed: int

    def steps(self, epoch: int) -> list[list[list[int]]]:
        rows = [TokenTree.of(each.row) for each in self.judged]
        return tree_steps(rows, self.budget, seed_for(self.seed, "epoch", epoch))

    def counts(self, step: Sequence[Sequence[int]]) -> UnpairedCounts:
        positions = [at for microbatch in step for at in microbatch]
        return UnpairedCounts(
            weight=sum(self.judged[at].weight for at in positions),
            usual_gain=self._usual_gain(positions),
        )

    def _usual_gain(self, positions: Sequence[int]) -> float:
        """Equation 6: the mean over the step, never below 0, and without a gradient."""
        strangers = [self.judged[at].stranger for at in positions]
        gain = 0.0
        for pack in fill([len(row.tokens) for row in strangers], self.budget.per_pack):
            with torch.no_grad():
                trees = [TokenTree.of(strangers[at]) for at in pack]
                log_probs_B = branch_log_probs(self.policy, trees).cpu()
            here = [positions[at] for at in pack]
            gain += float((log_probs_B - self.reference_B2[here, 1]).double().sum())
        return max(0.0, gain / len(positions))

    def loss(self, microbatch: Sequence[int], counts: UnpairedCounts) -> LossOutput:
        judged = [self.judged[at] for at in microbatch]
        log_probs_B = branch_log_probs(self.policy, [TokenTree.of(each.row) for each in judged])
        device = log_probs_B.device
        replies = Unpaired(
            log_probs_B=log_probs_B,
            reference_B=self.reference_B2[list(microbatch), 0].to(device),
            is_good_B=torch.tensor([each.is_good for each in judged], device=device),
            weight_B=torch.tensor([each.weight for each in judged], device=device),
        )
        return kto_loss(replies, counts, beta=self.beta)

    def num_tokens(self, microbatch: Sequence[int]) -> int:
        return sum(len(self.judged[at].row.tokens) for at in microbatch)
