"""Which kind of row a file holds: told by its keys, or given."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from amenable.datasets.examples import Example
from amenable.datasets.fields import YES_NO, Fields
from amenable.datasets.readers.alpaca import read_alpaca
from amenable.datasets.readers.kto import read_kto
from amenable.datasets.readers.messages import read_messages, read_sharegpt
from amenable.datasets.readers.preference import read_preference
from amenable.datasets.readers.prompts import read_prompt, read_prompt_completion
from amenable.datasets.readers.ranking import read_ranking
from amenable.datasets.readers.text import read_text
from amenable.records.errors import NotFoundError


@dataclass(frozen=True, slots=True)
class Kind:
    """A form of rows: how it is recognised, in words and by rule, and how it is read."""

    name: str
    keys: str
    fits: Callable[[Fields], bool]
    read: Callable[[Fields], Example]


def _rated(row: Fields) -> bool:
    if row.has("kto_tag"):
        return True
    # Many benchmarks have another sort of `label`; a missing one is a bad row of this kind.
    label = row.values.get("label", "")
    told = label is None or isinstance(label, bool) or (row.is_csv and str(label).lower() in YES_NO)
    return told and row.has("prompt") and row.has("completion")


def _ends_with_user(row: Fields) -> bool:
    messages = row.values.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    return isinstance(last, dict) and last.get("role") == "user"


# The first that fits is taken: those with more keys stand before those with fewer.
KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "kto",
            "prompt, completion, label (or kto_tag)",
            _rated,
            read_kto,
        ),
        Kind(
            "preference",
            "chosen, rejected, perhaps prompt, margin, weight",
            lambda row: (
                ("chosen" in row.values and "rejected" in row.values)
                or ("chosen_response" in row.values and "rejected_response" in row.values)
            ),
            read_preference,
        ),
        Kind(
            "ranking",
            "prompt, replies, ranks (1 is the best)",
            lambda row: "replies" in row.values and "ranks" in row.values,
            read_ranking,
        ),
        Kind(
            "messages",
            "messages of role and content, the last by the assistant",
            lambda row: "messages" in row.values and not _ends_with_user(row),
            read_messages,
        ),
        Kind(
            "sharegpt",
            "conversations of from and value",
            lambda row: "conversations" in row.values,
            read_sharegpt,
        ),
        Kind(
            "prompt-completion",
            "prompt, completion",
            lambda row: "prompt" in row.values and "completion" in row.values,
            read_prompt_completion,
        ),
        Kind(
            "alpaca",
            "instruction, output, perhaps input, system, history",
            lambda row: "instruction" in row.values and "output" in row.values,
            read_alpaca,
        ),
        Kind("text", "text", lambda row: "text" in row.values, read_text),
        Kind(
            "prompt-only",
            "prompt (or messages, the last by the user)",
            lambda row: "prompt" in row.values or _ends_with_user(row),
            read_prompt,
        ),
    )
}
ALIASES = {"openai": "messages", "prompt": "prompt-only", "plain-text": "text", "rated": "kto"}

# All a reader ever looks at; columns of a Parquet file beyond these are not even unpacked.
WANTED_KEYS = (
    *("id", "family", "checks", "system", "messages", "conversations", "text", "prompt"),
    *("completion", "label", "kto_tag", "chosen", "rejected", "chosen_response"),
    *("rejected_response", "margin", "weight", "replies", "ranks"),
    *("instruction", "input", "output", "history"),
)


def kind_named(name: str) -> Kind:
    """The kind of that name.

    >>> kind_named("prompt_completion").keys
    'prompt, completion'
    """
    plain = name.strip().lower().replace("_", "-")
    plain = ALIASES.get(plain, plain)
    if plain not in KINDS:
        raise NotFoundError("kind of data", name, known=KINDS)
    return KINDS[plain]


def kind_of(row: Fields) -> Kind | None:
    """The kind this one row looks like.

    >>> found = kind_of(Fields({"instruction": "Add 2 and 3.", "output": "5"}))
    >>> found and found.name
    'alpaca'
    """
    return next((kind for kind in KINDS.values() if kind.fits(row)), None)


def detect(rows: Iterable[Fields]) -> Kind | None:
    """The kind that most of these rows look like; the first seen wins a tie."""
    votes = Counter(kind.name for row in rows if (kind := kind_of(row)) is not None)
    return KINDS[votes.most_common(1)[0][0]] if votes else None


def known_kinds() -> str:
    """All kinds with their keys, for a message.

    >>> known_kinds().split("; ")[-2]
    'text (text)'
    """
    return "; ".join(f"{kind.name} ({kind.keys})" for kind in KINDS.values())
