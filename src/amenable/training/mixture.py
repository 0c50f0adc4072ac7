"""Which examples an epoch sees, where some are to be seen more often than others."""

import random
from collections.abc import Iterator, Sequence
from itertools import count, islice
from typing import NamedTuple

from amenable.records.seeds import seed_for


class Share(NamedTuple):
    """Examples that an epoch sees `weight` times: half of them by 0.5, each of them twice by 2."""

    positions: Sequence[int]
    weight: float


def seen_in(shares: Sequence[Share], epoch: int, seed: int) -> list[int]:
    """Positions in their order, as often as this epoch sees each.

    An epoch goes on in a shuffled pass where the last one stopped. So after any number of epochs
    two examples of a share have been seen equally often, or one of them once more.

    >>> seen_in([Share([3, 4], weight=1.0), Share([7], weight=2.0)], epoch=0, seed=1)
    [3, 4, 7, 7]
    """
    found: list[int] = []
    for number, (positions, weight) in enumerate(shares):
        start, stop = (round(len(positions) * weight * each) for each in (epoch, epoch + 1))
        passes = _passes(positions, seed_for(seed, "share", number))
        found += islice(passes, start, stop)
    return sorted(found)


def _passes(positions: Sequence[int], seed: int) -> Iterator[int]:
    """All of them shuffled, and again and again."""
    for number in count():
        order = list(positions)
        random.Random(seed_for(seed, "pass", number)).shuffle(order)  # noqa: S311
        yield from order
