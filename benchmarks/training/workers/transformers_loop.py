"""A peer whose loop is the transformers Trainer: its own steps, taken only when it is told to."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from gradients import sampled
from protocol import Turns, digest
from safetensors.torch import save_file
from transformers import Trainer, TrainerCallback

Sequences = Callable[[Mapping[str, Any]], list[tuple[list[int], list[bool]]]]


class InTurns(TrainerCallback):
    """Waits before each step for leave, and keeps the first step's gradients."""

    def __init__(self, turns: Turns, gradients: str) -> None:
        self._turns, self._gradients = turns, gradients
        self.loss = 0.0
        self.sequences: list[tuple[list[int], list[bool]]] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._turns.before_step()
        self.loss, self.sequences = 0.0, []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 0:
            named = kwargs["model"].named_parameters()
            found = {name: each.grad for name, each in named if each.grad is not None}
            save_file(sampled(found), self._gradients)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._turns.after_step(self.loss, digest(self.sequences))


def watched(kind: type[Trainer], sequences: Sequences) -> type[Trainer]:
    """The peer's trainer on examples that are tokens already, in their order."""

    class Watched(kind):
        in_turns: InTurns

        def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

        def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            self.in_turns.sequences += sequences(inputs)
            loss = super().training_step(model, inputs, *args, **kwargs)
            self.in_turns.loss += float(loss)
            return loss

    Watched.__name__ = kind.__name__
    return Watched


def real(ids: Any, mask: Any, scored: Any) -> list[tuple[list[int], list[bool]]]:
    """Rows without their padding."""
    return [
        (
            [token for token, is_real in zip(row, kept, strict=True) if is_real],
            [bool(each) for each, is_real in zip(marks, kept, strict=True) if is_real],
        )
        for row, kept, marks in zip(ids.tolist(), mask.tolist(), scored.tolist(), strict=True)
    ]


def laid_end_to_end(ids: Any, positions: Any, scored: Any) -> list[tuple[list[int], list[bool]]]:
    """The sequences of one row without padding; the first token of each is never scored."""
    starts = [at for at, position in enumerate(positions[0].tolist()) if position == 0]
    stops = [*starts[1:], ids.shape[1]]
    return [
        (ids[0, start:stop].tolist(), [False, *scored[0, start + 1 : stop].tolist()])
        for start, stop in zip(starts, stops, strict=True)
    ]
