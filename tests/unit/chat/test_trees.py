"""Rows to trees and trees to packs."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from amenable.chat.encode import TokenRow
from amenable.chat.trees import Pack, Span, TokenTree


def row(tokens: list[int], num_targets: int) -> TokenRow:
    first = len(tokens) - num_targets
    return TokenRow(tokens, [at >= first for at in range(len(tokens))])


# 5 6 | 7 8 and 5 6 | 9, then a row by itself.
PACK = Pack.of(
    [TokenTree.of(row([5, 6, 7, 8], 2), row([5, 6, 9], 1)), TokenTree.of(row([3, 4], 1))]
)


def test_a_pack_by_hand():
    assert PACK.spans == (Span(2, (2, 1)), Span(0, (2,)))
    assert PACK.tokens_N.tolist() == [5, 6, 7, 8, 9, 3, 4]
    assert PACK.positions_N.tolist() == [0, 1, 2, 3, 2, 0, 1]
    # 7 and 9 follow the 6 at place 1, 8 follows the 7 at place 2, 4 follows the 3 at place 5.
    assert PACK.sources_R.tolist() == [1, 2, 1, 5]
    assert PACK.targets_R.tolist() == [7, 8, 9, 4]
    assert PACK.branches_R.tolist() == [0, 0, 1, 2]
    assert PACK.ends_K.tolist() == [3, 4, 6]


def test_what_belongs_to_a_branch_is_added_up():
    assert PACK.branch_sums(torch.tensor([1.0, 2.0, 4.0, 8.0])).tolist() == [3.0, 4.0, 8.0]


def test_the_same_rows_one_by_one():
    tokens_KT, at_N = PACK.rows_apart()
    assert tokens_KT.tolist() == [[5, 6, 7, 8], [5, 6, 9, 0], [3, 4, 0, 0]]
    assert tokens_KT.flatten()[at_N].tolist() == PACK.tokens_N.tolist()


def test_a_prefix_ends_before_the_first_target():
    tree = TokenTree.of(row([5, 6, 7], 2), row([5, 6, 8], 1))
    assert tree.prefix == [5]
    assert tree.branches == (TokenRow([6, 7], [True, True]), TokenRow([6, 8], [False, True]))


def test_a_branch_is_never_empty():
    tree = TokenTree.of(row([5, 6], 0), row([5, 6, 7], 1))
    assert tree.prefix == [5]
    assert [branch.tokens for branch in tree.branches] == [[6], [6, 7]]


def test_a_pack_without_targets_scores_nothing():
    pack = Pack.of([TokenTree.of(row([5, 6], 0))])
    assert (len(pack.sources_R), pack.branch_sums(torch.zeros(0)).tolist()) == (0, [0.0])


some_row = st.lists(st.integers(0, 2), min_size=2, max_size=9).flatmap(
    lambda tokens: st.integers(0, len(tokens) - 1).map(lambda num: row(tokens, num))
)


@given(st.lists(some_row, min_size=1, max_size=4))
def test_every_row_can_be_read_off_its_tree(rows: list[TokenRow]):
    tree = TokenTree.of(*rows)
    for given_row, branch in zip(rows, tree.branches, strict=True):
        assert tree.prefix + branch.tokens == given_row.tokens
        assert [False] * len(tree.prefix) + branch.is_target == given_row.is_target
        assert branch.tokens
    assert tree.num_tokens == len(tree.prefix) + sum(len(each.tokens) for each in tree.branches)
