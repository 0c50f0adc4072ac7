"""Pairs of replies to judge: which prompts, which models, which side."""

from collections import Counter

import pytest
from sqlalchemy import select
from tests.tiny import put_tiny
from tests.unit.pipeline.stage_help import SMALL_FINETUNE, done, queue, run

from amenable.feedback import tasks
from amenable.pipeline.sample import NUM_PROOF_PAIRS
from amenable.pipeline.simulate import judge_what_waits
from amenable.pipeline.sources import install_starter
from amenable.pipeline.stage import execute
from amenable.pipeline.stages import STAGES
from amenable.store.samples import judged_prompt_keys, samples_of
from amenable.store.tables import TaskRow
from amenable.store.workspace import Workspace

SMALL = {"purpose": "improve", "num_prompts": 6, "max_new_tokens": 6}


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
        progress = tasks.progress(session, "improve")
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
        assert tasks.progress(session, "improve").open == 0
        assert len(samples_of(session, ended.id)) == 12  # what was said is kept all the same


def test_proof_sets_two_versions_side_by_side_on_prompts_nobody_judged(
    workspace: Workspace, base: str
):
    version = done(workspace, "finetune", base, SMALL_FINETUNE)
    done(workspace, "sample", version, SMALL)
    with workspace.database.write() as session:
        judge_what_waits(session, seed=1)
    config = {"purpose": "proof", "against": base, "max_new_tokens": 6}
    run_id = queue(workspace, "sample", version, config)
    ended = execute(workspace, run_id, STAGES)
    assert ended.status == "done", ended.error
    with workspace.database.read() as session:
        judged = judged_prompt_keys(session)
        kept = samples_of(session, run_id)
    assert len(judged) == 6
    assert not judged & {each.prompt_key for each in kept}
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


def test_a_stop_between_replies_leaves_nothing_half_done(workspace: Workspace, base: str):
    run_id = queue(workspace, "sample", base, SMALL)
    calls: list[bool] = []

    def leave() -> bool:
        calls.append(True)
        return len(calls) >= 3

    assert execute(workspace, run_id, STAGES, should_leave=leave).status == "stopped"
    with workspace.database.read() as session:
        assert samples_of(session, run_id) == []
        assert tasks.progress(session, "improve").open == 0
