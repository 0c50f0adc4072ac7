"""Runs by the command line: what failed says why, and what a dead worker left can be had."""

from collections.abc import Mapping

import pytest

from amenable.apps.cli import working
from amenable.apps.cli.main import status_of
from amenable.pipeline.processes import process_name
from amenable.pipeline.stage import Context, Stage
from amenable.store import runs
from amenable.store.runs import RunEnd
from amenable.store.workspace import Workspace

DEAD = "999999@1"


def queued(workspace: Workspace) -> str:
    with workspace.database.write() as session:
        return runs.queue(session, stage="finetune", inputs={"model": "m"}, config={}, seed=1)


def started(workspace: Workspace, worker: str) -> str:
    run_id = queued(workspace)
    with workspace.database.write() as session:
        runs.start(session, run_id, worker)
    return run_id


def status(workspace: Workspace, run_id: str) -> str:
    with workspace.database.read() as session:
        return runs.get(session, run_id).status


def ask(workspace: Workspace, *words: str) -> int:
    return status_of([*words, "--workspace", str(workspace.folder)])


def test_the_list_says_what_was_made_or_why_nothing_was(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
):
    ends = [
        RunEnd(status="done", outputs={"model": "m-instruct-1"}),
        RunEnd(status="failed", error="The disk is full. Free some room, then continue this run."),
        RunEnd(status="failed", error="a long story " * 20),
    ]
    run_ids = [started(workspace, "1@1") for _ in ends]
    with workspace.database.write() as session:
        for run_id, end in zip(run_ids, ends, strict=True):
            runs.finish(session, run_id, "1@1", end)
        runs.requeue(session, run_ids[-1])  # what went wrong before is past

    assert ask(workspace, "runs", "list") == 0

    said = capsys.readouterr().out
    assert "m-instruct-1" in said
    assert "The disk is full. Free some room, then continue this run." in said
    assert "a long story" not in said


def test_a_run_whose_worker_died_stops_at_once(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
):
    run_id = started(workspace, DEAD)

    assert ask(workspace, "runs", "stop", run_id) == 0

    assert capsys.readouterr().out == f"Run {run_id} is stopped.\n"
    assert status(workspace, run_id) == "stopped"


def test_a_run_at_work_stops_at_a_safe_point(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
):
    run_id = started(workspace, process_name())

    assert ask(workspace, "runs", "stop", run_id) == 0

    assert "stops at its next safe point" in capsys.readouterr().out
    assert status(workspace, run_id) == "running"


@pytest.mark.parametrize("attempts", [1, runs.MOST_ATTEMPTS])
def test_a_run_whose_worker_died_goes_on_here(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, attempts: int
):
    def makes_a_model(context: Context) -> dict[str, str]:
        return {"model": "made"}

    def given() -> Mapping[str, Stage]:
        return {"finetune": makes_a_model}

    monkeypatch.setattr(working, "stages", given)
    run_id = queued(workspace)
    with workspace.database.write() as session:
        for _ in range(attempts):
            runs.requeue_orphans(session, lambda _: False)
            runs.start(session, run_id, DEAD)

    assert ask(workspace, "runs", "resume", run_id) == 0

    assert status(workspace, run_id) == "done"


def test_a_run_at_work_is_not_resumed(workspace: Workspace, capsys: pytest.CaptureFixture[str]):
    run_id = started(workspace, process_name())

    assert ask(workspace, "runs", "resume", run_id) == 2

    assert f"Run {run_id} is running already." in capsys.readouterr().err
