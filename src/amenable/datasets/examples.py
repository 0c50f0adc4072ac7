"""The one internal form of a row, whatever file it came from; kept as `ExampleRow.body`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self, cast

from amenable.records.check import Check
from amenable.records.conversation import Conversation

Body = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationExample:
    """A demonstration: a conversation whose last turn is the assistant's.

    >>> said = Conversation.of(("user", "Hi"), ("assistant", "Hello!"))
    >>> ConversationExample(conversation=said).to_json()["type"]
    'conversation'
    """

    conversation: Conversation
    key: str = ""
    family: str = ""
    checks: tuple[Check, ...] = ()

    @property
    def prompt(self) -> Conversation:
        return self.conversation.split_reply()[0]

    def to_json(self) -> dict[str, object]:
        messages = self.conversation.to_json()
        return {"type": "conversation", "messages": messages, **_about(self)}

    @classmethod
    def from_json(cls, body: Body) -> Self:
        return cls(
            conversation=_conversation(body, "messages"),
            key=_text(body, "key"),
            family=_text(body, "family"),
            checks=_checks(body),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptExample:
    """A request without a reply, with the checks that a reply can be held against."""

    conversation: Conversation
    key: str = ""
    family: str = ""
    checks: tuple[Check, ...] = ()

    @property
    def prompt(self) -> Conversation:
        return self.conversation

    def to_json(self) -> dict[str, object]:
        return {"type": "prompt", "messages": self.conversation.to_json(), **_about(self)}

    @classmethod
    def from_json(cls, body: Body) -> Self:
        return cls(
            conversation=_conversation(body, "messages"),
            key=_text(body, "key"),
            family=_text(body, "family"),
            checks=_checks(body),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceExample:
    """Two replies to one prompt, of which somebody preferred the first."""

    prompt: Conversation
    chosen: str
    rejected: str
    margin: float = 0.0
    """How much better the chosen one is: what a reward model's scores are to differ by."""
    weight: float = 1.0
    """How much this judgement counts beside others."""

    def to_json(self) -> dict[str, object]:
        prompt = self.prompt.to_json()
        return {
            "type": "preference",
            "prompt": prompt,
            "chosen": self.chosen,
            "rejected": self.rejected,
            **_unusual(self, margin=0.0, weight=1.0),
        }

    @classmethod
    def from_json(cls, body: Body) -> Self:
        return cls(
            prompt=_conversation(body, "prompt"),
            chosen=_text(body, "chosen"),
            rejected=_text(body, "rejected"),
            margin=_number(body, "margin", 0.0),
            weight=_number(body, "weight", 1.0),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingExample:
    """Several replies to one prompt, with a rank each: 1 is the best, equal ones are ties."""

    prompt: Conversation
    replies: tuple[str, ...]
    ranks: tuple[int, ...]
    weight: float = 1.0
    """How much the whole ranking counts beside one pair."""

    def to_json(self) -> dict[str, object]:
        return {
            "type": "ranking",
            "prompt": self.prompt.to_json(),
            "replies": list(self.replies),
            "ranks": list(self.ranks),
            **_unusual(self, weight=1.0),
        }

    @classmethod
    def from_json(cls, body: Body) -> Self:
        return cls(
            prompt=_conversation(body, "prompt"),
            replies=tuple(cast("list[str]", body["replies"])),
            ranks=tuple(cast("list[int]", body["ranks"])),
            weight=_number(body, "weight", 1.0),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RatedExample:
    """One reply with a thumb up or down."""

    prompt: Conversation
    reply: str
    is_good: bool

    def to_json(self) -> dict[str, object]:
        prompt = self.prompt.to_json()
        return {"type": "rated", "prompt": prompt, "reply": self.reply, "is_good": self.is_good}

    @classmethod
    def from_json(cls, body: Body) -> Self:
        return cls(
            prompt=_conversation(body, "prompt"),
            reply=_text(body, "reply"),
            is_good=body["is_good"] is True,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TextExample:
    """Plain text that nobody says to anybody."""

    text: str

    def to_json(self) -> dict[str, object]:
        return {"type": "text", "text": self.text}

    @classmethod
    def from_json(cls, body: Body) -> Self:
        return cls(text=_text(body, "text"))


Example = (
    ConversationExample
    | PromptExample
    | PreferenceExample
    | RankingExample
    | RatedExample
    | TextExample
)

EXAMPLE_TYPES: dict[str, type[Example]] = {
    "conversation": ConversationExample,
    "prompt": PromptExample,
    "preference": PreferenceExample,
    "ranking": RankingExample,
    "rated": RatedExample,
    "text": TextExample,
}


def example_from_json(body: Body) -> Example:
    """The example that `to_json` wrote.

    >>> example_from_json({"type": "text", "text": "By the sea."})
    TextExample(text='By the sea.')
    """
    return EXAMPLE_TYPES[_text(body, "type")].from_json(body)


def opening(example: Example) -> str:
    """What a person said first, or the whole of a plain text: rows that share it belong together.

    >>> opening(PromptExample(conversation=Conversation.of(("system", "Be kind."), ("user", "Hi"))))
    'Hi'
    """
    if isinstance(example, TextExample):
        return example.text
    return example.prompt.without_system().messages[0].text


def _about(example: ConversationExample | PromptExample) -> dict[str, object]:
    checks = [check.to_json() for check in example.checks]
    return {"key": example.key, "family": example.family, "checks": checks}


def _unusual(example: object, **usual: float) -> dict[str, object]:
    """What differs from the usual: rows of files that never say it stay as they were kept."""
    values = {name: getattr(example, name) for name in usual}
    return {name: value for name, value in values.items() if value != usual[name]}


def _number(body: Body, key: str, usual: float) -> float:
    value = body.get(key, usual)
    if not isinstance(value, int | float):
        raise TypeError(
            f"a kept example has {value!r} under {key!r}, which was written as a number"
        )
    return float(value)


def _text(body: Body, key: str) -> str:
    value = body.get(key, "")
    if not isinstance(value, str):
        raise TypeError(f"a kept example has {value!r} under {key!r}, which was written as text")
    return value


def _conversation(body: Body, key: str) -> Conversation:
    return Conversation.from_json(_objects(body, key))


def _checks(body: Body) -> tuple[Check, ...]:
    return tuple(Check.from_json(each) for each in _objects(body, "checks"))


def _objects(body: Body, key: str) -> Sequence[Mapping[str, object]]:
    value = body.get(key, [])
    if not isinstance(value, list):
        raise TypeError(f"a kept example has {value!r} under {key!r}, which was written as a list")
    return value
