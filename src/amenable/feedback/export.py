"""Judgements out of the log: pairs to learn from, mended replies, what the votes can show."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, count, takewhile
from math import comb
from typing import cast

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from amenable.feedback.tasks import Progress, Purpose
from amenable.records.check import Check
from amenable.records.conversation import Conversation
from amenable.records.judgement import Choice, Comparison, Demonstration, Judged, Rating
from amenable.stats.intervals import wilson
from amenable.store.tables import JudgementRow, PersonRow, SampleRow, TaskRow, VerdictRow


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedPair(Comparison):
    """A comparison with where it came from."""

    judgement_id: int
    prompt_key: str
    family: str
    checks: tuple[Check, ...]
    left_sample_id: int
    right_sample_id: int
    left_model: str
    right_model: str

    @property
    def preferred_model(self) -> str | None:
        """Whose reply won; None for a tie or both bad."""
        match self.choice:
            case "left":
                return self.left_model
            case "right":
                return self.right_model
            case "tie" | "both_bad":
                return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumb(Rating):
    """A rating from the chat page; a second one on the same reply replaces the first."""

    sample_id: int


def comparisons(
    session: Session,
    purpose: Purpose,
    *,
    runs: Sequence[str] | None = None,
    model_sha256: str | None = None,
    judgement_ids: Sequence[int] | None = None,
) -> list[JudgedPair]:
    """All choices that stand, oldest first; skipped and undone ones do not.

    `runs`: only pairs that these drew. `model_sha256`: only where both replies are this model's.
    `judgement_ids`: these, whatever became of them since: what a run began with.
    """
    left, right = aliased(SampleRow), aliased(SampleRow)
    query = (
        select(JudgementRow, left, right, PersonRow)
        .join(TaskRow, TaskRow.id == JudgementRow.task_id)
        .join(left, left.id == TaskRow.left_sample_id)
        .join(right, right.id == TaskRow.right_sample_id)
        .join(PersonRow, PersonRow.id == JudgementRow.person_id)
        .where(TaskRow.purpose == purpose, JudgementRow.choice != "skip")
        .order_by(JudgementRow.id)
    )
    if judgement_ids is None:
        query = query.where(JudgementRow.undone_at.is_(None))
    else:
        query = query.where(JudgementRow.id.in_(judgement_ids))
    if runs is not None:
        query = query.where(TaskRow.run_id.in_(runs))
    if model_sha256 is not None:
        query = query.where(left.model_sha256 == model_sha256, right.model_sha256 == model_sha256)
    return [_pair(*row) for row in session.execute(query)]


def thumbs(
    session: Session,
    *,
    model_sha256: str | None = None,
    sample_ids: Sequence[int] | None = None,
) -> list[Thumb]:
    """Thumbs on replies said in the chat, in the order of the replies."""
    query = (
        select(VerdictRow, SampleRow, PersonRow)
        .join(SampleRow, SampleRow.id == VerdictRow.sample_id)
        .join(PersonRow, PersonRow.id == VerdictRow.person_id)
        .order_by(SampleRow.id)
    )
    if model_sha256 is not None:
        query = query.where(SampleRow.model_sha256 == model_sha256)
    if sample_ids is not None:
        query = query.where(SampleRow.id.in_(sample_ids))
    return [
        Thumb(
            prompt=Conversation.from_json(sample.prompt),
            reply=_judged(sample),
            is_good=verdict.is_good,
            is_simulated=person.is_simulated,
            sample_id=sample.id,
        )
        for verdict, sample, person in session.execute(query)
    ]


def mended_demonstrations(session: Session) -> list[Demonstration]:
    """Replies that people mended, as demonstrations; mended replies of skipped pairs count too."""
    query = (
        select(JudgementRow, SampleRow)
        .join(TaskRow, TaskRow.id == JudgementRow.task_id)
        .join(SampleRow, SampleRow.id == TaskRow.left_sample_id)
        .where(JudgementRow.mended.is_not(None), JudgementRow.undone_at.is_(None))
        .order_by(JudgementRow.id)
    )
    return [
        Demonstration(
            conversation=Conversation.from_json(sample.prompt).with_reply(judgement.mended or ""),
            family=sample.family,
            source=f"judgement {judgement.id}",
        )
        for judgement, sample in session.execute(query)
    ]


def votes_say(progress: Progress) -> str:
    """What so many votes can show, in words.

    Not what they showed: sides are shuffled, and before Improve one version wrote both replies.

    >>> twelve = Progress(done=12, open=0, skipped=0, by_choice={"left": 8, "right": 4})
    >>> print(votes_say(twelve))  # doctest: +NORMALIZE_WHITESPACE
    12 choices between two replies. In blind pairs of two versions, 10 of 12 for one (83 %, 95 %
    interval 55 to 95 %) would be more than chance.
    """
    decided = progress.by_choice.get("left", 0) + progress.by_choice.get("right", 0)
    if decided == 0:
        return "No choice between two replies yet: nothing can be said."
    choices = "1 choice" if decided == 1 else f"{decided} choices"
    so_many = f"{choices} between two replies. In blind pairs of two versions, "
    needed = least_wins(decided)
    if needed is None:
        fewest = next(n for n in count(decided) if least_wins(n) is not None)
        return f"{so_many}it takes {fewest} to show more than chance."
    share = wilson(needed, decided)
    return (
        f"{so_many}{needed} of {decided} for one ({100 * share.estimate:.0f} %, "
        f"95 % interval {100 * share.low:.0f} to {100 * share.high:.0f} %) "
        "would be more than chance."
    )


def least_wins(num_choices: int) -> int | None:
    """The fewest wins of so many with p < 0.05; None if even all of them have not.

    By the exact two-sided sign test, as the report tests blind pairs; counted here, since scipy
    would be loaded for it whenever the pages start.
    """
    # Of 2^n outcomes, so many have this few losses or fewer; as many again have this few wins.
    so_few_lost = accumulate(comb(num_choices, lost) for lost in range(num_choices + 1))
    rare = list(takewhile(lambda ways: 2 * ways * 20 < 2**num_choices, so_few_lost))
    return num_choices - len(rare) + 1 if rare else None


def _pair(
    judgement: JudgementRow, left: SampleRow, right: SampleRow, person: PersonRow
) -> JudgedPair:
    return JudgedPair(
        prompt=Conversation.from_json(left.prompt),
        left=_judged(left),
        right=_judged(right),
        choice=cast("Choice", judgement.choice),
        person=person.name,
        is_simulated=person.is_simulated,
        seconds_spent=judgement.seconds_spent,
        mended=judgement.mended,
        judgement_id=judgement.id,
        prompt_key=left.prompt_key,
        family=left.family,
        checks=_checks(left.checks),
        left_sample_id=left.id,
        right_sample_id=right.id,
        left_model=left.model_name,
        right_model=right.model_name,
    )


def _judged(row: SampleRow) -> Judged:
    return Judged(row.reply, has_end=row.stop_reason == "stop")


def _checks(checks: Sequence[dict[str, object]]) -> tuple[Check, ...]:
    return tuple(Check.from_json(check) for check in checks)
