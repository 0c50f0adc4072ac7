"""Maximum likelihood on token rows: of replies in finetuning, of whole texts in pretraining."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from amenable.chat.encode import TokenRow
from amenable.chat.packing import shuffled_steps
from amenable.chat.trees import Pack, TokenTree
from amenable.models.policy import Policy
from amenable.records.seeds import seed_for
from amenable.training.losses.likelihood import likelihood_loss
from amenable.training.losses.output import LossOutput
from amenable.training.mixture import Share, seen_in


class Budget(NamedTuple):
    """Tokens in memory at once, and tokens that one update learns from."""

    per_pack: int
    per_step: int


@dataclass(frozen=True)
class LikelihoodMethod:
    """A training Method; its counts are the target tokens of a step."""

    policy: Policy
    rows: Sequence[TokenRow]
    budget: Budget
    seed: int
    shares: Sequence[Share] = ()
    """How often rows are seen; without any, each once an epoch."""

    def steps(self, epoch: int) -> list[list[list[int]]]:
        every = range(len(self.rows))
        seen = seen_in(self.shares, epoch, self.seed) if self.shares else every
        lengths = [len(self.rows[at].tokens) for at in seen]
        steps = shuffled_steps(lengths, *self.budget, seed_for(self.seed, "epoch", epoch))
        return [[[seen[at] for at in pack] for pack in step] for step in steps]

    def counts(self, step: Sequence[Sequence[int]]) -> int:
        return sum(sum(self.rows[at].is_target) for microbatch in step for at in microbatch)

    def loss(self, microbatch: Sequence[int], counts: int) -> LossOutput:
        pack = Pack.of([TokenTree.of(self.rows[at]) for at in microbatch])
        return likelihood_loss(self.policy.scored(pack), tokens_in_step=counts)

    def num_tokens(self, microbatch: Sequence[int]) -> int:
        return sum(len(self.rows[at].tokens) for at in microbatch)
