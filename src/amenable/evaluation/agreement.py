"""How often scores agree with people's choices, how sure they are of it, and what length gets."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from statistics import fmean
from typing import Literal, NamedTuple

from pydantic import TypeAdapter, ValidationError

from amenable.records.errors import DataError
from amenable.records.measurement import Measured
from amenable.stats.intervals import wilson

NUM_BINS = 10
Length = Literal["longer", "shorter"]


class Scored(NamedTuple):
    """A choice between two replies."""

    gaps: tuple[float, ...]
    """By how much each head scores the chosen reply higher."""
    longer: int
    """By how many tokens the chosen reply is longer."""

    @property
    def gap(self) -> float:
        return fmean(self.gaps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Choices of which it was about equally sure: a half is a guess."""

    low: float
    high: float
    num: int
    predicted: float | None
    """How likely its favourites were, by itself, to be the chosen ones; the mean."""
    right: float | None
    """The share of them that was chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What scores say of choices that nothing was learned from, with 95 % intervals."""

    num: int
    accuracy: Measured
    longer_wins: Measured
    """How often the longer reply was chosen."""
    length: Length
    """Which of the two was chosen more often where it learned."""
    by_length: Measured
    """How often whoever goes by that alone is right."""
    calibration_error: float
    """How far shares and predictions are apart, over all bins."""
    bins: tuple[Bin, ...]
    disagreement: float | None
    """The share of heads that favour another reply than their mean; None for one head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardResult:
    """What training a reward model leaves behind."""

    held_out: Agreement
    num_prompts_held_out: int
    num_learned: int
    """Choices that it learned from."""
    learned_accuracy: Measured
    """On these: what is higher than on those held out was learned by heart."""
    num_both_bad: int
    """Pairs that teach no order."""
    num_left_out: int
    """Pairs whose replies do not differ, or have no room, within the longest that is read."""
    is_simulated: bool
    """Whether simulated judges chose."""
    num_cut: int = 0
    """Replies that lost their end."""


_RESULT = TypeAdapter(RewardResult)


def to_json(result: RewardResult) -> bytes:
    return _RESULT.dump_json(result, indent=1) + b"\n"


def from_json(data: bytes) -> RewardResult:
    try:
        return _RESULT.validate_json(data, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DataError(
            f"This is no result of a reward model: at {place or 'its start'}, {first['msg']}. "
            "Train it again."
        ) from error


def agreement(held_out: Sequence[Scored], learned: Sequence[Scored]) -> Agreement:
    """`learned` decides nothing but whether longer or shorter replies are the better guess."""
    longer = [_right(each.longer) for each in held_out]
    is_longer = fmean(_right(each.longer) for each in learned) >= 0.5
    bins = _bins(held_out)
    return Agreement(
        num=len(held_out),
        accuracy=accuracy(held_out),
        longer_wins=_share(longer),
        length="longer" if is_longer else "shorter",
        by_length=_share(longer if is_longer else [1 - each for each in longer]),
        calibration_error=_calibration_error(bins),
        bins=bins,
        disagreement=_disagreement(held_out),
    )


def accuracy(scored: Sequence[Scored]) -> Measured:
    """How often the chosen reply has the higher mean score; equal scores are half right."""
    return _share([_right(each.gap) for each in scored])


def _right(difference: float) -> float:
    return 0.5 if difference == 0 else float(difference > 0)


def _share(marks: Sequence[float]) -> Measured:
    found = wilson(sum(marks), len(marks))
    return Measured(value=found.estimate, low=found.low, high=found.high)


def _bins(scored: Sequence[Scored]) -> tuple[Bin, ...]:
    """By the predicted chance of the favoured reply, which is a half at least."""
    width = 0.5 / NUM_BINS
    filled: list[list[Scored]] = [[] for _ in range(NUM_BINS)]
    for each in scored:
        filled[min(NUM_BINS - 1, int((_chance(each) - 0.5) / width))].append(each)
    return tuple(
        Bin(
            low=round(0.5 + at * width, 2),
            high=round(0.5 + (at + 1) * width, 2),
            num=len(found),
            predicted=fmean(map(_chance, found)) if found else None,
            right=fmean(_right(each.gap) for each in found) if found else None,
        )
        for at, found in enumerate(filled)
    )


def _chance(scored: Scored) -> float:
    """That the favoured reply is chosen (Bradley and Terry 1952)."""
    return 1 / (1 + exp(-abs(scored.gap)))


def _calibration_error(bins: Sequence[Bin]) -> float:
    """Naeini et al. 2015: the gaps of the bins, each as heavy as its number of choices."""
    gaps = [
        each.num * abs(each.predicted - each.right)
        for each in bins
        if each.predicted is not None and each.right is not None
    ]
    return sum(gaps) / sum(each.num for each in bins)


def _disagreement(scored: Sequence[Scored]) -> float | None:
    if len(scored[0].gaps) == 1:
        return None
    return fmean(fmean(float(gap * each.gap < 0) for gap in each.gaps) for each in scored)
