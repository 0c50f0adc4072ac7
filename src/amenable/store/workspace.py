"""One folder holds everything: database, models, runs, downloads, backups, logs and the secret."""

import os
import re
import secrets
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from amenable.records.errors import NotFoundError, WorkspaceError
from amenable.store.database import Database
from amenable.store.locks import FileLock
from amenable.store.migrate import has_rows
from amenable.store.sqlite import StorageError

DATABASE = "amenable.sqlite3"
ROOMS = ("backups", "library", "runs", "downloads", "logs")
ROLE = re.compile(r"[a-z][a-z-]{0,30}")
RUN_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
SECRET_BYTES = 32
RESERVE_BYTES = 200_000_000
"""Room that stays free for the database: judgements must still fit when models do not."""
DAY_SECONDS = 86_400.0
NUM_DAILY = 5
"""Copies of the database that are kept, a day or more apart."""


class Workspace:
    """The folder and its database; close it, or use it as a context."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.folder = folder
        self.database = database
        self.library = folder / "library"
        self.runs = folder / "runs"
        self.downloads = folder / "downloads"
        self.logs = folder / "logs"
        self.backups = folder / "backups"

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open the workspace in `folder`; an empty or missing folder becomes one."""
        folder = folder.expanduser().absolute()
        try:
            for room in ROOMS:
                (folder / room).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WorkspaceError(
                f"{folder} cannot hold a workspace: {error.strerror or error}."
            ) from error
        _refuse_lost(folder)
        database = Database.open(folder / DATABASE, backups=folder / "backups")
        return cls(folder, database)

    def close(self) -> None:
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run_folder(self, run_id: str) -> Path:
        """The folder of one run, made if need be."""
        if not RUN_ID.fullmatch(run_id):
            raise NotFoundError("run", run_id)
        folder = self.runs / run_id
        folder.mkdir(exist_ok=True)
        return folder

    def secret(self) -> str:
        """What signs sessions, made once, readable by the owner alone."""
        path = self.folder / "secret"
        with FileLock(
            self.folder / "secret.making", busy="The secret is being made by", wait_seconds=10.0
        ):
            if not path.exists():
                write_for_owner(path, secrets.token_hex(SECRET_BYTES))
        if os.name != "nt":  # Windows gives a new file the rights of the user's own folder
            path.chmod(0o600)
        value = path.read_text("ascii").strip()
        if len(value) != 2 * SECRET_BYTES:
            raise WorkspaceError(f"{path} is damaged: delete it, and everybody logs in anew.")
        return value

    def lock(self, role: str) -> FileLock:
        """Held by the one web, serve or worker process of this workspace."""
        if not ROLE.fullmatch(role):
            raise ValueError(f"{role!r} is no role")
        return FileLock(
            self.folder / f"{role}.lock", busy=f"This workspace has a running {role} already"
        )

    def back_up(self) -> None:
        """Copy the database unless that was done within a day; of such copies the last few stay.

        Those made before an upgrade are not ours to remove.
        """
        earlier = sorted(
            self.backups.glob("amenable-daily-*.sqlite3"), key=lambda path: path.stat().st_mtime
        )
        with self.database.read() as session:
            is_filled = has_rows(session.connection())
        if not is_filled or (earlier and 0 <= _age_seconds(earlier[-1]) < DAY_SECONDS):
            return
        self.size_check(self.database.path.stat().st_size)
        moment = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S")
        self.database.backup(self.backups / f"amenable-daily-{moment}.sqlite3")
        for path in earlier[: 1 - NUM_DAILY]:
            path.unlink()

    def size_check(self, num_bytes: int) -> None:
        """Refuse what would not fit, before it fills the disk half way."""
        free = shutil.disk_usage(self.folder).free
        if num_bytes + RESERVE_BYTES > free:
            raise StorageError(
                f"This needs {_size(num_bytes)} and a reserve of {_size(RESERVE_BYTES)}, but the "
                f"disk of {self.folder} has {_size(free)} left."
            )


def _refuse_lost(folder: Path) -> None:
    """An empty database beside models or runs was lost: a new one would hide that, and them."""
    path = folder / DATABASE
    if path.exists() and path.stat().st_size > 0:
        return
    if any(each.is_dir() for room in ("library", "runs") for each in (folder / room).iterdir()):
        raise WorkspaceError(
            f"{path} is missing or empty, though there are models or runs beside it: put a copy "
            f"from {folder / 'backups'} in its place and delete the -wal file beside it, or begin "
            "in another folder with --workspace."
        )


def write_for_owner(path: Path, text: str) -> None:
    """One line that nobody else can read."""
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.unlink(missing_ok=True)
    # The rights are set at birth: between making and chmod somebody else could open it.
    handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def _age_seconds(path: Path) -> float:
    return time.time() - path.stat().st_mtime


def _size(num_bytes: int) -> str:
    """In the unit a person would use.

    >>> _size(1_250_000_000), _size(20_000_000)
    ('1.2 GB', '20 MB')
    """
    if num_bytes >= 1_000_000_000:
        return f"{num_bytes / 1e9:.1f} GB"
    return f"{num_bytes / 1e6:.0f} MB"
