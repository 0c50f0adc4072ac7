"""CSV with a header line: quoted as RFC 4180 says; comma, semicolon or tab, as the header shows.

The standard library's reader has one field limit for the whole process, accepts quotes in the
middle of a field, and cannot go on after a bad row; hence this one.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from amenable.datasets.containers.raw import RawRow, RawRows, too_long
from amenable.datasets.containers.unpack import Line, lines
from amenable.datasets.fields import Fields
from amenable.datasets.strict import Limits, Problem, RowError, decode, shown
from amenable.records.errors import DataError

FAR_TOO_LONG = 16  # times the limit of a row: so far quotes are counted, to find the next row
LEFT_OPEN = "opens a quote and never closes it"
DELIMITERS = ",;\t"
QUOTED = re.compile(r'"([^"]*+(?:""[^"]*+)*+)("?)')


@dataclass(slots=True)
class _Records:
    """Puts lines together to records: a quote that is open goes on over the end of the line."""

    file: str
    limits: Limits
    delimiter: str = ","
    number: int = 0
    """Of the record that is being read; the header is 0."""
    held: list[bytes] = field(default_factory=list[bytes])
    num_bytes: int = 0
    is_open: bool = False

    def of(self, source: Iterable[Line]) -> Iterator[bytes | None]:
        """Whole records; None for one that is too long."""
        for line in source:
            if line.data is None:
                raise DataError(f"{self.file}, row {self.number}: this line is far too long.")
            if not (self.is_open or line.data.strip()):
                continue
            self._hold(line.data)
            if not self.is_open:
                yield self._whole()
                self.number += 1
        if self.is_open:
            raise self._never_closed()

    def _hold(self, data: bytes) -> None:
        is_first = self.num_bytes == 0
        self.num_bytes += len(data) + 1
        if self.num_bytes > FAR_TOO_LONG * self.limits.max_row_bytes:
            raise self._never_closed()
        if self.num_bytes <= self.limits.max_row_bytes + 1:
            self.held.append(data)
        if data.count(b'"') % 2:
            self.is_open = not self.is_open
        if is_first and self.is_open:
            self.is_open = _goes_on(data, self.delimiter)

    def _whole(self) -> bytes | None:
        is_too_long = self.num_bytes > self.limits.max_row_bytes + 1
        data = b"\n".join(self.held)
        self.held.clear()
        self.num_bytes = 0
        return None if is_too_long else data

    def _never_closed(self) -> DataError:
        return DataError(
            f"{self.file}, row {self.number}: a quote is opened and not closed, "
            "so nobody can say where this row ends."
        )


def _goes_on(first_line: bytes, delimiter: str) -> bool:
    """Whether a quote is left open at the end, rather than standing where none may stand."""
    try:
        split_record(first_line.decode("latin-1"), delimiter)
    except RowError as error:
        return error.reason == LEFT_OPEN
    return False


def rows_of_csv(file: str, pieces: Iterable[bytes], limits: Limits) -> RawRows:
    """Rows count from 1 after the header; a field's line ends become line feeds."""
    maker = _Records(file, limits)
    records = maker.of(lines(pieces, FAR_TOO_LONG * limits.max_row_bytes))
    header = next(records, b"")
    try:
        columns, maker.delimiter = _header(header)
    except RowError as error:
        raise DataError(f"{file}, header: {error.reason}.") from None
    for number, record in enumerate(records, 1):
        if record is None:
            yield too_long(number, limits)
        else:
            yield _row(number, record, columns, maker.delimiter)


def _header(record: bytes | None) -> tuple[list[str], str]:
    if record is None:
        raise RowError("", "is too long")
    text = decode(record)
    bare = QUOTED.sub("", text)
    delimiter = max(DELIMITERS, key=bare.count)
    columns = [name.strip() for name in split_record(text, delimiter)]
    twins = sorted({name for name in columns if columns.count(name) > 1})
    if twins:
        raise RowError("", f"the column {shown(twins[0])!r} stands there twice")
    return columns, delimiter


def _row(number: int, record: bytes, columns: list[str], delimiter: str) -> RawRow | Problem:
    try:
        cells = split_record(decode(record), delimiter)
    except RowError as error:
        return error.at(number)
    if len(cells) != len(columns):
        return Problem(
            number, "", f"has {len(cells)} cells, expected {len(columns)} as in the header"
        )
    values: dict[str, object] = dict(zip(columns, cells, strict=True))
    return RawRow(number, Fields(values, is_csv=True))


def split_record(text: str, delimiter: str) -> list[str]:
    """The cells of one record.

    >>> split_record('a,"b ""c"", d",', ",")
    ['a', 'b "c", d', '']
    """
    cells: list[str] = []
    at = 0
    while True:
        cell, at = _cell(text, at, delimiter)
        cells.append(cell)
        if at == len(text):
            return cells
        if text[at] != delimiter:
            raise RowError("", f"has text after a closing quote (cell {len(cells)})")
        at += 1


def _cell(text: str, at: int, delimiter: str) -> tuple[str, int]:
    """One cell, and where it ends."""
    if quoted := QUOTED.match(text, at):
        if not quoted.group(2):
            raise RowError("", LEFT_OPEN)
        return quoted.group(1).replace('""', '"'), quoted.end()
    end = text.find(delimiter, at)
    end = len(text) if end < 0 else end
    if '"' in text[at:end]:
        raise RowError("", "has a quote inside of a cell that is not quoted")
    return text[at:end], end
