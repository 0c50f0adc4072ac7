"""One database file: transactions that outlive a power cut, one writer for many small works."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Session

from amenable.records.errors import WorkspaceError
from amenable.store.locks import FileLock
from amenable.store.migrate import upgrade
from amenable.store.sqlite import (
    BEGIN,
    BEGIN_READ,
    BEGIN_WRITE,
    StorageError,
    copy_database,
    explain,
    in_plain_words,
    make_engine,
    use_wal,
)

T = TypeVar("T")
Work = Callable[[Session], T]

OPENING_SECONDS = 120.0
MOST_WORKS_PER_COMMIT = 200
"""Bounds how long the first work of a group waits for the last."""
READ_ONLY_SECONDS = 5.0
"""How long the writer refuses everything after the disk failed, before it tries the next work."""

log = logging.getLogger(__name__)


class Database:
    """Opens, upgrades and hands out sessions. Whoever opens a session owns its transaction."""

    def __init__(self, path: Path, engine: Engine) -> None:
        self.path = path
        self._engine = engine
        self._readers = engine.execution_options(**{BEGIN: BEGIN_READ})
        self._writers = engine.execution_options(**{BEGIN: BEGIN_WRITE})

    @classmethod
    def open(cls, path: Path, *, backups: Path | None = None) -> Self:
        """Open the file, made or upgraded if need be; `backups` gets a copy before an upgrade."""
        opening = FileLock(
            path.with_name(path.name + ".opening"),
            busy="The workspace is being opened or upgraded by another program",
            wait_seconds=OPENING_SECONDS,
        )
        engine = make_engine(path)
        try:
            with opening, in_plain_words():
                use_wal(path)
                upgrade(engine, path, backups or path.parent / "backups")
        except BaseException:
            engine.dispose()
            raise
        return cls(path, engine)

    @contextmanager
    def read(self) -> Generator[Session]:
        """A session on one moment's state: what others write meanwhile does not show in it.

        It cannot write, so that no change is lost for want of a commit.
        """
        with in_plain_words(), Session(self._readers, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Generator[Session]:
        """A session that commits at the end and rolls back on any error; one at a time."""
        with in_plain_words(), self._writers.begin() as connection, _session(connection) as session:
            yield session

    @contextmanager
    def write_connection(self) -> Generator[Connection]:
        """As `write`, for a caller that puts several sessions on one transaction."""
        with in_plain_words(), self._writers.begin() as connection:
            yield connection

    def backup(self, to: Path) -> None:
        """A whole, checked copy of one moment, also while others write."""
        with in_plain_words():
            copy_database(self.path, to)

    @property
    def engine(self) -> Engine:
        return self._engine

    def close(self) -> None:
        self._engine.dispose()


@contextmanager
def _session(connection: Connection) -> Generator[Session]:
    """A session inside the connection's transaction: its rollback undoes its own work only."""
    with (
        Session(
            connection, expire_on_commit=False, join_transaction_mode="create_savepoint"
        ) as session,
        session.begin(),
    ):
        yield session


@dataclass(slots=True)
class _Job:
    work: Work[Any]
    answer: Future[Any]


class GroupWriter:
    """Many threads' works, one commit: the wait for the disk is shared by all who wait together.

    Each work runs in a savepoint, so that one that fails undoes itself alone; nobody hears of
    success before the common commit is on the disk. When the disk fails, nothing is acknowledged
    and the writer refuses works for a moment, then tries again: no restart is needed.
    """

    def __init__(self, database: Database, *, read_only_seconds: float = READ_ONLY_SECONDS) -> None:
        self._database = database
        self._read_only_seconds = read_only_seconds
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._trouble: StorageError | None = None
        self._try_again_at = 0.0
        self._is_closed = False
        self._door = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="group-writer", daemon=True)
        self._thread.start()

    @property
    def trouble(self) -> str | None:
        """Why the workspace can only be read just now; None if all is well."""
        return self._trouble and str(self._trouble)

    @property
    def num_waiting(self) -> int:
        """Works that wait for the next commit."""
        return self._jobs.qsize()

    def submit(self, work: Work[T]) -> T:
        """Run `work` in the next group and return its result once it is kept for good."""
        if threading.current_thread() is self._thread:
            raise RuntimeError("a work cannot wait for another one: use its own session")
        if self._trouble is not None and time.monotonic() < self._try_again_at:
            raise StorageError(str(self._trouble))
        job = _Job(work, Future())
        with self._door:
            if self._is_closed:
                raise WorkspaceError("The workspace is closing; repeat in a moment.")
            self._jobs.put(job)
        return job.answer.result()

    def close(self) -> None:
        """Finish what was submitted, then end."""
        with self._door:
            if not self._is_closed:
                self._is_closed = True
                self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            group, is_last = self._group_from(job)
            self._commit(group)
            if is_last:
                return

    def _group_from(self, first: _Job) -> tuple[list[_Job], bool]:
        """All that waits already; waiting for more would only make the first wait longer."""
        group = [first]
        while len(group) < MOST_WORKS_PER_COMMIT:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is None:
                return group, True
            group.append(job)
        return group, False

    def _commit(self, group: Sequence[_Job]) -> None:
        answers: list[tuple[_Job, Any]] = []
        failures: list[tuple[_Job, BaseException]] = []
        try:
            with self._database.write_connection() as connection:
                for job in group:
                    try:
                        with _session(connection) as session:
                            result = job.work(session)
                        answers.append((job, result))
                    except BaseException as error:  # it belongs to whoever submitted it
                        if isinstance(explain(error), StorageError):
                            raise
                        failures.append((job, error))
        except BaseException as error:
            self._note(error)
            for job in group:
                job.answer.set_exception(error)
            return
        self._trouble = None
        for job, result in answers:
            job.answer.set_result(result)
        for job, error in failures:
            job.answer.set_exception(error)

    def _note(self, error: BaseException) -> None:
        log.error("%s", error)
        if isinstance(error, StorageError):
            self._try_again_at = time.monotonic() + self._read_only_seconds
            self._trouble = error
