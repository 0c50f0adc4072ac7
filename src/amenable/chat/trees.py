"""One prompt, many replies, in one pass: what replies share is laid out, and read, once.

A pack is a run of trees without padding. Every branch continues its prefix: it sees the prefix and
itself, never its siblings, and its positions go on where the prefix ends.
"""

# Shapes: N = tokens of a pack, R = scored tokens, K = branches of all its trees.

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple, Self

import torch
from torch import Tensor

from amenable.chat.encode import TokenRow


class TokenTree(NamedTuple):
    """A prefix that several rows share, and how each goes on. No target stands in a shared prefix.

    A row by itself is a tree with an empty prefix and one branch.
    """

    prefix: list[int]
    branches: tuple[TokenRow, ...]

    @classmethod
    def of(cls, first: TokenRow, *others: TokenRow) -> Self:
        """Rows that may begin alike; a row by itself keeps all its tokens in its branch.

        >>> TokenTree.of(TokenRow([5, 6, 7], [False, False, True]),
        ...              TokenRow([5, 6, 8], [False, False, True])).prefix
        [5, 6]
        """
        rows = (first, *others)
        shared = num_shared(rows) if others else 0
        branches = (TokenRow(row.tokens[shared:], row.is_target[shared:]) for row in rows)
        return cls(first.tokens[:shared], tuple(branches))

    @property
    def num_tokens(self) -> int:
        return len(self.prefix) + sum(len(branch.tokens) for branch in self.branches)


def num_shared(rows: Sequence[TokenRow]) -> int:
    """Tokens that all rows begin with, before any target, and leaving each at least one token."""
    most = min(len(row.tokens) for row in rows) - 1
    most = min([most, *(row.is_target.index(True) for row in rows if True in row.is_target)])
    columns = zip(*(row.tokens[:most] for row in rows), strict=True)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


class Span(NamedTuple):
    """How many tokens a tree's prefix and its branches have, in the order they are laid out."""

    prefix: int
    branches: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pack:
    """Trees laid out one after the other.

    Target r is predicted from the hidden state at `sources_R[r]`: for the first token of a branch
    that is the last of the prefix, the same for all its siblings.
    """

    spans: tuple[Span, ...]
    tokens_N: Tensor  # int64
    positions_N: Tensor  # int64
    sources_R: Tensor  # int64, into the pack
    targets_R: Tensor  # int64, token ids
    branches_R: Tensor  # int64, which branch of the pack a target belongs to
    ends_K: Tensor  # int64, where the last token of each branch stands

    @classmethod
    def of(cls, trees: Sequence[TokenTree]) -> Self:
        tokens: list[int] = []
        positions: list[int] = []
        scored: list[tuple[int, int, int]] = []
        ends: list[int] = []
        for tree in trees:
            tokens += tree.prefix
            positions += range(len(tree.prefix))
            fork = len(tokens) - 1
            for branch in tree.branches:
                start = len(tokens)
                scored += (
                    (start + at - 1 if at else fork, branch.tokens[at], len(ends))
                    for at, is_target in enumerate(branch.is_target)
                    if is_target
                )
                tokens += branch.tokens
                positions += range(len(tree.prefix), len(tree.prefix) + len(branch.tokens))
                ends.append(len(tokens) - 1)
        scored_R3 = torch.tensor(scored, dtype=torch.int64).reshape(-1, 3)
        return cls(
            spans=tuple(
                Span(len(tree.prefix), tuple(len(branch.tokens) for branch in tree.branches))
                for tree in trees
            ),
            tokens_N=torch.tensor(tokens),
            positions_N=torch.tensor(positions),
            sources_R=scored_R3[:, 0],
            targets_R=scored_R3[:, 1],
            branches_R=scored_R3[:, 2],
            ends_K=torch.tensor(ends),
        )

    def rows_apart(self) -> tuple[Tensor, Tensor]:
        """Every branch with its prefix as a padded row [K, T], and where each token is in them [N].

        A prefix is found in the row of its first branch.
        """
        longest = max(span.prefix + max(span.branches) for span in self.spans)
        tokens_KT = torch.zeros(self.num_branches, longest, dtype=torch.int64)
        at: list[int] = []
        row = start = 0
        for prefix, branches in self.spans:
            at += range(row * longest, row * longest + prefix)
            branch_start = start + prefix
            for length in branches:
                tokens_KT[row, :prefix] = self.tokens_N[start : start + prefix]
                stop = branch_start + length
                tokens_KT[row, prefix : prefix + length] = self.tokens_N[branch_start:stop]
                at += range(row * longest + prefix, row * longest + prefix + length)
                row, branch_start = row + 1, stop
            start = branch_start
        return tokens_KT, torch.tensor(at)

    @property
    def num_branches(self) -> int:
        return len(self.ends_K)

    def branch_sums(self, values_R: Tensor) -> Tensor:
        """What each branch's targets add up to [K]; of rows [R, …], their sums [K, …]."""
        zeros_K = values_R.new_zeros(self.num_branches, *values_R.shape[1:])
        return zeros_K.index_add(0, self.branches_R.to(values_R.device), values_R)
