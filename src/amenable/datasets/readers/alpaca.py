"""Alpaca rows: an instruction, perhaps an input to it, and the output."""

from amenable.datasets.examples import ConversationExample
from amenable.datasets.fields import Fields, in_order
from amenable.datasets.strict import RowError
from amenable.records.conversation import Conversation, Message

PAIR = "a list of pairs, each of what the user and the assistant said"


def read_alpaca(row: Fields) -> ConversationExample:
    prompt = alpaca_prompt(row)
    return ConversationExample(
        conversation=prompt.with_reply(row.text("output")),
        key=row.name("id"),
        family=row.name("family"),
        checks=row.checks(),
    )


def alpaca_prompt(row: Fields) -> Conversation:
    """System, earlier turns, then the instruction with its input below it."""
    request = row.text("instruction")
    if given := row.optional_text("input"):
        request = f"{request}\n\n{given}"
    messages = [*_system(row), *_history(row), Message("user", request)]
    return in_order("instruction", messages)


def _system(row: Fields) -> list[Message]:
    system = row.optional_text("system")
    return [Message("system", system)] if system else []


def _history(row: Fields) -> list[Message]:
    if not row.has("history") or row.values["history"] == []:
        return []
    messages: list[Message] = []
    for position, pair in enumerate(row.items("history", PAIR), 1):
        if not isinstance(pair, list) or len(pair) != 2:
            raise RowError("history", f"item {position} is not a pair, expected {PAIR}")
        asked, replied = pair
        if not isinstance(asked, str) or not isinstance(replied, str):
            raise RowError("history", f"item {position} is not a pair of texts")
        messages += [Message("user", asked), Message("assistant", replied)]
    return messages
