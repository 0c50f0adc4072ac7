"""Opening a workspace, and refusing in a line what cannot work here."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from amenable.apps.cli.options import again
from amenable.pipeline.packages import INSTALL, missing_for_training
from amenable.records.errors import CannotStartError, WorkspaceError

if TYPE_CHECKING:
    from amenable.store.workspace import Workspace

DATABASE = "amenable.sqlite3"


def is_workspace(folder: Path) -> bool:
    return (folder.expanduser() / DATABASE).is_file()


@contextmanager
def existing(folder: Path) -> Generator["Workspace"]:
    """A workspace that is there: a mistyped folder is not made."""
    if not is_workspace(folder):
        raise WorkspaceError(
            f"There is no workspace in {folder}. Name one with --workspace, "
            f"or make one: {again('start', folder)}"
        )
    with opened(folder) as workspace:
        yield workspace


@contextmanager
def opened(folder: Path) -> Generator["Workspace"]:
    """A workspace, made if need be."""
    from amenable.store.workspace import Workspace

    with Workspace.open(folder) as workspace:
        yield workspace


def needs_training_packages() -> None:
    if missing := missing_for_training():
        raise CannotStartError(f"This needs {', '.join(missing)}. Install with: {INSTALL}")
