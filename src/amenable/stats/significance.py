"""Whether a difference between two models could be chance: paired, prompt by prompt."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

from amenable.records.score import Score
from amenable.stats.intervals import (
    NUM_DRAWS,
    Floats,
    Interval,
    cluster_sums,
    draw_means,
    percentile_ends,
)


class Pair(NamedTuple):
    """What two models scored on the same thing; pairs of one `key` (a prompt) belong together."""

    key: str
    first: float
    second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Second minus first. `p_value`: how often chance alone would show as much, either way."""

    interval: Interval
    p_value: float

    @property
    def could_be_chance(self) -> bool:
        return self.p_value >= 1 - self.interval.level


def paired_bootstrap(
    pairs: Sequence[Pair], *, seed: int, level: float = 0.95, num_draws: int = NUM_DRAWS
) -> Difference:
    """The mean of second minus first, by drawing whole prompts again and again.

    Interval and p value come from the same draws. With one prompt nothing can be told: p is 1.
    """
    sums, counts = cluster_sums([p.second - p.first for p in pairs], [p.key for p in pairs])
    estimate = float(sums.sum() / counts.sum())
    if len(sums) == 1:
        endless = Interval(
            estimate=estimate, low=-float("inf"), high=float("inf"), n=1, level=level
        )
        return Difference(interval=endless, p_value=1.0)
    draws = draw_means(sums, counts, seed=seed, num_draws=num_draws)
    low, high = percentile_ends(draws, level)
    return Difference(
        interval=Interval(estimate=estimate, low=low, high=high, n=len(sums), level=level),
        p_value=two_sided_p(draws, num_differing=int((sums != 0).sum())),
    )


def two_sided_p(draws: Floats, *, num_differing: int) -> float:
    """The share of a difference's draws on the rarer side of zero, doubled.

    Few things draw too surely (three won of three give an interval of no width), so p is never
    below 2^(1 - k) for k things that differ: the least that any exact test of signs can reach.

    >>> two_sided_p(np.full(9999, 0.3), num_differing=3)
    0.25
    """
    # One is added on both sides: no number of draws shows that something never happens.
    tail = 1 + min(int((draws <= 0).sum()), int((draws >= 0).sum()))
    return min(1.0, max(2.0 ** (1 - num_differing), 2 * tail / (len(draws) + 1)))


def pair_scores(first: Iterable[Score], second: Iterable[Score]) -> list[Pair]:
    """Scores of two models on the same prompts, key by key; several of one key are averaged."""
    means = (_means(first), _means(second))
    if means[0].keys() != means[1].keys():
        unmatched = sorted(means[0].keys() ^ means[1].keys())
        raise ValueError(f"{len(unmatched)} prompts have one model's score only: {unmatched[:3]}")
    return [Pair(key, value, means[1][key]) for key, value in means[0].items()]


def mcnemar_exact(*, only_first: int, only_second: int) -> float:
    """The p value of two models' yes and no on the same prompts, from those where they differ.

    >>> round(mcnemar_exact(only_first=1, only_second=8), 4)
    0.0391
    """
    if min(only_first, only_second) < 0:
        raise ValueError("there cannot be fewer than no prompts")
    differing = only_first + only_second
    if differing == 0:
        return 1.0
    return float(stats.binomtest(only_second, differing, 0.5).pvalue)


def sign_test(differences: Sequence[float]) -> float:
    """As McNemar's for numbers: counts which side is ahead; equal ones say nothing."""
    ahead = sum(difference > 0 for difference in differences)
    behind = sum(difference < 0 for difference in differences)
    return mcnemar_exact(only_first=behind, only_second=ahead)


def holm(p_values: Sequence[float]) -> list[float]:
    """P values as they count when several questions are asked at once (Holm 1979), in order.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda number: p_values[number])
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, number in enumerate(order):
        largest = max(largest, min(1.0, p_values[number] * (len(p_values) - rank)))
        adjusted[number] = largest
    return adjusted


def _means(scores: Iterable[Score]) -> Mapping[str, float]:
    by_key: dict[str, list[float]] = {}
    for score in scores:
        by_key.setdefault(score.key, []).append(score.value)
    return {key: float(np.mean(values)) for key, values in by_key.items()}
