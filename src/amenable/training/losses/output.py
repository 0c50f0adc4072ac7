"""What every loss returns: a total ready for backward, and named sums with their counts."""

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Tally:
    """A sum and over how many things it was taken; the mean is their ratio."""

    total: Tensor
    count: int


@dataclass(frozen=True, slots=True)
class LossOutput:
    """`total` is already divided by the counts of the whole optimizer step.

    Gradients of terms with different denominators cannot be divided apart once they are mixed, so
    each term is divided before backward.
    """

    total: Tensor
    tallies: dict[str, Tally] = field(default_factory=dict[str, Tally])
