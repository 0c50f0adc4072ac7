"""A run begins on one machine, ends on another, and its model comes home: by the command line."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import put_tiny
from tests.unit.pipeline.stage_help import SMALL_FINETUNE, SMALL_FIT, queue

from amenable.apps.cli.main import status_of
from amenable.pipeline.sources import install_starter
from amenable.pipeline.stage import execute
from amenable.pipeline.stages import STAGES
from amenable.store import runs
from amenable.store.artifacts import hash_folder
from amenable.store.workspace import Workspace

CONFIG = SMALL_FINETUNE | {"fit": SMALL_FIT | {"num_epochs": 2, "checkpoint_seconds": 0}}
VERSION = "tiny-instruct-1"


def begun(folder: Path) -> str:
    with Workspace.open(folder) as workspace:
        install_starter(workspace)
        return queue(workspace, "finetune", put_tiny(workspace), CONFIG)


def live(folder: Path, run_id: str, num_steps: int = 10**6) -> str:
    """Until the end, or as if somebody pressed Ctrl-C after so many steps."""
    asked: list[bool] = []

    def leave() -> bool:
        asked.append(True)
        return len(asked) >= num_steps

    with Workspace.open(folder) as workspace:
        return execute(workspace, run_id, STAGES, should_leave=leave).status


def test_a_run_goes_on_elsewhere_and_its_model_comes_home(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    home, there, calm = (tmp_path / name for name in ("home", "there", "calm"))

    def ask(folder: Path, *words: str) -> dict[str, Any]:
        status = status_of(["runs", *words, "--workspace", str(folder), "--json"])
        told = capsys.readouterr()
        assert status == 0, told.err
        return json.loads(told.out)

    run_id = begun(home)
    shutil.copytree(home, calm)
    assert live(calm, run_id) == "done"
    assert live(home, run_id, num_steps=2) == "stopped"

    left = ask(home, "pack", run_id)
    assert Path(left["file"]).name == f"{run_id}-stopped.zip"
    assert left["carried"] == []
    with Workspace.open(there) as workspace:
        put_tiny(workspace)
    assert ask(there, "import", left["file"])["status"] == "stopped"
    assert ask(there, "resume", run_id)["outputs"]["model"] == VERSION
    back = ask(there, "pack", run_id)
    assert back["carried"] == [VERSION]
    assert ask(home, "import", back["file"])["added"] == [VERSION]

    assert hash_folder(home / "library" / VERSION) == hash_folder(calm / "library" / VERSION)
    assert ask(home, "show", run_id)["status"] == "done"
    assert ask(home, "import", back["file"])["changed"] is False


def test_the_lines_that_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("amenable.pipeline.send.versions", lambda: {"torch": "1.0"})
    home, there, file = tmp_path / "home", tmp_path / "there", tmp_path / "run.zip"
    run_id = begun(home)

    def said(folder: Path, *words: str) -> list[str]:
        assert status_of(["runs", *words, "--workspace", str(folder)]) == 0
        return capsys.readouterr().out.splitlines()

    packed = said(home, "pack", run_id, "--to", str(file), "--with-models")
    first = said(there, "import", str(file))
    second = said(there, "import", str(file))

    assert packed[0] == f"Run {run_id} waited here and is stopped now, not to be executed twice."
    assert packed[1].startswith(f"Run {run_id} (stopped) is in {file}: ")
    assert packed[1].endswith(" kB, with tiny.")
    assert packed[2] == "There: amenable runs import run.zip"
    assert first[0].startswith(f"Run {run_id} (stopped) is here: ")
    assert first[1] == "tiny came along, under its licence: CC0-1.0."
    assert first[2].startswith("It was packed with torch 1.0 (here ")
    assert first[3] == f"Go on with: amenable runs resume {run_id} --workspace {there}"
    assert second[0].endswith("is here already, just as in this file: nothing was changed.")
    with Workspace.open(there) as workspace, workspace.database.read() as session:
        assert runs.get(session, run_id).status == "stopped"
