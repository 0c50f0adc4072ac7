"""How sure we are of a share or a mean: numbers in, an interval out."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

NUM_DRAWS = 10_000
DRAWS_AT_ONCE = 1_000
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate with the ends between which the truth lies in `level` of such cases."""

    estimate: float
    low: float
    high: float
    n: int
    """How many independent observations it rests on."""
    level: float = 0.95

    def excludes(self, value: float) -> bool:
        """Whether this value would be a surprise.

        >>> Interval(estimate=0.7, low=0.55, high=0.82, n=40).excludes(0.5)
        True
        """
        return not self.low <= value <= self.high


def wilson(successes: float, trials: int, *, level: float = 0.95) -> Interval:
    """A share of yes and no; honest for few trials and near 0 and 1, where the usual one is not.

    Wilson (1927): the shares p for which the observed one is no surprise under p. A tie may count
    as half a success: marks between 0 and 1 vary less than yes and no, so the interval is wide
    enough for them.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} of {trials} is no share")
    _check_level(level)
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = successes / trials
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    half /= 1 + z * z / trials
    # Exactly 0 or 1 at the ends, which rounding would miss by the last bit.
    low = 0.0 if successes == 0 else middle - half
    high = 1.0 if successes == trials else middle + half
    return Interval(estimate=share, low=low, high=high, n=trials, level=level)


def bootstrap_mean(
    values: Sequence[float],
    *,
    seed: int,
    clusters: Sequence[Hashable] | None = None,
    level: float = 0.95,
    num_draws: int = NUM_DRAWS,
) -> Interval:
    """A mean, by drawing the values again and again; the same seed gives the same interval.

    `clusters` names for each value what it shares with others (its prompt): those are drawn
    together, since they are not independent. Percentile interval. One value alone says nothing
    about spread: its interval is endless.
    """
    _check_level(level)
    sums, counts = cluster_sums(values, clusters)
    estimate = float(sums.sum() / counts.sum())
    if len(sums) == 1:
        return Interval(estimate=estimate, low=-math.inf, high=math.inf, n=1, level=level)
    low, high = percentile_ends(draw_means(sums, counts, seed=seed, num_draws=num_draws), level)
    return Interval(estimate=estimate, low=low, high=high, n=len(sums), level=level)


def cluster_sums(
    values: Sequence[float], clusters: Sequence[Hashable] | None
) -> tuple[Floats, Floats]:
    """Sum and count of the values of each cluster, in the order the clusters first appear."""
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0 or not np.isfinite(array).all():
        raise ValueError("a mean needs values, all of them finite")
    if clusters is None:
        return array, np.ones_like(array)
    if len(clusters) != len(values):
        raise ValueError(f"{len(values)} values cannot have {len(clusters)} clusters' names")
    place = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
    index = np.array([place[name] for name in clusters])
    sums, counts = np.bincount(index, array), np.bincount(index)
    return sums.astype(np.float64), counts.astype(np.float64)


def draw_means(sums: Floats, counts: Floats, *, seed: int, num_draws: int) -> Floats:
    """Means of `num_draws` draws of as many clusters as there are, with repeats."""
    generator = np.random.default_rng(seed)
    num_clusters = len(sums)
    means: list[Floats] = []
    for first in range(0, num_draws, DRAWS_AT_ONCE):
        size = (min(DRAWS_AT_ONCE, num_draws - first), num_clusters)
        drawn = generator.integers(num_clusters, size=size)
        means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    return np.concatenate(means)


def percentile_ends(draws: Floats, level: float) -> tuple[float, float]:
    low, high = np.quantile(draws, [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"a level of {level} is not between 0 and 1")
