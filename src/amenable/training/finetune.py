"""Finetuning on demonstrations: the loss counts on every reply and on the marker that ends it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from amenable.chat.batch import Batch, shuffled_steps
from amenable.chat.encode import TokenRow
from amenable.models.policy import Policy
from amenable.records.seeds import seed_for
from amenable.training.losses.likelihood import likelihood_loss
from amenable.training.losses.output import LossOutput


class Budget(NamedTuple):
    """Tokens in memory at once (padding included), and tokens that one update learns from."""

    per_batch: int
    per_step: int


@dataclass(frozen=True)
class FinetuneMethod:
    """A training Method; its counts are the target tokens of a step."""

    policy: Policy
    rows: Sequence[TokenRow]
    budget: Budget
    seed: int

    def steps(self, epoch: int) -> list[list[list[int]]]:
        return shuffled_steps(
            [len(row.tokens) for row in self.rows],
            per_batch=self.budget.per_batch,
            per_step=self.budget.per_step,
            seed=seed_for(self.seed, "epoch", epoch),
        )

    def counts(self, step: Sequence[Sequence[int]]) -> int:
        return sum(sum(self.rows[at].is_target) for microbatch in step for at in microbatch)

    def loss(self, microbatch: Sequence[int], counts: int) -> LossOutput:
        batch = Batch.of([self.rows[at] for at in microbatch])
        hidden_BTH = self.policy.hidden(batch.tokens_BT)
        hidden_RH, targets_R, _ = batch.scored(hidden_BTH)
        log_probs_R = self.policy.log_probs(hidden_RH, targets_R)
        return likelihood_loss(log_probs_R, tokens_in_step=counts)

    def num_tokens(self, microbatch: Sequence[int]) -> int:
        return sum(len(self.rows[at].tokens) for at in microbatch)
