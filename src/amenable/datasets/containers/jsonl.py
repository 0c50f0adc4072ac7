"""JSON Lines: one object a line; a row's number is its line's."""

from collections.abc import Iterable

from amenable.datasets.containers.raw import RawRows, json_row, too_long
from amenable.datasets.containers.unpack import lines
from amenable.datasets.strict import Limits


def rows_of_lines(pieces: Iterable[bytes], limits: Limits) -> RawRows:
    for number, data in lines(pieces, limits.max_row_bytes):
        if data is None:
            yield too_long(number, limits)
        elif data.strip():
            yield json_row(number, data, limits)
