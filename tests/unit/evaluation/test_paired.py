"""Values and paired differences: hand-worked tables, and laws."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amenable.evaluation.contrasts import Contrast
from amenable.evaluation.paired import (
    Table,
    adjusted,
    mean_difference,
    measured_mean,
    measured_share,
    paired_share_interval,
    share_difference,
)
from amenable.records.measurement import Difference

NEW_AGAINST_OLD = Contrast("new", "old")
YES_NO = st.dictionaries(st.text("abc", min_size=1, max_size=4), st.sampled_from([0.0, 1.0]))


def keyed(*values: float) -> dict[str, float]:
    return {f"p{at:03}": value for at, value in enumerate(values)}


def test_a_difference_of_shares_by_hand():
    # Ten prompts: both right on 2, only the new on 5, only the old on 1, neither on 2.
    new = keyed(1, 1, 1, 1, 1, 1, 1, 0, 0, 0)
    old = keyed(1, 1, 0, 0, 0, 0, 0, 1, 0, 0)

    found = share_difference(NEW_AGAINST_OLD, new, old)

    assert found.value == pytest.approx(0.4)  # 7/10 - 3/10
    # Exact McNemar: 5 of 6 differing prompts; 2 * (C(6,5) + C(6,6)) / 2**6 = 2 * 7 / 64.
    assert found.p == pytest.approx(14 / 64)
    assert found.low < 0.4 < found.high


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        # Newcombe 1998, table II: intervals of his method 10.
        (Table(36, 12, 2, 0), 0.0569, 0.3404),
        # No prompt where they differ: without correlation the ends are Wilson's, added in squares.
        (Table(0, 0, 0, 1), -0.7935, 0.7935),
    ],
)
def test_paired_interval_of_shares(table: Table, low: float, high: float):
    assert paired_share_interval(table) == pytest.approx((low, high), abs=1e-4)


@settings(deadline=None)
@given(YES_NO.filter(bool))
def test_a_model_against_itself_differs_by_nothing(marks: dict[str, float]):
    found = share_difference(NEW_AGAINST_OLD, marks, marks)

    assert (found.value, found.p) == (0, 1)
    assert found.low <= 0 <= found.high
    assert found.could_be_chance


@settings(deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=20))
def test_a_model_against_itself_differs_by_nothing_in_numbers_too(values: list[float]):
    marks = keyed(*values)

    found = mean_difference(NEW_AGAINST_OLD, marks, marks, seed=1)

    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_swapping_the_models_mirrors_the_difference(pairs: list[tuple[bool, bool]]):
    new, old = (keyed(*(float(pair[side]) for pair in pairs)) for side in (0, 1))

    there = share_difference(NEW_AGAINST_OLD, new, old)
    back = share_difference(Contrast("old", "new"), old, new)

    assert back.value == pytest.approx(-there.value)
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low))
    assert back.p == pytest.approx(there.p)


@settings(deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_prompts_changes_nothing(lots: Random):
    values = [0.3, 1.0, 0.0, 0.7, 0.7, 0.2]
    marks = keyed(*values)
    shuffled = list(marks.items())
    lots.shuffle(shuffled)

    assert measured_mean(dict(shuffled), seed=3) == measured_mean(marks, seed=3)


def test_a_share_has_wilsons_interval():
    # Wilson for 5 of 10 at 95 %: 0.2366 to 0.7634.
    found = measured_share(keyed(*[1.0] * 5, *[0.0] * 5))

    assert (found.low, found.high) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_p_values_of_a_row_are_adjusted_together():
    raw = [
        Difference(model=name, against="base", value=0.1, low=0.0, high=0.2, p=p)
        for name, p in (("a", 0.01), ("b", 0.04), ("c", 0.03))
    ]

    # Holm: 3 * 0.01; then 2 * 0.03; the last at least as large as the one before.
    assert [each.p for each in adjusted(raw)] == pytest.approx([0.03, 0.06, 0.06])
