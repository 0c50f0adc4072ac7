"""Files that are written whole or not at all, and named by their content."""

import errno
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from amenable.records.errors import WorkspaceError

CHUNK_BYTES = 1 << 20
# A reader on Windows holds a file against replacing for as long as it reads.
REPLACE_TRIES = 50 if os.name == "nt" else 1
REPLACE_PAUSE_SECONDS = 0.02
DISK_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
# Rust gives the system's own number: on Windows ERROR_DISK_FULL and ERROR_HANDLE_DISK_FULL.
RUST_DISK_FULL = {112, 39} if os.name == "nt" else DISK_FULL


def write_whole(path: Path, data: bytes, *, is_durable: bool = True) -> str:
    """Write `data` so that a crash leaves the old file or the new one; return its sha256.

    Without `is_durable` this holds for a killed process, not for a power cut, and costs no wait for
    the disk: right for what is written every second and worth nothing tomorrow.
    """
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(4)}.unfinished")
    try:
        with unfinished.open("wb") as file:
            file.write(data)
            if is_durable:
                file.flush()
                os.fsync(file.fileno())
        _replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    if is_durable:
        flush_folder(path.parent)
    return hashlib.sha256(data).hexdigest()


@contextmanager
def whole_folder(folder: Path) -> Generator[Path]:
    """A folder to fill, which takes its name when it is left without an error, and not before."""
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    yield unfinished
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)


@contextmanager
def swapped(unfinished: Path, folder: Path) -> Generator[None]:
    """A filled folder takes the place of another; after an error in the block the old one is back.

    For what is right together with a row of the database only, which the block commits.
    """
    before = folder.with_name(f"{folder.name}.before.unfinished")
    shutil.rmtree(before, ignore_errors=True)
    if folder.exists():
        folder.rename(before)
    unfinished.rename(folder)
    try:
        flush_folder(folder.parent)
        yield
    except BaseException:
        folder.rename(unfinished)
        if before.exists():
            before.rename(folder)
        raise
    shutil.rmtree(before, ignore_errors=True)


def append_line(path: Path, text: str, *, is_durable: bool = False) -> None:
    """Add one line; a line that a crash cut short before stays a line of its own."""
    if "\n" in text or "\r" in text:
        raise ValueError("a line cannot hold a line break")
    with path.open("ab+") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            text = text if file.read(1) == b"\n" else "\n" + text
        file.write(text.encode() + b"\n")
        if is_durable:
            file.flush()
            os.fsync(file.fileno())


def is_disk_full(error: BaseException) -> bool:
    """Also where a library writes by itself and has nothing but text to say so.

    >>> is_disk_full(OSError(errno.ENOSPC, "No space left")), is_disk_full(OSError("what?"))
    (True, False)
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in DISK_FULL
    number = re.search(r"\(os error (\d+)\)", str(error))  # as safetensors and tokenizers end
    return number is not None and int(number[1]) in RUST_DISK_FULL


def hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_folder(folder: Path) -> str:
    """One sha256 over the names and contents of all files below; the same on every system.

    Unfinished files and empty folders do not count.
    """
    if not folder.is_dir():
        raise WorkspaceError(f"There is no folder {folder}.")
    return hash_of(
        {path.relative_to(folder).as_posix(): hash_file(path) for path in _files(folder)}
    )


def hash_of(files: Mapping[str, str]) -> str:
    """The sha256 of a folder that holds these files, by their own."""
    digest = hashlib.sha256()
    for name, sha256 in sorted(files.items()):
        # A name cannot hold a zero byte, so no two folders can spell the same sequence.
        digest.update(f"{name}\0{sha256}\0".encode())
    return digest.hexdigest()


def flush_folder(folder: Path) -> None:
    """Make a rename in this folder outlive a power cut; Windows does so by itself."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".unfinished"]


def _replace(unfinished: Path, path: Path) -> None:
    for attempt in range(1, REPLACE_TRIES + 1):
        try:
            unfinished.replace(path)
        except PermissionError:
            if attempt == REPLACE_TRIES:
                raise
            time.sleep(REPLACE_PAUSE_SECONDS)
        else:
            return
