"""The loop: how often it says what, when it saves, how it stops and goes on."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import nn

from amenable.pipeline.config import FitConfig
from amenable.training.fit import DIVERGED, Keeping, fit
from amenable.training.losses.output import LossOutput, Tally
from amenable.training.optimizer import STATE_LAYOUT, DivergedError, MasterWeights
from amenable.training.state import Progress, load_checkpoint

NUM_STEPS = 6


@dataclass
class Toy:
    """One weight that is drawn to the example's number; every example is a step."""

    weight: nn.Parameter = field(default_factory=lambda: nn.Parameter(torch.zeros(1)))
    seen: list[int] = field(default_factory=list[int])

    def steps(self, epoch: int) -> list[list[list[int]]]:
        return [[[10 * epoch + at]] for at in range(NUM_STEPS // 2)]

    def counts(self, step: Sequence[Sequence[int]]) -> int:
        return sum(len(microbatch) for microbatch in step)

    def loss(self, microbatch: Sequence[int], counts: int) -> LossOutput:
        self.seen += microbatch
        loss = sum(((self.weight - at) ** 2).sum() for at in microbatch)
        assert isinstance(loss, torch.Tensor)
        return LossOutput(loss / counts, {"loss": Tally(loss.detach(), len(microbatch))})

    def num_tokens(self, microbatch: Sequence[int]) -> int:
        return 100 * len(microbatch)


@dataclass
class Heard:
    steps: list[tuple[Progress, int, dict[str, float]]] = field(default_factory=list)  # pyright: ignore[reportUnknownVariableType]

    def __call__(self, progress: Progress, num_steps: int, metrics: dict[str, float]) -> None:
        self.steps.append((progress, num_steps, metrics))


def run(
    folder: Path, toy: Toy, heard: Heard, *, stop_after: int = 99, save_every: float = 1e9
) -> Progress:
    knobs = FitConfig(num_epochs=2, learning_rate=0.1, checkpoint_seconds=save_every)
    keeping = Keeping(folder=folder, key="k", should_stop=lambda: len(toy.seen) >= stop_after)
    return fit(toy, MasterWeights({"w": toy.weight}, 0.0), knobs, keeping, heard)


def test_it_speaks_before_the_first_step_and_after_each(tmp_path: Path):
    heard = Heard()
    progress = run(tmp_path, Toy(), heard)
    assert [(at.step, num, bool(metrics)) for at, num, metrics in heard.steps] == [
        (step, NUM_STEPS, step > 0) for step in range(NUM_STEPS + 1)
    ]
    assert (progress.step, progress.tokens) == (NUM_STEPS, 100 * NUM_STEPS)
    assert heard.steps[1][2].keys() == {"loss", "grad_norm", "learning_rate"}


class Bursting(Toy):
    """Its fourth step has no finite gradient."""

    def loss(self, microbatch: Sequence[int], counts: int) -> LossOutput:
        output = super().loss(microbatch, counts)
        return LossOutput(output.total * (float("nan") if 10 in microbatch else 1.0))


def test_a_step_without_a_finite_gradient_is_kept_and_the_state_before_it_stays(tmp_path: Path):
    toy = Bursting()
    with pytest.raises(DivergedError):
        run(tmp_path / "checkpoint", toy, Heard(), save_every=0.0)
    said = json.loads((tmp_path / DIVERGED).read_text("utf-8"))
    assert said == {"key": "k", "step": 3, "examples": [[10]]}
    saved = load_checkpoint(tmp_path / "checkpoint", f"{STATE_LAYOUT}, k")
    assert saved is not None
    progress, tensors = saved
    assert progress.step == 3
    assert all(bool(tensor.isfinite().all()) for tensor in tensors.values())
    assert bool(toy.weight.isfinite().all())


class Uneven(Toy):
    """Every step is two examples, then one by itself."""

    def steps(self, epoch: int) -> list[list[list[int]]]:
        return [[[1, 2], [6]]]


def test_metrics_are_means_over_the_whole_step(tmp_path: Path):
    heard = Heard()
    run(tmp_path, Uneven(), heard)
    # The weight is 0: (1 + 4 + 36) / 3; the mean of the two microbatches' means would be 19.25.
    assert heard.steps[1][2]["loss"] == pytest.approx(41 / 3)
    # The slope is -2 times the mean of 1, 2 and 6.
    assert heard.steps[1][2]["grad_norm"] == pytest.approx(6.0)


@pytest.mark.parametrize("stop_after", [1, 3, NUM_STEPS])
def test_a_stop_saves_and_the_next_start_goes_on(tmp_path: Path, stop_after: int):
    unbroken = Toy()
    run(tmp_path / "unbroken", unbroken, Heard())

    stopped, resumed, heard = Toy(), Toy(), Heard()
    assert run(tmp_path / "broken", stopped, Heard(), stop_after=stop_after).step == stop_after
    assert run(tmp_path / "broken", resumed, heard).step == NUM_STEPS
    assert stopped.seen + resumed.seen == unbroken.seen
    assert torch.equal(resumed.weight, unbroken.weight)
    assert heard.steps[0][0].step == stop_after
    assert heard.steps[-1][0].tokens == 100 * NUM_STEPS


def test_time_spent_counts_in_all_lives(tmp_path: Path):
    first = run(tmp_path, Toy(), Heard(), stop_after=3)
    assert run(tmp_path, Toy(), Heard()).seconds > first.seconds > 0


def test_it_saves_as_often_as_asked_and_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    saved: list[int] = []

    def save(_folder: Path, progress: Progress, *_: object) -> None:
        saved.append(progress.step)

    monkeypatch.setattr("amenable.training.fit.save_checkpoint", save)
    run(tmp_path, Toy(), Heard(), save_every=0.0)
    run(tmp_path, Toy(), Heard(), save_every=1e9)
    assert saved == [*range(1, NUM_STEPS + 1), NUM_STEPS]
