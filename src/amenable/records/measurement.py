"""What was measured on several models, one row a metric, with intervals and paired differences."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Better = Literal["higher", "lower", "neither"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One model's value; `low` and `high` are the ends of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """`model` minus `against` on the same items.

    `p` is two-sided and adjusted for the other differences of its row (Holm); the interval is not.

    >>> Difference(model="B", against="A", value=0.1, low=-0.1, high=0.3, p=0.4).could_be_chance
    True
    """

    model: str
    against: str
    value: float
    low: float
    high: float
    p: float

    @property
    def could_be_chance(self) -> bool:
        return self.p >= 0.05 or self.low <= 0 <= self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One metric over all models that have it; a family's row is named `metric/family`."""

    aspect: str
    metric: str
    unit: str
    n: int
    values: Mapping[str, Measured]
    differences: tuple[Difference, ...]
    better: Better = "higher"
    title: str = ""
    """The metric's name for people."""
    about: str = ""
    """How the number is made, exactly."""
    note: str = ""
    """What a reader must know beside the numbers: who judged, what was left out."""

    def difference(self, model: str, against: str) -> Difference | None:
        return next(
            (each for each in self.differences if (each.model, each.against) == (model, against)),
            None,
        )
