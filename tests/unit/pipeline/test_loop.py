"""The first loop walks from base model to proof by itself, wherever no person is needed."""

from datetime import UTC, datetime

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from amenable.feedback import people, tasks
from amenable.feedback.tasks import Answer, Purpose, Submission
from amenable.pipeline import loop
from amenable.pipeline.config import (
    AlignConfig,
    FinetuneConfig,
    PrepareConfig,
    SampleConfig,
    recorded,
)
from amenable.pipeline.history import NEWEST_VOTE, Votes
from amenable.pipeline.knobs import read_config
from amenable.pipeline.loop import LoopState
from amenable.records.conversation import Conversation
from amenable.records.errors import ConfigError, ConflictError
from amenable.records.run import Run, RunStatus
from amenable.records.sample import ModelRef, Sample, SamplingSettings
from amenable.store import library, runs
from amenable.store.database import Database
from amenable.store.library import ModelEntry
from amenable.store.runs import RunEnd
from amenable.store.samples import keep_sample
from amenable.store.tables import RunRow

BASE, V1, V2 = "gemma-3-270m", "gemma-3-270m-instruct-1", "gemma-3-270m-instruct-2"
V3 = "gemma-3-270m-instruct-3"
MADE = {"prepare": BASE, "finetune": V1}


def begin(session: Session, base: str = BASE) -> str:
    return loop.begin(session, PrepareConfig(accept_licence=True), base=base)


def execute_next(session: Session, status: RunStatus = "done") -> Run:
    """Play the worker."""
    run = runs.claim_next(session, "1@1.00")
    assert run is not None
    outputs = made(session, run) if status == "done" else {}
    end = RunEnd(status=status, outputs=outputs, error="why" if status == "failed" else None)
    if run.stage == "sample" and status == "done":
        add_pairs(session, 30 if run.config["purpose"] == "improve" else 12, run)
    return runs.finish(session, run.id, "1@1.00", end)


def made(session: Session, run: Run) -> dict[str, str]:
    if run.stage == "align":
        state = LoopState.of(session)
        name = f"{BASE}-instruct-{state.number + 1}" + ("-again" if state.has_child else "")
        votes = Votes.on(session, state.judged_pile)
        return {"model": name, "judged": str(votes.num), NEWEST_VOTE: str(votes.newest)}
    return {"model": MADE.get(run.stage, run.inputs.get("model", BASE))}


def add_pairs(session: Session, count: int, run: Run) -> None:
    purpose: Purpose = "improve" if run.config["purpose"] == "improve" else "proof"
    for number in range(count):
        sample = Sample(
            prompt=Conversation.of(("user", "Hi")),
            reply="Hello",
            model=ModelRef(run.inputs["model"], "0" * 64),
            settings=SamplingSettings(),
            seed=0,
            stop_reason="stop",
            num_tokens=1,
        )
        ids = [keep_sample(session, sample, run_id=run.id, prompt_key=str(number)) for _ in "ab"]
        tasks.add_pair(
            session,
            purpose=purpose,
            run_id=run.id,
            left_sample_id=ids[0],
            right_sample_id=ids[1],
        )


def judge(
    session: Session, count: int, *, purpose: Purpose = "improve", choice: Answer = "left"
) -> None:
    who = people.person(session, "Ada")
    for _ in range(count):
        state = LoopState.of(session)
        pile = state.proof_pile if purpose == "proof" else state.judged_pile
        view = tasks.claim_next(session, who, pile, datetime.now(UTC))
        assert view is not None
        submission_id = f"{purpose}-{view.task_id}-{view.fence}"
        tasks.submit(
            session,
            Submission(
                submission_id=submission_id,
                task_id=view.task_id,
                fence=view.fence,
                person_id=who,
                choice=choice,
                seconds_spent=1.0,
            ),
        )


def take_back(session: Session, purpose: Purpose) -> None:
    state = LoopState.of(session)
    pile = state.proof_pile if purpose == "proof" else state.judged_pile
    assert tasks.undo_last(session, people.person(session, "Ada"), pile) is not None


def walk(session: Session) -> list[tuple[str, dict[str, str]]]:
    """Advance and execute until a person is needed."""
    walked: list[tuple[str, dict[str, str]]] = []
    while loop.advance(session) is not None:
        run = execute_next(session)
        walked.append((run.stage, dict(run.inputs)))
    return walked


def to_judging(session: Session) -> None:
    begin(session)
    execute_next(session)
    walk(session)


def states(session: Session) -> str:
    """The steps' states in order, by their first letters: d(one) r(unning) n(ext) w(aiting) f."""
    return "".join(step.status[0] for step in LoopState.of(session).steps)


def test_nothing_begins_by_itself(database: Database):
    with database.write() as session:
        assert loop.advance(session) is None
        state = LoopState.of(session)

    assert [step.status for step in state.steps] == ["next", *["waiting"] * 5]
    assert (state.base, state.parent, state.child) == (BASE, V1, V2)
    assert state.next_step.deed == "choose"


def test_the_loop_runs_by_itself_until_people_are_needed_and_then_to_the_proof(database: Database):
    with database.write() as session:
        begin(session)
        execute_next(session)
        assert walk(session) == [
            ("finetune", {"model": BASE}),
            ("sample", {"model": V1}),
            ("compare", {"models": f"{BASE},{V1}"}),
        ]
        judge(session, 20)
        loop.improve(session, AlignConfig())
        execute_next(session)
        assert walk(session) == [
            ("sample", {"model": V2}),
            ("compare", {"models": f"{BASE},{V1},{V2}"}),
        ]
        state = LoopState.of(session)
        assert states(session) == "dddddd"
        assert state.next_step.deed == "judge_proof"
        assert "12 blind pairs" in state.next_step.sentence
        judge(session, 12, purpose="proof")
        # Measured once more, with what people chose.
        models = f"{BASE},{V1},{V2}"
        votes = {"blind": "12", "newest_vote": "32"}  # 20 were given before
        assert walk(session) == [("compare", {"models": models, **votes})]
        assert LoopState.of(session).next_step.deed == "read"
        assert LoopState.of(session).is_closed


def test_queued_runs_carry_what_their_stage_reads(database: Database):
    with database.write() as session:
        to_judging(session)
        judge(session, 20)
        loop.improve(session, AlignConfig(max_tokens=99))
        execute_next(session)
        loop.advance(session)
        found = {run.stage: run for run in reversed(runs.list_runs(session))}

    assert read_config(PrepareConfig, found["prepare"].config).accept_licence
    assert found["finetune"].config == recorded(FinetuneConfig())
    assert found["align"].config == recorded(AlignConfig(max_tokens=99))
    assert found["align"].inputs["model"] == V1
    proof = read_config(SampleConfig, found["sample"].config)
    assert (proof.purpose, proof.against, proof.num_prompts) == ("proof", V1, 12)


def test_each_moment_says_what_is_done_at_work_next_and_waiting(database: Database):
    with database.write() as session:
        begin(session)
        seen = [states(session)]
        execute_next(session)
        seen.append(states(session))
        for _ in range(3):
            loop.advance(session)
            seen.append(states(session))
            execute_next(session)
        seen.append(states(session))
        judge(session, 20)
        seen.append(states(session))
        loop.improve(session, AlignConfig())
        seen.append(states(session))
        execute_next(session)
        loop.advance(session)
        seen.append(states(session))

    assert seen == [
        "rwwwww",
        "dwwwww",
        "drwwww",
        "ddrwww",
        "dddnwr",  # people may judge while version 1 is measured
        "dddnww",
        "dddd" + "nw",
        "dddd" + "rw",
        "dddddr",
    ]


def test_the_next_step_counts_what_is_missing(database: Database):
    with database.write() as session:
        to_judging(session)
        assert LoopState.of(session).next_step.sentence == "Judge 20 more, then Improve can begin."
        judge(session, 8)
        assert LoopState.of(session).next_step.sentence == "Judge 12 more, then Improve can begin."
        judge(session, 12)
        assert LoopState.of(session).next_step.sentence.startswith("Improve: ")


def test_when_all_pairs_are_skipped_more_are_needed(database: Database):
    with database.write() as session:
        to_judging(session)
        judge(session, 30, choice="skip")
        assert "draw more replies" in LoopState.of(session).next_step.sentence


@pytest.mark.parametrize(
    ("count", "choice", "says"),
    [
        (0, "left", "judge 20 more"),
        (19, "left", "judge 1 more"),
        (30, "skip", "judge 20 more"),
        (20, "tie", "preferred or mended replies is 0"),
    ],
)
def test_too_little_to_learn_from_is_refused(
    database: Database, count: int, choice: Answer, says: str
):
    with database.write() as session:
        to_judging(session)
        judge(session, count, choice=choice)
        with pytest.raises(ConfigError, match=says):
            loop.improve(session, AlignConfig())


def test_one_improvement_at_a_time(database: Database):
    with database.write() as session:
        to_judging(session)
        judge(session, 20)
        loop.improve(session, AlignConfig())
        with pytest.raises(ConflictError, match="queued already"):
            loop.improve(session, AlignConfig())


@pytest.mark.parametrize("ended", ["failed", "stopped"])
def test_what_failed_or_was_stopped_waits_for_a_person(database: Database, ended: RunStatus):
    with database.write() as session:
        begin(session)
        execute_next(session)
        loop.advance(session)
        run = execute_next(session, ended)

        assert loop.advance(session) is None
        state = LoopState.of(session)
        assert state.step("finetune").status == "failed"
        assert (state.next_step.deed, state.next_step.run_id) == ("continue", run.id)

        runs.requeue(session, run.id)
        assert LoopState.of(session).step("finetune").status == "running"
        execute_next(session)
        assert len(walk(session)) == 2


def test_a_failed_first_comparison_is_seen_and_holds_up_nobody(database: Database):
    with database.write() as session:
        begin(session)
        execute_next(session)
        for _ in range(2):
            loop.advance(session)
            execute_next(session)
        loop.advance(session)
        execute_next(session, "failed")
        judge(session, 20)

        assert states(session) == "ddddnf"
        loop.improve(session, AlignConfig())


def test_beginning_twice_begins_once(database: Database):
    with database.write() as session:
        first = begin(session)
        assert begin(session) == first
        execute_next(session)
        assert begin(session) == first


@pytest.mark.parametrize("first", ["/models/Mine", "mine"])
def test_a_base_is_the_same_by_its_name_and_by_where_it_comes_from(database: Database, first: str):
    entry = ModelEntry(
        name="mine",
        sha256="0" * 64,
        kind="base",
        chat_form="plain",
        licence="CC0",
        origin="/models/Mine",
        folder="library/mine",
    )
    with database.write() as session:
        library.add_model(session, entry)
        run_id = begin(session, first)
        runs.start(session, run_id, "1@1.00")
        runs.finish(session, run_id, "1@1.00", RunEnd(status="done", outputs={"model": "mine"}))

        assert begin(session, "/models/Mine") == begin(session, "mine") == run_id
        assert begin(session, "/models/Other") != run_id


def test_a_failed_beginning_can_be_repeated(database: Database):
    with database.write() as session:
        first = begin(session)
        execute_next(session, "failed")

        assert begin(session) != first
        assert states(session) == "rwwwww"


def test_another_base_begins_a_loop_of_its_own(database: Database):
    with database.write() as session:
        to_judging(session)
        begin(session, base="smol")
        run = runs.claim_next(session, "1@1.00")
        assert run is not None
        end = RunEnd(status="done", outputs={"model": "smol-2"})
        runs.finish(session, run.id, "1@1.00", end)
        loop.advance(session)
        state = LoopState.of(session)

    # The library called it otherwise than asked for; what follows uses the library's name.
    assert (state.base, state.parent) == ("smol-2", "smol-2-instruct-1")
    assert state.step("finetune").status == "running"
    assert not state.has_parent


def test_a_model_fetched_for_other_ends_disturbs_no_loop(database: Database):
    with database.write() as session:
        to_judging(session)
        runs.queue(session, stage="prepare", inputs={"model": "other"}, config={}, seed=0)
        execute_next(session, "failed")

        assert states(session) == "dddnww"


def test_names_follow_what_the_stages_made(database: Database):
    with database.write() as session:
        begin(session)
        execute_next(session)
        loop.advance(session)
        run = runs.claim_next(session, "1@1.00")
        assert run is not None
        end = RunEnd(status="done", outputs={"model": f"{V1}-2"})
        runs.finish(session, run.id, "1@1.00", end)
        sample = runs.get(session, str(loop.advance(session)))

    assert sample.inputs == {"model": f"{V1}-2"}


def to_the_end(session: Session) -> None:
    """Through a whole round, blind pairs and all."""
    judge(session, 20)
    loop.improve(session, AlignConfig())
    execute_next(session)
    walk(session)
    judge(session, 12, purpose="proof")
    walk(session)


def test_the_loop_goes_round_again(database: Database):
    with database.write() as session:
        to_judging(session)
        with pytest.raises(ConflictError, match="not over yet"):
            loop.go_round_again(session)
        to_the_end(session)
        loop.go_round_again(session)
        state = LoopState.of(session)
        assert (state.parent, state.child, state.number) == (V2, V3, 2)
        assert (states(session), state.judged.done) == ("ddrwww", 0)
        execute_next(session)

        # Ten pairs of version 1 were left; they are not handed out in this round.
        assert (states(session), LoopState.of(session).judged.open) == ("dddnww", 30)
        assert walk(session) == []
        judge(session, 20)
        loop.improve(session, AlignConfig())
        run = execute_next(session)
        assert run.inputs["model"] == V2
        assert walk(session) == [
            ("sample", {"model": V3}),
            ("compare", {"models": f"{BASE},{V2},{V3}"}),
        ]
        judge(session, 12, purpose="proof")
        walk(session)
        assert LoopState.of(session).is_closed
        loop.go_round_again(session)
        assert LoopState.of(session).number == 3


def test_more_judgements_improve_the_same_version_once_more(database: Database):
    with database.write() as session:
        to_judging(session)
        to_the_end(session)
        assert not LoopState.of(session).can_improve
        with pytest.raises(ConflictError, match="judge some more"):
            loop.improve(session, AlignConfig())
        judge(session, 3)
        assert LoopState.of(session).can_improve
        loop.improve(session, AlignConfig())
        assert execute_next(session).inputs["model"] == V1
        again = f"{V2}-again"
        assert LoopState.of(session).child == again
        assert walk(session) == [
            ("sample", {"model": again}),
            ("compare", {"models": f"{BASE},{V1},{again}"}),
        ]


def test_a_blind_vote_that_is_changed_is_measured(database: Database):
    with database.write() as session:
        to_judging(session)
        to_the_end(session)
        take_back(session, "proof")
        assert walk(session) == []
        judge(session, 1, purpose="proof", choice="right")
        votes = {"blind": "12", "newest_vote": "33"}
        assert walk(session) == [("compare", {"models": f"{BASE},{V1},{V2}", **votes})]
        assert walk(session) == []
        assert LoopState.of(session).is_closed


def test_a_vote_that_is_changed_can_be_learned_from(database: Database):
    with database.write() as session:
        to_judging(session)
        judge(session, 21)
        loop.improve(session, AlignConfig())
        execute_next(session)
        take_back(session, "improve")
        assert not LoopState.of(session).can_improve
        judge(session, 1, choice="right")
        assert LoopState.of(session).can_improve
        loop.improve(session, AlignConfig())


def test_runs_that_did_not_write_down_their_newest_vote_go_by_the_number(database: Database):
    with database.write() as session:
        to_judging(session)
        to_the_end(session)
        for row in session.scalars(select(RunRow)):
            row.inputs = {role: name for role, name in row.inputs.items() if role != NEWEST_VOTE}
            row.outputs = {role: name for role, name in row.outputs.items() if role != NEWEST_VOTE}

        assert walk(session) == []
        assert LoopState.of(session).is_closed
        assert not LoopState.of(session).can_improve
        judge(session, 1)
        assert LoopState.of(session).can_improve


def test_more_replies_are_drawn_with_another_seed(database: Database):
    with database.write() as session:
        with pytest.raises(ConflictError, match="no version yet"):
            loop.draw_more(session)
        to_judging(session)
        judge(session, 30, choice="skip")
        first = runs.get(session, loop.draw_more(session))
        with pytest.raises(ConflictError, match="already"):
            loop.draw_more(session)
        execute_next(session)

        state = LoopState.of(session)
        assert (state.judged.open, state.judged.skipped) == (30, 30)
        assert first.seed != runs.list_runs(session, stage="sample")[-1].seed


def test_a_loop_of_its_own_begins_without_older_judgements(database: Database):
    with database.write() as session:
        to_judging(session)
        judge(session, 25)
        loop.begin_anew(session, PrepareConfig(), base="smol")
        state = LoopState.of(session)
        assert (state.judged.done, state.judged.open) == (0, 0)


def test_what_is_trained_by_hand_meanwhile_disturbs_no_loop(database: Database):
    with database.write() as session:
        to_judging(session)
        for model in (BASE, "other"):
            runs.queue(session, stage="finetune", inputs={"model": model}, config={}, seed=0)
            run = runs.claim_next(session, "1@1.00")
            assert run is not None
            end = RunEnd(status="done", outputs={"model": f"{model}-by-hand"})
            runs.finish(session, run.id, "1@1.00", end)
        assert loop.advance(session) is None
        assert LoopState.of(session).parent == V1
