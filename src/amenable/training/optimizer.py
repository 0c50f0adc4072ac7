"""AdamW on fp32 master weights, under a model that computes in a shorter precision."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple, Self, cast

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from amenable.models.policy import Extent, Policy
from amenable.records.errors import ModelError
from amenable.training.halves import halve, joined

BETAS, EPSILON = (0.9, 0.95), 1e-8
STATE_LAYOUT = "halves"  # what a checkpoint of another layout holds cannot be gone on from
NUMBERS_AT_ONCE = 1 << 19
"""Masters and gradients in fp32 beside what is kept; more would not stay in the cache."""


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


class _State(NamedTuple):
    """What AdamW keeps of a tensor: how often it was updated, and its two moments in fp32."""

    step: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor

    @classmethod
    def beginning(cls, parameter: Tensor) -> Self:
        step = torch.zeros((), device=parameter.device)
        zeros = partial(torch.zeros_like, parameter, dtype=torch.float32)
        return cls(step, zeros(), zeros())


class _Block(NamedTuple):
    """Neighbouring numbers of one trained tensor, all views but the gradient."""

    upper: Tensor
    lower: Tensor | None
    gradient: Tensor
    state: _State

    @property
    def master(self) -> Tensor:
        """fp32: a copy, or the weights themselves where those are in fp32."""
        return self.upper if self.lower is None else joined(self.upper, self.lower)

    def keep(self, master: Tensor) -> None:
        if self.lower is not None:
            halve(master, self.upper, self.lower)


class MasterWeights:
    """The trained tensors to fp32, their gradients summed in fp32, and AdamW's two moments.

    A model in bf16 would round small updates away, and small gradients when they are added up.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], weight_decay: float) -> None:
        self._parameters = dict(parameters)
        self._weight_decay = weight_decay
        self._lower = {
            name: torch.zeros_like(parameter, dtype=torch.int16)
            for name, parameter in self._parameters.items()
            if parameter.dtype == torch.bfloat16
        }
        for name, parameter in self._parameters.items():
            parameter.requires_grad_(True)  # noqa: FBT003
            parameter.register_post_accumulate_grad_hook(partial(self._collect, name))
        self.sums: dict[str, Tensor] = {}
        """The gradients of this step so far; what has had none is not in it."""
        self._lasting: dict[str, Tensor] = {}
        self._states: dict[str, _State] = {}

    @classmethod
    def of(cls, policy: Policy, name: str, extent: Extent, weight_decay: float) -> Self:
        """All that is trained of a policy; a whole vocabulary brings its gradients by itself."""
        weights = cls(policy.trained_parameters(name, extent), weight_decay)
        if extent == "full":
            policy.vocabulary.collect_into(weights.lasting_sums(policy.vocabulary.parameters()))
        return weights

    @property
    def num_trained(self) -> int:
        return sum(parameter.numel() for parameter in self._parameters.values())

    def lasting_sums(self, names: Iterable[str]) -> dict[str, Tensor]:
        """For gradients that autograd does not bring: the same tensors from step to step."""
        self._lasting = {
            name: torch.zeros_like(self._parameters[name], dtype=torch.float32) for name in names
        }
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
        # What AdamW divides gradients by while it reads them: no pass of its own.
        is_long = grad_norm > max_grad_norm
        scale = torch.tensor(grad_norm / max_grad_norm) if is_long else None
        with torch.no_grad():
            for blocks in self._portions():
                self._update(blocks, learning_rate, scale)
        for name in self.sums:
            self._states[name].step.add_(1)
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

    def _portions(self) -> Iterator[list[_Block]]:
        """What has a gradient, some numbers at a time."""
        portion: list[_Block] = []
        num_numbers = 0
        for block in self._blocks():
            portion.append(block)
            num_numbers += block.gradient.numel()
            if num_numbers >= NUMBERS_AT_ONCE:
                yield portion
                portion, num_numbers = [], 0
        if portion:
            yield portion

    def _blocks(self) -> Iterator[_Block]:
        for name, total in self.sums.items():
            parameter, lower = self._parameters[name], self._lower.get(name)
            if name not in self._states:
                self._states[name] = _State.beginning(parameter)
            state = self._states[name]
            for start in range(0, total.numel(), NUMBERS_AT_ONCE):
                here = slice(start, start + NUMBERS_AT_ONCE)
                yield _Block(
                    parameter.view(-1)[here],
                    None if lower is None else lower.view(-1)[here],
                    total.reshape(-1)[here],
                    _State(
                        state.step.clone(),
                        state.exp_avg.view(-1)[here],
                        state.exp_avg_sq.view(-1)[here],
                    ),
                )

    def _update(self, blocks: Sequence[_Block], learning_rate: float, scale: Tensor | None) -> None:
        masters = [block.master for block in blocks]
        adamw(
            masters,
            [block.gradient.float() for block in blocks],
            [block.state.exp_avg for block in blocks],
            [block.state.exp_avg_sq for block in blocks],
            [],
            [block.state.step for block in blocks],
            fused=True,
            grad_scale=scale,
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=learning_rate,
            weight_decay=self._weight_decay,
            eps=EPSILON,
            maximize=False,
        )
        for block, master in zip(blocks, masters, strict=True):
            block.keep(master)

    def state(self) -> dict[str, Tensor]:
        """Everything to go on from, by name."""
        tensors = {f"weight/{name}": each.detach() for name, each in self._parameters.items()}
        tensors |= {f"lower/{name}": each for name, each in self._lower.items()}
        for name, state in self._states.items():
            tensors |= {f"{key}/{name}": each for key, each in state._asdict().items()}
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        self._states = {
            name: _State.beginning(parameter)
            for name, parameter in self._parameters.items()
            if f"step/{name}" in tensors
        }
        for name, tensor in self.state().items():
            tensor.copy_(tensors[name])
