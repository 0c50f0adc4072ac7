"""The starter data as values: read strictly, once, from the files beside this one."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TypeVar

from amenable.datasets.containers.jsonl import rows_of_lines
from amenable.datasets.containers.raw import RawRow
from amenable.datasets.examples import ConversationExample, TextExample
from amenable.datasets.fields import Fields
from amenable.datasets.readers.messages import read_messages
from amenable.datasets.readers.prompts import read_prompt
from amenable.datasets.readers.text import read_text
from amenable.datasets.strict import Limits, Problem, RowError
from amenable.records.check import Check
from amenable.records.conversation import Conversation
from amenable.records.errors import DataError

T = TypeVar("T")
STARTER_LICENCE = "CC0-1.0"


@dataclass(frozen=True, slots=True)
class StarterPrompt:
    """A request that ends with the user, and what a reply to it can be held against."""

    key: str
    family: str
    conversation: Conversation
    checks: tuple[Check, ...]


@cache
def demonstrations() -> tuple[ConversationExample, ...]:
    """All families, in the order of their names."""
    return tuple(_read("demonstrations", read_messages))


@cache
def feedback_prompts() -> tuple[StarterPrompt, ...]:
    """Prompts to judge replies to; their checks are of other kinds than those of the evaluation."""
    return _prompts("feedback.jsonl")


@cache
def evaluation_prompts() -> tuple[StarterPrompt, ...]:
    """Prompts to measure with; nobody trains on them."""
    return _prompts("evaluation.jsonl")


@cache
def plain_texts() -> tuple[TextExample, ...]:
    """Text to measure perplexity on."""
    return tuple(_read("text", read_text))


def fingerprint(bodies: Sequence[object]) -> str:
    """The sha256 of rows as they are kept, the same on every machine."""
    return hashlib.sha256(json.dumps(bodies, sort_keys=True).encode()).hexdigest()


def _prompts(file: str) -> tuple[StarterPrompt, ...]:
    return tuple(
        StarterPrompt(found.key, found.family, found.conversation, found.checks)
        for found in _read("prompts", read_prompt, only=file)
    )


def _read(folder: str, reader: Callable[[Fields], T], only: str = "") -> Iterator[T]:
    """Rows of one file or of all, by name; a broken one is named, for whoever edits these files."""
    here = files("amenable.starter") / folder
    for file in sorted(here.iterdir(), key=lambda each: each.name):
        if not file.name.endswith(".jsonl") or (only and file.name != only):
            continue
        for raw in rows_of_lines([file.read_bytes()], Limits()):
            row = raw if isinstance(raw, Problem) else _read_row(reader, raw)
            if isinstance(row, Problem):
                raise DataError(f"starter/{folder}/{file.name}, {row}.")
            yield row


def _read_row(reader: Callable[[Fields], T], raw: RawRow) -> T | Problem:
    try:
        return reader(raw.fields)
    except RowError as error:
        return error.at(raw.number)
