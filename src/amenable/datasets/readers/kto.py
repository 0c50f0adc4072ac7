"""Rated replies (KTO): a prompt, one reply, and whether it is good."""

from amenable.datasets.examples import RatedExample
from amenable.datasets.fields import Fields, demonstration_of
from amenable.datasets.readers.alpaca import alpaca_prompt
from amenable.datasets.readers.messages import with_system
from amenable.datasets.readers.prompts import explicit_prompt, reply_text
from amenable.records.conversation import Conversation


def read_kto(row: Fields) -> RatedExample:
    """`prompt`, `completion`, `label`; or LLaMA-Factory's `kto_tag` beside any demonstration."""
    prompt, reply = _said(row)
    label = "kto_tag" if row.has("kto_tag") and not row.has("label") else "label"
    return RatedExample(prompt=prompt, reply=reply, is_good=row.flag(label))


def _said(row: Fields) -> tuple[Conversation, str]:
    for key in ("messages", "conversations"):
        if row.has(key):
            conversation = with_system(row, key, row.turns(key))
            return demonstration_of(key, conversation).split_reply()
    if row.has("instruction") and not row.has("prompt"):
        return alpaca_prompt(row), row.text("output")
    return explicit_prompt(row), reply_text(row, "completion")
