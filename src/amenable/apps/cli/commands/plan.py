"""amenable plan: what the loop costs on this machine, before it begins."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from amenable.apps.cli.options import DEFAULT_WORKSPACE, JsonFlag, NoDefault, WorkspaceFolder
from amenable.apps.cli.out import Out
from amenable.apps.cli.places import needs_training_packages, opened
from amenable.apps.web import words

if TYPE_CHECKING:
    from amenable.pipeline.fitting import Fitted
    from amenable.pipeline.plan import Plan
    from amenable.store.workspace import Workspace

STAGES = ("finetune", "sample", "align", "compare")
KNOB_WORDS = {
    "limit": "demonstrations",
    "num_prompts": "prompts",
    "num_text_tokens": "tokens of plain text",
}


@dataclass(frozen=True, kw_only=True)
class PlanArguments:
    model: tyro.conf.Positional[str]
    """A known model (gemma-3-270m), a model of the library, a folder or a hub id."""
    minutes: Annotated[float | None, NoDefault] = None
    """Also say which knobs fit the whole loop into so many minutes."""
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE
    json: JsonFlag = False


def run(arguments: PlanArguments, out: Out) -> dict[str, Any]:
    needs_training_packages()
    from amenable.pipeline.plan import make_plan

    with opened(arguments.workspace) as workspace:
        out.say("Probing this machine …", style="quiet")
        plan = make_plan(workspace, arguments.model)
        fitted = None
        if arguments.minutes is not None:
            fitted = fitted_to(workspace, plan, arguments.minutes)
    advice = gpu_advice(plan.machine.gpu, is_used=plan.machine.gpu_is_used)
    _say(out, plan, advice)
    found = plan.to_json() | {
        "total_seconds": plan.total_seconds,
        "fits": plan.fits,
        "advice": advice,
    }
    if fitted is not None:
        out.say(fitted_words(fitted))
        found["fitted"] = {
            "minutes": arguments.minutes,
            "fits": fitted.fits,
            "knobs": {stage: dict(knobs) for stage, knobs in fitted.knobs.items()},
            "seconds": asdict(fitted.costs),
        }
    return found


def fitted_to(
    workspace: "Workspace", plan: "Plan", minutes: float, *, num_drawings: int = 1
) -> "Fitted":
    """The knobs that make the planned work fit."""
    from amenable.pipeline.fitting import COMPARISONS, Costs, fit, whole_of

    costs = Costs(
        finetune=plan.finetune.seconds,
        sample=num_drawings * plan.sample.seconds,
        align=num_drawings * plan.align.seconds,
        compare=COMPARISONS * plan.compare.seconds,
    )
    with workspace.database.read() as session:
        return fit(costs, minutes, whole_of(session))


def fitted_words(fitted: "Fitted") -> str:
    if not fitted.knobs:
        return f"The whole work fits: {words.about(fitted.costs.total)}."
    knobs = "; ".join(f"{stage}: {_knobs(each)}" for stage, each in fitted.knobs.items())
    took = words.about(fitted.costs.total)
    if fitted.fits:
        return f"To fit ({took}): {knobs}. amenable start --minutes does that."
    return f"The least useful work takes longer, {took}: {knobs}."


def _knobs(knobs: Mapping[str, int]) -> str:
    return ", ".join(f"{value:,} {KNOB_WORDS.get(name, name)}" for name, value in knobs.items())


def gpu_advice(gpu: str | None, *, is_used: bool) -> str | None:
    """One line if a GPU stands idle because this build of torch cannot use it."""
    if gpu is None or is_used:
        return None
    return (
        f"A GPU stands idle ({gpu}): this torch is built for the CPU. Its fix: rm -r .venv "
        "&& make env TORCH_INDEX=URL, with the URL that pytorch.org/get-started/locally names."
    )


def too_little(plan: "Plan") -> str:
    said = "It does not fit: this machine has too little memory."
    if not plan.qlora_fits:
        return said
    size = words.size(plan.qlora_bytes)
    return f"{said} Finetuning alone would, with the layers in 4 bits: --method qlora ({size})."


def _say(out: Out, plan: "Plan", advice: str | None) -> None:
    machine = plan.machine
    out.say(
        f"{plan.model} on {machine.cores} cores with {words.size(machine.memory_bytes)} of memory "
        f"({machine.gflops:.0f} GFLOP/s in {machine.dtype})"
    )
    rows = [
        (words.STAGE_TITLES[stage], f"{each.seconds / 60:.1f}", words.size(each.memory_bytes))
        for stage, each in ((stage, getattr(plan, stage)) for stage in STAGES)
    ]
    out.table(("Stage", " Minutes", " Memory"), rows)
    out.say(f"All together {words.about(plan.total_seconds)}, estimated.")
    download = words.size(plan.download_bytes) if plan.download_bytes else "nothing"
    out.say(f"To download: {download}.")
    if plan.fits:
        out.say("It fits this machine.", style="instruct")
    else:
        out.say(too_little(plan), style="wrong")
    if advice:
        out.say(advice, style="base")
