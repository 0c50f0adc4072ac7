"""The offline loop: one method, one state, to the end; logging and saving are the caller's."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from amenable.training.optimizer import (
    STATE_LAYOUT,
    DivergedError,
    MasterWeights,
    learning_rate_at,
)
from amenable.training.state import Progress, load_checkpoint, save_checkpoint
from amenable.training.step import Method, Update

CountsT = TypeVar("CountsT")


class FitKnobs(Protocol):
    """What the loop reads of a stage's config (pipeline/config.py declares it)."""

    @property
    def num_epochs(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def warmup_share(self) -> float: ...
    @property
    def max_grad_norm(self) -> float: ...
    @property
    def checkpoint_seconds(self) -> float: ...


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """Where the state is kept, what it belongs to, and who may ask for a stop."""

    folder: Path
    key: str
    should_stop: Callable[[], bool]


DIVERGED = "diverged.json"
"""Beside the checkpoint: the step that had no finite gradient."""
OnStep = Callable[[Progress, int, dict[str, float]], None]


def fit(
    method: Method[CountsT],
    weights: MasterWeights,
    knobs: FitKnobs,
    keeping: Keeping,
    on_step: OnStep,
) -> Progress:
    """Train to the end, from where a killed run of the same key stood; the end is saved too.

    `on_step(progress, num_steps, metrics)` is called before the first step with no metrics, and
    after every step. When somebody asks for a stop, the state is saved and the loop left early.
    """
    plan = [step for epoch in range(knobs.num_epochs) for step in method.steps(epoch)]
    progress = Progress()
    key = f"{STATE_LAYOUT}, {keeping.key}"
    saved = load_checkpoint(keeping.folder, key)
    if saved is not None:
        progress, tensors = saved
        weights.restore(tensors)
    update = Update(method, weights)
    last_saved = time.monotonic()
    on_step(progress, len(plan), {})
    while progress.step < len(plan):
        began = time.monotonic()
        step = plan[progress.step]
        rate = learning_rate_at(
            progress.step, len(plan), peak=knobs.learning_rate, warmup_share=knobs.warmup_share
        )
        try:
            metrics = update.take(step, rate, knobs.max_grad_norm)
        except DivergedError:
            _keep_for_replay(keeping, progress.step, step)
            raise
        tokens = sum(method.num_tokens(microbatch) for microbatch in step)
        progress = progress.after(tokens=tokens, seconds=time.monotonic() - began)
        on_step(progress, len(plan), metrics)
        stops = keeping.should_stop()
        is_due = time.monotonic() - last_saved > knobs.checkpoint_seconds
        if stops or is_due or progress.step == len(plan):
            save_checkpoint(keeping.folder, progress, weights.state(), key)
            last_saved = time.monotonic()
        if stops:
            break
    return progress


def _keep_for_replay(keeping: Keeping, step: int, examples: Sequence[Sequence[int]]) -> None:
    """Which examples met in it, by their places; the checkpoint before it is finite, and stays."""
    said = {"key": keeping.key, "step": step, "examples": [list(pack) for pack in examples]}
    (keeping.folder.parent / DIVERGED).write_text(json.dumps(said) + "\n", encoding="utf-8")
