"""What several folders of tests use and must be closed."""

from collections.abc import Generator
from pathlib import Path

import pytest

from amenable.store.database import Database
from amenable.store.workspace import Workspace


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes minutes begins first, so that no worker is left with it alone in the end."""
    items.sort(key=lambda item: item.get_closest_marker("model") is None)


@pytest.fixture
def workspace(tmp_path: Path) -> Generator[Workspace]:
    with Workspace.open(tmp_path / "workspace") as workspace:
        yield workspace


@pytest.fixture
def database(tmp_path: Path) -> Generator[Database]:
    database = Database.open(tmp_path / "amenable.sqlite3")
    yield database
    database.close()
