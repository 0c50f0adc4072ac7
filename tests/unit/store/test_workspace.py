"""One folder holds everything, and one process of each kind."""

import os
import stat
import threading
from pathlib import Path

import pytest

from amenable.records.errors import NotFoundError, WorkspaceError
from amenable.store.workspace import Workspace


def test_opening_makes_the_rooms_and_opening_again_keeps_them(tmp_path: Path):
    folder = tmp_path / "deep" / "workspace"
    with Workspace.open(folder) as workspace:
        (workspace.library / "model").mkdir()
        rooms = [workspace.library, workspace.runs, workspace.downloads, workspace.logs]

    with Workspace.open(folder) as again:
        assert all(room.is_dir() for room in rooms)
        assert (again.library / "model").is_dir()
        assert again.database.path == folder / "amenable.sqlite3"


def test_a_file_in_the_way_is_said_in_plain_words(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(WorkspaceError, match="cannot hold a workspace"):
        Workspace.open(tmp_path / "file")


def test_a_run_has_a_folder(workspace: Workspace):
    folder = workspace.run_folder("finetune-2026-11-22-1a2b")

    assert folder.is_dir()
    assert folder == workspace.runs / "finetune-2026-11-22-1a2b"


@pytest.mark.parametrize(
    "run_id", ["", "..", "../library", "a/b", "a\\b", "C:", "A", "-a", "a" * 41]
)
def test_no_run_climbs_out_of_its_room(workspace: Workspace, run_id: str):
    with pytest.raises(NotFoundError):
        workspace.run_folder(run_id)


def test_the_secret_is_made_once_for_all_who_ask_at_once(workspace: Workspace):
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(workspace.secret())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(found)) == 1
    assert len(found) == 8
    assert len(bytes.fromhex(found[0])) == 32


def test_two_workspaces_have_two_secrets(workspace: Workspace, tmp_path: Path):
    with Workspace.open(tmp_path / "other") as other:
        assert other.secret() != workspace.secret()


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps rights by folder")
def test_the_secret_is_its_owners_alone_also_when_somebody_opened_it(workspace: Workspace):
    workspace.secret()
    path = workspace.folder / "secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600

    path.chmod(0o644)
    workspace.secret()

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_damaged_secret_is_not_used(workspace: Workspace):
    (workspace.folder / "secret").write_text("")

    with pytest.raises(WorkspaceError, match="damaged"):
        workspace.secret()


def test_one_process_of_each_role(workspace: Workspace):
    with (
        workspace.lock("web"),
        workspace.lock("worker"),
        pytest.raises(WorkspaceError, match="running web already"),
    ):
        workspace.lock("web").acquire()


def test_what_would_not_fit_is_refused_before_it_fills_the_disk(workspace: Workspace):
    workspace.size_check(1000)

    with pytest.raises(WorkspaceError, match=r"needs 1000000\.0 GB .* left"):
        workspace.size_check(10**15)
