"""The loop without a person, with stages that do nothing: what it does when one of them fails."""

import pytest

from amenable.pipeline.config import PrepareConfig
from amenable.pipeline.headless import UnfinishedError, run_headless
from amenable.pipeline.stage import Context, Stage
from amenable.records.errors import ModelError
from amenable.records.run import Run
from amenable.store import runs
from amenable.store.workspace import Workspace


def prepared(_: Context) -> dict[str, str]:
    return {"model": "base"}


def refused(_: Context) -> dict[str, str]:
    raise ModelError("The model is broken.")


def start(workspace: Workspace, stages: dict[str, Stage], heard: list[Run]) -> None:
    run_headless(workspace, stages, PrepareConfig(), base="base", on_run=heard.append)


def test_a_failed_run_is_named_and_tried_again_at_the_next_start(workspace: Workspace):
    heard: list[Run] = []
    with pytest.raises(
        UnfinishedError, match=r"Run finetune-.* failed: The model is broken\. Start"
    ):
        start(workspace, {"prepare": prepared, "finetune": refused}, heard)
    assert [run.stage for run in heard] == ["prepare", "finetune"]

    again: list[Run] = []
    with pytest.raises(UnfinishedError, match="Run finetune"):
        start(workspace, {"prepare": prepared, "finetune": refused}, again)
    assert [run.id for run in again] == [heard[1].id]  # the same run, and nothing done twice


def test_a_run_whose_process_was_killed_is_taken_up_again(workspace: Workspace):
    heard: list[Run] = []
    with pytest.raises(UnfinishedError):
        start(workspace, {"prepare": refused}, heard)
    with workspace.database.write() as session:
        runs.requeue(session, heard[0].id)
        runs.start(session, heard[0].id, "somebody@1")  # who died at once
    again: list[Run] = []
    with pytest.raises(UnfinishedError, match="finetune"):
        start(workspace, {"prepare": prepared, "finetune": refused}, again)
    assert [run.stage for run in again] == ["prepare", "finetune"]
    assert again[0].id == heard[0].id
