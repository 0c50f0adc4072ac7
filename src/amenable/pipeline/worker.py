"""Takes queued runs one at a time, and goes on with the loop when nothing waits."""

import logging
import signal
import sys
import threading
from collections.abc import Callable, Mapping

from sqlalchemy.orm import Session

from amenable.pipeline.processes import be_polite, is_alive, leave_with_parent, process_name
from amenable.pipeline.stage import Stage, execute, resume
from amenable.records.errors import AmenableError, WorkspaceError
from amenable.records.run import Run
from amenable.store import runs
from amenable.store.locks import FileLock
from amenable.store.workspace import Workspace

PAUSE_SECONDS = 1.0
AFTER_TROUBLE_SECONDS = 30.0
Follow = Callable[[Session], object]

log = logging.getLogger(__name__)


class Worker:
    """`turn` executes the oldest queued run; if none waits, it asks the loop what comes next."""

    def __init__(
        self, workspace: Workspace, stages: Mapping[str, Stage], *, follow: Follow | None = None
    ) -> None:
        self._workspace = workspace
        self._stages = stages
        self._follow = follow
        self._leaving = threading.Event()

    def leave(self) -> None:
        """End after this turn; a run at work stops at its next safe point and is queued again."""
        self._leaving.set()

    def turn(self) -> bool:
        """Do one thing; False if there was nothing to do."""
        run = self._claim()
        if run is None:
            return self._go_on()
        self._execute(run)
        return True

    def run(self) -> None:
        """Be the one worker of the workspace, turn after turn until `leave`."""
        lock = self._workspace.lock("worker")
        if not self._gets(lock):
            return
        try:
            while not self._leaving.is_set():
                self._leaving.wait(self._turn_and_pause())
        finally:
            lock.release()

    def _gets(self, lock: FileLock) -> bool:
        """Wait for our turn while another process executes runs; False if told to leave."""
        is_told = False
        while not self._leaving.is_set():
            try:
                lock.acquire()
            except WorkspaceError as error:
                if not is_told:
                    log.info("%s Waiting until it ends.", error)
                is_told = True
                self._leaving.wait(PAUSE_SECONDS)
            else:
                return True
        return False

    def _turn_and_pause(self) -> float:
        try:
            return 0.0 if self.turn() else PAUSE_SECONDS
        except AmenableError as error:
            log.warning("%s", error)
        except Exception:
            # A fault between runs, such as in what follows, must not keep others from working.
            log.exception("The worker met a fault and tries again.")
        return AFTER_TROUBLE_SECONDS

    def _claim(self) -> Run | None:
        with self._workspace.database.read() as session:
            # Looking takes no lock, claiming does.
            if not runs.list_runs(session, statuses=runs.OPEN, limit=1):
                return None
        with self._workspace.database.write() as session:
            for run_id in runs.requeue_orphans(session, _is_at_work):
                log.warning("Run %s was left by its worker and goes on here.", run_id)
            return runs.claim_next(session, process_name())

    def _execute(self, run: Run) -> None:
        log.info("Run %s begins.", run.id)
        ended = execute(self._workspace, run.id, self._stages, should_leave=self._leaving.is_set)
        log.info("Run %s: %s", run.id, ended.error or ended.status)
        with self._workspace.database.read() as session:
            is_wanted = not runs.is_stop_requested(session, run.id)
        if ended.status == "stopped" and is_wanted and self._leaving.is_set():
            # Nobody asked to stop this run, only the program to end.
            resume(self._workspace, run.id)
            log.info("Run %s goes on with the next start.", run.id)

    def _go_on(self) -> bool:
        if self._follow is None:
            return False
        with self._workspace.database.write() as session:
            self._follow(session)
            return _is_waiting(session)


def _is_at_work(name: str) -> bool:
    """Not we ourselves: what still bears our name between runs could not be written down."""
    return name != process_name() and is_alive(name)


def run_worker(workspace: Workspace, stages: Mapping[str, Stage], *, follow: Follow | None) -> None:
    """Be the worker of this workspace until SIGTERM, Ctrl-Break or the parent's end.

    While another process executes its runs, this one waits for its turn. Ctrl-C ends the run at
    work at once, as "stopped".
    """
    worker = Worker(workspace, stages, follow=follow)
    be_polite()
    leave_with_parent(worker.leave)

    def leave(*_: object) -> None:
        worker.leave()

    signal.signal(signal.SIGTERM, leave)
    if sys.platform == "win32":  # where nobody can send SIGTERM to another process
        signal.signal(signal.SIGBREAK, leave)
    worker.run()


def _is_waiting(session: Session) -> bool:
    return bool(runs.list_runs(session, statuses=("queued",), limit=1))
