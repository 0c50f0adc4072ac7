"""OpenAI messages and ShareGPT conversations: demonstrations as lists of turns."""

from amenable.datasets.examples import ConversationExample
from amenable.datasets.fields import Fields, demonstration_of, in_order
from amenable.datasets.strict import RowError
from amenable.records.conversation import Conversation, Message


def read_messages(row: Fields) -> ConversationExample:
    return _demonstration(row, "messages")


def read_sharegpt(row: Fields) -> ConversationExample:
    return _demonstration(row, "conversations")


def with_system(row: Fields, key: str, conversation: Conversation) -> Conversation:
    """The turns, with the system prompt that may stand beside them under its own key."""
    system = row.optional_text("system")
    if not system:
        return conversation
    if conversation.system is not None:
        raise RowError("system", f"is given twice: here and as the first turn of {key!r}")
    return in_order(key, [Message("system", system), *conversation.messages])


def _demonstration(row: Fields, key: str) -> ConversationExample:
    conversation = with_system(row, key, row.turns(key))
    return ConversationExample(
        conversation=demonstration_of(key, conversation),
        key=row.name("id"),
        family=row.name("family"),
        checks=row.checks(),
    )
