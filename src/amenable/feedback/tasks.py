"""Pairs to judge: handed to one person at a time, answered once, whatever the network repeats."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal, cast, get_args

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Integer,
    ScalarSelect,
    String,
    bindparam,
    case,
    func,
    select,
    update,
)
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningUpdate

from amenable.records.conversation import Conversation
from amenable.records.errors import ConflictError, DataError, NotFoundError
from amenable.store.tables import JudgementRow, SampleRow, TaskRow
from amenable.store.types import UtcTime

Purpose = Literal["improve", "proof"]
Side = Literal["left", "right"]
Answer = Literal["left", "right", "tie", "both_bad", "skip"]
ANSWERS: tuple[Answer, ...] = get_args(Answer)

LEASE = timedelta(minutes=15)
"""How long a pair stays with a person who has gone quiet."""
LONGEST_SECONDS = 86_400.0
LONGEST_MENDED = 20_000
LONGEST_REASON = 2_000
LONGEST_SUBMISSION_ID = 40


@dataclass(frozen=True, slots=True)
class Pile:
    """The pairs of one purpose, of these runs alone if they are named.

    Each round of the loop has its own: replies of an older version, or of another base, are not
    handed out in it and do not count.
    """

    purpose: Purpose
    runs: tuple[str, ...] | None = None

    def holds(self) -> ColumnElement[bool]:
        of_purpose = TaskRow.purpose == self.purpose
        return of_purpose if self.runs is None else of_purpose & TaskRow.run_id.in_(self.runs)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairView:
    """What a person sees of a task: texts alone, so that no name sways them."""

    task_id: int
    fence: int
    purpose: Purpose
    prompt: Conversation
    left: str
    right: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One answer; `submission_id` is made in the browser, so that a repeat is known as one."""

    submission_id: str
    task_id: int
    fence: int
    person_id: int
    choice: Answer
    seconds_spent: float
    reason: str = ""
    mended: str | None = None
    mended_side: Side | None = None

    def __post_init__(self) -> None:
        if problem := self._problem():
            raise DataError(f"This answer cannot be kept: {problem}.")

    def _problem(self) -> str | None:
        checks = {
            "its id is missing or too long": 0 < len(self.submission_id) <= LONGEST_SUBMISSION_ID,
            f"its choice is {self.choice!r}, not {', '.join(ANSWERS)}": self.choice in ANSWERS,
            "its time is no time": math.isfinite(self.seconds_spent) and self.seconds_spent >= 0,
            "its reason is too long": len(self.reason) <= LONGEST_REASON,
            "its mended reply is too long": len(self.mended or "") <= LONGEST_MENDED,
            "its mended reply is empty": self.mended is None or bool(self.mended.strip()),
            "it does not say which reply was mended": (self.mended is None)
            == (self.mended_side is None),
            f"its mended side is {self.mended_side!r}": self.mended_side in (None, "left", "right"),
        }
        return next((problem for problem, is_well in checks.items() if not is_well), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What was kept; the same for every repeat of one submission."""

    judgement_id: int
    task_id: int
    choice: Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the judging is; `done` counts choices, without skipped pairs."""

    done: int
    open: int
    skipped: int
    by_choice: Mapping[str, int] = field(default_factory=dict[str, int])


def _oldest(condition: ColumnElement[bool]) -> ScalarSelect[int]:
    is_in_pile = (TaskRow.purpose == bindparam("of_purpose", type_=String)) & (
        bindparam("is_any_run", type_=Boolean)
        | TaskRow.run_id.in_(bindparam("of_runs", type_=String, expanding=True))
    )
    return (
        select(TaskRow.id)
        .where(is_in_pile, condition)
        .order_by(TaskRow.id)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )


def _claim() -> ReturningUpdate[TaskRow]:
    is_claimed = TaskRow.status == "claimed"
    is_mine = is_claimed & (TaskRow.person_id == bindparam("who", type_=Integer))
    has_ended = (TaskRow.claimed_at < bindparam("lease_began", type_=UtcTime)) | (
        TaskRow.claimed_at > bindparam("clock_jumped", type_=UtcTime)
    )
    which = func.coalesce(
        _oldest(is_mine), _oldest(is_claimed & has_ended), _oldest(TaskRow.status == "open")
    )
    return (
        update(TaskRow)
        .where(TaskRow.id == which)
        .values(
            status="claimed",
            person_id=bindparam("who", type_=Integer),
            claimed_at=bindparam("moment", type_=UtcTime),
            fence=case((is_mine, TaskRow.fence), else_=TaskRow.fence + 1),
        )
        .returning(TaskRow)
        .execution_options(populate_existing=True)
    )


# Put together once: that takes longer than running it.
_CLAIM = _claim()


def add_pair(
    session: Session,
    *,
    purpose: Purpose,
    run_id: str | None,
    left_sample_id: int,
    right_sample_id: int,
) -> int:
    """Lay out two samples of one prompt to be judged; the caller shuffles the sides."""
    prompts = [_sample(session, key).prompt_key for key in (left_sample_id, right_sample_id)]
    if left_sample_id == right_sample_id or prompts[0] != prompts[1]:
        raise DataError("A pair needs two samples of the same prompt.")
    row = TaskRow(
        purpose=purpose,
        run_id=run_id,
        left_sample_id=left_sample_id,
        right_sample_id=right_sample_id,
        status="open",
        fence=0,
        created_at=datetime.now(UTC),
    )
    session.add(row)
    session.flush()
    return row.id


def claim_next(session: Session, person_id: int, pile: Pile, now: datetime) -> PairView | None:
    """Give one pair to one person, and to nobody else; None if nothing waits.

    The pair this person holds comes first, then pairs whose holder went quiet, then the oldest open
    one. One statement, so two people cannot both win; a pair that changes hands gets a new fence.
    """
    row = session.scalars(
        _CLAIM,
        {
            "of_purpose": pile.purpose,
            "is_any_run": pile.runs is None,
            "of_runs": list(pile.runs or ()),
            "who": person_id,
            "moment": now,
            "lease_began": now - LEASE,
            # A claim from the future is a clock that was set back: its lease would never end.
            "clock_jumped": now + LEASE,
        },
    ).one_or_none()
    return row and _view(session, row)


def submit(session: Session, submission: Submission) -> Receipt:
    """Keep an answer once. Only who holds the pair may give it.

    A repeat gets the first receipt, also after an undo or when somebody else has the pair by now;
    the same id with other content is refused.
    """
    kept = session.scalars(
        select(JudgementRow).where(JudgementRow.submission_id == submission.submission_id)
    ).one_or_none()
    if kept is not None:
        return _same_again(kept, submission)
    take = (
        update(TaskRow)
        .where(
            TaskRow.id == submission.task_id,
            TaskRow.status == "claimed",
            TaskRow.person_id == submission.person_id,
            TaskRow.fence == submission.fence,
        )
        .values(status="skipped" if submission.choice == "skip" else "done")
        .returning(TaskRow.id)
    )
    if session.scalars(take).one_or_none() is None:
        raise _refusal(session, submission)
    row = JudgementRow(
        submission_id=submission.submission_id,
        task_id=submission.task_id,
        person_id=submission.person_id,
        choice=submission.choice,
        reason=submission.reason,
        mended=submission.mended,
        mended_side=submission.mended_side,
        seconds_spent=min(submission.seconds_spent, LONGEST_SECONDS),
        created_at=datetime.now(UTC),
    )
    session.add(row)
    session.flush()
    return _receipt(row)


def undo_last(session: Session, person_id: int, pile: Pile) -> PairView | None:
    """Take back this person's last answer and hand them that pair again; None if there is none.

    The answer stays in the log, marked as undone. A pair they hold meanwhile goes back to the rest.
    """
    last = session.scalars(
        select(JudgementRow)
        .join(TaskRow, TaskRow.id == JudgementRow.task_id)
        .where(
            JudgementRow.person_id == person_id,
            JudgementRow.undone_at.is_(None),
            pile.holds(),
        )
        .order_by(JudgementRow.id.desc())
        .limit(1)
    ).one_or_none()
    if last is None:
        return None
    now = datetime.now(UTC)
    last.undone_at = now
    session.execute(
        update(TaskRow)
        .where(TaskRow.status == "claimed", TaskRow.person_id == person_id, pile.holds())
        .values(status="open", person_id=None, claimed_at=None)
    )
    task = session.get_one(TaskRow, last.task_id, populate_existing=True)
    task.status, task.person_id, task.claimed_at = "claimed", person_id, now
    task.fence += 1
    session.flush()
    return _view(session, task)


def progress(session: Session, pile: Pile) -> Progress:
    statuses = session.execute(
        select(TaskRow.status, func.count()).where(pile.holds()).group_by(TaskRow.status)
    )
    choices = session.execute(
        select(JudgementRow.choice, func.count())
        .join(TaskRow, TaskRow.id == JudgementRow.task_id)
        .where(
            pile.holds(),
            JudgementRow.undone_at.is_(None),
            JudgementRow.choice != "skip",
        )
        .group_by(JudgementRow.choice)
    )
    by_status = {status: number for status, number in statuses}  # noqa: C416 - rows are no pairs
    by_choice = {choice: number for choice, number in choices}  # noqa: C416
    return Progress(
        done=by_status.get("done", 0),
        open=by_status.get("open", 0) + by_status.get("claimed", 0),
        skipped=by_status.get("skipped", 0),
        by_choice=by_choice,
    )


def _same_again(kept: JudgementRow, submission: Submission) -> Receipt:
    # Without the fence and the seconds: a browser that repeats by hand may count on.
    said = (kept.task_id, kept.person_id, kept.choice, kept.reason, kept.mended, kept.mended_side)
    again = (
        submission.task_id,
        submission.person_id,
        submission.choice,
        submission.reason,
        submission.mended,
        submission.mended_side,
    )
    if said != again:
        raise ConflictError("This answer was kept before with other content; the first one stands.")
    return _receipt(kept)


def _refusal(session: Session, submission: Submission) -> Exception:
    task = session.get(TaskRow, submission.task_id)
    if task is None:
        return NotFoundError("task", submission.task_id)
    if task.status in ("done", "skipped"):
        return ConflictError("This pair has been judged already; here is the next one.")
    return ConflictError("This pair went to somebody else after a pause; here is the next one.")


def _receipt(row: JudgementRow) -> Receipt:
    return Receipt(judgement_id=row.id, task_id=row.task_id, choice=cast("Answer", row.choice))


def _view(session: Session, task: TaskRow) -> PairView:
    left = _sample(session, task.left_sample_id)
    right = _sample(session, task.right_sample_id)
    return PairView(
        task_id=task.id,
        fence=task.fence,
        purpose=cast("Purpose", task.purpose),
        prompt=Conversation.from_json(left.prompt),
        left=left.reply,
        right=right.reply,
    )


def _sample(session: Session, sample_id: int) -> SampleRow:
    row = session.get(SampleRow, sample_id)
    if row is None:
        raise NotFoundError("sample", sample_id)
    return row
