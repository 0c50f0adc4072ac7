"""The worker: one run at a time, orphans first, and the loop when nothing waits."""

import threading

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from amenable.pipeline import worker as worker_module
from amenable.pipeline.processes import process_name
from amenable.pipeline.stage import Context
from amenable.pipeline.worker import Worker
from amenable.records.errors import WorkspaceError
from amenable.store import runs
from amenable.store.tables import RunRow
from amenable.store.workspace import Workspace


def queue(workspace: Workspace, stage: str = "sample") -> str:
    with workspace.database.write() as session:
        return runs.queue(session, stage=stage, inputs={}, config={}, seed=0)


def statuses(workspace: Workspace) -> list[str]:
    with workspace.database.read() as session:
        return [run.status for run in reversed(runs.list_runs(session))]


def work(context: Context) -> dict[str, str]:
    return {"sample": context.run.id}


def test_runs_are_executed_in_the_order_they_were_queued(workspace: Workspace):
    order: list[str] = []

    def note(context: Context) -> dict[str, str]:
        order.append(context.run.id)
        return {}

    queued = [queue(workspace) for _ in range(3)]
    worker = Worker(workspace, {"sample": note})

    assert [worker.turn() for _ in range(4)] == [True, True, True, False]
    assert order == queued
    assert statuses(workspace) == ["done"] * 3


def test_a_failed_run_does_not_hold_up_the_next(workspace: Workspace):
    queue(workspace, "unknown")
    queue(workspace)
    worker = Worker(workspace, {"sample": work})

    assert [worker.turn(), worker.turn()] == [True, True]
    assert statuses(workspace) == ["failed", "done"]


def test_when_nothing_waits_the_loop_is_asked(workspace: Workspace):
    asked: list[int] = []

    def follow(session: Session) -> None:
        asked.append(len(asked))
        if len(asked) == 1:
            runs.queue(session, stage="sample", inputs={}, config={}, seed=0)

    worker = Worker(workspace, {"sample": work}, follow=follow)

    # It queues a run, which is executed; then it has nothing more.
    assert [worker.turn(), worker.turn(), worker.turn()] == [True, True, False]
    assert statuses(workspace) == ["done"]
    assert len(asked) == 2


def test_what_a_dead_worker_left_goes_on_here(workspace: Workspace):
    run_id = queue(workspace)
    with workspace.database.write() as session:
        runs.start(session, run_id, "1@1.00")
        session.execute(update(RunRow).values(worker="999999@1.00"))
    worker = Worker(workspace, {"sample": work})

    assert worker.requeue_orphans() == [run_id]
    assert worker.turn()
    assert statuses(workspace) == ["done"]


def test_what_a_living_process_works_on_is_left_to_it(workspace: Workspace):
    run_id = queue(workspace)
    with workspace.database.write() as session:
        runs.start(session, run_id, process_name())

    assert Worker(workspace, {}).requeue_orphans() == []
    assert statuses(workspace) == ["running"]


def test_leaving_stops_the_run_at_a_safe_point_and_puts_it_back(workspace: Workspace):
    def leave_midway(context: Context) -> dict[str, str]:
        worker.leave()
        context.stop_here()
        return {}

    queue(workspace)
    worker = Worker(workspace, {"sample": leave_midway})
    worker.run()

    assert statuses(workspace) == ["queued"]


def test_leaving_keeps_what_a_person_stopped_stopped(workspace: Workspace):
    def stopped_by_hand(context: Context) -> dict[str, str]:
        with workspace.database.write() as session:
            runs.request_stop(session, context.run.id)
        worker.leave()
        context.stop_here()
        return {}

    queue(workspace)
    worker = Worker(workspace, {"sample": stopped_by_hand})
    worker.run()

    assert statuses(workspace) == ["stopped"]


@pytest.mark.parametrize("error", [WorkspaceError("busy"), ZeroDivisionError("a bug")])
def test_trouble_between_runs_ends_no_worker(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    monkeypatch.setattr(worker_module, "AFTER_TROUBLE_SECONDS", 0.0)
    monkeypatch.setattr(worker_module, "PAUSE_SECONDS", 0.0)
    asked: list[int] = []

    def follow(session: Session) -> None:
        asked.append(1)
        if len(asked) == 1:
            raise error
        worker.leave()

    worker = Worker(workspace, {}, follow=follow)
    worker.run()

    assert len(asked) == 2


def test_a_worker_told_to_leave_ends_at_once(workspace: Workspace):
    worker = Worker(workspace, {})
    thread = threading.Thread(target=worker.run)
    thread.start()
    worker.leave()
    thread.join(5.0)

    assert not thread.is_alive()
