"""Runs of a workspace in child processes that are killed, not asked, at a chosen moment."""

import multiprocessing
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from tests import tiny  # also for its single thread, without which no two runs are alike

from amenable.pipeline.stage import execute
from amenable.pipeline.stages import STAGES
from amenable.store import runs
from amenable.store.workspace import Workspace
from amenable.training import fit, state

Phase = Literal["before the save", "within the save", "after the save"]
assert tiny.FAMILIES

# One process imports torch once and forks from there; Windows has no fork and imports it each time.
_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
context: Any = multiprocessing.get_context(_METHOD)
if _METHOD == "forkserver":
    context.set_forkserver_preload(["tests.equivalence.killed"])


@dataclass(frozen=True, slots=True)
class Moment:
    """When to die: at the checkpoint of a step."""

    step: int
    phase: Phase


def live(folder: Path, run_id: str, moment: Moment | None = None) -> str:
    """One life of a run in a process of its own; its status, or "killed"."""
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(folder, run_id, moment, theirs))
    process.start()
    theirs.close()
    try:
        said = ours.recv()
    finally:
        process.kill()  # SIGKILL; on Windows TerminateProcess, which cannot be refused either
        process.join()
    return said


def _work(folder: Path, run_id: str, moment: Moment | None, parent: Connection) -> None:
    if moment is not None:
        _wait_at(moment, parent)
    with Workspace.open(folder) as workspace:
        with workspace.database.write() as session:
            runs.requeue_orphans(session, lambda _: False)
        ended = execute(workspace, run_id, STAGES)
    parent.send(ended.error or ended.status)


def _wait_at(moment: Moment, parent: Connection) -> None:
    """Stand still at the moment and say so; the parent does the rest."""
    save, asdict = fit.save_checkpoint, state.asdict
    here: list[int] = []

    def wait() -> None:
        parent.send("killed")
        threading.Event().wait()

    def save_or_wait(folder: Path, progress: state.Progress, *rest: Any) -> None:
        here[:] = [progress.step]
        if here == [moment.step] and moment.phase == "before the save":
            wait()
        save(folder, progress, *rest)
        if here == [moment.step] and moment.phase == "after the save":
            wait()

    def asdict_or_wait(progress: Any) -> dict[str, Any]:
        if here == [moment.step] and moment.phase == "within the save":
            wait()
        return asdict(progress)

    fit.save_checkpoint = save_or_wait
    state.asdict = asdict_or_wait
