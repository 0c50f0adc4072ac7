"""Draws against the probabilities they should have."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from amenable.generation.sampling import next_token, uniform
from amenable.records.sample import SamplingSettings

# Probabilities 0.4, 0.3, 0.2, 0.1, in an order that is not sorted.
LOGITS = torch.tensor([0.2, 0.4, 0.1, 0.3]).log()


def draws(settings: SamplingSettings, num: int, logits: torch.Tensor = LOGITS) -> list[int]:
    return [next_token(logits, settings, seed=seed, position=0) for seed in range(num)]


def expect(settings: SamplingSettings, probabilities: list[float], num: int = 4000) -> None:
    """Chi-square at 1 in 10,000; the seeds are fixed, so it passes always or never."""
    counts = torch.tensor(draws(settings, num)).bincount(minlength=4).tolist()
    possible = [at for at, p in enumerate(probabilities) if p > 0]
    assert sum(counts[at] for at in possible) == num
    observed = [counts[at] for at in possible]
    expected = [num * probabilities[at] for at in possible]
    assert len(possible) == 1 or chisquare(observed, expected).pvalue > 1e-4


def test_greedy_takes_the_likeliest():
    assert draws(SamplingSettings(temperature=0), 3) == [1, 1, 1]


def test_temperature_1_draws_from_the_softmax():
    expect(SamplingSettings(temperature=1.0), [0.2, 0.4, 0.1, 0.3])


def test_temperature_half_squares_the_odds():
    # Squares 0.04, 0.16, 0.01, 0.09 add up to 0.3.
    expect(SamplingSettings(temperature=0.5), [0.04 / 0.3, 0.16 / 0.3, 0.01 / 0.3, 0.09 / 0.3])


@pytest.mark.parametrize(
    ("top_p", "expected"),
    [
        (0.3, [0, 1, 0, 0]),  # the first reaches it alone
        (0.5, [0, 4 / 7, 0, 3 / 7]),  # 0.4 is not enough, 0.7 is
        (0.8, [2 / 9, 4 / 9, 0, 3 / 9]),
        (0.95, [0.2, 0.4, 0.1, 0.3]),
        (1.0, [0.2, 0.4, 0.1, 0.3]),
    ],
)
def test_top_p_keeps_the_fewest_that_reach_it(top_p: float, expected: list[float]):
    expect(SamplingSettings(temperature=1.0, top_p=top_p), expected)


@pytest.mark.parametrize(
    ("top_k", "expected"),
    [(1, [0, 1, 0, 0]), (2, [0, 4 / 7, 0, 3 / 7]), (9, [0.2, 0.4, 0.1, 0.3])],
)
def test_top_k_keeps_k(top_k: int, expected: list[float]):
    expect(SamplingSettings(temperature=1.0, top_k=top_k), expected)


def test_top_p_counts_within_what_top_k_left():
    # Of 0.4, 0.3, 0.2 (0.9 together), 0.75 * 0.9 = 0.675 is reached by the first two.
    expect(SamplingSettings(temperature=1.0, top_k=3, top_p=0.75), [0, 4 / 7, 0, 3 / 7])


def test_a_flat_vocabulary_needs_more_than_the_first_candidates():
    """2,000 alike: half of the probability is 1,000 tokens, more than are sorted at first."""
    found = draws(SamplingSettings(temperature=1.0, top_p=0.5), 3000, torch.zeros(2000))
    assert len(set(found)) > 900  # of 1,000, each missed with e^-3
    assert len(set(found)) <= 1000


def test_a_token_without_probability_is_never_drawn():
    logits = torch.tensor([float("-inf"), 0.0, float("-inf")])
    assert set(draws(SamplingSettings(temperature=1.0), 50, logits)) == {1}


def test_small_tails_of_a_large_vocabulary_are_drawn_as_often_as_they_should():
    """One token has half, 262,143 share the rest: a running fp32 sum would lose them."""
    logits = torch.full((262_144,), -12.4766)  # e^-12.4766 * 262,143 is 1.0
    logits[0] = 0.0
    num_first = draws(SamplingSettings(temperature=1.0), 400, logits).count(0)
    assert 150 < num_first < 250  # five standard deviations around 200


@settings(deadline=None)  # machines are shared
@given(seed=st.integers(0, 2**32 - 1), position=st.integers(0, 10_000))
def test_the_uniform_lies_in_its_range(seed: int, position: int):
    assert 0 <= uniform(seed, position) < 1


def test_positions_of_one_seed_are_draws_of_their_own():
    counts = torch.tensor([int(10 * uniform(1, at)) for at in range(5000)]).bincount()
    assert chisquare(counts.tolist()).pvalue > 1e-4
