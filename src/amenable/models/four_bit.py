"""Frozen layers in 4 bits: a weight is formed where it is multiplied, and kept nowhere.

QLoRA, Dettmers et al. 2023 (arXiv 2305.14314): a weight is one of sixteen values, placed so that a
normal distribution falls into each alike (NF4), times the largest of its block of 64. Of these
largest ones, 8 bits each are kept, and of every 256 of them one scale (double quantisation).

bitsandbytes quantises and forms the values again, and does nothing else here: its own layer
rearranges the weight in its first reply on a processor, and passes no gradient on after that.
"""

import importlib
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from amenable.records.errors import ModelError

BLOCK = 64
SCALES_BLOCK = 256
BITS_A_WEIGHT = 4 + 8 / BLOCK + 32 / (BLOCK * SCALES_BLOCK)
"""Beside a kilobyte a layer for the values that 8 bits stand for."""


class FourBitLinear(nn.Linear):
    """Takes the place of a frozen layer; `weight` is a new tensor whenever it is asked for."""

    def __init__(self, layer: nn.Linear, device: torch.device) -> None:
        nn.Module.__init__(self)  # not Linear's own, which would make a weight
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.register_parameter("bias", cast("nn.Parameter | None", layer.bias))
        # Rows as long as a block: the processor's kernel takes each row for the start of a block.
        blocks = layer.weight.detach().to(device).reshape(-1, BLOCK)
        self._library: Any = importlib.import_module("bitsandbytes").functional
        self._codes, self._state = self._library.quantize_4bit(
            blocks, blocksize=BLOCK, quant_type="nf4", compress_statistics=True
        )

    @property
    def weight(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        blocks = self._library.dequantize_4bit(self._codes, self._state)
        return blocks.view(self.out_features, self.in_features)

    @property
    def num_weights(self) -> int:
        return self.in_features * self.out_features

    def kept(self) -> dict[str, Tensor]:
        """All that there is of the weight between two uses."""
        scales = self._state.state2
        return {
            "codes": self._codes,
            "scales": self._state.absmax,
            "scales of scales": scales.absmax,
            "mean of scales": self._state.offset,
            "values of codes": self._state.code,
            "values of scales": scales.code,
        }


def four_bit_layers(network: nn.Module) -> Iterator[FourBitLinear]:
    return (module for module in network.modules() if isinstance(module, FourBitLinear))


def put_in_four_bits(network: PreTrainedModel, device: torch.device) -> None:
    """Every linear layer but the head; on `device` no more than one of them is ever whole.

    A layer that does not fill its last block stays as it is.
    """
    head = network.get_output_embeddings()
    # No list of what is to go: it would keep all of it until its end.
    owners = [each for each in network.modules() if not isinstance(each, nn.Linear)]
    for owner in owners:
        for name, layer in list(owner.named_children()):
            if type(layer) is nn.Linear and layer is not head and not layer.weight.numel() % BLOCK:
                setattr(owner, name, FourBitLinear(layer, device))
    if next(four_bit_layers(network), None) is None:
        raise ModelError(
            f"Models of the kind {network.config.model_type!r} have no layers that can be kept in "
            "4 bits here. --method lora trains them."
        )
