"""Preferences: a chosen and a rejected reply, with the prompt beside them or inside both."""

import re
from collections.abc import Sequence
from dataclasses import replace

from amenable.datasets.examples import PreferenceExample
from amenable.datasets.fields import Fields, checked_text, in_order, prompt_of
from amenable.datasets.readers.alpaca import alpaca_prompt
from amenable.datasets.readers.messages import with_system
from amenable.datasets.readers.prompts import explicit_prompt
from amenable.datasets.strict import RowError
from amenable.records.conversation import Conversation, Message, Role

DIALOGUE_START = re.compile(r"\A\s*Human:")
SPEAKER = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
SPEAKERS: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}


def read_preference(row: Fields) -> PreferenceExample:
    """Two replies as texts, as one turn each, or as whole conversations with the same opening.

    Beside them may stand `margin`, how much better the chosen one is, and `weight`.
    """
    chosen_key, rejected_key = _keys(row)
    chosen, rejected = row.text_or_turns(chosen_key), row.text_or_turns(rejected_key)
    stated = _stated_prompt(row)
    if isinstance(chosen, str) and isinstance(rejected, str):
        example = _of_texts(stated, chosen, rejected)
    elif isinstance(chosen, tuple) and isinstance(rejected, tuple):
        example = _of_turns(row, stated, chosen, rejected)
    else:
        raise RowError(rejected_key, f"has another form than {chosen_key!r}: text beside turns")
    return replace(
        _telling(example, rejected_key),
        margin=row.number("margin", usual=0.0, least=0.0, most=10.0),
        weight=row.number("weight", usual=1.0, least=0.01, most=100.0),
    )


def _keys(row: Fields) -> tuple[str, str]:
    if row.has("chosen_response") or row.has("rejected_response"):
        return "chosen_response", "rejected_response"
    return "chosen", "rejected"


def _stated_prompt(row: Fields) -> Conversation | None:
    if "prompt" in row.values:
        return explicit_prompt(row)
    if "instruction" in row.values:
        return alpaca_prompt(row)
    for key in ("conversations", "messages"):
        if key in row.values:
            return prompt_of(key, with_system(row, key, row.turns(key)))
    return None


def _of_texts(stated: Conversation | None, chosen: str, rejected: str) -> PreferenceExample:
    if stated is not None:
        return PreferenceExample(prompt=stated, chosen=chosen, rejected=rejected)
    if DIALOGUE_START.match(chosen) and DIALOGUE_START.match(rejected):
        return _of_dialogues(_dialogue("chosen", chosen), _dialogue("rejected", rejected))
    shared = _shared_words(chosen, rejected)
    if not shared.strip():
        raise RowError(
            "prompt", "is missing, and 'chosen' and 'rejected' share no opening to take it from"
        )
    return PreferenceExample(
        prompt=Conversation.of(("user", shared.strip())),
        chosen=checked_text("chosen", chosen[len(shared) :], "after the shared opening"),
        rejected=checked_text("rejected", rejected[len(shared) :], "after the shared opening"),
    )


def _of_turns(
    row: Fields, stated: Conversation | None, chosen: Sequence[Message], rejected: Sequence[Message]
) -> PreferenceExample:
    if stated is not None and len(chosen) == len(rejected) == 1:
        before = stated.messages
        return _of_dialogues(
            in_order("chosen", [*before, *chosen]), in_order("rejected", [*before, *rejected])
        )
    found = _of_dialogues(in_order("chosen", chosen), in_order("rejected", rejected))
    if stated is None:
        return replace(found, prompt=with_system(row, "chosen", found.prompt))
    if stated.without_system() != found.prompt.without_system():
        raise RowError("chosen", "opens with other turns than the prompt")
    return found if stated.system is None else replace(found, prompt=stated)


def _of_dialogues(chosen: Conversation, rejected: Conversation) -> PreferenceExample:
    for key, dialogue in (("chosen", chosen), ("rejected", rejected)):
        if dialogue.messages[-1].role != "assistant":
            raise RowError(key, "the last turn is the user's, expected the assistant's reply")
    prompt, good = chosen.split_reply()
    other, bad = rejected.split_reply()
    if prompt != other:
        raise RowError("rejected", "differs from 'chosen' before the last turn")
    return PreferenceExample(prompt=prompt, chosen=good, rejected=bad)


def _dialogue(key: str, text: str) -> Conversation:
    """Anthropic's form: "Human: …", a blank line, "Assistant: …"."""
    parts = SPEAKER.split(text)[1:]
    turns = zip(parts[::2], parts[1::2], strict=True)
    return in_order(key, [Message(SPEAKERS[who], said.strip()) for who, said in turns])


def _shared_words(left: str, right: str) -> str:
    """The opening that both share, cut back to whole words.

    >>> _shared_words("The sky is blue.", "The sky is black.")
    'The sky is '
    """
    differs = next(
        (n for n, pair in enumerate(zip(left, right, strict=False)) if pair[0] != pair[1]), None
    )
    shared = left[:differs] if differs is not None else min(left, right, key=len)
    return shared[: max(shared.rfind(" "), shared.rfind("\n")) + 1]


def _telling(example: PreferenceExample, rejected_key: str) -> PreferenceExample:
    if example.chosen == example.rejected:
        raise RowError(rejected_key, "is the same text as the chosen reply, which teaches nothing")
    return example
