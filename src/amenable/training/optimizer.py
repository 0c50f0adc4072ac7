"""AdamW on fp32 master weights, under a model that computes in a shorter precision."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from amenable.models.policy import Extent, Policy
from amenable.records.errors import ModelError

BETAS, EPSILON = (0.9, 0.95), 1e-8


class DivergedError(ModelError):
    """A gradient that is not finite; nothing was updated by it."""

    def __init__(self) -> None:
        super().__init__(
            "Training has diverged: its gradient is not finite. Train anew with a lower "
            "fit.learning-rate."
        )


def learning_rate_at(step: int, num_steps: int, *, peak: float, warmup_share: float) -> float:
    """Linear warm-up, then a cosine down to a tenth of the peak.

    >>> [round(learning_rate_at(s, 10, peak=1.0, warmup_share=0.2), 3) for s in (0, 1, 2, 9)]
    [0.5, 1.0, 1.0, 0.134]
    """
    warmup = max(1, round(num_steps * warmup_share))
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, num_steps - warmup)
    return peak * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * progress)))


class MasterWeights:
    """The trained tensors in fp32, their gradients summed in fp32, and AdamW's two moments.

    A model in bf16 would round small updates away, and small gradients when they are added up.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], weight_decay: float) -> None:
        self._parameters = dict(parameters)
        self.masters = {
            name: nn.Parameter(parameter.detach().float().clone())
            for name, parameter in self._parameters.items()
        }
        self._collected: set[str] = set()
        self._stale: set[str] = set()
        for name, parameter in self._parameters.items():
            parameter.requires_grad_(True)  # noqa: FBT003
            self.masters[name].grad = torch.zeros_like(self.masters[name])
            parameter.register_post_accumulate_grad_hook(partial(self._collect, name))
        self._adamw = torch.optim.AdamW(
            self.masters.values(), betas=BETAS, eps=EPSILON, weight_decay=weight_decay, fused=True
        )

    @classmethod
    def of(cls, policy: Policy, name: str, extent: Extent, weight_decay: float) -> Self:
        """All that is trained of a policy; a whole vocabulary brings its gradients by itself."""
        weights = cls(policy.trained_parameters(name, extent), weight_decay)
        if extent == "full":
            policy.vocabulary.collect_into(
                {path: weights.sums[path] for path in policy.vocabulary.parameters()}
            )
        return weights

    @property
    def num_trained(self) -> int:
        return sum(master.numel() for master in self.masters.values())

    @property
    def sums(self) -> dict[str, Tensor]:
        """The gradients of this step so far; the same tensors from step to step."""
        self._clear_stale()
        return {name: cast("Tensor", master.grad) for name, master in self.masters.items()}

    def _collect(self, name: str, parameter: Tensor) -> None:
        """Add a gradient to its sum as soon as backward has it, and clear it.

        So there is one gradient in the model's precision at a time, and not all of them at once.
        """
        total, gradient = cast("Tensor", self.masters[name].grad), cast("Tensor", parameter.grad)
        if name in self._stale:
            total.copy_(gradient)
            self._stale.remove(name)
        else:
            total.add_(gradient)
        self._collected.add(name)
        parameter.grad = None

    def _forget_sums(self) -> None:
        """Those collected here are written over by the next gradient; others may only be added."""
        for name, master in self.masters.items():
            if name not in self._collected:
                cast("Tensor", master.grad).zero_()
        self._stale, self._collected = self._collected, set()

    def _clear_stale(self) -> None:
        for name in self._stale:
            cast("Tensor", self.masters[name].grad).zero_()
        self._stale.clear()

    def step(self, learning_rate: float, max_grad_norm: float) -> float:
        """One update; gives the length of the gradient before it was shortened."""
        grad_norm = nn.utils.get_total_norm(self.sums.values())
        if not math.isfinite(float(grad_norm)):
            raise DivergedError
        for group in self._adamw.param_groups:
            group["lr"] = learning_rate
        # What AdamW divides gradients by while it reads them: no pass of its own.
        is_long = float(grad_norm) > max_grad_norm
        cast("Any", self._adamw).grad_scale = grad_norm / max_grad_norm if is_long else None
        self._adamw.step()
        self._write_back()
        self._forget_sums()
        return float(grad_norm)

    def _write_back(self) -> None:
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(self.masters[name])

    def state(self) -> dict[str, Tensor]:
        """Everything AdamW needs to go on, by name."""
        tensors: dict[str, Tensor] = {}
        for name, master in self.masters.items():
            tensors[f"weight/{name}"] = master.detach()
            for key, value in self._adamw.state.get(master, {}).items():
                tensors[f"{key}/{name}"] = value
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, master in self.masters.items():
                master.copy_(tensors[f"weight/{name}"])
                state: dict[str, Any] = {
                    key: tensors[f"{key}/{name}"].to(master.device, copy=True)
                    for key in ("step", "exp_avg", "exp_avg_sq")
                    if f"{key}/{name}" in tensors
                }
                if state:
                    self._adamw.state[master] = state
        self._write_back()
