"""Rows to batches: nothing lost, nothing doubled, never more than the budget."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amenable.chat.batch import Batch, by_token_budget, cut, shuffled_steps
from amenable.chat.encode import TokenRow

lengths_of_rows = st.lists(st.integers(1, 60), max_size=60)


@settings(deadline=None)  # machines are shared
@given(lengths=lengths_of_rows, budget=st.integers(1, 200))
def test_groups_hold_every_row_once_within_the_budget(lengths: list[int], budget: int):
    groups = by_token_budget(lengths, budget)
    assert sorted(at for group in groups for at in group) == list(range(len(lengths)))
    for group in groups:
        padded = max(lengths[at] for at in group) * len(group)
        assert padded <= budget or len(group) == 1  # a row longer than the budget goes alone


@settings(deadline=None)  # machines are shared
@given(
    lengths=lengths_of_rows,
    per_batch=st.integers(1, 200),
    per_step=st.integers(1, 400),
    seed=st.integers(0, 2**32),
)
def test_an_epoch_holds_every_row_once(
    lengths: list[int], per_batch: int, per_step: int, seed: int
):
    steps = shuffled_steps(lengths, per_batch=per_batch, per_step=per_step, seed=seed)
    seen = [at for step in steps for microbatch in step for at in microbatch]
    assert sorted(seen) == list(range(len(lengths)))
    assert steps == shuffled_steps(lengths, per_batch=per_batch, per_step=per_step, seed=seed)


@settings(deadline=None)  # machines are shared
@given(lengths=lengths_of_rows, per_batch=st.integers(1, 200), per_step=st.integers(1, 400))
def test_a_step_is_full_and_no_fuller_than_it_must_be(
    lengths: list[int], per_batch: int, per_step: int
):
    steps = shuffled_steps(lengths, per_batch=per_batch, per_step=per_step, seed=1)
    sizes = [[sum(lengths[at] for at in group) for group in step] for step in steps]
    for position, step in enumerate(sizes):
        assert sum(step[:-1]) < per_step  # before its last microbatch it was not full yet
        if position < len(sizes) - 1:
            assert sum(step) >= per_step


def test_epochs_meet_other_neighbours():
    lengths = [10] * 40
    first, second = (
        shuffled_steps(lengths, per_batch=40, per_step=40, seed=seed) for seed in (1, 2)
    )
    assert {frozenset(group) for step in first for group in step} != {
        frozenset(group) for step in second for group in step
    }


def test_a_batch_pads_on_the_right_and_never_counts_padding():
    batch = Batch.of([TokenRow([5, 6, 7], [False, True, True]), TokenRow([8], [False])])
    assert batch.tokens_BT.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert batch.is_target_BT.tolist() == [[False, True, True], [False, False, False]]


def test_the_hidden_state_before_a_target_scores_it():
    batch = Batch.of([TokenRow([5, 6, 7], [False, True, True]), TokenRow([8, 9], [False, True])])
    hidden_BTH = torch.arange(6.0).reshape(2, 3, 1)  # row 0: 0 1 2, row 1: 3 4 5
    hidden_RH, targets_R, rows_R = batch.scored(hidden_BTH)
    # 6 and 7 are predicted from positions 0 and 1 of row 0, and 9 from position 0 of row 1.
    assert hidden_RH[:, 0].tolist() == [0.0, 1.0, 3.0]
    assert targets_R.tolist() == [6, 7, 9]
    assert rows_R.tolist() == [0, 0, 1]


def test_a_batch_without_targets_scores_nothing():
    batch = Batch.of([TokenRow([5, 6], [False, False])])
    hidden_RH, targets_R, rows_R = batch.scored(torch.zeros(1, 2, 4))
    assert (hidden_RH.shape, len(targets_R), len(rows_R)) == ((0, 4), 0, 0)


def test_what_is_too_long_loses_its_end():
    row = cut(TokenRow([1, 2, 3], [False, True, True]), 2)
    assert row == TokenRow([1, 2], [False, True])
