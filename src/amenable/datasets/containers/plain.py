"""A plain text file as pieces of whole paragraphs, long enough to be read as text."""

from collections.abc import Iterable, Iterator

from amenable.datasets.containers.raw import RawRow, RawRows, too_long
from amenable.datasets.containers.unpack import lines
from amenable.datasets.fields import Fields
from amenable.datasets.strict import Limits, RowError, decode

ENOUGH_BYTES = 2000


def rows_of_text(pieces: Iterable[bytes], limits: Limits) -> RawRows:
    """Paragraphs (a blank line ends one) are joined until a piece has 2,000 bytes."""
    for number, data in enumerate(_pieces(pieces, limits), 1):
        if data is None:
            yield too_long(number, limits)
            continue
        try:
            yield RawRow(number, Fields({"text": decode(data)}))
        except RowError as error:
            yield error.at(number)


def _pieces(pieces: Iterable[bytes], limits: Limits) -> Iterator[bytes | None]:
    held: list[bytes] = []
    num_bytes = 0
    for line in lines(pieces, limits.max_row_bytes):
        num_bytes += len(line.data or b"") + 1
        if line.data is None or num_bytes > limits.max_row_bytes:
            yield None
            held, num_bytes = [], 0
        elif line.data.strip() or num_bytes < ENOUGH_BYTES:
            held.append(line.data)
        else:
            yield b"\n".join(held).strip(b"\n")
            held, num_bytes = [], 0
    if any(line.strip() for line in held):
        yield b"\n".join(held).strip(b"\n")
