"""Any order of claims, answers, repeats, undos and pauses keeps the log and the pairs in step."""

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import hypothesis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import select

from amenable.feedback import people, tasks
from amenable.feedback.tasks import PairView, Receipt, Submission
from amenable.records.conversation import Conversation
from amenable.records.errors import ConflictError
from amenable.records.sample import ModelRef, Sample, SamplingSettings
from amenable.store.database import Database
from amenable.store.samples import keep_sample
from amenable.store.tables import JudgementRow, TaskRow

NUM_PAIRS = 3
PEOPLE = st.integers(1, 3)
CHOICES = st.sampled_from(tasks.ANSWERS)


class BadNetwork(RuleBasedStateMachine):
    """Three people, three pairs, and browsers that send what they like as often as they like."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.database = Database.open(Path(self.folder.name) / "a.sqlite3")
        self.now = datetime(2026, 11, 22, tzinfo=UTC)
        self.views: list[tuple[int, PairView]] = []
        self.sent: list[Submission] = []
        self.acknowledged: dict[str, Receipt] = {}
        with self.database.write() as session:
            for name in ("Ada", "Bo", "Cy"):
                people.person(session, name)
            for number in range(NUM_PAIRS):
                sample = Sample(
                    prompt=Conversation.of(("user", "Hi")),
                    reply="Hello",
                    model=ModelRef("m", "0" * 64),
                    settings=SamplingSettings(),
                    seed=0,
                    stop_reason="stop",
                    num_tokens=1,
                )
                ids = [
                    keep_sample(session, sample, run_id="r", prompt_key=str(number))
                    for _ in range(2)
                ]
                tasks.add_pair(
                    session,
                    purpose="improve",
                    run_id="r",
                    left_sample_id=ids[0],
                    right_sample_id=ids[1],
                )

    def teardown(self) -> None:
        self.database.close()
        self.folder.cleanup()

    @rule(who=PEOPLE)
    def claim(self, who: int) -> None:
        with self.database.write() as session:
            view = tasks.claim_next(session, who, tasks.Pile("improve"), self.now)
        if view is not None:
            self.views.append((who, view))

    @rule(minutes=st.sampled_from([1, 10, 20, -30, 600]))
    def time_passes(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)

    @rule(which=st.integers(0), choice=CHOICES)
    def answer_some_view(self, which: int, choice: tasks.Answer) -> None:
        """The newest one or one from long ago, by whoever saw it."""
        if not self.views:
            return
        who, view = self.views[which % len(self.views)]
        self.send(
            Submission(
                submission_id=f"s-{len(self.sent)}",
                task_id=view.task_id,
                fence=view.fence,
                person_id=who,
                choice=choice,
                seconds_spent=1.0,
            )
        )

    @rule(which=st.integers(0))
    def send_again(self, which: int) -> None:
        if self.sent:
            self.send(self.sent[which % len(self.sent)])

    @rule(who=PEOPLE)
    def undo(self, who: int) -> None:
        with self.database.write() as session:
            view = tasks.undo_last(session, who, tasks.Pile("improve"))
        if view is not None:
            self.views.append((who, view))

    def send(self, submission: Submission) -> None:
        self.sent.append(submission)
        try:
            with self.database.write() as session:
                receipt = tasks.submit(session, submission)
        except ConflictError:
            assert submission.submission_id not in self.acknowledged
        else:
            assert self.acknowledged.setdefault(submission.submission_id, receipt) == receipt

    @invariant()
    def each_acknowledged_answer_is_kept_once(self) -> None:
        with self.database.read() as session:
            kept = {row.submission_id: row for row in session.scalars(select(JudgementRow))}
        assert kept.keys() == self.acknowledged.keys()

    @invariant()
    def a_pair_is_over_if_and_only_if_one_answer_stands(self) -> None:
        with self.database.read() as session:
            pairs = list(session.scalars(select(TaskRow)))
            standing = session.execute(
                select(JudgementRow.task_id, JudgementRow.choice).where(
                    JudgementRow.undone_at.is_(None)
                )
            ).all()
        assert len({task_id for task_id, _ in standing}) == len(standing)
        choices = {task_id: choice for task_id, choice in standing}  # noqa: C416 - rows, no pairs
        for pair in pairs:
            expected = {None: {"open", "claimed"}, "skip": {"skipped"}}
            assert pair.status in expected.get(choices.get(pair.id), {"done"})

    @invariant()
    def nobody_holds_two_pairs(self) -> None:
        with self.database.read() as session:
            holders = list(
                session.scalars(select(TaskRow.person_id).where(TaskRow.status == "claimed"))
            )
        assert len(holders) == len(set(holders))


def test_any_order_of_events_keeps_log_and_pairs_in_step():
    run_state_machine_as_test(
        BadNetwork,
        settings=hypothesis.settings(max_examples=40, stateful_step_count=30, deadline=None),
    )
