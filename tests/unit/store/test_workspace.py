"""One folder holds everything, and one process of each kind."""

import os
import sqlite3
import stat
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from amenable.records.errors import NotFoundError, WorkspaceError
from amenable.store import settings
from amenable.store.sqlite import StorageError
from amenable.store.workspace import DAY_SECONDS, Workspace


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


@pytest.mark.parametrize("room", ["library", "runs"])
@pytest.mark.parametrize("is_there", [True, False])
def test_a_lost_database_is_not_taken_for_a_new_workspace(
    tmp_path: Path, room: str, is_there: bool
):
    with Workspace.open(tmp_path) as workspace:
        (workspace.folder / room / "something").mkdir()
    database = tmp_path / "amenable.sqlite3"
    database.unlink()
    if is_there:
        database.touch()

    with pytest.raises(WorkspaceError, match=r"missing or empty, .* put a copy from \S+backups"):
        Workspace.open(tmp_path)

    assert not database.exists() or database.stat().st_size == 0


def test_an_opening_that_was_cut_off_is_begun_again(tmp_path: Path):
    for room in ("library", "runs"):
        (tmp_path / room).mkdir()
    (tmp_path / "amenable.sqlite3").touch()

    with Workspace.open(tmp_path) as workspace, workspace.database.read() as session:
        assert settings.get(session, "a", 0) == 0


def keep(workspace: Workspace, value: int) -> None:
    with workspace.database.write() as session:
        settings.put(session, "a", value)


def value_in(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        (value,) = connection.execute("SELECT value FROM settings").fetchone()
    return value


def age(path: Path, days: float) -> None:
    moment = time.time() - days * DAY_SECONDS
    os.utime(path, (moment, moment))


def test_the_database_is_copied_once_a_day(workspace: Workspace):
    workspace.back_up()
    assert list(workspace.backups.iterdir()) == []  # nothing in it would be missed

    keep(workspace, 1)
    workspace.back_up()
    (first,) = workspace.backups.iterdir()
    keep(workspace, 2)
    workspace.back_up()
    assert list(workspace.backups.iterdir()) == [first]

    first = first.rename(workspace.backups / "amenable-daily-2026-01-01T00-00-00.sqlite3")
    age(first, days=1.1)
    workspace.back_up()

    (second,) = set(workspace.backups.iterdir()) - {first}
    assert ("1" in value_in(first), "2" in value_in(second)) == (True, True)


def test_the_last_five_copies_stay_and_those_before_an_upgrade_for_ever(workspace: Workspace):
    keep(workspace, 1)
    upgraded = workspace.backups / "amenable-schema-0001-2020-01-01T00-00-00.sqlite3"
    daily = [workspace.backups / f"amenable-daily-2026-01-0{n}.sqlite3" for n in range(1, 8)]
    for number, path in enumerate([upgraded, *daily]):
        path.touch()
        age(path, days=20 - number)

    workspace.back_up()

    left = set(workspace.backups.iterdir())
    assert {upgraded, *daily[3:]} < left  # the newest four, and the one made now
    assert len(left) == 1 + 5


def test_where_no_copy_fits_none_is_begun(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    keep(workspace, 1)

    def too_large(num_bytes: int) -> None:
        raise StorageError("too large")

    monkeypatch.setattr(workspace, "size_check", too_large)

    with pytest.raises(StorageError):
        workspace.back_up()
    assert list(workspace.backups.iterdir()) == []


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
