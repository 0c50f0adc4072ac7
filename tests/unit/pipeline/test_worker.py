"""The worker: one run at a time, orphans first, and the loop when nothing waits."""

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from amenable.pipeline import stage as stage_module
from amenable.pipeline import worker as worker_module
from amenable.pipeline.processes import process_name
from amenable.pipeline.stage import Context
from amenable.pipeline.worker import Worker
from amenable.records.errors import WorkspaceError
from amenable.records.run import Run
from amenable.store import runs
from amenable.store.locks import FileLock
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
    assert Worker(workspace, {"sample": work}).turn()
    assert statuses(workspace) == ["done"]


def test_what_a_living_process_works_on_is_left_to_it(workspace: Workspace):
    run_id = queue(workspace)
    with workspace.database.write() as session:
        runs.start(session, run_id, process_name(os.getppid()))

    assert not Worker(workspace, {}).turn()
    assert statuses(workspace) == ["running"]


def test_a_run_whose_end_could_not_be_written_down_goes_on(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
):
    queue(workspace)
    worker = Worker(workspace, {"sample": work})

    def full(*_: object) -> Run:
        raise WorkspaceError("The disk is full: nothing was kept.")

    with monkeypatch.context() as patch:
        patch.setattr(stage_module, "RECORD_SECONDS", 0.0)
        patch.setattr(runs, "finish", full)
        with pytest.raises(WorkspaceError):
            worker.turn()
    assert statuses(workspace) == ["running"]

    assert worker.turn()
    assert statuses(workspace) == ["done"]


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


def until(is_so: Callable[[], object]) -> None:
    """The test's own time limit ends a failure."""
    while not is_so():
        threading.Event().wait(0.005)


class CountingLock(FileLock):
    def __init__(self, workspace: Workspace) -> None:
        super().__init__(workspace.folder / "worker.lock", busy="A running worker already")
        self.num_tries = 0

    def acquire(self) -> None:
        self.num_tries += 1
        super().acquire()


def test_a_worker_waits_for_its_turn_and_says_so_once(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(worker_module, "PAUSE_SECONDS", 0.005)
    held, wanted = workspace.lock("worker"), CountingLock(workspace)

    def follow(session: Session) -> None:
        worker.leave()

    worker = Worker(workspace, {"sample": work}, follow=follow)
    queue(workspace)
    thread = threading.Thread(target=worker.run)
    with held, monkeypatch.context() as patch:
        patch.setattr(workspace, "lock", lambda _: wanted)  # pyright: ignore[reportUnknownLambdaType]
        thread.start()
        until(lambda: wanted.num_tries > 3)
        assert statuses(workspace) == ["queued"]
    thread.join()

    assert statuses(workspace) == ["done"]
    said = [line for line in caplog.messages if "running worker already" in line]
    assert len(said) == 1
    assert said[0].endswith("Waiting until it ends.")


WAITS = """
import logging, sys
from pathlib import Path
from amenable.pipeline import worker
from amenable.store.workspace import Workspace
logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
with Workspace.open(Path(sys.argv[1])) as workspace:
    worker.run_worker(workspace, {}, follow=None)
"""


@pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")
def test_a_waiting_worker_leaves_when_told(workspace: Workspace):
    command = [sys.executable, "-c", WAITS, str(workspace.folder)]
    with (
        workspace.lock("worker"),
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process,
    ):
        assert process.stdout is not None
        assert any("Waiting until it ends." in line for line in process.stdout)
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0


def test_a_worker_told_to_leave_ends_at_once(workspace: Workspace):
    worker = Worker(workspace, {})
    thread = threading.Thread(target=worker.run)
    thread.start()
    worker.leave()
    thread.join(5.0)

    assert not thread.is_alive()
