"""Preference training: chosen against rejected replies, with the parent's values cached."""

# Shapes: R = scored tokens, P = pairs; rows 2i and 2i + 1 of a batch are pair i.

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from amenable.chat.batch import Batch, shuffled_steps
from amenable.chat.encode import TokenRow
from amenable.models.policy import Policy
from amenable.records.seeds import seed_for
from amenable.training.finetune import Budget
from amenable.training.losses.output import LossOutput
from amenable.training.losses.preference import PairCounts, Pairs, dpo_loss


class RowPair(NamedTuple):
    chosen: TokenRow
    rejected: TokenRow

    @property
    def num_tokens(self) -> int:
        return len(self.chosen.tokens) + len(self.rejected.tokens)


class DpoKnobs(NamedTuple):
    beta: float
    flip_rate: float
    sft_weight: float


class PairValues(NamedTuple):
    """Summed log-probabilities, in nats, fp32."""

    chosen_P: Tensor
    rejected_P: Tensor


def pair_log_probs(policy: Policy, pairs: Sequence[RowPair]) -> PairValues:
    """What the policy, with the adapter in use, gives both replies of each pair."""
    batch = Batch.of([row for pair in pairs for row in pair])
    hidden_RH, targets_R, rows_R = batch.scored(policy.hidden(batch.tokens_BT))
    log_probs_R = policy.log_probs(hidden_RH, targets_R)
    sums = log_probs_R.new_zeros(2 * len(pairs)).index_add(0, rows_R, log_probs_R)
    return PairValues(sums[0::2], sums[1::2])


@dataclass(frozen=True)
class PreferenceMethod:
    """A training Method; `reference` holds the frozen parent's values, [pairs, 2]."""

    policy: Policy
    pairs: Sequence[RowPair]
    reference: Tensor
    knobs: DpoKnobs
    budget: Budget
    seed: int

    def steps(self, epoch: int) -> list[list[list[int]]]:
        return pair_steps(self.pairs, self.budget, seed_for(self.seed, "epoch", epoch))

    def counts(self, step: Sequence[Sequence[int]]) -> PairCounts:
        positions = [at for microbatch in step for at in microbatch]
        chosen = sum(sum(self.pairs[at].chosen.is_target) for at in positions)
        return PairCounts(pairs=len(positions), chosen_tokens=chosen)

    def loss(self, microbatch: Sequence[int], counts: PairCounts) -> LossOutput:
        pairs = [self.pairs[at] for at in microbatch]
        values = pair_log_probs(self.policy, pairs)
        reference_P2 = self.reference[list(microbatch)].to(values.chosen_P.device)
        return dpo_loss(
            Pairs(
                chosen_P=values.chosen_P,
                rejected_P=values.rejected_P,
                reference_chosen_P=reference_P2[:, 0],
                reference_rejected_P=reference_P2[:, 1],
                num_chosen_tokens=sum(sum(pair.chosen.is_target) for pair in pairs),
            ),
            counts,
            beta=self.knobs.beta,
            flip_rate=self.knobs.flip_rate,
            sft_weight=self.knobs.sft_weight,
        )

    def num_tokens(self, microbatch: Sequence[int]) -> int:
        return sum(self.pairs[at].num_tokens for at in microbatch)


def pair_steps(pairs: Sequence[RowPair], budget: Budget, seed: int) -> list[list[list[int]]]:
    lengths = [2 * max(len(row.tokens) for row in pair) for pair in pairs]
    return shuffled_steps(lengths, per_batch=budget.per_batch, per_step=budget.per_step, seed=seed)
