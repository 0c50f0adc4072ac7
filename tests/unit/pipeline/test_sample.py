"""Pairs of replies to judge: which prompts, which models, which side."""

from collections import Counter
from collections.abc import Callable

import pytest
from sqlalchemy import select
from tests.tiny import CONTEXT, put_tiny
from tests.unit.pipeline.stage_help import SMALL_FINETUNE, done, queue, run

from amenable.feedback import tasks
from amenable.pipeline.config import NUM_PROOF_PAIRS
from amenable.pipeline.simulate import judge_what_waits
from amenable.pipeline.sources import Sources, install_starter
from amenable.pipeline.stage import execute, resume
from amenable.pipeline.stages import STAGES
from amenable.records.run import Run
from amenable.store import library
from amenable.store.library import DatasetEntry
from amenable.store.samples import judged_prompts, samples_of
from amenable.store.tables import RunRow, TaskRow
from amenable.store.workspace import Workspace

SMALL = {"purpose": "improve", "num_prompts": 6, "max_new_tokens": 6}
IMPROVE = [tasks.Pile("improve")]


def ask_our_own(workspace: Workspace, *texts: str, name: str = "own") -> None:
    """From now on these prompts are replied to, under the keys own-0, own-1 and so on."""
    bodies = [
        {
            "type": "prompt",
            "messages": [{"role": "user", "content": text}],
            "key": f"own-{at}",
            "family": "",
            "checks": [],
        }
        for at, text in enumerate([*texts, "Sealed."])
    ]
    entry = DatasetEntry(name=name, sha256="0" * 64, kind="prompt-only", source="a test")
    with workspace.database.write() as session:
        library.add_dataset(session, entry, bodies, exam_positions=[len(texts)])
        Sources(prompts=(name,)).keep(session)


def keys_of(workspace: Workspace, ended: Run) -> set[str]:
    assert ended.status == "done", ended.error
    with workspace.database.read() as session:
        return {each.prompt_key for each in samples_of(session, ended.id)}


def judge_all(workspace: Workspace) -> None:
    with workspace.database.write() as session:
        judge_what_waits(session, IMPROVE, seed=1)


@pytest.fixture
def base(workspace: Workspace) -> str:
    install_starter(workspace)
    return put_tiny(workspace)


def test_every_prompt_gets_two_replies_with_their_provenance(workspace: Workspace, base: str):
    run_id = queue(workspace, "sample", base, SMALL)
    ended = execute(workspace, run_id, STAGES)
    assert ended.outputs == {"model": base, "pairs": "6"}, ended.error
    with workspace.database.read() as session:
        kept = samples_of(session, run_id)
        progress = tasks.progress(session, tasks.Pile("improve"))
        purposes = {task.purpose for task in session.scalars(select(TaskRow))}
    assert set(Counter(each.prompt_key for each in kept).values()) == {2}
    assert len({each.sample.seed for each in kept}) == 12
    assert all(each.family for each in kept)
    assert any(each.checks for each in kept)
    assert {each.sample.settings.temperature for each in kept} == {0.9}
    assert (progress.open, progress.done, purposes) == (6, 0, {"improve"})


def test_the_same_seed_draws_the_same(workspace: Workspace, base: str):
    found: list[list[tuple[str, str]]] = []
    for _ in range(2):
        run_id = queue(workspace, "sample", base, SMALL)
        execute(workspace, run_id, STAGES)
        with workspace.database.read() as session:
            kept = samples_of(session, run_id)
        found.append([(each.prompt_key, each.sample.reply) for each in kept])
    assert found[0] == found[1]


def test_equal_replies_are_no_pair(workspace: Workspace, base: str):
    ended = run(workspace, "sample", base, SMALL | {"temperature": 0})
    assert ended.outputs["pairs"] == "0"
    with workspace.database.read() as session:
        assert tasks.progress(session, tasks.Pile("improve")).open == 0
        assert len(samples_of(session, ended.id)) == 12  # what was said is kept all the same


def test_proof_sets_two_versions_side_by_side_on_prompts_nobody_judged(
    workspace: Workspace, base: str
):
    version = done(workspace, "finetune", base, SMALL_FINETUNE)
    done(workspace, "sample", version, SMALL)
    with workspace.database.write() as session:
        judge_what_waits(session, [tasks.Pile("improve")], seed=1)
    config = {"purpose": "proof", "against": base, "num_prompts": 12, "max_new_tokens": 6}
    run_id = queue(workspace, "sample", version, config)
    ended = execute(workspace, run_id, STAGES)
    assert ended.status == "done", ended.error
    with workspace.database.read() as session:
        judged = judged_prompts(session)
        kept = samples_of(session, run_id)
    assert len(judged) == 6
    assert not judged & {each.sample.prompt for each in kept}
    assert len(kept) == 2 * NUM_PROOF_PAIRS
    left = Counter(each.sample.model.name for each in kept[0::2])
    assert set(left) == {base, version}  # neither model keeps to one side
    assert Counter(each.sample.model.name for each in kept) == {base: 12, version: 12}


def test_proof_needs_the_other_version(workspace: Workspace, base: str):
    ended = run(workspace, "sample", base, {"purpose": "proof"})
    assert "name the other version" in str(ended.error)


def test_without_prompts_it_says_where_to_get_some(workspace: Workspace):
    ended = run(workspace, "sample", put_tiny(workspace), SMALL)
    assert ended.status == "failed"
    assert "a fault of this program" not in str(ended.error)


def leaving_after(num: int) -> Callable[[], bool]:
    calls: list[bool] = []

    def leave() -> bool:
        calls.append(True)
        return len(calls) >= num

    return leave


def test_a_stop_between_replies_loses_none_of_them(workspace: Workspace, base: str):
    whole = run(workspace, "sample", base, SMALL)
    run_id = queue(workspace, "sample", base, SMALL)
    ended = execute(workspace, run_id, STAGES, should_leave=leaving_after(3))
    assert ended.status == "stopped"
    with workspace.database.read() as session:
        before = samples_of(session, run_id)
        pairs = session.scalars(select(TaskRow).where(TaskRow.run_id == run_id)).all()
    assert (len(before), pairs) == (3, [])

    resume(workspace, run_id)
    assert execute(workspace, run_id, STAGES).outputs == whole.outputs
    with workspace.database.read() as session:
        after = samples_of(session, run_id)
        unbroken = samples_of(session, whole.id)
    assert after[:3] == before  # none of them was drawn again
    said = [{(each.prompt_key, each.sample) for each in kept} for kept in (after, unbroken)]
    assert (len(after), said[0]) == (12, said[1])


def test_a_run_that_died_after_its_pairs_were_laid_out_lays_them_out_once(
    workspace: Workspace, base: str
):
    ended = run(workspace, "sample", base, SMALL)
    with workspace.database.write() as session:
        session.get_one(RunRow, ended.id).status = "failed"
    resume(workspace, ended.id)

    assert execute(workspace, ended.id, STAGES).outputs == ended.outputs

    with workspace.database.read() as session:
        assert tasks.progress(session, tasks.Pile("improve")).open == 6
        assert len(samples_of(session, ended.id)) == 12


def test_prompts_too_long_for_the_model_are_left_out_and_counted(workspace: Workspace, base: str):
    ask_our_own(workspace, "Hi", "word " * CONTEXT, "Who?", "much " * CONTEXT, "Why?")
    ended = run(workspace, "sample", base, SMALL)
    assert ended.outputs == {"model": base, "pairs": "3", "left_out": "2"}, ended.error
    assert keys_of(workspace, ended) == {"own-0", "own-2", "own-4"}


def test_when_no_prompt_fits_it_says_so_in_one_line(workspace: Workspace, base: str):
    ask_our_own(workspace, "word " * CONTEXT)
    ended = run(workspace, "sample", base, SMALL)
    assert ended.error is not None
    assert ended.error.startswith("No prompt leaves room for a reply of 6 tokens.")


def test_some_prompts_are_left_aside_for_proof_however_many_are_wanted(
    workspace: Workspace, base: str
):
    ask_our_own(workspace, *(f"Request {at}" for at in range(50)))
    every = {f"own-{at}" for at in range(50)}
    drawn = keys_of(workspace, run(workspace, "sample", base, SMALL | {"num_prompts": 99}))
    assert len(drawn) == 50 - 12
    judge_all(workspace)

    proof = {"purpose": "proof", "against": base, "num_prompts": 99, "max_new_tokens": 6}
    assert keys_of(workspace, run(workspace, "sample", base, proof)) == every - drawn


def test_another_seed_leaves_the_same_prompts_aside(workspace: Workspace, base: str):
    ask_our_own(workspace, *(f"Request {at}" for at in range(50)))
    found: list[set[str]] = []
    for seed in (1, 2):
        run_id = queue(workspace, "sample", base, SMALL | {"num_prompts": 99}, seed=seed)
        found.append(keys_of(workspace, execute(workspace, run_id, STAGES)))
    assert found[0] == found[1]


def test_the_next_round_leaves_other_prompts_aside(workspace: Workspace, base: str):
    """Those of the first proof were judged by then."""
    ask_our_own(workspace, *(f"Request {at}" for at in range(50)))
    done(workspace, "sample", base, SMALL)
    judge_all(workspace)
    proof = {"purpose": "proof", "against": base, "num_prompts": 12, "max_new_tokens": 6}
    first = keys_of(workspace, run(workspace, "sample", base, proof))
    with workspace.database.write() as session:
        judge_what_waits(session, [tasks.Pile("proof")], seed=1)
    drawn = keys_of(workspace, run(workspace, "sample", base, SMALL | {"num_prompts": 99}))
    judge_all(workspace)
    second = keys_of(workspace, run(workspace, "sample", base, proof))
    assert (len(first), len(second)) == (12, 12)
    assert not second & (first | drawn)


def test_a_prompt_counts_as_judged_by_its_words_and_not_by_its_key(workspace: Workspace, base: str):
    ask_our_own(workspace, *(f"Request {at}" for at in range(6)))
    done(workspace, "sample", base, SMALL)
    judge_all(workspace)
    ask_our_own(workspace, "Other 0", "Request 0", "Other 2", "Other 3", name="other")
    proof = {"purpose": "proof", "against": base, "num_prompts": 12, "max_new_tokens": 6}
    drawn = keys_of(workspace, run(workspace, "sample", base, proof))
    assert drawn == {"own-0", "own-2", "own-3"}


def test_a_prompt_that_stands_twice_is_left_aside_twice(workspace: Workspace, base: str):
    ask_our_own(
        workspace, *(f"Request {at}" for at in range(50)), *(f"Request {at}" for at in range(50))
    )
    done(workspace, "sample", base, SMALL | {"num_prompts": 99})
    judge_all(workspace)
    proof = {"purpose": "proof", "against": base, "num_prompts": 12, "max_new_tokens": 6}
    assert len(keys_of(workspace, run(workspace, "sample", base, proof))) == 12


def test_proof_takes_fewer_where_few_are_left_and_does_without_where_none_is(
    workspace: Workspace, base: str
):
    ask_our_own(workspace, *(f"Request {at}" for at in range(8)))
    proof = {"purpose": "proof", "against": base, "num_prompts": 12, "max_new_tokens": 6}
    drawn = keys_of(workspace, run(workspace, "sample", base, SMALL))
    assert len(drawn) == 6
    judge_all(workspace)
    assert len(keys_of(workspace, run(workspace, "sample", base, proof))) == 2
    with workspace.database.write() as session:
        judge_what_waits(session, [tasks.Pile("proof")], seed=1)
    assert run(workspace, "sample", base, proof).outputs == {"model": base, "pairs": "0"}
