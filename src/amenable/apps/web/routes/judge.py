"""Judge: one pair after the other, answered once whatever the network repeats."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy.orm import Session

from amenable.apps.web import loop_view, queries, words
from amenable.apps.web.answers import go
from amenable.apps.web.shop import InShop, Shop
from amenable.feedback import export, tasks
from amenable.feedback.tasks import PairView, Pile, Purpose, Submission
from amenable.pipeline import loop
from amenable.pipeline.config import AlignConfig
from amenable.pipeline.loop import LoopState

router = APIRouter(prefix="/judge")

SKIP_REASONS = (
    "I cannot tell which is better",
    "The prompt is unclear",
    "I know too little about it",
    "It should not be shown to people",
)
MAX_TEXT = 8000

Where = Annotated[Purpose | None, Query()]
SubmissionId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{8,40}$")]
Text = Annotated[str, StringConstraints(max_length=MAX_TEXT)]


class Answer(BaseModel):
    """What the browser sends; the person comes from the session, never from here."""

    model_config = ConfigDict(extra="forbid")
    submission_id: SubmissionId
    task_id: Annotated[int, Field(ge=1, lt=2**53)]
    fence: Annotated[int, Field(ge=0, lt=2**53)]
    purpose: Purpose
    choice: Literal["left", "right", "tie", "both_bad", "skip"]
    reason: Annotated[str, StringConstraints(max_length=500)] = ""
    mended: Text | None = None
    mended_side: Literal["left", "right"] | None = None
    seconds_spent: Annotated[float, Field(ge=0, le=86_400)]


class Undo(BaseModel):
    model_config = ConfigDict(extra="forbid")
    purpose: Purpose


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressView:
    done: int
    of_words: str
    percent: float
    says: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImproveView:
    is_open: bool
    cost: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Nothing:
    """What stands in the room when no pair waits."""

    kind: Literal["finished", "empty"]
    title: str
    text: str
    link: str = "/"
    label: str = "Go to the loop"
    is_post: bool = False
    can_improve: bool = False


@router.get("")
def page(request: Request, shop: InShop, purpose: Where = None) -> HTMLResponse:
    if purpose is None:
        with shop.database.read() as session:
            purpose = "proof" if LoopState.of(session).proof.open else "improve"
    pair = _claim(shop, purpose)
    with shop.database.read() as session:
        return shop.page(
            request,
            "judge.html",
            session,
            here="/judge",
            **_room(session, purpose, pair),
        )


@router.post("/submissions")
def submit(answer: Answer, request: Request, shop: InShop) -> JSONResponse:
    submission = Submission(person_id=shop.person_id(), **answer.model_dump(exclude={"purpose"}))
    shop.writer.submit(lambda session: tasks.submit(session, submission))
    return _next(request, shop, answer.purpose, _claim(shop, answer.purpose))


@router.post("/undo")
def undo(wanted: Undo, request: Request, shop: InShop) -> JSONResponse:
    person_id = shop.person_id()
    pair = shop.writer.submit(
        lambda session: tasks.undo_last(session, person_id, _pile(session, wanted.purpose))
    )
    return _next(request, shop, wanted.purpose, pair or _claim(shop, wanted.purpose))


@router.post("/next")
def following(wanted: Undo, request: Request, shop: InShop) -> JSONResponse:
    """The pair this person holds, or a new one: after a conflict, or a connection that was lost."""
    return _next(request, shop, wanted.purpose, _claim(shop, wanted.purpose))


@router.post("/improve")
def improve(request: Request, shop: InShop) -> Response:
    run_id = shop.writer.submit(lambda session: loop.improve(session, AlignConfig()))
    return go(request, f"/runs/{run_id}")


@router.post("/more")
def more(request: Request, shop: InShop) -> Response:
    run_id = shop.writer.submit(loop.draw_more)
    return go(request, f"/runs/{run_id}")


def _claim(shop: Shop, purpose: Purpose) -> PairView | None:
    person_id, now = shop.person_id(), datetime.now(UTC)
    return shop.writer.submit(
        lambda session: tasks.claim_next(session, person_id, _pile(session, purpose), now)
    )


def _pile(session: Session, purpose: Purpose) -> Pile:
    """Pairs of this round of the loop."""
    state = LoopState.of(session)
    return state.proof_pile if purpose == "proof" else state.judged_pile


def _next(request: Request, shop: Shop, purpose: Purpose, pair: PairView | None) -> JSONResponse:
    with shop.database.read() as session:
        room = _room(session, purpose, pair)
    progress, improving = room["progress"], room["improve"]
    html = shop.part(request, "parts/pair.html", **room).body
    return JSONResponse(
        {
            "html": bytes(html).decode(),
            "done": progress.done,
            "of_words": progress.of_words,
            "percent": progress.percent,
            "says": progress.says,
            "can_improve": improving.is_open,
        }
    )


def _room(session: Session, purpose: Purpose, pair: PairView | None) -> dict[str, Any]:
    view = loop_view.loop_view(session)
    done = view.state.proof if purpose == "proof" else view.state.judged
    improving = ImproveView(
        is_open=purpose == "improve" and view.state.can_improve,
        cost=queries.cost_words(session, "align", "compare") or "the time is measured as it runs",
    )
    return {
        "pair": pair,
        "purpose": purpose,
        "can_undo": done.done + done.skipped > 0,
        "skip_reasons": SKIP_REASONS,
        "improve": improving,
        "progress": _progress_view(purpose, done),
        "pulse": queries.pulse(session),
        "nothing": None if pair else _nothing(purpose, done, view, improving),
    }


def _progress_view(purpose: Purpose, done: tasks.Progress) -> ProgressView:
    total = done.done + done.open
    is_short = purpose == "improve" and done.done < loop.ENOUGH_TO_IMPROVE
    goal = min(total, loop.ENOUGH_TO_IMPROVE) if is_short else total
    if is_short and total:
        of_words = f"of {goal} before Improve"
    else:
        of_words = f"of {total} judged" if total else ""
    return ProgressView(
        done=done.done,
        of_words=of_words,
        percent=round(100 * done.done / goal, 1) if goal else 0,
        says=export.votes_say(done) if done.done else "",
    )


def _nothing(
    purpose: Purpose, done: tasks.Progress, view: loop_view.LoopView, improving: ImproveView
) -> Nothing:
    if purpose == "proof" and done.done:
        return Nothing(
            kind="finished",
            title="That was the last blind pair",
            text="The report is measured once more, with your choices between the two versions.",
            link="/report",
            label="See the report",
        )
    if done.done and improving.is_open:
        return Nothing(
            kind="finished",
            title=f"You judged {words.thousands(done.done)} pairs",
            text=export.votes_say(done),
            can_improve=True,
        )
    if done.done:
        return Nothing(
            kind="finished",
            title="No pair is waiting",
            text=view.next.text,
            link=view.next.link,
            label=view.next.label,
            is_post=view.next.is_post,
        )
    return Nothing(
        kind="empty",
        title="Here you will judge pairs of replies",
        text="Two replies to one prompt, models hidden, sides shuffled: you say which is better. "
        + (
            f"Version {view.state.number} is writing them now."
            if view.parent
            else "They are written as soon as the instruct model is trained."
        ),
    )
