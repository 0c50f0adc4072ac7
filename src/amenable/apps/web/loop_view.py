"""The loop as the pages show it: headline, steps, numbers in the picture, the one next step."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from amenable.apps.web import queries, words
from amenable.apps.web.pictures import Bar, bar
from amenable.pipeline import loop
from amenable.pipeline.loop import LoopState, StepName, StepStatus
from amenable.reports import numbers
from amenable.store.workspace import Workspace

NAMES: dict[StepName, str] = {
    "prepare": "Fetch",
    "finetune": "Finetune",
    "sample": "Sample",
    "judge": "Judge",
    "improve": "Improve",
    "compare": "Compare",
}
# With the number of the version that is judged, and of the one that comes of it.
RUNNING_HEADLINES: dict[StepName, str] = {
    "prepare": "Fetching a model that only continues text",
    "finetune": "It is learning to answer instead of going on",
    "sample": "Version {parent} is writing replies for you to judge",
    "judge": "Which reply would you rather have got?",
    "improve": "Your votes are becoming version {child}",
    "compare": "Measuring what changed",
}
NEXT_HEADLINES: dict[StepName, str] = {
    "prepare": "Turn a normal language model into one that answers",
    "finetune": "The base model is here",
    "sample": "Your instruct model is here",
    "judge": "Which reply would you rather have got?",
    "improve": "Your votes are enough for version {child}",
    "compare": "Version {child} is here. Is it better?",
}
SECONDS_A_PAIR = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepView:
    name: str
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NextView:
    """The one next useful step; `is_post` when it is done by a button and not by a page."""

    text: str
    link: str
    label: str
    cost: str
    is_post: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemView:
    title: str
    text: str
    run_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopView:
    headline: str
    steps: Sequence[StepView]
    next: NextView
    running: StepName | None
    """The step at work."""
    base: str | None
    parent: str | None
    """The version whose replies are judged in this round; None before it is there."""
    child: str | None
    problem: ProblemView | None
    again: NextView | None
    """Another round, beside reading the report, when this one is closed."""
    state: LoopState


def loop_view(session: Session) -> LoopView:
    state = LoopState.of(session)
    status = {step.name: step.status for step in state.steps}
    running = _first(state, "running")
    return LoopView(
        headline=_headline(state, running),
        steps=[StepView(name=NAMES[step.name], status=step.status) for step in state.steps],
        next=_next(session, state, running),
        running=running,
        base=state.base if status["prepare"] == "done" else None,
        parent=state.parent if state.has_parent else None,
        child=state.child if state.has_child else None,
        problem=_problem(state),
        again=_again(session, state),
        state=state,
    )


def _first(state: LoopState, *statuses: StepStatus) -> StepName | None:
    return next((step.name for step in state.steps if step.status in statuses), None)


def _headline(state: LoopState, running: StepName | None) -> str:
    if state.proof.open:
        return "Two versions, models hidden: which is better?"
    if state.step("judge").status == "next":
        return NEXT_HEADLINES["judge"]
    numbers = {"parent": state.number, "child": state.number + 1}
    if running:
        return RUNNING_HEADLINES[running].format(**numbers)
    at = _first(state, "next", "failed", "waiting")
    if at:
        return NEXT_HEADLINES[at].format(**numbers)
    return "The loop is closed, and the difference is measured"


def _next(session: Session, state: LoopState, running: StepName | None) -> NextView:
    step = state.next_step
    if step.deed in ("judge", "judge_proof"):
        return _judging(state)
    if step.deed == "wait":
        return _waiting(state, running)
    label, link, stages, is_post = {
        "choose": ("Choose a base model", "/models", (), False),
        "draw": ("Draw more replies", "/judge/more", ("sample",), True),
        "improve": ("Improve", "/judge/improve", ("align", "compare"), True),
        "continue": ("Continue", f"/runs/{step.run_id}/continue", (), True),
        "read": ("Read the report", "/report", (), False),
    }[step.deed]
    cost = queries.cost_words(session, *stages)
    return NextView(text=step.sentence, link=link, label=label, cost=cost, is_post=is_post)


def _judging(state: LoopState) -> NextView:
    is_proof = state.next_step.deed == "judge_proof"
    missing = state.proof.open if is_proof else loop.ENOUGH_TO_IMPROVE - state.judged.done
    return NextView(
        text=state.next_step.sentence,
        link="/judge?purpose=proof" if is_proof else "/judge",
        label="Judge",
        cost=words.about(SECONDS_A_PAIR * max(1, missing)) + " of your time",
    )


def _waiting(state: LoopState, running: StepName | None) -> NextView:
    """While it trains there is something better to do than to watch."""
    text, run_id = state.next_step.sentence, state.next_step.run_id
    if running in ("prepare", "finetune") and state.step("prepare").status == "done":
        return NextView(text=text, link="/chat", label="Chat with the base model", cost="")
    if running and state.has_parent:
        return NextView(text=text, link="/chat", label="Ask both in Chat", cost="")
    if run_id:
        return NextView(text=text, link=f"/runs/{run_id}", label="Look at the run", cost="")
    return NextView(text=text, link="/runs", label="See the runs", cost="")


def _again(session: Session, state: LoopState) -> NextView | None:
    if not state.is_closed:
        return None
    number = state.number + 1
    return NextView(
        text=f"Version {number} writes replies, you judge them, and they become version "
        f"{number + 1}.",
        link="/again",
        label="Go round again",
        cost=queries.cost_words(session, "sample"),
        is_post=True,
    )


def _problem(state: LoopState) -> ProblemView | None:
    for step in state.steps:
        if step.status == "failed" and step.run is not None:
            was_stopped = step.run.status == "stopped"
            return ProblemView(
                title=f"{step.title}: {'stopped' if was_stopped else 'this did not work'}",
                text=step.run.error or "It goes on where it was when you continue it.",
                run_id=step.run.id,
            )
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofBar:
    kind: str
    text: str
    bar: Bar


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of the picture."""

    status: str
    link: str = "/"
    note: str = ""
    inside: str = ""
    share: float = 0
    bars: Sequence[ProofBar] = ()


def parts(session: Session, workspace: Workspace, view: LoopView) -> dict[str, Part]:
    """Every part of the loop with its live number and the page that tells more."""
    state = view.state
    status = {step.name: step.status for step in state.steps}
    judged = state.judged
    enough = loop.ENOUGH_TO_IMPROVE
    base_size = queries.num_parameters(session, state.base)
    return {
        "base": Part(
            status=status["prepare"],
            link="/models",
            note=view.base or "a normal model",
            inside=base_size,
        ),
        "feed": Part(status=_flow(status["prepare"], status["finetune"])),
        "demonstrations": Part(
            status="done",
            link="/data",
            note=f"{words.thousands(queries.num_demonstrations(session))} to learn from",
        ),
        "finetune": Part(status=status["finetune"]),
        "instruct": Part(
            status=status["finetune"],
            link="/chat",
            note=_version(view, status["finetune"]),
            inside=f"v{state.number}",
        ),
        "sample": Part(status=status["sample"]),
        "people": Part(
            status="done" if judged.done or judged.open else "waiting",
            link="/judge",
            note=_pairs(judged.open),
        ),
        "judge": Part(status="done" if judged.done else status["judge"]),
        "votes": Part(
            status=status["judge"],
            link="/judge",
            inside=words.thousands(judged.done),
            share=min(100.0, 100 * judged.done / enough),
            note=f"of {enough} before Improve" if judged.done < enough else "pairs judged",
        ),
        "improve": Part(status=status["improve"]),
        "improved": Part(
            status=status["improve"],
            link="/models",
            note=_improved(view, status["improve"]),
            inside=f"v{state.number + 1}",
        ),
        "again": Part(status="done" if view.child else "waiting"),
        "proof": Part(
            status=status["compare"],
            link="/report",
            note="measured at the end",
            bars=_proof(session, workspace, view),
        ),
    }


def _flow(before: str, after: str) -> str:
    return "running" if after == "running" else "done" if before == "done" else "waiting"


def _version(view: LoopView, status: str) -> str:
    if view.parent:
        return f"version {view.state.number}"
    return "being trained" if status == "running" else "not trained yet"


def _improved(view: LoopView, status: str) -> str:
    if view.child:
        return f"version {view.state.number + 1}"
    return "being trained" if status == "running" else "by your votes"


def _pairs(number: int) -> str:
    if not number:
        return "judge replies"
    return "1 pair waits" if number == 1 else f"{words.thousands(number)} pairs wait"


def _proof(session: Session, workspace: Workspace, view: LoopView) -> list[ProofBar]:
    """How often replies end by themselves, of the base as it is and of the newest version."""
    comparing = queries.newest_comparison(session, workspace.runs)
    row = comparing and comparing.result.row("ends_by_itself")
    if row is None:
        return []
    shown = (("base", view.base), ("instruct", view.child), ("instruct", view.parent))
    found = [(kind, row.values[name]) for kind, name in shown if name and name in row.values]
    return [
        ProofBar(
            kind=kind,
            text=numbers.value_text(measured.value, "share"),
            bar=bar(measured.value, measured.low, measured.high, start=0, end=1),
        )
        for kind, measured in found[:2]
    ]
