"""Intervals against hand-worked values, an independent implementation, and their own promise."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from amenable.stats.intervals import Interval, bootstrap_mean, wilson


def test_wilson_is_worked_by_hand():
    # z = 1.96, z² = 3.8415: (10 + 1.9207) / 15.8415 ± 1.96 √(10·2/12 + 0.9604) / 15.8415
    interval = wilson(10, 12)

    assert interval.estimate == pytest.approx(10 / 12)
    assert interval.low == pytest.approx(
        (11.9207 - 1.95996 * math.sqrt(2.62704)) / 15.8415, abs=1e-4
    )
    assert interval.high == pytest.approx(
        (11.9207 + 1.95996 * math.sqrt(2.62704)) / 15.8415, abs=1e-4
    )
    assert interval.n == 12


@given(
    trials=st.integers(1, 400),
    share=st.floats(0, 1),
    level=st.sampled_from([0.8, 0.9, 0.95, 0.99]),
)
def test_wilson_agrees_with_scipy(trials: int, share: float, level: float):
    successes = round(share * trials)
    ours = wilson(successes, trials, level=level)
    theirs = binomtest(successes, trials).proportion_ci(level, method="wilson")

    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert 0 <= ours.low <= ours.estimate <= ours.high <= 1


@pytest.mark.parametrize("truth", [0.05, 0.3, 0.5, 0.9])
def test_wilson_covers_the_truth_about_as_often_as_it_says(truth: float):
    trials = 60
    outcomes = [wilson(successes, trials) for successes in range(trials + 1)]
    covered = sum(
        binom.pmf(successes, trials, truth)
        for successes, interval in enumerate(outcomes)
        if not interval.excludes(truth)
    )

    assert 0.92 < covered < 0.99


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (-1, 5), (6, 5)])
def test_what_is_no_share_is_refused(successes: int, trials: int):
    with pytest.raises(ValueError, match="no share"):
        wilson(successes, trials)


@pytest.mark.parametrize("level", [0.0, 1.0, 95])
def test_a_level_lies_between_nothing_and_certainty(level: float):
    with pytest.raises(ValueError, match="level"):
        wilson(1, 2, level=level)
    with pytest.raises(ValueError, match="level"):
        bootstrap_mean([1.0, 2.0], seed=0, level=level)


def test_a_mean_by_bootstrap_agrees_with_the_normal_interval_on_many_values():
    values = np.random.default_rng(5).normal(10, 2, size=400)
    interval = bootstrap_mean(list(values), seed=1)
    half = 1.96 * values.std() / math.sqrt(400)

    assert interval.estimate == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.02)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.02)


def test_the_same_seed_gives_the_same_interval_and_another_a_similar_one():
    values = [0.1, 0.9, 0.4, 0.4, 0.7, 0.2, 0.8]

    assert bootstrap_mean(values, seed=1) == bootstrap_mean(values, seed=1)
    other = bootstrap_mean(values, seed=2)
    assert other != bootstrap_mean(values, seed=1)
    assert other.low == pytest.approx(bootstrap_mean(values, seed=1).low, abs=0.02)


def test_replies_to_one_prompt_do_not_count_as_many_prompts():
    """Each value ten times over says no more than once: only the clusters tell that."""
    values = [0.0, 1.0, 0.2, 0.9, 0.4, 0.3]
    many = [value for value in values for _ in range(10)]
    prompts = [number for number in range(6) for _ in range(10)]

    naive = bootstrap_mean(many, seed=1)
    clustered = bootstrap_mean(many, seed=1, clusters=prompts)
    once = bootstrap_mean(values, seed=1)

    assert naive.high - naive.low < 0.5 * (clustered.high - clustered.low)
    assert (clustered.low, clustered.high) == pytest.approx((once.low, once.high))
    assert (naive.n, clustered.n) == (60, 6)


def test_larger_clusters_weigh_more():
    assert bootstrap_mean([1.0, 1.0, 1.0, 5.0], seed=0, clusters="aaab").estimate == 2.0


def test_one_value_alone_says_nothing_about_spread():
    interval = bootstrap_mean([3.0], seed=0)

    assert (interval.estimate, interval.low, interval.high) == (3.0, -math.inf, math.inf)
    assert not interval.excludes(1000)


def test_equal_values_leave_no_doubt():
    assert bootstrap_mean([2.0] * 5, seed=0) == Interval(estimate=2.0, low=2.0, high=2.0, n=5)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_a_mean_needs_finite_values(values: list[float]):
    with pytest.raises(ValueError, match="finite"):
        bootstrap_mean(values, seed=0)


def test_every_value_needs_a_cluster():
    with pytest.raises(ValueError, match="clusters"):
        bootstrap_mean([1.0, 2.0], seed=0, clusters=["a"])
