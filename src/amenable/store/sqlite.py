"""How we talk to SQLite: safe against power cuts, explicit transactions, trouble in plain words."""

import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry

from amenable.records.errors import WorkspaceError
from amenable.store.artifacts import flush_folder

BUSY_SECONDS = 30.0
NUM_POOLED = 8
NUM_OVERFLOW = 56
"""More than the web has threads, so that a reader never waits for another reader."""

CONNECTION_PRAGMAS = (
    "PRAGMA synchronous=FULL",  # NORMAL may lose the last judgements in a power cut
    "PRAGMA foreign_keys=ON",
    "PRAGMA secure_delete=ON",  # what a person withdraws leaves no bytes behind
)
BEGIN = "amenable_begin"
"""Execution option: the statements that open a transaction."""
BEGIN_READ = ("PRAGMA query_only=ON", "BEGIN")
BEGIN_WRITE = ("PRAGMA query_only=OFF", "BEGIN IMMEDIATE")
# A table that is rebuilt is dropped for a moment; migrate.py checks references before it commits.
BEGIN_MIGRATION = ("PRAGMA foreign_keys=OFF", *BEGIN_WRITE)

# A -wal file belongs to one database: SQLite would write it into the copy as well.
BROKEN = (
    "The workspace's database is broken: put back a copy from backups, "
    "and delete the -wal file beside it."
)
TROUBLES: dict[int, str] = {
    sqlite3.SQLITE_BUSY: "The workspace is busy: another process has been writing for long.",
    sqlite3.SQLITE_LOCKED: "The workspace is busy: another process has been writing for long.",
    sqlite3.SQLITE_FULL: "The disk is full: nothing was kept. Free some room, then repeat.",
    sqlite3.SQLITE_IOERR: "The disk reports an error: nothing was kept.",
    sqlite3.SQLITE_READONLY: "The workspace can only be read: check who owns its files.",
    sqlite3.SQLITE_CANTOPEN: "The workspace's database cannot be opened: check who owns its files.",
    sqlite3.SQLITE_CORRUPT: BROKEN,
    sqlite3.SQLITE_NOTADB: BROKEN,
}
STORAGE_TROUBLES = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}
)


class StorageError(WorkspaceError):
    """The disk takes no more: full, broken or read-only. Nothing of the transaction was kept."""


def make_engine(path: Path) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        connect_args={"timeout": BUSY_SECONDS},
        pool_size=NUM_POOLED,
        max_overflow=NUM_OVERFLOW,
    )
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    event.listen(engine, "commit", _refuse_lost)
    return engine


def use_wal(path: Path) -> None:
    """Readers then never wait for the writer, nor it for them; the file keeps the mode for ever."""
    with closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as connection:
        # Switching needs the file alone, asking does not.
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        if mode != "wal":
            (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
    if mode != "wal":
        raise WorkspaceError("This folder's file system cannot hold a workspace; use a local disk.")


def copy_database(source: Path, to: Path) -> None:
    """Copy by SQLite's online backup, which copying the file itself is not, and check the copy."""
    to.parent.mkdir(parents=True, exist_ok=True)
    unfinished = to.with_name(to.name + ".unfinished")
    unfinished.unlink(missing_ok=True)
    try:
        with (
            closing(sqlite3.connect(source, timeout=BUSY_SECONDS)) as reading,
            closing(sqlite3.connect(unfinished)) as writing,
        ):
            reading.backup(writing)
            # One file that can be carried away: no -wal beside it.
            writing.execute("PRAGMA journal_mode=DELETE")
            (answer,) = writing.execute("PRAGMA integrity_check").fetchone()
        if answer != "ok":
            raise WorkspaceError(f"The copy of {source.name} is broken: {answer}.")
        unfinished.replace(to)
    finally:
        unfinished.unlink(missing_ok=True)  # half a copy on a full disk only takes room
    flush_folder(to.parent)


@contextmanager
def in_plain_words() -> Generator[None]:
    """SQLite's trouble becomes a WorkspaceError; what is a bug of ours stays what it is."""
    try:
        yield
    except (DBAPIError, sqlite3.Error) as error:
        if (trouble := explain(error)) is not None:
            raise trouble from error
        raise


def explain(error: BaseException) -> WorkspaceError | None:
    """The trouble behind an error; None if there is none of the database's own.

    A full disk undoes the whole transaction, so that undoing a part of it fails next: the first
    error of the chain tells what happened.
    """
    found: WorkspaceError | None = None
    cause: BaseException | None = error
    while cause is not None:
        plain = cause.orig if isinstance(cause, DBAPIError) else cause
        # The low byte is the kind; the rest tells which call failed.
        code = getattr(plain, "sqlite_errorcode", 0) & 0xFF
        if code in TROUBLES:
            kind = StorageError if code in STORAGE_TROUBLES else WorkspaceError
            found = kind(TROUBLES[code])
        cause = cause.__context__
    return found


def _prepare(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    # Python's driver would open transactions by itself, late and never IMMEDIATE.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in CONNECTION_PRAGMAS:
        cursor.execute(pragma)
    cursor.close()


def _begin(connection: Connection) -> None:
    for statement in connection.get_execution_options().get(BEGIN, BEGIN_READ):
        connection.exec_driver_sql(statement)


def _refuse_lost(connection: Connection) -> None:
    # Short of memory or disk SQLite may roll back by itself; the driver's commit then says nothing.
    if not getattr(connection.connection.dbapi_connection, "in_transaction", True):
        raise StorageError("The transaction was undone by the database: nothing was kept.")
