"""Scripted judges in people's place: every answer is marked as simulated."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import cycle

from sqlalchemy.orm import Session

from amenable.evaluation.graders.constraints import is_met
from amenable.feedback import people, tasks
from amenable.feedback.simulated import JUDGES, Judge, SeenReply, judge, seconds_for
from amenable.feedback.tasks import Pile, Submission
from amenable.store.samples import KeptSample, sample
from amenable.store.tables import TaskRow


def judge_what_waits(session: Session, piles: Sequence[Pile], seed: int) -> int:
    """Let the scripted judges take turns at every open pair; gives how many were judged."""
    num = 0
    for pile in piles:
        for who in cycle(JUDGES.values()):
            if not _judge_next(session, who, pile, seed):
                break
            num += 1
    return num


def _judge_next(session: Session, who: Judge, pile: Pile, seed: int) -> bool:
    about = {"reliability": who.reliability, "left_habit": who.left_habit}
    person_id = people.person(session, who.name, is_simulated=True, about=about)
    view = tasks.claim_next(session, person_id, pile, datetime.now(UTC))
    if view is None:
        return False
    left, right = _seen(session, view.task_id)
    key = f"task-{view.task_id}"
    tasks.submit(
        session,
        Submission(
            submission_id=f"simulated-{view.task_id}",
            task_id=view.task_id,
            fence=view.fence,
            person_id=person_id,
            choice=judge(who, left, right, key=key, seed=seed),
            seconds_spent=seconds_for(who, key=key, seed=seed),
        ),
    )
    return True


def _seen(session: Session, task_id: int) -> Sequence[SeenReply]:
    task = session.get_one(TaskRow, task_id)
    return [_weighed(sample(session, key)) for key in (task.left_sample_id, task.right_sample_id)]


def _weighed(kept: KeptSample) -> SeenReply:
    reply = kept.sample.reply
    return SeenReply(
        text=reply,
        checks_met=sum(is_met(check, reply) for check in kept.checks),
        stop_reason=kept.sample.stop_reason,
    )
