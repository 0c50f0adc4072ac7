"""A lock on a file that every system knows and that no dead process keeps."""

import os
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from amenable.records.errors import WorkspaceError

# Windows locks bytes against reading too, so the locked byte lies far behind the holder's number.
LOCKED_BYTE = 1 << 30
POLL_SECONDS = 0.02


if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: BinaryIO) -> bool:
        file.seek(LOCKED_BYTE)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(file: BinaryIO) -> None:
        file.seek(LOCKED_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(file: BinaryIO) -> bool:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(file: BinaryIO) -> None:
        fcntl.flock(file.fileno(), fcntl.LOCK_UN)


class FileLock:
    """Held by one process at a time, and by one `FileLock` at a time within it.

    The system frees it when its holder ends, however that came about. `busy` is what the error
    says when somebody else keeps it beyond `wait_seconds`.
    """

    def __init__(self, path: Path, *, busy: str, wait_seconds: float = 0.0) -> None:
        self._path = path
        self._busy = busy
        self._wait_seconds = wait_seconds
        self._file: BinaryIO | None = None

    def acquire(self) -> None:
        if self._file is not None:
            raise RuntimeError(f"this lock on {self._path.name} is held already")
        file = os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
        try:
            self._wait_for(file)
        except BaseException:
            file.close()
            raise
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()).encode())
        file.flush()
        self._file = file

    def release(self) -> None:
        if self._file is not None:
            _unlock(self._file)
            self._file.close()
            self._file = None

    def _wait_for(self, file: BinaryIO) -> None:
        give_up_at = time.monotonic() + self._wait_seconds
        while not _try_lock(file):
            if time.monotonic() >= give_up_at:
                raise WorkspaceError(f"{self._busy} (process {self._holder() or 'unknown'}).")
            time.sleep(POLL_SECONDS)

    def _holder(self) -> str:
        return self._path.read_text("ascii", errors="replace")

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()
