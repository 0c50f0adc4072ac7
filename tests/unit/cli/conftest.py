"""Runs the command line in this process, and gives the one object it prints."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.journeys.seed import seed

from amenable.apps.cli.main import status_of
from amenable.store.workspace import Workspace

Json = dict[str, Any]
Ask = Callable[..., Json]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A workspace whose first loop is done, with believable rows and no real model."""
    with Workspace.open(tmp_path / "workspace") as workspace:
        seed(workspace, "simulated")
    return tmp_path / "workspace"


@pytest.fixture
def ask(folder: Path, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Ask with --json; stdout must hold one object and nothing else."""

    def ask(*words: str) -> Json:
        status = status_of([*words, "--workspace", str(folder), "--json"])
        told = capsys.readouterr()
        assert status == 0, told.err
        assert told.out.count("\n") == 1
        found = json.loads(told.out)
        assert isinstance(found, dict)
        return found

    return ask
