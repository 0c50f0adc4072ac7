"""AdamW on fp32 master weights, under a model that computes in a shorter precision."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from amenable.models.policy import Extent, Policy
from amenable.records.errors import ModelError

BETAS, EPSILON = (0.9, 0.95), 1e-8
NUMBERS_AT_ONCE = 1 << 24
"""Gradients in fp32 beside those in the model's precision, in one call of AdamW."""


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
        for name, parameter in self._parameters.items():
            parameter.requires_grad_(True)  # noqa: FBT003
            parameter.register_post_accumulate_grad_hook(partial(self._collect, name))
        self.sums: dict[str, Tensor] = {}
        """The gradients of this step so far; what has had none is not in it."""
        self._lasting: dict[str, Tensor] = {}
        self._adamw = torch.optim.AdamW(
            self.masters.values(), betas=BETAS, eps=EPSILON, weight_decay=weight_decay, fused=True
        )

    @classmethod
    def of(cls, policy: Policy, name: str, extent: Extent, weight_decay: float) -> Self:
        """All that is trained of a policy; a whole vocabulary brings its gradients by itself."""
        weights = cls(policy.trained_parameters(name, extent), weight_decay)
        if extent == "full":
            policy.vocabulary.collect_into(weights.lasting_sums(policy.vocabulary.parameters()))
        return weights

    @property
    def num_trained(self) -> int:
        return sum(master.numel() for master in self.masters.values())

    def lasting_sums(self, names: Iterable[str]) -> dict[str, Tensor]:
        """For gradients that autograd does not bring: the same tensors from step to step."""
        self._lasting = {name: torch.zeros_like(self.masters[name]) for name in names}
        self.forget()
        return self._lasting

    def _collect(self, name: str, parameter: Tensor) -> None:
        """Take a gradient over as soon as backward has it; in fp32 once a second one is added."""
        gradient = cast("Tensor", parameter.grad)
        before = self.sums.get(name)
        self.sums[name] = gradient if before is None else before.float().add_(gradient)
        parameter.grad = None

    def step(self, learning_rate: float, max_grad_norm: float) -> float:
        """One update; gives the length of the gradient before it was shortened."""
        grad_norm = self._grad_norm()
        if not math.isfinite(grad_norm):
            raise DivergedError
        for group in self._adamw.param_groups:
            group["lr"] = learning_rate
        # What AdamW divides gradients by while it reads them: no pass of its own.
        is_long = grad_norm > max_grad_norm
        scale = torch.tensor(grad_norm / max_grad_norm) if is_long else None
        cast("Any", self._adamw).grad_scale = scale
        for names in self._portions():
            self._update(names)
        self.forget()
        return grad_norm

    def forget(self) -> None:
        """Drop the gradients so far."""
        self.sums = dict(self._lasting)
        for total in self._lasting.values():
            total.zero_()

    def _grad_norm(self) -> float:
        norms = [torch.linalg.vector_norm(each.float()) for each in self.sums.values()]
        return float(torch.linalg.vector_norm(torch.stack(norms))) if norms else 0.0

    def _portions(self) -> Iterator[list[str]]:
        """What has a gradient, some tensors at a time."""
        portion: list[str] = []
        num_numbers = 0
        for name, total in list(self.sums.items()):
            portion.append(name)
            num_numbers += total.numel()
            if num_numbers >= NUMBERS_AT_ONCE:
                yield portion
                portion, num_numbers = [], 0
        yield portion

    def _update(self, names: Sequence[str]) -> None:
        for name in names:
            self.masters[name].grad = self.sums.pop(name).float()
        self._adamw.step()  # leaves out what has no gradient
        for name in names:
            self.masters[name].grad = None
        self._write_back(names)

    def _write_back(self, names: Iterable[str]) -> None:
        with torch.no_grad():
            for name in names:
                self._parameters[name].copy_(self.masters[name])

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
        self._write_back(self.masters)
