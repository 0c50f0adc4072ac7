"""One cell of the table: two warm workers in turns, A B B A, and what of it can be believed."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.training.gate import Gate
from benchmarks.training.probes import Others, Prober
from benchmarks.training.rows import Column
from benchmarks.training.worker import Block, Worker

STEPS_PER_BLOCK = 2
WARM_UP_STEPS = 3
WANTED_PAIRS: dict[Column, int] = {"tuned": 7, "default": 3}
MOST_TRIES = 20
LARGEST_DRIFT = 0.05
LARGEST_LOAD = 0.3
"""Cores kept busy by others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Our block and the peer's, one right after the other."""

    ours: float
    theirs: float
    our_cpu: float
    their_cpu: float
    drift: float
    load: float
    flops: float

    @property
    def ratio(self) -> float:
        return self.theirs / self.ours

    @property
    def counts(self) -> bool:
        """Whether the machine stayed what it was meanwhile."""
        return self.drift <= LARGEST_DRIFT and self.load <= LARGEST_LOAD


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    gate: Gate
    pairs: list[Pair] = field(default_factory=list[Pair])
    """All that were tried."""
    peaks: tuple[int, int] | None = None
    """Bytes above what an empty worker holds, ours and theirs."""
    read_rate: float = 0.0

    @property
    def counted(self) -> list[Pair]:
        return [pair for pair in self.pairs if pair.counts]


def measure(ours: Worker, theirs: Worker, gate: Gate, num_pairs: int) -> Measured:
    """Until so many pairs count. The workers are entered already; the gate is open."""
    ours.take(WARM_UP_STEPS)
    theirs.take(WARM_UP_STEPS)
    prober = Prober()
    pairs: list[Pair] = []
    while len(pairs) < MOST_TRIES and sum(pair.counts for pair in pairs) < num_pairs:
        pairs.append(_pair(ours, theirs, prober, is_ours_first=len(pairs) % 2 == 0))
        found = pairs[-1]
        left_out = f" (left out: drift {found.drift:.0%}, load {found.load:.2f})"
        say(
            f"{found.ours:.2f} s and {found.theirs:.2f} s: {found.ratio:.2f}x"
            f"{'' if found.counts else left_out}"
        )
    return Measured(
        gate=gate,
        pairs=pairs,
        peaks=(_above_empty(ours), _above_empty(theirs)),
        read_rate=prober.read_rate(),
    )


def _pair(ours: Worker, theirs: Worker, prober: Prober, *, is_ours_first: bool) -> Pair:
    blocks: dict[bool, Block] = {}
    loads: list[float] = []
    before = prober.products()
    for is_ours in (is_ours_first, not is_ours_first):
        others = Others()
        block = (ours if is_ours else theirs).take(STEPS_PER_BLOCK)
        loads.append(others.load_beside(block.cpu_seconds))
        blocks[is_ours] = block
    after = prober.products()
    return Pair(
        ours=blocks[True].seconds / STEPS_PER_BLOCK,
        theirs=blocks[False].seconds / STEPS_PER_BLOCK,
        our_cpu=blocks[True].cpu_seconds / STEPS_PER_BLOCK,
        their_cpu=blocks[False].cpu_seconds / STEPS_PER_BLOCK,
        drift=abs(after.seconds / before.seconds - 1),
        load=max(loads),
        flops=(before.flops + after.flops) / 2,
    )


def say(text: str) -> None:
    """Beside the results: what is being done."""
    print(text, file=sys.stderr, flush=True)


def _above_empty(worker: Worker) -> int:
    return worker.peak_bytes - int(worker.about["baseline_bytes"])


def interval(ratios: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """95 % of the medians of as many ratios drawn from these (percentile bootstrap)."""
    draws = np.random.default_rng(seed).choice(ratios, (10_000, len(ratios)))
    low, high = np.quantile(np.median(draws, axis=1), (0.025, 0.975))
    return float(low), float(high)
