"""Judgements out of the log: what stands comes out, what was skipped or undone does not."""

from datetime import UTC, datetime

import pytest
from sqlalchemy.orm import Session

from amenable.feedback import export, people, tasks
from amenable.feedback.export import Tally
from amenable.feedback.tasks import Answer, Progress, Side, Submission
from amenable.records.check import Check
from amenable.records.conversation import Conversation
from amenable.records.judgement import Judged
from amenable.records.sample import ModelRef, Sample, SamplingSettings
from amenable.stats.intervals import wilson
from amenable.store.database import Database
from amenable.store.samples import keep_sample

PROMPT = Conversation.of(("user", "Name a sea."))


def add_pair(session: Session, number: int, left: str, right: str, purpose: tasks.Purpose) -> None:
    ids = [
        keep_sample(
            session,
            Sample(
                prompt=PROMPT,
                reply=f"{model} says {number}",
                model=ModelRef(model, "0" * 64),
                settings=SamplingSettings(),
                seed=0,
                stop_reason="stop",
                num_tokens=1,
            ),
            run_id="r",
            prompt_key=f"p-{number}",
            family="write",
            checks=(Check("max_words", 3),),
        )
        for model in (left, right)
    ]
    tasks.add_pair(
        session, purpose=purpose, run_id="r", left_sample_id=ids[0], right_sample_id=ids[1]
    )


def judge(
    session: Session,
    who: int,
    choice: Answer,
    *,
    purpose: tasks.Purpose = "improve",
    mended: str | None = None,
    mended_side: Side | None = None,
) -> None:
    view = tasks.claim_next(session, who, tasks.Pile(purpose), datetime.now(UTC))
    assert view is not None
    tasks.submit(
        session,
        Submission(
            submission_id=f"{purpose}-{view.task_id}-{view.fence}",
            task_id=view.task_id,
            fence=view.fence,
            person_id=who,
            choice=choice,
            seconds_spent=2.0,
            mended=mended,
            mended_side=mended_side,
        ),
    )


def test_comparisons_come_out_with_all_that_is_known(database: Database):
    with database.write() as session:
        ada = people.person(session, "Ada")
        robot = people.person(session, "simulated-careful", is_simulated=True)
        for number in range(4):
            add_pair(session, number, "v1", "v1", "improve")
        add_pair(session, 9, "v1", "v2", "proof")
        judge(session, ada, "left", mended="The North Sea.", mended_side="left")
        judge(session, robot, "tie")
        judge(session, ada, "skip")
        judge(session, ada, "right")
        tasks.undo_last(session, ada, tasks.Pile("improve"))

    with database.read() as session:
        first, second = export.comparisons(session, "improve")
    assert first.prompt == PROMPT
    said = Judged("v1 says 0", has_end=True)
    assert first.preference() == (said, said)
    assert (first.person, first.is_simulated, first.mended) == ("Ada", False, "The North Sea.")
    assert (first.prompt_key, first.family, first.checks) == (
        "p-0",
        "write",
        (Check("max_words", 3),),
    )
    assert (second.person, second.is_simulated, second.preference()) == (
        "simulated-careful",
        True,
        None,
    )


def test_blind_choices_are_counted_by_version_whatever_the_side(database: Database):
    with database.write() as session:
        ada = people.person(session, "Ada")
        sides = [("v1", "v2"), ("v2", "v1"), ("v1", "v2"), ("v2", "v1"), ("v1", "v3")]
        for number, (left, right) in enumerate(sides):
            add_pair(session, number, left, right, "proof")
        for choice in ("right", "left", "left", "both_bad", "right"):
            judge(session, ada, choice, purpose="proof")
        pairs = export.comparisons(session, "proof")

    assert export.tally(pairs, first="v1", second="v2") == Tally(first=1, second=2, undecided=1)


def test_mended_replies_become_demonstrations(database: Database):
    with database.write() as session:
        ada = people.person(session, "Ada")
        for number in range(3):
            add_pair(session, number, "v1", "v1", "improve")
        judge(session, ada, "both_bad", mended="The Baltic.", mended_side="right")
        judge(session, ada, "left")
        judge(session, ada, "left", mended="undone", mended_side="left")
        tasks.undo_last(session, ada, tasks.Pile("improve"))
        (demonstration,) = export.mended_demonstrations(session)

    assert demonstration.conversation == PROMPT.with_reply("The Baltic.")
    assert demonstration.family == "write"


@pytest.mark.parametrize("num_choices", [4, 5, 12, 20, 100])
def test_the_fewest_wins_are_where_the_interval_leaves_one_half(num_choices: int):
    wins = export.least_wins(num_choices)

    assert wins is not None
    assert wilson(wins, num_choices).low > 0.5
    assert wilson(wins - 1, num_choices).low <= 0.5


@pytest.mark.parametrize(
    ("left", "right", "says"),
    [
        (0, 0, "nothing can be said"),
        (1, 0, "1 choice between two replies is too few: from 4 on"),
        (2, 1, "3 choices between two replies are too few: from 4 on"),
        (10, 10, "With 20 choices, 15 for one side (75 %"),
    ],
)
def test_votes_say_what_they_can_show(left: int, right: int, says: str):
    by_choice = {"left": left, "right": right, "tie": 3}

    said = export.votes_say(Progress(done=left + right + 3, open=0, skipped=0, by_choice=by_choice))

    assert says in said
