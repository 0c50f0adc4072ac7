"""One optimizer update, however its examples are cut into microbatches."""

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from amenable.models.memory import Reserve
from amenable.training.losses.output import LossOutput, Tally
from amenable.training.optimizer import MasterWeights

CountsT = TypeVar("CountsT")


class Method(Protocol[CountsT]):
    """What differs between ways of training: which examples make a step, and their loss."""

    def steps(self, epoch: int) -> list[list[list[int]]]:
        """One epoch: steps of microbatches of example positions, the same for the same seed."""
        ...

    def counts(self, step: Sequence[Sequence[int]]) -> CountsT:
        """What each term of the loss is divided by, over the whole step."""
        ...

    def loss(self, microbatch: Sequence[int], counts: CountsT) -> LossOutput: ...

    def num_tokens(self, microbatch: Sequence[int]) -> int: ...


class Update(Generic[CountsT]):
    """Accumulate over microbatches, one in memory at a time, then update once.

    Every term is divided by its count over the whole step before backward, so the update does not
    depend on how the examples were cut.
    """

    def __init__(self, method: Method[CountsT], weights: MasterWeights) -> None:
        self._method = method
        self._weights = weights
        self._reserve = Reserve()

    def take(
        self, step: Sequence[Sequence[int]], learning_rate: float, max_grad_norm: float
    ) -> dict[str, float]:
        counts = self._method.counts(step)
        sums: dict[str, list[Tally]] = {}
        for microbatch in step:
            output = self._method.loss(microbatch, counts)
            output.total.backward()
            self._reserve.after_batch()
            for name, tally in output.tallies.items():
                sums.setdefault(name, []).append(tally)
        grad_norm = self._weights.step(learning_rate, max_grad_norm)
        means = {
            name: sum(float(each.total) for each in tallies) / sum(each.count for each in tallies)
            for name, tallies in sums.items()
        }
        return {**means, "grad_norm": grad_norm, "learning_rate": learning_rate}
