"""What was said, and by whom."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self, get_args

Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns as they were said: one optional system message, then user and assistant in turn.

    >>> Conversation.of(("user", "Hi")).with_reply("Hello!").messages[-1].role
    'assistant'
    """

    messages: tuple[Message, ...]

    @classmethod
    def of(cls, *turns: tuple[Role, str]) -> Self:
        return cls(tuple(Message(role, text) for role, text in turns))

    @classmethod
    def from_json(cls, messages: Sequence[Mapping[str, object]]) -> Self:
        """Read the form of OpenAI's messages; a ValueError says what is wrong with which turn."""
        turns: list[Message] = []
        for position, message in enumerate(messages):
            role, text = message.get("role"), message.get("content")
            if role not in ROLES:
                raise ValueError(
                    f"turn {position + 1} has the role {role!r}; known are {', '.join(ROLES)}"
                )
            if not isinstance(text, str):
                raise ValueError(f"turn {position + 1} has no text under 'content'")
            turns.append(Message(role, text))
        conversation = cls(tuple(turns))
        if problem := conversation.problem():
            raise ValueError(problem)
        return conversation

    def to_json(self) -> list[dict[str, str]]:
        return [{"role": message.role, "content": message.text} for message in self.messages]

    def problem(self) -> str | None:
        """What breaks the order of turns, in words; None if nothing does.

        >>> Conversation.of(("user", "Hi"), ("user", "Hello?")).problem()
        'turn 2 is by user, but assistant speaks next'
        """
        spoken = self.without_system().messages
        if not spoken:
            return "nobody says anything"
        first = len(self.messages) - len(spoken) + 1
        for position, message in enumerate(spoken):
            expected = "user" if position % 2 == 0 else "assistant"
            if message.role != expected:
                return f"turn {first + position} is by {message.role}, but {expected} speaks next"
        return None

    @property
    def system(self) -> str | None:
        first = self.messages[:1]
        return first[0].text if first and first[0].role == "system" else None

    def without_system(self) -> "Conversation":
        return Conversation(self.messages[1:] if self.system is not None else self.messages)

    def with_reply(self, text: str) -> "Conversation":
        return Conversation((*self.messages, Message("assistant", text)))

    def split_reply(self) -> tuple["Conversation", str]:
        """The prompt, and the assistant's last words.

        >>> Conversation.of(("user", "Hi"), ("assistant", "Hello!")).split_reply()[1]
        'Hello!'
        """
        *prompt, last = self.messages
        if last.role != "assistant":
            raise ValueError("the last turn is not the assistant's")
        return Conversation(tuple(prompt)), last.text

    def last_user_text(self) -> str:
        return next(message.text for message in reversed(self.messages) if message.role == "user")
