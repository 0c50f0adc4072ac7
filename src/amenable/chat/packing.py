"""Long texts to windows, examples to steps, and those of a step to packs that fit in memory."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from amenable.chat.encode import TokenRow


def fill(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Positions in as few packs as come of first fit, longest first; what is too long stands alone.

    >>> fill([5, 9, 3, 2], budget=10)
    [[1], [0, 2, 3]]
    """
    packs: list[list[int]] = []
    rooms: list[int] = []
    for position in sorted(range(len(lengths)), key=lambda at: -lengths[at]):
        length = lengths[position]
        at = next((at for at, room in enumerate(rooms) if length <= room), None)
        if at is None:
            packs.append([])
            rooms.append(budget)
            at = -1
        packs[at].append(position)
        rooms[at] -= length
    return packs


def shuffled_steps(
    lengths: Sequence[int], per_pack: int, per_step: int, seed: int
) -> list[list[list[int]]]:
    """One epoch: steps of packs of positions, the same for the same seed.

    A step takes examples in their shuffled order until the next would be too many, so which
    examples meet in a step does not depend on their lengths, nor on how they are packed.
    """
    order = list(range(len(lengths)))
    random.Random(seed).shuffle(order)  # noqa: S311
    steps: list[list[int]] = [[]]
    room = per_step
    for position in order:
        if steps[-1] and lengths[position] > room:
            steps.append([])
            room = per_step
        steps[-1].append(position)
        room -= lengths[position]
    return [
        [[step[at] for at in pack] for pack in fill([lengths[at] for at in step], per_pack)]
        for step in steps
        if step
    ]


@dataclass(frozen=True, slots=True)
class Limit:
    """Tokens that an example may have, and what becomes of a longer one."""

    max_tokens: int
    leaves_out: bool = False

    def holds(self, row: TokenRow) -> bool:
        return len(row.tokens) <= self.max_tokens

    def fit(self, row: TokenRow) -> TokenRow:
        """The row, without its end where that is too long; of one left out no token is learned."""
        tokens, is_target = row.tokens[: self.max_tokens], row.is_target[: self.max_tokens]
        if self.leaves_out and not self.holds(row):
            is_target = [False] * len(tokens)
        return TokenRow(tokens, is_target)


def windows(row: TokenRow, most: int) -> list[TokenRow]:
    """The row in pieces of at most `most` tokens, without losing a target.

    Each piece after the first begins with the last token of the one before, which it does not
    score, so that every token but the row's first is predicted from something, and counts once.

    >>> row = TokenRow([5, 6, 7, 8], [False, True, True, True])
    >>> [piece.tokens for piece in windows(row, 3)]
    [[5, 6, 7], [7, 8]]
    """
    pieces: list[TokenRow] = []
    for start in range(0, max(1, len(row.tokens) - 1), most - 1):
        here = slice(start, start + most)
        piece = TokenRow(row.tokens[here], row.is_target[here])
        if start:
            piece.is_target[0] = False
        pieces.append(piece)
    return pieces
