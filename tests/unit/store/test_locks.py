"""One holder at a time, and none that is dead."""

import subprocess
import sys
from pathlib import Path

import pytest

from amenable.records.errors import WorkspaceError
from amenable.store.locks import FileLock

HOLD = """
import sys
from pathlib import Path
from amenable.store.locks import FileLock
held = FileLock(Path(sys.argv[1]), busy="busy")
held.acquire()
print("held", flush=True)
sys.stdin.read()
"""


def lock(path: Path, wait_seconds: float = 0.0) -> FileLock:
    return FileLock(path, busy="The room is taken", wait_seconds=wait_seconds)


def test_a_second_holder_is_refused_and_told_who_has_it(tmp_path: Path):
    path = tmp_path / "room.lock"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"held"

        with pytest.raises(WorkspaceError, match=rf"The room is taken \(process {process.pid}\)"):
            lock(path).acquire()

        process.kill()
        process.wait()
    with lock(path, wait_seconds=5.0):
        assert path.exists()


def test_a_lock_is_free_again_after_its_context(tmp_path: Path):
    path = tmp_path / "room.lock"
    with lock(path), pytest.raises(WorkspaceError):
        lock(path).acquire()
    with lock(path):
        pass


def test_releasing_twice_or_unheld_is_harmless(tmp_path: Path):
    held = lock(tmp_path / "room.lock")
    held.release()
    held.acquire()
    held.release()
    held.release()


def test_acquiring_twice_is_a_mistake(tmp_path: Path):
    with lock(tmp_path / "room.lock") as held, pytest.raises(RuntimeError, match="held already"):
        held.acquire()
