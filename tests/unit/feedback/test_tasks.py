"""Pairs are handed to one person at a time and answered once, whatever the network repeats."""

import threading
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from amenable.feedback import people, tasks
from amenable.feedback.tasks import PairView, Submission
from amenable.records.conversation import Conversation
from amenable.records.errors import ConflictError, DataError, NotFoundError
from amenable.records.sample import ModelRef, Sample, SamplingSettings
from amenable.store.database import Database, GroupWriter
from amenable.store.samples import keep_sample
from amenable.store.tables import JudgementRow

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def reply(session: Session, text: str, key: str) -> int:
    sample = Sample(
        prompt=Conversation.of(("user", f"Prompt {key}")),
        reply=text,
        model=ModelRef("version-1", "1" * 64),
        settings=SamplingSettings(),
        seed=0,
        stop_reason="stop",
        num_tokens=2,
    )
    return keep_sample(session, sample, run_id="r", prompt_key=key)


def add_pairs(database: Database, count: int, purpose: tasks.Purpose = "improve") -> list[int]:
    with database.write() as session:
        return [
            tasks.add_pair(
                session,
                purpose=purpose,
                run_id="r",
                left_sample_id=reply(session, f"left {number}", str(number)),
                right_sample_id=reply(session, f"right {number}", str(number)),
            )
            for number in range(count)
        ]


def person(database: Database, name: str) -> int:
    with database.write() as session:
        return people.person(session, name)


def claim(
    database: Database, who: int, now: datetime = NOW, purpose: tasks.Purpose = "improve"
) -> PairView | None:
    with database.write() as session:
        return tasks.claim_next(session, who, tasks.Pile(purpose), now)


def held(database: Database, who: int, now: datetime = NOW) -> PairView:
    view = claim(database, who, now)
    assert view is not None
    return view


def answer(view: PairView, who: int, **changes: Any) -> Submission:
    submission = Submission(
        submission_id=f"answer-{view.task_id}-{view.fence}",
        task_id=view.task_id,
        fence=view.fence,
        person_id=who,
        choice="left",
        seconds_spent=3.5,
    )
    return replace(submission, **changes)


def submit(database: Database, submission: Submission) -> tasks.Receipt:
    with database.write() as session:
        return tasks.submit(session, submission)


def progress(database: Database) -> tasks.Progress:
    with database.read() as session:
        return tasks.progress(session, tasks.Pile("improve"))


def judgements(database: Database) -> list[JudgementRow]:
    with database.read() as session:
        return list(session.scalars(select(JudgementRow).order_by(JudgementRow.id)))


def test_a_person_sees_texts_and_no_names(database: Database):
    add_pairs(database, 1)
    view = held(database, person(database, "Ada"))

    assert (view.left, view.right) == ("left 0", "right 0")
    assert view.prompt == Conversation.of(("user", "Prompt 0"))
    assert "version-1" not in repr(view)


def test_a_person_gets_back_the_pair_they_hold(database: Database):
    add_pairs(database, 2)
    ada = person(database, "Ada")

    assert claim(database, ada) == claim(database, ada, NOW + timedelta(minutes=1))


def test_two_people_get_two_pairs_and_a_third_none(database: Database):
    first, second = add_pairs(database, 2)
    ada, bo, cy = (person(database, name) for name in ("Ada", "Bo", "Cy"))

    assert held(database, ada).task_id == first
    assert held(database, bo).task_id == second
    assert claim(database, cy) is None


def test_each_purpose_has_pairs_of_its_own(database: Database):
    add_pairs(database, 1, "proof")
    ada = person(database, "Ada")

    assert claim(database, ada, purpose="improve") is None
    assert claim(database, ada, purpose="proof") is not None


def test_a_pair_left_for_long_goes_to_somebody_else_under_a_new_fence(database: Database):
    add_pairs(database, 1)
    ada, bo = person(database, "Ada"), person(database, "Bo")
    before = held(database, ada)

    assert claim(database, bo, NOW + timedelta(minutes=14)) is None
    after = held(database, bo, NOW + timedelta(minutes=16))

    assert after.task_id == before.task_id
    assert after.fence == before.fence + 1
    with pytest.raises(ConflictError, match="somebody else"):
        submit(database, answer(before, ada))
    submit(database, answer(after, bo))


def test_a_slow_answer_counts_while_nobody_else_has_the_pair(database: Database):
    add_pairs(database, 1)
    ada = person(database, "Ada")
    view = held(database, ada)

    submit(database, answer(view, ada))  # however late: the lease ran out, but nobody came

    assert progress(database).done == 1


def test_a_clock_set_back_keeps_no_pair_for_ever(database: Database):
    add_pairs(database, 1)
    ada, bo = person(database, "Ada"), person(database, "Bo")
    held(database, ada, NOW + timedelta(days=365))

    assert claim(database, bo, NOW) is not None


def test_an_answer_is_kept_whole(database: Database):
    add_pairs(database, 1)
    ada = person(database, "Ada")
    view = held(database, ada)

    receipt = submit(
        database,
        answer(view, ada, choice="right", reason="shorter", mended="Better.", mended_side="right"),
    )

    (row,) = judgements(database)
    assert (receipt.judgement_id, receipt.task_id, receipt.choice) == (
        row.id,
        view.task_id,
        "right",
    )
    assert (row.choice, row.reason, row.mended, row.mended_side, row.seconds_spent) == (
        "right",
        "shorter",
        "Better.",
        "right",
        3.5,
    )


def test_a_repeat_gets_the_first_receipt_and_adds_nothing(database: Database):
    add_pairs(database, 1)
    ada = person(database, "Ada")
    submission = answer(held(database, ada), ada)

    receipts = [submit(database, submission) for _ in range(3)]
    receipts.append(submit(database, replace(submission, seconds_spent=9.0)))

    assert len(set(receipts)) == 1
    assert len(judgements(database)) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"choice": "right"},
        {"reason": "other"},
        {"mended": "Better.", "mended_side": "left"},
        {"task_id": 2},
        {"person_id": 2},
    ],
)
def test_the_same_id_with_other_content_is_refused(database: Database, changes: dict[str, Any]):
    add_pairs(database, 2)
    ada = person(database, "Ada")
    submission = answer(held(database, ada), ada)
    submit(database, submission)

    with pytest.raises(ConflictError, match="other content"):
        submit(database, replace(submission, **changes))


def test_a_pair_is_judged_once(database: Database):
    add_pairs(database, 1)
    ada = person(database, "Ada")
    view = held(database, ada)
    submit(database, answer(view, ada))

    with pytest.raises(ConflictError, match="judged already"):
        submit(database, answer(view, ada, submission_id="another"))


def test_only_the_holder_answers(database: Database):
    add_pairs(database, 1)
    ada, bo = person(database, "Ada"), person(database, "Bo")
    view = held(database, ada)

    with pytest.raises(ConflictError):
        submit(database, answer(view, bo))
    with pytest.raises(ConflictError):
        submit(database, answer(view, ada, fence=view.fence + 1))
    with pytest.raises(NotFoundError):
        submit(database, answer(view, ada, task_id=99))
    assert judgements(database) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"submission_id": ""},
        {"submission_id": "x" * 41},
        {"choice": "middle"},
        {"seconds_spent": -1.0},
        {"seconds_spent": float("nan")},
        {"seconds_spent": float("inf")},
        {"reason": "x" * 2001},
        {"mended": "x" * 20_001, "mended_side": "left"},
        {"mended": " ", "mended_side": "left"},
        {"mended": "x"},
        {"mended_side": "left"},
        {"mended": "x", "mended_side": "middle"},
    ],
)
def test_an_answer_that_makes_no_sense_is_refused(changes: dict[str, Any]):
    view = PairView(
        task_id=1, fence=1, purpose="improve", prompt=Conversation(()), left="", right=""
    )

    with pytest.raises(DataError, match="cannot be kept"):
        answer(view, 1, **changes)


def test_undo_gives_the_pair_back_and_keeps_the_log(database: Database):
    first, second = add_pairs(database, 2)
    ada, bo = person(database, "Ada"), person(database, "Bo")
    submit(database, answer(held(database, ada), ada))
    assert held(database, ada).task_id == second

    with database.write() as session:
        view = tasks.undo_last(session, ada, tasks.Pile("improve"))

    assert view is not None
    assert view.task_id == first
    assert held(database, ada).task_id == first
    assert held(database, bo).task_id == second  # it went back to the rest
    submit(database, answer(view, ada, choice="right"))
    log = judgements(database)
    assert [(row.choice, row.undone_at is None) for row in log] == [
        ("left", False),
        ("right", True),
    ]


def test_undo_walks_back_one_answer_at_a_time(database: Database):
    ids = add_pairs(database, 3)
    ada = person(database, "Ada")
    for choice in ("left", "skip", "tie"):
        submit(database, answer(held(database, ada), ada, choice=choice))

    undone: list[int | None] = []
    for _ in range(4):
        with database.write() as session:
            view = tasks.undo_last(session, ada, tasks.Pile("improve"))
            undone.append(view and view.task_id)

    assert undone == [*reversed(ids), None]
    assert progress(database) == tasks.Progress(done=0, open=3, skipped=0)


def test_nobody_undoes_what_others_said_or_in_another_room(database: Database):
    add_pairs(database, 1)
    ada, bo = person(database, "Ada"), person(database, "Bo")
    submit(database, answer(held(database, ada), ada))

    with database.write() as session:
        assert tasks.undo_last(session, bo, tasks.Pile("improve")) is None
        assert tasks.undo_last(session, ada, tasks.Pile("proof")) is None
    assert progress(database).done == 1


def test_a_late_repeat_does_not_undo_the_undo(database: Database):
    add_pairs(database, 1)
    ada = person(database, "Ada")
    submission = answer(held(database, ada), ada)
    first = submit(database, submission)
    with database.write() as session:
        tasks.undo_last(session, ada, tasks.Pile("improve"))

    assert submit(database, submission) == first
    assert progress(database).done == 0


def test_progress_counts_choices_without_skipped_and_undone_ones(database: Database):
    add_pairs(database, 6)
    ada = person(database, "Ada")
    for choice in ("left", "left", "both_bad", "skip", "right"):
        submit(database, answer(held(database, ada), ada, choice=choice))
    with database.write() as session:
        tasks.undo_last(session, ada, tasks.Pile("improve"))

    assert progress(database) == tasks.Progress(
        done=3, open=2, skipped=1, by_choice={"left": 2, "both_bad": 1}
    )


def test_a_pair_needs_two_replies_to_one_prompt(database: Database):
    with database.write() as session:
        one, other = reply(session, "a", "1"), reply(session, "b", "2")
        for left, right in ((one, other), (one, one)):
            with pytest.raises(DataError, match="same prompt"):
                tasks.add_pair(
                    session,
                    purpose="improve",
                    run_id=None,
                    left_sample_id=left,
                    right_sample_id=right,
                )


def test_many_people_at_once_judge_each_pair_exactly_once(database: Database):
    ids = add_pairs(database, 120)
    everybody = [person(database, f"Person {number}") for number in range(8)]
    writer = GroupWriter(database)
    seen: list[int] = []

    def work(who: int) -> None:
        while True:
            view = writer.submit(
                lambda session: tasks.claim_next(session, who, tasks.Pile("improve"), NOW)
            )
            if view is None:
                return
            seen.append(view.task_id)
            writer.submit(partial(tasks.submit, submission=answer(view, who)))

    threads = [threading.Thread(target=work, args=(who,)) for who in everybody]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()

    assert Counter(seen) == dict.fromkeys(ids, 1)
    assert progress(database).done == 120
