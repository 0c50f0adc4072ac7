"""Tests of a difference, against hand-worked values and against chance itself."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amenable.records.score import Score
from amenable.stats.significance import (
    Pair,
    holm,
    mcnemar_exact,
    pair_scores,
    paired_bootstrap,
    sign_test,
)


def pairs(first: list[float], second: list[float]) -> list[Pair]:
    return [Pair(f"p-{n}", a, b) for n, (a, b) in enumerate(zip(first, second, strict=True))]


def scores(values: dict[str, list[float]]) -> list[Score]:
    return [
        Score(metric="checks", key=key, family="", value=value)
        for key, several in values.items()
        for value in several
    ]


def test_a_clear_difference_is_no_chance():
    generator = np.random.default_rng(1)
    first = generator.normal(0.4, 0.1, 100)
    found = paired_bootstrap(
        pairs(list(first), list(first + generator.normal(0.2, 0.1, 100))), seed=2
    )

    assert found.interval.estimate == pytest.approx(0.2, abs=0.03)
    assert found.interval.low > 0.15
    # None of 10,000 draws was below zero: 2 (0 + 1) / 10,001.
    assert found.p_value == pytest.approx(2 / 10_001)
    assert not found.could_be_chance


def test_pairing_sees_what_two_means_would_not():
    """Prompts differ much more than the models do; the same gain on each still shows."""
    first = list(np.linspace(0, 100, 40))
    second = [value + 1 + (0.1 if n % 2 else -0.1) for n, value in enumerate(first)]

    found = paired_bootstrap(pairs(first, second), seed=3)

    assert found.interval.low == pytest.approx(0.97, abs=0.02)
    assert found.interval.high == pytest.approx(1.03, abs=0.02)


def test_no_difference_could_be_chance():
    found = paired_bootstrap(pairs([1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 1.0, 0.0]), seed=4)

    assert found.interval.estimate == 0.0
    assert found.could_be_chance
    assert found.p_value == 1.0


def test_several_replies_to_one_prompt_count_as_one():
    once = pairs([0.0, 0.0, 0.0, 0.0], [1.0, 1.0, -0.5, 0.25])
    often = [pair for pair in once for _ in range(25)]

    assert paired_bootstrap(often, seed=5) == paired_bootstrap(once, seed=5)


def test_interval_and_p_value_never_disagree():
    generator = np.random.default_rng(6)
    for _ in range(40):
        second = list(generator.normal(0.3, 1.0, 30))
        found = paired_bootstrap(pairs([0.0] * 30, second), seed=7, num_draws=2000)
        if abs(found.p_value - 0.05) > 0.002:  # at the very edge rounding decides
            assert found.interval.excludes(0) == (found.p_value < 0.05)


@pytest.mark.parametrize("size", [30, 100])
def test_chance_alone_is_called_a_difference_about_as_rarely_as_promised(size: int):
    generator = np.random.default_rng(8)
    alarms = 0
    for _ in range(300):
        second = list(generator.normal(0.0, 1.0, size))
        found = paired_bootstrap(pairs([0.0] * size, second), seed=9, num_draws=1000)
        alarms += not found.could_be_chance

    # 5 % of 300 is 15; the percentile interval is a little short with few prompts.
    assert 4 <= alarms <= 30


def test_one_prompt_tells_nothing():
    found = paired_bootstrap(pairs([0.0], [1.0]), seed=1)

    assert found.p_value == 1.0
    assert found.could_be_chance


def test_nothing_to_compare_is_refused():
    with pytest.raises(ValueError, match="needs values"):
        paired_bootstrap([], seed=1)


def test_scores_are_paired_by_prompt_whatever_their_order():
    found = pair_scores(
        scores({"a": [1.0], "b": [0.0, 1.0]}), scores({"b": [1.0], "a": [0.0, 0.5]})
    )

    assert found == [Pair("a", 1.0, 0.25), Pair("b", 0.5, 1.0)]


def test_prompts_that_only_one_model_saw_are_an_error():
    with pytest.raises(ValueError, match=r"2 prompts have one model's score only: \['b', 'c'\]"):
        pair_scores(scores({"a": [1.0], "b": [1.0]}), scores({"a": [1.0], "c": [1.0]}))


@pytest.mark.parametrize(
    ("only_first", "only_second", "expected"),
    [
        (0, 0, 1.0),
        (1, 8, 2 * (1 + 9) / 2**9),
        (0, 5, 2 / 2**5),
        (4, 4, 1.0),
        (3, 0, 2 / 2**3),
    ],
)
def test_mcnemar_is_worked_by_hand(only_first: int, only_second: int, expected: float):
    found = mcnemar_exact(only_first=only_first, only_second=only_second)

    assert found == pytest.approx(expected)


@given(st.integers(0, 200), st.integers(0, 200))
def test_mcnemar_does_not_care_which_model_is_first(one: int, other: int):
    assert mcnemar_exact(only_first=one, only_second=other) == pytest.approx(
        mcnemar_exact(only_first=other, only_second=one)
    )


def test_mcnemar_refuses_less_than_nothing():
    with pytest.raises(ValueError, match="fewer than no"):
        mcnemar_exact(only_first=-1, only_second=2)


def test_the_sign_test_counts_who_is_ahead_and_leaves_out_draws():
    # Five ahead, none behind, three equal: 2 / 2⁵.
    assert sign_test([0.1, 3.0, 0.2, 0.4, 9.0, 0.0, 0.0, 0.0]) == pytest.approx(0.0625)


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_keeps_the_order_and_never_makes_a_question_surer(p_values: list[float]):
    adjusted = holm(p_values)

    assert all(before <= after <= 1 for before, after in zip(p_values, adjusted, strict=True))
    order = sorted(range(len(p_values)), key=lambda n: p_values[n])
    assert [adjusted[n] for n in order] == sorted(adjusted)


def test_few_prompts_are_never_surer_than_their_signs():
    pairs = [Pair(key, 0.0, 1.0) for key in "abc"] + [Pair("d", 1.0, 1.0)]
    assert paired_bootstrap(pairs, seed=1).p_value >= 0.25
