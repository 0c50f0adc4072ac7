"""From any released schema to today's, whole or not at all, after a copy of what is there."""

from datetime import UTC, datetime
from pathlib import Path

from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, Engine, inspect

from amenable.records.errors import WorkspaceError
from amenable.store.sqlite import BEGIN, BEGIN_MIGRATION, copy_database
from amenable.store.tables import Table

MIGRATIONS = Path(__file__).parent / "migrations"


def upgrade(engine: Engine, path: Path, backups: Path) -> None:
    """Bring the database to the newest schema; refuse one that a newer Amenable wrote.

    All steps are one transaction: a crash on the way leaves the old schema with all its rows. The
    engine's connections are closed after it, since the migration switched reference checks off.
    """
    scripts = ScriptDirectory(MIGRATIONS)
    with engine.connect() as connection:
        old = _revision(connection)
        is_filled = old is not None and has_rows(connection)
    if old == scripts.get_current_head():
        return
    _refuse_newer(scripts, old)
    if is_filled:
        moment = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S")
        copy_database(path, backups / f"{path.stem}-schema-{old}-{moment}{path.suffix}")
    with engine.execution_options(**{BEGIN: BEGIN_MIGRATION}).begin() as connection:
        run_steps(connection, scripts)
        _check_references(connection)
    engine.dispose()


def run_steps(connection: Connection, scripts: ScriptDirectory, *, to: str = "head") -> None:
    """Run what lies between the database's schema and `to`, in the caller's transaction.

    Without Alembic's env.py, which would configure a connection of its own: this way the steps
    share one transaction, and a wheel needs no settings file.
    """
    context = migration_context(connection)
    current = context.get_current_revision()
    with Operations.context(context):
        for step in reversed(list(scripts.iterate_revisions(to, current or "base"))):
            step.module.upgrade()
            context.stamp(scripts, step.revision)


def migration_context(connection: Connection) -> MigrationContext:
    return MigrationContext.configure(
        connection,
        opts={"target_metadata": Table.metadata, "render_as_batch": True, "compare_type": True},
    )


def _revision(connection: Connection) -> str | None:
    return migration_context(connection).get_current_revision()


def _refuse_newer(scripts: ScriptDirectory, revision: str | None) -> None:
    if revision is None:
        return
    try:
        scripts.get_revision(revision)
    except CommandError as error:
        raise WorkspaceError(
            f"A newer Amenable made this workspace (schema {revision}); update Amenable to open it."
        ) from error


def has_rows(connection: Connection) -> bool:
    """Whether there is anything in it that would be missed."""
    tables = [name for name in inspect(connection).get_table_names() if name != "alembic_version"]
    return any(
        connection.exec_driver_sql(f'SELECT 1 FROM "{name}" LIMIT 1').first()  # noqa: S608 - our own names
        for name in tables
    )


def _check_references(connection: Connection) -> None:
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
    if broken:
        raise WorkspaceError(
            f"The upgrade was undone: {len(broken)} rows would have lost their other half."
        )
