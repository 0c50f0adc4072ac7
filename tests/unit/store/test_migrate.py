"""From any released schema to today's: whole or not at all."""

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.script import ScriptDirectory

from amenable.records.errors import WorkspaceError
from amenable.store import migrate
from amenable.store.database import Database
from amenable.store.tables import SettingRow, Table

SECOND = '''
"""A second schema, for tests."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade():
    op.create_table("extras", sa.Column("id", sa.Integer(), primary_key=True))
    with op.batch_alter_table("settings") as batch:
        batch.add_column(sa.Column("note", sa.Text(), nullable=True))
    {last}
'''

Steps = Callable[..., None]
ORIGINAL = migrate.MIGRATIONS


@pytest.fixture
def second_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Steps:
    """Adds a step to a copy of the migrations; its argument is the last line."""

    def add(last: str = "pass") -> None:
        copy = tmp_path / "migrations"
        shutil.copytree(ORIGINAL, copy, dirs_exist_ok=True)
        (copy / "versions" / "0002_second.py").write_text(SECOND.replace("{last}", last))
        monkeypatch.setattr(migrate, "MIGRATIONS", copy)

    return add


def workspace_with_a_row(path: Path) -> None:
    database = Database.open(path)
    with database.write() as session:
        session.add(SettingRow(key="a", value={"value": 1}, updated_at=datetime.now(UTC)))
    database.close()


def tables_of(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}


def settings_of(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [key for (key,) in connection.execute("SELECT key FROM settings")]


def test_the_steps_lead_to_the_tables_that_the_code_knows(database: Database):
    with database.engine.connect() as connection:
        differences = compare_metadata(migrate.migration_context(connection), Table.metadata)

    assert differences == []


def test_the_steps_form_one_line():
    steps = list(ScriptDirectory(migrate.MIGRATIONS).walk_revisions())

    assert [step.revision for step in reversed(steps)] == [
        f"{number:04}" for number in range(1, len(steps) + 1)
    ]


def test_an_upgrade_keeps_rows_and_copies_the_old_file_first(tmp_path: Path, second_step: Steps):
    path = tmp_path / "amenable.sqlite3"
    workspace_with_a_row(path)
    second_step()

    Database.open(path, backups=tmp_path / "backups").close()

    assert "extras" in tables_of(path)
    assert settings_of(path) == ["a"]
    (backup,) = (tmp_path / "backups").iterdir()
    assert backup.name.startswith("amenable-schema-0001-")
    assert settings_of(backup) == ["a"]
    assert "extras" not in tables_of(backup)


def test_without_rows_there_is_nothing_to_copy(tmp_path: Path, second_step: Steps):
    path = tmp_path / "amenable.sqlite3"
    Database.open(path).close()
    second_step()

    Database.open(path, backups=tmp_path / "backups").close()

    assert not (tmp_path / "backups").exists()


@pytest.mark.parametrize(
    "last",
    [
        "raise RuntimeError('half way')",
        "op.execute('INSERT INTO examples VALUES (1, 99, 0, 0, 0)')",
    ],
    ids=["fails", "breaks a reference"],
)
def test_an_upgrade_that_fails_leaves_the_old_schema_and_its_rows(
    tmp_path: Path, second_step: Steps, last: str
):
    path = tmp_path / "amenable.sqlite3"
    workspace_with_a_row(path)
    before = tables_of(path)
    second_step(last)

    with pytest.raises((RuntimeError, WorkspaceError)):
        Database.open(path)

    assert tables_of(path) == before
    assert settings_of(path) == ["a"]
    second_step()  # mended, it goes through
    Database.open(path).close()
    assert "extras" in tables_of(path)


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path, second_step: Steps):
    path = tmp_path / "amenable.sqlite3"
    workspace_with_a_row(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()

    with pytest.raises(WorkspaceError, match=r"newer Amenable .*9999.*update Amenable"):
        Database.open(path)

    assert settings_of(path) == ["a"]


OPEN = """
import sys
from pathlib import Path
from amenable.store.database import Database
Database.open(Path(sys.argv[1])).close()
"""


def test_programs_that_open_a_new_workspace_at_once_do_not_trip(tmp_path: Path):
    path = tmp_path / "amenable.sqlite3"
    programs = [subprocess.Popen([sys.executable, "-c", OPEN, str(path)]) for _ in range(4)]

    assert [program.wait() for program in programs] == [0, 0, 0, 0]
    assert "tasks" in tables_of(path)


DIE = """
import os, sys
from pathlib import Path
from amenable.store import migrate
from amenable.store.database import Database
migrate.MIGRATIONS = Path(sys.argv[2])
Database.open(Path(sys.argv[1]))
"""


def test_a_program_killed_in_an_upgrade_leaves_the_old_schema(tmp_path: Path, second_step: Steps):
    path = tmp_path / "amenable.sqlite3"
    workspace_with_a_row(path)
    before = tables_of(path)
    second_step("import os; os._exit(9)")

    died = subprocess.run(
        [sys.executable, "-c", DIE, str(path), str(migrate.MIGRATIONS)], check=False
    )

    assert died.returncode == 9
    assert tables_of(path) == before
    assert settings_of(path) == ["a"]
