"""Many works, one commit: nobody hears of success before it is on the disk."""

import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import event, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from amenable.records.errors import NotFoundError, WorkspaceError
from amenable.store.database import Database, GroupWriter
from amenable.store.sqlite import StorageError
from amenable.store.tables import SettingRow


@pytest.fixture
def writer(database: Database) -> Generator[GroupWriter]:
    writer = GroupWriter(database)
    yield writer
    writer.close()


def note(key: str) -> Callable[[Session], str]:
    def work(session: Session) -> str:
        session.add(SettingRow(key=key, value={"value": key}, updated_at=datetime.now(UTC)))
        return key

    return work


def keys(database: Database) -> set[str]:
    with database.read() as session:
        return set(session.scalars(select(SettingRow.key)))


def in_threads(works: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_the_result_comes_back_when_it_is_kept(database: Database, writer: GroupWriter):
    assert writer.submit(note("a")) == "a"
    assert keys(database) == {"a"}


def test_works_that_wait_together_share_one_commit(database: Database, writer: GroupWriter):
    commits: list[object] = []
    event.listen(database.engine, "commit", commits.append)
    is_open, may_go = threading.Event(), threading.Event()

    def hold(_: Session) -> None:
        is_open.set()
        may_go.wait()

    first = threading.Thread(target=writer.submit, args=(hold,))
    first.start()
    is_open.wait()
    others = [threading.Thread(target=writer.submit, args=(note(str(n)),)) for n in range(50)]
    for thread in others:
        thread.start()
    while writer.num_waiting < 50:
        threading.Event().wait(0.001)
    may_go.set()
    for thread in (first, *others):
        thread.join()

    assert len(keys(database)) == 50
    assert len(commits) == 2  # the one that held, then all fifty


def test_one_that_fails_undoes_itself_alone(database: Database, writer: GroupWriter):
    writer.submit(note("taken"))
    failures: list[type[BaseException]] = []

    def attempt(key: str) -> None:
        try:
            writer.submit(note(key))
        except IntegrityError as error:
            failures.append(type(error))

    in_threads([lambda key=key: attempt(key) for key in ("a", "taken", "b", "taken", "c")])

    assert keys(database) == {"taken", "a", "b", "c"}
    assert failures == [IntegrityError, IntegrityError]


def test_an_error_of_the_domain_reaches_who_submitted_it(writer: GroupWriter):
    def work(_: Session) -> None:
        raise NotFoundError("task", 7)

    with pytest.raises(NotFoundError, match="no task 7"):
        writer.submit(work)


def test_half_of_a_failed_work_is_not_kept(database: Database, writer: GroupWriter):
    def work(session: Session) -> None:
        note("half")(session)
        session.flush()
        raise ValueError("the other half")

    with pytest.raises(ValueError, match="other half"):
        writer.submit(work)

    assert keys(database) == set()


def test_a_full_disk_acknowledges_nothing_and_heals_without_a_restart(database: Database):
    writer = GroupWriter(database, read_only_seconds=0.0)
    is_full = True

    def work(session: Session) -> None:
        # SQLite's own page limit stands in for the disk: it fails with the same code.
        session.execute(text(f"PRAGMA max_page_count={1 if is_full else 1_000_000}"))
        for number in range(500):
            note(f"{number:05}" * 20)(session)
        session.flush()

    with pytest.raises(StorageError, match="disk is full"):
        writer.submit(work)
    assert keys(database) == set()
    assert writer.trouble is not None

    is_full = False
    writer.submit(work)

    assert len(keys(database)) == 500
    assert writer.trouble is None
    writer.close()


def test_after_a_full_disk_works_are_refused_at_once(database: Database):
    writer = GroupWriter(database, read_only_seconds=60.0)

    def fill(session: Session) -> None:
        session.execute(text("PRAGMA max_page_count=1"))
        for number in range(500):
            note(f"{number:05}" * 20)(session)
        session.flush()

    with pytest.raises(StorageError):
        writer.submit(fill)
    with pytest.raises(StorageError, match="disk is full"):
        writer.submit(note("a"))

    assert keys(database) == set()
    writer.close()


def test_a_transaction_that_the_database_dropped_is_not_acknowledged(database: Database):
    writer = GroupWriter(database, read_only_seconds=0.0)

    def lose(session: Session) -> None:
        note("lost")(session)
        session.flush()
        session.connection().exec_driver_sql("ROLLBACK")

    with pytest.raises(WorkspaceError, match="nothing was kept"):
        writer.submit(lose)

    assert keys(database) == set()
    assert writer.submit(note("next")) == "next"
    writer.close()


def test_closing_finishes_what_was_submitted_and_refuses_the_rest(database: Database):
    writer = GroupWriter(database)

    def client(key: str) -> None:
        writer.submit(note(key))

    in_threads([lambda key=str(n): client(key) for n in range(20)])
    writer.close()
    writer.close()

    assert len(keys(database)) == 20
    with pytest.raises(WorkspaceError, match="closing"):
        writer.submit(note("late"))


def test_a_work_cannot_wait_for_another(writer: GroupWriter):
    def nested(_: Session) -> object:
        return writer.submit(note("inner"))

    with pytest.raises(RuntimeError, match="its own session"):
        writer.submit(nested)


CLIENTS = """
import sys, threading
from datetime import UTC, datetime
from pathlib import Path
from amenable.store.database import Database, GroupWriter
from amenable.store.tables import SettingRow

database = Database.open(Path(sys.argv[1]))
writer = GroupWriter(database)
say = threading.Lock()

def client(name):
    for number in range(10_000):
        key = f"{sys.argv[2]}-{name}-{number}"
        row = lambda: SettingRow(key=key, value={}, updated_at=datetime.now(UTC))
        writer.submit(lambda session: session.add(row()))
        with say:
            print(key, flush=True)

for name in range(8):
    threading.Thread(target=client, args=(name,)).start()
"""


def test_no_acknowledged_work_is_lost_when_the_process_is_killed(tmp_path: Path):
    path = tmp_path / "a.sqlite3"
    Database.open(path).close()
    acknowledged: set[str] = set()
    for attempt in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", CLIENTS, str(path), str(attempt)], stdout=subprocess.PIPE
        )
        with process:
            assert process.stdout is not None
            for _ in range(100 + 50 * attempt):
                acknowledged.add(process.stdout.readline().decode().strip())
            process.kill()
            # What it said before it died counts too; its last line may be cut short.
            rest = process.stdout.read().decode().split("\n")
            acknowledged.update(rest[:-1])

    database = Database.open(path)
    kept = keys(database)
    with database.read() as session:
        assert session.scalar(text("PRAGMA integrity_check")) == "ok"
    database.close()
    assert len(acknowledged) >= 450
    assert acknowledged <= kept
