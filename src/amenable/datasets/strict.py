"""Strict text and JSON: what a hostile or broken file may not get past, and in which words."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass

UTF8_BOM = b"\xef\xbb\xbf"
DIGITS_AT_MOST = 18  # fits every 64-bit whole number
# A string as a whole (escapes included), or a bracket outside of strings. A string that is never
# closed runs to the end in one match: looking again from each quote inside it would be quadratic.
JSON_SHAPE = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[{]|[\]}]', re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much one file may ask of this machine."""

    max_row_bytes: int = 2**20
    max_rows: int = 1_000_000
    max_depth: int = 32
    max_problems: int = 100_000
    """Beyond this the file is refused whole, so that no bad row goes unlisted."""
    max_unpacked_bytes: int = 4 * 2**30
    max_unpacking_ratio: int = 200
    free_unpacked_bytes: int = 64 * 2**20
    """The ratio is looked at only beyond this size."""

    def unpacked_bytes(self, packed_bytes: int) -> int:
        """How many bytes a packed file may grow to."""
        by_ratio = max(self.free_unpacked_bytes, packed_bytes * self.max_unpacking_ratio)
        return min(self.max_unpacked_bytes, by_ratio)


@dataclass(frozen=True, slots=True)
class Problem:
    """Why one row was not taken; rows count from 1, `key` is empty if the whole row is at fault."""

    row: int
    key: str
    reason: str

    def to_json(self) -> dict[str, object]:
        return {"row": self.row, "key": self.key, "reason": self.reason}

    def __str__(self) -> str:
        """In words.

        >>> print(Problem(3, "output", "is missing"))
        row 3, key 'output': is missing
        """
        return f"row {self.row}{self.key and f', key {self.key!r}'}: {self.reason}"


class RowError(Exception):
    """One row cannot be taken; the file goes on."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key}: {reason}")
        self.key, self.reason = key, reason

    def at(self, row: int) -> Problem:
        return Problem(row, self.key, self.reason)


def shown(text: str, most: int = 40) -> str:
    """A name out of a file, fit for a message: short, on one line, without control characters.

    >>> shown("te\\nxt\\x1b[2J")
    'te·xt·[2J'
    """
    return "".join(letter if letter.isprintable() else "·" for letter in text[:most])


def decode(data: bytes) -> str:
    """UTF-8 or a RowError that names the first wrong byte."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        wrong = data[error.start]
        raise RowError(
            "", f"is not UTF-8: byte 0x{wrong:02x} at position {error.start + 1} of the row"
        ) from None
    return text


def parse_json(data: bytes, limits: Limits) -> object:
    """One JSON value: no twin keys, no NaN, no number beyond 64 bits, no deep nesting.

    >>> parse_json(b'{"text": "Hi"}', Limits())
    {'text': 'Hi'}
    """
    if b"\0" in data:
        raise RowError("", "holds a NUL byte")
    text = decode(data)
    if _depth_is_above(data, limits.max_depth):
        raise RowError("", f"is nested deeper than {limits.max_depth} levels")
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise RowError("", f"is not JSON: {error.msg} at character {error.pos + 1}") from None


def text_problem(text: str) -> str | None:
    """What no text may hold: NUL, and halves of characters that cannot be written as UTF-8.

    >>> text_problem("a\\0b")
    'holds a NUL character'
    """
    if "\0" in text:
        return "holds a NUL character"
    if text.isascii():
        return None
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "holds half of a character (a lone surrogate)"
    return None


def _depth_is_above(data: bytes, limit: int) -> bool:
    """Counted before parsing, since the parser itself recurses."""
    if data.count(b"[") + data.count(b"{") <= limit:
        return False
    depth = 0
    for found in JSON_SHAPE.finditer(data):
        first = found.group()[:1]
        if first in b"[{":
            depth += 1
            if depth > limit:
                return True
        elif first in b"]}":
            depth -= 1
    return False


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twin = next(key for key in keys if keys.count(key) > 1)
        raise RowError(shown(twin), "stands twice in one object")
    return found


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise RowError("", f"holds the number {digits[:20]}, which is too large")
    return number


def _whole(digits: str) -> int:
    if len(digits.lstrip("-")) > DIGITS_AT_MOST:
        raise RowError("", f"holds a whole number of more than {DIGITS_AT_MOST} digits")
    return int(digits)


def _no_constant(name: str) -> float:
    raise RowError("", f"holds {name}, which is not a number JSON knows")


_constant: Callable[[str], float] = _no_constant
_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique_keys,
    parse_float=_finite,
    parse_int=_whole,
    parse_constant=_constant,
)
