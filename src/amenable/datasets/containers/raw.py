"""A raw row: its number in the file and its fields, before anybody asks what it means."""

from collections.abc import Iterator
from typing import NamedTuple

from amenable.datasets.fields import Fields, describe
from amenable.datasets.strict import Limits, Problem, RowError, parse_json


class RawRow(NamedTuple):
    number: int
    fields: Fields


RawRows = Iterator[RawRow | Problem]


def json_row(number: int, data: bytes, limits: Limits) -> RawRow | Problem:
    """One JSON object as a row, or why it is none."""
    try:
        value = parse_json(data, limits)
    except RowError as error:
        return error.at(number)
    if not isinstance(value, dict):
        return Problem(number, "", f"is {describe(value)}, expected an object {{…}}")
    return RawRow(number, Fields(value))


def too_long(number: int, limits: Limits) -> Problem:
    return Problem(number, "", f"is longer than {limits.max_row_bytes:,} bytes")
