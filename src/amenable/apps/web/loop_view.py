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
RUNNING_HEADLINES: dict[StepName, str] = {
    "prepare": "Fetching a model that only continues text",
    "finetune": "It is learning to answer instead of going on",
    "sample": "Version 1 is writing replies for you to judge",
    "judge": "Which reply would you rather have got?",
    "improve": "Your votes are becoming version 2",
    "compare": "Measuring what changed",
}
NEXT_HEADLINES: dict[StepName, str] = {
    "prepare": "Turn a normal language model into one that answers",
    "finetune": "The base model is here",
    "sample": "Your instruct model is here",
    "judge": "Which reply would you rather have got?",
    "improve": "Your votes are enough for version 2",
    "compare": "Version 2 is here. Is it better?",
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
    policy_1: str | None
    policy_2: str | None
    can_improve: bool
    problem: ProblemView | None
    is_closed: bool
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
        policy_1=state.policy_1 if state.has_policy_1 else None,
        policy_2=state.policy_2 if state.has_policy_2 else None,
        can_improve=status["improve"] in ("next", "failed"),
        problem=_problem(state),
        is_closed=all(step.status == "done" for step in state.steps) and not state.proof.open,
        state=state,
    )


def _first(state: LoopState, *statuses: StepStatus) -> StepName | None:
    return next((step.name for step in state.steps if step.status in statuses), None)


def _headline(state: LoopState, running: StepName | None) -> str:
    if state.proof.open:
        return "Two versions, models hidden: which is better?"
    if state.step("judge").status == "next":
        return NEXT_HEADLINES["judge"]
    if running:
        return RUNNING_HEADLINES[running]
    at = _first(state, "next", "failed", "waiting")
    return NEXT_HEADLINES[at] if at else "The loop is closed, and the difference is measured"


def _next(session: Session, state: LoopState, running: StepName | None) -> NextView:
    link, text = state.next_step.link, state.next_step.sentence
    problem = _problem(state)
    if problem:
        to = f"/runs/{problem.run_id}/continue"
        return NextView(text=text, link=to, label="Continue", cost="", is_post=True)
    if running in ("prepare", "finetune") and state.step("prepare").status == "done":
        # While it trains there is something better to do than to watch.
        return NextView(text=text, link="/chat", label="Chat with the base model", cost="")
    if running and link.startswith("/runs/") and state.has_policy_1:
        return NextView(text=text, link="/chat", label="Ask both in Chat", cost="")
    if (
        link.startswith("/judge")
        and state.step("improve").status == "next"
        and not state.proof.open
    ):
        cost = queries.cost_words(session, "align", "compare")
        return NextView(text=text, link="/judge/improve", label="Improve", cost=cost, is_post=True)
    if link.startswith("/judge"):
        missing = state.proof.open or max(1, loop.ENOUGH_TO_IMPROVE - state.judged.done)
        cost = words.about(SECONDS_A_PAIR * missing) + " of your time"
        return NextView(text=text, link=link, label="Judge", cost=cost)
    return NextView(text=text, link=link, label=_label(link), cost="")


def _label(link: str) -> str:
    return {
        "/models": "Choose a base model",
        "/report": "Read the report",
        "/runs": "See the runs",
    }.get(link, "Look at the run")


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
            note=_version(view.policy_1, status["finetune"]),
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
            note=_version_2(view, status["improve"]),
        ),
        "again": Part(status="done" if view.policy_2 else "waiting"),
        "proof": Part(
            status=status["compare"],
            link="/report",
            note="measured at the end",
            bars=_proof(session, workspace, view),
        ),
    }


def _flow(before: str, after: str) -> str:
    return "running" if after == "running" else "done" if before == "done" else "waiting"


def _version(name: str | None, status: str) -> str:
    return "version 1" if name else "being trained" if status == "running" else "not trained yet"


def _version_2(view: LoopView, status: str) -> str:
    if view.policy_2:
        return "version 2"
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
    shown = (("base", view.base), ("instruct", view.policy_2), ("instruct", view.policy_1))
    found = [(kind, row.values[name]) for kind, name in shown if name and name in row.values]
    return [
        ProofBar(
            kind=kind,
            text=numbers.value_text(measured.value, "share"),
            bar=bar(measured.value, measured.low, measured.high, start=0, end=1),
        )
        for kind, measured in found[:2]
    ]
