"""What an evaluation prompt is, wherever it came from: starter data, a file, people's own exam."""

from collections.abc import Sequence
from typing import Protocol

from amenable.records.check import Check
from amenable.records.conversation import Conversation
from amenable.records.seeds import seed_for


class EvaluationPrompt(Protocol):
    """Structural, so that a room beside this one can hand over its own rows."""

    @property
    def key(self) -> str: ...
    @property
    def family(self) -> str: ...
    @property
    def conversation(self) -> Conversation: ...
    @property
    def checks(self) -> Sequence[Check]: ...


def has_several_turns(conversation: Conversation) -> bool:
    """Whether the assistant has spoken before.

    >>> has_several_turns(Conversation.of(("system", "Be brief."), ("user", "Hi")))
    False
    """
    return any(message.role == "assistant" for message in conversation.messages)


def spread(keys_by_family: dict[str, list[str]], wanted: int, seed: int) -> set[str]:
    """Draw so many keys, one family after the other, so that none dominates.

    >>> sorted(spread({"a": ["a1", "a2", "a3"], "b": ["b1"]}, wanted=2, seed=0))[1]
    'b1'
    """
    shuffled = {
        family: sorted(keys, key=lambda key: (seed_for(seed, "spread", key), key))
        for family, keys in sorted(keys_by_family.items())
    }
    rounds = max(map(len, shuffled.values()), default=0)
    in_turn = [keys[at] for at in range(rounds) for keys in shuffled.values() if at < len(keys)]
    return set(in_turn[:wanted])
