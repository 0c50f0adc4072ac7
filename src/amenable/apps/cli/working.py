"""A run seen through: executed here, or followed where the workspace's worker executes it."""

import signal
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from amenable.apps.cli.live import Watch
from amenable.apps.cli.options import again
from amenable.apps.cli.out import Out
from amenable.pipeline.processes import is_alive
from amenable.pipeline.stage import Stage, execute
from amenable.records.errors import AmenableError, WorkspaceError
from amenable.records.run import Run
from amenable.store import runs
from amenable.store.workspace import Workspace

LOOK_SECONDS = 0.5


class RunFailedError(AmenableError):
    """A run that did not come to its end."""


class Leave(Protocol):
    """Whether somebody wants to go; a threading.Event is one."""

    def is_set(self) -> bool: ...
    def wait(self, timeout: float, /) -> bool: ...


class Left(KeyboardInterrupt):
    """Ctrl-C, with a line that says how to go on."""


def stages() -> Mapping[str, Stage]:
    """All stages; this imports torch."""
    from amenable.pipeline.stages import STAGES

    return STAGES


@contextmanager
def hearing_ctrl_c(out: Out) -> Generator[threading.Event]:
    """The first Ctrl-C sets the event, so that work ends at a safe point; the second ends it."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def hear(number: int, frame: FrameType | None) -> None:
        if event.is_set():
            signal.default_int_handler(number, frame)
        event.set()
        out.say("Stopping at the next safe point (Ctrl-C again stops at once).")

    before = signal.signal(signal.SIGINT, hear)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)


def see_through(workspace: Workspace, out: Out, run_id: str) -> Run:
    """The run when it is done; Left after Ctrl-C, RunFailedError if it failed or was stopped."""
    with hearing_ctrl_c(out) as leave:
        try:
            with Watch(workspace, out, run_id=run_id):
                run = until_ended(workspace, out, run_id, leave)
        except KeyboardInterrupt as error:
            raise error if isinstance(error, Left) else _stopped(workspace.folder, run_id) from None
    if run.status == "done":
        return run
    if run.status == "stopped":
        left = _stopped(workspace.folder, run_id)
        raise left if leave.is_set() else RunFailedError(str(left))
    raise RunFailedError(f"Run {run_id} failed: {run.error}")


def until_ended(workspace: Workspace, out: Out, run_id: str, leave: Leave) -> Run:
    is_told = False
    while (run := _get(workspace, run_id)).status in runs.OPEN:
        lock = workspace.lock("worker")
        try:
            lock.acquire()
        except WorkspaceError:
            if not is_told:
                out.say(f"The worker of this workspace takes run {run_id}; following it.")
            is_told = True
            if leave.wait(LOOK_SECONDS):
                raise Left(
                    f"Run {run_id} goes on without this window. How far it is: "
                    f"{again(f'runs show {run_id}', workspace.folder)}"
                ) from None
            continue
        try:
            _execute(workspace, run_id, leave)
        finally:
            lock.release()
    return run


def _execute(workspace: Workspace, run_id: str, leave: Leave) -> None:
    with workspace.database.write() as session:
        runs.requeue_orphans(session, is_alive)
        is_ours = runs.get(session, run_id).status == "queued"
    if is_ours:
        execute(workspace, run_id, stages(), should_leave=leave.is_set)
    else:
        leave.wait(LOOK_SECONDS)


def _get(workspace: Workspace, run_id: str) -> Run:
    with workspace.database.read() as session:
        return runs.get(session, run_id)


def _stopped(folder: Path, run_id: str) -> Left:
    return Left(
        f"Run {run_id} stopped; what it did is kept. "
        f"Go on with: {again(f'runs resume {run_id}', folder)}"
    )


def as_json(run: Run) -> dict[str, Any]:
    """A run for scripts."""
    return {
        "run": run.id,
        "stage": run.stage,
        "status": run.status,
        "inputs": dict(run.inputs),
        "outputs": dict(run.outputs),
        "config": dict(run.config),
        "seed": run.seed,
        "versions": dict(run.versions),
        "created_at": run.created_at.isoformat(),
        "seconds": run.seconds,
        "peak_memory_bytes": run.peak_memory_bytes,
        "error": run.error,
    }
