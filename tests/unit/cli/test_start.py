"""amenable start: what happens before any process runs."""

from pathlib import Path

import pytest

from amenable.apps.cli.main import status_of
from amenable.pipeline import supervise
from amenable.pipeline.supervise import ADDRESS, alone, free_port
from amenable.store import library, runs, settings
from amenable.store.library import ModelEntry
from amenable.store.runs import RunEnd
from amenable.store.sqlite import StorageError
from amenable.store.workspace import Workspace, write_for_owner

WORDS = ("start", "--base", "smollm2-135m", "--accept-licence", "--minutes", "0")


def start(workspace: Workspace, words: tuple[str, ...] = WORDS) -> int:
    folder = str(workspace.folder)
    return status_of([*words, "--workspace", folder, "--port", str(free_port())])


@pytest.fixture
def runs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: object, **__: object) -> None: ...

    monkeypatch.setattr(supervise, "supervise", nothing)


def test_a_second_start_changes_nothing_and_says_where_the_first_runs(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
):
    with workspace.database.write() as session:
        settings.put(session, "a", 1)
    with alone(workspace):
        write_for_owner(workspace.folder / ADDRESS, "http://127.0.0.1:8770")
        status = start(workspace)

    told = capsys.readouterr()
    assert (status, told.out) == (2, "")
    assert told.err == (
        "amenable: It runs already at http://127.0.0.1:8770; for another browser end it with "
        "Ctrl-C there and start it again.\n"
    )
    with workspace.database.read() as session:
        assert runs.list_runs(session) == []
    assert list(workspace.backups.iterdir()) == []


@pytest.mark.usefixtures("runs_nothing")
def test_a_start_copies_the_database_first(workspace: Workspace):
    with workspace.database.write() as session:
        settings.put(session, "a", 1)

    assert [start(workspace), start(workspace)] == [0, 0]

    (copy,) = workspace.backups.iterdir()
    assert copy.name.startswith("amenable-daily-")
    with workspace.database.read() as session:
        assert [run.stage for run in runs.list_runs(session)] == ["prepare"]


@pytest.mark.usefixtures("runs_nothing")
@pytest.mark.parametrize("is_by_path", [False, True])
def test_the_same_base_by_path_or_by_name_goes_on_with_the_loop(
    workspace: Workspace, tmp_path: Path, is_by_path: bool
):
    origin = tmp_path / "Mine"
    origin.mkdir()
    entry = ModelEntry(
        name="mine",
        sha256="0" * 64,
        kind="base",
        chat_form="plain",
        licence="CC0",
        origin=str(origin),
        folder="library/mine",
    )
    begun, again = (str(origin), "mine") if is_by_path else ("mine", str(origin))
    with workspace.database.write() as session:
        library.add_model(session, entry)
        inputs = {"model": begun}
        run_id = runs.queue(session, stage="prepare", inputs=inputs, config={}, seed=0)
        runs.start(session, run_id, "1@1.00")
        runs.finish(session, run_id, "1@1.00", RunEnd(status="done", outputs={"model": "mine"}))

    assert start(workspace, ("start", "--base", again)) == 0

    with workspace.database.read() as session:
        assert [run.id for run in runs.list_runs(session)] == [run_id]


@pytest.mark.usefixtures("runs_nothing")
@pytest.mark.parametrize("error", [StorageError("The disk is full."), OSError("The disk is full.")])
def test_a_start_without_a_copy_says_so_and_goes_on(
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
):
    def no_room(_: Workspace) -> None:
        raise error

    monkeypatch.setattr(Workspace, "back_up", no_room)

    assert start(workspace) == 0
    assert "There is no new copy of the database: The disk is full." in capsys.readouterr().out
