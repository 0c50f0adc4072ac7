"""fp32 numbers in two halves: the bf16 nearest to each, and the 16 bits that it lacks.

A model's own weights are the upper half of its master weights, which so cost two bytes a number and
not four.
"""

import torch
from torch import Tensor


def joined(upper: Tensor, lower: Tensor) -> Tensor:
    """fp32 from bf16 and int16, bit for bit what was halved."""
    return upper.view(torch.int16).int().bitwise_left_shift_(16).add_(lower).view(torch.float32)


def halve(whole: Tensor, upper: Tensor, lower: Tensor) -> None:
    """Write the halves of a finite fp32 `whole` in their places.

    Rounded half away from zero: where torch rounds half to even, the lower half could not tell
    which of its neighbours a number in the middle was.
    """
    bits = whole.view(torch.int32)
    upper.view(torch.int16).copy_((bits + (1 << 15)).bitwise_right_shift_(16))
    lower.copy_(bits)  # as a signed number: below 0 where the upper half was rounded up
