"""Requests without replies, and requests with one reply."""

from amenable.datasets.examples import ConversationExample, PromptExample
from amenable.datasets.fields import Fields, checked_text, in_order, prompt_of
from amenable.datasets.readers.messages import with_system
from amenable.datasets.strict import RowError
from amenable.records.conversation import Conversation, Message


def read_prompt(row: Fields) -> PromptExample:
    """A `prompt` as text or turns; or `messages` that end with the user."""
    if not row.has("prompt") and row.has("messages"):
        conversation = with_system(row, "messages", row.turns("messages"))
        prompt = prompt_of("messages", conversation)
    else:
        prompt = explicit_prompt(row)
    return PromptExample(
        conversation=prompt, key=row.name("id"), family=row.name("family"), checks=row.checks()
    )


def read_prompt_completion(row: Fields) -> ConversationExample:
    prompt = explicit_prompt(row)
    return ConversationExample(
        conversation=prompt.with_reply(reply_text(row, "completion")),
        key=row.name("id"),
        family=row.name("family"),
        checks=row.checks(),
    )


def explicit_prompt(row: Fields) -> Conversation:
    """What stands under `prompt`, with the system prompt that may stand beside it."""
    prompt = row.text_or_turns("prompt")
    messages = (Message("user", prompt),) if isinstance(prompt, str) else prompt
    return prompt_of("prompt", with_system(row, "prompt", in_order("prompt", messages)))


def reply_text(row: Fields, key: str) -> str:
    """A reply as text or as the one turn of the assistant."""
    reply = row.text_or_turns(key)
    if isinstance(reply, str):
        return reply
    if len(reply) != 1 or reply[0].role != "assistant":
        raise RowError(key, "has other turns than one of the assistant")
    return checked_text(key, reply[0].text)
