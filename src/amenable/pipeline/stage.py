"""Runs a stage and records it whatever happens: outputs, versions, time, memory, or the error."""

import gc
import logging
import platform
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import psutil

from amenable.models.faults import is_out_of_memory
from amenable.models.memory import give_back
from amenable.pipeline.processes import process_name
from amenable.pipeline.progress import RunLog
from amenable.records.errors import AmenableError, NotFoundError, WorkspaceError
from amenable.records.run import Run
from amenable.store import runs
from amenable.store.artifacts import is_disk_full, write_whole
from amenable.store.runs import RunEnd
from amenable.store.workspace import Workspace

PACKAGES = ("amenable", "torch", "transformers")
PULSE_SECONDS = 1.0
HEARTBEAT_SECONDS = 10.0
RECORD_SECONDS = 120.0
"""How long the end of a run waits for room or its turn; less than a frozen worker is given."""
RECORD_PAUSE_SECONDS = 2.0
LONGEST_ERROR = 500

log = logging.getLogger(__name__)


class Stopped(Exception):
    """Raised by a stage at a safe point after a stop request, its checkpoint written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a stage works with."""

    workspace: Workspace
    run: Run
    folder: Path
    log: RunLog
    should_stop: Callable[[], bool]

    def stop_here(self) -> None:
        """At a safe point: leave if somebody asked for it."""
        if self.should_stop():
            raise Stopped


class Stage(Protocol):
    def __call__(self, context: Context, /) -> dict[str, str]:
        """Do the work; returns the names of what it made, by role."""
        ...


def execute(
    workspace: Workspace,
    run_id: str,
    stages: Mapping[str, Stage],
    *,
    should_leave: Callable[[], bool] = lambda: False,
) -> Run:
    """Execute a queued run (or one that this process has claimed) and return its record.

    A stop request, `should_leave` and Ctrl-C end it as "stopped": `resume` continues it. Ctrl-C
    goes on to the caller when all is written down. A bug's traceback goes to logs/<run id>.log.
    """
    worker = process_name()
    with workspace.database.write() as session:
        run = runs.start(session, run_id, worker)
        runs.keep_versions(session, run_id, worker, versions())
    interrupt: KeyboardInterrupt | None = None
    with _Pulse(workspace, run_id, worker) as pulse:
        try:
            folder = workspace.run_folder(run_id)
            context = Context(
                workspace=workspace,
                run=run,
                folder=folder,
                log=RunLog(folder),
                should_stop=lambda: pulse.is_stop_requested or should_leave(),
            )
            end = RunEnd(status="done", outputs=_stage(stages, run.stage)(context))
        except KeyboardInterrupt as error:
            end, interrupt = RunEnd(status="stopped"), error
        except Stopped:
            end = RunEnd(status="stopped")
        except Exception as error:
            end = RunEnd(status="failed", error=_one_line(workspace, run_id, error))
    # A network and its hooks hold each other: without this, one stage's model stays for the next.
    gc.collect()
    give_back()
    finished = _record(workspace, run_id, worker, _measured(end, pulse, run), should_leave)
    if interrupt is not None:
        raise interrupt
    return finished


def resume(workspace: Workspace, run_id: str) -> Run:
    """Queue the same run again; its stage finds its checkpoint in its folder."""
    with workspace.database.write() as session:
        return runs.requeue(session, run_id)


def versions() -> dict[str, str]:
    """Of what decides the numbers; a package that is not installed is left out."""
    found = {"python": platform.python_version(), "system": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _stage(stages: Mapping[str, Stage], name: str) -> Stage:
    if name not in stages:
        raise NotFoundError("stage", name, known=stages)
    return stages[name]


def _measured(end: RunEnd, pulse: "_Pulse", run: Run) -> RunEnd:
    # A resumed run took the time of all its attempts.
    seconds = round(pulse.seconds + (run.seconds or 0.0), 3)
    return RunEnd(
        status=end.status,
        outputs=end.outputs,
        seconds=seconds,
        peak_memory_bytes=max(pulse.peak_memory_bytes, run.peak_memory_bytes or 0),
        error=end.error,
    )


def _record(
    workspace: Workspace, run_id: str, worker: str, end: RunEnd, should_leave: Callable[[], bool]
) -> Run:
    """Write down how it ended; what fills the disk or keeps the database busy may pass."""
    give_up_at = time.monotonic() + RECORD_SECONDS
    while True:
        try:
            with workspace.database.write() as session:
                return runs.finish(session, run_id, worker, end)
        except WorkspaceError as error:
            if time.monotonic() >= give_up_at or should_leave():
                raise
            log.warning("The end of run %s is not written down yet: %s", run_id, error)
        time.sleep(RECORD_PAUSE_SECONDS)


def _one_line(workspace: Workspace, run_id: str, error: Exception) -> str:
    if isinstance(error, AmenableError):
        return str(error)
    trace = "".join(traceback.format_exception(error))
    log.error("Run %s failed:\n%s", run_id, trace)
    if is_disk_full(error):
        return "The disk is full. Free some room, then continue this run."
    details = _kept(workspace.logs / f"{run_id}.log", trace)
    if is_out_of_memory(error):
        return f"There was not enough memory; smaller batches need less. {details}"
    said = " ".join(f"{type(error).__name__}: {error}".split())[:LONGEST_ERROR]
    return f"{said} (a fault of this program). {details}"


def _kept(path: Path, trace: str) -> str:
    """Where the details are; what cannot be written must not hide what went wrong before."""
    try:
        write_whole(path, trace.encode(errors="backslashreplace"))
    except OSError as error:
        log.warning("%s cannot be written: %s", path, error)
        return "Its details could not be written down."
    return f"Details: logs/{path.name}"


class _Pulse:
    """A thread beside the stage: tells that it is alive, hears stop requests, measures memory."""

    def __init__(self, workspace: Workspace, run_id: str, worker: str) -> None:
        self._workspace = workspace
        self._run_id = run_id
        self._worker = worker
        self._ended = threading.Event()
        self._started_at = time.monotonic()
        self._thread = threading.Thread(target=self._beat, name="run-pulse", daemon=True)
        self.is_stop_requested = False
        self.seconds = 0.0
        self.peak_memory_bytes = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        self.seconds = time.monotonic() - self._started_at

    def _beat(self) -> None:
        process = psutil.Process()
        told_at = time.monotonic()
        while True:
            self.peak_memory_bytes = max(self.peak_memory_bytes, process.memory_info().rss)
            try:
                self._look()
                if time.monotonic() - told_at >= HEARTBEAT_SECONDS:
                    told_at = time.monotonic()
                    self._tell()
            except WorkspaceError as error:
                # Busy or full for a moment: the work itself need not end for that.
                log.warning("No heartbeat of %s: %s", self._run_id, error)
            if self._ended.wait(PULSE_SECONDS):
                return

    def _look(self) -> None:
        with self._workspace.database.read() as session:
            self.is_stop_requested |= runs.is_stop_requested(session, self._run_id)

    def _tell(self) -> None:
        with self._workspace.database.write() as session:
            is_ours = runs.heartbeat(session, self._run_id, self._worker)
        if not is_ours:
            log.warning("Run %s was given to another worker; leaving it.", self._run_id)
            self.is_stop_requested = True
