"""Transactions: whole or not at all, snapshots for readers, trouble in plain words."""

import sqlite3
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from amenable.records.errors import WorkspaceError
from amenable.store.database import Database
from amenable.store.sqlite import StorageError
from amenable.store.tables import ExampleRow, SettingRow


def note(session: Session, key: str) -> None:
    session.add(SettingRow(key=key, value={"value": key}, updated_at=datetime.now(UTC)))
    session.flush()


def keys(database: Database) -> set[str]:
    with database.read() as session:
        return set(session.scalars(select(SettingRow.key)))


@pytest.mark.parametrize(
    ("pragma", "expected"),
    [("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1), ("secure_delete", 1)],
)
def test_every_connection_is_safe_against_power_cuts(
    database: Database, pragma: str, expected: object
):
    with database.read() as one, database.read() as other:
        for session in (one, other):
            assert session.scalar(text(f"PRAGMA {pragma}")) == expected


def test_a_write_is_kept(database: Database):
    with database.write() as session:
        note(session, "a")

    assert keys(database) == {"a"}


def test_an_error_undoes_the_whole_transaction(database: Database):
    def write_and_fail() -> None:
        with database.write() as session:
            note(session, "a")
            raise KeyError("b")

    with pytest.raises(KeyError):
        write_and_fail()

    assert keys(database) == set()


def test_a_reader_keeps_its_moment_while_others_write(database: Database):
    with database.read() as reader:
        before = reader.scalar(select(func.count()).select_from(SettingRow))
        with database.write() as writer:
            note(writer, "a")
        after = reader.scalar(select(func.count()).select_from(SettingRow))

    assert before == after == 0
    assert keys(database) == {"a"}


def test_a_reader_cannot_write(database: Database):
    def write_in_read() -> None:
        with database.read() as session:
            note(session, "lost")

    with pytest.raises(WorkspaceError):
        write_in_read()
    with database.write() as session:  # and its connection writes again in a writer's hand
        note(session, "kept")

    assert keys(database) == {"kept"}


def test_references_are_checked(database: Database):
    def write_orphan() -> None:
        with database.write() as session:
            session.add(ExampleRow(dataset_id=7, position=0, body={}))

    with pytest.raises(IntegrityError):
        write_orphan()


def test_writers_take_turns_and_lose_nothing(database: Database):
    """Read, add one, write: without BEGIN IMMEDIATE updates would be lost or refused."""
    with database.write() as session:
        session.add(SettingRow(key="count", value={"value": 0}, updated_at=datetime.now(UTC)))

    def count_up() -> None:
        for _ in range(20):
            with database.write() as session:
                row = session.get_one(SettingRow, "count")
                row.value = {"value": row.value["value"] + 1}

    threads = [threading.Thread(target=count_up) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    with database.read() as session:
        assert session.get_one(SettingRow, "count").value == {"value": 80}


def test_a_backup_is_one_whole_file_also_while_others_write(database: Database, tmp_path: Path):
    with database.write() as session:
        note(session, "a")
    with database.write() as session:
        note(session, "not yet")
        session.flush()
        database.backup(tmp_path / "deep" / "copy.sqlite3")

    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["copy.sqlite3"]
    copy = Database.open(tmp_path / "deep" / "copy.sqlite3")
    assert keys(copy) == {"a"}
    copy.close()


def test_a_backup_that_fails_leaves_nothing_behind(database: Database, tmp_path: Path):
    in_the_way = tmp_path / "deep" / "copy.sqlite3"
    in_the_way.mkdir(parents=True)

    with pytest.raises(OSError, match=r"copy\.sqlite3"):
        database.backup(in_the_way)

    assert list((tmp_path / "deep").iterdir()) == [in_the_way]


def test_rows_outlive_a_reopening(tmp_path: Path):
    database = Database.open(tmp_path / "a.sqlite3")
    with database.write() as session:
        note(session, "a")
    database.close()

    again = Database.open(tmp_path / "a.sqlite3")

    assert keys(again) == {"a"}
    again.close()


def test_a_full_disk_is_said_in_plain_words(database: Database):
    """SQLite's own page limit stands in for the disk: it fails with the same code."""

    def fill() -> None:
        with database.write() as session:
            session.execute(text("PRAGMA max_page_count=1"))
            for number in range(2000):
                note(session, f"{number:05}" * 20)

    with pytest.raises(StorageError, match="disk is full: nothing was kept"):
        fill()

    assert keys(database) == set()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path):
    path = tmp_path / "amenable.sqlite3"
    path.write_bytes(b"Dear diary, today I went to the sea." * 100)

    with pytest.raises(WorkspaceError, match="put back a copy from backups"):
        Database.open(path)


def test_a_lock_held_for_long_is_said_in_plain_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("amenable.store.sqlite.BUSY_SECONDS", 0.05)
    database = Database.open(tmp_path / "a.sqlite3")
    other = sqlite3.connect(tmp_path / "a.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    def write() -> None:
        with database.write() as session:
            note(session, "a")

    with pytest.raises(WorkspaceError, match="busy"):
        write()

    other.execute("ROLLBACK")
    other.close()
    write()
    assert keys(database) == {"a"}
    database.close()
