"""What each stage costs on this machine, as planned for a model; read by pages, without torch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from sqlalchemy.orm import Session

from amenable.pipeline import fitting
from amenable.pipeline.loop import LoopState
from amenable.store import settings

KEY = "plans"
"""Setting: by model and stage, seconds and bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCost:
    """Of the whole work of a stage; a stage of the loop may be fitted to less."""

    seconds: float
    memory_bytes: int


def keep(session: Session, model: str, costs: Mapping[str, StageCost]) -> None:
    """Planning for one model leaves what is known of others."""
    found = {stage: asdict(cost) for stage, cost in costs.items()}
    settings.put(session, KEY, settings.get(session, KEY, {}) | {model: found})


def is_planned(session: Session, model: str) -> bool:
    return model in settings.get(session, KEY, {})


def of_loop(session: Session) -> dict[str, StageCost]:
    """By stage, with the loop's base and the knobs that were kept; none while it is not planned."""
    kept = settings.get(session, KEY, {})
    state = LoopState.of(session)
    planned = next((kept[name] for name in _names_of_base(state) if name in kept), {})
    shares = _shares(session, state) if planned else {}
    return {
        stage: StageCost(
            seconds=cost["seconds"] * shares.get(stage, 1.0), memory_bytes=cost["memory_bytes"]
        )
        for stage, cost in planned.items()
    }


def _names_of_base(state: LoopState) -> list[str]:
    """As the library calls it, and as it was asked for: a folder, a file, a hub id."""
    run = state.step("prepare").run
    return [state.base, *([run.inputs["model"]] if run else [])]


def _shares(session: Session, state: LoopState) -> dict[str, float]:
    """How much of each stage's whole work the loop does."""
    whole = fitting.whole_of(session)

    def share(stage: str, knob: str, most: int) -> float:
        wanted = fitting.kept_knobs(session, stage).get(knob)
        return min(1.0, wanted / most) if wanted and most else 1.0

    drawn = share("sample", "num_prompts", whole.prompts)
    judged = min(1.0, state.judged.done / max(1, whole.prompts))
    return {
        "finetune": share("finetune", "limit", whole.demonstrations),
        "sample": drawn,
        "align": judged or drawn,  # before there are votes: as if all that is drawn were judged
        "compare": share("compare", "num_prompts", whole.evaluation),
    }
