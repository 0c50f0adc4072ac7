"""Reward training: all replies to a prompt in one pass, all judgements between them at once."""

# Shapes: E = heads, K = replies of a pack, C = comparisons between them.

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from amenable.chat.encode import TokenRow
from amenable.chat.trees import Pack, TokenTree
from amenable.models.reward_model import RewardModel
from amenable.records.seeds import seed_for
from amenable.training.finetune import Budget
from amenable.training.losses.output import LossOutput
from amenable.training.losses.reward import Compared, reward_loss
from amenable.training.preference import tree_steps


class Order(NamedTuple):
    """One reply before another, by their places among a prompt's replies."""

    better: int
    worse: int
    is_tie: bool = False
    margin: float = 0.0
    weight: float = 1.0


class Judged(NamedTuple):
    """A prompt's replies and what was said of them: a pair has one order, a ranking of K many."""

    tree: TokenTree
    orders: tuple[Order, ...]

    @classmethod
    def of(cls, rows: Sequence[TokenRow], orders: Sequence[Order]) -> "Judged":
        return cls(TokenTree.of(*rows), tuple(orders))


def orders_of_ranking(ranks: Sequence[int], weight: float = 1.0) -> tuple[Order, ...]:
    """Every pair of a ranking, lower ranks first; one ranking counts as much as one pair.

    Ouyang et al. 2022 (arXiv 2203.02155), equation 1: the K (K - 1) / 2 pairs of a prompt are
    averaged, since they are not independent judgements.

    >>> [(each.better, each.worse, each.is_tie) for each in orders_of_ranking([2, 1, 1])]
    [(1, 0, False), (2, 0, False), (1, 2, True)]
    """
    pairs = [(a, b) for a in range(len(ranks)) for b in range(a + 1, len(ranks))]
    share = weight / len(pairs)
    return tuple(
        Order(a, b, is_tie=ranks[a] == ranks[b], weight=share)
        if ranks[a] <= ranks[b]
        else Order(b, a, weight=share)
        for a, b in pairs
    )


@dataclass(frozen=True)
class RewardMethod:
    """A training Method; its counts are the summed weights of a step's judgements and heads."""

    model: RewardModel
    judged: Sequence[Judged]
    centring: float
    budget: Budget
    seed: int

    def steps(self, epoch: int) -> list[list[list[int]]]:
        trees = [each.tree for each in self.judged]
        return tree_steps(trees, self.budget, seed_for(self.seed, "epoch", epoch))

    def counts(self, step: Sequence[Sequence[int]]) -> float:
        weight = sum(
            order.weight * sum(self._repeats(at, place))
            for microbatch in step
            for at in microbatch
            for place, order in enumerate(self.judged[at].orders)
        )
        return weight or 1.0  # a small step may hold nothing that a head meets: then it moves none

    def loss(self, microbatch: Sequence[int], counts: float) -> LossOutput:
        pack = Pack.of([self.judged[at].tree for at in microbatch])
        scores_EK = self.model.scores(pack)
        orders: list[Order] = []
        weights: list[list[float]] = []
        start = 0
        for at in microbatch:
            for place, order in enumerate(self.judged[at].orders):
                here = order._replace(better=start + order.better, worse=start + order.worse)
                orders.append(here)
                weights.append([order.weight * times for times in self._repeats(at, place)])
            start += len(self.judged[at].tree.branches)
        device = scores_EK.device
        compared = Compared(
            scores_EK=scores_EK,
            better_C=torch.tensor([order.better for order in orders], device=device),
            worse_C=torch.tensor([order.worse for order in orders], device=device),
            is_tie_C=torch.tensor([order.is_tie for order in orders], device=device),
            margin_C=torch.tensor([order.margin for order in orders], device=device),
            weight_EC=torch.tensor(weights, device=device).T,
        )
        return reward_loss(compared, weight_in_step=counts, centring=self.centring)

    def num_tokens(self, microbatch: Sequence[int]) -> int:
        return sum(self.judged[at].tree.num_tokens for at in microbatch)

    def _repeats(self, at: int, place: int) -> list[int]:
        """How often each head meets a judgement: a bootstrap sample each, so that they differ."""
        num_heads = len(self.model.heads_EH)
        if num_heads == 1:
            return [1]
        draw = random.Random(seed_for(self.seed, "bootstrap", at, place))  # noqa: S311
        return draw.choices((0, 1, 2, 3), POISSON, k=num_heads)


POISSON = (0.3679, 0.3679, 0.1839, 0.0803)
"""How often one is drawn, when as many are drawn as there are: Poisson with mean 1, cut at 3."""


def scores_of(
    model: RewardModel,
    trees: Sequence[TokenTree],
    packs: Sequence[Sequence[int]],
    on_pack: Callable[[int], None],
) -> list[Tensor]:
    """For each tree what the heads say of its replies, [E, K]."""
    found: dict[int, Tensor] = {}
    for done, pack in enumerate(packs):
        with torch.no_grad():
            scores_EK = model.scores(Pack.of([trees[at] for at in pack])).cpu()
        widths = [len(trees[at].branches) for at in pack]
        found |= dict(zip(pack, scores_EK.split(widths, dim=1), strict=True))
        on_pack(done + 1)
    return [found[at] for at in range(len(trees))]
