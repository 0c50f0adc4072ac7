"""fp32 numbers in two halves."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from amenable.training.halves import halve, joined

numbers = st.floats(width=32, min_value=-(2.0**100), max_value=2.0**100, allow_subnormal=False)


def halves(whole: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    upper = torch.empty_like(whole, dtype=torch.bfloat16)
    lower = torch.empty_like(whole, dtype=torch.int16)
    halve(whole, upper, lower)
    return upper, lower


@given(st.lists(numbers, min_size=1, max_size=8))
def test_nothing_is_lost(values: list[float]):
    whole = torch.tensor(values)
    again = joined(*halves(whole))
    assert torch.equal(again.view(torch.int32), whole.view(torch.int32))


@given(st.lists(numbers, min_size=1, max_size=8))
def test_the_upper_half_is_the_nearest(values: list[float]):
    whole = torch.tensor(values)
    upper, lower = halves(whole)
    nearest = whole.bfloat16()
    distance, least = ((each.double() - whole.double()).abs() for each in (upper, nearest))
    assert torch.equal(distance, least)
    is_middle = (lower == 0) | (lower.int().abs() == 1 << 15)
    assert torch.equal(upper[~is_middle], nearest[~is_middle])


@pytest.mark.parametrize(
    ("whole", "upper", "lower"),
    [
        # Around 1 bf16 has steps of 1/128, of which fp32 has 65,536 each.
        (1 + 3 / 128, 1 + 3 / 128, 0),
        (1 + 1 / (128 * 65536), 1.0, 1),
        (1 + 1 / 256, 1 + 1 / 128, -(1 << 15)),  # the middle: away from zero
        (-1 - 1 / 256, -1 - 1 / 128, -(1 << 15)),
        (1 - 1 / (256 * 65536), 1.0, -1),  # below 1 the steps are half as long
    ],
)
def test_by_hand(whole: float, upper: float, lower: int):
    found = halves(torch.tensor([whole]))
    assert [each.item() for each in found] == [upper, lower]
