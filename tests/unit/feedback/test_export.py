"""Judgements out of the log: what stands comes out, what was skipped or undone does not."""

from datetime import UTC, datetime

import pytest
from sqlalchemy.orm import Session

from amenable.feedback import export, people, tasks
from amenable.feedback.tasks import Answer, Progress, Side, Submission
from amenable.records.check import Check
from amenable.records.conversation import Conversation
from amenable.records.judgement import Judged
from amenable.records.sample import ModelRef, Sample, SamplingSettings
from amenable.stats.significance import mcnemar_exact
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


def test_the_fewest_wins_are_those_of_the_test_that_the_report_uses():
    for num_choices in range(1, 121):
        surprising = [
            wins
            for wins in range(num_choices // 2 + 1, num_choices + 1)
            if mcnemar_exact(only_first=num_choices - wins, only_second=wins) < 0.05
        ]
        assert export.least_wins(num_choices) == (surprising[0] if surprising else None)


def test_six_of_six_are_the_first_that_are_more_than_chance():
    # By hand: 2 / 2^5 = 0.0625 for five of five, 2 / 2^6 = 0.03125 for six of six.
    assert [export.least_wins(num_choices) for num_choices in (0, 4, 5, 6)] == [None, None, None, 6]


@pytest.mark.parametrize(
    ("left", "right", "says"),
    [
        (0, 0, "nothing can be said"),
        (1, 0, "1 choice between two replies. In blind pairs of two versions, it takes 6"),
        (3, 2, "5 choices between two replies. In blind pairs of two versions, it takes 6"),
        (6, 0, "6 of 6 for one (100 %, 95 % interval 61 to 100 %) would be more than chance."),
        (10, 10, "20 choices between two replies. In blind pairs of two versions, 15 of 20 for"),
    ],
)
def test_votes_say_what_they_can_show(left: int, right: int, says: str):
    by_choice = {"left": left, "right": right, "tie": 3}

    said = export.votes_say(Progress(done=left + right + 3, open=0, skipped=0, by_choice=by_choice))

    assert says in said
