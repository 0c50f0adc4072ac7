"""One JSON list of objects, cut into its rows while it streams: no file need fit in memory."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from amenable.datasets.containers.raw import RawRows, json_row, too_long
from amenable.datasets.strict import Limits, Problem
from amenable.records.errors import DataError

OUTSIDE = re.compile(rb'["\[\]{},]')
INSIDE = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
WHITE = b" \t\r\n"


@dataclass(slots=True)
class _Cutter:
    """Finds where each element of the outermost list ends; knows brackets and strings, no more."""

    file: str
    limits: Limits
    depth: int = 0
    in_string: bool = False
    row: int = 1
    is_too_long: bool = False
    is_done: bool = False
    held: bytearray = field(default_factory=bytearray)

    def cut(self, piece: bytes) -> Iterator[bytes | None]:
        """The elements that end in this piece, None for one that is too long."""
        at = 0
        while at < len(piece):
            if self.is_done:
                self._only_white(piece[at:])
                return
            if self.in_string:
                at = self._string(piece, at)
                continue
            found = OUTSIDE.search(piece, at)
            end = found.start() if found else len(piece)
            self._hold(piece[at:end])
            at = end + 1
            if found and self._mark(found.group()):
                yield self._taken()

    def _string(self, piece: bytes, at: int) -> int:
        """Go on to the end of the string, or of the piece (an escape at its end stays whole)."""
        found = INSIDE.match(piece, at)
        end = found.end() if found else at
        if end < len(piece) and piece[end : end + 1] == b'"':
            self.in_string = False
            end += 1
        self._hold(piece[at:end])
        return end

    def _mark(self, mark: bytes) -> bool:
        """Take note of a bracket, comma or quote; True if an element ends before it."""
        if mark == b'"':
            self.in_string = True
        elif mark in b"[{":
            self.depth += 1
            if self.depth == 1:
                self._only_white(bytes(self.held))
                self.held.clear()
                return False
        elif mark in b"]}":
            self.depth -= 1
            self.is_done = self.depth == 0
            if self.is_done and mark == b"}":
                raise DataError(
                    f"{self.file}, row {self.row}: a '}}' closes what was never opened."
                )
        if self.is_done or (mark == b"," and self.depth == 1):
            return True
        self._hold(mark)
        return False

    def _hold(self, data: bytes) -> None:
        if self.is_too_long:
            return
        self.held += data
        if len(self.held) > self.limits.max_row_bytes:
            self.is_too_long = True
            self.held.clear()

    def _taken(self) -> bytes | None:
        data = None if self.is_too_long else bytes(self.held).strip(WHITE)
        self.held.clear()
        self.is_too_long = False
        self.row += 1
        return data

    def _only_white(self, data: bytes) -> None:
        if data.strip(WHITE):
            raise DataError(f"{self.file} is not one JSON list: more stands outside of [ … ].")


def rows_of_list(file: str, pieces: Iterable[bytes], limits: Limits) -> RawRows:
    """Rows count from 1, as the elements of the list."""
    cutter = _Cutter(file, limits)
    for number, data in enumerate(_elements(cutter, pieces), 1):
        if data is None:
            yield too_long(number, limits)
        elif data:
            yield json_row(number, data, limits)
        elif not (cutter.is_done and number == 1):  # an empty list has no rows
            yield Problem(number, "", "is missing between two commas")
    if not cutter.is_done:
        raise DataError(f"{file} is cut off in row {cutter.row}: the list [ … ] is never closed.")


def _elements(cutter: _Cutter, pieces: Iterable[bytes]) -> Iterator[bytes | None]:
    rest = b""
    for piece in pieces:
        whole = rest + piece
        # An escape at the very end needs its second byte to be understood.
        backslashes = len(whole) - len(whole.rstrip(b"\\"))
        cut = len(whole) - backslashes
        rest = whole[cut:]
        yield from cutter.cut(whole[:cut])
        if len(rest) > cutter.limits.max_row_bytes:
            raise DataError(f"{cutter.file}, row {cutter.row}: nothing but backslashes.")
    if rest:
        raise DataError(f"{cutter.file} is cut off in row {cutter.row}.")
