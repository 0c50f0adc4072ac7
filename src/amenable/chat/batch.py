"""Token rows to padded batches, cut by a budget of tokens and not by a count of rows."""

# Shapes: B = rows, T = tokens in the longest row.

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from amenable.chat.encode import TokenRow


@dataclass(frozen=True, slots=True)
class Batch:
    """Right-padded rows.

    >>> Batch.of([TokenRow([5, 6], [False, True]), TokenRow([7], [False])]).is_target_BT.tolist()
    [[False, True], [False, False]]
    """

    tokens_BT: Tensor  # int64; padding is token 0
    is_target_BT: Tensor  # bool; False on padding

    @classmethod
    def of(cls, rows: Sequence[TokenRow]) -> Self:
        length = max(len(row.tokens) for row in rows)
        tokens_BT = torch.zeros(len(rows), length, dtype=torch.int64)
        is_target_BT = torch.zeros(len(rows), length, dtype=torch.bool)
        for b, row in enumerate(rows):
            tokens_BT[b, : len(row.tokens)] = torch.tensor(row.tokens)
            is_target_BT[b, : len(row.tokens)] = torch.tensor(row.is_target)
        return cls(tokens_BT, is_target_BT)

    def scored(self, hidden_BTH: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The hidden state before each target [R, H], the targets [R], and their rows [R].

        Logits at position t predict token t + 1, hence the shift.
        """
        is_scored_BT = self.is_target_BT[:, 1:].to(hidden_BTH.device)
        targets_BT = self.tokens_BT[:, 1:].to(hidden_BTH.device)
        rows_R = is_scored_BT.nonzero()[:, 0]
        return hidden_BTH[:, :-1][is_scored_BT], targets_BT[is_scored_BT], rows_R


def cut(row: TokenRow, max_tokens: int) -> TokenRow:
    """The row without its end, where it is too long."""
    return TokenRow(row.tokens[:max_tokens], row.is_target[:max_tokens])


def by_token_budget(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Positions grouped so that rows times longest stays within the budget; alike lengths together.

    >>> by_token_budget([2, 9, 3, 2], budget=9)
    [[0, 3, 2], [1]]
    """
    groups: list[list[int]] = []
    for position in sorted(range(len(lengths)), key=lambda at: lengths[at]):
        if groups and lengths[position] * (len(groups[-1]) + 1) <= budget:
            groups[-1].append(position)
        else:
            groups.append([position])
    return groups


def shuffled_steps(
    lengths: Sequence[int], *, per_batch: int, per_step: int, seed: int
) -> list[list[list[int]]]:
    """One epoch: steps of microbatches of positions, the same for the same seed.

    Positions are shuffled first, so rows of one length meet different neighbours each epoch.
    """
    draw = random.Random(seed)  # noqa: S311
    order = list(range(len(lengths)))
    draw.shuffle(order)
    groups = by_token_budget([lengths[position] for position in order], per_batch)
    draw.shuffle(groups)
    steps: list[list[list[int]]] = []
    tokens = per_step
    for group in groups:
        positions = [order[at] for at in group]
        if tokens >= per_step:
            steps.append([])
            tokens = 0
        steps[-1].append(positions)
        tokens += sum(lengths[position] for position in positions)
    return steps
