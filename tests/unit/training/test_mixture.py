"""How often an epoch sees what: laws of a mixture."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from amenable.training.mixture import Share, seen_in

some_shares = st.lists(
    st.tuples(st.integers(0, 20), st.floats(0.05, 3.0)), min_size=1, max_size=4
).map(
    lambda found: [
        Share(range(100 * at, 100 * at + num), weight) for at, (num, weight) in enumerate(found)
    ]
)


@given(shares=some_shares, num_epochs=st.integers(1, 5), seed=st.integers(0, 2**32))
def test_rows_of_a_share_are_seen_equally_often_within_one(
    shares: list[Share], num_epochs: int, seed: int
):
    seen = Counter(at for epoch in range(num_epochs) for at in seen_in(shares, epoch, seed))
    for positions, weight in shares:
        counts = [seen[at] for at in positions]
        assert sum(counts) == round(len(positions) * weight * num_epochs)
        assert not counts or max(counts) - min(counts) <= 1


@given(shares=some_shares, epoch=st.integers(0, 5), seed=st.integers(0, 2**32))
def test_an_epoch_sees_each_share_by_its_weight_within_one(
    shares: list[Share], epoch: int, seed: int
):
    found = seen_in(shares, epoch, seed)
    assert found == seen_in(shares, epoch, seed)
    for positions, weight in shares:
        assert abs(sum(at in positions for at in found) - len(positions) * weight) <= 1


def test_one_share_moves_no_draw_of_another():
    """Randomness follows names: with another set beside it, a set gives the same rows."""
    alone = seen_in([Share(range(20), 0.5)], epoch=1, seed=1)
    beside = seen_in([Share(range(20), 0.5), Share(range(20, 50), 0.3)], epoch=1, seed=1)
    assert [at for at in beside if at < 20] == alone


def test_half_of_the_rows_are_others_in_the_next_epoch_and_with_another_seed():
    half = [Share(range(40), 0.5)]
    first, second = (seen_in(half, epoch, 1) for epoch in (0, 1))
    assert sorted(first + second) == list(range(40))
    assert seen_in(half, 0, 2) != first
