"""The bytes of a file in small pieces, unpacked if it is gzip, and cut into bounded lines."""

import gzip
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from amenable.datasets.strict import UTF8_BOM, Limits
from amenable.records.errors import DataError

CHUNK_BYTES = 64 * 1024
GZIP_MAGIC = b"\x1f\x8b"
OTHER_ENCODINGS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"\x00\x00\xfe\xff": "UTF-32"}


class Line(NamedTuple):
    number: int
    data: bytes | None  # None: longer than the limit


def first_bytes(path: Path, count: int) -> bytes:
    """The start of the file as it lies there, packed or not."""
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError as error:
        raise DataError(f"{path.name} cannot be read: {error.strerror or error}.") from error


def chunks(path: Path, limits: Limits) -> Iterator[bytes]:
    """Unpacked bytes without a byte order mark; the first piece is long enough to look at."""
    pieces = _unpacked(path, limits)
    first = b""
    for piece in pieces:
        first += piece
        if len(first) >= CHUNK_BYTES:
            break
    for mark, encoding in OTHER_ENCODINGS.items():
        if first.startswith(mark):
            raise DataError(f"{path.name} is written in {encoding}; save it as UTF-8.")
    if first := first.removeprefix(UTF8_BOM):
        yield first
    yield from pieces


def lines(pieces: Iterable[bytes], max_bytes: int) -> Iterator[Line]:
    """Lines without their ends, counted from 1; only a line feed ends a line, CR before it goes.

    >>> [line.data for line in lines([b"a\\r\\nbc", b"d\\n"], max_bytes=3)]
    [b'a', b'bcd']
    """
    number, held, is_too_long = 1, bytearray(), False
    for piece in pieces:
        *ended, rest = piece.split(b"\n")
        for end in ended:
            held += end
            yield _line(number, held, max_bytes, is_too_long=is_too_long)
            number, is_too_long = number + 1, False
            held.clear()
        held += rest
        if len(held) > max_bytes + 1:
            is_too_long = True
            held.clear()
    if held or is_too_long:
        yield _line(number, held, max_bytes, is_too_long=is_too_long)


def _line(number: int, held: bytearray, max_bytes: int, *, is_too_long: bool) -> Line:
    data = bytes(held).removesuffix(b"\r")
    return Line(number, None if is_too_long or len(data) > max_bytes else data)


def _unpacked(path: Path, limits: Limits) -> Iterator[bytes]:
    is_gzip = first_bytes(path, 2) == GZIP_MAGIC
    size = path.stat().st_size
    allowed = limits.unpacked_bytes(size) if is_gzip else limits.max_unpacked_bytes
    seen = 0
    try:
        with ExitStack() as stack:
            file: BinaryIO = stack.enter_context(path.open("rb"))
            if is_gzip:
                file = cast("BinaryIO", stack.enter_context(gzip.GzipFile(fileobj=file)))
            while piece := file.read(CHUNK_BYTES):
                seen += len(piece)
                if seen > allowed:
                    raise DataError(
                        f"{path.name} unpacks to more than {allowed:,} bytes, which is more than "
                        "is read from one file; split it."
                    )
                yield piece
    except EOFError:
        raise DataError(f"{path.name} is cut off: the gzip file ends too early.") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path.name} is a damaged gzip file: {error}.") from None
    except OSError as error:
        raise DataError(f"{path.name} cannot be read: {error.strerror or error}.") from error
