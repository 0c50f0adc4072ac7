"""Reads one Parquet file in a process of its own, with little memory, and writes rows to stdout.

Run as `python -m amenable.datasets.containers.parquet_child FILE`. A hostile file reaches
native code, so what it breaks is this process. Each line is a letter and JSON: R a row, E a row
that cannot be taken, X the file cannot be read, Z the end.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from amenable.datasets.detect import WANTED_KEYS

try:
    import resource
except ImportError:  # Windows has no such limits; the process is still apart
    resource = None

ROWS_PER_BATCH = 64
MEMORY_BYTES = 2 * 2**30
SECONDS = 900


def main(file: str) -> int:
    _limit_this_process()
    try:
        for letter, value in _rows(Path(file)):
            _say(letter, value)
    except (pa.ArrowException, OSError, MemoryError, ValueError, OverflowError) as error:
        _say("X", json.dumps(" ".join(str(error).split())[:300] or type(error).__name__))
    return 0


def _rows(path: Path) -> Iterator[tuple[str, str]]:
    # The plain allocator: others reserve address space that the limit would count.
    pa.set_memory_pool(pa.system_memory_pool())
    with pq.ParquetFile(path, pre_buffer=False, page_checksum_verification=True) as file:
        names = file.schema_arrow.names
        twins = sorted({name for name in names if names.count(name) > 1})
        if twins:
            yield "X", json.dumps(f"the column {twins[0]!r} stands there twice")
            return
        wanted = [name for name in names if name in WANTED_KEYS]
        if not wanted:
            has = ", ".join(names[:10])
            yield "X", json.dumps(f"no column is known; it has {has[:200] or 'none'}")
            return
        number = 0
        for batch in file.iter_batches(batch_size=ROWS_PER_BATCH, columns=wanted):
            for index in range(batch.num_rows):
                number += 1
                yield _row(batch, index)
        yield "Z", str(number)


def _row(batch: Any, index: int) -> tuple[str, str]:
    """One row as JSON text; written field by field, so that a refusal names its field."""
    parts: list[str] = []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            value = json.dumps(column[index].as_py(), ensure_ascii=False)
        except UnicodeDecodeError:
            return "E", json.dumps({"key": name, "reason": "is not UTF-8"})
        except TypeError:
            reason = f"is of the type {column.type}, expected text or turns"
            return "E", json.dumps({"key": name, "reason": reason[:200]})
        parts.append(f"{json.dumps(name)}: {value}")
    return "R", f"{{{', '.join(parts)}}}"


def _say(letter: str, value: str) -> None:
    sys.stdout.buffer.write(f"{letter}{value}\n".encode())


def _limit_this_process() -> None:
    if resource is not None:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
