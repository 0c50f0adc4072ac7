"""Parquet, read in a process of its own; what comes back is trusted no more than any other file."""

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO

from amenable.datasets.containers.raw import RawRow, RawRows, json_row, too_long
from amenable.datasets.containers.unpack import CHUNK_BYTES, Line, lines
from amenable.datasets.strict import Limits, Problem, RowError, parse_json, shown
from amenable.records.errors import DataError

CHILD = "amenable.datasets.containers.parquet_child"


def rows_of_parquet(path: Path, limits: Limits) -> RawRows:
    """Rows count from 1; only columns that some reader knows are unpacked."""
    command = [sys.executable, "-P", "-m", CHILD, str(path.resolve())]
    with subprocess.Popen(  # noqa: S603  our own module, no shell
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        assert child.stdout is not None
        try:
            yield from _told(
                path, lines(_bounded(path, child.stdout, limits), limits.max_row_bytes), limits
            )
        finally:
            child.kill()


def _told(path: Path, told: Iterator[Line], limits: Limits) -> RawRows:
    for number, line in told:
        if line is None:
            yield too_long(number, limits)
            continue
        letter, data = line[:1], line[1:]
        if letter == b"R":
            yield json_row(number, data, limits)
        elif letter == b"E":
            yield _problem(number, data, limits)
        elif letter == b"Z":
            return
        else:
            raise DataError(f"{path.name} cannot be read as Parquet: {_reason(data, limits)}.")
    raise DataError(
        f"{path.name} cannot be read as Parquet: it broke its reader or asked for too much memory."
    )


def _bounded(path: Path, stream: IO[bytes], limits: Limits) -> Iterator[bytes]:
    allowed = limits.unpacked_bytes(path.stat().st_size)
    seen = 0
    for piece in iter(partial(stream.read, CHUNK_BYTES), b""):
        seen += len(piece)
        if seen > allowed:
            raise DataError(f"{path.name} unpacks to more than {allowed:,} bytes; split it.")
        yield piece


def _problem(number: int, data: bytes, limits: Limits) -> Problem:
    found = json_row(number, data, limits)
    if isinstance(found, RawRow):
        values = found.fields.values
        key, reason = (shown(str(values.get(name)), 200) for name in ("key", "reason"))
        return Problem(number, key, reason)
    return found


def _reason(data: bytes, limits: Limits) -> str:
    try:
        return shown(str(parse_json(data, limits)), 300).rstrip(".")
    except RowError:
        return "it broke its reader"
