"""A data file as examples and problems, one by one: container and kind found out or given."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from amenable.datasets.containers.csv_rows import rows_of_csv
from amenable.datasets.containers.json_list import rows_of_list
from amenable.datasets.containers.jsonl import rows_of_lines
from amenable.datasets.containers.parquet import rows_of_parquet
from amenable.datasets.containers.plain import rows_of_text
from amenable.datasets.containers.raw import RawRow, RawRows
from amenable.datasets.containers.unpack import chunks, first_bytes
from amenable.datasets.detect import Kind, detect, kind_named, kind_of, known_kinds
from amenable.datasets.examples import Example
from amenable.datasets.strict import Limits, Problem, RowError, shown
from amenable.records.errors import DataError

ROWS_LOOKED_AT = 50
LIST_START = re.compile(rb"\s*\[\s*(?:[{\]]|\Z)")
OTHER_FILES = {
    b"PK\x03\x04": "a ZIP archive (or a spreadsheet); unpack it, or save the sheet as CSV",
    b"ARROW1": "an Arrow file; save it as Parquet",
    b"SQLite format 3": "an SQLite database; export its table as CSV",
    b"%PDF": "a PDF; save its text as .txt",
}
READ_FORMATS = ".jsonl, .json, .csv, .tsv, .parquet or .txt (all but Parquet also as .gz)"

Container = Callable[[Path, Limits], RawRows]


@dataclass(frozen=True, slots=True)
class ReadRow:
    """A good row: where it stood in the file, and what it says."""

    row: int
    example: Example


@dataclass(frozen=True, slots=True)
class Reading:
    """What the file holds; `rows` runs once, and raises a DataError where it breaks."""

    kind: Kind
    rows: Iterator[ReadRow | Problem]


def read(path: Path, *, kind: str | None = None, limits: Limits | None = None) -> Reading:
    """Open a data file. DataError if it cannot be read at all; bad rows come out as problems."""
    limits = limits or Limits()
    given = kind_named(kind) if kind else None
    raw = _bounded(path, _container(path, given)(path, limits), limits)
    head = list(islice(raw, ROWS_LOOKED_AT))
    if not head:
        raise DataError(f"{path.name} is empty: it has no rows.")
    seen = [each.fields for each in head if isinstance(each, RawRow)]
    found = given or detect(seen)
    if found is None:
        raise _unknown(path, head)
    return Reading(found, _examples(path, found, chain(head, raw), is_given=given is not None))


def start_of(path: Path) -> bytes:
    """The first bytes of the file; a DataError if it is none, or may not be opened."""
    if not path.is_file():
        raise DataError(f"{path} {'is not a file' if path.exists() else 'does not exist'}.")
    return first_bytes(path, 64)


def _container(path: Path, given: Kind | None) -> Container:
    """By what the file starts with, then by how it is called."""
    start = start_of(path)
    if start.startswith(b"PAR1"):
        return rows_of_parquet
    for magic, what in OTHER_FILES.items():
        if start.startswith(magic):
            raise DataError(f"{path.name} is {what}.")
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if suffix == ".parquet":
        raise DataError(f"{path.name} is not a Parquet file, though its name says so.")
    if suffix not in CONTAINERS:
        raise DataError(f"{path.name} has a name that tells no format; expected {READ_FORMATS}.")
    container = CONTAINERS[suffix]
    if container is _text_rows and given is not None and given.name != "text":
        raise DataError(f"{path.name} is plain text, which cannot be read as {given.name}.")
    return container


def _text_rows(path: Path, limits: Limits) -> RawRows:
    return rows_of_text(chunks(path, limits), limits)


def _csv_rows(path: Path, limits: Limits) -> RawRows:
    return rows_of_csv(path.name, chunks(path, limits), limits)


def _json_rows(path: Path, limits: Limits) -> RawRows:
    """A list of rows, or a row on each line, whichever of the two names the file bears."""
    pieces = chunks(path, limits)
    first = next(pieces, b"")
    whole = chain([first], pieces)
    if LIST_START.match(first[: limits.max_row_bytes]):
        return rows_of_list(path.name, whole, limits)
    if _is_one_object(first):
        raise DataError(
            f"{path.name} is one JSON object over many lines; expected a list of rows [ … ], "
            "or one object a line."
        )
    return rows_of_lines(whole, limits)


def _is_one_object(first: bytes) -> bool:
    """A first line that ends inside of an object, with a key on the next."""
    return re.match(rb'\s*\{\s*\n\s*"', first) is not None


CONTAINERS: dict[str, Container] = {
    ".jsonl": _json_rows,
    ".ndjson": _json_rows,
    ".json": _json_rows,
    ".csv": _csv_rows,
    ".tsv": _csv_rows,
    ".txt": _text_rows,
    ".text": _text_rows,
}


def _bounded(path: Path, rows: RawRows, limits: Limits) -> RawRows:
    for count, row in enumerate(rows, 1):
        if count > limits.max_rows:
            raise DataError(f"{path.name} has more than {limits.max_rows:,} rows; split it.")
        yield row


def _examples(
    path: Path, kind: Kind, rows: Iterable[RawRow | Problem], *, is_given: bool
) -> Iterator[ReadRow | Problem]:
    """Ends in a DataError if no row at all was good: then this is not the file it was taken for."""
    first_problem: Problem | None = None
    num_rows = num_good = 0
    looks_like: Kind | None = None
    for raw in rows:
        num_rows += 1
        item = _example(kind, raw)
        if isinstance(item, ReadRow):
            num_good += 1
        elif first_problem is None:
            first_problem = item
            looks_like = kind_of(raw.fields) if isinstance(raw, RawRow) else None
        yield item
    if num_good == 0:
        hint = ""
        if is_given and looks_like is not None and looks_like is not kind:
            hint = f" Its first row looks like {looks_like.name} ({looks_like.keys})."
        raise DataError(
            f"{path.name}: none of its {num_rows} rows can be read as {kind.name} ({kind.keys}); "
            f"{first_problem}.{hint}"
        )


def _example(kind: Kind, raw: RawRow | Problem) -> ReadRow | Problem:
    if isinstance(raw, Problem):
        return raw
    try:
        return ReadRow(raw.number, kind.read(raw.fields))
    except RowError as error:
        return error.at(raw.number)


def _unknown(path: Path, head: list[RawRow | Problem]) -> DataError:
    first = head[0]
    if all(isinstance(each, Problem) for each in head):
        return DataError(f"{path.name} holds no row that can be read; {first}.")
    seen = next(each for each in head if isinstance(each, RawRow))
    keys = ", ".join(shown(key) for key in list(seen.fields.values)[:12]) or "no keys"
    return DataError(
        f"{path.name}: row {seen.number} has {keys}, which is no known kind. Known are: "
        f"{known_kinds()}."
    )
