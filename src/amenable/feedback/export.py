"""Judgements out of the log: pairs to learn from, mended replies, what the votes can show."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import cast

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from amenable.feedback.tasks import Progress, Purpose
from amenable.records.check import Check
from amenable.records.conversation import Conversation
from amenable.records.judgement import Choice, Comparison, Demonstration, Judged
from amenable.stats.intervals import wilson
from amenable.store.tables import JudgementRow, PersonRow, SampleRow, TaskRow


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
class Tally:
    """How often each of two models' replies were preferred."""

    first: int
    second: int
    undecided: int


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


def tally(pairs: Iterable[JudgedPair], *, first: str, second: str) -> Tally:
    """Count the blind choices between two models; pairs of other models are left out."""
    winners = [
        pair.preferred_model
        for pair in pairs
        if {pair.left_model, pair.right_model} == {first, second}
    ]
    return Tally(
        first=winners.count(first), second=winners.count(second), undecided=winners.count(None)
    )


def votes_say(progress: Progress) -> str:
    """What so many votes can show, in words.

    >>> print(votes_say(Progress(done=3, open=9, skipped=0, by_choice={"left": 2, "right": 1})))
    3 choices between two replies are too few: from 4 on they can show more than chance.
    >>> print(votes_say(Progress(done=12, open=0, skipped=0, by_choice={"left": 8, "right": 4})))
    With 12 choices, 10 for one side (83 %, 95 % interval 55 to 95 %) would be more than chance.
    """
    decided = progress.by_choice.get("left", 0) + progress.by_choice.get("right", 0)
    if decided == 0:
        return "No choice between two replies yet: nothing can be said."
    needed = least_wins(decided)
    if needed is None:
        choices = "1 choice" if decided == 1 else f"{decided} choices"
        fewest = next(n for n in count(decided) if least_wins(n) is not None)
        return (
            f"{choices} between two replies {'is' if decided == 1 else 'are'} too few: "
            f"from {fewest} on they can show more than chance."
        )
    share = wilson(needed, decided)
    return (
        f"With {decided} choices, {needed} for one side ({100 * share.estimate:.0f} %, "
        f"95 % interval {100 * share.low:.0f} to {100 * share.high:.0f} %) "
        "would be more than chance."
    )


def least_wins(num_choices: int) -> int | None:
    """The fewest wins of so many whose interval lies above one half; None if all are too few."""
    wins = range(num_choices // 2, num_choices + 1)
    return next((won for won in wins if wilson(won, num_choices).low > 0.5), None)


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
