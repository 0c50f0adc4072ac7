"""Examples to steps and packs: nothing lost, nothing doubled, never more than the budget."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from amenable.chat.encode import TokenRow
from amenable.chat.packing import Limit, fill, shuffled_steps, windows

some_lengths = st.lists(st.integers(1, 60), max_size=60)


@settings(deadline=None)  # machines are shared
@given(lengths=some_lengths, budget=st.integers(1, 200))
def test_packs_hold_every_example_once_within_the_budget(lengths: list[int], budget: int):
    packs = fill(lengths, budget)
    assert sorted(at for pack in packs for at in pack) == list(range(len(lengths)))
    for pack in packs:
        assert sum(lengths[at] for at in pack) <= budget or len(pack) == 1


@settings(deadline=None)  # machines are shared
@given(lengths=some_lengths, budget=st.integers(60, 200))
def test_no_two_packs_would_fit_into_one(lengths: list[int], budget: int):
    sizes = sorted(sum(lengths[at] for at in pack) for pack in fill(lengths, budget))
    assert len(sizes) < 2 or sizes[0] + sizes[1] > budget


@settings(deadline=None)  # machines are shared
@given(
    lengths=some_lengths,
    per_pack=st.integers(1, 200),
    per_step=st.integers(1, 400),
    seed=st.integers(0, 2**32),
)
def test_an_epoch_holds_every_example_once(
    lengths: list[int], per_pack: int, per_step: int, seed: int
):
    steps = shuffled_steps(lengths, per_pack, per_step, seed)
    seen = [at for step in steps for pack in step for at in pack]
    assert sorted(seen) == list(range(len(lengths)))
    assert steps == shuffled_steps(lengths, per_pack, per_step, seed)
    for step in steps:
        tokens = sum(lengths[at] for pack in step for at in pack)
        assert tokens <= per_step or sum(len(pack) for pack in step) == 1


@settings(deadline=None)  # machines are shared
@given(lengths=some_lengths, per_pack=st.integers(1, 200), other=st.integers(1, 200))
def test_what_meets_in_a_step_does_not_depend_on_the_packs(
    lengths: list[int], per_pack: int, other: int
):
    first, second = (
        [
            sorted(at for pack in step for at in pack)
            for step in shuffled_steps(lengths, room, 90, 1)
        ]
        for room in (per_pack, other)
    )
    assert first == second


def test_epochs_meet_other_neighbours():
    first, second = (shuffled_steps([10] * 40, 40, 40, seed) for seed in (1, 2))
    assert {frozenset(pack) for step in first for pack in step} != {
        frozenset(pack) for step in second for pack in step
    }


def test_what_is_too_long_loses_its_end():
    row = Limit(2).fit(TokenRow([1, 2, 3], [False, True, True]))
    assert row == TokenRow([1, 2], [False, True])


@given(num_tokens=st.integers(0, 60), num_given=st.integers(1, 3), most=st.integers(2, 20))
def test_windows_score_every_target_once_and_nothing_else(
    num_tokens: int, num_given: int, most: int
):
    whole = TokenRow(list(range(num_tokens)), [at >= num_given for at in range(num_tokens)])
    pieces = windows(whole, most)
    scored = [
        token
        for piece in pieces
        for token, is_target in zip(piece.tokens, piece.is_target, strict=True)
        if is_target
    ]
    assert scored == list(range(num_given, num_tokens))
    assert all(len(piece.tokens) <= most for piece in pieces)
    assert not any(piece.is_target[0] for piece in pieces if piece.tokens)
    # Every piece goes on with the very token that the one before ended with.
    for before, after in pairwise(pieces):
        assert after.tokens[0] == before.tokens[-1]
        assert len(after.tokens) > 1


def test_a_row_that_fits_is_its_own_window():
    row = TokenRow([5, 6, 7], [False, True, True])
    assert windows(row, 3) == [row]
