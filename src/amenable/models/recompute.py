"""Layers that keep their input for backward and nothing else, and do their work once more there.

Chen et al. 2016 (arXiv 1604.06174): a third more arithmetic, and the memory of one layer's work
instead of all layers'.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer


def recompute_layers(network: nn.Module) -> None:
    """From now on; transformers' own switch would also forget the cache while replies are drawn."""
    for layer in network.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            cast("Any", layer).forward = partial(_keep_input, layer.forward)


def _keep_input(forward: Callable[..., Any], *args: Any, **options: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **options)
    # Nothing is drawn by chance within a layer.
    return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **options)
